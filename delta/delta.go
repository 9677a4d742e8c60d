// Package delta makes and applies firmware patches: old image + new image to [Params] and a
// stream of bytes, and back. Every byte of the stream is paid in airtime by a whole fleet and
// is decoded by a microcontroller, so the format trades encoder time for size and bounds what
// the decoder may spend in memory and cycles. The format is docs/spec/patch.md; the device's
// decoder is firmware-stub/src/sow_patch.c and produces the same bytes.
//
// A stream has no header, digest or signature of its own: package bundle binds Params, the base
// and the new image in a signed manifest. Only the patch file ([File]) carries a header. The
// package does no I/O, keeps no globals that change, and starts no goroutine.
package delta

import (
	"bytes"
	"errors"
	"fmt"
)

// Sentinels, to be tested with errors.Is.
var (
	// ErrParams is returned for Params that no decoder accepts.
	ErrParams = errors.New("delta: bad parameters")
	// ErrStream is returned when a stream is truncated, too long or contradicts itself.
	ErrStream = errors.New("delta: corrupt stream")
	// ErrBase is returned when the old image is not the one the patch was made for.
	ErrBase = errors.New("delta: wrong base image")
	// ErrBudget is returned when the device has not even the 256 bytes of memory that profile 0 takes.
	ErrBudget = errors.New("delta: budget too small")
)

// MaxImage is the largest image, old or new, in bytes.
const MaxImage = 8 << 20

// Params is what a decoder must know before the first byte of the stream. The manifest stores
// Profile and Options in a byte each, RAMBytes/256 in one, ScratchBytes/64 in two and
// LinkBase>>8 in three.
type Params struct {
	Profile      uint8  // size of every table of the decoder
	Options      uint8  // profile specific, see docs/spec/patch.md
	BaseSize     uint32 // bytes of the old image; 0 when the patch needs none
	NewSize      uint32 // bytes of the new image
	LinkBase     uint32 // address of the first byte of both images, a multiple of 256
	ScratchBytes uint32 // flash the device lends while it decodes, a multiple of 64
	RAMBytes     uint32 // context, model and buffers of the decoder, a multiple of 256
}

// Arch says how the content of the images is modelled.
type Arch uint8

// Architectures.
const (
	ArchAuto  Arch = iota // try what the images look like and keep the smaller patch
	ArchThumb             // Cortex-M machine code: branches and addresses follow what moved
	ArchNone              // anything else
)

// Map says where the device keeps the segment map.
type Map uint8

// Places for the segment map.
const (
	MapFlash Map = iota // in flash scratch; Params.ScratchBytes says how much
	MapRAM              // in the decoder's memory; ScratchBytes is 0
)

// Options steers [Encode]. The zero value asks for the smallest patch the default device can
// decode.
type Options struct {
	Arch     Arch
	RAM      uint32                // device memory for the patcher in bytes; 0 means 16384
	Map      Map                   // place of the segment map
	MapBytes uint32                // most flash scratch the device can lend; 0 means no limit
	LinkBase *uint32               // nil: inferred from the images
	Cycles   uint64                // most Cortex-M4 cycles the device may spend, MaxCycles at most; 0 means DefaultCycles or, for large patches, more
	Progress func(done, total int) // called now and then with steps of work; may be nil
}

// Validate reports the first field that no decoder accepts.
func (p Params) Validate() error {
	switch {
	case p.BaseSize > MaxImage:
		return fmt.Errorf("%w: base of %d bytes, at most %d", ErrParams, p.BaseSize, MaxImage)
	case p.NewSize > MaxImage:
		return fmt.Errorf("%w: new image of %d bytes, at most %d", ErrParams, p.NewSize, MaxImage)
	case p.LinkBase%256 != 0:
		return fmt.Errorf("%w: link base 0x%08x is not a multiple of 256", ErrParams, p.LinkBase)
	case p.ScratchBytes%64 != 0 || p.ScratchBytes > 65535*64:
		return fmt.Errorf("%w: scratch of %d bytes, want a multiple of 64 up to %d", ErrParams, p.ScratchBytes, 65535*64)
	case p.RAMBytes%256 != 0 || p.RAMBytes > 255*256:
		return fmt.Errorf("%w: memory of %d bytes, want a multiple of 256 up to %d", ErrParams, p.RAMBytes, 255*256)
	case p.Profile >= numProfiles:
		return fmt.Errorf("%w: profile %d is unknown", ErrParams, p.Profile)
	case p.Profile == profileStored && p.Options != 0, p.Options&^(optionWindow|optionThumb|optionCapacity) != 0:
		return fmt.Errorf("%w: options 0x%02x are unknown to profile %d", ErrParams, p.Options, p.Profile)
	case p.Options&optionCapacity != 0 && p.ScratchBytes != 0:
		return fmt.Errorf("%w: options 0x%02x keep the map in memory, but there are %d bytes of scratch", ErrParams, p.Options, p.ScratchBytes)
	}
	return nil
}

