package chirpstack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// authority returns a certificate for 127.0.0.1 and the pool that trusts it.
func authority(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true},
		&x509.Certificate{Subject: pkix.Name{CommonName: "test"}}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestTLS talks to a server whose certificate is signed by an authority of the test, and to nobody else.
func TestTLS(t *testing.T) {
	cert, pool := authority(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	s := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	api.RegisterFuotaServiceServer(s, fuotaService{fake: f})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	for _, tt := range []struct {
		name, server string
		tls          *tls.Config
		want         string // part of the error; empty: none
	}{
		{"the authority", "https://", &tls.Config{RootCAs: pool}, ""},
		{"another authority", "https://", &tls.Config{RootCAs: x509.NewCertPool()}, "certificate"},
		{"the roots of the system", "https://", nil, "certificate"},
		{"another name", "https://", &tls.Config{RootCAs: pool, ServerName: "lns.example.com"}, "certificate"},
		{"no TLS", "http://", nil, "does not answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.auth = ""
			n, err := Dial(Config{Server: tt.server + l.Addr().String(), Token: "secret", Region: airtime.EU868, TLS: tt.tls, Timeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			_, err = n.Version(t.Context())
			if tt.want == "" && (err != nil || f.auth != "Bearer secret") {
				t.Errorf("Version = %v with authorization %q", err, f.auth)
			}
			if tt.want != "" && (!errors.Is(err, network.ErrUnavailable) || !strings.Contains(err.Error(), tt.want) || f.auth != "") {
				t.Errorf("Version = %v with authorization %q, want ErrUnavailable, %q and no token sent", err, f.auth, tt.want)
			}
		})
	}
}

// oneUser lets one user in.
type oneUser struct{ mqtt.HookBase }

func (oneUser) ID() string { return "one-user" }
func (oneUser) Provides(b byte) bool {
	return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck
}
func (oneUser) OnACLCheck(*mqtt.Client, string, bool) bool { return true }
func (oneUser) OnConnectAuthenticate(_ *mqtt.Client, pk packets.Packet) bool {
	return string(pk.Connect.Username) == "sower" && string(pk.Connect.Password) == "broker-password"
}

// TestMQTTOverTLS gets an event from a broker with such a certificate, as a user with a password, and from none else.
func TestMQTTOverTLS(t *testing.T) {
	cert, pool := authority(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	broker := mqtt.New(&mqtt.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	if err := broker.AddHook(new(oneUser), nil); err != nil {
		t.Fatal(err)
	}
	if err := broker.AddListener(listeners.NewNet("tls", l)); err != nil {
		t.Fatal(err)
	}
	if err := broker.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Close() })
	for _, tt := range []struct {
		name, password string
		tls            *tls.Config
		ok             bool
	}{
		{"the authority", "broker-password", &tls.Config{RootCAs: pool}, true},
		{"wrong password", "other-password", &tls.Config{RootCAs: pool}, false},
		{"another authority", "broker-password", &tls.Config{RootCAs: x509.NewCertPool()}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := Dial(Config{Server: "127.0.0.1:1", Token: "t", Region: airtime.EU868, MQTT: "mqtts://" + l.Addr().String(),
				Username: "sower", Password: tt.password, TLS: tt.tls, Timeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			events, err := n.Events(t.Context(), "a")
			if !tt.ok {
				if !errors.Is(err, network.ErrUnavailable) || strings.Contains(err.Error(), tt.password) {
					t.Errorf("Events = %v, want ErrUnavailable and no password", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := broker.Publish("application/a/device/0101010101010a0b/event/up", []byte(`{"deduplicationId":"d",`+info+`,"fPort":2}`), false, 1); err != nil {
				t.Fatal(err)
			}
			ev := <-events
			ev.Done()
			if ev.ID != "up/d" {
				t.Errorf("event %+v", ev)
			}
		})
	}
}
