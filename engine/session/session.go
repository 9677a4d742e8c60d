// Package session is the domain of a firmware session over LoRaWAN multicast: one block, one group,
// many devices, by TS003–TS006 in version 1 or 2 and the diagnostic package of this project. With [Raw] it serves
// devices that have TS003–TS005 only.
//
// A [Session] is a pure state machine. [Session.Step] takes the time and one event and returns effects; the
// caller carries them out in order and reports their results as events. It reads no clock, sends nothing,
// starts no goroutine and draws no random number, so that the same code runs in production, in a rehearsal
// in virtual time and in tests. Its whole memory is [State], plain data.
//
// What a session does, and in which order:
//
//	prepare   every device: package version, running version, clock, multicast group, fragmentation session
//	announce  every device that is ready: class C window, checked against the clock of the device
//	window    canary, data fragments, first parity burst, then rounds of status request and top-up
//	collect   unicast status of those whose silence says nothing; announce again while somebody is worth it
//	finish    each device on its own: last fragments by unicast, image valid, reboot, new version, so many uplinks
//	          without a reset, clean-up
//	cleanup   only if devices were taken out: session and group are deleted on those that are heard
//
// Silence after a status request that devices answer only if they miss something is taken as "complete": the image
// proves it, and where it does not, the device is asked. A fragment that a gateway refuses is made up for by one more
// parity fragment. The rule by which a device is worth saving stands in [Limits] before the first fragment.
//
// A device that joins again has lost its multicast group and its window, and perhaps its fragmentation session.
// Before the window opens it gets the group again, then the window, and is asked whether the session has survived;
// later it waits for the next window. The session is set up again only if the device says that it is gone, or
// cannot say so (version 1) and holds nothing or never answers. Without its session it holds nothing, and waits for
// a window that sends the data again. In a window after whose announcement it has joined, its silence means
// nothing. What waits for it in the network is not sent a second time until it is reported as sent or dropped or
// expires, or two uplinks have taken nothing with them: the server has emptied the queue at the join, and is
// expected to do so again.
//
// [Pause] and [Continue] hold a session, [Withhold] takes devices out of it, [Calendar] confines it to maintenance
// windows. Devices with little battery ([Spec.MinBattery]) and those that put the update off are waited for.
//
// A class A device is reached only in answer to an uplink, so every unicast command waits for one; at most
// one command per device is under way. Answers may be lost, late, repeated and several in one uplink.
//
// The windows are those of class C or, with [ClassB], ping-slot sessions.
//
// The package does not choose devices, keys or parameters, and knows one group with one parity
// matrix: a device that speaks another version of TS004 belongs in a session of its own.
package session

import (
	"container/heap"
	"errors"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/fragmentation"
)

// ErrSpec is returned by [New] and [Resume] for a session that cannot be run.
var ErrSpec = errors.New("session: invalid specification")

// Spec says what a session is to do. It does not change while the session runs.
type Spec struct {
	ID          string // names the session and its group
	Application string
	Block       []byte // what is fragmented: a bundle
	Target      uint32 // version that the devices run afterwards, as TS006 reports it
	Plan        plan.Plan
	Gateways    []network.EUI64
	Devices     []Target

	// The multicast group. Address and key must be new for each session and random.
	McAddr uint32
	McKey  network.Key `json:"-"` // kept apart from the rest, sealed

	FragIndex  uint8   // of the fragmentation session, 0..3
	McGroupID  uint8   // on the devices, 0..3
	Descriptor [4]byte // some devices insist on a value

	ClassB     *ClassB  // as in the plan; nil: class C windows
	Raw        *Raw     // nil: a firmware session
	MinBattery int      // per cent; a device known to have less is not told to reboot
	Calendar   Calendar // when the session may send

	Capabilities network.Capabilities
	Timing       Timing
	Limits       Limits
}

// ClassB makes the windows class B ping-slot sessions. The network sends each fragment in the next slot of the group;
// the pace of the plan must leave it one.
type ClassB struct {
	Periodicity uint8 // 0..7: 2^(7-Periodicity) ping slots in each beacon period of 128 s
}

// beaconPeriod is the unit of time of class B.
const beaconPeriod = 128 * time.Second

