package experiment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Quantile returns after how many fragments sent at least the share q of all devices was complete; ok is false if
// fewer ever were.
func (r Result) Quantile(q float64) (sent int, ok bool) {
	need := int(math.Ceil(float64(q*float64(r.Devices)) - 1e-9))
	for _, d := range r.Done {
		if need -= d[1]; need <= 0 {
			return d[0], true
		}
	}
	return 0, false
}

// CompleteAt returns how many devices were complete after so many fragments sent.
func (r Result) CompleteAt(sent int) int {
	n := 0
	for _, d := range r.Done {
		if d[0] <= sent {
			n += d[1]
		}
	}
	return n
}

// Pool adds the repetitions of one point together; times and counts are sums.
func Pool(results []Result) Result {
	sum := Result{}
	counts := map[int]int{}
	last := 0
	for _, r := range results {
		sum.Point = r.Point
		sum.Devices += r.Devices
		sum.Complete += r.Complete
		sum.Sent += r.Sent
		sum.Polls += r.Polls
		sum.Uplinks += r.Uplinks
		sum.Time += r.Time
		sum.Airtime += r.Airtime
		sum.Listening += r.Listening
		for _, d := range r.Done {
			counts[d[0]] += d[1]
			last = max(last, d[0])
		}
	}
	sum.Done = [][2]int{}
	for i := range last + 1 {
		if counts[i] > 0 {
			sum.Done = append(sum.Done, [2]int{i, counts[i]})
		}
	}
	return sum
}

// EnergyOf returns the mean energy of a device in joules, from a result of reps repetitions that took r.Time in all.
func (s *Scenario) EnergyOf(r Result, reps int) float64 { return float64(s.energy(r, reps)) / 1e9 }

// energy is that in nJ.
func (s *Scenario) energy(r Result, reps int) int64 {
	if r.Devices == 0 {
		return 0
	}
	total := int64(r.Time/1e6) / int64(reps) * int64(r.Devices) // ms
	receive := int64(float64(s.Energy.Receive*1000) + 0.5)      // µW
	idle := int64(float64(s.Energy.Idle*1000) + 0.5)
	// nJ, in 128 bits: a million devices listening for weeks at watts exceed 64.
	return mulDiv(receive, r.Listening, int64(r.Devices)) + mulDiv(idle, max(0, total-r.Listening), int64(r.Devices))
}

func mulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(q)
}

// The quantiles of the tables.
var quantiles = []struct {
	name string
	q    float64
}{{"sent_p50", 0.5}, {"sent_p90", 0.9}, {"sent_p99", 0.99}, {"sent_p999", 0.999}, {"sent_all", 1}}

var repColumns = []string{"scenario", "point"}

func header(p Point, rest ...string) []string {
	return append(append(append([]string{}, repColumns...), p.Keys...), rest...)
}

func prefix(p Point) []string {
	return append([]string{p.Scenario.Name, strconv.Itoa(p.Index)}, p.Values...)
}

func decimals(x float64, n int) string { return strconv.FormatFloat(x, 'f', n, 64) }

