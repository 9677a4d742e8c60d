package traps_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/eclipse/paho.golang/paho"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

var eventTraps = []trap{
	{"3.1, 6.2", "events are JSON or protobuf and do not say which", "chirpstack decoding", "chirpstack protobuf-events", protobufEvents},
	{"3.5, 6.2", "a newer server adds fields", "chirpstack decoding", "chirpstack newer-fields", newerFields},
	{"3.1", "the broker forgets who is away", "MQTT session kept for a day, QoS 1", "chirpstack session-kept", awayForAWhile},
	{"3.2, 6.2", "events come twice", "chirpstack inbox", "chirpstack events-once", doubledEvents},
	{"3.2", "an event that was acknowledged too early is lost with the process", "acknowledged at Done", "chirpstack ack-after-done", diedInBetween},
	{"3.3", "the HTTP integration takes 200 for done", "chirpstack.Webhook answers after Done", "chirpstack webhook-commit", webhookCommit},
	{"3.3", "anybody can post events", "chirpstack.Webhook wants a secret", "chirpstack webhook-secret", webhookSecret},
	{"1.3, 3.5", "at a join session, groups and queued messages are gone", "EventJoin, upon which session sets up again", "chirpstack joins", toldOfJoins},
	{"3.1", "events are published with QoS 0 unless configured", "chirpstack.ProbeBroker, doctor", "chirpstack event-qos", publishedWithQoS0},
	{"3.5", "with a join server of its own a device sends cipher text", "chirpstack decoding", "chirpstack end-to-end", endToEnd},
	{"3.5", "the time of an event is that of the server", "chirpstack takes the gateway's", "chirpstack gateway-time", gatewayTime},
	{"3.4", "StreamDeviceEvents keeps ten events and asks once a second", "never called; MQTT or webhook", "", neverStreams},
}

// uplinks runs one device for five minutes and wants its uplinks.
func uplinks(p *probe, server func(*networkserver.Config)) error {
	r := p.start(site{devices: 1, beacons: 1, server: server})
	stop := r.listen()
	r.run(5*time.Minute + 30*time.Second)
	stop()
	seen := map[uint32]int{}
	for _, ev := range r.of(network.EventUplink) {
		seen[ev.FCnt]++
		if ev.FPort != 2 || len(ev.Payload) != 1 || ev.Payload[0] != 7 {
			return errorf("uplink %+v", ev)
		}
	}
	if len(seen) != 5 || seen[0] != 1 || seen[1] != 1 || seen[2] != 1 || seen[3] != 1 || seen[4] != 1 {
		return errorf("uplinks by counter %v, want 0 to 4 once each", seen)
	}
	return nil
}

func protobufEvents(p *probe) error {
	return uplinks(p, func(c *networkserver.Config) { c.ProtobufEvents = true })
}

func newerFields(p *probe) error {
	return uplinks(p, func(c *networkserver.Config) { c.Faults.Events.Newer = true })
}

func doubledEvents(p *probe) error {
	return uplinks(p, func(c *networkserver.Config) {
		c.Faults.Events = networkserver.EventFaults{Duplicate: 1, Jitter: 10 * time.Second}
	})
}

func awayForAWhile(p *probe) error {
	r := p.start(site{devices: 1, beacons: 1})
	for _, until := range []time.Duration{90 * time.Second, 3*time.Minute + 30*time.Second, 5*time.Minute + 30*time.Second} {
		stop := func() {}
		if until != 3*time.Minute+30*time.Second { // away from 90 s to 210 s
			stop = r.listen()
		}
		r.run(until)
		stop()
	}
	if n := len(r.of(network.EventUplink)); n != 5 {
		return errorf("%d uplinks, want 5 with those of two minutes without us", n)
	}
	return nil
}

// diedInBetween takes an event, sees it again, and ends before it is done. A new engine must get it.
func diedInBetween(p *probe) error {
	r := p.start(site{devices: 1, beacons: 1})
	ctx, cancel := context.WithCancel(p.t.Context())
	events, err := r.cs.Events(ctx, appID)
	if err != nil {
		p.t.Fatal(err)
	}
	died := make(chan network.Event, 1)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for ev := range events {
			if ev.Kind == network.EventUplink {
				select {
				case died <- ev: // and never Done
					<-time.After(200 * time.Millisecond) // for an acknowledgement to get out that should not
					cancel()
					continue
				default:
				}
			}
			ev.Done()
		}
	}()
	r.run(100 * time.Second)
	<-finished
	lost := <-died
	stop := r.listen()
	r.run(2*time.Minute + 30*time.Second)
	stop()
	for _, ev := range r.of(network.EventUplink) {
		if ev.ID == lost.ID {
			return nil
		}
	}
	return errorf("uplink %d did not come again", lost.FCnt)
}

const (
	secret = "a secret that is long enough"
	info   = `"deviceInfo":{"devEui":"70b3000000000000","applicationId":"app"}`
)

// hook is a webhook with a listener that gets events over a channel.
func hook(p *probe) (post func(ctx context.Context, auth, body string) int, events <-chan network.Event) {
	h, err := chirpstack.NewWebhook(strings.ReplaceAll(secret, " ", "-"), 0)
	if err != nil {
		p.t.Fatal(err)
	}
	cs, err := dial(p, func(c *chirpstack.Config) { c.Webhook = h })
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	p.t.Cleanup(cancel)
	if events, err = cs.Events(ctx, "app"); err != nil {
		p.t.Fatal(err)
	}
	return func(ctx context.Context, auth, body string) int {
		req := httptest.NewRequestWithContext(ctx, http.MethodPost, "/?event=up", strings.NewReader(body))
		req.Header.Set("Authorization", auth)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		return w.Code
	}, events
}

func goodAuth() string { return "Bearer " + strings.ReplaceAll(secret, " ", "-") }

