package chirpstack_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

// TestInspect asks for everything that doctor and plan want to know, of a server whose devices have run for a while.
func TestInspect(t *testing.T) {
	w, cs := server(t, 4, 1)
	if err := w.Run(t.Context(), epoch.Add(3*time.Hour)); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if v, err := cs.Version(ctx); err != nil || v != "4.12 or later" {
		t.Errorf("Version = %q, %v", v, err)
	}
	if apps, err := cs.Applications(ctx); err != nil || len(apps) != 1 || apps[0] != (chirpstack.Application{ID: appID, Name: "meters"}) {
		t.Errorf("Applications = %v, %v", apps, err)
	}
	if err := cs.MayWrite(ctx, appID); err != nil {
		t.Errorf("MayWrite = %v", err)
	}
	if exists, err := cs.GroupExists(ctx, appID, ""); err != nil || exists {
		t.Errorf("asking for the right to write has made a group: %v %v", exists, err)
	}
	if p, err := cs.Profile(ctx, profileOf(t, cs)); err != nil || p.Name != "meter" || p.MACVersion != "1.0.4" || p.TS003 || p.TS004 || p.TS005 || p.ClassC || p.LoRaWAN11 {
		t.Errorf("Profile = %+v, %v", p, err)
	}
	if g, err := cs.GatewayStates(ctx, appID); err != nil || len(g) != 1 || !g[0].Online || g[0].RegionConfig != "eu868" || w.Now().Sub(g[0].LastSeen) > time.Minute {
		t.Errorf("GatewayStates = %+v, %v", g, err)
	}
	// 0 reports each minute; an hour without packets must not drag its mean to 0 dB.
	for _, tt := range []struct{ back, accuracy time.Duration }{{24 * time.Hour, time.Hour}, {7 * 24 * time.Hour, 24 * time.Hour}} {
		all, err := cs.LinkHistory(ctx, eui(0), w.Now().Add(-tt.back), w.Now())
		if err != nil || all.Packets < 170 || all.Packets > 190 || all.SNR <= 0 || w.Now().Sub(all.Last) > tt.accuracy {
			t.Errorf("LinkHistory of %s = %+v, %v", tt.back, all, err)
		}
	}
	if l, err := cs.LinkHistory(ctx, eui(3), epoch, w.Now()); err != nil || l.Packets != 0 {
		t.Errorf("history of a silent device = %+v, %v", l, err)
	}
	for i, want := range []chirpstack.Readiness{{Activated: true}, {Key: network.ErrNotFound}, {Key: network.ErrNotFound}, {}} {
		r, err := cs.Readiness(ctx, eui(i))
		if err != nil || r.Activated != want.Activated || (r.Key == nil) != (want.Key == nil) || !errors.Is(r.Key, want.Key) || r.Disabled || r.EndToEnd {
			t.Errorf("Readiness of device %d = %+v, %v", i, r, err)
		}
	}
	if _, err := cs.Readiness(ctx, eui(99)); !errors.Is(err, network.ErrNotFound) {
		t.Errorf("readiness of no device: %v", err)
	}
	if b, err := cs.ProbeBroker(ctx, appID, time.Millisecond); err != nil || b.GrantedQoS != 1 || b.Events != 0 {
		t.Errorf("ProbeBroker = %+v, %v", b, err)
	}
}

func profileOf(t *testing.T, cs *chirpstack.Network) string {
	t.Helper()
	devices, err := cs.Devices(t.Context(), appID)
	if err != nil || len(devices) == 0 {
		t.Fatal(err)
	}
	return devices[0].Profile
}

// TestProbeHearsEvents listens while time passes, and takes no event from a subscriber that stays.
func TestProbeHearsEvents(t *testing.T) {
	w, cs := server(t, 1, 1)
	got := make(chan chirpstack.Broker, 1)
	ready := w.Hold("probe")
	go func() {
		b, err := cs.ProbeBroker(t.Context(), appID, 20*time.Second)
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	<-pace.C
	ready()
	for minutes := 1; ; minutes++ {
		if err := w.Run(t.Context(), epoch.Add(time.Duration(minutes)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		select {
		case b := <-got:
			if b.GrantedQoS != 1 || b.EventQoS != 1 || b.Events < 1 || b.Latest.Before(epoch) {
				t.Errorf("ProbeBroker = %+v", b)
			}
			return
		case <-pace.C:
		}
	}
}

func TestForDevices(t *testing.T) {
	var list []network.EUI64
	for i := range 100 {
		list = append(list, eui(i))
	}
	var n atomic.Int32
	if err := chirpstack.ForDevices(t.Context(), list, func(context.Context, network.EUI64) error { n.Add(1); return nil }); err != nil || n.Load() != 100 {
		t.Errorf("%d of 100, %v", n.Load(), err)
	}
	n.Store(0)
	broken := errors.New("broken")
	err := chirpstack.ForDevices(t.Context(), list, func(ctx context.Context, d network.EUI64) error {
		n.Add(1)
		if d == eui(5) {
			return broken
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, broken) || n.Load() > 16 {
		t.Errorf("%v after %d calls, want the first error, and none begun after it", err, n.Load())
	}
	if err := chirpstack.ForDevices(t.Context(), nil, nil); err != nil {
		t.Errorf("no devices: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := chirpstack.ForDevices(ctx, list, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled before it began: %v", err)
	}
}

// BenchmarkDevices asks everything about single devices that a plan asks, as a plan does. The figure rpc/s is of
// client and simulated server together, on the processors that they share; times for a fleet follow from it.
func BenchmarkDevices(b *testing.B) {
	for _, q := range []struct {
		name string
		rpcs int
		ask  func(context.Context, *chirpstack.Network, network.EUI64) error
	}{
		{"Readiness", 3, func(ctx context.Context, cs *chirpstack.Network, d network.EUI64) error {
			_, err := cs.Readiness(ctx, d)
			return err
		}},
		{"RootKey", 1, func(ctx context.Context, cs *chirpstack.Network, d network.EUI64) error {
			_, err := cs.RootKey(ctx, d)
			return err
		}},
		{"LinkHistory", 1, func(ctx context.Context, cs *chirpstack.Network, d network.EUI64) error {
			_, err := cs.LinkHistory(ctx, d, epoch.Add(-7*24*time.Hour), epoch)
			return err
		}},
	} {
		b.Run(q.name, func(b *testing.B) {
			_, cs, _ := serverWith(b, 10_000, 0, func(c *networkserver.Config) {
				for i := range c.Devices {
					c.Devices[i].Keys = &networkserver.Keys{GenAppKey: lorawan.AES128Key{1}}
				}
			}, nil)
			devices, err := cs.Devices(b.Context(), appID) // which profiles they have is asked once
			if err != nil {
				b.Fatal(err)
			}
			var euis []network.EUI64
			for _, d := range devices {
				euis = append(euis, d.EUI)
			}
			for b.Loop() {
				if err := chirpstack.ForDevices(b.Context(), euis, func(ctx context.Context, d network.EUI64) error { return q.ask(ctx, cs, d) }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*len(euis)*q.rpcs)/b.Elapsed().Seconds(), "rpc/s")
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/10k-devices")
		})
	}
}
