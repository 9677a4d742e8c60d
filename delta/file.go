package delta

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrFile is returned for bytes that are not a patch file.
var ErrFile = errors.New("delta: not a patch file")

// File is a patch as it lies on disk: what `sower diff` writes and `sower apply` reads. Integers
// are little endian.
//
//	off  len  field         meaning
//	  0    4  magic         "SOWP"
//	  4    1  version       1
//	  5    1  Profile
//	  6    1  Options
//	  7    1  RAMBytes/256
//	  8    2  ScratchBytes/64
//	 10    3  LinkBase>>8
//	 13    3  0
//	 16    4  BaseSize
//	 20    4  NewSize
//	 24    8  BaseDigest    first 8 bytes of the SHA-256 of the old image
//	 32   16  NewDigest     first 16 bytes of the SHA-256 of the new image
//	 48    4  stream length
//	 52       stream
type File struct {
	Params     Params
	BaseDigest [8]byte
	NewDigest  [16]byte
	Stream     []byte
}

const (
	fileMagic   = "SOWP"
	fileVersion = 1
	fileHeader  = 52
)

// NewFile encodes a patch and returns it as a file.
func NewFile(old, new []byte, o Options) (*File, error) {
	p, stream, err := Encode(old, new, o)
	if err != nil {
		return nil, err
	}
	f := &File{Params: p, Stream: stream}
	b, n := sha256.Sum256(old), sha256.Sum256(new)
	copy(f.BaseDigest[:], b[:])
	copy(f.NewDigest[:], n[:])
	return f, nil
}

// AppendFile appends f to dst.
func AppendFile(dst []byte, f *File) []byte {
	le := binary.LittleEndian
	dst = append(dst, fileMagic...)
	dst = append(dst, fileVersion, f.Params.Profile, f.Params.Options, uint8(f.Params.RAMBytes/256))
	dst = le.AppendUint16(dst, uint16(f.Params.ScratchBytes/64))
	dst = le.AppendUint32(dst, f.Params.LinkBase>>8)
	dst = append(dst, 0, 0)
	dst = le.AppendUint32(dst, f.Params.BaseSize)
	dst = le.AppendUint32(dst, f.Params.NewSize)
	dst = append(dst, f.BaseDigest[:]...)
	dst = append(dst, f.NewDigest[:]...)
	dst = le.AppendUint32(dst, uint32(len(f.Stream)))
	return append(dst, f.Stream...)
}

// ParseFile reads a patch file. The stream shares memory with b. Errors wrap ErrFile or
// ErrParams.
func ParseFile(b []byte) (*File, error) {
	le := binary.LittleEndian
	if len(b) < 4 || string(b[:4]) != fileMagic {
		return nil, fmt.Errorf("%w: it does not start with %q", ErrFile, fileMagic)
	}
	if len(b) < fileHeader {
		return nil, fmt.Errorf("%w: %d bytes, the header has %d", ErrFile, len(b), fileHeader)
	}
	if b[4] != fileVersion {
		return nil, fmt.Errorf("%w: version %d, this program reads version %d", ErrFile, b[4], fileVersion)
	}
	if b[13]|b[14]|b[15] != 0 {
		return nil, fmt.Errorf("%w: reserved header bytes % x are not zero", ErrFile, b[13:16])
	}
	f := &File{Params: Params{
		Profile:      b[5],
		Options:      b[6],
		RAMBytes:     uint32(b[7]) * 256,
		ScratchBytes: uint32(le.Uint16(b[8:])) * 64,
		LinkBase:     le.Uint32(b[10:]) << 8,
		BaseSize:     le.Uint32(b[16:]),
		NewSize:      le.Uint32(b[20:]),
	}}
	copy(f.BaseDigest[:], b[24:])
	copy(f.NewDigest[:], b[32:])
	if err := f.Params.Validate(); err != nil {
		return nil, err
	}
	if n := le.Uint32(b[48:]); int64(n) != int64(len(b)-fileHeader) {
		return nil, fmt.Errorf("%w: %d bytes after the header, the header says %d", ErrFile, len(b)-fileHeader, n)
	}
	f.Stream = b[fileHeader:]
	return f, nil
}

// Apply returns the new image, after checking that old is the base and that the result has the
// digest the file names. Errors wrap ErrBase, ErrStream or ErrParams.
func (f *File) Apply(old []byte) ([]byte, error) {
	if len(old) != int(f.Params.BaseSize) {
		return nil, fmt.Errorf("%w: %d bytes, the patch was made for %d", ErrBase, len(old), f.Params.BaseSize)
	}
	if d := sha256.Sum256(old); [8]byte(d[:8]) != f.BaseDigest {
		return nil, fmt.Errorf("%w: SHA-256 begins %x, the patch was made for %x", ErrBase, d[:8], f.BaseDigest)
	}
	out, err := Decode(f.Params, old, f.Stream)
	if err != nil {
		return nil, err
	}
	if d := sha256.Sum256(out); [16]byte(d[:16]) != f.NewDigest {
		return nil, fmt.Errorf("%w: the result has SHA-256 %x, the patch promises %x", ErrStream, d[:16], f.NewDigest)
	}
	return out, nil
}
