package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/jobs"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
)

func sortJobs(js []jobs.Job) {
	slices.SortFunc(js, func(a, b jobs.Job) int { return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.ID, b.ID)) })
}

// Commit implements [run.Store].
func (s *Store) Commit(ctx context.Context, r *run.Round) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	n := s.commits
	err := s.transact(ctx, func(t *tx) {
		t.fence()
		for _, c := range r.Created {
			t.create(r.Now, c)
		}
		for _, c := range r.Changed {
			t.change(c)
		}
		t.failed(jobs.Apply(queue{t}, r.Now, r.Jobs))
		if last := lastJob(r.Jobs); last > 0 {
			t.exec("update last_job set id = max(id, ?)", last)
		}
		for _, g := range r.Groups {
			t.exec("replace into groups values (?, ?, ?, ?)", string(g.ID), g.Campaign, g.Session, g.NextFCnt)
		}
		for _, id := range r.Closed {
			t.exec("delete from groups where id = ?", string(id))
		}
		for _, m := range r.Messages {
			t.exec("replace into messages values (?, ?)", m.Device[:], t.json(m.IDs))
		}
		for _, e := range r.Seen {
			t.exec("insert into seen values (?, ?, ?)", e.Seq, e.ID[:], nanos(e.At))
		}
		if len(r.Seen) > 0 {
			t.exec("delete from seen where seq < ?", r.SeenFrom)
		}
		t.entries(r.Entries)
		for _, c := range r.Left {
			t.leave(c)
		}
		for i := range r.Audit {
			t.audit(&r.Audit[i])
		}
		if s.options.OnCommit != nil && t.err == nil {
			t.failed(s.options.OnCommit(n, true))
		}
	})
	if err == nil && s.options.OnCommit != nil {
		err = s.options.OnCommit(n, false)
	}
	return err
}

// lastJob is the highest ID that was given to a job.
func lastJob(changes []jobs.Change) (id uint64) {
	for _, c := range changes {
		if c.Do == jobs.Enqueue {
			id = max(id, c.Job.ID)
		}
	}
	return id
}

// fence makes sure that nobody else has taken the store over.
func (t *tx) fence() {
	var epoch int64
	if err := t.row("select epoch from meta", nil, &epoch); err != nil {
		t.failed(fmt.Errorf("store: %w", err))
	} else if epoch != t.s.epoch {
		t.failed(fmt.Errorf("%w: epoch %d, ours is %d", ErrFenced, epoch, t.s.epoch))
	}
}

// json is the JSON of a value.
func (t *tx) json(v any) []byte {
	b, err := json.Marshal(v)
	t.failed(err)
	return b
}

// sparse is the JSON of a struct without the fields that are zero.
func (t *tx) sparse(v any) []byte {
	b, err := sparse(v)
	t.failed(err)
	return b
}

// number returns the number of a campaign.
func (t *tx) number(id string) int64 {
	if n, ok := t.s.numbers[id]; ok {
		return n
	}
	var n int64
	switch err := t.row("select number from campaigns where id = ?", []any{id}, &n); {
	case errors.Is(err, sql.ErrNoRows):
		t.failed(fmt.Errorf("%w: campaign %s", ErrNotFound, id))
	case err != nil:
		t.failed(fmt.Errorf("store: %w", err))
	default:
		t.s.numbers[id] = n
	}
	return n
}

