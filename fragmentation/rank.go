package fragmentation

import (
	"fmt"
	"math/bits"
)

// Code is one transmission plan as rank-only decoding sees it: the M uncoded fragments in
// order, followed by a list of further fragments. It holds the columns of the matrix over
// that list (M*R/8 bytes) and never changes, so any number of goroutines may share it.
type Code struct {
	m       int
	matrix  Matrix
	indices []int
	words   int      // words(len(indices))
	cols    []uint64 // bit i%64 of cols[i/64*m+j]: fragment indices[i] contains uncoded fragment j+1
}

// NewCode prepares the plan "1..m, then the fragments indices". An index may be any fragment
// number, in any order, more than once; an uncoded one stands for its repetition. [Sequence]
// gives the ordinary list.
func NewCode(m int, matrix Matrix, indices []int) (*Code, error) {
	g, err := newGenerator(m, matrix)
	if err != nil {
		return nil, err
	}
	c := &Code{m: m, matrix: matrix, indices: append([]int(nil), indices...), words: words(len(indices))}
	c.cols = make([]uint64, c.words*m)
	row := NewBitset(m)
	for i, n := range indices {
		if err := checkIndex(n); err != nil {
			return nil, fmt.Errorf("entry %d of the list: %w", i, err)
		}
		g.row(row, n)
		col := c.cols[i>>6*m:][:m]
		for w, v := range row {
			for ; v != 0; v &= v - 1 {
				col[w<<6+bits.TrailingZeros64(v)] |= 1 << (i & 63)
			}
		}
	}
	return c, nil
}

// Sequence returns the parity fragments m+1..m+parity, or as many of them as TS004 can number.
func Sequence(m, parity int) []int {
	list := make([]int, 0, max(0, min(parity, MaxIndex-m)))
	for n := m + 1; len(list) < cap(list); n++ {
		list = append(list, n)
	}
	return list
}

// M returns the number of uncoded fragments.
func (c *Code) M() int { return c.m }

// Matrix returns the parity matrix.
func (c *Code) Matrix() Matrix { return c.matrix }

// Indices returns a copy of the list that follows the uncoded fragments.
func (c *Code) Indices() []int { return append([]int(nil), c.indices...) }

// Len returns the number of fragments of the whole transmission, M included.
func (c *Code) Len() int { return c.m + len(c.indices) }

// RankDecoder tells when a device would complete, without any payload. It is exact: a
// [Decoder] that is given the same fragments completes at the same one. It reuses its memory
// and is for one goroutine at a time.
//
// The work is one elimination over the columns that the device lost, as vectors over the
// parity list, each cut down to what the device received. Reduced so that every vector starts
// at a row of its own, those starting rows are the rank profile: the parity fragments at which
// the rank rises. So the answer for every shorter transmission comes with the longest.
type RankDecoder struct {
	code     *Code
	received []uint64 // of the list, one bit each
	lost     []int    // uncoded fragments lost, columns
	work     []uint64 // word t of lost column k is work[t*len(lost)+k]
	mask     []uint64
	leads    []uint64 // rows at which a column starts
	profile  []int
}

// NewRankDecoder returns a rank-only decoder for the plan.
func NewRankDecoder(code *Code) *RankDecoder {
	return &RankDecoder{
		code:     code,
		received: make([]uint64, code.words),
		lost:     make([]int, 0, code.m),
		mask:     make([]uint64, code.m),
		leads:    make([]uint64, code.words),
	}
}

// Complete returns after how many transmitted fragments the block is complete, from M (no
// uncoded fragment lost) to [Code.Len]. Bit i of lost says that the fragment transmitted as
// number i, counted from 0, did not arrive; fragments beyond the room of lost did not either.
// ok is false when the transmission does not suffice.
func (d *RankDecoder) Complete(lost Bitset) (sent int, ok bool) {
	d.load(lost)
	if len(d.lost) == 0 {
		return d.code.m, true
	}
	if !d.solve(true) {
		return 0, false
	}
	for w := len(d.leads) - 1; ; w-- {
		if v := d.leads[w]; v != 0 {
			return d.code.m + w<<6 + bits.Len64(v), true
		}
	}
}

