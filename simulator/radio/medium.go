package radio

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/world"
)

// Errors by which a gateway refuses a downlink; the names are those of the gateway's tx acknowledgement.
var (
	ErrTooLate   = errors.New("radio: TOO_LATE")
	ErrCollision = errors.New("radio: COLLISION_PACKET")
)

// Medium carries frames between the stations and the gateways of one region.
type Medium struct {
	world    *world.World
	plan     *Plan
	process  Process
	stations []*Station // ordered by EUI, so that the order of registration changes nothing
	gateways []*Gateway // ordered by id
	spare    []*flight  // to be used again
	air      interference
}

// NewMedium returns an empty medium.
func NewMedium(w *world.World, plan *Plan, process Process) *Medium {
	return &Medium{world: w, plan: plan, process: process}
}

// HearsBeacon reports whether a device hears the beacon at that instant, which all gateways send at once and the medium
// does not carry: of one of them it is enough. A gateway that transmits something else sends none.
func (m *Medium) HearsBeacon(device lorawan.EUI64, at time.Time) bool {
	k := Key{Device: device, Kind: Beacon, Counter: uint32(airtime.GPS(at) / airtime.BeaconPeriod)}
	until := at.Add(m.plan.Region.BeaconTimeOnAir())
	for _, g := range m.gateways {
		if _, busy := g.busy(at, until); busy {
			continue
		}
		k.Gateway = g.id
		if _, heard := m.process.Carry(k, at); heard {
			return true
		}
	}
	return false
}

// Plan returns the channel plan.
func (m *Medium) Plan() *Plan { return m.plan }

// Station is the radio of an end device.
type Station struct {
	m        *Medium
	id       lorawan.EUI64
	receiver Receiver
	windows  []*Window
	arriving []*arrival
	txEnd    time.Time
}

// Window is an interval in which a station listens. A frame is heard if its preamble begins inside.
type Window struct {
	From, Until time.Time // [From, Until)
	Frequency   uint32
	DataRate    int
	// Priority resolves what one receiver cannot do at once: the open window with the highest priority has
	// it. Class A windows interrupt a class C reception. Between equals the one opened first keeps it.
	Priority int

	opens *world.Event // takes the receiver away from what has less priority
}

// flight is a downlink on the air, and the stations that it arrives at.
type flight struct {
	frame    Frame
	arrivals []arrival // never grown beyond its capacity, because stations point into it
}

// arrival is a frame on its way into a station.
type arrival struct {
	station   *Station
	flight    *flight
	window    *Window // nil: none was open
	key       Key
	signal    Signal
	mine      bool // for this station; others only disturb
	carried   bool // the link does not lose it
	deaf      bool // the receiver is closed, elsewhere, or transmitting
	disturbed bool // another frame is too strong
}

// NewStation adds an end device.
func (m *Medium) NewStation(id lorawan.EUI64, r Receiver) (*Station, error) {
	i := sort.Search(len(m.stations), func(i int) bool { return bytes.Compare(m.stations[i].id[:], id[:]) >= 0 })
	if i < len(m.stations) && m.stations[i].id == id {
		return nil, fmt.Errorf("radio: device %s exists already", id)
	}
	s := &Station{m: m, id: id, receiver: r}
	m.stations = slices.Insert(m.stations, i, s)
	return s, nil
}

// Listen opens a window, now or later. The window may be closed early with Close.
func (s *Station) Listen(w Window) *Window {
	now := s.m.world.Now()
	s.windows = slices.DeleteFunc(s.windows, func(old *Window) bool { return !old.Until.After(now) })
	s.windows = append(s.windows, &w)
	if w.Priority > 0 {
		w.opens = s.m.world.At(w.From, "receive window", func() {
			for _, a := range s.arriving {
				if a.window != nil && w.Priority > a.window.Priority {
					a.deaf = true
				}
			}
		})
	}
	return &w
}

// Close ends a window; a frame that has already begun in it is still received.
func (s *Station) Close(w *Window) {
	if w.opens != nil {
		w.opens.Cancel()
	}
	s.windows = slices.DeleteFunc(s.windows, func(other *Window) bool { return other == w })
}

