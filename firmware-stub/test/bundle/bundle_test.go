package bundle_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/delta"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// vectorKey is the key of RFC 6979, A.2.5: everybody may know it, and it makes the vectors reproducible.
func vectorKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), unhex(t, "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t testing.TB, k *ecdsa.PrivateKey) [64]byte {
	t.Helper()
	xy, err := bundle.PublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return xy
}

// vector is an entry of testdata/bundles.json: a bundle for a device that holds the public key under key id 1.
type vector struct {
	ID    string `json:"id"`
	How   string `json:"how"`
	Want  string `json:"want"` // cause of sow_manifest_verify
	Pub   string `json:"pub"`  // X|Y
	Block string `json:"block"`
}

func vectors(t testing.TB) []vector {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "bundles.json"))
	if err != nil {
		t.Fatal(err)
	}
	var out []vector
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// publicKey is the inverse of bundle.PublicKey.
func publicKey(t testing.TB, xy []byte) *ecdsa.PublicKey {
	t.Helper()
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, xy...))
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

// Go and C give the verdict of the vector, which OpenSSL gave too when the file was made.
func TestVectors(t *testing.T) {
	d := start(t)
	seen := map[string]int{}
	for _, v := range vectors(t) {
		block, xy := unhex(t, v.Block), unhex(t, v.Pub)
		seen[v.Want]++
		d.do("key", 0, 1, xy)
		if got := d.verify(block); got.String() != v.Want {
			t.Errorf("%s: C says %v, want %s", v.ID, got, v.Want)
		}
		_, _, err := bundle.Verify(block, publicKey(t, xy))
		switch v.Want {
		case "OK":
			if err != nil {
				t.Errorf("%s: Go says %v", v.ID, err)
			}
		case "SIGNATURE_BAD":
			if !errors.Is(err, bundle.ErrSignature) {
				t.Errorf("%s: Go says %v, want %v", v.ID, err, bundle.ErrSignature)
			}
		case "KEY_UNKNOWN": // Go is told which key; only the device looks it up
		default:
			t.Errorf("%s: unknown verdict %q", v.ID, v.Want)
		}
	}
	if seen["OK"] < 6 || seen["SIGNATURE_BAD"] < 6 || seen["KEY_UNKNOWN"] < 1 {
		t.Errorf("too few vectors: %v", seen)
	}
}

// The bundles that Go signed come out the same again: manifest, deterministic nonce and payload.
func TestVectorsAreReproduced(t *testing.T) {
	n := 0
	for _, v := range vectors(t) {
		block := unhex(t, v.Block)
		if v.How != howGo {
			continue
		}
		n++
		m, payload, err := bundle.Parse(block)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := bundle.Sign(m, payload, vectorKey(t)); err != nil || !bytes.Equal(again, block) {
			t.Errorf("%s: signed again it differs (%v)", v.ID, err)
		}
	}
	if n < 3 {
		t.Errorf("%d vectors signed in Go", n)
	}
}

const howGo = "signed by package bundle, RFC 6979"

