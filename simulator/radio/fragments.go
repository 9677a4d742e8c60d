package radio

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Slot is one transmission of a broadcast: which fragment, for which time, and when it begins.
type Slot struct {
	Fragment uint32        // counted from 0
	Copy     uint32        // counts the repetitions of that fragment
	At       time.Duration // since the epoch of the experiment
}

// Link is a device in one repetition of an experiment. Streams with equal parameters are independent.
type Link struct {
	Device uint64
	Stream uint64
}

// Loss is a loss process: the fate of a frame as a pure function of the seed and parameters it was made with, the
// link and the slot, whatever else was sent. So a repair round, another policy or another number of workers leaves
// the fates of all other frames alone, and two policies can be compared on the same luck.
//
// All processes compute in integers, or in floating point without fused operations, and give the same fates on every
// processor. They are safe for concurrent use.
type Loss interface {
	// Lost says whether the frame does not arrive.
	Lost(l Link, s Slot) bool
	// Sampler prepares the slots of a broadcast, which it does not keep, for many devices. It agrees with Lost.
	Sampler(slots []Slot) Sampler
}

// Sampler draws the fates of a whole broadcast. It is safe for concurrent use.
type Sampler interface {
	// Fill sets bit i%64 of lost[i/64] if slot i is lost and clears it if not, for all slots. Further bits of the
	// words it touches are undefined; lost has room for all slots.
	Fill(lost []uint64, l Link)
}

const golden = 0x9e3779b97f4a7c15

// Purposes of a stream of random bits, so that no two of them share bits.
const (
	purposeFate = iota + 1
	purposeState
	purposeRecover
	purposeDevice
	purposeOffset
)

// key begins the stream of a link for a purpose. copy is 0 where repetitions share a state.
func key(seed uint64, purpose uint64, l Link, copy uint32) uint64 {
	return Hash(seed, purpose<<32|uint64(copy), l.Device, l.Stream)
}

// threshold is a probability in units of 2^-64; all ones stands for 1.
type threshold uint64

func newThreshold(p float64) threshold {
	if p <= 0 {
		return 0
	}
	if p >= 1 {
		return math.MaxUint64
	}
	return threshold(float64(p * 0x1p64))
}

// word draws 64 independent bits of this probability, number w of the stream k. It compares 64 uniform numbers with
// the threshold at once, from the top bit down, until all comparisons are decided, which takes 7 or 8 hashes.
func (t threshold) word(k, w uint64) uint64 {
	if t == math.MaxUint64 {
		return math.MaxUint64
	}
	var below uint64
	open := uint64(math.MaxUint64)
	k += w * 64 * golden
	for rest := t; open != 0 && rest != 0; rest <<= 1 {
		k += golden
		r := mix(k)
		// The bit of the threshold is as good as random, so it is turned into a mask rather than a branch.
		one := -uint64(rest >> 63)
		below |= open &^ r & one
		open &= r ^ ^one
	}
	return below
}

func (t threshold) bit(k, i uint64) bool { return t.word(k, i>>6)>>(i&63)&1 != 0 }

// run is a piece of a broadcast with consecutive fragments.
type run struct {
	pos   int // of the first of them in the broadcast
	first uint64
	n     int
	copy  uint32
}

func runs(slots []Slot) []run {
	var out []run
	for i, s := range slots {
		if k := len(out) - 1; k >= 0 && out[k].copy == s.Copy && uint64(s.Fragment) == out[k].first+uint64(out[k].n) {
			out[k].n++
			continue
		}
		out = append(out, run{pos: i, first: uint64(s.Fragment), n: 1, copy: s.Copy})
	}
	return out
}

// place writes the bits of a run, which begin at bit r.first of an endless sequence of words, to their position.
func (r run) place(lost []uint64, word func(w uint64) uint64) {
	for done := 0; done < r.n; {
		at, from := r.pos+done, r.first+uint64(done)
		n := min(64-at&63, 64-int(from&63), r.n-done)
		v := word(from>>6) >> (from & 63)
		mask := uint64(math.MaxUint64) >> (64 - n)
		lost[at>>6] = lost[at>>6]&^(mask<<(at&63)) | v&mask<<(at&63)
		done += n
	}
}

