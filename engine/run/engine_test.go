package run_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
)

// TestStopIsNotTheEnd stops the engine in an orderly way every ten minutes: nothing of that shows in the campaign.
func TestStopIsNotTheEnd(t *testing.T) {
	c := clean(t, 0)
	p := newPlant(t, nil, nil)
	for i := range 24 {
		p.w.At(start.Add(time.Duration(i+1)*10*time.Minute), "stop", func() { (*p.stop.Load())() })
	}
	p.run()
	if d := p.check(c); d > 0 {
		t.Errorf("%d messages were queued twice", d)
	}
	for _, err := range p.errs {
		t.Error(err)
	}
	if p.lives < 20 {
		t.Errorf("%d lives, want one more than stops", p.lives)
	}
}

// TestExpiredWave has a bundle that expires between the waves: the second wave must not be sent.
func TestExpiredWave(t *testing.T) {
	p := newPlant(t, nil, nil)
	at := start.Add(90 * time.Minute)
	late := &p.spec.Waves[1].Sessions[0]
	late.Block = makeBlock(600, uint32(airtime.GPSSeconds(at)))
	p.run()
	if h := p.halted(); !strings.Contains(h, "crash-1 expired at "+at.Format(time.RFC3339)) {
		t.Errorf("halted %q, want the expiry", h)
	}
	for _, en := range p.log {
		if en.Session == "crash-1" && (en.Kind == "send" || en.Kind == "broadcast" || en.Kind == "group") {
			t.Fatalf("the second wave was begun: %+v", en)
		}
	}
	if n := p.net.OpenGroups(); n != 0 || len(p.errs) > 0 {
		t.Errorf("%d groups were left open; errors %v", n, p.errs)
	}
}

// TestSecretsStaySecret searches whatever a campaign leaves behind for its keys.
func TestSecretsStaySecret(t *testing.T) {
	p := newPlant(t, nil, nil)
	calls := 0
	p.net.Fault = func(method string) (bool, error) { // errors are logged, too
		if calls++; calls%10 == 0 {
			return calls%20 == 0, fmt.Errorf("injected: %w", network.ErrUncertain)
		}
		return true, nil
	}
	p.run()
	for _, err := range p.errs {
		t.Fatal(err)
	}
	var left bytes.Buffer
	files, err := filepath.Glob(filepath.Join(filepath.Dir(p.path), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		left.Write(b)
	}
	if err := json.NewEncoder(&left).Encode([]any{p.log, p.audit}); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&left, "%v %+v %#v", p.spec, p.log, p.spec)
	found := func(key []byte) bool {
		for _, form := range [][]byte{key, []byte(hex.EncodeToString(key)), []byte(strings.ToUpper(hex.EncodeToString(key))),
			[]byte(base64.StdEncoding.EncodeToString(key)[:20]), []byte(base64.URLEncoding.EncodeToString(key)[:20]),
			[]byte(strings.Trim(fmt.Sprint(key), "[]")), []byte(strings.ReplaceAll(strings.Trim(fmt.Sprint(key), "[]"), " ", ","))} {
			if bytes.Contains(left.Bytes(), form) {
				return true
			}
		}
		return false
	}
	for wave := range 2 {
		key, addr := secret("group", wave), uint32(0x01000000+wave)
		for what, k := range map[string][16]byte{"McKey": key, "McAppSKey": mcsetup.McAppSKey(key, addr), "McNwkSKey": mcsetup.McNwkSKey(key, addr)} {
			if found(k[:]) {
				t.Errorf("%s of wave %d is in what the campaign leaves behind", what, wave)
			}
		}
	}
	for i := range 3 {
		if k := secret("root", i); found(k[:]) {
			t.Errorf("root key %d is in what the campaign leaves behind", i)
		}
	}
	if !found(small[:16]) || !bytes.Contains(left.Bytes(), []byte("SQLite format 3")) {
		t.Error("the search finds nothing at all") // the block is stored in the clear
	}
}

