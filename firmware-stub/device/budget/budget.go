// Package budget answers whether an update fits a device: its RAM, its flash beside the slots, and how often they
// may be erased. It knows the layout rules of the device library (firmware-stub/src) and nothing of a device but
// the [Layout] that its integrator wrote down.
//
// The package is pure. It does not judge whether the update is meant for the device.
package budget

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/sower-fuota/sower/bundle"
)

// ErrLayout is returned by [ParseLayout] for a layout that the device library would refuse.
var ErrLayout = errors.New("budget: bad layout")

// Layout is what an integrator gives the library, without addresses. All sizes are in bytes.
type Layout struct {
	Page     int `toml:"page"`    // smallest erasable unit, a power of two, 128..8192
	Granule  int `toml:"granule"` // smallest programmable unit: 1, 2, 4, 8 or 16
	Slot     int `toml:"slot"`    // of slot A and of slot B
	Download int `toml:"download"`
	Journal  int `toml:"journal"`
	Boot     int `toml:"boot"`
	Scratch  int `toml:"scratch"`
	Arena    int `toml:"arena"` // RAM given to sow_open
	Stack    int `toml:"stack"` // below the caller of the library, interrupts not counted; default 1536

	Fragment    int     `toml:"fragment"`     // fragment size that is planned for; default 48
	Loss        float64 `toml:"loss"`         // share of the uncoded fragments that a device may lose; default 0.30
	EraseCycles int     `toml:"erase_cycles"` // that the flash endures; default 10000
	Updates     int     `toml:"updates"`      // that the device is to take in its life; default 100
}

// What the library needs of every device, whatever the session (firmware-stub/src/sow_core_private.h).
const (
	journalArea   = 512 // bytes that half of the journal region must have
	bootArea      = 256 // bytes that half of the boot region must have
	spares        = 8   // slots that stand in for torn ones
	freezes       = 6   // records of the frozen columns
	marker        = 8   // bytes that end a slot
	journalRecord = 64  // bytes
	bootRecord    = 32  // bytes
	workState     = 160 // bytes for digests and the manifest that is being judged (SOW_SCRATCH)
	patchState    = 64  // struct sow_patch on a 32-bit device, to 8 bytes
	maxM          = 16383
	stack         = 1536 // deepest stack, software signature included: the gate of firmware-stub/test/size
)

// ParseLayout reads a LAYOUT.toml.
func ParseLayout(text []byte) (Layout, error) {
	l := Layout{Stack: stack, Fragment: 48, Loss: 0.30, EraseCycles: 10000, Updates: 100}
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&l); err != nil {
		var unknown *toml.StrictMissingError
		if errors.As(err, &unknown) {
			return Layout{}, fmt.Errorf("%w: unknown key %q", ErrLayout, strings.Join(unknown.Errors[0].Key(), "."))
		}
		return Layout{}, fmt.Errorf("%w: %w", ErrLayout, err)
	}
	return l, l.check()
}

func (l Layout) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrLayout, fmt.Sprintf(format, args...))
	}
	power := func(n int) bool { return n > 0 && n&(n-1) == 0 }
	switch {
	case !power(l.Page) || l.Page < 128 || l.Page > 8192:
		return bad("page = %d, want a power of two, 128 to 8192", l.Page)
	case !power(l.Granule) || l.Granule > 16:
		return bad("granule = %d, want 1, 2, 4, 8 or 16", l.Granule)
	case l.Fragment < 1 || l.Fragment > 255:
		return bad("fragment = %d, want 1 to 255", l.Fragment)
	case !(l.Loss >= 0 && l.Loss <= 1):
		return bad("loss = %v, want a share of 0 to 1", l.Loss)
	case l.EraseCycles < 1:
		return bad("erase_cycles = %d, want at least 1", l.EraseCycles)
	case l.Updates < 1:
		return bad("updates = %d, want at least 1", l.Updates)
	case l.Stack < 0:
		return bad("stack = %d, want the bytes of stack below the caller of the library", l.Stack)
	case l.Arena < 1:
		return bad("arena = %d, want the bytes of RAM given to sow_open", l.Arena)
	}
	for _, r := range []struct {
		name         string
		size, pages  int
		halfAtLeast  int
		halfOfRegion int
	}{
		{"slot", l.Slot, 1, 0, 0}, {"download", l.Download, 1, 0, 0}, {"scratch", l.Scratch, 1, 0, 0},
		{"journal", l.Journal, 2, journalArea, l.Journal / l.Page / 2 * l.Page},
		{"boot", l.Boot, 2, bootArea, l.Boot / l.Page / 2 * l.Page},
	} {
		if r.size%l.Page != 0 || r.size < r.pages*l.Page {
			return bad("%s = %d, want whole pages of %d, at least %d of them", r.name, r.size, l.Page, r.pages)
		}
		if r.halfOfRegion < r.halfAtLeast {
			return bad("%s = %d, want at least %d: two halves of whole pages, %d bytes each", r.name, r.size,
				2*align(r.halfAtLeast, l.Page), r.halfAtLeast)
		}
	}
	return nil
}

