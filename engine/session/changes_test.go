package session_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/simulator/campaigntest"
)

// TestChanges keeps a copy of the state by what Changes names, as a store does: after each step it must be the state.
func TestChanges(t *testing.T) {
	r := newRig(t, options{seed: 5, n: 30, change: func(i int, d *campaigntest.Device) {
		switch i % 6 {
		case 1:
			d.RejoinAt = time.Duration(i) * 5 * time.Minute
		case 2:
			d.LossDown = 0.4
		case 3:
			d.RollsBack = diag.CauseSelfTestFailed
		case 4:
			d.SilentAfterBoot = true
		case 5:
			d.ServerKey = network.Key{}
		}
	}, net: func(n *campaigntest.Net) { n.Repeat = 0.1 }})
	saved := r.c.State()
	rows, headers, steps := 0, 0, 0
	r.check = func() {
		header, devices := r.c.Changes()
		if header {
			saved.Header = r.c.Header().Header
			headers++
		}
		for _, i := range devices {
			saved.Devices[i] = r.c.Device(i)
		}
		rows += len(devices)
		steps++
		if st := r.c.State(); !reflect.DeepEqual(saved, st) {
			for i := range st.Devices {
				if saved.Devices[i] != st.Devices[i] {
					t.Errorf("device %d: kept %+v, is %+v", i, saved.Devices[i], st.Devices[i])
				}
			}
			t.Fatalf("after step %d: kept %+v, is %+v", steps, saved.Header, st.Header)
		}
	}
	r.run(72 * time.Hour)
	if header, devices := r.c.Changes(); header || devices != nil {
		t.Errorf("nothing has happened, but Changes = %v, %v", header, devices)
	}
	t.Logf("%d steps changed %d headers and %d device rows", steps, headers, rows)
	if rows > 4*steps {
		t.Errorf("%d device rows changed in %d steps", rows, steps)
	}
}

// TestSpecAsJSON writes a specification and reads it: only the multicast key is kept apart.
func TestSpecAsJSON(t *testing.T) {
	r := newRig(t, options{seed: 1, n: 3, spec: func(s *session.Spec) {
		s.Raw = &session.Raw{Proof: session.ProofUplink, FPort: 7, Bytes: []byte{1}}
		s.Calendar = session.Calendar{Spans: []session.Span{{From: time.Hour, To: 5 * time.Hour}}}
	}})
	b, err := json.Marshal(r.spec)
	if err != nil {
		t.Fatal(err)
	}
	var got session.Spec
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.McKey != (network.Key{}) {
		t.Error("the multicast key is in the JSON form")
	}
	got.McKey = r.spec.McKey
	if !reflect.DeepEqual(got, r.spec) {
		t.Errorf("got %+v, want %+v", got, r.spec)
	}
}
