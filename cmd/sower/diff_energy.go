package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/delta"
)

// battery is what an update takes from the battery of a device: it listens to the fragments of the bundle at one
// data rate, then decodes the patch. A smaller patch may take longer to decode; the sum decides.
type battery struct {
	region    string
	dr        int
	receive   float64 // mA while it listens
	active    float64 // mA while it decodes
	megahertz float64
}

func (b *battery) add(fl *pflag.FlagSet) {
	fl.IntVar(&b.dr, "data-rate", -1, "data rate of the fragments: choose the patch that takes least from a device's battery")
	fl.StringVar(&b.region, "region", "EU868", "region of --data-rate")
	fl.Float64Var(&b.receive, "receive-ma", 6, "current of a device while it listens, mA")
	fl.Float64Var(&b.active, "active-ma", 10, "current of a device while it decodes, mA")
	fl.Float64Var(&b.megahertz, "clock-mhz", 80, "clock of a device while it decodes, MHz")
}

// wanted reports whether the battery is to decide, and whether its figures can be right.
func (b *battery) wanted() (bool, error) {
	switch {
	case b.dr < 0:
		return false, nil
	case !(b.receive > 0 && b.active > 0):
		return false, usagef("--receive-ma %v, --active-ma %v: want currents above 0", b.receive, b.active)
	case !(b.megahertz > 0):
		return false, usagef("--clock-mhz %v: want a clock above 0", b.megahertz)
	}
	_, err := b.listening(1)
	return err == nil, err
}

// listening is how long a class C device listens to a bundle of n bytes: a gateway sends one fragment after the
// other, as fast as the duty cycle of the region's RX2 sub-band allows in the long run.
func (b *battery) listening(n int) (time.Duration, error) {
	region, err := airtime.ParseRegion(b.region)
	if err != nil {
		return 0, usagef("--region: %w", err)
	}
	rate, err := region.DataRate(b.dr)
	if err != nil || !rate.Downlink {
		return 0, usagef("--data-rate %d: %s has no such downlink data rate", b.dr, region)
	}
	limit, err := region.MaxPayload(b.dr, airtime.Link{Direction: airtime.Downlink})
	if err != nil || limit <= datablock.FragmentOverhead {
		return 0, usagef("--data-rate %d: it carries no fragment in %s", b.dr, region)
	}
	size := min(limit-datablock.FragmentOverhead, datablock.MaxFragSize)
	toa := rate.TimeOnAir(airtime.PHYOverhead+datablock.FragmentOverhead+size, airtime.Downlink)
	frequency, _ := region.RX2()
	if band, err := region.SubBand(frequency); err == nil && band.Allowance() > 0 {
		toa = time.Duration(float64(toa) * float64(airtime.DutyWindow) / float64(band.Allowance()))
	}
	return toa * time.Duration((n+size-1)/size), nil
}

// choice is one patch and what it takes.
type choice struct {
	Bytes  int     `json:"stream_bytes"`
	Listen float64 `json:"listen_s"`
	Decode float64 `json:"decode_s"`
	Charge float64 `json:"charge_mah"`
	Chosen bool    `json:"chosen"`
	file   *delta.File
}

// tries is how many decode budgets are weighed: each is 0.7 of what the patch before it took.
const tries = 5

// choose makes patches of several decode budgets and returns that which takes the least charge; of equals, the
// smallest.
func (b *battery) choose(old, new []byte, o delta.Options) (*delta.File, []choice, error) {
	var all []choice
	best := -1
	for range tries {
		f, err := delta.NewFile(old, new, o)
		if err != nil {
			return nil, nil, err
		}
		if len(all) > 0 && len(f.Stream) >= len(new) {
			break // nothing but the stored image is left
		}
		rep, err := delta.Inspect(f.Params, old, f.Stream)
		if err != nil {
			return nil, nil, err
		}
		o.Cycles = rep.Cycles / 10 * 7
		listen, err := b.listening(bundle.ManifestSize + len(f.Stream))
		if err != nil {
			return nil, nil, err
		}
		c := choice{Bytes: len(f.Stream), Listen: listen.Seconds(), Decode: float64(rep.Cycles) / (b.megahertz * 1e6), file: f}
		c.Charge = (c.Listen*b.receive + c.Decode*b.active) / 3600
		all = append(all, c)
		if best < 0 || c.Charge < all[best].Charge {
			best = len(all) - 1
		}
		if o.Cycles == 0 {
			break
		}
	}
	all[best].Chosen = true
	return all[best].file, all, nil
}

func printChoices(w io.Writer, all []choice) {
	fmt.Fprintln(w, "\n  patch      listens      decodes    charge")
	for _, c := range all {
		mark := ""
		if c.Chosen {
			mark = "  chosen"
		}
		fmt.Fprintf(w, "  %5d B  %9s    %9s  %.4f mAh%s\n", c.Bytes, roundTime(c.Listen), roundTime(c.Decode), c.Charge, mark)
	}
}
