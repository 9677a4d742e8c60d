package experiment

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sower-fuota/sower/simulator/radio"
)

// Fit is what a trace says about the losses of a fleet.
type Fit struct {
	Devices, Frames, Lost int
	Spacing               time.Duration // median time between two frames of a device

	// MeanBurst is the mean number of frames lost in a row; independent losses have 1/(1-loss).
	MeanBurst float64
	// A and B are the Beta distribution of the loss of devices that has the mean and the variance observed, less the
	// variance that counting alone causes; zero if devices do not differ beyond that, or are fewer than 5.
	A, B float64
	// Spread is the estimated standard deviation of the loss between devices.
	Spread float64
}

// FitTrace estimates the parameters of loss models from what was received. It assumes that the frames of a device came
// at roughly equal distances.
func FitTrace(t *radio.Trace) (Fit, error) {
	f := Fit{Devices: len(t.Devices)}
	bursts := 0
	var gaps []time.Duration
	var loss []float64
	var noise float64
	for _, d := range t.Devices {
		lost := 0
		for i, r := range d.Records {
			if r.Lost {
				lost++
				if i == 0 || !d.Records[i-1].Lost {
					bursts++
				}
			}
			if i > 0 {
				gaps = append(gaps, r.At-d.Records[i-1].At)
			}
		}
		f.Frames += len(d.Records)
		f.Lost += lost
		if n := float64(len(d.Records)); n >= 10 {
			p := float64(lost) / n
			loss = append(loss, p)
			noise += p * (1 - p) / (n - 1)
		}
	}
	if len(gaps) == 0 {
		return f, fmt.Errorf("experiment: the trace has no device with two frames; nothing can be estimated")
	}
	slices.Sort(gaps)
	f.Spacing = gaps[len(gaps)/2]
	if bursts > 0 {
		f.MeanBurst = float64(f.Lost) / float64(bursts)
	}
	if len(loss) < 5 {
		return f, nil
	}
	n, sum, sum2 := float64(len(loss)), 0.0, 0.0
	for _, p := range loss {
		sum += p
		sum2 += p * p
	}
	mean := sum / n
	if f.MeanBurst > 1 && mean > 0 && mean < 1 {
		// Counting varies more where losses come in runs: by (1+c)/(1-c), with c the correlation of neighbours.
		c := max(0, 1-1/f.MeanBurst/(1-f.Loss()))
		noise *= (1 + c) / (1 - c)
	}
	variance := (sum2-n*mean*mean)/(n-1) - noise/n
	if variance > 0 && mean > 0 && variance < mean*(1-mean) {
		k := mean*(1-mean)/variance - 1
		f.A, f.B, f.Spread = mean*k, (1-mean)*k, math.Sqrt(variance)
	}
	return f, nil
}

// Loss is the share of frames lost.
func (f Fit) Loss() float64 { return float64(f.Lost) / float64(max(1, f.Frames)) }

// Bursty reports whether losses come in longer runs than independent ones would, by a quarter or more.
func (f Fit) Bursty() bool { return f.MeanBurst > 1.25/(1-f.Loss()) }

// Uneven reports whether devices differ by more than a quarter of the mean loss.
func (f Fit) Uneven() bool { return f.A > 0 && f.Spread > f.Loss()/4 }

// TOML returns the table [loss] of a scenario, with what was found as comments. Where devices differ, that is taken
// for the cause of runs of losses too: the model "beta" is proposed, since it is what decides the tail of a fleet.
func (f Fit) TOML() string {
	var b strings.Builder
	low, high := Wilson(f.Lost, f.Frames)
	fmt.Fprintf(&b, "# %d frames of %d devices, one every %v; loss %.4f (95 %% interval %.4f..%.4f if independent)\n",
		f.Frames, f.Devices, f.Spacing.Round(time.Millisecond), f.Loss(), low, high)
	fmt.Fprintf(&b, "# mean run of losses %.2f frames, %.2f if independent; standard deviation between devices %.4f\n",
		f.MeanBurst, 1/(1-f.Loss()), f.Spread)
	b.WriteString("[loss]\n")
	switch {
	case f.Uneven():
		fmt.Fprintf(&b, "model = \"beta\"\na = %.4f\nb = %.4f\n", f.A, f.B)
	case f.Bursty():
		fmt.Fprintf(&b, "model = \"gilbert-elliott\"\np = %.4f\nburst_time = \"%v\"\nstep = \"%v\"\n", f.Loss(),
			time.Duration(f.MeanBurst*float64(f.Spacing)).Round(time.Millisecond), max(f.Spacing.Round(time.Millisecond), time.Millisecond))
	default:
		fmt.Fprintf(&b, "model = \"iid\"\np = %.4f\n", f.Loss())
	}
	return b.String()
}
