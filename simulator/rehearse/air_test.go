package rehearse

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/simulator/radio"
)

var airStart = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

// listen asks a process once a second about frames to or from a device and returns the share that is lost, the mean
// length of a stretch, and how often the frame before fared alike.
func listen(p radio.Process, device byte, kind radio.Kind, n int) (fates []bool, loss, stretch float64) {
	lost, stretches := 0, 0
	for i := range n {
		_, ok := p.Carry(radio.Key{Device: lorawan.EUI64{7: device}, Kind: kind, Counter: uint32(i)}, airStart.Add(time.Duration(i)*time.Second))
		if fates = append(fates, !ok); !ok {
			if lost++; i == 0 || !fates[i-1] {
				stretches++
			}
		}
	}
	return fates, float64(lost) / float64(n), float64(lost) / float64(max(stretches, 1))
}

// Losses come to the share of the device, alone or in stretches of the length that was asked for, and what interrupts
// the less lossy direction interrupts the other one.
func TestAirLinks(t *testing.T) {
	const n = 200_000
	for _, burst := range []time.Duration{0, 5 * time.Second, time.Minute} {
		for _, loss := range []float64{0.1, 0.4, 0.9} {
			p, err := Air{BurstTime: burst}.link(1, loss/2, loss, airStart)
			if err != nil {
				t.Fatal(err)
			}
			down, share, length := listen(p, 1, radio.Multicast, n)
			up, upShare, _ := listen(p, 1, radio.Uplink, n)
			tolerance := 0.02 * max(1, math.Sqrt(burst.Seconds()))
			if math.Abs(share-loss) > tolerance || math.Abs(upShare-loss/2) > tolerance {
				t.Errorf("bursts of %s: %.3f lost down and %.3f up, want %.3f and %.3f", burst, share, upShare, loss, loss/2)
			}
			want := 1 / (1 - loss)
			if burst > 0 {
				want = burst.Seconds()
			}
			// A stretch that is sampled once a second seems longer where pauses are short.
			if length < want*0.8 || loss < 0.5 && length > want*1.4+1 {
				t.Errorf("bursts of %s at %v: stretches of %.1f s, want %.1f", burst, loss, length, want)
			}
			inside, outside := 0, 0
			for i := range up {
				if up[i] && down[i] {
					inside++
				} else if up[i] {
					outside++
				}
			}
			if burst > 0 && outside > inside/4 {
				t.Errorf("bursts of %s at %v: %d uplinks lost while downlinks were heard, %d while not", burst, loss, outside, inside)
			}
		}
	}
}

// Outages strike all devices alike.
func TestAirOutages(t *testing.T) {
	a := Air{OutageEvery: time.Hour, OutageFor: 4 * time.Minute}
	plain, err := a.link(1, 0, 0, airStart)
	if err != nil {
		t.Fatal(err)
	}
	p, err := a.around(plain, 1, airStart)
	if err != nil {
		t.Fatal(err)
	}
	one, share, length := listen(p, 1, radio.Multicast, 400_000)
	other, _, _ := listen(p, 2, radio.Uplink, 400_000)
	if math.Abs(share-1.0/16) > 0.02 || length < 150 || length > 350 {
		t.Errorf("%.3f lost in stretches of %.0f s, want %.3f and 240 s", share, length, 1.0/16)
	}
	if fmt.Sprint(one) != fmt.Sprint(other) {
		t.Error("an outage strikes one device and not the other")
	}
}

func TestAirRefuses(t *testing.T) {
	for _, tt := range []struct {
		air Air
		say string
	}{
		{Air{BurstTime: time.Millisecond}, "burst time 1ms"},
		{Air{BurstTime: -time.Second}, "burst time -1s"},
		{Air{OutageEvery: time.Hour}, "both or neither"},
		{Air{OutageEvery: time.Hour, OutageFor: time.Millisecond}, "at least 1s"},
		{Air{Capture: -1}, "-1 dB"},
		{Air{Capture: math.NaN()}, "NaN dB"},
	} {
		if err := tt.air.Validate(); err == nil || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%+v: %v, want %q", tt.air, err, tt.say)
		}
	}
	for _, loss := range []float64{0, 0.5, 0.999, 1} { // every share of a device can be met
		for _, burst := range []time.Duration{100 * time.Millisecond, 24 * time.Hour} {
			if _, err := (Air{BurstTime: burst}).link(1, loss, loss, airStart); err != nil {
				t.Errorf("bursts of %s at a loss of %v: %v", burst, loss, err)
			}
		}
	}
}
