// Package fleet simulates end devices: the LoRaWAN 1.0.4 class A MAC, multicast sessions of classes B and C and
// the radio in Go, and above them an application that speaks the modem protocol (docs/spec/modem.md): the device library
// compiled for the host, the firmware on an emulated processor, or a model in Go.
//
// A device acts in three situations only, each an event of package world: its clock reaches the instant the
// application has asked for, a frame was received, or the radio is free for the next uplink. The application
// computes inside that event and takes no virtual time. No two devices act at the same instant: the seconds of
// each clock begin, and each transmission starts, with a delay that belongs to the DevEUI.
//
// What a reset forgets: the MAC keeps the LoRaWAN session (DevAddr, keys, counters, DevNonce) as stacks do in
// non-volatile memory, and nothing else. Uplinks that wait, multicast groups and their counters, class C
// sessions and receive windows are gone until the application sets them again; the first frame of a group set
// again may have any counter of the group's range.
//
// In class B a device is synchronised by the beacons it hears, which the loss process decides like all frames
// ([radio.Beacon]). Without them its ping slots move with the drift of its clock, and it widens them by its tolerance
// on both sides; two hours after the last one it opens none until it hears another (TS001-1.0.4).
//
// [Device.Phases] says how long the radio was in each of its states, and [Power] what that consumed.
//
// A device answers the MAC commands of TS001-1.0.4 and obeys those that it accepts; see commands.go for what it refuses. Its
// settings belong to the session and outlive a reset; answers that wait do not.
//
// Not modelled: ADR, repeated transmissions, duty-cycle limits of devices, finding the first
// beacon, unicast of class B, LoRaWAN 1.1.
package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// App is the software of a device above its MAC. Its methods are called one at a time. The last frame of an
// answer is IDLE_UNTIL. An error means that the device has stopped for good.
type App interface {
	// PowerUp starts the device and returns what it says before it first idles.
	PowerUp() ([]modem.Frame, error)
	// Turn hands one frame to the device and returns its answer. The payload of f is valid until Turn returns,
	// and what is returned until the next call.
	Turn(f modem.Frame) ([]modem.Frame, error)
	// Close switches the device off.
	Close() error
}

// Config describes what all devices of a fleet share. World and Medium are required.
type Config struct {
	World  *world.World
	Medium *radio.Medium
	Seed   uint64 // of the choice of channels and the back-off of joins

	// What devices report; called inside world events, each may be nil. A callback must not wait for time.
	Console func(eui lorawan.EUI64, at time.Time, line string)
	Event   func(eui lorawan.EUI64, at time.Time, e modem.Event)
	Failed  func(eui lorawan.EUI64, at time.Time, err error) // the application returned an error or broke the protocol
}

// DeviceConfig describes one device. EUI, AppKey and App are required.
type DeviceConfig struct {
	EUI         lorawan.EUI64
	JoinEUI     lorawan.EUI64
	AppKey      lorawan.AES128Key // root key of OTAA
	DataRate    int               // of uplinks
	ClockOffset time.Duration     // by how much the clock of the device is ahead of GPS time, plus up to 1 s; may be negative
	Drift       float64           // of the clock, in parts per million, within ±500; positive runs fast
	Tolerance   float64           // class B: for which drift ping slots are widened while beacons are missed, in ppm, 0..500
	PowerUp     time.Duration     // after the world's present time
	Battery     uint8             // percent, as the device answers DevStatusReq; 0: it does not know
	DevNonce    uint16            // used last; a server refuses every nonce that it has seen
	App         App
}

// Stats counts what happened to a device.
type Stats struct {
	Joined            bool
	Stopped           bool // the application has failed
	Uplinks           int  // data frames sent
	UplinksDropped    int  // refused by the MAC: too long, no such port, or too many waiting
	UplinkAirtime     time.Duration
	Downlinks         int // unicast frames received
	DownlinksLost     int // unicast frames that were on the air for it while it listened, and were lost
	Multicasts        int // multicast frames received and accepted
	MulticastsLost    int // frames of its groups lost on the air during a session
	MulticastsDeaf    int // likewise, but missed because the radio was busy with something else
	MulticastsRefused int // received, with an old or repeated counter, out of range, or with a wrong MIC
	BeaconsLost       int // during class B sessions
	Resets            int
}

