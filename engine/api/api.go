// Package api is the face of the daemon: procedures for campaigns and for the installation as gRPC, gRPC-Web and
// JSON over HTTP on one port (protocol Connect, proto/sower/v1), metrics for Prometheus, and a webhook.
//
// Who may do what is decided by API tokens, of which only the SHA-256 is kept, with the roles viewer, operator and
// admin. The package plans by engine/prepare, acts through the engine and reads the store; it holds no state that
// matters beside them. It opens no port without TLS that another machine can reach ([Listen]), and it shows no
// secret: keys of groups and devices never come near it.
package api

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/prepare"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
)

// Engine is what the API needs of the engine that runs campaigns.
type Engine interface {
	Create(ctx context.Context, spec campaign.Spec, file run.CampaignFile, by string) error
	Command(ctx context.Context, id string, ev campaign.Event, by string) error
	View(ctx context.Context, f func([]*campaign.Campaign)) error
	Subscribe(ctx context.Context) <-chan run.Update
}

// Planner plans campaigns; [prepare.Planner] does.
type Planner interface {
	Plan(ctx context.Context, files []prepare.File, now time.Time) ([]*prepare.Campaign, error)
}

// Config says what a server works with. All but Evidence, BackupDir, Log and Version are required.
type Config struct {
	Engine  Engine
	Store   *store.Store
	Planner Planner
	Keys    prepare.Keys
	Now     func() time.Time
	Metrics *Metrics

	Evidence  ed25519.PrivateKey // signs what ExportEvidence sends
	BackupDir string             // where Backup writes; empty: it refuses
	Version   string             // of the program
	Log       *slog.Logger       // nil: nowhere
	// OpenMetrics lets a request from this machine read /metrics without a token.
	OpenMetrics bool
}

// Sizes and times of requests.
const (
	maxUpload   = 16 << 20 // a campaign file with its bundles and base images
	maxRequest  = 64 << 10 // any other
	planTimeout = 10 * time.Minute
	callTimeout = 30 * time.Second
	bodyTimeout = 2 * time.Minute // to send a request
)

// Server answers the procedures of the API.
type Server struct {
	cfg   Config
	guard guard

	past    past
	mu      sync.Mutex
	records map[string]*record // of campaigns, which never change; some of them
	create  sync.Mutex         // one creation at a time: the account of the air is shared
}

// New returns a server.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, guard: guard{now: cfg.Now, find: cfg.Store.TokenByDigest, failures: map[string]*failure{}}, records: map[string]*record{}, past: past{store: cfg.Store}}
	if err := cfg.Metrics.registry.Register(fleet{s}); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	return s, nil
}

// procedures are all procedures with the role that they take; 0: nobody in particular.
var procedures = map[string]Role{
	sowerv1connect.CampaignServiceListCampaignsProcedure:   Viewer,
	sowerv1connect.CampaignServiceGetCampaignProcedure:     Viewer,
	sowerv1connect.CampaignServicePlanProcedure:            Operator,
	sowerv1connect.CampaignServiceCreateCampaignProcedure:  Operator,
	sowerv1connect.CampaignServiceApproveCampaignProcedure: Operator,
	sowerv1connect.CampaignServiceStartCampaignProcedure:   Operator,
	sowerv1connect.CampaignServicePauseCampaignProcedure:   Operator,
	sowerv1connect.CampaignServiceResumeCampaignProcedure:  Operator,
	sowerv1connect.CampaignServiceAbortCampaignProcedure:   Operator,
	sowerv1connect.CampaignServiceWatchProcedure:           Viewer,
	sowerv1connect.CampaignServiceListDevicesProcedure:     Viewer,
	sowerv1connect.CampaignServiceExplainProcedure:         Viewer,
	sowerv1connect.CampaignServiceExportEvidenceProcedure:  Viewer,
	sowerv1connect.AdminServiceHealthProcedure:             0,
	sowerv1connect.AdminServiceListAuditProcedure:          Viewer,
	sowerv1connect.AdminServiceVerifyAuditProcedure:        Viewer,
	sowerv1connect.AdminServiceBackupProcedure:             Admin,
	sowerv1connect.AdminServiceCreateTokenProcedure:        Admin,
	sowerv1connect.AdminServiceListTokensProcedure:         Admin,
	sowerv1connect.AdminServiceRevokeTokenProcedure:        Admin,
}

