package networkserver_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

const enqueueMethod = "/api.MulticastGroupService/Enqueue"

// A call may be refused before anything happened, or its reply be lost afterwards: only the counter tells.
func TestCallFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fault  networkserver.CallFault
		code   codes.Code
		text   string
		counts string // next counter after each of four calls
	}{
		{"unavailable", networkserver.CallFault{Method: enqueueMethod, First: 2, Count: 1, Effect: networkserver.Unavailable}, codes.Unavailable, "", "1 1 2 3"},
		{"reply lost", networkserver.CallFault{Method: enqueueMethod, First: 2, Count: 1, Effect: networkserver.ReplyLost}, codes.DeadlineExceeded, "", "1 2 3 4"},
		{"locked", networkserver.CallFault{Method: enqueueMethod, First: 2, Count: 1, Effect: networkserver.Locked}, codes.Internal, "database is locked", "1 1 2 3"},
		{"locked, every method", networkserver.CallFault{First: 3, Count: 1, Effect: networkserver.Locked}, codes.OK, "", "1 2 3 4"}, // the third call reads
	} {
		n := start(t, options{configure: faults(networkserver.Faults{Calls: []networkserver.CallFault{tt.fault}})})
		l := listening{simnet: n, group: n.group(1)}
		if tt.code == codes.OK { // creation and pin have been counted: the third call is the first Enqueue
			_, err := n.multicast().Enqueue(n.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: l.group, FPort: 1}})
			if status.Code(err) != codes.Internal {
				t.Errorf("%s: %v, want Internal", tt.name, err)
			}
		}
		var counts []string
		for i := range 4 {
			_, err := n.multicast().Enqueue(n.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: l.group, FPort: 1}})
			want := codes.OK
			if i == 1 {
				want = tt.code
			}
			if got := status.Convert(err); got.Code() != want || want != codes.OK && !strings.Contains(got.Message(), tt.text) {
				t.Errorf("%s: call %d: %v, want %s", tt.name, i, err, want)
			}
			counts = append(counts, fmt.Sprint(l.get().FCnt))
		}
		if got := strings.Join(counts, " "); got != tt.counts {
			t.Errorf("%s: counters %s, want %s", tt.name, got, tt.counts)
		}
	}
}

// A share of the calls fails, the same ones in every run.
func TestCallFaultsByChance(t *testing.T) {
	run := func() (failed string) {
		n := start(t, options{configure: faults(networkserver.Faults{Calls: []networkserver.CallFault{{Method: enqueueMethod, Share: 0.3, Effect: networkserver.Unavailable}}})})
		group := n.group(1)
		for range 100 {
			_, err := n.multicast().Enqueue(n.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: 1}})
			failed += fmt.Sprint(int(status.Code(err)) / 14)
		}
		return failed
	}
	a, b := run(), run()
	if n := strings.Count(a, "1"); a != b || n < 15 || n > 45 {
		t.Errorf("failures\n%s, then\n%s; want the same, about 30", a, b)
	}
}

