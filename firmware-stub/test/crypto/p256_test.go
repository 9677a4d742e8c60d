package crypto_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/json"
	"math/big"
	"math/rand/v2"
	"os"
	"testing"
)

// Return codes of sow_p256_verify.
const (
	valid        = "0"
	badKey       = "-1"
	badSignature = "-2"
)

// goVerify is the same question put to crypto/ecdsa.
func goVerify(pub, hash, sig []byte) string {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, pub...))
	if err != nil {
		return badKey
	}
	if !ecdsa.Verify(key, hash, new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return badSignature
	}
	return valid
}

// The curated cases: RFC 6979, the ranges of r, s and the key, and sums that pass through every
// special case of point addition. crypto/ecdsa has to agree with each expectation.
func TestP256Vectors(t *testing.T) {
	codes := map[string]string{"valid": valid, "bad key": badKey, "bad signature": badSignature}
	var cases []struct{ ID, How, Want, Pub, Hash, Sig string }
	raw, err := os.ReadFile("testdata/p256.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	d := startDriver(t)
	for _, tt := range cases {
		want, ok := codes[tt.Want]
		if !ok {
			t.Fatalf("%s: unknown outcome %q", tt.ID, tt.Want)
		}
		pub, hash, sig := unhex(t, tt.Pub), unhex(t, tt.Hash), unhex(t, tt.Sig)
		if got := goVerify(pub, hash, sig); got != want {
			t.Errorf("%s: crypto/ecdsa says %s, the vector %s (%s)", tt.ID, got, want, tt.How)
		}
		if got := d.ask(t, "verify", pub, hash, sig); got != want {
			t.Errorf("%s: %s, want %s (%s)", tt.ID, got, want, tt.How)
		}
	}
}

// signature returns a random key, digest and valid signature.
func signature(t *testing.T, rng *rand.Rand) (pub, hash, sig []byte) {
	t.Helper()
	scalar := make([]byte, 32)
	for i := range scalar {
		scalar[i] = byte(rng.Uint32())
	}
	scalar[0] &= 0x7f // below n
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(scalar)
	der, err := key.Sign(nil, digest[:], crypto.SHA256) // without randomness: RFC 6979
	if err != nil {
		t.Fatal(err)
	}
	// DER of two positive integers: 30 len 02 len r 02 len s.
	r := der[4 : 4+int(der[3])]
	s := der[4+int(der[3])+2:]
	sig = make([]byte, 64)
	new(big.Int).SetBytes(r).FillBytes(sig[:32])
	new(big.Int).SetBytes(s).FillBytes(sig[32:])
	return point[1:], digest[:], sig
}

// 500 random signatures, each as it is and with four mutations.
func TestP256Differential(t *testing.T) {
	d := startDriver(t)
	rng := rand.New(rand.NewPCG(5, 6))
	check := func(want string, pub, hash, sig []byte) {
		t.Helper()
		if theirs := goVerify(pub, hash, sig); theirs != want {
			t.Fatalf("pub %x hash %x sig %x: crypto/ecdsa says %s, want %s", pub, hash, sig, theirs, want)
		}
		if ours := d.ask(t, "verify", pub, hash, sig); ours != want {
			t.Fatalf("pub %x hash %x sig %x: %s, want %s", pub, hash, sig, ours, want)
		}
	}
	for range 500 {
		pub, hash, sig := signature(t, rng)
		check(valid, pub, hash, sig)

		flip := func(b []byte) []byte {
			c := append([]byte(nil), b...)
			c[rng.IntN(len(c))] ^= 1 << rng.IntN(8)
			return c
		}
		check(badSignature, pub, flip(hash), sig)
		check(badSignature, pub, hash, flip(sig))
		check(badKey, flip(pub), hash, sig)
		otherPub, _, _ := signature(t, rng)
		check(badSignature, otherPub, hash, sig)
	}
}
