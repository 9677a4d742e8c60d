package delta

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// compileARM compiles the decoder for a Cortex-M0+ with what source adds and returns the sizes of
// its symbols and of .text + .rodata.
func compileARM(t *testing.T, source string) (symbols map[string]int, code int) {
	t.Helper()
	dir := t.TempDir()
	src, obj := filepath.Join(dir, "x.c"), filepath.Join(dir, "x.o")
	if err := os.WriteFile(src, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	run("arm-none-eabi-gcc", "-mcpu=cortex-m0plus", "-mthumb", "-Os", "-std=c99", "-Wall", "-Wextra",
		"-Wconversion", "-Werror", "-I", filepath.Join("..", "firmware-stub", "src"), "-c", src, "-o", obj)
	symbols = map[string]int{}
	for line := range strings.Lines(run("arm-none-eabi-nm", "-S", obj)) {
		if f := strings.Fields(line); len(f) == 4 {
			n, err := strconv.ParseUint(f[1], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			symbols[f[3]] = int(n)
		}
	}
	sizes := strings.Fields(strings.Split(run("arm-none-eabi-size", obj), "\n")[1])
	code, err := strconv.Atoi(sizes[0])
	if err != nil {
		t.Fatal(err)
	}
	return symbols, code
}

// TestDeviceMemory holds the decoder to the memory that Params.RAMBytes promises.
func TestDeviceMemory(t *testing.T) {
	s, _ := compileARM(t, `#include "sow_patch.c"
char context[sizeof(struct sow_patch)];
char state[sizeof(struct state)];
`)
	for p, limit := range map[uint8]int{profile5: 5 << 10, profile8: 8 << 10, profile16: 16 << 10} {
		need := s["context"] + s["state"] + journalSize(p)*(6+order0Ratio)
		t.Logf("profile %d: %d bytes", p, need)
		if need > int(profileRAM[p]) || need > limit {
			t.Errorf("profile %d takes %d bytes, promised are %d, allowed %d", p, need, profileRAM[p], limit)
		}
	}
}

// maxCode is the gate for the decoder's code and tables on a Cortex-M0+.
const maxCode = 6144

func TestDeviceCode(t *testing.T) {
	_, code := compileARM(t, `#include "sow_patch.c"`)
	t.Logf(".text + .rodata: %d bytes", code)
	if code > maxCode {
		t.Errorf(".text + .rodata take %d bytes, allowed are %d", code, maxCode)
	}
}
