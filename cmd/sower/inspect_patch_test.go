package main

import (
	"encoding/binary"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/delta"
)

// The ELF files of package image: .text is at 0 in the image, .data, which is the object table, at dataAt.
const (
	elfDir     = "../../bundle/image/testdata/"
	dataAt     = 0x100
	dataInFile = 0x200
)

// firmware writes NAME.elf and NAME.bin: a firmware of package image with other contents of table, which runs in
// RAM, if ram is set, and is loaded from flash.
func firmware(t *testing.T, f func(string) string, name string, table []byte, ram bool) (im []byte) {
	t.Helper()
	le := binary.LittleEndian
	e, im := contents(t, elfDir+name+".elf"), contents(t, elfDir+name+".bin")
	copy(e[dataInFile:], table)
	copy(im[dataAt:], table)
	if ram {
		const flash, ram = 0x08000000 + dataAt, 0x20000000
		move := func(at uint32) { le.PutUint32(e[at:], le.Uint32(e[at:])-flash+ram) }
		const program = 52 + 32 // header of the second segment
		move(program + 8)
		header := le.Uint32(e[32:]) // of the first section
		move(header + 2*40 + 12)
		symbols, size := le.Uint32(e[header+5*40+16:]), le.Uint32(e[header+5*40+20:])
		for s := symbols; s < symbols+size; s += 16 {
			if le.Uint16(e[s+14:]) == 2 {
				move(s + 4)
			}
		}
	}
	save(t, f(name+".elf"), e)
	save(t, f(name+".bin"), im)
	return im
}

func save(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The costs of a patch find the symbols that they are for, wherever the code lies in the image.
func TestInspectPatchSymbols(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header int // bytes of MCUboot header
		ram    bool
		stamp  bool // a checksum put in after linking
	}{
		{name: "as linked"},
		{name: "data in RAM", ram: true},
		{name: "MCUboot", header: 0x200},
		{name: "MCUboot, short header, data in RAM", header: 32, ram: true},
		{name: "stamped", stamp: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := workspace(t)
			old := firmware(t, f, "old", nil, tt.ram)
			fresh := firmware(t, f, "new", []byte("\x9a\x41\xf7\x13\x68\xd2\x0b\xe5\x7c\x36\xa9\x50\xcf\x84\x1e\xb3"), tt.ram)
			if tt.stamp {
				copy(fresh[0x60:], "\x5c\xa3")
			}
			for name, im := range map[string][]byte{"old.bin": old, "new.bin": fresh} {
				if tt.header > 0 {
					var err error
					if im, err = mcuboot.Wrap(im, mcuboot.Options{Major: 1, HeaderSize: tt.header}); err != nil {
						t.Fatal(err)
					}
				}
				save(t, f(name), im)
			}
			if code, _, errs := sower("diff", f("old.bin"), f("new.bin"), "-o", f("p.patch")); code != 0 {
				t.Fatal(errs)
			}
			args := []string{f("p.patch"), "--old", f("old.bin"), "--old-elf", f("old.elf"), "--new-elf", f("new.elf")}
			a := inspectJSON(t, args...)["anatomy"].(map[string]any)
			sum, none := 0.0, a["no_symbol_bytes"].(float64)
			bytes, change := map[string]float64{}, map[string]string{}
			last := math.Inf(1)
			for _, s := range a["symbols"].([]any) {
				s := s.(map[string]any)
				cost := s["bytes"].(float64)
				if cost > last {
					t.Errorf("%v comes after a cheaper symbol", s)
				}
				last = cost
				sum += cost
				bytes[s["name"].(string)], change[s["name"].(string)] = cost, s["change"].(string)
			}
			want := a["flags_bytes"].(float64)
			for _, k := range a["kinds"].([]any) {
				want += k.(map[string]any)["bytes"].(float64)
			}
			if math.Abs(sum+none-want) > 1e-6 {
				t.Errorf("symbols cost %.3f B and the rest %.3f B, together not %.3f B", sum, none, want)
			}
			for name, want := range map[string]string{"fresh": "new", "scale": "changed", "table": "changed", "start": "moved", "moved": "moved", "unchanged": "moved"} {
				if change[name] != want {
					t.Errorf("%s is %q, want %q", name, change[name], want)
				}
			}
			// The 16 random bytes of table are sent as they are, as is a SHA-256, which belongs to no symbol.
			if bytes["table"] < 15 || bytes["fresh"] < 6 || bytes["moved"] > 3 {
				t.Errorf("table %.1f B, fresh %.1f B, moved %.1f B", bytes["table"], bytes["fresh"], bytes["moved"])
			}
			if (none >= 30) != (tt.header > 0) {
				t.Errorf("%.1f B belong to no symbol", none)
			}
			code, out, errs := sower(append([]string{"inspect"}, args...)...)
			if code != 0 || !strings.Contains(out, "changed    table, 16 bytes of object") || !strings.Contains(out, "(no symbol)") || !strings.Contains(out, "moved      3 of 6\n") {
				t.Errorf("exit %d, %q, %q", code, out, errs)
			}
		})
	}
}

