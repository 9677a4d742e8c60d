// Package foreign models devices that do not run this project's library: the stock FUOTA application packages of
// LoRaMac-node, of Semtech's LoRa Basics Modem (SWL2001) and of Zephyr, above the MAC of package fleet. A model
// speaks TS003, TS004 and TS005 with the habits of its stack; none of the three knows TS006 or TS007, and what
// is asked there stays without an answer.
//
//	habit                                               LoRaMac-node  Basics Modem  Zephyr
//	versions of TS004 and TS005                         1             1 or 2        1
//	uncoded fragments behind a higher number dropped    yes           yes           yes
//	more losses than MaxRedundancy                      "finished"    memory error  "finished"
//	the last fragments before parity, if lost           all           all           all
//	fragments over groups outside McGroupBitMask        taken         dropped       taken
//	NbFragReceived is the                               last N        last N-lost   frames counted
//	MissingFrag is                                      data lost     missing rank  NbFrag-received
//	MissingFrag after a transfer without loss           0             stays 1       0
//	counters beyond 255                                 modulo 256    modulo 256    clamped
//	finished devices answer Participants=0              yes           no            yes
//	status of a new session                             the old one's fresh         fresh
//	status of an unknown session                        answered      version 2     silent
//	McGroupStatusReq                                    silent        answered      silent
//	McClassBSessionReq                                  class C       answered      silent, all answers lost
//	session in the past                                 undefined     StartMissed   StartMissed
//	session for an undefined group                      three errors  undefined     undefined
//	data rate and frequency both wrong                  two errors    two errors    silent
//	clock not synchronised                              trusts it     trusts it     TimeToStart unknown, no session
//	group set up again during its session               new key       "ok", old key new key
//
// The table follows the code and the issue trackers of the three as of 2026; versions differ, and a vendor may
// have changed any of it. The decoder within each is package fragmentation's, behind a gate that shows it what
// the stack would look at: which fragments a device uses is the stack's, how it solves is not modelled, nor are
// flash, timing and memory corruption.
package foreign

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/radio"
)

// Stack is whose software the device runs.
type Stack uint8

// The stacks.
const (
	LoRaMacNode Stack = iota + 1
	BasicsModem
	Zephyr
)

// String returns the name of the stack.
func (s Stack) String() string {
	switch s {
	case LoRaMacNode:
		return "LoRaMac-node"
	case BasicsModem:
		return "Basics Modem"
	case Zephyr:
		return "Zephyr"
	}
	return fmt.Sprintf("stack %d", uint8(s))
}

// Config describes a device. Stack and GenAppKey are required.
type Config struct {
	Stack     Stack
	GenAppKey [16]byte
	Version   applayer.Version // of TS004 and TS005; 0: 1. Only Basics Modem has version 2
	Seed      uint64           // of the delays of answers

	// Build-time limits; 0 means the default of the stack: 21, 50 and 5 for LoRaMac-node, 100, 242 and as many as
	// there are fragments for Basics Modem, 16383, 255 and as many as there are fragments for Zephyr.
	MaxFragments  int
	MaxFragSize   int // bytes
	MaxRedundancy int // uncoded fragments that may be lost

	// LateFinish is a decoder of before September 2022: it completes only with a parity fragment, lost or not.
	LateFinish bool
	Heartbeat  uint32 // seconds between uplinks, which are the device's class A opportunities; 0: 60

	// What the application does with a block is not the stack's affair. Here it installs the block so long after it was
	// complete, and says Says from then on with each heartbeat; without Data it says nothing new.
	Install time.Duration
	Says    modem.Up
}

// Device is a device. It is a fleet.App.
type Device struct {
	cfg    Config
	now    uint64 // its clock, ms
	joined bool

	correction int64 // ms, added to the clock
	synced     bool
	token      uint8

	groups   [4]*group
	sessions [4]*session
	old      status // of the last session, which LoRaMac-node does not clear

	complete  []byte // the last block that was complete
	installed uint64 // when it is installed; 0: there is none

	beat   uint64 // of the next heartbeat, 0: not joined
	later  []delayed
	draws  uint64
	out    []modem.Message
	reply  []modem.Frame
	buffer []byte
}

// delayed is an uplink that waits for its time.
type delayed struct {
	at uint64
	up modem.Up
}

// New returns a device that is switched off.
func New(cfg Config) (*Device, error) {
	if cfg.Version == 0 {
		cfg.Version = applayer.V1
	}
	limits := map[Stack][3]int{LoRaMacNode: {21, 50, 5}, BasicsModem: {100, 242, 0}, Zephyr: {16383, 255, 0}}
	l, ok := limits[cfg.Stack]
	switch {
	case !ok:
		return nil, fmt.Errorf("foreign: %s is not modelled", cfg.Stack)
	case cfg.Version != applayer.V1 && (cfg.Version != applayer.V2 || cfg.Stack != BasicsModem):
		return nil, fmt.Errorf("foreign: %s has no version %d of TS004", cfg.Stack, cfg.Version)
	case cfg.MaxFragments < 0 || cfg.MaxFragSize < 0 || cfg.MaxRedundancy < 0:
		return nil, errors.New("foreign: a limit is negative")
	}
	for i, v := range []*int{&cfg.MaxFragments, &cfg.MaxFragSize, &cfg.MaxRedundancy} {
		if *v == 0 {
			*v = l[i]
		}
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 60
	}
	return &Device{cfg: cfg}, nil
}

