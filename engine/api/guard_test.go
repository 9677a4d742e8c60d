package api_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sower-fuota/sower/engine/api"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
)

// post sends a JSON body to a procedure and returns status and answer.
func (d *daemon) post(t testing.TB, procedure, token, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, d.http.URL+procedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// Every procedure of the API, as it is described, asks for the role that it is meant to ask for, and nobody gets
// in without.
func TestRoles(t *testing.T) {
	d := serve(t, 1)
	tokens := map[string]string{"": "", "stranger": "sower_" + strings.Repeat("A", 43),
		"viewer":   d.token(t, "v", pb.Role_ROLE_VIEWER),
		"operator": d.token(t, "o", pb.Role_ROLE_OPERATOR),
		"admin":    d.admin}
	rank := map[string]int{"": -1, "stranger": -1, "viewer": 1, "operator": 2, "admin": 3}
	want := map[string]int{ // the documented roles; a procedure that is missing here fails
		"ListCampaigns": 1, "GetCampaign": 1, "Watch": 1, "ListDevices": 1, "Explain": 1, "ExportEvidence": 1, "ListAudit": 1, "VerifyAudit": 1,
		"Plan": 2, "CreateCampaign": 2, "ApproveCampaign": 2, "StartCampaign": 2, "PauseCampaign": 2, "ResumeCampaign": 2, "AbortCampaign": 2,
		"Backup": 3, "CreateToken": 3, "ListTokens": 3, "RevokeToken": 3, "Health": -1,
	}
	services := pb.File_sower_v1_sower_proto.Services()
	n := 0
	for i := range services.Len() {
		for j := range services.Get(i).Methods().Len() {
			m := services.Get(i).Methods().Get(j)
			if m.IsStreamingServer() { // another content type; the guard is the same
				continue
			}
			n++
			need, ok := want[string(m.Name())]
			if !ok {
				t.Errorf("%s: no role is written down", m.FullName())
			}
			for who, token := range tokens {
				status, text := d.post(t, "/"+string(services.Get(i).FullName())+"/"+string(m.Name()), token, `{"unknown_field":1}`)
				refused := status == http.StatusUnauthorized || status == http.StatusForbidden || status == http.StatusTooManyRequests
				if refused != (rank[who] < need) {
					t.Errorf("%s as %q: status %d %s", m.Name(), who, status, text)
				}
			}
		}
	}
	if n != len(want)-2 {
		t.Errorf("%d procedures, want %d", n, len(want)-2)
	}
	for _, token := range tokens {
		if token != "" && strings.Contains(d.log.String(), token) {
			t.Error("a token stands in the log")
		}
	}
	if status, _ := d.post(t, "/sower.v1.CampaignService/Nothing", d.admin, "{}"); status != http.StatusNotFound {
		t.Errorf("an unknown procedure: %d", status)
	}
}

func TestTokens(t *testing.T) {
	d := serve(t, 1)
	admin := d.adminOf(d.admin)
	list := func(token string) error {
		_, err := d.campaigns(token).ListCampaigns(t.Context(), connect.NewRequest(&pb.ListCampaignsRequest{}))
		return err
	}
	made, err := admin.CreateToken(t.Context(), connect.NewRequest(&pb.CreateTokenRequest{Name: "anna", Role: pb.Role_ROLE_VIEWER, Lifetime: durationpb.New(time.Hour)}))
	if err != nil || !strings.HasPrefix(made.Msg.Token, "sower_") || len(made.Msg.Token) != 49 {
		t.Fatalf("%v %v", err, made)
	}
	if err := list(made.Msg.Token); err != nil {
		t.Error(err)
	}
	d.now.Add(int64(2 * time.Hour))
	wantCode(t, "after its lifetime", list(made.Msg.Token), connect.CodeUnauthenticated, "has expired")
	made, err = admin.CreateToken(t.Context(), connect.NewRequest(&pb.CreateTokenRequest{Name: "anna", Role: pb.Role_ROLE_VIEWER}))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := admin.RevokeToken(t.Context(), connect.NewRequest(&pb.RevokeTokenRequest{Id: made.Msg.Info.Id})); err != nil {
			t.Error(err)
		}
	}
	wantCode(t, "after it was revoked", list(made.Msg.Token), connect.CodeUnauthenticated, "was revoked")
	all, err := admin.ListTokens(t.Context(), connect.NewRequest(&pb.ListTokensRequest{}))
	last := ""
	for _, k := range all.Msg.GetTokens() {
		if k.Role == pb.Role_ROLE_ADMIN {
			last = k.Id
		}
	}
	if err != nil || len(all.Msg.Tokens) != 3 || last == "" {
		t.Fatalf("%v %v", err, all)
	}
	if raw, _ := proto.Marshal(all.Msg); bytes.Contains(raw, []byte("sower_")) {
		t.Error("the list shows a token")
	}
	_, err = admin.RevokeToken(t.Context(), connect.NewRequest(&pb.RevokeTokenRequest{Id: last}))
	wantCode(t, "the last administrator", err, connect.CodeFailedPrecondition, "create another one first")
	for name, req := range map[string]*pb.CreateTokenRequest{"no role": {Name: "a"}, "no name": {Role: 1}, "the engine's name": {Name: "sower", Role: 1},
		"a role of the future": {Name: "a", Role: 4}, "no time": {Name: "a", Role: 1, Lifetime: durationpb.New(0)}} {
		_, err := admin.CreateToken(t.Context(), connect.NewRequest(req))
		wantCode(t, name, err, connect.CodeInvalidArgument, "want")
	}
}

