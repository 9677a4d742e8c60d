package experiment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/fragmentation"
)

// The validation ladder: each model against the one below it, and theory at the bottom.
var ladder = []struct{ rung, claim, folder, tests string }{
	{"V1", "time on air, to the nanosecond", "../../airtime", "TestTimeOnAirVectors TestTimeOnAirDownlink"},
	{"V2", "duty cycle: n fragments take (10n-9)·ToA", ".", "TestClosedFormsOfTime"},
	{"V3", "ping slots and beacons", "../../airtime", "TestPingVectors TestNextPingSlot TestBeacons TestClearOfBeacon"},
	{"V4", "independent losses are binomial", "../radio", "TestBernoulliIsBinomial"},
	{"V5", "Gilbert-Elliott: loss, bursts, correlation", "../radio", "TestGilbertElliottStatistics"},
	{"V6", "no code beats the binomial bound", ".", "TestIdealCodeMeetsTheBinomialBound"},
	{"V7", "TS004 is random over GF(2), except where it is not", ".", "TestTS004IsRandomOnlyWhereItIs TestTwinColumnsSetTheFloor TestPotholes"},
	{"V8", "one loss: geometric", ".", "TestOneLossIsGeometric"},
	{"V9", "ranks = bytes = device library in C", ".", "TestRankOnlyIsByteDecode TestRankOnlyIsTheLibrary"},
	{"V10", "carousel: coupon collector", ".", "TestCarouselIsACouponCollector"},
	{"V11", "answers: exp(-2G), exp(-G), capture", "../radio", "TestAlohaAnswers TestCaptureUnderFading"},
	{"V12", "Rayleigh: exp(-1/SNR)", "../radio", "TestRayleighMeetsTheClosedForm"},
	{"V13", "energy = power × time", ".", "TestEnergyIsPowerTimesTime"},
	{"V14", "FUOTASim", ".", "TestPublishedResults"},
	{"V15", "FUOTAA, measured", ".", "TestPublishedResults"},
	{"V16", "sessions queue at a gateway: M/D/1", "../radio", "TestDownlinksQueueAsMD1"},
	{"V17", "ranks = frames in virtual time, devices in Go and in C", ".", "TestLayersAgree TestDepthsAgree"},
	{"V18", "more redundancy, less loss, other order", ".", "TestMetamorphic TestSameBytes"},
}

// TestEveryRungHasItsTest prints the ladder and fails if a test that it names does not exist.
func TestEveryRungHasItsTest(t *testing.T) {
	for _, l := range ladder {
		files, err := filepath.Glob(filepath.Join(l.folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var source strings.Builder
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(text)
		}
		for _, name := range strings.Fields(l.tests) {
			if !strings.Contains(source.String(), "\nfunc "+name+"(t *testing.T) {") {
				t.Errorf("%s: there is no %s in %s", l.rung, name, l.folder)
			}
		}
		t.Logf("%-4s %-56s %-14s %s", l.rung, l.claim, l.folder, l.tests)
	}
}

// fixedRun is a fixed transmission with independent losses.
func fixedRun(t *testing.T, code string, devices, m, r int, p float64) Result {
	t.Helper()
	return simulate(t, fmt.Sprintf("devices = %d\n[block]\nfragments = %d\n[loss]\np = %v\n[policy]\nparity = %d\n[code]\nname = %q\n", devices, m, p, r, code))
}

// binomial is the probability of k out of n.
func binomial(n, k int, p float64) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return math.Exp(a - b - c + float64(k)*math.Log(p) + float64(n-k)*math.Log(1-p))
}

// mds is the share of devices complete with an ideal code: at least m of m+r fragments received (V6).
func mds(m, r int, p float64) float64 {
	sum := 0.0
	for k := range r + 1 {
		sum += binomial(m+r, k, p)
	}
	return sum
}

// gf2 is that with a systematic random binary code: a device that lost l of the data and received k of the parity is
// complete with the probability that a random k×l matrix has full rank (V7).
func gf2(m, r int, p float64) float64 {
	sum := 0.0
	for l := range m + 1 {
		for k := l; k <= r; k++ {
			q := 1.0
			for i := range l {
				q *= 1 - math.Exp2(float64(-(k - i)))
			}
			sum += binomial(m, l, p) * binomial(r, k, 1-p) * q
		}
	}
	return sum
}

// sigma is the standard error of a share.
func sigma(p float64, n int) float64 { return math.Sqrt(max(p*(1-p), 1/float64(n)) / float64(n)) }

