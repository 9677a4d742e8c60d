package budget

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle"
)

const layout256 = `
page = 2048
granule = 8
slot = 98304
download = 32768
journal = 4096
boot = 4096
scratch = 8192
arena = 9216
`

// The library itself accepts the sizes computed here and none smaller.
func TestAgainstLibrary(t *testing.T) {
	stub, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "oracle")
	build := exec.Command("sh", "-c", fmt.Sprintf("cc -std=c99 -O1 -I%[1]s/include -I%[1]s/src -I%[1]s/boot testdata/oracle.c %[1]s/src/*.c %[1]s/boot/*.c -o %[2]s", stub, program))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	type query struct{ m, s, granule int }
	var queries []query
	var in strings.Builder
	for _, m := range []int{1, 7, 8, 100, 127, 128, 129, 300, 1000, 2047, 4000} {
		for _, s := range []int{1, 10, 48, 51, 100, 222, 232, 255} {
			for _, g := range []int{1, 2, 4, 8, 16} {
				queries = append(queries, query{m, s, g})
				fmt.Fprintln(&in, m, s, g)
			}
		}
	}
	run := exec.Command(program)
	run.Stdin = strings.NewReader(in.String())
	out, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	if len(lines) != 2*len(queries) {
		t.Fatalf("%d numbers for %d questions", len(lines), len(queries))
	}
	for i, q := range queries {
		l := Layout{Granule: q.granule}
		arena, pages := arenaSize(q.m, q.s, 0), (downloadSize(q.m, q.s, l)+127)/128
		if got := fmt.Sprint(arena, " ", pages); got != lines[2*i]+" "+lines[2*i+1] {
			t.Errorf("M %d, S %d, granule %d: arena and pages %s, the library says %s %s", q.m, q.s, q.granule, got, lines[2*i], lines[2*i+1])
		}
	}
}

func TestCheck(t *testing.T) {
	l, err := ParseLayout([]byte(layout256))
	if err != nil {
		t.Fatal(err)
	}
	fits := bundle.Manifest{Codec: bundle.CodecPatch, NewSize: 80000, BaseSize: 79000, RAM: 8192, Scratch: 4096}
	for _, tt := range []struct {
		name   string
		change func(*bundle.Manifest, *int, *Layout)
		breaks string // part of the name of the item that does not fit
		remedy string
	}{
		{"fits", func(*bundle.Manifest, *int, *Layout) {}, "", ""},
		{"patch needs RAM", func(m *bundle.Manifest, _ *int, _ *Layout) { m.RAM = 16384 }, "RAM to patch", "--ram 9152"},
		{"patch needs scratch", func(m *bundle.Manifest, _ *int, _ *Layout) { m.Scratch = 10240 }, "scratch", "scratch = 10240"},
		{"block too large", func(_ *bundle.Manifest, n *int, _ *Layout) { *n = 40000 }, "flash to receive", "download = "},
		{"image too large", func(m *bundle.Manifest, _ *int, _ *Layout) { m.NewSize = 98305 }, "new image", "slot = 100352"},
		{"base too large", func(m *bundle.Manifest, _ *int, _ *Layout) { m.BaseSize = 98305 }, "base image", "slot = "},
		{"arena too small", func(_ *bundle.Manifest, _ *int, l *Layout) { l.Arena = 8256; l.Arena -= 8060 }, "RAM to receive", "arena = "},
		{"stack", func(_ *bundle.Manifest, _ *int, l *Layout) { l.Stack = 1024 }, "stack", "stack = 1536"},
		{"losses", func(_ *bundle.Manifest, n *int, l *Layout) { *n = 24000; l.Slot = 16384; l.Loss = 0.9 }, "losses", "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, n, l := fits, 14400, l
			tt.change(&m, &n, &l)
			r, err := Check(m, n, l)
			if err != nil {
				t.Fatal(err)
			}
			if r.Fits() != (tt.breaks == "") {
				t.Fatalf("fits = %v: %+v", r.Fits(), r.Items)
			}
			if tt.breaks == "" {
				return
			}
			for _, i := range r.Items {
				if !i.Fits() && strings.Contains(i.Name, tt.breaks) && strings.Contains(i.Change, tt.remedy) {
					return
				}
			}
			t.Errorf("no item %q with %q: %+v", tt.breaks, tt.remedy, r.Items)
		})
	}
}

