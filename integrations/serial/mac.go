package serial

import (
	"bytes"
	"fmt"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
)

// Log is told what happens, for a person. All functions may be nil.
type Log struct {
	Console  func(line string)                                     // the device says something
	Event    func(step diag.Step, cause diag.Cause, detail uint16) // the device reports a step or a cause
	Reset    func(reason modem.Reason)                             // the device resets itself
	Progress func(text string)                                     // the bench does something
}

func (l *Log) progress(format string, args ...any) {
	if l.Progress != nil {
		l.Progress(fmt.Sprintf(format, args...))
	}
}

// bootTime is what the clock of the device shows when the bench begins; any number would do.
const bootTime = 1000_000 // ms

// mac plays the MAC of one device and the server's side of the clock: it keeps the time, takes uplinks at once,
// and remembers the groups and windows that the device asks for.
type mac struct {
	dev      Device
	log      *Log
	gpsStart uint32 // GPS seconds at time 0 of the device
	now      uint64 // ms
	wake     uint64 // when the device wants a turn
	payload  uint8  // largest uplink

	uplinks []modem.Up // not yet asked for
	groups  [4]modem.SetMcGroup
	windows [4]modem.Session
	synced  bool
	resets  int
	said    []string // console lines of the last boot
}

// gps is the GPS time at the network.
func (m *mac) gps() uint32 { return m.gpsStart + uint32(m.now/1000) }

// forget drops what a MAC loses with the device's reset.
func (m *mac) forget() {
	m.groups, m.windows = [4]modem.SetMcGroup{}, [4]modem.Session{}
	m.uplinks, m.synced, m.said = nil, false, nil
}

// powerUp resets the device and joins it.
func (m *mac) powerUp() error {
	m.forget()
	frames, err := m.dev.PowerUp()
	if err != nil {
		return err
	}
	if err := m.take(frames); err != nil {
		return err
	}
	return m.join()
}

// join tells the device that it has a network.
func (m *mac) join() error {
	return m.turn(modem.Link{Time: m.now, Joined: true, MaxPayload: m.payload})
}

// turn runs one turn; if the device resets in it, it joins again.
func (m *mac) turn(msg modem.Message) error {
	raw, err := modem.Append(nil, msg)
	if err != nil {
		return err
	}
	var d modem.Decoder
	d.Write(raw)
	f, _ := d.Next()
	before := m.resets
	frames, err := m.dev.Turn(f)
	if err != nil {
		return err
	}
	if err := m.take(frames); err != nil {
		return err
	}
	if m.resets != before {
		return m.join()
	}
	return nil
}

// take sorts what the device has said.
func (m *mac) take(frames []modem.Frame) error {
	for _, f := range frames {
		msg, err := f.Message()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDevice, err)
		}
		switch msg := msg.(type) {
		case modem.Up:
			msg.Data = bytes.Clone(msg.Data)
			m.uplinks = append(m.uplinks, msg)
		case modem.SetMcGroup:
			if int(msg.ID) < len(m.groups) {
				m.groups[msg.ID] = msg
			}
		case modem.Session:
			if int(msg.ID) < len(m.windows) {
				m.windows[msg.ID] = msg
			}
		case modem.Console:
			m.said = append(m.said, msg.Text)
			if m.log.Console != nil {
				m.log.Console(msg.Text)
			}
		case modem.Event:
			if m.log.Event != nil {
				m.log.Event(diag.Step(msg.Step), diag.Cause(msg.Cause), msg.Detail)
			}
		case modem.Reset:
			m.forget()
			m.resets++
			if m.log.Reset != nil {
				m.log.Reset(msg.Reason)
			}
		case modem.IdleUntil:
			m.wake = msg.Time
		default:
			return fmt.Errorf("%w: frame of type 0x%02x is none that a device sends", ErrDevice, uint8(f.Type))
		}
	}
	return m.clock()
}