// Block returns the block of a session once the decoder has solved it, without padding; else nil.
func (d *Device) Block(fragIndex uint8) []byte {
	if s := d.sessions[fragIndex&3]; s != nil {
		return s.block
	}
	return nil
}

// Complete returns the last block that the decoder has solved, without padding, also once its session is deleted; nil if
// there is none.
func (d *Device) Complete() []byte { return d.complete }

// Installed says whether the application runs the last complete block.
func (d *Device) Installed() bool { return d.installed != 0 && d.now >= d.installed }

// Finished says whether the stack has told its application that the transfer is over. With LoRaMac-node and
// Zephyr that happens also when there were too many losses, and the block is not there.
func (d *Device) Finished(fragIndex uint8) bool {
	s := d.sessions[fragIndex&3]
	return s != nil && s.finished
}

// PowerUp implements fleet.App.
func (d *Device) PowerUp() ([]modem.Frame, error) {
	d.restart()
	return d.answer()
}

// restart forgets all but what the application has installed.
func (d *Device) restart() {
	*d = Device{cfg: d.cfg, complete: d.complete, installed: d.installed}
}

// Close implements fleet.App.
func (d *Device) Close() error { return nil }

// Turn implements fleet.App.
func (d *Device) Turn(f modem.Frame) ([]modem.Frame, error) {
	p := f.Payload
	if f.Type == modem.TypeDown && len(p) > 13 && p[8] == applayer.FPortDataBlock && p[10] == cidDataFragment {
		d.now = binary.LittleEndian.Uint64(p)
		d.fragment(p[9], binary.LittleEndian.Uint16(p[11:]), p[13:])
		return d.answer()
	}
	m, err := f.Message()
	if err != nil {
		return nil, fmt.Errorf("foreign: %w", err)
	}
	switch m := m.(type) {
	case modem.Tick:
		d.now = m.Time
	case modem.Link:
		d.now = m.Time
		if d.joined = m.Joined; m.Joined && d.beat == 0 {
			d.beat = d.now
		}
	case modem.ResetReq:
		d.restart()
	case modem.Down:
		d.now = m.Time
		switch m.Port {
		case applayer.FPortClockSync:
			d.clock(m.Data)
		case applayer.FPortMcSetup:
			if m.Group == modem.Unicast {
				d.multicast(m.Data)
			}
		case applayer.FPortDataBlock:
			d.dataBlock(m.Data)
		}
	}
	d.timers()
	return d.answer()
}

// timers sends what is due.
func (d *Device) timers() {
	for i := 0; i < len(d.later); {
		if l := d.later[i]; l.at <= d.now {
			d.out = append(d.out, l.up)
			d.later = slices.Delete(d.later, i, i+1)
			continue
		}
		i++
	}
	if d.beat == 0 || d.now < d.beat {
		return
	}
	d.beat = d.now + uint64(d.cfg.Heartbeat)*1000
	if d.synced {
		up := modem.Up{Port: 2, Data: []byte{byte(d.cfg.Stack)}}
		if len(d.cfg.Says.Data) > 0 && d.Installed() {
			up = d.cfg.Says
		}
		d.out = append(d.out, up)
		return
	}
	req, err := clocksync.AppendCommand(nil, applayer.V1, clocksync.AppTimeReq{DeviceTime: uint32(d.gps()), AnsRequired: true, TokenReq: d.token})
	if err == nil {
		d.out = append(d.out, modem.Up{Port: applayer.FPortClockSync, Data: req})
	}
}

// gps is what the device believes to be GPS time, in seconds.
func (d *Device) gps() int64 { return (int64(d.now) + d.correction) / 1000 }

// clock takes the commands of TS003.
func (d *Device) clock(data []byte) {
	commands, _ := clocksync.Parse(applayer.V1, applayer.Downlink, data)
	for _, c := range commands {
		switch c := c.(type) {
		case clocksync.AppTimeAns:
			if c.TokenAns == d.token {
				d.correction += int64(c.TimeCorrection) * 1000
				d.token = (d.token + 1) & 15
				d.synced = true
			}
		case clocksync.ForceDeviceResyncCmd: // all three ask for the time at once
			d.synced, d.beat = false, d.now
		}
	}
}

// sendLater queues an uplink for a random instant within a number of milliseconds.
func (d *Device) sendLater(window uint64, up modem.Up) {
	d.draws++
	d.later = append(d.later, delayed{d.now + radio.Hash(d.cfg.Seed, binary.LittleEndian.Uint64(d.cfg.GenAppKey[:]), d.draws)%max(window, 1), up})
}

// answer ends a turn.
func (d *Device) answer() ([]modem.Frame, error) {
	wake := uint64(modem.Never)
	if d.beat != 0 {
		wake = d.beat
	}
	for _, l := range d.later {
		wake = min(wake, l.at)
	}
	if wake == 0 {
		wake = 1
	}
	d.reply = d.reply[:0]
	if len(d.out) > 0 {
		said, err := modem.Frames(d.out...)
		if err != nil {
			return nil, fmt.Errorf("foreign: %w", err)
		}
		d.reply = append(d.reply, said...)
		d.out = d.out[:0]
	}
	d.buffer = binary.LittleEndian.AppendUint64(d.buffer[:0], wake)
	d.reply = append(d.reply, modem.Frame{Type: modem.TypeIdleUntil, Payload: d.buffer})
	return d.reply, nil
}
