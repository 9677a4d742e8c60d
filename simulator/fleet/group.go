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
func (d *Device) multicast(phy lorawan.PHYPayload) {
	mac, ok := phy.MACPayload.(*lorawan.MACPayload)
	if !ok || phy.MHDR.MType != lorawan.UnconfirmedDataDown || mac.FPort == nil || *mac.FPort == 0 {
		return
	}
	addr := binary.BigEndian.Uint32(mac.FHDR.DevAddr[:])
	for _, g := range d.groups {
		if g == nil || g.Addr != addr {
			continue
		}
		full, fresh := nextCounter(g.next, uint16(mac.FHDR.FCnt))
		mac.FHDR.FCnt = full
		valid, err := phy.ValidateDownlinkDataMIC(lorawan.LoRaWAN1_0, 0, g.NwkSKey)
		if err != nil || !valid || !fresh || full < g.MinFCnt || full >= g.MaxFCnt {
			d.count(func(s *Stats) { s.MulticastsRefused++ })
			continue
		}
		g.next = full + 1
		data, err := decrypt(phy, mac, g.AppSKey)
		if err != nil {
			return
		}
		d.count(func(s *Stats) { s.Multicasts++ })
		d.turn(modem.Down{Time: d.now(), Port: *mac.FPort, Group: g.ID, Data: data})
		d.kick()
		return
	}
}
