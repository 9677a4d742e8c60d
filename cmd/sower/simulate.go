package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/simulator/experiment"
	"github.com/sower-fuota/sower/simulator/radio"
)

func newSimulateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Monte Carlo of broadcasts to fleets: sweeps, published results, plots",
		Long: `simulate answers how a broadcast goes for whole fleets: exact erasure codes, millions of device sessions a second,
the same bytes out of any number of workers, shards and runs. docs/simulate.md is the tutorial and the model.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSimulateRunCommand(), newSimulateSweepCommand(), newSimulateMergeCommand(), newSimulateVerifyCommand(),
		newSimulateFitCommand(), newSimulatePlotCommand(), newSimulateCompatCommand(), newSimulateFleetCommand())
	for _, c := range cmd.Commands() {
		args := c.Args
		c.Args = func(cmd *cobra.Command, a []string) error {
			if err := args(cmd, a); err != nil {
				return usagef("simulate %s: %w", cmd.Name(), err)
			}
			return nil
		}
	}
	return cmd
}

// simulateRun is what run and sweep share.
type simulateRun struct {
	out     string
	workers int
	shard   string
	plan    bool
	json    bool
}

func (o *simulateRun) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.out, "out", "o", "", "folder for the results; a run that was interrupted continues there")
	f.IntVar(&o.workers, "workers", runtime.GOMAXPROCS(0), "repetitions at once; changes nothing but the time")
	f.BoolVar(&o.json, "json", false, "print the summary as JSON")
}

func newSimulateRunCommand() *cobra.Command {
	var o simulateRun
	cmd := &cobra.Command{
		Use:     "run SCENARIO",
		Short:   "run one scenario and print its summary",
		Example: "  sower simulate run scenario.toml\n  sower simulate run scenario.toml -o results",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			points, err := readScenario(args[0])
			if err != nil {
				return err
			}
			if len(points) > 1 {
				return usagef("simulate run: %s sweeps over %d points; use `sower simulate sweep`", args[0], len(points))
			}
			if o.out == "" {
				tmp, err := os.MkdirTemp("", "sower-simulate-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(tmp)
				o.out = tmp
			}
			return o.run(cmd, points, args[0])
		},
	}
	o.flags(cmd)
	return cmd
}

func newSimulateSweepCommand() *cobra.Command {
	var o simulateRun
	cmd := &cobra.Command{
		Use:   "sweep SCENARIO -o DIR",
		Short: "run every point of a scenario's [sweep], or one shard of it",
		Example: "  sower simulate sweep loss.toml -o results\n" +
			"  sower simulate sweep loss.toml -o part-0 --shard 0/4    # and 1/4, 2/4, 3/4 elsewhere",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			points, err := readScenario(args[0])
			if err != nil {
				return err
			}
			if o.plan {
				return o.estimate(cmd.OutOrStdout(), points)
			}
			if o.out == "" {
				return usagef("simulate sweep: --out is missing")
			}
			return o.run(cmd, points, args[0])
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&o.shard, "shard", "0/1", "run part i of n, counted from 0; `merge` joins the folders")
	cmd.Flags().BoolVar(&o.plan, "plan", false, "only say how many points there are and how long they will take")
	return cmd
}

// readScenario reads and expands a scenario file.
func readScenario(path string) ([]experiment.Point, error) {
	text, err := readInput("scenario", path)
	if err != nil {
		return nil, err
	}
	points, err := experiment.Points(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return points, nil
}

// openBeside opens files that a scenario names relative to itself.
func openBeside(scenario string) func(string) (io.ReadCloser, error) {
	return func(name string) (io.ReadCloser, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(scenario), name)
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, unwrapPath(err))
		}
		return f, nil
	}
}

// parseShard reads "i/n".
func parseShard(s string) (shard, shards int, err error) {
	i, n, ok := strings.Cut(s, "/")
	shard, err1 := strconv.Atoi(i)
	shards, err2 := strconv.Atoi(n)
	if !ok || err1 != nil || err2 != nil || shards < 1 || shard < 0 || shard >= shards {
		return 0, 0, usagef("--shard %q, want i/n with 0 <= i < n", s)
	}
	return shard, shards, nil
}

func (o simulateRun) run(cmd *cobra.Command, points []experiment.Point, path string) error {
	shard, shards := 0, 1
	if o.shard != "" {
		var err error
		if shard, shards, err = parseShard(o.shard); err != nil {
			return err
		}
	}
	if o.workers < 1 {
		return usagef("--workers %d, want 1 or more", o.workers)
	}
	stderr := cmd.ErrOrStderr()
	bar := newProgressLine(stderr)
	err := experiment.Run(cmd.Context(), points, experiment.Options{
		Out: o.out, Workers: o.workers, Shard: shard, Shards: shards, Open: openBeside(path), Progress: bar.draw,
		Table: func(point int, t experiment.Table) {
			bar.clear()
			fmt.Fprintf(stderr, "point %d: table of %d exact sessions; distance to %d others %.5f (by chance alone up to %.5f)\n",
				point, t.Sessions, t.Checks, t.Distance, t.Bound)
		},
	})
	bar.clear()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted; the same command continues in %s", o.out)
	}
	if err != nil {
		return err
	}
	if shards > 1 {
		fmt.Fprintf(cmd.OutOrStdout(), "shard %d/%d is done; when all are: sower simulate merge %s DIR... -o OUT\n", shard, shards, path)
		return nil
	}
	return printSummary(cmd.OutOrStdout(), o.out, o.json)
}

// estimate times one repetition of each of some points.
func (o simulateRun) estimate(w io.Writer, points []experiment.Point) error {
	reps := points[0].Scenario.Reps
	probe := min(len(points), 8)
	began := time.Now()
	for i := range probe {
		p := points[i*(len(points)-1)/max(1, probe-1)]
		if p.Scenario.Loss.File != "" {
			return usagef("simulate sweep: --plan cannot time scenarios with a trace")
		}
		p.Scenario.Devices = min(p.Scenario.Devices, 2000)
		sim, err := experiment.NewSimulator(p, nil)
		if err == nil {
			_, err = sim.Run(0)
		}
		if err != nil {
			return err
		}
	}
	small := min(points[0].Scenario.Devices, 2000)
	each := time.Since(began) / time.Duration(probe) * time.Duration(points[0].Scenario.Devices) / time.Duration(small)
	total := each * time.Duration(len(points)*reps) / time.Duration(max(1, o.workers))
	fmt.Fprintf(w, "%d points of %d repetitions of %d devices: about %v with %d workers\n",
		len(points), reps, points[0].Scenario.Devices, total.Round(time.Second), o.workers)
	return nil
}

// printSummary shows summary.csv of a folder, which it also leaves there.
func printSummary(w io.Writer, dir string, asJSON bool) error {
	rows, err := experiment.ReadSummary(dir)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(w, rows)
	}
	for _, r := range rows {
		name := r["scenario"]
		for _, k := range r.SweepKeys() {
			name += fmt.Sprintf("  %s=%s", k, r[k])
		}
		fmt.Fprintf(w, "%s\n  %s of %s devices complete: %s %% (%s..%s); fragments %s sent (M = %s), %s s, %s J a device\n", name,
			r["complete"], r["devices"], percent(r["share"]), percent(r["share_low"]), percent(r["share_high"]), short(r["sent_mean"]), r["fragments"], short(r["time_mean_s"]), short(r["energy_mean_J"]))
		fmt.Fprintf(w, "  sent when 50 / 90 / 99 / 99.9 / 100 %% were complete: %s / %s / %s / %s / %s\n",
			dash(r["sent_p50"]), dash(r["sent_p90"]), dash(r["sent_p99"]), dash(r["sent_p999"]), dash(r["sent_all"]))
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// short drops the zeros at the end of a decimal number, and all but three decimals.
func short(s string) string {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	return strconv.FormatFloat(math.Round(v*1000)/1000, 'f', -1, 64)
}

func percent(s string) string {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	return strconv.FormatFloat(v*100, 'f', 3, 64)
}

// progressLine is a line on a terminal that is drawn over, with the time that is left.
type progressLine struct {
	w        io.Writer
	terminal bool
	began    time.Time
	drawn    time.Time
}

func newProgressLine(w io.Writer) *progressLine {
	f, ok := w.(*os.File)
	return &progressLine{w: w, terminal: ok && isTerminal(f), began: time.Now()}
}

func (p *progressLine) draw(done, resumed, total int) {
	now := time.Now()
	if !p.terminal || done < total && now.Sub(p.drawn) < 200*time.Millisecond {
		return
	}
	p.drawn = now
	left := now.Sub(p.began) / time.Duration(max(1, done-resumed)) * time.Duration(total-done)
	fmt.Fprintf(p.w, "\r\x1b[K%d of %d cells, %v left", done, total, left.Round(time.Second))
}

func (p *progressLine) clear() {
	if !p.drawn.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = time.Time{}
	}
}

func newSimulateMergeCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:     "merge SCENARIO DIR... -o OUT",
		Short:   "join the folders of all shards of a sweep",
		Example: "  sower simulate merge loss.toml part-0 part-1 part-2 part-3 -o results",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("simulate merge: --out is missing")
			}
			points, err := readScenario(args[0])
			if err != nil {
				return err
			}
			if err := experiment.Merge(points, args[1:], experiment.Options{Out: out, Open: openBeside(args[0])}); err != nil {
				return err
			}
			return printSummary(cmd.OutOrStdout(), out, false)
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "folder for the results")
	return cmd
}

func newSimulateVerifyCommand() *cobra.Command {
	var asJSON bool
	var dir string
	cmd := &cobra.Command{
		Use:   "verify [NAME...]",
		Short: "recompute the published results and compare; or check a folder of results",
		Long: `verify runs the scenarios named after published results, simulations and measurements and compares what the model
