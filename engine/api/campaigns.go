package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/sower-fuota/sower/applayer/diag"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
)

// campaigns is the CampaignService.
type campaigns struct{ *Server }

// one calls f with a campaign: on the engine's goroutine, or as the store has it if it has left the engine.
func (s *Server) one(ctx context.Context, id string, f func(*campaign.Campaign)) error {
	found := false
	err := s.cfg.Engine.View(ctx, func(all []*campaign.Campaign) {
		for _, c := range all {
			if c.ID() == id {
				found = true
				f(c)
			}
		}
	})
	if err == nil && !found {
		err = s.past.view(ctx, id, f)
	}
	return err
}

// show returns a campaign with its waves.
func (s *Server) show(ctx context.Context, id string) (*pb.Campaign, error) {
	var out *pb.Campaign
	if err := s.one(ctx, id, func(c *campaign.Campaign) { out = detailed(c) }); err != nil {
		return nil, err
	}
	return out, s.complete(ctx, out)
}

// complete adds what the store knows of a campaign.
func (s *Server) complete(ctx context.Context, c *pb.Campaign) error {
	r, err := s.record(ctx, c.Id)
	if err != nil {
		return err
	}
	c.Created, c.CreatedBy = stamp(r.Created), r.By
	if c.Phase != campaign.PhaseEnded.String() && c.Started != nil {
		c.Forecast = stamp(s.forecast(c, r))
	}
	return nil
}

// forecast is when a campaign will be finished: what the plan says of the time between its instants, and what has
// happened since.
func (s *Server) forecast(c *pb.Campaign, r *record) time.Time {
	end := r.Schedule.Ends.Add(s.late(c, r))
	if now := s.cfg.Now(); end.Before(now) {
		return now
	}
	return end
}

// late is by how much a campaign is behind its plan: since its start, or since the window that is latest.
func (s *Server) late(c *pb.Campaign, r *record) time.Duration {
	if c.Started == nil {
		return 0
	}
	late := c.Started.AsTime().Sub(r.Schedule.Starts)
	planned := map[string]time.Time{}
	for i, ps := range r.Schedule.Sessions {
		planned[sessionID(c.Id, i)] = ps.Opens
	}
	for _, w := range c.Waves {
		for _, v := range w.Sessions {
			if opens, ok := planned[v.Id]; ok && v.WindowStart != nil {
				late = max(late, v.WindowStart.AsTime().Sub(opens))
			}
		}
	}
	return late
}

// sessionID is how package prepare names session i of a plan.
func sessionID(campaign string, i int) string { return fmt.Sprintf("%s.%d", campaign, i+1) }

// pageSize judges the size of a page.
func pageSize(n, usual, most uint32) (int, error) {
	if n > most {
		return 0, invalid("page_size %d, want at most %d", n, most)
	}
	if n == 0 {
		n = usual
	}
	return int(n), nil
}

func (s campaigns) ListCampaigns(ctx context.Context, req *connect.Request[pb.ListCampaignsRequest]) (*connect.Response[pb.ListCampaignsResponse], error) {
	size, err := pageSize(req.Msg.PageSize, 50, 500)
	if err != nil {
		return nil, err
	}
	var after int64
	if t := req.Msg.PageToken; t != "" {
		if _, err := fmt.Sscanf(t, "c%d", &after); err != nil || after < 0 {
			return nil, invalid("page_token %q is none of this call", t)
		}
	}
	key, value, isTerm := strings.Cut(req.Msg.Filter, "=")
	if isTerm && key != "phase" && key != "application" {
		return nil, invalid("filter %q, want phase=…, application=… or a part of the name", req.Msg.Filter)
	}
	f, phase := store.Filter{}, ""
	switch {
	case !isTerm:
		f.Name = req.Msg.Filter
	case key == "application":
		f.Application = value
	default:
		f.Present, phase = value != campaign.PhaseEnded.String(), value
	}
	res := &pb.ListCampaignsResponse{}
	for {
		list, err := s.cfg.Store.Campaigns(ctx, f, after, size+1)
		if err != nil {
			return nil, err
		}
		page, err := s.summaries(ctx, list)
		if err != nil {
			return nil, err
		}
		for i, c := range page {
			if phase != "" && c.Phase != phase {
				continue
			}
			if len(res.Campaigns) == size {
				res.NextPageToken = fmt.Sprintf("c%d", list[i].Number-1)
				return connect.NewResponse(res), nil
			}
			res.Campaigns = append(res.Campaigns, c)
		}
		if len(list) <= size {
			return connect.NewResponse(res), nil
		}
		after = list[len(list)-1].Number
	}
}

