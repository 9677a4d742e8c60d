package fleet

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/radio"
)

// MAC commands (TS001-1.0.4, section 5): what a network server asks of a device, and what the device answers in FOpts of
// its next uplink. The device obeys what it accepts. It does no ADR and says so in each frame; of LinkADRReq it takes the
// channel mask, and keeps its data rate, power and number of transmissions, as LoRaMac-node does with ADR off. It refuses
// the channel of ping slots and the frequency of beacons, since it has no ping slots of its own, and what package radio
// does not model. Commands that a region does not have are dropped in silence, as the specification wants it.

// Commands of a network server.
const (
	linkCheckAns       = 0x02
	linkADRReq         = 0x03
	dutyCycleReq       = 0x04
	rxParamSetupReq    = 0x05
	devStatusReq       = 0x06
	newChannelReq      = 0x07
	rxTimingSetupReq   = 0x08
	txParamSetupReq    = 0x09
	dlChannelReq       = 0x0a
	deviceTimeAns      = 0x0d
	pingSlotInfoAns    = 0x10
	pingSlotChannelReq = 0x11
	beaconFreqReq      = 0x13
)

// requestSizes are the bytes behind each of them.
var requestSizes = map[byte]int{
	linkCheckAns: 2, linkADRReq: 4, dutyCycleReq: 1, rxParamSetupReq: 4, devStatusReq: 0, newChannelReq: 5, rxTimingSetupReq: 1,
	txParamSetupReq: 1, dlChannelReq: 4, deviceTimeAns: 5, pingSlotInfoAns: 0, pingSlotChannelReq: 4, beaconFreqReq: 3,
}

// maxFOpts is the room for answers in a frame.
const maxFOpts = 15

// answer is an answer to a MAC command, which has the number of its request.
type answer struct {
	bytes  []byte
	sticky bool // goes with every uplink until a downlink shows that one has arrived
	sent   bool
}

// settings are what MAC commands and the join accept set of a session. The zero value is not usable: see newSettings.
type settings struct {
	rx1Delay     time.Duration
	rx1Offset    int
	rx2Frequency uint32
	rx2DataRate  int
	channels     []channel // nil: those of the plan
	pause        int       // after each transmission, in times its length
}

// channel is an uplink channel of a device.
type channel struct {
	radio.UplinkChannel // Frequency 0: none
	off                 bool
	rx1                 uint32 // Hz; 0: as the plan has it
}

// newSettings are those of a join accept for a device that sends at a data rate.
func newSettings(p *radio.Plan, a *lorawan.JoinAcceptPayload, dr int) settings {
	s := settings{rx1Delay: time.Duration(max(a.RXDelay, 1)) * time.Second}
	s.rx2Frequency, s.rx2DataRate = p.Region.RX2()
	if offset, rx2 := int(a.DLSettings.RX1DROffset), int(a.DLSettings.RX2DataRate); s.receives(p, offset, s.rx2Frequency, rx2) == 0b111 {
		s.rx1Offset, s.rx2DataRate = offset, rx2
	}
	if a.CFList == nil {
		return s
	}
	list := s.list(p)
	switch c := a.CFList.Payload.(type) {
	case *lorawan.CFListChannelPayload: // behind the default channels
		for _, f := range c.Channels {
			if !p.Fixed() && inBand(p, f) {
				list = append(list, channel{UplinkChannel: radio.UplinkChannel{Frequency: f, MaxDR: 5}})
			}
		}
	case *lorawan.CFListChannelMaskPayload:
		for i, m := range c.ChannelMasks {
			if bits, err := m.MarshalBinary(); err != nil || !p.Fixed() || i > 4 || !mask(list, true, binary.LittleEndian.Uint16(bits), byte(i)) {
				return s
			}
		}
	}
	if len(usable(list, dr)) > 0 {
		s.channels = list
	}
	return s
}

// receives says which of the settings of the windows are possible, as RXParamSetupAns does.
func (*settings) receives(p *radio.Plan, offset int, frequency uint32, dr int) (status byte) {
	if inBand(p, frequency) {
		status |= 1
	}
	if rate, err := p.Region.DataRate(dr); err == nil && rate.Downlink {
		status |= 2
	}
	if offset <= p.MaxRX1Offset() {
		status |= 4
	}
	return status
}

func inBand(p *radio.Plan, frequency uint32) bool {
	_, err := p.Region.SubBand(frequency)
	return err == nil
}

