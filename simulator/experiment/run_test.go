package experiment

import (
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const smallSweep = `reps = 4
devices = 150
[block]
fragments = 40
fragment_bytes = 40
[uplink]
loss = 0.2
[policy]
name = "plan"
[sweep]
"loss.p" = [0.05, 0.2]
"code.name" = ["ts004-v1", "rlnc256"]
`

// files reads a folder of results.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

func run(t *testing.T, p []Point, o Options) map[string]string {
	t.Helper()
	if o.Out == "" {
		o.Out = t.TempDir()
	}
	if err := Run(context.Background(), p, o); err != nil {
		t.Fatal(err)
	}
	return files(t, o.Out)
}

// TestSameBytes: any number of workers, any split into shards, any interruption and any two runs give the same files.
func TestSameBytes(t *testing.T) {
	p := points(t, smallSweep)
	want := run(t, p, Options{})
	if len(want) != 6 {
		t.Fatalf("files %v", maps.Keys(want))
	}
	if got := run(t, p, Options{Workers: 5}); !maps.Equal(got, want) {
		t.Error("five workers wrote other files than one")
	}
	for _, shards := range []int{2, 3, 7} {
		var dirs []string
		for i := range shards {
			dirs = append(dirs, t.TempDir())
			run(t, p, Options{Out: dirs[i], Shard: i, Shards: shards, Workers: 1 + i%2})
		}
		out := t.TempDir()
		if err := Merge(p, dirs, Options{Out: out}); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(files(t, out), want) {
			t.Errorf("%d shards merged to other files", shards)
		}
	}
}

// TestResultsAreFixed pins the bytes of results over loss models, codes and classes: they are the same on every
// processor, and change only with [Generator].
func TestResultsAreFixed(t *testing.T) {
	for _, tt := range []struct{ loss, want string }{
		{"p = 0.12", "c38365d6d40ed5a7"},
		{"model = \"beta\"\na = 0.5\nb = 4.5", "23981c00d4b76447"},
		{"model = \"gilbert-elliott\"\np = 0.1\nburst_time = \"40s\"\nloss_good = 0.01\nloss_bad = 0.8", "d97e5017f1b026d0"},
		{"model = \"rayleigh\"\nmargin_db = 9\nshadowing_db = 5\ncoherence = \"20s\"\noutage_every = \"20m\"\noutage_for = \"30s\"", "a1551b0033c8548a"},
	} {
		p := points(t, "devices = 400\nreps = 2\n[block]\nfragments = 90\n[policy]\nparity = 40\n[sweep]\n\"code.name\" = [\"ts004-v1\", \"ts004-v2\", \"rlnc256\", \"none\"]\n\"air.class\" = [\"B\", \"C\"]\n[loss]\n"+tt.loss+"\n")
		got := run(t, p, Options{Workers: 2})
		all := sum256([]byte(got["results.csv"] + got["summary.csv"] + got["cdf.csv"] + got["results.jsonl"] + got["manifest.json"]))
		if all[:16] != tt.want {
			t.Errorf("%s: %q", tt.loss, all[:16])
		}
	}
}

// TestInterruptedRunContinues stops a run after each number of cells, tears the last line of its journal as a power cut
// does, and continues it: the files are the same, and only cells that were not in the journal run again.
func TestInterruptedRunContinues(t *testing.T) {
	p := points(t, smallSweep)
	want := run(t, p, Options{})
	for _, after := range []int{1, 5, 15} {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(context.Background())
		err := Run(ctx, p, Options{Out: dir, Progress: func(done, _, _ int) {
			if done == after {
				cancel()
			}
		}})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("interrupted run: %v", err)
		}
		f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, `[{"point":3,"rep":3,"dev`); err != nil {
			t.Fatal(err)
		}
		f.Close()
		found := -1
		got := run(t, p, Options{Out: dir, Progress: func(_, resumed, total int) {
			found = resumed
			if total != 16 {
				t.Errorf("%d cells, want 16", total)
			}
		}})
		if !maps.Equal(got, want) {
			t.Errorf("interrupted after %d cells: other files", after)
		}
		if found < after || found > after+1 {
			t.Errorf("interrupted after %d cells, %d were found done", after, found)
		}
	}
}

