package fragmentation

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestDecodeProbability(t *testing.T) {
	if got := DecodeProbability(-1); got != 0 {
		t.Errorf("fewer fragments than M decode with probability %v", got)
	}
	// Published figures of a uniformly random binary matrix.
	for extra, want := range []float64{0.7112, 0.4224, 0.2299, 0.1199, 0.0612, 0.0309, 0.0155, 0.0078, 0.0039} {
		if got := 1 - DecodeProbability(extra); math.Abs(got-want) > 6e-5 {
			t.Errorf("P(failure | %d extra) = %.5f, want %.4f", extra, got, want)
		}
	}
	sum := 0.0
	for extra := range 80 {
		sum += 1 - DecodeProbability(extra)
	}
	if math.Abs(sum-meanExtra) > 1e-4 {
		t.Errorf("mean extra %v, the constant says %v", sum, meanExtra)
	}
}

// The published table of exact quantiles.
func TestFragmentsForTable(t *testing.T) {
	table := []struct {
		m    int
		p    float64
		want [4]int
	}{
		{100, .05, [4]int{115, 119, 122, 130}}, {100, .10, [4]int{123, 128, 132, 140}}, {100, .20, [4]int{142, 148, 153, 163}},
		{100, .30, [4]int{166, 174, 181, 193}}, {300, .05, [4]int{329, 333, 337, 345}}, {300, .10, [4]int{351, 357, 362, 371}},
		{300, .20, [4]int{401, 410, 417, 430}}, {300, .30, [4]int{464, 476, 486, 504}}, {300, .50, [4]int{663, 684, 702, 732}},
		{1000, .05, [4]int{1073, 1080, 1085, 1095}}, {1000, .10, [4]int{1140, 1150, 1158, 1171}}, {1000, .20, [4]int{1295, 1309, 1322, 1342}},
		{1000, .30, [4]int{1490, 1510, 1527, 1556}}, {1000, .50, [4]int{2110, 2146, 2177, 2228}},
	}
	for _, row := range table {
		for i, q := range []float64{1e-2, 1e-3, 1e-4, 1e-6} {
			if got, err := FragmentsFor(row.m, row.p, q); err != nil || got != row.want[i] {
				t.Errorf("FragmentsFor(%d, %v, %v) = %d, %v; want %d", row.m, row.p, q, got, err, row.want[i])
			}
		}
	}
}

func TestMathsRefuses(t *testing.T) {
	nan := math.NaN()
	for _, bad := range []struct {
		m    int
		p, q float64
	}{{0, .1, .1}, {16384, .1, .1}, {10, 1, .1}, {10, -.1, .1}, {10, nan, .1}, {10, .1, 0}, {10, .1, 1}, {10, .1, nan}, {16000, .5, .01}} {
		if n, err := FragmentsFor(bad.m, bad.p, bad.q); !errors.Is(err, ErrLimit) || n != 0 {
			t.Errorf("FragmentsFor(%+v) = %d, %v; want ErrLimit", bad, n, err)
		}
	}
	for _, bad := range []struct {
		m       int
		link    Link
		allowed float64
	}{
		{0, Link{.1, 0, 10}, 1}, {10, Link{1, 0, 10}, 1}, {10, Link{nan, 0, 10}, 1}, {10, Link{.1, .5, 10}, 1}, {10, Link{.1, -1, 10}, 1},
		{10, Link{.1, 0, -10}, 1}, {10, Link{.1, 0, 10}, 0}, {10, Link{.1, 0, 10}, nan}, {16000, Link{.5, 0, 10}, 1},
	} {
		if n, err := FleetFragments(bad.m, []Link{bad.link}, bad.allowed); !errors.Is(err, ErrLimit) || n != 0 {
			t.Errorf("FleetFragments(%+v) = %d, %v; want ErrLimit", bad, n, err)
		}
	}
	if BetaFleet(0, 1, 10) != nil || BetaFleet(1, nan, 10) != nil {
		t.Error("BetaFleet takes parameters that are no distribution")
	}
	for _, tt := range []struct {
		got, want float64
	}{
		{FailureProbability(10, 9, 0), 1}, {FailureProbability(10, 10, 0), 0}, {FailureProbability(10, 100, 1), 1},
		{OverCap(10, 10, .5), 0}, {OverCap(10, -1, .5), 1}, {OverCap(10, 0, 0), 0}, {OverCap(10, 3, 1), 1},
		{float64(TopUp(0, 5, 10, 1)), 0}, {float64(TopUp(5, -7, -3, 0)), 14}, {float64(TopUp(MaxIndex, 0, 100, 3)), MaxIndex}, {BurstFactor(0, 8), 1}, {BurstFactor(.1, 0), 1},
	} {
		if tt.got != tt.want {
			t.Errorf("%v, want %v", tt.got, tt.want)
		}
	}
}

