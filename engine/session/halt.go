package session

import (
	"fmt"
	"time"
)

// pause stops all sending until resume.
func (c *Session) pause(reason string) {
	switch c.st.Phase {
	case PhaseIdle, PhaseCleanup, PhaseEnded:
		return
	}
	if c.st.Paused {
		return
	}
	c.st.Paused, c.st.PausedAt = true, c.now
	c.emit(Record{What: "pause", Text: reason})
	c.flushDevices()
	if c.st.Phase != PhaseAnnounce && c.st.Phase != PhaseWindow {
		return
	}
	if c.st.Group != "" {
		c.emit(FlushGroup{Group: c.st.Group})
	}
	c.st.Air.Step, c.st.Air.Next = AirIdle, time.Time{}
	for i := range c.st.Devices {
		if d := &c.st.Devices[i]; d.Window == c.st.Window.Number {
			c.mark(i)
			d.Window = 0
			if d.Stage == StageArmed {
				c.setStage(i, StagePrepared)
			}
		}
	}
}

// resume goes on after a pause.
func (c *Session) resume() {
	if !c.st.Paused {
		return
	}
	c.st.Paused = false
	c.st.Started = c.st.Started.Add(c.now.Sub(c.st.PausedAt))
	c.st.Quiet = latest(c.st.Quiet, c.now)
	c.emit(Record{What: "continue"})
	switch c.st.Phase {
	case PhaseWindow:
		if c.st.Resend == 0 && c.st.Next > c.st.Target {
			c.setPhase(PhaseCollect)
			break
		}
		c.regroup()
		fallthrough
	case PhaseAnnounce:
		c.announce()
		return
	}
	c.serveAll()
}

// regroup makes all that were receiving wait for the next window, because not all was sent.
func (c *Session) regroup() {
	for i := range c.st.Devices {
		if c.st.Devices[i].Stage == StageReceiving {
			c.setStage(i, StagePrepared)
		}
	}
}

// flushDevices drops what waits in the network for single devices.
func (c *Session) flushDevices() {
	for i := range c.st.Devices {
		c.flushDevice(i)
	}
}

func (c *Session) flushDevice(i int) {
	d := &c.st.Devices[i]
	if !c.now.Before(d.Waits) {
		return
	}
	c.mark(i)
	d.Waits = time.Time{}
	if d.Pending.Delivered.IsZero() {
		d.Pending = Pending{}
	}
	c.emit(FlushDevice{Device: d.EUI})
}

// withhold takes devices out that have not been told to reboot.
func (c *Session) withhold(w Withhold) {
	if c.st.Phase == PhaseEnded || c.st.Phase == PhaseCleanup {
		return
	}
	c.emit(Record{What: "withhold", Text: w.Reason})
	if w.Devices == nil {
		for i := range c.st.Devices {
			c.withholdOne(i, w.Reason)
		}
	}
	for _, eui := range w.Devices {
		if i, ok := c.index[eui]; ok {
			c.withholdOne(i, w.Reason)
		}
	}
}

func (c *Session) withholdOne(i int, reason string) {
	d := &c.st.Devices[i]
	told := d.Stage == StageReady && d.Pending.Kind == CmdReboot && !d.Pending.Delivered.IsZero()
	if d.Stage > StageReady || told {
		return
	}
	d.Note = reason
	c.flushDevice(i)
	c.setStage(i, StageWithheld)
	c.dropOnce(i)
}

// dropOnce asks a device that is done with, once, to delete session and group: whoever is still reachable shall not
// keep the keys of a dead group. In a window these downlinks would cost others a fragment.
func (c *Session) dropOnce(i int) {
	d := &c.st.Devices[i]
	d.Pending = Pending{}
	if c.windowOpen() || c.st.Paused || d.LastUp.IsZero() || !c.spec.Calendar.Open(c.now) {
		return
	}
	if d.Frag {
		c.send(i, CmdDropFrag)
	}
	if d.Group {
		c.send(i, CmdDropGroup)
	}
}

// halt ends the session as a whole, and begins to delete it on the devices.
func (c *Session) halt(why string) {
	if c.st.Phase == PhaseEnded || c.st.Phase == PhaseCleanup {
		return
	}
	c.st.Halted = why
	c.emit(Record{What: "halt", Text: why})
	c.st.Paused = false
	c.flushDevices()
	for i := range c.st.Devices {
		if d := &c.st.Devices[i]; !d.Stage.final() {
			d.Note = why
			c.setStage(i, StageWithheld)
		}
	}
	c.cleanUp()
}

// cleanUp closes the group and begins to delete the session on the devices.
func (c *Session) cleanUp() {
	c.closeGroup()
	c.setPhase(PhaseCleanup)
	c.st.Deadline = c.spec.Calendar.Add(c.now, c.spec.Timing.Cleanup)
	for i := range c.st.Devices {
		if d := &c.st.Devices[i]; d.dirty() {
			c.mark(i)
			d.Pending, d.NotBefore = Pending{}, time.Time{}
			c.cleaning++
		}
	}
	if c.cleaning == 0 {
		c.end()
		return
	}
	c.serveAll()
}

// dirty reports whether a device may still hold something of the session.
func (d *Device) dirty() bool {
	return d.Frag && d.Dropped&1 == 0 || d.Group && d.Dropped&2 == 0
}

// dropped notes that a device has deleted its fragmentation session (1) or its group (2).
func (c *Session) dropped(i, what int) {
	d := &c.st.Devices[i]
	before := d.dirty()
	d.Dropped |= what
	if c.st.Phase == PhaseCleanup && before && !d.dirty() {
		c.cleaning--
	}
}

func (c *Session) end() {
	if c.st.Phase == PhaseCleanup {
		c.flushDevices() // for those that were not heard
	}
	c.setPhase(PhaseEnded)
	c.due = nil
	c.closeGroup()
}

func (c *Session) closeGroup() {
	if c.st.Group != "" {
		c.emit(CloseGroup{Op: c.op(), Group: c.st.Group})
		c.st.Group = ""
	}
}

// battery takes how full the battery of a device is.
func (c *Session) battery(b Battery) {
	i, ok := c.index[b.Device]
	if !ok || c.st.Devices[i].Battery == b.Percent {
		return
	}
	c.mark(i)
	c.st.Devices[i].Battery = b.Percent
	c.deferral(i, c.now)
	c.serve(i)
}

// low reports whether the battery of a device is known to be too low for an installation.
func (c *Session) low(d *Device) bool { return d.Battery >= 0 && d.Battery < c.spec.MinBattery }

// deferral notes whether a device puts the update off.
func (c *Session) deferral(i int, at time.Time) {
	d := &c.st.Devices[i]
	switch off := c.low(d) || !d.ReportAt.IsZero() && postponed(d.Report.Cause); {
	case off && d.Deferred.IsZero():
		d.Deferred = at
		text := "the device puts the update off"
		if c.low(d) {
			text = fmt.Sprintf("its battery is at %d %%, the campaign asks for %d %%", d.Battery, c.spec.MinBattery)
		}
		c.emit(Record{What: "deferred", Device: d.EUI, Stage: d.Stage, Text: text})
	case !off && !d.Deferred.IsZero():
		c.emit(Record{What: "deferred", Device: d.EUI, Stage: d.Stage, Text: "no longer"})
		d.Deferred = time.Time{}
		d.NotBefore = time.Time{}
		if !d.Complete.IsZero() {
			d.Complete = c.now // it has as much time as one that never put it off
		}
	}
}
