//go:build cgo

package experiment

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/foreign"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// member is the software of a device that is given a multicast group, a class C session and a fragmentation session as
// soon as it has joined, and that sends nothing but its join request, so that it is never deaf.
type member struct {
	fleet.App
	given []modem.Frame // to the MAC
	setup modem.Frame   // to the software
	whole func([]modem.Frame) bool

	ready bool
	sent  int // fragments when the block was complete; 0: it is not
}

func (m *member) Turn(f modem.Frame) ([]modem.Frame, error) {
	said, err := m.App.Turn(f)
	if err == nil && f.Type == modem.TypeDown && m.sent == 0 && m.whole(said) {
		m.sent = int(binary.LittleEndian.Uint16(f.Payload[11:]) & fragmentation.MaxIndex) // behind time, port, group and CID
	}
	out := silence(nil, said)
	if err != nil || f.Type != modem.TypeLink || m.ready {
		return out, err
	}
	m.ready = true
	if said, err = m.App.Turn(m.setup); err != nil {
		return nil, err
	}
	return silence(append(silence(out[:0:0], out[:len(out)-1]), m.given...), said), nil
}

// silence appends frames without uplinks.
func silence(dst, frames []modem.Frame) []modem.Frame {
	for _, f := range frames {
		if f.Type != modem.TypeUp {
			f.Payload = append([]byte(nil), f.Payload...) // valid until the next turn only
			dst = append(dst, f)
		}
	}
	return dst
}

