package session_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

var says = []byte{0x17, 1, 1}

// TestRawBlock sends a block to devices of three other stacks. By an uplink rule they are updated; without one they are
// unproven, and none may be called updated that does not hold the block.
func TestRawBlock(t *testing.T) {
	stacks := []campaigntest.Stack{campaigntest.LoRaMacNode, campaigntest.BasicsModem, campaigntest.Zephyr}
	for _, raw := range []session.Raw{{Proof: session.ProofBlock}, {Proof: session.ProofUplink, FPort: 2, Offset: 1, Bytes: says[1:]}} {
		for seed := range seeds() / 3 {
			t.Run(fmt.Sprintf("%s/seed=%d", raw.Proof, seed), func(t *testing.T) {
				r := newRig(t, options{seed: seed, n: 30, matrix: fragmentation.V1, spec: func(s *session.Spec) { s.Raw = &raw },
					change: func(i int, d *campaigntest.Device) {
						d.Stock, d.Says = stacks[i%3], says
						d.LossDown = float64(i%5) * 0.07
					}})
				r.run(96 * time.Hour)
				want := session.StageUnproven
				if raw.Proof == session.ProofUplink {
					want = session.StageUpdated
				}
				for i, row := range r.c.Rows() {
					if row.Stage != want {
						t.Errorf("device %d of stack %d: %+v, want %s", i, stacks[i%3], row, want)
					}
					if r.devices[i].Running() != newVersion {
						t.Errorf("device %d of stack %d: %+v, but it does not hold the block", i, stacks[i%3], row)
					}
				}
				if p := r.c.Progress(); p.DataSent+p.ParitySent > 5*p.M { // they do not say when it is enough
					t.Errorf("%d fragments for a block of %d", p.DataSent+p.ParitySent, p.M)
				}
			})
		}
	}
}

// TestRawWithoutProof has an uplink rule that never matches, and a tag that one device gets.
func TestRawWithoutProof(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 6, matrix: fragmentation.V1, spec: func(s *session.Spec) {
		s.Raw = &session.Raw{Proof: session.ProofUplink, FPort: 2, Bytes: []byte{0xff}}
	}, change: func(_ int, d *campaigntest.Device) { d.Stock, d.Says = campaigntest.BasicsModem, says }})
	r.run(96 * time.Hour)
	for _, row := range r.c.Rows() {
		if row.Stage != session.StageUnproven || r.c.State().Devices[0].Cause == diag.CauseSilentAfterBoot {
			t.Errorf("%+v, want unproven", row)
		}
	}

	r = newRig(t, options{seed: 1, n: 6, matrix: fragmentation.V1, spec: func(s *session.Spec) { s.Raw = &session.Raw{Proof: session.ProofTag} },
		change: func(_ int, d *campaigntest.Device) { d.Stock = campaigntest.BasicsModem }})
	r.w.At(start.Add(4*time.Hour), "tag", func() { r.step(session.Proven{Device: r.devices[2].EUI}) })
	r.run(96 * time.Hour)
	for i, row := range r.c.Rows() {
		if want := i == 2; (row.Stage == session.StageUpdated) != want || !want && row.Stage != session.StageUnproven {
			t.Errorf("device %d: %+v", i, row)
		}
	}
}

// TestZephyrCounts has devices that hear exactly as many fragments as there are, which is rarely enough, and say that
// they miss none.
func TestZephyrCounts(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 8, matrix: fragmentation.V1, spec: func(s *session.Spec) {
		s.Raw = &session.Raw{Proof: session.ProofUplink, FPort: 2, Bytes: says}
	}, change: func(_ int, d *campaigntest.Device) {
		d.Stock, d.Says, d.LossUp, d.LossDown = campaigntest.Zephyr, says, 0, 0
	}})
	for i, d := range r.devices { // frame 1 is the canary
		d.Lose = func(frame int) bool { return frame >= 2+i && frame < 2+i+r.spec.Plan.Parity }
	}
	r.run(96 * time.Hour)
	for i, row := range r.c.Rows() {
		if row.Stage != session.StageUpdated || r.devices[i].Running() != newVersion {
			t.Errorf("device %d: %+v", i, row)
		}
	}
}