// Item is one thing that must fit.
type Item struct {
	Name   string
	Need   int    // bytes
	Have   int    // bytes
	Change string // what to change if it does not fit
}

// Fits reports whether there is enough.
func (i Item) Fits() bool { return i.Need <= i.Have }

// Report is the answer.
type Report struct {
	M      int // uncoded fragments
	Losses int // that were planned for
	Most   int // losses that the flash can hold rows for
	Items  []Item
	Erases []Wear // of one update
}

// Wear is how often the hardest-worn page of a region is erased by one update that is kept.
type Wear struct {
	Region  string
	Erases  int
	Updates int    // that the flash endures at this rate
	Want    int    // updates that the device is to take in its life
	Change  string // what to change if it does not endure them
}

// Fits reports whether the flash endures the updates of a life.
func (w Wear) Fits() bool { return w.Updates >= w.Want }

// Fits reports whether all of it fits.
func (r Report) Fits() bool {
	for _, i := range r.Items {
		if !i.Fits() {
			return false
		}
	}
	for _, w := range r.Erases {
		if !w.Fits() {
			return false
		}
	}
	return true
}

// Capacity is what a device can take, whatever the update. All but the counts are in bytes.
type Capacity struct {
	M       int // uncoded fragments of the largest block that it can receive, Losses of them lost; 0: none at all
	Losses  int
	Block   int // that is, with its manifest
	Image   int
	RAM     int // of a patch decoder
	Scratch int // of a patch decoder
	Stack   Item
}

// Limits answers what a layout can take at most.
func Limits(l Layout) (Capacity, error) {
	if err := l.check(); err != nil {
		return Capacity{}, err
	}
	c := Capacity{Image: l.Slot, RAM: max(l.Arena-patchState, 0), Scratch: l.Scratch, Stack: l.stack()}
	for m := maxM; m > 0; m-- {
		losses := l.losses(m)
		if _, room := l.rowsAt(m); arenaSize(m, l.Fragment, 0) <= l.Arena && downloadSize(m, l.Fragment, l) <= l.Download && rows(losses, l) <= room {
			c.M, c.Losses, c.Block = m, losses, m*l.Fragment
			break
		}
	}
	return c, nil
}

// Check answers whether a bundle of blockSize bytes with this manifest fits the layout.
func Check(m bundle.Manifest, blockSize int, l Layout) (Report, error) {
	if err := l.check(); err != nil {
		return Report{}, err
	}
	r := Report{M: (blockSize + l.Fragment - 1) / l.Fragment}
	if r.M > maxM {
		return Report{}, fmt.Errorf("budget: %d bytes are %d fragments of %d bytes, above the %d of TS004; use larger fragments",
			blockSize, r.M, l.Fragment, maxM)
	}
	r.Losses = l.losses(r.M)
	where, room := l.rowsAt(r.M)
	for r.Most < r.M && rows(r.Most+1, l) <= room {
		r.Most++
	}
	codec, codecScratch := 0, 0
	if m.Codec == bundle.CodecPatch {
		codec, codecScratch = int(m.RAM), int(m.Scratch)
	}
	arena := arenaSize(r.M, l.Fragment, 0)
	download := downloadSize(r.M, l.Fragment, l)
	r.Items = []Item{
		{"RAM to receive (arena)", arena, l.Arena, fmt.Sprintf("arena = %d, or larger fragments", arena)},
		{"flash to receive (download)", download, l.Download, fmt.Sprintf("download = %d, or a smaller patch", align(download, l.Page))},
		{fmt.Sprintf("losses, %d of %d (rows in %s)", r.Losses, r.M, where), rows(r.Losses, l), room,
			fmt.Sprintf("loss: at most %d of %d fragments, or a larger slot", r.Most, r.M)},
		{"new image (slot)", int(m.NewSize), l.Slot, fmt.Sprintf("slot = %d", align(int(m.NewSize), l.Page))},
		l.stack(),
	}
	if m.Codec == bundle.CodecPatch {
		ram := patchState + codec
		r.Items = append(r.Items,
			Item{"RAM to patch (arena)", ram, l.Arena, fmt.Sprintf("arena = %d, or diff with --ram %d", ram, max(l.Arena-patchState, 0))},
			Item{"scratch to patch (scratch)", codecScratch, l.Scratch,
				fmt.Sprintf("scratch = %d, or diff with --map flash:%d", align(codecScratch, l.Page), l.Scratch)},
			Item{"base image (slot)", int(m.BaseSize), l.Slot, fmt.Sprintf("slot = %d", align(int(m.BaseSize), l.Page))})
	}
	r.Erases = wear(int(max(m.NewSize, m.BaseSize)), codecScratch, l)
	return r, nil
}

