package fleet_test

import (
	"crypto/aes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

var (
	epoch   = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	devEUI  = lorawan.EUI64{0x70, 0xb3, 0xd5, 0x7e, 0xd0, 0, 0, 1}
	joinEUI = lorawan.EUI64{9, 9, 9, 9, 9, 9, 9, 9}
	appKey  = lorawan.AES128Key{1, 2, 3, 4}
	gateway = lorawan.EUI64{0xff}
	mcNwk   = lorawan.AES128Key{5}
	mcApp   = lorawan.AES128Key{6}
)

const (
	mcAddr = 0x00abcdef
	mcFreq = 869525000
	mcDR   = 3
)

// script is an App that records every turn and answers as the test says.
type script struct {
	turns  []string
	answer func(modem.Message) []modem.Message
	boot   []modem.Message
	err    error
	closed bool
}

func encode(ms []modem.Message) []modem.Frame {
	out, err := modem.Frames(ms...)
	if err != nil {
		panic(err) // a mistake in this file
	}
	return out
}

var idle = modem.IdleUntil{Time: modem.Never}

func (s *script) PowerUp() ([]modem.Frame, error) {
	s.turns = append(s.turns, "power up")
	return encode(append(s.boot, idle)), s.err
}

func (s *script) Turn(f modem.Frame) ([]modem.Frame, error) {
	m, err := f.Message()
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case modem.Link:
		s.turns = append(s.turns, fmt.Sprintf("link %v %d", m.Joined, m.MaxPayload))
	case modem.Down:
		s.turns = append(s.turns, fmt.Sprintf("down %d %d %s", m.Group, m.Port, m.Data))
	case modem.Tick:
		s.turns = append(s.turns, fmt.Sprintf("tick %d", m.Time))
	case modem.ResetReq:
		s.turns = append(s.turns, "reset")
	}
	if s.answer != nil {
		if ms := s.answer(m); ms != nil {
			return encode(ms), s.err
		}
	}
	return encode([]modem.Message{idle}), s.err
}

func (s *script) Close() error { s.closed = true; return nil }

// bench is one device and the network side of its radio, by hand.
type bench struct {
	t       testing.TB
	world   *world.World
	plan    *radio.Plan
	fleet   *fleet.Fleet
	device  *fleet.Device
	app     *script
	gateway *radio.Gateway
	console []string
	failed  error

	list   *lorawan.CFList // of join accepts
	rx2    uint8           // DR, of join accepts
	mute   bool            // does not answer join requests
	deaf   bool            // does not look at uplinks at all
	nonces []lorawan.DevNonce
	nwk    lorawan.AES128Key
	appS   lorawan.AES128Key
	ups    []string // uplinks, decrypted
	opts   []string // their FOpts
	answer func(radio.Frame)
}

var unicastAddr = lorawan.DevAddr{0, 1, 2, 3}

func newBench(t *testing.T, app *script, change func(*fleet.DeviceConfig)) *bench {
	return newBenchIn(t, airtime.EU868, app, change)
}

