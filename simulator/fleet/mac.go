package fleet

import (
	"crypto/aes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// Priorities of receive windows: class A goes before class C.
const (
	priorityClassC = iota
	priorityClassA
)

// session is what OTAA gave.
type session struct {
	addr     lorawan.DevAddr
	nwkSKey  lorawan.AES128Key
	appSKey  lorawan.AES128Key
	fCntUp   uint32 // next
	fCntDown uint32 // next expected
	settings
}

// radioState is the class A cycle: transmit, RX1, RX2, idle.
type radioState struct {
	busy     bool
	joining  bool
	rx1, rx2 *radio.Window
	idle     *world.Event // ends the cycle
	retry    *world.Event // the next join request
	wake     *world.Event // a transmission that was decided on
}

// forget ends the cycle.
func (r *radioState) forget(d *Device) {
	now := d.f.cfg.World.Now()
	for _, w := range []*radio.Window{r.rx1, r.rx2} {
		if w != nil {
			d.phases.Windows += max(0, earlier(w.Until, now).Sub(w.From))
			d.station.Close(w)
		}
	}
	for _, e := range []*world.Event{r.idle, r.retry, r.wake} {
		if e != nil {
			e.Cancel()
		}
	}
	*r = radioState{}
}

// kick starts the next transmission if the radio is free and there is a reason.
func (d *Device) kick() {
	r := &d.radio
	if !d.running() || r.busy || r.wake != nil || r.retry != nil {
		return
	}
	if d.session != nil && len(d.uplinks) == 0 && !d.ackNext && !d.pullNext {
		return
	}
	now := d.f.cfg.World.Now()
	at := now.Add(d.turnaround)
	if txEnd := d.station.TransmittingUntil(); txEnd.After(at) { // the reset came in the middle of a frame
		at = txEnd
	}
	if d.quiet.After(at) {
		at = d.quiet
	}
	r.wake = d.f.cfg.World.At(at, "device transmits", func() {
		r.wake = nil
		var err error
		if d.session == nil {
			err = d.sendJoin()
		} else {
			err = d.sendData()
		}
		if err != nil {
			d.fail(err)
		}
	})
}

func (d *Device) sendJoin() error {
	if d.devNonce == 0xffff {
		return fmt.Errorf("fleet: device %s has used all DevNonces", d.cfg.EUI)
	}
	d.devNonce++ // counts from 1 and is never used again, as 1.0.4 asks
	phy := lorawan.PHYPayload{
		MHDR:       lorawan.MHDR{MType: lorawan.JoinRequest, Major: lorawan.LoRaWANR1},
		MACPayload: &lorawan.JoinRequestPayload{JoinEUI: d.cfg.JoinEUI, DevEUI: d.cfg.EUI, DevNonce: lorawan.DevNonce(d.devNonce)},
	}
	if err := phy.SetUplinkJoinMIC(d.cfg.AppKey); err != nil {
		return err
	}
	d.radio.joining = true
	return d.send(phy, radio.Key{Device: d.cfg.EUI, Kind: radio.JoinRequest, Counter: uint32(d.devNonce)}, d.f.cfg.Medium.Plan().JoinDelay)
}

func (d *Device) sendData() error {
	ses := d.session
	mac := &lorawan.MACPayload{FHDR: lorawan.FHDR{DevAddr: ses.addr, FCnt: ses.fCntUp, FCtrl: lorawan.FCtrl{ACK: d.ackNext}}}
	phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataUp, Major: lorawan.LoRaWANR1}, MACPayload: mac}
	if len(d.uplinks) == 0 && !d.ackNext && !d.pullNext {
		return nil
	}
	var size int
	if len(d.uplinks) > 0 {
		size = len(d.uplinks[0].Data)
	}
	opts, alone := d.fOpts(size)
	if len(opts) > 0 {
		mac.FHDR.FOpts = []lorawan.Payload{&lorawan.DataPayload{Bytes: opts}}
	}
	if len(d.uplinks) > 0 && !alone {
		u := d.uplinks[0]
		d.uplinks = slices.Delete(d.uplinks, 0, 1)
		mac.FPort = &u.Port
		mac.FRMPayload = []lorawan.Payload{&lorawan.DataPayload{Bytes: slices.Clone(u.Data)}}
	}
	d.ackNext, d.pullNext = false, false
	key := radio.Key{Device: d.cfg.EUI, Kind: radio.Uplink, Session: d.joins, Counter: ses.fCntUp}
	ses.fCntUp++
	if err := phy.EncryptFRMPayload(ses.appSKey); err != nil {
		return err
	}
	if err := phy.SetUplinkDataMIC(lorawan.LoRaWAN1_0, 0, 0, 0, ses.nwkSKey, ses.nwkSKey); err != nil {
		return err
	}
	return d.send(phy, key, ses.rx1Delay)
}