func TestForeignFoldersAreRefused(t *testing.T) {
	p := points(t, smallSweep)
	dir := t.TempDir()
	run(t, p, Options{Out: dir})
	other := points(t, strings.Replace(smallSweep, "150", "151", 1))
	if err := Run(context.Background(), other, Options{Out: dir}); err == nil || !strings.Contains(err.Error(), "holds another run") {
		t.Errorf("another scenario in the same folder: %v", err)
	}
	half := t.TempDir()
	run(t, p, Options{Out: half, Shard: 0, Shards: 2})
	for _, tt := range []struct {
		dirs []string
		want string
	}{
		{[]string{half}, "shard 0 of 2, but 1 folders"},
		{[]string{half, half}, "both shard 0"},
		{[]string{half, t.TempDir()}, "no such file"},
		{[]string{dir, dir}, "shard 0 of 1, but 2"},
	} {
		if err := Merge(p, tt.dirs, Options{Out: t.TempDir()}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("merge of %d: %v, want %q", len(tt.dirs), err, tt.want)
		}
	}
	if err := Merge(other, []string{half, half}, Options{Out: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "belongs to scenario") {
		t.Errorf("merge under another scenario: %v", err)
	}
	// A shard that was interrupted.
	rest := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	_ = Run(ctx, p, Options{Out: rest, Shard: 1, Shards: 2, Progress: func(done, _, _ int) {
		if done == 3 {
			cancel()
		}
	}})
	if err := Merge(p, []string{half, rest}, Options{Out: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "shard 1") || !strings.Contains(err.Error(), "not finished") {
		t.Errorf("merge of half a shard: %v", err)
	}
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, journalName), []byte("{\"format\":\"x\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Run(context.Background(), p, Options{Out: broken}); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a foreign journal: %v", err)
	}
}

func TestVerifyDirSeesChanges(t *testing.T) {
	p := points(t, smallSweep)
	dir := t.TempDir()
	run(t, p, Options{Out: dir})
	if n, err := VerifyDir(context.Background(), dir, nil); err != nil || n != 4 {
		t.Errorf("untouched results: %d files, %v", n, err)
	}
	path := filepath.Join(dir, "results.csv")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-2] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyDir(context.Background(), dir, nil); err == nil || !strings.Contains(err.Error(), "results.csv was changed") {
		t.Errorf("a changed digit: %v", err)
	}
}

// TestVerifyDirRefusesImpossibleManifests: a manifest is a file like any other.
func TestVerifyDirRefusesImpossibleManifests(t *testing.T) {
	p := points(t, "devices = 5\n[block]\nbytes = 5000\n")
	dir := t.TempDir()
	run(t, p, Options{Out: dir})
	if _, err := VerifyDir(context.Background(), dir, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "manifest.json")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ from, to, want string }{
		{`"fixed"`, `"hope"`, `policy.name = "hope"`},
		{`"ts004-v1"`, `"fountain"`, `code.name = "fountain"`},
		{`"EU868"`, `"MARS"`, `air.region = "MARS"`},
		{`"Devices": 5`, `"Devices": -5`, "devices = -5"},
		{`"Bytes": 5000`, `"Bytes": -1`, "block"},
	} {
		broken := strings.Replace(string(whole), tt.from, tt.to, 1)
		if broken == string(whole) {
			t.Fatalf("the manifest does not say %s", tt.from)
		}
		if err := os.WriteFile(path, []byte(broken), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyDir(context.Background(), dir, nil); err == nil || !strings.Contains(err.Error(), "manifest.json: point 0") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.to, err, tt.want)
		}
	}
}

