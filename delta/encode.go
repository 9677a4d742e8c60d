package delta

import (
	"bytes"
	"errors"
	"fmt"
)

// defaultRAM is the device memory assumed when Options.RAM is 0, in bytes.
const defaultRAM = 16384

// DefaultCycles is the decode budget of a small patch when Options.Cycles is 0: 15 s of an 80 MHz
// Cortex-M4. It grows with the patch, which takes longer to receive too: by cyclesPerByte of
// stream, up to four times as much.
const (
	DefaultCycles = 15 * 80_000_000
	cyclesPerByte = 75_000
)

// MaxCycles is the most that a patch may take a Cortex-M4: 14 minutes at 80 MHz.
const MaxCycles = 1 << 36

// defaultWindow is the scan window tried first, as a value of optionWindow.
const defaultWindow = 4

// profileRAM is the memory of sow_patch with the map in flash, in bytes: struct sow_patch and its
// work memory on a 32-bit device. A test compares it with the compiled decoder.
var profileRAM = [...]uint32{profileStored: 256, profile5: 5120, profile8: 6144, profile16: 7936}

// layout is a way to use the device's memory.
type layout struct {
	profile uint8
	mapCode uint8 // value of optionCapacity
	limit   int   // segments
	ram     uint32
}

// layouts returns the ways that fit the device, the most promising first.
func layouts(o Options) ([]layout, error) {
	ram := o.RAM
	if ram == 0 {
		ram = defaultRAM
	}
	var l []layout
	for p := uint8(profile16); p >= profile5; p-- {
		if profileRAM[p] > ram {
			continue
		}
		if o.Map == MapFlash {
			limit := 65535 * 64
			if o.MapBytes != 0 {
				limit = min(limit, int(o.MapBytes)&^63)
			}
			l = append(l, layout{p, 0, limit / mapEntry, profileRAM[p]})
			continue
		}
		for k := uint8(7); k > 0; k-- {
			if need := profileRAM[p] + mapEntry*mapStep*uint32(k); need <= ram {
				l = append(l, layout{p, k << capacityShift, mapStep * int(k), (need + 255) &^ 255})
				break
			}
		}
	}
	if len(l) == 0 && ram < profileRAM[profileStored] {
		return nil, fmt.Errorf("%w: %d bytes of memory, the smallest profile needs %d", ErrBudget, ram, profileRAM[profileStored])
	}
	return l, nil
}

// search is one call of Encode.
type search struct {
	o        Options
	old, new []byte // new is padded to an even size
	params   Params // of the best patch so far
	stream   []byte
	done     int
	total    int
}

func (s *search) step() {
	s.done++
	if s.o.Progress != nil {
		s.o.Progress(min(s.done, s.total), s.total)
	}
}

// budget is the cycles a device may spend on a stream of n bytes.
func (s *search) budget(n int) uint64 {
	if s.o.Cycles != 0 {
		return min(s.o.Cycles, MaxCycles)
	}
	return min(max(DefaultCycles, uint64(n)*cyclesPerByte), 4*DefaultCycles)
}

// try encodes with p and segs and the largest scan window that the budget allows, and keeps the
// result if it is the smallest yet. It reports whether any window does.
func (s *search) try(p Params, segs []segment) (fits bool, err error) {
	for w, step := defaultWindow, 0; w >= 0 && w <= optionWindow; w += step {
		p.Options = p.Options&^optionWindow | uint8(w)
		c := newCodec(p, s.old, bytes.Clone(s.new), newEncoder())
		c.most = s.budget(MaxImage) // for no stream there is more
		err := c.run(segs, 1<<30)
		if err != nil && !errors.Is(err, errCycles) {
			return false, err
		}
		stream := c.rc.finish()
		left := int64(s.budget(len(stream)) - c.cycles())
		if left >= 0 {
			fits = true
			if len(stream) < len(s.stream) {
				s.params, s.stream = p, stream
			}
		}
		switch {
		case left >= 0 && step >= 0 && scanCycles*int64(c.work().Scanned) <= left:
			step = 1 // a window twice as large takes twice the time
		case left < 0 && step <= 0:
			step = -1
		default:
			return fits, nil
		}
	}
	return fits, nil
}

// arch looks for patches with one architecture.
func (s *search) arch(p Params, layouts []layout) error {
	thumb := p.Options&optionThumb != 0
	p.Profile = layouts[0].profile
	// What does each halfword cost without any source?
	q := p
	q.Options |= 1
	t := trace{halfword: make([]uint32, len(s.new)/2)}
	c := newCodec(q, s.old, bytes.Clone(s.new), newEncoder())
	c.trace = &t
	if err := c.run(nil, 0); err != nil {
		return err
	}
	s.step()
	literal := make([]int32, len(t.halfword))
	for i, v := range t.halfword {
		literal[i] = int32(v/16)*6/10 + 40
	}
	a := newAligner(s.old, s.new, p.LinkBase, thumb, !thumb || len(s.old) == 0)
	for _, l := range layouts {
		segs := a.fit(literal, l.limit)
		s.step()
		p.Profile, p.RAMBytes = l.profile, l.ram
		p.Options = p.Options&optionThumb | l.mapCode
		p.ScratchBytes = 0
		if l.mapCode == 0 {
			p.ScratchBytes = uint32(len(segs)*mapEntry+63) &^ 63
		}
		fits, err := s.try(p, segs)
		if err != nil {
			return err
		}
		s.step()
		if fits && l.mapCode == 0 {
			return nil // a smaller profile would not be better
		}
	}
	return nil
}

// segmentCost is what a segment costs in 1/16 bit.
const segmentCost = 560

// fit returns the best alignment that has at most limit segments.
func (a *aligner) fit(literal []int32, limit int) []segment {
	segs := a.align(literal, segmentCost)
	low, high := segmentCost, segmentCost
	var best []segment
	for len(segs) > limit && high < 1<<20 { // dearer segments are fewer
		low, high = high, high*2
		segs = a.align(literal, high)
	}
	if len(segs) <= limit {
		best = segs
	}
	for high-low > low/16 {
		middle := (low + high) / 2
		if segs = a.align(literal, middle); len(segs) <= limit {
			best, high = segs, middle
		} else {
			low = middle
		}
	}
	return best
}

// work returns what the run that has just ended would have cost a device.
func (c *codec) work() Work {
	w := c.literal.work
	w.Halfwords, w.Lookups = uint64(len(c.new)/2), c.am.lookups
	return w
}

// scanCycles is what it costs a device to look at an offset.
const scanCycles = 12

// cycles estimates the Cortex-M4 cycles of the run that has just ended. The factors are fitted to
// counts of delta/internal/cycles.
func (c *codec) cycles() uint64 {
	w := c.work()
	return 1150*w.Halfwords + 9800*w.Literals + scanCycles*w.Scanned + 57*w.Folded + 28*w.Journal + 45*w.Lookups
}
