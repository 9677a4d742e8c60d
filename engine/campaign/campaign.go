// Package campaign is the domain of a firmware campaign: waves of devices, one after the other, each served by
// sessions of package session that run side by side; who must approve, when it may work, when it must stop.
//
// A [Campaign] is a pure state machine, as its sessions are: [Campaign.Step] takes the time and one event and
// returns effects; the caller carries them out in order and reports their results. It reads no clock, sends
// nothing, starts no goroutine and draws no random number. Its memory is [State], plain data.
//
// A campaign begins as a draft, collects approvals, is told to start, waits for its time, and runs one wave after the
// other. After each wave it judges what has become of the devices ([Thresholds]), lets the wave soak, waits at a gate
// for an operator if there is one, and goes on. A cohort that goes wrong is taken out of the campaign; a wave that
// goes wrong ends it. What people should be told of is a Record of session -1 whose What is one of the Note constants.
//
// The package does not choose devices, waves or plans, and does not ask the network for anything but what its
// sessions ask for.
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
	Creator     string
	Waves       []Wave
	Policy      Policy
}

// Wave is a part of the devices that is finished before the next one begins.
type Wave struct {
	Name     string
	Sessions []session.Spec

	Gate       bool          // an operator must approve before it begins
	Soak       time.Duration // after it, before anything else begins
	Thresholds Thresholds    // zero: those of the policy
	// Rescue makes it a wave for stragglers of earlier ones, at another data rate or in other groups: of the devices
	// listed only those take part that another session may help.
	Rescue bool
}

// Campaign is a running campaign. It is not safe for concurrent use.
type Campaign struct {
	spec     Spec
	st       State
	sessions []*session.Session
	wave     []int                   // of each session
	index    map[network.EUI64]place // of each device: the last session in which it takes part
	cohorts  []Cohort                // in the order of appearance
	cohort   [][]int                 // of each session and device
	tallies  [][]tally               // of each wave and cohort

	changed bool // the header, since the last call of Changes

	out []Effect // of the step that is running
	now time.Time
}

// place is a device of a session.
type place struct{ session, device int }

// New returns a campaign that waits for [Start].
func New(spec Spec) (*Campaign, error) { return build(spec, State{}, session.New) }

// Resume returns a campaign that goes on from a state that an earlier one had.
func Resume(spec Spec, st State) (*Campaign, error) {
	i := 0
	c, err := build(spec, st, func(s session.Spec) (*session.Session, error) {
		if i == len(st.Sessions) {
			return nil, fmt.Errorf("%w: campaign %s has a state for %d sessions only", ErrSpec, spec.ID, len(st.Sessions))
		}
		i++
		return session.Resume(s, st.Sessions[i-1])
	})
	if err == nil && (i != len(st.Sessions) || st.Wave < 0 || st.Wave >= len(spec.Waves)) {
		return nil, fmt.Errorf("%w: campaign %s has %d sessions in %d waves, the state %d and is in wave %d",
			ErrSpec, spec.ID, i, len(spec.Waves), len(st.Sessions), st.Wave)
	}
	return c, err
}

func build(spec Spec, st State, make func(session.Spec) (*session.Session, error)) (*Campaign, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	c := &Campaign{spec: spec, st: st, index: map[network.EUI64]place{}}
	c.st.Sessions = nil
	known := map[Cohort]int{}
	groups := map[string]bool{}
	for w, wave := range spec.Waves {
		for _, ss := range wave.Sessions {
			switch {
			case ss.Application != spec.Application:
				return nil, fmt.Errorf("%w: session %s is for application %s, campaign %s for %s", ErrSpec, ss.ID, ss.Application, spec.ID, spec.Application)
			case groups[ss.ID]:
				return nil, fmt.Errorf("%w: campaign %s has two sessions called %s", ErrSpec, spec.ID, ss.ID)
			}
			groups[ss.ID] = true
			if len(ss.Calendar.Spans) == 0 {
				ss.Calendar = spec.Policy.Calendar
			}
			s, err := make(ss)
			if err != nil {
				return nil, err
			}
			if err := c.adopt(s, ss, w, known); err != nil {
				return nil, err
			}
		}
	}
	if len(c.sessions) == 0 {
		return nil, fmt.Errorf("%w: campaign %s has no waves", ErrSpec, spec.ID)
	}
	c.count()
	return c, nil
}

// adopt takes a session and its devices.
func (c *Campaign) adopt(s *session.Session, spec session.Spec, wave int, known map[Cohort]int) error {
	n := len(c.sessions)
	cohort := make([]int, len(spec.Devices))
	for i, t := range spec.Devices {
		before, twice := c.index[t.EUI]
		switch rescue := c.spec.Waves[wave].Rescue; {
		case rescue && (!twice || c.wave[before.session] == wave):
			return fmt.Errorf("%w: device %s of rescue wave %s is in no earlier wave, or twice in this one", ErrSpec, t.EUI, c.spec.Waves[wave].Name)
		case !rescue && twice:
			return fmt.Errorf("%w: device %s is in two sessions of campaign %s", ErrSpec, t.EUI, c.spec.ID)
		}
		if !c.spec.Waves[wave].Rescue || s.Started() && s.Device(i).Stage != session.StageAbsent {
			c.index[t.EUI] = place{n, i}
		}
		key := Cohort{t.Hardware, t.From}
		if twice {
			key = c.cohorts[c.cohort[before.session][before.device]]
		}
		k, ok := known[key]
		if !ok {
			k = len(c.cohorts)
			known[key] = k
			c.cohorts = append(c.cohorts, key)
		}
		cohort[i] = k
	}
	c.sessions = append(c.sessions, s)
	c.wave = append(c.wave, wave)
	c.cohort = append(c.cohort, cohort)
	return nil
}

// Single returns a campaign of one wave with one session, which starts when it is told to, asks nobody and never
// stops by itself.
func Single(s session.Spec) (*Campaign, error) {
	return New(Spec{ID: s.ID, Application: s.Application, Waves: []Wave{{Name: "all", Sessions: []session.Spec{s}}},
		Policy: Policy{Thresholds: lenient}})
}

// Share makes all sessions ask for the air before they announce a window. It is to be called again after [Resume].
func (c *Campaign) Share(air session.Neighbours) {
	for _, s := range c.sessions {
		s.Share(air)
	}
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

// Find returns the session that a device is in, and its number there.
func (c *Campaign) Find(eui network.EUI64) (session, device int, ok bool) {
	at, ok := c.index[eui]
	return at.session, at.device, ok
}

// Wants reports whether an event of the network concerns the campaign: one of its devices or of its groups.
func (c *Campaign) Wants(ev network.Event) bool {
	if ev.Group == "" {
		return c.Has(ev.Device)
	}
	return c.groupOf(ev.Group) >= 0
}

// groupOf returns the session that has a group open, or -1.
func (c *Campaign) groupOf(id network.GroupID) int {
	for i, s := range c.sessions {
		if id != "" && s.GroupID() == id {
			return i
		}
	}
	return -1
}

// Ended reports whether nothing is left to do.
func (c *Campaign) Ended() bool { return c.st.Phase == PhaseEnded }

// Payload makes the message of a Send of that session that needs the root key of the device.
func (c *Campaign) Payload(session int, s session.Send, root network.Key) ([]byte, error) {
	return c.sessions[session].Payload(s, root)
}
