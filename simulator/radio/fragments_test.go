package radio_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/simulator/radio"
)

const step = time.Second

// processes are one of each kind.
func processes(t testing.TB, seed uint64) map[string]radio.Loss {
	t.Helper()
	get := func(l radio.Loss, err error) radio.Loss {
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	burst, err := radio.Bursts(step, 0.2, 5*step)
	if err != nil {
		t.Fatal(err)
	}
	soft := radio.GilbertElliott{Step: step, ToBad: 0.05, ToGood: 0.2, LossGood: 0.02, LossBad: 0.7}
	trace, err := radio.ReadTrace(strings.NewReader("device,time_s,lost\na,0,0\na,40,1\na,55.5,0\nb,0,1\nb,3,0\nb,300,1\n"))
	if err != nil {
		t.Fatal(err)
	}
	iid := get(radio.NewBernoulli(seed, 0.1))
	outages := get(radio.Outages(seed, step, 10*step, 100*step))
	return map[string]radio.Loss{
		"bernoulli": iid,
		"never":     get(radio.NewBernoulli(seed, 0)),
		"always":    get(radio.NewBernoulli(seed, 1)),
		"beta":      get(radio.NewBeta(seed, 0.5, 4.5)),
		"rayleigh":  get(radio.NewRayleigh(seed, 8, 6, 0)),
		"block":     get(radio.NewRayleigh(seed, 3, 0, 7*time.Second)),
		"bursts":    get(burst.New(seed)),
		"soft":      get(soft.New(seed)),
		"outages":   outages,
		"trace":     get(trace.New(seed)),
		"any":       radio.Any(iid, outages),
	}
}

// broadcasts are ways to arrange slots in time and number.
func broadcasts() map[string][]radio.Slot {
	rng := rand.New(rand.NewPCG(1, 2))
	plain := make([]radio.Slot, 281)
	for i := range plain {
		plain[i] = radio.Slot{Fragment: uint32(i), At: time.Duration(i) * step}
	}
	odd := make([]radio.Slot, 200)
	at := 90 * time.Second
	for i := range odd {
		odd[i] = radio.Slot{Fragment: uint32(37 + i%90), Copy: uint32(i / 90), At: at}
		at += time.Duration(rng.IntN(4000)) * time.Millisecond
		if i == 120 {
			at += 24 * time.Hour
		}
	}
	shuffled := append([]radio.Slot(nil), odd...)
	rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	return map[string][]radio.Slot{"plain": plain, "odd": odd, "shuffled": shuffled, "one": plain[70:71], "none": nil}
}

// TestSamplerAgreesWithLost: the fate of a frame is the same alone and in any broadcast.
func TestSamplerAgreesWithLost(t *testing.T) {
	for name, p := range processes(t, 7) {
		for layout, slots := range broadcasts() {
			s := p.Sampler(slots)
			lost := make([]uint64, (len(slots)+63)/64)
			for d := range uint64(40) {
				l := radio.Link{Device: d, Stream: d % 3}
				for w := range lost {
					lost[w] = rand.Uint64() // Fill must overwrite
				}
				s.Fill(lost, l)
				for i, slot := range slots {
					if got, want := lost[i>>6]>>(i&63)&1 != 0, p.Lost(l, slot); got != want {
						t.Fatalf("%s, %s: device %d slot %d %+v: sampler says %t, Lost says %t", name, layout, d, i, slot, got, want)
					}
				}
			}
		}
	}
}

// TestFatesAreFixed pins the bits of each process: recorded runs stay what they were, on any processor.
func TestFatesAreFixed(t *testing.T) {
	want := map[string]uint64{
		"always":    0x1df083fcc4328076,
		"any":       0x91f6db048d708fcd,
		"bernoulli": 0xdd04f25629f522ef,
		"beta":      0x2d35acb46fe9f9d6,
		"block":     0xa05b4ce11944c554,
		"bursts":    0xdfa1a49bf109bdae,
		"never":     0x9ffbb0bc267e95d,
		"outages":   0xa1c703e2bb4635ca,
		"rayleigh":  0x6919dca9e5f3de22,
		"soft":      0x4a61963d308f864a,
		"trace":     0xd201033ff99339f8,
	}
	slots := broadcasts()["plain"]
	for name, p := range processes(t, 7) {
		lost := make([]uint64, (len(slots)+63)/64)
		h := uint64(0)
		for d := range uint64(100) {
			p.Sampler(slots).Fill(lost, radio.Link{Device: d})
			lost[len(lost)-1] &= 1<<(len(slots)&63) - 1
			h = radio.Hash(append([]uint64{h}, lost...)...)
		}
		if h != want[name] {
			t.Errorf("%q: %#x,", name, h)
		}
	}
}

// share counts losses over devices and slots.
func share(p radio.Loss, devices int, slots []radio.Slot) float64 {
	n := 0
	lost := make([]uint64, (len(slots)+63)/64)
	s := p.Sampler(slots)
	for d := range devices {
		s.Fill(lost, radio.Link{Device: uint64(d), Stream: 9})
		for i := range slots {
			n += int(lost[i>>6] >> (i & 63) & 1)
		}
	}
	return float64(n) / float64(devices*len(slots))
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: %.5f, want %.5f ± %.5f", what, got, want, tolerance)
	}
}

