package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var command = regexp.MustCompile(`(?m)^ {4}(?:[$#] )(?:.*&& sudo -u sower )?(sower [^\n#]*)`)

// Every command that the operator's manual shows exists, with the flags and the number of arguments that it shows.
func TestOperateCommands(t *testing.T) {
	text, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	found := command.FindAllStringSubmatch(string(text), -1)
	if len(found) < 20 {
		t.Fatalf("found %d commands only", len(found))
	}
	for _, m := range found {
		line, _, _ := strings.Cut(m[1], " > ")
		words := split(line)
		root := newRootCommand()
		root.InitDefaultCompletionCmd()
		cmd, args, err := root.Find(words[1:])
		if err != nil || cmd == root {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if err := cmd.ParseFlags(args); err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// split divides a line as a shell does, as far as the manual needs it.
func split(line string) []string {
	var out []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	return out
}
