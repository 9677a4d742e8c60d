package conformance

import (
	"crypto/aes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sower-fuota/sower/simulator/radio"
)

const (
	// statusPerDay is how often a day the profile of the probe asks for its status: each 12 s.
	statusPerDay = 7200
	probeFreq    = 868_100_000
	probeDR      = 5
)

// probe is a device that does what it is told and answers no MAC command by itself: LoRaWAN 1.0.4, OTAA, class A.
type probe struct {
	s       *suite
	eui     lorawan.EUI64
	station *radio.Station

	nonce    lorawan.DevNonce
	joined   bool
	addr     lorawan.DevAddr
	nwk, app lorawan.AES128Key
	fCnt     uint32
	asked    int      // DevStatusReq received
	heard    []string // messages received
}

func (s *suite) newProbe() (*probe, error) {
	p := &probe{s: s}
	binary.BigEndian.PutUint64(p.eui[:], radio.Hash(s.Seed, 3)|1<<57)
	s.devices = append(s.devices, p.eui) // its events count, too
	var err error
	p.station, err = s.medium.NewStation(p.eui, p)
	return p, err
}

// transmit sends a frame and opens both windows: a server on a busy machine misses the first.
func (p *probe) transmit(phy lorawan.PHYPayload, key radio.Key, delay time.Duration) error {
	payload, err := phy.MarshalBinary()
	if err != nil {
		return err
	}
	key.Device = p.eui
	end, err := p.station.Transmit(radio.Frame{Payload: payload, Frequency: probeFreq, DataRate: probeDR, Key: key})
	if err != nil {
		return err
	}
	rx2Freq, rx2DR := p.s.medium.Plan().Region.RX2()
	for _, w := range []radio.Window{{From: end.Add(delay), Frequency: probeFreq, DataRate: probeDR}, {From: end.Add(delay + time.Second), Frequency: rx2Freq, DataRate: rx2DR}} {
		w.From, w.Until = w.From.Add(-20*time.Millisecond), w.From.Add(500*time.Millisecond)
		p.station.Listen(w)
	}
	return nil
}

// join asks for a session and waits for it.
func (p *probe) join() error {
	for range 5 {
		p.nonce++
		phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.JoinRequest}, MACPayload: &lorawan.JoinRequestPayload{DevEUI: p.eui, DevNonce: p.nonce}}
		if err := phy.SetUplinkJoinMIC(appKey); err != nil {
			return err
		}
		if err := p.transmit(phy, radio.Key{Kind: radio.JoinRequest, Counter: uint32(p.nonce)}, 5*time.Second); err != nil {
			return err
		}
		if err := p.s.pass(9 * time.Second); err != nil || p.joined {
			return err
		}
	}
	return errors.New("the probe could not join")
}

// send sends a message with MAC commands and lets d go by.
func (p *probe) send(d time.Duration, commands ...lorawan.Payload) error {
	port := uint8(2)
	phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataUp}, MACPayload: &lorawan.MACPayload{
		FHDR: lorawan.FHDR{DevAddr: p.addr, FCnt: p.fCnt, FOpts: commands}, FPort: &port, FRMPayload: []lorawan.Payload{&lorawan.DataPayload{Bytes: []byte("probe")}}}}
	if err := phy.EncryptFRMPayload(p.app); err != nil {
		return err
	}
	if err := phy.SetUplinkDataMIC(lorawan.LoRaWAN1_0, 0, 0, 0, p.nwk, p.nwk); err != nil {
		return err
	}
	key := radio.Key{Kind: radio.Uplink, Session: 1, Counter: p.fCnt}
	p.fCnt++
	if err := p.transmit(phy, key, time.Second); err != nil {
		return err
	}
	return p.s.pass(d)
}

// tell answers DevStatusReq.
func (p *probe) tell(battery uint8, margin int8) error {
	return p.send(4*time.Second, &lorawan.MACCommand{CID: lorawan.DevStatusAns, Payload: &lorawan.DevStatusAnsPayload{Battery: battery, Margin: margin}})
}

// FrameKey implements [radio.Receiver].
func (p *probe) FrameKey(f radio.Frame) (radio.Key, bool) {
	switch lorawan.MType(f.Payload[0] >> 5) {
	case lorawan.JoinAccept:
		return radio.Key{Device: p.eui, Kind: radio.JoinAccept, Counter: uint32(p.nonce)}, !p.joined
	case lorawan.UnconfirmedDataDown, lorawan.ConfirmedDataDown:
		mine := len(f.Payload) >= 12 && binary.LittleEndian.Uint32(f.Payload[1:]) == binary.BigEndian.Uint32(p.addr[:])
		return radio.Key{Device: p.eui, Kind: radio.Downlink, Session: 1, Counter: uint32(binary.LittleEndian.Uint16(f.Payload[6:]))}, p.joined && mine
	}
	return radio.Key{}, false
}

// LoseFrame implements [radio.Receiver].
func (*probe) LoseFrame(radio.Frame, bool) {}

