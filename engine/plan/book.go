package plan

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// Book keeps the airtime of all gateways and sub-bands for all campaigns: those that are planned together, and those
// that were started before ([Book.Take]). A gateway serves one session at a time, so that the window of the devices is
// as short as the duty cycle allows; a session may come between two of another campaign if it fits there.
type Book struct {
	share   float64
	ledgers map[page]*airtime.Ledger
	taken   map[network.EUI64][]booking
}

type page struct {
	gateway network.EUI64
	region  airtime.Region // of what it sends
	band    string
}

type booking struct {
	opens, until time.Time
	campaign     string
}

// NewBook returns an empty book. share is the part of the duty cycle that campaigns may use, up to 1.
func NewBook(share float64) (*Book, error) {
	if !(share > 0 && share <= 1) {
		return nil, fmt.Errorf("%w: share %v of the duty cycle, want more than 0 and at most 1", ErrInput, share)
	}
	return &Book{share: share, ledgers: map[page]*airtime.Ledger{}, taken: map[network.EUI64][]booking{}}, nil
}

// clone returns a copy, for a plan that may be dropped.
func (b *Book) clone() *Book {
	c := *b
	c.taken = make(map[network.EUI64][]booking, len(b.taken))
	for gw, list := range b.taken {
		c.taken[gw] = slices.Clone(list)
	}
	c.ledgers = make(map[page]*airtime.Ledger, len(b.ledgers))
	for k, l := range b.ledgers {
		c.ledgers[k] = l.Clone()
	}
	return &c
}

// Usage is the heaviest hour of a gateway in a sub-band.
type Usage struct {
	Gateway network.EUI64 `json:"gateway"`
	Region  string        `json:"region"`
	SubBand string        `json:"sub_band"`
	Peak    time.Duration `json:"peak_airtime_ns"`    // in any hour
	Allowed time.Duration `json:"allowed_airtime_ns"` // in any hour, for campaigns; a whole hour where there is no duty cycle
	Total   time.Duration `json:"total_airtime_ns"`
	Frames  int           `json:"frames"`
}

func (b *Book) allowance(band airtime.SubBand) time.Duration {
	return time.Duration(float64(band.Allowance()) * b.share)
}

// frames is what a session sends: its fragments and the status requests.
func frames(expected int) int { return expected + statusRequests }

// Take books a campaign that was planned before, as if it had been planned with this book, only late by so much.
// Sessions that are over may be left out of the schedule.
func (b *Book) Take(s Schedule, late time.Duration) error {
	for _, x := range s.Sessions {
		opens := x.Opens.Add(late)
		gateways := x.Gateways
		if gateways == nil {
			gateways = s.Gateways // a schedule that was kept before sessions had gateways of their own
		}
		t, err := b.try(opens, x.Plan, gateways, frames(x.Expected), s.Spacing)
		if err != nil {
			return fmt.Errorf("campaign %s: %w", s.Campaign, err)
		}
		b.keep(t, s.Campaign, opens, gateways)
	}
	return nil
}

// placed is a session in the book.
type placed struct {
	opens, ends time.Time
	behind      string // campaign that it waits for
	delayed     time.Duration
}

// place books the frames of a session that opens at ready or later: as soon as all its gateways are free until its end.
func (b *Book) place(campaign string, ready time.Time, p Plan, gateways []network.EUI64, frames int, spacing time.Duration) (placed, error) {
	at := placed{opens: p.align(ready)}
	end := at.opens // of the session, if it opens there; not known before it is tried
	for {
		if x, ok := b.clash(at.opens, end, gateways); ok {
			at.opens, at.behind = p.align(x.until), x.campaign
			end = at.opens
			continue
		}
		t, err := b.try(at.opens, p, gateways, frames, spacing)
		if err != nil {
			return placed{}, err
		}
		if _, ok := b.clash(at.opens, t.ends, gateways); ok {
			end = t.ends
			continue
		}
		b.keep(t, campaign, at.opens, gateways)
		at.ends, at.delayed = t.ends, t.delayed
		return at, nil
	}
}

// clash returns the booking of one of these gateways within that time, or at its beginning, that lasts longest.
func (b *Book) clash(opens, ends time.Time, gateways []network.EUI64) (last booking, found bool) {
	for _, gw := range gateways {
		for _, x := range b.taken[gw] {
			if x.until.After(opens) && (x.opens.Before(ends) || !x.opens.After(opens)) && (!found || x.until.After(last.until)) {
				last, found = x, true
			}
		}
	}
	return last, found
}

// trial is a session that opens at a given time.
type trial struct {
	ledgers map[page]*airtime.Ledger // with its frames
	ends    time.Time
	delayed time.Duration
}

// try finds out when each frame of a session may be sent, and changes nothing.
func (b *Book) try(opens time.Time, p Plan, gateways []network.EUI64, frames int, spacing time.Duration) (trial, error) {
	region, err := airtime.ParseRegion(p.Region)
	if err != nil {
		return trial{}, err
	}
	band, err := region.SubBand(p.Frequency)
	if err != nil {
		return trial{}, err
	}
	out := trial{ledgers: map[page]*airtime.Ledger{}}
	for _, gw := range gateways {
		k := page{gw, region, band.Name}
		if l, ok := b.ledgers[k]; ok {
			out.ledgers[k] = l.Clone()
		} else if out.ledgers[k], err = airtime.NewLedger(b.allowance(band), airtime.DutyWindow); err != nil {
			return trial{}, err
		}
	}
	t := opens.Add(p.Guard)
	last := t
	for range frames {
		for i, gw := range gateways {
			l := out.ledgers[page{gw, region, band.Name}]
			want := t.Add(time.Duration(i) * p.spacing(spacing))
			start, err := l.EarliestStart(want, p.FragmentToA)
			if err != nil {
				return trial{}, err
			}
			l.Record(start, p.FragmentToA)
			if d := start.Sub(want); d > 0 {
				out.delayed += d
				t = t.Add(d)
			}
			last = start.Add(p.FragmentToA)
		}
		t = t.Add(p.Pace)
	}
	out.ends = last.Add(p.AnswerWindow() + p.Guard)
	return out, nil
}

// keep makes a trial part of the book.
func (b *Book) keep(t trial, campaign string, opens time.Time, gateways []network.EUI64) {
	maps.Copy(b.ledgers, t.ledgers)
	for _, gw := range gateways {
		b.taken[gw] = append(b.taken[gw], booking{opens, t.ends, campaign})
	}
}

// Usage returns the heaviest hour of each gateway and sub-band, in the order of gateways given.
func (b *Book) Usage(gateways []network.EUI64) []Usage {
	var out []Usage
	for _, gw := range gateways {
		for _, region := range airtime.Regions() {
			for _, band := range region.SubBands() {
				if l, ok := b.ledgers[page{gw, region, band.Name}]; ok {
					out = append(out, usage(l, Usage{Gateway: gw, Region: region.String(), SubBand: band.Name, Allowed: b.allowance(band)}))
				}
			}
		}
	}
	return out
}

// usage adds up what is in a ledger.
func usage(l *airtime.Ledger, u Usage) Usage {
	for _, tx := range l.Transmissions() {
		u.Peak = max(u.Peak, l.Used(tx.End()))
		u.Total += tx.TimeOnAir
		u.Frames++
	}
	return u
}
