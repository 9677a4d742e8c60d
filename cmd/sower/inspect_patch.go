package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sower-fuota/sower/bundle/image"
	"github.com/sower-fuota/sower/delta"
)

// anatomy says where the bytes of a patch went and how long a device decodes.
type anatomy struct {
	Segments int     `json:"segments"`
	Control  float64 `json:"map_bytes"`   // the segment map
	Flags    float64 `json:"flags_bytes"` // which halfwords are as predicted
	Kinds    []part  `json:"kinds"`
	Cycles   uint64  `json:"m4_cycles"` // an estimate
	Decode   float64 `json:"m4_80mhz_s"`
	stream   int

	// If there are ELF files. Together they are Flags and the Bytes of Kinds.
	Symbols  []symbolCost `json:"symbols,omitempty"` // the dearest first
	NoSymbol *float64     `json:"no_symbol_bytes,omitempty"`
}

// part is one kind of halfword.
type part struct {
	Name      string  `json:"name"`
	Halfwords int     `json:"halfwords"` // in the new image
	Literals  int     `json:"literals"`  // of which had to be sent
	Bytes     float64 `json:"bytes"`
}

// explain decodes a patch against the image that it is for.
func (d *document) explain(in inspector, p delta.Params, base [8]byte, stream []byte) error {
	old, err := readImage(in.warn, "old image", in.oldFile)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(old.Data); !bytes.Equal(sum[:len(base)], base[:]) {
		return fmt.Errorf("old image %s is not the base of this patch: SHA-256 %x…, want %x…", in.oldFile, sum[:len(base)], base)
	}
	r, err := delta.Inspect(p, old.Data, stream)
	if err != nil {
		return err
	}
	a := &anatomy{Segments: r.Segments, Control: r.Control, Flags: r.Flags, Cycles: r.Cycles,
		Decode: float64(r.Cycles) / 80e6, stream: len(stream)}
	for _, k := range r.Kinds {
		a.Kinds = append(a.Kinds, part{k.Name, k.Halfwords, k.Literals, k.Bytes})
	}
	if in.elf != nil {
		if err := a.attribute(in.elf, old.Data, r); err != nil {
			return err
		}
	}
	d.anatomy = a
	return nil
}

func (a *anatomy) print(w io.Writer) {
	if a.Segments == 0 && len(a.Kinds) == 0 {
		fmt.Fprint(w, "\nthe stream holds the new image as it is\n")
		return
	}
	fmt.Fprintf(w, "\nwhere the %d bytes of the stream went (%d segments):\n", a.stream, a.Segments)
	line := func(name string, bytes float64, note string) {
		fmt.Fprintf(w, "  %-30s %9.1f B  %5.1f %%%s\n", name, bytes, 100*bytes/float64(max(a.stream, 1)), note)
	}
	line("segment map", a.Control, "")
	line("flags: as predicted or not", a.Flags, "")
	for _, k := range a.Kinds {
		line(k.Name, k.Bytes, fmt.Sprintf("  %d of %d halfwords", k.Literals, k.Halfwords))
	}
	fmt.Fprintf(w, "decoding takes about %s of an 80 MHz Cortex-M4 (%.0f million cycles)\n", roundTime(a.Decode), float64(a.Cycles)/1e6)
	if a.NoSymbol != nil {
		a.printSymbols(w)
	}
}

// symbolCost is what a function or object of the new image costs.
type symbolCost struct {
	Name   string  `json:"name"`
	Kind   string  `json:"kind"` // "function" or "object"
	Size   uint64  `json:"size"` // bytes in the image
	Bytes  float64 `json:"bytes"`
	Change string  `json:"change"` // one of changes
}

// changes are the fates of a symbol. Branch targets and pointers, which follow what moved elsewhere, are no change.
var changes = [...]string{"new", "changed", "moved", "unchanged"}

