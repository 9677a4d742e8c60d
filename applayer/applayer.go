// Package applayer holds what the LoRa Alliance application packages have in common: their
// identifiers, default ports, versions, directions and the errors of their codecs. Each package
// lives in a directory of its own:
//
//	document  versions      identifier  default FPort  directory
//	TS003     1.0.0, 2.0.0  1           202            clocksync
//	TS004     1.0.0, 2.0.0  3           201            datablock
//	TS005     1.0.0, 2.0.0  2           200            mcsetup
//	TS006     1.0.0         4           203            fwmgmt
//	TS007     1.0.0         0           225            multipackage
//
// # Messages
//
// The application payload of a frame is a message: one or more commands back to back, each a
// command identifier (CID) and its payload. A CID means one thing downlink and another uplink.
// Integers are little endian. Commands carry no length, so after a CID that the reader does not
// know the rest of the message cannot be read.
//
// # Versions
//
// Version 1 and version 2 of a package are incompatible by their own text, and some of their
// messages have the same CID and the same length but another order of fields. Nothing on the air
// tells them apart, so every codec takes the version as a parameter and none guesses. Ask the
// device: PackageVersionReq has the same bytes in every version.
//
// # Codecs
//
// Every directory offers the same three functions:
//
//	AppendCommand(dst []byte, v applayer.Version, cmd Command) ([]byte, error)
//	ParseCommand(v applayer.Version, dir applayer.Direction, b []byte) (cmd Command, rest []byte, err error)
//	Parse(v applayer.Version, dir applayer.Direction, b []byte) ([]Command, error)
//
// AppendCommand is strict: it refuses what a conforming sender must not send, and returns dst as
// it was. ParseCommand is tolerant: it ignores bits that are reserved for future use and returns
// whatever values the layout carries, because a receiver has to answer them. Whatever
// AppendCommand writes, ParseCommand reads back as an equal value. Parse reads a whole message;
// when a command cannot be read it returns the commands before it together with the error, so that
// a device can still answer those.
//
// Both sides of every exchange are covered. There is no I/O, no clock and no state: encryption of
// the frame, retransmission and the sessions themselves are the caller's. Package fragmentation has
// the erasure code of TS004.
package applayer

import (
	"errors"
	"fmt"
)

// Version is the PackageVersion of a package, as PackageVersionAns reports it.
type Version uint8

// The versions published so far. TS006 and TS007 exist in version 1 only.
const (
	V1 Version = 1
	V2 Version = 2
)

// String returns "v1" for [V1].
func (v Version) String() string { return fmt.Sprintf("v%d", uint8(v)) }

// Direction says who sends a message.
type Direction uint8

const (
	Downlink Direction = iota // server to device
	Uplink                    // device to server
)

// String returns "downlink" or "uplink".
func (d Direction) String() string {
	switch d {
	case Downlink:
		return "downlink"
	case Uplink:
		return "uplink"
	}
	return fmt.Sprintf("direction %d", uint8(d))
}

// PackageID is the PackageIdentifier of a package.
type PackageID uint8

// The package identifiers.
const (
	MultiPackage PackageID = 0 // TS007
	ClockSync    PackageID = 1 // TS003
	McSetup      PackageID = 2 // TS005
	DataBlock    PackageID = 3 // TS004
	FwMgmt       PackageID = 4 // TS006
)

// String returns the document of the package, "TS004" for [DataBlock].
func (p PackageID) String() string {
	switch p {
	case MultiPackage:
		return "TS007"
	case ClockSync:
		return "TS003"
	case McSetup:
		return "TS005"
	case DataBlock:
		return "TS004"
	case FwMgmt:
		return "TS006"
	}
	return fmt.Sprintf("package %d", uint8(p))
}

// The default ports. Only that of TS007 is fixed; a device may have the others elsewhere and says
// so in the DevPackageAns of TS007.
const (
	FPortMcSetup      uint8 = 200
	FPortDataBlock    uint8 = 201
	FPortClockSync    uint8 = 202
	FPortFwMgmt       uint8 = 203
	FPortMultiPackage uint8 = 225
)

// Command is what the commands of all packages have in common. Each directory narrows it to its
// own closed set.
type Command interface {
	CID() byte
	Direction() Direction
}

// The errors of all codecs. The text around them names the command, the value and what was wanted.
var (
	// ErrUnknownCID means that the CID does not exist in this package, version and direction.
	ErrUnknownCID = errors.New("applayer: unknown command")
	// ErrShort means that the message ends before the command does.
	ErrShort = errors.New("applayer: truncated command")
	// ErrRange means that a value does not fit its field, or that the specification forbids it.
	ErrRange = errors.New("applayer: value out of range")
	// ErrVersion means that the package has no such version, or that the version has no such
	// command or field.
	ErrVersion = errors.New("applayer: not in this package version")
	// ErrNotAlone means that a command which must be the only one of its message is not.
	ErrNotAlone = errors.New("applayer: command must be alone in its message")
)
