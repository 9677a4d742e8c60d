package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/jobs"
	"github.com/sower-fuota/sower/engine/jobs/jobstest"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
)

var now = time.Date(2026, 11, 22, 6, 0, 0, 123456789, time.UTC)

func newStore(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newCampaign has two sessions that send the same block to n devices each.
func newCampaign(t testing.TB, id string, n int) *campaign.Campaign {
	t.Helper()
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	image := bytes.Repeat([]byte("firmware"), 100)
	block, err := bundle.Sign(bundle.Manifest{Codec: bundle.CodecFull, KeyID: 1, Version: 7, Sequence: 2, NewSize: uint32(len(image))}, image, key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Make(plan.Input{Block: block, Region: airtime.EU868, DataRate: 5, Devices: n, Matrix: fragmentation.V2})
	if err != nil {
		t.Fatal(err)
	}
	w := campaign.Wave{Name: "all"}
	for k := range 2 {
		s := session.Spec{ID: id + string('a'+rune(k)), Application: "app", Block: block, Target: 7, Plan: p,
			Gateways: []network.EUI64{{0xaa}}, McAddr: uint32(k), McKey: network.Key{0xc0, 0xff, 0xee, byte(k)},
			Capabilities: network.Capabilities{Name: "test", Regions: map[string]map[int]int{"EU868": {5: 222}}}}
		for i := range n {
			s.Devices = append(s.Devices, session.Target{EUI: network.EUI64{id[0], byte(k), 5: byte(i >> 16), 6: byte(i >> 8), 7: byte(i)}, SessionCnt: uint16(i)})
		}
		w.Sessions = append(w.Sessions, s)
	}
	c, err := campaign.New(campaign.Spec{ID: id, Application: "app", Waves: []campaign.Wave{w}, Policy: campaign.Policy{Approvals: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func restore(t testing.TB, s *Store) run.Snapshot {
	t.Helper()
	snap, err := s.Restore(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func commit(t testing.TB, s *Store, r *run.Round) {
	t.Helper()
	r.Now = now
	if err := s.Commit(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// TestRestoreIsWhatWasCommitted keeps everything that a round can hold and reads it again in another store.
func TestRestoreIsWhatWasCommitted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	s := newStore(t, path)
	if snap := restore(t, s); !reflect.DeepEqual(snap, run.Snapshot{}) {
		t.Errorf("an empty store restores %+v", snap)
	}
	c := newCampaign(t, "x", 3)
	eui := network.EUI64{'x', 1, 7: 2}
	want := run.Snapshot{
		Jobs:     []jobs.Job{{ID: 9, Owner: "x", Due: now, Wait: time.Second, Data: []byte("{}")}},
		LastJob:  10,
		Groups:   []run.Group{{ID: "g", Campaign: "x", Session: 1, NextFCnt: 1 << 31}},
		Messages: []run.Messages{{Device: eui, IDs: []network.MessageID{"m1", "m2"}}},
		Seen:     []run.Seen{{Seq: 2, ID: [16]byte{2}, At: now}, {Seq: 3, ID: [16]byte{3}, At: now}},
	}
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: c, By: "ann"}}, Seen: []run.Seen{{Seq: 1, At: now}}, Groups: []run.Group{{ID: "closed"}}})
	c.Step(now, campaign.Approve{By: "bob", Note: "fine"})
	c.Step(now.Add(time.Second), campaign.Start{By: "bob"})
	c.Step(now.Add(time.Minute), campaign.Heard{Event: network.Event{Kind: network.EventUplink, Device: eui, At: now.Add(time.Minute), FPort: 10, Payload: []byte{1}}})
	commit(t, s, &run.Round{Changed: []run.Changed{{Campaign: c, Changes: c.Changes()}},
		Jobs:   []jobs.Change{{Do: jobs.Enqueue, Job: want.Jobs[0]}, {Do: jobs.Enqueue, Job: jobs.Job{ID: 10}}, {Do: jobs.Cancel, Job: jobs.Job{ID: 10}}},
		Groups: want.Groups, Closed: []network.GroupID{"closed"}, Messages: want.Messages, Seen: want.Seen, SeenFrom: 2})
	want.Campaigns = []run.Stored{{Spec: c.Spec(), State: c.State()}}

	got := restore(t, newStore(t, path))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("restored\n%+v\nwant\n%+v", got, want)
	}
	again, err := campaign.Resume(got.Campaigns[0].Spec, got.Campaigns[0].State)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again.Rows(), c.Rows()) {
		t.Errorf("resumed rows %+v, want %+v", again.Rows(), c.Rows())
	}
}

// TestCommitIsAllOrNothing has a round whose last part is wrong.
func TestCommitIsAllOrNothing(t *testing.T) {
	s := newStore(t, filepath.Join(t.TempDir(), "sower.db"))
	restore(t, s)
	err := s.Commit(t.Context(), &run.Round{Now: now, Created: []run.Created{{Campaign: newCampaign(t, "x", 1)}},
		Jobs: []jobs.Change{{Do: jobs.Cancel, Job: jobs.Job{ID: 1}}}})
	if !errors.Is(err, jobs.ErrNotFound) {
		t.Errorf("Commit = %v, want ErrNotFound", err)
	}
	if snap := restore(t, s); len(snap.Campaigns) != 0 {
		t.Error("half of a round was kept")
	}
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: newCampaign(t, "x", 1)}}}) // and the store goes on
}