// clock answers the clock requests among the uplinks, as a server with TS003 does.
func (m *mac) clock() error {
	for i, up := range m.uplinks {
		if up.Port != applayer.FPortClockSync {
			continue
		}
		cmds, err := clocksync.Parse(applayer.V2, applayer.Uplink, up.Data)
		if err != nil {
			return fmt.Errorf("%w: clock synchronisation % x: %w", ErrDevice, up.Data, err)
		}
		req, ok := cmds[0].(clocksync.AppTimeReq)
		if !ok {
			continue
		}
		m.uplinks = append(m.uplinks[:i], m.uplinks[i+1:]...)
		ans, err := clocksync.AppendCommand(nil, applayer.V2, clocksync.AppTimeAns{
			TimeCorrection: clocksync.TimeCorrection(int64(m.gps()), req.DeviceTime), TokenAns: req.TokenReq,
		})
		if err != nil {
			return err
		}
		m.synced = true
		return m.down(applayer.FPortClockSync, modem.Unicast, ans)
	}
	return nil
}

// down delivers a downlink.
func (m *mac) down(port, group uint8, data []byte) error {
	return m.turn(modem.Down{Time: m.now, Port: port, Group: group, Data: data})
}

// sleep lets time pass up to a moment, with a turn whenever the device wants one.
func (m *mac) sleep(until uint64) error {
	for m.wake < until {
		// A turn a millisecond at most: a device that always wants one at once still lets time pass.
		m.now = max(m.now+1, m.wake)
		if m.now >= until {
			break
		}
		if err := m.turn(modem.Tick{Time: m.now}); err != nil {
			return err
		}
	}
	m.now = max(m.now, until)
	return m.turn(modem.Tick{Time: m.now})
}

// pause lets seconds pass.
func (m *mac) pause(seconds uint32) error { return m.sleep(m.now + uint64(seconds)*1000) }

// await lets time pass until want accepts an uplink of that port, or patience seconds are over.
func (m *mac) await(port uint8, patience uint32, want func([]byte) bool) (bool, error) {
	for end := m.now + uint64(patience)*1000; ; {
		for i, up := range m.uplinks {
			if up.Port == port && want(up.Data) {
				m.uplinks = append(m.uplinks[:i], m.uplinks[i+1:]...)
				return true, nil
			}
		}
		if m.now >= end {
			return false, nil
		}
		next := end
		if m.wake < next {
			next = max(m.wake, m.now+1)
		}
		if err := m.sleep(next); err != nil {
			return false, err
		}
	}
}

// tries is how often the bench repeats a request that nobody answers.
const tries = 3

// ask sends a unicast request until an uplink of that port is accepted.
func (m *mac) ask(what string, port uint8, req []byte, patience uint32, want func([]byte) bool) error {
	for range tries {
		if err := m.down(port, modem.Unicast, req); err != nil {
			return err
		}
		if ok, err := m.await(port, patience, want); ok || err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: %s: no answer to %d requests", ErrDevice, what, tries)
}

// version asks for the firmware version by TS006.
func (m *mac) version() (fwmgmt.DevVersionAns, error) {
	var got fwmgmt.DevVersionAns
	req, err := fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevVersionReq{})
	if err != nil {
		return got, err
	}
	err = m.ask("firmware version (TS006)", applayer.FPortFwMgmt, req, 60, func(b []byte) bool {
		return firmwareAnswer(b, &got)
	})
	return got, err
}

// firmwareAnswer finds the answer of one type in an uplink of TS006.
func firmwareAnswer[T fwmgmt.Command](b []byte, out *T) bool {
	cmds, _ := fwmgmt.Parse(applayer.V1, applayer.Uplink, b) // what comes before an error counts
	for _, c := range cmds {
		if ans, ok := c.(T); ok {
			*out = ans
			return true
		}
	}
	return false
}

// report asks for a diagnostic report.
func (m *mac) report() (diag.Report, error) {
	var got diag.Report
	err := m.ask("diagnostic report", diag.FPort, diag.AppendReportReq(nil), 120, func(b []byte) bool {
		r, _, err := diag.ParseReport(b)
		got = r
		return err == nil
	})
	return got, err
}
