package rehearse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/model"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// CampaignConfig describes the rehearsal of a campaign as it would really run: the campaign's own specification, for
// devices that are modelled after what is known of the real ones.
//
// The regions are those of the sessions; each has a radio of its own, with its gateways and devices, before the same network
// server. Every device has a home gateway, drawn from those of its session, and hears no other. Root keys are made up: a
// rehearsal needs no secret of the fleet. Devices are of LoRaWAN 1.0.x, whatever the real ones are. A device with the
// device library also stands in for any other with TS006, to which a raw block may be sent.
type CampaignConfig struct {
	Seed    uint64
	Start   time.Time
	Spec    campaign.Spec
	Members []Member
	// UplinkInterval is the time between two uplinks of a device.
	UplinkInterval time.Duration
	Air            Air
	Patch          time.Duration // from a complete block to the image; 0: 2 min
	Limit          time.Duration // virtual time after which the rehearsal is given up; 0: 60 days
	StallAfter     time.Duration // wall-clock time without progress after which it is given up; 0: 60 s

	Progress func(at time.Time, c *campaign.Campaign) // called one at a time; may be nil
	Log      func(run.Entry)                          // everything the engine hears and does; may be nil
}

// Member is a device of a campaign, as far as it is known.
type Member struct {
	EUI      network.EUI64
	Running  uint32           // version; 0: any
	Packages applayer.Version // of TS003, TS004 and TS005; 0: those of its session
	LossUp   float64          // share of frames lost, 0..1
	LossDown float64
	Battery  uint8 // percent; 0: full
	Fault    model.Fault
	Stock    Stock // of a device without the library; it knows neither Battery nor Fault
}

// CampaignReport is the result of the rehearsal of a campaign.
type CampaignReport struct {
	Progress campaign.Progress `json:"progress"`
	Devices  []DeviceReport    `json:"devices"`
	Started  time.Time         `json:"started"`
	Ended    time.Time         `json:"ended"`
	Ran      bool              `json:"ran_to_its_end"` // within the limit
	Airtime  time.Duration     `json:"airtime_ns"`     // of all gateways
	Uplinks  int               `json:"uplinks"`
}

// DeviceReport is what became of one device: what the campaign believes, and what the simulated device runs.
type DeviceReport struct {
	campaign.Row
	Runs           uint32 `json:"runs"`
	Holds          bool   `json:"holds_block,omitempty"` // a device without the library: it has had the whole block
	Multicasts     int    `json:"multicasts"`            // frames received
	MulticastsLost int    `json:"multicasts_lost"`       // on the air, or because the radio was busy
	Uplinks        int    `json:"uplinks"`
}

const (
	defaultPatch = 2 * time.Minute
	longLimit    = 60 * 24 * time.Hour
)

// RunCampaign rehearses a campaign. Devices that are not updated are part of the report, not an error; so is a
// campaign that halts.
func RunCampaign(ctx context.Context, cfg CampaignConfig) (CampaignReport, error) {
	if cfg.Limit == 0 {
		cfg.Limit = longLimit
	}
	if cfg.Patch == 0 {
		cfg.Patch = defaultPatch
	}
	s, err := newStage(cfg)
	defer s.close()
	if err != nil {
		return CampaignReport{}, err
	}
	ended, err := drive(ctx, s.world, cfg.Start.Add(cfg.Limit), s.run)
	switch {
	case s.broken != nil:
		return CampaignReport{}, s.broken
	case err != nil:
		return CampaignReport{}, err
	}
	return s.result(ended), nil
}

// stage is the simulated world of a campaign.
type stage struct {
	cfg      CampaignConfig
	world    *world.World
	air      homes
	process  radio.Process
	places   []place // in order of the sessions
	server   *networkserver.Server
	campaign *campaign.Campaign
	models   map[network.EUI64]software
	broken   error
}

// place is a region with its radio and its devices.
type place struct {
	region  airtime.Region
	medium  *radio.Medium
	fleet   *fleet.Fleet
	profile string // id of the device profile
}

