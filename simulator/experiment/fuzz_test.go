package experiment

import (
	"strings"
	"testing"
)

// FuzzPoints: whatever a file says, it is refused with words, or it runs.
func FuzzPoints(f *testing.F) {
	f.Add("[block]\nfragments = 20\n[loss]\np = 0.5\n[sweep]\n\"policy.name\" = [\"plan\", \"rateless\"]\n")
	f.Add("[block]\nbytes = 300\nfragment_bytes = 9\n[air]\nclass = \"B\"\nperiodicity = 3\n[loss]\nmodel = \"gilbert-elliott\"\np = 0.3\nburst_time = \"90s\"\n[policy]\nparity = 9\n")
	f.Add("[block]\nfragments = 3\n[loss]\nmodel = \"rayleigh\"\nmargin_db = -40\noutage_every = \"1h\"\noutage_for = \"1s\"\n[code]\nname = \"none\"\n[policy]\nname = \"plan\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Points([]byte("name = \"x\"\n" + text))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "experiment: ") && !strings.HasPrefix(err.Error(), "point ") {
				t.Errorf("%q: an error without a place: %v", text, err)
			}
			return
		}
		s := &p[0].Scenario
		if s.Block.Fragments > 200 || s.Policy.Limit > 6000 || s.Loss.Model == "trace" || s.Depth == "table" {
			return // valid, and too much work here
		}
		s.Devices = min(s.Devices, 5)
		sim, err := NewSimulator(p[0], nil)
		if err != nil {
			return
		}
		r, err := sim.Run(0)
		if err != nil {
			return
		}
		if r.Complete > r.Devices || r.Time < 0 || r.Listening < 0 || r.Sent < s.Block.Fragments && s.Policy.Name == "fixed" {
			t.Errorf("%q: %+v", text, r)
		}
	})
}
