package networkserver_test

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"github.com/eclipse/paho.golang/paho"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

var epoch = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

const (
	token   = "secret"
	seed    = 7
	mcAddr  = 0x01a2b3c4
	mcFreq  = 869525000
	mcDR    = 5
	mcStart = 10 * time.Minute
	mcEnd   = 30 * time.Minute
)

var (
	tenantID  = networkserver.UUID(1, "tenant")
	appID     = networkserver.UUID(1, "application")
	otherApp  = networkserver.UUID(1, "other application")
	profileID = networkserver.UUID(1, "profile")
	gatewayID = lorawan.EUI64{0, 0x16, 0xc0, 1, 0xf1, 0x53, 0xa1, 0x4c}
	mcNwkSKey = lorawan.AES128Key{1, 2, 3}
	mcAppSKey = lorawan.AES128Key{4, 5, 6}
)

// model is a device application in Go: a heartbeat, an echo on port 10, a fixed multicast session.
type model struct {
	period uint64 // ms; 0: no heartbeat
	group  bool   // sets the group of the tests at power-up
	class  byte   // of the session; 0: C
	start  uint64 // of the session, ms of the device clock
	end    uint64

	next   uint64
	seen   [][]byte // multicast payloads
	closed bool

	onMulticast func([]byte)
}

func frames(ms ...modem.Message) []modem.Frame {
	var out []modem.Frame
	var d modem.Decoder
	for _, m := range ms {
		raw, err := modem.Append(nil, m)
		if err != nil {
			panic(err)
		}
		d.Write(raw)
		f, _ := d.Next()
		out = append(out, f)
	}
	return out
}

func (a *model) idle() modem.IdleUntil {
	if a.next == 0 {
		return modem.IdleUntil{Time: modem.Never}
	}
	return modem.IdleUntil{Time: a.next}
}

func (a *model) PowerUp() ([]modem.Frame, error) {
	out := []modem.Message{modem.Console{Text: "boot"}}
	class := a.class
	if class == 0 {
		class = 'C'
	}
	if a.group {
		out = append(out,
			modem.SetMcGroup{ID: 1, Defined: true, Addr: mcAddr, AppSKey: mcAppSKey, NwkSKey: mcNwkSKey, MaxFCnt: 1 << 16},
			modem.Session{ID: 1, Class: class, Periodicity: 5, DR: mcDR, Frequency: mcFreq, Start: a.start, End: a.end})
	}
	return frames(append(out, a.idle())...), nil
}

func (a *model) Turn(f modem.Frame) ([]modem.Frame, error) {
	m, err := f.Message()
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case modem.Link:
		if m.Joined && a.period > 0 {
			a.next = m.Time + a.period
		}
	case modem.Tick:
		if a.next != 0 && m.Time >= a.next {
			a.next += a.period
			return frames(modem.Up{Port: 2, Data: binary.LittleEndian.AppendUint64(nil, m.Time)}, a.idle()), nil
		}
	case modem.Down:
		if m.Group != modem.Unicast {
			a.seen = append(a.seen, append([]byte(nil), m.Data...))
			if a.onMulticast != nil {
				a.onMulticast(m.Data)
			}
		} else if m.Port == 10 {
			return frames(modem.Up{Port: 10, Data: append([]byte("echo "), m.Data...)}, a.idle()), nil
		} else if m.Port == 11 {
			return frames(modem.Reset{Reason: modem.ResetAsked}, modem.Console{Text: "boot"}, a.idle()), nil
		}
	}
	return frames(a.idle()), nil
}

func (a *model) Close() error { a.closed = true; return nil }

// net is a whole simulated network with a client.
type simnet struct {
	t      *testing.T
	world  *world.World
	medium *radio.Medium
	server *networkserver.Server
	fleet  *fleet.Fleet
	conn   *grpc.ClientConn
	ctx    context.Context

	mu     sync.Mutex
	events []event
	// handle is called with each event before it is acknowledged.
	handle func(event)
}

type event struct {
	kind string
	eui  string
	at   time.Time
	m    proto.Message
}

type options struct {
	battery   uint8 // percent, of the devices
	devices   []int // numbers, in order of registration
	up, down  float64
	gateways  int
	configure func(*networkserver.Config)
	app       func(i int) *model
	other     func(i int) fleet.App // in place of app
	raw       bool                  // no subscriber
}

func eui(i int) lorawan.EUI64 {
	var e lorawan.EUI64
	binary.BigEndian.PutUint64(e[:], 0x70b3d57ed0000000+uint64(i))
	return e
}

func appKey(i int) lorawan.AES128Key { return lorawan.AES128Key{0xaa, byte(i), byte(i >> 8)} }

func gps(d time.Duration) uint64 {
	return uint64(epoch.Add(d).Sub(time.Date(1980, 1, 6, 0, 0, 0, 0, time.UTC))/time.Millisecond) + 18000
}