func (t *tx) create(now time.Time, cr run.Created) {
	c := cr.Campaign
	var digests [][]byte
	var specs []session.Spec
	for _, w := range c.Spec().Waves {
		for _, ss := range w.Sessions {
			d := sha256.Sum256(ss.Block)
			if len(digests) == 0 || !bytes.Equal(d[:], digests[len(digests)-1]) {
				t.exec("insert into blocks values (?, ?) on conflict do nothing", d[:], ss.Block)
			}
			digests, specs = append(digests, d[:]), append(specs, ss)
		}
	}
	spec, err := storeSpec(c.Spec(), digests)
	t.failed(err)
	var request *string
	if cr.File.Request != "" {
		request = &cr.File.Request
	}
	t.exec("insert into campaigns (id, spec, header, file, schedule, created_by, created_at, application, request) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		c.ID(), spec, t.sparse(c.Header()), append([]byte{}, cr.File.TOML...), string(cr.File.Schedule), cr.By, nanos(now), c.Application(), request)
	number := t.number(c.ID())
	for i, ss := range specs {
		t.exec("insert into sessions values (?, ?, ?, ?, ?)",
			number, i, ss.ID, t.s.sealed(ss.McKey[:], groupPlace(c.ID(), i)), t.sparse(c.Session(i).Header().Header))
		for d := range ss.Devices {
			t.exec("insert into devices values (?, ?, ?, ?, ?)", number, i, d, t.sparse(c.Session(i).Device(d)), ss.Devices[d].EUI[:])
		}
	}
}

func (t *tx) change(ch run.Changed) {
	number := t.number(ch.Campaign.ID())
	for _, part := range ch.Changes {
		if part.Session < 0 {
			t.exec("update campaigns set header = ? where number = ?", t.sparse(ch.Campaign.Header()), number)
			continue
		}
		s := ch.Campaign.Session(part.Session)
		if part.Header {
			t.exec("update sessions set header = ? where campaign = ? and session = ?", t.sparse(s.Header().Header), number, part.Session)
		}
		for _, d := range part.Devices {
			t.exec("update devices set state = ? where campaign = ? and session = ? and device = ?",
				t.sparse(s.Device(d)), number, part.Session, d)
		}
	}
}

func (t *tx) entries(entries []run.Entry) {
	if len(entries) == 0 {
		return
	}
	var last int64
	if err := t.row("select seq from last_entry", nil, &last); err != nil {
		t.failed(fmt.Errorf("store: %w", err))
		return
	}
	for i := range entries {
		en := &entries[i]
		last++
		en.Seq = 0 // it is the key of the row
		var device []byte
		if en.Device != nil {
			device = en.Device[:]
		}
		t.exec("insert into entries values (?, ?, ?, ?)", last, t.number(en.Campaign), device, t.json(en))
		en.Seq = last
	}
	t.exec("update last_entry set seq = ?", last)
}

// leave notes that a campaign has ended, and is not restored any more.
func (t *tx) leave(c *campaign.Campaign) {
	number := t.number(c.ID())
	var ended int64
	var last []byte
	t.failed(t.row("select created_at from campaigns where number = ?", []any{number}, &ended))
	switch err := t.row("select entry from entries where campaign = ? order by seq desc limit 1", []any{number}, &last); {
	case err == nil:
		var en run.Entry
		t.failed(json.Unmarshal(last, &en))
		ended = nanos(en.Time)
	case !errors.Is(err, sql.ErrNoRows):
		t.failed(fmt.Errorf("store: %w", err))
	}
	t.exec("update campaigns set progress = ?, ended_at = ? where number = ?", t.json(c.Progress()), ended, number)
	delete(t.s.numbers, c.ID())
}

// Restore implements [run.Store].
func (s *Store) Restore(ctx context.Context, now time.Time) (run.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var snap run.Snapshot
	err := s.transact(ctx, func(t *tx) {
		t.exec("update meta set epoch = epoch + 1")
		t.failed(t.row("select epoch from meta", nil, &s.epoch))
		var err error
		if snap.Jobs, err = (queue{t}).Claim(instant(math.MaxInt64), math.MaxInt64); err != nil {
			t.failed(err)
		}
		t.failed(t.row("select id from last_job", nil, &snap.LastJob))
		snap.Campaigns = t.campaigns()
		t.each("select id from campaigns where progress is not null", nil, func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			snap.Left = append(snap.Left, id)
			return err
		})
		t.each("select id, campaign, session, next_fcnt from groups", nil, func(scan func(...any) error) error {
			var g run.Group
			err := scan(&g.ID, &g.Campaign, &g.Session, &g.NextFCnt)
			snap.Groups = append(snap.Groups, g)
			return err
		})
		t.each("select device, ids from messages", nil, func(scan func(...any) error) error {
			var device, ids []byte
			if err := scan(&device, &ids); err != nil {
				return err
			}
			m := run.Messages{}
			copy(m.Device[:], device)
			err := json.Unmarshal(ids, &m.IDs)
			snap.Messages = append(snap.Messages, m)
			return err
		})
		t.each("select seq, id, at from seen order by seq", nil, func(scan func(...any) error) error {
			var e run.Seen
			var id []byte
			var at int64
			err := scan(&e.Seq, &id, &at)
			copy(e.ID[:], id)
			e.At = instant(at)
			snap.Seen = append(snap.Seen, e)
			return err
		})
	})
	return snap, err
}