// TestBernoulliIsBinomial compares the number of losses of a device with the binomial distribution (V4).
func TestBernoulliIsBinomial(t *testing.T) {
	const n, devices, p = 100, 20000, 0.1
	loss, err := radio.NewBernoulli(3, p)
	if err != nil {
		t.Fatal(err)
	}
	slots := broadcasts()["plain"][:n]
	counts := make([]float64, n+1)
	lost := make([]uint64, 2)
	s := loss.Sampler(slots)
	for d := range uint64(devices) {
		s.Fill(lost, radio.Link{Device: d})
		k := 0
		for i := range n {
			k += int(lost[i>>6] >> (i & 63) & 1)
		}
		counts[k]++
	}
	chi2, bins := 0.0, 0
	for k := 2; k <= 19; k++ {
		a, _ := math.Lgamma(n + 1)
		b, _ := math.Lgamma(float64(k) + 1)
		c, _ := math.Lgamma(float64(n-k) + 1)
		want := devices * math.Exp(a-b-c+float64(k)*math.Log(p)+float64(n-k)*math.Log(1-p))
		chi2 += (counts[k] - want) * (counts[k] - want) / want
		bins++
	}
	if limit := float64(bins) + 5*math.Sqrt(2*float64(bins)); chi2 > limit { // mean + 5 sigma of chi-square
		t.Errorf("chi-square %.1f over %d bins, want below %.1f", chi2, bins, limit)
	}
}

// TestGilbertElliottStatistics checks the stationary loss, the geometric length of bursts and the correlation
// (1-a-b)^k of the chain (V5).
func TestGilbertElliottStatistics(t *testing.T) {
	const devices, n = 400, 4000
	slots := make([]radio.Slot, n)
	for i := range slots {
		slots[i] = radio.Slot{Fragment: uint32(i), At: time.Duration(i) * step}
	}
	g, err := radio.Bursts(step, 0.1, 10*step)
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.New(11)
	if err != nil {
		t.Fatal(err)
	}
	var total, bursts, long, lag float64
	lost := make([]uint64, n/64+1)
	s := p.Sampler(slots)
	for d := range uint64(devices) {
		s.Fill(lost, radio.Link{Device: d})
		length := 0
		for i := range n {
			bad := lost[i>>6]>>(i&63)&1 != 0
			if bad {
				total++
				length++
				if i >= 5 && lost[(i-5)>>6]>>((i-5)&63)&1 != 0 {
					lag++
				}
			} else if length > 0 {
				bursts++
				if length > 10 {
					long++
				}
				length = 0
			}
		}
	}
	const frames = devices * n
	near(t, "loss", total/frames, 0.1, 0.004)
	near(t, "mean burst", total/bursts, 10, 0.35)
	near(t, "bursts longer than 10", long/bursts, math.Pow(0.9, 10), 0.015)
	r := 1 - g.ToBad - g.ToGood
	near(t, "correlation at distance 5", (lag/frames-0.01)/0.09, math.Pow(r, 5), 0.03)

	soft := radio.GilbertElliott{Step: step, ToBad: 0.05, ToGood: 0.2, LossGood: 0.02, LossBad: 0.7}
	q, err := soft.New(12)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "loss with losses in both states", share(q, devices, slots), 0.8*0.02+0.2*0.7, 0.004)
}

