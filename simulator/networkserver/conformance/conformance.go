// Package conformance is a test suite for network servers with the API of ChirpStack v4. It runs unchanged
// against package networkserver in virtual time and against a real server in real time, and looks at nothing
// but what a client can observe: answers of the gRPC API, device events, and the commands that gateways get.
//
// It makes an application with a few devices and gateways of its own (package gateway), exercises the queues,
// and removes what it made. The result is a [Report]: what did not behave as documented, a normalised transcript
// without identifiers and with times in whole seconds, and a verdict on each statement about ChirpStack that was
// inferred from its code and never seen. The transcript ends with every field of the records that a client reads and of
// one event of each kind. A verdict is about the server of the run: what package networkserver
// confirms, it confirms because it was written so. testdata has the transcript of a real ChirpStack beside it.
//
// Not covered: users and tenants' keys, which a run with one administrator's key cannot make everywhere; FUOTA
// deployments beyond their list, since they want devices with the packages of the application layer, and a size that
// divides by zero may stop the scheduler of a server that others use; unicast of class C; load.
package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/gateway"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// Target is the server under test. Everything is required.
type Target struct {
	Conn   grpc.ClientConnInterface
	Token  string       // API key of an administrator
	Broker string       // mqtt://host:port of both the device events (JSON) and the gateway backend, prefix eu868
	World  *world.World // of the virtual gateways and devices
	Seed   uint64       // of the identifiers; a real server wants another one each time
	// Pass lets time go by in the world and on the server: [Virtual] or [Real].
	Pass func(ctx context.Context, d time.Duration) error
}

// Virtual is Pass for a server that lives in w.
func Virtual(w *world.World) func(context.Context, time.Duration) error {
	return func(ctx context.Context, d time.Duration) error {
		until := w.Now().Add(d)
		w.At(until, "end of the pause", func() {})
		return w.Run(ctx, until)
	}
}

// Real is Pass for a server in real time. w begins with the present.
func Real(w *world.World) func(context.Context, time.Duration) error {
	return func(ctx context.Context, d time.Duration) error {
		pause, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		if err := gateway.Run(pause, w); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
		return nil
	}
}

// Verdict is what a run says of a statement.
type Verdict string

// The verdicts. A statement stays open if the run could not tell.
const (
	Confirmed Verdict = "confirmed"
	Refuted   Verdict = "refuted"
	Open      Verdict = "open"
)

// Statement is something that was inferred and not seen.
type Statement struct {
	Text     string
	Verdict  Verdict
	Evidence string
}

// Report is the result of a run.
type Report struct {
	Transcript []string
	Failures   []string
	Statements []Statement
}

// String is the report for a person.
func (r *Report) String() string {
	var b strings.Builder
	for _, line := range r.Transcript {
		fmt.Fprintln(&b, line)
	}
	for _, line := range r.Failures {
		fmt.Fprintln(&b, "FAIL", line)
	}
	for _, s := range r.Statements {
		fmt.Fprintf(&b, "%s: %s (%s)\n", s.Verdict, s.Text, s.Evidence)
	}
	return b.String()
}

const (
	nDevices  = 2
	nGateways = 2
	mcFreq    = 869_525_000
	mcDR      = 3
	mcAddr    = 0x01f0e0d0
)

var (
	appKey   = lorawan.AES128Key{0x11}
	genKey   = lorawan.AES128Key{0x22}
	mcNwk    = lorawan.AES128Key{0x33}
	mcApp    = lorawan.AES128Key{0x44}
	refusals = []gw.TxAckStatus{gw.TxAckStatus_TOO_LATE, gw.TxAckStatus_COLLISION_PACKET, gw.TxAckStatus_QUEUE_FULL, gw.TxAckStatus_DUTY_CYCLE_OVERFLOW}
)

// suite is one run.
type suite struct {
	Target
	report   Report
	ctx      context.Context // with the key
	site     *gateway.Provisioned
	gateways []lorawan.EUI64
	devices  []lorawan.EUI64
	apps     []*app
	medium   *radio.Medium
	attached *gateway.Attachment
	listener *autopaho.ConnectionManager

	base uint32 // first counter of the present group

	mu       sync.Mutex
	commands []command
	events   []event
	refuse   gw.TxAckStatus // what the gateways say of multicast frames
	silent   bool
	answers  []*gw.DownlinkFrame // all other frames
	reply    gw.TxAckStatus      // what the gateways say of those
	mute     bool                // whether they say nothing, though they send
	samples  map[string][]byte   // the first event of each kind and, if it is one of the log, code
}

// command is a multicast frame that the server has handed to a gateway.
type command struct {
	at       time.Time
	gateway  int
	id       uint32
	fCnt     int
	emitAt   time.Time // of GPS timing
	hasEmit  bool
	validMIC bool
}

