package run

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
)

// sources merges the events of all applications.
type sources struct {
	events chan network.Event
	ended  chan error // a source has ended
	wanted bool       // a campaign has come since the last subscription
	retry  time.Time  // when a subscription that could not be made is tried again; zero: all are made
	wait   time.Duration

	keeps bool // the network keeps for the next Run what this one has not taken
	ctx   context.Context
	apps  map[string]bool // whose subscription is made, or under way
	wg    sync.WaitGroup
}

// start prepares for subscriptions that last as long as ctx.
func (s *sources) start(ctx context.Context, cfg Config) {
	// What arrives during a commit goes into the next one.
	*s = sources{keeps: cfg.Store != nil, events: make(chan network.Event, cfg.Batch-1), ended: make(chan error, 1), wanted: true, wait: firstRetry,
		ctx: ctx, apps: map[string]bool{}}
}

// subscribe makes the subscriptions that are missing; with Concurrent beside the engine, because a broker that is away
// is found out by waiting for it.
func (e *Engine) subscribe() {
	s := &e.sources
	if !s.wanted && (s.retry.IsZero() || e.cfg.Clock.Now().Before(s.retry)) {
		return
	}
	s.wanted, s.retry = false, time.Time{}
	for _, c := range e.campaigns {
		if c.Ended() || s.apps[c.Application()] {
			continue
		}
		s.apps[c.Application()] = true
		if !e.cfg.Concurrent {
			ch, err := e.cfg.Network.Events(s.ctx, c.Application())
			e.subscribed(c, ch, err)
			continue
		}
		go func() {
			ch, err := e.cfg.Network.Events(s.ctx, c.Application())
			r := request{reply: make(chan error, 1), do: func() error {
				e.subscribed(c, ch, err)
				return nil
			}}
			select {
			case e.requests <- r:
			case <-e.stopped:
			}
		}()
	}
}

// subscribed takes what came of a subscription. With a Store a network that is away is waited for: what it has for the
// engine it keeps.
func (e *Engine) subscribed(c *campaign.Campaign, ch <-chan network.Event, err error) {
	s := &e.sources
	switch {
	case err == nil:
		s.wait = firstRetry
		s.forward(ch)
	case s.ctx.Err() != nil:
	case e.cfg.Store == nil || !errors.Is(err, network.ErrUnavailable):
		e.round.broken = err
	default:
		e.log(c, Entry{Kind: "retry", Text: err.Error()})
		s.apps[c.Application()] = false
		s.retry, s.wait = e.cfg.Clock.Now().Add(s.wait), min(2*s.wait, lastRetry)
	}
}

func (s *sources) forward(ch <-chan network.Event) {
	s.wg.Go(func() {
		for ev := range ch {
			select {
			case s.events <- ev:
			case <-s.ctx.Done():
				if !s.keeps {
					ev.Done()
				}
			}
		}
		select {
		case s.ended <- errors.New("run: the network ended its events"):
		default:
		}
	})
}

// drain waits for the end of all sources; their context has ended.
func (s *sources) drain() { s.wg.Wait() }