// Keys of a tenant and keys that only read: everything they may not do, and everything that does not exist for
// them, is Unauthenticated without a word.
func TestKeys(t *testing.T) {
	const foreign = "99999999-0000-4000-8000-000000000000"
	n := start(t, options{configure: func(c *networkserver.Config) {
		c.Keys = []networkserver.APIKey{{Token: "tenant", Tenant: tenantID}, {Token: "reader", ReadOnly: true}, {Token: "foreign", Tenant: foreign}}
		c.Devices = append(c.Devices, networkserver.Device{EUI: eui(1), Name: "meter", Application: appID, Profile: profileID},
			networkserver.Device{EUI: eui(3), Name: "meter", Application: otherApp, Profile: profileID})
	}})
	group := n.group(1)
	mc, dev := n.multicast(), n.device()
	enqueue := func(ctx context.Context, group string) error {
		_, err := mc.Enqueue(ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: 1}})
		return err
	}
	for _, tt := range []struct {
		name string
		call func(ctx context.Context) error
		// codes for tenant, reader and foreign
		want [3]codes.Code
	}{
		{"version", func(ctx context.Context) error {
			return second(api.NewInternalServiceClient(n.conn).GetVersion(ctx, &emptypb.Empty{}))
		}, [3]codes.Code{codes.Unauthenticated, codes.Unauthenticated, codes.Unauthenticated}},
		{"tenants", func(ctx context.Context) error {
			return second(api.NewTenantServiceClient(n.conn).List(ctx, &api.ListTenantsRequest{Limit: 1}))
		}, [3]codes.Code{codes.Unauthenticated, codes.OK, codes.Unauthenticated}},
		{"device", func(ctx context.Context) error {
			return second(dev.Get(ctx, &api.GetDeviceRequest{DevEui: eui(1).String()}))
		}, [3]codes.Code{codes.OK, codes.OK, codes.Unauthenticated}},
		{"device missing", func(ctx context.Context) error {
			return second(dev.Get(ctx, &api.GetDeviceRequest{DevEui: eui(9).String()}))
		}, [3]codes.Code{codes.Unauthenticated, codes.NotFound, codes.Unauthenticated}},
		{"keys of a device without", func(ctx context.Context) error {
			return second(dev.GetKeys(ctx, &api.GetDeviceKeysRequest{DevEui: eui(1).String()}))
		}, [3]codes.Code{codes.NotFound, codes.NotFound, codes.Unauthenticated}},
		{"unicast to a missing device", func(ctx context.Context) error {
			return second(dev.Enqueue(ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{DevEui: eui(9).String(), FPort: 1}}))
		}, [3]codes.Code{codes.Unauthenticated, codes.Unauthenticated, codes.Unauthenticated}},
		{"multicast", func(ctx context.Context) error { return enqueue(ctx, group) }, [3]codes.Code{codes.OK, codes.Unauthenticated, codes.Unauthenticated}},
		{"multicast, group missing", func(ctx context.Context) error { return enqueue(ctx, missing) }, [3]codes.Code{codes.Unauthenticated, codes.Unauthenticated, codes.Unauthenticated}},
		{"member of another application", func(ctx context.Context) error {
			return second(mc.AddDevice(ctx, &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: group, DevEui: eui(3).String()}))
		}, [3]codes.Code{codes.NotFound, codes.Unauthenticated, codes.Unauthenticated}},
		{"what every key may", func(ctx context.Context) error {
			return second(api.NewDeviceProfileServiceClient(n.conn).ListAdrAlgorithms(ctx, &emptypb.Empty{}))
		}, [3]codes.Code{codes.OK, codes.OK, codes.OK}},
		{"malformed id", func(ctx context.Context) error {
			return second(mc.Get(ctx, &api.GetMulticastGroupRequest{Id: "x"}))
		}, [3]codes.Code{codes.InvalidArgument, codes.InvalidArgument, codes.Unauthenticated}},
	} {
		for i, key := range []string{"tenant", "reader", "foreign"} {
			err := tt.call(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key))
			if st := status.Convert(err); st.Code() != tt.want[i] || st.Code() == codes.Unauthenticated && st.Message() != "" {
				t.Errorf("%s with the %s key: %v, want %s", tt.name, key, err, tt.want[i])
			}
		}
	}
}

// A key that somebody has deleted is told of everything what a key without the right is told, that of an administrator
// too, until it is there again.
func TestDeletedKey(t *testing.T) {
	n := start(t, options{configure: func(c *networkserver.Config) {
		c.Keys = []networkserver.APIKey{{Token: "tenant", Tenant: tenantID}}
	}})
	group := n.group(1)
	for _, key := range []string{token, "tenant"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key)
		for _, known := range []bool{true, false, true} {
			if err := n.server.SetKey(key, known); err != nil {
				t.Fatal(err)
			}
			for name, err := range map[string]error{
				"group":              second(n.multicast().Get(ctx, &api.GetMulticastGroupRequest{Id: group})),
				"what every key may": second(api.NewDeviceProfileServiceClient(n.conn).ListAdrAlgorithms(ctx, &emptypb.Empty{})),
				"enqueue":            second(n.multicast().Enqueue(ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: 1}})),
			} {
				if st := status.Convert(err); known && err != nil || !known && (st.Code() != codes.Unauthenticated || st.Message() != "") {
					t.Errorf("%s with the key %s, which is known: %v: %v", name, key, known, err)
				}
			}
		}
	}
	if err := n.server.SetKey("forgotten", false); err == nil {
		t.Error("a key that never was is deleted")
	}
}

