package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/campaigntest"
	"github.com/sower-fuota/sower/simulator/world"
)

var start = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

const (
	oldVersion = 0x01000000
	newVersion = 0x01010000
)

// makeBlock returns a bundle with an image of that many random bytes.
func makeBlock(size uint32, expiry uint32) []byte {
	key, err := bundle.GenerateKey()
	if err != nil {
		panic(err)
	}
	data := make([]byte, size)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	b, err := bundle.Sign(bundle.Manifest{Codec: bundle.CodecFull, KeyID: 1, Version: newVersion, Sequence: 2, NewSize: size, Expiry: expiry}, data, key)
	if err != nil {
		panic(err)
	}
	return b
}

// block is the same in every run; only its signature would differ, so it is made once.
var block = makeBlock(5000, 0)

var planned = sync.OnceValues(func() (plan.Plan, error) {
	return plan.Make(plan.Input{Block: block, Region: airtime.EU868, DataRate: 5, Devices: 20, Matrix: fragmentation.V2})
})

type fixture struct {
	w         *world.World
	net       *campaigntest.Net
	clock     *world.Clock
	engine    *run.Engine
	campaigns []*campaign.Campaign
	log       []run.Entry
}

// newFixture has two campaigns of n devices each.
func newFixture(t *testing.T, seed uint64, n int) *fixture {
	t.Helper()
	f := &fixture{w: world.New(start)}
	f.net = campaigntest.New(f.w, seed)
	f.clock = f.w.NewClock("engine")
	f.engine = run.New(run.Config{Network: f.net, Clock: f.clock, Log: func(e run.Entry) { f.log = append(f.log, e) }})
	p, err := planned()
	if err != nil {
		t.Fatal(err)
	}
	for k := range 2 {
		spec := session.Spec{ID: fmt.Sprintf("c%d", k), Application: "app", Block: block, Target: newVersion, Plan: p,
			Gateways: []network.EUI64{{0xaa}}, McAddr: uint32(0x01000000 + k), McKey: network.Key{byte(k + 1)},
			Capabilities: f.net.Caps, Timing: session.Timing{UplinkInterval: 10 * time.Minute}}
		for i := range n {
			d := &campaigntest.Device{EUI: network.EUI64{byte(k), 1, 7: byte(i)}, Speaks: p.Version(), Diag: true,
				Old: oldVersion, New: newVersion, Block: block, Interval: 10 * time.Minute, LossUp: 0.1, LossDown: 0.1,
				LastCnt: -1, Patch: time.Minute, Key: network.Key{9, byte(i)}, ServerKey: network.Key{9, byte(i)}}
			f.net.Add(d)
			spec.Devices = append(spec.Devices, session.Target{EUI: d.EUI})
		}
		c, err := campaign.Single(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.engine.Add(c); err != nil {
			t.Fatal(err)
		}
		f.campaigns = append(f.campaigns, c)
	}
	return f
}

// run drives engine and world until the engine returns.
func (f *fixture) run(t *testing.T, ctx context.Context) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		err := f.engine.Run(ctx)
		f.net.Stop()
		f.clock.Close()
		f.w.Stop()
		done <- err
	}()
	if err := f.w.Run(context.Background(), start.Add(100*time.Hour)); err != nil && !errors.Is(err, world.ErrStopped) {
		t.Fatalf("world: %v", err)
	}
	select {
	case err := <-done:
		return err
	case <-time.After(2 * time.Minute):
		for _, c := range f.campaigns {
			t.Logf("%+v", c.Progress())
		}
		t.Fatal("the engine did not return although nothing is left to happen")
		return nil
	}
}

func (f *fixture) wantUpdated(t *testing.T) {
	t.Helper()
	for _, c := range f.campaigns {
		for _, row := range c.Rows() {
			if row.Stage != session.StageUpdated || row.Version != newVersion {
				t.Errorf("campaign %s: %+v, want updated", c.ID(), row)
			}
		}
	}
	if n := f.net.OpenGroups(); n != 0 {
		t.Errorf("%d groups were left open", n)
	}
}

