package plan_test

import (
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/fragmentation"
)

var (
	start   = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	v100    = bundle.MakeVersion(1, 0, 0)
	v101    = bundle.MakeVersion(1, 0, 1)
	v110    = bundle.MakeVersion(1, 1, 0)
	signer  *ecdsa.PrivateKey
	roof    = network.EUI64{1}
	cellar  = network.EUI64{2}
	typical = plan.Layout{Slot: 0x10000, Download: 0xc000, Scratch: 0x4000, RAM: 0x4000}
)

// update signs a bundle of size bytes: a patch if it has a base, else a full image.
func update(t testing.TB, name string, size int, change func(*bundle.Manifest), bases ...bundle.Version) plan.Update {
	t.Helper()
	if signer == nil {
		var err error
		if signer, err = bundle.GenerateKey(); err != nil {
			t.Fatal(err)
		}
	}
	m := bundle.Manifest{Codec: bundle.CodecFull, Class: 1, Hardware: 1, KeyID: 1, Version: v110, Sequence: 1, NewSize: 40000}
	if len(bases) > 0 {
		m.Codec, m.BaseSize, m.BaseDigest, m.RAM, m.Scratch = bundle.CodecPatch, 40000, [8]byte{byte(bases[0])}, 512, 256
	}
	if change != nil {
		change(&m)
	}
	b, err := bundle.Sign(m, make([]byte, size-bundle.ManifestSize), signer)
	if err != nil {
		t.Fatal(err)
	}
	return plan.Update{Name: name, Block: b, Bases: bases}
}

func ptr[T any](v T) *T { return &v }

// members makes n devices that run a version (0: unknown), with that SNR and loss.
func members(n int, v bundle.Version, snr, loss float64) []plan.Member {
	var out []plan.Member
	for range n {
		serial++
		m := plan.Member{EUI: network.EUI64{0x70, 5: byte(serial >> 16), 6: byte(serial >> 8), 7: byte(serial)}, Region: airtime.EU868, SNR: &snr, Loss: loss, Hardware: ptr(uint16(1))}
		if v != 0 {
			m.Version = &v
		}
		out = append(out, m)
	}
	return out
}

var serial int

func request(t testing.TB) plan.Request {
	return plan.Request{Campaign: "c", Start: start, Gateways: through(roof), DataRate: plan.Automatic,
		Updates: []plan.Update{update(t, "patch", 3000, nil, v100), update(t, "full", 20000, nil)},
		Waves:   []plan.Wave{{Name: "all", Members: members(50, v100, 9, 0.1)}},
		Layouts: map[uint16]plan.Layout{1: typical}, Repeater: true, Receive: 6, Transmit: 45}
}

// through lets gateways of EU868 transmit.
func through(gateways ...network.EUI64) map[airtime.Region][]network.EUI64 {
	return map[airtime.Region][]network.EUI64{airtime.EU868: gateways}
}

