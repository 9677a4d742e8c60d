package plan

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestLayoutIsTheLibrarys compiles the C headers and compares the planner's sizes with them.
func TestLayoutIsTheLibrarys(t *testing.T) {
	const stub = "../../firmware-stub"
	program := filepath.Join(t.TempDir(), "sizes")
	build := exec.Command("sh", "-c", fmt.Sprintf("cc -std=c99 -O1 -I%[1]s/include -I%[1]s/src -I%[1]s/boot testdata/sizes.c %[1]s/src/*.c %[1]s/boot/*.c -o %[2]s", stub, program))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	type query struct{ m, s, codec int }
	var queries []query
	var in strings.Builder
	for _, m := range []int{1, 7, 8, 100, 127, 128, 129, 300, 1000, 4000} {
		for _, s := range []int{1, 10, 51, 222, 232, 255} {
			for _, codec := range []int{0, 64, 512, 9000} {
				queries = append(queries, query{m, s, codec})
				fmt.Fprintln(&in, m, s, codec)
			}
		}
	}
	run := exec.Command(program)
	run.Stdin = strings.NewReader(in.String())
	out, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 1+len(queries) {
		t.Fatalf("%d lines for %d questions", len(lines), len(queries))
	}
	if got := fmt.Sprint(freezes, " ", spares, " ", workState, " ", patcher); got != lines[0] {
		t.Errorf("freezes, spares, work state and patcher are %s, the library says %s", got, lines[0])
	}
	for i, q := range queries {
		if got := fmt.Sprint(Layout{}.ArenaSize(q.m, q.s, q.codec)); got != lines[1+i] {
			t.Errorf("%+v: arena %s, the library says %s", q, got, lines[1+i])
		}
	}
	source, err := os.ReadFile(stub + "/src/sow_store.c")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`#define MARKER (\d+)u`).FindSubmatch(source); m == nil || string(m[1]) != fmt.Sprint(marker) {
		t.Errorf("marker is %d, the library has %s", marker, m)
	}
}
