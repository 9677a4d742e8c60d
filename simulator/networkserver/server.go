package networkserver

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// Config says what the server serves and how it behaves. World, Medium, Token and Tenant are required.
type Config struct {
	World  *world.World
	Medium *radio.Medium
	Media  []*radio.Medium // of further regions, one each
	Seed   uint64          // of device addresses and identifiers

	GRPCAddress string // loopback host:port; empty means 127.0.0.1:0, a free port
	MQTTAddress string // likewise
	Token       string // the API key of an administrator, sent by clients as "Bearer <token>"
	Keys        []APIKey
	Version     string // decides which services there are; no API key is told it; empty means 4.19.1

	Tenant       Tenant
	Applications []Application
	Profiles     []DeviceProfile
	Gateways     []Gateway
	Devices      []Device

	// Delays and scheduler, with ChirpStack's defaults for zero values.
	DeduplicationDelay time.Duration // from uplink to event, 200 ms
	DownlinkDataDelay  time.Duration // from event to the choice of the answer, 100 ms
	RX1Delay           time.Duration // whole seconds 1..15, 1 s
	SchedulerInterval  time.Duration // 1 s
	SchedulerLock      time.Duration // 2 s
	ClassCMargin       time.Duration // 5 s
	ClassBMargin       time.Duration // 5 s

	Database       Database
	ProtobufEvents bool // events are protobuf, else JSON
	Faults         Faults

	Log *slog.Logger // nil discards
}

// Database is the flavour of the server.
type Database uint8

// PostgreSQL leaves what is queued for a gateway that is offline in the queue. SQLite sends it, to nobody. The texts
// of some errors differ.
const (
	PostgreSQL Database = iota
	SQLite
)

// Tenant owns everything.
type Tenant struct {
	ID   string // UUID
	Name string
}

// Application is a set of devices.
type Application struct {
	ID   string // UUID
	Name string
}

// DeviceProfile is what devices have in common.
type DeviceProfile struct {
	ID                   string // UUID
	Name                 string
	Region               airtime.Region // 0: that of Config.Medium
	FlushQueueOnActivate bool
	ClassB               bool          // the devices can do it, and say in their uplinks whether they do
	ClassBTimeout        time.Duration // from the ping slot of a confirmed message until it counts as not received
	UplinkInterval       time.Duration // that the operator expects of the devices
	StatusRequests       int           // how often a day a device is asked for battery and margin; 0: never

	// With a version of TS003 the server answers AppTimeReq itself, on port 202 if ClockSyncPort is 0.
	ClockSync     api.Ts003Version
	ClockSyncPort uint8
}

// Gateway is a gateway of the tenant on the simulated radio. It is online unless [Faults] say otherwise.
// Gateways that are created through the API attach by MQTT.
type Gateway struct {
	ID            lorawan.EUI64
	Name          string
	Region        airtime.Region // 0: that of Config.Medium
	BasicsStation bool           // acknowledges what it has sent, and never says no
}

// Device is a provisioned device, LoRaWAN 1.0.x with OTAA.
type Device struct {
	EUI         lorawan.EUI64
	JoinEUI     lorawan.EUI64
	Name        string
	Application string // id
	Profile     string // id
	Tags        map[string]string
	Disabled    bool
	Keys        *Keys // nil: no keys were provisioned, and the device cannot join
}

// Keys are the root keys of a LoRaWAN 1.0.x device.
type Keys struct {
	AppKey    lorawan.AES128Key // the API calls it nwk_key
	GenAppKey lorawan.AES128Key // all zero: not provisioned
}

