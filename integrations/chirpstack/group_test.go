package chirpstack_test

import (
	"errors"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/world"
)

const enqueueMethod = "/api.MulticastGroupService/Enqueue"

func testGroup(gateways ...network.EUI64) network.Group {
	return network.Group{Name: "sower-1", Application: appID, McAddr: 0x01020304, AppSKey: network.Key{1}, NwkSKey: network.Key{2},
		Class: network.ClassC, DataRate: 5, Frequency: 869525000, Gateways: gateways}
}

func runUntil(t *testing.T, w *world.World, d time.Duration) {
	t.Helper()
	w.At(epoch.Add(d), "end of the run", func() {}) // else an idle world stops before
	if err := w.Run(t.Context(), epoch.Add(d)); err != nil {
		t.Fatal(err)
	}
}

// TestGroupSurvivesTheEngine goes on with a group that an engine before has opened, at its counter.
func TestGroupSurvivesTheEngine(t *testing.T) {
	_, first, dial := serverWith(t, 0, 0, nil, nil)
	id, err := first.OpenGroup(t.Context(), testGroup(gateway))
	if err != nil {
		t.Fatal(err)
	}
	frame := network.Broadcast{Group: id, FPort: 201, Payload: make([]byte, 222), Expires: epoch.Add(time.Hour)}
	if fCnt, err := first.Broadcast(t.Context(), frame); err != nil || fCnt != 0 {
		t.Fatalf("Broadcast = %d, %v", fCnt, err)
	}
	second := dial()
	frame.Payload = make([]byte, 223)
	if _, err := second.Broadcast(t.Context(), frame); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("223 bytes at DR5 in a group that was opened before = %v, want ErrInvalid", err)
	}
	frame.Payload = []byte{1}
	if fCnt, err := second.Broadcast(t.Context(), frame); err != nil || fCnt != 1 {
		t.Errorf("Broadcast of the second engine = %d, %v, want 1", fCnt, err)
	}
	third := dial()
	if again, err := third.OpenGroup(t.Context(), testGroup(gateway)); err != nil || again != id {
		t.Errorf("opened again: %s, %v, want %s", again, err, id)
	}
	if err := third.CloseGroup(t.Context(), id); err != nil {
		t.Error(err)
	}
}

// TestLostReplies loses every second reply of Enqueue. GroupState tells each time what has happened, and what came
// through without our knowledge is not taken for somebody else's.
func TestLostReplies(t *testing.T) {
	w, cs, _ := serverWith(t, 0, 0, func(c *networkserver.Config) {
		for i := range 5 {
			c.Faults.Calls = append(c.Faults.Calls, networkserver.CallFault{Method: enqueueMethod, First: 2 + i, Count: 1, Effect: networkserver.ReplyLost})
		}
	}, nil)
	id, err := cs.OpenGroup(t.Context(), testGroup(gateway))
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint32(10) {
		fCnt, err := cs.Broadcast(t.Context(), network.Broadcast{Group: id, FPort: 201, Payload: []byte{1}, Expires: epoch.Add(time.Hour)})
		if lost := i%2 == 1; lost != errors.Is(err, network.ErrUncertain) || !lost && (err != nil || fCnt != i) {
			t.Fatalf("Broadcast %d = %d, %v", i, fCnt, err)
		}
		if st, err := cs.GroupState(t.Context(), id); err != nil || st.NextFCnt != i+1 {
			t.Fatalf("GroupState after %d = %+v, %v", i, st, err)
		}
		runUntil(t, w, time.Duration(i+1)*30*time.Second)
	}
}

// TestPins changes the gateways of a group by opening it again.
func TestPins(t *testing.T) {
	second := gateway
	second[7]++
	_, cs, _ := serverWith(t, 0, 0, func(c *networkserver.Config) {
		c.Gateways = append(c.Gateways, networkserver.Gateway{ID: lorawan.EUI64(second), Name: "tower"})
	}, nil)
	for _, pins := range [][]network.EUI64{{gateway}, {gateway, second}, {second}, {second, gateway}} {
		id, err := cs.OpenGroup(t.Context(), testGroup(pins...))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cs.Broadcast(t.Context(), network.Broadcast{Group: id, FPort: 201, Payload: []byte{1}, Expires: epoch.Add(time.Hour)}); err != nil {
			if busy := new(*network.Busy); !errors.As(err, busy) {
				t.Errorf("with %d gateways: %v", len(pins), err)
			}
		}
	}
	if _, err := cs.OpenGroup(t.Context(), testGroup(network.EUI64{9})); !errors.Is(err, network.ErrNotFound) {
		t.Errorf("a gateway that does not exist: %v, want ErrNotFound", err)
	}
}

