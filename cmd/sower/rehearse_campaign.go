package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
	engine "github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/simulator/fleet/foreign"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/rehearse"
)

// campaignRehearsal are the flags of `sower rehearse CAMPAIGN.toml`.
type campaignRehearsal struct {
	at     siteFlags
	seed   uint64
	down   float64
	patch  time.Duration
	log    string
	asJSON bool
	air    rehearse.Air
	stacks []string
}

// run plans the campaign as sower plan does, and runs it on a fleet modelled after the inventory.
func (o campaignRehearsal) run(ctx context.Context, path string, stdout, stderr io.Writer) error {
	s, err := o.at.open()
	if err != nil {
		return err
	}
	defer s.nw.Close()
	text, err := readInput("campaign", path)
	if err != nil {
		return err
	}
	now := time.Now().Truncate(time.Second)
	campaigns, err := s.planner(stderr).Plan(ctx, []prepare.File{{Name: path, Text: text, Read: beside(path)}}, now)
	if err != nil {
		return err
	}
	c := campaigns[0]
	var serial uint64
	spec, err := c.Spec(ctx, func() (uint32, network.Key, error) { // nothing of it is ever on the air
		serial++
		var key network.Key
		binary.BigEndian.PutUint64(key[:], radio.Hash(o.seed, serial, 1))
		binary.BigEndian.PutUint64(key[8:], radio.Hash(o.seed, serial, 2))
		return 0x01000000 | uint32(serial), key, nil
	}, nil)
	if err != nil {
		return err
	}
	// Nobody is asked for approval of a rehearsal.
	spec.Policy.Approvals = 0
	members, err := o.members(c, spec)
	if err != nil {
		return err
	}
	cfg := rehearse.CampaignConfig{Seed: o.seed, Start: c.Schedule.Starts, Spec: spec, Patch: o.patch, Air: o.air,
		UplinkInterval: time.Duration(c.File.Timing.UplinkInterval), Members: members}
	var log *json.Encoder
	if o.log != "" {
		f, err := os.OpenFile(o.log, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("log %s: %w", o.log, unwrapPath(err))
		}
		defer f.Close()
		log = json.NewEncoder(f)
	}
	var logErr error
	cfg.Log = func(e engine.Entry) {
		if log != nil && logErr == nil {
			logErr = log.Encode(e)
		}
	}
	show := newCampaignDisplay(stderr)
	cfg.Progress = show.progress
	r, err := rehearse.RunCampaign(ctx, cfg)
	show.end()
	switch {
	case err != nil:
		return err
	case logErr != nil:
		return fmt.Errorf("log %s: %w", o.log, logErr)
	}
	if o.asJSON {
		if err := printJSON(stdout, r); err != nil {
			return err
		}
	} else {
		printRehearsal(stdout, c, r)
	}
	switch {
	case !r.Ran:
		return fmt.Errorf("campaign %s had not ended after %s", spec.ID, r.Ended.Sub(r.Started))
	case r.Progress.Halted != "":
		return fmt.Errorf("campaign %s would halt: %s", spec.ID, r.Progress.Halted)
	case r.Progress.Updated+r.Progress.Unproven < r.Progress.Devices:
		return fmt.Errorf("%d of %d devices would not be updated", r.Progress.Devices-r.Progress.Updated-r.Progress.Unproven, r.Progress.Devices)
	}
	return nil
}

// members are the devices as the inventory knows them: their loss is that of their own uplinks.
func (o campaignRehearsal) members(c *prepare.Campaign, spec campaign.Spec) ([]rehearse.Member, error) {
	var out []rehearse.Member
	for _, w := range spec.Waves {
		for _, ss := range w.Sessions {
			for i, t := range ss.Devices {
				m := rehearse.Member{EUI: t.EUI}
				if d := c.Device(t.EUI); d != nil {
					m.LossUp = d.Uplinks.Value.Loss()
					m.LossDown = min(m.LossUp*o.down, 1)
					if d.Version.Known() {
						m.Running = uint32(d.Version.Value)
					}
					if d.Packages.Known() {
						m.Packages = d.Packages.Value
					}
					if d.Battery.Known() {
						m.Battery = uint8(min(max(d.Battery.Value, 1), 100))
					}
				}
				stack, err := o.stack(ss, i)
				if err != nil {
					return nil, err
				}
				raw := c.File.Raw
				m.Stock = rehearse.Stock{Stack: stack, MaxFragments: raw.Fragments, MaxFragSize: raw.FragSize, MaxRedundancy: raw.Redundancy}
				out = append(out, m)
			}
		}
	}
	return out, nil
}

