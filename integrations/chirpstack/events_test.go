package chirpstack

import (
	"strings"
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/sower-fuota/sower/engine/network"
)

func enum(n int32) protoreflect.Value { return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n)) }

const info = `"deviceInfo":{"devEui":"0101010101010A0B","applicationId":"a"}`

func TestDecode(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	device := network.EUI64{1, 1, 1, 1, 1, 1, 0x0a, 0x0b}
	tests := []struct {
		name, kind, body string
		want             *network.Event
	}{
		{"uplink, time by GPS", "up", `{"deduplicationId":"d1","time":"2026-07-18T09:34:16+00:00",` + info + `,"dr":1,"fCnt":4,"fPort":200,
			"data":"AgA=","rxInfo":[{"gatewayId":"0000000000000001","gwTime":"2026-07-18T09:34:15.9Z","rssi":-100,"snr":-3},
			{"gatewayId":"0000000000000002","timeSinceGpsEpoch":"1468402473.775s","rssi":-36,"snr":10.5}],"newField":{"a":1}}`,
			&network.Event{ID: "up/d1", Kind: network.EventUplink, Device: device, At: at("2026-07-18T09:34:15.775Z"), FCnt: 4, FPort: 200,
				Payload: []byte{2, 0}, DataRate: 1, RSSI: -36, SNR: 10.5, Gateways: 2, Gateway: network.EUI64{7: 2}}},
		{"uplink, time by the gateway", "up", `{"deduplicationId":"d2","time":"2026-07-18T09:34:16Z",` + info + `,"fPort":1,
			"rxInfo":[{"gwTime":"2026-07-18T09:34:15.9Z","rssi":-100}]}`,
			&network.Event{ID: "up/d2", Kind: network.EventUplink, Device: device, At: at("2026-07-18T09:34:15.9Z"), FPort: 1, RSSI: -100, Gateways: 1}},
		{"uplink, time by the server, no port", "up", `{"deduplicationId":"d3","time":"2026-07-18T09:34:16Z",` + info + `}`,
			&network.Event{ID: "up/d3", Kind: network.EventUplink, Device: device, At: at("2026-07-18T09:34:16Z")}},
		{"uplink, encrypted end to end", "up", `{"deduplicationId":"d4","time":"2026-07-18T09:34:16Z",` + info + `,"fPort":200,"data":"AgA=","joinServerContext":{"sessionKeyId":"x"}}`,
			&network.Event{ID: "up/d4", Kind: network.EventUplink, Device: device, At: at("2026-07-18T09:34:16Z")}},
		{"join", "join", `{"deduplicationId":"d5","time":"2026-07-18T09:34:16Z",` + info + `,"devAddr":"00189440"}`,
			&network.Event{ID: "join/d5", Kind: network.EventJoin, Device: device, At: at("2026-07-18T09:34:16Z")}},
		{"txack", "txack", `{"time":"2026-07-18T09:34:16Z",` + info + `,"queueItemId":"q","fCntDown":3}`,
			&network.Event{ID: "txack/q", Kind: network.EventSent, Device: device, At: at("2026-07-18T09:34:16Z"), Message: "q"}},
		{"txack of a MAC command", "txack", `{"time":"2026-07-18T09:34:16Z",` + info + `}`, nil},
		{"expired", "log", `{"time":"2026-07-18T09:34:16Z",` + info + `,"level":"ERROR","code":"EXPIRED","context":{"queue_item_id":"q"}}`,
			&network.Event{ID: "log/q", Kind: network.EventDropped, Device: device, At: at("2026-07-18T09:34:16Z"), Message: "q", Reason: "EXPIRED"}},
		{"gateway refused, stays queued", "log", `{"time":"2026-07-18T09:34:16Z",` + info + `,"code":"DOWNLINK_GATEWAY","context":{"queue_item_id":"q"}}`, nil},
		{"log code of a newer server", "log", `{"time":"2026-07-18T09:34:16Z",` + info + `,"code":77}`, nil},
		{"status", "status", `{"deduplicationId":"d6","time":"2026-07-18T09:34:16Z",` + info + `,"margin":-7,"batteryLevel":50.39}`,
			&network.Event{ID: "status/d6", Kind: network.EventStatus, Device: device, At: at("2026-07-18T09:34:16Z"), Battery: 50, Margin: -7}},
		{"status, external power", "status", `{"deduplicationId":"d6","time":"2026-07-18T09:34:16Z",` + info + `,"margin":20,"externalPowerSource":true}`,
			&network.Event{ID: "status/d6", Kind: network.EventStatus, Device: device, At: at("2026-07-18T09:34:16Z"), Battery: -1, Margin: 20}},
		{"status, battery not known", "status", `{"deduplicationId":"d6","time":"2026-07-18T09:34:16Z",` + info + `,"batteryLevelUnavailable":true}`,
			&network.Event{ID: "status/d6", Kind: network.EventStatus, Device: device, At: at("2026-07-18T09:34:16Z"), Battery: -1}},
		{"status, battery empty", "status", `{"deduplicationId":"d6","time":"2026-07-18T09:34:16Z",` + info + `,"batteryLevel":0.39}`,
			&network.Event{ID: "status/d6", Kind: network.EventStatus, Device: device, At: at("2026-07-18T09:34:16Z"), Battery: 0}},
		{"location", "location", `{` + info + `}`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decode("application/a/device/b/event/"+tt.kind, []byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if (got == nil) != (tt.want == nil) {
				t.Fatalf("decode = %+v, want %+v", got, tt.want)
			}
			if got == nil {
				return
			}
			if !got.At.Equal(tt.want.At) {
				t.Errorf("At = %s, want %s", got.At, tt.want.At)
			}
			g, w := *got, *tt.want
			if string(g.Payload) != string(w.Payload) {
				t.Errorf("Payload = %x, want %x", g.Payload, w.Payload)
			}
			g.At, w.At, g.Payload, w.Payload = time.Time{}, time.Time{}, nil, nil
			if g.ID != w.ID || g.Kind != w.Kind || g.Device != w.Device || g.FCnt != w.FCnt || g.FPort != w.FPort || g.DataRate != w.DataRate ||
				g.RSSI != w.RSSI || g.SNR != w.SNR || g.Gateways != w.Gateways || g.Message != w.Message || g.Reason != w.Reason ||
				g.Gateway != w.Gateway || g.Battery != w.Battery || g.Margin != w.Margin {
				t.Errorf("decode = %+v, want %+v", g, w)
			}
		})
	}
}

