package delta

import (
	"encoding/binary"
	"fmt"
)

// profileCopy is the plain copy/add codec: no model and next to no memory.
//
// The stream is a sequence of records until NewSize bytes are produced:
//
//	copy   uvarint  bytes taken from the old image
//	seek   svarint  added to the old cursor, which starts at 0 (absent when copy is 0)
//	runs            until copy bytes are covered: uvarint equal bytes, uvarint changed bytes
//	                (at least 1 unless the copy ends), then the differences new-old
//	lit    uvarint  literal bytes, then the bytes
//
// A record produces at least one byte.
const profileCopy = 0

const (
	copyMinMatch = 12 // bytes; a shorter match costs more than it saves
	copyMaxGap   = 8  // mismatches in a row that end a copy
	copyHashBits = 16
	copyMaxChain = 32
)

func copyHash(b []byte) uint32 {
	return uint32(binary.LittleEndian.Uint64(b)*0x9E3779B97F4A7C15>>(64-copyHashBits)) & (1<<copyHashBits - 1)
}

func encodeCopy(old, new []byte) []byte {
	head := make([]int32, 1<<copyHashBits)
	next := make([]int32, len(old))
	for i := len(old) - 8; i >= 0; i-- {
		h := copyHash(old[i:])
		next[i], head[h] = head[h], int32(i)+1
	}
	var out []byte
	var cursor, lit int
	emit := func(from, n, end int) { // a copy of n bytes from old, then the literals new[lit:end]
		out = binary.AppendUvarint(out, uint64(n))
		if n > 0 {
			out = binary.AppendVarint(out, int64(from-cursor))
			for k := 0; k < n; {
				eq := k
				for eq < n && old[from+eq] == new[lit+eq] {
					eq++
				}
				ne := eq
				for ne < n && old[from+ne] != new[lit+ne] {
					ne++
				}
				out = binary.AppendUvarint(out, uint64(eq-k))
				if eq < n {
					out = binary.AppendUvarint(out, uint64(ne-eq))
					for j := eq; j < ne; j++ {
						out = append(out, new[lit+j]-old[from+j])
					}
				}
				k = ne
			}
			cursor, lit = from+n, lit+n
		}
		out = binary.AppendUvarint(out, uint64(end-lit))
		out = append(out, new[lit:end]...)
		lit = end
	}
	var from, n int // the copy that precedes the literals being collected; it starts at start
	i := 0
	if len(old) > 0 && len(new) > 0 && old[0] == new[0] {
		n = extend(old, new)
		i = n
	}
	for i < len(new) {
		bestLen, bestPos := 0, 0
		if i+8 <= len(new) {
			c := head[copyHash(new[i:])]
			for k := 0; c > 0 && k < copyMaxChain; k++ {
				p := int(c) - 1
				if l := matchLen(old[p:], new[i:]); l > bestLen {
					bestLen, bestPos = l, p
				}
				c = next[p]
			}
		}
		if bestLen < copyMinMatch {
			i++
			continue
		}
		if n > 0 || i > lit {
			emit(from, n, i)
		}
		from, n = bestPos, extend(old[bestPos:], new[i:])
		i += n
	}
	if lit < len(new) {
		emit(from, n, len(new))
	}
	return out
}

func matchLen(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// extend returns how far new goes on resembling old: up to copyMaxGap differences in a row.
func extend(old, new []byte) int {
	n := min(len(old), len(new))
	end := 0
	for i := 0; i < n && i-end <= copyMaxGap; i++ {
		if old[i] == new[i] {
			end = i + 1
		}
	}
	return end
}

func decodeCopy(p Params, old, stream []byte) ([]byte, error) {
	out := make([]byte, 0, p.NewSize)
	at := 0
	bad := func(what string) error {
		return fmt.Errorf("%w: %s at byte %d of %d", ErrStream, what, at, len(stream))
	}
	uvarint := func() (int, bool) {
		v, n := binary.Uvarint(stream[at:])
		if n <= 0 || n > 5 || v > 0xffffffff {
			return 0, false
		}
		at += n
		return int(v), true
	}
	cursor := 0
	for uint32(len(out)) < p.NewSize {
		before := len(out)
		n, ok := uvarint()
		if !ok || n > int(p.NewSize)-len(out) {
			return nil, bad("bad copy length")
		}
		if n > 0 {
			z, ok := uvarint()
			if !ok {
				return nil, bad("bad seek")
			}
			if cursor += int(int32(uint32(z)>>1) ^ -int32(z&1)); cursor < 0 || cursor > len(old) || n > len(old)-cursor {
				return nil, bad("copy outside the base")
			}
			for n > 0 {
				eq, ok := uvarint()
				if !ok || eq > n {
					return nil, bad("bad run of equal bytes")
				}
				out = append(out, old[cursor:cursor+eq]...)
				cursor, n = cursor+eq, n-eq
				if n == 0 {
					break
				}
				ne, ok := uvarint()
				if !ok || ne == 0 || ne > n || ne > len(stream)-at {
					return nil, bad("bad run of changed bytes")
				}
				for range ne {
					out = append(out, old[cursor]+stream[at])
					cursor, at, n = cursor+1, at+1, n-1
				}
			}
		}
		lit, ok := uvarint()
		if !ok || lit > int(p.NewSize)-len(out) || lit > len(stream)-at {
			return nil, bad("bad literal length")
		}
		out = append(out, stream[at:at+lit]...)
		at += lit
		if len(out) == before {
			return nil, bad("empty record")
		}
	}
	if at != len(stream) {
		return nil, bad("bytes after the end")
	}
	return out, nil
}
