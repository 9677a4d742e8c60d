// Package clocksync implements the messages of LoRa Alliance TS003, Application Layer Clock
// Synchronization, versions 1.0.0 and 2.0.0: identifier 1, default FPort 202, unicast only.
//
// The bytes are the same in both versions; version 2 renames ForceDeviceResyncReq to
// [ForceDeviceResyncCmd] and changes what the two sides do. Device times are GPS seconds (since
// 1980-01-06 00:00:00, without leap seconds) modulo 2^32.
//
// The device asks with [AppTimeReq]; the server compares the time in it with the time at which the
// network received the uplink and answers with the difference, see [TimeCorrection]. The package
// keeps no clock and does not decide when to answer.
package clocksync

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/internal/wire"
)

const (
	cidPackageVersion byte = iota
	cidAppTime
	cidDeviceAppTimePeriodicity
	cidForceDeviceResync
)

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
//	  0    1  PackageIdentifier  1
//	  1    1  PackageVersion     1 or 2
type PackageVersionAns struct {
	PackageIdentifier uint8
	PackageVersion    uint8
}

// AppTimeReq is CID 0x01, uplink: the device reports its clock.
//
//	off  len  field
//	  0    4  DeviceTime  GPS seconds modulo 2^32, taken immediately before transmission
//	  4    1  Param       bits 7:5 reserved, 4 AnsRequired, 3:0 TokenReq
type AppTimeReq struct {
	DeviceTime  uint32
	AnsRequired bool  // the device wants an answer even if its clock is right
	TokenReq    uint8 // 0..15, incremented whenever an AppTimeAns was accepted
}

// AppTimeAns is CID 0x01, downlink: the seconds that the device must add to its clock.
//
//	off  len  field
//	  0    4  TimeCorrection  signed seconds
//	  4    1  Param           bits 7:4 reserved, 3:0 TokenAns
type AppTimeAns struct {
	TimeCorrection int32
	TokenAns       uint8 // TokenReq of the request; the device ignores any other
}

// DeviceAppTimePeriodicityReq is CID 0x02, downlink: send AppTimeReq regularly.
//
//	off  len  field
//	  0    1  Periodicity  bits 7:4 reserved, 3:0 Period
type DeviceAppTimePeriodicityReq struct {
	Period uint8 // 0..15; every 128 * 2^Period seconds, give or take 30 s at random
}

// Interval returns the time between two AppTimeReq that Period asks for, 128 s to 4194304 s.
func (c DeviceAppTimePeriodicityReq) Interval() time.Duration {
	return 128 * time.Second << (c.Period & 0x0f)
}

// DeviceAppTimePeriodicityAns is CID 0x02, uplink.
//
//	off  len  field
//	  0    1  Status      bits 7:1 reserved, 0 NotSupported
//	  1    4  DeviceTime  GPS seconds modulo 2^32; version 1 calls the field Time
type DeviceAppTimePeriodicityAns struct {
	NotSupported bool // the device chooses the period itself
	DeviceTime   uint32
}

// ForceDeviceResyncCmd is CID 0x03, downlink, called ForceDeviceResyncReq in version 1: send
// AppTimeReq now. There is no answer of its own.
//
//	off  len  field
//	  0    1  ForceConf  bits 7:3 reserved, 2:0 NbTransmissions
type ForceDeviceResyncCmd struct {
	NbTransmissions uint8 // 0..7; the device stops at the first valid AppTimeAns
}

func (PackageVersionReq) CID() byte           { return cidPackageVersion }
func (PackageVersionAns) CID() byte           { return cidPackageVersion }
func (AppTimeReq) CID() byte                  { return cidAppTime }
func (AppTimeAns) CID() byte                  { return cidAppTime }
func (DeviceAppTimePeriodicityReq) CID() byte { return cidDeviceAppTimePeriodicity }
func (DeviceAppTimePeriodicityAns) CID() byte { return cidDeviceAppTimePeriodicity }
func (ForceDeviceResyncCmd) CID() byte        { return cidForceDeviceResync }

func (PackageVersionReq) Direction() applayer.Direction           { return applayer.Downlink }
func (PackageVersionAns) Direction() applayer.Direction           { return applayer.Uplink }
func (AppTimeReq) Direction() applayer.Direction                  { return applayer.Uplink }
func (AppTimeAns) Direction() applayer.Direction                  { return applayer.Downlink }
func (DeviceAppTimePeriodicityReq) Direction() applayer.Direction { return applayer.Downlink }
func (DeviceAppTimePeriodicityAns) Direction() applayer.Direction { return applayer.Uplink }
func (ForceDeviceResyncCmd) Direction() applayer.Direction        { return applayer.Downlink }

func (c PackageVersionReq) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidPackageVersion), nil
}

func (c PackageVersionAns) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidPackageVersion, c.PackageIdentifier, c.PackageVersion), nil
}

func (c AppTimeReq) appendTo(dst []byte) ([]byte, error) {
	if err := wire.Max("AppTimeReq: TokenReq", uint32(c.TokenReq), 15); err != nil {
		return dst, err
	}
	dst = append(dst, cidAppTime)
	dst = binary.LittleEndian.AppendUint32(dst, c.DeviceTime)
	return append(dst, wire.Bit(c.AnsRequired, 4)|c.TokenReq), nil
}

