package session

import (
	"fmt"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/mcsetup"
)

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
	case mcsetup.McClassBSessionAns:
		c.windowAnswer(i, at, mcsetup.McClassCSessionAns(ans))
	case mcsetup.McClassCSessionAns:
		c.windowAnswer(i, at, ans)
	case mcsetup.McGroupDeleteAns:
		if ans.McGroupID == c.spec.McGroupID {
			d.answered(CmdDropGroup)
			c.dropped(i, 2)
		}
	}
}

// windowAnswer takes the answer to the announcement of a window.
func (c *Session) windowAnswer(i int, at time.Time, ans mcsetup.McClassCSessionAns) {
	d := &c.st.Devices[i]
	if ans.McGroupID != c.spec.McGroupID || c.st.Phase != PhaseAnnounce || !c.joins(d) ||
		at.Before(c.st.Window.Announced) || at.Before(d.ClockAt) {
		return // an answer to something else
	}
	d.answered(CmdWindow)
	if ans.McGroupUndefined { // whatever else is said: LoRaMac-node sets all bits when the group is unknown
		d.Group, d.Window = false, 0
		if d.Stage == StageArmed {
			c.setStage(i, StagePrepared)
		}
		return
	}
	switch off := c.st.Window.Start.Sub(at) - time.Duration(ans.TimeToStart)*time.Second; {
	case ans.DRError || ans.FreqError || ans.OtherErrors != 0:
		c.fail(i, diag.StepSetup, diag.CauseWindowRefused, "the device refuses data rate or frequency of the window")
	case ans.StartMissed:
		d.ClockWrong, d.StartMissed = true, true
	case ans.TimeToStart == mcsetup.TimeToStartUnknown || off.Abs() >= c.spec.Plan.Guard:
		d.ClockWrong = true
	default:
		d.Window = c.st.Window.Number
		d.StartMissed = false
		if d.Stage == StagePrepared && d.Group && d.Frag {
			c.setStage(i, StageArmed)
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
		d.Heard = true
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
		d.Frag, d.FragAt, d.Unsure = true, at, false
		c.setUp(i)
		if d.Stage == StagePrepared && c.st.Phase == PhaseAnnounce && d.Window == c.st.Window.Number {
			c.setStage(i, StageArmed)
		}
	}
}

// status takes an answer to a status request, multicast or unicast.
func (c *Session) status(i int, at time.Time, ans datablock.FragSessionStatusAns) {
	d := &c.st.Devices[i]
	if ans.SessionDoesNotExist {
		if d.Frag && d.Stage >= StagePrepared && d.Stage <= StageComplete && at.After(d.FragAt) {
			d.answered(CmdStatus)
			c.gone(i)
		}
		return
	}
	if d.Unsure && d.Stage < StageReceiving {
		d.answered(CmdStatus)
	}
	d.Unsure = false
	if d.Stage < StageReceiving || d.Stage > StageComplete {
		return
	}
	if ans.NbFragReceived > 0 || c.windowOpen() && !at.Before(c.st.Window.Start) &&
		(d.Pending.Kind != CmdStatus || c.st.Air.Step == AirCanaryListen) {
		d.Heard = true // in a window nobody is asked but over the group
	}
	d.answered(CmdStatus)
	if c.st.Burst.IsZero() || at.Before(c.st.Burst) {
		return // the canary, or out of date
	}
	sent := c.st.Frames - d.ArmedFrom
	switch {
	case ans.MemoryError:
		d.Missing = int(ans.MissingFrag)
		c.suspect(i, diag.StepReceive, diag.CauseLossExceeded, "lost more fragments than its memory can repair")
	case ans.MICError:
		c.suspect(i, diag.StepVerify, diag.CauseSessionMICBad, "")
	case c.spec.Raw != nil && ans.MissingFrag == 0 && int(ans.NbFragReceived) >= c.spec.Plan.M && int(ans.NbFragReceived) < c.spec.Plan.M+rawExtra && !d.Presumed:
		// Some stacks subtract what they have heard, useful or not. Enough more makes it true.
		d.Presumed = true
		ans.MissingFrag = uint8(c.spec.Plan.M + rawExtra - int(ans.NbFragReceived))
		c.misses(i, ans)
	case ans.MissingFrag == 0:
		d.Received = int(ans.NbFragReceived)
		c.complete(i)
	case c.spec.Raw == nil && ans.MissingFrag == 1 && int(ans.NbFragReceived) > c.spec.Plan.M+8 && !d.Presumed:
		d.Presumed = true // some stacks go on saying 1 for ever; the image will tell
		c.complete(i)
	case ans.NbFragReceived == 0 && c.left(d):
		c.empty(i)
	case ans.NbFragReceived == 0 && sent >= 10:
		c.deaf(i, sent)
	default:
		c.misses(i, ans)
	}
}

// gone notes that a device has lost its fragmentation session, which must be set up again before the next window.
func (c *Session) gone(i int) {
	d := &c.st.Devices[i]
	if d.Armed > 0 {
		d.SessionCnt++ // data has flowed, so the old counter is used up
	}
	d.Frag, d.Unsure = false, false
	c.empty(i)
}

// empty notes that a device holds no fragment.
func (c *Session) empty(i int) {
	d := &c.st.Devices[i]
	d.Missing, d.Received, d.Armed, d.Presumed = -1, 0, 0, false
	if c.st.Phase != PhaseAnnounce || !c.offers(d) {
		d.Window = 0
	}
	c.setStage(i, StagePrepared)
}

// deaf deals with a device that has heard no fragment: it has other keys of the group, or was cut off all the while. It
// gets the group once more, and waits for another data pass if it is worth one.
func (c *Session) deaf(i, sent int) {
	d := &c.st.Devices[i]
	again := d.Deaf > 0
	d.Deaf += sent
	if again && !d.Heard {
		c.unheard(i)
		return
	}
	d.Group = d.Heard
	c.empty(i)
}

// unheard gives up a device that has heard no fragment.
func (c *Session) unheard(i int) {
	d := &c.st.Devices[i]
	note := fmt.Sprintf("heard none of %d fragments", d.Deaf)
	if d.Heard {
		c.fail(i, diag.StepReceive, diag.CauseLossExceeded, note+", but a question over the same group")
		return
	}
	c.fail(i, diag.StepReceive, diag.CauseKeyMismatch, note+": it has other keys of the group, or was cut off all the while")
}

// misses takes the number of fragments that a device says it misses.
func (c *Session) misses(i int, ans datablock.FragSessionStatusAns) {
	d := &c.st.Devices[i]
	switch {
	case d.Missing != int(ans.MissingFrag):
		d.Stuck = c.st.Frames
	case c.spec.Raw != nil && c.st.Frames-d.Stuck >= d.Missing+rawExtra:
		// Some stacks count lost data only, and go on after they have repaired it.
		d.Presumed = true
		c.complete(i)
		return
	}
	d.Missing, d.Received, d.Answered = int(ans.MissingFrag), int(ans.NbFragReceived), c.st.Frames
	if d.Stage == StageComplete {
		d.NoImage = 0
	}
	c.setStage(i, StageIncomplete)
}

// left reports whether a device joined again since the last announcement, and so lost the window.
func (c *Session) left(d *Device) bool { return d.Joined.After(c.st.Window.Announced) }

// complete notes that a device holds the block.
func (c *Session) complete(i int) {
	d := &c.st.Devices[i]
	d.Missing = 0
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
	off := clocksync.TimeCorrection(int64(airtime.GPSSeconds(at)), req.DeviceTime)
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
