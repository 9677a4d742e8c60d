package networkserver_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
)

var abpKeys = struct {
	addr     lorawan.DevAddr
	nwk, app lorawan.AES128Key
}{lorawan.DevAddr{1, 2, 3, 4}, lorawan.AES128Key{7}, lorawan.AES128Key{8}}

// meter is a personalised device that sends each minute and answers DevStatusReq with its next uplink.
type meter struct {
	n       *simnet
	station *radio.Station
	eui     lorawan.EUI64
	battery uint8
	margin  int8
	port0   bool // answers in the payload, on port 0
	classB  bool // says that it has a beacon, and in its first uplink that its ping slots are 8 s apart

	fCnt    uint32
	asked   bool
	answers bool
	log     []string // downlinks
}

// addMeter makes device 1 a meter.
func addMeter(n *simnet, answers bool) *meter {
	n.t.Helper()
	m := &meter{n: n, eui: eui(1), answers: answers}
	_, err := n.device().Activate(n.ctx, &api.ActivateDeviceRequest{DeviceActivation: &api.DeviceActivation{DevEui: m.eui.String(), DevAddr: abpKeys.addr.String(),
		AppSKey: fmt.Sprintf("%x", abpKeys.app[:]), NwkSEncKey: fmt.Sprintf("%x", abpKeys.nwk[:]), SNwkSIntKey: fmt.Sprintf("%x", abpKeys.nwk[:]), FNwkSIntKey: fmt.Sprintf("%x", abpKeys.nwk[:])}})
	if err != nil {
		n.t.Fatal(err)
	}
	if m.station, err = n.medium.NewStation(m.eui, m); err != nil {
		n.t.Fatal(err)
	}
	n.world.At(epoch.Add(time.Second), "meter", m.send)
	return m
}

func (m *meter) send() {
	port := uint8(2)
	mac := &lorawan.MACPayload{FHDR: lorawan.FHDR{DevAddr: abpKeys.addr, FCnt: m.fCnt}, FPort: &port, FRMPayload: []lorawan.Payload{&lorawan.DataPayload{Bytes: []byte("x")}}}
	key := abpKeys.app
	mac.FHDR.FCtrl.ClassB = m.classB
	if m.classB && m.fCnt == 0 {
		mac.FHDR.FOpts = []lorawan.Payload{&lorawan.MACCommand{CID: lorawan.PingSlotInfoReq, Payload: &lorawan.PingSlotInfoReqPayload{Periodicity: 3}}}
	}
	if m.asked && m.answers {
		ans := &lorawan.MACCommand{CID: lorawan.DevStatusAns, Payload: &lorawan.DevStatusAnsPayload{Battery: m.battery, Margin: m.margin}}
		if m.port0 {
			port, key, mac.FRMPayload = 0, abpKeys.nwk, []lorawan.Payload{ans}
		} else {
			mac.FHDR.FOpts = []lorawan.Payload{ans}
		}
	}
	m.asked = false
	phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataUp}, MACPayload: mac}
	for _, err := range []error{phy.EncryptFRMPayload(key), phy.SetUplinkDataMIC(lorawan.LoRaWAN1_0, 0, 0, 0, abpKeys.nwk, abpKeys.nwk)} {
		if err != nil {
			m.n.t.Error(err)
		}
	}
	payload, err := phy.MarshalBinary()
	if err != nil {
		m.n.t.Error(err)
	}
	const frequency = 868100000
	end, err := m.station.Transmit(radio.Frame{Payload: payload, Frequency: frequency, DataRate: 5,
		Key: radio.Key{Device: m.eui, Kind: radio.Uplink, Session: 1, Counter: m.fCnt}})
	if err != nil {
		m.n.t.Error(err)
	}
	m.fCnt++
	m.station.Listen(radio.Window{From: end.Add(990 * time.Millisecond), Until: end.Add(1500 * time.Millisecond), Frequency: frequency, DataRate: 5})
	m.n.world.At(epoch.Add(time.Duration(m.fCnt)*time.Minute), "meter", m.send)
}

