package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	shell "github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
)

// journal says in the log of the daemon what has become of campaigns, and that calls to the network server go wrong: of
// these, one of each kind in a minute, since there may be thousands.
type journal struct {
	log   *slog.Logger
	count func(shell.Entry)
	said  map[string]time.Time
	skew  time.Duration // of the uplinks since said["clock"], that nearest to none
}

const sayAgain = time.Minute

// clock compares the clock of this machine with the times that are written in uplinks. Receive windows are announced in
// the time of the network, and kept by the clock of this machine. Some events come late; if all do, it is the clock.
func (j *journal) clock(e shell.Entry) {
	if skew := e.Time.Sub(e.At); j.skew == 0 || skew.Abs() < j.skew.Abs() {
		j.skew = skew
	}
	_, begun := j.said["clock"]
	if !j.due("clock", e.Time) || !begun { // what has waited at the broker comes first
		return
	}
	if j.skew.Abs() > clockTolerance {
		j.log.Warn("the clock of this machine and that of the network server differ, or all events come late: devices will miss their receive windows; synchronise both by NTP",
			"event_age", j.skew.Round(time.Millisecond).String())
	}
	j.skew = 0
}

// due reports whether something may be said again, and notes that it is.
func (j *journal) due(what string, now time.Time) bool {
	if at, ok := j.said[what]; ok && now.Sub(at) < sayAgain {
		return false
	}
	if j.said == nil {
		j.said = map[string]time.Time{}
	}
	j.said[what] = now
	return true
}

// entry takes an entry of the log of a campaign.
func (j *journal) entry(e shell.Entry) {
	j.count(e)
	level, of := slog.LevelInfo, []any{"campaign", e.Campaign, "event", e.Kind, "text", e.Text}
	switch e.Kind {
	case campaign.NoteHalt, campaign.NoteCohortHalt:
		level = slog.LevelWarn
	case "retry", "failed":
		if !j.due(e.Kind, e.Time) {
			return
		}
		level = slog.LevelWarn
	case network.EventUplink.String():
		j.clock(e)
		return
	default:
		if e.Session != "" || e.Device != nil {
			return
		}
	}
	if e.Session != "" {
		of = append(of, "session", e.Session)
	}
	if e.Cause != "" {
		of = append(of, "cause", e.Cause)
	}
	j.log.Log(context.Background(), level, "campaign", of...)
}

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
