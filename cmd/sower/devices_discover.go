package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
)

const (
	// saveInterval is how much of what was learned may be lost when the program is killed.
	saveInterval = 30 * time.Second
	// leastRest keeps the answers of two devices behind one gateway apart where no duty cycle does.
	leastRest = 2 * time.Second
	// dutyCycle of the channels on which devices join, in regions that have one: 1 %. A gateway answers there first.
	dutyCycle = 0.01
	// discoveryTries is how often a question is delivered before a device counts as not having an answer.
	discoveryTries = 2
)

// discovery is `sower devices discover` with its surroundings as parameters.
type discovery struct {
	wait, maxAge time.Duration
	rate         float64 // messages a minute through one gateway, at most; 0: as many as the duty cycle allows
	output       string
	dryRun       bool
	yes          bool
	asJSON       bool

	clock          network.Clock
	in             io.Reader
	stdout, stderr io.Writer
}

func newDiscoverCommand() *cobra.Command {
	var at siteFlags
	var d discovery
	cmd := &cobra.Command{
		Use:   "discover [APPLICATION|DEVEUI]...",
		Short: "ask devices for their firmware version and packages",
		Long: `discover asks devices for what is not known of them: their packages with version and port, and their firmware version
(TS007 DevPackageReq and TS006 DevVersionReq in one message); devices without TS007, for the version of each package by
itself. Battery levels come with the answers to the requests that ChirpStack sends by itself, if the device profile says so.

A device is asked when it has just been heard, so the question goes out in the receive windows of that uplink. A gateway
that has sent a question rests as long as the duty cycle wants; few devices answer at a time; a device for which messages
wait, of a campaign for example, is left alone. What it will cost is printed before anything is sent.

Answers go into the inventory CSV of sower.toml, or the file named with -o, which plans read from then on. Devices whose
facts are young enough are not asked, so it can be stopped at any time and started again.`,
		Example: "  sower devices discover --dry-run\n  sower devices discover --wait 24h --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case d.wait <= 0:
				return usagef("devices discover: --wait %s, want more than 0", d.wait)
			case d.maxAge < 0:
				return usagef("devices discover: --max-age %s is negative", d.maxAge)
			case d.rate < 0:
				return usagef("devices discover: --rate %v is negative", d.rate)
			}
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.nw.Close()
			d.clock, d.in, d.stdout, d.stderr = &network.WallClock{}, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
			return d.run(cmd.Context(), s, args)
		},
	}
	at.add(cmd)
	f := cmd.Flags()
	f.DurationVar(&d.wait, "wait", time.Hour, "how long to wait for uplinks and answers; messages that wait then expire")
	f.DurationVar(&d.maxAge, "max-age", 24*time.Hour, "do not ask for facts that are younger")
	f.Float64Var(&d.rate, "rate", 0, "at most so many messages a minute through one gateway (default: what the duty cycle allows)")
	f.StringVarP(&d.output, "output", "o", "", "inventory CSV to update (default: that of the settings)")
	f.BoolVar(&d.dryRun, "dry-run", false, "say what it would cost, and send nothing")
	f.BoolVar(&d.yes, "yes", false, "send without asking")
	f.BoolVar(&d.asJSON, "json", false, "print JSON")
	return cmd
}

// run discovers.
func (d discovery) run(ctx context.Context, s *site, args []string) error {
	if d.output == "" && s.Inventory.CSV != "" {
		d.output = s.path(s.Inventory.CSV)
	}
	if d.output == "" && !d.dryRun {
		return usagef("devices discover: nothing says where the answers are to go; name a file with -o, and the same file in [inventory] csv of %s for plans to read", s.file)
	}
	inv, apps, euis, err := d.devices(ctx, s, args)
	if err != nil {
		return err
	}
	now := d.clock.Now()
	machine := inventory.NewDiscovery(now, inv, euis, inventory.DiscoveryOptions{Until: now.Add(d.wait), MaxAge: d.maxAge, Tries: discoveryTries, Rest: d.rest(s)})
	cost, err := d.cost(ctx, s, apps, machine)
	if err != nil {
		return err
	}
	if d.dryRun {
		if d.asJSON {
			return printJSON(d.stdout, map[string]any{"plan": cost})
		}
		cost.print(d.stdout)
		return nil
	}
	cost.print(d.stderr)
	var onAir time.Duration
	if cost.Ask > 0 {
		if err := d.confirm(); err != nil {
			return err
		}
		onAir, err = d.ask(ctx, s, apps, inv, machine, now.Add(d.wait))
		// What was learned is kept, whatever has ended it.
		if err := errors.Join(err, d.save(inv)); err != nil {
			return err
		}
	}
	return d.report(inv, machine, onAir)
}

