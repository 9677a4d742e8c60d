package campaign

import (
	"fmt"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

func (c *Campaign) approve(a Approve) {
	c.changed = true
	wave := 0
	if c.st.Phase == PhaseWaiting {
		wave = c.st.Wave
	}
	c.st.Approvals = append(c.st.Approvals, Approval{By: a.By, Note: a.Note, At: c.now, Wave: wave})
	c.note(NoteApproved, 0, "by "+a.By)
	if c.st.Phase == PhaseWaiting {
		c.startWave()
	}
}

// begin goes on after the start: at once, or when the time has come.
func (c *Campaign) begin() {
	if at := c.spec.Policy.NotBefore; c.now.Before(at) {
		c.wait(WaitTime, at)
		return
	}
	c.startWave()
}

// startWave begins the sessions of the wave that is next.
func (c *Campaign) startWave() {
	c.st.Wait, c.st.Until = WaitNone, time.Time{}
	c.setPhase(PhaseRunning)
	w := c.spec.Waves[c.st.Wave]
	c.note(NoteWave, 0, w.Name)
	for i := range c.sessions {
		if c.wave[i] != c.st.Wave {
			continue
		}
		if w.Rescue {
			c.step(i, session.Start{Only: c.stragglers(i)})
		} else {
			c.step(i, session.Start{})
		}
	}
}

// stragglers returns the devices of a session of a rescue wave that take part, and moves them there.
func (c *Campaign) stragglers(n int) []network.EUI64 {
	only := []network.EUI64{}
	for i := range c.cohort[n] {
		eui := c.sessions[n].Device(i).EUI
		before := c.index[eui]
		if d := c.sessions[before.session].Device(before.device); d.Stage == session.StageFailed && mendable(d.Cause) && !c.halted(c.cohort[n][i]) {
			c.index[eui] = place{n, i}
			only = append(only, eui)
		}
	}
	return only
}

// mendable reports whether another session may serve a device that failed with that cause.
func mendable(cause diag.Cause) bool {
	switch cause {
	case diag.CauseLossExceeded, diag.CauseSessionMissed, diag.CauseSetupTimeout, diag.CauseNoUplink,
		diag.CauseClockOff, diag.CauseWindowRefused, diag.CauseFlashDecay,
		diag.CauseKeyMismatch: // perhaps it was cut off all the while, or its key has been corrected
		return true
	}
	return false
}

// advance judges the wave that is under way and begins the next when its time has come.
func (c *Campaign) advance() {
	for {
		before, wave := c.st.Phase, c.st.Wave
		switch c.st.Phase {
		case PhaseRunning:
			end := c.waveEnded()
			if c.judge(end); end && c.st.Phase == PhaseRunning {
				c.waveDone()
			}
		case PhaseWaiting:
			if !c.st.Until.IsZero() && !c.now.Before(c.st.Until) {
				c.waited()
			}
		case PhaseStopping:
			if c.allEnded() {
				c.setPhase(PhaseEnded)
			}
		}
		if c.st.Phase == before && c.st.Wave == wave {
			return
		}
	}
}

func (c *Campaign) waveEnded() bool {
	for i, s := range c.sessions {
		if c.wave[i] == c.st.Wave && !s.Ended() {
			return false
		}
	}
	return true
}

// allEnded reports whether no session is under way.
func (c *Campaign) allEnded() bool {
	for _, s := range c.sessions {
		if s.Started() && !s.Ended() {
			return false
		}
	}
	return true
}

// waveDone goes on after a wave that was good enough.
func (c *Campaign) waveDone() {
	for i, s := range c.sessions {
		if why := s.Header().Halted; c.wave[i] == c.st.Wave && why != "" {
			c.halt(diag.CauseOK, fmt.Sprintf("session %s: %s", s.ID(), why)) // no device is to blame
			return
		}
	}
	w := c.spec.Waves[c.st.Wave]
	var t tally
	for k := range c.cohorts {
		t.add(c.tallies[c.st.Wave][k])
	}
	good := t[updated] + t[unproven]
	c.note(NoteWaveDone, 0, fmt.Sprintf("%s: %d devices updated, %d not", w.Name, good,
		t[unreached]+t[early]+t[broken]+t[trial]+t[silent]+t[withheld]))
	if c.st.Wave+1 == len(c.spec.Waves) {
		p := c.Progress()
		c.note(NoteFinish, 0, fmt.Sprintf("%d of %d devices updated", p.Updated+p.Unproven, p.Devices))
		c.setPhase(PhaseEnded)
		return
	}
	if w.Soak > 0 {
		c.note(NoteSoak, 0, fmt.Sprintf("%s, for %s", w.Name, w.Soak))
		c.wait(WaitSoak, c.now.Add(w.Soak))
		return
	}
	c.next()
}

// waited goes on after a wait that time ends.
func (c *Campaign) waited() {
	switch c.st.Wait {
	case WaitTime:
		c.startWave()
	case WaitSoak:
		if v := c.soaked(); v.cause != diag.CauseOK {
			c.halt(v.cause, fmt.Sprintf("wave %s, after its soak time: %s", c.spec.Waves[c.st.Wave].Name, v.text))
			return
		}
		c.next()
	}
}

// soaked judges the updated devices of a wave once more: those not heard since for as long as [session.Timing.Silence]
// count as silent.
func (c *Campaign) soaked() verdict {
	var t tally
	for n, s := range c.sessions {
		if c.wave[n] != c.st.Wave {
			continue
		}
		for i := range c.cohort[n] {
			switch d := s.Device(i); {
			case d.Stage != session.StageUpdated || c.halted(c.cohort[n][i]):
			case c.now.Sub(d.LastUp) >= s.Spec().Timing.Silence:
				t[silent]++
			default:
				t[updated]++
			}
		}
	}
	th := c.thresholds(c.st.Wave)
	th.MaxFailure, th.MinSuccess = 1, -1
	return t.judge(th, true)
}

// next goes to the next wave.
func (c *Campaign) next() {
	c.st.Wave++
	c.changed = true
	if c.spec.Waves[c.st.Wave].Gate {
		c.wait(WaitGate, time.Time{})
		c.note(NoteApprovalNeeded, 0, "wave "+c.spec.Waves[c.st.Wave].Name)
		return
	}
	c.startWave()
}

func (c *Campaign) pause(p Pause) {
	c.st.Resumed = c.st.Phase
	c.note(NotePause, 0, "by "+p.By+": "+p.Reason)
	c.setPhase(PhasePaused)
	for i, s := range c.sessions {
		if s.Started() && !s.Ended() {
			c.step(i, session.Pause{Reason: p.Reason})
		}
	}
}

func (c *Campaign) resume(e Continue) {
	c.note(NoteContinue, 0, "by "+e.By)
	c.setPhase(c.st.Resumed)
	for i, s := range c.sessions {
		if s.Started() && !s.Ended() {
			c.step(i, session.Continue{})
		}
	}
}

// halt ends the campaign because it does harm. Devices that were told to reboot are watched to their end; nothing is
// sent to the others any more.
func (c *Campaign) halt(cause diag.Cause, why string) {
	c.st.Halted, c.st.Cause = why, cause
	c.note(NoteHalt, cause, why)
	c.setPhase(PhaseStopping)
	for i, s := range c.sessions {
		if s.Started() && !s.Ended() {
			c.step(i, session.Withhold{Reason: why})
		}
	}
}

// abort ends the campaign because somebody wants so.
func (c *Campaign) abort(a Abort) {
	why := "aborted: " + a.Reason
	if a.By != "" {
		why = "aborted by " + a.By + ": " + a.Reason
	}
	c.st.Halted, c.st.Cause = why, diag.CauseOK
	c.note(NoteHalt, 0, why)
	c.setPhase(PhaseStopping)
	for i, s := range c.sessions {
		if s.Started() && !s.Ended() {
			c.step(i, session.Abort{Reason: why})
		}
	}
}
