package traps_test

import (
	"errors"
	"slices"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

const enqueueMethod = "/api.MulticastGroupService/Enqueue"

var frameTraps = []trap{
	{"0.2, 1.4", "f_cnt of the request is ignored", "chirpstack.Broadcast returns the server's", "", ignoredCounter},
	{"0.3, 2.4", "a frame that the gateway refuses is deleted without a word", "chirpstack tap of the gateway topics", "chirpstack gateway-topics", refusedFrames},
	{"0.4, 2.2", "each gateway costs a margin, and what waits together is spaced, nothing else", "chirpstack.Broadcast, network.Busy", "chirpstack queue-short", longQueue},
	{"0.7, 2.3", "a payload that the data rate does not carry is accepted and dropped", "chirpstack.Broadcast", "chirpstack payload-size", oversize},
	{"0.8, 2.4", "a frame that nobody acknowledges is sent again for ever", "chirpstack.Broadcast wants an expiry", "chirpstack expiry", noExpiry},
	{"0.8, 2.4", "Basics Station never refuses: what it cannot send loops", "expires_at always", "", basicsStation},
	{"1.4", "FPort 0 and above 223", "chirpstack.Broadcast, Send", "chirpstack fport", wrongPort},
	{"2.3", "after an outage all that waits is sent at once and in disorder", "chirpstack.Broadcast, network.Busy", "chirpstack queue-short", burst},
	{"2.3", "frames for gateways that are all offline are accepted", "chirpstack.Broadcast looks at the gateways", "chirpstack pins-checked", allOffline},
	{"2.6", "somebody else uses the group: counters go on without us", "chirpstack.Broadcast compares the counter", "chirpstack counter", foreignUse},
	{"2.6, 6.2", "Enqueue is not idempotent, and its reply can be lost", "chirpstack: ErrUncertain, GroupState tells", "chirpstack uncertain", lostReply},
	{"0.9, 6.1", "\"database is locked\" is Internal, like what will never work", "chirpstack errors", "chirpstack internal-codes", locked},
	{"1.4, 6.2", "ListQueue has no pages: an answer above 4 MiB breaks the client", "chirpstack takes 32 MiB", "chirpstack long-answers", longAnswer},
	{"4.2", "a group that is deleted late keeps transmitting", "chirpstack.CloseGroup deletes group and queue", "", closeFlushes},
}

func ignoredCounter(p *probe) error {
	r := p.start(site{})
	id := r.open(1)
	believed := uint32(700)
	if p.naive {
		if _, err := r.multicast().Enqueue(r.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{
			MulticastGroupId: string(id), FPort: 201, Data: []byte{1}, FCnt: believed}}); err != nil {
			p.t.Fatal(err)
		}
	} else {
		var err error
		if believed, err = r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil {
			return err
		}
	}
	r.run(time.Minute)
	if sent := r.air.counters(); len(sent) != 1 || sent[0] != believed {
		return errorf("counter %v on the air, believed %d", sent, believed)
	}
	return nil
}

// refusedFrames has one gateway of two refuse half of the frames for its duty cycle, and wants to know which.
func refusedFrames(p *probe) error {
	r := p.start(site{gateways: 2, server: func(c *networkserver.Config) {
		c.Faults.Acks = []networkserver.AckFault{{Gateway: c.Gateways[1].ID, Multicast: true, Share: 0.5, Status: gw.TxAckStatus_DUTY_CYCLE_OVERFLOW}}
	}})
	stop := r.listen()
	id := r.open(2)
	const frames = 12
	for i := range frames {
		if _, err := r.send(frame(id, time.Hour)); err != nil {
			return err
		}
		r.run(time.Duration(i+1) * 20 * time.Second)
	}
	stop()
	type key struct {
		fCnt uint32
		gw   network.EUI64
	}
	onAir := map[key]bool{}
	for _, f := range r.air.frames {
		onAir[key{counter(f), network.EUI64(f.Gateway)}] = true
	}
	sent, refused := r.of(network.EventSent), r.of(network.EventDropped)
	if len(sent)+len(refused) != 2*frames || len(refused) == 0 {
		return errorf("%d frames sent and %d refused were reported, want %d together", len(sent), len(refused), 2*frames)
	}
	for _, ev := range append(sent, refused...) {
		k := key{ev.FCnt, ev.Gateway}
		if ev.Group != id || onAir[k] != (ev.Kind == network.EventSent) || (ev.Kind == network.EventDropped) != (ev.Reason == "DUTY_CYCLE_OVERFLOW") {
			return errorf("%s %s of frame %d by %s, on the air: %v", ev.Kind, ev.Reason, ev.FCnt, ev.Gateway, onAir[k])
		}
	}
	return nil
}

