// Package chirpstack lets the engine use a ChirpStack v4 server (4.12 or later) as a [network.Network]: its
// gRPC API for devices, keys, queues and multicast groups, its MQTT integration in JSON for events.
//
// ChirpStack accepts many requests that it will never carry out, and says nothing. The package refuses these
// itself: a group without gateways, a gateway that is offline, a payload that the data rate does not carry,
// an unknown data rate, a broadcast without expiry. It does not pace: that is the campaign's business, and
// ChirpStack's own spacing of class C multicast only applies to messages that wait in its queue together.
//
// Not covered: the fate of single multicast frames, for which ChirpStack has no event; class B; events by HTTP.
package chirpstack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// pageSize is how many items a list request asks for.
const pageSize = 200

// Config says how to reach a server. Zero values mean the defaults named here.
type Config struct {
	// Server is the address of the API: "host:port", "http://host:port" or "https://host:port". Without a
	// scheme it is http on a loopback address, https elsewhere. Plain http is refused beyond loopback.
	Server string
	Token  string         // API key
	Region airtime.Region // of the gateways
	TLS    *tls.Config    // for Server and MQTT; nil: the roots of the system

	MQTT     string // "mqtt://host:1883" or "mqtts://host:8883"
	Username string // for MQTT
	Password string
	ClientID string // must be unique at the broker; "sower"
	// Topic is the pattern of the event topics with the application id for %s.
	// "application/%s/device/+/event/+"
	Topic string
	// Watch leaves no session at the broker: for those who listen beside a running engine. What happens while
	// they are away is lost to them.
	Watch bool

	Timeout time.Duration // of one call and of the MQTT connection; 10 s
	Log     *slog.Logger  // for what is not the engine's business; nowhere

	dial []grpc.DialOption // for tests
}

// Network is a ChirpStack server. It is safe for concurrent use.
type Network struct {
	cfg  Config
	conn *grpc.ClientConn
	name string // of the server, for error texts

	mu       sync.Mutex
	profiles map[string]profile        // by id
	devices  map[network.EUI64]string  // profile id
	groups   map[network.GroupID]group // opened here

	enqueue sync.Mutex // ChirpStack on SQLite fails concurrent enqueues
}

var _ network.Network = (*Network)(nil)

// profile is what matters of a device profile.
type profile struct {
	lorawan11 bool
	classC    bool
	clock     bool // TS003 is on: the server answers AppTimeReq
}

type group struct {
	application string
	dataRate    int
}

// Dial returns a network for a server. It does not wait for the server; the first call does.
func Dial(cfg Config) (*Network, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.ClientID == "" {
		cfg.ClientID = "sower"
	}
	if cfg.Topic == "" {
		cfg.Topic = "application/%s/device/+/event/+"
	}
	if strings.Count(cfg.Topic, "%s") != 1 || strings.Count(cfg.Topic, "%") != 1 {
		return nil, fmt.Errorf("chirpstack: topic %q, want one %%s for the application id", cfg.Topic)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Token == "" {
		return nil, errors.New("chirpstack: no API token; create one with: chirpstack -c DIR create-api-key --name sower")
	}
	if !slices.Contains(airtime.Regions(), cfg.Region) {
		return nil, fmt.Errorf("chirpstack: %s, want one of %v", cfg.Region, airtime.Regions())
	}
	target, secure, err := serverAddress(cfg.Server)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(cfg.TLS)
	}
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithPerRPCCredentials(bearer{cfg.Token, secure}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32 << 20)), // ListQueue has no pages
	}, cfg.dial...)
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("chirpstack: server %s: %w", cfg.Server, err)
	}
	return &Network{cfg: cfg, conn: conn, name: cfg.Server, profiles: map[string]profile{},
		devices: map[network.EUI64]string{}, groups: map[network.GroupID]group{}}, nil
}

// Close closes the connection to the API. Event streams end with their contexts.
func (n *Network) Close() error { return n.conn.Close() }

