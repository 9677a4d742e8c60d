package networkserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
)

// queueOf lists what waits for a device.
func (n *simnet) queueOf(i int) string {
	n.t.Helper()
	r, err := n.device().GetQueue(n.ctx, &api.GetDeviceQueueItemsRequest{DevEui: eui(i).String(), CountOnly: true})
	if err != nil {
		n.t.Fatal(err)
	}
	var out []string
	for _, q := range r.Result {
		text := string(q.Data)
		if q.IsPending {
			text += fmt.Sprintf(" pending %d", q.FCntDown)
		}
		out = append(out, text)
	}
	if int(r.TotalCount) != len(r.Result) {
		n.t.Errorf("queue of %d items has total %d", len(r.Result), r.TotalCount)
	}
	return strings.Join(out, ", ")
}

// story tells the events but uplinks and joins, with the texts of the items they concern.
func (n *simnet) story(items map[string]string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, e := range n.events {
		switch m := e.m.(type) {
		case *integration.TxAckEvent:
			out = append(out, "txack "+items[m.QueueItemId])
		case *integration.AckEvent:
			out = append(out, fmt.Sprintf("ack %s %v", items[m.QueueItemId], m.Acknowledged))
		case *integration.LogEvent:
			out = append(out, fmt.Sprintf("log %s %s", m.Code, items[m.Context["queue_item_id"]]))
		}
	}
	return strings.Join(out, ", ")
}

func (n *simnet) put(items map[string]string, item *api.DeviceQueueItem, flush bool) {
	n.t.Helper()
	item.DevEui, item.FPort = eui(1).String(), 12
	r, err := n.device().Enqueue(n.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: item, FlushQueue: flush})
	if err != nil {
		n.t.Fatal(err)
	}
	text := string(item.Data)
	items[r.Id] = text[:min(len(text), 8)]
}

// TestUnicastQueue sends in order, one item per uplink, and drops what is too long or too late with a log event.
func TestUnicastQueue(t *testing.T) {
	n := start(t, options{devices: []int{1}, app: func(int) *model { return &model{period: 60_000} }})
	items := map[string]string{}
	n.put(items, &api.DeviceQueueItem{Data: []byte("expired"), ExpiresAt: timestamppb.New(epoch.Add(30 * time.Second))}, false)
	n.put(items, &api.DeviceQueueItem{Data: bytes.Repeat([]byte("oversize"), 31)}, false) // 248 bytes, 242 fit
	n.put(items, &api.DeviceQueueItem{Data: []byte("first")}, false)
	n.put(items, &api.DeviceQueueItem{Data: []byte("second"), ExpiresAt: timestamppb.New(epoch.Add(time.Hour))}, false)
	n.run(90 * time.Second) // one heartbeat, and the empty uplinks by which the device asks for more
	if got, want := n.story(items), "log EXPIRED expired, log DOWNLINK_PAYLOAD_SIZE oversize, txack first, txack second"; got != want {
		t.Errorf("story is %q, want %q", got, want)
	}
	logs := n.of("log")
	if c := logs[1].m.(*integration.LogEvent).Context; c["item_size"] != "248" || c["max_payload_size"] != "242" {
		t.Errorf("context of the log event: %v", c)
	}
	if q := n.queueOf(1); q != "" {
		t.Errorf("queue holds %q, want nothing", q)
	}
	ups := n.of("up")
	if len(ups) != 2 || ups[1].m.(*integration.UplinkEvent).FPort != 0 || ups[1].m.(*integration.UplinkEvent).Data != nil {
		t.Errorf("%d uplinks, want the heartbeat and one empty frame", len(ups))
	}
	if d := ups[1].at.Sub(ups[0].at); d > 2*time.Second {
		t.Errorf("the empty uplink came %s after the first", d)
	}
}

// TestConfirmedItem is pending until the next uplink tells; it is not sent again if the device did not hear it.
func TestConfirmedItem(t *testing.T) {
	for _, heard := range []bool{true, false} {
		n := start(t, options{devices: []int{1}, app: func(int) *model { return &model{period: 60_000} }})
		items := map[string]string{}
		n.put(items, &api.DeviceQueueItem{Data: []byte("confirm"), Confirmed: true}, false)
		n.put(items, &api.DeviceQueueItem{Data: []byte("next")}, false)
		var pending string
		n.handle = func(e event) {
			if e.kind != "txack" || pending != "" {
				return
			}
			pending = n.queueOf(1)
			if !heard { // a reset closes the receive windows, and the downlink is missed
				n.world.After(0, "reset", n.fleet.Device(eui(1)).Reset)
			}
		}
		n.run(5 * time.Minute)
		if pending != "confirm pending 0, next" {
			t.Errorf("queue after txack: %q", pending)
		}
		if got, want := n.story(items), fmt.Sprintf("txack confirm, ack confirm %v, txack next", heard); got != want {
			t.Errorf("story is %q, want %q", got, want)
		}
	}
}

