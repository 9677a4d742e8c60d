// Package flash_test runs the proof of the emulated flash (ports/posix/sow_flash_emu), a C program
// built with the address and undefined-behaviour sanitizers.
package flash_test

import (
	"os"
	"os/exec"
	"testing"
)

func TestFlashEmulator(t *testing.T) {
	// Reading the sources makes them inputs of the test, so that its result is not reused when they change.
	for _, name := range []string{
		"emu/flash_emu_test.c", "Makefile",
		"../../ports/posix/sow_flash_emu.c", "../../ports/posix/sow_flash_emu.h",
	} {
		if _, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("make", "-s", "test", "OUT="+t.TempDir()).CombinedOutput()
	if err != nil {
		t.Fatalf("make test: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}
