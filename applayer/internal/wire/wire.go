// Package wire has the few steps that the codecs of all application packages share.
package wire

import (
	"fmt"

	"github.com/sower-fuota/sower/applayer"
)

// Version checks that v is one of the versions 1..last of a package.
func Version(p applayer.PackageID, v, last applayer.Version) error {
	if v < applayer.V1 || v > last {
		return fmt.Errorf("%v: %w: %d, want 1..%d", p, applayer.ErrVersion, uint8(v), uint8(last))
	}
	return nil
}

// Unknown is the error for a CID that the package does not have.
func Unknown(p applayer.PackageID, v applayer.Version, dir applayer.Direction, cid byte) error {
	return fmt.Errorf("%v %v %v CID %#02x: %w", p, v, dir, cid, applayer.ErrUnknownCID)
}

// Need checks that at least n bytes of payload are there.
func Need(name string, p []byte, n int) error {
	if len(p) < n {
		return fmt.Errorf("%s: %w: %d payload bytes, want %d", name, applayer.ErrShort, len(p), n)
	}
	return nil
}

// Max checks that a field holds at most limit.
func Max(name string, value, limit uint32) error {
	if value > limit {
		return fmt.Errorf("%s: %w: %d, want 0..%d", name, applayer.ErrRange, value, limit)
	}
	return nil
}

// Bit returns 1<<n if set is true, else 0.
func Bit(set bool, n uint) byte {
	if set {
		return 1 << n
	}
	return 0
}

// AppendUint24 appends the low 24 bits of v, little endian.
func AppendUint24(dst []byte, v uint32) []byte {
	return append(dst, byte(v), byte(v>>8), byte(v>>16))
}

// Uint24 reads 3 bytes, little endian.
func Uint24(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
}

// ParseCommand reads the first command of b, of a package that has the versions 1..last, and returns the
// bytes after it. downlink and uplink read what follows a CID and say how many bytes it took.
func ParseCommand[C applayer.Command](p applayer.PackageID, last, v applayer.Version, dir applayer.Direction, b []byte,
	downlink, uplink func(v applayer.Version, cid byte, payload []byte) (C, int, error)) (cmd C, rest []byte, err error) {
	var none C
	if err := Version(p, v, last); err != nil {
		return none, nil, err
	}
	if len(b) == 0 {
		return none, nil, fmt.Errorf("message: %w: no bytes, want a CID", applayer.ErrShort)
	}
	cid, payload := b[0], b[1:]
	var n int
	switch dir {
	case applayer.Downlink:
		cmd, n, err = downlink(v, cid, payload)
	case applayer.Uplink:
		cmd, n, err = uplink(v, cid, payload)
	default:
		err = Unknown(p, v, dir, cid)
	}
	if err != nil {
		return none, nil, err
	}
	return cmd, payload[n:], nil
}

// Parse reads commands until b is used up. On an error it returns the commands before it.
func Parse[C applayer.Command](b []byte, next func([]byte) (C, []byte, error)) ([]C, error) {
	var cmds []C
	for rest := b; ; {
		at := len(b) - len(rest)
		cmd, tail, err := next(rest)
		if err != nil {
			if at > 0 {
				err = fmt.Errorf("command %d at byte %d: %w", len(cmds)+1, at, err)
			}
			return cmds, err
		}
		cmds = append(cmds, cmd)
		if len(tail) == 0 {
			return cmds, nil
		}
		rest = tail
	}
}
