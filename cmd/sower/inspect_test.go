package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// inspectJSON runs `sower inspect --json`.
func inspectJSON(t *testing.T, args ...string) map[string]any {
	t.Helper()
	code, out, errs := sower(append([]string{"inspect", "--json"}, args...)...)
	if code != 0 {
		t.Fatalf("inspect %v: exit %d: %s", args, code, errs)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestInspect(t *testing.T) {
	f := workspace(t)
	const raw = "\x00\x04\x00\x20\x09\x00\x00\x08" // stack pointer, reset vector
	if err := os.WriteFile(f("raw.bin"), []byte(raw+strings.Repeat("code", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f("gap.hex"), []byte(":020000040800F2\n:0100000001FE\n:0100040009F2\n:00000001FF\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"diff", f("old.bin"), f("new.bin"), "-o", f("p.patch")},
		{"sign", f("new.bin"), "--patch", f("p.patch"), "--key", f("key.pem"), "--expires", "2027-01-31T12:00:00+02:00", "-o", f("u.sow")},
		{"sign", f("new.bin"), "--codec", "zstd", "--key", f("key.pem"), "-o", f("z.sow")},
		{"fragment", f("u.sow"), "--size", "48", "--parity", "4", "-o", f("u.frags")},
		{"keygen", "--key-id", "3", "--passphrase-file", f("old.bin"), "-o", f("k3.pem")},
	} {
		if code, _, errs := sower(args...); code != 0 {
			t.Fatalf("sower %v: exit %d: %s", args, code, errs)
		}
	}
	lines := strings.SplitAfter(string(contents(t, f("u.frags"))), "\n")
	if err := os.WriteFile(f("part.frags"), []byte(lines[0]+lines[2]), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f("bad.frags"), []byte(lines[0]+"{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want map[string]any
	}{
		{[]string{f("new.bin")}, map[string]any{"kind": "MCUboot image", "version": "1.1.0", "signature": "none", "image_bytes": float64(len(contents(t, f("new.bin"))))}},
		{[]string{f("p.patch")}, map[string]any{"kind": "patch file", "new_bytes": float64(len(contents(t, f("new.bin"))))}},
		{[]string{f("u.sow"), "--key", f("key.pem.pub")}, map[string]any{"kind": "bundle", "signature": "good", "codec": "patch",
			"key_id": 1.0, "expiry_utc": "2027-01-31T10:00:00Z", "manifest_bytes": 160.0, "bundle_bytes": float64(len(contents(t, f("u.sow"))))}},
		{[]string{f("z.sow"), "--key", f("key.pem.pub")}, map[string]any{"kind": "bundle", "codec": "zstd", "expiry_utc": "", "base_bytes": 0.0}},
		{[]string{f("u.frags"), "--key", f("key.pem.pub")}, map[string]any{"kind": "fragments", "size": 48.0, "missing": 0.0}},
		{[]string{f("part.frags")}, map[string]any{"kind": "fragments", "received": 1.0}},
		{[]string{f("key.pem")}, map[string]any{"kind": "private key, not encrypted", "key_id": 1.0}},
		{[]string{f("key.pem.pub")}, map[string]any{"kind": "public key", "key_id": 1.0}},
		{[]string{f("k3.pem")}, map[string]any{"kind": "private key, encrypted with a passphrase", "key_id": 3.0}},
		{[]string{f("raw.bin")}, map[string]any{"kind": "raw binary", "image_bytes": 408.0}},
		{[]string{f("gap.hex")}, map[string]any{"kind": "Intel HEX", "image_bytes": 5.0, "base_address": "0x08000000"}},
	} {
		doc := inspectJSON(t, tt.args...)
		for k, want := range tt.want {
			if doc[k] != want {
				t.Errorf("%v: %s = %v, want %v", tt.args[0], k, doc[k], want)
			}
		}
	}
	inner, _ := inspectJSON(t, f("u.frags"), "--key", f("key.pem.pub"))["block"].(map[string]any)
	if inner["kind"] != "bundle" || inner["signature"] != "good" {
		t.Errorf("the block in the fragments: %v", inner)
	}
	for _, tt := range []struct {
		args []string
		say  string
	}{
		{[]string{f("bad.frags")}, "line 2"},
		{[]string{f("part.frags"), "--key", f("key.pem.pub")}, "incomplete"},
		{[]string{f("u.sow"), "--key", f("k3.pem")}, "it is the private key, encrypted"},
	} {
		if code, out, errs := sower(append([]string{"inspect"}, tt.args...)...); code != 1 || out != "" || !strings.Contains(errs, tt.say) {
			t.Errorf("inspect %v: exit %d, %q, %q; want %q", tt.args, code, out, errs, tt.say)
		}
	}
}

// Fragments and airtime are those of the data rate: payload limits of RP002-1.0.3 for EU868 (N without repeater: 51
// bytes at DR0, 115 at DR3, 242 at DR5), of which TS004 takes 3, and the time on air of the Semtech calculator.
func TestInspectCosts(t *testing.T) {
	f := workspace(t)
	if code, _, errs := sower("sign", f("new.bin"), "--key", f("key.pem"), "-o", f("u.sow")); code != 0 {
		t.Fatal(errs)
	}
	size := len(contents(t, f("u.sow")))
	rows, _ := inspectJSON(t, f("u.sow"))["transport"].([]any)
	if len(rows) != 8 {
		t.Fatalf("%d data rates, want DR0 to DR7", len(rows))
	}
	for _, tt := range []struct {
		dr, fragment int
		one          float64 // seconds of a downlink of 13 + 3 + fragment bytes
	}{
		{0, 48, 2.793472}, {3, 112, 0.676864}, {5, 239, 0.394496},
	} {
		row := rows[tt.dr].(map[string]any)
		m := (size + tt.fragment - 1) / tt.fragment
		want := map[string]any{"dr": float64(tt.dr), "fragment_bytes": float64(tt.fragment), "fragments": float64(m)}
		for k, v := range want {
			if row[k] != v {
				t.Errorf("DR%d: %s = %v, want %v", tt.dr, k, row[k], v)
			}
		}
		if got := row["airtime_s"].(float64) / float64(m); fmt.Sprintf("%.6f", got) != fmt.Sprintf("%.6f", tt.one) {
			t.Errorf("DR%d: %.6f s a fragment, want %.6f", tt.dr, got, tt.one)
		}
	}
	if row := inspectJSON(t, f("u.sow"), "--repeater")["transport"].([]any)[5].(map[string]any); row["fragment_bytes"] != 219.0 {
		t.Errorf("behind a repeater: %v bytes a fragment, want 219", row["fragment_bytes"])
	}
	if rows := inspectJSON(t, f("u.sow"), "--region", "US915")["transport"].([]any); rows[0].(map[string]any)["dr"] != 8.0 {
		t.Errorf("US915: the first downlink data rate is %v, want 8", rows[0])
	}
	code, out, errs := sower("inspect", f("u.sow"))
	if code != 0 || !strings.Contains(out, "EU868, one pass without parity:") || !strings.Contains(out, "SF12/125kHz") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

func TestInspectSymbols(t *testing.T) {
	const dir = "../../bundle/image/testdata/"
	doc := inspectJSON(t, "--old-elf", dir+"old.elf", "--new-elf", dir+"new.elf")
	symbols, _ := doc["symbols"].(map[string]any)
	changed, _ := symbols["changed"].([]any)
	if symbols["functions"] != 5.0 || len(changed) != 1 || changed[0].(map[string]any)["name"] != "scale" {
		t.Errorf("%v", symbols)
	}
	code, out, errs := sower("inspect", dir+"new.elf", "--old-elf", dir+"old.elf", "--new-elf", dir+"new.elf")
	if code != 0 || !strings.Contains(out, "machine            ARM") || !strings.Contains(out, "5 functions: 1 changed, 1 added, 1 removed") || !strings.Contains(out, "B  scale") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

// diff takes the forms that build systems leave behind, and apply makes the image of the slot.
func TestDiffFormats(t *testing.T) {
	f := workspace(t)
	const dir = "../../bundle/image/testdata/"
	code, out, errs := sower("diff", dir+"old.elf", dir+"new.elf", "--json", "-o", f("elf.patch"))
	if code != 0 {
		t.Fatal(errs)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["old_format"] != "ELF" || doc["new_bytes"] != 272.0 || len(doc["warnings"].([]any)) != 2 || strings.Count(errs, "gaps filled with 0xff") != 2 {
		t.Errorf("%v, %q", doc, errs)
	}
	for _, old := range []string{"old.elf", "old.bin"} {
		if code, _, errs := sower("apply", dir+old, f("elf.patch"), "-o", f(old)); code != 0 {
			t.Fatal(errs)
		}
		if string(contents(t, f(old))) != string(contents(t, dir+"new.bin")) {
			t.Errorf("the patch on %s does not make new.bin", old)
		}
	}
	if code, _, errs := sower("diff", dir+"imgtool.hex", dir+"imgtool.img", "-o", f("hex.patch")); code != 0 {
		t.Fatal(errs)
	}
	if code, _, errs := sower("sign", dir+"imgtool.img", "--patch", f("hex.patch"), "--key", f("key.pem"), "-o", f("hex.sow")); code != 0 {
		t.Fatal(errs)
	}
	if v := inspectJSON(t, f("hex.sow"))["version"]; v != "1.2.3" {
		t.Errorf("version %v, want 1.2.3", v)
	}
}
