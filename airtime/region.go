package airtime

import (
	"fmt"
	"strings"
	"time"
)

// Region is a channel plan. The zero value is none.
type Region uint8

// The regions covered. AS923 is its group 1.
const (
	EU868 Region = iota + 1
	US915
	AU915
	AS923
	IN865
	KR920
)

// plan is what the regional parameters say about a region. Payload limits are the least of all
// revisions since LoRaWAN 1.0.2B.
type plan struct {
	name     string
	rates    []DataRate // by index; the zero value where there is none
	payload  []int      // N by data rate: application payload in bytes without FOpts
	repeater []int      // N for frames that may pass a repeater
	newer    []int      // N of payload where RP002-1.0.2 raised it, else 0; nil: nowhere
	newerRep []int      // the same for repeater
	dwell    bool       // the 400 ms dwell time limit exists, for uplinks
	dwellDL  bool       // and for downlinks

	rx2Frequency uint32
	rx2DataRate  int

	beaconFrequency uint32 // channel 0 of 8 if hopping
	pingFrequency   uint32 // channel 0 of 8 if hopping
	hopping         bool
	beaconDataRate  int // of ping slots too
	beaconBytes     int

	bands []SubBand
}

var (
	rates125 = []DataRate{lora(12, 125), lora(11, 125), lora(10, 125), lora(9, 125), lora(8, 125), lora(7, 125)}
	rates250 = append(rates125[:6:6], lora(7, 250), DataRate{BitRate: 50000, Uplink: true, Downlink: true})

	// dwell400 is N under the 400 ms dwell time limit; 0 means that no frame is short enough.
	dwell400 = []int{0, 0, 11, 53, 125, 242, 242, 242}

	newerUSRepeater = []int{8: 53, 9: 129, 13: 0}
)

