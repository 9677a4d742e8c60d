package session

import (
	"fmt"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/network"
)

// asks is how many multicast status requests in a row must stay without an answer that is worth anything before
// silence means that all are complete: those that lose one of them may hear another.
const asks = 3

// fewest is for how many devices a window is not worth while when unicast would do.
const fewest = 3

// tailExtra is what a random code needs on the average beyond what is missing.
const tailExtra = 2

// canaryMin is how many listeners make the silence of all of them unlikely to be chance.
const canaryMin = 5

// advance moves the session as a whole as far as it goes now.
func (c *Session) advance() {
	for !c.st.Paused {
		before, number := c.st.Phase, c.st.Window.Number
		switch c.st.Phase {
		case PhasePrepare:
			c.advancePrepare()
		case PhaseAnnounce:
			if !c.now.Before(c.opens()) {
				c.openWindow()
			}
		case PhaseWindow:
			c.advanceAir()
		case PhaseCollect:
			if c.count[StageReceiving]+c.count[StageArmed] == 0 {
				c.decide()
			}
		case PhaseFinish:
			if c.final() == len(c.st.Devices) && c.count[StageWithheld] > 0 {
				c.cleanUp() // they were taken out before they had deleted anything
			} else if c.final() == len(c.st.Devices) {
				c.end()
			} else if c.count[StageIncomplete]+c.count[StagePrepared] > 0 {
				c.decide()
			}
		case PhaseCleanup:
			if c.cleaning == 0 || !c.now.Before(c.st.Deadline) {
				c.end()
			}
		}
		if c.st.Phase == before && c.st.Window.Number == number {
			return
		}
	}
}

// final counts the devices that the session has done with.
func (c *Session) final() int {
	return c.count[StageUpdated] + c.count[StageFailed] + c.count[StageUnproven] + c.count[StageWithheld] + c.count[StageAbsent]
}

// prepared is when the set-up ends, done or not.
func (c *Session) prepared() time.Time {
	return c.spec.Calendar.Add(c.st.Started, c.spec.Timing.Prepare)
}

// unready counts the devices whose set-up is not done.
func (c *Session) unready() int {
	return c.count[StageDiscover] + c.count[StageGroup] + c.count[StageSession]
}

func (c *Session) advancePrepare() {
	if c.unready() > 0 {
		if c.now.Before(c.prepared()) {
			return
		}
		for i := range c.st.Devices {
			switch d := &c.st.Devices[i]; {
			case d.Stage > StageSession:
			case !d.DoubtUntil.IsZero():
				c.fail(i, d.DoubtStep, d.DoubtCause, d.DoubtNote)
			case d.LastUp.IsZero():
				c.fail(i, diag.StepSetup, diag.CauseNoUplink, "")
			case d.Stage == StageDiscover:
				c.fail(i, diag.StepSetup, diag.CausePackagesMissing, d.Note)
			default:
				c.setStage(i, StagePrepared) // the rest of the set-up can be made up for until the window
			}
		}
	}
	switch {
	case c.count[StagePrepared] == 0:
		c.setPhase(PhaseFinish)
		c.serveAll()
	case c.st.Group != "":
		c.announce()
	}
}

// opens is when the first message of the announced window may be sent.
func (c *Session) opens() time.Time { return c.st.Window.Start.Add(c.spec.Plan.Guard) }

// joins reports whether a device is to take part in the next window.
func (c *Session) joins(d *Device) bool {
	return d.Stage == StagePrepared || d.Stage == StageArmed || d.Stage == StageIncomplete
}

// offers reports whether the window that is announced is of use to a device: parity alone is none to one that holds
// nothing.
func (c *Session) offers(d *Device) bool {
	return !d.fresh() || c.st.Next <= c.spec.Plan.M || c.st.Resend > 0
}

// announce fixes the next window and asks the devices for it.
func (c *Session) announce() {
	w := &c.st.Window
	w.Number++
	w.Announced = c.now
	// Whoever did not confirm in time gets more time with each window.
	w.Start = c.spec.Calendar.Add(c.now, time.Duration(1+c.st.Repairs)*c.spec.Timing.Lead).Truncate(time.Second).Add(time.Second)
	frames := c.st.Target - c.st.Next + 1
	if c.st.Resend > 0 {
		frames += c.spec.Plan.M - c.st.Resend + 1
	}
	w.TimeOut, _ = c.spec.Plan.Window(frames+frames/4+2*asks+10, 3+asks)
	if c.spec.ClassB != nil { // counts beacon periods of 2^7 s
		w.TimeOut = max(w.TimeOut, 7) - 7
	}
	c.place(w)
	w.End = w.Start.Add(c.lasts(w.TimeOut))
	c.setPhase(PhaseAnnounce)
	c.emit(Record{What: "window", Text: fmt.Sprintf("number %d, starts %s, lasts %s, %d fragments to send",
		w.Number, w.Start.UTC().Format(time.RFC3339), w.End.Sub(w.Start), frames)})
	c.serveAll()
}

