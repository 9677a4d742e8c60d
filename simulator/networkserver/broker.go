package networkserver

import (
	"bytes"
	"log/slog"
	"net"
	"sync"
	"time"

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

// newBroker starts a broker that hands what clients publish to published, before it acknowledges it.
func newBroker(w *world.World, l net.Listener, log *slog.Logger, published func(topic string, payload []byte)) (*broker, error) {
	// The broker reports every connection at level Info; only what is wrong is worth a line here.
	quiet := slog.New(atLeast{log.Handler(), slog.LevelWarn})
	server := mqtt.New(&mqtt.Options{InlineClient: true, Logger: quiet})
	b := &broker{server: server, address: l.Addr().String(),
		hook: &holdHook{
			world: w, held: map[*mqtt.Client]map[uint16]func(){}, alias: map[*mqtt.Client]map[uint16]uint16{},
			published: published,
			order:     (time.Now().Unix()>>16 + 1) << 16,
		}}
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
	world     *world.World
	published func(topic string, payload []byte)

	mu     sync.Mutex
	held   map[*mqtt.Client]map[uint16]func()
	alias  map[*mqtt.Client]map[uint16]uint16
	order  int64 // of the next event, see OnPublish
	closed bool
}

func (h *holdHook) ID() string { return "hold-world" }

func (h *holdHook) Provides(b byte) bool {
	return bytes.IndexByte([]byte{
		mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnDisconnect,
		mqtt.OnQosPublish, mqtt.OnQosComplete, mqtt.OnQosDropped, mqtt.OnClientExpired,
		mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnPublish,
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
	delete(h.alias, cl)
}

// OnPublish numbers the events. What waits for a subscriber is sent in the order of the time of publication,
// of which the broker keeps 16 bits of whole seconds; numbers in their place make the order exact.
func (h *holdHook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if !cl.Net.Inline {
		h.published(pk.TopicName, pk.Payload)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	pk.Created = h.order
	h.order++
	return pk, nil
}

// OnPacketRead and OnPacketEncode make good a flaw of the broker. Packet identifiers of the two directions are
// independent, but it refuses a SUBSCRIBE whose identifier some unacknowledged event also has, which is what a
// client meets when it resumes its session. Such a request is given another identifier on its way in, and its
// answer the original one on its way out.
func (h *holdHook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if pk.FixedHeader.Type != packets.Subscribe && pk.FixedHeader.Type != packets.Unsubscribe {
		return pk, nil
	}
	if _, used := cl.State.Inflight.Get(pk.PacketID); !used {
		return pk, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for id := uint16(0xffff); id > 0; id-- {
		if _, used := cl.State.Inflight.Get(id); !used && h.alias[cl][id] == 0 {
			if h.alias[cl] == nil {
				h.alias[cl] = map[uint16]uint16{}
			}
			h.alias[cl][id] = pk.PacketID
			pk.PacketID = id
			break
		}
	}
	return pk, nil
}

func (h *holdHook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	if pk.FixedHeader.Type != packets.Suback && pk.FixedHeader.Type != packets.Unsuback {
		return pk
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if original := h.alias[cl][pk.PacketID]; original != 0 {
		delete(h.alias[cl], pk.PacketID)
		pk.PacketID = original
	}
	return pk
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
