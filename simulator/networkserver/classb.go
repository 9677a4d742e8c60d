package networkserver

import (
	"encoding/binary"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/common"

	"github.com/sower-fuota/sower/airtime"
)

// Unicast of class B. A device whose profile has it is in class B from an uplink with the class B bit until one without.
// Meanwhile its queue is sent in its ping slots, without waiting for an uplink, and in answer to uplinks too. The slots are
// those of PingSlotInfoReq; until the device accepts PingSlotChannelReq, which goes with every answer, they are at DR0 on
// the default frequency.

// pingAdvance is how long before a slot its frame may be handed to the gateway.
const pingAdvance = 5 * time.Second

// pingSlots is what the session of a device says of them. The zero value has none.
type pingSlots struct {
	told        bool
	periodicity uint8
	set         bool // the device has accepted PingSlotChannelReq
	refused     int
}

// setClass takes the class B bit of an uplink.
func (d *device) setClass(locked bool) {
	if d.profile.ClassB {
		d.classB = locked
	}
}

// class is the class that the device is in.
func (d *device) class() common.DeviceClass {
	if d.classB {
		return common.DeviceClass_CLASS_B
	}
	return common.DeviceClass_CLASS_A
}

// answered takes the device's answer to PingSlotChannelReq.
func (p *pingSlots) answered(ans *lorawan.PingSlotChannelAnsPayload) {
	if ans.ChannelFrequencyOK && ans.DataRateOK {
		p.set, p.refused = true, 0
	} else {
		p.refused++
	}
}

// armPing makes the scheduler look at the queue of a device in class B as soon as something can be due. It is called
// whenever that may have changed.
func (s *Server) armPing(d *device) {
	if d.pinging != nil {
		d.pinging.Cancel()
		d.pinging = nil
	}
	if !d.classB || d.Disabled || len(d.queue) == 0 || !d.session.ping.told || s.byEUI[d.EUI] != d {
		return
	}
	now := s.world.Now()
	due := now
	if d.pingAfter.After(due) {
		due = d.pingAfter
	}
	if d.pending() && d.queue[0].timeout.After(due) {
		due = d.queue[0].timeout
	}
	i := s.cfg.SchedulerInterval
	t := s.created.Add((due.Sub(s.created) + i - 1) / i * i)
	if !t.After(now) {
		t = t.Add(i)
	}
	d.pinging = s.at(t, "class B scheduler", func() {
		d.pinging = nil
		s.pingSlot(d)
		s.armPing(d)
	})
}

// pingSlot hands the next item to a gateway if a ping slot is near.
func (s *Server) pingSlot(d *device) {
	now, ses := s.world.Now(), d.session
	plan := s.planOf(d.profile.Region)
	addr := binary.BigEndian.Uint32(ses.addr[:])
	slot := airtime.NextPingSlot(addr, airtime.GPS(now)+time.Second, ses.ping.periodicity)
	at := airtime.UTC(slot)
	if wait := at.Sub(now); wait > pingAdvance {
		d.pingAfter = now.Add(wait - pingAdvance)
		return
	}
	d.pingAfter = at
	frequency, dr := plan.Region.PingSlotDefault(addr, slot)
	if !ses.ping.set {
		dr = 0
	}
	limit, err := plan.MaxPayload(dr, airtime.Downlink)
	if err != nil || len(d.heardBy) == 0 || s.gatewayByID(d.heardBy[0]) == nil {
		return
	}
	item := s.nextItem(d, "", limit)
	if item == nil {
		return
	}
	f := dataDown{item: item, fCnt: ses.fCntDown, more: len(d.queue) > 1}
	payload, err := f.encode(ses)
	if err != nil {
		s.log.Error("downlink", "device", d.EUI, "err", err)
		return
	}
	item.fCntDown = f.fCnt
	s.offer(d, item, f.fCnt, &downlink{gateway: s.gatewayByID(d.heardBy[0]), context: d.context,
		items: []downlinkItem{{payload: payload, frequency: frequency, dataRate: dr, at: at, power: power(plan, 0)}}}, []bool{true}) // the power is chosen before the frequency
	if item.confirmed {
		item.timeout = at.Add(d.profile.ClassBTimeout)
	}
}
