package experiment

import (
	"context"
	"embed"
	"encoding/csv"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// The published results and the scenarios that must reproduce them: NAME.toml beside expected.csv, and the rows of the
// two published simulators and test beds that have a mode of their own.
//
//go:embed testdata/published
var published embed.FS

const publishedDir = "testdata/published"

// Check is one published number and what the model makes of it.
type Check struct {
	Name      string  `json:"name"`
	Metric    string  `json:"metric"`
	Want      float64 `json:"want"`
	Tolerance float64 `json:"tolerance"`
	Got       float64 `json:"got"`
	Source    string  `json:"source"`
}

// OK reports whether the model agrees.
func (c Check) OK() bool { return math.Abs(c.Got-c.Want) <= c.Tolerance }

// expectation is a row of expected.csv.
type expectation struct {
	name, metric    string
	want, tolerance float64
	source          string
}

func expectations() ([]expectation, error) {
	f, err := published.Open(publishedDir + "/expected.csv")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("expected.csv: %w", err)
	}
	var out []expectation
	for i, r := range rows[1:] {
		e := expectation{name: r[0], metric: r[1], source: r[4]}
		var err1, err2 error
		e.want, err1 = strconv.ParseFloat(r[2], 64)
		e.tolerance, err2 = strconv.ParseFloat(r[3], 64)
		if err := firstError(err1, err2); err != nil {
			return nil, fmt.Errorf("expected.csv row %d: %w", i+2, err)
		}
		out = append(out, e)
	}
	return out, nil
}

