package fragmentation

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	brocaar "github.com/brocaar/lorawan/applayer/fragmentation"
)

func randomBlock(n int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// BenchmarkEncode runs brocaar/lorawan Encode and ours alternately on the same block and
// reports the ratio of the best rounds, so that a busy machine hurts both alike.
func BenchmarkEncode(b *testing.B) {
	for _, s := range []struct{ m, size, parity int }{{1000, 242, 300}, {1000, 50, 300}, {300, 242, 90}, {4000, 50, 300}} {
		b.Run(fmt.Sprintf("M=%d/S=%d/R=%d", s.m, s.size, s.parity), func(b *testing.B) {
			block := randomBlock(s.m * s.size)
			e, err := NewEncoder(block, s.size, V1)
			if err != nil {
				b.Fatal(err)
			}
			out := make([]byte, 0, s.parity*s.size)
			best, rival := time.Hour, time.Hour
			var theirs [][]byte
			b.SetBytes(int64(len(block)))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				t0 := time.Now()
				out = out[:0]
				for n := s.m + 1; n <= s.m+s.parity; n++ {
					out, _ = e.Fragment(out, n)
				}
				best = min(best, time.Since(t0))
				if i%10 == 0 {
					b.StopTimer()
					t0 := time.Now()
					if theirs, err = brocaar.Encode(block, s.size, s.parity); err != nil {
						b.Fatal(err)
					}
					rival = min(rival, time.Since(t0))
					b.StartTimer()
				}
			}
			b.StopTimer()
			if !bytes.Equal(out, bytes.Join(theirs[s.m:], nil)) {
				b.Fatal("parity differs")
			}
			b.ReportMetric(float64(rival)/float64(best), "x-brocaar")
			b.ReportMetric(float64(best.Nanoseconds())/1e3/float64(s.parity), "us/parity")
		})
	}
}
