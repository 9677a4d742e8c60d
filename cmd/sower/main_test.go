package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
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
	if code, _, errs := sower("keygen", "--no-passphrase", "-o", file("key.pem")); code != 0 {
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

// makeELF returns an ELF file with one loadable segment at 0x08000000, or none without code.
func makeELF(machine elf.Machine, code []byte) []byte {
	le := binary.LittleEndian
	b := []byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = le.AppendUint16(b, uint16(elf.ET_EXEC))
	b = le.AppendUint16(b, uint16(machine))
	for _, v := range []uint32{1, 0, 52, 0, 0} {
		b = le.AppendUint32(b, v)
	}
	n := uint32(len(code))
	for _, v := range []uint16{52, 32, uint16(min(n, 1)), 40, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	for _, v := range []uint32{uint32(elf.PT_LOAD), 84, 0x08000000, 0x08000000, n, n, 5, 4} {
		b = le.AppendUint32(b, v)
	}
	return append(b, code...)
}

// Every bad input gives one line that names the thing, its exit code, and no output file.
func TestBadInput(t *testing.T) {
	f := workspace(t)
	if code, _, errs := sower("diff", f("old.bin"), f("new.bin"), "-o", f("good.patch")); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := sower("keygen", "--no-passphrase", "-o", f("other.pem")); code != 0 {
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

	if code, _, errs := sower("diff", f("new.bin"), f("old.bin"), "-o", f("back.patch")); code != 0 {
		t.Fatal(errs)
	}
	key, err := os.ReadFile(f("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"noid.pem":    bytes.TrimPrefix(key, []byte("sower key id 1\n")),
		"newline.txt": []byte("\n"),
		"overlap.hex": []byte(":020000000102FB\n:0100010009F5\n:00000001FF\n"),
		"low.hex":     []byte(":020000000102FB\n:00000001FF\n"),
		"object.elf":  makeELF(elf.EM_ARM, nil),
		"arm.elf":     makeELF(elf.EM_ARM, []byte("code")),
		"riscv.elf":   makeELF(elf.EM_RISCV, []byte("code")),
	} {
		if err := os.WriteFile(f(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}

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
		{"key id 0", []string{"sign", f("new.bin"), "--key", f("noid.pem"), "--key-id", "0", "-o", out}, 1, "key id 0"},
		{"another key id than the key file's", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--key-id", "2", "-o", out}, 1, "it is key id 1, --key-id says 2"},
		{"sequence 0", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--sequence", "0", "-o", out}, 1, "sequence 0, which no device accepts"},
		{"unknown codec", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--codec", "xz", "-o", out}, 2, `--codec "xz"`},
		{"patch codec without patch", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--codec", "patch", "-o", out}, 2, "--codec patch needs --patch"},
		{"patch with another codec", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--codec", "zstd", "--patch", f("good.patch"), "-o", out}, 2, "exclude each other"},
		{"expiry beyond GPS time", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--expires", "2200-01-01T00:00:00Z", "-o", out}, 2, "32 bits"},
		{"keygen without passphrase", []string{"keygen", "-o", out}, 1, "a passphrase is needed"},
		{"keygen with two wishes", []string{"keygen", "--no-passphrase", "--passphrase-file", f("noise.bin"), "-o", out}, 2, "exclude each other"},
		{"keygen with an empty passphrase", []string{"keygen", "--passphrase-file", f("newline.txt"), "-o", out}, 1, "its first line is empty"},
		{"keygen for key id 0", []string{"keygen", "--no-passphrase", "--key-id", "0", "-o", out}, 2, "--key-id 0"},
		{"signing program is missing", []string{"sign", f("new.bin"), "--key", f("key.pem.pub"), "--signer", f("nothing"), "-o", out}, 1, "no such file or directory"},
		{"signing program fails", []string{"sign", f("new.bin"), "--key", f("key.pem.pub"), "--signer", "false", "-o", out}, 1, "exit status 1"},
		{"signing program writes no signature", []string{"sign", f("new.bin"), "--key", f("key.pem.pub"), "--signer", "echo hello", "-o", out}, 1, "6 bytes that are no signature"},
		{"signing program with an open quote", []string{"sign", f("new.bin"), "--key", f("key.pem.pub"), "--signer", "a 'b", "-o", out}, 2, "open quote"},
		{"unknown digest form", []string{"sign", f("new.bin"), "--key", f("key.pem.pub"), "--signer", "true", "--signer-digest", "pem", "-o", out}, 2, `--signer-digest "pem"`},
		{"HEX with overlaps", []string{"diff", f("overlap.hex"), f("new.bin"), "-o", out}, 1, "old image " + f("overlap.hex") + ": image: overlapping data: address 0x00000001"},
		{"ELF without loadable data", []string{"diff", f("old.bin"), f("object.elf"), "-o", out}, 1, "new image " + f("object.elf") + ": image: not a firmware image: the ELF file has no loadable data"},
		{"two architectures", []string{"diff", f("arm.elf"), f("riscv.elf"), "-o", out}, 1, "the old image is for ARM, the new one for RISCV"},
		{"two addresses", []string{"diff", f("arm.elf"), f("low.hex"), "-o", out}, 1, "begins at 0x08000000, the new one at 0x00000000"},
		{"damaged image", []string{"diff", f("cut.bin"), f("new.bin"), "-o", out}, 1, "old image " + f("cut.bin") + ": mcuboot: not a valid image"},
		{"patch for another version", []string{"apply", f("old.bin"), f("back.patch"), "-o", out}, 1, "wrong base"},
		{"inspect nothing", []string{"inspect"}, 2, "name a file"},
		{"inspect half a pair", []string{"inspect", "--old-elf", f("arm.elf")}, 2, "go together"},
		{"inspect in an unknown region", []string{"inspect", f("new.bin"), "--region", "MOON"}, 2, "--region"},
		{"inspect a patch with a key", []string{"inspect", f("good.patch"), "--key", f("key.pem.pub")}, 1, "carries no signature"},
		{"inspect an unsigned image with a key", []string{"inspect", f("new.bin"), "--key", f("key.pem.pub")}, 1, "the image carries none"},
		{"inspect ELF without symbols", []string{"inspect", "--old-elf", f("arm.elf"), "--new-elf", f("arm.elf")}, 1, "before strip"},
		{"bad version", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--version", "1.2", "-o", out}, 2, `version "1.2"`},
		{"other version", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--version", "9.9.9", "-o", out}, 1, "9.9.9 was asked for"},
		{"bad expiry", []string{"sign", f("new.bin"), "--key", f("key.pem"), "--expires", "soon", "-o", out}, 2, `--expires "soon"`},
		{"key exists", []string{"keygen", "--no-passphrase", "-o", f("key.pem")}, 1, "exists already"},
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

// A budget that no model fits gives a patch as large as the image; that must not pass in silence.
func TestDiffSaysThatNothingWasSaved(t *testing.T) {
	f := workspace(t)
	code, _, stderr := sower("diff", f("old.bin"), f("new.bin"), "-o", f("p.patch"), "--cycles", "1")
	if code != 0 || !strings.Contains(stderr, "holds the whole image") {
		t.Errorf("exit %d, stderr %q; want 0 and a warning", code, stderr)
	}
	if code, _, stderr = sower("diff", f("old.bin"), f("new.bin"), "-o", f("p.patch")); code != 0 || stderr != "" {
		t.Errorf("exit %d, stderr %q; want 0 and silence", code, stderr)
	}
}
