package chirpstack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/engine/network"
)

const plainKeys = `# bench devices
70b3d57ed0000002, 202122232425262728292a2b2c2d2e2f
70B3D57ED0000001	101112131415161718191A1B1C1D1E1F

`

var (
	benchDevice = network.EUI64{0x70, 0xb3, 0xd5, 0x7e, 0xd0, 0, 0, 1}
	strange     = network.EUI64{9}
)

func TestKeyFile(t *testing.T) {
	text, n, err := sealKeys([]byte(plainKeys), []byte("bench"), 600) // quickly; the golden file has what people get
	if err != nil || n != 2 {
		t.Fatalf("SealKeys = %d, %v", n, err)
	}
	for _, digits := range []string{"1011121314", "2021222324"} {
		if bytes.Contains(bytes.ToLower(text), []byte(digits)) {
			t.Error("the file shows a key")
		}
	}
	f, err := OpenKeyFile("keys.txt", text, []byte("bench"))
	if err != nil || f.Devices() != 2 {
		t.Fatalf("OpenKeyFile: %v", err)
	}
	if key, err := f.RootKey(t.Context(), benchDevice); err != nil || key[0] != 0x10 || key[15] != 0x1f {
		t.Errorf("RootKey = %v", err)
	}
	if _, err := f.RootKey(t.Context(), strange); !errors.Is(err, network.ErrNotFound) {
		t.Errorf("RootKey of a device that is not there = %v, want ErrNotFound", err)
	}
	again, _, err := sealKeys([]byte(plainKeys), []byte("bench"), 600)
	if err != nil || bytes.Equal(again, text) {
		t.Errorf("the same salt twice (%v)", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	edit := func(old, new string) string { return strings.Replace(string(text), old, new, 1) }
	swapped := strings.Join(append(append([]string{}, lines[:len(lines)-2]...), lines[len(lines)-1], lines[len(lines)-2]), "\n") + "\n"
	for _, tt := range []struct {
		name, text, pass string
		want             error
	}{
		{"wrong passphrase", string(text), "bank", ErrPassphrase},
		{"no passphrase", string(text), "", ErrPassphrase},
		{"a key for another device", edit("0001 ", "0003 "), "bench", ErrPassphrase},
		{"a line less", strings.Join(lines[:len(lines)-1], "\n") + "\n", "bench", ErrPassphrase},
		{"lines swapped", swapped, "bench", ErrPassphrase},
		{"fewer iterations", edit("600", "60"), "bench", ErrPassphrase},
		{"iterations that take a day", edit("600", "2000000000"), "bench", ErrKeyFile},
		{"no salt", edit("Salt: ", "Salt: 0"), "bench", ErrKeyFile},
		{"no seal", edit("Seal: ", "Seal: x"), "bench", ErrKeyFile},
		{"another file", "hello\n\n", "bench", ErrKeyFile},
		{"header only", keyFileTitle + "\n", "bench", ErrKeyFile},
		{"empty", "", "bench", ErrKeyFile},
	} {
		if _, err := OpenKeyFile("keys.txt", []byte(tt.text), []byte(tt.pass)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	people, _, err := SealKeys(nil, []byte("bench"))
	if err != nil || !bytes.Contains(people, []byte("Iterations: 600000\n")) {
		t.Errorf("SealKeys makes it cheap to guess the passphrase: %s, %v", people, err)
	}
	if _, err := OpenKeyFile("keys.txt", bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), []byte("bench")); err != nil {
		t.Errorf("with the line ends of Windows: %v", err)
	}
}

func TestSealKeysRefuses(t *testing.T) {
	const key = "101112131415161718191a1b1c1d1e1f"
	for name, plain := range map[string]string{
		"no key":       "70b3d57ed0000001",
		"three fields": "70b3d57ed0000001 " + key + " x",
		"no DevEUI":    "meter " + key,
		"swapped":      key + " 70b3d57ed0000001",
		"short key":    "70b3d57ed0000001 1011121314",
		"no digits":    "70b3d57ed0000001 z01112131415161718191a1b1c1d1e1f",
		"zero key":     "70b3d57ed0000001 " + strings.Repeat("0", 32),
		"twice":        "70b3d57ed0000001 " + key + "\n70B3D57ED0000001 " + key,
	} {
		_, _, err := SealKeys([]byte("# first line\n"+plain), []byte("p"))
		if !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "line ") || strings.Contains(err.Error(), "1011121314") || strings.Contains(err.Error(), "111213") {
			t.Errorf("%s: %v; want the line and no key", name, err)
		}
	}
}

// A file that an earlier program wrote must stay readable.
func TestKeyFileGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/root-keys-1.txt")
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenKeyFile("golden", text, []byte("golden"))
	if err != nil {
		t.Fatal(err)
	}
	if key, err := f.RootKey(t.Context(), benchDevice); err != nil || key[0] != 0x10 || key[15] != 0x1f {
		t.Errorf("RootKey = %v", err)
	}
}

func TestKeyProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "keys")
	script := `#!/bin/sh
case "$2" in
70b3d57ed0000001) echo 101112131415161718191A1B1C1D1E1F ;;
70b3d57ed0000002) echo 101112131415161718191a1b1c1d1e1f and more ;;
70b3d57ed0000003) echo 101112131415161718191a1b1c1d1e1f; echo 101112131415161718191a1b1c1d1e1f >&2; exit 1 ;;
70b3d57ed0000004) exec sleep 60 ;;
70b3d57ed0000005) head -c 100000 /dev/zero ;;
70b3d57ed0000006) echo 00000000000000000000000000000000 ;;
esac
`
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	p := &KeyProgram{Args: []string{program, "secret-argument"}, Timeout: 5 * time.Second}
	device := benchDevice
	if key, err := p.RootKey(t.Context(), device); err != nil || key[0] != 0x10 || key[15] != 0x1f {
		t.Errorf("RootKey = %v", err)
	}
	for last, want := range map[byte]error{2: network.ErrInvalid, 3: network.ErrUnavailable, 4: network.ErrUnavailable, 5: network.ErrInvalid, 7: network.ErrNotFound} {
		device[7] = last
		slow := *p
		if last == 4 {
			slow.Timeout = 50 * time.Millisecond
		}
		_, err := slow.RootKey(t.Context(), device)
		if !errors.Is(err, want) || strings.Contains(fmt.Sprint(err), "1011121314") || strings.Contains(fmt.Sprint(err), "secret-argument") {
			t.Errorf("device %d: %v, want %v and no secret", last, err, want)
		}
	}
	for _, args := range [][]string{nil, {filepath.Join(t.TempDir(), "absent")}} {
		if _, err := (&KeyProgram{Args: args}).RootKey(t.Context(), device); err == nil {
			t.Errorf("program %q gives a key", args)
		}
	}
	device[7] = 6
	n := serve(t, &fake{})
	n.cfg.Keys = p
	if _, err := n.RootKey(t.Context(), device); !errors.Is(err, network.ErrNotFound) || !strings.Contains(err.Error(), "all zero") {
		t.Errorf("a key that is all zero: %v, want ErrNotFound", err)
	}
}

func FuzzKeyFile(f *testing.F) {
	text, _, err := sealKeys([]byte(plainKeys), []byte("bench"), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, []byte(plainKeys))
	f.Add([]byte(keyFileTitle+"\n\n"), []byte("70b3d57ed0000001 00"))
	f.Fuzz(func(t *testing.T, file, plain []byte) {
		if bytes.Contains(file, []byte("Iterations: 1\n")) {
			if _, err := OpenKeyFile("f", file, []byte("p")); err == nil {
				t.Errorf("%q is a file under a passphrase that nobody has used", file)
			}
		}
		keys, err := parsePlainKeys(plain)
		if err != nil && !errors.Is(err, ErrKeyFile) {
			t.Errorf("%q: %v", plain, err)
		}
		for device, key := range keys {
			if key == (network.Key{}) || !bytes.Contains(bytes.ToLower(plain), []byte(device.String())) {
				t.Errorf("%q gives a key to %s", plain, device)
			}
		}
	})
}
