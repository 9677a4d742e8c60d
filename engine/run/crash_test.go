package run_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/engine/store"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/campaigntest"
	"github.com/sower-fuota/sower/simulator/world"
)

// point is an instant at which the engine can die.
type point struct {
	n    int    // from 1, over all lives
	what string // "commit" or the kind of an effect
	gap  string // "before" or "after" it
}

func (p point) String() string { return p.gap + " " + p.what }

// plant is what outlives the engine: the devices, the server, the broker and the disk.
type plant struct {
	t    *testing.T
	w    *world.World
	net  *campaigntest.Net
	spec campaign.Spec
	path string

	die      func(point) bool
	points   int
	at       []point
	kinds    map[string]int // points by what they are
	kills    []point
	lives    int
	stores   []*store.Store
	forget   bool // the defence is off: effects found at the start are not reconciled
	finished atomic.Bool
	operator sync.Mutex
	orders   []order
	due      atomic.Int32 // of the orders
	given    int          // and obeyed
	engine   atomic.Pointer[run.Engine]
	stop     atomic.Pointer[context.CancelFunc] // of the present life

	mu     sync.Mutex
	errs   []string
	over   bool
	inbox  []*letter // not acknowledged
	served int       // of them so many were handed to the present life
	wake   chan struct{}

	sends  map[string]int    // unicast messages by device and contents
	cnts   map[string]string // FragSessionSetupReq by device and SessionCnt
	groups map[string]int    // groups by name
	log    []run.Entry
	audit  []run.Audit
}

// secret is a key that is recognised wherever it turns up.
func secret(what string, i int) network.Key {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", what, i))
	return network.Key(sum[:16])
}

// small is a block of few fragments.
var small = makeBlock(600, 0)

var smallPlan = sync.OnceValues(func() (plan.Plan, error) {
	return plan.Make(plan.Input{Block: small, Region: airtime.EU868, DataRate: 5, Devices: 3, Matrix: fragmentation.V2})
})

// newPlant has a campaign of two waves; prepare may change the devices of the first.
func newPlant(t *testing.T, prepare func(wave int, d *campaigntest.Device), orders []order) *plant {
	t.Helper()
	p := &plant{t: t, w: world.New(start), path: filepath.Join(t.TempDir(), "sower.db"), die: func(point) bool { return false },
		kinds: map[string]int{}, sends: map[string]int{}, cnts: map[string]string{}, groups: map[string]int{}, wake: make(chan struct{}, 1), orders: orders}
	t.Cleanup(p.close)
	for _, o := range p.orders {
		if o.after > 0 {
			p.w.At(start.Add(o.after), "order", p.ordered)
		}
	}
	p.net = campaigntest.New(p.w, 5)
	p.net.Deliver(func(ev network.Event) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.over {
			return // nobody subscribes for a campaign that has ended
		}
		ev.Done = p.w.Hold("event")
		p.inbox = append(p.inbox, &letter{ev})
		p.kick()
	})
	pl, err := smallPlan()
	if err != nil {
		t.Fatal(err)
	}
	p.spec = campaign.Spec{ID: "crash", Application: "app"}
	for wave := range 2 {
		spec := session.Spec{ID: fmt.Sprintf("crash-%d", wave), Application: "app", Block: small, Target: newVersion, Plan: pl,
			Gateways: []network.EUI64{{0xaa}}, McAddr: uint32(0x01000000 + wave), McKey: secret("group", wave),
			Capabilities: p.net.Caps, Timing: session.Timing{UplinkInterval: 10 * time.Minute}}
		for i := range 3 {
			d := &campaigntest.Device{EUI: network.EUI64{byte(wave), 1, 7: byte(i)}, Speaks: pl.Version(), Diag: i > 0,
				Old: oldVersion, New: newVersion, Block: small, Interval: 10 * time.Minute, LossUp: 0.1, LossDown: 0.1,
				LastCnt: i - 1, Patch: time.Minute, Key: secret("root", i), ServerKey: secret("root", i)}
			if prepare != nil {
				prepare(wave, d)
			}
			p.net.Add(d)
			spec.Devices = append(spec.Devices, session.Target{EUI: d.EUI})
		}
		p.spec.Waves = append(p.spec.Waves, campaign.Wave{Name: fmt.Sprintf("wave-%d", wave), Sessions: []session.Spec{spec}})
	}
	return p
}

