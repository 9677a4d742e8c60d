// Package passphrase makes the cipher of a file that a passphrase opens: AES-256-GCM (NIST SP 800-38D) under a key
// that PBKDF2 with HMAC-SHA-256 (RFC 8018, section 5.2) derives from passphrase and salt.
//
// The form of the file, its nonces and what is authenticated with it belong to the package that writes it. A salt is
// random and new for each file, so that nonces may be fixed within one.
package passphrase

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/sha256"
	"errors"
	"fmt"
)

// What files name as their cipher and key derivation.
const (
	CipherName = "AES-256-GCM"
	KDFName    = "PBKDF2-HMAC-SHA256"
)

const (
	// SaltSize is the length of a salt in bytes.
	SaltSize = 32
	// Iterations is how many are written: OWASP's advice for PBKDF2-HMAC-SHA256, 2023; a quarter of a second.
	Iterations = 600_000
	// MaxIterations is how many are read. Beyond it a file is an attack on the reader's time.
	MaxIterations = 10_000_000
)

// ErrEmpty is returned for a passphrase without a character.
var ErrEmpty = errors.New("passphrase: it is empty")

// Cipher returns the cipher of a file with that salt of [SaltSize] bytes and 1..[MaxIterations] iterations. Its nonce
// has 12 bytes, its tag 16. It does not tell a wrong passphrase from the right one; opening does.
func Cipher(passphrase, salt []byte, iterations int) (cipher.AEAD, error) {
	switch {
	case len(passphrase) == 0:
		return nil, ErrEmpty
	case len(salt) != SaltSize:
		return nil, fmt.Errorf("passphrase: salt of %d bytes, want %d", len(salt), SaltSize)
	case iterations < 1 || iterations > MaxIterations:
		return nil, fmt.Errorf("passphrase: %d iterations, want 1..%d", iterations, MaxIterations)
	}
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, iterations, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
