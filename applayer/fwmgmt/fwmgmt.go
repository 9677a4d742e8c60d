// Package fwmgmt implements the messages of LoRa Alliance TS006, Firmware Management Protocol,
// version 1.0.0: identifier 4, default FPort 203, unicast only.
//
// It reads the versions that a device runs and has stored, and says when to reboot; a valid image
// that is stored is installed at the reboot. Versions are opaque 32-bit numbers of the
// manufacturer. Nothing here transports an image; that is package datablock.
package fwmgmt

import (
	"encoding/binary"
	"fmt"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/internal/wire"
)

const (
	cidPackageVersion byte = iota
	cidDevVersion
	cidDevRebootTime
	cidDevRebootCountdown
	cidDevUpgradeImage
	cidDevDeleteImage
)

// Special values of RebootTime and Countdown in a request. A device that reboots at once does not
// answer; one that cancels answers with the same value.
const (
	RebootNow       = 0          // RebootTime and Countdown
	CancelReboot    = 0xffffffff // RebootTime
	CancelCountdown = 0xffffff   // Countdown
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
//	  0    1  PackageIdentifier  4
//	  1    1  PackageVersion     1
type PackageVersionAns struct {
	PackageIdentifier uint8
	PackageVersion    uint8
}

// DevVersionReq is CID 0x01, downlink, without payload: what does the device run?
type DevVersionReq struct{}

// DevVersionAns is CID 0x01, uplink.
//
//	off  len  field
//	  0    4  FWversion
//	  4    4  HWversion
type DevVersionAns struct {
	FWVersion uint32 // of the image that is running
	HWVersion uint32
}

// DevRebootTimeReq is CID 0x02, downlink. A later valid request for a reboot replaces this one.
//
//	off  len  field
//	  0    4  RebootTime  GPS seconds modulo 2^32
type DevRebootTimeReq struct {
	RebootTime uint32 // when to reboot, [RebootNow] or [CancelReboot]
}

// DevRebootTimeAns is CID 0x02, uplink. Unlike the request it holds a duration.
//
//	off  len  field
//	  0    4  RebootTime
type DevRebootTimeAns struct {
	RebootTime uint32 // seconds from this answer to the reboot; 0: cannot; [CancelReboot]: cancelled
}

// DevRebootCountdownReq is CID 0x03, downlink.
//
//	off  len  field
//	  0    3  Countdown
type DevRebootCountdownReq struct {
	Countdown uint32 // 24 bits: seconds from reception, [RebootNow] or [CancelCountdown]
}

// DevRebootCountdownAns is CID 0x03, uplink.
//
//	off  len  field
//	  0    3  Countdown
type DevRebootCountdownAns struct {
	Countdown uint32 // 24 bits: seconds from this answer to the reboot; 0: cannot; [CancelCountdown]: cancelled
}

// DevUpgradeImageReq is CID 0x04, downlink, without payload: is there an image to install?
type DevUpgradeImageReq struct{}

// UpImageStatus is the state of the stored image.
type UpImageStatus uint8

const (
	NoImage       UpImageStatus = 0
	ImageCorrupt  UpImageStatus = 1 // damaged, or its signature is wrong
	WrongHardware UpImageStatus = 2
	ImageValid    UpImageStatus = 3 // will be installed at the next reboot
)

// String returns a phrase for people, "valid image" for [ImageValid].
func (s UpImageStatus) String() string {
	switch s {
	case NoImage:
		return "no image"
	case ImageCorrupt:
		return "corrupt image or wrong signature"
	case WrongHardware:
		return "image for other hardware"
	case ImageValid:
		return "valid image"
	}
	return fmt.Sprintf("image status %d", uint8(s))
}

// DevUpgradeImageAns is CID 0x04, uplink.
//
//	off  len  field
//	  0    1  Status               bits 7:2 reserved, 1:0 UpImageStatus
//	  1    4  nextFirmwareVersion  only if UpImageStatus is 3
type DevUpgradeImageAns struct {
	UpImageStatus       UpImageStatus
	NextFirmwareVersion uint32 // with [ImageValid] only, else 0
}

// DevDeleteImageReq is CID 0x05, downlink.
//
//	off  len  field
//	  0    4  FirmwareToDeleteVersion
type DevDeleteImageReq struct {
	FirmwareToDeleteVersion uint32
}

// DevDeleteImageAns is CID 0x05, uplink. If either bit is set, nothing was deleted.
//
//	off  len  field
//	  0    1  Status  bits 7:2 reserved, 1 ErrorInvalidVersion, 0 ErrorNoValidImage
type DevDeleteImageAns struct {
	ErrorNoValidImage   bool // no image is stored
	ErrorInvalidVersion bool // the image stored has another version
}

func (PackageVersionReq) CID() byte     { return cidPackageVersion }
func (PackageVersionAns) CID() byte     { return cidPackageVersion }
func (DevVersionReq) CID() byte         { return cidDevVersion }
func (DevVersionAns) CID() byte         { return cidDevVersion }
func (DevRebootTimeReq) CID() byte      { return cidDevRebootTime }
func (DevRebootTimeAns) CID() byte      { return cidDevRebootTime }
func (DevRebootCountdownReq) CID() byte { return cidDevRebootCountdown }
func (DevRebootCountdownAns) CID() byte { return cidDevRebootCountdown }
func (DevUpgradeImageReq) CID() byte    { return cidDevUpgradeImage }
func (DevUpgradeImageAns) CID() byte    { return cidDevUpgradeImage }
func (DevDeleteImageReq) CID() byte     { return cidDevDeleteImage }
func (DevDeleteImageAns) CID() byte     { return cidDevDeleteImage }

func (PackageVersionReq) Direction() applayer.Direction     { return applayer.Downlink }
func (PackageVersionAns) Direction() applayer.Direction     { return applayer.Uplink }
func (DevVersionReq) Direction() applayer.Direction         { return applayer.Downlink }
func (DevVersionAns) Direction() applayer.Direction         { return applayer.Uplink }
func (DevRebootTimeReq) Direction() applayer.Direction      { return applayer.Downlink }
func (DevRebootTimeAns) Direction() applayer.Direction      { return applayer.Uplink }
func (DevRebootCountdownReq) Direction() applayer.Direction { return applayer.Downlink }
func (DevRebootCountdownAns) Direction() applayer.Direction { return applayer.Uplink }
func (DevUpgradeImageReq) Direction() applayer.Direction    { return applayer.Downlink }
func (DevUpgradeImageAns) Direction() applayer.Direction    { return applayer.Uplink }
func (DevDeleteImageReq) Direction() applayer.Direction     { return applayer.Downlink }
func (DevDeleteImageAns) Direction() applayer.Direction     { return applayer.Uplink }

func (c PackageVersionReq) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidPackageVersion), nil
}