// Target is one device of a session.
type Target struct {
	EUI        network.EUI64
	LoRaWAN11  bool
	SessionCnt uint16 // first SessionCnt to try (v2): above all that were ever used with this device
	Hardware   uint16 // hardware id; 0: not known
	From       uint32 // version that it runs before; 0: not known
	Battery    int    // per cent; 0 or -1: not known
}

// Timing holds the patience of a session. Zero values mean the defaults named here.
type Timing struct {
	UplinkInterval time.Duration // longest usual time between two uplinks of a device; 1 h
	Silence        time.Duration // a device not heard for so long is lost; 12 uplink intervals
	Prepare        time.Duration // longest set-up; 24 uplink intervals
	Lead           time.Duration // from announcement to window; 6 uplink intervals; in class B at least 5 beacon periods
	Ready          time.Duration // from block complete to image ready, to reboot, to confirmation; 24 uplink intervals
	Answer         time.Duration // from delivery of a command to its answer; 20 s
	Countdown      time.Duration // of the reboot; 30 s
	Settle         time.Duration // from the reboot to the first question afterwards; 60 s
	Defer          time.Duration // how long a device may put the update off; 7 days
	Cleanup        time.Duration // after an abort, for deletions on the devices; 3 uplink intervals
}

func (t Timing) withDefaults() Timing {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.UplinkInterval, time.Hour)
	def(&t.Silence, 12*t.UplinkInterval)
	def(&t.Prepare, 24*t.UplinkInterval)
	def(&t.Lead, 6*t.UplinkInterval)
	def(&t.Ready, 24*t.UplinkInterval)
	def(&t.Answer, 20*time.Second)
	def(&t.Countdown, 30*time.Second)
	def(&t.Settle, time.Minute)
	def(&t.Defer, 7*24*time.Hour)
	def(&t.Cleanup, 3*t.UplinkInterval)
	return t
}

// Limits holds the effort that a session makes. Zero values mean the defaults named here.
type Limits struct {
	Attempts int // deliveries of one command without an answer; 12
	Rounds   int // status rounds in one window; 10
	Windows  int // class C windows; 5
	TopUp    int // most parity that one device is worth in a round, in fragments; 1.5 M + 20
	Reboots  int // reboot commands to a device that keeps its image; 3
	Proof    int // uplinks with the new version, without a reset, before a device counts as updated; 1
	Resets   int // resets of a device with the new version before it counts as failed; 3
	Tail     int // fragments that one device is worth by unicast, after the multicast windows; 8; -1: none
	// Fragments is the most that the whole session sends, data and parity: the rule by which a device is worth saving.
	// Who would need more is left behind. 0: as many as the plan provides for.
	Fragments int
}

func (l Limits) withDefaults(m int) Limits {
	def := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&l.Attempts, 12)
	def(&l.Rounds, 10)
	def(&l.Windows, 5)
	def(&l.TopUp, m+m/2+20)
	def(&l.Reboots, 3)
	def(&l.Proof, 1)
	def(&l.Resets, 3)
	def(&l.Tail, 8)
	return l
}

