// Package campaign is the domain of a firmware campaign: waves of devices, one after the other, each served by
// sessions of package session that run side by side; who must approve, when it may work, when it must stop.
//
// A [Campaign] is a pure state machine, as its sessions are: [Campaign.Step] takes the time and one event and
// returns effects; the caller carries them out in order and reports their results. It reads no clock, sends
// nothing, starts no goroutine and draws no random number. Its memory is [State], plain data.
package campaign

import (
	"errors"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

// ErrSpec is returned by [New] and [Resume] for a campaign that cannot be run.
var ErrSpec = errors.New("campaign: invalid specification")

// Spec says what a campaign is to do. It does not change once the campaign has been created.
type Spec struct {
	ID          string
	Application string
	Waves       []Wave
	Policy      Policy
}

// Wave is a part of the devices that is finished before the next one begins.
type Wave struct {
	Name     string
	Sessions []session.Spec
}

// Policy holds the rules of a campaign. The zero value starts at once and asks nobody.
type Policy struct {
	Approvals int // of different people, before the campaign may start
}

// Campaign is a running campaign. It is not safe for concurrent use.
type Campaign struct {
	spec     Spec
	st       State
	sessions []*session.Session
	wave     []int                 // of each session
	index    map[network.EUI64]int // session of each device

	out []Effect // of the step that is running
	now time.Time
}

// New returns a campaign that waits for [Start].
func New(spec Spec) (*Campaign, error) { return build(spec, State{}, session.New) }

// Resume returns a campaign that goes on from a state that an earlier one had.
func Resume(spec Spec, st State) (*Campaign, error) {
	i := 0
	return build(spec, st, func(s session.Spec) (*session.Session, error) {
		if i == len(st.Sessions) {
			return nil, fmt.Errorf("%w: campaign %s has a state for %d sessions only", ErrSpec, spec.ID, len(st.Sessions))
		}
		i++
		return session.Resume(s, st.Sessions[i-1])
	})
}

func build(spec Spec, st State, make func(session.Spec) (*session.Session, error)) (*Campaign, error) {
	if spec.ID == "" {
		return nil, fmt.Errorf("%w: no ID", ErrSpec)
	}
	c := &Campaign{spec: spec, st: st, index: map[network.EUI64]int{}}
	c.st.Sessions = nil
	groups := map[string]bool{}
	for w, wave := range spec.Waves {
		if len(wave.Sessions) == 0 {
			return nil, fmt.Errorf("%w: wave %s of campaign %s has no sessions", ErrSpec, wave.Name, spec.ID)
		}
		for _, ss := range wave.Sessions {
			if ss.Application != spec.Application {
				return nil, fmt.Errorf("%w: session %s is for application %s, campaign %s for %s", ErrSpec, ss.ID, ss.Application, spec.ID, spec.Application)
			}
			if groups[ss.ID] {
				return nil, fmt.Errorf("%w: campaign %s has two sessions called %s", ErrSpec, spec.ID, ss.ID)
			}
			groups[ss.ID] = true
			s, err := make(ss)
			if err != nil {
				return nil, err
			}
			for _, t := range ss.Devices {
				if _, twice := c.index[t.EUI]; twice {
					return nil, fmt.Errorf("%w: device %s is in two sessions of campaign %s", ErrSpec, t.EUI, spec.ID)
				}
				c.index[t.EUI] = len(c.sessions)
			}
			c.sessions = append(c.sessions, s)
			c.wave = append(c.wave, w)
		}
	}
	if len(c.sessions) == 0 {
		return nil, fmt.Errorf("%w: campaign %s has no waves", ErrSpec, spec.ID)
	}
	return c, nil
}

// Single returns a campaign of one wave with one session, which starts when it is told to and asks nobody.
func Single(s session.Spec) (*Campaign, error) {
	return New(Spec{ID: s.ID, Application: s.Application, Waves: []Wave{{Name: "all", Sessions: []session.Spec{s}}}})
}

// ID returns the name of the campaign.
func (c *Campaign) ID() string { return c.spec.ID }

// Application returns the application whose events the campaign needs.
func (c *Campaign) Application() string { return c.spec.Application }

// Spec returns what the campaign is to do. It must not be changed.
func (c *Campaign) Spec() Spec { return c.spec }

// Sessions returns how many sessions there are; they are numbered in the order of the waves.
func (c *Campaign) Sessions() int { return len(c.sessions) }

// Session returns the session of that number, to be read only.
func (c *Campaign) Session(i int) *session.Session { return c.sessions[i] }

// WaveOf returns the wave of a session.
func (c *Campaign) WaveOf(session int) int { return c.wave[session] }

// Has reports whether a device belongs to the campaign.
func (c *Campaign) Has(eui network.EUI64) bool {
	_, ok := c.index[eui]
	return ok
}

// Ended reports whether nothing is left to do.
func (c *Campaign) Ended() bool { return c.st.Phase == PhaseEnded }

// Payload makes the message of a Send of that session that needs the root key of the device.
func (c *Campaign) Payload(session int, s session.Send, root network.Key) ([]byte, error) {
	return c.sessions[session].Payload(s, root)
}
