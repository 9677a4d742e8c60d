// Package prepare turns a campaign file into a campaign: it reads the bundles that the file names, selects the
// devices, asks the network server about everything that it would accept in silence and never carry out, divides
// the devices into waves, plans them, and builds the specification that the engine runs. `sower plan` and the daemon
// use the same code, so that what was planned is what is sent.
//
// Whatever is wrong is found in one go and returned as [config.Problems], each with file, line and remedy. The
// package sends nothing and changes nothing on the server. It reads no clock and opens no file: both come from the
// caller.
package prepare

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
)

// Server is what is asked of a network server. Errors wrap those of package network.
type Server interface {
	Capabilities(ctx context.Context) (network.Capabilities, error)
	// Application returns the name of an application.
	Application(ctx context.Context, id string) (name string, err error)
	Devices(ctx context.Context, application string) ([]network.Device, error)
	Profile(ctx context.Context, id string) (Profile, error)
	Gateways(ctx context.Context, application string) ([]network.Gateway, error)
	// Links asks for the uplink history of devices up to those instants; found is called one at a time.
	Links(ctx context.Context, until map[network.EUI64]time.Time, found func(network.EUI64, Link)) error
	// Ready asks whether devices can take part; found is called one at a time.
	Ready(ctx context.Context, devices []network.EUI64, found func(network.EUI64, Readiness)) error
	GroupExists(ctx context.Context, application, name string) (bool, error)
}

// Profile is a device profile, as far as updates depend on it.
type Profile struct {
	Name                string
	ClassB              bool // devices can be in class B
	ClassC              bool // devices are in class C all the time
	TS003, TS004, TS005 bool // the server handles the package itself
}

// Link is the uplink history of a device.
type Link struct {
	Packets int
	SNR     float64   // dB, mean of the best gateway
	Last    time.Time // start of the last hour with packets
}

// Readiness is what a server would not say before a campaign fails at a device.
type Readiness struct {
	NoKey    bool // the root key is missing, all zero, or must not be read
	Disabled bool
	Joined   bool // has a session
	EndToEnd bool // payloads are encrypted by a join server: nobody here can read them
}

// setUp is how many uplink intervals the planner allows from the start of a campaign to its first window.
const setUp = 12

// Planner plans campaigns.
type Planner struct {
	Settings config.Settings
	Server   Server
	// Read reads a file that the settings name; nil: there are none.
	Read Source
	// Started returns the campaigns that have been started and are not over; nil: there are none. What they still have
	// to send is in the book before any other campaign is planned.
	Started func(ctx context.Context) ([]Started, error)
	// Warn takes what is unwise in the inventory, one line at a time; nil: nobody wants to know.
	Warn func(text string)
}

// Started is a campaign that uses the air already.
type Started struct {
	Schedule plan.Schedule // with the sessions that are not over
	Late     time.Duration // behind it
}

// Source reads a file that another one names, and says how to call it when something is wrong with it.
type Source func(name string) (path string, data []byte, err error)

// File is a campaign file with what it names.
type File struct {
	Name string // for problems
	Text []byte
	Read Source // of bundles and base images
}

