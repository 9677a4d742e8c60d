package chirpstack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

var (
	mast    = network.EUI64{0, 0x16, 0xc0, 9}
	profile = networkserver.UUID(1, "profile of US915")
)

// twoRegions is a server with a gateway and a device in EU868, and the same in US915.
func twoRegions(t *testing.T, client func(*chirpstack.Config)) (w *world.World, cs *chirpstack.Network, dial func() *chirpstack.Network) {
	t.Helper()
	plan, err := radio.NewPlan(airtime.US915)
	if err != nil {
		t.Fatal(err)
	}
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return serverWith(t, 2, 0, func(c *networkserver.Config) {
		c.Media = []*radio.Medium{radio.NewMedium(c.World, plan, loss)}
		c.Gateways = append(c.Gateways, networkserver.Gateway{ID: lorawan.EUI64(mast), Name: "mast", Region: airtime.US915})
		c.Profiles = append(c.Profiles, networkserver.DeviceProfile{ID: profile, Name: "overseas", Region: airtime.US915})
		c.Devices[1].Profile = profile
	}, func(c *chirpstack.Config) {
		c.Region = 0
		if client != nil {
			client(c)
		}
	})
}

func regionGroup(region string, dr int, gateways ...network.EUI64) network.Group {
	return network.Group{Name: fmt.Sprintf("sower-%s-%d-%d", region, dr, len(gateways)), Application: appID, McAddr: 0x01020304, AppSKey: network.Key{1}, NwkSKey: network.Key{2},
		Class: network.ClassC, Region: region, DataRate: dr, Frequency: map[bool]uint32{true: 869_525_000, false: 923_300_000}[region == "EU868"], Gateways: gateways}
}

// Devices work in the region of their profile, gateways in the one that they report.
func TestRegionsOfDevicesAndGateways(t *testing.T) {
	_, cs, _ := twoRegions(t, nil)
	devices, err := cs.Devices(t.Context(), appID)
	if err != nil || len(devices) != 2 || devices[0].Region != "EU868" || devices[1].Region != "US915" {
		t.Errorf("devices %+v %v", devices, err)
	}
	gateways, err := cs.Gateways(t.Context(), appID)
	if err != nil || len(gateways) != 2 {
		t.Fatal(gateways, err)
	}
	for _, g := range gateways {
		if want := map[network.EUI64]string{gateway: "EU868", mast: "US915"}[g.ID]; g.Region != want {
			t.Errorf("gateway %s is of %q, want %s", g.ID, g.Region, want)
		}
	}
	if p, err := cs.Profile(t.Context(), profile); err != nil || p.Region != "US915" {
		t.Errorf("profile %+v %v", p, err)
	}
	caps, err := cs.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for region, want := range map[string]map[int]int{"EU868": {0: 51, 3: 115, 5: 222}, "US915": {8: 33, 9: 109, 13: 222}} {
		for dr, n := range want {
			if caps.Regions[region][dr] != n {
				t.Errorf("%s DR%d carries %d, want %d", region, dr, caps.Regions[region][dr], n)
			}
		}
	}
	if _, ok := caps.Regions["US915"][5]; ok {
		t.Error("DR5 is no downlink data rate of US915")
	}
}

