package session

import (
	"fmt"
	"time"
)

// Calendar says when a session may send. The zero value is always.
type Calendar struct {
	Offset time.Duration // of the local time in which Spans are given, east of UTC; summer time does not exist here
	Spans  []Span
}

// Span is a stretch of time that comes back every week on the days it names.
type Span struct {
	Days [7]bool       // on which it begins, Sunday first; none: every day
	From time.Duration // since midnight, less than 24 h
	To   time.Duration // since midnight, up to 24 h; not above From: it ends on the next day
}

const (
	day  = 24 * time.Hour
	week = 7 * day
)

func (s Span) on(d int) bool { return s.Days == [7]bool{} || s.Days[d] }

func (s Span) length() time.Duration {
	if s.To > s.From {
		return s.To - s.From
	}
	return s.To + day - s.From
}

// Validate reports a span that is none.
func (c Calendar) Validate() error {
	if c.Offset <= -day || c.Offset >= day {
		return fmt.Errorf("offset %s from UTC, want less than a day", c.Offset)
	}
	for i, s := range c.Spans {
		if s.From < 0 || s.From >= day || s.To < 0 || s.To > day {
			return fmt.Errorf("maintenance window %d from %s to %s, want times of day", i+1, s.From, s.To)
		}
	}
	return nil
}

// Next returns the first stretch of time that is open at t or later, spans that touch taken together. Where the
// calendar is always open, end is zero.
func (c Calendar) Next(t time.Time) (start, end time.Time) {
	if len(c.Spans) == 0 {
		return t, time.Time{}
	}
	start, end = c.first(t)
	for end.Sub(start) < week {
		a, b := c.first(end)
		if a.After(end) {
			return start, end
		}
		end = b
	}
	return t, time.Time{} // spans that touch all week are no limit
}

// first returns the part at or after t of the span that is open then or opens first; of several, the longest.
func (c Calendar) first(t time.Time) (start, end time.Time) {
	local := t.Add(c.Offset).UTC()
	midnight := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, time.UTC).Add(-c.Offset)
	for d := -1; d <= 7; d++ { // from yesterday, because of spans past midnight
		for _, s := range c.Spans {
			a := midnight.Add(time.Duration(d)*day + s.From)
			b := a.Add(s.length())
			if !s.on((int(local.Weekday())+d+7)%7) || !b.After(t) {
				continue
			}
			if a.Before(t) {
				a = t
			}
			if start.IsZero() || a.Before(start) || a.Equal(start) && b.After(end) {
				start, end = a, b
			}
		}
	}
	return start, end
}

// Open reports whether the calendar is open at t.
func (c Calendar) Open(t time.Time) bool {
	start, _ := c.Next(t)
	return start.Equal(t)
}

// Add returns when the calendar has been open for d since t.
func (c Calendar) Add(t time.Time, d time.Duration) time.Time {
	if len(c.Spans) == 0 {
		return t.Add(d)
	}
	for {
		start, end := c.Next(t)
		if end.IsZero() || end.Sub(start) >= d {
			return start.Add(d)
		}
		d -= end.Sub(start)
		t = end
	}
}

// longest returns the length of the longest stretch that is open; false: it is always open.
func (c Calendar) longest() (time.Duration, bool) {
	if len(c.Spans) == 0 {
		return 0, false
	}
	var most time.Duration
	t := time.Unix(0, 0)
	for until := t.Add(2 * week); t.Before(until); {
		start, end := c.Next(t)
		if end.IsZero() {
			return 0, false
		}
		most, t = max(most, end.Sub(start)), end
	}
	return most, true
}
