package networkserver

import (
	"math"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Battery and margin, of which the server asks devices with DevStatusReq (LoRaWAN 1.0.4, section 5.5), as often a day
// as the profile says. Nothing else tells it.

// What DevStatusAns says of the battery besides 1..254, its level.
const (
	externalPower  = 0
	unknownBattery = 255
)

// asksStatus reports whether the next downlink of a device carries DevStatusReq: the first of a session, and one after
// each interval. It counts as asked whether the downlink arrives or not.
func (s *Server) asksStatus(d *device) bool {
	ses, now := d.session, s.world.Now()
	if d.profile.StatusRequests == 0 || !ses.statusAsked.IsZero() && now.Sub(ses.statusAsked) < 24*time.Hour/time.Duration(d.profile.StatusRequests) {
		return false
	}
	ses.statusAsked = now
	return true
}

// publishStatus publishes what a device has just said.
func (s *Server) publishStatus(d *device, r *reception, uplink string) {
	ev := &integration.StatusEvent{
		DeduplicationId: uplink,
		Time:            timestamppb.New(r.at),
		DeviceInfo:      s.deviceInfo(d),
		Margin:          int32(d.status.Margin),
	}
	switch b := d.status.Battery; b {
	case externalPower:
		ev.ExternalPowerSource = true
	case unknownBattery:
		ev.BatteryLevelUnavailable = true
	default:
		ev.BatteryLevel = percent(b)
	}
	s.publish(d, "status", ev)
}

func percent(battery uint8) float32 { return float32(battery) / 254 * 100 }

// deviceStatus is what the API says: the level with two decimals, as it stands in the database, and -1 for a device
// without battery and for one that does not know.
func (d *device) deviceStatus() *api.DeviceStatus {
	if d.status == nil {
		return nil
	}
	st := &api.DeviceStatus{Margin: int32(d.status.Margin), ExternalPowerSource: d.status.Battery == externalPower, BatteryLevel: -1}
	if b := d.status.Battery; b != externalPower && b != unknownBattery {
		st.BatteryLevel = float32(math.Floor(float64(percent(b))*100) / 100)
	}
	return st
}
