package delta

import (
	"bytes"
	"math/bits"
)

// The literal model codes a halfword that was not, or not correctly, predicted, one byte after
// the other: in Thumb code the high byte (the opcode) first, otherwise in memory order. It has no
// large tables. Each time it looks at what followed the same byte nearby, in the new image just
// before the halfword and in the old image around the place it corresponds to, and at a journal
// of earlier mispredictions.

const (
	matchMax    = 3     // halfwords compared before a candidate
	scanBlock   = 128   // bytes of one direction before the next is looked at
	candidates  = 64    // positions found by a scan for the first byte
	followers   = 32    // positions found by a scan for the second byte
	likeLimit   = 32    // journal entries that vote
	guessLikely = 40960 // probability that a guess is right, at first
)

// Inputs of the mixer.
const (
	inByte     = iota // what followed the previous byte
	inHalf            // what followed the previous halfwords, by how many are the same
	inFollower        // second byte: what followed the first byte
	inJournal         // how the same class of halfword deviated from a like prediction
	inGuess           // the prediction plus the last deviation of its class
	inNear            // the prediction plus the deviation of the nearest prediction
	inOrder0          // which bytes are frequent
	inBias
	numInputs
	numVotes = inGuess // inputs that candidates vote for, each with 64 cells
)

// candidate is a halfword that votes on the one being coded.
type candidate struct {
	value uint16 // first byte coded in the high byte
	input uint8  // the input it votes for
	match uint8  // halfwords before it that match, votes for inHalf
}

type misprediction struct {
	pred, value uint16 // first byte coded in the high byte
	class       class
}

type literalModel struct {
	window  int
	thumb   bool
	size    int // of the journal, when it is full
	mix     *mixer
	cells   [numVotes * 64]cell
	guesses [2 * 2]cell     // by byte, source of the guess
	order0  []uint8         // probabilities of a one, in 1/256
	list    []candidate     // nearest first
	full    int             // length at which a scan of it ends
	journal []misprediction // a ring, next is the oldest
	next    int

	delta [numClasses]uint16 // last deviation
	work  Work
}

func (l *literalModel) init(journal, window int, thumb bool) {
	l.window, l.thumb, l.size = window, thumb, journal
	for k := range numVotes {
		initVoteCells(l.cells[k*64:])
	}
	for i := range l.guesses {
		l.guesses[i] = guessLikely
	}
	l.order0 = make([]uint8, journal*order0Ratio)
	for i := range l.order0 {
		l.order0[i] = 128
	}
	l.mix = newMixer(32, numInputs)
}

// swap puts the byte that is coded first into the high byte.
func (l *literalModel) swap(v uint32) uint32 {
	if l.thumb {
		return v
	}
	return v>>8&0xff | v<<8&0xff00
}

// scan looks for bytes equal to key near new offset n and old offset o, nearest first, until a
// list is full: with first, at the end of the previous halfword, noting what follows; otherwise
// at the first byte of a halfword, noting its second byte.
func (c *codec) scan(n, o int, key byte, first bool) {
	l := &c.literal
	step, at := 1, 0
	if l.thumb {
		step, at = 2, 1
		o &^= 1
	}
	if first {
		at = -1
		l.list = l.list[:0]
	}
	l.full = len(l.list) + candidates
	if !first {
		l.full = len(l.list) + followers
	}
	for b := 0; b < l.window; b += scanBlock {
		if !c.scanBlock(c.new[:n], n-b-scanBlock, -step, at, key) ||
			!c.scanBlock(c.old, o+b, step, at, key) ||
			!c.scanBlock(c.old, o-b-scanBlock, -step, at, key) {
			return
		}
	}
}

// scanBlock scans scanBlock bytes of img from low on, backwards if step is negative, and reports
// whether there is room for more. A halfword is looked at only when it lies within img and is
// not the first.
func (c *codec) scanBlock(img []byte, low, step, at int, key byte) bool {
	l := &c.literal
	size := max(step, -step)
	high := min(low+scanBlock-size, (len(img)-2)&-size)
	low = max(low, 2)
	if low > high {
		return true
	}
	l.work.Scanned += uint64((high-low)/size + 1)
	// bytes.IndexByte looks at many bytes at a time, but only goes forwards.
	block := img[low+at : high+at+1]
	var found [scanBlock]uint8 // halfwords with key, from low
	n := 0
	for i := 0; i < len(block); i++ {
		k := bytes.IndexByte(block[i:], key)
		if k < 0 {
			break
		}
		if i += k; i&(size-1) == 0 {
			found[n] = uint8(i)
			n++
		}
	}
	for k := range n {
		if step < 0 {
			k = n - 1 - k
		}
		if !c.add(img, low+int(found[k]), at) {
			return false
		}
	}
	return true
}

// add enters the halfword of img at j into the list and reports whether there is room for more.
func (c *codec) add(img []byte, j, at int) bool {
	l := &c.literal
	e := candidate{value: uint16(l.swap(half(img, j))), input: inFollower}
	if at < 0 {
		e.input = inByte
		for e.match < matchMax && j >= 2*int(e.match)+2 && half(img, j-2*int(e.match)-2) == c.last[e.match] {
			e.match++
		}
	}
	l.list = append(l.list, e)
	return len(l.list) < l.full
}

