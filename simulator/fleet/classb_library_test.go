package fleet_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
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
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// briefed is a device that gets unicast messages as soon as it is switched on.
type briefed struct {
	fleet.App
	messages []modem.Down
}

func (b *briefed) PowerUp() ([]modem.Frame, error) {
	frames, err := b.App.PowerUp()
	if err != nil {
		return nil, err
	}
	out := clone(frames)
	for _, m := range b.messages {
		fs, err := modem.Frames(m)
		if err != nil {
			return nil, err
		}
		if frames, err = b.Turn(fs[0]); err != nil {
			return nil, err
		}
		// All but the IDLE_UNTIL of the turn before.
		out = append(out[:len(out)-1], clone(frames)...)
	}
	return out, nil
}

// clone copies frames, which are valid until the next turn.
func clone(frames []modem.Frame) []modem.Frame {
	out := make([]modem.Frame, 0, len(frames))
	for _, f := range frames {
		f.Payload = append([]byte(nil), f.Payload...)
		out = append(out, f)
	}
	return out
}

// TestLibraryInPingSlots: the library in C gets group, fragmentation session and a class B session by TS005 and TS004,
// receives an image in ping slots with a tenth of all frames lost, and closes its slots when it is complete.
func TestLibraryInPingSlots(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	wrapped := func(minor uint8, size int) []byte {
		img, err := mcuboot.Wrap(make([]byte, size), mcuboot.Options{Major: 1, Minor: minor, LoadAddress: 0x21000000})
		must(err)
		return img
	}
	key, err := bundle.GenerateKey()
	must(err)
	public, err := bundle.PublicKey(&key.PublicKey)
	must(err)
	id := device.Identity{Class: 0x1001, Hardware: 3, RootKey: [16]byte{1, 2, 3}, Keys: [2]device.TrustKey{{ID: 1, Public: public}}}
	block, err := bundle.Full(bundle.Target{Class: id.Class, Hardware: id.Hardware, KeyID: 1, Sequence: 1}, wrapped(1, 3000), key)
	must(err)
	const size, periodicity = 100, 3
	enc, err := fragmentation.NewEncoder(block, size, fragmentation.V2)
	must(err)

	begins := airtime.BeaconStart(airtime.GPS(epoch)) + 4*airtime.BeaconPeriod
	mcKey := [16]byte{7}
	var messages []modem.Down
	tell := func(port uint8, payload []byte, err error) {
		t.Helper()
		must(err)
		messages = append(messages, modem.Down{Time: clock(time.Duration(len(messages)+1) * time.Millisecond), Port: port, Group: modem.Unicast, Data: payload})
	}
	b, err := clocksync.AppendCommand(nil, applayer.V2, clocksync.AppTimeAns{}) // its clock is right
	tell(applayer.FPortClockSync, b, err)
	b, err = mcsetup.AppendCommand(nil, applayer.V2, mcsetup.McGroupSetupReq{McAddr: mcAddr, MaxMcFCnt: 1000,
		McKeyEncrypted: mcsetup.EncryptMcKey(mcsetup.McKEKey(mcsetup.McRootKeyFromGenAppKey(id.RootKey)), mcKey)})
	tell(applayer.FPortMcSetup, b, err)
	b, err = datablock.AppendCommand(nil, applayer.V2, datablock.FragSessionSetupReq{NbFrag: uint16(enc.M()), FragSize: size, Padding: uint8(enc.Padding()),
		McGroupBitMask: 1, SessionCnt: 1, MIC: datablock.SessionMIC(datablock.DataBlockIntKey(id.RootKey), 1, 0, [4]byte{}, block)})
	tell(applayer.FPortDataBlock, b, err)
	b, err = mcsetup.AppendCommand(nil, applayer.V2, mcsetup.McClassBSessionReq{SessionTime: uint32(begins / time.Second), Periodicity: periodicity,
		TimeOut: 4, DLFreq: mcFreq, DR: mcDR})
	tell(applayer.FPortMcSetup, b, err)

	w := world.New(epoch)
	loss, err := radio.NewIndependent(1, 0, 0.1)
	must(err)
	medium := radio.NewMedium(w, radio.EU868(), loss)
	ready := map[lorawan.EUI64]bool{}
	f, err := fleet.New(fleet.Config{World: w, Medium: medium,
		Event: func(eui lorawan.EUI64, _ time.Time, e modem.Event) {
			ready[eui] = ready[eui] || e.Step == uint8(diag.StepReady)
		},
		Failed: func(eui lorawan.EUI64, _ time.Time, err error) { t.Errorf("device %s: %v", eui, err) }})
	must(err)
	for i := range 3 {
		host, err := device.NewHost(device.HostConfig{Layout: device.LayoutFor(8192), Image: wrapped(0, 3000), ID: id, PackageVersion: 2})
		must(err)
		_, err = f.Add(fleet.DeviceConfig{EUI: lorawan.EUI64{1, byte(i)}, DataRate: 5, App: &briefed{host, messages}})
		must(err)
	}
	defer f.Close()
	g, err := medium.NewGateway(gateway, nil)
	must(err)
	h := bench{t: t}
	var addr lorawan.DevAddr
	binary.BigEndian.PutUint32(addr[:], mcAddr)
	slot := begins
	sent := 2 * enc.M() // their join requests, which nobody answers, cost them frames as well
	for n := 1; n <= sent; n++ {
		fragment, err := enc.Fragment(nil, n)
		must(err)
		msg, err := datablock.AppendCommand(nil, applayer.V2, datablock.DataFragment{N: uint16(n), Data: fragment})
		must(err)
		raw, err := h.data(lorawan.UnconfirmedDataDown, addr, uint32(n), false, applayer.FPortDataBlock, string(msg),
			mcsetup.McAppSKey(mcKey, mcAddr), mcsetup.McNwkSKey(mcKey, mcAddr)).MarshalBinary()
		must(err)
		slot = airtime.NextPingSlot(mcAddr, slot+1, periodicity)
		at := airtime.UTC(slot)
		w.At(at.Add(-time.Second), "program", func() { must(g.Transmit(radio.Frame{Payload: raw, Frequency: mcFreq, DataRate: mcDR}, at)) })
	}
	must(w.Run(t.Context(), airtime.UTC(slot).Add(10*time.Minute)))
	for _, d := range f.Devices() {
		s := d.Stats()
		if !ready[d.EUI()] || s.MulticastsLost == 0 || s.Multicasts < enc.M() {
			t.Errorf("device %s: image ready: %t, %+v", d.EUI(), ready[d.EUI()], s)
		}
		if heard := s.Multicasts + s.MulticastsLost + s.MulticastsDeaf; heard >= sent {
			t.Errorf("device %s goes on to listen when it is complete: %d of %d frames", d.EUI(), heard, sent)
		}
	}
}