// Server is a running server.
type Server struct {
	cfg   Config
	world *world.World
	plans []*radio.Plan // of the regions, that of Config.Medium first
	log   *slog.Logger

	grpc   *grpc.Server
	api    net.Listener
	broker *broker
	served sync.WaitGroup
	closed sync.Once

	mu        sync.Mutex // everything below; held by world events and RPCs alike
	apps      []*Application
	profiles  []*DeviceProfile
	gateways  []*gateway
	devices   []*device // ordered by EUI
	groups    []*group  // in order of creation
	byEUI     map[lorawan.EUI64]*device
	byAddr    map[lorawan.DevAddr][]*device // of the sessions
	frames    map[uint32]*downlink          // that wait for an acknowledgement
	receiving map[string]*reception         // uplinks within the de-duplication delay, by PHYPayload
	ids       uint64
	downlinks uint32
	outbox    []event
	schedule  *world.Event
	lastTick  time.Time // of the multicast scheduler
	created   time.Time
	rows      uint64          // that multicast queues ever had
	calls     []int           // seen by each call fault
	lists     uint64          // answered without an order of their own
	events    uint64          // published
	deleted   map[string]bool // API keys, by token
	process   int             // counts restarts
	down      bool
}

// New starts a server. It refuses a configuration that does not hold together and addresses that are not
// loopback or in use; after an error nothing is left running.
func New(cfg Config) (*Server, error) {
	s := &Server{
		cfg: cfg, world: cfg.World, log: cfg.Log,
		byEUI: map[lorawan.EUI64]*device{}, byAddr: map[lorawan.DevAddr][]*device{},
		frames: map[uint32]*downlink{}, receiving: map[string]*reception{}, deleted: map[string]bool{},
	}
	if err := s.configure(); err != nil {
		return nil, fmt.Errorf("networkserver: %w", err)
	}
	var err error
	if s.api, err = listen("gRPC", cfg.GRPCAddress); err != nil {
		return nil, err
	}
	mqtt, err := listen("MQTT", cfg.MQTTAddress)
	if err != nil {
		s.api.Close()
		return nil, err
	}
	if s.broker, err = newBroker(s.world, mqtt, s.log, s.gatewayEvent); err != nil {
		s.api.Close()
		mqtt.Close()
		return nil, fmt.Errorf("networkserver: MQTT broker: %w", err)
	}
	for _, g := range s.gateways {
		id := g.ID
		if g.radio, err = s.medium(g.plan).NewGateway(id, func(f radio.Frame, sig radio.Signal) { s.receive(id, f, sig) }); err != nil {
			s.api.Close()
			s.broker.close()
			return nil, fmt.Errorf("networkserver: %w", err)
		}
	}
	if err := s.script(); err != nil {
		s.api.Close()
		s.broker.close()
		return nil, fmt.Errorf("networkserver: %w", err)
	}
	s.grpc = s.newGRPC()
	s.served.Add(1)
	go func() {
		defer s.served.Done()
		if err := s.grpc.Serve(s.api); err != nil {
			s.log.Error("gRPC server ended", "err", err)
		}
	}()
	return s, nil
}

// GRPCAddress is the host:port of the API.
func (s *Server) GRPCAddress() string { return s.api.Addr().String() }

// MQTTAddress is the host:port of the broker.
func (s *Server) MQTTAddress() string { return s.broker.address }

// Airtime returns how long and how often a gateway has transmitted; zero for one that does not exist.
func (s *Server) Airtime(id lorawan.EUI64) (time.Duration, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.gatewayByID(id); g != nil && g.radio != nil {
		return g.radio.Airtime()
	}
	return 0, 0
}

// Close stops both listeners and drops all connections. Calls in flight are cancelled.
func (s *Server) Close() error {
	s.closed.Do(func() {
		s.grpc.Stop()
		s.broker.close()
		s.served.Wait()
	})
	return nil
}