// attribute books the costs of a patch to the symbols of the new image.
func (a *anatomy) attribute(pair *elfPair, old []byte, r delta.Report) error {
	if _, err := pair.old.locate(old, "old"); err != nil {
		return err
	}
	shift, err := pair.new.locate(r.New, "new")
	if err != nil {
		return err
	}
	if r.Costs == nil {
		return nil
	}
	before := map[symbolKey]*symbol{}
	for i := range pair.old.symbols {
		s := &pair.old.symbols[i]
		before[s.symbolKey] = s
	}
	// A symbol inside another one is the more exact; of several for the same bytes the one that the old image
	// has too tells more.
	symbols := slices.Clone(pair.new.symbols)
	slices.SortStableFunc(symbols, func(s, t symbol) int {
		known := func(s symbol) int {
			if before[s.symbolKey] != nil {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(len(s.data), len(t.data)), known(s)-known(t))
	})
	owner := make([]int, 2*len(r.Costs)) // symbol of each byte, from 1
	for i, s := range symbols {
		for j := range s.data {
			if at := s.load + int64(j) + shift; at >= 0 && at < int64(len(r.New)) && owner[at] == 0 {
				owner[at] = i + 1
			}
		}
	}
	costs := make([]uint64, len(symbols)+1) // in 1/512 bit: each byte takes half of its halfword's
	for at, i := range owner {
		costs[i] += uint64(r.Costs[at/2])
	}
	const perByte = 8 * 512
	a.Symbols, a.NoSymbol = []symbolCost{}, new(float64)
	*a.NoSymbol = float64(costs[0]) / perByte
	for i, s := range symbols {
		if costs[i+1] > 0 {
			a.Symbols = append(a.Symbols, symbolCost{s.name, s.kind(), uint64(len(s.data)), float64(costs[i+1]) / perByte, pair.fate(s, before[s.symbolKey])})
		}
	}
	slices.SortStableFunc(a.Symbols, func(s, t symbolCost) int {
		return cmp.Or(cmp.Compare(t.Bytes, s.Bytes), cmp.Compare(s.Name, t.Name))
	})
	return nil
}

func (a *anatomy) printSymbols(w io.Writer) {
	const most = 20
	fmt.Fprint(w, "\nwhere they went by symbol of the new image, without the segment map:\n")
	line := func(bytes float64, note string) {
		fmt.Fprintf(w, "  %9.1f B  %5.1f %%  %s\n", bytes, 100*bytes/float64(max(a.stream, 1)), note)
	}
	rest := 0.0
	sums, counts := map[string]float64{}, map[string]int{}
	for i, s := range a.Symbols {
		sums[s.Change] += s.Bytes
		counts[s.Change]++
		if i >= most {
			rest += s.Bytes
			continue
		}
		line(s.Bytes, fmt.Sprintf("%-9s  %s, %d bytes of %s", s.Change, s.Name, s.Size, s.Kind))
	}
	if n := len(a.Symbols) - most; n > 0 {
		line(rest, fmt.Sprintf("%d more; see --json", n))
	}
	line(*a.NoSymbol, "(no symbol)")
	fmt.Fprint(w, "the symbols by what became of them:\n")
	for _, c := range changes {
		if counts[c] > 0 {
			line(sums[c], fmt.Sprintf("%-9s  %d of %d", c, counts[c], len(a.Symbols)))
		}
	}
}

// elfPair is the ELF files of the old and the new image.
type elfPair struct {
	old, new elfFile
	change   image.CodeChange
	altered  map[string]bool // functions in change.Changed
}

// elfFile is what an ELF file has for the image.
type elfFile struct {
	path     string
	sections []section // with content
	memory   []elf.SectionHeader
	symbols  []symbol
}

// section is a piece of the image.
type section struct {
	name string
	load int64 // address in flash
	data []byte
}

// symbol is a function or object in the image.
type symbol struct {
	symbolKey
	load int64 // address in flash
	data []byte
}

// symbolKey tells symbols apart: those of one name and kind are numbered, as image.CompareELF does.
type symbolKey struct {
	name     string
	function bool
}

func (k symbolKey) kind() string {
	if k.function {
		return "function"
	}
	return "object"
}

// readELFPair reads two ELF files and compares their functions.
func readELFPair(oldPath, newPath string) (*elfPair, error) {
	old, err := readInput("old ELF file", oldPath)
	if err != nil {
		return nil, err
	}
	new, err := readInput("new ELF file", newPath)
	if err != nil {
		return nil, err
	}
	p := &elfPair{altered: map[string]bool{}}
	p.change, err = image.CompareELF(old, new)
	if errors.Is(err, image.ErrFormat) {
		return nil, fmt.Errorf("%s, %s: %w", oldPath, newPath, err)
	}
	if err != nil {
		return nil, err
	}
	for _, name := range p.change.Changed {
		p.altered[name] = true
	}
	if p.old, err = readELF(oldPath, old); err != nil {
		return nil, err
	}
	p.new, err = readELF(newPath, new)
	return p, err
}

// readELF finds what is loaded and the symbols in it.
func readELF(path string, file []byte) (elfFile, error) {
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		return elfFile{}, fmt.Errorf("%s: %w", path, err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		return elfFile{}, fmt.Errorf("%s: %w", path, err)
	}
	e := elfFile{path: path}
	loaded := map[elf.SectionIndex]section{}
	for i, s := range f.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		e.memory = append(e.memory, s.SectionHeader)
		for _, p := range f.Progs {
			if p.Type != elf.PT_LOAD || s.Type == elf.SHT_NOBITS || s.FileSize == 0 || s.Offset < p.Off ||
				s.FileSize > p.Filesz || s.Offset-p.Off > p.Filesz-s.FileSize ||
				s.Offset > uint64(len(file)) || s.FileSize > uint64(len(file))-s.Offset {
				continue
			}
			loaded[elf.SectionIndex(i)] = section{s.Name, int64(uint32(p.Paddr + s.Offset - p.Off)), file[s.Offset:][:s.FileSize]}
			e.sections = append(e.sections, loaded[elf.SectionIndex(i)])
			break
		}
	}
	seen := map[symbolKey]int{}
	for _, s := range symbols {
		k := symbolKey{s.Name, elf.ST_TYPE(s.Info) == elf.STT_FUNC}
		if !k.function && elf.ST_TYPE(s.Info) != elf.STT_OBJECT || s.Size == 0 || int(s.Section) >= len(f.Sections) {
			continue
		}
		if seen[k]++; seen[k] > 1 {
			k.name = fmt.Sprintf("%s#%d", s.Name, seen[k])
		}
		addr := s.Value
		if k.function {
			addr &^= 1 // bit 0 says Thumb
		}
		in := loaded[s.Section]
		at := addr - f.Sections[s.Section].Addr
		if n := uint64(len(in.data)); at < n && s.Size <= n-at {
			e.symbols = append(e.symbols, symbol{k, in.load + int64(at), in.data[at:][:s.Size]})
		}
	}
	return e, nil
}

