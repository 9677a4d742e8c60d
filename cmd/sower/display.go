package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sower-fuota/sower/simulator/rehearse"
)

// display shows a running rehearsal: what emulated devices print, and how far the campaigns are. On a terminal
// the progress is one line that is drawn over; elsewhere it is a line whenever a campaign enters another phase.
type display struct {
	out      io.Writer
	terminal io.Writer // nil when there is none
	console  bool
	drawn    bool
	state    string // last drawn, without its time
	phase    map[string]string
}

func newDisplay(stdout, stderr io.Writer, console bool) *display {
	d := &display{out: stdout, console: console, phase: map[string]string{}}
	if f, ok := stderr.(*os.File); ok && isTerminal(f) {
		d.terminal = f
	}
	return d
}

// planned shows the plan of a campaign before its first frame.
func (d *display) planned(group, plan string) {
	d.clear()
	fmt.Fprintf(d.out, "%s: %s\n", group, strings.ReplaceAll(plan, "\n", "\n  "))
}

// line shows what an emulated device printed.
func (d *display) line(l rehearse.ConsoleLine) {
	if !d.console || l.Kind != rehearse.Emulated {
		return
	}
	d.clear()
	fmt.Fprintf(d.out, "%s  %s │ %s\n", l.At.UTC().Format("15:04:05"), l.Name, l.Text)
}

// progress shows where the campaigns are.
func (d *display) progress(p rehearse.Progress) {
	if d.phase[p.Group] != p.Phase.String() {
		d.phase[p.Group] = p.Phase.String()
		d.clear()
		fmt.Fprintln(d.out, p.String())
		return
	}
	if _, state, _ := strings.Cut(p.String(), "  "); d.terminal != nil && state != d.state {
		d.clear()
		fmt.Fprint(d.terminal, p.String())
		d.drawn, d.state = true, state
	}
}

// clear removes the progress line.
func (d *display) clear() {
	if d.drawn {
		fmt.Fprint(d.terminal, "\r\x1b[K")
		d.drawn = false
	}
}

func (d *display) end() { d.clear() }

// counted is a number of things: "1 gateway", "2 gateways".
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
