package delta

// coder is a carry-less binary range coder with 32-bit bounds and 16-bit probabilities. One type
// serves both directions so that encoder and decoder run the very same model.
type coder struct {
	encode bool
	lo, hi uint32
	code   uint32 // decoder: the 32 bits of the stream being compared
	buf    []byte // the stream
	at     int    // decoder: bytes read, those beyond the end included
	cost   uint64 // of all bits so far, in 1/256 bit
}

func newEncoder() *coder { return &coder{encode: true, hi: 0xffffffff} }

func newDecoder(stream []byte) *coder {
	c := &coder{hi: 0xffffffff, buf: stream}
	for range 4 {
		c.code = c.code<<8 | c.next()
	}
	return c
}

// next returns the next byte of the stream; beyond its end there are zeros.
func (c *coder) next() uint32 {
	c.at++
	if c.at > len(c.buf) {
		return 0
	}
	return uint32(c.buf[c.at-1])
}

// overrun reports that the stream ended more than the coder's look-ahead ago.
func (c *coder) overrun() bool { return !c.encode && c.at > len(c.buf)+4 }

// bit codes one bit; p/65536 is the probability of a one, 1 <= p <= 65535. The decoder ignores b.
func (c *coder) bit(b int, p uint32) int {
	r := c.hi - c.lo
	mid := c.lo + (r>>16)*p + (r&0xffff)*p>>16
	if !c.encode {
		b = 0
		if c.code <= mid {
			b = 1
		}
	}
	if b != 0 {
		c.hi = mid
		c.cost += uint64(bitCost[p>>4])
	} else {
		c.lo = mid + 1
		c.cost += uint64(bitCost[(65536-p)>>4])
	}
	for (c.lo^c.hi)>>24 == 0 {
		if c.encode {
			c.buf = append(c.buf, byte(c.hi>>24))
		} else {
			c.code = c.code<<8 | c.next()
		}
		c.lo <<= 8
		c.hi = c.hi<<8 | 0xff
	}
	return b
}

// finish returns the shortest stream that decodes to the bits coded.
func (c *coder) finish() []byte {
	sure := len(c.buf) // the decoder reads these and four more
	for n := 0; n <= 4; n++ {
		v := c.hi &^ uint32(uint64(0xffffffff)>>(8*n))
		if n == 0 {
			v = 0
		}
		if c.lo <= v && v <= c.hi {
			for k := range n {
				c.buf = append(c.buf, byte(v>>(24-8*k)))
			}
			break
		}
	}
	for len(c.buf) > sure && c.buf[len(c.buf)-1] == 0 {
		c.buf = c.buf[:len(c.buf)-1]
	}
	return c.buf
}

// bitCost[i] is the cost of an event of probability i/4096 in 1/256 bit.
var bitCost = func() (t [4097]uint16) {
	for i := range t {
		// log2 of x = max(i, 1/2)/4096 by repeated squaring, in integers.
		x, l := uint64(i)<<1, 0
		if x == 0 {
			x = 1
		}
		for x < 1<<13 {
			x <<= 1
			l += 256
		}
		f, frac := x<<18, 0 // 1 <= f>>31 < 2
		for k := range 8 {
			f = f * f >> 31
			if f >= 1<<32 {
				f >>= 1
				frac |= 128 >> k
			}
		}
		t[i] = uint16(max(0, l-frac))
	}
	return t
}()
