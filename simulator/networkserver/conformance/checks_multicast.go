package conformance

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"google.golang.org/grpc/status"
)

func (s *suite) checkNoGateway() error {
	group, err := s.group(0, nil)
	if err != nil {
		return err
	}
	for want := range uint32(2) {
		got, err := s.enqueue(group, []byte("a"), time.Time{})
		if err != nil {
			return err
		}
		s.expect("counter", got, want)
	}
	q, err := s.queue(group)
	if err != nil {
		return err
	}
	s.expect("queue", q, "[]")
	if err := s.pass(3 * time.Second); err != nil {
		return err
	}
	s.expect("commands", len(s.take()), 0)
	s.expect("log events", len(s.takeEvents("log")), 0)
	return s.over(group)
}

func (s *suite) checkSpacing() error {
	group, err := s.group(2, nil)
	if err != nil {
		return err
	}
	s.take()
	for _, text := range []string{"a", "b", "c"} {
		if _, err := s.enqueue(group, []byte(text), time.Time{}); err != nil {
			return err
		}
	}
	q, err := s.queue(group)
	if err != nil {
		return err
	}
	s.expect("queue", q, "[0 1 2]")
	if err := s.drain(group); err != nil {
		return err
	}
	if err := s.pass(2 * time.Second); err != nil {
		return err
	}
	cs := s.take()
	s.expect("commands", len(cs), 6)
	if len(cs) == 6 {
		s.say("%s", commandsText(cs))
		margin := cs[5].at.Sub(cs[0].at) / 5
		even, order, mic := true, true, true
		for i, c := range cs {
			off := c.at.Sub(cs[0].at) - time.Duration(i)*margin
			even = even && off.Abs() <= 1500*time.Millisecond
			order = order && c.fCnt == i/2 && c.gateway == i%2
			mic = mic && c.validMIC
		}
		s.expect("one margin between any two", even && margin > 0, true)
		s.expect("gateway after gateway, counter after counter", order, true)
		s.expect("the MIC is valid", mic, true)
	}
	for _, a := range s.apps {
		s.expect("heard", a.take(), "a b c")
	}
	return s.over(group)
}

func (s *suite) checkCounter() error {
	group, err := s.group(0, nil)
	if err != nil {
		return err
	}
	r, err := s.mc().Get(s.ctx, &api.GetMulticastGroupRequest{Id: group})
	if err != nil {
		return err
	}
	f, err := s.enqueue(group, []byte("a"), time.Time{})
	if err != nil {
		return err
	}
	s.expect("the counter of the request is ignored", f, 0)
	if _, err := s.mc().FlushQueue(s.ctx, &api.FlushMulticastGroupQueueRequest{MulticastGroupId: group}); err != nil {
		return err
	}
	f, err = s.next(group)
	if err != nil {
		return err
	}
	s.expect("next after a flush", f, 1)
	if _, err := s.mc().Update(s.ctx, &api.UpdateMulticastGroupRequest{MulticastGroup: r.MulticastGroup}); err != nil {
		return err
	}
	f, err = s.next(group)
	if err != nil {
		return err
	}
	s.expect("next after an update with what was read before", f, 0)
	return s.over(group)
}

func (s *suite) checkDropped() error {
	group, err := s.group(1, nil)
	if err != nil {
		return err
	}
	s.takeEvents("log")
	for _, frame := range []struct {
		data    []byte
		expires time.Time
	}{
		{[]byte("a"), time.Time{}},
		{[]byte("expired"), s.World.Now().Add(-time.Minute)},
		{bytes.Repeat([]byte("x"), 200), time.Time{}}, // 115 fit DR3
		{[]byte("b"), time.Time{}},
	} {
		if _, err := s.enqueue(group, frame.data, frame.expires); err != nil {
			return err
		}
	}
	q, err := s.queue(group)
	if err != nil {
		return err
	}
	s.expect("queue", q, "[0 1 2 3]")
	if err := s.drain(group); err != nil {
		return err
	}
	if err := s.pass(2 * time.Second); err != nil {
		return err
	}
	var sent []int
	for _, c := range s.take() {
		sent = append(sent, c.fCnt)
	}
	s.expect("sent", sent, []int{0, 3})
	s.expect("heard", s.apps[0].take(), "a b")
	s.expect("log events", len(s.takeEvents("log")), 0)
	if err := s.over(group); err != nil {
		return err
	}
	if group, err = s.group(1, func(g *api.MulticastGroup) { g.Dr = 14 }); err != nil {
		return err
	}
	if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
		return err
	}
	if err := s.pass(10 * time.Second); err != nil {
		return err
	}
	if q, err = s.queue(group); err != nil {
		return err
	}
	s.expect("unknown data rate after 10 s", q, "[0]")
	return s.over(group)
}

