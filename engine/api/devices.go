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
	var unheard []network.EUI64 // since their session began
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
				if d.LastUp.IsZero() {
					unheard = append(unheard, d.EUI)
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if len(unheard) > 0 {
		earlier, err := s.cfg.Store.LastUplinks(ctx, req.Msg.Campaign, unheard)
		if err != nil {
			return nil, err
		}
		for _, d := range res.Devices {
			if eui, err := network.ParseEUI64(d.DevEui); err == nil && d.LastUplink == nil {
				d.LastUplink = stamp(earlier[eui])
			}
		}
	}
	return connect.NewResponse(res), nil
}

// timelineEntries is how many entries a timeline has at most: the newest.
const timelineEntries = 1000

func (s campaigns) Explain(ctx context.Context, req *connect.Request[pb.ExplainRequest]) (*connect.Response[pb.ExplainResponse], error) {
	eui, err := network.ParseEUI64(req.Msg.DevEui)
	if err != nil {
		return nil, invalid("dev_eui: %s", err)
	}
	var shown *pb.Device
	var about explained
	err = s.one(ctx, req.Msg.Campaign, func(c *campaign.Campaign) {
		spec := c.Spec()
		at, i, ok := c.Find(eui)
		if !ok {
			return
		}
		ss := c.Session(at)
		about = explained{device: ss.Device(i), spec: ss.Spec(), progress: ss.Progress(), header: c.Header()}
		shown = device(spec.Waves[c.WaveOf(at)].Name, ss, i)
	})
	if err != nil {
		return nil, err
	}
	if shown == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("device %s is not in campaign %s", eui, req.Msg.Campaign))
	}
	entries, err := s.cfg.Store.Latest(ctx, req.Msg.Campaign, eui, timelineEntries)
	if err != nil {
		return nil, err
	}
	if about.device.LastUp.IsZero() {
		about.earlier = lastUplink(entries)
		shown.LastUplink = stamp(about.earlier)
	}
	res := about.explain()
	res.Device = shown
	if removed, err := s.cfg.Store.LogRemoved(ctx, req.Msg.Campaign); err != nil {
		return nil, err
	} else if !removed.IsZero() {
		res.Evidence = append(res.Evidence, fmt.Sprintf("the log of the campaign was removed at %s", removed.UTC().Format(timeForm)))
	}
	if len(entries) == timelineEntries {
		res.Evidence = append(res.Evidence, fmt.Sprintf("the timeline shows the newest %d entries; sower campaign evidence exports all", timelineEntries))
	}
	for i := range entries {
		res.Timeline = append(res.Timeline, logEntry(&entries[i]))
	}
	return connect.NewResponse(res), nil
}

// lastUplink finds in entries about a device when it was last heard; zero: never.
func lastUplink(entries []run.Entry) (at time.Time) {
	for i := range entries {
		if e := &entries[i]; e.Kind == network.EventUplink.String() && e.At.After(at) {
			at = e.At
		}
	}
	return at
}

// explained is what the explanation of a device is made from.
type explained struct {
	device   session.Device
	spec     session.Spec
	progress session.Progress
	header   campaign.State
	earlier  time.Time // its last uplink, if that was before its session began, which does not count it
}

// explain says where a device stands, and why.
func (x explained) explain() *pb.ExplainResponse {
	d, spec, p, h := x.device, x.spec, x.progress, x.header
	st := states[d.Stage]
	cause := causeOf(&d)
	res := &pb.ExplainResponse{Cause: cause.String(), NextStep: st.Next,
		Summary: fmt.Sprintf("device %s is %s: %s", d.EUI, d.Stage, st.Happening)}
	if p.Phase == session.PhaseIdle && d.Stage == session.StageDiscover {
		res.Summary = fmt.Sprintf("device %s waits for its wave; nothing has been sent to it", d.EUI)
	}
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
	switch {
	case !d.LastUp.IsZero():
		say("last uplink at %s", d.LastUp.UTC().Format(timeForm))
	case !x.earlier.IsZero():
		say("last uplink at %s, before its wave began", x.earlier.UTC().Format(timeForm))
	default:
		say("no uplink is known since the campaign was made")
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
		say("multicast group was set up on it%s", deleted(d.Dropped&2))
	}
	if d.Frag {
		say("fragmentation session %d was set up on it at %s%s", spec.FragIndex, d.FragAt.UTC().Format(timeForm), deleted(d.Dropped&1))
	}
	if d.Armed > 0 {
		say("took part in %d receive windows; %d fragments had been sent when the first began", d.Armed, d.ArmedFrom)
	}
	if d.Heard {
		say("has heard the multicast group, so it has the group's keys")
	}
	if d.Missing > 0 || d.Received > 0 {
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
	if pending := d.Pending; pending.Kind != session.CmdNone && p.Phase != session.PhaseEnded {
		text := "waits for an uplink to be delivered"
		if !pending.Delivered.IsZero() {
			text = "was delivered at " + pending.Delivered.UTC().Format(timeForm) + " and has not been answered"
		}
		say("%s is under way: queued at %s, %s; delivery %d", pending.Kind, pending.Queued.UTC().Format(timeForm), text, pending.Attempts)
		if d.Stage < session.StageUpdated && pending.Delivered.IsZero() && !d.LastUp.IsZero() {
			res.NextStep = fmt.Sprintf("wait for its next uplink, expected by %s", d.LastUp.Add(cmp.Or(spec.Timing.UplinkInterval, time.Hour)).UTC().Format(timeForm))
		}
	}
	if d.Note != "" {
		say("%s", d.Note)
	}
	return res
}

// deleted says whether a device has been made to forget something again.
func deleted(dropped int) string {
	if dropped != 0 {
		return ", and deleted at the end"
	}
	return ""
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
