package image_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle/image"
	"github.com/sower-fuota/sower/bundle/mcuboot"
)

// read returns a file of testdata; where it comes from is said in its README and in mcuboot/testdata/README.md.
func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// record returns a line of Intel HEX.
func record(kind uint8, offset uint16, data ...byte) string {
	b := append([]byte{byte(len(data)), byte(offset >> 8), byte(offset), kind}, data...)
	sum := byte(0)
	for _, v := range b {
		sum += v
	}
	return fmt.Sprintf(":%X%02X\n", b, -sum)
}

const end = ":00000001FF\n"

func TestHEX(t *testing.T) {
	for _, tt := range []struct {
		name     string
		file     string
		base     uint32
		data     string // in hexadecimal
		warnings int
	}{
		{"the example of Wikipedia", ":10010000214601360121470136007EFE09D2190140\n" + end, 0x100, "214601360121470136007efe09d21901", 0},
		{"out of order", record(0, 4, 3, 4) + record(0, 0, 1, 2, 9, 9) + end, 0, "010209090304", 0},
		{"a gap", record(0, 0, 1) + record(0, 3, 2) + end, 0, "01ffff02", 1},
		{"linear base", record(4, 0, 0x08, 0) + record(0, 0x100, 7) + end, 0x08000100, "07", 0},
		{"segment base", record(2, 0, 0x12, 0x34) + record(0, 5, 7) + end, 0x12345, "07", 0},
		{"across 64 KiB", record(4, 0, 0, 1) + record(0, 0xffff, 7) + record(4, 0, 0, 2) + record(0, 0, 8) + end, 0x1ffff, "0708", 0},
		{"entry points", record(3, 0, 0, 0, 1, 2) + record(5, 0, 8, 0, 1, 2) + record(0, 0, 7) + end, 0, "07", 0},
		{"no data in a record", record(0, 0, 7) + record(0, 9) + end, 0, "07", 0},
		{"CRLF, blank lines, small letters", strings.ReplaceAll(strings.ToLower(record(0, 0xabcd, 0xef)), "\n", "\r\n\r\n") + end + "\n\n", 0xabcd, "ef", 0},
		{"the last byte of the address space", record(4, 0, 0xff, 0xff) + record(0, 0xffff, 1) + end, 0xffffffff, "01", 0},
	} {
		im, err := image.Read([]byte(tt.file))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if im.Format != image.HEX || !im.HasBase || im.Base != tt.base || fmt.Sprintf("%x", im.Data) != tt.data || len(im.Warnings) != tt.warnings {
			t.Errorf("%s: %v at 0x%x: %x, warnings %q; want Intel HEX at 0x%x: %s and %d", tt.name, im.Format, im.Base, im.Data, im.Warnings, tt.base, tt.data, tt.warnings)
		}
	}
}

func TestHEXRefuses(t *testing.T) {
	far := record(4, 0, 0, 0) + record(0, 0, 1) + record(4, 0, 0x10, 0) + record(0, 0x1000, 2) + end
	for _, tt := range []struct {
		name, file string
		want       error
		say        string
	}{
		{"overlap", record(0, 0, 1, 2, 3) + record(0, 2, 9) + end, image.ErrOverlap, "address 0x00000002 is in the data from line 1 on and in the data from line 2 on"},
		{"overlap of equal bytes", record(0, 0, 1) + record(0, 0, 1) + end, image.ErrOverlap, "0x00000000"},
		{"overlap inside", record(0, 0, 1, 2, 3, 4) + record(0, 1, 2) + end, image.ErrOverlap, "0x00000001"},
		{"truncated", record(0, 0, 1), image.ErrFormat, "no end record"},
		{"half a line", record(0, 0, 1, 2)[:12], image.ErrFormat, "line 1"},
		{"bad checksum", ":0100000001FF\n" + end, image.ErrFormat, "checksum 0xff, want 0xfe"},
		{"bad digit", record(0, 0, 1) + ":0G\n", image.ErrFormat, "line 2"},
		{"wrong length", record(0, 0, 1) + ":0500000001FA\n", image.ErrFormat, "line 2"},
		{"unknown record", record(9, 0) + end, image.ErrFormat, "record type 9"},
		{"data after the end", end + record(0, 0, 1), image.ErrFormat, "line 2 follows the end record"},
		{"no data", end, image.ErrFormat, "no data"},
		{"short base", record(4, 0, 1) + record(0, 0, 1) + end, image.ErrFormat, "base address of 1 bytes"},
		{"wrap in a segment", record(2, 0, 0, 0) + record(0, 0xffff, 1, 2) + end, image.ErrFormat, "wraps"},
		{"beyond the address space", record(4, 0, 0xff, 0xff) + record(0, 0xffff, 1, 2) + end, image.ErrFormat, "beyond 32 bits"},
		{"pieces far apart", far, image.ErrFormat, "0x10001000, lies far from the rest"},
		{"something else in between", record(0, 0, 1) + "hello\n" + end, image.ErrFormat, `line 2: it begins with 'h'`},
		{"S-records", "S00600004844521B\n", image.ErrFormat, "S-records"},
		{"UF2", "UF2\nWQ]\x9e", image.ErrFormat, "UF2"},
		{"empty", "", image.ErrFormat, "empty"},
	} {
		if _, err := image.Read([]byte(tt.file)); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.want, tt.say)
		}
	}
}

