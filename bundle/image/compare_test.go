package image_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle/image"
)

// An ELF file gives what objcopy makes of it.
func TestELFEqualsObjcopy(t *testing.T) {
	for _, name := range []string{"old", "new"} {
		im, err := image.Read(read(t, name+".elf"))
		if err != nil {
			t.Fatal(err)
		}
		if im.Base != 0x08000000 || im.Machine != elf.EM_ARM || !bytes.Equal(im.Data, read(t, name+".bin")) {
			t.Errorf("%s: %d bytes at 0x%x for %v differ from objcopy's", name, len(im.Data), im.Base, im.Machine)
		}
	}
}

func TestCompareELF(t *testing.T) {
	old, new := read(t, "old.elf"), read(t, "new.elf")
	c, err := image.CompareELF(old, new)
	if err != nil {
		t.Fatal(err)
	}
	// start calls fresh in place of gone, at another address: a branch target is not a change.
	if c.Functions != 5 || !slices.Equal(c.Changed, []string{"scale"}) || !slices.Equal(c.Added, []string{"fresh"}) ||
		!slices.Equal(c.Removed, []string{"gone"}) || c.Moved != 4 || c.Sizes["fresh"] == 0 || c.Sizes["gone"] == 0 {
		t.Errorf("%+v", c)
	}
	if same, err := image.CompareELF(old, old); err != nil || len(same.Changed)+len(same.Added)+len(same.Removed)+same.Moved != 0 {
		t.Errorf("a file differs from itself: %+v, %v", same, err)
	}
	text := segment{0x08000000, []byte{1, 2, 3, 4}, [][2]uint32{{0, 4}}}
	for _, tt := range []struct {
		name string
		file []byte
		say  string
	}{
		{"another architecture", makeELF(elf.EM_RISCV, elf.ET_EXEC, text), "for RISCV"},
		{"no symbols", makeELF(elf.EM_ARM, elf.ET_EXEC, text), "before strip"},
		{"no ELF file", bytes.Repeat([]byte("text"), 40), "bad magic"},
	} {
		if _, err := image.CompareELF(old, tt.file); !errors.Is(err, image.ErrFormat) || !strings.Contains(err.Error(), tt.say) || !strings.HasPrefix(err.Error(), "new ELF file") {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.say)
		}
	}
}

// Functions may share their code, but not so that a small file stands for gigabytes.
func TestCompareELFBomb(t *testing.T) {
	file := read(t, "old.elf")
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	text, table := f.Section(".text"), slices.IndexFunc(f.Sections, func(s *elf.Section) bool { return s.Type == elf.SHT_SYMTAB })
	le := binary.LittleEndian
	// Behind the file: code, and a table of functions each of which is all of it.
	const size = 4096
	code, symbols := uint32(len(file)), uint32(len(file)+size)
	file = append(file, make([]byte, size+16)...)
	for range 1000 {
		file = le.AppendUint32(file, 1) // some name
		file = le.AppendUint32(file, uint32(text.Addr))
		file = le.AppendUint32(file, size)
		file = append(file, byte(elf.STT_FUNC), 0)
		file = le.AppendUint16(file, uint16(slices.Index(f.Sections, text)))
	}
	header := func(section int) []byte { return file[le.Uint32(file[32:])+40*uint32(section):] }
	le.PutUint32(header(table)[16:], symbols)
	le.PutUint32(header(table)[20:], uint32(len(file))-symbols)
	le.PutUint32(header(slices.Index(f.Sections, text))[16:], code)
	le.PutUint32(header(slices.Index(f.Sections, text))[20:], size)
	if _, err := image.CompareELF(file, file); !errors.Is(err, image.ErrFormat) || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("1000 functions of the same 4096 bytes: %v, want %v", err, image.ErrFormat)
	}
}