// Events get lost, come twice and overtake each other; the uplinks themselves are untouched.
func TestEventFaults(t *testing.T) {
	n := start(t, options{devices: []int{1, 2, 3, 4, 5, 6, 7, 8}, app: func(int) *model { return &model{period: 3_000} },
		configure: faults(networkserver.Faults{Events: networkserver.EventFaults{Loss: 0.2, Duplicate: 0.2, Jitter: 5 * time.Second}})})
	n.run(3 * time.Minute)
	sent := 0
	for _, d := range n.fleet.Devices() {
		sent += d.Stats().Uplinks
	}
	seen := map[string]int{}
	last := map[string]uint32{}
	overtaken := 0
	for _, e := range n.of("up") {
		up := e.m.(*integration.UplinkEvent)
		seen[up.DeduplicationId]++
		if up.FCnt < last[e.eui] {
			overtaken++
		}
		last[e.eui] = up.FCnt
	}
	twice := 0
	for _, count := range seen {
		if count == 2 {
			twice++
		} else if count != 1 {
			t.Errorf("an event came %d times", count)
		}
	}
	lost := 1 - float64(len(seen))/float64(sent)
	if lost < 0.1 || lost > 0.3 || float64(twice) < 0.1*float64(len(seen)) || overtaken < 10 {
		t.Errorf("of %d uplinks %.2f were lost, %d of %d events came twice, %d were overtaken; want about 0.2, a fifth, and many", sent, lost, twice, len(seen), overtaken)
	}
}

func TestEventEncodings(t *testing.T) {
	for _, protobuf := range []bool{false, true} {
		n := heartbeatsWith(t, func(c *networkserver.Config) {
			c.ProtobufEvents = protobuf
			c.Faults.Events.Newer = true
		})
		got := n.raw()
		if err := n.world.Run(t.Context(), epoch.Add(90*time.Second)); err != nil {
			t.Fatal(err)
		}
		n.fence()
		if len(*got) == 0 {
			t.Fatal("no uplink event")
		}
		payload := (*got)[0].payload
		up := &integration.UplinkEvent{}
		var err error
		if protobuf {
			if err = proto.Unmarshal(payload, up); len(up.ProtoReflect().GetUnknown()) == 0 {
				t.Error("protobuf: no unknown field")
			}
		} else {
			if protojson.Unmarshal(payload, &integration.UplinkEvent{}) == nil {
				t.Error("a strict decoder accepts what a newer server adds")
			}
			err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(payload, up)
			if !strings.Contains(string(payload), `"fCnt":0`) {
				t.Errorf("the zero counter is left out: %s", payload)
			}
		}
		if err != nil || up.DeviceInfo.GetDevEui() != eui(1).String() || up.FPort != 2 || len(up.Data) != 8 {
			t.Errorf("protobuf %v: %v, %v", protobuf, up, err)
		}
	}
}

// asker is a device whose clock is 1000 s late, and that asks once for the time.
type asker struct{ answers []clocksync.AppTimeAns }

func (*asker) PowerUp() ([]modem.Frame, error) {
	return frames(modem.IdleUntil{Time: modem.Never}), nil
}
func (*asker) Close() error { return nil }

func (a *asker) Turn(f modem.Frame) ([]modem.Frame, error) {
	m, err := f.Message()
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case modem.Link:
		req, err := clocksync.AppendCommand(nil, applayer.V1, clocksync.AppTimeReq{DeviceTime: uint32(m.Time/1000) - 1000, TokenReq: 5})
		return frames(modem.Up{Port: 202, Data: req}, modem.IdleUntil{Time: modem.Never}), err
	case modem.Down:
		cmd, _, err := clocksync.ParseCommand(applayer.V1, applayer.Downlink, m.Data)
		if err != nil {
			return nil, err
		}
		a.answers = append(a.answers, cmd.(clocksync.AppTimeAns))
	}
	return frames(modem.IdleUntil{Time: modem.Never}), nil
}

