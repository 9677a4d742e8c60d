// Package chirpstack lets the engine use a ChirpStack v4 server (4.12 or a later 4.x) as a [network.Network]: its
// gRPC API for devices, keys, queues and multicast groups; its MQTT or HTTP integration, in JSON or protobuf, for
// events; its gateway topics, if they can be read, for the fate of multicast frames.
//
// ChirpStack accepts many requests that it will never carry out, and says nothing. The package refuses these
// itself: a group without gateways, a gateway that is offline or has no region, gateways of several regions, a payload
// that the data rate does not carry, an unknown data rate, a broadcast without expiry. Nor does ChirpStack pace: it spaces only what waits
// in its queue together, and after an outage sends all that waits at once. Therefore no more than Config.Queue
// frames of a group wait there; beyond that [Network.Broadcast] answers [network.Busy] and the campaign, which
// paces, comes again.
//
// Devices work in the region of their device profile: ChirpStack ignores what gateways of another one hear of them.
// Gateways work in the one under whose topics they report. A group has the region of its gateways, which decides what
// a data rate is; that of the group itself ChirpStack keeps and never looks at.
//
// Not covered: GPS_TIME scheduling of class C, which hands frames over when their time has come; ChirpStack's own
// FUOTA deployments; payloads that a join server encrypts end to end; whether a frame that a gateway has accepted
// was really on the air, which no gateway but Basics Station tells.
package chirpstack

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// Config says how to reach a server. Zero values mean the defaults named here.
type Config struct {
	// Server is the address of the API: "host:port", "http://host:port" or "https://host:port". Without a
	// scheme it is http on a loopback address, https elsewhere. Plain http is refused beyond loopback.
	Server string
	Token  string         // API key
	Region airtime.Region // the only one in which groups are opened; 0: that of their gateways, whichever it is
	TLS    *tls.Config    // for Server and MQTT; nil: the roots of the system

	MQTT     string // "mqtt://host:1883" or "mqtts://host:8883"
	Username string // for MQTT
	Password string
	ClientID string // must be unique at the broker; "sower"
	// Topic is the pattern of the event topics with the application id for %s.
	// "application/%s/device/+/event/+"
	Topic string
	// Share is the name of a shared subscription (MQTT 5, section 4.8.2): engines that share it and have client
	// ids of their own get a part of the events each. Empty: one engine gets all.
	Share string
	// Watch leaves no session at the broker: for those who listen beside a running engine. What happens while
	// they are away is lost to them.
	Watch bool
	// Webhook brings the events in place of MQTT.
	Webhook *Webhook
	// GatewayTopics is the topic prefix of the region, such as "eu868", under which gateways and server speak to
	// each other at the broker of MQTT; of several regions, all with commas between them. If it is set, every frame of
	// a group has its fate reported. The user of the broker needs the right to read PREFIX/gateway/+/command/down and
	// .../event/ack.
	GatewayTopics string

	// Queue is how many frames of a group may wait at the server; 2. Broadcast refuses more with network.Busy.
	Queue int
	// Keys has root keys that the server does not have or that are to be used in their place; may be nil.
	Keys KeySource

	Timeout time.Duration // of one call and of the MQTT connection; 10 s
	Log     *slog.Logger  // for what is not the engine's business; nowhere

	dial []grpc.DialOption // for tests
}

// Network is a ChirpStack server. It is safe for concurrent use.
type Network struct {
	cfg  Config
	conn *grpc.ClientConn
	name string   // of the server, for error texts
	taps []string // of Config.GatewayTopics, each with "/gateway/" behind it

	mu       sync.Mutex
	profiles map[string]profile       // by id
	devices  map[network.EUI64]string // profile id
	tenants  map[string]string        // of applications
	groups   map[network.GroupID]*group

	enqueue sync.Mutex // ChirpStack on SQLite fails concurrent enqueues
}

var _ network.Network = (*Network)(nil)

