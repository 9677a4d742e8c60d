package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// checks run in this order and share the application. The error of one means that the run is over.
var checks = []struct {
	name string
	run  func(*suite) error
}{
	{"joins and uplinks", (*suite).checkJoins},
	{"error codes", (*suite).checkErrors},
	{"a frame for no gateway", (*suite).checkNoGateway},
	{"spacing of class C frames", (*suite).checkSpacing},
	{"the frame counter", (*suite).checkCounter},
	{"frames that are never sent", (*suite).checkDropped},
	{"no acknowledgement", (*suite).checkSilence},
	{"refusals", (*suite).checkRefusals},
	{"GPS_TIME", (*suite).checkGPSTime},
	{"class B", (*suite).checkClassB},
	{"automatic choice of gateways", (*suite).checkAutomatic},
	{"the unicast queue", (*suite).checkUnicast},
	{"battery, margin and changes of a device", (*suite).checkStatus},
	{"an outage", (*suite).checkOutage},
	{"many calls at once", (*suite).checkConcurrency},
	{"deployments", (*suite).checkDeployments},
}

func (s *suite) mc() api.MulticastGroupServiceClient {
	return api.NewMulticastGroupServiceClient(s.Conn)
}

func (s *suite) dev() api.DeviceServiceClient { return api.NewDeviceServiceClient(s.Conn) }

// group makes a multicast group with the first n gateways pinned. All groups have one address, so that the devices
// are members of each; counters go on from group to group, and in the report each begins at 0.
func (s *suite) group(n int, change func(*api.MulticastGroup)) (string, error) {
	s.base += 100
	g := &api.MulticastGroup{
		FCnt: s.base, Name: "conformance", ApplicationId: s.site.Application, McAddr: fmt.Sprintf("%08x", mcAddr),
		McNwkSKey: fmt.Sprintf("%x", mcNwk[:]), McAppSKey: fmt.Sprintf("%x", mcApp[:]), Dr: mcDR, Frequency: mcFreq,
	}
	if change != nil {
		change(g)
	}
	r, err := s.mc().Create(s.ctx, &api.CreateMulticastGroupRequest{MulticastGroup: g})
	if err != nil {
		return "", err
	}
	for _, id := range s.gateways[:n] {
		if _, err := s.mc().AddGateway(s.ctx, &api.AddGatewayToMulticastGroupRequest{MulticastGroupId: r.Id, GatewayId: id.String()}); err != nil {
			return "", err
		}
	}
	return r.Id, nil
}

// over deletes a group and forgets what was heard of it.
func (s *suite) over(group string) error {
	_, err := s.mc().Delete(s.ctx, &api.DeleteMulticastGroupRequest{Id: group})
	s.take()
	for _, a := range s.apps {
		a.take()
	}
	return err
}

func (s *suite) enqueue(group string, data []byte, expires time.Time) (uint32, error) {
	item := &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: 201, Data: data, FCnt: 4711}
	if !expires.IsZero() {
		item.ExpiresAt = timestamppb.New(expires)
	}
	r, err := s.mc().Enqueue(s.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: item})
	if err != nil {
		return 0, err
	}
	return r.FCnt - s.base, nil
}

// queue lists the frame counters that wait.
func (s *suite) queue(group string) (string, error) {
	r, err := s.mc().ListQueue(s.ctx, &api.ListMulticastGroupQueueRequest{MulticastGroupId: group})
	if err != nil {
		return "", err
	}
	var out []string
	for _, q := range r.Items {
		out = append(out, fmt.Sprint(int64(q.FCnt)-int64(s.base)))
	}
	return "[" + strings.Join(out, " ") + "]", nil
}

