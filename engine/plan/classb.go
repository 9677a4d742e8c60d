package plan

import (
	"fmt"
	"math"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// ClassB is what a plan for class B has beyond one for class C: each message waits for the next ping slot of the group,
// and all gateways send it there at once.
type ClassB struct {
	Periodicity uint8         `json:"ping_slot_periodicity"` // 0..7: 2^(7-Periodicity) slots in a beacon period of 128 s
	Wait        time.Duration `json:"longest_wait_ns"`       // of a message, from handing it to the server to its slot
}

const (
	// slotLead is how far ahead of a slot the server must have a message: multicast_class_b_margin of ChirpStack.
	slotLead = 5 * time.Second
	// slotLeft is how far ahead of its slot the server hands a message over: two intervals of ChirpStack's scheduler.
	slotLeft = 2 * time.Second
	// slotSlack is by how much messages are further apart than slots on the average: it keeps them from piling up around a
	// beacon, where there are no slots.
	slotSlack = 2 * time.Second
	// preambleSymbols is how much longer than a slot its receive window is: 5 symbols of the preamble are enough.
	preambleSymbols = 3
	beaconExponent  = 7 // a beacon period is 2^7 s
)

// newClassB returns the ping slots of a periodicity. The longest wait is from the first slot that a beacon period
// could have as its last one to the last that the next could have as its first.
func newClassB(periodicity uint8) *ClassB {
	b := &ClassB{Periodicity: periodicity}
	b.Wait = slotLead + airtime.BeaconGuard + airtime.BeaconReserved + 2*b.slots()
	return b
}

// slots is the distance of two slots of a beacon period.
func (b *ClassB) slots() time.Duration {
	return time.Duration(airtime.PingPeriod(b.Periodicity)) * airtime.PingSlotLength
}

// average is the time per slot, beacons included.
func (b *ClassB) average() time.Duration { return time.Second << b.Periodicity }

// align returns the first instant at or after t at which a window can begin: in class B a beacon period.
func (p Plan) align(t time.Time) time.Time {
	if p.ClassB == nil {
		return t
	}
	if over := airtime.GPS(t) % airtime.BeaconPeriod; over > 0 {
		t = t.Add(airtime.BeaconPeriod - over)
	}
	return t
}

// spacing returns the time between two gateways that send the same message: none in class B.
func (p Plan) spacing(classC time.Duration) time.Duration {
	if p.ClassB != nil {
		return 0
	}
	return classC
}

// defaultFrequency returns the channel of a class: the second receive window, or the ping-slot channel. Where that hops,
// it is the first of its channels: a multicast session names one.
func defaultFrequency(r airtime.Region, class network.Class) uint32 {
	if class == network.ClassB {
		f, _ := r.PingSlotDefault(0, 0)
		return f
	}
	f, _ := r.RX2()
	return f
}

// pace decides how fast messages may follow one another in the class of the input.
func (in *Input) pace(p *Plan, band airtime.SubBand) error {
	p.Guard, p.ClassB = guard, nil
	duty := float64(in.DutyCycle) // per mille
	if duty == 0 {
		duty = float64(band.DutyCycle)
	}
	if in.Class != network.ClassB {
		p.Pace = max(rest(p.FragmentToA, duty*in.Share), p.FragmentToA+time.Second, minPace)
		if in.Gateways > 1 {
			p.Pace = max(p.Pace, time.Duration(in.Gateways)*in.Spacing)
		}
		return nil
	}
	// The gateways send beacons in what the campaign leaves of the duty cycle, or it leaves them something.
	share := duty * in.Share
	if f, _ := in.Region.Beacon(0); f >= band.Low && f < band.High && duty < 1000 {
		share = min(share, duty-1000*in.Region.BeaconTimeOnAir().Seconds()/airtime.BeaconPeriod.Seconds())
	}
	if share <= 0 {
		return fmt.Errorf("%w: the beacons alone take more than the duty cycle of %v per mille", ErrInput, duty)
	}
	for periodicity := range uint8(maxPeriodicity + 1) {
		b := newClassB(periodicity)
		if in.Periodicity != nil {
			b = newClassB(*in.Periodicity)
		}
		// A message waits for its slot for a longer or a shorter time, so an hour may hold what belongs to the next one.
		// The shortest wait is that of a message that takes the slot after one that is just being handed over.
		jitter := b.Wait - slotLeft
		pace := max(time.Duration(math.Ceil(float64(rest(p.FragmentToA, share))*(1+jitter.Hours()))), p.FragmentToA+time.Second)
		if p.ClassB != nil && p.ClassB.slots() >= p.FragmentToA && pace < b.average()+slotSlack {
			break // fewer slots would slow the campaign down
		}
		p.ClassB, p.Pace = b, max(pace, b.average()+slotSlack)
		if b.slots() < p.FragmentToA {
			p.Pace = max(p.Pace, b.Wait) // a message that waited could share its time with the next
		}
		if in.Periodicity != nil {
			break
		}
	}
	p.Guard += p.ClassB.Wait
	return nil
}

// inOtherClass returns the plan in the other class, with the ping slots that suit it best, on the same channel; nil if
// there is none.
func (in *Input) inOtherClass(p Plan) *Plan {
	alt := *in
	alt.Periodicity = nil
	if alt.Class = network.ClassB; in.Class == network.ClassB {
		alt.Class = network.ClassC
	}
	p.Warnings = nil
	if band, err := in.Region.SubBand(p.Frequency); err != nil || alt.pace(&p, band) != nil {
		return nil
	}
	alt.totals(&p)
	return &p
}

// warnClassB warns of what no network server tells.
func (f *fleet) warnClassB() {
	f.warn("class B works only through gateways that send beacons, for which they need GPS; the network server does not say which do")
	f.warn("the energy does not hold the search for the first beacon, for up to %s or %.2f mAh", airtime.BeaconPeriod, f.Receive*airtime.BeaconPeriod.Hours())
	if f.Updates[0].Raw != nil {
		f.warn("of the stock stacks, LoRaMac-node answers a class B session and then listens in class C, and Zephyr does not answer it; LoRa Basics Modem takes part")
	}
}

// maxPeriodicity is the largest periodicity of ping slots: one in a beacon period.
const maxPeriodicity = 7

// rest returns the time from one frame to the next that keeps so many per mille of the air. It is rounded up: a pace
// that is a nanosecond too fast breaks the duty cycle at the end of the hour.
func rest(toa time.Duration, perMille float64) time.Duration {
	return time.Duration(math.Ceil(float64(toa) * 1000 / perMille))
}

// listening is how long the receiver of a device is on from the start of the window to the end of the first status
// round: all the time, or in its ping slots, for the frames in them, and for beacons. Searching for the first beacon is
// not in it.
func (p Plan) listening(region airtime.Region) time.Duration {
	b := p.ClassB
	if b == nil {
		return p.Duration
	}
	open := airtime.PingSlotLength
	if rate, err := region.DataRate(p.DataRate); err == nil && rate.BitRate == 0 {
		open += preambleSymbols * (time.Second << rate.SpreadingFactor / time.Duration(rate.Bandwidth))
	}
	status := statusRequests
	if p.Canary {
		status++
	}
	beyond := func(frames int, toa time.Duration) time.Duration {
		return time.Duration(frames) * max(0, toa-airtime.PingSlotLength)
	}
	return time.Duration(p.Duration/b.average())*open + beyond(p.M+p.Parity, p.FragmentToA) + beyond(status, p.StatusToA) +
		time.Duration(p.Duration/airtime.BeaconPeriod)*region.BeaconTimeOnAir()
}

// Receive says in which class the devices listen, and how long the first window is.
func (p Plan) Receive() string {
	if b := p.ClassB; b != nil {
		return fmt.Sprintf("class B with a ping slot every %s (periodicity %d), window 128·2^%d s", b.slots(), b.Periodicity, p.TimeOut)
	}
	return fmt.Sprintf("class C, window 2^%d s", p.TimeOut)
}
