package chirpstack

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

func TestDialRefuses(t *testing.T) {
	good := Config{Server: "127.0.0.1:8080", Token: "t", Region: airtime.EU868}
	tests := []struct {
		name   string
		change func(*Config)
		want   string // part of the error; empty: none
	}{
		{"loopback", func(*Config) {}, ""},
		{"loopback by name", func(c *Config) { c.Server = "http://localhost:8080" }, ""},
		{"TLS beyond loopback", func(c *Config) { c.Server = "lns.example.com:443" }, ""},
		{"plain beyond loopback", func(c *Config) { c.Server = "http://lns.example.com:8080" }, "use https"},
		{"no port", func(c *Config) { c.Server = "127.0.0.1" }, "HOST:PORT"},
		{"other scheme", func(c *Config) { c.Server = "ftp://127.0.0.1:21" }, "want http or https"},
		{"no token", func(c *Config) { c.Token = "" }, "create-api-key"},
		{"no region", func(c *Config) { c.Region = 0xff }, "EU868"},
		{"topic without application", func(c *Config) { c.Topic = "device/+/event/+" }, "application id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			n, err := Dial(cfg)
			if err == nil {
				defer n.Close()
			}
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Dial = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestBrokerAddress(t *testing.T) {
	tests := []struct {
		addr     string
		password bool
		want     string // part of the error; empty: none
	}{
		{"mqtt://127.0.0.1:1883", true, ""},
		{"mqtts://broker.example.com:8883", true, ""},
		{"mqtt://broker.example.com:1883", false, ""},
		{"mqtt://broker.example.com:1883", true, "use mqtts"},
		{"tcp://127.0.0.1:1883", false, "mqtt://HOST:PORT"},
		{"127.0.0.1:1883", false, "127.0.0.1:1883"},
		{"", false, "mqtt://HOST:PORT"},
		{"mqtt://me:secret@broker.example.com:1883", false, "configure it apart"},
	}
	for _, tt := range tests {
		_, err := brokerAddress(tt.addr, tt.password)
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("brokerAddress(%q) = %v, want %q", tt.addr, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%v shows the password", err)
		}
	}
}

func TestUnreachable(t *testing.T) {
	const addr = "127.0.0.1:1" // nobody has that port
	n, err := Dial(Config{Server: addr, Token: "t", Region: airtime.EU868, MQTT: "mqtt://" + addr, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	_, apiErr := n.Capabilities(t.Context())
	_, mqttErr := n.Events(t.Context(), "app")
	// Nothing was sent, so even a call that must not be repeated has certainly not happened.
	_, sendErr := n.Send(t.Context(), network.Message{FPort: 1})
	for _, err := range []error{apiErr, mqttErr, sendErr} {
		if !errors.Is(err, network.ErrUnavailable) || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "is it running") {
			t.Errorf("%v; want ErrUnavailable, the address and a remedy", err)
		}
	}
}

// fake answers every call that the tests make with one status, or with values.
type fake struct {
	err     error
	auth    string
	keys    *api.DeviceKeys
	profile *api.DeviceProfile
	slow    bool
}

type fuotaService struct {
	api.UnimplementedFuotaServiceServer
	*fake
}

func (f fuotaService) ListDeployments(ctx context.Context, _ *api.ListFuotaDeploymentsRequest) (*api.ListFuotaDeploymentsResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	f.auth = strings.Join(md.Get("authorization"), ",")
	return &api.ListFuotaDeploymentsResponse{}, f.err
}

type deviceService struct {
	api.UnimplementedDeviceServiceServer
	*fake
}

func (f deviceService) Get(context.Context, *api.GetDeviceRequest) (*api.GetDeviceResponse, error) {
	return &api.GetDeviceResponse{Device: &api.Device{DeviceProfileId: "p"}}, f.err
}

func (f deviceService) GetKeys(context.Context, *api.GetDeviceKeysRequest) (*api.GetDeviceKeysResponse, error) {
	return &api.GetDeviceKeysResponse{DeviceKeys: f.keys}, f.err
}

func (f deviceService) Enqueue(ctx context.Context, _ *api.EnqueueDeviceQueueItemRequest) (*api.EnqueueDeviceQueueItemResponse, error) {
	if f.slow {
		<-ctx.Done()
	}
	return &api.EnqueueDeviceQueueItemResponse{Id: "m"}, f.err
}

func (f deviceService) GetQueue(context.Context, *api.GetDeviceQueueItemsRequest) (*api.GetDeviceQueueItemsResponse, error) {
	return &api.GetDeviceQueueItemsResponse{}, f.err
}

type profileService struct {
	api.UnimplementedDeviceProfileServiceServer
	*fake
}

func (f profileService) Get(context.Context, *api.GetDeviceProfileRequest) (*api.GetDeviceProfileResponse, error) {
	return &api.GetDeviceProfileResponse{DeviceProfile: f.profile}, nil
}

func serve(t *testing.T, f *fake) *Network {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer()
	api.RegisterFuotaServiceServer(s, fuotaService{fake: f})
	api.RegisterDeviceServiceServer(s, deviceService{fake: f})
	api.RegisterDeviceProfileServiceServer(s, profileService{fake: f})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	n, err := Dial(Config{Server: "127.0.0.1:1", Token: "secret", Region: airtime.EU868, Timeout: time.Minute,
		dial: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// TestErrors maps the codes of ChirpStack, as irregular as they are, for a call that may be repeated and for one
// that may not.
func TestErrors(t *testing.T) {
	tests := []struct {
		name             string
		code             codes.Code
		msg              string
		repeatable, once error
	}{
		{"unavailable", codes.Unavailable, "transport is closing", network.ErrUnavailable, network.ErrUncertain},
		{"deadline", codes.DeadlineExceeded, "", network.ErrUnavailable, network.ErrUncertain},
		{"no right, or missing with a tenant's key", codes.Unauthenticated, "", network.ErrDenied, network.ErrDenied},
		{"bad token", codes.Unauthenticated, "InvalidSignature", ErrKeyRefused, ErrKeyRefused},
		{"a proxy that forbids a call", codes.PermissionDenied, "RBAC: access denied", network.ErrDenied, network.ErrDenied},
		{"its database is away", codes.Internal, "", network.ErrUnavailable, network.ErrUnavailable},
		{"missing with an admin key", codes.NotFound, "Object does not exist (id: x)", network.ErrNotFound, network.ErrNotFound},
		{"bad UUID", codes.InvalidArgument, "invalid length", network.ErrInvalid, network.ErrInvalid},
		{"old server", codes.Unimplemented, "", network.ErrInvalid, network.ErrInvalid},
		{"device deleted, postgres", codes.Internal, `insert violates foreign key constraint "device_queue_item_dev_eui_fkey"`, network.ErrNotFound, network.ErrNotFound},
		{"device deleted, sqlite", codes.Internal, "FOREIGN KEY constraint failed", network.ErrNotFound, network.ErrNotFound},
		{"sqlite is busy", codes.Internal, "database is locked", network.ErrUnavailable, network.ErrUncertain},
		{"bad EUI", codes.Internal, "Invalid string length", network.ErrInvalid, network.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := serve(t, &fake{err: status.Error(tt.code, tt.msg)})
			if _, err := n.Queued(t.Context(), network.EUI64{1}); !errors.Is(err, tt.repeatable) {
				t.Errorf("Queued = %v, want %v", err, tt.repeatable)
			}
			if _, err := n.Send(t.Context(), network.Message{Device: network.EUI64{1}, FPort: 200}); !errors.Is(err, tt.once) {
				t.Errorf("Send = %v, want %v", err, tt.once)
			}
		})
	}
}

func TestDuplicateIsRecognised(t *testing.T) {
	n := &Network{name: "x"}
	for _, msg := range []string{`duplicate key value violates unique constraint "multicast_group_gateway_pkey"`,
		"UNIQUE constraint failed: multicast_group_gateway.multicast_group_id"} {
		if err := n.wrap("add", status.Error(codes.Internal, msg), true); !errors.Is(err, errExists) {
			t.Errorf("%s: %v, want errExists", msg, err)
		}
	}
}

func TestDeadline(t *testing.T) {
	n := serve(t, &fake{slow: true})
	n.cfg.Timeout = 50 * time.Millisecond
	if _, err := n.Send(t.Context(), network.Message{Device: network.EUI64{1}, FPort: 200}); !errors.Is(err, network.ErrUncertain) {
		t.Errorf("Send without an answer = %v, want ErrUncertain", err)
	}
}

func TestTokenIsSent(t *testing.T) {
	f := &fake{}
	n := serve(t, f)
	caps, err := n.Capabilities(t.Context())
	if err != nil || f.auth != "Bearer secret" {
		t.Errorf("Capabilities = %v with authorization %q", err, f.auth)
	}
	if caps.Version != "4.12 or later" || caps.Regions["EU868"][5] != 222 || caps.Regions["EU868"][0] != 51 || caps.Regions["US915"][8] != 33 || !caps.ReportsSent {
		t.Errorf("Capabilities = %+v", caps)
	}
}

// TestVersion has a key that may look at deployments, one that may not, one that the server does not know, and an
// older server.
func TestVersion(t *testing.T) {
	tests := []struct {
		name    string
		err     error
		version string
		want    error
	}{
		{"may look", nil, least, nil},
		{"may not look", status.Error(codes.Unauthenticated, ""), least, nil},
		{"unknown key", status.Error(codes.Unauthenticated, "InvalidSignature"), "", ErrKeyRefused},
		{"older than 4.12", status.Error(codes.Unimplemented, ""), "", network.ErrInvalid},
		{"away", status.Error(codes.Unavailable, "transport is closing"), "", network.ErrUnavailable},
		{"database is locked", status.Error(codes.Internal, "database is locked"), "", network.ErrUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := serve(t, &fake{err: tt.err}).Version(t.Context())
			if v != tt.version || !errors.Is(err, tt.want) {
				t.Errorf("Version = %q, %v, want %q, %v", v, err, tt.version, tt.want)
			}
		})
	}
}

func TestRootKey(t *testing.T) {
	const a, b, zero = "000102030405060708090a0b0c0d0e0f", "101112131415161718191A1B1C1D1E1F", "00000000000000000000000000000000"
	tests := []struct {
		name string
		mac  int32
		keys *api.DeviceKeys
		want byte // last byte of the key
		err  error
	}{
		{"1.0.x takes gen_app_key", 3, &api.DeviceKeys{NwkKey: b, GenAppKey: a}, 0x0f, nil},
		{"1.1 takes app_key", 5, &api.DeviceKeys{NwkKey: a, AppKey: b, GenAppKey: a}, 0x1f, nil},
		{"never set reads as zeros", 3, &api.DeviceKeys{NwkKey: b, AppKey: b, GenAppKey: zero}, 0, network.ErrNotFound},
		{"server before 4.12", 3, &api.DeviceKeys{NwkKey: b, AppKey: zero}, 0, network.ErrNotFound},
		{"not a key", 3, &api.DeviceKeys{GenAppKey: "0102"}, 0, network.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &api.DeviceProfile{}
			p.ProtoReflect().Set(p.ProtoReflect().Descriptor().Fields().ByName("mac_version"), enum(tt.mac))
			n := serve(t, &fake{keys: tt.keys, profile: p})
			key, err := n.RootKey(t.Context(), network.EUI64{1})
			if !errors.Is(err, tt.err) || key[15] != tt.want {
				t.Errorf("RootKey = ..%02x, %v, want ..%02x, %v", key[15], err, tt.want, tt.err)
			}
			if err != nil && strings.Contains(err.Error(), "0102") {
				t.Errorf("%v shows a key", err)
			}
		})
	}
}

// TestJudgement refuses what ChirpStack would accept and never carry out.
func TestJudgement(t *testing.T) {
	n := serve(t, &fake{})
	n.groups["g"] = &group{application: "a", dataRate: 0}
	later := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	for _, b := range []network.Broadcast{
		{Group: "g", FPort: 201, Payload: make([]byte, 52), Expires: later}, // DR0 carries 51
		{Group: "g", FPort: 0, Payload: []byte{1}, Expires: later},
		{Group: "g", FPort: 224, Payload: []byte{1}, Expires: later},
		{Group: "g", FPort: 201, Payload: []byte{1}},
	} {
		if _, err := n.Broadcast(t.Context(), b); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("Broadcast of %d bytes to port %d = %v, want ErrInvalid", len(b.Payload), b.FPort, err)
		}
	}
	key := network.Key{1}
	for _, g := range []network.Group{
		{Name: "no gateways", AppSKey: key, NwkSKey: key, Class: network.ClassC, Frequency: 1},
		{Name: "class A", AppSKey: key, NwkSKey: key, Class: network.ClassA, Frequency: 1, Gateways: []network.EUI64{{1}}},
		{Name: "no such periodicity", AppSKey: key, NwkSKey: key, Class: network.ClassB, Periodicity: 8, Frequency: 1, Gateways: []network.EUI64{{1}}},
		{Name: "no frequency", AppSKey: key, NwkSKey: key, Class: network.ClassC, Gateways: []network.EUI64{{1}}},
		{Name: "no such data rate", AppSKey: key, NwkSKey: key, Class: network.ClassC, Frequency: 1, DataRate: 15, Gateways: []network.EUI64{{1}}},
		{Name: "zero key", NwkSKey: key, Class: network.ClassC, Frequency: 1, Gateways: []network.EUI64{{1}}},
	} {
		if _, err := n.OpenGroup(t.Context(), g); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("OpenGroup(%s) = %v, want ErrInvalid", g.Name, err)
		}
	}
	for _, port := range []uint8{0, 224, 226} {
		if _, err := n.Send(t.Context(), network.Message{Device: network.EUI64{1}, FPort: port}); !errors.Is(err, network.ErrInvalid) {
			t.Errorf("Send to port %d = %v, want ErrInvalid", port, err)
		}
	}
}
