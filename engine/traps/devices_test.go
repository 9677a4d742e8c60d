package traps_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

var deviceTraps = []trap{
	{"1.1", "plain gRPC beyond this machine shows the token", "chirpstack.Dial", "chirpstack token-in-clear", tokenInClear},
	{"1.1", "the token of a user ends within a day", "chirpstack.Dial", "chirpstack user-token", tokenOfUser},
	{"1.1", "a key that only reads fails at the first write", "chirpstack.MayWrite", "chirpstack write-probe", readOnlyKey},
	{"1.1", "a key that was deleted is told what a key without the right is told", "chirpstack errors ask whether the key exists", "chirpstack key-refused", deletedKey},
	{"1.6", "an older server has no place for GenAppKey", "chirpstack.Version, Capabilities", "chirpstack version-gate", oldServer},
	{"0.10, 6.2", "with TS003 in the profile the server answers the clock itself", "Capabilities.ServerAnswersClock", "chirpstack server-clock", serverClock},
	{"0.10", "with TS004 or TS005 in the profile it takes answers for its own", "chirpstack.Profile, doctor, plan", "chirpstack profile-packages", profilePackages},
	{"1.3", "a class C profile sends unicast into the session", "chirpstack.Profile, doctor, plan", "chirpstack profile-class", profileClassC},
	{"1.3", "a key that was never set reads as zeros", "chirpstack.RootKey", "chirpstack zero-key", zeroKey},
	{"1.3", "GenAppKey is not in nwk_key nor app_key", "chirpstack.RootKey by MAC version", "chirpstack key-field", keyField},
	{"1.3, 5", "ABP devices have no keys at all", "chirpstack.KeySource", "chirpstack key-override", overriddenKey},
	{"1.3", "a device that is not activated has an activation, an empty one", "chirpstack.Readiness", "chirpstack activation", neverActivated},
	{"1.3", "link metrics without start and end: Internal", "chirpstack.LinkHistory gives both", "", metricsRange},
	{"1.3", "hourly link metrics are forgotten after two days", "chirpstack.LinkHistory by the day", "chirpstack metrics-by-day", oldMetrics},
	{"1.3", "count_only is not honoured", "chirpstack.Queued counts items", "", countOnly},
	{"1.3, 3.5", "a confirmed item is tried once and dropped", "chirpstack.Send is unconfirmed", "", confirmedItem},
	{"1.3", "100 ms after an uplink its windows are given away", "an event is done when its answers are queued", "", answerInTime},
	{"1.3", "unicast items are dropped when they are too big or expired", "EventDropped from log events", "chirpstack unicast-drops", unicastDropped},
	{"1.3", "a unicast item that the gateway refuses stays", "DOWNLINK_GATEWAY is no drop", "", unicastRefused},
}

func tokenInClear(p *probe) error {
	if _, err := dial(p, func(c *chirpstack.Config) { c.Server = "http://lns.example.com:8080" }); err == nil {
		return errorf("plain http to another machine is accepted")
	}
	return nil
}