// TestBusyNetworkIsWaitedFor has a network that refuses each broadcast twice because others wait.
func TestBusyNetworkIsWaitedFor(t *testing.T) {
	f := newFixture(t, 1, 5)
	refused := 0
	f.net.Fault = func(method string) (bool, error) {
		if method == "Broadcast" && f.net.Calls[method]%3 != 0 {
			refused++
			return false, fmt.Errorf("enqueue: %w", &network.Busy{Group: "g", Waiting: 3, After: 700 * time.Millisecond})
		}
		return true, nil
	}
	if err := f.run(t, t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wantUpdated(t)
	broadcasts := 0
	for _, en := range f.log {
		switch en.Kind {
		case "retry", "failed":
			t.Errorf("%s: %s", en.Kind, en.Text)
		case "broadcast":
			broadcasts++
		}
	}
	if refused != 2*broadcasts || broadcasts == 0 || f.net.Frames() != broadcasts {
		t.Errorf("%d refusals and %d frames for %d broadcasts", refused, f.net.Frames(), broadcasts)
	}
}

// TestPauseHoldsBackWhatWaits pauses while a broadcast waits for a busy network: it is not sent in the pause.
func TestPauseHoldsBackWhatWaits(t *testing.T) {
	p := newPlant(t, nil, []order{{frames: -1, order: campaign.Pause{}}, {after: 2 * time.Hour, order: campaign.Continue{}}})
	sent, busy := 0, 0
	p.net.Fault = func(method string) (bool, error) {
		if method != "Broadcast" {
			return true, nil
		}
		if sent++; sent < 5 || busy > 2 {
			return true, nil
		}
		if busy++; busy == 1 {
			p.w.After(time.Second, "order", p.ordered)
		}
		return false, &network.Busy{Group: "g", After: 2 * time.Second}
	}
	p.run()
	for _, err := range p.errs {
		t.Error(err)
	}
	paused, pauses := false, 0
	for _, en := range p.log {
		switch {
		case en.Kind == "pause" && en.Session == "":
			paused = true
			pauses++
		case en.Kind == "continue":
			paused = false
		case paused && (en.Kind == "broadcast" || en.Kind == "send"):
			t.Errorf("sent in the pause: %+v", en)
		}
	}
	if h := p.halted(); pauses != 1 || busy == 0 || h != "" {
		t.Errorf("%d pauses, %d refusals, halted %q", pauses, busy, h)
	}
}

// TestDuplicatesAreDropped delivers each event twice, hours later; the engine has died in between.
func TestDuplicatesAreDropped(t *testing.T) {
	c := clean(t, 0)
	p := newPlant(t, nil, nil)
	p.net.Repeat = 1
	for i := range 6 {
		p.w.At(start.Add(time.Duration(i+1)*30*time.Minute), "stop", func() { (*p.stop.Load())() })
	}
	p.run()
	if d := p.check(c); d > 0 {
		t.Errorf("%d messages were queued twice", d)
	}
	for _, err := range p.errs {
		t.Error(err)
	}
}

func TestOrders(t *testing.T) {
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "sower.db"), store.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	h := &hose{events: make(chan network.Event), all: make(chan struct{})}
	r := begin(t, h, st)
	ctx := t.Context()
	updates := r.engine.Subscribe(ctx)
	spec := large(t, 3)
	spec.Policy.Approvals, spec.Policy.FourEyes = 1, true
	expired := large(t, 1)
	expired.ID = "expired"
	expired.Waves[0].Sessions[0].ID = "expired-1"
	expired.Waves[0].Sessions[0].Devices[0].EUI = network.EUI64{2}
	expired.Waves[0].Sessions[0].Block = makeBlock(5000, 1000) // in 1980
	other := large(t, 1)
	other.ID = "other"

	create := func(s campaign.Spec) error { return r.engine.Create(ctx, s, run.CampaignFile{}, "ann") }
	order := func(ev campaign.Event, by string) error { return r.engine.Command(ctx, "large", ev, by) }
	for _, step := range []struct {
		what string
		err  error
		want error
		text string
	}{
		{"create", create(spec), nil, ""},
		{"create it again", create(spec), run.ErrConflict, "large exists"},
		{"create one with the same devices", create(other), run.ErrConflict, "which has not ended"},
		{"create one without waves", create(campaign.Spec{ID: "empty"}), campaign.ErrSpec, "empty"},
		{"start without approval", order(campaign.Start{}, "ann"), run.ErrConflict, "approval"},
		{"approve as the creator", order(campaign.Approve{By: "bob"}, "ann"), run.ErrConflict, "somebody else"},
		{"approve", order(campaign.Approve{}, "bob"), nil, ""},
		{"continue", order(campaign.Continue{}, "ann"), run.ErrConflict, "not paused"},
		{"tick", order(campaign.Tick{}, "ann"), run.ErrConflict, "not an order"},
		{"start", order(campaign.Start{}, "ann"), nil, ""},
		{"pause", order(campaign.Pause{Reason: "lunch"}, "ann"), nil, ""},
		{"continue", order(campaign.Continue{}, "ann"), nil, ""},
		{"abort", order(campaign.Abort{Reason: "enough"}, "bob"), nil, ""},
		{"create an expired one", create(expired), nil, ""},
		{"start an expired one", r.engine.Command(ctx, "expired", campaign.Start{}, "ann"), run.ErrConflict, "expired at 1980"},
		{"start nothing", r.engine.Command(ctx, "nothing", campaign.Start{}, "ann"), run.ErrNotFound, "nothing"},
	} {
		if !errors.Is(step.err, step.want) || step.err != nil && !strings.Contains(step.err.Error(), step.text) {
			t.Errorf("%s: %v, want %v with %q", step.what, step.err, step.want, step.text)
		}
	}
	if u := <-updates; u.Campaign != "large" {
		t.Errorf("update of %q, want large", u.Campaign)
	}
	log, err := st.Audit(ctx, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range log {
		got = append(got, a.By+" "+a.Action+" "+a.Campaign)
	}
	want := []string{"ann create large", "bob approve large", "ann start large", "ann pause large", "ann continue large", "bob abort large"}
	if len(got) < len(want) || fmt.Sprint(got[:len(want)]) != fmt.Sprint(want) {
		t.Errorf("audit %v, want %v first", got, want)
	}
	r.stop()
	if err := create(other); !errors.Is(err, run.ErrStopped) {
		t.Errorf("Create after the end = %v, want ErrStopped", err)
	}
	if err := r.engine.View(ctx, func([]*campaign.Campaign) {}); !errors.Is(err, run.ErrStopped) {
		t.Errorf("View after the end = %v, want ErrStopped", err)
	}
}

func TestNewGroupKeys(t *testing.T) {
	random := bytes.NewReader(append(append(bytes.Repeat([]byte{0xff}, 4), make([]byte, 16)...), bytes.Repeat([]byte{0xfe}, 20)...))
	addr, key, err := run.NewGroupKeys(random)
	if err != nil || addr != 0x00fefefe || key != network.Key(bytes.Repeat([]byte{0xfe}, 16)) {
		t.Errorf("NewGroupKeys = %08x, set %t, %v: a key of zeros must be drawn again", addr, key == network.Key{}, err)
	}
	if _, _, err := run.NewGroupKeys(bytes.NewReader(make([]byte, 19))); err == nil {
		t.Error("a key was made of too little")
	}
}

// slow is a network in which each call for a device of one campaign takes five seconds.
type slow struct{ hose }

func (s *slow) Send(ctx context.Context, m network.Message) (network.MessageID, error) {
	if m.Device[0] == 1 {
		<-time.After(5 * time.Second)
	}
	return s.hose.Send(ctx, m)
}

// TestSlowCallsHoldUpNobodyElse has three campaigns of twenty devices and a server that is slow for one: how long does
// an uplink of another wait for its commit, and its device for the first command?
func TestSlowCallsHoldUpNobodyElse(t *testing.T) {
	wait := func(concurrent bool) (event, command time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			n := &slow{hose{events: make(chan network.Event, 1), all: make(chan struct{}), want: -1}}
			commanded := make(chan struct{})
			engine := run.New(run.Config{Network: n, Clock: &network.WallClock{}, Concurrent: concurrent, Log: func(en run.Entry) {
				if en.Kind == "send" && *en.Device == (network.EUI64{3, 7: 19}) {
					select {
					case <-commanded:
					default:
						close(commanded)
					}
				}
			}})
			for i := range 3 {
				spec := large(t, 20).Waves[0].Sessions[0]
				spec.ID = fmt.Sprintf("c%d", i)
				for d := range spec.Devices {
					spec.Devices[d].EUI = network.EUI64{byte(i + 1), 7: byte(d)}
				}
				c, err := campaign.Single(spec)
				if err != nil {
					t.Fatal(err)
				}
				if err := engine.Add(c); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			begun := time.Now()
			go func() { done <- engine.Run(ctx) }()
			<-time.After(time.Second)
			taken := make(chan time.Duration, 1)
			n.events <- network.Event{ID: "1", Kind: network.EventUplink, Device: network.EUI64{2}, At: time.Now(), FPort: 10,
				Done: func() { taken <- time.Since(begun) - time.Second }}
			event = <-taken
			<-commanded
			command = time.Since(begun)
			cancel()
			<-done
		})
		return event, command
	}
	for _, concurrent := range []bool{false, true} {
		event, command := wait(concurrent)
		t.Logf("concurrent %t: the uplink waited %s, the last command of the third campaign %s", concurrent, event, command)
		if late := event > time.Second || command > time.Second; late == concurrent {
			t.Errorf("concurrent %t: the uplink waited %s, the last command %s", concurrent, event, command)
		}
	}
}

