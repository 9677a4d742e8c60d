package campaigntest

import (
	"context"
	"fmt"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

// Carry carries out an effect of a session at once and returns the answer to it: nil for one that has none. payload
// makes the message of a Send that needs the root key of its device, as [session.Session.Payload] does; where there is
// no root key, the answer is [session.NoKey]. Any other error of the network or of payload is returned as it is. A
// [session.Record] asks nothing of a network.
func (n *Net) Carry(ctx context.Context, e session.Effect, payload func(session.Send, network.Key) ([]byte, error)) (*session.Result, error) {
	var res session.Result
	var err error
	switch e := e.(type) {
	case session.Send:
		res = session.Result{Op: e.Op, Device: e.Device}
		m := network.Message{Device: e.Device, FPort: e.FPort, Payload: e.Payload, Expires: e.Expires}
		if e.NeedsKey {
			key, err := n.RootKey(ctx, e.Device)
			if err != nil {
				res.Failure, res.Text = session.NoKey, err.Error()
				return &res, nil
			}
			if m.Payload, err = payload(e, key); err != nil {
				return nil, err
			}
		}
		res.Message, err = n.Send(ctx, m)
	case session.OpenGroup:
		res.Op = e.Op
		res.Group, err = n.OpenGroup(ctx, e.Group)
	case session.Broadcast:
		res.Op = e.Op
		res.FCnt, err = n.Broadcast(ctx, e.Broadcast)
	case session.CloseGroup:
		res.Op = e.Op
		err = n.CloseGroup(ctx, e.Group)
	case session.FlushDevice:
		return nil, n.Flush(ctx, e.Device)
	case session.FlushGroup:
		return nil, n.FlushGroup(ctx, e.Group)
	case session.Record:
		return nil, nil
	default:
		return nil, fmt.Errorf("campaigntest: effect %T is not known", e)
	}
	if err != nil {
		return nil, err
	}
	return &res, nil
}
