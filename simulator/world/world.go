// Package world owns time in a simulation: one clock and one queue of events.
//
// Virtual time stands still while anybody is busy. It moves to the next event only when every hold has been
// released: no RPC in flight, every published event processed by its subscriber, every engine asleep until an
// instant it has declared, every device idle. Because nothing can happen between two events unless somebody
// holds the world, a run with real sockets and real goroutines is as exact as a loop over a queue, and the
// same run twice gives the same events in the same order.
//
// The package knows nothing of radio, devices or servers.
package world

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"
)

var (
	// ErrStalled is returned by [World.Run] when the same holds have kept time from moving for longer than
	// [World.StallAfter] of wall-clock time: a participant has died or deadlocked. The text names the holds.
	ErrStalled = errors.New("world: time stands still")
	// ErrStopped is returned by [World.Run] after [World.Stop].
	ErrStopped = errors.New("world: stopped")
)

// World is one clock and one event queue. Its methods may be called from any goroutine; the functions given
// to [World.At] run one at a time on the goroutine of [World.Run].
type World struct {
	// StallAfter is how long (wall clock) the world waits for its holds before Run gives up; 0 means 60 s.
	StallAfter time.Duration

	mu      sync.Mutex
	changed chan struct{} // made when Run waits, closed when holds, queue or stopped change
	now     time.Time
	queue   queue
	seq     uint64
	holds   map[uint64]string
	stopped bool
	events  uint64
}

// New returns a world whose clock shows start.
func New(start time.Time) *World {
	return &World{now: start, holds: map[uint64]string{}}
}

// Now returns the virtual time.
func (w *World) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// Events returns how many events have run so far.
func (w *World) Events() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events
}

// Event is a function waiting in the queue.
type Event struct {
	w     *World
	at    time.Time
	seq   uint64
	what  string
	fn    func()
	index int // in the heap; -1 once run or cancelled
}

// At runs fn when the clock shows t; an instant that has passed means now. Events of one instant run in the
// order in which they were scheduled. what names the event in diagnostics.
func (w *World) At(t time.Time, what string, fn func()) *Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.Before(w.now) {
		t = w.now
	}
	w.seq++
	e := &Event{w: w, at: t, seq: w.seq, what: what, fn: fn}
	heap.Push(&w.queue, e)
	w.notify()
	return e
}

// After runs fn after d of virtual time.
func (w *World) After(d time.Duration, what string, fn func()) *Event {
	return w.At(w.Now().Add(d), what, fn)
}

// Cancel removes the event from the queue. It reports whether the event had not yet run.
func (e *Event) Cancel() bool {
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	if e.index < 0 {
		return false
	}
	heap.Remove(&e.w.queue, e.index)
	return true
}

// Hold keeps time from moving until release is called; further calls of release do nothing.
func (w *World) Hold(what string) (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seq++
	id := w.seq
	w.holds[id] = what
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, held := w.holds[id]; held {
			delete(w.holds, id)
			w.notify()
		}
	}
}

// Stop makes Run return ErrStopped before the next event.
func (w *World) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.notify()
}

// notify wakes Run; the caller holds w.mu.
func (w *World) notify() {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// Run executes events until the clock would pass until, the queue is empty while nobody holds the world, ctx
// ends, or Stop is called. It returns nil in the first two cases; in the first the clock then shows until.
func (w *World) Run(ctx context.Context, until time.Time) error {
	for {
		e, err := w.next(ctx, until)
		if e == nil || err != nil {
			return err
		}
		e.fn()
	}
}

// next waits for all holds and takes the next event; nil means that there is none before until.
func (w *World) next(ctx context.Context, until time.Time) (*Event, error) {
	stall := w.StallAfter
	if stall == 0 {
		stall = time.Minute
	}
	var timer *time.Timer
	for {
		w.mu.Lock()
		if w.stopped {
			w.mu.Unlock()
			return nil, ErrStopped
		}
		if len(w.holds) == 0 {
			e := w.pop(until)
			w.mu.Unlock()
			return e, nil
		}
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		changed := w.changed
		w.mu.Unlock()
		if timer == nil {
			timer = time.NewTimer(stall)
			defer timer.Stop()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timer.C:
			return nil, fmt.Errorf("%w at %s, held by %s", ErrStalled, w.Now().UTC().Format(time.RFC3339), w.holders())
		}
	}
}

// pop takes the next event not after until and moves the clock; the caller holds w.mu.
func (w *World) pop(until time.Time) *Event {
	if len(w.queue) == 0 {
		return nil
	}
	if w.queue[0].at.After(until) {
		w.now = until
		return nil
	}
	e := heap.Pop(&w.queue).(*Event)
	w.now = e.at
	w.events++
	return e
}

// holders lists the open holds with their number, in a stable order.
func (w *World) holders() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	count := map[string]int{}
	for _, what := range w.holds {
		count[what]++
	}
	names := make([]string, 0, len(count))
	for what, n := range count {
		names = append(names, fmt.Sprintf("%s (%d)", what, n))
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}

type queue []*Event

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].seq < q[j].seq
}

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *queue) Push(x any) {
	e := x.(*Event)
	e.index = len(*q)
	*q = append(*q, e)
}

func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	e.index = -1
	return e
}