// devices returns the inventory of the applications, and the devices among theirs that are meant.
func (d discovery) devices(ctx context.Context, s *site, args []string) (inv *inventory.Inventory, apps []string, euis []network.EUI64, err error) {
	var ids []string
	for _, arg := range args {
		if eui, err := network.ParseEUI64(arg); err == nil {
			euis = append(euis, eui)
		} else {
			ids = append(ids, arg)
		}
	}
	if len(ids) > 0 && len(euis) > 0 {
		return nil, nil, nil, usagef("devices discover: %q is no DevEUI, and others are; name applications or devices", ids[0])
	}
	list, err := s.applications(ctx, ids)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, a := range list {
		apps = append(apps, a.ID)
	}
	if inv, err = s.planner(d.stderr).Inventory(ctx, apps); err != nil {
		return nil, nil, nil, err
	}
	if err := d.merge(inv); err != nil {
		return nil, nil, nil, err
	}
	for _, eui := range euis {
		if inv.Device(eui) == nil {
			return nil, nil, nil, fmt.Errorf("device %s is in none of %d applications; name its application in [chirpstack] applications of %s", eui, len(apps), s.file)
		}
	}
	if len(args) == 0 || len(ids) > 0 {
		for _, dev := range inv.Devices() {
			euis = append(euis, dev.EUI)
		}
	}
	return inv, apps, euis, nil
}

// merge takes the facts of the file that will be replaced, which may have come since it was read last.
func (d discovery) merge(inv *inventory.Inventory) error {
	if d.output == "" {
		return nil
	}
	text, err := os.ReadFile(d.output)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(text) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("inventory %s: %w", d.output, unwrapPath(err))
	}
	if _, lines := inv.ReadCSV(bytes.NewReader(text)); len(lines) > 0 {
		return fmt.Errorf("inventory %s: %w; correct it, or name another file with -o", d.output, lines[0])
	}
	return nil
}

// save writes what is known.
func (d discovery) save(inv *inventory.Inventory) error {
	if err := d.merge(inv); err != nil {
		return err
	}
	old, err := os.ReadFile(d.output)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("inventory %s: %w", d.output, unwrapPath(err))
	}
	var text bytes.Buffer
	if err := inv.UpdateCSV(&text, old); err != nil {
		return fmt.Errorf("inventory %s: %w", d.output, err)
	}
	return writeOutput(d.output, text.Bytes(), 0o644)
}

// confirm asks the operator.
func (d discovery) confirm() error {
	if d.yes {
		return nil
	}
	fmt.Fprint(d.stderr, "Send them? [y/N] ")
	line, err := bufio.NewReader(d.in).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer == "y" || answer == "yes" {
		return nil
	}
	if err != nil {
		fmt.Fprintln(d.stderr)
	}
	return errors.New("nothing was sent; answer y, or give --yes")
}

// onAir is the time that a question takes of a gateway, by the data rate of the uplink before it.
func onAir(region string, dataRate, payload int) time.Duration {
	r, err := airtime.ParseRegion(region)
	if err != nil {
		return 0
	}
	rate, err := r.DataRate(dataRate)
	if err != nil || !rate.Downlink { // the first window has another one, that of the second is the slowest
		_, dr := r.RX2()
		if rate, err = r.DataRate(dr); err != nil {
			return 0
		}
	}
	return rate.TimeOnAir(payload+airtime.PHYOverhead, airtime.Downlink)
}

// limited reports whether the channels of a region have a duty cycle.
func limited(region string) bool {
	r, err := airtime.ParseRegion(region)
	if err != nil {
		return true
	}
	frequency, _ := r.RX2()
	band, err := r.SubBand(frequency)
	return err != nil || band.DutyCycle < 1000
}

// rest returns how long a gateway is left alone after a message.
func (d discovery) rest(s *site) func(region string, dataRate, payload int) time.Duration {
	share := s.Airtime.Share / 100
	return func(region string, dataRate, payload int) time.Duration {
		out := leastRest
		if d.rate > 0 {
			out = max(out, time.Duration(float64(time.Minute)/d.rate))
		}
		if limited(region) {
			out = max(out, time.Duration(float64(onAir(region, dataRate, payload))/dutyCycle/share))
		}
		return out
	}
}

