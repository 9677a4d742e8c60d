package bundle_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/delta"
)

func pemText(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func target() bundle.Target {
	return bundle.Target{Class: 0x1001, Hardware: 3, KeyID: 2, Sequence: 5, Expiry: 1480000000}
}

// body returns n bytes that compress about as well as machine code.
func body(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 0, n)
	for len(b) < n {
		if back := 1 + r.IntN(400); r.IntN(3) > 0 && back+30 < len(b) {
			b = append(b, b[len(b)-back-30:][:4+r.IntN(20)]...)
		} else {
			b = append(b, byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()))
		}
	}
	return b[:n]
}

func firmware(t testing.TB, n int, minor uint8) []byte {
	t.Helper()
	img, err := mcuboot.Wrap(append(body(n, 1), minor), mcuboot.Options{Major: 1, Minor: minor, Revision: 9, HeaderSize: 32})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// Every codec gives back the image bit for bit, from a bundle that is the same each time.
func TestCodecs(t *testing.T) {
	k := key(t)
	for _, n := range []int{1, 900, 30000, 1<<20 + 5000} {
		old, new := firmware(t, n, 1), firmware(t, n, 2)
		for codec, sign := range map[bundle.Codec]func() ([]byte, error){
			bundle.CodecFull: func() ([]byte, error) { return bundle.Full(target(), new, k) },
			bundle.CodecZstd: func() ([]byte, error) { return bundle.Zstd(target(), new, k) },
			bundle.CodecPatch: func() ([]byte, error) {
				if n > 1000 {
					return nil, nil // the time goes into the patch, which package delta tests
				}
				f, err := delta.NewFile(old, new, delta.Options{Arch: delta.ArchNone})
				if err != nil {
					return nil, err
				}
				return bundle.Patch(target(), f, new, k)
			},
		} {
			block, err := sign()
			if err != nil {
				t.Errorf("%v of %d bytes: %v", codec, len(new), err)
			}
			if block == nil {
				continue
			}
			m, payload, err := bundle.Verify(block, &k.PublicKey)
			if err != nil {
				t.Fatalf("%v of %d bytes: %v", codec, len(new), err)
			}
			if m.Codec != codec || m.Version != bundle.MakeVersion(1, 2, 9) || m.Class != 0x1001 || m.Hardware != 3 ||
				m.KeyID != 2 || m.Sequence != 5 || m.Expiry != 1480000000 || m.NewDigest != sha256.Sum256(new) {
				t.Errorf("%v of %d bytes: manifest %+v", codec, len(new), m)
			}
			if got, err := m.Image(payload, old); err != nil || !bytes.Equal(got, new) {
				t.Errorf("%v of %d bytes: the image does not come back: %v", codec, len(new), err)
			}
			if again, err := sign(); err != nil || !bytes.Equal(again, block) {
				t.Errorf("%v of %d bytes: the second bundle differs (%v)", codec, len(new), err)
			}
		}
	}
	full, err := bundle.Full(target(), firmware(t, 30000, 2), k)
	if err != nil {
		t.Fatal(err)
	}
	small, err := bundle.Zstd(target(), firmware(t, 30000, 2), k)
	if err != nil {
		t.Fatal(err)
	}
	if len(small) > len(full)*9/10 {
		t.Errorf("zstd: %d bytes, full: %d", len(small), len(full))
	}
}

func TestImageRefuses(t *testing.T) {
	k := key(t)
	old, new := firmware(t, 3000, 1), firmware(t, 3000, 2)
	f, err := delta.NewFile(old, new, delta.Options{Arch: delta.ArchNone})
	if err != nil {
		t.Fatal(err)
	}
	parse := func(block []byte, err error) (bundle.Manifest, []byte) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		m, payload, err := bundle.Parse(block)
		if err != nil {
			t.Fatal(err)
		}
		return m, bytes.Clone(payload)
	}
	patch, stream := parse(bundle.Patch(target(), f, new, k))
	for name, base := range map[string][]byte{"none": nil, "new image": new, "longer": append(bytes.Clone(old), 0)} {
		if _, err := patch.Image(stream, base); !errors.Is(err, bundle.ErrBase) {
			t.Errorf("patch on another base (%s): %v, want %v", name, err, bundle.ErrBase)
		}
	}
	full, payload := parse(bundle.Full(target(), new, k))
	payload[77] ^= 1
	if _, err := full.Image(payload, nil); !errors.Is(err, bundle.ErrPayload) {
		t.Errorf("another image: %v, want %v", err, bundle.ErrPayload)
	}

	zm, frame := parse(bundle.Zstd(target(), new, k))
	encode := func(image []byte, o ...zstd.EOption) []byte {
		e, err := zstd.NewWriter(nil, o...)
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(image, nil)
	}
	var unsized bytes.Buffer
	w, err := zstd.NewWriter(&unsized)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(new[:5]); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(new[5:]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, payload := range map[string][]byte{
		"no frame":          []byte("no frame at all"),
		"truncated":         frame[:len(frame)-9],
		"two frames":        append(bytes.Clone(frame), frame...),
		"skippable frame":   append([]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0}, frame...),
		"another image":     encode(old),
		"size not said":     unsized.Bytes(),
		"a bomb":            encode(make([]byte, 1<<24)),
		"a bomb of a frame": append(bytes.Clone(frame), encode(make([]byte, 1<<24))...),
	} {
		if _, err := zm.Image(payload, nil); !errors.Is(err, bundle.ErrPayload) {
			t.Errorf("zstd, %s: %v, want %v", name, err, bundle.ErrPayload)
		}
	}
	wide := zm
	wide.NewSize = 4 << 20
	if _, err := wide.Image(encode(make([]byte, 4<<20), zstd.WithWindowSize(8<<20)), nil); !errors.Is(err, bundle.ErrPayload) || !strings.Contains(err.Error(), "window") {
		t.Errorf("zstd, window of 4 MiB: %v, want %v", err, bundle.ErrPayload)
	}
}

