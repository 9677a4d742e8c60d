package main

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// graph is a call graph with the stack of each function. Functions are known by gcc's title for them: the name,
// with "FILE:" before it if it is static, and with [ofStub] behind it in a graph of two programs.
type graph struct {
	stack    map[string]int      // bytes, of functions with a report
	file     map[string]string   // where they are defined
	calls    map[string][]string // what they may call
	pointers []indirect          // calls that resolve adds
	sources  map[string]string   // text, by name
}

// ofStub marks the functions of the boot stub in the graph of an application that calls them.
const ofStub = "@stub"

// name is the name of a function in the source. The file of a title is the one that was compiled, which is not the one
// that defines the function if that is a header.
func name(title string) string {
	return strings.TrimSuffix(title[strings.LastIndex(title, ":")+1:], ofStub)
}

// indirect is a call through a function pointer.
type indirect struct{ caller, field string }

var (
	nodeLine = regexp.MustCompile(`^node: \{ title: "([^"]+)" label: "([^"]*)"(.*)\}`)
	edgeLine = regexp.MustCompile(`^edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"(?: label: "([^"]+):(\d+):(\d+)")?`)
	stackOf  = regexp.MustCompile(`\\n(\d+) bytes \((static|dynamic|dynamic,bounded)\)`)
	fieldOf  = regexp.MustCompile(`(\w+)\(`)
	assigned = regexp.MustCompile(`(?:->|\.)(\w+)\s*=\s*(?:[^?;=]*\?\s*)?&?(\w+)\s*[;,})]`)
	offered  = regexp.MustCompile(`(?m)^\s+\.(\w+) = (sow_\w+),$`)
)

