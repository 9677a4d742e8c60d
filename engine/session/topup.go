package session

import (
	"fmt"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/fragmentation"
)

// topUp ends a status round: more parity, another question, or the end of the window.
func (c *Session) topUp() {
	a, p := &c.st.Air, c.spec.Plan
	most, missing := 0, 0
	for i := range c.st.Devices {
		d := &c.st.Devices[i]
		if !c.listens(i) || d.Stage != StageIncomplete {
			continue
		}
		if d.Answered == c.st.Frames {
			missing++
		}
		if c.worth(d) {
			most = max(most, c.need(d))
		}
	}
	most = max(c.capped(most), 0)
	room := int((c.st.Window.End.Sub(c.now)-p.Guard-p.AnswerWindow())/p.Pace) - asks
	switch {
	case c.st.Next <= c.st.Target: // for fragments that gateways have refused
		a.Step, a.Next = AirSend, c.now
		return
	case most == 0 && (missing == 0 && a.Asked < asks || a.Asked < asks-1):
		// Those that are not worth more will answer again; so ask once less.
		a.Step, a.Next = AirAsk, c.now
		return
	case most == 0, room <= 0, a.Round >= c.spec.Limits.Rounds:
		c.closeWindow()
		return
	}
	most = min(most, room)
	a.Round++
	c.st.Target = c.st.Next - 1 + most
	c.emit(Record{What: "top-up", Text: fmt.Sprintf("%d more parity fragments, because %d devices miss some", most, missing)})
	for i := range c.st.Devices {
		// What they miss is out of date once the burst has begun. Who is left behind is not asked again.
		if d := &c.st.Devices[i]; c.listens(i) && d.Stage == StageIncomplete && c.worth(d) {
			d.Saved = true
			c.setStage(i, StageReceiving)
		}
	}
	a.Step, a.Next, a.Asked = AirSend, c.now, 0
}

// presume takes silence as complete: the image will prove it. Who missed something and has not been sent enough since
// is asked, and so are devices that keep silent for other reasons.
func (c *Session) presume() {
	if c.blind() {
		return
	}
	for i := range c.st.Devices {
		if d := &c.st.Devices[i]; !c.listens(i) || c.left(d) {
			continue
		} else if enough := d.Missing <= 0 || c.needed(d, 1) <= 0; d.Stage == StageReceiving && enough {
			c.complete(i)
		} else if d.Stage == StageIncomplete && enough {
			c.setStage(i, StageReceiving)
		}
	}
}

// A top-up must not overshoot: what a device needs may be less than expected, and the more so the more it misses. So it
// exceeds the need of a lucky device by a fiftieth of what has been sent, or five fragments, but no more than what even
// an unlucky one needs. Another round makes up for the rest, and costs a few answers.
const (
	lucky    = -2.0 // standard deviations
	unlucky  = 1.5
	excess   = 50
	leastTop = 5
)

// need is how much parity to send for a device now.
func (c *Session) need(d *Device) int {
	if c.spec.Raw != nil { // enough to tell a stack that does not count parity; see misses
		return max(c.needed(d, 1), d.Missing+rawExtra-(c.st.Frames-d.Stuck), 1)
	}
	return max(min(c.needed(d, unlucky), c.needed(d, lucky)+max(c.st.Frames/excess, leastTop)), 1)
}

// needed is how much parity completes a device with a probability of so many standard deviations, less what has been
// sent since it said what it misses.
func (c *Session) needed(d *Device, sigmas float64) int {
	missing, received, sent := d.Missing, d.Received, d.Answered-d.ArmedFrom
	if received <= 0 || received > sent || c.left(d) {
		received, sent = 80, 100 // nothing to go by: it was not there all the time, or counts as it likes
	}
	if missing == 255 {
		missing = max(missing, c.spec.Plan.M-d.Received)
	}
	return fragmentation.TopUp(missing, received, sent, sigmas) - (c.st.Frames - d.Answered)
}

// fresh reports whether a device has missed the data pass altogether. Parity alone would be no help: it asks
// for a matrix row per fragment, and where the weight of all rows is even it never suffices.
func (d *Device) fresh() bool { return d.Armed == 0 }

// worth reports whether a device is worth the parity that it is likely to need. Whom a top-up was sized for is left
// behind only if it turns out to need too much on the average: what was sent for it would be lost with it.
func (c *Session) worth(d *Device) bool {
	sigmas := 2.0
	if d.Saved {
		sigmas = 0
	}
	need, l := c.needed(d, sigmas), &c.spec.Limits
	return need <= l.TopUp && c.st.Next-1+need <= c.spec.Plan.Positions() && c.below(need)
}

// capped shortens a top-up to what the session may send.
func (c *Session) capped(n int) int {
	if most := c.spec.Limits.Fragments; most > 0 {
		n = min(n, most-c.st.Frames)
	}
	return min(n, c.spec.Plan.Positions()-c.st.Next+1)
}

