package api

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
)

// DefaultAddress is where the API listens unless told otherwise.
const DefaultAddress = "127.0.0.1:7060"

// Listen opens the port of the API. Without a certificate it refuses every address that others than this machine can
// reach, because tokens would travel in clear text.
func Listen(address, certFile, keyFile string) (net.Listener, error) {
	if address == "" {
		address = DefaultAddress
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("api: listen address %q, want HOST:PORT: %w", address, err)
	}
	if (certFile == "") != (keyFile == "") {
		return nil, fmt.Errorf("api: a certificate and its key go together: tls_cert is %q, tls_key is %q", certFile, keyFile)
	}
	if certFile == "" && !isLoopback(host) {
		return nil, fmt.Errorf("api: listen address %s can be reached by others, who would see API tokens in clear text; "+
			"name a certificate with tls_cert and tls_key, or listen on %s", address, DefaultAddress)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("api: listen on %s: %w", address, err)
	}
	if certFile == "" {
		return l, nil
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("api: certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"}}), nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
