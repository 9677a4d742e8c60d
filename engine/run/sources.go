package run

import (
	"context"
	"errors"
	"sync"
	"time"

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
	apps  map[string]bool
	wg    sync.WaitGroup
}

// start prepares for subscriptions that last as long as ctx.
func (s *sources) start(ctx context.Context, cfg Config) {
	// What arrives during a commit goes into the next one.
	*s = sources{keeps: cfg.Store != nil, events: make(chan network.Event, cfg.Batch-1), ended: make(chan error, 1), wanted: true, wait: firstRetry,
		ctx: ctx, apps: map[string]bool{}}
}

// subscribe makes the subscriptions that are missing. With a Store a network that is away is waited for: what it has
// for the engine it keeps.
func (e *Engine) subscribe() error {
	s, now := &e.sources, e.cfg.Clock.Now()
	if !s.wanted && (s.retry.IsZero() || now.Before(s.retry)) {
		return nil
	}
	s.wanted, s.retry = false, time.Time{}
	for _, c := range e.campaigns {
		if c.Ended() || s.apps[c.Application()] {
			continue
		}
		ch, err := e.cfg.Network.Events(s.ctx, c.Application())
		switch {
		case err == nil:
			s.wait = firstRetry
			s.apps[c.Application()] = true
			s.forward(ch)
		case e.cfg.Store == nil || !errors.Is(err, network.ErrUnavailable):
			return err
		default:
			e.log(c, Entry{Kind: "retry", Text: err.Error()})
			s.retry, s.wait = now.Add(s.wait), min(2*s.wait, lastRetry)
			return nil
		}
	}
	return nil
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