func listen(what, address string) (net.Listener, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("networkserver: %s address %q: %w", what, address, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("networkserver: %s address %q is not loopback, use 127.0.0.1", what, address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("networkserver: %s address %s: %w; choose another port, or 0 for a free one", what, address, errors.Unwrap(err))
	}
	return l, nil
}

// configure fills defaults and builds the tables.
func (s *Server) configure() error {
	for _, step := range []func() error{s.regionsAndLog, s.delays, s.owners, s.tables} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) regionsAndLog() error {
	c := &s.cfg
	if c.World == nil || c.Medium == nil {
		return errors.New("config has no World or no Medium")
	}
	if c.Token == "" {
		return errors.New("config has no Token")
	}
	if s.log == nil {
		s.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	for _, m := range slices.Concat([]*radio.Medium{c.Medium}, c.Media) {
		if m == nil || len(s.plans) > 0 && s.planOf(m.Plan().Region) != nil {
			return errors.New("config has a nil in Media, or two for a region")
		}
		s.plans = append(s.plans, m.Plan())
	}
	s.created = s.world.Now()
	if c.Version == "" {
		c.Version = "4.19.1"
	}
	return nil
}

func (s *Server) delays() error {
	c := &s.cfg
	for _, d := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"DeduplicationDelay", &c.DeduplicationDelay, 200 * time.Millisecond},
		{"DownlinkDataDelay", &c.DownlinkDataDelay, 100 * time.Millisecond},
		{"RX1Delay", &c.RX1Delay, time.Second},
		{"SchedulerInterval", &c.SchedulerInterval, time.Second},
		{"SchedulerLock", &c.SchedulerLock, 2 * time.Second},
		{"ClassCMargin", &c.ClassCMargin, 5 * time.Second},
		{"ClassBMargin", &c.ClassBMargin, 5 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
		if *d.v < 0 {
			return fmt.Errorf("%s %s is negative", d.name, *d.v)
		}
	}
	if c.RX1Delay%time.Second != 0 || c.RX1Delay > 15*time.Second {
		return fmt.Errorf("RX1Delay %s is not one of 1 s to 15 s", c.RX1Delay)
	}
	if c.DeduplicationDelay+c.DownlinkDataDelay >= c.RX1Delay {
		return fmt.Errorf("DeduplicationDelay and DownlinkDataDelay take %s, beyond RX1Delay %s", c.DeduplicationDelay+c.DownlinkDataDelay, c.RX1Delay)
	}
	return nil
}

// owners checks the tenant, the keys and the flavour.
func (s *Server) owners() error {
	c := &s.cfg
	tenant, err := parseUUID(c.Tenant.ID)
	if err != nil {
		return fmt.Errorf("tenant id %q is not a UUID", c.Tenant.ID)
	}
	c.Tenant.ID = tenant
	if c.Database > SQLite {
		return fmt.Errorf("database %d is neither PostgreSQL nor SQLite", c.Database)
	}
	for i, k := range c.Keys {
		if k.Token == "" || k.Token == c.Token {
			return fmt.Errorf("key %d has no token of its own", i)
		}
		if k.Tenant != "" {
			if c.Keys[i].Tenant, err = parseUUID(k.Tenant); err != nil {
				return fmt.Errorf("key %d: tenant %q is not a UUID", i, k.Tenant)
			}
		}
	}
	if err := c.Faults.validate(); err != nil {
		return err
	}
	s.calls = make([]int, len(c.Faults.Calls))
	return nil
}

// tables takes over what is provisioned.
func (s *Server) tables() error {
	c := &s.cfg
	for _, a := range c.Applications {
		id, err := parseUUID(a.ID)
		if err != nil {
			return fmt.Errorf("application %q: id %q is not a UUID", a.Name, a.ID)
		}
		if s.app(id) != nil {
			return fmt.Errorf("application %s exists twice", id)
		}
		a.ID = id
		s.apps = append(s.apps, &a)
	}
	for _, p := range c.Profiles {
		id, err := parseUUID(p.ID)
		if err != nil {
			return fmt.Errorf("device profile %q: id %q is not a UUID", p.Name, p.ID)
		}
		if s.profile(id) != nil {
			return fmt.Errorf("device profile %s exists twice", id)
		}
		if p.StatusRequests < 0 {
			return fmt.Errorf("device profile %s: %d status requests a day", id, p.StatusRequests)
		}
		if s.planOf(p.Region) == nil {
			return fmt.Errorf("device profile %s: no medium for %s", id, p.Region)
		}
		p.ID = id
		s.profiles = append(s.profiles, &p)
	}
	for _, g := range c.Gateways {
		if s.gatewayByID(g.ID) != nil {
			return fmt.Errorf("gateway %s exists twice", g.ID)
		}
		plan := s.planOf(g.Region)
		if plan == nil {
			return fmt.Errorf("gateway %s: no medium for %s", g.ID, g.Region)
		}
		s.gateways = append(s.gateways, &gateway{Gateway: g, plan: plan, created: s.created, upSince: s.created, inRegion: true})
	}
	for _, d := range c.Devices {
		app, _ := parseUUID(d.Application) // what is malformed does not exist either
		profile, _ := parseUUID(d.Profile)
		switch {
		case s.app(app) == nil:
			return fmt.Errorf("device %s: application %q does not exist", d.EUI, d.Application)
		case s.profile(profile) == nil:
			return fmt.Errorf("device %s: device profile %q does not exist", d.EUI, d.Profile)
		case s.byEUI[d.EUI] != nil:
			return fmt.Errorf("device %s exists twice", d.EUI)
		}
		s.addDevice(d, s.app(app), s.profile(profile))
	}
	s.sortTables()
	return nil
}

// planOf returns the plan of a region, of the first if it is 0; nil if there is none.
func (s *Server) planOf(r airtime.Region) *radio.Plan {
	for _, p := range s.plans {
		if r == 0 || p.Region == r {
			return p
		}
	}
	return nil
}

// medium returns the medium that has a plan.
func (s *Server) medium(p *radio.Plan) *radio.Medium {
	for _, m := range s.cfg.Media {
		if m.Plan() == p {
			return m
		}
	}
	return s.cfg.Medium
}

func (s *Server) app(id string) *Application {
	for _, a := range s.apps {
		if a.ID == id {
			return a
		}
	}
	return nil
}

func (s *Server) profile(id string) *DeviceProfile {
	for _, p := range s.profiles {
		if p.ID == id {
			return p
		}
	}
	return nil
}

// UUID returns an identifier in the form of a version 4 UUID, the same for the same seed and name.
func UUID(seed uint64, name string) string {
	words := []uint64{seed, uint64(len(name))}
	for i := 0; i < len(name); i += 8 {
		var w uint64
		for _, b := range []byte(name[i:min(i+8, len(name))]) {
			w = w<<8 | uint64(b)
		}
		words = append(words, w)
	}
	a, b := radio.Hash(append(words, 0)...), radio.Hash(append(words, 1)...)
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
}

// newID returns the next identifier of an object that the API creates; the caller holds s.mu.
func (s *Server) newID(what string) string {
	s.ids++
	return UUID(s.cfg.Seed, fmt.Sprintf("%s %d", what, s.ids))
}

// validUUID accepts the hyphenated form, and 32 digits without hyphens, of either case.
func validUUID(id string) bool {
	if len(id) != 36 && len(id) != 32 {
		return false
	}
	for i := 0; i < len(id); i++ {
		c := id[i]
		if len(id) == 36 && (i == 8 || i == 13 || i == 18 || i == 23) {
			if c != '-' {
				return false
			}
			continue
		}
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}

// at runs fn under the lock of the server when the clock shows t, unless the server has been restarted before.
// What fn publishes leaves after fn: once an event is out its subscriber is at work, and whatever fn did then
// would race with it.
func (s *Server) at(t time.Time, what string, fn func()) *world.Event {
	process := s.process
	return s.outside(t, what, func() {
		if process == s.process {
			fn()
		}
	})
}

// outside is at for what happens to the server, which it does not notice while it is down.
func (s *Server) outside(t time.Time, what string, fn func()) *world.Event {
	return s.world.At(t, what, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.down {
			fn()
			s.flush()
		}
	})
}
