// Package core runs the proofs of the core and the boot engine, which are written in C.
package core

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestCore(t *testing.T) {
	for _, pattern := range []string{"*/*.[ch]", "../../*/*.[ch]", "../../ports/posix/*.[ch]"} { // of a cached result
		if _, err := filepath.Glob(pattern); err != nil {
			t.Fatal(err)
		}
	}
	targets := []string{"test", "fuzz"}
	if os.Getenv("SOWER_PROOF") != "" {
		targets = append(targets, "proof", "fuzz-proof")
	}
	for _, target := range targets {
		out, err := exec.Command("make", "-s", target).CombinedOutput()
		t.Logf("make %s\n%s", target, out)
		if err != nil {
			t.Fatal(err)
		}
	}
}