// TestStopRule: repetitions end when the interval is narrow enough, the same way in shards, and not before.
func TestStopRule(t *testing.T) {
	p := points(t, "reps = 50\ndevices = 500\n[block]\nfragments = 100\n[loss]\np = 0.1\n[policy]\nparity = 14\n[stop]\nci = 0.02\nmin_reps = 3\n[sweep]\npolicy.parity = [0, 14]\n")
	dir := t.TempDir()
	want := run(t, p, Options{Out: dir, Workers: 2})
	rows, err := ReadSummary(dir)
	if err != nil {
		t.Fatal(err)
	}
	// 0 of 1500 are enough at parity 0; a share near one half needs 0.25·(1.96/0.02)² = 2401 devices.
	for i, reps := range []string{"3", "5"} {
		if rows[i]["reps"] != reps {
			t.Errorf("point %d: %s repetitions, want %s (%v)", i, rows[i]["reps"], reps, rows[i])
		}
	}
	dirs := []string{t.TempDir(), t.TempDir()}
	for i, d := range dirs {
		run(t, p, Options{Out: d, Shard: i, Shards: 2})
	}
	out := t.TempDir()
	if err := Merge(p, dirs, Options{Out: out}); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(files(t, out), want) {
		t.Error("shards with a stop rule merged to other files")
	}
}

func TestTraceScenario(t *testing.T) {
	p := points(t, "devices = 2\n[block]\nfragments = 3\n[air]\ninterval = \"10s\"\n[loss]\nmodel = \"trace\"\nfile = \"t.csv\"\n[policy]\nparity = 0\n")
	open := func(text string) func(string) (io.ReadCloser, error) {
		return func(name string) (io.ReadCloser, error) {
			if name != "t.csv" {
				return nil, os.ErrNotExist
			}
			return io.NopCloser(strings.NewReader(text)), nil
		}
	}
	dir := t.TempDir()
	run(t, p, Options{Out: dir, Open: open("device,time_s,lost\na,0,0\nb,0,0\nb,10,1\n")})
	rows, err := ReadSummary(dir)
	if err != nil || rows[0]["complete"] != "1" {
		t.Errorf("summary %v, %v; device b loses the second fragment", rows, err)
	}
	if err := Run(context.Background(), p, Options{Out: dir, Open: open("device,time_s,lost\na,0,0\n")}); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("another trace in the same folder: %v", err)
	}
	if err := Run(context.Background(), p, Options{Out: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "loss.file") {
		t.Errorf("no way to open a trace: %v", err)
	}
}

// TestPolicies: the plan completes what the fixed redundancy leaves behind, near the rateless bound and with few uplinks.
func TestPolicies(t *testing.T) {
	const fleet = "devices = 1000\nreps = 1\n[block]\nfragments = 300\n[loss]\nmodel = \"beta\"\na = 4\nb = 36\n[uplink]\nloss = 0.1\nretries = 2\n[policy]\nname = "
	fixed := simulate(t, fleet+"\"fixed\"\nredundancy = 0.2\n")
	plan := simulate(t, fleet+"\"plan\"\n")
	rateless := simulate(t, fleet+"\"rateless\"\n")
	if fixed.Complete > 930 || plan.Complete < 998 || rateless.Complete != 1000 {
		t.Errorf("complete: fixed %d, plan %d, rateless %d", fixed.Complete, plan.Complete, rateless.Complete)
	}
	if plan.Uplinks > 40 || float64(plan.Sent) > 1.08*float64(rateless.Sent) {
		t.Errorf("plan sent %d with %d uplinks, rateless %d", plan.Sent, plan.Uplinks, rateless.Sent)
	}
	// Without uplinks the plan is its first burst.
	deaf := simulate(t, strings.Replace(fleet, "loss = 0.1", "loss = 1", 1)+"\"plan\"\n")
	if deaf.Polls != 3 || deaf.Sent >= plan.Sent {
		t.Errorf("nobody heard: %d polls, %d sent", deaf.Polls, deaf.Sent)
	}
}

// endless is a policy that only ever asks.
type endless struct{}

func (endless) Next(v View) Step {
	if v.Sent == 0 {
		return Step{Send: 1}
	}
	return Step{Poll: true}
}

func TestEndlessPolicyIsAnError(t *testing.T) {
	Policies["endless"] = func(*Scenario) (Policy, error) { return endless{}, nil }
	defer delete(Policies, "endless")
	sim, err := NewSimulator(points(t, "devices = 2\n[block]\nfragments = 10\n[policy]\nname = \"endless\"\n")[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sim.Run(0); err == nil || !strings.Contains(err.Error(), "has not ended") {
		t.Errorf("got %v", err)
	}
}
