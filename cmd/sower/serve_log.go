package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/sower-fuota/sower/engine/store"
)

// logKeeper removes the logs of campaigns that ended long ago.
type logKeeper struct {
	db   *store.Store
	days int // 0: none is removed
	now  func() time.Time
	log  *slog.Logger
}

// run works once a day until ctx ends.
func (k *logKeeper) run(ctx context.Context) error {
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for k.days > 0 {
		now := k.now().UTC()
		n, err := k.db.RemoveLogs(ctx, now, now.AddDate(0, 0, -k.days))
		switch {
		case err != nil && ctx.Err() == nil:
			k.log.Error("logs of campaigns were not removed; next try in a day", "error", err.Error())
		case n > 0:
			k.log.Info("logs of campaigns removed", "campaigns", n, "keep_log_days", k.days)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-daily.C:
		}
	}
	<-ctx.Done()
	return context.Cause(ctx)
}
