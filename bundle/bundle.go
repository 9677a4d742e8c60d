package bundle

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Sign returns the bundle of a payload: manifest, signature, payload. It fills in size and digest of the
// payload. The signer's key must be ECDSA P-256; a software key signs with deterministic nonces, so that the
// same input gives the same bundle.
func Sign(m Manifest, payload []byte, signer crypto.Signer) ([]byte, error) {
	pub, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, errors.New("bundle: the signing key is not ECDSA P-256")
	}
	if len(payload) == 0 || len(payload) > maxSize {
		return nil, fmt.Errorf("%w: payload of %d bytes, want 1..%d", ErrField, len(payload), maxSize)
	}
	m.PayloadSize = uint32(len(payload))
	sum := sha256.Sum256(payload)
	copy(m.PayloadDigest[:], sum[:])
	block, err := m.appendSigned(make([]byte, 0, ManifestSize+len(payload)))
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(block)
	der, err := signer.Sign(nil, hash[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("bundle: sign: %w", err)
	}
	var sig struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) != 0 {
		return nil, errors.New("bundle: the signer returned no DER signature")
	}
	if sig.R.Sign() <= 0 || sig.R.BitLen() > 256 || sig.S.Sign() <= 0 || sig.S.BitLen() > 256 {
		return nil, errors.New("bundle: the signer returned a signature out of range")
	}
	block = block[:ManifestSize]
	sig.R.FillBytes(block[signedSize : signedSize+32])
	sig.S.FillBytes(block[signedSize+32:])
	if err := verify(block, pub); err != nil {
		return nil, fmt.Errorf("bundle: the signer signed with another key: %w", err)
	}
	return append(block, payload...), nil
}

// Parse splits a bundle into manifest and payload and checks size and digest of the payload. It does not
// check the signature; see [Verify].
func Parse(block []byte) (Manifest, []byte, error) {
	m, err := ParseManifest(block)
	if err != nil {
		return Manifest{}, nil, err
	}
	payload := block[ManifestSize:]
	if len(payload) != int(m.PayloadSize) {
		return Manifest{}, nil, fmt.Errorf("%w: payload of %d bytes, the manifest says %d", ErrFormat, len(payload), m.PayloadSize)
	}
	sum := sha256.Sum256(payload)
	if !bytes.Equal(sum[:len(m.PayloadDigest)], m.PayloadDigest[:]) {
		return Manifest{}, nil, ErrDigest
	}
	return m, payload, nil
}

// Verify checks signature, payload size and payload digest of a bundle.
func Verify(block []byte, pub *ecdsa.PublicKey) (Manifest, []byte, error) {
	m, payload, err := Parse(block)
	if err != nil {
		return Manifest{}, nil, err
	}
	if err := verify(block, pub); err != nil {
		return Manifest{}, nil, err
	}
	return m, payload, nil
}

// verify checks the signature of the manifest at the start of block.
func verify(block []byte, pub *ecdsa.PublicKey) error {
	hash := sha256.Sum256(block[:signedSize])
	r := new(big.Int).SetBytes(block[signedSize : signedSize+32])
	s := new(big.Int).SetBytes(block[signedSize+32 : ManifestSize])
	der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	if err != nil || !ecdsa.VerifyASN1(pub, hash[:], der) {
		return ErrSignature
	}
	return nil
}

// PublicKey returns a P-256 public key as the device library stores it: X|Y, big endian, 64 bytes.
func PublicKey(pub *ecdsa.PublicKey) ([64]byte, error) {
	var out [64]byte
	b, err := pub.Bytes() // uncompressed point: 0x04 | X | Y
	if err != nil || len(b) != 65 {
		return out, errors.New("bundle: the key is not ECDSA P-256")
	}
	copy(out[:], b[1:])
	return out, nil
}
