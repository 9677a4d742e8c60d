package fleet

import (
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

// group is a multicast group of the device.
type group struct {
	modem.SetMcGroup
	next    uint32 // lowest counter that is not yet used
	ordinal uint32 // of the address among those that the device has had
}

// setGroup defines or deletes a group. Setting it again unchanged keeps the counter, so that a repeated
// McGroupSetupReq does not open the group to replays.
func (d *Device) setGroup(m modem.SetMcGroup) error {
	if m.ID >= maxGroups {
		return fmt.Errorf("SET_MC_GROUP of group %d, want 0..%d", m.ID, maxGroups-1)
	}
	if !m.Defined {
		d.groups[m.ID] = nil
		d.cancelSession(m.ID)
		return nil
	}
	i := slices.Index(d.members, m.Addr)
	if i < 0 {
		i = len(d.members)
		d.members = append(d.members, m.Addr)
	}
	g := &group{SetMcGroup: m, ordinal: uint32(i), next: m.MinFCnt}
	if old := d.groups[m.ID]; old != nil && old.Addr == m.Addr && old.AppSKey == m.AppSKey && old.NwkSKey == m.NwkSKey {
		g.next = max(g.next, old.next)
	}
	d.groups[m.ID] = g
	return nil
}

// setSession opens the windows of a class B or C session, or cancels it.
func (d *Device) setSession(m modem.Session) error {
	if m.ID >= maxGroups {
		return fmt.Errorf("SESSION of group %d, want 0..%d", m.ID, maxGroups-1)
	}
	d.cancelSession(m.ID)
	if m.Start >= m.End {
		return nil
	}
	if _, err := d.f.cfg.Medium.Plan().MaxPayload(int(m.DR), airtime.Downlink); err != nil {
		return fmt.Errorf("SESSION: %w", err)
	}
	ses := &reception{}
	d.sessions[m.ID] = ses
	from, until := d.instant(m.Start), d.instant(m.End)
	switch m.Class {
	case 'C':
		ses.windows = append(ses.windows, d.station.Listen(radio.Window{
			From: from, Until: until, Frequency: m.Frequency, DataRate: int(m.DR), Priority: priorityClassC,
		}))
	case 'B':
		if m.Periodicity > 7 || d.groups[m.ID] == nil {
			return fmt.Errorf("SESSION of class B with periodicity %d, group defined: %v; want 0..7 and a group", m.Periodicity, d.groups[m.ID] != nil)
		}
		ses.classB = true
		begin := max(airtime.GPS(from), airtime.GPS(d.f.cfg.World.Now()))
		ses.synchronised = begin
		d.pingSlots(ses, m, d.groups[m.ID].Addr, begin, airtime.GPS(until))
	default:
		return fmt.Errorf("SESSION of class %q, want B or C", m.Class)
	}
	return nil
}

// reception is a session that is open: a window of class C, or the ping slots of the present beacon period.
type reception struct {
	windows      []*radio.Window
	next         *world.Event  // the next beacon
	synchronised time.Duration // GPS time of the last beacon heard, or of the start

	classB bool
	frames time.Duration // of class B: longer than their slots were open
	away   time.Duration // of class C: the radio was needed for something else
}

// beaconless is how long a device keeps its ping slots without a beacon.
const beaconless = 2 * time.Hour

// preambleSlack is how many of the 8 symbols of a preamble a receiver can do without.
const preambleSlack = 3

// pingSlots opens the ping slots of one beacon period, from the GPS time on, and comes back with the next beacon. A clock
// that runs fast opens them early, by what it has gained since the last beacon heard.
func (d *Device) pingSlots(r *reception, m modem.Session, addr uint32, from, until time.Duration) {
	d.phases.Session += r.listened(airtime.UTC(from)) // the last period's
	r.windows, r.frames = r.windows[:0], 0
	beacon := airtime.BeaconStart(from)
	if beacon == from {
		d.phases.Beacons += d.f.cfg.Medium.Plan().Region.BeaconTimeOnAir()
		if d.f.cfg.Medium.HearsBeacon(d.cfg.EUI, airtime.UTC(beacon)) {
			r.synchronised = beacon
		} else {
			d.count(func(s *Stats) { s.BeaconsLost++ })
		}
	}
	slack := preambleSlack * d.symbol(int(m.DR))
	next := beacon + airtime.BeaconPeriod
	for slot := airtime.NextPingSlot(addr, from, m.Periodicity); slot < min(next, until); slot = airtime.NextPingSlot(addr, slot+1, m.Periodicity) {
		since := slot - r.synchronised
		if since > beaconless {
			break
		}
		opens, wider := airtime.UTC(slot-drifted(since, d.cfg.Drift)), drifted(since, d.cfg.Tolerance)
		r.windows = append(r.windows, d.station.Listen(radio.Window{
			From: opens.Add(-wider - slack), Until: opens.Add(airtime.PingSlotLength + wider),
			Frequency: m.Frequency, DataRate: int(m.DR), Priority: priorityClassC,
		}))
	}
	r.next = nil
	if next < until {
		r.next = d.f.cfg.World.At(airtime.UTC(next), "beacon", func() { d.pingSlots(r, m, addr, next, until) })
	}
}

func (d *Device) cancelSession(id uint8) {
	r := d.sessions[id]
	if r == nil {
		return
	}
	d.phases.Session += r.listened(d.f.cfg.World.Now())
	for _, w := range r.windows {
		d.station.Close(w)
	}
	if r.next != nil {
		r.next.Cancel()
	}
	d.sessions[id] = nil
}

// multicast takes a frame of a group.
func (d *Device) multicast(f radio.Frame) {
	o := d.f.open(f.Payload)
	if !o.data {
		return
	}
	for _, g := range d.groups {
		if g == nil || g.Addr != o.addr {
			continue
		}
		full, fresh := nextCounter(g.next, o.low)
		v := o.view(g.NwkSKey, g.AppSKey, full)
		if !v.valid || !fresh || full < g.MinFCnt || full >= g.MaxFCnt {
			d.count(func(s *Stats) { s.MulticastsRefused++ })
			continue
		}
		g.next = full + 1
		d.mu.Lock()
		d.stats.Multicasts++
		d.mu.Unlock()
		if r := d.sessions[g.ID]; r != nil {
			r.heardInSlot(f)
		}
		d.down(o.clock(f.End), o.port, g.ID, v.data)
		d.kick()
		return
	}
}

// opened is a multicast frame, parsed once for all devices that receive it.
type opened struct {
	payload []byte // as it was on the air
	phy     lorawan.PHYPayload
	data    bool // an unconfirmed data frame with an FPort above 0
	addr    uint32
	low     uint16 // of the counter
	port    uint8
	views   []view
	end     time.Time // of the transmission for which gps is
	gps     time.Duration
}

// clock is the GPS time of the end of a transmission.
func (o *opened) clock(end time.Time) time.Duration {
	if o.end != end {
		o.end, o.gps = end, airtime.GPS(end)
	}
	return o.gps
}

// view is a frame as the holders of a group's keys see it who expect the same upper half of the counter. Its MIC
// is verified and its payload decrypted once for all of them.
type view struct {
	nwkSKey, appSKey [16]byte
	fCnt             uint32
	valid            bool
	data             []byte // nobody may change it
}

// open parses a frame, or returns what it parsed before: the payload that is delivered to one device after the
// other is the same slice.
func (f *Fleet) open(payload []byte) *opened {
	if o := f.last; o != nil && len(o.payload) == len(payload) && &o.payload[0] == &payload[0] {
		return o
	}
	o := &opened{payload: payload}
	f.last = o
	if err := o.phy.UnmarshalBinary(payload); err != nil {
		return o
	}
	mac, ok := o.phy.MACPayload.(*lorawan.MACPayload)
	if !ok || o.phy.MHDR.MType != lorawan.UnconfirmedDataDown || mac.FPort == nil || *mac.FPort == 0 {
		return o
	}
	o.data = true
	o.addr, o.low, o.port = binary.BigEndian.Uint32(mac.FHDR.DevAddr[:]), uint16(mac.FHDR.FCnt), *mac.FPort
	return o
}

// view verifies and decrypts.
func (o *opened) view(nwkSKey, appSKey [16]byte, fCnt uint32) *view {
	for i := range o.views {
		if v := &o.views[i]; v.fCnt == fCnt && v.nwkSKey == nwkSKey && v.appSKey == appSKey {
			return v
		}
	}
	o.views = append(o.views, view{nwkSKey: nwkSKey, appSKey: appSKey, fCnt: fCnt})
	v := &o.views[len(o.views)-1]
	var phy lorawan.PHYPayload // decryption changes it
	if err := phy.UnmarshalBinary(o.payload); err != nil {
		return v
	}
	mac := phy.MACPayload.(*lorawan.MACPayload)
	mac.FHDR.FCnt = fCnt
	if ok, err := phy.ValidateDownlinkDataMIC(lorawan.LoRaWAN1_0, 0, nwkSKey); err != nil || !ok {
		return v
	}
	var err error
	v.data, err = decrypt(phy, mac, appSKey)
	v.valid = err == nil
	return v
}