// each calls f with a function that scans the row, for each row.
func (t *tx) each(query string, args []any, f func(scan func(...any) error) error) {
	st := t.prepare(query)
	if st == nil {
		return
	}
	rows, err := st.QueryContext(t.ctx, args...)
	if err != nil {
		t.failed(fmt.Errorf("store: %w", err))
		return
	}
	defer rows.Close()
	for rows.Next() && t.err == nil {
		if err := f(rows.Scan); err != nil {
			t.failed(fmt.Errorf("store: %w", err))
		}
	}
	if err := rows.Err(); err != nil {
		t.failed(fmt.Errorf("store: %w", err))
	}
}

// campaigns reads those that have not left.
func (t *tx) campaigns() (out []run.Stored) {
	type row struct {
		number       int64
		id           string
		spec, header []byte
	}
	var list []row
	t.each("select number, id, spec, header from campaigns where progress is null order by number", nil, func(scan func(...any) error) error {
		var r row
		err := scan(&r.number, &r.id, &r.spec, &r.header)
		list = append(list, r)
		return err
	})
	each := func(f func(scan func(...any) error) error, query string, args ...any) error {
		t.each(query, args, f)
		return t.err
	}
	blocks := map[string][]byte{}
	for _, r := range list {
		st, err := t.s.stored(each, r.number, r.id, r.spec, r.header, blocks)
		if err != nil {
			t.failed(fmt.Errorf("store: campaign %s: %w", r.id, err))
			return nil
		}
		out = append(out, st)
	}
	return out
}

// stored puts a campaign together from its rows. each reads rows; blocks keeps what was read of them.
func (s *Store) stored(each func(f func(scan func(...any) error) error, query string, args ...any) error,
	number int64, id string, specJSON, header []byte, blocks map[string][]byte) (run.Stored, error) {
	spec, digests, err := restoreSpec(specJSON)
	if err != nil {
		return run.Stored{}, err
	}
	st := run.Stored{Spec: spec}
	if err := json.Unmarshal(header, &st.State); err != nil {
		return run.Stored{}, err
	}
	st.State.Sessions = make([]session.State, len(digests))
	var specs []*session.Spec
	for w := range spec.Waves {
		for i := range spec.Waves[w].Sessions {
			ss, digest := &spec.Waves[w].Sessions[i], digests[len(specs)]
			if blocks[string(digest)] == nil {
				err := each(func(scan func(...any) error) error {
					var data []byte
					err := scan(&data)
					blocks[string(digest)] = data
					return err
				}, "select data from blocks where digest = ?", digest)
				if err != nil {
					return run.Stored{}, err
				}
			}
			if ss.Block = blocks[string(digest)]; ss.Block == nil {
				return run.Stored{}, fmt.Errorf("block %x is missing", digest)
			}
			st.State.Sessions[len(specs)].Devices = make([]session.Device, len(ss.Devices))
			specs = append(specs, ss)
		}
	}
	found, devices, want := 0, 0, 0
	err = each(func(scan func(...any) error) error {
		var i int
		var key, header []byte
		if err := scan(&i, &key, &header); err != nil {
			return err
		}
		if i != found || i >= len(specs) {
			return fmt.Errorf("row of session %d where %d of %d is expected", i, found, len(specs))
		}
		found++
		var err error
		if specs[i].McKey, err = s.openedKey(key, id, i); err != nil {
			return err
		}
		return json.Unmarshal(header, &st.State.Sessions[i].Header)
	}, "select session, key, header from sessions where campaign = ? order by session", number)
	if err != nil {
		return run.Stored{}, err
	}
	err = each(func(scan func(...any) error) error {
		var i, d int
		var state sql.RawBytes
		if err := scan(&i, &d, &state); err != nil {
			return err
		}
		if i >= len(specs) || d >= len(specs[i].Devices) {
			return fmt.Errorf("row of device %d of session %d, which does not exist", d, i)
		}
		devices++
		return json.Unmarshal(state, &st.State.Sessions[i].Devices[d])
	}, "select session, device, state from devices where campaign = ?", number)
	if err != nil {
		return run.Stored{}, err
	}
	for _, ss := range specs {
		want += len(ss.Devices)
	}
	if found != len(specs) || devices != want {
		return run.Stored{}, fmt.Errorf("rows of %d sessions and %d devices, want %d and %d", found, devices, len(specs), want)
	}
	return st, nil
}
