package networkserver

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sower-fuota/sower/simulator/radio"
)

// Faults are what goes wrong in a run. Whatever is left to chance is drawn from Config.Seed, so that a run with
// the same faults is the same run. Instants count from the start of the server.
type Faults struct {
	Calls    []CallFault // the first that applies to a call decides
	Acks     []AckFault  // likewise to a downlink
	Events   EventFaults
	Outages  []Outage
	Restarts []Restart
	// Observe is called with each call before anything becomes of it, one at a time; nil: never. It is no fault:
	// tests see with it what a client asks for, and what it never does.
	Observe func(method string)
}

// Effect is what happens to a call.
type Effect uint8

// The effects of a [CallFault].
const (
	// Unavailable refuses the call before anything happened.
	Unavailable Effect = iota + 1
	// ReplyLost carries the call out and answers DeadlineExceeded, as a client sees a reply that never came.
	ReplyLost
	// Locked refuses a call that writes with Internal "database is locked", as SQLite does under contention.
	Locked
)

// CallFault disturbs calls of one method.
type CallFault struct {
	Method string  // such as "/api.MulticastGroupService/Enqueue"; empty: every method
	First  int     // the first call that is disturbed, of those that match, from 1; 0: 1
	Count  int     // how many, from First on; 0: all
	Share  float64 // of these, by chance, 0..1; 0: all
	Effect Effect
}

// AckFault disturbs what gateways on the simulated radio say of downlinks.
type AckFault struct {
	Gateway     lorawan.EUI64  // zero: every gateway
	From, Until time.Duration  // [From, Until); Until 0: for ever
	Multicast   bool           // spares everything else
	Share       float64        // of these downlinks, by chance, 0..1; 0: all
	Status      gw.TxAckStatus // other than IGNORED and OK: the gateway refuses the frame with it and sends nothing
	Lost        bool           // the acknowledgement never arrives
	Delay       time.Duration  // the acknowledgement arrives later; after 30 s the server has forgotten the frame
}

// EventFaults disturb what subscribers see.
type EventFaults struct {
	Loss      float64       // share of the events that are never published, 0..1
	Duplicate float64       // share of those published that are published twice, 0..1
	Jitter    time.Duration // each leaves up to this much late, so that they overtake each other
	Newer     bool          // each carries a field that only a newer server knows
}

// Outage cuts a gateway on the simulated radio off: nothing is heard, sent, or reported.
type Outage struct {
	Gateway     lorawan.EUI64
	From, Until time.Duration
}

// Restart ends the server at an instant and starts it again after a while. What is in the database survives;
// frames that wait for their acknowledgement, answers that are due and uplinks that arrive meanwhile do not.
type Restart struct {
	At, Down time.Duration
}

// validate names the field, the value and what it must be.
func (f *Faults) validate() error {
	share := func(field string, v float64) error {
		if !(v >= 0 && v <= 1) {
			return fmt.Errorf("faults: %s is %v, want 0..1", field, v)
		}
		return nil
	}
	for i, c := range f.Calls {
		if err := share(fmt.Sprintf("call %d: Share", i), c.Share); err != nil {
			return err
		}
		if c.Effect < Unavailable || c.Effect > Locked || c.First < 0 || c.Count < 0 {
			return fmt.Errorf("faults: call %d: effect %d, first %d, count %d: want an effect, and counts that are not negative", i, c.Effect, c.First, c.Count)
		}
	}
	for i, a := range f.Acks {
		if err := share(fmt.Sprintf("ack %d: Share", i), a.Share); err != nil {
			return err
		}
		if _, known := gw.TxAckStatus_name[int32(a.Status)]; !known || a.Delay < 0 {
			return fmt.Errorf("faults: ack %d: status %d, delay %s: want a TxAckStatus, and a delay that is not negative", i, a.Status, a.Delay)
		}
	}
	for i, o := range f.Outages {
		if o.From < 0 || o.Until <= o.From {
			return fmt.Errorf("faults: outage %d lasts from %s until %s", i, o.From, o.Until)
		}
	}
	for i, r := range f.Restarts {
		if r.At < 0 || r.Down < 0 {
			return fmt.Errorf("faults: restart %d at %s takes %s, want no negative times", i, r.At, r.Down)
		}
	}
	if err := share("Events.Loss", f.Events.Loss); err != nil {
		return err
	}
	if f.Events.Jitter < 0 {
		return fmt.Errorf("faults: Events.Jitter is %s, want no negative time", f.Events.Jitter)
	}
	return share("Events.Duplicate", f.Events.Duplicate)
}

