package chirpstack

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sower-fuota/sower/engine/network"
)

// phy is a multicast frame to 01020304 with the low half of a counter.
func phy(fCnt uint16) []byte {
	b, err := hex.DecodeString(fmt.Sprintf("600403020100%02x%02xc9aabbccdd", fCnt&0xff, fCnt>>8))
	if err != nil {
		panic(err)
	}
	return b
}

func tapped(next uint32) *tap {
	n := &Network{groups: map[network.GroupID]*group{
		"g": {application: "a", addr: 0x01020304, next: next},
		"h": {application: "b", addr: 0x05060708},
	}}
	return newTap(n, "a")
}

func TestTap(t *testing.T) {
	const gateway = "0016c00102030405"
	down := &gw.DownlinkFrame{DownlinkId: 7, GatewayId: gateway, Items: []*gw.DownlinkFrameItem{{PhyPayload: phy(5)}}}
	ack := func(id uint32, st ...gw.TxAckStatus) *gw.DownlinkTxAck {
		m := &gw.DownlinkTxAck{DownlinkId: id, GatewayId: gateway}
		for _, s := range st {
			m.Items = append(m.Items, &gw.DownlinkTxAckItem{Status: s})
		}
		return m
	}
	type message struct {
		topic string
		m     proto.Message
	}
	tests := []struct {
		name     string
		next     uint32
		messages []message
		want     string // kind, counter and reason of the events, in order
	}{
		{"sent", 6, []message{{"command/down", down}, {"event/ack", ack(7, gw.TxAckStatus_OK)}}, "sent 5 "},
		{"refused", 6, []message{{"command/down", down}, {"event/ack", ack(7, gw.TxAckStatus_DUTY_CYCLE_OVERFLOW)}}, "dropped 5 DUTY_CYCLE_OVERFLOW"},
		{"sent by the second item", 6, []message{{"command/down", down}, {"event/ack", ack(7, gw.TxAckStatus_TOO_LATE, gw.TxAckStatus_OK)}}, "sent 5 "},
		{"the answer overtakes", 6, []message{{"event/ack", ack(7, gw.TxAckStatus_TOO_LATE)}, {"command/down", down}}, "dropped 5 TOO_LATE"},
		{"heard before our own call is back", 5, []message{{"command/down", down}, {"event/ack", ack(7, gw.TxAckStatus_OK)}}, "sent 5 "},
		{"beyond 16 bits", 0x10006, []message{{"command/down", down}, {"event/ack", ack(7, gw.TxAckStatus_OK)}}, "sent 65541 "},
		{"just below 16 bits", 0xfffe, []message{{"command/down", down}, {"event/ack", ack(7, gw.TxAckStatus_OK)}}, "sent 65541 "},
		{"an answer twice", 6, []message{{"command/down", down}, {"event/ack", ack(7, gw.TxAckStatus_OK)}, {"event/ack", ack(7, gw.TxAckStatus_OK)}}, "sent 5 "},
		{"the answer to something else", 6, []message{{"command/down", down}, {"event/ack", ack(8, gw.TxAckStatus_OK)}}, ""},
		{"no word", 6, []message{{"command/down", down}, {"event/ack", ack(7, gw.TxAckStatus_IGNORED)}, {"event/ack", ack(7)}}, ""},
		{"another group", 6, []message{{"command/down", &gw.DownlinkFrame{DownlinkId: 7, Items: []*gw.DownlinkFrameItem{{PhyPayload: append([]byte{0x60, 9}, phy(5)[2:]...)}}}},
			{"event/ack", ack(7, gw.TxAckStatus_OK)}}, ""},
		{"a confirmed frame", 6, []message{{"command/down", &gw.DownlinkFrame{DownlinkId: 7, Items: []*gw.DownlinkFrameItem{{PhyPayload: append([]byte{0xa0}, phy(5)[1:]...)}}}},
			{"event/ack", ack(7, gw.TxAckStatus_OK)}}, ""},
		{"nothing in it", 6, []message{{"command/down", &gw.DownlinkFrame{DownlinkId: 7}}, {"event/stats", &gw.GatewayStats{GatewayId: gateway}}}, ""},
	}
	for _, tt := range tests {
		for _, encoding := range []string{"protobuf", "JSON"} {
			t.Run(tt.name+" in "+encoding, func(t *testing.T) {
				tap := tapped(tt.next)
				var got []string
				for _, m := range tt.messages {
					body, err := proto.Marshal(m.m)
					if encoding == "JSON" {
						if body, err = protojson.Marshal(m.m); err == nil {
							// As a gateway of tomorrow says it, and recognisable where the id of the gateway was left out.
							body = append([]byte(`{"new":{"gatewayId":1},`), body[1:]...)
							body = []byte(strings.Replace(string(body), ",}", "}", 1))
						}
					}
					if err != nil {
						t.Fatal(err)
					}
					ev, err := tap.heard(gateway+"/"+m.topic, body)
					if err != nil {
						t.Fatal(err)
					}
					if ev != nil {
						got = append(got, fmt.Sprintf("%s %d %s", ev.Kind, ev.FCnt, ev.Reason))
						if ev.Group != "g" || ev.Gateway.String() != gateway || ev.ID == "" {
							t.Errorf("event %+v", ev)
						}
					}
				}
				if fmt.Sprint(got) != "["+tt.want+"]" {
					t.Errorf("events %v, want %s", got, tt.want)
				}
			})
		}
	}
	if _, err := tapped(0).heard("roof/command/down", nil); err == nil {
		t.Error("a gateway called roof")
	}
}

func TestTapIsBounded(t *testing.T) {
	tap := tapped(6)
	for i := range uint32(underway + 100) {
		body, err := proto.Marshal(&gw.DownlinkTxAck{DownlinkId: i, Items: []*gw.DownlinkTxAckItem{{Status: gw.TxAckStatus_OK}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tap.heard("0016c00102030405/event/ack", body); err != nil {
			t.Fatal(err)
		}
	}
	if len(tap.frames) > underway || len(tap.order) > underway {
		t.Errorf("%d frames remembered, want at most %d", len(tap.frames), underway)
	}
}

func FuzzTap(f *testing.F) {
	const gateway = "0016c00102030405"
	for _, m := range []proto.Message{
		&gw.DownlinkFrame{DownlinkId: 7, GatewayId: gateway, Items: []*gw.DownlinkFrameItem{{PhyPayload: phy(5)}}},
		&gw.DownlinkTxAck{DownlinkId: 7, GatewayId: gateway, Items: []*gw.DownlinkTxAckItem{{Status: gw.TxAckStatus_TOO_LATE}}},
	} {
		binary, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		text, err := protojson.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(binary, binary, uint32(6))
		f.Add(text, text, uint32(0x1fffe))
	}
	f.Fuzz(func(t *testing.T, down, ack []byte, next uint32) {
		tap := tapped(next)
		tap.heard(gateway+"/command/down", down)
		ev, _ := tap.heard(gateway+"/event/ack", ack)
		if ev == nil {
			return
		}
		if ev.Group != "g" || (ev.Kind == network.EventDropped) != (ev.Reason != "") || next > 1<<16 && next < 1<<31 && int64(ev.FCnt)-int64(next) > 1<<15 {
			t.Errorf("next %d: %q and %q gave %+v", next, down, ack, ev)
		}
	})
}
