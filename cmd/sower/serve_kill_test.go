package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/protobuf/proto"

	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/engine/network"
	shell "github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/engine/store"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/simulator/world"
	"github.com/sower-fuota/sower/simulator/world/remote"
)

// serveVariable tells the test binary to be sower serve, and with which settings; concurrentVariable, with calls of the
// network side by side.
const (
	serveVariable      = "SOWER_TEST_SERVE"
	concurrentVariable = "SOWER_TEST_SERVE_CONCURRENT"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(serveVariable); path != "" {
		if err := serveProcess(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// serveProcess is sower serve in the time of a world in another process.
func serveProcess(path string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	clock := remote.NewClock(os.Stdout)
	go func() {
		clock.Listen(os.Stdin, cancel)
		os.Exit(1) // nobody keeps the time any more
	}()
	d := daemon{clock: clock, concurrent: os.Getenv(concurrentVariable) != "", log: io.Discard, ready: func(address string) { clock.Say("up " + address) }}
	return d.run(ctx, &siteFlags{file: path})
}

// serving is sower serve in a process of its own, seen from the world.
type serving struct {
	*remote.Process
	up     chan string   // its address, when the API answers
	strike chan struct{} // closed at one of its questions about the time
}

// startServing starts sower serve; strikeAt is the number of a question from 1.
func startServing(w *world.World, settings string, concurrent bool, strikeAt int) (*serving, error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveVariable+"="+settings)
	if concurrent {
		cmd.Env = append(cmd.Env, concurrentVariable+"=1")
	}
	p := &serving{up: make(chan string, 1), strike: make(chan struct{})}
	n := 0
	var err error
	p.Process, err = remote.Start(w, "serve", cmd, func(line string) {
		if n++; n == strikeAt {
			close(p.strike)
		}
		if address, ok := strings.CutPrefix(line, "up "); ok {
			p.up <- "http://" + address
		}
	})
	return p, err
}

// plot is a campaign that sower serve is killed in.
type plot struct {
	name     string
	devices  func(i int, cfg *device.HostConfig) // changes them; may be nil
	paused   bool                                // an operator pauses it in the middle of the second window, and resumes it
	halted   bool                                // it stops before its end
	sessions int                                 // that are started
}

var plots = []plot{
	{name: "to its end", sessions: 2, paused: true},
	{name: "halted before the second wave", sessions: 1, halted: true, // no device trusts the signature
		devices: func(_ int, cfg *device.HostConfig) { cfg.ID.Keys[0].Public[0] ^= 1 }},
	{name: "halted in the second wave", sessions: 2, halted: true, // one device does not
		devices: func(i int, cfg *device.HostConfig) {
			if i == 0 {
				cfg.ID.Keys[0].Public[0] ^= 1
			}
		}},
}

// TestServeKill kills a separate process of sower serve, while it works against a network server over gRPC and MQTT and
// devices run the device library. Time stands still while there is no daemon. In virtual time, in which the world waits
// for each call of the daemon, all that is done and logged is the same as without kills.
//
// Kills are aimed at the gaps between intent, call, answer and commit of each effect until three have fallen into each;
// and come at random instants of real time: half of them at any time after the start of the process, start-up included,
// half within milliseconds of something that the engine does. There are 200 of these, and 100 more with calls side by
// side, as in production, and a world that waits for nothing and is a thousand times as fast as the wall clock: there a
// call takes seconds, and how much parity is needed depends on when it was made. That is with SOWER_PROOF=1; without, two
// campaigns are killed in.
func TestServeKill(t *testing.T) {
	if os.Getenv("SOWER_PROOF") == "" {
		covered := coverage{}
		for i, k := range []killing{{aimed: 1, seed: 1}, {random: 2, seed: 2}} {
			clean := spared(t, plots[i], false)
			r := serveKilled(t, plots[i], k, covered)
			r.compare(t, plots[i], clean, false)
			t.Logf("%s: %d kills", plots[i].name, r.kills)
		}
		if text := missing(covered, map[string]bool{"send": true, "broadcast": true}, 1); text != "" {
			t.Errorf("no kill fell into these gaps: %s", text)
		}
		t.Logf("where kills found effects: %s", covered)
		return
	}
	t.Run("virtual time", func(t *testing.T) { killServe(t, killing{random: 200, aimed: 3}) })
	t.Run("side by side", func(t *testing.T) { killServe(t, killing{random: 100, concurrent: true}) })
}

// killing says how often and how sower serve is killed.
type killing struct {
	random     int  // at random instants
	aimed      int  // in each gap
	concurrent bool // calls of the network side by side
	seed       uint64
}

func killServe(t *testing.T, k killing) {
	covered := coverage{}
	kills, under, early, doubles, unknown := 0, 0, 0, 0, 0
	count := func(p plot, clean killedRun, k killing) killedRun {
		r := serveKilled(t, p, k, covered)
		r.compare(t, p, clean, k.concurrent)
		kills, under, early, doubles, unknown = kills+r.kills, under+r.under, early+r.early, doubles+r.doubles, unknown+r.unknown
		t.Logf("%s: %d kills, %d with effects under way, %d before the API answered: %d fragments and %d unicast messages queued twice; %d entries logged, without kills %d",
			p.name, r.kills, r.under, r.early, r.doubles, r.unknown, len(r.story), len(clean.story))
		return r
	}
	share := (k.random + len(plots) - 1) / len(plots)
	for _, p := range plots {
		clean := spared(t, p, k.concurrent)
		for seed := uint64(1); missing(covered, clean.effects, k.aimed) != "" && seed < 20; seed++ {
			count(p, clean, killing{aimed: k.aimed, seed: seed})
		}
		if text := missing(covered, clean.effects, k.aimed); text != "" {
			t.Errorf("no kill fell into these gaps: %s", text)
		}
		for seed, left := uint64(100), share; left > 0; seed++ {
			n := count(p, clean, killing{random: left, concurrent: k.concurrent, seed: seed}).kills
			if left -= n; n == 0 && seed > 200 {
				t.Fatalf("%s: 100 campaigns ended before a kill", p.name)
			}
		}
	}
	t.Logf("in all %d kills, %d with effects under way, %d before the API answered: %d fragments and %d unicast messages queued twice; where they found effects: %s",
		kills, under, early, doubles, unknown, covered)
}

// spared is a run without kills.
func spared(t *testing.T, p plot, concurrent bool) killedRun {
	t.Helper()
	r := serveKilled(t, p, killing{concurrent: concurrent, seed: 1}, coverage{})
	if r.kills > 0 {
		t.Fatalf("%s: %d kills where there should be none", p.name, r.kills)
	}
	return r
}

// missing names the gaps of effects into which fewer kills than wanted fell.
func missing(c coverage, of map[string]bool, want int) string {
	var out []string
	for _, e := range effects {
		for g := range gaps {
			if of[e] && want > 0 && !c.has(e, g, want) {
				out = append(out, e+": "+gapNames[g])
			}
		}
	}
	return strings.Join(out, "; ")
}

// killedRun is what came of a campaign.
type killedRun struct {
	kills     int
	under     int             // of them with effects that may have happened
	early     int             // of them before the API answered
	effects   map[string]bool // that were carried out
	fragments []string        // session and number, in the order of their frame counters
	doubles   int             // fragments that were sent twice
	unknown   int             // unicast messages that the engine does not know
	unsent    []string        // of those that hold data
	outcome   []string        // phases, waves, halts and decisions
	devices   []string        // versions and stages
	story     []string        // the log without what may differ
}

// compare holds a run against one without kills.
func (r killedRun) compare(t *testing.T, p plot, clean killedRun, concurrent bool) {
	t.Helper()
	if r.doubles+r.unknown > r.kills {
		t.Errorf("%s: %d fragments and %d unicast messages were queued twice by %d kills", p.name, r.doubles, r.unknown, r.kills)
	}
	if !slices.Equal(r.outcome, clean.outcome) {
		t.Errorf("%s: outcome %v, without kills %v", p.name, r.outcome, clean.outcome)
	}
	if concurrent {
		if len(r.unsent) > 0 && !p.halted {
			t.Errorf("%s: these fragments were never sent: %v", p.name, r.unsent)
		}
		return // the rest depends on how long calls took
	}
	if !slices.Equal(r.fragments, clean.fragments) {
		t.Errorf("%s: fragments sent, by session:\n%v\nwithout kills\n%v", p.name, r.fragments, clean.fragments)
	}
	if !slices.Equal(r.devices, clean.devices) {
		t.Errorf("%s: devices %v, without kills %v", p.name, r.devices, clean.devices)
	}
	for i := range max(len(r.story), len(clean.story)) {
		if line(r.story, i) != line(clean.story, i) {
			t.Errorf("%s: entry %d of the log is\n%s\nwithout kills it is\n%s", p.name, i, line(r.story, i), line(clean.story, i))
			break
		}
	}
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

// operator gives orders: each is repeated until sower serve has taken it, and time stands still meanwhile. In the middle
// of the second group he pauses the campaign, and resumes it ten minutes later.
type operator struct {
	world   *world.World
	address atomic.Value // of sower serve, a string; empty: it is away
	broken  chan struct{}

	mu     sync.Mutex
	groups []string
	done   bool
}

// sent is told of fragments that the server has taken.
func (o *operator) sent(effect, target string, answer []byte) {
	var m api.EnqueueMulticastGroupQueueItemResponse
	if effect != "broadcast" || proto.Unmarshal(answer, &m) != nil {
		return
	}
	group, _, _ := strings.Cut(target, " ")
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Contains(o.groups, group) {
		o.groups = append(o.groups, group)
	}
	if o.done || len(o.groups) < 2 || m.GetFCnt() != 20 {
		return
	}
	o.done = true
	o.world.After(700*time.Millisecond, "pause", func() { o.order("pause", "field", "--reason", "test") })
	o.world.After(10*time.Minute, "resume", func() { o.order("resume", "field") })
}

func (o *operator) order(args ...string) {
	release := o.world.Hold("order")
	go func() {
		defer release()
		again := time.NewTicker(5 * time.Millisecond)
		defer again.Stop()
		for {
			if address, _ := o.address.Load().(string); address != "" {
				if _, _, err := verb(newCampaignCommand(), append(args, "--server", address)...); err == nil {
					return
				}
			}
			select {
			case <-again.C:
			case <-o.broken:
				return
			}
		}
	}()
}

func serveKilled(t *testing.T, p plot, k killing, covered coverage) killedRun {
	t.Helper()
	f := sowWith(t, 4, p.devices)
	f.login(t)
	path := f.write(t, "field.toml", fmt.Sprintf(fieldCampaign, meters, ""))
	wire := newWire(t, f.server.GRPCAddress(), f.file("sower.db"))
	wire.covered = covered
	f.settings(t, wire.address)
	var failure atomic.Pointer[string]
	fail := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		failure.CompareAndSwap(nil, &text)
	}
	finished, broken := make(chan struct{}), make(chan struct{})
	result := killedRun{effects: map[string]bool{}}
	op := &operator{world: f.world, broken: broken}
	var mu sync.Mutex
	wire.passed = func(effect, target string, answer []byte) {
		if effect == "" {
			return
		}
		mu.Lock()
		result.effects[effect] = true
		mu.Unlock()
		if p.paused {
			op.sent(effect, target, answer)
		}
	}
	hold := f.world.Hold("start")
	go func() {
		defer close(finished)
		defer f.world.Stop()
		rng := rand.New(rand.NewPCG(k.seed, 7))
		for created := false; ; {
			wire.born()
			s, err := startServing(f.world, f.file("sower.toml"), k.concurrent, 1+rng.IntN(400))
			if err != nil {
				fail("%v", err)
				hold()
				return
			}
			begun := time.Now()
			var kill <-chan time.Time
			var strike <-chan struct{}
			arm := func() {
				switch {
				case k.aimed > 0:
					wire.aim(k.aimed)
				case result.kills >= k.random:
				case result.kills%2 == 0:
					kill = time.After(time.Duration(rng.Int64N(int64(700 * time.Millisecond))))
				default:
					strike = s.strike
				}
			}
			if created {
				arm()
			}
			ended := make(chan error, 1)
			up := false
			watching, unwatch := context.WithCancel(context.Background()) // the next daemon has another address
			watch := func() {
				_, _, err := verbUntil(watching, newCampaignCommand(), "watch", "field", "--server", op.address.Load().(string))
				ended <- err
			}
			stop := false
			die := func() {
				hold = both(hold, f.world.Hold("restart"))
				op.address.Store("")
				result.kills++
				s.Kill()
			}
		life:
			for {
				select {
				case address := <-s.up:
					up = true
					op.address.Store(address)
					if !created {
						if out, _, err := verb(newCampaignCommand(), "create", path, "--server", address); err != nil {
							fail("campaign create: %v %s", err, out)
						}
						created = true
						arm()
						op.order("start", "field")
					}
					go watch()
					hold()
				case <-kill:
					die()
					break life
				case <-strike:
					<-time.After(time.Duration(rng.Int64N(int64(4 * time.Millisecond))))
					die()
					break life
				case <-wire.strike:
					die()
					break life
				case err := <-ended:
					// Any other error comes of the kill.
					halted := err != nil && strings.Contains(err.Error(), "stopped before its end")
					if halted && !p.halted {
						fail("%v", err)
					}
					if stop = err == nil || halted; stop {
						hold()
						s.Stop()
						break life
					}
					t.Logf("watch: %v", err)
					go watch()
				case <-s.Gone():
					fail("sower serve ended by itself after %s", time.Since(begun))
					break life
				case <-broken:
					s.Quit()
					break life
				}
			}
			complaint, err := s.Wait()
			unwatch()
			select {
			case <-broken:
				t.Logf("sower serve was doing: %s", complaint)
			default:
				if complaint != "" {
					fail("sower serve: %s", complaint)
				}
			}
			if stop && err != nil {
				fail("sower serve: %v", err)
			}
			if stop || failure.Load() != nil {
				hold()
				return
			}
			if !up {
				result.early++
			}
			n, err := wire.died()
			if err != nil {
				fail("%v", err)
			}
			if n > 0 {
				result.under++
			}
		}
	}()
	step := 400 * time.Hour
	if k.concurrent {
		step = time.Second
	}
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	var err error
	for end := f.world.Now().Add(400 * time.Hour); err == nil && f.world.Now().Before(end); {
		<-pace.C
		err = f.world.Run(t.Context(), f.world.Now().Add(step))
	}
	if err != nil && !errors.Is(err, world.ErrStopped) {
		fail("world: %v", err)
	} else if err == nil {
		fail("the campaign has not ended")
	}
	close(broken)
	<-finished
	if text := failure.Load(); text != nil {
		t.Fatalf("%s: %s", p.name, *text)
	}
	for _, text := range wire.broken {
		t.Errorf("%s: %s", p.name, text)
	}
	for i, h := range f.hosts {
		raw, err := h.SlotA(16 << 10)
		if err != nil {
			t.Fatal(err)
		}
		im, err := mcuboot.Parse(raw)
		if err != nil || im.Minor != 1 && !p.halted {
			t.Errorf("device %d runs %d.%d, %v", i, im.Major, im.Minor, err)
		}
		result.devices = append(result.devices, fmt.Sprintf("device %d runs %d.%d", i, im.Major, im.Minor))
	}
	judgeKilled(t, p, f.file("sower.db"), &result)
	return result
}

func both(a, b func()) func() {
	return func() { a(); b() }
}

// judgeKilled reads the log of a campaign.
func judgeKilled(t *testing.T, p plot, database string, r *killedRun) {
	t.Helper()
	st, err := store.Open(t.Context(), database, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	log, err := st.Entries(t.Context(), "field", nil, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
	known := map[network.MessageID]bool{}
	counters, prepared := map[string]uint32{}, map[string]int{}
	seen, stages := map[string]bool{}, map[string]string{}
	for _, en := range log {
		switch {
		case en.Kind == "send":
			known[en.Message] = true
		case en.Kind == "sent" && en.Message != "" && !known[en.Message]:
			r.unknown++
		case en.Kind == "broadcast":
			if *en.FCnt != counters[en.Session] {
				t.Errorf("session %s: frame counter %d, want %d", en.Session, *en.FCnt, counters[en.Session])
			}
			counters[en.Session]++
			if en.N > 0 {
				f := fmt.Sprintf("%s/%d", en.Session, en.N)
				if seen[f] {
					r.doubles++
				}
				seen[f] = true
				r.fragments = append(r.fragments, f)
			}
		case en.Kind == "phase" && en.Text == "prepare":
			if prepared[en.Session]++; prepared[en.Session] > 1 {
				t.Errorf("session %s was started twice", en.Session)
			}
		case en.Kind == "stage" && en.Device != nil:
			stages[en.Session+" "+en.Device.String()] = en.Stage
		}
		if en.Session == "" && (en.Kind == "wave" || en.Kind == "wave-done" || en.Kind == "phase" || en.Kind == "halt" || en.Kind == "finish") {
			r.outcome = append(r.outcome, en.Kind+" "+en.Text)
		}
	}
	if len(prepared) != p.sessions {
		t.Errorf("%s: %d sessions were started, want %d", p.name, len(prepared), p.sessions)
	}
	for _, d := range slices.Sorted(maps.Keys(stages)) {
		if stages[d] != session.StageUpdated.String() && !p.halted {
			t.Errorf("device %s is %s", d, stages[d])
		}
		r.devices = append(r.devices, d+" "+stages[d])
	}
	audit, err := st.Audit(t.Context(), 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range audit {
		if a.Campaign != "" {
			r.outcome = append(r.outcome, a.By+" "+a.Action+" "+a.Text)
		}
	}
	stored, err := st.Campaign(t.Context(), "field")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range stored.Spec.Waves {
		for _, ss := range w.Sessions {
			for n := range ss.Plan.M {
				if f := fmt.Sprintf("%s/%d", ss.ID, n+1); !seen[f] {
					r.unsent = append(r.unsent, f)
				}
			}
		}
	}
	r.story = story(log)
}

// story is a log without what may differ: when, by which number, what was tried again, and in which order different
// devices were served. So it is ordered by session and device, and of each in the order of the log.
func story(log []shell.Entry) (out []string) {
	type lane struct{ session, device string }
	lanes := map[lane][]string{}
	for _, en := range log {
		if en.Kind == "retry" {
			continue
		}
		en.Seq, en.Time, en.At, en.Message = 0, time.Time{}, time.Time{}, ""
		text, err := json.Marshal(en)
		if err != nil {
			panic(err)
		}
		l := lane{session: en.Session}
		if en.Device != nil {
			l = lane{device: en.Device.String()} // what it says has no session
		}
		lanes[l] = append(lanes[l], string(text))
	}
	for _, l := range slices.SortedFunc(maps.Keys(lanes), func(a, b lane) int { return cmp.Or(cmp.Compare(a.session, b.session), cmp.Compare(a.device, b.device)) }) {
		out = append(out, lanes[l]...)
	}
	return out
}