func (c PackageVersionAns) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidPackageVersion, c.PackageIdentifier, c.PackageVersion), nil
}

func (c DevVersionReq) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidDevVersion), nil
}

func (c DevVersionAns) appendTo(dst []byte) ([]byte, error) {
	dst = append(dst, cidDevVersion)
	dst = binary.LittleEndian.AppendUint32(dst, c.FWVersion)
	return binary.LittleEndian.AppendUint32(dst, c.HWVersion), nil
}

func (c DevRebootTimeReq) appendTo(dst []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint32(append(dst, cidDevRebootTime), c.RebootTime), nil
}

func (c DevRebootTimeAns) appendTo(dst []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint32(append(dst, cidDevRebootTime), c.RebootTime), nil
}

func (c DevRebootCountdownReq) appendTo(dst []byte) ([]byte, error) {
	if err := wire.Max("DevRebootCountdownReq: Countdown", c.Countdown, CancelCountdown); err != nil {
		return dst, err
	}
	return wire.AppendUint24(append(dst, cidDevRebootCountdown), c.Countdown), nil
}

func (c DevRebootCountdownAns) appendTo(dst []byte) ([]byte, error) {
	if err := wire.Max("DevRebootCountdownAns: Countdown", c.Countdown, CancelCountdown); err != nil {
		return dst, err
	}
	return wire.AppendUint24(append(dst, cidDevRebootCountdown), c.Countdown), nil
}

func (c DevUpgradeImageReq) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidDevUpgradeImage), nil
}

func (c DevUpgradeImageAns) appendTo(dst []byte) ([]byte, error) {
	if err := wire.Max("DevUpgradeImageAns: UpImageStatus", uint32(c.UpImageStatus), uint32(ImageValid)); err != nil {
		return dst, err
	}
	if c.UpImageStatus == ImageValid {
		return binary.LittleEndian.AppendUint32(append(dst, cidDevUpgradeImage, byte(ImageValid)), c.NextFirmwareVersion), nil
	}
	if c.NextFirmwareVersion != 0 {
		return dst, fmt.Errorf("DevUpgradeImageAns: NextFirmwareVersion: %w: %#x, but an answer with %q has none",
			applayer.ErrRange, c.NextFirmwareVersion, c.UpImageStatus)
	}
	return append(dst, cidDevUpgradeImage, byte(c.UpImageStatus)), nil
}

func (c DevDeleteImageReq) appendTo(dst []byte) ([]byte, error) {
	return binary.LittleEndian.AppendUint32(append(dst, cidDevDeleteImage), c.FirmwareToDeleteVersion), nil
}

