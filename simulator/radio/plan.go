package radio

import (
	"fmt"
	"time"

	"github.com/sower-fuota/sower/airtime"
)

// Plan is what devices and network servers of a region agree on beyond package airtime: the uplink channels
// and the receive windows that follow from them, for the defaults of RP002-1.0.3 (RX1DROffset 0, no repeaters,
// no dwell time limit).
type Plan struct {
	Region    airtime.Region
	JoinDelay time.Duration // end of a join request to RX1

	channels []channel
	down     []uint32 // downlink channels of the plans whose RX1 is not on the uplink's frequency
	rx1      []int    // downlink data rate by uplink data rate; nil: the same
}

type channel struct {
	frequency    uint32
	minDR, maxDR int
}

// NewPlan returns the plan of a region.
func NewPlan(r airtime.Region) (*Plan, error) {
	p := &Plan{Region: r, JoinDelay: 5 * time.Second}
	same := func(frequencies ...uint32) {
		for _, f := range frequencies {
			p.channels = append(p.channels, channel{f, 0, 5})
		}
	}
	raster := func(n int, first, step uint32, minDR, maxDR int) {
		for i := range n {
			p.channels = append(p.channels, channel{first + uint32(i)*step, minDR, maxDR})
		}
	}
	switch r {
	case airtime.EU868:
		same(868_100_000, 868_300_000, 868_500_000)
	case airtime.IN865:
		same(865_062_500, 865_402_500, 865_985_000)
	case airtime.KR920:
		same(922_100_000, 922_300_000, 922_500_000)
	case airtime.AS923:
		same(923_200_000, 923_400_000)
	case airtime.US915:
		raster(64, 902_300_000, 200_000, 0, 3)
		raster(8, 903_000_000, 1_600_000, 4, 4)
		p.rx1 = []int{10, 11, 12, 13, 13}
	case airtime.AU915:
		raster(64, 915_200_000, 200_000, 0, 5)
		raster(8, 915_900_000, 1_600_000, 6, 6)
		p.rx1 = []int{8, 9, 10, 11, 12, 13, 13}
	default:
		return nil, fmt.Errorf("radio: region %s is not simulated", r)
	}
	if p.rx1 != nil {
		for i := range uint32(8) {
			p.down = append(p.down, 923_300_000+i*600_000)
		}
	}
	return p, nil
}

// EU868 is the plan of Europe.
func EU868() *Plan {
	p, err := NewPlan(airtime.EU868)
	if err != nil {
		panic("radio: internal error: " + err.Error())
	}
	return p
}

// Uplink picks the channel for an uplink at a data rate, by bits that the caller draws.
func (p *Plan) Uplink(dr int, bits uint64) (frequency uint32, err error) {
	var usable []uint32
	for _, c := range p.channels {
		if c.minDR <= dr && dr <= c.maxDR {
			usable = append(usable, c.frequency)
		}
	}
	if len(usable) == 0 {
		return 0, fmt.Errorf("%w: DR%d has no default uplink channel in %s", airtime.ErrDataRate, dr, p.Region)
	}
	return usable[bits%uint64(len(usable))], nil
}

// Channel is the index of an uplink channel; 0 for a frequency that is none.
func (p *Plan) Channel(frequency uint32) int {
	for i, c := range p.channels {
		if c.frequency == frequency {
			return i
		}
	}
	return 0
}

// Channels lists the frequencies of the uplink channels by index.
func (p *Plan) Channels() []uint32 {
	out := make([]uint32, len(p.channels))
	for i, c := range p.channels {
		out[i] = c.frequency
	}
	return out
}

// RX1 is the first receive window after an uplink.
func (p *Plan) RX1(frequency uint32, dr int) (uint32, int) {
	if p.rx1 == nil {
		return frequency, dr
	}
	if dr < 0 || dr >= len(p.rx1) {
		dr = 0
	}
	return p.down[p.Channel(frequency)%len(p.down)], p.rx1[dr]
}

// MaxPayload is the largest application payload of a frame without MAC commands.
func (p *Plan) MaxPayload(dr int, d airtime.Direction) (int, error) {
	return p.Region.MaxPayload(dr, airtime.Link{Direction: d, RP002: true})
}

// timeOnAir is the duration of a PHYPayload.
func (p *Plan) timeOnAir(dr, size int, d airtime.Direction) (time.Duration, error) {
	rate, err := p.Region.DataRate(dr)
	if err != nil {
		return 0, err
	}
	if size > 255 {
		return 0, fmt.Errorf("radio: frame of %d bytes, at most 255", size)
	}
	return rate.TimeOnAir(size, d), nil
}
