package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// simulate runs `sower simulate` in-process.
func simulate(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	cmd := newSimulateCommand()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetFlagErrorFunc(newRootCommand().FlagErrorFunc())
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		return 1, out.String(), err.Error()
	}
	return 0, out.String(), errs.String()
}

const simulateScenario = `name = "loss"
devices = 200
reps = 3
[block]
fragments = 100
[policy]
parity = 40
[sweep]
"loss.p" = [0.05, 0.2]
`

func TestSimulateSweepShardsMergePlot(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(file("s.toml"), []byte(simulateScenario), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"sweep", file("s.toml"), "-o", file("all"), "--workers", "2"},
		{"sweep", file("s.toml"), "-o", file("a"), "--shard", "0/2"},
		{"sweep", file("s.toml"), "-o", file("b"), "--shard", "1/2"},
		{"merge", file("s.toml"), file("a"), file("b"), "-o", file("merged")},
		{"sweep", file("s.toml"), "--plan"},
		{"verify", "--dir", file("merged")},
		{"plot", file("all"), "-o", file("cdf.svg")},
		{"plot", file("all"), "--x", "loss.p", "--y", "sent_p90", "-o", file("p90.png")},
	} {
		if code, _, errs := simulate(args...); code != 0 {
			t.Fatalf("%v: %s", args, errs)
		}
	}
	for _, name := range []string{"results.csv", "results.jsonl", "summary.csv", "cdf.csv", "manifest.json", "cells.jsonl"} {
		a, err := os.ReadFile(filepath.Join(file("all"), name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(file("merged"), name))
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s of the merged shards differs (%v)", name, err)
		}
	}
	if svg, err := os.ReadFile(file("cdf.svg")); err != nil || !bytes.Contains(svg, []byte("loss.p = 0.2")) {
		t.Errorf("the plot has no legend (%v)", err)
	}
	if png, err := os.ReadFile(file("p90.png")); err != nil || !bytes.HasPrefix(png, []byte("\x89PNG")) {
		t.Errorf("the other plot is no PNG (%v)", err)
	}
}

func TestSimulateRun(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s.toml")
	if err := os.WriteFile(path, []byte("name = \"x\"\ndevices = 100\n[block]\nfragments = 50\n[loss]\np = 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, errs := simulate("run", path, "--json")
	var rows []map[string]string
	if err := json.Unmarshal([]byte(out), &rows); code != 0 || err != nil || len(rows) != 1 || rows[0]["complete"] != "100" {
		t.Errorf("exit %d, %q, %q (%v)", code, out, errs, err)
	}
}

func TestSimulateRefuses(t *testing.T) {
	dir := t.TempDir()
	sweep, broken, csv := filepath.Join(dir, "sweep.toml"), filepath.Join(dir, "broken.toml"), filepath.Join(dir, "t.csv")
	for name, text := range map[string]string{sweep: simulateScenario, broken: "name = \"x\"\n[block]\nfragments = 99999\n", csv: "device,time_s,lost\na,0,0\na,1,2\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"run", sweep}, "sweeps over 2 points"},
		{[]string{"run", filepath.Join(dir, "none.toml")}, "no such file"},
		{[]string{"run"}, "accepts 1 arg"},
		{[]string{"run", broken}, "block.fragments = 99999, want 1..16383"},
		{[]string{"sweep", sweep}, "--out is missing"},
		{[]string{"sweep", sweep, "-o", dir, "--shard", "2/2"}, `--shard "2/2"`},
		{[]string{"sweep", sweep, "-o", dir, "--workers", "0"}, "--workers 0"},
		{[]string{"merge", sweep, dir, "-o", filepath.Join(dir, "m")}, "cells.jsonl"},
		{[]string{"verify", "nothing-is-named-so"}, "no published result"},
		{[]string{"fit", csv}, `lost "2", want 0 or 1`},
		{[]string{"plot", dir, "-o", "x.svg"}, "cdf.csv"},
		{[]string{"plot", dir}, "--out is missing"},
		{[]string{"plot", dir, "-o", "x.pdf"}, "ends in .svg or .png"},
		{[]string{"compat", "lorasim"}, "want fuotasim or fuotaa"},
		{[]string{"compat", "fuotasim", "--data-rate", "9"}, "data rate = 9, want 0..6"},
	} {
		code, _, errs := simulate(tt.args...)
		if code == 0 || !strings.Contains(errs, tt.want) {
			t.Errorf("%v: exit %d, %q, want %q", tt.args, code, errs, tt.want)
		}
	}
}

func TestSimulateVerifyFitCompat(t *testing.T) {
	if code, out, errs := simulate("verify", "fuotaa", "t14-m50-"); code != 0 || !strings.Contains(out, "19 of 19") {
		t.Errorf("verify: exit %d, %s%s", code, out, errs)
	}
	if code, out, _ := simulate("compat", "fuotasim"); code != 0 || !strings.Contains(out, "935.268096 s") {
		t.Errorf("compat fuotasim: %s", out)
	}
	if code, out, _ := simulate("compat", "fuotaa", "--data-rate", "2", "--firmware", "2000", "--fragment", "39"); code != 0 || !strings.Contains(out, "52 fragments, one every 6.285312 s") {
		t.Errorf("compat fuotaa: %s", out)
	}
	path := filepath.Join(t.TempDir(), "up.jsonl")
	if err := os.WriteFile(path, []byte(`{"time":"2026-01-01T00:00:00Z","deviceInfo":{"devEui":"01"},"fCnt":5}
{"time":"2026-01-01T00:04:00Z","deviceInfo":{"devEui":"01"},"fCnt":9}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := simulate("fit", "--uplinks", path); code != 0 || !strings.Contains(out, "loss 0.6000") {
		t.Errorf("fit: %s%s", out, errs)
	}
}
