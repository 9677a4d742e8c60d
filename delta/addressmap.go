package delta

// addressMap turns old addresses into new ones: by the segments, and by what was learned from
// addresses that the segments got wrong or do not cover.
type addressMap struct {
	segs    []segment
	current int    // index of the segment being copied, or -1
	found   int    // index of the segment that contained the offset mapped last
	base    uint32 // address of offset 0
	size    int    // of the old image

	keys, values []uint32 // learned, a ring
	used, next   int
	lookups      uint64 // segments visited, for the cycle estimate
}

// How an address was found; contexts of the flag model.
const (
	fromGap     = iota // by the nearest segment
	fromSegment        // inside a segment
	fromLearned        // learned before
)

// contains says whether segment i has a source in the old image that contains offset t.
func (m *addressMap) contains(i, t int) bool {
	s := &m.segs[i]
	return t >= s.from && t < s.from+s.length && s.from < m.size
}

// offset maps an offset in the old image; inside says that a segment contains it.
func (m *addressMap) offset(t int) (n int, inside bool) {
	if m.current >= 0 && m.contains(m.current, t) {
		return t - m.segs[m.current].shift(), true
	}
	if len(m.segs) > 0 && m.contains(m.found, t) {
		m.lookups++
		return t - m.segs[m.found].shift(), true
	}
	// The first segment that contains t, or else the nearest.
	best, shift := 1<<30, 0
	for i := range m.segs {
		s := &m.segs[i]
		m.lookups++
		if m.contains(i, t) {
			m.found = i
			return t - s.shift(), true
		}
		d := s.from - t
		if d < 0 {
			d = t - (s.from + s.length) + 1
		}
		if d < best && s.from < m.size {
			best, shift = d, s.shift()
		}
	}
	return t - shift, false
}

// inImage says whether address a lies in the old image.
func (m *addressMap) inImage(a uint32) bool { return a-m.base < uint32(m.size) }

// address maps an address; bit 0, the Thumb bit of a pointer, is kept.
func (m *addressMap) address(a uint32) (v uint32, how int) {
	for i, k := range m.keys[:m.used] {
		if k == a {
			return m.values[i], fromLearned
		}
	}
	if !m.inImage(a) {
		return a, fromGap
	}
	n, inside := m.offset(int(a-m.base) &^ 1)
	return m.base + uint32(n) + a&1, b2i(inside)
}

// learn records that old address k became v.
func (m *addressMap) learn(k, v uint32) {
	for i := range m.keys[:m.used] {
		if m.keys[i] == k {
			m.values[i] = v
			return
		}
	}
	m.keys[m.next], m.values[m.next] = k, v
	m.next++
	m.used = max(m.used, m.next)
	if m.next == len(m.keys) {
		m.next = 0
	}
}
