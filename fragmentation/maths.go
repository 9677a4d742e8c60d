package fragmentation

import (
	"fmt"
	"math"
)

// The functions in this file predict what the rank-only decoder measures. They describe a
// uniformly random binary code, which TS004 equals within a few per cent of its overhead where
// it has no [Weaknesses] and a device loses about 20 uncoded fragments or more. With fewer
// losses an optimised [ParityList] does a little better than they say and the plain sequence
// of V1 worse (see [FewLossesFailure]). Results are floating point: two processors may differ
// in the last bit, so plans are recorded, not recomputed.

// meanExtra is the mean number of fragments beyond M at which a random binary code completes.
const meanExtra = 1.6067

// DecodeProbability returns the probability that M+extra received fragments suffice: that a
// uniformly random binary matrix with extra surplus rows has full rank, which is the product
// of 1-2^-k over k > extra. It is 0.289 for extra = 0 and about 1-2^-extra beyond.
func DecodeProbability(extra int) float64 {
	if extra < 0 {
		return 0
	}
	f := 1.0
	for k := extra + 1; k <= 60; k++ { // beyond, a double holds no difference from 1
		f *= 1 - math.Ldexp(1, -k)
	}
	return f
}

// FailureProbability returns the probability that a device which loses each fragment with
// probability p, independently, cannot complete m uncoded fragments out of sent (M included).
// It agrees with the real code within a per cent for m >= 300, p >= 0.05, and with an
// optimised list at any m.
func FailureProbability(m, sent int, p float64) float64 {
	switch {
	case sent < m || p >= 1:
		return 1
	case p <= 0:
		return 0 // nothing is lost, nothing needs decoding
	}
	// k received fragments fail with 1-F(k-m): every time below m, rarely a little above.
	fail := 0.0
	mean, deviation := float64(sent)*(1-p), math.Sqrt(float64(sent)*p*(1-p))
	for k := max(0, int(mean-12*deviation-30)); k < m; k++ { // below lies less than 1e-30
		fail += binomial(sent, k, 1-p)
	}
	for e := 0; m+e <= sent && e <= 64; e++ {
		fail += binomial(sent, m+e, 1-p) * (1 - DecodeProbability(e))
	}
	// That takes L lost columns for many. The exact chance with r parity rows is F(r-L)/F(r),
	// which differs while r is small; without losses, L = 0, it is 1 even for r = 0.
	for r := 0; r <= sent-m && r <= 40; r++ {
		weight := binomial(sent-m, r, 1-p)
		excess := 1/DecodeProbability(r) - 1
		for lost := 0; lost <= min(r, m); lost++ {
			fail -= weight * binomial(m, lost, p) * DecodeProbability(r-lost) * excess
		}
	}
	return min(max(fail, 0), 1)
}

