package delta

import (
	"fmt"
	"math/bits"
)

// segment says that new[start:start+length] resembles source[from:from+length], where source is
// the old image followed by the new one. start and length are even.
type segment struct{ start, length, from int }

func (s segment) end() int   { return s.start + s.length }
func (s segment) shift() int { return s.from - s.start }

// maxSegment is the longest segment the device's map can hold, in bytes.
const maxSegment = (1<<18 - 1) * 2

// Kinds of numbers in the control stream.
const (
	numCount  = iota // segments
	numGap           // new halfwords before a segment
	numShift         // shift less the previous one
	numLength        // halfwords
	numLast          // halfwords after the last segment
	numKinds
)

// maxNumber is the bits of a number plus one, less one; each kind has as many counters.
const maxNumber = 23

// control codes the segments before anything else, so that the map from old to new addresses is
// complete when the first halfword is decoded.
type control struct {
	rc  *coder
	num [numKinds * maxNumber]counter
	odd counter // whether a shift and the previous one differ by an odd number
}

const controlLimit = 30 // of the counters

func (c *control) bit(b int, ctr *counter) int {
	b = c.rc.bit(b, min(max(uint32(ctr.p), 32), 65503))
	ctr.update(b, controlLimit)
	return b
}

// number codes v in an adaptive Exp-Golomb code; v+1 has at most 24 bits.
func (c *control) number(v uint32, kind int) uint32 {
	ctr := c.num[kind*maxNumber:]
	size := bits.Len32(v+1) - 1
	k := 0
	for k < maxNumber && c.bit(b2i(k < size), &ctr[k]) != 0 {
		k++
	}
	x := uint32(1)
	for i := k - 1; i >= 0; i-- {
		x = x<<1 | uint32(c.rc.bit(int(v+1)>>i&1, 1<<15))
	}
	return x - 1
}

// signed codes v as 0, 1, -1, 2, -2, ...
func (c *control) signed(v int, kind int) int {
	z := uint32(-2 * v)
	if v > 0 {
		z = uint32(2*v - 1)
	}
	z = c.number(z, kind)
	if z&1 != 0 {
		return int(z+1) / 2
	}
	return -int(z / 2)
}

// segments codes the segment map: segs when encoding, the result when decoding. size is the even
// size of the new image, source that of the old image, limit the most segments the device holds.
func (c *control) segments(segs []segment, size, source, limit int) ([]segment, error) {
	for i := range c.num {
		c.num[i].p = 1 << 15
	}
	c.odd.p = 1 << 15
	n := int(c.number(uint32(len(segs)), numCount))
	if n > limit {
		return nil, fmt.Errorf("%w: %d segments, the map holds %d", ErrStream, n, limit)
	}
	if !c.rc.encode {
		segs = make([]segment, 0, min(n, size/2))
	}
	var end, shift int
	for i := range n {
		var s segment
		if c.rc.encode {
			s = segs[i]
		}
		gap := int(c.number(uint32(s.start-end)/2, numGap))
		s.start = end + 2*gap
		delta := s.shift() - shift
		odd := c.bit(delta&1, &c.odd)
		s.from = s.start + shift + 2*c.signed((delta-odd)/2, numShift) + odd
		if i == n-1 {
			s.length = size - s.start - 2*int(c.number(uint32(size-s.end())/2, numLast))
		} else {
			s.length = 2 * int(c.number(uint32(s.length)/2, numLength))
		}
		if !c.rc.encode {
			if s.length <= 0 || s.length > maxSegment || s.end() > size || s.from < 0 ||
				s.from < source && s.from+s.length > source || s.from >= source && s.from+2 > source+s.start || c.rc.overrun() {
				return nil, fmt.Errorf("%w: segment %d is out of range", ErrStream, i)
			}
			segs = append(segs, s)
		}
		end, shift = s.end(), s.shift()
	}
	return segs, nil
}

// log2x16 returns about 16 log2(1+|d|).
func log2x16(d int) int {
	if d < 0 {
		d = -d
	}
	d++
	k := bits.Len(uint(d)) - 1
	return 16*k + d<<4>>k - 16
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
