package experiment

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/radio"
)

// Result is what one repetition of one point came to. It holds integers only.
type Result struct {
	Point    int `json:"point"`
	Rep      int `json:"rep"`
	Devices  int `json:"devices"`
	Complete int `json:"complete"`
	Sent     int `json:"sent"`    // fragments, M included
	Polls    int `json:"polls"`   // requests to the group
	Uplinks  int `json:"uplinks"` // answers to them, those lost included

	Time      time.Duration `json:"time_ns"`      // from the first frame to the end of the last, or of the last poll
	Airtime   time.Duration `json:"airtime_ns"`   // of the fragments
	Listening int64         `json:"listening_ms"` // of all devices

	// Done counts the devices that were complete after so many fragments sent: pairs in ascending order.
	Done [][2]int `json:"done"`
}

// Simulator runs the repetitions of one point.
type Simulator struct {
	s      Scenario
	code   Code
	policy Policy
	loss   radio.Loss
	uplink radio.Loss
	toa    time.Duration
	beacon time.Duration
	table  *table
}

// NewSimulator prepares a point; trace is needed for the loss model "trace" and ignored otherwise.
func NewSimulator(p Point, trace *radio.Trace) (*Simulator, error) {
	s := p.Scenario
	sim := &Simulator{s: s, code: Codes[s.Code.Name], toa: s.fragmentAirtime()}
	var err error
	if sim.policy, err = Policies[s.Policy.Name](&sim.s); err != nil {
		return nil, err
	}
	if s.Loss.Model == "trace" && trace == nil {
		return nil, bad("loss.file", s.Loss.File, "a trace that was read")
	}
	if sim.loss, err = s.loss(trace); err != nil {
		return nil, err
	}
	if sim.uplink, err = radio.NewBernoulli(radio.Hash(s.Seed, 'u'), s.Uplink.Loss); err != nil {
		return nil, err
	}
	region, err := airtime.ParseRegion(s.Air.Region)
	if err != nil {
		return nil, err
	}
	sim.beacon = region.BeaconTimeOnAir()
	if s.Depth == "table" {
		if sim.table, err = sim.newTable(); err != nil {
			return nil, err
		}
	}
	return sim, nil
}

// maxSteps ends a policy that never ends.
const maxSteps = 10000

// Run simulates repetition rep, which is a function of the scenario and rep alone.
func (sim *Simulator) Run(rep int) (Result, error) {
	if sim.table != nil {
		return sim.runTable(rep)
	}
	return sim.run(rep, uint64(rep), sim.s.Devices)
}

// broadcast is the state of a repetition.
type broadcast struct {
	*Simulator
	stream  uint64
	clock   clock
	slots   []radio.Slot
	pending []uint32 // devices not complete
	reports []Report // of pending
	done    []int32  // by device: fragments sent when it was complete; 0: not yet
}

func (sim *Simulator) run(rep int, stream uint64, devices int) (Result, error) {
	b := broadcast{Simulator: sim, stream: stream, clock: sim.newClock(rep), done: make([]int32, devices), pending: make([]uint32, devices)}
	for d := range b.pending {
		b.pending[d] = uint32(d)
	}
	b.reports = make([]Report, devices)
	r := Result{Rep: rep, Devices: devices}
	v := View{M: sim.s.Block.Fragments, Devices: devices, Limit: sim.s.Policy.Limit}
	for range maxSteps {
		step := sim.policy.Next(v)
		switch {
		case step.Poll:
			v.Reports = b.poll(v.Polls, &r)
			v.Polls++
			v.Polled = v.Sent
		case step.Send > 0 && v.Sent < v.Limit:
			if err := b.send(min(v.Sent+step.Send, v.Limit), step.UntilComplete); err != nil {
				return Result{}, err
			}
			if len(b.slots) == v.Sent {
				return Result{}, fmt.Errorf("experiment: code %q has no more than %d transmissions for %d fragments", sim.s.Code.Name, v.Sent, v.M)
			}
			v.Sent = len(b.slots)
		default:
			b.finish(&r)
			return r, nil
		}
	}
	return Result{}, fmt.Errorf("experiment: policy %q has not ended after %d steps", sim.s.Policy.Name, maxSteps)
}

