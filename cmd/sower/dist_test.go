package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// What is installed holds no password, names every version, runs as nobody in particular, and starts a command that
// exists.
func TestDist(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile("../../dist/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	compose := read("compose.yaml")
	for _, m := range regexp.MustCompile(`[^$]\$\{([^}]*)\}`).FindAllStringSubmatch(compose, -1) {
		if !strings.Contains(m[1], ":?") {
			t.Errorf("compose.yaml: ${%s} has a default, or may be empty", m[1])
		}
	}
	if n := len(regexp.MustCompile(`\$\{\w+:\?`).FindAllString(compose, -1)); n < 3 {
		t.Errorf("compose.yaml: %d required variables", n)
	}
	images := regexp.MustCompile(`(?m)^\s*image: (\S+)$`).FindAllStringSubmatch(compose, -1)
	for _, m := range images {
		if _, tag, _ := strings.Cut(m[1][strings.LastIndexByte(m[1], '/'):], ":"); m[1] != "localhost/sower" && !regexp.MustCompile(`^\d+\.\d+`).MatchString(tag) {
			t.Errorf("compose.yaml: image %s has no version", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\s*- "([^"]*:\d+:\d+)"`).FindAllStringSubmatch(compose, -1) {
		if !strings.HasPrefix(m[1], "127.0.0.1:") {
			t.Errorf("compose.yaml publishes %s to everybody", m[1])
		}
	}
	if len(images) < 6 {
		t.Errorf("compose.yaml: %d images", len(images))
	}
	container := read("Containerfile")
	if !regexp.MustCompile(`(?m)^USER [1-9]\d*:[1-9]\d*$`).MatchString(container) || strings.Contains(container, "latest") {
		t.Error("Containerfile: it runs as root, or a version is missing")
	}
	commands := []string{"serve --config /data/sower.toml"}
	for _, m := range regexp.MustCompile(`(?m)^ExecStart=/usr/bin/sower (.*)$`).FindAllStringSubmatch(read("sower.service"), -1) {
		commands = append(commands, m[1])
	}
	for _, m := range regexp.MustCompile(`command: \["(simulate[^\]]*)"\]`).FindAllStringSubmatch(compose, -1) {
		commands = append(commands, strings.ReplaceAll(m[1], `", "`, " "))
	}
	if len(commands) != 3 {
		t.Errorf("commands %q, want one of each file", commands)
	}
	for _, line := range commands {
		cmd, args, err := newRootCommand().Find(strings.Fields(line))
		if err == nil {
			err = cmd.ParseFlags(args)
		}
		if err != nil || cmd.Parent() == nil {
			t.Errorf("sower %s: %v", line, err)
		}
	}
}
