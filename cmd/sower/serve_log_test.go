package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/network"
	shell "github.com/sower-fuota/sower/engine/run"
)

// Whoever reads the log of the daemon sees what becomes of campaigns and that the network server fails, once a minute;
// not what is sent to and heard of single devices.
func TestJournal(t *testing.T) {
	var out bytes.Buffer
	counted := 0
	j := journal{log: slog.New(slog.NewJSONHandler(&out, nil)), count: func(shell.Entry) { counted++ }}
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	entries := []shell.Entry{
		{Kind: "wave", Text: "canary"},
		{Kind: "uplink", Device: &network.EUI64{7: 1}, Text: "an uplink", At: at},
		{Kind: "broadcast", Session: "meters.1", Text: "a fragment"},
		{Kind: "retry", Session: "meters.1", Text: "no answer 1"},
		{Kind: "retry", Session: "meters.1", Text: "no answer 2", Time: at.Add(59 * time.Second)},
		{Kind: "retry", Session: "meters.1", Text: "no answer 3", Time: at.Add(time.Minute)},
		{Kind: "halt", Session: "meters.1", Text: "somebody else sends"},
		{Kind: "halt", Text: "3 of 20 devices fell silent", Cause: diag.CauseSilentAfterBoot.String()},
	}
	for i := range entries {
		e := entries[i]
		e.Campaign = "meters"
		if e.Time.IsZero() {
			e.Time = at
		}
		j.entry(e)
	}
	want := []string{`"level":"INFO","msg":"campaign","campaign":"meters","event":"wave","text":"canary"`,
		`"level":"WARN","msg":"campaign","campaign":"meters","event":"retry","text":"no answer 1","session":"meters.1"`,
		`"event":"retry","text":"no answer 3"`, `"level":"WARN","msg":"campaign","campaign":"meters","event":"halt","text":"somebody else sends"`,
		`"event":"halt","text":"3 of 20 devices fell silent","cause":"SILENT_AFTER_BOOT"`}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(want) || counted != len(entries) {
		t.Fatalf("%d lines and %d entries counted, want %d and %d:\n%s", len(lines), counted, len(want), len(entries), out.String())
	}
	for i, line := range lines {
		if !strings.Contains(line, want[i]) {
			t.Errorf("line %d is %s, want %s", i, line, want[i])
		}
	}
}

// A clock that is astray is told of once a minute; one event that comes late is none.
func TestJournalClock(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name string
		ages []time.Duration // of an uplink every 20 s
		want int             // warnings
	}{
		{"sound", []time.Duration{time.Second, 300 * time.Millisecond, time.Minute, time.Second, time.Hour, time.Second, time.Second}, 0},
		{"ahead", []time.Duration{40 * time.Second, 41 * time.Second, 40 * time.Second, 40 * time.Second, 45 * time.Second, 40 * time.Second, 40 * time.Second}, 2},
		{"behind", []time.Duration{-time.Minute, -time.Minute, -time.Minute, -time.Minute}, 1},
		{"after an hour without the daemon", []time.Duration{time.Hour, time.Hour, time.Second, time.Second}, 0},
	} {
		var out bytes.Buffer
		j := journal{log: slog.New(slog.NewJSONHandler(&out, nil)), count: func(shell.Entry) {}}
		for i, age := range tt.ages {
			now := at.Add(time.Duration(i) * 20 * time.Second)
			j.entry(shell.Entry{Campaign: "meters", Kind: "uplink", Device: &network.EUI64{7: 1}, Time: now, At: now.Add(-age)})
		}
		if got := strings.Count(out.String(), `"level":"WARN","msg":"the clock`); got != tt.want || tt.want > 0 && !strings.Contains(out.String(), "event_age") {
			t.Errorf("%s: %d warnings, want %d:\n%s", tt.name, got, tt.want, out.String())
		}
	}
}

// A request that is refused before its body has come, and whose body never comes, does not hold its connection.
func TestServeRefusesWithoutBody(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- serveHTTP(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no token", http.StatusUnauthorized)
		}), time.Second) // in which a busy machine brings the headers, too
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 401") {
		t.Errorf("answer %q, %v; want 401, and the end of the connection", text, err)
	}
	cancel()
	<-done
}

// At three in the morning: why it has stopped, what that means, what to do, and which devices.
func TestStatusOfAHalt(t *testing.T) {
	var out bytes.Buffer
	err := printStatus(&out, &pb.Campaign{Id: "meters", Phase: "stopping", Devices: 20, Failed: 3, Cause: diag.CauseSilentAfterBoot.String(),
		Halted: "wave canary: 3 of 20 devices fell silent, at most 5 % may"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"halted: wave canary: 3 of 20 devices fell silent, at most 5 % may", "SILENT_AFTER_BOOT: " + diag.CauseSilentAfterBoot.Meaning(),
		"to do: " + diag.CauseSilentAfterBoot.Remedy(), "still watched", "sower campaign devices meters --filter stage=failed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for want, k := range map[string]*pb.Campaign{
		"sower campaign resume meters":  {Id: "meters", Phase: "paused"},
		"sower campaign approve meters": {Id: "meters", Phase: "waiting", WaitsFor: "gate"},
		"sower campaign start meters":   {Id: "meters", Phase: "draft"},
		"to do: run sower doctor":       {Id: "meters", Phase: "ended", Halted: "session meters.2: no such group"},
	} {
		if text := advice(k); !strings.Contains(text, want) {
			t.Errorf("%v: no %q in %q", k, want, text)
		}
	}
	for halted, want := range map[string]string{"": "ended", "aborted by ann: enough": "ended, aborted", "session meters.2: no such group": "ended, halted"} {
		if got := phase(&pb.Campaign{Phase: "ended", Halted: halted}); got != want {
			t.Errorf("%q is listed as %q, want %q", halted, got, want)
		}
	}
	out.Reset()
	if err := printStatus(&out, &pb.Campaign{Id: "meters", Phase: "running", Devices: 20}); err != nil || strings.Contains(out.String(), "to do") || strings.Contains(out.String(), "failed:") {
		t.Errorf("nothing has gone wrong: %v\n%s", err, out.String())
	}
}
