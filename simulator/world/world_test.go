package world_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/simulator/world"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestOrder(t *testing.T) {
	w := world.New(start)
	var got []string
	add := func(s string) func() {
		return func() { got = append(got, fmt.Sprintf("%s@%d", s, w.Now().Sub(start)/time.Second)) }
	}
	w.At(start.Add(2*time.Second), "c", add("c"))
	w.At(start.Add(time.Second), "a", add("a"))
	w.At(start.Add(time.Second), "b", add("b"))
	gone := w.At(start.Add(time.Second), "gone", add("gone"))
	w.At(start.Add(time.Second), "late", func() {
		w.At(start, "past", add("past")) // an instant that has passed means now
	})
	if !gone.Cancel() || gone.Cancel() {
		t.Error("an event can be cancelled exactly once")
	}
	if err := w.Run(context.Background(), start.Add(10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a@1", "b@1", "past@1", "c@2"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestRunStopsAtUntil(t *testing.T) {
	w := world.New(start)
	ran := false
	w.At(start.Add(time.Hour), "later", func() { ran = true })
	if err := w.Run(context.Background(), start.Add(time.Minute)); err != nil || ran || !w.Now().Equal(start.Add(time.Minute)) {
		t.Errorf("ran %v at %v, err %v", ran, w.Now(), err)
	}
}

// A participant that is woken by an event at the same instant must get to act before the next event.
func TestClockHoldsTimeWhileBusy(t *testing.T) {
	w := world.New(start)
	c := w.NewClock("engine")
	var order []string
	w.At(start.Add(2*time.Second), "next", func() { order = append(order, "next") })
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-c.WakeAt(start.Add(time.Second))
		order = append(order, "engine") // safe: the world stands still until WakeAt
		<-c.WakeAt(start.Add(3 * time.Second))
		c.Close()
	}()
	if err := w.Run(context.Background(), start.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	<-done
	if want := []string{"engine", "next"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

func TestStallNamesTheHolder(t *testing.T) {
	w := world.New(start)
	w.StallAfter = 20 * time.Millisecond
	release := w.Hold("rpc Enqueue")
	err := w.Run(context.Background(), start.Add(time.Second))
	if !errors.Is(err, world.ErrStalled) || !strings.Contains(err.Error(), "rpc Enqueue (1)") {
		t.Fatalf("Run = %v, want ErrStalled naming the hold", err)
	}
	release()
	release()
	if err := w.Run(context.Background(), start.Add(time.Second)); err != nil {
		t.Error(err)
	}
}

func TestStop(t *testing.T) {
	w := world.New(start)
	w.At(start.Add(time.Second), "stop", w.Stop)
	w.At(start.Add(2*time.Second), "never", func() { t.Error("ran after Stop") })
	if err := w.Run(context.Background(), start.Add(time.Minute)); !errors.Is(err, world.ErrStopped) {
		t.Errorf("Run = %v, want %v", err, world.ErrStopped)
	}
}