// FailureProbability is what the rank-only decoder measures: at the length of which the formula
// says q, a share q of simulated devices is incomplete.
func TestFailureProbabilityIsMeasured(t *testing.T) {
	for _, tt := range []struct {
		m       int
		p       float64
		chosen  bool
		percent float64 // how far the code may be from the formula
	}{{300, .05, true, 12}, {300, .10, false, 8}, {300, .20, false, 8}, {329, .30, false, 8}, {40, .10, true, 50}, {100, .05, true, 40}} {
		for _, q := range []float64{0.3, 0.05} {
			sent, err := FragmentsFor(tt.m, tt.p, q)
			if err != nil {
				t.Fatal(err)
			}
			list := Sequence(tt.m, sent-tt.m)
			if tt.chosen {
				if list, _, err = ParityList(tt.m, V1, sent-tt.m, tt.p); err != nil {
					t.Fatal(err)
				}
			}
			n := trials(20000, 500000)
			o := Measure(mustCode(t, tt.m, V1, list), tt.p, n, rand.NewPCG(21, 1))
			got := float64(o.Incomplete) / float64(n)
			want := FailureProbability(tt.m, sent, tt.p)
			sigma := math.Sqrt(want / float64(n))
			if got > want*(1+tt.percent/100)+4*sigma || got < want*(1-tt.percent/100)-4*sigma {
				t.Errorf("M=%d p=%v, %d sent: %.4f incomplete, the formula says %.4f", tt.m, tt.p, sent, got, want)
			}
		}
	}
}

// completions returns after how many fragments each of n devices completes M=300, in ascending
// order. loss draws a device's channel; burst 0 is independent loss.
func completions(t *testing.T, n, parity int, burst float64, loss func(*rand.Rand) float64) []int {
	t.Helper()
	code := mustCode(t, 300, V1, Sequence(300, parity))
	d := NewRankDecoder(code)
	rng := rand.New(rand.NewPCG(31, 1))
	lost := NewBitset(code.Len())
	var sent []int
	for range n {
		p := loss(rng)
		if burst == 0 {
			NewBernoulli(p).Fill(lost, rng)
		} else {
			gilbert(lost, rng, p, burst)
		}
		at, ok := d.Complete(lost)
		if !ok {
			at = math.MaxInt
		}
		sent = append(sent, at)
	}
	slices.Sort(sent)
	return sent
}

// gilbert draws losses that come in runs of mean length burst and make up share p.
func gilbert(lost Bitset, rng *rand.Rand, p, burst float64) {
	bad := rng.Float64() < p
	for i := range 64 * len(lost) {
		if lost.Clear(i); bad {
			lost.Set(i)
			bad = rng.Float64() >= 1/burst
		} else {
			bad = rng.Float64() < p/(1-p)/burst
		}
	}
}

func beta(rng *rand.Rand, a, b int) float64 {
	// For whole a and b: the a-th smallest of a+b-1 uniform numbers; at most 0.6, as BetaFleet.
	for {
		u := make([]float64, a+b-1)
		for i := range u {
			u[i] = rng.Float64()
		}
		slices.Sort(u)
		if u[a-1] <= 0.6 {
			return u[a-1]
		}
	}
}

// The fleet formula against simulated fleets: the fragments after which 1 % is incomplete, for
// equal devices, for Beta-distributed ones, and for bursts.
func TestFleetFragmentsIsMeasured(t *testing.T) {
	n := trials(20000, 200000)
	tests := []struct {
		name  string
		fleet []Link
		loss  func(*rand.Rand) float64
		burst float64
		limit float64 // allowed difference, share
	}{
		{"all 10 %", []Link{{Loss: .1, Devices: float64(n)}}, func(*rand.Rand) float64 { return .1 }, 0, .01},
		{"Beta(4,36)", BetaFleet(4, 36, float64(n)), func(r *rand.Rand) float64 { return beta(r, 4, 36) }, 0, .01},
		{"Beta(1,9)", BetaFleet(1, 9, float64(n)), func(r *rand.Rand) float64 { return beta(r, 1, 9) }, 0, .015},
		{"Beta(2,8)", BetaFleet(2, 8, float64(n)), func(r *rand.Rand) float64 { return beta(r, 2, 8) }, 0, .015},
		{"10 % in bursts of 8", []Link{{Loss: .1, Burst: 8, Devices: float64(n)}}, func(*rand.Rand) float64 { return .1 }, 8, .04},
	}
	for _, tt := range tests {
		want := completions(t, n, 800, tt.burst, tt.loss)[n*99/100]
		if tt.burst != 0 {
			for i := range tt.fleet {
				tt.fleet[i].Burst = tt.burst
			}
		}
		got, err := FleetFragments(300, tt.fleet, float64(n)/100)
		if err != nil || math.Abs(float64(got-want)) > tt.limit*float64(want) {
			t.Errorf("%s: %d fragments for 99 %% of the fleet (%v), simulated %d", tt.name, got, err, want)
		}
		t.Logf("%s: formula %d, simulated %d", tt.name, got, want)
	}
	// The median of the moment at which the last of 1000 equal devices completes is the quantile
	// 1-ln2/1000 of a single one.
	all := completions(t, 1000*trials(20, 200), 130, 0, func(*rand.Rand) float64 { return .1 })
	last := all[len(all)-int(math.Ln2*float64(len(all))/1000)]
	got, err := FleetFragments(300, []Link{{Loss: .1, Devices: 1000}}, math.Ln2)
	if err != nil || math.Abs(float64(got-last)) > 5 {
		t.Errorf("last of 1000 devices: formula %d (%v), simulated %d", got, err, last)
	}
}

