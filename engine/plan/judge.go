package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
)

// area is a region in which devices are served: each has data rates, a channel and gateways of its own.
type area struct {
	region    airtime.Region
	ladder    []rung
	imposed   int // rung of the imposed data rate; -1: none
	frequency uint32
	gateways  []network.EUI64
}

// radio judges what the operator has imposed on the radio, for each region that has devices.
func (f *fleet) radio() {
	has := map[airtime.Region]bool{}
	for _, w := range f.waves {
		for _, m := range w.members {
			has[m.Region] = true
		}
	}
	if len(has) == 0 { // nothing can be sent; what is wrong is said all the same
		for r := range f.Gateways {
			has[r] = true
		}
	}
	for _, r := range airtime.Regions() {
		if has[r] {
			f.areas = append(f.areas, f.area(r))
		}
	}
	if f.Capabilities.MulticastClasses != nil && !slices.Contains(f.Capabilities.MulticastClasses, f.Class) {
		f.problem("radio.class", fmt.Sprintf("use a network that has class %c multicast, or the other class", f.Class),
			"%s has no class %c multicast", f.Capabilities.Name, f.Class)
	}
}

// area judges it for one region.
func (f *fleet) area(region airtime.Region) *area {
	a := &area{region: region, imposed: -1, frequency: f.Frequency, gateways: f.Gateways[region],
		ladder: ladder(region, f.Repeater, f.Capabilities.Regions[region.String()])}
	var known []string
	for _, r := range slices.Backward(a.ladder) {
		known = append(known, fmt.Sprintf("%d (%s)", r.index, r.rate))
	}
	if f.DataRate != Automatic {
		a.imposed = slices.IndexFunc(a.ladder, func(r rung) bool { return r.index == f.DataRate })
		if a.imposed < 0 {
			f.problem("radio.data_rate", "write \"auto\" or one of "+strings.Join(known, ", "),
				"%s has no downlink data rate %d by LoRa that carries a fragment", region, f.DataRate)
		} else if f.FragSize > a.ladder[a.imposed].limit {
			f.problem("radio.fragment_bytes", "write at most that, or leave it out",
				"DR%d of %s carries fragments of at most %d bytes, not %d; the server would drop each one without a word",
				f.DataRate, region, a.ladder[a.imposed].limit, f.FragSize)
		}
	}
	if len(a.ladder) == 0 {
		f.problem("radio", "use a network that carries one", "%s has no downlink data rate that carries a fragment", region)
	}
	if a.frequency == 0 {
		a.frequency = defaultFrequency(region, f.Class)
	}
	if _, err := region.SubBand(a.frequency); err != nil {
		f.problem("radio.frequency_hz", "write a frequency in Hz within the bands of the region, or leave it out", "%s", err)
	}
	if len(a.gateways) == 0 {
		f.problem("radio.gateways", "put a gateway into operation",
			"no gateway of %s is online; the server would accept every fragment and send none", region)
	}
	return a
}

// updates judges the bundles.
func (f *fleet) updates() {
	if len(f.Updates) > maxUpdates {
		f.problem("bundle", "split the campaign", "%d bundles, at most %d are compared", len(f.Updates), maxUpdates)
		f.Updates = f.Updates[:maxUpdates]
	}
	first := -1
	for i, u := range f.Updates {
		if u.Raw != nil {
			f.manifests = append(f.manifests, bundle.Manifest{})
			f.rawUpdate(i)
			continue
		}
		key := f.source(i)
		m, _, err := bundle.Parse(u.Block)
		f.manifests = append(f.manifests, m)
		if err != nil {
			f.problem(key, "make it with `sower sign`", "%s: %s", u.Name, err)
			continue
		}
		if m.Expiry != 0 {
			at := airtime.UTC(time.Duration(m.Expiry) * time.Second)
			if !at.After(f.Start) {
				f.problem(key, "sign the bundle again", "%s expired on %s", u.Name, at.Format(time.RFC3339))
			}
		}
		if m.Codec == bundle.CodecZstd {
			f.problem(key, "sign it without compression, or as a patch", "%s: devices of the device library do not decode %s", u.Name, m.Codec)
		}
		if first < 0 {
			first = i
			f.out.Target = m.Version.String()
		} else if v := f.manifests[first].Version; m.Version != v {
			f.problem(key, "keep bundles of one version in a campaign", "%s installs version %s, %s installs %s", u.Name, m.Version, f.Updates[first].Name, v)
		}
		if l, ok := f.Layouts[m.Hardware]; !ok {
			f.warn("%s: sower.toml has no [[hardware]] with id %d, so nothing checks that it fits the devices", u.Name, m.Hardware)
		} else {
			if text, remedy := l.image(m); text != "" {
				f.problem(key, remedy, "%s does not fit: %s", u.Name, text)
			}
			if l.Class != nil && *l.Class != m.Class {
				f.problem(key, "sign it with --class of the hardware", "%s is for device class 0x%08x, hardware id %d has 0x%08x", u.Name, m.Class, m.Hardware, *l.Class)
			}
		}
	}
}