// Plan plans campaigns together: they share one account of the air, in the order given, and no device. The error
// lists everything that is wrong with any of them as [config.Problems], unless the server does not answer.
func (p *Planner) Plan(ctx context.Context, files []File, now time.Time) ([]*Campaign, error) {
	var all []*Campaign
	for _, f := range files {
		all = append(all, read(f))
	}
	problems := func() error {
		var list config.Problems
		for _, c := range all {
			list = append(list, c.doc.Problems...)
		}
		return list.Err()
	}
	caps, err := p.Server.Capabilities(ctx)
	if err != nil {
		return nil, errors.Join(problems(), err)
	}
	var apps []string
	for _, c := range all {
		if c.File.Application == "" || slices.Contains(apps, c.File.Application) {
			continue
		}
		if _, err := p.Server.Application(ctx, c.File.Application); errors.Is(err, network.ErrUnavailable) {
			return nil, errors.Join(problems(), err)
		} else if err != nil {
			c.doc.Add("application", "copy the id of the application from the network server", "application %s: %s", c.File.Application, err)
			continue
		}
		apps = append(apps, c.File.Application)
	}
	if len(apps) == 0 {
		return nil, problems()
	}
	inv, err := p.Inventory(ctx, apps)
	if err != nil {
		return nil, errors.Join(problems(), err)
	}
	book, err := plan.NewBook(p.Settings.Airtime.Share / 100)
	if err != nil {
		return nil, err
	}
	if p.Started != nil {
		started, err := p.Started(ctx)
		if err != nil {
			return nil, errors.Join(problems(), err)
		}
		for _, s := range started {
			if err := book.Take(s.Schedule, s.Late); err != nil {
				return nil, err
			}
		}
	}
	for i, c := range all {
		if !slices.Contains(apps, c.File.Application) {
			continue
		}
		waves, err := p.waves(ctx, c, inv)
		if err != nil {
			return nil, errors.Join(problems(), err)
		}
		c.apart(all[:i])
		if c.gateways, err = p.gateways(ctx, c); err != nil {
			return nil, errors.Join(problems(), err)
		}
		c.caps = caps
		var found []plan.Problem
		req := p.request(c, waves, now)
		c.Schedule, found = plan.Fleet(book, req)
		if len(found) == 0 {
			c.await(req)
			found = c.rescue(book, req)
		}
		c.blame(found)
		if err := p.groups(ctx, c); err != nil {
			return nil, errors.Join(problems(), err)
		}
	}
	if err := problems(); err != nil {
		return nil, err
	}
	return all, nil
}

// apart notes names and devices that campaigns before it have taken.
func (c *Campaign) apart(before []*Campaign) {
	for _, other := range before {
		if other.File.Name == c.File.Name {
			c.doc.Add("name", "give it another name", "%s is also called %q", other.doc.File, c.File.Name)
		}
		for eui := range c.devices {
			if _, both := other.devices[eui]; both {
				c.doc.Add("devices", "a device can be in one campaign at a time: exclude it from one of them",
					"device %s is also in %s", eui, other.doc.File)
				break
			}
		}
	}
}

// blame adds what the planner found, but for consequences of what is already listed.
func (c *Campaign) blame(found []plan.Problem) {
	broken := len(c.doc.Problems) > 0
	for _, p := range found {
		if broken && (p.Key == "devices" && len(c.devices) == 0 || p.Key == "radio.gateways" && c.doc.Has("radio.gateways") ||
			strings.HasPrefix(p.Key, "bundle") && !strings.HasSuffix(p.Key, ".file") && !strings.HasSuffix(p.Key, ".raw") && len(c.updates) < len(c.File.Bundles)) {
			continue
		}
		c.doc.Add(c.key(p.Key), p.Remedy, "%s", p.Text)
	}
}

// await lets a campaign whose first window has to wait for those of another begin so much later: devices that are set
// up for it would be ready too early, and the engine opens a window as soon as they are.
func (c *Campaign) await(req plan.Request) {
	if len(c.Schedule.Sessions) == 0 {
		return // no bundle could be read
	}
	// Each region has gateways of its own, and so a first window.
	first := map[string]plan.Session{}
	for _, s := range c.Schedule.Sessions {
		if f, ok := first[s.Plan.Region]; s.Wave == c.Schedule.Sessions[0].Wave && (!ok || s.Opens.Before(f.Opens)) {
			first[s.Plan.Region] = s
		}
	}
	behind := ""
	for _, region := range slices.Sorted(maps.Keys(first)) {
		begin := first[region].Opens.Add(-setUp * req.UplinkInterval)
		if first[region].Behind != "" && begin.After(req.Start) && begin.After(c.begin) {
			c.begin, behind = begin, first[region].Behind
		}
	}
	if behind == "" {
		return
	}
	c.Schedule.Starts = c.begin
	c.Schedule.Warnings = append(c.Schedule.Warnings, fmt.Sprintf("campaign %s uses gateways of this one when its first window could open, so it does not begin before %s",
		behind, c.begin.UTC().Format(time.RFC3339)))
}

