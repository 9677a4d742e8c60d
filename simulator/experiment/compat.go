package experiment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/sower-fuota/sower/airtime"
)

// FUOTASim computes what the simulator FUOTASim (Abdelfadeel et al., 2020; github.com/kqorany/FUOTASim) prints, with
// its assumptions, some of which are not LoRaWAN's: no erasure code (a device is done with any M+3 fragments), a payload
// CRC and 8 bytes of MAC overhead on downlinks, 2 bytes of fragment header, a shadowing of mean -sigma that is drawn anew
// for each fragment, beacons at the data rate of the session, a run that ends at a beacon. Its bit errors never happen
// because of a factor of 1000 in the noise bandwidth, so they are left out. Use it to compare, and [Scenario] to know.
type FUOTASim struct {
	Devices     int
	DataRate    int // 0..6 of EU868
	ClassB      bool
	Periodicity int // 0..7, class B
	Firmware    int // bytes
	Fragment    int // bytes, header included
	Redundancy  int // fragments
}

// FUOTASimResult is what the simulator prints at its end.
type FUOTASimResult struct {
	Sent   int
	Need   int // fragments that make a device complete
	Lost   int // of all devices, until they were complete
	Time   time.Duration
	Energy float64 // of all devices, J
}

// Constants of FUOTASim.
const (
	fsReceive = 16.0 * 3  // mW
	fsIdle    = 0.006 * 3 // mW
	fsSlot    = 30 * time.Millisecond
)

var fsSensitivity = [...]float64{-137, -134, -132, -129, -126, -123, -120}

// Validate refuses what the simulator has no answer for.
func (c FUOTASim) Validate() error {
	switch {
	case c.Devices < 1 || c.Devices > 100_000:
		return bad("devices", c.Devices, "1..100000")
	case c.DataRate < 0 || c.DataRate > 6:
		return bad("data rate", c.DataRate, "0..6")
	case c.Periodicity < 0 || c.Periodicity > 7:
		return bad("periodicity", c.Periodicity, "0..7")
	case c.Fragment < 3 || c.Fragment > 247:
		return bad("fragment", c.Fragment, "3..247 bytes")
	case c.Firmware < 1 || c.Firmware > 10_000_000:
		return bad("firmware", c.Firmware, "1..10000000 bytes")
	case c.Redundancy < 0 || c.Redundancy > 1_000_000:
		return bad("redundancy", c.Redundancy, "0..1000000 fragments")
	}
	return nil
}

func (c FUOTASim) timeOnAir(payload int) time.Duration {
	dr, err := airtime.EU868.DataRate(c.DataRate)
	if err != nil {
		return 0
	}
	return airtime.LoRa{SpreadingFactor: dr.SpreadingFactor, Bandwidth: dr.Bandwidth, CodingRate: 1, Preamble: 8, CRC: true}.TimeOnAir(8 + payload)
}

// Run simulates once. Times are exact; the losses are drawn from the same distributions, not from the same generator.
func (c FUOTASim) Run(seed uint64) (FUOTASimResult, error) {
	if err := c.Validate(); err != nil {
		return FUOTASimResult{}, err
	}
	rng := rand.New(rand.NewPCG(seed, uint64(c.Devices)))
	m := (c.Firmware + c.Fragment - 3) / (c.Fragment - 2)
	r := FUOTASimResult{Sent: m + c.Redundancy, Need: m + 3}
	type device struct {
		loss     float64 // mean path loss, dB
		sigma    float64
		received int
		done     bool
		rx       time.Duration
	}
	maxDistance := 37.27 * math.Pow(10, (2+137-132.54)/8) // m, where 2 dBm just reach the best sensitivity
	devices := make([]device, c.Devices)
	for i := range devices {
		d := max(rng.Float64(), rng.Float64()) * maxDistance // uniform in a disc
		if d < 400 {
			devices[i] = device{loss: 128.63 + 10.5*math.Log10(d/92.67), sigma: 8.72}
		} else {
			devices[i] = device{loss: 132.54 + 8*math.Log10(d/37.27), sigma: 3.34}
		}
	}
	toa, beacon := c.timeOnAir(c.Fragment), c.timeOnAir(17)
	slotPeriod := fsSlot << 5 << c.Periodicity // 0.96 s * 2^P
	empty := 9 * toa / slotPeriod
	period := beacon + airtime.BeaconPeriod
	var now, lastEnd time.Duration
	beaconsHeard := time.Duration(0)
	hear := func() {
		for beaconsHeard*period+beacon <= now {
			for i := range devices {
				if !devices[i].done {
					devices[i].rx += beacon
				}
			}
			beaconsHeard++
		}
	}
	for n := range r.Sent {
		if c.ClassB {
			if start := now / period * period; now < start+beacon { // within a beacon: a random offset after it
				now = max(now, start+beacon+time.Duration(rng.IntN(128>>c.Periodicity+1))*fsSlot)
			}
		}
		now += toa
		if c.ClassB {
			hear()
		}
		for i := range devices {
			d := &devices[i]
			if d.done {
				continue
			}
			lost := 14+8-(d.loss+d.sigma*(rng.NormFloat64()-1)) < fsSensitivity[c.DataRate]
			if lost {
				r.Lost++
			} else if d.received++; d.received >= r.Need {
				d.done = true
			}
			switch {
			case !c.ClassB:
				d.rx = now
			case lost:
				d.rx += fsSlot
			default:
				d.rx += toa
			}
		}
		lastEnd = now
		if n == r.Sent-1 {
			break
		}
		if !c.ClassB {
			now += 9 * toa
			continue
		}
		for i := range devices {
			devices[i].rx += empty * fsSlot
		}
		now += (empty + 1) * slotPeriod
	}
	r.Time = lastEnd
	if c.ClassB {
		// The process that sends beacons notices the end when it wakes up next.
		if in := lastEnd % period; in <= beacon {
			r.Time += beacon - in
		} else {
			r.Time += period - in
		}
	}
	for _, d := range devices {
		r.Energy += d.rx.Seconds() * fsReceive / 1e3
		if c.ClassB {
			r.Energy += (r.Time - d.rx).Seconds() * fsIdle / 1e3
		}
	}
	return r, nil
}

