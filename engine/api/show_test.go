package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/api"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
)

var metricName = regexp.MustCompile(`\bsower_[a-z_]+`)

// Pages hold every device once, in the same order each time.
func TestListDevices(t *testing.T) {
	const n = 25
	d := serve(t, n)
	svc := d.campaigns(d.admin)
	create(t, svc, "meters", "[[wave]]\nname = \"canary\"\ncount = 3\n[[wave]]\nname = \"all\"\npercent = 100\n")
	list := func(filter string) []string {
		var out []string
		for token := ""; ; {
			res, err := svc.ListDevices(t.Context(), connect.NewRequest(&pb.ListDevicesRequest{Campaign: "meters", PageSize: 7, PageToken: token, Filter: filter}))
			if err != nil {
				t.Fatal(err)
			}
			if len(res.Msg.Devices) > 7 {
				t.Errorf("a page of %d", len(res.Msg.Devices))
			}
			for _, v := range res.Msg.Devices {
				out = append(out, v.DevEui)
			}
			if token = res.Msg.NextPageToken; token == "" {
				return out
			}
		}
	}
	all := list("")
	if sorted := slices.Clone(all); len(all) != n || len(slices.Compact(slices.Sorted(slices.Values(sorted)))) != n {
		t.Errorf("%d devices: %v", len(all), all)
	}
	for filter, want := range map[string]int{"wave=canary": 3, "wave=all stage=discover": n - 3, "stage=failed": 0, "cause=OK": n, "version=9.9.9": 0} {
		if got := list(filter); len(got) != want {
			t.Errorf("%s: %d devices, want %d", filter, len(got), want)
		}
	}
	for _, filter := range []string{"stage=none", "color=red", "stage", "stage="} {
		_, err := svc.ListDevices(t.Context(), connect.NewRequest(&pb.ListDevicesRequest{Campaign: "meters", Filter: filter}))
		wantCode(t, filter, err, connect.CodeInvalidArgument, "filter")
	}
}

// A device that is listed in a rescue wave, too, is shown and counted once.
func TestRescueWave(t *testing.T) {
	const n = 6
	d := serve(t, n)
	svc := d.campaigns(d.admin)
	create(t, svc, "meters", "[[wave]]\nname = \"all\"\n[[wave]]\nname = \"rescue\"\nrescue = true\ndata_rate = 0\n")
	res, err := svc.ListDevices(t.Context(), connect.NewRequest(&pb.ListDevicesRequest{Campaign: "meters"}))
	if err != nil || len(res.Msg.Devices) != n || res.Msg.Devices[0].Wave != "all" {
		t.Errorf("%v %v", err, res)
	}
	c, err := svc.GetCampaign(t.Context(), connect.NewRequest(&pb.GetCampaignRequest{Id: "meters"}))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, b := range c.Msg.Campaign.Breakdown {
		sum += int(b.Devices)
	}
	if sum != n || c.Msg.Campaign.Devices != n || len(c.Msg.Campaign.Waves) != 2 {
		t.Errorf("%d devices counted: %v", sum, c.Msg.Campaign)
	}
}

