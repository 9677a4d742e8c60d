package chirpstack

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"

	"github.com/sower-fuota/sower/engine/network"
)

const (
	// sessionExpiry is how long the broker keeps events for an engine that is away, in seconds.
	sessionExpiry = 24 * 3600
	// ackInterval is how often acknowledgements are sent. In a simulation nothing moves before they are.
	ackInterval = time.Millisecond
	// Between attempts to connect and to subscribe.
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 30 * time.Second
)

// Events implements [network.Network]. An event is acknowledged to the broker, or to whoever called the webhook,
// when its Done is called; what is not acknowledged comes again. ChirpStack must publish with QoS 1 for that.
func (n *Network) Events(ctx context.Context, application string) (<-chan network.Event, error) {
	s := newInbox()
	var topics []string
	if n.cfg.Webhook == nil {
		topic := fmt.Sprintf(n.cfg.Topic, application)
		if n.cfg.Share != "" {
			topic = "$share/" + n.cfg.Share + "/" + topic
		}
		topics = append(topics, topic)
	}
	tap := newTap(n, application)
	topics = append(topics, n.gatewayTopics()...)
	session, cancel := context.WithCancel(ctx)
	received := func(p paho.PublishReceived) (bool, error) {
		ack := sync.OnceFunc(func() {
			if err := p.Client.Ack(p.Packet); err != nil {
				// The connection it came over is gone; the broker sends it again.
				n.cfg.Log.Debug("acknowledgement", "topic", p.Packet.Topic, "error", err)
			}
		})
		var ev *network.Event
		var err error
		if gateway, ok := n.gatewayTopic(p.Packet.Topic); ok {
			ev, err = tap.heard(gateway, p.Packet.Payload)
		} else {
			ev, err = decode(p.Packet.Topic, p.Packet.Payload)
		}
		if err != nil {
			n.cfg.Log.Warn("event not understood", "topic", p.Packet.Topic, "error", err)
		}
		if ev == nil {
			ack()
		} else if err := s.deliver(session, *ev, ack); err != nil {
			n.cfg.Log.Debug("event not delivered", "topic", p.Packet.Topic, "error", err)
		}
		return true, nil
	}
	stopped := func() {}
	if len(topics) > 0 {
		var err error
		if stopped, err = n.listen(session, application, topics, received); err != nil {
			cancel()
			return nil, err
		}
	}
	if n.cfg.Webhook != nil {
		if err := n.cfg.Webhook.register(application, s); err != nil {
			cancel()
			stopped()
			return nil, err
		}
	}
	go func() {
		<-ctx.Done()
		if n.cfg.Webhook != nil {
			n.cfg.Webhook.unregister(application)
		}
		cancel()
		stopped()
		s.close()
	}()
	return s.out, nil
}

// gatewayTopics are the topics that tell the fate of frames; none if they are not configured.
func (n *Network) gatewayTopics() []string {
	var topics []string
	for _, tap := range n.taps {
		if defended("gateway-topics") {
			topics = append(topics, tap+"+/command/down", tap+"+/event/ack")
		}
	}
	return topics
}

// gatewayTopic returns what follows the prefix of one of our regions in a topic.
func (n *Network) gatewayTopic(topic string) (rest string, ok bool) {
	for _, tap := range n.taps {
		if rest, ok = strings.CutPrefix(topic, tap); ok {
			return rest, true
		}
	}
	return "", false
}

func subscriptions(topics []string) (out []paho.SubscribeOptions) {
	for _, topic := range topics {
		out = append(out, paho.SubscribeOptions{Topic: topic, QoS: 1})
	}
	return out
}

// listen connects to the broker, subscribes, and keeps both up until ctx ends. The function it returns waits until
// the connection is closed.
func (n *Network) listen(ctx context.Context, application string, topics []string, received func(paho.PublishReceived) (bool, error)) (func(), error) {
	broker, err := brokerAddress(n.cfg.MQTT, n.cfg.Password != "")
	if err != nil {
		return nil, err
	}
	subscribed, failed := make(chan struct{}), make(chan error, 1)
	var first sync.Once
	report := func(err error) {
		n.cfg.Log.Warn("MQTT connection", "broker", broker.Host, "error", err)
		select {
		case failed <- err:
		default:
		}
	}
	subscribe := func(ctx context.Context, cm *autopaho.ConnectionManager) error {
		ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
		defer cancel()
		ack, err := cm.Subscribe(ctx, &paho.Subscribe{Subscriptions: subscriptions(topics)})
		if err != nil {
			return fmt.Errorf("subscription to %s: %w", strings.Join(topics, ", "), err)
		}
		for i, qos := range ack.Reasons {
			if qos == 0 && i < len(topics) {
				n.cfg.Log.Warn("the broker grants QoS 0: events are lost while the engine restarts", "topic", topics[i])
			}
		}
		return nil
	}
	session, cancel := context.WithCancel(ctx)
	down := func() {} // ends what the present connection was used for
	cfg := autopaho.ClientConfig{
		ServerUrls:            []*url.URL{broker},
		TlsCfg:                n.cfg.TLS,
		KeepAlive:             30,
		SessionExpiryInterval: sessionExpiry,
		ConnectTimeout:        n.cfg.Timeout,
		ConnectUsername:       n.cfg.Username,
		ConnectPassword:       []byte(n.cfg.Password),
		ReconnectBackoff:      autopaho.NewExponentialBackoff(firstBackoff, lastBackoff, time.Second, 2),
		OnConnectionUp: func(cm *autopaho.ConnectionManager, _ *paho.Connack) {
			var up context.Context
			up, down = context.WithCancel(session)
			go func() { // a broker that knows of no session sends nothing until the subscription is made
				for pause := firstBackoff; ; pause = min(2*pause, lastBackoff) {
					err := subscribe(up, cm)
					if err == nil {
						first.Do(func() { close(subscribed) })
						return
					}
					if up.Err() != nil {
						return
					}
					report(err)
					select {
					case <-time.After(pause):
					case <-up.Done():
						return
					}
				}
			}()
		},
		OnConnectionDown: func() bool {
			down()
			return true
		},
		OnConnectError: report,
		ClientConfig: paho.ClientConfig{
			ClientID:                   n.cfg.ClientID + "-" + application,
			EnableManualAcknowledgment: true,
			SendAcksInterval:           ackInterval,
			OnPublishReceived:          []func(paho.PublishReceived) (bool, error){received},
		},
	}
	if n.cfg.Watch {
		cfg.ClientID = n.watcher()
	}
	if n.cfg.Watch || !defended("session-kept") {
		cfg.SessionExpiryInterval, cfg.CleanStartOnInitialConnection = 0, true
	}
	cm, err := autopaho.NewConnection(session, cfg)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("chirpstack: MQTT broker %s: %w", n.cfg.MQTT, err)
	}
	timeout := time.NewTimer(n.cfg.Timeout)
	defer timeout.Stop()
	select {
	case <-subscribed:
		return func() {
			cancel()
			<-cm.Done()
		}, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err = n.unreachable("no answer")
	case err = <-failed:
		err = n.unreachable(err.Error())
	}
	cancel()
	return nil, err
}

func (n *Network) unreachable(why string) error {
	return fmt.Errorf("chirpstack: MQTT broker %s: %w: %s; is it running, and is the address right?",
		n.cfg.MQTT, network.ErrUnavailable, why)
}
