package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/engine/api"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
)

// quiet is a network on which nothing happens but the events that it is given.
type quiet struct{ events <-chan network.Event }

func (quiet) Capabilities(context.Context) (network.Capabilities, error) {
	return network.Capabilities{Name: "quiet", MulticastClasses: []network.Class{network.ClassC}}, nil
}
func (quiet) Devices(context.Context, string) ([]network.Device, error)   { return nil, nil }
func (quiet) Gateways(context.Context, string) ([]network.Gateway, error) { return nil, nil }
func (quiet) RootKey(context.Context, network.EUI64) (network.Key, error) {
	return network.Key{}, network.ErrNotFound
}
func (quiet) Send(context.Context, network.Message) (network.MessageID, error) { return "m", nil }
func (quiet) Queued(context.Context, network.EUI64) ([]network.MessageID, error) {
	return nil, nil
}
func (quiet) Flush(context.Context, network.EUI64) error { return nil }
func (quiet) OpenGroup(context.Context, network.Group) (network.GroupID, error) {
	return "g", nil
}
func (quiet) GroupState(context.Context, network.GroupID) (network.GroupState, error) {
	return network.GroupState{}, nil
}
func (quiet) Broadcast(context.Context, network.Broadcast) (uint32, error) { return 0, nil }
func (quiet) FlushGroup(context.Context, network.GroupID) error            { return nil }
func (quiet) CloseGroup(context.Context, network.GroupID) error            { return nil }
func (q quiet) Events(ctx context.Context, _ string) (<-chan network.Event, error) {
	ch := make(chan network.Event)
	go func() {
		defer close(ch)
		for {
			select {
			case ev := <-q.events:
				ch <- ev
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch, nil
}

// server is a network server with n sound devices.
type server struct{ n int }

func eui(i int) network.EUI64 {
	return network.EUI64{0x70, 0xb3, 0, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}
}

func (server) Capabilities(ctx context.Context) (network.Capabilities, error) {
	return quiet{}.Capabilities(ctx)
}

func (server) Application(_ context.Context, id string) (string, error) {
	if id != "app" {
		return "", network.ErrNotFound
	}
	return "Meters", nil
}

func (s server) Devices(context.Context, string) ([]network.Device, error) {
	out := make([]network.Device, s.n)
	for i := range out {
		out[i] = network.Device{EUI: eui(i), Application: "app", Profile: "p", Region: "EU868", Battery: -1,
			Tags: map[string]string{"firmware_version": "1.0.0", "hardware_id": "1"}}
	}
	return out, nil
}

func (server) Profile(context.Context, string) (prepare.Profile, error) {
	return prepare.Profile{Name: "p"}, nil
}

func (server) Gateways(context.Context, string) ([]network.Gateway, error) {
	return []network.Gateway{{ID: network.EUI64{1}, Name: "roof", Online: true, Region: "EU868"}}, nil
}

func (server) Links(context.Context, map[network.EUI64]time.Time, func(network.EUI64, prepare.Link)) error {
	return nil
}

func (server) Ready(_ context.Context, devices []network.EUI64, found func(network.EUI64, prepare.Readiness)) error {
	for _, d := range devices {
		found(d, prepare.Readiness{Joined: true})
	}
	return nil
}

func (server) GroupExists(context.Context, string, string) (bool, error) { return false, nil }

// daemon is an API with everything behind it.
type daemon struct {
	http   *httptest.Server
	store  *store.Store
	engine *run.Engine
	events chan network.Event // of the network
	log    *locked
	stop   func() // ends the engine
	admin  string // token
	now    *atomic.Int64
}

// serve starts an API for n devices.
func serve(t testing.TB, n int) *daemon {
	t.Helper()
	return lingering(t, n, 0)
}

// lingering is serve with a time for which campaigns that have ended stay in memory.
func lingering(t testing.TB, n int, linger time.Duration) *daemon {
	t.Helper()
	d := &daemon{log: &locked{}, now: &atomic.Int64{}, events: make(chan network.Event)}
	d.now.Store(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).UnixNano())
	now := func() time.Time { return time.Unix(0, d.now.Load()).UTC() }
	var err error
	dir := t.TempDir()
	if d.store, err = store.Open(t.Context(), filepath.Join(dir, "sower.db"), store.Options{NoSync: true}); err != nil {
		t.Fatal(err)
	}
	if d.admin, err = api.FirstToken(t.Context(), d.store, now(), false); err != nil || d.admin == "" {
		t.Fatalf("first token %q, %v", d.admin, err)
	}
	settings, doc := config.ParseSettings("sower.toml", []byte("[chirpstack]\nserver = \"s:1\"\ntoken_env = \"T\"\nmqtt = \"mqtt://s\"\n"))
	if err := doc.Problems.Err(); err != nil {
		t.Fatal(err)
	}
	metrics := api.NewMetrics()
	d.engine = run.New(run.Config{Network: quiet{d.events}, Clock: &network.WallClock{}, Store: metrics.Store(d.store), Log: metrics.Log, Linger: linger})
	key, _, err := api.NewEvidenceKey()
	if err != nil {
		t.Fatal(err)
	}
	var addr atomic.Uint32
	planner := &prepare.Planner{Settings: settings, Server: server{n}}
	srv, err := api.New(api.Config{Engine: d.engine, Store: d.store, Planner: planner, Now: now,
		Metrics: metrics, Evidence: key, BackupDir: dir, Version: "test", Log: d.logger(),
		Keys: func() (uint32, network.Key, error) {
			return addr.Add(1), network.Key{'C', 'A', 'N', 'A', 'R', 'Y'}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	planner.Started = srv.Started
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.engine.Run(ctx) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("engine: %v", err)
		}
	})
	d.http = httptest.NewServer(srv.Handler())
	t.Cleanup(func() {
		d.http.CloseClientConnections()
		d.http.Close()
		d.stop()
		d.store.Close()
	})
	return d
}

func (d *daemon) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(d.log, nil)) }

