package campaign_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/campaign"
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

var start = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC) // a Sunday

// rig is a campaign against scripted devices.
type rig struct {
	t       *testing.T
	w       *world.World
	net     *campaigntest.Net
	spec    campaign.Spec
	c       *campaign.Campaign
	devices map[network.EUI64]*campaigntest.Device
	order   []*campaigntest.Device
	timer   *world.Event
	notes   []note
	resume  bool                                              // go on from the state as JSON after each step
	seen    func(at time.Time, session int, e session.Effect) // each effect
}

type note struct {
	at time.Time
	session.Record
}

// group says who is in a session.
type group struct {
	wave   int
	n      int
	matrix fragmentation.Matrix
	change func(i int, d *campaigntest.Device, t *session.Target)
	spec   func(*session.Spec)
	again  []int // places of devices of earlier groups instead of new ones, for a rescue wave
	region airtime.Region
}

var (
	signed []byte
	plans  = map[string]plan.Plan{}
)

func block(t *testing.T) []byte {
	t.Helper()
	if signed == nil {
		key, err := bundle.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 3000)
		rng := rand.New(rand.NewPCG(7, 8))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		if signed, err = bundle.Sign(bundle.Manifest{Codec: bundle.CodecFull, KeyID: 1, Version: newVersion, Sequence: 2, NewSize: 3000}, data, key); err != nil {
			t.Fatal(err)
		}
	}
	return signed
}

func planned(t *testing.T, matrix fragmentation.Matrix, region airtime.Region) plan.Plan {
	t.Helper()
	key := matrix.String() + region.String()
	p, ok := plans[key]
	if !ok {
		rate := 5
		if region == airtime.US915 {
			rate = 13
		}
		var err error
		if p, err = plan.Make(plan.Input{Block: block(t), Region: region, DataRate: rate, Devices: 20, Matrix: matrix, FragSize: 50}); err != nil {
			t.Fatal(err)
		}
		plans[key] = p
	}
	return p
}

