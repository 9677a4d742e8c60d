package networkserver_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestEveryTrapHasItsTest reads the table of the package documentation: the tests that it names exist.
func TestEveryTrapHasItsTest(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var tests []byte
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests = append(tests, b...)
	}
	named := regexp.MustCompile(`Test[A-Z]\w+`).FindAll(doc, -1)
	if len(named) < 35 {
		t.Errorf("the table names %d tests", len(named))
	}
	for _, name := range named {
		if !regexp.MustCompile(`(?m)^func ` + string(name) + `\(t \*testing\.T\)`).Match(tests) {
			t.Errorf("%s is named in the table and does not exist", name)
		}
	}
}