// drain lets time pass until the queue is empty, a minute and a half at most.
func (s *suite) drain(group string) error {
	for range 90 {
		q, err := s.queue(group)
		if err != nil || q == "[]" {
			return err
		}
		if err := s.pass(time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) next(group string) (uint32, error) {
	r, err := s.mc().Get(s.ctx, &api.GetMulticastGroupRequest{Id: group})
	if err != nil {
		return 0, err
	}
	return r.MulticastGroup.FCnt - s.base, nil
}

// commandsText lists counter, gateway and whole seconds since the first.
func commandsText(cs []command) string {
	var out []string
	for _, c := range cs {
		out = append(out, fmt.Sprintf("%d/g%d@%.0fs", c.fCnt, c.gateway, c.at.Sub(cs[0].at).Seconds()))
	}
	return strings.Join(out, " ")
}

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

func (s *suite) checkNoGateway() error {
	group, err := s.group(0, nil)
	if err != nil {
		return err
	}
	for want := range uint32(2) {
		got, err := s.enqueue(group, []byte("a"), time.Time{})
		if err != nil {
			return err
		}
		s.expect("counter", got, want)
	}
	q, err := s.queue(group)
	if err != nil {
		return err
	}
	s.expect("queue", q, "[]")
	if err := s.pass(3 * time.Second); err != nil {
		return err
	}
	s.expect("commands", len(s.take()), 0)
	s.expect("log events", len(s.takeEvents("log")), 0)
	return s.over(group)
}

func (s *suite) checkSpacing() error {
	group, err := s.group(2, nil)
	if err != nil {
		return err
	}
	s.take()
	for _, text := range []string{"a", "b", "c"} {
		if _, err := s.enqueue(group, []byte(text), time.Time{}); err != nil {
			return err
		}
	}
	q, err := s.queue(group)
	if err != nil {
		return err
	}
	s.expect("queue", q, "[0 1 2]")
	if err := s.drain(group); err != nil {
		return err
	}
	if err := s.pass(2 * time.Second); err != nil {
		return err
	}
	cs := s.take()
	s.expect("commands", len(cs), 6)
	if len(cs) == 6 {
		s.say("%s", commandsText(cs))
		margin := cs[5].at.Sub(cs[0].at) / 5
		even, order, mic := true, true, true
		for i, c := range cs {
			off := c.at.Sub(cs[0].at) - time.Duration(i)*margin
			even = even && off.Abs() <= 1500*time.Millisecond
			order = order && c.fCnt == i/2 && c.gateway == i%2
			mic = mic && c.validMIC
		}
		s.expect("one margin between any two", even && margin > 0, true)
		s.expect("gateway after gateway, counter after counter", order, true)
		s.expect("the MIC is valid", mic, true)
	}
	for _, a := range s.apps {
		s.expect("heard", a.take(), "a b c")
	}
	return s.over(group)
}

func (s *suite) checkCounter() error {
	group, err := s.group(0, nil)
	if err != nil {
		return err
	}
	r, err := s.mc().Get(s.ctx, &api.GetMulticastGroupRequest{Id: group})
	if err != nil {
		return err
	}
	f, err := s.enqueue(group, []byte("a"), time.Time{})
	if err != nil {
		return err
	}
	s.expect("the counter of the request is ignored", f, 0)
	if _, err := s.mc().FlushQueue(s.ctx, &api.FlushMulticastGroupQueueRequest{MulticastGroupId: group}); err != nil {
		return err
	}
	f, err = s.next(group)
	if err != nil {
		return err
	}
	s.expect("next after a flush", f, 1)
	if _, err := s.mc().Update(s.ctx, &api.UpdateMulticastGroupRequest{MulticastGroup: r.MulticastGroup}); err != nil {
		return err
	}
	f, err = s.next(group)
	if err != nil {
		return err
	}
	s.expect("next after an update with what was read before", f, 0)
	return s.over(group)
}

func (s *suite) checkDropped() error {
	group, err := s.group(1, nil)
	if err != nil {
		return err
	}
	s.takeEvents("log")
	for _, frame := range []struct {
		data    []byte
		expires time.Time
	}{
		{[]byte("a"), time.Time{}},
		{[]byte("expired"), s.World.Now().Add(-time.Minute)},
		{bytes.Repeat([]byte("x"), 200), time.Time{}}, // 115 fit DR3
		{[]byte("b"), time.Time{}},
	} {
		if _, err := s.enqueue(group, frame.data, frame.expires); err != nil {
			return err
		}
	}
	q, err := s.queue(group)
	if err != nil {
		return err
	}
	s.expect("queue", q, "[0 1 2 3]")
	if err := s.drain(group); err != nil {
		return err
	}
	if err := s.pass(2 * time.Second); err != nil {
		return err
	}
	var sent []int
	for _, c := range s.take() {
		sent = append(sent, c.fCnt)
	}
	s.expect("sent", sent, []int{0, 3})
	s.expect("heard", s.apps[0].take(), "a b")
	s.expect("log events", len(s.takeEvents("log")), 0)
	if err := s.over(group); err != nil {
		return err
	}
	if group, err = s.group(1, func(g *api.MulticastGroup) { g.Dr = 14 }); err != nil {
		return err
	}
	if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
		return err
	}
	if err := s.pass(10 * time.Second); err != nil {
		return err
	}
	if q, err = s.queue(group); err != nil {
		return err
	}
	s.expect("unknown data rate after 10 s", q, "[0]")
	return s.over(group)
}

func (s *suite) checkSilence() error {
	group, err := s.group(1, nil)
	if err != nil {
		return err
	}
	s.gatewaysSay(gw.TxAckStatus_OK, true)
	if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
		return err
	}
	if err := s.pass(8 * time.Second); err != nil {
		return err
	}
	s.gatewaysSay(gw.TxAckStatus_OK, false)
	cs := s.take()
	s.say("%s", commandsText(cs))
	ids := map[uint32]bool{}
	same := true
	for _, c := range cs {
		ids[c.id] = true
		same = same && c.fCnt == 0
	}
	s.expect("sent again", len(cs) >= 3, true)
	s.expect("with the same counter", same, true)
	s.expect("and another downlink id", len(ids) == len(cs), true)
	if err := s.drain(group); err != nil {
		return err
	}
	s.expect("heard", s.apps[0].take(), "a")
	return s.over(group)
}

