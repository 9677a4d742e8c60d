package networkserver

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/airtime"
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
	row      uint64 // counts the rows of all groups
	gateway  lorawan.EUI64
	fCnt     uint32
	copy     uint32 // among the rows of one frame counter
	sent     uint32 // how often
	fPort    uint8
	data     []byte
	expires  time.Time // zero: never
	runAfter time.Time
	emitAt   time.Time // of class B and GPS_TIME
}

// enqueue adds one row per gateway and consumes a frame counter, also when there is no gateway at all. After an
// error nothing has changed.
func (s *Server) enqueue(g *group, fPort uint8, data []byte, expires time.Time) (uint32, error) {
	now := s.world.Now()
	gateways, err := s.groupGateways(g)
	if err != nil {
		return 0, err
	}
	var last, lastEmit time.Time
	for _, item := range g.queue {
		if item.runAfter.After(last) {
			last = item.runAfter
		}
		if item.emitAt.After(lastEmit) {
			lastEmit = item.emitAt
		}
	}
	margin := time.Duration(0) // between two gateways
	var due, emit time.Time
	switch {
	case g.conf.GroupType == api.MulticastGroupType_CLASS_B:
		if g.conf.ClassBPingSlotPeriodicity > 7 {
			return 0, status.Error(codes.Internal, "attempt to subtract with overflow")
		}
		if lastEmit.IsZero() {
			lastEmit = now.Add(s.cfg.ClassBMargin)
		}
		addr := binary.BigEndian.Uint32(g.addr[:])
		emit = airtime.UTC(airtime.NextPingSlot(addr, airtime.GPS(lastEmit)+1, uint8(g.conf.ClassBPingSlotPeriodicity)))
		due = emit.Add(-2 * s.cfg.SchedulerInterval)
	default:
		due = now
		if !last.IsZero() {
			due = last.Add(s.cfg.ClassCMargin)
		}
		margin = s.cfg.ClassCMargin
		if g.conf.ClassCSchedulingType == api.MulticastGroupSchedulingType_GPS_TIME {
			// All gateways at one instant, which the scheduler reaches at best when it has come.
			due, margin = due.Add(margin), 0
			emit = due
		}
	}
	fCnt := g.conf.FCnt
	g.conf.FCnt++
	for i, id := range gateways {
		s.rows++
		g.queue = append(g.queue, &groupItem{
			row: s.rows, gateway: id, fCnt: fCnt, copy: uint32(i), fPort: fPort, data: data, expires: expires,
			runAfter: due.Add(time.Duration(i) * margin), emitAt: emit,
		})
	}
	s.arm()
	return fCnt, nil
}

// groupGateways are the pinned gateways or, without any, for each member that was ever heard the one of those
// that heard its last uplink which heard most members; between equals, and for the order, the dice fall anew at
// each call. It fails if one of them has been deleted since.
func (s *Server) groupGateways(g *group) ([]lorawan.EUI64, error) {
	if len(g.gateways) > 0 {
		return g.gateways, nil
	}
	heard := map[lorawan.EUI64]int{}
	for eui := range g.devices {
		for _, id := range s.byEUI[eui].heardBy {
			heard[id]++
		}
	}
	dice := func(id lorawan.EUI64) uint64 {
		return s.hash(chanceGateways, uint64(binary.BigEndian.Uint32(g.addr[:]))<<32|uint64(g.conf.FCnt), binary.BigEndian.Uint64(id[:]))
	}
	chosen := map[lorawan.EUI64]bool{}
	for eui := range g.devices {
		var best lorawan.EUI64
		for _, id := range s.byEUI[eui].heardBy {
			if heard[id] > heard[best] || heard[id] == heard[best] && dice(id) < dice(best) {
				best = id
			}
		}
		if heard[best] > 0 {
			chosen[best] = true
		}
	}
	ids := slices.SortedFunc(maps.Keys(chosen), func(a, b lorawan.EUI64) int { return cmp.Compare(dice(a), dice(b)) })
	for _, id := range ids {
		if s.gatewayByID(id) == nil {
			return nil, s.errForeignKey("multicast_group_queue_item")
		}
	}
	return ids, nil
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
	if due.IsZero() || s.down {
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

// tick dispatches what is due, oldest first in batches, and each batch all at once: in no order. An item stays
// until a gateway has acknowledged it; until then it is dispatched again whenever SchedulerLock is over.
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
			if !item.runAfter.After(now) && s.schedulable(item, now) {
				due = append(due, picked{g, item})
			}
		}
	}
	slices.SortFunc(due, func(a, b picked) int { return cmp.Compare(a.item.row, b.item.row) })
	due = due[:min(len(due), batch)]
	slices.SortFunc(due, func(a, b picked) int {
		dice := func(p picked) uint64 { return s.hash(chanceDispatch, uint64(now.UnixNano()), p.item.row) }
		return cmp.Compare(dice(a), dice(b))
	})
	for _, p := range due {
		p.item.runAfter = now.Add(s.cfg.SchedulerLock)
		if err := s.dispatch(p.g, p.item); errors.Is(err, errStays) {
			s.log.Error("multicast frame", "group", p.g.conf.Id, "f_cnt", p.item.fCnt, "err", err)
		} else if err != nil {
			s.log.Warn("multicast frame dropped", "group", p.g.conf.Id, "f_cnt", p.item.fCnt, "err", err)
			p.g.drop(p.item)
		}
	}
	s.arm()
}

