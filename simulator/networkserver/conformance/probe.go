package conformance

import (
	"crypto/aes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"

	"github.com/sower-fuota/sower/simulator/radio"
)

const (
	probeFreq = 868_100_000
	probeDR   = 5
)

// probe is a device that does what it is told and answers no MAC command by itself: LoRaWAN 1.0.4, OTAA, class A.
type probe struct {
	s       *suite
	eui     lorawan.EUI64
	profile string
	device  *api.Device // as it was made
	station *radio.Station

	nonce    lorawan.DevNonce
	joined   bool
	addr     lorawan.DevAddr
	nwk, app lorawan.AES128Key
	fCnt     uint32
	flags    lorawan.FCtrl // of what is sent
	asked    int           // DevStatusReq received
	heard    []string      // messages received
}

// newProbe makes a device with a profile of its own.
func (s *suite) newProbe(name string, change func(*api.DeviceProfile)) (p *probe, err error) {
	p = &probe{s: s}
	binary.BigEndian.PutUint64(p.eui[:], radio.Hash(s.Seed, 3, uint64(len(s.devices)))|1<<57)
	if p.station, err = s.medium.NewStation(p.eui, p); err != nil {
		return nil, err
	}
	dp := &api.DeviceProfile{TenantId: s.site.Tenant, Name: "conformance " + name, Region: common.Region_EU868, MacVersion: common.MacVersion_LORAWAN_1_0_4,
		RegParamsRevision: common.RegParamsRevision_RP002_1_0_3, AdrAlgorithmId: "default", SupportsOtaa: true, UplinkInterval: 60}
	if change != nil {
		change(dp)
	}
	r, err := api.NewDeviceProfileServiceClient(s.Conn).Create(s.ctx, &api.CreateDeviceProfileRequest{DeviceProfile: dp})
	if err != nil {
		return nil, err
	}
	p.profile = r.Id
	p.device = &api.Device{DevEui: p.eui.String(), Name: "probe", Description: "words", ApplicationId: s.site.Application, DeviceProfileId: r.Id,
		JoinEui: lorawan.EUI64{}.String(), Tags: map[string]string{"a": "1", "b": "2"}, Variables: map[string]string{"v": "1"}}
	if _, err = s.dev().Create(s.ctx, &api.CreateDeviceRequest{Device: p.device}); err == nil {
		_, err = s.dev().CreateKeys(s.ctx, &api.CreateDeviceKeysRequest{DeviceKeys: &api.DeviceKeys{DevEui: p.eui.String(),
			NwkKey: fmt.Sprintf("%x", appKey[:]), AppKey: strings.Repeat("0", 32), GenAppKey: fmt.Sprintf("%x", genKey[:])}})
	}
	if err != nil {
		return nil, errors.Join(err, p.remove())
	}
	s.watch(p.eui)
	return p, nil
}

// remove deletes the profile, and the device with it.
func (p *probe) remove() error {
	_, err := api.NewDeviceProfileServiceClient(p.s.Conn).Delete(p.s.ctx, &api.DeleteDeviceProfileRequest{Id: p.profile})
	return err
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
		if err := p.ask(); err != nil || p.joined {
			return err
		}
	}
	return errors.New("the probe could not join")
}

// ask sends one join request and waits for the answer.
func (p *probe) ask() error {
	p.nonce++
	phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.JoinRequest}, MACPayload: &lorawan.JoinRequestPayload{DevEUI: p.eui, DevNonce: p.nonce}}
	if err := phy.SetUplinkJoinMIC(appKey); err != nil {
		return err
	}
	if err := p.transmit(phy, radio.Key{Kind: radio.JoinRequest, Counter: uint32(p.nonce)}, 5*time.Second); err != nil {
		return err
	}
	return p.s.pass(9 * time.Second)
}

// send sends a message with MAC commands and lets d go by.
func (p *probe) send(d time.Duration, commands ...lorawan.Payload) error {
	return p.sendAs(lorawan.UnconfirmedDataUp, d, commands...)
}

func (p *probe) sendAs(kind lorawan.MType, d time.Duration, commands ...lorawan.Payload) error {
	port := uint8(2)
	phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: kind}, MACPayload: &lorawan.MACPayload{
		FHDR: lorawan.FHDR{DevAddr: p.addr, FCnt: p.fCnt, FCtrl: p.flags, FOpts: commands}, FPort: &port, FRMPayload: []lorawan.Payload{&lorawan.DataPayload{Bytes: []byte("probe")}}}}
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
