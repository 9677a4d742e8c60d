package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/engine/store"
	"github.com/sower-fuota/sower/simulator/world"
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
	clock := &pipeClock{answers: make(chan string), wakes: map[string]chan struct{}{}}
	go clock.listen(cancel)
	d := daemon{clock: clock, concurrent: os.Getenv(concurrentVariable) != "", log: io.Discard, ready: func(address string) { clock.say("up " + address) }}
	return d.run(ctx, &siteFlags{file: path})
}

// pipeClock is the clock of a world in another process, by lines on standard input and output.
type pipeClock struct {
	mu      sync.Mutex
	answers chan string

	wakeMu sync.Mutex
	wakes  map[string]chan struct{}
	next   int
}

// listen takes the lines of the other process. It stops the daemon when it is told to.
func (c *pipeClock) listen(cancel func()) {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		id, woken := strings.CutPrefix(in.Text(), "woken ")
		switch {
		case woken:
			c.wakeMu.Lock()
			if ch := c.wakes[id]; ch != nil {
				close(ch)
				delete(c.wakes, id)
			}
			c.wakeMu.Unlock()
		case in.Text() == "stop":
			cancel()
		default:
			c.answers <- in.Text()
		}
	}
	os.Exit(1) // nobody keeps the time any more
}

// say sends a line.
func (c *pipeClock) say(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Println(line)
}

// ask sends a line and returns the answer.
func (c *pipeClock) ask(line string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Println(line)
	return <-c.answers
}

func (c *pipeClock) Now() time.Time {
	n, err := strconv.ParseInt(c.ask("now"), 10, 64)
	if err != nil {
		panic(err) // a mistake in this file
	}
	return time.Unix(0, n).UTC()
}

func (c *pipeClock) WakeAt(t time.Time) <-chan struct{} {
	ch := make(chan struct{})
	c.wakeMu.Lock()
	c.next++
	id := strconv.Itoa(c.next)
	clear(c.wakes) // replaced
	c.wakes[id] = ch
	c.wakeMu.Unlock()
	n := int64(0)
	if !t.IsZero() {
		n = t.UnixNano()
	}
	c.ask(fmt.Sprintf("wake %s %d", id, n))
	return ch
}

// serving is sower serve in a process of its own, seen from the world.
type serving struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	clock *world.Clock
	up    chan string   // its address, when the API answers
	gone  chan struct{} // closed when it says nothing more

	strikeAt int           // at which of its questions about the time
	strike   chan struct{} // is closed

	errs bytes.Buffer
}

func startServing(w *world.World, settings string, concurrent bool, strikeAt int) (*serving, error) {
	p := &serving{cmd: exec.Command(os.Args[0]), clock: w.NewClock("serve"), up: make(chan string, 1), gone: make(chan struct{}),
		strikeAt: strikeAt, strike: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), serveVariable+"="+settings)
	if concurrent {
		p.cmd.Env = append(p.cmd.Env, concurrentVariable+"=1")
	}
	p.cmd.Stderr = &p.errs
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.listen(out)
	return p, nil
}

// listen answers the process as the world's clock.
func (p *serving) listen(out io.Reader) {
	defer close(p.gone)
	var mu sync.Mutex // lines must not mix
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(p.in, format+"\n", args...) // a process that was killed does not answer
	}
	replaced := make(chan struct{})
	lines := bufio.NewScanner(out)
	for n := 1; lines.Scan(); n++ {
		if n == p.strikeAt {
			close(p.strike)
		}
		words := strings.Fields(lines.Text())
		switch words[0] {
		case "now":
			say("%d", p.clock.Now().UnixNano())
		case "wake":
			close(replaced)
			replaced = make(chan struct{})
			n, _ := strconv.ParseInt(words[2], 10, 64)
			var at time.Time
			if n != 0 {
				at = time.Unix(0, n)
			}
			ch, gone := p.clock.WakeAt(at), replaced
			say("ok")
			go func() {
				select {
				case <-ch:
					say("woken %s", words[1])
				case <-gone:
				}
			}()
		case "up":
			p.up <- "http://" + words[1]
		}
	}
	close(replaced)
}

