// Package radio simulates the air between gateways and end devices in the virtual time of package world:
// which frame begins when, who listens on its frequency and data rate at that instant, and which link loses it.
//
// Loss belongs to the frame, not to the run: a [Process] decides from (seed, device, gateway, kind, session,
// counter, copy) by a counter-based hash, so that one frame is lost or heard whatever was sent before it and
// in whatever order. A [Station] is half-duplex and has one receiver; a [Gateway] is half-duplex and refuses
// what overlaps a transmission it has already accepted. [Medium.Interfere] lets frames disturb one another, with
// capture; without it all pass.
//
// A [Loss] is a loss process for whole fleets at once, without frames: independent, uneven between devices, bursty in
// time, fading, common to all devices, or replayed from a record. [AsProcess] gives a [Medium] the same losses, so that
// devices with and without payload agree.
//
// Not modelled: interference between data rates, demodulator limits, path loss. Methods of a
// [Medium] and of what it hands out belong to the goroutine of [world.World.Run], or to the time before it.
package radio

import (
	"fmt"
	"time"

	"github.com/brocaar/lorawan"
)

// Kind separates the frame counters that a device sees.
type Kind uint8

// The kinds of frames.
const (
	JoinRequest Kind = iota + 1 // counted by DevNonce
	JoinAccept                  // counted by the DevNonce it answers
	Uplink                      // counted by FCntUp
	Downlink                    // unicast, counted by FCntDown
	Multicast                   // counted by the FCnt of the group
	Beacon                      // of class B, counted by the beacon periods since the GPS epoch
)

var kindNames = [...]string{JoinRequest: "join request", JoinAccept: "join accept", Uplink: "uplink", Downlink: "downlink", Multicast: "multicast", Beacon: "beacon"}

// String returns the name of the kind in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Up says whether frames of this kind travel from the device to the gateway.
func (k Kind) Up() bool { return k == JoinRequest || k == Uplink }

// Key names one frame on one link. Two frames have the same key only if they are the same frame.
type Key struct {
	Device  lorawan.EUI64
	Gateway lorawan.EUI64
	Kind    Kind
	Session uint32 // counts what starts Counter again: joins, or the groups a device was a member of
	Counter uint32
	Copy    uint32 // counts repetitions of the frame on this link
}

// Signal is how a frame arrived.
type Signal struct {
	RSSI int     // dBm
	SNR  float32 // dB
}

// Frame is a transmission.
type Frame struct {
	Payload   []byte // PHYPayload; whoever receives it must not change it
	Frequency uint32 // Hz
	DataRate  int    // index of the region
	Copy      uint32 // see Key

	Key Key // of uplinks, without Gateway; of a downlink that is delivered, what the receiver has named it

	// Set by the medium.
	Gateway lorawan.EUI64 // of downlinks
	Start   time.Time
	End     time.Time
}

// Airtime is the duration of the frame.
func (f Frame) Airtime() time.Duration { return f.End.Sub(f.Start) }

// Receiver is an end device as the medium sees it.
type Receiver interface {
	// FrameKey names a downlink frame as this device counts it; false if the frame is for somebody else.
	// Gateway and Copy are filled in by the medium.
	FrameKey(f Frame) (Key, bool)
	// ReceiveFrame takes a frame that was heard, at the instant of its end.
	ReceiveFrame(f Frame, s Signal)
	// LoseFrame takes note of a frame that was for this device and was not heard; deaf says that the
	// receiver was closed, elsewhere, or transmitting, rather than the link bad.
	LoseFrame(f Frame, deaf bool)
}