// profile is what matters of a device profile.
type profile struct {
	region    string
	lorawan11 bool
	classC    bool
	clock     bool // TS003 is on: the server answers AppTimeReq
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
	if strings.ContainsAny(cfg.Share, "/+#") {
		return nil, fmt.Errorf("chirpstack: shared subscription %q, want a name without / + #", cfg.Share)
	}
	if strings.ContainsAny(cfg.GatewayTopics, "+#") {
		return nil, fmt.Errorf("chirpstack: gateway topics %q, want the topic prefix of a region, such as eu868, or of each with commas between them",
			cfg.GatewayTopics)
	}
	if cfg.Queue == 0 {
		cfg.Queue = 2
	}
	if cfg.Queue < 0 {
		return nil, fmt.Errorf("chirpstack: queue of %d frames, want 1 or more", cfg.Queue)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Token == "" {
		return nil, errors.New("chirpstack: no API token; create one with: chirpstack -c DIR create-api-key --name sower")
	}
	if userToken(cfg.Token) && defended("user-token") {
		return nil, errors.New("chirpstack: the token is that of a user who logged in, which ends within a day; create an API key with: chirpstack -c DIR create-api-key --name sower")
	}
	if cfg.Region != 0 && !slices.Contains(airtime.Regions(), cfg.Region) {
		return nil, fmt.Errorf("chirpstack: %s, want one of %v, or none", cfg.Region, airtime.Regions())
	}
	target, secure, err := serverAddress(cfg.Server)
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if secure {
		creds = credentials.NewTLS(cfg.TLS)
	}
	longest := 32 << 20 // ListQueue has no pages
	if !defended("long-answers") {
		longest = 4 << 20
	}
	opts := append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithPerRPCCredentials(bearer{cfg.Token, secure}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(longest)),
	}, cfg.dial...)
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("chirpstack: server %s: %w", cfg.Server, err)
	}
	var taps []string
	for _, prefix := range strings.Split(cfg.GatewayTopics, ",") {
		if prefix = strings.TrimSuffix(strings.TrimSpace(prefix), "/"); prefix != "" {
			taps = append(taps, prefix+"/gateway/")
		}
	}
	return &Network{cfg: cfg, conn: conn, name: cfg.Server, taps: taps, profiles: map[string]profile{},
		devices: map[network.EUI64]string{}, tenants: map[string]string{}, groups: map[network.GroupID]*group{}}, nil
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
		if !local && defended("token-in-clear") {
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

// userToken reports whether a token is that of a user: a JWT whose claims say so. Other texts are left to the server.
func userToken(token string) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return false
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c struct {
		Type string `json:"typ"`
	}
	return err == nil && json.Unmarshal(claims, &c) == nil && c.Type == "user"
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
func maxPayload(region airtime.Region, dataRate int) (int, error) {
	return region.MaxPayload(dataRate, airtime.Link{Direction: airtime.Downlink, Repeater: true})
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
	return res, n.failed(ctx, what, err, true)
}

// once calls an RPC that must not be repeated blindly.
func once[Req, Res any](ctx context.Context, n *Network, what string,
	rpc func(context.Context, *Req, ...grpc.CallOption) (*Res, error), req *Req) (res *Res, err error) {
	err = n.call(ctx, func(ctx context.Context) (err error) {
		res, err = rpc(ctx, req)
		return err
	})
	return res, n.failed(ctx, what, err, false)
}

// Capabilities implements [network.Network]. It refuses a server of another version than the package works with.
// ServerAnswersClock is known once Devices has been called.
func (n *Network) Capabilities(ctx context.Context) (network.Capabilities, error) {
	version, err := n.Version(ctx)
	if err != nil {
		return network.Capabilities{}, err
	}
	caps := network.Capabilities{Name: "ChirpStack", Version: version, Regions: map[string]map[int]int{},
		MulticastClasses: []network.Class{network.ClassC, network.ClassB}, ReportsSent: true, ReportsBroadcast: len(n.taps) > 0}
	for _, r := range airtime.Regions() {
		limits := map[int]int{}
		for dr := range 16 {
			if m, err := maxPayload(r, dr); err == nil {
				limits[dr] = m
			}
		}
		caps.Regions[r.String()] = limits
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.profiles {
		caps.ServerAnswersClock = caps.ServerAnswersClock || p.clock && defended("server-clock")
	}
	return caps, nil
}
