package packages_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestSanitizers builds packages and shell with the address and undefined-behaviour sanitizers and feeds them random
// messages: a thousand lives of a device under each of two seeds, and with SOWER_PROOF=1 one seed after the other for
// ten minutes.
func TestSanitizers(t *testing.T) {
	runs, seeds, limit := 1000, 2, time.Duration(0)
	if os.Getenv("SOWER_PROOF") != "" {
		runs, limit = 300_000, 10*time.Minute
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
	messages, frames, seed := 0, 0, 1
	for start := time.Now(); seed <= seeds || time.Since(start) < limit; seed++ {
		var m, f int
		out, err := exec.Command(bin, strconv.Itoa(seed), strconv.Itoa(runs)).CombinedOutput()
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, out)
		}
		if _, err := fmt.Sscanf(string(out), "%d messages, %d frames", &m, &f); err != nil || m == 0 || f == 0 {
			t.Fatalf("seed %d: the driver says %q", seed, out)
		}
		messages, frames = messages+m, frames+f
	}
	t.Logf("%d lives of a device, %d messages to the packages, %d frames to the shell: no finding", (seed-1)*runs, messages, frames)
}
