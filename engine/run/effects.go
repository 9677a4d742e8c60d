package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/jobs"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

// Back-off after ErrUnavailable: doubled from the first to the last, in the time of the clock.
const (
	firstRetry = time.Second
	lastRetry  = time.Minute
)

var (
	errNoKey   = errors.New("run: no root key")
	errTooLate = errors.New("run: expired, or not wanted any more, before it could be sent")
)

// call is one attempt at an effect with all that it needs: it may run beside the engine.
type call struct {
	job       jobs.Job
	c         *campaign.Campaign // only Payload is called, which reads nothing that changes
	session   int
	effect    session.Effect
	uncertain bool                // an earlier attempt may have happened
	known     []network.MessageID // of the device of a Send
	next      uint32              // frame counter of the group of a Broadcast
	halted    bool                // the campaign has been paused or stopped since: a Broadcast must not be sent
}

// outcome is what came of a call.
type outcome struct {
	call
	result session.Result
	next   uint32 // frame counter of a group that was opened
	err    error
}

// lane is what is done one after the other: the multicast side of a session must not wait for its unicast side.
type lane struct {
	c       *campaign.Campaign
	session int
	unicast bool
}

// want makes an effect a job, which is carried out after the next commit.
func (e *Engine) want(now time.Time, c *campaign.Campaign, eff campaign.Effect) {
	data, err := encode(eff)
	if err != nil {
		e.round.broken = err
		return
	}
	if flush, ok := eff.Do.(session.FlushDevice); ok {
		for _, id := range slices.Clone(e.sends[flush.Device]) {
			if !e.flying[id] {
				e.dropped[id] = e.cfg.Concurrent
				e.end(id, flush.Device)
			}
		}
	}
	e.lastJob++
	if send, ok := eff.Do.(session.Send); ok {
		e.sends[send.Device] = append(e.sends[send.Device], e.lastJob)
	}
	e.round.Jobs = append(e.round.Jobs, jobs.Change{Do: jobs.Enqueue,
		Job: jobs.Job{ID: e.lastJob, Owner: c.ID(), Due: now, Wait: firstRetry, Data: data}})
}

// end ends a job; device is that of a Send.
func (e *Engine) end(id uint64, device network.EUI64) {
	delete(e.uncertain, id)
	delete(e.flying, id)
	if ids := slices.DeleteFunc(e.sends[device], func(x uint64) bool { return x == id }); len(ids) > 0 {
		e.sends[device] = ids
	} else {
		delete(e.sends, device)
	}
	e.round.Jobs = append(e.round.Jobs, jobs.Change{Do: jobs.Cancel, Job: jobs.Job{ID: id}})
}

func (e *Engine) snooze(w call, until time.Time, wait time.Duration) {
	delete(e.flying, w.job.ID)
	w.job.Due, w.job.Wait = until, wait
	e.round.Jobs = append(e.round.Jobs, jobs.Change{Do: jobs.Snooze, Job: w.job})
}

// dispatch carries out what is due. It reports whether there may be something to commit: without Concurrent that is
// so after each effect.
func (e *Engine) dispatch(ctx context.Context) bool {
	limit := 1
	if e.cfg.Concurrent {
		limit = e.queue.Len()
	}
	due, _ := e.queue.Claim(e.cfg.Clock.Now(), limit) // a Memory has no errors
	for _, j := range due {
		w, err := e.open(j)
		if err != nil {
			e.round.broken = err
			return true
		}
		if !e.cfg.Concurrent {
			e.finish(e.prepare(w).do(ctx, e.cfg))
			continue
		}
		l := w.lane()
		waiting := e.lanes[l]
		if waiting == nil {
			waiting = new([]call)
			e.lanes[l] = waiting
		}
		*waiting = append(*waiting, w)
		if len(*waiting) == 1 {
			e.begin(ctx, l)
		}
	}
	return len(due) > 0
}

// open reads what a job holds.
func (e *Engine) open(j jobs.Job) (call, error) {
	c := e.find(j.Owner)
	if c == nil {
		return call{}, fmt.Errorf("run: job %d is for campaign %s, which does not exist", j.ID, j.Owner)
	}
	eff, err := decode(c, j.Data)
	return call{job: j, c: c, session: eff.Session, effect: eff.Do}, err
}

func (w call) lane() lane {
	switch w.effect.(type) {
	case session.Send, session.FlushDevice:
		return lane{w.c, w.session, true}
	}
	return lane{w.c, w.session, false}
}