// locate returns how far an image lies from the addresses of the ELF file that it was made of: build tools put
// headers before it. They also stamp checksums into it, so a few bytes may differ.
func (e *elfFile) locate(im []byte, what string) (shift int64, err error) {
	var largest section
	for _, s := range e.sections {
		if len(s.data) > len(largest.data) {
			largest = s
		}
	}
	if len(largest.data) == 0 {
		return 0, fmt.Errorf("ELF file %s of the %s image: no loadable data; is it an object file?", e.path, what)
	}
	const most = 64 // bytes: to look for, and to differ
	mark := min(len(largest.data), most)
	start := (len(largest.data) - mark) / 2
	for from := 0; ; from++ {
		i := bytes.Index(im[from:], largest.data[start:][:mark])
		if i < 0 {
			break
		}
		from += i
		shift := int64(from) - int64(start) - largest.load
		if at := shift + largest.load; at >= 0 && at+int64(len(largest.data)) <= int64(len(im)) && e.agrees(im, shift, most) {
			return shift, nil
		}
	}
	return 0, fmt.Errorf("ELF file %s is not the one that the %s image was made of: its section %s, %d bytes, is not in the image",
		e.path, what, largest.name, len(largest.data))
}

// agrees reports whether the sections are in the image but for a few bytes, at most one in 16. Sections that lie
// outside of it may be meant for another memory.
func (e *elfFile) agrees(im []byte, shift int64, most int) bool {
	size, differ := 0, 0
	for _, s := range e.sections {
		at := s.load + shift
		if at < 0 || at+int64(len(s.data)) > int64(len(im)) {
			continue
		}
		size += len(s.data)
		for i, b := range s.data {
			if im[at+int64(i)] != b {
				if differ++; differ > most {
					return false
				}
			}
		}
	}
	return differ <= size/16
}

// fate says what became of a symbol; old is nil if there was none of that name.
func (p *elfPair) fate(s symbol, old *symbol) string {
	switch {
	case old == nil:
		return changes[0]
	case s.function && p.altered[s.name], !s.function && !p.sameObject(s, old):
		return changes[1]
	case s.load != old.load:
		return changes[2]
	}
	return changes[3]
}

// sameObject reports whether two objects are alike but for pointers to what moved.
func (p *elfPair) sameObject(s symbol, old *symbol) bool {
	if len(s.data) != len(old.data) {
		return false
	}
	for i := 0; i < len(s.data); {
		if i%4 == 0 && i+4 <= len(s.data) && p.old.points(old.data[i:]) && p.new.points(s.data[i:]) {
			i += 4
			continue
		}
		if s.data[i] != old.data[i] {
			return false
		}
		i++
	}
	return true
}

// points reports whether a word is an address in memory that the firmware occupies.
func (e *elfFile) points(word []byte) bool {
	w := uint64(binary.LittleEndian.Uint32(word))
	for _, s := range e.memory {
		if s.Addr != 0 && w >= s.Addr && w-s.Addr <= s.Size {
			return true
		}
	}
	return false
}
