package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
)

// Before anything is sent: a token must be there, and must not travel in clear text.
func TestClientRefuses(t *testing.T) {
	t.Setenv("SOWER_TOKEN", "")
	t.Setenv("SOWER_SERVER", "")
	usage := func(err error) bool { return errors.As(err, new(usageError)) }
	if _, _, err := verb(newCampaignCommand(), "list"); !usage(err) || !strings.Contains(err.Error(), "SOWER_TOKEN") {
		t.Errorf("no token: %v", err)
	}
	t.Setenv("SOWER_TOKEN", "sower_CANARY")
	for _, server := range []string{"http://sower.example.com:7060", "http://10.0.0.1:7060", "sower.example.com", "ftp://127.0.0.1", "https://user:pass@h"} {
		if _, _, err := verb(newCampaignCommand(), "list", "--server", server); !usage(err) || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: %v", server, err)
		}
	}
	for _, args := range [][]string{{"pause", "c"}, {"abort", "c"}, {"evidence"}, {"evidence", "c", "--verify", "f"}, {"explain", "c"}, {"start"}} {
		cmd := newCampaignCommand()
		refuseArguments(cmd)
		if _, _, err := verb(cmd, args...); !usage(err) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if _, _, err := verb(newCampaignCommand(), "list", "--server", "http://"+nobody); err == nil || !strings.Contains(err.Error(), "is it running") ||
		strings.Contains(err.Error(), "\n") {
		t.Errorf("nobody answers: %v", err)
	}
}

// The port speaks gRPC without TLS, too, as every gRPC client on this machine does.
func TestServeRoles(t *testing.T) {
	f := sow(t, 2)
	admin := f.login(t)
	stop := f.start(t)
	defer stop()
	var p http.Protocols
	p.SetUnencryptedHTTP2(true)
	svc := sowerv1connect.NewCampaignServiceClient(&http.Client{Transport: withToken{admin, &http.Transport{Protocols: &p}}}, os.Getenv("SOWER_SERVER"), connect.WithGRPC())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := svc.ListCampaigns(ctx, connect.NewRequest(&pb.ListCampaignsRequest{})); err != nil {
		t.Errorf("gRPC: %v", err)
	}
	tokens := map[string]string{}
	for _, role := range []string{"viewer", "operator"} {
		out, _, err := verb(newTokenCommand(), "create", role, "--role", role)
		if err != nil {
			t.Fatal(err)
		}
		tokens[role] = tokenText.FindString(out)
	}
	path := f.write(t, "field.toml", fmt.Sprintf(fieldCampaign, meters, "[policy]\napprovals = 1\n"))
	t.Setenv("SOWER_TOKEN", tokens["viewer"])
	if _, _, err := verb(newCampaignCommand(), "create", path); err == nil || !strings.Contains(err.Error(), "token viewer has the role viewer, this takes operator") {
		t.Errorf("a viewer creates: %v", err)
	}
	t.Setenv("SOWER_TOKEN", tokens["operator"])
	if out := can(t, "create", path); !strings.Contains(out, "it needs 1 approvals") {
		t.Errorf("%s", out)
	}
	if _, _, err := verb(newCampaignCommand(), "approve", "field"); err == nil || !strings.Contains(err.Error(), "somebody else must approve") {
		t.Errorf("approve one's own: %v", err)
	}
	if _, _, err := verb(newTokenCommand(), "create", "x"); err == nil || !strings.Contains(err.Error(), "this takes admin") {
		t.Errorf("an operator makes a token: %v", err)
	}
	t.Setenv("SOWER_TOKEN", admin)
	if out := can(t, "approve", "field", "--note", "read the plan"); !strings.Contains(out, "field: draft; 0 of 2") {
		t.Errorf("%s", out)
	}
	// What is wrong is listed with the path that the operator knows, and the exit code is that of a failure.
	broken := f.write(t, "broken.toml", strings.Replace(fmt.Sprintf(fieldCampaign, meters, "typo = 1\n"), "full.sow", "none.sow", 1))
	_, _, err := verb(newCampaignCommand(), "create", broken)
	if err == nil || !strings.Contains(err.Error(), broken+":4: bundle none.sow") || !strings.Contains(err.Error(), `unknown key "timing.typo"`) || errors.As(err, new(usageError)) {
		t.Errorf("%v", err)
	}
	if out, _, err := verb(newTokenCommand(), "list"); err != nil || !strings.Contains(out, "operator") || tokenText.MatchString(out) {
		t.Errorf("%s %v", out, err)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out, _, err := verb(newRootCommand(), "completion", shell); err != nil || !strings.Contains(out, "sower") {
			t.Errorf("%s: %v", shell, err)
		}
	}
}

// ChirpStack may post events to the same port; it has a secret of its own, which is no API token.
func TestServeHTTPEvents(t *testing.T) {
	f := sow(t, 1)
	f.login(t)
	text, err := os.ReadFile(f.file("sower.toml"))
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "events.secret", "0123456789abcdef0123456789abcdef\n")
	f.write(t, "sower.toml", strings.Replace(string(text), "[server]", "http_secret_file = \"events.secret\"\n[server]", 1))
	stop := f.start(t)
	defer stop()
	for secret, want := range map[string]int{"": http.StatusUnauthorized, "Bearer " + os.Getenv("SOWER_TOKEN"): http.StatusUnauthorized,
		"Bearer 0123456789abcdef0123456789abcdef": http.StatusBadRequest} {
		req, err := http.NewRequest(http.MethodPost, os.Getenv("SOWER_SERVER")+"/chirpstack?event=up", strings.NewReader("{"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", secret)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("secret of %d characters: %s, want %d", len(secret), res.Status, want)
		}
	}
}
