package mcuboot_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sower-fuota/sower/bundle/mcuboot"
)

// read returns a file of testdata; its README says where it comes from.
func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func imgtoolKey(t testing.TB) *ecdsa.PublicKey {
	t.Helper()
	block, _ := pem.Decode(read(t, "imgtool.pub"))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PublicKey)
}

// imgtoolBody is the body of the images in testdata.
func imgtoolBody() []byte {
	var b []byte
	for i := 0; len(b) < 701; i++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "golden %d", i))
		b = append(b, sum[:]...)
	}
	return b[:701]
}

func TestImgtoolImages(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
	}{
		{"imgtool.img", len(read(t, "imgtool.img"))},
		{"protected.img", len(read(t, "protected.img"))},
		{"padded.img", 0x100 + 701 + 151},
	} {
		img := read(t, tt.name)
		got, err := mcuboot.Verify(img, imgtoolKey(t))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		// The length of a DER signature depends on chance.
		if d := got.Size - tt.size; d < -3 || d > 3 || tt.size == len(img) && d != 0 {
			t.Errorf("%s: image of %d bytes, want %d", tt.name, got.Size, tt.size)
		}
		want := mcuboot.Image{Major: 1, Minor: 2, Revision: 3, Build: 4, HeaderSize: 0x100, BodySize: 701, Size: got.Size, Signed: true}
		if got != want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, want)
		}
		if !bytes.Equal(img[0x100:0x100+701], imgtoolBody()) {
			t.Errorf("%s: the body differs", tt.name)
		}
		img[0x100+5] ^= 1
		if _, err := mcuboot.Verify(img, imgtoolKey(t)); !errors.Is(err, mcuboot.ErrImage) {
			t.Errorf("%s, body changed: %v, want %v", tt.name, err, mcuboot.ErrImage)
		}
	}
	if _, err := mcuboot.Parse(read(t, "encrypted.img")); !errors.Is(err, mcuboot.ErrImage) {
		t.Errorf("encrypted image: %v, want %v", err, mcuboot.ErrImage)
	}
}

// Up to the signature, which has a random nonce, Wrap writes byte for byte what imgtool writes.
func TestWrapEqualsImgtool(t *testing.T) {
	want := read(t, "imgtool.img")
	got, err := mcuboot.Wrap(imgtoolBody(), mcuboot.Options{Major: 1, Minor: 2, Revision: 3, Build: 4, HeaderSize: 0x100})
	if err != nil {
		t.Fatal(err)
	}
	end := 0x100 + 701
	if !bytes.Equal(got[:end], want[:end]) {
		t.Error("header or body differ")
	}
	if !bytes.Equal(got[end+4:], want[end+4:end+4+36]) { // behind the TLV area's header, which holds its length
		t.Errorf("SHA-256 TLV % x, want % x", got[end+4:], want[end+4:end+4+36])
	}
}

func TestVerifyRefuses(t *testing.T) {
	pub := imgtoolKey(t)
	unsigned, err := mcuboot.Wrap(imgtoolBody(), mcuboot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := mcuboot.Wrap(imgtoolBody(), mcuboot.Options{Signer: newKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	forged := read(t, "imgtool.img")
	forged[len(forged)-1] ^= 1
	for name, img := range map[string][]byte{"unsigned": unsigned, "another key": foreign, "signature changed": forged} {
		if _, err := mcuboot.Verify(img, pub); !errors.Is(err, mcuboot.ErrSignature) {
			t.Errorf("%s: %v, want %v", name, err, mcuboot.ErrSignature)
		}
	}
}
