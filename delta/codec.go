package delta

import (
	"errors"
	"fmt"
)

// class is what is known of a halfword before it is decoded; a context of every model.
type class uint8

const (
	classGap   class = iota // no source
	classPlain              // the source as it is
	classBL1                // BL, B.W, B<c>.W
	classBL2
	classLDR  // LDR literal
	classB    // B, B<c>
	classPtr0 // pointer in a literal pool
	classPtr1
	classPool0 // other word of a literal pool
	classPool1
	classData // pointer outside of the pools
	numClasses
)

// isData says that a halfword of the class is not an instruction.
func (c class) isData() bool {
	switch c {
	case classPtr0, classPtr1, classPool0, classPool1, classData:
		return true
	}
	return false
}

// The profiles. Stored has no model at all: the stream is the image. The others double the size of
// journal and order-0 table.
const (
	profileStored = iota
	profile5
	profile8
	profile16
	numProfiles
)

// journalSize is the mispredictions that a profile remembers.
func journalSize(profile uint8) int { return 32 << profile }

const (
	order0Ratio = 8  // order-0 probabilities for each misprediction
	learned     = 32 // addresses
)

// Options bits of a profile with a model.
const (
	optionWindow   = 0x07 // scan window: 0 none, else 128<<w bytes in each direction
	optionThumb    = 0x08 // Thumb machine code, little endian
	optionCapacity = 0x70 // place of the segment map: 0 in flash scratch, else in memory, mapStep segments for each
	capacityShift  = 4
)

// mapStep is the segments that fit a map in memory for each step of optionCapacity.
const mapStep = 128

// mapEntry is the bytes of a segment in the device's map.
const mapEntry = 8

func windowSize(options uint8) int {
	if w := options & optionWindow; w != 0 {
		return 128 << w
	}
	return 0
}

// codec is the model that encoder and decoder share. Both call run, which goes through the new
// image halfword by halfword.
type codec struct {
	rc    *coder
	old   []byte
	new   []byte // padded to an even size; the decoder fills it
	thumb bool
	am    addressMap

	flags   flagModel
	literal literalModel
	pools   [1024 / 8]byte // words ahead that are literal pool, a ring by address
	second  bool           // the halfword to come is the second half of an instruction
	last    [matchMax + 1]uint32

	pending struct { // prediction of the second half of a word
		at      int
		pred    uint32
		class   class
		changed bool
		how     int
	}
	lesson struct { // an address whose fate is known after the halfword at at
		at         int
		key, value uint32 // old, and new as predicted
	}

	most  uint64 // cycles after which run gives up; 0: never
	trace *trace // may be nil
}

// trace is what the encoder and inspection learn from a run; costs are in 1/256 bit.
type trace struct {
	control  uint64
	flags    [numClasses]uint64
	literals [numClasses]uint64
	count    [numClasses]int // halfwords
	misses   [numClasses]int // of which coded as literals
	halfword []uint32        // cost of each halfword; may be nil
}

// Work counts what a device spends its cycles on.
type Work struct {
	Halfwords uint64 // decoded
	Literals  uint64 // halfwords coded as literals
	Scanned   uint64 // offsets looked at
	Folded    uint64 // votes of candidates counted, bit by bit
	Journal   uint64 // mispredictions looked at
	Lookups   uint64 // segments looked at
}

func newCodec(p Params, old, new []byte, rc *coder) *codec {
	c := &codec{rc: rc, old: old, new: new, thumb: p.Options&optionThumb != 0}
	c.am = addressMap{base: p.LinkBase, size: len(old), current: -1,
		keys: make([]uint32, learned), values: make([]uint32, learned)}
	c.flags.init()
	c.literal.init(journalSize(p.Profile), windowSize(p.Options), c.thumb)
	c.pending.at, c.lesson.at = -1, -1
	return c
}

// errCycles is what run gives up with.
var errCycles = errors.New("it takes a device too long")

// source returns the halfword at offset o of the old image followed by the new one.
func (c *codec) source(o int) uint32 {
	if o >= len(c.old) {
		o -= len(c.old)
		return uint32(c.new[o]) | uint32(c.new[o+1])<<8
	}
	return half(c.old, o)
}

func half(b []byte, o int) uint32 { return uint32(b[o]) | uint32(b[o+1])<<8 }

// poolWord says whether the word that contains new offset n is literal pool.
func (c *codec) poolWord(n int) bool { return c.pools[n>>5&127]>>(n>>2&7)&1 != 0 }

// markPool records that an instruction at offset n loads the word at offset t.
func (c *codec) markPool(n, t int) {
	if d := t>>2 - n>>2; d > 0 && d < 1024 {
		c.pools[t>>5&127] |= 1 << (t >> 2 & 7)
	}
}

// prediction is what a halfword should be.
type prediction struct {
	value   uint32
	class   class
	changed bool // an address in it was adjusted
	how     int  // how that address was found
}

