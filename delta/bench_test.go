package delta

import (
	"testing"

	"github.com/sower-fuota/sower/delta/internal/sample"
)

// BenchmarkEncode and BenchmarkDecode are a rebuilt firmware of 40 kB, a worst case: most functions have moved and
// three in ten have changed. See delta/internal/compare for real firmware.
func BenchmarkEncode(b *testing.B) {
	old, new := sample.Pair(1, 400, 300)
	b.SetBytes(int64(len(new)))
	b.ReportAllocs()
	for b.Loop() {
		_, stream, err := Encode(old, new, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(stream)), "stream-B")
	}
}

func BenchmarkDecode(b *testing.B) {
	old, new := sample.Pair(1, 400, 300)
	p, stream, err := Encode(old, new, Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(new)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(p, old, stream); err != nil {
			b.Fatal(err)
		}
	}
}