// losses is how many of m uncoded fragments are planned to be lost.
func (l Layout) losses(m int) int { return int(l.Loss*float64(m) + 0.999) }

// rowsAt returns where the rows of a session of m fragments lie, and the bytes there: in slot B, or behind the
// fragments where a download region has room for any loss whatever.
func (l Layout) rowsAt(m int) (where string, room int) {
	if left := l.Download - align(downloadSize(m, l.Fragment, l), l.Page); rows(m, l) <= left {
		return "download", left
	}
	return "slot B", l.Slot
}

func (l Layout) stack() Item {
	return Item{"stack below the caller", stack, l.Stack, fmt.Sprintf("stack = %d, or a hardware verifier behind port.verify", stack)}
}

// wear counts the erases of an update that is received, written, swapped and confirmed. A second swap rolls back.
func wear(image, codecScratch int, l Layout) []Wear {
	swapped := (image + l.Page - 1) / l.Page
	turns := (swapped + l.Scratch/l.Page - 1) / (l.Scratch / l.Page)
	codec := 0
	if codecScratch > 0 {
		codec = 1
	}
	// What is written to the logs: the journal's record with each page of the new image and some times besides; the
	// stub's with each of the three copies that swap a page. Before a swap the stub has each half of its region erased
	// once or twice, to know that it works.
	const probe = 2
	toJournal, toBoot := (swapped+16)*journalRecord, (3*swapped+8)*bootRecord
	journal, boot := (toJournal+l.Journal-1)/l.Journal, probe+(toBoot+l.Boot-1)/l.Boot
	list := []Wear{
		{Region: "slot_a", Erases: 1}, {Region: "slot_b", Erases: 3}, {Region: "download", Erases: 1},
		{Region: "scratch", Erases: turns + codec}, {Region: "journal", Erases: journal}, {Region: "boot", Erases: boot},
	}
	for i := range list {
		w := &list[i]
		w.Want, w.Updates = l.Updates, l.EraseCycles/max(w.Erases, 1) // an empty image moves nothing
		w.Change = fmt.Sprintf("updates = %d, or flash that endures %d erases", w.Updates, w.Erases*w.Want)
		// A larger region of these three is worn less: what one update may take of each page of it.
		allowed := l.EraseCycles / l.Updates
		switch {
		case w.Region == "scratch" && allowed > codec:
			w.Change = fmt.Sprintf("scratch = %d, or %s", l.Page*((swapped+allowed-codec-1)/(allowed-codec)), w.Change)
		case w.Region == "journal" && allowed > 0:
			w.Change = fmt.Sprintf("journal = %d, or %s", align(toJournal/allowed+1, 2*l.Page), w.Change)
		case w.Region == "boot" && allowed > probe:
			w.Change = fmt.Sprintf("boot = %d, or %s", align(toBoot/(allowed-probe)+1, 2*l.Page), w.Change)
		}
	}
	return list
}

func align(n, to int) int { return (n + to - 1) / to * to }

// unit is what slots are padded to.
func (l Layout) unit() int { return max(l.Granule, 4) }

func bitmap(bits int) int { return align((bits+7)/8, 16) }

// arenaSize is sow_core_arena_size, on a 32-bit device.
func arenaSize(m, s, codec int) int {
	n := 2*bitmap(m) + max(bitmap(m)+align(s, 16), workState)
	if codec != 0 {
		n = max(n, patchState+codec)
	}
	return n
}

// slot is the flash of one fragment.
func slot(s int, l Layout) int { return align(s, l.unit()) + align(marker, l.unit()) }

// downloadSize is what a session needs of the download region.
func downloadSize(m, s int, l Layout) int {
	return freezes*(bitmap(m)+align(marker, l.unit())) + (m+spares)*slot(s, l)
}

// rows is what that many losses need of slot B.
func rows(lost int, l Layout) int {
	return (lost + spares) * (align((lost+7)/8, l.unit()) + slot(l.Fragment, l))
}