func (s *suite) checkRefusals() error {
	defer s.gatewaysSay(gw.TxAckStatus_OK, false)
	for _, st := range refusals {
		group, err := s.group(1, nil)
		if err != nil {
			return err
		}
		s.gatewaysSay(st, false)
		if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
			return err
		}
		if err := s.pass(6 * time.Second); err != nil {
			return err
		}
		q, err := s.queue(group)
		if err != nil {
			return err
		}
		s.expect(st.String()+": queue", q, "[]")
		s.expect(st.String()+": commands", len(s.take()), 1)
		if err := s.over(group); err != nil {
			return err
		}
	}
	s.expect("log events", len(s.takeEvents("log")), 0)
	s.expect("txack events", len(s.takeEvents("txack")), 0)
	return nil
}

func (s *suite) checkGPSTime() error {
	const text = "GPS_TIME hands a class C frame to the gateway at or after its own emission time"
	group, err := s.group(1, func(g *api.MulticastGroup) { g.ClassCSchedulingType = api.MulticastGroupSchedulingType_GPS_TIME })
	if err != nil {
		return err
	}
	s.take()
	if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
		return err
	}
	if err := s.pass(20 * time.Second); err != nil {
		return err
	}
	cs := s.take()
	switch {
	case len(cs) == 0:
		s.judge(text, Open, "no command within 20 s")
	case !cs[0].hasEmit:
		s.judge(text, Refuted, "the command has no GPS time")
	case cs[0].at.Before(cs[0].emitAt):
		s.judge(text, Refuted, "%.1f s before", cs[0].emitAt.Sub(cs[0].at).Seconds())
	default:
		s.judge(text, Confirmed, "%.1f s after", cs[0].at.Sub(cs[0].emitAt).Seconds())
	}
	return s.over(group)
}

func (s *suite) checkClassB() error {
	const text = "class B with a periodicity above 7 is accepted by Create and fails later"
	group, err := s.group(2, func(g *api.MulticastGroup) {
		g.GroupType, g.ClassBPingSlotPeriodicity = api.MulticastGroupType_CLASS_B, 3
	})
	if err != nil {
		return err
	}
	s.take()
	for range 2 {
		if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
			return err
		}
	}
	if err := s.pass(45 * time.Second); err != nil {
		return err
	}
	cs := s.take()
	slots := map[int]time.Time{}
	early, simulcast := true, true
	for _, c := range cs {
		early = early && c.hasEmit && c.at.Before(c.emitAt)
		if at, seen := slots[c.fCnt]; seen {
			simulcast = simulcast && at.Equal(c.emitAt)
		}
		slots[c.fCnt] = c.emitAt
	}
	s.expect("commands", len(cs), 4)
	s.expect("handed over before the slot", early, true)
	s.expect("one slot for all gateways", simulcast, true)
	s.expect("another slot for the next frame", slots[1].After(slots[0]), true)
	if err := s.over(group); err != nil {
		return err
	}
	group, err = s.group(1, func(g *api.MulticastGroup) {
		g.GroupType, g.ClassBPingSlotPeriodicity = api.MulticastGroupType_CLASS_B, 8
	})
	if err != nil {
		s.judge(text, Refuted, "Create: %s", status.Code(err))
		return nil
	}
	if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
		s.judge(text, Confirmed, "Enqueue: %s", status.Code(err))
	} else {
		s.judge(text, Refuted, "Enqueue accepts it too")
	}
	return s.over(group)
}