// newStage makes the world of a campaign. The caller closes it, after an error too.
func newStage(cfg CampaignConfig) (*stage, error) {
	s := &stage{cfg: cfg, world: world.New(cfg.Start), air: homes{}, models: map[network.EUI64]software{}}
	s.world.StallAfter = cfg.StallAfter
	var err error
	if err = cfg.Air.Validate(); err != nil {
		return s, fmt.Errorf("rehearse: %w", err)
	}
	if s.campaign, err = campaign.New(cfg.Spec); err != nil {
		return s, err
	}
	if s.process, err = cfg.Air.around(s.air, cfg.Seed, cfg.Start); err != nil {
		return s, err
	}
	server := networkserver.Config{
		World: s.world, Seed: cfg.Seed, Token: networkserver.UUID(cfg.Seed, "token"),
		Tenant:       networkserver.Tenant{ID: networkserver.UUID(cfg.Seed, "tenant"), Name: "rehearsal"},
		Applications: []networkserver.Application{{ID: cfg.Spec.Application, Name: "rehearsal"}},
	}
	members := map[network.EUI64]Member{}
	for _, m := range cfg.Members {
		members[m.EUI] = m
	}
	gateways := map[network.EUI64]airtime.Region{}
	for i := range s.campaign.Sessions() {
		spec := s.spec(i)
		p, err := s.place(spec, &server)
		if err != nil {
			return s, err
		}
		for _, gw := range spec.Gateways {
			switch region, known := gateways[gw]; {
			case !known:
				gateways[gw] = p.region
				server.Gateways = append(server.Gateways, networkserver.Gateway{ID: lorawan.EUI64(gw), Name: gw.String(), Region: p.region})
			case region != p.region:
				return s, fmt.Errorf("rehearse: gateway %s sends in %s and in %s", gw, region, p.region)
			}
		}
		for _, t := range spec.Devices {
			m, known := members[t.EUI]
			if !known {
				return s, fmt.Errorf("rehearse: nothing is known of device %s of session %s", t.EUI, spec.ID)
			}
			if err := s.add(spec, m, p, &server); err != nil {
				return s, err
			}
		}
	}
	s.server, err = networkserver.New(server)
	return s, err
}

// place returns the region of a session, and makes it if it is the first there.
func (s *stage) place(spec session.Spec, server *networkserver.Config) (place, error) {
	region, err := airtime.ParseRegion(spec.Plan.Region)
	if err != nil {
		return place{}, fmt.Errorf("rehearse: session %s: %w", spec.ID, err)
	}
	if i := slices.IndexFunc(s.places, func(p place) bool { return p.region == region }); i >= 0 {
		return s.places[i], nil
	}
	plan, err := radio.NewPlan(region)
	if err != nil {
		return place{}, err
	}
	p := place{region: region, medium: radio.NewMedium(s.world, plan, s.process), profile: networkserver.UUID(s.cfg.Seed, "profile "+region.String())}
	if err := s.cfg.Air.interfere(p.medium); err != nil {
		return place{}, err
	}
	if p.fleet, err = fleet.New(fleet.Config{World: s.world, Medium: p.medium, Seed: s.cfg.Seed, Failed: s.failed}); err != nil {
		return place{}, err
	}
	s.places = append(s.places, p)
	if server.Medium == nil {
		server.Medium = p.medium
	} else {
		server.Media = append(server.Media, p.medium)
	}
	server.Profiles = append(server.Profiles, networkserver.DeviceProfile{ID: p.profile, Name: "modelled in " + region.String(), Region: region})
	return p, nil
}

// spec returns the specification of a session.
func (s *stage) spec(i int) session.Spec {
	for _, w := range s.cfg.Spec.Waves {
		if i < len(w.Sessions) {
			return w.Sessions[i]
		}
		i -= len(w.Sessions)
	}
	return session.Spec{}
}

// add puts a device into the world, and provisions it on the server.
func (s *stage) add(spec session.Spec, m Member, p place, server *networkserver.Config) error {
	eui := lorawan.EUI64(m.EUI)
	id := binary.BigEndian.Uint64(m.EUI[:])
	h := radio.Hash(s.cfg.Seed, id, 3)
	if m.Packages == 0 {
		m.Packages = spec.Plan.Version()
	}
	if m.Running == 0 && spec.Target > 0 {
		m.Running = spec.Target - 1
	}
	link, err := s.cfg.Air.link(s.cfg.Seed, m.LossUp, m.LossDown, s.cfg.Start)
	if err != nil {
		return fmt.Errorf("rehearse: device %s: %w", m.EUI, err)
	}
	s.air[eui] = home{lorawan.EUI64(spec.Gateways[h%uint64(len(spec.Gateways))]), link}
	keys := networkserver.Keys{AppKey: rootKey(s.cfg.Seed, id, 1), GenAppKey: rootKey(s.cfg.Seed, id, 2)}
	var d software
	if m.Stock.Stack != 0 {
		d, err = s.newStock(spec, p.region, m, keys.GenAppKey)
	} else if r := spec.Raw; r != nil && r.Proof != session.ProofVersion {
		err = errors.New("a raw block needs a stack to take it")
	} else {
		d, err = model.New(model.Config{
			RootKey: keys.GenAppKey, Packages: m.Packages, Seed: s.cfg.Seed, Running: m.Running, Next: spec.Target,
			Patch: s.cfg.Patch, Fault: m.Fault, Heartbeat: s.cfg.UplinkInterval, Battery: m.Battery,
		})
	}
	if err != nil {
		return fmt.Errorf("rehearse: device %s: %w", m.EUI, err)
	}
	s.models[m.EUI] = d
	_, err = p.fleet.Add(fleet.DeviceConfig{
		EUI: eui, AppKey: keys.AppKey, DataRate: uplinkRate(p.medium.Plan()), App: d, Battery: m.Battery,
		PowerUp:     time.Duration(h >> 8 % uint64(s.cfg.UplinkInterval)),
		ClockOffset: time.Duration(h>>32%7200)*time.Second - time.Hour, // wrong by up to an hour
	})
	if err != nil {
		return fmt.Errorf("rehearse: device %s: %w", m.EUI, err)
	}
	server.Devices = append(server.Devices, networkserver.Device{EUI: eui, Name: m.EUI.String(), Application: s.cfg.Spec.Application,
		Profile: p.profile, Keys: &keys})
	return nil
}

