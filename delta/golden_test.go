package delta

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/sower-fuota/sower/delta/internal/sample"
)

// TestGolden pins the bytes of patches: they are the same on every architecture, and a change of
// the stream cannot go unnoticed.
func TestGolden(t *testing.T) {
	release := func(edits int) func() ([]byte, []byte) {
		return func() ([]byte, []byte) { return sample.Pair(1, 400, edits) }
	}
	generated := func(k uint64) func() ([]byte, []byte) {
		return func() ([]byte, []byte) { _, old, new := pair(k); return old, new }
	}
	for _, tt := range []struct {
		name string
		pair func() (old, new []byte)
		o    Options
		size int
		sum  string
	}{
		{"release", release(20), Options{}, 210, "ca210de3714e7b24"},
		{"rebuilt, 5 KiB", release(300), Options{RAM: 5120, Cycles: 2e8}, 7051, "04c65166c1c4df84"},
		{"release, map in memory, generic", release(20), Options{Arch: ArchNone, Map: MapRAM, RAM: 8192}, 2769, "4fd87fec0dfa2dcc"},
		{"no base", func() ([]byte, []byte) { _, new := sample.Pair(1, 100, 20); return nil, new }, Options{}, 5176, "5d3669f1a52024b6"},
		{"edits", generated(5), Options{}, 57, "6c8990a1a8239a8f"},
	} {
		old, new := tt.pair()
		p, stream, err := Encode(old, new, tt.o)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		h := sha256.New()
		fmt.Fprintf(h, "%+v", p)
		h.Write(stream)
		if sum := fmt.Sprintf("%x", h.Sum(nil)[:8]); len(stream) != tt.size || sum != tt.sum {
			t.Errorf("%s: %d bytes, digest %s; want %d, %s", tt.name, len(stream), sum, tt.size, tt.sum)
		}
	}
}
