// Package multipackage implements the messages of LoRa Alliance TS007, Multi-Package Access,
// version 1.0.0: identifier 0, FPort 225 (fixed), unicast only.
//
// It does two things. [DevPackageReq] asks a device for its packages, their versions and their
// ports. And a [Message] carries commands of several packages at once, each run of commands behind
// the identifier of its package:
//
//	downlink  [0x80|id] CID payload CID payload [0x80|id] CID payload ... CommandToken
//	uplink    the answers in the same order ............................. CommandToken
//
// Without an identifier the last one stays in force; at the start it is 0, this package. The
// CommandToken (bits 7:2 reserved, 1:0 Token) matches answers with requests. A device collects its
// answers in a buffer of at most 128 bytes; if they do not fit one uplink it sends the buffer in
// pieces, see [Split] and [Buffer].
//
// AppendCommand, ParseCommand and Parse know the commands of this package alone and no token;
// [AppendMessage] and [ParseMessage] know those of all packages. A [datablock.DataFragment] cannot
// be part of a message.
package multipackage

import (
	"fmt"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/internal/wire"
)

const (
	cidPackageVersion byte = iota
	cidDevPackage
	cidMultiPackBuffer
)

// MaxBuffer is the size of a device's answer buffer in bytes.
const MaxBuffer = 128

// bufferError takes the place of BaseByte when a device cannot send what was asked for.
const bufferError = 0xff

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
//	  0    1  PackageIdentifier  0
//	  1    1  PackageVersion     1
type PackageVersionAns struct {
	PackageIdentifier uint8
	PackageVersion    uint8
}

// DevPackageReq is CID 0x01, downlink, without payload: which packages does the device have?
type DevPackageReq struct{}

// DevPackageAns is CID 0x01, uplink.
//
//	off  len  field
//	  0    1  NbPackages  bits 7:4 reserved, 3:0 number of packages
//	  1  3*n  Packages    PackageIdentifier u8, PackageVersion u8, FPort u8
type DevPackageAns struct {
	Packages []DevPackage // at most 15, this package included
}

// DevPackage is a package in a [DevPackageAns].
type DevPackage struct {
	PackageIdentifier applayer.PackageID
	PackageVersion    applayer.Version
	FPort             uint8
}

// Versions returns what the answer says about the packages that [AppendMessage] knows.
func (c DevPackageAns) Versions() Versions {
	var vs Versions
	for _, p := range c.Packages {
		if int(p.PackageIdentifier) < len(vs) {
			vs[p.PackageIdentifier] = p.PackageVersion
		}
	}
	return vs
}

// MultiPackBufferReq is CID 0x02, downlink: send these bytes of the answer buffer again. It is alone
// in its message, which has no CommandToken.
//
//	off  len  field
//	  0    1  StartByte
//	  1    1  StopByte
type MultiPackBufferReq struct {
	StartByte uint8 // 0..127
	StopByte  uint8 // the last byte wanted; beyond the end of the buffer means to its end
}

// MultiPackBufferFrag is CID 0x02, uplink: a piece of the answer buffer. Apart from the CommandToken
// it is alone in its message.
//
//	off  len  field
//	  0    1  BaseByte  offset of Data in the buffer, or 0xff: the request was in error
//	  1    n  Data      absent after an error
type MultiPackBufferFrag struct {
	BaseByte uint8  // 0..127
	Data     []byte // ParseCommand returns a part of its input
	Error    bool   // the request had no such bytes in mind; BaseByte is 0 and Data empty
}

func (PackageVersionReq) CID() byte   { return cidPackageVersion }
func (PackageVersionAns) CID() byte   { return cidPackageVersion }
func (DevPackageReq) CID() byte       { return cidDevPackage }
func (DevPackageAns) CID() byte       { return cidDevPackage }
func (MultiPackBufferReq) CID() byte  { return cidMultiPackBuffer }
func (MultiPackBufferFrag) CID() byte { return cidMultiPackBuffer }

func (PackageVersionReq) Direction() applayer.Direction   { return applayer.Downlink }
func (PackageVersionAns) Direction() applayer.Direction   { return applayer.Uplink }
func (DevPackageReq) Direction() applayer.Direction       { return applayer.Downlink }
func (DevPackageAns) Direction() applayer.Direction       { return applayer.Uplink }
func (MultiPackBufferReq) Direction() applayer.Direction  { return applayer.Downlink }
func (MultiPackBufferFrag) Direction() applayer.Direction { return applayer.Uplink }

func (c PackageVersionReq) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidPackageVersion), nil
}

func (c PackageVersionAns) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidPackageVersion, c.PackageIdentifier, c.PackageVersion), nil
}

func (c DevPackageReq) appendTo(dst []byte) ([]byte, error) {
	return append(dst, cidDevPackage), nil
}

func (c DevPackageAns) appendTo(dst []byte) ([]byte, error) {
	if err := wire.Max("DevPackageAns: number of Packages", uint32(len(c.Packages)), 15); err != nil {
		return dst, err
	}
	dst = append(dst, cidDevPackage, byte(len(c.Packages)))
	for _, p := range c.Packages {
		dst = append(dst, byte(p.PackageIdentifier), byte(p.PackageVersion), p.FPort)
	}
	return dst, nil
}

