package bundle_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/sower-fuota/sower/bundle"
)

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func manifest() bundle.Manifest {
	return bundle.Manifest{
		Codec: bundle.CodecPatch, Class: 0x11223344, Hardware: 0x5566, KeyID: 7,
		Version: bundle.MakeVersion(1, 1, 300), Sequence: 42, Expiry: 1480000000,
		NewSize: 70000, BaseSize: 0xfffffe, LinkBase: 0x08004000, Scratch: 4096, RAM: 15360,
		Profile: 2, Options: 3, BaseDigest: [8]byte{1, 2, 3}, NewDigest: [32]byte{9, 8, 7},
	}
}

func TestSignRoundTrip(t *testing.T) {
	k := key(t)
	payload := bytes.Repeat([]byte("payload"), 100)
	block, err := bundle.Sign(manifest(), payload, k)
	if err != nil {
		t.Fatal(err)
	}
	got, rest, err := bundle.Verify(block, &k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	want := manifest()
	want.PayloadSize = uint32(len(payload))
	sum := sha256.Sum256(payload)
	copy(want.PayloadDigest[:], sum[:])
	if got != want {
		t.Errorf("manifest %+v, want %+v", got, want)
	}
	if !bytes.Equal(rest, payload) {
		t.Error("payload differs")
	}
	again, err := bundle.Sign(manifest(), payload, k)
	if err != nil || !bytes.Equal(again, block) {
		t.Errorf("the second signature differs (err %v): nonces are not deterministic", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	k := key(t)
	block, err := bundle.Sign(manifest(), []byte("payload"), k)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(i int) []byte {
		b := bytes.Clone(block)
		b[i] ^= 1
		return b
	}
	tests := []struct {
		name  string
		block []byte
		want  error
	}{
		{"empty", nil, bundle.ErrFormat},
		{"truncated manifest", block[:bundle.ManifestSize-1], bundle.ErrFormat},
		{"truncated payload", block[:len(block)-1], bundle.ErrFormat},
		{"trailing byte", append(bytes.Clone(block), 0), bundle.ErrFormat},
		{"other magic", flip(0), bundle.ErrFormat},
		{"other format version", flip(1), bundle.ErrFormat},
		{"flag set", flip(3), bundle.ErrFormat},
		{"tampered payload", flip(len(block) - 1), bundle.ErrDigest},
		{"tampered signature", flip(100), bundle.ErrSignature},
	}
	for i := 4; i < 96; i++ {
		if i >= 30 && i < 33 || i >= 48 && i < 64 {
			continue // payload size and digest fail earlier, as format and digest errors
		}
		tests = append(tests, struct {
			name  string
			block []byte
			want  error
		}{"signed byte tampered", flip(i), bundle.ErrSignature})
	}
	for _, tt := range tests {
		if _, _, err := bundle.Verify(tt.block, &k.PublicKey); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, _, err := bundle.Verify(block, &key(t).PublicKey); !errors.Is(err, bundle.ErrSignature) {
		t.Errorf("other key: %v, want %v", err, bundle.ErrSignature)
	}
}

func TestSignRefusesFieldsOutOfRange(t *testing.T) {
	k := key(t)
	for name, change := range map[string]func(*bundle.Manifest){
		"key id 0":           func(m *bundle.Manifest) { m.KeyID = 0 },
		"no new image":       func(m *bundle.Manifest) { m.NewSize = 0 },
		"new size 2^24":      func(m *bundle.Manifest) { m.NewSize = 1 << 24 },
		"uneven link base":   func(m *bundle.Manifest) { m.LinkBase = 0x08004001 },
		"uneven scratch":     func(m *bundle.Manifest) { m.Scratch = 65 },
		"too much RAM":       func(m *bundle.Manifest) { m.RAM = 256 * 256 },
		"codec out of range": func(m *bundle.Manifest) { m.Codec = 9 },
	} {
		m := manifest()
		change(&m)
		if _, err := bundle.Sign(m, []byte("x"), k); !errors.Is(err, bundle.ErrField) {
			t.Errorf("%s: %v, want %v", name, err, bundle.ErrField)
		}
	}
	if _, err := bundle.Sign(manifest(), nil, k); !errors.Is(err, bundle.ErrField) {
		t.Errorf("empty payload: %v, want %v", err, bundle.ErrField)
	}
}

func TestVersion(t *testing.T) {
	v, err := bundle.ParseVersion("1.20.300")
	if err != nil || v != 1<<24|20<<16|300 || v.String() != "1.20.300" {
		t.Errorf("1.20.300 is %#x %s, %v", uint32(v), v, err)
	}
	for _, s := range []string{"", "1", "1.2", "1.2.3.4", "256.0.0", "1.2.65536", "1.2.x", "-1.0.0", "1.2.3 "} {
		if _, err := bundle.ParseVersion(s); err == nil {
			t.Errorf("version %q accepted", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	k := key(f)
	block, err := bundle.Sign(manifest(), []byte("payload"), k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(block)
	f.Add(block[:bundle.ManifestSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, payload, err := bundle.Parse(b)
		if err == nil && (len(payload)+bundle.ManifestSize != len(b) || int(m.PayloadSize) != len(payload)) {
			t.Fatalf("accepted %d bytes with a payload of %d, manifest says %d", len(b), len(payload), m.PayloadSize)
		}
	})
}
