package experiment

import (
	"errors"
	"strings"
	"testing"
)

func TestImpossibleScenariosAreRefused(t *testing.T) {
	const ok = "[block]\nfragments = 100\n"
	for _, tt := range []struct{ text, want string }{
		{"devices = 0.5\n" + ok, "devices"},
		{"devices = -1\n" + ok, "devices = -1, want 1..5000000"},
		{"device = 5\n" + ok, "device = set, want a field that exists"},
		{ok + "[los]\np = 1\n", "los = set"},
		{"", "block = 0 fragments, 0 bytes, want exactly one"},
		{"[block]\nfragments = 100\nbytes = 5\n", "exactly one"},
		{"[block]\nfragments = 20000\n", "block.fragments = 20000, want 1..16383"},
		{"[block]\nbytes = 100000000\n", "3915537 bytes at most"},
		{ok + "fragment_bytes = 240\n", "block.fragment_bytes = 240, want 1..239, what DR5 of EU868 carries"},
		{ok + "fragment_bytes = 100\n[air]\ndata_rate = 0\n", "fragment_bytes = 100, want 1..48"},
		{ok + "[air]\nregion = \"MARS\"\n", `air.region = "MARS", want one of EU868, US915`},
		{ok + "[air]\ndata_rate = 12\n", "air.data_rate = 12"},
		{ok + "[air]\nregion = \"US915\"\n", "a downlink data rate of US915"},
		{ok + "[air]\nclass = \"A\"\n", `air.class = "A", want "B" or "C"`},
		{ok + "[air]\nclass = \"B\"\nperiodicity = 8\n", "air.periodicity = 8, want 0..7"},
		{ok + "[air]\nduty_cycle = 2\n", "air.duty_cycle = 2"},
		{ok + "[air]\ninterval = \"1ms\"\n", "air.interval = 1ms, want at least the 394.496ms"},
		{ok + "[air]\ninterval = \"soon\"\n", "no duration"},
		{ok + "[loss]\np = 1.5\n", "loss.p = 1.5, want 0..1"},
		{ok + "[loss]\np = nan\n", "loss.p = NaN, want 0..1"},
		{ok + "[loss]\nmodel = \"fog\"\n", `loss.model = "fog"`},
		{ok + "[loss]\nmodel = \"beta\"\na = 1\n", "loss.b = 0, want 0.01..1000"},
		{ok + "[loss]\nburst = 3\n", "model \"iid\" does not use it"},
		{ok + "[loss]\nmodel = \"gilbert-elliott\"\np = 0.1\n", "exactly one of burst and burst_time"},
		{ok + "[loss]\nmodel = \"gilbert-elliott\"\np = 0.9\nburst = 2\n", "at least 10.000 steps"},
		{ok + "[loss]\nmodel = \"trace\"\n", "loss.file"},
		{ok + "[loss]\nmodel = \"rayleigh\"\nmargin_db = 200\n", "margin_db = 200, want -50..100"},
		{ok + "[loss]\noutage_every = \"1h\"\n", "both or neither"},
		{ok + "[uplink]\nloss = 2\n", "uplink.loss = 2, want 0..1"},
		{ok + "[code]\nname = \"fountain\"\n", `code.name = "fountain", want one of ["mds"`},
		{ok + "[policy]\nname = \"hope\"\n", `policy.name = "hope", want one of ["fixed" "plan" "rateless"]`},
		{ok + "[policy]\nparity = 20000\n", "policy.parity = 20000, want 0.."},
		{ok + "[policy]\nparity = 2\nredundancy = 0.1\n", "left out"},
		{ok + "[policy]\nname = \"plan\"\ntarget = 1.5\n", "policy.target = 1.5"},
		{ok + "[energy]\nprofile = \"sun\"\n", "energy.profile"},
		{ok + "[stop]\nci = 1\n", "stop.ci"},
		{"depth = \"deep\"\n" + ok, "depth"},
		{"depth = \"bytes\"\n" + ok + "[code]\nname = \"mds\"\n", "has no bytes"},
		{"depth = \"table\"\n" + ok + "[policy]\nname = \"rateless\"\n", "policy is \"fixed\""},
		{ok + "[sweep]\n\"loss.p\" = 0.1\n", "sweep.loss.p = 0.1, want a list"},
		{ok + "[sweep]\n\"loss.p\" = []\n", "at least one value"},
		{ok + "[sweep]\n\"loss.q\" = [1]\n", "loss.q = set"},
		{ok + "[sweep]\n\"loss.p\" = [0.1, 3.0]\n", "point 1 of the sweep: experiment: loss.p = 3"},
		{ok + "[sweep]\n\"reps\" = [1, 2]\n", "leave the number of repetitions alone"},
		{ok + "[sweep]\n\"loss.p\" = [" + strings.Repeat("0.1,", 10000) + "]\n\"devices\" = [" + strings.Repeat("10,", 10000) + "]\n", "points or more, want at most 100000"},
		{"reps = 1000000\n" + ok + "[sweep]\n\"loss.p\" = [" + strings.Repeat("0.1,", 10) + "]\n", "reps = 1000000, want at most 500000 for 10 points"},
		{"[block\n", "scenario"},
	} {
		_, err := Points([]byte("name = \"x\"\n" + tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.120q: %v, want %q", tt.text, err, tt.want)
		}
	}
	var field *FieldError
	if _, err := Points([]byte("name = \"a/b\"\n" + ok)); !errors.As(err, &field) || field.Field != "name" {
		t.Errorf("a name with a slash: %v, want a FieldError of name", err)
	}
}

func TestSweepsExpandInOrder(t *testing.T) {
	p := points(t, "[block]\nfragments = 100\n[sweep]\nloss.p = [0.1, 0.2]\n\"code.name\" = [\"mds\", \"none\", \"ts004-v2\"]\n")
	if len(p) != 6 {
		t.Fatalf("%d points, want 6", len(p))
	}
	for i, want := range []string{"mds 0.1", "mds 0.2", "none 0.1", "none 0.2", "ts004-v2 0.1", "ts004-v2 0.2"} {
		if got := strings.Join(p[i].Values, " "); got != want || p[i].Index != i {
			t.Errorf("point %d (%d): %s, want %s", i, p[i].Index, got, want)
		}
		if p[i].Scenario.Code.Name+" "+p[i].Values[1] != want {
			t.Errorf("point %d: the scenario is %+v", i, p[i].Scenario)
		}
	}
	if Hash(p) == Hash(p[:5]) {
		t.Error("two scenarios with one hash")
	}
}

func TestShippedScenariosAreValid(t *testing.T) {
	all, err := PublishedScenarios()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range all {
		p, err := Points(text)
		if err != nil || p[0].Scenario.Name != name {
			t.Errorf("%s: %v, name %q", name, err, p[0].Scenario.Name)
		}
	}
}
