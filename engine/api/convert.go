package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/bundle"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
	"github.com/sower-fuota/sower/engine/session"
)

const unknown = "unknown"

// stamp is nil for the zero time.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// summary is a campaign without what has to be counted device by device.
func summary(c *campaign.Campaign) *pb.Campaign {
	return summarize(c.ID(), c.Application(), c.Progress(), c.Header())
}

func summarize(id, application string, p campaign.Progress, h campaign.State) *pb.Campaign {
	out := &pb.Campaign{
		Id: id, Application: application, Phase: p.Phase.String(), Halted: p.Halted, Wave: p.Wave,
		Devices: uint32(p.Devices), Updated: uint32(p.Updated), Failed: uint32(p.Failed), Unproven: uint32(p.Unproven), Withheld: uint32(p.Withheld),
		Airtime: durationpb.New(p.Airtime), Started: stamp(h.Started), ApprovalsMissing: uint32(p.Approvals),
		WaitsFor: p.Wait.String(), WaitsUntil: stamp(p.Until),
	}
	if h.Cause != diag.CauseOK {
		out.Cause = h.Cause.String()
	}
	for _, a := range h.Approvals {
		out.Approvals = append(out.Approvals, a.By)
	}
	for _, st := range h.Stopped {
		out.Stopped = append(out.Stopped, fmt.Sprintf("%s (%s)", st.Why, st.Cause))
	}
	return out
}

// detailed is a campaign with its waves and the breakdown of its devices.
func detailed(c *campaign.Campaign) *pb.Campaign {
	out := summary(c)
	spec := c.Spec()
	for _, w := range spec.Waves {
		out.Waves = append(out.Waves, &pb.Wave{Name: w.Name})
	}
	counts := map[kind]int{}
	for i := range c.Sessions() {
		s := c.Session(i)
		p := s.Progress()
		w := out.Waves[c.WaveOf(i)]
		w.Devices += uint32(p.Devices)
		w.Updated += uint32(p.Updated)
		w.Failed += uint32(p.Failed)
		ss := s.Spec()
		v := &pb.Session{
			Id: p.Session, Phase: p.Phase.String(), Halted: p.Halted, Devices: uint32(p.Devices), Updated: uint32(p.Updated), Failed: uint32(p.Failed),
			Stages: map[string]uint32{}, DataFragments: uint32(p.M), DataSent: uint32(p.DataSent), ParitySent: uint32(p.ParitySent),
			StatusSent: uint32(p.StatusSent), Refused: uint32(p.Refused), Airtime: durationpb.New(p.Airtime),
			DataRate: uint32(ss.Plan.DataRate), FrequencyHz: ss.Plan.Frequency, WindowStart: stamp(p.Start), WindowEnd: stamp(p.End),
		}
		for stage, n := range p.Stages {
			v.Stages[stage.String()] = uint32(n)
		}
		for _, gw := range ss.Gateways {
			v.Gateways = append(v.Gateways, gw.String())
		}
		w.Sessions = append(w.Sessions, v)
		count(counts, c, i)
	}
	out.Breakdown = breakdown(counts)
	return out
}

// kind is what devices are counted by.
type kind struct {
	stage    session.Stage
	from     uint32
	hardware uint16
	cause    diag.Cause
}

// count adds the devices of a session to counts. A device that has moved to a rescue wave counts there.
func count(counts map[kind]int, c *campaign.Campaign, at int) {
	s := c.Session(at)
	rescued := hasRescue(c)
	for i, t := range s.Spec().Devices {
		if rescued && !isIn(c, t.EUI, at) {
			continue
		}
		d := s.Device(i)
		counts[kind{d.Stage, t.From, t.Hardware, causeOf(&d)}]++
	}
}

// hasRescue reports whether devices may be in two sessions of a campaign.
func hasRescue(c *campaign.Campaign) bool {
	return slices.ContainsFunc(c.Spec().Waves, func(w campaign.Wave) bool { return w.Rescue })
}

// isIn reports whether a session is the last that a device takes part in.
func isIn(c *campaign.Campaign, eui network.EUI64, at int) bool {
	in, _, _ := c.Find(eui)
	return in == at
}

// causeOf is why a device failed, or what it reported last.
func causeOf(d *session.Device) diag.Cause {
	if d.Stage == session.StageFailed || d.ReportAt.IsZero() {
		return d.Cause
	}
	return d.Report.Cause
}

func stepOf(d *session.Device) diag.Step {
	if d.Stage == session.StageFailed || d.ReportAt.IsZero() {
		return d.Step
	}
	return d.Report.Step
}

func breakdown(counts map[kind]int) []*pb.Breakdown {
	var out []*pb.Breakdown
	for k, n := range counts {
		out = append(out, &pb.Breakdown{Stage: k.stage.String(), FromVersion: version(k.from), Hardware: hardware(k.hardware),
			Cause: k.cause.String(), Devices: uint32(n)})
	}
	slices.SortFunc(out, func(a, b *pb.Breakdown) int {
		return cmp.Or(cmp.Compare(b.Devices, a.Devices), cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.FromVersion, b.FromVersion),
			cmp.Compare(a.Hardware, b.Hardware), cmp.Compare(a.Cause, b.Cause))
	})
	return out
}

// version is the text of a firmware version; 0 is nobody's.
func version(v uint32) string {
	if v == 0 {
		return unknown
	}
	return bundle.Version(v).String()
}

func hardware(id uint16) string {
	if id == 0 {
		return unknown
	}
	return strconv.Itoa(int(id))
}

// device is a device of a session as the API shows it.
func device(wave string, s *session.Session, i int) *pb.Device {
	d := s.Device(i)
	out := &pb.Device{DevEui: d.EUI.String(), Wave: wave, Session: s.ID(), Stage: d.Stage.String(), Step: stepOf(&d).String(),
		Cause: causeOf(&d).String(), Note: d.Note, MissingFragments: int32(d.Missing), LastUplink: stamp(d.LastUp)}
	if !d.VersionAt.IsZero() {
		out.Version = version(d.Version)
	}
	return out
}

// Started returns the campaigns that have been started and are not over, with the sessions that are not; it goes into
// prepare.Planner.
func (s *Server) Started(ctx context.Context) ([]prepare.Started, error) {
	var running []*pb.Campaign
	over := map[string]bool{} // sessions
	err := s.cfg.Engine.View(ctx, func(all []*campaign.Campaign) {
		for _, c := range all {
			if c.Header().Phase == campaign.PhaseDraft || c.Ended() {
				continue
			}
			running = append(running, detailed(c))
			for i := range c.Sessions() {
				over[c.Session(i).ID()] = c.Session(i).Ended()
			}
		}
	})
	if err != nil {
		return nil, err
	}
	var out []prepare.Started
	for _, c := range running {
		r, err := s.record(ctx, c.Id)
		if err != nil {
			return nil, err
		}
		x := prepare.Started{Schedule: r.Schedule, Late: s.late(c, r)}
		x.Schedule.Sessions = nil
		for i, planned := range r.Schedule.Sessions {
			if !over[sessionID(c.Id, i)] {
				x.Schedule.Sessions = append(x.Schedule.Sessions, planned)
			}
		}
		out = append(out, x)
	}
	return out, nil
}
