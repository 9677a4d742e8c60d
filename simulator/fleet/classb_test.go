package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
)

// A device hears what begins in its ping slots: nothing in the slots beside them, and nothing where they were in the beacon
// period before.
func TestPingSlotsAreWhereTheAddressSays(t *testing.T) {
	for _, periodicity := range []uint8{0, 3, 7} {
		t.Run(fmt.Sprint(periodicity), func(t *testing.T) {
			const periods = 12
			boot := grouped(0)
			boot[1] = modem.Session{ID: 2, Class: 'B', Periodicity: periodicity, DR: mcDR, Frequency: mcFreq,
				Start: clock(time.Minute), End: clock((periods + 2) * airtime.BeaconPeriod)}
			b := newBench(t, &script{boot: boot}, nil)
			want := []string{"power up", "link true 242"}
			first := airtime.BeaconStart(airtime.GPS(epoch)) + 2*airtime.BeaconPeriod
			for k := range periods {
				beacon := first + time.Duration(k)*airtime.BeaconPeriod
				slot := airtime.PingSlot(mcAddr, beacon, periodicity, airtime.PingNb(periodicity)/2)
				send := func(at time.Duration, text string) { b.multicast(airtime.UTC(at).Sub(epoch), uint32(k+3), text, mcNwk) }
				switch k % 4 {
				case 0:
					send(slot-airtime.PingSlotLength, "early")
				case 1:
					send(slot+airtime.PingSlotLength, "late")
				case 2:
					before := airtime.PingSlot(mcAddr, beacon-1, periodicity, airtime.PingNb(periodicity)/2) + airtime.BeaconPeriod
					if before == slot {
						t.Fatal("the offset of two beacon periods is the same")
					}
					send(before, "as before")
				case 3:
					text := fmt.Sprintf("in slot %d", k)
					send(slot, text)
					want = append(want, "down 2 201 "+text)
				}
			}
			b.run((periods + 3) * airtime.BeaconPeriod)
			b.want("turns", b.app.turns, want...)
		})
	}
}

// While a frame lasts longer than its slot is open, the device is busy with it: the energy of a session is that of its slots
// and of what frames take beyond them, and a longer distance of the slots is cheaper.
func TestFewerPingSlotsTakeLess(t *testing.T) {
	var before time.Duration
	for periodicity := range uint8(8) {
		boot := grouped(0)
		from := airtime.UTC(airtime.BeaconStart(airtime.GPS(epoch)) + airtime.BeaconPeriod).Sub(epoch)
		boot[1] = modem.Session{ID: 2, Class: 'B', Periodicity: periodicity, DR: mcDR, Frequency: mcFreq,
			Start: clock(from), End: clock(from + 8*airtime.BeaconPeriod)}
		b := newBench(t, &script{boot: boot}, nil)
		b.wait(from + 9*airtime.BeaconPeriod)
		p := b.device.Phases()
		slot := airtime.PingSlotLength + 3*4096*time.Microsecond
		most := time.Duration(8*airtime.PingNb(periodicity)) * slot
		// The clock of a device begins its seconds somewhere in one, and so its session.
		if p.Session > most || p.Session < most-2*slot {
			t.Errorf("periodicity %d: %s, want %s", periodicity, p.Session, most)
		}
		if periodicity > 0 && p.Session >= before {
			t.Errorf("periodicity %d takes %s, the one before %s", periodicity, p.Session, before)
		}
		before = p.Session
		if e := (fleet.Power{Receive: 10}).Of(p); e.Session != 0.01*p.Session.Seconds() {
			t.Errorf("%v J in %s", e.Session, p.Session)
		}
	}
}
