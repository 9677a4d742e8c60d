// Package bundle makes and judges the update block: what is fragmented, sent, reassembled and verified.
//
// A bundle is a manifest of [ManifestSize] bytes in a fixed layout, followed by the payload. The manifest
// comes first so that a device can refuse a wrong update after a few fragments. It binds the target, the
// version, the base and new images and the payload, and is signed by ECDSA P-256 over SHA-256 with
// deterministic nonces (RFC 6979). The layout is the same as in firmware-stub/include/sow_manifest.h.
//
// The package does no I/O and reads no clock. It does not decide whether a bundle suits a device; the device
// and the planner do.
package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// ManifestSize is the length of a manifest in bytes, signature included.
	ManifestSize = 160
	// signedSize is the part of the manifest that the signature covers.
	signedSize = 96

	magic  = 'S'
	format = 1

	maxSize = 1<<24 - 1 // sizes have 24 bits
)

var (
	// ErrFormat is returned for bytes that are no bundle of a format version this package knows.
	ErrFormat = errors.New("bundle: not a bundle")
	// ErrField is returned by [Sign] for a manifest whose field does not fit its layout.
	ErrField = errors.New("bundle: manifest field out of range")
	// ErrSignature is returned by [Verify] when the signature is not of this key.
	ErrSignature = errors.New("bundle: signature does not verify")
	// ErrDigest is returned when the payload is not the one that was signed.
	ErrDigest = errors.New("bundle: payload digest does not match")
)

// Codec says what the payload is.
type Codec uint8

// The payload codecs.
const (
	CodecFull  Codec = 0 // the new image itself
	CodecPatch Codec = 1 // a stream of package delta against the base image
	CodecZstd  Codec = 2 // the new image compressed; for Linux-class devices only
)

var codecNames = [...]string{"full", "patch", "zstd"}

