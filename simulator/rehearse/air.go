package rehearse

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/simulator/radio"
)

// Air says how frames are lost, beside how many. The zero value loses each on its own.
type Air struct {
	// BurstTime is how long a device is cut off on the average when it loses frames, by a Gilbert–Elliott channel in time:
	// at a loss of 10 % it hears nothing and is not heard for a tenth of the time, at a stretch. Where the losses of both
	// directions differ, the shorter interruptions lie within the longer ones. 0, or 100 ms to 24 h.
	BurstTime time.Duration
	// Outages of everything at once, as of a server: the mean time between them and their mean length. Both 0: none.
	OutageEvery, OutageFor time.Duration
	// Capture is by how many dB a frame must exceed another at the same time, frequency and data rate to be received; see
	// [radio.Medium.Interfere]. 0: frames do not disturb one another.
	Capture float64
}

// Validate names the field that is out of range.
func (a Air) Validate() error {
	switch {
	case a.BurstTime != 0 && (a.BurstTime < 100*time.Millisecond || a.BurstTime > 24*time.Hour):
		return fmt.Errorf("burst time %s, want 100ms to 24h", a.BurstTime)
	case (a.OutageEvery == 0) != (a.OutageFor == 0):
		return fmt.Errorf("outages of %s every %s: give both or neither", a.OutageFor, a.OutageEvery)
	case a.OutageEvery != 0 && (a.OutageEvery < outageStep || a.OutageFor < outageStep):
		return fmt.Errorf("outages of %s every %s, want at least %s each", a.OutageFor, a.OutageEvery, outageStep)
	case !(a.Capture >= 0):
		return fmt.Errorf("capture threshold of %v dB, want 0 or more", a.Capture)
	}
	return nil
}

const outageStep = time.Second

// link returns how the links of devices lose these shares of their frames.
func (a Air) link(seed uint64, up, down float64, epoch time.Time) (radio.Process, error) {
	plain, err := radio.NewIndependent(seed, up, down)
	if err != nil || a.BurstTime == 0 {
		return plain, err
	}
	b := bursts{epoch: epoch}
	if b.signals, err = radio.NewIndependent(seed, 0, 0); err != nil {
		return nil, err
	}
	for i, p := range []float64{up, down} {
		if p > 0.98 { // hardly ever heard, and so not in stretches
			if b.loss[i], err = radio.NewBernoulli(seed, p); err != nil {
				return nil, err
			}
			continue
		}
		// The channel takes at least ten steps in a burst, and as many as the pauses between bursts need.
		g, err := radio.Bursts(time.Duration(float64(a.BurstTime)*min(0.1, 0.99*(1-p))), p, a.BurstTime)
		if err != nil {
			return nil, err
		}
		if b.loss[i], err = g.New(seed); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// bursts interrupts each device for a time.
type bursts struct {
	loss    [2]radio.Loss // up, down
	signals radio.Independent
	epoch   time.Time
}

// Carry implements [radio.Process].
func (b bursts) Carry(k radio.Key, at time.Time) (radio.Signal, bool) {
	s, _ := b.signals.Carry(k, at)
	loss := b.loss[1]
	if k.Kind.Up() {
		loss = b.loss[0]
	}
	return s, !loss.Lost(radio.Link{Device: binary.BigEndian.Uint64(k.Device[:])}, radio.Slot{Fragment: k.Counter, Copy: k.Copy, At: at.Sub(b.epoch)})
}

// around adds the outages to a process.
func (a Air) around(p radio.Process, seed uint64, epoch time.Time) (radio.Process, error) {
	if a.OutageEvery == 0 {
		return p, nil
	}
	loss, err := radio.Outages(seed, outageStep, a.OutageFor, a.OutageEvery)
	return outages{p, loss, epoch}, err
}

type outages struct {
	radio.Process
	loss  radio.Loss
	epoch time.Time
}

// Carry implements [radio.Process].
func (o outages) Carry(k radio.Key, at time.Time) (radio.Signal, bool) {
	s, ok := o.Process.Carry(k, at)
	return s, ok && !o.loss.Lost(radio.Link{}, radio.Slot{At: at.Sub(o.epoch)})
}

// interfere lets frames disturb one another in a medium, if they do.
func (a Air) interfere(m *radio.Medium) error {
	if a.Capture == 0 {
		return nil
	}
	return m.Interfere(a.Capture)
}
