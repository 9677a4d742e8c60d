package fleet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// Device is one virtual end device.
type Device struct {
	f       *Fleet
	cfg     DeviceConfig
	limit   int // bytes of an uplink
	station *radio.Station
	clock   time.Duration // ahead of GPS time, when the device was born
	born    time.Time
	// From the decision to transmit to the transmission. It keeps apart the answers of devices that heard the
	// same frame.
	turnaround time.Duration
	off        bool // no power
	dead       bool // the application has failed
	closed     bool
	timer      *world.Event // IDLE_UNTIL

	// Kept through a reset.
	devNonce uint16
	joins    uint32
	session  *session
	members  []uint32    // group addresses ever set, for the keys of the loss process
	booted   []time.Time // of the latest resets that nobody asked for, at most maxResets
	quiet    time.Time   // no transmission before, because of DutyCycleReq

	// Forgotten by a reset.
	groups   [maxGroups]*group
	sessions [maxGroups]*reception
	uplinks  []modem.Up
	ackNext  bool // a confirmed downlink waits for its acknowledgement
	pullNext bool // the network has more for us
	answers  []answer

	radio  radioState
	phases Phases // finished ones, without Sleep

	mu    sync.Mutex
	stats Stats
}

const (
	maxGroups  = 4 // McGroupID 0..3
	maxWaiting = 16

	// A device that resets itself takes bootTime until its MAC speaks to it again. One that has done so maxResets
	// times within loopTime is in a boot loop and is stopped.
	bootTime  = time.Second
	maxResets = 10
	loopTime  = time.Minute
)

// EUI returns the DevEUI.
func (d *Device) EUI() lorawan.EUI64 { return d.cfg.EUI }

// Stats returns the counters; it may be called from any goroutine.
func (d *Device) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stats
}

func (d *Device) count(change func(*Stats)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.stats)
}

// PowerUp switches the device on, at the present virtual time. [Fleet.Add] does it for the first time.
func (d *Device) PowerUp() {
	if !d.off || d.closed {
		return
	}
	d.off = false
	frames, err := d.cfg.App.PowerUp()
	d.process(frames, err, true)
	d.kick()
}

// PowerOff cuts the power, at the present virtual time; the caller does the same to the App. The MAC forgets
// what it forgets in a reset.
func (d *Device) PowerOff() {
	d.off = true
	d.forget()
}

// Reset pulls the reset line of the device, at the present virtual time.
func (d *Device) Reset() {
	if !d.running() {
		return
	}
	d.forget()
	before := d.Stats().Resets
	d.turn(modem.ResetReq{})
	d.count(func(s *Stats) { s.Resets = max(s.Resets, before+1) }) // a device need not announce what it was told
	d.kick()
}

func (d *Device) running() bool { return !d.off && !d.dead && !d.closed }

func (d *Device) id() uint64 { return binary.BigEndian.Uint64(d.cfg.EUI[:]) }

// now is the clock of the device in milliseconds.
func (d *Device) now() uint64 { return d.reading(d.f.cfg.World.Now()) }

func (d *Device) reading(t time.Time) uint64 { return uint64(d.shown(t) / time.Millisecond) }

// shown is what the clock of the device shows, as GPS time.
func (d *Device) shown(t time.Time) time.Duration {
	return airtime.GPS(t) + d.clock + drifted(t.Sub(d.born), d.cfg.Drift)
}

// drifted is by how much a clock gains in so much time.
func drifted(elapsed time.Duration, ppm float64) time.Duration {
	if ppm == 0 {
		return 0
	}
	return time.Duration(float64(elapsed) * ppm / 1e6)
}

// instant is the first instant at which the clock of the device shows ms. Far futures are cut to a century.
func (d *Device) instant(ms uint64) time.Time {
	const century = 100 * 365 * 24 * time.Hour
	now := d.f.cfg.World.Now()
	shown := d.shown(now)
	if ms > uint64((shown+century)/time.Millisecond) {
		return now.Add(century)
	}
	wait := time.Duration(ms)*time.Millisecond - shown
	if d.cfg.Drift == 0 {
		return now.Add(wait)
	}
	t := now.Add(time.Duration(float64(wait) / (1 + float64(d.cfg.Drift/1e6))))
	for d.reading(t) < ms { // rounded down
		t = t.Add(time.Microsecond)
	}
	return t
}

// turn runs one turn of the application.
func (d *Device) turn(m modem.Message) {
	if !d.running() {
		return
	}
	fs, err := modem.Frames(m)
	if err != nil {
		d.fail(fmt.Errorf("fleet: %w", err))
		return
	}
	_, awaited := m.(modem.ResetReq)
	d.hand(fs[0], awaited)
}

// down hands a downlink to the application, at a GPS time that is the present. It is what a simulation spends its time on, hence without the
// frame that [modem.Append] would put around the payload.
func (d *Device) down(gps time.Duration, port, group uint8, data []byte) {
	if !d.running() {
		return
	}
	shown := gps + d.clock
	if d.cfg.Drift != 0 {
		shown += drifted(d.f.cfg.World.Now().Sub(d.born), d.cfg.Drift)
	}
	p := binary.LittleEndian.AppendUint64(d.f.scratch[:0], uint64(shown/time.Millisecond))
	p = append(append(p, port, group), data...)
	d.f.scratch = p
	d.hand(modem.Frame{Type: modem.TypeDown, Payload: p}, false)
}

