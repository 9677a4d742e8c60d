package session

import (
	"container/heap"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/engine/network"
)

// Step advances the session by one event and returns what must be done, in order. now must not go back.
func (c *Session) Step(now time.Time, ev Event) []Effect {
	c.now, c.out = now, nil
	switch ev := ev.(type) {
	case Start:
		c.start(ev.Only)
	case Heard:
		if ev.Event.Group != "" {
			c.frame(ev.Event)
		} else {
			c.heard(ev.Event)
		}
	case Result:
		c.result(ev)
	case Pause:
		c.pause(ev.Reason)
	case Continue:
		c.resume()
	case Withhold:
		c.withhold(ev)
	case Battery:
		c.battery(ev)
	case Proven:
		if i, ok := c.index[ev.Device]; ok {
			c.proveRaw(i)
		}
	case Abort:
		c.halt("aborted: " + ev.Reason)
	case Tick:
	}
	for len(c.due) > 0 && !c.due[0].at.After(now) {
		e := heap.Pop(&c.due).(dueEntry)
		if c.st.Devices[e.dev].Wake.Equal(e.at) {
			c.serve(e.dev)
		}
	}
	c.advance()
	return c.out
}

// NextWake returns when [Tick] is wanted; zero: only another event brings work. An instant that has passed
// means at once.
func (c *Session) NextWake() time.Time {
	var at time.Time
	if c.st.Phase == PhaseEnded || c.st.Phase == PhaseIdle || c.st.Paused {
		return at
	}
	for len(c.due) > 0 && !c.st.Devices[c.due[0].dev].Wake.Equal(c.due[0].at) {
		heap.Pop(&c.due)
	}
	if len(c.due) > 0 {
		at = c.due[0].at
	}
	switch c.st.Phase {
	case PhasePrepare:
		if c.unready() > 0 { // otherwise the group is awaited
			at = earliest(at, c.prepared())
		}
	case PhaseAnnounce:
		at = earliest(at, c.opens())
	case PhaseWindow:
		if c.st.Air.Op == 0 {
			at = earliest(at, c.st.Air.Next)
		}
	case PhaseCleanup:
		at = earliest(at, c.st.Deadline)
	}
	return at
}

func (c *Session) emit(e Effect) { c.out = append(c.out, e) }

func (c *Session) op() uint64 {
	c.st.Op++
	return c.st.Op
}

func (c *Session) start(only []network.EUI64) {
	if c.st.Phase != PhaseIdle {
		return
	}
	if only != nil {
		in := make(map[network.EUI64]bool, len(only))
		for _, eui := range only {
			in[eui] = true
		}
		for i := range c.st.Devices {
			if !in[c.st.Devices[i].EUI] && !c.st.Devices[i].Stage.final() {
				c.setStage(i, StageAbsent)
			}
		}
	}
	c.st.Started, c.st.Quiet = c.now, c.now
	c.st.Next, c.st.Target = 1, c.spec.Plan.M+c.spec.Plan.Parity
	if most := c.spec.Limits.Fragments; most > 0 {
		c.st.Target = min(c.st.Target, most)
	}
	if c.final() == len(c.st.Devices) { // all were withheld
		c.end()
		return
	}
	c.setPhase(PhasePrepare)
	c.st.Opening = true
	c.emit(OpenGroup{Op: c.op(), Group: c.Group()})
	c.serveAll()
}

// Group returns the multicast group that the session opens. It holds keys.
func (c *Session) Group() network.Group {
	key := [16]byte(c.spec.McKey)
	eui := make([]network.EUI64, 0, len(c.st.Devices))
	for i := range c.st.Devices {
		if d := &c.st.Devices[i]; d.Stage != StageAbsent && d.Stage != StageWithheld {
			eui = append(eui, d.EUI)
		}
	}
	class, periodicity := network.ClassC, uint8(0)
	if b := c.spec.ClassB; b != nil {
		class, periodicity = network.ClassB, b.Periodicity
	}
	return network.Group{
		Name:        "sower-" + c.spec.ID,
		Application: c.spec.Application,
		McAddr:      c.spec.McAddr,
		AppSKey:     mcsetup.McAppSKey(key, c.spec.McAddr),
		NwkSKey:     mcsetup.McNwkSKey(key, c.spec.McAddr),
		Class:       class,
		Periodicity: periodicity,
		Region:      c.spec.Plan.Region,
		DataRate:    c.spec.Plan.DataRate,
		Frequency:   c.spec.Plan.Frequency,
		Gateways:    c.spec.Gateways,
		Devices:     eui,
	}
}

