package chirpstack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"

	"github.com/chirpstack/chirpstack/api/go/v4/gw"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sower-fuota/sower/engine/network"
)

// underway is how many frames are remembered that wait for the word of their gateway, which comes within 30 s.
const underway = 1 << 12

// tap listens to what ChirpStack tells its gateways and what they answer, since ChirpStack keeps it to itself:
// it deletes a frame that a gateway refuses without a word. A frame and its answer carry the same downlink id.
type tap struct {
	net         *Network
	application string

	mu     sync.Mutex
	frames map[handed]frame
	order  []handed
}

// handed names a frame that was handed to a gateway.
type handed struct {
	gateway network.EUI64
	id      uint32
}

// frame is a frame of one of our groups, and what its gateway said, if it said so before we heard of the frame.
type frame struct {
	group  network.GroupID
	fCnt   uint32
	status gw.TxAckStatus // IGNORED: nothing yet
}

func newTap(n *Network, application string) *tap {
	return &tap{net: n, application: application, frames: map[handed]frame{}}
}

// heard takes a message of the topic GATEWAY/command/down or GATEWAY/event/ack. It returns nil for what does not
// concern our groups.
func (t *tap) heard(topic string, payload []byte) (*network.Event, error) {
	id, kind, _ := strings.Cut(topic, "/")
	gateway, err := network.ParseEUI64(id)
	if err != nil {
		return nil, fmt.Errorf("gateway topic: %w", err)
	}
	switch kind {
	case "command/down":
		var m gw.DownlinkFrame
		if err := unmarshalGateway(payload, &m); err != nil {
			return nil, fmt.Errorf("downlink command: %w", err)
		}
		if len(m.GetItems()) == 0 {
			return nil, nil
		}
		f, ok := t.frame(m.GetItems()[0].GetPhyPayload())
		if !ok {
			return nil, nil
		}
		return t.match(handed{gateway, m.GetDownlinkId()}, f), nil
	case "event/ack":
		var m gw.DownlinkTxAck
		if err := unmarshalGateway(payload, &m); err != nil {
			return nil, fmt.Errorf("acknowledgement of a gateway: %w", err)
		}
		status := gw.TxAckStatus_IGNORED
		for _, item := range m.GetItems() {
			if status = item.GetStatus(); status == gw.TxAckStatus_OK {
				break
			}
		}
		if status == gw.TxAckStatus_IGNORED {
			return nil, nil
		}
		return t.match(handed{gateway, m.GetDownlinkId()}, frame{status: status}), nil
	}
	return nil, nil
}

// unmarshalGateway tells JSON from protobuf as ChirpStack does.
func unmarshalGateway(payload []byte, m proto.Message) error {
	if bytes.Contains(payload, []byte("gatewayId")) {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(payload, m)
	}
	return proto.Unmarshal(payload, m)
}

// frame recognises a multicast frame of one of our groups:
//
//	off len field
//	  0   1 MHDR, 0x60: unconfirmed data down
//	  1   4 DevAddr, little endian
//	  5   1 FCtrl
//	  6   2 FCnt, low 16 bits, little endian
func (t *tap) frame(phy []byte) (frame, bool) {
	if len(phy) < 12 || phy[0] != 0x60 {
		return frame{}, false
	}
	addr := binary.LittleEndian.Uint32(phy[1:])
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	for id, g := range t.net.groups {
		if g.addr == addr && g.application == t.application {
			return frame{group: id, fCnt: fullCounter(binary.LittleEndian.Uint16(phy[6:]), g.next)}, true
		}
	}
	return frame{}, false
}

// fullCounter is the counter nearest to next with those low 16 bits.
func fullCounter(low uint16, next uint32) uint32 {
	f := int64(next) + int64(int16(low-uint16(next)))
	if f < 0 {
		f += 1 << 16
	}
	return uint32(f)
}

// match puts a frame and the word of its gateway together, in either order, and returns the event once both are there.
func (t *tap) match(key handed, f frame) *network.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	have, known := t.frames[key]
	switch {
	case !known || have.group != "" == (f.group != ""):
		if !known {
			t.order = append(t.order, key)
			if len(t.order) > underway {
				delete(t.frames, t.order[0])
				t.order = t.order[1:]
			}
		}
		t.frames[key] = f
		return nil
	case f.group == "":
		have.status = f.status
	default:
		have.group, have.fCnt = f.group, f.fCnt
	}
	delete(t.frames, key)
	ev := &network.Event{ID: fmt.Sprintf("tx/%s/%d/%s/%s", have.group, have.fCnt, key.gateway, have.status),
		Kind: network.EventSent, FCnt: have.fCnt, Group: have.group, Gateway: key.gateway}
	if have.status != gw.TxAckStatus_OK {
		ev.Kind, ev.Reason = network.EventDropped, have.status.String()
	}
	return ev
}
