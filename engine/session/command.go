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
	"github.com/sower-fuota/sower/engine/network"
)

// maxMcFCnt ends the range of valid frame counters of a group: devices assume that the upper 16 bits are 0.
const maxMcFCnt = 0xffff

// expiry is until when a unicast message may be sent: not for ever, or a device that wakes up late would get
// orders that have long been repeated, and not in a window, where it would cost others a fragment.
func (c *Session) expiry() time.Time {
	at := c.now.Add(2 * c.spec.Timing.UplinkInterval)
	if c.st.Phase == PhaseAnnounce {
		at = earliest(at, c.st.Window.Start)
	}
	if _, end := c.spec.Calendar.Next(c.now); !end.IsZero() {
		at = earliest(at, end)
	}
	return at
}

// send asks for a unicast command and returns its operation number and expiry.
func (c *Session) send(i int, kind Command) (op uint64, expires time.Time) {
	d := &c.st.Devices[i]
	s := Send{Op: c.op(), Command: kind, Device: d.EUI, Expires: c.expiry()}
	var err error
	switch kind {
	case CmdPackages:
		s.FPort = applayer.FPortDataBlock
		s.Payload, err = datablock.AppendCommand(nil, c.ver, datablock.PackageVersionReq{})
	case CmdVersion:
		s.FPort = applayer.FPortFwMgmt
		s.Payload, err = fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevVersionReq{})
	case CmdGroup:
		s.FPort, s.NeedsKey = applayer.FPortMcSetup, true
	case CmdSession:
		s.FPort, s.NeedsKey, s.SessionCnt = applayer.FPortDataBlock, c.ver == applayer.V2, d.SessionCnt
		if !s.NeedsKey {
			s.Payload, err = c.sessionSetup(0, [4]byte{})
		}
	case CmdWindow:
		w := c.st.Window
		s.FPort = applayer.FPortMcSetup
		if b := c.spec.ClassB; b != nil {
			s.Payload, err = mcsetup.AppendCommand(nil, c.ver, mcsetup.McClassBSessionReq{
				McGroupID: c.spec.McGroupID, SessionTime: airtime.GPSSeconds(w.Start), Periodicity: b.Periodicity, TimeOut: w.TimeOut,
				DLFreq: c.spec.Plan.Frequency, DR: uint8(c.spec.Plan.DataRate)})
			break
		}
		s.Payload, err = mcsetup.AppendCommand(nil, c.ver, mcsetup.McClassCSessionReq{
			McGroupID: c.spec.McGroupID, SessionTime: airtime.GPSSeconds(w.Start), TimeOut: w.TimeOut,
			DLFreq: c.spec.Plan.Frequency, DR: uint8(c.spec.Plan.DataRate)})
	case CmdResync:
		s.FPort = applayer.FPortClockSync
		s.Payload, err = clocksync.AppendCommand(nil, c.ver, clocksync.ForceDeviceResyncCmd{NbTransmissions: 3})
	case CmdStatus:
		s.FPort = applayer.FPortDataBlock
		s.Payload, err = datablock.AppendCommand(nil, c.ver, datablock.FragSessionStatusReq{
			FragIndex: c.spec.FragIndex, Participants: true})
	case CmdFragment:
		s.FPort = applayer.FPortDataBlock
		// From the end of the list: multicast takes from its beginning.
		s.Payload, err = c.fragment(c.spec.Plan.Positions() - d.Tail)
	case CmdReceived:
		s.FPort = applayer.FPortDataBlock
		s.Payload, err = datablock.AppendCommand(nil, c.ver, datablock.FragDataBlockReceivedAns{FragIndex: c.spec.FragIndex})
	case CmdImage:
		s.FPort = applayer.FPortFwMgmt
		s.Payload, err = fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevUpgradeImageReq{})
	case CmdReboot:
		s.FPort = applayer.FPortFwMgmt
		s.Payload, err = fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevRebootCountdownReq{
			Countdown: uint32(c.spec.Timing.Countdown / time.Second)})
	case CmdReport:
		s.FPort, s.Payload = diag.FPort, diag.AppendReportReq(nil)
	case CmdDropFrag:
		s.FPort = applayer.FPortDataBlock
		s.Payload, err = datablock.AppendCommand(nil, c.ver, datablock.FragSessionDeleteReq{FragIndex: c.spec.FragIndex})
	case CmdDropGroup:
		s.FPort = applayer.FPortMcSetup
		s.Payload, err = mcsetup.AppendCommand(nil, c.ver, mcsetup.McGroupDeleteReq{McGroupID: c.spec.McGroupID})
	}
	if err != nil {
		// The specification was judged by New, so this is a value that no device would take either.
		c.fail(i, diag.StepSetup, diag.CauseSetupTimeout, err.Error())
		return s.Op, s.Expires
	}
	d.Waits = latest(d.Waits, s.Expires)
	c.emit(s)
	return s.Op, s.Expires
}

// sessionSetup is the message that opens the fragmentation session.
func (c *Session) sessionSetup(cnt uint16, mic [4]byte) ([]byte, error) {
	p := c.spec.Plan
	var msg []byte
	var err error
	if c.ver == applayer.V1 {
		// In version 1 an index must be free before it is used again.
		msg, err = datablock.AppendCommand(msg, c.ver, datablock.FragSessionDeleteReq{FragIndex: c.spec.FragIndex})
		if err != nil {
			return nil, err
		}
	}
	return datablock.AppendCommand(msg, c.ver, datablock.FragSessionSetupReq{
		FragIndex: c.spec.FragIndex, McGroupBitMask: 1 << c.spec.McGroupID,
		NbFrag: uint16(p.M), FragSize: uint8(p.FragSize), BlockAckDelay: p.BlockAckDelay, Padding: uint8(p.Padding),
		Descriptor: c.spec.Descriptor, SessionCnt: cnt, MIC: mic})
}

// Payload makes the message of a Send that needs the root key of the device.
func (c *Session) Payload(s Send, root network.Key) ([]byte, error) {
	i, ok := c.index[s.Device]
	if !ok {
		return nil, fmt.Errorf("session %s: no device %s", c.spec.ID, s.Device)
	}
	switch {
	case !s.NeedsKey:
		return s.Payload, nil
	case s.Command == CmdGroup:
		mcRoot := mcsetup.McRootKeyFromGenAppKey(root)
		if c.spec.Devices[i].LoRaWAN11 {
			mcRoot = mcsetup.McRootKeyFromAppKey(root)
		}
		return mcsetup.AppendCommand(nil, c.ver, mcsetup.McGroupSetupReq{
			McGroupID: c.spec.McGroupID, McAddr: c.spec.McAddr,
			McKeyEncrypted: mcsetup.EncryptMcKey(mcsetup.McKEKey(mcRoot), c.spec.McKey), MaxMcFCnt: maxMcFCnt})
	case s.Command == CmdSession:
		return c.sessionSetup(s.SessionCnt, datablock.SessionMIC(datablock.DataBlockIntKey(root),
			s.SessionCnt, c.spec.FragIndex, c.spec.Descriptor, c.spec.Block))
	}
	return nil, fmt.Errorf("session %s: %s needs no key", c.spec.ID, s.Command)
}