func (c DevDeleteImageAns) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidDevDeleteImage, wire.Bit(c.ErrorNoValidImage, 0)|wire.Bit(c.ErrorInvalidVersion, 1)), nil
}

// AppendCommand appends cmd; v must be [applayer.V1]. On an error dst is returned unchanged.
func AppendCommand(dst []byte, v applayer.Version, cmd Command) ([]byte, error) {
	if err := wire.Version(applayer.FwMgmt, v, applayer.V1); err != nil {
		return dst, err
	}
	return cmd.appendTo(dst)
}

// ParseCommand reads the first command of b and returns the bytes after it; v must be
// [applayer.V1].
func ParseCommand(v applayer.Version, dir applayer.Direction, b []byte) (cmd Command, rest []byte, err error) {
	return wire.ParseCommand(applayer.FwMgmt, applayer.V1, v, dir, b, parseDownlink, parseUplink)
}

// Parse reads a whole message. On an error it returns the commands before it.
func Parse(v applayer.Version, dir applayer.Direction, b []byte) ([]Command, error) {
	return wire.Parse(b, func(b []byte) (Command, []byte, error) { return ParseCommand(v, dir, b) })
}

func parseDownlink(v applayer.Version, cid byte, p []byte) (Command, int, error) {
	switch cid {
	case cidPackageVersion:
		return PackageVersionReq{}, 0, nil
	case cidDevVersion:
		return DevVersionReq{}, 0, nil
	case cidDevRebootTime:
		if err := wire.Need("DevRebootTimeReq", p, 4); err != nil {
			return nil, 0, err
		}
		return DevRebootTimeReq{RebootTime: binary.LittleEndian.Uint32(p)}, 4, nil
	case cidDevRebootCountdown:
		if err := wire.Need("DevRebootCountdownReq", p, 3); err != nil {
			return nil, 0, err
		}
		return DevRebootCountdownReq{Countdown: wire.Uint24(p)}, 3, nil
	case cidDevUpgradeImage:
		return DevUpgradeImageReq{}, 0, nil
	case cidDevDeleteImage:
		if err := wire.Need("DevDeleteImageReq", p, 4); err != nil {
			return nil, 0, err
		}
		return DevDeleteImageReq{FirmwareToDeleteVersion: binary.LittleEndian.Uint32(p)}, 4, nil
	}
	return nil, 0, wire.Unknown(applayer.FwMgmt, v, applayer.Downlink, cid)
}

func parseUplink(v applayer.Version, cid byte, p []byte) (Command, int, error) {
	switch cid {
	case cidPackageVersion:
		if err := wire.Need("PackageVersionAns", p, 2); err != nil {
			return nil, 0, err
		}
		return PackageVersionAns{PackageIdentifier: p[0], PackageVersion: p[1]}, 2, nil
	case cidDevVersion:
		if err := wire.Need("DevVersionAns", p, 8); err != nil {
			return nil, 0, err
		}
		return DevVersionAns{
			FWVersion: binary.LittleEndian.Uint32(p),
			HWVersion: binary.LittleEndian.Uint32(p[4:]),
		}, 8, nil
	case cidDevRebootTime:
		if err := wire.Need("DevRebootTimeAns", p, 4); err != nil {
			return nil, 0, err
		}
		return DevRebootTimeAns{RebootTime: binary.LittleEndian.Uint32(p)}, 4, nil
	case cidDevRebootCountdown:
		if err := wire.Need("DevRebootCountdownAns", p, 3); err != nil {
			return nil, 0, err
		}
		return DevRebootCountdownAns{Countdown: wire.Uint24(p)}, 3, nil
	case cidDevUpgradeImage:
		if err := wire.Need("DevUpgradeImageAns", p, 1); err != nil {
			return nil, 0, err
		}
		ans := DevUpgradeImageAns{UpImageStatus: UpImageStatus(p[0] & 0x03)}
		if ans.UpImageStatus != ImageValid {
			return ans, 1, nil
		}
		if err := wire.Need("DevUpgradeImageAns", p, 5); err != nil {
			return nil, 0, err
		}
		ans.NextFirmwareVersion = binary.LittleEndian.Uint32(p[1:])
		return ans, 5, nil
	case cidDevDeleteImage:
		if err := wire.Need("DevDeleteImageAns", p, 1); err != nil {
			return nil, 0, err
		}
		return DevDeleteImageAns{ErrorNoValidImage: p[0]&0x01 != 0, ErrorInvalidVersion: p[0]&0x02 != 0}, 1, nil
	}
	return nil, 0, wire.Unknown(applayer.FwMgmt, v, applayer.Uplink, cid)
}