// Verify recomputes the published results whose name begins with one of the prefixes, all of them if there are none,
// and reports each number as soon as it is known. It returns an error if something could not be computed; whether
// numbers agree is for the caller to say.
func Verify(ctx context.Context, prefixes []string, report func(Check)) error {
	wanted := func(name string) bool {
		return len(prefixes) == 0 || slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	rows, err := expectations()
	if err != nil {
		return err
	}
	found := false
	for i := 0; i < len(rows); {
		j := i
		for j < len(rows) && rows[j].name == rows[i].name {
			j++
		}
		group := rows[i:j]
		i = j
		if !wanted(group[0].name) {
			continue
		}
		found = true
		if err := ctx.Err(); err != nil {
			return err
		}
		text, err := published.ReadFile(path.Join(publishedDir, group[0].name+".toml"))
		if err != nil {
			return fmt.Errorf("%s: %w", group[0].name, err)
		}
		points, err := Points(text)
		if err != nil {
			return fmt.Errorf("%s: %w", group[0].name, err)
		}
		sim, err := NewSimulator(points[0], nil)
		if err != nil {
			return fmt.Errorf("%s: %w", group[0].name, err)
		}
		var results []Result
		for rep := range points[0].Scenario.Reps {
			r, err := sim.Run(rep)
			if err != nil {
				return fmt.Errorf("%s: %w", group[0].name, err)
			}
			results = append(results, r)
		}
		for _, e := range group {
			got, err := metric(e.metric, &points[0].Scenario, results)
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			report(Check{e.name, e.metric, e.want, e.tolerance, got, e.source})
		}
	}
	for _, more := range []func(func(string) bool, func(Check)) (bool, error){verifyFUOTASim, verifyFUOTAA} {
		ok, err := more(wanted, report)
		if err != nil {
			return err
		}
		found = found || ok
	}
	if !found {
		return fmt.Errorf("experiment: no published result is named like %q", prefixes)
	}
	return nil
}

// metric computes a number from the repetitions of a scenario.
func metric(name string, s *Scenario, results []Result) (float64, error) {
	pool := Pool(results)
	n := float64(len(results))
	if q, ok := strings.CutPrefix(name, "parity_"); ok {
		for _, k := range quantiles {
			if k.name == "sent_"+q {
				sent, ok := pool.Quantile(k.q)
				if !ok {
					return math.Inf(1), nil
				}
				return float64(sent - s.Block.Fragments), nil
			}
		}
	}
	switch name {
	case "share":
		return float64(pool.Complete) / float64(pool.Devices), nil
	case "time_s":
		return pool.Time.Seconds() / n, nil
	case "energy_J":
		return s.EnergyOf(pool, len(results)), nil
	case "sent_mean":
		return float64(pool.Sent) / n, nil
	case "passes_mean": // of a carousel, begun ones counted whole
		sum := 0
		for _, r := range results {
			sum += (r.Sent + s.Block.Fragments - 1) / s.Block.Fragments
		}
		return float64(sum) / n, nil
	}
	return 0, fmt.Errorf("no such metric: %q", name)
}

// readRows reads a file of published rows and returns its cells by column.
func readRows(name string) ([]map[string]string, error) {
	f, err := published.Open(path.Join(publishedDir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var out []map[string]string
	for _, r := range all[1:] {
		m := map[string]string{}
		for i, c := range all[0] {
			m[c] = r[i]
		}
		out = append(out, m)
	}
	return out, nil
}

// numbers parses cells, which the package ships and its tests check.
func numbers(row map[string]string, columns ...string) ([]float64, error) {
	var out []float64
	for _, c := range columns {
		v, err := strconv.ParseFloat(row[c], 64)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c, err)
		}
		out = append(out, v)
	}
	return out, nil
}

const fuotaSimSeeds = 20

func verifyFUOTASim(wanted func(string) bool, report func(Check)) (bool, error) {
	rows, err := readRows("fuotasim.csv")
	if err != nil {
		return false, err
	}
	found := false
	for _, row := range rows {
		name := "fuotasim-" + row["row"]
		if !wanted(name) {
			continue
		}
		found = true
		v, err := numbers(row, "devices", "data_rate", "class_b", "periodicity", "firmware", "fragment", "redundancy", "time_s", "energy_J", "lost")
		if err != nil {
			return found, fmt.Errorf("fuotasim.csv: %w", err)
		}
		c := FUOTASim{int(v[0]), int(v[1]), v[2] == 1, int(v[3]), int(v[4]), int(v[5]), int(v[6])}
		mean, _, lost, sd, err := c.Mean(fuotaSimSeeds)
		if err != nil {
			return found, err
		}
		report(Check{name, "time_s", v[7], 0.0006, mean.Time.Seconds(), row["source"]}) // printed with three decimals
		report(Check{name, "energy_J", v[8], v[8] / 1000, mean.Energy, row["source"]})
		// One published run against the mean of many: 3 sigma of one run and of the mean, and at least one frame.
		report(Check{name, "lost", v[9], max(1, 3*sd*math.Sqrt(1+1.0/fuotaSimSeeds)), lost, row["source"]})
	}
	return found, nil
}

func verifyFUOTAA(wanted func(string) bool, report func(Check)) (bool, error) {
	rows, err := readRows("fuotaa.csv")
	if err != nil {
		return false, err
	}
	found := false
	for _, row := range rows {
		name := "fuotaa-dr" + row["data_rate"]
		if !wanted(name) {
			continue
		}
		found = true
		v, err := numbers(row, "data_rate", "bytes", "fragment", "time_s", "energy_J", "interval_s")
		if err != nil {
			return found, fmt.Errorf("fuotaa.csv: %w", err)
		}
		r, err := FUOTAA{int(v[0]), int(v[1]), int(v[2])}.Run()
		if err != nil {
			return found, err
		}
		report(Check{name, "time_s", v[3], 0.02 * v[3], r.Time.Seconds(), row["source"]})
		report(Check{name, "energy_J", v[4], 0.03 * v[4], r.Energy, row["source"]})
		report(Check{name, "interval_s", v[5], 0.005 * v[5], r.Interval.Seconds(), row["source"]})
	}
	return found, nil
}

// PublishedScenarios lists the scenarios that ship with the package, for use as examples.
func PublishedScenarios() (map[string][]byte, error) {
	out := map[string][]byte{}
	files, err := fs.Glob(published, publishedDir+"/*.toml")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := published.ReadFile(f)
		if err != nil {
			return nil, err
		}
		out[strings.TrimSuffix(path.Base(f), ".toml")] = text
	}
	return out, nil
}