func (m *meter) FrameKey(f radio.Frame) (radio.Key, bool) {
	mine := len(f.Payload) >= 12 && binary.BigEndian.Uint32(abpKeys.addr[:]) == binary.LittleEndian.Uint32(f.Payload[1:])
	return radio.Key{Device: m.eui, Kind: radio.Downlink, Session: 1, Counter: uint32(binary.LittleEndian.Uint16(f.Payload[6:]))}, mine
}

func (m *meter) LoseFrame(radio.Frame, bool) { m.log = append(m.log, "lost") }

func (m *meter) ReceiveFrame(f radio.Frame, _ radio.Signal) {
	var phy lorawan.PHYPayload
	if err := phy.UnmarshalBinary(f.Payload); err != nil {
		m.n.t.Error(err)
		return
	}
	if ok, err := phy.ValidateDownlinkDataMIC(lorawan.LoRaWAN1_0, 0, abpKeys.nwk); err != nil || !ok {
		m.n.t.Errorf("MIC of a downlink: %v", err)
	}
	if err := phy.DecodeFOptsToMACCommands(); err != nil {
		m.n.t.Error(err)
	}
	mac := phy.MACPayload.(*lorawan.MACPayload)
	var what []string
	for _, p := range mac.FHDR.FOpts {
		if c, ok := p.(*lorawan.MACCommand); ok {
			what = append(what, c.CID.String())
			m.asked = m.asked || c.CID == lorawan.DevStatusReq
		}
	}
	if mac.FPort != nil {
		what = append(what, fmt.Sprintf("port %d", *mac.FPort))
	}
	if mac.FHDR.FCtrl.FPending {
		what = append(what, "more")
	}
	m.log = append(m.log, strings.Join(what, " "))
}

// metered starts a server whose profile asks for the status so often a day.
func metered(t *testing.T, perDay int, answers bool) (*simnet, *meter) {
	n := start(t, options{configure: func(c *networkserver.Config) {
		c.Profiles[0].StatusRequests = perDay
		c.Devices = append(c.Devices, networkserver.Device{EUI: eui(1), Name: "meter", Application: appID, Profile: profileID})
	}})
	return n, addMeter(n, answers)
}

func (n *simnet) statuses() (out []string) {
	for _, e := range n.of("status") {
		m := e.m.(*integration.StatusEvent)
		out = append(out, fmt.Sprintf("%d dB, %.2f %%, external %v, unavailable %v", m.Margin, m.BatteryLevel, m.ExternalPowerSource, m.BatteryLevelUnavailable))
	}
	return out
}

// The server asks with the first downlink of a session and then once per interval, and tells the answer in an event and
// in its record.
func TestDeviceStatus(t *testing.T) {
	for _, tt := range []struct {
		name    string
		battery uint8
		port0   bool
		event   string
		record  string
	}{
		{"a battery", 128, false, "-7 dB, 50.39 %, external false, unavailable false", "margin -7, external false, battery 50.39"},
		{"full", 254, false, "-7 dB, 100.00 %, external false, unavailable false", "margin -7, external false, battery 100.00"},
		{"almost empty", 1, false, "-7 dB, 0.39 %, external false, unavailable false", "margin -7, external false, battery 0.39"},
		{"external power", 0, false, "-7 dB, 0.00 %, external true, unavailable false", "margin -7, external true, battery -1.00"},
		{"unknown", 255, false, "-7 dB, 0.00 %, external false, unavailable true", "margin -7, external false, battery -1.00"},
		{"on port 0", 128, true, "-7 dB, 50.39 %, external false, unavailable false", "margin -7, external false, battery 50.39"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, m := metered(t, 96, true) // each quarter of an hour
			m.battery, m.margin, m.port0 = tt.battery, -7, tt.port0
			before, err := n.device().Get(n.ctx, &api.GetDeviceRequest{DevEui: m.eui.String()})
			if err != nil || before.DeviceStatus != nil {
				t.Errorf("status before any answer: %v, %v", before.GetDeviceStatus(), err)
			}
			n.run(33 * time.Minute)
			if got := n.statuses(); !slices.Equal(got, []string{tt.event, tt.event, tt.event}) {
				t.Errorf("events %q, want three of %q", got, tt.event)
			}
			list, err := n.device().List(n.ctx, &api.ListDevicesRequest{ApplicationId: appID, Limit: 10})
			if err != nil {
				t.Fatal(err)
			}
			got, err := n.device().Get(n.ctx, &api.GetDeviceRequest{DevEui: m.eui.String()})
			if err != nil {
				t.Fatal(err)
			}
			for what, st := range map[string]*api.DeviceStatus{"List": list.Result[0].DeviceStatus, "Get": got.DeviceStatus} {
				if s := fmt.Sprintf("margin %d, external %v, battery %.2f", st.GetMargin(), st.GetExternalPowerSource(), st.GetBatteryLevel()); s != tt.record {
					t.Errorf("%s: %s, want %s", what, s, tt.record)
				}
			}
		})
	}
}

