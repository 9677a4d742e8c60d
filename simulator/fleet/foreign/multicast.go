package foreign

import (
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
)

// group is a multicast group.
type group struct {
	modem.SetMcGroup
	until uint64 // end of its session, ms of the device's clock
}

// multicast takes a message on the port of TS005.
func (d *Device) multicast(data []byte) {
	commands, _ := mcsetup.Parse(d.cfg.Version, applayer.Downlink, data)
	var reply []byte
	for _, c := range commands {
		if _, is := c.(mcsetup.McClassBSessionReq); is && d.cfg.Stack == Zephyr {
			return // and with it the answers so far
		}
		ans := d.groupCommand(c)
		if ans == nil {
			continue
		}
		if b, err := mcsetup.AppendCommand(reply, d.cfg.Version, ans); err == nil {
			reply = b
		}
	}
	if len(reply) > 0 {
		d.out = append(d.out, modem.Up{Port: applayer.FPortMcSetup, Data: reply})
	}
}

// groupCommand carries a command out and returns the answer; nil for none.
func (d *Device) groupCommand(c mcsetup.Command) mcsetup.Command {
	switch c := c.(type) {
	case mcsetup.PackageVersionReq:
		return mcsetup.PackageVersionAns{PackageIdentifier: uint8(applayer.McSetup), PackageVersion: uint8(d.cfg.Version)}
	case mcsetup.McGroupSetupReq:
		d.setGroup(c)
		return mcsetup.McGroupSetupAns{McGroupID: c.McGroupID}
	case mcsetup.McGroupDeleteReq:
		undefined := d.groups[c.McGroupID] == nil
		if !undefined {
			d.groups[c.McGroupID] = nil
			d.out = append(d.out, modem.SetMcGroup{ID: c.McGroupID})
		}
		return mcsetup.McGroupDeleteAns{McGroupID: c.McGroupID, McGroupUndefined: undefined}
	case mcsetup.McGroupStatusReq:
		if d.cfg.Stack != BasicsModem {
			return nil
		}
		ans := mcsetup.McGroupStatusAns{}
		for id, g := range d.groups {
			if g != nil {
				ans.NbTotalGroups++
				if c.ReqGroupMask>>id&1 != 0 {
					ans.Items = append(ans.Items, mcsetup.McGroup{McGroupID: uint8(id), McAddr: g.Addr})
				}
			}
		}
		return ans
	case mcsetup.McClassCSessionReq:
		return d.openSession(c, modem.Session{ID: c.McGroupID, Class: 'C', DR: c.DR, Frequency: c.DLFreq}, uint64(1000)<<c.TimeOut)
	case mcsetup.McClassBSessionReq:
		s := modem.Session{ID: c.McGroupID, Class: 'B', DR: c.DR, Frequency: c.DLFreq, Periodicity: c.Periodicity}
		if d.cfg.Stack == LoRaMacNode {
			s.Class = 'C'
		}
		ans := d.openSession(mcsetup.McClassCSessionReq{McGroupID: c.McGroupID, SessionTime: c.SessionTime, DR: c.DR, DLFreq: c.DLFreq}, s, uint64(128_000)<<c.TimeOut)
		if ans == nil {
			return nil
		}
		return mcsetup.McClassBSessionAns(ans.(mcsetup.McClassCSessionAns))
	}
	return nil
}

func (d *Device) setGroup(c mcsetup.McGroupSetupReq) {
	if g := d.groups[c.McGroupID]; g != nil && d.cfg.Stack == BasicsModem && d.now < g.until {
		return // busy, which the answer does not say
	}
	key := mcsetup.DecryptMcKey(mcsetup.McKEKey(mcsetup.McRootKeyFromGenAppKey(d.cfg.GenAppKey)), c.McKeyEncrypted)
	g := &group{SetMcGroup: modem.SetMcGroup{
		ID: c.McGroupID, Defined: true, Addr: c.McAddr, MinFCnt: c.MinMcFCnt, MaxFCnt: c.MaxMcFCnt,
		AppSKey: mcsetup.McAppSKey(key, c.McAddr), NwkSKey: mcsetup.McNwkSKey(key, c.McAddr),
	}}
	d.groups[c.McGroupID] = g
	d.out = append(d.out, g.SetMcGroup)
}

// openSession judges a session request and opens the session. Data rates and frequencies are those of EU868.
func (d *Device) openSession(c mcsetup.McClassCSessionReq, s modem.Session, length uint64) mcsetup.Command {
	ans := mcsetup.McClassCSessionAns{
		McGroupID: c.McGroupID, DRError: c.DR > 5, FreqError: c.DLFreq < 863_000_000 || c.DLFreq > 870_000_000, McGroupUndefined: d.groups[c.McGroupID] == nil,
	}
	wait := int64(c.SessionTime) - d.gps()
	switch d.cfg.Stack {
	case LoRaMacNode:
		if ans.McGroupUndefined {
			ans.DRError, ans.FreqError = true, true
		}
		if wait < 0 {
			ans.McGroupUndefined = true
		}
	case Zephyr:
		if ans.DRError && ans.FreqError {
			return nil
		}
		if !d.synced && ans.Accepted() {
			ans.TimeToStart = mcsetup.TimeToStartUnknown
			return ans
		}
		ans.StartMissed = wait < 0
	default:
		ans.StartMissed = wait < 0
	}
	if !ans.Accepted() {
		return ans
	}
	ans.TimeToStart = uint32(wait)
	s.Start = d.now + uint64(wait)*1000
	s.End = s.Start + length
	d.groups[c.McGroupID].until = s.End
	d.out = append(d.out, s)
	return ans
}