// uploads are the procedures that take files.
var uploads = map[string]bool{
	sowerv1connect.CampaignServicePlanProcedure:           true,
	sowerv1connect.CampaignServiceCreateCampaignProcedure: true,
}

// Handler returns everything that the server answers: the procedures, /metrics and /healthz.
func (s *Server) Handler() http.Handler {
	opts := []connect.HandlerOption{
		connect.WithInterceptors(connect.UnaryInterceptorFunc(s.unary)),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
			s.cfg.Log.Error("panic", "procedure", spec.Procedure, "value", fmt.Sprint(p))
			return connect.NewError(connect.CodeInternal, errors.New("internal error"))
		}),
		connect.WithConditionalHandlerOptions(func(spec connect.Spec) []connect.HandlerOption {
			if uploads[spec.Procedure] {
				return []connect.HandlerOption{connect.WithReadMaxBytes(maxUpload)}
			}
			return []connect.HandlerOption{connect.WithReadMaxBytes(maxRequest)}
		}),
	}
	calls := http.NewServeMux()
	calls.Handle(sowerv1connect.NewCampaignServiceHandler(campaigns{s}, opts...))
	calls.Handle(sowerv1connect.NewAdminServiceHandler(admin{s}, opts...))
	mux := http.NewServeMux()
	mux.Handle("/", s.guard.wrap(calls))
	mux.Handle("GET /metrics", s.metricsHandler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		if err := s.alive(r.Context()); err != nil {
			http.Error(w, "the engine does not answer", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// unary gives each call its time and notes what it came to. Requests and answers are not logged: a campaign file
// may be large and is nobody's business.
func (s *Server) unary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		limit := callTimeout
		if uploads[req.Spec().Procedure] {
			limit = planTimeout
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		begun := s.cfg.Now()
		res, err := next(ctx, req)
		if err != nil {
			err = translate(err)
		}
		s.cfg.Log.Info("call", "procedure", req.Spec().Procedure[strings.LastIndexByte(req.Spec().Procedure, '/')+1:],
			"by", holder(ctx).name, "code", code(err), "ms", s.cfg.Now().Sub(begun).Milliseconds())
		return res, err
	}
}

func code(err error) string {
	if err == nil {
		return "ok"
	}
	return connect.CodeOf(err).String()
}

// translate gives errors of the engine and of networks their code.
func translate(err error) error {
	if errors.As(err, new(*connect.Error)) {
		return err
	}
	for _, m := range []struct {
		is   error
		code connect.Code
	}{
		{run.ErrNotFound, connect.CodeNotFound},
		{store.ErrNotFound, connect.CodeNotFound},
		{run.ErrStopped, connect.CodeUnavailable},
		{run.ErrConflict, connect.CodeFailedPrecondition},
		{network.ErrUnavailable, connect.CodeUnavailable},
		{network.ErrUncertain, connect.CodeUnavailable},
		{network.ErrDenied, connect.CodeFailedPrecondition}, // of the network server: not the caller's token
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
		{context.Canceled, connect.CodeCanceled},
	} {
		if errors.Is(err, m.is) {
			return connect.NewError(m.code, err)
		}
	}
	return connect.NewError(connect.CodeInternal, err)
}

func invalid(format string, args ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
}

// record is what is kept of the making of a campaign, in the place of its schedule.
type record struct {
	Created  time.Time     `json:"created"`
	By       string        `json:"created_by"`
	Schedule plan.Schedule `json:"schedule"`
}

// maxRecords is how many records are kept in memory.
const maxRecords = 100

// record returns what is kept of a campaign.
func (s *Server) record(ctx context.Context, id string) (*record, error) {
	s.mu.Lock()
	r := s.records[id]
	s.mu.Unlock()
	if r != nil {
		return r, nil
	}
	file, _, err := s.cfg.Store.File(ctx, id)
	if err != nil {
		return nil, err
	}
	r = new(record)
	if err := json.Unmarshal(file.Schedule, r); err != nil {
		return nil, fmt.Errorf("api: schedule of campaign %s: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.records) == maxRecords {
		clear(s.records)
	}
	s.records[id] = r
	return r, nil
}