// Every field reaches the device as it was signed.
func TestFieldsAgree(t *testing.T) {
	d := start(t)
	r := rand.New(rand.NewPCG(1, 2))
	k := vectorKey(t)
	d.do("key", 0, 1, public(t, k))
	for i := range 300 {
		m := bundle.Manifest{
			Codec: bundle.Codec(r.IntN(3)), Class: r.Uint32(), Hardware: uint16(r.Uint32()), KeyID: 1,
			Version: bundle.Version(r.Uint32()), Sequence: r.Uint32(), Expiry: r.Uint32(), NewSize: 1 + r.Uint32N(1<<24-1),
			BaseSize: r.Uint32N(1 << 24), LinkBase: r.Uint32() &^ 0xff, Scratch: r.Uint32N(1<<16) * 64, RAM: r.Uint32N(256) * 256,
			Profile: uint8(r.Uint32()), Options: uint8(r.Uint32()),
		}
		for _, digest := range [][]byte{m.BaseDigest[:], m.NewDigest[:]} {
			for j := range digest {
				digest[j] = byte(r.Uint32())
			}
		}
		if i == 0 { // every bit of every field
			m = bundle.Manifest{Codec: bundle.CodecZstd, Class: 1<<32 - 1, Hardware: 1<<16 - 1, KeyID: 1, Version: 1<<32 - 1, Sequence: 1<<32 - 1,
				Expiry: 1<<32 - 1, NewSize: 1<<24 - 1, BaseSize: 1<<24 - 1, LinkBase: 1<<32 - 256, Scratch: 0xffff * 64, RAM: 0xff * 256, Profile: 255, Options: 255}
		}
		payload := make([]byte, 1+r.IntN(200))
		block, err := bundle.Sign(m, payload, k)
		if err != nil {
			t.Fatal(err)
		}
		if m, _, err = bundle.Verify(block, &k.PublicKey); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%d 0 %d %d %d %d %d %d %d %d %d %d %d %d %d %d %x %x %x", m.Codec, m.KeyID, m.Profile, m.Options,
			m.Class, m.Hardware, uint32(m.Version), m.Sequence, m.Expiry, m.NewSize, m.BaseSize, m.PayloadSize, m.LinkBase, m.Scratch, m.RAM,
			m.BaseDigest, m.PayloadDigest, m.NewDigest)
		if got := d.ask("parse", block[:bundle.ManifestSize]); got != want {
			t.Fatalf("C reads %s, Go %s", got, want)
		}
		if i < 20 {
			if got := d.verify(block); got != diag.CauseOK {
				t.Errorf("C says %v of the signature", got)
			}
		}
	}
}

// No byte of a manifest can be changed: C and Go both refuse each.
func TestEveryBitIsSigned(t *testing.T) {
	d := start(t)
	k := vectorKey(t)
	d.do("key", 0, 1, public(t, k))
	block, err := bundle.Sign(bundle.Manifest{KeyID: 1, NewSize: 9, Sequence: 1}, []byte("payload"), k)
	if err != nil {
		t.Fatal(err)
	}
	for i := range bundle.ManifestSize {
		bad := bytes.Clone(block)
		bad[i] ^= 1 << (i % 8)
		if i == 10 {
			continue // the key id: another slot, tested in TestTrustSlots
		}
		if _, _, err := bundle.Verify(bad, &k.PublicKey); err == nil {
			t.Errorf("byte %d: Go accepts", i)
		}
		if got := d.verify(bad); got != diag.CauseSignatureBad {
			t.Errorf("byte %d: C says %v, want SIGNATURE_BAD", i, got)
		}
	}
}

// A device has two trust slots; the key id says which one a bundle is for. A key is rotated by filling the other.
func TestTrustSlots(t *testing.T) {
	d := start(t)
	first, second, third := newKey(t), newKey(t), newKey(t)
	sign := func(id uint8, k *ecdsa.PrivateKey) []byte {
		block, err := bundle.Sign(bundle.Manifest{KeyID: id, NewSize: 9, Sequence: 1}, []byte("payload"), k)
		if err != nil {
			t.Fatal(err)
		}
		return block
	}
	expect := func(when string, block []byte, want diag.Cause) {
		t.Helper()
		if got := d.verify(block); got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	expect("no keys at all", sign(1, first), diag.CauseKeyUnknown)
	d.do("key", 0, 1, public(t, first))
	expect("the only key", sign(1, first), diag.CauseOK)
	expect("a key to come", sign(2, second), diag.CauseKeyUnknown)
	d.do("key", 1, 2, public(t, second))
	expect("old key during rotation", sign(1, first), diag.CauseOK)
	expect("new key during rotation", sign(2, second), diag.CauseOK)
	expect("keys swapped", sign(2, first), diag.CauseSignatureBad)
	expect("a stranger under a known id", sign(1, third), diag.CauseSignatureBad)
	expect("a stranger under an unknown id", sign(9, third), diag.CauseKeyUnknown)
	d.do("key", 0, 3, public(t, third))
	expect("old key after rotation", sign(1, first), diag.CauseKeyUnknown)
	expect("the key after next", sign(3, third), diag.CauseOK)
	d.do("key", 1, 0, make([]byte, 64))
	expect("revoked", sign(2, second), diag.CauseKeyUnknown)
}

const (
	class    = 0x1001
	hardware = 7
	now      = 1_480_000_000 // GPS
)

// image returns an MCUboot image; minor is its version and part of its content.
func image(t testing.TB, minor uint8) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(9, 9))
	body := make([]byte, 1500)
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	body[200] = minor
	img, err := mcuboot.Wrap(body, mcuboot.Options{Major: 1, Minor: minor, HeaderSize: 32})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// fleet is a device and the one who signs for it.
