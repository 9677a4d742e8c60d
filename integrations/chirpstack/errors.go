package chirpstack

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sower-fuota/sower/engine/network"
)

// ErrKeyRefused means that the server does not know the API key: somebody has deleted it, or it was made by another
// server. It comes with [network.ErrUnavailable]: what was asked has not happened, and can be repeated once a key is
// there that works. It is not the error of a key that exists and lacks a right, which is [network.ErrDenied] alone.
var ErrKeyRefused = errors.New("the API key is refused")

var (
	errUnimplemented = errors.New("the server does not have this call; " + works)
	errExists        = errors.New("exists already")
	// errNoRight is what ChirpStack says without a text: the token itself is good.
	errNoRight = errors.New("the token lacks the right, or the object does not exist")
)

// failed is wrap for an RPC that has failed. What ChirpStack says without a text to a key that lacks a right, and to one
// of a tenant about an object that is gone, it says to a key that was deleted as well: whether there still is such a
// key is asked then. A text is about the key itself.
func (n *Network) failed(ctx context.Context, what string, rpc error, repeatable bool) error {
	err := n.wrap(what, rpc, repeatable)
	if !errors.Is(err, network.ErrDenied) || !defended("key-refused") {
		return err
	}
	reason := status.Convert(rpc).Message()
	if status.Code(rpc) != codes.Unauthenticated || reason == "" {
		probe := n.probeKey(ctx)
		switch status.Code(probe) {
		case codes.Unauthenticated, codes.PermissionDenied:
		default:
			if probe = n.wrap(what, probe, true); errors.Is(probe, network.ErrUnavailable) {
				return probe // what was denied has not happened, whyever
			}
			return err
		}
		if reason = status.Convert(probe).Message(); reason == "" {
			reason = "deleted there, or never made"
		}
	}
	return fmt.Errorf("chirpstack: %s: %w: %w by server %s, whatever is asked (%s); put one that works where token_file or token_env of the settings say, try it with sower doctor, and restart sower serve",
		what, network.ErrUnavailable, ErrKeyRefused, n.name, reason)
}

// probeKey asks the only thing that every API key may ask, whatever its tenant and its rights.
func (n *Network) probeKey(ctx context.Context) error {
	return n.call(ctx, func(ctx context.Context) error {
		_, err := api.NewDeviceProfileServiceClient(n.conn).ListAdrAlgorithms(ctx, &emptypb.Empty{})
		return err
	})
}

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
	if strings.Contains(msg, "unexpected HTTP status code") || strings.Contains(msg, "unexpected content-type") {
		// ChirpStack answers with HTTP 200 whatever it says. A proxy may have passed the request on before it gave up.
		text := fmt.Sprintf("something else answers in place of server %s (%s); is a proxy in between, and is the address right?", n.name, msg)
		if repeatable {
			return kind(network.ErrUnavailable, text)
		}
		return kind(network.ErrUncertain, text)
	}
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
		case st.Code() == codes.Internal && msg == "":
			// So it answers when it cannot look the key up, before it does anything.
			return kind(network.ErrUnavailable, "server "+n.name+" cannot check the API key; is its database running?")
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
