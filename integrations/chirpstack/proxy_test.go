package chirpstack

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// A proxy before ChirpStack that answers for it, because that is restarted for instance, is no refusal: a campaign
// repeats its calls and does not halt.
func TestProxyAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		kind   string
	}{
		{"internal error", 500, "text/html"}, {"bad gateway", 502, "text/html"}, {"unavailable", 503, "text/html"}, {"gone", 404, "text/html"},
		{"too many requests", 429, "text/plain"}, {"a login page", 200, "text/html"}, {"no right", 403, "text/html"}, {"login", 401, "text/html"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.kind)
				w.WriteHeader(tt.status)
				w.Write([]byte("<html>"))
			}))
			var p http.Protocols
			p.SetUnencryptedHTTP2(true)
			s.Config.Protocols = &p
			s.Start()
			defer s.Close()
			n, err := Dial(Config{Server: s.URL, Token: "secret", Region: airtime.EU868, Timeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			if _, err := n.Queued(t.Context(), network.EUI64{7: 1}); !errors.Is(err, network.ErrUnavailable) || !strings.Contains(err.Error(), s.URL) {
				t.Errorf("Queued = %v, want ErrUnavailable and the address", err)
			}
			if _, err := n.Send(t.Context(), network.Message{Device: network.EUI64{7: 1}, FPort: 200, Payload: []byte{1}, Expires: time.Now().Add(time.Hour)}); !errors.Is(err, network.ErrUncertain) {
				t.Errorf("Send = %v, want ErrUncertain: the server may have got it", err)
			}
		})
	}
}
