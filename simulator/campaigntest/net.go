// Package campaigntest has a network of scripted devices in virtual time, to test what drives a campaign:
// the state machine of package campaign and the engine around it.
//
// The devices speak TS003–TS006 and the diagnostic package in either version, reassemble the block with the
// real decoder and obey class A and the windows of class B and C; stock devices have the packages of other stacks. The
// radio is a coin, or what a test says frame by frame: there are no collisions, no ping slots and no duty cycle, and one
// gateway, which can be made to refuse frames. Package simulator/networkserver is the network for everything beyond that.
package campaigntest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/simulator/world"
)

// Net is a network of devices. It implements [network.Network].
type Net struct {
	World *world.World
	Caps  network.Capabilities
	// Repeat, if above 0, is the share of events that are delivered twice, the second time late.
	Repeat float64
	// Refuse, if set, says of each multicast frame whether the gateway refuses it, and why; empty: it sends it. What
	// it refuses is reported a second later, with Caps.ReportsBroadcast.
	Refuse func(fcnt uint32) (reason string)
	// KeepsQueue makes the server keep the unicast messages that wait for a device when it joins again.
	KeepsQueue bool
	// Fault, if set, is asked before each call, by the name of the method: it may return an error, and
	// whether the call takes effect all the same.
	Fault func(method string) (happens bool, err error)

	mu      sync.Mutex
	rng     *rand.Rand
	devices []*Device
	byEUI   map[network.EUI64]*Device
	groups  map[network.GroupID]*group
	serial  int
	deliver func(network.Event)
	stopped bool

	// Down, if set, is what Capabilities returns.
	Down error
	// Calls counts what was asked, by method.
	Calls     map[string]int
	Refused   int // multicast frames
	Twice     int // unicast messages that came while the same one waited for its device and had not expired
	frames    int
	lastFrame int // that left the gateway
}

type group struct {
	network.Group
	fcnt    uint32
	flushed uint32 // frames below it that have not been sent are not sent
	closed  bool
}

type queued struct {
	id network.MessageID
	network.Message
}

// New returns a network without devices.
func New(w *world.World, seed uint64) *Net {
	return &Net{World: w, rng: rand.New(rand.NewPCG(seed, 1)), byEUI: map[network.EUI64]*Device{},
		groups: map[network.GroupID]*group{}, Calls: map[string]int{},
		Caps: network.Capabilities{Name: "campaigntest", Version: "1", ReportsSent: true,
			MulticastClasses: []network.Class{network.ClassC}}}
}

// Add adds a device, which begins its uplinks at once.
func (n *Net) Add(d *Device) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d.net = n
	d.rng = rand.New(rand.NewPCG(n.rng.Uint64(), 2))
	n.devices = append(n.devices, d)
	n.byEUI[d.EUI] = d
	d.boot()
	n.World.After(time.Duration(d.rng.Float64()*float64(d.Interval)), "uplink", func() { n.locked(d.periodic) })
}

// Deliver sets who receives events; it is called without locks, within a world event.
func (n *Net) Deliver(f func(network.Event)) { n.deliver = f }

// Stop ends the uplinks of all devices, so that the world runs dry.
func (n *Net) Stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stopped = true
}

// locked runs f with the lock and then delivers what it has published.
func (n *Net) locked(f func() []network.Event) {
	n.mu.Lock()
	events := f()
	var late []network.Event
	if n.deliver != nil && n.Repeat > 0 {
		for _, ev := range events {
			if n.rng.Float64() < n.Repeat {
				late = append(late, ev)
			}
		}
	}
	for _, ev := range late {
		n.World.After(time.Duration(n.rng.Float64()*float64(5*time.Minute)), "repeat", func() { n.deliver(ev) })
	}
	n.mu.Unlock()
	for _, ev := range events {
		if n.deliver != nil {
			n.deliver(ev)
		}
	}
}

func (d *Device) loses(frame int) bool {
	if d.Lose != nil {
		return d.Lose(frame)
	}
	return d.rng.Float64() < d.LossDown
}

func (n *Net) id() string {
	n.serial++
	return fmt.Sprintf("e%d", n.serial)
}

// answer opens the receive windows after an uplink: one queued message goes out.
func (n *Net) answer(d *Device) []network.Event {
	now := n.World.Now()
	var events []network.Event
	for len(d.queue) > 0 {
		m := d.queue[0]
		d.queue = d.queue[1:]
		if !m.Expires.IsZero() && now.After(m.Expires) {
			events = append(events, network.Event{ID: n.id(), Kind: network.EventDropped, Device: d.EUI, At: now,
				Message: m.id, Reason: "EXPIRED", Done: func() {}})
			continue
		}
		events = append(events, network.Event{ID: n.id(), Kind: network.EventSent, Device: d.EUI, At: now, Message: m.id, Done: func() {}})
		if d.rng.Float64() >= d.LossDown {
			d.downlink(m.FPort, -1, m.Payload)
		}
		break
	}
	if !n.Caps.ReportsSent {
		return nil
	}
	return events
}

func (n *Net) fault(method string) (bool, error) {
	n.Calls[method]++
	if n.Fault == nil {
		return true, nil
	}
	return n.Fault(method)
}

// Capabilities implements [network.Network].
func (n *Net) Capabilities(context.Context) (network.Capabilities, error) {
	return n.Caps, n.Down
}

// Frames returns how many multicast frames were sent.
func (n *Net) Frames() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frames
}

// Devices implements [network.Network].
func (n *Net) Devices(context.Context, string) ([]network.Device, error) {
	var out []network.Device
	for _, d := range n.devices {
		out = append(out, network.Device{EUI: d.EUI, Class: network.ClassA, Battery: -1})
	}
	return out, nil
}

