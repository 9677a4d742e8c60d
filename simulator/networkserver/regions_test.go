package networkserver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
)

var mast = lorawan.EUI64{0, 0x16, 0xc0, 2}

// overseas adds a gateway of US915, and two devices there: 1 has a profile of the region, 2 one of EU868.
func overseas(t *testing.T) *simnet {
	t.Helper()
	plan, err := radio.NewPlan(airtime.US915)
	if err != nil {
		t.Fatal(err)
	}
	loss, err := radio.NewIndependent(seed, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	us := networkserver.UUID(1, "profile of US915")
	var devices *fleet.Fleet
	n := start(t, options{configure: func(c *networkserver.Config) {
		medium := radio.NewMedium(c.World, plan, loss)
		if devices, err = fleet.New(fleet.Config{World: c.World, Medium: medium, Seed: seed}); err != nil {
			t.Fatal(err)
		}
		c.Media = []*radio.Medium{medium}
		c.Gateways = append(c.Gateways, networkserver.Gateway{ID: mast, Name: "mast", Region: airtime.US915})
		c.Profiles = append(c.Profiles, networkserver.DeviceProfile{ID: us, Name: "overseas", Region: airtime.US915})
		for i, profile := range []string{us, profileID} {
			c.Devices = append(c.Devices, networkserver.Device{EUI: eui(i + 1), Name: "meter", Application: appID, Profile: profile,
				Keys: &networkserver.Keys{AppKey: appKey(i + 1)}})
			if _, err := devices.Add(fleet.DeviceConfig{EUI: eui(i + 1), AppKey: appKey(i + 1), DataRate: 4, App: &model{period: 60_000}}); err != nil {
				t.Fatal(err)
			}
		}
	}})
	t.Cleanup(func() { devices.Close() })
	return n
}

// What a gateway hears of a device whose profile is of another region is thrown away without an event.
func TestRegionOfTheProfile(t *testing.T) {
	n := overseas(t)
	n.run(5 * time.Minute)
	var heard []string
	for _, e := range n.of("up") {
		up := e.m.(*integration.UplinkEvent)
		if up.RegionConfigId != "us915" || up.TxInfo.Frequency < 902_000_000 {
			t.Errorf("uplink %v", up)
		}
		if !slices.Contains(heard, e.eui) {
			heard = append(heard, e.eui)
		}
	}
	if fmt.Sprint(heard) != "["+eui(1).String()+"]" || len(n.of("join")) != 1 {
		t.Errorf("heard %v, %d joins, want only %s", heard, len(n.of("join")), eui(1))
	}
	p, err := api.NewDeviceProfileServiceClient(n.conn).Get(n.ctx, &api.GetDeviceProfileRequest{Id: networkserver.UUID(1, "profile of US915")})
	if err != nil || p.DeviceProfile.Region != common.Region_US915 {
		t.Errorf("profile %v %v", p, err)
	}
	gws, err := api.NewGatewayServiceClient(n.conn).List(n.ctx, &api.ListGatewaysRequest{Limit: 10, TenantId: tenantID})
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range gws.Result {
		if want := map[bool]string{true: "US915", false: "EU868"}[g.GatewayId == mast.String()]; g.Properties["region_common_name"] != want ||
			g.Properties["region_config_id"] != strings.ToLower(want) {
			t.Errorf("gateway %s has properties %v", g.GatewayId, g.Properties)
		}
	}
}

// The region of a group is kept and never looked at: what a data rate is, and carries, is that of each gateway.
func TestRegionOfAGroupIsNeverLookedAt(t *testing.T) {
	n := overseas(t)
	n.run(time.Minute)
	for _, tt := range []struct {
		region common.Region
		dr     uint32
		size   int
		sent   bool
		left   int
	}{
		{common.Region_US915, 8, 40, true, 0},
		{common.Region_EU868, 8, 40, true, 0},
		{common.Region_US915, 8, 60, false, 0}, // DR8 carries 53 bytes
		{common.Region_EU868, 5, 40, false, 1}, // a data rate of uplinks there: tried for ever
	} {
		_, before := n.server.Airtime(mast)
		g, err := n.multicast().Create(n.ctx, &api.CreateMulticastGroupRequest{MulticastGroup: &api.MulticastGroup{
			Name: fmt.Sprint(tt), ApplicationId: appID, Region: tt.region, McAddr: "01020304", McNwkSKey: strings.Repeat("01", 16), McAppSKey: strings.Repeat("02", 16),
			GroupType: api.MulticastGroupType_CLASS_C, Dr: tt.dr, Frequency: 923_300_000}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.multicast().AddGateway(n.ctx, &api.AddGatewayToMulticastGroupRequest{MulticastGroupId: g.Id, GatewayId: mast.String()}); err != nil {
			t.Fatal(err)
		}
		if _, err := n.multicast().Enqueue(n.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{
			MulticastGroupId: g.Id, FPort: 201, Data: make([]byte, tt.size)}}); err != nil {
			t.Fatal(err)
		}
		n.run(n.world.Now().Sub(epoch) + 20*time.Second)
		_, after := n.server.Airtime(mast)
		queue, err := n.multicast().ListQueue(n.ctx, &api.ListMulticastGroupQueueRequest{MulticastGroupId: g.Id})
		if err != nil {
			t.Fatal(err)
		}
		if after > before != tt.sent || len(queue.Items) != tt.left {
			t.Errorf("%s DR%d, %d bytes: %d frames on the air, %d in the queue; want sent %v, %d left",
				tt.region, tt.dr, tt.size, after-before, len(queue.Items), tt.sent, tt.left)
		}
	}
}