func longQueue(p *probe) error {
	r := p.start(site{gateways: 3})
	id := r.open(3)
	taken := 0
	var busy *network.Busy
	for range 10 {
		_, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour))
		if err == nil {
			taken++
		} else if !errors.As(err, &busy) || !isUnavailable(err) || busy.After <= 0 {
			return errorf("Broadcast into a queue of %d = %v, want Busy", taken, err)
		}
	}
	r.run(time.Hour)
	last := r.air.frames[len(r.air.frames)-1].Start.Sub(epoch)
	if taken != 2 || last > 40*time.Second {
		return errorf("%d frames were taken at once, and the last was sent after %s", taken, last)
	}
	return nil
}

func oversize(p *probe) error {
	r := p.start(site{})
	b := frame(r.open(1), time.Hour)
	b.Payload = make([]byte, 243)
	if _, err := r.cs.Broadcast(p.t.Context(), b); !isInvalid(err) {
		r.run(time.Minute)
		return errorf("Broadcast of %d bytes at DR%d = %v, and %d frames on the air", len(b.Payload), mcDR, err, len(r.air.frames))
	}
	return nil
}

func noExpiry(p *probe) error {
	r := p.start(site{server: func(c *networkserver.Config) { c.Faults.Acks = []networkserver.AckFault{{Multicast: true, Lost: true}} }})
	b := frame(r.open(1), 0)
	b.Expires = time.Time{}
	if _, err := r.cs.Broadcast(p.t.Context(), b); !isInvalid(err) {
		r.run(time.Hour)
		return errorf("Broadcast without expiry = %v, and the frame was sent %d times in an hour", err, len(r.air.frames))
	}
	b.Expires = epoch.Add(10 * time.Second)
	if _, err := r.cs.Broadcast(p.t.Context(), b); err != nil {
		return err
	}
	r.run(time.Hour)
	if n := len(r.air.frames); n == 0 || n > 6 {
		return errorf("the frame was sent %d times, want a few until it expires", n)
	}
	return nil
}

// basicsStation is told to send on no frequency, which it cannot and does not say.
func basicsStation(p *probe) error {
	var seen calls
	r := p.start(site{server: func(c *networkserver.Config) {
		c.Gateways[0].BasicsStation = true
		c.Faults.Observe = seen.observe
		c.Faults.Acks = []networkserver.AckFault{{Multicast: true, Status: gw.TxAckStatus_DUTY_CYCLE_OVERFLOW}}
	}})
	id := r.open(1)
	if p.naive {
		if _, err := r.multicast().Enqueue(r.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{
			MulticastGroupId: string(id), FPort: 201, Data: []byte{1}}}); err != nil {
			p.t.Fatal(err)
		}
	} else if _, err := r.cs.Broadcast(p.t.Context(), frame(id, 20*time.Second)); err != nil {
		return err
	}
	r.run(10 * time.Minute)
	if st, err := r.cs.GroupState(p.t.Context(), id); err != nil || len(st.Queued) != 0 {
		return errorf("after ten minutes %v wait, %v", st.Queued, err)
	}
	return nil
}

func wrongPort(p *probe) error {
	r := p.start(site{devices: 1})
	b := frame(r.open(1), time.Hour)
	for _, port := range []uint8{0, 224} {
		b.FPort = port
		if _, err := r.cs.Broadcast(p.t.Context(), b); !isInvalid(err) {
			return errorf("Broadcast to port %d = %v, want ErrInvalid", port, err)
		}
		if _, err := r.cs.Send(p.t.Context(), network.Message{Device: eui(0), FPort: port, Payload: []byte{1}}); !isInvalid(err) {
			return errorf("Send to port %d = %v, want ErrInvalid", port, err)
		}
	}
	return nil
}

