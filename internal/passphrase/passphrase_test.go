package passphrase_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/sower-fuota/sower/internal/passphrase"
)

// golden is AES-256-GCM of "sixteen bytes ok" with the nonce 0 and the header "header".
const golden = "fce28c9f4582cbc7b0e7eb8b986d056067129370c9ce7f6224e1e1b6bf142939"

var salt = bytes.Repeat([]byte{0x5a}, passphrase.SaltSize)

// What was sealed once must stay readable. The bytes were computed with PBKDF2 and AES-GCM of another library
// (Python's hashlib and cryptography).
func TestGolden(t *testing.T) {
	aead, err := passphrase.Cipher([]byte("golden"), salt, 1000)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := aead.Open(nil, make([]byte, aead.NonceSize()), sealed, []byte("header"))
	if err != nil || string(plain) != "sixteen bytes ok" {
		t.Errorf("%q, %v", plain, err)
	}
	if again := aead.Seal(nil, make([]byte, aead.NonceSize()), plain, []byte("header")); !bytes.Equal(again, sealed) {
		t.Errorf("sealed %x, want %x", again, sealed)
	}
}

// Whatever differs makes another cipher.
func TestEveryPartCounts(t *testing.T) {
	seal := func(pass string, salt []byte, iterations int) string {
		t.Helper()
		aead, err := passphrase.Cipher([]byte(pass), salt, iterations)
		if err != nil {
			t.Fatal(err)
		}
		return string(aead.Seal(nil, make([]byte, aead.NonceSize()), []byte("text"), nil))
	}
	other := bytes.Clone(salt)
	other[31]++
	seen := map[string]bool{}
	for _, s := range []string{seal("a", salt, 10), seal("b", salt, 10), seal("a", other, 10), seal("a", salt, 11)} {
		if seen[s] {
			t.Errorf("%x twice", s)
		}
		seen[s] = true
	}
}

func TestRefuses(t *testing.T) {
	if _, err := passphrase.Cipher(nil, salt, 1); !errors.Is(err, passphrase.ErrEmpty) {
		t.Errorf("no passphrase: %v, want ErrEmpty", err)
	}
	for name, tt := range map[string]struct {
		salt       []byte
		iterations int
	}{
		"short salt":          {salt[1:], 1},
		"no salt":             {nil, 1},
		"no iterations":       {salt, 0},
		"negative iterations": {salt, -1},
		"a day of iterations": {salt, passphrase.MaxIterations + 1},
	} {
		if aead, err := passphrase.Cipher([]byte("p"), tt.salt, tt.iterations); err == nil || aead != nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
