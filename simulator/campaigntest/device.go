package campaigntest

import (
	"bytes"
	"math/rand/v2"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/fragmentation"
)

// Device is a scripted device. Set the exported fields before [Net.Add].
type Device struct {
	EUI       network.EUI64
	Key       network.Key // root key in the device
	ServerKey network.Key // root key on the server
	Speaks    applayer.Version
	Diag      bool // has the diagnostic package

	Old, New uint32        // versions before and after
	Block    []byte        // what it must receive
	Interval time.Duration // between periodic uplinks
	LossUp   float64
	LossDown float64
	// Lose, if set, decides in place of LossDown which multicast frames are lost, counted from 1 over all groups.
	Lose    func(frame int) bool
	Clock   time.Duration // error of its clock at the start
	LastCnt int           // last SessionCnt used; -1: none
	Patch   time.Duration // from the block to the image

	// Stock makes it a device with the packages of another stack, which has neither TS006 nor the diagnostic package;
	// it installs the block by itself. Says, if set, is what it then says on FPort 2 with each uplink.
	Stock Stack
	Says  []byte

	// Faults.
	Silent          bool          // never sends
	RejoinAt        time.Duration // joins again, this long after the start; 0: never
	Forgets         bool          // loses its fragmentation session when it joins again before the block is complete
	Refuses         bool          // has no memory for the session
	Stops           diag.Cause    // ends with this cause after the block
	IgnoresReboot   bool          // never reboots
	RollsBack       diag.Cause    // boots the new version and goes back with this cause
	SilentAfterBoot bool
	NoDevVersion    bool          // does not answer on port 203
	Defers          diag.Cause    // says so instead of patching and rebooting
	DefersUntil     time.Duration // since the start
	Resets          int           // joins again so often after its first minutes with the new version

	net     *Net
	rng     *rand.Rand
	queue   []queued
	running uint32
	gone    bool // sends nothing any more

	hasGroup   bool
	groupID    uint8
	addr       uint32
	mcKey      [16]byte
	winStart   time.Time
	winEnd     time.Time
	winFreq    uint32
	winDR      uint8
	winClass   network.Class
	token      uint8
	began      time.Time
	session    *datablock.FragSessionSetupReq
	dec        *fragmentation.Decoder
	received   int
	flowed     bool
	block      bool // complete
	last       int  // highest fragment number
	uncoded    int  // data fragments that came in order
	image      fwmgmt.UpImageStatus
	step       diag.Step
	cause      diag.Cause
	rebootMark int

	// For assertions.
	Uplinks       int
	Steady        int  // since it last joined
	StatusAnswers int  // sent
	SetUps        int  // FragSessionSetupReq received
	CompleteFrame int  // multicast frame with which the block was complete, counted from 1 over all groups
	Corrupt       bool // reassembled something else than Block
	Dropped       bool // session and group deleted at the end
}

// Running returns the version that the device runs.
func (d *Device) Running() uint32 { return d.running }

// Holds reports whether the device has a fragmentation session or a multicast group.
func (d *Device) Holds() bool { return d.session != nil || d.hasGroup }

func (d *Device) boot() {
	d.began = d.net.World.Now()
	if d.Stock != 0 {
		d.NoDevVersion, d.Diag = true, false
	}
	if d.running == 0 {
		d.running = d.Old
		d.step = diag.StepRunning
	}
	if d.RejoinAt > 0 {
		d.net.World.After(d.RejoinAt, "rejoin", func() {
			d.net.locked(func() []network.Event {
				d.RejoinAt = 0
				return d.rejoin()
			})
		})
	}
}

// Rejoin makes the device join again now; it is called within a world event.
func (d *Device) Rejoin() { d.net.locked(d.rejoin) }

// Forget makes the device lose its fragmentation session and all it holds of it, but not its group.
func (d *Device) Forget() {
	d.net.mu.Lock()
	defer d.net.mu.Unlock()
	d.forget()
}

