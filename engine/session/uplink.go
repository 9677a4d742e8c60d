package session

import (
	"fmt"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/engine/network"
)

// uplink takes what a device says.
func (c *Session) uplink(i int, ev network.Event) {
	d := &c.st.Devices[i]
	if d.Stage == StageProving && ev.At.After(d.NewAt.Add(time.Second)) {
		d.Further++
	}
	newer := ev.At.After(d.LastUp)
	if newer {
		d.LastUp = ev.At
	}
	if p := &d.Pending; p.Kept && p.Op != 0 && p.Delivered.IsZero() && c.spec.Capabilities.ReportsSent {
		// Each uplink takes one message with it. After two that have taken nothing, nothing is left.
		if newer {
			p.Uplinks++
		}
		if p.Uplinks > 1 {
			*p = Pending{Kind: p.Kind, Attempts: p.Attempts}
			d.Flushes = true
		}
	} else if p.Op != 0 && p.Delivered.IsZero() && ev.At.After(p.Queued) {
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
	if p := &d.Pending; p.Op != 0 && p.Delivered.IsZero() && !d.Flushes {
		// Some servers keep their queues over a join, others do not, and none says so.
		if !p.Kept {
			p.Kept, p.Uplinks = true, 0
		}
	} else {
		*p = Pending{Kind: p.Kind, Attempts: p.Attempts}
	}
	if rebooted {
		c.rebooting(i, at) // its answer was lost
	}
	if d.Stage > StageIncomplete {
		return
	}
	d.Group, d.Window = false, 0
	switch {
	case c.st.Phase == PhasePrepare:
		// No data has flowed, so the same set-up may be repeated.
		d.Frag = false
		c.setStage(i, StageDiscover)
		c.setUp(i)
	case d.Armed > 0 && (c.st.Phase != PhaseAnnounce || c.windowOpen()):
		// A status answer will tell whether the fragments have survived.
		c.setStage(i, StageReceiving)
	default:
		if d.Stage == StageArmed {
			c.setStage(i, StagePrepared)
		}
		// It holds nothing, and version 1 cannot say that there is no session.
		if c.ver == applayer.V1 && d.Armed == 0 {
			d.Frag = false
		}
		d.Unsure = d.Frag
	}
}