type fleet struct {
	*driver
	key      *ecdsa.PrivateKey
	old, new []byte
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{driver: start(t), key: newKey(t), old: image(t, 0), new: image(t, 1)}
	f.fresh()
	return f
}

// fresh gives the fleet a new device that runs the old image.
func (f *fleet) fresh() {
	f.t.Helper()
	f.do("key", 0, 1, public(f.t, f.key))
	f.do("device", class, hardware, f.old)
	f.do("time", now)
}

func (f *fleet) target() bundle.Target {
	return bundle.Target{Class: class, Hardware: hardware, KeyID: 1, Sequence: 5, Expiry: now + 3600}
}

func (f *fleet) full(change func(*bundle.Target), k *ecdsa.PrivateKey) []byte {
	f.t.Helper()
	target := f.target()
	if change != nil {
		change(&target)
	}
	block, err := bundle.Full(target, f.new, k)
	if err != nil {
		f.t.Fatal(err)
	}
	return block
}

func (f *fleet) patch(base []byte) []byte {
	f.t.Helper()
	p, err := delta.NewFile(base, f.new, delta.Options{Arch: delta.ArchNone, Map: delta.MapRAM, RAM: 5120})
	if err != nil {
		f.t.Fatal(err)
	}
	block, err := bundle.Patch(f.target(), p, f.new, f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return block
}

// What package bundle makes is installed, by each codec that a device has.
func TestDeviceInstalls(t *testing.T) {
	f := newFleet(t)
	for name, block := range map[string][]byte{"full": f.full(nil, f.key), "patch": f.patch(f.old)} {
		f.fresh()
		if step, cause := f.send(block); cause != diag.CauseOK {
			t.Fatalf("%s: %v at %v", name, cause, step)
		}
		if got, want := f.ask("install"), fmt.Sprintf("5 %d", len(f.new)); got != want {
			t.Errorf("%s: runs %s, want sequence and size %s", name, got, want)
		}
	}
}

// Each thing that must not be installed is refused with a cause of its own, and before the payload is looked at.
func TestEachRefusalHasItsReason(t *testing.T) {
	f := newFleet(t)
	tampered := func(at int) []byte {
		b := f.full(nil, f.key)
		b[at] ^= 0x20
		return b
	}
	zstd, err := bundle.Zstd(f.target(), f.new, f.key)
	if err != nil {
		t.Fatal(err)
	}
	// What package bundle does not make, an insider with the key can: payloads under an honest signature.
	insider := func(image []byte, digest [32]byte) []byte {
		m, _, err := bundle.Parse(f.full(nil, f.key))
		if err != nil {
			t.Fatal(err)
		}
		m.NewDigest = digest
		block, err := bundle.Sign(m, image, f.key)
		if err != nil {
			t.Fatal(err)
		}
		return block
	}
	broken := bytes.Clone(f.new)
	broken[300] ^= 1
	twin, err := mcuboot.Wrap(broken[32:32+1500], mcuboot.Options{Major: 1, Minor: 1, HeaderSize: 32})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		block []byte
		step  diag.Step
		cause diag.Cause
	}{
		{"wrong key", f.full(nil, newKey(t)), diag.StepManifest, diag.CauseSignatureBad},
		{"unknown key id", f.full(func(t *bundle.Target) { t.KeyID = 2 }, f.key), diag.StepManifest, diag.CauseKeyUnknown},
		{"wrong base", f.patch(image(t, 7)), diag.StepManifest, diag.CauseBaseMismatch},
		{"expired", f.full(func(t *bundle.Target) { t.Expiry = now - 1 }, f.key), diag.StepManifest, diag.CauseExpired},
		{"another class", f.full(func(t *bundle.Target) { t.Class++ }, f.key), diag.StepManifest, diag.CauseClassMismatch},
		{"another hardware", f.full(func(t *bundle.Target) { t.Hardware++ }, f.key), diag.StepManifest, diag.CauseHardwareMismatch},
		{"zstd", zstd, diag.StepManifest, diag.CauseCodecUnsupported},
		{"tampered manifest", tampered(70), diag.StepManifest, diag.CauseSignatureBad},
		{"tampered signature", tampered(130), diag.StepManifest, diag.CauseSignatureBad},
		{"tampered payload", tampered(bundle.ManifestSize + 400), diag.StepVerify, diag.CauseDigestBad},
		{"an image that is not the one promised", insider(twin, sha256.Sum256(f.new)), diag.StepPatch, diag.CauseImageDigestBad},
		{"an image that its own hash contradicts", insider(broken, sha256.Sum256(broken)), diag.StepPatch, diag.CauseImageInvalid},
		{"no manifest", f.new, diag.StepManifest, diag.CauseManifestFormat},
	} {
		f.fresh()
		if step, cause := f.send(tt.block); step != tt.step || cause != tt.cause {
			t.Errorf("%s: %v at %v, want %v at %v", tt.name, cause, step, tt.cause, tt.step)
		}
		if got := f.ask("install"); got == fmt.Sprintf("5 %d", len(f.new)) {
			t.Errorf("%s: it was installed all the same", tt.name)
		}
	}

	// Without a clock a device cannot judge expiry; the server does.
	f.fresh()
	f.do("time", 0)
	if step, cause := f.send(f.full(func(t *bundle.Target) { t.Expiry = 1 }, f.key)); cause != diag.CauseOK {
		t.Errorf("expired, clock unknown: %v at %v", cause, step)
	}
}

