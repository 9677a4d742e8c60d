package gateway_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/gateway"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

var (
	epoch  = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	appKey = lorawan.AES128Key{1, 2, 3}
	mcNwk  = lorawan.AES128Key{4}
	mcApp  = lorawan.AES128Key{5}
)

const (
	mcAddr = 0x01aabbcc
	mcFreq = 869_525_000
	mcDR   = 3
)

func eui(i int) (e lorawan.EUI64) {
	binary.BigEndian.PutUint64(e[:], 0x70b3d57ed0000000+uint64(i))
	return e
}

func gatewayID(i int) (e lorawan.EUI64) {
	binary.BigEndian.PutUint64(e[:], 0x0016c001f1530000+uint64(i))
	return e
}

// meter is a device: it says hello once it has joined, echoes unicast downlinks on port 10 and keeps what it
// hears of its group.
type meter struct {
	heard []string
	joins int
}

func frames(ms ...modem.Message) []modem.Frame {
	out, err := modem.Frames(ms...)
	if err != nil {
		panic(err) // a mistake in this file
	}
	return out
}

var idle = modem.IdleUntil{Time: modem.Never}

func (m *meter) PowerUp() ([]modem.Frame, error) {
	gps := func(t time.Time) uint64 { return uint64(airtime.GPS(t) / time.Millisecond) }
	return frames(
		modem.SetMcGroup{ID: 0, Defined: true, Addr: mcAddr, AppSKey: mcApp, NwkSKey: mcNwk, MaxFCnt: 1000},
		modem.Session{Class: 'C', DR: mcDR, Frequency: mcFreq, Start: gps(epoch), End: gps(epoch.Add(time.Hour))},
		idle), nil
}

func (m *meter) Turn(f modem.Frame) ([]modem.Frame, error) {
	msg, err := f.Message()
	if err != nil {
		return nil, err
	}
	switch msg := msg.(type) {
	case modem.Link:
		m.joins++
		return frames(modem.Up{Port: 2, Data: []byte("hello")}, idle), nil
	case modem.Down:
		m.heard = append(m.heard, fmt.Sprintf("%d %s", msg.Port, msg.Data))
		if msg.Group == modem.Unicast {
			return frames(modem.Up{Port: 10, Data: append([]byte("echo "), msg.Data...)}, idle), nil
		}
	}
	return frames(idle), nil
}

func (m *meter) Close() error { return nil }

