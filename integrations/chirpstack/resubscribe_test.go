package chirpstack

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// moody is a broker that refuses the second subscription.
type moody struct {
	mqtt.HookBase
	subscriptions atomic.Int32
}

func (*moody) ID() string { return "moody" }
func (*moody) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}
func (*moody) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }
func (m *moody) OnACLCheck(_ *mqtt.Client, _ string, write bool) bool {
	return write || m.subscriptions.Add(1) != 2
}

// After a connection was lost, a broker that has forgotten the session may be too busy to take the subscription. It is
// tried again, or no event would come any more.
func TestSubscribesAgain(t *testing.T) {
	serve := func(l net.Listener, hook *moody) *mqtt.Server {
		broker := mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err := broker.AddHook(hook, nil); err != nil {
			t.Fatal(err)
		}
		if err := broker.AddListener(listeners.NewNet("tcp", l)); err != nil {
			t.Fatal(err)
		}
		if err := broker.Serve(); err != nil {
			t.Fatal(err)
		}
		return broker
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	hook := new(moody)
	broker := serve(l, hook)
	n, err := Dial(Config{Server: "127.0.0.1:1", Token: "t", Region: airtime.EU868, MQTT: "mqtt://" + address, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	events, err := n.Events(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	broker.Close()
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for l, err = net.Listen("tcp", address); errors.Is(err, syscall.EADDRINUSE); l, err = net.Listen("tcp", address) {
		<-pace.C // another process has the port for a moment
	}
	if err != nil {
		t.Fatal(err)
	}
	broker = serve(l, hook) // the same address, and nothing is known of a session
	defer broker.Close()
	// Published again and again, because nothing is kept for somebody who has not subscribed.
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.After(5 * time.Minute)
	for {
		select {
		case ev := <-events:
			ev.Done()
			if n := hook.subscriptions.Load(); ev.Kind != network.EventUplink || n < 3 {
				t.Errorf("%+v after %d subscriptions", ev, n)
			}
			return
		case <-again.C:
			if err := broker.Publish("application/a/device/0101010101010a0b/event/up", []byte(`{"deduplicationId":"d",`+info+`,"fPort":2}`), false, 1); err != nil {
				t.Fatal(err)
			}
		case <-limit:
			t.Fatalf("no event after %d subscriptions", hook.subscriptions.Load())
		}
	}
}
