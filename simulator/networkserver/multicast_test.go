package networkserver_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"

	"github.com/sower-fuota/sower/simulator/networkserver"
)

// listening is one device whose multicast session is open from the start, and that says when it heard what.
type listening struct {
	*simnet
	app   *model
	group string
	heard *[]string
}

func listen(t *testing.T, gateways, pinned int, configure func(*networkserver.Config)) listening {
	l := listening{heard: new([]string)}
	l.app = &model{group: true, start: gps(0), end: gps(10 * time.Hour)}
	l.simnet = start(t, options{devices: []int{1}, gateways: gateways, configure: configure, app: func(int) *model { return l.app }})
	l.app.onMulticast = func(data []byte) {
		*l.heard = append(*l.heard, fmt.Sprintf("%s@%s", data[:min(len(data), 4)], l.world.Now().Sub(epoch).Truncate(time.Second)))
	}
	l.group = l.simnet.group(pinned)
	l.run(time.Minute) // the device has joined
	return l
}

func (l listening) want(heard string) {
	l.t.Helper()
	if got := strings.Join(*l.heard, " "); got != heard {
		l.t.Errorf("heard %q, want %q", got, heard)
	}
}

// queued lists the frame counters that wait.
func (l listening) queued() string {
	l.t.Helper()
	r, err := l.multicast().ListQueue(l.ctx, &api.ListMulticastGroupQueueRequest{MulticastGroupId: l.group})
	if err != nil {
		l.t.Fatal(err)
	}
	var out []string
	for _, q := range r.Items {
		out = append(out, fmt.Sprint(q.FCnt))
	}
	return strings.Join(out, " ")
}

func (l listening) get() *api.MulticastGroup {
	l.t.Helper()
	r, err := l.multicast().Get(l.ctx, &api.GetMulticastGroupRequest{Id: l.group})
	if err != nil {
		l.t.Fatal(err)
	}
	return r.MulticastGroup
}

// An empty queue sends at the next tick; items that wait together are a margin of 5 s apart.
func TestClassCSpacing(t *testing.T) {
	l := listen(t, 1, 1, nil)
	for i := range 3 {
		l.broadcast(l.group, []byte{'a' + byte(i)}, time.Time{})
	}
	if q := l.queued(); q != "0 1 2" {
		t.Errorf("queue %q, want 0 1 2", q)
	}
	l.run(3 * time.Minute)
	l.want("a@1m0s b@1m5s c@1m10s")
	if q := l.queued(); q != "" {
		t.Errorf("queue %q at the end", q)
	}
	l.broadcast(l.group, []byte("d"), time.Time{}) // empty again: no margin
	l.run(4 * time.Minute)
	l.want("a@1m0s b@1m5s c@1m10s d@3m0s")
	if f := l.get().FCnt; f != 4 {
		t.Errorf("next counter %d, want 4", f)
	}
}

// Each further gateway costs a margin, ListQueue shows each counter once, and devices hear the frame once.
func TestEachGatewayCostsAMargin(t *testing.T) {
	l := listen(t, 3, 3, nil)
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.broadcast(l.group, []byte("b"), time.Time{})
	if q := l.queued(); q != "0 1" {
		t.Errorf("queue %q, want 0 1", q)
	}
	l.run(3 * time.Minute)
	l.want("a@1m0s b@1m15s")
	frames := 0
	for g := range 3 {
		id := gatewayID
		id[7] += byte(g)
		toa, n := l.server.Airtime(id)
		if n < 2 || toa <= 0 {
			t.Errorf("gateway %d sent %d frames in %s, want at least 2", g, n, toa)
		}
		frames += n
	}
	if frames != 7 {
		t.Errorf("the gateways sent %d frames, want 6 and a join accept", frames)
	}
	if s := l.fleet.Devices()[0].Stats(); s.Multicasts != 2 || s.MulticastsRefused != 4 {
		t.Errorf("counted %+v, want 2 frames and 4 copies", s)
	}
}

// Without a gateway the counter is used up, and nobody is told.
func TestEnqueueWithoutGatewayIsSilent(t *testing.T) {
	l := listen(t, 1, 0, nil)
	if a, b := l.broadcast(l.group, []byte("a"), time.Time{}), l.broadcast(l.group, []byte("b"), time.Time{}); a != 0 || b != 1 {
		t.Errorf("counters %d and %d, want 0 and 1", a, b)
	}
	if q, f := l.queued(), l.get().FCnt; q != "" || f != 2 {
		t.Errorf("queue %q and next counter %d, want nothing and 2", q, f)
	}
	before := len(l.of("log"))
	l.run(2 * time.Minute)
	l.want("")
	if len(l.of("log")) != before {
		t.Error("a log event told of it")
	}
}

// Without pinned gateways, the members' last uplinks choose.
func TestGatewaysAreChosenByTheMembersUplinks(t *testing.T) {
	l := listen(t, 2, 0, nil)
	if _, err := l.multicast().AddDevice(l.ctx, &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: l.group, DevEui: eui(1).String()}); err != nil {
		t.Fatal(err)
	}
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.run(2 * time.Minute)
	l.want("a@1m0s")
}

