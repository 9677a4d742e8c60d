package plan

import (
	"cmp"
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
// cost of a session is the airtime of its first burst or, if that takes more, until its last device is complete.
// The latter only rises with each device, and so bounds what a choice will cost at least.
type search struct {
	ladder  []rung
	classes []class
	shape   func(option) shape
	target  float64 // share of the devices that the first burst completes

	cost   map[visit]price
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

// price is the airtime of one gateway.
type price struct{ least, whole time.Duration }

const never = time.Duration(math.MaxInt64)

// run returns the option of each class, and whether no other set is cheaper. A class without any option has
// update -1.
func (s *search) run() (pick []option, proven bool) {
	s.cost, s.shapes, s.open = map[visit]price{}, map[option]shape{}, map[option]uint64{}
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

// descend decides for class i and all after it. least bounds the cost of what is decided.
func (s *search) descend(i int, least time.Duration) {
	if s.nodes++; s.nodes > maxNodes && s.bestPick != nil || least >= s.best {
		return
	}
	if i == len(s.classes) {
		var whole time.Duration
		for o, members := range s.open {
			whole += s.price(o, members).whole
		}
		if whole < s.best || s.bestPick == nil {
			s.best, s.bestPick = whole, slices.Clone(s.choice)
		}
		return
	}
	type step struct {
		o     option
		extra time.Duration
	}
	var steps []step
	for _, o := range s.options(s.classes[i]) {
		steps = append(steps, step{o, s.price(o, s.open[o]|1<<i).least - s.price(o, s.open[o]).least})
	}
	if len(steps) == 0 {
		s.choice[i] = option{-1, -1}
		s.descend(i+1, least)
		return
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.extra, b.extra) })
	for _, st := range steps {
		before := s.open[st.o]
		s.open[st.o] = before | 1<<i
		s.choice[i] = st.o
		s.descend(i+1, least+st.extra)
		s.open[st.o] = before
	}
}

// price is what a session of these classes costs.
func (s *search) price(o option, members uint64) price {
	if members == 0 {
		return price{}
	}
	k := visit{o, members}
	if p, ok := s.cost[k]; ok {
		return p
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
	all := sent(sh.m, losses, math.Ln2)
	n := 0.0
	for _, x := range losses {
		n += x
	}
	burst := sent(sh.m, losses, n*(1-s.target))
	p := price{time.Duration(all+2) * sh.toa, time.Duration(max(all, burst)+2) * sh.toa}
	s.cost[k] = p
	return p
}

// sent is how many fragments it takes until so many devices are expected to be incomplete; ln 2 of them is the
// median of the last device.
func sent(m int, losses [101]float64, allowed float64) int {
	n, err := fragmentation.FleetFragments(m, links(losses), allowed)
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

// answerRate is at which data rate the devices of a region answer that are reached with a spreading factor: the slowest
// that is not slower than that, and that the dwell time of the region leaves them.
func answerRate(region airtime.Region, sf int) airtime.DataRate {
	var out airtime.DataRate
	for i := range 16 {
		rate, err := region.DataRate(i)
		if err != nil || !rate.Uplink || rate.BitRate > 0 || rate.Bandwidth != 125_000 || rate.SpreadingFactor > sf {
			continue
		}
		if n, err := region.MaxPayload(i, airtime.Link{Direction: airtime.Uplink, DwellTime: true}); err != nil || n < answerBytes {
			continue
		}
		if rate.SpreadingFactor > out.SpreadingFactor {
			out = rate
		}
	}
	return out
}

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
