package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/prepare"
)

func newPlanCommand() *cobra.Command {
	var at siteFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "plan CAMPAIGN.toml...",
		Short: "what a campaign will cost, and whether it can work",
		Long: `plan reads campaign files, looks at the devices and gateways they name, and decides for each wave which bundle
goes to whom at which data rate, with how much parity, and when; it shows airtime, duration, energy, uplinks and the
duty cycle of each gateway. Campaigns given together share one account of the air, in the order given.

Whatever stands against a campaign is listed at once, with file, line and remedy, and nothing is sent.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.nw.Close()
			schedules, err := s.plan(cmd.Context(), args, time.Now(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"campaigns": schedules})
			}
			for i, sc := range schedules {
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				printSchedule(cmd.OutOrStdout(), sc)
			}
			return nil
		},
	}
	at.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON; durations in nanoseconds")
	return cmd
}

// planner plans for the installation.
func (s *site) planner(stderr io.Writer) *prepare.Planner {
	return &prepare.Planner{Settings: s.Settings, Server: server{s.nw}, Read: beside(s.file),
		Warn: func(text string) { warn(stderr, "%s", text) }}
}

// plan plans campaigns. The error lists everything that is wrong with any of them.
func (s *site) plan(ctx context.Context, paths []string, now time.Time, stderr io.Writer) ([]plan.Schedule, error) {
	var files []prepare.File
	for _, path := range paths {
		text, err := readInput("campaign", path)
		if err != nil {
			return nil, err
		}
		files = append(files, prepare.File{Name: path, Text: text, Read: beside(path)})
	}
	campaigns, err := s.planner(stderr).Plan(ctx, files, now)
	if err != nil {
		return nil, err
	}
	var out []plan.Schedule
	for _, c := range campaigns {
		out = append(out, c.Schedule)
	}
	return out, nil
}

// beside reads files that another file names, seen from where it is.
func beside(file string) prepare.Source {
	return func(name string) (string, []byte, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(file), name)
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return name, nil, unwrapPath(err)
		}
		return name, data, nil
	}
}

// printSchedule renders a plan for a person.
func printSchedule(w io.Writer, sc plan.Schedule) {
	fmt.Fprintf(w, "%s: %d devices to version %s", sc.Campaign, sc.Devices-sc.UpToDate, sc.Target)
	if sc.UpToDate > 0 {
		fmt.Fprintf(w, ", %d more run it already", sc.UpToDate)
	}
	fmt.Fprintf(w, "\n  from %s to about %s\n", stamp(sc.Starts), stamp(sc.Ends))
	for _, s := range sc.Sessions {
		p := s.Plan
		fmt.Fprintf(w, "\n  wave %s: %s (%s) to %d devices running %s\n", s.Wave, s.Bundle, s.Payload, len(s.Devices), strings.Join(s.From, ", "))
		fmt.Fprintf(w, "    %s DR%d at %.3f MHz through %d gateway(s), matrix %s\n", p.Region, p.DataRate, float64(p.Frequency)/1e6, p.Gateways, p.Matrix)
		fmt.Fprintf(w, "    %d data + %d parity fragments of %d bytes, about %d until all are complete, one every %s\n",
			p.M, p.Parity, p.FragSize, s.Expected, p.Pace.Round(time.Millisecond))
		fmt.Fprintf(w, "    window opens %s, closes about %s", stamp(s.Opens), stamp(s.Ends))
		if s.Windows > 1 {
			fmt.Fprintf(w, ", in %d windows", s.Windows)
		}
		fmt.Fprintf(w, "; %s\n", p.Receive())
		fmt.Fprintf(w, "    airtime %s per gateway, %.2f mAh per device, %d uplinks\n", s.Airtime.Round(time.Second/10), s.Energy, s.Uplinks)
		if s.Other != nil {
			fmt.Fprintf(w, "    %s\n", compare(s))
		}
		fmt.Fprintf(w, "    self-check: %.1f %% of %d simulated devices complete with the first burst\n", 100*s.Check.Complete, s.Check.Devices)
		if s.Behind != "" {
			fmt.Fprintf(w, "    waits for the gateways behind campaign %s\n", s.Behind)
		}
		if s.Delayed > time.Second {
			fmt.Fprintf(w, "    the duty cycle takes %s more than the pace\n", s.Delayed.Round(time.Second))
		}
		for _, text := range p.Warnings {
			fmt.Fprintf(w, "    warning: %s\n", text)
		}
	}
	fmt.Fprintf(w, "\n  in all %s on the air, %d uplinks", sc.Airtime.Round(time.Second/10), sc.Uplinks)
	if sc.Proven {
		fmt.Fprint(w, "; no other choice of bundles and data rates takes less airtime")
	}
	fmt.Fprintln(w)
	for _, u := range sc.Usage {
		fmt.Fprintf(w, "  gateway %s, %s\n", u.Gateway, airUse(u))
	}
	for _, text := range sc.Warnings {
		fmt.Fprintf(w, "  warning: %s\n", text)
	}
}

// airUse says how much of the air of a sub-band a gateway takes.
func airUse(u plan.Usage) string {
	peak, share := u.Peak.Round(time.Second/10), 100*float64(u.Peak)/float64(u.Allowed)
	region, err := airtime.ParseRegion(u.Region)
	if err == nil && slices.ContainsFunc(region.SubBands(), func(b airtime.SubBand) bool { return b.Name == u.SubBand && b.DutyCycle == 1000 }) {
		return fmt.Sprintf("%s: at most %s in any hour; there is no duty cycle", u.Region, peak)
	}
	return fmt.Sprintf("%s sub-band %s: at most %s in any hour of %s allowed (%.0f %%)", u.Region, u.SubBand, peak, u.Allowed.Round(time.Second), share)
}

// compare says what a session would take in the other class.
func compare(s plan.Session) string {
	this, other := "class C", "class B"
	if s.Other.ClassB == nil {
		this, other = other, this
	} else {
		other = fmt.Sprintf("class B (ping_slot_periodicity = %d)", s.Other.ClassB.Periodicity)
	}
	cheaper := this
	if s.Other.Energy < s.Energy {
		cheaper = other
	}
	return fmt.Sprintf("%s would take %.2f mAh and about %s in place of %s: %s is cheaper in energy", other, s.Other.Energy,
		s.Other.Duration.Round(time.Second), s.Plan.Duration.Round(time.Second), cheaper)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