// lasts returns how long a window with that TimeOut is.
func (c *Session) lasts(timeOut uint8) time.Duration {
	if c.spec.ClassB != nil {
		return beaconPeriod << timeOut
	}
	return time.Second << timeOut
}

// align returns the first instant at or after t at which a window can begin: a whole second, in class B the start of a
// beacon period of GPS time.
func (c *Session) align(t time.Time) time.Time {
	unit := time.Second
	if c.spec.ClassB != nil {
		unit = beaconPeriod
	}
	if over := airtime.GPS(t) % unit; over > 0 {
		t = t.Add(unit - over)
	}
	return t
}

// intoCalendar moves and shortens a window so that it lies within what the calendar allows.
func (c *Session) intoCalendar(w *Window) {
	start, end := c.spec.Calendar.Next(w.Start)
	if end.IsZero() {
		return
	}
	if want := c.lasts(w.TimeOut); end.Sub(start)-time.Second < want {
		// A fresh start has more room than what is left of this one.
		if s, e := c.spec.Calendar.Next(end); e.Sub(s) > end.Sub(start) {
			start, end = s, e
		}
	}
	w.Start = c.align(start)
	for w.TimeOut > 0 && w.Start.Add(c.lasts(w.TimeOut)).After(end) {
		w.TimeOut--
	}
}

// openWindow begins to send to the devices that have confirmed the window.
func (c *Session) openWindow() {
	armed := 0
	for i := range c.st.Devices {
		d := &c.st.Devices[i]
		if !c.joins(d) || !d.Group || !d.Frag || d.Window != c.st.Window.Number {
			continue
		}
		armed++
		if d.Armed == 0 {
			d.ArmedFrom = c.st.Frames
		}
		d.Armed++
		// What an incomplete device misses is out of date once the burst has begun.
		c.setStage(i, StageReceiving)
	}
	if armed == 0 {
		c.setPhase(PhaseCollect)
		c.serveAll()
		return
	}
	c.st.Air = Air{Step: AirSend, Next: c.now, LastFCnt: c.st.Air.LastFCnt, Counted: c.st.Air.Counted}
	if c.spec.Plan.Canary && c.st.Window.Number == 1 && armed >= canaryMin {
		c.st.Air.Step = AirCanary
	}
	c.setPhase(PhaseWindow)
}

func (c *Session) advanceAir() {
	a := &c.st.Air
	for c.st.Phase == PhaseWindow && a.Op == 0 && !c.now.Before(a.Next) {
		if c.count[StageReceiving]+c.count[StageIncomplete] == 0 {
			c.closeWindow() // nobody is left to send to
			return
		}
		switch a.Step {
		case AirCanary:
			c.broadcast(0, true)
		case AirCanaryListen:
			heard := 0
			for i := range c.st.Devices {
				if c.listens(i) && c.st.Devices[i].Heard {
					heard++
				}
			}
			switch {
			case heard > 0:
				a.Step, a.Asked = AirSend, 0
			case a.Asked <= asks:
				a.Step = AirCanary
			default:
				// Data would be wasted. Either the keys are wrong or nothing is transmitted at all.
				for i := range c.st.Devices {
					if c.listens(i) {
						c.fail(i, diag.StepReceive, diag.CauseKeyMismatch, "no device answered the canary")
					}
				}
				c.closeWindow()
			}
		case AirSend:
			switch {
			case c.st.Resend == 0 && c.st.Next > c.st.Target && c.capped(1) < 1 && !c.blind():
				c.closeWindow() // whatever devices answered, nothing more may be sent; the image will tell
			case c.st.Resend == 0 && c.st.Next > c.st.Target:
				a.Step, a.Asked = AirAsk, 0
			case !c.fits(c.spec.Plan.FragmentToA):
				c.closeWindow()
			case c.now.Before(a.Rest):
				a.Next = a.Rest
			case c.st.Resend > 0:
				c.broadcast(c.st.Resend, false)
			default:
				c.broadcast(c.st.Next, false)
			}
		case AirAsk:
			if !c.fits(c.spec.Plan.StatusToA) {
				c.closeWindow()
				break
			}
			c.broadcast(0, false)
		case AirListen:
			c.topUp()
		}
	}
}

