package delta

import (
	"encoding/binary"
	"slices"
)

// Costs of the alignment in 1/16 bit.
const (
	costEqual    = 1   // a halfword equal to its source
	costAddress  = 6   // a byte that differs where an address was masked out
	costMismatch = 136 // a byte that differs
	costOutside  = 960 // a halfword whose source does not exist
	costLeave    = 16  // to end a segment
	costSegment  = 96  // part of the switch cost that short jumps save
	costJump     = 224 // most that a long jump costs more than a short one
	costKeep     = 544 // a state this much worse than the best plus a switch is dropped
)

const (
	alignStates     = 40  // shifts kept alive
	alignChain      = 200 // old positions looked at for one seed
	alignCandidates = 4   // of which the longest matches are tried
	alignSeed       = 6   // bytes
	alignEnough     = 24  // bytes ahead that agree and make other candidates pointless
	alignLongest    = 400 // matches are not measured beyond this
	noShift         = int32(-1 << 30)
)

// aligner finds segments by dynamic programming over the shifts that are worth following.
type aligner struct {
	source, new             []byte // old image, then the new one; padded new image
	maskedSource, maskedNew []byte
	old                     int // size of the old image
	head, next              []int32
}

// newAligner indexes the images. With self, the new image's own past is a source too.
func newAligner(old, new []byte, base uint32, thumb, self bool) *aligner {
	a := &aligner{source: old, new: new, maskedSource: old, maskedNew: new, old: len(old)}
	if thumb {
		a.maskedSource, a.maskedNew = maskAddresses(old, base), maskAddresses(new, base)
	}
	if self {
		a.source = slices.Concat(old, new)
		a.maskedSource = slices.Concat(a.maskedSource, new)
	}
	a.head = make([]int32, 1<<seedBits)
	a.next = make([]int32, len(a.source))
	for i := len(a.source) - alignSeed; i >= 0; i-- {
		if i < a.old && i+alignSeed > a.old {
			continue
		}
		h := seedHash(a.maskedSource[i:])
		a.next[i], a.head[h] = a.head[h], int32(i)+1
	}
	return a
}

const seedBits = 18

func seedHash(b []byte) uint32 {
	v := uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint16(b[4:]))<<32
	return uint32(v * 0x9E3779B97F4A7C15 >> (64 - seedBits))
}

// maskAddresses returns a copy of Thumb code with everything replaced that depends on where code
// and data lie, so that equal code compares equal after it moved.
func maskAddresses(d []byte, base uint32) []byte {
	m := slices.Clone(d)
	for i := 0; i+4 <= len(d); i += 2 {
		a, b := half(d, i), half(d, i+2)
		switch {
		case isBL(a, b) || isBW(a, b):
			binary.LittleEndian.PutUint32(m[i:], 0xf000|b&0xd000<<16)
			i += 2
		case isLDR(a):
			m[i] = 0
		}
	}
	for i := 0; i+4 <= len(d); i += 4 {
		v := binary.LittleEndian.Uint32(d[i:])
		switch {
		case v-base < uint32(len(d))+1<<16:
			binary.LittleEndian.PutUint32(m[i:], 0x44332211)
		case v>>18 == 0x20000000>>18 && v&0xffff < 0x8000:
			m[i], m[i+1] = 0, 0
		}
	}
	return m
}

// alignState is the cheapest way to arrive at a halfword while copying with a shift, or with none.
type alignState struct {
	alignNode
	cost int32
	last int32 // shift of the latest segment
	node int32 // alignNode among the nodes, or -1 while no other way goes through it
}

// alignNode is the start of a stretch with one shift; prev is the node before it, or -1.
type alignNode struct{ start, shift, prev int32 }

func newState(start, shift, prev, cost, last int32) alignState {
	return alignState{alignNode{start, shift, prev}, cost, last, -1}
}

type alignment struct {
	*aligner
	states []alignState
	nodes  []alignNode
	change int32 // cost of a segment
}

// align returns the segments. literal is the cost of each halfword without a source, change the
// cost of one segment, both in 1/16 bit.
func (a *aligner) align(literal []int32, change int) []segment {
	d := &alignment{aligner: a, change: int32(change)}
	d.states = append(d.states, newState(0, noShift, -1, 0, 0))
	if a.old > 0 {
		d.enter(0, 0)
	}
	for i := 0; i < len(a.new); i += 2 {
		if b := d.states[d.best()]; b.shift == noShift || d.agree(i, i+int(b.shift), alignEnough) < alignEnough {
			d.seed(i)
		}
		d.relax(i)
		best := int32(1 << 30)
		for k := range d.states {
			s := &d.states[k]
			if s.shift == noShift {
				s.cost += literal[i/2]
			} else {
				s.cost += d.emission(i, i+int(s.shift))
			}
			best = min(best, s.cost)
		}
		if i&14 == 0 {
			d.states = slices.DeleteFunc(d.states, func(s alignState) bool {
				return s.shift != noShift && s.cost >= best+d.change+costKeep
			})
			for k := range d.states {
				d.states[k].cost -= best
			}
		}
	}
	return d.trace(int(d.node(d.best())))
}

// best returns the index of the cheapest state.
func (d *alignment) best() int {
	b := 0
	for k := range d.states {
		if d.states[k].cost < d.states[b].cost {
			b = k
		}
	}
	return b
}

