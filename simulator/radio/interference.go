package radio

import (
	"fmt"
	"slices"
)

// DefaultCapture is by how many decibels a LoRa frame must exceed another of its spreading factor to be received all the
// same: the diagonal of the rejection matrix of Goursaud and Gorce (2015).
const DefaultCapture = 6.0

// interference is what is on the air beside a frame.
type interference struct {
	on      bool
	capture float64   // dB
	uplinks []*uplink // on the air
}

// uplink is a frame on the air, and those that it has met there.
type uplink struct {
	Frame
	met []*uplink
}

// Interfere makes frames disturb one another that overlap on one frequency and at one data rate. A frame is received
// if its SNR exceeds that of each such frame at the same receiver by at least capture decibels ([DefaultCapture]);
// with +Inf no frame survives, which is pure ALOHA. A gateway gets the strongest frame, whichever began first. A
// station has one demodulator: while it receives a frame it takes no later one, however strong, but that may still
// destroy the one it receives.
//
// The power of a frame is the SNR that the [Process] gives it, also for frames it loses. Frames of other data rates,
// and uplinks and downlinks among each other (LoRaWAN inverts the I/Q signals of downlinks), do not interfere. A medium
// that was not told to interfere lets all frames pass.
func (m *Medium) Interfere(capture float64) error {
	if !(capture >= 0) {
		return fmt.Errorf("radio: capture threshold %v dB, want 0 or more", capture)
	}
	m.air.on, m.air.capture = true, capture
	return nil
}

// survives says whether a frame is received beside another.
func (i *interference) survives(s, other Signal) bool {
	return float64(s.SNR)-float64(other.SNR) >= i.capture
}

// add takes note of an uplink that begins.
func (i *interference) add(f Frame) *uplink {
	u := &uplink{Frame: f}
	if !i.on {
		return u
	}
	i.uplinks = slices.DeleteFunc(i.uplinks, func(old *uplink) bool { return !old.End.After(f.Start) })
	for _, other := range i.uplinks {
		if sameChannel(&f, &other.Frame) {
			u.met, other.met = append(u.met, other), append(other.met, u)
		}
	}
	i.uplinks = append(i.uplinks, u)
	return u
}

// collides says whether another uplink destroys one, which ends now, at a gateway.
func (m *Medium) collides(u *uplink, g *Gateway, s Signal) bool {
	return slices.ContainsFunc(u.met, func(other *uplink) bool {
		signal, _ := m.carryUp(other.Frame, g)
		return !m.air.survives(s, signal)
	})
}

// meet lets a frame that begins to arrive at a station meet those that are arriving there.
func (i *interference) meet(a *arrival) {
	for _, b := range a.station.arriving {
		f, g := &a.flight.frame, &b.flight.frame
		if !sameChannel(f, g) || !g.End.After(f.Start) {
			continue
		}
		if b.carried && !b.deaf && !b.disturbed && g.Start.Before(f.Start) {
			a.deaf = true
		}
		a.disturbed = a.disturbed || !i.survives(a.signal, b.signal)
		b.disturbed = b.disturbed || !i.survives(b.signal, a.signal)
	}
}

func sameChannel(f, g *Frame) bool { return f.Frequency == g.Frequency && f.DataRate == g.DataRate }

// foreign names a frame that is not for the station, for the sake of its power.
func foreign(s *Station, f Frame) Key {
	at := uint64(f.Start.UnixNano())
	return Key{Device: s.id, Session: uint32(at >> 32), Counter: uint32(at)}
}