func TestIdealCodeMeetsTheBinomialBound(t *testing.T) {
	for _, c := range []struct {
		m, r int
		p    float64
	}{{100, 20, 0.1}, {231, 30, 0.1}, {231, 20, 0.05}} {
		const n = 40000
		bound := mds(c.m, c.r, c.p)
		if got := share(fixedRun(t, "mds", n, c.m, c.r, c.p)); math.Abs(got-bound) > 4*sigma(bound, n) {
			t.Errorf("M=%d R=%d p=%v: ideal code %.5f, binomial %.5f", c.m, c.r, c.p, got, bound)
		}
		// The same losses, device by device: no code beats the ideal one, and GF(256) is between.
		ideal, rlnc, ts004 := fixedRun(t, "mds", n, c.m, c.r, c.p).Complete, fixedRun(t, "rlnc256", n, c.m, c.r, c.p).Complete, fixedRun(t, "ts004-v1", n, c.m, c.r, c.p).Complete
		if rlnc > ideal || ts004 > rlnc {
			t.Errorf("M=%d R=%d: complete with the ideal code %d, GF(256) %d, TS004 %d; want falling", c.m, c.r, ideal, rlnc, ts004)
		}
	}
}

// TestTS004IsRandomOnlyWhereItIs: the semi-analytic formula holds for large sessions, and must not hold where the
// matrix has holes, or it is not the matrix that was simulated (V7 and T14).
func TestTS004IsRandomOnlyWhereItIs(t *testing.T) {
	const n = 60000
	for _, c := range []struct {
		m, r  int
		p     float64
		holds bool
	}{{210, 63, 0.2, true}, {231, 30, 0.1, true}, {231, 42, 0.1, true}, {500, 60, 0.1, true}, {50, 15, 0.1, false}, {384, 116, 0.1, false}, {28, 9, 0.1, false}} {
		devices := n
		if c.m == 500 {
			devices = n / 4
		}
		theory := gf2(c.m, c.r, c.p)
		got := share(fixedRun(t, "ts004-v1", devices, c.m, c.r, c.p))
		d := math.Abs(got-theory) / sigma(theory, devices)
		if c.holds && d > 4.5 || !c.holds && d < 20 {
			t.Errorf("M=%d R=%d p=%v: %.5f, random code %.5f, %.1f standard errors apart; agreement expected: %t", c.m, c.r, c.p, got, theory, d, c.holds)
		}
	}
}

// TestTwinColumnsSetTheFloor: at M = 384 two pairs of data fragments are in the same rows of the first 116, so all but
// (1-p²)² of the devices stay incomplete, whatever else they receive.
func TestTwinColumnsSetTheFloor(t *testing.T) {
	const n, p = 40000, 0.1
	want := (1 - p*p) * (1 - p*p)
	if got := share(fixedRun(t, "ts004-v1", n, 384, 116, p)); math.Abs(got-want) > 4*sigma(want, n) {
		t.Errorf("complete %.5f, want %.5f", got, want)
	}
}

// TestPotholes: two data fragments that no parity row holds are lost for good, exactly those (T15).
func TestPotholes(t *testing.T) {
	for _, c := range []struct {
		m, r  int
		lost  []int
		saved bool
	}{
		{28, 9, []int{0}, false}, {28, 9, []int{22}, false}, {28, 9, []int{26, 27}, false}, {28, 9, []int{1}, true},
		{42, 13, []int{29}, false}, {42, 13, []int{8, 16}, false}, {42, 13, []int{8}, true},
		{50, 15, []int{41}, false}, {50, 15, []int{40}, true},
		{384, 116, []int{191, 254}, false}, {384, 116, []int{192, 257}, false}, {384, 200, []int{191, 254}, false}, {384, 116, []int{191, 257}, true},
	} {
		d, err := Codes["ts004-v1"].NewDecoder(c.m, c.m+c.r)
		if err != nil {
			t.Fatal(err)
		}
		lost := fragmentation.NewBitset(c.m + c.r)
		for _, i := range c.lost {
			lost.Set(i)
		}
		if sent, missing := d.Decode(lost, 0); (missing == 0) != c.saved {
			t.Errorf("M=%d R=%d, data %v lost: missing %d (sent %d), saved expected: %t", c.m, c.r, c.lost, missing, sent, c.saved)
		}
	}
}

// TestOneLossIsGeometric: a device that lost one fragment waits for the first row that holds it: the mean over all
// fragments is that of a geometric distribution with q = 1-(1-1/M)^(M/2) (V8).
func TestOneLossIsGeometric(t *testing.T) {
	const m, r = 1000, 60
	d, err := Codes["ts004-v1"].NewDecoder(m, m+r)
	if err != nil {
		t.Fatal(err)
	}
	q := 1 - math.Pow(1-1.0/m, m/2)
	first, sum := 0, 0
	lost := fragmentation.NewBitset(m + r)
	for i := range m {
		lost.Set(i)
		sent, missing := d.Decode(lost, 0)
		lost.Clear(i)
		if missing != 0 {
			t.Fatalf("fragment %d is in none of %d rows", i, r)
		}
		sum += sent - m
		if sent == m+1 {
			first++
		}
	}
	if got := float64(first) / m; math.Abs(got-q) > 4*sigma(q, m) {
		t.Errorf("repaired by the first row: %.4f, want %.4f", got, q)
	}
	if got := float64(sum) / m; math.Abs(got-1/q) > 0.25 {
		t.Errorf("mean rows needed %.3f, want %.3f", got, 1/q)
	}
}

