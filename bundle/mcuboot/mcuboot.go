// Package mcuboot reads and writes MCUboot images: a 32-byte header, the body, and a TLV area with the
// SHA-256 of header and body and optionally an ECDSA P-256 signature.
//
// It covers what sower needs: wrapping a linked binary, finding version, sizes and load address, and checking
// the hash. Protected TLVs are read and hashed; encryption, compression and dependencies are not.
package mcuboot

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// HeaderSize is the length of the header's fields; Options.HeaderSize may be larger.
	HeaderSize = 32

	magic              = 0x96f3b83d
	tlvInfoMagic       = 0x6907
	tlvProtectedMagic  = 0x6908
	tlvKeyHash         = 0x01
	tlvSHA256          = 0x10
	tlvECDSASignature  = 0x22
	headerFieldsLength = 28 // header fields before the four bytes of padding

	flagsEncrypted = 0x04 | 0x08 // AES-128, AES-256
)

var (
	// ErrImage is returned for bytes that are no valid MCUboot image.
	ErrImage = errors.New("mcuboot: not a valid image")
	// ErrSignature is returned by [Verify] for an image that this key did not sign.
	ErrSignature = errors.New("mcuboot: signature does not verify")
)

// Options describe the image that [Wrap] makes.
type Options struct {
	Major, Minor uint8
	Revision     uint16
	Build        uint32
	LoadAddress  uint32        // written to ih_load_addr
	HeaderSize   int           // bytes from header to body, padded with the erase value; 0 means 0x200
	Signer       crypto.Signer // adds KEYHASH and ECDSA_SIG TLVs; nil: hash only
}

// Image is what the header and TLV area say.
type Image struct {
	Major, Minor uint8
	Revision     uint16
	Build        uint32
	LoadAddress  uint32
	HeaderSize   int  // bytes
	BodySize     int  // bytes
	Size         int  // bytes, header, body and TLV areas
	Signed       bool // with ECDSA; see [Verify]
}

// Wrap returns body as an MCUboot image.
func Wrap(body []byte, o Options) ([]byte, error) {
	if len(body) == 0 {
		return nil, fmt.Errorf("%w: the body is empty", ErrImage)
	}
	hdr := o.HeaderSize
	if hdr == 0 {
		hdr = 0x200
	}
	if hdr < HeaderSize || hdr > 0xffff {
		return nil, fmt.Errorf("%w: header size %d, want %d..65535", ErrImage, hdr, HeaderSize)
	}
	le := binary.LittleEndian
	img := make([]byte, 0, hdr+len(body)+256)
	img = le.AppendUint32(img, magic)
	img = le.AppendUint32(img, o.LoadAddress)
	img = le.AppendUint16(img, uint16(hdr))
	img = le.AppendUint16(img, 0) // no protected TLVs
	img = le.AppendUint32(img, uint32(len(body)))
	img = le.AppendUint32(img, 0) // flags
	img = append(img, o.Major, o.Minor)
	img = le.AppendUint16(img, o.Revision)
	img = le.AppendUint32(img, o.Build)
	img = append(img, make([]byte, HeaderSize-headerFieldsLength)...)
	img = append(img, bytes.Repeat([]byte{0xff}, hdr-HeaderSize)...)
	img = append(img, body...)
	sum := sha256.Sum256(img)
	tlvs := appendTLV(nil, tlvSHA256, sum[:])
	if o.Signer != nil {
		pub, ok := o.Signer.Public().(*ecdsa.PublicKey)
		if !ok || pub.Curve != elliptic.P256() {
			return nil, errors.New("mcuboot: the signing key is not ECDSA P-256")
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			return nil, err
		}
		keyHash := sha256.Sum256(der)
		sig, err := o.Signer.Sign(nil, sum[:], crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("mcuboot: sign: %w", err)
		}
		tlvs = appendTLV(tlvs, tlvKeyHash, keyHash[:])
		tlvs = appendTLV(tlvs, tlvECDSASignature, sig)
	}
	img = le.AppendUint16(img, tlvInfoMagic)
	img = le.AppendUint16(img, uint16(4+len(tlvs)))
	return append(img, tlvs...), nil
}

func appendTLV(b []byte, kind uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, kind)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// Is reports whether b begins with the header magic of an MCUboot image.
func Is(b []byte) bool {
	return len(b) >= HeaderSize && binary.LittleEndian.Uint32(b) == magic
}

// Parse reads the image at the start of b and checks its SHA-256. Bytes after it (a trailer, padding) are
// ignored; Image.Size says where it ends.
func Parse(b []byte) (Image, error) {
	im, _, err := parse(b)
	return im, err
}

