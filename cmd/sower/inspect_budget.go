package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/firmware-stub/device/budget"
)

// budget answers whether the bundle that args names fits the device that a layout file describes, or without a
// bundle what that device can take. An update that does not fit is an error.
func (in inspector) budget(w io.Writer, path string, args []string, asJSON bool) error {
	text, err := readInput("layout", path)
	if err != nil {
		return err
	}
	l, err := budget.ParseLayout(text)
	if err != nil {
		return fmt.Errorf("layout %s: %w", path, err)
	}
	if len(args) == 0 {
		return printLimits(w, path, l, asJSON)
	}
	raw, err := readInput("bundle", args[0])
	if err != nil {
		return err
	}
	m, _, err := bundle.Parse(raw)
	if err != nil {
		return fmt.Errorf("%s: %w; --budget takes a bundle, which `sower sign` makes", args[0], err)
	}
	if in.keyFile != "" {
		if _, err := in.bundle(raw); err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
	}
	r, err := budget.Check(m, len(raw), l)
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if asJSON {
		err = printJSON(w, budgetJSON(r))
	} else {
		printBudget(w, len(raw), l, r)
	}
	if err != nil || r.Fits() {
		return err
	}
	return fmt.Errorf("%s does not fit %s: %s", args[0], path, strings.Join(remedies(r), "; "))
}

// remedies says for each thing that does not fit by how much, and what to change.
func remedies(r budget.Report) []string {
	var list []string
	for _, i := range r.Items {
		if !i.Fits() {
			list = append(list, fmt.Sprintf("%s needs %d bytes and has %d, change %s", i.Name, i.Need, i.Have, i.Change))
		}
	}
	for _, e := range r.Erases {
		if !e.Fits() {
			list = append(list, fmt.Sprintf("%s endures %d updates and is to endure %d, change %s", e.Region, e.Updates, e.Want, e.Change))
		}
	}
	return list
}

func printBudget(w io.Writer, size int, l budget.Layout, r budget.Report) {
	fmt.Fprintf(w, "%d bytes in %d fragments of %d, %d of them lost\n\n", size, r.M, l.Fragment, r.Losses)
	fmt.Fprintf(w, "%-40s %9s %9s\n", "bytes", "needed", "there")
	for _, i := range r.Items {
		fmt.Fprintf(w, "%-40s %9d %9d  %s\n", i.Name, i.Need, i.Have, verdict(i.Fits(), i.Change))
	}
	fmt.Fprintf(w, "\n%-40s %9s %9s\n", "erases of a page", "an update", "updates")
	for _, e := range r.Erases {
		fmt.Fprintf(w, "%-40s %9d %9d  %s\n", e.Region, e.Erases, e.Updates, verdict(e.Fits(), e.Change))
	}
	answer := "fits"
	if !r.Fits() {
		answer = "does not fit"
	}
	fmt.Fprintf(w, "\n%s\n", answer)
}

func verdict(fits bool, change string) string {
	if fits {
		return "fits"
	}
	return "DOES NOT FIT: change " + change
}

func budgetJSON(r budget.Report) map[string]any {
	items, erases := []map[string]any{}, []map[string]any{}
	for _, i := range r.Items {
		items = append(items, withChange(map[string]any{"name": i.Name, "needed_bytes": i.Need, "available_bytes": i.Have}, i.Fits(), i.Change))
	}
	for _, e := range r.Erases {
		erases = append(erases, withChange(map[string]any{"region": e.Region, "erases_per_update": e.Erases, "updates": e.Updates, "updates_wanted": e.Want}, e.Fits(), e.Change))
	}
	return map[string]any{
		"fits": r.Fits(), "fragments": r.M, "losses": r.Losses, "losses_at_most": r.Most, "items": items, "erases": erases,
	}
}

func withChange(doc map[string]any, fits bool, change string) map[string]any {
	doc["fits"] = fits
	if !fits {
		doc["change"] = change
	}
	return doc
}

// printLimits says what a device can take, whatever the update. A device that can take nothing is an error.
func printLimits(w io.Writer, path string, l budget.Layout, asJSON bool) error {
	c, err := budget.Limits(l)
	if err != nil {
		return fmt.Errorf("layout %s: %w", path, err)
	}
	if asJSON {
		err = printJSON(w, map[string]any{
			"fits": c.M > 0 && c.Stack.Fits(), "block_bytes": c.Block, "fragments": c.M, "losses": c.Losses, "image_bytes": c.Image,
			"ram_bytes": c.RAM, "scratch_bytes": c.Scratch, "stack_needed_bytes": c.Stack.Need,
		})
	} else {
		for _, line := range []struct {
			what  string
			bytes int
			note  string
		}{
			{"bundle", c.Block, fmt.Sprintf("%d fragments of %d, %d of them lost", c.M, l.Fragment, c.Losses)},
			{"image", c.Image, "a slot"},
			{"RAM of a patch", c.RAM, "for diff --ram"},
			{"flash scratch of a patch", c.Scratch, "for diff --map flash"},
			{"stack", c.Stack.Have, fmt.Sprintf("%d needed", c.Stack.Need)},
		} {
			fmt.Fprintf(w, "%-26s %8d bytes  %s\n", line.what, line.bytes, line.note)
		}
	}
	switch {
	case err != nil:
		return err
	case c.M == 0:
		return errors.New(path + ": not one fragment can be received: a larger arena, download or slot, or larger fragments")
	case !c.Stack.Fits():
		return fmt.Errorf("%s: %s needs %d bytes and has %d, change %s", path, c.Stack.Name, c.Stack.Need, c.Stack.Have, c.Stack.Change)
	}
	return nil
}