// segment is a loadable segment of an ELF file that makeELF writes; sections are offsets and lengths in it.
type segment struct {
	paddr    uint32
	data     []byte
	sections [][2]uint32
}

// makeELF returns a 32-bit ELF file.
func makeELF(machine elf.Machine, kind elf.Type, segments ...segment) []byte {
	le := binary.LittleEndian
	const header, program, section = 52, 32, 40
	names := []byte("\x00.text\x00")
	off := uint32(header + program*len(segments))
	var progs, body, sections []byte
	word := func(b *[]byte, v ...uint32) {
		for _, x := range v {
			*b = le.AppendUint32(*b, x)
		}
	}
	word(&sections, make([]uint32, 10)...)
	count := uint16(1)
	for _, s := range segments {
		n := uint32(len(s.data))
		word(&progs, uint32(elf.PT_LOAD), off, s.paddr+0x1000, s.paddr, n, n+8, 5, 4)
		for _, x := range s.sections {
			word(&sections, 1, uint32(elf.SHT_PROGBITS), uint32(elf.SHF_ALLOC), s.paddr+0x1000+x[0], off+x[0], x[1], 0, 0, 4, 0)
			count++
		}
		body = append(body, s.data...)
		off += n
	}
	word(&sections, 1, uint32(elf.SHT_STRTAB), 0, 0, off, uint32(len(names)), 0, 0, 1, 0)
	body = append(body, names...)
	off += uint32(len(names))
	b := []byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = le.AppendUint16(b, uint16(kind))
	b = le.AppendUint16(b, uint16(machine))
	word(&b, 1, 0, header, off, 0)
	for _, v := range []uint16{header, program, uint16(len(segments)), section, count + 1, count} {
		b = le.AppendUint16(b, v)
	}
	return append(append(append(b, progs...), body...), sections...)
}

func TestELF(t *testing.T) {
	text := segment{0x08000000, []byte{1, 2, 3, 4, 5, 6, 7, 8}, [][2]uint32{{0, 8}}}
	for _, tt := range []struct {
		name     string
		file     []byte
		base     uint32
		data     string
		warnings int
	}{
		{"one segment", makeELF(elf.EM_ARM, elf.ET_EXEC, text), 0x08000000, "0102030405060708", 0},
		{"initial data behind the code", makeELF(elf.EM_ARM, elf.ET_EXEC, segment{0x08000008, []byte{9, 9}, [][2]uint32{{0, 2}}}, text), 0x08000000, "01020304050607080909", 0},
		{"a gap", makeELF(elf.EM_ARM, elf.ET_EXEC, text, segment{0x0800000a, []byte{9}, [][2]uint32{{0, 1}}}), 0x08000000, "0102030405060708ffff09", 1},
		{"a segment that begins before its sections", makeELF(elf.EM_ARM, elf.ET_EXEC, segment{0x08000000, []byte{1, 2, 3, 4, 5, 6}, [][2]uint32{{4, 2}}}), 0x08000004, "0506", 0},
	} {
		im, err := image.Read(tt.file)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if im.Format != image.ELF || im.Machine != elf.EM_ARM || !im.HasBase || im.Base != tt.base || fmt.Sprintf("%x", im.Data) != tt.data || len(im.Warnings) != tt.warnings {
			t.Errorf("%s: %v for %v at 0x%x: %x, warnings %q", tt.name, im.Format, im.Machine, im.Base, im.Data, im.Warnings)
		}
	}
	stripped := makeELF(elf.EM_ARM, elf.ET_EXEC, text)
	copy(stripped[32:], []byte{0, 0, 0, 0})        // e_shoff
	copy(stripped[46:], []byte{40, 0, 0, 0, 0, 0}) // e_shnum, e_shstrndx
	if im, err := image.Read(stripped); err != nil || fmt.Sprintf("%x", im.Data) != "0102030405060708" {
		t.Errorf("without section headers: %+v, %v", im, err)
	}
}

