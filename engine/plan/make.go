package plan

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/fragmentation"
)

// ErrInput is returned by [Make] for a campaign that cannot be planned.
var ErrInput = errors.New("plan: impossible input")

// Automatic lets [Make] choose the data rate.
const Automatic = -1

const (
	defaultLoss = 0.10
	target      = 0.99
	minParity   = 3 // v1 repairs a single loss by one row in 2.5
	minPace     = 2 * time.Second
	guard       = 5 * time.Second
	fallbackSF  = 9  // without link history
	margin      = 10 // dB between the median SNR of a device and what a data rate needs

	statusRequests = 2 // after the first burst
)

// Input is what a plan depends on. Zero values mean the defaults named here.
type Input struct {
	Block    []byte // the bundle
	Raw      bool   // Block is any file, for devices without the device library
	Region   airtime.Region
	Class    network.Class // B or C; 0: C
	DataRate int           // index, or Automatic
	Devices  int           // in the group
	Gateways int           // that transmit; 1
	Matrix   fragmentation.Matrix

	Loss     []float64 // share of downlink frames lost: one for all devices, or one per device; 0.10
	SNR      []float64 // median of each device's uplinks in dB, for Automatic
	FragSize int       // imposed; 0: chosen
	MaxM     int       // most data fragments that the devices hold; 0: no limit
	Target   float64   // share of the devices that the first burst is to complete, below 1; 0.99

	Capabilities network.Capabilities
	Frequency    uint32        // Hz; 0: the default of the second receive window, in class B of the ping slots
	Periodicity  *uint8        // of the ping slots of class B, 0..7; nil: as few as do not slow the campaign down
	Spacing      time.Duration // between the gateways of one message in class C; 5 s, as ChirpStack has it
	DutyCycle    int           // per mille; 0: that of the sub-band
	Share        float64       // of the duty cycle that the campaign may use, up to 1; 1
	Repeater     bool          // frames may pass a repeater

	FullSize       int // bytes of the signed image, for the baseline; 0: none
	CompressedSize int // bytes of it, compressed
}

// Make plans one block for one group. It refuses what cannot work, naming the value and the remedy; what
// works but is unwise is among the warnings.
func Make(in Input) (Plan, error) { return in.plan() }

// plan is Make; it fills in the defaults.
func (in *Input) plan() (Plan, error) {
	if _, _, err := bundle.Parse(in.Block); err != nil && !in.Raw {
		return Plan{}, fmt.Errorf("plan: %w", err)
	}
	if in.Devices < 1 {
		return Plan{}, fmt.Errorf("%w: %d devices, want at least 1", ErrInput, in.Devices)
	}
	if in.Gateways == 0 {
		in.Gateways = 1
	}
	if in.Spacing == 0 {
		in.Spacing = 5 * time.Second
	}
	if in.Target == 0 {
		in.Target = target
	}
	if in.Share == 0 {
		in.Share = 1
	}
	if in.Class == 0 {
		in.Class = network.ClassC
	}
	if in.Class != network.ClassB && in.Class != network.ClassC || in.Periodicity != nil && (*in.Periodicity > maxPeriodicity || in.Class != network.ClassB) {
		return Plan{}, fmt.Errorf("%w: class %c, and a periodicity: %v; want C, or B with a periodicity of 0..%d", ErrInput, in.Class, in.Periodicity != nil, maxPeriodicity)
	}
	if !(in.Target > 0 && in.Target < 1) || !(in.Share > 0 && in.Share <= 1) {
		return Plan{}, fmt.Errorf("%w: target %v and share %v of the duty cycle, want more than 0, a target below 1 and a share of at most 1",
			ErrInput, in.Target, in.Share)
	}
	fleet, mean, err := in.fleet()
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Region: in.Region.String(), Gateways: in.Gateways, Devices: in.Devices, Matrix: in.Matrix,
		BlockSize: len(in.Block), Canary: in.Devices <= 100}
	if p.Frequency = in.Frequency; p.Frequency == 0 {
		p.Frequency = defaultFrequency(in.Region, in.Class)
	}
	band, err := in.Region.SubBand(p.Frequency)
	if err != nil {
		return Plan{}, fmt.Errorf("%w: %w", ErrInput, err)
	}
	if p.DataRate = in.DataRate; p.DataRate == Automatic {
		if p.DataRate, err = in.chooseRate(); err != nil {
			return Plan{}, err
		}
		if len(in.SNR) == 0 {
			p.warn("no link history: DR%d is a guess", p.DataRate)
		}
	}
	rate, err := in.Region.DataRate(p.DataRate)
	if err != nil {
		return Plan{}, fmt.Errorf("%w: %w", ErrInput, err)
	}
	limit, err := in.Region.MaxPayload(p.DataRate, airtime.Link{Direction: airtime.Downlink, Repeater: in.Repeater})
	if err != nil {
		return Plan{}, fmt.Errorf("%w: %w", ErrInput, err)
	}
	if n, ok := in.Capabilities.Regions[in.Region.String()][p.DataRate]; ok {
		limit = min(limit, n)
	}
	if err := in.fragments(&p, limit-datablock.FragmentOverhead, mean); err != nil {
		return Plan{}, err
	}
	if err := in.parity(&p, fleet, mean); err != nil {
		return Plan{}, err
	}

	p.FragmentToA = rate.TimeOnAir(p.FragSize+datablock.FragmentOverhead+airtime.PHYOverhead, airtime.Downlink)
	p.StatusToA = rate.TimeOnAir(2+airtime.PHYOverhead, airtime.Downlink)
	if err := in.pace(&p, band); err != nil {
		return Plan{}, err
	}
	for p.BlockAckDelay < 7 && datablock.AnswerWindow(p.BlockAckDelay) < time.Duration(in.Devices)*time.Second/4 {
		p.BlockAckDelay++
	}
	in.totals(&p)
	return p, nil
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// fleet groups the devices by loss and returns their mean.
func (in *Input) fleet() (fleet []fragmentation.Link, mean float64, err error) {
	loss := in.Loss
	if len(loss) == 0 {
		loss = []float64{defaultLoss}
	}
	if len(loss) != 1 && len(loss) != in.Devices {
		return nil, 0, fmt.Errorf("%w: %d loss estimates for %d devices, want one for all or one each", ErrInput, len(loss), in.Devices)
	}
	var bins [101]float64 // in steps of 1 %, rounded up
	for _, p := range loss {
		if !(p >= 0 && p < 1) {
			return nil, 0, fmt.Errorf("%w: loss %v, want 0 or more and less than 1", ErrInput, p)
		}
		bins[int(math.Ceil(p*100-1e-9))] += float64(in.Devices) / float64(len(loss))
		mean += p / float64(len(loss))
	}
	for i, n := range bins {
		if n > 0 {
			fleet = append(fleet, fragmentation.Link{Loss: min(float64(i)/100, 0.99), Devices: n})
		}
	}
	return fleet, mean, nil
}

