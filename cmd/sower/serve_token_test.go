package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/engine/store"
)

// Somebody deletes the API key when devices listen to their group, and puts another one into its place: the log, the
// metric and the doctor say so meanwhile, and after a restart the campaign goes on as if nothing had been.
func TestServeKeyIsReplaced(t *testing.T) {
	f := sow(t, 4)
	f.login(t)
	stop := f.start(t)
	can(t, "create", f.write(t, "field.toml", fmt.Sprintf(fieldCampaign, meters, "")))
	can(t, "start", "field")
	receiving := regexp.MustCompile(`\d+ +receiving`)
	for end := f.world.Now().Add(48 * time.Hour); ; {
		f.still.Lock()
		if out := can(t, "status", "field"); receiving.MatchString(out) {
			break
		} else if f.world.Now().After(end) {
			t.Fatalf("no window:\n%s", out)
		}
		f.still.Unlock()
	}
	if err := f.server.SetKey("CANARY-CHIRPSTACK-TOKEN", false); err != nil {
		t.Fatal(err)
	}
	f.still.Unlock()
	const refused = "the API key is refused by server "
	stands := regexp.MustCompile(`"level":"WARN","msg":"campaign","campaign":"field","event":"retry","text":"chirpstack: group [^"]*` + refused +
		regexp.QuoteMeta(f.server.GRPCAddress()) + `[^"]*token_file[^"]*restart sower serve`)
	for end := f.world.Now().Add(time.Hour); !stands.MatchString(f.log.String()) && f.world.Now().Before(end); {
		can(t, "list")
	}
	if !stands.MatchString(f.log.String()) {
		t.Errorf("the log does not say that the key is refused, where, and what to do:\n%s", f.log)
	}
	if text := scrape(t); !regexp.MustCompile(`sower_log_entries_total\{kind="retry"\} [1-9]`).MatchString(text) {
		t.Errorf("no retry is counted:\n%s", text)
	}
	if r, _ := doctor(t, f.installation, "--listen", "1ms"); r.state("token", refused) != "failed" {
		t.Errorf("%+v", r.Checks)
	}
	if out := can(t, "status", "field"); !strings.Contains(out, "field: running") {
		t.Errorf("status while the key is refused: %s", out)
	}
	stop()
	f.write(t, "sower.token", "CANARY-CHIRPSTACK-TOKEN-2\n")
	stop = f.start(t)
	out := can(t, "watch", "field", "--cursor", "0")
	if !strings.Contains(out, "finish: 4 of 4 devices updated") || strings.Contains(out, "halt") {
		t.Errorf("watch:\n%s", out)
	}
	stop()
	for i, h := range f.hosts {
		raw, err := h.SlotA(16 << 10)
		if err != nil {
			t.Fatal(err)
		}
		if im, err := mcuboot.Parse(raw); err != nil || im.Minor != 1 {
			t.Errorf("device %d runs %d.%d, %v", i, im.Major, im.Minor, err)
		}
	}
	st, err := store.Open(t.Context(), f.file("sower.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	log, err := st.Entries(t.Context(), "field", nil, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	queued, next := map[string]int{}, map[string]uint32{}
	for _, en := range log {
		if en.Kind != "broadcast" {
			continue
		}
		if *en.FCnt != next[en.Session] {
			t.Errorf("session %s: frame %d after %d: one between is not known", en.Session, *en.FCnt, next[en.Session])
		}
		next[en.Session] = *en.FCnt + 1
		if n := fmt.Sprintf("%s, fragment %d", en.Session, en.N); en.N > 0 {
			if queued[n]++; queued[n] > 1 {
				t.Errorf("%s was queued %d times", n, queued[n])
			}
		}
	}
	if len(queued) == 0 {
		t.Error("no fragment stands in the log")
	}
}

// scrape returns what Prometheus would read.
func scrape(t *testing.T) string {
	t.Helper()
	res, err := http.Get(os.Getenv("SOWER_SERVER") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %s, %v", res.Status, err)
	}
	return string(text)
}
