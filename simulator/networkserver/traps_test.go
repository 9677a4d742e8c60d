package networkserver_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"github.com/eclipse/paho.golang/paho"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
)

// sniffer is a receiver that hears every frame of the tests' groups, of all gateways.
type sniffer struct {
	n      *simnet
	frames []radio.Frame
}

func (n *simnet) sniff(until time.Duration) *sniffer {
	s := &sniffer{n: n}
	station, err := n.medium.NewStation(lorawan.EUI64{0xff}, s)
	if err != nil {
		n.t.Fatal(err)
	}
	station.Listen(radio.Window{From: n.world.Now(), Until: epoch.Add(until), Frequency: mcFreq, DataRate: mcDR})
	return s
}

func (s *sniffer) FrameKey(f radio.Frame) (radio.Key, bool) {
	mine := len(f.Payload) > 8 && binary.LittleEndian.Uint32(f.Payload[1:]) == mcAddr
	if mine {
		s.frames = append(s.frames, f)
	}
	return radio.Key{Device: lorawan.EUI64{0xff}}, mine
}

func (*sniffer) ReceiveFrame(radio.Frame, radio.Signal) {}
func (*sniffer) LoseFrame(radio.Frame, bool)            {}

func fCnt(f radio.Frame) int { return int(binary.LittleEndian.Uint16(f.Payload[6:])) }

// want compares frame counters and whole seconds.
func (s *sniffer) want(air string) {
	s.n.t.Helper()
	var got []string
	for _, f := range s.frames {
		got = append(got, fmt.Sprintf("%d@%s", fCnt(f), f.Start.Sub(epoch).Truncate(time.Second)))
	}
	if strings.Join(got, " ") != air {
		s.n.t.Errorf("on the air %v, want %s", got, air)
	}
}

func faults(f networkserver.Faults) func(*networkserver.Config) {
	return func(c *networkserver.Config) { c.Faults = f }
}

// A frame that nobody acknowledges goes out again whenever the lock is over, with the counter it had.
func TestFrameIsSentAgainUntilItIsAcknowledged(t *testing.T) {
	l := listen(t, 1, 1, faults(networkserver.Faults{Acks: []networkserver.AckFault{{Multicast: true, Until: 65 * time.Second, Lost: true}}}))
	air := l.sniff(time.Hour)
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.run(3 * time.Minute)
	air.want("0@1m0s 0@1m2s 0@1m4s 0@1m6s")
	l.want("a@1m0s")
	if q := l.queued(); q != "" {
		t.Errorf("queue %q after the acknowledgement", q)
	}
}

// An acknowledgement counts for 30 s: before, it ends the repetition late; after, never, and only expiry does.
func TestLateAcknowledgement(t *testing.T) {
	late := func(d time.Duration) func(*networkserver.Config) {
		return faults(networkserver.Faults{Acks: []networkserver.AckFault{{Multicast: true, Delay: d}}})
	}
	l := listen(t, 1, 1, late(3*time.Second))
	air := l.sniff(time.Hour)
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.run(3 * time.Minute)
	air.want("0@1m0s 0@1m2s")

	l = listen(t, 1, 1, late(31*time.Second))
	air = l.sniff(time.Hour)
	l.broadcast(l.group, []byte("a"), epoch.Add(2*time.Minute))
	l.run(119 * time.Second)
	if q := l.queued(); q != "0" || len(air.frames) != 30 {
		t.Errorf("queue %q and %d frames before it expires, want it there and 30", q, len(air.frames))
	}
	l.run(10 * time.Minute)
	if q := l.queued(); q != "" || len(air.frames) != 31 {
		t.Errorf("queue %q and %d frames at the end, want none and 31", q, len(air.frames))
	}
}