func (s *suite) checkSilence() error {
	group, err := s.group(1, nil)
	if err != nil {
		return err
	}
	s.gatewaysSay(gw.TxAckStatus_OK, true)
	if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
		return err
	}
	if err := s.pass(8 * time.Second); err != nil {
		return err
	}
	s.gatewaysSay(gw.TxAckStatus_OK, false)
	cs := s.take()
	s.say("%s", commandsText(cs))
	ids := map[uint32]bool{}
	same := true
	for _, c := range cs {
		ids[c.id] = true
		same = same && c.fCnt == 0
	}
	s.expect("sent again", len(cs) >= 3, true)
	s.expect("with the same counter", same, true)
	s.expect("and another downlink id", len(ids) == len(cs), true)
	if err := s.drain(group); err != nil {
		return err
	}
	s.expect("heard", s.apps[0].take(), "a")
	return s.over(group)
}

func (s *suite) checkRefusals() error {
	defer s.gatewaysSay(gw.TxAckStatus_OK, false)
	for _, st := range refusals {
		group, err := s.group(1, nil)
		if err != nil {
			return err
		}
		s.gatewaysSay(st, false)
		if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
			return err
		}
		if err := s.pass(6 * time.Second); err != nil {
			return err
		}
		q, err := s.queue(group)
		if err != nil {
			return err
		}
		s.expect(st.String()+": queue", q, "[]")
		s.expect(st.String()+": commands", len(s.take()), 1)
		if err := s.over(group); err != nil {
			return err
		}
	}
	s.expect("log events", len(s.takeEvents("log")), 0)
	s.expect("txack events", len(s.takeEvents("txack")), 0)
	return nil
}

func (s *suite) checkGPSTime() error {
	const text = "GPS_TIME hands a class C frame to the gateway at or after its own emission time"
	group, err := s.group(1, func(g *api.MulticastGroup) { g.ClassCSchedulingType = api.MulticastGroupSchedulingType_GPS_TIME })
	if err != nil {
		return err
	}
	s.take()
	if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
		return err
	}
	if err := s.pass(20 * time.Second); err != nil {
		return err
	}
	cs := s.take()
	switch {
	case len(cs) == 0:
		s.judge(text, Open, "no command within 20 s")
	case !cs[0].hasEmit:
		s.judge(text, Refuted, "the command has no GPS time")
	case cs[0].at.Before(cs[0].emitAt):
		s.judge(text, Refuted, "%.1f s before", cs[0].emitAt.Sub(cs[0].at).Seconds())
	default:
		s.judge(text, Confirmed, "%.1f s after", cs[0].at.Sub(cs[0].emitAt).Seconds())
	}
	return s.over(group)
}