// A group is of one region, that of its gateways, by which its data rates and payloads are judged.
func TestRegionOfAGroup(t *testing.T) {
	_, cs, _ := twoRegions(t, nil)
	for _, tt := range []struct {
		group network.Group
		want  string // part of the error; empty: none
	}{
		{regionGroup("EU868", 5, gateway), ""},
		{regionGroup("US915", 8, mast), ""},
		{regionGroup("", 10, mast), ""},
		{regionGroup("EU868", 5, gateway, mast), "(mast) is of US915 and the group of EU868"},
		{regionGroup("", 5, mast, gateway), "(roof) is of EU868 and the group of US915"},
		{regionGroup("US915", 8, gateway), "(roof) is of EU868 and the group of US915"},
		{regionGroup("US915", 5, mast), "DR5"},
		{regionGroup("EU868", 8, gateway), "DR8"},
		{regionGroup("CN470", 0, gateway), "of EU868 and the group of CN470"},
	} {
		id, err := cs.OpenGroup(t.Context(), tt.group)
		if (err != nil) != (tt.want != "") || err != nil && (!errors.Is(err, network.ErrInvalid) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%q DR%d through %d gateways: %v, want %q", tt.group.Region, tt.group.DataRate, len(tt.group.Gateways), err, tt.want)
		}
		if err == nil {
			if err := cs.CloseGroup(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, only, _ := twoRegions(t, func(c *chirpstack.Config) { c.Region = airtime.EU868 })
	if _, err := only.OpenGroup(t.Context(), regionGroup("US915", 8, mast)); !errors.Is(err, network.ErrInvalid) || !strings.Contains(err.Error(), "no other region than EU868") {
		t.Errorf("a group of US915 where only EU868 is wanted: %v", err)
	}
	if _, err := only.OpenGroup(t.Context(), regionGroup("", 8, mast)); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("a gateway of US915 where only EU868 is wanted: %v", err)
	}
}

// What a group carries is what its region carries, also to an engine that has not opened it itself.
func TestPayloadOfTheRegion(t *testing.T) {
	w, cs, dial := twoRegions(t, nil)
	id, err := cs.OpenGroup(t.Context(), regionGroup("US915", 8, mast))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := api.NewMulticastGroupServiceClient(cs.Conn()).Get(t.Context(), &api.GetMulticastGroupRequest{Id: string(id)})
	if err != nil || stored.MulticastGroup.Region.String() != "US915" {
		t.Errorf("the server has %v %v", stored, err)
	}
	for name, nw := range map[string]*chirpstack.Network{"the one that opened it": cs, "another one": dial()} {
		if _, err := nw.Broadcast(t.Context(), network.Broadcast{Group: id, FPort: 201, Payload: make([]byte, 34), Expires: w.Now().Add(time.Minute)}); !errors.Is(err, network.ErrInvalid) ||
			!strings.Contains(err.Error(), "DR8 carries 33") {
			t.Errorf("%s, 34 bytes at DR8 of US915: %v", name, err)
		}
	}
	if _, err := cs.Broadcast(t.Context(), network.Broadcast{Group: id, FPort: 201, Payload: make([]byte, 33), Expires: w.Now().Add(time.Minute)}); err != nil {
		t.Errorf("33 bytes: %v", err)
	}
}

// With the topics of both regions, every gateway's word is heard.
func TestGatewayTopicsOfTwoRegions(t *testing.T) {
	for _, tt := range []struct {
		topics string
		want   []network.EUI64
	}{{"eu868, us915/", []network.EUI64{gateway, mast}}, {"us915", []network.EUI64{mast}}} {
		w, cs, _ := twoRegions(t, func(c *chirpstack.Config) { c.GatewayTopics = tt.topics })
		ctx, cancel := context.WithCancel(t.Context())
		events, err := cs.Events(ctx, appID)
		if err != nil {
			t.Fatal(err)
		}
		var sent []network.EUI64
		heard := make(chan struct{})
		go func() {
			defer close(heard)
			for ev := range events {
				if ev.Kind == network.EventSent && ev.Group != "" {
					sent = append(sent, ev.Gateway)
				}
				ev.Done()
			}
		}()
		runUntil(t, w, time.Minute)
		for i, g := range []network.Group{regionGroup("EU868", 5, gateway), regionGroup("US915", 8, mast)} {
			g.McAddr += uint32(i)
			id, err := cs.OpenGroup(t.Context(), g)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := cs.Broadcast(t.Context(), network.Broadcast{Group: id, FPort: 201, Payload: []byte{1}, Expires: w.Now().Add(time.Minute)}); err != nil {
				t.Fatal(err)
			}
		}
		runUntil(t, w, 2*time.Minute)
		if b, err := cs.ProbeBroker(t.Context(), appID, time.Millisecond); err != nil || !b.Gateways {
			t.Errorf("with gateway topics %q: ProbeBroker = %+v, %v", tt.topics, b, err)
		}
		cancel()
		<-heard
		slices.SortFunc(sent, func(a, b network.EUI64) int { return bytes.Compare(a[:], b[:]) })
		if !slices.Equal(sent, tt.want) {
			t.Errorf("with gateway topics %q: word of %v, want %v", tt.topics, sent, tt.want)
		}
	}
}