func newRig(t *testing.T, seed uint64, change func(*campaign.Spec), groups ...group) *rig {
	t.Helper()
	r := &rig{t: t, w: world.New(start), devices: map[network.EUI64]*campaigntest.Device{}}
	r.net = campaigntest.New(r.w, seed)
	r.spec = campaign.Spec{ID: "test", Application: "app", Creator: "ada"}
	for k, g := range groups {
		for len(r.spec.Waves) <= g.wave {
			r.spec.Waves = append(r.spec.Waves, campaign.Wave{Name: fmt.Sprintf("wave %d", len(r.spec.Waves)+1)})
		}
		if g.matrix == 0 {
			g.matrix = fragmentation.V2
		}
		if g.region == 0 {
			g.region = airtime.EU868
		}
		p := planned(t, g.matrix, g.region)
		ss := session.Spec{ID: fmt.Sprintf("s%d", k), Application: "app", Block: block(t), Target: newVersion, Plan: p,
			Gateways: []network.EUI64{{0xaa}}, McAddr: uint32(k + 1), McKey: network.Key{byte(k + 1)}, Capabilities: r.net.Caps,
			Timing: session.Timing{UplinkInterval: 10 * time.Minute}}
		for _, i := range g.again {
			ss.Devices = append(ss.Devices, session.Target{EUI: r.order[i].EUI, SessionCnt: 1})
		}
		if g.again != nil {
			ss.FragIndex, ss.McGroupID = 1, 1
		}
		for i := range g.n {
			n := len(r.order)
			d := &campaigntest.Device{EUI: network.EUI64{1, 6: byte(n >> 8), 7: byte(n)}, Speaks: p.Version(), Diag: i%2 == 0,
				Old: oldVersion, New: newVersion, Block: ss.Block, Interval: 10 * time.Minute, LossUp: 0.05, LossDown: 0.05,
				LastCnt: -1, Patch: 3 * time.Minute, Key: network.Key{byte(n), 9, byte(n >> 8)}}
			d.ServerKey = d.Key
			target := session.Target{EUI: d.EUI, Hardware: 1, From: oldVersion}
			if g.change != nil {
				g.change(i, d, &target)
			}
			r.order = append(r.order, d)
			r.devices[d.EUI] = d
			ss.Devices = append(ss.Devices, target)
			r.net.Add(d)
		}
		if g.spec != nil {
			g.spec(&ss)
		}
		r.spec.Waves[g.wave].Sessions = append(r.spec.Waves[g.wave].Sessions, ss)
	}
	if change != nil {
		change(&r.spec)
	}
	var err error
	if r.c, err = campaign.New(r.spec); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) step(ev campaign.Event) {
	r.t.Helper()
	queue := []campaign.Event{ev}
	for len(queue) > 0 {
		effects := r.c.Step(r.w.Now(), queue[0])
		queue = queue[1:]
		if r.resume {
			b, err := json.Marshal(r.c.State())
			if err != nil {
				r.t.Fatal(err)
			}
			var st campaign.State
			if err := json.Unmarshal(b, &st); err != nil {
				r.t.Fatal(err)
			}
			if r.c, err = campaign.Resume(r.spec, st); err != nil {
				r.t.Fatal(err)
			}
		}
		for _, e := range effects {
			if r.seen != nil {
				r.seen(r.w.Now(), e.Session, e.Do)
			}
			if res := r.do(e); res != nil {
				queue = append(queue, campaign.Result{Session: e.Session, Result: *res})
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
		if !at.After(r.w.Now()) && at.Year() > 2000 {
			r.t.Fatalf("at %s the campaign wants to be woken at once (%s): it would spin", r.w.Now(), at)
		}
		if at.Before(r.w.Now()) {
			at = r.w.Now()
		}
		r.timer = r.w.At(at, "tick", func() { r.timer = nil; r.step(campaign.Tick{}) })
	}
}

func (r *rig) do(e campaign.Effect) *session.Result {
	r.t.Helper()
	if rec, ok := e.Do.(session.Record); ok && e.Session < 0 {
		r.notes = append(r.notes, note{r.w.Now(), rec})
	}
	res, err := r.net.Carry(context.Background(), e.Do, func(s session.Send, key network.Key) ([]byte, error) {
		return r.c.Payload(e.Session, s, key)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return res
}

// run starts the campaign and drives it to its end, at most so long.
func (r *rig) run(limit time.Duration) {
	r.t.Helper()
	r.drive(limit, campaign.Start{By: "ada"})
	r.wantEnded()
}

// drive gives an order now and lets so much time pass.
func (r *rig) drive(d time.Duration, orders ...campaign.Event) {
	r.t.Helper()
	r.net.Deliver(func(ev network.Event) {
		if !r.c.Ended() {
			r.step(campaign.Heard{Event: ev})
		}
	})
	for _, ev := range orders {
		if err := r.c.Allows(ev); err != nil {
			r.t.Fatalf("%T: %v", ev, err)
		}
		r.step(ev)
	}
	if err := r.w.Run(context.Background(), r.w.Now().Add(d)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) wantEnded() {
	r.t.Helper()
	if !r.c.Ended() {
		for _, row := range r.c.Rows() {
			if row.Stage < session.StageUpdated {
				r.t.Logf("%+v", row)
			}
		}
		r.t.Fatalf("at %s the campaign has not ended: %+v", r.w.Now(), r.c.Progress())
	}
	if n := r.net.OpenGroups(); n != 0 {
		r.t.Errorf("%d groups were left open", n)
	}
	for _, d := range r.order {
		if d.Corrupt {
			r.t.Errorf("device %s reassembled another block", d.EUI)
		}
	}
}

// noted returns the notes of that kind.
func (r *rig) noted(what string) []note {
	var out []note
	for _, n := range r.notes {
		if n.What == what {
			out = append(out, n)
		}
	}
	return out
}

// stages counts the devices of a wave by stage.
func (r *rig) stages(wave int) map[session.Stage]int {
	out := map[session.Stage]int{}
	for _, row := range r.c.Rows() {
		if row.Wave == r.spec.Waves[wave].Name {
			out[row.Stage]++
		}
	}
	return out
}
