// Package crypto_test proves the device's SHA-256, ECDSA P-256 verification, AES-128 and AES-CMAC
// (firmware-stub/src/sow_{sha256,p256,aes}) against published vectors and the Go standard library.
//
// The C sources are compiled with the address and undefined-behaviour sanitizers into a driver
// process that the tests talk to over pipes, so no cgo is involved and any sanitizer report fails
// the test. The compiler is $CC, else cc. With SOWER_TARGET=cortex-m0plus or cortex-m4 the driver is
// compiled for that processor instead and runs in QEMU.
package crypto_test

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const srcDir = "../../src"

// driver is one running process of driver/driver.c. It serves one goroutine.
type driver struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// workDir holds the compiled driver. TestMain makes and removes it.
var workDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sow-crypto")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	workDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// driverCommand compiles the driver once and returns the command that runs it. It is called by
// tests only: what is read before m.Run does not count as an input of a cached result.
var driverCommand = sync.OnceValues(func() ([]string, error) {
	return compile(workDir, os.Getenv("SOWER_TARGET"))
})

// compile builds the driver in dir, for the host if target is empty, and returns the command
// that runs it.
func compile(dir, target string) ([]string, error) {
	bin := filepath.Join(dir, "driver")
	args := []string{"-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-I", srcDir, "-o", bin, "driver/driver.c"}
	for _, name := range []string{"sow_sha256", "sow_p256", "sow_aes"} {
		args = append(args, filepath.Join(srcDir, name+".c"))
	}
	cc, run := os.Getenv("CC"), []string{bin}
	if cc == "" {
		cc = "cc"
	}
	if target == "" {
		args = append(args, "-pedantic", "-O2", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
	} else {
		machine, ok := map[string]string{"cortex-m0plus": "mps2-an385", "cortex-m4": "mps2-an386"}[target]
		if !ok {
			return nil, fmt.Errorf("SOWER_TARGET=%s: want cortex-m0plus or cortex-m4", target)
		}
		cc = "arm-none-eabi-gcc"
		args = append(args, "-mcpu="+target, "-mthumb", "-Os", "-Wl,--no-warn-rwx-segments",
			"--specs=rdimon.specs", "-T", "driver/target.ld", "driver/target.c")
		run = []string{
			"qemu-system-arm", "-M", machine, "-display", "none", "-monitor", "none", "-serial", "none",
			"-semihosting-config", "enable=on,target=native", "-kernel", bin,
		}
	}
	if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the driver with %s (CC selects the compiler of the host; it needs sanitizers): %w\n%s", cc, err, out)
	}
	return run, nil
}

// startDriver starts a driver that ends with the test.
func startDriver(t *testing.T) *driver {
	t.Helper()
	// Reading the sources makes them inputs of the test: its cached result is not reused when
	// only they have changed.
	sources, err := filepath.Glob(filepath.Join(srcDir, "sow_*.[ch]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(sources, "driver/driver.c") {
		if _, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	command, err := driverCommand()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command[0], command[1:]...)
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
	return &driver{in: in, out: bufio.NewReader(out)}
}

// ask sends one request of driver.c and returns the answer.
func (d *driver) ask(t *testing.T, verb string, args ...any) string {
	t.Helper()
	req := []string{verb}
	for _, a := range args {
		switch a := a.(type) {
		case []byte:
			if len(a) == 0 {
				req = append(req, "-")
				break
			}
			req = append(req, hex.EncodeToString(a))
		default:
			req = append(req, fmt.Sprint(a))
		}
	}
	if _, err := fmt.Fprintln(d.in, strings.Join(req, " ")); err != nil {
		t.Fatalf("%s: %v", verb, err)
	}
	line, err := d.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: the driver ended: %v", verb, err)
	}
	return strings.TrimSuffix(line, "\n")
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
