package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sower-fuota/sower/engine/api"
	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
)

// FuzzCreateCampaign uploads campaign files: what is not created is explained line by line.
func FuzzCreateCampaign(f *testing.F) {
	for _, more := range []string{"", "[policy]\napprovals = 1\n", "[[wave]]\nname = \"a\"\ncount = 1\n", "[devices]\nlist = [\"70b3000000000000\"]\n",
		"[[maintenance.window]]\nfrom = \"22:00\"\nto = \"05:00\"\n", "[radio]\ndata_rate = 14\n"} {
		f.Add(string(request(f, "x", "meters", more).Campaign), []byte("full.sow"))
	}
	f.Add("name = \"\xff\"", []byte{0})
	d := serve(f, 3)
	svc := d.campaigns(d.admin)
	sow := block(f)
	f.Fuzz(func(t *testing.T, text string, name []byte) {
		req := &pb.PlanRequest{Campaign: []byte(text), Name: "f.toml", Files: []*pb.File{{Name: strings.ToValidUTF8(string(name), "?"), Data: sow}}}
		res, err := svc.Plan(t.Context(), connect.NewRequest(req))
		switch {
		case err != nil:
			if c := connect.CodeOf(err); c != connect.CodeInvalidArgument {
				t.Fatalf("%s: %v", c, err)
			}
		case (res.Msg.Schedule == "") == (len(res.Msg.Problems) == 0):
			t.Fatalf("schedule %q and problems %v", res.Msg.Schedule, res.Msg.Problems)
		}
		if err != nil {
			return
		}
		lines := strings.Count(text, "\n") + 1
		for _, p := range res.Msg.Problems {
			if int(p.Line) > lines || p.Problem == "" || p.Remedy == "" {
				t.Errorf("problem %v of a file with %d lines", p, lines)
			}
		}
	})
}

// FuzzJSON sends bodies to every procedure: the answer is JSON, and never that the server is broken.
func FuzzJSON(f *testing.F) {
	var procedures []string
	for i := range pb.File_sower_v1_sower_proto.Services().Len() {
		s := pb.File_sower_v1_sower_proto.Services().Get(i)
		for j := range s.Methods().Len() {
			if m := s.Methods().Get(j); !m.IsStreamingServer() {
				procedures = append(procedures, "/"+string(s.FullName())+"/"+string(m.Name()))
			}
		}
	}
	d := serve(f, 2)
	create(f, d.campaigns(d.admin), "meters", "")
	seed, err := protojson.Marshal(request(f, "x", "other", ""))
	if err != nil {
		f.Fatal(err)
	}
	for i, body := range []string{`{}`, `{"id":"meters"}`, `{"id":"meters","reason":"r"}`, `{"campaign":"meters","filter":"stage=failed","pageToken":"d0.1"}`,
		`{"campaign":"meters","devEui":"70b3000000000001"}`, `{"name":"a","role":"ROLE_VIEWER","lifetime":"60s"}`, `{"pageToken":"c-1"}`, `{"after":"99999999999999999999"}`,
		`{"pageToken":"d9223372036854775807.9223372036854775807","campaign":"meters"}`, string(seed)} {
		f.Add(uint8(i), body)
		f.Add(uint8(i+5), body)
	}
	f.Fuzz(func(t *testing.T, which uint8, body string) {
		procedure := procedures[int(which)%len(procedures)]
		if strings.HasSuffix(procedure, "/Backup") {
			return // files without end
		}
		status, text := d.post(t, procedure, d.admin, body)
		if status == http.StatusInternalServerError || !json.Valid([]byte(text)) {
			t.Errorf("%s %q: %d %s", procedure, body, status, text)
		}
	})
}

// FuzzVerifyEvidence changes evidence: whatever still verifies is what was exported.
func FuzzVerifyEvidence(f *testing.F) {
	d := serve(f, 2)
	svc := d.campaigns(d.admin)
	create(f, svc, "meters", "")
	stream, err := svc.ExportEvidence(f.Context(), connect.NewRequest(&pb.ExportEvidenceRequest{Campaign: "meters"}))
	if err != nil {
		f.Fatal(err)
	}
	var text []byte
	for stream.Receive() {
		text = append(text, stream.Msg().Lines...)
	}
	info, err := api.VerifyEvidence(strings.NewReader(string(text)), "")
	if err != nil || info.Campaign != "meters" || info.Devices != 2 {
		f.Fatalf("%+v %v", info, err)
	}
	f.Add(0, byte(0))
	f.Add(len(text)/2, byte(1))
	f.Fuzz(func(t *testing.T, at int, flip byte) {
		changed := append([]byte(nil), text...)
		if at < 0 || at >= len(changed) || flip == 0 {
			return
		}
		changed[at] ^= flip
		if _, err := api.VerifyEvidence(strings.NewReader(string(changed)), info.Signer); err == nil {
			t.Errorf("byte %d changed from %q to %q, and it still holds", at, text[at], changed[at])
		}
	})
}
