package run

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/campaign"
)

// engineName is who decides what nobody was asked for.
const engineName = "sower"

// request is something that somebody else asks of the engine's goroutine.
type request struct {
	do    func() error
	late  bool // the answer waits for the commit
	reply chan error
}

func (e *Engine) serve(r request) {
	if err := r.do(); err != nil || !r.late {
		r.reply <- err
		return
	}
	e.round.answers = append(e.round.answers, r)
}

// ask runs do on the engine's goroutine.
func (e *Engine) ask(ctx context.Context, late bool, do func() error) error {
	r := request{do, late, make(chan error, 1)}
	select {
	case e.requests <- r:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-e.stopped:
		return ErrStopped
	}
	select {
	case err := <-r.reply:
		return err
	case <-e.stopped:
		select {
		case err := <-r.reply:
			return err
		default:
			return ErrStopped
		}
	}
}

// Create adds a campaign, which waits for its start. When it returns nil the campaign is durable. It waits for
// Run. Errors: [campaign.ErrSpec]; [ErrConflict] for an ID that is taken or a device that is busy elsewhere.
func (e *Engine) Create(ctx context.Context, spec campaign.Spec, file CampaignFile, by string) error {
	spec.Creator = by
	c, err := campaign.New(spec)
	if err != nil {
		return err
	}
	return e.ask(ctx, true, func() error {
		if err := e.admit(c); err != nil {
			return err
		}
		e.adopt(c)
		e.round.Created = append(e.round.Created, Created{c, file, by})
		e.round.touch(c)
		e.audit(c, by, "create", "")
		e.sources.wanted = true
		return nil
	})
}

// Command gives a campaign an order: [campaign.Approve], Start, Pause, Continue or Abort. by is who does. When it returns
// nil the order is durable. Errors: [ErrNotFound]; [ErrConflict] when the order means nothing now.
func (e *Engine) Command(ctx context.Context, id string, ev campaign.Event, by string) error {
	return e.ask(ctx, true, func() error {
		c, err := e.present(id)
		if err != nil {
			return err
		}
		return e.command(c, ev, by)
	})
}

// present finds a campaign in memory.
func (e *Engine) present(id string) (*campaign.Campaign, error) {
	c := e.find(id)
	switch {
	case e.gone[id]:
		return nil, fmt.Errorf("%w: campaign %s has ended", ErrConflict, id)
	case c == nil:
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
	}
	return c, nil
}

// told is the most facts that go into one commit, while which nobody else is served.
const told = 500

// Tell tells a campaign what is known of its devices from elsewhere: [campaign.Proven] or [campaign.Battery]. by is who
// says so. When it returns nil all facts are durable. A fact that means nothing now is passed over. Errors: [ErrNotFound];
// [ErrConflict] for an event that is no such fact, or a campaign that has ended and left.
func (e *Engine) Tell(ctx context.Context, id string, facts []campaign.Event, by string) error {
	for some := range slices.Chunk(facts, told) {
		err := e.ask(ctx, true, func() error {
			c, err := e.present(id)
			if err != nil {
				return err
			}
			for _, f := range some {
				if err := e.fact(c, f, by); err != nil {
					return err
				}
			}
			e.round.touch(c)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) fact(c *campaign.Campaign, ev campaign.Event, by string) error {
	proven, ok := ev.(campaign.Proven)
	if _, battery := ev.(campaign.Battery); !ok && !battery {
		return fmt.Errorf("%w: %T is not a fact", ErrConflict, ev)
	}
	if ok {
		e.audit(c, by, "proven", proven.Device.String())
	}
	e.step(c, ev)
	return nil
}

// View calls f with the campaigns in memory, in the order of their creation: all but those that have ended and left
// ([Config].Linger). f runs on the engine's goroutine: it must be
// quick, change nothing and keep nothing.
func (e *Engine) View(ctx context.Context, f func(campaigns []*campaign.Campaign)) error {
	return e.ask(ctx, false, func() error {
		f(e.campaigns)
		return nil
	})
}

func (e *Engine) audit(c *campaign.Campaign, by, action, text string) {
	e.round.Audit = append(e.round.Audit, Audit{Time: e.cfg.Clock.Now().UTC(), By: by, Action: action, Campaign: c.ID(), Text: text})
}

// command carries out an order.
func (e *Engine) command(c *campaign.Campaign, ev campaign.Event, by string) error {
	action, text := "", ""
	switch order := ev.(type) {
	case campaign.Approve:
		order.By = by
		action, text, ev = "approve", order.Note, order
	case campaign.Start:
		order.By = by
		action, ev = "start", order
	case campaign.Pause:
		order.By = by
		action, text, ev = "pause", order.Reason, order
	case campaign.Continue:
		order.By = by
		action, ev = "continue", order
	case campaign.Abort:
		order.By = by
		action, text, ev = "abort", order.Reason, order
	default:
		return fmt.Errorf("%w: %T is not an order", ErrConflict, ev)
	}
	if err := c.Allows(ev); err != nil {
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	if action == "start" {
		now := e.cfg.Clock.Now()
		for i, at := range e.expiries[c] {
			if !at.IsZero() && !now.Before(at) {
				return fmt.Errorf("%w: the bundle of session %s expired at %s; sign it anew and create another campaign",
					ErrConflict, name(c, i), at.Format(time.RFC3339))
			}
		}
	}
	e.audit(c, by, action, text)
	e.step(c, ev)
	return nil
}

// expiries are the instants at which the blocks of the sessions expire; zero: never, or not a bundle.
func expiries(spec campaign.Spec) []time.Time {
	var out []time.Time
	for _, w := range spec.Waves {
		for _, s := range w.Sessions {
			var at time.Time
			if m, _, err := bundle.Parse(s.Block); err == nil && m.Expiry != 0 {
				at = airtime.UTC(time.Duration(m.Expiry) * time.Second)
			}
			out = append(out, at)
		}
	}
	return out
}

// expired says why the wave that a campaign has just begun must not be sent; empty: it may.
func (e *Engine) expired(c *campaign.Campaign, before campaign.State, now time.Time) string {
	after := c.Header()
	begun := before.Phase == campaign.PhaseDraft || before.Phase == campaign.PhaseWaiting || before.Wave != after.Wave
	if after.Phase != campaign.PhaseRunning || !begun {
		return ""
	}
	for i, at := range e.expiries[c] {
		if c.WaveOf(i) == after.Wave && !at.IsZero() && !now.Before(at) {
			return fmt.Sprintf("the bundle of session %s expired at %s", name(c, i), at.Format(time.RFC3339))
		}
	}
	return ""
}
