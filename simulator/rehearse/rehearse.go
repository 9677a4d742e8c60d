// Package rehearse runs firmware campaigns of the real engine against a simulated network: real gRPC and MQTT,
// real LoRaWAN frames, the real device library, and on emulated devices the real firmware, in virtual time. The
// engine cannot tell the difference. Same configuration, same seed, same run.
package rehearse

import (
	"context"
	"crypto/ecdsa"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
)

// Config describes a rehearsal.
type Config struct {
	Seed     uint64
	Start    time.Time // virtual time at which it begins
	Loss     float64   // share of frames lost, up and down, 0..1
	Air      Air
	BootStub string  // ELF file of the boot stub, for emulated devices
	Groups   []Group // one campaign each, at the same time

	GRPCAddress string // of the network server; "" means a free loopback port
	MQTTAddress string
	Limit       time.Duration // virtual time after which the rehearsal is given up; 0 means 24 h
	StallAfter  time.Duration // wall-clock time without progress after which it is given up; 0 means 60 s

	// Called one at a time; each may be nil.
	Planned  func(group, plan string) // the plan of a campaign, before its first frame
	Console  func(ConsoleLine)        // what devices print
	Progress func(Progress)
	Log      func(run.Entry) // everything the engine hears and does
}

// Group is one campaign: devices that run one image and get one bundle.
type Group struct {
	Name            string
	Update          Update
	Trust           *ecdsa.PublicKey // in the trust slot of the devices
	Hosts, Emulated int              // devices of each kind
	FlipSlotB       *Flip            // inverted in slot B of every device once its new image is ready there
}

// Flip is a bit of a slot.
type Flip struct {
	Offset uint32 // bytes from the start of the slot
	Bit    uint   // 0..7
}

// ConsoleLine is a line that a device printed.
type ConsoleLine struct {
	Group, Name string
	Kind        Kind
	At          time.Time
	Text        string
}

// Progress is where a campaign stands.
type Progress struct {
	Group string
	At    time.Time // virtual
	session.Progress
}

// String renders the progress in one line.
func (p Progress) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s: %s", p.At.UTC().Format(time.TimeOnly), p.Group, p.Phase)
	if p.DataSent > 0 {
		fmt.Fprintf(&b, ", %d of %d data and %d parity fragments sent", p.DataSent, p.M, p.ParitySent)
	}
	for _, s := range session.Stages() {
		if n := p.Stages[s]; n > 0 {
			fmt.Fprintf(&b, ", %d %s", n, s)
		}
	}
	return b.String()
}

const (
	stepReady = uint8(diag.StepReady)

	defaultLimit   = 24 * time.Hour
	uplinkInterval = 90 * time.Second // the devices send a heartbeat about once a minute
)

// token is the API token of the simulated server: it guards nothing but a loopback port for the time of a run.
func (c Config) token() string { return networkserver.UUID(c.Seed, "token") }

// Run runs the rehearsal to its end: all campaigns have ended, or the limit is reached. Devices that were not
// updated are part of the report, not an error.
func Run(ctx context.Context, cfg Config) (report Report, err error) {
	if cfg.Limit == 0 {
		cfg.Limit = defaultLimit
	}
	s, err := build(cfg)
	defer func() {
		if e := s.close(); err == nil {
			err = e
		}
	}()
	if err != nil {
		return Report{}, err
	}
	var campaigns []*campaign.Campaign
	var plans []plan.Plan
	_, err = drive(ctx, s.world, cfg.Start.Add(cfg.Limit), func(ctx context.Context, clock network.Clock) error {
		var err error
		campaigns, plans, err = s.campaigns(ctx, clock)
		return err
	})
	switch {
	case s.broken != nil:
		return Report{}, s.broken
	case err != nil:
		return Report{}, err
	case len(campaigns) < len(cfg.Groups):
		return Report{}, fmt.Errorf("rehearse: the limit of %s was reached before anything was sent", cfg.Limit)
	}
	return s.report(campaigns, plans)
}

