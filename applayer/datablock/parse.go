package datablock

import (
	"encoding/binary"
	"fmt"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/internal/wire"
)

// ParseCommand reads the first command of b and returns the bytes after it. A [DataFragment] takes
// all of b.
func ParseCommand(v applayer.Version, dir applayer.Direction, b []byte) (cmd Command, rest []byte, err error) {
	return wire.ParseCommand(applayer.DataBlock, applayer.V2, v, dir, b, parseDownlink, parseUplink)
}

// Parse reads a whole message. On an error it returns the commands before it; a [DataFragment]
// behind another command is the error [applayer.ErrNotAlone].
func Parse(v applayer.Version, dir applayer.Direction, b []byte) ([]Command, error) {
	first := true
	return wire.Parse(b, func(b []byte) (Command, []byte, error) {
		cmd, rest, err := ParseCommand(v, dir, b)
		if _, ok := cmd.(DataFragment); ok && !first {
			return nil, nil, fmt.Errorf("DataFragment: %w", applayer.ErrNotAlone)
		}
		first = false
		return cmd, rest, err
	})
}

func parseDownlink(v applayer.Version, cid byte, p []byte) (Command, int, error) {
	switch {
	case cid == cidPackageVersion:
		return PackageVersionReq{}, 0, nil
	case cid == cidFragSessionStatus:
		if err := wire.Need("FragSessionStatusReq", p, 1); err != nil {
			return nil, 0, err
		}
		return FragSessionStatusReq{FragIndex: p[0] >> 1 & 0x03, Participants: p[0]&0x01 != 0}, 1, nil
	case cid == cidFragSessionSetup:
		return parseSetupReq(v, p)
	case cid == cidFragSessionDelete:
		if err := wire.Need("FragSessionDeleteReq", p, 1); err != nil {
			return nil, 0, err
		}
		return FragSessionDeleteReq{FragIndex: p[0] & 0x03}, 1, nil
	case cid == cidFragDataBlockReceived && v >= applayer.V2:
		if err := wire.Need("FragDataBlockReceivedAns", p, 1); err != nil {
			return nil, 0, err
		}
		return FragDataBlockReceivedAns{FragIndex: p[0] & 0x03}, 1, nil
	case cid == cidDataFragment:
		if err := wire.Need("DataFragment", p, 3); err != nil {
			return nil, 0, err
		}
		indexN := binary.LittleEndian.Uint16(p)
		c := DataFragment{FragIndex: uint8(indexN >> 14), N: indexN & MaxN, Data: p[2:]}
		return c, len(p), c.check()
	}
	return nil, 0, wire.Unknown(applayer.DataBlock, v, applayer.Downlink, cid)
}

func parseSetupReq(v applayer.Version, p []byte) (Command, int, error) {
	n := setupSizeV1
	if v >= applayer.V2 {
		n = setupSizeV2
	}
	if err := wire.Need("FragSessionSetupReq", p, n); err != nil {
		return nil, 0, err
	}
	c := FragSessionSetupReq{
		FragIndex:      p[0] >> 4 & 0x03,
		McGroupBitMask: p[0] & 0x0f,
		NbFrag:         binary.LittleEndian.Uint16(p[1:]),
		FragSize:       p[3],
		FragAlgo:       p[4] >> 3 & 0x07,
		BlockAckDelay:  p[4] & 0x07,
		Padding:        p[5],
		Descriptor:     [4]byte(p[6:10]),
	}
	if v >= applayer.V2 {
		c.AckReception = p[4]&0x40 != 0
		c.SessionCnt = binary.LittleEndian.Uint16(p[10:])
		c.MIC = [4]byte(p[12:16])
	}
	return c, n, nil
}

