package bundle

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
)

var (
	// ErrEncrypted is returned by [ParsePrivateKey] for a key that needs a passphrase.
	ErrEncrypted = errors.New("bundle: the key is encrypted with a passphrase")
	// ErrPassphrase is returned for an empty passphrase, and by [DecryptPrivateKey] for a wrong one or a
	// damaged key: the cipher cannot tell them apart.
	ErrPassphrase = errors.New("bundle: wrong passphrase, or the key file is damaged")
)

// The PEM form of an encrypted key. The block's bytes are the PKCS #8 form of the key under AES-256-GCM; its
// headers say how, and are authenticated with it. The key of the cipher is PBKDF2 (RFC 8018) of passphrase and
// salt; the nonce may be fixed because a salt is used once.
//
//	-----BEGIN SOWER ENCRYPTED PRIVATE KEY-----
//	Cipher: AES-256-GCM
//	Iterations: 600000
//	KDF: PBKDF2-HMAC-SHA256
//	Salt: 32 bytes in hexadecimal
const (
	typeEncrypted = "SOWER ENCRYPTED PRIVATE KEY"
	kdfName       = "PBKDF2-HMAC-SHA256"
	cipherName    = "AES-256-GCM"

	saltSize      = 32
	iterations    = 600_000    // OWASP's advice for PBKDF2-HMAC-SHA256, 2023; a quarter of a second
	maxIterations = 10_000_000 // beyond it a key file is an attack on the reader's time
)

// IsEncrypted reports whether text holds a key that [DecryptPrivateKey] reads.
func IsEncrypted(text []byte) bool {
	block, _ := pem.Decode(text)
	return block != nil && block.Type == typeEncrypted
}

// EncryptPrivateKey returns the PEM form of a signing key under a passphrase, which must not be empty. A keyID
// other than 0 is written in front of it.
func EncryptPrivateKey(key *ecdsa.PrivateKey, keyID uint8, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("%w: it is empty", ErrPassphrase)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails: crypto/rand
	aead, err := keyCipher(passphrase, salt, iterations)
	if err != nil {
		return nil, err
	}
	block := &pem.Block{Type: typeEncrypted, Headers: map[string]string{
		"KDF": kdfName, "Cipher": cipherName, "Iterations": strconv.Itoa(iterations), "Salt": hex.EncodeToString(salt),
	}}
	block.Bytes = aead.Seal(nil, make([]byte, aead.NonceSize()), der, keyHeader(salt, iterations))
	clear(der)
	return encodeKey(keyID, block), nil
}

// DecryptPrivateKey reads a key that [EncryptPrivateKey] wrote. Errors wrap [ErrKey] or [ErrPassphrase].
func DecryptPrivateKey(text, passphrase []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != typeEncrypted {
		return nil, fmt.Errorf("%w: no PEM block %q", ErrKey, typeEncrypted)
	}
	salt, n, err := parseKeyHeader(block.Headers)
	if err != nil {
		return nil, err
	}
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("%w: the passphrase is empty", ErrPassphrase)
	}
	aead, err := keyCipher(passphrase, salt, n)
	if err != nil {
		return nil, err
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
	if h["KDF"] != kdfName || h["Cipher"] != cipherName {
		return nil, 0, fmt.Errorf("%w: encrypted by %q with %q, want %s with %s", ErrKey, h["Cipher"], h["KDF"], cipherName, kdfName)
	}
	salt, err = hex.DecodeString(h["Salt"])
	if err != nil || len(salt) != saltSize {
		return nil, 0, fmt.Errorf("%w: its salt is not %d bytes in hexadecimal", ErrKey, saltSize)
	}
	n, err = strconv.Atoi(h["Iterations"])
	if err != nil || n < 1 || n > maxIterations {
		return nil, 0, fmt.Errorf("%w: %q iterations, want 1..%d", ErrKey, h["Iterations"], maxIterations)
	}
	return salt, n, nil
}

// keyHeader is the form of the headers that the cipher authenticates.
func keyHeader(salt []byte, n int) []byte {
	return fmt.Appendf(nil, "%s\n%s\n%d\n%x\n", cipherName, kdfName, n, salt)
}

func keyCipher(passphrase, salt []byte, n int) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, string(passphrase), salt, n, 32)
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