// TestRankOnlyIsByteDecode gives the same random losses to the rank-only decoder and to the decoder of bytes, which
// also checks the block (V9): M with and without holes, any mixture of loss, all three matrices.
func TestRankOnlyIsByteDecode(t *testing.T) {
	rounds := 4000
	if proof {
		rounds = 120000
	}
	rng := rand.New(rand.NewPCG(9, 9))
	type shape struct {
		m, r int
		code string
	}
	shapes := []shape{{5, 6, "ts004-v1"}, {28, 9, "ts004-v1"}, {42, 13, "ts004-v2"}, {50, 15, "ts004-v1"}, {64, 40, "ts004-v2abs"}, {100, 30, "ts004-v1"},
		{130, 70, "ts004-v2"}, {192, 64, "ts004-v1"}, {231, 50, "ts004-v1"}, {384, 116, "ts004-v1"}}
	complete := 0
	for k, s := range shapes {
		rank, err := Codes[s.code].NewDecoder(s.m, s.m+s.r)
		if err != nil {
			t.Fatal(err)
		}
		bytes, err := newByteDecoder(Codes[s.code].(ts004).matrix, s.m, s.m+s.r, 4)
		if err != nil {
			t.Fatal(err)
		}
		for range rounds / len(shapes) {
			lost := someLost(rng, s.m, s.r)
			s1, m1 := rank.Decode(lost, 0)
			s2, m2 := bytes.Decode(lost, 0)
			if s1 != s2 || m1 != m2 {
				t.Fatalf("shape %d %+v, lost %x: rank-only sent %d missing %d, bytes %d and %d", k, s, lost, s1, m1, s2, m2)
			}
			if m1 == 0 {
				complete++
			}
		}
	}
	if complete < rounds/10 || complete > rounds*9/10 {
		t.Errorf("%d of %d sessions complete: too one-sided to tell", complete, rounds)
	}
}

