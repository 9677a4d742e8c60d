package sower_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages returns the documents by path: the page at the root and those under docs.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	files := []string{"README.md", "DESIGN.md"}
	err := filepath.WalkDir("docs", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all[path] = string(text)
	}
	return all
}

var (
	fence = regexp.MustCompile("(?ms)^```.*?^```$")
	span  = regexp.MustCompile("`([^`\n]+)`")
)

// code returns what a page shows as code: its spans, and the lines of its blocks.
func code(page string) []string {
	var out []string
	for _, block := range fence.FindAllString(page, -1) {
		out = append(out, strings.Split(block, "\n")...)
	}
	for _, m := range span.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		out = append(out, m[1])
	}
	return out
}

// TestLinks: every link of a document to a file or a heading leads somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	all := pages(t)
	anchors := func(page string) (out []string) {
		for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$|<a (?:name|id)="([^"]*)"`).FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
			name := regexp.MustCompile("[^a-z0-9 _-]").ReplaceAllString(strings.ToLower(m[1]), "")
			out = append(out, strings.ReplaceAll(name, " ", "-"), m[2])
		}
		return out
	}
	found := 0
	for path, text := range all {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			found++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			} else if anchor != "" && !slices.Contains(anchors(all[target]), anchor) {
				t.Errorf("%s links to %s, but there is no such heading", path, m[1])
			}
		}
	}
	if found < 15 {
		t.Errorf("found %d links only", found)
	}
}

// TestCommands: every command that a document shows exists with the flags it shows, and so does every target of make.
func TestCommands(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "sower")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "./cmd/sower").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	helps := map[string]string{}
	help := func(path []string) string {
		key := strings.Join(path, " ")
		if _, ok := helps[key]; !ok {
			out, err := exec.CommandContext(t.Context(), bin, append(slices.Clone(path), "--help")...).CombinedOutput()
			if err != nil {
				t.Fatalf("sower %s --help: %v", key, err)
			}
			helps[key] = string(out)
		}
		return helps[key]
	}
	makefiles := ""
	for _, name := range []string{"Makefile", "firmware-stub/firmware.mk"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		makefiles += "\n" + string(text)
	}
	line := regexp.MustCompile(`^\s*(?:[$#] )?(?:.*sudo -u sower )?(?:bin/)?(sower|make) ([^#|&;>]*)`)
	flag := regexp.MustCompile(`^--[a-z][a-z-]*`)
	sub := regexp.MustCompile(`^[a-z]+$`)
	found := 0
	for path, text := range pages(t) {
		for _, c := range code(text) {
			m := line.FindStringSubmatch(c)
			if m == nil || strings.HasPrefix(c, "sower key id ") { // the line of a key file
				continue
			}
			found++
			words := strings.Fields(m[2])
			if m[1] == "make" {
				if dir, ok := strings.CutPrefix(m[2], "-C "); ok {
					if _, err := os.Stat(filepath.Join(strings.Fields(dir)[0], "Makefile")); err != nil {
						t.Errorf("%s: %s: %v", path, c, err)
					}
				} else if len(words) > 0 && sub.MatchString(words[0]) && !strings.Contains(makefiles, "\n"+words[0]+":") {
					t.Errorf("%s: %s: no such target", path, c)
				}
				continue
			}
			var command []string
			for _, w := range words {
				if !sub.MatchString(w) || !regexp.MustCompile(`(?m)^  `+w+`\s`).MatchString(help(command)) {
					break
				}
				command = append(command, w)
			}
			if len(words) > 0 && sub.MatchString(words[0]) && len(command) == 0 {
				t.Errorf("%s: %s: no such command", path, c)
			}
			for _, w := range words {
				if name := flag.FindString(w); name != "" && name != "--help" &&
					!regexp.MustCompile(fmt.Sprintf(`(?m)%s(?:[ ,=]|$)`, name)).MatchString(help(command)) {
					t.Errorf("%s: %s: sower %s has no flag %s", path, c, strings.Join(command, " "), name)
				}
			}
		}
	}
	if found < 60 {
		t.Errorf("found %d commands only", found)
	}
}

// TestPromises: the tests that docs/security.md names for its promises exist where it says.
func TestPromises(t *testing.T) {
	text := pages(t)["docs/security.md"]
	room, source, found := "", "", 0
	for _, m := range regexp.MustCompile("`([a-z-]+(?:/[a-z-]+)*)`|\\b((?:Test|Fuzz)[A-Z]\\w*)").FindAllStringSubmatch(text, -1) {
		if m[2] != "" {
			if found++; !strings.Contains(source, "\nfunc "+m[2]+"(") {
				t.Errorf("docs/security.md: %s has no %s", room, m[2])
			}
			continue
		}
		files, err := filepath.Glob(filepath.Join(m[1], "*_test.go"))
		if err != nil || len(files) == 0 {
			continue
		}
		room, source = m[1], ""
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source += string(b)
		}
	}
	if found < 50 {
		t.Errorf("docs/security.md: found %d tests only", found)
	}
	for _, n := range regexp.MustCompile(`\b\w+_test\.c\b`).FindAllString(text, -1) {
		if _, err := os.Stat(filepath.Join("firmware-stub/test/core", n)); err != nil {
			t.Errorf("docs/security.md: %v", err)
		}
	}
}

// TestRun: the program prints what the README says `make run` does, line by line; figures depend on the compiler of
// the firmware and are not compared.
func TestRun(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "run", "./cmd/sower", "rehearse", "--out", filepath.Join(t.TempDir(), "summary.json")).Output()
	if err != nil {
		t.Fatalf("%v (make firmware builds what is rehearsed)\n%s", err, out)
	}
	_, rest, _ := strings.Cut(pages(t)["README.md"], "## What `make run` prints")
	figure := regexp.MustCompile(`[0-9]+(?:m?[0-9.]*s|\.[0-9]+)?`)
	lines := func(text string) (out []string) {
		for line := range strings.Lines(text) {
			line = strings.Join(strings.Fields(figure.ReplaceAllString(line, "0")), " ")
			if line != "" && !strings.Contains(line, "stack 0") && !strings.HasSuffix(line, "written") {
				out = append(out, line)
			}
		}
		return out
	}
	want := lines(strings.Trim(fence.FindString(rest), "`"))
	if got := lines(string(out)); !slices.Equal(got, want) {
		t.Errorf("make run prints\n%s\nthe README says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
