package plan_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
)

var mast = network.EUI64{9}

// overseas is a campaign over devices of EU868 and of the region given, which has a gateway of its own.
func overseas(t testing.TB, region airtime.Region) plan.Request {
	t.Helper()
	req := request(t)
	req.Gateways[region] = []network.EUI64{mast}
	there := members(20, v100, 9, 0.1)
	for i := range there {
		there[i].Region = region
	}
	req.Waves[0].Members = append(req.Waves[0].Members, there...)
	return req
}

// Devices of two regions share no session: each region has its own data rates, channel, gateways and account of the
// air, and nobody waits for anybody in the other one.
func TestRegionsShareNothing(t *testing.T) {
	for _, there := range []airtime.Region{airtime.US915, airtime.AU915, airtime.AS923, airtime.IN865} { // none has a duty cycle
		req := overseas(t, there)
		s := fleet(t, req)
		seen := map[string]plan.Session{}
		for _, x := range s.Sessions {
			if _, twice := seen[x.Plan.Region]; twice {
				t.Errorf("%s: two sessions of %s", there, x.Plan.Region)
			}
			seen[x.Plan.Region] = x
			region, err := airtime.ParseRegion(x.Plan.Region)
			if err != nil {
				t.Fatal(err)
			}
			band, err := region.SubBand(x.Plan.Frequency)
			if err != nil {
				t.Errorf("%s: %v", there, err)
			}
			limit, err := region.MaxPayload(x.Plan.DataRate, airtime.Link{Direction: airtime.Downlink, Repeater: true})
			if err != nil || x.Plan.FragSize+3 > limit {
				t.Errorf("%s: DR%d with fragments of %d bytes in %s: %v", there, x.Plan.DataRate, x.Plan.FragSize, region, err)
			}
			for _, m := range req.Waves[0].Members {
				if slices.Contains(x.Devices, m.EUI) != (m.Region == region) {
					t.Errorf("%s: device of %s in a session of %s, or none in its own", there, m.Region, region)
				}
			}
			if !slices.Equal(x.Gateways, req.Gateways[region]) || x.Behind != "" {
				t.Errorf("%s: session of %s through %v, behind %q", there, region, x.Gateways, x.Behind)
			}
			// As fast as it may, and no faster: a region without a duty cycle makes nobody wait for it.
			rest := x.Plan.FragmentToA * 1000 / time.Duration(band.DutyCycle)
			if want := max(rest, x.Plan.FragmentToA+time.Second, 2*time.Second); x.Plan.Pace != want {
				t.Errorf("%s: a fragment of %s in %s every %s, want %s (duty cycle %d ‰)", there, x.Plan.FragmentToA, band.Name, x.Plan.Pace, want, band.DutyCycle)
			}
		}
		if len(seen) != 2 || !s.Sessions[0].Opens.Equal(s.Sessions[1].Opens) {
			t.Errorf("%s: %s", there, describe(s))
		}
		if len(s.Usage) != 2 {
			t.Fatalf("%s: usage %+v", there, s.Usage)
		}
		for _, u := range s.Usage {
			x := seen[u.Region]
			region, _ := airtime.ParseRegion(u.Region)
			band, err := region.SubBand(x.Plan.Frequency)
			if err != nil || u.Gateway != x.Gateways[0] || u.SubBand != band.Name || u.Allowed != band.Allowance() || u.Peak > u.Allowed {
				t.Errorf("%s: usage %+v, want that of %s in %s: %v", there, u, x.Gateways[0], band.Name, err)
			}
		}
		if x := seen[there.String()]; x.Delayed != 0 || s.Usage[1].Allowed != time.Hour {
			t.Errorf("%s has no duty cycle, and delays frames by %s, allows %s", there, x.Delayed, s.Usage[1].Allowed)
		}
		if whole := s.Sessions[0].Airtime + s.Sessions[1].Airtime; s.Airtime != whole {
			t.Errorf("%s: airtime %s in all, want %s", there, s.Airtime, whole)
		}
	}
}

