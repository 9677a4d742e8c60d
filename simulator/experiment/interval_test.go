package experiment

import (
	"fmt"
	"math"
	"strconv"
	"testing"

	"github.com/sower-fuota/sower/simulator/radio"
)

func TestWilson(t *testing.T) {
	for _, tt := range []struct {
		hits, n   int
		low, high float64
	}{{0, 0, 0, 1}, {0, 10, 0, 0.2775}, {5, 10, 0.2366, 0.7634}, {81, 263, 0.2553, 0.3662}, {10, 10, 0.7225, 1}} {
		low, high := Wilson(tt.hits, tt.n)
		if fmt.Sprintf("%.4f %.4f", low, high) != fmt.Sprintf("%.4f %.4f", tt.low, tt.high) {
			t.Errorf("Wilson(%d, %d) = %.4f, %.4f, want %.4f, %.4f", tt.hits, tt.n, low, high, tt.low, tt.high)
		}
	}
}

// TestBootstrapCovers draws samples of a skewed distribution of known mean (exponential) and counts how often the
// interval holds it: some 95 % of the times, less with few repetitions, as the documentation says.
func TestBootstrapCovers(t *testing.T) {
	const mean, trials = 1e6, 600
	for _, tt := range []struct {
		n         int
		low, high float64
	}{{10, 0.82, 0.93}, {40, 0.90, 0.97}} {
		covered := 0
		for trial := range trials {
			column := make([]int64, tt.n)
			for i := range column {
				u := (float64(radio.Hash(uint64(trial), uint64(i), 5)>>11) + 0.5) / (1 << 53)
				column[i] = int64(-mean * math.Log(u))
			}
			b, ok := Bootstrap(uint64(trial), column)
			if !ok {
				t.Fatal("no interval")
			}
			if total := int64(mean * tt.n); b[0][0] <= total && total <= b[0][1] {
				covered++
			}
		}
		if got := float64(covered) / trials; got < tt.low || got > tt.high {
			t.Errorf("%d repetitions: covered %.3f of the times, want %.2f..%.2f", tt.n, got, tt.low, tt.high)
		}
	}
}

func TestBootstrapOfColumns(t *testing.T) {
	a, b, c := []int64{5, 9, 1, 7, 3, 8}, make([]int64, 6), make([]int64, 6)
	for i, v := range a {
		b[i], c[i] = 3*v, 4
	}
	got, ok := Bootstrap(1, a, b, c)
	if !ok || got[1] != [2]int64{3 * got[0][0], 3 * got[0][1]} {
		t.Errorf("a column and its triple, drawn alike: %v", got)
	}
	if got[0][0] >= 33 || got[0][1] <= 33 || got[2] != [2]int64{24, 24} {
		t.Errorf("%v does not surround the sum 33, or a constant has a spread", got)
	}
	if again, _ := Bootstrap(1, a); again[0] != got[0] {
		t.Errorf("%v alone, %v among others", again[0], got[0])
	}
	if other, _ := Bootstrap(2, a, b, c); fmt.Sprint(other) == fmt.Sprint(got) {
		t.Error("two seeds, one interval")
	}
	if _, ok := Bootstrap(1, []int64{5}); ok {
		t.Error("one repetition has an interval")
	}
}

// TestBootstrapSeesOutages: outages strike all devices of a repetition, so the share varies far more between repetitions
// than Wilson's interval, which takes devices as independent, knows.
func TestBootstrapSeesOutages(t *testing.T) {
	widths := func(loss string) (wilson, boot float64) {
		dir := t.TempDir()
		run(t, points(t, "devices = 400\nreps = 30\n[block]\nfragments = 100\n[policy]\nparity = 16\n[loss]\np = 0.1\n"+loss), Options{Out: dir})
		rows, err := ReadSummary(dir)
		if err != nil {
			t.Fatal(err)
		}
		width := func(low, high string) float64 {
			a, err1 := strconv.ParseFloat(rows[0][low], 64)
			b, err2 := strconv.ParseFloat(rows[0][high], 64)
			if err := firstError(err1, err2); err != nil {
				t.Fatal(err)
			}
			return b - a
		}
		return width("share_low", "share_high"), width("share_boot_low", "share_boot_high")
	}
	if w, b := widths(""); b < w/2 || b > w*2 {
		t.Errorf("independent devices: Wilson %.4f, bootstrap %.4f, want alike", w, b)
	}
	if w, b := widths("outage_every = \"5m\"\noutage_for = \"20s\"\n"); b < 5*w {
		t.Errorf("with outages: Wilson %.4f, bootstrap %.4f, want far more", w, b)
	}
}
