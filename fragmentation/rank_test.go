package fragmentation

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func mustCode(t testing.TB, m int, matrix Matrix, indices []int) *Code {
	t.Helper()
	c, err := NewCode(m, matrix, indices)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCodeRefuses(t *testing.T) {
	tests := []struct {
		m       int
		matrix  Matrix
		indices []int
		want    error
	}{
		{0, V1, nil, ErrLimit},
		{16384, V1, nil, ErrLimit},
		{10, 0, nil, ErrLimit},
		{10, V1, []int{11, 0}, ErrIndex},
		{10, V1, []int{11, 16384}, ErrIndex},
	}
	for _, tt := range tests {
		if c, err := NewCode(tt.m, tt.matrix, tt.indices); !errors.Is(err, tt.want) || c != nil {
			t.Errorf("NewCode(%d, %v, %v) = %v, %v; want %v", tt.m, tt.matrix, tt.indices, c, err, tt.want)
		}
	}
	if got := Sequence(16380, 10); fmt.Sprint(got) != "[16381 16382 16383]" {
		t.Errorf("Sequence(16380, 10) = %v", got)
	}
	if got := Sequence(10, -1); len(got) != 0 {
		t.Errorf("Sequence(10, -1) = %v", got)
	}
}

// On the same losses the rank-only decoder completes at the very fragment at which a payload
// decoder does, and its profile is the payload decoder's rank, at every fragment.
func TestRankOnlyEqualsPayload(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	complete := 0
	for trial := range trials(300, 10000) {
		m := 1 + rng.IntN(200)
		matrix := matrices[rng.IntN(3)]
		var indices []int
		for range rng.IntN(2*m + 80) {
			switch n := m + 1 + rng.IntN(MaxIndex-m); rng.IntN(10) {
			case 0:
				n = 1 + rng.IntN(m) // an uncoded fragment, again
				fallthrough
			default:
				indices = append(indices, n)
			}
		}
		code := mustCode(t, m, matrix, indices)
		if code.Len() != m+len(indices) || code.M() != m || code.Matrix() != matrix || fmt.Sprint(code.Indices()) != fmt.Sprint(indices) {
			t.Fatal("the code does not say what it was made of")
		}
		ranks := NewRankDecoder(code)
		for range 3 { // the decoder is reused
			lost := NewBitset(code.Len())
			NewBernoulli(rng.Float64()).Fill(lost, rng)
			if rng.IntN(4) == 0 {
				lost = lost[:rng.IntN(len(lost)+1)] // the rest is lost as well
			}
			d := mustDecoder(t, m, 1, matrix)
			completed, rises := 0, []int(nil)
			lostData := 0
			for i := range code.Len() {
				gone := i>>6 >= len(lost) || lost.Has(i)
				if i < m && gone {
					lostData++
				}
				if gone {
					continue
				}
				n := i + 1
				if i >= m {
					n = indices[i-m]
				}
				before := d.Missing()
				if mustAdd(t, d, n, []byte{0}) && completed == 0 {
					completed = max(i+1, m)
				}
				if i >= m && d.Missing() < before {
					rises = append(rises, i+1)
				}
			}
			sent, ok := ranks.Complete(lost)
			if ok != d.Done() || sent != completed || ranks.Lost() != lostData {
				t.Fatalf("trial %d: M=%d %v R=%d, %d lost: complete %v at %d, the payload decoder %v at %d",
					trial, m, matrix, len(indices), lostData, ok, sent, d.Done(), completed)
			}
			if got := ranks.Profile(lost); fmt.Sprint(got) != fmt.Sprint(rises) {
				t.Fatalf("trial %d: profile %v, the payload decoder's rank rises at %v", trial, got, rises)
			}
			if ok {
				complete++
			}
		}
	}
	if complete < 50 {
		t.Errorf("only %d sessions completed: the test tests little", complete)
	}
}

func TestBernoulli(t *testing.T) {
	for _, tt := range []struct{ p, want float64 }{{-1, 0}, {0, 0}, {1, 1}, {2, 1}, {math.NaN(), 0}, {0.5, 0.5}, {0.1, 0.1}, {1e-3, 1e-3}, {0.999, 0.999}} {
		lost := NewBitset(64 * 20000)
		NewBernoulli(tt.p).Fill(lost, rand.NewPCG(8, 8))
		n := float64(64 * len(lost))
		got, sigma := float64(lost.Count())/n, math.Sqrt(tt.want*(1-tt.want)/n)
		if math.Abs(got-tt.want) > 4*sigma {
			t.Errorf("p = %v: %v lost", tt.p, got)
		}
	}
	// Neighbours are independent: the share of pairs lost is p^2.
	lost := NewBitset(64 * 20000)
	NewBernoulli(0.3).Fill(lost, rand.NewPCG(9, 9))
	pairs := 0
	for i := range 64*len(lost) - 1 {
		if lost.Has(i) && lost.Has(i+1) {
			pairs++
		}
	}
	if got := float64(pairs) / float64(64*len(lost)); math.Abs(got-0.09) > 0.002 {
		t.Errorf("share of lost neighbours %v, want 0.09", got)
	}
}

// The same seed gives the same devices, on any machine: these numbers are part of the promise.
func TestSimulationIsReproducible(t *testing.T) {
	code := mustCode(t, 300, V1, Sequence(300, 100))
	o := Measure(code, 0.1, 2000, rand.NewPCG(1, 2))
	got := fmt.Sprint(o.Incomplete, o.sum, o.failed[:6])
	if want := "0 3272 [1424 868 478 256 128 60]"; got != want {
		t.Errorf("2000 devices: %s, want %s", got, want)
	}
}

func TestRankDecoderDoesNotAllocate(t *testing.T) {
	code := mustCode(t, 300, V1, Sequence(300, 100))
	d, src, lost := NewRankDecoder(code), rand.NewPCG(1, 2), NewBitset(code.Len())
	session := func() {
		NewBernoulli(0.2).Fill(lost, src)
		d.Complete(lost)
	}
	for range 200 { // until it has met its worst device
		session()
	}
	if allocs := testing.AllocsPerRun(500, session); allocs > 0.1 {
		t.Errorf("%v allocations per session", allocs)
	}
}

// BenchmarkRankDecoder is whole simulated sessions, losses drawn included.
func BenchmarkRankDecoder(b *testing.B) {
	for _, s := range []struct {
		m, r int
		p    float64
	}{{300, 100, .05}, {300, 100, .10}, {300, 100, .20}, {1000, 300, .10}, {768, 450, .30}, {4000, 1000, .10}} {
		b.Run(fmt.Sprintf("M=%d/R=%d/p=%.2f", s.m, s.r, s.p), func(b *testing.B) {
			code := mustCode(b, s.m, V1, Sequence(s.m, s.r))
			d, src, lost := NewRankDecoder(code), rand.NewPCG(1, 2), NewBitset(code.Len())
			loss := NewBernoulli(s.p)
			complete, all := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				loss.Fill(lost, src)
				if _, ok := d.Complete(lost); ok {
					complete++
				}
				all++
			}
			b.ReportMetric(float64(all)/b.Elapsed().Seconds(), "sessions/s")
			b.ReportMetric(float64(complete)/float64(all), "complete")
		})
	}
}

func ExampleRankDecoder() {
	code, err := NewCode(300, V2, Sequence(300, 60))
	if err != nil {
		panic(err)
	}
	d := NewRankDecoder(code)
	lost := NewBitset(code.Len()) // by position in the transmission, from 0
	loss, src := NewBernoulli(0.10), rand.NewPCG(2, 3)
	for range 3 {
		loss.Fill(lost, src)
		sent, ok := d.Complete(lost)
		fmt.Println(d.Lost(), "lost, complete:", ok, "after", sent, "fragments")
	}
	// Output:
	// 33 lost, complete: true after 336 fragments
	// 40 lost, complete: true after 344 fragments
	// 24 lost, complete: true after 327 fragments
}