var plans = [...]plan{
	EU868: {
		name:            "EU868",
		rates:           rates250,
		payload:         []int{51, 51, 51, 115, 242, 242, 242, 242},
		repeater:        []int{51, 51, 51, 115, 222, 222, 222, 222},
		rx2Frequency:    869_525_000,
		rx2DataRate:     0,
		beaconFrequency: 869_525_000,
		pingFrequency:   869_525_000,
		beaconDataRate:  3,
		beaconBytes:     17,
		// ERC 70-03 annex 1. EN 300 220-2 calls these bands K, L, M, N, P and Q.
		bands: []SubBand{
			{Name: "K", Low: 863_000_000, High: 865_000_000, DutyCycle: 1, MaxERP: 25},
			{Name: "g", Low: 865_000_000, High: 868_000_000, DutyCycle: 10, MaxERP: 25},
			{Name: "g1", Low: 868_000_000, High: 868_600_000, DutyCycle: 10, MaxERP: 25},
			{Name: "g2", Low: 868_700_000, High: 869_200_000, DutyCycle: 1, MaxERP: 25},
			{Name: "g3", Low: 869_400_000, High: 869_650_000, DutyCycle: 100, MaxERP: 500},
			{Name: "g4", Low: 869_700_000, High: 870_000_000, DutyCycle: 10, MaxERP: 25},
		},
	},
	US915: {
		name: "US915",
		rates: []DataRate{up(10, 125), up(9, 125), up(8, 125), up(7, 125), up(8, 500), {}, {}, {},
			down(12, 500), down(11, 500), down(10, 500), down(9, 500), down(8, 500), down(7, 500)},
		payload:         []int{11, 53, 125, 242, 242, 0, 0, 0, 53, 129, 242, 242, 242, 242},
		repeater:        []int{11, 53, 125, 222, 222, 0, 0, 0, 33, 109, 222, 222, 222, 222},
		newerRep:        newerUSRepeater,
		rx2Frequency:    923_300_000,
		rx2DataRate:     8,
		beaconFrequency: 923_300_000,
		pingFrequency:   923_300_000,
		hopping:         true,
		beaconDataRate:  8,
		beaconBytes:     23,
		bands:           []SubBand{{Name: "US915", Low: 902_000_000, High: 928_000_000, DutyCycle: 1000}},
	},
	AU915: {
		name: "AU915",
		rates: []DataRate{up(12, 125), up(11, 125), up(10, 125), up(9, 125), up(8, 125), up(7, 125), up(8, 500), {},
			down(12, 500), down(11, 500), down(10, 500), down(9, 500), down(8, 500), down(7, 500)},
		payload:         []int{51, 51, 51, 115, 242, 242, 242, 0, 53, 129, 242, 242, 242, 242},
		repeater:        []int{51, 51, 51, 115, 222, 222, 222, 0, 33, 109, 222, 222, 222, 222},
		newerRep:        newerUSRepeater,
		dwell:           true,
		rx2Frequency:    923_300_000,
		rx2DataRate:     8,
		beaconFrequency: 923_300_000,
		pingFrequency:   923_300_000,
		hopping:         true,
		beaconDataRate:  8,
		beaconBytes:     23,
		bands:           []SubBand{{Name: "AU915", Low: 915_000_000, High: 928_000_000, DutyCycle: 1000}},
	},
	AS923: {
		name:            "AS923",
		rates:           rates250,
		payload:         []int{51, 51, 51, 115, 242, 242, 242, 242},
		repeater:        []int{51, 51, 51, 115, 222, 222, 222, 222},
		newer:           []int{2: 115, 7: 0},
		newerRep:        []int{2: 115, 7: 0},
		dwell:           true,
		dwellDL:         true,
		rx2Frequency:    923_200_000,
		rx2DataRate:     2,
		beaconFrequency: 923_400_000,
		pingFrequency:   923_400_000,
		beaconDataRate:  3,
		beaconBytes:     17,
		bands:           []SubBand{{Name: "AS923", Low: 915_000_000, High: 928_000_000, DutyCycle: 1000}},
	},
	IN865: {
		name:            "IN865",
		rates:           append(rates125[:6:6], DataRate{}, DataRate{BitRate: 50000, Uplink: true, Downlink: true}),
		payload:         []int{51, 51, 51, 115, 242, 242, 0, 242},
		repeater:        []int{51, 51, 51, 115, 222, 222, 0, 222},
		rx2Frequency:    866_550_000,
		rx2DataRate:     2,
		beaconFrequency: 866_550_000,
		pingFrequency:   866_550_000,
		beaconDataRate:  4,
		beaconBytes:     19,
		bands:           []SubBand{{Name: "IN865", Low: 865_000_000, High: 867_000_000, DutyCycle: 1000}},
	},
	KR920: {
		name:            "KR920",
		rates:           rates125,
		payload:         []int{51, 51, 51, 115, 242, 242},
		repeater:        []int{51, 51, 51, 115, 222, 222},
		rx2Frequency:    921_900_000,
		rx2DataRate:     0,
		beaconFrequency: 923_100_000,
		pingFrequency:   923_100_000,
		beaconDataRate:  3,
		beaconBytes:     17,
		bands:           []SubBand{{Name: "KR920", Low: 920_900_000, High: 923_300_000, DutyCycle: 1000}},
	},
}

func lora(sf, khz int) DataRate {
	return DataRate{SpreadingFactor: sf, Bandwidth: khz * 1000, Uplink: true, Downlink: true}
}

func up(sf, khz int) DataRate {
	return DataRate{SpreadingFactor: sf, Bandwidth: khz * 1000, Uplink: true}
}

func down(sf, khz int) DataRate {
	return DataRate{SpreadingFactor: sf, Bandwidth: khz * 1000, Downlink: true}
}

// Regions returns all regions.
func Regions() []Region { return []Region{EU868, US915, AU915, AS923, IN865, KR920} }

// ParseRegion returns the region of a name such as "EU868"; case does not matter.
func ParseRegion(name string) (Region, error) {
	for _, r := range Regions() {
		if strings.EqualFold(name, r.String()) {
			return r, nil
		}
	}
	return 0, fmt.Errorf("airtime: no region %q, want one of %v", name, Regions())
}

// String returns the name of the region.
func (r Region) String() string {
	if p := r.plan(); p.name != "" {
		return p.name
	}
	return fmt.Sprintf("region %d", uint8(r))
}

// plan returns the table of the region, an empty one if there is no such region.
func (r Region) plan() *plan {
	if int(r) < len(plans) {
		return &plans[r]
	}
	return &plans[0]
}

// DataRate returns the data rate of index dr. It fails for an index that the region has not, or
// uses for LR-FHSS.
func (r Region) DataRate(dr int) (DataRate, error) {
	p := r.plan()
	if dr < 0 || dr >= len(p.rates) || p.rates[dr] == (DataRate{}) {
		return DataRate{}, fmt.Errorf("%v DR%d: %w", r, dr, ErrDataRate)
	}
	return p.rates[dr], nil
}