func (d *Device) forget() {
	d.session, d.dec, d.received, d.block, d.CompleteFrame = nil, nil, 0, false, 0
}

// rejoin loses groups and windows; the fragments are in flash, unless the device forgets them.
func (d *Device) rejoin() []network.Event {
	d.Steady = 0
	d.hasGroup, d.winStart, d.winEnd = false, time.Time{}, time.Time{}
	if !d.net.KeepsQueue {
		d.queue = nil
	}
	if d.Forgets && !d.block {
		d.forget()
	}
	return []network.Event{{ID: d.net.id(), Kind: network.EventJoin, Device: d.EUI, At: d.net.World.Now(), Done: func() {}}}
}

func (d *Device) periodic() []network.Event {
	if d.net.stopped {
		return nil
	}
	next := time.Duration((0.9 + 0.2*d.rng.Float64()) * float64(d.Interval))
	d.net.World.After(next, "uplink", func() { d.net.locked(d.periodic) })
	if len(d.Says) > 0 && d.Stock != 0 && d.running == d.New {
		return d.send(2, d.Says)
	}
	return d.send(10, []byte{1, 2, 3})
}

// send makes an uplink now.
func (d *Device) send(port uint8, payload []byte) []network.Event {
	if d.Silent || d.gone || d.net.stopped {
		return nil
	}
	d.Uplinks++
	d.Steady++
	if d.rng.Float64() < d.LossUp {
		return nil
	}
	d.net.World.After(time.Second, "rx1", func() {
		d.net.locked(func() []network.Event { return d.net.answer(d) })
	})
	return []network.Event{{ID: d.net.id(), Kind: network.EventUplink, Device: d.EUI, At: d.net.World.Now(),
		FPort: port, Payload: payload, Gateways: 1, Done: func() {}}}
}

// reply makes an uplink within so long.
func (d *Device) reply(within time.Duration, port uint8, payload func() []byte) {
	at := time.Second + time.Duration(d.rng.Float64()*float64(within))
	d.net.World.After(at, "reply", func() {
		d.net.locked(func() []network.Event {
			if b := payload(); len(b) > 0 {
				return d.send(port, b)
			}
			return nil
		})
	})
}

func (d *Device) now() time.Time { return d.net.World.Now().Add(d.Clock) }

func (d *Device) gps() uint32 { return airtime.GPSSeconds(d.now()) }

// hears reports whether the device listens to a group now.
func (d *Device) hears(g network.Group) bool {
	now := d.net.World.Now()
	if d.Silent || d.gone || !d.hasGroup || d.addr != g.McAddr || now.Before(d.winStart) || !now.Before(d.winEnd) {
		return false
	}
	return d.winClass == g.Class && d.winFreq == g.Frequency && int(d.winDR) == g.DataRate && mcsetup.McAppSKey(d.mcKey, d.addr) == [16]byte(g.AppSKey)
}

// downlink takes a message; group is -1 for unicast.
func (d *Device) downlink(port uint8, group int, b []byte) {
	if d.Silent || d.gone {
		return
	}
	switch port {
	case applayer.FPortMcSetup:
		cmds, _ := mcsetup.Parse(d.Speaks, applayer.Downlink, b)
		var ans []byte
		for _, cmd := range cmds {
			if a := d.mcSetup(cmd); a != nil {
				ans, _ = mcsetup.AppendCommand(ans, d.Speaks, a)
			}
		}
		d.reply(2*time.Second, port, func() []byte { return ans })
	case applayer.FPortDataBlock:
		cmds, _ := datablock.Parse(d.Speaks, applayer.Downlink, b)
		for _, cmd := range cmds {
			d.dataBlock(cmd, group)
		}
	case applayer.FPortClockSync:
		cmds, _ := clocksync.Parse(d.Speaks, applayer.Downlink, b)
		for _, cmd := range cmds {
			switch cmd := cmd.(type) {
			case clocksync.AppTimeAns:
				if cmd.TokenAns == d.token {
					d.Clock += time.Duration(cmd.TimeCorrection) * time.Second
					d.token = (d.token + 1) & 15
				}
			case clocksync.ForceDeviceResyncCmd:
				d.reply(2*time.Second, port, func() []byte {
					m, _ := clocksync.AppendCommand(nil, d.Speaks, clocksync.AppTimeReq{DeviceTime: d.gps(), TokenReq: d.token})
					return m
				})
			}
		}
	case applayer.FPortFwMgmt:
		d.fwMgmt(b)
	case diag.FPort:
		d.report()
	}
}

