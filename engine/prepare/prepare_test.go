package prepare_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
	"github.com/sower-fuota/sower/engine/session"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// server is a network server with n devices, which tests spoil.
type server struct {
	n        int
	overseas int    // of them work in abroad
	abroad   string // a region; US915
	ready    map[network.EUI64]prepare.Readiness
	profile  prepare.Profile
	groups   []string
	down     error
	asked    int // for the root keys of devices
}

func eui(i int) network.EUI64 { return network.EUI64{0x70, 0xb3, 6: byte(i >> 8), 7: byte(i)} }

func (s *server) Capabilities(context.Context) (network.Capabilities, error) {
	return network.Capabilities{Name: "fake", MulticastClasses: []network.Class{network.ClassC}}, s.down
}

func (s *server) Application(_ context.Context, id string) (string, error) {
	if id != "app" {
		return "", network.ErrNotFound
	}
	return "Meters", nil
}

func (s *server) Devices(context.Context, string) ([]network.Device, error) {
	var out []network.Device
	for i := range s.n {
		profile, region := "p", "EU868"
		if i < s.overseas {
			profile, region = "us", cmp.Or(s.abroad, "US915")
		}
		out = append(out, network.Device{EUI: eui(i), Application: "app", Profile: profile, Region: region, Battery: 50 + i%50, LoRaWAN11: i%2 == 1, LastSeen: now,
			Tags: map[string]string{"firmware_version": "1.0.0", "hardware_id": "7", "site": []string{"north", "south"}[i%2]}})
	}
	return out, nil
}

func (s *server) Profile(_ context.Context, id string) (prepare.Profile, error) {
	p := s.profile
	if p.Name == "" {
		p.Name = id
	}
	return p, nil
}

func (s *server) Gateways(context.Context, string) ([]network.Gateway, error) {
	return []network.Gateway{{ID: network.EUI64{1}, Name: "roof", Online: true, Region: "EU868"},
		{ID: network.EUI64{2}, Name: "cellar", Region: "EU868"},
		{ID: network.EUI64{3}, Name: "attic", Online: true},
		{ID: network.EUI64{4}, Name: "mast", Online: true, Region: "US915"}}, nil
}

func (s *server) Links(_ context.Context, until map[network.EUI64]time.Time, found func(network.EUI64, prepare.Link)) error {
	for d := range until {
		found(d, prepare.Link{Packets: 10, SNR: 9, Last: now})
	}
	return nil
}

func (s *server) Ready(_ context.Context, devices []network.EUI64, found func(network.EUI64, prepare.Readiness)) error {
	for _, d := range devices {
		s.asked++
		r, ok := s.ready[d]
		if !ok {
			r.Joined = true
		}
		found(d, r)
	}
	return nil
}

func (s *server) GroupExists(_ context.Context, _, name string) (bool, error) {
	return slices.Contains(s.groups, name), nil
}

// files are a full image of version 1.1.0 for hardware 7.
func files(t *testing.T) prepare.Source {
	t.Helper()
	img, err := mcuboot.Wrap(bytes.Repeat([]byte("image"), 200), mcuboot.Options{Major: 1, Minor: 1})
	if err != nil {
		t.Fatal(err)
	}
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	block, err := bundle.Full(bundle.Target{Class: 1, Hardware: 7, KeyID: 1, Sequence: 1}, img, key)
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) (string, []byte, error) {
		if strings.HasSuffix(name, "full.sow") {
			return "dir/" + name, block, nil
		}
		return "dir/" + name, nil, errors.New("no such file")
	}
}

func planner(t *testing.T, s *server) *prepare.Planner {
	t.Helper()
	settings, doc := config.ParseSettings("sower.toml", []byte("[chirpstack]\nserver = \"s:1\"\ntoken_env = \"T\"\nmqtt = \"mqtt://s\"\n"))
	if err := doc.Problems.Err(); err != nil {
		t.Fatal(err)
	}
	return &prepare.Planner{Settings: settings, Server: s}
}

const head = "name = \"meters\"\napplication = \"app\"\n"

func text(more string) []byte { return []byte(head + "[[bundle]]\nfile = \"full.sow\"\n" + more) }

