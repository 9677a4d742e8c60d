package experiment

import (
	"math"

	"github.com/sower-fuota/sower/fragmentation"
)

// Policy is how a server conducts a broadcast. It is asked again and again what to do, and knows what a server knows.
type Policy interface {
	// Next returns the next step; the zero Step ends the broadcast.
	Next(v View) Step
}

// View is what a server knows.
type View struct {
	M       int
	Devices int
	Sent    int      // fragments, M included
	Limit   int      // of Sent
	Polls   int      // done so far
	Polled  int      // value of Sent at the last of them
	Reports []Report // the answers to it, by device
}

// Report is the answer of an incomplete device to FragSessionStatusReq (TS004; complete devices stay silent).
type Report struct {
	Received int // fragments
	Missing  int // further useful fragments needed
}

// Step is one thing to do.
type Step struct {
	Send          int  // transmit so many more fragments
	UntilComplete bool // but stop as soon as the last device is complete, as with instant acknowledgements
	Poll          bool // or ask the incomplete devices for their status
}

// fixed sends M fragments and a set number more, and ends: ChirpStack's FUOTA server.
type fixed struct{ parity int }

func (p fixed) Next(v View) Step {
	if v.Sent > 0 {
		return Step{}
	}
	return Step{Send: v.M + p.parity}
}

// rateless sends until every device has acknowledged, at no cost for the acknowledgements: the bound for all policies
// with this code.
type rateless struct{}

func (rateless) Next(v View) Step {
	if v.Sent > 0 {
		return Step{}
	}
	return Step{Send: v.Limit, UntilComplete: true}
}

// plan is sower's: a first burst sized so that the target share of the devices completes, then a poll, then what the
// neediest that answered needs, up to a number of rounds.
type plan struct {
	first  int // fragments, M included
	rounds int
}

func (p plan) Next(v View) Step {
	switch {
	case v.Sent == 0:
		return Step{Send: p.first}
	case v.Polled != v.Sent && v.Polls < p.rounds:
		return Step{Poll: true}
	case v.Polled != v.Sent || len(v.Reports) == 0:
		return Step{} // the rounds are over, or nobody asks for more
	}
	need := 0
	for _, r := range v.Reports {
		need = max(need, fragmentation.TopUp(r.Missing, r.Received, v.Sent, 1))
	}
	return Step{Send: need}
}

// Policies are the policies that a scenario can name, each made for a scenario. Programs add their own before they
// call [Points].
//
//   - "fixed": policy.redundancy or policy.parity fragments beyond M, then done (ChirpStack)
//   - "plan": plan, burst, poll, top up (sower)
//   - "rateless": until the last device is complete
var Policies = map[string]func(s *Scenario) (Policy, error){
	"fixed": func(s *Scenario) (Policy, error) {
		p := &s.Policy
		if p.Redundancy != 0 && p.Parity != 0 {
			return nil, bad("policy.parity", p.Parity, "to be left out with policy.redundancy")
		}
		if !(p.Redundancy >= 0 && p.Redundancy <= 100) {
			return nil, bad("policy.redundancy", p.Redundancy, "0..100, a share of the fragments")
		}
		parity := p.Parity
		if p.Redundancy > 0 {
			parity = int(math.Ceil(float64(p.Redundancy*float64(s.Block.Fragments)) - 1e-9))
		}
		if parity < 0 || s.Block.Fragments+parity > p.Limit {
			return nil, bad("policy.parity", parity, "0..%d for %d fragments", p.Limit-s.Block.Fragments, s.Block.Fragments)
		}
		return fixed{parity}, nil
	},
	"rateless": func(*Scenario) (Policy, error) { return rateless{}, nil },
	"plan": func(s *Scenario) (Policy, error) {
		p := &s.Policy
		if p.Target == 0 {
			p.Target = 0.99
		}
		def(&p.Rounds, 3)
		if p.Expected == 0 {
			p.Expected = s.Loss.mean()
		}
		switch {
		case !(p.Target > 0 && p.Target < 1):
			return nil, bad("policy.target", p.Target, "between 0 and 1")
		case p.Rounds < 1 || p.Rounds > 20:
			return nil, bad("policy.rounds", p.Rounds, "1..20")
		case !(p.Expected >= 0 && p.Expected < 0.9):
			return nil, bad("policy.expected", p.Expected, "0 up to but not including 0.9")
		}
		link := fragmentation.Link{Loss: p.Expected, Devices: float64(s.Devices)}
		fleet := []fragmentation.Link{link}
		if l := s.Loss; l.Model == "beta" {
			fleet = fragmentation.BetaFleet(l.A, l.B, float64(s.Devices))
		} else if l.Model == "gilbert-elliott" && l.Burst > 1 {
			fleet[0].Burst = l.Burst
		}
		first, err := fragmentation.FleetFragments(s.Block.Fragments, fleet, (1-p.Target)*float64(s.Devices))
		if err != nil {
			first = p.Limit
		}
		return plan{min(first, p.Limit), p.Rounds}, nil
	},
}

// checkPolicy checks the parts of a scenario that depend on each other: code, policy and depth.
func (s *Scenario) checkPolicy() error {
	m, p := s.Block.Fragments, &s.Policy
	code, ok := Codes[s.Code.Name]
	if !ok {
		return bad("code.name", s.Code.Name, "one of %q", sortedKeys(Codes))
	}
	make, ok := Policies[p.Name]
	if !ok {
		return bad("policy.name", p.Name, "one of %q", sortedKeys(Policies))
	}
	_, isTS004 := code.(ts004)
	limit := 64 * fragmentation.MaxIndex
	if isTS004 {
		limit = fragmentation.MaxIndex
	}
	def(&p.Limit, min(limit, 20*m+1000))
	if p.Limit < m || p.Limit > limit {
		return bad("policy.limit", p.Limit, "%d..%d", m, limit)
	}
	policy, err := make(s)
	if err != nil {
		return err
	}
	if s.Depth == "bytes" && !isTS004 {
		return bad("depth", s.Depth, `"rank" for code %q, which has no bytes`, s.Code.Name)
	}
	if _, ok := policy.(fixed); s.Depth == "table" && (!ok || s.Loss.OutageEvery != 0 || s.Loss.Model == "trace") {
		return bad("depth", s.Depth, `"rank" unless the policy is "fixed" and the devices are independent (no outages, no trace)`)
	}
	return nil
}
