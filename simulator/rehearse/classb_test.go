package rehearse_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/rehearse"
)

// classB is a campaign of n devices that lose a tenth of all frames, behind two gateways.
func classB(t *testing.T, n int, in plan.Input) rehearse.CampaignConfig {
	t.Helper()
	block := sign(t, 8000)
	caps := network.Capabilities{Name: "ChirpStack", ReportsSent: true, MulticastClasses: []network.Class{network.ClassC, network.ClassB}}
	in.Block, in.Region, in.Devices, in.Gateways, in.Matrix, in.Loss, in.Capabilities = block, airtime.EU868, n, 2, fragmentation.V2, []float64{0.1}, caps
	in.Repeater = true
	p, err := plan.Make(in)
	if err != nil {
		t.Fatal(err)
	}
	cfg := rehearse.CampaignConfig{Seed: 1, Start: time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC), UplinkInterval: 10 * time.Minute}
	ss := session.Spec{ID: "meters", Application: networkserver.UUID(1, "application"), Block: block, Target: target, Plan: p,
		Gateways: []network.EUI64{{0xaa, 7: 1}, {0xaa, 7: 2}}, McAddr: 0x01000000, McKey: network.Key{1},
		Capabilities: caps, Timing: session.Timing{UplinkInterval: cfg.UplinkInterval}}
	if p.ClassB != nil {
		ss.ClassB = &session.ClassB{Periodicity: p.ClassB.Periodicity}
	}
	for i := range n {
		var eui network.EUI64
		binary.BigEndian.PutUint64(eui[:], 0x70b3d50000000000+uint64(i))
		ss.Devices = append(ss.Devices, session.Target{EUI: eui})
		cfg.Members = append(cfg.Members, rehearse.Member{EUI: eui, Running: 0x01000000, LossUp: 0.1, LossDown: 0.1})
	}
	cfg.Spec = campaign.Spec{ID: "meters", Application: ss.Application, Waves: []campaign.Wave{{Name: "all", Sessions: []session.Spec{ss}}}}
	return cfg
}

// TestClassB rehearses a campaign in ping slots, chosen by the planner or imposed: with a tenth of all frames and beacons
// lost all devices are updated, at an airtime near the planned one, within the first window.
func TestClassB(t *testing.T) {
	t.Parallel()
	four, seven := uint8(4), uint8(7)
	for _, in := range []plan.Input{
		{Class: network.ClassB, DataRate: 3},
		{Class: network.ClassB, DataRate: 5},
		{Class: network.ClassB, DataRate: 5, Periodicity: &four},
		{Class: network.ClassB, DataRate: 3, Periodicity: &seven}, // for longer than a device goes on without beacons
	} {
		cfg := classB(t, 20, in)
		p := cfg.Spec.Waves[0].Sessions[0].Plan
		r, err := rehearse.RunCampaign(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		where := fmt.Sprintf("DR%d, periodicity %d", p.DataRate, p.ClassB.Periodicity)
		if !r.Ran || r.Progress.Updated != 20 {
			t.Fatalf("%s: ran to its end: %t, %d of 20 updated: %+v", where, r.Ran, r.Progress.Updated, r.Progress)
		}
		for _, d := range r.Devices {
			if d.Runs != 0x01010000 || d.Multicasts < p.M {
				t.Errorf("%s: device %s runs %08x and has received %d of %d fragments", where, d.EUI, d.Runs, d.Multicasts, p.M)
			}
		}
		x := r.Progress.Sessions[0]
		if airtime.GPS(x.Start)%airtime.BeaconPeriod != 0 || x.End.Sub(x.Start) < 128*time.Second<<p.TimeOut || x.End.Sub(x.Start)%airtime.BeaconPeriod != 0 || x.Window != 1 {
			t.Errorf("%s: window %d from %s to %s, want the first, of at least 128·2^%d s", where, x.Window, x.Start, x.End, p.TimeOut)
		}
		if plan := p.Airtime; x.Airtime < plan*3/4 || x.Airtime > plan+plan/4 { // less if all are complete before the burst ends
			t.Errorf("%s: airtime %s, planned %s until the first status round", where, x.Airtime, plan)
		}
	}
}