// serverAddress judges the address of a server.
func serverAddress(s string) (target string, secure bool, err error) {
	scheme, target, found := strings.Cut(s, "://")
	if !found {
		scheme, target = "", s
	}
	target = strings.TrimSuffix(target, "/")
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return "", false, fmt.Errorf("chirpstack: server %q, want HOST:PORT: %w", s, err)
	}
	local := loopback(host)
	switch scheme {
	case "":
		return target, !local, nil
	case "https":
		return target, true, nil
	case "http":
		if !local {
			return "", false, fmt.Errorf("chirpstack: server %q would get the token in clear text; use https", s)
		}
		return target, false, nil
	}
	return "", false, fmt.Errorf("chirpstack: server %q: scheme %s, want http or https", s, scheme)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// brokerAddress judges the address of an MQTT broker.
func brokerAddress(s string, password bool) (*url.URL, error) {
	if strings.Contains(s, "@") {
		return nil, errors.New("chirpstack: the address of the MQTT broker holds a user name; configure it apart, addresses are logged")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("chirpstack: MQTT broker %q: %w", s, err)
	case u.Scheme != "mqtt" && u.Scheme != "mqtts" || u.Host == "":
		return nil, fmt.Errorf("chirpstack: MQTT broker %q, want mqtt://HOST:PORT or mqtts://HOST:PORT", s)
	case u.Scheme == "mqtt" && password && !loopback(u.Hostname()):
		return nil, fmt.Errorf("chirpstack: MQTT broker %q would get the password in clear text; use mqtts", s)
	}
	return u, nil
}

// bearer adds the token to each call.
type bearer struct {
	token  string
	secure bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.secure }

// maxPayload is what a data rate carries for certain: a region may be configured for repeaters, and ChirpStack
// drops what is longer without a word.
func (n *Network) maxPayload(dataRate int) (int, error) {
	return n.cfg.Region.MaxPayload(dataRate, airtime.Link{Direction: airtime.Downlink, Repeater: true})
}

// call runs one RPC with the deadline of the configuration.
func (n *Network) call(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeout)
	defer cancel()
	return f(ctx)
}

// get calls an RPC that changes nothing, or that may be repeated.
func get[Req, Res any](ctx context.Context, n *Network, what string,
	rpc func(context.Context, *Req, ...grpc.CallOption) (*Res, error), req *Req) (res *Res, err error) {
	err = n.call(ctx, func(ctx context.Context) (err error) {
		res, err = rpc(ctx, req)
		return err
	})
	return res, n.wrap(what, err, true)
}

// once calls an RPC that must not be repeated blindly.
func once[Req, Res any](ctx context.Context, n *Network, what string,
	rpc func(context.Context, *Req, ...grpc.CallOption) (*Res, error), req *Req) (res *Res, err error) {
	err = n.call(ctx, func(ctx context.Context) (err error) {
		res, err = rpc(ctx, req)
		return err
	})
	return res, n.wrap(what, err, false)
}

// Capabilities implements [network.Network]. ServerAnswersClock is known once Devices has been called.
func (n *Network) Capabilities(ctx context.Context) (network.Capabilities, error) {
	caps := network.Capabilities{Name: "ChirpStack", Region: n.cfg.Region.String(), MaxPayload: map[int]int{},
		MulticastClasses: []network.Class{network.ClassC}, ReportsSent: true}
	v, err := get(ctx, n, "version", api.NewInternalServiceClient(n.conn).GetVersion, &emptypb.Empty{})
	switch {
	case err == nil:
		caps.Version = v.GetVersion()
	case errors.Is(err, errUnimplemented):
		caps.Version = "unknown"
	default:
		return network.Capabilities{}, err
	}
	for dr := range 16 {
		if m, err := n.maxPayload(dr); err == nil {
			caps.MaxPayload[dr] = m
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.profiles {
		caps.ServerAnswersClock = caps.ServerAnswersClock || p.clock
	}
	return caps, nil
}