func book(t testing.TB, share float64) *plan.Book {
	t.Helper()
	b, err := plan.NewBook(share)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fleet(t testing.TB, req plan.Request) plan.Schedule {
	t.Helper()
	// The campaign must have a use for each bundle; tests that want the opposite call plan.Fleet.
	s, problems := plan.Fleet(book(t, 1), req)
	for _, p := range problems {
		t.Errorf("%s: %s; %s", p.Key, p.Text, p.Remedy)
	}
	if t.Failed() {
		t.FailNow()
	}
	return s
}

func TestPatchOrFull(t *testing.T) {
	req := request(t)
	req.Waves[0].Members = slices.Concat(members(50, v100, 9, 0.1), members(30, v101, 9, 0.1), members(2, 0, 9, 0.1), members(4, v110, 9, 0.1))
	s := fleet(t, req)
	if s.Devices != 86 || s.UpToDate != 4 || !s.Proven || s.Target != "1.1.0" {
		t.Errorf("%d devices, %d up to date, proven %v, target %s", s.Devices, s.UpToDate, s.Proven, s.Target)
	}
	// The full image goes out anyway for those of 1.0.1 and of unknown version, so one session for all is cheapest.
	if len(s.Sessions) != 1 || s.Sessions[0].Bundle != "full" || len(s.Sessions[0].Devices) != 82 {
		t.Errorf("sessions %s", describe(s))
	}
	if got := fmt.Sprint(s.Sessions[0].From); got != "[1.0.0 1.0.1 unknown]" {
		t.Errorf("from %s", got)
	}
	// Those that are far away would make it slow for all; a patch for the far ones pays.
	req.Waves[0].Members = slices.Concat(members(50, v100, -9, 0.1), members(30, v101, 9, 0.1))
	s = fleet(t, req)
	if len(s.Sessions) != 2 || s.Sessions[0].Bundle != "patch" || s.Sessions[1].Bundle != "full" ||
		s.Sessions[0].Plan.DataRate >= s.Sessions[1].Plan.DataRate {
		t.Errorf("sessions %s", describe(s))
	}
}

func describe(s plan.Schedule) string {
	var b strings.Builder
	for _, x := range s.Sessions {
		fmt.Fprintf(&b, "%s: %s to %d devices at DR%d; ", x.Wave, x.Bundle, len(x.Devices), x.Plan.DataRate)
	}
	return b.String()
}

// An unknown base gets the full image, never a patch by guess.
func TestNoPatchByGuess(t *testing.T) {
	req := request(t)
	req.Waves[0].Members = slices.Concat(members(1, v100, 9, 0.1), members(40, 0, 9, 0.1))
	digest := members(1, v101, 9, 0.1)
	digest[0].Base = &[8]byte{0xff} // the version says one thing, the digest of the image another
	other := members(1, v100, 9, 0.1)
	other[0].Base = &[8]byte{0xff}
	req.Waves[0].Members = append(append(req.Waves[0].Members, digest...), other...)
	for _, x := range fleet(t, req).Sessions {
		if x.Bundle == "patch" && len(x.Devices) > 1 {
			t.Errorf("%d devices get a patch", len(x.Devices))
		}
	}
}

// airtimeOf computes the cost of a session in its own way: fragments until the last device is complete in the median,
// but at least for 99 % of the devices in the first burst, and two requests.
func airtimeOf(t testing.TB, ch fragmentation.Choice, dr int, losses map[float64]int) time.Duration {
	t.Helper()
	var links []fragmentation.Link
	for p, n := range losses {
		links = append(links, fragmentation.Link{Loss: p, Devices: float64(n)})
	}
	n := 0.0
	for _, l := range links {
		n += l.Devices
	}
	sent, err := fragmentation.FleetFragments(ch.M, links, min(math.Ln2, n*0.01))
	if err != nil {
		t.Fatal(err)
	}
	rate, err := airtime.EU868.DataRate(dr)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(max(sent, ch.M+3)+2) * rate.TimeOnAir(ch.Size+3+13, airtime.Downlink)
}

// TestChoiceEqualsBruteForce compares the planner with the cheapest of all assignments of all kinds of devices to
// all sessions that suit them, on random small fleets.
func TestChoiceEqualsBruteForce(t *testing.T) {
	rates := []struct {
		dr, limit int
		snr       float64
	}{{5, 219, 3}, {4, 219, 0.5}, {3, 112, -2}, {2, 48, -4.5}, {1, 48, -7}, {0, 48, -9.5}}
	rng := rand.New(rand.NewPCG(7, 1))
	rounds := 2
	if os.Getenv("SOWER_PROOF") != "" {
		rounds = 40
	}
	split, joined := 0, 0
	for round := range rounds {
		req := request(t)
		req.Updates = []plan.Update{update(t, "patch", 400+rng.IntN(12000), nil, v100), update(t, "other", 400+rng.IntN(9000), nil, v101), update(t, "full", 4000+rng.IntN(9000), nil)}
		type kind struct {
			v    bundle.Version
			rate int // fastest
			n    int
			loss float64
		}
		var kinds []kind
		req.Waves[0].Members = nil
		mean, all := 0.0, 0.0
		for i := range 2 + rng.IntN(3) {
			k := kind{[]bundle.Version{v100, v101, 0}[rng.IntN(3)], rng.IntN(4), 1 + rng.IntN(40), float64(1+rng.IntN(25)) / 100}
			if i < 2 { // both patches have a base, or the campaign is refused
				k.v = []bundle.Version{v100, v101}[i]
			}
			if slices.ContainsFunc(kinds, func(o kind) bool { return o.v == k.v && o.rate == k.rate }) {
				continue
			}
			kinds = append(kinds, k)
			req.Waves[0].Members = append(req.Waves[0].Members, members(k.n, k.v, rates[k.rate].snr, k.loss)...)
			mean += float64(k.n) * k.loss
			all += float64(k.n)
		}
		mean /= all
		// Every assignment: kind i listens to session pick[i], an update and a rate.
		type session struct{ update, rate int }
		best := time.Duration(math.MaxInt64)
		costs, choices := map[string]time.Duration{}, map[session]fragmentation.Choice{}
		choose := func(s session) fragmentation.Choice {
			if _, ok := choices[s]; !ok {
				ch, err := fragmentation.Choose(fragmentation.Request{Length: len(req.Updates[s.update].Block), Matrix: fragmentation.V2,
					MaxSize: rates[s.rate].limit, Loss: mean})
				if err != nil {
					t.Fatal(err)
				}
				choices[s] = ch
			}
			return choices[s]
		}
		var try func(i int, open map[session]map[float64]int)
		try = func(i int, open map[session]map[float64]int) {
			if i == len(kinds) {
				var sum time.Duration
				for s, losses := range open {
					key := fmt.Sprint(s, losses)
					if _, ok := costs[key]; !ok {
						costs[key] = airtimeOf(t, choose(s), rates[s.rate].dr, losses)
					}
					sum += costs[key]
				}
				best = min(best, sum)
				return
			}
			k := kinds[i]
			for u := range 3 {
				if u == 0 && k.v != v100 || u == 1 && k.v != v101 {
					continue
				}
				for r := k.rate; r < 4; r++ { // slower ones only where a kind needs them
					s := session{u, r}
					before := map[float64]int{}
					for p, n := range open[s] {
						before[p] = n
					}
					if open[s] == nil {
						open[s] = map[float64]int{}
					}
					open[s][k.loss] += k.n
					try(i+1, open)
					if len(before) == 0 {
						delete(open, s)
					} else {
						open[s] = before
					}
				}
			}
		}
		try(0, map[session]map[float64]int{})

		// A full image that nobody needs is allowed; a patch is, too, as long as its base exists.
		s := fleet(t, req)
		if !s.Proven {
			t.Fatalf("round %d: not proven", round)
		}
		for _, x := range s.Sessions {
			if x.Expected < x.Plan.M+x.Plan.Parity {
				t.Errorf("round %d: %d fragments expected, the first burst alone has %d", round, x.Expected, x.Plan.M+x.Plan.Parity)
			}
		}
		if s.Airtime != best {
			t.Errorf("round %d: the planner takes %s, brute force %s, for %+v: %s", round, s.Airtime, best, kinds, describe(s))
		}
		if len(s.Sessions) > 1 {
			split++
		} else {
			joined++
		}
	}
	if split < rounds/8 || joined < rounds/8 || split+joined != rounds {
		t.Errorf("%d fleets split, %d joined: the cases do not tell anything", split, joined)
	}
}

func TestFleetRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*plan.Request)
		want   []string // KEY: part of the text
	}{
		{"a base nobody runs", func(r *plan.Request) { r.Waves[0].Members = members(5, v101, 9, 0.1) },
			[]string{"bundle[0]: patch is a patch against 1.0.0, which no device"}},
		{"a version without a bundle", func(r *plan.Request) {
			r.Updates = r.Updates[:1]
			r.Waves[0].Members = append(r.Waves[0].Members, members(3, v101, 9, 0.1)...)
		}, []string{"bundle: no bundle suits 3 devices"}},
		{"unknown versions and no full image", func(r *plan.Request) {
			r.Updates = r.Updates[:1]
			r.Waves[0].Members = append(r.Waves[0].Members, members(1, 0, 9, 0.1)...)
		}, []string{"bundle: no bundle suits device"}},
		{"a patch of nothing", func(r *plan.Request) { r.Updates[0].Bases = nil }, []string{"bundle[0]: patch is a patch, and nothing says"}},
		{"expired", func(r *plan.Request) {
			r.Updates[1] = update(t, "full", 20000, func(m *bundle.Manifest) { m.Expiry = airtime.GPSSeconds(start.Add(-time.Hour)) })
		}, []string{"bundle[1].file: full expired on 2026-11-22T05:00:00Z"}},
		{"expires on the way", func(r *plan.Request) {
			for i := range r.Updates {
				u := r.Updates[i]
				r.Updates[i] = update(t, u.Name, len(u.Block), func(m *bundle.Manifest) { m.Expiry = airtime.GPSSeconds(start.Add(12 * time.Hour)) }, u.Bases...)
			}
		}, []string{"bundle[0].file: patch expires on 2026-11-22T18:00:00Z, wave all is on the air until"}},
		{"image larger than the slot", func(r *plan.Request) {
			r.Updates[1] = update(t, "full", 20000, func(m *bundle.Manifest) { m.NewSize = 0x10000 })
		}, []string{"bundle[1].file: full does not fit: the new image has 65536 bytes, the slot of hardware id 1 holds 63488"}},
		{"patch takes more RAM than there is", func(r *plan.Request) {
			r.Updates[0] = update(t, "patch", 3000, func(m *bundle.Manifest) { m.RAM = 0x8000 }, v100)
		}, []string{"bundle[0].file: patch does not fit: the patch needs 32872 bytes of RAM"}},
		{"patch takes more scratch than there is", func(r *plan.Request) {
			r.Updates[0] = update(t, "patch", 3000, func(m *bundle.Manifest) { m.Scratch = 0x8000 }, v100)
		}, []string{"bundle[0].file: patch does not fit: the patch needs 32768 bytes of flash scratch"}},
		{"block larger than the download area", func(r *plan.Request) {
			r.Updates = []plan.Update{update(t, "full", 60000, nil)}
		}, []string{"bundle[0].file: full does not fit 50 devices at DR6 of EU868: "}},
		{"wrong class", func(r *plan.Request) {
			r.Layouts[1] = plan.Layout{Class: ptr(uint32(9)), Slot: 0x10000, Download: 0x10000, Scratch: 0x4000, RAM: 0x4000}
		},
			[]string{"bundle[0].file: patch is for device class 0x00000001, hardware id 1 has 0x00000009", "bundle[1].file: full is for device class"}},
		{"hardware nobody has", func(r *plan.Request) {
			r.Updates[1] = update(t, "full", 20000, func(m *bundle.Manifest) { m.Hardware = 7 })
		}, []string{"bundle[1]: full is for hardware id 7"}},
		{"two versions", func(r *plan.Request) {
			r.Updates[1] = update(t, "full", 20000, func(m *bundle.Manifest) { m.Version = v101 })
		}, []string{"bundle[1].file: full installs version 1.0.1, patch installs 1.1.0"}},
		{"no bundle at all", func(r *plan.Request) { r.Updates[1] = plan.Update{Name: "noise", Block: []byte("hello")} },
			[]string{"bundle[1].file: noise: bundle: not a bundle"}},
		{"data rate the region lacks", func(r *plan.Request) { r.DataRate = 12 }, []string{"radio.data_rate: EU868 has no downlink data rate 12"}},
		{"fragments too long", func(r *plan.Request) { r.DataRate, r.FragSize = 0, 100 }, []string{"radio.fragment_bytes: DR0 of EU868 carries fragments of at most 48 bytes"}},
		{"frequency outside", func(r *plan.Request) { r.Frequency = 915000000 }, []string{"radio.frequency_hz: EU868: "}},
		{"no gateway", func(r *plan.Request) { r.Gateways = nil }, []string{"radio.gateways: no gateway of EU868 is online"}},
		{"no device", func(r *plan.Request) { r.Waves[0].Members = nil }, []string{"devices: no device meets"}},
		{"nothing to do", func(r *plan.Request) { r.Waves[0].Members = members(5, v110, 9, 0.1) }, []string{"devices: all 5 devices run 1.1.0 already"}},
		{"everything at once", func(r *plan.Request) {
			r.DataRate, r.Frequency, r.Gateways = 14, 1, nil
			r.Updates[1] = update(t, "full", 20000, func(m *bundle.Manifest) { m.NewSize, m.Expiry = 0x10000, 1 })
		}, []string{"radio.data_rate:", "radio.frequency_hz:", "radio.gateways:", "bundle[1].file: full expired", "bundle[1].file: full does not fit"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := request(t)
			tt.change(&req)
			b := book(t, 1)
			s, problems := plan.Fleet(b, req)
			var all []string
			for _, p := range problems {
				all = append(all, p.Key+": "+p.Text)
				if p.Remedy == "" {
					t.Errorf("no remedy for %q", p.Text)
				}
			}
			if len(problems) != len(tt.want) || len(s.Sessions) != 0 || len(b.Usage([]network.EUI64{roof})) != 0 {
				t.Errorf("problems %q, %d sessions; want %q and nothing booked", all, len(s.Sessions), tt.want)
			}
			for _, want := range tt.want {
				if !slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, want) }) {
					t.Errorf("no %q among %q", want, all)
				}
			}
		})
	}
}