// hand runs a turn with a frame; awaited says that the application is to boot in it.
func (d *Device) hand(f modem.Frame, awaited bool) {
	if d.timer != nil {
		d.timer.Cancel()
		d.timer = nil
	}
	frames, err := d.cfg.App.Turn(f)
	d.process(frames, err, awaited)
}

// link tells the application whether it has a network.
func (d *Device) link() {
	d.turn(modem.Link{Time: d.now(), Joined: d.session != nil, MaxPayload: uint8(d.limit)})
	d.kick()
}

// fail stops the device for good.
func (d *Device) fail(err error) {
	d.dead = true
	d.forget()
	d.count(func(s *Stats) { s.Stopped = true })
	if d.f.cfg.Failed != nil {
		d.f.cfg.Failed(d.cfg.EUI, d.f.cfg.World.Now(), err)
	}
}

// process carries out what the application said in one turn. awaited says that it was to boot in this turn.
//
// A device that has booted does not know the time and ends with IDLE_UNTIL 0; if it has not announced a reset
// before, its watchdog has bitten. Either way the MAC tells it about the network again.
func (d *Device) process(frames []modem.Frame, err error, awaited bool) {
	if err != nil {
		d.fail(err)
		return
	}
	if len(frames) == 0 {
		d.fail(errors.New("fleet: a turn without IDLE_UNTIL"))
		return
	}
	if p := frames[0].Payload; len(frames) == 1 && frames[0].Type == modem.TypeIdleUntil && len(p) >= 8 && !awaited {
		if at := binary.LittleEndian.Uint64(p); at != 0 { // as most turns end
			d.idle(at)
			return
		}
	}
	resets, lost := 0, false
	for i, f := range frames {
		m, err := f.Message()
		idle, is := m.(modem.IdleUntil)
		if err == nil && is != (i == len(frames)-1) {
			err = errors.New("IDLE_UNTIL must be the last frame and only the last")
		}
		if is {
			lost = idle.Time == 0
		}
		if _, is := m.(modem.Reset); is {
			resets++
			d.forget()
			continue
		}
		if err == nil {
			err = d.obey(m)
		}
		if err != nil {
			d.fail(fmt.Errorf("fleet: frame %d of %d in a turn: %w", i+1, len(frames), err))
			return
		}
	}
	up := d.f.cfg.World.Now().Add(bootTime)
	cause := "announced"
	if lost && resets == 0 && !awaited {
		resets, cause = 1, "by the watchdog"
		d.forget()
		d.tickAt(up)
	}
	if resets > 0 {
		d.count(func(s *Stats) { s.Resets += resets })
		if !awaited && d.loops(resets) {
			d.fail(fmt.Errorf("fleet: device %s is in a boot loop: %d resets within %s, the last one %s", d.cfg.EUI, maxResets, loopTime, cause))
			return
		}
	}
	if (lost || resets > 0 || awaited) && d.session != nil {
		d.wakeAt(up, d.link)
	}
}

// loops takes note of resets that the device made of its own, and says whether they are too many.
func (d *Device) loops(resets int) bool {
	now := d.f.cfg.World.Now()
	for range min(resets, maxResets) {
		d.booted = append(d.booted, now)
	}
	d.booted = slices.Delete(d.booted, 0, max(0, len(d.booted)-maxResets))
	return len(d.booted) == maxResets && now.Sub(d.booted[0]) < loopTime
}

// idle sets the timer of the device to an instant of its clock.
func (d *Device) idle(at uint64) {
	if at != modem.Never {
		d.tickAt(d.instant(at))
	}
}

// tickAt replaces the timer of the device.
func (d *Device) tickAt(t time.Time) {
	d.wakeAt(t, func() {
		d.turn(modem.Tick{Time: d.now()})
		d.kick()
	})
}

// wakeAt replaces the timer of the device. A millisecond passes in any case: a device that never idles must
// not stop the clock.
func (d *Device) wakeAt(t time.Time, what func()) {
	if d.timer != nil {
		d.timer.Cancel()
	}
	if next := d.f.cfg.World.Now().Add(time.Millisecond); t.Before(next) {
		t = next
	}
	d.timer = d.f.cfg.World.At(t, "device timer", func() {
		d.timer = nil
		what()
	})
}

// obey carries out one message.
func (d *Device) obey(m modem.Message) error {
	now := d.f.cfg.World.Now()
	switch m := m.(type) {
	case modem.IdleUntil:
		d.idle(m.Time)
	case modem.Up:
		if m.Port == 0 || m.Port > 225 || len(m.Data) > d.limit || len(d.uplinks) >= maxWaiting {
			d.count(func(s *Stats) { s.UplinksDropped++ })
			return nil
		}
		d.uplinks = append(d.uplinks, m)
	case modem.SetMcGroup:
		return d.setGroup(m)
	case modem.Session:
		return d.setSession(m)
	case modem.Console:
		if d.f.cfg.Console != nil {
			d.f.cfg.Console(d.cfg.EUI, now, m.Text)
		}
	case modem.Event:
		if d.f.cfg.Event != nil {
			d.f.cfg.Event(d.cfg.EUI, now, m)
		}
	default:
		return fmt.Errorf("a device does not send %T", m)
	}
	return nil
}

// forget drops what a reset drops.
func (d *Device) forget() {
	for id := range d.sessions {
		d.cancelSession(uint8(id))
		d.groups[id] = nil
	}
	if d.timer != nil {
		d.timer.Cancel()
		d.timer = nil
	}
	d.uplinks, d.answers, d.ackNext, d.pullNext = nil, nil, false, false
	d.radio.forget(d)
}
