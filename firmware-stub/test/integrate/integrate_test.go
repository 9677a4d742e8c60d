// Package integrate_test keeps docs/integrate.md true: its code blocks are compiled for a Cortex-M0+ as they stand,
// its programs run in the emulator, its layouts and its table are computed again.
package integrate_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/budget"
)

const page = "../../../docs/integrate.md"

var (
	fence = regexp.MustCompile("(?ms)^```(\\w+) (\\S+)\n(.*?)^```$")
	row   = regexp.MustCompile(`(?m)^\| (\d+) \| (\d+) \| ([\d.]+) KiB \| (\d+) KiB \| (\d+) KiB \| (\d+) KiB \| (\d+) \|$`)
)

// blocks returns the files on the page.
func blocks(t *testing.T) (text string, files map[string]string) {
	t.Helper()
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for _, m := range fence.FindAllStringSubmatch(string(raw), -1) {
		if files[m[2]] != "" {
			t.Errorf("two blocks are called %s", m[2])
		}
		files[m[2]] = m[3]
	}
	if len(files) < 9 {
		t.Fatalf("%d files on the page", len(files))
	}
	return string(raw), files
}

// linkage is what a program of the page is linked with: a linker script, and from the library all but the objects that
// a pattern of the shell names.
type linkage struct{ script, without string }

var (
	alone       = linkage{"doc.ld", "sow_services_*.o"}
	withTable   = linkage{"doc.ld", "sow_services_app.o"}
	overService = linkage{"slot.ld", "sow_{aes,sha256,p256,flash,log,services_stub}.o"}
)

const compile = "arm-none-eabi-gcc -std=c99 -Os -mcpu=cortex-m0plus -mthumb -ffreestanding -ffunction-sections -fdata-sections -Wall -Wextra -Wconversion -Werror"

var libraryDir string // of the library's objects

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sower-integrate-")
	if err != nil {
		log.Fatal(err)
	}
	libraryDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// library compiles the library, both sides of its services and the board support, once for all programs.
var library = sync.OnceValue(func() error {
	stub, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	cmd := exec.Command("bash", "-c", fmt.Sprintf("%[1]s -I%[2]s/include -I%[2]s/src -I%[2]s/boot -I%[2]s/ports/mps2 -c %[2]s/{src,boot,services}/*.c %[2]s/ports/mps2/{mps2,startup}.c", compile, stub))
	cmd.Dir = libraryDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
})

// build compiles a program of the page, or one of testdata, with the library and the board support of the emulator.
func build(t *testing.T, program string, how linkage) string {
	t.Helper()
	if err := library(); err != nil {
		t.Fatal(err)
	}
	_, files := blocks(t)
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stub, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	local, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	if files[program] == "" {
		program = filepath.Join(local, program)
	}
	elf := filepath.Join(dir, "program.elf")
	script := fmt.Sprintf(`set -e
cp %[5]s/*.o .
rm -f %[6]s
%[1]s -I. -I%[2]s/include -Dmain=doc_main -c %[4]s port.c identity.c
%[1]s -I. -I%[2]s/include -I%[2]s/ports/mps2 -c %[3]s/hal_mps2.c
%[1]s *.o -T %[3]s/%[7]s -nostartfiles --specs=nano.specs -Wl,--gc-sections -o %[8]s`,
		compile, stub, local, program, libraryDir, how.without, how.script, elf)
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return elf
}

// emulate runs a program until it ends the emulator.
func emulate(t *testing.T, elf string, options ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if options == nil {
		options = []string{"-M", "mps2-an385"}
	}
	cmd := exec.CommandContext(ctx, "qemu-system-arm", append(options, "-display", "none", "-monitor", "none",
		"-serial", "stdio", "-semihosting", "-kernel", elf)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("emulator: %v\n%s", err, out)
	}
	return string(out)
}

func TestChecklistRuns(t *testing.T) {
	out := emulate(t, build(t, "checklist.c", alone))
	// 16 pages of the download region and 4 of the scratch region, over a reset.
	if !strings.Contains(out, "first half holds, pages tested: 20\n") || !strings.HasSuffix(out, "the port is sound 0\n") {
		t.Errorf("the checklist says\n%s", out)
	}
}

func TestApplicationRuns(t *testing.T) {
	out := emulate(t, build(t, "app.c", alone))
	// It opens, asks for the time, and waits.
	for _, want := range []string{"open: 0\n", "uplink on port 202\n", "waited for a downlink until "} {
		if !strings.Contains(out, want) {
			t.Errorf("the application does not say %q:\n%s", want, out)
		}
	}
}

func TestBootStubRuns(t *testing.T) {
	if out := emulate(t, build(t, "boot.c", alone)); out != "no bootable image 0\n" {
		t.Errorf("the stub says %q", out)
	}
}