// list returns the channels so that they can be changed.
func (s *settings) list(p *radio.Plan) []channel {
	if s.channels != nil {
		return slices.Clone(s.channels)
	}
	var out []channel
	for _, c := range p.Uplinks() {
		out = append(out, channel{UplinkChannel: c})
	}
	return out
}

// uplink picks a channel as [radio.Plan.Uplink] does.
func (s *settings) uplink(p *radio.Plan, dr int, bits uint64) (frequency uint32, err error) {
	if usable := usable(s.channels, dr); len(usable) > 0 {
		return usable[bits%uint64(len(usable))], nil
	}
	return p.Uplink(dr, bits)
}

// usable lists the frequencies on which a device may send at a data rate.
func usable(list []channel, dr int) (out []uint32) {
	for _, c := range list {
		if c.Frequency != 0 && !c.off && c.Takes(dr) {
			out = append(out, c.Frequency)
		}
	}
	return out
}

// rx1 is the first window after an uplink.
func (s *settings) rx1(p *radio.Plan, frequency uint32, dr int) (uint32, int) {
	f, _ := p.RX1(frequency, dr)
	for _, c := range s.channels {
		if c.Frequency == frequency && c.rx1 != 0 {
			f = c.rx1
		}
	}
	return f, p.RX1Rate(dr, s.rx1Offset)
}

// command carries out the MAC commands of a downlink that was received with that SNR in dB.
func (d *Device) command(list []byte, snr float32) {
	for len(list) > 0 {
		cid := list[0]
		n, known := requestSizes[cid]
		if !known || len(list) < 1+n {
			return // and what follows cannot be told apart
		}
		p := list[1 : 1+n]
		list = list[1+n:]
		switch cid {
		case linkADRReq:
			block := [][]byte{p}
			for len(list) >= 1+n && list[0] == linkADRReq { // of one will: all or none
				block = append(block, list[1:1+n])
				list = list[1+n:]
			}
			status := d.maskChannels(block)
			for range block {
				d.reply(cid, false, status)
			}
		case dutyCycleReq:
			d.session.pause = 1<<(p[0]&0x0f) - 1
			d.reply(cid, false)
		case rxParamSetupReq:
			d.reply(cid, true, d.setWindows(p))
		case devStatusReq:
			d.reply(cid, false, d.battery(), byte(min(max(int(math.Round(float64(snr))), -32), 31))&0x3f)
		case newChannelReq:
			if !d.plan().Fixed() {
				d.reply(cid, false, d.setChannel(p))
			}
		case rxTimingSetupReq:
			d.session.rx1Delay = time.Duration(max(p[0]&0x0f, 1)) * time.Second
			d.reply(cid, true)
		case txParamSetupReq:
			if r := d.plan().Region; (r == airtime.AS923 || r == airtime.AU915) && d.limitDwell(p[0]&0x10 != 0) {
				d.reply(cid, true)
			}
		case dlChannelReq:
			if !d.plan().Fixed() {
				d.reply(cid, true, d.setDownlink(p))
			}
		case pingSlotChannelReq, beaconFreqReq:
			d.reply(cid, false, 0)
		}
	}
}

func (d *Device) plan() *radio.Plan { return d.f.cfg.Medium.Plan() }

func (d *Device) reply(cid byte, sticky bool, payload ...byte) {
	d.answers = append(d.answers, answer{bytes: append([]byte{cid}, payload...), sticky: sticky})
}

// battery is the level as DevStatusAns says it: 1..254, 255 if it is not known.
func (d *Device) battery() byte {
	if d.cfg.Battery == 0 {
		return 255
	}
	return byte((int(d.cfg.Battery)*254 + 50) / 100)
}

// maskChannels carries out a block of LinkADRReq.
func (d *Device) maskChannels(block [][]byte) (status byte) {
	const kept = 0b110 // data rate and power, which a device without ADR does not change
	list := d.session.list(d.plan())
	for _, p := range block {
		if !mask(list, d.plan().Fixed(), binary.LittleEndian.Uint16(p[1:]), p[3]>>4&7) {
			return kept
		}
	}
	if len(usable(list, d.cfg.DataRate)) == 0 {
		return kept
	}
	d.session.channels = list
	return kept | 1
}

