package run

import (
	"context"
	"fmt"
	"slices"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/jobs"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

// round is what has happened since the last commit.
type round struct {
	Round
	touched  []*campaign.Campaign
	groups   []network.GroupID
	messages []network.EUI64
	done     []func()  // of events
	answers  []request // that wait for the commit
	broken   error     // what must not be committed
}

func (r *round) touch(c *campaign.Campaign) {
	if !slices.Contains(r.touched, c) {
		r.touched = append(r.touched, c)
	}
}

// commit makes the round durable and tells everybody who waits for that.
func (e *Engine) commit(ctx context.Context) error {
	r := e.round
	if len(r.touched)+len(r.done)+len(r.answers)+len(r.Jobs)+len(r.Entries)+len(r.Audit)+len(r.Created)+len(r.Left) == 0 && r.broken == nil {
		return nil
	}
	r.Now = e.cfg.Clock.Now()
	err := r.broken
	if err == nil {
		err = e.store(ctx, &r)
	}
	if err != nil {
		for _, a := range r.answers {
			a.reply <- err
		}
		return err
	}
	e.round = round{}
	if err := jobs.Apply(&e.queue, r.Now, r.Jobs); err != nil {
		return fmt.Errorf("run: %w", err) // a mistake in this package
	}
	for _, done := range r.done {
		done()
	}
	for _, a := range r.answers {
		a.reply <- nil
	}
	if e.cfg.Log != nil {
		for _, en := range r.Entries {
			e.cfg.Log(en)
		}
	}
	for _, c := range r.touched {
		if e.cfg.Progress != nil {
			e.cfg.Progress(c)
		}
		e.publish(c.ID())
	}
	return nil
}

// collect takes what has changed in a campaign into the round, and reports whether anything has.
func (e *Engine) collect(c *campaign.Campaign) bool {
	ch := c.Changes()
	if len(ch) > 0 {
		e.round.Changed = append(e.round.Changed, Changed{c, ch})
	}
	return len(ch) > 0
}

func (e *Engine) store(ctx context.Context, r *round) error {
	for _, c := range r.touched {
		e.collect(c)
	}
	r.Changed = e.round.Changed
	if e.cfg.Store == nil {
		return nil
	}
	for _, id := range r.groups {
		if g := e.groups[id]; g != nil {
			r.Groups = append(r.Groups, *g)
		}
	}
	for _, eui := range r.messages {
		r.Messages = append(r.Messages, Messages{eui, e.messages[eui]})
	}
	r.SeenFrom = e.seen.from()
	if len(r.Changed)+len(r.Created)+len(r.Jobs)+len(r.Seen)+len(r.Entries)+len(r.Audit)+len(r.Groups)+len(r.Closed)+len(r.Messages)+len(r.Left) == 0 {
		return nil // events of others' devices
	}
	// A stop must not undo what is about to be kept.
	if err := e.cfg.Store.Commit(context.WithoutCancel(ctx), &r.Round); err != nil {
		return fmt.Errorf("run: commit: %w", err)
	}
	return nil
}

// restore takes over what the store holds.
func (e *Engine) restore(ctx context.Context) error {
	if e.cfg.Store == nil {
		return nil
	}
	now := e.cfg.Clock.Now()
	s, err := e.cfg.Store.Restore(ctx, now)
	if err != nil {
		return fmt.Errorf("run: restore: %w", err)
	}
	for _, st := range s.Campaigns {
		c, err := campaign.Resume(st.Spec, st.State)
		if err != nil {
			return fmt.Errorf("run: restore: %w", err)
		}
		e.adopt(c)
		if c.Ended() {
			e.leaves[c] = now
		}
	}
	for _, id := range s.Left {
		e.gone[id] = true
	}
	for _, g := range s.Groups {
		e.groups[g.ID] = &g
	}
	for _, m := range s.Messages {
		e.messages[m.Device] = m.IDs
	}
	for _, ev := range s.Seen {
		e.seen.restore(ev)
	}
	e.lastJob = s.LastJob
	for _, j := range s.Jobs {
		// Whatever was wanted may have happened. It is not known whether the process died before.
		e.uncertain[j.ID] = true
		w, err := e.open(j)
		if err != nil {
			return err
		}
		if send, ok := w.effect.(session.Send); ok {
			e.sends[send.Device] = append(e.sends[send.Device], j.ID)
		}
		if err := e.queue.Enqueue(now, j); err != nil {
			return fmt.Errorf("run: restore: %w", err)
		}
	}
	return nil
}

// published is how many updates wait for a slow subscriber before further ones are dropped.
const published = 64

// Update says that a campaign has changed.
type Update struct{ Campaign string }

// Subscribe returns a channel of what changes, until ctx ends; then it is closed. A subscriber that is slow misses
// updates, also the last one of a campaign: whoever must not miss it looks at all of them now and then.
func (e *Engine) Subscribe(ctx context.Context) <-chan Update {
	ch := make(chan Update, published)
	e.mu.Lock()
	e.subscribers[ch] = true
	e.mu.Unlock()
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subscribers, ch)
		close(ch)
	})
	return ch
}

func (e *Engine) publish(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for ch := range e.subscribers {
		select {
		case ch <- Update{id}:
		default:
		}
	}
}