// TestDepthsAgree: a whole scenario gives the same results at the depths "rank" and "bytes" (V17), and at "table"
// results whose distance is within chance.
func TestDepthsAgree(t *testing.T) {
	const text = "devices = 300\n[block]\nfragments = 60\nfragment_bytes = 20\n[loss]\nmodel = \"gilbert-elliott\"\np = 0.15\nburst = 3\n[policy]\nname = \"plan\"\n[uplink]\nloss = 0.2\nretries = 1\n"
	rank, bytes := simulate(t, text), simulate(t, "depth = \"bytes\"\n"+text)
	if fmt.Sprint(rank) != fmt.Sprint(bytes) {
		t.Errorf("rank %+v\nbytes %+v", rank, bytes)
	}
	sim, err := NewSimulator(points(t, "devices = 300000\ndepth = \"table\"\n[block]\nfragments = 50\n[policy]\nparity = 15\n[loss]\np = 0.1\n")[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	info, ok := sim.Table()
	if !ok || info.Distance > info.Bound {
		t.Errorf("table %+v, present %t: further from exact than chance explains", info, ok)
	}
	r, err := sim.Run(0)
	if err != nil {
		t.Fatal(err)
	}
	if exact := 0.8755; math.Abs(share(r)-exact) > 4*sigma(exact, 100000) {
		t.Errorf("table %.5f, exact %.5f", share(r), exact)
	}
}

// TestCarouselIsACouponCollector: P(all after k passes) = (1-p^k)^M (V10).
func TestCarouselIsACouponCollector(t *testing.T) {
	const m, p, n, passes = 100, 0.1, 20000, 3
	r := fixedRun(t, "none", n, m, (passes-1)*m, p)
	for k := 1; k <= passes; k++ {
		want := math.Pow(1-math.Pow(p, float64(k)), m)
		if got := float64(r.CompleteAt(k*m)) / n; math.Abs(got-want) > 4.5*sigma(want, n) {
			t.Errorf("after %d passes %.5f, want %.5f", k, got, want)
		}
	}
}

// TestClosedFormsOfTime: duty cycle (V2) and ping slots (V3).
func TestClosedFormsOfTime(t *testing.T) {
	for dr, toa := range []float64{2.793472, 1.478656, 0.698368, 0.676864, 0.696832, 0.394496} {
		r := simulate(t, fmt.Sprintf("devices = 5\n[block]\nfragments = 40\n[air]\ndata_rate = %d\n[policy]\nparity = 7\n", dr))
		if got, want := r.Time.Seconds(), (10*47-9)*toa; math.Abs(got-want) > 1e-6 {
			t.Errorf("DR%d: %.6f s, want (10n-9) ToA = %.6f s", dr, got, want)
		}
	}
	for period := range 8 {
		text := fmt.Sprintf("devices = 5\n[block]\nfragments = 30\n[air]\nclass = \"B\"\ndata_rate = 5\nperiodicity = %d\n", period)
		p := points(t, text)[0]
		sim, err := NewSimulator(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := sim.newClock(0)
		last := c.next()
		for range 29 {
			at := c.next()
			if !airtime.ClearOfBeacon(at, sim.toa) {
				t.Errorf("period %d: a fragment at %v meets the beacon", period, at)
			}
			if airtime.NextPingSlot(c.group, at, c.period) != at {
				t.Errorf("period %d: %v is no ping slot", period, at)
			}
			if at-last < 10*sim.toa || at-last > 10*sim.toa+2*airtime.BeaconPeriod {
				t.Errorf("period %d: %v after the last fragment", period, at-last)
			}
			last = at
		}
	}
}

// TestEnergyIsPowerTimesTime: a device that listens all the time consumes power times time, and with the measured profile
// the consumption of sessions rises by 24.83 mW (V13).
func TestEnergyIsPowerTimesTime(t *testing.T) {
	session := func(fragments int, energy string) (joules, seconds float64) {
		p := points(t, fmt.Sprintf("devices = 1\n[block]\nfragments = %d\n[energy]\n%s\n", fragments, energy))[0]
		sim, err := NewSimulator(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		r, err := sim.Run(0)
		if err != nil {
			t.Fatal(err)
		}
		return p.Scenario.EnergyOf(r, 1), r.Time.Seconds()
	}
	if e, s := session(1000, "rx_mw = 40\nidle_mw = 0.001"); math.Abs(e-0.04*s) > 0.04*s/1e4 {
		t.Errorf("energy %.4f J, want power times time %.4f J", e, 0.04*s)
	}
	e1, s1 := session(100, `profile = "stm32wl-nucleo-measured"`)
	e2, s2 := session(1000, `profile = "stm32wl-nucleo-measured"`)
	if slope := (e2 - e1) / (s2 - s1) * 1000; math.Abs(slope-24.83) > 0.02 {
		t.Errorf("%.3f mW, measured 24.83", slope)
	}
}

// TestMetamorphic: with the same streams, more redundancy or less loss never completes fewer devices, and the first
// devices of a larger fleet are the smaller fleet (V18).
func TestMetamorphic(t *testing.T) {
	last := -1
	for r := 0; r <= 40; r += 8 {
		n := fixedRun(t, "ts004-v1", 3000, 100, r, 0.12).Complete
		if n < last {
			t.Errorf("R=%d: %d complete, with less redundancy %d", r, n, last)
		}
		last = n
	}
	last = 3001
	for _, p := range []float64{0, 0.03, 0.1, 0.12, 0.3} {
		n := fixedRun(t, "ts004-v1", 3000, 100, 20, p).Complete
		if n > last {
			t.Errorf("p=%v: %d complete, with less loss %d", p, n, last)
		}
		last = n
	}
	small, large := fixedRun(t, "ts004-v1", 500, 100, 30, 0.15), fixedRun(t, "ts004-v1", 501, 100, 30, 0.15)
	if large.Complete != small.Complete && large.Complete != small.Complete+1 {
		t.Errorf("one device more: %d complete after %d", large.Complete, small.Complete)
	}
	// A point of a sweep shares the losses with the others: a longer transmission agrees on the shorter one.
	short, long := fixedRun(t, "ts004-v1", 2000, 231, 30, 0.1), fixedRun(t, "ts004-v1", 2000, 231, 90, 0.1)
	if got := long.CompleteAt(261); got != short.Complete {
		t.Errorf("complete after 261 of 321 fragments: %d, of 261: %d", got, short.Complete)
	}
}

// someLost loses fragments of m data and r parity, each with a probability drawn from 0 to 1.6 times the share of parity: about
// where it is decided whether a block can be decoded.
func someLost(rng *rand.Rand, m, r int) fragmentation.Bitset {
	lost := fragmentation.NewBitset(m + r)
	p := rng.Float64() * 1.6 * float64(r) / float64(m+r)
	for i := range m + r {
		if rng.Float64() < p {
			lost.Set(i)
		}
	}
	return lost
}
