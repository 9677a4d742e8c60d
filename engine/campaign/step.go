package campaign

import (
	"fmt"
	"slices"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

// Event is what a campaign learns: [Approve], [Start], [Pause], [Continue], [Abort], [Tick], [Heard], [Result],
// [Battery] or [Proven].
type Event interface{ event() }

// Approve is the approval of a person: of the campaign while it is a draft, of the next wave at a gate.
type Approve struct{ By, Note string }

// Start begins the campaign. A second one does nothing.
type Start struct{ By string }

// Pause stops all sending, and drops what waits in queues of the network.
type Pause struct{ By, Reason string }

// Continue ends a pause.
type Continue struct{ By string }

// Abort ends the campaign: nothing more is sent, its groups are closed and, where devices are heard, deleted.
type Abort struct{ By, Reason string }

// Tick says that the time of [Campaign.NextWake] has come.
type Tick struct{}

// Heard is an event of the network. Those of foreign devices are ignored.
type Heard struct{ Event network.Event }

// Result reports what became of an effect of a session.
type Result struct {
	Session int
	Result  session.Result
}

// Battery says how full the battery of a device is.
type Battery struct {
	Device  network.EUI64
	Percent int // 0..100; -1: not known
}

// Proven says that somebody outside knows that a device runs what it should; see [session.Proven].
type Proven struct{ Device network.EUI64 }

func (Approve) event()  {}
func (Start) event()    {}
func (Pause) event()    {}
func (Continue) event() {}
func (Abort) event()    {}
func (Tick) event()     {}
func (Heard) event()    {}
func (Result) event()   {}
func (Battery) event()  {}
func (Proven) event()   {}

// Effect is what the caller must do for a session, or, with Session -1, a Record of the campaign itself.
type Effect struct {
	Session int
	Do      session.Effect
}

// What a Record of the campaign itself may be, for logs and notifications.
const (
	NotePhase          = "phase"
	NoteApprovalNeeded = "approval-needed" // somebody must act
	NoteApproved       = "approved"
	NoteStart          = "start"
	NoteWave           = "wave"
	NoteWaveDone       = "wave-done"
	NoteSoak           = "soak"
	NotePause          = "pause"
	NoteContinue       = "continue"
	NoteCohortHalt     = "cohort-halt" // a cohort was taken out
	NoteHalt           = "halt"        // the campaign has stopped before its end
	NoteFinish         = "finish"
)

// Allows says why an event of an operator would do nothing now; nil: it would do something, or is no such event.
func (c *Campaign) Allows(ev Event) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("campaign %s is %s: %s", c.spec.ID, c.st.Phase, fmt.Sprintf(format, args...))
	}
	switch ev := ev.(type) {
	case Approve:
		switch {
		case c.st.Phase != PhaseDraft && (c.st.Phase != PhaseWaiting || c.st.Wait != WaitGate):
			return refuse("nothing waits for an approval")
		case ev.By == "":
			return refuse("an approval needs a name")
		case c.spec.Policy.FourEyes && ev.By == c.spec.Creator:
			return refuse("%s has created it, and somebody else must approve", ev.By)
		case c.st.Phase == PhaseDraft && c.spec.Policy.Approvals == 0:
			return refuse("it needs no approval")
		case c.st.Phase == PhaseDraft && c.approved(ev.By):
			return refuse("%s has approved already", ev.By)
		}
	case Start:
		switch missing := c.missing(); {
		case c.st.Phase != PhaseDraft:
			return refuse("it has been started already")
		case missing > 0:
			return refuse("%d more approvals are needed", missing)
		}
	case Pause:
		if c.st.Phase != PhaseRunning && c.st.Phase != PhaseWaiting {
			return refuse("nothing is to be paused")
		}
	case Continue:
		if c.st.Phase != PhasePaused {
			return refuse("it is not paused")
		}
	case Abort:
		if c.st.Phase == PhaseEnded || c.st.Phase == PhaseStopping && c.st.Cause == diag.CauseOK {
			return refuse("nothing is to be aborted")
		}
	}
	return nil
}