// send continues the broadcast to n fragments in all.
func (b *broadcast) send(n int, untilComplete bool) error {
	if untilComplete {
		// In growing portions, so that the decoders of most devices stay small.
		for limit, portion := n, max(len(b.slots), b.s.Block.Fragments); len(b.pending) > 0 && len(b.slots) < limit; {
			portion += portion/4 + 32
			before := len(b.slots)
			if err := b.send(min(portion, limit), false); err != nil {
				return err
			}
			if len(b.slots) == before {
				break
			}
		}
		if len(b.pending) == 0 {
			last := slices.Max(b.done)
			b.slots = b.slots[:last]
			b.clock.rewind(b.slots[last-1].At)
		}
		return nil
	}
	slots := b.code.Slots(b.s.Block.Fragments, n)
	for i := range slots {
		if i < len(b.slots) {
			slots[i].At = b.slots[i].At
		} else {
			slots[i].At = b.clock.next()
		}
	}
	b.slots = slots
	n = len(slots)
	dec, err := b.decoder(n)
	if err != nil {
		return err
	}
	sampler := b.loss.Sampler(slots)
	lost := fragmentation.NewBitset(n)
	rest := 0
	for _, d := range b.pending {
		l := radio.Link{Device: uint64(d), Stream: b.stream}
		sampler.Fill(lost, l)
		if n&63 != 0 {
			lost[len(lost)-1] |= ^uint64(0) << (n & 63) // what is not sent is not received
		}
		sent, missing := dec.Decode(lost, radio.Hash(b.s.Seed, l.Device, l.Stream))
		if missing == 0 {
			b.done[d] = int32(sent)
			continue
		}
		received := 64 * len(lost)
		for _, w := range lost {
			received -= bits.OnesCount64(w)
		}
		b.pending[rest], b.reports[rest] = d, Report{received, missing}
		rest++
	}
	b.pending, b.reports = b.pending[:rest], b.reports[:rest]
	return nil
}

func (b *broadcast) decoder(n int) (Decoder, error) {
	if c, ok := b.code.(ts004); ok && b.s.Depth == "bytes" {
		return newByteDecoder(c.matrix, b.s.Block.Fragments, n, b.s.Block.FragmentBytes)
	}
	return b.code.NewDecoder(b.s.Block.Fragments, n)
}

// poll asks the devices that are not complete, again those that were not heard, and returns what was heard.
func (b *broadcast) poll(number int, r *Result) []Report {
	heard := make([]Report, 0, len(b.pending))
	silent := b.pending
	index := make([]int, len(silent))
	for i := range index {
		index[i] = i
	}
	for try := 0; try <= b.s.Uplink.Retries; try++ {
		r.Polls++
		at := b.clock.pause(time.Duration(b.s.Uplink.Window))
		rest := index[:0]
		for _, i := range index {
			r.Uplinks++
			if b.uplink.Lost(radio.Link{Device: uint64(silent[i]), Stream: b.stream},
				radio.Slot{Fragment: uint32(number), Copy: uint32(try), At: at}) {
				rest = append(rest, i)
				continue
			}
			heard = append(heard, b.reports[i])
		}
		if index = rest; len(index) == 0 {
			break
		}
	}
	return heard
}

// finish adds up.
func (b *broadcast) finish(r *Result) {
	r.Complete = len(b.done) - len(b.pending)
	r.Sent = len(b.slots)
	r.Airtime = time.Duration(r.Sent) * b.toa
	r.Time = b.clock.end(b.toa)
	counts := make([]int, len(b.slots)+1)
	for _, sent := range b.done {
		counts[sent]++
	}
	r.count(counts, b.Simulator, func(sent int) time.Duration { return b.slots[sent-1].At })
}

