package session_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

// TestRejoin lets every device join again at some time between the start and the end: before, inside and after
// the window, in both versions.
func TestRejoin(t *testing.T) {
	for _, matrix := range []fragmentation.Matrix{fragmentation.V1, fragmentation.V2} {
		t.Run(matrix.String(), func(t *testing.T) {
			r := newRig(t, options{seed: 5, n: 40, matrix: matrix, change: func(i int, d *campaigntest.Device) {
				d.RejoinAt = time.Duration(i+1) * 4 * time.Minute
			}})
			r.run(48 * time.Hour)
			for i := range r.devices {
				r.wantUpdated(i)
			}
		})
	}
}

// TestSessionCntReplay has devices whose last SessionCnt the server does not know.
func TestSessionCntReplay(t *testing.T) {
	last := []int{-1, 0, 1, 7, 60, 500, 4000, 60000}
	r := newRig(t, options{seed: 1, n: len(last), change: func(i int, d *campaigntest.Device) { d.LastCnt = last[i] }})
	r.run(48 * time.Hour)
	for i, n := range last {
		if n > 4681 { // beyond the steps 1, 8, 64, 512, 4096
			r.wantFailed(i, diag.StepSetup, diag.CauseSessionReplay)
		} else {
			r.wantUpdated(i)
			if got := int(r.c.State().Devices[i].SessionCnt); got <= n {
				t.Errorf("device %d: session %d, the device had used %d", i, got, n)
			}
		}
	}
}

// TestSeveralWindows sends more than the longest window holds.
func TestSeveralWindows(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 4, payload: 56000, rate: 1, spec: func(s *session.Spec) { s.Plan.Pace = 40 * time.Second },
		change: func(_ int, d *campaigntest.Device) { d.LossUp, d.LossDown = 0, 0.05 }})
	if _, fit := r.spec.Plan.Window(r.spec.Plan.M, 1); fit >= r.spec.Plan.M {
		t.Fatalf("all %d fragments fit into one window", r.spec.Plan.M)
	}
	r.run(200 * time.Hour)
	for i := range r.devices {
		r.wantUpdated(i)
	}
	if p := r.c.Progress(); p.Window < 2 || p.DataSent != p.M {
		t.Errorf("%d windows, %d of %d data fragments, want at least 2 windows and each fragment once", p.Window, p.DataSent, p.M)
	}
}

// TestResume replaces the session by one made of its state, before every single step.
func TestResume(t *testing.T) {
	var ends [2]string
	for i, resume := range []bool{false, true} {
		r := newRig(t, options{seed: 3, n: 12})
		r.resume = resume
		r.run(48 * time.Hour)
		ends[i] = fmt.Sprintf("%+v %+v", r.c.Progress(), r.c.Rows())
	}
	if ends[0] != ends[1] {
		t.Errorf("with resumption the session ends with\n%s\nwithout with\n%s", ends[1], ends[0])
	}
}

// TestLateFragments has a network that takes no fragment for a while: what it did not take is sent again, and nothing else.
func TestLateFragments(t *testing.T) {
	tried := map[int]int{}
	for what, late := range map[string]func(r *rig, n int) bool{
		"some the first time": func(_ *rig, n int) bool { tried[n]++; return n%7 == 3 && tried[n] == 1 },
		"a whole window":      func(r *rig, n int) bool { return n > 5 && r.c.Progress().Window == 1 },
	} {
		r := newRig(t, options{seed: 2, n: 10})
		r.late = func(n int) bool { return n > 0 && late(r, n) }
		r.run(48 * time.Hour)
		for i := range r.devices {
			r.wantUpdated(i)
		}
		if p := r.c.Progress(); p.DataSent != p.M {
			t.Errorf("%s: %d of %d data fragments counted as sent", what, p.DataSent, p.M)
		}
	}
}

// TestNothingIsTaken has a network that answers all else and never takes a fragment: devices must not listen for ever.
func TestNothingIsTaken(t *testing.T) {
	r := newRig(t, options{seed: 2, n: 10})
	r.late = func(n int) bool { return n > 0 }
	r.run(10 * 24 * time.Hour)
	for i := range r.devices {
		r.wantFailed(i, diag.StepReceive, diag.CauseLossExceeded)
	}
	if p := r.c.Progress(); p.Phase != session.PhaseEnded || p.Window > 5 {
		t.Errorf("phase %s after %d windows, want the end after 5 at most", p.Phase, p.Window)
	}
}

// TestCanary gives the server wrong keys of all devices: no fragment may be sent.
func TestCanary(t *testing.T) {
	r := newRig(t, options{seed: 2, n: 10, change: func(_ int, d *campaigntest.Device) { d.ServerKey[3] ^= 1 }})
	r.run(48 * time.Hour)
	for i := range r.devices {
		r.wantFailed(i, diag.StepReceive, diag.CauseKeyMismatch)
	}
	if p := r.c.Progress(); p.DataSent != 0 || p.StatusSent == 0 {
		t.Errorf("%d data fragments and %d status requests sent", p.DataSent, p.StatusSent)
	}
}

