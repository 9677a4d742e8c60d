package plan_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/fragmentation"
)

// A raw block has no manifest: neither hardware nor class nor layout speak against it, only what is said of the decoder.
func TestRawCampaign(t *testing.T) {
	loRaMac := plan.RawBlock{MaxM: 21, MaxFragBytes: 50, MaxLost: 5}
	raw := func(size int, r plan.RawBlock) plan.Request {
		req := request(t)
		req.Packages = applayer.V1
		req.Updates = []plan.Update{{Name: "file.bin", Block: make([]byte, size), Raw: &r}}
		req.Layouts = map[uint16]plan.Layout{0: {}, 1: {}} // which hold nothing
		return req
	}
	near := raw(1000, loRaMac)
	near.Waves[0].Members = members(50, v100, 9, 0.02)
	s := fleet(t, near)
	p := s.Sessions[0].Plan
	if s.Target != "unknown" || s.UpToDate != 0 || s.Sessions[0].Payload != "raw" || p.Matrix != fragmentation.V1 || p.M > 21 || p.FragSize > 50 || p.BlockSize != 1000 {
		t.Errorf("%+v", s)
	}
	warns := func(s plan.Schedule, what string) bool { return strings.Contains(strings.Join(s.Warnings, "\n"), what) }
	if warns(s, "[raw] does not say") || warns(s, "will lose more") || !warns(s, "50 devices have not told the version of their packages: v1") || warns(s, "hardware") {
		t.Errorf("warnings %q", s.Warnings)
	}
	far := raw(1000, loRaMac)
	far.Waves[0].Members = members(50, v100, 9, 0.3)
	if s := fleet(t, far); !warns(s, "will lose more than the 5 data fragments that their decoder was built for") {
		t.Errorf("6 of 21 fragments are lost, and the warnings are %q", s.Warnings)
	}

	// A block of any size goes to devices of whom nothing is known; those that run its version need nothing.
	req := raw(5000, plan.RawBlock{Version: ptr(v110)})
	req.Waves[0].Members = slices.Concat(members(3, v100, 9, 0.1), members(2, v110, 9, 0.1), members(1, 0, 9, 0.1))
	s = fleet(t, req)
	if s.Target != "1.1.0" || s.UpToDate != 2 || len(s.Sessions[0].Devices) != 4 || s.Sessions[0].Plan.FragSize <= 50 || !warns(s, "[raw] does not say") {
		t.Errorf("%+v", s)
	}

	for _, tt := range []struct {
		name   string
		req    plan.Request
		change func(*plan.Request)
		want   string
	}{
		{"too large", raw(1051, loRaMac), nil, "bundle[0].raw: file.bin does not fit 50 devices"},
		{"empty", raw(0, loRaMac), nil, "bundle[0].raw: file.bin is empty"},
		{"fragments too large", raw(900, loRaMac), func(r *plan.Request) { r.FragSize = 51 }, "radio.fragment_bytes: the devices hold fragments of at most 50 bytes, not 51"},
		{"beside a bundle", raw(900, loRaMac), func(r *plan.Request) { r.Updates = append(r.Updates, request(t).Updates[1]) }, "bundle[0].raw: file.bin is a raw block: nothing tells"},
		{"all have it", raw(900, plan.RawBlock{Version: ptr(v100)}), nil, "devices: all 50 devices run 1.0.0 already"},
	} {
		if tt.change != nil {
			tt.change(&tt.req)
		}
		_, problems := plan.Fleet(book(t, 1), tt.req)
		if len(problems) == 0 || !strings.HasPrefix(problems[0].Key+": "+problems[0].Text, tt.want) || problems[0].Remedy == "" {
			t.Errorf("%s: %+v; want %s", tt.name, problems, tt.want)
		}
	}
}