// The domains of chance, so that no two decisions share their bits.
const (
	chanceCall = 0xfa017<<8 + iota
	chanceAck
	chanceEventLoss
	chanceEventTwice
	chanceEventDelay
	chanceDispatch
	chanceGateways
	chanceOrder
)

// chance says whether something of the given share happens, by words that name the occasion.
func (s *Server) chance(share float64, words ...uint64) bool {
	return share >= 1 || float64(s.hash(words...)>>11)/(1<<53) < share
}

func (s *Server) hash(words ...uint64) uint64 {
	return radio.Hash(append([]uint64{s.cfg.Seed}, words...)...)
}

// begin tells who looks on of a call that is no part of the simulation, and has it authorised.
func (s *Server) begin(ctx context.Context, method string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Faults.Observe != nil {
		s.cfg.Faults.Observe(method)
	}
	_, err := s.authorize(ctx, method)
	return err
}

// callFault counts a call and returns what is to happen to it; 0: nothing.
func (s *Server) callFault(method string) Effect {
	if s.cfg.Faults.Observe != nil {
		s.cfg.Faults.Observe(method)
	}
	for i, f := range s.cfg.Faults.Calls {
		if f.Method != "" && f.Method != method {
			continue
		}
		s.calls[i]++
		n := s.calls[i]
		first := max(f.First, 1)
		if n < first || f.Count > 0 && n >= first+f.Count || f.Share > 0 && !s.chance(f.Share, chanceCall, uint64(i), uint64(n)) {
			continue
		}
		if f.Effect == Locked && reads(method) {
			continue
		}
		return f.Effect
	}
	return 0
}

var (
	errUnavailable = status.Error(codes.Unavailable, "transport is closing")
	errReplyLost   = status.Error(codes.DeadlineExceeded, "context deadline exceeded")
	errLocked      = status.Error(codes.Internal, "database is locked")
)

// reads says whether a method changes nothing.
func reads(method string) bool {
	name := method[strings.LastIndexByte(method, '/')+1:]
	return strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List") || strings.HasPrefix(name, "Stream")
}

// ackFault returns what is to happen to a downlink; the zero value: nothing.
func (s *Server) ackFault(d *downlink) AckFault {
	at := s.world.Now().Sub(s.created)
	for i, f := range s.cfg.Faults.Acks {
		if f.Gateway != (lorawan.EUI64{}) && f.Gateway != d.gateway.ID || at < f.From || f.Until > 0 && at >= f.Until || f.Multicast && !d.multicast {
			continue
		}
		if f.Share == 0 || s.chance(f.Share, chanceAck, uint64(i), binary.BigEndian.Uint64(d.gateway.ID[:]), uint64(d.id)) {
			return f
		}
	}
	return AckFault{}
}

// script schedules the faults that have an instant.
func (s *Server) script() error {
	for i, o := range s.cfg.Faults.Outages {
		g := s.gatewayByID(o.Gateway)
		if g == nil || g.radio == nil {
			return fmt.Errorf("faults: outage %d: gateway %s is not on the simulated radio", i, o.Gateway)
		}
		for _, e := range []struct {
			at     time.Duration
			online bool
		}{{o.From, false}, {o.Until, true}} {
			s.world.At(s.created.Add(e.at), "gateway outage", func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.setOnline(g, e.online)
			})
		}
	}
	for _, r := range s.cfg.Faults.Restarts {
		s.world.At(s.created.Add(r.At), "server restart", func() { s.Restart(r.Down) })
	}
	return nil
}

// Restart does now what [Faults.Restarts] schedules. It is called from a world event or while the world rests.
func (s *Server) Restart(down time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process++
	s.down = true
	clear(s.receiving)
	clear(s.frames)
	s.schedule = nil
	process := s.process
	s.world.At(s.world.Now().Add(down), "server is back", func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.process == process {
			s.down = false
			s.arm()
			for _, d := range s.devices {
				s.armPing(d)
			}
		}
	})
}

// SetOnline does now what [Faults.Outages] schedules. It is called from a world event or while the world rests.
func (s *Server) SetOnline(id lorawan.EUI64, online bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.gatewayByID(id)
	if g == nil || g.radio == nil {
		return fmt.Errorf("networkserver: gateway %s is not on the simulated radio", id)
	}
	s.setOnline(g, online)
	return nil
}

func (s *Server) setOnline(g *gateway, online bool) {
	if g.down == !online {
		return
	}
	if online {
		g.upSince = s.world.Now()
	} else {
		g.seen = s.lastSeen(g)
	}
	g.down = !online
}
