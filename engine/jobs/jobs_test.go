package jobs_test

import (
	"testing"
	"time"

	"github.com/sower-fuota/sower/engine/jobs"
	"github.com/sower-fuota/sower/engine/jobs/jobstest"
)

func TestMemory(t *testing.T) {
	jobstest.Run(t, func(*testing.T) (jobs.Queue, func() jobs.Queue) { return &jobs.Memory{}, nil })
}

func TestMemoryNext(t *testing.T) {
	var m jobs.Memory
	at := time.Unix(1, 0)
	if !m.Next().IsZero() || m.Len() != 0 {
		t.Error("an empty queue has a next job")
	}
	for id := range uint64(3) {
		if err := m.Enqueue(at, jobs.Job{ID: id, Due: at.Add(time.Duration(3-id) * time.Second)}); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.Next(); !got.Equal(at.Add(time.Second)) || m.Len() != 3 {
		t.Errorf("Next = %s of %d jobs, want a second after %s of 3", got, m.Len(), at)
	}
	if _, err := m.Claim(at.Add(time.Minute), 9); err != nil || !m.Next().IsZero() || m.Len() != 3 {
		t.Errorf("claimed jobs are still due, or gone: Next = %s, Len = %d, %v", m.Next(), m.Len(), err)
	}
}

func TestMemoryHas(t *testing.T) {
	var m jobs.Memory
	at := time.Unix(1, 0)
	if err := m.Enqueue(at, jobs.Job{ID: 1, Owner: "x", Due: at}); err != nil {
		t.Fatal(err)
	}
	if !m.Has("x") || m.Has("y") {
		t.Errorf("Has = %t for the owner of a job, %t for nobody", m.Has("x"), m.Has("y"))
	}
	if _, err := m.Claim(at, 1); err != nil || !m.Has("x") {
		t.Errorf("a claimed job is gone, %v", err)
	}
	if err := m.Cancel(at, 1); err != nil || m.Has("x") {
		t.Errorf("a job that has ended is still there, %v", err)
	}
}
