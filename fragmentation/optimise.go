package fragmentation

import (
	"math/bits"
	"math/rand/v2"
	"slices"
)

const (
	poolSize  = 2048          // parity fragments to choose from: the first that M has
	fleetSize = 1024          // synthetic devices that vote
	fleetLow  = fleetSize / 8 // and how few of them are still worth asking
)

// voter is a synthetic device that still misses something. Each vector is one direction in
// which its knowledge is incomplete, as the set of pool rows that would reveal it.
type voter struct {
	loss    Bernoulli
	reveals [][]uint64
}

// receive takes pool row c: of the directions it reveals, one is settled, and the others are
// replaced by their sums with that one, which c does not reveal.
func (v *voter) receive(c int) {
	w, bit := c>>6, uint64(1)<<(c&63)
	settled := -1
	for i, r := range v.reveals {
		switch {
		case r[w]&bit == 0:
		case settled < 0:
			settled = i
		default:
			for k, x := range v.reveals[settled] {
				r[k] ^= x
			}
		}
	}
	if settled >= 0 {
		last := len(v.reveals) - 1
		v.reveals[settled] = v.reveals[last]
		v.reveals = v.reveals[:last]
	}
}

// arrives draws whether one fragment reaches the device.
func (v *voter) arrives(src rand.Source) bool { return v.loss.word(src)&1 == 0 }

// tally counts votes for every pool row at once: bit c of plane i is bit i of row c's count.
type tally [11][poolSize / 64]uint64

func (t *tally) add(votes []uint64) {
	for w, carry := range votes {
		for i := 0; carry != 0 && i < len(t); i++ {
			t[i][w], carry = t[i][w]^carry, t[i][w]&carry
		}
	}
}

// best returns the row with most votes out of those left, the lowest if there are several, or
// -1 if none is left.
func (t *tally) best(left []uint64) int {
	var set, next [poolSize / 64]uint64
	copy(set[:], left)
	for i := len(t) - 1; i >= 0; i-- {
		some := uint64(0)
		for w := range set {
			next[w] = set[w] & t[i][w]
			some |= next[w]
		}
		if some != 0 {
			set = next
		}
	}
	for w, v := range set {
		if v != 0 {
			return w<<6 + bits.TrailingZeros64(v)
		}
	}
	return -1
}

// optimiser picks parity fragments one at a time, each of them the one that tells something
// new to most devices of a synthetic fleet. A pick never depends on how many will follow.
type optimiser struct {
	pool    *Code
	columns []uint64 // for each uncoded fragment the pool rows that it is in
	left    []uint64 // pool rows not picked yet
	picks   []int    // pool rows in the order picked
	fleet   []*voter
	loss    float64 // of the next devices drawn
	src     rand.Source
}

func newOptimiser(m int, matrix Matrix, p float64) (*optimiser, error) {
	pool, err := NewCode(m, matrix, Sequence(m, poolSize))
	if err != nil {
		return nil, err
	}
	o := &optimiser{pool: pool, left: make([]uint64, pool.words), loss: p, src: rand.NewPCG(1001, 23)}
	for c := range pool.indices {
		o.left[c>>6] |= 1 << (c & 63)
	}
	for j := range m {
		for t := range pool.words {
			o.columns = append(o.columns, pool.cols[t*m+j])
		}
	}
	return o, nil
}

// next picks one more parity fragment and returns its number, or 0 when the pool is empty.
func (o *optimiser) next() int {
	if len(o.fleet) < fleetLow {
		o.recruit()
	}
	var votes tally
	want := make([]uint64, o.pool.words)
	for _, v := range o.fleet {
		clear(want)
		for _, r := range v.reveals {
			for w, x := range r {
				want[w] |= x
			}
		}
		votes.add(want)
	}
	c := votes.best(o.left)
	if c < 0 {
		return 0
	}
	o.left[c>>6] &^= 1 << (c & 63)
	o.picks = append(o.picks, c)
	still := o.fleet[:0]
	for _, v := range o.fleet {
		if v.arrives(o.src) {
			v.receive(c)
		}
		if len(v.reveals) > 0 {
			still = append(still, v)
		}
	}
	o.fleet = still
	return o.pool.indices[c]
}

// recruit fills the fleet up with devices that the picks so far leave incomplete. Those are
// rare at the loss of the last draw, and the later part of a list serves worse devices anyway:
// so each draw has half as much loss again.
func (o *optimiser) recruit() {
	lost := NewBitset(o.pool.m)
	loss := NewBernoulli(o.loss)
	v := &voter{loss: loss}
	var rows []uint64 // of v
	for try := 0; try < 8*fleetSize && len(o.fleet) < fleetSize; try++ {
		v.loss.Fill(lost, o.src)
		rows = rows[:0]
		for j := range o.pool.m {
			if lost.Has(j) {
				rows = append(rows, o.columns[j*o.pool.words:][:o.pool.words]...)
			}
		}
		v.reveals = slices.AppendSeq(v.reveals[:0], slices.Chunk(rows, o.pool.words))
		for _, c := range o.picks {
			if len(v.reveals) == 0 {
				break
			}
			if v.arrives(o.src) {
				v.receive(c)
			}
		}
		if len(v.reveals) > 0 {
			rest := &voter{loss: loss, reveals: make([][]uint64, len(v.reveals))}
			for i, r := range v.reveals {
				rest.reveals[i] = slices.Clone(r)
			}
			o.fleet = append(o.fleet, rest)
		}
	}
	o.loss = min(1.5*o.loss, 0.5)
}