// count fills in the distribution and what follows from it. counts[0] are the devices that never were complete.
func (r *Result) count(counts []int, sim *Simulator, at func(sent int) time.Duration) {
	r.Done = [][2]int{}
	for sent, n := range counts[1:] {
		if n > 0 {
			r.Done = append(r.Done, [2]int{sent + 1, n})
			r.Listening += int64(n) * int64(sim.listening(at(sent+1)+sim.toa, sent+1)/time.Millisecond)
		}
	}
	r.Listening += int64(counts[0]) * int64(sim.listening(r.Time, r.Sent)/time.Millisecond)
}

// listening is the time a device's receiver is on that leaves the session after so long and so many fragments.
func (sim *Simulator) listening(until time.Duration, sent int) time.Duration {
	if sim.s.Air.Class == "C" {
		return until
	}
	pings := int(until/sim.s.pingPeriod()) + 1
	on := time.Duration(max(0, pings-sent))*airtime.PingSlotLength + time.Duration(sent)*sim.toa
	return min(until, on+(until/airtime.BeaconPeriod+1)*sim.beacon)
}

func (s *Scenario) pingPeriod() time.Duration {
	return time.Duration(airtime.PingPeriod(uint8(s.Air.Periodicity))) * airtime.PingSlotLength
}

// interval is the least time between the beginnings of two fragments.
func (s *Scenario) interval() time.Duration {
	if s.Air.Interval != 0 {
		return time.Duration(s.Air.Interval)
	}
	ppm := int64(float64(s.Air.DutyCycle*1e6) + 0.5)
	return (s.fragmentAirtime()*1e6 + time.Duration(ppm-1)) / time.Duration(ppm)
}

// spacing is the usual time between them when nothing else intervenes.
func (s *Scenario) spacing() time.Duration {
	d := s.interval()
	if s.Air.Class == "B" {
		p := s.pingPeriod()
		d = (d + p - 1) / p * p
	}
	return d
}

// clock says when fragments begin.
type clock struct {
	due      time.Duration // the earliest start of the next fragment
	last     time.Duration // start of the last one; -1: none
	idle     time.Duration // end of the last pause
	interval time.Duration
	grid     time.Duration
	toa      time.Duration
	classB   bool
	group    uint32
	period   uint8
}

func (sim *Simulator) newClock(rep int) clock {
	return clock{last: -1, interval: sim.s.interval(), grid: time.Duration(sim.s.Air.Grid), toa: sim.toa, classB: sim.s.Air.Class == "B",
		group: uint32(radio.Hash(sim.s.Seed, uint64(rep), 'g')), period: uint8(sim.s.Air.Periodicity)}
}

// next returns the start of the next fragment. Fragments are due at equal distances; a grid delays each of them to a
// multiple of its own, without delaying those after it.
func (c *clock) next() time.Duration {
	at := c.due
	if c.grid > 0 {
		at = (at + c.grid - 1) / c.grid * c.grid
	}
	if c.classB {
		for at = airtime.NextPingSlot(c.group, at, c.period); !airtime.ClearOfBeacon(at, c.toa); {
			at = airtime.NextPingSlot(c.group, at+1, c.period)
		}
		c.due = at
	}
	c.due += c.interval
	c.last = at
	return at
}

// pause waits for answers and returns when it began.
func (c *clock) pause(d time.Duration) time.Duration {
	began := max(c.idle, c.last+c.toa)
	c.idle = began + d
	c.due = max(c.due, c.idle)
	return began
}

// rewind forgets fragments after the one that began at last.
func (c *clock) rewind(last time.Duration) { c.last, c.due = last, last+c.interval }

func (c *clock) end(toa time.Duration) time.Duration { return max(c.idle, c.last+toa) }
