// Package jobs is the seam behind which the engine keeps what is to be done: a queue of small pieces of work that
// survive the process which wanted them. [Memory] is the queue of a rehearsal and the working set of an engine;
// package store has the one on disk.
//
// A job is one short step, never a wait: what has to wait is snoozed. The queue does not run jobs, knows nothing of
// their contents and asks no clock: now is a parameter.
package jobs

import (
	"container/heap"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrExists is returned by Enqueue for an id that is in the queue.
	ErrExists = errors.New("jobs: job exists")
	// ErrNotFound is returned by Snooze and Cancel for an id that is not in the queue.
	ErrNotFound = errors.New("jobs: no such job")
)

// Job is a piece of work. It is in the queue until it is cancelled, which is also how it ends.
type Job struct {
	ID    uint64        // given by the caller, above all that were used before
	Owner string        // what it is done for
	Due   time.Time     // not before
	Wait  time.Duration // free for the caller: how long it has snoozed last
	Data  []byte        // free for the caller
}

// Queue holds jobs. A job that was claimed is held by whoever has claimed it until it is snoozed or cancelled; when
// the holder has died, its successor's Claim returns the job again, though it may have been done.
type Queue interface {
	// Enqueue adds a job.
	Enqueue(now time.Time, j Job) error
	// Snooze gives a job back until j.Due, with a new Wait; the rest of j is ignored but its ID.
	Snooze(now time.Time, j Job) error
	// Cancel removes a job, because it is done or no longer wanted.
	Cancel(now time.Time, id uint64) error
	// Claim returns at most limit jobs that are due at now and not held, those due first before those due later,
	// and of one instant by id. They are held by the caller then.
	Claim(now time.Time, limit int) ([]Job, error)
}

// Memory is a Queue that lives as long as the process. The zero value is empty. It is not safe for concurrent use.
type Memory struct {
	jobs map[uint64]*entry
	due  dueHeap // those that are not held
}

type entry struct {
	Job
	index int // in the heap; -1: held
}

// Enqueue implements [Queue].
func (m *Memory) Enqueue(_ time.Time, j Job) error {
	if m.jobs == nil {
		m.jobs = map[uint64]*entry{}
	}
	if m.jobs[j.ID] != nil {
		return fmt.Errorf("%w: %d", ErrExists, j.ID)
	}
	e := &entry{Job: j}
	m.jobs[j.ID] = e
	heap.Push(&m.due, e)
	return nil
}

// Snooze implements [Queue].
func (m *Memory) Snooze(_ time.Time, j Job) error {
	e := m.jobs[j.ID]
	if e == nil {
		return fmt.Errorf("%w: %d", ErrNotFound, j.ID)
	}
	e.Due, e.Wait = j.Due, j.Wait
	if e.index < 0 {
		heap.Push(&m.due, e)
	} else {
		heap.Fix(&m.due, e.index)
	}
	return nil
}

// Cancel implements [Queue].
func (m *Memory) Cancel(_ time.Time, id uint64) error {
	e := m.jobs[id]
	if e == nil {
		return fmt.Errorf("%w: %d", ErrNotFound, id)
	}
	delete(m.jobs, id)
	if e.index >= 0 {
		heap.Remove(&m.due, e.index)
	}
	return nil
}

// Claim implements [Queue]; it returns no error.
func (m *Memory) Claim(now time.Time, limit int) ([]Job, error) {
	var out []Job
	for len(out) < limit && len(m.due) > 0 && !m.due[0].Due.After(now) {
		out = append(out, heap.Pop(&m.due).(*entry).Job)
	}
	return out, nil
}

// Has reports whether there are jobs of an owner. It looks at all.
func (m *Memory) Has(owner string) bool {
	for _, e := range m.jobs {
		if e.Owner == owner {
			return true
		}
	}
	return false
}

// Len returns how many jobs there are.
func (m *Memory) Len() int { return len(m.jobs) }

// Next returns when the next job that is not held is due; zero: there is none.
func (m *Memory) Next() time.Time {
	if len(m.due) == 0 {
		return time.Time{}
	}
	return m.due[0].Due
}

// dueHeap orders jobs by the instant at which they are due, then by id.
type dueHeap []*entry

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if !h[i].Due.Equal(h[j].Due) {
		return h[i].Due.Before(h[j].Due)
	}
	return h[i].ID < h[j].ID
}
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *dueHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	e.index = -1
	return e
}

// Op says what a [Change] does.
type Op uint8

// The operations of a [Queue] that change it.
const (
	Enqueue Op = iota + 1
	Snooze
	Cancel
)

// Change is one change of a queue; of a Cancel only the ID counts.
type Change struct {
	Do  Op
	Job Job
}

// Apply makes changes in order, up to the first that cannot be made.
func Apply(q Queue, now time.Time, changes []Change) error {
	for _, c := range changes {
		var err error
		switch c.Do {
		case Enqueue:
			err = q.Enqueue(now, c.Job)
		case Snooze:
			err = q.Snooze(now, c.Job)
		case Cancel:
			err = q.Cancel(now, c.Job.ID)
		default:
			err = fmt.Errorf("jobs: no operation %d", c.Do)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