func start(t *testing.T, o options) *simnet {
	t.Helper()
	w := world.New(epoch)
	loss, err := radio.NewIndependent(seed, o.up, o.down)
	if err != nil {
		t.Fatal(err)
	}
	medium := radio.NewMedium(w, radio.EU868(), loss)
	cfg := networkserver.Config{
		World: w, Medium: medium, Seed: seed, Token: token,
		Tenant:       networkserver.Tenant{ID: tenantID, Name: "tenant"},
		Applications: []networkserver.Application{{ID: appID, Name: "meters"}, {ID: otherApp, Name: "others"}},
		Profiles:     []networkserver.DeviceProfile{{ID: profileID, Name: "class A"}},
	}
	for g := range max(o.gateways, 1) {
		id := gatewayID
		id[7] += byte(g)
		cfg.Gateways = append(cfg.Gateways, networkserver.Gateway{ID: id, Name: "roof"})
	}
	f, err := fleet.New(fleet.Config{World: w, Medium: medium, Seed: seed,
		Failed: func(e lorawan.EUI64, _ time.Time, err error) { t.Errorf("device %s: %v", e, err) }})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range o.devices {
		cfg.Devices = append(cfg.Devices, networkserver.Device{
			EUI: eui(i), Name: "meter", Application: appID, Profile: profileID, Tags: map[string]string{"site": "north"},
			Keys: &networkserver.Keys{AppKey: appKey(i), GenAppKey: lorawan.AES128Key{0xbb, byte(i)}},
		})
		var app fleet.App = &model{}
		if o.app != nil {
			app = o.app(i)
		} else if o.other != nil {
			app = o.other(i)
		}
		if _, err := f.Add(fleet.DeviceConfig{EUI: eui(i), AppKey: appKey(i), DataRate: 5, App: app, PowerUp: time.Duration(i) * time.Second, Battery: o.battery}); err != nil {
			t.Fatal(err)
		}
	}
	if o.configure != nil {
		o.configure(&cfg)
	}
	s, err := networkserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n := &simnet{t: t, world: w, medium: medium, server: s, fleet: f,
		ctx: metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)}
	t.Cleanup(func() {
		f.Close()
		s.Close()
	})
	if n.conn, err = grpc.NewClient(s.GRPCAddress(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.conn.Close() })
	if !o.raw {
		n.subscribe()
	}
	return n
}

// subscribe connects an MQTT client that records each event, calls handle, and only then acknowledges.
func (n *simnet) subscribe() {
	conn, err := net.Dial("tcp", n.server.MQTTAddress())
	if err != nil {
		n.t.Fatal(err)
	}
	client := paho.NewClient(paho.ClientConfig{Conn: conn, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
		func(p paho.PublishReceived) (bool, error) {
			e := n.decode(p.Packet.Topic, p.Packet.Payload)
			n.mu.Lock()
			n.events = append(n.events, e)
			n.mu.Unlock()
			if n.handle != nil {
				n.handle(e)
				n.fence()
			}
			return true, nil
		},
	}})
	if _, err := client.Connect(n.t.Context(), &paho.Connect{ClientID: "test", KeepAlive: 60, CleanStart: true}); err != nil {
		n.t.Fatal(err)
	}
	if _, err := client.Subscribe(n.t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "application/+/device/+/event/+", QoS: 1}}}); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { client.Disconnect(&paho.Disconnect{}) })
}

func (n *simnet) decode(topic string, payload []byte) event {
	part := strings.Split(topic, "/")
	if len(part) != 6 || part[0] != "application" || part[1] != appID || part[2] != "device" || part[4] != "event" {
		n.t.Errorf("topic %q", topic)
		return event{}
	}
	e := event{kind: part[5], eui: part[3], at: n.world.Now()}
	switch e.kind {
	case "up":
		e.m = &integration.UplinkEvent{}
	case "join":
		e.m = &integration.JoinEvent{}
	case "txack":
		e.m = &integration.TxAckEvent{}
	case "ack":
		e.m = &integration.AckEvent{}
	case "log":
		e.m = &integration.LogEvent{}
	case "status":
		e.m = &integration.StatusEvent{}
	}
	if err := protojson.Unmarshal(payload, e.m); err != nil {
		n.t.Errorf("%s: %v in %s", topic, err, payload)
	}
	return e
}

func (n *simnet) run(until time.Duration) {
	n.t.Helper()
	n.fence()
	n.world.At(epoch.Add(until), "end of the run", func() {}) // else an idle world stops before
	if err := n.world.Run(n.t.Context(), epoch.Add(until)); err != nil {
		n.t.Fatal(err)
	}
	n.fence()
}

// fence lets the goroutine of the test see what a handler wrote: the world orders them, but through a socket,
// which the race detector does not follow.
func (n *simnet) fence() {
	n.mu.Lock()
	defer n.mu.Unlock()
}

func (n *simnet) of(kind string) []event {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []event
	for _, e := range n.events {
		if e.kind == kind {
			out = append(out, e)
		}
	}
	return out
}

func (n *simnet) device() api.DeviceServiceClient { return api.NewDeviceServiceClient(n.conn) }

func (n *simnet) multicast() api.MulticastGroupServiceClient {
	return api.NewMulticastGroupServiceClient(n.conn)
}

// enqueue queues a unicast message.
func (n *simnet) enqueue(i int, port uint32, data string) string {
	n.t.Helper()
	r, err := n.device().Enqueue(n.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{DevEui: eui(i).String(), FPort: port, Data: []byte(data)}})
	if err != nil {
		n.t.Fatal(err)
	}
	return r.Id
}

// heartbeatsWith is one device with an uplink each minute, on a server with other settings.
func heartbeatsWith(t *testing.T, configure func(*networkserver.Config)) *simnet {
	return start(t, options{raw: true, devices: []int{1}, app: func(int) *model { return &model{period: 60_000} }, configure: configure})
}
