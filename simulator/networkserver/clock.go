package networkserver

import (
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
)

// clock is the server's own TS003: with a profile that has it, an AppTimeReq is answered here, through the queue
// of the device, and the event is published all the same. received is the end of the uplink.
func (s *Server) clock(d *device, received time.Time, port uint8, data []byte) {
	v := applayer.V1
	switch d.profile.ClockSync {
	case api.Ts003Version_TS003_NOT_IMPLEMENTED:
		return
	case api.Ts003Version_TS003_v200:
		v = applayer.V2
	}
	if port != d.profile.clockPort() {
		return
	}
	cmd, _, err := clocksync.ParseCommand(v, applayer.Uplink, data) // of several commands the first
	req, is := cmd.(clocksync.AppTimeReq)
	if err != nil || !is {
		return
	}
	ans := clocksync.AppTimeAns{
		TimeCorrection: clocksync.TimeCorrection(int64(airtime.GPS(received)/time.Second), req.DeviceTime),
		TokenAns:       req.TokenReq,
	}
	if ans.TimeCorrection == 0 && !req.AnsRequired {
		return
	}
	payload, err := clocksync.AppendCommand(nil, v, ans)
	if err != nil {
		s.log.Error("clock answer", "device", d.EUI, "err", err)
		return
	}
	d.queue = append(d.queue, &queueItem{id: s.newID("queue item"), fPort: port, data: payload})
}

func (p *DeviceProfile) clockPort() uint8 {
	if p.ClockSyncPort == 0 {
		return applayer.FPortClockSync
	}
	return p.ClockSyncPort
}