// codeLiteral codes halfword v at new offset n; o is the source offset it would have were the last
// segment longer.
func (c *codec) codeLiteral(n, o int, v uint32, p prediction, have, second bool) uint32 {
	l := &c.literal
	v = l.swap(v)
	pred := l.swap(p.value)
	l.work.Literals++
	c.scan(n, o, byte(c.last[0]>>8), true)

	guess := l.remember(pred, p.class, have)
	b := byteModel{have: have, second: second, class: p.class, guess: guess, node: 1}
	l.code(c.rc, v, 1, &b)
	c.scan(n, o, byte(b.node), false)
	l.code(c.rc, v, 0, &b)
	v = b.node & 0xffff

	if have {
		l.delta[p.class] = uint16(v - pred)
		e := misprediction{uint16(pred), uint16(v), p.class}
		if len(l.journal) < l.size {
			l.journal = append(l.journal, e)
		} else {
			l.journal[l.next] = e
			l.next = (l.next + 1) % len(l.journal)
		}
	}
	return l.swap(v)
}

// entry returns journal entry i, 0 being the oldest.
func (l *literalModel) entry(i int) *misprediction {
	if i += l.next; i >= len(l.journal) {
		i -= len(l.journal)
	}
	return &l.journal[i]
}

// remember looks through the journal, latest first: mispredictions of the class whose prediction
// has the same first byte become candidates, and the deviations of the latest one and of the
// nearest other prediction are returned as guesses.
func (l *literalModel) remember(pred uint32, cl class, have bool) (guess [2]uint16) {
	guess[0] = uint16(pred) + l.delta[cl]
	guess[1] = guess[0]
	if !have {
		return guess
	}
	best := 1 << 16
	l.work.Journal += uint64(len(l.journal))
	full := len(l.list) + likeLimit
	for i := len(l.journal) - 1; i >= 0; i-- {
		e := l.entry(i)
		if e.class != cl {
			continue
		}
		d := int(e.pred) - int(pred)
		if d < 0 {
			d = -d
		}
		if a := uint16(pred) + e.value - e.pred; d < best && a != guess[0] {
			best, guess[1] = d, a
		}
		if e.pred>>8 == uint16(pred>>8) && len(l.list) < full {
			l.list = append(l.list, candidate{value: e.value, input: inJournal})
		}
	}
	return guess
}

// byteModel is what the coding of a halfword depends on.
type byteModel struct {
	have   bool
	second bool
	class  class
	guess  [2]uint16
	node   uint32 // 1 and the bits coded so far
}

// level folds a number of votes: 0, 1, 2, 3 and 4, 5 to 8, 9 to 16, 17 to 32, 33 and more.
func level(n uint32) int {
	if n == 0 {
		return 0
	}
	return min(bits.Len32(n-1)+1, 7)
}

// code codes the byte of v at pos, which is 1 for the first.
func (l *literalModel) code(rc *coder, v uint32, pos int, b *byteModel) {
	var (
		in   = l.mix.in
		used [inOrder0]*cell // of the inputs, nil for those that are 0
		flip [inOrder0]int   // 1 if the cell is the probability of a zero
		node = 1
	)
	ctx := (b2i(b.class.isData())*2+b2i(b.second))*2 + pos
	order0 := l.order0[ctx<<8&(len(l.order0)-1):]
	for i := 8*pos + 7; i >= 8*pos; i-- {
		votes := l.vote(i, b.node)
		for k := range numVotes {
			n0, n1 := level(votes[0][k]), level(votes[1][k])
			in[k], used[k] = 0, nil
			if n0|n1 != 0 {
				used[k], flip[k] = &l.cells[k*64+n0*8+n1], 0
				in[k] = stretch(uint16(*used[k]))
			}
		}
		for g, guess := range b.guess {
			k := inGuess + g
			in[k], used[k] = 0, nil
			if b.have && (uint32(guess)|1<<16)>>(i+1) == b.node {
				used[k], flip[k] = &l.guesses[pos*2+g], 1-int(guess>>i&1)
				in[k] = stretch(uint16(*used[k]))
				if flip[k] != 0 {
					in[k] = -in[k]
				}
			}
		}
		in[inOrder0] = stretch(uint16(order0[node])<<8 | 128)
		in[inBias] = 64
		set := ctx*4 + b2i(b.have)*2 + b2i(used[inHalf] != nil)
		bit := rc.bit(int(v>>i&1), min(max(l.mix.mix(set), 16), 65520))
		l.mix.update(bit)
		for k, c := range used {
			if c != nil {
				c.update(bit ^ flip[k])
			}
		}
		if bit != 0 {
			order0[node] += (255 - order0[node]) >> 3
		} else {
			order0[node] -= order0[node] >> 3
		}
		node = node<<1 | bit
		b.node = b.node<<1 | uint32(bit)
	}
}

// vote drops the candidates that disagree with the bits so far, node, and returns the votes of the
// others on bit i, by bit and input. The nearer count more.
func (l *literalModel) vote(i int, node uint32) (votes [2][numVotes]uint32) {
	l.work.Folded += uint64(len(l.list))
	n := 0
	for _, e := range l.list {
		if (uint32(e.value)|1<<16)>>(i+1) != node {
			continue
		}
		weight := uint32(1)
		switch {
		case n < 2:
			weight = 4
		case n < 8:
			weight = 2
		}
		bit := e.value >> i & 1
		votes[bit][e.input] += weight
		votes[bit][inHalf] += weight * uint32(e.match)
		l.list[n] = e
		n++
	}
	l.list = l.list[:n]
	return votes
}
