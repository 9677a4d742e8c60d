package image

import (
	"bytes"
	"debug/elf"
	"fmt"
)

// maxSegments is more than the loadable segments of any firmware: a linker makes a handful.
const maxSegments = 256

func readELF(file []byte) (*Image, error) {
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	im := &Image{Format: ELF, Machine: f.Machine}
	var chunks []chunk
	var loads []*elf.Prog
	for i, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Filesz == 0 {
			continue
		}
		if loads = append(loads, p); len(loads) > maxSegments {
			return nil, fmt.Errorf("%w: more than %d loadable ELF segments", ErrFormat, maxSegments)
		}
		if p.Off > uint64(len(file)) || p.Filesz > uint64(len(file))-p.Off {
			return nil, fmt.Errorf("%w: ELF segment %d lies outside the file: it is truncated", ErrFormat, i)
		}
		if p.Paddr > 1<<32 {
			return nil, fmt.Errorf("%w: ELF segment %d begins at 0x%x, beyond 32 bits of address", ErrFormat, i, p.Paddr)
		}
		if len(f.Sections) == 0 {
			chunks = append(chunks, chunk{p.Paddr, file[p.Off : p.Off+p.Filesz], fmt.Sprintf("segment %d", i)})
		}
	}
	// A linker may let the first segment begin at the ELF header to fill a page; only what lies in
	// sections is meant for the device.
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_ALLOC == 0 || s.Type == elf.SHT_NOBITS || s.FileSize == 0 {
			continue
		}
		for _, p := range loads {
			if s.Offset >= p.Off && s.FileSize <= p.Filesz && s.Offset-p.Off <= p.Filesz-s.FileSize {
				chunks = append(chunks, chunk{p.Paddr + s.Offset - p.Off, file[s.Offset : s.Offset+s.FileSize], "section " + s.Name})
				break
			}
		}
	}
	if len(chunks) == 0 {
		return nil, fmt.Errorf("%w: the ELF file has no loadable data; is it an object file?", ErrFormat)
	}
	return im, im.assemble(chunks)
}
