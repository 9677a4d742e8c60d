package run_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/engine/store"
	"github.com/sower-fuota/sower/fragmentation"
)

// hose is a network that takes everything and delivers what is put into events.
type hose struct {
	events chan network.Event
	sent   atomic.Int64
	all    chan struct{} // closed when so many messages were sent
	want   int64
}

func (h *hose) Capabilities(context.Context) (network.Capabilities, error) {
	return network.Capabilities{}, nil
}
func (h *hose) Devices(context.Context, string) ([]network.Device, error)   { return nil, nil }
func (h *hose) Gateways(context.Context, string) ([]network.Gateway, error) { return nil, nil }
func (h *hose) RootKey(context.Context, network.EUI64) (network.Key, error) {
	return network.Key{1}, nil
}
func (h *hose) Send(context.Context, network.Message) (network.MessageID, error) {
	n := h.sent.Add(1)
	if n == h.want {
		close(h.all)
	}
	return network.MessageID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n)), nil
}
func (h *hose) Queued(context.Context, network.EUI64) ([]network.MessageID, error) { return nil, nil }
func (h *hose) Flush(context.Context, network.EUI64) error                         { return nil }
func (h *hose) OpenGroup(context.Context, network.Group) (network.GroupID, error) {
	return "group", nil
}
func (h *hose) GroupState(context.Context, network.GroupID) (network.GroupState, error) {
	return network.GroupState{}, nil
}
func (h *hose) Broadcast(context.Context, network.Broadcast) (uint32, error) { return 0, nil }
func (h *hose) FlushGroup(context.Context, network.GroupID) error            { return nil }
func (h *hose) CloseGroup(context.Context, network.GroupID) error            { return nil }
func (h *hose) Events(ctx context.Context, _ string) (<-chan network.Event, error) {
	out := make(chan network.Event)
	go func() {
		defer close(out)
		for {
			select {
			case ev := <-h.events:
				select {
				case out <- ev:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// large is a campaign with that many devices in one session.
func large(t testing.TB, devices int) campaign.Spec {
	t.Helper()
	p, err := plan.Make(plan.Input{Block: block, Region: airtime.EU868, DataRate: 5, Devices: devices, Matrix: fragmentation.V2})
	if err != nil {
		t.Fatal(err)
	}
	s := session.Spec{ID: "large-1", Application: "app", Block: block, Target: newVersion, Plan: p, Gateways: []network.EUI64{{0xaa}},
		McAddr: 0x01000000, McKey: network.Key{1}, Timing: session.Timing{UplinkInterval: time.Hour}}
	for i := range devices {
		s.Devices = append(s.Devices, session.Target{EUI: device(i)})
	}
	return campaign.Spec{ID: "large", Application: "app", Waves: []campaign.Wave{{Name: "all", Sessions: []session.Spec{s}}}}
}

func device(i int) network.EUI64 {
	return network.EUI64{1, 5: byte(i >> 16), 6: byte(i >> 8), 7: byte(i)}
}

// running is an engine in real time.
type running struct {
	engine *run.Engine
	stop   func()
}

// resume runs an engine with what is in a store, which it closes in the end.
func resume(t testing.TB, n network.Network, st *store.Store) running { return lingering(t, n, st, 0) }

// lingering is resume with a time for which campaigns that have ended stay.
func lingering(t testing.TB, n network.Network, st *store.Store, linger time.Duration) running {
	t.Helper()
	engine := run.New(run.Config{Network: n, Clock: &network.WallClock{}, Store: st, Concurrent: true, Linger: linger})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	return running{engine, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
		st.Close()
	}}
}

// begin runs an engine with a campaign that has been started.
func begin(t testing.TB, n network.Network, st *store.Store, specs ...campaign.Spec) running {
	t.Helper()
	r := resume(t, n, st)
	for _, spec := range specs {
		if err := r.engine.Create(t.Context(), spec, run.CampaignFile{}, "ann"); err != nil {
			t.Fatal(err)
		}
		if err := r.engine.Command(t.Context(), spec.ID, campaign.Start{}, "ann"); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// BenchmarkEvents takes uplinks of 10,000 devices into SQLite with synchronous=FULL.
func BenchmarkEvents(b *testing.B) {
	st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "sower.db"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	const devices = 10000
	h := &hose{events: make(chan network.Event, 1024), all: make(chan struct{}), want: devices} // the first command to each
	defer begin(b, h, st, large(b, devices)).stop()
	<-h.all
	done := make(chan struct{}, 1024)
	b.ResetTimer()
	go func() {
		for i := range b.N {
			h.events <- network.Event{ID: fmt.Sprintf("up/%d", i), Kind: network.EventUplink, Device: device(i % devices), At: time.Now(),
				FCnt: uint32(i / devices), FPort: 10, Payload: []byte{1, 2, 3}, Done: func() { done <- struct{}{} }}
		}
	}()
	for range b.N {
		<-done
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	kept, err := st.Entries(b.Context(), "large", nil, 0, 1<<30)
	if err != nil {
		b.Fatal(err)
	}
	uplinks := 0
	for _, en := range kept {
		if en.Kind == "uplink" {
			uplinks++
		}
	}
	if uplinks != b.N {
		b.Errorf("%d of %d uplinks are in the log", uplinks, b.N)
	}
}

// BenchmarkCreate creates and starts a campaign of 10,000 devices.
func BenchmarkCreate(b *testing.B) {
	spec := large(b, 10000)
	for b.Loop() {
		st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "sower.db"), store.Options{})
		if err != nil {
			b.Fatal(err)
		}
		h := &hose{events: make(chan network.Event), all: make(chan struct{}), want: -1}
		begin(b, h, st, spec).stop()
	}
}