// TestBurstsLastInTime: sending ten times as seldom, one meets the same share of bad time, and correlation is gone.
func TestBurstsLastInTime(t *testing.T) {
	g, err := radio.Bursts(step, 0.1, 10*step)
	if err != nil {
		t.Fatal(err)
	}
	p, err := g.New(5)
	if err != nil {
		t.Fatal(err)
	}
	both, n := 0.0, 0.0
	for d := range uint64(3000) {
		for i := range 10 {
			l := radio.Link{Device: d}
			a := p.Lost(l, radio.Slot{At: time.Duration(i) * 500 * step})
			b := p.Lost(l, radio.Slot{At: time.Duration(i)*500*step + 60*step})
			if a && b {
				both++
			}
			n++
		}
	}
	near(t, "two frames a minute apart both lost", both/n, 0.01, 0.004)
}

func TestHeterogeneousFleets(t *testing.T) {
	slots := broadcasts()["plain"][:64]
	all := processes(t, 3)
	near(t, "Beta(0.5, 4.5)", share(all["beta"], 20000, slots), 0.1, 0.004)
	// The variance of the device means is that of the distribution plus the binomial one.
	lost := make([]uint64, 1)
	s := all["beta"].Sampler(slots)
	var sum, sum2 float64
	const devices = 20000
	for d := range uint64(devices) {
		s.Fill(lost, radio.Link{Device: d})
		x := 0.0
		for i := range 64 {
			x += float64(lost[0] >> i & 1)
		}
		sum, sum2 = sum+x/64, sum2+x/64*x/64
	}
	mean := sum / devices
	variance := 0.5 * 4.5 / (25 * 6) // ab/((a+b)²(a+b+1))
	near(t, "variance between devices", sum2/devices-mean*mean, variance+(0.1-0.01-variance)/64, 0.0012)
}