// discoveryCost is what a discovery will take.
type discoveryCost struct {
	Devices  int       `json:"devices"`
	Ask      int       `json:"to_ask"`
	Gateways int       `json:"gateways_online"`
	Least    asked     `json:"least"` // all have TS007 and are heard at the fastest data rate
	Most     asked     `json:"most"`  // none answers, and all are heard at the slowest
	Until    time.Time `json:"until"`
	File     string    `json:"file,omitempty"`
	wait     time.Duration
	maxAge   time.Duration
}

// asked is what questions take.
type asked struct {
	Messages int     `json:"messages"`
	Seconds  float64 `json:"airtime_s"`      // of all gateways together
	Rest     float64 `json:"gateway_rest_s"` // after each message
}

// extremes returns the LoRa uplink data rates of a region after which a question is shortest and longest.
func extremes(region string) (fast, slow int) {
	r, err := airtime.ParseRegion(region)
	if err != nil {
		return 0, 0
	}
	fast, slow = -1, -1
	for dr := range 16 {
		if rate, err := r.DataRate(dr); err != nil || !rate.Uplink || rate.BitRate != 0 {
			continue
		}
		at := onAir(region, dr, inventory.LongestQuestion)
		if fast < 0 || at < onAir(region, fast, inventory.LongestQuestion) {
			fast = dr
		}
		if slow < 0 || at > onAir(region, slow, inventory.LongestQuestion) {
			slow = dr
		}
	}
	return fast, slow
}

// cost estimates what a discovery will take.
func (d discovery) cost(ctx context.Context, s *site, apps []string, machine *inventory.Discovery) (discoveryCost, error) {
	st := machine.State()
	left := append(st.Unheard, st.Asked...)
	c := discoveryCost{Devices: len(left) + len(st.Known), Ask: len(left), Until: d.clock.Now().Add(d.wait).UTC(), File: d.output, wait: d.wait, maxAge: d.maxAge}
	online := map[network.EUI64]bool{}
	for _, app := range apps {
		gateways, err := s.nw.Gateways(ctx, app)
		if err != nil {
			return c, err
		}
		for _, g := range gateways {
			if g.Online {
				online[g.ID] = true
			}
		}
	}
	c.Gateways = len(online)
	rest := d.rest(s)
	for _, dev := range left {
		fast, slow := extremes(dev.Region)
		long, short := onAir(dev.Region, slow, inventory.LongestQuestion), onAir(dev.Region, slow, 1)
		c.Least.Messages++
		c.Least.Seconds += onAir(dev.Region, fast, inventory.LongestQuestion).Seconds()
		c.Least.Rest = max(c.Least.Rest, rest(dev.Region, fast, inventory.LongestQuestion).Seconds())
		c.Most.Messages += discoveryTries * 5 // TS007 in a long one, each package in a short one
		c.Most.Seconds += discoveryTries * (long + 4*short).Seconds()
		c.Most.Rest = max(c.Most.Rest, rest(dev.Region, slow, inventory.LongestQuestion).Seconds())
	}
	return c, nil
}

func (c discoveryCost) print(w io.Writer) {
	fmt.Fprintf(w, "%d devices, of which %d are to be asked; the others have told within %s\n", c.Devices, c.Ask, c.maxAge)
	if c.Ask > 0 {
		fmt.Fprintf(w, "  %d messages with %.1f s on the air if all have TS007 and are near; at most %d messages with %.0f s\n", c.Least.Messages, c.Least.Seconds, c.Most.Messages, c.Most.Seconds)
		fmt.Fprintf(w, "  through %s online; each rests %.0f to %.0f s after a message\n", counted(c.Gateways, "gateway"), c.Least.Rest, c.Most.Rest)
		fmt.Fprintf(w, "  until %s (%s); what waits then expires\n", stamp(c.Until), c.wait)
	}
	if c.File != "" {
		fmt.Fprintf(w, "  answers go to %s\n", c.File)
	}
}

