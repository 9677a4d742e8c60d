package main

import (
	"math"
	"testing"

	"github.com/sower-fuota/sower/delta"
	"github.com/sower-fuota/sower/delta/internal/sample"
)

// TestEstimate holds the encoder's estimate of a Cortex-M4's cycles, which its budget rests on, to
// 20 % of the instructions counted.
func TestEstimate(t *testing.T) {
	t.Chdir("../../..")
	for _, tt := range []struct {
		name             string
		functions, edits int
		cycles           uint64
	}{
		{"few changes", 400, 20, 0},
		{"many changes", 300, 200, 2e8},
		{"many changes, small window", 300, 200, 1.2e8},
	} {
		old, new := sample.Pair(2, tt.functions, tt.edits)
		p, stream, err := delta.Encode(old, new, delta.Options{Cycles: tt.cycles})
		if err != nil {
			t.Fatal(err)
		}
		rep, err := delta.Inspect(p, old, stream)
		if err != nil {
			t.Fatal(err)
		}
		n, err := count(p, old, new, stream, "cortex-m4")
		if err != nil {
			t.Fatal(err)
		}
		ratio := float64(rep.Cycles) / (1.2 * n)
		t.Logf("%s: %d bytes, %s, %.0f M instructions, estimate %+.0f %%", tt.name, len(stream), p.Describe(), n/1e6, 100*(ratio-1))
		if math.Abs(ratio-1) > 0.2 {
			t.Errorf("%s: estimated %d cycles, counted %.0f", tt.name, rep.Cycles, 1.2*n)
		}
	}
}