func webhookCommit(p *probe) error {
	post, events := hook(p)
	took := make(chan network.Event, 2)
	ctx, leave := context.WithCancel(p.t.Context())
	go func() {
		for ev := range events {
			took <- ev
			leave() // ChirpStack waits no longer
		}
	}()
	body := `{"deduplicationId":"d",` + info + `,"fPort":2,"data":"Bw=="}`
	if code := post(ctx, goodAuth(), body); code != http.StatusServiceUnavailable {
		return errorf("status %d for an event that is not committed, want 503", code)
	}
	(<-took).Done()
	if code := post(p.t.Context(), goodAuth(), body); code != http.StatusOK || len(took) != 0 {
		return errorf("status %d for the repetition of an event that is done, want 200", code)
	}
	return nil
}

func webhookSecret(p *probe) error {
	post, events := hook(p)
	go func() {
		for ev := range events {
			ev.Done()
		}
	}()
	body := `{"deduplicationId":"d",` + info + `,"fPort":2,"data":"Bw=="}`
	for _, auth := range []string{"", "Bearer", "Bearer wrong", strings.TrimPrefix(goodAuth(), "Bearer ")} {
		if code := post(p.t.Context(), auth, body); code != http.StatusUnauthorized {
			return errorf("status %d with Authorization %q, want 401", code, auth)
		}
	}
	if code := post(p.t.Context(), goodAuth(), body); code != http.StatusOK {
		return errorf("status %d with the secret, want 200", code)
	}
	return nil
}

// received posts an event and returns what the engine gets.
func received(p *probe, body string) network.Event {
	post, events := hook(p)
	got := make(chan network.Event, 1)
	go func() {
		for ev := range events {
			got <- ev
			ev.Done()
		}
	}()
	if code := post(p.t.Context(), goodAuth(), body); code != http.StatusOK {
		p.t.Fatalf("status %d", code)
	}
	return <-got
}

func endToEnd(p *probe) error {
	ev := received(p, `{"deduplicationId":"d",`+info+`,"fPort":200,"data":"AgA=","joinServerContext":{"sessionKeyId":"x"}}`)
	if ev.FPort != 0 || ev.Payload != nil {
		return errorf("cipher text %x on port %d was taken for a message", ev.Payload, ev.FPort)
	}
	return nil
}

func gatewayTime(p *probe) error {
	ev := received(p, `{"deduplicationId":"d","time":"2026-07-18T09:34:17Z",`+info+`,"fPort":202,"rxInfo":[{"gwTime":"2026-07-18T09:34:15.9Z"}]}`)
	if want := time.Date(2026, 7, 18, 9, 34, 15, 900e6, time.UTC); !ev.At.Equal(want) {
		return errorf("received at %s, want %s: the backhaul would be taken for a wrong clock", ev.At, want)
	}
	return nil
}

func neverStreams(p *probe) error {
	var seen calls
	observe := func(c *networkserver.Config) { c.Faults.Observe = seen.observe }
	if p.naive {
		r := p.start(site{server: observe})
		// The stream exists in no simulation, for it is for people; the call is seen.
		stream, err := api.NewInternalServiceClient(r.raw).StreamDeviceEvents(r.ctx, &api.StreamDeviceEventsRequest{DevEui: eui(0).String()})
		if err != nil {
			p.t.Fatal(err)
		}
		stream.Recv()
	} else if err := uplinks(p, observe); err != nil {
		return err
	}
	if seen.has("Stream") {
		return errorf("a stream was opened")
	}
	return nil
}

func toldOfJoins(p *probe) error {
	r := p.start(site{devices: 1, beacons: 1, server: func(c *networkserver.Config) { c.Profiles[0].FlushQueueOnActivate = true }})
	stop := r.listen()
	if _, err := r.cs.Send(p.t.Context(), network.Message{Device: eui(0), FPort: 200, Payload: []byte{1}, Expires: epoch.Add(time.Hour)}); err != nil {
		return err
	}
	r.run(3 * time.Minute)
	stop()
	if n := len(r.of(network.EventJoin)); n != 1 || len(r.of(network.EventSent)) != 0 {
		return errorf("%d joins were told, and %d messages sent that were queued before", n, len(r.of(network.EventSent)))
	}
	return nil
}

// publishedWithQoS0 publishes an event as ChirpStack does out of the box.
func publishedWithQoS0(p *probe) error {
	r := p.start(site{})
	conn, err := net.Dial("tcp", r.server.MQTTAddress())
	if err != nil {
		p.t.Fatal(err)
	}
	client := paho.NewClient(paho.ClientConfig{Conn: conn})
	if _, err := client.Connect(p.t.Context(), &paho.Connect{ClientID: "chirpstack", KeepAlive: 60, CleanStart: true}); err != nil {
		p.t.Fatal(err)
	}
	defer client.Disconnect(&paho.Disconnect{})
	ctx, cancel := context.WithCancel(p.t.Context())
	var publisher sync.WaitGroup
	publisher.Go(func() {
		again := time.NewTicker(5 * time.Millisecond)
		defer again.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-again.C:
				client.Publish(ctx, &paho.Publish{Topic: "application/" + appID + "/device/70b3000000000000/event/up", QoS: 0,
					Payload: []byte(`{"deduplicationId":"d","time":"2026-07-18T09:34:17Z",` + info + `,"fPort":2}`)})
			}
		}
	})
	b, err := r.cs.ProbeBroker(p.t.Context(), appID, 5*time.Second)
	cancel()
	publisher.Wait()
	if err != nil || b.Events == 0 || b.EventQoS != 0 || b.GrantedQoS != 1 {
		return errorf("ProbeBroker = %+v, %v, want events with QoS 0", b, err)
	}
	return nil
}
