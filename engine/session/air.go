package session

import (
	"slices"
	"time"

	"github.com/sower-fuota/sower/engine/network"
)

// Neighbours knows the other sessions, of whatever campaign: a gateway serves one session at a time. Each keeps the duty cycle
// by its pace; two at once would exceed it together, and their frames would wait for each other until they expire.
type Neighbours interface {
	// Free returns the first instant at or after from at which no other session than that one occupies any of the
	// gateways for so long.
	Free(session string, gateways []network.EUI64, from time.Time, lasts time.Duration) time.Time
}

// Share makes the session ask for the air before it announces a window. A session that shares nothing has the air for
// itself. [State] does not hold it: it is to be called again after [Resume].
func (c *Session) Share(air Neighbours) { c.air = air }

// Occupied is the time for which a session has announced a window, or has it open.
type Occupied struct {
	Session     string
	Gateways    []network.EUI64
	Start, Ends time.Time
}

// Occupies returns what the session takes of the air; false: nothing at present.
func (c *Session) Occupies() (Occupied, bool) {
	w := c.st.Window
	return Occupied{c.spec.ID, c.spec.Gateways, w.Start, w.End},
		(c.st.Phase == PhaseAnnounce || c.st.Phase == PhaseWindow) && !c.st.Paused
}

// Clashes reports whether a window on these gateways would take the same air.
func (o Occupied) Clashes(gateways []network.EUI64, start time.Time, lasts time.Duration) bool {
	return start.Before(o.Ends) && o.Start.Before(start.Add(lasts)) &&
		slices.ContainsFunc(gateways, func(gw network.EUI64) bool { return slices.Contains(o.Gateways, gw) })
}

// place moves a window to where the calendar allows it and the air is free.
func (c *Session) place(w *Window) {
	want := w.TimeOut
	for {
		w.Start = c.align(w.Start)
		w.TimeOut = want
		c.intoCalendar(w)
		if c.air == nil {
			return
		}
		free := c.air.Free(c.spec.ID, c.spec.Gateways, w.Start, c.lasts(w.TimeOut))
		if !free.After(w.Start) {
			return
		}
		w.Start = free
	}
}
