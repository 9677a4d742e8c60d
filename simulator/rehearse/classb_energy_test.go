package rehearse_test

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// listener opens one session and says nothing. It is a fleet.App.
type listener struct{ boot []modem.Message }

func (l *listener) PowerUp() ([]modem.Frame, error) {
	return modem.Frames(append(l.boot, modem.IdleUntil{Time: modem.Never})...)
}

func (l *listener) Turn(modem.Frame) ([]modem.Frame, error) {
	return modem.Frames(modem.IdleUntil{Time: modem.Never})
}

func (l *listener) Close() error { return nil }

// TestClassBEnergy compares the energy in the plan with that of a simulated device that hears all of it.
func TestClassBEnergy(t *testing.T) {
	t.Parallel()
	for _, rate := range []int{3, 5} {
		for _, periodicity := range []uint8{0, 2, 7} {
			snr := 20.0
			req := plan.Request{Campaign: "c", Start: time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC),
				Gateways: map[airtime.Region][]network.EUI64{airtime.EU868: {{0xaa}}}, Class: network.ClassB, Periodicity: &periodicity, DataRate: rate,
				Updates: []plan.Update{{Name: "raw", Block: make([]byte, 6000), Raw: &plan.RawBlock{}}},
				Waves:   []plan.Wave{{Name: "all", Members: []plan.Member{{EUI: network.EUI64{1}, Region: airtime.EU868, SNR: &snr, Loss: 0.1}}}}, Receive: 1}
			book, err := plan.NewBook(1)
			if err != nil {
				t.Fatal(err)
			}
			schedule, problems := plan.Fleet(book, req)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			s := schedule.Sessions[0]
			if got, want := simulate(t, s.Plan, s.Opens), s.Energy; math.Abs(got-want) > 0.02*want {
				t.Errorf("DR%d, periodicity %d: %.1f s of listening are planned, the device listens for %.1f s", rate, periodicity, 3600*want, 3600*got)
			}
		}
	}
}

// simulate returns for how many hours a device listens while a plan is carried out from a beacon on.
func simulate(t *testing.T, p plan.Plan, opens time.Time) float64 {
	t.Helper()
	const addr = 0x01020304
	w := world.New(opens.Add(-time.Minute))
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	medium := radio.NewMedium(w, radio.EU868(), loss)
	f, err := fleet.New(fleet.Config{World: w, Medium: medium})
	if err != nil {
		t.Fatal(err)
	}
	var gateway *radio.Gateway
	gateway, err = medium.NewGateway(lorawan.EUI64{0xaa}, func(f radio.Frame, _ radio.Signal) {
		phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.JoinAccept}, MACPayload: &lorawan.JoinAcceptPayload{}}
		if err := phy.SetDownlinkJoinMIC(lorawan.JoinRequestType, lorawan.EUI64{}, lorawan.DevNonce(f.Key.Counter), lorawan.AES128Key{}); err != nil {
			t.Error(err)
		}
		if err := phy.EncryptJoinAcceptPayload(lorawan.AES128Key{}); err != nil {
			t.Error(err)
		}
		accept, err := phy.MarshalBinary()
		if err != nil {
			t.Error(err)
		}
		if err := gateway.Transmit(radio.Frame{Payload: accept, Frequency: f.Frequency, DataRate: f.DataRate}, f.End.Add(medium.Plan().JoinDelay)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	ms := func(at time.Time) uint64 { return uint64(airtime.GPS(at) / time.Millisecond) }
	app := &listener{boot: []modem.Message{modem.SetMcGroup{ID: 0, Defined: true, Addr: addr, MaxFCnt: 1 << 16},
		modem.Session{ID: 0, Class: 'B', Periodicity: p.ClassB.Periodicity, DR: uint8(p.DataRate), Frequency: p.Frequency,
			Start: ms(opens), End: ms(opens.Add(p.Duration))}}}
	d, err := f.Add(fleet.DeviceConfig{EUI: lorawan.EUI64{1}, DataRate: 5, App: app})
	if err != nil {
		t.Fatal(err)
	}
	// The first are the canary and the status requests, of 2 bytes.
	at := opens.Add(p.Guard)
	for n := range p.M + p.Parity + 3 {
		size := p.FragSize + 3
		if n < 3 {
			size = 2
		}
		port := uint8(applayer.FPortDataBlock)
		phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataDown}, MACPayload: &lorawan.MACPayload{
			FHDR: lorawan.FHDR{FCnt: uint32(n)}, FPort: &port, FRMPayload: []lorawan.Payload{&lorawan.DataPayload{Bytes: make([]byte, size)}}}}
		binary.BigEndian.PutUint32(phy.MACPayload.(*lorawan.MACPayload).FHDR.DevAddr[:], addr)
		if err := phy.EncryptFRMPayload(lorawan.AES128Key{}); err != nil {
			t.Fatal(err)
		}
		if err := phy.SetDownlinkDataMIC(lorawan.LoRaWAN1_0, 0, lorawan.AES128Key{}); err != nil {
			t.Fatal(err)
		}
		raw, err := phy.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		slot := airtime.UTC(airtime.NextPingSlot(addr, airtime.GPS(at)+1, p.ClassB.Periodicity))
		w.At(slot.Add(-time.Second), "program", func() {
			if err := gateway.Transmit(radio.Frame{Payload: raw, Frequency: p.Frequency, DataRate: p.DataRate}, slot); err != nil {
				t.Error(err)
			}
		})
		if at = at.Add(p.Pace); at.Before(slot) {
			at = slot
		}
	}
	w.At(opens.Add(p.Duration), "the end", func() {})
	if err := w.Run(t.Context(), opens.Add(p.Duration)); err != nil {
		t.Fatal(err)
	}
	if st := d.Stats(); st.Multicasts != p.M+p.Parity+3 {
		t.Errorf("%+v, want %d frames", st, p.M+p.Parity+3)
	}
	x := d.Phases()
	return (x.Session + x.Beacons).Hours()
}
