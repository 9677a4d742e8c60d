package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func (s *suite) checkJoins() error {
	if err := s.pass(50 * time.Second); err != nil {
		return err
	}
	s.expect("joins", len(s.takeEvents("join")), nDevices)
	ups := s.takeEvents("up")
	s.expect("each device has sent", len(ups) >= 2*nDevices, true)
	if len(ups) > 0 {
		var fields map[string]any
		if err := json.Unmarshal(ups[0].data, &fields); err != nil {
			return fmt.Errorf("the events are not JSON: %w", err)
		}
		_, zero := fields["fCnt"]
		s.expect("the first uplink has a field fCnt although it is 0", zero, true)
		s.expect("data", fields["data"], "aGVsbG8=")
		info, _ := fields["deviceInfo"].(map[string]any)
		s.expect("devEui in lower case", info["devEui"] == s.devices[ups[0].device].String(), true)
	}
	ids := map[string]int{}
	for _, e := range ups {
		var fields struct{ DeduplicationId string }
		if err := json.Unmarshal(e.data, &fields); err != nil {
			return err
		}
		ids[fields.DeduplicationId]++
	}
	s.expect("every deduplicationId is its own", len(ids) == len(ups), true)
	for _, eui := range s.devices {
		r, err := s.dev().GetActivation(s.ctx, &api.GetDeviceActivationRequest{DevEui: eui.String()})
		if err != nil {
			return err
		}
		s.expect("activated", r.DeviceActivation != nil, true)
	}
	return s.states("ONLINE")
}

// states expects all gateways in one state.
func (s *suite) states(want string) error {
	r, err := api.NewGatewayServiceClient(s.Conn).List(s.ctx, &api.ListGatewaysRequest{TenantId: s.site.Tenant, Limit: 1000, OrderBy: api.ListGatewaysRequest_GATEWAY_ID})
	if err != nil {
		return err
	}
	for i, id := range s.gateways {
		for _, g := range r.Result {
			if g.GatewayId == id.String() {
				s.expect(fmt.Sprintf("gateway %d", i), g.State, want)
				s.expect("has region_config_id", g.Properties["region_config_id"] != "", true)
			}
		}
	}
	return nil
}

