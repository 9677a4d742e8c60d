package networkserver

import (
	"maps"
	"strings"

	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type event struct {
	topic   string
	message proto.Message
}

// publish puts a device event into the outbox; see [Server.at].
func (s *Server) publish(d *device, kind string, m proto.Message) {
	s.outbox = append(s.outbox, event{"application/" + d.app.ID + "/device/" + d.EUI.String() + "/event/" + kind, m})
}

// publishLog publishes a log event.
func (s *Server) publishLog(d *device, level integration.LogLevel, code integration.LogCode, text string, context map[string]string) {
	s.publish(d, "log", &integration.LogEvent{
		Time:        timestamppb.New(s.world.Now()),
		DeviceInfo:  s.deviceInfo(d),
		Level:       level,
		Code:        code,
		Description: text,
		Context:     context,
	})
}

// flush sends the outbox; the caller holds s.mu.
func (s *Server) flush() {
	for _, e := range s.outbox {
		payload, err := protojson.Marshal(e.message)
		if err == nil {
			err = s.broker.publish(e.topic, payload)
		}
		if err != nil {
			s.log.Error("event not published", "topic", e.topic, "err", err)
		}
	}
	clear(s.outbox)
	s.outbox = s.outbox[:0]
}

func (s *Server) deviceInfo(d *device) *integration.DeviceInfo {
	return &integration.DeviceInfo{
		TenantId:           s.cfg.Tenant.ID,
		TenantName:         s.cfg.Tenant.Name,
		ApplicationId:      d.app.ID,
		ApplicationName:    d.app.Name,
		DeviceProfileId:    d.profile.ID,
		DeviceProfileName:  d.profile.Name,
		DeviceName:         d.Name,
		DevEui:             d.EUI.String(),
		DeviceClassEnabled: common.DeviceClass_CLASS_A,
		Tags:               maps.Clone(d.Tags),
	}
}

func (s *Server) regionID() string { return strings.ToLower(s.plan.Region.String()) }
