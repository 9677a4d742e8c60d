package experiment

import (
	"math"
	"time"

	"github.com/sower-fuota/sower/simulator/radio"
)

const (
	tableBits   = 18 // exact sessions a table is built of: 2^18
	checkBits   = 16 // and those it is compared with
	tableStream = 1 << 63
)

// table holds, for a fixed transmission, after how many fragments each of many simulated devices was complete. Devices
// of a fleet without common outages are independent, so drawing from it with replacement simulates any number of them.
type table struct {
	done  []uint32 // 0: not complete
	at    []radio.Slot
	fixed Result // what does not depend on chance
	info  Table
}

// Table says how good a table is.
type Table struct {
	Sessions int     // exact sessions it was built of
	Checks   int     // exact sessions of another seed that it was compared with
	Distance float64 // largest difference between the two distributions of the fragments needed
	Bound    float64 // that differences by chance alone exceed once in a hundred times (Kolmogorov-Smirnov)
}

// Table returns the quality of the table; false if the depth is another.
func (sim *Simulator) Table() (Table, bool) {
	if sim.table == nil {
		return Table{}, false
	}
	return sim.table.info, true
}

func (sim *Simulator) newTable() (*table, error) {
	t := &table{}
	var err error
	if t.fixed, err = sim.run(0, tableStream, 1<<tableBits); err != nil {
		return nil, err
	}
	check, err := sim.run(0, tableStream+1, 1<<checkBits)
	if err != nil {
		return nil, err
	}
	t.done = make([]uint32, 0, 1<<tableBits)
	for _, d := range t.fixed.Done {
		for range d[1] {
			t.done = append(t.done, uint32(d[0]))
		}
	}
	t.done = append(t.done, make([]uint32, 1<<tableBits-len(t.done))...)
	t.at = sim.code.Slots(sim.s.Block.Fragments, t.fixed.Sent)
	c := sim.newClock(0)
	for i := range t.at {
		t.at[i].At = c.next()
	}
	t.info = Table{1 << tableBits, 1 << checkBits, distance(t.fixed, check), 1.628 * math.Sqrt(1.0/(1<<tableBits)+1.0/(1<<checkBits))}
	return t, nil
}

// distance is the largest difference of two cumulative distributions.
func distance(a, b Result) float64 {
	var sa, sb int
	worst := 0.0
	for i, j := 0, 0; i < len(a.Done) || j < len(b.Done); {
		at := math.MaxInt
		if i < len(a.Done) {
			at = a.Done[i][0]
		}
		if j < len(b.Done) {
			at = min(at, b.Done[j][0])
		}
		if i < len(a.Done) && a.Done[i][0] == at {
			sa += a.Done[i][1]
			i++
		}
		if j < len(b.Done) && b.Done[j][0] == at {
			sb += b.Done[j][1]
			j++
		}
		worst = max(worst, math.Abs(float64(sa)/float64(a.Devices)-float64(sb)/float64(b.Devices)))
	}
	return worst
}

func (sim *Simulator) runTable(rep int) (Result, error) {
	t := sim.table
	r := Result{Rep: rep, Devices: sim.s.Devices, Sent: t.fixed.Sent, Time: t.fixed.Time, Airtime: t.fixed.Airtime}
	counts := make([]int, r.Sent+1)
	k := radio.Hash(sim.s.Seed, uint64(rep), 't')
	for d := range uint64(r.Devices) {
		counts[t.done[radio.Mix(k+d)>>(64-tableBits)]]++
	}
	r.Complete = r.Devices - counts[0]
	r.count(counts, sim, func(sent int) time.Duration { return t.at[sent-1].At })
	return r, nil
}
