package inventory

import (
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/multipackage"
	"github.com/sower-fuota/sower/engine/network"
)

const (
	// answerTime is how long after its delivery an answer may still come: devices delay it, and at a low data rate
	// their own duty cycle holds it back for minutes.
	answerTime = 5 * time.Minute
	// overtaken is how many other uplinks after the delivery, and flightTime after it, show that no answer comes: it would
	// have been sent before them.
	overtaken = 3
	// flightTime is for how long a question counts among those whose answers may be on the air.
	flightTime = time.Minute
	// lostEvents is after how many uplinks a question counts as delivered although nobody has said so.
	lostEvents = 3
)

// question is what a device is asked in one message.
type question uint8

// The questions, in the order in which they are asked. askPackages is TS007 DevPackageReq, with DevVersionReq of TS006
// in the same message; devices that do not answer it are asked for the version of each package and for their firmware
// by themselves.
const (
	askPackages  question = iota + 1
	askDataBlock          // TS004 PackageVersionReq
	askFirmware           // TS006 DevVersionReq
	askMcSetup            // TS005 PackageVersionReq
	askClockSync          // TS003 PackageVersionReq
	questions
)

var questionPackage = [questions]applayer.PackageID{askPackages: applayer.MultiPackage, askDataBlock: applayer.DataBlock,
	askFirmware: applayer.FwMgmt, askMcSetup: applayer.McSetup, askClockSync: applayer.ClockSync}

// LongestQuestion is the size of the longest message of a [Discovery], in bytes of application payload.
const LongestQuestion = 4

// DiscoveryOptions say how a [Discovery] asks.
type DiscoveryOptions struct {
	Until  time.Time     // when it ends; messages that wait then expire
	MaxAge time.Duration // younger facts are not asked for
	Tries  int           // deliveries of one question before the device is taken not to have an answer; 0: 2
	Flight int           // devices whose answers may be on the air at the same time; 0: 4
	// Rest returns for how long a gateway is left alone after a message of so many bytes to a device that was heard at
	// an uplink data rate of its region; nil: not at all.
	Rest func(region string, dataRate, payload int) time.Duration
}

// Discovery finds out what devices have not said: it asks each of them when it has just been heard, so that the
// question goes out in the receive windows of that uplink, or of the next. A gateway that has sent a question rests,
// and no more than a few devices answer at a time. It sends nothing itself, and is not safe for concurrent use.
//
// What devices answer goes into the inventory. That is all that is remembered between two discoveries: the second one
// does not ask for facts that are young enough.
type Discovery struct {
	inv     *Inventory
	opt     DiscoveryOptions
	devices map[network.EUI64]*asking
	order   []*asking
	first   int                         // of order about which something may be left to ask
	flights map[network.EUI64]*asking   // asked a short while ago
	resting map[network.EUI64]time.Time // gateways, until when
	now     time.Time
	sent    int
}

// asking is what a discovery knows of a device beside the facts.
type asking struct {
	device *Device
	heard  bool

	// The question that waits for its answer. Times are by the caller's clock: those of gateways may be anything.
	open      question // 0: none
	id        network.MessageID
	asked     time.Time
	delivered time.Time // zero: it waits
	uplinks   int       // since it was asked, and then since it was delivered

	tries    [questions]int
	answered [questions]bool
	closed   [questions]bool // asked in vain
}

// NewDiscovery returns a discovery of some devices of an inventory; others are left alone.
func NewDiscovery(now time.Time, inv *Inventory, devices []network.EUI64, opt DiscoveryOptions) *Discovery {
	if opt.Tries == 0 {
		opt.Tries = 2
	}
	if opt.Flight == 0 {
		opt.Flight = 4
	}
	d := &Discovery{inv: inv, opt: opt, now: now, devices: map[network.EUI64]*asking{}, flights: map[network.EUI64]*asking{},
		resting: map[network.EUI64]time.Time{}}
	for _, eui := range devices {
		if dev := inv.Device(eui); dev != nil && d.devices[eui] == nil {
			a := &asking{device: dev}
			d.devices[eui], d.order = a, append(d.order, a)
		}
	}
	return d
}

// Ask is a message that a discovery wants to have sent.
type Ask struct {
	Message  network.Message
	DataRate int // of the uplink that it follows

	question question
	gateway  network.EUI64
}

// Heard takes an event into the inventory. It returns a question to the device that was heard, if it is its turn; the
// caller sends it and calls Sent, or does neither.
func (d *Discovery) Heard(now time.Time, ev network.Event) (Ask, bool) {
	d.inv.Heard(ev)
	d.now = now
	a := d.devices[ev.Device]
	if a == nil || ev.Group != "" {
		return Ask{}, false
	}
	switch ev.Kind {
	case network.EventSent:
		if ev.Message == a.id && a.open != 0 && a.delivered.IsZero() {
			a.delivered, a.uplinks = now, 0
			a.tries[a.open]++
		}
	case network.EventDropped:
		if ev.Message == a.id && a.open != 0 && a.delivered.IsZero() {
			a.closed[a.open] = ev.Reason != "EXPIRED" // it will be dropped for that reason each time
			a.open = 0
		}
	case network.EventJoin:
		if a.delivered.IsZero() {
			a.open = 0 // the network may have dropped it, and may not
		}
	case network.EventUplink:
		a.heard = true
		a.uplink(now, ev, d.opt.Tries)
		// After a piece of an answer of TS007 the next piece comes, with what would be asked now.
		if a.open == 0 && ev.FPort != applayer.FPortMultiPackage && now.Before(d.opt.Until) {
			return d.ask(a, ev)
		}
	}
	return Ask{}, false
}

