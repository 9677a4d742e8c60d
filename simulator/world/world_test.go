package world_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sower-fuota/sower/simulator/world"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func run(t *testing.T, w *world.World, until time.Duration) {
	t.Helper()
	if err := w.Run(t.Context(), epoch.Add(until)); err != nil {
		t.Fatal(err)
	}
}

func TestEventsRunInOrderOfTimeThenOfScheduling(t *testing.T) {
	w := world.New(epoch)
	var got []string
	note := func(name string) func() {
		return func() { got = append(got, fmt.Sprintf("%s@%s", name, w.Now().Sub(epoch))) }
	}
	w.At(epoch.Add(2*time.Second), "b", note("b"))
	w.At(epoch.Add(time.Second), "a1", func() {
		note("a1")()
		w.After(0, "a3", note("a3"))
		w.At(epoch, "past", note("past")) // an instant that has passed means now
	})
	w.At(epoch.Add(time.Second), "a2", note("a2"))
	w.At(epoch.Add(time.Hour), "late", note("late"))
	run(t, w, time.Minute)
	if want := "a1@1s a2@1s a3@1s past@1s b@2s"; strings.Join(got, " ") != want {
		t.Errorf("ran %v, want %s", got, want)
	}
	if w.Now() != epoch.Add(time.Minute) || w.Events() != 5 {
		t.Errorf("clock shows %s after %d events, want %s after 5", w.Now(), w.Events(), epoch.Add(time.Minute))
	}
}

func TestCancelledEventDoesNotRun(t *testing.T) {
	w := world.New(epoch)
	ran := 0
	e := w.After(time.Second, "cancelled", func() { ran += 100 })
	kept := w.After(2*time.Second, "kept", func() { ran++ })
	if !e.Cancel() || e.Cancel() {
		t.Error("Cancel reported not true, then false")
	}
	run(t, w, time.Minute)
	if ran != 1 {
		t.Errorf("ran %d, want only the event that was kept", ran)
	}
	if kept.Cancel() {
		t.Error("Cancel of an event that has run reported true")
	}
}

func TestHoldStopsTimeUntilReleased(t *testing.T) {
	w := world.New(epoch)
	first, second := w.Hold("first"), w.Hold("second")
	var released sync.Mutex // locked until both are released
	released.Lock()
	w.After(time.Second, "event", func() {
		if !released.TryLock() {
			t.Error("the event ran while the world was held")
		}
	})
	done := make(chan error)
	go func() { done <- w.Run(context.Background(), epoch.Add(time.Minute)) }()
	first()
	first() // once more does nothing
	released.Unlock()
	second()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if w.Events() != 1 {
		t.Errorf("%d events ran, want 1", w.Events())
	}
}

func TestStallNamesTheHolders(t *testing.T) {
	w := world.New(epoch)
	w.StallAfter = 10 * time.Millisecond
	defer w.Hold("engine")()
	defer w.Hold("RPC")()
	defer w.Hold("RPC")()
	w.After(time.Second, "event", func() { t.Error("ran") })
	err := w.Run(t.Context(), epoch.Add(time.Minute))
	if !errors.Is(err, world.ErrStalled) || !strings.Contains(err.Error(), "RPC (2), engine (1)") {
		t.Errorf("Run = %v, want ErrStalled with the holders", err)
	}
}

func TestStopAndContextEndRun(t *testing.T) {
	w := world.New(epoch)
	w.After(time.Second, "stop", w.Stop)
	w.After(2*time.Second, "never", func() { t.Error("ran after Stop") })
	if err := w.Run(t.Context(), epoch.Add(time.Minute)); !errors.Is(err, world.ErrStopped) {
		t.Errorf("Run = %v, want ErrStopped", err)
	}

	w = world.New(epoch)
	defer w.Hold("somebody")()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Run(ctx, epoch.Add(time.Minute)); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want context.Canceled", err)
	}
}

// TestClockHoldsWhileBusy runs a participant on its own goroutine, which must see every instant it asked for and
// no other, while events run in between.
func TestClockHoldsWhileBusy(t *testing.T) {
	w := world.New(epoch)
	clock := w.NewClock("participant")
	var log []string // written by the participant while busy, and by events: never at the same time
	var schedule func()
	schedule = func() {
		log = append(log, "event "+w.Now().Sub(epoch).String())
		w.After(7*time.Second, "event", schedule)
	}
	w.After(7*time.Second, "event", schedule)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 1; i <= 3; i++ {
			<-clock.WakeAt(epoch.Add(time.Duration(i) * 10 * time.Second))
			log = append(log, "woke "+clock.Now().Sub(epoch).String())
			<-clock.WakeAt(clock.Now()) // "busy": must not let time move
			<-clock.WakeAt(time.Time{}.Add(1))
		}
		clock.Close()
	}()
	run(t, w, 35*time.Second)
	<-ended
	if got, want := strings.Join(log, ", "), "event 7s, woke 10s, event 14s, woke 20s, event 21s, event 28s, woke 30s, event 35s"; got != want {
		t.Errorf("log is\n%s, want\n%s", got, want)
	}
}

// TestClockWokenEarly declares a new wake-up before the old one was due: only the new one counts.
func TestClockWokenEarly(t *testing.T) {
	w := world.New(epoch)
	clock := w.NewClock("participant")
	defer clock.Close()
	first := clock.WakeAt(epoch.Add(10 * time.Second))
	var second <-chan struct{}
	w.After(5*time.Second, "message", func() {
		release := w.Hold("message")
		second = clock.WakeAt(epoch.Add(20 * time.Second))
		release()
	})
	run(t, w, 15*time.Second)
	select {
	case <-first:
		t.Error("the declaration that was replaced woke the participant")
	case <-second:
		t.Error("woken at 15 s, declared 20 s")
	default:
	}
	w.StallAfter = 10 * time.Millisecond
	if err := w.Run(t.Context(), epoch.Add(time.Minute)); err != nil && !errors.Is(err, world.ErrStalled) {
		t.Fatal(err)
	}
	<-second
	if w.Now() != epoch.Add(20*time.Second) {
		t.Errorf("woken at %s, want 20 s", w.Now().Sub(epoch))
	}
}

// TestClockUntilWoken has nothing to do: the world comes to rest, and Close releases what is held.
func TestClockUntilWoken(t *testing.T) {
	w := world.New(epoch)
	clock := w.NewClock("participant")
	clock.WakeAt(time.Time{})
	w.After(time.Second, "event", func() {})
	run(t, w, time.Minute)
	if w.Events() != 1 {
		t.Errorf("%d events, want 1", w.Events())
	}
	<-clock.WakeAt(w.Now())
	clock.Close()
	run(t, w, time.Hour) // not held any more
	select {
	case <-clock.WakeAt(w.Now()):
		t.Error("a closed clock woke its participant")
	default:
	}
}