// A gateway that refuses a frame ends it, whatever the reason, and nobody is told.
func TestRefusedFrameIsDeletedSilently(t *testing.T) {
	for name, code := range gw.TxAckStatus_value {
		st := gw.TxAckStatus(code)
		if st == gw.TxAckStatus_IGNORED || st == gw.TxAckStatus_OK {
			continue
		}
		l := listen(t, 1, 1, faults(networkserver.Faults{Acks: []networkserver.AckFault{{Multicast: true, Status: st}}}))
		air := l.sniff(time.Hour)
		l.broadcast(l.group, []byte("a"), time.Time{})
		l.run(2 * time.Minute)
		if q := l.queued(); q != "" || len(air.frames) != 0 || len(l.of("log")) != 0 || len(l.of("txack")) != 0 {
			t.Errorf("%s: queue %q, %d frames, %d log and %d txack events, want nothing", name, q, len(air.frames), len(l.of("log")), len(l.of("txack")))
		}
	}
}

// A unicast item that the gateway refuses stays, with a log event that does not say of which item, and goes out at the next
// opportunity.
func TestRefusedUnicastItemStays(t *testing.T) {
	n := start(t, options{devices: []int{1}, app: func(int) *model { return &model{period: 60_000} },
		configure: faults(networkserver.Faults{Acks: []networkserver.AckFault{{From: 30 * time.Second, Until: 90 * time.Second, Status: gw.TxAckStatus_TX_POWER}}})})
	n.run(30 * time.Second)
	id := n.enqueue(1, 10, "hi")
	n.run(5 * time.Minute)
	logs, acks := n.of("log"), n.of("txack")
	if len(logs) != 1 || len(acks) != 1 || !strings.Contains(fmt.Sprint(logs[0].m), "TX_POWER") || strings.Contains(fmt.Sprint(logs[0].m), id) ||
		acks[0].at.Sub(logs[0].at) < 50*time.Second {
		t.Errorf("log %v and txack %v, want one refusal, and the item with the next uplink", logs, acks)
	}
}

// Basics Station acknowledges a frame once it was sent, and says nothing of one it cannot send: that one loops.
func TestBasicsStationNeverRefuses(t *testing.T) {
	l := listen(t, 1, 1, func(c *networkserver.Config) { c.Gateways[0].BasicsStation = true })
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.run(2 * time.Minute)
	l.want("a@1m0s")
	if q := l.queued(); q != "" {
		t.Errorf("queue %q after the frame was sent", q)
	}
	g := l.get()
	g.ClassCSchedulingType = api.MulticastGroupSchedulingType_GPS_TIME
	if _, err := l.multicast().Update(l.ctx, &api.UpdateMulticastGroupRequest{MulticastGroup: g}); err != nil {
		t.Fatal(err)
	}
	air := l.sniff(time.Hour)
	l.broadcast(l.group, []byte("b"), epoch.Add(30*time.Minute))
	l.run(29 * time.Minute)
	if q := l.queued(); q != "1" || len(air.frames) != 0 {
		t.Errorf("queue %q and %d frames, want the frame that is too late in the queue for ever", q, len(air.frames))
	}
	l.run(31 * time.Minute)
	if q := l.queued(); q != "" {
		t.Errorf("queue %q after the expiry", q)
	}
}

// outage cuts the gateway off from 50 s to 200 s; six frames are queued at 120 s.
func outage(t *testing.T, db networkserver.Database) (listening, *sniffer) {
	l := listen(t, 1, 1, func(c *networkserver.Config) {
		c.Database = db
		c.Faults.Outages = []networkserver.Outage{{Gateway: gatewayID, From: 50 * time.Second, Until: 200 * time.Second}}
	})
	air := l.sniff(time.Hour)
	l.run(2 * time.Minute)
	r, err := api.NewGatewayServiceClient(l.conn).List(l.ctx, &api.ListGatewaysRequest{Limit: 1})
	if err != nil || r.Result[0].State != api.GatewayState_OFFLINE || !r.Result[0].LastSeenAt.AsTime().Equal(epoch.Add(30*time.Second)) {
		t.Errorf("the gateway is %v, %v; want offline since 30 s", r, err)
	}
	for i := range 6 {
		l.broadcast(l.group, []byte{'a' + byte(i)}, time.Time{})
	}
	l.run(5 * time.Minute)
	if q := l.queued(); q != "" {
		t.Errorf("queue %q at the end", q)
	}
	return l, air
}

