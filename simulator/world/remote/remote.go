// Package remote lets a process of its own live in the time of a world, so that a test can kill it at any instant.
//
// The process has a [Clock], which asks for the time on standard output and is answered on standard input; [Start] runs
// the process and answers for the world. The process holds the world while it is busy, as a participant on a goroutine
// does. Besides, it may say lines of its own.
//
// One line is one message. Of the process: "now", "wake ID NANOSECONDS" (0: until something wakes it), or anything that
// it says itself. To the process: the answer to its question, "woken ID", or "stop".
package remote

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sower-fuota/sower/simulator/world"
)

// Clock is the time of the world in the process. It has the methods of the engine's clock.
type Clock struct {
	out     io.Writer
	answers chan string

	mu sync.Mutex // one question at a time

	wakeMu sync.Mutex
	id     int
	woken  chan struct{} // of id; nil: closed
}

// NewClock returns a clock that asks on out. [Clock.Listen] must run beside it.
func NewClock(out io.Writer) *Clock { return &Clock{out: out, answers: make(chan string)} }

// Listen takes the lines of the world from in and calls stop when the process is told to end. It returns when in ends:
// nobody keeps the time any more, and the process must exit.
func (c *Clock) Listen(in io.Reader, stop func()) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		id, woken := strings.CutPrefix(lines.Text(), "woken ")
		switch {
		case woken:
			c.wakeMu.Lock()
			if c.woken != nil && id == strconv.Itoa(c.id) {
				close(c.woken)
				c.woken = nil
			}
			c.wakeMu.Unlock()
		case lines.Text() == "stop":
			stop()
		default:
			c.answers <- lines.Text()
		}
	}
}

// Say tells the world's side a line.
func (c *Clock) Say(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintln(c.out, line)
}

func (c *Clock) ask(line string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintln(c.out, line)
	return <-c.answers
}

// Now returns the virtual time.
func (c *Clock) Now() time.Time {
	text := c.ask("now")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		panic("remote: internal error: the time is " + text)
	}
	return time.Unix(0, n).UTC()
}

// WakeAt is [world.Clock.WakeAt].
func (c *Clock) WakeAt(t time.Time) <-chan struct{} {
	ch := make(chan struct{})
	c.wakeMu.Lock()
	c.id++
	c.woken = ch
	id := c.id
	c.wakeMu.Unlock()
	n := int64(0)
	if !t.IsZero() {
		n = t.UnixNano()
	}
	c.ask(fmt.Sprintf("wake %d %d", id, n))
	return ch
}

// Process is a process with a [Clock], seen from the world.
type Process struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	clock *world.Clock
	gone  chan struct{}
	errs  bytes.Buffer

	mu sync.Mutex // lines must not mix
}

// Start runs cmd in the time of w as a participant of that name, who is busy. Its standard input, output and error must
// be free. heard is called with each line of the process, questions included, on one goroutine.
func Start(w *world.World, name string, cmd *exec.Cmd, heard func(line string)) (*Process, error) {
	p := &Process{cmd: cmd, gone: make(chan struct{})}
	cmd.Stderr = &p.errs
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	p.in, p.clock = in, w.NewClock(name)
	go p.listen(out, heard)
	return p, nil
}

// say sends a line; a process that was killed does not take it.
func (p *Process) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.in, format+"\n", args...)
}

func (p *Process) listen(out io.Reader, heard func(string)) {
	defer close(p.gone)
	replaced := make(chan struct{})
	defer func() { close(replaced) }()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var id, n int64
		switch line := lines.Text(); {
		case line == "now":
			p.say("%d", p.clock.Now().UnixNano())
		case strings.HasPrefix(line, "wake "):
			if _, err := fmt.Sscanf(line, "wake %d %d", &id, &n); err != nil {
				panic("remote: internal error: the process says " + line)
			}
			close(replaced)
			replaced = make(chan struct{})
			var at time.Time
			if n != 0 {
				at = time.Unix(0, n)
			}
			woken, gone := p.clock.WakeAt(at), replaced
			p.say("ok")
			go func() {
				select {
				case <-woken:
					p.say("woken %d", id)
				case <-gone:
				}
			}()
		}
		heard(lines.Text())
	}
}

// Gone is closed when the process says nothing more.
func (p *Process) Gone() <-chan struct{} { return p.gone }

// Stop asks the process to end.
func (p *Process) Stop() { p.say("stop") }

// Kill ends the process as a power cut does, but for the disk. The world goes on at once unless somebody else holds it.
func (p *Process) Kill() { p.cmd.Process.Kill() }

// Quit ends the process with a dump of its goroutines on standard error: it does not do what it should.
func (p *Process) Quit() { p.cmd.Process.Signal(syscall.SIGABRT) }

// Wait waits for the end of the process and takes it out of the world. It returns what the process has said on standard
// error, and how it has ended.
func (p *Process) Wait() (complaint string, err error) {
	<-p.gone
	err = p.cmd.Wait()
	p.clock.Close()
	return p.errs.String(), err
}