// suit finds out which updates suit which device.
func (f *fleet) suit() {
	var used uint64
	strange := map[string][]network.EUI64{} // devices that nothing suits, by what they run
	var hardware int                        // devices whose hardware is not known
	var lost []network.EUI64                // devices whose region is not known
	usable := len(f.problems) == 0
	for _, w := range f.Waves {
		out := wave{name: w.Name}
		for _, m := range w.Members {
			f.out.Devices++
			if !slices.Contains(airtime.Regions(), m.Region) {
				lost = append(lost, m.EUI)
				continue
			}
			if v, known := f.target(); known && m.Version != nil && *m.Version == v {
				f.out.UpToDate++
				continue
			}
			var mask uint64
			for i, man := range f.manifests {
				if f.fits(m, f.Updates[i], man) {
					mask |= 1 << i
				}
			}
			used |= mask
			if mask == 0 {
				strange[runs(m)] = append(strange[runs(m)], m.EUI)
				continue
			}
			if m.Hardware == nil && f.Updates[0].Raw == nil {
				hardware++
			}
			if m.SNR == nil {
				f.guessed++
			}
			out.members, out.suits = append(out.members, m), append(out.suits, mask)
		}
		if len(out.members) > 0 {
			f.waves = append(f.waves, out)
		}
	}
	switch {
	case len(lost) > 0:
		f.problem("devices", "exclude them", "it is not known in which region %s works", count(lost))
	case f.out.Devices == 0:
		f.problem("devices", "relax its conditions", "no device meets the conditions")
	case len(f.waves) == 0 && len(strange) == 0 && usable:
		f.problem("devices", "nothing is left to do", "all %d devices run %s already", f.out.Devices, f.out.Target)
	}
	if len(f.manifests) == 0 || f.out.Devices == 0 {
		return
	}
	var whats []string
	for what := range strange {
		whats = append(whats, what)
	}
	slices.Sort(whats)
	for _, what := range whats {
		f.problem("bundle", "add a patch against what they run, or the full image; or exclude them",
			"no bundle suits %s %s", count(strange[what]), what)
	}
	for i, u := range f.Updates {
		m := f.manifests[i]
		if used>>i&1 != 0 || m.NewSize == 0 || f.out.UpToDate == f.out.Devices {
			continue
		}
		key := fmt.Sprintf("bundle[%d]", i)
		switch {
		case m.Codec == bundle.CodecPatch && len(u.Bases) == 0:
			f.problem(key, "add base_image with the file of the old image", "%s is a patch, and nothing says which version it is against", u.Name)
		case m.Codec == bundle.CodecPatch:
			f.problem(key, "remove it, or run `sower devices` to see what is known and from where",
				"%s is a patch against %s, which no device of the campaign is known to run", u.Name, versions(u.Bases))
		default:
			f.problem(key, "remove it, or correct the devices", "%s is for hardware id %d and device class 0x%08x, which no device of the campaign has", u.Name, m.Hardware, m.Class)
		}
	}
	if hardware > 0 && f.kinds() > 1 {
		f.problem("devices", "give them the tag, or a column hardware_id in the inventory CSV",
			"the bundles are for %d kinds of hardware, and that of %d devices is not known", f.kinds(), hardware)
	} else if hardware > 0 {
		f.warn("the hardware id of %d devices is not known; the devices check it themselves and refuse another one", hardware)
	}
}

// fits reports whether an update suits a device as far as anything is known of it. A patch needs a known base.
func (f *fleet) fits(m Member, u Update, man bundle.Manifest) bool {
	if u.Raw != nil {
		return true
	}
	if m.Hardware != nil && *m.Hardware != man.Hardware || m.Class != nil && *m.Class != man.Class {
		return false
	}
	switch {
	case man.Codec != bundle.CodecPatch:
		return true
	case m.Base != nil:
		return *m.Base == man.BaseDigest
	}
	return m.Version != nil && slices.Contains(u.Bases, *m.Version)
}

// kinds counts the hardware ids of the bundles.
func (f *fleet) kinds() int {
	seen := map[uint16]bool{}
	for _, m := range f.manifests {
		seen[m.Hardware] = true
	}
	return len(seen)
}

func runs(m Member) string {
	text := "of unknown version"
	if m.Version != nil {
		text = "that run " + m.Version.String()
	}
	if m.Hardware != nil {
		text += fmt.Sprintf(" on hardware id %d", *m.Hardware)
	}
	return text
}

func count(list []network.EUI64) string {
	if len(list) == 1 {
		return "device " + list[0].String()
	}
	return fmt.Sprintf("%d devices (first: %s)", len(list), list[0])
}

func versions(list []bundle.Version) string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return strings.Join(out, ", ")
}