func (s *Spec) validate() error {
	p := s.Plan
	switch {
	case s.ID == "":
		return fmt.Errorf("%w: no ID", ErrSpec)
	case len(s.Devices) == 0:
		return fmt.Errorf("%w: session %s has no devices", ErrSpec, s.ID)
	case len(s.Gateways) == 0:
		return fmt.Errorf("%w: session %s has no gateways; multicast needs at least one", ErrSpec, s.ID)
	case s.McKey == (network.Key{}):
		return fmt.Errorf("%w: session %s has no multicast key", ErrSpec, s.ID)
	case s.FragIndex >= datablock.MaxSessions || s.McGroupID >= 4:
		return fmt.Errorf("%w: FragIndex %d and McGroupID %d, want 0..3", ErrSpec, s.FragIndex, s.McGroupID)
	case p.Pace <= 0:
		return fmt.Errorf("%w: pace %s, want more than 0", ErrSpec, p.Pace)
	case p.Matrix != fragmentation.V1 && p.Matrix != fragmentation.V2:
		return fmt.Errorf("%w: matrix %s, devices speak v1 or v2", ErrSpec, p.Matrix)
	case s.ClassB != nil && s.ClassB.Periodicity > 7:
		return fmt.Errorf("%w: ping-slot periodicity %d, want 0..7", ErrSpec, s.ClassB.Periodicity)
	case (s.ClassB == nil) != (p.ClassB == nil) || s.ClassB != nil && s.ClassB.Periodicity != p.ClassB.Periodicity:
		return fmt.Errorf("%w: the plan is for another class or other ping slots than the session: %s", ErrSpec, p.Receive())
	case s.ClassB != nil && p.Pace < time.Second<<s.ClassB.Periodicity:
		return fmt.Errorf("%w: pace %s, but periodicity %d has a ping slot every %s", ErrSpec, p.Pace, s.ClassB.Periodicity, time.Second<<s.ClassB.Periodicity)
	case s.MinBattery < 0 || s.MinBattery > 100:
		return fmt.Errorf("%w: minimum battery %d %%, want 0..100", ErrSpec, s.MinBattery)
	case s.Raw != nil && (s.Raw.Proof > ProofTag || s.Raw.Offset < 0):
		return fmt.Errorf("%w: %s and offset %d in the rule of proof", ErrSpec, s.Raw.Proof, s.Raw.Offset)
	case s.Raw != nil && s.Raw.Proof == ProofUplink && s.Raw.FPort == 0:
		return fmt.Errorf("%w: proof by uplink without an FPort, want 1..223", ErrSpec)
	case s.Limits.Fragments != 0 && s.Limits.Fragments < p.M:
		return fmt.Errorf("%w: at most %d fragments, but the block alone has %d", ErrSpec, s.Limits.Fragments, p.M)
	case p.BlockSize != len(s.Block):
		return fmt.Errorf("%w: planned for a block of %d bytes, but it has %d", ErrSpec, p.BlockSize, len(s.Block))
	case p.Parity < 0 || p.Parity > len(p.Indices):
		return fmt.Errorf("%w: %d parity fragments planned, but indices for %d", ErrSpec, p.Parity, len(p.Indices))
	}
	if err := s.Calendar.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrSpec, err)
	}
	least := 2*p.Guard + p.AnswerWindow() + 10*p.Pace
	if s.ClassB != nil {
		least = max(least, beaconPeriod)
	}
	if longest, ok := s.Calendar.longest(); ok && longest < 2*least {
		return fmt.Errorf("%w: the longest maintenance window lasts %s, a receive window for some fragments takes %s", ErrSpec, longest, 2*least)
	}
	return nil
}

// Session is a running session. It is not safe for concurrent use.
type Session struct {
	spec Spec
	enc  *fragmentation.Encoder
	ver  applayer.Version
	air  Neighbours // nil: nobody else sends
	st   State

	// Derived from st.
	index map[network.EUI64]int
	count [numStages]int
	due   dueHeap

	cleaning int // devices that may hold something of the session, in PhaseCleanup

	// What has changed since the last call of Changes.
	saved   Header
	changed []int
	marked  []bool

	out []Effect // of the step that is running
	now time.Time
}

// New returns a session that waits for [Start].
func New(spec Spec) (*Session, error) {
	st := State{Devices: make([]Device, len(spec.Devices))}
	for i, t := range spec.Devices {
		st.Devices[i] = Device{EUI: t.EUI, SessionCnt: t.SessionCnt, Missing: -1, Battery: t.Battery}
		if t.Battery == 0 {
			st.Devices[i].Battery = -1
		}
	}
	return Resume(spec, st)
}

// Resume returns a session that goes on from a state that an earlier one had.
func Resume(spec Spec, st State) (*Session, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	if len(st.Devices) != len(spec.Devices) {
		return nil, fmt.Errorf("%w: the state has %d devices, the specification %d", ErrSpec, len(st.Devices), len(spec.Devices))
	}
	spec.Timing = spec.Timing.withDefaults()
	if spec.ClassB != nil { // devices look for a beacon some periods before the window opens
		spec.Timing.Lead = max(spec.Timing.Lead, 5*beaconPeriod)
	}
	spec.Limits = spec.Limits.withDefaults(spec.Plan.M)
	enc, err := fragmentation.NewEncoder(spec.Block, spec.Plan.FragSize, spec.Plan.Matrix)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	if enc.M() != spec.Plan.M || enc.Padding() != spec.Plan.Padding {
		return nil, fmt.Errorf("%w: planned for %d fragments and %d bytes of padding, the block has %d and %d",
			ErrSpec, spec.Plan.M, spec.Plan.Padding, enc.M(), enc.Padding())
	}
	c := &Session{spec: spec, enc: enc, ver: spec.Plan.Version(), st: st, index: make(map[network.EUI64]int, len(st.Devices)),
		saved: st.Header, marked: make([]bool, len(st.Devices))}
	for i := range c.st.Devices {
		d := &c.st.Devices[i]
		if d.EUI != spec.Devices[i].EUI {
			return nil, fmt.Errorf("%w: device %d is %s in the state and %s in the specification", ErrSpec, i, d.EUI, spec.Devices[i].EUI)
		}
		if _, twice := c.index[d.EUI]; twice {
			return nil, fmt.Errorf("%w: device %s is listed twice", ErrSpec, d.EUI)
		}
		c.index[d.EUI] = i
		c.count[d.Stage]++
		if c.st.Phase == PhaseCleanup && d.dirty() {
			c.cleaning++
		}
		if !d.Wake.IsZero() {
			heap.Push(&c.due, dueEntry{d.Wake, i})
		}
	}
	return c, nil
}

// ID returns the name of the session.
func (c *Session) ID() string { return c.spec.ID }

// Application returns the application whose events the session needs.
func (c *Session) Application() string { return c.spec.Application }

// State returns a copy of all that the session remembers; [Resume] takes it.
func (c *Session) State() State {
	st := c.st
	st.Devices = append([]Device(nil), c.st.Devices...)
	return st
}

// Header returns what the session remembers beside its devices.
func (c *Session) Header() State { return State{Header: c.st.Header} }

// Device returns what the session remembers of its device i.
func (c *Session) Device(i int) Device { return c.st.Devices[i] }

// Changes returns whether the header and which devices have changed since the last call, and forgets it. A new or
// resumed session reports nothing: who made it knows its state.
func (c *Session) Changes() (header bool, devices []int) {
	header, devices = c.st.Header != c.saved, c.changed
	for _, i := range devices {
		c.marked[i] = false
	}
	c.saved, c.changed = c.st.Header, nil
	return header, devices
}

// mark notes that a device may have changed.
func (c *Session) mark(i int) {
	if !c.marked[i] {
		c.marked[i] = true
		c.changed = append(c.changed, i)
	}
}

// Has reports whether a device belongs to the session.
func (c *Session) Has(eui network.EUI64) bool {
	_, ok := c.index[eui]
	return ok
}

// Spec returns what the session is to do, defaults filled in. It must not be changed.
func (c *Session) Spec() Spec { return c.spec }

// GroupID returns the group that is open; empty: none is.
func (c *Session) GroupID() network.GroupID { return c.st.Group }

// Started reports whether the session has begun.
func (c *Session) Started() bool { return c.st.Phase != PhaseIdle }

// Lookup returns the number of a device.
func (c *Session) Lookup(eui network.EUI64) (device int, ok bool) {
	device, ok = c.index[eui]
	return device, ok
}

// Ended reports whether nothing is left to do.
func (c *Session) Ended() bool { return c.st.Phase == PhaseEnded }

// dueHeap orders devices by their next wake-up. An entry whose time is no longer the device's is stale.
type dueHeap []dueEntry

type dueEntry struct {
	at  time.Time
	dev int
}

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].dev < h[j].dev
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)   { *h = append(*h, x.(dueEntry)) }
func (h *dueHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// rebuildDue drops the stale entries.
func (c *Session) rebuildDue() {
	c.due = c.due[:0]
	for i := range c.st.Devices {
		if at := c.st.Devices[i].Wake; !at.IsZero() {
			c.due = append(c.due, dueEntry{at, i})
		}
	}
	heap.Init(&c.due)
}