func newBenchIn(t *testing.T, region airtime.Region, app *script, change func(*fleet.DeviceConfig)) *bench {
	plan, err := radio.NewPlan(region)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, world: world.New(epoch), plan: plan, app: app}
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	medium := radio.NewMedium(b.world, plan, loss)
	b.fleet, err = fleet.New(fleet.Config{World: b.world, Medium: medium, Seed: 1,
		Console: func(_ lorawan.EUI64, _ time.Time, line string) { b.console = append(b.console, line) },
		Failed:  func(_ lorawan.EUI64, _ time.Time, err error) { b.failed = err },
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := fleet.DeviceConfig{EUI: devEUI, JoinEUI: joinEUI, AppKey: appKey, DataRate: 5, App: app}
	if change != nil {
		change(&cfg)
	}
	if b.device, err = b.fleet.Add(cfg); err != nil {
		t.Fatal(err)
	}
	if b.gateway, err = medium.NewGateway(gateway, func(f radio.Frame, _ radio.Signal) { b.hear(f) }); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) hear(f radio.Frame) {
	if b.deaf {
		return
	}
	var phy lorawan.PHYPayload
	if err := phy.UnmarshalBinary(f.Payload); err != nil {
		b.t.Fatal(err)
	}
	if phy.MHDR.MType == lorawan.JoinRequest {
		r := phy.MACPayload.(*lorawan.JoinRequestPayload)
		if ok, err := phy.ValidateUplinkJoinMIC(appKey); !ok || err != nil || r.DevEUI != devEUI || r.JoinEUI != joinEUI {
			b.t.Errorf("join request %+v: MIC %v %v", r, ok, err)
		}
		b.nonces = append(b.nonces, r.DevNonce)
		if !b.mute {
			b.accept(f, r.DevNonce)
		}
		return
	}
	mac := phy.MACPayload.(*lorawan.MACPayload)
	if ok, err := phy.ValidateUplinkDataMIC(lorawan.LoRaWAN1_0, 0, 0, 0, b.nwk, b.nwk); !ok || err != nil {
		b.t.Errorf("uplink with counter %d: MIC %v %v", mac.FHDR.FCnt, ok, err)
	}
	line := fmt.Sprintf("%d", mac.FHDR.FCnt)
	if mac.FHDR.FCtrl.ACK {
		line += " ack"
	}
	if mac.FPort != nil {
		if err := phy.DecryptFRMPayload(b.appS); err != nil {
			b.t.Error(err)
		}
		line += fmt.Sprintf(" %d %s", *mac.FPort, mac.FRMPayload[0].(*lorawan.DataPayload).Bytes)
	}
	b.ups = append(b.ups, line)
	var opts []byte
	for _, p := range mac.FHDR.FOpts {
		opts = append(opts, p.(*lorawan.DataPayload).Bytes...)
	}
	b.opts = append(b.opts, hex.EncodeToString(opts))
	if b.answer != nil {
		b.answer(f)
	}
}

// accept answers a join request; the device address is fixed, RX1 comes after 2 s.
func (b *bench) accept(f radio.Frame, nonce lorawan.DevNonce) {
	phy := lorawan.PHYPayload{
		MHDR: lorawan.MHDR{MType: lorawan.JoinAccept},
		MACPayload: &lorawan.JoinAcceptPayload{JoinNonce: 0x010203, HomeNetID: lorawan.NetID{0, 0, 0x13},
			DevAddr: unicastAddr, RXDelay: 2, CFList: b.list,
			DLSettings: lorawan.DLSettings{RX2DataRate: b.rx2}},
	}
	b.must(phy.SetDownlinkJoinMIC(lorawan.JoinRequestType, joinEUI, nonce, appKey))
	b.must(phy.EncryptJoinAcceptPayload(appKey))
	derive := func(kind byte) (k lorawan.AES128Key) {
		in := []byte{kind, 3, 2, 1, 0x13, 0, 0, byte(nonce), byte(nonce >> 8), 0, 0, 0, 0, 0, 0, 0}
		c, err := aes.NewCipher(appKey[:])
		b.must(err)
		c.Encrypt(k[:], in)
		return k
	}
	b.nwk, b.appS = derive(1), derive(2)
	frequency, dr := b.plan.RX1(f.Frequency, f.DataRate)
	b.transmit(phy, frequency, dr, f.End.Add(5*time.Second))
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) transmit(phy lorawan.PHYPayload, frequency uint32, dr int, at time.Time) {
	b.t.Helper()
	raw, err := phy.MarshalBinary()
	b.must(err)
	b.must(b.gateway.Transmit(radio.Frame{Payload: raw, Frequency: frequency, DataRate: dr}, at))
}

// data builds a downlink; the zero MIC key stands for the right one.
func (b *bench) data(mtype lorawan.MType, addr lorawan.DevAddr, fCnt uint32, pending bool, port uint8, text string, app, nwk lorawan.AES128Key) lorawan.PHYPayload {
	phy := lorawan.PHYPayload{
		MHDR: lorawan.MHDR{MType: mtype},
		MACPayload: &lorawan.MACPayload{
			FHDR:  lorawan.FHDR{DevAddr: addr, FCnt: fCnt, FCtrl: lorawan.FCtrl{FPending: pending}},
			FPort: &port, FRMPayload: []lorawan.Payload{&lorawan.DataPayload{Bytes: []byte(text)}},
		},
	}
	b.must(phy.EncryptFRMPayload(app))
	b.must(phy.SetDownlinkDataMIC(lorawan.LoRaWAN1_0, 0, nwk))
	return phy
}

// multicast sends a frame of the group.
func (b *bench) multicast(after time.Duration, fCnt uint32, text string, nwk lorawan.AES128Key) {
	var addr lorawan.DevAddr
	binary.BigEndian.PutUint32(addr[:], mcAddr)
	b.world.At(epoch.Add(after), "multicast", func() {
		b.transmit(b.data(lorawan.UnconfirmedDataDown, addr, fCnt, false, 201, text, mcApp, nwk), mcFreq, mcDR, b.world.Now())
	})
}

func (b *bench) run(until time.Duration) {
	b.t.Helper()
	b.must(b.world.Run(b.t.Context(), epoch.Add(until)))
}

func (b *bench) want(what string, got []string, want ...string) {
	b.t.Helper()
	if g, w := strings.Join(got, "\n  "), strings.Join(want, "\n  "); g != w {
		b.t.Errorf("%s:\n  %s\nwant:\n  %s", what, g, w)
	}
}

func clock(after time.Duration) uint64 {
	return uint64((airtime.GPS(epoch) + after) / time.Millisecond)
}

func TestJoinIsRetriedWithFreshNonces(t *testing.T) {
	b := newBench(t, &script{}, nil)
	b.mute = true
	b.run(2 * time.Minute)
	if len(b.nonces) < 3 || b.device.Stats().Joined {
		t.Fatalf("%d join requests in two minutes without an answer, joined %v", len(b.nonces), b.device.Stats().Joined)
	}
	for i, n := range b.nonces {
		if int(n) != i+1 {
			t.Errorf("DevNonce %d of attempt %d, want it to count from 1", n, i+1)
		}
	}
	b.mute = false
	b.run(4 * time.Minute)
	before := len(b.nonces)
	b.run(time.Hour)
	if !b.device.Stats().Joined || len(b.nonces) != before {
		t.Errorf("joined %v after %d requests, then %d more", b.device.Stats().Joined, before, len(b.nonces)-before)
	}
	b.want("turns", b.app.turns, "power up", "link true 242")
}

func TestUplinksAreSentOneByOneAfterTheJoin(t *testing.T) {
	b := newBench(t, &script{boot: []modem.Message{
		modem.Console{Text: "sower 1.0.0"},
		modem.Up{Port: 2, Data: []byte("one")}, modem.Up{Port: 3, Data: []byte("two")},
		modem.Up{Port: 0, Data: []byte("no such port")}, modem.Up{Port: 2, Data: make([]byte, 243)},
	}}, nil)
	var ends []time.Time
	b.answer = func(f radio.Frame) { ends = append(ends, f.End) }
	b.run(time.Minute)
	b.want("uplinks", b.ups, "0 2 one", "1 3 two")
	b.want("console", b.console, "sower 1.0.0")
	// RX2 of the first opens 3 s after its end; the second must wait for it.
	if gap := ends[1].Sub(ends[0]); gap < 3*time.Second || gap > 4*time.Second {
		t.Errorf("second uplink ends %s after the first, want just above 3 s", gap)
	}
	if s := b.device.Stats(); s.UplinksDropped != 2 || s.Uplinks != 2 {
		t.Errorf("counted %+v, want 2 uplinks and 2 dropped", s)
	}
}

func TestQueueOfUplinksIsBounded(t *testing.T) {
	var boot []modem.Message
	for i := range 20 {
		boot = append(boot, modem.Up{Port: 2, Data: []byte{byte('a' + i)}})
	}
	b := newBench(t, &script{boot: boot}, nil)
	b.run(5 * time.Minute)
	if s := b.device.Stats(); s.UplinksDropped != 4 || len(b.ups) != 16 || b.ups[15] != "15 2 p" {
		t.Errorf("%d dropped, %d sent, want the first 16 sent", s.UplinksDropped, len(b.ups))
	}
}

// Downlinks in RX1 and RX2: accepted once, in order, with acknowledgement and pending bit.
func TestUnicastDownlinks(t *testing.T) {
	b := newBench(t, &script{boot: []modem.Message{modem.Up{Port: 2, Data: []byte("up")}}}, nil)
	rx1 := func(f radio.Frame, phy lorawan.PHYPayload) {
		b.transmit(phy, f.Frequency, f.DataRate, f.End.Add(2*time.Second))
	}
	rx2 := func(phy lorawan.PHYPayload, f radio.Frame) { b.transmit(phy, mcFreq, 0, f.End.Add(3*time.Second)) }
	b.answer = func(f radio.Frame) {
		switch len(b.ups) {
		case 1: // more is pending: the device fetches it with an empty uplink
			rx1(f, b.data(lorawan.UnconfirmedDataDown, unicastAddr, 0, true, 10, "first", b.appS, b.nwk))
		case 2: // the same counter again, then in RX2 a confirmed frame with a gap in the counter
			rx1(f, b.data(lorawan.UnconfirmedDataDown, unicastAddr, 0, false, 10, "replay", b.appS, b.nwk))
			rx2(b.data(lorawan.ConfirmedDataDown, unicastAddr, 7, true, 11, "second", b.appS, b.nwk), f)
		case 3: // wrong MIC
			rx1(f, b.data(lorawan.UnconfirmedDataDown, unicastAddr, 8, false, 10, "forged", b.appS, mcNwk))
		}
	}
	b.run(time.Minute)
	b.want("turns", b.app.turns, "power up", "link true 242", "down 255 10 first", "down 255 11 second")
	b.want("uplinks", b.ups, "0 2 up", "1", "2 ack")
	if s := b.device.Stats(); s.Downlinks != 2 || s.DownlinksLost != 0 {
		t.Errorf("counted %+v, want 2 downlinks", s)
	}
}

// grouped sets the group and a session from 60 s to 120 s of the device clock.
func grouped(offset time.Duration) []modem.Message {
	return []modem.Message{
		modem.SetMcGroup{ID: 2, Defined: true, Addr: mcAddr, AppSKey: mcApp, NwkSKey: mcNwk, MinFCnt: 3, MaxFCnt: 100},
		modem.Session{ID: 2, Class: 'C', DR: mcDR, Frequency: mcFreq, Start: clock(60*time.Second + offset), End: clock(120*time.Second + offset)},
	}
}

func TestMulticastSession(t *testing.T) {
	for _, offset := range []time.Duration{0, -1000 * time.Hour, 17 * time.Minute, -airtime.GPS(epoch)} {
		t.Run(offset.String(), func(t *testing.T) {
			b := newBench(t, &script{boot: grouped(offset)}, func(c *fleet.DeviceConfig) { c.ClockOffset = offset })
			b.multicast(59*time.Second, 3, "too early", mcNwk)
			b.multicast(61*time.Second, 5, "five", mcNwk)
			b.multicast(62*time.Second, 5, "five again", mcNwk)
			b.multicast(63*time.Second, 4, "old", mcNwk)
			b.multicast(64*time.Second, 6, "forged", mcApp)
			b.multicast(65*time.Second, 2, "below the range", mcNwk)
			b.multicast(66*time.Second, 99, "last", mcNwk)
			b.multicast(67*time.Second, 100, "above the range", mcNwk)
			b.multicast(121*time.Second, 99, "too late", mcNwk)
			b.run(3 * time.Minute)
			b.want("turns", b.app.turns, "power up", "link true 242", "down 2 201 five", "down 2 201 last")
			if s := b.device.Stats(); s.Multicasts != 2 || s.MulticastsRefused != 5 {
				t.Errorf("counted %+v, want 2 multicast frames and 5 refused", s)
			}
		})
	}
}

// Devices share the work on a frame, not its meaning: who has another key, or expects another counter, judges it for
// itself.
func TestFrameIsJudgedByEachDevice(t *testing.T) {
	b := newBench(t, &script{boot: grouped(0)}, nil)
	b.deaf = true // nobody has to join to listen
	var apps []*script
	for i, change := range []func(*modem.SetMcGroup){
		func(g *modem.SetMcGroup) { g.NwkSKey = mcApp },
		func(g *modem.SetMcGroup) { g.AppSKey = mcNwk },
		func(g *modem.SetMcGroup) { g.MinFCnt, g.MaxFCnt = 1<<16, 1<<17 }, // the MIC holds the counter's upper half
		func(g *modem.SetMcGroup) { g.ID = 3 },
	} {
		boot := grouped(0)
		g := boot[0].(modem.SetMcGroup)
		change(&g)
		boot[0] = g
		apps = append(apps, &script{boot: boot})
		if _, err := b.fleet.Add(fleet.DeviceConfig{EUI: lorawan.EUI64{9, byte(i)}, JoinEUI: joinEUI, AppKey: appKey, DataRate: 5, App: apps[i]}); err != nil {
			t.Fatal(err)
		}
	}
	b.multicast(65*time.Second, 3, "for some", mcNwk)
	b.multicast(66*time.Second, 4, "again", mcNwk)
	b.run(70 * time.Second)
	downs := func(s *script) string {
		var out []string
		for _, turn := range s.turns {
			if strings.HasPrefix(turn, "down") {
				out = append(out, turn)
			}
		}
		return strings.Join(out, ", ")
	}
	if got := downs(b.app); got != "down 2 201 for some, down 2 201 again" {
		t.Errorf("the device with the right keys heard %q", got)
	}
	if got := downs(apps[0]); got != "" {
		t.Errorf("with another NwkSKey: %q", got)
	}
	if got := downs(apps[1]); strings.Count(got, "down 2 201") != 2 || strings.Contains(got, "for some") {
		t.Errorf("with another AppSKey: %q, want two frames that make no sense", got)
	}
	if got := downs(apps[2]); got != "" {
		t.Errorf("with another range of counters: %q", got)
	}
	if got := downs(apps[3]); got != "down 3 201 for some, down 3 201 again" {
		t.Errorf("with another group id: %q", got)
	}
}

// A class B session hears in the ping slots of the group only, whatever the clock of the device shows, and only
// between start and end.
func TestClassBSession(t *testing.T) {
	const periodicity = 4
	for _, offset := range []time.Duration{0, 30 * time.Second} {
		boot := grouped(offset)
		boot[1] = modem.Session{ID: 2, Class: 'B', Periodicity: periodicity, DR: mcDR, Frequency: mcFreq, Start: clock(60*time.Second + offset), End: clock(400*time.Second + offset)}
		b := newBench(t, &script{boot: boot}, func(c *fleet.DeviceConfig) { c.ClockOffset = offset })
		slot := func(after time.Duration) time.Duration {
			return airtime.UTC(airtime.NextPingSlot(mcAddr, airtime.GPS(epoch.Add(after)), periodicity)).Sub(epoch)
		}
		b.multicast(slot(30*time.Second), 3, "too early", mcNwk)
		b.multicast(slot(70*time.Second), 4, "first", mcNwk)
		b.multicast(slot(75*time.Second)+500*time.Millisecond, 5, "beside", mcNwk)
		b.multicast(slot(250*time.Second), 6, "two periods later", mcNwk)
		b.multicast(slot(410*time.Second), 7, "too late", mcNwk)
		b.run(10 * time.Minute)
		b.want("turns", b.app.turns, "power up", "link true 242", "down 2 201 first", "down 2 201 two periods later")
	}
}

func TestSessionIsCancelledAndGroupDeleted(t *testing.T) {
	app := &script{boot: append(grouped(0), modem.Up{Port: 2, Data: []byte("up")})}
	b := newBench(t, app, nil)
	app.answer = func(m modem.Message) []modem.Message {
		if d, ok := m.(modem.Down); ok && string(d.Data) == "cancel" {
			return []modem.Message{modem.Session{ID: 2, Class: 'C', Start: 5, End: 5}, idle}
		} else if ok && string(d.Data) == "delete" {
			return []modem.Message{modem.SetMcGroup{ID: 2}, idle}
		} else if ok && string(d.Data) == "again" {
			return append(grouped(0), idle)
		}
		return nil
	}
	b.multicast(70*time.Second, 10, "again", mcNwk) // set again, it keeps its counter
	b.multicast(71*time.Second, 10, "replay", mcNwk)
	b.multicast(72*time.Second, 11, "delete", mcNwk)
	b.multicast(73*time.Second, 12, "nobody hears", mcNwk)
	b.run(3 * time.Minute)
	b.want("turns", b.app.turns, "power up", "link true 242", "down 2 201 again", "down 2 201 delete")

	app2 := &script{boot: grouped(0), answer: app.answer}
	b = newBench(t, app2, nil)
	b.multicast(70*time.Second, 10, "cancel", mcNwk)
	b.multicast(71*time.Second, 11, "nobody hears", mcNwk)
	b.run(3 * time.Minute)
	b.want("turns", b.app.turns, "power up", "link true 242", "down 2 201 cancel")
}

// TestResetKeepsTheSessionOnly: LoRaWAN session kept, groups and waiting uplinks gone, LINK told again.
func TestResetKeepsTheSessionOnly(t *testing.T) {
	boots := 0
	app := &script{boot: grouped(0)}
	app.answer = func(m modem.Message) []modem.Message {
		if d, ok := m.(modem.Down); ok && string(d.Data) == "install" {
			boots++
			return []modem.Message{modem.Up{Port: 2, Data: []byte("forgotten")}, modem.Reset{Reason: modem.ResetInstall},
				modem.Console{Text: "boot"}, modem.Up{Port: 2, Data: []byte("hello")}, idle}
		}
		return nil
	}
	b := newBench(t, app, nil)
	b.multicast(70*time.Second, 10, "install", mcNwk)
	b.multicast(80*time.Second, 11, "nobody hears", mcNwk)
	b.run(3 * time.Minute)
	b.want("turns", b.app.turns, "power up", "link true 242", "down 2 201 install", "link true 242")
	b.want("uplinks", b.ups, "0 2 hello")
	if len(b.nonces) != 1 || b.device.Stats().Resets != 1 {
		t.Errorf("%d joins and %d resets, want 1 and 1", len(b.nonces), b.device.Stats().Resets)
	}

	b.world.After(0, "reset line", b.device.Reset)
	b.run(4 * time.Minute)
	b.want("turns", b.app.turns[4:], "reset", "link true 242")
	b.world.After(0, "power cut", b.device.PowerOff)
	b.world.After(time.Second, "power", b.device.PowerUp)
	b.run(5 * time.Minute)
	b.want("turns", b.app.turns[6:], "power up", "link true 242")
	if len(b.nonces) != 1 {
		t.Errorf("%d joins, want 1", len(b.nonces))
	}
}

// TestWatchdogReset: the device hangs in a turn, its watchdog bites, and it comes back without having announced
// anything, not knowing the time. The MAC forgets as in any reset and tells it about the network again.
func TestWatchdogReset(t *testing.T) {
	links := 0
	app := &script{boot: grouped(0)}
	app.answer = func(m modem.Message) []modem.Message {
		switch m := m.(type) {
		case modem.Down:
			if string(m.Data) == "hang" {
				return []modem.Message{modem.Up{Port: 2, Data: []byte("forgotten")}, modem.Console{Text: "boot"}, modem.IdleUntil{}}
			}
		case modem.Link:
			if links++; links == 2 { // hangs once more
				return []modem.Message{modem.Console{Text: "boot"}, modem.IdleUntil{}}
			}
			if links == 3 {
				return []modem.Message{modem.Up{Port: 2, Data: []byte("back")}, idle}
			}
		}
		return nil
	}
	b := newBench(t, app, nil)
	b.multicast(70*time.Second, 10, "hang", mcNwk)
	b.multicast(80*time.Second, 11, "nobody hears", mcNwk)
	b.run(3 * time.Minute)
	b.want("turns", app.turns, "power up", "link true 242", "down 2 201 hang", "link true 242", "link true 242")
	b.want("uplinks", b.ups, "0 2 back")
	b.want("console", b.console, "boot", "boot")
	if s := b.device.Stats(); s.Resets != 2 || len(b.nonces) != 1 {
		t.Errorf("%d resets and %d joins, want 2 and 1", s.Resets, len(b.nonces))
	}
}

// TestBootLoopStopsTheDevice: a device that its watchdog resets again and again, or that resets itself again and again,
// is declared dead after ten resets within a minute of virtual time, and says so; one that resets now and then is not.
func TestBootLoopStopsTheDevice(t *testing.T) {
	for _, tt := range []struct {
		name  string
		boot  []modem.Message
		every time.Duration // of the device clock; 0: at once
		want  string
	}{
		{"watchdog", []modem.Message{modem.IdleUntil{}}, 0, "in a boot loop: 10 resets within 1m0s, the last one by the watchdog"},
		{"announced", []modem.Message{modem.Reset{Reason: modem.ResetInstall}, idle}, 0, "in a boot loop: 10 resets within 1m0s, the last one announced"},
		{"every 7 s", []modem.Message{modem.IdleUntil{}}, 7 * time.Second, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			app := &script{}
			asleep := false
			app.answer = func(m modem.Message) []modem.Message {
				if _, is := m.(modem.Link); is && tt.every > 0 && !asleep {
					asleep = true
					return []modem.Message{modem.IdleUntil{Time: m.(modem.Link).Time + uint64(tt.every/time.Millisecond)}}
				}
				asleep = false
				return tt.boot
			}
			b := newBench(t, app, nil)
			b.run(24 * time.Hour)
			s := b.device.Stats()
			if tt.want == "" {
				if b.failed != nil || s.Stopped || s.Resets < 10000 {
					t.Errorf("stopped %v (%v) after %d resets, want one that lives with them", s.Stopped, b.failed, s.Resets)
				}
				return
			}
			if b.failed == nil || !strings.Contains(b.failed.Error(), tt.want) || !strings.Contains(b.failed.Error(), devEUI.String()) {
				t.Errorf("reported %v, want %q", b.failed, tt.want)
			}
			if !s.Stopped || s.Resets != 10 || len(app.turns) > 15 {
				t.Errorf("stopped %v after %d resets and %d turns", s.Stopped, s.Resets, len(app.turns))
			}
		})
	}
}

