package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
	shell "github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
)

// pollInterval is how often the network server's record is read while a campaign waits for something in it.
const pollInterval = 5 * time.Minute

// batteryRules returns the rules that find a battery level in uplinks.
func batteryRules(set config.Inventory) []inventory.Rule {
	var out []inventory.Rule
	for _, r := range set.Uplinks {
		if r.Fact == "battery" {
			out = append(out, inventory.Rule{FPort: r.FPort, Battery: true, Offset: r.Offset})
		}
	}
	return out
}

// batteryFacts returns what reads battery levels out of events: out of what a device tells the network server
// (DevStatusAns), and out of uplinks by rules.
func batteryFacts(rules []inventory.Rule) func(network.Event) []campaign.Event {
	ports := map[uint8]bool{}
	for _, r := range rules {
		ports[r.FPort] = true
	}
	return func(ev network.Event) []campaign.Event {
		switch {
		case ev.Kind == network.EventStatus && ev.Battery >= 0:
			return []campaign.Event{campaign.Battery{Device: ev.Device, Percent: ev.Battery}}
		case ev.Kind != network.EventUplink || !ports[ev.FPort]:
			return nil
		}
		inv := inventory.New(inventory.Options{Rules: rules})
		inv.Add(network.Device{EUI: ev.Device, Battery: -1}) // no tags, so no error
		inv.Heard(ev)
		if b := inv.Device(ev.Device).Battery; b.Source == inventory.FromUplink {
			return []campaign.Event{campaign.Battery{Device: ev.Device, Percent: b.Value}}
		}
		return nil
	}
}

// proofTag is the tag that an operator sets on a device that runs what it should: [proof] tag of a campaign file,
// "NAME=VALUE", or "NAME" for any value but an empty one.
type proofTag struct{ name, value string }

// readProofTag finds the tag in a campaign file. One that names none proves nothing.
func readProofTag(file []byte) (proofTag, error) {
	var f struct {
		Proof struct {
			Tag string `toml:"tag"`
		} `toml:"proof"`
	}
	if err := toml.Unmarshal(file, &f); err != nil {
		return proofTag{}, fmt.Errorf("proof.tag: %w", err)
	}
	name, value, _ := strings.Cut(f.Proof.Tag, "=")
	return proofTag{strings.TrimSpace(name), strings.TrimSpace(value)}, nil
}

// on reports whether a device has the tag.
func (p proofTag) on(tags map[string]string) bool {
	v := tags[p.name]
	return p.name != "" && v != "" && (p.value == "" || v == p.value)
}

// waiting is what a campaign wants to know from the network server's record.
type waiting struct {
	campaign, application string
	proofs                map[network.EUI64]bool // devices that hold the block, and that a tag would prove
	battery               map[network.EUI64]int  // of devices that must have a least level: the one that is known; -1: none
}

// waits says what a campaign waits for.
func waits(c *campaign.Campaign) waiting {
	w := waiting{c.ID(), c.Application(), map[network.EUI64]bool{}, map[network.EUI64]int{}}
	if c.Ended() {
		return w
	}
	i := 0
	for _, wave := range c.Spec().Waves {
		for _, spec := range wave.Sessions {
			s := c.Session(i)
			tagged := spec.Raw != nil && spec.Raw.Proof == session.ProofTag
			if s.Started() && (tagged || spec.MinBattery > 0) {
				for j := range spec.Devices {
					w.add(c, i, j, tagged, spec.MinBattery > 0)
				}
			}
			i++
		}
	}
	return w
}

// add takes one device of a session.
func (w *waiting) add(c *campaign.Campaign, i, j int, tagged, least bool) {
	d := c.Session(i).Device(j)
	if si, sj, ok := c.Find(d.EUI); !ok || si != i || sj != j {
		return // it is in another session by now
	}
	if tagged && (d.Stage >= session.StageComplete && d.Stage < session.StageUpdated || d.Stage == session.StageUnproven) {
		w.proofs[d.EUI] = true
	}
	if least && d.Stage < session.StageUpdated {
		w.battery[d.EUI] = d.Battery
	}
}

// answers turns the network server's record into what the campaign waits for. The server does not say when it has
// learned a battery level. Where uplinks tell the level too (ruled), the server's is believed only if nothing else is
// known, or if it has changed since the record before, of which last holds the levels.
func (w waiting) answers(devices []network.Device, tag proofTag, ruled bool, last map[network.EUI64]int) []campaign.Event {
	var out []campaign.Event
	for _, d := range devices {
		if known, ok := w.battery[d.EUI]; ok && d.Battery >= 0 && d.Battery != known {
			before, read := last[d.EUI]
			if !ruled || known < 0 || read && before != d.Battery {
				out = append(out, campaign.Battery{Device: d.EUI, Percent: d.Battery})
			}
		}
		if w.proofs[d.EUI] && tag.on(d.Tags) {
			out = append(out, campaign.Proven{Device: d.EUI})
		}
	}
	return out
}

// poller reads the network server's record for the campaigns that wait for something in it.
type poller struct {
	engine  *shell.Engine
	devices func(ctx context.Context, application string) ([]network.Device, error)
	file    func(ctx context.Context, campaign string) (file shell.CampaignFile, by string, err error)
	ruled   bool             // uplinks tell battery levels
	tick    <-chan time.Time // when to read; nil: at each pollInterval
	log     *slog.Logger

	last map[network.EUI64]int // battery levels of the record before
}

// run polls until ctx ends. The engine goes on meanwhile: it is only asked what it waits for, and told the answers.
func (p *poller) run(ctx context.Context) error {
	tick := p.tick
	if tick == nil {
		t := time.NewTicker(pollInterval)
		defer t.Stop()
		tick = t.C
	}
	p.last = map[network.EUI64]int{}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick:
		}
		if err := p.poll(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("the network server's record could not be read; next try later", "error", err.Error())
		}
	}
}

func (p *poller) poll(ctx context.Context) error {
	var all []waiting
	err := p.engine.View(ctx, func(campaigns []*campaign.Campaign) {
		for _, c := range campaigns {
			if w := waits(c); len(w.proofs)+len(w.battery) > 0 {
				all = append(all, w)
			}
		}
	})
	if err != nil {
		return err
	}
	records, levels := map[string][]network.Device{}, map[network.EUI64]int{}
	for _, w := range all {
		devices, ok := records[w.application]
		if !ok {
			if devices, err = p.devices(ctx, w.application); err != nil {
				return err
			}
			records[w.application] = devices
		}
		var tag proofTag
		if len(w.proofs) > 0 {
			file, _, err := p.file(ctx, w.campaign)
			if err != nil {
				return err
			}
			if tag, err = readProofTag(file.TOML); err != nil {
				return fmt.Errorf("campaign %s: %w", w.campaign, err)
			}
		}
		if err := p.engine.Tell(ctx, w.campaign, w.answers(devices, tag, p.ruled, p.last), "tag "+tag.name); err != nil {
			return fmt.Errorf("campaign %s: %w", w.campaign, err)
		}
		for _, d := range devices {
			if _, ok := w.battery[d.EUI]; ok && d.Battery >= 0 {
				levels[d.EUI] = d.Battery
			}
		}
	}
	p.last = levels
	return nil
}