// perFrame is the part that processes without memory share: each frame is lost with a probability of its device.
type perFrame struct {
	seed uint64
	p    func(l Link) threshold
}

func (m perFrame) Lost(l Link, s Slot) bool {
	return m.p(l).bit(key(m.seed, purposeFate, l, s.Copy), uint64(s.Fragment))
}

func (m perFrame) Sampler(slots []Slot) Sampler { return frameSampler{m, runs(slots)} }

type frameSampler struct {
	perFrame
	runs []run
}

func (s frameSampler) Fill(lost []uint64, l Link) {
	p := s.p(l)
	for _, r := range s.runs {
		k := key(s.seed, purposeFate, l, r.copy)
		if r.pos == 0 && r.first == 0 { // the usual case: fragment i is in slot i
			for w := range (r.n + 63) / 64 {
				lost[w] = p.word(k, uint64(w))
			}
			continue
		}
		r.place(lost, func(w uint64) uint64 { return p.word(k, w) })
	}
}

// checkProbability refuses what is no probability, NaN included.
func checkProbability(name string, p float64) error {
	if !(p >= 0 && p <= 1) {
		return fmt.Errorf("radio: %s %v is outside 0..1", name, p)
	}
	return nil
}

// NewBernoulli returns independent losses of probability p.
func NewBernoulli(seed uint64, p float64) (Loss, error) {
	if err := checkProbability("loss", p); err != nil {
		return nil, err
	}
	t := newThreshold(p)
	return perFrame{seed, func(Link) threshold { return t }}, nil
}

// NewBeta returns independent losses whose probability differs between devices and follows a Beta(a, b) distribution,
// of mean a/(a+b). Beta(0.5, 4.5) is a fleet of mean 10 % in which a few devices hear almost nothing.
func NewBeta(seed uint64, a, b float64) (Loss, error) {
	for _, v := range []struct {
		name string
		x    float64
	}{{"a", a}, {"b", b}} {
		if !(v.x >= 0.01 && v.x <= 1000) {
			return nil, fmt.Errorf("radio: beta parameter %s %v is outside 0.01..1000", v.name, v.x)
		}
	}
	return perFrame{seed, func(l Link) threshold {
		d := draws{key: key(seed, purposeDevice, l, 0)}
		return newThreshold(d.beta(a, b))
	}}, nil
}

// NewRayleigh returns the losses of a Rayleigh fading channel: a device whose mean signal lies margin dB above what
// demodulation needs loses a frame with probability 1-exp(-10^(-margin/10)). The margin of a device is drawn once from
// a normal distribution of mean marginDB and standard deviation shadowingDB. Frames that begin in the same interval of
// length coherence share one fade; with coherence 0 each frame has its own.
//
// Source: Attia, Heusse, Tourancheau, Duda, GLOBECOM 2019: LoRa behaves as a slow fading Rayleigh channel.
func NewRayleigh(seed uint64, marginDB, shadowingDB float64, coherence time.Duration) (Loss, error) {
	switch {
	case !(marginDB >= -50 && marginDB <= 100):
		return nil, fmt.Errorf("radio: link margin %v dB is outside -50..100", marginDB)
	case !(shadowingDB >= 0 && shadowingDB <= 30):
		return nil, fmt.Errorf("radio: shadowing %v dB is outside 0..30", shadowingDB)
	case coherence < 0 || coherence > 0 && coherence < time.Millisecond:
		return nil, fmt.Errorf("radio: coherence time %v is neither 0 nor at least 1ms", coherence)
	}
	p := func(l Link) threshold {
		m := marginDB
		if shadowingDB > 0 {
			d := draws{key: key(seed, purposeDevice, l, 0)}
			m += float64(shadowingDB * d.normal())
		}
		return newThreshold(1 - exp(-exp(float64(-m/10)*math.Ln10)))
	}
	if coherence == 0 {
		return perFrame{seed, p}, nil
	}
	return block{seed, p, coherence}, nil
}

