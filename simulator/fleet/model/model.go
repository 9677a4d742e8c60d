// Package model is the device library in Go, above the MAC of package fleet: TS003, TS004, TS005, TS006 and the
// diagnostic package, in version 1 or 2, for fleets too large to run the C library on every device.
//
// The model speaks byte for byte as the library does and reassembles with the real decoder, but it holds no image:
// verifying and patching are a delay, the version after the update is a parameter, and so is what goes wrong. Power
// cuts, flash and consent are not modelled; run the C library (package device) for those.
package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/radio"
)

// Config describes a device. RootKey is required.
type Config struct {
	RootKey   [16]byte // GenAppKey, or AppKey of a LoRaWAN 1.1 device
	LoRaWAN11 bool
	Packages  applayer.Version // of TS003, TS004 and TS005; 0: 2
	Seed      uint64           // of the delays of answers

	Running uint32        // version that it runs
	Next    uint32        // version in the block it will receive
	Patch   time.Duration // from the complete block to the image
	Fault   Fault

	Heartbeat time.Duration // between uplinks; 0: 60 s
	Battery   uint8         // percent, 0: full; below 20 it defers the work
	Charged   time.Duration // after power-up from which the battery is full again; 0: never
}

// Fault says what goes wrong on a device.
type Fault struct {
	// Refuses is the cause with which it refuses the block, at step MANIFEST; CauseOK: it does not.
	Refuses diag.Cause
	// RollsBack is the cause with which it goes back to the old image after its trial; CauseOK: it does not.
	RollsBack diag.Cause
	// SilentAfterBoot: it is never heard again once the new image has started.
	SilentAfterBoot bool
	// WrongKey: it holds another root key than the server.
	WrongKey bool
}

// Device is a device. It is a fleet.App.
type Device struct {
	cfg     Config
	now     uint64 // its clock, ms
	started uint64 // its clock at power-up
	joined  bool
	dead    bool

	correction int64 // ms, added to the clock
	synced     bool
	resync     int // requests for the time still to be sent
	token      uint8

	groups   [4]*group
	sessions [4]*session
	lastCnt  int // last SessionCnt that has brought a fragment; -1: none

	running uint32
	image   image
	report  diag.Report

	beat   uint64 // of the next heartbeat; 0: not joined
	reboot uint64 // when; 0: not
	due    uint64 // end of the work under way; 0: none
	work   func()
	later  []delayed
	draws  uint64
	out    []modem.Message
	reply  []modem.Frame
	buffer []byte
}

// delayed is an uplink that waits for its time. It is made when it is sent, so that it says what is true then.
type delayed struct {
	at   uint64
	port uint8
	data func() []byte
}

// group is a multicast group.
type group struct {
	modem.SetMcGroup
	window modem.Session
}

// New returns a device that is switched off.
func New(cfg Config) (*Device, error) {
	if cfg.Packages == 0 {
		cfg.Packages = applayer.V2
	}
	switch {
	case cfg.RootKey == [16]byte{}:
		return nil, errors.New("model: no root key")
	case cfg.Packages != applayer.V1 && cfg.Packages != applayer.V2:
		return nil, fmt.Errorf("model: version %d of the packages, want 1 or 2", cfg.Packages)
	case cfg.Heartbeat < 0 || cfg.Patch < 0 || cfg.Charged < 0:
		return nil, errors.New("model: a duration is negative")
	case cfg.Battery > 100:
		return nil, fmt.Errorf("model: battery at %d %%", cfg.Battery)
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = time.Minute
	}
	if cfg.Fault.WrongKey {
		cfg.RootKey[0] ^= 0xff
	}
	return &Device{cfg: cfg, running: cfg.Running, lastCnt: -1, report: diag.Report{Step: diag.StepRunning, Version: cfg.Running}}, nil
}

// Running returns the version that the device runs.
func (d *Device) Running() uint32 { return d.running }

// PowerUp implements fleet.App.
func (d *Device) PowerUp() ([]modem.Frame, error) { return d.answer() }

// Close implements fleet.App.
func (d *Device) Close() error { return nil }

// Turn implements fleet.App.
func (d *Device) Turn(f modem.Frame) ([]modem.Frame, error) {
	m, err := f.Message()
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	switch m := m.(type) {
	case modem.Tick:
		d.now = m.Time
	case modem.Link:
		d.now = m.Time
		d.link(m.Joined)
	case modem.ResetReq:
		d.boot()
		return d.answer()
	case modem.Down:
		d.now = m.Time
		if !d.dead {
			d.down(m)
		}
	}
	if d.started == 0 {
		d.started = max(d.now, 1)
	}
	d.timers()
	return d.answer()
}

