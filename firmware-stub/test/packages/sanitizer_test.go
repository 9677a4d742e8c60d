package packages_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestSanitizers builds packages and shell with the address and undefined-behaviour sanitizers and feeds them random
// messages; SOWER_PROOF=1 feeds three hundred times as many.
func TestSanitizers(t *testing.T) {
	runs := "1000"
	if os.Getenv("SOWER_PROOF") != "" {
		runs = "300000"
	}
	if _, err := os.ReadFile("driver/main.c"); err != nil { // so that the go tool sees it change
		t.Fatal(err)
	}
	sources, err := filepath.Glob("cpkg/*.c")
	if err != nil || len(sources) < 10 {
		t.Fatalf("sources %v, %v", sources, err)
	}
	bin := filepath.Join(t.TempDir(), "driver")
	args := append([]string{"-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O1", "-g",
		"-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Icpkg", "-o", bin, "driver/main.c"}, sources...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	for _, seed := range []string{"1", "20261122"} {
		if out, err := exec.Command(bin, seed, runs).CombinedOutput(); err != nil {
			t.Errorf("seed %s: %v\n%s", seed, err, out)
		}
	}
}
