package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
)

func newDevicesCommand() *cobra.Command {
	var at siteFlags
	var asJSON, asCSV bool
	var apps []string
	var listen time.Duration
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "list what is known of the devices, from where and how old",
		Long: `devices lists version, base image, hardware, packages, battery and link of each device, each fact with its source
and age: the network server's record, tags, link metrics of a week, the inventory CSV of sower.toml, and uplinks
that come in while it listens (TS006 and TS007 answers, reports, rules of sower.toml, battery levels that ChirpStack has
asked for). It sends nothing; "sower devices discover" asks.

What it prints with --csv, and an [inventory] csv in sower.toml that names such a file, keep what was heard.`,
		Example: "  sower devices --listen 1h --csv > inventory.csv",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && asCSV {
				return usagef("devices: --json and --csv exclude each other")
			}
			if listen < 0 {
				return usagef("devices: --listen %s is negative", listen)
			}
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.nw.Close()
			inv, err := s.devices(cmd.Context(), apps, listen, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			switch {
			case asCSV:
				return inv.WriteCSV(cmd.OutOrStdout())
			case asJSON:
				return printJSON(cmd.OutOrStdout(), map[string]any{"devices": deviceRows(inv)})
			}
			return printDevices(cmd.OutOrStdout(), inv, time.Now())
		},
	}
	at.add(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&apps, "application", nil, "application id; may be repeated (default: those of the settings, else all)")
	f.DurationVar(&listen, "listen", 0, "listen to uplinks for so long")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&asCSV, "csv", false, "print CSV")
	cmd.AddCommand(newDiscoverCommand())
	return cmd
}

// devices gathers the inventory of applications.
func (s *site) devices(ctx context.Context, given []string, listen time.Duration, stderr io.Writer) (*inventory.Inventory, error) {
	apps, err := s.applications(ctx, given)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, a := range apps {
		ids = append(ids, a.ID)
	}
	p := s.planner(stderr)
	inv, err := p.Inventory(ctx, ids)
	if err != nil {
		return nil, err
	}
	if err := p.Links(ctx, inv, inv.Devices()); err != nil {
		return nil, err
	}
	if listen > 0 {
		return inv, s.listen(ctx, inv, ids, listen)
	}
	return inv, nil
}

// listen takes events for a while.
func (s *site) listen(ctx context.Context, inv *inventory.Inventory, apps []string, d time.Duration) error {
	listening, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var mu sync.Mutex
	var all sync.WaitGroup
	var first error
	for _, app := range apps {
		events, err := s.nw.Events(listening, app)
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			first = err
			cancel()
			break
		}
		if err != nil {
			break
		}
		all.Go(func() {
			for ev := range events {
				mu.Lock()
				inv.Heard(ev)
				mu.Unlock()
				ev.Done()
			}
		})
	}
	all.Wait()
	if first == nil {
		first = ctx.Err()
	}
	return first
}

// deviceRow is a device in JSON. Facts that are not known are left out.
type deviceRow struct {
	EUI      network.EUI64                      `json:"dev_eui"`
	Name     string                             `json:"name"`
	App      string                             `json:"application"`
	Region   string                             `json:"region,omitempty"`
	LastSeen time.Time                          `json:"last_seen,omitzero"`
	Version  *inventory.Fact[string]            `json:"version,omitempty"`
	Base     *inventory.Fact[inventory.Digest]  `json:"base_sha256,omitempty"`
	Hardware *inventory.Fact[uint16]            `json:"hardware_id,omitempty"`
	Class    *inventory.Fact[uint32]            `json:"device_class,omitempty"`
	Packages *inventory.Fact[string]            `json:"packages,omitempty"`
	Offers   map[string]inventory.Fact[string]  `json:"offers,omitempty"` // by document, "v2:201" or "none"
	Battery  *inventory.Fact[int]               `json:"battery_percent,omitempty"`
	SNR      *inventory.Fact[float64]           `json:"snr_db,omitempty"`
	Uplinks  *inventory.Fact[inventory.Uplinks] `json:"uplinks,omitempty"`
}

func known[T any](f inventory.Fact[T]) *inventory.Fact[T] {
	if !f.Known() {
		return nil
	}
	return &f
}

// named replaces a value by its text.
func named[T fmt.Stringer](f inventory.Fact[T]) *inventory.Fact[string] {
	return known(inventory.Fact[string]{Value: f.Value.String(), Source: f.Source, At: f.At})
}

func deviceRows(inv *inventory.Inventory) []deviceRow {
	rows := []deviceRow{}
	for _, d := range inv.Devices() {
		offers := map[string]inventory.Fact[string]{}
		for id, f := range d.Offers {
			if f.Known() {
				offers[applayer.PackageID(id).String()] = *named(f)
			}
		}
		rows = append(rows, deviceRow{d.EUI, d.Name, d.Application, d.Region, d.LastSeen, named(d.Version), known(d.Base), known(d.Hardware),
			known(d.Class), named(d.Packages), offers, known(d.Battery), known(d.SNR), known(d.Uplinks)})
	}
	return rows
}

func printDevices(w io.Writer, inv *inventory.Inventory, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "DEV EUI\tNAME\tREGION\tLAST SEEN\tVERSION\tBASE\tHARDWARE\tPACKAGES\tBATTERY\tSNR\tLOSS")
	for _, d := range inv.Devices() {
		seen := "never"
		if !d.LastSeen.IsZero() {
			seen = age(now.Sub(d.LastSeen)) + " ago"
		}
		fmt.Fprintln(tw, strings.Join([]string{d.EUI.String(), d.Name, d.Region, seen,
			cell(d.Version, now, bundle.Version.String),
			cell(d.Base, now, inventory.Digest.String),
			cell(d.Hardware, now, func(v uint16) string { return fmt.Sprint(v) }),
			cell(d.Packages, now, applayer.Version.String),
			cell(d.Battery, now, func(v int) string { return fmt.Sprintf("%d %%", v) }),
			cell(d.SNR, now, func(v float64) string { return fmt.Sprintf("%.1f dB", v) }),
			cell(d.Uplinks, now, func(u inventory.Uplinks) string {
				return fmt.Sprintf("%d of %d", u.Lost, u.Lost+u.Received)
			}),
		}, "\t"))
	}
	return tw.Flush()
}

// cell renders a fact with its source and age.
func cell[T any](f inventory.Fact[T], now time.Time, text func(T) string) string {
	if !f.Known() {
		return "?"
	}
	old := "age unknown"
	if d, ok := f.Age(now); ok {
		old = age(d) + " ago"
	}
	return fmt.Sprintf("%s (%s, %s)", text(f.Value), f.Source, old)
}

// age renders a duration in its largest unit.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s" // another clock; doctor compares them
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}
