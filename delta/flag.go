package delta

import "math/bits"

// flagModel codes whether a halfword is as predicted, with four contexts and a mixer.
type flagModel struct {
	byRun    [16 * 16]counter             // length of the run of hits, class
	byRecent [64]counter                  // the latest flags
	byOpcode [64]counter                  // upper six bits of the prediction
	byClass  [int(numClasses) * 8]counter // class, address changed, how it was found
	mix      *mixer
	recent   uint32 // latest flags, a miss is 1
	hits     uint32 // since the last miss
}

const flagLimit = 255 // of the counters

func (f *flagModel) init() {
	for _, c := range [][]counter{f.byRun[:], f.byRecent[:], f.byOpcode[:], f.byClass[:]} {
		for i := range c {
			c[i].p = 63569 // 0.97
		}
	}
	f.mix = newMixer(8, 5)
}

// code codes hit, whether the halfword equals p.value.
func (f *flagModel) code(rc *coder, hit bool, p prediction) bool {
	ctx := b2i(p.changed)*4 + p.how
	counters := [4]*counter{
		&f.byRun[min(bits.Len32(f.hits), 15)*16+int(p.class)],
		&f.byRecent[f.recent&63],
		&f.byOpcode[p.value>>10],
		&f.byClass[int(p.class)*8+ctx],
	}
	for i, c := range counters {
		f.mix.in[i] = stretch(c.p)
	}
	f.mix.in[4] = 256
	bit := rc.bit(b2i(hit), min(max(f.mix.mix(ctx), 1), 65535))
	f.mix.update(bit)
	for _, c := range counters {
		c.update(bit, flagLimit)
	}
	f.recent = f.recent<<1 | uint32(1-bit)
	f.hits++
	if bit == 0 {
		f.hits = 0
	}
	return bit != 0
}
