package session

import (
	"container/heap"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
)

func (c *Session) serveAll() {
	for i := range c.st.Devices {
		c.serve(i)
	}
}

// serve looks after one device: gives it up, sends or repeats its next command, and says when to look again.
func (c *Session) serve(i int) {
	d := &c.st.Devices[i]
	before := *d
	defer func() {
		if *d != before {
			c.mark(i)
		}
	}()
	d.Wake = time.Time{}
	for again := true; again; { // giving up a command may lead to the next
		if c.st.Paused || c.windowOpen() {
			return
		}
		switch c.st.Phase {
		case PhaseIdle, PhaseEnded:
			return
		case PhaseCleanup:
			if !d.dirty() {
				return
			}
		default:
			if d.Stage.final() {
				return
			}
		}
		d.Wake, again = c.serveOnce(i)
	}
	if d.Wake.IsZero() {
		return
	}
	heap.Push(&c.due, dueEntry{d.Wake, i})
	if len(c.due) > 4*len(c.st.Devices)+64 {
		c.rebuildDue() // most entries are stale
	}
}

// windowOpen reports whether devices listen to the group. Nothing is sent to single ones then: each such
// downlink would cost others a fragment.
func (c *Session) windowOpen() bool {
	return c.st.Phase == PhaseWindow || c.st.Phase == PhaseAnnounce && !c.now.Before(c.st.Window.Start)
}

func (c *Session) serveOnce(i int) (wake time.Time, again bool) {
	d := &c.st.Devices[i]
	if c.st.Phase != PhaseCleanup {
		if wake, again = c.judge(i); again {
			return wake, true
		}
	}
	if until := c.kept(&d.Pending); c.now.Before(until) {
		return earliest(wake, until), false
	}
	kind, at := c.want(d)
	if kind == CmdNone {
		d.Pending = Pending{}
		return earliest(wake, at), false
	}
	p := &d.Pending
	if p.Kind != kind {
		*p = Pending{Kind: kind}
	}
	if p.Op != 0 {
		if p.Delivered.IsZero() {
			if c.now.Before(p.Expires) {
				return earliest(wake, p.Expires), false
			}
		} else if kind == CmdFragment { // has no answer
			d.Tail++
			*p = Pending{}
			return wake, true
		} else {
			if late := p.Delivered.Add(c.answerTime(kind)); c.now.Before(late) {
				return earliest(wake, late), false
			}
			p.Attempts++
		}
		p.Op = 0
	}
	if p.Attempts >= c.spec.Limits.Attempts {
		c.giveUp(i, kind)
		return wake, true
	}
	if open, _ := c.spec.Calendar.Next(latest(c.now, d.NotBefore)); c.now.Before(open) {
		return earliest(wake, open), false
	}
	op, expires := c.send(i, kind)
	*p = Pending{Kind: kind, Op: op, Queued: c.now, Expires: expires, Attempts: p.Attempts}
	return earliest(wake, expires), false
}

// kept returns until when a command that was queued before a join may still be delivered or answered; zero: there is
// none.
func (c *Session) kept(p *Pending) time.Time {
	switch {
	case !p.Kept || p.Op == 0:
		return time.Time{}
	case p.Delivered.IsZero():
		return p.Expires
	}
	return p.Delivered.Add(c.answerTime(p.Kind))
}

// judge gives up a device that is silent or stays too long in its stage, and returns when to judge again.
func (c *Session) judge(i int) (wake time.Time, given bool) {
	d := &c.st.Devices[i]
	wake = latest(d.LastUp, c.st.Quiet, d.RebootAt).Add(c.spec.Timing.Silence)
	if !c.now.Before(wake) {
		c.lost(i)
		return wake, true
	}
	for _, limit := range []struct {
		at   time.Time
		give func()
	}{
		{d.DoubtUntil, func() { c.fail(i, d.DoubtStep, d.DoubtCause, d.DoubtNote) }},
		{c.patience(d), func() { c.impatient(i) }},
	} {
		if limit.at.IsZero() {
			continue
		}
		if !c.now.Before(limit.at) {
			limit.give()
			return wake, true
		}
		wake = earliest(wake, limit.at)
	}
	return wake, false
}

