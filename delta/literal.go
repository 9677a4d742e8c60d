package delta

// The literal model codes a halfword that was not, or not correctly, predicted, one byte after
// the other: in Thumb code the high byte (the opcode) first, otherwise in memory order. It has no
// large tables. Each time it looks at what followed the same byte nearby, in the new image just
// before the halfword and in the old image around the place it corresponds to, and at a journal
// of earlier mispredictions.

const (
	matchMax   = 8   // halfwords compared before a candidate
	scanBlock  = 128 // bytes of one direction before the next is looked at
	likeLimit  = 32  // journal entries that vote on a byte
	followers  = 32  // positions found by a scan for the second byte
	orderKinds = 4   // contexts of the order-0 histories
)

// Inputs of the mixer.
const (
	inByte      = iota     // what followed the previous byte
	inHalf                 // what followed the previous halfword
	inFollower             // second byte: what followed the first byte
	inJournal              // how the same class of halfword deviated from a like prediction
	inOrder0               // which bytes are frequent
	inHistories            // number of inputs above, each with 64 cells
	inMatch     = iota - 1 // what followed the longest match
	inDelta                // the prediction plus the last deviation of its class
	inNear                 // the prediction plus the deviation of the nearest prediction
	inBias
	numInputs
)

// candidate is a halfword that votes on the one being coded.
type candidate struct {
	value uint16 // first byte coded in the high byte
	kinds uint8  // bits by input: the votes it has
	match uint8  // halfwords before it that match
}

type misprediction struct {
	pred, value uint16 // first byte coded in the high byte
	class       class
}

type literalModel struct {
	window  int
	thumb   bool
	size    tables
	mix     *mixer
	cells   [inHistories * 64]cell
	match   [2 * (matchMax + 1)]cell // by byte and match length
	alt     [2 * 2 * 8]cell          // by byte, source of the guess, its successes
	order0  []history
	list    []candidate     // nearest first
	full    int             // length at which a scan of it ends
	journal []misprediction // a ring, next is the oldest
	next    int

	delta   [numClasses]uint16 // last deviation
	success [2][numClasses]uint8
	work    Work
}

func (l *literalModel) init(t tables, window int, thumb bool) {
	l.window, l.thumb, l.size = window, thumb, t
	for k := range inHistories {
		initHistoryCells(l.cells[k*64:])
	}
	for i := range l.match {
		l.match[i] = cell(40960 + i%(matchMax+1)*2600)
	}
	for i := range l.alt {
		l.alt[i] = cell(40960 + i%8*2600)
	}
	l.order0 = make([]history, t.order0)
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
	l.full = len(l.list) + l.size.candidates
	if !first {
		l.full = len(l.list) + followers
	}
	for b := 0; b < l.window; b += scanBlock {
		if !c.scanBlock(c.new[:n], n-b-2, -step, at, key) ||
			!c.scanBlock(c.old, o+b, step, at, key) ||
			!c.scanBlock(c.old, o-b-step, -step, at, key) {
			return
		}
	}
}

// scanBlock scans scanBlock bytes of img from offset j on and reports whether there is room for
// more. A halfword is looked at only when it lies within img and is not the first.
func (c *codec) scanBlock(img []byte, j, step, at int, key byte) bool {
	l := &c.literal
	last := j + (scanBlock/max(step, -step)-1)*step
	low, high := 2, len(img)-2
	if step < 0 {
		if high < j {
			j -= (j - high - step - 1) / -step * -step
		}
		last = max(last, low+(last-low)&(-step-1))
		if j < last {
			return true
		}
		l.work.Scanned += uint64((j-last)/-step + 1)
	} else {
		if j < low {
			j += (low - j + step - 1) / step * step
		}
		last = min(last, high)
		if j > last {
			return true
		}
		l.work.Scanned += uint64((last-j)/step + 1)
	}
	for ; ; j += step {
		if step < 0 && j < last || step > 0 && j > last {
			return true
		}
		if img[j+at] != key {
			continue
		}
		e := candidate{value: uint16(l.swap(half(img, j))), kinds: 1 << inFollower}
		if at < 0 {
			e.kinds = 1 << inByte
			for e.match < matchMax && j >= 2*int(e.match)+2 && half(img, j-2*int(e.match)-2) == c.last[e.match] {
				e.match++
				e.kinds = 1<<inByte | 1<<inHalf
			}
		}
		l.list = append(l.list, e)
		if len(l.list) == l.full {
			return false
		}
	}
}