// summaries are campaigns of the store as lists show them; those that have not left are seen as the engine has them.
func (s *Server) summaries(ctx context.Context, list []store.Listed) ([]*pb.Campaign, error) {
	present := map[string]*pb.Campaign{}
	for _, l := range list {
		if !l.Left {
			present[l.ID] = nil
		}
	}
	err := s.cfg.Engine.View(ctx, func(all []*campaign.Campaign) {
		for _, c := range all {
			if _, wanted := present[c.ID()]; wanted {
				present[c.ID()] = summary(c)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	var out []*pb.Campaign
	for _, l := range list {
		var c *pb.Campaign
		switch {
		case l.Left:
			c = summarize(l.ID, l.Application, l.Progress, l.State)
			c.Created, c.CreatedBy = stamp(l.Created), l.CreatedBy
		case present[l.ID] != nil:
			c = present[l.ID]
			if err := s.complete(ctx, c); err != nil {
				return nil, err
			}
		default: // it has left since
			if c, err = s.show(ctx, l.ID); err != nil {
				return nil, err
			}
		}
		out = append(out, c)
	}
	return out, nil
}

func (s campaigns) GetCampaign(ctx context.Context, req *connect.Request[pb.GetCampaignRequest]) (*connect.Response[pb.GetCampaignResponse], error) {
	c, err := s.show(ctx, req.Msg.Id)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.GetCampaignResponse{Campaign: c}), nil
}

// errNotSent is what is said of a file that a campaign file names and nobody has sent.
var errNotSent = errors.New("it is not among the files of the request")

// plan plans a campaign file that came with a request.
func (s campaigns) plan(ctx context.Context, name string, text []byte, files []*pb.File) (*prepare.Campaign, []*pb.Problem, error) {
	if len(text) == 0 {
		return nil, nil, invalid("the request has no campaign file")
	}
	if name == "" {
		name = "campaign.toml"
	}
	sent := map[string][]byte{}
	for _, f := range files {
		if _, twice := sent[f.Name]; twice {
			return nil, nil, invalid("file %q is sent twice", f.Name)
		}
		sent[f.Name] = f.Data
	}
	read := func(name string) (string, []byte, error) {
		data, ok := sent[name]
		if !ok {
			return name, nil, errNotSent
		}
		return name, data, nil
	}
	list, err := s.cfg.Planner.Plan(ctx, []prepare.File{{Name: name, Text: text, Read: read}}, s.cfg.Now())
	var problems config.Problems
	if errors.As(err, &problems) && !isJoined(err) {
		var out []*pb.Problem
		for _, p := range problems {
			out = append(out, &pb.Problem{File: p.File, Line: uint32(p.Line), Problem: p.Text, Remedy: p.Remedy})
		}
		return nil, out, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return list[0], nil, nil
}

// isJoined reports whether an error is more than a list of problems: the server did not answer, too.
func isJoined(err error) bool {
	_, ok := err.(interface{ Unwrap() []error })
	return ok
}

func (s campaigns) Plan(ctx context.Context, req *connect.Request[pb.PlanRequest]) (*connect.Response[pb.PlanResponse], error) {
	c, problems, err := s.plan(ctx, req.Msg.Name, req.Msg.Campaign, req.Msg.Files)
	if err != nil || problems != nil {
		return connect.NewResponse(&pb.PlanResponse{Problems: problems}), err
	}
	schedule, err := json.Marshal(c.Schedule)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.PlanResponse{Schedule: string(schedule)}), nil
}

var requestForm = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

func (s campaigns) CreateCampaign(ctx context.Context, req *connect.Request[pb.CreateCampaignRequest]) (*connect.Response[pb.CreateCampaignResponse], error) {
	if !requestForm.MatchString(req.Msg.RequestId) {
		return nil, invalid("request_id %q, want 1 to 64 letters, digits, points, colons, dashes or underscores, different for each campaign", req.Msg.RequestId)
	}
	s.create.Lock()
	defer s.create.Unlock()
	if res, err := s.created(ctx, req.Msg.RequestId); res != nil || err != nil {
		return res, err
	}
	c, problems, err := s.plan(ctx, req.Msg.Name, req.Msg.Campaign, req.Msg.Files)
	if err != nil || problems != nil {
		return connect.NewResponse(&pb.CreateCampaignResponse{Problems: problems}), err
	}
	spec, err := c.Spec(ctx, s.cfg.Keys, counts{s.cfg.Store})
	if err != nil {
		return nil, err
	}
	by := holder(ctx).name
	spec.Creator = by
	kept, err := json.Marshal(record{Created: s.cfg.Now().UTC(), By: by, Schedule: c.Schedule})
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Engine.Create(ctx, spec, run.CampaignFile{Request: req.Msg.RequestId, TOML: req.Msg.Campaign, Schedule: kept}, by); err != nil {
		return nil, err
	}
	res, err := s.created(ctx, req.Msg.RequestId)
	if err == nil && res == nil {
		err = fmt.Errorf("api: campaign %s was created and is not there", spec.ID)
	}
	return res, err
}

// created returns the answer to a request that has been carried out, or nil.
func (s campaigns) created(ctx context.Context, request string) (*connect.Response[pb.CreateCampaignResponse], error) {
	id, err := s.cfg.Store.Requested(ctx, request)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := s.record(ctx, id)
	if err != nil {
		return nil, err
	}
	c, err := s.show(ctx, id)
	if err != nil {
		return nil, err
	}
	schedule, err := json.Marshal(r.Schedule)
	return connect.NewResponse(&pb.CreateCampaignResponse{Campaign: c, Schedule: string(schedule)}), err
}

// command gives an order, unless the campaign is in the state that it asks for.
func (s campaigns) command(ctx context.Context, id string, ev campaign.Event, is func(*campaign.Campaign) bool) (*pb.Campaign, error) {
	done := false
	if err := s.one(ctx, id, func(c *campaign.Campaign) { done = is(c) }); err != nil {
		return nil, err
	}
	if !done {
		if err := s.cfg.Engine.Command(ctx, id, ev, holder(ctx).name); err != nil {
			return nil, err
		}
	}
	return s.show(ctx, id)
}

// atWork reports whether a campaign has been started and goes on.
func atWork(c *campaign.Campaign) bool {
	p := c.Header().Phase
	return p == campaign.PhaseRunning || p == campaign.PhaseWaiting
}

const maxText = 500

func checkText(what, text string, required bool) error {
	if required && strings.TrimSpace(text) == "" {
		return invalid("%s is missing; it stands in the audit log", what)
	}
	if len(text) > maxText || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
		return invalid("%s has %d bytes or control characters, want one line of at most %d bytes", what, len(text), maxText)
	}
	return nil
}

func (s campaigns) ApproveCampaign(ctx context.Context, req *connect.Request[pb.ApproveCampaignRequest]) (*connect.Response[pb.ApproveCampaignResponse], error) {
	if err := checkText("note", req.Msg.Note, false); err != nil {
		return nil, err
	}
	by := holder(ctx).name
	c, err := s.command(ctx, req.Msg.Id, campaign.Approve{By: by, Note: req.Msg.Note}, func(c *campaign.Campaign) bool {
		h := c.Header()
		return slices.ContainsFunc(h.Approvals, func(a campaign.Approval) bool { return a.By == by && a.Wave == h.Wave })
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ApproveCampaignResponse{Campaign: c}), nil
}

func (s campaigns) StartCampaign(ctx context.Context, req *connect.Request[pb.StartCampaignRequest]) (*connect.Response[pb.StartCampaignResponse], error) {
	c, err := s.command(ctx, req.Msg.Id, campaign.Start{By: holder(ctx).name}, atWork)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.StartCampaignResponse{Campaign: c}), nil
}

func (s campaigns) PauseCampaign(ctx context.Context, req *connect.Request[pb.PauseCampaignRequest]) (*connect.Response[pb.PauseCampaignResponse], error) {
	if err := checkText("reason", req.Msg.Reason, true); err != nil {
		return nil, err
	}
	c, err := s.command(ctx, req.Msg.Id, campaign.Pause{By: holder(ctx).name, Reason: req.Msg.Reason}, func(c *campaign.Campaign) bool {
		return c.Header().Phase == campaign.PhasePaused
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.PauseCampaignResponse{Campaign: c}), nil
}

func (s campaigns) ResumeCampaign(ctx context.Context, req *connect.Request[pb.ResumeCampaignRequest]) (*connect.Response[pb.ResumeCampaignResponse], error) {
	c, err := s.command(ctx, req.Msg.Id, campaign.Continue{By: holder(ctx).name}, atWork)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.ResumeCampaignResponse{Campaign: c}), nil
}

func (s campaigns) AbortCampaign(ctx context.Context, req *connect.Request[pb.AbortCampaignRequest]) (*connect.Response[pb.AbortCampaignResponse], error) {
	if err := checkText("reason", req.Msg.Reason, true); err != nil {
		return nil, err
	}
	c, err := s.command(ctx, req.Msg.Id, campaign.Abort{By: holder(ctx).name, Reason: req.Msg.Reason}, func(c *campaign.Campaign) bool {
		h := c.Header()
		return (h.Phase == campaign.PhaseStopping || h.Phase == campaign.PhaseEnded) && h.Halted != "" && h.Cause == diag.CauseOK
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.AbortCampaignResponse{Campaign: c}), nil
}

// stages are the names of stages, for filters.
var stages = func() map[string]bool {
	out := map[string]bool{}
	for s := range maps.Keys(states) {
		out[s.String()] = true
	}
	return out
}()

// counts finds in the campaigns that have been which SessionCnt a device has seen.
type counts struct{ store *store.Store }

func (k counts) NextSessionCnt(ctx context.Context, devices []network.EUI64) (map[network.EUI64]uint16, error) {
	next := make(map[network.EUI64]uint16, len(devices))
	for some := range slices.Chunk(devices, 5000) {
		found, err := k.store.NextSessionCnt(ctx, some)
		if err != nil {
			return nil, err
		}
		maps.Copy(next, found)
	}
	return next, nil
}
