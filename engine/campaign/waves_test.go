package campaign_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

func TestWavesInOrder(t *testing.T) {
	r := newRig(t, 1, nil, group{wave: 0, n: 10}, group{wave: 1, n: 10}, group{wave: 1, n: 10}, group{wave: 2, n: 10})
	begun := map[int]time.Time{}
	ended := map[int]time.Time{}
	r.seen = func(at time.Time, s int, e session.Effect) {
		switch e := e.(type) {
		case session.OpenGroup:
			begun[s] = at
		case session.CloseGroup:
			ended[s] = at
		case session.Record:
			_ = e
		}
	}
	r.run(200 * time.Hour)
	if p := r.c.Progress(); p.Updated != 40 || p.Halted != "" {
		t.Errorf("%d of 40 updated, halted %q", p.Updated, p.Halted)
	}
	for _, pair := range [][2]int{{0, 1}, {0, 2}, {1, 3}, {2, 3}} {
		if begun[pair[1]].Before(ended[pair[0]]) {
			t.Errorf("session %d began at %s, session %d of the wave before ended at %s", pair[1], begun[pair[1]], pair[0], ended[pair[0]])
		}
	}
	if n := r.noted(campaign.NoteFinish); len(n) != 1 || !strings.Contains(n[0].Text, "40 of 40") {
		t.Errorf("finish notes: %v", n)
	}
}

// TestCanaryFallsSilent is a canary wave in which 3 of 20 devices are not heard after the boot: the campaign must halt
// with that cause, and nothing may be sent to the second wave.
func TestCanaryFallsSilent(t *testing.T) {
	r := newRig(t, 1, nil,
		group{wave: 0, n: 20, change: func(i int, d *campaigntest.Device, _ *session.Target) { d.SilentAfterBoot = i%7 == 3 }},
		group{wave: 1, n: 20})
	r.seen = func(_ time.Time, s int, e session.Effect) {
		if _, rec := e.(session.Record); s == 1 && !rec {
			t.Errorf("%T in wave 2", e)
		}
	}
	r.run(200 * time.Hour)
	p := r.c.Progress()
	halts := r.noted(campaign.NoteHalt)
	if len(halts) != 1 || halts[0].Cause != diag.CauseSilentAfterBoot || !strings.Contains(p.Halted, "fell silent") {
		t.Fatalf("halted %q, notes %v; want SILENT_AFTER_BOOT", p.Halted, halts)
	}
	if len(r.noted(campaign.NoteWave)) != 1 || r.c.Session(1).Started() {
		t.Error("wave 2 has begun")
	}
	if got := r.stages(0); got[session.StageUpdated] != 17 || got[session.StageFailed] != 3 {
		t.Errorf("wave 1 ended with %v, want 17 updated and 3 failed", got)
	}
	t.Logf("halted at %s: %s", halts[0].at.Sub(start).Round(time.Minute), p.Halted)
}

// TestThresholds has canary waves of 20 with so many devices that go wrong, and says whether wave 2 may begin.
func TestThresholds(t *testing.T) {
	silent := func(d *campaigntest.Device) { d.SilentAfterBoot = true }
	back := func(d *campaigntest.Device) { d.RollsBack, d.Diag = diag.CauseSelfTestFailed, true }
	deaf := func(d *campaigntest.Device) { d.LossDown = 0.97 }
	gone := func(d *campaigntest.Device) { d.Silent = true }
	tests := []struct {
		name  string
		n     int
		fault func(*campaigntest.Device)
		th    campaign.Thresholds
		halts string
	}{
		{"one silent", 1, silent, campaign.Thresholds{}, ""},
		{"two silent", 2, silent, campaign.Thresholds{}, "fell silent"},
		{"two silent, allowed", 2, silent, campaign.Thresholds{MaxSilence: 0.1}, ""},
		{"two roll back", 2, back, campaign.Thresholds{}, ""},
		{"three roll back", 3, back, campaign.Thresholds{}, "failed"},
		{"one rolls back, none may", 1, back, campaign.Thresholds{MaxFailure: 0.01}, "failed"},
		{"three deaf", 3, deaf, campaign.Thresholds{}, "were updated"},
		{"three deaf, allowed", 3, deaf, campaign.Thresholds{MinSuccess: 0.8}, ""},
		{"half of them switched off", 10, gone, campaign.Thresholds{}, ""},
		{"all switched off", 20, gone, campaign.Thresholds{}, "was heard"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, 3, func(s *campaign.Spec) { s.Policy.Thresholds = tt.th },
				group{wave: 0, n: 20, change: func(i int, d *campaigntest.Device, _ *session.Target) {
					if i < tt.n {
						tt.fault(d)
					}
				}}, group{wave: 1, n: 2})
			r.run(300 * time.Hour)
			p := r.c.Progress()
			if (tt.halts == "") != (p.Halted == "") || !strings.Contains(p.Halted, tt.halts) {
				t.Errorf("halted %q, want %q", p.Halted, tt.halts)
			}
			if got := r.c.Session(1).Started(); got != (tt.halts == "") {
				t.Errorf("wave 2 began: %v", got)
			}
		})
	}
}