func (c AppTimeAns) appendTo(dst []byte) ([]byte, error) {
	if err := wire.Max("AppTimeAns: TokenAns", uint32(c.TokenAns), 15); err != nil {
		return dst, err
	}
	dst = append(dst, cidAppTime)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(c.TimeCorrection))
	return append(dst, c.TokenAns), nil
}

func (c DeviceAppTimePeriodicityReq) appendTo(dst []byte) ([]byte, error) {
	if err := wire.Max("DeviceAppTimePeriodicityReq: Period", uint32(c.Period), 15); err != nil {
		return dst, err
	}
	return append(dst, cidDeviceAppTimePeriodicity, c.Period), nil
}

func (c DeviceAppTimePeriodicityAns) appendTo(dst []byte) ([]byte, error) {
	dst = append(dst, cidDeviceAppTimePeriodicity, wire.Bit(c.NotSupported, 0))
	return binary.LittleEndian.AppendUint32(dst, c.DeviceTime), nil
}

func (c ForceDeviceResyncCmd) appendTo(dst []byte) ([]byte, error) {
	if err := wire.Max("ForceDeviceResyncCmd: NbTransmissions", uint32(c.NbTransmissions), 7); err != nil {
		return dst, err
	}
	return append(dst, cidForceDeviceResync, c.NbTransmissions), nil
}

// AppendCommand appends cmd in version v. On an error dst is returned unchanged.
func AppendCommand(dst []byte, v applayer.Version, cmd Command) ([]byte, error) {
	if err := wire.Version(applayer.ClockSync, v, applayer.V2); err != nil {
		return dst, err
	}
	return cmd.appendTo(dst)
}

// ParseCommand reads the first command of b and returns the bytes after it.
func ParseCommand(v applayer.Version, dir applayer.Direction, b []byte) (cmd Command, rest []byte, err error) {
	return wire.ParseCommand(applayer.ClockSync, applayer.V2, v, dir, b, parseDownlink, parseUplink)
}

// Parse reads a whole message. On an error it returns the commands before it.
func Parse(v applayer.Version, dir applayer.Direction, b []byte) ([]Command, error) {
	return wire.Parse(b, func(b []byte) (Command, []byte, error) { return ParseCommand(v, dir, b) })
}

func parseDownlink(v applayer.Version, cid byte, p []byte) (Command, int, error) {
	switch cid {
	case cidPackageVersion:
		return PackageVersionReq{}, 0, nil
	case cidAppTime:
		if err := wire.Need("AppTimeAns", p, 5); err != nil {
			return nil, 0, err
		}
		return AppTimeAns{
			TimeCorrection: int32(binary.LittleEndian.Uint32(p)),
			TokenAns:       p[4] & 0x0f,
		}, 5, nil
	case cidDeviceAppTimePeriodicity:
		if err := wire.Need("DeviceAppTimePeriodicityReq", p, 1); err != nil {
			return nil, 0, err
		}
		return DeviceAppTimePeriodicityReq{Period: p[0] & 0x0f}, 1, nil
	case cidForceDeviceResync:
		if err := wire.Need("ForceDeviceResyncCmd", p, 1); err != nil {
			return nil, 0, err
		}
		return ForceDeviceResyncCmd{NbTransmissions: p[0] & 0x07}, 1, nil
	}
	return nil, 0, wire.Unknown(applayer.ClockSync, v, applayer.Downlink, cid)
}

func parseUplink(v applayer.Version, cid byte, p []byte) (Command, int, error) {
	switch cid {
	case cidPackageVersion:
		if err := wire.Need("PackageVersionAns", p, 2); err != nil {
			return nil, 0, err
		}
		return PackageVersionAns{PackageIdentifier: p[0], PackageVersion: p[1]}, 2, nil
	case cidAppTime:
		if err := wire.Need("AppTimeReq", p, 5); err != nil {
			return nil, 0, err
		}
		return AppTimeReq{
			DeviceTime:  binary.LittleEndian.Uint32(p),
			AnsRequired: p[4]&0x10 != 0,
			TokenReq:    p[4] & 0x0f,
		}, 5, nil
	case cidDeviceAppTimePeriodicity:
		if err := wire.Need("DeviceAppTimePeriodicityAns", p, 5); err != nil {
			return nil, 0, err
		}
		return DeviceAppTimePeriodicityAns{
			NotSupported: p[0]&0x01 != 0,
			DeviceTime:   binary.LittleEndian.Uint32(p[1:]),
		}, 5, nil
	}
	return nil, 0, wire.Unknown(applayer.ClockSync, v, applayer.Uplink, cid)
}

// TimeCorrection returns the seconds by which a clock that showed deviceTime is behind an uplink
// received at the GPS time received, both in seconds; negative if it is ahead. Take received from
// the gateway or the network server, not from the moment of processing.
//
// A difference beyond 32 bits saturates, as version 2 prescribes: the device then asks again for
// the remainder. Times up to 2116-02 are told apart; from then on DeviceTime repeats.
func TimeCorrection(received int64, deviceTime uint32) int32 {
	d := received - int64(deviceTime)
	return int32(min(max(d, math.MinInt32), math.MaxInt32))
}