// PostgreSQL keeps the frames of a gateway that is offline. When it reports again, all that is overdue is sent at
// once and in no order, of which devices drop what comes behind its successor.
func TestOutageEndsInABurst(t *testing.T) {
	l, air := outage(t, networkserver.PostgreSQL)
	var order []int
	for _, f := range air.frames {
		order = append(order, fCnt(f))
		if at := f.Start.Sub(epoch); at < 210*time.Second || at > 212*time.Second {
			t.Errorf("frame %d was sent at %s, want with the statistics of 210 s", fCnt(f), at)
		}
	}
	s := l.fleet.Devices()[0].Stats()
	if len(order) != 6 || slices.IsSorted(order) || s.Multicasts+s.MulticastsRefused != 6 || s.MulticastsRefused == 0 {
		t.Errorf("sent %v, the device counted %+v; want six frames in disorder", order, s)
	}
}

// SQLite does not look: frames go to a gateway that is not there, each again and again until it is.
func TestSQLiteSendsToAGatewayThatIsOffline(t *testing.T) {
	_, air := outage(t, networkserver.SQLite)
	if len(air.frames) != 6 {
		t.Fatalf("%d frames, want 6", len(air.frames))
	}
	for _, f := range air.frames {
		if at := f.Start.Sub(epoch); at < 200*time.Second || at > 203*time.Second {
			t.Errorf("frame %d was sent at %s, want within a lock of the end of the outage", fCnt(f), at)
		}
	}
}

// SetOnline does the same at an instant that a test chooses.
func TestSetOnline(t *testing.T) {
	l := listen(t, 1, 1, nil)
	if err := l.server.SetOnline(eui(1), false); err == nil {
		t.Error("a gateway that does not exist was cut off")
	}
	for i, online := range []bool{false, true} {
		if err := l.server.SetOnline(gatewayID, online); err != nil {
			t.Fatal(err)
		}
		l.run(time.Duration(3+2*i) * time.Minute)
		g, err := api.NewGatewayServiceClient(l.conn).List(l.ctx, &api.ListGatewaysRequest{Limit: 1})
		if want := map[bool]api.GatewayState{false: api.GatewayState_OFFLINE, true: api.GatewayState_ONLINE}[online]; err != nil || g.Result[0].State != want {
			t.Errorf("after SetOnline(%v) the gateway is %v, %v", online, g, err)
		}
	}
}

