package sower_test

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sower-fuota/sower/"

// room is a row of the table in DESIGN.md §2.
type room struct {
	path    string
	imports []string // paths; each covers what is below it
	any     bool     // may import everything
}

// TestRoomsImportWhatTheTableSays holds the table of DESIGN.md against the imports of every package: none that the
// table does not allow, no entry that nobody uses, no package without a row.
func TestRoomsImportWhatTheTableSays(t *testing.T) {
	rooms := readRooms(t)
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(strings.ReplaceAll(line, module, ""))
		words = slices.DeleteFunc(words, func(w string) bool { return strings.Contains(w, ".") })
		if len(words) == 0 {
			continue
		}
		pkg, imports := words[0], words[1:]
		r, ok := roomOf(rooms, pkg)
		if !ok {
			t.Errorf("package %s is in no room of DESIGN.md", pkg)
			continue
		}
		for _, other := range imports {
			target, ours := roomOf(rooms, other)
			if !ours || target.path == r.path {
				continue
			}
			i := slices.IndexFunc(r.imports, func(allowed string) bool { return within(other, allowed) })
			if i < 0 && !r.any {
				t.Errorf("%s imports %s: DESIGN.md does not let %s", pkg, other, r.path)
			} else if i >= 0 {
				used[r.path+" "+r.imports[i]] = true
			}
		}
	}
	for _, r := range rooms {
		for _, allowed := range r.imports {
			if !used[r.path+" "+allowed] {
				t.Errorf("DESIGN.md lets %s import %s, which it does not", r.path, allowed)
			}
		}
	}
}

func within(pkg, room string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") }

// roomOf returns the room with the longest path that holds a package.
func roomOf(rooms []room, pkg string) (found room, ok bool) {
	for _, r := range rooms {
		if within(pkg, r.path) && len(r.path) >= len(found.path) {
			found, ok = r, true
		}
	}
	return found, ok
}

func readRooms(t *testing.T) (rooms []room) {
	t.Helper()
	text, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([^`]*)`")
	names := func(cell string) (all []string) {
		for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
			before, rest, braces := strings.Cut(m[1], "{")
			list, _, _ := strings.Cut(rest, "}")
			for _, name := range strings.Split(list, ",") {
				if !braces {
					name = ""
				}
				all = append(all, strings.TrimSuffix(before+name, "/"))
			}
		}
		return all
	}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(line, "| `") {
			continue
		}
		rooms = append(rooms, room{path: names(cells[1])[0], imports: names(cells[3]), any: strings.TrimSpace(cells[3]) == "everything"})
	}
	if len(rooms) < 20 {
		t.Fatalf("DESIGN.md has %d rooms", len(rooms))
	}
	return rooms
}