func (d *Device) mcSetup(cmd mcsetup.Command) mcsetup.Command {
	switch cmd := cmd.(type) {
	case mcsetup.McGroupSetupReq:
		root := mcsetup.McRootKeyFromGenAppKey(d.Key)
		d.mcKey = mcsetup.DecryptMcKey(mcsetup.McKEKey(root), cmd.McKeyEncrypted)
		d.hasGroup, d.groupID, d.addr = true, cmd.McGroupID, cmd.McAddr
		return mcsetup.McGroupSetupAns{McGroupID: cmd.McGroupID}
	case mcsetup.McClassBSessionReq:
		c := mcsetup.McClassCSessionReq{McGroupID: cmd.McGroupID, SessionTime: cmd.SessionTime, DLFreq: cmd.DLFreq, DR: cmd.DR}
		if cmd.SessionTime%128 != 0 {
			return mcsetup.McClassBSessionAns{McGroupID: cmd.McGroupID, OtherErrors: 1} // no beacon period begins then
		}
		return mcsetup.McClassBSessionAns(d.window(c, cmd.MaxDuration(), network.ClassB))
	case mcsetup.McClassCSessionReq:
		return d.window(cmd, cmd.MaxDuration(), network.ClassC)
	case mcsetup.McGroupDeleteReq:
		undefined := !d.hasGroup
		d.hasGroup = false
		return mcsetup.McGroupDeleteAns{McGroupID: cmd.McGroupID, McGroupUndefined: undefined}
	}
	return nil
}

// window takes a session of class B or C.
func (d *Device) window(cmd mcsetup.McClassCSessionReq, lasts time.Duration, class network.Class) mcsetup.McClassCSessionAns {
	ans := mcsetup.McClassCSessionAns{McGroupID: cmd.McGroupID}
	start := airtime.FromGPSSeconds(cmd.SessionTime, d.now())
	switch {
	case !d.hasGroup:
		ans.McGroupUndefined = true
	case start.Before(d.now()):
		ans.StartMissed = true
	case start.Sub(d.now()) > 1<<24*time.Second:
		ans.TimeToStart = mcsetup.TimeToStartUnknown
	default:
		d.winStart, d.winEnd = start.Add(-d.Clock), start.Add(-d.Clock).Add(lasts)
		d.winFreq, d.winDR, d.winClass = cmd.DLFreq, cmd.DR, class
		ans.TimeToStart = cmd.SessionTime - d.gps()
	}
	return ans
}