// ask hears and asks until all is known or the time is over, and returns the airtime of what was sent.
func (d discovery) ask(ctx context.Context, s *site, apps []string, inv *inventory.Inventory, machine *inventory.Discovery, until time.Time) (sum time.Duration, err error) {
	listening, cancel := context.WithCancel(ctx)
	var forwarding sync.WaitGroup
	all := make(chan network.Event)
	defer func() {
		cancel()
		forwarding.Wait()
		d.clock.WakeAt(time.Time{})
	}()
	for _, app := range apps {
		events, err := s.nw.Events(listening, app)
		if err != nil {
			return 0, err
		}
		forwarding.Go(func() {
			for ev := range events {
				select {
				case all <- ev:
				case <-listening.Done():
					ev.Done()
				}
			}
		})
	}
	saved := d.clock.Now()
	for !machine.Over() {
		select {
		case ev := <-all:
			now := d.clock.Now()
			q, wanted := machine.Heard(now, ev)
			if wanted {
				sent, err := d.send(ctx, s, machine, q)
				if err != nil {
					ev.Done()
					return sum, err
				}
				if sent {
					sum += onAir(inv.Device(ev.Device).Region, q.DataRate, len(q.Message.Payload))
				}
			}
			ev.Done()
			if now.Sub(saved) >= saveInterval {
				saved = now
				if err := d.save(inv); err != nil {
					return sum, err
				}
			}
		case <-d.clock.WakeAt(until):
			return sum, nil
		case <-ctx.Done():
			return sum, ctx.Err()
		}
	}
	return sum, nil
}

// send sends one question, unless something else waits for the device.
func (d discovery) send(ctx context.Context, s *site, machine *inventory.Discovery, q inventory.Ask) (bool, error) {
	later := func(err error) bool {
		return errors.Is(err, network.ErrUnavailable) || errors.Is(err, network.ErrNotFound)
	}
	waiting, err := s.nw.Queued(ctx, q.Message.Device)
	if later(err) {
		warn(d.stderr, "device %s is not asked now: %v", q.Message.Device, err)
		return false, nil
	}
	if err != nil || len(waiting) > 0 {
		return false, err
	}
	id, err := s.nw.Send(ctx, q.Message)
	switch {
	case later(err):
		warn(d.stderr, "device %s is not asked now: %v", q.Message.Device, err)
		return false, nil
	case err != nil && !errors.Is(err, network.ErrUncertain):
		return false, err
	}
	machine.Sent(q, id) // an uncertain one may come
	return true, nil
}

// report prints what has come of it.
func (d discovery) report(inv *inventory.Inventory, machine *inventory.Discovery, onAir time.Duration) error {
	st := machine.State()
	names := func(list []*inventory.Device) []network.EUI64 {
		out := []network.EUI64{}
		for _, dev := range list {
			out = append(out, dev.EUI)
		}
		return out
	}
	if d.asJSON {
		return printJSON(d.stdout, map[string]any{"messages": st.Sent, "airtime_s": onAir.Seconds(), "file": d.output, "known": len(st.Known),
			"silent": names(st.Silent), "waiting": names(st.Asked), "unheard": names(st.Unheard), "devices": deviceRows(inv)})
	}
	fmt.Fprintf(d.stdout, "%d messages, %.1f s on the air; %s is up to date\n", st.Sent, onAir.Seconds(), d.output)
	for _, line := range []struct {
		list []*inventory.Device
		text string
	}{
		{st.Known, "have told what they have"},
		{st.Silent, "answer nothing: they have none of these packages, or cannot be reached"},
		{st.Asked, "are not through: start it again with a longer --wait"},
		{st.Unheard, "were not heard: start it again with a longer --wait"},
	} {
		if n := len(line.list); n > 0 {
			fmt.Fprintf(d.stdout, "  %d %s (%s)\n", n, line.text, some(names(line.list)))
		}
	}
	for _, dev := range inv.Devices() {
		for _, odd := range oddities(dev) {
			warn(d.stderr, "device %s: %s", dev.EUI, odd)
		}
	}
	return nil
}

// oddities are what a campaign would not cope with.
func oddities(d *inventory.Device) (out []string) {
	var none inventory.Offers
	for _, id := range []applayer.PackageID{applayer.ClockSync, applayer.McSetup, applayer.DataBlock, applayer.FwMgmt} {
		o := d.Offers[id].Value
		switch {
		case o.Version == 0:
			continue
		case o.FPort != none.Port(id):
			out = append(out, fmt.Sprintf("%s is on port %d, and campaigns use port %d", id, o.FPort, none.Port(id)))
		case id != applayer.FwMgmt && d.Packages.Known() && o.Version != d.Packages.Value:
			out = append(out, fmt.Sprintf("%s is %s and TS004 is %s, and campaigns take them to be the same", id, o.Version, d.Packages.Value))
		}
	}
	return out
}
