package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	shell "github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/campaigntest"
	"github.com/sower-fuota/sower/simulator/world"
)

func TestBatteryFacts(t *testing.T) {
	eui := network.EUI64{1, 7: 2}
	facts := batteryFacts([]inventory.Rule{{FPort: 2, Battery: true, Offset: 1}, {FPort: 204, Battery: true}})
	for _, tt := range []struct {
		name string
		ev   network.Event
		want int // -1: nothing
	}{
		{"a level", network.Event{Kind: network.EventUplink, FPort: 2, Payload: []byte{9, 55}}, 55},
		{"empty", network.Event{Kind: network.EventUplink, FPort: 2, Payload: []byte{9, 0}}, 0},
		{"no percentage", network.Event{Kind: network.EventUplink, FPort: 2, Payload: []byte{9, 101}}, -1},
		{"too short", network.Event{Kind: network.EventUplink, FPort: 2, Payload: []byte{9}}, -1},
		{"another port", network.Event{Kind: network.EventUplink, FPort: 3, Payload: []byte{9, 55}}, -1},
		{"no uplink", network.Event{Kind: network.EventJoin, FPort: 2, Payload: []byte{9, 55}}, -1},
		{"told to the network server", network.Event{Kind: network.EventStatus, Battery: 55}, 55},
		{"external power", network.Event{Kind: network.EventStatus, Battery: -1}, -1},
		{"on the port of reports", network.Event{Kind: network.EventUplink, FPort: 204, Payload: []byte{7}}, 7},
	} {
		tt.ev.Device = eui
		var want []campaign.Event
		if tt.want >= 0 {
			want = []campaign.Event{campaign.Battery{Device: eui, Percent: tt.want}}
		}
		if got := facts(tt.ev); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
}

func TestProofTag(t *testing.T) {
	for _, tt := range []struct {
		tag  string
		tags map[string]string
		want bool
	}{
		{"updated", map[string]string{"updated": "yes"}, true},
		{"updated", map[string]string{"updated": ""}, false},
		{"updated", map[string]string{"site": "north"}, false},
		{"fw = 1.2", map[string]string{"fw": "1.2"}, true},
		{"fw=1.2", map[string]string{"fw": "1.1"}, false},
		{"fw=1.2", nil, false},
		{"", map[string]string{"": "1"}, false},
	} {
		tag, err := readProofTag(fmt.Appendf(nil, "name = \"m\"\n[proof]\ntag = %q\n", tt.tag))
		if err != nil || tag.on(tt.tags) != tt.want {
			t.Errorf("%q on %v: %v %v", tt.tag, tt.tags, !tt.want, err)
		}
	}
	if tag, err := readProofTag([]byte("name = \"m\"\n")); err != nil || tag.on(map[string]string{"": "x"}) {
		t.Errorf("no tag is %+v, %v", tag, err)
	}
	if _, err := readProofTag([]byte("[proof]\ntag = 3\n")); err == nil || !strings.Contains(err.Error(), "proof.tag") {
		t.Errorf("a number as a tag: %v", err)
	}
}

func TestAnswers(t *testing.T) {
	a, b := network.EUI64{7: 1}, network.EUI64{7: 2}
	battery := func(known int) waiting { return waiting{battery: map[network.EUI64]int{a: known}} }
	record := []network.Device{{EUI: a, Battery: 40, Tags: map[string]string{"ok": "1"}}, {EUI: b, Battery: 50, Tags: map[string]string{"ok": "1"}}}
	level := []campaign.Event{campaign.Battery{Device: a, Percent: 40}}
	for _, tt := range []struct {
		name  string
		w     waiting
		ruled bool
		last  map[network.EUI64]int
		want  []campaign.Event
	}{
		{"a level that nobody knows", battery(-1), true, nil, level},
		{"a level that is known", battery(40), false, nil, nil},
		{"another level", battery(5), false, nil, level},
		{"another level than uplinks tell", battery(5), true, nil, nil},
		{"the same since, and uplinks tell another", battery(5), true, map[network.EUI64]int{a: 40}, nil},
		{"a new level", battery(5), true, map[network.EUI64]int{a: 39}, level},
		{"a tag", waiting{proofs: map[network.EUI64]bool{b: true}}, false, nil, []campaign.Event{campaign.Proven{Device: b}}},
		{"nothing is wanted", waiting{}, false, nil, nil},
	} {
		if got := tt.w.answers(record, proofTag{name: "ok"}, tt.ruled, tt.last); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := battery(5).answers([]network.Device{{EUI: a, Battery: -1}}, proofTag{}, false, nil); got != nil {
		t.Errorf("a level that the server does not know: %v", got)
	}
}

// A poller proves by tag those devices that hold the block and no others, tells battery levels, and asks the network
// nothing while nobody waits.
func TestPoller(t *testing.T) {
	start := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	w := world.New(start)
	net := campaigntest.New(w, 1)
	clock := w.NewClock("engine")
	image := make([]byte, 3000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range image {
		image[i] = byte(rng.Uint32())
	}
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	block, err := bundle.Sign(bundle.Manifest{Codec: bundle.CodecFull, KeyID: 1, Version: 2, Sequence: 2, NewSize: uint32(len(image))}, image, key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Make(plan.Input{Block: block, Region: airtime.EU868, DataRate: 5, Devices: 4, Matrix: fragmentation.V1})
	if err != nil {
		t.Fatal(err)
	}
	spec := session.Spec{ID: "raw", Application: "app", Block: block, Plan: p, Gateways: []network.EUI64{{0xaa}}, McAddr: 0x01000000,
		McKey: network.Key{1}, Raw: &session.Raw{Proof: session.ProofTag}, MinBattery: 20, Capabilities: net.Caps,
		Timing: session.Timing{UplinkInterval: 10 * time.Minute}}
	for i := range 4 {
		d := &campaigntest.Device{EUI: network.EUI64{1, 7: byte(i)}, Speaks: p.Version(), Stock: campaigntest.BasicsModem, Old: 1, New: 2, Block: block,
			Interval: 10 * time.Minute, LastCnt: -1, Patch: time.Minute, Key: network.Key{9, byte(i)}, ServerKey: network.Key{9, byte(i)}}
		net.Add(d)
		spec.Devices = append(spec.Devices, session.Target{EUI: d.EUI})
	}
	c, err := campaign.Single(spec)
	if err != nil {
		t.Fatal(err)
	}
	engine := shell.New(shell.Config{Network: net, Clock: clock})
	if err := engine.Add(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() {
		err := engine.Run(ctx)
		net.Stop()
		clock.Close()
		ran <- err
	}()

	tags, battery, asked, down := map[network.EUI64]string{}, -1, 0, false
	var warned lockedBuffer
	tick := make(chan time.Time)
	poll := poller{engine: engine, tick: tick, log: slog.New(slog.NewJSONHandler(&warned, nil)), last: map[network.EUI64]int{},
		devices: func(ctx context.Context, app string) ([]network.Device, error) {
			asked++
			if down {
				return nil, network.ErrUnavailable
			}
			list, err := net.Devices(ctx, app)
			for i := range list {
				list[i].Battery, list[i].Tags = battery, map[string]string{"fw": tags[list[i].EUI]}
			}
			return list, err
		},
		file: func(context.Context, string) (shell.CampaignFile, string, error) {
			return shell.CampaignFile{TOML: []byte("[proof]\ntag = \"fw=2\"\n")}, "ann", nil
		}}
	read := func() {
		t.Helper()
		if err := poll.poll(ctx); err != nil {
			t.Fatal(err)
		}
	}
	pass := func(d time.Duration) {
		t.Helper()
		if err := w.Run(ctx, w.Now().Add(d)); err != nil {
			t.Fatal(err)
		}
	}
	device := func(i int) (d session.Device) {
		t.Helper()
		if err := engine.View(ctx, func([]*campaign.Campaign) { d = c.Session(0).Device(i) }); err != nil {
			t.Fatal(err)
		}
		return d
	}

	// A tag that is left over from earlier proves nothing before the block is there.
	for i := range 4 {
		tags[spec.Devices[i].EUI] = "2"
	}
	pass(time.Minute)
	battery = 60
	read()
	for i := range 4 {
		if d := device(i); d.Stage >= session.StageComplete || d.Battery != 60 {
			t.Errorf("device %d is %s with a battery of %d %%", i, d.Stage, d.Battery)
		}
	}
	clear(tags)
	tags[spec.Devices[1].EUI] = "1" // another value
	for i := 0; device(0).Stage < session.StageComplete || device(1).Stage < session.StageComplete || device(2).Stage < session.StageComplete; i++ {
		if i == 100 {
			t.Fatalf("no block: %+v", device(0))
		}
		pass(10 * time.Minute)
	}
	read()
	tags[spec.Devices[2].EUI] = "2"
	if d := device(2); d.Stage == session.StageUpdated {
		t.Error("device 2 is updated before it has the tag")
	}
	read()
	for i, want := range []bool{false, false, true} {
		if d := device(i); (d.Stage == session.StageUpdated) != want {
			t.Errorf("device %d is %s", i, d.Stage)
		}
	}

	// The network being away is no reason to end.
	polled := make(chan error, 1)
	down = true
	go func() { polled <- poll.run(ctx) }()
	tick <- start
	tick <- start // taken when the first is done
	cancel()
	if err := <-polled; !errors.Is(err, context.Canceled) || !strings.Contains(warned.String(), "next try later") {
		t.Errorf("%v, %q", err, warned.String())
	}
	<-ran

	// Nobody waits: nothing is asked.
	asked = 0
	rest := w.NewClock("idle")
	idle := shell.New(shell.Config{Network: net, Clock: rest, Store: noStore{}})
	ctx, cancel = context.WithCancel(t.Context())
	go func() { ran <- idle.Run(ctx) }()
	poll.engine = idle
	read()
	if asked != 0 {
		t.Errorf("the network was asked %d times although nobody waits", asked)
	}
	cancel()
	<-ran
	rest.Close()
}

// noStore keeps nothing.
type noStore struct{}

func (noStore) Restore(context.Context, time.Time) (shell.Snapshot, error) {
	return shell.Snapshot{}, nil
}
func (noStore) Commit(context.Context, *shell.Round) error { return nil }

// A battery level that an uplink rule of sower.toml finds keeps a device from being rebooted, and the rest goes on.
func TestServeBattery(t *testing.T) {
	f := sow(t, 2)
	text, err := os.ReadFile(f.file("sower.toml"))
	if err != nil {
		t.Fatal(err)
	}
	// The uplinks of the devices begin with their version, and its first byte is 0.
	f.write(t, "sower.toml", string(text)+"[[inventory.uplink]]\nf_port = 2\nfact = \"battery\"\noffset = 0\n")
	f.login(t)
	stop := f.start(t)
	can(t, "create", f.write(t, "field.toml", fmt.Sprintf(fieldCampaign, meters, "[energy]\nmin_battery_percent = 20\n")))
	can(t, "start", "field")
	out := ""
	for end := f.world.Now().Add(48 * time.Hour); f.world.Now().Before(end); {
		if out = can(t, "explain", "field", deviceEUI(0).String()) + can(t, "explain", "field", deviceEUI(1).String()); strings.Contains(out, "stage ready") {
			break
		}
	}
	if !strings.Contains(out, "its battery is at 0 %, the campaign asks for 20 %") {
		t.Errorf("explain:\n%s", out)
	}
	before := f.world.Now()
	for f.world.Now().Before(before.Add(2 * time.Hour)) {
		can(t, "list")
	}
	stop()
	for i, h := range f.hosts {
		raw, err := h.SlotA(16 << 10)
		if err != nil {
			t.Fatal(err)
		}
		if im, err := mcuboot.Parse(raw); err != nil || im.Minor != 0 {
			t.Errorf("device %d was updated to %d.%d with an empty battery, %v", i, im.Major, im.Minor, err)
		}
	}
}