// locked is a log that is read while it is written.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type withToken string

func (t withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if t != "" {
		r.Header.Set("Authorization", "Bearer "+string(t))
	}
	return http.DefaultTransport.RoundTrip(r)
}

func (d *daemon) campaigns(token string, opts ...connect.ClientOption) sowerv1connect.CampaignServiceClient {
	return sowerv1connect.NewCampaignServiceClient(&http.Client{Transport: withToken(token)}, d.http.URL, opts...)
}

func (d *daemon) adminOf(token string) sowerv1connect.AdminServiceClient {
	return sowerv1connect.NewAdminServiceClient(&http.Client{Transport: withToken(token)}, d.http.URL)
}

// token makes a token.
func (d *daemon) token(t testing.TB, name string, role pb.Role) string {
	t.Helper()
	res, err := d.adminOf(d.admin).CreateToken(t.Context(), connect.NewRequest(&pb.CreateTokenRequest{Name: name, Role: role}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.Token
}

// block makes a bundle with the full image of version 1.1.0.
func block(t testing.TB) []byte {
	t.Helper()
	img, err := mcuboot.Wrap(bytes.Repeat([]byte("image"), 200), mcuboot.Options{Major: 1, Minor: 1})
	if err != nil {
		t.Fatal(err)
	}
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Full(bundle.Target{Class: 1, Hardware: 1, KeyID: 1, Sequence: 1}, img, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func request(t testing.TB, id, name, more string) *pb.CreateCampaignRequest {
	return &pb.CreateCampaignRequest{RequestId: id, Name: name + ".toml",
		Campaign: []byte(fmt.Sprintf("name = %q\napplication = \"app\"\n[[bundle]]\nfile = \"full.sow\"\n%s", name, more)),
		Files:    []*pb.File{{Name: "full.sow", Data: block(t)}}}
}

// create makes a campaign that must be sound.
func create(t testing.TB, svc sowerv1connect.CampaignServiceClient, name, more string) *pb.Campaign {
	t.Helper()
	res, err := svc.CreateCampaign(t.Context(), connect.NewRequest(request(t, "id-"+name, name, more)))
	if err != nil || len(res.Msg.Problems) > 0 {
		t.Fatalf("%v %v", err, res)
	}
	return res.Msg.Campaign
}

func wantCode(t *testing.T, what string, err error, want connect.Code, text string) {
	t.Helper()
	if connect.CodeOf(err) != want || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v; want %s and %q", what, err, want, text)
	}
}

func TestCreateOnce(t *testing.T) {
	d := serve(t, 5)
	svc := d.campaigns(d.admin)
	req := request(t, "one", "meters", "")
	first, err := svc.CreateCampaign(t.Context(), connect.NewRequest(req))
	if err != nil || len(first.Msg.Problems) > 0 || first.Msg.Campaign.Devices != 5 || first.Msg.Campaign.CreatedBy != "admin" || first.Msg.Campaign.Phase != "draft" {
		t.Fatalf("%v %v", err, first)
	}
	again, err := svc.CreateCampaign(t.Context(), connect.NewRequest(req))
	if err != nil || again.Msg.Campaign.GetId() != "meters" || again.Msg.Schedule != first.Msg.Schedule {
		t.Errorf("the same request: %v %v", err, again)
	}
	if list, err := svc.ListCampaigns(t.Context(), connect.NewRequest(&pb.ListCampaignsRequest{})); err != nil || len(list.Msg.Campaigns) != 1 {
		t.Errorf("%v %v", err, list)
	}
	req.RequestId = "two"
	_, err = svc.CreateCampaign(t.Context(), connect.NewRequest(req))
	wantCode(t, "another request of that name", err, connect.CodeFailedPrecondition, "meters exists")
	req.RequestId = ""
	_, err = svc.CreateCampaign(t.Context(), connect.NewRequest(req))
	wantCode(t, "no request id", err, connect.CodeInvalidArgument, "request_id")
}

// The key of a multicast group is nowhere to be seen.
func TestKeysAreSealed(t *testing.T) {
	d := serve(t, 2)
	svc := d.campaigns(d.admin)
	create(t, svc, "meters", "")
	res, err := d.adminOf(d.admin).Backup(t.Context(), connect.NewRequest(&pb.BackupRequest{Name: "copy.db"}))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := svc.ExportEvidence(t.Context(), connect.NewRequest(&pb.ExportEvidenceRequest{Campaign: "meters"}))
	if err != nil {
		t.Fatal(err)
	}
	var evidence []byte
	for stream.Receive() {
		evidence = append(evidence, stream.Msg().Lines...)
	}
	if err := stream.Err(); err != nil || !bytes.Contains(evidence, []byte("meters.1")) {
		t.Errorf("evidence: %v", err)
	}
	read := map[string][]byte{"log": []byte(d.log.String()), "evidence": evidence}
	for _, path := range []string{res.Msg.Path, filepath.Join(filepath.Dir(res.Msg.Path), "sower.db"), filepath.Join(filepath.Dir(res.Msg.Path), "sower.db-wal")} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		read[path] = text
	}
	for where, text := range read {
		for _, secret := range []string{"CANARY", "43414e415259", "Q0FOQVJZ", d.admin} {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s stands in %s", secret, where)
			}
		}
	}
}

func TestCreateListsProblems(t *testing.T) {
	d := serve(t, 5)
	svc := d.campaigns(d.admin)
	req := request(t, "one", "meters", "")
	req.Campaign = []byte("name = \"meters\"\napplication = \"app\"\ntypo = 1\n[[bundle]]\nfile = \"other.sow\"\n[devices]\nlist = [\"70b3d57ed0ffffff\"]\n")
	for range 2 {
		res, err := svc.CreateCampaign(t.Context(), connect.NewRequest(req))
		if err != nil || res.Msg.Campaign != nil {
			t.Fatalf("%v %v", err, res)
		}
		var lines []string
		for _, p := range res.Msg.Problems {
			lines = append(lines, fmt.Sprintf("%s:%d: %s; %s", p.File, p.Line, p.Problem, p.Remedy))
		}
		all := strings.Join(lines, "\n")
		for _, want := range []string{`meters.toml:3: unknown key "typo"`, "meters.toml:5: bundle other.sow: it is not among the files of the request",
			"meters.toml:7: device 70b3d57ed0ffffff does not exist"} {
			if !strings.Contains(all, want) {
				t.Errorf("no %q in\n%s", want, all)
			}
		}
	}
	if list, err := svc.ListCampaigns(t.Context(), connect.NewRequest(&pb.ListCampaignsRequest{})); err != nil || len(list.Msg.Campaigns) != 0 {
		t.Errorf("something was kept: %v %v", err, list)
	}
}

// A campaign is led through its orders, and each may be repeated.
func TestOrders(t *testing.T) {
	d := serve(t, 5)
	svc := d.campaigns(d.admin)
	create(t, svc, "meters", "")
	id := "meters"
	_, err := svc.PauseCampaign(t.Context(), connect.NewRequest(&pb.PauseCampaignRequest{Id: id, Reason: "r"}))
	wantCode(t, "pause a draft", err, connect.CodeFailedPrecondition, "draft")
	for range 2 {
		if res, err := svc.StartCampaign(t.Context(), connect.NewRequest(&pb.StartCampaignRequest{Id: id})); err != nil || res.Msg.Campaign.Phase != "running" || !res.Msg.Campaign.Forecast.AsTime().After(time.Now()) {
			t.Fatalf("start: %v %v", err, res)
		}
	}
	_, err = svc.PauseCampaign(t.Context(), connect.NewRequest(&pb.PauseCampaignRequest{Id: id}))
	wantCode(t, "no reason", err, connect.CodeInvalidArgument, "reason is missing")
	_, err = svc.PauseCampaign(t.Context(), connect.NewRequest(&pb.PauseCampaignRequest{Id: id, Reason: "a\nb"}))
	wantCode(t, "two lines", err, connect.CodeInvalidArgument, "one line")
	for range 2 {
		if res, err := svc.PauseCampaign(t.Context(), connect.NewRequest(&pb.PauseCampaignRequest{Id: id, Reason: "lunch"})); err != nil || res.Msg.Campaign.Phase != "paused" {
			t.Fatalf("pause: %v %v", err, res)
		}
	}
	for range 2 {
		if res, err := svc.ResumeCampaign(t.Context(), connect.NewRequest(&pb.ResumeCampaignRequest{Id: id})); err != nil || res.Msg.Campaign.Phase != "running" {
			t.Fatalf("resume: %v %v", err, res)
		}
	}
	for range 2 {
		if res, err := svc.AbortCampaign(t.Context(), connect.NewRequest(&pb.AbortCampaignRequest{Id: id, Reason: "enough"})); err != nil || !strings.Contains(res.Msg.Campaign.Halted, "enough") {
			t.Fatalf("abort: %v %v", err, res)
		}
	}
	_, err = svc.StartCampaign(t.Context(), connect.NewRequest(&pb.StartCampaignRequest{Id: id}))
	wantCode(t, "start what was aborted", err, connect.CodeFailedPrecondition, "started already")
	_, err = svc.GetCampaign(t.Context(), connect.NewRequest(&pb.GetCampaignRequest{Id: "none"}))
	wantCode(t, "no such campaign", err, connect.CodeNotFound, "none")
	audit, err := d.adminOf(d.admin).ListAudit(t.Context(), connect.NewRequest(&pb.ListAuditRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, a := range audit.Msg.Entries {
		actions = append(actions, a.Actor+" "+a.Action)
	}
	want := "sower token add,admin create,admin start,admin pause,admin continue,admin abort"
	if got := strings.Join(actions, ","); !strings.Contains(got, want) {
		t.Errorf("audit %s; want %s, each once", got, want)
	}
	if res, err := d.adminOf(d.admin).VerifyAudit(t.Context(), connect.NewRequest(&pb.VerifyAuditRequest{})); err != nil || !res.Msg.Ok || res.Msg.Head == "" {
		t.Errorf("%v %v", err, res)
	}
}

// A campaign is planned behind one that has been started and uses the same gateway, not behind a draft.
func TestSharedGateway(t *testing.T) {
	d := serve(t, 2)
	svc := d.campaigns(d.admin)
	create(t, svc, "first", fmt.Sprintf("[devices]\nlist = [%q]\n", eui(0)))
	behind := func(id string) bool {
		res, err := svc.Plan(t.Context(), connect.NewRequest(&pb.PlanRequest{Name: "f", Campaign: request(t, "x", id, fmt.Sprintf("[devices]\nlist = [%q]\n", eui(1))).Campaign,
			Files: []*pb.File{{Name: "full.sow", Data: block(t)}}}))
		if err != nil || len(res.Msg.Problems) > 0 {
			t.Fatalf("%v %v", err, res)
		}
		return strings.Contains(res.Msg.Schedule, "campaign first uses gateway")
	}
	if behind("second") {
		t.Error("behind a draft")
	}
	if _, err := svc.StartCampaign(t.Context(), connect.NewRequest(&pb.StartCampaignRequest{Id: "first"})); err != nil {
		t.Fatal(err)
	}
	d.now.Store(time.Now().UnixNano()) // the engine has a clock of its own: a window of the one lies in the way of the other
	if !behind("second") {
		t.Error("not behind the campaign that runs")
	}
}

func TestFourEyes(t *testing.T) {
	d := serve(t, 5)
	anna, ben := d.token(t, "anna", pb.Role_ROLE_OPERATOR), d.token(t, "ben", pb.Role_ROLE_OPERATOR)
	create(t, d.campaigns(anna), "meters", "[policy]\napprovals = 1\n")
	_, err := d.campaigns(anna).StartCampaign(t.Context(), connect.NewRequest(&pb.StartCampaignRequest{Id: "meters"}))
	wantCode(t, "start without approval", err, connect.CodeFailedPrecondition, "1 more approvals")
	_, err = d.campaigns(anna).ApproveCampaign(t.Context(), connect.NewRequest(&pb.ApproveCampaignRequest{Id: "meters"}))
	wantCode(t, "approve one's own", err, connect.CodeFailedPrecondition, "somebody else must approve")
	// Another token of the same person is no second pair of eyes.
	_, err = d.campaigns(d.token(t, "anna", pb.Role_ROLE_ADMIN)).ApproveCampaign(t.Context(), connect.NewRequest(&pb.ApproveCampaignRequest{Id: "meters"}))
	wantCode(t, "approve by another token", err, connect.CodeFailedPrecondition, "somebody else must approve")
	for range 2 {
		res, err := d.campaigns(ben).ApproveCampaign(t.Context(), connect.NewRequest(&pb.ApproveCampaignRequest{Id: "meters", Note: "looked at the plan"}))
		if err != nil || res.Msg.Campaign.ApprovalsMissing != 0 || len(res.Msg.Campaign.Approvals) != 1 {
			t.Fatalf("%v %v", err, res)
		}
	}
	if _, err := d.campaigns(anna).StartCampaign(t.Context(), connect.NewRequest(&pb.StartCampaignRequest{Id: "meters"})); err != nil {
		t.Error(err)
	}
}
