package radio

import (
	"fmt"
	"slices"
	"time"

	"github.com/sower-fuota/sower/airtime"
)

// Plan is what devices and network servers of a region agree on beyond package airtime: the uplink channels
// and the receive windows that follow from them, for the defaults of RP002-1.0.3 (RX1DROffset 0, no repeaters,
// no dwell time limit).
type Plan struct {
	Region    airtime.Region
	JoinDelay time.Duration // end of a join request to RX1

	channels []UplinkChannel
	down     []uint32 // downlink channels of the plans whose RX1 is not on the uplink's frequency
	rx1      []int    // downlink data rate by uplink data rate; nil: the same
}

// UplinkChannel is a channel with the range of the data rates that it takes.
type UplinkChannel struct {
	Frequency    uint32
	MinDR, MaxDR int
}

// Takes reports whether a device sends at a data rate on the channel.
func (c UplinkChannel) Takes(dr int) bool { return c.MinDR <= dr && dr <= c.MaxDR }

// NewPlan returns the plan of a region.
func NewPlan(r airtime.Region) (*Plan, error) {
	p := &Plan{Region: r, JoinDelay: 5 * time.Second}
	same := func(frequencies ...uint32) {
		for _, f := range frequencies {
			p.channels = append(p.channels, UplinkChannel{f, 0, 5})
		}
	}
	raster := func(n int, first, step uint32, minDR, maxDR int) {
		for i := range n {
			p.channels = append(p.channels, UplinkChannel{first + uint32(i)*step, minDR, maxDR})
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
		if c.Takes(dr) {
			usable = append(usable, c.Frequency)
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
		if c.Frequency == frequency {
			return i
		}
	}
	return 0
}

// Channels lists the frequencies of the uplink channels by index.
func (p *Plan) Channels() []uint32 {
	out := make([]uint32, len(p.channels))
	for i, c := range p.channels {
		out[i] = c.Frequency
	}
	return out
}

// Uplinks lists the uplink channels by index.
func (p *Plan) Uplinks() []UplinkChannel { return slices.Clone(p.channels) }

// Fixed reports whether the region has a fixed set of channels, as US915 and AU915 have: none can be added to it, and RX1 is
// not on the frequency of the uplink.
func (p *Plan) Fixed() bool { return p.rx1 != nil }

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

// MaxRX1Offset is the largest RX1DROffset by which RX1 is slower by as many data rates, down to the slowest of the region.
// Offsets that make it faster are not modelled.
func (p *Plan) MaxRX1Offset() int {
	if p.Region == airtime.US915 {
		return 3
	}
	return 5
}

// RX1Rate is the data rate of RX1 after an uplink at data rate dr, with an RX1DROffset of 0..[Plan.MaxRX1Offset].
func (p *Plan) RX1Rate(dr, offset int) int {
	if p.rx1 == nil {
		return max(dr-offset, 0)
	}
	// The RX1DROffset tables of RP002-1.0.3 for US915 and AU915: DR8..DR13, counted from RX1 after DR0.
	return min(max(p.rx1[0]+dr-offset, 8), 13)
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
