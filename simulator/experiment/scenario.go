package experiment

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/fragmentation"
)

// Limits of a scenario. They bound the memory and the output of a run, not its usefulness.
const (
	MaxDevices = 5_000_000
	MaxReps    = 1_000_000
	MaxPoints  = 100_000
	MaxCells   = 5_000_000
)

// Duration is a time.Duration that TOML writes as "1.5s", "30ms" or "2h".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no duration such as \"1s\"", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Scenario is one experiment. The zero value of a field means the default beside it.
type Scenario struct {
	Name    string `toml:"name"`
	Seed    uint64 `toml:"seed"`
	Reps    int    `toml:"reps"`    // repetitions of the whole broadcast; 1
	Devices int    `toml:"devices"` // in the group; 1000
	Depth   string `toml:"depth"`   // "rank", "bytes" or "table"; "rank"

	Block  Block        `toml:"block"`
	Air    Air          `toml:"air"`
	Loss   LossConfig   `toml:"loss"`
	Uplink UplinkConfig `toml:"uplink"`
	Code   CodeConfig   `toml:"code"`
	Policy PolicyConfig `toml:"policy"`
	Energy Energy       `toml:"energy"`
	Stop   Stop         `toml:"stop"`
}

// Block is what is sent: Fragments of FragmentBytes, or Bytes that are cut into such fragments.
type Block struct {
	Fragments     int `toml:"fragments"`      // M
	Bytes         int `toml:"bytes"`          // instead of Fragments
	FragmentBytes int `toml:"fragment_bytes"` // the most that the data rate carries
}

// Air is how it is sent.
type Air struct {
	Region      string   `toml:"region"`      // "EU868"
	DataRate    *int     `toml:"data_rate"`   // 5 in EU868; else required
	Class       string   `toml:"class"`       // "B" or "C"; "C"
	Periodicity int      `toml:"periodicity"` // of class B ping slots, 0..7
	DutyCycle   float64  `toml:"duty_cycle"`  // of the gateway; that of the region, 0.1 or 1
	Interval    Duration `toml:"interval"`    // between the beginnings of two fragments; instead of the duty cycle
	Grid        Duration `toml:"grid"`        // the server sends at multiples of this only; 0: no grid
}

// LossConfig is what devices do not hear.
type LossConfig struct {
	Model string  `toml:"model"` // "iid", "beta", "gilbert-elliott", "rayleigh" or "trace"; "iid"
	P     float64 `toml:"p"`     // iid and gilbert-elliott: mean loss

	A float64 `toml:"a"` // beta
	B float64 `toml:"b"` // beta

	Burst     float64  `toml:"burst"`      // gilbert-elliott: mean burst in fragments sent without pause
	BurstTime Duration `toml:"burst_time"` // gilbert-elliott: mean burst in time, instead
	Step      Duration `toml:"step"`       // gilbert-elliott: of the channel; one fragment with burst, 1s with burst_time
	LossGood  float64  `toml:"loss_good"`  // gilbert-elliott
	LossBad   float64  `toml:"loss_bad"`   // gilbert-elliott; 1

	Margin    float64  `toml:"margin_db"`    // rayleigh: mean link margin
	Shadowing float64  `toml:"shadowing_db"` // rayleigh: standard deviation of the margin between devices
	Coherence Duration `toml:"coherence"`    // rayleigh: how long a fade lasts; 0: one frame

	File string `toml:"file"` // trace

	OutageEvery Duration `toml:"outage_every"` // outages of all devices: mean time between; 0: none
	OutageFor   Duration `toml:"outage_for"`   // and mean length
}

// UplinkConfig is how status answers arrive.
type UplinkConfig struct {
	Loss    float64  `toml:"loss"`    // share of answers lost
	Retries int      `toml:"retries"` // further requests to those that were not heard, in a poll
	Window  Duration `toml:"window"`  // time of one request and the answers to it; 2^(BlockAckDelay+4) s; "64s"
	DutyDR  int      `toml:"-"`
}

// CodeConfig chooses a [Code].
type CodeConfig struct {
	Name string `toml:"name"` // "ts004-v1"
}

// PolicyConfig chooses a [Policy].
type PolicyConfig struct {
	Name       string  `toml:"name"`       // "fixed"
	Redundancy float64 `toml:"redundancy"` // fixed: fragments beyond M as a share of M
	Parity     int     `toml:"parity"`     // fixed: fragments beyond M, instead
	Target     float64 `toml:"target"`     // plan: share of devices that the first burst shall complete; 0.99
	Expected   float64 `toml:"expected"`   // plan: loss it is planned for; the mean of the loss model
	Rounds     int     `toml:"rounds"`     // plan: polls with repair; 3
	Limit      int     `toml:"limit"`      // most fragments, M included; what the code can number
}

