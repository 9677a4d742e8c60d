// Package gateway attaches a simulated fleet to a real ChirpStack v4: virtual gateways on a simulated radio that
// speak the protobuf or JSON messages of ChirpStack's MQTT gateway backend (chirpstack/api/go/v4/gw), as the
// gateway bridge and concentratord do.
//
//	<region>/gateway/<id>/event/stats   gw.GatewayStats    at the start and every 30 s: makes the gateway online
//	<region>/gateway/<id>/event/up      gw.UplinkFrame     what a device sent and the gateway heard
//	<region>/gateway/<id>/event/ack     gw.DownlinkTxAck   how a downlink was programmed, or why not
//	<region>/gateway/<id>/command/down  gw.DownlinkFrame   from the server
//
// The devices are those of package fleet on the same medium: OTAA, class A, multicast class C. The clock is
// that of their world. [Run] drives it with the wall clock, for a server that lives in real time; a server that
// shares the world is attached in virtual time, and with QoS 1 such a run is exact. [Provision] makes gateways,
// profile, application and devices known to a server.
//
// Not here: the Semtech UDP protocol, Basics Station, backend encryption, gateways that are configured by the
// server, duty-cycle statistics.
package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// Config describes the gateways. World, Medium, Broker and Gateways are required.
type Config struct {
	World    *world.World
	Medium   *radio.Medium
	Broker   string          // mqtt://[user:password@]host:port
	Region   string          // first level of the topics; empty: the region of the medium in lower case, such as eu868
	Gateways []lorawan.EUI64 // known to the server
	JSON     bool            // messages are JSON, else protobuf
	QoS      byte            // of events: 0, or 1 to wait for the broker each time

	// Downlink, if it is not nil, sees every downlink when it arrives and decides what becomes of it: with a status
	// other than OK the gateway refuses it, and with silent it does not acknowledge it either way. It is called in
	// a world event.
	Downlink func(id lorawan.EUI64, m *gw.DownlinkFrame) (status gw.TxAckStatus, silent bool)

	StatsInterval time.Duration // 0: 30 s
	Log           *slog.Logger  // nil discards
}

// Attachment is a set of gateways that are connected to a broker.
type Attachment struct {
	cfg      Config
	gateways map[string]*radio.Gateway
	// Two connections: a broker may refuse, or forget, a packet identifier that both directions use at once.
	events   *autopaho.ConnectionManager
	mute     bool
	commands *autopaho.ConnectionManager
	ctx      context.Context
	cancel   context.CancelFunc
}

