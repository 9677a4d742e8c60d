package traps_test

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

// refuses opens a group that is changed to what ChirpStack would take and never carry out.
func refuses(change func(*network.Group)) func(*probe) error {
	return func(p *probe) error {
		r := p.start(site{})
		g := r.group(1)
		change(&g)
		if _, err := r.cs.OpenGroup(p.t.Context(), g); !isInvalid(err) {
			return errorf("OpenGroup = %v, want ErrInvalid", err)
		}
		return nil
	}
}

var groupTraps = []trap{
	{"0.1, 2.1", "a group without gateways: frames are accepted, counted, and never sent", "chirpstack.OpenGroup pins, refuses none", "chirpstack gateways-pinned",
		refuses(func(g *network.Group) { g.Gateways = nil })},
	{"1.4", "a group without frequency is accepted", "chirpstack.OpenGroup", "chirpstack frequency",
		refuses(func(g *network.Group) { g.Frequency = 0 })},
	{"1.4", "a group with keys all zero is accepted", "chirpstack.OpenGroup", "chirpstack session-keys",
		refuses(func(g *network.Group) { g.AppSKey = network.Key{} })},
	{"0.7, 1.4", "an unknown data rate is accepted, and each frame tried for ever", "chirpstack.OpenGroup", "chirpstack data-rate",
		refuses(func(g *network.Group) { g.DataRate = 15 })},
	{"2.2", "class B with periodicity above 7 is accepted, and Enqueue breaks", "chirpstack.OpenGroup", "chirpstack periodicity",
		refuses(func(g *network.Group) { g.Class, g.Periodicity = network.ClassB, 8 })},
	{"2.3, 2.6", "a gateway that is offline is accepted", "chirpstack.OpenGroup", "chirpstack gateway-online", offlineGateway},
	{"2.3", "a gateway without region_config_id: each frame is tried for ever", "chirpstack.OpenGroup", "chirpstack gateway-region", gatewayWithoutRegion},
	{"0.1, 2.1", "left to itself it chooses gateways anew for each frame", "chirpstack.OpenGroup pins", "", automaticGateways},
	{"2.1, 5", "a gateway that is deleted leaves a group that sends nothing", "chirpstack.Broadcast looks at the pins", "chirpstack pins-checked", deletedGateway},
	{"0.5, 2.2", "GPS_TIME hands frames over when their time has come", "chirpstack.OpenGroup asks for DELAY", "chirpstack delay-scheduling", gpsTime},
	{"1.4", "Update replaces the frame counter", "chirpstack never calls Update", "", updateCounter},
	{"1.4", "names are not unique: a repeated Create makes a second group", "chirpstack.OpenGroup looks for the first", "chirpstack group-found", createdTwice},
	{"1.2", "a search finds what has the name in its name", "chirpstack.OpenGroup compares names", "chirpstack exact-name", nameInName},
	{"1.4", "a group that is left over under the name has other settings", "chirpstack.OpenGroup compares", "chirpstack group-settings", otherSettings},
	{"0.9, 1.1", "for the key of a tenant what is gone is Unauthenticated", "chirpstack.CloseGroup looks into the list", "chirpstack gone-is-closed", goneForTenant},
	{"4.2", "groups are left behind and go on sending", "chirpstack.Orphans", "", orphans},
	{"1.2", "a list of groups by tenant shows those of all", "chirpstack.Orphans names the application", "", foreignGroups},
	{"2.1", "concurrent Enqueue on SQLite: database is locked", "chirpstack.Broadcast, one at a time", "chirpstack enqueue-serial", concurrentEnqueue},
	{"4, 5", "its own FUOTA ends sessions early, and never repairs", "the service is never called", "", neverOwnFUOTA},
}