// campaigns plans one campaign per group and runs them.
func (s *site) campaigns(ctx context.Context, clock network.Clock) ([]*campaign.Campaign, []plan.Plan, error) {
	nw, err := chirpstack.Dial(chirpstack.Config{
		Server: s.server.GRPCAddress(), Token: s.cfg.token(), Region: airtime.EU868, MQTT: "mqtt://" + s.server.MQTTAddress(),
	})
	if err != nil {
		return nil, nil, err
	}
	defer nw.Close()
	engine := run.New(run.Config{
		Network: nw, Clock: clock, Log: s.cfg.Log,
		Progress: func(c *campaign.Campaign) {
			if s.cfg.Progress != nil {
				p := c.Session(0).Progress()
				s.cfg.Progress(Progress{Group: c.ID(), At: clock.Now(), Progress: p})
			}
		},
	})
	var campaigns []*campaign.Campaign
	var plans []plan.Plan
	for i, g := range s.cfg.Groups {
		c, p, err := s.campaign(ctx, nw, i, g)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", g.Name, err)
		}
		if err := engine.Add(c); err != nil {
			return nil, nil, err
		}
		if s.cfg.Planned != nil {
			s.cfg.Planned(g.Name, p.String())
		}
		campaigns, plans = append(campaigns, c), append(plans, p)
	}
	return campaigns, plans, engine.Run(ctx)
}

// campaign plans the campaign of one group for the devices and gateways the network server lists.
func (s *site) campaign(ctx context.Context, nw network.Network, index int, g Group) (*campaign.Campaign, plan.Plan, error) {
	devices, err := nw.Devices(ctx, s.apps[index])
	if err != nil {
		return nil, plan.Plan{}, err
	}
	gateways, err := nw.Gateways(ctx, s.apps[index])
	if err != nil {
		return nil, plan.Plan{}, err
	}
	caps, err := nw.Capabilities(ctx)
	if err != nil {
		return nil, plan.Plan{}, err
	}
	p, err := plan.Make(plan.Input{
		Block: g.Update.Block, Region: airtime.EU868, DataRate: plan.Automatic, Devices: len(devices), Gateways: len(gateways),
		Matrix: fragmentation.V2, Loss: []float64{s.cfg.Loss}, Capabilities: caps,
		FullSize: len(g.Update.New), CompressedSize: g.Update.Compressed,
	})
	if err != nil {
		return nil, plan.Plan{}, err
	}
	h := radio.Hash(s.cfg.Seed, uint64(index), 4)
	spec := session.Spec{
		ID: g.Name, Application: s.apps[index], Block: g.Update.Block, Target: uint32(g.Update.To), Plan: p,
		McAddr: 0x01000000 | uint32(h)&0x00ffffff, Capabilities: caps,
		Timing: session.Timing{UplinkInterval: uplinkInterval},
	}
	binary.BigEndian.PutUint64(spec.McKey[:8], radio.Hash(h, 1))
	binary.BigEndian.PutUint64(spec.McKey[8:], radio.Hash(h, 2))
	for _, gw := range gateways {
		spec.Gateways = append(spec.Gateways, gw.ID)
	}
	for _, d := range devices {
		spec.Devices = append(spec.Devices, session.Target{EUI: d.EUI, LoRaWAN11: d.LoRaWAN11})
	}
	c, err := campaign.Single(spec)
	return c, p, err
}

// report gathers what the campaigns say and what the devices hold.
func (s *site) report(campaigns []*campaign.Campaign, plans []plan.Plan) (Report, error) {
	r := Report{Elapsed: s.world.Now().Sub(s.cfg.Start)}
	rows := map[network.EUI64]Outcome{}
	for i, c := range campaigns {
		g := s.cfg.Groups[i]
		p := c.Session(0).Progress()
		gr := GroupReport{
			Name: g.Name, Plan: plans[i], From: g.Update.From, To: g.Update.To,
			ImageBytes: len(g.Update.New), CompressedBytes: g.Update.Compressed,
			PatchBytes: g.Update.PatchBytes, BundleBytes: len(g.Update.Block),
			DataFragments: p.DataSent, FragmentsSent: p.DataSent + p.ParitySent, Airtime: p.Airtime,
		}
		if b := plans[i].Full; b != nil {
			gr.FullAirtime = b.Airtime
		}
		if b := plans[i].Compressed; b != nil {
			gr.CompressedAirtime = b.Airtime
		}
		r.Groups = append(r.Groups, gr)
		for _, row := range c.Rows() {
			rows[row.EUI] = Outcome{Updated: row.Stage == session.StageUpdated, Stage: row.Stage.String(), Step: row.Step, Cause: row.Cause}
		}
	}
	var err error
	r.Outcomes, err = s.outcomes(func(eui network.EUI64) Outcome { return rows[eui] })
	return r, err
}