// The device is ticked when its own clock, not the world's, shows the time it asked for.
func TestTickFollowsTheDeviceClock(t *testing.T) {
	const offset = -333 * time.Hour
	app := &script{}
	app.answer = func(m modem.Message) []modem.Message {
		switch m := m.(type) {
		case modem.Link:
			return []modem.Message{modem.IdleUntil{Time: clock(offset + 100*time.Second)}}
		case modem.Tick:
			if len(app.turns) < 6 {
				return []modem.Message{modem.IdleUntil{Time: m.Time + 250}}
			}
		}
		return nil
	}
	b := newBench(t, app, func(c *fleet.DeviceConfig) { c.ClockOffset = offset })
	b.run(time.Hour)
	var want []string
	for i := range 4 {
		want = append(want, fmt.Sprintf("tick %d", clock(offset+100*time.Second)+uint64(i)*250))
	}
	b.want("turns", app.turns[2:], want...)
}

// A device that never idles makes the clock advance all the same.
func TestTickInThePast(t *testing.T) {
	app := &script{answer: func(modem.Message) []modem.Message { return []modem.Message{modem.IdleUntil{Time: 1}} }}
	b := newBench(t, app, nil)
	b.run(10 * time.Second)
	if n := len(app.turns); n < 1000 || n > 10000 {
		t.Errorf("%d turns in ten seconds, want one per millisecond since the join", n)
	}
}

