package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSimulateTutorial runs the commands of docs/simulate.md in their order, on the files that it shows, and compares
// what they print. A line "..." of the document stands for any lines, "..." at the end of a line for any rest.
func TestSimulateTutorial(t *testing.T) {
	text, err := os.ReadFile("../../docs/simulate.md")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	files, commands := 0, 0
	for _, block := range regexp.MustCompile("(?s)```(\\w+) ?([^\n]*)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		kind, name, body := block[1], block[2], block[3]
		switch kind {
		case "toml", "json":
			if err := os.WriteFile(name, []byte(body), 0o644); err != nil {
				t.Fatal(err)
			}
			files++
		case "console":
			for _, c := range strings.Split("\n"+body, "\n$ ")[1:] {
				command, want, _ := strings.Cut(c, "\n")
				args := strings.Fields(command)
				if len(args) < 3 || args[0] != "sower" || args[1] != "simulate" {
					t.Fatalf("a command that is not ours: %s", command)
				}
				code, out, errs := simulate(args[2:]...)
				if code != 0 {
					t.Fatalf("%s: exit %d: %s", command, code, errs)
				}
				pattern := regexp.QuoteMeta(strings.TrimRight(want, "\n"))
				pattern = strings.ReplaceAll(pattern, `\.\.\.`, "(?s:.*)")
				if !regexp.MustCompile("^" + pattern + "$").MatchString(strings.TrimRight(out, "\n")) {
					t.Errorf("%s prints\n%s\nthe document says\n%s", command, out, want)
				}
				commands++
			}
		}
	}
	if files < 5 || commands < 12 {
		t.Errorf("%d files and %d commands found", files, commands)
	}
}