// away is a network whose broker does not answer at first, and says so only after ten seconds.
type away struct {
	hose
	asked int
}

func (a *away) Events(ctx context.Context, app string) (<-chan network.Event, error) {
	if a.asked++; a.asked < 4 {
		<-time.After(10 * time.Second)
		return nil, fmt.Errorf("broker: %w", network.ErrUnavailable)
	}
	return a.hose.Events(ctx, app)
}

// TestBrokerIsWaitedFor starts while the broker is away: commands are sent meanwhile, events are taken when it is back.
func TestBrokerIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	synctest.Test(t, func(t *testing.T) {
		st, err := store.Open(t.Context(), path, store.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		n := &away{hose: hose{events: make(chan network.Event, 1), all: make(chan struct{}), want: 3}}
		begun := time.Now()
		r := begin(t, n, st, large(t, 3))
		<-n.all
		if d := time.Since(begun); d > time.Second {
			t.Errorf("commands waited %s for the broker", d)
		}
		taken := make(chan struct{})
		n.events <- network.Event{ID: "1", Kind: network.EventUplink, Device: device(0), At: time.Now(), FPort: 10, Done: func() { close(taken) }}
		<-taken
		if d := time.Since(begun); d != 37*time.Second { // three times ten, and the back-off of 1, 2 and 4
			t.Errorf("the event was taken after %s, want 37 s", d)
		}
		r.stop()
	})
}

