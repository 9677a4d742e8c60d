// Package run is the imperative shell of the engine: it carries out what the state machines of package
// campaign ask for, against a [network.Network] and in the time of a [network.Clock], and keeps what they
// remember in a [Store].
//
// One goroutine does everything in rounds. It takes the events, results and commands that are waiting and steps
// the campaigns concerned; commits the changed states, the log and the effects that are wanted, in one
// transaction; tells the network that its events have been dealt with; and only then carries out effects, whose
// results belong to the next round. So at any instant at which the process may die, each effect has either not
// been tried, or it is in the store: after a restart every effect found there is carried out as one that may
// have happened, which is found out from the network before it is repeated.
//
// Sessions of all campaigns share the gateways: a session announces its receive window for a time at which no other has
// one of its gateways. What is taken follows from the states of the sessions, so that a restart forgets nothing of it.
//
// A campaign that has ended leaves memory after a while; its Store answers for it from then on.
//
// Without a Store the same rounds are made, and nothing is kept: for rehearsals and tests.
package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/jobs"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

var (
	// ErrNotFound is returned for a campaign that does not exist.
	ErrNotFound = errors.New("run: no such campaign")
	// ErrConflict is returned for what cannot be done now.
	ErrConflict = errors.New("run: conflict")
	// ErrStopped is returned to those who ask an engine that does not run.
	ErrStopped = errors.New("run: the engine has stopped")
)

// Config says what an engine works with. Network and Clock are required.
type Config struct {
	Network network.Network
	Clock   network.Clock
	Store   Store // nil: nothing is kept
	// Concurrent lets calls of the network for different sessions run side by side, and beside the engine, so that
	// a slow server does not hold up everybody. The order of calls is then no longer reproducible, and a clock in
	// virtual time does not wait for them.
	Concurrent bool
	// Batch is the most events in one commit of a Store; 256. A larger number is faster and no less safe.
	Batch int
	// Linger is how long a campaign stays in memory after its end; 24 h. With a Store it leaves then, or with the next
	// start, and only the Store knows it.
	Linger time.Duration
	// Facts says what else an event tells of its device, such as [campaign.Battery]; nil: nothing. It is called on the
	// engine's goroutine, so it must be quick and pure. The facts are kept together with the event.
	Facts func(network.Event) []campaign.Event
	// Log receives one entry for everything that happens, in order, after it was committed; nil: nowhere.
	Log func(Entry)
	// Progress is called after each round of work with each campaign that was touched; nil: never. It must
	// not keep the campaign, which is not safe for concurrent use.
	Progress func(*campaign.Campaign)
}

// Engine runs campaigns. Call Run once; all other methods but Add may be called from any goroutine then.
type Engine struct {
	cfg       Config
	campaigns []*campaign.Campaign
	groups    map[network.GroupID]*Group
	messages  map[network.EUI64][]network.MessageID // that may wait there, to recognise an unknown one
	seen      seen
	expiries  map[*campaign.Campaign][]time.Time // of the blocks, by session
	leaves    map[*campaign.Campaign]time.Time   // when those that have ended leave
	gone      map[string]bool                    // IDs of those that have left

	queue     jobs.Memory
	lastJob   uint64
	sends     map[network.EUI64][]uint64 // jobs that are a Send
	uncertain map[uint64]bool            // jobs whose last attempt may have happened
	lanes     map[lane]*[]call           // with Concurrent; the first of each is under way
	flying    map[uint64]bool            // jobs that are under way
	dropped   map[uint64]bool            // jobs that were ended while they waited in a lane
	results   chan outcome

	requests chan request
	stopped  chan struct{}
	sources  sources
	round    round

	mu          sync.Mutex
	subscribers map[chan Update]bool
}

// New returns an engine without campaigns.
func New(cfg Config) *Engine {
	if cfg.Batch == 0 {
		cfg.Batch = 256
	}
	if cfg.Store == nil {
		cfg.Batch = 1
	}
	if cfg.Linger == 0 {
		cfg.Linger = 24 * time.Hour
	}
	return &Engine{
		cfg: cfg, groups: map[network.GroupID]*Group{}, messages: map[network.EUI64][]network.MessageID{},
		expiries: map[*campaign.Campaign][]time.Time{}, leaves: map[*campaign.Campaign]time.Time{}, gone: map[string]bool{}, sends: map[network.EUI64][]uint64{},
		uncertain: map[uint64]bool{}, lanes: map[lane]*[]call{}, flying: map[uint64]bool{}, dropped: map[uint64]bool{},
		results: make(chan outcome), requests: make(chan request), stopped: make(chan struct{}),
		subscribers: map[chan Update]bool{},
	}
}

