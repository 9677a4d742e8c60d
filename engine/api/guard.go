package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/sower-fuota/sower/engine/store"
)

// who is the holder of the token of a request.
type who struct {
	name string
	role Role
}

type whoKey struct{}

// holder returns who makes a request that has passed the guard.
func holder(ctx context.Context) who {
	w, _ := ctx.Value(whoKey{}).(who)
	return w
}

// guard admits requests by their token. It is found by its SHA-256, so that how long that takes says nothing about
// the token.
type guard struct {
	now  func() time.Time
	find func(ctx context.Context, digest [32]byte) (store.Token, error)

	mu       sync.Mutex
	failures map[string]*failure // by address
}

// failure counts wrong tokens from one address: as in a leaky bucket, one is forgiven every few seconds.
type failure struct {
	level float64
	at    time.Time
}

const (
	failuresAtOnce = 10
	forgiveEvery   = 6 * time.Second
	maxAddresses   = 4096
)

var (
	errTokenUnknown = errors.New("the API token is unknown, has expired or was revoked")
	errTooMany      = errors.New("too many requests with a wrong API token; wait a minute")
)

// admit returns the holder of the token of a request. A valid token is always admitted; wrong ones from one address
// are soon refused with another error, so that nobody fills logs with them.
func (g *guard) admit(r *http.Request) (who, error) {
	digest, err := bearer(r.Header.Get("Authorization"))
	if err == nil {
		t, lookup := g.find(r.Context(), digest)
		if lookup != nil && !errors.Is(lookup, store.ErrNotFound) {
			return who{}, lookup
		}
		if role, bad := ParseRole(t.Role); lookup == nil && bad == nil && t.Valid(g.now()) {
			return who{t.Name, role}, nil
		}
		err = errTokenUnknown
	}
	if g.count(r.RemoteAddr) {
		return who{}, errTooMany
	}
	return who{}, err
}

// count notes a failure and reports whether there were too many.
func (g *guard) count(remote string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	address, _, err := net.SplitHostPort(remote)
	if err != nil {
		address = remote
	}
	now := g.now()
	f := g.failures[address]
	if f == nil {
		if len(g.failures) >= maxAddresses {
			for k, old := range g.failures {
				if now.Sub(old.at) > failuresAtOnce*forgiveEvery {
					delete(g.failures, k)
				}
			}
			if len(g.failures) >= maxAddresses {
				return true
			}
		}
		f = &failure{at: now}
		g.failures[address] = f
	}
	f.level = max(0, f.level-now.Sub(f.at).Seconds()/forgiveEvery.Seconds())
	f.at = now
	if f.level >= failuresAtOnce {
		return true
	}
	f.level++
	return false
}

// wrap puts the guard before the procedures of the API.
func (g *guard) wrap(next http.Handler) http.Handler {
	report := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		need, known := procedures[r.URL.Path]
		if !known {
			http.NotFound(w, r)
			return
		}
		var by who
		var err error
		if need != 0 {
			by, err = g.admit(r)
		}
		switch {
		case errors.Is(err, errTooMany):
			err = connect.NewError(connect.CodeResourceExhausted, err)
		case errors.Is(err, errTokenUnknown), errors.Is(err, errNoToken):
			err = connect.NewError(connect.CodeUnauthenticated, err)
		case err != nil:
			err = translate(err)
		case by.role < need:
			err = connect.NewError(connect.CodePermissionDenied, fmt.Errorf("token %s has the role %s, this takes %s", by.name, by.role, need))
		}
		if err != nil {
			if report.IsSupported(r) {
				report.Write(w, r, err)
			} else {
				http.Error(w, err.Error(), http.StatusUnauthorized)
			}
			return
		}
		if err := receive(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, by)))
	})
}

// receive takes the body of a request, which must come in good time. A deadline for the connection as a whole would
// cut off whoever watches a campaign for a day.
func receive(w http.ResponseWriter, r *http.Request) error {
	limit := int64(maxRequest)
	if uploads[r.URL.Path] {
		limit = maxUpload
	}
	limit += limit/8 + 1024 // frames, and JSON where it was protobuf that was counted
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Now().Add(bodyTimeout)) // a connection without deadlines is one of a test
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return fmt.Errorf("request body: %w", err)
	}
	c.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}
