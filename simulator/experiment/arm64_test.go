package experiment

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestSameBytesOnARM64 runs the tests that pin bytes of results, fates of frames and exact functions on an emulated
// processor of another architecture, whose compiler fuses products with sums where it may. A long test: SOWER_PROOF.
func TestSameBytesOnARM64(t *testing.T) {
	if !proof || runtime.GOARCH == "arm64" {
		return // the tests have just run here
	}
	qemu, err := exec.LookPath("qemu-aarch64")
	if err != nil {
		t.Fatal("qemu-aarch64 is not on PATH; install it (Debian and Ubuntu: apt-get install qemu-user)")
	}
	for pkg, tests := range map[string][]string{
		".":        {"TestResultsAreFixed", "TestSameBytes", "TestStopRule", "TestBootstrapOfColumns", "TestDepthsAgree"},
		"../radio": {"TestFatesAreFixed", "TestHashIsFixed", "TestExactFunctions"},
	} {
		binary := filepath.Join(t.TempDir(), "arm64.test")
		build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, pkg)
		build.Env = append(os.Environ(), "GOARCH=arm64", "GOOS=linux", "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%s for arm64: %v\n%s", pkg, err, out)
		}
		run := exec.CommandContext(t.Context(), qemu, binary, "-test.v", "-test.run", "^("+strings.Join(tests, "|")+")$")
		run.Dir = pkg
		run.Env = append(os.Environ(), "SOWER_PROOF=") // the short forms
		out, err := run.CombinedOutput()
		if err != nil {
			t.Fatalf("%s on arm64: %v\n%s", pkg, err, out)
		}
		for _, name := range tests {
			if !strings.Contains(string(out), "--- PASS: "+name+" ") {
				t.Errorf("%s on arm64: %s did not run:\n%s", pkg, name, out)
			}
		}
	}
}
