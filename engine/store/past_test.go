package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/run"
)

// ended is a campaign that was aborted as a draft, in the store, with n entries in its log.
func ended(t *testing.T, s *Store, id string, n int, at time.Time) *campaign.Campaign {
	t.Helper()
	c := newCampaign(t, id, 2)
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: c, By: "ann", File: run.CampaignFile{Request: "request-" + id}}}})
	c.Step(at, campaign.Abort{By: "ann", Reason: "enough"})
	r := &run.Round{Changed: []run.Changed{{Campaign: c, Changes: c.Changes()}}}
	for i := range n {
		r.Entries = append(r.Entries, run.Entry{Time: at, Campaign: id, Kind: "uplink", Device: &network.EUI64{7: byte(i)}, Text: "<ä>"})
	}
	commit(t, s, r)
	return c
}

// A campaign that has left is listed, read as it was, found by its request, and not restored.
func TestLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	s := newStore(t, path)
	restore(t, s)
	x := ended(t, s, "x", 1, now)
	y := newCampaign(t, "y", 2)
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: y, By: "bob"}}})
	commit(t, s, &run.Round{Left: []*campaign.Campaign{x}})

	snap := restore(t, newStore(t, path))
	if len(snap.Campaigns) != 1 || snap.Campaigns[0].Spec.ID != "y" || !reflect.DeepEqual(snap.Left, []string{"x"}) {
		t.Errorf("restored %d campaigns, %v have left", len(snap.Campaigns), snap.Left)
	}
	for _, c := range []*campaign.Campaign{x, y} {
		got, err := s.Campaign(t.Context(), c.ID())
		if want := (run.Stored{Spec: c.Spec(), State: c.State()}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("campaign %s is read as\n%+v, %v\nwant\n%+v", c.ID(), got, err, want)
		}
	}
	if _, err := s.Campaign(t.Context(), "z"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a campaign that never was: %v", err)
	}
	if id, err := s.Requested(t.Context(), "request-x"); id != "x" || err != nil {
		t.Errorf("request-x made %q, %v", id, err)
	}
	if _, err := s.Requested(t.Context(), "request-y"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a request that never was: %v", err)
	}
	for _, tt := range []struct {
		f     Filter
		after int64
		limit int
		want  string
	}{
		{Filter{}, 0, 9, "x y"}, {Filter{}, 0, 1, "x"}, {Filter{}, 1, 1, "y"}, {Filter{}, 2, 1, ""}, {Filter{Present: true}, 0, 9, "y"},
		{Filter{Name: "x"}, 0, 9, "x"}, {Filter{Application: "app"}, 0, 9, "x y"}, {Filter{Application: "other"}, 0, 9, ""},
	} {
		list, err := s.Campaigns(t.Context(), tt.f, tt.after, tt.limit)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, l := range list {
			ids = append(ids, l.ID)
			if l.Left != (l.ID == "x") || l.Left && (!l.Ended.Equal(now) || l.State.Phase != campaign.PhaseEnded || !reflect.DeepEqual(l.Progress, x.Progress())) {
				t.Errorf("%s is listed as %+v", l.ID, l)
			}
		}
		if got := strings.Join(ids, " "); got != tt.want {
			t.Errorf("%+v after %d, at most %d: %q, want %q", tt.f, tt.after, tt.limit, got, tt.want)
		}
	}
	next, err := s.NextSessionCnt(t.Context(), []network.EUI64{{'x', 0, 7: 1}, {'y', 1}, {'z'}})
	if want := map[network.EUI64]uint16{{'x', 0, 7: 1}: 2, {'y', 1}: 1}; err != nil || !reflect.DeepEqual(next, want) {
		t.Errorf("next SessionCnt %v, %v; want %v", next, err, want)
	}
}