// stack returns the software of a device; 0: the device library, or what else has TS006.
func (o campaignRehearsal) stack(ss session.Spec, i int) (foreign.Stack, error) {
	names := map[string]foreign.Stack{"loramac-node": foreign.LoRaMacNode, "basics-modem": foreign.BasicsModem, "zephyr": foreign.Zephyr}
	for _, name := range o.stacks {
		if names[name] == 0 {
			return 0, usagef("rehearse: --stack %q, want loramac-node, basics-modem or zephyr", name)
		}
	}
	switch {
	case ss.Raw == nil && len(o.stacks) > 0:
		return 0, usagef("rehearse: --stack is for a raw block, and the campaign sends signed bundles")
	case len(o.stacks) > 0:
		return names[o.stacks[i%len(o.stacks)]], nil
	case ss.Raw == nil || ss.Raw.Proof == session.ProofVersion:
		return 0, nil
	case ss.Plan.Version() == applayer.V2:
		return foreign.BasicsModem, nil
	}
	return foreign.LoRaMacNode, nil
}

func printRehearsal(w io.Writer, c *prepare.Campaign, r rehearse.CampaignReport) {
	unproven := ""
	if n := r.Progress.Unproven; n > 0 {
		unproven = fmt.Sprintf(", %d hold the block, unproven,", n)
	}
	fmt.Fprintf(w, "campaign %s: %d of %d devices updated%s in %s of virtual time\n",
		r.Progress.Campaign, r.Progress.Updated, r.Progress.Devices, unproven, r.Ended.Sub(r.Started).Round(time.Second))
	fmt.Fprintf(w, "airtime of all gateways %s (planned %s), %d uplinks\n\n",
		r.Airtime.Round(time.Second/10), c.Schedule.Airtime.Round(time.Second/10), r.Uplinks)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "session\tdevices\tupdated\tunproven\tfailed\tfragments\tparity\twindows\tairtime per gateway")
	for _, p := range r.Progress.Sessions {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", p.Session, p.Devices, p.Updated, p.Unproven, p.Failed,
			p.DataSent+p.ParitySent, p.ParitySent, p.Window, p.Airtime.Round(time.Second/10))
	}
	t.Flush()
	causes, wrong := map[string]int{}, 0
	for _, d := range r.Devices {
		switch {
		case d.Stage != session.StageUpdated && d.Stage != session.StageUnproven:
			causes[fmt.Sprintf("%s at %s", d.Cause, d.Step)]++
		case c.File.IsRaw() && c.File.Proof.By != config.ProofByVersion && !d.Holds:
			wrong++
		}
	}
	var lines []string
	for cause, n := range causes {
		lines = append(lines, fmt.Sprintf("%d devices: %s", n, cause))
	}
	slices.Sort(lines)
	if wrong > 0 {
		lines = append(lines, fmt.Sprintf("%d devices count as updated or unproven, but do not hold the block", wrong))
	}
	for i, l := range lines {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, l)
	}
}

// campaignDisplay shows where a campaign stands: one line that is written over on a terminal, else a line for each
// phase.
type campaignDisplay struct {
	w    io.Writer
	live bool
	last string
	at   time.Time
}

func newCampaignDisplay(w io.Writer) *campaignDisplay {
	f, ok := w.(*os.File)
	return &campaignDisplay{w: w, live: ok && isTerminal(f)}
}

func (d *campaignDisplay) progress(at time.Time, c *campaign.Campaign) {
	p := c.Progress()
	if d.live {
		if time.Since(d.at) < 100*time.Millisecond {
			return
		}
		d.at = time.Now()
		fmt.Fprintf(d.w, "\r\x1b[K%s  wave %s, %d of %d updated, %d failed", at.UTC().Format("2006-01-02 15:04"), p.Wave, p.Updated, p.Devices, p.Failed)
		return
	}
	phases := p.Wave
	for _, s := range p.Sessions {
		phases += "  " + s.Session + " " + s.Phase.String()
	}
	if phases != d.last {
		d.last = phases
		fmt.Fprintf(d.w, "%s  wave %s\n", at.UTC().Format("2006-01-02 15:04"), phases)
	}
}

func (d *campaignDisplay) end() {
	if d.live {
		fmt.Fprint(d.w, "\r\x1b[K")
	}
}