func (p *plant) fail(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, fmt.Sprintf(format, args...))
}

func (p *plant) broken() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.errs) > 20
}

func (p *plant) close() {
	for _, st := range p.stores {
		st.Close()
	}
	p.stores = nil
}

func (p *plant) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// ordered lets the operator act, now that another order is due.
func (p *plant) ordered() {
	p.due.Add(1)
	release := p.w.Hold("operator")
	go func() {
		defer release()
		if err := p.operate(); err != nil && !errors.Is(err, run.ErrStopped) {
			p.fail("%v", err)
		}
	}()
}

// operate gives the orders that are due and that were not obeyed yet. Who gets no answer asks again; that an order
// means nothing any more is an answer.
func (p *plant) operate() error {
	p.operator.Lock()
	defer p.operator.Unlock()
	for engine := p.engine.Load(); p.given < int(p.due.Load()); p.given++ {
		err := engine.Command(context.Background(), "crash", p.orders[p.given].order, "cat")
		if err != nil && !errors.Is(err, run.ErrConflict) {
			return err
		}
	}
	return nil
}

// pass is a point at which the engine may die. It does not return then.
func (p *plant) pass(what, gap string) {
	p.points++
	at := point{p.points, what, gap}
	p.kinds[at.String()]++
	p.at = append(p.at, at)
	if p.die(at) {
		p.kills = append(p.kills, at)
		runtime.Goexit()
	}
}

// run drives the world until the campaign has ended and everything has calmed down.
func (p *plant) run() {
	p.t.Helper()
	done := make(chan struct{})
	release := p.w.Hold("start")
	go func() {
		defer close(done)
		for !p.finished.Load() {
			release = p.live(release)
			if p.broken() {
				break
			}
		}
		p.net.Stop()
		p.w.Stop()
		release()
	}()
	if err := p.w.Run(context.Background(), start.Add(200*time.Hour)); err != nil && !errors.Is(err, world.ErrStopped) {
		p.fail("world: %v; last kills %v", err, p.kills[max(0, len(p.kills)-3):])
		return
	}
	<-done
	p.read()
}

// live is one life of an engine, from its start to its death. It returns the hold on the world.
func (p *plant) live(release func()) (hold func()) {
	p.lives++
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dead := make(chan struct{})
	defer close(dead)
	st, err := store.Open(ctx, p.path, store.Options{NoSync: true, OnCommit: func(_ int, before bool) error {
		p.pass("commit", map[bool]string{true: "before", false: "after"}[before])
		return nil
	}})
	if err != nil {
		p.fail("%v", err)
		return release
	}
	p.close() // the files of the dead; not before, or the last one would tidy up the database
	p.stores = append(p.stores, st)
	clock := p.w.NewClock("engine")
	ending := false
	end := func(ended bool) {
		if ended && !ending {
			ending = true
			p.mu.Lock()
			p.over = true
			for _, m := range p.inbox {
				m.Done()
			}
			p.mu.Unlock()
			p.w.After(time.Hour, "end", func() {
				select {
				case <-dead:
				default:
					p.finished.Store(true)
					cancel()
				}
			})
		}
	}
	engine := run.New(run.Config{Network: &life{Net: p.net, p: p, dead: dead}, Clock: clock, Store: st, Batch: 1,
		Progress: func(c *campaign.Campaign) { end(c.Ended()) }})
	p.engine.Store(engine)
	p.stop.Store(&cancel)
	died := make(chan struct{})
	go func() {
		defer close(died)
		if err := engine.Run(ctx); !errors.Is(err, context.Canceled) {
			p.fail("Run = %v", err)
		}
	}()
	// The operator, who repeats what was not answered.
	var phase campaign.Phase
	known, left := false, false
	err = engine.View(ctx, func(cs []*campaign.Campaign) {
		if known = len(cs) == 1; known {
			phase = cs[0].Header().Phase
		}
		end(known && cs[0].Ended())
	})
	if list, listErr := st.Campaigns(ctx, store.Filter{}, 0, 1); err == nil && listErr == nil && len(list) == 1 && list[0].Left {
		known, left = true, true // it had ended in the life before
		end(true)
	}
	if err == nil && !known {
		err = engine.Create(ctx, p.spec, run.CampaignFile{TOML: []byte("[campaign]")}, "ann")
	}
	if err == nil && phase == campaign.PhaseDraft && !left {
		err = engine.Command(ctx, "crash", campaign.Start{}, "bob")
	}
	if err == nil && !left {
		err = p.operate()
	}
	if err != nil && !errors.Is(err, run.ErrStopped) {
		p.fail("%v", err)
	}
	release()
	<-died
	hold = p.w.Hold("restart")
	clock.Close()
	return hold
}

