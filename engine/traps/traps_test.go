package traps_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/sower-fuota/sower/engine/network"
)

// trap is one way of ChirpStack, and what stands against it.
type trap struct {
	section string // see the package documentation
	name    string // what ChirpStack does
	defence string // where it is
	// off names the defence as the package knows it: "chirpstack gateways-pinned". Empty: the defence is a choice,
	// and the test is run naively in its place.
	off  string
	test func(*probe) error // nil: the trap did no harm
}

func isUncertain(err error) bool   { return errors.Is(err, network.ErrUncertain) }
func isUnavailable(err error) bool { return errors.Is(err, network.ErrUnavailable) }
func isInvalid(err error) bool     { return errors.Is(err, network.ErrInvalid) }
func isNotFound(err error) bool    { return errors.Is(err, network.ErrNotFound) }

// TestTraps runs every trap with its defence on and, with the tag traps, with its defence off.
func TestTraps(t *testing.T) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "section\ttrap\tdefence\twith\twithout")
	missed := 0
	for _, tr := range all() {
		if tr.defence == "" || tr.test == nil {
			t.Errorf("%s %s: no defence", tr.section, tr.name)
			continue
		}
		with, without := "harmless", "not tried"
		t.Run(tr.section+" "+tr.name, func(t *testing.T) {
			if err := tr.test(&probe{t: t}); err != nil {
				with = "HARMED"
				t.Errorf("with its defence (%s): %v", tr.defence, err)
				return
			}
			if !canSwitchOff {
				return
			}
			err := undefended(t, tr)
			if err == nil {
				without = "NOT DETECTED"
				t.Errorf("without its defence (%s) nothing was noticed: the test proves nothing", tr.defence)
				return
			}
			without = "detected: " + strings.ReplaceAll(err.Error(), "\n", " ")
		})
		if with != "harmless" || without == "NOT DETECTED" {
			missed++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.90s\n", tr.section, tr.name, tr.defence, with, without)
	}
	w.Flush()
	t.Logf("%d traps, %d of them not defended or not detected\n%s", len(all()), missed, table.String())
}

func all() []trap {
	var out []trap
	for _, list := range [][]trap{groupTraps, frameTraps, listTraps, deviceTraps, eventTraps, engineTraps} {
		out = append(out, list...)
	}
	return out
}

// undefended runs the test of a trap without its defence.
func undefended(t *testing.T, tr trap) error {
	p := &probe{t: t, naive: tr.off == ""}
	if tr.off != "" {
		defer switchOff(tr.off)()
	}
	return tr.test(p)
}

// rooms have defences that can be switched off.
var rooms = map[string]string{"chirpstack": "../../integrations/chirpstack"}

// TestEveryDefenceHasATrap holds the table against the code: each defence that can be switched off is switched off
// by some trap, and none is named that does not exist.
func TestEveryDefenceHasATrap(t *testing.T) {
	named := map[string]bool{}
	for _, tr := range all() {
		named[tr.off] = true
	}
	delete(named, "")
	call := regexp.MustCompile(`defended\("([a-z-]+)"\)`)
	for room, folder := range rooms {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", folder, len(files), err)
		}
		found := map[string]bool{}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range call.FindAllSubmatch(text, -1) {
				found[room+" "+string(m[1])] = true
			}
		}
		for name := range found {
			if !named[name] {
				t.Errorf("no trap switches off %s", name)
			}
			delete(named, name)
		}
	}
	for name := range named {
		t.Errorf("a trap switches off %s, which is nowhere", name)
	}
}
