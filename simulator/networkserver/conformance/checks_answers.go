package conformance

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"

	"github.com/sower-fuota/sower/airtime"
)

// checkAnswers has a device that is answered, and gateways that refuse to.
func (s *suite) checkAnswers() (err error) {
	p, err := s.newProbe("answers", nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	defer s.answered(gw.TxAckStatus_OK, false)
	for _, kind := range []string{"log", "join", "txack", "ack"} {
		s.takeEvents(kind)
	}
	s.answered(gw.TxAckStatus_TOO_LATE, false)
	if err := p.ask(); err != nil {
		return err
	}
	s.expect("a join-accept that the gateway refuses: events", p.story(), "join")
	s.answered(gw.TxAckStatus_OK, false)
	if err := p.join(); err != nil {
		return err
	}
	p.story()
	for _, step := range []func(*probe) error{s.windows, s.refusedAnswer, s.unheardOf, s.confirmed} {
		if err := step(p); err != nil {
			return err
		}
	}
	return nil
}

// windows looks at what a gateway is given.
func (s *suite) windows(p *probe) error {
	s.answered(gw.TxAckStatus_OK, false)
	// 100 bytes fit RX1 at DR5 and not RX2 at DR0.
	if err := p.put(&api.DeviceQueueItem{Data: bytes.Repeat([]byte("x"), 100)}, &api.DeviceQueueItem{Data: []byte("y")}); err != nil {
		return err
	}
	for range 2 {
		if err := p.send(4 * time.Second); err != nil {
			return err
		}
	}
	for _, a := range s.takeAnswers() {
		for i, item := range a.Items {
			s.say("window %d: %s", i+1, p.text(item))
		}
	}
	s.expect("heard", len(p.heard), 2)
	s.expect("events", p.story(), "txack, txack")
	return p.send(4 * time.Second)
}

// refusedAnswer has the gateway refuse an item, a bare acknowledgement, and then nothing any more.
func (s *suite) refusedAnswer(p *probe) error {
	p.heard = nil
	if err := p.put(&api.DeviceQueueItem{Data: []byte("a")}); err != nil {
		return err
	}
	s.answered(gw.TxAckStatus_DUTY_CYCLE_OVERFLOW, false)
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	s.expect("refused: events", p.story(), "log DOWNLINK_GATEWAY DUTY_CYCLE_OVERFLOW map[]")
	if err := p.queued("refused: queue"); err != nil {
		return err
	}
	first := p.counter()
	s.answered(gw.TxAckStatus_OK, false)
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	s.expect("then sent with the same counter", p.counter() == first, true)
	s.expect("heard", strings.Join(p.heard, ", "), "a")
	s.expect("events", p.story(), "txack")
	s.answered(gw.TxAckStatus_TOO_EARLY, false)
	if err := p.sendAs(lorawan.ConfirmedDataUp, 4*time.Second); err != nil {
		return err
	}
	s.expect("a bare acknowledgement refused: events", p.story(), "log DOWNLINK_GATEWAY TOO_EARLY map[]")
	return nil
}

// unheardOf has the gateway send an item without a word.
func (s *suite) unheardOf(p *probe) error {
	p.heard = nil
	if err := p.put(&api.DeviceQueueItem{Data: []byte("b")}); err != nil {
		return err
	}
	s.answered(gw.TxAckStatus_OK, true)
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	s.expect("not acknowledged by the gateway: events", p.story(), "")
	if err := p.queued("queue"); err != nil {
		return err
	}
	first := p.counter()
	s.answered(gw.TxAckStatus_OK, false)
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	s.expect("sent again with the same counter", p.counter() == first, true)
	s.expect("events", p.story(), "txack")
	return nil
}

// confirmed has the device acknowledge one item and not the next.
func (s *suite) confirmed(p *probe) error {
	p.heard = nil
	if err := p.put(&api.DeviceQueueItem{Data: []byte("c"), Confirmed: true}, &api.DeviceQueueItem{Data: []byte("d"), Confirmed: true}, &api.DeviceQueueItem{Data: []byte("e")}); err != nil {
		return err
	}
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	s.expect("events", p.story(), "txack")
	if err := p.queued("queue"); err != nil {
		return err
	}
	p.flags = lorawan.FCtrl{ACK: true}
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	s.expect("acknowledged by the device: events", p.story(), "ack true, txack")
	p.flags = lorawan.FCtrl{}
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	s.expect("not acknowledged by the device: events", p.story(), "ack false, txack")
	s.expect("heard", strings.Join(p.heard, ", "), "c, d, e")
	return p.queued("queue")
}

// put queues items for the probe.
func (p *probe) put(items ...*api.DeviceQueueItem) error {
	for i := range items {
		items[i].DevEui, items[i].FPort = p.eui.String(), 10
		if _, err := p.s.dev().Enqueue(p.s.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: items[i]}); err != nil {
			return err
		}
	}
	return nil
}

