package store

import (
	"context"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/engine/run"
)

// Token is an API token. The token itself is known to its owner only; the store has its SHA-256.
type Token struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"` // of whoever has it, for people and for the audit log
	Role    string    `json:"role"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
	Revoked time.Time `json:"revoked,omitzero"` // zero: not
}

// Valid reports whether the token may be used at now.
func (t Token) Valid(now time.Time) bool {
	return t.Revoked.IsZero() && (t.Expires.IsZero() || now.Before(t.Expires))
}

// AddToken stores a token by its SHA-256; by is who gives it out.
func (s *Store) AddToken(ctx context.Context, t Token, digest [32]byte, by string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transact(ctx, func(x *tx) {
		x.exec("insert into tokens values (?, ?, ?, ?, ?, ?, null)", t.ID, t.Name, t.Role, digest[:], nanos(t.Created), orNull(t.Expires))
		x.audit(&run.Audit{Time: t.Created, By: by, Action: "token add", Text: fmt.Sprintf("%s: %s, %s", t.ID, t.Name, t.Role)})
	})
}

// RevokeToken makes a token useless from now on; by is who wants that. Error: [ErrNotFound].
func (s *Store) RevokeToken(ctx context.Context, id string, now time.Time, by string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transact(ctx, func(x *tx) {
		if x.exec("update tokens set revoked = ? where id = ? and revoked is null", nanos(now), id) == 0 {
			x.failed(fmt.Errorf("%w: token %s", ErrNotFound, id))
		}
		x.audit(&run.Audit{Time: now, By: by, Action: "token revoke", Text: id})
	})
}

const tokenColumns = "select id, name, role, created, expires, revoked from tokens "

// Tokens returns all tokens, the revoked ones too, in the order of their creation.
func (s *Store) Tokens(ctx context.Context) ([]Token, error) {
	var out []Token
	err := s.each(ctx, func(scan func(...any) error) error {
		t, err := scanToken(scan)
		out = append(out, t)
		return err
	}, tokenColumns+"order by created, id")
	return out, err
}

// TokenByDigest returns the token with that SHA-256, valid or not. Error: [ErrNotFound].
func (s *Store) TokenByDigest(ctx context.Context, digest [32]byte) (Token, error) {
	t, err := scanToken(s.read.QueryRowContext(ctx, tokenColumns+"where digest = ?", digest[:]).Scan)
	return t, notFound(err, "token")
}

func scanToken(scan func(...any) error) (t Token, err error) {
	var created int64
	var expires, revoked *int64
	err = scan(&t.ID, &t.Name, &t.Role, &created, &expires, &revoked)
	t.Created = instant(created)
	if expires != nil {
		t.Expires = instant(*expires)
	}
	if revoked != nil {
		t.Revoked = instant(*revoked)
	}
	return t, err
}

func orNull(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	n := nanos(t)
	return &n
}