// TestDecodeProtobuf reads messages that begin like JSON: a first field of 123 bytes has a line end and a brace.
func TestDecodeProtobuf(t *testing.T) {
	device := &integration.DeviceInfo{DevEui: "0101010101010A0B", ApplicationId: "a"}
	for _, id := range []string{"3ac7e3c4-4401-4b8d-9386-a5c902f9202d", strings.Repeat("x", 123), strings.Repeat(" ", 10)} {
		body, err := proto.Marshal(&integration.UplinkEvent{DeduplicationId: id, DeviceInfo: device, FCnt: 4, FPort: 200, Data: []byte{2, 0}})
		if err != nil {
			t.Fatal(err)
		}
		if ev, err := decode("a/up", body); err != nil || ev.ID != "up/"+id || ev.FCnt != 4 || ev.FPort != 200 || string(ev.Payload) != "\x02\x00" {
			t.Errorf("decode of id %q = %+v, %v", id, ev, err)
		}
	}
	if ev, err := decode("a/up", []byte(" \n{"+info+"}")); err != nil || ev.Device != (network.EUI64{1, 1, 1, 1, 1, 1, 0x0a, 0x0b}) {
		t.Errorf("JSON after white space: %+v, %v", ev, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, body := range []string{"", "{", `{"deviceInfo":{"devEui":"01"}}`, `{` + info + `,"fPort":456}`, "\x0a\x02"} {
		if ev, err := decode("x/up", []byte(body)); err == nil {
			t.Errorf("decode(%q) = %+v, want an error", body, ev)
		}
	}
}

func FuzzDecode(f *testing.F) {
	device := &integration.DeviceInfo{DevEui: "0101010101010a0b", ApplicationId: "a"}
	for kind, m := range map[string]proto.Message{
		"up":     &integration.UplinkEvent{DeduplicationId: "d", DeviceInfo: device, FCnt: 4, FPort: 200, Data: []byte{2, 0}, RxInfo: []*gw.UplinkRxInfo{{Rssi: -36}}},
		"join":   &integration.JoinEvent{DeduplicationId: "d", DeviceInfo: device},
		"txack":  &integration.TxAckEvent{QueueItemId: "q", DeviceInfo: device},
		"log":    &integration.LogEvent{Code: integration.LogCode_EXPIRED, DeviceInfo: device, Context: map[string]string{"queue_item_id": "q"}},
		"status": &integration.StatusEvent{DeviceInfo: device},
	} {
		binary, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, binary)
		f.Add(kind, []byte(`{"deduplicationId":"d","time":"2026-07-18T09:34:16Z",`+info+`,"fPort":200,"data":"AgA=","queueItemId":"q","code":"EXPIRED"}`))
	}
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		ev, err := decode("a/b/"+kind, body)
		if err != nil || ev == nil {
			return
		}
		if ev.Kind == 0 || ev.ID == "" || ev.Done != nil || (ev.Message != "") != (ev.Kind == network.EventSent || ev.Kind == network.EventDropped) {
			t.Errorf("%s: %q gave %+v", kind, body, ev)
		}
		again, err := decode("c/"+kind, body)
		if err != nil || again.ID != ev.ID {
			t.Errorf("%s: %q is %s and then %s, %v", kind, body, ev.ID, again.ID, err)
		}
	})
}
