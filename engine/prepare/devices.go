package prepare

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
)

// History is how far back [Server.Links] looks from the instants that it is given.
const History = 7 * 24 * time.Hour

// Inventory returns the devices of applications, with what the server's record and the CSV file of the settings say.
func (p *Planner) Inventory(ctx context.Context, apps []string) (*inventory.Inventory, error) {
	set := p.Settings.Inventory
	opt := inventory.Options{VersionTag: set.VersionTag, HardwareTag: set.HardwareTag}
	for _, r := range set.Uplinks {
		opt.Rules = append(opt.Rules, inventory.Rule{FPort: r.FPort, Battery: r.Fact == "battery", Offset: r.Offset, Big: r.Order == "big"})
	}
	inv := inventory.New(opt)
	for _, app := range apps {
		devices, err := p.Server.Devices(ctx, app)
		if err != nil {
			return nil, err
		}
		for _, d := range devices {
			if err := inv.Add(d); err != nil {
				p.warn("%v", err)
			}
		}
	}
	if set.CSV == "" {
		return inv, nil
	}
	path, text, err := p.Read(set.CSV)
	if err != nil {
		return nil, fmt.Errorf("inventory %s: %w", path, err)
	}
	strangers, lines := inv.ReadCSV(bytes.NewReader(text))
	var problems config.Problems
	for _, l := range lines {
		problems = append(problems, config.Problem{File: path, Line: l.Line, Text: l.Err.Error(), Remedy: "correct the line"})
	}
	if strangers > 0 {
		p.warn("%s: %d devices are not in these applications", path, strangers)
	}
	return inv, problems.Err()
}

func (p *Planner) warn(format string, args ...any) {
	if p.Warn != nil {
		p.Warn(fmt.Sprintf(format, args...))
	}
}

// Links adds the link history of devices to the inventory.
func (p *Planner) Links(ctx context.Context, inv *inventory.Inventory, devices []*inventory.Device) error {
	until := map[network.EUI64]time.Time{}
	for _, d := range devices {
		if !d.LastSeen.IsZero() {
			until[d.EUI] = d.LastSeen.Add(time.Hour)
		}
	}
	if len(until) == 0 {
		return nil
	}
	return p.Server.Links(ctx, until, func(eui network.EUI64, l Link) {
		if l.Packets > 0 {
			inv.Link(eui, l.SNR, l.Last)
		}
	})
}

// choice is a selection with its lists as sets.
type choice struct {
	config.Selection
	list, exclude map[network.EUI64]bool
}

func choose(sel config.Selection) choice {
	set := func(list []network.EUI64) map[network.EUI64]bool {
		out := make(map[network.EUI64]bool, len(list))
		for _, eui := range list {
			out[eui] = true
		}
		return out
	}
	return choice{sel, set(sel.List), set(sel.Exclude)}
}

