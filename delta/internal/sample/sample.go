// Package sample generates firmware for tests: Thumb code of functions that call each other, load
// from literal pools and branch, and two releases of it. It is what a compiler makes only as far
// as a patch encoder can tell; the images do not run.
package sample

import (
	"encoding/binary"
	"math/rand/v2"
)

// Base is the address both images are linked at.
const Base = 0x08004000

// item is an instruction or something that the linker resolves.
type item struct {
	kind  kind
	half  uint16 // the halfword, or the upper bits of one
	index int    // function or data item referred to
}

type kind uint8

const (
	plain kind = iota
	call
	load   // from the pool: the address of a datum
	branch // forwards, over index items
)

type function struct{ items []item }

// program is what the linker lays out.
type program struct {
	functions []function
	data      int // words of data behind the code, pointers to functions
}

// Pair returns two releases of a program of so many functions. edits is how many functions in a
// thousand were changed; one in eight of them is new. The same arguments give the same images.
func Pair(seed uint64, functions, edits int) (old, new []byte) {
	r := rand.New(rand.NewPCG(seed, 4))
	words := make([]uint16, 300) // the vocabulary; common words come first
	for i := range words {
		words[i] = uint16(r.Uint32()) & 0x7fff
		if words[i]>>11 == 0x09 {
			words[i] ^= 0x1000
		}
	}
	p := program{data: functions / 2}
	for range functions {
		p.functions = append(p.functions, compile(r, words, functions, p.data))
	}
	old = p.link()
	q := program{data: p.data}
	for _, f := range p.functions {
		if r.IntN(1000) < edits {
			f = f.edit(r, words, functions, p.data)
			if r.IntN(8) == 0 {
				q.functions = append(q.functions, compile(r, words, functions, p.data))
			}
		}
		q.functions = append(q.functions, f)
	}
	return old, q.link()
}

func word(r *rand.Rand, words []uint16) item {
	return item{kind: plain, half: words[int(float64(len(words))*r.Float64()*r.Float64()*r.Float64())]}
}

// compile returns a new function.
func compile(r *rand.Rand, words []uint16, functions, data int) function {
	f := function{[]item{{half: 0xb500 | uint16(r.IntN(256))}}}
	for range 6 + r.IntN(60) {
		f.items = append(f.items, instruction(r, words, functions, data))
	}
	f.items = append(f.items, item{half: 0xbd00 | f.items[0].half&255})
	return f
}

func instruction(r *rand.Rand, words []uint16, functions, data int) item {
	switch r.IntN(14) {
	case 0, 1:
		return item{kind: call, index: r.IntN(functions)}
	case 2:
		return item{kind: load, half: uint16(0x4800 | r.IntN(8)<<8), index: r.IntN(data)}
	case 3:
		return item{kind: branch, half: uint16(0xd000 | r.IntN(2)<<8), index: 1 + r.IntN(5)}
	}
	return word(r, words)
}

// edit returns the function with some instructions inserted, removed or replaced.
func (f function) edit(r *rand.Rand, words []uint16, functions, data int) function {
	var g function
	for i, it := range f.items {
		if i > 0 && i < len(f.items)-1 {
			switch r.IntN(12) {
			case 0:
				continue
			case 1:
				g.items = append(g.items, instruction(r, words, functions, data))
			case 2:
				it = instruction(r, words, functions, data)
			}
		}
		g.items = append(g.items, it)
	}
	return g
}

// link lays the program out and resolves what refers to something.
func (p program) link() []byte {
	const vectors = 16 * 4
	at := vectors
	starts := make([]int, len(p.functions))
	for i, f := range p.functions {
		starts[i] = at
		pool := 0
		for _, it := range f.items {
			at += 2
			if it.kind == call {
				at += 2
			}
			if it.kind == load {
				pool += 4
			}
		}
		at = (at+3)&^3 + pool
	}
	out := make([]byte, at+4*p.data)
	word := func(o int, v uint32) { binary.LittleEndian.PutUint32(out[o:], v) }
	for k := range vectors / 4 {
		word(4*k, Base+uint32(starts[k%len(starts)])|1)
	}
	for k := range p.data {
		word(at+4*k, Base+uint32(starts[k*7%len(starts)])|1)
	}
	for i, f := range p.functions {
		o := starts[i]
		end := o
		for _, it := range f.items {
			end += 2
			if it.kind == call {
				end += 2
			}
		}
		pool := (end + 3) &^ 3
		for _, it := range f.items {
			h := it.half
			switch it.kind {
			case call:
				d := uint32(starts[it.index%len(starts)] - (o + 4))
				s := d >> 24 & 1
				binary.LittleEndian.PutUint16(out[o:], uint16(0xf000|s<<10|d>>12&0x3ff))
				h = uint16(0xd000 | (^(d>>23^s)&1)<<13 | (^(d>>22^s)&1)<<11 | d>>1&0x7ff)
				o += 2
			case load:
				h |= uint16((pool - (o+4)&^3) / 4)
				word(pool, Base+uint32(at+4*it.index))
				pool += 4
			case branch:
				h |= uint16(it.index)
			}
			binary.LittleEndian.PutUint16(out[o:], h)
			o += 2
		}
	}
	return out
}
