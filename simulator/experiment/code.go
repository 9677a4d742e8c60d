package experiment

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/radio"
)

// Code is an erasure code, or the absence of one.
type Code interface {
	// Slots returns the first n transmissions of a block of m fragments: which fragment, counted from 0, and which
	// copy of it; times are filled in by the caller. A longer list begins with a shorter one. The first m are the
	// block itself. It returns fewer if the code has no more.
	Slots(m, n int) []radio.Slot
	// NewDecoder prepares to decide for devices what they can do with those n transmissions. Decoders belong to one
	// goroutine each.
	NewDecoder(m, n int) (Decoder, error)
}

// Decoder decides about devices without looking at bytes.
type Decoder interface {
	// Decode returns after how many transmissions a device was complete that lost those in the set. If it is not,
	// missing says how many further useful fragments it needs. luck is 64 uniform bits that belong to the device, for
	// codes that are random themselves.
	Decode(lost fragmentation.Bitset, luck uint64) (sent, missing int)
}

// Codes are the codes that a scenario can name. Programs add their own before they call [Points].
//
//   - "none": fragments are repeated in turn, a carousel
//   - "ts004-v1", "ts004-v2", "ts004-v2abs": the three matrices of TS004, parity in order
//   - "mds": any M fragments suffice; the bound for all codes
//   - "rlnc256": random linear combinations over GF(256)
var Codes = map[string]Code{
	"none":        carousel{},
	"ts004-v1":    ts004{fragmentation.V1},
	"ts004-v2":    ts004{fragmentation.V2},
	"ts004-v2abs": ts004{fragmentation.V2Absolute},
	"mds":         random{field: 0},
	"rlnc256":     random{field: 256},
}

// inOrder is fragments 0..n-1.
func inOrder(n int) []radio.Slot {
	slots := make([]radio.Slot, n)
	for i := range slots {
		slots[i].Fragment = uint32(i)
	}
	return slots
}

// ts004 is the code of TS004 with parity in the order of its numbers.
type ts004 struct{ matrix fragmentation.Matrix }

func (c ts004) Slots(_, n int) []radio.Slot { return inOrder(min(n, fragmentation.MaxIndex)) }

func (c ts004) NewDecoder(m, n int) (Decoder, error) {
	code, err := fragmentation.NewCode(m, c.matrix, fragmentation.Sequence(m, n-m))
	if err != nil {
		return nil, err
	}
	return rankDecoder{fragmentation.NewRankDecoder(code)}, nil
}

type rankDecoder struct{ d *fragmentation.RankDecoder }

func (r rankDecoder) Decode(lost fragmentation.Bitset, _ uint64) (sent, missing int) {
	if sent, ok := r.d.Complete(lost); ok {
		return sent, 0
	}
	profile := r.d.Profile(lost)
	return 0, r.d.Lost() - len(profile)
}

// byteDecoder gives real fragments to the real decoder, and insists on the right block.
type byteDecoder struct {
	m, n, size int
	matrix     fragmentation.Matrix
	fragments  [][]byte
	block      []byte
}

func newByteDecoder(matrix fragmentation.Matrix, m, n, size int) (*byteDecoder, error) {
	d := &byteDecoder{m: m, n: n, size: size, matrix: matrix, block: make([]byte, m*size)}
	for i := range d.block {
		d.block[i] = byte(radio.Hash(uint64(i)))
	}
	e, err := fragmentation.NewEncoder(d.block, size, matrix)
	if err != nil {
		return nil, err
	}
	for i := range n {
		f, err := e.Fragment(nil, i+1)
		if err != nil {
			return nil, err
		}
		d.fragments = append(d.fragments, f)
	}
	return d, nil
}

func (d *byteDecoder) Decode(lost fragmentation.Bitset, _ uint64) (sent, missing int) {
	dec, err := fragmentation.NewDecoder(d.m, d.size, d.matrix)
	if err != nil {
		panic(fmt.Sprintf("experiment: decoder of a checked session: %v", err))
	}
	for i := range d.n {
		if i>>6 >= len(lost) || lost.Has(i) {
			continue
		}
		done, err := dec.Add(i+1, d.fragments[i])
		if err != nil {
			panic(fmt.Sprintf("experiment: fragment %d of our own encoder: %v", i+1, err))
		}
		if done {
			if block, err := dec.Block(0); err != nil || !slices.Equal(block, d.block) {
				panic(fmt.Sprintf("experiment: the decoder made another block after fragment %d (%v)", i+1, err))
			}
			return i + 1, 0
		}
	}
	return 0, dec.Missing()
}

// carousel repeats the block.
type carousel struct{}

func (carousel) Slots(m, n int) []radio.Slot {
	slots := make([]radio.Slot, n)
	for i := range slots {
		slots[i] = radio.Slot{Fragment: uint32(i % m), Copy: uint32(i / m)}
	}
	return slots
}

func (carousel) NewDecoder(m, n int) (Decoder, error) {
	return &carouselDecoder{m: m, n: n, have: fragmentation.NewBitset(m)}, nil
}

type carouselDecoder struct {
	m, n int
	have fragmentation.Bitset
}

func (d *carouselDecoder) Decode(lost fragmentation.Bitset, _ uint64) (sent, missing int) {
	clear(d.have)
	missing = d.m
	for i := range d.n {
		if i>>6 < len(lost) && !lost.Has(i) && !d.have.Has(i%d.m) {
			d.have.Set(i % d.m)
			if missing--; missing == 0 {
				return i + 1, 0
			}
		}
	}
	return 0, missing
}

// random is a systematic code whose parity is random over a large field: a received parity fragment is of no use with
// probability field^-k when k fragments are still missing. Field 0 stands for an infinite one, the MDS bound.
type random struct{ field int }

func (random) Slots(_, n int) []radio.Slot { return inOrder(n) }

func (c random) NewDecoder(m, n int) (Decoder, error) { return randomDecoder{m, n, c.field}, nil }

type randomDecoder struct{ m, n, field int }

func (d randomDecoder) Decode(lost fragmentation.Bitset, luck uint64) (sent, missing int) {
	for i := 0; i < d.m; i += 64 {
		v := uint64(1)<<min(64, d.m-i) - 1 // a shift by 64 yields 0, less 1 all ones
		if i>>6 < len(lost) {
			v &= lost[i>>6]
		}
		missing += bits.OnesCount64(v)
	}
	if missing == 0 {
		return d.m, 0
	}
	for i := d.m; i < d.n; i++ {
		if i>>6 >= len(lost) || lost.Has(i) {
			continue
		}
		if d.field != 0 && missing <= 7 { // 256^-8 is below the resolution of the draw
			if radio.Hash(luck, uint64(i))>>(64-8*missing) == 0 {
				continue
			}
		}
		if missing--; missing == 0 {
			return i + 1, 0
		}
	}
	return 0, missing
}