func (c MultiPackBufferReq) appendTo(dst []byte) ([]byte, error) {
	if c.StartByte >= MaxBuffer || c.StopByte < c.StartByte {
		return dst, fmt.Errorf("MultiPackBufferReq: %w: bytes %d..%d, want 0 <= StartByte < %d and StartByte <= StopByte",
			applayer.ErrRange, c.StartByte, c.StopByte, MaxBuffer)
	}
	return append(dst, cidMultiPackBuffer, c.StartByte, c.StopByte), nil
}

func (c MultiPackBufferFrag) appendTo(dst []byte) ([]byte, error) {
	if err := c.check(); err != nil {
		return dst, err
	}
	if c.Error {
		return append(dst, cidMultiPackBuffer, bufferError), nil
	}
	return append(append(dst, cidMultiPackBuffer, c.BaseByte), c.Data...), nil
}

func (c MultiPackBufferFrag) check() error {
	if c.Error {
		if c.BaseByte != 0 || len(c.Data) != 0 {
			return fmt.Errorf("MultiPackBufferFrag: %w: BaseByte %d and %d bytes of Data beside Error, want none",
				applayer.ErrRange, c.BaseByte, len(c.Data))
		}
		return nil
	}
	if len(c.Data) == 0 || int(c.BaseByte)+len(c.Data) > MaxBuffer {
		return fmt.Errorf("MultiPackBufferFrag: %w: %d bytes from byte %d, want at least 1, up to byte %d",
			applayer.ErrRange, len(c.Data), c.BaseByte, MaxBuffer-1)
	}
	return nil
}

// AppendCommand appends cmd; v must be [applayer.V1]. On an error dst is returned unchanged.
func AppendCommand(dst []byte, v applayer.Version, cmd Command) ([]byte, error) {
	if err := wire.Version(applayer.MultiPackage, v, applayer.V1); err != nil {
		return dst, err
	}
	return cmd.appendTo(dst)
}

// ParseCommand reads the first command of b, which must not include the CommandToken, and returns
// the bytes after it. A [MultiPackBufferFrag] takes all of b; v must be [applayer.V1].
func ParseCommand(v applayer.Version, dir applayer.Direction, b []byte) (cmd Command, rest []byte, err error) {
	return wire.ParseCommand(applayer.MultiPackage, applayer.V1, v, dir, b, parseDownlink, parseUplink)
}

// Parse reads commands of this package up to the end of b, which must not include the
// CommandToken. On an error it returns the commands before it; a buffer command beside another
// one is the error [applayer.ErrNotAlone].
func Parse(v applayer.Version, dir applayer.Direction, b []byte) ([]Command, error) {
	first := true
	return wire.Parse(b, func(b []byte) (Command, []byte, error) {
		cmd, rest, err := ParseCommand(v, dir, b)
		if err == nil && cmd.CID() == cidMultiPackBuffer && (!first || len(rest) > 0) {
			return nil, nil, fmt.Errorf("%T: %w", cmd, applayer.ErrNotAlone)
		}
		first = false
		return cmd, rest, err
	})
}

func parseDownlink(v applayer.Version, cid byte, p []byte) (Command, int, error) {
	switch cid {
	case cidPackageVersion:
		return PackageVersionReq{}, 0, nil
	case cidDevPackage:
		return DevPackageReq{}, 0, nil
	case cidMultiPackBuffer:
		if err := wire.Need("MultiPackBufferReq", p, 2); err != nil {
			return nil, 0, err
		}
		return MultiPackBufferReq{StartByte: p[0], StopByte: p[1]}, 2, nil
	}
	return nil, 0, wire.Unknown(applayer.MultiPackage, v, applayer.Downlink, cid)
}

func parseUplink(v applayer.Version, cid byte, p []byte) (Command, int, error) {
	switch cid {
	case cidPackageVersion:
		if err := wire.Need("PackageVersionAns", p, 2); err != nil {
			return nil, 0, err
		}
		return PackageVersionAns{PackageIdentifier: p[0], PackageVersion: p[1]}, 2, nil
	case cidDevPackage:
		if err := wire.Need("DevPackageAns", p, 1); err != nil {
			return nil, 0, err
		}
		n := 1 + 3*int(p[0]&0x0f)
		if err := wire.Need("DevPackageAns", p, n); err != nil {
			return nil, 0, err
		}
		var ans DevPackageAns
		for q := p[1:n]; len(q) > 0; q = q[3:] {
			ans.Packages = append(ans.Packages, DevPackage{applayer.PackageID(q[0]), applayer.Version(q[1]), q[2]})
		}
		return ans, n, nil
	case cidMultiPackBuffer:
		if err := wire.Need("MultiPackBufferFrag", p, 1); err != nil {
			return nil, 0, err
		}
		if p[0] == bufferError {
			return MultiPackBufferFrag{Error: true}, 1, nil
		}
		c := MultiPackBufferFrag{BaseByte: p[0], Data: p[1:]}
		return c, len(p), c.check()
	}
	return nil, 0, wire.Unknown(applayer.MultiPackage, v, applayer.Uplink, cid)
}