// schedulable says whether the query of the scheduler finds an item that is due.
func (s *Server) schedulable(item *groupItem, now time.Time) bool {
	if s.cfg.Database == SQLite || !item.expires.IsZero() && now.After(item.expires) {
		return true
	}
	return s.state(s.gatewayByID(item.gateway)) == api.GatewayState_ONLINE
}

// errStays marks an error after which the item is tried again, for ever.
var errStays = errors.New("tried again")

// dispatch hands one frame to its gateway. After any error but [errStays] the item is gone for good, and no
// client is told.
func (s *Server) dispatch(g *group, item *groupItem) error {
	now := s.world.Now()
	gateway := s.gatewayByID(item.gateway)
	if !gateway.inRegion {
		return fmt.Errorf("%w: gateway %s has no region_config_id", errStays, item.gateway)
	}
	if !item.expires.IsZero() && now.After(item.expires) {
		return fmt.Errorf("expired at %s", item.expires.Format(time.RFC3339))
	}
	limit, err := gateway.plan.MaxPayload(int(g.conf.Dr), airtime.Downlink)
	if err != nil {
		return fmt.Errorf("%w: %w", errStays, err)
	}
	if len(item.data) > limit {
		return fmt.Errorf("%d bytes exceed %d of DR%d", len(item.data), limit, g.conf.Dr)
	}
	payload, err := encode(lorawan.PHYPayload{
		MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataDown, Major: lorawan.LoRaWANR1},
		MACPayload: &lorawan.MACPayload{
			FHDR:       lorawan.FHDR{DevAddr: g.addr, FCnt: item.fCnt},
			FPort:      &item.fPort,
			FRMPayload: []lorawan.Payload{&lorawan.DataPayload{Bytes: slices.Clone(item.data)}},
		},
	}, g.appSKey, g.nwkSKey)
	if err != nil {
		return fmt.Errorf("%w: %w", errStays, err)
	}
	item.sent++
	d := &downlink{
		gateway: gateway, multicast: true,
		items: []downlinkItem{{payload: payload, frequency: g.conf.Frequency, dataRate: int(g.conf.Dr), power: power(gateway.plan, g.conf.Frequency), copy: item.copy + (item.sent-1)<<8, at: item.emitAt}},
	}
	d.acked = func(st gw.TxAckStatus, _ int) { // whatever it says
		if st != gw.TxAckStatus_OK {
			s.log.Warn("multicast frame refused", "group", g.conf.Id, "f_cnt", item.fCnt, "status", st)
		}
		s.overhear(d, "event/ack", &gw.DownlinkTxAck{GatewayId: gateway.ID.String(), DownlinkId: d.id, Items: []*gw.DownlinkTxAckItem{{Status: st}}})
		g.drop(item)
		s.arm()
	}
	s.hand(d)
	s.overhear(d, "command/down", &gw.DownlinkFrame{DownlinkId: d.id, GatewayId: gateway.ID.String(),
		Items: []*gw.DownlinkFrameItem{{PhyPayload: payload, TxInfo: txInfo(gateway.plan, d.items[0], nil)}}})
	return nil
}

// overhear publishes what passes between the server and a gateway on the simulated radio about a multicast frame,
// as who reads the topics of the gateway backend would see it. Gateways that attach by MQTT really say it.
func (s *Server) overhear(d *downlink, kind string, m proto.Message) {
	if d.gateway.radio == nil {
		return
	}
	payload, err := proto.Marshal(m)
	if err != nil {
		s.log.Error("gateway topic", "err", err)
		return
	}
	s.outbox = append(s.outbox, event{topic: regionID(d.gateway.plan) + "/gateway/" + d.gateway.ID.String() + "/" + kind, raw: payload})
}

// drop takes an item out of the queue; one that is not there any more was flushed.
func (g *group) drop(item *groupItem) {
	g.queue = slices.DeleteFunc(g.queue, func(other *groupItem) bool { return other == item })
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
	slices.SortFunc(g.gateways, func(a, b lorawan.EUI64) int { return bytes.Compare(a[:], b[:]) })
}
