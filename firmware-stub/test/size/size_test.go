package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// write makes files below a fresh folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A shell whose read passes on to a board's read, by a struct of callbacks, beneath a library function.
const (
	libC   = "int top(struct port *p)\n{\n    return p->read(1) + leaf();\n}\n"
	shellC = "static int inner_read(int n)\n{\n    return m->inner->read(n);\n}\nvoid init(void)\n{\n    port.read = inner_read;\n}\n"
	boardC = "static int flash_read(int n) { return n; }\nvoid board(void) { port->read = flash_read; }\nint lost(void) { return 0; }\n"

	libCI = `graph: { title: "lib.c"
node: { title: "top" label: "top\nlib.c:1:5\n40 bytes (static)" }
node: { title: "leaf" label: "leaf\nlib.c:9:5\n8 bytes (static)" }
node: { title: "__indirect_call" label: "Indirect Call Placeholder" shape : ellipse }
edge: { sourcename: "top" targetname: "__indirect_call" label: "lib.c:3:12" }
edge: { sourcename: "top" targetname: "leaf" label: "lib.c:3:25" }
edge: { sourcename: "leaf" targetname: "memcpy" label: "lib.c:3:25" }
}`
	shellCI = `node: { title: "shell.c:inner_read" label: "inner_read\nshell.c:1:12\n16 bytes (static)" }
edge: { sourcename: "shell.c:inner_read" targetname: "__indirect_call" label: "shell.c:3:12" }
`
	boardCI = `node: { title: "board.c:flash_read" label: "flash_read\nboard.c:1:12\n100 bytes (static)" }
node: { title: "lost" label: "lost\nboard.c:3:5\n9999 bytes (static)" }
`
)

func testGraph(t *testing.T, extra map[string]string) (*graph, error) {
	t.Helper()
	files := map[string]string{
		"lib.c": libC, "shell.c": shellC, "board.c": boardC,
		"app/lib.ci": libCI, "app/shell.ci": shellCI, "app/board.ci": boardCI,
	}
	for name, text := range extra {
		files[name] = text
	}
	dir := write(t, files)
	object := func(name string) string { return filepath.Join(dir, "app", name) }
	kept := linked{
		{".text.top", object("lib.o"), 20}, {".text.leaf", object("lib.o"), 20},
		{".text.inner_read", object("shell.o"), 20}, {".text.flash_read", object("board.o"), 20},
	}
	g, err := readGraph(filepath.Join(dir, "app"), dir, kept)
	if err == nil {
		g.resolve()
	}
	return g, err
}

