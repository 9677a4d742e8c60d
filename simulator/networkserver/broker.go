package networkserver

import (
	"bytes"
	"log/slog"
	"net"
	"sync"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sower-fuota/sower/simulator/world"
)

// broker is the embedded MQTT broker. It lets everybody in: it listens on loopback only.
type broker struct {
	server  *mqtt.Server
	hook    *holdHook
	address string
	closed  sync.Once
}

func newBroker(w *world.World, l net.Listener, log *slog.Logger) (*broker, error) {
	// The broker reports every connection at level Info; only what is wrong is worth a line here.
	quiet := slog.New(atLeast{log.Handler(), slog.LevelWarn})
	server := mqtt.New(&mqtt.Options{InlineClient: true, Logger: quiet})
	b := &broker{server: server, address: l.Addr().String(),
		hook: &holdHook{world: w, held: map[*mqtt.Client]map[uint16]func(){}}}
	if err := server.AddHook(b.hook, nil); err != nil {
		return nil, err
	}
	if err := server.AddListener(listeners.NewNet("events", l)); err != nil {
		return nil, err
	}
	if err := server.Serve(); err != nil {
		return nil, err
	}
	return b, nil
}

// publish hands a message to all subscribers; when it returns, the world is held for each with QoS 1.
func (b *broker) publish(topic string, payload []byte) error {
	return b.server.Publish(topic, payload, false, 1)
}

func (b *broker) close() {
	b.closed.Do(func() {
		b.server.Close()
		b.hook.releaseAll()
	})
}

// holdHook holds the world from the instant at which a message is queued for a subscriber until the subscriber
// acknowledges it or goes away.
type holdHook struct {
	mqtt.HookBase
	world *world.World

	mu     sync.Mutex
	held   map[*mqtt.Client]map[uint16]func()
	closed bool
}

func (h *holdHook) ID() string { return "hold-world" }

func (h *holdHook) Provides(b byte) bool {
	return bytes.IndexByte([]byte{
		mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnDisconnect,
		mqtt.OnQosPublish, mqtt.OnQosComplete, mqtt.OnQosDropped, mqtt.OnClientExpired,
	}, b) >= 0
}

func (h *holdHook) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

func (h *holdHook) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

// OnQosPublish is called before the message is written. A subscriber that is not connected has a persistent
// session: the message waits for it, the world does not.
func (h *holdHook) OnQosPublish(cl *mqtt.Client, pk packets.Packet, _ int64, _ int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || cl.Closed() || h.held[cl][pk.PacketID] != nil {
		return
	}
	if h.held[cl] == nil {
		h.held[cl] = map[uint16]func(){}
	}
	h.held[cl][pk.PacketID] = h.world.Hold("MQTT event not acknowledged by " + cl.ID)
}

func (h *holdHook) OnQosComplete(cl *mqtt.Client, pk packets.Packet) { h.release(cl, pk.PacketID) }

func (h *holdHook) OnQosDropped(cl *mqtt.Client, pk packets.Packet) { h.release(cl, pk.PacketID) }

// OnDisconnect is called once the connection is closed. Holds belong to the connection and not to the client
// id: a new connection that has taken the session over holds the world itself for what is sent again.
func (h *holdHook) OnDisconnect(cl *mqtt.Client, _ error, _ bool) { h.releaseClient(cl) }

func (h *holdHook) OnClientExpired(cl *mqtt.Client) { h.releaseClient(cl) }

func (h *holdHook) release(cl *mqtt.Client, id uint16) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if release := h.held[cl][id]; release != nil {
		release()
		delete(h.held[cl], id)
	}
}

func (h *holdHook) releaseClient(cl *mqtt.Client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, release := range h.held[cl] {
		release()
	}
	delete(h.held, cl)
}

func (h *holdHook) releaseAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, messages := range h.held {
		for _, release := range messages {
			release()
		}
	}
	clear(h.held)
}
