package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What rehearse refuses before it starts anything, and that it leaves nothing behind.
func TestRehearseRefuses(t *testing.T) {
	t.Parallel()
	f := workspace(t)
	firmware := filepath.Join("..", "..", "build", "firmware")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	out := f("summary.json")
	huge := f("huge.bin")
	if err := os.WriteFile(huge, make([]byte, 20<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		say  string
	}{
		{"old without new", []string{"--old", f("old.bin")}, 2, "--old and --new go together"},
		{"no devices", []string{"--devices", "0"}, 2, "--devices 0"},
		{"impossible loss", []string{"--loss", "1"}, 2, "--loss 1"},
		{"outages without length", []string{"--outage-every", "1h"}, 2, "both or neither"},
		{"no firmware", []string{"--firmware", f("nowhere")}, 1, "make firmware"},
		{"empty image", []string{"--old", f("empty.bin"), "--new", f("new.bin")}, 1, "the file is empty"},
		{"image larger than any slot", []string{"--old", huge, "--new", f("new.bin")}, 1, "at most 8388608"},
		{"same version twice", []string{"--old", f("new.bin"), "--new", f("new.bin")}, 1, "nothing to update"},
		{"API address in use", []string{"--sim-grpc", busy.Addr().String()}, 1, "address already in use"},
		{"broker address in use", []string{"--sim-mqtt", busy.Addr().String()}, 1, "address already in use"},
		{"API beyond loopback", []string{"--sim-grpc", "0.0.0.0:0"}, 1, "not loopback"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, _, stderr := sower(append([]string{"rehearse", "--firmware", firmware, "--devices", "1", "--out", out}, tt.args...)...)
			if code != tt.code || !strings.Contains(stderr, tt.say) {
				t.Errorf("exit %d, stderr %q; want exit %d and %q", code, stderr, tt.code, tt.say)
			}
			if strings.Count(strings.TrimSpace(stderr), "\n") > tt.code-1 {
				t.Errorf("stderr has more than one line for the cause: %q", stderr)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("an output file was left behind")
			}
		})
	}
}
