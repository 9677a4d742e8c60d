package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
	engine "github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/foreign"
	"github.com/sower-fuota/sower/simulator/fleet/model"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// mixture is a fleet of everything that may stand in the field at once: two regions, both versions of the packages,
// three base versions, and stock stacks beside the device library. Every device hears one gateway and loses a tenth
// of its frames, up and down.
type mixture struct {
	installation
	air    map[lorawan.EUI64]lorawan.EUI64 // home gateway of each device
	link   radio.Independent
	target bundle.Version
	bases  []bundle.Version
	block  []byte // for the stock stacks

	library map[network.EUI64]*libraryDevice
	stock   map[network.EUI64]*stockDevice
	log     []engine.Entry
}

type libraryDevice struct {
	*model.Device
	region   string
	base     bundle.Version
	packages applayer.Version
}

type stockDevice struct {
	*foreign.Device
	stack foreign.Stack
}

var (
	roofEU   = lorawan.EUI64{0, 0x16, 0xc0, 8, 6, 8, 0, 1} // for the device library
	cellarEU = lorawan.EUI64{0, 0x16, 0xc0, 8, 6, 8, 0, 2} // for the stock stacks
	mastUS   = lorawan.EUI64{0, 0x16, 0xc0, 9, 1, 5, 0, 1}
)

// Carry implements [radio.Process].
func (m *mixture) Carry(k radio.Key, at time.Time) (radio.Signal, bool) {
	if m.air[k.Device] != k.Gateway {
		return radio.Signal{}, false
	}
	return m.link.Carry(k, at)
}

