package run_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/store"
)

// resident is the memory of this process in MiB.
func resident(t *testing.T) int {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return kib >> 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestScale has many devices in one campaign: 300, or 100,000 with SOWER_PROOF=1, where the memory is judged.
func TestScale(t *testing.T) {
	devices := 300
	if os.Getenv("SOWER_PROOF") != "" {
		devices = 100000
	}
	path := filepath.Join(t.TempDir(), "sower.db")
	open := func() *store.Store {
		st, err := store.Open(t.Context(), path, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	base := resident(t)
	spec := large(t, devices)
	h := &hose{events: make(chan network.Event, 1024), all: make(chan struct{}), want: int64(devices)}
	begun := time.Now()
	r := begin(t, h, open(), spec)
	t.Logf("%d devices: created and started in %s", devices, time.Since(begun).Round(time.Millisecond))
	<-h.all
	t.Logf("first command to each after %s", time.Since(begun).Round(time.Millisecond))
	begun = time.Now()
	done := make(chan struct{}, 1024)
	go func() {
		for i := range devices {
			h.events <- network.Event{ID: fmt.Sprintf("up/%d", i), Kind: network.EventUplink, Device: device(i), At: time.Now(),
				FPort: 10, Payload: []byte{1, 2, 3}, Done: func() { done <- struct{}{} }}
		}
	}()
	for range devices {
		<-done
	}
	t.Logf("one uplink of each in %s", time.Since(begun).Round(time.Millisecond))
	views := 20
	begun = time.Now()
	for range views {
		if err := r.engine.View(t.Context(), func(cs []*campaign.Campaign) {
			if n := len(cs[0].Rows()); n != devices {
				t.Errorf("%d rows, want %d", n, devices)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("all rows in %s", (time.Since(begun) / time.Duration(views)).Round(time.Microsecond))
	mib := resident(t)
	t.Logf("resident %d MiB, %d before", mib, base)
	if mib-base > 500 {
		t.Errorf("resident %d MiB more than before, want at most 500", mib-base)
	}
	r.stop()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	h.all = make(chan struct{})
	h.want = -1
	begun = time.Now()
	st := open()
	again := resume(t, h, st)
	if err := again.engine.View(t.Context(), func(cs []*campaign.Campaign) {
		if n := len(cs[0].Rows()); n != devices {
			t.Errorf("%d rows after the restart, want %d", n, devices)
		}
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("restored in %s from a database of %d MiB; resident %d MiB", time.Since(begun).Round(time.Millisecond), info.Size()>>20, resident(t))
	again.stop()
}