// TestServeKill kills a separate process of sower serve at random instants of real time, while it works against a
// network server over gRPC and MQTT and devices run the device library. Half of the kills come at any time after the
// start of the process, start-up included, half within milliseconds of something that the engine does. Time stands
// still while there is no daemon.
//
// In virtual time, in which the world waits for each call of the daemon, what is sent is fragment by fragment the same
// as without kills: 5 kills, or 200 with SOWER_PROOF=1. Then 100 more come with calls side by side, as in production,
// and a world that waits for nothing and is a thousand times as fast as the wall clock: there a call takes seconds, and
// how much parity is needed depends on when it was made.
func TestServeKill(t *testing.T) {
	if os.Getenv("SOWER_PROOF") == "" {
		killServe(t, false, 5)
		return
	}
	t.Run("virtual time", func(t *testing.T) { killServe(t, false, 200) })
	t.Run("side by side", func(t *testing.T) { killServe(t, true, 100) })
}

func killServe(t *testing.T, concurrent bool, kills int) {
	clean := serveKilled(t, concurrent, 0, 1)
	total := killedRun{}
	for seed := uint64(1); kills > 0; seed++ {
		r := serveKilled(t, concurrent, kills, seed)
		if r.kills == 0 {
			t.Fatal("the campaign ended before the first kill")
		}
		kills -= r.kills
		if r.doubles+r.unknown > r.kills {
			t.Errorf("%d fragments and %d unicast messages were queued twice by %d kills", r.doubles, r.unknown, r.kills)
		}
		got, want := r.fragments, clean.fragments
		if concurrent {
			got, want = data(got), data(want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("fragments sent, by session:\n%v\nwithout kills\n%v", got, want)
		}
		if !slices.Equal(r.outcome, clean.outcome) {
			t.Errorf("outcome %v, without kills %v", r.outcome, clean.outcome)
		}
		total.kills += r.kills
		total.gaps += r.gaps
		total.early += r.early
		total.doubles += r.doubles
		total.unknown += r.unknown
		total.fragments = append(total.fragments, r.fragments...)
		t.Logf("%d kills, %d of them with effects under way, %d before the API answered: %d fragments and %d unicast messages queued twice, %d fragments sent (without kills %d)",
			r.kills, r.gaps, r.early, r.doubles, r.unknown, len(r.fragments), len(clean.fragments))
	}
	t.Logf("in all %d kills, %d of them with effects under way, %d before the API answered: %d fragments of %d and %d unicast messages queued twice",
		total.kills, total.gaps, total.early, total.doubles, len(total.fragments), total.unknown)
}

// data returns the fragments that are not parity: those numbered without a gap from the first of their session.
func data(fragments []string) (out []string) {
	last := map[string]int{}
	for _, f := range fragments {
		session, text, _ := strings.Cut(f, "/")
		if n, err := strconv.Atoi(text); err == nil && n == last[session]+1 {
			last[session] = n
			out = append(out, f)
		}
	}
	return out
}

// killedRun is what came of a campaign.
type killedRun struct {
	kills     int
	gaps      int      // of them with effects that may have happened
	early     int      // of them before the API answered
	fragments []string // session and number, in the order of their frame counters
	doubles   int      // fragments that were sent twice
	unknown   int      // unicast messages that the engine does not know
	outcome   []string // stages of the devices, phases of the sessions, end of the campaign
}

func serveKilled(t *testing.T, concurrent bool, kills int, seed uint64) killedRun {
	t.Helper()
	f := sow(t, 4)
	f.world.StallAfter = 30 * time.Second
	f.login(t)
	path := f.write(t, "field.toml", fmt.Sprintf(fieldCampaign, meters, ""))
	var failure atomic.Pointer[string]
	fail := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		failure.CompareAndSwap(nil, &text)
	}
	var result killedRun
	hold := f.world.Hold("start")
	finished, broken := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		defer f.world.Stop()
		rng := rand.New(rand.NewPCG(seed, 7))
		for created := false; ; {
			p, err := startServing(f.world, f.file("sower.toml"), concurrent, 1+rng.IntN(400))
			if err != nil {
				fail("%v", err)
				hold()
				return
			}
			begun := time.Now()
			var kill <-chan time.Time
			var strike <-chan struct{}
			if result.kills < kills && created {
				if result.kills%2 == 0 {
					kill = time.After(time.Duration(rng.Int64N(int64(700 * time.Millisecond))))
				} else {
					strike = p.strike
				}
			}
			ended := make(chan error, 1)
			up := false
			watch := func(address string) {
				_, _, err := verb(newCampaignCommand(), "watch", "field", "--server", address)
				ended <- err
			}
			stop := false
		life:
			for {
				select {
				case address := <-p.up:
					up = true
					if !created {
						for _, args := range [][]string{{"create", path}, {"start", "field"}} {
							if out, _, err := verb(newCampaignCommand(), append(args, "--server", address)...); err != nil {
								fail("campaign %v: %v %s", args, err, out)
							}
						}
						created = true
						if kills > 0 {
							strike = p.strike
						}
					}
					go watch(address)
					hold()
				case <-kill:
					hold = both(hold, f.world.Hold("restart"))
					result.kills++
					p.cmd.Process.Kill()
					break life
				case <-strike:
					<-time.After(time.Duration(rng.Int64N(int64(4 * time.Millisecond))))
					hold = both(hold, f.world.Hold("restart"))
					result.kills++
					p.cmd.Process.Kill()
					break life
				case err := <-ended:
					// Any other error comes of the kill.
					halted := err != nil && strings.Contains(err.Error(), "stopped before its end")
					if halted {
						fail("%v", err)
					}
					if stop = err == nil || halted; stop {
						hold()
						fmt.Fprintln(p.in, "stop")
						break life
					}
				case <-p.gone:
					fail("sower serve ended by itself after %s", time.Since(begun))
					break life
				case <-broken:
					p.cmd.Process.Kill()
					break life
				}
			}
			<-p.gone
			err = p.cmd.Wait()
			p.clock.Close()
			if p.errs.Len() > 0 {
				fail("sower serve: %s", p.errs.String())
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
			n, err := unfinished(f.file("sower.db"))
			if err != nil {
				fail("%v", err)
			}
			if n > 0 {
				result.gaps++
			}
		}
	}()
	step := 400 * time.Hour
	if concurrent {
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
		t.Fatal(*text)
	}
	for i, h := range f.hosts {
		raw, err := h.SlotA(16 << 10)
		if err != nil {
			t.Fatal(err)
		}
		if im, err := mcuboot.Parse(raw); err != nil || im.Minor != 1 {
			t.Errorf("device %d runs %d.%d, %v", i, im.Major, im.Minor, err)
		}
	}
	judgeKilled(t, f.file("sower.db"), &result)
	return result
}

func both(a, b func()) func() {
	return func() { a(); b() }
}

// unfinished counts the effects that a database holds.
func unfinished(path string) (n int, err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	return n, db.QueryRow("select count(*) from jobs").Scan(&n)
}

// judgeKilled reads the log of a campaign.
func judgeKilled(t *testing.T, database string, r *killedRun) {
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
	}
	if len(stages) != 4 || len(prepared) != 2 {
		t.Errorf("%d devices in %d sessions, want 4 in 2", len(stages), len(prepared))
	}
	for d, stage := range stages {
		if stage != session.StageUpdated.String() {
			t.Errorf("device %s is %s", d, stage)
		}
		r.outcome = append(r.outcome, d+" "+stage)
	}
	slices.Sort(r.outcome)
	for _, en := range log {
		if en.Session == "" && (en.Kind == "wave" || en.Kind == "wave-done" || en.Kind == "phase" || en.Kind == "finish") {
			r.outcome = append(r.outcome, en.Kind+" "+en.Text)
		}
	}
}
