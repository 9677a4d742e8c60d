package plan

import (
	"fmt"
	"math"

	"github.com/sower-fuota/sower/bundle"
)

// Layout is what devices of one hardware id can hold, in bytes: the flash map and the arena of the device library.
type Layout struct {
	Class    *uint32 // device class; nil: not known
	Slot     int     // slot B, its trailer page included
	Download int     // download area
	Scratch  int     // scratch, for the segment map of a patch
	RAM      int     // arena
	Page     int     // erase page; 2048
	Granule  int     // write granule; 8
}

// Sizes of the device library, as in firmware-stub/src: sow_core_arena_size, sow_store_size, sow_store_rows.
const (
	freezes   = 6   // records of frozen columns
	spares    = 8   // slots that stand in for broken ones
	marker    = 8   // bytes behind each slot
	workState = 160 // SOW_SCRATCH: digests, and the manifest that is being judged
	patcher   = 104 // struct sow_patch of a 64-bit host, aligned; a 32-bit device needs less
)

func (l Layout) withDefaults() Layout {
	if l.Page == 0 {
		l.Page = 2048
	}
	if l.Granule == 0 {
		l.Granule = 8
	}
	return l
}

func align(n, to int) int { return (n + to - 1) / to * to }

// bitmap is a set of n bits in the arena.
func bitmap(n int) int { return align((n+7)/8, 16) }

// pad rounds up to what is written at once.
func (l Layout) pad(n int) int { return align(n, max(l.Granule, 4)) }

// DownloadSize returns the bytes of download area that a session of m fragments takes.
func (l Layout) DownloadSize(m, fragSize int) int {
	l = l.withDefaults()
	mark := l.pad(marker)
	return freezes*(bitmap(m)+mark) + (m+spares)*(l.pad(fragSize)+mark)
}

// ArenaSize returns the bytes of RAM that a session of m fragments takes, and a patch that needs codecRAM after it.
func (l Layout) ArenaSize(m, fragSize, codecRAM int) int {
	row := max(bitmap(m)+align(fragSize, 16), workState) + 2*bitmap(m)
	if codecRAM > 0 {
		return max(row, patcher+codecRAM)
	}
	return row
}

// MaxLost returns how many uncoded fragments a device may lose and still decode: the rows of the decoder lie in
// slot B. It is m if slot B holds them all.
func (l Layout) MaxLost(m, fragSize int) int {
	l = l.withDefaults()
	stride := l.pad(fragSize) + l.pad(marker)
	lost := 0
	for lost < m && (lost+1+spares)*(l.pad((lost+8)/8)+stride) <= l.Slot {
		lost++
	}
	return lost
}

// session reports why a session does not fit, or nothing.
func (l Layout) session(m, fragSize, codecRAM int) string {
	if need := l.DownloadSize(m, fragSize); need > l.Download {
		return fmt.Sprintf("%d fragments of %d bytes take %d bytes of download area, the devices have %d", m, fragSize, need, l.Download)
	}
	if need := l.ArenaSize(m, fragSize, codecRAM); need > l.RAM {
		return fmt.Sprintf("%d fragments of %d bytes take %d bytes of RAM, the devices have %d", m, fragSize, need, l.RAM)
	}
	return ""
}

// image reports why a bundle does not fit whatever its fragments, with a remedy, or nothing.
func (l Layout) image(m bundle.Manifest) (text, remedy string) {
	l = l.withDefaults()
	switch {
	case int64(m.NewSize) > int64(l.Slot)-int64(l.Page):
		return fmt.Sprintf("the new image has %d bytes, the slot of hardware id %d holds %d", m.NewSize, m.Hardware, l.Slot-l.Page),
			"build a smaller image"
	case int64(m.Scratch) > int64(l.Scratch):
		return fmt.Sprintf("the patch needs %d bytes of flash scratch, hardware id %d has %d", m.Scratch, m.Hardware, l.Scratch),
			"make the patch with --map ram or fewer segments"
	case int64(m.RAM)+patcher > int64(l.RAM):
		return fmt.Sprintf("the patch needs %d bytes of RAM, hardware id %d has %d", int(m.RAM)+patcher, m.Hardware, l.RAM),
			fmt.Sprintf("make the patch with --ram %d", max(0, l.RAM-patcher)/256*256)
	}
	return "", ""
}

// snrNeeded is what a device must receive with to use a data rate, in dB of 125 kHz, margin included: the floor of
// the demodulator of the SX127x. It is infinite for a spreading factor that is none.
func snrNeeded(sf, bandwidth int) float64 {
	if sf < 7 || sf > 12 {
		return math.Inf(1)
	}
	return -7.5 - 2.5*float64(sf-7) + 10*math.Log10(float64(bandwidth)/125e3) + margin
}
