package fragmentation

import (
	"errors"
	"fmt"
	"math/bits"
)

// Limits of TS004: the fragment number has 14 bits, the fragment size is one byte.
const (
	MaxIndex = 1<<14 - 1 // highest fragment number, and so the largest M
	MaxSize  = 255       // largest fragment, in bytes
)

var (
	// ErrLimit is returned for session parameters outside TS004: M, the fragment size, the
	// padding, the length of a block or the matrix.
	ErrLimit = errors.New("fragmentation: parameter out of range")
	// ErrIndex is returned for a fragment number that cannot exist: 0 or above [MaxIndex].
	ErrIndex = errors.New("fragmentation: no such fragment number")
)

// Matrix selects the parity matrix, that is the dialect of TS004.
type Matrix uint8

const (
	// V1 is the matrix of TS004-1.0.0. A column drawn twice counts as two draws, so a row
	// holds about 0.39 M ones. The generator is seeded with N-M.
	V1 Matrix = iota + 1
	// V2 is the matrix of the TS004-2.0.0 stacks in use (LoRa Basics Modem, ChirpStack v4). A
	// column drawn twice is drawn again, so a row holds floor(M/2) ones. Seeded with N-M.
	V2
	// V2Absolute is the printed text of TS004-2.0.0: as V2, but seeded with N. No shipping
	// stack is known to use it; it serves to diagnose foreign data.
	V2Absolute
)

// matrixNames are the names used in files and on command lines.
var matrixNames = [...]string{V1: "v1", V2: "v2", V2Absolute: "v2abs"}

// Valid reports whether m is one of the three matrices. The zero value is not.
func (m Matrix) Valid() bool { return m >= V1 && m <= V2Absolute }

// String returns "v1", "v2" or "v2abs".
func (m Matrix) String() string {
	if !m.Valid() {
		return fmt.Sprintf("Matrix(%d)", uint8(m))
	}
	return matrixNames[m]
}

// ParseMatrix is the inverse of [Matrix.String].
func ParseMatrix(s string) (Matrix, error) {
	for m := V1; m <= V2Absolute; m++ {
		if s == matrixNames[m] {
			return m, nil
		}
	}
	return 0, fmt.Errorf("%w: matrix %q, want v1, v2 or v2abs", ErrLimit, s)
}

