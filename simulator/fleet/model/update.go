package model

import (
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
)

// Delays of a device in milliseconds.
const (
	answerSpread  = 2_000  // of a report
	rebootTime    = 5_000  // the boot stub swaps the slots
	trialTime     = 30_000 // from the first join of the new image to its confirmation
	deferral      = 600_000
	batteryEnough = 20 // percent
)

// image is what waits in slot B, or runs on trial.
type image struct {
	status fwmgmt.UpImageStatus
	trial  bool
}

// session is a TS004 session.
type session struct {
	setup    datablock.FragSessionSetupReq
	decoder  *fragmentation.Decoder
	received int
	done     bool // complete and handed on, or refused
	micError bool
}

// dataBlock takes the messages of TS004.
func (d *Device) dataBlock(group uint8, data []byte) {
	commands, _ := datablock.Parse(d.cfg.Packages, applayer.Downlink, data)
	var reply []byte
	for _, c := range commands {
		var ans datablock.Command
		switch c := c.(type) {
		case datablock.DataFragment:
			d.fragment(group, c)
		case datablock.FragSessionStatusReq:
			d.status(c)
		default:
			if group == modem.Unicast {
				ans = d.blockCommand(c)
			}
		}
		if ans == nil {
			continue
		}
		if b, err := datablock.AppendCommand(reply, d.cfg.Packages, ans); err == nil {
			reply = b
		}
	}
	if len(reply) > 0 {
		d.up(applayer.FPortDataBlock, reply)
	}
}

func (d *Device) blockCommand(c datablock.Command) datablock.Command {
	switch c := c.(type) {
	case datablock.PackageVersionReq:
		return datablock.PackageVersionAns{PackageIdentifier: uint8(applayer.DataBlock), PackageVersion: uint8(d.cfg.Packages)}
	case datablock.FragSessionSetupReq:
		return d.setUp(c)
	case datablock.FragSessionDeleteReq:
		ans := datablock.FragSessionDeleteAns{FragIndex: c.FragIndex, SessionDoesNotExist: d.sessions[c.FragIndex] == nil}
		d.sessions[c.FragIndex] = nil
		return ans
	}
	return nil
}

func (d *Device) setUp(c datablock.FragSessionSetupReq) datablock.Command {
	ans := datablock.FragSessionSetupAns{FragIndex: c.FragIndex, FragAlgoUnsupported: c.FragAlgo != 0}
	if d.cfg.Packages == applayer.V2 && int(c.SessionCnt) <= d.lastCnt {
		ans.SessionCntReplay = true
	}
	if !ans.Accepted() || c.Validate() != nil {
		return ans
	}
	matrix := fragmentation.V1
	if d.cfg.Packages == applayer.V2 {
		matrix = fragmentation.V2
	}
	decoder, err := fragmentation.NewDecoder(int(c.NbFrag), int(c.FragSize), matrix)
	if err != nil {
		ans.NotEnoughMemory = true
		return ans
	}
	d.sessions[c.FragIndex] = &session{setup: c, decoder: decoder}
	d.note(diag.StepSetup, diag.CauseOK)
	return ans
}

func (d *Device) fragment(group uint8, c datablock.DataFragment) {
	s := d.sessions[c.FragIndex]
	if s == nil || s.done || group != modem.Unicast && s.setup.McGroupBitMask>>group&1 == 0 {
		return
	}
	if s.received == 0 {
		d.lastCnt = max(d.lastCnt, int(s.setup.SessionCnt)) // used up by the first fragment
	}
	s.received++
	if done, err := s.decoder.Add(int(c.N), c.Data); err == nil && done {
		d.complete(s)
	}
}

// complete verifies the block, and patches, as far as the model does.
func (d *Device) complete(s *session) {
	s.done = true
	block, err := s.decoder.Block(int(s.setup.Padding))
	if d.cfg.Packages == applayer.V2 {
		mic := datablock.SessionMIC(datablock.DataBlockIntKey(d.cfg.RootKey), s.setup.SessionCnt, s.setup.FragIndex, s.setup.Descriptor, block)
		s.micError = err != nil || mic != s.setup.MIC
	}
	d.deaf()
	switch {
	case s.micError:
		d.image.status = fwmgmt.ImageCorrupt
		d.note(diag.StepVerify, diag.CauseSessionMICBad)
		return
	case d.cfg.Fault.Refuses != diag.CauseOK:
		d.note(diag.StepManifest, d.cfg.Fault.Refuses)
		return
	}
	d.patch()
}

// patch begins to patch, or puts it off.
func (d *Device) patch() {
	if d.weak() {
		d.note(diag.StepPatch, diag.CauseDeferredBattery)
		d.after(deferral, d.patch)
		return
	}
	d.note(diag.StepPatch, diag.CauseOK)
	d.after(uint64(d.cfg.Patch/time.Millisecond), func() {
		d.image.status = fwmgmt.ImageValid
		d.note(diag.StepReady, diag.CauseOK)
	})
}

