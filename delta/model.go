package delta

// The arithmetic of the model. Probabilities are 16-bit, those of a one (or of "as predicted");
// the logistic domain is ln(p/(1-p)) in units of 1/256. Everything here is integer and bit exact
// in firmware-stub/src/sow_patch.c.

// lnTable[i] is -256 ln((i+4)/64).
var lnTable = [61]uint16{
	710, 653, 606, 567, 532, 502, 475, 451, 429, 408, 389, 371, 355, 339, 325, 311,
	298, 285, 273, 262, 251, 241, 231, 221, 212, 203, 194, 186, 177, 170, 162, 155,
	147, 140, 133, 127, 120, 114, 108, 102, 96, 90, 85, 79, 74, 68, 63, 58,
	53, 48, 43, 39, 34, 30, 25, 21, 17, 12, 8, 4, 0,
}

// squashTable[i] is 65536/(1+exp(-i/4)).
var squashTable = [49]uint16{
	32768, 36843, 40793, 44511, 47911, 50941, 53581, 55834, 57724, 59287, 60565, 61598, 62428, 63090,
	63615, 64030, 64357, 64614, 64816, 64974, 65097, 65194, 65269, 65328, 65374, 65410, 65438, 65459,
	65476, 65489, 65500, 65508, 65514, 65519, 65523, 65526, 65528, 65530, 65531, 65532, 65533, 65534,
	65534, 65535, 65535, 65535, 65535, 65535, 65535,
}

// logOf returns 256 ln(q/65536), 1 <= q <= 65535.
func logOf(q uint32) int32 {
	v := int32(0)
	for q < 4096 {
		q <<= 4
		v -= 710
	}
	i := q>>10 - 4
	a, b := int32(lnTable[i]), int32(lnTable[i+1])
	return v - a + (a-b)*int32(q&1023)>>10
}

// stretchTable caches stretch; the device computes it.
var stretchTable = func() *[65536]int16 {
	t := new([65536]int16)
	for p := uint32(1); p < 65536; p++ {
		t[p] = int16(logOf(p) - logOf(65536-p))
	}
	return t
}()

// stretch returns ln(p/(1-p)) of a probability 1 <= p <= 65535.
func stretch(p uint16) int32 { return int32(stretchTable[p]) }

// maxStretch bounds what a mixer returns.
const maxStretch = 3071

// squash is the inverse of stretch.
func squash(x int32) uint32 {
	a := x
	if a < 0 {
		a = -a
	}
	i := a >> 6
	v, w := int32(squashTable[i]), int32(squashTable[i+1])
	v += (w - v) * (a & 63) >> 6
	if x < 0 {
		v = 65536 - v
	}
	return uint32(v)
}

// counter is a probability that adapts by 1/(n+1.6), n being the times it was used, up to a limit.
type counter struct {
	p uint16
	n uint8
}

var reciprocal = func() (t [256]uint32) {
	for n := range t {
		t[n] = uint32(655360 / (10*n + 16))
	}
	return t
}()

func (c *counter) update(bit int, limit uint8) {
	r := reciprocal[c.n]
	if bit != 0 {
		c.p += uint16(((65535-uint32(c.p))*r + 65535) >> 16)
	} else {
		c.p -= uint16(uint32(c.p) * r >> 16)
	}
	if c.n < limit {
		c.n++
	}
}

// cell is a probability that adapts by 1/64.
type cell uint16

func (c *cell) update(bit int) {
	if bit != 0 {
		*c += (65535 - *c) >> 6
	} else {
		*c -= *c >> 6
	}
}

// initVoteCells fills 64 cells, one for each pair of levels, with what the votes suggest.
func initVoteCells(c []cell) {
	for i := range 64 {
		n0, n1 := 10<<(i>>3)>>1, 10<<(i&7)>>1
		c[i] = cell((n1 + 4) * 65535 / (n0 + n1 + 8))
	}
}

// mixer is a set of logistic mixers: weight vectors of which a context selects one. A weight of
// 1 is 16384.
type mixer struct {
	weights []int16
	in      []int32
	set     int    // offset of the vector in use
	p       uint32 // its last answer
}

// initialWeight is what every weight starts from.
const initialWeight = 4500

func newMixer(sets, inputs int) *mixer {
	m := &mixer{in: make([]int32, inputs)}
	for range sets * inputs {
		m.weights = append(m.weights, initialWeight)
	}
	return m
}

// mix returns the probability of a one given the inputs in m.in.
func (m *mixer) mix(set int) uint32 {
	m.set = set * len(m.in)
	dot := int32(0)
	for i, w := range m.weights[m.set : m.set+len(m.in)] {
		dot += int32(w) * m.in[i]
	}
	dot >>= 14
	m.p = squash(max(-maxStretch, min(maxStretch, dot)))
	return m.p
}

func (m *mixer) update(bit int) {
	e := int32(bit)*65535 - int32(m.p)
	for i, x := range m.in {
		w := &m.weights[m.set+i]
		*w = int16(max(-32767, min(32767, int32(*w)+(x*e+1<<15)>>16)))
	}
}
