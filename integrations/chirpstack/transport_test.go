package chirpstack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// TestTLS talks to a server whose certificate is signed by an authority of the test, and to nobody else.
func TestTLS(t *testing.T) {
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	s := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})))
	api.RegisterInternalServiceServer(s, f)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
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
			n, err := Dial(Config{Server: tt.server + l.Addr().String(), Token: "secret", Region: airtime.EU868, TLS: tt.tls, Timeout: 5 * time.Second})
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
