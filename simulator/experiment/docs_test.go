package experiment

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocumentedScenarios: the scenarios of docs/simulate.md are valid, and its table has every field.
func TestDocumentedScenarios(t *testing.T) {
	text, err := os.ReadFile("../../docs/simulate.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml[^\n]*\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 3 {
		t.Fatalf("%d scenarios found, want 3 or more", len(blocks))
	}
	for _, b := range blocks {
		p, err := Points([]byte(b[1]))
		if err != nil {
			t.Errorf("%v in\n%s", err, b[1])
			continue
		}
		if p[0].Scenario.Loss.File != "" {
			continue // needs its trace; the commands of the document are tested with the program
		}
		if _, err := NewSimulator(p[0], nil); err != nil {
			t.Errorf("%v in\n%s", err, b[1])
		}
	}
	source, err := os.ReadFile("scenario.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("toml:\"([a-z_]+)\"").FindAllStringSubmatch(string(source), -1) {
		if !strings.Contains(string(text), m[1]) {
			t.Errorf("field %q is not documented", m[1])
		}
	}
}

// TestDocumentedColumns: the data dictionary names every column of the results.
func TestDocumentedColumns(t *testing.T) {
	text, err := os.ReadFile("../../docs/simulate.md")
	if err != nil {
		t.Fatal(err)
	}
	results := run(t, points(t, "devices = 5\nreps = 2\n[block]\nfragments = 10\n"), Options{})
	for _, name := range []string{"results.csv", "summary.csv", "cdf.csv"} {
		columns, err := csv.NewReader(strings.NewReader(results[name])).Read()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range columns {
			if c == "sent_p90" || c == "sent_p99" { // within sent_p50 .. sent_p999
				continue
			}
			if !strings.Contains(string(text), "`"+c+"`") {
				t.Errorf("%s: column %q is not documented", name, c)
			}
		}
	}
}

// TestDocumentedCode: programs in the document compile and run, and every other line of Go stands in this package.
func TestDocumentedCode(t *testing.T) {
	text, err := os.ReadFile("../../docs/simulate.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, name := range []string{"code.go", "policy.go", "example_test.go"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	programs, lines := 0, 0
	for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		if strings.HasPrefix(block[1], "package main") {
			programs++
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(block[1]), 0o644); err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(dir, "program")
			if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, filepath.Join(dir, "main.go")).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s in\n%s", err, out, block[1])
			}
			cmd := exec.CommandContext(t.Context(), program)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if _, err := VerifyDir(context.Background(), filepath.Join(dir, "mine"), nil); err == nil || !strings.Contains(err.Error(), `policy.name = "hopeful"`) {
				t.Errorf("results of a policy that this program does not have: %v", err)
			}
			continue
		}
		for _, line := range strings.Split(block[1], "\n") {
			lines++
			if !strings.Contains(source.String(), strings.TrimSpace(line)) {
				t.Errorf("%q is not what the package has", line)
			}
		}
	}
	if programs != 1 || lines < 40 {
		t.Errorf("%d programs and %d lines of Go in the document", programs, lines)
	}
}

// TestNotebookIsInStep: the notebook was executed without an error, its scenarios are valid, the files it reads have the
// columns it reads, and the results it shows are what its scenarios give now.
func TestNotebookIsInStep(t *testing.T) {
	text, err := os.ReadFile("../../docs/simulate.ipynb")
	if err != nil {
		t.Fatal(err)
	}
	var notebook struct {
		Cells []struct {
			CellType       string          `json:"cell_type"`
			Source         json.RawMessage // a string or a list of them
			ExecutionCount *int            `json:"execution_count"`
			Outputs        []struct {
				OutputType string          `json:"output_type"`
				Text       json.RawMessage // of streams
			}
		}
	}
	if err := json.Unmarshal(text, &notebook); err != nil {
		t.Fatal(err)
	}
	join := func(raw json.RawMessage) string {
		var lines []string
		if json.Unmarshal(raw, &lines) == nil {
			return strings.Join(lines, "")
		}
		var all string
		if err := json.Unmarshal(raw, &all); err != nil && len(raw) > 0 {
			t.Fatal(err)
		}
		return all
	}
	scenario := regexp.MustCompile(`^%%writefile (\w+)\.toml\n`)
	sweep := regexp.MustCompile(`^!sower simulate sweep (\w+)\.toml -o (\w+)`)
	reads := regexp.MustCompile(`(?s)pd\.read_csv\("([\w/.]+)", usecols=\[(.*?)\]\)`)
	quoted := regexp.MustCompile(`"([^"]+)"`)
	dir, all := t.TempDir(), map[string][]Point{}
	swept, read, last := 0, 0, 0
	for i, c := range notebook.Cells {
		if c.CellType != "code" {
			continue
		}
		if last++; c.ExecutionCount == nil || *c.ExecutionCount != last {
			t.Errorf("cell %d was not executed in order", i)
		}
		var shown strings.Builder
		for _, o := range c.Outputs {
			if o.OutputType == "error" {
				t.Errorf("cell %d ended with an error", i)
			}
			shown.WriteString(join(o.Text))
		}
		source := join(c.Source)
		if m := scenario.FindStringSubmatch(source); m != nil {
			if all[m[1]], err = Points([]byte(strings.TrimPrefix(source, m[0]))); err != nil {
				t.Fatalf("cell %d: %v", i, err)
			}
		}
		if m := sweep.FindStringSubmatch(source); m != nil {
			swept++
			out := filepath.Join(dir, m[2])
			if err := Run(context.Background(), all[m[1]], Options{Out: out, Workers: 2}); err != nil {
				t.Fatal(err)
			}
			rows, err := ReadSummary(out)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				if want := r["complete"] + " of " + r["devices"] + " devices complete"; !strings.Contains(shown.String(), want) {
					t.Errorf("cell %d does not show %q; execute the notebook again", i, want)
				}
				if want := r["sent_p50"] + " / "; !strings.Contains(shown.String(), want) {
					t.Errorf("cell %d does not show the median %s; execute the notebook again", i, r["sent_p50"])
				}
			}
		}
		for _, m := range reads.FindAllStringSubmatch(source, -1) {
			read++
			f, err := os.Open(filepath.Join(dir, filepath.FromSlash(m[1])))
			if err != nil {
				t.Fatalf("cell %d: %v", i, err)
			}
			columns, err := csv.NewReader(f).Read()
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range quoted.FindAllStringSubmatch(m[2], -1) {
				if !slices.Contains(columns, q[1]) {
					t.Errorf("cell %d reads column %q, which %s does not have", i, q[1], m[1])
				}
			}
		}
	}
	if swept < 2 || read < 4 || len(text) > 200<<10 {
		t.Errorf("%d sweeps, %d files read, %d bytes; want 2, 4 and at most 200 KiB", swept, read, len(text))
	}
}