// A gateway that never reported has no region: on SQLite its frames loop, and not even their expiry ends that.
func TestGatewayThatNeverReported(t *testing.T) {
	for _, db := range []networkserver.Database{networkserver.PostgreSQL, networkserver.SQLite} {
		l := listen(t, 1, 0, func(c *networkserver.Config) { c.Database = db })
		if _, err := api.NewGatewayServiceClient(l.conn).Create(l.ctx, &api.CreateGatewayRequest{Gateway: &api.Gateway{GatewayId: "0102030405060708", Name: "new", TenantId: tenantID}}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.multicast().AddGateway(l.ctx, &api.AddGatewayToMulticastGroupRequest{MulticastGroupId: l.group, GatewayId: "0102030405060708"}); err != nil {
			t.Fatal(err)
		}
		l.broadcast(l.group, []byte("a"), epoch.Add(2*time.Minute))
		l.run(5 * time.Minute)
		if q := l.queued(); q != "0" {
			t.Errorf("database %d: queue %q, want the frame there", db, q)
		}
	}
}

// Class B: the same ping slot on all gateways, one slot for each frame, handed over two intervals before.
func TestClassBSlots(t *testing.T) {
	const periodicity = 5
	app := &model{group: true, class: 'B', start: gps(0), end: gps(time.Hour)}
	n := start(t, options{devices: []int{1}, gateways: 2, app: func(int) *model { return app }})
	n.run(time.Minute)
	group := n.group(2)
	r, err := n.multicast().Get(n.ctx, &api.GetMulticastGroupRequest{Id: group})
	if err != nil {
		t.Fatal(err)
	}
	g := r.MulticastGroup
	g.GroupType, g.ClassBPingSlotPeriodicity = api.MulticastGroupType_CLASS_B, periodicity
	if _, err := n.multicast().Update(n.ctx, &api.UpdateMulticastGroupRequest{MulticastGroup: g}); err != nil {
		t.Fatal(err)
	}
	air := n.sniff(time.Hour)
	l := listening{simnet: n, group: group}
	slot := airtime.GPS(epoch.Add(time.Minute + 5*time.Second))
	var want []string
	for i := range 3 {
		n.broadcast(group, []byte{'a' + byte(i)}, time.Time{})
		slot = airtime.NextPingSlot(mcAddr, slot+1, periodicity)
		for range 2 {
			want = append(want, fmt.Sprintf("%d@%s", i, airtime.UTC(slot).Sub(epoch)))
		}
	}
	first := airtime.UTC(airtime.NextPingSlot(mcAddr, airtime.GPS(epoch.Add(time.Minute+5*time.Second))+1, periodicity)).Sub(epoch)
	n.run(first - 2*time.Second)
	if q := l.queued(); q != "0 1 2" {
		t.Errorf("queue %q two intervals before the slot", q)
	}
	n.run(first - 500*time.Millisecond)
	if q := l.queued(); q != "1 2" || len(air.frames) != 0 {
		t.Errorf("queue %q and %d frames before the slot: the queue must empty before the emission", q, len(air.frames))
	}
	n.run(10 * time.Minute)
	var got []string
	for _, f := range air.frames {
		got = append(got, fmt.Sprintf("%d@%s", fCnt(f), f.Start.Sub(epoch)))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("sent %v, want %v", got, want)
	}
	if heard := string(bytes.Join(app.seen, nil)); heard != "abc" {
		t.Errorf("the device heard %q in its ping slots, want abc", heard)
	}
	g.ClassBPingSlotPeriodicity = 8
	if _, err := n.multicast().Update(n.ctx, &api.UpdateMulticastGroupRequest{MulticastGroup: g}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.multicast().Enqueue(n.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: 1}}); status.Code(err) != codes.Internal {
		t.Errorf("Enqueue with periodicity 8 = %v, want Internal", err)
	}
}

// Without pins, of two gateways that hear a device equally well either may be chosen, anew at each call; of several,
// the one that hears most devices. One that was deleted makes the call fail, and no counter is used.
func TestAutomaticGateways(t *testing.T) {
	l := listen(t, 2, 0, nil)
	if _, err := l.multicast().AddDevice(l.ctx, &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: l.group, DevEui: eui(1).String()}); err != nil {
		t.Fatal(err)
	}
	air := l.sniff(time.Hour)
	for range 16 {
		l.broadcast(l.group, []byte("a"), time.Time{})
	}
	l.run(5 * time.Minute)
	by := map[lorawan.EUI64]int{}
	for _, f := range air.frames {
		by[f.Gateway]++
	}
	if len(air.frames) != 16 || len(by) != 2 {
		t.Errorf("%d frames by %v, want 16, and each gateway at times", len(air.frames), by)
	}
	for id := range by {
		if _, err := api.NewGatewayServiceClient(l.conn).Delete(l.ctx, &api.DeleteGatewayRequest{GatewayId: id.String()}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := l.multicast().Enqueue(l.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: l.group, FPort: 1}})
	if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "foreign key") || l.get().FCnt != 16 {
		t.Errorf("Enqueue for a deleted gateway = %v and next counter %d, want Internal and 16", err, l.get().FCnt)
	}
}