// chooseRate returns the fastest LoRa data rate for which every device has margin, or one of moderate range
// when nothing is known.
func (in *Input) chooseRate() (int, error) {
	worst := math.Inf(1)
	for _, snr := range in.SNR {
		worst = min(worst, snr)
	}
	best, bestToA, robust, robustToA := -1, time.Duration(math.MaxInt64), -1, time.Duration(0)
	for dr := 0; dr < 16; dr++ {
		rate, err := in.Region.DataRate(dr)
		if err != nil || !rate.Downlink || rate.BitRate > 0 {
			continue
		}
		if _, err := in.Region.MaxPayload(dr, airtime.Link{Direction: airtime.Downlink}); err != nil {
			continue
		}
		toa := rate.TimeOnAir(64, airtime.Downlink)
		// SNR is measured in the bandwidth of the uplink, 125 kHz.
		need := snrNeeded(rate.SpreadingFactor, rate.Bandwidth)
		if len(in.SNR) == 0 && rate.SpreadingFactor != fallbackSF || len(in.SNR) > 0 && worst < need {
			need = math.Inf(1)
		}
		if !math.IsInf(need, 1) && toa < bestToA {
			best, bestToA = dr, toa
		}
		if toa > robustToA {
			robust, robustToA = dr, toa
		}
	}
	switch {
	case best >= 0:
		return best, nil
	case robust >= 0:
		return robust, nil // nothing has margin for all; the slowest serves most
	}
	return 0, fmt.Errorf("%w: region %s has no downlink data rate", ErrInput, in.Region)
}

// fragments chooses the fragment size, and with it M.
func (in *Input) fragments(p *Plan, maxSize int, loss float64) error {
	size := in.FragSize
	if maxSize < 1 || size > maxSize {
		return fmt.Errorf("%w: fragments of %d bytes at DR%d, which carries at most %d; choose a faster data rate or smaller fragments",
			ErrInput, size, p.DataRate, maxSize)
	}
	ch, err := fragmentation.Choose(fragmentation.Request{Length: len(in.Block), Matrix: in.Matrix,
		MaxSize: min(maxSize, datablock.MaxFragSize), Size: size, MaxM: in.MaxM, Loss: min(loss, 0.9)})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	p.M, p.FragSize, p.Padding = ch.M, ch.Size, ch.Padding
	for _, r := range ch.Reasons {
		if r.Warning {
			p.warn("%s", r.Text)
		}
	}
	return nil
}

// parity sizes the first burst for the fleet and lists what follows it.
func (in *Input) parity(p *Plan, fleet []fragmentation.Link, loss float64) error {
	sent, err := fragmentation.FleetFragments(p.M, fleet, float64(in.Devices)*(1-in.Target))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	room := fragmentation.MaxIndex - p.M
	p.Parity = min(max(sent-p.M, minParity), room)
	list, _, err := fragmentation.ParityList(p.M, in.Matrix, min(p.Parity+min(4*p.M+100, p.M+1000), room), min(max(loss, 0.01), 0.9))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	p.Indices = list
	if p.Parity > p.M && p.M >= 10 { // of a few fragments, a few more are many
		p.warn("the fleet loses so much that parity outweighs data: %d and %d fragments; choose a slower data rate", p.Parity, p.M)
	}
	return nil
}

// totals computes what the plan costs.
func (in *Input) totals(p *Plan) {
	messages := p.M + p.Parity + statusRequests
	p.Airtime = time.Duration(p.M+p.Parity)*p.FragmentToA + statusRequests*p.StatusToA
	p.Duration = p.Guard + time.Duration(messages)*p.Pace + p.AnswerWindow()
	if p.Canary {
		p.Airtime += p.StatusToA
		p.Duration += p.AnswerWindow()
	}
	// Top-ups are not known yet; a quarter more is what a fleet of mixed links needs.
	exponent, fit := p.Window(messages+messages/4, repairRounds)
	if fit < messages {
		p.warn("%d messages, but one window of 2^%d s holds %d: more windows are needed", messages, exponent, fit)
	}
	if p.TimeOut = exponent; p.ClassB != nil {
		p.TimeOut -= beaconExponent
	}
	for _, b := range []struct {
		size int
		out  **Baseline
	}{{in.FullSize, &p.Full}, {in.CompressedSize, &p.Compressed}} {
		if b.size > 0 {
			m := (b.size + p.FragSize - 1) / p.FragSize
			n := m + (3*m+9)/10
			*b.out = &Baseline{Bytes: b.size, Fragments: n, Airtime: time.Duration(n) * p.FragmentToA}
		}
	}
}
