package radio

import (
	"math"
	"testing"
)

// TestExactFunctions compares with package math over the range in use.
func TestExactFunctions(t *testing.T) {
	for x := -60.0; x < 60; x += 0.137 {
		if got, want := exp(x), math.Exp(x); math.Abs(got/want-1) > 1e-13 {
			t.Errorf("exp(%v) = %v, want %v", x, got, want)
		}
	}
	for x := 1e-300; x < 1e300; x *= 1.37 {
		if got, want := log(x), math.Log(x); math.Abs(got-want) > 1e-13*math.Max(1, math.Abs(want)) {
			t.Errorf("log(%v) = %v, want %v", x, got, want)
		}
	}
}