// What expired or is too long for the data rate vanishes at its time; the frames behind it are sent.
func TestExpiredAndOversizeFramesVanish(t *testing.T) {
	l := listen(t, 1, 1, nil)
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.broadcast(l.group, []byte("late"), epoch.Add(64*time.Second))     // due at 65 s
	l.broadcast(l.group, bytes.Repeat([]byte("x"), 243), time.Time{})   // 242 fit DR5
	l.broadcast(l.group, bytes.Repeat([]byte("full"), 60), time.Time{}) // 240
	l.broadcast(l.group, []byte("in"), epoch.Add(81*time.Second))       // due at 80 s
	if q := l.queued(); q != "0 1 2 3 4" {
		t.Errorf("queue %q: enqueueing must not check", q)
	}
	l.run(3 * time.Minute)
	l.want("a@1m0s full@1m15s in@1m20s")
	if q := l.queued(); q != "" || len(l.of("log")) != 0 {
		t.Errorf("queue %q and %d log events, want none of either", q, len(l.of("log")))
	}
}

// A data rate that the region lacks blocks its frame for ever, until it is flushed.
func TestUnknownDataRateIsTriedForEver(t *testing.T) {
	l := listen(t, 1, 1, nil)
	g := l.get()
	g.Dr = 14
	if _, err := l.multicast().Update(l.ctx, &api.UpdateMulticastGroupRequest{MulticastGroup: g}); err != nil {
		t.Fatal(err)
	}
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.run(10 * time.Minute)
	if q := l.queued(); q != "0" {
		t.Errorf("queue %q, want the frame still there", q)
	}
	if _, err := l.multicast().FlushQueue(l.ctx, &api.FlushMulticastGroupQueueRequest{MulticastGroupId: l.group}); err != nil {
		t.Fatal(err)
	}
	if q, f := l.queued(), l.get().FCnt; q != "" || f != 1 {
		t.Errorf("after the flush: queue %q, next counter %d, want nothing and 1", q, f)
	}
	l.want("")
}

// Update replaces the frame counter: devices refuse the counters that are used again.
func TestUpdateRollsTheCounterBack(t *testing.T) {
	l := listen(t, 1, 1, nil)
	g := l.get()
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.run(2 * time.Minute)
	if _, err := l.multicast().Update(l.ctx, &api.UpdateMulticastGroupRequest{MulticastGroup: g}); err != nil {
		t.Fatal(err)
	}
	if f := l.broadcast(l.group, []byte("b"), time.Time{}); f != 0 {
		t.Errorf("counter %d after the update, want 0 again", f)
	}
	l.run(3 * time.Minute)
	l.want("a@1m0s")
}

func TestDeleteDropsTheQueue(t *testing.T) {
	l := listen(t, 1, 1, nil)
	l.broadcast(l.group, []byte("a"), time.Time{})
	if _, err := l.multicast().Delete(l.ctx, &api.DeleteMulticastGroupRequest{Id: l.group}); err != nil {
		t.Fatal(err)
	}
	l.run(2 * time.Minute)
	l.want("")
}

// GPS_TIME hands the frame over when its time has come, which is too late for the gateway.
func TestGPSTimeIsTooLate(t *testing.T) {
	l := listen(t, 1, 1, nil)
	g := l.get()
	g.ClassCSchedulingType = api.MulticastGroupSchedulingType_GPS_TIME
	if _, err := l.multicast().Update(l.ctx, &api.UpdateMulticastGroupRequest{MulticastGroup: g}); err != nil {
		t.Fatal(err)
	}
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.run(3 * time.Minute)
	l.want("")
	if q := l.queued(); q != "" {
		t.Errorf("queue %q, want the frame gone", q)
	}
}

// Two groups due at one tick share the gateway, which sends one frame behind the other. (To the device the
// second is a replay: both groups have one address.)
func TestTwoGroupsShareAGateway(t *testing.T) {
	l := listen(t, 1, 1, nil)
	other := l.simnet.group(1)
	_, before := l.server.Airtime(gatewayID)
	l.broadcast(l.group, []byte("a"), time.Time{})
	l.broadcast(other, []byte("b"), time.Time{})
	l.run(3 * time.Minute)
	l.want("a@1m0s")
	if _, n := l.server.Airtime(gatewayID); n != before+2 || l.fleet.Devices()[0].Stats().MulticastsRefused != 1 {
		t.Errorf("the gateway sent %d frames, want 2, the second refused by the device: %+v", n-before, l.fleet.Devices()[0].Stats())
	}
}

func TestSchedulerSettings(t *testing.T) {
	l := listen(t, 1, 1, func(c *networkserver.Config) {
		c.SchedulerInterval, c.ClassCMargin = 100*time.Millisecond, 2*time.Second
	})
	for i := range 3 {
		l.broadcast(l.group, []byte{'a' + byte(i)}, time.Time{})
	}
	l.run(3 * time.Minute)
	l.want("a@1m0s b@1m2s c@1m4s")
}
