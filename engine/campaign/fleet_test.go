package campaign_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

// TestMixedFleet has one campaign for devices of both versions of TS004, of three base versions, of stock devices of
// two stacks by raw block, and of two regions.
func TestMixedFleet(t *testing.T) {
	says := []byte{0x51}
	from := func(v uint32) func(int, *campaigntest.Device, *session.Target) {
		return func(_ int, d *campaigntest.Device, target *session.Target) { d.Old, target.From = v, v }
	}
	stock := func(stack campaigntest.Stack) func(int, *campaigntest.Device, *session.Target) {
		return func(_ int, d *campaigntest.Device, target *session.Target) {
			d.Stock, d.Says = stack, says
			target.From, target.Hardware = 0, uint16(10+stack)
		}
	}
	raw := func(s *session.Spec) { s.Raw = &session.Raw{Proof: session.ProofUplink, FPort: 2, Bytes: says} }
	r := newRig(t, 6, nil,
		group{wave: 0, n: 10, change: from(0x01000000)},
		group{wave: 0, n: 10, matrix: fragmentation.V1, change: from(0x00090000)},
		group{wave: 1, n: 10, change: from(0x00090100)},
		group{wave: 1, n: 10, region: airtime.US915, change: from(0x01000000)},
		group{wave: 1, n: 8, matrix: fragmentation.V1, change: stock(campaigntest.LoRaMacNode), spec: raw},
		group{wave: 1, n: 8, matrix: fragmentation.V2, change: stock(campaigntest.BasicsModem), spec: raw})
	r.run(300 * time.Hour)
	p := r.c.Progress()
	if p.Updated != 56 || p.Halted != "" {
		t.Errorf("%d of 56 updated, halted %q", p.Updated, p.Halted)
		for _, row := range r.c.Rows() {
			if row.Stage != session.StageUpdated {
				t.Logf("%+v", row)
			}
		}
	}
	if len(p.Cohorts) != 5 {
		t.Errorf("%d cohorts, want 5: %v", len(p.Cohorts), p.Cohorts)
	}
	for _, d := range r.order {
		if want := d.Speaks; want != applayer.V1 && want != applayer.V2 || d.Running() != newVersion {
			t.Errorf("device %s runs %#x", d.EUI, d.Running())
		}
	}
}

// large is a started campaign of n devices in sessions of a thousand, without a network.
func large(tb testing.TB, n int) (*campaign.Campaign, []network.EUI64) {
	tb.Helper()
	t := &testing.T{}
	spec := campaign.Spec{ID: "large", Application: "app", Waves: []campaign.Wave{{Name: "all"}}}
	p := planned(t, fragmentation.V2, airtime.EU868)
	b := block(t)
	all := make([]network.EUI64, n)
	for i := 0; i < n; {
		s := session.Spec{ID: fmt.Sprint(i), Application: "app", Block: b, Target: newVersion, Plan: p,
			Gateways: []network.EUI64{{1}}, McAddr: uint32(i), McKey: network.Key{1}}
		for range min(1000, n-i) {
			binary.BigEndian.PutUint64(all[i][:], uint64(i+1))
			s.Devices = append(s.Devices, session.Target{EUI: all[i], Hardware: uint16(i % 3), From: uint32(i % 4)})
			i++
		}
		spec.Waves[0].Sessions = append(spec.Waves[0].Sessions, s)
	}
	c, err := campaign.New(spec)
	if err != nil {
		tb.Fatal(err)
	}
	c.Step(start, campaign.Start{})
	return c, all
}

// TestLargeCampaign feeds a day of uplinks of all devices and measures memory. The steady state must not grow with
// the number of uplinks.
func TestLargeCampaign(t *testing.T) {
	n := 20_000
	if os.Getenv("SOWER_PROOF") != "" {
		n = 100_000
	}
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / (1 << 20)
	}
	before := heap()
	c, all := large(t, n)
	first := heap() - before
	began := time.Now()
	steps := 0
	for hour := range 12 {
		for i, eui := range all {
			now := start.Add(time.Duration(hour)*time.Hour + time.Duration(i)*time.Hour/time.Duration(n))
			c.Step(now, campaign.Heard{Event: network.Event{Kind: network.EventUplink, Device: eui, At: now, FPort: 10, Payload: []byte{1}}})
			if steps++; steps%1000 == 0 {
				if at := c.NextWake(); !at.IsZero() && !at.After(now) {
					c.Step(now, campaign.Tick{})
				}
				c.Changes() // as a store does
			}
		}
	}
	spent := time.Since(began)
	last := heap() - before
	p := c.Progress()
	t.Logf("%d devices: %.0f MB after the start, %.0f MB after %d uplinks, %s per uplink, %.0f bytes per device", n, first, last, steps,
		(spent / time.Duration(steps)).Round(10*time.Nanosecond), last*(1<<20)/float64(n))
	if p.Devices != n {
		t.Errorf("%d devices", p.Devices)
	}
	if limit := 500 * float64(n) / 100_000 * 0.6; last > limit {
		t.Errorf("%.0f MB, want at most %.0f: the rest of 500 MB for 100,000 devices is for what is around", last, limit)
	}
}

// BenchmarkUplink is one ordinary uplink of one device of so many.
func BenchmarkUplink(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("devices=%d", n), func(b *testing.B) {
			c, all := large(b, n)
			i := 0
			for b.Loop() {
				now := start.Add(time.Duration(i) * time.Millisecond)
				c.Step(now, campaign.Heard{Event: network.Event{Kind: network.EventUplink, Device: all[i%n], At: now, FPort: 10}})
				i++
			}
		})
	}
}

// BenchmarkProgress is what a display asks for.
func BenchmarkProgress(b *testing.B) {
	c, _ := large(b, 100_000)
	for b.Loop() {
		c.Progress()
	}
}
