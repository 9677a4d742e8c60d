package session_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

// proveHeld fails if the session takes a device as complete that does not hold the block.
func (r *rig) proveHeld() {
	for i, d := range r.devices {
		if r.c.Device(i).Stage == session.StageComplete && d.CompleteFrame == 0 {
			r.t.Fatalf("at %s device %d is taken as complete, but does not hold the block", r.w.Now(), i)
		}
	}
}

// TestRejoinAfterArming has a device join again once it has confirmed a window: before the window opens, it must be set
// up again for this one, later for the next. Its fragmentation session is set up again only if it is gone.
func TestRejoinAfterArming(t *testing.T) {
	const before, guard, inside = "before the window", "as the window opens", "inside the window"
	for _, matrix := range []fragmentation.Matrix{fragmentation.V1, fragmentation.V2} {
		for _, window := range []int{1, 2} {
			for _, when := range []string{before, guard, inside} {
				for _, forgets := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/window %d/%s/forgets=%v", matrix, window, when, forgets), func(t *testing.T) {
						r := newRig(t, options{seed: 5, n: 8, matrix: matrix, change: func(i int, d *campaigntest.Device) {
							d.LossUp, d.LossDown, d.Clock = 0, 0, 0
							d.Forgets = forgets && i == 0
						}, spec: func(s *session.Spec) { s.Limits.Rounds, s.Limits.Tail = 1, -1 }})
						p, sending := r.spec.Plan, 0
						if window == 2 { // two devices lose more than the plan provides for, and the top-up of the first window
							for _, d := range r.devices[:2] {
								d.Lose = func(frame int) bool {
									return sending > 0 && r.c.Progress().Window == 1 && (frame > 1 && frame < p.Parity+6 || frame > 2+p.M+p.Parity)
								}
							}
						}
						joined, opened, last := false, false, session.StageDiscover
						join := func() {
							joined = true
							r.w.After(time.Second, "rejoin", r.devices[0].Rejoin)
						}
						r.check = func() {
							r.proveHeld()
							st := r.c.State()
							if d := st.Devices[0]; !joined && st.Window.Number == window && d.Window == window {
								switch {
								case when == before && st.Phase == session.PhaseAnnounce:
									join()
								case when == guard && st.Phase == session.PhaseAnnounce:
									joined = true
									r.w.At(st.Window.Start.Add(p.Guard/2), "rejoin", r.devices[0].Rejoin)
								}
							}
							if joined && st.Phase == session.PhaseAnnounce {
								last = st.Devices[0].Stage // at the end, as the window opens
							}
							if joined && !opened && st.Phase == session.PhaseWindow && st.Window.Number == window {
								opened = true
								d := st.Devices[0]
								if when == before && window == 1 && last != session.StageArmed {
									t.Errorf("the device is shown as %s after its set-up, want armed", last)
								}
								// A session that is gone takes its part of the fragments along: then the next data pass is worth waiting for.
								if again := d.Window == window; when == before && again != (window == 1 || !forgets || matrix == fragmentation.V1) || when == guard && again {
									t.Errorf("in window %d the device takes part: %v (%+v)", window, again, d)
								}
							}
						}
						r.broadcasted = func(n int) {
							sending = n
							if when == inside && !joined && n > 0 && r.c.State().Window.Number == window {
								join()
							}
						}
						r.run(96 * time.Hour)
						if !joined {
							t.Fatal("the instant to join never came")
						}
						for i := range r.devices {
							r.wantUpdated(i)
						}
						want := 1
						if forgets || matrix == fragmentation.V1 && window == 1 && when != inside {
							want = 2 // version 1 cannot say that there is no session, and nothing is lost by another
						}
						if got := r.devices[0].SetUps; got != want {
							t.Errorf("%d fragmentation sessions were set up, want %d", got, want)
						}
					})
				}
			}
		}
	}
}

// TestSessionGone has devices that lose their fragmentation session, but not their group: before the canary, while
// fragments flow, and after the window. No parity may be spent on them; they get a new session and all data again.
func TestSessionGone(t *testing.T) {
	for _, at := range []string{"armed", "canary", "data", "collect"} {
		t.Run(at, func(t *testing.T) {
			r := newRig(t, options{seed: 5, n: 10, change: func(_ int, d *campaigntest.Device) { d.LossUp, d.LossDown, d.Diag = 0, 0, false }})
			done := false
			forget := func() {
				done = true
				r.devices[0].Forget()
			}
			r.check = func() {
				r.proveHeld()
				st := r.c.State()
				switch {
				case done:
				case at == "armed" && st.Phase == session.PhaseAnnounce && st.Devices[0].Stage == session.StageArmed,
					at == "canary" && st.Air.Step == session.AirCanaryListen && st.Devices[0].Heard,
					at == "data" && st.Frames > 10,
					at == "collect" && st.Air.Step == session.AirAsk:
					forget()
				}
			}
			r.run(96 * time.Hour)
			for i := range r.devices {
				r.wantUpdated(i)
			}
			p, d := r.c.Progress(), r.c.State().Devices[0]
			if !done || p.Window != 2 || r.devices[0].SetUps != 2 {
				t.Errorf("%d windows and %d fragmentation sessions, want 2 and 2", p.Window, r.devices[0].SetUps)
			}
			if p.DataSent != 2*p.M || p.ParitySent > 2*r.spec.Plan.Parity {
				t.Errorf("%d data and %d parity fragments for a block of %d, planned %d", p.DataSent, p.ParitySent, p.M, r.spec.Plan.Parity)
			}
			if flowed := at == "data" || at == "collect"; flowed && d.SessionCnt == 0 {
				t.Error("the new session has the counter of the old one")
			}
			if n := len(r.text("top-up")); n != 0 {
				t.Errorf("parity was spent on a device without a session: %s", r.text("top-up"))
			}
		})
	}
}

