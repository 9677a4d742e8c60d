package radio_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// snr is a process that loses nothing and gives the powers of a test, in dB, by counter.
type snr map[uint32]float32

func (p snr) Carry(k radio.Key, _ time.Time) (radio.Signal, bool) {
	return radio.Signal{SNR: p[k.Counter]}, true
}

// fading is a process that loses nothing and whose powers are exponential, as those of Rayleigh fading.
type fading uint64

func (p fading) Carry(k radio.Key, _ time.Time) (radio.Signal, bool) {
	u := (float64(k.Hash(uint64(p))>>11) + 0.5) / (1 << 53)
	return radio.Signal{SNR: float32(10 * math.Log10(-math.Log(u)))}, true
}

// draw is uniform in [0, 1).
func draw(words ...uint64) float64 { return float64(radio.Hash(words...)>>11) / (1 << 53) }

// contention lets n stations send one frame each, within a time that makes the load g, on one channel, at random or at
// multiples of the time on air, and returns the share that the gateway hears.
func contention(t *testing.T, n int, g, capture float64, slotted bool, p radio.Process) float64 {
	t.Helper()
	w := world.New(epoch)
	m := radio.NewMedium(w, radio.EU868(), p)
	if err := m.Interfere(capture); err != nil {
		t.Fatal(err)
	}
	heard := 0
	if _, err := m.NewGateway(eui(1<<20), func(radio.Frame, radio.Signal) { heard++ }); err != nil {
		t.Fatal(err)
	}
	const toa = 46336 * time.Microsecond // of 13 bytes at DR5, uplink
	span := float64(n) / g               // in times on air
	for i := range n {
		s, err := m.NewStation(eui(i), &listener{world: w})
		if err != nil {
			t.Fatal(err)
		}
		at := draw(uint64(i), math.Float64bits(g), 7) * span
		if slotted {
			at = math.Floor(at)
		}
		w.At(epoch.Add(time.Duration(at*float64(toa))), "uplink", func() {
			f := frame(1, 5)
			f.Key = radio.Key{Device: eui(i), Kind: radio.Uplink}
			if _, err := s.Transmit(f); err != nil {
				t.Error(err)
			}
		})
	}
	if err := w.Run(t.Context(), epoch.Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	return float64(heard) / float64(n)
}

// TestAlohaAnswers: without capture, answers of many devices on one channel get through with probability exp(-2G), and
// exp(-G) if they keep to slots (V11).
func TestAlohaAnswers(t *testing.T) {
	const n = 4000
	for _, g := range []float64{0.05, 0.3, 1} {
		for _, tt := range []struct {
			slotted bool
			want    float64
		}{{false, math.Exp(-2 * g)}, {true, math.Exp(-g)}} {
			got := contention(t, n, g, math.Inf(1), tt.slotted, fading(1))
			near(t, fmt.Sprintf("G = %v, slots: %t", g, tt.slotted), got, tt.want, 6*math.Sqrt(tt.want*(1-tt.want)/n)) // fates are correlated
		}
	}
	// The anchor of LoRaSim (experiment 0): SF12, 20 bytes, 8 channels, one frame in 1000 s from each of 100 and 200 nodes.
	for nodes, want := range map[float64]float64{100: 0.9617, 200: 0.9191} {
		g := nodes * 1.712128 / 1000 / 8
		near(t, fmt.Sprintf("LoRaSim, %v nodes", nodes), contention(t, n, g, math.Inf(1), false, fading(2)), want, 0.015)
	}
}

// TestCaptureUnderFading: with exponential powers and threshold z a frame gets through with probability
// ∫ e^-x exp(-2G e^(-x/z)) dx, which is between pure ALOHA and no interference; the threshold decides.
func TestCaptureUnderFading(t *testing.T) {
	const n, g = 4000, 0.5
	last := 1.0
	for _, dB := range []float64{0, 3, radio.DefaultCapture, 12} {
		z, want := math.Pow(10, dB/10), 0.0
		const dx = 1e-3
		for x := dx / 2; x < 40; x += dx {
			want += dx * math.Exp(-x) * math.Exp(-2*g*math.Exp(-x/z))
		}
		got := contention(t, n, g, dB, false, fading(3))
		near(t, fmt.Sprintf("capture %v dB", dB), got, want, 6*math.Sqrt(want*(1-want)/n))
		if got >= last || got <= math.Exp(-2*g) {
			t.Errorf("capture %v dB: %.4f, want less than %.4f and more than pure ALOHA", dB, got, last)
		}
		last = got
	}
	if err := radio.NewMedium(world.New(epoch), radio.EU868(), fading(1)).Interfere(math.NaN()); err == nil || !strings.Contains(err.Error(), "NaN dB") {
		t.Errorf("a threshold that is no number: %v", err)
	}
}

// TestTwoGatewaysOnTheAir sends frames of two gateways that overlap at a device. The numbers are their powers.
func TestTwoGatewaysOnTheAir(t *testing.T) {
	for _, tt := range []struct {
		name       string
		capture    float64 // -1: not told to interfere
		delay      int     // of the second frame, ms
		dr         int     // of the second frame
		one, other float32
		foreign    bool // the second frame is for somebody else
		want       string
	}{
		{"no interference", -1, 10, 5, 0, 0, false, "got 1 at 1041, got 2 at 1051"},
		{"as strong", 6, 10, 5, 0, 0, false, "lost 1 at 1041, deaf to 2 at 1051"},
		{"just strong enough", 6, 10, 5, 6, 0, false, "got 1 at 1041, deaf to 2 at 1051"},
		{"not quite", 6, 10, 5, 5.9, 0, false, "lost 1 at 1041, deaf to 2 at 1051"},
		{"another threshold", 3, 10, 5, 5.9, 0, false, "got 1 at 1041, deaf to 2 at 1051"},
		{"the later one is stronger", 6, 10, 5, 0, 20, false, "lost 1 at 1041, deaf to 2 at 1051"},
		{"together, first stronger", 6, 0, 5, 7, 0, false, "got 1 at 1041, lost 2 at 1041"},
		{"together, second stronger", 6, 0, 5, 0, 7, false, "lost 1 at 1041, got 2 at 1041"},
		{"together, alike", 6, 0, 5, 0, 5, false, "lost 1 at 1041, lost 2 at 1041"},
		{"one behind the other", 6, 42, 5, 0, 0, false, "got 1 at 1041, got 2 at 1083"},
		{"another data rate", 6, 10, 4, 0, 20, false, "got 1 at 1041"},
		{"of another network", 6, 10, 5, 0, 0, true, "lost 1 at 1041"},
		{"of another network, weak", 6, 10, 5, 0, -6, true, "got 1 at 1041"},
	} {
		w := world.New(epoch)
		m := radio.NewMedium(w, radio.EU868(), snr{1: tt.one, 2: tt.other, uint32(ms(1000 + tt.delay).UnixNano()): tt.other})
		if tt.capture >= 0 {
			if err := m.Interfere(tt.capture); err != nil {
				t.Fatal(err)
			}
		}
		device := &listener{world: w}
		s, err := m.NewStation(eui(1), device)
		if err != nil {
			t.Fatal(err)
		}
		s.Listen(radio.Window{From: ms(0), Until: ms(9000), Frequency: freq, DataRate: 5})
		for i, at := range []int{1000, 1000 + tt.delay} {
			g, err := m.NewGateway(eui(100+i), nil)
			if err != nil {
				t.Fatal(err)
			}
			f := frame(byte(i+1), 5)
			if i == 1 {
				f.DataRate = tt.dr
				if tt.foreign {
					f.Payload[0] = 0xff
				}
			}
			if err := g.Transmit(f, ms(at)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Run(t.Context(), ms(5000)); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(device.got, ", "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestMultiGatewayDownlink compares ways of sending a multicast frame from two gateways, over fading links of which
// each loses 30 %: one gateway 0.7; one after the other 1 - 0.3²; both at once, where the stronger is heard only if it
// exceeds the other by z: 2/(1+z), before the losses of the link.
func TestMultiGatewayDownlink(t *testing.T) {
	const devices, frames, loss = 200, 40, 0.3
	lossy, err := radio.NewIndependent(8, 0, loss)
	if err != nil {
		t.Fatal(err)
	}
	send := func(p radio.Process, gateways, apart int) float64 {
		w := world.New(epoch)
		m := radio.NewMedium(w, radio.EU868(), p)
		if err := m.Interfere(radio.DefaultCapture); err != nil {
			t.Fatal(err)
		}
		var all []*group
		for i := range devices {
			d := &group{id: i}
			all = append(all, d)
			s, err := m.NewStation(eui(i+1), d)
			if err != nil {
				t.Fatal(err)
			}
			s.Listen(radio.Window{From: ms(0), Until: ms(1e6), Frequency: freq, DataRate: 5})
		}
		for i := range gateways {
			g, err := m.NewGateway(eui(1000+i), nil)
			if err != nil {
				t.Fatal(err)
			}
			for n := range frames {
				w.At(ms(1000*n+i*apart), "send", func() {
					if err := g.Transmit(frame(byte(n), 5), w.Now()); err != nil {
						t.Error(err)
					}
				})
			}
		}
		if err := w.Run(t.Context(), ms(1e6)); err != nil {
			t.Fatal(err)
		}
		heard := 0
		for _, d := range all {
			slices.Sort(d.heard)
			heard += len(slices.Compact(d.heard))
		}
		return float64(heard) / (devices * frames)
	}
	tolerance := 4 * math.Sqrt(0.25/(devices*frames))
	near(t, "one gateway", send(lossy, 1, 0), 1-loss, tolerance)
	near(t, "one after the other", send(lossy, 2, 100), 1-loss*loss, tolerance)
	z := math.Pow(10, radio.DefaultCapture/10)
	near(t, "at once", send(fading(4), 2, 0), 2/(1+z), tolerance)
	near(t, "half overlapped", send(fading(4), 2, 20), 1/(1+z), tolerance)
}

// group is a member of a multicast group that notes what it hears.
type group struct {
	id    int
	heard []byte
}

func (g *group) FrameKey(f radio.Frame) (radio.Key, bool) {
	return radio.Key{Device: eui(g.id + 1), Kind: radio.Multicast, Counter: uint32(f.Payload[0])}, true
}

func (g *group) ReceiveFrame(f radio.Frame, _ radio.Signal) { g.heard = append(g.heard, f.Payload[0]) }

func (g *group) LoseFrame(radio.Frame, bool) {}

// TestDownlinksQueueAsMD1: frames of several sessions that arrive at random at one gateway wait for ρT/(2(1-ρ)) on
// average, which is the queue M/D/1 (V16).
func TestDownlinksQueueAsMD1(t *testing.T) {
	const n, toa = 15000, 41216 * time.Microsecond
	for _, rho := range []float64{0.1, 0.5, 0.8} {
		w := world.New(epoch)
		m := radio.NewMedium(w, radio.EU868(), snr{})
		g, err := m.NewGateway(eui(1), nil)
		if err != nil {
			t.Fatal(err)
		}
		var waited time.Duration
		count := 0
		var arrive func()
		arrive = func() {
			at, err := g.TransmitSoon(frame(1, 5))
			if err != nil {
				t.Fatal(err)
			}
			waited += at.Sub(w.Now())
			if count++; count < n {
				gap := -math.Log(1-draw(uint64(count), math.Float64bits(rho))) / rho
				w.After(time.Duration(gap*float64(toa)), "arrival", arrive)
			}
		}
		w.After(0, "arrival", arrive)
		if err := w.Run(t.Context(), epoch.Add(1000*time.Hour)); err != nil {
			t.Fatal(err)
		}
		want := rho / (2 * (1 - rho))
		got := float64(waited) / float64(count) / float64(toa)
		near(t, fmt.Sprintf("mean wait at load %v, in times on air", rho), got, want, 0.12*want)
	}
}
