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

// BenchmarkTable counts building the table and comparing it with exact sessions, and then a fleet of twenty million.
func BenchmarkTable(b *testing.B) {
	const devices, reps = 5_000_000, 4
	p := points(b, fmt.Sprintf("devices = %d\ndepth = \"table\"\n[block]\nfragments = 231\n[loss]\np = 0.1\n[policy]\nparity = 50\n", devices))[0]
	best := math.Inf(1)
	for b.Loop() {
		t0 := cpuTime()
		sim, err := NewSimulator(p, nil)
		if err != nil {
			b.Fatal(err)
		}
		built := cpuTime()
		for rep := range reps {
			if _, err := sim.Run(rep); err != nil {
				b.Fatal(err)
			}
		}
		if total := (cpuTime() - t0).Seconds(); total < best {
			best = total
			info, _ := sim.Table()
			b.ReportMetric((built - t0).Seconds(), "build-s")
			b.ReportMetric(info.Distance, "distance")
			b.ReportMetric(info.Bound, "chance")
		}
	}
	b.ReportMetric(devices*reps/best, "sessions/s")
}

// BenchmarkRealDecoders is a session of 50 kB to 1000 devices with real fragments and the real decoder.
func BenchmarkRealDecoders(b *testing.B) {
	sim, err := NewSimulator(points(b, "devices = 1000\ndepth = \"bytes\"\n[block]\nbytes = 50000\n[loss]\np = 0.1\n[policy]\nparity = 50\n")[0], nil)
	if err != nil {
		b.Fatal(err)
	}
	best := math.Inf(1)
	deliveries := 0
	for rep := 0; b.Loop(); rep++ {
		t0 := cpuTime()
		r, err := sim.Run(rep)
		if err != nil {
			b.Fatal(err)
		}
		best = min(best, (cpuTime() - t0).Seconds())
		deliveries = r.Sent * r.Devices
	}
	b.ReportMetric(best, "cpu-s")
	b.ReportMetric(float64(deliveries)/best, "deliveries/s")
}
