package experiment

import (
	"math"
	"math/bits"
	"slices"

	"github.com/sower-fuota/sower/simulator/radio"
)

// Wilson returns the 95 % confidence interval of a proportion by Wilson's score method.
func Wilson(hits, n int) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	const z = 1.959963984540054
	// Explicit conversions forbid fused operations: the same digits on every processor.
	p, N := float64(hits)/float64(n), float64(n)
	z2n := float64(z*z) / N
	middle := (p + float64(z2n/2)) / (1 + z2n)
	half := float64(z*math.Sqrt(float64(float64(p*(1-p))/N)+z2n/float64(4*N))) / (1 + z2n)
	return max(0, middle-half), min(1, middle+half)
}

// resamples of a bootstrap: the 25th lowest and the 25th highest of 999 are the ends of the 95 % interval.
const resamples = 999

// Bootstrap returns 95 % confidence intervals of the sums of columns, each of which has a value for every repetition,
// by the percentile bootstrap over repetitions: a resample draws as many repetitions as there are, with replacement,
// and the same ones for all columns. The draws are a function of seed and the number of repetitions alone, and
// sums are integers, so the result is the same on every processor and however the work was divided. ok is false with
// fewer than two repetitions.
//
// Repetitions are independent even where devices are not (outages strike all of them), which Wilson's interval for a
// share does not know. With few repetitions the interval is too narrow: with 10 of them it covers some 90 %.
//
// Source: Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 13.
func Bootstrap(seed uint64, columns ...[]int64) (intervals [][2]int64, ok bool) {
	n := uint64(len(columns[0]))
	if n < 2 {
		return nil, false
	}
	sums := make([][]int64, len(columns))
	for c := range sums {
		sums[c] = make([]int64, resamples)
	}
	for r := range uint64(resamples) {
		key := radio.Hash(seed, n, r)
		for d := range n {
			i, _ := bits.Mul64(radio.Mix(key+d), n) // the high half maps 64 uniform bits to 0..n-1
			for c, column := range columns {
				sums[c][r] += column[i]
			}
		}
	}
	for c := range sums {
		slices.Sort(sums[c])
		const tail = (resamples + 1) / 40
		intervals = append(intervals, [2]int64{sums[c][tail-1], sums[c][resamples-tail]})
	}
	return intervals, true
}

// bootstrapCells are the two ends of intervals as they stand in summary.csv; empty with fewer than two repetitions.
type bootstrapCells struct{ share, sent, time, energy []string }

func (s *Scenario) bootstrap(point int, results []Result) bootstrapCells {
	n := len(results)
	columns := make([][]int64, 4)
	for _, r := range results {
		for c, v := range []int64{int64(r.Complete), int64(r.Sent), int64(r.Time), s.energy(r, 1)} {
			columns[c] = append(columns[c], v)
		}
	}
	intervals, ok := Bootstrap(radio.Hash(s.Seed, uint64(point), 'b'), columns...)
	if !ok {
		none := []string{"", ""}
		return bootstrapCells{none, none, none, none}
	}
	cells := func(c int, unit float64) []string {
		return []string{decimals(float64(intervals[c][0])/(unit*float64(n)), 6), decimals(float64(intervals[c][1])/(unit*float64(n)), 6)}
	}
	return bootstrapCells{cells(0, float64(s.Devices)), cells(1, 1), cells(2, 1e9), cells(3, 1e9)}
}
