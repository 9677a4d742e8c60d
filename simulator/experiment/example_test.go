package experiment_test

import (
	"fmt"
	"log"

	"github.com/sower-fuota/sower/simulator/experiment"
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
