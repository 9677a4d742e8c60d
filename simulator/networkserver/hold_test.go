package networkserver_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"github.com/eclipse/paho.golang/paho"

	"github.com/sower-fuota/sower/simulator/world"
)

type message struct {
	topic   string
	payload []byte
}

// client connects a second subscriber. receive gets each message and the means to acknowledge it.
func (n *simnet) client(id string, qos byte, session uint32, receive func(m message, ack func())) (*paho.Client, net.Conn) {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.server.MQTTAddress())
	if err != nil {
		n.t.Fatal(err)
	}
	var c *paho.Client
	c = paho.NewClient(paho.ClientConfig{Conn: conn, EnableManualAcknowledgment: true, SendAcksInterval: time.Millisecond,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){func(p paho.PublishReceived) (bool, error) {
			receive(message{p.Packet.Topic, p.Packet.Payload}, func() { _ = c.Ack(p.Packet) })
			return true, nil
		}}})
	connect := &paho.Connect{ClientID: id, KeepAlive: 60, Properties: &paho.ConnectProperties{SessionExpiryInterval: &session}}
	if _, err := c.Connect(n.t.Context(), connect); err != nil {
		n.t.Fatal(err)
	}
	if _, err := c.Subscribe(n.t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "application/+/device/+/event/up", QoS: qos}}}); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return c, conn
}

// raw records messages as they came.
func (n *simnet) raw() *[]message {
	var got []message
	n.client("raw", 1, 0, func(m message, ack func()) {
		got = append(got, m)
		n.fence()
		ack()
	})
	return &got
}

func heartbeats(t *testing.T) *simnet {
	return start(t, options{devices: []int{1}, app: func(int) *model { return &model{period: 60_000} }})
}

// TestTimeStandsStillUntilTheEventIsAcknowledged keeps an event for a while of wall-clock time: no virtual time passes.
func TestTimeStandsStillUntilTheEventIsAcknowledged(t *testing.T) {
	n := heartbeats(t)
	received := make(chan func(), 1)
	var once sync.Once
	n.client("slow", 1, 0, func(_ message, ack func()) {
		kept := false
		once.Do(func() { received <- ack; kept = true })
		if !kept {
			ack()
		}
	})
	done := make(chan error, 1)
	go func() { done <- n.world.Run(n.t.Context(), epoch.Add(time.Hour)) }()
	ack := <-received
	at := n.world.Now()
	for range 50 {
		// Each call holds the world too, and lets it go again: the event must still hold it.
		n.queueOf(1)
	}
	select {
	case err := <-done:
		t.Fatalf("the run ended with an event not acknowledged: %v", err)
	default:
	}
	if now := n.world.Now(); now != at || now.Sub(epoch) > 2*time.Minute {
		t.Errorf("time went from %s to %s", at, now)
	}
	ack()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if len(n.of("up")) < 58 {
		t.Errorf("%d uplinks in an hour", len(n.of("up")))
	}
}

// TestStallNamesTheSubscriber: one that never acknowledges does not hang the run.
func TestStallNamesTheSubscriber(t *testing.T) {
	n := heartbeats(t)
	n.world.StallAfter = 50 * time.Millisecond
	n.client("sleeper", 1, 0, func(message, func()) {})
	const holder = "MQTT event not acknowledged by sleeper (1)"
	err := n.world.Run(t.Context(), epoch.Add(time.Hour))
	for errors.Is(err, world.ErrStalled) && !strings.Contains(err.Error(), holder) { // somebody else is just slow
		err = n.world.Run(t.Context(), epoch.Add(time.Hour))
	}
	if !errors.Is(err, world.ErrStalled) || !strings.Contains(err.Error(), holder) {
		t.Errorf("Run = %v, want ErrStalled naming the subscriber", err)
	}
}

// TestSubscriberThatDiesReleasesTheWorld cuts the connection instead of acknowledging. With a persistent session
// it gets the same event again when it comes back.
func TestSubscriberThatDiesReleasesTheWorld(t *testing.T) {
	n := heartbeats(t)
	var mu sync.Mutex
	var first []message
	var conn net.Conn
	ready := make(chan struct{})
	_, conn = n.client("crasher", 1, 3600, func(m message, _ func()) {
		<-ready
		mu.Lock()
		defer mu.Unlock()
		first = append(first, m)
		conn.Close()
	})
	close(ready)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.world.Run(ctx, epoch.Add(30*time.Minute)); err != nil {
		t.Fatal(err)
	}
	again := make(chan message, 100)
	n.client("crasher", 1, 3600, func(m message, ack func()) { again <- m; ack() })
	mu.Lock()
	defer mu.Unlock()
	if len(first) != 1 {
		t.Fatalf("%d events before the crash, want 1", len(first))
	}
	// The event that was not acknowledged comes again, then what it missed, in order.
	for i, e := range n.of("up") {
		select {
		case m := <-again:
			got := n.decode(m.topic, m.payload).m.(*integration.UplinkEvent)
			if want := e.m.(*integration.UplinkEvent); got.DeduplicationId != want.DeduplicationId {
				t.Errorf("event %d after the reconnection has counter %d, want %d", i, got.FCnt, want.FCnt)
			}
		case <-ctx.Done():
			t.Fatalf("event %d did not come again", i)
		}
	}
}

// TestQoS0IsNotWaitedFor: such a subscriber misses nothing here, but cannot hold the world.
func TestQoS0IsNotWaitedFor(t *testing.T) {
	n := heartbeats(t)
	n.client("careless", 0, 0, func(message, func()) {})
	n.run(10 * time.Minute)
	if len(n.of("up")) < 8 {
		t.Errorf("%d uplinks in ten minutes", len(n.of("up")))
	}
}
