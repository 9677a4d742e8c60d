package conformance

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
)

// pingPeriodicity is that of the probes: a slot each 8 s.
const pingPeriodicity = 3

// checkClassBDevice has a device that says it is synchronised to the beacons, and one whose profile does not have it.
func (s *suite) checkClassBDevice() (err error) {
	for _, supported := range []bool{false, true} {
		p, err := s.newProbe("class B", func(p *api.DeviceProfile) { p.SupportsClassB, p.ClassBTimeout = supported, 10 })
		if err != nil {
			return err
		}
		if err = p.join(); err == nil {
			err = s.classB(p)
		}
		if err = errors.Join(err, p.remove()); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) classB(p *probe) error {
	class := func(what string) error {
		r, err := s.dev().Get(s.ctx, &api.GetDeviceRequest{DevEui: p.eui.String()})
		if err != nil {
			return err
		}
		var said []string
		for _, e := range s.takeEvents("up") {
			var m struct {
				DeviceInfo struct{ DeviceClassEnabled string }
			}
			if err := json.Unmarshal(e.data, &m); err != nil {
				return err
			}
			if e.device >= 0 && s.devices[e.device] == p.eui {
				said = append(said, m.DeviceInfo.DeviceClassEnabled)
			}
		}
		s.say("%s: %s, events %s", what, r.ClassEnabled, strings.Join(said, ", "))
		return nil
	}
	answers := func() {
		for _, a := range s.takeAnswers() {
			for i, item := range a.Items {
				s.say("item %d: %s", i+1, p.text(item))
			}
		}
	}
	s.takeEvents("up")
	s.takeAnswers()
	if err := p.send(4*time.Second, &lorawan.MACCommand{CID: lorawan.PingSlotInfoReq, Payload: &lorawan.PingSlotInfoReqPayload{Periodicity: pingPeriodicity}}); err != nil {
		return err
	}
	answers()
	if err := class("not synchronised"); err != nil {
		return err
	}
	p.flags = lorawan.FCtrl{ClassB: true}
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	answers()
	if err := class("synchronised"); err != nil {
		return err
	}
	p.story()
	if err := p.put(&api.DeviceQueueItem{Data: []byte("b")}); err != nil {
		return err
	}
	if err := s.pass(20 * time.Second); err != nil {
		return err
	}
	s.say("an item without an uplink:")
	answers()
	s.say("events: %s", p.story())
	if err := p.queued("queue"); err != nil {
		return err
	}
	p.flags = lorawan.FCtrl{}
	if err := p.send(4 * time.Second); err != nil {
		return err
	}
	if err := class("no longer"); err != nil {
		return err
	}
	s.say("heard: %s", strings.Join(p.heard, ", "))
	s.takeAnswers()
	return nil
}