func TestServerAnswersClock(t *testing.T) {
	for _, server := range []bool{false, true} {
		r := newRig(t, options{seed: 4, n: 6, net: func(n *campaigntest.Net) { n.Caps.ServerAnswersClock = server },
			change: func(_ int, d *campaigntest.Device) {
				if server {
					d.Clock = 0
				}
			}})
		r.run(48 * time.Hour)
		for i := range r.devices {
			r.wantUpdated(i)
		}
		if got := r.sends[session.CmdTime] > 0; got == server {
			t.Errorf("ServerAnswersClock=%v: AppTimeAns sent by the engine: %v", server, got)
		}
	}
}

// TestAlreadyThere has devices that run the new version from the start: nothing is sent to them.
func TestAlreadyThere(t *testing.T) {
	r := newRig(t, options{seed: 4, n: 3, change: func(_ int, d *campaigntest.Device) { d.Old = newVersion }})
	r.run(48 * time.Hour)
	for i := range r.devices {
		r.wantUpdated(i)
	}
	if p := r.c.Progress(); p.DataSent != 0 || r.sends[session.CmdReboot] != 0 {
		t.Errorf("%d fragments and %d reboots for devices that were up to date", p.DataSent, r.sends[session.CmdReboot])
	}
}

// TestSilenceIsComplete has devices without the diagnostic package: those that keep silent when asked for what they
// miss are not asked one by one, because the image proves what they hold.
func TestSilenceIsComplete(t *testing.T) {
	r := newRig(t, options{seed: 6, n: 8, change: func(_ int, d *campaigntest.Device) { d.Diag = false }})
	r.run(48 * time.Hour)
	for i := range r.devices {
		r.wantUpdated(i)
	}
	if n := r.sends[session.CmdStatus]; n > len(r.devices)/4 {
		t.Errorf("%d unicast status requests to %d devices", n, len(r.devices))
	}
}

// halted runs a session to the instant at which step returns effects that match, and answers with a result.
func halted(t *testing.T, answer func(session.Effect) *session.Result) *session.Session {
	t.Helper()
	r := newRig(t, options{seed: 1, n: 6})
	var queue []session.Event
	step := func(ev session.Event) {
		queue = append(queue, ev)
		for len(queue) > 0 {
			effects := r.c.Step(r.w.Now(), queue[0])
			queue = queue[1:]
			for _, e := range effects {
				res := answer(e)
				if res == nil {
					res = r.effect(e)
				}
				if res != nil {
					queue = append(queue, *res)
				}
			}
		}
		if r.timer != nil {
			r.timer.Cancel()
		}
		if r.c.Ended() {
			r.net.Stop()
		}
	}
	var tick func()
	handle := func(ev session.Event) {
		step(ev)
		if at := r.c.NextWake(); !at.IsZero() {
			r.timer = r.w.At(at, "tick", tick)
		}
	}
	tick = func() { handle(session.Tick{}) }
	r.net.Deliver(func(ev network.Event) { handle(session.Heard{Event: ev}) })
	handle(session.Start{})
	if err := r.w.Run(t.Context(), start.Add(48*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if !r.c.Ended() || r.c.Progress().Halted == "" {
		t.Fatalf("not halted: %+v", r.c.Progress())
	}
	if n := r.net.OpenGroups(); n != 0 {
		t.Errorf("%d groups were left open", n)
	}
	return r.c
}

func TestHalts(t *testing.T) {
	tests := []struct {
		name, want string
		answer     func(session.Effect) *session.Result
	}{
		{"group refused", "could not be opened", func(e session.Effect) *session.Result {
			if e, ok := e.(session.OpenGroup); ok {
				return &session.Result{Op: e.Op, Failure: session.Refused, Text: "gateway offline"}
			}
			return nil
		}},
		{"fragment refused", "refused", func(e session.Effect) *session.Result {
			if e, ok := e.(session.Broadcast); ok && e.N == 5 {
				return &session.Result{Op: e.Op, Failure: session.Refused, Text: "group is gone"}
			}
			return nil
		}},
		{"somebody else sends", "somebody else", func(e session.Effect) *session.Result {
			if e, ok := e.(session.Broadcast); ok && e.N == 5 {
				return &session.Result{Op: e.Op, FCnt: 77}
			}
			return nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := halted(t, tt.answer)
			if h := c.Progress().Halted; !strings.Contains(h, tt.want) {
				t.Errorf("halted: %q, want %q", h, tt.want)
			}
		})
	}
}

// TestGroupOpenedAfterAbort must not leave a group behind.
func TestGroupOpenedAfterAbort(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 1})
	var op uint64
	for _, e := range r.c.Step(start, session.Start{}) {
		if e, ok := e.(session.OpenGroup); ok {
			op = e.Op
		}
	}
	r.c.Step(start, session.Abort{Reason: "test"})
	closed := false
	for _, e := range r.c.Step(start, session.Result{Op: op, Group: "late"}) {
		if e, ok := e.(session.CloseGroup); ok && e.Group == "late" {
			closed = true
		}
	}
	if !closed {
		t.Error("a group that opened after the abort was not closed")
	}
}

