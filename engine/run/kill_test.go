package run_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/engine/store"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/model"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
	"github.com/sower-fuota/sower/simulator/world/remote"
)

// processVariable tells the test binary to be an engine, and which.
const processVariable = "SOWER_TEST_ENGINE"

func TestMain(m *testing.M) {
	if text := os.Getenv(processVariable); text != "" {
		if err := engineProcess(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// orders is what an engine process is told.
type processOrders struct {
	Database, Block, Server, Broker, Token, Application string
}

// processSpec is the campaign of the processes: two waves of two devices.
func processSpec(block []byte, application string) (campaign.Spec, error) {
	p, err := plan.Make(plan.Input{Block: block, Region: airtime.EU868, DataRate: 5, Devices: 2, Gateways: 1, Matrix: fragmentation.V2})
	if err != nil {
		return campaign.Spec{}, err
	}
	spec := campaign.Spec{ID: "kill", Application: application}
	for wave := range 2 {
		s := session.Spec{ID: fmt.Sprintf("kill-%d", wave), Application: application, Block: block, Target: newVersion, Plan: p,
			Gateways: []network.EUI64{processGateway}, McAddr: uint32(0x01000000 + wave), McKey: network.Key{byte(wave + 1)},
			Capabilities: network.Capabilities{ReportsSent: true}, Timing: session.Timing{UplinkInterval: 2 * time.Minute}}
		for i := range 2 {
			s.Devices = append(s.Devices, session.Target{EUI: processDevice(wave, i)})
		}
		spec.Waves = append(spec.Waves, campaign.Wave{Name: s.ID, Sessions: []session.Spec{s}})
	}
	return spec, nil
}

var processGateway = network.EUI64{0xaa, 7: 1}

func processDevice(wave, i int) network.EUI64 {
	return network.EUI64{0x70, 0xb3, 0xd5, 0x7e, 0xd0, 6: byte(wave), 7: byte(i + 1)}
}

// engineProcess is the main function of an engine: it works until its standard input ends.
func engineProcess(text string) error {
	var o processOrders
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	block, err := os.ReadFile(o.Block)
	if err != nil {
		return err
	}
	spec, err := processSpec(block, o.Application)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	st, err := store.Open(ctx, o.Database, store.Options{})
	if err != nil {
		return err
	}
	defer st.Close()
	nw, err := chirpstack.Dial(chirpstack.Config{Server: o.Server, Token: o.Token, Region: airtime.EU868, MQTT: "mqtt://" + o.Broker, Timeout: time.Minute})
	if err != nil {
		return err
	}
	defer nw.Close()
	clock := remote.NewClock(os.Stdout)
	go func() {
		clock.Listen(os.Stdin, cancel)
		os.Exit(1) // nobody keeps the time any more
	}()
	ended := sync.OnceFunc(func() { clock.Say("ended") })
	engine := run.New(run.Config{Network: &calling{nw, clock}, Clock: clock, Store: telling{st, clock}, Progress: func(c *campaign.Campaign) {
		if c.Ended() {
			ended()
		}
	}})
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	var phase campaign.Phase
	known := false
	err = engine.View(ctx, func(cs []*campaign.Campaign) {
		if known = len(cs) > 0; known {
			phase = cs[0].Header().Phase
		}
	})
	if list, listErr := st.Campaigns(ctx, store.Filter{}, 0, 1); err == nil && listErr == nil && len(list) == 1 && list[0].Left {
		known, phase = true, campaign.PhaseEnded // in the life before
	}
	if err == nil && !known {
		err = engine.Create(ctx, spec, run.CampaignFile{}, "ann")
	}
	if err == nil && phase == campaign.PhaseDraft {
		err = engine.Command(ctx, "kill", campaign.Start{}, "bob")
	}
	clock.Say("up")
	if phase == campaign.PhaseEnded {
		ended()
	}
	if e := <-done; !errors.Is(e, context.Canceled) {
		return e
	}
	if errors.Is(err, run.ErrStopped) {
		return nil
	}
	return err
}

// telling is a store that tells the other process what was found unfinished.
type telling struct {
	run.Store
	clock *remote.Clock
}

func (s telling) Restore(ctx context.Context, now time.Time) (run.Snapshot, error) {
	snap, err := s.Store.Restore(ctx, now)
	if err == nil && len(snap.Jobs) > 0 {
		s.clock.Say("unfinished")
	}
	return snap, err
}

// calling is a network that tells the other process before each call that changes something.
type calling struct {
	*chirpstack.Network
	clock *remote.Clock
}

func (n *calling) Send(ctx context.Context, m network.Message) (network.MessageID, error) {
	n.clock.Say("call")
	return n.Network.Send(ctx, m)
}

func (n *calling) Broadcast(ctx context.Context, b network.Broadcast) (uint32, error) {
	n.clock.Say("call")
	return n.Network.Broadcast(ctx, b)
}

func (n *calling) OpenGroup(ctx context.Context, g network.Group) (network.GroupID, error) {
	n.clock.Say("call")
	return n.Network.OpenGroup(ctx, g)
}

func (n *calling) CloseGroup(ctx context.Context, id network.GroupID) error {
	n.clock.Say("call")
	return n.Network.CloseGroup(ctx, id)
}

// process is an engine in a process of its own, seen from the world.
type process struct {
	*remote.Process
	up     chan struct{} // closed when it has restored its state and takes events
	ended  chan struct{} // closed when its campaign has ended
	strike chan struct{} // closed at one of its calls of the network

	unfinished bool // it has found effects that may have happened
}

// startProcess starts an engine; strikeAt is the number of a call from 1.
func startProcess(w *world.World, o processOrders, strikeAt int) (*process, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processVariable+"="+string(text))
	p := &process{up: make(chan struct{}), ended: make(chan struct{}), strike: make(chan struct{})}
	calls := 0
	p.Process, err = remote.Start(w, "engine", cmd, func(line string) {
		switch line {
		case "call":
			if calls++; calls == strikeAt {
				close(p.strike)
			}
		case "unfinished":
			p.unfinished = true
		case "up":
			close(p.up)
		case "ended":
			close(p.ended)
		}
	})
	return p, err
}

// TestKill kills a separate engine process at random instants of real time, while it works against a network server
// over gRPC and MQTT in virtual time: 5 times, or at least 200 times with SOWER_PROOF=1.
func TestKill(t *testing.T) {
	kills := 5
	if os.Getenv("SOWER_PROOF") != "" {
		kills = 200
	}
	begun := time.Now()
	clean := runProcesses(t, 0, time.Second, 1)
	within := min(time.Since(begun), 600*time.Millisecond)
	for seed := uint64(1); kills > 0; seed++ {
		r := runProcesses(t, kills, within, seed)
		if r.kills == 0 && seed > 400 {
			t.Fatal("campaigns end before the first kill")
		}
		kills -= r.kills
		if r.doubles+r.unknown > r.kills {
			t.Errorf("%d fragments and %d unicast messages were queued twice by %d kills", r.doubles, r.unknown, r.kills)
		}
		if got, want := strings.Join(r.fragments, " "), strings.Join(clean.fragments, " "); got != want {
			t.Errorf("fragments sent, by session:\n%s\nwithout kills\n%s", got, want)
		}
		for i := range max(len(r.log), len(clean.log)) {
			if at(r.log, i) != at(clean.log, i) {
				t.Errorf("entry %d of the log is\n%s\nwithout kills it is\n%s", i, at(r.log, i), at(clean.log, i))
				break
			}
		}
		t.Logf("%d kills, %d of them between an intent and its result: %d fragments and %d unicast messages queued twice; %d entries in the log, without kills %d",
			r.kills, r.gaps, r.doubles, r.unknown, len(r.log), len(clean.log))
	}
}

// processRun is what came of a campaign of processes.
type processRun struct {
	kills     int
	gaps      int      // of them between an intent and the commit of its result
	fragments []string // session and number, in the order of their frame counters
	doubles   int      // fragments that were sent twice
	unknown   int      // unicast messages that the engine does not know
	log       []string
}

// runProcesses runs a campaign with so many kills at most, half of them within that time after the start of a process.
func runProcesses(t *testing.T, kills int, within time.Duration, seed uint64) processRun {
	t.Helper()
	dir := t.TempDir()
	w := world.New(start)
	server, closeAll := processWorld(t, w)
	defer closeAll()
	o := processOrders{Database: filepath.Join(dir, "sower.db"), Block: filepath.Join(dir, "block"), Server: server.GRPCAddress(),
		Broker: server.MQTTAddress(), Token: "token", Application: networkserver.UUID(1, "application")}
	if err := os.WriteFile(o.Block, small, 0o600); err != nil {
		t.Fatal(err)
	}
	var result processRun
	var failure atomic.Pointer[string]
	fail := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		failure.CompareAndSwap(nil, &text)
	}
	rng := rand.New(rand.NewPCG(seed, 7))
	hold := w.Hold("start")
	finished, broken := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		defer w.Stop()
		for {
			// Half of the kills come at a random time, half within milliseconds of a call of the network.
			p, err := startProcess(w, o, 1+rng.IntN(8))
			if err != nil {
				fail("%v", err)
				hold()
				return
			}
			release := hold
			stop := make(chan struct{})
			go func() {
				select {
				case <-p.up:
				case <-stop:
				}
				release()
			}()
			var kill <-chan time.Time
			var strike <-chan struct{}
			switch later := rng.Int64N(int64(within)); {
			case result.kills >= kills:
			case result.kills%2 == 0:
				kill = time.After(time.Duration(later))
			default:
				strike = p.strike
			}
			killed := func() {
				hold = w.Hold("restart")
				result.kills++
				p.Kill()
			}
			select {
			case <-kill:
				killed()
			case <-strike:
				<-time.After(time.Duration(rng.Int64N(int64(4 * time.Millisecond))))
				killed()
			case <-p.ended:
				hold = func() {}
				calm := make(chan struct{})
				w.After(time.Hour, "calm", func() { close(calm) })
				select {
				case <-calm:
				case <-broken:
				}
				p.Stop()
			case <-p.Gone():
				hold = w.Hold("restart")
			case <-broken:
				hold = func() {}
				p.Kill()
			}
			complaint, err := p.Wait()
			close(stop)
			if p.unfinished {
				result.gaps++
			}
			if complaint != "" {
				fail("engine process: %s", complaint)
			}
			if err == nil || failure.Load() != nil {
				hold()
				return
			}
		}
	}()
	err := w.Run(t.Context(), start.Add(100*time.Hour))
	if err != nil && !errors.Is(err, world.ErrStopped) {
		fail("world: %v", err)
	}
	close(broken)
	<-finished
	if text := failure.Load(); text != nil {
		t.Fatal(*text)
	}
	return judgeProcesses(t, o.Database, result)
}

