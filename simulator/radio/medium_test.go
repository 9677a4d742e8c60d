package radio_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// listener is a device that takes every frame for its own and notes what becomes of it.
type listener struct {
	world *world.World
	got   []string
}

func (l *listener) FrameKey(f radio.Frame) (radio.Key, bool) {
	return radio.Key{Device: eui(1), Kind: radio.Multicast, Counter: uint32(f.Payload[0])}, f.Payload[0] != 0xff
}

func (l *listener) note(what string, f radio.Frame) {
	l.got = append(l.got, fmt.Sprintf("%s %d at %d", what, f.Payload[0], l.world.Now().Sub(epoch).Milliseconds()))
}

func (l *listener) ReceiveFrame(f radio.Frame, _ radio.Signal) { l.note("got", f) }

func (l *listener) LoseFrame(f radio.Frame, deaf bool) {
	if deaf {
		l.note("deaf to", f)
	} else {
		l.note("lost", f)
	}
}

const freq = 869525000

type air struct {
	t       *testing.T
	world   *world.World
	medium  *radio.Medium
	station *radio.Station
	device  *listener
	gateway *radio.Gateway
	heard   []string
}

func newAir(t *testing.T, loss float64) *air {
	a := &air{t: t, world: world.New(epoch)}
	p, err := radio.NewIndependent(1, loss, loss)
	if err != nil {
		t.Fatal(err)
	}
	a.medium = radio.NewMedium(a.world, radio.EU868(), p)
	a.device = &listener{world: a.world}
	if a.station, err = a.medium.NewStation(eui(1), a.device); err != nil {
		t.Fatal(err)
	}
	a.gateway, err = a.medium.NewGateway(eui(100), func(f radio.Frame, _ radio.Signal) {
		a.heard = append(a.heard, fmt.Sprintf("%d at %d", f.Payload[0], a.world.Now().Sub(epoch).Milliseconds()))
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func ms(n int) time.Time { return epoch.Add(time.Duration(n) * time.Millisecond) }

// frame has 13 bytes: at DR5 41.2 ms down and 46.3 ms up.
func frame(n byte, dr int) radio.Frame {
	return radio.Frame{Payload: append([]byte{n}, make([]byte, 12)...), Frequency: freq, DataRate: dr}
}

// send programs a downlink when its time has come.
func (a *air) send(n byte, dr, at int) {
	a.world.At(ms(at), "send", func() {
		if err := a.gateway.Transmit(frame(n, dr), a.world.Now()); err != nil {
			a.t.Errorf("frame %d: %v", n, err)
		}
	})
}

func (a *air) uplink(n byte, at int) {
	a.world.At(ms(at), "uplink", func() {
		f := frame(n, 5)
		f.Key = radio.Key{Device: eui(1), Kind: radio.Uplink, Counter: uint32(n)}
		if _, err := a.station.Transmit(f); err != nil {
			a.t.Errorf("uplink %d: %v", n, err)
		}
	})
}

func (a *air) run() {
	a.t.Helper()
	if err := a.world.Run(a.t.Context(), epoch.Add(time.Hour)); err != nil {
		a.t.Fatal(err)
	}
}

func (a *air) want(device, gateway string) {
	a.t.Helper()
	if got := strings.Join(a.device.got, ", "); got != device {
		a.t.Errorf("device: %q, want %q", got, device)
	}
	if got := strings.Join(a.heard, ", "); got != gateway {
		a.t.Errorf("gateway: %q, want %q", got, gateway)
	}
}

func TestWindowHasFrequencyDataRateAndEdges(t *testing.T) {
	a := newAir(t, 0)
	a.station.Listen(radio.Window{From: ms(1000), Until: ms(2000), Frequency: freq, DataRate: 5})
	a.send(1, 5, 999)  // ends inside, but its preamble began before
	a.send(2, 5, 1100) //
	a.send(3, 4, 1200) // other data rate
	a.send(4, 5, 1999) // begins inside, ends outside
	a.send(5, 5, 2100) //
	a.world.At(ms(1400), "other frequency", func() {
		f := frame(6, 5)
		f.Frequency = 868100000
		if err := a.gateway.Transmit(f, ms(1400)); err != nil {
			t.Error(err)
		}
	})
	a.send(0xff, 5, 1500) // for somebody else
	a.run()
	a.want("got 2 at 1141, got 4 at 2040", "")
}

func TestWindowOpensExactlyAtItsStart(t *testing.T) {
	a := newAir(t, 0)
	a.station.Listen(radio.Window{From: ms(1000), Until: ms(2000), Frequency: freq, DataRate: 5})
	a.send(1, 5, 1000)
	a.send(2, 5, 2000)
	a.run()
	a.want("got 1 at 1041", "")
}

func TestClosedWindowHearsNothingMore(t *testing.T) {
	a := newAir(t, 0)
	w := a.station.Listen(radio.Window{From: ms(1000), Until: ms(2000), Frequency: freq, DataRate: 5})
	a.send(1, 5, 1100)
	a.world.At(ms(1120), "close", func() { a.station.Close(w) })
	a.send(2, 5, 1300)
	a.run()
	a.want("got 1 at 1141", "")
}

// A device is deaf while it sends, before and after the middle of a frame.
func TestDeviceIsHalfDuplex(t *testing.T) {
	a := newAir(t, 0)
	a.station.Listen(radio.Window{From: ms(0), Until: ms(5000), Frequency: freq, DataRate: 5})
	second, err := a.medium.NewGateway(eui(101), nil) // so that the first is free to hear
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{1000, 2000, 3000} {
		a.world.At(ms(at), "send", func() {
			if err := second.Transmit(frame(byte(at/1000), 5), a.world.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	a.uplink(11, 980)  // begins before the downlink
	a.uplink(12, 2020) // begins in the middle of it
	a.uplink(13, 3050) // begins after its end
	a.run()
	a.want("deaf to 1 at 1041, deaf to 2 at 2041, got 3 at 3041", "11 at 1026, 12 at 2066, 13 at 3096")
}

func TestDeviceSendsOneFrameAtATime(t *testing.T) {
	a := newAir(t, 0)
	a.uplink(1, 1000)
	a.world.At(ms(1046), "uplink", func() {
		if _, err := a.station.Transmit(frame(2, 5)); err == nil || !strings.Contains(err.Error(), "is transmitting until") {
			t.Errorf("Transmit in the middle of an uplink = %v", err)
		}
	})
	a.uplink(3, 1047)
	a.run()
	a.want("", "1 at 1046, 3 at 1093")
}

func TestGatewayIsHalfDuplex(t *testing.T) {
	a := newAir(t, 0)
	a.send(1, 5, 1000)
	a.uplink(11, 960)  // ends in the transmission
	a.uplink(12, 1030) // begins in it
	a.uplink(13, 1100)
	a.run()
	a.want("", "13 at 1146")
}

func TestGatewayRefusesOverlapAndPast(t *testing.T) {
	a := newAir(t, 0)
	a.world.At(ms(1000), "book", func() {
		if err := a.gateway.Transmit(frame(1, 5), ms(2000)); err != nil {
			t.Error(err)
		}
		for at, want := range map[int]error{999: radio.ErrTooLate, 1970: radio.ErrCollision, 2040: radio.ErrCollision} {
			if err := a.gateway.Transmit(frame(2, 5), ms(at)); !errors.Is(err, want) {
				t.Errorf("Transmit at %d ms = %v, want %v", at, err, want)
			}
		}
		if err := a.gateway.Transmit(frame(2, 5), ms(2042)); err != nil {
			t.Errorf("right behind the first: %v", err)
		}
		if err := a.gateway.Transmit(frame(2, 9), ms(9000)); !errors.Is(err, airtime.ErrDataRate) {
			t.Errorf("DR9 in EU868: %v, want ErrDataRate", err)
		}
	})
	a.run()
	if sent, n := a.gateway.Airtime(); n != 2 || sent != 2*41216*time.Microsecond {
		t.Errorf("gateway sent %d frames in %s, want 2 in 82.432 ms", n, sent)
	}
}

// An immediate downlink goes into the first gap that is long enough.
func TestGatewayTransmitsSoon(t *testing.T) {
	a := newAir(t, 0)
	a.world.At(ms(1000), "book", func() {
		for _, at := range []int{1050, 1100, 1200} { // gaps of 50, 8.8 and 58.8 ms
			if err := a.gateway.Transmit(frame(1, 5), ms(at)); err != nil {
				t.Error(err)
			}
		}
		for i, want := range []time.Duration{0, 141216, 241216, 282432} { // µs
			at, err := a.gateway.TransmitSoon(frame(2, 5))
			if got := at.Sub(ms(1000)); err != nil || got != want*time.Microsecond {
				t.Errorf("immediate frame %d begins %s after the call, %v, want %s", i, got, err, want*time.Microsecond)
			}
		}
	})
	a.run()
}

// A class A window takes the receiver from a class C session at once, and gives it back.
func TestHigherPriorityInterruptsReception(t *testing.T) {
	a := newAir(t, 0)
	a.station.Listen(radio.Window{From: ms(0), Until: ms(9000), Frequency: freq, DataRate: 5})
	a.station.Listen(radio.Window{From: ms(1020), Until: ms(1030), Frequency: 868100000, DataRate: 5, Priority: 1})
	cancelled := a.station.Listen(radio.Window{From: ms(3020), Until: ms(3030), Frequency: 868100000, DataRate: 5, Priority: 1})
	a.station.Listen(radio.Window{From: ms(4000), Until: ms(4500), Frequency: 868100000, DataRate: 5, Priority: 1})
	a.send(1, 5, 1000)
	a.send(2, 5, 2000)
	a.send(3, 5, 3000)
	a.world.At(ms(3010), "close", func() { a.station.Close(cancelled) })
	a.send(4, 5, 4100) // the other window has the receiver when this begins
	a.run()
	a.want("deaf to 1 at 1041, got 2 at 2041, got 3 at 3041, deaf to 4 at 4141", "")
}

func TestLostFramesAreReported(t *testing.T) {
	a := newAir(t, 1)
	a.station.Listen(radio.Window{From: ms(0), Until: ms(9000), Frequency: freq, DataRate: 5})
	a.send(1, 5, 1000)
	a.uplink(11, 2000)
	a.run()
	a.want("lost 1 at 1041", "")
}

// The order of registration must not decide the order in which devices hear one frame.
func TestStationsHearInOrderOfEUI(t *testing.T) {
	a := newAir(t, 0)
	var order []int
	for _, i := range []int{7, 3, 5} {
		s, err := a.medium.NewStation(eui(i), &ordered{i, &order})
		if err != nil {
			t.Fatal(err)
		}
		s.Listen(radio.Window{From: ms(0), Until: ms(9000), Frequency: freq, DataRate: 5})
	}
	a.send(1, 5, 1000)
	a.run()
	if !slices.Equal(order, []int{3, 5, 7}) {
		t.Errorf("heard in order %v, want 3 5 7", order)
	}
	if _, err := a.medium.NewStation(eui(5), a.device); err == nil {
		t.Error("a second device with the same EUI was accepted")
	}
	if _, err := a.medium.NewGateway(eui(100), nil); err == nil {
		t.Error("a second gateway with the same id was accepted")
	}
}

type ordered struct {
	id    int
	order *[]int
}

func (o *ordered) FrameKey(radio.Frame) (radio.Key, bool) { return radio.Key{Device: eui(o.id)}, true }

func (o *ordered) ReceiveFrame(radio.Frame, radio.Signal) { *o.order = append(*o.order, o.id) }

func (o *ordered) LoseFrame(radio.Frame, bool) {}

// TestPlans checks what this package adds to airtime against RP002-1.0.3.
func TestPlans(t *testing.T) {
	for _, tt := range []struct {
		region    airtime.Region
		channels  int
		frequency uint32 // of an uplink
		dr        int
		rx1       uint32
		rx1DR     int
	}{
		{airtime.EU868, 3, 868300000, 3, 868300000, 3},
		{airtime.IN865, 3, 865402500, 5, 865402500, 5},
		{airtime.KR920, 3, 922500000, 0, 922500000, 0},
		{airtime.AS923, 2, 923400000, 2, 923400000, 2},
		{airtime.US915, 72, 902300000, 0, 923300000, 10},
		{airtime.US915, 72, 904100000, 3, 923900000, 13}, // channel 9
		{airtime.US915, 72, 914200000, 4, 927500000, 13}, // channel 71
		{airtime.AU915, 72, 915200000, 0, 923300000, 8},
		{airtime.AU915, 72, 915900000, 6, 923300000, 13}, // channel 64
	} {
		p, err := radio.NewPlan(tt.region)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(p.Channels()); n != tt.channels {
			t.Errorf("%s: %d channels, want %d", tt.region, n, tt.channels)
		}
		if f, dr := p.RX1(tt.frequency, tt.dr); f != tt.rx1 || dr != tt.rx1DR {
			t.Errorf("%s: RX1 after DR%d on %d is DR%d on %d, want DR%d on %d", tt.region, tt.dr, tt.frequency, dr, f, tt.rx1DR, tt.rx1)
		}
		if _, err := p.MaxPayload(tt.rx1DR, airtime.Downlink); err != nil {
			t.Errorf("%s: RX1 uses a data rate that gateways do not send: %v", tt.region, err)
		}
		for bits := range uint64(100) {
			f, err := p.Uplink(tt.dr, bits)
			if err != nil || !slices.Contains(p.Channels(), f) {
				t.Fatalf("%s: uplink on %d, %v", tt.region, f, err)
			}
		}
	}
	p := radio.EU868()
	if _, err := p.Uplink(8, 0); !errors.Is(err, airtime.ErrDataRate) {
		t.Errorf("uplink at DR8 in EU868: %v, want ErrDataRate", err)
	}
	if _, err := radio.NewPlan(0); err == nil {
		t.Error("the zero region has a plan")
	}
}

// from hears one gateway and no other.
type from struct{ gateway lorawan.EUI64 }

func (f from) Carry(k radio.Key, _ time.Time) (radio.Signal, bool) {
	return radio.Signal{}, k.Gateway == f.gateway && k.Kind == radio.Beacon
}

// A beacon is heard from any gateway that the device can hear, unless that one is sending something else.
func TestHearsBeacon(t *testing.T) {
	w := world.New(epoch)
	medium := radio.NewMedium(w, radio.EU868(), from{eui(101)})
	at := airtime.UTC(airtime.BeaconStart(airtime.GPS(epoch)) + airtime.BeaconPeriod)
	if medium.HearsBeacon(eui(1), at) {
		t.Error("a beacon without a gateway")
	}
	for _, id := range []int{100, 101} {
		g, err := medium.NewGateway(eui(id), nil)
		if err != nil {
			t.Fatal(err)
		}
		if id == 100 && medium.HearsBeacon(eui(1), at) {
			t.Error("a beacon from a gateway that is too far away")
		}
		if id == 101 && !medium.HearsBeacon(eui(1), at) {
			t.Error("no beacon from the gateway that the device hears")
		}
		if err := g.Transmit(radio.Frame{Payload: make([]byte, 20), Frequency: freq, DataRate: 3}, at.Add(airtime.BeaconPeriod).Add(-50*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if medium.HearsBeacon(eui(1), at.Add(airtime.BeaconPeriod)) {
		t.Error("a beacon from a gateway that transmits something else")
	}
}