func TestFlush(t *testing.T) {
	n := start(t, options{devices: []int{1}, app: func(int) *model { return &model{period: 60_000} }})
	items := map[string]string{}
	n.put(items, &api.DeviceQueueItem{Data: []byte("pending"), Confirmed: true}, false)
	n.put(items, &api.DeviceQueueItem{Data: []byte("a")}, false)
	n.handle = func(e event) {
		if e.kind == "txack" {
			n.put(items, &api.DeviceQueueItem{Data: []byte("b")}, true) // keeps what is pending
			if q := n.queueOf(1); q != "pending pending 0, b" {
				t.Errorf("queue after flush_queue: %q", q)
			}
			if _, err := n.device().FlushQueue(n.ctx, &api.FlushDeviceQueueRequest{DevEui: eui(1).String()}); err != nil {
				t.Error(err)
			}
		}
	}
	n.run(3 * time.Minute)
	if q, got := n.queueOf(1), n.story(items); q != "" || got != "txack pending" {
		t.Errorf("queue %q and story %q, want nothing after the flush", q, got)
	}
}

func TestFlushOnActivate(t *testing.T) {
	n := start(t, options{devices: []int{1}, configure: func(c *networkserver.Config) { c.Profiles[0].FlushQueueOnActivate = true }})
	n.enqueue(1, 1, "before the join")
	n.run(time.Minute)
	if q := n.queueOf(1); q != "" || len(n.of("join")) != 1 {
		t.Errorf("queue %q after %d joins", q, len(n.of("join")))
	}
}

func TestJoinWithWrongKeyAndWithoutKeys(t *testing.T) {
	n := start(t, options{devices: []int{1, 2}, configure: func(c *networkserver.Config) {
		c.Devices[0].Keys = &networkserver.Keys{AppKey: lorawan.AES128Key{0xee}}
		c.Devices[1].Keys = nil
	}})
	n.run(20 * time.Second)
	got := map[string]string{}
	for _, e := range n.of("log") {
		got[e.eui] = e.m.(*integration.LogEvent).Code.String()
	}
	if len(n.of("join")) != 0 || got[eui(1).String()] != "UPLINK_MIC" || got[eui(2).String()] != "OTAA" {
		t.Errorf("%d joins, log codes %v", len(n.of("join")), got)
	}
}

// transmitter sends frames as they are and hears nothing.
type transmitter struct{}

func (transmitter) FrameKey(radio.Frame) (radio.Key, bool) { return radio.Key{}, false }

func (transmitter) ReceiveFrame(radio.Frame, radio.Signal) {}

func (transmitter) LoseFrame(radio.Frame, bool) {}

// TestReplayedUplinks sends a join request twice, and a forged data frame: neither becomes an event.
func TestReplayedUplinks(t *testing.T) {
	n := provisioned(t)
	station, err := n.medium.NewStation(eui(1), transmitter{})
	if err != nil {
		t.Fatal(err)
	}
	send := func(at time.Duration, phy lorawan.PHYPayload) {
		raw, err := phy.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		n.world.At(epoch.Add(at), "uplink", func() {
			if _, err := station.Transmit(radio.Frame{Payload: raw, Frequency: 868100000, DataRate: 5,
				Key: radio.Key{Device: eui(1), Kind: radio.Uplink, Counter: uint32(at)}}); err != nil {
				t.Error(err)
			}
		})
	}
	request := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.JoinRequest},
		MACPayload: &lorawan.JoinRequestPayload{DevEUI: eui(1), DevNonce: 5}}
	if err := request.SetUplinkJoinMIC(lorawan.AES128Key{1}); err != nil {
		t.Fatal(err)
	}
	send(time.Second, request)
	send(20*time.Second, request)
	n.run(30 * time.Second)
	act, err := n.device().GetActivation(n.ctx, &api.GetDeviceActivationRequest{DevEui: eui(1).String()})
	if err != nil {
		t.Fatal(err)
	}
	var addr lorawan.DevAddr
	if err := addr.UnmarshalText([]byte(act.DeviceActivation.DevAddr)); err != nil {
		t.Fatal(err)
	}
	forged := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataUp},
		MACPayload: &lorawan.MACPayload{FHDR: lorawan.FHDR{DevAddr: addr}}}
	send(40*time.Second, forged)
	n.run(time.Minute)
	logs := n.of("log")
	if len(n.of("join")) != 1 || len(n.of("up")) != 0 || len(logs) != 1 || logs[0].m.(*integration.LogEvent).Code != integration.LogCode_OTAA {
		t.Errorf("%d joins, %d uplinks, log %v; want one join, and the second request in the log", len(n.of("join")), len(n.of("up")), logs)
	}
}

// TestEventJSON: zero values are written, data is base64, names are lowerCamelCase.
func TestEventJSON(t *testing.T) {
	n := start(t, options{devices: []int{1}, app: func(int) *model { return &model{period: 60_000} }})
	raw := n.raw()
	n.run(100 * time.Second)
	var up map[string]any
	for _, p := range *raw {
		if strings.HasSuffix(p.topic, "/event/up") {
			if err := json.Unmarshal(p.payload, &up); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, zero := range map[string]any{"fCnt": 0.0, "confirmed": false, "adr": false} {
		if v, ok := up[name]; !ok || v != zero {
			t.Errorf("%s is %v, want %v", name, v, zero)
		}
	}
	rx := up["rxInfo"].([]any)[0].(map[string]any)
	if up["dr"] != 5.0 || up["fPort"] != 2.0 || up["regionConfigId"] != "eu868" || rx["gatewayId"] != gatewayID.String() || rx["crcStatus"] != "CRC_OK" {
		t.Errorf("event %v", up)
	}
	if _, ok := up["data"].(string); !ok || up["deduplicationId"] == "" {
		t.Errorf("data %v, deduplicationId %v", up["data"], up["deduplicationId"])
	}
}
