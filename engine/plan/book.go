package plan

import (
	"fmt"
	"maps"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// Book keeps the airtime of all gateways and sub-bands for all campaigns that are planned together. A gateway
// serves one session at a time, so that the window of the devices is as short as the duty cycle allows.
type Book struct {
	region  airtime.Region
	share   float64
	ledgers map[page]*airtime.Ledger
	free    map[network.EUI64]booking
}

type page struct {
	gateway network.EUI64
	band    string
}

type booking struct {
	until    time.Time
	campaign string
}

// NewBook returns an empty book. share is the part of the duty cycle that campaigns may use, up to 1.
func NewBook(region airtime.Region, share float64) (*Book, error) {
	if !(share > 0 && share <= 1) {
		return nil, fmt.Errorf("%w: share %v of the duty cycle, want more than 0 and at most 1", ErrInput, share)
	}
	return &Book{region: region, share: share, ledgers: map[page]*airtime.Ledger{}, free: map[network.EUI64]booking{}}, nil
}

// clone returns a copy, for a plan that may be dropped.
func (b *Book) clone() *Book {
	c := *b
	c.free = maps.Clone(b.free)
	c.ledgers = make(map[page]*airtime.Ledger, len(b.ledgers))
	for k, l := range b.ledgers {
		c.ledgers[k] = l.Clone()
	}
	return &c
}

// Usage is the heaviest hour of a gateway in a sub-band.
type Usage struct {
	Gateway network.EUI64 `json:"gateway"`
	SubBand string        `json:"sub_band"`
	Peak    time.Duration `json:"peak_airtime_ns"`    // in any hour
	Allowed time.Duration `json:"allowed_airtime_ns"` // in any hour, for campaigns
	Total   time.Duration `json:"total_airtime_ns"`
	Frames  int           `json:"frames"`
}

func (b *Book) ledger(gw network.EUI64, band airtime.SubBand) (*airtime.Ledger, error) {
	k := page{gw, band.Name}
	if l, ok := b.ledgers[k]; ok {
		return l, nil
	}
	l, err := airtime.NewLedger(b.allowance(band), airtime.DutyWindow)
	if err == nil {
		b.ledgers[k] = l
	}
	return l, err
}

func (b *Book) allowance(band airtime.SubBand) time.Duration {
	return time.Duration(float64(band.Allowance()) * b.share)
}

// placed is a session in the book.
type placed struct {
	opens, ends time.Time
	behind      string // campaign that it waits for
	delayed     time.Duration
}

// place books the frames of a session that opens at ready or later.
func (b *Book) place(campaign string, ready time.Time, p Plan, gateways []network.EUI64, frames int, spacing time.Duration) (placed, error) {
	band, err := b.region.SubBand(p.Frequency)
	if err != nil {
		return placed{}, err
	}
	at := placed{opens: ready}
	for _, gw := range gateways {
		if f := b.free[gw]; f.until.After(at.opens) {
			at.opens, at.behind = f.until, f.campaign
		}
	}
	t := at.opens.Add(p.Guard)
	last := t
	for range frames {
		for i, gw := range gateways {
			l, err := b.ledger(gw, band)
			if err != nil {
				return placed{}, err
			}
			want := t.Add(time.Duration(i) * spacing)
			start, err := l.EarliestStart(want, p.FragmentToA)
			if err != nil {
				return placed{}, err
			}
			l.Record(start, p.FragmentToA)
			if d := start.Sub(want); d > 0 {
				at.delayed += d
				t = t.Add(d)
			}
			last = start.Add(p.FragmentToA)
		}
		t = t.Add(p.Pace)
	}
	at.ends = last.Add(p.AnswerWindow() + p.Guard)
	for _, gw := range gateways {
		b.free[gw] = booking{at.ends, campaign}
	}
	return at, nil
}

// Usage returns the heaviest hour of each gateway and sub-band, in the order of gateways given.
func (b *Book) Usage(gateways []network.EUI64) []Usage {
	var out []Usage
	for _, gw := range gateways {
		for _, band := range b.region.SubBands() {
			l, ok := b.ledgers[page{gw, band.Name}]
			if !ok {
				continue
			}
			u := Usage{Gateway: gw, SubBand: band.Name, Allowed: b.allowance(band)}
			for _, tx := range l.Transmissions() {
				u.Peak = max(u.Peak, l.Used(tx.End()))
				u.Total += tx.TimeOnAir
				u.Frames++
			}
			out = append(out, u)
		}
	}
	return out
}