func (c *Session) result(r Result) {
	switch {
	case c.st.Opening && r.Group != "" && (c.st.Phase == PhaseCleanup || c.st.Phase == PhaseEnded):
		// A group that opened late must not stay.
		c.st.Opening = false
		c.emit(CloseGroup{Op: c.op(), Group: r.Group})
	case c.st.Phase == PhaseEnded:
	case c.st.Opening && r.Device == (network.EUI64{}) && c.st.Air.Op != r.Op:
		c.st.Opening = false
		if r.Failure != Success {
			c.halt("the multicast group could not be opened: " + r.Text)
			return
		}
		c.st.Group = r.Group
	case r.Op == c.st.Air.Op && r.Op != 0:
		c.broadcasted(r)
	case r.Device != (network.EUI64{}):
		i, ok := c.index[r.Device]
		if !ok || c.st.Devices[i].Pending.Op != r.Op {
			return
		}
		d := &c.st.Devices[i]
		c.mark(i)
		switch r.Failure {
		case Success:
			d.Pending.Message = r.Message
		case NoKey:
			c.fail(i, diag.StepSetup, diag.CauseRootKeyMissing, r.Text)
		default:
			d.Pending.Op = 0
			d.Pending.Attempts++
			if !d.Stage.final() {
				d.Note = r.Text
			}
			d.NotBefore = c.now.Add(time.Minute)
		}
		c.serve(i)
	}
}

func (c *Session) heard(ev network.Event) {
	i, ok := c.index[ev.Device]
	if !ok || c.st.Phase == PhaseIdle {
		return
	}
	if c.st.Phase == PhaseEnded || c.st.Devices[i].Stage.final() && c.st.Phase != PhaseCleanup {
		if d := &c.st.Devices[i]; ev.Kind == network.EventUplink && ev.At.After(d.LastUp) {
			c.mark(i)
			d.LastUp = ev.At
		}
		return
	}
	d := &c.st.Devices[i]
	c.mark(i)
	switch ev.Kind {
	case network.EventUplink:
		c.uplink(i, ev)
	case network.EventJoin:
		c.joined(i, ev.At)
	case network.EventSent:
		if ev.Message != "" && ev.Message == d.Pending.Message && d.Pending.Delivered.IsZero() {
			d.Pending.Delivered = ev.At
		}
	case network.EventDropped:
		if ev.Message != "" && ev.Message == d.Pending.Message && d.Pending.Delivered.IsZero() {
			d.Pending.Op, d.Pending.Message = 0, ""
			if ev.Reason != "EXPIRED" { // otherwise nothing was tried: no uplink came in time
				d.Pending.Attempts++
				d.Note = "a command was dropped by the network: " + ev.Reason
			}
		}
	}
	c.serve(i)
}

func (c *Session) setPhase(p Phase) {
	c.st.Phase = p
	c.emit(Record{What: "phase", Text: p.String()})
}

func (c *Session) setStage(i int, s Stage) {
	d := &c.st.Devices[i]
	if d.Stage == s {
		return
	}
	c.mark(i)
	c.count[d.Stage]--
	before := d.Stage
	d.Stage = s
	c.count[s]++
	d.NotBefore = time.Time{}
	step := d.Report.Step
	if s == StageFailed {
		step = d.Step
	}
	c.emit(Record{What: "stage", Device: d.EUI, Stage: s, Before: before, Step: step, Cause: d.Cause, Text: d.Note})
}

// fail ends the session for one device.
func (c *Session) fail(i int, step diag.Step, cause diag.Cause, note string) {
	d := &c.st.Devices[i]
	if d.Stage.final() {
		return
	}
	c.mark(i)
	if cause > diag.CauseRefused && c.reported(d) {
		step, cause = d.Report.Step, d.Report.Cause
	}
	d.Step, d.Cause, d.Note = step, cause, note
	d.DoubtUntil = time.Time{}
	c.setStage(i, StageFailed)
	c.dropOnce(i)
}

// suspect ends the session for one device unless the device itself names a better cause soon.
func (c *Session) suspect(i int, step diag.Step, cause diag.Cause, note string) {
	d := &c.st.Devices[i]
	if d.Stage.final() || !d.DoubtUntil.IsZero() {
		return
	}
	if c.reported(d) {
		c.fail(i, d.Report.Step, d.Report.Cause, "")
		return
	}
	d.DoubtStep, d.DoubtCause, d.DoubtNote = step, cause, note
	d.DoubtUntil = c.now.Add(6 * c.spec.Timing.UplinkInterval)
	d.NotBefore = time.Time{}
}

// reported reports whether the device itself has said why this update stopped.
func (c *Session) reported(d *Device) bool {
	return d.Frag && d.ReportAt.After(d.FragAt) && d.Report.Version != c.spec.Target && stopped(d.Report.Cause)
}

// stopped reports whether a cause that a device reports ends the update there.
func stopped(cause diag.Cause) bool {
	switch cause {
	case diag.CauseOK, diag.CauseFlashDecay, diag.CauseSessionReplay, diag.CauseNoSession:
		return false
	}
	return cause < 64 && !postponed(cause) // from 64 on they are the engine's own
}

// postponed reports whether a cause says that the update waits for somebody or something.
func postponed(cause diag.Cause) bool {
	return cause == diag.CauseDeferredUser || cause == diag.CauseDeferredBattery
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func latest(ts ...time.Time) time.Time {
	var at time.Time
	for _, t := range ts {
		if t.After(at) {
			at = t
		}
	}
	return at
}

func (c *Session) fragments(n int) string {
	return fmt.Sprintf("misses %d of %d fragments", n, c.spec.Plan.M)
}
