package fleet

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/radio"
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

// setSession opens a class C window, or cancels it.
func (d *Device) setSession(m modem.Session) error {
	if m.ID >= maxGroups {
		return fmt.Errorf("SESSION of group %d, want 0..%d", m.ID, maxGroups-1)
	}
	d.cancelSession(m.ID)
	if m.Start >= m.End {
		return nil
	}
	if m.Class != 'C' {
		return fmt.Errorf("SESSION of class %q, which is not simulated", m.Class)
	}
	if _, err := d.f.cfg.Medium.Plan().MaxPayload(int(m.DR), airtime.Downlink); err != nil {
		return fmt.Errorf("SESSION: %w", err)
	}
	d.sessions[m.ID] = d.station.Listen(radio.Window{
		From: d.instant(m.Start), Until: d.instant(m.End),
		Frequency: m.Frequency, DataRate: int(m.DR), Priority: priorityClassC,
	})
	return nil
}

func (d *Device) cancelSession(id uint8) {
	if w := d.sessions[id]; w != nil {
		d.station.Close(w)
		d.sessions[id] = nil
	}
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
		d.down(o.port, g.ID, v.data)
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