// TestRejoinQueue has a server that keeps its queues over a join, and one that does not: no command may wait twice for a
// device, whenever it joins.
func TestRejoinQueue(t *testing.T) {
	for _, keeps := range []bool{true, false} {
		for _, reports := range []bool{true, false} {
			t.Run(fmt.Sprintf("keeps=%v/reports=%v", keeps, reports), func(t *testing.T) {
				r := newRig(t, options{seed: 5, n: 60, change: func(i int, d *campaigntest.Device) {
					d.RejoinAt = time.Duration(i)*3*time.Minute + time.Second
				}, net: func(n *campaigntest.Net) { n.KeepsQueue, n.Caps.ReportsSent = keeps, reports }})
				r.run(72 * time.Hour)
				for i := range r.devices {
					r.wantUpdated(i)
				}
				if r.net.Twice > 0 {
					t.Errorf("%d commands waited twice for a device", r.net.Twice)
				}
			})
		}
	}
}

// TestRejoinFirst joins again before the first uplink: PackageVersionReq waits already, and one is enough.
func TestRejoinFirst(t *testing.T) {
	r := newRig(t, options{seed: 5, n: 1, change: func(_ int, d *campaigntest.Device) {
		d.RejoinAt, d.LossUp, d.LossDown = time.Second, 0, 0
	}, net: func(n *campaigntest.Net) { n.KeepsQueue = true }})
	r.run(72 * time.Hour)
	r.wantUpdated(0)
	if n := r.sends[session.CmdPackages]; n != 1 {
		t.Errorf("PackageVersionReq was sent %d times, want once", n)
	}
}

// TestAllSessionsGone has every device lose its session before the window: the canary shows it, and no data may be sent
// before they have new ones.
func TestAllSessionsGone(t *testing.T) {
	r := newRig(t, options{seed: 5, n: 6, change: func(_ int, d *campaigntest.Device) { d.LossUp, d.LossDown = 0, 0 }})
	r.w.At(start.Add(time.Hour), "forget", func() {
		for i, d := range r.devices {
			if r.c.Device(i).Stage != session.StageArmed {
				t.Fatalf("device %d is not armed after an hour: %+v", i, r.c.Device(i))
			}
			d.Forget()
		}
	})
	r.run(96 * time.Hour)
	for i := range r.devices {
		r.wantUpdated(i)
	}
	if p := r.c.Progress(); p.Window != 2 || p.DataSent != p.M || p.ParitySent == 0 {
		t.Errorf("%d windows, %d data fragments of %d, %d parity", p.Window, p.DataSent, p.M, p.ParitySent)
	}
}

// TestSessionGoneLate has a device that says before the window that its session is gone, and cannot be reached after
// that: it must not take part, but in the next window.
func TestSessionGoneLate(t *testing.T) {
	r := newRig(t, options{seed: 5, n: 6, change: func(i int, d *campaigntest.Device) {
		d.LossUp, d.LossDown, d.Forgets = 0, 0, i == 0
	}})
	joined, deaf := false, false
	r.check = func() {
		st := r.c.State()
		switch d := st.Devices[0]; {
		case !joined && d.Stage == session.StageArmed:
			joined = true
			r.w.After(time.Second, "rejoin", r.devices[0].Rejoin)
		case !deaf && joined && st.Phase == session.PhaseAnnounce && !d.Frag:
			deaf = true
			r.devices[0].LossDown = 1
		case deaf && st.Phase == session.PhaseWindow:
			r.devices[0].LossDown = 0
			if st.Window.Number == 1 && (d.Stage != session.StagePrepared || d.Armed != 0) {
				t.Fatalf("a device without a session takes part: %+v", d)
			}
		}
	}
	r.run(96 * time.Hour)
	if !deaf {
		t.Error("the device was never asked for its session")
	}
	for i := range r.devices {
		r.wantUpdated(i)
	}
}

