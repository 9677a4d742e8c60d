package traps_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/fleettest"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

const (
	token  = "token"
	mcAddr = 0x01020304
	mcFreq = 869525000
	mcDR   = 5
)

var (
	epoch     = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	tenantID  = networkserver.UUID(1, "tenant")
	appID     = networkserver.UUID(1, "application")
	otherApp  = networkserver.UUID(1, "other application")
	profileID = networkserver.UUID(1, "profile")
)

func eui(i int) network.EUI64       { return network.EUI64{0x70, 0xb3, 6: byte(i >> 8), 7: byte(i)} }
func gatewayID(i int) network.EUI64 { return network.EUI64{0, 0x16, 0xc0, 1, 2, 3, 4, byte(i)} }

// probe is one run of the test of a trap.
type probe struct {
	t *testing.T
	// naive asks for what an unwary client would do, where the defence is a choice.
	naive bool
}

// site says what world a test wants.
type site struct {
	devices  int // provisioned
	beacons  int // the first of them that run, with an uplink each minute
	gateways int // 0: 1
	server   func(*networkserver.Config)
	client   func(*chirpstack.Config)
}

// rig is a simulated ChirpStack, our client of it, and one by which a test does what our client would not.
type rig struct {
	t      *testing.T
	world  *world.World
	server *networkserver.Server
	cs     *chirpstack.Network
	raw    *grpc.ClientConn
	ctx    context.Context // authorised for raw
	air    *sniffer

	mu     sync.Mutex
	events []network.Event
}

