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

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
	engine "github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
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
	cfg := rehearse.CampaignConfig{Seed: o.seed, Start: c.Schedule.Starts, Spec: spec, Region: s.Region, Patch: o.patch,
		UplinkInterval: time.Duration(c.File.Timing.UplinkInterval), Members: o.members(c, spec)}
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
	case r.Progress.Updated < r.Progress.Devices:
		return fmt.Errorf("%d of %d devices would not be updated", r.Progress.Devices-r.Progress.Updated, r.Progress.Devices)
	}
	return nil
}

// members are the devices as the inventory knows them: their loss is that of their own uplinks.
func (o campaignRehearsal) members(c *prepare.Campaign, spec campaign.Spec) []rehearse.Member {
	var out []rehearse.Member
	for _, w := range spec.Waves {
		for _, ss := range w.Sessions {
			for _, t := range ss.Devices {
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
				out = append(out, m)
			}
		}
	}
	return out
}

func printRehearsal(w io.Writer, c *prepare.Campaign, r rehearse.CampaignReport) {
	fmt.Fprintf(w, "campaign %s: %d of %d devices updated in %s of virtual time\n",
		r.Progress.Campaign, r.Progress.Updated, r.Progress.Devices, r.Ended.Sub(r.Started).Round(time.Second))
	fmt.Fprintf(w, "airtime of all gateways %s (planned %s), %d uplinks\n\n",
		r.Airtime.Round(time.Second/10), c.Schedule.Airtime.Round(time.Second/10), r.Uplinks)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "session\tdevices\tupdated\tfailed\tfragments\tparity\twindows\tairtime per gateway")
	for _, p := range r.Progress.Sessions {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", p.Session, p.Devices, p.Updated, p.Failed,
			p.DataSent+p.ParitySent, p.ParitySent, p.Window, p.Airtime.Round(time.Second/10))
	}
	t.Flush()
	causes := map[string]int{}
	for _, d := range r.Devices {
		if d.Stage != session.StageUpdated {
			causes[fmt.Sprintf("%s at %s", d.Cause, d.Step)]++
		}
	}
	var lines []string
	for cause, n := range causes {
		lines = append(lines, fmt.Sprintf("%d devices: %s", n, cause))
	}
	slices.Sort(lines)
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
