package networkserver

import (
	"errors"
	"slices"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"

	"github.com/sower-fuota/sower/simulator/radio"
)

const (
	// statsInterval is the distance of two reports of a gateway; after two of them without one it is offline.
	statsInterval = 30 * time.Second
	// frameLife is how long the server knows what it has handed to a gateway.
	frameLife = 30 * time.Second
	// gatewayQueue is how many frames a gateway keeps that are not on the air yet, as packet forwarders do.
	gatewayQueue = 32
	// downlinkPriority is what the server makes of a gateway for which none was given. It decides nothing here.
	downlinkPriority = 10
)

// gateway is a gateway on the simulated radio or, without one, whoever speaks for it over MQTT.
type gateway struct {
	Gateway
	plan     *radio.Plan // of the region from which it reports
	created  time.Time
	radio    *radio.Gateway
	down     bool        // cut off
	upSince  time.Time   // end of the last outage
	seen     time.Time   // last statistics of what is cut off or speaks MQTT; zero: none
	inRegion bool        // has the property region_config_id, which statistics give it
	json     bool        // speaks JSON over MQTT
	starts   []time.Time // of the frames that are programmed
}

// lastSeen is the time of the last statistics: every 30 s since the server began; the zero time if none arrived.
func (s *Server) lastSeen(g *gateway) time.Time {
	if g.radio == nil || g.down {
		return g.seen
	}
	if t := s.created.Add(s.world.Now().Sub(s.created).Truncate(statsInterval)); !t.Before(g.upSince) {
		return t
	}
	return g.seen
}

// state is what the API says of a gateway.
func (s *Server) state(g *gateway) api.GatewayState {
	switch seen := s.lastSeen(g); {
	case seen.IsZero():
		return api.GatewayState_NEVER_SEEN
	case s.world.Now().Sub(seen) > 2*statsInterval:
		return api.GatewayState_OFFLINE
	default:
		return api.GatewayState_ONLINE
	}
}

func (s *Server) properties(g *gateway) map[string]string {
	if !g.inRegion {
		return map[string]string{}
	}
	return map[string]string{"region_config_id": regionID(g.plan), "region_common_name": g.plan.Region.String()}
}

// downlink is what is handed to a gateway: windows in order of preference, of which it uses one.
type downlink struct {
	id        uint32
	gateway   *gateway
	items     []downlinkItem
	context   []byte // of the uplink that is answered
	multicast bool
	// acked is called with what the gateway says: OK and the item that it uses, or why it uses none.
	acked func(status gw.TxAckStatus, item int)
	until time.Time // when the server forgets it
}

type downlinkItem struct {
	payload   []byte
	frequency uint32
	dataRate  int
	power     int32 // EIRP in dBm
	copy      uint32
	at        time.Time     // zero: immediately
	delay     time.Duration // from the end of the uplink to at; zero: at is GPS time
}

// hand gives a downlink to its gateway. Without an acknowledgement nothing ever comes of it.
func (s *Server) hand(d *downlink) {
	now := s.world.Now()
	s.downlinks++
	d.id, d.until = s.downlinks, now.Add(frameLife)
	for id, old := range s.frames {
		if now.After(old.until) {
			delete(s.frames, id)
		}
	}
	s.frames[d.id] = d
	g := d.gateway
	if g.radio == nil {
		s.command(d)
		return
	}
	if g.down {
		return // lost with the connection
	}
	fault := s.ackFault(d)
	status, item, ack := fault.Status, 0, now
	if status == gw.TxAckStatus_IGNORED || status == gw.TxAckStatus_OK {
		status, item, ack = s.program(d)
	}
	if fault.Lost || g.BasicsStation && status != gw.TxAckStatus_OK {
		return
	}
	s.outside(ack.Add(fault.Delay), "tx acknowledgement", func() { s.acknowledged(d.id, status, item) })
}

// program does what a packet forwarder does with a downlink, and returns when it acknowledges.
func (s *Server) program(d *downlink) (status gw.TxAckStatus, item int, ack time.Time) {
	g, now := d.gateway, s.world.Now()
	ack = now
	g.starts = slices.DeleteFunc(g.starts, func(t time.Time) bool { return !t.After(now) })
	for i, it := range d.items {
		var err error
		at := it.at
		f := radio.Frame{Payload: it.payload, Frequency: it.frequency, DataRate: it.dataRate, Copy: it.copy}
		switch {
		case it.frequency == 0:
			status = gw.TxAckStatus_TX_FREQ
			continue
		case len(g.starts) >= gatewayQueue:
			status = gw.TxAckStatus_COLLISION_PACKET // what packet forwarders call a full queue
			continue
		case at.IsZero():
			at, err = g.radio.TransmitSoon(f)
		case it.delay == 0 && !at.After(now): // GPS time: the gateway needs the frame before its time
			err = radio.ErrTooLate
		default:
			err = g.radio.Transmit(f, at)
		}
		switch {
		case err == nil:
			g.starts = append(g.starts, at)
			if g.BasicsStation { // reports what has been sent
				ack = at.Add(timeOnAir(g.plan, it))
			}
			return gw.TxAckStatus_OK, i, ack
		case errors.Is(err, radio.ErrTooLate):
			status = gw.TxAckStatus_TOO_LATE
		case errors.Is(err, radio.ErrCollision):
			status = gw.TxAckStatus_COLLISION_PACKET
		default:
			status = gw.TxAckStatus_INTERNAL_ERROR
		}
	}
	return status, 0, ack
}

func timeOnAir(p *radio.Plan, it downlinkItem) time.Duration {
	rate, err := p.Region.DataRate(it.dataRate)
	if err != nil {
		return 0
	}
	return rate.TimeOnAir(len(it.payload), 0)
}

// acknowledged takes what a gateway said. Of a frame that the server has forgotten it is not heard.
func (s *Server) acknowledged(id uint32, status gw.TxAckStatus, item int) {
	d := s.frames[id]
	if d == nil || s.world.Now().After(d.until) {
		s.log.Debug("acknowledgement of an unknown downlink", "downlink", id)
		return
	}
	delete(s.frames, id)
	d.acked(status, item)
}

func (s *Server) gatewayByID(id lorawan.EUI64) *gateway {
	for _, g := range s.gateways {
		if g.ID == id {
			return g
		}
	}
	return nil
}
