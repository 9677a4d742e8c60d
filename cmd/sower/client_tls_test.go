package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// What is wrong with the address of a daemon with a certificate is said, and what to write.
func TestClientOfTLS(t *testing.T) {
	t.Setenv("SOWER_TOKEN", "sower_x")
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	for address, want := range map[string]string{s.URL: "--ca-file", strings.Replace(s.URL, "https:", "http:", 1): "write https"} {
		if _, _, err := verb(newCampaignCommand(), "list", "--server", address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", address, err, want)
		}
	}
}
