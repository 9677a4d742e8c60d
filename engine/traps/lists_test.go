package traps_test

import (
	"fmt"

	"github.com/chirpstack/chirpstack/api/go/v4/api"

	"github.com/sower-fuota/sower/simulator/networkserver"
)

var listTraps = []trap{
	{"1.2", "limit 0 lists nothing", "chirpstack lists by pages of 200", "", limitZero},
	{"1.2", "a list ends after a page", "chirpstack follows the pages", "chirpstack pages-follow", allDevices},
	{"1.2", "pages of an order with ties skip and repeat", "chirpstack.Devices by DevEUI", "chirpstack device-order", devicesInOrder},
	{"1.2", "groups have no order but the name", "chirpstack lists until nothing is missing", "chirpstack pages-complete", allGroups},
	{"1.2", "pages repeat rows", "chirpstack lists each once", "chirpstack pages-repeat", groupsOnce},
}

func limitZero(p *probe) error {
	r := p.start(site{devices: 3})
	n := 0
	if p.naive {
		res, err := api.NewDeviceServiceClient(r.raw).List(r.ctx, &api.ListDevicesRequest{ApplicationId: appID})
		if err != nil {
			p.t.Fatal(err)
		}
		n = len(res.Result)
	} else {
		devices, err := r.cs.Devices(p.t.Context(), appID)
		if err != nil {
			return err
		}
		n = len(devices)
	}
	if n != 3 {
		return errorf("%d devices, want 3", n)
	}
	return nil
}

func allDevices(p *probe) error {
	r := p.start(site{devices: 450})
	devices, err := r.cs.Devices(p.t.Context(), appID)
	if err != nil || len(devices) != 450 {
		return errorf("%d devices, %v, want 450", len(devices), err)
	}
	return nil
}

// devicesInOrder also wants that one pass is enough, for a fleet that has many pages.
func devicesInOrder(p *probe) error {
	var seen calls
	r := p.start(site{devices: 450, server: func(c *networkserver.Config) { c.Faults.Observe = seen.observe }})
	devices, err := r.cs.Devices(p.t.Context(), appID)
	if err != nil {
		return err
	}
	pages := 0
	for _, m := range seen.list {
		if m == "/api.DeviceService/List" {
			pages++
		}
	}
	if len(devices) != 450 || pages != 3 {
		return errorf("%d devices in %d pages, want 450 in 3", len(devices), pages)
	}
	for i, d := range devices {
		if d.EUI != eui(i) {
			return errorf("device %d is %s", i, d.EUI)
		}
	}
	return nil
}

// manyGroups makes groups that all have the same name.
func manyGroups(r *rig, n int) error {
	for i := range n {
		_, err := r.multicast().Create(r.ctx, &api.CreateMulticastGroupRequest{MulticastGroup: &api.MulticastGroup{
			Name: "sower-1", ApplicationId: appID, McAddr: fmt.Sprintf("%08x", i)}})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	groups, err := r.cs.Orphans(r.t.Context(), appID, nil)
	if err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, g := range groups {
		ids[string(g.ID)] = true
	}
	if len(groups) != n || len(ids) != n {
		return errorf("%d groups with %d ids, want %d", len(groups), len(ids), n)
	}
	return nil
}

func allGroups(p *probe) error  { return manyGroups(p.start(site{}), 450) }
func groupsOnce(p *probe) error { return manyGroups(p.start(site{}), 450) }