// Energy is what a device consumes.
type Energy struct {
	Profile string  `toml:"profile"` // see [Profiles]; "stm32wl-nucleo-measured"
	Receive float64 `toml:"rx_mw"`   // while listening; the profile's
	Idle    float64 `toml:"idle_mw"` // else, until the end of the session; the profile's
}

// Stop ends the repetitions of a point early.
type Stop struct {
	CI      float64 `toml:"ci"`       // when the 95 % interval of the share complete is no wider than ±ci; 0: never
	MinReps int     `toml:"min_reps"` // but not before; 2
}

// FieldError says which field of a scenario cannot be, and what could.
type FieldError struct {
	Field, Value, Want string
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("experiment: %s = %s, want %s", e.Field, e.Value, e.Want)
}

// words is a value of a FieldError that is not quoted from the scenario.
type words string

func bad(field string, value any, format string, args ...any) error {
	v := fmt.Sprint(value)
	if s, ok := value.(string); ok {
		v = strconv.Quote(s)
	}
	return &FieldError{field, v, fmt.Sprintf(format, args...)}
}

// Point is one combination of the swept parameters.
type Point struct {
	Index    int
	Keys     []string // swept fields, such as "loss.p", in order of name
	Values   []string // as written in the results
	Scenario Scenario // with defaults filled in
}

// Points reads a scenario file and expands its table [sweep], whose keys are fields ("loss.p") and whose values are
// lists: every combination is a point, the last key running fastest. Every point is checked.
func Points(text []byte) ([]Point, error) {
	var doc map[string]any
	if err := toml.Unmarshal(text, &doc); err != nil {
		return nil, tomlError(err)
	}
	sweep := map[string]any{}
	if v, ok := doc["sweep"]; ok {
		if sweep, ok = v.(map[string]any); !ok {
			return nil, bad("sweep", v, "a table of lists")
		}
		delete(doc, "sweep")
	}
	lists := map[string][]any{}
	if err := flatten("", sweep, lists); err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(lists))
	total := 1
	for k, l := range lists {
		keys = append(keys, k)
		if len(l) == 0 {
			return nil, bad("sweep."+k, words("[]"), "at least one value")
		}
		if total *= len(l); total > MaxPoints {
			return nil, bad("sweep", words(fmt.Sprintf("%d points or more", total)), "at most %d; split the sweep", MaxPoints)
		}
	}
	sort.Strings(keys)
	points := make([]Point, 0, total)
	for i := range total {
		p := Point{Index: i, Keys: keys, Values: make([]string, len(keys))}
		rest := i
		for k := len(keys) - 1; k >= 0; k-- {
			list := lists[keys[k]]
			v := list[rest%len(list)]
			rest /= len(list)
			p.Values[k] = fmt.Sprint(v)
			if err := set(doc, keys[k], v); err != nil {
				return nil, err
			}
		}
		flat, err := toml.Marshal(doc)
		if err != nil {
			return nil, fmt.Errorf("experiment: scenario: %w", err)
		}
		d := toml.NewDecoder(bytes.NewReader(flat)).DisallowUnknownFields()
		if err := d.Decode(&p.Scenario); err != nil {
			return nil, tomlError(err)
		}
		if err := p.Scenario.complete(); err != nil {
			if len(keys) > 0 {
				return nil, fmt.Errorf("point %d of the sweep: %w", i, err)
			}
			return nil, err
		}
		points = append(points, p)
	}
	if reps := points[0].Scenario.Reps; reps > MaxCells/len(points) {
		return nil, bad("reps", reps, "at most %d for %d points", MaxCells/len(points), len(points))
	}
	for _, p := range points {
		if p.Scenario.Reps != points[0].Scenario.Reps || p.Scenario.Stop != points[0].Scenario.Stop {
			return nil, bad("sweep", words("reps or stop"), "fields that leave the number of repetitions alone")
		}
	}
	return points, nil
}

// flatten turns nested tables of a sweep into dotted keys.
func flatten(prefix string, table map[string]any, lists map[string][]any) error {
	for k, v := range table {
		switch v := v.(type) {
		case map[string]any:
			if err := flatten(prefix+k+".", v, lists); err != nil {
				return err
			}
		case []any:
			lists[prefix+k] = v
		default:
			return bad("sweep."+prefix+k, v, "a list of values")
		}
	}
	return nil
}