// begin starts the first call of a lane beside the engine.
func (e *Engine) begin(ctx context.Context, l lane) {
	waiting := e.lanes[l]
	for len(*waiting) > 0 && e.dropped[(*waiting)[0].job.ID] {
		delete(e.dropped, (*waiting)[0].job.ID)
		*waiting = (*waiting)[1:]
	}
	if len(*waiting) == 0 {
		delete(e.lanes, l)
		return
	}
	w := e.prepare((*waiting)[0])
	e.flying[w.job.ID] = true
	go func() {
		select {
		case e.results <- w.do(ctx, e.cfg):
		case <-e.stopped:
		}
	}()
}

// landed takes a call of a lane that has ended, and begins the next.
func (e *Engine) landed(ctx context.Context, o outcome) {
	l := o.lane()
	e.finish(o)
	*e.lanes[l] = (*e.lanes[l])[1:]
	if ctx.Err() == nil {
		e.begin(ctx, l)
	}
}

// prepare gives a call what only the engine knows.
func (e *Engine) prepare(w call) call {
	w.uncertain = e.uncertain[w.job.ID]
	switch eff := w.effect.(type) {
	case session.Send:
		w.known = slices.Clone(e.messages[eff.Device])
	case session.Broadcast:
		if g := e.groups[eff.Broadcast.Group]; g != nil {
			w.next = g.NextFCnt
		}
		phase := w.c.Header().Phase
		w.halted = phase == campaign.PhasePaused || phase == campaign.PhaseStopping || phase == campaign.PhaseEnded
	}
	return w
}

// finish takes what came of a call: it steps the campaign with the result, or has the effect repeated.
func (e *Engine) finish(o outcome) {
	now := e.cfg.Clock.Now()
	if busy := (*network.Busy)(nil); errors.As(o.err, &busy) {
		delete(e.uncertain, o.job.ID)
		e.snooze(o.call, now.Add(max(busy.After, time.Millisecond)), firstRetry)
		return
	}
	if errors.Is(o.err, network.ErrUnavailable) || errors.Is(o.err, network.ErrUncertain) {
		if o.uncertain || errors.Is(o.err, network.ErrUncertain) {
			e.uncertain[o.job.ID] = true
		}
		if o.job.Wait < lastRetry {
			e.logEffect(o.call, "retry", o.err.Error())
		}
		e.snooze(o.call, now.Add(o.job.Wait), min(2*o.job.Wait, lastRetry))
		return
	}
	e.end(o.job.ID, o.result.Device)
	switch {
	case o.err == nil:
		e.succeeded(o)
	case errors.Is(o.err, errNoKey):
		o.result.Failure = session.NoKey
	case errors.Is(o.err, errTooLate):
		o.result.Failure = session.TooLate
	default:
		o.result.Failure = session.Refused
	}
	if o.err != nil {
		o.result.Text = o.err.Error()
		e.logEffect(o.call, "failed", o.result.Text)
	}
	switch o.effect.(type) {
	case session.FlushDevice, session.FlushGroup:
		return // nobody waits for them
	}
	e.step(o.c, campaign.Result{Session: o.session, Result: o.result})
}

// succeeded remembers what an effect has changed in the network.
func (e *Engine) succeeded(o outcome) {
	switch eff := o.effect.(type) {
	case session.Send:
		ids := append(e.messages[eff.Device], o.result.Message)
		e.messages[eff.Device] = ids[max(0, len(ids)-maxMessages):]
		e.round.messages = append(e.round.messages, eff.Device)
		e.logSend(o.call, eff, o.result.Message)
	case session.Broadcast:
		e.count(Group{eff.Broadcast.Group, o.c.ID(), o.session, o.result.FCnt + 1})
		e.logBroadcast(o.call, eff, o.result.FCnt)
	case session.OpenGroup:
		e.count(Group{o.result.Group, o.c.ID(), o.session, o.next})
		e.logEffect(o.call, "group", string(o.result.Group))
	case session.CloseGroup:
		delete(e.groups, eff.Group)
		e.round.Closed = append(e.round.Closed, eff.Group)
		e.logEffect(o.call, "group closed", string(eff.Group))
	}
}

// count remembers the frame counter of a group.
func (e *Engine) count(g Group) {
	e.groups[g.ID] = &g
	if !slices.Contains(e.round.groups, g.ID) {
		e.round.groups = append(e.round.groups, g.ID)
	}
}

// maxMessages is how many messages are remembered of a device that takes none of them.
const maxMessages = 16

