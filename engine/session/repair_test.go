package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

// TestRefusedFragments has a gateway that refuses every tenth fragment for its duty cycle. Each must be made up for, in
// the same window, and explained.
func TestRefusedFragments(t *testing.T) {
	r := newRig(t, options{seed: 2, n: 20, change: func(_ int, d *campaigntest.Device) { d.LossUp, d.LossDown = 0.02, 0.02 },
		net: func(n *campaigntest.Net) {
			n.Caps.ReportsBroadcast = true
			n.Refuse = func(fcnt uint32) string {
				if fcnt%10 == 3 {
					return "DUTY_CYCLE_OVERFLOW"
				}
				return ""
			}
		}})
	r.run(48 * time.Hour)
	for i := range r.devices {
		r.wantUpdated(i)
	}
	p := r.c.Progress()
	explained := 0
	for _, rec := range r.records {
		if rec.What == "refused" && rec.Cause == diag.CauseGatewayDutyCycle && strings.Contains(rec.Text, "one more parity fragment") {
			explained++
		}
	}
	if p.Refused < p.M/10-1 || explained != p.Refused {
		t.Errorf("%d fragments refused, %d explained, block of %d", p.Refused, explained, p.M)
	}
	if p.Window != 1 {
		t.Errorf("%d windows, want the refused fragments to be made up for in the first", p.Window)
	}
	if sent := p.DataSent + p.ParitySent; sent < p.M+r.spec.Plan.Parity || p.DataSent > p.M-p.M/10+1 {
		t.Errorf("%d data and %d parity fragments counted as sent", p.DataSent, p.ParitySent)
	}
}

// TestRefusedByOneGateway has two gateways of which one refuses, and says so twice: the fragment was sent all the same.
func TestRefusedByOneGateway(t *testing.T) {
	r := newRig(t, options{seed: 2, n: 6, spec: func(s *session.Spec) { s.Gateways = []network.EUI64{{0xaa}, {0xbb}} }})
	told := 0
	r.broadcasted = func(n int) {
		if n < 3 || told > 0 {
			return
		}
		told++
		r.w.After(time.Second, "refused", func() {
			for range 2 {
				r.step(session.Heard{Event: network.Event{Kind: network.EventDropped, Group: "sower-test", Gateway: network.EUI64{0xbb},
					FCnt: uint32(r.net.Frames() - 1), At: r.w.Now(), Reason: "COLLISION_PACKET"}})
			}
		})
	}
	r.run(48 * time.Hour)
	if p := r.c.Progress(); p.Refused != 0 || p.DataSent != p.M || strings.Count(r.text("refused"), "other gateways have sent it") != 1 {
		t.Errorf("%d refused, %d of %d data fragments sent; log: %q", p.Refused, p.DataSent, p.M, r.text("refused"))
	}
}

// TestRefusedForEver must end: a gateway that sends nothing at all.
func TestRefusedForEver(t *testing.T) {
	r := newRig(t, options{seed: 2, n: 10, net: func(n *campaigntest.Net) {
		n.Caps.ReportsBroadcast = true
		n.Refuse = func(uint32) string { return "TOO_LATE" }
	}})
	r.run(200 * time.Hour)
	for _, row := range r.c.Rows() {
		if row.Stage != session.StageFailed {
			t.Errorf("%+v", row)
		}
	}
}

// TestTail leaves one device a few fragments short: it must get them by unicast, without another window.
func TestTail(t *testing.T) {
	windows := map[bool]int{}
	for _, tail := range []bool{true, false} {
		r := newRig(t, options{seed: 8, n: 12, spec: func(s *session.Spec) {
			s.Limits.Rounds = 1
			if !tail {
				s.Limits.Tail = -1
			}
		}, change: func(i int, d *campaigntest.Device) {
			d.LossUp, d.LossDown = 0, 0
		}})
		// One device loses as much as the plan allows for, three more, and most of the top-up. Frame 1 is the canary.
		p := r.spec.Plan
		r.devices[0].Lose = func(frame int) bool {
			return frame > 1 && frame < p.Parity+5 || frame > 2+p.M+p.Parity && frame%5 != 0
		}
		r.run(96 * time.Hour)
		for i := range r.devices {
			r.wantUpdated(i)
		}
		windows[tail] = r.c.Progress().Window
		if got := r.sends[session.CmdFragment]; (got > 0) != tail {
			t.Errorf("tail %v: %d fragments by unicast", tail, got)
		}
	}
	if windows[true] != 1 || windows[false] < 2 {
		t.Errorf("%d windows with the unicast tail, %d without", windows[true], windows[false])
	}
}

// TestCutOff cuts a device off for the whole first window: the network is to blame, not its keys. It must be served in
// the next one, and is said to have the group's keys only if it has answered over the group.
func TestCutOff(t *testing.T) {
	for _, tt := range []struct {
		name   string
		from   int // first frame of the group that is lost; the first is the canary
		window int // from which on nothing is lost
		groups int // times that the group is set up
		heard  bool
		cause  diag.Cause
	}{
		{"from the beginning", 1, 2, 2, false, diag.CauseOK}, // whoever is complete keeps silent
		{"after the canary", 2, 2, 1, true, diag.CauseOK},
		{"for ever", 1, 99, 2, false, diag.CauseKeyMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, options{seed: 3, n: 8, payload: 2000, change: func(_ int, d *campaigntest.Device) { d.LossUp, d.LossDown = 0, 0 }})
			r.devices[0].Lose = func(frame int) bool { return frame >= tt.from && r.c.Progress().Window < tt.window }
			r.run(96 * time.Hour)
			for i := range r.devices {
				if i > 0 || tt.cause == diag.CauseOK {
					r.wantUpdated(i)
				} else {
					r.wantFailed(i, diag.StepReceive, tt.cause)
				}
			}
			if got := r.sends[session.CmdGroup]; got != len(r.devices)-1+tt.groups {
				t.Errorf("the group was set up %d times, want %d times on the first device and once on the %d others", got, tt.groups, len(r.devices)-1)
			}
			if heard := r.c.Device(0).Heard; heard != tt.heard {
				t.Errorf("the first device has proved that it has the group's keys: %v", heard)
			}
			if p := r.c.Progress(); p.Window != 2 {
				t.Errorf("%d windows, want 2", p.Window)
			}
		})
	}
}