func (d *Device) dataBlock(cmd datablock.Command, group int) {
	const port = applayer.FPortDataBlock
	encode := func(c datablock.Command) []byte {
		m, err := datablock.AppendCommand(nil, d.Speaks, c)
		if err != nil {
			panic(err) // a mistake in this package
		}
		return m
	}
	switch cmd := cmd.(type) {
	case datablock.PackageVersionReq:
		m := encode(datablock.PackageVersionAns{PackageIdentifier: uint8(applayer.DataBlock), PackageVersion: uint8(d.Speaks)})
		d.reply(2*time.Second, port, func() []byte { return m })
	case datablock.FragSessionSetupReq:
		d.SetUps++
		ans := datablock.FragSessionSetupAns{FragIndex: cmd.FragIndex}
		same := d.session != nil && *d.session == cmd
		switch {
		case d.Refuses:
			ans.NotEnoughMemory = true
			d.stop(diag.StepSetup, diag.CauseNoRAM)
		case d.Speaks == applayer.V2 && !same && int(cmd.SessionCnt) <= d.LastCnt:
			ans.SessionCntReplay = true
		case !same:
			d.session = &cmd
			d.dec, _ = fragmentation.NewDecoder(int(cmd.NbFrag), int(cmd.FragSize), d.matrix())
			d.received, d.block, d.flowed, d.image, d.last, d.uncoded = 0, false, false, fwmgmt.NoImage, 0, 0
			d.step, d.cause = diag.StepReceive, diag.CauseOK
		}
		m := encode(ans)
		d.reply(2*time.Second, port, func() []byte { return m })
	case datablock.FragSessionDeleteReq:
		m := encode(datablock.FragSessionDeleteAns{FragIndex: cmd.FragIndex, SessionDoesNotExist: d.session == nil})
		d.session, d.Dropped = nil, d.running == d.New
		d.reply(2*time.Second, port, func() []byte { return m })
	case datablock.FragSessionStatusReq:
		if d.session == nil {
			if d.Speaks == applayer.V2 {
				m := encode(datablock.FragSessionStatusAns{SessionDoesNotExist: true})
				d.reply(16*time.Second, port, func() []byte { return m })
			}
			return
		}
		if !cmd.Participants && d.dec.Missing() == 0 && d.Stock != LoRaMacNode && d.Stock != Zephyr {
			return
		}
		d.reply(datablock.AnswerWindow(d.session.BlockAckDelay)-time.Second, port, func() []byte {
			if d.session == nil {
				return nil
			}
			d.StatusAnswers++
			received, missing := d.statusOf()
			return encode(datablock.FragSessionStatusAns{FragIndex: d.session.FragIndex,
				NbFragReceived: uint16(received), MissingFrag: missing})
		})
	case datablock.DataFragment:
		if d.session == nil || cmd.FragIndex != d.session.FragIndex || group >= 0 && d.session.McGroupBitMask>>group&1 == 0 {
			return
		}
		if !d.flowed {
			d.flowed, d.LastCnt = true, int(d.session.SessionCnt)
		}
		if m := int(d.session.NbFrag); d.Stock == LoRaMacNode || d.Stock == BasicsModem {
			if int(cmd.N) <= m && int(cmd.N) < d.last {
				return // out of order
			}
			d.uncoded += b2i(int(cmd.N) <= m)
		}
		d.last = max(d.last, int(cmd.N))
		d.received++
		if done, _ := d.dec.Add(int(cmd.N), cmd.Data); done && !d.block {
			d.block, d.CompleteFrame = true, d.net.lastFrame
			d.complete()
		}
	}
}

func (d *Device) matrix() fragmentation.Matrix {
	if d.Speaks == applayer.V1 {
		return fragmentation.V1
	}
	return fragmentation.V2
}

// complete verifies the block and patches.
func (d *Device) complete() {
	block, err := d.dec.Block(int(d.session.Padding))
	if err != nil || !bytes.Equal(block, d.Block) {
		d.Corrupt = true
	}
	if d.Speaks == applayer.V2 {
		mic := datablock.SessionMIC(datablock.DataBlockIntKey(d.Key), d.session.SessionCnt, d.session.FragIndex, d.session.Descriptor, block)
		d.Corrupt = d.Corrupt || mic != d.session.MIC
	}
	if d.Stock != 0 {
		d.net.World.After(d.Patch, "install", func() {
			d.net.locked(func() []network.Event { d.running = d.New; return nil })
		})
		return
	}
	d.note(diag.StepVerify, diag.CauseOK)
	d.patch()
}

// defers reports whether the device puts the update off now.
func (d *Device) defers() bool {
	return d.Defers != 0 && d.net.World.Now().Before(d.began.Add(d.DefersUntil))
}

