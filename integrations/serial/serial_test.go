package serial_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/delta"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/integrations/serial"
)

// fixture is a device on a bench and the updates for it.
type fixture struct {
	id          device.Identity
	old, new    []byte // images 1.0.0 and 1.1.0
	full, patch []byte // bundles of the new image
	foreign     []byte // one for another hardware
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	src := rand.NewChaCha8([32]byte{1})
	body := make([]byte, 6000)
	src.Read(body)
	f := &fixture{id: device.Identity{Class: 0x1001, Hardware: 3, HWVersion: 7, Seed: 5}}
	for i := range f.id.RootKey {
		f.id.RootKey[i] = byte(i * 17)
	}
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	f.id.Keys[0].ID = 1
	if f.id.Keys[0].Public, err = bundle.PublicKey(&key.PublicKey); err != nil {
		t.Fatal(err)
	}
	wrap := func(body []byte, minor uint8) []byte {
		img, err := mcuboot.Wrap(body, mcuboot.Options{Major: 1, Minor: minor, LoadAddress: 0x21000000})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	f.old = wrap(body, 0)
	changed := bytes.Clone(body)
	src.Read(changed[2000:2400])
	f.new = wrap(changed, 1)
	target := bundle.Target{Class: f.id.Class, Hardware: f.id.Hardware, KeyID: 1, Sequence: 1}
	if f.full, err = bundle.Full(target, f.new, key); err != nil {
		t.Fatal(err)
	}
	p, err := delta.NewFile(f.old, f.new, delta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if f.patch, err = bundle.Patch(target, p, f.new, key); err != nil {
		t.Fatal(err)
	}
	target.Hardware++
	if f.foreign, err = bundle.Full(target, f.new, key); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) host(t *testing.T, version uint8) *device.Host {
	t.Helper()
	h, err := device.NewHost(device.HostConfig{Layout: device.ExampleLayout(), Image: f.old, ID: f.id, PackageVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := h.Violations(); n != 0 {
			t.Errorf("%d flash rules broken", n)
		}
		h.Close()
	})
	return h
}

// served is a device that has been put behind a byte stream.
func served(t *testing.T, stream io.ReadWriter, d serial.Device) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- serial.Serve(stream, d) }()
	t.Cleanup(func() {
		if c, ok := stream.(io.Closer); ok {
			c.Close()
		}
		<-done
	})
}

// wire is a byte stream that holds what its reader has not read yet, as a line with buffers does.
func wire(t *testing.T) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if here, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return here, there
}

// polled gives a connection the reads that a UART must have: they come back soon, with nothing if need be.
type polled struct{ net.Conn }

func (p polled) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		return 0, err
	}
	n, err := p.Conn.Read(b)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = nil
	}
	return n, err
}

func TestFeed(t *testing.T) {
	f := newFixture(t)
	for _, tt := range []struct {
		name  string
		block []byte
		opt   serial.Options
	}{
		{"v2, no loss", f.patch, serial.Options{}},
		{"v1, no loss", f.patch, serial.Options{Matrix: fragmentation.V1}},
		{"v2, 10 % loss, resets", f.full, serial.Options{Matrix: fragmentation.V2, Loss: 0.1, CutReset: true}},
		{"v1, 30 % loss, resets", f.full, serial.Options{Matrix: fragmentation.V1, Loss: 0.3, CutReset: true, Size: 100}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			version := uint8(2)
			if tt.opt.Matrix == fragmentation.V1 {
				version = 1
			}
			here, there := wire(t)
			served(t, there, f.host(t, version))
			link := serial.NewLink(polled{here}, 0)
			defer link.Close()
			var console []string
			tt.opt.RootKey, tt.opt.GPS, tt.opt.Seed = f.id.RootKey, 1_400_000_000, 7
			tt.opt.Log.Console = func(line string) { console = append(console, line) }
			res, err := serial.Feed(t.Context(), link, tt.block, tt.opt)
			if err != nil {
				t.Fatalf("%v\n%s", err, strings.Join(console, "\n"))
			}
			t.Logf("%+v", res)
			if res.Old != bundle.MakeVersion(1, 0, 0) || res.New != bundle.MakeVersion(1, 1, 0) || !res.ProvedByReboot {
				t.Errorf("went from %v to %v, proved %v", res.Old, res.New, res.ProvedByReboot)
			}
			if res.Version != applayer.Version(version) {
				t.Errorf("device speaks %v", res.Version)
			}
			if extra := res.Sent - res.Lost - res.M; extra < 0 || extra > 15 {
				t.Errorf("%d fragments received for M = %d", res.Sent-res.Lost, res.M)
			}
			if (res.Lost > 0) != (tt.opt.Loss > 0) || (res.Resets > 0) != tt.opt.CutReset {
				t.Errorf("%d lost, %d resets", res.Lost, res.Resets)
			}
			if !strings.Contains(strings.Join(console, "\n"), "firmware 1.1.0") {
				t.Errorf("the console never names the new version:\n%s", strings.Join(console, "\n"))
			}
		})
	}
}

