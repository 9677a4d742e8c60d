package main

import (
	"bufio"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// linked is what a link map says was kept: bytes by object and section.
type linked []contribution

type contribution struct {
	section, object string
	size            int
}

var (
	mapLine = regexp.MustCompile(`^ (\.[\w.$-]+|COMMON)(?:\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (\S.*))?$`)
	mapRest = regexp.MustCompile(`^\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (\S.*)$`)
)

// readMap parses a map file of GNU ld.
func readMap(path string) (linked, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	_, kept, found := strings.Cut(string(text), "Linker script and memory map")
	if !found {
		return nil, fmt.Errorf("%s: not a map file of GNU ld", path)
	}
	var l linked
	pending := "" // a section whose name took the whole line
	for line := range strings.Lines(kept) {
		line = strings.TrimRight(line, "\n")
		section, size, object := "", "", ""
		if m := mapLine.FindStringSubmatch(line); m != nil {
			section, size, object = m[1], m[3], m[4]
			pending = ""
			if object == "" {
				pending = section
				continue
			}
		} else if m := mapRest.FindStringSubmatch(line); m != nil && pending != "" {
			section, size, object, pending = pending, m[2], m[3], ""
		} else {
			pending = ""
			continue
		}
		n, err := strconv.ParseInt(size, 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		if n > 0 {
			l = append(l, contribution{section, object, int(n)})
		}
	}
	if len(l) == 0 {
		return nil, fmt.Errorf("%s: nothing was linked", path)
	}
	return l, nil
}

// code is the number of bytes of code and constants from the objects of a kind.
func (l linked) code(kind func(string) bool) int {
	n := 0
	for _, c := range l {
		if kind(c.object) && (strings.HasPrefix(c.section, ".text") || strings.HasPrefix(c.section, ".rodata") ||
			strings.HasPrefix(c.section, ".data") || c.section == ".vectors" || c.section == ".services" || c.section == ".app_info") {
			n += c.size
		}
	}
	return n
}

// byFile lists the bytes of code and constants of each object of a kind, the largest first.
func (l linked) byFile(kind func(string) bool) string {
	size := map[string]int{}
	for _, c := range l {
		if kind(c.object) {
			size[c.object] += linked{c}.code(kind)
		}
	}
	objects := slices.SortedFunc(maps.Keys(size), func(a, b string) int {
		return cmp.Or(size[b]-size[a], strings.Compare(a, b))
	})
	for i, o := range objects {
		objects[i] = fmt.Sprintf("%s %d", strings.TrimSuffix(filepath.Base(o), ".o"), size[o])
	}
	return strings.Join(objects, ", ")
}

// functions is the set of functions that were kept of an object. Each has a section of its own; main's is
// .text.startup.main.
func (l linked) functions(object string) map[string]bool {
	set := map[string]bool{}
	for _, c := range l {
		if c.object == object && strings.HasPrefix(c.section, ".text.") {
			name := strings.TrimPrefix(c.section, ".text.")
			set[name] = true
			set[strings.TrimPrefix(name, "startup.")] = true
		}
	}
	return set
}

// data is the number of bytes of static RAM of the objects of a kind.
func (l linked) data(kind func(string) bool) int {
	n := 0
	for _, c := range l {
		if !kind(c.object) {
			continue
		}
		if strings.HasPrefix(c.section, ".data") || strings.HasPrefix(c.section, ".bss") || c.section == "COMMON" {
			n += c.size
		}
	}
	return n
}

// readProbe parses "name value" lines.
func readProbe(path string) (map[string]int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]int{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		name, value, ok := strings.Cut(s.Text(), " ")
		n, err := strconv.Atoi(value)
		if !ok || err != nil || n <= 0 {
			return nil, fmt.Errorf("%s: %q is no answer of the probe", path, s.Text())
		}
		out[name] = n
	}
	if len(out) < 14 {
		return nil, fmt.Errorf("%s: %d answers of the probe, want 14: did the emulator run?", path, len(out))
	}
	return out, s.Err()
}