func (s *suite) checkClassB() error {
	const text = "class B with a periodicity above 7 is accepted by Create and fails later"
	group, err := s.group(2, func(g *api.MulticastGroup) {
		g.GroupType, g.ClassBPingSlotPeriodicity = api.MulticastGroupType_CLASS_B, 3
	})
	if err != nil {
		return err
	}
	s.take()
	for range 2 {
		if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
			return err
		}
	}
	if err := s.pass(45 * time.Second); err != nil {
		return err
	}
	cs := s.take()
	slots := map[int]time.Time{}
	early, simulcast := true, true
	for _, c := range cs {
		early = early && c.hasEmit && c.at.Before(c.emitAt)
		if at, seen := slots[c.fCnt]; seen {
			simulcast = simulcast && at.Equal(c.emitAt)
		}
		slots[c.fCnt] = c.emitAt
	}
	s.expect("commands", len(cs), 4)
	s.expect("handed over before the slot", early, true)
	s.expect("one slot for all gateways", simulcast, true)
	s.expect("another slot for the next frame", slots[1].After(slots[0]), true)
	if err := s.over(group); err != nil {
		return err
	}
	group, err = s.group(1, func(g *api.MulticastGroup) {
		g.GroupType, g.ClassBPingSlotPeriodicity = api.MulticastGroupType_CLASS_B, 8
	})
	if err != nil {
		s.judge(text, Refuted, "Create: %s", status.Code(err))
		return nil
	}
	if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
		s.judge(text, Confirmed, "Enqueue: %s", status.Code(err))
	} else {
		s.judge(text, Refuted, "Enqueue accepts it too")
	}
	return s.over(group)
}

func (s *suite) checkAutomatic() error {
	group, err := s.group(0, nil)
	if err != nil {
		return err
	}
	if _, err := s.mc().AddDevice(s.ctx, &api.AddDeviceToMulticastGroupRequest{MulticastGroupId: group, DevEui: s.devices[0].String()}); err != nil {
		return err
	}
	s.take()
	if _, err := s.enqueue(group, []byte("a"), time.Time{}); err != nil {
		return err
	}
	if err := s.drain(group); err != nil {
		return err
	}
	if err := s.pass(3 * time.Second); err != nil {
		return err
	}
	s.expect("one gateway that has heard the member", len(s.take()), 1)
	s.expect("heard", s.apps[0].take(), "a")
	return s.over(group)
}

func (s *suite) checkOutage() error {
	const text = "after an outage of a gateway (PostgreSQL) every overdue frame is sent at once, in no order"
	s.attached.SetReporting(false)
	if err := s.pass(95 * time.Second); err != nil {
		return err
	}
	if err := s.states("OFFLINE"); err != nil {
		return err
	}
	group, err := s.group(1, nil)
	if err != nil {
		return err
	}
	s.take()
	for i := range 5 {
		if _, err := s.enqueue(group, []byte{'a' + byte(i)}, time.Time{}); err != nil {
			return err
		}
	}
	if err := s.pass(30 * time.Second); err != nil {
		return err
	}
	online := len(s.take()) // what an offline gateway was sent: a server without the check
	s.attached.SetReporting(true)
	if err := s.pass(45 * time.Second); err != nil {
		return err
	}
	cs := s.take()
	switch {
	case online > 0:
		s.say("frames for a gateway that is offline: sent")
		s.judge(text, Open, "this server sends to gateways that are offline, as with SQLite")
	case len(cs) == 5 && cs[4].at.Sub(cs[0].at) <= 2*time.Second:
		s.say("frames for a gateway that is offline: wait for it")
		var order []int
		for _, c := range cs {
			order = append(order, c.fCnt)
		}
		s.judge(text, Confirmed, "5 frames within %.0f s, in the order %v", cs[4].at.Sub(cs[0].at).Seconds(), order)
	default:
		s.judge(text, Refuted, "%s", commandsText(cs))
	}
	return s.over(group)
}

func (s *suite) checkConcurrency() error {
	const text = "concurrent calls of Enqueue may answer \"database is locked\" (SQLite)"
	const calls = 16
	group, err := s.group(1, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	done, locked := map[uint32]int{}, 0
	var other []string
	for range calls {
		wg.Go(func() {
			r, err := s.mc().Enqueue(ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: 1, Data: []byte("x")}})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				done[r.FCnt]++
			case strings.Contains(err.Error(), "locked"):
				locked++
			default:
				other = append(other, err.Error())
			}
		})
	}
	wg.Wait()
	next, err := s.next(group)
	if err != nil {
		return err
	}
	s.expect("other errors", len(other), 0)
	s.expect("every counter once", int(next) == len(done) && len(done)+locked+len(other) == calls, true)
	if locked > 0 {
		s.judge(text, Confirmed, "%d of %d calls", locked, calls)
	} else {
		s.judge(text, Open, "none of %d calls", calls)
	}
	return s.over(group)
}
