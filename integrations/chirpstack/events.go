package chirpstack

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

const (
	// sessionExpiry is how long the broker keeps events for an engine that is away, in seconds.
	sessionExpiry = 24 * 3600
	// ackInterval is how often acknowledgements are sent. In a simulation nothing moves before they are.
	ackInterval = time.Millisecond
	// remembered is how many events are remembered to recognise repetitions.
	remembered = 1 << 14
)

// Events implements [network.Network]. An event is acknowledged to the broker when its Done is called; what is
// not acknowledged comes again after a reconnection. ChirpStack must publish with QoS 1 for that.
func (n *Network) Events(ctx context.Context, application string) (<-chan network.Event, error) {
	broker, err := brokerAddress(n.cfg.MQTT, n.cfg.Password != "")
	if err != nil {
		return nil, err
	}
	s := &stream{ctx: ctx, net: n, out: make(chan network.Event), seen: map[string]bool{}}
	topic := fmt.Sprintf(n.cfg.Topic, application)
	subscribed, failed := make(chan struct{}), make(chan error, 1)
	var first sync.Once
	report := func(err error) {
		n.cfg.Log.Warn("MQTT connection", "broker", broker.Host, "error", err)
		select {
		case failed <- err:
		default:
		}
	}
	cfg := autopaho.ClientConfig{
		ServerUrls:            []*url.URL{broker},
		TlsCfg:                n.cfg.TLS,
		KeepAlive:             30,
		SessionExpiryInterval: sessionExpiry,
		ConnectTimeout:        n.cfg.Timeout,
		ConnectUsername:       n.cfg.Username,
		ConnectPassword:       []byte(n.cfg.Password),
		ReconnectBackoff:      autopaho.NewExponentialBackoff(100*time.Millisecond, 30*time.Second, time.Second, 2),
		OnConnectionUp: func(cm *autopaho.ConnectionManager, _ *paho.Connack) {
			ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
			defer cancel()
			if _, err := cm.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: 1}}}); err != nil {
				report(fmt.Errorf("subscription to %s: %w", topic, err))
				return
			}
			first.Do(func() { close(subscribed) })
		},
		OnConnectError: report,
		ClientConfig: paho.ClientConfig{
			ClientID:                   n.cfg.ClientID + "-" + application,
			EnableManualAcknowledgment: true,
			SendAcksInterval:           ackInterval,
			OnPublishReceived:          []func(paho.PublishReceived) (bool, error){s.received},
		},
	}
	if n.cfg.Watch {
		cfg.ClientID, cfg.SessionExpiryInterval, cfg.CleanStartOnInitialConnection = n.watcher(), 0, true
	}
	session, cancel := context.WithCancel(ctx)
	cm, err := autopaho.NewConnection(session, cfg)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("chirpstack: MQTT broker %s: %w", n.cfg.MQTT, err)
	}
	timeout := time.NewTimer(n.cfg.Timeout)
	defer timeout.Stop()
	select {
	case <-subscribed:
	case <-ctx.Done():
		cancel()
		return nil, ctx.Err()
	case <-timeout.C:
		cancel()
		return nil, n.unreachable("no answer")
	case err := <-failed:
		cancel()
		return nil, n.unreachable(err.Error())
	}
	go func() {
		<-ctx.Done()
		cancel()
		<-cm.Done()
		s.close()
	}()
	return s.out, nil
}

func (n *Network) unreachable(why string) error {
	return fmt.Errorf("chirpstack: MQTT broker %s: %w: %s; is it running, and is the address right?",
		n.cfg.MQTT, network.ErrUnavailable, why)
}

// stream turns MQTT messages into events.
type stream struct {
	ctx context.Context
	net *Network
	out chan network.Event

	mu     sync.RWMutex // held for reading while an event is handed over
	closed bool

	seenMu sync.Mutex
	seen   map[string]bool
	order  []string
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	close(s.out)
}

// received handles one message. It blocks while the engine is busy, which holds the next one back.
func (s *stream) received(p paho.PublishReceived) (bool, error) {
	var acked sync.Once
	ack := func() {
		acked.Do(func() {
			if err := p.Client.Ack(p.Packet); err != nil {
				// The connection it came over is gone; the broker sends it again.
				s.net.cfg.Log.Debug("acknowledgement", "topic", p.Packet.Topic, "error", err)
			}
		})
	}
	ev, err := decode(p.Packet.Topic, p.Packet.Payload)
	switch {
	case err != nil:
		s.net.cfg.Log.Warn("event not understood", "topic", p.Packet.Topic, "error", err)
		ack()
		return true, nil
	case ev == nil || s.repeated(ev.ID):
		ack()
		return true, nil
	}
	ev.Done = ack
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return true, nil
	}
	select {
	case s.out <- *ev:
	case <-s.ctx.Done():
	}
	return true, nil
}

