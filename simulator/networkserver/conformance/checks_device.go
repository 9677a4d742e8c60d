package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// statusPerDay is how often a day the profile of the probe asks for its status: each 12 s.
const statusPerDay = 7200

// checkStatus has a device whose profile asks for the status.
func (s *suite) checkStatus() (err error) {
	p, err := s.newProbe("status", func(p *api.DeviceProfile) { p.DeviceStatusReqInterval = statusPerDay })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
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
	return s.changes(p, p.device)
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
		if s.devices[e.device] == p.eui {
			tags = append(tags, fmt.Sprint(m.DeviceInfo.Tags))
		}
	}
	s.expect("tags of the next event", strings.Join(tags, ", "), "map[a:3]")
	return nil
}
