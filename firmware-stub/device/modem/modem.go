// Package modem is the host side of sower's modem protocol (docs/spec/modem.md): the frames by which a device
// that runs the device library talks to its MAC over a byte stream.
//
//	off  len  field
//	  0    1  sync     0xA5
//	  1    1  type     bit 7 set: from the device
//	  2    2  length   of the payload, 0..320
//	  4    n  payload
//	4+n    2  CRC      CRC-16/CCITT-FALSE over type, length and payload
//
// Integers are little endian; times are milliseconds of the device's own clock. The package encodes and decodes.
// It knows nothing of turns, of byte streams or of the MAC; the device side is firmware-stub/ports/modem.
package modem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

const (
	sync     = 0xa5
	header   = 4
	overhead = header + 2

	// MaxPayload is the largest payload of a frame in bytes.
	MaxPayload = 320
	// Unicast stands for the multicast group of a unicast downlink.
	Unicast = 0xff
	// Never is the time of an [IdleUntil] that waits for a downlink.
	Never = uint64(math.MaxUint64)
)

var (
	// ErrLong is returned by [Append] for a message whose payload does not fit a frame.
	ErrLong = errors.New("modem: payload too long")
	// ErrFormat is returned by [Frame.Message] for a payload that is none of its type, and for an unknown type.
	ErrFormat = errors.New("modem: not a message")
)

// Type is the type of a frame.
type Type uint8

// Frame types. Bit 7 is set in those from the device.
const (
	TypeTick       Type = 0x01
	TypeDown       Type = 0x02
	TypeLink       Type = 0x03
	TypeResetReq   Type = 0x04
	TypeIdleUntil  Type = 0x81
	TypeUp         Type = 0x82
	TypeSetMcGroup Type = 0x83
	TypeSession    Type = 0x84
	TypeConsole    Type = 0x85
	TypeReset      Type = 0x86
	TypeEvent      Type = 0x87
)

// Message is what a frame carries: one of the struct types below, by value.
type Message interface {
	typ() Type
	appendTo(dst []byte) []byte
}

// Tick tells the device the time.
type Tick struct{ Time uint64 }

// Down is a downlink of the application layer.
type Down struct {
	Time  uint64
	Port  uint8
	Group uint8 // McGroupID, or [Unicast]
	Data  []byte
}

// Link tells the device whether it is joined and how large an uplink may be.
type Link struct {
	Time       uint64
	Joined     bool
	MaxPayload uint8 // bytes
}

// ResetReq resets the device.
type ResetReq struct{}

// IdleUntil ends a turn: the device wants a frame at Time at the latest, or only with a downlink if it is [Never].
type IdleUntil struct{ Time uint64 }

// Up is an uplink of the application layer.
type Up struct {
	Port uint8
	Data []byte
}

// SetMcGroup defines a multicast group in the MAC or, if Defined is false, forgets it.
type SetMcGroup struct {
	ID               uint8 // McGroupID 0..3
	Defined          bool
	Addr             uint32 // McAddr
	AppSKey, NwkSKey [16]byte
	MinFCnt, MaxFCnt uint32 // MinFCnt <= FCnt < MaxFCnt
}

// Session opens a receive window of a multicast group; with Start equal to End it is cancelled.
type Session struct {
	ID          uint8
	Class       byte // 'B' or 'C'
	DR          uint8
	Periodicity uint8  // of class B ping slots, 0..7
	Frequency   uint32 // Hz
	Start, End  uint64
}

// Console is a line of text for a person.
type Console struct{ Text string }

// Reason says why a device resets itself.
type Reason uint8

// Reasons of [Reset].
const (
	ResetAsked    Reason = 0
	ResetInstall  Reason = 1
	ResetWatchdog Reason = 2
	ResetFault    Reason = 3
)

// Reset announces that the device resets itself; the [IdleUntil] of its next boot ends the turn.
type Reset struct{ Reason Reason }

// Event is a step or a cause of an update (applayer/diag), for a log.
type Event struct {
	Step, Cause uint8
	Detail      uint16
}

func (Tick) typ() Type       { return TypeTick }
func (Down) typ() Type       { return TypeDown }
func (Link) typ() Type       { return TypeLink }
func (ResetReq) typ() Type   { return TypeResetReq }
func (IdleUntil) typ() Type  { return TypeIdleUntil }
func (Up) typ() Type         { return TypeUp }
func (SetMcGroup) typ() Type { return TypeSetMcGroup }
func (Session) typ() Type    { return TypeSession }
func (Console) typ() Type    { return TypeConsole }
func (Reset) typ() Type      { return TypeReset }
func (Event) typ() Type      { return TypeEvent }

var le = binary.LittleEndian

func (m Tick) appendTo(b []byte) []byte { return le.AppendUint64(b, m.Time) }

func (m Down) appendTo(b []byte) []byte {
	return append(append(le.AppendUint64(b, m.Time), m.Port, m.Group), m.Data...)
}

func (m Link) appendTo(b []byte) []byte {
	return append(le.AppendUint64(b, m.Time), bit(m.Joined), m.MaxPayload)
}

func (ResetReq) appendTo(b []byte) []byte    { return b }
func (m IdleUntil) appendTo(b []byte) []byte { return le.AppendUint64(b, m.Time) }
func (m Up) appendTo(b []byte) []byte        { return append(append(b, m.Port), m.Data...) }

func (m SetMcGroup) appendTo(b []byte) []byte {
	b = le.AppendUint32(append(b, m.ID, bit(m.Defined)), m.Addr)
	b = append(append(b, m.AppSKey[:]...), m.NwkSKey[:]...)
	return le.AppendUint32(le.AppendUint32(b, m.MinFCnt), m.MaxFCnt)
}

