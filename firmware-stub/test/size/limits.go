package main

// limit is the target of a figure and the gate that holds it, in bytes.
type limit struct{ target, limit int }

func met(target int) limit { return limit{target, target} }

// limits are the budgets. Where limit is above target, the target is missed and the gate is at what is reached.
var limits = struct {
	library, alone, stub, both, stubRAM, ram1000, ram4000, stack, patch5, patch8, patch16 limit
}{
	library: met(12 * 1024),
	alone:   limit{12 * 1024, 15056},
	stub:    met(6 * 1024),
	both:    met(18 * 1024),
	stubRAM: met(1536),
	ram1000: met(768),
	ram4000: met(2048),
	stack:   met(1536),
	patch5:  met(7 * 1024),
	patch8:  met(9*1024 + 512),
	patch16: met(17*1024 + 512),
}
