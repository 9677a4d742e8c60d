package networkserver_test

import (
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"

	"github.com/sower-fuota/sower/simulator/networkserver"
)

// A device in class B gets its queue in its ping slots, without an uplink. A confirmed item that is not acknowledged counts
// as not received when its time is over, also without an uplink, and makes room for the next; one that the gateway refuses
// goes in a later slot.
func TestClassBQueue(t *testing.T) {
	refuse := networkserver.AckFault{From: 70 * time.Second, Until: 78 * time.Second, Status: gw.TxAckStatus_COLLISION_PACKET}
	n := start(t, options{configure: func(c *networkserver.Config) {
		c.Profiles[0].ClassB, c.Profiles[0].ClassBTimeout = true, 10*time.Second
		c.Faults.Acks = []networkserver.AckFault{refuse}
		c.Devices = append(c.Devices, networkserver.Device{EUI: eui(1), Name: "meter", Application: appID, Profile: profileID})
	}})
	m := addMeter(n, false)
	m.classB = true
	n.run(10 * time.Second)
	items := map[string]string{}
	n.put(items, &api.DeviceQueueItem{Data: []byte("confirm"), Confirmed: true}, false)
	n.put(items, &api.DeviceQueueItem{Data: []byte("next")}, false)
	n.run(58 * time.Second) // before the second uplink
	if got, want := n.story(items), "txack confirm, ack confirm false, txack next"; got != want {
		t.Errorf("story is %q, want %q", got, want)
	}
	for _, e := range n.of("txack") {
		slot := e.m.(*integration.TxAckEvent).TxInfo.GetTiming().GetGpsEpoch()
		if slot == nil || e.m.(*integration.TxAckEvent).DeviceInfo.DeviceClassEnabled.String() != "CLASS_B" {
			t.Errorf("%v, want a ping slot", e.m)
		}
	}
	n.run(70 * time.Second)
	n.put(items, &api.DeviceQueueItem{Data: []byte("refused"), Confirmed: true}, false)
	n.run(100 * time.Second)
	if got, want := n.story(items), "txack confirm, ack confirm false, txack next, log DOWNLINK_GATEWAY , txack refused, ack refused false"; got != want {
		t.Errorf("story is %q, want %q", got, want)
	}
	n.run(3 * time.Minute)
	m.classB = false
	n.run(5*time.Minute + 10*time.Second)
	n.put(items, &api.DeviceQueueItem{Data: []byte("uplink")}, false)
	n.run(5*time.Minute + 50*time.Second)
	if q := n.queueOf(1); q != "uplink" {
		t.Errorf("queue %q, want the item to wait for an uplink in class A", q)
	}
}

// What waits for a ping slot survives a restart of the server.
func TestClassBQueueAfterARestart(t *testing.T) {
	n := start(t, options{configure: func(c *networkserver.Config) {
		c.Profiles[0].ClassB = true
		c.Faults.Restarts = []networkserver.Restart{{At: 10 * time.Second, Down: 10 * time.Second}}
		c.Devices = append(c.Devices, networkserver.Device{EUI: eui(1), Name: "meter", Application: appID, Profile: profileID})
	}})
	addMeter(n, false).classB = true
	n.run(9500 * time.Millisecond)
	items := map[string]string{}
	n.put(items, &api.DeviceQueueItem{Data: []byte("waits")}, false)
	n.run(58 * time.Second)
	if got := n.story(items); got != "txack waits" {
		t.Errorf("story is %q, want the item sent", got)
	}
}
