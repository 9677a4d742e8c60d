package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle/mcuboot"
)

// sower runs the command line in-process.
func sower(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// workspace returns a function that names files in a fresh folder, with two images and a key in it.
func workspace(t *testing.T) func(name string) string {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, data []byte) {
		if err := os.WriteFile(file(name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	body := bytes.Repeat([]byte("firmware of a small device "), 300)
	for i, name := range []string{"old.bin", "new.bin"} {
		img, err := mcuboot.Wrap(append(bytes.Clone(body), byte(i)), mcuboot.Options{Major: 1, Minor: uint8(i)})
		if err != nil {
			t.Fatal(err)
		}
		write(name, img)
	}
	write("empty.bin", nil)
	write("noise.bin", []byte("not a patch and not an image"))
	if code, _, errs := sower("keygen", "-o", file("key.pem")); code != 0 {
		t.Fatal(errs)
	}
	return file
}

func TestPatchAndBundle(t *testing.T) {
	f := workspace(t)
	steps := [][]string{
		{"diff", f("old.bin"), f("new.bin"), "-o", f("p.patch")},
		{"apply", f("old.bin"), f("p.patch"), "-o", f("applied.bin")},
		{"sign", f("new.bin"), "--patch", f("p.patch"), "--key", f("key.pem"), "--class", "0x1001", "--hardware", "3", "-o", f("u.sow")},
	}
	for _, args := range steps {
		if code, _, errs := sower(args...); code != 0 {
			t.Fatalf("sower %v: exit %d: %s", args, code, errs)
		}
	}
	want, err := os.ReadFile(f("new.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(f("applied.bin")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the applied image differs (%v)", err)
	}
	code, out, errs := sower("inspect", f("u.sow"), "--json", "--key", f("key.pem.pub"))
	if code != 0 {
		t.Fatal(errs)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"kind": "bundle", "signature": "good", "version": "1.1.0", "class": "0x00001001", "codec": "patch"} {
		if doc[key] != want {
			t.Errorf("inspect says %s = %v, want %v", key, doc[key], want)
		}
	}
	if st, err := os.Stat(f("key.pem")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("private key: mode %v, %v; want 0600", st.Mode(), err)
	}
}

// Every bad input gives one line that names the thing, its exit code, and no output file.
func TestBadInput(t *testing.T) {
	f := workspace(t)
	if code, _, errs := sower("diff", f("old.bin"), f("new.bin"), "-o", f("good.patch")); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := sower("keygen", "-o", f("other.pem")); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := sower("sign", f("new.bin"), "--key", f("key.pem"), "-o", f("good.sow")); code != 0 {
		t.Fatal(errs)
	}
	cut := func(from, to string) {
		b, err := os.ReadFile(f(from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f(to), b[:len(b)-3], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cut("good.patch", "cut.patch")
	cut("good.sow", "cut.sow")
	cut("new.bin", "cut.bin")

	out := f("out")
	tests := []struct {
		name string
		args []string
		code int
		say  string
	}{
		{"unknown verb", []string{"sow"}, 2, `unknown command "sow"`},
		{"unknown flag", []string{"diff", "--fast"}, 2, "unknown flag: --fast"},
		{"too few arguments", []string{"diff", f("old.bin"), "-o", out}, 2, "diff: accepts 2 arg(s), received 1"},
		{"no output named", []string{"diff", f("old.bin"), f("new.bin")}, 2, "diff: --output is missing"},
		{"unknown architecture", []string{"diff", f("old.bin"), f("new.bin"), "-o", out, "--arch", "z80"}, 2, `--arch "z80"`},
		{"unknown map", []string{"diff", f("old.bin"), f("new.bin"), "-o", out, "--map", "disk"}, 2, `--map "disk"`},
		{"missing file", []string{"diff", f("nothing.bin"), f("new.bin"), "-o", out}, 1, "old image " + f("nothing.bin") + ": no such file or directory"},
		{"empty image", []string{"diff", f("old.bin"), f("empty.bin"), "-o", out}, 1, "the file is empty"},
		{"no such folder", []string{"diff", f("old.bin"), f("new.bin"), "-o", filepath.Join(out, "p")}, 1, "no such file or directory"},
		{"not a patch", []string{"apply", f("old.bin"), f("noise.bin"), "-o", out}, 1, "not a patch file"},
		{"truncated patch", []string{"apply", f("old.bin"), f("cut.patch"), "-o", out}, 1, "the header says"},
		{"wrong base", []string{"apply", f("new.bin"), f("good.patch"), "-o", out}, 1, "wrong base"},
		{"key is no key", []string{"sign", f("new.bin"), "--key", f("noise.bin"), "-o", out}, 1, "not an ECDSA P-256 key"},
		{"public key signs", []string{"sign", f("new.bin"), "--key", f("key.pem.pub"), "-o", out}, 1, "PRIVATE KEY"},
		{"patch of another image", []string{"sign", f("old.bin"), "--patch", f("good.patch"), "--key", f("key.pem"), "-o", out}, 1, "not the new image given"},
		{"damaged image", []string{"sign", f("cut.bin"), "--key", f("key.pem"), "-o", out}, 1, "not a valid image"},
		{"key id 0", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--key-id", "0", "-o", out}, 1, "key id 0"},
		{"bad version", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--version", "1.2", "-o", out}, 2, `version "1.2"`},
		{"other version", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--version", "9.9.9", "-o", out}, 1, "9.9.9 was asked for"},
		{"bad expiry", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--expires", "soon", "-o", out}, 2, `--expires "soon"`},
		{"key exists", []string{"keygen", "-o", f("key.pem")}, 1, "exists already"},
		{"inspect noise", []string{"inspect", f("noise.bin")}, 1, "neither MCUboot image nor patch file nor bundle"},
		{"inspect truncated bundle", []string{"inspect", f("cut.sow")}, 1, "the manifest says"},
		{"inspect with the wrong key", []string{"inspect", f("good.sow"), "--key", f("other.pem.pub")}, 1, "signature does not verify"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := sower(tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.say) || stdout != "" {
				t.Errorf("exit %d, stdout %q, stderr %q; want exit %d and %q", code, stdout, stderr, tt.code, tt.say)
			}
			if !strings.HasPrefix(stderr, "sower: ") {
				t.Errorf("stderr %q does not name the program", stderr)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("an output file was left behind")
			}
		})
	}
	left, err := filepath.Glob(f(".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files left behind: %v %v", left, err)
	}
}

func TestHelpTeaches(t *testing.T) {
	for _, c := range newRootCommand().Commands() {
		code, out, errs := sower(c.Name(), "--help")
		if code != 0 || !strings.Contains(out, "Usage:") || c.Short == "" {
			t.Errorf("sower %s --help: exit %d %s", c.Name(), code, errs)
		}
	}
}