func (d *Device) patch() {
	of := d.session
	d.net.World.After(d.Patch, "patch", func() {
		d.net.locked(func() []network.Event {
			switch {
			case d.session != of: // it is gone
			case d.defers():
				d.step, d.cause = diag.StepPatch, d.Defers // told when it is asked
				d.patch()
			case d.Stops != 0:
				d.image = fwmgmt.ImageCorrupt
				d.stop(diag.StepManifest, d.Stops)
			case !d.Corrupt:
				d.image = fwmgmt.ImageValid
				d.note(diag.StepReady, diag.CauseOK)
			}
			return nil
		})
	})
}

func (d *Device) note(step diag.Step, cause diag.Cause) {
	d.step, d.cause = step, cause
	d.report()
}

func (d *Device) stop(step diag.Step, cause diag.Cause) { d.note(step, cause) }

func (d *Device) report() {
	if !d.Diag {
		return
	}
	d.reply(5*time.Second, diag.FPort, func() []byte {
		return diag.AppendReport(nil, diag.Report{Step: d.step, Cause: d.cause, Version: d.running})
	})
}

func (d *Device) fwMgmt(b []byte) {
	if d.NoDevVersion {
		return
	}
	cmds, _ := fwmgmt.Parse(applayer.V1, applayer.Downlink, b)
	var ans []byte
	for _, cmd := range cmds {
		switch cmd := cmd.(type) {
		case fwmgmt.DevVersionReq:
			ans, _ = fwmgmt.AppendCommand(ans, applayer.V1, fwmgmt.DevVersionAns{FWVersion: d.running, HWVersion: 1})
		case fwmgmt.DevUpgradeImageReq:
			a := fwmgmt.DevUpgradeImageAns{UpImageStatus: d.image}
			if d.image == fwmgmt.ImageValid {
				a.NextFirmwareVersion = d.New
			}
			ans, _ = fwmgmt.AppendCommand(ans, applayer.V1, a)
		case fwmgmt.DevRebootCountdownReq:
			if d.defers() {
				ans, _ = fwmgmt.AppendCommand(ans, applayer.V1, fwmgmt.DevRebootCountdownAns{})
				d.note(diag.StepReady, d.Defers)
				continue
			}
			ans, _ = fwmgmt.AppendCommand(ans, applayer.V1, fwmgmt.DevRebootCountdownAns(cmd))
			d.rebootMark++
			mark := d.rebootMark
			d.net.World.After(time.Duration(cmd.Countdown)*time.Second, "reboot", func() {
				d.net.locked(func() []network.Event {
					if mark != d.rebootMark || d.IgnoresReboot || d.image != fwmgmt.ImageValid {
						return nil
					}
					return d.reboot()
				})
			})
		}
	}
	d.reply(2*time.Second, applayer.FPortFwMgmt, func() []byte { return ans })
}

// reset joins again for no good reason.
func (d *Device) reset() {
	if d.Resets > 0 {
		d.Resets--
		d.net.World.After(d.Interval/2, "reset", func() {
			d.net.locked(func() []network.Event {
				d.reset()
				return d.rejoin()
			})
		})
	}
}

func (d *Device) reboot() []network.Event {
	d.running, d.image = d.New, fwmgmt.NoImage
	switch {
	case d.SilentAfterBoot:
		d.gone = true
		return nil
	case d.RollsBack != 0:
		d.net.World.After(40*time.Second, "roll back", func() {
			d.net.locked(func() []network.Event {
				d.running = d.Old
				d.note(diag.StepTrial, d.RollsBack)
				return d.rejoin()
			})
		})
		return nil
	}
	d.note(diag.StepTrial, diag.CauseOK)
	d.net.World.After(2*time.Minute, "confirm", func() {
		d.net.locked(func() []network.Event {
			d.note(diag.StepRunning, diag.CauseOK)
			d.reset()
			return nil
		})
	})
	return d.rejoin()
}
