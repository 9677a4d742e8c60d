package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sower-fuota/sower/engine/api"
	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
)

// client are the flags of verbs that speak to `sower serve`.
type client struct {
	server, tokenFile, caFile string
	json                      bool
}

func (c *client) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.server, "server", "", "address of sower serve (default: $SOWER_SERVER, else http://"+api.DefaultAddress+")")
	f.StringVar(&c.tokenFile, "token-file", "", "file with the API token (default: $SOWER_TOKEN)")
	f.StringVar(&c.caFile, "ca-file", "", "certificate authority of the server, PEM (default: the roots of the system)")
	f.BoolVar(&c.json, "json", false, "print JSON")
}

func (c *client) campaigns() (sowerv1connect.CampaignServiceClient, error) {
	h, err := c.http()
	if err != nil {
		return nil, err
	}
	return sowerv1connect.NewCampaignServiceClient(h, c.server), nil
}

func (c *client) admin() (sowerv1connect.AdminServiceClient, error) {
	h, err := c.http()
	if err != nil {
		return nil, err
	}
	return sowerv1connect.NewAdminServiceClient(h, c.server), nil
}

// http returns a client that adds the token to each request.
func (c *client) http() (*http.Client, error) {
	if c.server == "" {
		c.server = os.Getenv("SOWER_SERVER")
	}
	if c.server == "" {
		c.server = "http://" + api.DefaultAddress
	}
	u, err := url.Parse(c.server)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return nil, usagef("--server %q, want https://HOST:PORT, or http://HOST:PORT on this machine", c.server)
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, usagef("--server %s would get the API token in clear text; use https", c.server)
	}
	c.server = strings.TrimSuffix(c.server, "/")
	token := strings.TrimSpace(os.Getenv("SOWER_TOKEN"))
	if c.tokenFile != "" {
		text, err := readInput("API token", c.tokenFile)
		if err != nil {
			return nil, err
		}
		token = strings.TrimSpace(string(text))
	}
	if token == "" {
		return nil, usagef("no API token: put it into the environment variable SOWER_TOKEN, or into a file and name that with --token-file")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 15 * time.Minute // planning a large fleet takes its time
	if c.caFile != "" {
		text, err := readInput("certificate authority", c.caFile)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("certificate authority %s: no PEM certificate in it", c.caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return &http.Client{Transport: withToken{token, transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, nil
}

// withToken adds an API token to requests.
type withToken struct {
	token string
	next  http.RoundTripper
}

func (t withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+t.token)
	return t.next.RoundTrip(r)
}

// explain turns an error of the API into what a person can use.
func (c *client) explain(err error) error {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return err
	}
	switch plain := strings.HasPrefix(c.server, "http:"); {
	case strings.Contains(ce.Message(), "failed to verify certificate"):
		return fmt.Errorf("sower serve at %s: %s; name the authority that has signed it with --ca-file", c.server, ce.Message())
	case plain && !connect.IsWireError(ce) && strings.Contains(ce.Message(), "400 Bad Request"):
		return fmt.Errorf("sower serve at %s: %s; if it has a certificate, write https", c.server, ce.Message())
	case ce.Code() == connect.CodeUnavailable && !connect.IsWireError(ce):
		return fmt.Errorf("sower serve at %s does not answer: %s; is it running, and is --server right?", c.server, ce.Message())
	}
	return errors.New(ce.Message())
}

// print writes an answer as JSON, one document.
func (c *client) print(w io.Writer, m proto.Message) error {
	b, err := protojson.MarshalOptions{Multiline: true, Indent: "  ", EmitUnpopulated: false}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// printLine writes an answer as JSON in one line.
func (c *client) printLine(w io.Writer, m proto.Message) error {
	b, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", b)
	return err
}

// pages calls f for one page of a list after the other; f returns the token of the next.
func pages(f func(token string) (next string, err error)) error {
	for token := ""; ; {
		next, err := f(token)
		if err != nil || next == "" {
			return err
		}
		token = next
	}
}