// read takes logs out of the store once everything is over.
func (p *plant) read() {
	p.t.Helper()
	st := p.stores[len(p.stores)-1]
	var err error
	if p.log, err = st.Entries(p.t.Context(), "crash", nil, 0, 1<<20); err != nil {
		p.fail("%v", err)
	}
	if p.audit, err = st.Audit(p.t.Context(), 0, 1<<20); err != nil {
		p.fail("%v", err)
	}
	if _, err := st.VerifyAudit(p.t.Context()); err != nil {
		p.fail("%v", err)
	}
}

// life is the network as one life of the engine has it.
type life struct {
	*campaigntest.Net
	p    *plant
	dead chan struct{}
}

// letter is an event until it is acknowledged.
type letter struct{ network.Event }

// Events hands out what has not been acknowledged, in order, again in each life.
func (l *life) Events(ctx context.Context, _ string) (<-chan network.Event, error) {
	ch := make(chan network.Event)
	p := l.p
	p.mu.Lock()
	p.served = 0
	p.mu.Unlock()
	p.kick()
	go func() {
		defer close(ch)
		for {
			p.mu.Lock()
			var next *letter
			if p.served < len(p.inbox) {
				next = p.inbox[p.served]
			}
			p.mu.Unlock()
			if next == nil {
				select {
				case <-p.wake:
				case <-ctx.Done():
					return
				}
				continue
			}
			ev := next.Event
			ev.Done = func() { l.acknowledge(next) }
			select {
			case ch <- ev:
				p.mu.Lock()
				p.served++
				p.mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

func (l *life) acknowledge(m *letter) {
	l.alive()
	p := l.p
	p.pass("acknowledgement", "before")
	p.mu.Lock()
	i := slices.Index(p.inbox, m)
	p.inbox = slices.Delete(p.inbox, i, i+1)
	p.served--
	p.mu.Unlock()
	m.Done()
	p.pass("acknowledgement", "after")
}

func (l *life) alive() {
	select {
	case <-l.dead:
		l.p.fail("%v", "a dead engine goes on")
	default:
	}
}

// do makes a call with a point at which to die on both sides.
func do[T any](l *life, what string, call func() (T, error)) (T, error) {
	l.alive()
	l.p.pass(what, "before")
	res, err := call()
	l.p.pass(what, "after")
	return res, err
}

func (l *life) Send(ctx context.Context, m network.Message) (network.MessageID, error) {
	return do(l, "Send", func() (network.MessageID, error) {
		l.p.sends[fmt.Sprintf("%s %d %x", m.Device, m.FPort, m.Payload)]++
		l.p.sessionCnt(m)
		return l.Net.Send(ctx, m)
	})
}

// sessionCnt makes sure that a SessionCnt means the same session for ever.
func (p *plant) sessionCnt(m network.Message) {
	if m.FPort != applayer.FPortDataBlock {
		return
	}
	cmds, _ := datablock.Parse(applayer.V2, applayer.Downlink, m.Payload)
	for _, cmd := range cmds {
		if req, ok := cmd.(datablock.FragSessionSetupReq); ok {
			key := fmt.Sprintf("%s %d", m.Device, req.SessionCnt)
			if before, used := p.cnts[key]; used && before != string(m.Payload) {
				p.fail("SessionCnt %d of device %s is used for two sessions", req.SessionCnt, m.Device)
			}
			p.cnts[key] = string(m.Payload)
		}
	}
}

func (l *life) OpenGroup(ctx context.Context, g network.Group) (network.GroupID, error) {
	return do(l, "OpenGroup", func() (network.GroupID, error) { return l.Net.OpenGroup(ctx, g) })
}

func (l *life) CloseGroup(ctx context.Context, id network.GroupID) error {
	_, err := do(l, "CloseGroup", func() (struct{}, error) { return struct{}{}, l.Net.CloseGroup(ctx, id) })
	return err
}

func (l *life) Broadcast(ctx context.Context, b network.Broadcast) (uint32, error) {
	return do(l, "Broadcast", func() (uint32, error) {
		for _, o := range l.p.orders {
			if o.frames > 0 && o.frames == l.Frames()+1 {
				l.p.w.After(time.Second, "order", l.p.ordered)
			}
		}
		return l.Net.Broadcast(ctx, b)
	})
}

func (l *life) Flush(ctx context.Context, d network.EUI64) error {
	_, err := do(l, "FlushDevice", func() (struct{}, error) { return struct{}{}, l.Net.Flush(ctx, d) })
	return err
}

func (l *life) FlushGroup(ctx context.Context, id network.GroupID) error {
	_, err := do(l, "FlushGroup", func() (struct{}, error) { return struct{}{}, l.Net.FlushGroup(ctx, id) })
	return err
}

func (l *life) Queued(ctx context.Context, d network.EUI64) ([]network.MessageID, error) {
	if l.p.forget {
		return nil, nil
	}
	return l.Net.Queued(ctx, d)
}

func (l *life) GroupState(ctx context.Context, id network.GroupID) (network.GroupState, error) {
	if l.p.forget {
		return network.GroupState{}, nil
	}
	return l.Net.GroupState(ctx, id)
}

// tell renders the log without what may differ between runs.
func tell(log []run.Entry) []string {
	var out []string
	for _, en := range log {
		if en.Kind == "retry" {
			continue
		}
		en.Seq, en.Time = 0, time.Time{}
		b, err := json.Marshal(en)
		if err != nil {
			panic(err)
		}
		out = append(out, string(b))
	}
	return out
}

// check compares a plant in which engines have died with one in which none has.
func (p *plant) check(clean *plant) (duplicates int) {
	p.t.Helper()
	for what, n := range p.sends {
		duplicates += max(0, n-clean.sends[what])
	}
	duplicates += max(0, p.net.Frames()-clean.net.Frames())
	want, got := tell(clean.log), tell(p.log)
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			p.fail("entry %d of the log is\n%s\nwithout kills it is\n%s", i, at(got, i), at(want, i))
			break
		}
	}
	counters := map[string]uint32{}
	phases := map[string]int{}
	for _, en := range p.log {
		switch en.Kind {
		case "broadcast":
			if *en.FCnt != counters[en.Session] {
				p.fail("session %s: frame counter %d, want %d", en.Session, *en.FCnt, counters[en.Session])
			}
			counters[en.Session]++
		case "phase":
			if phases[en.Session+en.Text]++; en.Text == "prepare" && phases[en.Session+en.Text] > 1 {
				p.fail("session %s was started twice", en.Session)
			}
		}
	}
	for i, a := range p.audit {
		if i >= len(clean.audit) || a.Action != clean.audit[i].Action || a.By != clean.audit[i].By || a.Text != clean.audit[i].Text {
			p.fail("audit entry %d is %+v; without kills there are %+v", i, a, clean.audit)
			break
		}
	}
	if len(p.audit) != len(clean.audit) {
		p.fail("%d audit entries, without kills %d", len(p.audit), len(clean.audit))
	}
	if n := p.net.OpenGroups(); n != 0 {
		p.fail("%d groups were left open", n)
	}
	if duplicates > len(p.kills) {
		p.fail("%d messages were queued twice after %d kills", duplicates, len(p.kills))
	}
	return duplicates
}

func at(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return "(nothing)"
}

// order is given by an operator at some time after the start.
type order struct {
	after  time.Duration
	frames int // in place of after: when so many multicast frames were sent
	order  campaign.Event
}

// scenarios are campaigns to be killed in.
var scenarios = []struct {
	name    string
	prepare func(wave int, d *campaigntest.Device)
	orders  []order
	want    string // in the end
}{
	{name: "update"},
	// All of the first wave fall silent after the reboot: the second must never begin.
	{name: "halt", prepare: func(wave int, d *campaigntest.Device) { d.SilentAfterBoot = wave == 0 }, want: "silent"},
	{name: "abort in the set-up", orders: []order{{after: 10 * time.Minute, order: campaign.Abort{Reason: "enough"}}}, want: "aborted"},
	{name: "pause and abort", orders: []order{{frames: 6, order: campaign.Pause{}}, {after: 2 * time.Hour, order: campaign.Continue{}},
		{after: 150 * time.Minute, order: campaign.Abort{Reason: "enough"}}}, want: "aborted"},
}

// clean runs a scenario without kills.
func clean(t *testing.T, i int) *plant {
	t.Helper()
	p := newPlant(t, scenarios[i].prepare, scenarios[i].orders)
	p.run()
	if len(p.errs) > 0 {
		t.Fatalf("without kills: %s", p.errs[0])
	}
	second := 0
	for _, en := range p.log {
		if en.Session == "crash-1" && (en.Kind == "broadcast" || en.Kind == "send") {
			second++
		}
	}
	if halted := p.halted(); !strings.Contains(halted, scenarios[i].want) || (halted == "") != (scenarios[i].want == "") || (halted == "") != (second > 0) {
		t.Fatalf("the campaign ended with %q and %d messages of the second wave; want %q", halted, second, scenarios[i].want)
	}
	return p
}

// halted is why the campaign stopped.
func (p *plant) halted() string {
	for _, a := range p.audit {
		if a.Action == "halt" {
			return a.Text
		}
	}
	return ""
}

// TestCrashEverywhere kills the engine at every point in one run: before and after each commit, each call that
// changes something and each acknowledgement, one life for each; in the short form at a quarter of the points.
func TestCrashEverywhere(t *testing.T) {
	for i, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			c := clean(t, i)
			p := newPlant(t, sc.prepare, sc.orders)
			passed, every := map[string]int{}, 8
			if os.Getenv("SOWER_PROOF") != "" {
				every = 2
			}
			p.die = func(at point) bool { // at most each second time, or there would be no progress
				passed[at.String()]++
				return passed[at.String()]%every == 1
			}
			p.run()
			d := p.check(c)
			for _, err := range p.errs {
				t.Error(err)
			}
			t.Logf("%d points in the run without kills; %d kills, %d duplicates; log of %d entries", c.points, len(p.kills), d, len(p.log))
		})
	}
}