func offlineGateway(p *probe) error {
	r := p.start(site{gateways: 2, server: func(c *networkserver.Config) {
		c.Faults.Outages = []networkserver.Outage{{Gateway: c.Gateways[1].ID, From: time.Second, Until: time.Hour}}
	}})
	r.run(3 * time.Minute)
	if _, err := r.cs.OpenGroup(p.t.Context(), r.group(2)); !isInvalid(err) {
		return errorf("OpenGroup with a gateway that is offline = %v, want ErrInvalid", err)
	}
	return nil
}

func gatewayWithoutRegion(p *probe) error {
	f := &fake{gateways: []*api.GatewayListItem{{GatewayId: gatewayID(0).String(), Name: "new", State: api.GatewayState_ONLINE}}}
	cs := f.serve(p.t)
	_, err := cs.OpenGroup(p.t.Context(), network.Group{Name: "sower-1", Application: appID, AppSKey: network.Key{1}, NwkSKey: network.Key{2},
		Class: network.ClassC, DataRate: 5, Frequency: mcFreq, Gateways: []network.EUI64{gatewayID(0)}})
	if !isInvalid(err) {
		return errorf("OpenGroup = %v, want ErrInvalid", err)
	}
	return nil
}

func automaticGateways(p *probe) error {
	r := p.start(site{devices: 1, beacons: 1, gateways: 2})
	r.run(90 * time.Second)
	var id network.GroupID
	if p.naive {
		res, err := r.multicast().Create(r.ctx, &api.CreateMulticastGroupRequest{MulticastGroup: &api.MulticastGroup{Name: "auto", ApplicationId: appID,
			McAddr: "01020304", McAppSKey: "01000000000000000000000000000000", McNwkSKey: "02000000000000000000000000000000", Dr: mcDR, Frequency: mcFreq}})
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := r.multicast().AddDevice(r.ctx, &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: res.Id, DevEui: eui(0).String()}); err != nil {
			p.t.Fatal(err)
		}
		id = network.GroupID(res.Id)
	} else {
		id = r.open(2)
	}
	const frames = 12
	for i := range frames {
		var err error
		if p.naive {
			_, err = r.multicast().Enqueue(r.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{
				MulticastGroupId: string(id), FPort: 201, Data: []byte{1}}})
		} else {
			_, err = r.cs.Broadcast(p.t.Context(), frame(id, time.Hour))
		}
		if err != nil {
			p.t.Fatal(err)
		}
		r.run(2*time.Minute + time.Duration(i)*20*time.Second)
	}
	by := map[network.EUI64]int{}
	for _, f := range r.air.frames {
		by[network.EUI64(f.Gateway)]++
	}
	if by[gatewayID(0)] != frames || by[gatewayID(1)] != frames {
		return errorf("of %d frames the two gateways sent %d and %d", frames, by[gatewayID(0)], by[gatewayID(1)])
	}
	return nil
}

func deletedGateway(p *probe) error {
	r := p.start(site{})
	id := r.open(1)
	if _, err := api.NewGatewayServiceClient(r.raw).Delete(r.ctx, &api.DeleteGatewayRequest{GatewayId: gatewayID(0).String()}); err != nil {
		p.t.Fatal(err)
	}
	fCnt, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour))
	r.run(2 * time.Minute)
	if !isInvalid(err) {
		return errorf("Broadcast = %d, %v, and %d frames on the air; want ErrInvalid", fCnt, err, len(r.air.frames))
	}
	return nil
}

func gpsTime(p *probe) error {
	r := p.start(site{})
	id := r.open(1)
	if _, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil {
		p.t.Fatal(err)
	}
	r.run(2 * time.Minute)
	if len(r.air.frames) == 0 {
		return errorf("the frame was never on the air")
	}
	return nil
}

