package fleet_test

import (
	"math"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/radio"
)

// windows of class A: 10 ms at SF7 and 262.144 ms at SF12, the default of RX2.
const rx1, rx2 = 10 * time.Millisecond, 262144 * time.Microsecond

// wait lets time go by, also when nothing happens any more.
func (b *bench) wait(until time.Duration) {
	b.t.Helper()
	b.world.At(epoch.Add(until), "end", func() {})
	b.run(until)
}

func phases(t *testing.T, what string, d *fleet.Device, elapsed time.Duration, want fleet.Phases) {
	t.Helper()
	got := d.Phases()
	want.Sleep = elapsed - want.Transmit - want.Windows - want.Session - want.Beacons
	if got != want {
		t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// TestPhasesOfClassA: a join, answered in RX1, then uplinks of which the first is answered in RX1 and the second in RX2,
// and a third that is not.
func TestPhasesOfClassA(t *testing.T) {
	b := newBench(t, &script{boot: []modem.Message{
		modem.Up{Port: 2, Data: []byte("one")}, modem.Up{Port: 2, Data: []byte("two")}, modem.Up{Port: 2, Data: []byte("six")}}}, nil)
	var windows time.Duration
	toa := func(dr, size int, d airtime.Direction) time.Duration {
		rate, err := airtime.EU868.DataRate(dr)
		b.must(err)
		return rate.TimeOnAir(size, d)
	}
	b.answer = func(f radio.Frame) {
		phy := b.data(lorawan.UnconfirmedDataDown, unicastAddr, uint32(len(b.ups)), false, 10, "answer", b.appS, b.nwk)
		switch len(b.ups) {
		case 1:
			b.transmit(phy, f.Frequency, 5, f.End.Add(2*time.Second))
			windows += toa(5, 13+6, airtime.Downlink)
		case 2:
			b.transmit(phy, mcFreq, 0, f.End.Add(3*time.Second))
			windows += rx1 + toa(0, 13+6, airtime.Downlink)
		case 3:
			windows += rx1 + rx2
		}
	}
	b.wait(time.Minute)
	// A join request has 23 bytes, the accept 17, an uplink 13 and its data.
	windows += toa(5, 17, airtime.Downlink)
	phases(t, "join and three uplinks", b.device, time.Minute, fleet.Phases{
		Transmit: toa(5, 23, airtime.Uplink) + 3*toa(5, 16, airtime.Uplink), Windows: windows})
	if s := b.device.Stats(); s.Uplinks != 3 || s.Downlinks != 2 {
		t.Errorf("%+v", s)
	}
}

// TestPhasesOfSessions: a class C session listens from its start to its end but while the radio is needed elsewhere, and
// consumes the power measured on the board; a class B session listens in its slots, for frames, and for beacons.
func TestPhasesOfSessions(t *testing.T) {
	boot := grouped(0)
	boot[1] = modem.Session{ID: 2, Class: 'C', DR: mcDR, Frequency: mcFreq, Start: clock(time.Minute), End: clock(time.Hour + time.Minute)}
	app := &script{boot: boot}
	app.answer = func(m modem.Message) []modem.Message {
		if d, ok := m.(modem.Down); ok && string(d.Data) == "speak" {
			return []modem.Message{modem.Up{Port: 2, Data: []byte("spoken")}, idle}
		}
		return nil
	}
	b := newBench(t, app, nil)
	b.multicast(10*time.Minute, 10, "speak", mcNwk)
	b.wait(time.Minute - time.Second)
	before := b.device.Phases()
	if before.Session != 0 || before.Sleep == 0 {
		t.Errorf("before the session %+v", before)
	}
	b.wait(30 * time.Minute)
	half := b.device.Phases()
	if want := 29 * time.Minute; half.Session > want+time.Second || half.Session < want-2*time.Second {
		t.Errorf("half-way: %v of session, want %v", half.Session, want)
	}
	b.wait(2 * time.Hour)
	p := b.device.Phases()
	away := p.Transmit - before.Transmit + p.Windows - before.Windows
	if p.Session != time.Hour-away || away < rx1+rx2 || away > time.Second {
		t.Errorf("session %v and %v of other things, want an hour together", p.Session, away)
	}
	e := fleet.STM32WL.Of(p)
	if want := 24.83e-3 * 3600; math.Abs(e.Session-want) > want/1000 || e.Total() < e.Session || e.Total() > e.Session*1.01 {
		t.Errorf("%+v, want %.2f J for the session and little else", e, want)
	}
	if e := (fleet.Power{Receive: 48}).Of(p); math.Abs(e.Session-0.048*p.Session.Seconds()) > 1e-9 || e.Transmit != 0 {
		t.Errorf("another profile: %+v", e)
	}

	// From one beacon to the tenth after it, in the slots of periodicity 4 (eight in a period) of SF9.
	from := airtime.UTC(airtime.BeaconStart(airtime.GPS(epoch)) + airtime.BeaconPeriod).Sub(epoch)
	until := from + 10*airtime.BeaconPeriod
	boot[1] = modem.Session{ID: 2, Class: 'B', Periodicity: 4, DR: mcDR, Frequency: mcFreq, Start: clock(from), End: clock(until)}
	b = newBench(t, &script{boot: boot}, nil)
	slot := airtime.UTC(airtime.NextPingSlot(mcAddr, airtime.GPS(epoch.Add(from+5*time.Minute)), 4)).Sub(epoch)
	b.multicast(slot, 10, "hello", mcNwk)
	b.wait(until + airtime.BeaconPeriod)
	p = b.device.Phases()
	rate, err := airtime.EU868.DataRate(mcDR)
	b.must(err)
	frame := rate.TimeOnAir(13+5, airtime.Downlink)
	slots := 0
	for at := airtime.GPS(epoch.Add(from)); ; slots++ { // the device's clock begins its seconds within one
		if at = airtime.NextPingSlot(mcAddr, at, 4) + 1; at > airtime.GPS(epoch.Add(until)) {
			break
		}
	}
	each := airtime.PingSlotLength + 3*4096*time.Microsecond
	want := time.Duration(slots)*each + frame - airtime.PingSlotLength
	if d := p.Session - want; d < -2*each || d > 2*each || p.Beacons < 9*152576*time.Microsecond || p.Beacons > 10*152576*time.Microsecond {
		t.Errorf("class B: %+v, want %v in %d slots and a frame, and nine or ten beacons", p, want, slots)
	}
	if got := p.Transmit + p.Windows + p.Session + p.Beacons + p.Sleep; got != until+airtime.BeaconPeriod {
		t.Errorf("the phases add up to %v", got)
	}
}