func TestNewRefuses(t *testing.T) {
	good := newRig(t, options{seed: 1, n: 2}).spec
	tests := []struct {
		name   string
		change func(*session.Spec)
	}{
		{"no ID", func(s *session.Spec) { s.ID = "" }},
		{"no devices", func(s *session.Spec) { s.Devices = nil }},
		{"no gateways", func(s *session.Spec) { s.Gateways = nil }},
		{"no multicast key", func(s *session.Spec) { s.McKey = network.Key{} }},
		{"device twice", func(s *session.Spec) { s.Devices = append(s.Devices, s.Devices[0]) }},
		{"other block", func(s *session.Spec) { s.Block = s.Block[1:] }},
		{"matrix of the printed text", func(s *session.Spec) { s.Plan.Matrix = fragmentation.V2Absolute }},
		{"no pace", func(s *session.Spec) { s.Plan.Pace = 0 }},
		{"other M", func(s *session.Spec) { s.Plan.M++ }},
		{"group id", func(s *session.Spec) { s.McGroupID = 4 }},
		{"parity without indices", func(s *session.Spec) { s.Plan.Indices = nil }},
	}
	if _, err := session.New(good); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := good
			s.Devices = append([]session.Target(nil), good.Devices...)
			tt.change(&s)
			if _, err := session.New(s); !errors.Is(err, session.ErrSpec) {
				t.Errorf("New = %v, want ErrSpec", err)
			}
		})
	}
}

// TestForeignEventsAreIgnored feeds events of other devices and nonsense of its own.
func TestForeignEventsAreIgnored(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 1})
	r.c.Step(start, session.Start{})
	before := fmt.Sprintf("%+v", r.c.State())
	if e := r.c.Step(start, session.Heard{Event: network.Event{Kind: network.EventUplink, Device: network.EUI64{9}, FPort: 201, Payload: []byte{0, 3, 2}}}); len(e) != 0 {
		t.Errorf("an uplink of a foreign device has effects: %v", e)
	}
	if after := fmt.Sprintf("%+v", r.c.State()); after != before {
		t.Error("an uplink of a foreign device changed the state")
	}
	for _, port := range []uint8{200, 201, 202, 203, 204, 10, 0} {
		for _, payload := range [][]byte{nil, {0xff}, {1}, {0, 9, 9, 9}, {2, 0xff}, make([]byte, 200)} {
			r.c.Step(start.Add(time.Second), session.Heard{Event: network.Event{Kind: network.EventUplink,
				Device: r.devices[0].EUI, At: start.Add(time.Second), FPort: port, Payload: payload}})
		}
	}
	if s := r.c.Rows()[0].Stage; s > session.StageGroup {
		t.Errorf("nonsense brought the device to stage %s", s)
	}
}

// TestClassB uses ping-slot sessions: they begin with a beacon period, and the devices are updated as in class C.
func TestClassB(t *testing.T) {
	for _, matrix := range []fragmentation.Matrix{fragmentation.V1, fragmentation.V2} {
		periodicity := uint8(3)
		r := newRig(t, options{seed: 4, n: 20, matrix: matrix, spec: func(s *session.Spec) {
			var err error
			s.ClassB = &session.ClassB{Periodicity: periodicity}
			s.Timing.Lead = time.Minute // too short to find a beacon
			if s.Plan, err = plan.Make(plan.Input{Block: s.Block, Region: airtime.EU868, Class: network.ClassB, Periodicity: &periodicity,
				DataRate: 5, Devices: 20, Matrix: matrix, Repeater: true}); err != nil {
				t.Fatal(err)
			}
		}, change: func(i int, d *campaigntest.Device) { d.LossDown = float64(i%4) * 0.1 }})
		r.run(96 * time.Hour)
		for i := range r.devices {
			r.wantUpdated(i)
		}
		p, announced := r.c.Progress(), r.c.State().Window.Announced
		if airtime.GPSSeconds(p.Start)%128 != 0 || p.End.Sub(p.Start)%(128*time.Second) != 0 || p.Start.Sub(announced) < 640*time.Second {
			t.Errorf("window from %s to %s, announced at %s", p.Start, p.End, announced)
		}
	}
	for what, change := range map[string]func(*session.Spec){
		"a slot every 32 s": func(s *session.Spec) {
			s.ClassB, s.Plan.ClassB = &session.ClassB{Periodicity: 5}, &plan.ClassB{Periodicity: 5}
		},
		"slots that nobody planned":    func(s *session.Spec) { s.ClassB = &session.ClassB{} },
		"planned for class B":          func(s *session.Spec) { s.Plan.ClassB = &plan.ClassB{} },
		"planned for other ping slots": func(s *session.Spec) { s.ClassB, s.Plan.ClassB = &session.ClassB{}, &plan.ClassB{Periodicity: 1} },
	} {
		spec := newRig(t, options{seed: 1, n: 2}).spec
		spec.Plan.Pace = 8 * time.Second
		change(&spec)
		if _, err := session.New(spec); !errors.Is(err, session.ErrSpec) {
			t.Errorf("%s: %v, want ErrSpec", what, err)
		}
	}
}
