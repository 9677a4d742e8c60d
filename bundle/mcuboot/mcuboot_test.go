package mcuboot_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/sower-fuota/sower/bundle/mcuboot"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestWrapParse(t *testing.T) {
	key := newKey(t)
	body := bytes.Repeat([]byte{1, 2, 3}, 1000)
	for _, signed := range []bool{false, true} {
		o := mcuboot.Options{Major: 1, Minor: 2, Revision: 3, Build: 4, LoadAddress: 0x08004000}
		if signed {
			o.Signer = key
		}
		img, err := mcuboot.Wrap(body, o)
		if err != nil {
			t.Fatal(err)
		}
		padded := append(bytes.Clone(img), bytes.Repeat([]byte{0xff}, 512)...)
		got, err := mcuboot.Parse(padded)
		if err != nil {
			t.Fatal(err)
		}
		want := mcuboot.Image{Major: 1, Minor: 2, Revision: 3, Build: 4, LoadAddress: 0x08004000,
			HeaderSize: 0x200, BodySize: len(body), Size: len(img), Signed: signed}
		if got != want {
			t.Errorf("signed %v: %+v, want %+v", signed, got, want)
		}
		for _, i := range []int{0, 21, 0x200, len(body), 0x200 + len(body), 0x200 + len(body) + 8} {
			bad := bytes.Clone(img)
			bad[i] ^= 0x10
			if _, err := mcuboot.Parse(bad); !errors.Is(err, mcuboot.ErrImage) {
				t.Errorf("signed %v: byte %d changed: %v, want %v", signed, i, err, mcuboot.ErrImage)
			}
		}
		for n := 0; n < len(img); n += 37 {
			if _, err := mcuboot.Parse(img[:n]); !errors.Is(err, mcuboot.ErrImage) {
				t.Errorf("signed %v: truncated to %d bytes: %v, want %v", signed, n, err, mcuboot.ErrImage)
			}
		}
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mcuboot.Wrap(body, mcuboot.Options{Signer: other}); err == nil {
		t.Error("a key on another curve signs")
	}
	// Header and body together exceed an int of 32 bits: GOARCH=386 go test.
	for _, size := range []uint32{0, 1<<31 - 1, 1 << 31, 1<<32 - 1} {
		img, err := mcuboot.Wrap(body, mcuboot.Options{})
		if err != nil {
			t.Fatal(err)
		}
		binary.LittleEndian.PutUint32(img[12:], size)
		if _, err := mcuboot.Parse(img); !errors.Is(err, mcuboot.ErrImage) {
			t.Errorf("body of %d bytes: %v, want %v", size, err, mcuboot.ErrImage)
		}
	}
	if _, err := mcuboot.Wrap(nil, mcuboot.Options{}); !errors.Is(err, mcuboot.ErrImage) {
		t.Errorf("empty body: %v, want %v", err, mcuboot.ErrImage)
	}
}

func FuzzParse(f *testing.F) {
	img, err := mcuboot.Wrap([]byte("body"), mcuboot.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(img)
	f.Add(read(f, "imgtool.img"))
	f.Add(read(f, "protected.img"))
	f.Fuzz(func(t *testing.T, b []byte) {
		im, err := mcuboot.Parse(b)
		if err == nil && im.Size > len(b) {
			t.Fatalf("image of %d bytes in a file of %d", im.Size, len(b))
		}
	})
}