func (s *suite) checkErrors() error {
	group, err := s.group(1, nil)
	if err != nil {
		return err
	}
	const missing = "00000000-0000-4000-8000-000000000000"
	code := func(what string, want codes.Code, err error) {
		s.expect(what, status.Code(err), want)
	}
	_, err = s.mc().Get(s.ctx, &api.GetMulticastGroupRequest{Id: "x"})
	code("malformed UUID", codes.InvalidArgument, err)
	_, err = s.mc().Get(s.ctx, &api.GetMulticastGroupRequest{Id: missing})
	code("group missing", codes.NotFound, err)
	_, err = s.dev().Get(s.ctx, &api.GetDeviceRequest{DevEui: "zz"})
	code("malformed EUI", codes.Internal, err)
	_, err = s.dev().Get(s.ctx, &api.GetDeviceRequest{DevEui: "0102030405060708"})
	code("device missing", codes.NotFound, err)
	_, err = s.dev().List(s.ctx, &api.ListDevicesRequest{Limit: 1})
	code("devices without application", codes.InvalidArgument, err)
	_, err = s.dev().Enqueue(s.ctx, &api.EnqueueDeviceQueueItemRequest{})
	code("unicast: no item", codes.InvalidArgument, err)
	_, err = s.dev().Enqueue(s.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{DevEui: "0102030405060708", FPort: 1}})
	code("unicast: device missing", codes.Internal, err)
	for _, port := range []uint32{0, 256} {
		_, err = s.dev().Enqueue(s.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{DevEui: s.devices[0].String(), FPort: port}})
		code(fmt.Sprintf("unicast: FPort %d", port), codes.InvalidArgument, err)
		_, err = s.mc().Enqueue(s.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: port}})
		code(fmt.Sprintf("multicast: FPort %d", port), codes.Internal, err)
	}
	_, err = s.dev().Enqueue(s.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{DevEui: s.devices[0].String(), FPort: 457}})
	code("unicast: FPort 457", codes.OK, err)
	_, err = s.dev().FlushQueue(s.ctx, &api.FlushDeviceQueueRequest{DevEui: s.devices[0].String()})
	code("flush", codes.OK, err)
	_, err = s.group(0, func(g *api.MulticastGroup) { g.Name = "" })
	code("group without name", codes.InvalidArgument, err)
	_, err = s.group(0, func(g *api.MulticastGroup) { g.McAddr = "0102" })
	code("group with short address", codes.Internal, err)
	pin := &api.AddGatewayToMulticastGroupRequest{MulticastGroupId: group, GatewayId: s.gateways[0].String()}
	_, err = s.mc().AddGateway(s.ctx, pin)
	code("second pin", codes.Internal, err)
	member := &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: group, DevEui: "0102030405060708"}
	_, err = s.mc().AddDevice(s.ctx, member)
	code("member missing", codes.NotFound, err)
	_, err = s.mc().RemoveDevice(s.ctx, &api.RemoveDeviceFromMulticastGroupRequest{MulticastGroupId: group, DevEui: s.devices[0].String()})
	code("remove who is no member", codes.NotFound, err)
	r, err := s.dev().List(s.ctx, &api.ListDevicesRequest{ApplicationId: s.site.Application})
	if err != nil {
		return err
	}
	s.expect("list with limit 0", fmt.Sprintf("%d of %d", len(r.Result), r.TotalCount), fmt.Sprintf("0 of %d", nDevices))
	keys, err := s.dev().GetKeys(s.ctx, &api.GetDeviceKeysRequest{DevEui: s.devices[0].String()})
	if err != nil {
		return err
	}
	s.expect("AppKey is nwk_key", keys.DeviceKeys.NwkKey == fmt.Sprintf("%x", appKey[:]), true)
	s.expect("gen_app_key", keys.DeviceKeys.GenAppKey == fmt.Sprintf("%x", genKey[:]), true)
	return s.over(group)
}

func (s *suite) checkUnicast() error {
	for _, kind := range []string{"txack", "log", "up"} {
		s.takeEvents(kind)
	}
	ids := map[string]string{}
	for _, item := range []struct {
		name    string
		data    []byte
		expires *timestamppb.Timestamp
	}{
		{"expired", []byte("late"), timestamppb.New(s.World.Now().Add(-time.Minute))},
		{"oversize", bytes.Repeat([]byte("x"), 250), nil},
		{"good", []byte("good"), nil},
	} {
		r, err := s.dev().Enqueue(s.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{
			DevEui: s.devices[0].String(), FPort: 10, Data: item.data, ExpiresAt: item.expires}})
		if err != nil {
			return err
		}
		ids[r.Id] = item.name
	}
	q, err := s.dev().GetQueue(s.ctx, &api.GetDeviceQueueItemsRequest{DevEui: s.devices[0].String(), CountOnly: true})
	if err != nil {
		return err
	}
	s.expect("queue although only the count was asked for", len(q.Result), 3)
	if err := s.pass(30 * time.Second); err != nil {
		return err
	}
	var logs []string
	for _, e := range s.takeEvents("log") {
		var fields struct {
			Code    string
			Context map[string]string
		}
		if err := json.Unmarshal(e.data, &fields); err != nil {
			return err
		}
		logs = append(logs, fields.Code+" "+ids[fields.Context["queue_item_id"]])
	}
	slices.Sort(logs)
	s.expect("log events", strings.Join(logs, ", "), "DOWNLINK_PAYLOAD_SIZE oversize, EXPIRED expired")
	var acks []string
	for _, e := range s.takeEvents("txack") {
		var fields struct{ QueueItemId string }
		if err := json.Unmarshal(e.data, &fields); err != nil {
			return err
		}
		acks = append(acks, ids[fields.QueueItemId])
	}
	s.expect("txack events", strings.Join(acks, ", "), "good")
	s.expect("heard", s.apps[0].take(), "good")
	return nil
}
