package crypto_test

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

// The examples of FIPS 180-2, appendix B, and the empty message of the NIST example set.
func TestSHA256Published(t *testing.T) {
	d := startDriver(t)
	for _, tt := range []struct {
		name string
		msg  []byte
		want string
	}{
		{"empty", nil, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"one block", []byte("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{
			"padding in a second block", []byte("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
			"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
		},
	} {
		if got := d.ask(t, "sha256", 0, tt.msg); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// Every length around the block boundaries, in every kind of split, gives the digest of crypto/sha256.
func TestSHA256Differential(t *testing.T) {
	d := startDriver(t)
	rng := rand.New(rand.NewPCG(1, 2))
	msg := make([]byte, 1000)
	for i := range msg {
		msg[i] = byte(rng.Uint32())
	}
	check := func(n, step int) {
		t.Helper()
		sum := sha256.Sum256(msg[:n])
		if got, want := d.ask(t, "sha256", step, msg[:n]), hex.EncodeToString(sum[:]); got != want {
			t.Errorf("%d bytes, %d at a time: %s, want %s", n, step, got, want)
		}
	}
	for n := range 260 {
		check(n, 0)
		check(n, 1)
		check(n, 1+rng.IntN(100))
	}
	for range 100 {
		check(rng.IntN(len(msg)), rng.IntN(200))
	}
}

// checkZeros compares the digest of n zero bytes.
func checkZeros(t *testing.T, d *driver, n int) {
	t.Helper()
	h := sha256.New()
	block := make([]byte, 1<<16)
	for left := n; left > 0; {
		part := min(left, len(block))
		h.Write(block[:part])
		left -= part
	}
	if got, want := d.ask(t, "zeros", n), hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("%d zero bytes: %s, want %s", n, got, want)
	}
}

func TestSHA256ManyBlocks(t *testing.T) {
	checkZeros(t, startDriver(t), 1_000_000)
}
