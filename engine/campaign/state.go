package campaign

import (
	"fmt"
	"slices"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/session"
)

// Phase says what the campaign as a whole does.
type Phase uint8

// The phases.
const (
	PhaseDraft   Phase = iota // waits for approval or for its start
	PhaseRunning              // a wave is under way
	PhasePaused               // nothing is sent until it is told to continue
	PhaseEnded
	PhaseWaiting  // between waves, or before the first: see State.Wait
	PhaseStopping // halted or aborted; devices that were told to reboot are watched, others are cleaned up
)

var phaseNames = [...]string{"draft", "running", "paused", "ended", "waiting", "stopping"}

// String returns the name of the phase in lower case.
func (p Phase) String() string { return name(phaseNames[:], uint8(p), "phase") }

// MarshalText returns the form of String.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *Phase) UnmarshalText(b []byte) error { return parse(phaseNames[:], b, "phase", (*uint8)(p)) }

// Wait says what a campaign in PhaseWaiting waits for.
type Wait uint8

// What it waits for.
const (
	WaitNone Wait = iota
	WaitTime      // Policy.NotBefore
	WaitSoak      // the soak time of the wave before
	WaitGate      // an approval of the next wave
)

var waitNames = [...]string{"", "time", "soak", "gate"}

// String returns the name in lower case; empty for WaitNone.
func (w Wait) String() string { return name(waitNames[:], uint8(w), "wait") }

// MarshalText returns the form of String.
func (w Wait) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (w *Wait) UnmarshalText(b []byte) error { return parse(waitNames[:], b, "wait", (*uint8)(w)) }

func name(names []string, i uint8, what string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s %d", what, i)
}

func parse(names []string, b []byte, what string, out *uint8) error {
	i := slices.Index(names, string(b))
	if i < 0 {
		return fmt.Errorf("campaign: no %s %q", what, b)
	}
	*out = uint8(i)
	return nil
}

// State is all that a campaign remembers.
type State struct {
	Phase     Phase
	Wave      int        // that is under way, or begins next
	Halted    string     // why the campaign stopped before its end; empty: it did not
	Cause     diag.Cause // of the halt; OK: somebody aborted it, or a session could not go on
	Started   time.Time
	Wait      Wait
	Until     time.Time // end of the wait; zero: an operator ends it
	Resumed   Phase     // where a pause goes on
	Asked     bool      // approval has been asked for
	Approvals []Approval
	Stopped   []Stop

	Sessions []session.State
}

// Approval is that of a person.
type Approval struct {
	By, Note string
	At       time.Time
	Wave     int // whose gate it opened; 0: of the campaign
}

// Stop is a cohort that was taken out of the campaign.
type Stop struct {
	Cohort Cohort
	Cause  diag.Cause
	Why    string
	At     time.Time
}

// halted reports whether cohort k has been stopped.
func (c *Campaign) halted(k int) bool {
	return slices.ContainsFunc(c.st.Stopped, func(s Stop) bool { return s.Cohort == c.cohorts[k] })
}

// State returns a copy of all that the campaign remembers; [Resume] takes it.
func (c *Campaign) State() State {
	st := c.Header()
	st.Sessions = make([]session.State, len(c.sessions))
	for i, s := range c.sessions {
		st.Sessions[i] = s.State()
	}
	return st
}

// Header returns what the campaign remembers beside its sessions: a [State] without Sessions.
func (c *Campaign) Header() State {
	st := c.st
	st.Approvals = slices.Clone(st.Approvals)
	st.Stopped = slices.Clone(st.Stopped)
	return st
}

// Change names what has changed in a part of a campaign.
type Change struct {
	Session int   // -1: the header of the campaign
	Header  bool  // that of the session, or of the campaign
	Devices []int // of the session, by their place in its specification
}

// Changes returns what has changed since the last call, and forgets it. A new or resumed campaign reports nothing:
// who made it knows its state.
func (c *Campaign) Changes() []Change {
	var out []Change
	if c.changed {
		c.changed = false
		out = append(out, Change{Session: -1, Header: true})
	}
	for i, s := range c.sessions {
		if header, devices := s.Changes(); header || len(devices) > 0 {
			out = append(out, Change{i, header, devices})
		}
	}
	return out
}
