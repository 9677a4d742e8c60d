package experiment

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/sower-fuota/sower/simulator/radio"
)

// Options says how to run, which changes nothing about the results.
type Options struct {
	Out     string // folder; made if it does not exist
	Workers int    // 0: 1
	Shard   int    // this part of the cells, 0..Shards-1
	Shards  int    // 0: 1
	// Open opens the file of a trace.
	Open func(name string) (io.ReadCloser, error)
	// Progress is called after each cell, from one goroutine at a time; resumed counts the cells found done.
	Progress func(done, resumed, total int)
	// Table is told about each table built.
	Table func(point int, t Table)
}

const journalName = "cells.jsonl"

// journalHead is the first line of a journal.
type journalHead struct {
	Format   string `json:"format"`
	Scenario string `json:"scenario_sha256"`
	Cells    int    `json:"cells"`
	Shard    int    `json:"shard"`
	Shards   int    `json:"shards"`
}

const journalFormat = "sower-cells-1"

// cell is a piece of work. With a stop rule a cell is all repetitions of a point, since the rule looks at them in order.
type cell struct{ point, from, to int }

func workCells(points []Point) []cell {
	var out []cell
	for i, p := range points {
		if p.Scenario.Stop.CI > 0 {
			out = append(out, cell{i, 0, p.Scenario.Reps})
			continue
		}
		for rep := range p.Scenario.Reps {
			out = append(out, cell{i, rep, rep + 1})
		}
	}
	return out
}

// Run executes the points into a folder. Each cell is written to a journal there when it is done, so that a run that
// was interrupted continues with the next call and has lost the cells in progress only. When all cells of a run that
// is no shard are done, the results are written (see [WriteResults]); of shards, [Merge] makes them.
//
// ctx ends the run early; the cells done remain.
func Run(ctx context.Context, points []Point, o Options) error {
	o.Workers = max(1, o.Workers)
	o.Shards = max(1, o.Shards)
	if o.Shard < 0 || o.Shard >= o.Shards {
		return fmt.Errorf("experiment: shard %d of %d, want 0..%d", o.Shard, o.Shards, o.Shards-1)
	}
	traces, digest, err := readTraces(points, o.Open)
	if err != nil {
		return err
	}
	all := workCells(points)
	head := journalHead{journalFormat, digest, len(all), o.Shard, o.Shards}
	j, err := openJournal(o.Out, head)
	if err != nil {
		return err
	}
	defer j.file.Close()

	var todo []cell
	total, resumed := 0, 0
	for i, c := range all {
		if i%o.Shards != o.Shard {
			continue
		}
		total++
		if j.has(c, points[c.point].Scenario.Stop) {
			resumed++
			continue
		}
		todo = append(todo, c)
	}
	if err := execute(ctx, points, traces, todo, j, o, resumed, total); err != nil {
		return err
	}
	if err := j.finish(); err != nil {
		return err
	}
	if o.Shards > 1 {
		return nil
	}
	return WriteResults(o.Out, points, digest, j.results())
}

// execute runs cells on workers.
func execute(ctx context.Context, points []Point, traces map[string]*radio.Trace, todo []cell, j *journal, o Options, resumed, total int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan cell)
	var wg sync.WaitGroup
	var mu sync.Mutex // of the journal and the callbacks
	done := resumed
	sims := simulators{points: points, traces: traces, built: o.Table}
	for range min(o.Workers, max(1, len(todo))) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for c := range work {
				results, err := runCell(ctx, &sims, c)
				mu.Lock()
				if err == nil {
					err = j.add(results)
				}
				if err != nil {
					cancel(err)
				} else if done++; o.Progress != nil {
					o.Progress(done, resumed, total)
				}
				mu.Unlock()
			}
		}()
	}
