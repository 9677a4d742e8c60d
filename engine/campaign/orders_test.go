package campaign_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

func TestApprovals(t *testing.T) {
	r := newRig(t, 1, func(s *campaign.Spec) { s.Policy.Approvals, s.Policy.FourEyes = 2, true }, group{n: 2})
	refused := func(ev campaign.Event, want string) {
		t.Helper()
		err := r.c.Allows(ev)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%T%+v: %v, want %q", ev, ev, err, want)
		}
		before := r.c.Header()
		if e := r.c.Step(start, ev); len(e) != 0 || r.c.Header().Phase != before.Phase || len(r.c.Header().Approvals) != len(before.Approvals) {
			t.Errorf("%T%+v has effects: %v", ev, ev, e)
		}
	}
	r.drive(time.Minute)
	r.step(campaign.Tick{})
	if n := r.noted(campaign.NoteApprovalNeeded); len(n) != 1 {
		t.Errorf("%d notes that approval is needed, want 1", len(n))
	}
	refused(campaign.Start{By: "ada"}, "2 more approvals")
	refused(campaign.Approve{By: "ada"}, "somebody else")
	refused(campaign.Approve{}, "a name")
	r.drive(time.Minute, campaign.Approve{By: "bob", Note: "looks good"})
	refused(campaign.Approve{By: "bob"}, "bob has approved already")
	refused(campaign.Start{By: "ada"}, "1 more approvals")
	refused(campaign.Pause{By: "ada"}, "nothing is to be paused")
	refused(campaign.Continue{By: "ada"}, "not paused")
	r.drive(48*time.Hour, campaign.Approve{By: "eve"}, campaign.Start{By: "ada"})
	r.wantEnded()
	refused(campaign.Start{By: "ada"}, "started already")
	refused(campaign.Abort{By: "ada"}, "nothing is to be aborted")
	if p := r.c.Progress(); p.Updated != 2 {
		t.Errorf("%d of 2 updated", p.Updated)
	}
	if a := r.c.Header().Approvals; len(a) != 2 || a[0].By != "bob" || a[0].Note != "looks good" || a[1].By != "eve" {
		t.Errorf("approvals %+v", a)
	}
}

func TestNotBefore(t *testing.T) {
	at := start.Add(30 * time.Hour)
	r := newRig(t, 1, func(s *campaign.Spec) { s.Policy.NotBefore = at }, group{n: 4})
	r.seen = func(now time.Time, _ int, e session.Effect) {
		if _, rec := e.(session.Record); !rec && now.Before(at) {
			t.Errorf("%T at %s, before the time", e, now)
		}
	}
	r.drive(time.Hour, campaign.Start{By: "ada"})
	if p := r.c.Progress(); p.Phase != campaign.PhaseWaiting || p.Wait != campaign.WaitTime || !p.Until.Equal(at) {
		t.Errorf("%+v, want to wait until %s", p, at)
	}
	r.drive(72 * time.Hour)
	r.wantEnded()
}

// TestMaintenanceWindows allows three nights a week, in a time zone of its own: nothing may be sent outside, no receive
// window of a device may reach outside, and the campaign must end all the same.
func TestMaintenanceWindows(t *testing.T) {
	cal := session.Calendar{Offset: 2 * time.Hour, Spans: []session.Span{
		{Days: [7]bool{time.Monday: true, time.Tuesday: true, time.Friday: true}, From: 22 * time.Hour, To: 3 * time.Hour}}}
	inside := func(at time.Time) bool { // in UTC: 20:00 to 01:00 from those days
		d := at.UTC().Weekday()
		switch h := at.UTC().Hour(); {
		case h >= 20:
			return d == time.Monday || d == time.Tuesday || d == time.Friday
		case h < 1:
			return d == time.Tuesday || d == time.Wednesday || d == time.Saturday
		}
		return false
	}
	r := newRig(t, 1, func(s *campaign.Spec) { s.Policy.Calendar = cal }, group{n: 20, change: func(i int, d *campaigntest.Device, _ *session.Target) {
		d.LossDown = 0.1
		d.Clock = time.Duration(i) * time.Minute
	}, spec: func(s *session.Spec) { s.Plan.Pace = 5 * time.Minute }})
	nights := map[int]bool{}
	r.seen = func(at time.Time, _ int, e session.Effect) {
		switch e := e.(type) {
		case session.Send:
			if !inside(at) || !e.Expires.IsZero() && !inside(e.Expires.Add(-time.Second)) {
				t.Errorf("%s at %s, expires %s: outside", e.Command, at, e.Expires)
			}
		case session.Broadcast:
			if !inside(at) || !inside(e.Broadcast.Expires.Add(-time.Second)) {
				t.Errorf("broadcast at %s, expires %s: outside", at, e.Broadcast.Expires)
			}
			nights[at.Add(-12*time.Hour).YearDay()] = true
		case session.Record:
			if p := r.c.Session(0).Progress(); e.What == "window" && (!inside(p.Start) || !inside(p.End.Add(-time.Second))) {
				t.Errorf("window from %s to %s: outside", p.Start, p.End)
			}
		}
	}
	r.run(21 * 24 * time.Hour)
	if p := r.c.Progress(); p.Updated != 20 {
		t.Errorf("%d of 20 updated: %+v", p.Updated, p.Sessions[0])
	}
	if len(nights) < 2 {
		t.Error("all was sent in one night; the test wants more")
	}
	t.Logf("fragments in %d nights, ended after %s", len(nights), r.noted(campaign.NoteFinish)[0].at.Sub(start).Round(time.Hour))
}