// settings returns the text of sower.toml.
func (m *mixture) settings(t *testing.T) string {
	t.Helper()
	text, err := readInput("settings", m.file("sower.toml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// newMixture starts the world ten minutes ago, so that every device has joined and was heard.
func newMixture(t *testing.T, change func(*networkserver.Config)) *mixture {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	const seed, heartbeat = 3, time.Minute
	m := &mixture{air: map[lorawan.EUI64]lorawan.EUI64{}, library: map[network.EUI64]*libraryDevice{}, stock: map[network.EUI64]*stockDevice{},
		target: bundle.MakeVersion(2, 0, 0), bases: []bundle.Version{bundle.MakeVersion(1, 0, 0), bundle.MakeVersion(1, 1, 0), bundle.MakeVersion(1, 2, 0)}}
	m.world, m.dir = world.New(now.Add(-10*time.Minute)), t.TempDir()
	var err error
	m.link, err = radio.NewIndependent(seed, 0.1, 0.1)
	check(err)
	cfg := networkserver.Config{World: m.world, Seed: seed, Token: "admin-token",
		Tenant:       networkserver.Tenant{ID: networkserver.UUID(seed, "tenant"), Name: "tenant"},
		Applications: []networkserver.Application{{ID: meters, Name: "Meters of two continents"}},
		Gateways:     []networkserver.Gateway{{ID: roofEU, Name: "roof"}, {ID: cellarEU, Name: "cellar"}, {ID: mastUS, Name: "mast", Region: airtime.US915}}}
	number := 0
	inventory := "dev_eui,packages\n"
	add := func(f *fleet.Fleet, profile, kind string, home lorawan.EUI64, rate int, packages applayer.Version, base bundle.Version, app func(root lorawan.AES128Key) (fleet.App, error)) network.EUI64 {
		number++
		eui := lorawan.EUI64{0x70, 0xb3, 0xd5, 7: byte(number)}
		keys := networkserver.Keys{AppKey: lorawan.AES128Key{1, byte(number)}, GenAppKey: lorawan.AES128Key{2, byte(number)}}
		a, err := app(keys.GenAppKey)
		check(err)
		_, err = f.Add(fleet.DeviceConfig{EUI: eui, AppKey: keys.AppKey, DataRate: rate, App: a, PowerUp: time.Duration(number) * 7 * time.Second})
		check(err)
		m.air[eui] = home
		tags := map[string]string{"kind": kind}
		if base != 0 {
			tags["firmware_version"], tags["hardware_id"] = base.String(), "1"
		}
		cfg.Devices = append(cfg.Devices, networkserver.Device{EUI: eui, Name: fmt.Sprintf("%s %d", kind, number), Application: meters, Profile: profile, Tags: tags, Keys: &keys})
		inventory += fmt.Sprintf("%s,%s\n", eui, packages)
		return network.EUI64(eui)
	}
	for _, place := range []struct {
		region airtime.Region
		home   lorawan.EUI64
		rate   int // of uplinks
	}{{airtime.EU868, roofEU, 5}, {airtime.US915, mastUS, 4}} {
		plan, err := radio.NewPlan(place.region)
		check(err)
		medium := radio.NewMedium(m.world, plan, m)
		if cfg.Medium == nil {
			cfg.Medium = medium
		} else {
			cfg.Media = append(cfg.Media, medium)
		}
		f, err := fleet.New(fleet.Config{World: m.world, Medium: medium, Seed: seed,
			Failed: func(e lorawan.EUI64, _ time.Time, err error) { t.Errorf("device %s: %v", e, err) }})
		check(err)
		t.Cleanup(func() { f.Close() })
		profile := networkserver.UUID(seed, place.region.String())
		cfg.Profiles = append(cfg.Profiles, networkserver.DeviceProfile{ID: profile, Name: "meter " + place.region.String(), Region: place.region})
		for _, packages := range []applayer.Version{applayer.V1, applayer.V2} {
			for _, base := range m.bases {
				for range 2 {
					d := &libraryDevice{region: place.region.String(), base: base, packages: packages}
					eui := add(f, profile, "library", place.home, place.rate, packages, base, func(root lorawan.AES128Key) (fleet.App, error) {
						d.Device, err = model.New(model.Config{RootKey: root, Packages: packages, Seed: seed, Running: uint32(base), Next: uint32(m.target),
							Patch: time.Minute, Heartbeat: heartbeat})
						return d.Device, err
					})
					m.library[eui] = d
				}
			}
		}
		if place.region != airtime.EU868 {
			continue // the stock stacks are modelled for EU868
		}
		for _, s := range []struct {
			stack    foreign.Stack
			packages applayer.Version
		}{{foreign.LoRaMacNode, applayer.V1}, {foreign.LoRaMacNode, applayer.V1}, {foreign.LoRaMacNode, applayer.V1},
			{foreign.BasicsModem, applayer.V1}, {foreign.BasicsModem, applayer.V2}, {foreign.BasicsModem, applayer.V2}} {
			d := &stockDevice{stack: s.stack}
			eui := add(f, profile, "stock", cellarEU, place.rate, s.packages, 0, func(root lorawan.AES128Key) (fleet.App, error) {
				d.Device, err = foreign.New(foreign.Config{Stack: s.stack, GenAppKey: root, Version: s.packages, Seed: seed, Heartbeat: uint32(heartbeat / time.Second)})
				return d.Device, err
			})
			m.stock[eui] = d
		}
	}
	if change != nil {
		change(&cfg)
	}
	m.server, err = networkserver.New(cfg)
	check(err)
	t.Cleanup(func() { m.server.Close() })
	m.files(t, inventory)
	check(m.world.Run(t.Context(), now))
	return m
}

// files writes settings, inventory, images, patches, the raw block, and a campaign file for each of the two fleets.
func (m *mixture) files(t *testing.T, inventory string) {
	t.Helper()
	m.write(t, "sower.token", "admin-token\n")
	m.write(t, "inventory.csv", inventory)
	m.write(t, "sower.toml", fmt.Sprintf("[chirpstack]\nserver = %q\nmqtt = %q\ngateway_topics = \"eu868, us915\"\ntoken_file = \"sower.token\"\n[inventory]\ncsv = \"inventory.csv\"\n",
		m.server.GRPCAddress(), "mqtt://"+m.server.MQTTAddress()))
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Repeat([]byte("firmware of a small device "), 300)
	wrap := func(v bundle.Version) []byte {
		for i := range 1000 { // of which each version has others
			body[2000+i] = byte(radio.Hash(uint64(v), uint64(i)))
		}
		img, err := mcuboot.Wrap(body, mcuboot.Options{Major: uint8(v >> 24), Minor: uint8(v >> 16), Revision: uint16(v)})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	var images [][]byte
	for _, v := range m.bases {
		images = append(images, wrap(v))
	}
	newest := wrap(m.target)
	text := fmt.Sprintf("name = \"mixed\"\napplication = %q\n", meters)
	for i, v := range m.bases {
		patch, err := bundle.Patch(bundle.Target{Class: 1, Hardware: 1, KeyID: 1, Sequence: 1}, newPatch(t, images[i], newest), newest, key)
		if err != nil {
			t.Fatal(err)
		}
		m.write(t, v.String()+".bin", string(images[i]))
		m.write(t, v.String()+".sow", string(patch))
		text += fmt.Sprintf("[[bundle]]\nfile = \"%s.sow\"\nbase_image = \"%s.bin\"\n", v, v)
	}
	m.write(t, "mixed.toml", text+fmt.Sprintf("[devices]\ntags = { kind = \"library\" }\n[radio]\ngateways = [%q, %q]\n[timing]\nuplink_interval = \"2m\"\n", roofEU, mastUS))
	for i := range 800 {
		m.block = append(m.block, byte(radio.Hash(uint64(i))))
	}
	m.write(t, "file.bin", string(m.block))
	m.write(t, "stock.toml", fmt.Sprintf("name = \"stock\"\napplication = %q\n[[bundle]]\nraw = \"file.bin\"\n[devices]\ntags = { kind = \"stock\" }\n[radio]\ngateways = [%q]\n"+
		"[raw]\nmax_fragments = 21\nmax_fragment_bytes = 50\nmax_redundancy = 5\n[timing]\nuplink_interval = \"2m\"\n", meters, cellarEU))
}

// plan plans both campaigns together, as sower plan does.
func (m *mixture) plan(t *testing.T, s *site) []*prepare.Campaign {
	t.Helper()
	var files []prepare.File
	for _, name := range []string{"mixed.toml", "stock.toml"} {
		text, err := readInput("campaign", m.file(name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, prepare.File{Name: m.file(name), Text: text, Read: beside(m.file(name))})
	}
	list, err := s.planner(io.Discard).Plan(t.Context(), files, m.world.Now())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// run runs campaigns in one engine until all have ended.
func (m *mixture) run(t *testing.T, s *site, specs []campaign.Spec) (out []*campaign.Campaign) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	clock := m.world.NewClock("engine")
	e := engine.New(engine.Config{Network: s.nw, Clock: clock, Log: func(en engine.Entry) { m.log = append(m.log, en) }})
	for _, spec := range specs {
		c, err := campaign.New(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Add(c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	done := make(chan error, 1)
	go func() {
		defer m.world.Stop()
		defer clock.Close()
		done <- e.Run(ctx)
	}()
	worldErr := m.world.Run(ctx, m.world.Now().Add(48*time.Hour))
	cancel()
	if err := <-done; err != nil {
		t.Fatalf("engine: %v", err)
	}
	if !errors.Is(worldErr, world.ErrStopped) && worldErr != nil {
		t.Fatal(worldErr)
	}
	return out
}

// TestMixedFleet plans and runs two campaigns at once, through ChirpStack's API and in one engine: patches from three
// base versions for devices of the library with packages of version 1 and 2 in EU868 and US915, and a raw block for
// LoRaMac-node and LoRa Basics Modem (SWL2001). Every device must end in the state that is true of it.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	m := newMixture(t, nil)
	flags := siteFlags{file: m.file("sower.toml")}
	s, err := flags.openDaemon(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.nw.Close()
	var specs []campaign.Spec
	var serial uint64
	for _, c := range m.plan(t, s) {
		spec, err := c.Spec(t.Context(), func() (uint32, network.Key, error) {
			serial++
			var key network.Key
			binary.BigEndian.PutUint64(key[:], radio.Hash(serial))
			return 0x01000000 | uint32(serial), key, nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		m.judgePlan(t, c)
		specs = append(specs, spec)
	}
	campaigns := m.run(t, s, specs)
	m.judgeLibrary(t, campaigns[0], specs[0])
	m.judgeStock(t, campaigns[1])
	m.judgeAir(t)
}

// judgePlan holds each session against its region.
func (m *mixture) judgePlan(t *testing.T, c *prepare.Campaign) {
	t.Helper()
	for _, x := range c.Schedule.Sessions {
		region, err := airtime.ParseRegion(x.Plan.Region)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := region.SubBand(x.Plan.Frequency); err != nil {
			t.Errorf("session of %s: %v", x.Bundle, err)
		}
		for _, eui := range x.Devices {
			if d := m.library[eui]; d != nil && (d.region != x.Plan.Region || d.packages != x.Plan.Version()) {
				t.Errorf("device %s of %s with %s is in a session of %s with %s", eui, d.region, d.packages, x.Plan.Region, x.Plan.Version())
			}
		}
		want := map[string]lorawan.EUI64{"EU868": roofEU, "US915": mastUS}[x.Plan.Region]
		if c.File.Name == "stock" {
			want = cellarEU
		}
		if len(x.Gateways) != 1 || lorawan.EUI64(x.Gateways[0]) != want {
			t.Errorf("session of %s in %s goes through %v, want %s", x.Bundle, x.Plan.Region, x.Gateways, want)
		}
	}
}

// judgeLibrary holds what the campaign believes against what the devices run and were sent.
func (m *mixture) judgeLibrary(t *testing.T, c *campaign.Campaign, spec campaign.Spec) {
	t.Helper()
	blocks := map[string]bundle.Manifest{}
	for _, w := range spec.Waves {
		for _, x := range w.Sessions {
			man, err := bundle.ParseManifest(x.Block)
			if err != nil {
				t.Fatal(err)
			}
			blocks[x.ID] = man
		}
	}
	patches := map[bundle.Version][8]byte{}
	for _, v := range m.bases {
		text, err := readInput("bundle", m.file(v.String()+".sow"))
		if err != nil {
			t.Fatal(err)
		}
		man, err := bundle.ParseManifest(text)
		if err != nil {
			t.Fatal(err)
		}
		patches[v] = man.BaseDigest
	}
	for _, r := range c.Rows() {
		d := m.library[r.EUI]
		if d == nil {
			t.Errorf("device %s is in campaign mixed", r.EUI)
			continue
		}
		if r.Stage != session.StageUpdated || r.Version != uint32(m.target) || d.Running() != uint32(m.target) {
			t.Errorf("device %s (%s, packages %s, from %s): %s %s, version %x believed, runs %x", r.EUI, d.region, d.packages, d.base, r.Stage, r.Cause, r.Version, d.Running())
		}
		if blocks[r.Session].BaseDigest != patches[d.base] {
			t.Errorf("device %s runs %s and was sent a patch against another image", r.EUI, d.base)
		}
	}
	if p := c.Progress(); p.Updated != len(m.library) || p.Devices != len(m.library) || p.Halted != "" || p.Phase != campaign.PhaseEnded || len(blocks) != 12 {
		t.Errorf("mixed: %s %s, %d of %d updated in %d sessions, want %d in 12", p.Phase, p.Halted, p.Updated, p.Devices, len(blocks), len(m.library))
	}
}

// judgeStock wants devices that hold the block and of which nobody knows what they do with it.
func (m *mixture) judgeStock(t *testing.T, c *campaign.Campaign) {
	t.Helper()
	for _, r := range c.Rows() {
		d := m.stock[r.EUI]
		if d == nil {
			t.Errorf("device %s is in campaign stock", r.EUI)
			continue
		}
		if r.Stage != session.StageUnproven || !bytes.Equal(d.Complete(), m.block) {
			t.Errorf("device %s (%s): %s %s, holds %d bytes, want unproven with all %d", r.EUI, d.stack, r.Stage, r.Cause, len(d.Complete()), len(m.block))
		}
	}
	if p := c.Progress(); p.Unproven != len(m.stock) || p.Updated != 0 || p.Devices != len(m.stock) || p.Halted != "" || p.Phase != campaign.PhaseEnded {
		t.Errorf("stock: %s %s, %d unproven and %d updated of %d", p.Phase, p.Halted, p.Unproven, p.Updated, p.Devices)
	}
}

// judgeAir wants both campaigns on the air at the same time, and none of their groups left.
func (m *mixture) judgeAir(t *testing.T) {
	t.Helper()
	var first, last [2]time.Time
	names := []string{"mixed", "stock"}
	for _, e := range m.log {
		if i := slices.Index(names, e.Campaign); i >= 0 && e.Kind == "broadcast" {
			if first[i].IsZero() {
				first[i] = e.Time
			}
			last[i] = e.Time
		}
	}
	if first[0].IsZero() || first[1].IsZero() || !first[0].Before(last[1]) || !first[1].Before(last[0]) {
		t.Errorf("fragments from %s to %s and from %s to %s: not at the same time", first[0], last[0], first[1], last[1])
	}
	for _, gw := range []lorawan.EUI64{roofEU, cellarEU, mastUS} {
		if air, frames := m.server.Airtime(gw); frames == 0 {
			t.Errorf("gateway %s has sent nothing", gw)
		} else {
			t.Logf("gateway %s: %d frames, %s on the air", gw, frames, air.Round(time.Millisecond))
		}
	}
}