// judgeProcesses reads the log of a campaign.
func judgeProcesses(t *testing.T, database string, r processRun) processRun {
	t.Helper()
	st, err := store.Open(t.Context(), database, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	log, err := st.Entries(t.Context(), "kill", nil, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}
	known := map[network.MessageID]bool{}
	counters, seen, prepared, updated := map[string]uint32{}, map[string]bool{}, map[string]int{}, 0
	for _, en := range log {
		switch {
		case en.Kind == "send":
			known[en.Message] = true
		case en.Kind == "sent" && !known[en.Message]:
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
		case en.Kind == "stage" && en.Stage == session.StageUpdated.String():
			updated++
		}
	}
	if updated != 4 {
		t.Errorf("%d of 4 devices were updated", updated)
	}
	// In which order different devices were served may differ, and how messages are called.
	for i := range log {
		log[i].At, log[i].Message = time.Time{}, ""
	}
	slices.SortStableFunc(log, func(a, b run.Entry) int { return strings.Compare(lane(a), lane(b)) })
	r.log = tell(log)
	return r
}

// lane is whose entry it is.
func lane(en run.Entry) string {
	if en.Device != nil {
		return en.Device.String()
	}
	return en.Session
}

// processWorld has devices, radio and network server.
func processWorld(t *testing.T, w *world.World) (*networkserver.Server, func()) {
	t.Helper()
	loss, err := radio.NewIndependent(1, 0.05, 0.05)
	if err != nil {
		t.Fatal(err)
	}
	medium := radio.NewMedium(w, radio.EU868(), loss)
	devices, err := fleet.New(fleet.Config{World: w, Medium: medium, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	cfg := networkserver.Config{World: w, Medium: medium, Seed: 1, Token: "token",
		Tenant:       networkserver.Tenant{ID: networkserver.UUID(1, "tenant"), Name: "test"},
		Applications: []networkserver.Application{{ID: networkserver.UUID(1, "application"), Name: "test"}},
		Profiles:     []networkserver.DeviceProfile{{ID: networkserver.UUID(1, "profile"), Name: "test"}},
		Gateways:     []networkserver.Gateway{{ID: lorawan.EUI64(processGateway), Name: "roof"}}}
	for wave := range 2 {
		for i := range 2 {
			eui := processDevice(wave, i)
			keys := networkserver.Keys{}
			binary.BigEndian.PutUint64(keys.AppKey[:], uint64(wave*10+i+1))
			binary.BigEndian.PutUint64(keys.GenAppKey[:], uint64(wave*10+i+101))
			d, err := model.New(model.Config{RootKey: keys.GenAppKey, Seed: uint64(i + 1), Running: oldVersion, Next: newVersion,
				Patch: time.Minute, Heartbeat: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := devices.Add(fleet.DeviceConfig{EUI: lorawan.EUI64(eui), AppKey: keys.AppKey, DataRate: 5, App: d,
				PowerUp: time.Duration(wave*10+i) * time.Second}); err != nil {
				t.Fatal(err)
			}
			cfg.Devices = append(cfg.Devices, networkserver.Device{EUI: lorawan.EUI64(eui), Name: eui.String(),
				Application: cfg.Applications[0].ID, Profile: cfg.Profiles[0].ID, Keys: &keys})
		}
	}
	server, err := networkserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return server, func() {
		server.Close()
		devices.Close()
	}
}
