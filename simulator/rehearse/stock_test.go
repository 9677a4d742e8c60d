package rehearse_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/fleet/foreign"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/rehearse"
)

// rawCampaign sends a file to n devices of each of four builds: LoRaMac-node, Basics Modem and Zephyr with version 1 of
// the packages, and Basics Modem with version 2 in a session of its own.
func rawCampaign(t *testing.T, n int, raw session.Raw) rehearse.CampaignConfig {
	t.Helper()
	block := bytes.Repeat([]byte("sower "), 700)
	caps := network.Capabilities{Name: "ChirpStack", ReportsSent: true, MulticastClasses: []network.Class{network.ClassC}}
	cfg := rehearse.CampaignConfig{Seed: 1, Start: time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC),
		UplinkInterval: 10 * time.Minute, Limit: 10 * 24 * time.Hour,
		Spec: campaign.Spec{ID: "stock", Application: networkserver.UUID(1, "application"), Waves: []campaign.Wave{{Name: "all"}}}}
	number := 0
	for i, group := range []struct {
		matrix fragmentation.Matrix
		stacks []foreign.Stack
	}{{fragmentation.V1, []foreign.Stack{foreign.LoRaMacNode, foreign.BasicsModem, foreign.Zephyr}}, {fragmentation.V2, []foreign.Stack{foreign.BasicsModem}}} {
		devices := n * len(group.stacks)
		p, err := plan.Make(plan.Input{Block: block, Raw: true, Region: airtime.EU868, DataRate: 5, Devices: devices, Gateways: 2,
			Matrix: group.matrix, Loss: []float64{0.1}, Capabilities: caps, Repeater: true, FragSize: 50})
		if err != nil {
			t.Fatal(err)
		}
		ss := session.Spec{ID: fmt.Sprintf("stock-%s", group.matrix), Application: cfg.Spec.Application, Block: block, Plan: p, Raw: &raw,
			Gateways: []network.EUI64{{0xaa, 7: 1}, {0xaa, 7: 2}}, McAddr: 0x01000000 + uint32(i), McKey: network.Key{byte(i + 1)},
			Capabilities: caps, Timing: session.Timing{UplinkInterval: cfg.UplinkInterval}}
		for k := range devices {
			var eui network.EUI64
			binary.BigEndian.PutUint64(eui[:], 0x70b3d50000000000+uint64(number))
			number++
			ss.Devices = append(ss.Devices, session.Target{EUI: eui})
			cfg.Members = append(cfg.Members, rehearse.Member{EUI: eui, LossUp: 0.05, LossDown: 0.04 * float64(k%5),
				Stock: rehearse.Stock{Stack: group.stacks[k%len(group.stacks)], MaxFragments: 200, MaxFragSize: 50, MaxRedundancy: 60}})
		}
		cfg.Spec.Waves[0].Sessions = append(cfg.Spec.Waves[0].Sessions, ss)
	}
	return cfg
}

// TestRawBlock rehearses a raw-block campaign on stock devices: with the block alone as proof all end unproven, with an
// uplink rule updated, and nobody is called either who does not hold the block.
func TestRawBlock(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		raw  session.Raw
		want session.Stage
	}{
		{session.Raw{Proof: session.ProofBlock}, session.StageUnproven},
		{session.Raw{Proof: session.ProofUplink, FPort: 7, Offset: 2, Bytes: []byte{0x17}}, session.StageUpdated},
		{session.Raw{Proof: session.ProofTag}, session.StageUnproven}, // nobody sets it
	} {
		t.Run(tt.raw.Proof.String(), func(t *testing.T) {
			cfg := rawCampaign(t, 6, tt.raw)
			r, err := rehearse.RunCampaign(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			lost := 0
			for i, d := range r.Devices {
				lost += d.MulticastsLost
				if d.Stage != tt.want || !d.Holds {
					t.Errorf("device %d, %s: %s (%s, %s), holds the block: %t; want %s and the block", i, cfg.Members[i].Stock.Stack, d.Stage, d.Cause, d.Note, d.Holds, tt.want)
				}
			}
			if lost == 0 || !r.Ran {
				t.Errorf("%d frames lost, ran to its end: %t", lost, r.Ran)
			}
			proven := 0
			if tt.want == session.StageUpdated {
				proven = len(r.Devices)
			}
			if p := r.Progress; p.Updated != proven || p.Unproven != len(r.Devices)-proven {
				t.Errorf("%d updated, %d unproven; want %d updated", p.Updated, p.Unproven, proven)
			}
		})
	}
}

// TestRawBlockTooLarge has devices built with the defaults of LoRaMac-node, and some that lose more than their matrix
// repairs: they must not end as holding what they do not hold.
func TestRawBlockTooLarge(t *testing.T) {
	t.Parallel()
	cfg := rawCampaign(t, 4, session.Raw{Proof: session.ProofBlock})
	cfg.Spec.Policy.Thresholds = campaign.Thresholds{MinSuccess: -1, MaxFailure: 1, MaxSilence: 1}
	small, lossy := 0, 0
	for i := range cfg.Members {
		switch m := &cfg.Members[i]; {
		case m.Stock.Stack == foreign.LoRaMacNode:
			m.Stock.MaxFragments, small = 0, small+1
		case m.Stock.Stack == foreign.BasicsModem:
			m.Stock.MaxRedundancy, m.LossDown, lossy = 1, 0.3, lossy+1
		}
	}
	r, err := rehearse.RunCampaign(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range r.Devices {
		if d.Holds != (d.Stage == session.StageUnproven) {
			t.Errorf("device %d, %s: %s (%s), holds the block: %t", i, cfg.Members[i].Stock.Stack, d.Stage, d.Cause, d.Holds)
		}
		switch d.Cause {
		case "NO_RAM":
			small--
		case "LOSS_EXCEEDED":
			lossy--
		}
	}
	if small != 0 || lossy != 0 {
		t.Errorf("%d devices without room and %d with too many losses are not named", small, lossy)
	}
}

// What cannot be rehearsed is refused.
func TestRawBlockRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		say    string
		change func(*rehearse.CampaignConfig)
	}{
		{"a raw block needs a stack", func(c *rehearse.CampaignConfig) { c.Members[3].Stock = rehearse.Stock{} }},
		{"EU868 only", func(c *rehearse.CampaignConfig) { c.Spec.Waves[0].Sessions[0].Plan.Region = "US915" }},
		{"no version 2", func(c *rehearse.CampaignConfig) { c.Members[20].Stock.Stack = foreign.Zephyr }},
	} {
		cfg := rawCampaign(t, 6, session.Raw{})
		tt.change(&cfg)
		if _, err := rehearse.RunCampaign(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%v, want %q", err, tt.say)
		}
	}
}
