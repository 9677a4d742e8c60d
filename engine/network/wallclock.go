package network

import (
	"sync"
	"time"
)

// WallClock is the Clock of production.
type WallClock struct {
	mu    sync.Mutex
	timer *time.Timer
}

// Now returns the time of the operating system.
func (c *WallClock) Now() time.Time { return time.Now() }

// WakeAt implements [Clock].
func (c *WallClock) WakeAt(t time.Time) <-chan struct{} {
	ch := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if t.IsZero() {
		return ch
	}
	d := time.Until(t)
	if d <= 0 {
		close(ch)
		return ch
	}
	c.timer = time.AfterFunc(d, func() { close(ch) })
	return ch
}
