package config

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
)

// Campaign is a campaign file. Zero values mean the defaults that [CampaignTemplate] names.
type Campaign struct {
	Name        string    `toml:"name"`
	Application string    `toml:"application"`
	Start       time.Time `toml:"start"`
	Target      float64   `toml:"target_percent"`
	Bundles     []Bundle  `toml:"bundle"`
	Devices     Selection `toml:"devices"`
	Waves       []Wave    `toml:"wave"`
	Radio       Radio     `toml:"radio"`
	Timing      Timing    `toml:"timing"`
	Energy      Energy    `toml:"energy"`
}

// Bundle is a candidate for transmission, as `sower sign` makes it.
type Bundle struct {
	File         string    `toml:"file"`
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
}

// Radio says what the planner is not to choose itself.
type Radio struct {
	DataRate  DataRate        `toml:"data_rate"`
	FragSize  int             `toml:"fragment_bytes"`
	Frequency uint32          `toml:"frequency_hz"`
	Gateways  []network.EUI64 `toml:"gateways"`
	Packages  Packages        `toml:"packages"`
}

// Timing is what the operator knows about the rhythm of the devices.
type Timing struct {
	UplinkInterval Duration `toml:"uplink_interval"`
}

// Energy is what the receiver of a device takes.
type Energy struct {
	Receive  float64 `toml:"receive_ma"`
	Transmit float64 `toml:"transmit_ma"`
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
		Radio:  Radio{DataRate: AutoRate},
		Timing: Timing{UplinkInterval: Duration(time.Hour)},
		Energy: Energy{Receive: 6, Transmit: 45},
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
	if len(c.Bundles) == 0 && !d.troubled("bundle") {
		d.Add("bundle", "add [[bundle]] with file = \"…\", as made by `sower sign`", "the campaign has no bundle")
	}
	for i, b := range c.Bundles {
		if key := indexed("bundle", i); b.File == "" && !d.troubled(key) {
			d.Add(key, "add file = \"…\"", "%s.file is missing", key)
		}
	}
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
	if c.Radio.FragSize > 252 {
		d.Add("radio.fragment_bytes", "write 1..239, or leave it out", "radio.fragment_bytes is %d", c.Radio.FragSize)
	}
	if c.Timing.UplinkInterval <= 0 {
		d.Add("timing.uplink_interval", "write the longest usual time between two uplinks", "timing.uplink_interval is %s", time.Duration(c.Timing.UplinkInterval))
	}
	return c, d
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
