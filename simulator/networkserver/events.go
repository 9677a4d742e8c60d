package networkserver

import (
	"encoding/json"
	"maps"
	"strings"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/simulator/radio"
)

type event struct {
	topic   string
	message proto.Message
	raw     []byte // in place of message: encoded, and spared by the faults
}

// publish puts a device event into the outbox; see [Server.at].
func (s *Server) publish(d *device, kind string, m proto.Message) {
	s.outbox = append(s.outbox, event{topic: "application/" + d.app.ID + "/device/" + d.EUI.String() + "/event/" + kind, message: m})
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
		payload, err := e.raw, error(nil)
		if e.message != nil {
			payload, err = s.encode(e.message)
		}
		if err != nil {
			s.log.Error("event not published", "topic", e.topic, "err", err)
			continue
		}
		if e.message == nil {
			s.leave(e.topic, payload)
			continue
		}
		s.events++
		n, f := s.events, s.cfg.Faults.Events
		if f.Loss > 0 && s.chance(f.Loss, chanceEventLoss, n) {
			continue
		}
		copies := uint64(1)
		if f.Duplicate > 0 && s.chance(f.Duplicate, chanceEventTwice, n) {
			copies = 2
		}
		for i := range copies {
			if f.Jitter == 0 {
				s.leave(e.topic, payload)
				continue
			}
			delay := s.hash(chanceEventDelay, n, i) % uint64(f.Jitter)
			s.at(s.world.Now().Add(time.Duration(delay)), "late event", func() { s.leave(e.topic, payload) })
		}
	}
	clear(s.outbox)
	s.outbox = s.outbox[:0]
}

// encode is how a message looks to subscribers.
func (s *Server) encode(m proto.Message) ([]byte, error) {
	newer := s.cfg.Faults.Events.Newer
	if s.cfg.ProtobufEvents {
		payload, err := proto.Marshal(m)
		if err == nil && newer {
			payload = protowire.AppendVarint(protowire.AppendTag(payload, 9999, protowire.VarintType), 1)
		}
		return payload, err
	}
	payload, err := eventJSON(m)
	if err == nil && newer && len(payload) > 2 {
		payload = append([]byte(`{"fieldOfANewerServer":{"value":1},`), payload[1:]...)
	}
	return payload, err
}

// eventJSON encodes an event as ChirpStack does: with the fields that hold their default value, but for those of the
// messages within that gateways have, which lack them.
func eventJSON(m proto.Message) ([]byte, error) {
	payload, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	parts := map[string]json.RawMessage{}
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() != nil && !f.IsMap() && f.Message().ParentFile().Package() == "gw" {
			parts[f.JSONName()], err = gatewayJSON(f, v)
		}
		return err == nil
	})
	if err != nil || len(parts) == 0 {
		return payload, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(payload, &fields); err != nil {
		return nil, err
	}
	maps.Copy(fields, parts)
	return json.Marshal(fields)
}

// gatewayJSON encodes a field whose type gateways have, or a list of such.
func gatewayJSON(f protoreflect.FieldDescriptor, v protoreflect.Value) ([]byte, error) {
	if !f.IsList() {
		return protojson.Marshal(v.Message().Interface())
	}
	list := []byte("[")
	for i := range v.List().Len() {
		item, err := protojson.Marshal(v.List().Get(i).Message().Interface())
		if err != nil {
			return nil, err
		}
		if i > 0 {
			list = append(list, ',')
		}
		list = append(list, item...)
	}
	return append(list, ']'), nil
}

// leave hands a message to the broker.
func (s *Server) leave(topic string, payload []byte) {
	if err := s.broker.publish(topic, payload); err != nil {
		s.log.Error("event not published", "topic", topic, "err", err)
	}
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
		DeviceClassEnabled: d.class(),
		Tags:               maps.Clone(d.Tags),
	}
}

// regionID is the id of the region's configuration, and the topic prefix of its gateways.
func regionID(p *radio.Plan) string { return strings.ToLower(p.Region.String()) }

// regions names the regions that are simulated.
func (s *Server) regions() string {
	var names []string
	for _, p := range s.plans {
		names = append(names, p.Region.String())
	}
	return strings.Join(names, ", ")
}
