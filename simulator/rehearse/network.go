package rehearse

import (
	"crypto/ecdsa"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

const (
	dataRate = 5                // of uplinks
	stagger  = 40 * time.Second // over which the devices of a fleet are switched on
)

// node is one simulated device: its software, and what the network knows of it.
type node interface {
	fleet.App
	Boots() int
	Flip(addr uint32, bit uint) error
	SlotA(n int) ([]byte, error)
}

// member is a node with its place in the rehearsal.
type member struct {
	group  int
	name   string
	eui    lorawan.EUI64
	kind   Kind
	layout device.Layout
	node   node
	ready  bool // has reported an image in slot B
}

// site is the simulated world of a rehearsal: radio, devices, network server.
type site struct {
	cfg     Config
	world   *world.World
	server  *networkserver.Server
	fleet   *fleet.Fleet
	members []*member // in order of EUI
	apps    []string  // application id of each group
	broken  error     // a device that stopped for good
}

var gatewayID = lorawan.EUI64{0x00, 0x16, 0xc0, 0x01, 0xf1, 0x53, 0xa1, 0x4c}

// build makes the world of a rehearsal. The caller closes it, after an error too.
func build(cfg Config) (*site, error) {
	s := &site{cfg: cfg, world: world.New(cfg.Start)}
	s.world.StallAfter = cfg.StallAfter
	if err := cfg.Air.Validate(); err != nil {
		return s, fmt.Errorf("rehearse: %w", err)
	}
	process, err := cfg.Air.link(cfg.Seed, cfg.Loss, cfg.Loss, cfg.Start)
	if err != nil {
		return s, err
	}
	if process, err = cfg.Air.around(process, cfg.Seed, cfg.Start); err != nil {
		return s, err
	}
	medium := radio.NewMedium(s.world, radio.EU868(), process)
	if err = cfg.Air.interfere(medium); err != nil {
		return s, err
	}
	s.fleet, err = fleet.New(fleet.Config{
		World: s.world, Medium: medium, Seed: cfg.Seed,
		Console: s.console, Event: s.event, Failed: s.failed,
	})
	if err != nil {
		return s, err
	}
	server := networkserver.Config{
		World: s.world, Medium: medium, Seed: cfg.Seed,
		GRPCAddress: cfg.GRPCAddress, MQTTAddress: cfg.MQTTAddress, Token: cfg.token(),
		Tenant:   networkserver.Tenant{ID: networkserver.UUID(cfg.Seed, "tenant"), Name: "rehearsal"},
		Profiles: []networkserver.DeviceProfile{{ID: networkserver.UUID(cfg.Seed, "profile"), Name: "beacon"}},
		Gateways: []networkserver.Gateway{{ID: gatewayID, Name: "roof"}},
	}
	for i, g := range cfg.Groups {
		app := networkserver.Application{ID: networkserver.UUID(cfg.Seed, "application "+g.Name), Name: g.Name}
		s.apps = append(s.apps, app.ID)
		server.Applications = append(server.Applications, app)
		if err := s.populate(i, g, &server); err != nil {
			return s, fmt.Errorf("%s: %w", g.Name, err)
		}
	}
	if s.server, err = networkserver.New(server); err != nil {
		return s, err
	}
	return s, nil
}

// populate makes the devices of a group and provisions them on the server.
func (s *site) populate(index int, g Group, server *networkserver.Config) error {
	trust, err := trustKeys(g.Trust)
	if err != nil {
		return err
	}
	for i := range g.Hosts + g.Emulated {
		m := &member{group: index, kind: Host, name: fmt.Sprintf("host-%02d", i+1)}
		if i >= g.Hosts {
			m.kind, m.name = Emulated, fmt.Sprintf("cortex-m-%02d", i-g.Hosts+1)
		}
		binary.BigEndian.PutUint64(m.eui[:], 0x70b3d57ed0000000|uint64(index+1)<<16|uint64(i+1))
		keys := networkserver.Keys{AppKey: s.key(m.eui, 1), GenAppKey: s.key(m.eui, 2)}
		id := device.Identity{
			Class: Class, Hardware: Hardware, HWVersion: 0x00010000, RootKey: keys.GenAppKey, Keys: trust,
			Seed: uint32(radio.Hash(s.cfg.Seed, binary.BigEndian.Uint64(m.eui[:]))),
		}
		if m.kind == Emulated {
			m.layout = device.ExampleLayout()
			m.node, err = device.NewQEMU(device.QEMUConfig{Boot: s.cfg.BootStub, Image: g.Update.Old, ID: id})
		} else {
			m.layout = device.LayoutFor(max(len(g.Update.Old), len(g.Update.New)))
			m.node, err = device.NewHost(device.HostConfig{Layout: m.layout, Image: g.Update.Old, ID: id, PackageVersion: 2})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		s.members = append(s.members, m)
		h := radio.Hash(s.cfg.Seed, binary.BigEndian.Uint64(m.eui[:]), 3)
		_, err = s.fleet.Add(fleet.DeviceConfig{
			EUI: m.eui, AppKey: keys.AppKey, DataRate: dataRate, App: m.node,
			PowerUp:     time.Duration(h % uint64(stagger)),
			ClockOffset: time.Duration(h>>32%7200)*time.Second - time.Hour, // wrong by up to an hour
		})
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		server.Devices = append(server.Devices, networkserver.Device{
			EUI: m.eui, Name: m.name, Application: s.apps[index], Profile: server.Profiles[0].ID, Keys: &keys,
		})
	}
	return nil
}

// key derives a root key of a device from the seed of the rehearsal.
func (s *site) key(eui lorawan.EUI64, purpose uint64) (k lorawan.AES128Key) {
	e := binary.BigEndian.Uint64(eui[:])
	binary.BigEndian.PutUint64(k[:8], radio.Hash(s.cfg.Seed, e, purpose, 1))
	binary.BigEndian.PutUint64(k[8:], radio.Hash(s.cfg.Seed, e, purpose, 2))
	return k
}

// trustKeys fills the trust slots of a device.
func trustKeys(pub *ecdsa.PublicKey) (slots [2]device.TrustKey, err error) {
	slots[0].ID = KeyID
	slots[0].Public, err = bundle.PublicKey(pub)
	return slots, err
}

func (s *site) member(eui lorawan.EUI64) *member {
	for _, m := range s.members {
		if m.eui == eui {
			return m
		}
	}
	return nil
}

func (s *site) console(eui lorawan.EUI64, at time.Time, line string) {
	if m := s.member(eui); m != nil && s.cfg.Console != nil {
		s.cfg.Console(ConsoleLine{Group: s.cfg.Groups[m.group].Name, Name: m.name, Kind: m.kind, At: at, Text: line})
	}
}

// event watches the devices for the instant at which a fault of the script is due.
func (s *site) event(eui lorawan.EUI64, _ time.Time, e modem.Event) {
	m := s.member(eui)
	if m == nil || m.ready || e.Step != stepReady {
		return
	}
	m.ready = true
	if flip := s.cfg.Groups[m.group].FlipSlotB; flip != nil {
		if err := m.node.Flip(m.layout.SlotB.Addr+flip.Offset, flip.Bit); err != nil {
			s.broken = err
		}
	}
}

func (s *site) failed(eui lorawan.EUI64, at time.Time, err error) {
	s.broken = fmt.Errorf("device %s at %s: %w", eui, at.UTC().Format(time.TimeOnly), err)
	s.world.Stop()
}

// outcomes compares what the engine believes with what is in the flash of each device.
func (s *site) outcomes(believed func(network.EUI64) Outcome) ([]Outcome, error) {
	var out []Outcome
	for _, m := range s.members {
		g := s.cfg.Groups[m.group]
		o := believed(network.EUI64(m.eui))
		o.Group, o.Name, o.DevEUI, o.Kind, o.Boots = g.Name, m.name, m.eui.String(), m.kind, m.node.Boots()
		raw, err := m.node.SlotA(int(m.layout.SlotA.Size))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		o.Runs = "no valid image"
		if im, err := mcuboot.Parse(raw); err == nil {
			v := bundle.MakeVersion(im.Major, im.Minor, im.Revision)
			o.Intact, o.Runs = true, v.String()
			o.Updated = o.Updated && v == g.Update.To
		} else {
			o.Updated = false
		}
		out = append(out, o)
	}
	return out, nil
}

// close ends devices and server.
func (s *site) close() error {
	var first error
	if s.server != nil {
		first = s.server.Close()
	}
	closed := map[node]bool{}
	if s.fleet != nil {
		for _, d := range s.fleet.Devices() {
			if m := s.member(d.EUI()); m != nil {
				closed[m.node] = true
			}
		}
		if err := s.fleet.Close(); first == nil {
			first = err
		}
	}
	for _, m := range s.members {
		if m.node != nil && !closed[m.node] {
			if err := m.node.Close(); first == nil {
				first = err
			}
		}
	}
	return first
}