func (c *Campaign) approved(by string) bool {
	return slices.ContainsFunc(c.st.Approvals, func(a Approval) bool { return a.By == by })
}

// missing is how many approvals the campaign still needs before its start.
func (c *Campaign) missing() int { return max(0, c.spec.Policy.Approvals-len(c.st.Approvals)) }

// Step advances the campaign by one event and returns what must be done, in order. now must not go back. An order that
// [Campaign.Allows] refuses changes nothing.
func (c *Campaign) Step(now time.Time, ev Event) []Effect {
	c.now, c.out = now, nil
	if c.Allows(ev) != nil {
		return nil
	}
	switch ev := ev.(type) {
	case Approve:
		c.approve(ev)
	case Start:
		c.st.Started = now
		c.changed = true
		c.note(NoteStart, 0, "by "+ev.By)
		c.begin()
	case Pause:
		c.pause(ev)
	case Continue:
		c.resume(ev)
	case Abort:
		c.abort(ev)
	case Heard:
		if ev.Event.Group != "" {
			if i := c.groupOf(ev.Event.Group); i >= 0 {
				c.step(i, session.Heard{Event: ev.Event})
			}
		} else if at, ok := c.index[ev.Event.Device]; ok && c.st.Phase != PhaseDraft {
			c.step(at.session, session.Heard{Event: ev.Event})
		}
	case Battery:
		if at, ok := c.index[ev.Device]; ok {
			c.step(at.session, session.Battery(ev))
		}
	case Proven:
		if at, ok := c.index[ev.Device]; ok {
			c.step(at.session, session.Proven(ev))
		}
	case Result:
		if ev.Session >= 0 && ev.Session < len(c.sessions) {
			c.step(ev.Session, ev.Result)
		}
	case Tick:
		c.tick()
	}
	c.advance()
	return c.out
}

func (c *Campaign) tick() {
	if c.st.Phase == PhaseDraft && c.missing() > 0 && !c.st.Asked {
		c.st.Asked, c.changed = true, true
		c.note(NoteApprovalNeeded, 0, fmt.Sprintf("%d approvals before the start", c.missing()))
	}
	if c.st.Phase == PhasePaused {
		return
	}
	for i, s := range c.sessions {
		if at := s.NextWake(); !at.IsZero() && !at.After(c.now) {
			c.step(i, session.Tick{})
		}
	}
}

// NextWake returns when [Tick] is wanted; zero: only another event brings work. An instant that has passed
// means at once.
func (c *Campaign) NextWake() time.Time {
	var at time.Time
	switch c.st.Phase {
	case PhaseDraft:
		if c.missing() > 0 && !c.st.Asked {
			return time.Unix(0, 0) // to say so
		}
		return at
	case PhasePaused, PhaseEnded:
		return at
	case PhaseWaiting:
		at = c.st.Until
	}
	for _, s := range c.sessions {
		if t := s.NextWake(); at.IsZero() || !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	return at
}

// step steps a session and takes over its effects.
func (c *Campaign) step(i int, ev session.Event) {
	for _, e := range c.sessions[i].Step(c.now, ev) {
		if r, ok := e.(session.Record); ok && r.What == "stage" {
			c.moved(i, r)
		}
		c.out = append(c.out, Effect{i, e})
	}
}

func (c *Campaign) note(what string, cause diag.Cause, text string) {
	c.out = append(c.out, Effect{-1, session.Record{What: what, Cause: cause, Text: text}})
}

func (c *Campaign) setPhase(p Phase) {
	c.st.Phase, c.changed = p, true
	c.note(NotePhase, 0, p.String())
}

func (c *Campaign) wait(w Wait, until time.Time) {
	c.st.Wait, c.st.Until = w, until
	c.setPhase(PhaseWaiting)
}

func (c *Campaign) euis(at []place) []network.EUI64 {
	out := make([]network.EUI64, len(at))
	for i, p := range at {
		out[i] = c.sessions[p.session].Device(p.device).EUI
	}
	return out
}