// send transmits and opens the two windows of class A.
func (d *Device) send(phy lorawan.PHYPayload, key radio.Key, delay time.Duration) error {
	plan := d.f.cfg.Medium.Plan()
	payload, err := phy.MarshalBinary()
	if err != nil {
		return err
	}
	now := d.f.cfg.World.Now()
	set := &d.f.joining
	if key.Kind == radio.Uplink {
		set = &d.session.settings
	}
	frequency, err := set.uplink(plan, d.cfg.DataRate, key.Hash(d.f.cfg.Seed^0xc4a11e1))
	if err != nil {
		return err
	}
	end, err := d.station.Transmit(radio.Frame{Payload: payload, Frequency: frequency, DataRate: d.cfg.DataRate, Key: key})
	if err != nil {
		return err
	}
	d.count(func(s *Stats) {
		s.UplinkAirtime += end.Sub(now)
		if key.Kind == radio.Uplink {
			s.Uplinks++
		}
	})
	d.phases.Transmit += end.Sub(now)
	d.otherwise(now, end.Sub(now))
	r := &d.radio
	r.busy = true
	d.quiet = end.Add(time.Duration(set.pause) * end.Sub(now))
	f1, dr1 := set.rx1(plan, frequency, d.cfg.DataRate)
	r.rx1 = d.listen(end.Add(delay), f1, dr1)
	r.rx2 = d.listen(end.Add(delay+time.Second), set.rx2Frequency, set.rx2DataRate)
	r.idle = d.f.cfg.World.At(r.rx2.Until, "receive windows over", d.windowsOver)
	return nil
}

// listen opens a class A window: for eight symbols, or 10 ms if that is longer.
func (d *Device) listen(from time.Time, frequency uint32, dataRate int) *radio.Window {
	open := max(10*time.Millisecond, 8*d.symbol(dataRate))
	return d.station.Listen(radio.Window{
		From: from, Until: from.Add(open), Frequency: frequency, DataRate: dataRate, Priority: priorityClassA,
	})
}

// symbol is the length of a LoRa symbol; 0 for other modulations.
func (d *Device) symbol(dataRate int) time.Duration {
	rate, err := d.f.cfg.Medium.Plan().Region.DataRate(dataRate)
	if err != nil || rate.BitRate != 0 {
		return 0
	}
	return time.Second << rate.SpreadingFactor / time.Duration(rate.Bandwidth)
}

// windowsOver ends the cycle, unless a frame that began in a window is still arriving.
func (d *Device) windowsOver() {
	r := &d.radio
	now := d.f.cfg.World.Now()
	if until := d.station.Receiving(priorityClassA); !until.Before(now) && !until.IsZero() {
		r.idle = d.f.cfg.World.At(until.Add(time.Nanosecond), "receive windows over", d.windowsOver)
		return
	}
	d.endWindows(time.Time{})
	d.cycleDone()
}

// cycleDone makes the radio free. A join that was not answered is tried again after 10 to 30 s.
func (d *Device) cycleDone() {
	r := &d.radio
	if r.idle != nil {
		r.idle.Cancel()
	}
	joining := r.joining
	*r = radioState{}
	if joining && d.session == nil {
		key := radio.Key{Device: d.cfg.EUI, Kind: radio.JoinRequest, Counter: uint32(d.devNonce)}
		wait := 10*time.Second + time.Duration(key.Hash(d.f.cfg.Seed)%uint64(20*time.Second))
		r.retry = d.f.cfg.World.At(d.f.cfg.World.Now().Add(wait), "join again", func() {
			r.retry = nil
			d.kick()
		})
		return
	}
	d.kick()
}

// heard closes what is left of the class A cycle after a frame was received in one of its windows.
func (d *Device) heard(f radio.Frame) {
	if r := &d.radio; r.busy && r.rx2 != nil {
		d.endWindows(f.Start)
		d.station.Close(r.rx1)
		d.station.Close(r.rx2)
		d.cycleDone()
	}
}

// FrameKey implements [radio.Receiver].
func (d *Device) FrameKey(f radio.Frame) (radio.Key, bool) {
	k := radio.Key{Device: d.cfg.EUI}
	p := f.Payload
	if len(p) < 12 {
		return k, false
	}
	switch lorawan.MType(p[0] >> 5) {
	case lorawan.JoinAccept:
		// Encrypted, with nothing to tell for whom: who waits for one takes it, and the MIC decides.
		k.Kind, k.Counter = radio.JoinAccept, uint32(d.devNonce)
		return k, d.radio.joining
	case lorawan.UnconfirmedDataDown, lorawan.ConfirmedDataDown:
		addr := binary.LittleEndian.Uint32(p[1:5])
		k.Counter = uint32(binary.LittleEndian.Uint16(p[6:8]))
		if d.session != nil && binary.BigEndian.Uint32(d.session.addr[:]) == addr {
			k.Kind, k.Session = radio.Downlink, d.joins
			return k, true
		}
		for _, g := range d.groups {
			if g != nil && g.Addr == addr {
				k.Kind, k.Session = radio.Multicast, g.ordinal
				return k, true
			}
		}
	}
	return k, false
}

// LoseFrame implements [radio.Receiver].
func (d *Device) LoseFrame(f radio.Frame, deaf bool) {
	k, ok := d.FrameKey(f)
	if !ok {
		return
	}
	d.count(func(s *Stats) {
		switch {
		case k.Kind == radio.Downlink:
			s.DownlinksLost++
		case k.Kind == radio.Multicast && deaf:
			s.MulticastsDeaf++
		case k.Kind == radio.Multicast:
			s.MulticastsLost++
		}
	})
}

