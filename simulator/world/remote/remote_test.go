package remote_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/simulator/world"
	"github.com/sower-fuota/sower/simulator/world/remote"
)

// variable tells the test binary to be the process.
const variable = "SOWER_TEST_REMOTE"

var start = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

func TestMain(m *testing.M) {
	if os.Getenv(variable) == "" {
		os.Exit(m.Run())
	}
	ctx, cancel := context.WithCancel(context.Background())
	clock := remote.NewClock(os.Stdout)
	go func() {
		clock.Listen(os.Stdin, cancel)
		os.Exit(1)
	}()
	// It sleeps three times ten minutes, says each time how late it is, and then waits to be told to stop.
	for range 3 {
		clock.WakeAt(clock.Now()) // busy, until the next
		<-clock.WakeAt(clock.Now().Add(10 * time.Minute))
		clock.Say("it is " + clock.Now().Format(time.TimeOnly))
	}
	<-clock.WakeAt(clock.Now()) // busy: closed already, in the instant in which it woke
	clock.WakeAt(time.Time{})
	<-ctx.Done()
	fmt.Fprint(os.Stderr, "bye")
	os.Exit(3)
}

func startProcess(t *testing.T, w *world.World, heard func(string)) *remote.Process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"=1")
	p, err := remote.Start(w, "process", cmd, heard)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A process sleeps and wakes in virtual time, the world waits for it, and it ends when it is told to.
func TestProcess(t *testing.T) {
	w := world.New(start)
	var said []string
	p := startProcess(t, w, func(line string) {
		if strings.HasPrefix(line, "it is") {
			said = append(said, line)
		}
	})
	if err := w.Run(t.Context(), start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	p.Stop()
	complaint, err := p.Wait()
	if exit := new(exec.ExitError); err == nil || complaint != "bye" || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("it ended with %v and said %q", err, complaint)
	}
	if got, want := strings.Join(said, ", "), "it is 06:10:00, it is 06:20:00, it is 06:30:00"; got != want {
		t.Errorf("it said %q, want %q", got, want)
	}
}

// A process that is killed while it is busy holds the world no longer.
func TestKill(t *testing.T) {
	w := world.New(start)
	killed := make(chan struct{})
	var p *remote.Process
	ready := make(chan struct{})
	p = startProcess(t, w, func(line string) {
		if strings.HasPrefix(line, "it is") {
			<-ready
			p.Kill()
			close(killed)
		}
	})
	w.After(50*time.Minute, "later", func() {})
	close(ready)
	go func() {
		<-killed
		if _, err := p.Wait(); err == nil {
			t.Error("it was killed and has ended by itself")
		}
	}()
	if err := w.Run(t.Context(), start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := w.Now(); !got.Equal(start.Add(50 * time.Minute)) {
		t.Errorf("the world stands at %s", got)
	}
}