// TestDutyCycleOfAllCampaigns plans three campaigns on shared gateways and looks at every hour of each of them.
func TestDutyCycleOfAllCampaigns(t *testing.T) {
	b := book(t, 0.5)
	gateways := []network.EUI64{roof, cellar}
	var sessions []plan.Session
	for i, name := range []string{"one", "two", "three"} {
		req := request(t)
		req.Campaign, req.Share = name, 0.5
		if i < 2 {
			req.Gateways = through(gateways...)
		}
		s, problems := plan.Fleet(b, req)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if i > 0 && s.Sessions[0].Behind == "" {
			t.Errorf("campaign %s does not say that it waits", name)
		}
		sessions = append(sessions, s.Sessions...)
	}
	for i, s := range sessions[1:] {
		if s.Opens.Before(sessions[i].Ends) {
			t.Errorf("a session opens at %s, the gateway is taken until %s", s.Opens, sessions[i].Ends)
		}
	}
	usage := b.Usage(gateways)
	if len(usage) != 2 {
		t.Fatalf("usage %+v", usage)
	}
	for _, u := range usage {
		if u.SubBand != "g3" || u.Allowed != 3*time.Minute || u.Peak > u.Allowed || u.Peak < time.Second {
			t.Errorf("usage %+v", u)
		}
	}
	if usage[0].Frames <= usage[1].Frames {
		t.Errorf("%d frames on the roof in three campaigns, %d in the cellar in two", usage[0].Frames, usage[1].Frames)
	}
}