// TestMinSamples must halt while the wave runs once enough devices tell, and then leave alone those that were not told
// to reboot.
func TestMinSamples(t *testing.T) {
	r := newRig(t, 3, nil, group{wave: 0, n: 60, change: func(i int, d *campaigntest.Device, _ *session.Target) {
		d.Diag = true
		switch {
		case i < 40:
			d.RollsBack = diag.CauseBootHang
		default:
			d.Patch = 3 * time.Hour // long after the others have failed
		}
	}})
	r.run(200 * time.Hour)
	if p := r.c.Progress(); !strings.Contains(p.Halted, "failed") || p.Withheld < 20 || p.Failed+p.Withheld != 60 {
		t.Errorf("halted %q, %d failed, %d withheld; want 20 withheld or more", p.Halted, p.Failed, p.Withheld)
	}
	kept := 0
	for i, d := range r.order[40:] {
		if d.Running() != oldVersion {
			t.Errorf("device %d was rebooted after the halt", 40+i)
		}
		if d.Holds() {
			kept++
		}
	}
	if kept > 1 { // bad links
		t.Errorf("%d of 20 withheld devices still hold session or group", kept)
	}
}

// TestBadHardware must stop one hardware revision in all waves, and update all others.
func TestBadHardware(t *testing.T) {
	mixed := func(i int, d *campaigntest.Device, target *session.Target) {
		if i%3 == 0 {
			target.Hardware = 2
			d.SilentAfterBoot = true
		}
	}
	r := newRig(t, 5, nil, group{wave: 0, n: 30, change: mixed}, group{wave: 1, n: 30, change: mixed})
	r.run(200 * time.Hour)
	p := r.c.Progress()
	if p.Halted != "" {
		t.Fatalf("halted: %s", p.Halted)
	}
	if p.Updated != 40 || p.Failed != 10 || p.Withheld != 10 {
		t.Errorf("%d updated, %d failed, %d withheld; want 40, 10, 10", p.Updated, p.Failed, p.Withheld)
	}
	halts := r.noted(campaign.NoteCohortHalt)
	if len(halts) != 1 || halts[0].Cause != diag.CauseSilentAfterBoot || !strings.HasPrefix(halts[0].Text, "hardware id 2 from version 1.0.0: ") {
		t.Errorf("cohort halts: %v", halts)
	}
	for _, row := range r.c.Rows() {
		if row.Wave == "wave 2" && (row.Cohort.Hardware == 2) != (row.Stage == session.StageWithheld) {
			t.Errorf("%+v", row)
		}
		if row.Stage == session.StageWithheld && r.devices[row.EUI].Running() != oldVersion {
			t.Errorf("withheld device %s runs %#x", row.EUI, r.devices[row.EUI].Running())
		}
	}
}

func TestSoakAndGate(t *testing.T) {
	r := newRig(t, 2, func(s *campaign.Spec) {
		s.Waves[0].Soak = 24 * time.Hour
		s.Waves[1].Gate = true
	}, group{wave: 0, n: 6}, group{wave: 1, n: 6})
	r.drive(20*time.Hour, campaign.Start{By: "ada"})
	if p := r.c.Progress(); p.Phase != campaign.PhaseWaiting || p.Wait != campaign.WaitSoak || p.Updated != 6 {
		t.Fatalf("%+v, want 6 devices updated and a soak time", p)
	}
	r.drive(24 * time.Hour)
	if p := r.c.Progress(); p.Wait != campaign.WaitGate || len(r.noted(campaign.NoteApprovalNeeded)) != 1 {
		t.Fatalf("%+v, want a gate and a note", p)
	}
	r.drive(24 * time.Hour)
	if r.c.Session(1).Started() {
		t.Fatal("wave 2 began without an approval")
	}
	r.drive(48*time.Hour, campaign.Approve{By: "ada"})
	r.wantEnded()
	if p := r.c.Progress(); p.Updated != 12 {
		t.Errorf("%d of 12 updated", p.Updated)
	}
}

// TestSilentWhileSoaking has devices that stop after they were proven.
func TestSilentWhileSoaking(t *testing.T) {
	r := newRig(t, 2, func(s *campaign.Spec) { s.Waves[0].Soak = 24 * time.Hour }, group{wave: 0, n: 6}, group{wave: 1, n: 6})
	r.drive(20*time.Hour, campaign.Start{By: "ada"})
	r.order[0].Silent, r.order[1].Silent = true, true
	r.drive(30 * time.Hour)
	r.wantEnded()
	if p := r.c.Progress(); !strings.Contains(p.Halted, "2 of 6 devices fell silent") || r.c.Session(1).Started() {
		t.Errorf("halted %q", p.Halted)
	}
}

