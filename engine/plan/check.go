package plan

import (
	"math"
	"math/rand/v2"

	"github.com/sower-fuota/sower/fragmentation"
)

// Check is what a simulation says of the very fragments that a session will send.
type Check struct {
	Devices  int     `json:"devices"`  // simulated
	Complete float64 `json:"complete"` // share of them, with data and the first burst
	Twins    int     `json:"twins"`    // pairs of data fragments that the burst hardly tells apart
}

// Meets reports whether the share of complete devices is what was planned, allowing for the luck of the draw.
func (c Check) Meets(target float64) bool {
	slack := 3*math.Sqrt(target*(1-target)/float64(max(c.Devices, 1))) + 0.005
	return c.Complete >= target-slack
}

// selfCheck decodes the plan on simulated devices with the losses of the fleet, given as devices by loss in per
// cent. The number of devices is what takes some milliseconds.
func selfCheck(p Plan, losses [101]float64) Check {
	code, err := fragmentation.NewCode(p.M, p.Matrix, p.Indices[:p.Parity])
	if err != nil {
		return Check{}
	}
	total, mean := 0.0, 0.0
	for i, n := range losses {
		total += n
		mean += n * float64(i) / 100
	}
	if total == 0 {
		return Check{}
	}
	lost := float64(p.M)*mean/total + 8
	nanoseconds := 300 + lost*lost*(lost/64+1)
	devices := min(max(2e7/nanoseconds, 200), 4000)
	c := Check{Twins: len(fragmentation.Inspect(code).Twins)}
	src := rand.NewPCG(uint64(p.M), uint64(p.Parity))
	d := fragmentation.NewRankDecoder(code)
	pattern := fragmentation.NewBitset(code.Len())
	complete := 0
	due := 0.0
	for i, n := range losses {
		if n == 0 {
			continue
		}
		process := fragmentation.NewBernoulli(float64(i) / 100)
		for due += n / total * devices; due >= 1; due-- {
			process.Fill(pattern, src)
			if _, ok := d.Complete(pattern); ok {
				complete++
			}
			c.Devices++
		}
	}
	if c.Devices > 0 {
		c.Complete = float64(complete) / float64(c.Devices)
	}
	return c
}