// TestFlushGroup drops what waits; the next frame has the next counter all the same.
func TestFlushGroup(t *testing.T) {
	_, cs, _ := serverWith(t, 0, 0, nil, nil)
	id, err := cs.OpenGroup(t.Context(), testGroup(gateway))
	if err != nil {
		t.Fatal(err)
	}
	frame := network.Broadcast{Group: id, FPort: 201, Payload: []byte{1}, Expires: epoch.Add(time.Hour)}
	for want := range uint32(6) {
		if fCnt, err := cs.Broadcast(t.Context(), frame); err != nil || fCnt != want {
			t.Errorf("Broadcast = %d, %v, want %d", fCnt, err, want)
		}
		if err := cs.FlushGroup(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if err := cs.FlushGroup(t.Context(), network.GroupID(networkserver.UUID(9, "no group"))); err != nil {
		t.Errorf("a group that is gone: %v", err)
	}
}

func TestClassB(t *testing.T) {
	w, cs, _ := serverWith(t, 0, 0, nil, nil)
	g := testGroup(gateway)
	g.Class, g.Periodicity = network.ClassB, 5
	id, err := cs.OpenGroup(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cs.Broadcast(t.Context(), network.Broadcast{Group: id, FPort: 201, Payload: []byte{1}, Expires: epoch.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	runUntil(t, w, 3*time.Minute)
	if st, err := cs.GroupState(t.Context(), id); err != nil || st.NextFCnt != 1 || len(st.Queued) != 0 {
		t.Errorf("GroupState = %+v, %v, want the frame sent", st, err)
	}
	g.Class = network.ClassC
	if _, err := cs.OpenGroup(t.Context(), g); !errors.Is(err, network.ErrInvalid) {
		t.Errorf("opened as class C: %v, want ErrInvalid", err)
	}
}

// TestOrphans cleans with the key of a tenant, one group of which goes away meanwhile.
func TestOrphans(t *testing.T) {
	_, cs, dial := serverWith(t, 0, 0, func(c *networkserver.Config) {
		c.Keys = []networkserver.APIKey{{Token: "tenant", Tenant: c.Tenant.ID}}
	}, nil)
	var ids []network.GroupID
	for _, name := range []string{"sower-b", "sower-a", "sower-live", "not-sower-c"} {
		g := testGroup(gateway)
		g.Name = name
		id, err := cs.OpenGroup(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	orphans, err := dial().Orphans(t.Context(), appID, []string{"sower-live"})
	if err != nil || len(orphans) != 2 || orphans[0].ID != ids[1] || orphans[1].Name != "sower-b" || !orphans[0].Created.Equal(epoch) {
		t.Errorf("Orphans = %+v, %v, want sower-a and sower-b", orphans, err)
	}
	for _, o := range orphans {
		if err := cs.CloseGroup(t.Context(), o.ID); err != nil {
			t.Errorf("CloseGroup = %v", err)
		}
	}
	if again, err := cs.Orphans(t.Context(), appID, []string{"sower-live"}); err != nil || len(again) != 0 {
		t.Errorf("Orphans after they were closed = %+v, %v", again, err)
	}
	for i, exists := range []bool{false, false, true, true} {
		if _, err := cs.GroupState(t.Context(), ids[i]); errors.Is(err, network.ErrNotFound) == exists {
			t.Errorf("group %d: %v", i, err)
		}
	}
}

func TestProbeGatewayTopics(t *testing.T) {
	for _, topics := range []string{"", "eu868", "eu868/"} {
		_, cs, _ := serverWith(t, 0, 0, nil, func(c *chirpstack.Config) { c.GatewayTopics = topics })
		if b, err := cs.ProbeBroker(t.Context(), appID, time.Millisecond); err != nil || b.Gateways != (topics != "") {
			t.Errorf("with gateway topics %q: ProbeBroker = %+v, %v", topics, b, err)
		}
	}
}

// TestSharedSubscription has two engines share the events of two devices: each event goes to one of them.
func TestSharedSubscription(t *testing.T) {
	names := []string{"one", "two"}
	w, first, dial := serverWith(t, 2, 2, nil, func(c *chirpstack.Config) {
		c.Share, c.ClientID = "fleet", names[0]
		names = names[1:]
	})
	seen := make(chan string, 1000)
	for _, cs := range []*chirpstack.Network{first, dial()} {
		events, err := cs.Events(t.Context(), appID)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for ev := range events {
				seen <- ev.ID
				ev.Done()
			}
		}()
	}
	runUntil(t, w, 10*time.Minute+30*time.Second)
	once := map[string]bool{}
	for len(seen) > 0 {
		id := <-seen
		if once[id] {
			t.Errorf("event %s came to both", id)
		}
		once[id] = true
	}
	if len(once) != 2+2*10 {
		t.Errorf("%d events, want 2 joins and 10 uplinks of each device", len(once))
	}
}