// predict predicts the halfword at new offset n from its source at o; end is where the segment
// ends in the new image.
func (c *codec) predict(n, o, end int) prediction {
	raw := c.source(o)
	p := prediction{value: raw, class: classPlain}
	if !c.thumb || o >= len(c.old) || o&1 != 0 {
		return p
	}
	if c.pending.at == n {
		return prediction{c.pending.pred, c.pending.class, c.pending.changed, c.pending.how}
	}
	pool := c.poolWord(n)
	if c.second && !pool {
		return p
	}
	two := n+4 <= end
	raw2 := uint32(0)
	if two {
		raw2 = half(c.old, o+2)
	}
	word := raw | raw2<<16
	pointer := two && n&3 == 0 && o&3 == 0 && word-c.am.base < uint32(len(c.old))
	// then sets the prediction of the next halfword.
	then := func(v uint32, cl class) {
		c.pending.at, c.pending.pred, c.pending.class = n+2, v, cl
		c.pending.changed, c.pending.how = p.changed, p.how
	}
	switch {
	case pointer:
		var v uint32
		v, p.how = c.am.address(word)
		p.value, p.changed, p.class = v&0xffff, v != word, classData
		if pool {
			p.class = classPtr0
		}
		then(v>>16, classPtr1)
	case pool:
		p.class = classPool0 + class(n>>1&1)
	case two && (isBL(raw, raw2) || isBW(raw, raw2) || isBCondW(raw, raw2)):
		target := c.am.base + uint32(o) + 4 + uint32(branchOffset(raw, raw2))
		var v uint32
		v, p.how = c.am.address(target)
		a, b := setBranch(raw, raw2, int32(v-c.am.base)-int32(n+4))
		p.value, p.changed, p.class = a, a != raw || b != raw2, classBL1
		then(b, classBL2)
		if !isBCondW(raw, raw2) {
			c.lesson.at, c.lesson.key, c.lesson.value = n+2, target, v
		}
	case isLDR(raw):
		p.class = classLDR
		if d := c.relative(&p, (o+4)&^3+int(raw&255)*4) - (n+4)&^3; d >= 0 && d < 1024 && d&3 == 0 {
			p.value = raw&0xff00 | uint32(d>>2)
		}
	case isBCond(raw):
		p.class = classB
		if d := c.relative(&p, o+4+int(int8(raw))*2) - (n + 4); d >= -256 && d < 256 {
			p.value = raw&0xff00 | uint32(d>>1)&0xff
		}
	case isB(raw):
		p.class = classB
		if d := c.relative(&p, o+4+int(int32(raw<<21)>>20)) - (n + 4); d >= -2048 && d < 2048 {
			p.value = raw&0xf800 | uint32(d>>1)&0x7ff
		}
	}
	p.changed = p.changed || p.value != raw
	return p
}

// relative maps the old offset t that an instruction refers to and notes in p how.
func (c *codec) relative(p *prediction, t int) int {
	n, inside := c.am.offset(t)
	p.how = b2i(inside)
	return n
}

// run codes the whole image. segs is the map when encoding.
func (c *codec) run(segs []segment, limit int) error {
	ctl := control{rc: c.rc}
	segs, err := ctl.segments(segs, len(c.new), len(c.old), limit)
	if err != nil {
		return err
	}
	c.am.segs = segs
	if c.trace != nil {
		c.trace.control = c.spent()
	}
	next := 0 // segment being copied or to come
	shift := 0
	for n := 0; n < len(c.new); n += 2 {
		before := c.spent()
		if next < len(segs) && n >= segs[next].end() {
			next++
		}
		p := prediction{class: classGap}
		have := next < len(segs) && n >= segs[next].start
		c.am.current = -1
		pool := c.thumb && c.poolWord(n)
		if have {
			shift = segs[next].shift()
			if segs[next].from < len(c.old) {
				c.am.current = next
			}
			p = c.predict(n, n+shift, segs[next].end())
		} else if pool {
			p.class = classPool0 + class(n>>1&1)
		}
		v := half(c.new, n) // what the encoder says; the decoder ignores it
		if have && c.flags.code(c.rc, v == p.value, p) {
			v = p.value
			c.note(p.class, before, false)
		} else {
			flag := c.spent()
			v = c.codeLiteral(n, n+shift, v, p, have, c.second && !pool)
			c.note(p.class, before, have)
			if c.trace != nil {
				c.trace.literals[p.class] += c.spent() - flag
				c.trace.flags[p.class] -= c.spent() - flag
			}
		}
		if c.trace != nil && c.trace.halfword != nil {
			c.trace.halfword[n/2] = uint32(c.spent() - before)
		}
		if c.rc.overrun() {
			return fmt.Errorf("%w: truncated, %d bytes end before byte %d of the image", ErrStream, len(c.rc.buf), n)
		}
		if c.most != 0 && c.cycles() > c.most {
			return fmt.Errorf("%w: %w: more than %d cycles at byte %d of the image", ErrStream, errCycles, c.most, n)
		}
		c.new[n], c.new[n+1] = byte(v), byte(v>>8)
		if c.thumb {
			c.follow(n, v, pool)
		}
		copy(c.last[1:], c.last[:])
		c.last[0] = v
	}
	return nil
}

// spent returns the cost of all bits so far for the trace, in 1/256 bit.
func (c *codec) spent() uint64 {
	switch {
	case c.trace == nil:
		return 0
	case c.rc.encode:
		return c.rc.cost
	}
	return c.rc.position()
}

// note books a halfword in the trace.
func (c *codec) note(cl class, before uint64, miss bool) {
	if c.trace == nil {
		return
	}
	c.trace.flags[cl] += c.spent() - before
	c.trace.count[cl]++
	c.trace.misses[cl] += b2i(miss)
}

// follow draws conclusions from the halfword v at offset n: addresses learned, literal pools
// ahead, instruction boundaries.
func (c *codec) follow(n int, v uint32, pool bool) {
	prev := c.last[0]
	if c.lesson.at == n {
		became := c.am.base + uint32(n+2) + uint32(branchOffset(prev, v))
		if became != c.lesson.value && (isBL(prev, v) || isBW(prev, v)) {
			c.am.learn(c.lesson.key, became)
		}
	}
	switch {
	case pool:
		c.second = false
		if n&2 != 0 {
			c.pools[n>>5&127] &^= 1 << (n >> 2 & 7)
		}
	case c.second:
		c.second = false
	default:
		if isLDR(v) {
			c.markPool(n, (n+4)&^3+int(v&0xff)*4)
		}
		c.second = wide(v)
	}
}
