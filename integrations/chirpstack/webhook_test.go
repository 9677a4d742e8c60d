package chirpstack

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/protobuf/proto"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

const hookSecret = "0123456789abcdef"

// hooked is a network whose events come by webhook from application a; the engine takes them from events, in less than
// a minute.
func hooked(t testing.TB) (h *Webhook, n *Network, events <-chan network.Event, stop context.CancelFunc) {
	t.Helper()
	h, err := NewWebhook(hookSecret, 0)
	if err != nil {
		t.Fatal(err)
	}
	h.timeout = time.Minute
	if n, err = Dial(Config{Server: "127.0.0.1:1", Token: "t", Region: airtime.EU868, Webhook: h}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		n.Close()
	})
	if events, err = n.Events(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	return h, n, events, cancel
}

func postTo(h http.Handler, method, query, auth string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/events?"+query, strings.NewReader(string(body)))
	r.Header.Set("Authorization", auth)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestWebhook(t *testing.T) {
	h, n, events, stop := hooked(t)
	var got []network.Event
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for ev := range events {
			got = append(got, ev)
			ev.Done()
		}
	}()
	binary, err := proto.Marshal(&integration.UplinkEvent{DeduplicationId: "d2", FPort: 3, Data: []byte{9},
		DeviceInfo: &integration.DeviceInfo{DevEui: "0101010101010a0b", ApplicationId: "a"}})
	if err != nil {
		t.Fatal(err)
	}
	up := []byte(`{"deduplicationId":"d1",` + info + `,"fPort":2,"data":"Bw=="}`)
	other := []byte(`{"deduplicationId":"d3","deviceInfo":{"devEui":"0101010101010a0b","applicationId":"b"}}`)
	const good = "Bearer " + hookSecret
	for _, tt := range []struct {
		name, method, query, auth string
		body                      []byte
		want                      int
	}{
		{"JSON", "POST", "event=up", good, up, 200},
		{"the same again", "POST", "event=up", good, up, 200},
		{"protobuf", "POST", "event=up", good, binary, 200},
		{"of no use", "POST", "event=location", good, []byte(`{}`), 200},
		{"no secret", "POST", "event=up", "", up, 401},
		{"wrong secret", "POST", "event=up", good + "0", up, 401},
		{"secret as basic", "POST", "event=up", "Basic " + hookSecret, up, 401},
		{"not a post", "GET", "event=up", good, nil, 405},
		{"no event", "POST", "event=up", good, []byte(`{"deviceInfo":{}}`), 400},
		{"not understood", "POST", "event=up", good, []byte(`{`), 400},
		{"too long", "POST", "event=up", good, make([]byte, maxBody+1), 413},
		{"an application nobody listens to", "POST", "event=up", good, other, 503},
	} {
		w := postTo(h, tt.method, tt.query, tt.auth, tt.body)
		if w.Code != tt.want || (w.Code == 503) != (w.Header().Get("Retry-After") != "") {
			t.Errorf("%s: status %d (%s), want %d", tt.name, w.Code, strings.TrimSpace(w.Body.String()), tt.want)
		}
	}
	if _, err := n.Events(t.Context(), "a"); err == nil {
		t.Error("two engines listen to one application")
	}
	stop()
	<-finished
	if len(got) != 2 || got[0].FPort != 2 || got[1].FPort != 3 || got[1].Payload[0] != 9 {
		t.Errorf("events %+v, want two uplinks", got)
	}
	if w := postTo(h, "POST", "event=up", good, up); w.Code != 503 {
		t.Errorf("status %d after the engine has gone, want 503", w.Code)
	}
}

// TestWebhookBusy posts while the engine takes nothing, and again afterwards.
func TestWebhookBusy(t *testing.T) {
	h, _, events, _ := hooked(t)
	patience := h.timeout
	h.timeout = 20 * time.Millisecond
	up := []byte(`{"deduplicationId":"d1",` + info + `,"fPort":2,"data":"Bw=="}`)
	if w := postTo(h, "POST", "event=up", "Bearer "+hookSecret, up); w.Code != 503 {
		t.Errorf("status %d while the engine is busy, want 503", w.Code)
	}
	h.timeout = patience
	go func() {
		for ev := range events {
			ev.Done()
		}
	}()
	if w := postTo(h, "POST", "event=up", "Bearer "+hookSecret, up); w.Code != 200 {
		t.Errorf("status %d for the repetition, want 200", w.Code)
	}
}