// TestOnCommit lets tests die on both sides of a commit.
func TestOnCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	dead := errors.New("dead")
	s, err := Open(t.Context(), path, Options{NoSync: true, OnCommit: func(n int, before bool) error {
		if n == 2 && before || n == 3 && !before {
			return dead
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	restore(t, s)
	for n, want := range []error{nil, dead, dead} {
		if err := s.Commit(t.Context(), &run.Round{Now: now, Groups: []run.Group{{ID: network.GroupID('a' + rune(n))}}}); !errors.Is(err, want) {
			t.Errorf("commit %d = %v, want %v", n+1, err, want)
		}
	}
	if snap := restore(t, s); len(snap.Groups) != 2 || snap.Groups[0].ID != "a" || snap.Groups[1].ID != "c" {
		t.Errorf("groups %v, want those of the first commit and of the third", snap.Groups)
	}
}

// TestCommitsSurviveAPowerCut makes sure that production has what SQLite needs for that.
func TestCommitsSurviveAPowerCut(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "sower.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} { // 2 is FULL
		var got string
		if err := s.conn.QueryRowContext(t.Context(), "pragma "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %s, %v, want %s", pragma, got, err, want)
		}
	}
}

func TestFence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	a, b := newStore(t, path), newStore(t, path)
	if err := a.Commit(t.Context(), &run.Round{Now: now}); err != nil {
		t.Errorf("Commit before any Restore = %v", err)
	}
	restore(t, a)
	commit(t, a, &run.Round{})
	restore(t, b)
	if err := a.Commit(t.Context(), &run.Round{Now: now, Groups: []run.Group{{ID: "g"}}}); !errors.Is(err, ErrFenced) {
		t.Errorf("Commit after another Restore = %v, want ErrFenced", err)
	}
	commit(t, b, &run.Round{})
	if snap := restore(t, b); len(snap.Groups) != 0 {
		t.Error("the fenced store has written")
	}
}

func TestQueue(t *testing.T) {
	jobstest.Run(t, func(t *testing.T) (jobs.Queue, func() jobs.Queue) {
		path := filepath.Join(t.TempDir(), "sower.db")
		open := func() jobs.Queue {
			s := newStore(t, path)
			restoreOnlyEpoch(t, s)
			return durable{s}
		}
		return open(), open
	})
}

// A transaction that was begun takes place as a whole, whatever becomes of the caller; one that comes too late, not at all.
func TestCancel(t *testing.T) {
	s := newStore(t, filepath.Join(t.TempDir(), "sower.db"))
	restore(t, s)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		if err := s.transact(ctx, func(x *tx) {
			x.audit(&run.Audit{Time: now, Action: "first"})
			cancel()
			x.audit(&run.Audit{Time: now, Action: "second"})
		}); err != nil {
			t.Error(err)
		}
		if err := s.transact(ctx, func(x *tx) { t.Error("begun after the end") }); !errors.Is(err, context.Canceled) {
			t.Errorf("transact = %v, want %v", err, context.Canceled)
		}
	}
	if audit, err := s.Audit(t.Context(), 0, 9); err != nil || len(audit) != 4 {
		t.Errorf("audit %+v, %v; want 4 entries", audit, err)
	}
}

// restoreOnlyEpoch takes a store over without claiming its jobs.
func restoreOnlyEpoch(t *testing.T, s *Store) {
	t.Helper()
	if err := s.transact(t.Context(), func(x *tx) {
		x.exec("update meta set epoch = epoch + 1")
		x.failed(x.row("select epoch from meta", nil, &s.epoch))
	}); err != nil {
		t.Fatal(err)
	}
}

// durable has a transaction for each operation of a queue.
type durable struct{ s *Store }

