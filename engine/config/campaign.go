package config

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
)

// Campaign is a campaign file. Zero values mean the defaults that [CampaignTemplate] names.
type Campaign struct {
	Name        string      `toml:"name"`
	Application string      `toml:"application"`
	Start       time.Time   `toml:"start"`
	Target      float64     `toml:"target_percent"`
	Bundles     []Bundle    `toml:"bundle"`
	Devices     Selection   `toml:"devices"`
	Waves       []Wave      `toml:"wave"`
	Radio       Radio       `toml:"radio"`
	Timing      Timing      `toml:"timing"`
	Energy      Energy      `toml:"energy"`
	Maintenance Maintenance `toml:"maintenance"`
	Repair      Repair      `toml:"repair"`
	Proof       Proof       `toml:"proof"`
	Raw         RawLimits   `toml:"raw"`
	Policy      Policy      `toml:"policy"`
}

// Policy says who must agree and when a campaign stops by itself.
type Policy struct {
	Approvals int  `toml:"approvals"`
	FourEyes  bool `toml:"four_eyes"`
	Limits
}

// Limits are the shares of devices, in per cent, at which a wave stops the campaign. Nil: not written.
type Limits struct {
	MinSuccess *float64 `toml:"min_success_percent"`
	MaxFailure *float64 `toml:"max_failure_percent"`
	MaxSilence *float64 `toml:"max_silence_percent"`
	MinSamples *int     `toml:"min_samples"`
}

// Bundle is a candidate for transmission: a file as `sower sign` makes it or, for devices without the device library,
// any file.
type Bundle struct {
	File         string    `toml:"file"`
	Raw          string    `toml:"raw"`
	Version      *Version  `toml:"version"` // that TS006 reports when a raw block is installed
	BaseImage    string    `toml:"base_image"`
	BaseVersions []Version `toml:"base_versions"`
}

// Selection is a set of devices: those that meet every condition that is written.
type Selection struct {
	Tags     map[string]string `toml:"tags"`
	List     []network.EUI64   `toml:"list"`
	Versions []Version         `toml:"versions"`
	Hardware []uint16          `toml:"hardware"`
	Exclude  []network.EUI64   `toml:"exclude"`
}

// Wave is a part of the devices that is updated before the next.
type Wave struct {
	Name string `toml:"name"`
	Selection
	Percent *float64 `toml:"percent"`
	Count   int      `toml:"count"`
	Gate    bool     `toml:"gate"`
	Soak    Duration `toml:"soak"`
	Rescue  bool     `toml:"rescue"`
	// DataRate is that of a rescue wave.
	DataRate *DataRate `toml:"data_rate"`
	Limits
}

// Radio says what the planner is not to choose itself.
type Radio struct {
	Class       Class           `toml:"class"`
	Periodicity Periodicity     `toml:"ping_slot_periodicity"` // of class B
	DataRate    DataRate        `toml:"data_rate"`
	FragSize    int             `toml:"fragment_bytes"`
	Frequency   uint32          `toml:"frequency_hz"`
	Gateways    []network.EUI64 `toml:"gateways"`
	Packages    Packages        `toml:"packages"`
	Descriptor  Descriptor      `toml:"descriptor"`
}

// Timing is what the operator knows about the rhythm of the devices.
type Timing struct {
	UplinkInterval Duration `toml:"uplink_interval"`
	Silence        Duration `toml:"silence"`
	Defer          Duration `toml:"defer"`
}

// Energy is what the receiver of a device takes, and what its battery must hold.
type Energy struct {
	Receive    float64 `toml:"receive_ma"`
	Transmit   float64 `toml:"transmit_ma"`
	MinBattery int     `toml:"min_battery_percent"`
}

// Maintenance says when a campaign may send.
type Maintenance struct {
	Offset  Duration `toml:"utc_offset"`
	Windows []Window `toml:"window"`
}

// Window is a stretch of time that comes back every week.
type Window struct {
	Days []Weekday `toml:"days"` // on which it begins; none: every day
	From TimeOfDay `toml:"from"`
	To   TimeOfDay `toml:"to"` // not after From: on the next day
}