// Receiving returns when the frame ends that is arriving in a window of this priority; the zero time if there
// is none.
func (s *Station) Receiving(priority int) time.Time {
	for _, a := range s.arriving {
		if !a.deaf && a.window.Priority == priority {
			return a.flight.frame.End
		}
	}
	return time.Time{}
}

// TransmittingUntil returns the end of the last uplink.
func (s *Station) TransmittingUntil() time.Time { return s.txEnd }

// Transmit sends an uplink now and returns the instant of its end, at which the gateways hear it. The station
// is deaf meanwhile.
func (s *Station) Transmit(f Frame) (time.Time, error) {
	toa, err := s.m.plan.timeOnAir(f.DataRate, len(f.Payload), airtime.Uplink)
	if err != nil {
		return time.Time{}, err
	}
	f.Start = s.m.world.Now()
	if s.txEnd.After(f.Start) {
		return time.Time{}, fmt.Errorf("radio: device %s is transmitting until %s", s.id, s.txEnd.Format(time.RFC3339Nano))
	}
	f.End = f.Start.Add(toa)
	s.txEnd = f.End
	for _, a := range s.arriving {
		a.deaf = true
	}
	u := s.m.air.add(f)
	s.m.world.At(f.End, "uplink", func() {
		for _, g := range s.m.gateways {
			if _, busy := g.busy(f.Start, f.End); busy {
				continue
			}
			if signal, ok := s.m.carryUp(f, g); ok && g.hear != nil && !s.m.collides(u, g, signal) {
				g.hear(f, signal)
			}
		}
	})
	return f.End, nil
}

// carryUp is how an uplink arrives at a gateway, if nothing else is on the air.
func (m *Medium) carryUp(f Frame, g *Gateway) (Signal, bool) {
	k := f.Key
	k.Gateway, k.Copy = g.id, f.Copy
	return m.process.Carry(k, f.Start)
}

// tune returns the window that has the receiver at the start of f, if it hears f.
func (s *Station) tune(f Frame) (*Window, bool) {
	var open *Window
	for _, w := range s.windows {
		if !f.Start.Before(w.From) && f.Start.Before(w.Until) &&
			(open == nil || w.Priority > open.Priority || w.Priority == open.Priority && w.From.Before(open.From)) {
			open = w
		}
	}
	if open == nil || open.Frequency != f.Frequency || open.DataRate != f.DataRate || s.txEnd.After(f.Start) {
		return nil, false
	}
	return open, true
}

// Gateway is a transmitter and receiver of the network.
type Gateway struct {
	m      *Medium
	id     lorawan.EUI64
	hear   func(Frame, Signal)
	booked []span // transmissions, past ones pruned
	sent   time.Duration
	frames int
}

type span struct{ start, end time.Time }

// keepBooked is how long a transmission is remembered for the half-duplex rule: longer than any uplink.
const keepBooked = 30 * time.Second

// NewGateway adds a gateway, which calls hear for every uplink it receives, at the instant of its end.
func (m *Medium) NewGateway(id lorawan.EUI64, hear func(Frame, Signal)) (*Gateway, error) {
	i := sort.Search(len(m.gateways), func(i int) bool { return bytes.Compare(m.gateways[i].id[:], id[:]) >= 0 })
	if i < len(m.gateways) && m.gateways[i].id == id {
		return nil, fmt.Errorf("radio: gateway %s exists already", id)
	}
	g := &Gateway{m: m, id: id, hear: hear}
	m.gateways = slices.Insert(m.gateways, i, g)
	return g, nil
}

// Airtime returns how long and how often the gateway has transmitted or is going to.
func (g *Gateway) Airtime() (time.Duration, int) { return g.sent, g.frames }

// Transmit programs a downlink for an instant. nil means programmed, as a gateway's OK does, not emitted; an
// instant in the past is [ErrTooLate], one that overlaps a programmed downlink [ErrCollision].
func (g *Gateway) Transmit(f Frame, at time.Time) error {
	toa, err := g.m.plan.timeOnAir(f.DataRate, len(f.Payload), airtime.Downlink)
	if err != nil {
		return err
	}
	if at.Before(g.m.world.Now()) {
		return ErrTooLate
	}
	if _, busy := g.busy(at, at.Add(toa)); busy {
		return ErrCollision
	}
	g.program(f, at, toa)
	return nil
}

