package chirpstack

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sower-fuota/sower/engine/network"
)

var (
	errUnimplemented = errors.New("the server does not have this call; " + works)
	errExists        = errors.New("exists already")
	// errNoRight is what ChirpStack says without a text: the token itself is good.
	errNoRight = errors.New("the token lacks the right, or the object does not exist")
)

// wrap turns the error of an RPC into one of package network. ChirpStack's codes are irregular: a missing
// object is Unauthenticated for the key of a tenant and NotFound for that of an administrator; duplicates,
// broken references and locked databases are all Internal.
func (n *Network) wrap(what string, err error, repeatable bool) error {
	if err == nil {
		return nil
	}
	kind := func(sentinel error, text string) error {
		return fmt.Errorf("chirpstack: %s: %w: %s", what, sentinel, text)
	}
	st := status.Convert(err)
	msg := st.Message()
	switch st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		text := fmt.Sprintf("server %s does not answer (%s); is it running, and is the address right?", n.name, msg)
		// gRPC does not tell whether a lost request had been sent.
		if repeatable || !defended("uncertain") || strings.Contains(msg, "error while dialing") || strings.Contains(msg, "Error while dialing") {
			return kind(network.ErrUnavailable, text)
		}
		return kind(network.ErrUncertain, text)
	case codes.Unauthenticated, codes.PermissionDenied:
		if msg == "" {
			return fmt.Errorf("chirpstack: %s: %w: %w; check the API key on server %s", what, network.ErrDenied, errNoRight, n.name)
		}
		return kind(network.ErrDenied, msg+"; check the API key on server "+n.name)
	case codes.NotFound:
		return kind(network.ErrNotFound, msg)
	case codes.Unimplemented:
		return fmt.Errorf("chirpstack: %s: %w: %w", what, network.ErrInvalid, errUnimplemented)
	case codes.Internal, codes.Unknown, codes.AlreadyExists:
		lower := strings.ToLower(msg)
		switch {
		case !defended("internal-codes"):
		case st.Code() == codes.AlreadyExists, strings.Contains(lower, "duplicate key"), strings.Contains(lower, "unique constraint"):
			return fmt.Errorf("chirpstack: %s: %w: %w", what, network.ErrInvalid, errExists)
		case strings.Contains(lower, "foreign key"):
			return kind(network.ErrNotFound, msg)
		case strings.Contains(lower, "locked"), strings.Contains(lower, "deadlock"), strings.Contains(lower, "pool"),
			strings.Contains(lower, "connection"), strings.Contains(lower, "timeout"), strings.Contains(lower, "timed out"):
			if repeatable {
				return kind(network.ErrUnavailable, msg)
			}
			return kind(network.ErrUncertain, msg)
		}
	}
	return kind(network.ErrInvalid, st.Code().String()+": "+msg)
}