func newFleet(t *testing.T, w *world.World, devices int) (*radio.Medium, *fleet.Fleet, []*meter) {
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	medium := radio.NewMedium(w, radio.EU868(), loss)
	f, err := fleet.New(fleet.Config{World: w, Medium: medium, Failed: func(e lorawan.EUI64, _ time.Time, err error) { t.Errorf("%s: %v", e, err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var meters []*meter
	for i := range devices {
		m := &meter{}
		meters = append(meters, m)
		if _, err := f.Add(fleet.DeviceConfig{EUI: eui(i), AppKey: appKey, DataRate: 5, App: m, PowerUp: time.Duration(i) * 100 * time.Millisecond, DevNonce: 40}); err != nil {
			t.Fatal(err)
		}
	}
	return medium, f, meters
}

// TestFleetOnANetworkServer provisions gateways and devices on a network server that knows nothing of the
// simulated radio, and exchanges data with them through the MQTT gateway backend: OTAA, uplinks, unicast
// downlinks and multicast class C, once with protobuf and once with JSON.
func TestFleetOnANetworkServer(t *testing.T) {
	for _, json := range []bool{false, true} {
		t.Run(fmt.Sprintf("json=%v", json), func(t *testing.T) { onNetworkServer(t, json) })
	}
}

func onNetworkServer(t *testing.T, json bool) {
	const devices = 5
	w := world.New(epoch)
	empty, _, _ := newFleet(t, w, 0)
	server, err := networkserver.New(networkserver.Config{
		World: w, Medium: empty, Seed: 1, Token: "secret",
		Tenant: networkserver.Tenant{ID: networkserver.UUID(1, "tenant"), Name: "tenant"},
		// A database that is busy, as ChirpStack's on SQLite is at times.
		Faults: networkserver.Faults{Calls: []networkserver.CallFault{
			{Method: "/api.DeviceService/Create", First: 2, Count: 2, Effect: networkserver.Locked},
			{Method: "/api.DeviceService/CreateKeys", First: 3, Count: 1, Effect: networkserver.Locked},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	conn, err := grpc.NewClient(server.GRPCAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })

	medium, f, meters := newFleet(t, w, devices)
	site := gateway.Site{Name: "virtual", Region: common.Region_EU868, Gateways: []lorawan.EUI64{gatewayID(0), gatewayID(1)}}
	for i := range devices {
		site.Devices = append(site.Devices, gateway.SiteDevice{EUI: eui(i), AppKey: appKey})
	}
	made, err := gateway.Provision(t.Context(), conn, "secret", site)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gateway.Provision(t.Context(), conn, "secret", site); err == nil {
		t.Error("the same devices were provisioned twice")
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer secret")
	gateways := api.NewGatewayServiceClient(conn)
	states := func() string {
		r, err := gateways.List(ctx, &api.ListGatewaysRequest{Limit: 10, OrderBy: api.ListGatewaysRequest_GATEWAY_ID})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, g := range r.Result {
			out = append(out, fmt.Sprint(g.State, len(g.Properties)))
		}
		return strings.Join(out, " ")
	}
	if got := states(); got != "NEVER_SEEN 0 NEVER_SEEN 0" {
		t.Errorf("gateways before they are attached: %s", got)
	}
	a, err := gateway.Attach(t.Context(), gateway.Config{
		World: w, Medium: medium, Broker: "mqtt://" + server.MQTTAddress(), Gateways: site.Gateways, JSON: json, QoS: 1, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	run := func(until time.Duration) {
		t.Helper()
		if err := w.Run(t.Context(), epoch.Add(until)); err != nil {
			t.Fatal(err)
		}
	}
	run(time.Minute)
	if got := states(); got != "ONLINE 2 ONLINE 2" {
		t.Errorf("gateways once they are attached: %s", got)
	}
	for i, m := range meters {
		s := f.Devices()[i].Stats()
		if m.joins != 1 || !s.Joined || s.Uplinks != 1 {
			t.Errorf("device %d after a minute: %+v, want joined and one uplink", i, s)
		}
		if _, err := api.NewDeviceServiceClient(conn).Enqueue(ctx, &api.EnqueueDeviceQueueItemRequest{
			QueueItem: &api.DeviceQueueItem{DevEui: eui(i).String(), FPort: 10, Data: []byte("hi"), Confirmed: true}}); err != nil {
			t.Fatal(err)
		}
	}
	mc := api.NewMulticastGroupServiceClient(conn)
	group, err := mc.Create(ctx, &api.CreateMulticastGroupRequest{MulticastGroup: &api.MulticastGroup{
		Name: "g", ApplicationId: made.Application, McAddr: fmt.Sprintf("%08x", mcAddr), McNwkSKey: fmt.Sprintf("%x", mcNwk[:]), McAppSKey: fmt.Sprintf("%x", mcApp[:]),
		Dr: mcDR, Frequency: mcFreq}})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range site.Gateways {
		if _, err := mc.AddGateway(ctx, &api.AddGatewayToMulticastGroupRequest{MulticastGroupId: group.Id, GatewayId: id.String()}); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"one", "two"} {
		if _, err := mc.Enqueue(ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: group.Id, FPort: 201, Data: []byte(text)}}); err != nil {
			t.Fatal(err)
		}
	}
	run(3 * time.Minute)
	for i, m := range meters {
		if got := strings.Join(m.heard, ", "); got != "201 one, 201 two" {
			t.Errorf("device %d heard %q", i, got)
		}
	}
	queue, err := mc.ListQueue(ctx, &api.ListMulticastGroupQueueRequest{MulticastGroupId: group.Id})
	if err != nil || len(queue.Items) != 0 {
		t.Errorf("queue of the group %v, %v: the gateways have not acknowledged", queue, err)
	}
	for i := range 2 {
		if toa, n := a.Airtime(gatewayID(i)); n < 2 || toa == 0 {
			t.Errorf("gateway %d sent %d frames in %s", i, n, toa)
		}
	}
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if apps, err := api.NewApplicationServiceClient(conn).List(ctx, &api.ListApplicationsRequest{TenantId: made.Tenant, Limit: 9}); err != nil || apps.TotalCount != 0 {
		t.Errorf("applications left: %v, %v", apps, err)
	}
	if got := states(); got != "" {
		t.Errorf("gateways left: %s", got)
	}
}

// script is the server's side, by hand: a broker, what the gateway said, and commands.
type script struct {
	t      *testing.T
	world  *world.World
	broker *mqtt.Server
	url    string

	mu  sync.Mutex
	got []proto.Message
	on  chan struct{} // something has come since it was read
}

type recorder struct {
	mqtt.HookBase
	s *script
}

func (*recorder) ID() string { return "recorder" }

func (*recorder) Provides(b byte) bool {
	return b == mqtt.OnPublish || b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}

func (*recorder) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

func (*recorder) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

func (r *recorder) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil
	}
	kind := pk.TopicName[strings.LastIndexByte(pk.TopicName, '/')+1:]
	var m proto.Message
	switch kind {
	case "stats":
		m = &gw.GatewayStats{}
	case "up":
		m = &gw.UplinkFrame{}
	case "ack":
		m = &gw.DownlinkTxAck{}
	}
	var err error
	if len(pk.Payload) > 0 && pk.Payload[0] == '{' {
		err = protojson.Unmarshal(pk.Payload, m)
	} else {
		err = proto.Unmarshal(pk.Payload, m)
	}
	if err != nil || pk.TopicName != "eu868/gateway/"+gatewayID(0).String()+"/event/"+kind {
		r.s.t.Errorf("%s: %v", pk.TopicName, err)
	}
	r.s.mu.Lock()
	r.s.got = append(r.s.got, m)
	r.s.mu.Unlock()
	select {
	case r.s.on <- struct{}{}:
	default:
	}
	return pk, nil
}

func newScript(t *testing.T, w *world.World) *script {
	s := &script{t: t, world: w, on: make(chan struct{}, 1), broker: mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "mqtt://" + l.Addr().String()
	if err := s.broker.AddHook(&recorder{s: s}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.broker.AddListener(listeners.NewNet("l", l)); err != nil {
		t.Fatal(err)
	}
	if err := s.broker.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.broker.Close() })
	return s
}

func of[T proto.Message](s *script) (out []T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.got {
		if m, ok := m.(T); ok {
			out = append(out, m)
		}
	}
	return out
}

// command sends a downlink and waits for the acknowledgement of the gateway while virtual time goes on.
func (s *script) command(frame *gw.DownlinkFrame) string {
	s.t.Helper()
	before := len(of[*gw.DownlinkTxAck](s))
	payload, err := proto.Marshal(frame)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.broker.Publish("eu868/gateway/"+gatewayID(0).String()+"/command/down", payload, false, 1); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for len(of[*gw.DownlinkTxAck](s)) == before {
		if ctx.Err() != nil {
			s.t.Fatal("no acknowledgement")
		}
		if err := s.world.Run(ctx, s.world.Now()); err != nil { // the command becomes an event of now
			s.t.Fatal(err)
		}
	}
	ack := of[*gw.DownlinkTxAck](s)[before]
	if ack.GatewayId != gatewayID(0).String() || ack.DownlinkId != frame.DownlinkId {
		s.t.Errorf("acknowledgement %v of downlink %d", ack, frame.DownlinkId)
	}
	var out []string
	for _, it := range ack.Items {
		out = append(out, it.Status.String())
	}
	return strings.Join(out, " ")
}

func lora(sf, bw uint32) *gw.Modulation {
	return &gw.Modulation{Parameters: &gw.Modulation_Lora{Lora: &gw.LoraModulationInfo{SpreadingFactor: sf, Bandwidth: bw}}}
}

// TestMessagesOfAGateway checks every message of the backend against a server written by hand.
func TestMessagesOfAGateway(t *testing.T) {
	w := world.New(epoch)
	s := newScript(t, w)
	medium, _, _ := newFleet(t, w, 1)
	a, err := gateway.Attach(t.Context(), gateway.Config{World: w, Medium: medium, Broker: s.url, Gateways: []lorawan.EUI64{gatewayID(0)}, QoS: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	if err := w.Run(t.Context(), epoch.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if stats := of[*gw.GatewayStats](s); len(stats) != 1 || stats[0].GatewayId != gatewayID(0).String() || !stats[0].Time.AsTime().Equal(epoch) {
		t.Fatalf("statistics at the start: %v", stats)
	}
	ups := of[*gw.UplinkFrame](s)
	if len(ups) != 1 {
		t.Fatalf("%d uplinks, want the join request", len(ups))
	}
	up := ups[0]
	var phy lorawan.PHYPayload
	if err := phy.UnmarshalBinary(up.PhyPayload); err != nil {
		t.Fatal(err)
	}
	if ok, err := phy.ValidateUplinkJoinMIC(appKey); err != nil || !ok || phy.MACPayload.(*lorawan.JoinRequestPayload).DevNonce != 41 {
		t.Errorf("join request %+v: MIC %v, %v; want nonce 41", phy.MACPayload, ok, err)
	}
	rx, l := up.RxInfo, up.TxInfo.Modulation.GetLora()
	if rx.GatewayId != gatewayID(0).String() || rx.CrcStatus != gw.CRCStatus_CRC_OK || len(rx.Context) == 0 || rx.Rssi == 0 || rx.UplinkId == 0 ||
		l == nil || l.SpreadingFactor != 7 || l.Bandwidth != 125000 || l.CodeRate != gw.CodeRate_CR_4_5 ||
		up.TxInfo.Frequency < 868_000_000 || up.TxInfo.Frequency > 868_600_000 ||
		rx.TimeSinceGpsEpoch.AsDuration() != airtime.GPS(rx.GwTime.AsTime()) {
		t.Errorf("uplink %v", up)
	}
	now := w.Now()
	item := func(m *gw.Modulation, frequency uint32, timing *gw.Timing) *gw.DownlinkFrameItem {
		return &gw.DownlinkFrameItem{PhyPayload: make([]byte, 20), TxInfo: &gw.DownlinkTxInfo{Frequency: frequency, Modulation: m, Timing: timing, Context: rx.Context}}
	}
	delay := func(d time.Duration) *gw.Timing {
		return &gw.Timing{Parameters: &gw.Timing_Delay{Delay: &gw.DelayTimingInfo{Delay: durationpb.New(d)}}}
	}
	gps := func(at time.Time) *gw.Timing {
		return &gw.Timing{Parameters: &gw.Timing_GpsEpoch{GpsEpoch: &gw.GPSEpochTimingInfo{TimeSinceGpsEpoch: durationpb.New(airtime.GPS(at))}}}
	}
	soon := &gw.Timing{Parameters: &gw.Timing_Immediately{Immediately: &gw.ImmediatelyTimingInfo{}}}
	sf9 := lora(9, 125000)
	for i, tt := range []struct {
		name  string
		items []*gw.DownlinkFrameItem
		want  string
	}{
		{"RX1 in time", []*gw.DownlinkFrameItem{item(sf9, 868_100_000, delay(5*time.Second)), item(sf9, mcFreq, delay(6*time.Second))}, "OK IGNORED"},
		{"RX1 too late, RX2 not", []*gw.DownlinkFrameItem{item(sf9, 868_100_000, delay(time.Millisecond)), item(sf9, mcFreq, delay(6*time.Second))}, "TOO_LATE OK"},
		{"both taken", []*gw.DownlinkFrameItem{item(sf9, 868_100_000, delay(5*time.Second)), item(sf9, mcFreq, delay(6*time.Second))}, "COLLISION_PACKET COLLISION_PACKET"},
		{"immediately", []*gw.DownlinkFrameItem{item(sf9, mcFreq, soon)}, "OK"},
		{"immediately behind another", []*gw.DownlinkFrameItem{item(sf9, mcFreq, soon)}, "OK"},
		{"GPS time to come", []*gw.DownlinkFrameItem{item(sf9, mcFreq, gps(now.Add(20*time.Second)))}, "OK"},
		{"GPS time that has come", []*gw.DownlinkFrameItem{item(sf9, mcFreq, gps(now))}, "TOO_LATE"},
		{"no such data rate", []*gw.DownlinkFrameItem{item(lora(6, 125000), mcFreq, soon)}, "INTERNAL_ERROR"},
		{"no frequency", []*gw.DownlinkFrameItem{item(sf9, 0, soon)}, "TX_FREQ"},
		{"no timing", []*gw.DownlinkFrameItem{item(sf9, mcFreq, nil)}, "INTERNAL_ERROR"},
	} {
		if got := s.command(&gw.DownlinkFrame{DownlinkId: uint32(i + 1), GatewayId: gatewayID(0).String(), Items: tt.items}); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if _, n := a.Airtime(gatewayID(0)); n != 5 {
		t.Errorf("the gateway sent %d frames, want 5", n)
	}
	if err := w.Run(t.Context(), epoch.Add(70*time.Second)); err != nil {
		t.Fatal(err)
	}
	if stats := of[*gw.GatewayStats](s); len(stats) != 3 || stats[2].TxPacketsEmitted != 5 {
		t.Errorf("statistics after 70 s: %v, want 3", stats)
	}
}

// TestWallClock lets a gateway live in real time: it reports, and a command reaches it without anybody driving
// the world.
func TestWallClock(t *testing.T) {
	started := time.Now()
	w := world.New(started)
	s := newScript(t, w)
	medium, _, _ := newFleet(t, w, 0)
	a, err := gateway.Attach(t.Context(), gateway.Config{World: w, Medium: medium, Broker: s.url, Gateways: []lorawan.EUI64{gatewayID(0)}, JSON: true, StatsInterval: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- gateway.Run(ctx, w) }()
	for len(of[*gw.GatewayStats](s)) < 3 {
		<-s.on
	}
	if passed := time.Since(started); passed < 90*time.Millisecond {
		t.Errorf("three reports within %s, want one each 50 ms", passed)
	}
	payload, err := protojson.Marshal(&gw.DownlinkFrame{GatewayId: gatewayID(0).String(), DownlinkId: 9, Items: []*gw.DownlinkFrameItem{{
		PhyPayload: make([]byte, 20), TxInfo: &gw.DownlinkTxInfo{Frequency: mcFreq, Modulation: lora(9, 125000),
			Timing: &gw.Timing{Parameters: &gw.Timing_Immediately{Immediately: &gw.ImmediatelyTimingInfo{}}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.broker.Publish("eu868/gateway/"+gatewayID(0).String()+"/command/down", payload, false, 0); err != nil {
		t.Fatal(err)
	}
	for len(of[*gw.DownlinkTxAck](s)) == 0 {
		<-s.on
	}
	if ack := of[*gw.DownlinkTxAck](s)[0]; ack.DownlinkId != 9 || ack.Items[0].Status != gw.TxAckStatus_OK {
		t.Errorf("acknowledgement %v", ack)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("Run ended without an error although its context was cancelled")
	}
}

func TestAttachRefusesWhatCannotWork(t *testing.T) {
	w := world.New(epoch)
	medium, _, _ := newFleet(t, w, 0)
	ok := gateway.Config{World: w, Medium: medium, Broker: "mqtt://127.0.0.1:1", Gateways: []lorawan.EUI64{gatewayID(0)}}
	for _, tt := range []struct {
		name   string
		change func(*gateway.Config)
		want   string
	}{
		{"no world", func(c *gateway.Config) { c.World = nil }, "World"},
		{"no gateways", func(c *gateway.Config) { c.Gateways = nil }, "Gateways"},
		{"broker without scheme", func(c *gateway.Config) { c.Broker = "localhost" }, `"localhost"`},
		{"QoS", func(c *gateway.Config) { c.QoS = 2 }, "QoS 2"},
		{"interval", func(c *gateway.Config) { c.StatsInterval = -1 }, "-1ns"},
		{"nobody there", func(c *gateway.Config) { c.Gateways = []lorawan.EUI64{gatewayID(7)} }, "127.0.0.1:1"},
	} {
		cfg := ok
		tt.change(&cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		a, err := gateway.Attach(ctx, cfg)
		cancel()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %s", tt.name, err, tt.want)
		}
		if a != nil {
			a.Close()
		}
	}
}