// Verify is [Parse] and a check of the image's ECDSA P-256 signature. Errors wrap [ErrImage] or [ErrSignature].
func Verify(b []byte, pub *ecdsa.PublicKey) (Image, error) {
	im, tlvs, err := parse(b)
	if err != nil {
		return Image{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return Image{}, err
	}
	keyHash := sha256.Sum256(der)
	switch {
	case !im.Signed:
		return Image{}, fmt.Errorf("%w: the image carries none", ErrSignature)
	case !bytes.Equal(tlvs[tlvKeyHash], keyHash[:]):
		return Image{}, fmt.Errorf("%w: signed with the key of hash %x…, not %x…", ErrSignature, head(tlvs[tlvKeyHash]), head(keyHash[:]))
	case !ecdsa.VerifyASN1(pub, tlvs[tlvSHA256], tlvs[tlvECDSASignature]):
		return Image{}, ErrSignature
	}
	return im, nil
}

// head returns the first bytes of a digest, to tell it from another.
func head(digest []byte) []byte { return digest[:min(4, len(digest))] }

func parse(b []byte) (Image, map[uint16][]byte, error) {
	if len(b) < HeaderSize {
		return Image{}, nil, fmt.Errorf("%w: %d bytes, a header has %d", ErrImage, len(b), HeaderSize)
	}
	le := binary.LittleEndian
	if m := le.Uint32(b); m != magic {
		return Image{}, nil, fmt.Errorf("%w: magic 0x%08x, want 0x%08x", ErrImage, m, uint32(magic))
	}
	im := Image{
		LoadAddress: le.Uint32(b[4:]),
		HeaderSize:  int(le.Uint16(b[8:])),
		BodySize:    int(le.Uint32(b[12:])),
		Major:       b[20],
		Minor:       b[21],
		Revision:    le.Uint16(b[22:]),
		Build:       le.Uint32(b[24:]),
	}
	if f := le.Uint32(b[16:]); f&flagsEncrypted != 0 {
		return Image{}, nil, fmt.Errorf("%w: flags 0x%x: it is encrypted; give the image before encryption", ErrImage, f)
	}
	protected := int(le.Uint16(b[10:]))
	if im.HeaderSize < HeaderSize || im.BodySize <= 0 || im.BodySize > len(b)-im.HeaderSize {
		return Image{}, nil, fmt.Errorf("%w: header of %d and body of %d bytes in a file of %d", ErrImage, im.HeaderSize, im.BodySize, len(b))
	}
	end := im.HeaderSize + im.BodySize
	if protected != 0 {
		if _, n, err := tlvArea(b[end:], tlvProtectedMagic); err != nil {
			return Image{}, nil, err
		} else if n != protected {
			return Image{}, nil, fmt.Errorf("%w: protected TLV area of %d bytes, the header says %d", ErrImage, n, protected)
		}
		end += protected
	}
	tlvs, n, err := tlvArea(b[end:], tlvInfoMagic)
	if err != nil {
		return Image{}, nil, err
	}
	im.Size = end + n
	im.Signed = tlvs[tlvECDSASignature] != nil
	want, ok := tlvs[tlvSHA256]
	if !ok {
		return Image{}, nil, fmt.Errorf("%w: no SHA-256 TLV", ErrImage)
	}
	if sum := sha256.Sum256(b[:end]); !bytes.Equal(sum[:], want) {
		return Image{}, nil, fmt.Errorf("%w: SHA-256 does not match its TLV", ErrImage)
	}
	return im, tlvs, nil
}

// tlvArea reads one TLV area and returns its entries and length.
func tlvArea(b []byte, wantMagic uint16) (map[uint16][]byte, int, error) {
	le := binary.LittleEndian
	if len(b) < 4 || le.Uint16(b) != wantMagic {
		return nil, 0, fmt.Errorf("%w: no TLV area after the body", ErrImage)
	}
	n := int(le.Uint16(b[2:]))
	if n < 4 || n > len(b) {
		return nil, 0, fmt.Errorf("%w: TLV area of %d bytes, %d are left", ErrImage, n, len(b))
	}
	tlvs := map[uint16][]byte{}
	for rest := b[4:n]; len(rest) > 0; {
		if len(rest) < 4 || 4+int(le.Uint16(rest[2:])) > len(rest) {
			return nil, 0, fmt.Errorf("%w: TLV longer than its area", ErrImage)
		}
		l := int(le.Uint16(rest[2:]))
		tlvs[le.Uint16(rest)] = rest[4 : 4+l]
		rest = rest[4+l:]
	}
	return tlvs, n, nil
}
