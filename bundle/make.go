package bundle

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/delta"
)

var (
	// ErrBase is returned by [Manifest.Image] when base is not the image that the patch was made against.
	ErrBase = errors.New("bundle: wrong base image")
	// ErrPayload is returned by [Manifest.Image] for a payload that does not decode to the new image.
	ErrPayload = errors.New("bundle: payload does not make the new image")
)

// Target says for whom a bundle is and which update it is.
type Target struct {
	Class    uint32  // device class
	Hardware uint16  // hardware id
	KeyID    uint8   // trust slot of the device that holds the public key, 1..255
	Version  Version // 0: taken from the header of an MCUboot image
	Sequence uint32  // anti-rollback; 1 or more
	Expiry   uint32  // GPS seconds; 0: none
}

// Full returns the bundle whose payload is the new image itself.
func Full(t Target, new []byte, signer crypto.Signer) ([]byte, error) {
	m, err := t.manifest(new)
	if err != nil {
		return nil, err
	}
	m.Codec = CodecFull
	return Sign(m, new, signer)
}

// Zstd returns the bundle whose payload is the new image compressed. Only Linux-class devices decode it; the
// device library refuses it with CODEC_UNSUPPORTED.
func Zstd(t Target, new []byte, signer crypto.Signer) ([]byte, error) {
	m, err := t.manifest(new)
	if err != nil {
		return nil, err
	}
	m.Codec = CodecZstd
	payload, err := compress(new)
	if err != nil {
		return nil, fmt.Errorf("bundle: compress: %w", err)
	}
	return Sign(m, payload, signer)
}

// Patch returns the bundle whose payload is a patch. new must be the image that the patch makes.
func Patch(t Target, patch *delta.File, new []byte, signer crypto.Signer) ([]byte, error) {
	m, err := t.manifest(new)
	if err != nil {
		return nil, err
	}
	if int(patch.Params.NewSize) != len(new) || !bytes.Equal(patch.NewDigest[:], m.NewDigest[:len(patch.NewDigest)]) {
		return nil, fmt.Errorf("bundle: the patch makes an image of %d bytes with SHA-256 %x…, not the new image given (%d bytes, %x…)",
			patch.Params.NewSize, patch.NewDigest[:4], len(new), m.NewDigest[:4])
	}
	m.Codec = CodecPatch
	m.BaseSize = patch.Params.BaseSize
	m.BaseDigest = patch.BaseDigest
	m.LinkBase = patch.Params.LinkBase
	m.Scratch = patch.Params.ScratchBytes
	m.RAM = patch.Params.RAMBytes
	m.Profile = patch.Params.Profile
	m.Options = patch.Params.Options
	return Sign(m, patch.Stream, signer)
}

// Params returns the parameters of the patch codec that the manifest holds.
func (m Manifest) Params() delta.Params {
	return delta.Params{
		Profile:      m.Profile,
		Options:      m.Options,
		BaseSize:     m.BaseSize,
		NewSize:      m.NewSize,
		LinkBase:     m.LinkBase,
		ScratchBytes: m.Scratch,
		RAMBytes:     m.RAM,
	}
}

// Image decodes the payload of a bundle, which [Verify] returned, and checks the result. base is the image that
// the device runs; it is ignored if the manifest names none. Errors wrap [ErrBase] or [ErrPayload].
func (m Manifest) Image(payload, base []byte) ([]byte, error) {
	if m.BaseSize != 0 {
		if sum := sha256.Sum256(base); len(base) != int(m.BaseSize) || !bytes.Equal(sum[:len(m.BaseDigest)], m.BaseDigest[:]) {
			return nil, fmt.Errorf("%w: %d bytes with SHA-256 %x…, the bundle is for %d bytes with %x…",
				ErrBase, len(base), sum[:len(m.BaseDigest)], m.BaseSize, m.BaseDigest)
		}
	} else {
		base = nil
	}
	image := payload
	var err error
	switch m.Codec {
	case CodecFull:
	case CodecPatch:
		image, err = delta.Decode(m.Params(), base, payload)
	case CodecZstd:
		image, err = decompress(payload, int(m.NewSize))
	default:
		err = errors.New(m.Codec.String())
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPayload, err)
	}
	if sum := sha256.Sum256(image); len(image) != int(m.NewSize) || sum != m.NewDigest {
		return nil, fmt.Errorf("%w: %d bytes with SHA-256 %x…, want %d bytes with %x…",
			ErrPayload, len(image), sum[:8], m.NewSize, m.NewDigest[:8])
	}
	return image, nil
}

// manifest fills in what every bundle of this target and image has.
func (t Target) manifest(new []byte) (Manifest, error) {
	m := Manifest{
		Class: t.Class, Hardware: t.Hardware, KeyID: t.KeyID, Version: t.Version,
		Sequence: t.Sequence, Expiry: t.Expiry,
		NewSize: uint32(len(new)), NewDigest: sha256.Sum256(new),
	}
	if len(new) == 0 {
		return Manifest{}, fmt.Errorf("%w: the new image is empty", ErrField)
	}
	if len(new) > maxSize {
		return Manifest{}, fmt.Errorf("%w: new image of %d bytes, at most %d", ErrField, len(new), maxSize)
	}
	if t.Sequence == 0 {
		return Manifest{}, fmt.Errorf("%w: sequence 0, which no device accepts; want 1 or more", ErrField)
	}
	if mcuboot.Is(new) {
		im, err := mcuboot.Parse(new)
		if err != nil {
			return Manifest{}, err
		}
		if im.Size != len(new) {
			return Manifest{}, fmt.Errorf("bundle: %d bytes follow the TLV area of the image; cut off its trailer or padding", len(new)-im.Size)
		}
		v := MakeVersion(im.Major, im.Minor, im.Revision)
		if t.Version != 0 && t.Version != v {
			return Manifest{}, fmt.Errorf("bundle: version %s was asked for, the image header says %s", t.Version, v)
		}
		m.Version = v
	}
	return m, nil
}