// What is said to be the remedy is one.
func TestRemedies(t *testing.T) {
	l, err := ParseLayout([]byte(layout256))
	if err != nil {
		t.Fatal(err)
	}
	m := bundle.Manifest{Codec: bundle.CodecPatch, NewSize: 80000, BaseSize: 79000, RAM: 16384, Scratch: 16384}
	r, err := Check(m, 60000, l)
	if err != nil {
		t.Fatal(err)
	}
	text := layout256
	for _, i := range r.Items {
		if i.Fits() {
			continue
		}
		change, _, _ := strings.Cut(i.Change, ",")
		key, _, _ := strings.Cut(change, " =")
		var lines []string
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, key+" =") {
				line = change + "\n"
			}
			lines = append(lines, line)
		}
		text = strings.Join(lines, "")
	}
	if text == layout256 {
		t.Fatal("nothing to change")
	}
	l, err = ParseLayout([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = Check(m, 60000, l); err != nil || !r.Fits() {
		t.Errorf("with the remedies: %+v, %v\n%s", r.Items, err, text)
	}
}

// A full image needs no base and no patcher.
func TestCheckFullImage(t *testing.T) {
	l, err := ParseLayout([]byte(layout256))
	if err != nil {
		t.Fatal(err)
	}
	l.Arena = 1024
	r, err := Check(bundle.Manifest{Codec: bundle.CodecFull, NewSize: 20000, RAM: 16384}, 20160, l)
	if err != nil || !r.Fits() || r.M != 420 || r.Losses != 126 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, w := range r.Erases {
		if w.Erases < 1 || w.Updates != l.EraseCycles/w.Erases {
			t.Errorf("%+v", w)
		}
	}
	if _, err := Check(bundle.Manifest{}, 48*16384, l); err == nil || !strings.Contains(err.Error(), "larger fragments") {
		t.Errorf("error %v", err)
	}
}

// Where the flash does not endure the updates of a life, what is named as the remedy is one.
func TestWear(t *testing.T) {
	l, err := ParseLayout([]byte(layout256))
	if err != nil {
		t.Fatal(err)
	}
	l.Page, l.Journal, l.Boot, l.Scratch, l.EraseCycles, l.Updates = 256, 1024, 1024, 256, 10000, 1000
	m := bundle.Manifest{Codec: bundle.CodecPatch, NewSize: 98000, BaseSize: 97000, RAM: 8192, Scratch: 256}
	r, err := Check(m, 14400, l)
	if err != nil || r.Fits() {
		t.Fatalf("%+v, %v", r, err)
	}
	worn := map[string]string{}
	for _, w := range r.Erases {
		if !w.Fits() {
			worn[w.Region], _, _ = strings.Cut(w.Change, ",")
		}
	}
	if len(worn) != 3 {
		t.Fatalf("worn out: %v, want scratch, journal and boot", worn)
	}
	for region, size := range map[string]*int{"scratch": &l.Scratch, "journal": &l.Journal, "boot": &l.Boot} {
		if _, err := fmt.Sscanf(worn[region], region+" = %d", size); err != nil {
			t.Errorf("%q: %v", worn[region], err)
		}
	}
	if r, err = Check(m, 14400, l); err != nil || !r.Fits() {
		t.Errorf("with the remedies: %+v, %v", r.Erases, err)
	}
	l.Updates = 4000 // slot B is erased three times
	if r, err = Check(m, 14400, l); err != nil || r.Fits() || r.Erases[1].Change != "updates = 3333, or flash that endures 12000 erases" {
		t.Errorf("%+v, %v", r.Erases, err)
	}
}

// The largest block is one that fits, and a fragment more is not.
func TestLimits(t *testing.T) {
	for _, text := range []string{layout256, layout256 + "fragment = 232", layout256 + "loss = 0.9",
		strings.Replace(layout256, "arena = 9216", "arena = 300", 1), strings.Replace(layout256, "slot = 98304", "slot = 4096", 1)} {
		l, err := ParseLayout([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		c, err := Limits(l)
		if err != nil || c.M == 0 || c.Block != c.M*l.Fragment {
			t.Fatalf("%+v, %v", c, err)
		}
		for n, want := range map[int]bool{c.Block: true, c.Block + 1: false} {
			r, err := Check(bundle.Manifest{Codec: bundle.CodecFull}, n, l)
			if err != nil || r.Fits() != want {
				t.Errorf("a block of %d bytes: %+v, %v; want fits = %v", n, r.Items, err, want)
			}
		}
	}
	l, err := ParseLayout([]byte(strings.Replace(layout256, "arena = 9216", "arena = 64", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := Limits(l); err != nil || c.M != 0 || c.RAM != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestParseLayoutErrors(t *testing.T) {
	for _, tt := range []struct{ from, to, text string }{
		{"page = 2048", "page = 2000", "page = 2000"},
		{"granule = 8", "granule = 32", "granule = 32"},
		{"slot = 98304", "slot = 98300", "slot = 98300"},
		{"download = 32768", "", "download = 0"},
		{"journal = 4096", "journal = 2048", "journal = 2048"},
		{"arena = 9216", "", "arena = 0"},
		{"granule = 8", "granule = 8\nloss = 1.5", "loss = 1.5"},
		{"granule = 8", "granule = 8\nfragment = 256", "fragment = 256"},
		{"granule = 8", "granule = 8\nupdates = 0", "updates = 0"},
		{"granule = 8", "granule = 8\nstack = -1", "stack = -1"},
		{"granule = 8", "granule = \"x\"", "Granule"},
		{"granule = 8", "granule = 8\nscrach = 1", `unknown key "scrach"`},
		{"page = 2048\ngranule = 8\nslot = 98304\ndownload = 32768\njournal = 4096\nboot = 4096\nscratch = 8192",
			"page = 128\ngranule = 8\nslot = 98304\ndownload = 32768\njournal = 512\nboot = 4096\nscratch = 8192", "journal = 512, want at least 1024"},
	} {
		text := strings.Replace(layout256, tt.from, tt.to, 1)
		if _, err := ParseLayout([]byte(text)); !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%q for %q: error %v", tt.to, tt.from, err)
		}
	}
}
