// Package mcsetup implements the messages and keys of LoRa Alliance TS005, Remote Multicast Setup,
// versions 1.0.0 and 2.0.0: identifier 2, default FPort 200, unicast only.
//
// The layouts are the same in both versions. Version 2 adds StartMissed, bit 5 of the session
// answers; since version 1 devices send it too, both versions read and write it.
//
// Session times are GPS seconds (since 1980-01-06 00:00:00, without leap seconds) modulo 2^32,
// frequencies are in Hz, data rates index the table of the region and are downlink data rates.
// The 2.4 GHz plans, whose DLFreq counts 200 Hz, are not covered. Multicast frames themselves are
// LoRaWAN data frames and not part of this package.
package mcsetup

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/internal/wire"
)

const (
	cidPackageVersion byte = iota
	cidMcGroupStatus
	cidMcGroupSetup
	cidMcGroupDelete
	cidMcClassCSession
	cidMcClassBSession
)

// MaxMcGroups is the number of multicast groups of a device: McGroupID is 0..3.
const MaxMcGroups = 4

// TimeToStartUnknown is the TimeToStart of a device whose clock is not synchronised, or whose
// session is 2^24-1 seconds away or further. Do not count on such a device to open its window.
const TimeToStartUnknown = 0xffffff

// Command is one of the messages of this package, all declared below.
type Command interface {
	applayer.Command
	appendTo(dst []byte) ([]byte, error)
}

// PackageVersionReq is CID 0x00, downlink, without payload: which version does the device speak?
type PackageVersionReq struct{}

// PackageVersionAns is CID 0x00, uplink.
//
//	off  len  field
//	  0    1  PackageIdentifier  2
//	  1    1  PackageVersion     1 or 2
type PackageVersionAns struct {
	PackageIdentifier uint8
	PackageVersion    uint8
}

// McGroupStatusReq is CID 0x01, downlink: which groups does the device have?
//
//	off  len  field
//	  0    1  CmdMask  bits 7:4 reserved, 3:0 ReqGroupMask
type McGroupStatusReq struct {
	ReqGroupMask uint8 // bit X asks for the group with McGroupID X
}

// McGroupStatusAns is CID 0x01, uplink. A device whose frame has no room for all groups leaves out
// those with the highest identifiers; ask again for what [McGroupStatusAns.AnsGroupMask] lacks.
//
//	off  len  field
//	  0    1  Status  bit 7 reserved, 6:4 NbTotalGroups, 3:0 AnsGroupMask
//	  1  5*n  Items   McGroupID u8 (bits 7:2 reserved), McAddr u32; n is the number of bits set in AnsGroupMask
type McGroupStatusAns struct {
	NbTotalGroups uint8 // 0..4, groups that the device has
	Items         []McGroup
}

// McGroup is a group in a [McGroupStatusAns].
type McGroup struct {
	McGroupID uint8 // 0..3
	McAddr    uint32
}

// AnsGroupMask returns the groups listed: bit X stands for McGroupID X.
func (c McGroupStatusAns) AnsGroupMask() uint8 {
	var m uint8
	for _, g := range c.Items {
		m |= 1 << (g.McGroupID & 3)
	}
	return m
}

// McGroupSetupReq is CID 0x02, downlink: create a group, or change it.
//
//	off  len  field
//	  0    1  McGroupIDHeader  bits 7:2 reserved, 1:0 McGroupID
//	  1    4  McAddr
//	  5   16  McKey_encrypted
//	 21    4  minMcFCnt
//	 25    4  maxMcFCnt
type McGroupSetupReq struct {
	McGroupID      uint8    // 0..3
	McAddr         uint32   // group address, 0x01020304 for 01020304
	McKeyEncrypted [16]byte // see [EncryptMcKey]
	MinMcFCnt      uint32   // first frame counter that is valid
	MaxMcFCnt      uint32   // first frame counter that is not; some devices still accept it
}