// TestCrashOnce kills the engine once in each run, at each point in turn; in the short form at a sample of them that has
// every kind.
func TestCrashOnce(t *testing.T) {
	covered := map[string]int{}
	for i, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			c := clean(t, i)
			passed, runs, duplicates := map[string]int{}, 0, 0
			for k := 1; k <= c.points; k++ {
				at := c.at[k-1].String()
				passed[at]++
				if os.Getenv("SOWER_PROOF") == "" && (covered[at] > 0 || passed[at] != (c.kinds[at]+1)/2) {
					continue
				}
				p := newPlant(t, sc.prepare, sc.orders)
				p.die = func(at point) bool { return at.n == k }
				p.run()
				duplicates += p.check(c)
				for _, err := range p.errs {
					t.Errorf("killed at point %d (%s): %s", k, at, err)
				}
				p.close()
				covered[at]++
				runs++
			}
			t.Logf("%d points, %d runs with one kill each, %d duplicates", c.points, runs, duplicates)
		})
	}
	for _, at := range slices.Sorted(maps.Keys(covered)) {
		t.Logf("%5d kills %s", covered[at], at)
	}
	for _, what := range []string{"commit", "acknowledgement", "OpenGroup", "Send", "Broadcast", "CloseGroup", "FlushDevice", "FlushGroup"} {
		for _, gap := range []string{"before ", "after "} {
			if covered[gap+what] == 0 {
				t.Errorf("never killed %s%s", gap, what)
			}
		}
	}
}

// TestCrashWithoutReconciliation makes sure that the tests above can fail: when the network is not asked what has
// happened, messages are sent twice.
func TestCrashWithoutReconciliation(t *testing.T) {
	c := clean(t, 0)
	for _, at := range []string{"after Broadcast", "after Send"} {
		p := newPlant(t, nil, nil)
		p.forget = true
		p.die = func(pt point) bool { return pt.String() == at && len(p.kills) == 0 }
		p.run()
		if d := p.check(c); d == 0 || len(p.errs) == 0 {
			t.Errorf("killed %s without reconciliation: %d duplicates, errors %v", at, d, p.errs)
		}
	}
}