func (s *suite) checkAutomatic() error {
	group, err := s.group(0, nil)
	if err != nil {
		return err
	}
	if _, err := s.mc().AddDevice(s.ctx, &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: group, DevEui: s.devices[0].String()}); err != nil {
		return err
	}
	s.take()
	if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
		return err
	}
	if err := s.drain(group); err != nil {
		return err
	}
	if err := s.pass(3 * time.Second); err != nil {
		return err
	}
	s.expect("one gateway that has heard the member", len(s.take()), 1)
	s.expect("heard", s.apps[0].take(), "a")
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

func (s *suite) checkOutage() error {
	const text = "after an outage of a gateway (PostgreSQL) every overdue frame is sent at once, in no order"
	s.attached.SetReporting(false)
	if err := s.pass(95 * time.Second); err != nil {
		return err
	}
	if err := s.states("OFFLINE"); err != nil {
		return err
	}
	group, err := s.group(1, nil)
	if err != nil {
		return err
	}
	s.take()
	for i := range 5 {
		if _, err := s.enqueue(group, []byte{'a' + byte(i)}, time.Time{}); err != nil {
			return err
		}
	}
	if err := s.pass(30 * time.Second); err != nil {
		return err
	}
	online := len(s.take()) // what an offline gateway was sent: a server without the check
	s.attached.SetReporting(true)
	if err := s.pass(45 * time.Second); err != nil {
		return err
	}
	cs := s.take()
	switch {
	case online > 0:
		s.say("frames for a gateway that is offline: sent")
		s.judge(text, Open, "this server sends to gateways that are offline, as with SQLite")
	case len(cs) == 5 && cs[4].at.Sub(cs[0].at) <= 2*time.Second:
		s.say("frames for a gateway that is offline: wait for it")
		var order []int
		for _, c := range cs {
			order = append(order, c.fCnt)
		}
		s.judge(text, Confirmed, "5 frames within %.0f s, in the order %v", cs[4].at.Sub(cs[0].at).Seconds(), order)
	default:
		s.judge(text, Refuted, "%s", commandsText(cs))
	}
	return s.over(group)
}

func (s *suite) checkConcurrency() error {
	const text = "concurrent calls of Enqueue may answer \"database is locked\" (SQLite)"
	const calls = 16
	group, err := s.group(1, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	done, locked := map[uint32]int{}, 0
	var other []string
	for range calls {
		wg.Go(func() {
			r, err := s.mc().Enqueue(ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: 1, Data: []byte("x")}})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				done[r.FCnt]++
			case strings.Contains(err.Error(), "locked"):
				locked++
			default:
				other = append(other, err.Error())
			}
		})
	}
	wg.Wait()
	next, err := s.next(group)
	if err != nil {
		return err
	}
	s.expect("other errors", len(other), 0)
	s.expect("every counter once", int(next) == len(done) && len(done)+locked+len(other) == calls, true)
	if locked > 0 {
		s.judge(text, Confirmed, "%d of %d calls", locked, calls)
	} else {
		s.judge(text, Open, "none of %d calls", calls)
	}
	return s.over(group)
}

func (s *suite) checkDeployments() error {
	_, err := api.NewFuotaServiceClient(s.Conn).ListDeployments(s.ctx, &api.ListFuotaDeploymentsRequest{ApplicationId: s.site.Application})
	evidence := "deployments are not exercised"
	if status.Code(err) == codes.Unimplemented {
		evidence = "this server has no deployments"
	}
	s.judge("DeleteDeployment leaves the multicast group transmitting", Open, "%s", evidence)
	s.judge("a deployment with fragment_size 0 divides by zero", Open, "%s", evidence)
	return nil
}