func (d durable) do(f func(q queue) error) error {
	return d.s.transact(context.Background(), func(t *tx) { t.failed(f(queue{t})) })
}
func (d durable) Enqueue(now time.Time, j jobs.Job) error {
	return d.do(func(q queue) error { return q.Enqueue(now, j) })
}
func (d durable) Snooze(now time.Time, j jobs.Job) error {
	return d.do(func(q queue) error { return q.Snooze(now, j) })
}
func (d durable) Cancel(now time.Time, id uint64) error {
	return d.do(func(q queue) error { return q.Cancel(now, id) })
}
func (d durable) Claim(now time.Time, limit int) (out []jobs.Job, err error) {
	err = d.do(func(q queue) error {
		out, err = q.Claim(now, limit)
		return err
	})
	return out, err
}

func TestEntries(t *testing.T) {
	s := newStore(t, filepath.Join(t.TempDir(), "sower.db"))
	restore(t, s)
	eui, other := network.EUI64{1}, network.EUI64{2}
	r := run.Round{Created: []run.Created{{Campaign: newCampaign(t, "x", 1)}, {Campaign: newCampaign(t, "y", 1)}}}
	for i := range 10 {
		en := run.Entry{Campaign: "x", Time: now, Kind: "uplink", Device: &eui, N: i}
		switch i % 5 {
		case 3:
			en.Campaign = "y"
		case 4:
			en.Device = &other
		}
		r.Entries = append(r.Entries, en)
	}
	commit(t, s, &r)
	numbers := func(es []run.Entry, err error) (out []int) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			out = append(out, e.N)
			if e.Seq != r.Entries[e.N].Seq || !e.Time.Equal(now) || *e.Device != *r.Entries[e.N].Device {
				t.Errorf("entry %+v, want %+v", e, r.Entries[e.N])
			}
		}
		return out
	}
	if got := numbers(s.Entries(t.Context(), "x", nil, 0, 100)); !reflect.DeepEqual(got, []int{0, 1, 2, 4, 5, 6, 7, 9}) {
		t.Errorf("entries of x: %v", got)
	}
	if got := numbers(s.Entries(t.Context(), "x", &eui, r.Entries[1].Seq, 3)); !reflect.DeepEqual(got, []int{2, 5, 6}) {
		t.Errorf("three entries of a device after the second: %v", got)
	}
	if _, err := s.Entries(t.Context(), "z", nil, 0, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("Entries of no campaign = %v, want ErrNotFound", err)
	}
}

func TestFile(t *testing.T) {
	s := newStore(t, filepath.Join(t.TempDir(), "sower.db"))
	restore(t, s)
	want := run.CampaignFile{TOML: []byte("[campaign]"), Schedule: []byte(`{"waves":1}`)}
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: newCampaign(t, "x", 1), File: want, By: "ann"}}})
	if got, by, err := s.File(t.Context(), "x"); err != nil || by != "ann" || !reflect.DeepEqual(got, want) {
		t.Errorf("File = %+v, %s, %v", got, by, err)
	}
	if _, _, err := s.File(t.Context(), "y"); !errors.Is(err, ErrNotFound) {
		t.Errorf("File of no campaign = %v, want ErrNotFound", err)
	}
}

func TestAudit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.db")
	s := newStore(t, path)
	restore(t, s)
	for i := range 5 {
		commit(t, s, &run.Round{Audit: []run.Audit{{Time: now.Add(time.Duration(i)), By: "ann", Action: "start", Campaign: "x", Text: "because"}}})
	}
	if err := s.AddAudit(t.Context(), run.Audit{Time: now, By: "bob", Action: "backup"}); err != nil {
		t.Fatal(err)
	}
	head, err := s.VerifyAudit(t.Context())
	if err != nil || head.Entries != 6 {
		t.Fatalf("VerifyAudit = %+v, %v, want 6 entries", head, err)
	}
	list, err := s.Audit(t.Context(), 4, 1)
	if err != nil || len(list) != 1 || list[0].Seq != 5 || list[0].By != "ann" || !list[0].Time.Equal(now.Add(4)) {
		t.Errorf("Audit after 4 = %+v, %v", list, err)
	}
	for _, change := range []string{
		"update audit set author = 'eve' where seq = 2",
		"update audit set time = '2026-11-22T06:00:00.2Z' where seq = 3",
		"delete from audit where seq = 1",
		"delete from audit where seq = 4",
		"insert into audit select seq + 6, time, author, action, campaign, text, hash from audit where seq = 1",
	} {
		copied := filepath.Join(t.TempDir(), "copy.db")
		if err := s.Backup(t.Context(), copied); err != nil {
			t.Fatal(err)
		}
		copyFile(t, filepath.Join(filepath.Dir(path), keyFile), filepath.Join(filepath.Dir(copied), keyFile))
		c := newStore(t, copied)
		if _, err := c.conn.ExecContext(t.Context(), change); err == nil && !strings.HasPrefix(change, "insert") {
			t.Errorf("%s: no trigger prevents it", change)
		}
		for _, q := range []string{"drop trigger audit_is_not_changed", "drop trigger audit_is_not_deleted", change} {
			if _, err := c.conn.ExecContext(t.Context(), q); err != nil && !strings.Contains(err.Error(), "UNIQUE") {
				t.Fatalf("%s: %v", q, err)
			}
		}
		if _, err := c.VerifyAudit(t.Context()); !errors.Is(err, ErrTampered) {
			t.Errorf("VerifyAudit after %q = %v, want ErrTampered", change, err)
		}
	}
}

