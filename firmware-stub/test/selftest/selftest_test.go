// Package selftest_test runs the proof of sow_port_selftest: a C program, built with the address and
// undefined-behaviour sanitizers, that tries it on sound and on broken ports.
package selftest_test

import (
	"os"
	"os/exec"
	"testing"
)

func TestPortSelftest(t *testing.T) {
	// Reading the sources makes them inputs of the test, so that its result is not reused when they change.
	for _, name := range []string{
		"broken/selftest_test.c", "Makefile", "../../src/sow_selftest.c", "../../include/sow_selftest.h",
		"../../include/sow_port.h", "../../ports/posix/sow_flash_emu.c", "../../ports/posix/sow_flash_emu.h",
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
