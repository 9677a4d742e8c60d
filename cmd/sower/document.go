package main

import (
	"fmt"
	"io"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/bundle/image"
	"github.com/sower-fuota/sower/delta"
)

// document is inspect's answer: facts in order, costs on the air, what else is inside.
type document struct {
	facts   []fact
	costed  []cost
	sending int // fragments in a fragment file; 0: costs are of one pass over a block
	symbols *image.CodeChange
	anatomy *anatomy  // of a patch, if its base is at hand
	block   *document // in a fragment file
}

// fact is one line. Without a key it is for people only, without a label for programs only.
type fact struct {
	key, label string
	value      any
}

// cost is what a transmission takes at one data rate.
type cost struct {
	DR           int     `json:"dr"`
	Name         string  `json:"name"`
	FragmentSize int     `json:"fragment_bytes"`
	Fragments    int     `json:"fragments"`
	Airtime      float64 `json:"airtime_s"`
	Problem      string  `json:"problem,omitempty"` // why it cannot be sent at this data rate
}

func (d *document) add(key, label string, value any) {
	d.facts = append(d.facts, fact{key, label, value})
}

// decoder adds what the patch decoder of the device needs.
func (d *document) decoder(p delta.Params) {
	d.add("profile", "profile", p.Profile)
	d.add("options", "options", p.Options)
	d.add("link_base", "link base", fmt.Sprintf("0x%08x", p.LinkBase))
	d.add("ram_bytes", "device RAM", p.RAMBytes)
	d.add("scratch_bytes", "flash scratch", p.ScratchBytes)
}

// costs adds what one pass over a block of n bytes takes, without parity, at every data rate of the region.
func (d *document) costs(in inspector, n int) {
	in.eachRate(func(c cost, limit int, rate airtime.DataRate) {
		c.FragmentSize = min(limit, datablock.MaxFragSize)
		c.Fragments = (n + c.FragmentSize - 1) / c.FragmentSize
		if c.Fragments > datablock.MaxN {
			c.Problem = fmt.Sprintf("more than the %d fragments that TS004 numbers", datablock.MaxN)
		}
		c.Airtime = airtimeOf(c.Fragments, c.FragmentSize, rate)
		d.costed = append(d.costed, c)
	})
}

// sent adds what sending count fragments of size bytes takes.
func (d *document) sent(in inspector, count, size int) {
	d.sending = count
	in.eachRate(func(c cost, limit int, rate airtime.DataRate) {
		c.FragmentSize, c.Fragments = size, count
		if size > limit {
			c.Problem = fmt.Sprintf("the fragments are longer than %d bytes", limit)
		}
		c.Airtime = airtimeOf(count, size, rate)
		d.costed = append(d.costed, c)
	})
}

// eachRate calls f for every data rate that gateways use, with the longest fragment it carries.
func (in inspector) eachRate(f func(c cost, limit int, rate airtime.DataRate)) {
	for dr := range 16 {
		rate, err := in.region.DataRate(dr)
		if err != nil || !rate.Downlink {
			continue
		}
		limit, err := in.region.MaxPayload(dr, airtime.Link{Direction: airtime.Downlink, Repeater: in.repeater})
		if err != nil || limit <= datablock.FragmentOverhead {
			continue
		}
		f(cost{DR: dr, Name: rate.String()}, limit-datablock.FragmentOverhead, rate)
	}
}

func airtimeOf(count, size int, rate airtime.DataRate) float64 {
	one := rate.TimeOnAir(airtime.PHYOverhead+datablock.FragmentOverhead+size, airtime.Downlink)
	return (time.Duration(count) * one).Seconds()
}

// json returns the document as printJSON takes it.
func (d *document) json() map[string]any {
	doc := map[string]any{}
	for _, f := range d.facts {
		if f.key != "" {
			doc[f.key] = f.value
		}
	}
	if d.costed != nil {
		doc["transport"] = d.costed
	}
	if d.anatomy != nil {
		doc["anatomy"] = d.anatomy
	}
	if d.block != nil {
		doc["block"] = d.block.json()
	}
	if c := d.symbols; c != nil {
		list := func(names []string) []map[string]any {
			out := []map[string]any{}
			for _, n := range names {
				out = append(out, map[string]any{"name": n, "bytes": c.Sizes[n]})
			}
			return out
		}
		doc["symbols"] = map[string]any{
			"functions": c.Functions, "moved": c.Moved,
			"changed": list(c.Changed), "added": list(c.Added), "removed": list(c.Removed),
		}
	}
	return doc
}

// print writes the document for people.
func (d *document) print(w io.Writer, region airtime.Region) {
	d.printFacts(w)
	if d.costed != nil {
		title := "one pass without parity"
		if d.sending > 0 {
			title = "all fragments of the file"
		}
		fmt.Fprintf(w, "\n%s, %s:\n  DR  rate          fragment   number     airtime\n", region, title)
		for _, c := range d.costed {
			if c.Problem != "" {
				fmt.Fprintf(w, "  %2d  %-12s  %s\n", c.DR, c.Name, c.Problem)
				continue
			}
			fmt.Fprintf(w, "  %2d  %-12s  %5d B  %7d  %10s\n", c.DR, c.Name, c.FragmentSize, c.Fragments, roundTime(c.Airtime))
		}
	}
	if d.anatomy != nil {
		d.anatomy.print(w)
	}
	if d.block != nil {
		fmt.Fprint(w, "\nthe block in it:\n")
		d.block.printFacts(w)
	}
	if c := d.symbols; c != nil {
		if len(d.facts) > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%d functions: %d changed, %d added, %d removed, %d at another address\n",
			c.Functions, len(c.Changed), len(c.Added), len(c.Removed), c.Moved)
		printNames(w, "changed", c.Changed, c.Sizes)
		printNames(w, "added", c.Added, c.Sizes)
		printNames(w, "removed", c.Removed, c.Sizes)
	}
}

func (d *document) printFacts(w io.Writer) {
	for _, f := range d.facts {
		if f.label != "" {
			fmt.Fprintf(w, "%-18s %v\n", f.label, f.value)
		}
	}
}

// printNames lists the first functions of a list, the longest first.
func printNames(w io.Writer, what string, names []string, sizes map[string]int) {
	const most = 20
	for i, n := range names {
		if i == most {
			fmt.Fprintf(w, "  %-8s %d more; see --json\n", what, len(names)-most)
			break
		}
		fmt.Fprintf(w, "  %-8s %6d B  %s\n", what, sizes[n], n)
	}
}

// roundTime returns seconds as a duration of three or four digits.
func roundTime(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d >= time.Minute:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(10 * time.Millisecond)
	default:
		d = d.Round(time.Millisecond)
	}
	return d.String()
}
