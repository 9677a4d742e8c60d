package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/integrations/chirpstack"
)

func newPlanCommand() *cobra.Command {
	var at siteFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plan CAMPAIGN.toml...",
		Short: "what a campaign will cost, and whether it can work",
		Long: `plan reads campaign files, looks at the devices and gateways they name, and decides for each wave which bundle
goes to whom at which data rate, with how much parity, and when; it shows airtime, duration, energy, uplinks and the
duty cycle of each gateway. Campaigns given together share one account of the air, in the order given.

Whatever stands against a campaign is listed at once, with file, line and remedy, and nothing is sent.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.nw.Close()
			schedules, err := s.plan(cmd.Context(), args, time.Now(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"campaigns": schedules})
			}
			for i, sc := range schedules {
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				printSchedule(cmd.OutOrStdout(), sc)
			}
			return nil
		},
	}
	at.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON; durations in nanoseconds")
	return cmd
}

// draft is a campaign file on its way to a plan.
type draft struct {
	config.Campaign
	doc     *config.Document
	dir     string
	updates []plan.Update
	slots   []int // number of each update in the file
	devices map[network.EUI64]bool
}

// plan plans campaigns. The error lists everything that is wrong with any of them.
func (s *site) plan(ctx context.Context, files []string, now time.Time, stderr io.Writer) ([]plan.Schedule, error) {
	var drafts []*draft
	var apps []string
	for _, path := range files {
		text, err := readInput("campaign", path)
		if err != nil {
			return nil, err
		}
		d := &draft{dir: filepath.Dir(path), devices: map[network.EUI64]bool{}}
		d.Campaign, d.doc = config.ParseCampaign(path, text)
		d.readBundles()
		drafts = append(drafts, d)
	}
	problems := func() error {
		var all config.Problems
		for _, d := range drafts {
			all = append(all, d.doc.Problems...)
		}
		return all.Err()
	}
	caps, err := s.nw.Capabilities(ctx)
	if err != nil {
		return nil, errors.Join(problems(), err)
	}
	for _, d := range drafts {
		if d.Application == "" || slices.Contains(apps, d.Application) {
			continue
		}
		if _, err := s.nw.Application(ctx, d.Application); errors.Is(err, network.ErrUnavailable) {
			return nil, errors.Join(problems(), err)
		} else if err != nil {
			d.doc.Add("application", "copy the id of the application from ChirpStack", "application %s: %s", d.Application, err)
			continue
		}
		apps = append(apps, d.Application)
	}
	if len(apps) == 0 {
		return nil, problems()
	}
	inv, err := s.inventory(ctx, apps, stderr)
	if err != nil {
		return nil, errors.Join(problems(), err)
	}
	book, err := plan.NewBook(s.Region, s.Airtime.Share/100)
	if err != nil {
		return nil, err
	}
	var out []plan.Schedule
	for i, d := range drafts {
		if !slices.Contains(apps, d.Application) {
			continue
		}
		waves, err := s.waves(ctx, d, inv)
		if err != nil {
			return nil, errors.Join(problems(), err)
		}
		for _, other := range drafts[:i] {
			if other.Name == d.Name {
				d.doc.Add("name", "give it another name", "%s is also called %q", other.doc.File, d.Name)
			}
			for eui := range d.devices {
				if other.devices[eui] {
					d.doc.Add("devices", "a device can be in one campaign at a time: exclude it from one of them",
						"device %s is also in %s", eui, other.doc.File)
					break
				}
			}
		}
		gateways, err := s.gateways(ctx, d)
		if err != nil {
			return nil, errors.Join(problems(), err)
		}
		sc, found := plan.Fleet(book, s.request(d, caps, gateways, waves, now))
		broken := len(d.doc.Problems) > 0
		for _, p := range found {
			// A consequence of what is already listed is no news.
			if broken && (p.Key == "devices" && len(d.devices) == 0 || p.Key == "radio.gateways" && d.doc.Has("radio.gateways") ||
				strings.HasPrefix(p.Key, "bundle") && !strings.HasSuffix(p.Key, ".file") && len(d.updates) < len(d.Bundles)) {
				continue
			}
			d.doc.Add(d.key(p.Key), p.Remedy, "%s", p.Text)
		}
		out = append(out, sc)
	}
	return out, problems()
}

// readBundles reads the bundles of a campaign, and finds out what patches are against.
func (d *draft) readBundles() {
	for i, b := range d.Bundles {
		key := fmt.Sprintf("bundle[%d]", i)
		if b.File == "" {
			continue
		}
		block, err := readInput("bundle", d.path(b.File))
		if err != nil {
			d.doc.Add(key+".file", "make it with `sower sign`, or correct the path", "%s", err)
			continue
		}
		u := plan.Update{Name: filepath.Base(b.File), Block: block}
		for _, v := range b.BaseVersions {
			u.Bases = append(u.Bases, bundle.Version(v))
		}
		if b.BaseImage != "" {
			v, err := baseVersion(d.path(b.BaseImage), block)
			if err != nil {
				d.doc.Add(key+".base_image", "name the image that the patch was made against", "%s", err)
				continue
			}
			u.Bases = append(u.Bases, v)
		}
		d.updates, d.slots = append(d.updates, u), append(d.slots, i)
	}
}

// key translates the number of an update into that of its bundle in the file.
func (d *draft) key(key string) string {
	var i int
	if n, _ := fmt.Sscanf(key, "bundle[%d]", &i); n != 1 || i >= len(d.slots) {
		return key
	}
	return fmt.Sprintf("bundle[%d]%s", d.slots[i], key[strings.IndexByte(key, ']')+1:])
}

func (d *draft) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(d.dir, name)
}

// baseVersion returns the version of an image, if it is the base of a bundle.
func baseVersion(path string, block []byte) (bundle.Version, error) {
	im, err := readImage(io.Discard, "base image", path)
	if err != nil {
		return 0, err
	}
	if m, err := bundle.ParseManifest(block); err == nil && m.Codec == bundle.CodecPatch {
		if sum := sha256.Sum256(im.Data); !bytes.Equal(sum[:len(m.BaseDigest)], m.BaseDigest[:]) {
			return 0, fmt.Errorf("base image %s is not the one of the patch: SHA-256 %x…, want %x…", path, sum[:8], m.BaseDigest)
		}
	}
	head, err := mcuboot.Parse(im.Data)
	if err != nil {
		return 0, fmt.Errorf("base image %s: %w; write base_versions instead", path, err)
	}
	return bundle.MakeVersion(head.Major, head.Minor, head.Revision), nil
}

// matches reports whether a device meets all conditions of a selection.
func matches(sel config.Selection, d *inventory.Device) bool {
	if slices.Contains(sel.Exclude, d.EUI) || len(sel.List) > 0 && !slices.Contains(sel.List, d.EUI) ||
		len(sel.Versions) > 0 && !(d.Version.Known() && slices.Contains(sel.Versions, config.Version(d.Version.Value))) ||
		len(sel.Hardware) > 0 && !(d.Hardware.Known() && slices.Contains(sel.Hardware, d.Hardware.Value)) {
		return false
	}
	for k, v := range sel.Tags {
		if got, ok := d.Tags[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// waves selects the devices of a campaign, asks the server whether they are ready, and divides them.
func (s *site) waves(ctx context.Context, d *draft, inv *inventory.Inventory) ([]plan.Wave, error) {
	exists := func(key string, list []network.EUI64) {
		for i, eui := range list {
			if dev := inv.Device(eui); dev == nil || dev.Application != d.Application {
				d.doc.Add(fmt.Sprintf("%s[%d]", key, i), "correct the DevEUI, or add the device in ChirpStack",
					"device %s does not exist in application %s", eui, d.Application)
			}
		}
	}
	exists("devices.list", d.Devices.List)
	exists("devices.exclude", d.Devices.Exclude)
	var chosen []*inventory.Device
	for _, dev := range inv.Devices() {
		if dev.Application == d.Application && matches(d.Devices, dev) {
			chosen = append(chosen, dev)
			d.devices[dev.EUI] = true
		}
	}
	if err := s.links(ctx, inv, chosen); err != nil {
		return nil, err
	}
	if err := s.ready(ctx, d, chosen); err != nil {
		return nil, err
	}
	// A percentage takes a sample that does not depend on names or numbers, and is the same each time.
	slices.SortStableFunc(chosen, func(a, b *inventory.Device) int { return cmp.Compare(draw(d.Name, a.EUI), draw(d.Name, b.EUI)) })
	if len(d.Waves) == 0 {
		return []plan.Wave{{Name: "all", Members: toMembers(chosen)}}, nil
	}
	var out []plan.Wave
	taken := 0
	left := chosen
	for i, w := range d.Waves {
		exists(fmt.Sprintf("wave[%d].list", i), w.List)
		most := len(left)
		switch {
		case w.Percent != nil:
			most = max(0, int(math.Ceil(*w.Percent*float64(len(chosen))/100-1e-9))-taken)
		case w.Count > 0:
			most = w.Count
		}
		var mine, rest []*inventory.Device
		for _, dev := range left {
			if len(mine) < most && matches(w.Selection, dev) {
				mine = append(mine, dev)
			} else {
				rest = append(rest, dev)
			}
		}
		if len(mine) == 0 && len(chosen) > 0 {
			d.doc.Add(fmt.Sprintf("wave[%d]", i), "relax its conditions, or remove it", "wave %s has no devices", w.Name)
		}
		taken, left = taken+len(mine), rest
		out = append(out, plan.Wave{Name: w.Name, Members: toMembers(mine)})
	}
	if len(left) > 0 {
		d.doc.Add("wave", "add a last wave without conditions, or with percent = 100", "%d of %d devices are in no wave", len(left), len(chosen))
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
		m := plan.Member{EUI: d.EUI, Loss: d.Uplinks.Value.Loss()}
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

// ready lists what ChirpStack would take without a word and never deliver.
func (s *site) ready(ctx context.Context, d *draft, chosen []*inventory.Device) error {
	if exists, err := s.nw.GroupExists(ctx, d.Application, d.Name); err != nil {
		return err
	} else if exists {
		d.doc.Add("name", "choose another name, or delete the group if that campaign is over", "the server has a multicast group called %s already", d.Name)
	}
	profiles := map[string]chirpstack.Profile{}
	var euis []network.EUI64
	for _, dev := range chosen {
		euis = append(euis, dev.EUI)
		if _, ok := profiles[dev.Profile]; !ok {
			p, err := s.nw.Profile(ctx, dev.Profile)
			if err != nil {
				return err
			}
			profiles[dev.Profile] = p
		}
	}
	clock := map[bool]string{}
	for _, id := range slices.Sorted(maps.Keys(profiles)) {
		p := profiles[id]
		clock[p.TS003] = p.Name
		if p.ClassC {
			d.doc.Add("devices", "switch class C off in the profile: the campaign asks devices for it only while it sends",
				"device profile %s is class C, so single messages would collide with the multicast", p.Name)
		}
		if p.TS004 || p.TS005 {
			d.doc.Add("devices", "set TS004 and TS005 of the profile to \"not implemented\"",
				"device profile %s lets ChirpStack take the answers of TS004 and TS005 for its own deployments", p.Name)
		}
	}
	if len(clock) == 2 {
		d.doc.Add("devices", "set TS003 to the same in both profiles", "ChirpStack answers the time for %s but not for %s", clock[true], clock[false])
	}
	var mu sync.Mutex
	found := map[string][]network.EUI64{}
	err := chirpstack.ForDevices(ctx, euis, func(ctx context.Context, eui network.EUI64) error {
		r, err := s.nw.Readiness(ctx, eui)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for what, is := range map[string]bool{"key": r.Key != nil, "disabled": r.Disabled, "never": !r.Activated, "end": r.EndToEnd} {
			if is {
				found[what] = append(found[what], eui)
			}
		}
		return nil
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
		if i := slices.Index(d.Devices.List, list[0]); i >= 0 && len(list) == 1 {
			key = fmt.Sprintf("devices.list[%d]", i)
		}
		d.doc.Add(key, f.remedy, "%s: %s", f.text, some(list))
	}
	return nil
}

// gateways returns the gateways that are to transmit: those of the file, or all that are online.
func (s *site) gateways(ctx context.Context, d *draft) ([]network.EUI64, error) {
	list, err := s.nw.GatewayStates(ctx, d.Application)
	if err != nil {
		return nil, err
	}
	state := map[network.EUI64]chirpstack.GatewayState{}
	var out []network.EUI64
	for _, g := range list {
		state[g.ID] = g
		if len(d.Radio.Gateways) == 0 && g.Online && g.RegionConfig != "" {
			out = append(out, g.ID)
		}
	}
	for i, id := range d.Radio.Gateways {
		key := fmt.Sprintf("radio.gateways[%d]", i)
		g, ok := state[id]
		switch {
		case !ok:
			d.doc.Add(key, "correct the id, or add the gateway in ChirpStack", "gateway %s does not exist in the tenant of the application", id)
		case slices.Contains(out, id):
			d.doc.Add(key, "remove it", "gateway %s is listed twice", id)
		case !g.Online:
			d.doc.Add(key, "put it into operation, or leave it out", "gateway %s (%s) is offline; the server would keep its fragments until they expire", id, g.Name)
		case g.RegionConfig == "":
			d.doc.Add(key, "give its packet forwarder the topic prefix of its region", "gateway %s (%s) has no region on the server, which would send nothing through it", id, g.Name)
		default:
			out = append(out, id)
		}
	}
	return out, nil
}

// request puts together what the planner needs.
func (s *site) request(d *draft, caps network.Capabilities, gateways []network.EUI64, waves []plan.Wave, now time.Time) plan.Request {
	req := plan.Request{
		Campaign: d.Name, Start: now, Region: s.Region, Capabilities: caps, Gateways: gateways, Updates: d.updates, Waves: waves,
		Layouts: map[uint16]plan.Layout{}, DataRate: int(d.Radio.DataRate), FragSize: d.Radio.FragSize, Frequency: d.Radio.Frequency,
		Repeater: s.Airtime.Repeater, Packages: applayer.Version(d.Radio.Packages), Target: d.Target / 100,
		Spacing: time.Duration(s.ChirpStack.Margin), Share: s.Airtime.Share / 100,
		UplinkInterval: time.Duration(d.Timing.UplinkInterval), Receive: d.Energy.Receive, Transmit: d.Energy.Transmit,
	}
	if !s.Airtime.Repeater {
		// The network assumes one to be on the safe side; the operator knows better.
		req.Capabilities.MaxPayload = nil
	}
	if d.Start.After(now) {
		req.Start = d.Start
	}
	for _, h := range s.Hardware {
		req.Layouts[h.ID] = plan.Layout{Class: h.Class, Slot: int(h.Slot), Download: int(h.Download), Scratch: int(h.Scratch),
			RAM: int(h.RAM), Page: int(h.Page), Granule: int(h.Granule)}
	}
	return req
}

// printSchedule renders a plan for a person.
func printSchedule(w io.Writer, sc plan.Schedule) {
	fmt.Fprintf(w, "%s: %d devices to version %s", sc.Campaign, sc.Devices-sc.UpToDate, sc.Target)
	if sc.UpToDate > 0 {
		fmt.Fprintf(w, ", %d more run it already", sc.UpToDate)
	}
	fmt.Fprintf(w, "\n  from %s to about %s\n", stamp(sc.Starts), stamp(sc.Ends))
	for _, s := range sc.Sessions {
		p := s.Plan
		fmt.Fprintf(w, "\n  wave %s: %s (%s) to %d devices running %s\n", s.Wave, s.Bundle, s.Payload, len(s.Devices), strings.Join(s.From, ", "))
		fmt.Fprintf(w, "    DR%d at %.3f MHz through %d gateway(s), matrix %s\n", p.DataRate, float64(p.Frequency)/1e6, p.Gateways, p.Matrix)
		fmt.Fprintf(w, "    %d data + %d parity fragments of %d bytes, about %d until all are complete, one every %s\n",
			p.M, p.Parity, p.FragSize, s.Expected, p.Pace.Round(time.Millisecond))
		fmt.Fprintf(w, "    window opens %s, closes about %s", stamp(s.Opens), stamp(s.Ends))
		if s.Windows > 1 {
			fmt.Fprintf(w, ", in %d windows", s.Windows)
		}
		fmt.Fprintf(w, "; class C, 2^%d s\n", p.TimeOut)
		fmt.Fprintf(w, "    airtime %s per gateway, %.2f mAh per device, %d uplinks\n", s.Airtime.Round(time.Second/10), s.Energy, s.Uplinks)
		fmt.Fprintf(w, "    self-check: %.1f %% of %d simulated devices complete with the first burst\n", 100*s.Check.Complete, s.Check.Devices)
		if s.Behind != "" {
			fmt.Fprintf(w, "    waits for the gateways behind campaign %s\n", s.Behind)
		}
		if s.Delayed > time.Second {
			fmt.Fprintf(w, "    the duty cycle takes %s more than the pace\n", s.Delayed.Round(time.Second))
		}
		for _, text := range p.Warnings {
			fmt.Fprintf(w, "    warning: %s\n", text)
		}
	}
	fmt.Fprintf(w, "\n  in all %s on the air, %d uplinks", sc.Airtime.Round(time.Second/10), sc.Uplinks)
	if sc.Proven {
		fmt.Fprint(w, "; no other choice of bundles and data rates takes less airtime")
	}
	fmt.Fprintln(w)
	for _, u := range sc.Usage {
		fmt.Fprintf(w, "  gateway %s, sub-band %s: at most %s in any hour of %s allowed (%.0f %%)\n", u.Gateway, u.SubBand,
			u.Peak.Round(time.Second/10), u.Allowed.Round(time.Second), 100*float64(u.Peak)/float64(u.Allowed))
	}
	for _, text := range sc.Warnings {
		fmt.Fprintf(w, "  warning: %s\n", text)
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