// Whoever guesses tokens is soon told to wait; whoever has one is let in all the same.
func TestGuessing(t *testing.T) {
	d := serve(t, 1)
	codes := map[int]int{}
	for range 30 {
		status, _ := d.post(t, "/sower.v1.CampaignService/ListCampaigns", "sower_guess", "{}")
		codes[status]++
	}
	if codes[http.StatusUnauthorized] != 10 || codes[http.StatusTooManyRequests] != 20 {
		t.Errorf("answers by status: %v", codes)
	}
	if status, text := d.post(t, "/sower.v1.CampaignService/ListCampaigns", d.admin, "{}"); status != http.StatusOK {
		t.Errorf("a valid token: %d %s", status, text)
	}
	d.now.Add(int64(10 * time.Second))
	if status, _ := d.post(t, "/sower.v1.CampaignService/ListCampaigns", "", "{}"); status != http.StatusUnauthorized {
		t.Errorf("a while later: %d", status)
	}
}

func TestProtocols(t *testing.T) {
	d := serve(t, 1)
	if status, text := d.post(t, "/sower.v1.AdminService/Health", "", "{}"); status != http.StatusOK || !strings.Contains(text, `"ok":true`) {
		t.Errorf("JSON: %d %s", status, text)
	}
	for name, opt := range map[string]connect.ClientOption{"gRPC-Web": connect.WithGRPCWeb(), "JSON": connect.WithProtoJSON()} {
		if _, err := d.campaigns(d.admin, opt).ListCampaigns(t.Context(), connect.NewRequest(&pb.ListCampaignsRequest{})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err := d.campaigns("sower_wrong", opt).ListCampaigns(t.Context(), connect.NewRequest(&pb.ListCampaignsRequest{}))
		wantCode(t, name+" with a wrong token", err, connect.CodeUnauthenticated, "unknown")
	}
	if status, _ := d.post(t, "/sower.v1.CampaignService/ListCampaigns", d.admin, `{"filter":"`+strings.Repeat("x", 1<<17)+`"}`); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a request of 128 KiB: %d, want to be refused as too large", status)
	}
	for name, body := range map[string]string{"filter": `{"filter":"color=red"}`, "page": `{"pageSize":501}`, "token": `{"pageToken":"x"}`, "JSON": `{`} {
		if status, text := d.post(t, "/sower.v1.CampaignService/ListCampaigns", d.admin, body); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
}

// A port that others can reach needs a certificate.
func TestListen(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	certificate(t, cert, key)
	for _, tt := range []struct{ name, address, cert, key, want string }{
		{"anybody", ":0", "", "", "tls_cert and tls_key"},
		{"all addresses", "0.0.0.0:0", "", "", "tls_cert and tls_key"},
		{"all addresses, IPv6", "[::]:0", "", "", "tls_cert and tls_key"},
		{"a name", "lns.example.com:1", "", "", "tls_cert and tls_key"},
		{"no port", "127.0.0.1", "", "", "want HOST:PORT"},
		{"no key", "127.0.0.1:0", cert, "", "go together"},
		{"key of another", "127.0.0.1:0", cert, cert, "certificate"},
	} {
		if l, err := api.Listen(tt.address, tt.cert, tt.key); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v %v; want %q", tt.name, l, err, tt.want)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "localhost:0"} {
		l, err := api.Listen(address, "", "")
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		if host, _, _ := net.SplitHostPort(l.Addr().String()); !net.ParseIP(host).IsLoopback() {
			t.Errorf("%s listens on %s", address, l.Addr())
		}
		l.Close()
	}
	l, err := api.Listen("0.0.0.0:0", cert, key)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if _, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

// certificate writes one that nobody trusts.
func certificate(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, b := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