// TestRejoinWaiting joins again while a later command of the set-up waits at a server that keeps its queues: each device
// gets its fragmentation session once, although it needs the group first.
func TestRejoinWaiting(t *testing.T) {
	r := newRig(t, options{seed: 5, n: 1, change: func(_ int, d *campaigntest.Device) { d.LossUp, d.LossDown = 0, 0 },
		net: func(n *campaigntest.Net) { n.KeepsQueue = true }})
	joined := false
	r.check = func() {
		if p := r.c.Device(0).Pending; !joined && p.Kind == session.CmdSession && p.Op != 0 {
			joined = true
			r.w.After(time.Millisecond, "rejoin", r.devices[0].Rejoin)
		}
	}
	r.run(72 * time.Hour)
	r.wantUpdated(0)
	if n := r.devices[0].SetUps; !joined || n != 1 {
		t.Errorf("%d fragmentation sessions were set up, want one", n)
	}
}

// TestRejoinOften has a device that joins again every few minutes, more often than it sends, at a server that empties its
// queue then: it must be reached all the same.
func TestRejoinOften(t *testing.T) {
	r := newRig(t, options{seed: 5, n: 3, change: func(_ int, d *campaigntest.Device) { d.LossUp, d.LossDown = 0, 0 }})
	for k := range 15 {
		r.w.At(start.Add(time.Duration(4*k+1)*time.Minute), "rejoin", r.devices[0].Rejoin)
	}
	r.check = func() {
		if d := r.c.Device(0); d.Flushes && d.Pending.Kept {
			t.Errorf("at %s the session waits for a message that is gone: %+v", r.w.Now(), d.Pending)
		}
	}
	r.w.At(start.Add(50*time.Minute), "look", func() {
		if d := r.c.Device(0); d.Packages == 0 || !d.Flushes {
			t.Errorf("after 50 minutes the device has not been reached, or only by chance: %+v", d)
		}
	})
	r.run(96 * time.Hour)
	for i := range r.devices {
		r.wantUpdated(i)
	}
}

// TestRejoinForEver has a device that loses its session in the window and joins again and again, and in version 1 cannot
// say so. The session must end.
func TestRejoinForEver(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		r := newRig(t, options{seed: 5, n: 4, matrix: fragmentation.V1, change: func(i int, d *campaigntest.Device) {
			d.LossUp, d.LossDown, d.Forgets = 0, 0, i == 0
		}, net: func(n *campaigntest.Net) { n.KeepsQueue = keeps }})
		loops := false
		var loop func()
		loop = func() {
			if !r.c.Ended() {
				r.devices[0].Rejoin()
				r.w.After(17*time.Minute, "rejoin", loop)
			}
		}
		r.broadcasted = func(n int) {
			if n > 0 && !loops {
				loops = true
				r.w.After(time.Second, "rejoin", loop)
			}
		}
		r.run(200 * time.Hour)
		for i := range r.devices[1:] {
			r.wantUpdated(i + 1)
		}
		if !loops {
			t.Error("the device never joined again")
		}
	}
}

// TestRejoinHalfSetUp has a device that joins again, confirms the window, and cannot be reached for its session until the
// window opens: it must wait for the next one.
func TestRejoinHalfSetUp(t *testing.T) {
	r := newRig(t, options{seed: 5, n: 6, matrix: fragmentation.V1, change: func(i int, d *campaigntest.Device) {
		d.LossUp, d.LossDown, d.Forgets = 0, 0, i == 0
	}})
	says := func(d *campaigntest.Device, ans mcsetup.McClassCSessionAns) {
		payload, err := mcsetup.AppendCommand(nil, applayer.V1, ans)
		if err != nil {
			t.Fatal(err)
		}
		r.step(session.Heard{Event: network.Event{Kind: network.EventUplink, Device: d.EUI, At: r.w.Now(),
			FPort: applayer.FPortMcSetup, Payload: payload}})
	}
	joined, confirmed := false, false
	r.check = func() {
		st, d := r.c.State(), r.devices[0]
		switch {
		case !joined && st.Devices[0].Stage == session.StageArmed:
			joined = true
			r.w.After(time.Second, "rejoin", d.Rejoin)
		case joined && !confirmed && st.Devices[0].Group:
			confirmed, d.LossDown = true, 1
			r.w.After(time.Second, "confirm", func() {
				says(d, mcsetup.McClassCSessionAns{TimeToStart: uint32(r.c.State().Window.Start.Sub(r.w.Now()) / time.Second)})
			})
		case confirmed && st.Phase == session.PhaseWindow:
			d.LossDown = 0
		}
	}
	// Another one says, armed, that it has lost the group without a join.
	r.w.At(start.Add(time.Hour), "group lost", func() {
		if d := r.c.Device(1); d.Stage != session.StageArmed {
			t.Errorf("device 1 is not armed after an hour: %+v", d)
		}
		says(r.devices[1], mcsetup.McClassCSessionAns{McGroupUndefined: true})
	})
	r.w.At(start.Add(75*time.Minute), "group again", func() {
		if d := r.c.Device(1); !d.Group || d.Armed == 0 && d.Stage != session.StageArmed {
			t.Errorf("device 1 was not set up again: %+v", d)
		}
	})
	r.run(96 * time.Hour)
	if !confirmed || r.c.Progress().Window < 2 {
		t.Error("the device took part without a session")
	}
	for i := range r.devices {
		r.wantUpdated(i)
	}
}
