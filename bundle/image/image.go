// Package image reads firmware images in the forms that build systems leave behind: raw binaries, Intel HEX,
// ELF and MCUboot images. What comes out is the bytes as they lie in the slot of a device, and the address of
// the first of them where the file names one.
//
//   - Intel HEX as in the specification of 1988, revision A: record types 00 to 05.
//   - ELF of 32 and 64 bits in either byte order: the allocated contents of the loadable segments, at their
//     physical addresses, as objcopy -O binary writes them.
//   - MCUboot images as package mcuboot reads them, less whatever follows the TLV area (trailer, padding). An
//     Intel HEX file may hold one.
//
// Motorola S-records and UF2 are recognised and refused, so that they are not taken for raw binaries. The
// package does no I/O. It does not disassemble; [CompareELF] compares functions by their bytes.
package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"sort"

	"github.com/sower-fuota/sower/bundle/mcuboot"
)

var (
	// ErrFormat is returned for a file that is not what its first bytes say, or that holds no image.
	ErrFormat = errors.New("image: not a firmware image")
	// ErrOverlap is returned when a file says twice what lies at an address.
	ErrOverlap = errors.New("image: overlapping data")
	// ErrMismatch is returned by [CheckPair] for two images that cannot be versions of one firmware.
	ErrMismatch = errors.New("image: the images do not belong together")
)

// MaxSize is the longest image in bytes, gaps included.
const MaxSize = 1<<24 - 1

// fill is what stands in gaps: what most flash reads when erased.
const fill = 0xff

// Format is the form of a file.
type Format uint8

// The formats that [Read] knows.
const (
	Raw Format = iota // anything else
	HEX
	ELF
	MCUboot
)

// String returns "raw binary", "Intel HEX", "ELF" or "MCUboot image".
func (f Format) String() string {
	return [...]string{"raw binary", "Intel HEX", "ELF", "MCUboot image"}[f]
}

// Image is a firmware image.
type Image struct {
	Format   Format         // of the file; HEX also for an MCUboot image in Intel HEX
	Data     []byte         // as in the slot of the device
	Base     uint32         // address of Data[0]
	HasBase  bool           // the file names it
	Machine  elf.Machine    // of an ELF file; EM_NONE: unknown
	Boot     *mcuboot.Image // header of an MCUboot image, whatever the file's form; nil: it is none
	Warnings []string       // what was done to the content on the way: gaps filled, padding left out
}

// Read returns the image in a file, whose form it recognises by content. Data may share memory with file.
// Errors wrap [ErrFormat], [ErrOverlap] or mcuboot.ErrImage.
func Read(file []byte) (*Image, error) {
	var im *Image
	var err error
	switch {
	case len(file) == 0:
		return nil, fmt.Errorf("%w: the file is empty", ErrFormat)
	case bytes.HasPrefix(file, []byte(elf.ELFMAG)):
		im, err = readELF(file)
	case isHEX(file):
		im, err = readHEX(file)
	case isRecord(file, 'S'):
		return nil, fmt.Errorf("%w: Motorola S-records are not read; convert with objcopy -O binary", ErrFormat)
	case bytes.HasPrefix(file, []byte("UF2\n")):
		return nil, fmt.Errorf("%w: UF2 is not read; give the binary it was made from", ErrFormat)
	default:
		im = &Image{Format: Raw, Data: file}
	}
	if err != nil {
		return nil, err
	}
	if mcuboot.Is(im.Data) {
		head, err := mcuboot.Parse(im.Data)
		if err != nil {
			return nil, err
		}
		im.Boot = &head
		if n := len(im.Data) - head.Size; n > 0 {
			im.warn("%d bytes after the TLV area left out: trailer or padding", n)
			im.Data = im.Data[:head.Size]
		}
		if im.Format == Raw {
			im.Format = MCUboot
			im.Base, im.HasBase = head.LoadAddress, head.LoadAddress != 0
		}
	}
	if len(im.Data) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrFormat, len(im.Data), MaxSize)
	}
	return im, nil
}

// CheckPair reports why two images cannot be versions of one firmware: another processor, or another address.
// Images that do not say are taken as they are. Errors wrap [ErrMismatch].
func CheckPair(old, new *Image) error {
	if old.Machine != new.Machine && old.Machine != elf.EM_NONE && new.Machine != elf.EM_NONE {
		return fmt.Errorf("%w: the old image is for %s, the new one for %s", ErrMismatch, machine(old.Machine), machine(new.Machine))
	}
	if old.HasBase && new.HasBase && old.Base != new.Base {
		return fmt.Errorf("%w: the old image begins at 0x%08x, the new one at 0x%08x", ErrMismatch, old.Base, new.Base)
	}
	if (old.Boot == nil) != (new.Boot == nil) {
		return fmt.Errorf("%w: one has an MCUboot header, the other has none", ErrMismatch)
	}
	return nil
}

// machine returns the name of a processor as readelf users know it, without the EM_ prefix.
func machine(m elf.Machine) string {
	s := m.String()
	if len(s) > 3 && s[:3] == "EM_" {
		return s[3:]
	}
	return s
}

func (im *Image) warn(format string, args ...any) {
	im.Warnings = append(im.Warnings, fmt.Sprintf(format, args...))
}

// chunk is a piece of memory content. what and line say where the file has it.
type chunk struct {
	addr uint64
	data []byte
	from string
}

// assemble lays chunks out in address order and fills the gaps between them.
func (im *Image) assemble(chunks []chunk) error {
	sort.SliceStable(chunks, func(i, j int) bool { return chunks[i].addr < chunks[j].addr })
	first, last := chunks[0], chunks[len(chunks)-1]
	end := last.addr + uint64(len(last.data))
	for i, c := range chunks[1:] {
		p := chunks[i]
		if e := p.addr + uint64(len(p.data)); c.addr < e {
			return fmt.Errorf("%w: address 0x%08x is in %s and in %s", ErrOverlap, c.addr, p.from, c.from)
		}
	}
	if end > 1<<32 {
		return fmt.Errorf("%w: %s ends at 0x%x, beyond 32 bits of address", ErrFormat, last.from, end)
	}
	if end-first.addr > MaxSize {
		at := first
		gap := uint64(0)
		for i, c := range chunks[1:] {
			if g := c.addr - chunks[i].addr - uint64(len(chunks[i].data)); g > gap {
				at, gap = c, g
			}
		}
		return fmt.Errorf("%w: 0x%08x to 0x%08x is more than %d bytes; %s, at 0x%08x, lies far from the rest: leave it out",
			ErrFormat, first.addr, end, MaxSize, at.from, at.addr)
	}
	im.Base, im.HasBase = uint32(first.addr), true
	im.Data = make([]byte, 0, end-first.addr)
	gaps, filled := 0, 0
	for _, c := range chunks {
		if n := int(c.addr-first.addr) - len(im.Data); n > 0 {
			gaps++
			filled += n
			im.Data = append(im.Data, bytes.Repeat([]byte{fill}, n)...)
		}
		im.Data = append(im.Data, c.data...)
	}
	if gaps > 0 {
		im.warn("gaps filled with 0x%02x: %d, %d bytes together", fill, gaps, filled)
	}
	return nil
}