// left forgets a message that waits no longer. The store may go on knowing it, which does no harm.
func (e *Engine) left(ev network.Event) {
	if ev.Message == "" || ev.Kind != network.EventSent && ev.Kind != network.EventDropped {
		return
	}
	ids := slices.DeleteFunc(e.messages[ev.Device], func(id network.MessageID) bool { return id == ev.Message })
	if len(ids) == 0 {
		delete(e.messages, ev.Device)
	} else {
		e.messages[ev.Device] = ids
	}
}

// do carries out the effect once. A call that a stop has interrupted may have happened.
func (w call) do(ctx context.Context, cfg Config) outcome {
	o := w.attempt(ctx, cfg)
	if ctx.Err() != nil && o.err != nil && !errors.Is(o.err, network.ErrUnavailable) {
		o.err = fmt.Errorf("%w: %w", network.ErrUncertain, o.err)
	}
	return o
}

func (w call) attempt(ctx context.Context, cfg Config) outcome {
	o := outcome{call: w}
	switch eff := w.effect.(type) {
	case session.Send:
		o.result = session.Result{Op: eff.Op, Device: eff.Device}
		o.result.Message, o.err = w.send(ctx, cfg, eff)
	case session.Broadcast:
		o.result.Op = eff.Op
		o.result.FCnt, o.err = w.broadcast(ctx, cfg, eff.Broadcast)
	case session.OpenGroup:
		o.result.Op = eff.Op
		if o.result.Group, o.err = cfg.Network.OpenGroup(ctx, eff.Group); o.err == nil {
			// The counter is needed to find out later whether a broadcast has happened.
			var st network.GroupState
			st, o.err = cfg.Network.GroupState(ctx, o.result.Group)
			o.next = st.NextFCnt
		}
	case session.CloseGroup:
		o.result.Op = eff.Op
		o.err = cfg.Network.CloseGroup(ctx, eff.Group)
	case session.FlushDevice:
		o.err = cfg.Network.Flush(ctx, eff.Device)
	case session.FlushGroup:
		o.err = cfg.Network.FlushGroup(ctx, eff.Group)
	default:
		o.err = fmt.Errorf("run: effect %T is not known", w.effect)
	}
	return o
}

func (w call) send(ctx context.Context, cfg Config, s session.Send) (network.MessageID, error) {
	if w.uncertain {
		ids, err := cfg.Network.Queued(ctx, s.Device)
		if err != nil {
			return "", unchanged(err, "queue")
		}
		for _, id := range ids {
			if !slices.Contains(w.known, id) {
				return id, nil
			}
		}
		// Not there: it was not queued, or has left already. All commands may be repeated.
	}
	if past(cfg.Clock, s.Expires) {
		return "", errTooLate
	}
	payload := s.Payload
	if s.NeedsKey {
		key, err := cfg.Network.RootKey(ctx, s.Device)
		switch {
		case errors.Is(err, network.ErrUnavailable), errors.Is(err, network.ErrUncertain):
			return "", unchanged(err, "root key")
		case err != nil:
			return "", fmt.Errorf("%w: %w", errNoKey, err)
		case key == network.Key{}:
			return "", fmt.Errorf("%w: the root key of %s is all zero", errNoKey, s.Device)
		}
		if payload, err = w.c.Payload(w.session, s, key); err != nil {
			return "", err
		}
	}
	return cfg.Network.Send(ctx, network.Message{Device: s.Device, FPort: s.FPort, Payload: payload, Expires: s.Expires})
}

func (w call) broadcast(ctx context.Context, cfg Config, b network.Broadcast) (uint32, error) {
	if w.uncertain {
		st, err := cfg.Network.GroupState(ctx, b.Group)
		if err != nil {
			return 0, unchanged(err, "group")
		}
		if st.NextFCnt > w.next {
			return w.next, nil // it has happened: nobody else sends to the group
		}
	}
	if w.halted || past(cfg.Clock, b.Expires) {
		return 0, errTooLate
	}
	return cfg.Network.Broadcast(ctx, b)
}

// unchanged marks the error of a question: it has changed nothing, whatever became of it.
func unchanged(err error, what string) error {
	if errors.Is(err, network.ErrUncertain) {
		return fmt.Errorf("%w: %s: %s", network.ErrUnavailable, what, err)
	}
	return err
}

func past(c network.Clock, t time.Time) bool { return !t.IsZero() && !c.Now().Before(t) }