type event struct {
	kind   string
	device int
	data   []byte
}

// Run runs the suite. The error says that it could not be run; what the server did wrong is in the report.
func Run(ctx context.Context, t Target) (*Report, error) {
	s := &suite{Target: t, refuse: gw.TxAckStatus_OK, reply: gw.TxAckStatus_OK, samples: map[string][]byte{}}
	s.ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+t.Token)
	err := s.run(ctx)
	if s.attached != nil {
		s.attached.Close()
	}
	if s.site != nil {
		err = errors.Join(err, s.site.Remove(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return nil, fmt.Errorf("conformance: %w", err)
	}
	return &s.report, nil
}

func (s *suite) run(ctx context.Context) error {
	id := func(kind, i uint64) (e lorawan.EUI64) {
		binary.BigEndian.PutUint64(e[:], radio.Hash(s.Seed, kind, i)|1<<57) // locally administered
		return e
	}
	site := gateway.Site{Name: fmt.Sprintf("conformance %x", radio.Hash(s.Seed)&0xffffff), Region: common.Region_EU868}
	for i := range nGateways {
		s.gateways = append(s.gateways, id(1, uint64(i)))
	}
	// A database returns the gateways of a group in the order of its index, however they were pinned.
	slices.SortFunc(s.gateways, func(a, b lorawan.EUI64) int { return bytes.Compare(a[:], b[:]) })
	site.Gateways = s.gateways
	for i := range nDevices {
		s.devices = append(s.devices, id(2, uint64(i)))
		site.Devices = append(site.Devices, gateway.SiteDevice{EUI: s.devices[i], AppKey: appKey, GenAppKey: genKey})
	}
	var err error
	if s.site, err = gateway.Provision(ctx, s.Conn, s.Token, site); err != nil {
		return err
	}
	loss, err := radio.NewIndependent(s.Seed, 0, 0)
	if err != nil {
		return err
	}
	s.medium = radio.NewMedium(s.World, radio.EU868(), loss)
	devices, err := fleet.New(fleet.Config{World: s.World, Medium: s.medium, Seed: s.Seed})
	if err != nil {
		return err
	}
	defer devices.Close()
	for i, eui := range s.devices {
		a := &app{start: s.World.Now()}
		s.apps = append(s.apps, a)
		if _, err := devices.Add(fleet.DeviceConfig{EUI: eui, AppKey: appKey, DataRate: 5, App: a, PowerUp: time.Duration(i+1) * 500 * time.Millisecond}); err != nil {
			return err
		}
	}
	if err := s.listen(ctx); err != nil {
		return err
	}
	defer s.listener.Disconnect(context.WithoutCancel(ctx))
	if s.attached, err = gateway.Attach(ctx, gateway.Config{
		World: s.World, Medium: s.medium, Broker: s.Broker, Gateways: s.gateways, QoS: 1, Downlink: s.downlink,
	}); err != nil {
		return err
	}
	for _, check := range checks {
		s.say("# %s", check.name)
		if err := check.run(s); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
	}
	return nil
}

// say writes a line of the transcript.
func (s *suite) say(format string, args ...any) {
	s.report.Transcript = append(s.report.Transcript, fmt.Sprintf(format, args...))
}

// expect writes a line, and a failure if the observation is another one.
func (s *suite) expect(what string, got, want any) {
	s.say("%s: %v", what, got)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.report.Failures = append(s.report.Failures, fmt.Sprintf("%s: %v, want %v", what, got, want))
	}
}

// judge gives the verdict on a statement.
func (s *suite) judge(text string, v Verdict, evidence string, args ...any) {
	s.report.Statements = append(s.report.Statements, Statement{text, v, fmt.Sprintf(evidence, args...)})
}

// listen subscribes to the events of the application.
func (s *suite) listen(ctx context.Context) error {
	broker, err := url.Parse(s.Broker)
	if err != nil {
		return err
	}
	ready := make(chan error, 1)
	s.listener, err = autopaho.NewConnection(ctx, autopaho.ClientConfig{
		ServerUrls: []*url.URL{broker}, KeepAlive: 30, CleanStartOnInitialConnection: true, ConnectUsername: broker.User.Username(),
		OnConnectionUp: func(c *autopaho.ConnectionManager, _ *paho.Connack) {
			_, err := c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "application/" + s.site.Application + "/device/+/event/+", QoS: 1}}})
			select {
			case ready <- err:
			default:
			}
		},
		ClientConfig: paho.ClientConfig{
			ClientID: fmt.Sprintf("sower-conformance-%x", radio.Hash(s.Seed)),
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
				part := strings.Split(p.Packet.Topic, "/")
				e := event{kind: part[len(part)-1], data: p.Packet.Payload}
				s.mu.Lock()
				defer s.mu.Unlock()
				e.device = slices.IndexFunc(s.devices, func(eui lorawan.EUI64) bool { return eui.String() == part[3] })
				s.events = append(s.events, e)
				s.sample(e)
				return true, nil
			}},
		},
	})
	if err != nil {
		return err
	}
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return err
}