func (p *probe) start(s site) *rig {
	t := p.t
	t.Helper()
	w := world.New(epoch)
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	medium := radio.NewMedium(w, radio.EU868(), loss)
	f, err := fleet.New(fleet.Config{World: w, Medium: medium, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	cfg := networkserver.Config{World: w, Medium: medium, Seed: 1, Token: token,
		Tenant:       networkserver.Tenant{ID: tenantID, Name: "tenant"},
		Applications: []networkserver.Application{{ID: appID, Name: "meters"}, {ID: otherApp, Name: "others"}},
		Profiles:     []networkserver.DeviceProfile{{ID: profileID, Name: "meter"}}}
	for i := range max(s.gateways, 1) {
		cfg.Gateways = append(cfg.Gateways, networkserver.Gateway{ID: lorawan.EUI64(gatewayID(i)), Name: "roof"})
	}
	for i := range s.devices {
		cfg.Devices = append(cfg.Devices, networkserver.Device{EUI: lorawan.EUI64(eui(i)), Name: "meter", Application: appID, Profile: profileID,
			Keys: &networkserver.Keys{AppKey: lorawan.AES128Key{1, byte(i)}, GenAppKey: lorawan.AES128Key{2, byte(i), 1}}})
		if i < s.beacons {
			if _, err := f.Add(fleet.DeviceConfig{EUI: lorawan.EUI64(eui(i)), AppKey: lorawan.AES128Key{1, byte(i)}, DataRate: 5, App: &fleettest.Beacon{Uplink: modem.Up{Port: 2, Data: []byte{7}}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.server != nil {
		s.server(&cfg)
	}
	server, err := networkserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Close()
		f.Close()
	})
	r := &rig{t: t, world: w, server: server, air: &sniffer{},
		ctx: metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)}
	station, err := medium.NewStation(lorawan.EUI64{0xff}, r.air)
	if err != nil {
		t.Fatal(err)
	}
	station.Listen(radio.Window{From: epoch, Until: epoch.Add(24 * time.Hour), Frequency: mcFreq, DataRate: mcDR})
	client := chirpstack.Config{Server: server.GRPCAddress(), Token: token, Region: airtime.EU868,
		MQTT: "mqtt://" + server.MQTTAddress(), GatewayTopics: "eu868", Timeout: time.Minute}
	if s.client != nil {
		s.client(&client)
	}
	if r.cs, err = chirpstack.Dial(client); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cs.Close() })
	if r.raw, err = grpc.NewClient(server.GRPCAddress(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.raw.Close() })
	return r
}

func (r *rig) multicast() api.MulticastGroupServiceClient {
	return api.NewMulticastGroupServiceClient(r.raw)
}

// run lets virtual time pass until a while after the beginning.
func (r *rig) run(until time.Duration) {
	r.t.Helper()
	r.world.At(epoch.Add(until), "end of the run", func() {}) // else an idle world stops before
	if err := r.world.Run(r.t.Context(), epoch.Add(until)); err != nil {
		r.t.Fatal(err)
	}
}

// listen takes all events, and returns how to stop: what came is in r.events afterwards.
func (r *rig) listen() (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	events, err := r.cs.Events(ctx, appID)
	if err != nil {
		r.t.Fatal(err)
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for ev := range events {
			r.mu.Lock()
			r.events = append(r.events, ev)
			r.mu.Unlock()
			ev.Done()
		}
	}()
	return func() {
		cancel()
		<-finished
	}
}

// of returns the events of a kind.
func (r *rig) of(kind network.EventKind) (out []network.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ev := range r.events {
		if ev.Kind == kind {
			out = append(out, ev)
		}
	}
	return out
}

// group is what the tests open.
func (r *rig) group(gateways int) network.Group {
	g := network.Group{Name: "sower-1", Application: appID, McAddr: mcAddr, AppSKey: network.Key{1}, NwkSKey: network.Key{2},
		Class: network.ClassC, DataRate: mcDR, Frequency: mcFreq}
	for i := range gateways {
		g.Gateways = append(g.Gateways, gatewayID(i))
	}
	return g
}

func (r *rig) open(gateways int) network.GroupID {
	r.t.Helper()
	id, err := r.cs.OpenGroup(r.t.Context(), r.group(gateways))
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// frame is a broadcast that expires a while after the beginning.
func frame(id network.GroupID, expires time.Duration) network.Broadcast {
	return network.Broadcast{Group: id, FPort: 201, Payload: []byte{1, 2, 3}, Expires: epoch.Add(expires)}
}

// send broadcasts as the engine does: it repeats what did not happen, asks after what may have happened, and
// gives up at the first other error.
func (r *rig) send(b network.Broadcast) (uint32, error) {
	before, err := r.cs.GroupState(r.t.Context(), b.Group)
	if err != nil {
		return 0, err
	}
	for range 3 {
		var fCnt uint32
		if fCnt, err = r.cs.Broadcast(r.t.Context(), b); err == nil {
			return fCnt, nil
		}
		if isUncertain(err) {
			st, stateErr := r.cs.GroupState(r.t.Context(), b.Group)
			if stateErr != nil {
				return 0, stateErr
			}
			if st.NextFCnt > before.NextFCnt {
				return before.NextFCnt, nil
			}
			continue
		}
		if !isUnavailable(err) {
			return 0, err
		}
	}
	return 0, err
}

// sniffer is a receiver that hears every frame of the tests' group, of all gateways.
type sniffer struct{ frames []radio.Frame }

func (s *sniffer) FrameKey(f radio.Frame) (radio.Key, bool) {
	mine := len(f.Payload) > 8 && binary.LittleEndian.Uint32(f.Payload[1:]) == mcAddr
	if mine {
		s.frames = append(s.frames, f)
	}
	return radio.Key{Device: lorawan.EUI64{0xff}}, mine
}

func (*sniffer) ReceiveFrame(radio.Frame, radio.Signal) {}
func (*sniffer) LoseFrame(radio.Frame, bool)            {}

func counter(f radio.Frame) uint32 { return uint32(binary.LittleEndian.Uint16(f.Payload[6:])) }

// counters are those on the air, each once, in order.
func (s *sniffer) counters() []uint32 {
	seen := map[uint32]bool{}
	for _, f := range s.frames {
		seen[counter(f)] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// calls records the methods that a server is asked for.
type calls struct {
	mu   sync.Mutex
	list []string
}

func (c *calls) observe(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, method)
}

func (c *calls) has(part string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.list, func(m string) bool { return strings.Contains(m, part) })
}

// deploys reports whether the server's own deployments were used; to list them tells whether the server has them.
func (c *calls) deploys() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.list, func(m string) bool {
		return strings.Contains(m, "FuotaService/") && !strings.HasSuffix(m, "/ListDeployments")
	})
}

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }
