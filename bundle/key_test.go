package bundle_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle"
)

func TestKeys(t *testing.T) {
	k := key(t)
	for _, id := range []uint8{0, 1, 255} {
		priv, err := bundle.MarshalPrivateKey(k, id)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := bundle.MarshalPublicKey(&k.PublicKey, id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := bundle.ParsePrivateKey(priv); err != nil || !got.Equal(k) {
			t.Errorf("private key: %v", err)
		}
		for _, text := range [][]byte{priv, pub, bytes.ReplaceAll(pub, []byte("\n"), []byte("\r\n"))} {
			if got, err := bundle.ParsePublicKey(text); err != nil || !got.Equal(&k.PublicKey) {
				t.Errorf("public key: %v", err)
			}
			if got := bundle.KeyID(text); got != id {
				t.Errorf("key id %d, want %d", got, id)
			}
		}
		if _, err := bundle.ParsePrivateKey(pub); !errors.Is(err, bundle.ErrKey) {
			t.Errorf("public key as private key: %v, want %v", err, bundle.ErrKey)
		}
	}
	for _, text := range []string{"", "hello", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		if _, err := bundle.ParsePublicKey([]byte(text)); !errors.Is(err, bundle.ErrKey) {
			t.Errorf("public key %q: %v, want %v", text, err, bundle.ErrKey)
		}
	}
	for _, text := range []string{"", "sower key id 0\n", "sower key id 256\n", "sower key id x\n", "my sower key id 3\n"} {
		if id := bundle.KeyID([]byte(text)); id != 0 {
			t.Errorf("%q names key id %d", text, id)
		}
	}
}

// The key as openssl ecparam -genkey writes it: the name of the curve, then SEC 1.
func TestSEC1Key(t *testing.T) {
	k := key(t)
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	sec1 := pemText("EC PRIVATE KEY", der)
	params := pemText("EC PARAMETERS", []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07})
	for name, text := range map[string][]byte{"alone": sec1, "behind its curve": append(params, sec1...)} {
		if got, err := bundle.ParsePrivateKey(text); err != nil || !got.Equal(k) {
			t.Errorf("%s: private key: %v", name, err)
		}
		if got, err := bundle.ParsePublicKey(text); err != nil || !got.Equal(&k.PublicKey) {
			t.Errorf("%s: public key: %v", name, err)
		}
	}
	if _, err := bundle.ParsePrivateKey(params); !errors.Is(err, bundle.ErrKey) {
		t.Errorf("the curve alone: %v, want %v", err, bundle.ErrKey)
	}
}

// Public keys of other algorithms: the generator of secp384r1, and test 1 of RFC 8032, section 7.1.
func TestForeignKeys(t *testing.T) {
	for name, der := range map[string]string{
		"secp384r1": "3076301006072a8648ce3d020106052b8104002203620004aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab73617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
		"Ed25519":   "302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
	} {
		raw, err := hex.DecodeString(der)
		if err != nil {
			t.Fatal(err)
		}
		text := pemText("PUBLIC KEY", raw)
		if _, err := bundle.ParsePublicKey(text); !errors.Is(err, bundle.ErrKey) || !strings.Contains(err.Error(), "another algorithm or curve") {
			t.Errorf("%s: %v, want %v", name, err, bundle.ErrKey)
		}
	}
}

func TestEncryptedKey(t *testing.T) {
	k := key(t)
	pass := []byte("correct horse battery staple")
	text, err := bundle.EncryptPrivateKey(k, 2, pass)
	if err != nil {
		t.Fatal(err)
	}
	if !bundle.IsEncrypted(text) || bundle.KeyID(text) != 2 {
		t.Errorf("encrypted %v, key id %d; want true, 2", bundle.IsEncrypted(text), bundle.KeyID(text))
	}
	if got, err := bundle.DecryptPrivateKey(text, pass); err != nil || !got.Equal(k) {
		t.Errorf("the key does not come back: %v", err)
	}
	if _, err := bundle.ParsePrivateKey(text); !errors.Is(err, bundle.ErrEncrypted) {
		t.Errorf("without passphrase: %v, want %v", err, bundle.ErrEncrypted)
	}
	if _, err := bundle.EncryptPrivateKey(k, 2, nil); !errors.Is(err, bundle.ErrPassphrase) {
		t.Errorf("empty passphrase: %v, want %v", err, bundle.ErrPassphrase)
	}
	again, err := bundle.EncryptPrivateKey(k, 2, pass)
	if err != nil || bytes.Equal(again, text) {
		t.Errorf("the same salt twice (%v)", err)
	}
	plain, err := bundle.MarshalPrivateKey(k, 0)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(old, new string) []byte { return []byte(strings.Replace(string(text), old, new, 1)) }
	salt := string(text[bytes.Index(text, []byte("Salt: ")):][6:8])
	for _, tt := range []struct {
		name string
		text []byte
		pass string
		want error
	}{
		{"wrong passphrase", text, "correct horse battery stapl", bundle.ErrPassphrase},
		{"empty passphrase", text, "", bundle.ErrPassphrase},
		{"fewer iterations", edit("600000", "60000"), string(pass), bundle.ErrPassphrase},
		{"other salt", edit("Salt: "+salt, fmt.Sprintf("Salt: %02x", salt[0]^1)), string(pass), bundle.ErrPassphrase},
		{"no iterations", edit("600000", "0"), string(pass), bundle.ErrKey},
		{"iterations that take a day", edit("600000", "2000000000"), string(pass), bundle.ErrKey},
		{"short salt", edit("Salt: "+salt, "Salt: "), string(pass), bundle.ErrKey},
		{"unknown cipher", edit("AES-256-GCM", "ROT13"), string(pass), bundle.ErrKey},
		{"unknown KDF", edit("PBKDF2-HMAC-SHA256", "MD5"), string(pass), bundle.ErrKey},
		{"not encrypted", plain, string(pass), bundle.ErrKey},
		{"truncated", text[:len(text)-40], string(pass), bundle.ErrKey},
	} {
		if _, err := bundle.DecryptPrivateKey(tt.text, []byte(tt.pass)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// A key that an earlier program wrote must stay readable, and every part of its file counts.
func TestEncryptedKeyGolden(t *testing.T) {
	const golden = `sower key id 7
-----BEGIN SOWER ENCRYPTED PRIVATE KEY-----
Cipher: AES-256-GCM
Iterations: 600000
KDF: PBKDF2-HMAC-SHA256
Salt: 1d68d979ae91bd0f90c5c777cdc4c5ec602761e285590206980c7e3ed7e4e213

tvbrd30+cpTvZucXuLV6r6CoHqeKIlcnm4uiSCupMZ0dGby/lkOeSaSVruFmrIYI
B4R+20jlyqilYoV7AJvm6m26bDhCJt6EY+rCe59uKgr/TRSJG9vZ8GxHtomHpLQx
ROArjaD46TsSbXawbbKKUlvf4oNYhnJ3Mp0B4dyiZP31HKA6uZPkOwXkBTlHXd8Z
M0jp7laGbh933Q==
-----END SOWER ENCRYPTED PRIVATE KEY-----
`
	k, err := bundle.DecryptPrivateKey([]byte(golden), []byte("golden"))
	if err != nil {
		t.Fatal(err)
	}
	xy, err := bundle.PublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(xy[:]), "65ad5cffeb0139f098cef78f541e01427a9a12a92fdff1e903d162d7057e39b44623ed2fffc15def40de43ef9f90e874edabb7e9771418e6e125011bcbb9fcf3"; got != want {
		t.Errorf("public key %s, want %s", got, want)
	}
}

func FuzzParsePublicKey(f *testing.F) {
	k := key(f)
	pub, err := bundle.MarshalPublicKey(&k.PublicKey, 1)
	if err != nil {
		f.Fatal(err)
	}
	priv, err := bundle.MarshalPrivateKey(k, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pub)
	f.Add(priv)
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := bundle.ParsePublicKey(text)
		if err != nil {
			return
		}
		again, err := bundle.MarshalPublicKey(got, 0)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := bundle.ParsePublicKey(again); err != nil || !back.Equal(got) {
			t.Fatalf("the key does not come back: %v", err)
		}
	})
}
