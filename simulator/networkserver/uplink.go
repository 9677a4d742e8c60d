package networkserver

import (
	"crypto/aes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sort"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

type device struct {
	Device
	app      *Application
	profile  *DeviceProfile
	session  *session // nil: never joined
	joins    uint32   // JoinNonce
	nonces   map[lorawan.DevNonce]bool
	queue    []*queueItem
	lastSeen time.Time
	heardBy  []lorawan.EUI64 // gateways of the last uplink, best first
	context  []byte          // of the first of them
	uplinks  metrics
	status   *lorawan.DevStatusAnsPayload // nil: the device never told
	updated  time.Time

	classB    bool
	pingAfter time.Time    // no ping slot before
	pinging   *world.Event // the next look at the queue

	// Of the API only: they change nothing here.
	description   string
	variables     map[string]string
	skipFCntCheck bool
}

type session struct {
	addr     lorawan.DevAddr
	nwkSKey  lorawan.AES128Key
	appSKey  lorawan.AES128Key
	fCntUp   uint32 // next expected
	fCntDown uint32 // next

	statusAsked time.Time // zero: never
	ping        pingSlots
}

// reception collects what the gateways say of one uplink until the de-duplication delay is over.
type reception struct {
	plan  *radio.Plan // of the region of the gateways
	frame radio.Frame
	at    time.Time
	heard []hearing
}

type hearing struct {
	gateway lorawan.EUI64
	signal  radio.Signal

	// Of gateways that speak MQTT.
	uplinkID uint32
	context  []byte // to be echoed
}

// receive is called by the gateways on the goroutine of the world.
func (s *Server) receive(gateway lorawan.EUI64, f radio.Frame, sig radio.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gatewayByID(gateway)
	if g == nil || g.down || s.down {
		return
	}
	s.hear(g.plan, hearing{
		gateway: gateway, signal: sig,
		uplinkID: uint32(f.Key.Hash(binary.BigEndian.Uint64(gateway[:]))), context: f.Payload[len(f.Payload)-4:],
	}, f)
}

// hear collects what the gateways of a region say of an uplink.
func (s *Server) hear(plan *radio.Plan, h hearing, f radio.Frame) {
	key := plan.Region.String() + string(f.Payload)
	if r := s.receiving[key]; r != nil {
		r.heard = append(r.heard, h)
		return
	}
	now := s.world.Now()
	r := &reception{plan: plan, frame: f, at: now, heard: []hearing{h}}
	s.receiving[key] = r
	s.at(now.Add(s.cfg.DeduplicationDelay), "uplink de-duplicated", func() {
		delete(s.receiving, key)
		sort.SliceStable(r.heard, func(i, j int) bool { return r.heard[i].signal.SNR > r.heard[j].signal.SNR })
		s.handle(r)
	})
}

// handle does with an uplink what its type asks for.
func (s *Server) handle(r *reception) {
	var phy lorawan.PHYPayload
	if err := phy.UnmarshalBinary(r.frame.Payload); err != nil {
		s.log.Debug("uplink is no LoRaWAN frame", "err", err)
		return
	}
	switch phy.MHDR.MType {
	case lorawan.JoinRequest:
		s.join(r, phy)
	case lorawan.UnconfirmedDataUp, lorawan.ConfirmedDataUp:
		s.data(r, phy)
	}
}

// join answers a join request: the accept is scheduled first, the event follows at once.
func (s *Server) join(r *reception, phy lorawan.PHYPayload) {
	request := phy.MACPayload.(*lorawan.JoinRequestPayload)
	d := s.byEUI[request.DevEUI]
	if d == nil || d.Disabled || s.planOf(d.profile.Region) != r.plan { // "Invalid device-profile region", in the log
		return
	}
	if d.Keys == nil {
		s.publishLog(d, integration.LogLevel_ERROR, integration.LogCode_OTAA, "Device has no keys", nil)
		return
	}
	if ok, err := phy.ValidateUplinkJoinMIC(d.Keys.AppKey); err != nil || !ok {
		s.publishLog(d, integration.LogLevel_ERROR, integration.LogCode_UPLINK_MIC, "MIC of join-request is invalid, make sure keys are correct", nil)
		return
	}
	if d.nonces[request.DevNonce] {
		s.publishLog(d, integration.LogLevel_ERROR, integration.LogCode_OTAA, "DevNonce has already been used", nil)
		return
	}
	d.nonces[request.DevNonce] = true
	d.joins++
	ses := &session{}
	_, rx2DR := r.plan.Region.RX2()
	eui := binary.BigEndian.Uint64(d.EUI[:])
	binary.BigEndian.PutUint32(ses.addr[:], uint32(radio.Hash(s.cfg.Seed, eui, uint64(d.joins)))&0x01ffffff)
	accept := lorawan.PHYPayload{
		MHDR: lorawan.MHDR{MType: lorawan.JoinAccept, Major: lorawan.LoRaWANR1},
		MACPayload: &lorawan.JoinAcceptPayload{
			JoinNonce:  lorawan.JoinNonce(d.joins),
			DevAddr:    ses.addr,
			DLSettings: lorawan.DLSettings{RX2DataRate: uint8(rx2DR)},
			RXDelay:    uint8(s.cfg.RX1Delay / time.Second),
		},
	}
	ses.nwkSKey = sessionKey(1, d.Keys.AppKey, d.joins, request.DevNonce)
	ses.appSKey = sessionKey(2, d.Keys.AppKey, d.joins, request.DevNonce)
	if err := accept.SetDownlinkJoinMIC(lorawan.JoinRequestType, request.JoinEUI, request.DevNonce, d.Keys.AppKey); err != nil {
		s.log.Error("join-accept", "err", err)
		return
	}
	if err := accept.EncryptJoinAcceptPayload(d.Keys.AppKey); err != nil {
		s.log.Error("join-accept", "err", err)
		return
	}
	payload, err := accept.MarshalBinary()
	if err != nil {
		s.log.Error("join-accept", "err", err)
		return
	}
	s.activate(d, ses)
	d.lastSeen = r.at
	d.remember(r)
	if dl := s.windows(r, r.plan.JoinDelay, payload, payload); dl != nil {
		dl.acked = func(gw.TxAckStatus, int) {} // whatever it says
		s.hand(dl)
	}
	s.publish(d, "join", &integration.JoinEvent{
		DeduplicationId: s.deduplicationID(d, radio.JoinRequest, uint32(request.DevNonce)),
		Time:            timestamppb.New(s.world.Now()),
		DeviceInfo:      s.deviceInfo(d),
		DevAddr:         ses.addr.String(),
		RegionConfigId:  regionID(r.plan),
	})
}

// sessionKey derives a LoRaWAN 1.0.x session key: AES(AppKey, kind | JoinNonce | NetID | DevNonce | 0…).
func sessionKey(kind byte, appKey lorawan.AES128Key, joinNonce uint32, devNonce lorawan.DevNonce) lorawan.AES128Key {
	var in, out lorawan.AES128Key
	in[0] = kind
	in[1], in[2], in[3] = byte(joinNonce), byte(joinNonce>>8), byte(joinNonce>>16)
	binary.LittleEndian.PutUint16(in[7:], uint16(devNonce)) // in[4:7] is NetID 000000
	block, err := aes.NewCipher(appKey[:])
	if err != nil {
		panic("networkserver: internal error: " + err.Error()) // the key has 16 bytes
	}
	block.Encrypt(out[:], in[:])
	return out
}

// data takes an uplink data frame.
func (s *Server) data(r *reception, phy lorawan.PHYPayload) {
	mac := phy.MACPayload.(*lorawan.MACPayload)
	d, retransmission := s.identify(phy, mac)
	if d == nil || d.Disabled || s.planOf(d.profile.Region) != r.plan {
		return
	}
	if retransmission {
		s.publishLog(d, integration.LogLevel_INFO, integration.LogCode_UPLINK_F_CNT_RETRANSMISSION, "Uplink was flagged as re-transmission / frame-counter did not increment", nil)
		return
	}
	ses := d.session
	fCnt := mac.FHDR.FCnt
	ses.fCntUp = fCnt + 1
	d.lastSeen = r.at
	d.remember(r)
	d.uplinks.add(s.world.Now(), r)

	var data []byte
	var fPort uint32
	key := ses.appSKey
	if mac.FPort != nil && *mac.FPort == 0 {
		key = ses.nwkSKey
	}
	if mac.FPort != nil {
		if err := phy.DecryptFRMPayload(key); err != nil {
			s.log.Error("uplink payload", "device", d.EUI, "err", err)
			return
		}
	}
	if mac.FPort != nil && *mac.FPort > 0 {
		fPort = uint32(*mac.FPort)
		for _, p := range mac.FRMPayload {
			if p, ok := p.(*lorawan.DataPayload); ok {
				data = append(data, p.Bytes...)
			}
		}
	}
	confirmed := phy.MHDR.MType == lorawan.ConfirmedDataUp
	rxInfo := r.rxInfo()
	uplink := s.deduplicationID(d, radio.Uplink, fCnt)
	pingInfo := s.commands(d, r, phy, uplink)
	s.at(s.world.Now().Add(s.cfg.DownlinkDataDelay), "downlink opportunity", func() {
		if d.session == ses {
			s.answer(d, r, uplink, confirmed, pingInfo)
			s.armPing(d)
		}
	})
	s.clock(d, r.at, uint8(fPort), data)
	s.publish(d, "up", &integration.UplinkEvent{
		DeduplicationId: uplink,
		Time:            rxInfo[0].GwTime,
		DeviceInfo:      s.deviceInfo(d),
		DevAddr:         ses.addr.String(),
		Adr:             mac.FHDR.FCtrl.ADR,
		Dr:              uint32(r.frame.DataRate),
		FCnt:            fCnt,
		FPort:           fPort,
		Confirmed:       confirmed,
		Data:            data,
		RxInfo:          rxInfo,
		TxInfo:          &gw.UplinkTxInfo{Frequency: r.frame.Frequency, Modulation: modulation(r.plan, r.frame.DataRate)},
		RegionConfigId:  regionID(r.plan),
	})
	d.setClass(mac.FHDR.FCtrl.ClassB)
	if d.pending() && mac.FHDR.FCtrl.ACK {
		s.acknowledge(d, uplink, true)
	}
	s.armPing(d)
}

// identify finds the device of a frame by address, counter and MIC, and sets the counter's upper half in mac.
func (s *Server) identify(phy lorawan.PHYPayload, mac *lorawan.MACPayload) (d *device, retransmission bool) {
	low := mac.FHDR.FCnt & 0xffff
	for _, d := range s.byAddr[mac.FHDR.DevAddr] {
		next := d.session.fCntUp
		for _, try := range []struct {
			fCnt  uint32
			again bool
		}{{next + uint32(uint16(low)-uint16(next)), false}, {next - uint32(uint16(next)-uint16(low)), true}} {
			mac.FHDR.FCnt = try.fCnt
			if ok, err := phy.ValidateUplinkDataMIC(lorawan.LoRaWAN1_0, 0, 0, 0, d.session.nwkSKey, d.session.nwkSKey); err == nil && ok {
				return d, try.again
			}
		}
	}
	return nil, false
}

func (d *device) remember(r *reception) {
	d.heardBy, d.context = d.heardBy[:0], r.heard[0].context
	for _, h := range r.heard {
		d.heardBy = append(d.heardBy, h.gateway)
	}
}

func (r *reception) rxInfo() []*gw.UplinkRxInfo {
	out := make([]*gw.UplinkRxInfo, len(r.heard))
	for i, h := range r.heard {
		out[i] = &gw.UplinkRxInfo{
			GatewayId:         h.gateway.String(),
			UplinkId:          h.uplinkID,
			GwTime:            timestamppb.New(r.at),
			NsTime:            timestamppb.New(r.at),
			TimeSinceGpsEpoch: durationpb.New(airtime.GPS(r.at)),
			Rssi:              int32(h.signal.RSSI),
			Snr:               h.signal.SNR,
			Channel:           uint32(r.plan.Channel(r.frame.Frequency)),
			Context:           h.context,
			Location:          &common.Location{},
			CrcStatus:         gw.CRCStatus_CRC_OK,
		}
	}
	return out
}

func modulation(p *radio.Plan, dr int) *gw.Modulation {
	rate, err := p.Region.DataRate(dr)
	if err != nil {
		return nil
	}
	if rate.BitRate != 0 {
		return &gw.Modulation{Parameters: &gw.Modulation_Fsk{Fsk: &gw.FskModulationInfo{Datarate: uint32(rate.BitRate)}}}
	}
	return &gw.Modulation{Parameters: &gw.Modulation_Lora{Lora: &gw.LoraModulationInfo{
		Bandwidth:       uint32(rate.Bandwidth),
		SpreadingFactor: uint32(rate.SpreadingFactor),
		CodeRate:        gw.CodeRate_CR_4_5,
	}}}
}

func (s *Server) deduplicationID(d *device, kind radio.Kind, counter uint32) string {
	return UUID(s.cfg.Seed, fmt.Sprintf("%s %s %d %d", d.EUI, kind, d.joins, counter))
}

func hexKey(k lorawan.AES128Key) string { return hex.EncodeToString(k[:]) }