func TestNewWebhookRefuses(t *testing.T) {
	for _, tt := range []struct {
		secret  string
		timeout time.Duration
		want    string
	}{
		{"short", 0, "openssl"}, {"a secret of two or more words", 0, "one word"},
		{hookSecret, 5 * time.Second, "gives up"}, {hookSecret, -1, "more than 0"},
	} {
		if _, err := NewWebhook(tt.secret, tt.timeout); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), tt.secret) {
			t.Errorf("NewWebhook(%q, %s) = %v, want %q", tt.secret, tt.timeout, err, tt.want)
		}
	}
}

// TestInboxRepeats lets an event come again while it is under way: both are acknowledged when it is done, none before.
func TestInboxRepeats(t *testing.T) {
	s := newInbox()
	var acks int
	ack := func() { acks++ }
	taken := make(chan network.Event)
	go func() { taken <- <-s.out }()
	for range 2 {
		if err := s.deliver(t.Context(), network.Event{ID: "x"}, ack); err != nil {
			t.Fatal(err)
		}
	}
	ev := <-taken
	if acks != 0 {
		t.Errorf("%d acknowledgements before Done", acks)
	}
	ev.Done()
	ev.Done()
	if acks != 2 {
		t.Errorf("%d acknowledgements, want 2", acks)
	}
	if err := s.deliver(t.Context(), network.Event{ID: "x"}, ack); err != nil || acks != 3 {
		t.Errorf("one that is done: %d acknowledgements, %v, want 3", acks, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.deliver(ended, network.Event{ID: "y"}, ack); err == nil || acks != 3 {
		t.Errorf("one that nobody takes: %v, %d acknowledgements", err, acks)
	}
	if len(s.seen) != 1 {
		t.Errorf("%d events remembered, want 1", len(s.seen))
	}
}

func TestInboxIsBounded(t *testing.T) {
	s := newInbox()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for ev := range s.out {
			ev.Done()
		}
	}()
	id := func(i int) string { return string(rune('0'+i%10)) + "/" + time.Duration(i).String() }
	for i := range remembered + 1000 {
		if err := s.deliver(t.Context(), network.Event{ID: id(i)}, func() {}); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	<-finished
	if len(s.seen) > remembered+1 || len(s.order) > remembered {
		t.Errorf("%d events remembered, want at most %d", len(s.seen), remembered)
	}
}

// BenchmarkInbox hands events over that are done at once, far beyond what is remembered.
func BenchmarkInbox(b *testing.B) {
	s := newInbox()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for ev := range s.out {
			ev.Done()
		}
	}()
	i := 0
	for b.Loop() {
		i++
		if err := s.deliver(b.Context(), network.Event{ID: time.Duration(i).String()}, func() {}); err != nil {
			b.Fatal(err)
		}
	}
	s.close()
	<-finished
}

func FuzzWebhook(f *testing.F) {
	f.Add("up", []byte(`{"deduplicationId":"d",`+info+`,"fPort":200,"data":"AgA="}`))
	f.Add("join", []byte(`{"deduplicationId":"d",`+info+`}`))
	f.Add("log", []byte(`{"code":"EXPIRED",`+info+`,"context":{"queue_item_id":"q"}}`))
	binary, err := proto.Marshal(&integration.UplinkEvent{DeduplicationId: "d", FPort: 3, DeviceInfo: &integration.DeviceInfo{DevEui: "0101010101010a0b", ApplicationId: "a"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("up", binary)
	h, _, events, _ := hooked(f)
	heard := make(chan network.Event, 1)
	go func() {
		for ev := range events {
			select {
			case heard <- ev:
			default:
			}
			ev.Done()
		}
	}()
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(string(body)))
		r.URL.RawQuery = "event=" + kind
		r.Header.Set("Authorization", "Bearer "+hookSecret)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 200, 400, 413, 503:
		default:
			t.Errorf("status %d", w.Code)
		}
		select {
		case ev := <-heard:
			if w.Code != 200 || ev.Kind == 0 || ev.ID == "" {
				t.Errorf("status %d and event %+v", w.Code, ev)
			}
		default:
		}
	})
}