// downlink records multicast frames and decides what the gateways say of them.
func (s *suite) downlink(id lorawan.EUI64, m *gw.DownlinkFrame) (gw.TxAckStatus, bool) {
	var phy lorawan.PHYPayload
	if len(m.Items) == 0 || phy.UnmarshalBinary(m.Items[0].PhyPayload) != nil {
		return gw.TxAckStatus_OK, false
	}
	mac, ok := phy.MACPayload.(*lorawan.MACPayload)
	if !ok || binary.BigEndian.Uint32(mac.FHDR.DevAddr[:]) != mcAddr {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.answers = append(s.answers, m)
		return s.reply, s.mute
	}
	valid, err := phy.ValidateDownlinkDataMIC(lorawan.LoRaWAN1_0, 0, mcNwk)
	c := command{at: s.World.Now(), id: m.DownlinkId, fCnt: int(mac.FHDR.FCnt) - int(s.base), validMIC: valid && err == nil}
	c.gateway = slices.Index(s.gateways, id)
	if e := m.Items[0].TxInfo.GetTiming().GetGpsEpoch(); e != nil {
		c.emitAt, c.hasEmit = airtime.UTC(e.GetTimeSinceGpsEpoch().AsDuration()), true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands = append(s.commands, c)
	return s.refuse, s.silent
}

// gatewaysSay decides what the gateways answer to multicast frames from now on.
func (s *suite) gatewaysSay(status gw.TxAckStatus, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse, s.silent = status, silent
}

// answered decides what the gateways say of all other frames from now on, and forgets those until now.
func (s *suite) answered(status gw.TxAckStatus, mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reply, s.mute, s.answers = status, mute, nil
}

// takeAnswers returns the frames that were no multicast since the last call.
func (s *suite) takeAnswers() []*gw.DownlinkFrame {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.answers
	s.answers = nil
	return out
}

// take returns the commands since the last call.
func (s *suite) take() []command {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.commands
	s.commands = nil
	return out
}

// watch makes a device one whose events are told apart.
func (s *suite) watch(eui lorawan.EUI64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices = append(s.devices, eui)
}

// takeEvents returns the events of a kind since the last call for it.
func (s *suite) takeEvents(kind string) (out []event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var rest []event
	for _, e := range s.events {
		if e.kind == kind {
			out = append(out, e)
		} else {
			rest = append(rest, e)
		}
	}
	s.events = rest
	return out
}

func (s *suite) pass(d time.Duration) error { return s.Pass(s.ctx, d) }

// app is a device: it says hello each ten seconds, and listens to the group of the suite in class C.
type app struct {
	start time.Time
	next  uint64

	mu    sync.Mutex
	heard []string
}

func (a *app) frames(ms ...modem.Message) ([]modem.Frame, error) {
	idle := uint64(modem.Never)
	if a.next != 0 {
		idle = a.next
	}
	return modem.Frames(append(ms, modem.IdleUntil{Time: idle})...)
}

// PowerUp implements fleet.App.
func (a *app) PowerUp() ([]modem.Frame, error) {
	from := uint64(airtime.GPS(a.start) / time.Millisecond)
	return a.frames(
		modem.SetMcGroup{Defined: true, Addr: mcAddr, AppSKey: mcApp, NwkSKey: mcNwk, MaxFCnt: 1 << 30},
		modem.Session{Class: 'C', DR: mcDR, Frequency: mcFreq, Start: from, End: from + 86_400_000})
}

// Turn implements fleet.App.
func (a *app) Turn(f modem.Frame) ([]modem.Frame, error) {
	m, err := f.Message()
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case modem.Link:
		if m.Joined && a.next == 0 {
			a.next = m.Time
		}
	case modem.Tick:
		if a.next != 0 && m.Time >= a.next {
			a.next = m.Time + 10_000
			return a.frames(modem.Up{Port: 2, Data: []byte("hello")})
		}
	case modem.Down:
		a.mu.Lock()
		a.heard = append(a.heard, string(m.Data))
		a.mu.Unlock()
	}
	return a.frames()
}

// Close implements fleet.App.
func (a *app) Close() error { return nil }

// take returns what the device has heard since the last call.
func (a *app) take() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := strings.Join(a.heard, " ")
	a.heard = nil
	return out
}