// A device that does not answer is asked again after the interval, not before; a profile without an interval asks
// nobody.
func TestDeviceStatusWithoutAnswer(t *testing.T) {
	n, m := metered(t, 24, false)
	n.run(125 * time.Minute)
	if len(m.log) != 3 || len(n.of("status")) != 0 {
		t.Errorf("%q and %d events, want three questions and none", m.log, len(n.of("status")))
	}
	n, m = metered(t, 0, true)
	n.run(125 * time.Minute)
	if len(m.log) != 0 {
		t.Errorf("%q, want no question", m.log)
	}
}

// The question goes with a message that leaves room for it, and before one that does not.
func TestDeviceStatusGoesFirst(t *testing.T) {
	n, m := metered(t, 1, false)
	n.enqueue(1, 10, strings.Repeat("x", 242)) // as much as DR5 carries
	n.run(4 * time.Minute)
	if got := []string{"DevStatusReq more", "port 10"}; !slices.Equal(m.log, got) {
		t.Errorf("downlinks %q, want %q", m.log, got)
	}
	if acks := n.of("txack"); len(acks) != 1 {
		t.Errorf("%d txack events, want one of the message", len(acks))
	}
	n, m = metered(t, 1, false)
	n.enqueue(1, 10, "hello")
	n.run(2 * time.Minute)
	if got := []string{"DevStatusReq port 10"}; !slices.Equal(m.log, got) {
		t.Errorf("downlinks %q, want %q", m.log, got)
	}
}

