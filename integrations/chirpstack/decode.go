package chirpstack

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/integration"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// unmarshal reads a message in JSON or protobuf, which do not say what they are: a protobuf message of ChirpStack
// never begins with a brace, though it may begin with what JSON takes for white space. Fields of newer servers are
// skipped.
func unmarshal(payload []byte, m proto.Message) error {
	if len(payload) > 0 && payload[0] == '{' || json.Valid(payload) || !defended("protobuf-events") {
		return protojson.UnmarshalOptions{DiscardUnknown: defended("newer-fields")}.Unmarshal(payload, m)
	}
	return proto.Unmarshal(payload, m)
}

// decode reads one event of a topic, in JSON or protobuf. It returns nil for those that the engine has no use for.
func decode(topic string, payload []byte) (*network.Event, error) {
	ev, _, err := decodeEvent(topic[strings.LastIndexByte(topic, '/')+1:], payload)
	return ev, err
}

// decodeEvent reads one event and returns its application, too.
func decodeEvent(kind string, payload []byte) (ev *network.Event, application string, err error) {
	var info *integration.DeviceInfo
	switch kind {
	case "up":
		var m integration.UplinkEvent
		if err := unmarshal(payload, &m); err != nil {
			return nil, "", fmt.Errorf("uplink event: %w", err)
		}
		if ev, err = uplink(&m, payload); err != nil {
			return nil, "", err
		}
		info = m.GetDeviceInfo()
	case "join":
		if !defended("joins") {
			return nil, "", nil
		}
		var m integration.JoinEvent
		if err := unmarshal(payload, &m); err != nil {
			return nil, "", fmt.Errorf("join event: %w", err)
		}
		ev = &network.Event{ID: eventID("join", m.GetDeduplicationId(), payload), Kind: network.EventJoin, At: m.GetTime().AsTime()}
		info = m.GetDeviceInfo()
	case "txack":
		var m integration.TxAckEvent
		if err := unmarshal(payload, &m); err != nil {
			return nil, "", fmt.Errorf("txack event: %w", err)
		}
		if m.GetQueueItemId() == "" {
			return nil, "", nil // a frame with MAC commands only
		}
		ev = &network.Event{ID: "txack/" + m.GetQueueItemId(), Kind: network.EventSent, At: m.GetTime().AsTime(),
			Message: network.MessageID(m.GetQueueItemId())}
		info = m.GetDeviceInfo()
	case "log":
		var m integration.LogEvent
		if err := unmarshal(payload, &m); err != nil {
			return nil, "", fmt.Errorf("log event: %w", err)
		}
		item := m.GetContext()["queue_item_id"]
		if !dropped(m.GetCode()) || item == "" {
			return nil, "", nil
		}
		ev = &network.Event{ID: "log/" + item, Kind: network.EventDropped, At: m.GetTime().AsTime(),
			Message: network.MessageID(item), Reason: m.GetCode().String()}
		info = m.GetDeviceInfo()
	case "status":
		var m integration.StatusEvent
		if err := unmarshal(payload, &m); err != nil {
			return nil, "", fmt.Errorf("status event: %w", err)
		}
		ev = &network.Event{ID: eventID("status", m.GetDeduplicationId(), payload), Kind: network.EventStatus, At: m.GetTime().AsTime(),
			Margin: int(m.GetMargin()), Battery: -1}
		if !m.GetExternalPowerSource() && !m.GetBatteryLevelUnavailable() {
			ev.Battery = int(m.GetBatteryLevel())
		}
		info = m.GetDeviceInfo()
	default:
		return nil, "", nil
	}
	// Servers differ in the case of the EUI.
	if ev.Device, err = network.ParseEUI64(info.GetDevEui()); err != nil {
		return nil, "", err
	}
	return ev, info.GetApplicationId(), nil
}

// dropped reports whether a log event says that a message is gone. After others, among them DOWNLINK_GATEWAY, which does not
// name it, it stays in the queue and goes out with a later uplink.
func dropped(code integration.LogCode) bool {
	switch code {
	case integration.LogCode_DOWNLINK_PAYLOAD_SIZE, integration.LogCode_EXPIRED, integration.LogCode_F_CNT_DOWN:
		return defended("unicast-drops")
	}
	return false
}

// eventID names an event by what the server calls it, or by its content.
func eventID(kind, id string, payload []byte) string {
	if id == "" {
		sum := sha256.Sum256(payload)
		id = hex.EncodeToString(sum[:12])
	}
	return kind + "/" + id
}

func uplink(m *integration.UplinkEvent, payload []byte) (*network.Event, error) {
	e := &network.Event{ID: eventID("up", m.GetDeduplicationId(), payload), Kind: network.EventUplink, At: receivedAt(m), FCnt: m.GetFCnt(),
		DataRate: int(m.GetDr()), Gateways: len(m.GetRxInfo())}
	if m.GetFPort() > 255 {
		return nil, fmt.Errorf("uplink event: FPort %d", m.GetFPort())
	}
	if m.GetJoinServerContext() == nil || !defended("end-to-end") { // otherwise the payload is cipher text
		e.FPort, e.Payload = uint8(m.GetFPort()), m.GetData()
	}
	for i, rx := range m.GetRxInfo() {
		if i == 0 || rx.GetRssi() > int32(e.RSSI) {
			e.RSSI = int(rx.GetRssi())
		}
		if i == 0 || float64(rx.GetSnr()) > e.SNR {
			e.SNR = float64(rx.GetSnr())
			// An id that is not readable leaves the event without one.
			e.Gateway, _ = network.ParseEUI64(rx.GetGatewayId())
		}
	}
	return e, nil
}

// receivedAt is when an uplink was received: by the GPS of a gateway, else by the clock of a gateway, else by
// the clock of the server, which is late by the backhaul.
func receivedAt(m *integration.UplinkEvent) time.Time {
	for _, rx := range m.GetRxInfo() {
		if gps := rx.GetTimeSinceGpsEpoch(); gps != nil && defended("gateway-time") {
			return airtime.UTC(gps.AsDuration())
		}
	}
	for _, rx := range m.GetRxInfo() {
		if at := rx.GetGwTime(); at != nil && defended("gateway-time") {
			return at.AsTime()
		}
	}
	return m.GetTime().AsTime()
}