func updateCounter(p *probe) error {
	var seen calls
	r := p.start(site{server: func(c *networkserver.Config) { c.Faults.Observe = seen.observe }})
	id := r.open(1)
	for i := range 3 {
		if p.naive { // pinned to another frequency between two frames, with what was read before the first
			res, err := r.multicast().Get(r.ctx, &api.GetMulticastGroupRequest{Id: string(id)})
			if err != nil {
				p.t.Fatal(err)
			}
			if _, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil {
				break
			}
			if _, err := r.multicast().Update(r.ctx, &api.UpdateMulticastGroupRequest{MulticastGroup: res.MulticastGroup}); err != nil {
				p.t.Fatal(err)
			}
		} else if _, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil {
			p.t.Fatal(err)
		}
		r.run(time.Duration(i+1) * time.Minute)
	}
	if n := len(r.air.counters()); n != 3 || seen.has("MulticastGroupService/Update") {
		return errorf("counters %v on the air, Update called: %v", r.air.counters(), seen.has("MulticastGroupService/Update"))
	}
	return nil
}

func createdTwice(p *probe) error {
	r := p.start(site{server: func(c *networkserver.Config) {
		c.Faults.Calls = []networkserver.CallFault{{Method: "/api.MulticastGroupService/Create", Count: 1, Effect: networkserver.ReplyLost}}
	}})
	if _, err := r.cs.OpenGroup(p.t.Context(), r.group(1)); !isUncertain(err) {
		return errorf("OpenGroup whose reply is lost = %v, want ErrUncertain", err)
	}
	if _, err := r.cs.OpenGroup(p.t.Context(), r.group(1)); err != nil {
		return err
	}
	if groups, err := r.cs.Orphans(p.t.Context(), appID, nil); err != nil || len(groups) != 1 {
		return errorf("%d groups, %v; want 1", len(groups), err)
	}
	return nil
}

func nameInName(p *probe) error {
	r := p.start(site{})
	g := r.group(1)
	g.Name, g.McAddr = "sower-10", 0x05060708
	if _, err := r.cs.OpenGroup(p.t.Context(), g); err != nil {
		return err
	}
	if _, err := r.cs.OpenGroup(p.t.Context(), r.group(1)); err != nil {
		return errorf("sower-1 beside sower-10: %v", err)
	}
	return nil
}

func otherSettings(p *probe) error {
	r := p.start(site{})
	r.open(1)
	g := r.group(1)
	g.NwkSKey = network.Key{9}
	if _, err := r.cs.OpenGroup(p.t.Context(), g); !isInvalid(err) {
		return errorf("OpenGroup with another key = %v, want ErrInvalid", err)
	}
	return nil
}

func goneForTenant(p *probe) error {
	r := p.start(site{server: func(c *networkserver.Config) { c.Keys = []networkserver.APIKey{{Token: "tenant", Tenant: tenantID}} },
		client: func(c *chirpstack.Config) { c.Token = "tenant" }})
	id := r.open(1)
	if _, err := r.multicast().Delete(r.ctx, &api.DeleteMulticastGroupRequest{Id: string(id)}); err != nil {
		p.t.Fatal(err)
	}
	if err := r.cs.CloseGroup(p.t.Context(), id); err != nil {
		return errorf("CloseGroup of a group that is gone = %v", err)
	}
	return nil
}

func orphans(p *probe) error {
	r := p.start(site{})
	id := r.open(1)
	live := r.group(1)
	live.Name = "sower-2"
	if _, err := r.cs.OpenGroup(p.t.Context(), live); err != nil {
		p.t.Fatal(err)
	}
	if _, err := r.multicast().Create(r.ctx, &api.CreateMulticastGroupRequest{MulticastGroup: &api.MulticastGroup{Name: "lamps, not sower-3", ApplicationId: appID}}); err != nil {
		p.t.Fatal(err)
	}
	if _, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil {
		p.t.Fatal(err)
	}
	if !p.naive { // the engine that made the group died; another comes up
		found, err := r.cs.Orphans(p.t.Context(), appID, []string{"sower-2"})
		if err != nil || len(found) != 1 || found[0].ID != id || found[0].Name != "sower-1" {
			return errorf("Orphans = %v, %v, want group sower-1", found, err)
		}
		if err := r.cs.CloseGroup(p.t.Context(), found[0].ID); err != nil {
			return errorf("CloseGroup = %v", err)
		}
		if left, err := r.cs.Orphans(p.t.Context(), appID, nil); err != nil || len(left) != 1 || left[0].Name != "sower-2" {
			return errorf("left are %v, %v, want sower-2", left, err)
		}
	}
	r.run(2 * time.Minute)
	if len(r.air.frames) != 0 {
		return errorf("%d frames of a campaign that nobody runs", len(r.air.frames))
	}
	return nil
}

