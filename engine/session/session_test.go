package session_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/campaigntest"
	"github.com/sower-fuota/sower/simulator/world"
)

const (
	oldVersion = 0x01000000
	newVersion = 0x01010000
)

var start = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

// rig is one session against scripted devices.
type rig struct {
	t       *testing.T
	w       *world.World
	net     *campaigntest.Net
	devices []*campaigntest.Device
	c       *session.Session
	timer   *world.Event
	spec    session.Spec
	records []session.Record
	sent    map[int]int // broadcasts of each fragment
	sends   map[session.Command]int
	// late, if set, says which broadcasts cannot be carried out in time.
	late func(n int) bool
	// resume makes the session go on from its state as JSON after each step.
	resume      bool
	broadcasted func(n int)
	check       func() // after each step
	flushed     map[network.EUI64]int
}

type options struct {
	seed    uint64
	n       int
	matrix  fragmentation.Matrix
	payload int // bytes; 6000
	rate    int // data rate; 5
	change  func(i int, d *campaigntest.Device)
	spec    func(*session.Spec)
	net     func(*campaigntest.Net)
}

// block signs a bundle of so many random payload bytes.
func block(t testing.TB, payload int) []byte {
	t.Helper()
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, payload)
	rng := rand.New(rand.NewPCG(7, uint64(payload)))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	b, err := bundle.Sign(bundle.Manifest{Codec: bundle.CodecFull, KeyID: 1, Version: newVersion, Sequence: 2, NewSize: uint32(payload)}, data, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type planKey struct {
	payload, rate int
	matrix        fragmentation.Matrix
}

var (
	plansMu sync.Mutex
	plans   = map[planKey]plan.Plan{}
	blocks  = map[int][]byte{}
)

// planned returns a block and its plan for some 40 devices, which costs too much to be made for each test.
func planned(t *testing.T, o options) ([]byte, plan.Plan) {
	t.Helper()
	plansMu.Lock()
	defer plansMu.Unlock()
	if blocks[o.payload] == nil {
		blocks[o.payload] = block(t, o.payload)
	}
	key := planKey{o.payload, o.rate, o.matrix}
	p, ok := plans[key]
	if !ok {
		var err error
		p, err = plan.Make(plan.Input{Block: blocks[o.payload], Region: airtime.EU868, DataRate: o.rate, Devices: 40, Matrix: o.matrix, Repeater: true})
		if err != nil {
			t.Fatal(err)
		}
		plans[key] = p
	}
	return blocks[o.payload], p
}

func newRig(t *testing.T, o options) *rig {
	t.Helper()
	if o.matrix == 0 {
		o.matrix = fragmentation.V2
	}
	if o.payload == 0 {
		o.payload = 6000
	}
	if o.rate == 0 {
		o.rate = 5
	}
	r := &rig{t: t, w: world.New(start), sent: map[int]int{}, sends: map[session.Command]int{}, flushed: map[network.EUI64]int{}}
	r.net = campaigntest.New(r.w, o.seed)
	if o.net != nil {
		o.net(r.net)
	}
	blk, p := planned(t, o)
	spec := session.Spec{ID: "test", Application: "app", Block: blk, Target: newVersion, Plan: p,
		Gateways: []network.EUI64{{0xaa}}, McAddr: 0x01020304, McKey: network.Key{1, 2, 3},
		Timing: session.Timing{UplinkInterval: 10 * time.Minute}}
	for i := range o.n {
		d := &campaigntest.Device{EUI: network.EUI64{0x10, 6: byte(i >> 8), 7: byte(i)}, Speaks: p.Version(), Diag: i%2 == 0,
			Old: oldVersion, New: newVersion, Block: blk, Interval: 10 * time.Minute,
			LossUp: 0.1, LossDown: 0.1, Clock: time.Duration(i%7-3) * 20 * time.Second, LastCnt: -1, Patch: 3 * time.Minute}
		d.Key = network.Key{byte(i), 9}
		d.ServerKey = d.Key
		if o.change != nil {
			o.change(i, d)
		}
		r.devices = append(r.devices, d)
		spec.Devices = append(spec.Devices, session.Target{EUI: d.EUI})
	}
	spec.Capabilities = r.net.Caps
	if o.spec != nil {
		o.spec(&spec)
	}
	r.spec = spec
	var err error
	if r.c, err = session.New(spec); err != nil {
		t.Fatal(err)
	}
	for _, d := range r.devices {
		r.net.Add(d)
	}
	return r
}

// step takes one event, carries out the effects and feeds their results back.
func (r *rig) step(ev session.Event) {
	r.t.Helper()
	todo := []session.Event{ev}
	for len(todo) > 0 {
		effects := r.c.Step(r.w.Now(), todo[0])
		todo = todo[1:]
		if r.resume {
			r.c = reborn(r.t, r.spec, r.c)
		}
		if r.check != nil {
			r.check()
		}
		for _, e := range effects {
			if res := r.effect(e); res != nil {
				todo = append(todo, *res)
			}
		}
	}
	if r.timer != nil {
		r.timer.Cancel()
		r.timer = nil
	}
	if r.c.Ended() {
		r.net.Stop()
		return
	}
	if at := r.c.NextWake(); !at.IsZero() {
		if !at.After(r.w.Now()) {
			r.t.Fatalf("at %s the session wants to be woken at once (%s): it would spin", r.w.Now(), at)
		}
		r.timer = r.w.At(at, "tick", func() { r.timer = nil; r.step(session.Tick{}) })
	}
}

// reborn writes the state of a session as JSON and makes another of it.
func reborn(t *testing.T, spec session.Spec, c *session.Session) *session.Session {
	t.Helper()
	b, err := json.Marshal(c.State())
	if err != nil {
		t.Fatal(err)
	}
	var st session.State
	if err := json.Unmarshal(b, &st); err != nil {
		t.Fatal(err)
	}
	c, err = session.Resume(spec, st)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// effect checks an effect and carries it out.
func (r *rig) effect(e session.Effect) *session.Result {
	r.t.Helper()
	switch e := e.(type) {
	case session.Send:
		r.sends[e.Command]++
		if r.c.Progress().Phase == session.PhaseWindow {
			r.t.Errorf("%s to %s inside the window", e.Command, e.Device)
		}
	case session.Broadcast:
		if e.Broadcast.Expires.IsZero() || !e.Broadcast.Expires.After(r.w.Now()) {
			r.t.Fatalf("broadcast at %s expires at %s", r.w.Now(), e.Broadcast.Expires)
		}
		p := r.c.Progress()
		if now := r.w.Now(); now.Before(p.Start) || now.After(p.End) {
			r.t.Fatalf("broadcast at %s outside the window %s..%s", now, p.Start, p.End)
		}
		if r.late != nil && r.late(e.N) {
			return &session.Result{Op: e.Op, Failure: session.TooLate, Text: "injected"}
		}
		if e.N > 0 {
			r.sent[e.N]++
			if r.sent[e.N] > 1 && (e.N > r.c.Progress().M || r.c.Progress().Window == 1) {
				r.t.Fatalf("fragment %d was sent twice", e.N)
			}
		}
	case session.FlushDevice:
		r.flushed[e.Device]++
	case session.Record:
		r.records = append(r.records, e)
	}
	res, err := r.net.Carry(context.Background(), e, r.c.Payload)
	if err != nil {
		r.t.Fatal(err)
	}
	if b, ok := e.(session.Broadcast); ok && r.broadcasted != nil {
		r.broadcasted(b.N)
	}
	return res
}

// run drives the session to its end, at most so long.
func (r *rig) run(limit time.Duration) {
	r.t.Helper()
	r.net.Deliver(func(ev network.Event) {
		if !r.c.Ended() {
			r.step(session.Heard{Event: ev})
		}
	})
	r.step(session.Start{})
	if err := r.w.Run(context.Background(), start.Add(limit)); err != nil {
		r.t.Fatal(err)
	}
	if !r.c.Ended() {
		for _, row := range r.c.Rows() {
			if row.Stage < session.StageUpdated {
				r.t.Logf("%+v", row)
			}
		}
		r.t.Fatalf("session has not ended after %s: %+v", limit, r.c.Progress())
	}
	if n := r.net.OpenGroups(); n != 0 {
		r.t.Errorf("%d groups were left open", n)
	}
	for _, d := range r.devices {
		if d.Corrupt {
			r.t.Errorf("device %s reassembled another block", d.EUI)
		}
	}
}

func (r *rig) wantUpdated(i int) {
	r.t.Helper()
	row := r.c.Rows()[i]
	if row.Stage != session.StageUpdated || row.Version != newVersion || r.devices[i].Running() != newVersion {
		r.t.Errorf("device %d: %+v, runs %#x; want updated", i, row, r.devices[i].Running())
	}
}

func (r *rig) wantFailed(i int, step diag.Step, cause diag.Cause) {
	r.t.Helper()
	row := r.c.Rows()[i]
	if row.Stage != session.StageFailed || row.Step != step.String() || row.Cause != cause.String() {
		r.t.Errorf("device %d: %+v, want failed at %s with %s", i, row, step, cause)
	}
}

// seeds is how many random fleets a property is tried on; SOWER_PROOF=1 asks for many.
func seeds() uint64 {
	if os.Getenv("SOWER_PROOF") != "" {
		return 500
	}
	return 15
}

// TestFleet runs fleets of sound devices over bad links to the end: every one must be updated, whatever its losses,
// its clock, its last SessionCnt, whether it joins again, repeats its uplinks or has the diagnostic package.
func TestFleet(t *testing.T) {
	for _, matrix := range []fragmentation.Matrix{fragmentation.V1, fragmentation.V2} {
		for seed := range seeds() {
			t.Run(fmt.Sprintf("%s/seed=%d", matrix, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 3))
				worst := float64(seed%4) * 0.1
				r := newRig(t, options{seed: seed, n: 40, matrix: matrix, change: func(i int, d *campaigntest.Device) {
					d.LossUp, d.LossDown = rng.Float64()*worst, rng.Float64()*worst
					d.Diag = rng.IntN(2) == 0
					d.Clock = time.Duration(rng.NormFloat64() * float64(10*time.Minute))
					if rng.IntN(4) == 0 {
						d.RejoinAt = time.Duration(rng.Float64() * float64(4*time.Hour))
						d.Forgets = i%2 == 0
					}
					if rng.IntN(4) == 0 {
						d.LastCnt = rng.IntN(100)
					}
				}, net: func(n *campaigntest.Net) {
					n.Repeat = rng.Float64() * 0.2
					n.Caps.ReportsSent, n.KeepsQueue = rng.IntN(2) == 0, seed%3 == 0
				}})
				r.run(96 * time.Hour)
				for i := range r.devices {
					r.wantUpdated(i)
				}
				if p := r.c.Progress(); p.DataSent+p.ParitySent > 6*p.M {
					t.Errorf("%d fragments sent for a block of %d", p.DataSent+p.ParitySent, p.M)
				}
			})
		}
	}
}