// McGroupSetupAns is CID 0x02, uplink.
//
//	off  len  field
//	  0    1  McGroupIDHeader  bits 7:3 reserved, 2 IDerror, 1:0 McGroupID
type McGroupSetupAns struct {
	McGroupID uint8
	IDError   bool // the device has no room for a group of this identifier
}

// McGroupDeleteReq is CID 0x03, downlink.
//
//	off  len  field
//	  0    1  McGroupIDHeader  bits 7:2 reserved, 1:0 McGroupID
type McGroupDeleteReq struct {
	McGroupID uint8
}

// McGroupDeleteAns is CID 0x03, uplink.
//
//	off  len  field
//	  0    1  McGroupIDHeader  bits 7:3 reserved, 2 McGroupUndefined, 1:0 McGroupID
type McGroupDeleteAns struct {
	McGroupID        uint8
	McGroupUndefined bool // there was no such group
}

// McClassCSessionReq is CID 0x04, downlink: listen in class C from SessionTime on.
//
//	off  len  field
//	  0    1  McGroupIDHeader  bits 7:2 reserved, 1:0 McGroupID
//	  1    4  SessionTime
//	  5    1  SessionTimeOut   bits 7:4 reserved, 3:0 TimeOut
//	  6    3  DLFreq           units of 100 Hz
//	  9    1  DR
type McClassCSessionReq struct {
	McGroupID   uint8
	SessionTime uint32 // GPS seconds modulo 2^32
	TimeOut     uint8  // 0..15, see [McClassCSessionReq.MaxDuration]
	DLFreq      uint32 // Hz, 100 MHz..1.6777215 GHz in steps of 100 Hz
	DR          uint8
}

// MaxDuration returns the time after which the device stops listening, 2^TimeOut seconds.
func (c McClassCSessionReq) MaxDuration() time.Duration {
	return time.Second << (c.TimeOut & 0x0f)
}

// McClassBSessionReq is CID 0x05, downlink: open class B ping slots from SessionTime on.
//
//	off  len  field
//	  0    1  McGroupIDHeader     bits 7:2 reserved, 1:0 McGroupID
//	  1    4  SessionTime
//	  5    1  TimeOutPeriodicity  bit 7 reserved, 6:4 Periodicity, 3:0 TimeOut
//	  6    3  DLFreq              units of 100 Hz
//	  9    1  DR
type McClassBSessionReq struct {
	McGroupID   uint8
	SessionTime uint32 // GPS seconds modulo 2^32, a multiple of 128: the start of a beacon period
	Periodicity uint8  // 0..7: 2^(7-Periodicity) ping slots in each beacon period of 128 s
	TimeOut     uint8  // 0..15, see [McClassBSessionReq.MaxDuration]
	DLFreq      uint32 // Hz as in class C; 0 selects the hopping plan of the region
	DR          uint8
}

// MaxDuration returns the time after which the device stops listening, 128 * 2^TimeOut seconds:
// unlike class C, it counts beacon periods.
func (c McClassBSessionReq) MaxDuration() time.Duration {
	return 128 * time.Second << (c.TimeOut & 0x0f)
}

// McClassCSessionAns is CID 0x04, uplink.
//
//	off  len  field
//	  0    1  Status       bits 7:6 reserved for further errors, 5 StartMissed, 4 McGroupUndefined,
//	                       3 FreqError, 2 DRError, 1:0 McGroupID
//	  1    3  TimeToStart  only if bits 7:2 of Status are 0
//
// StartMissed is defined in version 2. Of the version 1 devices some set it too and some report
// McGroupUndefined instead.
type McClassCSessionAns struct {
	McGroupID        uint8
	DRError          bool
	FreqError        bool
	McGroupUndefined bool
	StartMissed      bool   // SessionTime is in the past of the device's clock
	OtherErrors      uint8  // bits 7:6 as 0..3; not 0 is an error of a kind not yet defined
	TimeToStart      uint32 // seconds from this uplink to SessionTime, or [TimeToStartUnknown]; 0 after an error
}

