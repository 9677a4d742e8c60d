// Package run is the imperative shell of the engine: it carries out what the state machines of package
// campaign ask for, against a [network.Network] and in the time of a [network.Clock].
//
// One goroutine does everything, one thing at a time: it takes an event, steps the campaigns concerned,
// carries out their effects and feeds the results back. Nothing is stored; a campaign that is to survive its
// process needs a store beside this package.
package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

// Back-off after ErrUnavailable: doubled from the first to the last, in the time of the clock.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// Config says what an engine works with. Network and Clock are required.
type Config struct {
	Network network.Network
	Clock   network.Clock
	// Log receives one entry for everything that happens, in order; nil: nowhere.
	Log func(Entry)
	// Progress is called after each round of work with each campaign that was touched; nil: never. It must
	// not keep the campaign, which is not safe for concurrent use.
	Progress func(*campaign.Campaign)
}

// Engine runs campaigns. Add them, then call Run once.
type Engine struct {
	cfg       Config
	campaigns []*campaign.Campaign
	touched   map[*campaign.Campaign]bool
	retries   []retry
	seq       uint64
	groups    map[network.GroupID]uint32            // next frame counter
	messages  map[network.EUI64][]network.MessageID // the last that are known, to recognise an unknown one
}

// retry is an effect that waits for its next attempt.
type retry struct {
	at        time.Time
	seq       uint64
	c         *campaign.Campaign
	session   int // of the campaign; -1: none
	effect    session.Effect
	wait      time.Duration
	uncertain bool // the last attempt may have happened
}

// New returns an engine without campaigns.
func New(cfg Config) *Engine {
	return &Engine{cfg: cfg, touched: map[*campaign.Campaign]bool{}, groups: map[network.GroupID]uint32{},
		messages: map[network.EUI64][]network.MessageID{}}
}

// Add adds a campaign, which starts with Run. A device may be in one campaign only.
func (e *Engine) Add(c *campaign.Campaign) error {
	for _, other := range e.campaigns {
		if other.ID() == c.ID() {
			return fmt.Errorf("run: two campaigns are called %s", c.ID())
		}
		for _, row := range c.Rows() {
			if other.Has(row.EUI) {
				return fmt.Errorf("run: device %s is in campaigns %s and %s", row.EUI, other.ID(), c.ID())
			}
		}
	}
	e.campaigns = append(e.campaigns, c)
	return nil
}

// Run starts all campaigns and returns when they have ended. When ctx ends it aborts them, closes their
// groups as far as the network allows, and returns the cause.
func (e *Engine) Run(ctx context.Context) error {
	e.busy()
	if _, err := e.cfg.Network.Capabilities(ctx); err != nil {
		return err
	}
	subscription, cancel := context.WithCancel(ctx)
	events, drained, err := e.subscribe(subscription)
	defer func() {
		cancel()
		drained()
	}()
	if err != nil {
		return err
	}
	for _, c := range e.campaigns {
		e.step(ctx, c, campaign.Start{})
	}
	for !e.done() {
		e.progress()
		wake := e.cfg.Clock.WakeAt(e.nextWake())
		select {
		case <-ctx.Done():
			e.busy()
			e.abort(ctx)
			return context.Cause(ctx)
		case ev, ok := <-events:
			// Time must not pass between Done and the next WakeAt: the network releases it with Done.
			e.busy()
			if !ok {
				if ctx.Err() != nil {
					continue
				}
				return errors.New("run: the network ended its events")
			}
			e.event(ctx, ev)
		case <-wake:
			e.busy()
			e.tick(ctx)
		}
	}
	e.progress()
	return nil
}

// busy keeps virtual time from passing until the next WakeAt.
func (e *Engine) busy() { e.cfg.Clock.WakeAt(e.cfg.Clock.Now()) }

// subscribe merges the events of all applications. drained waits until the last is gone; call it after the
// context has ended.
func (e *Engine) subscribe(ctx context.Context) (events <-chan network.Event, drained func(), err error) {
	var sources []<-chan network.Event
	var apps []string
	drop := func(ch <-chan network.Event) {
		for ev := range ch {
			ev.Done()
		}
	}
	for _, c := range e.campaigns {
		if slices.Contains(apps, c.Application()) {
			continue
		}
		apps = append(apps, c.Application())
		ch, err := e.cfg.Network.Events(ctx, c.Application())
		if err != nil {
			return nil, func() {
				for _, s := range sources {
					drop(s)
				}
			}, err
		}
		sources = append(sources, ch)
	}
	if len(sources) == 1 {
		return sources[0], func() { drop(sources[0]) }, nil
	}
	merged := make(chan network.Event)
	left := make(chan struct{})
	for _, s := range sources {
		go func() {
			for ev := range s {
				merged <- ev
			}
			left <- struct{}{}
		}()
	}
	go func() {
		for range sources {
			<-left
		}
		close(merged)
	}()
	return merged, func() { drop(merged) }, nil
}

