package fragmentation

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

// strip is the piece of a fragment that the encoder XORs at a time: what fits in registers.
type strip [8]uint64

const stripSize = 64 // bytes

// Encoder yields any fragment of one block. It never changes after construction, so any
// number of goroutines may use it; a fragment is a pure function of block, size, matrix and
// number, and there is nothing to store or to produce in order.
//
// It holds one copy of the block, each fragment padded to a multiple of 64 bytes.
type Encoder struct {
	gen     generator
	matrix  Matrix
	size    int
	padding int
	strips  []strip // strip s of uncoded fragment j (from 0) is strips[s*M+j]
}

// NewEncoder prepares block for transmission in fragments of fragSize bytes (1..255). The
// last uncoded fragment is filled with zeros; see [Encoder.Padding]. The block is copied. It
// must hold 1..16383*fragSize bytes.
func NewEncoder(block []byte, fragSize int, matrix Matrix) (*Encoder, error) {
	if err := checkSize(fragSize); err != nil {
		return nil, err
	}
	if len(block) == 0 || len(block) > MaxIndex*fragSize {
		return nil, fmt.Errorf("%w: block of %d bytes in fragments of %d, want 1..%d bytes",
			ErrLimit, len(block), fragSize, MaxIndex*fragSize)
	}
	m := (len(block) + fragSize - 1) / fragSize
	g, err := newGenerator(m, matrix)
	if err != nil {
		return nil, err
	}
	e := &Encoder{
		gen:     g,
		matrix:  matrix,
		size:    fragSize,
		padding: m*fragSize - len(block),
		strips:  make([]strip, (fragSize+stripSize-1)/stripSize*m),
	}
	for j := range m {
		rest := block[j*fragSize : min((j+1)*fragSize, len(block))]
		for s := j; len(rest) > 0; s += m {
			var b [stripSize]byte
			rest = rest[copy(b[:], rest):]
			for i := range e.strips[s] {
				e.strips[s][i] = binary.LittleEndian.Uint64(b[8*i:])
			}
		}
	}
	return e, nil
}

// M returns the number of uncoded fragments (NbFrag).
func (e *Encoder) M() int { return e.gen.m }

// Size returns the fragment size in bytes (FragSize).
func (e *Encoder) Size() int { return e.size }

// Matrix returns the parity matrix.
func (e *Encoder) Matrix() Matrix { return e.matrix }

// Padding returns the number of zero bytes that fill the last uncoded fragment, 0..FragSize-1.
func (e *Encoder) Padding() int { return e.padding }

// Fragment appends fragment n, 1..[MaxIndex], to dst and returns the extended slice. It does
// not allocate when dst has room for one fragment.
func (e *Encoder) Fragment(dst []byte, n int) ([]byte, error) {
	if err := checkIndex(n); err != nil {
		return dst, err
	}
	var out [256 / stripSize]strip
	m := e.gen.m
	if n <= m {
		for s := range len(e.strips) / m {
			out[s] = e.strips[s*m+n-1]
		}
	} else {
		var buf [(MaxIndex + 63) / 64]uint64
		row := buf[:words(m)]
		e.gen.row(row, n)
		// 512 columns at a time: their list stays on the stack and their data in the cache.
		var list [512]uint16
		for base := 0; base < len(row); base += 8 {
			k := 0
			for w, v := range row[base:min(base+8, len(row))] {
				for ; v != 0; v &= v - 1 {
					list[k&511] = uint16((base+w)<<6 + bits.TrailingZeros64(v))
					k++
				}
			}
			for s := range len(e.strips) / m {
				out[s].gather(e.strips[s*m:(s+1)*m], list[:k])
			}
		}
	}
	dst = slices.Grow(dst, e.size)
	end := len(dst) + e.size
	for s := range out {
		for _, v := range out[s] {
			if len(dst)+8 > end {
				for ; len(dst) < end; v >>= 8 {
					dst = append(dst, byte(v))
				}
				return dst, nil
			}
			dst = binary.LittleEndian.AppendUint64(dst, v)
		}
	}
	return dst, nil
}

// gather XORs the listed strips into acc.
func (acc *strip) gather(from []strip, list []uint16) {
	a0, a1, a2, a3, a4, a5, a6, a7 := acc[0], acc[1], acc[2], acc[3], acc[4], acc[5], acc[6], acc[7]
	for _, j := range list {
		p := &from[j]
		a0 ^= p[0]
		a1 ^= p[1]
		a2 ^= p[2]
		a3 ^= p[3]
		a4 ^= p[4]
		a5 ^= p[5]
		a6 ^= p[6]
		a7 ^= p[7]
	}
	*acc = strip{a0, a1, a2, a3, a4, a5, a6, a7}
}
