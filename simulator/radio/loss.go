package radio

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Process decides what a link does to a frame. An implementation is a pure function of its parameters, the key
// and the instant at which the frame begins; it keeps no state that depends on earlier calls.
type Process interface {
	// Carry returns how the frame arrives; false if it is lost, and then the signal counts only as a disturbance of
	// others ([Medium.Interfere]).
	Carry(k Key, at time.Time) (Signal, bool)
}

// Hash mixes words into 64 uniform bits: the finalizer of SplitMix64, chained. It is the only source of
// randomness in the simulator and gives the same bits on every processor.
func Hash(words ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, w := range words {
		h = mix(h ^ mix(w+0x9e3779b97f4a7c15))
	}
	return h
}

// Mix is the finalizer of SplitMix64 itself: consecutive arguments give independent 64 uniform bits.
func Mix(z uint64) uint64 { return mix(z) }

func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Hash returns 64 uniform bits that belong to the frame, its link and seed.
func (k Key) Hash(seed uint64) uint64 {
	return Hash(seed,
		binary.BigEndian.Uint64(k.Device[:]), binary.BigEndian.Uint64(k.Gateway[:]),
		uint64(k.Kind)<<32|uint64(k.Session), uint64(k.Counter)<<32|uint64(k.Copy))
}

// Independent loses every frame with the same probability, whatever happened to others.
type Independent struct {
	seed     uint64
	up, down uint64 // a frame is lost if its hash, shifted to 32 bits, is below
}

// NewIndependent returns the process for probabilities of loss in 0..1, quantised to 2^-32.
func NewIndependent(seed uint64, up, down float64) (Independent, error) {
	p := Independent{seed: seed}
	for _, v := range []struct {
		name string
		p    float64
		to   *uint64
	}{{"uplink", up, &p.up}, {"downlink", down, &p.down}} {
		if !(v.p >= 0 && v.p <= 1) { // also refuses NaN
			return p, fmt.Errorf("radio: %s loss %v is outside 0..1", v.name, v.p)
		}
		*v.to = uint64(math.Round(v.p * (1 << 32)))
	}
	return p, nil
}

// Carry implements [Process]. Signals are nominal: they do not depend on the loss.
func (p Independent) Carry(k Key, _ time.Time) (Signal, bool) {
	h := k.Hash(p.seed)
	threshold := p.down
	if k.Kind.Up() {
		threshold = p.up
	}
	// RSSI −111..−96 dBm, SNR −2.0..+9.5 dB in steps of half a decibel, from bits that do not decide the loss.
	s := Signal{RSSI: -111 + int(h&15), SNR: float32(int(h>>4&0xff)%24)/2 - 2}
	return s, h>>32 >= threshold
}
