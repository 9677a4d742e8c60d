package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
)

func newCampaignWatchCommand() *cobra.Command {
	var c client
	var cursor string
	cmd := &cobra.Command{
		Use:   "watch CAMPAIGN",
		Short: "follow a campaign until it ends: waves, sessions, gateways, and when it will be finished",
		Long: `watch prints a line for each decision and each device that is updated or fails, and the progress of waves,
sessions and gateways whenever it changes. It ends with the campaign: exit code 0 if it was finished, 1 if it was
halted or aborted. While sower serve is away it tries again, and then goes on where it was. With --json each line is one
answer of the API; --cursor goes on after the last one.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			svc, err := c.campaigns()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			show := watcher{out: out, gateways: map[string][2]int{}}
			err = follow(cmd.Context(), svc, &pb.WatchRequest{Id: args[0], Cursor: cursor}, cmd.ErrOrStderr(), func(r *pb.WatchResponse) error {
				show.last = r.Campaign
				if c.json {
					return c.printLine(out, r)
				}
				show.answer(r)
				return nil
			})
			if err != nil {
				return c.explain(err)
			}
			if k := show.last; k != nil && k.Halted != "" {
				return fmt.Errorf("campaign %s has stopped before its end: %s", k.Id, k.Halted)
			}
			return nil
		},
	}
	c.add(cmd)
	cmd.Flags().StringVar(&cursor, "cursor", "", "go on after this answer (default: from now on)")
	return cmd
}

// How long is waited before the daemon is tried again: doubled each time, until it answers.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 8 * time.Second
)

// follow calls f with each answer of Watch until the campaign or ctx ends. When the daemon goes away after its first
// answer, follow says so once to notes, and tries until it is back, however long that takes.
func follow(ctx context.Context, svc sowerv1connect.CampaignServiceClient, req *pb.WatchRequest, notes io.Writer, f func(*pb.WatchResponse) error) error {
	var answered, away bool
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		err := watchOnce(ctx, svc, req, func(r *pb.WatchResponse) error {
			if away {
				fmt.Fprintln(notes, "the daemon answers again")
			}
			answered, away, pause = true, false, firstRetry
			req.Cursor = r.Cursor
			return f(r)
		})
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !answered || !passes(err):
			return err
		case !away:
			away = true
			fmt.Fprintln(notes, "the daemon is away, trying again")
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watchOnce calls f with each answer until the stream ends; nil: the campaign has ended.
func watchOnce(ctx context.Context, svc sowerv1connect.CampaignServiceClient, req *pb.WatchRequest, f func(*pb.WatchResponse) error) error {
	stream, err := svc.Watch(ctx, connect.NewRequest(req))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if err := f(stream.Msg()); err != nil {
			return err
		}
	}
	return stream.Err()
}

// passes reports whether the same call may succeed later.
func passes(err error) bool {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return false
	}
	switch ce.Code() {
	case connect.CodeUnavailable, connect.CodeCanceled, connect.CodeDeadlineExceeded:
		return true
	case connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeNotFound, connect.CodeUnimplemented:
		return false
	}
	return !connect.IsWireError(ce) // the connection broke in the middle of an answer
}

// watcher prints what changes.
type watcher struct {
	out      io.Writer
	last     *pb.Campaign
	lines    []string          // last printed
	gateways map[string][2]int // fragments sent and refused, by what gateways report
}

func (w *watcher) answer(r *pb.WatchResponse) {
	for _, e := range r.Entries {
		if e.Gateway != "" {
			n := w.gateways[e.Gateway]
			if e.Kind == "sent" {
				n[0]++
			} else {
				n[1]++
			}
			w.gateways[e.Gateway] = n
		}
		final := strings.HasPrefix(e.Text, "stage updated") || strings.HasPrefix(e.Text, "stage failed")
		if e.Session == "" && e.DevEui == "" || final {
			fmt.Fprintf(w.out, "%s  %s\n", e.Time.AsTime().UTC().Format("2006-01-02 15:04:05"), strings.TrimSpace(e.DevEui+" "+e.Text))
		}
	}
	lines := []string{headline(r.Campaign)}
	for _, wave := range r.Campaign.Waves {
		for _, s := range wave.Sessions {
			if s.Phase != "idle" && s.Phase != "ended" {
				lines = append(lines, "  "+sessionLine(s))
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.gateways)) {
		lines = append(lines, fmt.Sprintf("  gateway %s: %d fragments sent, %d refused", id, w.gateways[id][0], w.gateways[id][1]))
	}
	if !slices.Equal(lines, w.lines) {
		w.lines = lines
		fmt.Fprintln(w.out, strings.Join(lines, "\n"))
	}
}
