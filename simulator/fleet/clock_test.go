package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// TestDriftingClock: a clock that is fast by 100 ppm shows ten hours when 3.6 s of them are still missing, opens its class
// C session then, and ticks faster; one that is slow is late.
func TestDriftingClock(t *testing.T) {
	for _, tt := range []struct {
		ppm  float64
		want []string
	}{
		{100, []string{"down 2 201 2 s before", "down 2 201 on time", "down 2 201 5 s after"}},
		{0, []string{"down 2 201 on time", "down 2 201 5 s after"}},
		{-100, []string{"down 2 201 5 s after"}},
	} {
		const start = 10 * time.Hour
		boot := grouped(0)
		boot[1] = modem.Session{ID: 2, Class: 'C', DR: mcDR, Frequency: mcFreq, Start: clock(start), End: clock(start + time.Minute)}
		app := &script{boot: boot}
		app.answer = func(m modem.Message) []modem.Message {
			if l, ok := m.(modem.Link); ok {
				return []modem.Message{modem.IdleUntil{Time: l.Time + 3_600_000}}
			}
			return nil
		}
		ticked := time.Time{}
		b := newBench(t, app, func(c *fleet.DeviceConfig) { c.Drift = tt.ppm })
		linked := time.Time{}
		answer := app.answer
		app.answer = func(m modem.Message) []modem.Message {
			switch m.(type) {
			case modem.Link:
				linked = b.world.Now()
			case modem.Tick:
				ticked = b.world.Now()
			}
			return answer(m)
		}
		b.multicast(start-5*time.Second, 10, "5 s before", mcNwk)
		b.multicast(start-2*time.Second, 11, "2 s before", mcNwk)
		b.multicast(start+1500*time.Millisecond, 12, "on time", mcNwk) // clocks begin their seconds within one
		b.multicast(start+5*time.Second, 13, "5 s after", mcNwk)
		b.run(11 * time.Hour)
		var downs []string
		for _, turn := range app.turns {
			if strings.HasPrefix(turn, "down") {
				downs = append(downs, turn)
			}
		}
		b.want(fmt.Sprintf("%v ppm", tt.ppm), downs, tt.want...)
		hour := ticked.Sub(linked).Seconds()
		if want := 3600 / (1 + tt.ppm/1e6); hour < want-0.002 || hour > want+0.002 {
			t.Errorf("%v ppm: an hour of the device takes %.3f s, want %.3f", tt.ppm, hour, want)
		}
	}
}

// noBeacons loses every beacon between two instants and nothing else.
type noBeacons struct{ from, until time.Time }

func (p noBeacons) Carry(k radio.Key, at time.Time) (radio.Signal, bool) {
	return radio.Signal{}, k.Kind != radio.Beacon || at.Before(p.from) || !at.Before(p.until)
}

// TestMissedBeacons sends a frame in the middle of every beacon period for four hours, of which a device misses the
// beacons of three. Its ping slots move with its clock until it hears nothing, unless it widens them; after two hours
// it gives up, and the next beacon brings it back.
func TestMissedBeacons(t *testing.T) {
	const periodicity, hours = 4, 4
	lossFrom, lossUntil := epoch.Add(30*time.Minute), epoch.Add(210*time.Minute)
	for _, tt := range []struct {
		name             string
		drift, tolerance float64
		dr               uint8
		deafFrom         time.Duration // since the last beacon heard
	}{
		// 3 symbols of SF9 are 12.288 ms, of SF7 3.072 ms; a ping slot is 30 ms.
		{"exact", 0, 0, 3, 2 * time.Hour},
		{"slow, SF9", -10, 0, 3, time.Duration(12.288e6 / 10e-6)},
		{"slow, SF7", -10, 0, 5, time.Duration(3.072e6 / 10e-6)},
		{"fast, SF9", 10, 0, 3, time.Duration(30e6 / 10e-6)},
		{"slow, widened", -10, 10, 3, 2 * time.Hour},
		{"fast, widened", 10, 10, 3, 2 * time.Hour},
		{"slow, widened too little", -30, 25, 3, time.Duration(12.288e6 / 5e-6)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world.New(epoch)
			medium := radio.NewMedium(w, radio.EU868(), noBeacons{lossFrom, lossUntil})
			f, err := fleet.New(fleet.Config{World: w, Medium: medium})
			if err != nil {
				t.Fatal(err)
			}
			app := &sensor{boot: []modem.Message{
				modem.SetMcGroup{ID: 0, Defined: true, Addr: mcAddr, AppSKey: mcApp, NwkSKey: mcNwk, MaxFCnt: 1 << 16},
				modem.Session{ID: 0, Class: 'B', Periodicity: periodicity, DR: tt.dr, Frequency: mcFreq, Start: clock(0), End: clock((hours + 1) * time.Hour)},
			}}
			d, err := f.Add(fleet.DeviceConfig{EUI: devEUI, AppKey: appKey, Drift: tt.drift, Tolerance: tt.tolerance, App: app})
			if err != nil {
				t.Fatal(err)
			}
			g, err := medium.NewGateway(gateway, nil)
			if err != nil {
				t.Fatal(err)
			}
			b := &bench{t: t, world: w, gateway: g}
			last := airtime.BeaconStart(airtime.GPS(lossFrom) - 1) // beacon heard
			back := airtime.BeaconStart(airtime.GPS(lossUntil)-1) + airtime.BeaconPeriod
			expected, frames := 0, 0
			for at := airtime.BeaconStart(airtime.GPS(epoch)) + airtime.BeaconPeriod; at < airtime.GPS(epoch.Add(hours*time.Hour)); at += airtime.BeaconPeriod {
				slot := airtime.NextPingSlot(mcAddr, at+airtime.BeaconPeriod/2, periodicity)
				frames++
				if slot < last || slot >= back || slot-last <= tt.deafFrom {
					expected++
				}
				var addr lorawan.DevAddr
				copy(addr[:], []byte{mcAddr >> 24, mcAddr >> 16 & 0xff, mcAddr >> 8 & 0xff, mcAddr & 0xff})
				phy := b.data(lorawan.UnconfirmedDataDown, addr, uint32(frames), false, 201, "x", mcApp, mcNwk)
				w.At(airtime.UTC(slot), "send", func() { b.transmit(phy, mcFreq, int(tt.dr), w.Now()) })
			}
			b.run(hours*time.Hour + time.Minute)
			s := d.Stats()
			// Nobody answers its join requests, during which it is deaf though its slot is open.
			if s.Multicasts+s.MulticastsDeaf != expected || s.MulticastsDeaf > 5 {
				t.Errorf("heard %d of %d frames, want %d (%+v)", s.Multicasts, frames, expected, s)
			}
			if missed := int((back - last) / airtime.BeaconPeriod); s.BeaconsLost != missed-1 {
				t.Errorf("%d beacons lost, want %d", s.BeaconsLost, missed-1)
			}
		})
	}
}