// Logs are removed of campaigns that ended long ago and have left, and of no others; the audit log tells of it, and what
// comes later gets new numbers.
func TestRemoveLogs(t *testing.T) {
	s := newStore(t, filepath.Join(t.TempDir(), "sower.db"))
	restore(t, s)
	day := 24 * time.Hour
	old, recent := ended(t, s, "old", chunk+1, now.Add(-9*day)), ended(t, s, "recent", 1, now.Add(-day))
	stays := ended(t, s, "stays", 1, now.Add(-9*day)) // the engine has it
	commit(t, s, &run.Round{Left: []*campaign.Campaign{old, recent}})
	digest := NewLogDigest()
	entries, err := s.Entries(t.Context(), "old", nil, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, en := range entries {
		text, err := json.Marshal(en)
		if err != nil {
			t.Fatal(err)
		}
		digest.Add(text)
	}
	for i, want := range []int{1, 0} {
		if n, err := s.RemoveLogs(t.Context(), now, now.Add(-7*day)); n != want || err != nil {
			t.Errorf("call %d: the logs of %d campaigns were removed, want %d; %v", i, n, want, err)
		}
	}
	for c, want := range map[*campaign.Campaign]int{old: 0, recent: 1, stays: 1} {
		if got, err := s.Entries(t.Context(), c.ID(), nil, 0, 1<<20); err != nil || len(got) != want {
			t.Errorf("campaign %s has %d entries, want %d; %v", c.ID(), len(got), want, err)
		}
		if at, err := s.LogRemoved(t.Context(), c.ID()); err != nil || at.IsZero() != (want > 0) {
			t.Errorf("the log of campaign %s was removed at %v, %v", c.ID(), at, err)
		}
	}
	audit, err := s.Audit(t.Context(), 0, 9)
	if err != nil || len(audit) != 1 {
		t.Fatalf("audit %+v, %v", audit, err)
	}
	if a := audit[0]; a.By != "sower" || a.Action != "remove log" || a.Campaign != "old" || a.Text != digest.String() ||
		!strings.HasPrefix(a.Text, fmt.Sprintf("%d entries, SHA-256 ", chunk+1)) {
		t.Errorf("audit %+v, want %s", a, digest)
	}
	if _, err := s.VerifyAudit(t.Context()); err != nil {
		t.Error(err)
	}

	// All others go, too: the next entry must not get a number that was used.
	commit(t, s, &run.Round{Left: []*campaign.Campaign{stays}})
	if n, err := s.RemoveLogs(t.Context(), now, now.Add(day)); n != 2 || err != nil {
		t.Errorf("the logs of %d campaigns were removed, want 2; %v", n, err)
	}
	r := &run.Round{Entries: []run.Entry{{Campaign: "old", Kind: "late"}}}
	commit(t, s, r)
	if want := int64(chunk + 4); r.Entries[0].Seq != want {
		t.Errorf("the next entry has number %d, want %d", r.Entries[0].Seq, want)
	}
}

// A removal that was interrupted after its decision is completed.
func TestRemoveLogsGoesOn(t *testing.T) {
	s := newStore(t, filepath.Join(t.TempDir(), "sower.db"))
	restore(t, s)
	old := ended(t, s, "old", 3*chunk, now.Add(-time.Hour))
	commit(t, s, &run.Round{Left: []*campaign.Campaign{old}})
	count := func() (n int) {
		if err := s.read.QueryRow("select count(*) from entries").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	ctx, cancel := context.WithCancel(t.Context())
	var interrupt sync.WaitGroup
	interrupt.Go(func() {
		defer cancel()
		for n := 3 * chunk; n == 3*chunk; {
			if err := s.read.QueryRow("select count(*) from entries").Scan(&n); err != nil {
				t.Error(err)
				return
			}
		}
	})
	s.RemoveLogs(ctx, now, now) // may have been quicker
	interrupt.Wait()
	if _, err := s.RemoveLogs(t.Context(), now, now); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	if audit, err := s.Audit(t.Context(), 0, 9); err != nil || len(audit) != 1 {
		t.Errorf("audit %+v, %v; want one entry", audit, err)
	}
}

// A database of the first schema is brought up to date with what is in it.
func TestMigration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	s := newStore(t, path)
	restore(t, s)
	c := newCampaign(t, "x", 3)
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: c, By: "ann", File: run.CampaignFile{Schedule: []byte(`{"request_id":"r1"}`)}}},
		Entries: []run.Entry{{Campaign: "x", Kind: "uplink"}, {Campaign: "x", Kind: "uplink"}}})
	y := newCampaign(t, "y", 1) // as an engine without a plan makes it
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: y, By: "ann"}}})
	s.Close()
	db, err := open(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, os.DirFS("migrations"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.DownTo(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	var columns int
	if err := db.QueryRow("select count(*) from pragma_table_info('devices')").Scan(&columns); err != nil || columns != 4 {
		t.Fatalf("the first schema has %d columns of devices, %v", columns, err)
	}
	db.Close()

	s = newStore(t, path)
	snap := restore(t, s)
	if want := (run.Stored{Spec: c.Spec(), State: c.State()}); len(snap.Campaigns) != 2 || !reflect.DeepEqual(snap.Campaigns[0], want) {
		t.Errorf("restored %+v, want %+v", snap.Campaigns, want)
	}
	if id, err := s.Requested(t.Context(), "r1"); id != "x" || err != nil {
		t.Errorf("request r1 made %q, %v", id, err)
	}
	if list, err := s.Campaigns(t.Context(), Filter{Application: "app"}, 0, 9); err != nil || len(list) != 2 {
		t.Errorf("listed %+v, %v", list, err)
	}
	next, err := s.NextSessionCnt(t.Context(), []network.EUI64{{'x', 1, 7: 2}})
	if err != nil || next[network.EUI64{'x', 1, 7: 2}] != 3 {
		t.Errorf("next SessionCnt %v, %v; want 3", next, err)
	}
	r := &run.Round{Entries: []run.Entry{{Campaign: "x", Kind: "uplink"}}}
	commit(t, s, r)
	if r.Entries[0].Seq != 3 {
		t.Errorf("the next entry has number %d, want 3", r.Entries[0].Seq)
	}
}