// Mean runs the simulation with seeds 1..n and returns the mean energy and loss, with their standard deviations.
func (c FUOTASim) Mean(n int) (mean FUOTASimResult, energySD, lostMean, lostSD float64, err error) {
	var e, e2, l, l2 float64
	for seed := range n {
		r, err := c.Run(uint64(seed + 1))
		if err != nil {
			return r, 0, 0, 0, err
		}
		mean = r
		e, e2 = e+r.Energy, e2+r.Energy*r.Energy
		l, l2 = l+float64(r.Lost), l2+float64(r.Lost)*float64(r.Lost)
	}
	k := float64(n)
	mean.Energy = e / k
	sd := func(sum, sum2 float64) float64 { return math.Sqrt(max(0, (sum2-sum*sum/k)/max(1, k-1))) }
	return mean, sd(e, e2), l / k, sd(l, l2), nil
}

// FUOTAA predicts the sessions that were measured on STM32WL55 boards for FUOTAA (github.com/klementc/fuotaa-reprod): one device asks every 30 s for an object, is set up by unicast, waits for 300 s, and receives it in
// class C from a server that keeps 10 % duty cycle.
//
// That server reckons time on air as for an uplink (payload CRC), of the fragment and 9 bytes, and with the low data
// rate optimisation at every spreading factor, which LoRaWAN has for SF11 and SF12 only; the pause between two fragments
// is 9 times that. It explains the intervals that were measured at all six data rates to 0.3 %.
type FUOTAA struct {
	DataRate int // 0..5 of EU868
	Bytes    int // of the object
	Fragment int // bytes, TS004 header included
}

// FUOTAAResult is the course of a session.
type FUOTAAResult struct {
	Fragments int
	Interval  time.Duration // between the beginnings of two fragments
	Time      time.Duration // from the first request to the end of the last fragment
	Energy    float64       // J, of the board
}

// fuotaaListening is when the measured boards began to listen continuously, and what they consumed then: the straight
// line through energy over time of the 30 sessions. Before it they consume next to nothing.
const (
	fuotaaListening = 339.5   // s
	fuotaaReceive   = 0.02483 // W
)

// Run computes the session.
func (c FUOTAA) Run() (FUOTAAResult, error) {
	dr, err := airtime.EU868.DataRate(c.DataRate)
	switch {
	case err != nil || c.DataRate > 5:
		return FUOTAAResult{}, bad("data rate", c.DataRate, "0..5")
	case c.Fragment < 4 || c.Fragment > 242:
		return FUOTAAResult{}, bad("fragment", c.Fragment, "4..242 bytes")
	case c.Bytes < 1 || c.Bytes > 10_000_000:
		return FUOTAAResult{}, bad("bytes", c.Bytes, "1..10000000")
	}
	r := FUOTAAResult{Fragments: (c.Bytes + c.Fragment - 1) / c.Fragment}
	sf, n := dr.SpreadingFactor, 9+c.Fragment
	blocks := (8*n - 4*sf + 28 + 16 + 4*(sf-2) - 1) / (4 * (sf - 2)) // with the optimisation, always
	symbol := time.Duration(1<<sf) * time.Second / time.Duration(dr.Bandwidth)
	reckoned := symbol*12 + symbol/4 + symbol*time.Duration(8+5*blocks)
	r.Interval = 9 * reckoned

	up := dr.TimeOnAir(18, airtime.Uplink)
	down := dr.TimeOnAir(42, airtime.Downlink)
	const delay = time.Second                                        // RX1
	setup := 300*time.Second + 3*up + 2*(delay+down) + 5*time.Second // ten requests, then the exchange
	first := setup + 300*time.Second + delay + dr.TimeOnAir(c.Fragment+airtime.PHYOverhead, airtime.Downlink)
	r.Time = first + time.Duration(r.Fragments-1)*r.Interval
	r.Energy = max(0, r.Time.Seconds()-fuotaaListening) * fuotaaReceive
	return r, nil
}

// String describes a row in the words of the simulator's documentation.
func (c FUOTASim) String() string {
	class := "C"
	if c.ClassB {
		class = fmt.Sprintf("B/%d", c.Periodicity)
	}
	return fmt.Sprintf("%d devices, DR%d, class %s, %d bytes in %d, %d redundant", c.Devices, c.DataRate, class, c.Firmware, c.Fragment, c.Redundancy)
}