// TestPause pauses at every phase of a session: from then on nothing may be sent, nothing may wait in the network, and
// after the campaign goes on all devices must be updated.
func TestPause(t *testing.T) {
	for _, phase := range []session.Phase{session.PhasePrepare, session.PhaseAnnounce, session.PhaseWindow, session.PhaseCollect, session.PhaseFinish} {
		t.Run(phase.String(), func(t *testing.T) {
			r := newRig(t, 3, nil, group{n: 20, change: func(i int, d *campaigntest.Device, _ *session.Target) {
				d.Diag = false
				if i == 0 {
					d.LossUp = 0.4 // is asked in the phase collect
				}
			}})
			quiet := false
			r.seen = func(at time.Time, _ int, e session.Effect) {
				switch e.(type) {
				case session.Send, session.Broadcast:
					if quiet {
						t.Errorf("%T in the pause", e)
					}
				}
			}
			r.drive(time.Second, campaign.Start{By: "ada"})
			for at := 0; r.c.Session(0).Progress().Phase < phase; at++ {
				if at > 10000 {
					t.Fatalf("phase %s never came", phase)
				}
				r.drive(20 * time.Second)
			}
			if phase == session.PhaseWindow {
				r.drive(7 * time.Minute) // in the middle of the data
			}
			r.drive(0, campaign.Pause{By: "ada", Reason: "test"})
			quiet = true
			if n := r.net.Waiting(); n != 0 {
				t.Errorf("%d unicast messages wait in the network", n)
			}
			frames := r.net.Frames()
			r.drive(12 * time.Hour)
			if r.net.Frames() != frames {
				t.Error("multicast frames were sent in the pause")
			}
			if p := r.c.Progress(); p.Phase != campaign.PhasePaused || !p.Sessions[0].Paused {
				t.Errorf("phase %s", p.Phase)
			}
			quiet = false
			r.drive(96*time.Hour, campaign.Continue{By: "ada"})
			r.wantEnded()
			if p := r.c.Progress(); p.Updated != 20 {
				t.Errorf("%d of 20 updated", p.Updated)
			}
		})
	}
}

