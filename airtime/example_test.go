package airtime_test

import (
	"fmt"
	"time"

	"github.com/sower-fuota/sower/airtime"
)

// How many fragments of a firmware update may one gateway send per hour, and how large are they?
func Example() {
	region := airtime.EU868
	frequency, _ := region.RX2()
	band, err := region.SubBand(frequency)
	if err != nil {
		panic(err)
	}
	for _, dr := range []int{0, 3, 5} {
		rate, err := region.DataRate(dr)
		if err != nil {
			panic(err)
		}
		n, err := region.MaxPayload(dr, airtime.Link{Direction: airtime.Downlink})
		if err != nil {
			panic(err)
		}
		toa := rate.TimeOnAir(n+airtime.PHYOverhead, airtime.Downlink)
		fmt.Printf("DR%d %v: %d bytes in %v, %d an hour\n", dr, rate, n, toa, band.Allowance()/toa)
	}
	// Output:
	// DR0 SF12/125kHz: 51 bytes in 2.793472s, 128 an hour
	// DR3 SF9/125kHz: 115 bytes in 676.864ms, 531 an hour
	// DR5 SF7/125kHz: 242 bytes in 394.496ms, 912 an hour
}

func ExampleLedger() {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	band, err := airtime.EU868.SubBand(868_100_000)
	if err != nil {
		panic(err)
	}
	ledger, err := airtime.NewLedger(band.Allowance(), airtime.DutyWindow) // 36 s in any hour
	if err != nil {
		panic(err)
	}
	ledger.Record(now, 30*time.Second) // sent by somebody else

	next, err := ledger.EarliestStart(now.Add(time.Minute), 10*time.Second)
	if err != nil {
		panic(err)
	}
	fmt.Println(next.Sub(now))
	fmt.Println(ledger.Reserve(now.Add(time.Minute), 6*time.Second))
	fmt.Println(ledger.Used(now.Add(2 * time.Minute)))
	// Output:
	// 59m54s
	// <nil>
	// 36s
}

func ExampleFromGPSSeconds() {
	now := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	session := airtime.GPSSeconds(now.Add(time.Hour)) // SessionTime of TS005
	fmt.Println(session, airtime.FromGPSSeconds(session, now))
	// Output: 1479366018 2026-11-22 07:00:00 +0000 UTC
}

func ExampleNextPingSlot() {
	const group, periodicity = 0x01020304, 4 // 8 slots in 128 s
	gps := airtime.GPS(time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC))
	toa := 400 * time.Millisecond
	for range 3 {
		slot := airtime.NextPingSlot(group, gps, periodicity)
		fmt.Println(airtime.UTC(slot).Format("15:04:05.000"), airtime.ClearOfBeacon(slot, toa))
		gps = slot + toa
	}
	// Output:
	// 06:00:18.220 true
	// 06:00:33.580 true
	// 06:00:48.940 true
}
