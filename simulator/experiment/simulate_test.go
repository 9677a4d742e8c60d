package experiment

import (
	"fmt"
	"math"
	"os"
	"testing"
)

// proof runs the long forms of tests.
var proof = os.Getenv("SOWER_PROOF") != ""

// points reads a scenario; the name and seed are filled in.
func points(t testing.TB, text string) []Point {
	t.Helper()
	p, err := Points([]byte("name = \"test\"\nseed = 1\n" + text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// simulate runs repetition 0 of the first point.
func simulate(t testing.TB, text string) Result {
	t.Helper()
	sim, err := NewSimulator(points(t, text)[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := sim.Run(0)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func share(r Result) float64 { return float64(r.Complete) / float64(r.Devices) }

// BenchmarkSession measures device sessions per second of processor time with the exact matrix, loss sampling included.
// The best of the rounds counts: a busy machine only ever makes it slower.
func BenchmarkSession(b *testing.B) {
	for _, c := range []struct {
		m, r  int
		p     float64
		depth string
	}{{231, 50, 0.1, "rank"}, {500, 100, 0.1, "rank"}, {1000, 200, 0.1, "rank"}, {500, 250, 0.3, "rank"}, {231, 50, 0.1, "table"}} {
		b.Run(fmt.Sprintf("%s/M=%d/R=%d/p=%.2f", c.depth, c.m, c.r, c.p), func(b *testing.B) {
			const devices = 20000
			sim, err := NewSimulator(points(b, fmt.Sprintf("devices = %d\ndepth = %q\n[block]\nfragments = %d\n[loss]\np = %v\n[policy]\nparity = %d\n",
				devices, c.depth, c.m, c.p, c.r))[0], nil)
			if err != nil {
				b.Fatal(err)
			}
			best := math.Inf(1)
			for rep := 0; b.Loop(); rep++ {
				t0 := cpuTime()
				if _, err := sim.Run(rep); err != nil {
					b.Fatal(err)
				}
				best = min(best, (cpuTime() - t0).Seconds())
			}
			b.ReportMetric(devices/best, "sessions/s")
		})
	}
}

func TestQuick(t *testing.T) {
	for _, c := range []struct {
		m, r int
		p    float64
	}{{100, 20, .1}, {100, 30, .1}, {210, 63, .2}, {231, 30, .1}, {50, 15, .1}, {384, 116, .1}} {
		r := simulate(t, fmt.Sprintf("devices=50000\n[block]\nfragments=%d\n[loss]\np=%v\n[policy]\nparity=%d\n", c.m, c.p, c.r))
		fmt.Println(c, share(r), r.Time, r.Sent)
	}
	for _, pol := range []string{"fixed\"\nredundancy=0.3", "plan\"", "rateless\""} {
		r := simulate(t, "[block]\nfragments=300\n[loss]\nmodel=\"beta\"\na=1\nb=9\n[uplink]\nloss=0.1\nretries=2\n[policy]\nname=\""+pol)
		r.Done = nil
		fmt.Printf("%s %+v\n", pol, r)
	}
}
