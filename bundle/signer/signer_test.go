package signer_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/signer"
)

// keyVariable holds the private key of the signing program that the test binary is when it is set.
const keyVariable = "SIGNER_TEST_KEY"

func TestMain(m *testing.M) {
	if text := os.Getenv(keyVariable); text != "" {
		if err := program([]byte(text), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// program is the signing program: args are the form of the digest and what to answer.
func program(text []byte, args []string) error {
	key, err := bundle.ParsePrivateKey(text)
	if err != nil {
		return err
	}
	digest, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if args[0] == "hex" {
		if digest, err = hex.DecodeString(strings.TrimSuffix(string(digest), "\n")); err != nil {
			return err
		}
	}
	if len(digest) != sha256.Size {
		return fmt.Errorf("digest of %d bytes", len(digest))
	}
	if args[1] == "other digest" {
		digest[0] ^= 1
	}
	der, err := key.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		return err
	}
	switch args[1] {
	case "DER", "other digest":
		_, err = os.Stdout.Write(der)
	case "raw":
		var sig struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &sig); err != nil {
			return err
		}
		raw := make([]byte, 64)
		sig.R.FillBytes(raw[:32])
		sig.S.FillBytes(raw[32:])
		_, err = os.Stdout.Write(raw)
	case "text":
		fmt.Println("signed, thank you")
	case "nothing":
	case "flood":
		_, err = os.Stdout.Write(make([]byte, 1<<20))
	case "fail":
		return errors.New("the card is not in the reader")
	case "wait":
		select {}
	}
	return err
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// using returns a signer that runs the test binary with a key.
func using(t *testing.T, key *ecdsa.PrivateKey, args ...string) *signer.Program {
	t.Helper()
	text, err := bundle.MarshalPrivateKey(key, 0)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &signer.Program{Args: append([]string{self}, args...), Key: &key.PublicKey, Env: append(os.Environ(), keyVariable+"="+string(text))}
}

// A bundle that a program signed is the one that the key itself signs.
func TestBundle(t *testing.T) {
	key := newKey(t)
	target := bundle.Target{KeyID: 1, Sequence: 1}
	want, err := bundle.Full(target, []byte("image"), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, digest := range []string{"hex", "raw"} {
		for _, answer := range []string{"DER", "raw"} {
			p := using(t, key, digest, answer)
			p.Raw = digest == "raw"
			if got, err := bundle.Full(target, []byte("image"), p); err != nil || !bytes.Equal(got, want) {
				t.Errorf("digest %s, signature %s: %v", digest, answer, err)
			}
		}
	}
}

func TestProgramFails(t *testing.T) {
	key := newKey(t)
	digest := sha256.Sum256([]byte("manifest"))
	for _, tt := range []struct {
		name string
		args []string
		say  string
	}{
		{"exits with an error", []string{"hex", "fail"}, "exit status 3"},
		{"gets another form of digest than it wants", []string{"raw", "DER"}, "exit status 3"},
		{"writes text", []string{"hex", "text"}, "18 bytes that are no signature"},
		{"writes nothing", []string{"hex", "nothing"}, "0 bytes that are no signature"},
		{"writes without end", []string{"hex", "flood"}, "more than 256 bytes"},
		{"signs another digest", []string{"hex", "other digest"}, "does not verify"},
	} {
		p := using(t, key, tt.args...)
		var said bytes.Buffer
		p.Stderr = &said
		if _, err := p.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, signer.ErrSigner) || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("the program %s: %v, want %q", tt.name, err, tt.say)
		}
		if tt.args[1] == "fail" && !strings.Contains(said.String(), "not in the reader") {
			t.Errorf("what the program says is lost: %q", said.String())
		}
	}

	other := using(t, key, "hex", "DER")
	other.Key = &newKey(t).PublicKey
	if _, err := other.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, signer.ErrSigner) || !strings.Contains(err.Error(), "another key") {
		t.Errorf("another key: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	waiting := using(t, key, "hex", "wait")
	waiting.Context = ctx
	if _, err := waiting.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v, want %v", err, context.Canceled)
	}
	for name, p := range map[string]*signer.Program{
		"no program":   {Key: &key.PublicKey},
		"no such file": {Key: &key.PublicKey, Args: []string{"/nowhere/sign"}},
		"no key":       {Args: []string{"true"}},
	} {
		if _, err := p.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, signer.ErrSigner) {
			t.Errorf("%s: %v, want %v", name, err, signer.ErrSigner)
		}
	}
	if _, err := using(t, key, "hex", "DER").Sign(nil, digest[:20], crypto.SHA1); !errors.Is(err, signer.ErrSigner) {
		t.Errorf("SHA-1: %v, want %v", err, signer.ErrSigner)
	}
}

func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		"sign":                               {"sign"},
		"  kms sign\t--key a/b ":             {"kms", "sign", "--key", "a/b"},
		`pkcs11-tool --label 'my key' -p ""`: {"pkcs11-tool", "--label", "my key", "-p", ""},
		`a --x="1 '2'"y`:                     {"a", "--x=1 '2'y"},
		`$(rm) ; a`:                          {"$(rm)", ";", "a"},
	} {
		if got, err := signer.Split(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{"", "  ", `a "b`, `a 'b"`} {
		if got, err := signer.Split(line); err == nil {
			t.Errorf("%q: %q", line, got)
		}
	}
}
