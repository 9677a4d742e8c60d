package radio

import (
	"fmt"
	"math"
	"math/bits"
	"time"
)

// GilbertElliott describes a channel that alternates between a good and a bad state, in time: a Markov chain that
// takes a step at each multiple of Step, whether or not a frame is sent. Burst lengths therefore do not depend on how
// densely a class of device is sent to.
type GilbertElliott struct {
	Step     time.Duration // at least 1 ms
	ToBad    float64       // probability of good → bad at a step
	ToGood   float64       // probability of bad → good at a step; ToBad+ToGood is 1e-5..1
	LossGood float64       // of a frame that begins in the good state
	LossBad  float64       // of one in the bad state
}

// Bursts returns the channel that loses everything in its bad state, is there for share loss of the time, and for
// burst on average each time.
func Bursts(step time.Duration, loss float64, burst time.Duration) (GilbertElliott, error) {
	switch {
	case step < time.Millisecond:
		return GilbertElliott{}, fmt.Errorf("radio: step %v is below 1ms", step)
	case !(loss >= 0 && loss < 1):
		return GilbertElliott{}, fmt.Errorf("radio: loss %v is outside 0 up to but not including 1", loss)
	case burst < step:
		return GilbertElliott{}, fmt.Errorf("radio: mean burst %v is shorter than the step %v", burst, step)
	}
	leave := float64(step) / float64(burst)
	g := GilbertElliott{Step: step, ToGood: leave, ToBad: float64(leave*loss) / (1 - loss), LossBad: 1}
	if g.ToBad+g.ToGood > 1 {
		return g, fmt.Errorf("radio: bursts of %v at %v loss need more than one change per step %v; the burst must be at least step/(1-loss)", burst, loss, step)
	}
	return g, nil
}

// New returns the process.
func (g GilbertElliott) New(seed uint64) (Loss, error) {
	if g.Step < time.Millisecond {
		return nil, fmt.Errorf("radio: step %v is below 1ms", g.Step)
	}
	for _, v := range []struct {
		name string
		p    float64
	}{{"good to bad", g.ToBad}, {"bad to good", g.ToGood}, {"loss in the good state", g.LossGood}, {"loss in the bad state", g.LossBad}} {
		if err := checkProbability(v.name, v.p); err != nil {
			return nil, err
		}
	}
	if s := g.ToBad + g.ToGood; s > 1 || s < 1e-5 {
		return nil, fmt.Errorf("radio: good to bad %v and bad to good %v add up to %v, want 1e-5..1", g.ToBad, g.ToGood, s)
	}
	m := markov{seed: seed, step: g.Step, bad: newThreshold(g.ToBad), lossGood: newThreshold(g.LossGood), lossBad: newThreshold(g.LossBad)}
	if g.ToBad < 1 {
		m.good = newThreshold(g.ToGood / (1 - g.ToBad))
	}
	return m, nil
}

// Outages returns the common-mode process of interruptions that last mean on average and leave between of undisturbed
// time, each of exponential length in steps of step; everything is lost in them, by all devices.
func Outages(seed uint64, step, mean, between time.Duration) (Loss, error) {
	if mean < step || between < step {
		return nil, fmt.Errorf("radio: outages of %v every %v need a step shorter than %v", mean, between, step)
	}
	m, err := GilbertElliott{Step: step, ToGood: float64(step) / float64(mean), ToBad: float64(step) / float64(between), LossBad: 1}.New(seed)
	if err != nil {
		return nil, err
	}
	return Common(m), nil
}

// markov is a two-state chain with random access. Each step draws one of three orders, whatever the state: "be bad"
// (probability ToBad), "be good" (ToGood) or "stay". From a good state that leads to bad with ToBad, from a bad one to
// good with ToGood, as it should; and the state at any step is what the last order before it said. So no chain has to
// be followed from its beginning, and 64 steps are drawn at once.
type markov struct {
	seed              uint64
	step              time.Duration
	bad, good         threshold // good: given that the order is not "be bad"
	lossGood, lossBad threshold
}

// orders draws the orders of steps 64w..64w+63: which are given at all, and which of them are "be bad".
func (m markov) orders(state, leave uint64, w int64) (given, bad uint64) {
	bad = m.bad.word(state, uint64(w))
	return bad | m.good.word(leave, uint64(w)), bad
}