// codeLiteral codes halfword v at new offset n; o is the source offset it would have were the last
// segment longer.
func (c *codec) codeLiteral(n, o int, v uint32, p prediction, have, second bool) uint32 {
	l := &c.literal
	v = l.swap(v)
	pred := l.swap(p.value)
	l.work.Literals++
	c.scan(n, o, byte(c.last[0]>>8), true)

	guess := l.remember(pred, p.class, have, true)
	ctx := b2i(p.class.isData())*2 + b2i(second)
	b := byteModel{ctx: ctx, have: have, second: second, class: p.class, first: true}
	b.guess[0], b.guess[1] = uint8(guess[0]>>8), uint8(guess[1]>>8)
	b.guessed = [2]bool{have, have}
	hi := l.code(c.rc, v>>8, &b)

	c.scan(n, o, byte(hi), false)
	l.remember(pred, p.class, have, false)
	b.first = false
	for k, g := range guess {
		b.guess[k], b.guessed[k] = uint8(g), have && uint8(g>>8) == uint8(hi)
	}
	v = hi<<8 | l.code(c.rc, v&0xff, &b)

	if have {
		for k, g := range guess {
			s := &l.success[k][p.class]
			if uint16(g) == uint16(v) {
				*s = min(*s+1, 7)
			} else {
				*s /= 2
			}
		}
		l.delta[p.class] = uint16(v - pred)
		e := misprediction{uint16(pred), uint16(v), p.class}
		if len(l.journal) < l.size.journal {
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
// has the same first (or second) byte become candidates, and the deviations of the latest one and
// of the nearest other prediction are returned as guesses.
func (l *literalModel) remember(pred uint32, cl class, have, first bool) (guess [2]uint16) {
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
		same := uint8(e.pred) == uint8(pred)
		if first {
			same = e.pred>>8 == uint16(pred>>8)
		}
		if same && len(l.list) < full {
			l.list = append(l.list, candidate{value: e.value, kinds: 1 << inJournal})
		}
	}
	return guess
}

// byteModel is what the coding of one byte depends on.
type byteModel struct {
	ctx     int // of the order-0 histories
	have    bool
	second  bool
	first   bool
	class   class
	guess   [2]uint8
	guessed [2]bool
}

// code codes byte v.
func (l *literalModel) code(rc *coder, v uint32, b *byteModel) uint32 {
	pos := b2i(b.first)
	match, matchLen := -1, uint8(1)
	for i := len(l.list) - 1; i >= 0; i-- { // the nearest of the longest
		if e := &l.list[i]; e.match >= 2 && e.match >= matchLen {
			match, matchLen = int(e.value>>(8*pos)&0xff), e.match
		}
	}
	var (
		in   = l.mix.in
		used [numInputs - 1]*cell
		flip [numInputs - 1]int
	)
	node := uint32(1)
	for i := 7; i >= 0; i-- {
		var h [inHistories]history
		shift := i + 8*pos
		for k := len(l.list) - 1; k >= 0; k-- {
			e := &l.list[k]
			next := &historyNext[e.value>>shift&1]
			for j := range inOrder0 {
				if e.kinds>>j&1 != 0 {
					h[j] = next[h[j]]
				}
			}
		}
		l.work.Folded += uint64(len(l.list))
		order0 := &l.order0[(b.ctx*2+pos)<<8&(len(l.order0)-1)|int(node)]
		h[inOrder0] = *order0
		for k, s := range h {
			in[k], used[k] = 0, nil
			if s != 0 {
				used[k], flip[k] = &l.cells[k*64+int(historyLevel[s>>4])*8+int(historyLevel[s&15])], 0
				in[k] = stretch(uint16(*used[k]))
			}
		}
		// expect says that byte e is likely, as far as it agrees with the bits known.
		expect := func(k int, ok bool, e uint8, c *cell) {
			in[k], used[k] = 0, nil
			if ok && (uint32(e)|256)>>(i+1) == node {
				used[k], flip[k] = c, 1-int(e>>i&1)
				in[k] = stretch(uint16(*c))
				if flip[k] != 0 {
					in[k] = -in[k]
				}
			}
		}
		expect(inMatch, match >= 0, uint8(match), &l.match[pos*(matchMax+1)+int(matchLen)])
		for k := range 2 {
			expect(inDelta+k, b.guessed[k], b.guess[k], &l.alt[(pos*2+k)*8+int(l.success[k][b.class])])
		}
		in[inBias] = 64
		agree := 0
		if h[inHalf] != 0 {
			agree = 1
		}
		if used[inMatch] != nil {
			agree += 2
		}
		set := (pos*2+b2i(b.second)+b2i(b.have)*4)*4 + agree
		bit := rc.bit(int(v>>i&1), min(max(l.mix.mix(set), 16), 65520))
		l.mix.update(bit)
		for k, c := range used {
			if c != nil {
				c.update(bit ^ flip[k])
			}
		}
		*order0 = historyNext[bit][*order0]
		node = node<<1 | uint32(bit)

		w := 0
		for _, e := range l.list {
			if int(e.value>>shift&1) == bit {
				l.list[w] = e
				w++
			}
		}
		l.list = l.list[:w]
	}
	return node & 0xff
}
