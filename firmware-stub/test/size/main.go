// Command size judges the size, memory and stack of the device library on a Cortex-M0+ against their budgets. It
// reads what gates.mk builds: link maps, call graphs with stack reports (gcc's .ci files) and the answers of a
// probe that ran in the emulator.
//
//	size DIR ROOT
//
// The application runs over the services of the boot stub: its library calls the stub's SHA-256, P-256, AES, flash and
// journal functions through a table, which the call graph follows. The same application is linked a second time with
// a library that has these functions itself, as it must be without our stub.
//
// Peak stack is the longest path through the call graph. A call through a function pointer may reach every
// function that the sources assign to the struct field of that name, and a recursion is an error. Functions of
// the compiler's own libraries carry no stack report; each counts as [external] bytes.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// external is what a function without a stack report (memcpy, division) is taken to use, in bytes; the largest in
// newlib-nano's and libgcc's code for this core pushes five registers.
const external = 24

// gate is one line of the table. A figure above target is a miss; a figure above limit fails. The two differ
// where the target is not reached: the limit then keeps what is reached from slipping.
type gate struct {
	name          string
	got           int
	target, limit int // bytes; 0: printed only
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: size DIR ROOT")
		os.Exit(2)
	}
	gates, notes, err := measure(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintf(os.Stderr, "size: %v\n", err)
		os.Exit(1)
	}
	table, ok := judge(gates)
	fmt.Print(table, notes)
	if !ok {
		os.Exit(1)
	}
}

// judge prints the table and reports whether every gate holds.
func judge(gates []gate) (table string, ok bool) {
	var b strings.Builder
	ok = true
	fmt.Fprintf(&b, "%-66s %8s %8s\n", "Cortex-M0+, gcc -Os, the objects of `make firmware`", "bytes", "target")
	for _, g := range gates {
		verdict := ""
		switch {
		case g.target == 0:
		case g.got > g.limit:
			verdict, ok = fmt.Sprintf("FAILED: above the gate of %d", g.limit), false
		case g.got > g.target:
			verdict = fmt.Sprintf("missed by %d; gate at %d", g.got-g.target, g.limit)
		default:
			verdict = "ok"
		}
		target := "-"
		if g.target != 0 {
			target = fmt.Sprint(g.target)
		}
		fmt.Fprintf(&b, "%-66s %8d %8s  %s\n", g.name, g.got, target, verdict)
	}
	return b.String(), ok
}