feed:
	for _, c := range todo {
		select {
		case work <- c:
		case <-ctx.Done():
			break feed
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

// simulators keeps the simulator of the point in work; points come in order.
type simulators struct {
	mu     sync.Mutex
	points []Point
	traces map[string]*radio.Trace
	built  func(int, Table)
	recent []*indexed
}

type indexed struct {
	point int
	once  sync.Once
	sim   *Simulator
	err   error
}

func (s *simulators) get(point int) (*Simulator, error) {
	s.mu.Lock()
	i := slices.IndexFunc(s.recent, func(x *indexed) bool { return x.point == point })
	if i < 0 {
		if len(s.recent) == 4 {
			s.recent = slices.Delete(s.recent, 0, 1)
		}
		i = len(s.recent)
		s.recent = append(s.recent, &indexed{point: point})
	}
	x := s.recent[i]
	s.mu.Unlock()
	x.once.Do(func() {
		p := s.points[point]
		if x.sim, x.err = NewSimulator(p, s.traces[p.Scenario.Loss.File]); x.err != nil || s.built == nil {
			return
		}
		if t, ok := x.sim.Table(); ok {
			s.built(point, t)
		}
	})
	return x.sim, x.err
}

func runCell(ctx context.Context, sims *simulators, c cell) ([]Result, error) {
	sim, err := sims.get(c.point)
	if err != nil {
		return nil, err
	}
	var out []Result
	var stop stopRule
	for rep := c.from; rep < c.to; rep++ {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		r, err := sim.Run(rep)
		if err != nil {
			return nil, fmt.Errorf("point %d repetition %d: %w", c.point, rep, err)
		}
		r.Point = c.point
		out = append(out, r)
		if stop.met(sim.s.Stop, r) {
			break
		}
	}
	return out, nil
}

// stopRule looks at the repetitions of a point in order.
type stopRule struct{ reps, complete, devices int }

// met takes one more repetition and reports whether it was the last one needed.
func (s *stopRule) met(rule Stop, r Result) bool {
	s.reps++
	s.complete += r.Complete
	s.devices += r.Devices
	if rule.CI == 0 || s.reps < rule.MinReps {
		return false
	}
	low, high := Wilson(s.complete, s.devices)
	return high-low <= 2*rule.CI
}

// journal is the file of cells done.
type journal struct {
	path string
	file *os.File
	head journalHead
	done map[[2]int]Result
}

// openJournal reads what an earlier run has left in a folder and opens it for more. A last line that is incomplete, as
// a power cut leaves it, is cut off.
func openJournal(dir string, head journalHead) (*journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("experiment: output: %w", err)
	}
	j := &journal{path: filepath.Join(dir, journalName), head: head, done: map[[2]int]Result{}}
	found, results, size, err := readJournal(j.path)
	if errors.Is(err, os.ErrNotExist) {
		found, err = head, nil
	}
	if err != nil {
		return nil, err
	}
	if size > 0 && found != head {
		return nil, fmt.Errorf("experiment: %s holds another run (scenario %.12s, shard %d/%d; this is %.12s, shard %d/%d): choose another folder, or remove it",
			dir, found.Scenario, found.Shard, found.Shards, head.Scenario, head.Shard, head.Shards)
	}
	for _, r := range results {
		j.done[[2]int{r.Point, r.Rep}] = r
	}
	if j.file, err = os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("experiment: output: %w", err)
	}
	err = j.file.Truncate(size)
	if err == nil {
		_, err = j.file.Seek(size, io.SeekStart)
	}
	if err == nil && size == 0 {
		err = j.write(head)
	}
	if err != nil {
		j.file.Close()
		return nil, fmt.Errorf("experiment: output: %w", err)
	}
	return j, nil
}

// readJournal returns the head, the results and the length of the lines that are whole.
func readJournal(path string) (head journalHead, results []Result, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return head, nil, 0, fmt.Errorf("experiment: journal: %w", err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<16)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return head, results, size, nil // what is left has no end and is not counted
		}
		if err != nil {
			return head, nil, 0, fmt.Errorf("experiment: journal %s: %w", path, err)
		}
		if n == 1 {
			err = strictJSON(line, &head)
			if err == nil && head.Format != journalFormat {
				err = fmt.Errorf("format %q, want %q", head.Format, journalFormat)
			}
		} else {
			var batch []Result
			err = strictJSON(line, &batch)
			results = append(results, batch...)
		}
		if err != nil {
			return head, nil, 0, fmt.Errorf("experiment: journal %s line %d: %w", path, n, err)
		}
		size += int64(len(line))
	}
}