// set replaces a field, given by its dotted name, in a document.
func set(doc map[string]any, key string, value any) error {
	parts := strings.Split(key, ".")
	for _, p := range parts[:len(parts)-1] {
		sub, ok := doc[p].(map[string]any)
		if !ok {
			if doc[p] != nil {
				return bad("sweep."+key, doc[p], "%q to be a table", p)
			}
			sub = map[string]any{}
			doc[p] = sub
		}
		doc = sub
	}
	doc[parts[len(parts)-1]] = value
	return nil
}

// tomlError makes the errors of the decoder name the field.
func tomlError(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		return bad(strings.Join(strict.Errors[0].Key(), "."), words("set"), "a field that exists (see docs/simulate.md)")
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) && len(decode.Key()) > 0 {
		return fmt.Errorf("experiment: %s: %w", strings.Join(decode.Key(), "."), err)
	}
	return fmt.Errorf("experiment: scenario: %w", err)
}

// complete fills in defaults and checks everything that can be checked without running.
func (s *Scenario) complete() error {
	def(&s.Reps, 1)
	def(&s.Devices, 1000)
	defString(&s.Depth, "rank")
	defString(&s.Code.Name, "ts004-v1")
	defString(&s.Policy.Name, "fixed")
	switch {
	case s.Name == "" || strings.ContainsAny(s.Name, "/\\\n\",") || len(s.Name) > 100:
		return bad("name", s.Name, "1..100 characters without slash, quote, comma or line break")
	case s.Reps < 1 || s.Reps > MaxReps:
		return bad("reps", s.Reps, "1..%d", MaxReps)
	case s.Devices < 1 || s.Devices > MaxDevices:
		return bad("devices", s.Devices, "1..%d; more repetitions run in parallel, more devices in one group do not", MaxDevices)
	case !slices.Contains([]string{"rank", "bytes", "table"}, s.Depth):
		return bad("depth", s.Depth, `"rank", "bytes" or "table"`)
	case s.Stop.CI < 0 || s.Stop.CI >= 1:
		return bad("stop.ci", s.Stop.CI, "0 up to but not including 1")
	case s.Uplink.Retries < 0 || s.Uplink.Retries > 20:
		return bad("uplink.retries", s.Uplink.Retries, "0..20")
	case !(s.Uplink.Loss >= 0 && s.Uplink.Loss <= 1):
		return bad("uplink.loss", s.Uplink.Loss, "0..1")
	case s.Uplink.Window < 0 || time.Duration(s.Uplink.Window) > 24*time.Hour:
		return bad("uplink.window", time.Duration(s.Uplink.Window), "0s..24h")
	}
	def(&s.Stop.MinReps, 2)
	if s.Uplink.Window == 0 {
		s.Uplink.Window = Duration(64 * time.Second)
	}
	for _, f := range []func() error{s.completeAir, s.completeLoss, s.completeEnergy} {
		if err := f(); err != nil {
			return err
		}
	}
	return s.checkPolicy()
}

func def(v *int, d int) {
	if *v == 0 {
		*v = d
	}
}

func defString(v *string, d string) {
	if *v == "" {
		*v = d
	}
}

// overhead is what TS004 puts before the data of a fragment: the command and the 2 bytes of index and number.
const overhead = 3