func TestBrokenApplicationStopsTheDeviceOnly(t *testing.T) {
	boom := errors.New("assertion in sow_core.c")
	for name, tt := range map[string]struct {
		app  *script
		want string
	}{
		"error":                {&script{err: boom}, boom.Error()},
		"frame after idle":     {&script{boot: []modem.Message{idle}}, "IDLE_UNTIL must be the last"},
		"group out of range":   {&script{boot: []modem.Message{modem.SetMcGroup{ID: 4, Defined: true}}}, "group 4, want 0..3"},
		"session out of range": {&script{boot: []modem.Message{modem.Session{ID: 9, Class: 'C', Start: 1, End: 2}}}, "group 9, want 0..3"},
		"class D":              {&script{boot: []modem.Message{modem.Session{ID: 0, Class: 'D', Start: 1, End: 2}}}, "class 'D'"},
		"class B, no group":    {&script{boot: []modem.Message{modem.Session{ID: 0, Class: 'B', Start: 1, End: 2}}}, "group defined: false"},
		"data rate":            {&script{boot: []modem.Message{modem.Session{ID: 0, Class: 'C', DR: 14, Start: 1, End: 2}}}, "DR14"},
		"frame of the host":    {&script{boot: []modem.Message{modem.Tick{Time: 1}}}, "does not send"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, tt.app, nil)
			b.run(time.Minute)
			if b.failed == nil || !strings.Contains(b.failed.Error(), tt.want) {
				t.Errorf("reported %v, want %q", b.failed, tt.want)
			}
			if s := b.device.Stats(); !s.Stopped || s.Joined || len(b.nonces) != 0 {
				t.Errorf("counted %+v with %d join requests, want a device that is silent", s, len(b.nonces))
			}
		})
	}
}

