package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/run"
)

// each reads rows in the pool of readers.
func (s *Store) each(ctx context.Context, f func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// Entries returns at most limit entries of the log of a campaign after the one with that Seq, oldest first; only those
// of one device if device is not nil. A log that was removed has none.
func (s *Store) Entries(ctx context.Context, campaign string, device *network.EUI64, after int64, limit int) ([]run.Entry, error) {
	number, removed, err := s.number(ctx, campaign)
	if err != nil || !removed.IsZero() {
		return nil, err
	}
	query, args := "select seq, entry from entries where campaign = ? and seq > ? order by seq limit ?", []any{number, after, limit}
	if device != nil {
		query = "select seq, entry from entries where campaign = ? and device = ? and seq > ? order by seq limit ?"
		args = []any{number, device[:], after, limit}
	}
	return s.entries(ctx, query, args...)
}

// entries reads rows of a Seq and an entry.
func (s *Store) entries(ctx context.Context, query string, args ...any) (out []run.Entry, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var seq int64
		var text []byte
		if err := scan(&seq, &text); err != nil {
			return err
		}
		var en run.Entry
		err := json.Unmarshal(text, &en)
		en.Seq = seq
		out = append(out, en)
		return err
	}, query, args...)
	return out, err
}

// Latest returns the newest entries of the log of a campaign about one device, at most limit of them, oldest first.
func (s *Store) Latest(ctx context.Context, campaign string, device network.EUI64, limit int) ([]run.Entry, error) {
	number, removed, err := s.number(ctx, campaign)
	if err != nil || !removed.IsZero() {
		return nil, err
	}
	out, err := s.entries(ctx, "select seq, entry from entries where campaign = ? and device = ? order by seq desc limit ?", number, device[:], limit)
	slices.Reverse(out)
	return out, err
}

// LastUplinks returns when devices were last heard, by the uplinks of each in the log of a campaign that came last.
func (s *Store) LastUplinks(ctx context.Context, campaign string, devices []network.EUI64) (map[network.EUI64]time.Time, error) {
	number, _, err := s.number(ctx, campaign)
	if err != nil {
		return nil, err
	}
	names, err := json.Marshal(devices)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	out := map[network.EUI64]time.Time{}
	err = s.each(ctx, func(scan func(...any) error) error {
		var eui []byte
		var text *string
		if err := scan(&eui, &text); err != nil || text == nil {
			return err
		}
		at, err := time.Parse(time.RFC3339Nano, *text)
		out[network.EUI64(eui)] = at
		return err
	}, `select unhex(value), (select max(at) from (select json_extract(entry, '$.at') as at from entries
		where device = unhex(value) and campaign = ? and json_extract(entry, '$.kind') = ? order by seq desc limit 16)) from json_each(?)`, number, network.EventUplink.String(), string(names))
	return out, err
}

// File returns what a campaign was made from, and who made it.
func (s *Store) File(ctx context.Context, campaign string) (file run.CampaignFile, by string, err error) {
	var schedule string
	err = s.read.QueryRowContext(ctx, "select file, schedule, created_by from campaigns where id = ?", campaign).Scan(&file.TOML, &schedule, &by)
	if schedule != "" {
		file.Schedule = json.RawMessage(schedule)
	}
	return file, by, notFound(err, "campaign "+campaign)
}

// number returns the number of a campaign, and when its log was removed; zero: it is kept.
func (s *Store) number(ctx context.Context, campaign string) (n int64, removed time.Time, err error) {
	var at *int64
	err = s.read.QueryRowContext(ctx, "select number, log_removed_at from campaigns where id = ?", campaign).Scan(&n, &at)
	if at != nil {
		removed = instant(*at)
	}
	return n, removed, notFound(err, "campaign "+campaign)
}

func notFound(err error, what string) error {
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%w: %s", ErrNotFound, what)
	case err != nil:
		return fmt.Errorf("store: %w", err)
	}
	return nil
}