func TestELFRefuses(t *testing.T) {
	text := segment{0x08000000, []byte{1, 2, 3, 4}, [][2]uint32{{0, 4}}}
	whole := makeELF(elf.EM_ARM, elf.ET_EXEC, text)
	for _, tt := range []struct {
		name string
		file []byte
		want error
		say  string
	}{
		{"object file", makeELF(elf.EM_ARM, elf.ET_REL), image.ErrFormat, "no loadable data"},
		{"nothing allocated", makeELF(elf.EM_ARM, elf.ET_EXEC, segment{0, []byte{1}, nil}), image.ErrFormat, "no loadable data"},
		{"overlap", makeELF(elf.EM_ARM, elf.ET_EXEC, text, segment{0x08000002, []byte{1}, [][2]uint32{{0, 1}}}), image.ErrOverlap, "0x08000002 is in section .text"},
		{"header only", whole[:30], image.ErrFormat, ""},
		{"truncated", whole[:90], image.ErrFormat, ""},
		{"pieces far apart", makeELF(elf.EM_ARM, elf.ET_EXEC, text, segment{0x20000000, []byte{1}, [][2]uint32{{0, 1}}}), image.ErrFormat, "0x20000000, lies far from the rest"},
	} {
		if _, err := image.Read(tt.file); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.want, tt.say)
		}
	}
}

func TestMCUboot(t *testing.T) {
	img := read(t, "imgtool.img")
	for name, file := range map[string][]byte{"image": img, "padded": append(bytes.Clone(img), 0xff, 0xff, 0xff)} {
		im, err := image.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		if im.Format != image.MCUboot || im.Boot == nil || im.Boot.Minor != 2 || im.HasBase || !bytes.Equal(im.Data, img) || len(im.Warnings) != (len(file)-len(img)+2)/3 {
			t.Errorf("%s: %v, boot %+v, %d bytes, warnings %q", name, im.Format, im.Boot, len(im.Data), im.Warnings)
		}
	}
	// The same body signed again, as Intel HEX at the address of the slot.
	im, err := image.Read(read(t, "imgtool.hex"))
	if err != nil {
		t.Fatal(err)
	}
	if im.Format != image.HEX || im.Boot == nil || im.Base != 0x08004000 || !bytes.Equal(im.Data[:0x100+701], img[:0x100+701]) {
		t.Errorf("Intel HEX: %v, boot %+v, base 0x%x, %d bytes", im.Format, im.Boot, im.Base, len(im.Data))
	}
	loaded, err := mcuboot.Wrap([]byte("body"), mcuboot.Options{LoadAddress: 0x20000400})
	if err != nil {
		t.Fatal(err)
	}
	if im, err := image.Read(loaded); err != nil || !im.HasBase || im.Base != 0x20000400 {
		t.Errorf("load address: %+v, %v", im, err)
	}
	img[300] ^= 1
	if _, err := image.Read(img); !errors.Is(err, mcuboot.ErrImage) {
		t.Errorf("damaged image: %v, want %v", err, mcuboot.ErrImage)
	}
}

// Each of many sections lies in each of many segments: what is kept must not grow with the product.
func TestELFBombs(t *testing.T) {
	at := func(segments, sections int) []byte {
		all := make([]segment, segments)
		for i := range all {
			all[i] = segment{paddr: 0x08000000 + 16*uint32(i), data: []byte{1}}
		}
		for range sections {
			all[0].sections = append(all[0].sections, [2]uint32{0, 1})
		}
		file := makeELF(elf.EM_ARM, elf.ET_EXEC, all...)
		for i := range all { // all begin where the first does
			copy(file[52+32*i+4:], file[52+4:52+8])
		}
		return file
	}
	for _, tt := range []struct {
		segments, sections int
		want               error
	}{{100, 1000, image.ErrOverlap}, {1000, 1, image.ErrFormat}} {
		file := at(tt.segments, tt.sections)
		allocs := testing.AllocsPerRun(1, func() {
			if _, err := image.Read(file); !errors.Is(err, tt.want) {
				t.Errorf("%d segments, %d sections: %v, want %v", tt.segments, tt.sections, err, tt.want)
			}
		})
		if most := float64(10*(tt.segments+tt.sections) + 1000); allocs > most {
			t.Errorf("%d segments, %d sections: %.0f allocations, want at most %.0f", tt.segments, tt.sections, allocs, most)
		}
	}
}

