package fragmentation

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"math/bits"
)

var (
	// ErrSize is returned when a fragment is not exactly as long as the session says.
	ErrSize = errors.New("fragmentation: wrong fragment length")
	// ErrConflict is returned when a fragment contradicts those received before: the same
	// number with other data, or data that no block could explain together with the rest, as
	// when another session, another matrix or a corrupted fragment slipped in.
	ErrConflict = errors.New("fragmentation: fragment contradicts those received before")
	// ErrNeedMore is returned by [Decoder.Block] until the fragments received span the block.
	ErrNeedMore = errors.New("fragmentation: need more fragments")
)

// Decoder restores a block from fragments in any order: gaps, duplicates, uncoded fragments
// after parity and parity alone are all welcome. It keeps every bit of information it is
// given, so it completes at the earliest fragment at which completion is possible.
//
// Memory is M*(FragSize+25) bytes from the start, and M/8 bytes for each parity fragment that
// currently stands in for a missing uncoded one, never more of them than fragments are missing.
// At the limits of TS004 that is 4.6 MB for M = 16383, which leaves no parity, and 12 MB at most, for
// M near 9300 and parity alone. Nothing an input can hold makes it grow further.
//
// A Decoder is for one goroutine at a time.
type Decoder struct {
	gen  generator
	size int
	// slots holds, for each column, the data of the fragment that is its pivot: the uncoded
	// fragment itself, or a combination of fragments whose lowest column it is.
	slots   []byte
	known   Bitset     // columns whose slot is final: the uncoded fragment itself
	coded   [][]uint64 // per column, the matrix row of a pivot that is a combination, else nil
	missing int        // columns without a pivot
	row     []uint64   // scratch, words(M)
	data    []byte     // scratch, size
}

// NewDecoder returns a decoder for a session of m uncoded fragments of fragSize bytes.
func NewDecoder(m, fragSize int, matrix Matrix) (*Decoder, error) {
	g, err := newGenerator(m, matrix)
	if err != nil {
		return nil, err
	}
	if err := checkSize(fragSize); err != nil {
		return nil, err
	}
	return &Decoder{
		gen:     g,
		size:    fragSize,
		slots:   make([]byte, m*fragSize),
		known:   NewBitset(m),
		coded:   make([][]uint64, m),
		missing: m,
		row:     make([]uint64, words(m)),
		data:    make([]byte, fragSize),
	}, nil
}

// Add takes fragment n, 1..[MaxIndex], whose data is copied. It reports whether the block is
// complete. A fragment that adds nothing new is checked against the others and is no error.
// After any error (ErrIndex, ErrSize, ErrConflict) the decoder is as it was before the call.
func (d *Decoder) Add(n int, data []byte) (done bool, err error) {
	if err := checkIndex(n); err != nil {
		return d.Done(), err
	}
	if len(data) != d.size {
		return d.Done(), fmt.Errorf("%w: fragment %d has %d bytes, want %d", ErrSize, n, len(data), d.size)
	}
	copy(d.data, data)
	d.gen.row(d.row, n)
	pivot := d.reduce()
	if pivot < 0 {
		if !zero(d.data) {
			return d.Done(), fmt.Errorf("%w: fragment %d", ErrConflict, n)
		}
		return d.Done(), nil
	}
	if n <= d.gen.m && pivot != n-1 {
		// The combination that stood in for this late uncoded fragment moved on to another
		// column; what reduce left in the scratch is that combination less the fragment.
		d.coded[pivot], d.coded[n-1] = d.coded[n-1], nil
		copy(d.coded[pivot], d.row)
		copy(d.slot(pivot), d.data)
		pivot = n - 1
	} else if n > d.gen.m {
		d.coded[pivot] = append([]uint64(nil), d.row...)
	}
	if n <= d.gen.m {
		copy(d.slot(pivot), data)
		d.known.Set(pivot)
	} else {
		copy(d.slot(pivot), d.data)
	}
	d.missing--
	if d.missing == 0 {
		d.solve()
	}
	return d.Done(), nil
}

// reduce eliminates from the scratch every column that has a pivot, in ascending order, until
// it meets one that has none, and returns that; or -1 when nothing of the row is left.
func (d *Decoder) reduce() int {
	for w := range d.row {
		for d.row[w] != 0 {
			c := w<<6 + bits.TrailingZeros64(d.row[w])
			switch {
			case d.known.Has(c):
				d.row[w] &= d.row[w] - 1
			case d.coded[c] != nil:
				// A pivot row is empty below its own column, so nothing below c comes back.
				for i, v := range d.coded[c][w:] {
					d.row[w+i] ^= v
				}
			default:
				return c
			}
			subtle.XORBytes(d.data, d.data, d.slot(c))
		}
	}
	return -1
}

// solve turns every combination into its uncoded fragment, highest column first, so that the
// slots above are final when one is reached.
func (d *Decoder) solve() {
	for c := d.gen.m - 1; c >= 0; c-- {
		row := d.coded[c]
		if row == nil {
			continue
		}
		slot := d.slot(c)
		row[c>>6] &^= 1 << (c & 63)
		for w := c >> 6; w < len(row); w++ {
			for v := row[w]; v != 0; v &= v - 1 {
				subtle.XORBytes(slot, slot, d.slot(w<<6+bits.TrailingZeros64(v)))
			}
		}
		d.coded[c] = nil
		d.known.Set(c)
	}
}

func (d *Decoder) slot(c int) []byte { return d.slots[c*d.size : (c+1)*d.size] }

// Missing returns the rank still missing: no fewer further fragments can complete the block,
// and that many suffice if each of them adds something new.
func (d *Decoder) Missing() int { return d.missing }

// Done reports whether the block is complete.
func (d *Decoder) Done() bool { return d.missing == 0 }

// Block returns the block without its last padding bytes (0..FragSize-1). The bytes belong to
// the decoder, which does not change them any more; the caller must not either. Until the
// block is complete the error is [ErrNeedMore].
func (d *Decoder) Block(padding int) ([]byte, error) {
	if padding < 0 || padding >= d.size {
		return nil, fmt.Errorf("%w: padding %d, want 0..%d for fragments of %d bytes",
			ErrLimit, padding, d.size-1, d.size)
	}
	if !d.Done() {
		return nil, fmt.Errorf("%w: rank %d of %d, %d missing", ErrNeedMore, d.gen.m-d.missing, d.gen.m, d.missing)
	}
	end := len(d.slots) - padding
	return d.slots[:end:end], nil
}

func zero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}
