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
)

// Broker is what a look at the MQTT broker has shown.
type Broker struct {
	GrantedQoS byte      // of our subscription
	Events     int       // that came while we listened
	EventQoS   byte      // lowest of them: what ChirpStack publishes with, at most GrantedQoS
	Latest     time.Time // time of the newest event, by the network's clock
	Heard      time.Time // when it came
	Gateways   bool      // Config.GatewayTopics may be read, as far as the broker says: some refuse in silence
}

// ProbeBroker connects to the MQTT broker, subscribes to the events of an application and listens for a while, or
// until the first event that can be read. It leaves nothing at the broker and takes no event from anybody.
func (n *Network) ProbeBroker(ctx context.Context, application string, listen time.Duration) (Broker, error) {
	broker, err := brokerAddress(n.cfg.MQTT, n.cfg.Password != "")
	if err != nil {
		return Broker{}, err
	}
	var mu sync.Mutex
	var res Broker
	heard := make(chan struct{}, 1)
	received := func(p paho.PublishReceived) (bool, error) {
		if _, ok := n.gatewayTopic(p.Packet.Topic); ok {
			return true, nil
		}
		ev, err := decode(p.Packet.Topic, p.Packet.Payload)
		mu.Lock()
		defer mu.Unlock()
		if res.Events == 0 || p.Packet.QoS < res.EventQoS {
			res.EventQoS = p.Packet.QoS
		}
		if !defended("event-qos") {
			res.EventQoS = res.GrantedQoS
		}
		res.Events++
		if err == nil && ev != nil && ev.At.After(res.Latest) {
			res.Latest, res.Heard = ev.At, time.Now()
			select {
			case heard <- struct{}{}:
			default:
			}
		}
		return true, nil
	}
	topic := fmt.Sprintf(n.cfg.Topic, application)
	gateways := n.gatewayTopics()
	granted, failed := make(chan byte, 1), make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	session, cancel := context.WithCancel(ctx)
	cm, err := autopaho.NewConnection(session, autopaho.ClientConfig{
		ServerUrls: []*url.URL{broker}, TlsCfg: n.cfg.TLS, KeepAlive: 30, ConnectTimeout: n.cfg.Timeout,
		CleanStartOnInitialConnection: true,
		ConnectUsername:               n.cfg.Username, ConnectPassword: []byte(n.cfg.Password),
		OnConnectionUp: func(cm *autopaho.ConnectionManager, _ *paho.Connack) {
			ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
			defer cancel()
			ack, err := cm.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: 1}}})
			switch {
			case err != nil:
				fail(fmt.Errorf("subscription to %s: %w", topic, err))
			case len(ack.Reasons) == 0 || ack.Reasons[0] > 2:
				fail(fmt.Errorf("subscription to %s was refused", topic))
			default:
				if len(gateways) > 0 {
					_, err := cm.Subscribe(ctx, &paho.Subscribe{Subscriptions: subscriptions(gateways)})
					mu.Lock()
					res.Gateways = err == nil
					mu.Unlock()
				}
				select {
				case granted <- ack.Reasons[0]:
				default:
				}
			}
		},
		OnConnectError: fail,
		ClientConfig:   paho.ClientConfig{ClientID: n.watcher(), OnPublishReceived: []func(paho.PublishReceived) (bool, error){received}},
	})
	if err != nil {
		cancel()
		return Broker{}, fmt.Errorf("chirpstack: MQTT broker %s: %w", n.cfg.MQTT, err)
	}
	defer func() {
		cancel()
		<-cm.Done()
	}()
	limit := time.NewTimer(n.cfg.Timeout)
	defer limit.Stop()
	select {
	case qos := <-granted:
		mu.Lock()
		res.GrantedQoS = qos
		mu.Unlock()
	case err := <-failed:
		return Broker{}, n.unreachable(strings.ReplaceAll(err.Error(), "\n", " "))
	case <-limit.C:
		return Broker{}, n.unreachable("no answer")
	case <-ctx.Done():
		return Broker{}, ctx.Err()
	}
	window := time.NewTimer(listen)
	defer window.Stop()
	select {
	case <-heard:
	case <-window.C:
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	return res, nil
}

// watcher is the MQTT client id of somebody who only watches, beside an engine that works under the configured one.
func (n *Network) watcher() string {
	return fmt.Sprintf("%s-watch-%x", n.cfg.ClientID, time.Now().UnixNano())
}
