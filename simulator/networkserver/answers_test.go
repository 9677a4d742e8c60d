package networkserver_test

import (
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/gw"

	"github.com/sower-fuota/sower/simulator/networkserver"
)

// minutely is one device with an uplink each minute.
func minutely(t *testing.T, configure func(*networkserver.Config)) *simnet {
	return start(t, options{devices: []int{1}, app: func(int) *model { return &model{period: 60_000} }, configure: configure})
}

// An item that was sent without a word of the gateway is sent again with the same frame counter, so that the device takes
// it once.
func TestUnheardAnswerIsSentAgain(t *testing.T) {
	n := minutely(t, faults(networkserver.Faults{Acks: []networkserver.AckFault{{From: 30 * time.Second, Until: 90 * time.Second, Lost: true}}}))
	n.run(30 * time.Second)
	items := map[string]string{n.enqueue(1, 10, "hi"): "hi"}
	n.run(90 * time.Second)
	if q := n.queueOf(1); q != "hi" || n.story(items) != "" {
		t.Errorf("queue %q and story %q after a frame without acknowledgement", q, n.story(items))
	}
	if s := n.fleet.Device(eui(1)).Stats(); s.Downlinks != 1 {
		t.Errorf("%d downlinks, want the one", s.Downlinks)
	}
	n.run(5 * time.Minute)
	if q := n.queueOf(1); q != "" || n.story(items) != "txack hi" {
		t.Errorf("queue %q and story %q after the second", q, n.story(items))
	}
	if s := n.fleet.Device(eui(1)).Stats(); s.Downlinks != 1 {
		t.Errorf("%d downlinks accepted, want no second one", s.Downlinks)
	}
	n.enqueue(1, 10, "next")
	n.run(7 * time.Minute)
	if s := n.fleet.Device(eui(1)).Stats(); s.Downlinks != 2 {
		t.Errorf("%d downlinks accepted, want the next item", s.Downlinks)
	}
}

func TestRefusedJoinAcceptIsSilent(t *testing.T) {
	n := minutely(t, faults(networkserver.Faults{Acks: []networkserver.AckFault{{Until: 10 * time.Second, Status: gw.TxAckStatus_TOO_LATE}}}))
	n.run(time.Minute)
	if joins, logs := n.of("join"), n.of("log"); len(joins) != 2 || len(logs) != 0 || !n.fleet.Device(eui(1)).Stats().Joined {
		t.Errorf("%d joins and log %v, want two and nothing", len(joins), logs)
	}
}

// A device without ping slots of its own refuses them, and the server gives up.
func TestPingSlotsAreAskedForInVain(t *testing.T) {
	n := minutely(t, func(c *networkserver.Config) { c.Profiles[0].ClassB = true })
	n.run(10 * time.Minute)
	if s := n.fleet.Device(eui(1)).Stats(); s.Downlinks != 4 || s.Uplinks < 8 {
		t.Errorf("%d downlinks after %d uplinks, want four requests", s.Downlinks, s.Uplinks)
	}
}