func (s *Scenario) completeAir() error {
	a, b := &s.Air, &s.Block
	defString(&a.Region, "EU868")
	defString(&a.Class, "C")
	region, err := airtime.ParseRegion(a.Region)
	if err != nil {
		var names []string
		for _, r := range airtime.Regions() {
			names = append(names, r.String())
		}
		return bad("air.region", a.Region, "one of %s", strings.Join(names, ", "))
	}
	if a.DataRate == nil {
		if region != airtime.EU868 {
			return bad("air.data_rate", words("missing"), "a downlink data rate of %s", region)
		}
		a.DataRate = new(int)
		*a.DataRate = 5
	}
	n, err := region.MaxPayload(*a.DataRate, airtime.Link{Direction: airtime.Downlink})
	if err != nil {
		return bad("air.data_rate", *a.DataRate, "a downlink data rate of %s", region)
	}
	largest := min(n-overhead, fragmentation.MaxSize)
	def(&b.FragmentBytes, largest)
	if b.FragmentBytes < 1 || b.FragmentBytes > largest {
		return bad("block.fragment_bytes", b.FragmentBytes, "1..%d, what DR%d of %s carries beside %d bytes of TS004", largest, *a.DataRate, region, overhead)
	}
	if (b.Bytes == 0) == (b.Fragments == 0) {
		return bad("block", words(fmt.Sprintf("%d fragments, %d bytes", b.Fragments, b.Bytes)), "exactly one of fragments and bytes")
	}
	if b.Bytes < 0 {
		return bad("block.bytes", b.Bytes, "1..%d", fragmentation.MaxIndex*b.FragmentBytes)
	}
	if b.Bytes > 0 {
		b.Fragments = (b.Bytes + b.FragmentBytes - 1) / b.FragmentBytes
	}
	if b.Fragments < 1 || b.Fragments > fragmentation.MaxIndex {
		return bad("block.fragments", b.Fragments, "1..%d (%d bytes at most in fragments of %d)", fragmentation.MaxIndex, fragmentation.MaxIndex*b.FragmentBytes, b.FragmentBytes)
	}
	switch {
	case a.Class != "B" && a.Class != "C":
		return bad("air.class", a.Class, `"B" or "C"`)
	case a.Periodicity < 0 || a.Periodicity > 7:
		return bad("air.periodicity", a.Periodicity, "0..7")
	case a.DutyCycle < 0 || a.DutyCycle > 1:
		return bad("air.duty_cycle", a.DutyCycle, "above 0, up to 1")
	case a.Interval < 0 || time.Duration(a.Interval) > 24*time.Hour:
		return bad("air.interval", time.Duration(a.Interval), "0s..24h")
	case a.Grid < 0 || time.Duration(a.Grid) > time.Hour:
		return bad("air.grid", time.Duration(a.Grid), "0s..1h")
	}
	if a.DutyCycle == 0 {
		a.DutyCycle = 1
		if region == airtime.EU868 {
			a.DutyCycle = 0.1
		}
	}
	if toa := s.fragmentAirtime(); a.Interval != 0 && time.Duration(a.Interval) < toa {
		return bad("air.interval", time.Duration(a.Interval), "at least the %v of a fragment on the air", toa)
	}
	return nil
}

// fragmentAirtime is the time of one fragment on the air; the scenario's air is complete.
func (s *Scenario) fragmentAirtime() time.Duration {
	region, _ := airtime.ParseRegion(s.Air.Region)
	dr, _ := region.DataRate(*s.Air.DataRate)
	return dr.TimeOnAir(s.Block.FragmentBytes+overhead+airtime.PHYOverhead, airtime.Downlink)
}

func (s *Scenario) completeEnergy() error {
	e := &s.Energy
	defString(&e.Profile, "stm32wl-nucleo-measured")
	p, ok := Profiles[e.Profile]
	if !ok {
		return bad("energy.profile", e.Profile, "one of %s", strings.Join(sortedKeys(Profiles), ", "))
	}
	if e.Receive == 0 {
		e.Receive = p.Receive
	}
	if e.Idle == 0 {
		e.Idle = p.Idle
	}
	for _, v := range []struct {
		field string
		mw    float64
	}{{"energy.rx_mw", e.Receive}, {"energy.idle_mw", e.Idle}} {
		if !(v.mw >= 0 && v.mw <= 10000) {
			return bad(v.field, v.mw, "0..10000")
		}
	}
	return nil
}

// Profiles are the power consumptions of known devices, in mW.
var Profiles = map[string]Energy{
	// 8.28 mA at 3.0 V with the MCU: the fit over 30 measured sessions of klementc/fuotaa-reprod.
	"stm32wl-nucleo-measured": {Receive: 24.83, Idle: 0.006},
	"sx1276":                  {Receive: 35.6, Idle: 0.006},  // 10.8 mA at 3.3 V, radio alone
	"sx1262":                  {Receive: 15.18, Idle: 0.002}, // 4.6 mA at 3.3 V, radio alone, DC-DC converter
	"fuotasim":                {Receive: 48, Idle: 0.018},    // 16 mA and 6 µA at 3.0 V, as that simulator assumes
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Hash identifies what the points compute: SHA-256 over their complete scenarios, in hexadecimal.
func Hash(points []Point) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, p := range points {
		enc.Encode(p) // to a hash; plain data; cannot fail
	}
	return hex.EncodeToString(h.Sum(nil))
}