func plan(t *testing.T, s *server, more string) (*prepare.Campaign, error) {
	t.Helper()
	list, err := planner(t, s).Plan(t.Context(), []prepare.File{{Name: "c.toml", Text: text(more), Read: files(t)}}, now)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

type counters map[network.EUI64]uint16

func (c counters) NextSessionCnt(_ context.Context, devices []network.EUI64) (map[network.EUI64]uint16, error) {
	return c, nil
}

// What the file says arrives in the specification that the engine runs.
func TestSpec(t *testing.T) {
	s := &server{n: 40}
	c, err := plan(t, s, `[[wave]]
name = "canary"
count = 4
soak = "24h"
max_failure_percent = 0
[[wave]]
name = "all"
percent = 100
gate = true
[policy]
approvals = 2
four_eyes = false
min_success_percent = 0
max_silence_percent = 20
[timing]
uplink_interval = "10m"
silence = "5h"
defer = "48h"
[energy]
min_battery_percent = 20
[maintenance]
utc_offset = "1h"
[[maintenance.window]]
days = ["sat"]
from = "22:00"
to = "05:00"
[radio]
descriptor = "0102030A"
[repair]
most_fragments = 500
unicast_fragments = 0
[proof]
uplinks = 2
`)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Schedule; got.Devices != 40 || len(got.Sessions) != 2 || len(got.Sessions[0].Devices) != 4 || got.Target != "1.1.0" {
		t.Fatalf("schedule %+v", got)
	}
	n := uint32(0)
	keys := func() (uint32, network.Key, error) {
		n++
		return n, network.Key{byte(n)}, nil
	}
	spec, err := c.Spec(t.Context(), keys, counters{eui(5): 9})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := campaign.New(spec); err != nil {
		t.Fatal(err)
	}
	if p := spec.Policy; p.Approvals != 2 || p.FourEyes || p.Thresholds.MinSuccess != -1 || p.Thresholds.MaxSilence != 0.2 || p.Thresholds.MaxFailure != 0 {
		t.Errorf("policy %+v", p)
	}
	canary, all := spec.Waves[0], spec.Waves[1]
	if canary.Soak != 24*time.Hour || canary.Gate || !all.Gate || all.Thresholds != (campaign.Thresholds{}) {
		t.Errorf("waves %+v %+v", canary, all)
	}
	if th := canary.Thresholds; !(th.MaxFailure > 0 && th.MaxFailure < 1e-6) || th.MaxSilence != 0.2 || th.MinSuccess != -1 {
		t.Errorf("thresholds of the canary %+v", th)
	}
	ss := all.Sessions[0]
	if ss.ID != "meters.2" || ss.McAddr != 2 || ss.McKey != (network.Key{2}) || ss.Target != uint32(bundle.MakeVersion(1, 1, 0)) || len(ss.Gateways) != 1 ||
		ss.MinBattery != 20 || ss.Descriptor != [4]byte{1, 2, 3, 10} || ss.Limits.Fragments != 500 || ss.Limits.Tail != -1 || ss.Limits.Proof != 2 ||
		ss.Timing.UplinkInterval != 10*time.Minute || ss.Timing.Silence != 5*time.Hour || ss.Timing.Defer != 48*time.Hour {
		t.Errorf("session %+v", ss)
	}
	saturday := time.Date(2026, 11, 28, 21, 30, 0, 0, time.UTC)
	if cal := ss.Calendar; !cal.Open(saturday) || cal.Open(saturday.Add(-time.Hour)) || cal.Open(saturday.Add(24*time.Hour)) {
		t.Errorf("calendar %+v", cal)
	}
	seen := map[network.EUI64]session.Target{}
	for _, w := range spec.Waves {
		for _, s := range w.Sessions {
			for _, d := range s.Devices {
				seen[d.EUI] = d
			}
		}
	}
	if d := seen[eui(5)]; len(seen) != 40 || !d.LoRaWAN11 || d.SessionCnt != 9 || d.Hardware != 7 || d.From != uint32(bundle.MakeVersion(1, 0, 0)) || d.Battery != 55 {
		t.Errorf("%d devices; device 5 is %+v", len(seen), d)
	}
	// The same file makes the same sample.
	again, err := plan(t, s, "[[wave]]\nname = \"canary\"\ncount = 4\n[[wave]]\nname = \"all\"\npercent = 100\n")
	if err != nil || !slices.Equal(again.Schedule.Sessions[0].Devices, c.Schedule.Sessions[0].Devices) {
		t.Errorf("another sample: %v", err)
	}
}

func TestSelection(t *testing.T) {
	for _, tt := range []struct {
		more string
		want int
	}{
		{"", 20},
		{"[devices]\ntags = { site = \"north\" }\n", 10},
		{"[devices]\nhardware = [7]\nversions = [\"1.0.0\"]\nexclude = [\"" + eui(1).String() + "\"]\n", 19},
		{"[devices]\nlist = [\"" + eui(1).String() + "\", \"" + eui(2).String() + "\"]\n", 2},
	} {
		s := &server{n: 20}
		c, err := plan(t, s, tt.more)
		if err != nil || c.Schedule.Devices != tt.want || s.asked != tt.want {
			t.Errorf("%q: %v; %d devices asked about, want %d", tt.more, err, s.asked, tt.want)
		}
	}
}

// What the server would take in silence is refused, with the line and a remedy.
func TestRefusals(t *testing.T) {
	sound := func() *server { return &server{n: 10} }
	with := func(r prepare.Readiness) *server {
		return &server{n: 10, ready: map[network.EUI64]prepare.Readiness{eui(3): r}}
	}
	for _, tt := range []struct {
		name string
		s    *server
		more string
		want string
	}{
		{"no key", with(prepare.Readiness{NoKey: true, Joined: true}), "", "no root key on the server: " + eui(3).String()},
		{"disabled", with(prepare.Readiness{Disabled: true, Joined: true}), "[devices]\nlist = [\n\"" + eui(3).String() + "\"]\n", "c.toml:7: disabled on the server"},
		{"never joined", with(prepare.Readiness{}), "", "never joined"},
		{"end to end", with(prepare.Readiness{EndToEnd: true, Joined: true}), "", "encrypted end to end"},
		{"class C", &server{n: 3, profile: prepare.Profile{Name: "p", ClassC: true}}, "", "device profile p is class C"},
		{"TS004 on the server", &server{n: 3, profile: prepare.Profile{Name: "p", TS004: true}}, "", "take the answers"},
		{"group left behind", &server{n: 3, groups: []string{"meters.1"}}, "", "c.toml:1: the server has a multicast group called meters.1"},
		{"gateway offline", sound(), "[radio]\ngateways = [\"0200000000000000\"]\n", "c.toml:6: gateway 0200000000000000 (cellar) is offline"},
		{"gateway without region", sound(), "[radio]\ngateways = [\"0300000000000000\"]\n", "has no region"},
		{"device of another application", sound(), "[devices]\nlist = [\"0102030405060708\"]\n", "c.toml:6: device 0102030405060708 does not exist"},
		{"empty wave", sound(), "[[wave]]\nname = \"all\"\n[[wave]]\nname = \"none\"\n", "wave none has no devices"},
		{"some in no wave", sound(), "[[wave]]\nname = \"a\"\ncount = 3\n", "7 of 10 devices are in no wave"},
		{"gate before the first wave", sound(), "[[wave]]\nname = \"a\"\ngate = true\n", "c.toml:7: the first wave has a gate"},
		{"share above all", sound(), "[policy]\nmax_silence_percent = 101\n", "c.toml:6: policy.max_silence_percent is 101"},
		{"no devices", &server{}, "", "no device meets the conditions"},
		{"a bundle that does not exist", sound(), "[[bundle]]\nfile = \"x.sow\"\n", "c.toml:6: bundle dir/x.sow: no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := plan(t, tt.s, tt.more)
			var problems config.Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v; want %q", err, tt.want)
			}
			for _, p := range problems {
				if p.Remedy == "" || p.File != "c.toml" {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}

func TestServerDown(t *testing.T) {
	s := &server{n: 3, down: fmt.Errorf("connection refused: %w", network.ErrUnavailable)}
	_, err := plan(t, s, "typo = 1\n")
	if !errors.Is(err, network.ErrUnavailable) || !strings.Contains(err.Error(), "typo") {
		t.Errorf("%v; want both the outage and the problem of the file", err)
	}
}

// A rescue wave has all devices again, at its own data rate, and is what the engine can run.
func TestRescue(t *testing.T) {
	const more = "[[wave]]\nname = \"a\"\ncount = 4\n[[wave]]\nname = \"b\"\n[[wave]]\nname = \"rescue\"\nrescue = true\ndata_rate = %d\n[radio]\ndata_rate = 5\n"
	c, err := plan(t, &server{n: 10}, fmt.Sprintf(more, 0))
	if err != nil {
		t.Fatal(err)
	}
	n := uint32(0)
	spec, err := c.Spec(t.Context(), func() (uint32, network.Key, error) { n++; return n, network.Key{1}, nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := campaign.New(spec); err != nil {
		t.Fatal(err)
	}
	last := spec.Waves[2]
	if len(spec.Waves) != 3 || !last.Rescue || len(last.Sessions[0].Devices) != 10 || last.Sessions[0].Plan.DataRate != 0 || spec.Waves[1].Sessions[0].Plan.DataRate != 5 ||
		last.Sessions[0].ID != "meters.3" || c.Schedule.Devices != 10 {
		t.Errorf("%+v", last)
	}
	if _, err := plan(t, &server{n: 10}, fmt.Sprintf(more, 14)); err == nil || !strings.Contains(err.Error(), "c.toml:13: EU868 has no downlink data rate 14") {
		t.Errorf("%v", err)
	}
	for text, want := range map[string]string{
		"[[wave]]\nname = \"a\"\nrescue = true\n":                                                 "nobody is to be rescued yet",
		"[[wave]]\nname = \"a\"\ndata_rate = 1\n":                                                 "data_rate is that of a rescue wave",
		"[[wave]]\nname = \"a\"\n[[wave]]\nname = \"r\"\nrescue = true\ncount = 1\n":              "rescue and conditions",
		"[[wave]]\nname = \"a\"\n[[wave]]\nname = \"r\"\nrescue = true\n[[wave]]\nname = \"b\"\n": "comes after a rescue wave",
	} {
		if _, err := plan(t, &server{n: 3}, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// A campaign that is planned while another one runs gets the plan that both would have got together.
func TestStarted(t *testing.T) {
	file := func(name string, device int) prepare.File {
		text := strings.Replace(string(text(fmt.Sprintf("[devices]\nlist = [%q]\n", eui(device)))), "meters", name, 1)
		return prepare.File{Name: name + ".toml", Text: []byte(text)}
	}
	shared := files(t)
	one, two := file("one", 0), file("two", 1)
	one.Read, two.Read = shared, shared
	p := planner(t, &server{n: 2})
	together, err := p.Plan(t.Context(), []prepare.File{one, two}, now)
	if err != nil {
		t.Fatal(err)
	}
	first, err := p.Plan(t.Context(), []prepare.File{one}, now)
	if err != nil {
		t.Fatal(err)
	}
	p.Started = func(context.Context) ([]prepare.Started, error) {
		return []prepare.Started{{Schedule: first[0].Schedule}}, nil
	}
	second, err := p.Plan(t.Context(), []prepare.File{two}, now)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(second[0].Schedule, together[1].Schedule) {
		t.Errorf("one after the other\n%+v\ntogether\n%+v", second[0].Schedule, together[1].Schedule)
	}
	key := func() (uint32, network.Key, error) { return 1, network.Key{1}, nil }
	spec, err := second[0].Spec(t.Context(), key, nil)
	if err != nil {
		t.Fatal(err)
	}
	wait := first[0].Schedule.Sessions[0].Ends.Sub(first[0].Schedule.Sessions[0].Opens)
	if s := second[0].Schedule; !spec.Policy.NotBefore.Equal(now.Add(wait)) || !s.Starts.Equal(now.Add(wait)) || s.Sessions[0].Behind != "one" ||
		!strings.Contains(strings.Join(s.Warnings, "\n"), "campaign one uses gateways of this one") {
		t.Errorf("not before %s, want %s later than now; %+v", spec.Policy.NotBefore, wait, s)
	}
	// The hours before its first window, in which devices are set up, take no multicast.
	p.Started = func(context.Context) ([]prepare.Started, error) {
		return []prepare.Started{{Schedule: first[0].Schedule, Late: -6 * time.Hour}}, nil
	}
	if list, err := p.Plan(t.Context(), []prepare.File{two}, now); err != nil || !list[0].Schedule.Starts.Equal(now) || list[0].Schedule.Sessions[0].Behind != "" {
		t.Errorf("%v: waits for gateways that are free", err)
	}
}

// Bundles of the same name in two folders are two bundles.
func TestSameName(t *testing.T) {
	c, err := plan(t, &server{n: 3}, "[[bundle]]\nfile = \"b/full.sow\"\n")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := c.Spec(t.Context(), oneGroup, nil)
	if err != nil || len(spec.Waves[0].Sessions[0].Block) == 0 {
		t.Errorf("%v", err)
	}
}