gives with what was published, within a stated tolerance. Names select those that begin with them. With --dir it runs a
folder's scenario again instead and compares every byte.`,
		Example: "  sower simulate verify\n  sower simulate verify t13-m231 fuotaa\n  sower simulate verify --dir results",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			w := cmd.OutOrStdout()
			if dir != "" {
				n, err := experiment.VerifyDir(cmd.Context(), dir, openBeside(filepath.Join(dir, "manifest.json")))
				if err != nil {
					return err
				}
				fmt.Fprintf(w, "%s: %d files are what their scenario gives, byte for byte\n", dir, n)
				return nil
			}
			total, wrong := 0, 0
			var all []experiment.Check
			err := experiment.Verify(cmd.Context(), args, func(c experiment.Check) {
				total++
				mark := "ok  "
				if !c.OK() {
					mark = "OFF "
					wrong++
				}
				all = append(all, c)
				if !asJSON {
					fmt.Fprintf(w, "%s %-34s %-12s %12.6g  published %12.6g ± %-9.4g %s\n", mark, c.Name, c.Metric, c.Got, c.Want, c.Tolerance, c.Source)
				}
			})
			if err != nil {
				return err
			}
			if asJSON {
				if err := printJSON(w, all); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(w, "%d of %d published numbers reproduced\n", total-wrong, total)
			}
			if wrong > 0 {
				return fmt.Errorf("%d of %d published numbers are not reproduced", wrong, total)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&dir, "dir", "", "folder of results to run again and compare")
	return cmd
}

