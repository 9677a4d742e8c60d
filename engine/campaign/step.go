package campaign

import (
	"time"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

// Event is what a campaign learns: [Start], [Tick], [Heard], [Result] or [Abort].
type Event interface{ event() }

// Start begins the campaign. A second one does nothing.
type Start struct{ By string }

// Tick says that the time of [Campaign.NextWake] has come.
type Tick struct{}

// Heard is an event of the network. Those of foreign devices are ignored.
type Heard struct{ Event network.Event }

// Abort ends the campaign: nothing more is sent, its groups are closed.
type Abort struct{ By, Reason string }

// Result reports what became of an effect of a session.
type Result struct {
	Session int
	Result  session.Result
}

func (Start) event()  {}
func (Tick) event()   {}
func (Heard) event()  {}
func (Abort) event()  {}
func (Result) event() {}

// Effect is what the caller must do for a session, or, with Session -1, a Record of the campaign itself.
type Effect struct {
	Session int
	Do      session.Effect
}

// Step advances the campaign by one event and returns what must be done, in order. now must not go back.
func (c *Campaign) Step(now time.Time, ev Event) []Effect {
	c.now, c.out = now, nil
	switch ev := ev.(type) {
	case Start:
		if c.st.Phase == PhaseDraft {
			c.st.Started = now
			c.setPhase(PhaseRunning)
			c.startWave()
		}
	case Heard:
		if i, ok := c.index[ev.Event.Device]; ok && c.st.Phase != PhaseDraft {
			c.step(i, session.Heard{Event: ev.Event})
		}
	case Result:
		c.step(ev.Session, ev.Result)
	case Abort:
		c.halt("aborted: " + ev.Reason)
	case Tick:
		for i, s := range c.sessions {
			if at := s.NextWake(); !at.IsZero() && !at.After(now) {
				c.step(i, session.Tick{})
			}
		}
	}
	c.advance()
	return c.out
}

// NextWake returns when [Tick] is wanted; zero: only another event brings work. An instant that has passed
// means at once.
func (c *Campaign) NextWake() time.Time {
	var at time.Time
	if c.st.Phase != PhaseRunning {
		return at
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
		c.out = append(c.out, Effect{i, e})
	}
}

func (c *Campaign) record(what, text string) {
	c.out = append(c.out, Effect{-1, session.Record{What: what, Text: text}})
}

func (c *Campaign) setPhase(p Phase) {
	c.st.Phase = p
	c.record("phase", p.String())
}

func (c *Campaign) startWave() {
	c.record("wave", c.spec.Waves[c.st.Wave].Name)
	for i := range c.sessions {
		if c.wave[i] == c.st.Wave {
			c.step(i, session.Start{})
		}
	}
}

// advance begins the next wave when all sessions of the present one have ended.
func (c *Campaign) advance() {
	for c.st.Phase == PhaseRunning {
		for i, s := range c.sessions {
			if c.wave[i] == c.st.Wave && !s.Ended() {
				return
			}
		}
		if c.st.Wave+1 == len(c.spec.Waves) {
			c.setPhase(PhaseEnded)
			return
		}
		c.st.Wave++
		c.startWave()
	}
}

// halt stops the campaign as a whole.
func (c *Campaign) halt(why string) {
	if c.st.Phase == PhaseEnded {
		return
	}
	c.st.Halted = why
	c.record("halt", why)
	for i := range c.sessions {
		c.step(i, session.Abort{Reason: why})
	}
	c.setPhase(PhaseEnded)
}
