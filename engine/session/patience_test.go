package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

// TestDeviceDefers has devices that put the update off for two days, before they patch and again before they reboot:
// for their battery, or because somebody uses them. They must be updated later, and one that never comes round must
// end with its own cause.
func TestDeviceDefers(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 8, change: func(i int, d *campaigntest.Device) {
		d.Diag = true
		switch i {
		case 0:
			d.Defers, d.DefersUntil = diag.CauseDeferredBattery, 50*time.Hour
		case 1:
			d.Defers, d.DefersUntil = diag.CauseDeferredUser, 60*time.Hour
		case 2:
			d.Defers, d.DefersUntil = diag.CauseDeferredBattery, 1000*time.Hour
		}
	}})
	r.run(10 * 24 * time.Hour)
	for i := range r.devices {
		if i != 2 {
			r.wantUpdated(i)
		}
	}
	r.wantFailed(2, diag.StepPatch, diag.CauseDeferredBattery)
	said := map[string]int{}
	for _, rec := range r.records {
		if rec.What == "deferred" {
			said[rec.Device.String()]++
		}
	}
	if len(said) != 3 {
		t.Errorf("deferred devices in the log: %v, want 3", said)
	}
	for _, rec := range r.records {
		if rec.What == "stage" && rec.Stage == session.StageUpdated && rec.Device == r.devices[3].EUI {
			return
		}
	}
	t.Error("no record of an update")
}

// TestLowBattery has a device at 5 %, of which the network knows: it receives, is not told to reboot, and completes when
// its battery has been changed.
func TestLowBattery(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 4, spec: func(s *session.Spec) {
		s.MinBattery = 20
		s.Devices[0].Battery, s.Devices[1].Battery, s.Devices[2].Battery = 5, 90, -1
	}})
	r.w.At(start.Add(60*time.Hour), "battery", func() {
		for i := 1; i < 4; i++ {
			r.wantUpdated(i)
		}
		if row := r.c.Rows()[0]; row.Stage != session.StageReady || r.devices[0].Running() != oldVersion {
			t.Errorf("device at 5 %% after 60 h: %+v, want ready", row)
		}
		r.step(session.Battery{Device: r.devices[0].EUI, Percent: 80})
	})
	r.run(80 * time.Hour)
	r.wantUpdated(0)
	if !strings.Contains(r.text("deferred"), "5 %") {
		t.Errorf("the log does not say why: %q", r.text("deferred"))
	}

	r = newRig(t, options{seed: 1, n: 1, spec: func(s *session.Spec) { s.MinBattery, s.Devices[0].Battery = 20, 5 }})
	r.run(20 * 24 * time.Hour)
	r.wantFailed(0, diag.StepReady, diag.CauseDeferredBattery)
}

// text returns the texts of all records of that kind.
func (r *rig) text(what string) string {
	var b strings.Builder
	for _, rec := range r.records {
		if rec.What == what {
			b.WriteString(rec.Text + "\n")
		}
	}
	return b.String()
}

// TestProof asks for ten uplinks without a reset: a device that resets a little needs longer, one that resets again and
// again has failed.
func TestProof(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 4, spec: func(s *session.Spec) { s.Limits.Proof = 10 }, change: func(i int, d *campaigntest.Device) {
		d.LossUp = 0
		d.Resets = []int{0, 2, 9, 0}[i]
		d.Diag = i < 3
	}})
	since := map[int]int{} // uplinks after the last reset, when the session took the device as updated
	r.check = func() {
		for i := range r.devices {
			if _, known := since[i]; !known && r.c.Device(i).Stage == session.StageUpdated {
				since[i] = r.devices[i].Steady
			}
		}
	}
	r.run(72 * time.Hour)
	for _, i := range []int{0, 1, 3} {
		if r.wantUpdated(i); since[i] < 10 {
			t.Errorf("device %d was taken as updated after %d uplinks", i, since[i])
		}
	}
	r.wantFailed(2, diag.StepTrial, diag.CauseHealthRegressed)
}

// TestStormOfAborts aborts at random instants: it must always end, with nothing left on the server.
func TestAbortAnywhere(t *testing.T) {
	for k := range 40 {
		r := newRig(t, options{seed: uint64(k), n: 6})
		at := start.Add(time.Duration(k*k) * 20 * time.Second)
		r.w.At(at, "abort", func() {
			if !r.c.Ended() {
				r.step(session.Abort{Reason: "test"})
			}
		})
		r.run(96 * time.Hour)
	}
}

// TestPauseAnywhere pauses for a while at many instants: all devices must still be updated.
func TestPauseAnywhere(t *testing.T) {
	for k := range 40 {
		r := newRig(t, options{seed: uint64(k), n: 6, change: func(_ int, d *campaigntest.Device) { d.LossUp, d.LossDown = 0.05, 0.1 }})
		at := start.Add(time.Duration(k) * 7 * time.Minute)
		paused := false
		r.w.At(at, "pause", func() { paused = !r.c.Ended(); r.step(session.Pause{Reason: "test"}) })
		r.w.At(at.Add(5*time.Hour), "continue", func() {
			if paused {
				r.step(session.Continue{})
			}
		})
		r.run(96 * time.Hour)
		for i := range r.devices {
			r.wantUpdated(i)
		}
	}
}
