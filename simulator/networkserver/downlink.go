package networkserver

import (
	"slices"
	"strconv"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/airtime"
)

// queueItem is a unicast message.
type queueItem struct {
	id        string
	fPort     uint8
	data      []byte
	confirmed bool
	expires   time.Time // zero: never
	pending   bool      // a confirmed item that was sent
	timeout   time.Time // of a pending item in class B
	fCntDown  uint32    // of the frame it went with
}

// acknowledge closes the pending confirmed item at the head of a queue, of which an uplink, which it names by its
// de-duplication id, says whether the device has it. It is never sent again.
func (s *Server) acknowledge(d *device, uplink string, acked bool) {
	item := d.queue[0]
	d.queue = d.queue[1:]
	s.publish(d, "ack", &integration.AckEvent{
		DeduplicationId: uplink,
		Time:            timestamppb.New(s.world.Now()),
		DeviceInfo:      s.deviceInfo(d),
		QueueItemId:     item.id,
		Acknowledged:    acked,
		FCntDown:        item.fCntDown,
	})
}

// pending reports whether a confirmed item waits for the word of the device.
func (d *device) pending() bool { return len(d.queue) > 0 && d.queue[0].pending }

// answer uses the downlink opportunity that an uplink has opened. RX1 decides what fits; in RX2, where it may not, the
// frame goes without its payload and says that more waits. The frame counter is used up when a gateway says that it sends
// the frame: after a refusal, and without any word, the next frame has the same one.
func (s *Server) answer(d *device, r *reception, uplink string, confirmed, pingInfo bool) {
	rx1, rx2 := r.limits()
	item := s.nextItem(d, uplink, rx1)
	commands := s.requests(d, pingInfo)
	if item == nil && !confirmed && len(commands) == 0 {
		return
	}
	fCnt := d.session.fCntDown
	more := item != nil && len(d.queue) > 1
	var frames [2][]byte
	var carries [2]bool // the item
	for i, limit := range []int{rx1, rx2} {
		f := dataDown{item: item, fCnt: fCnt, ack: confirmed, commands: commands}
		if item != nil && len(item.data) > limit-f.size() {
			f.item, more = nil, true
		}
		f.more, carries[i] = more, f.item != nil
		var err error
		if frames[i], err = f.encode(d.session); err != nil {
			s.log.Error("downlink", "device", d.EUI, "err", err)
			return
		}
	}
	if item != nil {
		item.fCntDown = fCnt
	}
	if dl := s.windows(r, s.cfg.RX1Delay, frames[0], frames[1]); dl != nil {
		s.offer(d, item, fCnt, dl, carries[:])
	}
}

// offer hands a unicast frame to its gateway; carries says in which windows it has the item.
func (s *Server) offer(d *device, item *queueItem, fCnt uint32, dl *downlink, carries []bool) {
	dl.acked = func(st gw.TxAckStatus, window int) {
		switch {
		case st != gw.TxAckStatus_OK: // of which item is not said
			s.publishLog(d, integration.LogLevel_ERROR, integration.LogCode_DOWNLINK_GATEWAY, st.String(), nil)
		case carries[window]:
			s.sent(d, item, fCnt, dl, window)
		default:
			d.session.fCntDown++
		}
		s.armPing(d)
	}
	s.hand(dl)
}

// dataDown is a unicast downlink.
type dataDown struct {
	item     *queueItem // nil: none
	fCnt     uint32
	ack      bool
	commands []lorawan.MACCommand
	more     bool // items wait
}

// size is what the MAC commands take of the frame, in FOpts.
func (f dataDown) size() (n int) {
	for _, c := range f.commands {
		if text, err := c.MarshalBinary(); err == nil {
			n += len(text)
		}
	}
	return n
}

func (f dataDown) encode(ses *session) ([]byte, error) {
	mac := &lorawan.MACPayload{FHDR: lorawan.FHDR{DevAddr: ses.addr, FCnt: f.fCnt, FCtrl: lorawan.FCtrl{ADR: true, ACK: f.ack, FPending: f.more}}}
	phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataDown, Major: lorawan.LoRaWANR1}, MACPayload: mac}
	for _, c := range f.commands {
		mac.FHDR.FOpts = append(mac.FHDR.FOpts, &c)
	}
	if f.item != nil {
		if f.item.confirmed {
			phy.MHDR.MType = lorawan.ConfirmedDataDown
		}
		mac.FPort = &f.item.fPort
		mac.FRMPayload = []lorawan.Payload{&lorawan.DataPayload{Bytes: slices.Clone(f.item.data)}}
	}
	return encode(phy, ses.appSKey, ses.nwkSKey)
}

