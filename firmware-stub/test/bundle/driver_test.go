// Package bundle_test proves that Go, C and OpenSSL agree on bundles: what package bundle signs,
// firmware-stub/src/sow_manifest.c parses and verifies, and a whole device installs; and each thing a device must
// not install is refused with its own cause.
//
// The C sources are compiled with the address and undefined-behaviour sanitizers into a driver process that the
// tests talk to over pipes. The compiler is $CC, else cc.
package bundle_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/bundle"
)

const root = "../.."

// workDir holds the compiled driver. TestMain makes and removes it.
var workDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sow-bundle")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	workDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func sources() []string {
	var out []string
	for _, name := range strings.Fields("flash log parity store fec core judge write image manifest patch sha256 p256 aes cipher") {
		out = append(out, filepath.Join(root, "src", "sow_"+name+".c"))
	}
	return append(out, filepath.Join(root, "boot", "sow_boot.c"), filepath.Join(root, "boot", "sow_boot_request.c"),
		filepath.Join(root, "ports", "posix", "sow_flash_emu.c"), filepath.Join("driver", "driver.c"))
}

// driverPath compiles the driver once. It is called by tests only: what is read before m.Run does not count as an
// input of a cached result.
var driverPath = sync.OnceValues(func() (string, error) {
	bin := filepath.Join(workDir, "driver")
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	args := []string{"-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O1", "-g",
		"-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", bin}
	for _, dir := range []string{"include", "src", "boot", "ports/posix"} {
		args = append(args, "-I", filepath.Join(root, dir))
	}
	if out, err := exec.Command(cc, append(args, sources()...)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the driver with %s (CC selects the compiler; it needs sanitizers): %w\n%s", cc, err, out)
	}
	return bin, nil
})

// driver is one running process of driver/driver.c.
type driver struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

// start returns a driver that ends with the test.
func start(t *testing.T) *driver {
	t.Helper()
	// Reading the sources makes them inputs of the test: its cached result is not reused when only they changed.
	for _, name := range sources() {
		if _, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"include", "src", "boot"} {
		headers, err := filepath.Glob(filepath.Join(root, dir, "*.h"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range headers {
			if _, err := os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	bin, err := driverPath()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil { // leaks and sanitizer reports end up here
			t.Errorf("driver: %v", err)
		}
	})
	return &driver{t: t, in: in, out: bufio.NewReader(out)}
}

// ask sends one request of driver.c and returns the answer. Bytes go in hexadecimal.
func (d *driver) ask(words ...any) string {
	d.t.Helper()
	for i, w := range words {
		switch w := w.(type) {
		case []byte:
			words[i] = fmt.Sprintf("%x", w)
		case [64]byte:
			words[i] = fmt.Sprintf("%x", w)
		}
	}
	if _, err := fmt.Fprintln(d.in, words...); err != nil {
		d.t.Fatal(err)
	}
	line, err := d.out.ReadString('\n')
	if err != nil {
		d.t.Fatalf("driver: %v after %.60v", err, words)
	}
	return strings.TrimSuffix(line, "\n")
}

// do is ask for what must succeed.
func (d *driver) do(words ...any) {
	d.t.Helper()
	if got := d.ask(words...); got != "ok" {
		d.t.Fatalf("%.60v: %s, want ok", words, got)
	}
}

// verify returns what sow_manifest_verify says of the manifest at the start of block.
func (d *driver) verify(block []byte) diag.Cause {
	d.t.Helper()
	got := d.ask("verify", block[:bundle.ManifestSize])
	if got == "ok" {
		return diag.CauseOK
	}
	var c uint8
	if _, err := fmt.Sscan(got, &c); err != nil {
		d.t.Fatalf("driver answered %q", got)
	}
	return diag.Cause(c)
}

// send broadcasts a block and returns where and why it was refused; CauseOK: the image is ready.
func (d *driver) send(block []byte) (diag.Step, diag.Cause) {
	d.t.Helper()
	got := d.ask("send", block)
	if got == "ready" {
		return diag.StepReady, diag.CauseOK
	}
	var s, c uint8
	if _, err := fmt.Sscan(got, &s, &c); err != nil {
		d.t.Fatalf("driver answered %q", got)
	}
	return diag.Step(s), diag.Cause(c)
}
