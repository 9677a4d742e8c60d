package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
)

// pastFor is how long a campaign that was read from the store is kept: whoever looks at one asks more than once.
const pastFor = time.Minute

// past shows campaigns that have left the engine. They do not change any more. It keeps the last one that was asked for.
type past struct {
	store *store.Store

	mu   sync.Mutex
	last *campaign.Campaign
	drop *time.Timer
}

// view calls f with a campaign; f must not keep it.
func (p *past) view(ctx context.Context, id string, f func(*campaign.Campaign)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last == nil || p.last.ID() != id {
		st, err := p.store.Campaign(ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("%w: %q", run.ErrNotFound, id)
		}
		if err != nil {
			return err
		}
		c, err := campaign.Resume(st.Spec, st.State)
		if err != nil {
			return fmt.Errorf("api: campaign %s: %w", id, err)
		}
		if p.drop != nil {
			p.drop.Stop()
		}
		p.last, p.drop = nil, nil
		if c.Ended() { // any other is coming, or the engine has it by now
			p.last = c
			p.drop = time.AfterFunc(pastFor, func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				if p.last == c {
					p.last, p.drop = nil, nil
				}
			})
		}
		f(c)
		return nil
	}
	f(p.last)
	return nil
}