func TestCheckPair(t *testing.T) {
	text := segment{0x08000000, []byte{1, 2, 3, 4}, [][2]uint32{{0, 4}}}
	arm := makeELF(elf.EM_ARM, elf.ET_EXEC, text)
	riscv := makeELF(elf.EM_RISCV, elf.ET_EXEC, text)
	here := []byte(record(4, 0, 8, 0) + record(0, 0, 1) + end)
	there := []byte(record(4, 0, 8, 1) + record(0, 0, 1) + end)
	raw, boot := []byte("raw"), read(t, "imgtool.img")
	for _, tt := range []struct {
		name     string
		old, new []byte
		say      string // empty: no error
	}{
		{"one architecture", arm, arm, ""},
		{"two architectures", arm, riscv, "the old image is for ARM, the new one for RISCV"},
		{"unknown architecture", arm, raw, ""},
		{"one address", arm, here, ""},
		{"two addresses", here, there, "begins at 0x08000000, the new one at 0x08010000"},
		{"MCUboot and not", raw, boot, "MCUboot header"},
	} {
		old, err := image.Read(tt.old)
		if err != nil {
			t.Fatal(err)
		}
		new, err := image.Read(tt.new)
		if err != nil {
			t.Fatal(err)
		}
		err = image.CheckPair(old, new)
		if tt.say == "" && err != nil || tt.say != "" && (!errors.Is(err, image.ErrMismatch) || !strings.Contains(err.Error(), tt.say)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.say)
		}
	}
}

// What is read from any file is within bounds, and lies where the file says.
func FuzzRead(f *testing.F) {
	f.Add([]byte(record(4, 0, 8, 0) + record(0, 0, 1, 2) + record(0, 8, 3) + end))
	f.Add([]byte(record(2, 0, 0x10, 0) + record(0, 0xfffe, 1, 2) + record(5, 0, 8, 0, 1, 1) + end))
	f.Add(makeELF(elf.EM_ARM, elf.ET_EXEC, segment{0x08000000, []byte{1, 2, 3, 4}, [][2]uint32{{0, 2}, {2, 2}}}))
	f.Add(read(f, "imgtool.img"))
	f.Add(read(f, "imgtool.hex"))
	f.Fuzz(func(t *testing.T, file []byte) {
		im, err := image.Read(file)
		if err != nil {
			return
		}
		if len(im.Data) == 0 || len(im.Data) > image.MaxSize || uint64(im.Base)+uint64(len(im.Data)) > 1<<32 && im.Format != image.MCUboot {
			t.Fatalf("%d bytes at 0x%x", len(im.Data), im.Base)
		}
		if im.Boot != nil && im.Boot.Size != len(im.Data) {
			t.Fatalf("MCUboot image of %d bytes in %d", im.Boot.Size, len(im.Data))
		}
		if again, err := image.Read(im.Data); err == nil && im.Boot != nil && !bytes.Equal(again.Data, im.Data) {
			t.Fatal("an MCUboot image read twice differs")
		}
	})
}

func FuzzCompareELF(f *testing.F) {
	small := makeELF(elf.EM_ARM, elf.ET_EXEC, segment{0x08000000, []byte{1, 2, 3, 4}, [][2]uint32{{0, 2}, {2, 2}}})
	f.Add(small)
	f.Add(read(f, "old.elf"))
	f.Add(read(f, "new.elf"))
	f.Fuzz(func(t *testing.T, file []byte) {
		c, err := image.CompareELF(file, file)
		if err == nil && (c.Functions == 0 || len(c.Added)+len(c.Removed)+len(c.Changed)+c.Moved != 0) {
			t.Fatalf("a file differs from itself: %+v", c)
		}
	})
}
