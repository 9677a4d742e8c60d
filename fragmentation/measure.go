package fragmentation

import (
	"math/bits"
	"math/rand/v2"
)

// maxExtra bounds the table of an [Overhead]; the ideal code needs more once in 2^32 devices.
const maxExtra = 32

// Overhead is what a code costs beyond the M fragments that any code needs, measured on
// simulated devices by [Measure].
type Overhead struct {
	Devices    int // simulated
	Incomplete int // not complete after the whole transmission

	sum    int           // of the extra fragments of all complete devices
	doneAt []int         // devices that completed after so many transmitted fragments
	tried  [maxExtra]int // devices that received at least M+e fragments
	failed [maxExtra]int // and of those, not complete after the first M+e
}

// Mean returns the mean number of fragments received beyond M at completion, over the devices
// that completed. It is 1.61 for a uniformly random binary code.
func (o Overhead) Mean() float64 {
	return float64(o.sum) / float64(max(1, o.Devices-o.Incomplete))
}

// FailAt returns the share of devices that are not complete with the first M+extra fragments
// they receive (extra 0..31), among those that received as many. It is 1-[DecodeProbability]
// for a uniformly random binary code.
func (o Overhead) FailAt(extra int) float64 {
	if extra < 0 {
		return 1
	}
	extra = min(extra, maxExtra-1)
	return float64(o.failed[extra]) / float64(max(1, o.tried[extra]))
}

// SentFor returns the smallest number of transmitted fragments, M included, after which at most
// share q of the devices are incomplete; ok is false if the whole transmission is too short.
// It means something when q*Devices is 10 or more.
func (o Overhead) SentFor(q float64) (sent int, ok bool) {
	left := o.Devices
	for sent, n := range o.doneAt {
		if left -= n; float64(left) <= q*float64(o.Devices) && sent > 0 {
			return sent, true
		}
	}
	return 0, false
}

// Measure simulates devices that lose each fragment of the plan with probability p. The
// result is a function of the arguments and the state of src.
func Measure(code *Code, p float64, devices int, src rand.Source) Overhead {
	o := Overhead{Devices: devices, doneAt: make([]int, code.Len()+1)}
	d := NewRankDecoder(code)
	lost := NewBitset(code.Len())
	loss := NewBernoulli(p)
	for range devices {
		loss.Fill(lost, src)
		extra := maxExtra // of a device that never completes
		if sent, ok := d.Complete(lost); ok {
			extra = received(lost, sent) - code.m
			o.sum += extra
			o.doneAt[sent]++
		} else {
			o.Incomplete++
		}
		for e := range min(received(lost, code.Len())-code.m+1, maxExtra) {
			o.tried[e]++
			if extra > e {
				o.failed[e]++
			}
		}
	}
	return o
}

// received counts the fragments that arrive out of the first sent.
func received(lost Bitset, sent int) int {
	n := sent
	for w, v := range lost[:words(sent)] {
		if left := sent - w*64; left < 64 {
			v &= 1<<left - 1
		}
		n -= bits.OnesCount64(v)
	}
	return n
}
