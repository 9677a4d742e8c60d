package bundle

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// ErrKey is returned for bytes that are no ECDSA P-256 key.
var ErrKey = errors.New("bundle: not an ECDSA P-256 key")

const (
	typePrivate = "PRIVATE KEY"    // PKCS #8
	typeSEC1    = "EC PRIVATE KEY" // read only
	typeParams  = "EC PARAMETERS"  // the curve, which openssl ecparam writes in front of the key
	typePublic  = "PUBLIC KEY"     // PKIX
)

// GenerateKey returns a new signing key.
func GenerateKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// keyIDLine stands before the PEM block, where every reader of PEM ignores it.
var keyIDLine = regexp.MustCompile(`(?m)^sower key id ([0-9]+)\r?$`)

// KeyID returns the key id that a key file names for its key, 1..255, or 0 if it names none.
func KeyID(text []byte) uint8 {
	m := keyIDLine.FindSubmatch(text)
	if m == nil {
		return 0
	}
	id, err := strconv.ParseUint(string(m[1]), 10, 8)
	if err != nil {
		return 0
	}
	return uint8(id)
}

// MarshalPrivateKey returns the PKCS #8 PEM form of a signing key, for whoever can read the file to use: see
// [EncryptPrivateKey]. A keyID other than 0 is written in front of it.
func MarshalPrivateKey(key *ecdsa.PrivateKey, keyID uint8) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encodeKey(keyID, &pem.Block{Type: typePrivate, Bytes: der}), nil
}

// MarshalPublicKey returns the PKIX PEM form of a verification key. A keyID other than 0 is written in front
// of it.
func MarshalPublicKey(key *ecdsa.PublicKey, keyID uint8) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return encodeKey(keyID, &pem.Block{Type: typePublic, Bytes: der}), nil
}

func encodeKey(keyID uint8, block *pem.Block) []byte {
	text := pem.EncodeToMemory(block)
	if keyID != 0 {
		text = append(fmt.Appendf(nil, "sower key id %d\n", keyID), text...)
	}
	return text
}

// ParsePrivateKey reads a signing key from PKCS #8 or SEC 1 PEM. The error is [ErrEncrypted] for a key that
// [DecryptPrivateKey] reads.
func ParsePrivateKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block != nil && block.Type == typeParams {
		block, _ = pem.Decode(rest)
	}
	if block == nil {
		return nil, fmt.Errorf("%w: no PEM block", ErrKey)
	}
	switch block.Type {
	case typePrivate:
		return parsePKCS8(block.Bytes)
	case typeSEC1:
		key, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrKey, err)
		}
		if key.Curve != elliptic.P256() {
			return nil, fmt.Errorf("%w: another curve", ErrKey)
		}
		return key, nil
	case typeEncrypted:
		return nil, ErrEncrypted
	case typePublic:
		return nil, fmt.Errorf("%w: a PUBLIC KEY only verifies, want a PRIVATE KEY", ErrKey)
	default:
		return nil, fmt.Errorf("%w: PEM block %q, want PRIVATE KEY", ErrKey, block.Type)
	}
}

func parsePKCS8(der []byte) (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrKey, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: another algorithm or curve", ErrKey)
	}
	return ec, nil
}

// ParsePublicKey reads a verification key from PKIX PEM; it also accepts an unencrypted signing key.
func ParsePublicKey(text []byte) (*ecdsa.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block != nil && block.Type != typePublic {
		key, err := ParsePrivateKey(text)
		if err != nil {
			return nil, err
		}
		return &key.PublicKey, nil
	}
	if block == nil {
		return nil, fmt.Errorf("%w: no PEM block", ErrKey)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrKey, err)
	}
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: another algorithm or curve", ErrKey)
	}
	return ec, nil
}