// A campaign that is planned after another one was started gets the plan that it would have got together with it, and
// uses the time between its windows.
func TestTake(t *testing.T) {
	gateways := []network.EUI64{roof, cellar}
	long := request(t)
	long.Campaign, long.Gateways, long.Share = "long", through(gateways...), 0.5
	long.Waves = []plan.Wave{{Name: "canary", Members: members(5, v100, 9, 0.1)}, {Name: "all", Members: members(95, v100, 9, 0.1)}}
	short := request(t)
	short.Campaign, short.Share, short.Gateways = "short", 0.5, through(gateways[1:]...)
	both := book(t, 0.5)
	plans := func(b *plan.Book, req plan.Request) plan.Schedule {
		t.Helper()
		s, problems := plan.Fleet(b, req)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return s
	}
	first := plans(both, long)
	want := plans(both, short)

	var kept plan.Schedule // as it comes out of a database
	text, err := json.Marshal(first)
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		t.Fatal(err)
	}
	after := book(t, 0.5)
	if err := after.Take(kept, 0); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(after.Usage(gateways), first.Usage) {
		t.Errorf("usage %+v, planned %+v", after.Usage(gateways), first.Usage)
	}
	if got := plans(after, short); !reflect.DeepEqual(got, want) {
		t.Errorf("one after the other\n%+v\ntogether\n%+v", got.Sessions, want.Sessions)
	}
	one, a, b := want.Sessions[0], first.Sessions[0], first.Sessions[1]
	if one.Opens.Before(a.Ends) || one.Ends.After(b.Opens) || one.Behind != "long" {
		t.Errorf("window %s to %s, want it between those to %s and from %s", one.Opens, one.Ends, a.Ends, b.Opens)
	}
	for _, u := range want.Usage {
		if u.Peak > u.Allowed {
			t.Errorf("usage %+v", u)
		}
	}

	// If the first campaign is late, so is what must not collide with it.
	late := book(t, 0.5)
	if err := late.Take(kept, -a.Opens.Sub(start)+6*time.Hour); err != nil {
		t.Fatal(err)
	}
	if got := plans(late, short).Sessions[0]; got.Opens.Equal(one.Opens) || !got.Opens.Equal(start.Add(12*time.Hour)) && got.Behind != "long" {
		t.Errorf("opens %s", got.Opens)
	}
	// A session that is longer than the time between goes behind both.
	short.Gateways = through(gateways...)
	short.Updates = []plan.Update{update(t, "full", 60000, nil)}
	short.Layouts = nil
	short.DataRate = 0
	both = book(t, 0.5)
	if err := both.Take(kept, 0); err != nil {
		t.Fatal(err)
	}
	if got := plans(both, short).Sessions[0]; got.Opens.Before(b.Ends) {
		t.Errorf("%s to %s, but a window of the other campaign opens at %s", got.Opens, got.Ends, b.Opens)
	}
}

