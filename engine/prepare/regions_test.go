package prepare_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
)

// A campaign over devices of two regions has sessions of each, with the gateways of that region.
func TestRegions(t *testing.T) {
	c, err := plan(t, &server{n: 20, overseas: 8}, "")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := c.Spec(t.Context(), oneGroup, nil)
	if err != nil {
		t.Fatal(err)
	}
	devices := map[string]int{}
	for _, x := range spec.Waves[0].Sessions {
		want := map[string]network.EUI64{"EU868": {1}, "US915": {4}}[x.Plan.Region]
		if !slices.Equal(x.Gateways, []network.EUI64{want}) {
			t.Errorf("session of %s through %v, want %v", x.Plan.Region, x.Gateways, want)
		}
		for _, d := range x.Devices {
			if got := c.Device(d.EUI).Region; got != x.Plan.Region {
				t.Errorf("device %s of %s in a session of %s", d.EUI, got, x.Plan.Region)
			}
			devices[x.Plan.Region]++
		}
	}
	if len(spec.Waves) != 1 || devices["EU868"] != 12 || devices["US915"] != 8 {
		t.Errorf("%d waves, devices %v, want 12 and 8 in one", len(spec.Waves), devices)
	}
}

func TestRegionProblems(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    server
		more string
		only airtime.Region
		want []string // all of them
	}{
		{"both regions", server{n: 4, overseas: 2}, "", 0, nil},
		{"the region of the settings", server{n: 4}, "", airtime.EU868, nil},
		{"another than in the settings", server{n: 4, overseas: 2}, "", airtime.EU868, []string{"device profile us is of US915, and the settings want no other region than EU868"}},
		{"a region that is not known", server{n: 4, overseas: 2, abroad: "CN470"}, "", 0,
			[]string{`device profile us is of region "CN470"`}},
		{"no gateway there", server{n: 4, overseas: 2, abroad: "AU915"}, "", 0, []string{"no gateway of AU915 is online"}},
		{"the gateways of one region only", server{n: 4, overseas: 2}, "[radio]\ngateways = [\"0100000000000000\"]\n", 0, []string{"no gateway of US915 is online"}},
		{"gateways of both", server{n: 4, overseas: 2}, "[radio]\ngateways = [\"0100000000000000\", \"0400000000000000\"]\n", 0, nil},
		{"a gateway of no use", server{n: 4}, "[radio]\ngateways = [\"0100000000000000\", \"0400000000000000\"]\n", 0,
			[]string{"gateway 0400000000000000 (mast) is of US915, where no device of the campaign works"}},
		{"a gateway that never reported", server{n: 4}, "[radio]\ngateways = [\"0100000000000000\", \"0300000000000000\"]\n", 0,
			[]string{"gateway 0300000000000000 (attic) has no region on the server"}},
		{"a gateway twice", server{n: 4}, "[radio]\ngateways = [\"0100000000000000\", \"0100000000000000\"]\n", 0, []string{"gateway 0100000000000000 is listed twice"}},
		{"a data rate of one region", server{n: 4, overseas: 2}, "[radio]\ndata_rate = 5\n", 0, []string{"US915 has no downlink data rate 5"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := planner(t, &tt.s)
			p.Settings.Region = tt.only
			_, err := p.Plan(t.Context(), []prepare.File{{Name: "c.toml", Text: text(tt.more), Read: files(t)}}, now)
			list, _ := err.(config.Problems)
			if len(list) != len(tt.want) {
				t.Fatalf("%d problems, want %d: %v", len(list), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.Contains(list[i].Text, want) || list[i].Remedy == "" || list[i].File != "c.toml" {
					t.Errorf("problem %+v, want %q", list[i], want)
				}
			}
		})
	}
}

// A campaign of one region keeps the gateways of that region only: where a later one has both, its devices elsewhere
// could be served at once, but it begins when all of them can.
func TestStartedElsewhere(t *testing.T) {
	shared := files(t)
	file := func(name, list string) prepare.File {
		text := strings.Replace(string(text("[devices]\nlist = ["+list+"]\n")), "meters", name, 1)
		return prepare.File{Name: name + ".toml", Text: []byte(text), Read: shared}
	}
	quote := func(i int) string { return `"` + eui(i).String() + `"` }
	// Devices 0 and 1 are overseas.
	for _, tt := range []struct {
		first string
		waits string // region
	}{{quote(1), "US915"}, {quote(3), "EU868"}} {
		list, err := planner(t, &server{n: 4, overseas: 2}).Plan(t.Context(), []prepare.File{file("one", tt.first), file("two", quote(0)+","+quote(2))}, now)
		if err != nil {
			t.Fatal(err)
		}
		first := list[0].Schedule.Sessions[0]
		for _, s := range list[1].Schedule.Sessions {
			if (s.Behind == "one") != (s.Plan.Region == tt.waits) {
				t.Errorf("behind a campaign of %s, the session of %s is behind %q", tt.waits, s.Plan.Region, s.Behind)
			}
		}
		if want := now.Add(first.Ends.Sub(first.Opens)); !list[1].Schedule.Starts.Equal(want) {
			t.Errorf("behind a campaign of %s: starts %s, want %s", tt.waits, list[1].Schedule.Starts, want)
		}
	}
}