// repeated reports whether an event has come before.
func (s *stream) repeated(id string) bool {
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	if s.seen[id] {
		return true
	}
	s.seen[id] = true
	s.order = append(s.order, id)
	if len(s.order) > remembered {
		delete(s.seen, s.order[0])
		s.order = s.order[1:]
	}
	return false
}

// lenient accepts the fields of newer servers.
var lenient = protojson.UnmarshalOptions{DiscardUnknown: true}

// decode reads one event in JSON. It returns nil for those that the engine has no use for.
func decode(topic string, payload []byte) (*network.Event, error) {
	kind := topic[strings.LastIndexByte(topic, '/')+1:]
	switch kind {
	case "up":
		var m integration.UplinkEvent
		if err := lenient.Unmarshal(payload, &m); err != nil {
			return nil, fmt.Errorf("uplink event: %w", err)
		}
		return uplink(&m)
	case "join":
		var m integration.JoinEvent
		if err := lenient.Unmarshal(payload, &m); err != nil {
			return nil, fmt.Errorf("join event: %w", err)
		}
		return event(&network.Event{ID: "join/" + m.GetDeduplicationId(), Kind: network.EventJoin, At: m.GetTime().AsTime()}, m.GetDeviceInfo())
	case "txack":
		var m integration.TxAckEvent
		if err := lenient.Unmarshal(payload, &m); err != nil {
			return nil, fmt.Errorf("txack event: %w", err)
		}
		if m.GetQueueItemId() == "" {
			return nil, nil // a frame with MAC commands only
		}
		return event(&network.Event{ID: "txack/" + m.GetQueueItemId(), Kind: network.EventSent, At: m.GetTime().AsTime(),
			Message: network.MessageID(m.GetQueueItemId())}, m.GetDeviceInfo())
	case "log":
		var m integration.LogEvent
		if err := lenient.Unmarshal(payload, &m); err != nil {
			return nil, fmt.Errorf("log event: %w", err)
		}
		switch m.GetCode() {
		case integration.LogCode_DOWNLINK_PAYLOAD_SIZE, integration.LogCode_EXPIRED, integration.LogCode_F_CNT_DOWN:
		default:
			return nil, nil // among them DOWNLINK_GATEWAY, after which the item stays in the queue
		}
		item := m.GetContext()["queue_item_id"]
		if item == "" {
			return nil, nil
		}
		return event(&network.Event{ID: "log/" + item, Kind: network.EventDropped, At: m.GetTime().AsTime(),
			Message: network.MessageID(item), Reason: m.GetCode().String()}, m.GetDeviceInfo())
	}
	return nil, nil
}

// event completes e with the device. Servers differ in the case of its EUI.
func event(e *network.Event, info *integration.DeviceInfo) (*network.Event, error) {
	eui, err := network.ParseEUI64(info.GetDevEui())
	if err != nil {
		return nil, err
	}
	e.Device = eui
	return e, nil
}

func uplink(m *integration.UplinkEvent) (*network.Event, error) {
	e := &network.Event{ID: "up/" + m.GetDeduplicationId(), Kind: network.EventUplink, At: received(m), FCnt: m.GetFCnt(),
		DataRate: int(m.GetDr()), Gateways: len(m.GetRxInfo())}
	if m.GetFPort() > 255 {
		return nil, fmt.Errorf("uplink event: FPort %d", m.GetFPort())
	}
	if m.GetJoinServerContext() == nil { // otherwise the payload is encrypted end to end
		e.FPort, e.Payload = uint8(m.GetFPort()), m.GetData()
	}
	for i, rx := range m.GetRxInfo() {
		if i == 0 || rx.GetRssi() > int32(e.RSSI) {
			e.RSSI = int(rx.GetRssi())
		}
		if i == 0 || float64(rx.GetSnr()) > e.SNR {
			e.SNR = float64(rx.GetSnr())
		}
	}
	return event(e, m.GetDeviceInfo())
}

// received is when an uplink was received: by the GPS of a gateway, else by the clock of a gateway, else by
// the clock of the server, which is late by the backhaul.
func received(m *integration.UplinkEvent) time.Time {
	for _, rx := range m.GetRxInfo() {
		if gps := rx.GetTimeSinceGpsEpoch(); gps != nil {
			return airtime.UTC(gps.AsDuration())
		}
	}
	for _, rx := range m.GetRxInfo() {
		if at := rx.GetGwTime(); at != nil {
			return at.AsTime()
		}
	}
	return m.GetTime().AsTime()
}