// Update replaces what a client may say of a device, and nothing else.
func TestUpdateDevice(t *testing.T) {
	n, m := metered(t, 96, true)
	m.battery = 128
	n.run(5 * time.Minute)
	dev := n.device()
	n.enqueue(1, 10, "stays")
	get := func() *api.GetDeviceResponse {
		t.Helper()
		r, err := dev.Get(n.ctx, &api.GetDeviceRequest{DevEui: eui(1).String()})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := get()
	change := before.Device
	change.Tags = map[string]string{"firmware_version": "1.1.0"}
	change.Name, change.Description, change.Variables = "new name", "words", map[string]string{"k": "v"}
	if _, err := dev.Update(n.ctx, &api.UpdateDeviceRequest{Device: change}); err != nil {
		t.Fatal(err)
	}
	after := get()
	if d := after.Device; d.Name != "new name" || d.Description != "words" || fmt.Sprint(d.Tags, d.Variables) != "map[firmware_version:1.1.0] map[k:v]" {
		t.Errorf("device %v", d)
	}
	if after.DeviceStatus.GetBatteryLevel() != before.DeviceStatus.GetBatteryLevel() || !after.UpdatedAt.AsTime().After(before.UpdatedAt.AsTime()) || after.LastSeenAt.AsTime() != before.LastSeenAt.AsTime() {
		t.Errorf("before %v, after %v", before, after)
	}
	act, err := dev.GetActivation(n.ctx, &api.GetDeviceActivationRequest{DevEui: eui(1).String()})
	if err != nil || act.DeviceActivation == nil {
		t.Errorf("the session is gone: %v", err)
	}
	q, err := dev.GetQueue(n.ctx, &api.GetDeviceQueueItemsRequest{DevEui: eui(1).String()})
	if err != nil || len(q.Result) != 1 {
		t.Errorf("queue %v, %v", q, err)
	}
	// What is left out is gone; a disabled device is not heard; the tags of events are the new ones.
	n.run(7 * time.Minute)
	up := n.of("up")
	if tags := up[len(up)-1].m.(*integration.UplinkEvent).DeviceInfo.Tags; tags["firmware_version"] != "1.1.0" {
		t.Errorf("tags of an event: %v", tags)
	}
	if _, err := dev.Update(n.ctx, &api.UpdateDeviceRequest{Device: &api.Device{DevEui: eui(1).String(), Name: "x", ApplicationId: otherApp, DeviceProfileId: profileID, IsDisabled: true}}); err != nil {
		t.Fatal(err)
	}
	n.run(10 * time.Minute)
	if d := get().Device; len(d.Tags)+len(d.Variables) != 0 || d.Description != "" || d.ApplicationId != otherApp || !d.IsDisabled {
		t.Errorf("device %v", d)
	}
	if more := len(n.of("up")) - len(up); more != 0 {
		t.Errorf("%d uplinks of a disabled device", more)
	}
	list, err := dev.List(n.ctx, &api.ListDevicesRequest{ApplicationId: otherApp, Limit: 10})
	if err != nil || len(list.Result) != 1 {
		t.Errorf("it is not in its new application: %v, %v", list, err)
	}
}

// Keys of a tenant are told nothing of what does not exist, keys that only read may not change.
func TestUpdateDeviceKeys(t *testing.T) {
	n := start(t, options{configure: func(c *networkserver.Config) {
		c.Keys = []networkserver.APIKey{{Token: "tenant", Tenant: tenantID}, {Token: "reader", ReadOnly: true}}
		c.Devices = append(c.Devices, networkserver.Device{EUI: eui(1), Name: "meter", Application: appID, Profile: profileID})
	}})
	good := api.Device{DevEui: eui(1).String(), Name: "meter", ApplicationId: appID, DeviceProfileId: profileID}
	for _, tt := range []struct {
		key    string
		change func(*api.Device)
		want   codes.Code
	}{
		{"tenant", func(*api.Device) {}, codes.OK},
		{"reader", func(*api.Device) {}, codes.Unauthenticated},
		{"tenant", func(d *api.Device) { d.Name = "" }, codes.InvalidArgument},
		{"tenant", func(d *api.Device) { d.DevEui, d.Name = eui(9).String(), "" }, codes.Unauthenticated},
		{"tenant", func(d *api.Device) { d.ApplicationId = missing }, codes.Unauthenticated},
		{"tenant", func(d *api.Device) { d.DeviceProfileId = missing }, codes.Unauthenticated},
	} {
		d := &api.Device{DevEui: good.DevEui, Name: good.Name, ApplicationId: good.ApplicationId, DeviceProfileId: good.DeviceProfileId}
		tt.change(d)
		_, err := n.device().Update(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+tt.key), &api.UpdateDeviceRequest{Device: d})
		if status.Code(err) != tt.want {
			t.Errorf("%s: update of %v: %v, want %s", tt.key, d, err, tt.want)
		}
	}
}

// TestSimulatedDeviceTellsItsStatus asks the devices of package fleet, which answer with their next uplink.
func TestSimulatedDeviceTellsItsStatus(t *testing.T) {
	for battery, want := range map[uint8]string{50: "50.00 %, external false, unavailable false", 0: "0.00 %, external false, unavailable true"} {
		n := start(t, options{battery: battery, devices: []int{1}, app: func(int) *model { return &model{period: 60_000} },
			configure: func(c *networkserver.Config) { c.Profiles[0].StatusRequests = 24 }})
		n.run(90 * time.Minute)
		got := n.statuses()
		if len(got) != 2 || !strings.HasSuffix(got[0], want) || !strings.HasSuffix(got[1], want) {
			t.Errorf("battery %d: %q, want one an hour: %s", battery, got, want)
		}
	}
}