// block is a process that has one fate for each interval of time.
type block struct {
	seed   uint64
	p      func(Link) threshold
	length time.Duration
}

func (m block) Lost(l Link, s Slot) bool {
	return m.p(l).bit(key(m.seed, purposeFate, l, 0), uint64(s.At/m.length))
}

func (m block) Sampler(slots []Slot) Sampler { return blockSampler{m, cells(slots, m.length)} }

type blockSampler struct {
	block
	cells []int64
}

func (s blockSampler) Fill(lost []uint64, l Link) {
	p, k := s.p(l), key(s.seed, purposeFate, l, 0)
	at, word := int64(math.MinInt64), uint64(0)
	clear(lost[:(len(s.cells)+63)/64])
	for i, c := range s.cells {
		if c>>6 != at {
			at, word = c>>6, p.word(k, uint64(c>>6))
		}
		lost[i>>6] |= word >> (c & 63) & 1 << (i & 63)
	}
}

// cells numbers the intervals in which the slots begin.
func cells(slots []Slot, length time.Duration) []int64 {
	out := make([]int64, len(slots))
	for i, s := range slots {
		out[i] = int64(s.At / length)
	}
	return out
}

// Any returns the process that loses what at least one of the processes loses.
func Any(losses ...Loss) Loss {
	if len(losses) == 1 {
		return losses[0]
	}
	return union(losses)
}

type union []Loss

func (u union) Lost(l Link, s Slot) bool {
	for _, m := range u {
		if m.Lost(l, s) {
			return true
		}
	}
	return false
}

func (u union) Sampler(slots []Slot) Sampler {
	s := unionSampler{words: (len(slots) + 63) / 64}
	for _, m := range u {
		s.parts = append(s.parts, m.Sampler(slots))
	}
	return s
}

type unionSampler struct {
	parts []Sampler
	words int
}

func (s unionSampler) Fill(lost []uint64, l Link) {
	clear(lost[:s.words])
	other := make([]uint64, s.words)
	for _, p := range s.parts {
		p.Fill(other, l)
		for w, v := range other {
			lost[w] |= v
		}
	}
}

// Common makes a process strike all devices alike: the outage of a gateway, a backhaul or a server.
func Common(m Loss) Loss { return common{m} }

type common struct{ Loss }

func (c common) Lost(l Link, s Slot) bool { return c.Loss.Lost(Link{Stream: l.Stream}, s) }

func (c common) Sampler(slots []Slot) Sampler { return commonSampler{c.Loss.Sampler(slots)} }

type commonSampler struct{ Sampler }

func (s commonSampler) Fill(lost []uint64, l Link) { s.Sampler.Fill(lost, Link{Stream: l.Stream}) }

// AsProcess lets a [Medium] lose frames by loss processes, one for each direction. The frame counter is the fragment:
// a device whose EUI is the number of a [Link], and whose group counts from 0, loses the multicast frames that a
// [Sampler] says for stream 0, if gateway and session are zero too. Times count from epoch.
func AsProcess(up, down Loss, epoch time.Time) Process { return process{up, down, epoch} }

type process struct {
	up, down Loss
	epoch    time.Time
}

func (p process) Carry(k Key, at time.Time) (Signal, bool) {
	l := Link{Device: binary.BigEndian.Uint64(k.Device[:])}
	if tag := [3]uint64{binary.BigEndian.Uint64(k.Gateway[:]), uint64(k.Kind), uint64(k.Session)}; tag != [3]uint64{0, uint64(Multicast), 0} {
		l.Stream = Hash(tag[:]...)
	}
	m := p.down
	if k.Kind.Up() {
		m = p.up
	}
	h := k.Hash(l.Stream)
	return Signal{RSSI: -111 + int(h&15), SNR: float32(int(h>>4&0xff)%24)/2 - 2}, // nominal, as those of Independent
		!m.Lost(l, Slot{Fragment: k.Counter, Copy: k.Copy, At: at.Sub(p.epoch)})
}