// at returns the state at a step.
func (m markov) at(state, leave uint64, step int64) bool {
	mask := uint64(math.MaxUint64) >> (63 - step&63)
	for w := step >> 6; ; w-- {
		given, bad := m.orders(state, leave, w)
		if given &= mask; given != 0 {
			return bad>>(bits.Len64(given)-1)&1 != 0
		}
		mask = math.MaxUint64
	}
}

// follow turns 64 orders into 64 states, beginning after a state: each step copies the state before it unless it has
// an order of its own. Doubling the distance copied takes 6 rounds for 64 steps.
func follow(given, bad uint64, before bool) uint64 {
	if before && given&1 == 0 {
		given |= 1
		bad |= 1
	}
	for d := 1; d < 64; d <<= 1 {
		bad |= bad << d &^ given
		given |= given << d
	}
	return bad
}

func (m markov) Lost(l Link, s Slot) bool {
	t := m.lossGood
	if m.at(key(m.seed, purposeState, l, 0), key(m.seed, purposeRecover, l, 0), int64(s.At/m.step)) {
		t = m.lossBad
	}
	return t.bit(key(m.seed, purposeFate, l, s.Copy), uint64(s.Fragment))
}

func (m markov) Sampler(slots []Slot) Sampler {
	s := markovSampler{markov: m, steps: cells(slots, m.step), inOrder: true}
	for i, c := range s.steps {
		s.inOrder = s.inOrder && (i == 0 || c >= s.steps[i-1])
		s.gaps = s.gaps || i > 0 && c != s.steps[i-1]+1
	}
	if m.lossGood != 0 {
		s.good = perFrame{m.seed, func(Link) threshold { return m.lossGood }}.Sampler(slots)
	}
	if m.lossBad != math.MaxUint64 {
		s.bad = perFrame{m.seed, func(Link) threshold { return m.lossBad }}.Sampler(slots)
	}
	return s
}

type markovSampler struct {
	markov
	steps     []int64
	gaps      bool    // the slots are not one in each step
	inOrder   bool    // the slots are in order of time
	good, bad Sampler // of frames in these states; nil where all arrive, or all are lost
}

func (s markovSampler) Fill(lost []uint64, l Link) {
	n := len(s.steps)
	if n == 0 {
		return
	}
	lost = lost[:(n+63)/64]
	s.states(lost, key(s.seed, purposeState, l, 0), key(s.seed, purposeRecover, l, 0))
	if s.good == nil && s.bad == nil {
		return
	}
	fates := make([]uint64, 2*len(lost))
	good, bad := fates[:len(lost)], fates[len(lost):]
	if s.good != nil {
		s.good.Fill(good, l)
	}
	if s.bad != nil {
		s.bad.Fill(bad, l)
	}
	for w, v := range lost {
		b := v
		if s.bad != nil {
			b &= bad[w]
		}
		lost[w] = b | good[w]&^v
	}
}

// states sets the bits of the slots that begin in the bad state.
func (s markovSampler) states(out []uint64, state, leave uint64) {
	if !s.inOrder {
		clear(out)
		for i, c := range s.steps {
			if s.at(state, leave, c) {
				out[i>>6] |= 1 << (i & 63)
			}
		}
		return
	}
	first := s.steps[0]
	w := first >> 6
	word := s.word(state, leave, w, s.at(state, leave, w<<6-1))
	next := func() {
		w++
		word = s.word(state, leave, w, word>>63 != 0)
	}
	if !s.gaps {
		shift := uint(first & 63)
		for i := range out {
			v := word >> shift
			next()
			out[i] = v | word<<(64-shift) // a shift by 64 yields 0
		}
		return
	}
	clear(out)
	for i, c := range s.steps {
		if c>>6 > w+64 { // far ahead: looking back is cheaper than following
			w = c >> 6
			word = s.word(state, leave, w, s.at(state, leave, w<<6-1))
		}
		for c>>6 > w {
			next()
		}
		out[i>>6] |= word >> (c & 63) & 1 << (i & 63)
	}
}

// word returns the states of steps 64w..64w+63 after the state before them.
func (m markov) word(state, leave uint64, w int64, before bool) uint64 {
	given, bad := m.orders(state, leave, w)
	return follow(given, bad, before)
}
