package run_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

// TestSessionsShareGateways has ten campaigns behind one gateway, which take turns, and one behind another gateway,
// which waits for nobody.
func TestSessionsShareGateways(t *testing.T) {
	f := newFixture(t, 1, 4)
	add := func(number byte, gateway network.EUI64) {
		spec := f.campaigns[0].Spec().Waves[0].Sessions[0]
		spec.ID, spec.McAddr, spec.Gateways = fmt.Sprint("c", number), 0x01000000+uint32(number), []network.EUI64{gateway}
		d := &campaigntest.Device{EUI: network.EUI64{number, 1}, Speaks: spec.Plan.Version(), Diag: true, Old: oldVersion, New: newVersion,
			Block: block, Interval: 10 * time.Minute, LastCnt: -1, Patch: time.Minute, Key: network.Key{number}, ServerKey: network.Key{number}}
		f.net.Add(d)
		spec.Devices = []session.Target{{EUI: d.EUI}}
		c, err := campaign.Single(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.engine.Add(c); err != nil {
			t.Fatal(err)
		}
		f.campaigns = append(f.campaigns, c)
	}
	const elsewhere = 10
	for number := byte(2); number < elsewhere; number++ {
		add(number, network.EUI64{0xaa})
	}
	add(elsewhere, network.EUI64{0xbb})
	if err := f.run(t, t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantUpdated(t)

	guard := f.campaigns[0].Spec().Waves[0].Sessions[0].Plan.Guard
	var last, alone time.Time // frames through the shared gateway, the first through the other
	var sender string
	for _, e := range f.log {
		switch {
		case e.Kind != "broadcast":
		case e.Campaign != fmt.Sprint("c", elsewhere):
			if e.Campaign != sender && e.Time.Sub(last) < guard {
				t.Errorf("%s sends at %s, %s has sent at %s through the same gateway", e.Campaign, e.Time, sender, last)
			}
			sender, last = e.Campaign, e.Time
		case alone.IsZero():
			alone = e.Time
		}
	}
	if !alone.Before(last) {
		t.Errorf("the campaign behind the other gateway began at %s, when the others were done", alone)
	}
}
