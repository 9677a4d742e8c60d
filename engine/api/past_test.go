package api_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/sower-fuota/sower/engine/api"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/api/sowerv1/sowerv1connect"
	"github.com/sower-fuota/sower/engine/campaign"
)

// present is how many campaigns the engine has.
func (d *daemon) present(t *testing.T) (n int) {
	t.Helper()
	if err := d.engine.View(t.Context(), func(all []*campaign.Campaign) { n = len(all) }); err != nil {
		t.Fatal(err)
	}
	return n
}

// exported is the evidence of a campaign.
func exported(t *testing.T, svc sowerv1connect.CampaignServiceClient, id string) []byte {
	t.Helper()
	stream, err := svc.ExportEvidence(t.Context(), connect.NewRequest(&pb.ExportEvidenceRequest{Campaign: id}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var out []byte
	for stream.Receive() {
		out = append(out, stream.Msg().Lines...)
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// A campaign that has ended and left the engine is shown as it was before.
func TestPast(t *testing.T) {
	d := lingering(t, 3, 500*time.Millisecond)
	svc := d.campaigns(d.admin)
	create(t, svc, "meters", "")
	if _, err := svc.AbortCampaign(t.Context(), connect.NewRequest(&pb.AbortCampaignRequest{Id: "meters", Reason: "enough"})); err != nil {
		t.Fatal(err)
	}
	type answers struct {
		get     *pb.GetCampaignResponse
		list    *pb.ListCampaignsResponse
		devices *pb.ListDevicesResponse
		explain *pb.ExplainResponse
	}
	ask := func() (a answers) {
		t.Helper()
		get, err := svc.GetCampaign(t.Context(), connect.NewRequest(&pb.GetCampaignRequest{Id: "meters"}))
		if err != nil {
			t.Fatal(err)
		}
		list, err := svc.ListCampaigns(t.Context(), connect.NewRequest(&pb.ListCampaignsRequest{Filter: "phase=ended"}))
		if err != nil {
			t.Fatal(err)
		}
		devices, err := svc.ListDevices(t.Context(), connect.NewRequest(&pb.ListDevicesRequest{Campaign: "meters"}))
		if err != nil {
			t.Fatal(err)
		}
		explain, err := svc.Explain(t.Context(), connect.NewRequest(&pb.ExplainRequest{Campaign: "meters", DevEui: eui(1).String()}))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range append([]*pb.Campaign{get.Msg.Campaign}, list.Msg.Campaigns...) {
			c.Created = nil // to the millisecond, or as the engine has committed it
		}
		return answers{get.Msg, list.Msg, devices.Msg, explain.Msg}
	}
	before := ask()
	for d.present(t) > 0 {
	}
	after := ask()
	for what, pair := range map[string][2]proto.Message{"campaign": {before.get, after.get}, "list": {before.list, after.list},
		"devices": {before.devices, after.devices}, "explanation": {before.explain, after.explain}} {
		if !proto.Equal(pair[0], pair[1]) {
			t.Errorf("%s:\n%v\nbefore it had left\n%v", what, pair[1], pair[0])
		}
	}
	if len(after.list.Campaigns) != 1 || len(after.devices.Devices) != 3 {
		t.Errorf("%d campaigns and %d devices, want 1 and 3", len(after.list.Campaigns), len(after.devices.Devices))
	}
	if _, err := svc.AbortCampaign(t.Context(), connect.NewRequest(&pb.AbortCampaignRequest{Id: "meters", Reason: "again"})); err != nil {
		t.Errorf("asking for the state that is there: %v", err)
	}
	_, err := svc.StartCampaign(t.Context(), connect.NewRequest(&pb.StartCampaignRequest{Id: "meters"}))
	wantCode(t, "an order that comes too late", err, connect.CodeFailedPrecondition, "has ended")
	_, err = svc.GetCampaign(t.Context(), connect.NewRequest(&pb.GetCampaignRequest{Id: "none"}))
	wantCode(t, "a campaign that never was", err, connect.CodeNotFound, "none")
	if c := create(t, svc, "meters", ""); c.Id != "meters" || c.Phase != "ended" {
		t.Errorf("the same request again gives %v", c)
	}

	// A watch shows it, and ends.
	stream, err := svc.Watch(t.Context(), connect.NewRequest(&pb.WatchRequest{Id: "meters"}))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; stream.Receive(); n++ {
	}
	if err := stream.Err(); err != nil || n == 0 {
		t.Errorf("watch gave %d answers, %v", n, err)
	}

	// SessionCnt goes on where the campaign has stopped, and lists have both kinds.
	if c := create(t, svc, "second", ""); c.Phase != "draft" {
		t.Errorf("%v", c)
	}
	var pages []string
	for token := ""; ; {
		res, err := svc.ListCampaigns(t.Context(), connect.NewRequest(&pb.ListCampaignsRequest{PageSize: 1, PageToken: token}))
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, c := range res.Msg.Campaigns {
			ids = append(ids, c.Id+" "+c.Phase)
		}
		pages = append(pages, strings.Join(ids, "+"))
		if token = res.Msg.NextPageToken; token == "" {
			break
		}
	}
	if got := strings.Join(pages, ", "); got != "meters ended, second draft" {
		t.Errorf("pages %s", got)
	}
	if list, err := svc.ListCampaigns(t.Context(), connect.NewRequest(&pb.ListCampaignsRequest{Filter: "phase=draft"})); err != nil || len(list.Msg.Campaigns) != 1 {
		t.Errorf("drafts: %v, %v", list, err)
	}
}

// When the log of a campaign has been removed, the audit log has the digest that its evidence has.
func TestRemovedLog(t *testing.T) {
	d := lingering(t, 3, time.Millisecond)
	svc := d.campaigns(d.admin)
	create(t, svc, "meters", "")
	if _, err := svc.AbortCampaign(t.Context(), connect.NewRequest(&pb.AbortCampaignRequest{Id: "meters", Reason: "enough"})); err != nil {
		t.Fatal(err)
	}
	for d.present(t) > 0 {
	}
	before, err := api.VerifyEvidence(bytes.NewReader(exported(t, svc, "meters")), "")
	if err != nil || strings.HasPrefix(before.Log, "0 ") {
		t.Fatalf("%+v, %v", before, err)
	}
	at := time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC)
	if n, err := d.store.RemoveLogs(t.Context(), at, at); n != 1 || err != nil {
		t.Fatalf("%d logs removed, %v", n, err)
	}
	audit, err := d.adminOf(d.admin).ListAudit(t.Context(), connect.NewRequest(&pb.ListAuditRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if e := audit.Msg.Entries[len(audit.Msg.Entries)-1]; e.Action != "remove log" || e.Object != "meters" || e.Detail != before.Log {
		t.Errorf("audit %v, want %s", e, before.Log)
	}
	text := exported(t, svc, "meters")
	if after, err := api.VerifyEvidence(bytes.NewReader(text), before.Signer); err != nil || !strings.HasPrefix(after.Log, "0 ") || after.Devices != 3 {
		t.Errorf("%+v, %v", after, err)
	}
	if !bytes.Contains(text, []byte(`"log_removed":"2099-01-02T03:04:05Z"`)) {
		t.Error("the evidence does not say that the log was removed")
	}
	res, err := svc.Explain(t.Context(), connect.NewRequest(&pb.ExplainRequest{Campaign: "meters", DevEui: eui(1).String()}))
	if err != nil || len(res.Msg.Timeline) != 0 || !strings.Contains(strings.Join(res.Msg.Evidence, "\n"), "removed at 2099-01-02 03:04:05 UTC") {
		t.Errorf("%v, %v", res, err)
	}
}