func newSimulateFitCommand() *cobra.Command {
	var uplinks bool
	var out string
	cmd := &cobra.Command{
		Use:   "fit FILE",
		Short: "estimate a loss model from a record of what was received",
		Long: `fit reads a CSV file device,time_s,lost, or with --uplinks ChirpStack's uplink events as JSON lines (gaps in the frame
counters are losses), and prints the table [loss] of a scenario. --trace also writes the record as CSV, for the loss
model "trace".`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readInput("trace", args[0])
			if err != nil {
				return err
			}
			read := radio.ReadTrace
			if uplinks {
				read = radio.ReadUplinks
			}
			trace, err := read(bytes.NewReader(text))
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fit, err := experiment.FitTrace(trace)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if out != "" {
				var b bytes.Buffer
				if err := trace.Write(&b); err != nil {
					return err
				}
				if err := writeOutput(out, b.Bytes(), 0o644); err != nil {
					return err
				}
			}
			_, err = io.WriteString(cmd.OutOrStdout(), fit.TOML())
			return err
		},
	}
	cmd.Flags().BoolVar(&uplinks, "uplinks", false, "the file holds ChirpStack uplink events, one JSON object in a line")
	cmd.Flags().StringVar(&out, "trace", "", "write the record as CSV to this file")
	return cmd
}