func (d *Device) link(joined bool) {
	if d.joined = joined; joined && d.beat == 0 {
		d.beat = d.now
	}
	for id, g := range d.groups { // the MAC forgets them in a reset
		if joined && g != nil {
			d.out = append(d.out, g.SetMcGroup)
			if g.window.End > d.now {
				d.out = append(d.out, d.groups[id].window)
			}
		}
	}
	d.prove()
}

func (d *Device) down(m modem.Down) {
	if m.Group != modem.Unicast && m.Port != applayer.FPortDataBlock {
		return
	}
	switch m.Port {
	case applayer.FPortClockSync:
		d.clock(m.Data)
	case applayer.FPortMcSetup:
		d.multicast(m.Data)
	case applayer.FPortDataBlock:
		d.dataBlock(m.Group, m.Data)
	case applayer.FPortFwMgmt:
		d.firmware(m.Data)
	case diag.FPort:
		if _, err := diag.ParseReportReq(m.Data); err == nil {
			d.sendReport()
		}
	}
}

// timers does what is due.
func (d *Device) timers() {
	if d.dead {
		return
	}
	if d.due != 0 && d.now >= d.due {
		work := d.work
		d.due, d.work = 0, nil
		work()
	}
	if d.reboot != 0 && d.now >= d.reboot && len(d.later) == 0 {
		d.reboot = 0
		d.install()
	}
	for i := 0; i < len(d.later); {
		if l := d.later[i]; l.at <= d.now {
			d.later = slices.Delete(d.later, i, i+1)
			if data := l.data(); len(data) > 0 {
				d.up(l.port, data)
			}
			continue
		}
		i++
	}
	if d.beat == 0 || d.now < d.beat {
		return
	}
	d.beat = d.now + uint64(d.cfg.Heartbeat/time.Millisecond)
	if d.synced && d.resync == 0 {
		d.up(2, []byte{byte(d.report.Step)})
		return
	}
	d.resync = max(d.resync-1, 0)
	req, err := clocksync.AppendCommand(nil, d.cfg.Packages, clocksync.AppTimeReq{DeviceTime: uint32(d.gps()), AnsRequired: true, TokenReq: d.token})
	if err == nil {
		d.up(applayer.FPortClockSync, req)
	}
}

func (d *Device) up(port uint8, data []byte) { d.out = append(d.out, modem.Up{Port: port, Data: data}) }

// sendLater sends an uplink at a random instant within some milliseconds.
func (d *Device) sendLater(window uint64, port uint8, data func() []byte) {
	d.draws++
	at := d.now + radio.Hash(d.cfg.Seed, binary.LittleEndian.Uint64(d.cfg.RootKey[:]), d.draws)%max(window, 1)
	d.later = append(d.later, delayed{at, port, data})
}

// gps is what the device believes to be GPS time, in seconds.
func (d *Device) gps() int64 { return (int64(d.now) + d.correction) / 1000 }

// clock takes the messages of TS003.
func (d *Device) clock(data []byte) {
	commands, _ := clocksync.Parse(d.cfg.Packages, applayer.Downlink, data)
	for _, c := range commands {
		switch c := c.(type) {
		case clocksync.AppTimeAns:
			if c.TokenAns == d.token {
				d.correction += int64(c.TimeCorrection) * 1000
				d.token = (d.token + 1) & 15
				d.synced, d.resync = true, 0
			}
		case clocksync.ForceDeviceResyncCmd:
			d.resync = int(c.NbTransmissions)
			if d.resync > 0 {
				d.beat = d.now + 1000
			}
		}
	}
}

// multicast takes the messages of TS005.
func (d *Device) multicast(data []byte) {
	commands, _ := mcsetup.Parse(d.cfg.Packages, applayer.Downlink, data)
	var reply []byte
	for _, c := range commands {
		ans := d.groupCommand(c)
		if ans == nil {
			continue
		}
		if b, err := mcsetup.AppendCommand(reply, d.cfg.Packages, ans); err == nil {
			reply = b
		}
	}
	if len(reply) > 0 {
		d.up(applayer.FPortMcSetup, reply)
	}
}

