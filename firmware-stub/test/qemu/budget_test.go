package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// gates builds the firmware once more, object by object; see test/size.
const gates = "firmware-stub/test/size/gates.mk"

// makeIn runs make in the root of the repository.
func makeIn(args ...string) (string, error) {
	build := exec.Command("make", append([]string{"-s", "--no-print-directory"}, args...)...)
	build.Dir = "../../.."
	out, err := build.CombinedOutput()
	return string(out), err
}

// table returns the figures of the table of test/size, by how the name of their line begins.
func table(t *testing.T) func(line string) int {
	t.Helper()
	out, err := makeIn("-f", gates)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return func(line string) int {
		t.Helper()
		m := regexp.MustCompile(`(?m)^ *` + line + `.*? +(\d+) +(?:\d+|-)  `).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no line %q in\n%s", line, out)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}

// TestSizesOnPage holds docs/integrate.md to the sizes that it gives.
func TestSizesOnPage(t *testing.T) {
	figure := table(t)
	page, err := os.ReadFile("../../../docs/integrate.md")
	if err != nil {
		t.Fatal(err)
	}
	row := func(name string, stub, library int) {
		kib := func(n int) string { return fmt.Sprintf("%.1f KiB", float64(n)/1024) }
		line := fmt.Sprintf("| %s | %s | %s | %s |", name, kib(stub), kib(library), kib(stub+library))
		if !strings.Contains(string(page), line) {
			t.Errorf("the page does not say\n%s", line)
		}
	}
	stub := figure("own boot stub with these services")
	row("each with its own", stub-figure("of that for the services alone"), figure("library without patch decoder, stand-alone"))
	row("application over the services of the stub", stub, figure("library without patch decoder, crypto, flash, journal in our stub"))
}

// TestRAMBudget updates an application whose linker script leaves the library its RAM budget and no more, for each
// RAM class of patches. Its stack lies at the bottom of RAM, so that running over it is a fault.
func TestRAMBudget(t *testing.T) {
	figure := table(t)
	graph, library := figure("of the example application, from its reset on"), figure("peak stack of the library")
	for _, kib := range []int{5, 8, 16} {
		dir := t.TempDir()
		old := filepath.Join(dir, fmt.Sprintf("app-%d.bin", kib))
		if out, err := makeIn("-f", gates, "APP_OUT="+dir, old); err != nil {
			t.Fatalf("%d KiB: %v: %s", kib, err, out)
		}
		b := run(t, newUpdateOf(t, old, uint32(kib)<<10), 1, 0, 0)
		most, used, size := 0, 0, 0
		for _, line := range b.log {
			if _, err := fmt.Sscanf(line, "beacon: stack %d of %d bytes", &used, &size); err == nil {
				most = max(most, used)
			}
		}
		t.Logf("patch of %2d KiB: painted stack %d of %d bytes; by call graph %d, %d of them the library's", kib, most, size, graph, library)
		// The call graph may have a deeper way that no update takes, but it may not miss one.
		if most > graph || most < graph*3/4 || graph > size {
			t.Errorf("%d KiB: painted stack %d, by call graph %d, room for %d", kib, most, graph, size)
		}
	}
}

// TestRAMBudgetIsEnforced takes away more of the budget than is left over.
func TestRAMBudgetIsEnforced(t *testing.T) {
	dir := t.TempDir()
	out, err := makeIn("-f", gates, "APP_OUT="+dir, "FW_RAM_8=9600", filepath.Join(dir, "app-8.bin"))
	if err == nil || !strings.Contains(out, "exceed its RAM") {
		t.Errorf("the linker lets the library exceed its RAM: %v: %s", err, out)
	}
}
