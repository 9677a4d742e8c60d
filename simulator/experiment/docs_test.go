package experiment

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedScenarios: the scenarios of docs/simulate.md are valid, and its table has every field.
func TestDocumentedScenarios(t *testing.T) {
	text, err := os.ReadFile("../../docs/simulate.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 3 {
		t.Fatalf("%d scenarios found, want 3 or more", len(blocks))
	}
	for _, b := range blocks {
		p, err := Points([]byte(b[1]))
		if err != nil {
			t.Errorf("%v in\n%s", err, b[1])
			continue
		}
		if _, err := NewSimulator(p[0], nil); err != nil {
			t.Errorf("%v in\n%s", err, b[1])
		}
	}
	source, err := os.ReadFile("scenario.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("toml:\"([a-z_]+)\"").FindAllStringSubmatch(string(source), -1) {
		if !strings.Contains(string(text), m[1]) {
			t.Errorf("field %q is not documented", m[1])
		}
	}
}
