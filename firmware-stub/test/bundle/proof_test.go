//go:build proof

package bundle_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/delta"
)

var update = flag.Bool("update", false, "write testdata/bundles.json")

// openssl runs OpenSSL in a folder and returns what it writes, and whether it succeeded.
func openssl(t *testing.T, dir string, args ...string) (string, bool) {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatalf("%v: OpenSSL 1.1 or later is needed", err)
	}
	return string(out), err == nil
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// opensslAccepts reports whether OpenSSL accepts the signature of the manifest at the start of block.
func opensslAccepts(t *testing.T, pub *ecdsa.PublicKey, block []byte) bool {
	t.Helper()
	dir := t.TempDir()
	text, err := bundle.MarshalPublicKey(pub, 1)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(block[96:128]), new(big.Int).SetBytes(block[128:160])})
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "key.pub", text)
	write(t, dir, "signature", der)
	write(t, dir, "manifest", block[:96])
	out, ok := openssl(t, dir, "dgst", "-sha256", "-verify", "key.pub", "-signature", "signature", "manifest")
	return ok && strings.Contains(out, "Verified OK")
}

// opensslSigns replaces the signature of a bundle by one of OpenSSL.
func opensslSigns(t *testing.T, key *ecdsa.PrivateKey, block []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	text, err := bundle.MarshalPrivateKey(key, 1)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "key", text)
	write(t, dir, "manifest", block[:96])
	if out, ok := openssl(t, dir, "dgst", "-sha256", "-sign", "key", "-out", "signature", "manifest"); !ok {
		t.Fatal(out)
	}
	der, err := os.ReadFile(filepath.Join(dir, "signature"))
	if err != nil {
		t.Fatal(err)
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(block)
	sig.R.FillBytes(out[96:128])
	sig.S.FillBytes(out[128:160])
	return out
}

// OpenSSL gives every vector the verdict that Go and C give it.
func TestVectorsByOpenSSL(t *testing.T) {
	if *update {
		makeVectors(t)
	}
	for _, v := range vectors(t) {
		want := v.Want != "SIGNATURE_BAD"
		if got := opensslAccepts(t, publicKey(t, unhex(t, v.Pub)), unhex(t, v.Block)); got != want {
			t.Errorf("%s: OpenSSL accepts: %v, want %v", v.ID, got, want)
		}
	}
}

// Fresh keys, fresh manifests: each side signs, the others verify.
func TestOpenSSLBothWays(t *testing.T) {
	d := start(t)
	for i := range 30 {
		k := newKey(t)
		d.do("key", 0, 1, public(t, k))
		ours, err := bundle.Sign(bundle.Manifest{KeyID: 1, NewSize: 1, Sequence: uint32(i)}, []byte{byte(i)}, k)
		if err != nil {
			t.Fatal(err)
		}
		if !opensslAccepts(t, &k.PublicKey, ours) {
			t.Errorf("%d: OpenSSL refuses what Go signed", i)
		}
		theirs := opensslSigns(t, k, ours)
		if _, _, err := bundle.Verify(theirs, &k.PublicKey); err != nil {
			t.Errorf("%d: Go refuses what OpenSSL signed: %v", i, err)
		}
		if got := d.verify(theirs); got != 0 {
			t.Errorf("%d: C refuses what OpenSSL signed: %v", i, got)
		}
	}
}

// makeVectors writes testdata/bundles.json.
func makeVectors(t *testing.T) {
	k := vectorKey(t)
	var out []vector
	add := func(id, how, want string, block []byte) {
		xy := public(t, k)
		out = append(out, vector{id, how, want, hex.EncodeToString(xy[:]), hex.EncodeToString(block)})
	}
	must := func(block []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return block
	}
	target := bundle.Target{Class: 0x11223344, Hardware: 0x5566, KeyID: 1, Version: bundle.MakeVersion(1, 2, 300), Sequence: 42, Expiry: 1480000000}
	old, img := []byte(strings.Repeat("firmware ", 30)), []byte(strings.Repeat("firmware ", 31))
	p, err := delta.NewFile(old, img, delta.Options{Arch: delta.ArchNone})
	if err != nil {
		t.Fatal(err)
	}
	full := must(bundle.Full(target, img, k))
	add("full", howGo, "OK", full)
	add("patch", howGo, "OK", must(bundle.Patch(target, p, img, k)))
	add("zstd", howGo, "OK", must(bundle.Zstd(target, img, k)))
	edge := target
	edge.Class, edge.Hardware, edge.Version, edge.Sequence, edge.Expiry = 1<<32-1, 1<<16-1, 1<<32-1, 1<<32-1, 1<<32-1
	add("all-bits", howGo, "OK", must(bundle.Full(edge, img, k)))
	version, _ := openssl(t, t.TempDir(), "version")
	how := "openssl dgst -sha256 -sign, " + strings.Join(strings.Fields(version)[:2], " ")
	for i := range 4 {
		edge.Sequence = uint32(i)
		edge.Sequence++
		add(fmt.Sprintf("openssl-%d", i), how, "OK", opensslSigns(t, k, must(bundle.Full(edge, img, k))))
	}

	n := elliptic.P256().Params().N
	edit := func(change func(r, s *big.Int)) []byte {
		b := bytes.Clone(full)
		r, s := new(big.Int).SetBytes(b[96:128]), new(big.Int).SetBytes(b[128:160])
		change(r, s)
		r.FillBytes(b[96:128])
		s.FillBytes(b[128:160])
		return b
	}
	add("negated-s", "n-s in place of s: as valid, and of no use to anyone", "OK", edit(func(_, s *big.Int) { s.Sub(n, s) }))
	add("r-zero", "r = 0", "SIGNATURE_BAD", edit(func(r, _ *big.Int) { r.SetInt64(0) }))
	add("s-zero", "s = 0", "SIGNATURE_BAD", edit(func(_, s *big.Int) { s.SetInt64(0) }))
	add("r-n", "r = n", "SIGNATURE_BAD", edit(func(r, _ *big.Int) { r.Set(n) }))
	add("s-n", "s = n", "SIGNATURE_BAD", edit(func(_, s *big.Int) { s.Set(n) }))
	add("both-zero", "r = s = 0", "SIGNATURE_BAD", edit(func(r, s *big.Int) { r.SetInt64(0); s.SetInt64(0) }))
	add("swapped", "r and s exchanged", "SIGNATURE_BAD", edit(func(r, s *big.Int) { *r, *s = *s, *r }))
	add("little-endian", "r and s in the other byte order", "SIGNATURE_BAD", func() []byte {
		b := bytes.Clone(full)
		for i := range 16 {
			b[96+i], b[127-i] = b[127-i], b[96+i]
			b[128+i], b[159-i] = b[159-i], b[128+i]
		}
		return b
	}())
	for _, at := range []int{5, 16, 20, 64, 95} {
		b := bytes.Clone(full)
		b[at] ^= 0x80
		add(fmt.Sprintf("tampered-%d", at), fmt.Sprintf("byte %d changed", at), "SIGNATURE_BAD", b)
	}
	stranger, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	add("wrong-key", "signed with another key", "SIGNATURE_BAD", must(bundle.Full(target, img, stranger)))
	second := target
	second.KeyID = 2
	add("unknown-key-id", "signed with the right key under key id 2", "KEY_UNKNOWN", must(bundle.Full(second, img, k)))

	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", " ")
	if err := enc.Encode(out); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", "bundles.json"), text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