func tokenOfUser(p *probe) error {
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"aud":"chirpstack","iss":"chirpstack","sub":"x","typ":"user","exp":1}`))
	if _, err := dial(p, func(c *chirpstack.Config) { c.Token = "e30." + claims + ".c2ln" }); err == nil {
		return errorf("the token of a user is accepted")
	}
	claims = base64.RawURLEncoding.EncodeToString([]byte(`{"aud":"chirpstack","iss":"chirpstack","sub":"x","typ":"key"}`))
	if _, err := dial(p, func(c *chirpstack.Config) { c.Token = "e30." + claims + ".c2ln" }); err != nil {
		return errorf("an API key is refused: %v", err)
	}
	return nil
}

func readOnlyKey(p *probe) error {
	r := p.start(site{server: func(c *networkserver.Config) { c.Keys = []networkserver.APIKey{{Token: "reader", ReadOnly: true}} },
		client: func(c *chirpstack.Config) { c.Token = "reader" }})
	if err := r.cs.MayWrite(p.t.Context(), appID); !errors.Is(err, network.ErrDenied) {
		return errorf("MayWrite with a key that only reads = %v, want ErrDenied", err)
	}
	return nil
}

// deletedKey has the key of an administrator and of a tenant deleted in the middle of a window, and there again after some
// minutes: for somebody who makes a new one an ordinary day.
func deletedKey(p *probe) error {
	image, err := newBlock(30_000) // which takes longer
	if err != nil {
		p.t.Fatal(err)
	}
	for _, key := range []networkserver.APIKey{{Token: token}, {Token: "tenant", Tenant: tenantID}} {
		r := p.campaign(order{unknown: []int{20}, input: func(in *plan.Input) { in.Block = image }, server: func(c *networkserver.Config) {
			if key.Token != token {
				c.Keys = []networkserver.APIKey{key}
			}
		}, client: func(c *chirpstack.Config) { c.Token = key.Token }})
		said, failed, twice := 0, 0, 0
		queued := map[int]bool{}
		for _, en := range r.log {
			switch {
			case en.Kind == "broadcast" && en.N > 0:
				if queued[en.N] {
					twice++
				}
				queued[en.N] = true
			case en.Kind == "retry" && strings.Contains(en.Text, chirpstack.ErrKeyRefused.Error()):
				said++
			case en.Kind == "failed" && !strings.Contains(en.Text, "expired"): // a frame whose time has passed is not sent any more
				failed++
			}
		}
		believed, air := r.broadcasts(), r.air.counters()
		if r.updated() != 4 || r.groups != 0 || said == 0 || failed+twice > 0 || len(air) != len(believed) {
			return errorf("key of tenant %q deleted for a while: %d of 4 devices updated, %d groups left, %d calls repeated and %d given up, %d fragments queued twice, %d frames on the air and %d known",
				key.Tenant, r.updated(), r.groups, said, failed, twice, len(air), len(believed))
		}
	}
	return nil
}

func oldServer(p *probe) error {
	for _, version := range []string{"4.11.2", "3.16.0"} {
		r := p.start(site{server: func(c *networkserver.Config) { c.Version = version }})
		if _, err := r.cs.Capabilities(p.t.Context()); !isInvalid(err) {
			return errorf("Capabilities of ChirpStack %s = %v, want ErrInvalid", version, err)
		}
	}
	for _, version := range []string{"4.12.0", "4.20.0-test.1"} {
		r := p.start(site{server: func(c *networkserver.Config) { c.Version = version }})
		if caps, err := r.cs.Capabilities(p.t.Context()); err != nil || caps.Version == "" {
			return errorf("Capabilities of ChirpStack %s = %v", version, err)
		}
	}
	return nil
}

func serverClock(p *probe) error {
	r := p.start(site{devices: 1, server: func(c *networkserver.Config) { c.Profiles[0].ClockSync = api.Ts003Version_TS003_V100 }})
	if _, err := r.cs.Devices(p.t.Context(), appID); err != nil {
		return err
	}
	if caps, err := r.cs.Capabilities(p.t.Context()); err != nil || !caps.ServerAnswersClock {
		return errorf("the server answers the clock, Capabilities say %v, %v", caps.ServerAnswersClock, err)
	}
	return nil
}

func profilePackages(p *probe) error {
	cs := (&fake{profile: &api.DeviceProfile{AppLayerParams: &api.AppLayerParams{Ts004Version: api.Ts004Version_TS004_V100, Ts005Version: api.Ts005Version_TS005_V200}}}).serve(p.t)
	if pr, err := cs.Profile(p.t.Context(), profileID); err != nil || !pr.TS004 || !pr.TS005 {
		return errorf("Profile = %+v, %v, want TS004 and TS005", pr, err)
	}
	return nil
}

func profileClassC(p *probe) error {
	cs := (&fake{profile: &api.DeviceProfile{SupportsClassC: true}}).serve(p.t)
	if pr, err := cs.Profile(p.t.Context(), profileID); err != nil || !pr.ClassC {
		return errorf("Profile = %+v, %v, want class C", pr, err)
	}
	return nil
}

func zeroKey(p *probe) error {
	r := p.start(site{devices: 1, server: func(c *networkserver.Config) { c.Devices[0].Keys.GenAppKey = lorawan.AES128Key{} }})
	if _, err := r.cs.RootKey(p.t.Context(), eui(0)); !isNotFound(err) {
		return errorf("RootKey = %v, want ErrNotFound", err)
	}
	return nil
}

func keyField(p *probe) error {
	r := p.start(site{devices: 1})
	if key, err := r.cs.RootKey(p.t.Context(), eui(0)); err != nil || key != (network.Key{2, 0, 1}) {
		return errorf("the root key of a LoRaWAN 1.0.4 device is not its GenAppKey (%v)", err)
	}
	const a, b = "000102030405060708090a0b0c0d0e0f", "101112131415161718191a1b1c1d1e1f"
	cs := (&fake{profile: &api.DeviceProfile{MacVersion: common.MacVersion_LORAWAN_1_1_0}, keys: &api.DeviceKeys{NwkKey: a, AppKey: b, GenAppKey: a}}).serve(p.t)
	if key, err := cs.RootKey(p.t.Context(), eui(0)); err != nil || key[0] != 0x10 {
		return errorf("the root key of a LoRaWAN 1.1 device is not its AppKey (%v)", err)
	}
	return nil
}

type keySource map[network.EUI64]network.Key

func (s keySource) String() string { return "test" }
func (s keySource) RootKey(_ context.Context, device network.EUI64) (network.Key, error) {
	if key, ok := s[device]; ok {
		return key, nil
	}
	return network.Key{}, network.ErrNotFound
}

func overriddenKey(p *probe) error {
	r := p.start(site{devices: 2, server: func(c *networkserver.Config) { c.Devices[0].Keys = nil },
		client: func(c *chirpstack.Config) { c.Keys = keySource{eui(0): {7}} }})
	if key, err := r.cs.RootKey(p.t.Context(), eui(0)); err != nil || key != (network.Key{7}) {
		return errorf("RootKey of a device without keys row = %v", err)
	}
	if key, err := r.cs.RootKey(p.t.Context(), eui(1)); err != nil || key != (network.Key{2, 1, 1}) {
		return errorf("RootKey of a device without override = %v", err)
	}
	return nil
}

func neverActivated(p *probe) error {
	r := p.start(site{devices: 1})
	if ready, err := r.cs.Readiness(p.t.Context(), eui(0)); err != nil || ready.Activated {
		return errorf("Readiness = %+v, %v, want not activated", ready, err)
	}
	return nil
}

func metricsRange(p *probe) error {
	r := p.start(site{devices: 1, beacons: 1})
	r.run(10 * time.Minute)
	if p.naive {
		_, err := api.NewDeviceServiceClient(r.raw).GetLinkMetrics(r.ctx, &api.GetDeviceLinkMetricsRequest{DevEui: eui(0).String()})
		return err
	}
	if l, err := r.cs.LinkHistory(p.t.Context(), eui(0), epoch.Add(-24*time.Hour), r.world.Now()); err != nil || l.Packets == 0 {
		return errorf("LinkHistory = %+v, %v", l, err)
	}
	return nil
}

func oldMetrics(p *probe) error {
	r := p.start(site{devices: 1, beacons: 1})
	r.run(72 * time.Hour)
	l, err := r.cs.LinkHistory(p.t.Context(), eui(0), epoch, r.world.Now())
	if err != nil || l.Packets < 72*59 {
		return errorf("LinkHistory of three days with a packet each minute = %+v, %v", l, err)
	}
	return nil
}

func countOnly(p *probe) error {
	r := p.start(site{devices: 1})
	for range 3 {
		if _, err := r.cs.Send(p.t.Context(), network.Message{Device: eui(0), FPort: 200, Payload: []byte{1}}); err != nil {
			return err
		}
	}
	if p.naive {
		res, err := api.NewDeviceServiceClient(r.raw).GetQueue(r.ctx, &api.GetDeviceQueueItemsRequest{DevEui: eui(0).String(), CountOnly: true})
		if err != nil || len(res.Result) != 0 {
			return errorf("GetQueue with count_only returns %d items, %v", len(res.GetResult()), err)
		}
		return nil
	}
	if ids, err := r.cs.Queued(p.t.Context(), eui(0)); err != nil || len(ids) != 3 {
		return errorf("Queued = %v, %v, want 3", ids, err)
	}
	return nil
}

// unicastDropped queues a message that expires before the next uplink, and one that no window carries.
func unicastDropped(p *probe) error {
	r := p.start(site{devices: 1, beacons: 1})
	stop := r.listen()
	r.run(90 * time.Second)
	reasons := map[network.MessageID]string{}
	for reason, m := range map[string]network.Message{
		"EXPIRED":               {Device: eui(0), FPort: 200, Payload: []byte{1}, Expires: epoch.Add(91 * time.Second)},
		"DOWNLINK_PAYLOAD_SIZE": {Device: eui(0), FPort: 200, Payload: make([]byte, 250), Expires: epoch.Add(time.Hour)},
	} {
		id, err := r.cs.Send(p.t.Context(), m)
		if err != nil {
			return err
		}
		reasons[id] = reason
	}
	r.run(5 * time.Minute)
	stop()
	got := r.of(network.EventDropped)
	if len(got) != 2 || len(r.of(network.EventSent)) != 0 {
		return errorf("%d messages were reported as dropped and %d as sent, want 2 and 0", len(got), len(r.of(network.EventSent)))
	}
	for _, ev := range got {
		if ev.Reason != reasons[ev.Message] || ev.Device != eui(0) {
			return errorf("message %s was dropped for %q, want %q", ev.Message, ev.Reason, reasons[ev.Message])
		}
	}
	return nil
}

func unicastRefused(p *probe) error {
	r := p.start(site{devices: 1, beacons: 1, server: func(c *networkserver.Config) {
		c.Faults.Acks = []networkserver.AckFault{{From: 90 * time.Second, Until: 150 * time.Second, Status: gw.TxAckStatus_DUTY_CYCLE_OVERFLOW}}
	}})
	stop := r.listen()
	r.run(90 * time.Second)
	message := network.Message{Device: eui(0), FPort: 200, Payload: []byte{1}, Expires: epoch.Add(time.Hour)}
	id, err := r.cs.Send(p.t.Context(), message)
	if err != nil {
		return err
	}
	if p.naive { // takes the log event, which names no message, for the end of the only one
		r.run(150 * time.Second)
		if _, err := r.cs.Send(p.t.Context(), message); err != nil {
			return err
		}
	}
	r.run(10 * time.Minute)
	stop()
	if sent := r.of(network.EventSent); len(sent) != 1 || sent[0].Message != id || len(r.of(network.EventDropped)) != 0 {
		return errorf("sent %v, dropped %v, want message %s sent once", sent, r.of(network.EventDropped), id)
	}
	return nil
}

func confirmedItem(p *probe) error {
	r := p.start(site{devices: 1})
	client := api.NewDeviceServiceClient(r.raw)
	var err error
	if p.naive {
		_, err = client.Enqueue(r.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{DevEui: eui(0).String(), FPort: 200, Data: []byte{1}, Confirmed: true}})
	} else {
		_, err = r.cs.Send(p.t.Context(), network.Message{Device: eui(0), FPort: 200, Payload: []byte{1}, Expires: epoch.Add(time.Hour)})
	}
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := client.GetQueue(r.ctx, &api.GetDeviceQueueItemsRequest{DevEui: eui(0).String()})
	if err != nil || len(res.Result) != 1 || res.Result[0].Confirmed {
		return errorf("in the queue: %v, %v, want one unconfirmed item", res.GetResult(), err)
	}
	return nil
}

// answerInTime answers the first uplink, before or after it says that it is done with it.
func answerInTime(p *probe) error {
	r := p.start(site{devices: 1, beacons: 1})
	ctx, cancel := context.WithCancel(p.t.Context())
	events, err := r.cs.Events(ctx, appID)
	if err != nil {
		p.t.Fatal(err)
	}
	var asked, sent time.Time
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for ev := range events {
			switch {
			case ev.Kind == network.EventUplink && asked.IsZero():
				asked = ev.At
				if p.naive {
					ev.Done()
					<-time.After(100 * time.Millisecond) // as an engine that is busy with something else
				}
				if _, err := r.cs.Send(ctx, network.Message{Device: eui(0), FPort: 200, Payload: []byte{1}}); err != nil {
					p.t.Error(err)
				}
			case ev.Kind == network.EventSent:
				sent = ev.At
			}
			ev.Done()
		}
	}()
	r.run(10 * time.Minute)
	cancel()
	<-finished
	if late := sent.Sub(asked); sent.IsZero() || late > 2*time.Second {
		return errorf("the answer was sent after %s, want in the windows of the uplink", late)
	}
	return nil
}