func foreignGroups(p *probe) error {
	r := p.start(site{})
	r.open(1)
	g := r.group(1)
	g.Application, g.Name = otherApp, "sower-2"
	if _, err := r.cs.OpenGroup(p.t.Context(), g); err != nil {
		p.t.Fatal(err)
	}
	var names []string
	if p.naive {
		res, err := r.multicast().List(r.ctx, &api.ListMulticastGroupsRequest{TenantId: networkserver.UUID(1, "another tenant"), Limit: 10})
		if err != nil {
			p.t.Fatal(err)
		}
		for _, g := range res.Result {
			names = append(names, g.Name)
		}
	} else {
		groups, err := r.cs.Orphans(p.t.Context(), appID, nil)
		if err != nil {
			return err
		}
		for _, g := range groups {
			names = append(names, g.Name)
		}
	}
	if len(names) != 1 || names[0] != "sower-1" {
		return errorf("groups %v, want sower-1", names)
	}
	return nil
}

func concurrentEnqueue(p *probe) error {
	var inside, worst atomic.Int32
	second := make(chan struct{})
	var once sync.Once
	f := &fake{gateways: []*api.GatewayListItem{{GatewayId: gatewayID(0).String(), State: api.GatewayState_ONLINE, Properties: map[string]string{"region_config_id": "eu868"}}}}
	f.enqueue = func() {
		if n := inside.Add(1); n > 1 {
			worst.Store(n)
			once.Do(func() { close(second) })
		}
		defer inside.Add(-1)
		limit := time.NewTimer(250 * time.Millisecond)
		defer limit.Stop()
		select { // the other call has this long to come in
		case <-second:
		case <-limit.C:
		}
	}
	cs := f.serve(p.t)
	var both sync.WaitGroup
	for _, id := range []network.GroupID{"g", "h"} {
		both.Go(func() {
			if _, err := cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil {
				p.t.Error(err)
			}
		})
	}
	both.Wait()
	if worst.Load() > 1 {
		return errorf("%d calls of Enqueue at the same time", worst.Load())
	}
	return nil
}

func neverOwnFUOTA(p *probe) error {
	var seen calls
	r := p.start(site{devices: 2, beacons: 1, server: func(c *networkserver.Config) { c.Faults.Observe = seen.observe }})
	if p.naive {
		api.NewFuotaServiceClient(r.raw).StartDeployment(r.ctx, &api.StartFuotaDeploymentRequest{})
	}
	stop := r.listen()
	defer stop()
	if _, err := r.cs.Capabilities(p.t.Context()); err != nil {
		return err
	}
	if _, err := r.cs.Devices(p.t.Context(), appID); err != nil {
		return err
	}
	id := r.open(1)
	for i := range 3 {
		if _, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil {
			return err
		}
		r.run(time.Duration(i+1) * 30 * time.Second)
	}
	if err := r.cs.CloseGroup(p.t.Context(), id); err != nil {
		return err
	}
	if seen.deploys() {
		return errorf("FuotaService was called")
	}
	for _, method := range []string{"MulticastGroupService/AddDevice", "Stream"} {
		if seen.has(method) {
			return errorf("%s was called", method)
		}
	}
	return nil
}

// dial connects our client to an address.
func dial(p *probe, change func(*chirpstack.Config)) (*chirpstack.Network, error) {
	cfg := chirpstack.Config{Server: "127.0.0.1:1", Token: token, Region: airtime.EU868}
	change(&cfg)
	cs, err := chirpstack.Dial(cfg)
	if err == nil {
		p.t.Cleanup(func() { cs.Close() })
	}
	return cs, err
}