// The same options give the same run.
func TestFeedIsDeterministic(t *testing.T) {
	f := newFixture(t)
	var results []serial.Result
	for range 2 {
		res, err := serial.Feed(t.Context(), f.host(t, 2), f.full,
			serial.Options{RootKey: f.id.RootKey, GPS: 1_400_000_000, Loss: 0.2, CutReset: true, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, res)
	}
	if results[0] != results[1] {
		t.Errorf("%+v, then %+v", results[0], results[1])
	}
}

func TestFeedSaysWhy(t *testing.T) {
	f := newFixture(t)
	tampered := bytes.Clone(f.full)
	tampered[100] ^= 1 // in the signature
	other := f.id.RootKey
	other[3] ^= 1
	for _, tt := range []struct {
		name  string
		block []byte
		opt   serial.Options
		want  error
		text  string
	}{
		{"signature", tampered, serial.Options{RootKey: f.id.RootKey}, serial.ErrStopped, "SIGNATURE_BAD"},
		{"hardware", f.foreign, serial.Options{RootKey: f.id.RootKey}, serial.ErrStopped, "HARDWARE_MISMATCH"},
		{"root key", f.full, serial.Options{RootKey: other}, serial.ErrDevice, "root key"},
		{"matrix", f.full, serial.Options{RootKey: f.id.RootKey, Matrix: fragmentation.V1}, nil, "leave the matrix out"},
		{"loss", f.full, serial.Options{Loss: 1}, nil, "loss 1"},
		{"no bundle", []byte("x"), serial.Options{}, bundle.ErrFormat, "bundle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.opt.GPS = 1_400_000_000
			res, err := serial.Feed(t.Context(), f.host(t, 2), tt.block, tt.opt)
			if err == nil || (tt.want != nil && !errors.Is(err, tt.want)) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("error %v, want %v with %q", err, tt.want, tt.text)
			}
			if res.New == bundle.MakeVersion(1, 1, 0) {
				t.Errorf("it was installed all the same: %+v", res)
			}
			if tt.name == "hardware" && res.Sent > 20 {
				t.Errorf("the device listened to %d fragments of a bundle for another hardware", res.Sent)
			}
		})
	}
}

// A session count that was used before is refused, and the error says what to do.
func TestFeedReplay(t *testing.T) {
	f := newFixture(t)
	h := f.host(t, 2)
	opt := serial.Options{RootKey: f.id.RootKey, GPS: 1_400_000_000, SessionCnt: 9}
	if _, err := serial.Feed(t.Context(), h, f.full, opt); err != nil {
		t.Fatal(err)
	}
	h.Kill()
	_, err := serial.Feed(t.Context(), h, f.foreign, opt)
	if !errors.Is(err, serial.ErrStopped) || !strings.Contains(err.Error(), "session count 9") {
		t.Errorf("error %v", err)
	}
}

func TestFeedStopsWithItsContext(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	opt := serial.Options{RootKey: f.id.RootKey, GPS: 1_400_000_000}
	opt.Log.Progress = func(text string) {
		if strings.Contains(text, "window open") {
			cancel()
		}
	}
	if res, err := serial.Feed(ctx, f.host(t, 2), f.full, opt); !errors.Is(err, context.Canceled) || res.Sent > 1 {
		t.Errorf("%+v, %v", res, err)
	}
}