// uplinkRate is the highest data rate at which a device may send everything the packages say.
func uplinkRate(p *radio.Plan) int {
	best := 0
	for dr := range 8 {
		if _, err := p.Uplink(dr, 0); err == nil {
			best = dr
		}
	}
	return min(best, dataRate)
}

func rootKey(seed, id, purpose uint64) (k lorawan.AES128Key) {
	binary.BigEndian.PutUint64(k[:8], radio.Hash(seed, id, purpose, 1))
	binary.BigEndian.PutUint64(k[8:], radio.Hash(seed, id, purpose, 2))
	return k
}

// home is the gateway that a device hears, and how well.
type home struct {
	gateway lorawan.EUI64
	link    radio.Process
}

// homes is a loss process: every device hears its home gateway only.
type homes map[lorawan.EUI64]home

// Carry implements [radio.Process].
func (hs homes) Carry(k radio.Key, at time.Time) (radio.Signal, bool) {
	h, ok := hs[k.Device]
	if !ok || k.Gateway != h.gateway {
		return radio.Signal{}, false
	}
	return h.link.Carry(k, at)
}

// run runs the campaign by the real engine, over the real integration.
func (s *stage) run(ctx context.Context, clock network.Clock) error {
	nw, err := chirpstack.Dial(chirpstack.Config{
		Server: s.server.GRPCAddress(), Token: networkserver.UUID(s.cfg.Seed, "token"),
		MQTT: "mqtt://" + s.server.MQTTAddress(),
	})
	if err != nil {
		return err
	}
	defer nw.Close()
	engine := run.New(run.Config{Network: nw, Clock: clock, Log: s.cfg.Log, Progress: func(c *campaign.Campaign) {
		if s.cfg.Progress != nil {
			s.cfg.Progress(clock.Now(), c)
		}
	}})
	if err := engine.Add(s.campaign); err != nil {
		return err
	}
	return engine.Run(ctx)
}

func (s *stage) failed(eui lorawan.EUI64, at time.Time, err error) {
	s.broken = fmt.Errorf("rehearse: device %s at %s: %w", eui, at.UTC().Format(time.RFC3339), err)
	s.world.Stop()
}

// result gathers what the campaign believes and what the devices run.
func (s *stage) result(ran bool) CampaignReport {
	r := CampaignReport{Progress: s.campaign.Progress(), Started: s.cfg.Start, Ended: s.world.Now(), Ran: ran}
	for i := range s.campaign.Sessions() {
		spec, p := s.spec(i), s.campaign.Session(i).Progress()
		r.Airtime += p.Airtime * time.Duration(len(spec.Gateways))
	}
	for _, row := range s.campaign.Rows() {
		d := DeviceReport{Row: row, Runs: s.models[row.EUI].Running()}
		if st, ok := s.models[row.EUI].(stock); ok {
			d.Holds = st.holds()
		}
		for _, p := range s.places {
			dev := p.fleet.Device(lorawan.EUI64(row.EUI))
			if dev == nil {
				continue
			}
			st := dev.Stats()
			d.Multicasts, d.MulticastsLost, d.Uplinks = st.Multicasts, st.MulticastsLost+st.MulticastsDeaf, st.Uplinks
			r.Uplinks += st.Uplinks
		}
		r.Devices = append(r.Devices, d)
	}
	return r
}

func (s *stage) close() {
	if s.server != nil {
		s.server.Close()
	}
	for _, p := range s.places {
		p.fleet.Close()
	}
}