func newSimulatePlotCommand() *cobra.Command {
	var out, x, y string
	cmd := &cobra.Command{
		Use:   "plot DIR -o FILE.svg|FILE.png",
		Short: "draw the results of a folder",
		Long: `plot draws the share of devices complete over the fragments sent, one line for each point. With --x and --y it draws a
column of summary.csv over a swept field. The name of the file says what it is to be, SVG or PNG.`,
		Example: "  sower simulate plot results -o cdf.svg\n  sower simulate plot results --x loss.p --y sent_p99 -o redundancy.png",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("simulate plot: --out is missing")
			}
			if (x == "") != (y == "") {
				return usagef("simulate plot: --x and --y go together")
			}
			if ext := filepath.Ext(out); ext != ".svg" && ext != ".png" {
				return usagef("simulate plot: --out %s, want a name that ends in .svg or .png", out)
			}
			name := "cdf.csv"
			if x != "" {
				name = "summary.csv"
			}
			text, err := readInput("results", filepath.Join(args[0], name))
			if err != nil {
				return err
			}
			var p experiment.Plot
			if x == "" {
				p, err = experiment.PlotCDF(bytes.NewReader(text))
			} else {
				p, err = experiment.PlotSummary(bytes.NewReader(text), x, y)
			}
			if err != nil {
				return err
			}
			var picture bytes.Buffer
			if filepath.Ext(out) == ".png" {
				err = p.PNG(&picture)
			} else {
				err = p.SVG(&picture)
			}
			if err != nil {
				return err
			}
			return writeOutput(out, picture.Bytes(), 0o644)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "out", "o", "", "file to write, .svg or .png")
	f.StringVar(&x, "x", "", "swept field, such as loss.p")
	f.StringVar(&y, "y", "", "column of summary.csv, such as sent_p99 or share")
	return cmd
}

func newSimulateCompatCommand() *cobra.Command {
	sim := experiment.FUOTASim{Devices: 100, DataRate: 5, Firmware: 50000, Fragment: 222, Redundancy: 30}
	var class string
	var seeds int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compat fuotasim|fuotaa",
		Short: "what another simulator or test bed gives for parameters of yours",
		Long: `compat computes what FUOTASim prints, with its assumptions, or how long a session of the FUOTAA test bed takes and what
it consumes. The fragment size includes the header that each of them counts.`,
		Example: "  sower simulate compat fuotasim --data-rate 3 --fragment 115 --class B --periodicity 4\n" +
			"  sower simulate compat fuotaa --data-rate 0 --firmware 2000 --fragment 39",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w := cmd.OutOrStdout()
			show := func(v any) error {
				b, err := json.Marshal(v)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(w, "%s\n", b)
				return err
			}
			switch args[0] {
			case "fuotasim":
				if class != "B" && class != "C" {
					return usagef("simulate compat: --class %q, want B or C", class)
				}
				if seeds < 1 || seeds > 10000 {
					return usagef("simulate compat: --seeds %d, want 1..10000", seeds)
				}
				sim.ClassB = class == "B"
				r, energySD, lost, lostSD, err := sim.Mean(seeds)
				if err != nil {
					return err
				}
				if asJSON {
					return show(map[string]float64{"sent": float64(r.Sent), "need": float64(r.Need), "time_s": r.Time.Seconds(),
						"energy_J": r.Energy, "energy_sd_J": energySD, "lost": lost, "lost_sd": lostSD})
				}
				fmt.Fprintf(w, "%v\n%d fragments sent, %d needed; %.6f s; energy %.2f ± %.2f J; lost %.1f ± %.1f (%d seeds)\n",
					sim, r.Sent, r.Need, r.Time.Seconds(), r.Energy, energySD, lost, lostSD, seeds)
				return nil
			case "fuotaa":
				r, err := experiment.FUOTAA{DataRate: sim.DataRate, Bytes: sim.Firmware, Fragment: sim.Fragment}.Run()
				if err != nil {
					return err
				}
				if asJSON {
					return show(map[string]float64{"fragments": float64(r.Fragments), "interval_s": r.Interval.Seconds(),
						"time_s": r.Time.Seconds(), "energy_J": r.Energy})
				}
				fmt.Fprintf(w, "%d fragments, one every %.6f s; session %.2f s, %.3f J\n", r.Fragments, r.Interval.Seconds(), r.Time.Seconds(), r.Energy)
				return nil
			}
			return usagef("simulate compat: %q, want fuotasim or fuotaa", args[0])
		},
	}
	f := cmd.Flags()
	f.IntVar(&sim.Devices, "devices", sim.Devices, "FUOTASim: devices")
	f.IntVar(&sim.DataRate, "data-rate", sim.DataRate, "EU868 data rate")
	f.StringVar(&class, "class", "C", "FUOTASim: B or C")
	f.IntVar(&sim.Periodicity, "periodicity", 0, "FUOTASim: of class B ping slots")
	f.IntVar(&sim.Firmware, "firmware", sim.Firmware, "bytes to send")
	f.IntVar(&sim.Fragment, "fragment", sim.Fragment, "bytes of a fragment")
	f.IntVar(&sim.Redundancy, "redundancy", sim.Redundancy, "FUOTASim: redundant fragments")
	f.IntVar(&seeds, "seeds", 20, "FUOTASim: runs to average")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
