// Command gen writes what follows from causes.tsv: the Go constants, the C enum and the documentation page.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

type entry struct {
	kind, name, meaning, remedy string
	code                        int
}

func main() {
	log.SetFlags(0)
	src := "causes.tsv"
	root := filepath.Join("..", "..")
	raw, err := os.ReadFile(src)
	if err != nil {
		log.Fatal(err)
	}
	entries, err := parse(string(raw))
	if err != nil {
		log.Fatalf("%s: %v", src, err)
	}
	goSrc, err := format.Source(goFile(entries))
	if err != nil {
		log.Fatal(err)
	}
	for path, text := range map[string][]byte{
		"causes_gen.go": goSrc,
		filepath.Join(root, "firmware-stub", "include", "sow_cause.h"): cFile(entries),
		filepath.Join(root, "docs", "causes.md"):                       docFile(entries),
	} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

func parse(text string) ([]entry, error) {
	var out []entry
	seen := map[string]bool{}
	for i, line := range strings.Split(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 5 {
			return nil, fmt.Errorf("line %d: %d columns, want 5", i+1, len(f))
		}
		code, err := strconv.Atoi(f[1])
		if err != nil || code < 0 || code > 127 {
			return nil, fmt.Errorf("line %d: code %q, want 0..127", i+1, f[1])
		}
		if f[0] != "step" && f[0] != "cause" {
			return nil, fmt.Errorf("line %d: kind %q, want step or cause", i+1, f[0])
		}
		for _, key := range []string{f[0] + f[1], f[0] + f[2]} {
			if seen[key] {
				return nil, fmt.Errorf("line %d: %s appears twice", i+1, key)
			}
			seen[key] = true
		}
		out = append(out, entry{kind: f[0], code: code, name: f[2], meaning: f[3], remedy: f[4]})
	}
	return out, nil
}

// goName turns BASE_MISMATCH into BaseMismatch.
func goName(s string) string {
	var b strings.Builder
	for _, w := range strings.Split(s, "_") {
		switch w {
		case "IO", "OK", "MIC", "RAM":
			b.WriteString(w)
		default:
			b.WriteString(w[:1] + strings.ToLower(w[1:]))
		}
	}
	return b.String()
}

func goFile(entries []entry) []byte {
	var b bytes.Buffer
	b.WriteString("// Code generated from causes.tsv by internal/gen; DO NOT EDIT.\n\npackage diag\n")
	for _, kind := range []string{"step", "cause"} {
		typ := strings.ToUpper(kind[:1]) + kind[1:]
		fmt.Fprintf(&b, "\n// The %ss of the registry.\nconst (\n", kind)
		for _, e := range entries {
			if e.kind == kind {
				fmt.Fprintf(&b, "%s%s %s = %d // %s\n", typ, goName(e.name), typ, e.code, e.meaning)
			}
		}
		fmt.Fprintf(&b, ")\n\nvar %ss = map[%s]info{\n", kind, typ)
		for _, e := range entries {
			if e.kind == kind {
				fmt.Fprintf(&b, "%s%s: {%q, %q, %q},\n", typ, goName(e.name), e.name, e.meaning, e.remedy)
			}
		}
		b.WriteString("}\n")
	}
	return b.Bytes()
}

func cFile(entries []entry) []byte {
	var b bytes.Buffer
	b.WriteString("/* Generated from applayer/diag/causes.tsv by `go generate ./applayer/diag`; do not edit.\n" +
		" * Step and cause codes that a device reports. Codes are never renumbered. */\n" +
		"#ifndef SOW_CAUSE_H\n#define SOW_CAUSE_H\n")
	for _, kind := range []string{"step", "cause"} {
		fmt.Fprintf(&b, "\nenum sow_%s {\n", kind)
		for _, e := range entries {
			if e.kind == kind && e.code < 64 {
				fmt.Fprintf(&b, "    SOW_%s_%s = %d, /* %s */\n", strings.ToUpper(kind), e.name, e.code, e.meaning)
			}
		}
		fmt.Fprintf(&b, "    SOW_%s_LAST_ = 63\n};\n", strings.ToUpper(kind))
	}
	b.WriteString("\n#endif\n")
	return b.Bytes()
}

func docFile(entries []entry) []byte {
	var b bytes.Buffer
	b.WriteString("# Steps and causes\n\nGenerated from `applayer/diag/causes.tsv`. A device reports a step and a cause (codes 1–63) in the\n" +
		"diagnostic package; codes from 64 on are found by the engine.\n")
	for _, kind := range []string{"step", "cause"} {
		fmt.Fprintf(&b, "\n## %ss\n\n| code | name | what happened | what to do |\n|--:|---|---|---|\n", strings.ToUpper(kind[:1])+kind[1:])
		for _, e := range entries {
			if e.kind == kind {
				fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", e.code, e.name, e.meaning, e.remedy)
			}
		}
	}
	return b.Bytes()
}
