package fragmentation

import (
	"math/rand/v2"
)

// Bernoulli draws independent losses with one probability, exact to 2^-64.
type Bernoulli struct {
	threshold uint64 // loss if a uniform 64-bit number is below
	always    bool
}

// NewBernoulli returns a loss process of probability p. Values outside 0..1 count as 0 or 1.
func NewBernoulli(p float64) Bernoulli {
	switch {
	case p >= 1:
		return Bernoulli{always: true}
	case p > 0:
		return Bernoulli{threshold: uint64(p * 0x1p64)}
	}
	return Bernoulli{}
}

// Fill overwrites lost with independent losses, every bit of its room. The draws depend only
// on the source and are computed in integers, so the same seed gives the same losses anywhere.
func (b Bernoulli) Fill(lost Bitset, src rand.Source) {
	for w := range lost {
		lost[w] = b.word(src)
	}
}

// word compares 64 uniform numbers with the threshold at once, bit by bit from the top, until
// all of the comparisons are decided, which takes 7 or 8 random words.
func (b Bernoulli) word(src rand.Source) uint64 {
	if b.always {
		return ^uint64(0)
	}
	var below uint64
	open := ^uint64(0)
	for rest := b.threshold; open != 0 && rest != 0; rest <<= 1 {
		r := src.Uint64()
		if rest>>63 != 0 {
			below |= open &^ r
			open &= r
		} else {
			open &^= r
		}
	}
	return below
}
