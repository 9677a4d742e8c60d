package networkserver

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/radio"
)

// The MQTT gateway backend, by which gateways that are not on the simulated radio attach:
//
//	<region>/gateway/<id>/event/stats   gw.GatewayStats    the gateway is online
//	<region>/gateway/<id>/event/up      gw.UplinkFrame
//	<region>/gateway/<id>/event/ack     gw.DownlinkTxAck
//	<region>/gateway/<id>/command/down  gw.DownlinkFrame   from the server
//
// Messages are JSON if they contain "gatewayId", else protobuf; a gateway is answered in its own encoding.

// gatewayEvent takes a message of a gateway; the broker calls it before it acknowledges the message.
func (s *Server) gatewayEvent(topic string, payload []byte) {
	part := strings.Split(topic, "/")
	if len(part) != 5 || part[1] != "gateway" || part[3] != "event" {
		return
	}
	i := slices.IndexFunc(s.plans, func(p *radio.Plan) bool { return regionID(p) == part[0] })
	if i < 0 {
		return
	}
	var m proto.Message
	switch part[4] {
	case "stats":
		m = &gw.GatewayStats{}
	case "up":
		m = &gw.UplinkFrame{}
	case "ack":
		m = &gw.DownlinkTxAck{}
	default:
		return
	}
	var err error
	json := bytes.Contains(payload, []byte(`gatewayId`))
	if json {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(payload, m)
	} else {
		err = proto.Unmarshal(payload, m)
	}
	if err != nil {
		s.log.Warn("gateway event", "topic", topic, "err", err)
		return
	}
	s.outside(s.world.Now(), "gateway event", func() {
		var id lorawan.EUI64
		if err := id.UnmarshalText([]byte(part[2])); err != nil {
			s.log.Warn("gateway event", "topic", topic, "err", err)
			return
		}
		g := s.gatewayByID(id)
		if g == nil || g.radio != nil {
			s.log.Warn("event of an unknown gateway", "gateway", part[2])
			return
		}
		g.plan = s.plans[i]
		switch m := m.(type) {
		case *gw.GatewayStats:
			g.seen, g.inRegion, g.json = s.world.Now(), true, json
		case *gw.UplinkFrame:
			s.uplinkFrame(g, m)
		case *gw.DownlinkTxAck:
			status, item := gw.TxAckStatus_INTERNAL_ERROR, 0
			for i, it := range m.Items {
				if status, item = it.Status, i; status == gw.TxAckStatus_OK {
					break
				}
			}
			s.acknowledged(m.DownlinkId, status, item)
		}
	})
}

// uplinkFrame takes a frame that a gateway has heard.
func (s *Server) uplinkFrame(g *gateway, m *gw.UplinkFrame) {
	tx, rx := m.TxInfo, m.RxInfo
	if tx == nil || rx == nil || len(m.PhyPayload) < 12 || rx.CrcStatus == gw.CRCStatus_BAD_CRC {
		return
	}
	dr, ok := dataRate(g.plan, tx.Modulation)
	if !ok {
		s.log.Warn("uplink with unknown modulation", "gateway", g.ID)
		return
	}
	now := s.world.Now()
	s.hear(g.plan, hearing{gateway: g.ID, signal: radio.Signal{RSSI: int(rx.Rssi), SNR: rx.Snr}, uplinkID: rx.UplinkId, context: rx.Context},
		radio.Frame{Payload: m.PhyPayload, Frequency: tx.Frequency, DataRate: dr, End: now})
}

// dataRate is the uplink data rate of a modulation.
func dataRate(p *radio.Plan, m *gw.Modulation) (int, bool) {
	for dr := range 16 {
		rate, err := p.Region.DataRate(dr)
		if err != nil || !rate.Uplink {
			continue
		}
		lora, fsk := m.GetLora(), m.GetFsk()
		if lora != nil && int(lora.SpreadingFactor) == rate.SpreadingFactor && int(lora.Bandwidth) == rate.Bandwidth ||
			fsk != nil && rate.BitRate > 0 && int(fsk.Datarate) == rate.BitRate {
			return dr, true
		}
	}
	return 0, false
}

// command publishes a downlink to its gateway.
func (s *Server) command(d *downlink) {
	m := &gw.DownlinkFrame{DownlinkId: d.id, GatewayId: d.gateway.ID.String()}
	for _, it := range d.items {
		m.Items = append(m.Items, &gw.DownlinkFrameItem{PhyPayload: it.payload, TxInfo: txInfo(d.gateway.plan, it, d.context)})
	}
	var payload []byte
	var err error
	if d.gateway.json {
		payload, err = protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	} else {
		payload, err = proto.Marshal(m)
	}
	if err != nil {
		s.log.Error("gateway command", "err", err)
		return
	}
	s.outbox = append(s.outbox, event{topic: regionID(d.gateway.plan) + "/gateway/" + d.gateway.ID.String() + "/command/down", raw: payload})
}

func txInfo(p *radio.Plan, it downlinkItem, context []byte) *gw.DownlinkTxInfo {
	info := &gw.DownlinkTxInfo{Frequency: it.frequency, Power: it.power, Modulation: modulation(p, it.dataRate), Context: context}
	if lora := info.Modulation.GetLora(); lora != nil {
		lora.PolarizationInversion = true
	}
	switch {
	case it.at.IsZero():
		info.Timing = &gw.Timing{Parameters: &gw.Timing_Immediately{Immediately: &gw.ImmediatelyTimingInfo{}}}
	case it.delay == 0:
		info.Timing = &gw.Timing{Parameters: &gw.Timing_GpsEpoch{GpsEpoch: &gw.GPSEpochTimingInfo{
			TimeSinceGpsEpoch: durationpb.New(airtime.GPS(it.at).Truncate(time.Millisecond))}}}
	default:
		info.Timing = &gw.Timing{Parameters: &gw.Timing_Delay{Delay: &gw.DelayTimingInfo{Delay: durationpb.New(it.delay)}}}
	}
	return info
}

// power is the EIRP in dBm at which the server lets a gateway send.
func power(p *radio.Plan, frequency uint32) int32 {
	switch p.Region {
	case airtime.EU868:
		if frequency >= 869_400_000 && frequency < 869_650_000 {
			return 29
		}
		return 16
	case airtime.US915:
		return 21
	case airtime.AU915, airtime.IN865:
		return 30
	case airtime.KR920:
		return 23
	default:
		return 16
	}
}