// ReceiveFrame implements [radio.Receiver]. What is not understood was not received.
func (p *probe) ReceiveFrame(f radio.Frame, _ radio.Signal) {
	var phy lorawan.PHYPayload
	if err := phy.UnmarshalBinary(f.Payload); err != nil {
		return
	}
	if !p.joined {
		p.accept(phy)
		return
	}
	mac, ok := phy.MACPayload.(*lorawan.MACPayload)
	if !ok || phy.DecodeFOptsToMACCommands() != nil {
		return
	}
	list := mac.FHDR.FOpts
	if mac.FPort != nil {
		key := p.app
		if *mac.FPort == 0 {
			key = p.nwk
		}
		if phy.DecryptFRMPayload(key) != nil {
			return
		}
		list = slices.Concat(list, mac.FRMPayload)
	}
	for _, item := range list {
		switch item := item.(type) {
		case *lorawan.MACCommand:
			if item.CID == lorawan.DevStatusReq {
				p.asked++
			}
		case *lorawan.DataPayload:
			p.heard = append(p.heard, string(item.Bytes))
		}
	}
}

func (p *probe) accept(phy lorawan.PHYPayload) {
	if phy.DecryptJoinAcceptPayload(appKey) != nil {
		return
	}
	a, ok := phy.MACPayload.(*lorawan.JoinAcceptPayload)
	if valid, err := phy.ValidateDownlinkJoinMIC(lorawan.JoinRequestType, lorawan.EUI64{}, p.nonce, appKey); !ok || err != nil || !valid {
		return
	}
	p.addr, p.joined = a.DevAddr, true
	for kind, key := range map[byte]*lorawan.AES128Key{1: &p.nwk, 2: &p.app} {
		in := [16]byte{kind, byte(a.JoinNonce), byte(a.JoinNonce >> 8), byte(a.JoinNonce >> 16), a.HomeNetID[2], a.HomeNetID[1], a.HomeNetID[0], byte(p.nonce), byte(p.nonce >> 8)}
		block, err := aes.NewCipher(appKey[:])
		if err != nil {
			panic("conformance: internal error: " + err.Error()) // the key has 16 bytes
		}
		block.Encrypt(key[:], in[:])
	}
}

// checkStatus makes a profile that asks for the status, and a device in it.
func (s *suite) checkStatus() (err error) {
	p, err := s.newProbe()
	if err != nil {
		return err
	}
	profile, err := api.NewDeviceProfileServiceClient(s.Conn).Create(s.ctx, &api.CreateDeviceProfileRequest{DeviceProfile: &api.DeviceProfile{
		TenantId: s.site.Tenant, Name: "conformance status", Region: common.Region_EU868, MacVersion: common.MacVersion_LORAWAN_1_0_4,
		RegParamsRevision: common.RegParamsRevision_RP002_1_0_3, AdrAlgorithmId: "default", SupportsOtaa: true, UplinkInterval: 60, DeviceStatusReqInterval: statusPerDay}})
	if err != nil {
		return err
	}
	defer func() { // with the device
		_, gone := api.NewDeviceProfileServiceClient(s.Conn).Delete(s.ctx, &api.DeleteDeviceProfileRequest{Id: profile.Id})
		err = errors.Join(err, gone)
	}()
	device := &api.Device{DevEui: p.eui.String(), Name: "probe", Description: "words", ApplicationId: s.site.Application, DeviceProfileId: profile.Id,
		JoinEui: lorawan.EUI64{}.String(), Tags: map[string]string{"a": "1", "b": "2"}, Variables: map[string]string{"v": "1"}}
	if _, err := s.dev().Create(s.ctx, &api.CreateDeviceRequest{Device: device}); err != nil {
		return err
	}
	if _, err := s.dev().CreateKeys(s.ctx, &api.CreateDeviceKeysRequest{DeviceKeys: &api.DeviceKeys{DevEui: p.eui.String(),
		NwkKey: fmt.Sprintf("%x", appKey[:]), AppKey: strings.Repeat("0", 32), GenAppKey: fmt.Sprintf("%x", genKey[:])}}); err != nil {
		return err
	}
	if err := p.join(); err != nil {
		return err
	}
	s.takeEvents("status")
	if err := s.record("record before any answer", p, "none"); err != nil {
		return err
	}
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	s.expect("asked with the first downlink", p.asked, 1)
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	s.expect("not asked again at once", p.asked, 1)
	for _, tt := range []struct {
		battery       uint8
		margin        int8
		event, record string
	}{
		{128, -7, "-7 dB, 50.39 %, external false, unavailable false", "-7 dB, 50.39 %, external false"},
		{0, 20, "20 dB, 0.00 %, external true, unavailable false", "20 dB, -1.00 %, external true"},
		{255, 0, "0 dB, 0.00 %, external false, unavailable true", "0 dB, -1.00 %, external false"},
		{254, 31, "31 dB, 100.00 %, external false, unavailable false", "31 dB, 100.00 %, external false"},
	} {
		if err := p.tell(tt.battery, tt.margin); err != nil {
			return err
		}
		var got []string
		for _, e := range s.takeEvents("status") {
			var m struct {
				Margin                  int
				BatteryLevel            float64
				ExternalPowerSource     bool
				BatteryLevelUnavailable bool
			}
			if err := json.Unmarshal(e.data, &m); err != nil {
				return err
			}
			got = append(got, fmt.Sprintf("%d dB, %.2f %%, external %v, unavailable %v", m.Margin, m.BatteryLevel, m.ExternalPowerSource, m.BatteryLevelUnavailable))
		}
		s.expect(fmt.Sprintf("battery %d: event", tt.battery), strings.Join(got, " and "), tt.event)
		if err := s.record(fmt.Sprintf("battery %d: record", tt.battery), p, tt.record); err != nil {
			return err
		}
	}
	// An interval has passed since the first question.
	s.expect("asked again after the interval", p.asked >= 2 && p.asked <= 3, true)
	return s.changes(p, device)
}

