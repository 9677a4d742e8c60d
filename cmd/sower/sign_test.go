package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle"
)

// A program that signs is as good as a key file. The one here is cat: nonces are deterministic, so that the
// signature is known beforehand.
func TestSignByProgram(t *testing.T) {
	f := workspace(t)
	sign := func(out string, more ...string) (int, string) {
		code, _, errs := sower(append([]string{"sign", f("new.bin"), "--key", f("key.pem"), "-o", f(out)}, more...)...)
		return code, errs
	}
	if code, errs := sign("file.sow"); code != 0 {
		t.Fatal(errs)
	}
	want := contents(t, f("file.sow"))
	if err := os.WriteFile(f("the signature"), want[96:160], 0o600); err != nil {
		t.Fatal(err)
	}
	if code, errs := sign("program.sow", "--key", f("key.pem.pub"), "--signer", "cat '"+f("the signature")+"'"); code != 0 {
		t.Fatal(errs)
	}
	if !bytes.Equal(contents(t, f("program.sow")), want) {
		t.Error("the program's bundle differs from the key file's")
	}
	if code, errs := sign("other.sow", "--sequence", "2", "--signer", "cat '"+f("the signature")+"'"); code != 1 || !strings.Contains(errs, "does not verify") {
		t.Errorf("signature of another bundle: exit %d, %q", code, errs)
	}
	t.Setenv(passphraseVariable, "none of its business") // printenv writes it, or exits with 1
	if code, errs := sign("env.sow", "--signer", "printenv "+passphraseVariable); code != 1 || !strings.Contains(errs, "exit status 1") {
		t.Errorf("the program sees the passphrase: exit %d, %q", code, errs)
	}
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The key id goes from keygen by the key file into the bundle.
func TestKeyIDs(t *testing.T) {
	f := workspace(t)
	for _, args := range [][]string{
		{"keygen", "--no-passphrase", "--key-id", "2", "-o", f("second.pem")},
		{"sign", f("new.bin"), "--key", f("second.pem"), "-o", f("second.sow")},
		{"sign", f("new.bin"), "--key", f("second.pem"), "--key-id", "2", "-o", f("again.sow")},
	} {
		if code, _, errs := sower(args...); code != 0 {
			t.Fatalf("sower %v: exit %d: %s", args, code, errs)
		}
	}
	m, _, err := bundle.Parse(contents(t, f("second.sow")))
	if err != nil || m.KeyID != 2 {
		t.Errorf("key id %d, %v; want 2", m.KeyID, err)
	}
	if !bytes.Equal(contents(t, f("second.sow")), contents(t, f("again.sow"))) {
		t.Error("the key id given and the key id of the file make two bundles")
	}
	// A key in the wrong trust slot is worth a warning even where the signature is good.
	text := bytes.Replace(contents(t, f("second.pem.pub")), []byte("id 2"), []byte("id 9"), 1)
	if err := os.WriteFile(f("nine.pub"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := sower("inspect", f("second.sow"), "--key", f("nine.pub"))
	if code != 0 || !strings.Contains(out, "good") || !strings.Contains(errs, "another trust slot") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

func TestPassphrase(t *testing.T) {
	f := workspace(t)
	for name, text := range map[string]string{"right.txt": "the passphrase\nnot this\n", "wrong.txt": "another", "crlf.txt": "the passphrase\r\n"} {
		if err := os.WriteFile(f(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, errs := sower("keygen", "--passphrase-file", f("right.txt"), "-o", f("secret.pem")); code != 0 {
		t.Fatal(errs)
	}
	sign := func(more ...string) (int, string) {
		os.Remove(f("u.sow"))
		code, _, errs := sower(append([]string{"sign", f("new.bin"), "--key", f("secret.pem"), "-o", f("u.sow")}, more...)...)
		if _, err := os.Stat(f("u.sow")); (err == nil) != (code == 0) {
			t.Errorf("sign %v: exit %d, output file: %v", more, code, err)
		}
		return code, errs
	}
	for _, tt := range []struct {
		name, env string
		args      []string
		say       string // empty: it signs
	}{
		{"file", "", []string{"--passphrase-file", f("right.txt")}, ""},
		{"file with CRLF", "", []string{"--passphrase-file", f("crlf.txt")}, ""},
		{"environment", "the passphrase", nil, ""},
		{"file before environment", "the passphrase", []string{"--passphrase-file", f("wrong.txt")}, "wrong passphrase"},
		{"wrong in the environment", "another", nil, "wrong passphrase"},
		{"no such file", "", []string{"--passphrase-file", f("none.txt")}, "no such file"},
	} {
		if tt.env != "" {
			t.Setenv(passphraseVariable, tt.env)
		}
		code, errs := sign(tt.args...)
		if tt.say == "" && code != 0 || tt.say != "" && (code != 1 || !strings.Contains(errs, tt.say)) {
			t.Errorf("%s: exit %d, %q; want %q", tt.name, code, errs, tt.say)
		}
	}
	t.Setenv(passphraseVariable, "")
	if code, errs := sign(); code != 1 || !strings.Contains(errs, "is empty") {
		t.Errorf("empty passphrase: exit %d, %q", code, errs)
	}
	os.Unsetenv(passphraseVariable) // t.Setenv brings the old state back
	if code, errs := sign(); code != 1 || !strings.Contains(errs, "a passphrase is needed") {
		t.Errorf("no passphrase: exit %d, %q", code, errs)
	}
	if code, _, errs := sower("inspect", f("u.sow"), "--key", f("secret.pem")); code != 1 {
		t.Errorf("inspect without bundle: exit %d, %q", code, errs)
	}
}

// Neither the private key nor the passphrase shows up anywhere but in the key file and the passphrase file.
func TestSecretsStayInside(t *testing.T) {
	f := workspace(t)
	const secret = "planted-passphrase-4711"
	if err := os.WriteFile(f("pass.txt"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := bundle.ParsePrivateKey(contents(t, f("key.pem")))
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := bundle.EncryptPrivateKey(key, 1, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Replace(contents(t, f("key.pem")), []byte("KEY-----\nM"), []byte("KEY-----\nA"), 1)
	for name, text := range map[string][]byte{"secret.pem": encrypted, "damaged.pem": damaged} {
		if err := os.WriteFile(f(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(passphraseVariable, secret)
	var said strings.Builder
	for _, tt := range []struct {
		code int
		args []string
	}{
		{0, []string{"keygen", "-o", f("fresh.pem"), "--json"}},
		{0, []string{"keygen", "--passphrase-file", f("pass.txt"), "-o", f("fresh2.pem")}},
		{0, []string{"sign", f("new.bin"), "--key", f("secret.pem"), "-o", f("1.sow")}},
		{0, []string{"sign", f("new.bin"), "--key", f("secret.pem"), "--passphrase-file", f("pass.txt"), "-o", f("2.sow"), "--json"}},
		{0, []string{"sign", f("new.bin"), "--key", f("key.pem"), "-o", f("3.sow")}},
		{1, []string{"sign", f("new.bin"), "--key", f("damaged.pem"), "-o", f("4.sow")}},
		{1, []string{"sign", f("new.bin"), "--key", f("key.pem"), "--signer", "false", "-o", f("5.sow")}},
		{1, []string{"sign", f("new.bin"), "--key", f("pass.txt"), "-o", f("6.sow")}},
		{1, []string{"sign", f("new.bin"), "--key", f("fresh.pem"), "--key-id", "9", "-o", f("7.sow")}},
		{1, []string{"diff", f("key.pem"), f("new.bin"), "-o", f("8.patch")}},
		{0, []string{"inspect", f("key.pem")}},
		{0, []string{"inspect", f("key.pem"), "--json"}},
		{0, []string{"inspect", f("secret.pem")}},
		{1, []string{"inspect", f("damaged.pem")}},
		{1, []string{"inspect", f("pass.txt")}},
		{0, []string{"inspect", f("1.sow"), "--key", f("key.pem")}},
		{1, []string{"inspect", f("1.sow"), "--key", f("secret.pem")}},
	} {
		code, out, errs := sower(tt.args...)
		if code != tt.code {
			t.Errorf("sower %v: exit %d, want %d: %s", tt.args, code, tt.code, errs)
		}
		fmt.Fprintf(&said, "sower %v\n%s%s", tt.args, out, errs)
	}

	d, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	_, der, _ := strings.Cut(string(contents(t, f("key.pem"))), "PRIVATE KEY-----\n")
	planted := map[string][]byte{
		"passphrase":            []byte(secret),
		"private key":           d,
		"private key in hex":    []byte(hex.EncodeToString(d)),
		"private key in base64": []byte(base64.StdEncoding.EncodeToString(d)),
		"first line of the PEM": []byte(der[:64]),
		"last line of the PEM":  []byte(strings.Split(der, "\n")[2]),
		"private key, decimal":  []byte(new(big.Int).SetBytes(d).String()),
	}
	for what, needle := range planted {
		if len(needle) < 16 {
			t.Fatalf("%s: %q is too short to look for", what, needle)
		}
		if strings.Contains(strings.ToLower(said.String()), strings.ToLower(string(needle))) {
			t.Errorf("the %s was printed", what)
		}
		err := filepath.WalkDir(f(""), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			switch e.Name() {
			case "key.pem", "damaged.pem", "pass.txt": // where it belongs
			default:
				if bytes.Contains(contents(t, path), needle) {
					t.Errorf("the %s is in %s", what, e.Name())
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"fresh.pem", "fresh2.pem"} {
		if st, err := os.Stat(f(name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", name, st.Mode(), err)
		}
		if !bundle.IsEncrypted(contents(t, f(name))) {
			t.Errorf("%s is not encrypted", name)
		}
	}
	var doc map[string]any
	_, out, _ := sower("inspect", f("key.pem.pub"), "--json")
	if err := json.Unmarshal([]byte(out), &doc); err != nil || doc["kind"] != "public key" {
		t.Errorf("%v, %v", doc, err)
	}
}
