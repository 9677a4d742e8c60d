package rehearse

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/plan"
)

// Kind says how a device of a rehearsal runs its firmware.
type Kind string

// The kinds.
const (
	Host     Kind = "host"     // C library and boot stub in this process; the application is modelled
	Emulated Kind = "emulated" // the firmware itself on an emulated Cortex-M
)

// Outcome is what became of one device: what the campaign believes, and what the harness found in its flash.
type Outcome struct {
	Group   string `json:"group"`
	Name    string `json:"name"`
	DevEUI  string `json:"dev_eui"`
	Kind    Kind   `json:"kind"`
	Updated bool   `json:"updated"` // the campaign proved the new version, and slot A holds the new image
	Stage   string `json:"stage"`
	Step    string `json:"step,omitempty"`
	Cause   string `json:"cause,omitempty"`
	Runs    string `json:"runs"`         // version in slot A when the rehearsal ended
	Intact  bool   `json:"slot_a_valid"` // slot A holds a valid image
	Boots   int    `json:"boots"`        // runs of the boot stub
}

// Report is the result of a rehearsal.
type Report struct {
	Outcomes []Outcome
	Groups   []GroupReport
	Elapsed  time.Duration // virtual time
}

// GroupReport is the part of a report that concerns one campaign.
type GroupReport struct {
	Name              string
	Plan              plan.Plan
	From, To          bundle.Version
	ImageBytes        int
	CompressedBytes   int
	PatchBytes        int
	BundleBytes       int
	DataFragments     int
	FragmentsSent     int // data and parity
	Airtime           time.Duration
	FullAirtime       time.Duration
	CompressedAirtime time.Duration
}

// Summary is the machine-readable result of a rehearsal: sums over all groups.
type Summary struct {
	Devices           int     `json:"devices"`
	Updated           int     `json:"updated"`
	ExecutedBoots     int     `json:"executed_boots"`
	ModelledBoots     int     `json:"modelled_boots"`
	FragmentsSent     int     `json:"fragments_sent"`
	DataFragments     int     `json:"data_fragments"`
	Airtime           float64 `json:"airtime_s"`
	FullAirtime       float64 `json:"full_image_airtime_s"`
	CompressedAirtime float64 `json:"compressed_image_airtime_s"`
	PatchBytes        int     `json:"patch_bytes"`
	BundleBytes       int     `json:"bundle_bytes"`
	ImageBytes        int     `json:"image_bytes"`
	CompressedBytes   int     `json:"compressed_image_bytes"`
	VirtualTime       float64 `json:"virtual_time_s"`
}

// Summary adds up the report. A boot counts as executed when the new image ran on an emulated Cortex-M, and as
// modelled when a host device swapped it in and its header and self-test verdict were read.
func (r Report) Summary() Summary {
	s := Summary{Devices: len(r.Outcomes), VirtualTime: r.Elapsed.Seconds()}
	for _, o := range r.Outcomes {
		if !o.Updated {
			continue
		}
		s.Updated++
		if o.Kind == Emulated {
			s.ExecutedBoots++
		} else {
			s.ModelledBoots++
		}
	}
	for _, g := range r.Groups {
		s.FragmentsSent += g.FragmentsSent
		s.DataFragments += g.DataFragments
		s.Airtime += g.Airtime.Seconds()
		s.FullAirtime += g.FullAirtime.Seconds()
		s.CompressedAirtime += g.CompressedAirtime.Seconds()
		s.PatchBytes += g.PatchBytes
		s.BundleBytes += g.BundleBytes
		s.ImageBytes += g.ImageBytes
		s.CompressedBytes += g.CompressedBytes
	}
	return s
}

// WriteSummary writes the summary as JSON.
func (r Report) WriteSummary(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r.Summary())
}

// WriteTable writes the report for a person.
func (r Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "group\tversions\tdevices\tupdated\tfailed\texecuted boots\tmodelled boots\tfragments\tairtime\t")
	for _, g := range r.Groups {
		var devices, updated, executed, modelled int
		for _, o := range r.Outcomes {
			if o.Group != g.Name {
				continue
			}
			devices++
			if o.Updated {
				updated++
				if o.Kind == Emulated {
					executed++
				} else {
					modelled++
				}
			}
		}
		fmt.Fprintf(t, "%s\t%s → %s\t%d\t%d\t%d\t%d\t%d\t%d (%d data)\t%.1f s\t\n",
			g.Name, g.From, g.To, devices, updated, devices-updated, executed, modelled, g.FragmentsSent, g.DataFragments, g.Airtime.Seconds())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, g := range r.Groups {
		fmt.Fprintf(w, "\n%s: %d bytes of patch for an image of %d bytes (%d compressed); %.1f s on the air instead of %.1f s (image) or %.1f s (compressed image)\n",
			g.Name, g.PatchBytes, g.ImageBytes, g.CompressedBytes, g.Airtime.Seconds(), g.FullAirtime.Seconds(), g.CompressedAirtime.Seconds())
	}
	return r.writeFailures(w)
}

// writeFailures lists the devices that were not updated, with step and cause.
func (r Report) writeFailures(w io.Writer) error {
	var lines []string
	for _, o := range r.Outcomes {
		if !o.Updated {
			lines = append(lines, fmt.Sprintf("  %s %s (%s): %s at %s, runs %s", o.DevEUI, o.Name, o.Kind, orDash(o.Cause), orDash(o.Step), o.Runs))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	sort.Strings(lines)
	_, err := fmt.Fprintf(w, "\nnot updated:\n%s\n", strings.Join(lines, "\n"))
	return err
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
