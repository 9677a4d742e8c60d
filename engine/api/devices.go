package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/sower-fuota/sower/applayer/diag"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
)

// filter is what devices of a list have in common.
type filter struct{ stage, cause, wave, session, version string }

func parseFilter(text string) (f filter, err error) {
	for _, term := range strings.Fields(text) {
		key, value, ok := strings.Cut(term, "=")
		fields := map[string]*string{"stage": &f.stage, "cause": &f.cause, "wave": &f.wave, "session": &f.session, "version": &f.version}
		if !ok || fields[key] == nil || value == "" {
			return f, invalid("filter term %q, want stage=, cause=, wave=, session= or version= with a value", term)
		}
		*fields[key] = value
	}
	if f.stage != "" && !stages[f.stage] {
		return f, invalid("filter stage=%s: there is no such stage", f.stage)
	}
	return f, nil
}

func (s campaigns) ListDevices(ctx context.Context, req *connect.Request[pb.ListDevicesRequest]) (*connect.Response[pb.ListDevicesResponse], error) {
	size, err := pageSize(req.Msg.PageSize, 100, 1000)
	if err != nil {
		return nil, err
	}
	f, err := parseFilter(req.Msg.Filter)
	if err != nil {
		return nil, err
	}
	var at, from int
	if t := req.Msg.PageToken; t != "" {
		if _, err := fmt.Sscanf(t, "d%d.%d", &at, &from); err != nil || at < 0 || from < 0 {
			return nil, invalid("page_token %q is none of this call", t)
		}
	}
	res := &pb.ListDevicesResponse{}
	err = s.one(ctx, req.Msg.Campaign, func(c *campaign.Campaign) {
		spec, rescued := c.Spec(), hasRescue(c)
		for ; at < c.Sessions(); at, from = at+1, 0 {
			ss, wave := c.Session(at), spec.Waves[c.WaveOf(at)].Name
			if f.wave != "" && f.wave != wave || f.session != "" && f.session != ss.ID() {
				continue
			}
			for i, n := from, len(ss.Spec().Devices); i < n; i++ {
				d := ss.Device(i)
				if rescued && !isIn(c, d.EUI, at) {
					continue // it has moved to a rescue wave
				}
				if f.stage != "" && f.stage != d.Stage.String() || f.cause != "" && f.cause != causeOf(&d).String() ||
					f.version != "" && (d.VersionAt.IsZero() || f.version != version(d.Version)) {
					continue
				}
				if len(res.Devices) == size {
					res.NextPageToken = fmt.Sprintf("d%d.%d", at, i)
					return
				}
				res.Devices = append(res.Devices, device(wave, ss, i))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(res), nil
}

const timelineEntries = 1000

func (s campaigns) Explain(ctx context.Context, req *connect.Request[pb.ExplainRequest]) (*connect.Response[pb.ExplainResponse], error) {
	eui, err := network.ParseEUI64(req.Msg.DevEui)
	if err != nil {
		return nil, invalid("dev_eui: %s", err)
	}
	var res *pb.ExplainResponse
	err = s.one(ctx, req.Msg.Campaign, func(c *campaign.Campaign) {
		spec := c.Spec()
		at, i, ok := c.Find(eui)
		if !ok {
			return
		}
		ss := c.Session(at)
		res = explain(ss.Device(i), ss.Spec(), ss.Progress(), c.Header())
		res.Device = device(spec.Waves[c.WaveOf(at)].Name, ss, i)
	})
	if err != nil {
		return nil, err
	}
	if res == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("device %s is not in campaign %s", eui, req.Msg.Campaign))
	}
	entries, err := s.cfg.Store.Entries(ctx, req.Msg.Campaign, &eui, 0, timelineEntries)
	if err != nil {
		return nil, err
	}
	if removed, err := s.cfg.Store.LogRemoved(ctx, req.Msg.Campaign); err != nil {
		return nil, err
	} else if !removed.IsZero() {
		res.Evidence = append(res.Evidence, fmt.Sprintf("the log of the campaign was removed at %s", removed.UTC().Format(timeForm)))
	}
	for i := range entries {
		res.Timeline = append(res.Timeline, logEntry(&entries[i]))
	}
	return connect.NewResponse(res), nil
}

// explain says where a device stands, and why.
func explain(d session.Device, spec session.Spec, p session.Progress, h campaign.State) *pb.ExplainResponse {
	st := states[d.Stage]
	cause := causeOf(&d)
	res := &pb.ExplainResponse{Cause: cause.String(), NextStep: st.Next,
		Summary: fmt.Sprintf("device %s is %s: %s", d.EUI, d.Stage, st.Happening)}
	if cause != diag.CauseOK {
		res.Happened = cause.Meaning()
		res.Summary += " (" + cause.Meaning() + ")"
	}
	if d.Stage == session.StageFailed {
		res.NextStep = cause.Remedy()
	}
	switch {
	case h.Phase == campaign.PhaseDraft:
		res.NextStep = "approve and start the campaign"
	case h.Phase == campaign.PhasePaused:
		res.NextStep = "resume the campaign; nothing is sent while it is paused"
	case p.Phase == session.PhaseIdle && h.Phase == campaign.PhaseRunning:
		res.NextStep = "wait: the wave of this device has not begun"
	}
	say := func(format string, args ...any) { res.Evidence = append(res.Evidence, fmt.Sprintf(format, args...)) }
	if d.LastUp.IsZero() {
		say("no uplink since the campaign began")
	} else {
		say("last uplink at %s", d.LastUp.UTC().Format(timeForm))
	}
	if !d.Joined.IsZero() {
		say("joined again at %s; what it was told before is void", d.Joined.UTC().Format(timeForm))
	}
	if !d.VersionAt.IsZero() {
		say("said at %s that it runs %s; the campaign installs %s", d.VersionAt.UTC().Format(timeForm), version(d.Version), version(spec.Target))
	}
	if !d.ReportAt.IsZero() {
		say("reported step %s and cause %s at %s", d.Report.Step, d.Report.Cause, d.ReportAt.UTC().Format(timeForm))
	}
	if d.Group {
		say("multicast group is set up on it")
	}
	if d.Frag {
		say("fragmentation session %d is set up on it since %s", spec.FragIndex, d.FragAt.UTC().Format(timeForm))
	}
	if d.Armed > 0 {
		say("took part in %d receive windows; %d fragments had been sent when the first began", d.Armed, d.ArmedFrom)
	}
	if d.Heard {
		say("answered over the multicast group, so it has the group's keys")
	}
	if d.Missing >= 0 && d.Armed > 0 {
		say("holds %d fragments and misses %d; %d were sent", d.Received, d.Missing, p.DataSent+p.ParitySent)
	}
	if !d.Complete.IsZero() {
		say("has held the whole block since %s", d.Complete.UTC().Format(timeForm))
	}
	if d.Reboots > 0 {
		say("was told to reboot %d times, last at %s", d.Reboots, d.RebootAt.UTC().Format(timeForm))
	}
	if !d.NewAt.IsZero() {
		say("first proved the new version at %s; %d uplinks since", d.NewAt.UTC().Format(timeForm), d.Further)
	}
	if pending := d.Pending; pending.Kind != session.CmdNone {
		text := "waits for an uplink to be delivered"
		if !pending.Delivered.IsZero() {
			text = "was delivered at " + pending.Delivered.UTC().Format(timeForm) + " and has not been answered"
		}
		say("%s is under way: queued at %s, %s; delivery %d", pending.Kind, pending.Queued.UTC().Format(timeForm), text, pending.Attempts)
		if d.Stage != session.StageFailed && pending.Delivered.IsZero() && !d.LastUp.IsZero() {
			res.NextStep = fmt.Sprintf("wait for its next uplink, expected by %s", d.LastUp.Add(cmp.Or(spec.Timing.UplinkInterval, time.Hour)).UTC().Format(timeForm))
		}
	}
	if d.Note != "" {
		say("%s", d.Note)
	}
	return res
}

const timeForm = "2006-01-02 15:04:05 UTC"

// logEntry is a line of the log as the API shows it.
func logEntry(e *run.Entry) *pb.LogEntry {
	out := &pb.LogEntry{Seq: uint64(e.Seq), Time: stamp(e.Time), Kind: e.Kind, Session: e.Session, Text: words(e)}
	if e.Device != nil {
		out.DevEui = e.Device.String()
	}
	if e.Gateway != nil {
		out.Gateway = e.Gateway.String()
	}
	if raw, err := json.Marshal(e); err == nil {
		out.Json = string(raw)
	}
	return out
}

// words tells an entry in one line.
func words(e *run.Entry) string {
	var b strings.Builder
	b.WriteString(e.Kind)
	add := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	if e.Command != "" {
		add(" %s", e.Command)
	}
	if e.Stage != "" {
		add(" %s", e.Stage)
	}
	if e.N > 0 {
		add(" fragment %d", e.N)
	}
	if e.FCnt != nil {
		add(" f_cnt %d", *e.FCnt)
	}
	if e.FPort > 0 {
		add(" port %d", e.FPort)
	}
	if len(e.Payload) > 0 {
		add(" %x", []byte(e.Payload))
	}
	if e.Step != "" {
		add(" step %s", e.Step)
	}
	if e.Cause != "" {
		add(" cause %s", e.Cause)
	}
	if e.Text != "" {
		add(": %s", e.Text)
	}
	return b.String()
}
