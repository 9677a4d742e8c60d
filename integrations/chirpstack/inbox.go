package chirpstack

import (
	"context"
	"errors"
	"sync"

	"github.com/sower-fuota/sower/engine/network"
)

// remembered is how many events that are done are remembered to recognise repetitions. An event that is under way
// is remembered until it is done, however many there are.
const remembered = 1 << 16

var errClosed = errors.New("chirpstack: nobody listens any more")

// inbox hands events to the engine, each once, and acknowledges them when they are done.
type inbox struct {
	out chan network.Event

	handing sync.RWMutex // held for reading while an event is handed over
	closed  bool

	mu    sync.Mutex
	seen  map[string]*delivery
	order []string // ids of events that are done, oldest first
}

// delivery is an event that was handed over, or is waiting for it.
type delivery struct {
	done bool
	acks []func() // one for each time it came
}

func newInbox() *inbox {
	return &inbox{out: make(chan network.Event), seen: map[string]*delivery{}}
}

// close waits for hand-overs to end; their contexts must have ended.
func (s *inbox) close() {
	s.handing.Lock()
	defer s.handing.Unlock()
	s.closed = true
	close(s.out)
}

// deliver hands an event over. It blocks while the engine is busy, which holds the next one back. ack is called once
// the event is done: at once for one that was done before. A repetition of one that is under way must not be
// acknowledged before that one, or it would be lost with the process. After an error ack will not be called, and
// the event may come again.
func (s *inbox) deliver(ctx context.Context, ev network.Event, ack func()) error {
	s.mu.Lock()
	if d := s.seen[ev.ID]; d != nil && defended("events-once") {
		if d.done || !defended("ack-after-done") {
			s.mu.Unlock()
			ack()
			return nil
		}
		d.acks = append(d.acks, ack)
		s.mu.Unlock()
		return nil
	}
	d := &delivery{acks: []func(){ack}}
	s.seen[ev.ID] = d
	s.mu.Unlock()
	ev.Done = func() { s.done(ev.ID, d) }
	if !defended("ack-after-done") {
		ack()
	}

	s.handing.RLock()
	defer s.handing.RUnlock()
	err := errClosed
	if !s.closed {
		select {
		case s.out <- ev:
			return nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[ev.ID] == d {
		delete(s.seen, ev.ID)
	}
	return err
}

// done acknowledges an event that has been dealt with, as often as it has come.
func (s *inbox) done(id string, d *delivery) {
	s.mu.Lock()
	if d.done {
		s.mu.Unlock()
		return
	}
	d.done = true
	acks := d.acks
	d.acks = nil
	s.order = append(s.order, id)
	if len(s.order) > remembered {
		delete(s.seen, s.order[0])
		s.order = s.order[1:]
	}
	s.mu.Unlock()
	for _, ack := range acks {
		ack()
	}
}