func TestDeepest(t *testing.T) {
	g, err := testGraph(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	n, way, err := g.deepest("leaf", "top")
	if err != nil || n != 40+16+100 || way != "top 40 > inner_read 16 > flash_read 100" {
		t.Errorf("%d by %q, %v", n, way, err)
	}
	if n, _, err := g.deepest("leaf"); err != nil || n != 8+external {
		t.Errorf("leaf takes %d, %v, want its own 8 and %d of memcpy", n, err, external)
	}
	if _, _, err := g.deepest("lost"); err == nil {
		t.Error("a function that was not linked has a stack")
	}
}

func TestGraphErrors(t *testing.T) {
	g, err := testGraph(t, map[string]string{"app/lib.ci": libCI + "\n" + `edge: { sourcename: "leaf" targetname: "top" label: "lib.c:3:1" }`})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.deepest("top"); err == nil || !strings.Contains(err.Error(), "recursion: top > leaf > top") {
		t.Errorf("recursion: %v", err)
	}
	for name, extra := range map[string]map[string]string{
		"no bound":    {"app/lib.ci": strings.Replace(libCI, "8 bytes (static)", "8 bytes (dynamic)", 1)},
		"cannot tell": {"lib.c": "\n\nreturn table[3];      \n"},
		"no such":     {"lib.c": "\n"},
	} {
		if _, err := testGraph(t, extra); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}

// An application whose hash is a call of the stub's, which calls a port of the application back. The object of its own
// hash was compiled, too, and not linked; the work of the stub's is in a header.
const (
	veneersC = "void hash(int n)\n{\n    services.hash_it(n);\n}\n"
	veneerCI = `node: { title: "hash" label: "hash\nveneers.c:1:6\n8 bytes (static)" }
edge: { sourcename: "hash" targetname: "__indirect_call" label: "veneers.c:3:5" }
node: { title: "user" label: "user\nveneers.c:9:6\n16 bytes (static)" }
edge: { sourcename: "user" targetname: "hash" label: "veneers.c:9:9" }
`
	hashC  = "void hash(int n)\n{\n    work(n);\n}\n"
	hashCI = `node: { title: "hash" label: "hash\nhash.c:1:6\n200 bytes (static)" }
edge: { sourcename: "hash" targetname: "hash.c:work" label: "hash.c:3:5" }
node: { title: "hash.c:work" label: "work\nwork.h:1:13\n50 bytes (static)" }
edge: { sourcename: "hash.c:work" targetname: "__indirect_call" label: "work.h:3:5" }
`
	workH = "static void work(int n)\n{\n    p->read(n);\n}\n"
	table = "struct services table = {\n    .magic = 1,\n    .hash_it = sow_hash,\n};\n"
)

func TestOverStub(t *testing.T) {
	// In the table the functions are the library's: sow_.
	sow := func(text string) string { return strings.ReplaceAll(text, `"hash`, `"sow_hash`) }
	dir := write(t, map[string]string{
		"veneers.c": veneersC, "hash.c": hashC, "board.c": boardC, "work.h": workH,
		"app/veneers.ci": veneerCI, "app/hash.ci": hashCI, "app/board.ci": boardCI,
		"boot/hash.ci": strings.ReplaceAll(sow(hashCI), `sow_hash.c:work`, `hash.c:work`),
	})
	app, err := readGraph(filepath.Join(dir, "app"), dir, linked{
		{".text.hash", filepath.Join(dir, "app/veneers.o"), 16}, {".text.user", filepath.Join(dir, "app/veneers.o"), 16},
		{".text.flash_read", filepath.Join(dir, "app/board.o"), 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	stub, err := readGraph(filepath.Join(dir, "boot"), dir, linked{
		{".text.sow_hash", filepath.Join(dir, "boot/hash.o"), 20}, {".text.work", filepath.Join(dir, "boot/hash.o"), 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	g, err := overStub(app, stub, "veneers.c", table)
	if err != nil {
		t.Fatal(err)
	}
	g.resolve()
	n, way, err := g.deepest("user")
	if err != nil || n != 16+8+200+50+100 || way != "user 16 > hash 8 > sow_hash@stub 200 > work@stub 50 > flash_read 100" {
		t.Errorf("%d by %q, %v", n, way, err)
	}
	if _, err := overStub(app, stub, "veneers.c", strings.Replace(table, "hash_it", "hash_of", 1)); err == nil || !strings.Contains(err.Error(), "hash calls hash_it, which no function of the stub") {
		t.Errorf("a service that the table does not have: %v", err)
	}
}

const mapText = `Discarded input sections

 .text.dropped
                0x00000000       0x40 build/size/app/firmware-stub/src/sow_core.o

Linker script and memory map

.text           0x00000000     0x1000
 *(.vectors)
 .text.sow_core_open
                0x00000100       0x80 build/size/app/firmware-stub/src/sow_core.o
 .text.a        0x00000180       0x10 build/size/app/firmware-stub/src/sow_core.o
 .rodata.t      0x00000190       0x04 build/size/app/firmware-stub/src/sow_core.o
 .rodata.str1.1
                0x00000194        0x7 build/size/app/firmware-stub/ports/mps2/mps2.o
                                  0x9 (size before relaxing)
 .text          0x000001a0       0x20 /usr/lib/libgcc.a(_udivsi3.o)
 *fill*         0x000001c0        0x4
 .bss.s         0x20000000       0x30 build/size/app/firmware-stub/ports/mps2/boot_main.o
 .debug_info    0x00000000     0x9999 build/size/app/firmware-stub/src/sow_core.o
`

func TestReadMap(t *testing.T) {
	dir := write(t, map[string]string{"m": mapText, "bad": "no map"})
	l, err := readMap(filepath.Join(dir, "m"))
	if err != nil {
		t.Fatal(err)
	}
	if lib, run, board, data := l.code(isLibrary), l.code(isRuntime), l.code(isBoard), l.data(all); lib != 0x94 || run != 0x20 || board != 7 || data != 0x30 {
		t.Errorf("library %#x, runtime %#x, board %#x, data %#x", lib, run, board, data)
	}
	if _, err := readMap(filepath.Join(dir, "bad")); err == nil {
		t.Error("a file that is no map was read")
	}
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		g    gate
		ok   bool
		text string
	}{
		{gate{"a", 10, 10, 10}, true, "ok"},
		{gate{"a", 11, 10, 12}, true, "missed by 1; gate at 12"},
		{gate{"a", 13, 10, 12}, false, "FAILED: above the gate of 12"},
		{gate{"a", 999, 0, 0}, true, "-"},
	} {
		if table, ok := judge([]gate{tt.g}); ok != tt.ok || !strings.Contains(table, tt.text) {
			t.Errorf("%+v: %v\n%s", tt.g, ok, table)
		}
	}
}