// What a device has confirmed cannot be sent again, nor anything older, however well signed.
func TestReplay(t *testing.T) {
	f := newFleet(t)
	block := f.full(nil, f.key)
	if step, cause := f.send(block); cause != diag.CauseOK {
		t.Fatalf("%v at %v", cause, step)
	}
	if got, want := f.ask("install"), fmt.Sprintf("5 %d", len(f.new)); got != want {
		t.Fatalf("runs %s, want %s", got, want)
	}
	f.new, f.old = f.old, f.new // back to the old image
	for _, sequence := range []uint32{1, 4, 5} {
		older := f.full(func(t *bundle.Target) { t.Sequence = sequence }, f.key)
		if step, cause := f.send(older); cause != diag.CauseRollbackBlocked || step != diag.StepManifest {
			t.Errorf("sequence %d after 5: %v at %v, want ROLLBACK_BLOCKED at MANIFEST", sequence, cause, step)
		}
	}
	if step, cause := f.send(block); cause != diag.CauseRollbackBlocked {
		t.Errorf("the same bundle again: %v at %v, want ROLLBACK_BLOCKED", cause, step)
	}
	if step, cause := f.send(f.full(func(t *bundle.Target) { t.Sequence = 6 }, f.key)); cause != diag.CauseOK {
		t.Errorf("sequence 6 after 5: %v at %v", cause, step)
	}
}

// The boot stub trusts nobody: whatever the application requests, it verifies manifest and image itself.
func TestBootStubJudgesAgain(t *testing.T) {
	const refused = 5 // SOW_BOOT_REFUSED
	f := newFleet(t)
	block := f.full(nil, f.key)
	manifest := func(change func([]byte)) []byte {
		m := bytes.Clone(block[:bundle.ManifestSize])
		change(m)
		return m
	}
	other := bytes.Clone(f.new)
	other[500] ^= 1
	for _, tt := range []struct {
		name     string
		manifest []byte
		image    []byte
		cause    diag.Cause
	}{
		{"another image than the one signed", block[:bundle.ManifestSize], other, diag.CauseImageDigestBad},
		{"a digest put in by hand", manifest(func(m []byte) { sum := sha256.Sum256(other); copy(m[64:], sum[:]) }), other, diag.CauseSignatureBad},
		{"a sequence put in by hand", manifest(func(m []byte) { binary.LittleEndian.PutUint32(m[16:], 99) }), f.new, diag.CauseSignatureBad},
		{"wrong key", f.full(nil, newKey(t))[:bundle.ManifestSize], f.new, diag.CauseSignatureBad},
		{"another class", f.full(func(t *bundle.Target) { t.Class++ }, f.key)[:bundle.ManifestSize], f.new, diag.CauseClassMismatch},
	} {
		f.fresh()
		if got, want := f.ask("request", tt.manifest, tt.image), fmt.Sprintf("%d %d", refused, uint8(tt.cause)); got != want {
			t.Errorf("%s: state and cause %s, want %s (%v)", tt.name, got, want, tt.cause)
		}
	}
}