// sent takes note that a gateway sends a unicast item. Of one that is gone by then nothing is told, and its counter is
// not used up.
func (s *Server) sent(d *device, item *queueItem, fCnt uint32, dl *downlink, window int) {
	at := slices.Index(d.queue, item)
	if at < 0 {
		return
	}
	if item.confirmed {
		item.pending = true
	} else {
		d.queue = slices.Delete(d.queue, at, at+1)
	}
	d.session.fCntDown = fCnt + 1
	s.publish(d, "txack", &integration.TxAckEvent{
		DownlinkId:  dl.id,
		Time:        timestamppb.New(s.world.Now()),
		DeviceInfo:  s.deviceInfo(d),
		QueueItemId: item.id,
		FCntDown:    fCnt,
		GatewayId:   dl.gateway.ID.String(),
		TxInfo:      txInfo(dl.gateway.plan, dl.items[window], dl.context),
	})
}

// limits are the largest application payloads of RX1 and RX2 after an uplink.
func (r *reception) limits() (rx1, rx2 int) {
	_, dr1 := r.plan.RX1(r.frame.Frequency, r.frame.DataRate)
	_, dr2 := r.plan.Region.RX2()
	for _, w := range []struct {
		dr    int
		limit *int
	}{{dr1, &rx1}, {dr2, &rx2}} {
		if n, err := r.plan.MaxPayload(w.dr, airtime.Downlink); err == nil {
			*w.limit = n
		}
	}
	return rx1, rx2
}

// nextItem drops what cannot be sent from the head of the queue and returns the first item that can.
func (s *Server) nextItem(d *device, uplink string, limit int) *queueItem {
	if d.pending() {
		if d.queue[0].timeout.After(s.world.Now()) {
			return nil
		}
		s.acknowledge(d, uplink, false)
	}
	for len(d.queue) > 0 {
		item := d.queue[0]
		context := map[string]string{"queue_item_id": item.id}
		switch {
		case !item.expires.IsZero() && s.world.Now().After(item.expires):
			s.publishLog(d, integration.LogLevel_ERROR, integration.LogCode_EXPIRED, "Device queue-item discarded because it has expired", context)
		case len(item.data) > limit:
			context["item_size"] = strconv.Itoa(len(item.data))
			context["max_payload_size"] = strconv.Itoa(limit)
			s.publishLog(d, integration.LogLevel_ERROR, integration.LogCode_DOWNLINK_PAYLOAD_SIZE, "Device queue-item discarded because it exceeds the max. payload size", context)
		default:
			return item
		}
		d.queue = d.queue[1:]
	}
	return nil
}

// windows is a downlink in RX1 or RX2 for the gateway that heard the uplink best; nil if that was deleted since. delay is
// from the end of the uplink to RX1.
func (s *Server) windows(r *reception, delay time.Duration, rx1, rx2 []byte) *downlink {
	g := s.gatewayByID(r.heard[0].gateway)
	if g == nil {
		return nil
	}
	f1, dr1 := r.plan.RX1(r.frame.Frequency, r.frame.DataRate)
	f2, dr2 := r.plan.Region.RX2()
	return &downlink{gateway: g, context: r.heard[0].context, items: []downlinkItem{
		{payload: rx1, frequency: f1, dataRate: dr1, at: r.at.Add(delay), delay: delay, power: power(r.plan, f1)},
		{payload: rx2, frequency: f2, dataRate: dr2, at: r.at.Add(delay + time.Second), delay: delay + time.Second, power: power(r.plan, f2)},
	}}
}

// encode encrypts the payload, sets the MIC and returns the frame.
func encode(phy lorawan.PHYPayload, appSKey, nwkSKey lorawan.AES128Key) ([]byte, error) {
	if err := phy.EncryptFRMPayload(appSKey); err != nil {
		return nil, err
	}
	if err := phy.SetDownlinkDataMIC(lorawan.LoRaWAN1_0, 0, nwkSKey); err != nil {
		return nil, err
	}
	return phy.MarshalBinary()
}