// With TS003 in the profile the server answers the clock request in the receive windows of that very uplink, and
// the event is published too. Without, it does not.
func TestOwnClockService(t *testing.T) {
	for _, version := range []api.Ts003Version{api.Ts003Version_TS003_NOT_IMPLEMENTED, api.Ts003Version_TS003_V100, api.Ts003Version_TS003_v200} {
		app := &asker{}
		n := start(t, options{devices: []int{1}, other: func(int) fleet.App { return app },
			configure: func(c *networkserver.Config) { c.Profiles[0].ClockSync = version }})
		n.run(2 * time.Minute)
		p, err := api.NewDeviceProfileServiceClient(n.conn).Get(n.ctx, &api.GetDeviceProfileRequest{Id: profileID})
		if err != nil || p.DeviceProfile.AppLayerParams.Ts003Version != version || p.DeviceProfile.AppLayerParams.Ts003FPort != 202 {
			t.Errorf("profile %v, %v", p, err)
		}
		want := 1
		if version == api.Ts003Version_TS003_NOT_IMPLEMENTED {
			want = 0
		}
		if len(app.answers) != want || len(n.of("up")) != 1 {
			t.Fatalf("%s: %d answers to %d uplinks, want %d", version, len(app.answers), len(n.of("up")), want)
		}
		if want == 1 && (app.answers[0].TokenAns != 5 || app.answers[0].TimeCorrection < 999 || app.answers[0].TimeCorrection > 1001) {
			t.Errorf("%s: answer %+v, want a correction of 1000 s for token 5", version, app.answers[0])
		}
	}
}

// The order of devices with equal names is another one at each call.
func TestListWithoutAnOrderIsUnstable(t *testing.T) {
	n := start(t, options{devices: []int{1, 2, 3, 4, 5, 6, 7, 8}})
	orders := map[string]bool{}
	for range 5 {
		r, err := n.device().List(n.ctx, &api.ListDevicesRequest{ApplicationId: appID, Limit: 8})
		if err != nil {
			t.Fatal(err)
		}
		var order string
		for _, d := range r.Result {
			order += d.DevEui[15:]
		}
		orders[order] = true
	}
	if len(orders) < 4 {
		t.Errorf("orders %v of five calls", orders)
	}
}

// SQLite has words of its own for a violated constraint.
func TestSQLiteErrors(t *testing.T) {
	n := start(t, options{configure: func(c *networkserver.Config) { c.Database = networkserver.SQLite }})
	group := n.group(1)
	_, err := n.multicast().AddGateway(n.ctx, &api.AddGatewayToMulticastGroupRequest{MulticastGroupId: group, GatewayId: gatewayID.String()})
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "UNIQUE constraint failed: multicast_group_gateway.gateway_id") {
		t.Errorf("second pin: %v", err)
	}
	_, err = n.device().Enqueue(n.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{DevEui: eui(9).String(), FPort: 1}})
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "FOREIGN KEY constraint failed") {
		t.Errorf("unicast to nobody: %v", err)
	}
}

func TestFaultsAreValidated(t *testing.T) {
	w := world.New(epoch)
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		want   string
		change func(*networkserver.Config)
	}{
		{"Events.Loss is 1.5, want 0..1", func(c *networkserver.Config) { c.Faults.Events.Loss = 1.5 }},
		{"Events.Jitter is -1ns", func(c *networkserver.Config) { c.Faults.Events.Jitter = -1 }},
		{"call 0: Share is -1", func(c *networkserver.Config) {
			c.Faults.Calls = []networkserver.CallFault{{Share: -1, Effect: networkserver.Locked}}
		}},
		{"call 0: effect 0", func(c *networkserver.Config) { c.Faults.Calls = []networkserver.CallFault{{}} }},
		{"ack 0: status 99", func(c *networkserver.Config) { c.Faults.Acks = []networkserver.AckFault{{Status: 99}} }},
		{"outage 0 lasts from 2s until 1s", func(c *networkserver.Config) {
			c.Faults.Outages = []networkserver.Outage{{From: 2 * time.Second, Until: time.Second}}
		}},
		{"outage 0: gateway 0102030405060708 is not", func(c *networkserver.Config) {
			c.Faults.Outages = []networkserver.Outage{{Gateway: lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8}, Until: time.Second}}
		}},
		{"restart 0 at -1s", func(c *networkserver.Config) { c.Faults.Restarts = []networkserver.Restart{{At: -time.Second}} }},
		{"key 0 has no token", func(c *networkserver.Config) { c.Keys = []networkserver.APIKey{{}} }},
		{"database 7", func(c *networkserver.Config) { c.Database = 7 }},
	} {
		cfg := networkserver.Config{World: w, Medium: radio.NewMedium(w, radio.EU868(), loss), Token: "t", Tenant: networkserver.Tenant{ID: tenantID}}
		tt.change(&cfg)
		if s, err := networkserver.New(cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New = %v, want %q", err, tt.want)
			if s != nil {
				s.Close()
			}
		}
	}
}