func TestSchedule(t *testing.T) {
	req := request(t)
	req.Waves = []plan.Wave{{Name: "canary", Members: members(5, v100, 9, 0.1)}, {Name: "all", Members: members(95, v100, 9, 0.1)}}
	req.UplinkInterval = 10 * time.Minute
	one := fleet(t, req)
	req.Gateways = through(roof, cellar, network.EUI64{3})
	three := fleet(t, req)
	for _, s := range []plan.Schedule{one, three} {
		if len(s.Sessions) != 2 || s.Sessions[0].Wave != "canary" {
			t.Fatalf("sessions %s", describe(s))
		}
		a, b := s.Sessions[0], s.Sessions[1]
		if a.Opens.Before(start.Add(time.Hour)) || b.Opens.Before(a.Ends.Add(time.Hour)) || !s.Ends.After(b.Ends) {
			t.Errorf("windows %s to %s and %s to %s, end %s", a.Opens, a.Ends, b.Opens, b.Ends, s.Ends)
		}
		for _, x := range s.Sessions {
			if !x.Check.Meets(0.99) || x.Check.Devices < 200 || x.Check.Complete > 1 {
				t.Errorf("self-check %+v", x.Check)
			}
			if x.Energy <= 0 || x.Energy > 100 || x.Expected < x.Plan.M || x.Uplinks < 12*len(x.Devices) {
				t.Errorf("energy %v, expected %d of %d, %d uplinks", x.Energy, x.Expected, x.Plan.M, x.Uplinks)
			}
		}
	}
	// Each gateway in turn costs 5 s per fragment: the window must count all of them.
	if long, short := three.Sessions[1], one.Sessions[1]; long.Ends.Sub(long.Opens) < 2*short.Ends.Sub(short.Opens) {
		t.Errorf("%s with three gateways, %s with one", long.Ends.Sub(long.Opens), short.Ends.Sub(short.Opens))
	}
	if three.Airtime < 3*one.Airtime-time.Second {
		t.Errorf("airtime %s with three gateways, %s with one", three.Airtime, one.Airtime)
	}
}