// The variance of the number received over a Gilbert-Elliott channel.
func TestBurstFactorIsMeasured(t *testing.T) {
	rng := rand.New(rand.NewPCG(41, 1))
	const length, p = 512, 0.1
	for _, burst := range []float64{1 / (1 - p), 2, 8} {
		sum, squares := 0.0, 0.0
		n := trials(4000, 100000)
		lost := NewBitset(length)
		for range n {
			gilbert(lost, rng, p, burst)
			x := float64(lost.Count())
			sum, squares = sum+x, squares+x*x
		}
		mean := sum / float64(n)
		got := (squares/float64(n) - mean*mean) / (length * p * (1 - p))
		if want := BurstFactor(p, burst); math.Abs(got/want-1) > 0.08 {
			t.Errorf("bursts of %v: variance %v times that of independent losses, formula %v", burst, got, want)
		}
	}
}

// A top-up of the computed size completes half of the devices for z = 0 and 84 % for z = 1, and
// somewhat more where, as here, all have the same loss and the incomplete ones had bad luck.
func TestTopUpIsMeasured(t *testing.T) {
	const m, first, p = 300, 320, 0.15
	code := mustCode(t, m, V1, Sequence(m, 400))
	d := NewRankDecoder(code)
	src := rand.NewPCG(51, 1)
	lost := NewBitset(code.Len())
	for _, tt := range []struct{ z, want float64 }{{0, 0.5}, {1, 0.841}, {2, 0.977}} {
		asked, done := 0, 0
		for range trials(5000, 100000) {
			NewBernoulli(p).Fill(lost, src)
			profile := d.Profile(lost)
			missing := d.Lost()
			for _, at := range profile {
				if at <= first {
					missing--
				}
			}
			if missing == 0 {
				continue
			}
			asked++
			more := TopUp(missing, received(lost, first), first, tt.z)
			if len(profile) == d.Lost() && profile[len(profile)-1] <= first+more {
				done++
			}
		}
		if got := float64(done) / float64(asked); got < tt.want-0.02 || got > tt.want+0.2 {
			t.Errorf("z = %v: %.3f of %d devices complete with their top-up, want %.2f", tt.z, got, asked, tt.want)
		}
	}
}

func TestOverCapIsMeasured(t *testing.T) {
	src := rand.NewPCG(61, 1)
	lost := NewBitset(320)
	n, over := trials(20000, 500000), 0
	for range n {
		NewBernoulli(.1).Fill(lost, src)
		if 300-received(lost, 300) > 35 {
			over++
		}
	}
	got, want := float64(over)/float64(n), OverCap(300, 35, .1)
	if math.Abs(got-want) > 4*math.Sqrt(want/float64(n)) {
		t.Errorf("%v of the devices lose more than 35 of 300 fragments, formula %v", got, want)
	}
	for _, tt := range []struct {
		m, limit int
		p, want  float64
	}{{300, 30, .05, .00013}, {300, 30, .10, .45}, {1000, 100, .10, .47}} {
		if got := OverCap(tt.m, tt.limit, tt.p); math.Abs(got/tt.want-1) > 0.05 {
			t.Errorf("OverCap(%d, %d, %v) = %v, want %v", tt.m, tt.limit, tt.p, got, tt.want)
		}
	}
}

// The union bound for few losses, against the code averaged over M: V1 pays, V2 does not.
func TestFewLossesFailureIsMeasured(t *testing.T) {
	rng := rand.New(rand.NewPCG(71, 1))
	for _, matrix := range []Matrix{V1, V2} {
		for _, lost := range []int{1, 2, 3, 5} {
			failed, tried := 0, 0
			for m := 101; m < 420; m += 2 {
				code := mustCode(t, m, matrix, Sequence(m, lost+6))
				d := NewRankDecoder(code)
				for range trials(60, 1500) {
					gone := NewBitset(code.Len())
					for _, j := range rng.Perm(m)[:lost] {
						gone.Set(j)
					}
					if _, ok := d.Complete(gone); !ok {
						failed++
					}
					tried++
				}
			}
			got, want := float64(failed)/float64(tried), FewLossesFailure(matrix, lost, 6)
			if got > want*1.2+4*math.Sqrt(want/float64(tried)) || got < want*0.7-4*math.Sqrt(want/float64(tried)) {
				t.Errorf("%v, %d lost, 6 extra: %.4f incomplete, bound %.4f", matrix, lost, got, want)
			}
		}
	}
}