// Gateways implements [network.Network].
func (n *Net) Gateways(context.Context, string) ([]network.Gateway, error) {
	return []network.Gateway{{ID: network.EUI64{0xaa}, Name: "gateway", Online: true}}, nil
}

// RootKey implements [network.Network].
func (n *Net) RootKey(_ context.Context, eui network.EUI64) (network.Key, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if happens, err := n.fault("RootKey"); err != nil || !happens {
		return network.Key{}, err
	}
	d := n.byEUI[eui]
	if d == nil || d.ServerKey == (network.Key{}) {
		return network.Key{}, fmt.Errorf("%w: no root key of %s", network.ErrNotFound, eui)
	}
	return d.ServerKey, nil
}

// Send implements [network.Network].
func (n *Net) Send(_ context.Context, m network.Message) (network.MessageID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	happens, err := n.fault("Send")
	if !happens {
		return "", err
	}
	d := n.byEUI[m.Device]
	if d == nil {
		return "", fmt.Errorf("%w: device %s", network.ErrNotFound, m.Device)
	}
	for _, q := range d.queue {
		if now := n.World.Now(); q.FPort == m.FPort && bytes.Equal(q.Payload, m.Payload) && now.Before(q.Expires) {
			n.Twice++
			break
		}
	}
	id := network.MessageID(n.id())
	d.queue = append(d.queue, queued{id, m})
	return id, err
}

// Queued implements [network.Network].
func (n *Net) Queued(_ context.Context, eui network.EUI64) ([]network.MessageID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ids []network.MessageID
	for _, m := range n.byEUI[eui].queue {
		ids = append(ids, m.id)
	}
	return ids, nil
}

// Waiting returns how many unicast messages wait for all devices together.
func (n *Net) Waiting() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	waiting := 0
	for _, d := range n.devices {
		waiting += len(d.queue)
	}
	return waiting
}

// Flush implements [network.Network].
func (n *Net) Flush(_ context.Context, eui network.EUI64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.byEUI[eui].queue = nil
	return nil
}

// FlushGroup drops the frames of a group that have not been sent yet. Its frame counter goes on.
func (n *Net) FlushGroup(_ context.Context, id network.GroupID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	happens, err := n.fault("FlushGroup")
	if g := n.groups[id]; happens && g != nil {
		g.flushed = g.fcnt
	}
	return err
}

// OpenGroup implements [network.Network].
func (n *Net) OpenGroup(_ context.Context, g network.Group) (network.GroupID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	happens, err := n.fault("OpenGroup")
	if happens {
		id := network.GroupID(g.Name)
		if n.groups[id] == nil {
			n.groups[id] = &group{Group: g}
		}
		if err == nil {
			return id, nil
		}
	}
	return "", err
}

// GroupState implements [network.Network].
func (n *Net) GroupState(_ context.Context, id network.GroupID) (network.GroupState, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if happens, err := n.fault("GroupState"); err != nil || !happens {
		return network.GroupState{}, err
	}
	g := n.groups[id]
	if g == nil || g.closed {
		return network.GroupState{}, fmt.Errorf("%w: group %s", network.ErrNotFound, id)
	}
	return network.GroupState{NextFCnt: g.fcnt}, nil
}

// Broadcast implements [network.Network].
func (n *Net) Broadcast(_ context.Context, b network.Broadcast) (uint32, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	happens, err := n.fault("Broadcast")
	if !happens {
		return 0, err
	}
	g := n.groups[b.Group]
	if g == nil || g.closed {
		return 0, fmt.Errorf("%w: group %s", network.ErrNotFound, b.Group)
	}
	fcnt := g.fcnt
	g.fcnt++
	n.frames++
	frame := n.frames
	n.World.After(500*time.Millisecond, "broadcast", func() {
		n.locked(func() []network.Event {
			if fcnt < g.flushed || g.closed {
				return nil
			}
			if n.Refuse != nil {
				if why := n.Refuse(fcnt); why != "" {
					n.Refused++
					return []network.Event{{ID: n.id(), Kind: network.EventDropped, Group: b.Group, Gateway: network.EUI64{0xaa},
						FCnt: fcnt, At: n.World.Now(), Reason: why, Done: func() {}}}
				}
			}
			n.lastFrame = frame
			for _, d := range n.devices {
				if d.hears(g.Group) && !d.loses(frame) {
					d.downlink(b.FPort, int(d.groupID), b.Payload)
				}
			}
			return nil
		})
	})
	return fcnt, err
}

// CloseGroup implements [network.Network].
func (n *Net) CloseGroup(_ context.Context, id network.GroupID) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	happens, err := n.fault("CloseGroup")
	if g := n.groups[id]; happens && g != nil {
		g.closed = true
	}
	return err
}

// OpenGroups returns how many groups were opened and not closed.
func (n *Net) OpenGroups() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	open := 0
	for _, g := range n.groups {
		if !g.closed {
			open++
		}
	}
	return open
}

// Events implements [network.Network]. Each event holds the world until it is done.
func (n *Net) Events(ctx context.Context, _ string) (<-chan network.Event, error) {
	ch := make(chan network.Event)
	in := make(chan network.Event, 4096)
	n.Deliver(func(ev network.Event) {
		release := n.World.Hold("event")
		ev.Done = release
		select {
		case in <- ev:
		case <-ctx.Done():
			release()
		}
	})
	go func() {
		defer close(ch)
		for {
			select {
			case ev := <-in:
				select {
				case ch <- ev:
				case <-ctx.Done():
					ev.Done()
				}
			case <-ctx.Done():
				for {
					select {
					case ev := <-in:
						ev.Done()
					default:
						return
					}
				}
			}
		}
	}()
	return ch, nil
}