// Devices of v1 and v2 packages never share a group: their parity differs.
func TestPackagesAreApart(t *testing.T) {
	req := request(t)
	old := members(20, v100, 9, 0.1)
	for i := range old {
		old[i].Packages = applayer.V1
	}
	req.Waves[0].Members = append(req.Waves[0].Members, old...)
	s := fleet(t, req)
	if len(s.Sessions) != 2 || s.Sessions[0].Plan.Matrix != fragmentation.V1 || len(s.Sessions[0].Devices) != 20 || s.Sessions[1].Plan.Matrix != fragmentation.V2 {
		t.Errorf("sessions %s", describe(s))
	}
}

// The check must notice a plan that is too short.
func TestSelfCheckNotices(t *testing.T) {
	req := request(t)
	req.Updates = req.Updates[:1]
	req.Target = 0.5
	c := fleet(t, req).Sessions[0].Check
	if c.Meets(0.99) || !c.Meets(0.5) {
		t.Errorf("a burst for 50 %% completes %+v", c)
	}
}

func TestManyDevices(t *testing.T) {
	req := request(t)
	req.Waves[0].Members = nil
	rng := rand.New(rand.NewPCG(1, 1))
	n, limit := 2000, 9*time.Minute
	if os.Getenv("SOWER_PROOF") != "" {
		n, limit = 100000, 10*time.Second
	}
	for range n {
		req.Waves[0].Members = append(req.Waves[0].Members, members(1, []bundle.Version{v100, v101, 0}[rng.IntN(3)], 20*rng.Float64()-12, 0.3*rng.Float64())...)
	}
	begun := time.Now()
	s := fleet(t, req)
	if !s.Proven {
		t.Errorf("not proven: %s", describe(s))
	}
	took := time.Since(begun)
	if took > limit {
		t.Errorf("%s, want at most %s", took, limit)
	}
	t.Logf("%d devices, %d sessions in %s: %s", s.Devices, len(s.Sessions), took, describe(s))
}
