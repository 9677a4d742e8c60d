package experiment

import (
	"context"
	"testing"
)

// TestPublishedResults recomputes published numbers. The short form leaves out those that take long, which
// `sower simulate verify` and SOWER_PROOF=1 run too.
func TestPublishedResults(t *testing.T) {
	names := []string{"t09", "t14-m100", "t14-m50-", "t16-carousel-m231-d1", "t13-m100-iid10", "t13-m100-ge4", "fixed-b10-", "time-", "fuotasim", "fuotaa"}
	if proof {
		names = nil
	}
	n := 0
	err := Verify(context.Background(), names, func(c Check) {
		n++
		if !c.OK() {
			t.Errorf("%s %s: %g, published %g ± %g (%s)", c.Name, c.Metric, c.Got, c.Want, c.Tolerance, c.Source)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 100 {
		t.Errorf("%d numbers checked, want 100 or more", n)
	}
}