// Attach connects the gateways to the broker; ctx bounds the first connection only. Afterwards connections that
// break are made again, and what happens meanwhile is lost, as with a real gateway. It is called before the
// world runs.
func Attach(ctx context.Context, cfg Config) (*Attachment, error) {
	switch {
	case cfg.World == nil || cfg.Medium == nil:
		return nil, errors.New("gateway: config has no World or no Medium")
	case len(cfg.Gateways) == 0:
		return nil, errors.New("gateway: config has no Gateways")
	case cfg.QoS > 1:
		return nil, fmt.Errorf("gateway: QoS %d, want 0 or 1", cfg.QoS)
	case cfg.StatsInterval < 0:
		return nil, fmt.Errorf("gateway: StatsInterval %s is negative", cfg.StatsInterval)
	}
	broker, err := url.Parse(cfg.Broker)
	if err != nil || broker.Host == "" {
		return nil, fmt.Errorf("gateway: broker %q is not of the form mqtt://host:port", cfg.Broker)
	}
	if cfg.Region == "" {
		cfg.Region = strings.ToLower(cfg.Medium.Plan().Region.String())
	}
	if cfg.StatsInterval == 0 {
		cfg.StatsInterval = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	a := &Attachment{cfg: cfg, gateways: map[string]*radio.Gateway{}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	for _, id := range cfg.Gateways {
		if a.gateways[id.String()], err = cfg.Medium.NewGateway(id, func(f radio.Frame, s radio.Signal) { a.hear(id, f, s) }); err != nil {
			a.cancel()
			return nil, fmt.Errorf("gateway: %w", err)
		}
	}
	subscribed := make(chan error, 1)
	if a.commands, err = a.connect(ctx, broker, "commands", func(c *autopaho.ConnectionManager) {
		select {
		case subscribed <- a.subscribe(c):
		default: // a later connection
		}
	}); err == nil {
		a.events, err = a.connect(ctx, broker, "events", nil)
	}
	if err == nil {
		select {
		case err = <-subscribed:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("gateway: broker %s: %w", broker.Host, err)
	}
	for _, id := range cfg.Gateways {
		a.stats(id)
	}
	return a, nil
}

// connect makes one of the connections.
func (a *Attachment) connect(ctx context.Context, broker *url.URL, what string, up func(*autopaho.ConnectionManager)) (*autopaho.ConnectionManager, error) {
	cfg := autopaho.ClientConfig{
		ServerUrls: []*url.URL{broker}, KeepAlive: 30, CleanStartOnInitialConnection: true,
		ConnectUsername: broker.User.Username(),
		OnConnectionUp: func(c *autopaho.ConnectionManager, _ *paho.Connack) {
			if up != nil {
				up(c)
			}
		},
		OnConnectError: func(err error) { a.cfg.Log.Warn("gateway not connected", "err", err) },
		ClientConfig: paho.ClientConfig{
			ClientID:          fmt.Sprintf("sower-gateway-%s-%s-%x", a.cfg.Gateways[0], what, time.Now().UnixNano()&0xffffffff),
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){a.receive},
		},
	}
	if password, ok := broker.User.Password(); ok {
		cfg.ConnectPassword = []byte(password)
	}
	c, err := autopaho.NewConnection(a.ctx, cfg)
	if err != nil {
		return nil, err
	}
	return c, c.AwaitConnection(ctx)
}

func (a *Attachment) subscribe(c *autopaho.ConnectionManager) error {
	s := &paho.Subscribe{}
	for id := range a.gateways {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{Topic: a.topic(id, "command/down"), QoS: 1})
	}
	_, err := c.Subscribe(a.ctx, s)
	return err
}

func (a *Attachment) topic(id, what string) string {
	return a.cfg.Region + "/gateway/" + id + "/" + what
}

// Airtime returns how long and how often a gateway has transmitted; zero for one that is not attached.
func (a *Attachment) Airtime(id lorawan.EUI64) (time.Duration, int) {
	if g := a.gateways[id.String()]; g != nil {
		return g.Airtime()
	}
	return 0, 0
}

// SetReporting makes the gateways stop and start again to report that they are there. It is called in a world event
// or while the world rests.
func (a *Attachment) SetReporting(on bool) { a.mute = !on }

// Close disconnects. The gateways stay on the medium and hear to no effect.
func (a *Attachment) Close() {
	a.cancel()
	for _, c := range []*autopaho.ConnectionManager{a.events, a.commands} {
		if c != nil {
			<-c.Done()
		}
	}
}

// publish sends an event. What cannot be sent is lost.
func (a *Attachment) publish(id, what string, m proto.Message) {
	if a.ctx.Err() != nil {
		return
	}
	var payload []byte
	var err error
	if a.cfg.JSON {
		payload, err = protojson.Marshal(m)
	} else {
		payload, err = proto.Marshal(m)
	}
	if err == nil {
		_, err = a.events.Publish(a.ctx, &paho.Publish{Topic: a.topic(id, "event/"+what), QoS: a.cfg.QoS, Payload: payload})
	}
	if err != nil && a.ctx.Err() == nil {
		a.cfg.Log.Warn("gateway event lost", "gateway", id, "event", what, "err", err)
	}
}

// stats reports a gateway, now and every interval from now on.
func (a *Attachment) stats(id lorawan.EUI64) {
	if a.ctx.Err() != nil {
		return
	}
	now := a.cfg.World.Now()
	a.cfg.World.At(now.Add(a.cfg.StatsInterval), "gateway statistics", func() { a.stats(id) })
	if a.mute {
		return
	}
	_, emitted := a.gateways[id.String()].Airtime()
	a.publish(id.String(), "stats", &gw.GatewayStats{GatewayId: id.String(), Time: timestamppb.New(now), TxPacketsEmitted: uint32(emitted)})
}

// hear reports an uplink. The context, which comes back with the answer, is the end of the uplink in
// nanoseconds of GPS time.
func (a *Attachment) hear(id lorawan.EUI64, f radio.Frame, s radio.Signal) {
	plan := a.cfg.Medium.Plan()
	rate, err := plan.Region.DataRate(f.DataRate)
	if err != nil {
		return
	}
	gps := airtime.GPS(f.End)
	a.publish(id.String(), "up", &gw.UplinkFrame{
		PhyPayload: f.Payload,
		TxInfo:     &gw.UplinkTxInfo{Frequency: f.Frequency, Modulation: modulation(rate)},
		RxInfo: &gw.UplinkRxInfo{
			GatewayId: id.String(), UplinkId: uint32(f.Key.Hash(binary.BigEndian.Uint64(id[:]))),
			GwTime: timestamppb.New(f.End), TimeSinceGpsEpoch: durationpb.New(gps),
			Rssi: int32(s.RSSI), Snr: s.SNR, Channel: uint32(plan.Channel(f.Frequency)),
			Context: binary.BigEndian.AppendUint64(nil, uint64(gps)), CrcStatus: gw.CRCStatus_CRC_OK,
		},
	})
}

func modulation(r airtime.DataRate) *gw.Modulation {
	if r.BitRate != 0 {
		return &gw.Modulation{Parameters: &gw.Modulation_Fsk{Fsk: &gw.FskModulationInfo{Datarate: uint32(r.BitRate)}}}
	}
	return &gw.Modulation{Parameters: &gw.Modulation_Lora{Lora: &gw.LoraModulationInfo{
		Bandwidth: uint32(r.Bandwidth), SpreadingFactor: uint32(r.SpreadingFactor), CodeRate: gw.CodeRate_CR_4_5,
	}}}
}

// receive takes a message of the broker; it is acknowledged when receive returns.
func (a *Attachment) receive(p paho.PublishReceived) (bool, error) {
	part := strings.Split(p.Packet.Topic, "/")
	if len(part) < 4 || a.gateways[part[len(part)-3]] == nil {
		return false, nil
	}
	id, m := part[len(part)-3], &gw.DownlinkFrame{}
	var err error
	if bytes.Contains(p.Packet.Payload, []byte("gatewayId")) {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(p.Packet.Payload, m)
	} else {
		err = proto.Unmarshal(p.Packet.Payload, m)
	}
	if err != nil {
		a.cfg.Log.Warn("gateway command", "gateway", id, "err", err)
		return true, nil
	}
	a.cfg.World.At(a.cfg.World.Now(), "gateway command", func() { a.command(id, m) })
	return true, nil
}

// command programs the first item of a downlink that the gateway can send, and acknowledges all of them.
func (a *Attachment) command(id string, m *gw.DownlinkFrame) {
	ack := &gw.DownlinkTxAck{GatewayId: id, DownlinkId: m.DownlinkId}
	done, silent, refuse := false, false, gw.TxAckStatus_OK
	if a.cfg.Downlink != nil {
		var eui lorawan.EUI64
		if err := eui.UnmarshalText([]byte(id)); err == nil {
			refuse, silent = a.cfg.Downlink(eui, m)
		}
	}
	for _, item := range m.Items {
		status := gw.TxAckStatus_IGNORED
		if refuse != gw.TxAckStatus_OK {
			status = refuse
		} else if !done {
			status = a.program(a.gateways[id], item, m.DownlinkId)
			done = status == gw.TxAckStatus_OK
		}
		ack.Items = append(ack.Items, &gw.DownlinkTxAckItem{Status: status})
	}
	if !silent {
		a.publish(id, "ack", ack)
	}
}

func (a *Attachment) program(g *radio.Gateway, item *gw.DownlinkFrameItem, downlink uint32) gw.TxAckStatus {
	tx := item.TxInfo
	dr, ok := a.dataRate(tx.GetModulation())
	if !ok {
		return gw.TxAckStatus_INTERNAL_ERROR
	}
	if tx.Frequency == 0 {
		return gw.TxAckStatus_TX_FREQ
	}
	// Copies differ, so that a frame that is sent again has another chance.
	f := radio.Frame{Payload: item.PhyPayload, Frequency: tx.Frequency, DataRate: dr, Copy: downlink}
	var err error
	switch timing := tx.GetTiming().GetParameters().(type) {
	case *gw.Timing_Immediately:
		_, err = g.TransmitSoon(f)
	case *gw.Timing_GpsEpoch:
		at := airtime.UTC(timing.GpsEpoch.GetTimeSinceGpsEpoch().AsDuration())
		if err = radio.ErrTooLate; at.After(a.cfg.World.Now()) {
			err = g.Transmit(f, at)
		}
	case *gw.Timing_Delay:
		if len(tx.Context) != 8 {
			return gw.TxAckStatus_INTERNAL_ERROR
		}
		end := airtime.UTC(time.Duration(binary.BigEndian.Uint64(tx.Context)))
		err = g.Transmit(f, end.Add(timing.Delay.GetDelay().AsDuration()))
	default:
		return gw.TxAckStatus_INTERNAL_ERROR
	}
	switch {
	case err == nil:
		return gw.TxAckStatus_OK
	case errors.Is(err, radio.ErrTooLate):
		return gw.TxAckStatus_TOO_LATE
	case errors.Is(err, radio.ErrCollision):
		return gw.TxAckStatus_COLLISION_PACKET
	default:
		a.cfg.Log.Warn("downlink refused", "err", err)
		return gw.TxAckStatus_INTERNAL_ERROR
	}
}

// dataRate is the downlink data rate of a modulation.
func (a *Attachment) dataRate(m *gw.Modulation) (int, bool) {
	lora, fsk := m.GetLora(), m.GetFsk()
	for dr := range 16 {
		rate, err := a.cfg.Medium.Plan().Region.DataRate(dr)
		if err != nil || !rate.Downlink {
			continue
		}
		if lora != nil && int(lora.SpreadingFactor) == rate.SpreadingFactor && int(lora.Bandwidth) == rate.Bandwidth ||
			fsk != nil && rate.BitRate > 0 && int(fsk.Datarate) == rate.BitRate {
			return dr, true
		}
	}
	return 0, false
}

// Run drives a world, made with the present time, with the wall clock until ctx ends. Events run up to 5 ms late.
func Run(ctx context.Context, w *world.World) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			w.At(now, "wall clock", func() {}) // an idle world has a clock too
			if err := w.Run(ctx, now); err != nil {
				return err
			}
		}
	}
}
