// Package jobstest has the tests that every [jobs.Queue] must pass.
package jobstest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sower-fuota/sower/engine/jobs"
)

var start = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

// Run tests queues that open makes. Each is empty; its successor is the same queue after the death of whoever has
// claimed jobs so far, or nil if the queue does not survive that.
func Run(t *testing.T, open func(t *testing.T) (q jobs.Queue, successor func() jobs.Queue)) {
	job := func(id uint64, after time.Duration) jobs.Job {
		return jobs.Job{ID: id, Owner: "c", Due: start.Add(after), Wait: time.Second, Data: []byte{byte(id)}}
	}
	claim := func(t *testing.T, q jobs.Queue, after time.Duration, limit int, want ...uint64) []jobs.Job {
		t.Helper()
		got, err := q.Claim(start.Add(after), limit)
		if err != nil {
			t.Fatal(err)
		}
		ids := []uint64{}
		for _, j := range got {
			ids = append(ids, j.ID)
		}
		if !slices.Equal(ids, want) {
			t.Fatalf("Claim after %s = jobs %v, want %v", after, ids, want)
		}
		return got
	}
	ok := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	t.Run("due first, then by id", func(t *testing.T) {
		q, _ := open(t)
		for _, j := range []jobs.Job{job(4, 0), job(3, time.Second), job(2, 0), job(1, time.Minute)} {
			ok(t, q.Enqueue(start, j))
		}
		got := claim(t, q, time.Second, 2, 2, 4)
		if w := job(2, 0); got[0].Owner != w.Owner || !got[0].Due.Equal(w.Due) || got[0].Wait != w.Wait || !slices.Equal(got[0].Data, w.Data) {
			t.Errorf("Claim = %+v, want %+v", got[0], w)
		}
		claim(t, q, time.Second, 9, 3)
		claim(t, q, time.Second, 9)
		claim(t, q, time.Minute, 9, 1)
	})
	t.Run("snoozed until due", func(t *testing.T) {
		q, _ := open(t)
		ok(t, q.Enqueue(start, job(1, 0)))
		ok(t, q.Enqueue(start, job(2, time.Hour)))
		claim(t, q, 0, 9, 1)
		ok(t, q.Snooze(start, jobs.Job{ID: 1, Due: start.Add(time.Minute), Wait: time.Hour}))
		ok(t, q.Snooze(start, jobs.Job{ID: 2, Due: start.Add(time.Minute)})) // that was not claimed
		claim(t, q, 59*time.Second, 9)
		got := claim(t, q, time.Minute, 9, 1, 2)
		if got[0].Wait != time.Hour || got[0].Owner != "c" || !slices.Equal(got[0].Data, []byte{1}) {
			t.Errorf("Claim = %+v, want another Wait and nothing else", got[0])
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		q, _ := open(t)
		ok(t, q.Enqueue(start, job(1, 0)))
		ok(t, q.Enqueue(start, job(2, 0)))
		claim(t, q, 0, 1, 1)
		ok(t, q.Cancel(start, 1))
		ok(t, q.Cancel(start, 2))
		claim(t, q, time.Hour, 9)
	})
	t.Run("refused", func(t *testing.T) {
		q, _ := open(t)
		ok(t, q.Enqueue(start, job(1, 0)))
		if err := q.Enqueue(start, job(1, time.Hour)); !errors.Is(err, jobs.ErrExists) {
			t.Errorf("Enqueue twice = %v, want ErrExists", err)
		}
		if err := q.Snooze(start, job(2, 0)); !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("Snooze of nothing = %v, want ErrNotFound", err)
		}
		if err := q.Cancel(start, 2); !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("Cancel of nothing = %v, want ErrNotFound", err)
		}
		claim(t, q, 0, 9, 1)
	})
	t.Run("taken over from the dead", func(t *testing.T) {
		q, successor := open(t)
		if successor == nil {
			return
		}
		for id := range uint64(4) {
			ok(t, q.Enqueue(start, job(id+1, 0)))
		}
		claim(t, q, 0, 3, 1, 2, 3)
		ok(t, q.Cancel(start, 2))
		ok(t, q.Snooze(start, jobs.Job{ID: 3, Due: start.Add(time.Hour)}))
		heir := successor()
		claim(t, heir, 0, 9, 1, 4)
		claim(t, heir, time.Hour, 9, 3)
		claim(t, heir, time.Hour, 9)
	})
}