// Fleet is a set of devices. Its methods belong to the goroutine of the world, or to the time before it;
// [Device.Stats] may be called at any time.
type Fleet struct {
	cfg     Config
	devices []*Device // ordered by EUI
	joining settings  // of devices without a session
	last    *opened   // the multicast frame that was received last
	scratch []byte    // the payload of a DOWN frame
}

// New returns an empty fleet.
func New(cfg Config) (*Fleet, error) {
	if cfg.World == nil || cfg.Medium == nil {
		return nil, errors.New("fleet: config has no World or no Medium")
	}
	f := &Fleet{cfg: cfg}
	f.joining.rx2Frequency, f.joining.rx2DataRate = cfg.Medium.Plan().Region.RX2()
	return f, nil
}

// Devices lists the fleet ordered by EUI.
func (f *Fleet) Devices() []*Device { return f.devices }

// Device finds a device; nil if there is none.
func (f *Fleet) Device(eui lorawan.EUI64) *Device {
	if i := f.index(eui); i < len(f.devices) && f.devices[i].cfg.EUI == eui {
		return f.devices[i]
	}
	return nil
}

func (f *Fleet) index(eui lorawan.EUI64) int {
	return sort.Search(len(f.devices), func(i int) bool { return bytes.Compare(f.devices[i].cfg.EUI[:], eui[:]) >= 0 })
}

// Add puts a device into the world, which it enters by powering up and joining. The fleet closes its App.
func (f *Fleet) Add(cfg DeviceConfig) (*Device, error) {
	plan := f.cfg.Medium.Plan()
	limit, err := plan.MaxPayload(cfg.DataRate, airtime.Uplink)
	if err == nil {
		_, err = plan.Uplink(cfg.DataRate, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("fleet: device %s: %w", cfg.EUI, err)
	}
	now := f.cfg.World.Now()
	switch {
	case cfg.App == nil:
		return nil, fmt.Errorf("fleet: device %s has no App", cfg.EUI)
	case cfg.Battery > 100:
		return nil, fmt.Errorf("fleet: device %s: battery at %d %%, want 0..100", cfg.EUI, cfg.Battery)
	case cfg.PowerUp < 0:
		return nil, fmt.Errorf("fleet: device %s: power-up %s lies in the past", cfg.EUI, cfg.PowerUp)
	case !(cfg.Drift >= -500 && cfg.Drift <= 500) || !(cfg.Tolerance >= 0 && cfg.Tolerance <= 500):
		return nil, fmt.Errorf("fleet: device %s: clock drift %v and tolerance %v ppm, want -500..500 and 0..500", cfg.EUI, cfg.Drift, cfg.Tolerance)
	case airtime.GPS(now)+cfg.ClockOffset < 0:
		return nil, fmt.Errorf("fleet: device %s: clock offset %s puts the clock before the GPS epoch", cfg.EUI, cfg.ClockOffset)
	}
	d := &Device{f: f, cfg: cfg, limit: limit, devNonce: cfg.DevNonce, born: now}
	d.clock = cfg.ClockOffset + time.Duration(radio.Hash(d.id(), 0)%uint64(time.Second))
	d.turnaround = time.Millisecond + time.Duration(radio.Hash(d.id(), 1)%uint64(time.Millisecond))
	if d.station, err = f.cfg.Medium.NewStation(cfg.EUI, d); err != nil {
		return nil, err
	}
	i := f.index(cfg.EUI)
	f.devices = slices.Insert(f.devices, i, d)
	d.off = true
	f.cfg.World.At(now.Add(cfg.PowerUp), "power up", d.PowerUp)
	return d, nil
}

// Close switches all devices off.
func (f *Fleet) Close() error {
	var errs []error
	for _, d := range f.devices {
		d.PowerOff()
		if !d.closed {
			d.closed = true
			errs = append(errs, d.cfg.App.Close())
		}
	}
	return errors.Join(errs...)
}