// uplink closes the open question if the uplink answers it, or if it shows that no answer comes.
func (a *asking) uplink(now time.Time, ev network.Event, tries int) {
	q := a.open
	if q == 0 {
		return
	}
	a.uplinks++
	brought := func(q question) bool { // or it is newer
		known, at := a.fact(q)
		return known && !at.Before(ev.At)
	}
	if brought(q) {
		a.answered[q], a.open = true, 0
		if q == askPackages {
			a.answered[askFirmware] = brought(askFirmware)
		}
		return
	}
	if a.delivered.IsZero() && a.uplinks >= lostEvents {
		a.delivered, a.uplinks = now, 0
		a.tries[q]++
	}
	if since := now.Sub(a.delivered); !a.delivered.IsZero() && (since > answerTime || since > flightTime && a.uplinks >= overtaken) {
		a.closed[q] = a.tries[q] >= tries
		a.open = 0
	}
}

// fact returns whether something is known that answers a question, and of when.
func (a *asking) fact(q question) (known bool, at time.Time) {
	if q == askFirmware {
		return a.device.Version.Known(), a.device.Version.At
	}
	f := a.device.Offers[questionPackage[q]]
	return f.Known(), f.At
}

// known reports whether there is no need to ask: the fact is young, or was asked for already.
func (d *Discovery) known(a *asking, q question) bool {
	known, at := a.fact(q)
	return a.answered[q] || known && !at.IsZero() && d.now.Sub(at) <= d.opt.MaxAge
}

// next returns the first question that is left; 0: none.
func (d *Discovery) next(a *asking) question {
	listed := d.known(a, askPackages)
	if !listed && !a.closed[askPackages] && !d.known(a, askDataBlock) {
		return askPackages
	}
	for q := askDataBlock; q < questions; q++ {
		known := d.known(a, q) || listed && (q != askFirmware || a.device.Offers[applayer.FwMgmt].Value.Version == 0)
		if !known && !a.closed[q] {
			return q
		}
	}
	return 0
}

// ask proposes the next question to a device that has just been heard.
func (d *Discovery) ask(a *asking, ev network.Event) (Ask, bool) {
	q := d.next(a)
	if q == 0 || d.now.Before(d.resting[ev.Gateway]) || d.flying() >= d.opt.Flight {
		return Ask{}, false
	}
	m := network.Message{Device: a.device.EUI, FPort: a.device.Offers.Port(questionPackage[q]), Expires: d.opt.Until}
	switch q {
	case askPackages:
		msg := multipackage.Message{Commands: []applayer.Command{multipackage.DevPackageReq{}}, Token: uint8(a.tries[q]) & 3}
		if !d.known(a, askFirmware) {
			msg.Commands = append(msg.Commands, fwmgmt.DevVersionReq{})
		}
		var err error
		if m.Payload, err = multipackage.AppendMessage(nil, multipackage.Versions{applayer.MultiPackage: applayer.V1, applayer.FwMgmt: applayer.V1}, msg); err != nil {
			panic("inventory: internal error: " + err.Error()) // both commands are of these packages
		}
	case askFirmware:
		m.Payload = []byte{fwmgmt.DevVersionReq{}.CID()}
	default:
		m.Payload = []byte{0} // PackageVersionReq
	}
	return Ask{Message: m, DataRate: ev.DataRate, question: q, gateway: ev.Gateway}, true
}

// flying counts the devices whose answers may be on the air.
func (d *Discovery) flying() int {
	for eui, a := range d.flights {
		if a.open == 0 || d.now.Sub(a.asked) >= flightTime {
			delete(d.flights, eui)
		}
	}
	return len(d.flights)
}

// Sent says that the question that Heard has just returned was queued, under that name; an empty one says that nobody
// knows whether it was.
func (d *Discovery) Sent(q Ask, id network.MessageID) {
	a := d.devices[q.Message.Device]
	a.open, a.id, a.asked, a.delivered, a.uplinks = q.question, id, d.now, time.Time{}, 0
	d.sent++
	d.flights[a.device.EUI] = a
	if d.opt.Rest != nil {
		d.resting[q.gateway] = d.now.Add(d.opt.Rest(a.device.Region, q.DataRate, len(q.Message.Payload)))
	}
}

// DiscoveryState says how far a discovery is. Every device is in one of the lists, in the order in which they were given.
type DiscoveryState struct {
	Sent    int       // messages
	Known   []*Device // nothing is left to ask
	Silent  []*Device // asked and never answered; nothing is left to ask
	Asked   []*Device // an answer, or a turn, is outstanding
	Unheard []*Device // nothing was received since the beginning
}

// State returns how far the discovery is.
func (d *Discovery) State() DiscoveryState {
	st := DiscoveryState{Sent: d.sent}
	for _, a := range d.order {
		list := &st.Known
		switch {
		case d.left(a) && a.heard:
			list = &st.Asked
		case d.left(a):
			list = &st.Unheard
		case a.answered == [questions]bool{} && a.closed != [questions]bool{}:
			list = &st.Silent
		}
		*list = append(*list, a.device)
	}
	return st
}

// left reports whether something is left to ask a device, or to be answered.
func (d *Discovery) left(a *asking) bool { return a.open != 0 || d.next(a) != 0 }

// Over reports whether nothing is left to ask any device.
func (d *Discovery) Over() bool {
	for d.first < len(d.order) && !d.left(d.order[d.first]) {
		d.first++
	}
	return d.first == len(d.order)
}