func (m Session) appendTo(b []byte) []byte {
	b = le.AppendUint32(append(b, m.ID, m.Class, m.DR, m.Periodicity), m.Frequency)
	return le.AppendUint64(le.AppendUint64(b, m.Start), m.End)
}

func (m Console) appendTo(b []byte) []byte { return append(b, m.Text...) }
func (m Reset) appendTo(b []byte) []byte   { return append(b, uint8(m.Reason)) }
func (m Event) appendTo(b []byte) []byte {
	return le.AppendUint16(append(b, m.Step, m.Cause), m.Detail)
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// Append appends the frame of m to dst. With [ErrLong] dst is returned as it was.
func Append(dst []byte, m Message) ([]byte, error) {
	return AppendFrame(dst, Frame{Type: m.typ(), Payload: m.appendTo(nil)})
}

// Frames returns the messages as frames, for an application that is handed them without a byte stream between. An
// error is that of [Append].
func Frames(ms ...Message) ([]Frame, error) {
	out := make([]Frame, 0, len(ms))
	for _, m := range ms {
		f := Frame{Type: m.typ(), Payload: m.appendTo(nil)}
		if err := f.check(); err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

// Frame is a frame whose payload has not been looked at.
type Frame struct {
	Type    Type
	Payload []byte
}

// check reports a payload that does not fit.
func (f Frame) check() error {
	if len(f.Payload) > MaxPayload {
		return fmt.Errorf("frame of type 0x%02x: %w: %d bytes, at most %d", uint8(f.Type), ErrLong, len(f.Payload), MaxPayload)
	}
	return nil
}

// AppendFrame appends f to dst. With [ErrLong] dst is returned as it was.
func AppendFrame(dst []byte, f Frame) ([]byte, error) {
	if err := f.check(); err != nil {
		return dst, err
	}
	start := len(dst) + 1
	dst = append(dst, sync, uint8(f.Type))
	dst = le.AppendUint16(dst, uint16(len(f.Payload)))
	dst = append(dst, f.Payload...)
	return le.AppendUint16(dst, crc(dst[start:])), nil
}

// crc is CRC-16/CCITT-FALSE.
func crc(p []byte) uint16 {
	c := uint16(0xffff)
	for _, b := range p {
		c ^= uint16(b) << 8
		for range 8 {
			if c&0x8000 != 0 {
				c = c<<1 ^ 0x1021
			} else {
				c <<= 1
			}
		}
	}
	return c
}

// Message decodes the payload. Bytes beyond a fixed layout are ignored, so that fields can be added.
func (f Frame) Message() (Message, error) {
	p := f.Payload
	need := map[Type]int{TypeTick: 8, TypeDown: 10, TypeLink: 10, TypeResetReq: 0, TypeIdleUntil: 8, TypeUp: 1,
		TypeSetMcGroup: 46, TypeSession: 24, TypeConsole: 0, TypeReset: 1, TypeEvent: 4}
	n, known := need[f.Type]
	if !known {
		return nil, fmt.Errorf("%w: unknown frame type 0x%02x", ErrFormat, uint8(f.Type))
	}
	if len(p) < n {
		return nil, fmt.Errorf("frame of type 0x%02x: %w: %d bytes, want at least %d", uint8(f.Type), ErrFormat, len(p), n)
	}
	switch f.Type {
	case TypeTick:
		return Tick{le.Uint64(p)}, nil
	case TypeDown:
		return Down{le.Uint64(p), p[8], p[9], p[10:]}, nil
	case TypeLink:
		return Link{le.Uint64(p), p[8] != 0, p[9]}, nil
	case TypeResetReq:
		return ResetReq{}, nil
	case TypeIdleUntil:
		return IdleUntil{le.Uint64(p)}, nil
	case TypeUp:
		return Up{p[0], p[1:]}, nil
	case TypeSetMcGroup:
		return SetMcGroup{p[0], p[1] != 0, le.Uint32(p[2:]), [16]byte(p[6:]), [16]byte(p[22:]), le.Uint32(p[38:]), le.Uint32(p[42:])}, nil
	case TypeSession:
		return Session{p[0], p[1], p[2], p[3], le.Uint32(p[4:]), le.Uint64(p[8:]), le.Uint64(p[16:])}, nil
	case TypeConsole:
		return Console{string(p)}, nil
	case TypeReset:
		return Reset{Reason(p[0])}, nil
	default: // TypeEvent
		return Event{p[0], p[1], le.Uint16(p[2:])}, nil
	}
}

// Decoder finds frames in a byte stream. Its zero value is ready for use. Bytes that belong to no frame, and
// frames whose CRC is wrong, are passed over: from the byte after the sync byte the search begins again.
type Decoder struct{ buf []byte }

// Write adds bytes of the stream; it never fails.
func (d *Decoder) Write(p []byte) (int, error) {
	d.buf = append(d.buf, p...)
	return len(p), nil
}

// Next returns the next complete frame; ok is false when more bytes are needed. The payload is valid until the
// next call of a method.
func (d *Decoder) Next() (f Frame, ok bool) {
	for len(d.buf) > 0 {
		if d.buf[0] == sync {
			if len(d.buf) < header {
				return Frame{}, false
			}
			n := int(le.Uint16(d.buf[2:]))
			if n <= MaxPayload {
				if len(d.buf) < n+overhead {
					return Frame{}, false
				}
				if crc(d.buf[1:header+n]) == le.Uint16(d.buf[header+n:]) {
					f = Frame{Type: Type(d.buf[1]), Payload: d.buf[header : header+n : header+n]}
					d.buf = d.buf[n+overhead:]
					return f, true
				}
			}
		}
		d.buf = d.buf[1:]
	}
	return Frame{}, false
}
