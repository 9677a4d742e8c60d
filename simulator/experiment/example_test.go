package experiment_test

import (
	"fmt"
	"log"

	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/experiment"
	"github.com/sower-fuota/sower/simulator/radio"
)

// One broadcast of 50 kB to a thousand devices of which some hear badly, as ChirpStack would send it.
func ExampleSimulator() {
	points, err := experiment.Points([]byte(`
name = "fixed"
seed = 7
[block]
bytes = 50000
[loss]
model = "beta"
a = 1
b = 9
[policy]
redundancy = 0.2
`))
	if err != nil {
		log.Fatal(err)
	}
	sim, err := experiment.NewSimulator(points[0], nil)
	if err != nil {
		log.Fatal(err)
	}
	r, err := sim.Run(0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d of %d devices complete after %d fragments and %v\n", r.Complete, r.Devices, r.Sent, r.Time)
	// Output: 806 of 1000 devices complete after 252 fragments and 16m30.579456s
}

// hopeful is a policy of one's own: it repeats a tenth of the block until nobody asks for more.
type hopeful struct{}

func (hopeful) Next(v experiment.View) experiment.Step {
	switch {
	case v.Sent == 0:
		return experiment.Step{Send: v.M + v.M/10}
	case v.Polled != v.Sent:
		return experiment.Step{Poll: true}
	case len(v.Reports) > 0:
		return experiment.Step{Send: v.M / 10}
	}
	return experiment.Step{}
}

// A policy of one's own, beside the built-in ones and on the same losses.
func ExamplePolicy() {
	experiment.Policies["hopeful"] = func(*experiment.Scenario) (experiment.Policy, error) { return hopeful{}, nil }
	points, err := experiment.Points([]byte(`
name = "compare"
devices = 500
[block]
fragments = 300
[loss]
p = 0.15
[sweep]
"policy.name" = ["hopeful", "plan", "rateless"]
`))
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range points {
		sim, err := experiment.NewSimulator(p, nil)
		if err != nil {
			log.Fatal(err)
		}
		r, err := sim.Run(0)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%-8s complete %d, sent %d, uplinks %d\n", p.Values[0], r.Complete, r.Sent, r.Uplinks)
	}
	// Output:
	// hopeful  complete 500, sent 390, uplinks 617
	// plan     complete 500, sent 380, uplinks 6
	// rateless complete 500, sent 377, uplinks 0
}

// groups is a code of one's own: one parity fragment for each so many data fragments, their sum; it repairs one loss among
// them. The parity is repeated in turn.
type groups struct{ size int }

func (g groups) count(m int) int { return (m + g.size - 1) / g.size }

func (g groups) Slots(m, n int) []radio.Slot {
	slots := make([]radio.Slot, n)
	for i := range slots {
		slots[i].Fragment = uint32(i)
		if i >= m {
			slots[i].Fragment = uint32(m + (i-m)%g.count(m))
			slots[i].Copy = uint32((i - m) / g.count(m))
		}
	}
	return slots
}

func (g groups) NewDecoder(m, n int) (experiment.Decoder, error) {
	return &groupDecoder{groups: g, m: m, slots: g.Slots(m, n), need: make([]int, g.count(m)), repaired: make([]bool, g.count(m))}, nil
}

type groupDecoder struct {
	groups
	m        int
	slots    []radio.Slot
	need     []int  // fragments of each group
	repaired []bool // its parity has arrived
}

func (d *groupDecoder) Decode(lost fragmentation.Bitset, _ uint64) (sent, missing int) {
	clear(d.repaired)
	clear(d.need)
	for i := range d.m {
		d.need[i/d.size]++
	}
	missing = d.m
	for i, s := range d.slots {
		if lost.Has(i) {
			continue
		}
		group := int(s.Fragment) / d.size
		if parity := int(s.Fragment) >= d.m; parity {
			group = int(s.Fragment) - d.m
			if d.repaired[group] {
				continue
			}
			d.repaired[group] = true
		}
		if d.need[group]--; d.need[group] >= 0 {
			missing--
		}
		if missing == 0 {
			return i + 1, 0
		}
	}
	return 0, missing
}

// A code of one's own, beside that of the standard and the bound for all codes, on the same losses.
func ExampleCode() {
	experiment.Codes["groups"] = groups{size: 10}
	points, err := experiment.Points([]byte(`
name = "codes"
devices = 1000
[block]
fragments = 300
[loss]
p = 0.05
[policy]
redundancy = 0.1
[sweep]
"code.name" = ["groups", "ts004-v1", "mds"]
`))
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range points {
		sim, err := experiment.NewSimulator(p, nil)
		if err != nil {
			log.Fatal(err)
		}
		r, err := sim.Run(0)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%-8s complete %d\n", p.Values[0], r.Complete)
	}
	// Output:
	// groups   complete 37
	// ts004-v1 complete 998
	// mds      complete 1000
}