// A restart keeps the queues and forgets what was on its way: the frame goes out again.
func TestRestartKeepsTheQueueOnly(t *testing.T) {
	l := listen(t, 1, 1, faults(networkserver.Faults{
		Acks:     []networkserver.AckFault{{Multicast: true, Until: 61 * time.Second, Delay: 700 * time.Millisecond}},
		Restarts: []networkserver.Restart{{At: 60500 * time.Millisecond, Down: 10 * time.Second}},
	}))
	air := l.sniff(time.Hour)
	unicast := l.enqueue(1, 10, "hi")
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.run(65 * time.Second)
	if _, err := l.multicast().Get(l.ctx, &api.GetMulticastGroupRequest{Id: l.group}); status.Code(err) != codes.Unavailable {
		t.Errorf("Get while the server is down = %v, want Unavailable", err)
	}
	l.run(3 * time.Minute)
	air.want("0@1m0s 0@1m11s")
	l.want("a@1m0s")
	r, err := l.device().GetQueue(l.ctx, &api.GetDeviceQueueItemsRequest{DevEui: eui(1).String()})
	if err != nil || len(r.Result) != 1 || r.Result[0].Id != unicast {
		t.Errorf("unicast queue %v, %v after the restart, want item %s", r, err, unicast)
	}
}

// What passes between the server and a gateway on the radio can be read from the topics of the gateway backend: the
// frame, and under the same identifier what the gateway says of it, for every gateway and every attempt.
func TestGatewayTopics(t *testing.T) {
	l := listen(t, 2, 2, faults(networkserver.Faults{Acks: []networkserver.AckFault{
		{Gateway: gatewayID, Multicast: true, Status: gw.TxAckStatus_DUTY_CYCLE_OVERFLOW}}}))
	type key struct {
		gateway string
		id      uint32
	}
	frames, said := map[key]int{}, map[key]gw.TxAckStatus{}
	l.subscribeTo("eu868/gateway/+/+/+", func(topic string, payload []byte) {
		part := strings.Split(topic, "/")
		switch part[3] + "/" + part[4] {
		case "command/down":
			m := &gw.DownlinkFrame{}
			if err := proto.Unmarshal(payload, m); err != nil || m.GatewayId != part[2] || len(m.Items) != 1 || m.Items[0].TxInfo.GetFrequency() != mcFreq {
				t.Errorf("%s: %v, %v", topic, m, err)
				return
			}
			frames[key{part[2], m.DownlinkId}] = int(binary.LittleEndian.Uint16(m.Items[0].PhyPayload[6:]))
		case "event/ack":
			m := &gw.DownlinkTxAck{}
			if err := proto.Unmarshal(payload, m); err != nil || m.GatewayId != part[2] || len(m.Items) != 1 {
				t.Errorf("%s: %v, %v", topic, m, err)
				return
			}
			said[key{part[2], m.DownlinkId}] = m.Items[0].Status
		default:
			t.Errorf("message on %s", topic)
		}
	})
	for range 2 {
		l.broadcast(l.group, []byte("a"), time.Time{})
	}
	l.run(3 * time.Minute)
	by := map[string]string{}
	for k, fCnt := range frames {
		st, ok := said[k]
		if !ok {
			t.Errorf("nothing was said of frame %d to %s", fCnt, k.gateway)
		}
		by[k.gateway] += fmt.Sprintf("%s ", st)
	}
	if len(frames) != 4 || len(said) != 4 || by[gatewayID.String()] != "DUTY_CYCLE_OVERFLOW DUTY_CYCLE_OVERFLOW " {
		t.Errorf("%d frames, %d answers: %v, want 4, of which the first gateway refuses 2", len(frames), len(said), by)
	}
}

// subscribeTo connects another client, which acknowledges at once what it has heard.
func (n *simnet) subscribeTo(topic string, heard func(topic string, payload []byte)) {
	conn, err := net.Dial("tcp", n.server.MQTTAddress())
	if err != nil {
		n.t.Fatal(err)
	}
	client := paho.NewClient(paho.ClientConfig{Conn: conn, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(p paho.PublishReceived) (bool, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			heard(p.Packet.Topic, p.Packet.Payload)
			return true, nil
		},
	}})
	if _, err := client.Connect(n.t.Context(), &paho.Connect{ClientID: "another", KeepAlive: 60, CleanStart: true}); err != nil {
		n.t.Fatal(err)
	}
	if _, err := client.Subscribe(n.t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: 1}}}); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { client.Disconnect(&paho.Disconnect{}) })
}
