package plan_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/fragmentation"
)

// block signs a bundle of exactly size bytes.
func block(t testing.TB, size int) []byte {
	t.Helper()
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Sign(bundle.Manifest{Codec: bundle.CodecFull, KeyID: 1, Version: 1, Sequence: 1, NewSize: uint32(size)}, make([]byte, size-bundle.ManifestSize), key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func good(t testing.TB) plan.Input {
	return plan.Input{Block: block(t, 20000), Region: airtime.EU868, DataRate: 5, Devices: 50, Matrix: fragmentation.V2}
}

// TestFirstBurst compares the size of the first burst with the simulated q99 of equal devices: 351 fragments for
// M = 300 at 10 % loss, 329 at 5 %, 401 at 20 %.
func TestFirstBurst(t *testing.T) {
	for loss, want := range map[float64]int{0.05: 329, 0.10: 351, 0.20: 401} {
		p, err := plan.Make(plan.Input{Block: block(t, 300*50), Region: airtime.EU868, DataRate: 0, Devices: 1000,
			Matrix: fragmentation.V1, Loss: []float64{loss}, FragSize: 48})
		if err != nil {
			t.Fatal(err)
		}
		if p.M != 313 {
			t.Fatalf("M = %d", p.M)
		}
		if got := float64(p.M+p.Parity) * 300 / 313; math.Abs(got-float64(want)) > 4 {
			t.Errorf("loss %v: %d fragments for M = 313, %.0f scaled to M = 300, want about %d", loss, p.M+p.Parity, got, want)
		}
	}
}

func TestMixedFleetNeedsMoreThanItsMean(t *testing.T) {
	in := good(t)
	in.Loss = make([]float64, in.Devices)
	for i := range in.Loss {
		in.Loss[i] = 0.02
	}
	in.Loss[7] = 0.40
	mixed, err := plan.Make(in)
	if err != nil {
		t.Fatal(err)
	}
	in.Loss = []float64{0.0276} // the same mean
	equal, err := plan.Make(in)
	if err != nil {
		t.Fatal(err)
	}
	if mixed.Parity < 2*equal.Parity {
		t.Errorf("%d parity fragments with one bad device, %d without", mixed.Parity, equal.Parity)
	}
}

// TestEverythingFits plans random blocks at slow and fast data rates of two regions and checks what a network would refuse.
func TestEverythingFits(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, region := range []airtime.Region{airtime.EU868, airtime.US915} {
		for _, dr := range []int{0, 3, 5, 8, 13} {
			limit, err := region.MaxPayload(dr, airtime.Link{Direction: airtime.Downlink})
			if err != nil {
				continue
			}
			size := 500 + rng.IntN(12*limit)
			p, err := plan.Make(plan.Input{Block: block(t, size), Region: region, DataRate: dr, Devices: 1 + rng.IntN(500),
				Gateways: 1 + rng.IntN(4), Matrix: fragmentation.V1 + fragmentation.Matrix(rng.IntN(2)), Loss: []float64{rng.Float64() * 0.3}})
			if err != nil {
				t.Errorf("%s DR%d, %d bytes: %v", region, dr, size, err)
				continue
			}
			if p.FragSize+3 > limit || p.M*p.FragSize-p.Padding != size || p.Padding >= p.FragSize {
				t.Errorf("%s DR%d: %d fragments of %d bytes, padding %d, for %d bytes and a limit of %d", region, dr, p.M, p.FragSize, p.Padding, size, limit)
			}
			if p.M%64 == 0 && p.M&(p.M-1) != 0 {
				t.Errorf("%s DR%d: M = %d is a hole of the code", region, dr, p.M)
			}
			band, err := region.SubBand(p.Frequency)
			if err != nil {
				t.Errorf("%s: %v", region, err)
			}
			if share := float64(p.FragmentToA) / float64(p.Pace) * 1000; share > float64(band.DutyCycle)+1e-6 {
				t.Errorf("%s DR%d: %.1f per mille on the air, allowed %d", region, dr, share, band.DutyCycle)
			}
			if p.Gateways > 1 && p.Pace < time.Duration(p.Gateways)*5*time.Second {
				t.Errorf("%s DR%d: pace %s for %d gateways that are spaced by 5 s", region, dr, p.Pace, p.Gateways)
			}
			messages := p.M + p.Parity + 2
			if timeOut, fit := p.Window(messages, 1); timeOut < plan.MaxTimeOut && fit < messages {
				t.Errorf("%s DR%d: %d messages do not fit into their own window of 2^%d s", region, dr, messages, timeOut)
			}
			seen := map[int]bool{}
			for i := 1; i <= p.Positions(); i++ {
				n := p.Fragment(i)
				if n < 1 || n > fragmentation.MaxIndex || seen[n] || i <= p.M && n != i || i > p.M && n <= p.M {
					t.Fatalf("%s DR%d: position %d is fragment %d", region, dr, i, n)
				}
				seen[n] = true
			}
			if p.Fragment(0) != 0 || p.Fragment(p.Positions()+1) != 0 {
				t.Errorf("positions beyond the plan have fragments")
			}
		}
	}
}

func TestBaselines(t *testing.T) {
	in := good(t)
	in.FragSize, in.FullSize, in.CompressedSize = 200, 20001, 10000
	p, err := plan.Make(in)
	if err != nil {
		t.Fatal(err)
	}
	// 101 fragments and 31 of parity; 50 and 15. SF7/125: 216 bytes of PHY payload without CRC.
	if p.Full.Fragments != 132 || p.Compressed.Fragments != 65 || p.Full.Airtime != 132*p.FragmentToA {
		t.Errorf("baselines %+v and %+v at %s each", p.Full, p.Compressed, p.FragmentToA)
	}
	if toa := p.FragmentToA; toa < 335*time.Millisecond || toa > 345*time.Millisecond {
		t.Errorf("216 bytes at SF7/125 take %s, want about 338 ms", toa)
	}
	if !strings.Contains(p.String(), "full image") {
		t.Errorf("String lacks the baseline:\n%s", p)
	}
}

func TestAutomaticDataRate(t *testing.T) {
	tests := []struct {
		name string
		snr  []float64
		want int
	}{
		{"strong", []float64{8, 9, 10}, 6}, // SF7/250
		{"good", []float64{4, 9, 10}, 5},   // SF7/125
		{"one far away", []float64{9, 9, -4}, 2},
		{"hopeless", []float64{-19}, 0},
		{"unknown", nil, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := good(t)
			in.DataRate, in.SNR = plan.Automatic, tt.snr
			p, err := plan.Make(in)
			if err != nil {
				t.Fatal(err)
			}
			if p.DataRate != tt.want {
				t.Errorf("DR%d, want DR%d", p.DataRate, tt.want)
			}
			if guess := len(p.Warnings) > 0; guess != (tt.snr == nil) {
				t.Errorf("warnings %q", p.Warnings)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	in := good(t)
	in.Block, in.DataRate = block(t, 30000), 0 // at SF12: 630 fragments, one in 28 s
	in.Loss = []float64{0.55}
	p, err := plan.Make(in)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(p.Warnings, "\n")
	for _, want := range []string{"parity outweighs data", "more windows"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning of %q among %q", want, p.Warnings)
		}
	}
}

func TestMakeRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*plan.Input)
		want   error
	}{
		{"no bundle", func(in *plan.Input) { in.Block = []byte("hello") }, bundle.ErrFormat},
		{"damaged bundle", func(in *plan.Input) { in.Block[len(in.Block)-1] ^= 1 }, bundle.ErrDigest},
		{"no devices", func(in *plan.Input) { in.Devices = 0 }, plan.ErrInput},
		{"no matrix", func(in *plan.Input) { in.Matrix = 0 }, plan.ErrInput},
		{"no such data rate", func(in *plan.Input) { in.DataRate = 14 }, plan.ErrInput},
		{"uplink data rate", func(in *plan.Input) { in.Region, in.DataRate = airtime.US915, 0 }, plan.ErrInput},
		{"frequency outside the band", func(in *plan.Input) { in.Frequency = 915000000 }, plan.ErrInput},
		{"fragment too large", func(in *plan.Input) { in.DataRate, in.FragSize = 0, 100 }, plan.ErrInput},
		{"device holds too few", func(in *plan.Input) { in.MaxM = 10 }, plan.ErrInput},
		{"network carries nothing", func(in *plan.Input) {
			in.Capabilities = network.Capabilities{Regions: map[string]map[int]int{"EU868": {5: 3}}}
		}, plan.ErrInput},
		{"loss of one", func(in *plan.Input) { in.Loss = []float64{1} }, plan.ErrInput},
		{"too few losses", func(in *plan.Input) { in.Loss = []float64{0.1, 0.2} }, plan.ErrInput},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := good(t)
			tt.change(&in)
			if _, err := plan.Make(in); !errors.Is(err, tt.want) {
				t.Errorf("Make = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestMakeIsAFunction(t *testing.T) {
	in := good(t)
	a, errA := plan.Make(in)
	b, errB := plan.Make(in)
	if errA != nil || errB != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("two plans of one input differ: %v, %v", errA, errB)
	}
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var back plan.Plan
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(a, back) {
		t.Errorf("the plan does not survive JSON: %v", err)
	}
}

// TestRawBlock plans a file that is no bundle, if and only if it is told so.
func TestRawBlock(t *testing.T) {
	in := plan.Input{Block: make([]byte, 3000), Region: airtime.EU868, DataRate: 3, Devices: 5, Matrix: fragmentation.V1}
	if _, err := plan.Make(in); err == nil {
		t.Error("a file that is no bundle was planned as one")
	}
	in.Raw = true
	p, err := plan.Make(in)
	if err != nil || p.BlockSize != 3000 || p.M*p.FragSize-p.Padding != 3000 {
		t.Errorf("%+v, %v", p, err)
	}
}