// measure reads the build in dir. root is where the sources' relative names begin.
func measure(dir, root string) ([]gate, string, error) {
	app, err := readMap(filepath.Join(dir, "app.map"))
	if err != nil {
		return nil, "", err
	}
	boot, err := readMap(filepath.Join(dir, "boot.map"))
	if err != nil {
		return nil, "", err
	}
	alone, err := readMap(filepath.Join(dir, "alone.map"))
	if err != nil {
		return nil, "", err
	}
	if n := boot.data(isLibrary); n != 0 {
		return nil, "", fmt.Errorf("boot.map: %d bytes of static data in the stub's library: its services may have none, the RAM is the application's", n)
	}
	probe, err := readProbe(filepath.Join(dir, "probe.txt"))
	if err != nil {
		return nil, "", err
	}
	appOnly, err := readGraph(filepath.Join(dir, "app"), root, app)
	if err != nil {
		return nil, "", err
	}
	aloneGraph, err := readGraph(filepath.Join(dir, "app"), root, alone)
	if err != nil {
		return nil, "", err
	}
	bootGraph, err := readGraph(filepath.Join(dir, "boot"), root, boot)
	if err != nil {
		return nil, "", err
	}
	table, err := os.ReadFile(filepath.Join(root, services, "sow_services_stub.c"))
	if err != nil {
		return nil, "", err
	}
	appGraph, err := overStub(appOnly, bootGraph, services+"/sow_services_app.c", string(table))
	if err != nil {
		return nil, "", err
	}
	for _, g := range []*graph{appGraph, aloneGraph, bootGraph} {
		g.resolve()
	}

	library, patch, runtime := app.code(isLibrary), app.code(isPatch), app.code(isRuntime)
	stub, stubBoard := boot.code(func(o string) bool { return isLibrary(o) || isRuntime(o) }), boot.code(isBoard)

	calls := []string{"sow_open", "sow_downlink", "sow_poll", "sow_uplink", "sow_joined", "sow_self_test"}
	stack, path, err := appGraph.deepest(calls...)
	if err != nil {
		return nil, "", err
	}
	aloneStack, _, err := aloneGraph.deepest(calls...)
	if err != nil {
		return nil, "", err
	}
	core, _, err := appGraph.deepest("sow_core_fragment", "sow_core_open")
	if err != nil {
		return nil, "", err
	}
	patching, _, err := appGraph.deepest("sow_patch_read", "sow_patch_init")
	if err != nil {
		return nil, "", err
	}
	bootStack, bootPath, err := bootGraph.deepest("startup_reset")
	if err != nil {
		return nil, "", err
	}
	mainStack, mainPath, err := appGraph.deepest("startup_reset")
	if err != nil {
		return nil, "", err
	}
	whole := func(arena string) int { return probe["struct_sow"] + probe[arena] + stack }
	decoder := func(arena string) int { return probe["struct_sow_core"] + probe[arena] }
	gates := []gate{
		{"library without patch decoder, crypto, flash, journal in our stub", library, limits.library.target, limits.library.limit},
		{"  and of the compiler's libraries, linked with it", runtime, 0, 0},
		{"  patch decoder", patch, 0, 0},
		{"own boot stub with these services, without board and flash driver", stub, limits.stub.target, limits.stub.limit},
		{"  of that for the services alone: their table, AES", boot.code(isForServices), 0, 0},
		{"  board, flash driver and console of the example", stubBoard, 0, 0},
		{"  this library and this boot stub together", library + stub, limits.both.target, limits.both.limit},
		{"library without patch decoder, stand-alone: all of that its own", alone.code(isLibrary), limits.alone.target, limits.alone.limit},
		{"  and of the compiler's libraries, linked with it", alone.code(isRuntime), 0, 0},
		{"own boot stub: static data + peak stack", boot.data(all) + bootStack, limits.stubRAM.target, limits.stubRAM.limit},
		{"  static data", boot.data(all), 0, 0},
		{"decoder RAM, M=300 S=48: context + arena", decoder("arena_300_48"), 0, 0},
		{"decoder RAM, M=1000 S=48", decoder("arena_1000_48"), 0, 0},
		{"decoder RAM, M=1000 S=232", decoder("arena_1000_232"), limits.ram1000.target, limits.ram1000.limit},
		{"decoder RAM, M=4000 S=232", decoder("arena_4000_232"), limits.ram4000.target, limits.ram4000.limit},
		{"  struct sow_core", probe["struct_sow_core"], 0, 0},
		{"  struct sow, with its core", probe["struct_sow"], 0, 0},
		{"peak stack of the library, flash driver and port included", stack, limits.stack.target, limits.stack.limit},
		{"  of the stand-alone library", aloneStack, limits.stack.target, limits.stack.limit},
		{"  of receiving fragments", core, 0, 0},
		{"  of the patch decoder", patching, 0, 0},
		{"  of the example application, from its reset on", mainStack, 0, 0},
		{"whole update, patch of 5 KiB: context + arena + peak stack", whole("arena_patch_5"), limits.patch5.target, limits.patch5.limit},
		{"whole update, patch of 8 KiB", whole("arena_patch_8"), limits.patch8.target, limits.patch8.limit},
		{"whole update, patch of 16 KiB", whole("arena_patch_16"), limits.patch16.target, limits.patch16.limit},
	}
	notes := fmt.Sprintf("library by file: %s\nstub by file: %s\nlibrary stand-alone by file: %s\ndeepest, library: %s\ndeepest, example application: %s\ndeepest, boot stub: %s\n",
		app.byFile(isLibrary), boot.byFile(isLibrary), alone.byFile(isLibrary), path, mainPath, bootPath)
	return gates, notes, nil
}

const services = "firmware-stub/services"

// Kinds of object, by the path of the source.

func all(string) bool { return true }

func isPatch(o string) bool {
	return strings.Contains(o, "/src/sow_patch")
}

func isLibrary(o string) bool {
	return (strings.Contains(o, "/firmware-stub/src/") || strings.Contains(o, "/firmware-stub/boot/") ||
		strings.Contains(o, "/"+services+"/")) && !isPatch(o)
}

// isForServices is true of what a boot stub without services does not link.
func isForServices(o string) bool {
	return strings.Contains(o, "/"+services+"/") || strings.HasSuffix(o, "/sow_aes.o")
}

func isRuntime(o string) bool {
	return strings.Contains(o, "libgcc.a") || strings.Contains(o, "libc_nano.a") || strings.Contains(o, "libc.a")
}

func isBoard(o string) bool {
	return strings.Contains(o, "/firmware-stub/ports/") || strings.Contains(o, "/firmware-stub/examples/")
}