// groupCommand carries a command out and returns the answer; nil for none.
func (d *Device) groupCommand(c mcsetup.Command) mcsetup.Command {
	switch c := c.(type) {
	case mcsetup.PackageVersionReq:
		return mcsetup.PackageVersionAns{PackageIdentifier: uint8(applayer.McSetup), PackageVersion: uint8(d.cfg.Packages)}
	case mcsetup.McGroupSetupReq:
		root := mcsetup.McRootKeyFromGenAppKey(d.cfg.RootKey)
		if d.cfg.LoRaWAN11 {
			root = mcsetup.McRootKeyFromAppKey(d.cfg.RootKey)
		}
		key := mcsetup.DecryptMcKey(mcsetup.McKEKey(root), c.McKeyEncrypted)
		g := &group{SetMcGroup: modem.SetMcGroup{
			ID: c.McGroupID, Defined: true, Addr: c.McAddr, MinFCnt: c.MinMcFCnt, MaxFCnt: c.MaxMcFCnt,
			AppSKey: mcsetup.McAppSKey(key, c.McAddr), NwkSKey: mcsetup.McNwkSKey(key, c.McAddr),
		}}
		d.groups[c.McGroupID] = g
		d.out = append(d.out, g.SetMcGroup)
		return mcsetup.McGroupSetupAns{McGroupID: c.McGroupID}
	case mcsetup.McGroupDeleteReq:
		undefined := d.groups[c.McGroupID] == nil
		if !undefined {
			d.groups[c.McGroupID] = nil
			d.out = append(d.out, modem.SetMcGroup{ID: c.McGroupID})
		}
		return mcsetup.McGroupDeleteAns{McGroupID: c.McGroupID, McGroupUndefined: undefined}
	case mcsetup.McClassCSessionReq:
		return d.session(modem.Session{ID: c.McGroupID, Class: 'C', DR: c.DR, Frequency: c.DLFreq}, c.SessionTime, c.MaxDuration())
	case mcsetup.McClassBSessionReq:
		return mcsetup.McClassBSessionAns(d.session(modem.Session{ID: c.McGroupID, Class: 'B', DR: c.DR, Frequency: c.DLFreq, Periodicity: c.Periodicity},
			c.SessionTime, c.MaxDuration()))
	}
	return nil
}

// session opens the windows of a session of class B or C at a GPS time in seconds.
func (d *Device) session(w modem.Session, at uint32, length time.Duration) mcsetup.McClassCSessionAns {
	ans := mcsetup.McClassCSessionAns{McGroupID: w.ID}
	wait := int64(int32(at - uint32(d.gps())))
	g := d.groups[w.ID]
	switch {
	case g == nil:
		ans.McGroupUndefined = true
	case !d.synced:
		ans.TimeToStart = mcsetup.TimeToStartUnknown
	case wait < 0:
		ans.StartMissed = true
	default:
		ans.TimeToStart = uint32(wait)
		// The start is an instant of GPS time, not of when the request came.
		w.Start = uint64((int64(d.gps())+wait)*1000 - d.correction)
		w.End = w.Start + uint64(length/time.Millisecond)
		g.window = w
		d.out = append(d.out, w)
	}
	return ans
}

// deaf closes the receive windows: nothing more is wanted from the air.
func (d *Device) deaf() {
	for _, g := range d.groups {
		if g != nil && g.window.End > d.now {
			g.window.Start, g.window.End = d.now, d.now
			d.out = append(d.out, g.window)
		}
	}
}

// answer ends a turn.
func (d *Device) answer() ([]modem.Frame, error) {
	wake := uint64(modem.Never)
	if !d.dead {
		for _, at := range []uint64{d.beat, d.due, d.reboot} {
			if at != 0 {
				wake = min(wake, at)
			}
		}
		for _, l := range d.later {
			wake = min(wake, l.at)
		}
	}
	d.reply = d.reply[:0]
	if wake != modem.Never {
		wake = max(wake, d.now+1)
	}
	if len(d.out) > 0 {
		said, err := modem.Frames(d.out...)
		if err != nil {
			return nil, fmt.Errorf("model: %w", err)
		}
		d.reply = append(d.reply, said...)
		if slices.ContainsFunc(said, func(f modem.Frame) bool { return f.Type == modem.TypeReset }) {
			wake = 0 // it has booted and does not know the time
		}
		d.out = d.out[:0]
	}
	d.buffer = binary.LittleEndian.AppendUint64(d.buffer[:0], wake)
	d.reply = append(d.reply, modem.Frame{Type: modem.TypeIdleUntil, Payload: d.buffer})
	return d.reply, nil
}