func TestTokens(t *testing.T) {
	s := newStore(t, filepath.Join(t.TempDir(), "sower.db"))
	digest := sha256.Sum256([]byte("secret"))
	tok := Token{ID: "t1", Name: "ann", Role: "admin", Created: now, Expires: now.Add(time.Hour)}
	if err := s.AddToken(t.Context(), tok, digest, "init"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.TokenByDigest(t.Context(), digest); err != nil || got != tok || !got.Valid(now) || got.Valid(now.Add(time.Hour)) {
		t.Errorf("TokenByDigest = %+v, %v, want %+v", got, err, tok)
	}
	if _, err := s.TokenByDigest(t.Context(), sha256.Sum256(nil)); !errors.Is(err, ErrNotFound) {
		t.Errorf("TokenByDigest of another = %v, want ErrNotFound", err)
	}
	if err := s.RevokeToken(t.Context(), "t1", now, "ann"); err != nil {
		t.Fatal(err)
	}
	if err := s.RevokeToken(t.Context(), "t1", now, "ann"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second RevokeToken = %v, want ErrNotFound", err)
	}
	list, err := s.Tokens(t.Context())
	if err != nil || len(list) != 1 || !list[0].Revoked.Equal(now) || list[0].Valid(now) {
		t.Errorf("Tokens = %+v, %v", list, err)
	}
	if log, err := s.Audit(t.Context(), 0, 9); err != nil || len(log) != 2 || log[1].Action != "token revoke" {
		t.Errorf("audit log %+v, %v, want the token given and revoked", log, err)
	}
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, filepath.Join(dir, "sower.db"))
	restore(t, s)
	c := newCampaign(t, "x", 2)
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: c}}})
	backup := filepath.Join(t.TempDir(), "sower.db")
	if err := s.Backup(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(t.Context(), backup); !errors.Is(err, os.ErrExist) {
		t.Errorf("Backup over a file = %v, want ErrExist", err)
	}
	commit(t, s, &run.Round{Created: []run.Created{{Campaign: newCampaign(t, "y", 2)}}}) // later

	if _, err := Open(t.Context(), backup, Options{}); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "state.key is missing") {
		t.Errorf("Open without the key file = %v, want ErrKey", err)
	}
	copyFile(t, filepath.Join(dir, keyFile), filepath.Join(filepath.Dir(backup), keyFile))
	snap := restore(t, newStore(t, backup))
	if len(snap.Campaigns) != 1 || !reflect.DeepEqual(snap.Campaigns[0], run.Stored{Spec: c.Spec(), State: c.State()}) {
		t.Errorf("the backup holds %+v", snap.Campaigns)
	}
}

func TestOpenRefuses(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, db, key string)
		want  error
		text  string
	}{
		{"a newer schema", func(t *testing.T, db, _ string) {
			s := newStore(t, db)
			if _, err := s.conn.ExecContext(t.Context(), "insert into goose_db_version (version_id, is_applied) values (99, 1)"); err != nil {
				t.Fatal(err)
			}
			s.Close()
		}, ErrNewer, "schema 99"},
		{"another key", func(t *testing.T, _, key string) { write(t, key, make([]byte, 32), 0o600) }, ErrKey, "not the one"},
		{"a short key", func(t *testing.T, _, key string) { write(t, key, make([]byte, 31), 0o600) }, ErrKey, "31 bytes"},
		{"a key for all to read", func(t *testing.T, _, key string) {
			if err := os.Chmod(key, 0o640); err != nil {
				t.Fatal(err)
			}
		}, ErrKey, "chmod 600"},
		{"what is no database", func(t *testing.T, db, _ string) { write(t, db, bytes.Repeat([]byte("text"), 2000), 0o600) }, nil, "not a database (26); if"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			db, key := filepath.Join(dir, "sower.db"), filepath.Join(dir, keyFile)
			newStore(t, db).Close()
			for _, path := range []string{db, key} {
				if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: mode %v, %v, want 0600", path, info.Mode(), err)
				}
			}
			tt.spoil(t, db, key)
			_, err := Open(t.Context(), db, Options{})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Open = %v, want %v with %q", err, tt.want, tt.text)
			}
		})
	}
}

func write(t *testing.T, path string, data []byte, mode os.FileMode) {
	t.Helper()
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		os.Remove(p)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
