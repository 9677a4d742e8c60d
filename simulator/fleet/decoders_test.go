package fleet_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/foreign"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// member is a device that has its group, its class C session and its fragmentation session from the start.
type member struct {
	*foreign.Device
	setup datablock.FragSessionSetupReq
}

func (m *member) PowerUp() ([]modem.Frame, error) {
	if _, err := m.Device.PowerUp(); err != nil {
		return nil, err
	}
	msg, err := datablock.AppendCommand(nil, applayer.V1, m.setup)
	if err != nil {
		return nil, err
	}
	down := append(binary.LittleEndian.AppendUint64(nil, 1), applayer.FPortDataBlock, modem.Unicast)
	if _, err := m.Turn(modem.Frame{Type: modem.TypeDown, Payload: append(down, msg...)}); err != nil {
		return nil, err
	}
	gps := uint64(airtime.GPS(epoch) / time.Millisecond)
	return encode([]modem.Message{
		modem.SetMcGroup{Defined: true, Addr: mcAddr, AppSKey: mcApp, NwkSKey: mcNwk, MaxFCnt: 1 << 20},
		modem.Session{Class: 'C', DR: 5, Frequency: mcFreq, Start: gps, End: gps + 1e9},
		idle,
	}), nil
}

// transfer sends a block of 50 kB, of fragments of 237 bytes and parity in order, to so many devices that lose 10 %, as
// PHYPayloads with MIC and encryption over the simulated radio. Every device must have reassembled the block.
func transfer(tb testing.TB, devices int) (deliveries int) {
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	const size, parity = 237, 90
	data := make([]byte, 50_000)
	for i := range data {
		data[i] = byte(i>>3) ^ byte(i>>11)
	}
	m := (len(data) + size - 1) / size
	padding := m*size - len(data)
	enc, err := fragmentation.NewEncoder(append(bytes.Clone(data), make([]byte, padding)...), size, fragmentation.V1)
	must(err)
	w := world.New(epoch)
	loss, err := radio.NewIndependent(1, 0, 0.1)
	must(err)
	medium := radio.NewMedium(w, radio.EU868(), loss)
	f, err := fleet.New(fleet.Config{World: w, Medium: medium})
	must(err)
	var members []*member
	for i := range devices {
		d, err := foreign.New(foreign.Config{Stack: foreign.BasicsModem, MaxFragments: 1000})
		must(err)
		dev := &member{d, datablock.FragSessionSetupReq{McGroupBitMask: 1, NbFrag: uint16(m), FragSize: size, Padding: uint8(padding)}}
		members = append(members, dev)
		_, err = f.Add(fleet.DeviceConfig{EUI: lorawan.EUI64{1, byte(i), byte(i >> 8)}, DataRate: 5, App: dev})
		must(err)
	}
	g, err := medium.NewGateway(gateway, nil)
	must(err)
	at := time.Second
	must(w.Run(tb.Context(), epoch.Add(at)))
	var addr lorawan.DevAddr
	binary.BigEndian.PutUint32(addr[:], mcAddr)
	h := bench{t: tb}
	for n := 1; n <= m+parity; n++ {
		fragment, err := enc.Fragment(nil, n)
		must(err)
		msg, err := datablock.AppendCommand(nil, applayer.V1, datablock.DataFragment{N: uint16(n), Data: fragment})
		must(err)
		raw, err := h.data(lorawan.UnconfirmedDataDown, addr, uint32(n), false, applayer.FPortDataBlock, string(msg), mcApp, mcNwk).MarshalBinary()
		must(err)
		at += 500 * time.Millisecond
		must(g.Transmit(radio.Frame{Payload: raw, Frequency: mcFreq, DataRate: 5}, epoch.Add(at)))
		must(w.Run(tb.Context(), epoch.Add(at+450*time.Millisecond)))
		deliveries += devices
	}
	for i, d := range members {
		if !bytes.Equal(d.Block(0), data) {
			tb.Fatalf("device %d has no block: %+v", i, f.Devices()[i].Stats())
		}
	}
	return deliveries
}

// TestFleetDecodesABlock: real frames to real decoders; under SOWER_PROOF a thousand devices and 50 kB in less than a
// second of processor time.
func TestFleetDecodesABlock(t *testing.T) {
	devices := 50
	if proof {
		devices = 1000
	}
	began := cpuTime()
	n := transfer(t, devices)
	spent := cpuTime() - began
	t.Logf("50 kB to %d devices, %d deliveries of frames: %.3f s of processor time", devices, n, spent.Seconds())
	if proof && spent > time.Second {
		t.Errorf("%.3f s of processor time, want less than one", spent.Seconds())
	}
}

func BenchmarkTransfer(b *testing.B) {
	began, n := cpuTime(), 0
	for b.Loop() {
		n += transfer(b, 1000)
	}
	spent := (cpuTime() - began).Seconds()
	b.ReportMetric(spent/float64(b.N), "cpu-s")
	b.ReportMetric(float64(n)/spent, "deliveries/cpu-s")
}

// BenchmarkUplinks is the anchor of ns-3: 1000 devices that send ten frames each within 6000 s, of which it computes
// 820 a second.
func BenchmarkUplinks(b *testing.B) {
	uplinks, spent := 0, time.Duration(0)
	for b.Loop() {
		c := newCrowd(b, 1000, 10*time.Minute)
		c.join()
		before, began := c.uplinks, cpuTime()
		c.pass(6000 * time.Second)
		spent += cpuTime() - began
		uplinks += c.uplinks - before
	}
	b.ReportMetric(float64(uplinks)/spent.Seconds(), "uplinks/cpu-s")
}
