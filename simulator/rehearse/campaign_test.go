package rehearse_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/fleet/model"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/rehearse"
)

// target is the version that campaigns bring.
const target = 0x01010000

// sign returns the bundle of an image of that many zeros.
func sign(t *testing.T, size int) []byte {
	t.Helper()
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	block, err := bundle.Sign(bundle.Manifest{Codec: bundle.CodecFull, KeyID: 1, Version: target, Sequence: 2, NewSize: uint32(size)}, make([]byte, size), key)
	if err != nil {
		t.Fatal(err)
	}
	return block
}

// twoWaves is a campaign of n devices in each of two waves, the second of which has devices of both versions of the
// packages.
func twoWaves(t *testing.T, n int) rehearse.CampaignConfig {
	t.Helper()
	block := sign(t, 4000)
	app := networkserver.UUID(1, "application")
	cfg := rehearse.CampaignConfig{Seed: 1, Start: time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC),
		UplinkInterval: 10 * time.Minute, Spec: campaign.Spec{ID: "meters", Application: app}}
	caps := network.Capabilities{Name: "ChirpStack", ReportsSent: true, MulticastClasses: []network.Class{network.ClassC}}
	number := 0
	for w, matrices := range [][]fragmentation.Matrix{{fragmentation.V2}, {fragmentation.V1, fragmentation.V2}} {
		wave := campaign.Wave{Name: fmt.Sprintf("wave-%d", w+1)}
		for _, matrix := range matrices {
			p, err := plan.Make(plan.Input{Block: block, Region: airtime.EU868, DataRate: 5, Devices: n, Gateways: 2, Matrix: matrix, Loss: []float64{0.1}, Capabilities: caps, Repeater: true})
			if err != nil {
				t.Fatal(err)
			}
			ss := session.Spec{ID: fmt.Sprintf("meters-%d-%s", w+1, matrix), Application: app, Block: block, Target: target, Plan: p,
				Gateways: []network.EUI64{{0xaa, 7: 1}, {0xaa, 7: 2}}, McAddr: 0x01000000 + uint32(number), McKey: network.Key{byte(number + 1)},
				Capabilities: caps, Timing: session.Timing{UplinkInterval: cfg.UplinkInterval}}
			for range n {
				var eui network.EUI64
				binary.BigEndian.PutUint64(eui[:], 0x70b3d50000000000+uint64(number))
				number++
				ss.Devices = append(ss.Devices, session.Target{EUI: eui})
				cfg.Members = append(cfg.Members, rehearse.Member{EUI: eui, Running: 0x01000000, LossUp: 0.05, LossDown: 0.02 * float64(number%10)})
			}
			wave.Sessions = append(wave.Sessions, ss)
		}
		cfg.Spec.Waves = append(cfg.Spec.Waves, wave)
	}
	return cfg
}

