package main

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
)

// TestKeysExplain asks about a device with a key, one without, and that one again with a sealed file and a program.
func TestKeysExplain(t *testing.T) {
	in := install(t, nil)
	plain := in.write(t, "plain.csv", "70b3000000000002,0123456789abcdef0123456789abcdef\n")
	pass := in.write(t, "pass", "bench\n")
	sealed := in.file("sealed.txt")
	if out, _, err := verb(newKeysCommand(), "seal", plain, "-o", sealed, "--passphrase-file", pass, "--json"); err != nil || !strings.Contains(out, `"devices": 1`) {
		t.Fatalf("seal: %q, %v", out, err)
	}
	if _, _, err := verb(newKeysCommand(), "seal", plain, "-o", sealed, "--passphrase-file", pass); err == nil {
		t.Error("seal overwrites a file")
	}
	program := in.file("program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 0123456789abcdef0123456789abcdef\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	wrong := in.write(t, "wrong", "bank\n")
	for _, tt := range []struct {
		name  string
		args  []string
		state string // of the JSON; empty: no report
		fails bool
		says  string
	}{
		{"a key", []string{"70b3000000000001"}, "present", false, "ChirpStack, field gen_app_key"},
		{"upper case", []string{"70B3000000000001"}, "present", false, "gen_app_key"},
		{"never set", []string{"70b3000000000002"}, "zero", true, "enter GenAppKey"},
		{"sealed file", []string{"70b3000000000002", "--keys", sealed, "--passphrase-file", pass}, "present", false, "override, file"},
		{"program", []string{"70b3000000000002", "--keys-program", program}, "present", false, "override, program"},
		{"wrong passphrase", []string{"70b3000000000002", "--keys", sealed, "--passphrase-file", wrong}, "", true, "wrong passphrase"},
		{"plain file as sealed", []string{"70b3000000000002", "--keys", plain, "--passphrase-file", pass}, "", true, "sower keys seal"},
		{"both", []string{"70b3000000000002", "--keys", sealed, "--keys-program", program}, "", true, "exclude each other"},
		{"no device", []string{"70b3000000000099"}, "", true, "not found"},
		{"no DevEUI", []string{"meter-1"}, "", true, "16 hexadecimal digits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"explain", "--config", in.file("sower.toml")}, tt.args...)
			text, stderr, err := verb(newKeysCommand(), args...)
			jsonText, _, jsonErr := verb(newKeysCommand(), append(args, "--json")...)
			all := text + stderr + jsonText
			if err != nil {
				all += err.Error()
			}
			if (err != nil) != tt.fails || (jsonErr != nil) != tt.fails || !strings.Contains(all, tt.says) || strings.Contains(all, "0123456789abcdef") {
				t.Errorf("%v: %s\nwant %q and no key", err, all, tt.says)
			}
			var r struct {
				State   string   `json:"state"`
				Derived []string `json:"derived"`
			}
			if err := json.Unmarshal([]byte(jsonText), &r); (err == nil) != (tt.state != "") || r.State != tt.state || tt.state != "" && len(r.Derived) != 4 {
				t.Errorf("JSON %s: %v, want state %q", jsonText, err, tt.state)
			}
			if wantUsage := tt.name == "both" || tt.name == "no DevEUI"; errors.As(err, new(usageError)) != wantUsage {
				t.Errorf("%v: usage error %v", err, !wantUsage)
			}
		})
	}
}
