package campaign

import (
	"fmt"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/session"
)

// Cohort is the devices that may share a fault: one hardware, one version before.
type Cohort struct {
	Hardware uint16 `json:"hardware"` // id; 0: not known
	From     uint32 `json:"from"`     // version; 0: not known
}

// String returns the cohort for people.
func (c Cohort) String() string {
	from := "an unknown version"
	if v := c.From; v != 0 { // as the manifest of a bundle packs it
		from = fmt.Sprintf("version %d.%d.%d", v>>24, v>>16&0xff, v&0xffff)
	}
	return fmt.Sprintf("hardware id %d from %s", c.Hardware, from)
}

// outcome is what has become of a device, as far as thresholds are concerned.
type outcome uint8

const (
	pending outcome = iota
	ready           // a valid image waits, or the device was told to reboot
	proving
	updated
	unproven
	unreached // not heard at all
	early     // failed before the block was complete: no harm was done
	broken    // failed to verify or to patch
	trial     // failed with the new version
	silent    // not heard again
	withheld
	absent
	outcomes
)

// tally counts devices by outcome.
type tally [outcomes]int

func (t *tally) add(o tally) {
	for i, n := range o {
		t[i] += n
	}
}

// outcomeOf classifies a device.
func outcomeOf(s session.Stage, step diag.Step, cause diag.Cause) outcome {
	switch s {
	case session.StageReady, session.StageRebooting:
		return ready
	case session.StageProving:
		return proving
	case session.StageUpdated:
		return updated
	case session.StageUnproven:
		return unproven
	case session.StageWithheld:
		return withheld
	case session.StageAbsent:
		return absent
	case session.StageFailed:
	default:
		return pending
	}
	switch {
	case cause == diag.CauseSilentAfterBoot, cause == diag.CauseNoUplink && step >= diag.StepVerify:
		return silent
	case cause == diag.CauseNoUplink && step <= diag.StepSetup:
		return unreached
	case step <= diag.StepReceive:
		return early
	case step >= diag.StepTrial:
		return trial
	}
	return broken
}

// count makes the tallies anew.
func (c *Campaign) count() {
	c.tallies = make([][]tally, len(c.spec.Waves))
	for w := range c.tallies {
		c.tallies[w] = make([]tally, len(c.cohorts))
	}
	for n, s := range c.sessions {
		for i, k := range c.cohort[n] {
			d := s.Device(i)
			c.tallies[c.wave[n]][k][outcomeOf(d.Stage, d.Step, d.Cause)]++
		}
	}
}

// moved takes a device from one stage to another.
func (c *Campaign) moved(n int, r session.Record) {
	i, ok := c.sessions[n].Lookup(r.Device)
	if !ok {
		return
	}
	t := &c.tallies[c.wave[n]][c.cohort[n][i]]
	// A stage that is left was not a failure.
	t[outcomeOf(r.Before, 0, 0)]--
	t[outcomeOf(r.Stage, r.Step, r.Cause)]++
}

// verdict is why a tally is bad; the zero value: it is not.
type verdict struct {
	cause diag.Cause
	text  string
}

// judge holds a tally against thresholds. end says that nothing more will come.
func (t tally) judge(th Thresholds, end bool) verdict {
	tried := t[ready] + t[proving] + t[updated] + t[unproven] + t[broken] + t[trial] + t[silent]
	booted := t[proving] + t[updated] + t[trial] + t[silent]
	if least := min(t.size(), th.MinSamples); !end {
		tried, booted = max(tried, least), max(booted, least)
	}
	if n := t[silent]; exceeds(n, booted, th.MaxSilence) {
		return verdict{diag.CauseSilentAfterBoot, fmt.Sprintf("%d of %d devices fell silent, at most %.4g %% may", n, booted, 100*th.MaxSilence)}
	}
	if n := t[broken] + t[trial] + t[silent]; exceeds(n, tried, th.MaxFailure) {
		return verdict{diag.CauseHealthRegressed, fmt.Sprintf("%d of %d devices failed, at most %.4g %% may", n, tried, 100*th.MaxFailure)}
	}
	if !end || th.MinSuccess < 0 {
		return verdict{}
	}
	good := t[updated] + t[unproven]
	reached := good + t[early] + t[broken] + t[trial] + t[silent]
	switch {
	case reached == 0 && t[unreached] > 0:
		return verdict{diag.CauseNoUplink, fmt.Sprintf("none of %d devices was heard", t[unreached])}
	case reached > 0 && float64(good) < th.MinSuccess*float64(reached):
		return verdict{diag.CauseHealthRegressed, fmt.Sprintf("%d of %d devices were updated, want %.4g %%", good, reached, 100*th.MinSuccess)}
	}
	return verdict{}
}

func exceeds(n, of int, share float64) bool { return n > 0 && float64(n) > share*float64(of) }

// judge stops cohorts that are bad, and the campaign if a wave is.
func (c *Campaign) judge(end bool) {
	w, th := c.st.Wave, c.thresholds(c.st.Wave)
	if c.spec.Waves[w].Rescue {
		// Stragglers have bad links; what matters is whether the version harms them.
		th.MinSuccess = -1
	}
	var rest tally
	stopped := 0
	var last verdict
	for k := range c.cohorts {
		t := c.tallies[w][k]
		if c.halted(k) {
			continue
		}
		if v := t.judge(th, end); v.cause != diag.CauseOK && v.cause != diag.CauseNoUplink && len(c.cohorts) > 1 {
			c.haltCohort(k, v)
			stopped, last = stopped+1, v
			continue
		}
		rest.add(t)
	}
	v := rest.judge(th, end)
	if v.cause == diag.CauseOK && stopped > 0 && rest.size() == 0 {
		v = last // no other cohort of this wave is left to show that the version is sound
	}
	if v.cause != diag.CauseOK {
		c.halt(v.cause, fmt.Sprintf("wave %s: %s", c.spec.Waves[w].Name, v.text))
	}
}

// size is how many devices take part.
func (t tally) size() int {
	n := 0
	for o, m := range t {
		if outcome(o) != withheld && outcome(o) != absent && outcome(o) != unreached {
			n += m
		}
	}
	return n
}

// haltCohort takes the devices of a cohort out of the campaign.
func (c *Campaign) haltCohort(k int, v verdict) {
	why := fmt.Sprintf("%s: %s", c.cohorts[k], v.text)
	c.st.Stopped = append(c.st.Stopped, Stop{Cohort: c.cohorts[k], Cause: v.cause, Why: why, At: c.now})
	c.changed = true
	c.note(NoteCohortHalt, v.cause, why)
	for n, s := range c.sessions {
		var out []place
		for i, kk := range c.cohort[n] {
			if kk == k {
				out = append(out, place{n, i})
			}
		}
		if len(out) == 0 || s.Ended() || c.spec.Waves[c.wave[n]].Rescue && !s.Started() {
			continue
		}
		c.step(n, session.Withhold{Devices: c.euis(out), Reason: why})
	}
}
