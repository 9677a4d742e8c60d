package networkserver

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// APIKey is a key besides the administrator's, which is Config.Token.
type APIKey struct {
	Token    string
	Tenant   string // UUID of the only tenant that the key sees; empty: an administrator's
	ReadOnly bool
}

// errForbidden is the answer to everything that a key may not do; there is no PermissionDenied.
var errForbidden = status.Error(codes.Unauthenticated, "")

// lookupError is the answer to an administrator's key about an object that does not exist. A tenant's key is
// told nothing but that it has no right.
type lookupError struct{ error }

// unary surrounds every call: it holds the world, then has the lock of the server, then meets the faults, then
// is authorised.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	defer s.world.Hold("gRPC call " + info.FullMethod)()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, errUnavailable
	}
	effect := s.callFault(info.FullMethod)
	if effect == Unavailable {
		return nil, errUnavailable
	}
	key, err := s.authorize(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	if effect == Locked {
		return nil, errLocked
	}
	resp, err := next(ctx, req)
	if hidden, ok := err.(lookupError); ok {
		err = hidden.error
		if key.Tenant != "" {
			err = errForbidden
		}
	}
	if effect == ReplyLost {
		return nil, errReplyLost
	}
	return resp, err
}

// SetKey makes the server forget an API key from now on, as when somebody deletes it, or know it again.
func (s *Server) SetKey(token string, known bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token != s.cfg.Token && !slices.ContainsFunc(s.cfg.Keys, func(k APIKey) bool { return k.Token == token }) {
		return errors.New("networkserver: the configuration has no such API key")
	}
	s.deleted[token] = !known
	return nil
}

// authorize finds the key of a call and says whether it may call the method at all; the caller holds s.mu.
func (s *Server) authorize(ctx context.Context, method string) (APIKey, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) == 0 {
		return APIKey{}, status.Error(codes.Unauthenticated, "no authorization provided")
	}
	token, ok := strings.CutPrefix(values[0], "Bearer ")
	if !ok {
		return APIKey{}, status.Error(codes.Unauthenticated, "authorization metadata must be in format 'Bearer <TOKEN>")
	}
	key := APIKey{Token: s.cfg.Token}
	if token != s.cfg.Token {
		i := slices.IndexFunc(s.cfg.Keys, func(k APIKey) bool { return k.Token == token })
		if i < 0 {
			return APIKey{}, status.Error(codes.Unauthenticated, "InvalidSignature")
		}
		key = s.cfg.Keys[i]
	}
	switch {
	case s.deleted[token]: // its signature is good all the same
		return key, errForbidden
	case method == api.DeviceProfileService_ListAdrAlgorithms_FullMethodName:
		return key, nil
	case key.ReadOnly && !reads(method),
		key.Tenant != "" && key.Tenant != s.cfg.Tenant.ID,
		key.Tenant != "" && strings.HasPrefix(method, "/api.TenantService/List"):
		return key, errForbidden
	}
	return key, nil
}
