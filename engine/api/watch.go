package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/run"
)

const (
	watchEntries = 500              // in one response
	watchEvery   = 30 * time.Second // without changes, so that both sides see that the connection lives
	watchPause   = 500 * time.Millisecond
)

// Watch ends with the campaign, after the last entry.
func (s campaigns) Watch(ctx context.Context, req *connect.Request[pb.WatchRequest], stream *connect.ServerStream[pb.WatchResponse]) error {
	return translateStream(ctx, s.watch(ctx, req.Msg, stream.Send))
}

func (s campaigns) watch(ctx context.Context, req *pb.WatchRequest, send func(*pb.WatchResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates := s.cfg.Engine.Subscribe(ctx)
	var after int64
	if req.Cursor != "" {
		n, err := strconv.ParseInt(req.Cursor, 10, 64)
		if err != nil || n < 0 {
			return invalid("cursor %q is none of this call", req.Cursor)
		}
		after = n
	} else {
		n, err := s.lastEntry(ctx, req.Id)
		if err != nil {
			return err
		}
		after = n
	}
	alive := time.NewTicker(watchEvery)
	defer alive.Stop()
	for {
		c, err := s.show(ctx, req.Id)
		if err != nil {
			return err
		}
		for full := true; full; {
			entries, err := s.cfg.Store.Entries(ctx, req.Id, nil, after, watchEntries)
			if err != nil {
				return err
			}
			full = len(entries) == watchEntries
			res := &pb.WatchResponse{Campaign: c}
			for i := range entries {
				res.Entries = append(res.Entries, logEntry(&entries[i]))
				after = entries[i].Seq
			}
			res.Cursor = strconv.FormatInt(after, 10)
			if err := send(res); err != nil {
				return err
			}
		}
		if c.Phase == campaign.PhaseEnded.String() {
			return nil
		}
		if err := wait(ctx, req.Id, updates, alive.C); err != nil {
			return err
		}
	}
}

// wait returns when the campaign has changed, or after a while.
func wait(ctx context.Context, id string, updates <-chan run.Update, alive <-chan time.Time) error {
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return context.Cause(ctx)
			}
			if u.Campaign != id {
				continue
			}
			// Many changes in a row are one answer.
			pause := time.NewTimer(watchPause)
			defer pause.Stop()
			for {
				select {
				case <-updates:
				case <-pause.C:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		case <-alive:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// translateStream is translate for a stream, which may last until the daemon stops. That is no fault of the call: the
// client may come again.
func translateStream(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	// The HTTP server ends the context of a client that has gone away without a cause of its own.
	why := context.Cause(ctx)
	if why != nil && !errors.Is(why, context.Canceled) && !errors.Is(why, context.DeadlineExceeded) {
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("sower serve is stopping: %w", why))
	}
	return translate(err)
}

// lastEntry finds the Seq of the newest entry of a campaign; 0: it has none. Entries are numbered upwards, so that a
// few dozen looks are enough.
func (s campaigns) lastEntry(ctx context.Context, id string) (int64, error) {
	var low int64 // there is one at or after it, or it is 0
	for high := int64(1); ; high *= 2 {
		list, err := s.cfg.Store.Entries(ctx, id, nil, high, 1)
		if err != nil {
			return 0, err
		}
		if len(list) > 0 {
			low, high = list[0].Seq, max(high, list[0].Seq)
			continue
		}
		for low < high { // the newest is in low..high
			middle := low + (high-low)/2
			if list, err = s.cfg.Store.Entries(ctx, id, nil, middle, 1); err != nil {
				return 0, err
			}
			if len(list) == 0 {
				high = middle
			} else {
				low = list[0].Seq
			}
		}
		return low, nil
	}
}
