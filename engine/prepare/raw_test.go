package prepare_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
	"github.com/sower-fuota/sower/engine/session"
)

// oneGroup gives every session the same address and key.
func oneGroup() (uint32, network.Key, error) { return 1, network.Key{1}, nil }

// planRaw plans a campaign whose block is 900 bytes that are no bundle.
func planRaw(t *testing.T, name, more string) (*prepare.Campaign, error) {
	t.Helper()
	files := func(name string) (string, []byte, error) {
		switch name {
		case "b/file.bin":
			return "dir/" + name, bytes.Repeat([]byte{1, 2, 3}, 300), nil
		case "empty.bin":
			return "dir/" + name, nil, nil
		}
		return "dir/" + name, nil, errors.New("no such file")
	}
	text := head + "[[bundle]]\nraw = \"" + name + "\"\n" + more
	list, err := planner(t, &server{n: 10}).Plan(t.Context(), []prepare.File{{Name: "c.toml", Text: []byte(text), Read: files}}, now)
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// A raw block and its proof arrive in sessions that the engine runs.
func TestRaw(t *testing.T) {
	v120 := uint32(bundle.MakeVersion(1, 2, 0))
	const limits = "[raw]\nmax_fragments = 21\nmax_fragment_bytes = 50\nmax_redundancy = 5\n[radio]\npackages = \"v1\"\n"
	for _, tt := range []struct {
		more   string
		target uint32
		want   session.Raw
	}{
		{limits, 0, session.Raw{Proof: session.ProofBlock}},
		{"version = \"1.2.0\"\n" + limits, v120, session.Raw{Proof: session.ProofBlock}},
		{"version = \"1.2.0\"\n[proof]\nby = \"version\"\nuplinks = 3\n" + limits, v120, session.Raw{Proof: session.ProofVersion}},
		{"[proof]\nby = \"tag\"\ntag = \"fw=2\"\n" + limits, 0, session.Raw{Proof: session.ProofTag}},
		{"[proof]\nby = \"uplink\"\nf_port = 2\noffset = 1\nbytes = \"0a0B\"\n" + limits, 0, session.Raw{Proof: session.ProofUplink, FPort: 2, Offset: 1, Bytes: []byte{10, 11}}},
	} {
		c, err := planRaw(t, "b/file.bin", tt.more)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := c.Spec(t.Context(), oneGroup, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := campaign.New(spec); err != nil {
			t.Fatal(err)
		}
		s := spec.Waves[0].Sessions[0]
		if _, err := session.New(s); err != nil {
			t.Fatal(err)
		}
		if r := s.Raw; r == nil || r.Proof != tt.want.Proof || r.FPort != tt.want.FPort || r.Offset != tt.want.Offset || !bytes.Equal(r.Bytes, tt.want.Bytes) ||
			s.Target != tt.target || len(s.Block) != 900 || s.Plan.M > 21 || s.Plan.FragSize > 50 || len(s.Devices) != 10 {
			t.Errorf("%q: raw %+v, target %d, %d bytes in %d fragments of %d", tt.more, s.Raw, s.Target, len(s.Block), s.Plan.M, s.Plan.FragSize)
		}
	}
	if c, err := plan(t, &server{n: 3}, ""); err != nil {
		t.Fatal(err)
	} else if spec, err := c.Spec(t.Context(), oneGroup, nil); err != nil || spec.Waves[0].Sessions[0].Raw != nil {
		t.Errorf("%v: a bundle is sent as a raw block", err)
	}
	for _, tt := range []struct{ name, more, want string }{
		{"x.bin", "", "c.toml:4: bundle dir/x.bin: no such file; correct the path"},
		{"empty.bin", "", "c.toml:4: bundle dir/empty.bin: the file is empty"},
		{"b/file.bin", "[raw]\nmax_fragments = 21\nmax_fragment_bytes = 40\n", "c.toml:4: file.bin does not fit 10 devices"},
		{"b/file.bin", "[proof]\nby = \"version\"\n", "c.toml:3: proof.by is \"version\""},
		{"b/file.bin", "[[bundle]]\nfile = \"full.sow\"\n", "c.toml:4: bundle[0] is a raw block beside 1 other bundle"},
	} {
		if _, err := planRaw(t, tt.name, tt.more); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v; want %q", err, tt.want)
		}
	}
}
