package networkserver

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/radio"
)

// group is a multicast group with its queue. conf holds what the API gave, the next frame counter included.
type group struct {
	conf     *api.MulticastGroup
	addr     lorawan.DevAddr
	nwkSKey  lorawan.AES128Key
	appSKey  lorawan.AES128Key
	devices  map[lorawan.EUI64]bool
	gateways []lorawan.EUI64 // ordered
	queue    []*groupItem
	created  *timestamppb.Timestamp
	updated  *timestamppb.Timestamp
}

// groupItem is one frame for one gateway.
type groupItem struct {
	gateway  lorawan.EUI64
	fCnt     uint32
	copy     uint32 // among the rows of one frame counter
	fPort    uint8
	data     []byte
	expires  time.Time // zero: never
	runAfter time.Time
	emitAt   time.Time // of GPS_TIME
}

// enqueue adds one row per gateway and consumes a frame counter, also when there is no gateway at all.
func (s *Server) enqueue(g *group, fPort uint8, data []byte, expires time.Time) uint32 {
	now := s.world.Now()
	due := now
	for _, item := range g.queue {
		if t := item.runAfter.Add(s.cfg.ClassCMargin); t.After(due) {
			due = t
		}
	}
	fCnt := g.conf.FCnt
	g.conf.FCnt++
	for i, id := range s.groupGateways(g) {
		item := &groupItem{gateway: id, fCnt: fCnt, copy: uint32(i), fPort: fPort, data: data, expires: expires}
		if g.conf.ClassCSchedulingType == api.MulticastGroupSchedulingType_GPS_TIME {
			// All gateways at one instant, which the scheduler reaches at best when it has come.
			item.runAfter = due.Add(s.cfg.ClassCMargin)
			item.emitAt = item.runAfter
		} else {
			item.runAfter = due.Add(time.Duration(i) * s.cfg.ClassCMargin)
		}
		g.queue = append(g.queue, item)
	}
	s.arm()
	return fCnt
}

// groupGateways are the pinned gateways or, without any, a set that covers the members by what each one's last
// uplink was heard by. Members that were never heard are not covered.
func (s *Server) groupGateways(g *group) []lorawan.EUI64 {
	if len(g.gateways) > 0 {
		return g.gateways
	}
	uncovered := map[lorawan.EUI64][]lorawan.EUI64{}
	for eui := range g.devices {
		if d := s.byEUI[eui]; d.session != nil && len(d.heardBy) > 0 {
			uncovered[eui] = d.heardBy
		}
	}
	var chosen []lorawan.EUI64
	for len(uncovered) > 0 {
		count := map[lorawan.EUI64]int{}
		for _, by := range uncovered {
			for _, id := range by {
				count[id]++
			}
		}
		var best lorawan.EUI64
		for _, gw := range s.gateways {
			if count[gw.ID] > count[best] {
				best = gw.ID
			}
		}
		chosen = append(chosen, best)
		for eui, by := range uncovered {
			for _, id := range by {
				if id == best {
					delete(uncovered, eui)
					break
				}
			}
		}
	}
	return chosen
}

// arm makes the scheduler run at the first tick at which an item is due. Ticks lie on a grid that begins
// with the server; there is none while all queues are empty, so that a world with nothing to do comes to rest.
func (s *Server) arm() {
	var due time.Time
	for _, g := range s.groups {
		for _, item := range g.queue {
			if due.IsZero() || item.runAfter.Before(due) {
				due = item.runAfter
			}
		}
	}
	if s.schedule != nil {
		s.schedule.Cancel()
		s.schedule = nil
	}
	if due.IsZero() {
		return
	}
	if now := s.world.Now(); due.Before(now) {
		due = now
	}
	i := s.cfg.SchedulerInterval
	ticks := (due.Sub(s.created) + i - 1) / i
	if t := s.created.Add(ticks * i); t.Equal(s.lastTick) {
		ticks++
	}
	s.schedule = s.at(s.created.Add(ticks*i), "multicast scheduler", s.tick)
}

// tick sends what is due. An item that fails stays for SchedulerLock and is tried again.
func (s *Server) tick() {
	const batch = 100
	now := s.world.Now()
	s.lastTick = now
	type picked struct {
		g    *group
		item *groupItem
	}
	var due []picked
	for _, g := range s.groups {
		for _, item := range g.queue {
			if len(due) < batch && !item.runAfter.After(now) {
				due = append(due, picked{g, item})
			}
		}
	}
	for _, p := range due {
		p.item.runAfter = now.Add(s.cfg.SchedulerLock)
		if err := s.send(p.g, p.item); errors.Is(err, airtime.ErrDataRate) {
			s.log.Error("multicast frame", "group", p.g.conf.Id, "f_cnt", p.item.fCnt, "err", err)
			continue
		} else if err != nil {
			s.log.Warn("multicast frame dropped", "group", p.g.conf.Id, "f_cnt", p.item.fCnt, "err", err)
		}
		p.g.queue = slices.DeleteFunc(p.g.queue, func(item *groupItem) bool { return item == p.item })
	}
	s.arm()
}

// send hands one frame to its gateway. After any error but an unknown data rate the item is gone for good, and
// no client is told.
func (s *Server) send(g *group, item *groupItem) error {
	now := s.world.Now()
	if !item.expires.IsZero() && !now.Before(item.expires) {
		return fmt.Errorf("expired at %s", item.expires.Format(time.RFC3339))
	}
	limit, err := s.plan.MaxPayload(int(g.conf.Dr), airtime.Downlink)
	if err != nil {
		return err
	}
	if len(item.data) > limit {
		return fmt.Errorf("%d bytes exceed %d of DR%d", len(item.data), limit, g.conf.Dr)
	}
	payload, err := encode(lorawan.PHYPayload{
		MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataDown, Major: lorawan.LoRaWANR1},
		MACPayload: &lorawan.MACPayload{
			FHDR:       lorawan.FHDR{DevAddr: g.addr, FCnt: item.fCnt},
			FPort:      &item.fPort,
			FRMPayload: []lorawan.Payload{&lorawan.DataPayload{Bytes: append([]byte(nil), item.data...)}},
		},
	}, g.appSKey, g.nwkSKey)
	if err != nil {
		return err
	}
	gateway := s.gatewayByID(item.gateway)
	s.downlinks++
	frame := radio.Frame{Payload: payload, Frequency: g.conf.Frequency, DataRate: int(g.conf.Dr), Copy: item.copy}
	if item.emitAt.IsZero() {
		_, err = gateway.radio.TransmitSoon(frame)
		return err
	}
	if !item.emitAt.After(now) { // a gateway needs the frame before its time
		return radio.ErrTooLate
	}
	return gateway.radio.Transmit(frame, item.emitAt)
}

// counters lists the frame counters in the queue once each, in order of creation.
func (g *group) counters() []*groupItem {
	var out []*groupItem
	for _, item := range g.queue {
		if len(out) == 0 || out[len(out)-1].fCnt != item.fCnt {
			out = append(out, item)
		}
	}
	return out
}

func (g *group) pin(id lorawan.EUI64) {
	g.gateways = append(g.gateways, id)
	sort.Slice(g.gateways, func(i, j int) bool { return g.gateways[i].String() < g.gateways[j].String() })
}
