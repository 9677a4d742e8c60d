package session_test

import (
	"testing"
	"time"

	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

// When a window ends because its rounds are used up, those that kept silent count as complete, as ever: the image will
// prove it. Only who has none is asked by a message of its own.
func TestSilenceAfterTheLastRound(t *testing.T) {
	const n = 40
	r := newRig(t, options{seed: 1, n: n, change: func(i int, d *campaigntest.Device) {
		d.LossUp, d.LossDown = 0, 0.05
		if i < 3 {
			d.LossDown = 0.5
		}
	}, spec: func(s *session.Spec) { s.Limits.Rounds = 1 }})
	r.run(96 * time.Hour)
	for i, row := range r.c.Rows() {
		if row.Stage != session.StageUpdated {
			t.Errorf("device %d: %+v", i, row)
		}
	}
	if r.c.Progress().Window < 2 {
		t.Error("one round was enough: the test shows nothing")
	}
	if asked := r.sends[session.CmdStatus]; asked > n/4 {
		t.Errorf("%d unicast status requests to %d devices", asked, n)
	}
}

// A session that has sent all it may asks nobody what is missing: there would be nothing to send.
func TestNoQuestionAfterTheLastFragment(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 40, spec: func(s *session.Spec) {
		s.Plan.Canary = false
		s.Limits.Fragments, s.Limits.Tail = s.Plan.M+s.Plan.Parity, -1
	}, change: func(i int, d *campaigntest.Device) {
		if i == 7 {
			d.LossDown = 0.6
		}
	}})
	r.run(96 * time.Hour)
	if p := r.c.Progress(); p.StatusSent > 0 || p.DataSent+p.ParitySent != p.M+r.spec.Plan.Parity {
		t.Errorf("%d status requests after %d fragments", p.StatusSent, p.DataSent+p.ParitySent)
	}
	for i, row := range r.c.Rows() {
		if want := i != 7; (row.Stage == session.StageUpdated) != want || !want && row.Cause != "LOSS_EXCEEDED" {
			t.Errorf("device %d: %+v", i, row)
		}
	}
}
