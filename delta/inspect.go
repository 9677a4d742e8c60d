package delta

import (
	"fmt"
	"math"
)

// Report says what a stream holds and what decoding it takes. Costs are in bytes of stream.
type Report struct {
	Segments int
	Control  float64 // the segment map
	Flags    float64 // whether halfwords are as predicted
	Kinds    []Kind  // the rest, by kind of halfword
	Cycles   uint64  // of a Cortex-M4, an estimate
	Work     Work    // what they are spent on

	// New is the image that the stream makes. Costs has an entry for each halfword of it, the last
	// of them padded if its size is odd: flag and literal in 1/256 bit. Together they are Flags and
	// the Bytes of all Kinds. A profile without a model has no costs.
	New   []byte
	Costs []uint32
}

// Kind is what one kind of halfword costs.
type Kind struct {
	Name      string
	Halfwords int     // in the new image
	Literals  int     // of which coded as literals
	Bytes     float64 // cost of the literals
}

var classNames = [numClasses]string{
	classGap: "new", classPlain: "instructions and data",
	classBL1: "calls", classBL2: "calls, second halves", classLDR: "pool loads", classB: "branches",
	classPtr0: "pool pointers", classPtr1: "pointers, second halves", classPool0: "pool constants",
	classPool1: "pool constants, second halves",
	classData:  "pointers in data",
}

// Inspect decodes a stream and reports where its bytes went. Errors are those of [Decode].
func Inspect(p Params, old, stream []byte) (Report, error) {
	if p.Profile == profileStored {
		new, err := Decode(p, old, stream)
		return Report{New: new}, err
	}
	if err := p.check(old); err != nil {
		return Report{}, err
	}
	t := trace{halfword: make([]uint32, (p.NewSize+1)/2)}
	c, err := decode(p, old, stream, &t)
	if err != nil {
		return Report{}, err
	}
	const perByte = 8 * 256
	r := Report{Segments: len(c.am.segs), Control: float64(t.control) / perByte, Cycles: c.cycles(), Work: c.work(),
		New: c.new[:p.NewSize], Costs: t.halfword}
	for k := range numClasses {
		r.Flags += float64(t.flags[k]) / perByte
		if t.count[k] > 0 {
			n := t.misses[k]
			if k == classGap {
				n = t.count[k]
			}
			r.Kinds = append(r.Kinds, Kind{classNames[k], t.count[k], n, float64(t.literals[k]) / perByte})
		}
	}
	return r, nil
}

// position returns how much of the stream has been decoded in 1/256 bit: the bytes shifted in, less
// what the interval leaves open. cost takes 1/256 bit for a bit that is nearly certain, which adds
// up to more than the stream when the image is long and the patch short.
func (c *coder) position() uint64 {
	return uint64(256 * (8*float64(c.at) - math.Log2(float64(c.hi-c.lo)+1)))
}

// Describe returns the parameters in words.
func (p Params) Describe() string {
	if p.Profile == profileStored {
		return "stored"
	}
	arch, where := "generic", "flash"
	if p.Options&optionThumb != 0 {
		arch = fmt.Sprintf("Thumb at 0x%08x", p.LinkBase)
	}
	if k := p.Options & optionCapacity >> capacityShift; k != 0 {
		where = fmt.Sprintf("memory, %d segments", mapStep*int(k))
	}
	return fmt.Sprintf("profile %d, %s, window %d bytes, map in %s", p.Profile, arch, windowSize(p.Options), where)
}
