package prepare_test

import (
	"context"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
)

// bServer is a server that has class B, too.
type bServer struct{ *server }

func (bServer) Capabilities(context.Context) (network.Capabilities, error) {
	return network.Capabilities{Name: "fake", MulticastClasses: []network.Class{network.ClassC, network.ClassB}}, nil
}

// A campaign of class B arrives in the specification as such; without class B in the profile or on the server it is
// refused at its line.
func TestClassB(t *testing.T) {
	with := func(s prepare.Server, more string) (*prepare.Campaign, error) {
		p := planner(t, nil)
		p.Server = s
		list, err := p.Plan(t.Context(), []prepare.File{{Name: "c.toml", Text: text(more), Read: files(t)}}, now)
		if err != nil {
			return nil, err
		}
		return list[0], nil
	}
	able := prepare.Profile{Name: "meter", ClassB: true}
	for _, tt := range []struct {
		radio       string
		periodicity uint8
	}{
		{"class = \"B\"\ndata_rate = 3\n", 2},
		{"class = \"B\"\nping_slot_periodicity = 5\n", 5},
		{"class = \"B\"\nping_slot_periodicity = 0\n", 0},
	} {
		c, err := with(bServer{&server{n: 10, profile: able}}, "[radio]\n"+tt.radio)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := c.Spec(t.Context(), oneGroup, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := campaign.New(spec); err != nil {
			t.Error(err)
		}
		ss := spec.Waves[0].Sessions[0]
		if ss.ClassB == nil || ss.ClassB.Periodicity != tt.periodicity || ss.Plan.ClassB == nil {
			t.Errorf("%q: %+v in the specification, %+v in the plan, want periodicity %d", tt.radio, ss.ClassB, ss.Plan.ClassB, tt.periodicity)
		}
		if o := c.Schedule.Sessions[0].Other; o == nil || o.ClassB != nil || o.Energy <= c.Schedule.Sessions[0].Energy {
			t.Errorf("%q: class C takes %+v", tt.radio, o)
		}
	}

	// Class C says what class B would take, but only of devices that can do it.
	for profile, want := range map[prepare.Profile]bool{able: true, {Name: "meter"}: false} {
		c, err := with(bServer{&server{n: 10, profile: profile}}, "")
		if err != nil {
			t.Fatal(err)
		}
		spec, err := c.Spec(t.Context(), oneGroup, nil)
		if err != nil || spec.Waves[0].Sessions[0].ClassB != nil {
			t.Errorf("%v: %+v", err, spec.Waves[0].Sessions[0].ClassB)
		}
		if got := c.Schedule.Sessions[0].Other; (got != nil) != want {
			t.Errorf("class B in the profile: %v, but the other class would take %+v", profile.ClassB, got)
		}
	}

	for _, tt := range []struct {
		server prepare.Server
		want   string
	}{
		{bServer{&server{n: 10, profile: prepare.Profile{Name: "meter"}}}, "c.toml:6: device profile meter has no class B, so its devices would not take part; switch class B on"},
		{&server{n: 10, profile: able}, "c.toml:6: fake has no class B multicast; use a network that has"},
	} {
		if _, err := with(tt.server, "[radio]\nclass = \"B\"\n"); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%v; want %q", err, tt.want)
		}
	}
}
