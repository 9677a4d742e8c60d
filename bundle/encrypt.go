package bundle

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"

	"github.com/sower-fuota/sower/internal/passphrase"
)

var (
	// ErrEncrypted is returned by [ParsePrivateKey] for a key that needs a passphrase.
	ErrEncrypted = errors.New("bundle: the key is encrypted with a passphrase")
	// ErrPassphrase is returned for an empty passphrase, and by [DecryptPrivateKey] for a wrong one or a
	// damaged key: the cipher cannot tell them apart.
	ErrPassphrase = errors.New("bundle: wrong passphrase, or the key file is damaged")
)

// The PEM form of an encrypted key. The block's bytes are the PKCS #8 form of the key under the cipher of package
// passphrase; its headers say how, and are authenticated with it. The nonce is 0.
//
//	-----BEGIN SOWER ENCRYPTED PRIVATE KEY-----
//	Cipher: AES-256-GCM
//	Iterations: 600000
//	KDF: PBKDF2-HMAC-SHA256
//	Salt: 32 bytes in hexadecimal
const typeEncrypted = "SOWER ENCRYPTED PRIVATE KEY"

// IsEncrypted reports whether text holds a key that [DecryptPrivateKey] reads.
func IsEncrypted(text []byte) bool {
	block, _ := pem.Decode(text)
	return block != nil && block.Type == typeEncrypted
}

// EncryptPrivateKey returns the PEM form of a signing key under a passphrase, which must not be empty. A keyID
// other than 0 is written in front of it.
func EncryptPrivateKey(key *ecdsa.PrivateKey, keyID uint8, pass []byte) ([]byte, error) {
	salt, n := make([]byte, passphrase.SaltSize), passphrase.Iterations
	rand.Read(salt) // never fails: crypto/rand
	aead, err := passphrase.Cipher(pass, salt, n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassphrase, err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	block := &pem.Block{Type: typeEncrypted, Headers: map[string]string{
		"KDF": passphrase.KDFName, "Cipher": passphrase.CipherName, "Iterations": strconv.Itoa(n), "Salt": hex.EncodeToString(salt),
	}}
	block.Bytes = aead.Seal(nil, make([]byte, aead.NonceSize()), der, keyHeader(salt, n))
	return encodeKey(keyID, block), nil
}

// DecryptPrivateKey reads a key that [EncryptPrivateKey] wrote. Errors wrap [ErrKey] or [ErrPassphrase].
func DecryptPrivateKey(text, pass []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != typeEncrypted {
		return nil, fmt.Errorf("%w: no PEM block %q", ErrKey, typeEncrypted)
	}
	salt, n, err := parseKeyHeader(block.Headers)
	if err != nil {
		return nil, err
	}
	aead, err := passphrase.Cipher(pass, salt, n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPassphrase, err)
	}
	der, err := aead.Open(nil, make([]byte, aead.NonceSize()), block.Bytes, keyHeader(salt, n))
	if err != nil {
		return nil, ErrPassphrase
	}
	defer clear(der)
	return parsePKCS8(der)
}

// parseKeyHeader reads the parameters of an encrypted key and refuses those this version does not write.
func parseKeyHeader(h map[string]string) (salt []byte, n int, err error) {
	if h["KDF"] != passphrase.KDFName || h["Cipher"] != passphrase.CipherName {
		return nil, 0, fmt.Errorf("%w: encrypted by %q with %q, want %s with %s", ErrKey, h["Cipher"], h["KDF"], passphrase.CipherName, passphrase.KDFName)
	}
	salt, err = hex.DecodeString(h["Salt"])
	if err != nil || len(salt) != passphrase.SaltSize {
		return nil, 0, fmt.Errorf("%w: its salt is not %d bytes in hexadecimal", ErrKey, passphrase.SaltSize)
	}
	n, err = strconv.Atoi(h["Iterations"])
	if err != nil || n < 1 || n > passphrase.MaxIterations {
		return nil, 0, fmt.Errorf("%w: %q iterations, want 1..%d", ErrKey, h["Iterations"], passphrase.MaxIterations)
	}
	return salt, n, nil
}

// keyHeader is the form of the headers that the cipher authenticates.
func keyHeader(salt []byte, n int) []byte {
	return fmt.Appendf(nil, "%s\n%s\n%d\n%x\n", passphrase.CipherName, passphrase.KDFName, n, salt)
}