func strictJSON(line []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// has reports whether a cell is done. One with a stop rule is when the rule is met by what is there, or nothing is left.
func (j *journal) has(c cell, rule Stop) bool {
	var stop stopRule
	for rep := c.from; rep < c.to; rep++ {
		r, ok := j.done[[2]int{c.point, rep}]
		if !ok {
			return false
		}
		if stop.met(rule, r) {
			return true
		}
	}
	return true
}

// add appends a cell, in one line and one write.
func (j *journal) add(results []Result) error {
	if err := j.write(results); err != nil {
		return fmt.Errorf("experiment: journal: %w", err)
	}
	for _, r := range results {
		j.done[[2]int{r.Point, r.Rep}] = r
	}
	return nil
}

func (j *journal) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = j.file.Write(append(line, '\n'))
	return err
}

// results returns the results in order of point and repetition.
func (j *journal) results() []Result {
	out := make([]Result, 0, len(j.done))
	for _, r := range j.done {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Result) int {
		if a.Point != b.Point {
			return a.Point - b.Point
		}
		return a.Rep - b.Rep
	})
	return out
}

// finish rewrites the journal in order, one result in a line, so that it too is the same whatever the order of work.
func (j *journal) finish() error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	err := enc.Encode(j.head)
	for _, r := range j.results() {
		if err == nil {
			err = enc.Encode([]Result{r})
		}
	}
	if err == nil {
		err = writeFile(j.path, b.Bytes())
	}
	if err != nil {
		return fmt.Errorf("experiment: journal: %w", err)
	}
	return nil
}

// writeFile replaces a file as a whole.
func writeFile(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Merge joins the folders of all shards of a run into one folder, the same as a run without shards makes.
func Merge(points []Point, dirs []string, o Options) error {
	_, digest, err := readTraces(points, o.Open)
	if err != nil {
		return err
	}
	var merged []Result
	seen := map[int]string{}
	for _, dir := range dirs {
		head, results, _, err := readJournal(filepath.Join(dir, journalName))
		if err != nil {
			return err
		}
		if head.Scenario != digest {
			return fmt.Errorf("experiment: %s belongs to scenario %.12s, not %.12s", dir, head.Scenario, digest)
		}
		if head.Shards != len(dirs) {
			return fmt.Errorf("experiment: %s is shard %d of %d, but %d folders were given", dir, head.Shard, head.Shards, len(dirs))
		}
		if other, ok := seen[head.Shard]; ok {
			return fmt.Errorf("experiment: %s and %s are both shard %d", other, dir, head.Shard)
		}
		seen[head.Shard] = dir
		merged = append(merged, results...)
	}
	all := workCells(points)
	j, err := openJournal(o.Out, journalHead{journalFormat, digest, len(all), 0, 1})
	if err != nil {
		return err
	}
	defer j.file.Close()
	if err := j.add(merged); err != nil {
		return err
	}
	for i, c := range all {
		if !j.has(c, points[c.point].Scenario.Stop) {
			return fmt.Errorf("experiment: shard %d in %s is not finished: point %d repetition %d is missing; run it again to continue it",
				i%len(dirs), seen[i%len(dirs)], c.point, c.from)
		}
	}
	if err := j.finish(); err != nil {
		return err
	}
	return WriteResults(o.Out, points, digest, j.results())
}

// readTraces reads the trace files of the points and returns them with a digest of everything that determines results.
func readTraces(points []Point, open func(string) (io.ReadCloser, error)) (map[string]*radio.Trace, string, error) {
	traces := map[string]*radio.Trace{}
	digest := Hash(points)
	for _, p := range points {
		name := p.Scenario.Loss.File
		if name == "" || traces[name] != nil {
			continue
		}
		if open == nil {
			return nil, "", bad("loss.file", name, "to be absent: there is no way to open files here")
		}
		f, err := open(name)
		if err != nil {
			return nil, "", fmt.Errorf("experiment: loss.file: %w", err)
		}
		text, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			return nil, "", fmt.Errorf("experiment: loss.file: %w", err)
		}
		if traces[name], err = radio.ReadTrace(bytes.NewReader(text)); err != nil {
			return nil, "", fmt.Errorf("experiment: loss.file %s: %w", name, err)
		}
		digest = sum256(append([]byte(digest), text...))
	}
	return traces, digest, nil
}
