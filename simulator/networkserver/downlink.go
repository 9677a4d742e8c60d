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
	fCntDown  uint32    // of a pending item
}

// acknowledge closes a pending confirmed item: the first uplink after it says whether the device has it. It is
// never sent again.
func (s *Server) acknowledge(d *device, item *queueItem, acked bool) {
	at := slices.Index(d.queue, item)
	if at < 0 {
		return // flushed
	}
	d.queue = slices.Delete(d.queue, at, at+1)
	s.publish(d, "ack", &integration.AckEvent{
		DeduplicationId: s.newID("ack"),
		Time:            timestamppb.New(s.world.Now()),
		DeviceInfo:      s.deviceInfo(d),
		QueueItemId:     item.id,
		Acknowledged:    acked,
		FCntDown:        item.fCntDown,
	})
}

// answer uses the downlink opportunity that an uplink has opened.
func (s *Server) answer(d *device, r *reception, confirmed bool) {
	rx1, rx2 := r.limits()
	item := s.nextItem(d, max(rx1, rx2))
	status := s.asksStatus(d)
	if item == nil && !confirmed && !status {
		return
	}
	fCnt := d.session.fCntDown
	var frames [2][]byte
	var carries []bool // the item, by what the gateway is given
	for i, limit := range []int{rx1, rx2} {
		f := dataDown{item: item, fCnt: fCnt, ack: confirmed, status: status, more: len(d.queue) > 1}
		if status {
			limit -= statusReqSize
		}
		if item != nil && len(item.data) > limit {
			if !status {
				continue
			}
			f.item, f.more = nil, true // the request goes first
		}
		var err error
		if frames[i], err = f.encode(d.session); err != nil {
			s.log.Error("downlink", "device", d.EUI, "err", err)
			return
		}
		carries = append(carries, f.item != nil)
	}
	d.session.fCntDown++
	s.transmit(r, s.cfg.RX1Delay, frames[0], frames[1], func(dl *downlink, st gw.TxAckStatus, window int) {
		switch {
		case carries[window]:
			s.sent(d, item, fCnt, dl, st, window)
		case status && st != gw.TxAckStatus_OK:
			s.publishLog(d, integration.LogLevel_ERROR, integration.LogCode_DOWNLINK_GATEWAY, st.String(), nil)
		}
	})
}

// dataDown is a unicast downlink.
type dataDown struct {
	item   *queueItem // nil: none
	fCnt   uint32
	ack    bool
	status bool // with DevStatusReq
	more   bool // items wait
}

func (f dataDown) encode(ses *session) ([]byte, error) {
	mac := &lorawan.MACPayload{FHDR: lorawan.FHDR{DevAddr: ses.addr, FCnt: f.fCnt, FCtrl: lorawan.FCtrl{ACK: f.ack}}}
	phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataDown, Major: lorawan.LoRaWANR1}, MACPayload: mac}
	if f.status {
		mac.FHDR.FOpts = []lorawan.Payload{&lorawan.MACCommand{CID: lorawan.DevStatusReq}}
		mac.FHDR.FCtrl.FPending = f.more
	}
	if f.item != nil {
		if f.item.confirmed {
			phy.MHDR.MType = lorawan.ConfirmedDataDown
		}
		mac.FHDR.FCtrl.FPending = f.more
		mac.FPort = &f.item.fPort
		mac.FRMPayload = []lorawan.Payload{&lorawan.DataPayload{Bytes: slices.Clone(f.item.data)}}
	}
	return encode(phy, ses.appSKey, ses.nwkSKey)
}

// sent deals with what the gateway said of a unicast item.
func (s *Server) sent(d *device, item *queueItem, fCnt uint32, dl *downlink, status gw.TxAckStatus, window int) {
	at := slices.Index(d.queue, item)
	if status != gw.TxAckStatus_OK {
		s.publishLog(d, integration.LogLevel_ERROR, integration.LogCode_DOWNLINK_GATEWAY, status.String(),
			map[string]string{"queue_item_id": item.id})
		return
	}
	if at >= 0 && !item.confirmed {
		d.queue = slices.Delete(d.queue, at, at+1)
	} else if at >= 0 {
		item.pending, item.fCntDown = true, fCnt
	}
	s.publish(d, "txack", &integration.TxAckEvent{
		DownlinkId:  dl.id,
		Time:        timestamppb.New(s.world.Now()),
		DeviceInfo:  s.deviceInfo(d),
		QueueItemId: item.id,
		FCntDown:    fCnt,
		GatewayId:   dl.gateway.ID.String(),
		TxInfo:      txInfo(dl.gateway.plan, dl.items[window], nil),
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
func (s *Server) nextItem(d *device, limit int) *queueItem {
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

// transmit offers RX1 and RX2 to the gateway that heard the uplink best. nil in place of a payload leaves that
// window out. delay is from the end of the uplink to RX1.
func (s *Server) transmit(r *reception, delay time.Duration, rx1, rx2 []byte, acked func(d *downlink, status gw.TxAckStatus, window int)) {
	g := s.gatewayByID(r.heard[0].gateway)
	if g == nil { // deleted since
		return
	}
	d := &downlink{gateway: g, context: r.heard[0].context}
	d.acked = func(status gw.TxAckStatus, window int) { acked(d, status, window) }
	f1, dr1 := r.plan.RX1(r.frame.Frequency, r.frame.DataRate)
	f2, dr2 := r.plan.Region.RX2()
	for _, w := range []downlinkItem{
		{payload: rx1, frequency: f1, dataRate: dr1, delay: delay},
		{payload: rx2, frequency: f2, dataRate: dr2, delay: delay + time.Second},
	} {
		if w.payload != nil {
			w.at = r.at.Add(w.delay)
			d.items = append(d.items, w)
		}
	}
	s.hand(d)
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
