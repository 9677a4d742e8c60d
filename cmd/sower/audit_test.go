package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// The audit log is exported and checked offline; whatever is changed in the file shows. Logs of campaigns that ended long
// ago are removed, and the audit log tells of it.
func TestAuditExport(t *testing.T) {
	f := sow(t, 2)
	settings, err := os.ReadFile(f.file("sower.toml"))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "sower.toml", string(settings)+"keep_log_days = 2\n")
	f.login(t)
	stop := f.start(t)
	can(t, "create", f.write(t, "field.toml", fmt.Sprintf(fieldCampaign, meters, "")))
	can(t, "abort", "field", "--reason", "enough")
	stop()
	stop = f.start(t)
	can(t, "list") // so the engine is at work, and the campaign has left it
	stop()

	path := f.file("audit.jsonl")
	audit := func(args ...string) (string, error) {
		out, _, err := verb(newAuditCommand(), args...)
		return out, err
	}
	if err := f.world.Run(t.Context(), f.world.Now().Add(50*time.Hour)); err != nil {
		t.Fatal(err)
	}
	stop = f.start(t)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	list := ""
	for n := 0; !strings.Contains(list, "remove log"); n++ {
		<-again.C
		if list, err = audit(); err != nil || n > 3000 {
			t.Fatalf("no log was removed: %s %v", list, err)
		}
	}
	if out := can(t, "list"); !strings.Contains(out, "field     ended") {
		t.Errorf("list: %s", out)
	}
	out, err := audit("export", "-o", path)
	if err != nil || !strings.Contains(out, "5 entries; head ") {
		t.Errorf("export: %q, %v", out, err)
	}
	online, err := audit("verify")
	if err != nil {
		t.Error(err)
	}
	stop()

	_, head, _ := strings.Cut(strings.TrimSpace(online), "head ")
	if out, err := audit("verify", path); err != nil || !strings.HasSuffix(strings.TrimSpace(out), "5 entries hold; head "+head) {
		t.Errorf("verify offline: %q, %v; online %q", out, err, online)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	for what, bad := range map[string]string{
		"a changed word":   strings.Replace(string(text), "enough", "enouph", 1),
		"a line less":      lines[0] + strings.Join(lines[2:], ""),
		"lines exchanged":  lines[1] + lines[0] + strings.Join(lines[2:], ""),
		"a line twice":     lines[0] + string(text),
		"no JSON":          string(text) + "{",
		"nothing at all":   "",
		"another's export": strings.Replace(string(text), `"by":"admin"`, `"by":"nobody"`, 1),
	} {
		if out, err := audit("verify", f.write(t, "bad.jsonl", bad)); err == nil {
			t.Errorf("%s: %s", what, out)
		}
	}
}
