package plan

import (
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/fragmentation"
)

// maxNodes bounds the search for the cheapest set of sessions. Real fleets have a handful of classes and are
// proven after a few hundred; beyond the bound the best set found is used and said not to be proven.
const maxNodes = 20000

// rung is a data rate of the ladder, fastest first.
type rung struct {
	index int
	rate  airtime.DataRate
	limit int     // bytes of a fragment
	need  float64 // dB
}

// class is a set of devices that the same sessions suit.
type class struct {
	suits   uint64 // updates
	rung    int    // fastest of the ladder that they can receive
	members []int
	losses  [101]float64 // devices by loss in per cent, rounded up
}

// option is a session that may be opened: an update at a rung.
type option struct {
	update, rung int
}

// shape is how an option cuts the block.
type shape struct {
	m, size int
	toa     time.Duration
	refusal string // why the devices cannot hold it
}

// search finds the cheapest set of sessions: which update goes at which data rate, and who listens to what. The
// cost of a session is the airtime until its last device is complete, so it only rises with each device.
type search struct {
	ladder  []rung
	classes []class
	shape   func(option) shape

	cost   map[visit]time.Duration
	shapes map[option]shape
	open   map[option]uint64 // classes by number
	choice []option
	nodes  int

	best     time.Duration
	bestPick []option
}

type visit struct {
	option  option
	members uint64
}

const never = time.Duration(math.MaxInt64)

// run returns the option of each class, and whether no other set is cheaper. A class without any option has
// update -1.
func (s *search) run() (pick []option, proven bool) {
	s.cost, s.shapes, s.open = map[visit]time.Duration{}, map[option]shape{}, map[option]uint64{}
	s.choice, s.best = make([]option, len(s.classes)), never
	// The slowest first: whatever is opened for them is open to all others.
	slices.SortStableFunc(s.classes, func(a, b class) int {
		if a.rung != b.rung {
			return b.rung - a.rung
		}
		return bits.OnesCount64(a.suits) - bits.OnesCount64(b.suits)
	})
	s.descend(0, 0)
	return s.bestPick, s.nodes < maxNodes
}

// options lists the sessions that suit a class, cheapest addition first.
func (s *search) options(c class) []option {
	var out []option
	for u := range 64 {
		if c.suits>>u&1 == 0 {
			continue
		}
		for r := c.rung; r < len(s.ladder); r++ {
			// A rung that is the fastest of no class serves nobody better than a faster one.
			if !slices.ContainsFunc(s.classes, func(o class) bool { return o.rung == r }) {
				continue
			}
			if o := (option{u, r}); s.cut(o).refusal == "" {
				out = append(out, o)
			}
		}
	}
	return out
}

func (s *search) cut(o option) shape {
	sh, ok := s.shapes[o]
	if !ok {
		sh = s.shape(o)
		s.shapes[o] = sh
	}
	return sh
}

func (s *search) descend(i int, spent time.Duration) {
	if s.nodes++; s.nodes > maxNodes && s.bestPick != nil || spent >= s.best {
		return
	}
	if i == len(s.classes) {
		s.best, s.bestPick = spent, slices.Clone(s.choice)
		return
	}
	type step struct {
		o     option
		extra time.Duration
	}
	var steps []step
	for _, o := range s.options(s.classes[i]) {
		steps = append(steps, step{o, s.price(o, s.open[o]|1<<i) - s.price(o, s.open[o])})
	}
	if len(steps) == 0 {
		s.choice[i] = option{-1, -1}
		s.descend(i+1, spent)
		return
	}
	slices.SortStableFunc(steps, func(a, b step) int { return int(min(max(a.extra-b.extra, -1), 1)) })
	for _, st := range steps {
		before := s.open[st.o]
		s.open[st.o] = before | 1<<i
		s.choice[i] = st.o
		s.descend(i+1, spent+st.extra)
		s.open[st.o] = before
	}
}

// price is the airtime of one gateway until all members are complete.
func (s *search) price(o option, members uint64) time.Duration {
	if members == 0 {
		return 0
	}
	k := visit{o, members}
	if d, ok := s.cost[k]; ok {
		return d
	}
	var losses [101]float64
	for i, c := range s.classes {
		if members>>i&1 != 0 {
			for p, n := range c.losses {
				losses[p] += n
			}
		}
	}
	sh := s.cut(o)
	d := time.Duration(sent(sh.m, losses)+2) * sh.toa
	s.cost[k] = d
	return d
}

// sent is how many fragments it takes until the last device is complete, in the median.
func sent(m int, losses [101]float64) int {
	n, err := fragmentation.FleetFragments(m, links(losses), math.Ln2)
	if err != nil {
		return fragmentation.MaxIndex
	}
	return max(n, m+minParity)
}

func links(losses [101]float64) []fragmentation.Link {
	var out []fragmentation.Link
	for p, n := range losses {
		if n > 0 {
			out = append(out, fragmentation.Link{Loss: min(float64(p)/100, 0.99), Devices: n})
		}
	}
	return out
}

// bin is the loss of a device in per cent, rounded up.
func bin(p float64) int { return int(math.Ceil(min(max(p, 0), 1)*100 - 1e-9)) }

// ladder lists the LoRa data rates of a region that carry a fragment to devices, fastest first.
func ladder(region airtime.Region, repeater bool, network map[int]int) []rung {
	var out []rung
	for i := range 16 {
		rate, err := region.DataRate(i)
		if err != nil || !rate.Downlink || rate.BitRate > 0 {
			continue
		}
		limit, err := region.MaxPayload(i, airtime.Link{Direction: airtime.Downlink, Repeater: repeater})
		if err != nil {
			continue
		}
		if n, ok := network[i]; ok {
			limit = min(limit, n)
		}
		if limit = min(limit-datablock.FragmentOverhead, datablock.MaxFragSize); limit < 1 {
			continue
		}
		out = append(out, rung{i, rate, limit, snrNeeded(rate.SpreadingFactor, rate.Bandwidth)})
	}
	slices.SortStableFunc(out, func(a, b rung) int {
		return int(a.rate.TimeOnAir(64, airtime.Downlink) - b.rate.TimeOnAir(64, airtime.Downlink))
	})
	return out
}