// TestRescue has devices that hear little of the first wave, and all of the second at another data rate; and one whose key
// is wrong in the network server, until then.
func TestRescue(t *testing.T) {
	r := newRig(t, 7, func(s *campaign.Spec) {
		s.Waves[1].Rescue = true
		s.Policy.Thresholds = campaign.Thresholds{MinSuccess: 0.5, MaxFailure: 0.2}
	}, group{wave: 0, n: 12, change: func(i int, d *campaigntest.Device, _ *session.Target) {
		if i < 3 {
			d.LossDown = 0.6
		}
		if i == 3 {
			d.RollsBack, d.Diag = diag.CauseSelfTestFailed, true // no other session helps
		}
		if i == 4 {
			d.ServerKey[5] ^= 1 // somebody corrects it
		}
	}, spec: func(s *session.Spec) { s.Limits.Fragments = s.Plan.M + 2*s.Plan.Parity }}, group{wave: 1, again: []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}})
	r.seen = func(_ time.Time, s int, e session.Effect) {
		if _, ok := e.(session.OpenGroup); ok && s == 1 {
			for i := range 3 {
				r.order[i].LossDown = 0.05 // what a more robust data rate does
			}
			r.order[4].ServerKey = r.order[4].Key
		}
	}
	r.run(400 * time.Hour)
	p := r.c.Progress()
	if p.Updated != 11 || p.Failed != 1 || p.Devices != 12 || len(r.c.Rows()) != 12 {
		t.Errorf("%d updated and %d failed of %d, %d rows; want 11 and 1 of 12", p.Updated, p.Failed, p.Devices, len(r.c.Rows()))
	}
	if sp := p.Sessions[1]; sp.Devices != 4 || sp.Updated != 4 {
		t.Errorf("rescue session: %d devices, %d updated; want 4", sp.Devices, sp.Updated)
	}
}

// TestResume makes the campaign anew from its state as JSON before each step.
func TestResume(t *testing.T) {
	var ends [2]any
	for i, resume := range []bool{false, true} {
		r := newRig(t, 4, func(s *campaign.Spec) { s.Waves[1].Soak = time.Hour; s.Waves[2].Rescue = true }, group{wave: 0, n: 4},
			group{wave: 1, n: 6, change: func(i int, d *campaigntest.Device, target *session.Target) {
				if target.Hardware = uint16(i % 2); i%2 == 1 {
					d.SilentAfterBoot = true
				}
				if i == 0 {
					d.LossDown = 0.95
				}
			}}, group{wave: 2, again: []int{0, 4, 5, 6}})
		r.resume = resume
		r.run(300 * time.Hour)
		ends[i] = []any{r.c.Progress(), r.c.Rows(), r.notes}
	}
	if !reflect.DeepEqual(ends[0], ends[1]) {
		t.Errorf("with resumption the campaign ends with\n%+v\nwithout with\n%+v", ends[1], ends[0])
	}
}

// TestChanges keeps a copy of the state by what Changes names.
func TestChanges(t *testing.T) {
	r := newRig(t, 4, func(s *campaign.Spec) { s.Policy.Approvals = 1; s.Waves[1].Gate = true }, group{wave: 0, n: 6}, group{wave: 1, n: 6})
	saved := r.c.State()
	n := 0
	check := func() {
		n++
		for _, ch := range r.c.Changes() {
			if ch.Session < 0 {
				sessions := saved.Sessions
				saved = r.c.Header()
				saved.Sessions = sessions
				continue
			}
			s, st := r.c.Session(ch.Session), &saved.Sessions[ch.Session]
			if ch.Header {
				st.Header = s.Header().Header
			}
			for _, i := range ch.Devices {
				st.Devices[i] = s.Device(i)
			}
		}
		if st := r.c.State(); !reflect.DeepEqual(saved, st) {
			t.Fatalf("at %s: kept\n%+v\nis\n%+v", r.w.Now(), saved, st)
		}
	}
	r.seen = func(time.Time, int, session.Effect) { check() }
	r.drive(time.Hour, campaign.Approve{By: "bob"}, campaign.Start{By: "ada"})
	r.drive(time.Hour, campaign.Pause{By: "ada"})
	r.drive(48*time.Hour, campaign.Continue{By: "ada"})
	r.drive(48*time.Hour, campaign.Approve{By: "bob"})
	r.wantEnded()
	if check(); n < 100 {
		t.Errorf("only %d checks", n)
	}
}