// TestRayleighMeetsTheClosedForm: the share received at a fixed margin is exp(-10^(-m/10)) (V12, T9).
func TestRayleighMeetsTheClosedForm(t *testing.T) {
	slots := broadcasts()["plain"][:100]
	for _, tt := range []struct{ margin, received float64 }{{0, 0.368}, {3, 0.606}, {5, 0.729}, {8, 0.853}, {10, 0.905}, {15, 0.969}, {20, 0.990}} {
		for _, coherence := range []time.Duration{0, 10 * time.Second} {
			p, err := radio.NewRayleigh(1, tt.margin, 0, coherence)
			if err != nil {
				t.Fatal(err)
			}
			near(t, "received", 1-share(p, 3000, slots), tt.received, 0.015)
		}
	}
	// Within a coherence time all frames share one fate.
	p, err := radio.NewRayleigh(1, 3, 0, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for d := range uint64(100) {
		for i := range 10 {
			l, at := radio.Link{Device: d}, time.Duration(i)*10*time.Second
			if p.Lost(l, radio.Slot{Fragment: 1, At: at}) != p.Lost(l, radio.Slot{Fragment: 2, At: at + 9*time.Second}) {
				t.Fatalf("device %d: two fates in one fade", d)
			}
		}
	}
}

func TestOutagesStrikeAllDevices(t *testing.T) {
	p := processes(t, 3)["outages"]
	bad := 0
	for i := range 20000 {
		s := radio.Slot{At: time.Duration(i) * step}
		first := p.Lost(radio.Link{Device: 1}, s)
		if first {
			bad++
		}
		if p.Lost(radio.Link{Device: 77}, s) != first {
			t.Fatalf("second %d: an outage for one device only", i)
		}
	}
	near(t, "share of time without a gateway", float64(bad)/20000, 1/11.0, 0.02)
}

// TestProcessAgreesWithSampler: a device of the medium and one without payload meet the same fates.
func TestProcessAgreesWithSampler(t *testing.T) {
	epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, p := range processes(t, 5) {
		carrier := radio.AsProcess(p, p, epoch)
		slots := broadcasts()["plain"]
		lost := make([]uint64, (len(slots)+63)/64)
		p.Sampler(slots).Fill(lost, radio.Link{Device: 12})
		for i, s := range slots {
			_, ok := carrier.Carry(radio.Key{Device: eui(12), Kind: radio.Multicast, Counter: s.Fragment}, epoch.Add(s.At))
			if ok == (lost[i>>6]>>(i&63)&1 != 0) {
				t.Fatalf("%s: frame %d: the medium and the sampler disagree", name, i)
			}
		}
	}
}

func TestTraces(t *testing.T) {
	trace, err := radio.ReadTrace(strings.NewReader("device,time_s,lost\nb,1,0\na,0,0\na,1.5,1\na,2,0\n"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := trace.New(1)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		device uint64
		at     time.Duration
		want   bool
	}{{0, 0, false}, {0, 1499 * time.Millisecond, false}, {0, 1500 * time.Millisecond, true}, {0, 2 * time.Second, false}, {1, 0, false}} {
		if got := p.Lost(radio.Link{Device: tt.device}, radio.Slot{At: tt.at}); got != tt.want {
			t.Errorf("device %d at %v: lost %t, want %t", tt.device, tt.at, got, tt.want)
		}
	}
	var out bytes.Buffer
	if err := trace.Write(&out); err != nil {
		t.Fatal(err)
	}
	if want := "device,time_s,lost\na,0,0\na,1.5,1\na,2,0\nb,1,0\n"; out.String() != want {
		t.Errorf("written as %q, want %q", out.String(), want)
	}
	for _, bad := range []struct{ in, want string }{
		{"", "want device,time_s,lost"},
		{"a,b,c\n", `"a,b,c"`},
		{"device,time_s,lost\n", "no rows"},
		{"device,time_s,lost\na,-1,0\n", `line 2: time_s "-1"`},
		{"device,time_s,lost\na,NaN,0\n", `"NaN"`},
		{"device,time_s,lost\na,1,2\n", `lost "2", want 0 or 1`},
		{"device,time_s,lost\na,1\n", "wrong number of fields"},
		{"device,time_s,lost\na,1,0\na,1,1\n", "two rows at 1 s"},
	} {
		if _, err := radio.ReadTrace(strings.NewReader(bad.in)); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%q: %v, want %q", bad.in, err, bad.want)
		}
	}
}

func TestUplinkEvents(t *testing.T) {
	trace, err := radio.ReadUplinks(strings.NewReader(`
{"time":"2026-01-01T00:00:00Z","deviceInfo":{"devEui":"01"},"fCnt":5}
{"time":"2026-01-01T00:04:00Z","deviceInfo":{"devEui":"01"},"fCnt":9}
{"time":"2026-01-01T00:04:00Z","deviceInfo":{"devEui":"01"},"fCnt":9}
{"time":"2026-01-01T00:05:00Z","deviceInfo":{"devEui":"01"},"fCnt":0}
{"deduplicationId":"a join"}
`))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := trace.Write(&out); err != nil {
		t.Fatal(err)
	}
	if want := "device,time_s,lost\n01,0,0\n01,60,1\n01,120,1\n01,180,1\n01,240,0\n01,300,0\n"; out.String() != want {
		t.Errorf("trace %q, want %q", out.String(), want)
	}
	if _, err := radio.ReadUplinks(strings.NewReader("{")); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("half an object: %v", err)
	}
}

func TestImpossibleChannelsAreRefused(t *testing.T) {
	second := func(_ any, err error) error { return err }
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"probability":  {second(radio.NewBernoulli(1, 1.5)), "1.5 is outside 0..1"},
		"beta":         {second(radio.NewBeta(1, 0, 1)), "a 0 is outside"},
		"margin":       {second(radio.NewRayleigh(1, math.NaN(), 0, 0)), "NaN dB is outside"},
		"shadowing":    {second(radio.NewRayleigh(1, 3, -1, 0)), "-1 dB is outside 0..30"},
		"coherence":    {second(radio.NewRayleigh(1, 3, 0, 1)), "1ns is neither"},
		"short bursts": {second(radio.Bursts(step, 0.5, step)), "at least step/(1-loss)"},
		"burst":        {second(radio.Bursts(step, 0.1, step/2)), "shorter than the step"},
		"never moves":  {second(radio.GilbertElliott{Step: step}.New(1)), "add up to 0"},
		"outage":       {second(radio.Outages(1, step, step/2, step)), "need a step shorter"},
	} {
		if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, tt.err, tt.want)
		}
	}
}

func BenchmarkFill(b *testing.B) {
	slots := broadcasts()["plain"]
	lost := make([]uint64, (len(slots)+63)/64)
	for name, p := range processes(b, 1) {
		s := p.Sampler(slots)
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				s.Fill(lost, radio.Link{Device: uint64(i)})
			}
		})
	}
}