// readGraph reads the .ci files below dir and the sources they name below root. Functions that the linker dropped
// are left out, and so are calls through pointers until resolve is called.
func readGraph(dir, root string, kept linked) (*graph, error) {
	g := &graph{stack: map[string]int{}, file: map[string]string{}, calls: map[string][]string{}, sources: map[string]string{}}
	source := func(name string) (string, error) {
		if text, ok := g.sources[name]; ok {
			return text, nil
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		g.sources[name] = string(text)
		return string(text), err
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".ci" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		linked := kept.functions(strings.TrimSuffix(path, ".ci") + ".o")
		for line := range strings.Lines(string(text)) {
			if m := nodeLine.FindStringSubmatch(line); m != nil {
				s := stackOf.FindStringSubmatch(m[2])
				if s == nil {
					continue // called here, defined elsewhere
				}
				if s[2] == "dynamic" {
					return fmt.Errorf("%s: the stack of %s has no bound", path, m[1])
				}
				where := strings.Split(m[2], `\n`)[1]
				file, _, _ := strings.Cut(where, ":")
				if !linked[name(m[1])] {
					continue
				}
				g.file[m[1]] = file
				g.stack[m[1]], err = strconv.Atoi(s[1])
				if err != nil {
					return fmt.Errorf("%s: %q: %w", path, line, err)
				}
				if _, err := source(file); err != nil {
					return err
				}
			} else if m := edgeLine.FindStringSubmatch(line); m != nil {
				if !linked[name(m[1])] {
					continue // another object's function of that name may have been
				}
				if m[2] != "__indirect_call" {
					g.calls[m[1]] = append(g.calls[m[1]], m[2])
					continue
				}
				text, err := source(m[3])
				if err != nil {
					return err
				}
				field, err := calledField(text, m[4], m[5])
				if err != nil {
					return fmt.Errorf("%s:%s: %w", m[3], m[4], err)
				}
				g.pointers = append(g.pointers, indirect{m[1], field})
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(g.stack) == 0 {
		return nil, fmt.Errorf("%s: no stack reports", dir)
	}
	return g, nil
}

// overStub returns the graph of an application that runs over a boot stub: what the functions in the file of veneers
// call through the table of services leads to the stub's functions, and their calls through pointers back to the
// application's. table is the source of the table.
func overStub(app, stub *graph, veneers, table string) (*graph, error) {
	g := &graph{maps.Clone(app.stack), maps.Clone(app.file), map[string][]string{}, nil, maps.Clone(app.sources)}
	for title, callees := range app.calls {
		g.calls[title] = slices.Clone(callees)
	}
	for title, n := range stub.stack {
		g.stack[title+ofStub] = n
		g.file[title+ofStub] = stub.file[title]
	}
	for title, callees := range stub.calls {
		for _, callee := range callees {
			if _, ok := stub.stack[callee]; ok {
				callee += ofStub
			}
			g.calls[title+ofStub] = append(g.calls[title+ofStub], callee)
		}
	}
	for _, p := range stub.pointers {
		g.pointers = append(g.pointers, indirect{p.caller + ofStub, p.field})
	}
	maps.Copy(g.sources, stub.sources)
	services := map[string]string{}
	for _, m := range offered.FindAllStringSubmatch(table, -1) {
		services[m[1]] = m[2]
	}
	for _, p := range app.pointers {
		if app.file[p.caller] != veneers {
			g.pointers = append(g.pointers, p)
			continue
		}
		title := services[p.field] + ofStub
		if _, ok := g.stack[title]; !ok {
			return nil, fmt.Errorf("%s calls %s, which no function of the stub stands for in the table of services", p.caller, p.field)
		}
		g.calls[p.caller] = append(g.calls[p.caller], title)
	}
	return g, nil
}

// calledField returns the name of the struct field, or of the parameter named like one, that a call at that place
// goes through.
func calledField(text, line, column string) (string, error) {
	l, err := strconv.Atoi(line)
	if err != nil {
		return "", err
	}
	c, err := strconv.Atoi(column)
	if err != nil {
		return "", err
	}
	lines := strings.Split(text, "\n")
	if l < 1 || l > len(lines) || c < 1 || c > len(lines[l-1]) {
		return "", fmt.Errorf("no such place in the source; build again")
	}
	m := fieldOf.FindStringSubmatch(lines[l-1][c-1:])
	if m == nil {
		return "", fmt.Errorf("cannot tell which pointer %q calls through", strings.TrimSpace(lines[l-1]))
	}
	return m[1], nil
}

// resolve adds the edges of calls through pointers: to functions assigned to a field of that name, and to those
// that bear its name and are never called directly (an initialiser without designators). A shell that passes a call
// on does not call itself: functions in the caller's file are left out.
func (g *graph) resolve() {
	targets := map[string][]string{}
	direct := map[string]bool{}
	for _, callees := range g.calls {
		for _, callee := range callees {
			direct[callee] = true
		}
	}
	add := func(field, function, file string) {
		for title := range g.stack {
			if g.file[title] == file && name(title) == function {
				targets[field] = append(targets[field], title)
			}
		}
	}
	for file, text := range g.sources {
		for _, m := range assigned.FindAllStringSubmatch(text, -1) {
			add(m[1], m[2], file)
		}
	}
	for _, p := range g.pointers {
		for title := range g.file {
			if name(title) == p.field && !direct[title] {
				targets[p.field] = append(targets[p.field], title)
			}
		}
	}
	for _, p := range g.pointers {
		for _, t := range targets[p.field] {
			if g.file[t] != g.file[p.caller] {
				g.calls[p.caller] = append(g.calls[p.caller], t)
			}
		}
	}
}

// deepest returns the most stack that a call of one of the roots may take, and the way there.
func (g *graph) deepest(roots ...string) (int, string, error) {
	best, way := 0, []string(nil)
	for _, root := range roots {
		if _, ok := g.stack[root]; !ok {
			return 0, "", fmt.Errorf("no stack report of %s", root)
		}
		n, w, err := g.walk(root, nil, map[string]path{})
		if err != nil {
			return 0, "", err
		}
		if n > best {
			best, way = n, w
		}
	}
	for i, title := range way {
		way[i] = fmt.Sprintf("%s %d", title[strings.LastIndex(title, ":")+1:], g.bytes(title))
	}
	return best, strings.Join(way, " > "), nil
}

type path struct {
	bytes int
	way   []string
}

func (g *graph) bytes(title string) int {
	if n, ok := g.stack[title]; ok {
		return n
	}
	return external
}

func (g *graph) walk(title string, above []string, done map[string]path) (int, []string, error) {
	if p, ok := done[title]; ok {
		return p.bytes, p.way, nil
	}
	if i := slices.Index(above, title); i >= 0 {
		return 0, nil, fmt.Errorf("recursion: %s", strings.Join(append(above[i:], title), " > "))
	}
	var below path
	for _, callee := range g.calls[title] {
		n, way, err := g.walk(callee, append(slices.Clone(above), title), done)
		if err != nil {
			return 0, nil, err
		}
		if n > below.bytes {
			below = path{n, way}
		}
	}
	p := path{g.bytes(title) + below.bytes, append([]string{title}, below.way...)}
	done[title] = p
	return p.bytes, p.way, nil
}
