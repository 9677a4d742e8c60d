// Package wrongdevice measures what the manifest spares a device for which an update is not meant: it is in the
// multicast group, hears the whole session, and should stop as soon as it can know.
package wrongdevice

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
)

const (
	class    = 0x1001
	hardware = 1
	second   = 1000 // of the device clock, milliseconds
	gpsStart = 1_479_362_418
)

// campaign is one update on the air, and the image that the devices run.
type campaign struct {
	old   []byte
	id    device.Identity
	enc   *fragmentation.Encoder
	setup datablock.FragSessionSetupReq
}

func newCampaign(t *testing.T, fragSize int) *campaign {
	t.Helper()
	rng := rand.New(rand.NewPCG(5, 5))
	image := func(minor uint8) []byte {
		body := make([]byte, 12_000)
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		img, err := mcuboot.Wrap(body, mcuboot.Options{Major: 1, Minor: minor, LoadAddress: device.ExampleLayout().SlotA.Addr})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := bundle.PublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	c := &campaign{old: image(0), id: device.Identity{Class: class, Hardware: hardware, RootKey: [16]byte{1, 2, 3}, Seed: 7,
		Keys: [2]device.TrustKey{{ID: 1, Public: pub}}}}
	block, err := bundle.Full(bundle.Target{Class: class, Hardware: hardware, KeyID: 1, Sequence: 1}, image(1), key)
	if err != nil {
		t.Fatal(err)
	}
	if c.enc, err = fragmentation.NewEncoder(block, fragSize, fragmentation.V2); err != nil {
		t.Fatal(err)
	}
	c.setup = datablock.FragSessionSetupReq{McGroupBitMask: 1, NbFrag: uint16(c.enc.M()), FragSize: uint8(fragSize),
		Padding: uint8(c.enc.Padding()), SessionCnt: 1}
	c.setup.MIC = datablock.SessionMIC(datablock.DataBlockIntKey(c.id.RootKey), 1, 0, c.setup.Descriptor, block)
	return c
}

// listener is a device and the MAC that feeds it.
type listener struct {
	t       *testing.T
	host    *device.Host
	now     uint64
	stopped bool // the device has cancelled its receive window
	cause   diag.Cause
}

// turn sends one message and notes what the device makes of its receive window.
func (l *listener) turn(m modem.Message) []modem.Message {
	l.t.Helper()
	raw, err := modem.Append(nil, m)
	if err != nil {
		l.t.Fatal(err)
	}
	var dec modem.Decoder
	dec.Write(raw)
	f, _ := dec.Next()
	said, err := l.host.Turn(f)
	if err != nil {
		l.t.Fatal(err)
	}
	var out []modem.Message
	for _, f := range said {
		m, err := f.Message()
		if err != nil {
			l.t.Fatal(err)
		}
		switch m := m.(type) {
		case modem.Session:
			l.stopped = m.Start == m.End
		case modem.Event:
			l.cause = diag.Cause(m.Cause)
		}
		out = append(out, m)
	}
	return out
}

func (l *listener) command(port uint8, raw []byte, err error) []modem.Message {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
	return l.turn(modem.Down{Time: l.now, Port: port, Group: modem.Unicast, Data: raw})
}

// listen sets a device of that class up and lets it hear the campaign from the first fragment on, one a second, until
// it stops listening or the last one is sent. hears says which fragments reach it.
func (c *campaign) listen(t *testing.T, class uint32, hears func(n int) bool, last int) (stopped bool, heard int, cause diag.Cause) {
	t.Helper()
	id := c.id
	id.Class = class
	host, err := device.NewHost(device.HostConfig{Layout: device.ExampleLayout(), Image: c.old, ID: id, PackageVersion: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if host.Violations() != 0 {
			t.Errorf("%d granules programmed twice", host.Violations())
		}
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := host.PowerUp(); err != nil {
		t.Fatal(err)
	}
	l := &listener{t: t, host: host, now: 10 * second}
	token := uint8(0)
	said := l.turn(modem.Link{Time: l.now, Joined: true, MaxPayload: 51})
	l.now += 20 * second
	for _, m := range append(said, l.turn(modem.Tick{Time: l.now})...) {
		if up, ok := m.(modem.Up); ok && up.Port == applayer.FPortClockSync {
			token = up.Data[5] & 15
		}
	}
	raw, err := clocksync.AppendCommand(nil, applayer.V2, clocksync.AppTimeAns{TimeCorrection: gpsStart, TokenAns: token})
	l.command(applayer.FPortClockSync, raw, err)
	raw, err = mcsetup.AppendCommand(nil, applayer.V2, mcsetup.McGroupSetupReq{McAddr: 0x01020304, MaxMcFCnt: 1 << 16})
	l.command(applayer.FPortMcSetup, raw, err)
	raw, err = datablock.AppendCommand(nil, applayer.V2, c.setup)
	l.command(applayer.FPortDataBlock, raw, err)
	l.now += 10 * second
	raw, err = mcsetup.AppendCommand(nil, applayer.V2, mcsetup.McClassCSessionReq{
		SessionTime: gpsStart + uint32(l.now/second) + 10, TimeOut: 15, DLFreq: 869_525_000, DR: 3})
	open := false
	for _, m := range l.command(applayer.FPortMcSetup, raw, err) {
		s, ok := m.(modem.Session)
		open = open || ok && s.Class == 'C' && s.End > s.Start
	}
	if !open {
		t.Fatal("the device does not open its receive window")
	}
	l.now += 10 * second
	for n := 1; n <= last; n++ {
		l.now += second
		if !hears(n) {
			continue
		}
		data, err := c.enc.Fragment(nil, n)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := datablock.AppendCommand(nil, applayer.V2, datablock.DataFragment{N: uint16(n), Data: data})
		if err != nil {
			t.Fatal(err)
		}
		l.turn(modem.Down{Time: l.now, Port: applayer.FPortDataBlock, Group: 0, Data: raw})
		if l.stopped {
			return true, n, l.cause
		}
	}
	return false, last, l.cause
}

// losses draws which fragments reach a device, each lost with probability p, and says with which one a device of the
// right class would have its block.
func (c *campaign) losses(t *testing.T, p float64, seed uint64) (hears func(n int) bool, last int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, math.Float64bits(p)))
	dec, err := fragmentation.NewDecoder(c.enc.M(), c.enc.Size(), c.enc.Matrix())
	if err != nil {
		t.Fatal(err)
	}
	heard := map[int]bool{}
	for n := 1; !dec.Done(); n++ {
		if rng.Float64() < p {
			continue
		}
		heard[n] = true
		data, err := c.enc.Fragment(nil, n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dec.Add(n, data); err != nil {
			t.Fatal(err)
		}
		last = n
	}
	return func(n int) bool { return heard[n] }, last
}

// TestOtherClass lets 500 devices of another class hear an update at 10 % and at 30 % loss, for each of two fragment
// sizes, and prints how many stop before its end and how much of the time on the air a device is spared on average:
// what it stays awake for is the time on the air, whether a fragment reaches it or not.
func TestOtherClass(t *testing.T) {
	const devices = 500
	t.Logf("%8s %4s %5s %6s %12s %8s", "fragment", "M", "loss", "stop", "want", "spared")
	for _, fragSize := range []int{48, 112, 222} {
		c := newCampaign(t, fragSize)
		head := (bundle.ManifestSize + fragSize - 1) / fragSize // fragments of the manifest
		for _, p := range []float64{0.1, 0.3} {
			early, spared := 0, 0.0
			for seed := range uint64(devices) {
				hears, last := c.losses(t, p, seed)
				stopped, n, cause := c.listen(t, class+1, hears, last)
				if !stopped || cause != diag.CauseClassMismatch {
					t.Fatalf("seed %d: stopped = %v at fragment %d of %d, cause %v", seed, stopped, n, last, cause)
				}
				if n < last {
					early++
				}
				spared += 1 - float64(n)/float64(last)
			}
			share := float64(early) / devices
			spared /= devices
			// It can know with the manifest at the latest when the block is whole, at the earliest with its head.
			want := math.Pow(1-p, float64(head))
			t.Logf("%8d %4d %4.0f%% %5.1f%% %11.1f%% %7.1f%%", fragSize, c.enc.M(), 100*p, 100*share, 100*want, 100*spared)
			if floor := want - 3*math.Sqrt(want*(1-want)/devices); share < floor {
				t.Errorf("fragments of %d, %.0f %% loss: %.1f %% of the devices stop early, want at least %.1f %%", fragSize, 100*p, 100*share, 100*floor)
			}
			if floor := share * (1 - float64(head+1)/float64(c.enc.M())); spared < floor {
				t.Errorf("fragments of %d, %.0f %% loss: %.1f %% of the airtime spared, want at least %.1f %%", fragSize, 100*p, 100*spared, 100*floor)
			}
		}
	}
}

// TestRightClass is the control: with the same losses a device of the right class stays until its block is whole.
func TestRightClass(t *testing.T) {
	c := newCampaign(t, 48)
	for seed := range uint64(20) {
		hears, last := c.losses(t, 0.3, seed)
		stopped, n, cause := c.listen(t, class, hears, last)
		if got, want := fmt.Sprint(stopped, n, cause), fmt.Sprint(true, last, diag.CauseOK); got != want {
			t.Errorf("seed %d: stopped, fragment, cause: %s, want %s", seed, got, want)
		}
	}
}
