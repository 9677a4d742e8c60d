//go:build proof

package crypto_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// The bit length of SHA-256 is kept beyond 32 bits: 2^29 bytes are 2^32 bits.
func TestSHA256LongMessage(t *testing.T) {
	checkZeros(t, startDriver(t), 1<<29+7)
}

// readWycheproof decodes one file of the folder testvectors_v1 of github.com/C2SP/wycheproof,
// which SOWER_WYCHEPROOF names. The files are not part of this repository.
func readWycheproof(t *testing.T, name string, v any) {
	t.Helper()
	dir := os.Getenv("SOWER_WYCHEPROOF")
	if dir == "" {
		t.Fatal("SOWER_WYCHEPROOF is empty: set it to the folder testvectors_v1 of github.com/C2SP/wycheproof")
	}
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		t.Fatal(err)
	}
}

// Signatures of another length than 64 bytes cannot be expressed to sow_p256_verify and are
// only counted; all of them have to be invalid.
func TestWycheproofECDSA(t *testing.T) {
	var file struct {
		NumberOfTests int
		TestGroups    []struct {
			PublicKey struct{ Uncompressed string }
			Tests     []struct {
				TcID                      int
				Comment, Msg, Sig, Result string
			}
		}
	}
	readWycheproof(t, "ecdsa_secp256r1_sha256_p1363_test.json", &file)
	d := startDriver(t)
	seen, unencodable := 0, 0
	for _, g := range file.TestGroups {
		pub := unhex(t, g.PublicKey.Uncompressed)[1:]
		for _, tt := range g.Tests {
			seen++
			sig := unhex(t, tt.Sig)
			if len(sig) != 64 {
				unencodable++
				if tt.Result == "valid" {
					t.Errorf("%d %s: a valid signature of %d bytes", tt.TcID, tt.Comment, len(sig))
				}
				continue
			}
			hash := unhex(t, d.ask(t, "sha256", 0, unhex(t, tt.Msg)))
			want := badSignature
			if tt.Result == "valid" {
				want = valid
			}
			if got := d.ask(t, "verify", pub, hash, sig); got != want {
				t.Errorf("%d %s: %s, want %s", tt.TcID, tt.Comment, got, want)
			}
		}
	}
	if seen == 0 || seen != file.NumberOfTests {
		t.Errorf("%d tests read of %d", seen, file.NumberOfTests)
	}
	t.Logf("%d tests, %d of them not 64 bytes long", seen, unencodable)
}

func TestWycheproofCMAC(t *testing.T) {
	var file struct {
		TestGroups []struct {
			KeySize, TagSize int
			Tests            []struct {
				TcID                           int
				Comment, Key, Msg, Tag, Result string
			}
		}
	}
	readWycheproof(t, "aes_cmac_test.json", &file)
	d := startDriver(t)
	seen := 0
	for _, g := range file.TestGroups {
		if g.KeySize != 128 {
			continue
		}
		for _, tt := range g.Tests {
			seen++
			got := d.ask(t, "cmac", 1+tt.TcID%20, unhex(t, tt.Key), unhex(t, tt.Msg))[:g.TagSize/4]
			if (got == tt.Tag) != (tt.Result == "valid") {
				t.Errorf("%d %s: MAC %s, tag %s is said to be %s", tt.TcID, tt.Comment, got, tt.Tag, tt.Result)
			}
		}
	}
	if seen == 0 {
		t.Error("no test with a key of 128 bits")
	}
	t.Logf("%d tests", seen)
}
