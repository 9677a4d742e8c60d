package chirpstack

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// minSecret is the shortest secret of a webhook, in bytes.
	minSecret = 16
	// httpTimeout is when ChirpStack gives a request up, which it does not repeat.
	httpTimeout = 5 * time.Second
	// maxBody is beyond any event.
	maxBody = 1 << 20
)

// Webhook receives events by ChirpStack's HTTP integration, in JSON or protobuf, as an [http.Handler]. ChirpStack
// posts each event with its kind in the query parameter "event"; under the integration's headers it must be told
// to send "Authorization: Bearer SECRET".
//
// The answer is 200 once the event has been dealt with and committed, 503 if that takes too long or nobody listens
// to the application. ChirpStack itself gives up after 5 s and does not try again, so that an event is lost for each
// request that fails; a proxy between them that repeats what was answered with 503 makes it safe, since repetitions
// are recognised. MQTT needs no such help.
type Webhook struct {
	secret  [sha256.Size]byte
	timeout time.Duration

	mu      sync.Mutex
	inboxes map[string]*inbox // by application
}

// NewWebhook returns a webhook that asks for a secret of 16 bytes or more and answers within timeout; 0 means 4 s,
// and 5 s is too long.
func NewWebhook(secret string, timeout time.Duration) (*Webhook, error) {
	if len(secret) < minSecret || strings.ContainsAny(secret, " \t\r\n") {
		return nil, fmt.Errorf("chirpstack: webhook: the secret must be one word of %d characters or more; make one with: openssl rand -hex 16", minSecret)
	}
	if timeout == 0 {
		timeout = 4 * time.Second
	}
	if timeout < 0 || timeout >= httpTimeout {
		return nil, fmt.Errorf("chirpstack: webhook: time-out %s, want more than 0 and less than %s, after which ChirpStack gives up", timeout, httpTimeout)
	}
	// Digests compare in constant time whatever their length.
	return &Webhook{secret: sha256.Sum256([]byte("Bearer " + secret)), timeout: timeout, inboxes: map[string]*inbox{}}, nil
}

func (h *Webhook) register(application string, s *inbox) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inboxes[application] != nil {
		return fmt.Errorf("chirpstack: webhook: application %s is listened to already", application)
	}
	h.inboxes[application] = s
	return nil
}

func (h *Webhook) unregister(application string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.inboxes, application)
}

// ServeHTTP implements [http.Handler].
func (h *Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	have := sha256.Sum256([]byte(r.Header.Get("Authorization")))
	if subtle.ConstantTimeCompare(have[:], h.secret[:]) != 1 && defended("webhook-secret") {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "the secret in Authorization is wrong or missing", http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "want POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if errors.As(err, new(*http.MaxBytesError)) {
		http.Error(w, fmt.Sprintf("want an event of at most %d bytes", maxBody), http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, "the body did not arrive", http.StatusBadRequest)
		return
	}
	ev, application, err := decodeEvent(r.URL.Query().Get("event"), body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if ev == nil {
		w.WriteHeader(http.StatusOK) // of no use to the engine
		return
	}
	busy := func(why string) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, why, http.StatusServiceUnavailable)
	}
	h.mu.Lock()
	s := h.inboxes[application]
	h.mu.Unlock()
	if s == nil {
		busy("nobody listens to application " + application)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.timeout)
	defer cancel()
	done := make(chan struct{})
	if err := s.deliver(ctx, *ev, sync.OnceFunc(func() { close(done) })); err != nil {
		busy("the engine is busy")
		return
	}
	if !defended("webhook-commit") {
		w.WriteHeader(http.StatusOK)
		return
	}
	select {
	case <-done:
		w.WriteHeader(http.StatusOK)
	case <-ctx.Done():
		busy("the event is not committed yet")
	}
}