// String returns "full", "patch" or "zstd".
func (c Codec) String() string {
	if int(c) < len(codecNames) {
		return codecNames[c]
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

// Version is a firmware version as TS006 reports it: major<<24 | minor<<16 | revision, from MCUboot's ih_ver.
type Version uint32

// MakeVersion packs an MCUboot version; its build number is not part of it.
func MakeVersion(major, minor uint8, revision uint16) Version {
	return Version(major)<<24 | Version(minor)<<16 | Version(revision)
}

// String returns "major.minor.revision".
func (v Version) String() string {
	return fmt.Sprintf("%d.%d.%d", uint8(v>>24), uint8(v>>16), uint16(v))
}

// ParseVersion reads "major.minor.revision".
func ParseVersion(s string) (Version, error) {
	parts := strings.Split(s, ".")
	var v [3]uint64
	for i, bits := range []int{8, 8, 16} {
		var err error
		if len(parts) == len(v) {
			v[i], err = strconv.ParseUint(parts[i], 10, bits)
		}
		if len(parts) != len(v) || err != nil {
			return 0, fmt.Errorf("bundle: version %q, want MAJOR.MINOR.REVISION within 255.255.65535", s)
		}
	}
	return MakeVersion(uint8(v[0]), uint8(v[1]), uint16(v[2])), nil
}

// Manifest is what a bundle says of itself. Payload size and digest are filled in by [Sign].
//
//	off  len  field           meaning (integers are little endian)
//	  0    1  magic           0x53 'S'
//	  1    1  format          1
//	  2    1  Codec
//	  3    1  flags           0
//	  4    4  Class           device class
//	  8    2  Hardware        hardware id
//	 10    1  KeyID           1..255
//	 11    1  RAM             units of 256 bytes
//	 12    4  Version
//	 16    4  Sequence        anti-rollback; must exceed the last one confirmed on the device
//	 20    4  Expiry          GPS seconds; 0: none
//	 24    3  NewSize         bytes
//	 27    3  BaseSize        bytes; 0: no base needed
//	 30    3  PayloadSize     bytes
//	 33    3  LinkBase        units of 256 bytes
//	 36    2  Scratch         units of 64 bytes
//	 38    1  Profile         of the patch codec
//	 39    1  Options         of the patch codec
//	 40    8  BaseDigest      first bytes of SHA-256 of the base image
//	 48   16  PayloadDigest   first bytes of SHA-256 of the payload
//	 64   32  NewDigest       SHA-256 of the new image
//	 96   64  signature       r|s, big endian, over SHA-256 of bytes 0..95
type Manifest struct {
	Codec         Codec
	Class         uint32
	Hardware      uint16
	KeyID         uint8
	Version       Version
	Sequence      uint32
	Expiry        uint32
	NewSize       uint32
	BaseSize      uint32
	PayloadSize   uint32
	LinkBase      uint32 // address; a multiple of 256
	Scratch       uint32 // bytes; a multiple of 64
	RAM           uint32 // bytes; a multiple of 256
	Profile       uint8
	Options       uint8
	BaseDigest    [8]byte
	PayloadDigest [16]byte
	NewDigest     [32]byte
}

// appendSigned appends the signed part of the manifest.
func (m Manifest) appendSigned(dst []byte) ([]byte, error) {
	for _, f := range []struct {
		name        string
		value, unit uint32
		max         uint32
	}{
		{"new size", m.NewSize, 1, maxSize},
		{"base size", m.BaseSize, 1, maxSize},
		{"payload size", m.PayloadSize, 1, maxSize},
		{"link base", m.LinkBase, 256, 1<<32 - 256},
		{"scratch", m.Scratch, 64, 0xffff * 64},
		{"RAM", m.RAM, 256, 0xff * 256},
	} {
		if f.value%f.unit != 0 || f.value > f.max {
			return nil, fmt.Errorf("%w: %s %d, want a multiple of %d up to %d", ErrField, f.name, f.value, f.unit, f.max)
		}
	}
	if m.KeyID == 0 {
		return nil, fmt.Errorf("%w: key id 0, want 1..255", ErrField)
	}
	if m.NewSize == 0 {
		return nil, fmt.Errorf("%w: the new image is empty", ErrField)
	}
	if int(m.Codec) >= len(codecNames) {
		return nil, fmt.Errorf("%w: %s", ErrField, m.Codec)
	}
	le := binary.LittleEndian
	b := append(dst, magic, format, byte(m.Codec), 0)
	b = le.AppendUint32(b, m.Class)
	b = le.AppendUint16(b, m.Hardware)
	b = append(b, m.KeyID, byte(m.RAM/256))
	b = le.AppendUint32(b, uint32(m.Version))
	b = le.AppendUint32(b, m.Sequence)
	b = le.AppendUint32(b, m.Expiry)
	b = appendUint24(b, m.NewSize)
	b = appendUint24(b, m.BaseSize)
	b = appendUint24(b, m.PayloadSize)
	b = appendUint24(b, m.LinkBase>>8)
	b = le.AppendUint16(b, uint16(m.Scratch/64))
	b = append(b, m.Profile, m.Options)
	b = append(b, m.BaseDigest[:]...)
	b = append(b, m.PayloadDigest[:]...)
	return append(b, m.NewDigest[:]...), nil
}

// ParseManifest decodes the manifest at the start of b. It checks neither signature nor payload.
func ParseManifest(b []byte) (Manifest, error) {
	if len(b) < ManifestSize {
		return Manifest{}, fmt.Errorf("%w: %d bytes, a manifest has %d", ErrFormat, len(b), ManifestSize)
	}
	if b[0] != magic {
		return Manifest{}, fmt.Errorf("%w: first byte 0x%02x, want 0x%02x", ErrFormat, b[0], magic)
	}
	if b[1] != format {
		return Manifest{}, fmt.Errorf("%w: format version %d, want %d", ErrFormat, b[1], format)
	}
	if int(b[2]) >= len(codecNames) {
		return Manifest{}, fmt.Errorf("%w: payload codec %d is unknown", ErrFormat, b[2])
	}
	if b[3] != 0 {
		return Manifest{}, fmt.Errorf("%w: flags 0x%02x, want 0", ErrFormat, b[3])
	}
	le := binary.LittleEndian
	m := Manifest{
		Codec:       Codec(b[2]),
		Class:       le.Uint32(b[4:]),
		Hardware:    le.Uint16(b[8:]),
		KeyID:       b[10],
		RAM:         uint32(b[11]) * 256,
		Version:     Version(le.Uint32(b[12:])),
		Sequence:    le.Uint32(b[16:]),
		Expiry:      le.Uint32(b[20:]),
		NewSize:     uint24(b[24:]),
		BaseSize:    uint24(b[27:]),
		PayloadSize: uint24(b[30:]),
		LinkBase:    uint24(b[33:]) << 8,
		Scratch:     uint32(le.Uint16(b[36:])) * 64,
		Profile:     b[38],
		Options:     b[39],
	}
	copy(m.BaseDigest[:], b[40:])
	copy(m.PayloadDigest[:], b[48:])
	copy(m.NewDigest[:], b[64:])
	return m, nil
}

func appendUint24(b []byte, v uint32) []byte {
	return append(b, byte(v), byte(v>>8), byte(v>>16))
}

func uint24(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
}