func parseUplink(v applayer.Version, cid byte, p []byte) (Command, int, error) {
	switch {
	case cid == cidPackageVersion:
		if err := wire.Need("PackageVersionAns", p, 2); err != nil {
			return nil, 0, err
		}
		return PackageVersionAns{PackageIdentifier: p[0], PackageVersion: p[1]}, 2, nil
	case cid == cidFragSessionStatus && v == applayer.V1:
		if err := wire.Need("FragSessionStatusAns", p, statusSize); err != nil {
			return nil, 0, err
		}
		c := parseReceived(p[0:3])
		c.MemoryError = p[3]&0x01 != 0
		return c, statusSize, nil
	case cid == cidFragSessionStatus:
		return parseStatusAnsV2(p)
	case cid == cidFragSessionSetup:
		if err := wire.Need("FragSessionSetupAns", p, 1); err != nil {
			return nil, 0, err
		}
		return FragSessionSetupAns{
			FragIndex:            p[0] >> 6,
			FragAlgoUnsupported:  p[0]&0x01 != 0,
			NotEnoughMemory:      p[0]&0x02 != 0,
			FragIndexUnsupported: p[0]&0x04 != 0,
			WrongDescriptor:      p[0]&0x08 != 0,
			SessionCntReplay:     p[0]&0x10 != 0 && v >= applayer.V2,
		}, 1, nil
	case cid == cidFragSessionDelete:
		if err := wire.Need("FragSessionDeleteAns", p, 1); err != nil {
			return nil, 0, err
		}
		return FragSessionDeleteAns{FragIndex: p[0] & 0x03, SessionDoesNotExist: p[0]&0x04 != 0}, 1, nil
	case cid == cidFragDataBlockReceived && v >= applayer.V2:
		if err := wire.Need("FragDataBlockReceivedReq", p, 1); err != nil {
			return nil, 0, err
		}
		return FragDataBlockReceivedReq{FragIndex: p[0] & 0x03, MICError: p[0]&0x04 != 0}, 1, nil
	}
	return nil, 0, wire.Unknown(applayer.DataBlock, v, applayer.Uplink, cid)
}

// parseReceived reads Received&index and MissingFrag, which both versions have in this order.
func parseReceived(p []byte) FragSessionStatusAns {
	received := binary.LittleEndian.Uint16(p)
	return FragSessionStatusAns{
		FragIndex:      uint8(received >> 14),
		NbFragReceived: received & MaxN,
		MissingFrag:    p[2],
	}
}

func parseStatusAnsV2(p []byte) (Command, int, error) {
	if err := wire.Need("FragSessionStatusAns", p, statusSizeShort); err != nil {
		return nil, 0, err
	}
	if p[0]&0x04 != 0 {
		c := FragSessionStatusAns{SessionDoesNotExist: true}
		if len(p) >= statusSize && !readable(p[statusSizeShort:]) && readable(p[statusSize:]) {
			return c, statusSize, nil
		}
		return c, statusSizeShort, nil
	}
	if err := wire.Need("FragSessionStatusAns", p, statusSize); err != nil {
		return nil, 0, err
	}
	c := parseReceived(p[1:4])
	c.MemoryError = p[0]&0x01 != 0
	c.MICError = p[0]&0x02 != 0
	return c, statusSize, nil
}

// readable reports whether b is a whole number of version 2 uplink commands. A PackageVersionAns
// counts only if it names this package and version: 00 00 00 is what a device with nothing
// received puts into the three bytes without meaning.
func readable(b []byte) bool {
	ok := make([]bool, len(b)+1) // ok[i]: b[i:] is a whole number of commands
	ok[len(b)] = true
	follows := func(i int) bool { return i <= len(b) && ok[i] }
	for i := len(b) - 2; i >= 0; i-- {
		switch b[i] {
		case cidPackageVersion:
			ok[i] = follows(i+3) && b[i+1] == byte(applayer.DataBlock) && b[i+2] == byte(applayer.V2)
		case cidFragSessionStatus:
			ok[i] = follows(i+1+statusSize) || b[i+1]&0x04 != 0 && follows(i+1+statusSizeShort)
		case cidFragSessionSetup, cidFragSessionDelete, cidFragDataBlockReceived:
			ok[i] = follows(i + 2)
		}
	}
	return ok[0]
}