// WriteResults writes the results of a whole run, in order of point and repetition, into a folder:
//
//	results.csv    one row per repetition
//	results.jsonl  the same with the complete distribution, one JSON object per repetition
//	summary.csv    one row per point: shares, means and their 95 % intervals, quantiles
//	cdf.csv        devices complete after each number of fragments, by point
//	manifest.json  what was run, and the SHA-256 of each of these files
//
// Columns are described in docs/simulate.md. The files hold no clock time and no name of a machine.
func WriteResults(dir string, points []Point, digest string, results []Result) error {
	var perRep, summary, cdf, lines bytes.Buffer
	rep, sum, dist := csv.NewWriter(&perRep), csv.NewWriter(&summary), csv.NewWriter(&cdf)
	columns := []string{"fragments", "devices", "complete", "sent", "polls", "uplinks", "airtime_s", "time_s", "energy_mean_J"}
	var qs []string
	for _, q := range quantiles {
		qs = append(qs, q.name)
	}
	rep.Write(header(points[0], append(append([]string{"rep"}, columns...), qs...)...))
	sum.Write(header(points[0], append([]string{"reps", "fragments", "devices", "complete", "share", "share_low", "share_high",
		"share_boot_low", "share_boot_high", "sent_mean", "sent_mean_low", "sent_mean_high", "sent_sd", "polls_mean", "uplinks_mean", "airtime_mean_s",
		"time_mean_s", "time_mean_low_s", "time_mean_high_s", "energy_mean_J", "energy_mean_low_J", "energy_mean_high_J"}, qs...)...))
	dist.Write(header(points[0], "sent", "complete", "devices"))
	enc := json.NewEncoder(&lines)
	for i, p := range points {
		n := 0
		for n < len(results) && results[n].Point == i {
			n++
		}
		mine := results[:n]
		results = results[n:]
		if n == 0 {
			return fmt.Errorf("experiment: point %d has no results", i)
		}
		for _, r := range mine {
			row := append(prefix(p), strconv.Itoa(r.Rep), strconv.Itoa(p.Scenario.Block.Fragments), strconv.Itoa(r.Devices), strconv.Itoa(r.Complete),
				strconv.Itoa(r.Sent), strconv.Itoa(r.Polls), strconv.Itoa(r.Uplinks),
				decimals(r.Airtime.Seconds(), 6), decimals(r.Time.Seconds(), 6), decimals(p.Scenario.EnergyOf(r, 1), 6))
			rep.Write(append(row, quantileCells(r)...))
			if err := enc.Encode(struct {
				Scenario string            `json:"scenario"`
				Sweep    map[string]string `json:"sweep,omitempty"`
				Result
			}{p.Scenario.Name, sweepValues(p), r}); err != nil {
				return err
			}
		}
		pool := Pool(mine)
		low, high := Wilson(pool.Complete, pool.Devices)
		mean := func(x float64) string { return decimals(x/float64(n), 6) }
		boot := p.Scenario.bootstrap(i, mine)
		row := append(prefix(p), strconv.Itoa(n), strconv.Itoa(p.Scenario.Block.Fragments), strconv.Itoa(pool.Devices), strconv.Itoa(pool.Complete),
			decimals(float64(pool.Complete)/float64(pool.Devices), 6), decimals(low, 6), decimals(high, 6))
		row = append(append(row, boot.share...), mean(float64(pool.Sent)))
		row = append(append(row, boot.sent...), decimals(deviation(mine), 6), mean(float64(pool.Polls)), mean(float64(pool.Uplinks)),
			mean(pool.Airtime.Seconds()), mean(pool.Time.Seconds()))
		row = append(append(row, boot.time...), decimals(p.Scenario.EnergyOf(pool, n), 6))
		row = append(row, boot.energy...)
		sum.Write(append(row, quantileCells(pool)...))
		total := 0
		for _, d := range pool.Done {
			total += d[1]
			dist.Write(append(prefix(p), strconv.Itoa(d[0]), strconv.Itoa(total), strconv.Itoa(pool.Devices)))
		}
	}
	for _, w := range []*csv.Writer{rep, sum, dist} {
		w.Flush()
		if err := w.Error(); err != nil {
			return err
		}
	}
	files := map[string][]byte{"results.csv": perRep.Bytes(), "results.jsonl": lines.Bytes(), "summary.csv": summary.Bytes(), "cdf.csv": cdf.Bytes()}
	m := Manifest{Format: manifestFormat, Generator: Generator, Scenario: digest, Files: map[string]string{}, Points: points}
	for _, name := range sortedKeys(files) {
		m.Files[name] = sum256(files[name])
		if err := writeFile(filepath.Join(dir, name), files[name]); err != nil {
			return fmt.Errorf("experiment: output: %w", err)
		}
	}
	doc, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = writeFile(filepath.Join(dir, "manifest.json"), append(doc, '\n'))
	}
	if err != nil {
		return fmt.Errorf("experiment: output: %w", err)
	}
	return nil
}

// Generator names the random numbers and the model; it changes when the same scenario gives other results.
const Generator = "splitmix64-counter/1"

const manifestFormat = "sower-experiment-2"