// Accepted reports whether the device took the session, in which case TimeToStart is valid.
// Compare it with what the server expects: the device may have the wrong time.
func (c McClassCSessionAns) Accepted() bool {
	return !c.DRError && !c.FreqError && !c.McGroupUndefined && !c.StartMissed && c.OtherErrors == 0
}

// McClassBSessionAns is CID 0x05, uplink, otherwise like [McClassCSessionAns].
type McClassBSessionAns struct {
	McGroupID        uint8
	DRError          bool
	FreqError        bool
	McGroupUndefined bool
	StartMissed      bool
	OtherErrors      uint8
	TimeToStart      uint32
}

// Accepted reports whether the device took the session, in which case TimeToStart is valid.
func (c McClassBSessionAns) Accepted() bool { return McClassCSessionAns(c).Accepted() }

func (PackageVersionReq) CID() byte  { return cidPackageVersion }
func (PackageVersionAns) CID() byte  { return cidPackageVersion }
func (McGroupStatusReq) CID() byte   { return cidMcGroupStatus }
func (McGroupStatusAns) CID() byte   { return cidMcGroupStatus }
func (McGroupSetupReq) CID() byte    { return cidMcGroupSetup }
func (McGroupSetupAns) CID() byte    { return cidMcGroupSetup }
func (McGroupDeleteReq) CID() byte   { return cidMcGroupDelete }
func (McGroupDeleteAns) CID() byte   { return cidMcGroupDelete }
func (McClassCSessionReq) CID() byte { return cidMcClassCSession }
func (McClassCSessionAns) CID() byte { return cidMcClassCSession }
func (McClassBSessionReq) CID() byte { return cidMcClassBSession }
func (McClassBSessionAns) CID() byte { return cidMcClassBSession }

func (PackageVersionReq) Direction() applayer.Direction  { return applayer.Downlink }
func (PackageVersionAns) Direction() applayer.Direction  { return applayer.Uplink }
func (McGroupStatusReq) Direction() applayer.Direction   { return applayer.Downlink }
func (McGroupStatusAns) Direction() applayer.Direction   { return applayer.Uplink }
func (McGroupSetupReq) Direction() applayer.Direction    { return applayer.Downlink }
func (McGroupSetupAns) Direction() applayer.Direction    { return applayer.Uplink }
func (McGroupDeleteReq) Direction() applayer.Direction   { return applayer.Downlink }
func (McGroupDeleteAns) Direction() applayer.Direction   { return applayer.Uplink }
func (McClassCSessionReq) Direction() applayer.Direction { return applayer.Downlink }
func (McClassCSessionAns) Direction() applayer.Direction { return applayer.Uplink }
func (McClassBSessionReq) Direction() applayer.Direction { return applayer.Downlink }
func (McClassBSessionAns) Direction() applayer.Direction { return applayer.Uplink }

func groupID(command string, id uint8) error {
	return wire.Max(command+": McGroupID", uint32(id), MaxMcGroups-1)
}

func (c PackageVersionReq) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidPackageVersion), nil
}

func (c PackageVersionAns) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidPackageVersion, c.PackageIdentifier, c.PackageVersion), nil
}

func (c McGroupStatusReq) appendTo(dst []byte) ([]byte, error) {
	if err := wire.Max("McGroupStatusReq: ReqGroupMask", uint32(c.ReqGroupMask), 0x0f); err != nil {
		return dst, err
	}
	return append(dst, cidMcGroupStatus, c.ReqGroupMask), nil
}

func (c McGroupStatusAns) appendTo(dst []byte) ([]byte, error) {
	if err := wire.Max("McGroupStatusAns: NbTotalGroups", uint32(c.NbTotalGroups), MaxMcGroups); err != nil {
		return dst, err
	}
	for i, g := range c.Items {
		if err := groupID("McGroupStatusAns", g.McGroupID); err != nil {
			return dst, err
		}
		for _, h := range c.Items[:i] {
			if g.McGroupID == h.McGroupID {
				return dst, fmt.Errorf("McGroupStatusAns: %w: McGroupID %d is listed twice", applayer.ErrRange, g.McGroupID)
			}
		}
	}
	dst = append(dst, cidMcGroupStatus, c.NbTotalGroups<<4|c.AnsGroupMask())
	for _, g := range c.Items {
		dst = append(dst, g.McGroupID)
		dst = binary.LittleEndian.AppendUint32(dst, g.McAddr)
	}
	return dst, nil
}