func (e *Engine) done() bool {
	for _, c := range e.campaigns {
		if !c.Ended() {
			return false
		}
	}
	return len(e.retries) == 0
}

func (e *Engine) nextWake() time.Time {
	var at time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, c := range e.campaigns {
		earlier(c.NextWake())
	}
	for _, r := range e.retries {
		earlier(r.at)
	}
	return at
}

func (e *Engine) progress() {
	for _, c := range e.campaigns {
		if e.touched[c] && e.cfg.Progress != nil {
			e.cfg.Progress(c)
		}
	}
	clear(e.touched)
}

// event steps the campaigns that have the device.
func (e *Engine) event(ctx context.Context, ev network.Event) {
	for _, c := range e.campaigns {
		if !c.Has(ev.Device) {
			continue
		}
		e.log(c, Entry{Kind: ev.Kind.String(), Device: &ev.Device, At: ev.At, FPort: ev.FPort, Payload: ev.Payload,
			Message: ev.Message, Text: ev.Reason})
		e.touched[c] = true
		effects := c.Step(e.cfg.Clock.Now(), campaign.Heard{Event: ev})
		// The step is taken, and whatever follows from it is the engine's own affair.
		ev.Done()
		e.effects(ctx, c, effects)
		return
	}
	ev.Done()
}

// tick steps the campaigns whose time has come and repeats effects that are due.
func (e *Engine) tick(ctx context.Context) {
	now := e.cfg.Clock.Now()
	for {
		i := -1
		for j, r := range e.retries {
			if !r.at.After(now) && (i < 0 || r.seq < e.retries[i].seq) {
				i = j
			}
		}
		if i < 0 {
			break
		}
		r := e.retries[i]
		e.retries = slices.Delete(e.retries, i, i+1)
		e.attempt(ctx, r)
	}
	for _, c := range e.campaigns {
		if at := c.NextWake(); !at.IsZero() && !at.After(now) {
			e.step(ctx, c, campaign.Tick{})
		}
	}
}

func (e *Engine) step(ctx context.Context, c *campaign.Campaign, ev campaign.Event) {
	e.touched[c] = true
	e.effects(ctx, c, c.Step(e.cfg.Clock.Now(), ev))
}

func (e *Engine) effects(ctx context.Context, c *campaign.Campaign, effects []campaign.Effect) {
	for _, eff := range effects {
		if rec, ok := eff.Do.(session.Record); ok {
			e.record(c, eff.Session, rec)
			continue
		}
		e.seq++
		e.attempt(ctx, retry{seq: e.seq, c: c, session: eff.Session, effect: eff.Do, wait: firstRetry})
	}
}

// abort ends all campaigns because ctx has ended.
func (e *Engine) abort(ctx context.Context) {
	// The groups must go, or they would go on sending; the context that ended must not prevent that.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	e.retries = nil
	for _, c := range e.campaigns {
		e.step(last, c, campaign.Abort{Reason: context.Cause(ctx).Error()})
	}
	e.progress()
}

// attempt carries out an effect once. It steps the campaign with the result, or schedules another attempt.
func (e *Engine) attempt(ctx context.Context, r retry) {
	res, err := e.do(ctx, &r)
	if err != nil && (errors.Is(err, network.ErrUnavailable) || errors.Is(err, network.ErrUncertain)) {
		if ctx.Err() != nil {
			return
		}
		now := e.cfg.Clock.Now()
		r.uncertain = r.uncertain || errors.Is(err, network.ErrUncertain)
		r.at = now.Add(r.wait)
		r.wait = min(2*r.wait, lastRetry)
		e.logEffect(r, "retry", err.Error())
		e.retries = append(e.retries, r)
		return
	}
	switch {
	case errors.Is(err, errNoKey):
		res.Failure = session.NoKey
	case errors.Is(err, errTooLate):
		res.Failure = session.TooLate
	case err != nil:
		res.Failure = session.Refused
	}
	if err != nil {
		res.Text = err.Error()
		e.logEffect(r, "failed", res.Text)
	}
	e.step(ctx, r.c, campaign.Result{Session: r.session, Result: res})
}