// listens reports whether a device took part in the present window and is still of interest.
func (c *Session) listens(i int) bool {
	d := &c.st.Devices[i]
	return d.Window == c.st.Window.Number && (d.Stage == StageReceiving || d.Stage == StageIncomplete)
}

// fits reports whether a message of that length can still be sent in the window.
func (c *Session) fits(toa time.Duration) bool {
	return !c.now.Add(toa + c.spec.Plan.Guard).After(c.st.Window.End)
}

// broadcast sends the fragment in that position; 0 is a status request.
func (c *Session) broadcast(position int, participants bool) {
	var payload []byte
	var err error
	n := c.spec.Plan.Fragment(position)
	if position > 0 {
		payload, err = c.fragment(position)
	} else {
		payload, err = datablock.AppendCommand(nil, c.ver, datablock.FragSessionStatusReq{
			FragIndex: c.spec.FragIndex, Participants: participants})
	}
	if err != nil {
		c.halt(err.Error())
		return
	}
	a := &c.st.Air
	a.Op, a.Sending, a.Next = c.op(), position, time.Time{}
	c.emit(Broadcast{Op: a.Op, N: n, Broadcast: network.Broadcast{
		Group: c.st.Group, FPort: applayer.FPortDataBlock, Payload: payload,
		Expires: earliest(c.now.Add(max(2*c.spec.Plan.Pace, 10*time.Second, c.spec.Plan.Guard)), c.st.Window.End)}})
}

// fragment is the message with the fragment in that position.
func (c *Session) fragment(position int) ([]byte, error) {
	n := c.spec.Plan.Fragment(position)
	data, err := c.enc.Fragment(make([]byte, 0, c.spec.Plan.FragSize), n)
	if err != nil {
		return nil, err
	}
	return datablock.AppendCommand(nil, c.ver, datablock.DataFragment{FragIndex: c.spec.FragIndex, N: uint16(n), Data: data})
}

// broadcasted takes the result of the broadcast under way.
func (c *Session) broadcasted(r Result) {
	a := &c.st.Air
	n := a.Sending
	a.Op, a.Next = 0, c.now.Add(c.spec.Plan.Pace)
	switch r.Failure {
	case Success:
		if a.Counted && r.FCnt != a.LastFCnt+1 {
			c.halt(fmt.Sprintf("frame counter %d after %d: somebody else sends to group %s", r.FCnt, a.LastFCnt, c.st.Group))
			return
		}
		a.LastFCnt, a.Counted = r.FCnt, true
		c.st.Sent[r.FCnt%recent] = Frame{FCnt: r.FCnt, Position: n}
	case TooLate:
		c.emit(Record{What: "late", Text: fmt.Sprintf("fragment %d: %s", c.spec.Plan.Fragment(n), r.Text)})
		if n > 0 {
			return // its turn is still to come, in this window or the next
		}
	default:
		c.halt("a multicast message was refused: " + r.Text)
		return
	}
	switch {
	case n == 0:
	case n == c.st.Resend:
		if c.st.Resend++; c.st.Resend > c.spec.Plan.M {
			c.st.Resend = 0
		}
	default:
		c.st.Next = n + 1
	}
	if n > 0 {
		c.st.Burst = c.now
		c.st.Frames++
	}
	if r.Failure == Success {
		switch {
		case n > c.spec.Plan.M:
			c.st.ParitySent++
		case n > 0:
			c.st.DataSent++
		default:
			c.st.StatusSent++
		}
		if n > 0 {
			c.st.Airtime += c.spec.Plan.FragmentToA
		} else {
			c.st.Airtime += c.spec.Plan.StatusToA
		}
	}
	switch a.Step {
	case AirCanary:
		a.Step, a.Next = AirCanaryListen, c.now.Add(c.spec.Plan.AnswerWindow())
		a.Asked++
	case AirAsk:
		a.Step, a.Next = AirListen, c.now.Add(c.spec.Plan.AnswerWindow())
		a.Asked++
	}
}