// TransmitSoon programs a downlink for the first gap that is long enough, as packet forwarders do with what is
// to be sent immediately, and returns its start.
func (g *Gateway) TransmitSoon(f Frame) (time.Time, error) {
	toa, err := g.m.plan.timeOnAir(f.DataRate, len(f.Payload), airtime.Downlink)
	if err != nil {
		return time.Time{}, err
	}
	at := g.m.world.Now()
	for {
		until, busy := g.busy(at, at.Add(toa))
		if !busy {
			break
		}
		at = until
	}
	g.program(f, at, toa)
	return at, nil
}

func (g *Gateway) program(f Frame, at time.Time, toa time.Duration) {
	now := g.m.world.Now()
	f.Start, f.End, f.Gateway = at, at.Add(toa), g.id
	g.booked = slices.DeleteFunc(g.booked, func(b span) bool { return b.end.Add(keepBooked).Before(now) })
	g.booked = append(g.booked, span{f.Start, f.End})
	g.sent += toa
	g.frames++
	g.m.world.At(at, "downlink", func() { g.m.begin(f) })
}

// busy says whether the gateway transmits in the interval, and until when.
func (g *Gateway) busy(from, until time.Time) (time.Time, bool) {
	for _, b := range g.booked {
		if overlap(b.start, b.end, from, until) {
			return b.end, true
		}
	}
	return time.Time{}, false
}

// begin finds who hears the frame, and schedules its end.
func (m *Medium) begin(f Frame) {
	fl := m.takeFlight()
	fl.frame = f
	for _, s := range m.stations {
		w, tuned := s.tune(f)
		heeds := tuned || s.concerned(f)
		if !heeds && !m.air.on {
			continue
		}
		key, mine := s.receiver.FrameKey(f)
		if mine = mine && heeds; !mine {
			if !m.air.on {
				continue
			}
			key = foreign(s, f)
		}
		key.Gateway, key.Copy = f.Gateway, f.Copy
		fl.arrivals = append(fl.arrivals, arrival{station: s, flight: fl, window: w, key: key, mine: mine, deaf: !tuned})
		a := &fl.arrivals[len(fl.arrivals)-1]
		a.signal, a.carried = m.process.Carry(key, f.Start)
		if m.air.on {
			m.air.meet(a)
		}
		if tuned || m.air.on {
			s.arriving = append(s.arriving, a)
		}
	}
	if len(fl.arrivals) == 0 {
		m.spare = append(m.spare, fl)
		return
	}
	m.world.At(f.End, "downlink ends", func() {
		for i := range fl.arrivals {
			fl.arrivals[i].end()
		}
		m.spare = append(m.spare, fl)
	})
}

// takeFlight returns a flight with room for all stations.
func (m *Medium) takeFlight() *flight {
	if n := len(m.spare); n > 0 {
		fl := m.spare[n-1]
		m.spare = m.spare[:n-1]
		if cap(fl.arrivals) >= len(m.stations) {
			fl.arrivals = fl.arrivals[:0]
			return fl
		}
	}
	return &flight{arrivals: make([]arrival, 0, len(m.stations))}
}

// concerned says whether a frame that the station does not hear may still count as one it lost: unheard
// frames matter only while the station has a window of that frequency and data rate open, whoever has the receiver.
func (s *Station) concerned(f Frame) bool {
	for _, w := range s.windows {
		if w.Frequency == f.Frequency && w.DataRate == f.DataRate && !f.Start.Before(w.From) && f.Start.Before(w.Until) {
			return true
		}
	}
	return false
}

// end delivers the frame, or not.
func (a *arrival) end() {
	s := a.station
	if i := slices.Index(s.arriving, a); i >= 0 {
		s.arriving = slices.Delete(s.arriving, i, i+1)
	}
	if !a.mine {
		return
	}
	f := a.flight.frame
	f.Key = a.key
	if a.deaf || a.disturbed || !a.carried {
		s.receiver.LoseFrame(f, a.deaf)
		return
	}
	s.receiver.ReceiveFrame(f, a.signal)
}

func overlap(aFrom, aUntil, bFrom, bUntil time.Time) bool {
	return aFrom.Before(bUntil) && bFrom.Before(aUntil)
}