// Every byte has one owner: the innermost symbol, and of several names the one that the old image has too.
func TestInspectPatchOwner(t *testing.T) {
	im := []byte("0123456789abcdefghij")
	name := func(name string, from, to int) symbol {
		return symbol{symbolKey{name, true}, int64(0x1000 + from), im[from:to]}
	}
	text := []section{{".text", 0x1000, im}}
	pair := &elfPair{
		old: elfFile{sections: text, symbols: []symbol{name("z", 8, 12), name("outer", 0, 16)}},
		new: elfFile{sections: text, symbols: []symbol{name("outer", 0, 16), name("a", 8, 12), name("z", 8, 12), name("inner", 13, 15)}},
	}
	const bit = 256
	r := delta.Report{New: im, Costs: []uint32{8 * bit, 0, 0, 0, 16 * bit, 16 * bit, 4 * bit, 4 * bit, 0, 24 * bit}}
	var a anatomy
	if err := a.attribute(pair, im, r); err != nil {
		t.Fatal(err)
	}
	// inner takes half of two halfwords of half a byte each.
	want := []symbolCost{
		{"z", "function", 4, 4, "unchanged"},
		{"outer", "function", 16, 1.5, "unchanged"},
		{"inner", "function", 2, 0.5, "new"},
	}
	if !slices.Equal(a.Symbols, want) || *a.NoSymbol != 3 {
		t.Errorf("%v and %v B, want %v and 3 B", a.Symbols, *a.NoSymbol, want)
	}
}

// An object whose pointers follow what moved has not changed.
func TestInspectPatchPointers(t *testing.T) {
	f := workspace(t)
	// The addresses of moved and start in either firmware, and a constant.
	old := firmware(t, f, "old", []byte("\x0d\x00\x00\x08\x19\x00\x00\x08\x07\x00\x00\x00"), false)
	firmware(t, f, "new", []byte("\x19\x00\x00\x08\x25\x00\x00\x08\x07\x00\x00\x00"), false)
	p, err := readELFPair(f("old.elf"), f("new.elf"))
	if err != nil {
		t.Fatal(err)
	}
	fate := func() string {
		of := func(s symbol) bool { return s.name == "table" }
		i, j := slices.IndexFunc(p.new.symbols, of), slices.IndexFunc(p.old.symbols, of)
		return p.fate(p.new.symbols[i], &p.old.symbols[j])
	}
	if got := fate(); got != "unchanged" {
		t.Errorf("table is %s, want unchanged", got)
	}
	firmware(t, f, "new", []byte("\x19\x00\x00\x08\x25\x00\x00\x08\x08\x00\x00\x00"), false)
	if p, err = readELFPair(f("old.elf"), f("new.elf")); err != nil {
		t.Fatal(err)
	}
	if got := fate(); got != "changed" {
		t.Errorf("table with another constant is %s, want changed", got)
	}
	if shift, err := p.old.locate(old, "old"); err != nil || shift != -0x08000000 {
		t.Errorf("shift %d, %v", shift, err)
	}
}

// ELF files of other firmware give one line, and no figures.
func TestInspectPatchWrongELF(t *testing.T) {
	f := workspace(t)
	firmware(t, f, "old", nil, false)
	firmware(t, f, "new", nil, false)
	if code, _, errs := sower("diff", f("old.bin"), f("new.bin"), "-o", f("p.patch")); code != 0 {
		t.Fatal(errs)
	}
	object := contents(t, f("new.elf"))
	binary.LittleEndian.PutUint16(object[44:], 0) // no segments
	save(t, f("object.o"), object)
	other := contents(t, f("new.elf"))
	copy(other[0x100:], "another function")
	save(t, f("other.elf"), other)
	for _, tt := range []struct{ old, new, say string }{
		{"old.elf", "old.elf", "ELF file " + f("old.elf") + " is not the one that the new image was made of: its section .text, 88 bytes,"},
		{"new.elf", "new.elf", "ELF file " + f("new.elf") + " is not the one that the old image was made of: its section .text, 100 bytes,"},
		{"old.elf", "other.elf", "ELF file " + f("other.elf") + " is not the one that the new image"},
		{"old.elf", "object.o", "ELF file " + f("object.o") + " of the new image: no loadable data; is it an object file?"},
	} {
		code, out, errs := sower("inspect", f("p.patch"), "--old", f("old.bin"), "--old-elf", f(tt.old), "--new-elf", f(tt.new))
		if code != 1 || out != "" || !strings.Contains(errs, tt.say) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s, %s: exit %d, %q, %q; want %q", tt.old, tt.new, code, out, errs, tt.say)
		}
	}
}