// mask applies one channel mask. It refuses one that switches on what does not exist, and controls that are reserved.
func mask(list []channel, fixed bool, bits uint16, control byte) bool {
	set := func(i int, on bool) bool {
		if i >= len(list) || list[i].Frequency == 0 {
			return !on
		}
		list[i].off = !on
		return true
	}
	const narrow = 64 // channels of 125 kHz in a fixed plan, before those of 500 kHz
	ok := true
	switch {
	case control == 0 || fixed && control <= 4:
		for i := range 16 {
			ok = set(int(control)*16+i, bits>>i&1 != 0) && ok
		}
	case !fixed && control == 6:
		for i := range list {
			set(i, true)
		}
	case fixed && control == 5: // banks of eight, each with a channel of 500 kHz
		for i := range narrow {
			set(i, bits>>(i/8)&1 != 0)
		}
		for i := range 8 {
			set(narrow+i, bits>>i&1 != 0)
		}
	case fixed && control >= 6:
		for i := range narrow {
			set(i, control == 6)
		}
		for i := range 8 {
			set(narrow+i, bits>>i&1 != 0)
		}
	default:
		return false
	}
	return ok
}

// setWindows carries out RXParamSetupReq.
func (d *Device) setWindows(p []byte) (status byte) {
	s := &d.session.settings
	offset, dr, frequency := int(p[0]>>4&7), int(p[0]&0x0f), hertz(p[1:])
	if status = s.receives(d.plan(), offset, frequency, dr); status == 0b111 {
		s.rx1Offset, s.rx2DataRate, s.rx2Frequency = offset, dr, frequency
	}
	return status
}

// setChannel carries out NewChannelReq. The default channels of a region cannot be changed.
func (d *Device) setChannel(p []byte) (status byte) {
	const most = 16
	i, frequency := int(p[0]), hertz(p[1:])
	c := channel{UplinkChannel: radio.UplinkChannel{Frequency: frequency, MinDR: int(p[4] & 0x0f), MaxDR: int(p[4] >> 4)}}
	if i < len(d.plan().Uplinks()) || i >= most {
		return 0
	}
	if frequency == 0 || inBand(d.plan(), frequency) {
		status |= 1
	}
	status |= 2
	for dr := c.MinDR; dr <= c.MaxDR; dr++ {
		if rate, err := d.plan().Region.DataRate(dr); err != nil || !rate.Uplink {
			status &^= 2
		}
	}
	if c.MinDR > c.MaxDR {
		status &^= 2
	}
	if status != 0b11 {
		return status
	}
	list := d.session.list(d.plan())
	for len(list) <= i {
		list = append(list, channel{})
	}
	list[i] = c
	d.session.channels = list
	return status
}

// setDownlink carries out DlChannelReq.
func (d *Device) setDownlink(p []byte) (status byte) {
	i, frequency := int(p[0]), hertz(p[1:])
	list := d.session.list(d.plan())
	if inBand(d.plan(), frequency) {
		status |= 1
	}
	if i < len(list) && list[i].Frequency != 0 {
		status |= 2
	}
	if status == 0b11 {
		list[i].rx1 = frequency
		d.session.channels = list
	}
	return status
}

// limitDwell carries out the limit on uplinks of TXParamSetupReq: the device sends faster if it must.
func (d *Device) limitDwell(on bool) bool {
	for dr := d.cfg.DataRate; dr < 16; dr++ {
		n, err := d.plan().Region.MaxPayload(dr, airtime.Link{Direction: airtime.Uplink, DwellTime: on, RP002: true})
		if _, none := d.plan().Uplink(dr, 0); err != nil || none != nil {
			continue
		}
		d.limit, d.cfg.DataRate = n, dr
		return true
	}
	return false
}

// hertz reads a frequency, 24 bits in steps of 100 Hz.
func hertz(p []byte) uint32 {
	return (uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16) * 100
}

// arrived forgets the answers that went with earlier uplinks, now that a downlink of class A has come.
func (d *Device) arrived() {
	d.answers = slices.DeleteFunc(d.answers, func(a answer) bool { return a.sent })
}

// fOpts takes the answers for a frame with a payload of so many bytes, in order and as many as there is room for. Answers
// that have not gone yet go before the payload: alone says that it has to wait for the next frame.
func (d *Device) fOpts(payload int) (out []byte, alone bool) {
	fresh := 0
	for _, a := range d.answers {
		if !a.sent {
			fresh += len(a.bytes)
		}
	}
	room := maxFOpts
	if alone = payload+min(fresh, maxFOpts) > d.limit; !alone {
		room = min(room, d.limit-payload)
	}
	for i := range d.answers {
		a := &d.answers[i]
		if len(out)+len(a.bytes) > room {
			break
		}
		out = append(out, a.bytes...)
		a.sent = true
	}
	d.answers = slices.DeleteFunc(d.answers, func(a answer) bool { return a.sent && !a.sticky })
	return out, alone
}
