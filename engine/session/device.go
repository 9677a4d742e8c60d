package session

import (
	"container/heap"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
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
		case d.Window != c.st.Window.Number:
			return CmdWindow, at
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

// uplink takes what a device says.
func (c *Session) uplink(i int, ev network.Event) {
	d := &c.st.Devices[i]
	if d.Stage == StageProving && ev.At.After(d.NewAt.Add(time.Second)) {
		d.Further++
	}
	if ev.At.After(d.LastUp) {
		d.LastUp = ev.At
	}
	if p := &d.Pending; p.Op != 0 && p.Delivered.IsZero() && ev.At.After(p.Queued) {
		// Each uplink takes one message with it. Where the network reports what it sent, that is better
		// evidence, but the report may be lost.
		p.Uplinks++
		if !c.spec.Capabilities.ReportsSent || p.Uplinks > 3 {
			p.Delivered = ev.At
		}
	}
	if ev.At.Before(d.Joined) {
		return
	}
	if r := c.spec.Raw; r != nil && r.matches(ev.FPort, ev.Payload) && (d.FragAt.IsZero() || ev.At.After(d.FragAt)) {
		c.proveRaw(i)
	}
	var err error
	switch ev.FPort {
	case applayer.FPortMcSetup:
		var cmds []mcsetup.Command
		cmds, err = mcsetup.Parse(c.ver, applayer.Uplink, ev.Payload)
		for _, cmd := range cmds {
			c.mcSetup(i, ev.At, cmd)
		}
	case applayer.FPortDataBlock:
		var cmds []datablock.Command
		cmds, err = datablock.Parse(c.ver, applayer.Uplink, ev.Payload)
		for _, cmd := range cmds {
			c.dataBlock(i, ev.At, cmd)
		}
	case applayer.FPortClockSync:
		var cmds []clocksync.Command
		cmds, err = clocksync.Parse(c.ver, applayer.Uplink, ev.Payload)
		for _, cmd := range cmds {
			if req, ok := cmd.(clocksync.AppTimeReq); ok {
				c.appTime(i, ev.At, req)
			}
		}
	case applayer.FPortFwMgmt:
		var cmds []fwmgmt.Command
		cmds, err = fwmgmt.Parse(applayer.V1, applayer.Uplink, ev.Payload)
		for _, cmd := range cmds {
			c.fwMgmt(i, ev.At, cmd)
		}
	case diag.FPort:
		for b := ev.Payload; len(b) > 0 && err == nil; {
			var r diag.Report
			if r, b, err = diag.ParseReport(b); err == nil {
				c.report(i, ev.At, r)
			}
		}
	}
	if err != nil {
		c.emit(Record{What: "unreadable", Device: d.EUI, Stage: d.Stage, Text: err.Error()})
	}
	if d.Stage == StageProving {
		c.proven(i)
	}
}

// answered forgets the command under way if it is of that kind.
func (d *Device) answered(kind Command) {
	if d.Pending.Kind == kind {
		d.Pending = Pending{}
	}
}

// setUp moves a device to the first stage of the set-up that is not done.
func (c *Session) setUp(i int) {
	d := &c.st.Devices[i]
	if d.Stage >= StagePrepared {
		return
	}
	switch {
	case d.Packages == 0 || d.VersionAt.IsZero() && !c.blind() || d.ClockAt.IsZero():
		c.setStage(i, StageDiscover)
	case !d.Group:
		c.setStage(i, StageGroup)
	case !d.Frag:
		c.setStage(i, StageSession)
	default:
		c.setStage(i, StagePrepared)
	}
}

// joined takes a join: the device has lost its groups and windows, and perhaps its session.
func (c *Session) joined(i int, at time.Time) {
	d := &c.st.Devices[i]
	if !at.After(d.Joined) {
		return
	}
	d.Joined = at
	if at.After(d.LastUp) {
		d.LastUp = at
	}
	if d.Stage == StageProving && at.After(d.NewAt) {
		d.Further = 0
		if d.Resets++; d.Resets > c.spec.Limits.Resets {
			c.fail(i, diag.StepTrial, diag.CauseHealthRegressed, fmt.Sprintf("%d resets with the new version", d.Resets))
		}
	}
	rebooted := d.Stage == StageReady && d.Pending.Kind == CmdReboot && !d.Pending.Delivered.IsZero()
	d.Pending = Pending{}
	if rebooted {
		c.rebooting(i, at) // its answer was lost
	}
	if d.Stage > StageIncomplete {
		return
	}
	d.Group, d.Window = false, 0
	switch d.Stage {
	case StageReceiving, StageIncomplete:
		// A status answer will tell whether the fragments have survived.
		c.setStage(i, StageReceiving)
	case StageArmed:
		c.setStage(i, StagePrepared)
		fallthrough
	default:
		if d.Armed > 0 {
			c.setStage(i, StageReceiving)
			return
		}
		// No data has flowed, so the same set-up may be repeated.
		d.Frag = false
		if c.st.Phase == PhasePrepare {
			c.setStage(i, StageDiscover)
			c.setUp(i)
		}
	}
}

func (c *Session) mcSetup(i int, at time.Time, cmd mcsetup.Command) {
	d := &c.st.Devices[i]
	switch ans := cmd.(type) {
	case mcsetup.McGroupSetupAns:
		if ans.McGroupID != c.spec.McGroupID {
			return
		}
		d.answered(CmdGroup)
		if ans.IDError {
			c.suspect(i, diag.StepSetup, diag.CauseIndexUnsupported, "the device has no room for the multicast group")
			return
		}
		d.Group = true
		c.setUp(i)
	case mcsetup.McClassCSessionAns:
		if ans.McGroupID != c.spec.McGroupID || c.st.Phase != PhaseAnnounce || !c.joins(d) ||
			at.Before(c.st.Window.Announced) || at.Before(d.ClockAt) {
			return // an answer to something else
		}
		d.answered(CmdWindow)
		switch off := c.st.Window.Start.Sub(at) - time.Duration(ans.TimeToStart)*time.Second; {
		case ans.DRError || ans.FreqError || ans.OtherErrors != 0:
			if ans.McGroupUndefined { // LoRaMac-node sets all bits when the group is unknown
				d.Group = false
				return
			}
			c.fail(i, diag.StepSetup, diag.CauseWindowRefused, "the device refuses data rate or frequency of the window")
		case ans.McGroupUndefined:
			d.Group = false
		case ans.StartMissed:
			d.ClockWrong, d.StartMissed = true, true
		case ans.TimeToStart == mcsetup.TimeToStartUnknown || off.Abs() >= c.spec.Plan.Guard:
			d.ClockWrong = true
		default:
			d.Window = c.st.Window.Number
			d.StartMissed = false
			if d.Stage == StagePrepared {
				c.setStage(i, StageArmed)
			}
		}
	case mcsetup.McGroupDeleteAns:
		if ans.McGroupID == c.spec.McGroupID {
			d.answered(CmdDropGroup)
			c.dropped(i, 2)
		}
	}
}

func (c *Session) dataBlock(i int, at time.Time, cmd datablock.Command) {
	d := &c.st.Devices[i]
	switch ans := cmd.(type) {
	case datablock.PackageVersionAns:
		if ans.PackageIdentifier != uint8(applayer.DataBlock) || d.Packages != 0 {
			return
		}
		d.answered(CmdPackages)
		d.Packages = applayer.Version(ans.PackageVersion)
		if d.Packages != c.ver {
			// Parity of the other version would corrupt the block without a trace.
			c.fail(i, diag.StepSetup, diag.CauseOtherVersion,
				"the device speaks TS004 "+d.Packages.String()+", the session "+c.ver.String()+": it belongs in a session of its own")
			return
		}
		c.setUp(i)
	case datablock.FragSessionSetupAns:
		if ans.FragIndex == c.spec.FragIndex {
			c.sessionSet(i, at, ans)
		}
	case datablock.FragSessionStatusAns:
		if ans.FragIndex == c.spec.FragIndex || ans.SessionDoesNotExist {
			c.status(i, at, ans)
		}
	case datablock.FragDataBlockReceivedReq:
		if ans.FragIndex != c.spec.FragIndex || d.Stage < StageReceiving {
			return
		}
		if !c.windowOpen() && !c.st.Paused { // the device repeats the request
			c.send(i, CmdReceived)
		}
		if ans.MICError {
			c.suspect(i, diag.StepVerify, diag.CauseSessionMICBad, "")
		} else {
			c.complete(i)
		}
	case datablock.FragSessionDeleteAns:
		if ans.FragIndex == c.spec.FragIndex && (d.Stage == StageProving || c.st.Phase == PhaseCleanup) {
			d.answered(CmdDropFrag)
			c.dropped(i, 1)
		}
	}
}

func (c *Session) sessionSet(i int, at time.Time, ans datablock.FragSessionSetupAns) {
	d := &c.st.Devices[i]
	if d.Frag || d.Pending.Kind != CmdSession || !at.After(d.Pending.Queued) {
		return // a repeated answer, or one to an earlier request
	}
	d.answered(CmdSession)
	switch {
	case ans.SessionCntReplay:
		// Nothing tells the last counter of the device; the steps grow to find a free one soon.
		if d.Replays == 5 {
			c.fail(i, diag.StepSetup, diag.CauseSessionReplay, "")
			return
		}
		d.SessionCnt += 1 << (3 * d.Replays)
		d.Replays++
	case ans.NotEnoughMemory:
		c.suspect(i, diag.StepSetup, diag.CauseNoRAM, "the device has not enough memory for the session")
	case ans.FragAlgoUnsupported:
		c.suspect(i, diag.StepSetup, diag.CauseAlgoUnsupported, "")
	case ans.FragIndexUnsupported:
		c.suspect(i, diag.StepSetup, diag.CauseIndexUnsupported, "")
	case ans.WrongDescriptor:
		c.suspect(i, diag.StepSetup, diag.CauseDescriptorWrong, "")
	default:
		d.Frag, d.FragAt = true, at
		c.setUp(i)
	}
}

// status takes an answer to a status request, multicast or unicast.
func (c *Session) status(i int, at time.Time, ans datablock.FragSessionStatusAns) {
	d := &c.st.Devices[i]
	if d.Stage < StageReceiving || d.Stage > StageComplete {
		return
	}
	d.Heard = true
	d.answered(CmdStatus)
	if c.st.Burst.IsZero() || at.Before(c.st.Burst) {
		return // the canary, or out of date
	}
	sent := c.st.Frames - d.ArmedFrom
	switch {
	case ans.SessionDoesNotExist:
		// Data has flowed, so the old counter is used up.
		d.SessionCnt++
		d.Frag, d.Missing, d.Received, d.Armed = false, -1, 0, 0
		c.setStage(i, StageIncomplete)
	case ans.MemoryError:
		d.Missing = int(ans.MissingFrag)
		c.suspect(i, diag.StepReceive, diag.CauseLossExceeded, "lost more fragments than its memory can repair")
	case ans.MICError:
		c.suspect(i, diag.StepVerify, diag.CauseSessionMICBad, "")
	case ans.MissingFrag == 0:
		d.Received = int(ans.NbFragReceived)
		c.complete(i)
	case ans.MissingFrag == 1 && int(ans.NbFragReceived) > c.spec.Plan.M+8 && !d.Presumed:
		d.Presumed = true // some stacks go on saying 1 for ever; the image will tell
		c.complete(i)
	case ans.NbFragReceived == 0 && c.left(d):
		d.Missing, d.Armed = -1, 0
		c.setStage(i, StageIncomplete)
	case ans.NbFragReceived == 0 && sent >= 10:
		c.fail(i, diag.StepReceive, diag.CauseKeyMismatch, "")
	default:
		if c.spec.Raw != nil && d.Missing == int(ans.MissingFrag) && c.st.Frames-d.Stuck >= c.need(d)+8 {
			// Some stacks count lost data only, and go on after they have repaired it.
			d.Presumed = true
			c.complete(i)
			return
		}
		if d.Missing != int(ans.MissingFrag) {
			d.Stuck = c.st.Frames
		}
		d.Missing, d.Received = int(ans.MissingFrag), int(ans.NbFragReceived)
		if d.Stage == StageComplete {
			d.NoImage = 0
		}
		c.setStage(i, StageIncomplete)
	}
}

// left reports whether a device joined again since the last announcement, and so lost the window.
func (c *Session) left(d *Device) bool { return d.Joined.After(c.st.Window.Announced) }

// complete notes that a device holds the block.
func (c *Session) complete(i int) {
	d := &c.st.Devices[i]
	d.Heard, d.Missing = true, 0
	if d.Stage >= StageReceiving && d.Stage < StageComplete {
		d.Complete, d.NoImage = c.now, 0
		c.setStage(i, StageComplete)
		c.rawComplete(i)
	} else if d.Stage == StageComplete && d.NoImage%2 == 1 {
		d.NoImage++
	}
}

func (c *Session) fwMgmt(i int, at time.Time, cmd fwmgmt.Command) {
	d := &c.st.Devices[i]
	switch ans := cmd.(type) {
	case fwmgmt.DevVersionAns:
		d.answered(CmdVersion)
		c.version(i, at, ans.FWVersion)
	case fwmgmt.DevUpgradeImageAns:
		if d.Pending.Kind != CmdImage {
			return
		}
		d.answered(CmdImage)
		c.image(i, ans)
	case fwmgmt.DevRebootCountdownAns:
		if d.Stage != StageReady || d.Pending.Kind != CmdReboot {
			return
		}
		if ans.Countdown == 0 || ans.Countdown == fwmgmt.CancelCountdown {
			d.NotBefore = c.now.Add(time.Minute)
			return // it cannot now; the command is repeated until the patience ends
		}
		d.answered(CmdReboot)
		c.rebooting(i, at.Add(time.Duration(ans.Countdown)*time.Second))
	}
}

func (c *Session) rebooting(i int, at time.Time) {
	d := &c.st.Devices[i]
	d.RebootAt, d.OldSeen = at, false
	d.Reboots++
	c.setStage(i, StageRebooting)
}

// image takes what a device says of the image that waits.
func (c *Session) image(i int, ans fwmgmt.DevUpgradeImageAns) {
	d := &c.st.Devices[i]
	valid := ans.UpImageStatus == fwmgmt.ImageValid && ans.NextFirmwareVersion == c.spec.Target
	switch {
	case d.Stage == StageRebooting && valid && d.Reboots >= c.spec.Limits.Reboots:
		c.suspect(i, diag.StepReady, diag.CauseNotRebooted, "")
	case d.Stage == StageRebooting && valid:
		c.setStage(i, StageReady)
		c.deferral(i, c.now)
	case d.Stage == StageRebooting:
		c.suspect(i, diag.StepTrial, diag.CauseReverted, "")
	case d.Stage != StageComplete:
	case valid:
		c.setStage(i, StageReady)
		c.deferral(i, c.now)
	case ans.UpImageStatus == fwmgmt.ImageCorrupt:
		c.suspect(i, diag.StepVerify, diag.CauseSignatureBad, "TS006: corrupt image or wrong signature")
	case ans.UpImageStatus == fwmgmt.WrongHardware:
		c.suspect(i, diag.StepManifest, diag.CauseHardwareMismatch, "TS006: image for other hardware")
	default:
		// Still verifying or patching. Ask less and less often.
		d.NoImage++
		d.NotBefore = c.now.Add(min(time.Minute<<min(d.NoImage/2, 10), c.spec.Timing.UplinkInterval))
	}
}

// version takes what a device says it runs.
func (c *Session) version(i int, at time.Time, v uint32) {
	d := &c.st.Devices[i]
	if at.Before(d.VersionAt) {
		return
	}
	d.Version, d.VersionAt = v, at
	isNew := v == c.spec.Target
	switch {
	case d.Stage == StageDiscover && isNew:
		d.Note = "ran the new version already"
		c.setStage(i, StageUpdated)
	case d.Stage <= StagePrepared:
		c.setUp(i)
	case d.Stage == StageProving && !isNew:
		c.suspect(i, diag.StepTrial, diag.CauseReverted, "")
	case d.Stage == StageProving:
	case isNew:
		d.NewAt, d.Further = at, 0
		c.setStage(i, StageProving)
	case d.Stage == StageRebooting && !at.Before(d.RebootAt.Add(c.spec.Timing.Settle)):
		d.OldSeen = true
	}
}

// proven ends the session for a device once nothing is left to do or to prove.
func (c *Session) proven(i int) {
	d := &c.st.Devices[i]
	if d.Stage == StageProving && d.Further >= c.spec.Limits.Proof && d.Dropped == 3 && c.confirmed(d) && d.DoubtUntil.IsZero() {
		c.setStage(i, StageUpdated)
	}
}

// report takes a message of the diagnostic package.
func (c *Session) report(i int, at time.Time, r diag.Report) {
	d := &c.st.Devices[i]
	if d.Stage == StageComplete && d.Pending.Kind == CmdReport && d.NoImage%4 == 2 {
		d.NoImage += 2
	}
	d.answered(CmdReport)
	if at.Before(d.ReportAt) {
		return
	}
	d.Report, d.ReportAt = r, at
	c.emit(Record{What: "report", Device: d.EUI, Stage: d.Stage, Step: r.Step, Cause: r.Cause})
	c.version(i, at, r.Version)
	switch {
	case d.Stage.final():
	case r.Version != c.spec.Target && stopped(r.Cause) && (!d.DoubtUntil.IsZero() || c.reported(d)):
		c.fail(i, r.Step, r.Cause, "")
	case !d.DoubtUntil.IsZero():
		d.NotBefore = c.now.Add(time.Minute)
	case d.Stage >= StageReceiving && d.Stage < StageComplete:
		if r.Version != c.spec.Target && r.Step >= diag.StepVerify && r.Step <= diag.StepReady {
			c.complete(i)
		}
	case d.Stage == StageComplete && r.Step == diag.StepReady:
		d.NotBefore = time.Time{}
	case d.Stage == StageProving && !c.confirmed(d):
		d.NotBefore = c.now.Add(min(5*time.Minute, c.spec.Timing.UplinkInterval))
	}
	c.deferral(i, at)
	if postponed(r.Cause) {
		d.NotBefore = c.now.Add(c.spec.Timing.UplinkInterval)
	}
}

// appTime answers a device that asks for the time.
func (c *Session) appTime(i int, at time.Time, req clocksync.AppTimeReq) {
	d := &c.st.Devices[i]
	asked := uint64(req.TokenReq)<<32 | uint64(req.DeviceTime)
	if at.Before(d.ClockAt) || !d.ClockAt.IsZero() && asked == d.ClockAsked {
		return
	}
	d.ClockAt, d.ClockAsked = at, asked
	d.answered(CmdResync)
	if d.ClockWrong {
		d.ClockWrong = false // the next announcement shows whether it has helped
	}
	c.setUp(i)
	if c.spec.Capabilities.ServerAnswersClock || c.windowOpen() || c.st.Paused || !c.spec.Calendar.Open(c.now) {
		return
	}
	off := clocksync.TimeCorrection(plan.GPSSeconds(at), req.DeviceTime)
	if off >= -1 && off <= 1 && !req.AnsRequired {
		return
	}
	payload, err := clocksync.AppendCommand(nil, c.ver, clocksync.AppTimeAns{TimeCorrection: off, TokenAns: req.TokenReq})
	if err != nil {
		c.halt(err.Error())
		return
	}
	c.emit(Send{Op: c.op(), Command: CmdTime, Device: d.EUI, FPort: applayer.FPortClockSync, Payload: payload, Expires: c.expiry()})
	d.Waits = latest(d.Waits, c.expiry())
	if d.Window == c.st.Window.Number && c.st.Phase == PhaseAnnounce && d.Window > 0 && (off < -1 || off > 1) {
		// The window that it has confirmed was in terms of the wrong clock.
		d.Window = 0
		if d.Stage == StageArmed {
			c.setStage(i, StagePrepared)
		}
	}
}