// rescue plans the waves for stragglers behind the others. Who will need them is not known, so they are planned for
// all devices, and their cost does not count in the schedule.
func (c *Campaign) rescue(book *plan.Book, req plan.Request) []plan.Problem {
	var all []plan.Member
	for _, w := range req.Waves {
		all = append(all, w.Members...)
	}
	for i, w := range c.File.Waves {
		if !w.Rescue {
			continue
		}
		more := req
		more.Start, more.Waves = c.Schedule.Ends, []plan.Wave{{Name: w.Name, Members: all}}
		if w.DataRate != nil {
			more.DataRate = int(*w.DataRate)
		}
		sc, found := plan.Fleet(book, more)
		if len(found) > 0 {
			for j := range found {
				if found[j].Key == "radio.data_rate" {
					found[j].Key = fmt.Sprintf("wave[%d].data_rate", i)
				}
			}
			return found
		}
		c.Schedule.Sessions = append(c.Schedule.Sessions, sc.Sessions...)
		c.Schedule.Warnings = append(c.Schedule.Warnings, fmt.Sprintf("wave %s is planned for all %d devices and will take up to %s of airtime; only stragglers take part, and without any it is skipped",
			w.Name, sc.Devices-sc.UpToDate, sc.Airtime.Round(time.Second)))
	}
	return nil
}

// request puts together what the planner needs.
func (p *Planner) request(c *Campaign, waves []plan.Wave, now time.Time) plan.Request {
	f, s := c.File, p.Settings
	req := plan.Request{
		Campaign: f.Name, Start: now, Capabilities: c.caps, Gateways: c.gateways, Updates: c.updates, Waves: waves,
		Layouts: map[uint16]plan.Layout{}, Class: network.Class(f.Radio.Class), DataRate: int(f.Radio.DataRate), FragSize: f.Radio.FragSize, Frequency: f.Radio.Frequency,
		Repeater: s.Airtime.Repeater, Packages: applayer.Version(f.Radio.Packages), Target: f.Target / 100,
		Spacing: time.Duration(s.ChirpStack.Margin), Share: s.Airtime.Share / 100,
		UplinkInterval: time.Duration(f.Timing.UplinkInterval), Receive: f.Energy.Receive, Transmit: f.Energy.Transmit,
	}
	if p := f.Radio.Periodicity; p != config.AutoPeriodicity {
		n := uint8(p)
		req.Periodicity = &n
	}
	other := network.ClassB
	if req.Class == network.ClassB {
		other = network.ClassC
	}
	req.OtherClass = slices.Contains(c.caps.MulticastClasses, other) && (other == network.ClassC || c.classB)
	if !s.Airtime.Repeater {
		// The network assumes one to be on the safe side; the operator knows better.
		req.Capabilities.Regions = nil
	}
	for _, at := range []time.Time{f.Start, c.begin} {
		if at.After(req.Start) {
			req.Start = at
		}
	}
	for _, h := range s.Hardware {
		req.Layouts[h.ID] = plan.Layout{Class: h.Class, Slot: int(h.Slot), Download: int(h.Download), Scratch: int(h.Scratch),
			RAM: int(h.RAM), Page: int(h.Page), Granule: int(h.Granule)}
	}
	return req
}

// some names a few devices and says how many more there are.
func some(list []network.EUI64) string {
	const most = 3
	slices.SortFunc(list, func(a, b network.EUI64) int { return slices.Compare(a[:], b[:]) })
	var names []string
	for _, e := range list[:min(most, len(list))] {
		names = append(names, e.String())
	}
	text := strings.Join(names, ", ")
	if n := len(list) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}