// below reports whether so many more fragments keep the session below the most that it may send.
func (c *Session) below(more int) bool {
	return c.spec.Limits.Fragments == 0 || c.st.Frames+more <= c.spec.Limits.Fragments
}

func (c *Session) closeWindow() {
	c.st.Quiet = c.st.Window.End // devices keep quiet as long as they listen
	c.st.Air.Step, c.st.Air.Next = AirIdle, time.Time{}
	if (c.st.Resend > 0 || c.st.Next <= c.st.Target) && c.count[StageReceiving]+c.count[StageIncomplete] > 0 {
		idle := c.st.Burst.Before(c.st.Window.Start) // the network took nothing all the while
		if !idle || c.st.Repairs+1 < c.spec.Limits.Windows {
			c.regroup() // the window was too short for the rest: everybody goes on in the next one
			if idle || c.st.Next > c.spec.Plan.M {
				c.st.Repairs++
			}
			c.announce()
			return
		}
		for i := range c.st.Devices {
			if c.listens(i) && c.st.Next <= c.spec.Plan.M {
				c.fail(i, diag.StepReceive, diag.CauseLossExceeded, fmt.Sprintf("the network took %d of %d fragments, and none in the last window", c.st.Frames, c.spec.Plan.M))
			}
		}
	}
	c.presume()
	c.setPhase(PhaseCollect)
	c.serveAll()
}

// decide plans another window for the devices that are worth it, lets single ones have the rest by unicast, or goes
// to the end.
func (c *Session) decide() {
	most, again := 0, false
	var few []int // those whom unicast would serve
	for i := range c.st.Devices {
		d := &c.st.Devices[i]
		if !c.joins(d) || !d.DoubtUntil.IsZero() {
			continue
		}
		x, repeat := 0, 0
		if d.fresh() {
			// What else it needs, status answers will show.
			x, repeat = max(min(c.spec.Plan.Parity, c.spec.Plan.M/8), 1), c.spec.Plan.M
		} else {
			x = max(c.need(d), 1)
		}
		tail := c.tail(d) > 0
		if (d.fresh() && c.below(x+repeat) || !d.fresh() && c.worth(d)) && x+repeat <= c.spec.Limits.TopUp && c.st.Repairs+1 < c.spec.Limits.Windows {
			if tail {
				few = append(few, i)
			} else {
				most, again = max(most, x), again || d.fresh()
			}
			continue
		}
		switch {
		case tail:
			c.repair(i)
		case !d.Frag && !d.FragAt.IsZero() && !d.LastUp.Before(c.st.Window.Announced):
			c.fail(i, diag.StepReceive, diag.CauseNoSession, "has lost its fragmentation session, and is not worth another data pass")
		case d.Stage == StageIncomplete || d.Armed > 0:
			c.fail(i, diag.StepReceive, diag.CauseLossExceeded, c.fragments(max(d.Missing, 0)))
		case d.Deaf > 0:
			c.unheard(i)
		case d.ClockWrong:
			c.fail(i, diag.StepSetup, diag.CauseClockOff, "")
		case d.StartMissed:
			c.fail(i, diag.StepSetup, diag.CauseSessionMissed, "")
		case d.LastUp.Before(c.st.Window.Announced):
			c.fail(i, diag.StepSetup, diag.CauseNoUplink, "")
		default:
			c.fail(i, diag.StepSetup, diag.CauseSetupTimeout, "did not confirm the receive window")
		}
	}
	// Unicast is for the last ones: a window is needed for others anyway, or serves them better together.
	for _, i := range few {
		if most == 0 && len(few) <= fewest {
			c.repair(i)
		} else {
			most = max(most, c.need(&c.st.Devices[i]), 1)
		}
	}
	if most > 0 {
		c.st.Repairs++
		if again {
			c.st.Resend, c.st.Next = 1, max(c.st.Next, c.spec.Plan.M+1)
		} else {
			most = c.capped(most)
		}
		c.st.Target = c.st.Next - 1 + most
		c.announce()
		return
	}
	if c.st.Phase != PhaseFinish {
		c.setPhase(PhaseFinish)
		c.serveAll()
	}
}

// tail is how many fragments a device would get by unicast; 0: it is not served so. What is lost of them, a status
// answer will show.
func (c *Session) tail(d *Device) int {
	if x := d.Missing + tailExtra; d.Stage == StageIncomplete && d.Frag && d.Missing > 0 && d.Tail+x <= c.spec.Limits.Tail {
		return x
	}
	return 0
}

// repair sends a device the rest by unicast.
func (c *Session) repair(i int) {
	d := &c.st.Devices[i]
	d.TailEnd = d.Tail + c.tail(d)
	c.setStage(i, StageRepair)
	c.serve(i)
}
