package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/run"
)

// Listed is a campaign in a list.
type Listed struct {
	Number      int64 // in the order of creation, from 1
	ID          string
	Application string
	CreatedBy   string
	Created     time.Time
	// Left says that it has ended and left the engine: only then the rest is set.
	Left     bool
	Ended    time.Time
	State    campaign.State // without sessions
	Progress campaign.Progress
}

// Filter says which campaigns are listed; the zero value: all.
type Filter struct {
	Name        string // a part of the ID
	Application string
	Present     bool // only those that the engine has
}

// Campaigns lists at most limit campaigns with a higher number than after, in the order of their creation.
func (s *Store) Campaigns(ctx context.Context, f Filter, after int64, limit int) ([]Listed, error) {
	var out []Listed
	err := s.each(ctx, func(scan func(...any) error) error {
		var c Listed
		var created int64
		var ended *int64
		var header, progress []byte
		if err := scan(&c.Number, &c.ID, &c.Application, &c.CreatedBy, &created, &ended, &header, &progress); err != nil {
			return err
		}
		if ended != nil {
			c.Ended = instant(*ended)
		}
		c.Created, c.Left = instant(created), progress != nil
		var err error
		if c.Left {
			err = errors.Join(json.Unmarshal(header, &c.State), json.Unmarshal(progress, &c.Progress))
		}
		out = append(out, c)
		return err
	}, `select number, id, application, created_by, created_at, ended_at, header, progress from campaigns
		where number > ? and instr(id, ?) and (? = '' or application = ?) and (progress is null or not ?)
		order by number limit ?`, after, f.Name, f.Application, f.Application, f.Present, limit)
	return out, err
}

// Campaign reads a campaign as the last commit has left it; one that the engine has may change meanwhile. Error:
// [ErrNotFound].
func (s *Store) Campaign(ctx context.Context, id string) (run.Stored, error) {
	var number int64
	var spec, header []byte
	err := s.read.QueryRowContext(ctx, "select number, spec, header from campaigns where id = ?", id).Scan(&number, &spec, &header)
	if err := notFound(err, "campaign "+id); err != nil {
		return run.Stored{}, err
	}
	each := func(f func(scan func(...any) error) error, query string, args ...any) error {
		return s.each(ctx, f, query, args...)
	}
	st, err := s.stored(each, number, id, spec, header, map[string][]byte{})
	if err != nil {
		return run.Stored{}, fmt.Errorf("store: campaign %s: %w", id, err)
	}
	return st, nil
}

// Requested returns the ID of the campaign that was made for a request. Error: [ErrNotFound].
func (s *Store) Requested(ctx context.Context, request string) (id string, err error) {
	err = s.read.QueryRowContext(ctx, "select id from campaigns where request = ?", request).Scan(&id)
	return id, notFound(err, "request "+request)
}

// NextSessionCnt returns, of the devices that have been in a campaign, the lowest SessionCnt that none of them has used.
func (s *Store) NextSessionCnt(ctx context.Context, devices []network.EUI64) (map[network.EUI64]uint16, error) {
	names, err := json.Marshal(devices)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	next := make(map[network.EUI64]uint16, len(devices))
	err = s.each(ctx, func(scan func(...any) error) error {
		var eui []byte
		var last uint16
		if err := scan(&eui, &last); err != nil {
			return err
		}
		next[network.EUI64(eui)] = last + 1
		return nil
	}, `select eui, max(coalesce(json_extract(state, '$.SessionCnt'), 0)) from devices
		where eui in (select unhex(value) from json_each(?)) group by eui`, string(names))
	return next, err
}

// LogRemoved returns when the log of a campaign was removed; zero: it is kept. Error: [ErrNotFound].
func (s *Store) LogRemoved(ctx context.Context, campaign string) (time.Time, error) {
	_, at, err := s.number(ctx, campaign)
	return at, err
}

// chunk is how many entries are removed in one transaction, for which the engine has to wait.
const chunk = 2000

// RemoveLogs removes the logs of campaigns that ended before an instant and have left the engine, and returns how many
// campaigns that were. The campaigns themselves stay, with the outcome of each device. The audit log tells of each log
// how many entries it had, and its digest as [LogDigest] computes it, so that evidence that was exported before can be
// compared. A removal that was interrupted is completed by the next call.
func (s *Store) RemoveLogs(ctx context.Context, now, before time.Time) (campaigns int, err error) {
	type log struct {
		number  int64
		id      string
		removed bool
	}
	var list []log
	err = s.each(ctx, func(scan func(...any) error) error {
		var l log
		err := scan(&l.number, &l.id, &l.removed)
		list = append(list, l)
		return err
	}, `select number, id, log_removed_at is not null from campaigns where ended_at < ?
		and (log_removed_at is null or number in (select campaign from entries)) order by number`, nanos(before))
	if err != nil {
		return 0, err
	}
	for _, l := range list {
		if !l.removed {
			digest := NewLogDigest()
			for after := int64(0); ; {
				page, err := s.Entries(ctx, l.id, nil, after, chunk)
				if err != nil {
					return campaigns, err
				}
				if len(page) == 0 {
					break
				}
				for _, en := range page {
					text, err := json.Marshal(en)
					if err != nil {
						return campaigns, fmt.Errorf("store: %w", err)
					}
					digest.Add(text)
					after = en.Seq
				}
			}
			err := s.locked(ctx, func(t *tx) {
				t.exec("update campaigns set log_removed_at = ? where number = ?", nanos(now), l.number)
				t.audit(&run.Audit{Time: now, By: "sower", Action: "remove log", Campaign: l.id, Text: digest.String()})
			})
			if err != nil {
				return campaigns, err
			}
			campaigns++
		}
		for n := int64(1); n > 0; {
			err := s.locked(ctx, func(t *tx) {
				n = t.exec("delete from entries where seq in (select seq from entries where campaign = ? limit ?)", l.number, chunk)
			})
			if err != nil {
				return campaigns, err
			}
		}
	}
	return campaigns, nil
}

// locked is transact for those who do not hold s.mu.
func (s *Store) locked(ctx context.Context, f func(t *tx)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transact(ctx, f)
}

// LogDigest is the digest of the log of a campaign: SHA-256 over the JSON of each entry and a newline.
type LogDigest struct {
	n   int
	sum interface {
		Write([]byte) (int, error)
		Sum([]byte) []byte
	}
}

// NewLogDigest returns the digest of a log without entries.
func NewLogDigest() *LogDigest { return &LogDigest{sum: sha256.New()} }

// Add adds the JSON of an entry.
func (d *LogDigest) Add(entry []byte) {
	d.n++
	d.sum.Write(entry)
	d.sum.Write([]byte{'\n'})
}

// String is the digest as the audit log has it.
func (d *LogDigest) String() string {
	return fmt.Sprintf("%d entries, SHA-256 %s", d.n, hex.EncodeToString(d.sum.Sum(nil)))
}