// queued writes what waits for the probe.
func (p *probe) queued(what string) error {
	r, err := p.s.dev().GetQueue(p.s.ctx, &api.GetDeviceQueueItemsRequest{DevEui: p.eui.String()})
	if err != nil {
		return err
	}
	var out []string
	for _, q := range r.Result {
		out = append(out, fmt.Sprintf("%s, pending %v", q.Data, q.IsPending))
	}
	p.s.say("%s: [%s]", what, strings.Join(out, "; "))
	return nil
}

// counter is that of the only frame that gateways were given since the last call; -1 if there was none, or more.
func (p *probe) counter() int {
	answers := p.s.takeAnswers()
	if len(answers) != 1 {
		return -1
	}
	var phy lorawan.PHYPayload
	if phy.UnmarshalBinary(answers[0].Items[0].PhyPayload) == nil {
		if mac, ok := phy.MACPayload.(*lorawan.MACPayload); ok {
			return int(mac.FHDR.FCnt)
		}
	}
	return -1
}

// story tells the events of the probe but its uplinks since the last call, sorted by kind.
func (p *probe) story() string {
	var out []string
	for _, kind := range []string{"join", "log", "ack", "txack"} {
		for _, e := range p.s.takeEvents(kind) {
			var m struct {
				Code, Description string
				Context           map[string]string
				Acknowledged      bool
			}
			if json.Unmarshal(e.data, &m) != nil || e.device < 0 || p.s.devices[e.device] != p.eui {
				continue
			}
			switch kind {
			case "log":
				out = append(out, fmt.Sprintf("log %s %s %v", m.Code, m.Description, m.Context))
			case "ack":
				out = append(out, fmt.Sprintf("ack %v", m.Acknowledged))
			default:
				out = append(out, kind)
			}
		}
	}
	return strings.Join(out, ", ")
}

// text describes a frame to the probe.
func (p *probe) text(item *gw.DownlinkFrameItem) string {
	tx := item.GetTxInfo()
	lora := tx.GetModulation().GetLora()
	out := fmt.Sprintf("%d Hz SF%d BW%d %s inverted %v, %d dBm", tx.GetFrequency(), lora.GetSpreadingFactor(), lora.GetBandwidth(), lora.GetCodeRate(), lora.GetPolarizationInversion(), tx.GetPower())
	switch t := tx.GetTiming().GetParameters().(type) {
	case *gw.Timing_Delay:
		out += fmt.Sprintf(", after %s", t.Delay.GetDelay().AsDuration())
	case *gw.Timing_GpsEpoch:
		at := t.GpsEpoch.GetTimeSinceGpsEpoch().AsDuration()
		slot := airtime.NextPingSlot(binary.BigEndian.Uint32(p.addr[:]), at-time.Millisecond, pingPeriodicity)
		out += fmt.Sprintf(", in a ping slot %v", (slot-at).Abs() < time.Millisecond)
	case *gw.Timing_Immediately:
		out += ", immediately"
	}
	var phy lorawan.PHYPayload
	if err := phy.UnmarshalBinary(item.PhyPayload); err != nil {
		return out + ": " + err.Error()
	}
	mac, ok := phy.MACPayload.(*lorawan.MACPayload)
	if !ok {
		return out + ": " + phy.MHDR.MType.String()
	}
	out += fmt.Sprintf(": %s %d bytes, ADR %v, ACK %v, FPending %v", phy.MHDR.MType, len(item.PhyPayload), mac.FHDR.FCtrl.ADR, mac.FHDR.FCtrl.ACK, mac.FHDR.FCtrl.FPending)
	if mac.FPort != nil {
		out += fmt.Sprintf(", port %d", *mac.FPort)
	}
	if phy.DecodeFOptsToMACCommands() == nil {
		for _, c := range mac.FHDR.FOpts {
			if c, ok := c.(*lorawan.MACCommand); ok {
				out += ", " + strings.TrimSuffix(c.CID.String(), "Req") // the answer has the number of the request
			}
		}
	}
	return out
}