// Profile returns, in ascending order, how many fragments had been transmitted each time
// parity raised the rank. The rank still missing after t >= M transmitted fragments is the
// number of uncoded fragments lost less the entries <= t; the block is complete at the last
// entry if there are as many as were lost. The slice is valid until the next call.
func (d *RankDecoder) Profile(lost Bitset) []int {
	d.load(lost)
	d.solve(false)
	d.profile = d.profile[:0]
	for w, v := range d.leads {
		for ; v != 0; v &= v - 1 {
			d.profile = append(d.profile, d.code.m+w<<6+bits.TrailingZeros64(v)+1)
		}
	}
	return d.profile
}

// Lost returns how many uncoded fragments the device of the last call lost.
func (d *RankDecoder) Lost() int { return len(d.lost) }

// load splits the loss bitmap into lost columns and received list entries.
func (d *RankDecoder) load(lost Bitset) {
	m := d.code.m
	d.lost = d.lost[:0]
	for base := 0; base < m; base += 64 {
		v := ^uint64(0)
		if base>>6 < len(lost) {
			v = lost[base>>6]
		}
		if m-base < 64 {
			v &= 1<<(m-base) - 1
		}
		for ; v != 0; v &= v - 1 {
			d.lost = append(d.lost, base+bits.TrailingZeros64(v))
		}
	}
	at, shift := m>>6, uint(m&63)
	for w := range d.received {
		low, high := ^uint64(0), ^uint64(0)
		if at+w < len(lost) {
			low = lost[at+w]
		}
		if at+w+1 < len(lost) {
			high = lost[at+w+1]
		}
		d.received[w] = ^(low>>shift | high<<(64-shift)) // a shift by 64 yields 0
	}
	if r := len(d.code.indices) & 63; r != 0 {
		d.received[len(d.received)-1] &= 1<<r - 1
	}
}

// solve finds the rows at which the lost columns start. It reports whether every column has
// one; with early set it may give up as soon as one has none, leaving leads incomplete.
func (d *RankDecoder) solve(early bool) bool {
	// A device with L losses nearly always completes within L+8 received rows, so first only
	// the words that hold those are worked on. The rest cannot change an answer found there.
	total := len(d.received)
	got, w := 0, 0
	for ; w < total && got < len(d.lost)+8; w++ {
		got += bits.OnesCount64(d.received[w])
	}
	if got < len(d.lost) && early {
		return false
	}
	if w < total && d.eliminate(w, true) {
		return true
	}
	return d.eliminate(total, early)
}

// eliminate is solve over the first w words of rows.
func (d *RankDecoder) eliminate(w int, early bool) bool {
	n := len(d.lost)
	if cap(d.work) < n*w {
		d.work = make([]uint64, n*w)
	}
	work := d.work[:n*w]
	for t := range w {
		recv, col, dst := d.received[t], d.code.cols[t*d.code.m:][:d.code.m], work[t*n:][:n]
		for k, j := range d.lost {
			dst[k] = col[j] & recv
		}
	}
	clear(d.leads)
	full := true
	for k := range n {
		t := 0
		for t < w && work[t*n+k] == 0 {
			t++
		}
		if t == w {
			if full = false; early {
				return false
			}
			continue
		}
		// Clear row p from the columns still to come. Whether a column has it is a coin flip,
		// which no branch predictor wins; so the flip is turned into a mask.
		v := work[t*n+k]
		p := bits.TrailingZeros64(v)
		d.leads[t] |= v & -v
		rest := work[t*n+k+1 : (t+1)*n]
		if t+1 == w {
			table := [2]uint64{0, v}
			for j, x := range rest {
				rest[j] = x ^ table[x>>(p&63)&1]
			}
			continue
		}
		mask := d.mask[:len(rest)]
		for j, x := range rest {
			flip := -(x >> (p & 63) & 1)
			mask[j] = flip
			rest[j] = x ^ v&flip
		}
		for t++; t < w; t++ {
			v, rest := work[t*n+k], work[t*n+k+1:(t+1)*n]
			for j, flip := range mask[:len(rest)] {
				rest[j] ^= v & flip
			}
		}
	}
	return full
}