func (c McGroupSetupReq) appendTo(dst []byte) ([]byte, error) {
	if err := groupID("McGroupSetupReq", c.McGroupID); err != nil {
		return dst, err
	}
	dst = append(dst, cidMcGroupSetup, c.McGroupID)
	dst = binary.LittleEndian.AppendUint32(dst, c.McAddr)
	dst = append(dst, c.McKeyEncrypted[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, c.MinMcFCnt)
	return binary.LittleEndian.AppendUint32(dst, c.MaxMcFCnt), nil
}

func (c McGroupSetupAns) appendTo(dst []byte) ([]byte, error) {
	if err := groupID("McGroupSetupAns", c.McGroupID); err != nil {
		return dst, err
	}
	return append(dst, cidMcGroupSetup, wire.Bit(c.IDError, 2)|c.McGroupID), nil
}

func (c McGroupDeleteReq) appendTo(dst []byte) ([]byte, error) {
	if err := groupID("McGroupDeleteReq", c.McGroupID); err != nil {
		return dst, err
	}
	return append(dst, cidMcGroupDelete, c.McGroupID), nil
}

func (c McGroupDeleteAns) appendTo(dst []byte) ([]byte, error) {
	if err := groupID("McGroupDeleteAns", c.McGroupID); err != nil {
		return dst, err
	}
	return append(dst, cidMcGroupDelete, wire.Bit(c.McGroupUndefined, 2)|c.McGroupID), nil
}

func (c McClassCSessionReq) appendTo(dst []byte) ([]byte, error) {
	if err := groupID("McClassCSessionReq", c.McGroupID); err != nil {
		return dst, err
	}
	if err := wire.Max("McClassCSessionReq: TimeOut", uint32(c.TimeOut), 15); err != nil {
		return dst, err
	}
	if err := frequency("McClassCSessionReq", c.DLFreq); err != nil {
		return dst, err
	}
	dst = append(dst, cidMcClassCSession, c.McGroupID)
	dst = binary.LittleEndian.AppendUint32(dst, c.SessionTime)
	dst = append(dst, c.TimeOut)
	dst = wire.AppendUint24(dst, c.DLFreq/100)
	return append(dst, c.DR), nil
}

func (c McClassBSessionReq) appendTo(dst []byte) ([]byte, error) {
	if err := groupID("McClassBSessionReq", c.McGroupID); err != nil {
		return dst, err
	}
	if c.SessionTime%128 != 0 {
		return dst, fmt.Errorf("McClassBSessionReq: SessionTime: %w: %d, want a multiple of 128 such as %d",
			applayer.ErrRange, c.SessionTime, (c.SessionTime+127)&^127)
	}
	if err := wire.Max("McClassBSessionReq: Periodicity", uint32(c.Periodicity), 7); err != nil {
		return dst, err
	}
	if err := wire.Max("McClassBSessionReq: TimeOut", uint32(c.TimeOut), 15); err != nil {
		return dst, err
	}
	if c.DLFreq != 0 {
		if err := frequency("McClassBSessionReq", c.DLFreq); err != nil {
			return dst, err
		}
	}
	dst = append(dst, cidMcClassBSession, c.McGroupID)
	dst = binary.LittleEndian.AppendUint32(dst, c.SessionTime)
	dst = append(dst, c.Periodicity<<4|c.TimeOut)
	dst = wire.AppendUint24(dst, c.DLFreq/100)
	return append(dst, c.DR), nil
}

// frequency checks what DLFreq can express; field values below 100 MHz are reserved.
func frequency(command string, hz uint32) error {
	const low, high = 100e6, 0xffffff * 100
	if hz < low || hz > high || hz%100 != 0 {
		return fmt.Errorf("%s: DLFreq: %w: %d Hz, want %d..%d in steps of 100",
			command, applayer.ErrRange, hz, uint32(low), uint32(high))
	}
	return nil
}

func (c McClassCSessionAns) appendTo(dst []byte) ([]byte, error) {
	return appendSessionAns(dst, "McClassCSessionAns", cidMcClassCSession, c)
}

func (c McClassBSessionAns) appendTo(dst []byte) ([]byte, error) {
	return appendSessionAns(dst, "McClassBSessionAns", cidMcClassBSession, McClassCSessionAns(c))
}

func appendSessionAns(dst []byte, name string, cid byte, c McClassCSessionAns) ([]byte, error) {
	if err := groupID(name, c.McGroupID); err != nil {
		return dst, err
	}
	if err := wire.Max(name+": OtherErrors", uint32(c.OtherErrors), 3); err != nil {
		return dst, err
	}
	if err := wire.Max(name+": TimeToStart", c.TimeToStart, TimeToStartUnknown); err != nil {
		return dst, err
	}
	status := c.McGroupID | wire.Bit(c.DRError, 2) | wire.Bit(c.FreqError, 3) |
		wire.Bit(c.McGroupUndefined, 4) | wire.Bit(c.StartMissed, 5) | c.OtherErrors<<6
	if c.Accepted() {
		return wire.AppendUint24(append(dst, cid, status), c.TimeToStart), nil
	}
	if c.TimeToStart != 0 {
		return dst, fmt.Errorf("%s: TimeToStart: %w: %d, but an answer with an error has none", name, applayer.ErrRange, c.TimeToStart)
	}
	return append(dst, cid, status), nil
}

// AppendCommand appends cmd in version v. On an error dst is returned unchanged.
func AppendCommand(dst []byte, v applayer.Version, cmd Command) ([]byte, error) {
	if err := wire.Version(applayer.McSetup, v, applayer.V2); err != nil {
		return dst, err
	}
	return cmd.appendTo(dst)
}

// ParseCommand reads the first command of b and returns the bytes after it.
func ParseCommand(v applayer.Version, dir applayer.Direction, b []byte) (cmd Command, rest []byte, err error) {
	return wire.ParseCommand(applayer.McSetup, applayer.V2, v, dir, b, parseDownlink, parseUplink)
}

// Parse reads a whole message. On an error it returns the commands before it.
func Parse(v applayer.Version, dir applayer.Direction, b []byte) ([]Command, error) {
	return wire.Parse(b, func(b []byte) (Command, []byte, error) { return ParseCommand(v, dir, b) })
}

func parseDownlink(v applayer.Version, cid byte, p []byte) (Command, int, error) {
	switch cid {
	case cidPackageVersion:
		return PackageVersionReq{}, 0, nil
	case cidMcGroupStatus:
		if err := wire.Need("McGroupStatusReq", p, 1); err != nil {
			return nil, 0, err
		}
		return McGroupStatusReq{ReqGroupMask: p[0] & 0x0f}, 1, nil
	case cidMcGroupSetup:
		if err := wire.Need("McGroupSetupReq", p, 29); err != nil {
			return nil, 0, err
		}
		return McGroupSetupReq{
			McGroupID:      p[0] & 0x03,
			McAddr:         binary.LittleEndian.Uint32(p[1:]),
			McKeyEncrypted: [16]byte(p[5:21]),
			MinMcFCnt:      binary.LittleEndian.Uint32(p[21:]),
			MaxMcFCnt:      binary.LittleEndian.Uint32(p[25:]),
		}, 29, nil
	case cidMcGroupDelete:
		if err := wire.Need("McGroupDeleteReq", p, 1); err != nil {
			return nil, 0, err
		}
		return McGroupDeleteReq{McGroupID: p[0] & 0x03}, 1, nil
	case cidMcClassCSession:
		if err := wire.Need("McClassCSessionReq", p, 10); err != nil {
			return nil, 0, err
		}
		return McClassCSessionReq{
			McGroupID:   p[0] & 0x03,
			SessionTime: binary.LittleEndian.Uint32(p[1:]),
			TimeOut:     p[5] & 0x0f,
			DLFreq:      wire.Uint24(p[6:]) * 100,
			DR:          p[9],
		}, 10, nil
	case cidMcClassBSession:
		if err := wire.Need("McClassBSessionReq", p, 10); err != nil {
			return nil, 0, err
		}
		return McClassBSessionReq{
			McGroupID:   p[0] & 0x03,
			SessionTime: binary.LittleEndian.Uint32(p[1:]),
			Periodicity: p[5] >> 4 & 0x07,
			TimeOut:     p[5] & 0x0f,
			DLFreq:      wire.Uint24(p[6:]) * 100,
			DR:          p[9],
		}, 10, nil
	}
	return nil, 0, wire.Unknown(applayer.McSetup, v, applayer.Downlink, cid)
}

func parseUplink(v applayer.Version, cid byte, p []byte) (Command, int, error) {
	switch cid {
	case cidPackageVersion:
		if err := wire.Need("PackageVersionAns", p, 2); err != nil {
			return nil, 0, err
		}
		return PackageVersionAns{PackageIdentifier: p[0], PackageVersion: p[1]}, 2, nil
	case cidMcGroupStatus:
		return parseGroupStatusAns(p)
	case cidMcGroupSetup:
		if err := wire.Need("McGroupSetupAns", p, 1); err != nil {
			return nil, 0, err
		}
		return McGroupSetupAns{McGroupID: p[0] & 0x03, IDError: p[0]&0x04 != 0}, 1, nil
	case cidMcGroupDelete:
		if err := wire.Need("McGroupDeleteAns", p, 1); err != nil {
			return nil, 0, err
		}
		return McGroupDeleteAns{McGroupID: p[0] & 0x03, McGroupUndefined: p[0]&0x04 != 0}, 1, nil
	case cidMcClassCSession:
		ans, n, err := parseSessionAns("McClassCSessionAns", p)
		return ans, n, err
	case cidMcClassBSession:
		ans, n, err := parseSessionAns("McClassBSessionAns", p)
		return McClassBSessionAns(ans), n, err
	}
	return nil, 0, wire.Unknown(applayer.McSetup, v, applayer.Uplink, cid)
}

func parseGroupStatusAns(p []byte) (Command, int, error) {
	if err := wire.Need("McGroupStatusAns", p, 1); err != nil {
		return nil, 0, err
	}
	mask := p[0] & 0x0f
	n := 1 + 5*bits.OnesCount8(mask)
	if err := wire.Need("McGroupStatusAns", p, n); err != nil {
		return nil, 0, err
	}
	ans := McGroupStatusAns{NbTotalGroups: p[0] >> 4 & 0x07}
	for q := p[1:n]; len(q) > 0; q = q[5:] {
		ans.Items = append(ans.Items, McGroup{McGroupID: q[0] & 0x03, McAddr: binary.LittleEndian.Uint32(q[1:])})
	}
	if got := ans.AnsGroupMask(); got != mask {
		return nil, 0, fmt.Errorf("McGroupStatusAns: %w: AnsGroupMask is %#x, but the groups listed are %#x", applayer.ErrRange, mask, got)
	}
	return ans, n, nil
}

func parseSessionAns(name string, p []byte) (McClassCSessionAns, int, error) {
	if err := wire.Need(name, p, 1); err != nil {
		return McClassCSessionAns{}, 0, err
	}
	ans := McClassCSessionAns{
		McGroupID:        p[0] & 0x03,
		DRError:          p[0]&0x04 != 0,
		FreqError:        p[0]&0x08 != 0,
		McGroupUndefined: p[0]&0x10 != 0,
		StartMissed:      p[0]&0x20 != 0,
		OtherErrors:      p[0] >> 6,
	}
	if !ans.Accepted() {
		return ans, 1, nil
	}
	if err := wire.Need(name, p, 4); err != nil {
		return McClassCSessionAns{}, 0, err
	}
	ans.TimeToStart = wire.Uint24(p[1:])
	return ans, 4, nil
}