// Repair is the effort that a session makes for those that miss fragments.
type Repair struct {
	Fragments int `toml:"most_fragments"`
	PerDevice int `toml:"most_per_device"`
	Windows   int `toml:"windows"`
	Unicast   int `toml:"unicast_fragments"`
}

// Proof is what makes a device count as updated, beside the version that it reports. All but the first two is for raw
// blocks.
type Proof struct {
	Uplinks int     `toml:"uplinks"`
	Resets  int     `toml:"resets"`
	By      ProofBy `toml:"by"`
	FPort   uint8   `toml:"f_port"`
	Offset  int     `toml:"offset"`
	Bytes   Bytes   `toml:"bytes"`
	Tag     string  `toml:"tag"` // NAME=VALUE, or NAME for any value but an empty one
}

// RawLimits is what the decoder of the devices of a raw-block campaign was built for. 0: not known, no limit.
type RawLimits struct {
	Fragments  int `toml:"max_fragments"`
	FragSize   int `toml:"max_fragment_bytes"`
	Redundancy int `toml:"max_redundancy"`
}

// Version is a firmware version, "MAJOR.MINOR.REVISION".
type Version bundle.Version

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *Version) UnmarshalText(b []byte) error {
	x, err := bundle.ParseVersion(string(b))
	*v = Version(x)
	return err
}

// DataRate is a data rate index, or AutoRate.
type DataRate int

// AutoRate leaves the data rate to the planner.
const AutoRate DataRate = -1

// UnmarshalText reads a number or "auto".
func (r *DataRate) UnmarshalText(b []byte) error {
	if string(b) == "auto" {
		*r = AutoRate
		return nil
	}
	n, err := strconv.Atoi(string(b))
	if err != nil || n < 0 {
		return fmt.Errorf("%q is neither \"auto\" nor the index of a data rate", b)
	}
	*r = DataRate(n)
	return nil
}

// Class is the device class of the receive windows.
type Class network.Class

// UnmarshalText reads "B" or "C".
func (c *Class) UnmarshalText(b []byte) error {
	switch string(b) {
	case "B":
		*c = Class(network.ClassB)
	case "C":
		*c = Class(network.ClassC)
	default:
		return fmt.Errorf("%q is neither \"B\" nor \"C\"", b)
	}
	return nil
}

// Periodicity is that of ping slots, 0..7, or AutoPeriodicity.
type Periodicity int

// AutoPeriodicity leaves the ping slots to the planner.
const AutoPeriodicity Periodicity = -1

// UnmarshalText reads a number or "auto".
func (p *Periodicity) UnmarshalText(b []byte) error {
	if string(b) == "auto" {
		*p = AutoPeriodicity
		return nil
	}
	n, err := strconv.Atoi(string(b))
	if err != nil || n < 0 || n > 7 {
		return fmt.Errorf("%q is neither \"auto\" nor 0 (128 ping slots in 128 s) to 7 (one)", b)
	}
	*p = Periodicity(n)
	return nil
}

// Descriptor is that of a fragmentation session; most devices do not look at it.
type Descriptor [4]byte

// UnmarshalText reads 8 hexadecimal digits.
func (d *Descriptor) UnmarshalText(b []byte) error {
	if n, err := hex.Decode(make([]byte, len(b)), b); err != nil || n != len(d) {
		return fmt.Errorf("%q is no descriptor of 8 hexadecimal digits", b)
	}
	hex.Decode(d[:], b)
	return nil
}

// Weekday is a day of the week, Sunday 0.
type Weekday time.Weekday

// UnmarshalText reads "mon" or "Monday", in any case.
func (d *Weekday) UnmarshalText(b []byte) error {
	for w := time.Sunday; w <= time.Saturday; w++ {
		if text := string(b); strings.EqualFold(text, w.String()) || strings.EqualFold(text, w.String()[:3]) {
			*d = Weekday(w)
			return nil
		}
	}
	return fmt.Errorf("%q is no day of the week such as \"mon\"", b)
}

// TimeOfDay is the time since midnight.
type TimeOfDay time.Duration

// UnmarshalText reads "22:30"; "24:00" is the end of the day.
func (t *TimeOfDay) UnmarshalText(b []byte) error {
	if string(b) == "24:00" {
		*t = TimeOfDay(24 * time.Hour)
		return nil
	}
	at, err := time.Parse("15:04", string(b))
	if err != nil {
		return fmt.Errorf("%q is no time of day such as \"22:30\"", b)
	}
	*t = TimeOfDay(time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute)
	return nil
}

