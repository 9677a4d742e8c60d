package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"sort"
)

// CodeChange says how the functions of one firmware differ from those of another.
type CodeChange struct {
	Functions int      // in the new firmware
	Added     []string // only in the new firmware
	Removed   []string // only in the old firmware
	Changed   []string // in both, with other instructions; the longest in the new firmware first
	Moved     int      // in both, at another address

	Sizes map[string]int // bytes of the functions in Added and Changed (new firmware) and Removed (old)
}

// CompareELF compares the functions of two ELF files built for Arm with symbols. Branches to other functions
// and words that are addresses follow what moved elsewhere; they are masked, so that only functions whose own
// instructions differ count as changed. Addresses built by MOVW and MOVT are not recognised: a function that
// uses them counts as changed when what they name has moved.
func CompareELF(old, new []byte) (CodeChange, error) {
	a, err := functions(old)
	if err != nil {
		return CodeChange{}, fmt.Errorf("old ELF file: %w", err)
	}
	b, err := functions(new)
	if err != nil {
		return CodeChange{}, fmt.Errorf("new ELF file: %w", err)
	}
	c := CodeChange{Functions: len(b), Sizes: map[string]int{}}
	for name, f := range b {
		g, ok := a[name]
		switch {
		case !ok:
			c.Added = append(c.Added, name)
			c.Sizes[name] = len(f.masked)
			continue
		case !bytes.Equal(f.masked, g.masked):
			c.Changed = append(c.Changed, name)
			c.Sizes[name] = len(f.masked)
		}
		if f.addr != g.addr {
			c.Moved++
		}
	}
	for name, g := range a {
		if _, ok := b[name]; !ok {
			c.Removed = append(c.Removed, name)
			c.Sizes[name] = len(g.masked)
		}
	}
	for _, list := range [][]string{c.Added, c.Removed, c.Changed} {
		sort.Slice(list, func(i, j int) bool {
			if x, y := c.Sizes[list[i]], c.Sizes[list[j]]; x != y {
				return x > y
			}
			return list[i] < list[j]
		})
	}
	return c, nil
}

type function struct {
	addr   uint64
	masked []byte
}

// maxAliases bounds the work on functions that share their code, as weak handlers do: their sizes may add up
// to so many times the file.
const maxAliases = 4

// functions reads the function symbols of an ELF file. Static functions of one name are numbered in the order
// of the symbol table.
func functions(file []byte) (map[string]function, error) {
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if f.Machine != elf.EM_ARM || f.ByteOrder != binary.LittleEndian {
		return nil, fmt.Errorf("%w: for %s, functions are compared for little-endian ARM only", ErrFormat, machine(f.Machine))
	}
	symbols, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("%w: %w; give the file before strip", ErrFormat, err)
	}
	out := map[string]function{}
	seen := map[string]int{}
	left := maxAliases * uint64(len(file))
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Size == 0 || int(s.Section) >= len(f.Sections) {
			continue
		}
		sec := f.Sections[s.Section]
		addr := s.Value &^ 1 // bit 0 says Thumb
		end := uint64(len(file))
		if sec.Type == elf.SHT_NOBITS || addr < sec.Addr || addr-sec.Addr > sec.FileSize || s.Size > sec.FileSize-(addr-sec.Addr) ||
			sec.Offset > end || sec.FileSize > end-sec.Offset {
			return nil, fmt.Errorf("%w: function %s lies outside its section", ErrFormat, s.Name)
		}
		if s.Size > left {
			return nil, fmt.Errorf("%w: its functions overlap: together they are more than %d times the file", ErrFormat, maxAliases)
		}
		left -= s.Size
		code := file[sec.Offset+addr-sec.Addr:][:s.Size]
		name := s.Name
		if seen[s.Name]++; seen[s.Name] > 1 {
			name = fmt.Sprintf("%s#%d", s.Name, seen[s.Name])
		}
		out[name] = function{addr: addr, masked: maskAddresses(code, f.Sections)}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: no function symbols; give the file before strip", ErrFormat)
	}
	return out, nil
}

// maskAddresses blanks the targets of BL, BLX and B.W and the words that are addresses in the firmware.
func maskAddresses(code []byte, sections []*elf.Section) []byte {
	le := binary.LittleEndian
	m := bytes.Clone(code)
	for i := 0; i+4 <= len(m); i += 2 {
		hi, lo := le.Uint16(m[i:]), le.Uint16(m[i+2:])
		if hi>>11 == 0x1e && (lo&0xc000 == 0xc000 || lo&0xd000 == 0x9000) { // Armv7-M ARM, A7.7.12 and A7.7.18
			le.PutUint16(m[i:], 0xf000)
			le.PutUint16(m[i+2:], lo&0xd000)
			i += 2
			continue
		}
		if i%4 == 0 && isAddress(le.Uint32(m[i:]), sections) {
			le.PutUint32(m[i:], 0)
			i += 2
		}
	}
	return m
}

// isAddress reports whether a word points into memory that the firmware occupies.
func isAddress(w uint32, sections []*elf.Section) bool {
	for _, s := range sections {
		if s.Flags&elf.SHF_ALLOC != 0 && s.Addr != 0 && uint64(w) >= s.Addr && uint64(w)-s.Addr <= s.Size {
			return true
		}
	}
	return false
}