// silent is a port from which nothing ever comes.
type silent struct{}

func (silent) Read([]byte) (int, error)    { return 0, io.EOF }
func (silent) Write(b []byte) (int, error) { return len(b), nil }
func (silent) Close() error                { return nil }

func TestSilence(t *testing.T) {
	_, err := serial.NewLink(silent{}, time.Millisecond).PowerUp()
	if !errors.Is(err, serial.ErrSilent) || !strings.Contains(err.Error(), "baud") {
		t.Errorf("error %v", err)
	}
}

// tardy is a device that is still booting when a host comes: what it says of that arrives after the host has begun.
type tardy struct {
	in  modem.Decoder
	out bytes.Buffer
}

func (d *tardy) Write(b []byte) (int, error) {
	d.in.Write(b)
	for f, ok := d.in.Next(); ok; f, ok = d.in.Next() {
		answer := []modem.Message{modem.IdleUntil{Time: 7}}
		if f.Type == modem.TypeResetReq {
			boot := []modem.Message{modem.Console{Text: "boot"}, modem.IdleUntil{}}
			answer = slices.Concat(boot, []modem.Message{modem.Reset{Reason: modem.ResetAsked}}, boot)
		}
		frames, err := modem.Frames(answer...)
		if err != nil {
			return 0, err
		}
		for _, f := range frames {
			raw, err := modem.AppendFrame(nil, f)
			if err != nil {
				return 0, err
			}
			d.out.Write(raw)
		}
	}
	return len(b), nil
}

func (d *tardy) Read(b []byte) (int, error) { return d.out.Read(b) }
func (*tardy) Close() error                 { return nil }

// The end of a boot that nobody has asked for is not taken for the answer: all later ones would belong to the question before.
func TestPowerUpWaitsForItsReset(t *testing.T) {
	link := serial.NewLink(&tardy{}, 0)
	frames, err := link.PowerUp()
	if err != nil || frames[0].Type != modem.TypeReset {
		t.Errorf("power-up: %v, %v", frames, err)
	}
	tick, err := modem.Frames(modem.Tick{Time: 1})
	if err != nil {
		t.Fatal(err)
	}
	frames, err = link.Turn(tick[0])
	if err != nil || len(frames) != 1 {
		t.Fatalf("turn: %v, %v", frames, err)
	}
	if m, err := frames[0].Message(); err != nil || m != (modem.IdleUntil{Time: 7}) {
		t.Errorf("turn: %v, %v, want the answer to it", m, err)
	}
}

// A link resets a device whose line is in disorder: half a frame in the device, half an answer on its way.
func TestPowerUpResynchronises(t *testing.T) {
	f := newFixture(t)
	here, there := wire(t)
	served(t, there, f.host(t, 2))
	link := serial.NewLink(polled{here}, 0)
	defer link.Close()
	if _, err := io.ReadFull(here, make([]byte, 3)); err != nil { // the head of the banner is lost
		t.Fatal(err)
	}
	if err := link.Noise([]byte{0xa5, 0x02, 0x30, 0x01, 1}); err != nil { // a frame of 304 bytes begins
		t.Fatal(err)
	}
	frames, err := link.PowerUp()
	if err != nil {
		t.Fatal(err)
	}
	if frames[0].Type != modem.TypeReset || frames[len(frames)-1].Type != modem.TypeIdleUntil {
		t.Errorf("answer %v", frames)
	}
}

