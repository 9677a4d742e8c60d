package device

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
	Changed   []string // in both, with other instructions
	Moved     int      // in both, at another address
}

// CompareELF compares the functions of two ELF files built for Arm. Branch targets and addresses in literal
// pools follow what moved elsewhere; they are masked, so that only functions whose own instructions differ
// count as changed.
func CompareELF(oldPath, newPath string) (CodeChange, error) {
	old, err := functions(oldPath)
	if err != nil {
		return CodeChange{}, err
	}
	new, err := functions(newPath)
	if err != nil {
		return CodeChange{}, err
	}
	c := CodeChange{Functions: len(new)}
	for name, f := range new {
		g, ok := old[name]
		switch {
		case !ok:
			c.Added = append(c.Added, name)
			continue
		case !bytes.Equal(f.masked, g.masked):
			c.Changed = append(c.Changed, name)
		}
		if f.addr != g.addr {
			c.Moved++
		}
	}
	for name := range old {
		if _, ok := new[name]; !ok {
			c.Removed = append(c.Removed, name)
		}
	}
	for _, list := range [][]string{c.Added, c.Removed, c.Changed} {
		sort.Strings(list)
	}
	return c, nil
}

type function struct {
	addr   uint64
	masked []byte
}

// functions reads the function symbols of an ELF file. Static functions of one name are numbered in the
// order of the symbol table.
func functions(path string) (map[string]function, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("firmware %s: %w", path, err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		return nil, fmt.Errorf("firmware %s: %w", path, err)
	}
	out := map[string]function{}
	for _, s := range symbols {
		if elf.ST_TYPE(s.Info) != elf.STT_FUNC || s.Size == 0 || int(s.Section) >= len(f.Sections) {
			continue
		}
		sec := f.Sections[s.Section]
		addr := s.Value &^ 1 // bit 0 says Thumb
		code := make([]byte, s.Size)
		if _, err := sec.ReadAt(code, int64(addr-sec.Addr)); err != nil {
			return nil, fmt.Errorf("firmware %s: function %s: %w", path, s.Name, err)
		}
		name := s.Name
		for i := 2; ; i++ {
			if _, taken := out[name]; !taken {
				break
			}
			name = fmt.Sprintf("%s#%d", s.Name, i)
		}
		out[name] = function{addr: addr, masked: maskAddresses(code)}
	}
	return out, nil
}

// maskAddresses blanks the immediates of BL and words that are addresses in code or RAM.
func maskAddresses(code []byte) []byte {
	le := binary.LittleEndian
	m := bytes.Clone(code)
	for i := 0; i+4 <= len(m); i += 2 {
		if le.Uint16(m[i:])>>11 == 0x1e && le.Uint16(m[i+2:])>>14 == 3 { // BL: Armv6-M ARM, A6.7.13
			le.PutUint16(m[i:], 0xf000)
			le.PutUint16(m[i+2:], 0xf800)
			i += 2
			continue
		}
		if w := le.Uint32(m[i:]); i%4 == 0 && (w>>20 == 0x210 || w>>20 == 0x200) {
			le.PutUint32(m[i:], 0)
			i += 2
		}
	}
	return m
}
