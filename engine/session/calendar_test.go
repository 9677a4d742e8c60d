package session_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sower-fuota/sower/engine/session"
)

func TestCalendar(t *testing.T) {
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 11, day, hour, minute, 0, 0, time.UTC) } // the 22nd is a Sunday
	nights := session.Calendar{Spans: []session.Span{{From: 22 * time.Hour, To: 4 * time.Hour}}}
	monday := session.Calendar{Offset: time.Hour, Spans: []session.Span{{Days: [7]bool{time.Monday: true}, From: 0, To: 24 * time.Hour}}}
	touching := session.Calendar{Spans: []session.Span{{From: time.Hour, To: 3 * time.Hour}, {From: 3 * time.Hour, To: 5 * time.Hour}, {From: 2 * time.Hour, To: 4 * time.Hour}}}
	tests := []struct {
		name       string
		c          session.Calendar
		t          time.Time
		start, end time.Time
	}{
		{"always", session.Calendar{}, at(22, 7, 0), at(22, 7, 0), time.Time{}},
		{"before the night", nights, at(22, 7, 0), at(22, 22, 0), at(23, 4, 0)},
		{"in the night, after midnight", nights, at(22, 3, 59), at(22, 3, 59), at(22, 4, 0)},
		{"the end is outside", nights, at(22, 4, 0), at(22, 22, 0), at(23, 4, 0)},
		{"Monday in another zone", monday, at(22, 7, 0), at(22, 23, 0), at(23, 23, 0)},
		{"the Monday after", monday, at(23, 23, 0), at(29, 23, 0), at(30, 23, 0)},
		{"spans that touch", touching, at(22, 0, 0), at(22, 1, 0), at(22, 5, 0)},
		{"day and night", session.Calendar{Spans: []session.Span{{From: 4 * time.Hour, To: 22 * time.Hour}, nights.Spans[0]}}, at(22, 7, 0), at(22, 7, 0), time.Time{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start, end := tt.c.Next(tt.t)
			if !start.Equal(tt.start) || !end.Equal(tt.end) {
				t.Errorf("Next(%s) = %s, %s; want %s, %s", tt.t, start, end, tt.start, tt.end)
			}
			if got, want := tt.c.Open(tt.t), tt.t.Equal(tt.start); got != want {
				t.Errorf("Open(%s) = %v", tt.t, got)
			}
		})
	}
	if got, want := nights.Add(at(22, 3, 0), 8*time.Hour), at(23, 23, 0); !got.Equal(want) {
		t.Errorf("8 h of night after 3:00 end at %s, want %s", got, want)
	}
}

// TestCalendarMinuteByMinute compares Open and Add with a walk through all minutes.
func TestCalendarMinuteByMinute(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 15 {
		c := session.Calendar{Offset: time.Duration(rng.IntN(25)-12) * time.Hour}
		for range 1 + rng.IntN(3) {
			s := session.Span{From: time.Duration(rng.IntN(1440)) * time.Minute, To: time.Duration(rng.IntN(1441)) * time.Minute}
			if rng.IntN(2) == 0 {
				s.Days[rng.IntN(7)], s.Days[rng.IntN(7)] = true, true
			}
			c.Spans = append(c.Spans, s)
		}
		open := func(at time.Time) bool {
			local := at.Add(c.Offset).UTC()
			minute := time.Duration(local.Hour()*60+local.Minute()) * time.Minute
			for _, s := range c.Spans {
				on := func(d time.Weekday) bool { return s.Days == [7]bool{} || s.Days[(d+7)%7] }
				if s.To > s.From && on(local.Weekday()) && minute >= s.From && minute < s.To ||
					s.To <= s.From && (on(local.Weekday()) && minute >= s.From || on(local.Weekday()-1) && minute < s.To) {
					return true
				}
			}
			return false
		}
		walked, want := time.Duration(0), time.Duration(1+rng.IntN(3000))*time.Minute
		added := c.Add(start, want)
		for at := start; at.Before(start.Add(7 * 24 * time.Hour)); at = at.Add(time.Minute) {
			if c.Open(at) != open(at) {
				t.Fatalf("%+v: Open(%s) = %v", c, at, c.Open(at))
			}
			if open(at) {
				if walked += time.Minute; walked == want && !added.Equal(at.Add(time.Minute)) {
					t.Fatalf("%+v: %s after %s is %s, want %s", c, want, start, added, at.Add(time.Minute))
				}
			}
		}
	}
}
