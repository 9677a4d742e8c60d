package rehearse

import (
	"bytes"
	"crypto/ecdsa"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/delta"
)

// Class, Hardware and KeyID are what the devices of a rehearsal are, and what its bundles are made for.
const (
	Class    uint32 = 0x1001
	Hardware uint16 = 1
	KeyID    uint8  = 1
)

// Update is one firmware update: two images and the bundle that leads from one to the other.
type Update struct {
	Old, New   []byte // MCUboot images
	From, To   bundle.Version
	Block      []byte // the signed bundle
	PatchBytes int
	Compressed int // bytes of the new image compressed with zstd at its best level
}

// NewUpdate makes patch and bundle for a pair of MCUboot images.
func NewUpdate(old, new []byte, key *ecdsa.PrivateKey) (Update, error) {
	u := Update{Old: old, New: new}
	for _, im := range []struct {
		what    string
		image   []byte
		version *bundle.Version
	}{{"old image", old, &u.From}, {"new image", new, &u.To}} {
		h, err := mcuboot.Parse(im.image)
		if err != nil {
			return Update{}, fmt.Errorf("%s: %w", im.what, err)
		}
		*im.version = bundle.MakeVersion(h.Major, h.Minor, h.Revision)
	}
	if bytes.Equal(old, new) {
		return Update{}, fmt.Errorf("old and new image are the same: nothing to update")
	}
	if u.From == u.To {
		return Update{}, fmt.Errorf("both images say version %s in their headers: a device could not prove that it was updated", u.From)
	}
	patch, err := delta.NewFile(old, new, delta.Options{})
	if err != nil {
		return Update{}, err
	}
	u.PatchBytes = len(patch.Stream)
	t := bundle.Target{Class: Class, Hardware: Hardware, KeyID: KeyID, Sequence: 1}
	if u.Block, err = bundle.Patch(t, patch, new, key); err != nil {
		return Update{}, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return Update{}, err
	}
	u.Compressed = len(enc.EncodeAll(new, nil))
	return u, nil
}

// WrapImage returns a binary as an MCUboot image of that version, signed with key; an MCUboot image is
// returned as it is.
func WrapImage(raw []byte, major, minor uint8, loadAddress uint32, key *ecdsa.PrivateKey) ([]byte, error) {
	if mcuboot.Is(raw) {
		im, err := mcuboot.Parse(raw)
		if err != nil {
			return nil, err
		}
		return raw[:im.Size], nil
	}
	return mcuboot.Wrap(raw, mcuboot.Options{Major: major, Minor: minor, LoadAddress: loadAddress, Signer: key})
}