// TestPerfectLinks must send each data fragment once, and little parity.
func TestPerfectLinks(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 40, change: func(_ int, d *campaigntest.Device) { d.LossUp, d.LossDown = 0, 0 }})
	r.run(24 * time.Hour)
	for i := range r.devices {
		r.wantUpdated(i)
	}
	if p := r.c.Progress(); p.DataSent != p.M || p.ParitySent != r.spec.Plan.Parity || p.Window != 1 {
		t.Errorf("%d data and %d parity fragments in %d windows, planned %d and %d in one", p.DataSent, p.ParitySent, p.Window,
			p.M, r.spec.Plan.Parity)
	}
}

// TestFailures mixes devices that fail in every known way with good ones. Each must end with its cause, and
// none may keep the good ones from their update.
func TestFailures(t *testing.T) {
	type failure struct {
		name   string
		change func(*campaigntest.Device)
		step   diag.Step
		cause  diag.Cause
	}
	failures := []failure{
		{"silent", func(d *campaigntest.Device) { d.Silent = true }, diag.StepSetup, diag.CauseNoUplink},
		{"no root key", func(d *campaigntest.Device) { d.ServerKey = network.Key{} }, diag.StepSetup, diag.CauseRootKeyMissing},
		{"wrong root key", func(d *campaigntest.Device) { d.ServerKey[5] = 1 }, diag.StepReceive, diag.CauseKeyMismatch},
		{"no memory, says so", func(d *campaigntest.Device) { d.Refuses, d.Diag = true, true }, diag.StepSetup, diag.CauseNoRAM},
		{"no memory, foreign", func(d *campaigntest.Device) { d.Refuses, d.Diag = true, false }, diag.StepSetup, diag.CauseNoRAM},
		{"no TS006", func(d *campaigntest.Device) { d.NoDevVersion = true }, diag.StepSetup, diag.CausePackagesMissing},
		{"other version", func(d *campaigntest.Device) { d.Speaks = applayer.V1 }, diag.StepSetup, diag.CauseOtherVersion},
		{"base mismatch", func(d *campaigntest.Device) { d.Stops, d.Diag = diag.CauseBaseMismatch, true }, diag.StepManifest, diag.CauseBaseMismatch},
		{"corrupt, foreign", func(d *campaigntest.Device) { d.Stops, d.Diag = diag.CauseBaseMismatch, false }, diag.StepVerify, diag.CauseSignatureBad},
		{"ignores reboot", func(d *campaigntest.Device) { d.IgnoresReboot = true }, diag.StepReady, diag.CauseNotRebooted},
		{"self-test, says so", func(d *campaigntest.Device) { d.RollsBack, d.Diag = diag.CauseSelfTestFailed, true }, diag.StepTrial, diag.CauseSelfTestFailed},
		{"self-test, foreign", func(d *campaigntest.Device) { d.RollsBack, d.Diag = diag.CauseSelfTestFailed, false }, diag.StepTrial, diag.CauseReverted},
		{"silent after boot", func(d *campaigntest.Device) { d.SilentAfterBoot = true }, diag.StepTrial, diag.CauseSilentAfterBoot},
		{"deaf", func(d *campaigntest.Device) { d.LossDown = 0.97 }, 0, 0},
	}
	for seed := range seeds() / 3 {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := newRig(t, options{seed: seed, n: len(failures) + 10, change: func(i int, d *campaigntest.Device) {
				if i < len(failures) {
					failures[i].change(d)
				}
			}, net: func(n *campaigntest.Net) { n.Repeat = 0.05 }})
			r.run(72 * time.Hour)
			for i := range r.devices {
				switch {
				case i >= len(failures):
					r.wantUpdated(i)
				case failures[i].cause == 0:
					if row := r.c.Rows()[i]; row.Stage != session.StageFailed || row.Cause == diag.CauseOK.String() {
						t.Errorf("%s: %+v, want failed with a cause", failures[i].name, row)
					}
				default:
					t.Log(failures[i].name)
					r.wantFailed(i, failures[i].step, failures[i].cause)
				}
			}
		})
	}
}