// burst has six frames to send while the gateway is away, of which the server does not know yet.
func burst(p *probe) error {
	r := p.start(site{server: func(c *networkserver.Config) {
		c.Faults.Outages = []networkserver.Outage{{Gateway: lorawan.EUI64(gatewayID(0)), From: 50 * time.Second, Until: 200 * time.Second}}
	}})
	id := r.open(1)
	r.run(55 * time.Second)
	for range 6 {
		if _, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil && !isUnavailable(err) {
			return err
		}
	}
	r.run(5 * time.Minute)
	var order []uint32
	for _, f := range r.air.frames {
		order = append(order, counter(f))
	}
	if len(order) > 2 || len(order) == 0 {
		return errorf("counters %v in one burst, in order: %v", order, slices.IsSorted(order))
	}
	return nil
}

func allOffline(p *probe) error {
	r := p.start(site{server: func(c *networkserver.Config) {
		c.Faults.Outages = []networkserver.Outage{{Gateway: lorawan.EUI64(gatewayID(0)), From: 50 * time.Second, Until: 200 * time.Second}}
	}})
	id := r.open(1)
	r.run(2 * time.Minute)
	if _, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); !isUnavailable(err) {
		return errorf("Broadcast while all gateways are offline = %v, want ErrUnavailable", err)
	}
	r.run(5 * time.Minute)
	if _, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil {
		return errorf("Broadcast after the outage = %v", err)
	}
	return nil
}

func foreignUse(p *probe) error {
	r := p.start(site{})
	id := r.open(1)
	if _, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil {
		return err
	}
	if _, err := r.multicast().Enqueue(r.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{
		MulticastGroupId: string(id), FPort: 201, Data: []byte{1}}}); err != nil {
		p.t.Fatal(err)
	}
	r.run(time.Minute)
	if fCnt, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); !isInvalid(err) {
		return errorf("Broadcast after somebody else's = %d, %v, want ErrInvalid", fCnt, err)
	}
	return nil
}

// lostReply loses the answer of the second Enqueue and refuses the fourth before it happens.
func lostReply(p *probe) error {
	r := p.start(site{server: func(c *networkserver.Config) {
		c.Faults.Calls = []networkserver.CallFault{
			{Method: enqueueMethod, First: 2, Count: 1, Effect: networkserver.ReplyLost},
			{Method: enqueueMethod, First: 4, Count: 1, Effect: networkserver.Unavailable}}
	}})
	id := r.open(1)
	const frames = 5
	for i := range uint32(frames) {
		fCnt, err := r.send(frame(id, time.Hour))
		if err != nil || fCnt != i {
			return errorf("frame %d was sent with counter %d, %v", i, fCnt, err)
		}
		r.run(time.Duration(i+1) * 30 * time.Second)
	}
	if n := len(r.air.frames); n != frames {
		return errorf("%d frames on the air, want %d", n, frames)
	}
	return nil
}

func locked(p *probe) error {
	r := p.start(site{server: func(c *networkserver.Config) {
		c.Faults.Calls = []networkserver.CallFault{{Method: enqueueMethod, Count: 1, Effect: networkserver.Locked}}
	}})
	if fCnt, err := r.send(frame(r.open(1), time.Hour)); err != nil || fCnt != 0 {
		return errorf("Broadcast to a database that is locked once = %d, %v", fCnt, err)
	}
	return nil
}

func closeFlushes(p *probe) error {
	r := p.start(site{})
	id := r.open(1)
	for range 2 {
		if _, err := r.cs.Broadcast(p.t.Context(), frame(id, time.Hour)); err != nil {
			return err
		}
	}
	r.run(time.Second)
	if !p.naive { // whoever only forgets the campaign leaves the queue
		if err := r.cs.CloseGroup(p.t.Context(), id); err != nil {
			return err
		}
	}
	before := len(r.air.frames)
	r.run(5 * time.Minute)
	if n := len(r.air.frames) - before; n > 0 {
		return errorf("%d frames after the end", n)
	}
	return nil
}

func longAnswer(p *probe) error {
	f := &fake{}
	for i := range 30_000 {
		f.queue = append(f.queue, &api.MulticastGroupQueueItem{MulticastGroupId: "g", FCnt: uint32(i), FPort: 201, Data: make([]byte, 222)})
	}
	if st, err := f.serve(p.t).GroupState(p.t.Context(), "g"); err != nil || len(st.Queued) != len(f.queue) {
		return errorf("GroupState with %d frames in the queue = %d, %v", len(f.queue), len(st.Queued), err)
	}
	return nil
}
