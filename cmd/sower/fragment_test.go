package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fragments runs the command line in-process with a standard input.
func fragments(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// drop removes the lines whose number, counted from 0, is listed.
func drop(file string, lines ...int) string {
	var kept []string
	for i, line := range strings.SplitAfter(file, "\n") {
		if !slices.Contains(lines, i) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func TestFragmentAndReassemble(t *testing.T) {
	block := strings.Repeat("an update of nine hundred bytes or so ", 25)
	path := filepath.Join(t.TempDir(), "block")
	if err := os.WriteFile(path, []byte(block), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"fragment", path},
		{"fragment", path, "--size", "10"},
		{"fragment", path, "--size", "10", "--parity", "40", "--matrix", "v2"},
		{"fragment", path, "--max-size", "20", "--indices", "auto", "--matrix", "v2abs", "--loss", "0.2"},
		{"fragment", "-", "--size", "48", "--parity", "30", "--indices", "auto"},
	} {
		code, frags, errs := fragments(block, args...)
		if code != 0 {
			t.Fatalf("sower %v: exit %d: %s", args, code, errs)
		}
		// The first and the third fragment are lost.
		out := path + ".copy"
		code, report, errs := fragments(drop(frags, 1, 3), "reassemble", "-", "-o", out)
		got, err := os.ReadFile(out)
		if code != 0 || err != nil || string(got) != block {
			t.Errorf("%v, reassembled: exit %d, %s, %v, equal %v", args, code, errs, err, string(got) == block)
		}
		if !strings.Contains(report, "2 uncoded ones lost") {
			t.Errorf("%v: report %q", args, report)
		}
		if err := os.Remove(out); err != nil {
			t.Fatal(err)
		}
		code, piped, errs := fragments(frags, "reassemble", "-", "-o", "-")
		if code != 0 || piped != block {
			t.Errorf("%v, piped: exit %d, %s", args, code, errs)
		}
	}
}

// The flags are obeyed to the letter; indices run from M+1 unless they are chosen.
func TestFragmentObeys(t *testing.T) {
	block := strings.Repeat("x", 400)
	_, frags, errs := fragments(block, "fragment", "-", "--size", "10", "--parity", "3", "--matrix", "v2")
	lines := strings.Split(strings.TrimSpace(frags), "\n")
	if len(lines) != 44 || lines[0] != `{"m":40,"size":10,"padding":0,"matrix":"v2"}` || !strings.HasPrefix(lines[41], `{"n":41,`) || !strings.HasPrefix(lines[43], `{"n":43,`) {
		t.Errorf("%d lines, the first %s, the last %s", len(lines), lines[0], lines[len(lines)-1])
	}
	if !strings.Contains(errs, "sower: warning: ") {
		t.Errorf("three parity fragments for 40 give no warning: %q", errs)
	}
	_, frags, _ = fragments(block, "fragment", "-", "--size", "10", "--parity", "0")
	if n := strings.Count(frags, "\n"); n != 41 {
		t.Errorf("--parity 0 writes %d lines, want 41", n)
	}
	_, frags, _ = fragments(block, "fragment", "-", "--size", "10", "--parity", "3", "--indices", "auto")
	if strings.Contains(frags, `{"n":41,`) {
		t.Error("--indices auto begins with the first parity fragment, which is a poor one at M = 40")
	}
}

func TestFragmentExplains(t *testing.T) {
	block := strings.Repeat("x", 192*200)
	code, _, errs := fragments(block, "fragment", "-", "--max-size", "200", "--indices", "auto", "--explain")
	for _, want := range []string{"matrix v1", "not 192 fragments of 200 bytes", "193 fragments of 199 bytes", "parity fragments: enough", "measured on"} {
		if code != 0 || !strings.Contains(errs, want) {
			t.Errorf("the explanation lacks %q: %s", want, errs)
		}
	}
	file := filepath.Join(t.TempDir(), "frags")
	code, out, errs := fragments(block, "fragment", "-", "--size", "200", "--json", "-o", file)
	var doc struct {
		Length, M, Size, Padding, Parity int
		Matrix                           string
		Indices                          []int
		Floor                            float64 `json:"failure_floor"`
		Reasons                          []struct {
			Code    string
			Warning bool
			Text    string
		}
	}
	if err := json.Unmarshal([]byte(out), &doc); code != 0 || err != nil {
		t.Fatalf("exit %d, %v: %s %s", code, err, out, errs)
	}
	warned := false
	for _, r := range doc.Reasons {
		warned = warned || r.Warning && r.Code == "twins"
	}
	if doc.Length != len(block) || doc.M != 192 || doc.Size != 200 || doc.Padding != 0 || doc.Matrix != "v1" ||
		doc.Parity == 0 || len(doc.Indices) != doc.Parity || doc.Indices[0] != 193 || doc.Floor < 0.01 || !warned {
		t.Errorf("statistics %s", out)
	}
	if code, _, errs := fragments("", "reassemble", file, "-o", "-"); code != 0 {
		t.Errorf("the file does not reassemble: %s", errs)
	}
}

func TestReassembleReports(t *testing.T) {
	_, frags, _ := fragments(strings.Repeat("x", 400), "fragment", "-", "--size", "10", "--parity", "20", "--matrix", "v2")
	var doc struct {
		M, Size, Padding, Received, Used, Uncoded, Useless, Missing, Length int
		Matrix                                                              string
		Complete                                                            bool
	}
	code, out, errs := fragments(drop(frags, 7), "reassemble", "-", "--json", "-o", filepath.Join(t.TempDir(), "b"))
	if err := json.Unmarshal([]byte(out), &doc); code != 0 || err != nil || !doc.Complete || doc.Length != 400 || doc.Uncoded != 39 || doc.Received != 59 || doc.Missing != 0 {
		t.Errorf("complete: exit %d, %v, %s %s", code, err, out, errs)
	}
	short := strings.Join(strings.SplitAfter(frags, "\n")[:31], "")
	code, out, errs = fragments(short, "reassemble", "-", "--json", "-o", filepath.Join(t.TempDir(), "b"))
	if err := json.Unmarshal([]byte(out), &doc); code != 1 || err != nil || doc.Complete || doc.Missing != 10 || !strings.Contains(errs, "need more fragments") {
		t.Errorf("incomplete: exit %d, %v, %s %s", code, err, out, errs)
	}
}

func TestFragmentBadInput(t *testing.T) {
	dir := t.TempDir()
	out, empty := filepath.Join(dir, "out"), filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, frags, _ := fragments(strings.Repeat("x", 400), "fragment", "-", "--size", "10", "--parity", "2", "--matrix", "v2")
	tests := []struct {
		name  string
		stdin string
		args  []string
		code  int
		say   string
	}{
		{"no block", "", []string{"fragment", "-o", out}, 2, "accepts 1 arg(s), received 0"},
		{"size out of range", "x", []string{"fragment", "-", "--size", "256"}, 2, "--size 256, want 1..255"},
		{"size zero", "x", []string{"fragment", "-", "--size", "0"}, 2, "--size 0, want 1..255"},
		{"data rate out of range", "x", []string{"fragment", "-", "--max-size", "300"}, 2, "--max-size 300"},
		{"size above the data rate", "x", []string{"fragment", "-", "--size", "60", "--max-size", "50"}, 2, "above --max-size 50"},
		{"negative parity", "x", []string{"fragment", "-", "--parity", "-1"}, 2, "--parity -1"},
		{"parity beyond 14 bits", "x", []string{"fragment", "-", "--parity", "16383"}, 2, "--parity 16383"},
		{"parity beyond 14 bits with the block", strings.Repeat("x", 1000), []string{"fragment", "-", "--size", "1", "--parity", "16000"}, 1, "want at most 15383"},
		{"unknown matrix", "x", []string{"fragment", "-", "--matrix", "v3"}, 2, `--matrix "v3"`},
		{"unknown indices", "x", []string{"fragment", "-", "--indices", "41,42"}, 2, `--indices "41,42"`},
		{"loss of everything", "x", []string{"fragment", "-", "--loss", "1"}, 2, "--loss 1"},
		{"loss no number", "x", []string{"fragment", "-", "--loss", "NaN"}, 2, "--loss NaN"},
		{"missing file", "", []string{"fragment", filepath.Join(dir, "nothing"), "-o", out}, 1, "no such file"},
		{"empty file", "", []string{"fragment", empty, "-o", out}, 1, "the file is empty"},
		{"empty standard input", "", []string{"fragment", "-", "-o", out}, 1, "it is empty"},
		{"block too large", strings.Repeat("x", 20000), []string{"fragment", "-", "--size", "1", "-o", out}, 1, "block of 20000 bytes, want 1..16383"},
		{"no such folder", "xx", []string{"fragment", "-", "-o", filepath.Join(out, "x")}, 1, "no such file"},
		{"no output named", frags, []string{"reassemble", "-"}, 2, "--output is missing"},
		{"missing fragments", "", []string{"reassemble", filepath.Join(dir, "nothing"), "-o", out}, 1, "no such file"},
		{"empty fragments", "", []string{"reassemble", "-", "-o", out}, 1, "line 1: fragfile: not a fragment file: the file is empty"},
		{"no fragments", "hello\n", []string{"reassemble", "-", "-o", out}, 1, "line 1: "},
		{"too few fragments", drop(frags, 1, 2, 3), []string{"reassemble", "-", "-o", out}, 1, "need more fragments"},
		{"fragment of another session", frags + frags, []string{"reassemble", "-", "-o", out}, 1, "line 44: "},
		{"contradiction", frags + `{"n":1,"data":"00000000000000000000"}`, []string{"reassemble", "-", "-o", out}, 1, "line 44: fragmentation: fragment contradicts"},
		{"fragment too short", frags + `{"n":1,"data":"00"}`, []string{"reassemble", "-", "-o", out}, 1, "line 44: fragmentation: wrong fragment length"},
		{"fragment number 0", frags + `{"n":0,"data":"00"}`, []string{"reassemble", "-", "-o", out}, 1, "line 44: fragmentation: no such fragment number: 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := fragments(tt.stdin, tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.say) || stdout != "" {
				t.Errorf("exit %d, stdout %q, stderr %q; want exit %d and %q", code, stdout, stderr, tt.code, tt.say)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("an output file was left behind")
			}
		})
	}
}