func TestListCampaigns(t *testing.T) {
	d := serve(t, 6)
	svc := d.campaigns(d.admin)
	for i := range 5 {
		create(t, svc, fmt.Sprintf("c%d", i), fmt.Sprintf("[devices]\nlist = [%q]\n", eui(i)))
	}
	if _, err := svc.StartCampaign(t.Context(), connect.NewRequest(&pb.StartCampaignRequest{Id: "c2"})); err != nil {
		t.Fatal(err)
	}
	for filter, want := range map[string]string{"": "c0 c1 c2 c3 c4", "phase=draft": "c0 c1 c3 c4", "phase=running": "c2", "application=app": "c0 c1 c2 c3 c4",
		"application=x": "", "3": "c3"} {
		var got []string
		for token := ""; ; {
			res, err := svc.ListCampaigns(t.Context(), connect.NewRequest(&pb.ListCampaignsRequest{PageSize: 2, PageToken: token, Filter: filter}))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range res.Msg.Campaigns {
				got = append(got, c.Id)
			}
			if token = res.Msg.NextPageToken; token == "" {
				break
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %s", filter, got, want)
		}
	}
}

// Every stage and every cause can be explained, and stands in the operator's manual.
func TestExplained(t *testing.T) {
	operate, err := os.ReadFile("../../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	causes, err := os.ReadFile("../../docs/causes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range session.Stages() {
		happening, next := api.ExplainStage(s)
		row := fmt.Sprintf("| `%s` | %s | %s |", s, happening, next)
		if happening == "" || next == "" || !strings.Contains(string(operate), row) {
			t.Errorf("docs/operate.md lacks\n%s", row)
		}
	}
	for _, c := range diag.Causes() {
		row := fmt.Sprintf("| %d | `%s` | %s | %s |", c, c, c.Meaning(), c.Remedy())
		if c.Meaning() == "" || c.Remedy() == "" || !strings.Contains(string(causes), row) {
			t.Errorf("docs/causes.md lacks\n%s", row)
		}
		res := api.ExplainDevice(session.Device{EUI: eui(1), Stage: session.StageFailed, Step: diag.StepReceive, Cause: c, Missing: -1})
		if res.Cause != c.String() || res.NextStep != c.Remedy() || c != diag.CauseOK && res.Happened != c.Meaning() {
			t.Errorf("%s is explained as %v", c, res)
		}
	}
}

func TestExplain(t *testing.T) {
	d := serve(t, 2)
	svc := d.campaigns(d.admin)
	create(t, svc, "meters", "")
	res, err := svc.Explain(t.Context(), connect.NewRequest(&pb.ExplainRequest{Campaign: "meters", DevEui: strings.ToUpper(eui(1).String())}))
	if err != nil || res.Msg.NextStep != "approve and start the campaign" || res.Msg.Device.Stage != "discover" {
		t.Errorf("%v %v", err, res)
	}
	_, err = svc.Explain(t.Context(), connect.NewRequest(&pb.ExplainRequest{Campaign: "meters", DevEui: "12"}))
	wantCode(t, "no DevEUI", err, connect.CodeInvalidArgument, "dev_eui")
	_, err = svc.Explain(t.Context(), connect.NewRequest(&pb.ExplainRequest{Campaign: "meters", DevEui: "0102030405060708"}))
	wantCode(t, "a stranger", err, connect.CodeNotFound, "not in campaign")
}

// What is said of the last uplink agrees with the timeline, also while the wave of the device has not begun.
func TestExplainLastUplink(t *testing.T) {
	d := serve(t, 2)
	svc := d.campaigns(d.admin)
	create(t, svc, "meters", "[[wave]]\nname = \"canary\"\ncount = 1\n[[wave]]\nname = \"all\"\npercent = 100\n")
	if _, err := svc.StartCampaign(t.Context(), connect.NewRequest(&pb.StartCampaignRequest{Id: "meters"})); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 22, 12, 34, 56, 0, time.UTC)
	explained := func(i int) *pb.ExplainResponse {
		t.Helper()
		res, err := svc.Explain(t.Context(), connect.NewRequest(&pb.ExplainRequest{Campaign: "meters", DevEui: eui(i).String()}))
		if err != nil {
			t.Fatal(err)
		}
		return res.Msg
	}
	waves := map[string]string{"canary": "last uplink at 2026-11-22 12:34:56 UTC", "all": "last uplink at 2026-11-22 12:34:56 UTC, before its wave began"}
	for i := range 2 {
		res := explained(i)
		if !slices.Contains(res.Evidence, "no uplink is known since the campaign was made") || res.Device.LastUplink != nil {
			t.Errorf("device %d has not been heard: %v", i, res)
		}
		for _, ago := range []time.Duration{time.Hour, 0, time.Minute} { // the last to arrive is not the last that was sent
			taken := make(chan struct{})
			d.events <- network.Event{ID: fmt.Sprintf("%d/%s", i, ago), Kind: network.EventUplink, Device: eui(i), At: at.Add(-ago), FPort: 10, Payload: []byte{1},
				Done: func() { close(taken) }}
			<-taken
		}
		res = explained(i)
		want := waves[res.Device.Wave]
		if want == "" || !slices.Contains(res.Evidence, want) || !res.Device.LastUplink.AsTime().Equal(at) {
			t.Errorf("device %d of wave %s: no %q in %v", i, res.Device.Wave, want, res)
		}
		if waiting := strings.Contains(res.Summary, "waits for its wave"); waiting != (res.Device.Wave == "all") {
			t.Errorf("device %d of wave %s: %s", i, res.Device.Wave, res.Summary)
		}
		delete(waves, res.Device.Wave)
	}
	list, err := svc.ListDevices(t.Context(), connect.NewRequest(&pb.ListDevicesRequest{Campaign: "meters"}))
	if err != nil || len(list.Msg.Devices) != 2 {
		t.Fatalf("%v %v", list, err)
	}
	for _, v := range list.Msg.Devices {
		if !v.LastUplink.AsTime().Equal(at) {
			t.Errorf("device %s of wave %s is listed as last heard at %s", v.DevEui, v.Wave, v.LastUplink.AsTime())
		}
	}
}

// A timeline that is too long for one answer ends with what has just happened.
func TestExplainNewest(t *testing.T) {
	d := serve(t, 1)
	svc := d.campaigns(d.admin)
	create(t, svc, "meters", "")
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	const n = 1100
	taken := make(chan struct{}, n)
	for i := range n {
		d.events <- network.Event{ID: fmt.Sprint(i), Kind: network.EventUplink, Device: eui(0), At: at.Add(time.Duration(i) * time.Minute), FPort: 10,
			Done: func() { taken <- struct{}{} }}
	}
	for range n {
		<-taken
	}
	res, err := svc.Explain(t.Context(), connect.NewRequest(&pb.ExplainRequest{Campaign: "meters", DevEui: eui(0).String()}))
	if err != nil {
		t.Fatal(err)
	}
	last := at.Add((n - 1) * time.Minute)
	line := res.Msg.Timeline
	if len(line) != 1000 || !strings.Contains(line[999].Json, last.Format(time.RFC3339)) || line[0].Seq >= line[999].Seq || !res.Msg.Device.LastUplink.AsTime().Equal(last) {
		t.Errorf("%d entries, the last %v; last uplink %s, want %s", len(line), line[len(line)-1], res.Msg.Device.LastUplink.AsTime(), last)
	}
	if !slices.ContainsFunc(res.Msg.Evidence, func(s string) bool { return strings.Contains(s, "newest 1000 entries") }) {
		t.Errorf("nothing says that the timeline is not all: %v", res.Msg.Evidence)
	}
}

// A daemon that stops says so to those who watch, and that they may come again.
func TestWatchStopping(t *testing.T) {
	d := serve(t, 2)
	create(t, d.campaigns(d.admin), "meters", "")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	other := httptest.NewUnstartedServer(d.http.Config.Handler)
	other.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	other.Start()
	defer other.Close()
	svc := sowerv1connect.NewCampaignServiceClient(&http.Client{Transport: withToken(d.admin)}, other.URL)
	stream, err := svc.Watch(t.Context(), connect.NewRequest(&pb.WatchRequest{Id: "meters"}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	cancel(errors.New("terminated signal received"))
	for stream.Receive() {
	}
	wantCode(t, "a daemon that stops", stream.Err(), connect.CodeUnavailable, "sower serve is stopping")
}

// Watch begins with a snapshot, sends what happens, goes on after a cursor, and ends with the campaign.
func TestWatch(t *testing.T) {
	d := serve(t, 2)
	svc := d.campaigns(d.admin)
	create(t, svc, "meters", "")
	stream, err := svc.Watch(t.Context(), connect.NewRequest(&pb.WatchRequest{Id: "meters"}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() || stream.Msg().Campaign.Phase != "draft" {
		t.Fatalf("%v %v", stream.Err(), stream.Msg())
	}
	if _, err := svc.StartCampaign(t.Context(), connect.NewRequest(&pb.StartCampaignRequest{Id: "meters"})); err != nil {
		t.Fatal(err)
	}
	var seen []uint64
	cursor := ""
	for len(seen) == 0 && stream.Receive() {
		for _, e := range stream.Msg().Entries {
			seen = append(seen, e.Seq)
		}
		cursor = stream.Msg().Cursor
	}
	stream.Close()
	if _, err := svc.AbortCampaign(t.Context(), connect.NewRequest(&pb.AbortCampaignRequest{Id: "meters", Reason: "test"})); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rest, err := svc.Watch(ctx, connect.NewRequest(&pb.WatchRequest{Id: "meters", Cursor: cursor}))
	if err != nil {
		t.Fatal(err)
	}
	defer rest.Close()
	halted := false
	for !halted && rest.Receive() {
		for _, e := range rest.Msg().Entries {
			if slices.Contains(seen, e.Seq) {
				t.Errorf("entry %d comes twice", e.Seq)
			}
			halted = halted || e.Kind == "halt" && strings.Contains(e.Text, "test")
		}
	}
	if !halted {
		t.Errorf("no halt in the log: %v", rest.Err())
	}
	_, err = svc.GetCampaign(t.Context(), connect.NewRequest(&pb.GetCampaignRequest{Id: "meters"}))
	if err != nil {
		t.Error(err)
	}
}

// A counter that falls would look like a restart.
func TestFragmentsNeverFall(t *testing.T) {
	before := campaign.Progress{Sessions: []session.Progress{{DataSent: 10, ParitySent: 2}}}
	after := campaign.Progress{Sessions: []session.Progress{{DataSent: 5, ParitySent: 1, Refused: 6}}} // as session.Session counts
	if n, refused := api.Fragments(before); n != 12 || refused != 0 {
		t.Errorf("%d accepted, %d refused; want 12 and 0", n, refused)
	}
	if n, refused := api.Fragments(after); n != 12 || refused != 6 {
		t.Errorf("%d accepted, %d refused; want 12 and 6", n, refused)
	}
}

func TestMetrics(t *testing.T) {
	d := serve(t, 3)
	create(t, d.campaigns(d.admin), "meters", "")
	if status, _ := d.get(t, "/metrics", ""); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}
	status, text := d.get(t, "/metrics", d.admin)
	for _, want := range []string{`sower_campaigns{halted="no",phase="draft"} 1`, `sower_campaigns{halted="no",phase="running"} 0`,
		`sower_campaigns{halted="yes",phase="stopping"} 0`, `sower_campaigns{halted="yes",phase="ended"} 0`,
		`sower_devices{campaign="meters",cause="OK",from_version="1.0.0",hardware="1",stage="discover"} 3`,
		`sower_airtime_seconds{campaign="meters"} 0`, `sower_fragments_total{campaign="meters"} 0`, `sower_fragments_refused_total{campaign="meters"} 0`, `sower_queue_jobs 0`, "sower_commit_seconds_bucket", "sower_log_entries_total"} {
		if !strings.Contains(text, want) {
			t.Errorf("status %d: no %s in\n%s", status, want, text)
		}
	}
	// The sample alert rules name metrics that exist.
	rules, err := os.ReadFile("../../dist/prometheus-alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range metricName.FindAllString(string(rules), -1) {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("dist/prometheus-alerts.yml uses %s, which does not exist", name)
		}
	}
}

func TestFromHere(t *testing.T) {
	for _, tt := range []struct {
		peer, host, header string
		want               bool
	}{
		{"127.0.0.1:5", "127.0.0.1:7060", "", true},
		{"[::1]:5", "localhost:7060", "", true},
		{"10.0.0.1:5", "127.0.0.1:7060", "", false},
		{"127.0.0.1:5", "rebound.example.com:7060", "", false},
		{"127.0.0.1:5", "localhost", "X-Forwarded-For", false},
		{"127.0.0.1:5", "localhost", "Forwarded", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.RemoteAddr, r.Host = tt.peer, tt.host
		if tt.header != "" {
			r.Header.Set(tt.header, "for=10.0.0.1")
		}
		if got := api.FromHere(r); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

func (d *daemon) get(t *testing.T, path, token string) (int, string) {
	t.Helper()
	res, err := (&http.Client{Transport: withToken(token)}).Get(d.http.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// memory is a place for cursors.
type memory map[string]int64

func (m memory) Load() (map[string]int64, error) {
	out := map[string]int64{}
	for k, v := range m {
		out[k] = v
	}
	return out, nil
}

func (m memory) Save(at map[string]int64) error {
	for k, v := range at {
		m[k] = v
	}
	return nil
}

// A server whose engine has stopped says so.
func TestHealth(t *testing.T) {
	d := serve(t, 1)
	if status, text := d.get(t, "/healthz", ""); status != http.StatusOK || text != "ok\n" {
		t.Errorf("healthz: %d %q", status, text)
	}
	d.stop()
	if status, _ := d.get(t, "/healthz", ""); status != http.StatusServiceUnavailable {
		t.Errorf("healthz after the engine has stopped: %d", status)
	}
	if status, text := d.post(t, "/sower.v1.AdminService/Health", "", "{}"); status != http.StatusServiceUnavailable {
		t.Errorf("Health after the engine has stopped: %d %s", status, text)
	}
	_, err := d.campaigns(d.admin).ListCampaigns(t.Context(), connect.NewRequest(&pb.ListCampaignsRequest{}))
	wantCode(t, "a call after the engine has stopped", err, connect.CodeUnavailable, "stopped")
}

// deaf is an engine whose updates get lost.
type deaf struct{ api.Engine }

func (deaf) Subscribe(context.Context) <-chan run.Update { return make(chan run.Update) }

// A webhook tells of what it has missed the updates of, as it does while it delivers something else for hours.
func TestWebhookMissesNothing(t *testing.T) {
	d := serve(t, 2)
	got := make(chan api.Notice, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var n api.Notice
		if err := json.NewDecoder(r.Body).Decode(&n); err != nil {
			t.Error(err)
		}
		got <- n
	}))
	defer receiver.Close()
	swept := make(chan time.Time)
	h := api.Webhook{URL: receiver.URL, Engine: deaf{d.engine}, Store: d.store, Cursors: memory{}, Now: time.Now, Log: d.logger(),
		After: func(time.Duration) <-chan time.Time { return swept }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	sweep := func() {
		t.Helper()
		select {
		case swept <- time.Now():
		case <-time.After(time.Minute):
			t.Fatal("it waits for nothing but updates")
		}
	}
	sweep() // it has looked at everything before
	create(t, d.campaigns(d.admin), "meters", "[policy]\napprovals = 1\n")
	sweep()
	if n := <-got; n.Event != "approval-needed" || n.Campaign != "meters" {
		t.Errorf("%+v", n)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

// A webhook is signed, repeated until it is taken, and not sent again after a restart.
func TestWebhook(t *testing.T) {
	d := lingering(t, 2, time.Millisecond)
	create(t, d.campaigns(d.admin), "meters", "[policy]\napprovals = 1\n")
	secret := []byte("CANARY-WEBHOOK-SECRET")
	got := make(chan api.Notice, 10)
	failures := 2
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if want := "sha256=" + api.Sign(secret, r.Header.Get("Sower-Time"), body); r.Header.Get("Sower-Signature") != want {
			t.Errorf("signature %s, want %s", r.Header.Get("Sower-Signature"), want)
		}
		if failures > 0 {
			failures--
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		var n api.Notice
		if err := json.Unmarshal(body, &n); err != nil {
			t.Error(err)
		}
		got <- n
	}))
	defer receiver.Close()
	at := memory{}
	follow := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		h := api.Webhook{URL: receiver.URL, Secret: secret, Engine: d.engine, Store: d.store, Cursors: at, Now: time.Now, Log: d.logger(),
			After: func(time.Duration) <-chan time.Time { return time.After(time.Millisecond) }}
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		return func() {
			cancel()
			<-done
		}
	}
	stop := follow()
	first := <-got
	if first.Event != "approval-needed" || first.Campaign != "meters" || failures != 0 {
		t.Errorf("%+v; %d failures left", first, failures)
	}
	stop()
	if _, err := d.campaigns(d.admin).AbortCampaign(t.Context(), connect.NewRequest(&pb.AbortCampaignRequest{Id: "meters", Reason: "test"})); err != nil {
		t.Fatal(err)
	}
	for d.present(t) > 0 { // it has left when it is told of
	}
	stop = follow()
	n := <-got
	for n.ID == first.ID { // it was stopped before it knew that the first had arrived
		n = <-got
	}
	if n.Event != "halt" || !strings.Contains(n.Text, "test") {
		t.Errorf("%+v", n)
	}
	stop()
	if strings.Contains(d.log.String(), string(secret)) {
		t.Error("the secret stands in the log")
	}
	for _, address := range []string{"http://example.com/x", "https://user:pass@example.com", "ftp://example.com", "nonsense"} {
		if api.CheckWebhook(address) == nil {
			t.Errorf("%s was accepted", address)
		}
	}
}

// What is said of a device that has been taken out belongs to it: nothing to wait for, and nothing under way.
func TestExplainWithheld(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	d := session.Device{EUI: eui(1), Stage: session.StageWithheld, LastUp: at, Group: true, Frag: true, FragAt: at, Armed: 1, Complete: at, Dropped: 1,
		Pending: session.Pending{Kind: session.CmdDropGroup, Queued: at}}
	res := api.ExplainDevice(d)
	if !strings.Contains(res.NextStep, "read why the campaign withheld it") {
		t.Errorf("next step: %s", res.NextStep)
	}
	said := strings.Join(res.Evidence, "\n")
	for _, want := range []string{"multicast group was set up on it\n", "set up on it at 2026-11-22 12:00:00 UTC, and deleted at the end", "held the whole block since"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
	if strings.Contains(said, "holds 0 fragments") {
		t.Errorf("it never said how many fragments it holds:\n%s", said)
	}
}
