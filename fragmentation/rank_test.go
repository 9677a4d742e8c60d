package fragmentation

import (
	"math/rand/v2"
	"testing"
)

func BenchmarkRankDecoder(b *testing.B) {
	for _, s := range []struct {
		name string
		m, r int
		p    float64
	}{
		{"M=300/R=100/p=0.05", 300, 100, .05},
		{"M=300/R=100/p=0.10", 300, 100, .10},
		{"M=300/R=100/p=0.20", 300, 100, .20},
		{"M=1000/R=300/p=0.10", 1000, 300, .10},
		{"M=768/R=450/p=0.30", 768, 450, .30},
		{"M=4000/R=1000/p=0.10", 4000, 1000, .10},
	} {
		b.Run(s.name, func(b *testing.B) {
			code, err := NewCode(s.m, V1, Sequence(s.m, s.r))
			if err != nil {
				b.Fatal(err)
			}
			d := NewRankDecoder(code)
			src := rand.NewPCG(1, 2)
			loss := NewBernoulli(s.p)
			lost := NewBitset(code.Len())
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
