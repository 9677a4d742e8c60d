package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

const part256 = `page = 2048
granule = 8
slot = 98304
download = 32768
journal = 4096
boot = 4096
scratch = 8192
arena = 9216
`

// budgetSpace is a workspace with a patch of 8 KiB RAM in u.sow, and layouts of a device.
func budgetSpace(t *testing.T) func(name string) string {
	t.Helper()
	f := workspace(t)
	for _, args := range [][]string{
		{"diff", f("old.bin"), f("new.bin"), "--ram", "8192", "-o", f("p.patch")},
		{"sign", f("new.bin"), "--patch", f("p.patch"), "--key", f("key.pem"), "-o", f("u.sow")},
		{"sign", f("new.bin"), "--key", f("key.pem"), "-o", f("full.sow")},
	} {
		if code, _, errs := sower(args...); code != 0 {
			t.Fatalf("sower %v: exit %d: %s", args, code, errs)
		}
	}
	for name, text := range map[string]string{
		"part256.toml": part256,
		"small.toml":   strings.NewReplacer("arena = 9216", "arena = 256", "slot = 98304", "slot = 4096").Replace(part256) + "stack = 1024\n",
		"worn.toml":    part256 + "erase_cycles = 100\nupdates = 50\n",
		"bad.toml":     strings.Replace(part256, "page = 2048", "page = 2000", 1),
		"typo.toml":    part256 + "aerna = 9216\n",
	} {
		if err := os.WriteFile(f(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestInspectBudget(t *testing.T) {
	f := budgetSpace(t)
	code, out, errs := sower("inspect", f("full.sow"), "--budget", f("part256.toml"))
	const fits = `8813 bytes in 184 fragments of 48, 56 of them lost

bytes                                       needed     there
RAM to receive (arena)                         224      9216  fits
flash to receive (download)                  10992     32768  fits
losses, 56 of 184 (rows in download)          4096     20480  fits
new image (slot)                              8653     98304  fits
stack below the caller                        1536      1536  fits

erases of a page                         an update   updates
slot_a                                           1     10000  fits
slot_b                                           3      3333  fits
download                                         1     10000  fits
scratch                                          2      5000  fits
journal                                          1     10000  fits
boot                                             3      3333  fits

fits
`
	if code != 0 || out != fits || errs != "" {
		t.Errorf("exit %d, %q\n%s\nwant\n%s", code, errs, out, fits)
	}
	for _, tt := range []struct {
		args []string
		says []string // in the error, each with the number to change
	}{
		{[]string{f("u.sow"), "--budget", f("small.toml")}, []string{
			"u.sow does not fit", "small.toml",
			"RAM to patch (arena) needs ", " and has 256, change arena = ", "diff with --ram 192",
			"new image (slot) needs 8653 bytes and has 4096, change slot = 10240",
			"base image (slot)", "stack below the caller needs 1536 bytes and has 1024, change stack = 1536",
		}},
		{[]string{f("full.sow"), "--budget", f("worn.toml")}, []string{"slot_b endures 33 updates and is to endure 50, change updates = 33, or flash that endures 150 erases"}},
		{[]string{"--budget", f("small.toml")}, []string{"stack = 1536"}},
	} {
		code, out, errs := sower(append([]string{"inspect"}, tt.args...)...)
		if code != 1 || out == "" {
			t.Errorf("%v: exit %d, %q", tt.args, code, out)
		}
		for _, s := range tt.says {
			if !strings.Contains(errs, s) {
				t.Errorf("%v: %q is not in %q", tt.args, s, errs)
			}
		}
		if len(tt.args) > 2 && (!strings.Contains(out, "DOES NOT FIT: change ") || !strings.HasSuffix(out, "\ndoes not fit\n")) {
			t.Errorf("%v: %s", tt.args, out)
		}
	}
}

func TestInspectBudgetJSON(t *testing.T) {
	f := budgetSpace(t)
	for _, tt := range []struct {
		layout string
		code   int
	}{{"part256.toml", 0}, {"small.toml", 1}} {
		code, out, errs := sower("inspect", f("u.sow"), "--key", f("key.pem.pub"), "--json", "--budget", f(tt.layout))
		var doc struct {
			Fits      bool
			Fragments int
			Items     []struct {
				Name   string
				Needed int `json:"needed_bytes"`
				There  int `json:"available_bytes"`
				Fits   bool
				Change string
			}
			Erases []struct {
				Region string
				Erases int `json:"erases_per_update"`
			}
		}
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatalf("%v: %s%s", err, out, errs)
		}
		if code != tt.code || doc.Fits != (code == 0) || doc.Fragments == 0 || len(doc.Items) != 8 || len(doc.Erases) != 6 {
			t.Errorf("%s: exit %d, %+v", tt.layout, code, doc)
		}
		for _, i := range doc.Items {
			if i.Fits != (i.Needed <= i.There) || i.Fits != (i.Change == "") {
				t.Errorf("%s: %+v", tt.layout, i)
			}
		}
	}
}

// Without a bundle the answer is what the device can take; the update of exactly that size fits.
func TestInspectBudgetLimits(t *testing.T) {
	f := budgetSpace(t)
	code, out, errs := sower("inspect", "--budget", f("part256.toml"))
	const limits = `bundle                        27216 bytes  567 fragments of 48, 171 of them lost
image                         98304 bytes  a slot
RAM of a patch                 9152 bytes  for diff --ram
flash scratch of a patch       8192 bytes  for diff --map flash
stack                          1536 bytes  1536 needed
`
	if code != 0 || out != limits || errs != "" {
		t.Errorf("exit %d, %q\n%s\nwant\n%s", code, errs, out, limits)
	}
	code, out, _ = sower("inspect", "--json", "--budget", f("part256.toml"))
	var doc map[string]any
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 0 || doc["block_bytes"] != 27216.0 || doc["fits"] != true {
		t.Errorf("exit %d, %v, %v", code, doc, err)
	}
}

func TestInspectBudgetErrors(t *testing.T) {
	f := budgetSpace(t)
	for _, tt := range []struct {
		args []string
		code int
		say  string
	}{
		{[]string{f("u.sow"), "--budget", f("bad.toml")}, 1, "page = 2000, want a power of two"},
		{[]string{"--budget", f("typo.toml")}, 1, `unknown key "aerna"`},
		{[]string{f("u.sow"), "--budget", f("none.toml")}, 1, "none.toml: no such file"},
		{[]string{f("p.patch"), "--budget", f("part256.toml")}, 1, "--budget takes a bundle, which `sower sign` makes"},
		{[]string{f("none.sow"), "--budget", f("part256.toml")}, 1, "none.sow: no such file"},
		{[]string{"--budget", f("part256.toml"), "--old-elf", "a", "--new-elf", "b"}, 2, "--budget goes with"},
		{[]string{f("u.sow"), "--budget", f("part256.toml"), "--old", f("old.bin")}, 2, "--budget goes with"},
		{[]string{"--budget", f("part256.toml"), "--key", f("key.pem.pub")}, 2, "--key verifies a file"},
	} {
		if code, out, errs := sower(append([]string{"inspect"}, tt.args...)...); code != tt.code || out != "" || !strings.Contains(errs, tt.say) {
			t.Errorf("inspect %v: exit %d, %q, %q; want %q", tt.args, code, out, errs, tt.say)
		}
	}
}