// TestAbort aborts at every phase of a session. On the server nothing may be left; of the devices, those that are
// heard must delete session and group; and it must end in bounded time.
func TestAbort(t *testing.T) {
	for _, phase := range []session.Phase{session.PhasePrepare, session.PhaseAnnounce, session.PhaseWindow, session.PhaseFinish} {
		t.Run(phase.String(), func(t *testing.T) {
			r := newRig(t, 3, nil, group{n: 20}, group{wave: 1, n: 2})
			r.drive(time.Second, campaign.Start{By: "ada"})
			for at := 0; r.c.Session(0).Progress().Phase < phase && at < 5000; at++ {
				r.drive(20 * time.Second)
			}
			r.drive(10 * time.Minute) // commands are under way
			r.order[0].Silent = true
			before := r.w.Now()
			r.drive(0, campaign.Abort{By: "ada", Reason: "test"})
			if n := r.net.OpenGroups(); n != 0 {
				t.Errorf("%d groups open after the abort", n)
			}
			for !r.c.Ended() && r.w.Now().Sub(before) < 24*time.Hour {
				r.drive(time.Minute)
			}
			r.wantEnded()
			if d := r.w.Now().Sub(before); d > 31*time.Minute {
				t.Errorf("the abort took %s, want at most 3 uplink intervals", d)
			}
			if n := r.net.Waiting(); n > 1 { // for the silent one
				t.Errorf("%d unicast messages wait in the network", n)
			}
			kept := 0
			for _, d := range r.order[1:20] {
				if d.Holds() {
					kept++
				}
			}
			if kept > 1 { // bad links
				t.Errorf("%d of 19 devices that are heard still hold session or group", kept)
			}
			if p := r.c.Progress(); !strings.Contains(p.Halted, "aborted by ada: test") {
				t.Errorf("halted %q", p.Halted)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	good := newRig(t, 1, nil, group{n: 2}, group{wave: 1, n: 2}).spec
	tests := []struct {
		name   string
		change func(*campaign.Spec)
	}{
		{"no ID", func(s *campaign.Spec) { s.ID = "" }},
		{"no waves", func(s *campaign.Spec) { s.Waves = nil }},
		{"a wave without sessions", func(s *campaign.Spec) { s.Waves[1].Sessions = nil }},
		{"a session for another application", func(s *campaign.Spec) { s.Waves[0].Sessions[0].Application = "x" }},
		{"two sessions of one name", func(s *campaign.Spec) { s.Waves[0].Sessions[0].ID = "s1" }},
		{"a device twice", func(s *campaign.Spec) { s.Waves[0].Sessions[0].Devices[0] = s.Waves[1].Sessions[0].Devices[0] }},
		{"negative approvals", func(s *campaign.Spec) { s.Policy.Approvals = -1 }},
		{"a share above 1", func(s *campaign.Spec) { s.Policy.Thresholds.MaxFailure = 10 }},
		{"a share of a wave below 0", func(s *campaign.Spec) { s.Waves[1].Thresholds.MaxSilence = -0.1 }},
		{"a maintenance window of no day", func(s *campaign.Spec) {
			s.Policy.Calendar.Spans = []session.Span{{From: 25 * time.Hour}}
		}},
		{"maintenance windows of a minute", func(s *campaign.Spec) {
			s.Policy.Calendar.Spans = []session.Span{{From: time.Hour, To: time.Hour + time.Minute}}
		}},
		{"a gate before the first wave", func(s *campaign.Spec) { s.Waves[0].Gate = true }},
		{"a rescue wave of new devices", func(s *campaign.Spec) { s.Waves[1].Rescue = true }},
		{"a negative soak time", func(s *campaign.Spec) { s.Waves[0].Soak = -1 }},
	}
	if _, err := campaign.New(good); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := good
			s.Waves = slices.Clone(good.Waves)
			for i := range s.Waves {
				s.Waves[i].Sessions = slices.Clone(s.Waves[i].Sessions)
				for j := range s.Waves[i].Sessions {
					s.Waves[i].Sessions[j].Devices = slices.Clone(s.Waves[i].Sessions[j].Devices)
				}
			}
			tt.change(&s)
			if _, err := campaign.New(s); !errors.Is(err, campaign.ErrSpec) && !errors.Is(err, session.ErrSpec) {
				t.Errorf("New = %v, want ErrSpec", err)
			}
		})
	}
}

// TestForeignEvents must change nothing.
func TestForeignEvents(t *testing.T) {
	r := newRig(t, 1, nil, group{n: 1})
	r.drive(time.Second, campaign.Start{By: "ada"})
	for _, ev := range []network.Event{
		{Kind: network.EventUplink, Device: network.EUI64{9}},
		{Kind: network.EventDropped, Group: "another", FCnt: 3},
	} {
		if r.c.Wants(ev) {
			t.Errorf("%+v is wanted", ev)
		}
		if e := r.c.Step(r.w.Now(), campaign.Heard{Event: ev}); len(e) != 0 {
			t.Errorf("%+v has effects: %v", ev, e)
		}
	}
}

// A session that the network server does not let go on stops the campaign, and no device is blamed for it.
func TestSessionThatCannotGoOn(t *testing.T) {
	r := newRig(t, 1, nil, group{n: 2}, group{wave: 1, n: 2})
	for _, e := range r.c.Step(start, campaign.Start{By: "ada"}) {
		if open, ok := e.Do.(session.OpenGroup); ok {
			r.c.Step(start, campaign.Result{Session: e.Session, Result: session.Result{Op: open.Op, Failure: session.Refused, Text: "no such application"}})
		}
	}
	h := r.c.Header()
	if !r.c.Ended() || h.Halted != "session s0: the multicast group could not be opened: no such application" || h.Cause != diag.CauseOK {
		t.Errorf("%s, halted %q with cause %s", h.Phase, h.Halted, h.Cause)
	}
	if st := r.c.Session(1).Progress(); st.Phase != session.PhaseIdle {
		t.Errorf("the session of the next wave is in %s", st.Phase)
	}
}