// binomial returns the probability of exactly k out of n, each with probability p, 0 < p < 1.
func binomial(n, k int, p float64) float64 {
	return math.Exp(logChoose(float64(n), float64(k)) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}

func logChoose(n, k float64) float64 {
	a, _ := math.Lgamma(n + 1)
	b, _ := math.Lgamma(k + 1)
	c, _ := math.Lgamma(n - k + 1)
	return a - b - c
}

// FragmentsFor returns how many fragments, M included, must be sent so that a device of loss p
// (0 <= p < 1) fails with probability at most q (0 < q < 1). For n equal devices that shall
// all complete with probability 1-eta, q is eta/n. [ErrLimit] when TS004 cannot number as many.
func FragmentsFor(m int, p, q float64) (int, error) {
	if err := checkM(m); err != nil {
		return 0, err
	}
	if err := checkShare("loss", p); err != nil {
		return 0, err
	}
	if !(q > 0 && q < 1) {
		return 0, fmt.Errorf("%w: failure probability %v, want a value between 0 and 1", ErrLimit, q)
	}
	return smallest(m, func(sent int) bool { return FailureProbability(m, sent, p) <= q })
}

// smallest returns the smallest number from m to MaxIndex for which enough, which is monotone,
// holds.
func smallest(m int, enough func(sent int) bool) (int, error) {
	low, high := m, MaxIndex
	if !enough(high) {
		return 0, fmt.Errorf("%w: more than %d fragments would be needed for M = %d", ErrLimit, MaxIndex, m)
	}
	for low < high {
		if mid := (low + high) / 2; enough(mid) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low, nil
}

func checkShare(what string, p float64) error {
	if !(p >= 0 && p < 1) {
		return fmt.Errorf("%w: %s %v, want 0 or more and less than 1", ErrLimit, what, p)
	}
	return nil
}

// Link is how a number of devices of a fleet receive.
type Link struct {
	Loss    float64 // share of fragments lost, 0 <= Loss < 1
	Burst   float64 // mean length of a run of losses in fragments, 1 or more; 0: independent
	Devices float64 // how many devices; need not be whole
}

// BurstFactor returns by how much the variance of the number of fragments received exceeds
// that of independent losses, for a Gilbert-Elliott channel which loses everything in its bad
// state, spends share p of the time there and burst fragments at a time. It is 1 for burst =
// 1/(1-p), which is what independent losses have. Meant for a few hundred fragments or more
// and burst much shorter than those.
func BurstFactor(p, burst float64) float64 {
	if burst == 0 || p <= 0 || p >= 1 {
		return 1
	}
	recover := 1 / burst
	memory := 1 - recover - recover*p/(1-p)
	return max(0, (1+memory)/(1-memory))
}

// FleetFragments returns the smallest number of fragments, M included, after which at most
// allowed devices of the fleet are expected to be incomplete. For a target share s of n
// devices allowed is n(1-s); for the median of the moment at which the last device completes
// it is ln 2. The normal approximation is within 1 % of simulation for m >= 300 and independent
// losses, some 3 % low for bursts of 8, and a few fragments low where single devices in 10^5 or
// fewer matter.
func FleetFragments(m int, fleet []Link, allowed float64) (int, error) {
	if err := checkM(m); err != nil {
		return 0, err
	}
	for _, l := range fleet {
		if err := checkShare("loss", l.Loss); err != nil {
			return 0, err
		}
		if !(l.Burst == 0 || l.Burst >= 1) || !(l.Devices >= 0) {
			return 0, fmt.Errorf("%w: burst %v and %v devices, want a burst of 0 or at least 1, and no negative number",
				ErrLimit, l.Burst, l.Devices)
		}
	}
	if !(allowed > 0) {
		return 0, fmt.Errorf("%w: %v devices allowed to fail, want more than 0", ErrLimit, allowed)
	}
	return smallest(m, func(sent int) bool {
		failing := 0.0
		for _, l := range fleet {
			failing += l.Devices * l.failing(m, sent)
		}
		return failing <= allowed
	})
}

func (l Link) failing(m, sent int) float64 {
	if l.Loss == 0 {
		return 0
	}
	t := float64(sent)
	// 1.1 rather than the mean of 1.6: half of the extra is skew that the tail does not see.
	surplus := t*(1-l.Loss) - float64(m) - 1.1
	deviation := math.Sqrt(t * l.Loss * (1 - l.Loss) * BurstFactor(l.Loss, l.Burst))
	return math.Erfc(surplus/deviation/math.Sqrt2) / 2
}

// BetaFleet returns links for devices whose losses follow a Beta(a, b) distribution, of mean
// a/(a+b), as a grid over losses up to 0.6: beyond that a device is better served otherwise
// than by a longer broadcast. It returns nil unless a and b are positive.
func BetaFleet(a, b, devices float64) []Link {
	if !(a > 0 && b > 0) {
		return nil
	}
	const steps, top = 600, 0.6
	fleet := make([]Link, steps)
	total := 0.0
	for i := range fleet {
		// The grid is finer towards 0, where the density of a < 1 has its pole.
		x := (float64(i) + 0.5) / steps
		p := top * x * x
		fleet[i].Loss = p
		fleet[i].Devices = math.Pow(p, a-1) * math.Pow(1-p, b-1) * x
		total += fleet[i].Devices
	}
	for i := range fleet {
		fleet[i].Devices *= devices / total
	}
	return fleet
}

// TopUp returns how many further fragments to send for a device that still misses rank
// missing, having received so many of those sent. It completes with probability Phi(z) or a
// little more: one half for z = 0, 84 % for z = 1. The loss is estimated from the device's own
// record; a device that was merely unlucky does better. A round for many devices takes the
// largest of their numbers. At most [MaxIndex].
func TopUp(missing, received, sent int, z float64) int {
	if missing <= 0 {
		return 0
	}
	sent = max(sent, 0)
	received = min(max(received, 0), sent)
	p := (float64(sent-received) + 1) / (float64(sent) + 2)
	u := (z*math.Sqrt(p) + math.Sqrt(z*z*p+4*(float64(missing)+meanExtra))) / 2
	return int(math.Ceil(min(u*u/(1-p), MaxIndex)))
}

// OverCap returns the probability that a device of loss p loses more than limit of m uncoded
// fragments. Devices hold a matrix of a fixed size and give up for good beyond it.
func OverCap(m, limit int, p float64) float64 {
	switch {
	case limit >= m || p <= 0:
		return 0
	case limit < 0 || p >= 1:
		return 1
	}
	over := 0.0
	for k := limit + 1; k <= m; k++ {
		over += binomial(m, k, p)
	}
	return min(over, 1)
}

// FewLossesFailure bounds the probability that a device which lost so many uncoded fragments
// (1..about 10) is incomplete with extra more parity fragments than that: the sum over all
// combinations of its losses of the chance that every row holds an even number of them. V1
// draws columns with repetition, so its rows are lighter and miss a few losses more easily.
// Tight up to 5 losses; averaged over M, for a single M the actual rows decide.
func FewLossesFailure(matrix Matrix, lost, extra int) float64 {
	density := 0.5
	if matrix == V1 {
		density = 1 - math.Exp(-0.5) // floor(M/2) draws out of M, with repetition
	}
	bound := 0.0
	for w := 1; w <= lost; w++ {
		even := (1 + math.Pow(1-2*density, float64(w))) / 2
		bound += math.Exp(logChoose(float64(lost), float64(w)) + float64(lost+extra)*math.Log(even))
	}
	return min(bound, 1)
}