// TestRunCampaign rehearses two waves in both versions of the packages, twice: all devices must run the new version,
// as the campaign says, and both runs must be the same.
func TestRunCampaign(t *testing.T) {
	t.Parallel()
	cfg := twoWaves(t, 8)
	var reports [2]string
	for i := range reports {
		r, err := rehearse.RunCampaign(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		reports[i] = string(b)
		if !r.Ran || r.Progress.Updated != 24 {
			t.Errorf("ran to its end: %t, %d of 24 updated: %+v", r.Ran, r.Progress.Updated, r.Progress)
		}
		lost := 0
		for _, d := range r.Devices {
			if d.Runs != 0x01010000 || d.Version != d.Runs {
				t.Errorf("device %s runs %08x, the campaign believes %08x (%s %s)", d.EUI, d.Runs, d.Version, d.Stage, d.Cause)
			}
			lost += d.MulticastsLost
		}
		if lost == 0 {
			t.Error("no multicast frame was lost")
		}
		if r.Airtime == 0 || r.Uplinks == 0 || !r.Ended.After(r.Started) {
			t.Errorf("airtime %s, %d uplinks, ended %s", r.Airtime, r.Uplinks, r.Ended)
		}
	}
	if reports[0] != reports[1] {
		t.Error("two rehearsals with the same seed differ")
	}
}

// overseas moves a session to US915, with a gateway of its own.
func overseas(t *testing.T, ss *session.Spec) {
	t.Helper()
	p, err := plan.Make(plan.Input{Block: ss.Block, Region: airtime.US915, DataRate: plan.Automatic, Devices: len(ss.Devices), Gateways: 1, Matrix: ss.Plan.Matrix,
		Loss: []float64{0.1}, Capabilities: ss.Capabilities, Repeater: true})
	if err != nil {
		t.Fatal(err)
	}
	ss.Plan, ss.Gateways = p, []network.EUI64{{0xbb, 7: 1}}
}

// TestRunCampaignInTwoRegions has the first wave and half of the second in EU868, the rest in US915 at the same time.
func TestRunCampaignInTwoRegions(t *testing.T) {
	t.Parallel()
	cfg := twoWaves(t, 8)
	abroad := &cfg.Spec.Waves[1].Sessions[1]
	overseas(t, abroad)
	r, err := rehearse.RunCampaign(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Ran || r.Progress.Updated != 24 {
		t.Errorf("ran to its end: %t, %d of 24 updated: %+v", r.Ran, r.Progress.Updated, r.Progress)
	}
	for _, d := range r.Devices {
		if d.Runs != target || d.Uplinks == 0 || d.Multicasts == 0 {
			t.Errorf("device %s of %s: %+v", d.EUI, d.Session, d)
		}
	}
	abroad.Gateways = cfg.Spec.Waves[0].Sessions[0].Gateways
	if _, err := rehearse.RunCampaign(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "sends in EU868 and in US915") {
		t.Errorf("one gateway in two regions: %v", err)
	}
	abroad.Plan.Region = "CN470"
	if _, err := rehearse.RunCampaign(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "CN470") {
		t.Errorf("a region that there is not: %v", err)
	}
}

// TestRunCampaignFindsFaults lets devices fail: each must end with its cause, on the old version. The thresholds would
// take the others out before.
func TestRunCampaignFindsFaults(t *testing.T) {
	t.Parallel()
	cfg := twoWaves(t, 6)
	cfg.Spec.Policy.Thresholds = campaign.Thresholds{MinSuccess: -1, MaxFailure: 1, MaxSilence: 1}
	faults := map[int]model.Fault{0: {RollsBack: diag.CauseSelfTestFailed}, 1: {Refuses: diag.CauseBaseMismatch}, 2: {SilentAfterBoot: true}, 3: {WrongKey: true}}
	want := map[int]string{0: "SELF_TEST_FAILED", 1: "BASE_MISMATCH", 2: "SILENT_AFTER_BOOT"}
	for i, f := range faults {
		cfg.Members[i].Fault = f
	}
	r, err := rehearse.RunCampaign(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range r.Devices {
		switch f, faulty := faults[i]; {
		case !faulty:
			if d.Stage != session.StageUpdated {
				t.Errorf("device %d: %s %s, want updated", i, d.Stage, d.Cause)
			}
		case d.Stage != session.StageFailed:
			t.Errorf("device %d with %+v: %s, want failed", i, f, d.Stage)
		case want[i] != "" && d.Cause != want[i]:
			t.Errorf("device %d: cause %s, want %s", i, d.Cause, want[i])
		}
	}
}

// TestRunCampaignInBursts loses the same share of frames in stretches, with outages and with frames that destroy one
// another: the campaign sends otherwise than when each frame is lost on its own, and completes all the same.
func TestRunCampaignInBursts(t *testing.T) {
	t.Parallel()
	calm := map[int]string{} // by devices in each session
	for _, tt := range []struct {
		n        int // devices in each session
		interval time.Duration
		air      rehearse.Air
	}{
		{5, 10 * time.Minute, rehearse.Air{BurstTime: 20 * time.Second}},
		{5, 10 * time.Minute, rehearse.Air{OutageEvery: 10 * time.Minute, OutageFor: time.Minute}},
		{8, time.Minute, rehearse.Air{Capture: 6}}, // uplinks must be dense to meet
	} {
		for _, air := range []rehearse.Air{{}, tt.air} {
			if air == (rehearse.Air{}) && calm[tt.n] != "" {
				continue
			}
			cfg := twoWaves(t, tt.n)
			cfg.Air, cfg.UplinkInterval = air, tt.interval
			r, err := rehearse.RunCampaign(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Ran || r.Progress.Updated != 3*tt.n {
				t.Errorf("%+v: ran to its end: %t, %d of %d updated: %+v", air, r.Ran, r.Progress.Updated, 3*tt.n, r.Progress)
			}
			b, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case air == (rehearse.Air{}):
				calm[tt.n] = string(b)
			case calm[tt.n] == string(b):
				t.Errorf("%+v changes nothing", air)
			}
		}
	}
	cfg := twoWaves(t, 1)
	cfg.Air.Capture = -1
	if _, err := rehearse.RunCampaign(t.Context(), cfg); err == nil {
		t.Error("a negative capture threshold is accepted")
	}
}