// TestLayersAgree sends one block to a fleet three times over the same losses: as ranks, as frames in virtual time to
// devices in Go, and as frames in virtual time to the device library in C. Every device is complete after the same
// fragment in all of them (V17).
func TestLayersAgree(t *testing.T) {
	devices := 40
	if proof {
		devices = 1000
	}
	const m, r, interval = 60, 30, 10 * time.Second
	text := fmt.Sprintf("devices = %d\n[block]\nfragments = %d\n[air]\ninterval = %q\n[loss]\nmodel = \"gilbert-elliott\"\np = 0.3\nburst = 3\n[policy]\nparity = %d\n", devices, m, interval, r)
	sim, err := NewSimulator(points(t, text)[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	ranks, err := sim.Run(0)
	if err != nil {
		t.Fatal(err)
	}
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	lib := newLibrary(t, key, applayer.V1, m, r)
	inGo := func() (fleet.App, func([]modem.Frame) bool) {
		d, err := foreign.New(foreign.Config{Stack: foreign.BasicsModem, MaxFragments: m})
		if err != nil {
			t.Fatal(err)
		}
		return d, func([]modem.Frame) bool { return d.Block(0) != nil }
	}
	inC := func() (fleet.App, func([]modem.Frame) bool) {
		return lib.host(), func(said []modem.Frame) bool {
			for _, f := range said {
				if f.Type == modem.TypeEvent && f.Payload[0] >= 4 { // VERIFY
					return true
				}
			}
			return false
		}
	}
	for name, app := range map[string]func() (fleet.App, func([]modem.Frame) bool){"Go": inGo, "C": inC} {
		sent := broadcastFrames(t, sim, lib, devices, interval, app)
		counts := map[int]int{}
		for _, n := range sent {
			counts[n]++
		}
		if counts[0] != ranks.Devices-ranks.Complete {
			t.Errorf("%s: %d devices are incomplete, by rank %d", name, counts[0], ranks.Devices-ranks.Complete)
		}
		for _, d := range ranks.Done {
			if counts[d[0]] != d[1] {
				t.Errorf("%s: %d devices complete after %d fragments, by rank %d", name, counts[d[0]], d[0], d[1])
			}
		}
	}
	if ranks.Complete < devices/10 || ranks.Complete == devices {
		t.Errorf("%d of %d devices complete: too one-sided to tell", ranks.Complete, devices)
	}
}

// broadcastFrames sends the fragments of a block as frames on the air, and returns for each device after how many of
// them it was complete.
func broadcastFrames(t *testing.T, sim *Simulator, lib *library, devices int, interval time.Duration, app func() (fleet.App, func([]modem.Frame) bool)) []int {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const frequency, dataRate, session = 869_525_000, 5, 2 * time.Hour // after the start
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	begin := start.Add(session)
	nwkSKey, appSKey, appKey := lorawan.AES128Key{1}, lorawan.AES128Key{2}, lorawan.AES128Key{3}
	addr := lorawan.DevAddr{0, 1, 2, 3}

	w := world.New(start)
	quiet, err := radio.NewBernoulli(1, 0)
	must(err)
	medium := radio.NewMedium(w, radio.EU868(), radio.AsProcess(quiet, sim.loss, begin))
	f, err := fleet.New(fleet.Config{World: w, Medium: medium, Failed: func(eui lorawan.EUI64, at time.Time, err error) { t.Errorf("%s at %s: %v", eui, at, err) }})
	must(err)
	defer f.Close()
	var gateway *radio.Gateway
	gateway, err = medium.NewGateway(lorawan.EUI64{}, func(up radio.Frame, _ radio.Signal) { // lets devices join
		var phy lorawan.PHYPayload
		must(phy.UnmarshalBinary(up.Payload))
		req, ok := phy.MACPayload.(*lorawan.JoinRequestPayload)
		if !ok {
			return
		}
		accept := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.JoinAccept}, MACPayload: &lorawan.JoinAcceptPayload{
			DevAddr: lorawan.DevAddr{1, req.DevEUI[5], req.DevEUI[6], req.DevEUI[7]}, RXDelay: 1}}
		must(accept.SetDownlinkJoinMIC(lorawan.JoinRequestType, req.JoinEUI, req.DevNonce, appKey))
		must(accept.EncryptJoinAcceptPayload(appKey))
		raw, err := accept.MarshalBinary()
		must(err)
		_ = gateway.Transmit(radio.Frame{Payload: raw, Frequency: up.Frequency, DataRate: up.DataRate}, up.End.Add(5*time.Second)) // or they try again
	})
	must(err)
	gps := uint64(airtime.GPS(begin) / time.Millisecond)
	given := []modem.Frame{
		lib.frame(modem.SetMcGroup{Defined: true, Addr: binary.BigEndian.Uint32(addr[:]), AppSKey: appSKey, NwkSKey: nwkSKey, MaxFCnt: 1 << 16}),
		lib.frame(modem.Session{Class: 'C', DR: dataRate, Frequency: frequency, Start: gps - 60_000, End: gps + 86_400_000}),
	}
	var members []*member
	for d := range devices {
		software, whole := app()
		dev := &member{App: software, given: given, setup: lib.down(applayer.FPortDataBlock, lib.setup(1)), whole: whole}
		members = append(members, dev)
		var eui lorawan.EUI64
		binary.BigEndian.PutUint64(eui[:], uint64(d))
		_, err := f.Add(fleet.DeviceConfig{EUI: eui, AppKey: appKey, DataRate: 5, PowerUp: time.Duration(d) * 3 * time.Second, App: dev})
		must(err)
	}
	for i, msg := range lib.fragments {
		port := applayer.FPortDataBlock
		phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataDown}, MACPayload: &lorawan.MACPayload{
			FHDR: lorawan.FHDR{DevAddr: addr, FCnt: uint32(i)}, FPort: &port, FRMPayload: []lorawan.Payload{&lorawan.DataPayload{Bytes: msg}}}}
		must(phy.EncryptFRMPayload(appSKey))
		must(phy.SetDownlinkDataMIC(lorawan.LoRaWAN1_0, 0, nwkSKey))
		raw, err := phy.MarshalBinary()
		must(err)
		must(w.Run(t.Context(), begin.Add(time.Duration(i)*interval)))
		must(gateway.Transmit(radio.Frame{Payload: raw, Frequency: frequency, DataRate: dataRate}, w.Now()))
	}
	must(w.Run(t.Context(), w.Now().Add(interval)))
	var sent []int
	for d, dev := range f.Devices() { // in the order of their EUI
		if s := dev.Stats(); s.Multicasts+s.MulticastsLost != len(lib.fragments) || s.MulticastsDeaf != 0 {
			t.Fatalf("device %d: %+v, want %d frames received or lost", d, s, len(lib.fragments))
		}
		sent = append(sent, members[d].sent)
	}
	return sent
}