// Add adds a campaign before Run, which starts it. It is for engines without a Store. A device may be in one
// campaign only.
func (e *Engine) Add(c *campaign.Campaign) error {
	if err := e.admit(c); err != nil {
		return err
	}
	e.adopt(c)
	return nil
}

// admit refuses a campaign that cannot be run beside the others.
func (e *Engine) admit(c *campaign.Campaign) error {
	if e.gone[c.ID()] {
		return fmt.Errorf("%w: a campaign called %s has been", ErrConflict, c.ID())
	}
	for _, other := range e.campaigns {
		if other.ID() == c.ID() {
			return fmt.Errorf("%w: a campaign called %s exists", ErrConflict, c.ID())
		}
		if other.Ended() {
			continue
		}
		for _, w := range c.Spec().Waves {
			for _, s := range w.Sessions {
				for _, d := range s.Devices {
					if other.Has(d.EUI) {
						return fmt.Errorf("%w: device %s is in campaign %s, which has not ended, and in %s", ErrConflict, d.EUI, other.ID(), c.ID())
					}
				}
			}
		}
	}
	return nil
}

func (e *Engine) adopt(c *campaign.Campaign) {
	c.Share(air{e})
	e.campaigns = append(e.campaigns, c)
	e.expiries[c] = expiries(c.Spec())
}

// Run restores what the Store holds and works until ctx ends; it returns the cause. That is not the end of the
// campaigns: their groups stay, and the next Run goes on where this one has stopped.
//
// Without a Store, Run starts all campaigns and returns when they have ended. When ctx ends it aborts them, closes
// their groups as far as the network allows, and returns the cause.
func (e *Engine) Run(ctx context.Context) error {
	e.busy()
	defer close(e.stopped)
	if err := e.restore(ctx); err != nil {
		return err
	}
	if e.cfg.Store == nil {
		if _, err := e.cfg.Network.Capabilities(ctx); err != nil {
			return err
		}
	}
	subscription, cancel := context.WithCancel(ctx)
	e.sources.start(subscription, e.cfg)
	defer func() {
		cancel()
		e.sources.drain()
	}()
	e.subscribe()
	if e.cfg.Store == nil {
		for _, c := range e.campaigns {
			e.step(c, campaign.Start{})
		}
	}
	for {
		if err := e.settle(ctx); err != nil {
			return err
		}
		if e.cfg.Store == nil && e.done() {
			break
		}
		wake := e.cfg.Clock.WakeAt(e.nextWake())
		select {
		case <-ctx.Done():
			e.busy()
			return e.stop(ctx)
		case ev := <-e.sources.events:
			// Time must not pass between Done and the next WakeAt: the network releases it with Done.
			e.busy()
			e.event(ev)
			e.gather(ctx)
		case r := <-e.requests:
			e.busy()
			e.serve(r)
			e.gather(ctx)
		case o := <-e.results:
			e.busy()
			e.landed(ctx, o)
			e.gather(ctx)
		case err := <-e.sources.ended:
			e.busy()
			if ctx.Err() == nil {
				return err
			}
		case <-wake:
			e.busy()
			e.tick()
		}
		e.subscribe()
	}
	return nil
}

// busy keeps virtual time from passing until the next WakeAt.
func (e *Engine) busy() { e.cfg.Clock.WakeAt(e.cfg.Clock.Now()) }

// gather takes what else is waiting, as far as it goes into one commit.
func (e *Engine) gather(ctx context.Context) {
	for range e.cfg.Batch - 1 {
		select {
		case ev := <-e.sources.events:
			e.event(ev)
		case r := <-e.requests:
			e.serve(r)
		case o := <-e.results:
			e.landed(ctx, o)
		default:
			return
		}
	}
}

// settle commits, and carries out what is due, until there is nothing left to do now.
func (e *Engine) settle(ctx context.Context) error {
	for {
		if err := e.commit(ctx); err != nil {
			return err
		}
		if !e.dispatch(ctx) && !e.release() {
			return nil
		}
	}
}

