package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/run"
)

// A full disk loses nothing that was committed, and the error says what to do.
func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	s := newStore(t, path)
	restore(t, s)
	c := newCampaign(t, "x", 2)
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: c}}})
	if _, err := s.conn.ExecContext(t.Context(), "pragma max_page_count = 1"); err != nil { // no more than it has
		t.Fatal(err)
	}
	big := run.Round{Entries: []run.Entry{{Campaign: "x", Kind: "uplink", Text: strings.Repeat("x", 1<<20)}}}
	if err := s.Commit(t.Context(), &big); err == nil || !strings.Contains(err.Error(), "make room on the disk of "+path) {
		t.Errorf("Commit on a full disk = %v", err)
	}
	s.Close()
	if snap := restore(t, newStore(t, path)); len(snap.Campaigns) != 1 {
		t.Errorf("%d campaigns after the disk was full, want 1", len(snap.Campaigns))
	}
}

// A database that was put back from a copy that others may read is closed to them again.
func TestOpenClosesToOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	newStore(t, path).Close()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	newStore(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

// The newest entries about a device, and when it was last heard.
func TestLatest(t *testing.T) {
	s := newStore(t, filepath.Join(t.TempDir(), "sower.db"))
	restore(t, s)
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: newCampaign(t, "x", 2)}}})
	a, b, silent := network.EUI64{7: 1}, network.EUI64{7: 2}, network.EUI64{7: 3}
	var r run.Round
	for i, en := range []run.Entry{{Kind: "uplink", Device: &a}, {Kind: "uplink", Device: &b}, {Kind: "uplink", Device: &a}, {Kind: "sent", Device: &a},
		{Kind: "sent", Device: &silent}} {
		en.Campaign, en.At = "x", now.AddDate(0, 0, i)
		r.Entries = append(r.Entries, en)
	}
	commit(t, s, &r)
	got, err := s.Latest(t.Context(), "x", a, 2)
	if err != nil || len(got) != 2 || got[0].Kind != "uplink" || got[1].Kind != "sent" || got[0].Seq >= got[1].Seq {
		t.Errorf("the newest two are %+v, %v", got, err)
	}
	last, err := s.LastUplinks(t.Context(), "x", []network.EUI64{a, b, silent})
	if err != nil || len(last) != 2 || !last[a].Equal(now.AddDate(0, 0, 2)) || !last[b].Equal(now.AddDate(0, 0, 1)) {
		t.Errorf("last uplinks %v, %v", last, err)
	}
}