// ReceiveFrame implements [radio.Receiver].
func (d *Device) ReceiveFrame(f radio.Frame, sig radio.Signal) {
	if !d.running() {
		return
	}
	if f.Key.Kind == radio.Multicast {
		d.multicast(f)
		return
	}
	var phy lorawan.PHYPayload
	if err := phy.UnmarshalBinary(f.Payload); err != nil {
		return
	}
	switch f.Key.Kind {
	case radio.JoinAccept:
		if d.radio.joining && d.accept(phy) { // a reset may have come in between
			d.heard(f)
			d.link()
		}
	case radio.Downlink:
		d.unicast(f, sig, phy)
	}
}

// accept takes a join accept.
func (d *Device) accept(phy lorawan.PHYPayload) bool {
	if err := phy.DecryptJoinAcceptPayload(d.cfg.AppKey); err != nil {
		return false
	}
	if ok, err := phy.ValidateDownlinkJoinMIC(lorawan.JoinRequestType, d.cfg.JoinEUI, lorawan.DevNonce(d.devNonce), d.cfg.AppKey); err != nil || !ok {
		return false
	}
	p := phy.MACPayload.(*lorawan.JoinAcceptPayload)
	ses := &session{addr: p.DevAddr, settings: newSettings(d.plan(), p, d.cfg.DataRate)}
	ses.nwkSKey = d.derive(1, p)
	ses.appSKey = d.derive(2, p)
	d.session, d.answers = ses, nil
	d.joins++
	d.radio.joining = false
	d.count(func(s *Stats) { s.Joined = true })
	return true
}

// derive computes a LoRaWAN 1.0 session key: AES(AppKey, kind | JoinNonce | NetID | DevNonce | 0…), all integers
// little endian.
func (d *Device) derive(kind byte, p *lorawan.JoinAcceptPayload) lorawan.AES128Key {
	var in, out lorawan.AES128Key
	in[0] = kind
	in[1], in[2], in[3] = byte(p.JoinNonce), byte(p.JoinNonce>>8), byte(p.JoinNonce>>16)
	in[4], in[5], in[6] = p.HomeNetID[2], p.HomeNetID[1], p.HomeNetID[0]
	binary.LittleEndian.PutUint16(in[7:], d.devNonce)
	block, err := aes.NewCipher(d.cfg.AppKey[:])
	if err != nil {
		panic("fleet: internal error: " + err.Error()) // the key has 16 bytes
	}
	block.Encrypt(out[:], in[:])
	return out
}

// unicast takes a downlink of the session.
func (d *Device) unicast(f radio.Frame, sig radio.Signal, phy lorawan.PHYPayload) {
	ses := d.session
	mac, ok := phy.MACPayload.(*lorawan.MACPayload)
	if !ok {
		return
	}
	full, fresh := nextCounter(ses.fCntDown, uint16(mac.FHDR.FCnt))
	mac.FHDR.FCnt = full
	if valid, err := phy.ValidateDownlinkDataMIC(lorawan.LoRaWAN1_0, 0, ses.nwkSKey); err != nil || !valid || !fresh {
		return
	}
	ses.fCntDown = full + 1
	d.count(func(s *Stats) { s.Downlinks++ })
	d.ackNext = d.ackNext || phy.MHDR.MType == lorawan.ConfirmedDataDown
	d.pullNext = mac.FHDR.FCtrl.FPending
	d.heard(f)
	d.arrived()
	limit := d.limit
	d.command(plain(mac.FHDR.FOpts), sig.SNR)
	switch {
	case mac.FPort != nil && *mac.FPort == 0:
		if data, err := decrypt(phy, mac, ses.nwkSKey); err == nil {
			d.command(data, sig.SNR)
		}
	case mac.FPort != nil:
		if data, err := decrypt(phy, mac, ses.appSKey); err == nil {
			d.down(airtime.GPS(d.f.cfg.World.Now()), *mac.FPort, modem.Unicast, data)
		}
	}
	if d.limit != limit {
		d.link()
	}
	d.kick()
}

// nextCounter completes 16 bits of a frame counter, where next is the lowest that is not yet used; fresh is
// false for a counter that was.
func nextCounter(next uint32, low uint16) (full uint32, fresh bool) {
	ahead := low - uint16(next)
	if ahead < 0x8000 {
		return next + uint32(ahead), true
	}
	return next - uint32(-ahead), false
}

func decrypt(phy lorawan.PHYPayload, mac *lorawan.MACPayload, key lorawan.AES128Key) ([]byte, error) {
	if err := phy.DecryptFRMPayload(key); err != nil {
		return nil, err
	}
	return plain(mac.FRMPayload), nil
}

// plain is the text of a payload, of MAC commands too.
func plain(list []lorawan.Payload) (out []byte) {
	for _, p := range list {
		if text, err := p.MarshalBinary(); err == nil {
			out = append(out, text...)
		}
	}
	return out
}
