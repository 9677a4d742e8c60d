package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

var (
	errNoKey   = errors.New("run: no root key")
	errTooLate = errors.New("run: expired before it could be sent")
)

// do carries out one effect. r.uncertain says that an earlier attempt may have succeeded.
func (e *Engine) do(ctx context.Context, r *retry) (session.Result, error) {
	switch eff := r.effect.(type) {
	case session.Send:
		return e.send(ctx, r, eff)
	case session.Broadcast:
		return e.broadcast(ctx, r, eff)
	case session.OpenGroup:
		res := session.Result{Op: eff.Op}
		id, err := e.cfg.Network.OpenGroup(ctx, eff.Group)
		if err != nil {
			return res, err
		}
		// The counter is needed to find out later whether a broadcast has happened.
		st, err := e.cfg.Network.GroupState(ctx, id)
		if err != nil {
			return res, err
		}
		e.groups[id] = st.NextFCnt
		res.Group = id
		e.logEffect(*r, "group", string(id))
		return res, nil
	case session.CloseGroup:
		err := e.cfg.Network.CloseGroup(ctx, eff.Group)
		if err == nil {
			e.logEffect(*r, "group closed", string(eff.Group))
		}
		return session.Result{Op: eff.Op}, err
	}
	return session.Result{}, fmt.Errorf("run: effect %T is not known", r.effect)
}

func (e *Engine) send(ctx context.Context, r *retry, s session.Send) (session.Result, error) {
	res := session.Result{Op: s.Op, Device: s.Device}
	if e.expired(s.Expires) {
		return res, errTooLate
	}
	if r.uncertain {
		ids, err := e.cfg.Network.Queued(ctx, s.Device)
		if err != nil {
			return res, err
		}
		for _, id := range ids {
			if !slices.Contains(e.messages[s.Device], id) {
				e.know(s.Device, id)
				res.Message = id
				e.logSend(r, s, id)
				return res, nil
			}
		}
		// Not there: it was not queued, or has left already. All commands may be repeated.
		r.uncertain = false
	}
	payload := s.Payload
	if s.NeedsKey {
		key, err := e.cfg.Network.RootKey(ctx, s.Device)
		switch {
		case errors.Is(err, network.ErrUnavailable), errors.Is(err, network.ErrUncertain):
			// Reading a key changes nothing, so nothing is uncertain.
			return res, fmt.Errorf("%w: root key: %s", network.ErrUnavailable, err)
		case err != nil:
			return res, fmt.Errorf("%w: %w", errNoKey, err)
		case key == network.Key{}:
			return res, fmt.Errorf("%w: the root key of %s is all zero", errNoKey, s.Device)
		}
		if payload, err = r.c.Payload(r.session, s, key); err != nil {
			return res, err
		}
	}
	id, err := e.cfg.Network.Send(ctx, network.Message{Device: s.Device, FPort: s.FPort, Payload: payload, Expires: s.Expires})
	if err != nil {
		return res, err
	}
	e.know(s.Device, id)
	res.Message = id
	e.logSend(r, s, id)
	return res, nil
}

// know remembers the last messages of a device.
func (e *Engine) know(eui network.EUI64, id network.MessageID) {
	ids := append(e.messages[eui], id)
	e.messages[eui] = ids[max(0, len(ids)-16):]
}

func (e *Engine) broadcast(ctx context.Context, r *retry, b session.Broadcast) (session.Result, error) {
	res := session.Result{Op: b.Op}
	next := e.groups[b.Broadcast.Group]
	if r.uncertain {
		st, err := e.cfg.Network.GroupState(ctx, b.Broadcast.Group)
		if err != nil {
			return res, err
		}
		if st.NextFCnt > next {
			// It has happened: nobody else sends to the group.
			e.groups[b.Broadcast.Group] = next + 1
			res.FCnt = next
			e.logBroadcast(r, b, next)
			return res, nil
		}
		r.uncertain = false
	}
	if e.expired(b.Broadcast.Expires) {
		return res, errTooLate
	}
	fcnt, err := e.cfg.Network.Broadcast(ctx, b.Broadcast)
	if err != nil {
		return res, err
	}
	e.groups[b.Broadcast.Group] = fcnt + 1
	res.FCnt = fcnt
	e.logBroadcast(r, b, fcnt)
	return res, nil
}

func (e *Engine) expired(t time.Time) bool { return !t.IsZero() && !e.cfg.Clock.Now().Before(t) }