// answerTime is how long after its delivery an answer may come.
func (c *Session) answerTime(kind Command) time.Duration {
	if kind == CmdStatus {
		return datablock.AnswerWindow(c.spec.Plan.BlockAckDelay) + c.spec.Timing.Answer
	}
	return c.spec.Timing.Answer
}

// want says which command a device needs now; with CmdNone, at is when that may change by itself.
func (c *Session) want(d *Device) (cmd Command, at time.Time) {
	if c.st.Phase == PhaseCleanup {
		switch {
		case d.Frag && d.Dropped&1 == 0:
			return CmdDropFrag, at
		case d.Group && d.Dropped&2 == 0:
			return CmdDropGroup, at
		}
		return CmdNone, at
	}
	if !d.DoubtUntil.IsZero() {
		return CmdReport, at
	}
	switch d.Stage {
	case StageDiscover:
		switch {
		case d.Packages == 0:
			return CmdPackages, at
		case d.VersionAt.IsZero() && !c.blind():
			return CmdVersion, at
		}
		return CmdResync, at
	case StageGroup:
		return CmdGroup, at
	case StageSession:
		return CmdSession, at
	case StagePrepared, StageIncomplete:
		switch {
		case c.st.Phase != PhaseAnnounce:
			return CmdNone, at
		case !d.Group:
			return CmdGroup, at
		case !d.Frag:
			return CmdSession, at
		case d.ClockWrong:
			return CmdResync, at
		case d.Window != c.st.Window.Number && c.offers(d):
			return CmdWindow, at
		case d.Unsure:
			return CmdStatus, at
		}
	case StageArmed:
		if c.st.Phase == PhaseAnnounce && d.Unsure {
			return CmdStatus, at
		}
	case StageReceiving:
		return CmdStatus, at
	case StageRepair:
		if d.Tail < d.TailEnd {
			return CmdFragment, at
		}
		return CmdStatus, at
	case StageComplete:
		if c.blind() {
			return CmdNone, at
		}
		if d.NoImage%2 == 1 { // perhaps it is not complete after all
			return CmdStatus, at
		}
		if d.NoImage%4 == 2 && !d.ReportAt.IsZero() { // perhaps it puts the update off
			return CmdReport, at
		}
		return CmdImage, at
	case StageReady:
		if c.low(d) {
			return CmdNone, at
		}
		return CmdReboot, at
	case StageRebooting:
		if up := d.RebootAt.Add(c.spec.Timing.Settle); c.now.Before(up) {
			return CmdNone, up
		}
		if d.OldSeen {
			return CmdImage, at
		}
		return CmdVersion, at
	case StageProving:
		switch {
		case !c.confirmed(d):
			return CmdReport, at
		case d.Dropped&1 == 0:
			return CmdDropFrag, at
		case d.Dropped&2 == 0:
			return CmdDropGroup, at
		}
	}
	return CmdNone, at
}

// confirmed reports whether a device that runs the new version will keep it, as far as it can tell us. Once its
// session is deleted, it reports StepNone.
func (c *Session) confirmed(d *Device) bool {
	return d.ReportAt.IsZero() || d.Report.Version == c.spec.Target &&
		(d.Report.Step == diag.StepRunning || d.Report.Step == diag.StepNone)
}

// patience returns until when a device may stay in its stage; zero: without limit.
func (c *Session) patience(d *Device) time.Time {
	if !d.DoubtUntil.IsZero() {
		return time.Time{}
	}
	switch d.Stage {
	case StageComplete, StageReady:
		if !d.Deferred.IsZero() {
			return latest(d.Deferred, c.st.Quiet).Add(c.spec.Timing.Defer)
		}
		return c.spec.Calendar.Add(latest(d.Complete, c.st.Quiet), c.spec.Timing.Ready)
	case StageProving:
		t := &c.spec.Timing
		return c.spec.Calendar.Add(latest(d.NewAt, c.st.Quiet), max(t.Ready, time.Duration(c.spec.Limits.Proof+6)*t.UplinkInterval))
	}
	return time.Time{}
}

