package world

import (
	"sync"
	"time"
)

// Clock is the time of one participant that runs on goroutines of its own, such as the campaign engine. It
// has the methods of the engine's clock. A participant is busy, and holds the world, from [World.NewClock] or
// from the instant it is woken until it declares its next wake-up; while it sleeps, whatever wakes it early
// (an event that is published to it) must hold the world until the participant has called WakeAt again.
type Clock struct {
	w    *World
	what string

	mu      sync.Mutex
	release func() // non-nil while busy
	timer   *Event
	closed  bool
}

// NewClock returns the clock of a participant, who is busy.
func (w *World) NewClock(what string) *Clock {
	return &Clock{w: w, what: what, release: w.Hold(what)}
}

// Now returns the virtual time.
func (c *Clock) Now() time.Time { return c.w.Now() }

// WakeAt declares that the participant has nothing to do until t, and returns a channel that is closed at t,
// when the participant counts as busy again. It replaces the declaration before it. An instant that is not
// in the future means "I am busy": the channel is closed already. The zero time means "until something wakes me".
func (c *Clock) WakeAt(t time.Time) <-chan struct{} {
	ch := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ch
	}
	if c.timer != nil {
		c.timer.Cancel()
		c.timer = nil
	}
	if !t.IsZero() && !t.After(c.w.Now()) {
		c.busy()
		close(ch)
		return ch
	}
	if !t.IsZero() {
		var e *Event
		e = c.w.At(t, c.what, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.timer != e {
				return // replaced or closed in the instant in which it was due
			}
			c.timer = nil
			c.busy()
			close(ch)
		})
		c.timer = e
	}
	if c.release != nil {
		c.release()
		c.release = nil
	}
	return ch
}

// busy takes the hold; the caller holds c.mu.
func (c *Clock) busy() {
	if c.release == nil {
		c.release = c.w.Hold(c.what)
	}
}

// Close takes the participant out of the world: it has ended, or it has crashed.
func (c *Clock) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.timer != nil {
		c.timer.Cancel()
		c.timer = nil
	}
	if c.release != nil {
		c.release()
		c.release = nil
	}
}