// Manifest says what a folder of results holds.
type Manifest struct {
	Format    string            `json:"format"`
	Generator string            `json:"generator"`
	Scenario  string            `json:"scenario_sha256"` // of the complete scenarios and of their traces
	Files     map[string]string `json:"files_sha256"`
	Points    []Point           `json:"points"`
}

func sum256(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func sweepValues(p Point) map[string]string {
	if len(p.Keys) == 0 {
		return nil
	}
	m := map[string]string{}
	for i, k := range p.Keys {
		m[k] = p.Values[i]
	}
	return m
}

// quantileCells are empty where too few devices were complete.
func quantileCells(r Result) []string {
	var out []string
	for _, q := range quantiles {
		cell := ""
		if sent, ok := r.Quantile(q.q); ok {
			cell = strconv.Itoa(sent)
		}
		out = append(out, cell)
	}
	return out
}

// deviation is the standard deviation of the fragments sent.
func deviation(results []Result) float64 {
	n := float64(len(results))
	if n < 2 {
		return 0
	}
	var sum, sum2 int64
	for _, r := range results {
		sum += int64(r.Sent)
		sum2 += int64(r.Sent) * int64(r.Sent)
	}
	return math.Sqrt(max(0, (float64(sum2)-float64(float64(sum)*float64(sum))/n)/(n-1)))
}

// SummaryRow is a row of summary.csv by column.
type SummaryRow map[string]string

// SweepKeys returns the swept fields of the row, which are the columns with a dot and the other fields of a scenario.
func (r SummaryRow) SweepKeys() []string {
	var keys []string
	for _, k := range sortedKeys(r) {
		switch k {
		case "seed", "depth", "name":
			keys = append(keys, k)
		default:
			if strings.Contains(k, ".") {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

// ReadSummary reads the summary.csv of a folder of results.
func ReadSummary(dir string) ([]SummaryRow, error) {
	text, err := os.ReadFile(filepath.Join(dir, "summary.csv"))
	if err != nil {
		return nil, fmt.Errorf("experiment: results: %w", err)
	}
	t, err := readTable(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	out := make([]SummaryRow, len(t.rows))
	for i := range t.rows {
		out[i] = SummaryRow{}
		for j, c := range t.columns {
			out[i][c] = t.rows[i][j]
		}
	}
	return out, nil
}

// VerifyDir runs the scenario of a folder of results again and compares every byte. It returns how many files agreed.
func VerifyDir(ctx context.Context, dir string, open func(string) (io.ReadCloser, error)) (int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return 0, fmt.Errorf("experiment: results: %w", err)
	}
	var m Manifest
	if err := strictJSON(text, &m); err != nil {
		return 0, fmt.Errorf("experiment: manifest.json: %w", err)
	}
	if m.Format != manifestFormat || m.Generator != Generator {
		return 0, fmt.Errorf("experiment: manifest.json is of %q by %q; this program makes %q by %q", m.Format, m.Generator, manifestFormat, Generator)
	}
	if len(m.Points) == 0 {
		return 0, fmt.Errorf("experiment: manifest.json names no points")
	}
	for i := range m.Points {
		s := &m.Points[i].Scenario
		if s.Block.Bytes > 0 {
			s.Block.Fragments = 0 // was computed
		}
		if err := s.complete(); err != nil {
			return 0, fmt.Errorf("experiment: manifest.json: point %d: %w", i, err)
		}
	}
	for name, want := range m.Files {
		b, err := os.ReadFile(filepath.Join(dir, filepath.Base(name)))
		if err != nil {
			return 0, fmt.Errorf("experiment: results: %w", err)
		}
		if sum256(b) != want {
			return 0, fmt.Errorf("experiment: %s was changed: SHA-256 %.12s, the manifest says %.12s", name, sum256(b), want)
		}
	}
	again, err := os.MkdirTemp("", "sower-verify-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(again)
	if err := Run(ctx, m.Points, Options{Out: again, Open: open}); err != nil {
		return 0, err
	}
	for name := range m.Files {
		b, err := os.ReadFile(filepath.Join(again, filepath.Base(name)))
		if err != nil {
			return 0, err
		}
		if sum256(b) != m.Files[name] {
			return 0, fmt.Errorf("experiment: %s is not what its scenario gives now", name)
		}
	}
	return len(m.Files), nil
}
