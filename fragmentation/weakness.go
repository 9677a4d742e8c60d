package fragmentation

import (
	"math"
	"math/bits"
)

// Weaknesses are the holes in the matrix of one plan: patterns of few losses that it repairs
// late or never, whatever else arrives. They are found by looking at the rows themselves.
type Weaknesses struct {
	// Uncovered are the uncoded fragments that no entry of the list contains. If one is lost,
	// the transmission cannot restore it.
	Uncovered []int
	// Twins are pairs of uncoded fragments that nearly every entry of the list contains both
	// or neither of. A device that lost both cannot complete until one arrives that does not.
	// Looked for in lists of at least 32 entries only; in shorter ones they are plain chance.
	Twins []Twin
	// Echoes are entries that repeat an earlier one but for a few columns, and so tell most
	// devices nothing.
	Echoes []Echo
	// EvenOnly is set when a device that received no uncoded fragment can never complete, not
	// even with every entry of a list of M or more: all of them are sums of an even number of
	// fragments. One uncoded fragment is enough to escape.
	EvenOnly bool
}

// Twin is a pair of uncoded fragments that only Apart entries of the list tell apart.
type Twin struct{ A, B, Apart int }

// Echo is an entry N that differs from the earlier entry Of in Differ columns.
type Echo struct{ N, Of, Differ int }

const (
	twinShare   = 16 // twins are told apart by at most 1/16 of the list
	twinMinList = 32
	echoShare   = 16 // echoes differ in at most 1/16 of the columns
)

// Any reports whether there is any weakness.
func (w Weaknesses) Any() bool {
	return len(w.Uncovered)+len(w.Twins)+len(w.Echoes) > 0 || w.EvenOnly
}

// Floor returns the probability, for loss p, that a device loses an uncovered fragment, or
// both twins and every entry that tells them apart: the failures that remain at the end of the
// transmission however much is received otherwise. It is a union bound, tight when small.
func (w Weaknesses) Floor(p float64) float64 {
	floor := p * float64(len(w.Uncovered))
	for _, t := range w.Twins {
		floor += math.Pow(p, float64(2+t.Apart))
	}
	return min(floor, 1)
}

// Inspect returns the weaknesses of the plan. It compares all pairs of uncoded fragments and
// all pairs of entries: a millisecond at M = 1000, some tenths of a second at M = 16000.
func Inspect(code *Code) Weaknesses {
	var found Weaknesses
	m, r := code.m, len(code.indices)
	odd := make([]uint64, code.words)
	for j := range m {
		for t := range code.words {
			odd[t] ^= code.cols[t*m+j]
		}
		if code.uncovered(j) {
			found.Uncovered = append(found.Uncovered, j+1)
		}
	}
	found.EvenOnly = r >= m && Bitset(odd).Count() == 0
	if r >= twinMinList {
		found.Twins = code.closePairs(r / twinShare)
	}
	rows := newRowSet(m, code.matrix)
	for _, n := range code.indices {
		if of, differ := rows.echo(n); of >= 0 {
			found.Echoes = append(found.Echoes, Echo{N: n, Of: code.indices[of], Differ: differ})
		}
		rows.rows = append(rows.rows, rows.row...)
	}
	return found
}

// closePairs returns the pairs of uncoded fragments, neither of them uncovered, that at most
// limit entries tell apart.
func (c *Code) closePairs(limit int) []Twin {
	var list []Twin
	for a := range c.m {
		if c.uncovered(a) {
			continue
		}
		first := c.cols[a]
		for b := a + 1; b < c.m; b++ {
			// The first 64 rows dismiss nearly every pair.
			apart := bits.OnesCount64(first ^ c.cols[b])
			for t := 1; t < c.words && apart <= limit; t++ {
				apart += bits.OnesCount64(c.cols[t*c.m+a] ^ c.cols[t*c.m+b])
			}
			if apart <= limit && !c.uncovered(b) {
				list = append(list, Twin{A: a + 1, B: b + 1, Apart: apart})
			}
		}
	}
	return list
}

// matrixPairs returns the pairs of uncoded fragments that at most 1/share of the first 512
// parity rows of the matrix tell apart: a property of M alone.
func matrixPairs(m int, matrix Matrix, share int) []Twin {
	code, err := NewCode(m, matrix, Sequence(m, 512))
	if err != nil || len(code.indices) < twinMinList {
		return nil
	}
	return code.closePairs(len(code.indices) / share)
}

// uncovered reports whether no entry contains uncoded fragment j+1.
func (c *Code) uncovered(j int) bool {
	for t := range c.words {
		if c.cols[t*c.m+j] != 0 {
			return false
		}
	}
	return true
}

// rowSet holds the rows of a growing list, to find echoes in it.
type rowSet struct {
	gen   generator
	limit int
	row   []uint64 // of the number last asked about
	rows  []uint64
}

func newRowSet(m int, matrix Matrix) *rowSet {
	g, err := newGenerator(m, matrix)
	if err != nil {
		panic("fragmentation: internal error: " + err.Error()) // the caller has checked both
	}
	return &rowSet{gen: g, limit: m / echoShare, row: make([]uint64, words(m))}
}

// echo returns the position of the first row of the set that fragment n repeats, and in how
// many columns they differ, or -1.
func (s *rowSet) echo(n int) (of, differ int) {
	s.gen.row(s.row, n)
	w := len(s.row)
	for i := 0; i < len(s.rows); i += w {
		differ = 0
		for t, v := range s.rows[i : i+w] {
			if differ += bits.OnesCount64(v ^ s.row[t]); differ > s.limit {
				break
			}
		}
		if differ <= s.limit {
			return i / w, differ
		}
	}
	return -1, 0
}

// splitters returns, for each pair, the parity fragments that contain one of the two only, in
// ascending order, at most limit of them.
func splitters(m int, matrix Matrix, pairs []Twin, limit int) [][]int {
	g := newRowSet(m, matrix)
	found := make([][]int, len(pairs))
	for n := m + 1; n <= MaxIndex; n++ {
		g.gen.row(g.row, n)
		row, short := Bitset(g.row), false
		for i, t := range pairs {
			if len(found[i]) < limit && row.Has(t.A-1) != row.Has(t.B-1) {
				found[i] = append(found[i], n)
			}
			short = short || len(found[i]) < limit
		}
		if !short {
			break
		}
	}
	return found
}