func TestTargetRefuses(t *testing.T) {
	k := key(t)
	img := firmware(t, 100, 2)
	other, zero := target(), target()
	other.Version = bundle.MakeVersion(1, 2, 3)
	zero.Sequence = 0
	for _, tt := range []struct {
		name   string
		target bundle.Target
		image  []byte
		say    string
	}{
		{"another version than the header's", other, img, "version 1.2.3 was asked for, the image header says 1.2.9"},
		{"sequence that no device accepts", zero, img, "sequence 0"},
		{"padding behind the image", target(), append(bytes.Clone(img), 0xff, 0xff), "2 bytes follow the TLV area"},
		{"truncated image", target(), img[:len(img)-1], "not a valid image"},
		{"empty image", target(), nil, "empty"},
	} {
		for name, sign := range map[string]func() ([]byte, error){
			"full": func() ([]byte, error) { return bundle.Full(tt.target, tt.image, k) },
			"zstd": func() ([]byte, error) { return bundle.Zstd(tt.target, tt.image, k) },
		} {
			if _, err := sign(); err == nil || !strings.Contains(err.Error(), tt.say) {
				t.Errorf("%s, %s: %v, want %q", name, tt.name, err, tt.say)
			}
		}
	}
}

func imgtoolImage(t testing.TB) []byte {
	t.Helper()
	img, err := os.ReadFile(filepath.Join("image", "testdata", "imgtool.img")) // see mcuboot/testdata/README.md
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// An imgtool-signed image passes through bit for bit.
func TestImgtoolImagePassesThrough(t *testing.T) {
	img := imgtoolImage(t)
	k := key(t)
	block, err := bundle.Full(target(), img, k)
	if err != nil {
		t.Fatal(err)
	}
	if len(block) != bundle.ManifestSize+len(img) || !bytes.Equal(block[bundle.ManifestSize:], img) {
		t.Error("the payload is not the image")
	}
	if m, _, err := bundle.Parse(block); err != nil || m.Version != bundle.MakeVersion(1, 2, 3) {
		t.Errorf("version %v, %v; want 1.2.3", m.Version, err)
	}
}

func FuzzZstd(f *testing.F) {
	k := key(f)
	block, err := bundle.Zstd(target(), firmware(f, 2000, 1), k)
	if err != nil {
		f.Fatal(err)
	}
	m, payload, err := bundle.Parse(block)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		if image, err := m.Image(payload, nil); err == nil && sha256.Sum256(image) != m.NewDigest {
			t.Fatal("another image was accepted")
		}
	})
}
