package fleet

import (
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/radio"
)

// Power is what a device consumes in each of its states, in mW, processor included.
type Power struct {
	Transmit, Receive, Sleep float64
}

// STM32WL is a NUCLEO-WL55JC1 at 3.0 V. Receiving is the fit over 30 measured class C sessions (klementc/fuotaa-reprod).
// Transmitting is the 25.5 mA that Semtech's code for the SX1261, the same radio, has for 14 dBm; sleeping, 2 µA, is an
// assumption.
var STM32WL = Power{Transmit: 76.5, Receive: 24.83, Sleep: 0.006}

// Phases is how long the radio of a device was in each of its states since the device was added.
type Phases struct {
	Transmit time.Duration // uplinks and join requests
	Windows  time.Duration // receive windows of class A, and the frames in them
	Session  time.Duration // class C sessions and ping slots of class B, and the frames in them
	Beacons  time.Duration
	Sleep    time.Duration
}

// Energy is what those phases consumed, in joules.
type Energy struct {
	Transmit, Windows, Session, Beacons, Sleep float64
}

// Total is the sum over the phases.
func (e Energy) Total() float64 { return e.Transmit + e.Windows + e.Session + e.Beacons + e.Sleep }

// Of returns the energy of phases.
func (p Power) Of(t Phases) Energy {
	joules := func(mw float64, d time.Duration) float64 { return mw / 1000 * d.Seconds() }
	return Energy{joules(p.Transmit, t.Transmit), joules(p.Receive, t.Windows), joules(p.Receive, t.Session), joules(p.Receive, t.Beacons), joules(p.Sleep, t.Sleep)}
}

// Phases adds up until the present virtual time. It belongs to the goroutine of the world.
func (d *Device) Phases() Phases {
	now := d.f.cfg.World.Now()
	p := d.phases
	for _, r := range d.sessions {
		if r != nil {
			p.Session += r.listened(now)
		}
	}
	p.Sleep = now.Sub(d.born) - p.Transmit - p.Windows - p.Session - p.Beacons
	return p
}

// listened is how long the windows of the session have been open, without what other phases took.
func (r *reception) listened(now time.Time) time.Duration {
	total := r.frames - r.away
	for _, w := range r.windows {
		if until := earlier(w.Until, now); until.After(w.From) {
			total += until.Sub(w.From)
		}
	}
	return total
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// otherwise notes that the radio transmitted or had a class A window for so long, during which no class C session heard.
func (d *Device) otherwise(from time.Time, length time.Duration) {
	for _, r := range d.sessions {
		if r != nil && !r.classB && len(r.windows) > 0 && !from.Before(r.windows[0].From) && from.Before(r.windows[0].Until) {
			r.away += length
		}
	}
}

// endWindows accounts for a class A cycle that ends now; began is the start of the frame that was heard, or zero.
func (d *Device) endWindows(began time.Time) {
	r := &d.radio
	if r.rx1 == nil || r.rx2 == nil {
		return
	}
	now := d.f.cfg.World.Now()
	length := r.rx1.Until.Sub(r.rx1.From) + r.rx2.Until.Sub(r.rx2.From)
	switch {
	case began.IsZero():
	case began.Before(r.rx2.From):
		length = now.Sub(r.rx1.From)
	default:
		length = r.rx1.Until.Sub(r.rx1.From) + now.Sub(r.rx2.From)
	}
	d.phases.Windows += length
	d.otherwise(r.rx1.From, length)
}

// heardInSlot accounts for a frame of a class B session, which lasts longer than its slot is open.
func (r *reception) heardInSlot(f radio.Frame) {
	if r.classB {
		r.frames += max(0, f.Airtime()-airtime.PingSlotLength)
	}
}