// record expects what the lists of the server say of the status of a device.
func (s *suite) record(what string, p *probe, want string) error {
	one, err := s.dev().Get(s.ctx, &api.GetDeviceRequest{DevEui: p.eui.String()})
	if err != nil {
		return err
	}
	list, err := s.dev().List(s.ctx, &api.ListDevicesRequest{ApplicationId: s.site.Application, Limit: 100, OrderBy: api.ListDevicesRequest_DEV_EUI})
	if err != nil {
		return err
	}
	text := func(st *api.DeviceStatus) string {
		if st == nil {
			return "none"
		}
		return fmt.Sprintf("%d dB, %.2f %%, external %v", st.Margin, st.BatteryLevel, st.ExternalPowerSource)
	}
	s.expect(what, text(one.DeviceStatus), want)
	for _, d := range list.Result {
		if d.DevEui == p.eui.String() {
			s.expect("the list says the same", text(d.DeviceStatus) == text(one.DeviceStatus), true)
		}
	}
	return nil
}

// changes replaces what can be replaced of the probe.
func (s *suite) changes(p *probe, d *api.Device) error {
	get := func() (*api.GetDeviceResponse, error) {
		return s.dev().Get(s.ctx, &api.GetDeviceRequest{DevEui: p.eui.String()})
	}
	before, err := get()
	if err != nil {
		return err
	}
	update := func(what string, want codes.Code, change func(*api.Device)) {
		next := &api.Device{DevEui: d.DevEui, Name: d.Name, ApplicationId: d.ApplicationId, DeviceProfileId: d.DeviceProfileId, JoinEui: d.JoinEui}
		change(next)
		_, err := s.dev().Update(s.ctx, &api.UpdateDeviceRequest{Device: next})
		s.expect("update: "+what, status.Code(err), want)
	}
	const missing = "00000000-0000-4000-8000-000000000000"
	_, err = s.dev().Update(s.ctx, &api.UpdateDeviceRequest{})
	s.expect("update: no device", status.Code(err), codes.InvalidArgument)
	update("malformed EUI", codes.Internal, func(d *api.Device) { d.DevEui = "zz" })
	update("malformed application", codes.InvalidArgument, func(d *api.Device) { d.ApplicationId = "x" })
	update("device missing", codes.NotFound, func(d *api.Device) { d.DevEui = "0102030405060708" })
	update("application missing", codes.Internal, func(d *api.Device) { d.ApplicationId = missing })
	update("profile missing", codes.Internal, func(d *api.Device) { d.DeviceProfileId = missing })
	update("no name", codes.InvalidArgument, func(d *api.Device) { d.Name = "" })
	update("a tag", codes.OK, func(d *api.Device) { d.Tags = map[string]string{"a": "3"} })
	after, err := get()
	if err != nil {
		return err
	}
	s.expect("tags", after.Device.Tags, map[string]string{"a": "3"})
	s.expect("what was not said is gone", after.Device.Description == "" && len(after.Device.Variables) == 0, true)
	s.expect("the status stays", after.DeviceStatus.GetBatteryLevel() == before.DeviceStatus.GetBatteryLevel(), true)
	s.takeEvents("up")
	if _, err := s.dev().Enqueue(s.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{DevEui: p.eui.String(), FPort: 10, Data: []byte("still there")}}); err != nil {
		return err
	}
	update("the same tag", codes.OK, func(d *api.Device) { d.Tags = map[string]string{"a": "3"} })
	p.heard = nil
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	s.expect("session and queue stay", strings.Join(p.heard, ", "), "still there")
	var tags []string
	for _, e := range s.takeEvents("up") {
		var m struct {
			DeviceInfo struct{ Tags map[string]string }
		}
		if err := json.Unmarshal(e.data, &m); err != nil {
			return err
		}
		if e.device == len(s.devices)-1 {
			tags = append(tags, fmt.Sprint(m.DeviceInfo.Tags))
		}
	}
	s.expect("tags of the next event", strings.Join(tags, ", "), "map[a:3]")
	return nil
}
