package api

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
)

// Notice is the body of a webhook: something that people should know of. It is delivered at least once; the id is
// the same each time.
type Notice struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Campaign string    `json:"campaign"`
	Event    string    `json:"event"` // approval-needed, halt, cohort-halt or finish
	Text     string    `json:"text"`
	Cause    string    `json:"cause,omitempty"` // of a halt, from the registry
}

// notices are the events of a campaign that a webhook is told of.
var notices = map[string]bool{campaign.NoteApprovalNeeded: true, campaign.NoteHalt: true, campaign.NoteCohortHalt: true, campaign.NoteFinish: true}

// Webhook tells another program of notices. It follows the log of the campaigns, and remembers in Cursors how far it
// has come, so that a notice survives a restart and an hour without the receiver.
type Webhook struct {
	URL     string
	Secret  []byte // the body is signed with it by HMAC-SHA256
	Engine  Engine
	Store   *store.Store
	Cursors Cursors
	Client  *http.Client // nil: one that follows no redirect and waits 10 s
	Log     *slog.Logger
	Now     func() time.Time
	// After is time.After, but for tests.
	After func(time.Duration) <-chan time.Time
}

// Cursors keeps by campaign the Seq of the last entry that was dealt with.
type Cursors interface {
	Load() (map[string]int64, error)
	Save(map[string]int64) error
}

// Waits between attempts: doubled from the first to the last. After giveUp a notice is dropped and logged.
const (
	firstWait = time.Second
	lastWait  = 5 * time.Minute
	giveUp    = 24 * time.Hour
)

// sweepEvery is how often all logs are looked at: while a notice is delivered, updates of other campaigns may be missed.
const sweepEvery = time.Minute

// CheckWebhook judges the address of a webhook: notices are nobody else's business.
func CheckWebhook(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.User != nil:
		return errors.New("webhook: the address is no plain https://HOST/PATH")
	case u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("webhook: %s://%s would carry notices in clear text; use https", u.Scheme, u.Host)
}

// Run delivers notices until ctx ends.
func (h *Webhook) Run(ctx context.Context) error {
	if err := CheckWebhook(h.URL); err != nil {
		return err
	}
	if h.Client == nil {
		h.Client = &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if h.After == nil {
		h.After = time.After
	}
	at, err := h.Cursors.Load()
	if err != nil {
		return err
	}
	updates := h.Engine.Subscribe(ctx)
	for {
		if err := h.catchUp(ctx, at); err != nil {
			return err
		}
		again := h.After(sweepEvery)
		for due := false; !due; {
			select {
			case u, ok := <-updates:
				if !ok {
					return context.Cause(ctx)
				}
				if err := h.follow(ctx, u.Campaign, at); err != nil {
					return err
				}
			case <-again:
				due = true
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// catchUp delivers what nobody has been told of, and forgets campaigns of which nobody is told any more.
func (h *Webhook) catchUp(ctx context.Context, at map[string]int64) error {
	current := map[string]bool{}
	for after, more := int64(0), true; more; {
		list, err := h.Store.Campaigns(ctx, store.Filter{}, after, 500)
		if err != nil {
			return err
		}
		more = len(list) == 500
		for _, c := range list {
			after = c.Number
			if c.Left && h.Now().Sub(c.Ended) > giveUp {
				continue
			}
			current[c.ID] = true
			if err := h.follow(ctx, c.ID, at); err != nil {
				return err
			}
		}
	}
	maps.DeleteFunc(at, func(id string, _ int64) bool { return !current[id] })
	return nil
}

// follow delivers what is new in the log of a campaign.
func (h *Webhook) follow(ctx context.Context, id string, at map[string]int64) error {
	for {
		entries, err := h.Store.Entries(ctx, id, nil, at[id], 500)
		if err != nil {
			return err
		}
		told := false
		for _, e := range entries {
			if e.Session == "" && e.Device == nil && notices[e.Kind] {
				if err := h.deliver(ctx, e); err != nil {
					return err
				}
				told = true
			}
			at[id] = e.Seq
		}
		if told {
			if err := h.Cursors.Save(at); err != nil {
				return err
			}
		}
		if len(entries) < 500 {
			return nil
		}
	}
}

// deliver tries until it succeeds, the notice is too old, or ctx ends.
func (h *Webhook) deliver(ctx context.Context, e run.Entry) error {
	body, err := json.Marshal(Notice{ID: strconv.FormatInt(e.Seq, 10), Time: e.Time, Campaign: e.Campaign, Event: e.Kind, Text: e.Text, Cause: e.Cause})
	if err != nil {
		return err
	}
	begun := h.Now()
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		err := h.post(ctx, e.Kind, body)
		if err == nil {
			h.Log.Info("webhook delivered", "campaign", e.Campaign, "event", e.Kind)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if h.Now().Sub(begun) > giveUp {
			h.Log.Error("webhook given up", "campaign", e.Campaign, "event", e.Kind, "error", err.Error())
			return nil
		}
		h.Log.Warn("webhook not delivered", "campaign", e.Campaign, "event", e.Kind, "error", err.Error(), "again_in", wait.String())
		select {
		case <-h.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (h *Webhook) post(ctx context.Context, event string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(h.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Sower-Event", event)
	req.Header.Set("Sower-Time", at)
	req.Header.Set("Sower-Signature", "sha256="+Sign(h.Secret, at, body))
	res, err := h.Client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the address may hold a secret in its path
		}
		return err
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("the receiver answers %s", res.Status)
	}
	return nil
}

// Sign returns the HMAC-SHA256, in hexadecimal, over the time of a request (the header Sower-Time), a full stop and its
// body. A receiver computes it, compares it in constant time with the header Sower-Signature after "sha256=", and
// refuses times that are minutes old.
func Sign(secret []byte, at string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	io.WriteString(mac, at+".")
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}
