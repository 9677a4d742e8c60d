package radio_test

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/simulator/radio"
)

func eui(i int) (e lorawan.EUI64) {
	binary.BigEndian.PutUint64(e[:], uint64(i))
	return e
}

// TestIndependentLosesTheShareAsked counts losses over devices and over counters, up and down.
func TestIndependentLosesTheShareAsked(t *testing.T) {
	for _, tt := range []struct{ up, down float64 }{{0, 0}, {0.1, 0.3}, {0.5, 0.01}, {1, 1}} {
		p, err := radio.NewIndependent(42, tt.up, tt.down)
		if err != nil {
			t.Fatal(err)
		}
		const devices, frames = 100, 300
		for _, kind := range []struct {
			kind radio.Kind
			want float64
		}{{radio.Uplink, tt.up}, {radio.JoinRequest, tt.up}, {radio.JoinAccept, tt.down}, {radio.Downlink, tt.down}, {radio.Multicast, tt.down}} {
			lost := 0
			for d := range devices {
				for c := range frames {
					if _, ok := p.Carry(radio.Key{Device: eui(d), Kind: kind.kind, Counter: uint32(c)}, time.Time{}); !ok {
						lost++
					}
				}
			}
			const n = devices * frames
			got, sigma := float64(lost)/n, math.Sqrt(kind.want*(1-kind.want)/n)
			if math.Abs(got-kind.want) > 4*sigma {
				t.Errorf("%s: lost %.5f, want %.5f ± %.5f", kind.kind, got, kind.want, 4*sigma)
			}
		}
	}
}

// TestEachPartOfTheKeyCounts: frames that differ in any one part are lost independently, which two equal
// streams of 20,000 frames would not be.
func TestEachPartOfTheKeyCounts(t *testing.T) {
	const n, loss = 20000, 0.5
	base := func(c int) radio.Key {
		return radio.Key{Device: eui(1), Gateway: eui(2), Kind: radio.Downlink, Session: 3, Counter: uint32(c), Copy: 0}
	}
	stream := func(seed uint64, change func(*radio.Key)) []bool {
		p, err := radio.NewIndependent(seed, loss, loss)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]bool, n)
		for c := range out {
			k := base(c)
			change(&k)
			_, out[c] = p.Carry(k, time.Time{})
		}
		return out
	}
	want := stream(1, func(*radio.Key) {})
	for name, got := range map[string][]bool{
		"seed":    stream(2, func(*radio.Key) {}),
		"device":  stream(1, func(k *radio.Key) { k.Device = eui(9) }),
		"gateway": stream(1, func(k *radio.Key) { k.Gateway = eui(9) }),
		"kind":    stream(1, func(k *radio.Key) { k.Kind = radio.Multicast }),
		"session": stream(1, func(k *radio.Key) { k.Session++ }),
		"counter": stream(1, func(k *radio.Key) { k.Counter++ }),
		"copy":    stream(1, func(k *radio.Key) { k.Copy++ }),
	} {
		same := 0
		for i := range want {
			if got[i] == want[i] {
				same++
			}
		}
		if share := float64(same) / n; math.Abs(share-0.5) > 4*0.5/math.Sqrt(n) {
			t.Errorf("streams that differ in the %s agree on %.4f of the frames, want 0.5", name, share)
		}
	}
	again := stream(1, func(*radio.Key) {})
	for i := range want {
		if again[i] != want[i] {
			t.Fatalf("frame %d has another fate the second time", i)
		}
	}
}

// TestHashIsFixed pins the bits: a recorded run must stay what it was.
func TestHashIsFixed(t *testing.T) {
	k := radio.Key{Device: lorawan.EUI64{1, 2, 3, 4, 5, 6, 7, 8}, Gateway: eui(9), Kind: radio.Multicast, Session: 1, Counter: 2, Copy: 3}
	if got, want := k.Hash(4), uint64(0xa9f4e9d1f02b347f); got != want {
		t.Errorf("hash %#x, want %#x", got, want)
	}
}

func TestProbabilitiesOutsideTheRangeAreRefused(t *testing.T) {
	for _, tt := range []struct {
		up, down float64
		want     string
	}{{-0.1, 0, "uplink loss -0.1"}, {0, 1.5, "downlink loss 1.5"}, {math.NaN(), 0, "uplink loss NaN"}} {
		if _, err := radio.NewIndependent(1, tt.up, tt.down); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("NewIndependent(%v, %v) = %v, want %q", tt.up, tt.down, err, tt.want)
		}
	}
}