// Encode returns the smallest patch it finds that turns old into new on the device that o
// describes: the new image itself, profile 0, if nothing smaller fits its memory and cycles. The
// patch has been decoded and compared with new before Encode returns. A megabyte of new image takes
// up to 10 s and 80 MB.
func Encode(old, new []byte, o Options) (Params, []byte, error) {
	if len(old) > MaxImage {
		return Params{}, nil, fmt.Errorf("%w: old image of %d bytes, at most %d", ErrParams, len(old), MaxImage)
	}
	if len(new) > MaxImage {
		return Params{}, nil, fmt.Errorf("%w: new image of %d bytes, at most %d", ErrParams, len(new), MaxImage)
	}
	fit, err := layouts(o)
	if err != nil {
		return Params{}, nil, err
	}
	s := search{o: o, old: old, new: pad(new)}
	s.params = Params{Profile: profileStored, BaseSize: uint32(len(old)), NewSize: uint32(len(new)),
		RAMBytes: profileRAM[profileStored]}
	s.stream = bytes.Clone(new)
	var tries []Params
	if len(fit) > 0 && len(new) > 0 {
		p := Params{BaseSize: uint32(len(old)), NewSize: uint32(len(new))}
		image := old
		if len(old) == 0 {
			image = new
		}
		base, votes := guessLinkBase(image)
		switch {
		case o.LinkBase != nil:
			base = *o.LinkBase
		case votes < minVotes:
			base = 0
		}
		if o.Arch == ArchNone || o.Arch == ArchAuto && votes < sureVotes {
			tries = append(tries, p)
		}
		if o.Arch != ArchNone {
			p.Options, p.LinkBase = optionThumb, base
			tries = append(tries, p)
		}
	}
	s.total = len(tries) * (1 + len(fit)*2)
	for _, p := range tries {
		if err := s.arch(p, fit); err != nil {
			return Params{}, nil, err
		}
	}
	s.done = s.total
	p, stream := s.params, s.stream
	got, err := Decode(p, old, stream)
	if err != nil {
		return Params{}, nil, fmt.Errorf("verifying the new patch: %w", err)
	}
	if string(got) != string(new) {
		return Params{}, nil, errors.New("delta: the new patch does not reproduce the new image")
	}
	return p, stream, nil
}

// Decode returns the new image. Errors wrap ErrParams, ErrBase or ErrStream. A damaged stream
// that still decodes gives a wrong image: compare its digest with the one in the manifest. A stream
// that would take a device more than [MaxCycles] is refused, so that none takes long here.
func Decode(p Params, old, stream []byte) ([]byte, error) {
	if err := p.check(old); err != nil {
		return nil, err
	}
	if p.Profile == profileStored {
		if len(stream) != int(p.NewSize) {
			return nil, fmt.Errorf("%w: %d bytes of stored image, want %d", ErrStream, len(stream), p.NewSize)
		}
		return bytes.Clone(stream), nil
	}
	c, err := decode(p, old, stream, nil)
	if err != nil {
		return nil, err
	}
	return c.new[:p.NewSize], nil
}

// check reports whether p is valid and old may be its base.
func (p Params) check(old []byte) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if uint32(len(old)) != p.BaseSize {
		return fmt.Errorf("%w: %d bytes, the patch was made for %d", ErrBase, len(old), p.BaseSize)
	}
	return nil
}

// decode runs the decoder of a profile that has a model; t may be nil. The caller has checked p.
func decode(p Params, old, stream []byte, t *trace) (*codec, error) {
	c := newCodec(p, old, make([]byte, (p.NewSize+1)&^1), newDecoder(stream))
	c.trace, c.most = t, MaxCycles
	limit := int(p.ScratchBytes) / mapEntry
	if k := p.Options & optionCapacity >> capacityShift; k != 0 {
		limit = mapStep * int(k)
	}
	if err := c.run(nil, limit); err != nil {
		return nil, err
	}
	if c.rc.at < len(stream) || c.rc.overrun() {
		return nil, fmt.Errorf("%w: %d bytes, %d used", ErrStream, len(stream), c.rc.at)
	}
	return c, nil
}

// How many pointers to functions make a link base, and Thumb code, sure.
const (
	minVotes  = 4
	sureVotes = 40
)

// pad returns d with a zero byte more if its size is odd.
func pad(d []byte) []byte {
	if len(d)%2 != 0 {
		return append(bytes.Clone(d), 0)
	}
	return d
}