// Link is what payload limits depend on besides the data rate.
type Link struct {
	Direction Direction
	Repeater  bool // the frame may pass a repeater, which adds to it
	DwellTime bool // the 400 ms limit of TxParamSetupReq is on for this direction: AS923, AU915 uplinks

	// RP002 says that the device implements RP002-1.0.2 or later, which raised some limits: AS923 DR2,
	// and US915 and AU915 DR8 and DR9 with a repeater. Otherwise the least limit of all revisions
	// since LoRaWAN 1.0.2B holds: devices drop a frame that is longer than they expect.
	RP002 bool
}

// MaxPayload returns N, the largest application payload in bytes at data rate dr, for a frame without
// FOpts. A frame with MAC commands in FOpts carries that much less. It fails if dr cannot be used
// in this direction or is too slow for the dwell time.
//
// In regions and directions without a dwell time limit DwellTime makes no difference; the limits of
// US915 contain that of its uplinks.
func (r Region) MaxPayload(dr int, l Link) (int, error) {
	rate, err := r.DataRate(dr)
	if err != nil {
		return 0, err
	}
	if l.Direction == Uplink && !rate.Uplink || l.Direction == Downlink && !rate.Downlink {
		return 0, fmt.Errorf("%v DR%d (%v): %w in the %v", r, dr, rate, ErrDataRate, l.Direction)
	}
	p := r.plan()
	limit, newer := p.payload, p.newer
	if l.Repeater {
		limit, newer = p.repeater, p.newerRep
	}
	n := limit[dr]
	if l.RP002 && newer != nil {
		n = max(n, newer[dr])
	}
	if l.DwellTime && p.dwell && (l.Direction == Uplink || p.dwellDL) {
		if n = min(n, dwell400[dr]); n == 0 {
			return 0, fmt.Errorf("%v DR%d (%v): %w under the 400 ms dwell time limit", r, dr, rate, ErrDataRate)
		}
	}
	return n, nil
}

// RX2 returns the default of the second receive window, in Hz and as a data rate index.
func (r Region) RX2() (frequency uint32, dr int) {
	p := r.plan()
	return p.rx2Frequency, p.rx2DataRate
}

// hop returns the channel of a region that hops: 8 channels, 600 kHz apart.
func (p *plan) hop(base uint32, offset uint32, gps time.Duration) uint32 {
	if !p.hopping {
		return base
	}
	return base + (offset+uint32(gps/BeaconPeriod))%8*600_000
}

// Beacon returns how the beacon at the GPS time gps is sent, in Hz and as a data rate index. gps
// counts from the GPS epoch, as [GPS] returns it.
func (r Region) Beacon(gps time.Duration) (frequency uint32, dr int) {
	p := r.plan()
	return p.hop(p.beaconFrequency, 0, gps), p.beaconDataRate
}

// BeaconTimeOnAir returns the duration of a beacon: 10 preamble symbols, implicit header, no CRC.
func (r Region) BeaconTimeOnAir() time.Duration {
	p := r.plan()
	rate, err := r.DataRate(p.beaconDataRate)
	if err != nil {
		return 0
	}
	return LoRa{
		SpreadingFactor: rate.SpreadingFactor,
		Bandwidth:       rate.Bandwidth,
		CodingRate:      1,
		Preamble:        10,
		ImplicitHeader:  true,
	}.TimeOnAir(p.beaconBytes)
}

// PingSlotDefault returns the default of the ping slots of devAddr in the beacon period at the GPS
// time gps, in Hz and as a data rate index. A multicast session that names a frequency uses that.
func (r Region) PingSlotDefault(devAddr uint32, gps time.Duration) (frequency uint32, dr int) {
	p := r.plan()
	return p.hop(p.pingFrequency, devAddr, gps), p.beaconDataRate
}

// SubBands returns the parts of the band that have a duty cycle of their own, by frequency.
// Regions without a duty cycle have one, with a DutyCycle of 1000 per mille.
func (r Region) SubBands() []SubBand {
	return append([]SubBand(nil), r.plan().bands...)
}

// SubBand returns the sub-band of a centre frequency in Hz.
func (r Region) SubBand(frequency uint32) (SubBand, error) {
	for _, b := range r.plan().bands {
		if frequency >= b.Low && frequency < b.High {
			return b, nil
		}
	}
	return SubBand{}, fmt.Errorf("%v: %w: %d Hz", r, ErrFrequency, frequency)
}