// The energy of an answer is that of an uplink of the region: downlink data rates of US915 have no counterpart, and its
// dwell time leaves no answer slower than SF9.
func TestAnswersAreUplinks(t *testing.T) {
	for _, tt := range []struct {
		region airtime.Region
		snr    float64
		sf     int // of the answers
	}{{airtime.EU868, -30, 12}, {airtime.US915, -30, 9}, {airtime.AU915, -30, 9}, {airtime.US915, 30, 7}} {
		req := request(t)
		req.Gateways = map[airtime.Region][]network.EUI64{tt.region: {mast}}
		req.Waves[0].Members = members(10, v100, tt.snr, 0.1)
		for i := range req.Waves[0].Members {
			req.Waves[0].Members[i].Region = tt.region
		}
		req.Receive, req.Transmit = 0, 3600 // mA: an ampere second is a milliampere hour
		s := fleet(t, req).Sessions[0]
		up := airtime.DataRate{SpreadingFactor: tt.sf, Bandwidth: 125_000, Uplink: true}.TimeOnAir(12+13, airtime.Uplink)
		if want := up.Seconds() * float64(s.Uplinks) / float64(len(s.Devices)); s.Energy < want*0.999 || s.Energy > want*1.001 {
			t.Errorf("%s at DR%d: %.3f mAh for %d uplinks, want %.3f at SF%d", tt.region, s.Plan.DataRate, s.Energy, s.Uplinks, want, tt.sf)
		}
	}
}

// A gateway is booked in the region of what it sends, and a campaign that was kept is booked through its own gateways.
func TestTakeRegions(t *testing.T) {
	first, again := book(t, 1), book(t, 1)
	want, problems := plan.Fleet(first, overseas(t, airtime.US915))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if err := again.Take(want, 0); err != nil {
		t.Fatal(err)
	}
	gateways := []network.EUI64{roof, mast}
	if a, b := first.Usage(gateways), again.Usage(gateways); !slices.Equal(a, b) || len(a) != 2 {
		t.Errorf("usage %+v, taken again %+v", a, b)
	}
	// One that was kept before sessions had gateways of their own used all of them.
	for i := range want.Sessions {
		want.Sessions[i].Gateways = nil
	}
	old := book(t, 1)
	if err := old.Take(want, 0); err != nil || len(old.Usage(gateways)) != 4 {
		t.Errorf("usage %+v, %v", old.Usage(gateways), err)
	}
	broken := want
	broken.Sessions = slices.Clone(want.Sessions)
	broken.Sessions[0].Plan.Region = "EU869"
	if err := old.Take(broken, 0); err == nil || !strings.Contains(err.Error(), "EU869") {
		t.Errorf("a region that does not exist: %v", err)
	}
}

func TestRegionsRefuse(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*plan.Request)
		want   []string
	}{
		{"data rate of one region", func(r *plan.Request) { r.DataRate = 5 }, []string{"radio.data_rate: US915 has no downlink data rate 5"}},
		{"frequency of one region", func(r *plan.Request) { r.Frequency = 869_525_000 }, []string{"radio.frequency_hz: US915"}},
		{"no gateway in one region", func(r *plan.Request) { delete(r.Gateways, airtime.US915) }, []string{"radio.gateways: no gateway of US915 is online"}},
		{"everything at once", func(r *plan.Request) { r.DataRate, r.Frequency, r.Gateways = 7, 1, nil }, []string{
			"radio.data_rate: EU868", "radio.data_rate: US915", "radio.frequency_hz: EU868", "radio.frequency_hz: US915",
			"radio.gateways: no gateway of EU868", "radio.gateways: no gateway of US915"}},
		{"no region", func(r *plan.Request) { r.Waves[0].Members[3].Region = 0 }, []string{"devices: it is not known in which region device"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := overseas(t, airtime.US915)
			tt.change(&req)
			_, problems := plan.Fleet(book(t, 1), req)
			var got []string
			for _, p := range problems {
				got = append(got, p.Key+": "+p.Text)
			}
			for _, want := range tt.want {
				if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
					t.Errorf("no %q among %q", want, got)
				}
			}
			if len(got) != len(tt.want) {
				t.Errorf("%d problems, want %d: %q", len(got), len(tt.want), got)
			}
		})
	}
}