// release lets campaigns leave whose time has come. It reports whether any has.
func (e *Engine) release() bool {
	if e.cfg.Store == nil {
		return false
	}
	now := e.cfg.Clock.Now()
	some := false
	e.campaigns = slices.DeleteFunc(e.campaigns, func(c *campaign.Campaign) bool {
		if !c.Ended() {
			return false
		}
		at, ended := e.leaves[c]
		if !ended || !now.Before(at) && e.queue.Has(c.ID()) {
			e.leaves[c] = now.Add(e.cfg.Linger)
			return false
		}
		if now.Before(at) {
			return false
		}
		delete(e.leaves, c)
		delete(e.expiries, c)
		e.gone[c.ID()] = true
		e.round.Left = append(e.round.Left, c)
		some = true
		return true
	})
	return some
}

func (e *Engine) done() bool {
	for _, c := range e.campaigns {
		if !c.Ended() {
			return false
		}
	}
	return e.queue.Len() == 0
}

func (e *Engine) nextWake() time.Time {
	var at time.Time
	earlier := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, c := range e.campaigns {
		if !c.Ended() {
			earlier(c.NextWake())
		} else if e.cfg.Store != nil {
			earlier(e.leaves[c])
		}
	}
	earlier(e.queue.Next())
	earlier(e.sources.retry)
	return at
}

// event steps the campaign that has the device or the group.
func (e *Engine) event(ev network.Event) {
	e.round.done = append(e.round.done, ev.Done)
	c := e.concerned(ev)
	if c == nil {
		return
	}
	e.left(ev)
	now := e.cfg.Clock.Now()
	mark, fresh := e.seen.add(now, ev.ID)
	if !fresh {
		return
	}
	if ev.ID != "" {
		e.round.Seen = append(e.round.Seen, mark)
	}
	en := Entry{Kind: ev.Kind.String(), At: ev.At, FPort: ev.FPort, Payload: ev.Payload, Message: ev.Message, Text: ev.Reason}
	if ev.Group != "" {
		en.FCnt, en.Gateway = &ev.FCnt, &ev.Gateway
		if g := e.groups[ev.Group]; g != nil {
			en.Session = name(c, g.Session)
		}
	} else {
		en.Device = &ev.Device
	}
	e.log(c, en)
	if e.cfg.Facts != nil {
		for _, fact := range e.cfg.Facts(ev) {
			e.step(c, fact) // before the device is answered
		}
	}
	e.step(c, campaign.Heard{Event: ev})
}

func (e *Engine) concerned(ev network.Event) *campaign.Campaign {
	for _, c := range e.campaigns {
		if !c.Ended() && c.Wants(ev) {
			return c
		}
	}
	return nil
}

func (e *Engine) find(id string) *campaign.Campaign {
	for _, c := range e.campaigns {
		if c.ID() == id {
			return c
		}
	}
	return nil
}

// tick steps the campaigns whose time has come.
func (e *Engine) tick() {
	now := e.cfg.Clock.Now()
	for _, c := range e.campaigns {
		if at := c.NextWake(); !c.Ended() && !at.IsZero() && !at.After(now) {
			e.step(c, campaign.Tick{})
		}
	}
}

// step steps a campaign and takes over its effects.
func (e *Engine) step(c *campaign.Campaign, ev campaign.Event) {
	now := e.cfg.Clock.Now()
	before := c.Header()
	effects := c.Step(now, ev)
	e.round.touch(c)
	if why := e.expired(c, before, now); why != "" {
		// Nothing of the wave has been done yet, so its effects are dropped with it.
		wave := c.Header().Wave
		effects = slices.DeleteFunc(effects, func(eff campaign.Effect) bool {
			_, record := eff.Do.(session.Record)
			return !record && c.WaveOf(eff.Session) == wave
		})
		effects = append(effects, c.Step(now, campaign.Abort{By: engineName, Reason: why})...)
	}
	for _, eff := range effects {
		if rec, ok := eff.Do.(session.Record); ok {
			e.record(c, eff.Session, rec)
			continue
		}
		e.want(now, c, eff)
	}
}

// stop ends the work because ctx has ended.
func (e *Engine) stop(ctx context.Context) error {
	for len(e.flying) > 0 { // the calls end with ctx
		e.landed(ctx, <-e.results)
	}
	if err := e.commit(ctx); err != nil {
		return err
	}
	if e.cfg.Store != nil {
		return context.Cause(ctx)
	}
	// The groups must go, or they would go on sending; the context that ended must not prevent that.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	e.queue = jobs.Memory{}
	clear(e.lanes)
	e.cfg.Concurrent = false
	for _, c := range e.campaigns {
		e.step(c, campaign.Abort{Reason: context.Cause(ctx).Error()})
	}
	if err := e.settle(last); err != nil {
		return err
	}
	return context.Cause(ctx)
}
