package campaign

import (
	"fmt"
	"time"

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
)

var phaseNames = [...]string{"draft", "running", "paused", "ended"}

// String returns the name of the phase in lower case.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// MarshalText returns the form of String.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *Phase) UnmarshalText(b []byte) error {
	for i, n := range phaseNames {
		if n == string(b) {
			*p = Phase(i)
			return nil
		}
	}
	return fmt.Errorf("campaign: no phase %q", b)
}

// State is all that a campaign remembers.
type State struct {
	Phase    Phase
	Wave     int    // that is under way
	Halted   string // why the campaign stopped before its end; empty: it did not
	Started  time.Time
	Sessions []session.State
}

// State returns a copy of all that the campaign remembers; [Resume] takes it.
func (c *Campaign) State() State {
	st := c.st
	st.Sessions = make([]session.State, len(c.sessions))
	for i, s := range c.sessions {
		st.Sessions[i] = s.State()
	}
	return st
}

// Header returns what the campaign remembers beside its sessions: a [State] without Sessions.
func (c *Campaign) Header() State { return c.st }
