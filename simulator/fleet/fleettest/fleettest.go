// Package fleettest has a device for tests of what stands around a fleet: a network server, an integration, a command.
package fleettest

import "github.com/sower-fuota/sower/firmware-stub/device/modem"

const minute = 60_000 // ms

// Beacon joins and then sends the same message each minute. It is a fleet.App.
type Beacon struct {
	Uplink modem.Up
	Echo   bool // sends back what it is sent

	next uint64 // uplink, ms of its clock; 0: not joined
}

// PowerUp implements fleet.App.
func (b *Beacon) PowerUp() ([]modem.Frame, error) { return b.answer() }

// Close implements fleet.App.
func (b *Beacon) Close() error { return nil }

// Turn implements fleet.App.
func (b *Beacon) Turn(f modem.Frame) ([]modem.Frame, error) {
	m, err := f.Message()
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case modem.Link:
		if m.Joined {
			b.next = m.Time + minute
		}
	case modem.Tick:
		if b.next > 0 && m.Time >= b.next {
			b.next += minute
			return b.answer(b.Uplink)
		}
	case modem.Down:
		if b.Echo {
			return b.answer(modem.Up{Port: m.Port, Data: m.Data})
		}
	}
	return b.answer()
}

func (b *Beacon) answer(ms ...modem.Message) ([]modem.Frame, error) {
	idle := modem.IdleUntil{Time: modem.Never}
	if b.next > 0 {
		idle.Time = b.next
	}
	return modem.Frames(append(ms, idle)...)
}