// Packages is the version of TS003 to TS005 of devices that have not told theirs.
type Packages applayer.Version

// UnmarshalText reads "v1" or "v2".
func (p *Packages) UnmarshalText(b []byte) error {
	switch string(b) {
	case "v1":
		*p = Packages(applayer.V1)
	case "v2":
		*p = Packages(applayer.V2)
	default:
		return fmt.Errorf("%q is neither \"v1\" nor \"v2\"", b)
	}
	return nil
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ParseCampaign reads a campaign file. A campaign with problems is not to be used.
func ParseCampaign(file string, text []byte) (Campaign, *Document) {
	c := Campaign{
		Target: 99,
		Radio:  Radio{Class: Class(network.ClassC), Periodicity: AutoPeriodicity, DataRate: AutoRate},
		Timing: Timing{UplinkInterval: Duration(time.Hour), Defer: Duration(7 * 24 * time.Hour)},
		Energy: Energy{Receive: 6, Transmit: 45},
		Repair: Repair{Windows: 5, Unicast: 8},
		Proof:  Proof{Uplinks: 1, Resets: 3, By: ProofByBlock},
		Policy: Policy{FourEyes: true},
	}
	d := read(file, text, &c, nil)
	if len(d.Problems) > 0 && len(d.lines) == 0 {
		return c, d // not TOML
	}
	if !nameForm.MatchString(c.Name) && !d.troubled("name") {
		d.Add("name", "write up to 64 letters, digits, points, dashes or underscores", "name is %q", c.Name)
	}
	if c.Application == "" && !d.troubled("application") {
		d.Add("application", "write the id of the application as ChirpStack shows it", "application is missing")
	}
	if !(c.Target > 0 && c.Target < 100) {
		d.Add("target_percent", "write the share of devices that the first burst is to complete, above 0 and below 100", "target_percent is %v", c.Target)
	}
	c.checkBundles(d)
	names := map[string]bool{}
	last := 0.0
	for i, w := range c.Waves {
		key := indexed("wave", i)
		if names[w.Name] {
			d.Add(key+".name", "give each wave a name of its own", "two waves are called %q", w.Name)
		}
		names[w.Name] = true
		if w.Name == "" {
			d.Add(key, "add name = \"…\"", "%s has no name", key)
		}
		if w.Percent != nil {
			if p := *w.Percent; !(p > last && p <= 100) {
				d.Add(key+".percent", "percentages count all devices up to this wave: write more than the wave before, at most 100",
					"%s.percent is %v after %v", key, p, last)
			} else {
				last = p
			}
			if w.Count > 0 {
				d.Add(key+".count", "keep one of them", "%s has both percent and count", key)
			}
		}
	}
	c.checkRescue(d)
	if len(c.Waves) > 0 && c.Waves[0].Gate {
		d.Add("wave[0].gate", "ask for approvals under [policy]", "the first wave has a gate, and nothing comes before it")
	}
	if c.Radio.Periodicity != AutoPeriodicity && c.Radio.Class != Class(network.ClassB) && !d.troubled("radio.class") {
		d.Add("radio.ping_slot_periodicity", "write class = \"B\" beside it, or remove it", "radio.ping_slot_periodicity is %d, but radio.class is \"C\"", c.Radio.Periodicity)
	}
	if c.Radio.FragSize > 252 {
		d.Add("radio.fragment_bytes", "write 1..239, or leave it out", "radio.fragment_bytes is %d", c.Radio.FragSize)
	}
	if c.Timing.UplinkInterval <= 0 {
		d.Add("timing.uplink_interval", "write the longest usual time between two uplinks", "timing.uplink_interval is %s", time.Duration(c.Timing.UplinkInterval))
	}
	c.checkEffort(d)
	return c, d
}

// checkRescue judges waves for stragglers.
func (c *Campaign) checkRescue(d *Document) {
	for i, w := range c.Waves {
		key := indexed("wave", i)
		switch {
		case !w.Rescue && w.DataRate != nil:
			d.Add(key+".data_rate", "write it under [radio], or make it a rescue wave", "%s.data_rate is that of a rescue wave", key)
		case !w.Rescue:
			if i > 0 && c.Waves[i-1].Rescue {
				d.Add(key, "move the rescue wave to the end", "%s comes after a rescue wave", key)
			}
		case i == 0:
			d.Add(key+".rescue", "put a wave before it", "the first wave is a rescue wave, and nobody is to be rescued yet")
		case w.Percent != nil || w.Count > 0 || len(w.Tags)+len(w.List)+len(w.Versions)+len(w.Hardware)+len(w.Exclude) > 0:
			d.Add(key, "remove the conditions: a rescue wave is for all stragglers of the waves before", "%s has rescue and conditions", key)
		}
	}
}

// checkEffort judges patience, effort and rules.
func (c *Campaign) checkEffort(d *Document) {
	c.Policy.Limits.check(d, "policy")
	for i, w := range c.Waves {
		w.Limits.check(d, indexed("wave", i))
		if w.Soak < 0 {
			d.Add(indexed("wave", i)+".soak", "write a duration of 0 or more", "%s.soak is %s", indexed("wave", i), time.Duration(w.Soak))
		}
	}
	for key, v := range map[string]Duration{"timing.silence": c.Timing.Silence, "timing.defer": c.Timing.Defer} {
		if v < 0 || v == 0 && d.Has(key) {
			d.Add(key, "write a duration above 0, or leave it out", "%s is %s", key, time.Duration(v))
		}
	}
	if c.Energy.MinBattery > 100 {
		d.Add("energy.min_battery_percent", "write 0..100", "energy.min_battery_percent is %d", c.Energy.MinBattery)
	}
	if off := time.Duration(c.Maintenance.Offset); off <= -24*time.Hour || off >= 24*time.Hour {
		d.Add("maintenance.utc_offset", "write the offset of the local time from UTC, such as \"1h\"", "maintenance.utc_offset is %s", off)
	}
	for i, w := range c.Maintenance.Windows {
		key := indexed("maintenance.window", i)
		if !d.Has(key+".from") || !d.Has(key+".to") {
			d.Add(key, "add from = \"22:00\" and to = \"05:00\"", "%s needs both from and to", key)
		}
		if time.Duration(w.From) == 24*time.Hour {
			d.Add(key+".from", "write \"00:00\" of the next day", "%s.from is \"24:00\"", key)
		}
	}
	for key, v := range map[string]int{"repair.windows": c.Repair.Windows, "proof.uplinks": c.Proof.Uplinks, "proof.resets": c.Proof.Resets} {
		if v < 1 {
			d.Add(key, "write 1 or more", "%s is %d", key, v)
		}
	}
}

// Or returns the limits, with those of another in place of what is not written.
func (l Limits) Or(other Limits) Limits {
	if l.MinSuccess == nil {
		l.MinSuccess = other.MinSuccess
	}
	if l.MaxFailure == nil {
		l.MaxFailure = other.MaxFailure
	}
	if l.MaxSilence == nil {
		l.MaxSilence = other.MaxSilence
	}
	if l.MinSamples == nil {
		l.MinSamples = other.MinSamples
	}
	return l
}

func (l Limits) check(d *Document, table string) {
	for _, f := range []struct {
		name  string
		value *float64
	}{{"min_success_percent", l.MinSuccess}, {"max_failure_percent", l.MaxFailure}, {"max_silence_percent", l.MaxSilence}} {
		if f.value != nil && !(*f.value >= 0 && *f.value <= 100) {
			d.Add(table+"."+f.name, "write 0..100", "%s.%s is %v", table, f.name, *f.value)
		}
	}
	if l.MinSamples != nil && *l.MinSamples < 1 {
		d.Add(table+".min_samples", "write 1 or more", "%s.min_samples is %d", table, *l.MinSamples)
	}
}

// troubled reports whether a key or something in it already has a problem, so that its absence is no news.
func (d *Document) troubled(key string) bool {
	line, ok := d.lines[key]
	if !ok {
		return false
	}
	for _, p := range d.Problems {
		if p.Line == line {
			return true
		}
	}
	return false
}

func indexed(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }
