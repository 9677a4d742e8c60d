// Package network defines how the engine sees a radio network: a few types and one interface, shaped by what
// LoRaWAN and NB-IoT both need. Nothing in it belongs to one vendor; integrations implement [Network].
//
// Every call of a Network is safe to repeat, or says how to find out whether it happened. Capabilities are
// data, not type switches. The package does no I/O.
package network

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Errors by which the engine decides what to do next. Integrations wrap them.
var (
	// ErrUnavailable means that the call did not happen and may be repeated.
	ErrUnavailable = errors.New("network: unavailable")
	// ErrUncertain means that the call may have happened: its request went out, its answer was lost. The
	// caller finds out with GroupState or Queued before it repeats the call.
	ErrUncertain = errors.New("network: outcome unknown")
	// ErrNotFound means that the object named does not exist, or must not be seen with this token.
	ErrNotFound = errors.New("network: not found")
	// ErrDenied means that the token lacks the right.
	ErrDenied = errors.New("network: denied")
	// ErrInvalid means that the network will never accept this request.
	ErrInvalid = errors.New("network: invalid request")
)

// Busy is the error of a Broadcast that was refused because enough frames of the group wait already. It wraps
// [ErrUnavailable]: nothing has happened. The caller repeats the call after After, without backing off further.
type Busy struct {
	Group   GroupID
	Waiting int // frames in the queue of the network
	After   time.Duration
}

// Error names the group and what waits.
func (b *Busy) Error() string {
	return fmt.Sprintf("network: group %s: %d frames wait already; retry in %s", b.Group, b.Waiting, b.After)
}

// Unwrap returns [ErrUnavailable].
func (b *Busy) Unwrap() error { return ErrUnavailable }

// EUI64 is a DevEUI or a gateway id, most significant byte first.
type EUI64 [8]byte

// String returns 16 lower-case hexadecimal digits.
func (e EUI64) String() string { return hex.EncodeToString(e[:]) }

// MarshalText and UnmarshalText use the form of String.
func (e EUI64) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText accepts 16 hexadecimal digits of either case.
func (e *EUI64) UnmarshalText(b []byte) error {
	v, err := ParseEUI64(string(b))
	if err != nil {
		return err
	}
	*e = v
	return nil
}

// ParseEUI64 reads 16 hexadecimal digits of either case.
func ParseEUI64(s string) (EUI64, error) {
	var e EUI64
	if len(s) != 16 {
		return e, fmt.Errorf("network: EUI %q has %d digits, want 16", s, len(s))
	}
	if _, err := hex.Decode(e[:], []byte(s)); err != nil {
		return e, fmt.Errorf("network: EUI %q: %w", s, err)
	}
	return e, nil
}

// Key is an AES-128 key. It never shows its value in text or in a log.
type Key [16]byte

// String returns "***", or "unset" for the key that is all zero.
func (k Key) String() string {
	if k == (Key{}) {
		return "unset"
	}
	return "***"
}

// GoString hides the value from %#v.
func (k Key) GoString() string { return k.String() }

// Format hides the value from every other verb.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// LogValue hides the value from log/slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText refuses, so that no encoder writes a key by accident.
func (k Key) MarshalText() ([]byte, error) {
	return nil, errors.New("network: a key is not marshalled")
}

// Class is a LoRaWAN device class; NB-IoT devices count as A.
type Class byte

// The classes.
const (
	ClassA Class = 'A'
	ClassB Class = 'B'
	ClassC Class = 'C'
)

// Capabilities says what a network can do.
type Capabilities struct {
	Name    string // product, for people: "ChirpStack"
	Version string // as the server reports it

	// Regions holds the largest application payload in bytes by region ("EU868" …) and downlink data rate index. A region
	// that is not in it is limited by nothing but its own rules; where there are no regions, the name is empty.
	Regions            map[string]map[int]int
	MulticastClasses   []Class // classes a group can have
	ServerAnswersClock bool    // the server answers TS003 AppTimeReq itself
	ReportsSent        bool    // unicast messages get EventSent or EventDropped
	ReportsBroadcast   bool    // fragments of a group do, too
}

// Device is what the network knows of a device.
type Device struct {
	EUI         EUI64
	Name        string
	Application string            // id
	Profile     string            // id of the device profile
	Region      string            // that the device works in, "EU868" …; empty: the network does not tell
	Tags        map[string]string // free text set by the operator
	LoRaWAN11   bool              // key ladders of LoRaWAN 1.1
	Class       Class             // currently enabled
	Disabled    bool
	LastSeen    time.Time // zero: never
	Battery     int       // percent; -1 unknown
}

// Gateway is a transmitter a group can be pinned to.
type Gateway struct {
	ID     EUI64
	Name   string
	Online bool
	Region string // that it last reported, "EU868" …; empty: none, and nothing can be sent through it
}

// MessageID names a unicast message from Send to its fate.
type MessageID string

// Message is one unicast application message.
type Message struct {
	Device  EUI64
	FPort   uint8     // 1..223, or 225
	Payload []byte    // plain; the network encrypts
	Expires time.Time // not sent after this instant; zero: no limit
}

// GroupID names an open multicast group.
type GroupID string

// Group is a multicast group. McAddr and keys are new for each campaign, so that its counter starts at 0.
type Group struct {
	Name        string
	Application string
	McAddr      uint32
	AppSKey     Key
	NwkSKey     Key
	Class       Class
	Region      string // of devices and gateways; empty: that of the gateways
	DataRate    int    // downlink data rate index
	Frequency   uint32 // Hz
	Periodicity uint8  // class B ping-slot periodicity 0..7
	Gateways    []EUI64
	Devices     []EUI64
}

// GroupState is what a network says of an open group: enough to find out whether a Broadcast happened.
type GroupState struct {
	NextFCnt uint32
	Queued   []uint32 // counters of frames that are not yet sent, oldest first
}

// Broadcast is one multicast application message.
type Broadcast struct {
	Group   GroupID
	FPort   uint8
	Payload []byte
	Expires time.Time // not sent after this instant; required
}

// EventKind says what an [Event] reports.
type EventKind uint8

// The kinds of events.
const (
	EventUplink  EventKind = iota + 1 // the device sent FPort and Payload
	EventJoin                         // the device joined; its session and groups are gone
	EventSent                         // Message, or frame FCnt of Group, left the gateway
	EventDropped                      // Message, or frame FCnt of Group by Gateway, will never be sent; Reason says why
	EventStatus                       // the device told its Battery and the Margin of its last downlink
)

var kindNames = [...]string{EventUplink: "uplink", EventJoin: "join", EventSent: "sent", EventDropped: "dropped", EventStatus: "status"}

// String returns the name of the kind in lower case.
func (k EventKind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Event is something that happened in the network. Events of one device may arrive twice and out of order:
// ID repeats exactly when the event does.
type Event struct {
	ID     string
	Kind   EventKind
	Device EUI64
	At     time.Time // when the network received or sent the frame, by its best clock; zero: it does not tell

	FCnt     uint32 // of uplinks, and of frames of a group
	FPort    uint8
	Payload  []byte
	DataRate int
	RSSI     int     // dBm, of the best gateway
	SNR      float64 // dB, of the best gateway
	Gateways int     // that heard it

	Message MessageID // of EventSent and EventDropped of a unicast message
	Reason  string    // of EventDropped: the network's own word, such as EXPIRED

	// Of EventSent and EventDropped of a broadcast, where Capabilities.ReportsBroadcast: each gateway of the
	// group reports for itself, and Device and Message are empty.
	Group   GroupID
	Gateway EUI64 // of uplinks: the one that heard it best and would answer; zero: the network does not tell

	// Of EventStatus.
	Battery int // percent; -1: the device does not know, or has another source of power
	Margin  int // dB

	// Done tells the network that the event has been dealt with and committed; it must be called exactly
	// once. Until then the network may deliver the event again.
	Done func()
}

// Network is a radio network as the engine uses it. Implementations are safe for concurrent use.
type Network interface {
	// Capabilities may be asked before anything else; it also proves that the network can be reached.
	Capabilities(ctx context.Context) (Capabilities, error)
	// Devices lists the devices of an application.
	Devices(ctx context.Context, application string) ([]Device, error)
	// Gateways lists the transmitters that a group of this application may use.
	Gateways(ctx context.Context, application string) ([]Gateway, error)
	// RootKey returns the key from which TS005 and TS004 derive theirs: GenAppKey for LoRaWAN 1.0.x, AppKey
	// for 1.1. A key that was never provisioned is ErrNotFound. Callers forget it at once.
	RootKey(ctx context.Context, device EUI64) (Key, error)
	// Send queues a unicast message. It is not idempotent: after ErrUncertain ask Queued.
	Send(ctx context.Context, m Message) (MessageID, error)
	// Queued lists the unicast messages waiting for a device.
	Queued(ctx context.Context, device EUI64) ([]MessageID, error)
	// Flush drops the unicast messages waiting for a device.
	Flush(ctx context.Context, device EUI64) error
	// OpenGroup creates a group, or returns the one of the same name and McAddr.
	OpenGroup(ctx context.Context, g Group) (GroupID, error)
	// GroupState asks for counter and queue of a group.
	GroupState(ctx context.Context, id GroupID) (GroupState, error)
	// Broadcast queues a multicast message and returns its frame counter. It is not idempotent: after
	// ErrUncertain compare GroupState with the counter before. [Busy] says that enough of them wait already.
	Broadcast(ctx context.Context, b Broadcast) (fCnt uint32, err error)
	// FlushGroup drops the frames that wait in a group. Its frame counter goes on. A group that is gone is no error.
	FlushGroup(ctx context.Context, id GroupID) error
	// CloseGroup drops what is queued and removes the group. A group that is gone is no error.
	CloseGroup(ctx context.Context, id GroupID) error
	// Events delivers what happens to the devices of an application until ctx ends, then closes the channel.
	Events(ctx context.Context, application string) (<-chan Event, error)
}

// Clock is the only source of time in the engine. In production it is the wall clock; in a simulation the
// world's, which does not move while the engine is busy.
type Clock interface {
	Now() time.Time
	// WakeAt declares that the engine has nothing to do until t and returns a channel that is closed at t. It
	// replaces the declaration before it. An instant not in the future says "I am busy" and gives a closed
	// channel; the zero time means that only an event will bring work.
	WakeAt(t time.Time) <-chan struct{}
}