// stuck is a network whose calls end only with their context.
type stuck struct{ hose }

func (s *stuck) Send(ctx context.Context, _ network.Message) (network.MessageID, error) {
	if s.sent.Add(1) == 1 {
		close(s.all)
	}
	<-ctx.Done()
	return "", ctx.Err()
}

// TestStopInterruptsCalls stops the engine while a call is under way. The call is not a failure: it may have happened.
func TestStopInterruptsCalls(t *testing.T) {
	for _, concurrent := range []bool{false, true} {
		st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "sower.db"), store.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		n := &stuck{hose{events: make(chan network.Event), all: make(chan struct{})}}
		engine := run.New(run.Config{Network: n, Clock: &network.WallClock{}, Store: st, Concurrent: concurrent})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- engine.Run(ctx) }()
		if err := engine.Create(ctx, large(t, 1), run.CampaignFile{}, "ann"); err != nil {
			t.Fatal(err)
		}
		if err := engine.Command(ctx, "large", campaign.Start{}, "ann"); err != nil {
			t.Fatal(err)
		}
		<-n.all
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("concurrent %t: Run = %v", concurrent, err)
		}
		snap, err := st.Restore(t.Context(), start)
		if err != nil {
			t.Fatal(err)
		}
		if d := snap.Campaigns[0].State.Sessions[0].Devices[0]; len(snap.Jobs) != 1 || d.Pending.Op == 0 || d.Pending.Attempts != 0 {
			t.Errorf("concurrent %t: %d jobs are left, the command of the device is %+v", concurrent, len(snap.Jobs), d.Pending)
		}
		st.Close()
	}
}
