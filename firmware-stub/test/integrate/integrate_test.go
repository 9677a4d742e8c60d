// Package integrate_test keeps docs/integrate.md true: its code blocks are compiled for a Cortex-M0+ as they stand,
// its programs run in the emulator, its layouts and its table are computed again.
package integrate_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/bundle"
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

// build compiles a program of the page, with the library and the board support of the emulator.
func build(t *testing.T, program string) string {
	t.Helper()
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
	elf := filepath.Join(dir, "program.elf")
	flags := "-std=c99 -Os -mcpu=cortex-m0plus -mthumb -ffreestanding -ffunction-sections -fdata-sections -Wall -Wextra -Wconversion -Werror -I. -I" + stub + "/include"
	script := fmt.Sprintf(`set -e
arm-none-eabi-gcc %[1]s -Dmain=doc_main -c %[2]s port.c identity.c
arm-none-eabi-gcc %[1]s -I%[3]s/ports/mps2 -c %[4]s/hal_mps2.c %[3]s/ports/mps2/mps2.c %[3]s/ports/mps2/startup.c
arm-none-eabi-gcc %[1]s -I%[3]s/src -I%[3]s/boot -c %[3]s/src/*.c %[3]s/boot/*.c
arm-none-eabi-gcc %[1]s *.o -T %[4]s/doc.ld -nostartfiles --specs=nano.specs -Wl,--gc-sections -o %[5]s`,
		flags, program, stub, local, elf)
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return elf
}

// emulate runs a program until it ends the emulator.
func emulate(t *testing.T, elf string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-arm", "-M", "mps2-an385", "-display", "none", "-monitor", "none",
		"-serial", "stdio", "-semihosting", "-kernel", elf)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("emulator: %v\n%s", err, out)
	}
	return string(out)
}

func TestChecklistRuns(t *testing.T) {
	out := emulate(t, build(t, "checklist.c"))
	// 16 pages of the download region and 4 of the scratch region, over a reset.
	if !strings.Contains(out, "first half holds, pages tested: 20\n") || !strings.HasSuffix(out, "the port is sound 0\n") {
		t.Errorf("the checklist says\n%s", out)
	}
}

func TestApplicationRuns(t *testing.T) {
	out := emulate(t, build(t, "app.c"))
	// It opens, asks for the time, and waits.
	for _, want := range []string{"open: 0\n", "uplink on port 202\n", "waited for a downlink until "} {
		if !strings.Contains(out, want) {
			t.Errorf("the application does not say %q:\n%s", want, out)
		}
	}
}

func TestBootStubRuns(t *testing.T) {
	if out := emulate(t, build(t, "boot.c")); out != "no bootable image 0\n" {
		t.Errorf("the stub says %q", out)
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
	for _, m := range regexp.MustCompile("`((?:examples|ports|boot|include|zephyr)/[^`*]+)`").FindAllStringSubmatch(text, -1) {
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