// impatient gives up a device that stays too long in its stage.
func (c *Session) impatient(i int) {
	d := &c.st.Devices[i]
	switch {
	case c.blind():
		c.setStage(i, StageUnproven)
		c.dropOnce(i)
	case c.low(d):
		c.fail(i, diag.StepReady, diag.CauseDeferredBattery, fmt.Sprintf("battery at %d %%, the campaign asks for %d %%", d.Battery, c.spec.MinBattery))
	case postponed(d.Report.Cause):
		c.fail(i, d.Report.Step, d.Report.Cause, "")
	case d.Stage == StageReady:
		c.suspect(i, diag.StepReady, diag.CauseNotRebooted, "")
	case d.Stage == StageComplete:
		c.suspect(i, diag.StepVerify, diag.CauseImageInvalid, "the block is complete, but no valid image came of it")
	case d.Further >= c.spec.Limits.Proof && c.confirmed(d):
		c.setStage(i, StageUpdated)
	case d.Resets > 0:
		c.fail(i, diag.StepTrial, diag.CauseHealthRegressed, fmt.Sprintf("%d resets with the new version", d.Resets))
	case d.Further > 0:
		c.fail(i, diag.StepTrial, diag.CauseNotConfirmedYet, "runs the new version, but has not confirmed it")
	default:
		c.fail(i, diag.StepTrial, diag.CauseSilentAfterBoot, "reported the new version once")
	}
}

// lost ends the session for a device that has been silent for too long.
func (c *Session) lost(i int) {
	d := &c.st.Devices[i]
	if p := &d.Pending; d.Stage == StageReady && p.Kind == CmdReboot && (p.Attempts > 0 || !p.Delivered.IsZero()) {
		c.rebooting(i, c.now) // it was told to, and nothing was heard since
	}
	switch d.Stage {
	case StageRebooting, StageProving:
		c.fail(i, diag.StepTrial, diag.CauseSilentAfterBoot, "")
	case StageDiscover, StageGroup, StageSession, StagePrepared, StageArmed:
		c.fail(i, diag.StepSetup, diag.CauseNoUplink, "")
	case StageReceiving, StageIncomplete, StageRepair:
		c.fail(i, diag.StepReceive, diag.CauseNoUplink, "")
	default:
		c.fail(i, diag.StepVerify, diag.CauseNoUplink, "")
	}
}

// giveUp decides what it means that a device, though heard, does not answer a command.
func (c *Session) giveUp(i int, kind Command) {
	d := &c.st.Devices[i]
	d.Pending = Pending{}
	if c.st.Phase == PhaseCleanup {
		c.dropped(i, 3) // no more is worth trying
		return
	}
	if !d.DoubtUntil.IsZero() {
		c.fail(i, d.DoubtStep, d.DoubtCause, d.DoubtNote)
		return
	}
	note := "no answer to " + kind.String()
	if d.Note != "" {
		note += "; " + d.Note
	}
	switch {
	case kind == CmdResync && d.Stage == StageDiscover:
		d.ClockAt = c.now // the announcement will show whether the clock is right
		c.setUp(i)
	case d.Stage == StageDiscover && c.blind():
		d.Packages = c.ver // it is what the operator says
		c.setUp(i)
	case d.Stage == StageDiscover:
		c.fail(i, diag.StepSetup, diag.CausePackagesMissing, note)
	case kind == CmdResync:
		c.fail(i, diag.StepSetup, diag.CauseClockOff, note)
	case kind == CmdGroup || kind == CmdSession || kind == CmdWindow:
		c.fail(i, diag.StepSetup, diag.CauseSetupTimeout, note)
	case kind == CmdFragment || kind == CmdStatus && d.Stage == StageRepair:
		c.fail(i, diag.StepReceive, diag.CauseLossExceeded, note)
	case kind == CmdStatus && (d.Unsure || d.Stage == StageReceiving && c.left(d)):
		c.gone(i) // a device that joins again and has no session has nothing to answer with in version 1
	case kind == CmdStatus && d.Stage == StageReceiving:
		c.complete(i) // presumed; the image will prove it
	case kind == CmdStatus:
		d.NoImage++
	case kind == CmdReboot:
		c.rebooting(i, c.now) // it may have rebooted at once
	case kind == CmdDropFrag:
		c.dropped(i, 1)
		c.proven(i)
	case kind == CmdDropGroup:
		c.dropped(i, 2)
		c.proven(i)
	case d.Stage == StageProving:
		d.ReportAt = time.Time{} // go by what TS006 says
		c.proven(i)
	default:
		c.suspect(i, diag.StepVerify, diag.CauseUnproven, note)
	}
}