// weak reports whether the battery is too low for work.
func (d *Device) weak() bool {
	charged := d.cfg.Charged > 0 && d.now >= d.started+uint64(d.cfg.Charged/time.Millisecond)
	return d.cfg.Battery > 0 && d.cfg.Battery < batteryEnough && !charged
}

func (d *Device) after(ms uint64, work func()) { d.due, d.work = d.now+max(ms, 1), work }

// status answers a status request, if an answer is wanted.
func (d *Device) status(c datablock.FragSessionStatusReq) {
	s := d.sessions[c.FragIndex]
	if s == nil {
		if d.cfg.Packages == applayer.V2 {
			d.sendLater(answerSpread, applayer.FPortDataBlock, func() []byte {
				b, _ := datablock.AppendCommand(nil, applayer.V2, datablock.FragSessionStatusAns{SessionDoesNotExist: true})
				return b
			})
		}
		return
	}
	if !c.Participants && s.done {
		return
	}
	window := uint64(datablock.AnswerWindow(s.setup.BlockAckDelay) / time.Millisecond)
	d.sendLater(window, applayer.FPortDataBlock, func() []byte {
		missing := s.decoder.Missing()
		b, _ := datablock.AppendCommand(nil, d.cfg.Packages, datablock.FragSessionStatusAns{FragIndex: c.FragIndex,
			NbFragReceived: uint16(min(s.received, 1<<14-1)), MissingFrag: uint8(min(missing, 255)),
			MICError: d.cfg.Packages == applayer.V2 && s.micError})
		return b
	})
}

// firmware takes the messages of TS006.
func (d *Device) firmware(data []byte) {
	commands, _ := fwmgmt.Parse(applayer.V1, applayer.Downlink, data)
	var reply []byte
	for _, c := range commands {
		var ans fwmgmt.Command
		switch c := c.(type) {
		case fwmgmt.PackageVersionReq:
			ans = fwmgmt.PackageVersionAns{PackageIdentifier: uint8(applayer.FwMgmt), PackageVersion: 1}
		case fwmgmt.DevVersionReq:
			ans = fwmgmt.DevVersionAns{FWVersion: d.running, HWVersion: 1}
		case fwmgmt.DevUpgradeImageReq:
			a := fwmgmt.DevUpgradeImageAns{UpImageStatus: d.image.status}
			if a.UpImageStatus == fwmgmt.ImageValid {
				a.NextFirmwareVersion = d.cfg.Next
			}
			ans = a
		case fwmgmt.DevRebootCountdownReq:
			d.reboot = d.now + max(uint64(c.Countdown)*1000, 1)
			ans = fwmgmt.DevRebootCountdownAns(c)
		}
		if ans == nil {
			continue
		}
		if b, err := fwmgmt.AppendCommand(reply, applayer.V1, ans); err == nil {
			reply = b
		}
	}
	if len(reply) > 0 {
		d.up(applayer.FPortFwMgmt, reply)
	}
}

// install reboots, into the new image if one waits.
func (d *Device) install() {
	if d.image.status == fwmgmt.ImageValid {
		if d.weak() {
			d.note(diag.StepInstall, diag.CauseDeferredBattery)
			d.reboot = d.now + deferral
			return
		}
		d.image = image{trial: true}
		d.running = d.cfg.Next
		d.report = diag.Report{Step: diag.StepTrial, Version: d.running}
		if d.cfg.Fault.SilentAfterBoot {
			d.dead = true
		}
	}
	d.out = append(d.out, modem.Reset{Reason: modem.ResetInstall})
	d.boot()
}

// boot forgets what is only in memory. The MAC says LINK afterwards.
func (d *Device) boot() {
	d.later, d.beat, d.due, d.work = nil, 0, 0, nil
}

// prove begins the trial of a new image once it has a network.
func (d *Device) prove() {
	if !d.image.trial || d.due != 0 || !d.joined {
		return
	}
	d.sendReport()
	d.after(trialTime, func() {
		d.image.trial = false
		if cause := d.cfg.Fault.RollsBack; cause != diag.CauseOK {
			d.running = d.cfg.Running
			d.report = diag.Report{Step: diag.StepTrial, Cause: cause, Version: d.running}
			d.out = append(d.out, modem.Reset{Reason: modem.ResetFault})
			d.boot()
			d.sendLater(rebootTime, diag.FPort, func() []byte { return diag.AppendReport(nil, d.report) })
			return
		}
		d.note(diag.StepRunning, diag.CauseOK)
	})
}

// note sets step and cause, and reports them.
func (d *Device) note(step diag.Step, cause diag.Cause) {
	d.report = diag.Report{Step: step, Cause: cause, Version: d.running}
	d.out = append(d.out, modem.Event{Step: uint8(step), Cause: uint8(cause)})
	d.sendReport()
}

func (d *Device) sendReport() {
	d.sendLater(answerSpread, diag.FPort, func() []byte { return diag.AppendReport(nil, d.report) })
}
