package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/engine/run"
)

// ErrTampered is returned by [Store.VerifyAudit].
var ErrTampered = errors.New("store: audit log was changed")

// chain returns the hash of an audit entry: SHA-256 over the hash of the one before (32 zero bytes for the first) and
// the JSON of the entry without its hash.
func chain(before []byte, a run.Audit) []byte {
	a.Hash = nil
	text, err := json.Marshal(a)
	if err != nil {
		panic("store: internal error: " + err.Error()) // strings, numbers and a time of this millennium
	}
	sum := sha256.Sum256(append(bytes.Clone(before), text...))
	return sum[:]
}

// audit adds an entry to the chain.
func (t *tx) audit(a *run.Audit) {
	before := make([]byte, sha256.Size)
	var last int64
	err := t.row("select seq, hash from audit order by seq desc limit 1", nil, &last, &before)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.failed(fmt.Errorf("store: %w", err))
		return
	}
	a.Seq, a.Time = last+1, a.Time.UTC()
	a.Hash = chain(before, *a)
	t.exec("insert into audit values (?, ?, ?, ?, ?, ?, ?)",
		a.Seq, a.Time.Format(time.RFC3339Nano), a.By, a.Action, a.Campaign, a.Text, []byte(a.Hash))
}

// AddAudit adds an entry to the audit log, for decisions that are not the engine's.
func (s *Store) AddAudit(ctx context.Context, a run.Audit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transact(ctx, func(t *tx) { t.audit(&a) })
}

// Audit returns at most limit entries of the audit log after the one with that number, oldest first.
func (s *Store) Audit(ctx context.Context, after int64, limit int) ([]run.Audit, error) {
	var out []run.Audit
	err := s.each(ctx, func(scan func(...any) error) error {
		var a run.Audit
		var at string
		var hash []byte
		if err := scan(&a.Seq, &at, &a.By, &a.Action, &a.Campaign, &a.Text, &hash); err != nil {
			return err
		}
		var err error
		a.Hash = hash
		a.Time, err = time.Parse(time.RFC3339Nano, at)
		out = append(out, a)
		return err
	}, "select seq, time, author, action, campaign, text, hash from audit where seq > ? order by seq limit ?", after, limit)
	return out, err
}

// AuditHead is the end of the audit log. Who keeps it elsewhere can tell later whether entries were cut off.
type AuditHead struct {
	Entries int64   `json:"entries"`
	Hash    run.Hex `json:"hash"`
}

// Add takes the entry after the head. Error: [ErrTampered], if it does not follow.
func (h *AuditHead) Add(a run.Audit) error {
	if h.Hash == nil {
		h.Hash = make(run.Hex, sha256.Size)
	}
	if a.Seq != h.Entries+1 {
		return fmt.Errorf("%w: entry %d follows %d", ErrTampered, a.Seq, h.Entries)
	}
	if want := chain(h.Hash, a); !bytes.Equal(want, a.Hash) {
		return fmt.Errorf("%w: entry %d has hash %x, its contents give %x", ErrTampered, a.Seq, []byte(a.Hash), want)
	}
	h.Entries, h.Hash = a.Seq, a.Hash
	return nil
}

// VerifyAudit computes the hash chain of the audit log anew. It returns [ErrTampered], which names the entry, when an
// entry was changed, inserted or removed; that the newest were cut off shows only in comparison with an earlier head.
func (s *Store) VerifyAudit(ctx context.Context) (AuditHead, error) {
	head := AuditHead{Hash: make(run.Hex, sha256.Size)}
	for {
		page, err := s.Audit(ctx, head.Entries, 1000)
		if err != nil {
			return head, err
		}
		for _, a := range page {
			if err := head.Add(a); err != nil {
				return head, err
			}
		}
		if len(page) == 0 {
			return head, nil
		}
	}
}