// inSlotA is the flash of a device that leaves the factory with that program.
func inSlotA(t *testing.T, elf string) []byte {
	t.Helper()
	body := elf + ".bin"
	if out, err := exec.Command("arm-none-eabi-objcopy", "-O", "binary", elf, body).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	raw, err := os.ReadFile(body)
	if err != nil {
		t.Fatal(err)
	}
	image, err := mcuboot.Wrap(raw, mcuboot.Options{Major: 1, LoadAddress: 0x21000000})
	if err != nil {
		t.Fatal(err)
	}
	flash, err := device.FlashFile(image, device.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	return flash
}

// The page's stub verifies the page's application, jumps to it, and does its hashing, its flash and its journal for it.
// Over a stub without a table, or with another version, the application says so and resets.
func TestServicesRun(t *testing.T) {
	application, core := inSlotA(t, build(t, "app.c", overService)), inSlotA(t, build(t, "core.c", overService))
	good := build(t, "boot.c", withTable)
	elf, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	head := []byte("Ssrv\x01\x00")
	if n := bytes.Count(elf, head); n != 1 {
		t.Fatalf("the stub has %d tables", n)
	}
	stubWith := func(other string) string {
		path := filepath.Join(t.TempDir(), "stub.elf")
		if err := os.WriteFile(path, bytes.Replace(elf, head, []byte(other), 1), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	old, none := stubWith("Ssrv\x00\x00"), stubWith("\xff\xff\xff\xff\xff\xff")
	for _, tt := range []struct {
		name, stub string
		flash      []byte
		want       string
	}{
		{"services", good, application, "open: 0\nuplink on port 202\n"},
		{"version 0", old, application, "open: -33\n"},
		{"no table", none, application, "open: -33\n"},
		{"services for the core", good, core, "core: 0\n"},
		{"no table for the core", none, core, "core: -33\n"},
	} {
		path := filepath.Join(t.TempDir(), "flash.bin")
		if err := os.WriteFile(path, tt.flash, 0o600); err != nil {
			t.Fatal(err)
		}
		out := emulate(t, tt.stub, "-M", "mps2-an385,memory-backend=flash", "-no-reboot",
			"-object", fmt.Sprintf("memory-backend-file,id=flash,size=%d,mem-path=%s,share=on", len(tt.flash), path))
		want := "jump 553648640\n" + tt.want
		if !strings.HasPrefix(out, want) || tt.stub != good && out != want {
			t.Errorf("%s: stub and application say\n%swant\n%s", tt.name, out, want)
		}
	}
}

// The layouts fit their parts with an 8 KiB stub, and hold what their comments say.
func TestLayouts(t *testing.T) {
	_, files := blocks(t)
	for name, want := range map[string]struct{ part, fragments, ram int }{
		"part256.toml": {256 << 10, 500, 8192},
		"part128.toml": {128 << 10, 240, 5120},
	} {
		l, err := budget.ParseLayout([]byte(files[name]))
		if err != nil {
			t.Fatal(err)
		}
		if sum := 2*l.Slot + l.Download + l.Journal + l.Boot + l.Scratch + 8<<10; sum > want.part {
			t.Errorf("%s: %d bytes in a part of %d", name, sum, want.part)
		}
		m := bundle.Manifest{Codec: bundle.CodecPatch, NewSize: uint32(l.Slot), BaseSize: uint32(l.Slot), RAM: uint32(want.ram)}
		r, err := budget.Check(m, want.fragments*48, l)
		if err != nil || !r.Fits() || r.M != want.fragments {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func TestTable(t *testing.T) {
	text, files := blocks(t)
	rows := row.FindAllStringSubmatch(text, -1)
	if len(rows) < 5 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, r := range rows {
		n := func(i int) int {
			v, err := strconv.Atoi(r[i])
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		l, err := budget.ParseLayout([]byte(files["part256.toml"]))
		if err != nil {
			t.Fatal(err)
		}
		m, s := n(1), n(2)
		l.Fragment = s
		rep, err := budget.Check(bundle.Manifest{NewSize: 1}, m*s, l)
		if err != nil {
			t.Fatal(err)
		}
		pages := 0
		for _, i := range rep.Items {
			if strings.Contains(i.Name, "(download)") {
				pages = (i.Need + 2047) / 2048
			}
		}
		got := fmt.Sprintf("| %d | %d | %.1f KiB | %d KiB | %d KiB | %d KiB | %d |", m, s, float64(m*s)/1024, 2*pages, 2*pages+10, 2*pages+16, rep.Most)
		if got != r[0] {
			t.Errorf("the page says\n%s, it is\n%s", r[0], got)
		}
	}
}

// Files that the page names exist.
func TestReferences(t *testing.T) {
	text, _ := blocks(t)
	for _, m := range regexp.MustCompile("`((?:examples|ports|boot|include|services|zephyr)/[^`*]+)`").FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join("../..", m[1])); err != nil {
			t.Error(err)
		}
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
			t.Error(err)
		}
	}
}
