package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"github.com/sower-fuota/sower/engine/jobs"
)

// tx is a transaction of the writer. After the first error nothing more is done.
type tx struct {
	s   *Store
	ctx context.Context
	err error
}

// transact runs f in a transaction of the writer; the caller holds s.mu. Once begun, it is not cancelled: an interrupted
// begin or commit leaves open whether it took place.
func (s *Store) transact(ctx context.Context, f func(t *tx)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	t := &tx{s: s, ctx: context.WithoutCancel(ctx)}
	t.exec("begin immediate")
	if t.err != nil {
		return s.remedy(t.err)
	}
	open := true
	defer func() {
		if open {
			s.conn.ExecContext(t.ctx, "rollback")
			clear(s.numbers) // of campaigns that are not there, perhaps
		}
	}()
	f(t)
	t.exec("commit")
	open = t.err != nil
	return s.remedy(t.err)
}

// exec runs a statement and returns how many rows it has changed.
func (t *tx) exec(query string, args ...any) int64 {
	st := t.prepare(query)
	if st == nil {
		return 0
	}
	res, err := st.ExecContext(t.ctx, args...)
	if err != nil {
		t.err = fmt.Errorf("store: %w", err)
		return 0
	}
	n, _ := res.RowsAffected() // SQLite always knows
	return n
}

// row reads one row; without one the error is sql.ErrNoRows.
func (t *tx) row(query string, args []any, dest ...any) error {
	st := t.prepare(query)
	if st == nil {
		return t.err
	}
	return st.QueryRowContext(t.ctx, args...).Scan(dest...)
}

// prepare returns a statement, which is prepared once for all transactions.
func (t *tx) prepare(query string) *sql.Stmt {
	if t.err != nil {
		return nil
	}
	st := t.s.statements[query]
	if st == nil {
		var err error
		if st, err = t.s.conn.PrepareContext(t.ctx, query); err != nil {
			t.err = fmt.Errorf("store: %w", err)
			return nil
		}
		t.s.statements[query] = st
	}
	return st
}

func (t *tx) failed(err error) {
	if t.err == nil && err != nil {
		t.err = err
	}
}

// queue is the [jobs.Queue] of a transaction. Jobs are held by the epoch of the store.
type queue struct{ *tx }

var _ jobs.Queue = queue{}

// Enqueue implements [jobs.Queue].
func (q queue) Enqueue(_ time.Time, j jobs.Job) error {
	if q.exec("insert into jobs (id, owner, due, wait, data) values (?, ?, ?, ?, ?) on conflict do nothing",
		j.ID, j.Owner, nanos(j.Due), int64(j.Wait), append([]byte{}, j.Data...)) == 0 && q.err == nil {
		return fmt.Errorf("%w: %d", jobs.ErrExists, j.ID)
	}
	return q.err
}

// Snooze implements [jobs.Queue].
func (q queue) Snooze(_ time.Time, j jobs.Job) error {
	return q.one(j.ID, q.exec("update jobs set due = ?, wait = ?, holder = null where id = ?", nanos(j.Due), int64(j.Wait), j.ID))
}

// Cancel implements [jobs.Queue].
func (q queue) Cancel(_ time.Time, id uint64) error {
	return q.one(id, q.exec("delete from jobs where id = ?", id))
}

func (q queue) one(id uint64, rows int64) error {
	if rows == 0 && q.err == nil {
		return fmt.Errorf("%w: %d", jobs.ErrNotFound, id)
	}
	return q.err
}

// Claim implements [jobs.Queue].
func (q queue) Claim(now time.Time, limit int) ([]jobs.Job, error) {
	st := q.prepare(`update jobs set holder = ?1 where id in (
		select id from jobs where due <= ?2 and (holder is null or holder < ?1) order by due, id limit ?3)
		returning id, owner, due, wait, data`)
	if st == nil {
		return nil, q.err
	}
	rows, err := st.QueryContext(q.ctx, q.s.epoch, nanos(now), limit)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer rows.Close()
	var out []jobs.Job
	for rows.Next() {
		var j jobs.Job
		var due, wait int64
		if err := rows.Scan(&j.ID, &j.Owner, &due, &wait, &j.Data); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		j.Due, j.Wait = instant(due), time.Duration(wait)
		out = append(out, j)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	sortJobs(out) // returning keeps no order
	return out, nil
}

// nanos is how instants are stored: they can be compared, from 1678 to 2262.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return math.MinInt64
	}
	return t.UnixNano()
}

func instant(n int64) time.Time {
	if n == math.MinInt64 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
