package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sower-fuota/sower/engine/store"
)

// tokenPrefix lets scanners of source code recognise a token that was committed by mistake.
const tokenPrefix = "sower_"

// Role is what a token may do; each includes those before it.
type Role uint8

// The roles.
const (
	Viewer   Role = iota + 1 // reads
	Operator                 // plans, creates, approves, starts, pauses, resumes and aborts campaigns
	Admin                    // makes backups and tokens
)

var roleNames = [...]string{Viewer: "viewer", Operator: "operator", Admin: "admin"}

// String returns the name of the role in lower case.
func (r Role) String() string {
	if int(r) < len(roleNames) && roleNames[r] != "" {
		return roleNames[r]
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// ParseRole is the inverse of String.
func ParseRole(s string) (Role, error) {
	for i, n := range roleNames {
		if n != "" && n == s {
			return Role(i), nil
		}
	}
	return 0, fmt.Errorf("role %q, want viewer, operator or admin", s)
}

// FirstToken makes the token of an administrator if the store has no token at all, or if those that it has were lost, and
// returns it, to be shown once; empty: there is one.
func FirstToken(ctx context.Context, s *store.Store, now time.Time, lost bool) (string, error) {
	list, err := s.Tokens(ctx)
	if err != nil || len(list) > 0 && !lost {
		return "", err
	}
	token, _, err := addToken(ctx, s, store.Token{Name: "admin", Role: Admin.String(), Created: now}, "sower")
	return token, err
}

// addToken makes a token and keeps its digest.
func addToken(ctx context.Context, s *store.Store, t store.Token, by string) (string, store.Token, error) {
	var id [4]byte
	rand.Read(id[:])
	t.ID = hex.EncodeToString(id[:])
	token, digest := NewToken()
	return token, t, s.AddToken(ctx, t, digest, by)
}

// NewToken returns a new API token of 256 random bits and the SHA-256 by which it is recognised. The token itself is
// shown once and kept nowhere.
func NewToken() (token string, hash [32]byte) {
	var secret [32]byte
	rand.Read(secret[:])
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
	return token, sha256.Sum256([]byte(token))
}

var errNoToken = errors.New("the request has no API token; send it as `Authorization: Bearer sower_…`")

// bearer returns the hash of the token in an Authorization header.
func bearer(header string) ([32]byte, error) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return [32]byte{}, errNoToken
	}
	return sha256.Sum256([]byte(token)), nil
}
