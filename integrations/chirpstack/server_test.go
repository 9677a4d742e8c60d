package chirpstack_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/fleettest"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

var (
	epoch   = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	appID   = networkserver.UUID(1, "application")
	gateway = network.EUI64{0, 0x16, 0xc0, 1, 2, 3, 4, 5}
)

func eui(i int) network.EUI64 { return network.EUI64{0x70, 0xb3, 6: byte(i >> 8), 7: byte(i)} }

// server starts a simulated ChirpStack with n devices, of which the first beacons run.
func server(t *testing.T, n, beacons int) (*world.World, *chirpstack.Network) {
	w, cs, _ := serverWith(t, n, beacons, nil, nil)
	return w, cs
}

// serverWith starts one with other settings of server and client, and returns how to make another client.
func serverWith(t testing.TB, n, beacons int, change func(*networkserver.Config), client func(*chirpstack.Config)) (*world.World, *chirpstack.Network, func() *chirpstack.Network) {
	t.Helper()
	w, cs, _, dial := served(t, n, beacons, change, client)
	return w, cs, dial
}

// served is serverWith that returns the server, too.
func served(t testing.TB, n, beacons int, change func(*networkserver.Config), client func(*chirpstack.Config)) (*world.World, *chirpstack.Network, *networkserver.Server, func() *chirpstack.Network) {
	t.Helper()
	w := world.New(epoch)
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	medium := radio.NewMedium(w, radio.EU868(), loss)
	f, err := fleet.New(fleet.Config{World: w, Medium: medium, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	cfg := networkserver.Config{World: w, Medium: medium, Seed: 1, Token: "token",
		Tenant:       networkserver.Tenant{ID: networkserver.UUID(1, "tenant"), Name: "tenant"},
		Applications: []networkserver.Application{{ID: appID, Name: "meters"}},
		Profiles:     []networkserver.DeviceProfile{{ID: networkserver.UUID(1, "profile"), Name: "meter"}},
		Gateways:     []networkserver.Gateway{{ID: lorawan.EUI64(gateway), Name: "roof"}}}
	for i := range n {
		d := networkserver.Device{EUI: lorawan.EUI64(eui(i)), Name: "meter", Application: appID, Profile: cfg.Profiles[0].ID,
			Keys: &networkserver.Keys{AppKey: lorawan.AES128Key{1, byte(i)}, GenAppKey: lorawan.AES128Key{2, byte(i)}}}
		switch i {
		case 1:
			d.Keys.GenAppKey = lorawan.AES128Key{}
		case 2:
			d.Keys = nil
		}
		cfg.Devices = append(cfg.Devices, d)
		if i < beacons {
			if _, err := f.Add(fleet.DeviceConfig{EUI: d.EUI, AppKey: d.Keys.AppKey, DataRate: 5, App: &fleettest.Beacon{Uplink: modem.Up{Port: 2, Data: []byte{7}}, Echo: true}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if change != nil {
		change(&cfg)
	}
	s, err := networkserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		f.Close()
	})
	dial := func() *chirpstack.Network {
		cfg := chirpstack.Config{Server: s.GRPCAddress(), Token: "token", Region: airtime.EU868, MQTT: "mqtt://" + s.MQTTAddress(), Timeout: time.Minute}
		if client != nil {
			client(&cfg)
		}
		cs, err := chirpstack.Dial(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cs.Close() })
		return cs
	}
	return w, dial(), s, dial
}

// TestInventory has more devices than a page, all of one name.
func TestInventory(t *testing.T) {
	_, cs := server(t, 450, 0)
	devices, err := cs.Devices(t.Context(), appID)
	if err != nil {
		t.Fatal(err)
	}
	if len(devices) != 450 {
		t.Fatalf("%d devices, want 450", len(devices))
	}
	for i, d := range devices {
		if d.EUI != eui(i) || d.Name != "meter" || d.LoRaWAN11 || d.Class != network.ClassA || !d.LastSeen.IsZero() {
			t.Fatalf("device %d is %+v", i, d)
		}
	}
	gws, err := cs.Gateways(t.Context(), appID)
	if err != nil || len(gws) != 1 || gws[0].ID != gateway || !gws[0].Online {
		t.Errorf("Gateways = %+v, %v", gws, err)
	}
	if _, err := cs.Devices(t.Context(), "no UUID"); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("devices of no application: %v, want ErrInvalid", err)
	}
	if key, err := cs.RootKey(t.Context(), eui(3)); err != nil || key != (network.Key{2, 3}) {
		t.Errorf("RootKey = %v", err)
	}
	for _, i := range []int{1, 2, 999} {
		if _, err := cs.RootKey(t.Context(), eui(i)); !errors.Is(err, network.ErrNotFound) {
			t.Errorf("root key of device %d: %v, want ErrNotFound", i, err)
		}
	}
}

func TestGroup(t *testing.T) {
	_, cs := server(t, 3, 0)
	g := network.Group{Name: "sower-1", Application: appID, McAddr: 0x01020304, AppSKey: network.Key{1}, NwkSKey: network.Key{2},
		Class: network.ClassC, DataRate: 5, Frequency: 869525000, Gateways: []network.EUI64{gateway}, Devices: []network.EUI64{eui(0), eui(1)}}
	id, err := cs.OpenGroup(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := cs.OpenGroup(t.Context(), g); err != nil || again != id {
		t.Errorf("opened again: %s, %v; want %s", again, err, id)
	}
	other := g
	other.McAddr++
	if _, err := cs.OpenGroup(t.Context(), other); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("same name, other address: %v, want ErrInvalid", err)
	}
	unknown := g
	unknown.Name, unknown.Gateways = "sower-2", []network.EUI64{{9}}
	if _, err := cs.OpenGroup(t.Context(), unknown); !errors.Is(err, network.ErrNotFound) {
		t.Errorf("unknown gateway: %v, want ErrNotFound", err)
	}
	frame := network.Broadcast{Group: id, FPort: 201, Payload: []byte{1}, Expires: epoch.Add(time.Minute)}
	for i := range uint32(2) {
		fcnt, err := cs.Broadcast(t.Context(), frame)
		if err != nil || fcnt != i {
			t.Fatalf("Broadcast = %d, %v, want %d", fcnt, err, i)
		}
	}
	var busy *network.Busy
	if _, err := cs.Broadcast(t.Context(), frame); !errors.As(err, &busy) || !errors.Is(err, network.ErrUnavailable) ||
		*busy != (network.Busy{Group: id, Waiting: 2, After: time.Second}) {
		t.Errorf("third frame in the queue: %v, want Busy", err)
	}
	frame.Group = network.GroupID(networkserver.UUID(9, "no group"))
	if _, err := cs.Broadcast(t.Context(), frame); !errors.Is(err, network.ErrNotFound) {
		t.Errorf("Broadcast to no group = %v, want ErrNotFound", err)
	}
	st, err := cs.GroupState(t.Context(), id)
	if err != nil || st.NextFCnt != 2 || fmt.Sprint(st.Queued) != "[0 1]" {
		t.Errorf("GroupState = %+v, %v", st, err)
	}
	for range 2 {
		if err := cs.CloseGroup(t.Context(), id); err != nil {
			t.Errorf("CloseGroup = %v", err)
		}
	}
	if _, err := cs.GroupState(t.Context(), id); !errors.Is(err, network.ErrNotFound) {
		t.Errorf("state of a closed group: %v, want ErrNotFound", err)
	}
}

// TestEvents answers an uplink in its own receive windows, and shows that the network waits for Done.
func TestEvents(t *testing.T) {
	w, cs := server(t, 1, 1)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := cs.Events(ctx, appID)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	var queued network.MessageID
	var open atomic.Int32 // events not done
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for ev := range events {
			open.Add(1)
			now := w.Now()
			kinds = append(kinds, ev.Kind.String())
			if ev.Device != eui(0) {
				t.Errorf("event of %s", ev.Device)
			}
			if ev.Kind == network.EventUplink && queued == "" {
				if late := now.Sub(ev.At); late < 0 || late > time.Second {
					t.Errorf("uplink received at %s, told at %s", ev.At, now)
				}
				if queued, err = cs.Send(ctx, network.Message{Device: ev.Device, FPort: 200, Payload: []byte{9}, Expires: now.Add(time.Hour)}); err != nil {
					t.Errorf("Send = %v", err)
				}
				if ids, err := cs.Queued(ctx, ev.Device); err != nil || len(ids) != 1 || ids[0] != queued {
					t.Errorf("Queued = %v, %v", ids, err)
				}
			}
			if ev.Kind == network.EventSent && ev.Message != queued {
				t.Errorf("sent %s, want %s", ev.Message, queued)
			}
			if !w.Now().Equal(now) {
				t.Error("time has passed while an event was being handled")
			}
			open.Add(-1)
			ev.Done()
		}
	}()
	if err := w.Run(t.Context(), epoch.Add(5*time.Minute)); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-finished
	if got := fmt.Sprint(kinds[:4]); got != "[join uplink sent uplink]" {
		t.Errorf("events %s, want the answer within the cycle of the first uplink", kinds)
	}
	if open.Load() != 0 {
		t.Errorf("%d events not done", open.Load())
	}
}
