package experiment

import (
	"math"
	"strings"
	"testing"
)

// binomialTail is P(Bin(n, p) >= k) by the normal approximation with continuity correction and, where few are expected
// on either side, exactly.
func binomialTail(n, k int, p float64) float64 {
	if p <= 0 || p >= 1 {
		if p >= 1 || k <= 0 {
			return 1
		}
		return 0
	}
	if few := n - k; float64(n)*(1-p) < 400 && few < 2000 { // count the failures
		sum := 0.0
		for i := 0; i <= few; i++ {
			sum += binomial(n, i, 1-p)
		}
		return min(1, sum)
	}
	z := (float64(k) - 0.5 - float64(n)*p) / math.Sqrt(float64(n)*p*(1-p))
	return 0.5 * math.Erfc(z/math.Sqrt2)
}

// TestRedundancyIsWithinSamplingError looks at the published redundancy integers (T13) as what they are, quantiles of
// samples of 20,000 devices: from the distribution of a sample a hundred times as large follows how likely each of them
// is. Where they differ by more than 3 from ours, samples of 20,000 differ by as much among each other; no integer is
// beyond what chance does. The short form looks at one fleet.
func TestRedundancyIsWithinSamplingError(t *testing.T) {
	const reference = 20000
	only, devices := "t13-m100-ge4", 200_000
	if proof {
		only, devices = "t13-", 2_000_000
	}
	rows, err := expectations()
	if err != nil {
		t.Fatal(err)
	}
	results := map[string]Result{}
	count, wide, off := 0, 0, 0
	for _, row := range rows {
		if !strings.HasPrefix(row.name, only) {
			continue
		}
		count++
		text, err := published.ReadFile(publishedDir + "/" + row.name + ".toml")
		if err != nil {
			t.Fatal(err)
		}
		p, err := Points(text)
		if err != nil {
			t.Fatal(err)
		}
		s := p[0].Scenario
		if _, ok := results[row.name]; !ok {
			s.Devices, s.Reps = devices, 1
			if row.name == "t13-m500-iid40" {
				s.Devices = devices / 10 // 8000 sessions a second
			}
			sim, err := NewSimulator(Point{Scenario: s}, nil)
			if err != nil {
				t.Fatal(err)
			}
			r, err := sim.Run(0)
			if err != nil {
				t.Fatal(err)
			}
			results[row.name] = r
		}
		r := results[row.name]
		q := map[string]float64{"parity_p50": 0.5, "parity_p90": 0.9, "parity_p99": 0.99, "parity_p999": 0.999}[row.metric]
		k := int(math.Ceil(q*reference - 1e-9))
		// below(x) is the probability that the quantile of a sample of 20,000 is at most x.
		below := func(x int) float64 {
			return binomialTail(reference, k, float64(r.CompleteAt(s.Block.Fragments+x))/float64(r.Devices))
		}
		ours, ok := r.Quantile(q)
		if !ok {
			t.Errorf("%s %s: not reached", row.name, row.metric)
			continue
		}
		ours -= s.Block.Fragments
		x := int(row.want)
		atMost, atLeast := below(x), 1-below(x-1)
		low, high := ours, ours // where 99.7 % of the samples have their quantile
		for low > 0 && below(low-1) > 0.0015 {
			low--
		}
		for high < 5000 && below(high) < 0.9985 {
			high++
		}
		note := ""
		if high-ours > 3 || ours-low > 3 {
			wide++
			note = "; wider than ±3"
		}
		if math.Abs(float64(x-ours)) > 3 {
			off++
			note += "; published is off by more than 3"
		}
		t.Logf("%-15s %-11s published %3d, %d devices give %3d; samples of 20,000: %d..%d, P(<= published) %.4f, P(>= published) %.4f%s",
			row.name, row.metric, x, r.Devices, ours, low, high, atMost, atLeast, note)
		if atMost < 0.0005 || atLeast < 0.0005 { // two sides and 55 integers: a false alarm in 1 of 20 runs
			t.Errorf("%s %s: published %d is no quantile of a sample of 20,000 of this model", row.name, row.metric, x)
		}
	}
	t.Logf("%d integers; for %d of them samples of 20,000 scatter by more than ±3; %d published ones are off by more than 3", count, wide, off)
	if proof && count < 55 || count < 4 {
		t.Errorf("%d integers looked at", count)
	}
}