func TestCheck(t *testing.T) {
	f := newFixture(t)
	for _, version := range []uint8{1, 2} {
		here, there := wire(t)
		served(t, there, f.host(t, version))
		link := serial.NewLink(polled{here}, 0)
		var failed int
		checks, err := serial.Check(t.Context(), link, 1_400_000_000, serial.Log{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range checks {
			t.Logf("v%d %v", version, c)
			if c.Err != nil {
				failed++
			}
		}
		if failed != 0 || len(checks) < 8 {
			t.Errorf("version %d: %d of %d checks failed", version, failed, len(checks))
		}
		link.Close()
	}
}

// lazy is a device with one defect.
type lazy struct {
	serial.Device
	change func(modem.Frame, []modem.Frame) []modem.Frame
}

func (l lazy) Turn(f modem.Frame) ([]modem.Frame, error) {
	out, err := l.Device.Turn(f)
	return l.change(f, out), err
}

func (l lazy) PowerUp() ([]modem.Frame, error) {
	out, err := l.Device.PowerUp()
	return l.change(modem.Frame{Type: modem.TypeResetReq}, out), err
}

func TestCheckFindsDefects(t *testing.T) {
	f := newFixture(t)
	drop := func(port uint8) func(modem.Frame, []modem.Frame) []modem.Frame {
		return func(_ modem.Frame, out []modem.Frame) []modem.Frame {
			var kept []modem.Frame
			for _, f := range out {
				if f.Type != modem.TypeUp || f.Payload[0] != port {
					kept = append(kept, f)
				}
			}
			return kept
		}
	}
	for _, tt := range []struct {
		name, want string
		change     func(modem.Frame, []modem.Frame) []modem.Frame
	}{
		{"never asks for the time", "clock", drop(applayer.FPortClockSync)},
		{"no TS006", "TS006", drop(applayer.FPortFwMgmt)},
		{"no TS005", "TS005", drop(applayer.FPortMcSetup)},
		{"no reports", "report", drop(204)},
		{"no banner", "banner", func(_ modem.Frame, out []modem.Frame) []modem.Frame {
			var kept []modem.Frame
			for _, f := range out {
				if f.Type != modem.TypeConsole {
					kept = append(kept, f)
				}
			}
			return kept
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checks, err := serial.Check(t.Context(), lazy{f.host(t, 2), tt.change}, 1_400_000_000, serial.Log{})
			if err != nil {
				t.Fatal(err)
			}
			var failed []string
			for _, c := range checks {
				if c.Err != nil {
					failed = append(failed, fmt.Sprint(c))
				}
			}
			if len(failed) == 0 || !strings.Contains(strings.Join(failed, "\n"), tt.want) {
				t.Errorf("failed checks %q, want one about %s", failed, tt.want)
			}
		})
	}
}

// checklist is a board whose firmware runs the porting checklist: one line at every reset.
type checklist struct {
	lines []string
	next  int
}

func (c *checklist) PowerUp() ([]modem.Frame, error) {
	line := c.lines[min(c.next, len(c.lines)-1)]
	c.next++
	return []modem.Frame{
		{Type: modem.TypeReset, Payload: []byte{0}}, {Type: modem.TypeConsole, Payload: []byte(line)},
		{Type: modem.TypeIdleUntil, Payload: bytes.Repeat([]byte{0xff}, 8)},
	}, nil
}

func (c *checklist) Turn(f modem.Frame) ([]modem.Frame, error) {
	return []modem.Frame{{Type: modem.TypeIdleUntil, Payload: bytes.Repeat([]byte{0xff}, 8)}}, nil
}

func TestCheckFollowsThePortingChecklist(t *testing.T) {
	for _, tt := range []struct {
		lines []string
		want  string // of the check that fails
		n     int
	}{
		{[]string{"selftest: reset", "selftest: ok"}, "", 2},
		{[]string{"selftest: granule: programming one changes its neighbour"}, "granule", 1},
		{[]string{"selftest: reset", "selftest: persistence: gone"}, "persistence", 2},
		{[]string{"selftest: reset", "selftest: reset"}, "persistence", 2},
		{[]string{"selftest: ok"}, "", 1},
	} {
		checks, err := serial.Check(t.Context(), &checklist{lines: tt.lines}, 0, serial.Log{})
		if err != nil || len(checks) != tt.n {
			t.Fatalf("%q: %v, %v, want %d checks", tt.lines, checks, err, tt.n)
		}
		for i, c := range checks {
			if last := i == len(checks)-1; (c.Err != nil) != (last && tt.want != "") || (c.Err != nil && !strings.Contains(c.Err.Error(), tt.want)) {
				t.Errorf("%q: %v, want a failure about %q at the end", tt.lines, c, tt.want)
			}
		}
	}
}
