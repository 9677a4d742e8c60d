package image_test

import (
	"bytes"
	"debug/elf"
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