// matches reports whether a device meets all conditions.
func (c choice) matches(d *inventory.Device) bool {
	if c.exclude[d.EUI] || len(c.list) > 0 && !c.list[d.EUI] ||
		len(c.Versions) > 0 && !(d.Version.Known() && slices.Contains(c.Versions, config.Version(d.Version.Value))) ||
		len(c.Hardware) > 0 && !(d.Hardware.Known() && slices.Contains(c.Hardware, d.Hardware.Value)) {
		return false
	}
	for k, v := range c.Tags {
		if got, ok := d.Tags[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// waves selects the devices of a campaign, asks the server whether they are ready, and divides them.
func (p *Planner) waves(ctx context.Context, c *Campaign, inv *inventory.Inventory) ([]plan.Wave, error) {
	exists := func(key string, list []network.EUI64) {
		for i, eui := range list {
			if dev := inv.Device(eui); dev == nil || dev.Application != c.File.Application {
				c.doc.Add(fmt.Sprintf("%s[%d]", key, i), "correct the DevEUI, or add the device in ChirpStack",
					"device %s does not exist in application %s", eui, c.File.Application)
			}
		}
	}
	exists("devices.list", c.File.Devices.List)
	exists("devices.exclude", c.File.Devices.Exclude)
	var chosen []*inventory.Device
	all := choose(c.File.Devices)
	for _, dev := range inv.Devices() {
		if dev.Application == c.File.Application && all.matches(dev) {
			chosen = append(chosen, dev)
			c.devices[dev.EUI] = dev
		}
	}
	if err := p.Links(ctx, inv, chosen); err != nil {
		return nil, err
	}
	if err := p.ready(ctx, c, chosen); err != nil {
		return nil, err
	}
	// A percentage takes a sample that does not depend on names or numbers, and is the same each time.
	slices.SortStableFunc(chosen, func(a, b *inventory.Device) int {
		return cmp.Compare(draw(c.File.Name, a.EUI), draw(c.File.Name, b.EUI))
	})
	if len(c.File.Waves) == 0 {
		return []plan.Wave{{Name: "all", Members: toMembers(chosen)}}, nil
	}
	var out []plan.Wave
	taken := 0
	left := chosen
	for i, w := range c.File.Waves {
		if w.Rescue {
			continue // it takes what the others leave
		}
		exists(fmt.Sprintf("wave[%d].list", i), w.List)
		most := len(left)
		switch {
		case w.Percent != nil:
			most = max(0, int(math.Ceil(*w.Percent*float64(len(chosen))/100-1e-9))-taken)
		case w.Count > 0:
			most = w.Count
		}
		sel := choose(w.Selection)
		var mine, rest []*inventory.Device
		for _, dev := range left {
			if len(mine) < most && sel.matches(dev) {
				mine = append(mine, dev)
			} else {
				rest = append(rest, dev)
			}
		}
		if len(mine) == 0 && len(chosen) > 0 {
			c.doc.Add(fmt.Sprintf("wave[%d]", i), "relax its conditions, or remove it", "wave %s has no devices", w.Name)
		}
		taken, left = taken+len(mine), rest
		out = append(out, plan.Wave{Name: w.Name, Members: toMembers(mine)})
	}
	if len(left) > 0 {
		c.doc.Add("wave", "add a last wave without conditions, or with percent = 100", "%d of %d devices are in no wave", len(left), len(chosen))
	}
	return out, nil
}

// draw is a number that is different for each campaign and device.
func draw(campaign string, eui network.EUI64) uint64 {
	h := fnv.New64a()
	h.Write(eui[:])
	io.WriteString(h, campaign)
	return h.Sum64()
}

func toMembers(devices []*inventory.Device) []plan.Member {
	out := make([]plan.Member, 0, len(devices))
	for _, d := range devices {
		region, err := airtime.ParseRegion(d.Region)
		if err != nil {
			continue // ready says so
		}
		m := plan.Member{EUI: d.EUI, Region: region, Loss: d.Uplinks.Value.Loss()}
		if d.Version.Known() {
			m.Version = &d.Version.Value
		}
		if d.Base.Known() {
			m.Base = (*[8]byte)(&d.Base.Value)
		}
		if d.Hardware.Known() {
			m.Hardware = &d.Hardware.Value
		}
		if d.Class.Known() {
			m.Class = &d.Class.Value
		}
		if d.Packages.Known() {
			m.Packages = d.Packages.Value
		}
		if d.SNR.Known() {
			m.SNR = &d.SNR.Value
		}
		out = append(out, m)
	}
	return out
}

// ready lists what the server would take without a word and never deliver.
func (p *Planner) ready(ctx context.Context, c *Campaign, chosen []*inventory.Device) error {
	profiles := map[string]Profile{}
	regions := map[string]string{} // of the profiles
	var euis []network.EUI64
	for _, dev := range chosen {
		euis = append(euis, dev.EUI)
		if _, ok := profiles[dev.Profile]; !ok {
			pr, err := p.Server.Profile(ctx, dev.Profile)
			if err != nil {
				return err
			}
			profiles[dev.Profile], regions[dev.Profile] = pr, dev.Region
		}
	}
	clock := map[bool]string{}
	c.classB = len(profiles) > 0
	for _, id := range slices.Sorted(maps.Keys(profiles)) {
		pr := profiles[id]
		clock[pr.TS003] = pr.Name
		region, err := airtime.ParseRegion(regions[id])
		switch only := p.Settings.Region; {
		case err != nil:
			c.doc.Add("devices", fmt.Sprintf("exclude the devices of this profile; sower knows %v", airtime.Regions()),
				"device profile %s is of region %q", pr.Name, regions[id])
		case only != 0 && region != only:
			c.doc.Add("devices", "exclude the devices of this profile, or take region out of the settings, and every device is served in the region of its profile",
				"device profile %s is of %s, and the settings want no other region than %s", pr.Name, region, only)
		}
		if pr.ClassC {
			c.doc.Add("devices", "switch class C off in the profile: the campaign asks devices for it only while it sends",
				"device profile %s is class C, so single messages would collide with the multicast", pr.Name)
		}
		if !pr.ClassB {
			c.classB = false
			if c.File.Radio.Class == config.Class(network.ClassB) {
				c.doc.Add("radio.class", "switch class B on in the profile, if that is what the devices can do, or write class = \"C\"",
					"device profile %s has no class B, so its devices would not take part", pr.Name)
			}
		}
		if pr.TS004 || pr.TS005 {
			c.doc.Add("devices", "set TS004 and TS005 of the profile to \"not implemented\"",
				"device profile %s lets ChirpStack take the answers of TS004 and TS005 for its own deployments", pr.Name)
		}
	}
	if len(clock) == 2 {
		c.doc.Add("devices", "set TS003 to the same in both profiles", "ChirpStack answers the time for %s but not for %s", clock[true], clock[false])
	}
	found := map[string][]network.EUI64{}
	err := p.Server.Ready(ctx, euis, func(eui network.EUI64, r Readiness) {
		for what, is := range map[string]bool{"key": r.NoKey, "disabled": r.Disabled, "never": !r.Joined, "end": r.EndToEnd} {
			if is {
				found[what] = append(found[what], eui)
			}
		}
	})
	if err != nil {
		return err
	}
	for _, f := range []struct{ what, text, remedy string }{
		{"key", "no root key on the server", "enter GenAppKey (LoRaWAN 1.0.x) or AppKey (1.1) under the keys of the device, or exclude it"},
		{"disabled", "disabled on the server", "enable it, or exclude it"},
		{"never", "never joined", "check that it is in range and powered, or exclude it"},
		{"end", "payload encrypted end to end by its join server", "let the join server give the session keys to ChirpStack, or exclude it"},
	} {
		list := found[f.what]
		if len(list) == 0 {
			continue
		}
		key := "devices"
		if i := slices.Index(c.File.Devices.List, list[0]); i >= 0 && len(list) == 1 {
			key = fmt.Sprintf("devices.list[%d]", i)
		}
		c.doc.Add(key, f.remedy, "%s: %s", f.text, some(list))
	}
	return nil
}

// gateways returns the gateways that are to transmit, by region: those of the file, or all that are online.
func (p *Planner) gateways(ctx context.Context, c *Campaign) (map[airtime.Region][]network.EUI64, error) {
	list, err := p.Server.Gateways(ctx, c.File.Application)
	if err != nil {
		return nil, err
	}
	regions := map[airtime.Region]bool{}
	for _, d := range c.devices {
		if r, err := airtime.ParseRegion(d.Region); err == nil {
			regions[r] = true
		}
	}
	state := map[network.EUI64]network.Gateway{}
	out := map[airtime.Region][]network.EUI64{}
	for _, g := range list {
		state[g.ID] = g
		if r, err := airtime.ParseRegion(g.Region); err == nil && len(c.File.Radio.Gateways) == 0 && g.Online {
			out[r] = append(out[r], g.ID)
		}
	}
	for i, id := range c.File.Radio.Gateways {
		key := fmt.Sprintf("radio.gateways[%d]", i)
		g, ok := state[id]
		region, err := airtime.ParseRegion(g.Region)
		switch {
		case !ok:
			c.doc.Add(key, "correct the id, or add the gateway in ChirpStack", "gateway %s does not exist in the tenant of the application", id)
		case slices.Contains(c.File.Radio.Gateways[:i], id):
			c.doc.Add(key, "remove it", "gateway %s is listed twice", id)
		case !g.Online:
			c.doc.Add(key, "put it into operation, or leave it out", "gateway %s (%s) is offline; the server would keep its fragments until they expire", id, g.Name)
		case g.Region == "":
			c.doc.Add(key, "give its packet forwarder the topic prefix of its region", "gateway %s (%s) has no region on the server, which would send nothing through it", id, g.Name)
		case len(regions) > 0 && (err != nil || !regions[region]):
			c.doc.Add(key, "leave it out", "gateway %s (%s) is of %s, where no device of the campaign works", id, g.Name, g.Region)
		default:
			out[region] = append(out[region], id)
		}
	}
	return out, nil
}

// groups looks for groups on the server that have the names of those to come.
func (p *Planner) groups(ctx context.Context, c *Campaign) error {
	names := []string{c.File.Name}
	for i := range c.Schedule.Sessions {
		names = append(names, c.group(i))
	}
	for _, name := range names {
		exists, err := p.Server.GroupExists(ctx, c.File.Application, name)
		if err != nil {
			return err
		}
		if exists {
			c.doc.Add("name", "choose another name, or delete the group if that campaign is over",
				"the server has a multicast group called %s already", name)
		}
	}
	return nil
}
