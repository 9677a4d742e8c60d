package crypto_test

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/hex"
	"math/big"
	"math/rand/v2"
	"testing"
)

func TestAESPublished(t *testing.T) {
	d := startDriver(t)
	for _, tt := range []struct{ name, key, in, want string }{
		{"FIPS 197 appendix B", "2b7e151628aed2a6abf7158809cf4f3c", "3243f6a8885a308d313198a2e0370734", "3925841d02dc09fbdc118597196a0b32"},
		{"FIPS 197 appendix C.1", "000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a"},
	} {
		if got := d.ask(t, "aes", unhex(t, tt.key), unhex(t, tt.in)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestAESDifferential(t *testing.T) {
	d := startDriver(t)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		key, in, want := make([]byte, 16), make([]byte, 16), make([]byte, 16)
		for i := range key {
			key[i], in[i] = byte(rng.Uint32()), byte(rng.Uint32())
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		block.Encrypt(want, in)
		if got := d.ask(t, "aes", key, in); got != hex.EncodeToString(want) {
			t.Fatalf("key %x, in %x: %s, want %x", key, in, got, want)
		}
	}
}

// RFC 4493, section 4, in every split.
func TestCMACPublished(t *testing.T) {
	d := startDriver(t)
	key := unhex(t, "2b7e151628aed2a6abf7158809cf4f3c")
	msg := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"+
		"30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for _, tt := range []struct {
		n    int
		want string
	}{
		{0, "bb1d6929e95937287fa37d129b756746"},
		{16, "070a16b46b4d4144f79bdd9dd04a287c"},
		{40, "dfa66747de9ae63030ca32611497c827"},
		{64, "51f0bebf7e3b9d92fc49741779363cfe"},
	} {
		for step := range 65 {
			if got := d.ask(t, "cmac", step, key, msg[:tt.n]); got != tt.want {
				t.Errorf("%d bytes, %d at a time: %s, want %s", tt.n, step, got, tt.want)
			}
		}
	}
}

// cmacReference is RFC 4493, section 2.4, over the whole message at once.
func cmacReference(t *testing.T, key, msg []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	subkey := make([]byte, 16)
	block.Encrypt(subkey, subkey)
	double := func() {
		v := new(big.Int).SetBytes(subkey)
		v.Lsh(v, 1)
		if v.Bit(128) == 1 {
			v.SetBit(v, 128, 0).Xor(v, big.NewInt(0x87))
		}
		v.FillBytes(subkey)
	}
	double()
	if len(msg) == 0 || len(msg)%16 != 0 {
		double()
		msg = append(append([]byte(nil), msg...), 0x80)
		for len(msg)%16 != 0 {
			msg = append(msg, 0)
		}
	}
	mac := make([]byte, 16)
	for i := 0; i < len(msg); i += 16 {
		subtle.XORBytes(mac, mac, msg[i:i+16])
		if i+16 == len(msg) {
			subtle.XORBytes(mac, mac, subkey)
		}
		block.Encrypt(mac, mac)
	}
	return mac
}

func TestCMACDifferential(t *testing.T) {
	d := startDriver(t)
	rng := rand.New(rand.NewPCG(7, 8))
	for n := range 200 {
		key, msg := make([]byte, 16), make([]byte, n)
		for i := range key {
			key[i] = byte(rng.Uint32())
		}
		for i := range msg {
			msg[i] = byte(rng.Uint32())
		}
		want := hex.EncodeToString(cmacReference(t, key, msg))
		if got := d.ask(t, "cmac", rng.IntN(40), key, msg); got != want {
			t.Fatalf("key %x, message %x: %s, want %s", key, msg, got, want)
		}
	}
}