// MarshalText implements [encoding.TextMarshaler].
func (m Matrix) MarshalText() ([]byte, error) {
	if !m.Valid() {
		return nil, fmt.Errorf("%w: matrix %d, want v1, v2 or v2abs", ErrLimit, uint8(m))
	}
	return []byte(matrixNames[m]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *Matrix) UnmarshalText(text []byte) (err error) {
	v, err := ParseMatrix(string(text))
	if err == nil {
		*m = v
	}
	return err
}

// Bitset is a set of small integers, bit i%64 of word i/64 standing for i. Columns of the
// matrix and positions in a transmission count from 0.
type Bitset []uint64

// NewBitset returns an empty set with room for 0..n-1.
func NewBitset(n int) Bitset { return make(Bitset, words(n)) }

// Has reports whether i is in the set; beyond its room nothing is.
func (b Bitset) Has(i int) bool {
	return i >= 0 && i>>6 < len(b) && b[i>>6]>>(i&63)&1 != 0
}

// Set adds i, which must be within the room of the set.
func (b Bitset) Set(i int) { b[i>>6] |= 1 << (i & 63) }

// Clear removes i, which must be within the room of the set.
func (b Bitset) Clear(i int) { b[i>>6] &^= 1 << (i & 63) }

// Count returns the number of members.
func (b Bitset) Count() int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// words returns the number of 64-bit words that n bits fill.
func words(n int) int { return (n + 63) / 64 }

// Row returns the matrix row of fragment n in a session of m uncoded fragments: column j-1 is
// set when uncoded fragment j is part of the XOR. For n <= m that is fragment n alone. With
// m = 1 parity rows are empty: the code cannot repeat a single fragment.
func Row(m int, matrix Matrix, n int) (Bitset, error) {
	g, err := newGenerator(m, matrix)
	if err != nil {
		return nil, err
	}
	if err := checkIndex(n); err != nil {
		return nil, err
	}
	row := NewBitset(m)
	g.row(row, n)
	return row, nil
}

func checkIndex(n int) error {
	switch {
	case n < 1:
		return fmt.Errorf("%w: %d, fragments count from 1", ErrIndex, n)
	case n > MaxIndex:
		return fmt.Errorf("%w: %d, the number has 14 bits (at most %d)", ErrIndex, n, MaxIndex)
	}
	return nil
}

func checkM(m int) error {
	if m < 1 || m > MaxIndex {
		return fmt.Errorf("%w: %d uncoded fragments, want 1..%d", ErrLimit, m, MaxIndex)
	}
	return nil
}

func checkSize(size int) error {
	if size < 1 || size > MaxSize {
		return fmt.Errorf("%w: fragment size %d, want 1..%d bytes", ErrLimit, size, MaxSize)
	}
	return nil
}

// generator draws the rows of one (M, matrix).
type generator struct {
	m        int
	modulus  uint64 // M, or M+1 when M is a power of two
	inverse  uint64 // 2^37/modulus rounded up: x/modulus = x*inverse>>37 for x < 2^23
	redraw   uint64 // 0 when a column drawn twice counts (V1), else 1
	seedFrom int    // the fragment number that would be seeded with 0
}

func newGenerator(m int, matrix Matrix) (generator, error) {
	if err := checkM(m); err != nil {
		return generator{}, err
	}
	if !matrix.Valid() {
		return generator{}, fmt.Errorf("%w: matrix %d, want v1, v2 or v2abs", ErrLimit, uint8(matrix))
	}
	g := generator{m: m, modulus: uint64(m), seedFrom: m}
	if m&(m-1) == 0 {
		g.modulus++
	}
	g.inverse = 1<<37/g.modulus + 1
	if matrix != V1 {
		g.redraw = 1
	}
	if matrix == V2Absolute {
		g.seedFrom = 0
	}
	return g, nil
}

// prbs23 is one step of the 23-bit generator of TS004 (x^23 + x^18 + 1, period 2^23-1).
func prbs23(x uint64) uint64 { return x>>1 + (x^x>>5)&1<<22 }

// row overwrites row, of words(m) words, with the matrix row of fragment n, 1..MaxIndex.
func (g *generator) row(row []uint64, n int) {
	clear(row)
	if n <= g.m {
		row[(n-1)>>6] = 1 << ((n - 1) & 63)
		return
	}
	x := uint64(1 + 1001*(n-g.seedFrom))
	left := g.m / 2
	// A seed above 8379 does not fit 23 bits. The state shrinks into them within a few steps,
	// but until then the carry of the addition matters and the shortcut below does not hold.
	for x >= 1<<23 && left > 0 {
		x = prbs23(x)
		left -= g.draw(row, x%g.modulus)
	}
	// Bits 0..17 of the next 18 feedback bits depend only on the present state, so y holds the
	// present state and the 18 after it as overlapping windows.
	for ; left >= 18; x = x >> 18 {
		x |= (x ^ x>>5) & (1<<18 - 1) << 23
		for k := 1; k <= 18; k++ {
			z := x >> k & (1<<23 - 1)
			left -= g.draw(row, z-z*g.inverse>>37*g.modulus)
		}
	}
	for left > 0 {
		x = prbs23(x)
		left -= g.draw(row, x-x*g.inverse>>37*g.modulus)
	}
}

// draw sets column r and returns how much it counts towards floor(M/2) draws. When M is a
// power of two, r may be M, which is no column and never counts.
func (g *generator) draw(row []uint64, r uint64) int {
	if r >= uint64(g.m) {
		return 0
	}
	w := &row[r>>6]
	again := *w >> (r & 63) & g.redraw
	*w |= 1 << (r & 63)
	return int(again ^ 1)
}
