package networkserver_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// provisioned has three devices that never join: 1 with keys, 2 without, 3 in the other application.
func provisioned(t *testing.T) *simnet {
	return start(t, options{gateways: 2, configure: func(c *networkserver.Config) {
		for i := 1; i <= 3; i++ {
			c.Devices = append(c.Devices, networkserver.Device{EUI: eui(i), Name: "meter", Application: appID, Profile: profileID})
		}
		c.Devices[0].Keys = &networkserver.Keys{AppKey: lorawan.AES128Key{1}, GenAppKey: lorawan.AES128Key{2}}
		c.Devices[2].Application = otherApp
	}})
}

const missing = "00000000-0000-4000-8000-000000000000"

// TestErrorCodes asserts ChirpStack's irregular codes, one line for each situation.
func TestErrorCodes(t *testing.T) {
	n := provisioned(t)
	ctx, dev, mc := n.ctx, n.device(), n.multicast()
	apps, profiles, gateways := api.NewApplicationServiceClient(n.conn), api.NewDeviceProfileServiceClient(n.conn), api.NewGatewayServiceClient(n.conn)
	group := n.group(1)
	if _, err := mc.AddDevice(ctx, &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: group, DevEui: eui(1).String()}); err != nil {
		t.Fatal(err)
	}
	queue := func(eui string, port uint32) error {
		_, err := dev.Enqueue(ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{DevEui: eui, FPort: port}})
		return err
	}
	mqueue := func(group string, port uint32) error {
		_, err := mc.Enqueue(ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: port}})
		return err
	}
	create := func(change func(*api.MulticastGroup)) error {
		g := &api.MulticastGroup{Name: "x", ApplicationId: appID, McAddr: "01020304"}
		change(g)
		_, err := mc.Create(ctx, &api.CreateMulticastGroupRequest{MulticastGroup: g})
		return err
	}
	update := func(change func(*api.Device)) error {
		d := &api.Device{DevEui: eui(1).String(), Name: "meter", ApplicationId: appID, DeviceProfileId: profileID}
		change(d)
		_, err := dev.Update(ctx, &api.UpdateDeviceRequest{Device: d})
		return err
	}
	one := eui(1).String()
	for _, tt := range []struct {
		name string
		err  error
		code codes.Code
		text string
	}{
		{"application: malformed UUID", second(apps.Get(ctx, &api.GetApplicationRequest{Id: "x"})), codes.InvalidArgument, "invalid length"},
		{"application: empty UUID", second(apps.Get(ctx, &api.GetApplicationRequest{})), codes.InvalidArgument, "invalid length"},
		{"application: missing", second(apps.Get(ctx, &api.GetApplicationRequest{Id: missing})), codes.NotFound, "Object does not exist (id: " + missing + ")"},
		{"applications without tenant", second(apps.List(ctx, &api.ListApplicationsRequest{Limit: 1})), codes.InvalidArgument, ""},
		{"profile: missing", second(profiles.Get(ctx, &api.GetDeviceProfileRequest{Id: missing})), codes.NotFound, "Object does not exist"},
		{"gateway: malformed", second(gateways.Get(ctx, &api.GetGatewayRequest{GatewayId: "zz"})), codes.Internal, "Invalid character"},
		{"gateway: missing", second(gateways.Get(ctx, &api.GetGatewayRequest{GatewayId: "0102030405060708"})), codes.NotFound, "0102030405060708"},

		{"device: malformed EUI", second(dev.Get(ctx, &api.GetDeviceRequest{DevEui: "0102030405060g08"})), codes.Internal, "Invalid character"},
		{"device: short EUI", second(dev.Get(ctx, &api.GetDeviceRequest{DevEui: "0102"})), codes.Internal, "Invalid string length"},
		{"device: empty EUI is zeros", second(dev.Get(ctx, &api.GetDeviceRequest{})), codes.NotFound, "0000000000000000"},
		{"device: missing", second(dev.Get(ctx, &api.GetDeviceRequest{DevEui: eui(9).String()})), codes.NotFound, eui(9).String()},
		{"devices without application", second(dev.List(ctx, &api.ListDevicesRequest{Limit: 1})), codes.InvalidArgument, ""},
		{"keys: never provisioned", second(dev.GetKeys(ctx, &api.GetDeviceKeysRequest{DevEui: eui(2).String()})), codes.NotFound, eui(2).String()},
		{"link metrics without times", second(dev.GetLinkMetrics(ctx, &api.GetDeviceLinkMetricsRequest{DevEui: one})), codes.Internal, "start and end"},
		{"unicast: no item", second(dev.Enqueue(ctx, &api.EnqueueDeviceQueueItemRequest{})), codes.InvalidArgument, "queue_item is missing"},
		{"unicast: FPort 0", queue(one, 0), codes.InvalidArgument, "FPort must be between 1 - 255"},
		{"unicast: FPort 256 is 0", queue(one, 256), codes.InvalidArgument, "FPort must be between 1 - 255"},
		{"unicast: FPort 457 is 201", queue(one, 457), codes.OK, ""},
		{"unicast: device missing", queue(eui(9).String(), 1), codes.Internal, "foreign key"},

		{"group: no group", second(mc.Create(ctx, &api.CreateMulticastGroupRequest{})), codes.InvalidArgument, "multicast_group is missing"},
		{"group: no name", create(func(g *api.MulticastGroup) { g.Name = "" }), codes.InvalidArgument, "name is not set"},
		{"group: malformed address", create(func(g *api.MulticastGroup) { g.McAddr = "0102030" }), codes.Internal, ""},
		{"group: short key", create(func(g *api.MulticastGroup) { g.McAppSKey = "0102" }), codes.Internal, "Invalid string length"},
		{"group: bad application", create(func(g *api.MulticastGroup) { g.ApplicationId = "1" }), codes.InvalidArgument, ""},
		{"group: application missing", create(func(g *api.MulticastGroup) { g.ApplicationId = missing }), codes.Internal, "foreign key"},
		{"group: nothing else is checked", create(func(g *api.MulticastGroup) { g.Dr, g.ClassBPingSlotPeriodicity, g.Frequency = 99, 99, 1 }), codes.OK, ""},
		{"group: malformed id", second(mc.Get(ctx, &api.GetMulticastGroupRequest{Id: "x"})), codes.InvalidArgument, ""},
		{"group: missing", second(mc.Get(ctx, &api.GetMulticastGroupRequest{Id: missing})), codes.NotFound, missing},
		{"group: update without group", second(mc.Update(ctx, &api.UpdateMulticastGroupRequest{})), codes.InvalidArgument, "is missing"},
		{"group: delete missing", second(mc.Delete(ctx, &api.DeleteMulticastGroupRequest{Id: missing})), codes.NotFound, ""},
		{"member: twice", second(mc.AddDevice(ctx, &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: group, DevEui: one})), codes.Internal, "duplicate key value"},
		{"member: other application", second(mc.AddDevice(ctx, &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: group, DevEui: eui(3).String()})), codes.NotFound, eui(3).String()},
		{"member: remove absent", second(mc.RemoveDevice(ctx, &api.RemoveDeviceFromMulticastGroupRequest{MulticastGroupId: group, DevEui: eui(2).String()})), codes.NotFound, "multicast-group: " + group + ", device: " + eui(2).String()},
		{"member: remove", second(mc.RemoveDevice(ctx, &api.RemoveDeviceFromMulticastGroupRequest{MulticastGroupId: group, DevEui: one})), codes.OK, ""},
		{"pin: twice", second(mc.AddGateway(ctx, &api.AddGatewayToMulticastGroupRequest{MulticastGroupId: group, GatewayId: gatewayID.String()})), codes.Internal, "duplicate key value"},
		{"pin: missing", second(mc.AddGateway(ctx, &api.AddGatewayToMulticastGroupRequest{MulticastGroupId: group, GatewayId: "0102030405060708"})), codes.NotFound, "0102030405060708"},
		{"pin: remove absent", second(mc.RemoveGateway(ctx, &api.RemoveGatewayFromMulticastGroupRequest{MulticastGroupId: group, GatewayId: "0102030405060708"})), codes.NotFound, "gateway: 0102030405060708"},
		{"pin: remove", second(mc.RemoveGateway(ctx, &api.RemoveGatewayFromMulticastGroupRequest{MulticastGroupId: group, GatewayId: gatewayID.String()})), codes.OK, ""},
		{"multicast: no item", second(mc.Enqueue(ctx, &api.EnqueueMulticastGroupQueueItemRequest{})), codes.InvalidArgument, "queue_item is missing"},
		{"multicast: FPort 0", mqueue(group, 0), codes.Internal, "FPort must be between 1 - 255"},
		{"multicast: FPort 256", mqueue(group, 256), codes.Internal, "FPort must be between 1 - 255"},
		{"multicast: group missing", mqueue(missing, 1), codes.NotFound, missing},
		{"multicast: flush missing", second(mc.FlushQueue(ctx, &api.FlushMulticastGroupQueueRequest{MulticastGroupId: missing})), codes.NotFound, ""},
		{"groups without application", second(mc.List(ctx, &api.ListMulticastGroupsRequest{})), codes.InvalidArgument, ""},

		{"device: no device", second(dev.Create(ctx, &api.CreateDeviceRequest{})), codes.InvalidArgument, "device is missing"},
		{"update: no device", second(dev.Update(ctx, &api.UpdateDeviceRequest{})), codes.InvalidArgument, "device is missing"},
		{"update: malformed EUI", update(func(d *api.Device) { d.DevEui = "zz" }), codes.Internal, ""},
		{"update: malformed application", update(func(d *api.Device) { d.ApplicationId = "x" }), codes.InvalidArgument, ""},
		{"update: missing", update(func(d *api.Device) { d.DevEui = "0102030405060708" }), codes.NotFound, "0102030405060708"},
		{"update: application missing", update(func(d *api.Device) { d.ApplicationId = missing }), codes.Internal, "foreign key"},
		{"update: profile missing", update(func(d *api.Device) { d.DeviceProfileId = missing }), codes.Internal, "foreign key"},
		{"update: no name", update(func(d *api.Device) { d.Name = "" }), codes.InvalidArgument, "name is not set"},
		{"update: nameless and missing", update(func(d *api.Device) { d.DevEui, d.Name = "0102030405060708", "" }), codes.InvalidArgument, "name is not set"},
		{"not copied: login", second(api.NewInternalServiceClient(n.conn).Login(ctx, &api.LoginRequest{})), codes.Unimplemented, ""},
		{"not copied: FUOTA", second(api.NewFuotaServiceClient(n.conn).CreateDeployment(ctx, &api.CreateFuotaDeploymentRequest{})), codes.Unimplemented, ""},
	} {
		if got := status.Convert(tt.err); got.Code() != tt.code || !strings.Contains(got.Message(), tt.text) {
			t.Errorf("%s: %s %q, want %s %q", tt.name, got.Code(), got.Message(), tt.code, tt.text)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestAuthorization(t *testing.T) {
	n := provisioned(t)
	for header, want := range map[string]string{
		"":                 "no authorization provided",
		"Token " + token:   "authorization metadata must be in format 'Bearer <TOKEN>",
		"Bearer forgotten": "InvalidSignature",
	} {
		ctx := t.Context()
		if header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
		}
		_, err := api.NewTenantServiceClient(n.conn).List(ctx, &api.ListTenantsRequest{})
		if got := status.Convert(err); got.Code() != codes.Unauthenticated || got.Message() != want {
			t.Errorf("authorization %q: %s %q, want Unauthenticated %q", header, got.Code(), got.Message(), want)
		}
	}
	if _, err := api.NewTenantServiceClient(n.conn).List(n.ctx, &api.ListTenantsRequest{}); err != nil {
		t.Error(err)
	}
	// The version is told to users only, and they are told apart from those with a wrong token by the text.
	_, err := api.NewInternalServiceClient(n.conn).GetVersion(n.ctx, &emptypb.Empty{})
	if got := status.Convert(err); got.Code() != codes.Unauthenticated || got.Message() != "" {
		t.Errorf("GetVersion with an API key: %v", err)
	}
}

func TestWhatIsProvisionedCanBeRead(t *testing.T) {
	n := provisioned(t)
	apps, err := api.NewApplicationServiceClient(n.conn).List(n.ctx, &api.ListApplicationsRequest{TenantId: tenantID, Limit: 10, Search: "MET"})
	if err != nil || apps.TotalCount != 1 || apps.Result[0].Id != appID {
		t.Errorf("applications %v, %v", apps, err)
	}
	tenants, err := api.NewTenantServiceClient(n.conn).List(n.ctx, &api.ListTenantsRequest{Limit: 10})
	if err != nil || tenants.TotalCount != 1 || tenants.Result[0].Id != tenantID {
		t.Errorf("tenants %v, %v", tenants, err)
	}
	p, err := api.NewDeviceProfileServiceClient(n.conn).Get(n.ctx, &api.GetDeviceProfileRequest{Id: profileID})
	if err != nil || p.DeviceProfile.MacVersion != common.MacVersion_LORAWAN_1_0_4 || p.DeviceProfile.Region != common.Region_EU868 ||
		p.DeviceProfile.SupportsClassC || p.DeviceProfile.RegionConfigId != "" {
		t.Errorf("profile %v, %v", p, err)
	}
	profiles, err := api.NewDeviceProfileServiceClient(n.conn).List(n.ctx, &api.ListDeviceProfilesRequest{Limit: 10})
	if err != nil || profiles.TotalCount != 1 || profiles.Result[0].Id != profileID {
		t.Errorf("profiles %v, %v", profiles, err)
	}
	// An identifier without hyphens, in capitals, is the same identifier.
	a, err := api.NewApplicationServiceClient(n.conn).Get(n.ctx, &api.GetApplicationRequest{Id: strings.ToUpper(strings.ReplaceAll(appID, "-", ""))})
	if err != nil || a.Application.Name != "meters" || a.Application.TenantId != tenantID {
		t.Errorf("application %v, %v", a, err)
	}
	keys, err := n.device().GetKeys(n.ctx, &api.GetDeviceKeysRequest{DevEui: strings.ToUpper(eui(1).String())})
	if err != nil || keys.DeviceKeys.NwkKey != "01"+strings.Repeat("00", 15) || keys.DeviceKeys.GenAppKey != "02"+strings.Repeat("00", 15) ||
		keys.DeviceKeys.AppKey != strings.Repeat("0", 32) {
		t.Errorf("keys %v, %v", keys, err)
	}
	act, err := n.device().GetActivation(n.ctx, &api.GetDeviceActivationRequest{DevEui: eui(1).String()})
	if err != nil || act.DeviceActivation != nil {
		t.Errorf("activation of a device that never joined: %v, %v", act, err)
	}
	n.run(75 * time.Second)
	gateways, err := api.NewGatewayServiceClient(n.conn).List(n.ctx, &api.ListGatewaysRequest{TenantId: tenantID, Limit: 10, OrderBy: api.ListGatewaysRequest_GATEWAY_ID})
	if err != nil || gateways.TotalCount != 2 || gateways.Result[0].GatewayId != gatewayID.String() || gateways.Result[0].State != api.GatewayState_ONLINE ||
		gateways.Result[0].Properties["region_config_id"] != "eu868" || !gateways.Result[0].LastSeenAt.AsTime().Equal(epoch.Add(time.Minute)) {
		t.Errorf("gateways %v, %v", gateways, err)
	}
	group := n.group(1)
	pinned, err := api.NewGatewayServiceClient(n.conn).List(n.ctx, &api.ListGatewaysRequest{MulticastGroupId: group, Limit: 10})
	if err != nil || pinned.TotalCount != 1 || pinned.Result[0].GatewayId != gatewayID.String() {
		t.Errorf("gateways of the group %v, %v", pinned, err)
	}
}

func TestDeviceListPages(t *testing.T) {
	n := start(t, options{devices: []int{4, 2, 5, 1, 3}})
	list := func(r *api.ListDevicesRequest) (euis []string, total uint32) {
		t.Helper()
		r.ApplicationId = appID
		resp, err := n.device().List(n.ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range resp.Result {
			euis = append(euis, d.DevEui[15:])
		}
		return euis, resp.TotalCount
	}
	for _, tt := range []struct {
		r     *api.ListDevicesRequest
		want  string
		total uint32
	}{
		{&api.ListDevicesRequest{OrderBy: api.ListDevicesRequest_DEV_EUI}, "", 5}, // limit 0: the total only
		{&api.ListDevicesRequest{OrderBy: api.ListDevicesRequest_DEV_EUI, Limit: 2}, "12", 5},
		{&api.ListDevicesRequest{OrderBy: api.ListDevicesRequest_DEV_EUI, Limit: 2, Offset: 2}, "34", 5},
		{&api.ListDevicesRequest{OrderBy: api.ListDevicesRequest_DEV_EUI, Limit: 2, Offset: 4}, "5", 5},
		{&api.ListDevicesRequest{OrderBy: api.ListDevicesRequest_DEV_EUI, Limit: 2, Offset: 9}, "", 5},
		{&api.ListDevicesRequest{OrderBy: api.ListDevicesRequest_DEV_EUI, OrderByDesc: true, Limit: 9}, "54321", 5},
		{&api.ListDevicesRequest{Search: "0000003", Limit: 9}, "3", 1},
		{&api.ListDevicesRequest{OrderBy: api.ListDevicesRequest_DEV_EUI, Tags: map[string]string{"site": "north"}, Limit: 1}, "1", 5},
		{&api.ListDevicesRequest{Tags: map[string]string{"site": "south"}, Limit: 9}, "", 0},
		{&api.ListDevicesRequest{DeviceProfileId: missing, Limit: 9}, "", 0},
	} {
		if got, total := list(tt.r); strings.Join(got, "") != tt.want || total != tt.total {
			t.Errorf("%v: %v of %d, want %s of %d", tt.r, got, total, tt.want, tt.total)
		}
	}
	group := n.group(1)
	if _, err := n.multicast().AddDevice(n.ctx, &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: group, DevEui: eui(3).String()}); err != nil {
		t.Fatal(err)
	}
	if got, total := list(&api.ListDevicesRequest{MulticastGroupId: group, Limit: 9}); total != 1 || got[0] != "3" {
		t.Errorf("members %v of %d, want 3", got, total)
	}
	groups, err := n.multicast().List(n.ctx, &api.ListMulticastGroupsRequest{ApplicationId: appID, DevEui: eui(3).String(), Limit: 9})
	if err != nil || groups.TotalCount != 1 || groups.Result[0].Id != group || groups.Result[0].ApplicationName != "meters" {
		t.Errorf("groups of the device %v, %v", groups, err)
	}
}

func TestLinkMetricsAndActivation(t *testing.T) {
	n := start(t, options{devices: []int{1}, app: func(int) *model { return &model{period: 600_000} }})
	n.run(2*time.Hour + time.Minute)
	sent := n.fleet.Devices()[0].Stats().Uplinks
	m, err := n.device().GetLinkMetrics(n.ctx, &api.GetDeviceLinkMetricsRequest{DevEui: eui(1).String(),
		Start: timestamppb.New(epoch), End: timestamppb.New(epoch.Add(2 * time.Hour)), Aggregation: common.Aggregation_HOUR})
	if err != nil {
		t.Fatal(err)
	}
	var packets, perDR, perFrequency float32
	for _, v := range m.RxPackets.Datasets[0].Data {
		packets += v
	}
	for _, d := range m.RxPacketsPerDr.Datasets {
		for _, v := range d.Data {
			if d.Label != "5" && v != 0 {
				t.Errorf("packets at DR%s, all were sent at DR5", d.Label)
			}
			perDR += v
		}
	}
	for _, d := range m.RxPacketsPerFreq.Datasets {
		for _, v := range d.Data {
			perFrequency += v
		}
	}
	if int(packets) != sent || perDR != packets || perFrequency != packets || len(m.RxPackets.Timestamps) != 3 {
		t.Errorf("metrics count %v packets, %v by data rate, %v by frequency, over %d hours; the device sent %d",
			packets, perDR, perFrequency, len(m.RxPackets.Timestamps), sent)
	}
	if snr := m.GwSnr.Datasets[0].Data[0]; snr < -2 || snr > 10 {
		t.Errorf("mean SNR %v dB", snr)
	}
	act, err := n.device().GetActivation(n.ctx, &api.GetDeviceActivationRequest{DevEui: eui(1).String()})
	if err != nil || int(act.DeviceActivation.FCntUp) != sent || act.DeviceActivation.DevAddr == "" {
		t.Errorf("activation %v, %v, want %d uplinks", act, err, sent)
	}
}

// Hours are kept for two days and days for two months, so that a history of a week is one of days.
func TestLinkMetricsAreForgotten(t *testing.T) {
	n := start(t, options{raw: true, devices: []int{1}, app: func(int) *model { return &model{period: 1_800_000} }})
	n.run(7 * 24 * time.Hour)
	sum := func(a common.Aggregation) (sum float32) {
		m, err := n.device().GetLinkMetrics(n.ctx, &api.GetDeviceLinkMetricsRequest{DevEui: eui(1).String(),
			Start: timestamppb.New(epoch), End: timestamppb.New(epoch.Add(7 * 24 * time.Hour)), Aggregation: a})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range m.RxPackets.Datasets[0].Data {
			sum += v
		}
		return sum
	}
	if h, d := sum(common.Aggregation_HOUR), sum(common.Aggregation_DAY); h < 96 || h > 99 || int(d) != n.fleet.Devices()[0].Stats().Uplinks {
		t.Errorf("%v uplinks by the hour and %v by the day, want those of two days and %d", h, d, n.fleet.Devices()[0].Stats().Uplinks)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for want, change := range map[string]func(*networkserver.Config){
		"gRPC address " + taken.Addr().String() + ": bind: address already in use; choose another port": func(c *networkserver.Config) { c.GRPCAddress = taken.Addr().String() },
		"MQTT address " + taken.Addr().String() + ": bind: address already in use":                      func(c *networkserver.Config) { c.MQTTAddress = taken.Addr().String() },
		`gRPC address "0.0.0.0:0" is not loopback`:                                                      func(c *networkserver.Config) { c.GRPCAddress = "0.0.0.0:0" },
		`MQTT address "nonsense"`:                 func(c *networkserver.Config) { c.MQTTAddress = "nonsense" },
		"no World or no Medium":                   func(c *networkserver.Config) { c.World = nil },
		"no Token":                                func(c *networkserver.Config) { c.Token = "" },
		`tenant id "x" is not a UUID`:             func(c *networkserver.Config) { c.Tenant.ID = "x" },
		"application " + appID + " exists twice":  func(c *networkserver.Config) { c.Applications = append(c.Applications, c.Applications[0]) },
		`application "meters": id "7"`:            func(c *networkserver.Config) { c.Applications[0].ID = "7" },
		"device profile " + profileID + " exists": func(c *networkserver.Config) { c.Profiles = append(c.Profiles, c.Profiles[0]) },
		"gateway " + gatewayID.String():           func(c *networkserver.Config) { c.Gateways = append(c.Gateways, c.Gateways[0]) },
		"device " + eui(1).String() + " exists":   func(c *networkserver.Config) { c.Devices = append(c.Devices, c.Devices[0]) },
		`application "y" does not exist`:          func(c *networkserver.Config) { c.Devices[0].Application = "y" },
		`device profile "z" does not exist`:       func(c *networkserver.Config) { c.Devices[0].Profile = "z" },
		"RX1Delay 1.5s is not one of":             func(c *networkserver.Config) { c.RX1Delay = 1500 * time.Millisecond },
		"beyond RX1Delay 1s":                      func(c *networkserver.Config) { c.DownlinkDataDelay = time.Second },
		"ClassCMargin -1ns is negative":           func(c *networkserver.Config) { c.ClassCMargin = -1 },
	} {
		w := world.New(epoch)
		loss, err := radio.NewIndependent(1, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		cfg := networkserver.Config{
			World: w, Medium: radio.NewMedium(w, radio.EU868(), loss), Token: token,
			Tenant:       networkserver.Tenant{ID: tenantID},
			Applications: []networkserver.Application{{ID: appID, Name: "meters"}},
			Profiles:     []networkserver.DeviceProfile{{ID: profileID}},
			Gateways:     []networkserver.Gateway{{ID: gatewayID}},
			Devices:      []networkserver.Device{{EUI: eui(1), Application: appID, Profile: profileID}},
		}
		change(&cfg)
		s, err := networkserver.New(cfg)
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want %q", err, want)
		}
	}
}

// TestCloseReleasesThePorts starts a second server on the very addresses of the first.
func TestCloseReleasesThePorts(t *testing.T) {
	n := start(t, options{})
	g, m := n.server.GRPCAddress(), n.server.MQTTAddress()
	if err := n.server.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, options{configure: func(c *networkserver.Config) { c.GRPCAddress, c.MQTTAddress = g, m }})
	if again.server.GRPCAddress() != g || again.server.MQTTAddress() != m {
		t.Errorf("second server listens on %s and %s, want %s and %s", again.server.GRPCAddress(), again.server.MQTTAddress(), g, m)
	}
	ctx, cancel := context.WithTimeout(again.ctx, time.Minute)
	defer cancel()
	if _, err := api.NewTenantServiceClient(again.conn).List(ctx, &api.ListTenantsRequest{}); err != nil {
		t.Error(err)
	}
}