// agree returns how many bytes, limit at most, the masked images share from new i and source o.
func (a *aligner) agree(i, o, limit int) int {
	if o < 0 {
		return 0
	}
	limit = min(limit, len(a.maskedNew)-i)
	if o < a.old {
		limit = min(limit, a.old-o)
	} else {
		limit = min(limit, len(a.source)-o)
	}
	for n := range limit {
		if a.maskedNew[i+n] != a.maskedSource[o+n] {
			return n
		}
	}
	return max(limit, 0)
}

// emission returns the cost of new halfword i copied from source o.
func (a *aligner) emission(i, o int) int32 {
	if o < 0 || o+2 > len(a.source) || o < a.old && o+2 > a.old || o >= a.old && o+2 > a.old+i {
		return costOutside
	}
	c := int32(0)
	for k := range 2 {
		switch {
		case o < a.old && a.maskedNew[i+k] != a.maskedSource[o+k], o >= a.old && a.new[i+k] != a.source[o+k]:
			c += costMismatch
		case a.new[i+k] != a.source[o+k]:
			c += costAddress
		}
	}
	return max(c, costEqual)
}

// seed enters the shifts of the longest matches that begin at new offset i.
func (d *alignment) seed(i int) {
	if i+alignSeed > len(d.new) {
		return
	}
	type match struct{ length, at int }
	var top [alignCandidates]match
	n := 0
	p := int(d.head[seedHash(d.maskedNew[i:])]) - 1
	for k := 0; p >= 0 && k < alignChain; k++ {
		at := p
		p = int(d.next[p]) - 1
		if at >= d.old && at-d.old+2 > i {
			break
		}
		l := d.agree(i, at, alignLongest)
		if l < alignSeed {
			continue
		}
		// A match that began earlier has been entered already, except now and then.
		if i&14 != 0 && at > 1 && d.maskedNew[i-1] == d.maskedSource[at-1] && d.maskedNew[i-2] == d.maskedSource[at-2] {
			continue
		}
		j := n
		if n < len(top) {
			n++
		} else if j--; top[j].length >= l {
			continue
		}
		for ; j > 0 && top[j-1].length < l; j-- {
			top[j] = top[j-1]
		}
		top[j] = match{l, at}
	}
	for _, m := range top[:n] {
		d.enter(i, int32(m.at-i))
	}
}

// switchTo returns what it costs to go on with another shift.
func (d *alignment) switchTo(s *alignState, shift int32) int32 {
	return s.cost + d.change - costSegment + min(costJump, int32(log2x16(int(shift-s.last))*9/10))
}

// enter opens a state at new offset i, from the state that makes it cheapest.
func (d *alignment) enter(i int, shift int32) {
	from, have := -1, -1
	cost := int32(1 << 30)
	for k := range d.states {
		s := &d.states[k]
		if s.shift == shift {
			have = k
		} else if c := d.switchTo(s, shift); c < cost {
			from, cost = k, c
		}
	}
	if from < 0 || have >= 0 && d.states[have].cost <= cost {
		return
	}
	s := newState(int32(i), shift, d.node(from), cost, shift)
	switch {
	case have >= 0:
		d.states[have] = s
	case len(d.states) < alignStates:
		d.states = append(d.states, s)
	default:
		worst := -1
		for k := range d.states {
			if d.states[k].shift != noShift && (worst < 0 || d.states[k].cost > d.states[worst].cost) {
				worst = k
			}
		}
		if d.states[worst].cost > cost {
			d.states[worst] = s
		}
	}
}

// node returns the node of state k.
func (d *alignment) node(k int) int32 {
	s := &d.states[k]
	if s.node < 0 {
		s.node = int32(len(d.nodes))
		d.nodes = append(d.nodes, s.alignNode)
	}
	return s.node
}

// relax lets every state be reached from the best one.
func (d *alignment) relax(i int) {
	b := d.best()
	from := d.states[b]
	for k := range d.states {
		s := &d.states[k]
		if k == b {
			continue
		}
		cost, last := from.cost+costLeave, from.last
		if s.shift != noShift {
			cost, last = d.switchTo(&from, s.shift), s.shift
		}
		if cost < s.cost {
			*s = newState(int32(i), s.shift, d.node(b), cost, last)
		}
	}
}

// trace collects the segments on the way to a node, cut to what the format allows.
func (d *alignment) trace(node int) []segment {
	var segs []segment
	end := len(d.new)
	for ; node >= 0; node = int(d.nodes[node].prev) {
		n := d.nodes[node]
		if int(n.start) >= end {
			continue
		}
		if n.shift != noShift {
			segs = append(segs, segment{int(n.start), end - int(n.start), int(n.start + n.shift)})
		}
		end = int(n.start)
	}
	slices.Reverse(segs)
	var out []segment
	for _, s := range segs {
		if s.from < 0 {
			cut := (1 - s.from) &^ 1
			s.start, s.length, s.from = s.start+cut, s.length-cut, s.from+cut
		}
		limit := d.old
		if s.from >= d.old {
			limit = len(d.source)
			if s.from+2 > d.old+s.start {
				continue
			}
		}
		s.length = min(s.length, max(0, limit-s.from)&^1)
		if k := len(out) - 1; k >= 0 && out[k].end() == s.start && out[k].shift() == s.shift() &&
			(out[k].from < d.old) == (s.from < d.old) {
			out[k].length += s.length
			continue
		}
		for ; s.length > maxSegment; s.start, s.length, s.from = s.start+maxSegment, s.length-maxSegment, s.from+maxSegment {
			out = append(out, segment{s.start, maxSegment, s.from})
		}
		if s.length > 0 {
			out = append(out, s)
		}
	}
	return out
}