func TestRunUpdatesFleets(t *testing.T) {
	f := newFixture(t, 1, 20)
	if err := f.run(t, t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantUpdated(t)
	counters := map[string]uint32{}
	for _, e := range f.log {
		if e.Kind != "broadcast" {
			continue
		}
		if *e.FCnt != counters[e.Campaign] {
			t.Fatalf("campaign %s: frame counter %d, want %d", e.Campaign, *e.FCnt, counters[e.Campaign])
		}
		counters[e.Campaign]++
	}
	if len(counters) != 2 {
		t.Errorf("broadcasts of %d campaigns, want 2", len(counters))
	}
}

// TestRunIsDeterministic compares the complete logs of two runs.
func TestRunIsDeterministic(t *testing.T) {
	var logs [2]string
	for i := range logs {
		f := newFixture(t, 3, 8)
		if err := f.run(t, t.Context()); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(f.log)
		if err != nil {
			t.Fatal(err)
		}
		logs[i] = string(b)
	}
	if logs[0] != logs[1] {
		t.Error("two runs with the same seed differ")
	}
}

// TestRunSurvivesFaults lets calls fail before and after they take effect.
func TestRunSurvivesFaults(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			f := newFixture(t, seed, 10)
			rng := rand.New(rand.NewPCG(seed, 9))
			f.net.Fault = func(string) (bool, error) {
				switch x := rng.Float64(); {
				case x < 0.05:
					return false, fmt.Errorf("injected: %w", network.ErrUnavailable)
				case x < 0.10:
					return false, fmt.Errorf("injected: %w", network.ErrUncertain)
				case x < 0.15:
					return true, fmt.Errorf("injected: %w", network.ErrUncertain)
				}
				return true, nil
			}
			if err := f.run(t, t.Context()); err != nil {
				t.Fatal(err)
			}
			f.wantUpdated(t)
			// Whatever was lost on the way to the network, nothing was queued twice.
			sent := map[string]map[int]int{}
			for _, e := range f.log {
				if e.Kind == "broadcast" && e.N > 0 {
					if sent[e.Campaign] == nil {
						sent[e.Campaign] = map[int]int{}
					}
					sent[e.Campaign][e.N]++
				}
			}
			calls, logged := f.net.Calls["Broadcast"], 0
			for _, e := range f.log {
				if e.Kind == "broadcast" {
					logged++
				}
			}
			if calls <= logged {
				t.Errorf("%d calls of Broadcast for %d messages: no fault was injected", calls, logged)
			}
			if frames := f.net.Frames(); frames != logged {
				t.Errorf("the network sent %d frames, the engine knows of %d", frames, logged)
			}
		})
	}
}

// TestRunWaitsForTheGroup has a server that opens no group for longer than the set-up may take.
func TestRunWaitsForTheGroup(t *testing.T) {
	f := newFixture(t, 1, 3)
	f.net.Fault = func(method string) (bool, error) {
		if method == "OpenGroup" && f.w.Now().Before(start.Add(6*time.Hour)) {
			return false, fmt.Errorf("injected: %w", network.ErrUnavailable)
		}
		return true, nil
	}
	if err := f.run(t, t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantUpdated(t)
	if n := f.net.Calls["OpenGroup"]; n > 1000 {
		t.Errorf("OpenGroup was called %d times in 6 hours: no back-off", n)
	}
}

func TestRunRefusesUnreachableNetwork(t *testing.T) {
	f := newFixture(t, 1, 1)
	f.net.Down = errors.New("no route to host")
	if err := f.run(t, t.Context()); err == nil || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("Run = %v, want the error of the network", err)
	}
}

// TestRunAborts cancels in the middle: the groups must be gone and Run must return the cause.
func TestRunAborts(t *testing.T) {
	f := newFixture(t, 1, 5)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	f.w.At(start.Add(time.Hour), "cancel", func() { cancel(why) })
	if err := f.run(t, ctx); !errors.Is(err, why) {
		t.Errorf("Run = %v, want %v", err, why)
	}
	for _, c := range f.campaigns {
		if p := c.Progress(); !strings.Contains(p.Halted, "enough") {
			t.Errorf("campaign %s is %s: halted %q, want the cause", c.ID(), p.Phase, p.Halted)
		}
	}
	if n := f.net.OpenGroups(); n != 0 {
		t.Errorf("%d groups were left open", n)
	}
}

func TestAddRefusesSharedDevices(t *testing.T) {
	f := newFixture(t, 1, 2)
	if err := f.engine.Add(f.campaigns[0]); err == nil {
		t.Error("the same campaign was added twice")
	}
}