func TestAddRefusesWhatCannotWork(t *testing.T) {
	b := newBench(t, &script{}, nil)
	good := fleet.DeviceConfig{EUI: lorawan.EUI64{1}, AppKey: appKey, DataRate: 0, App: &script{}}
	for want, change := range map[string]func(*fleet.DeviceConfig){
		"exists already":       func(c *fleet.DeviceConfig) { c.EUI = devEUI },
		"has no App":           func(c *fleet.DeviceConfig) { c.App = nil },
		"DR12":                 func(c *fleet.DeviceConfig) { c.DataRate = 12 },
		"lies in the past":     func(c *fleet.DeviceConfig) { c.PowerUp = -1 },
		"before the GPS epoch": func(c *fleet.DeviceConfig) { c.ClockOffset = -100 * 365 * 24 * time.Hour },
		"clock drift 501":      func(c *fleet.DeviceConfig) { c.Drift = 501 },
		"tolerance NaN":        func(c *fleet.DeviceConfig) { c.Tolerance = math.NaN() },
	} {
		cfg := good
		change(&cfg)
		if _, err := b.fleet.Add(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Add = %v, want %q", err, want)
		}
	}
	if n := len(b.fleet.Devices()); n != 1 {
		t.Errorf("%d devices after refusals, want 1", n)
	}
	d, err := b.fleet.Add(good)
	if err != nil || b.fleet.Device(good.EUI) != d || b.fleet.Devices()[0] != d {
		t.Errorf("Add = %v", err)
	}
	if err := b.fleet.Close(); err != nil || !b.app.closed {
		t.Errorf("Close = %v, App closed %v", err, b.app.closed)
	}
}
