package run

import (
	"time"

	"github.com/sower-fuota/sower/engine/network"
)

// air lets the sessions of all campaigns share the gateways. What is taken follows from their states, so that a
// restart forgets nothing.
type air struct{ e *Engine }

// Free implements [session.Neighbours].
func (a air) Free(session string, gateways []network.EUI64, from time.Time, lasts time.Duration) time.Time {
	for moved := true; moved; {
		moved = false
		for _, c := range a.e.campaigns {
			for i := range c.Sessions() {
				if o, ok := c.Session(i).Occupies(); ok && o.Session != session && o.Clashes(gateways, from, lasts) {
					from, moved = o.Ends, true
				}
			}
		}
	}
	return from
}
