package run_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/engine/store"
)

// heap is what is in use after a collection, in KiB.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc >> 10)
}

// Campaigns that have ended leave memory, and the store answers for them: 12 of 100 devices, or 200 of 1,000 with
// SOWER_PROOF=1. The heap is that of the first ones.
func TestEndedCampaignsLeave(t *testing.T) {
	campaigns, devices := 12, 100
	if os.Getenv("SOWER_PROOF") != "" {
		campaigns, devices = 200, 1000
	}
	path := filepath.Join(t.TempDir(), "sower.db")
	open := func() *store.Store {
		st, err := store.Open(t.Context(), path, store.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	st := open()
	h := &hose{events: make(chan network.Event), want: -1}
	r := lingering(t, h, st, time.Millisecond)
	present := func() (n int) {
		if err := r.engine.View(t.Context(), func(cs []*campaign.Campaign) { n = len(cs) }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var first int
	model := large(t, devices)
	for k := range campaigns {
		spec := model
		spec.ID = fmt.Sprintf("c%d", k)
		s := model.Waves[0].Sessions[0]
		s.ID, s.Devices = spec.ID+".1", nil
		for i := range devices {
			s.Devices = append(s.Devices, session.Target{EUI: device(k*devices + i)})
		}
		spec.Waves = []campaign.Wave{{Name: "all", Sessions: []session.Spec{s}}}
		if err := r.engine.Create(t.Context(), spec, run.CampaignFile{Request: "r" + spec.ID}, "ann"); err != nil {
			t.Fatal(err)
		}
		if err := r.engine.Command(t.Context(), spec.ID, campaign.Abort{Reason: "enough"}, "ann"); err != nil {
			t.Fatal(err)
		}
		if k == campaigns/4 {
			for present() > 0 {
			}
			first = heap()
		}
	}
	for present() > 0 {
	}
	if last := heap(); last > first+1024 {
		t.Errorf("heap %d KiB after %d campaigns, %d KiB after %d", last, campaigns, first, campaigns/4+1)
	} else {
		t.Logf("heap %d KiB after %d campaigns of %d devices, %d KiB after %d", last, campaigns, devices, first, campaigns/4+1)
	}

	judge := func() {
		t.Helper()
		if err := r.engine.Command(t.Context(), "c1", campaign.Start{}, "ann"); !errors.Is(err, run.ErrConflict) {
			t.Errorf("an order to a campaign that has left: %v", err)
		}
		again := large(t, 1)
		again.ID = "c1"
		if err := r.engine.Create(t.Context(), again, run.CampaignFile{}, "ann"); !errors.Is(err, run.ErrConflict) {
			t.Errorf("a campaign with the name of one that has left: %v", err)
		}
		all, err := st.Campaigns(t.Context(), store.Filter{}, 0, campaigns+1)
		if err != nil || len(all) != campaigns {
			t.Fatalf("%d campaigns are listed, want %d; %v", len(all), campaigns, err)
		}
		for k, l := range all {
			if l.ID != fmt.Sprintf("c%d", k) || !l.Left || l.State.Phase != campaign.PhaseEnded || l.Progress.Devices != devices {
				t.Fatalf("campaign %d is listed as %+v", k, l)
			}
		}
	}
	judge()
	if n := present(); n != 0 {
		t.Errorf("%d campaigns are in memory", n)
	}
	r.stop()

	// A restart does not bring them back.
	st = open()
	begun := time.Now()
	r = lingering(t, h, st, time.Hour)
	if n := present(); n != 0 {
		t.Errorf("%d campaigns are in memory after a restart", n)
	}
	t.Logf("restored in %s", time.Since(begun).Round(time.Millisecond))
	judge()
	r.stop()
}

// A campaign that has ended stays as long as it lingers, and not beyond the next start.
func TestLinger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	h := &hose{events: make(chan network.Event), want: -1}
	for i, want := range []int{1, 0} {
		st, err := store.Open(t.Context(), path, store.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		r := lingering(t, h, st, time.Hour)
		if i == 0 {
			if err := r.engine.Create(t.Context(), large(t, 3), run.CampaignFile{}, "ann"); err != nil {
				t.Fatal(err)
			}
			if err := r.engine.Command(t.Context(), "large", campaign.Abort{Reason: "enough"}, "ann"); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.engine.View(t.Context(), func(cs []*campaign.Campaign) {
			if len(cs) != want {
				t.Errorf("start %d: %d campaigns, want %d", i, len(cs), want)
			}
		}); err != nil {
			t.Fatal(err)
		}
		r.stop()
	}
}

// clogged is a network whose queues cannot be flushed for a while.
type clogged struct {
	*hose
	open atomic.Bool
}

func (n *clogged) Flush(context.Context, network.EUI64) error {
	if n.open.Load() {
		return nil
	}
	return network.ErrUnavailable
}

// A campaign that has ended stays, across a restart, as long as something is to be done for it.
func TestEndedCampaignHasWork(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	n := &clogged{hose: &hose{events: make(chan network.Event), all: make(chan struct{}), want: 3}}
	begun := false
	for _, last := range []bool{false, true} {
		st, err := store.Open(t.Context(), path, store.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		r := lingering(t, n, st, time.Millisecond)
		if !begun {
			begun = true
			if err := r.engine.Create(t.Context(), large(t, 3), run.CampaignFile{}, "ann"); err != nil {
				t.Fatal(err)
			}
			if err := r.engine.Command(t.Context(), "large", campaign.Start{}, "ann"); err != nil {
				t.Fatal(err)
			}
			<-n.all // a message waits for each device
			if err := r.engine.Command(t.Context(), "large", campaign.Abort{Reason: "enough"}, "ann"); err != nil {
				t.Fatal(err)
			}
		}
		ended, present := false, 1
		look := func() {
			if err := r.engine.View(t.Context(), func(cs []*campaign.Campaign) {
				present = len(cs)
				ended = present == 1 && cs[0].Ended()
			}); err != nil {
				t.Fatal(err)
			}
		}
		for look(); !ended && present == 1; {
			look()
		}
		for begun := time.Now(); time.Since(begun) < 20*time.Millisecond; {
			look()
		}
		if present != 1 {
			t.Fatal("the campaign has left, and its devices have not been flushed")
		}
		if last {
			n.open.Store(true)
			for present == 1 {
				look()
			}
		}
		r.stop()
	}
}

// Facts about many devices are durable in a few commits: 1,000, or 100,000 with SOWER_PROOF=1, where 30 s are allowed.
func TestTell(t *testing.T) {
	devices, limit := 1000, 10*time.Minute
	if os.Getenv("SOWER_PROOF") != "" {
		devices, limit = 100000, 30*time.Second
	}
	commits := 0
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "sower.db"), store.Options{OnCommit: func(n int, _ bool) error {
		commits = n
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := lingering(t, &hose{events: make(chan network.Event), want: -1}, st, time.Hour)
	if err := r.engine.Create(t.Context(), large(t, devices), run.CampaignFile{}, "ann"); err != nil {
		t.Fatal(err)
	}
	var facts []campaign.Event
	for i := range devices {
		facts = append(facts, campaign.Battery{Device: device(i), Percent: i % 100})
	}
	before := commits
	begun := time.Now()
	if err := r.engine.Tell(t.Context(), "large", facts, "ann"); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	if n := commits - before; n > devices/500 {
		t.Errorf("%d facts in %d commits", devices, n)
	}
	if took > limit {
		t.Errorf("%d facts took %s", devices, took)
	}
	begun = time.Now()
	for i := range 200 {
		f := campaign.Battery{Device: device(i), Percent: 100}
		if err := r.engine.Tell(t.Context(), "large", []campaign.Event{f}, "ann"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d facts in %s; one by one %s each", devices, took.Round(time.Millisecond), (time.Since(begun) / 200).Round(time.Microsecond))
	if err := r.engine.Tell(t.Context(), "large", []campaign.Event{campaign.Start{}}, "ann"); !errors.Is(err, run.ErrConflict) {
		t.Errorf("an order among facts: %v", err)
	}
	if err := r.engine.Tell(t.Context(), "none", facts, "ann"); !errors.Is(err, run.ErrNotFound) {
		t.Errorf("facts for nobody: %v", err)
	}
	r.stop()
}
