// Package serial reaches a device on a UART that speaks the modem protocol (docs/spec/modem.md), and plays its MAC
// and its server on a bench: [Link] is the device, [Feed] sends it a bundle and proves that it runs, [Check] goes
// through what a port owes, and [Serve] puts any other device behind a byte stream, as a board would be.
//
// There is no radio here: a downlink reaches the device at once and whole unless it is dropped on purpose, and
// time is virtual, since the only clock of the device is the one in the frames it gets. A session that takes days
// on the air takes as long as the flash and the UART do.
package serial

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sower-fuota/sower/firmware-stub/device/modem"
)

// Device answers the modem protocol in turns: a board behind a [Link], or a device of package device.
type Device interface {
	// PowerUp resets the device, or switches it on, and returns what it says until it is idle.
	PowerUp() ([]modem.Frame, error)
	// Turn sends one frame and returns what the device answers, up to and with IDLE_UNTIL.
	Turn(modem.Frame) ([]modem.Frame, error)
}

// Port is an open UART. Read must return soon, with no bytes and nil or io.EOF, when none arrive: a Read that
// blocks for ever could never be given up.
type Port = io.ReadWriteCloser

var (
	// ErrSilent is returned when the device does not end its turn in time.
	ErrSilent = errors.New("serial: the device does not answer")
	// ErrDevice is returned when the device answers, but not what it should.
	ErrDevice = errors.New("serial: wrong answer")
)

// Link is a device on a UART.
type Link struct {
	port  Port
	limit time.Duration
	in    modem.Decoder
}

// NewLink returns the device behind port. limit is the longest that a turn may take on the wall clock; the longest
// ones erase flash or verify a signature. 0 means 60 s.
func NewLink(port Port, limit time.Duration) *Link {
	if limit == 0 {
		limit = time.Minute
	}
	return &Link{port: port, limit: limit}
}

// PowerUp resets the device, whatever state it and the line are in.
func (l *Link) PowerUp() ([]modem.Frame, error) {
	// Half a frame may lie in the device from whoever spoke before: enough bytes that begin no frame complete it.
	if _, err := l.port.Write(make([]byte, modem.MaxPayload+8)); err != nil {
		return nil, fmt.Errorf("serial: %w", err)
	}
	// What the device still has to say belongs to nobody; it ends when nothing arrives for a while.
	buf := make([]byte, 512)
	for end := time.Now().Add(l.limit); time.Now().Before(end); {
		n, err := l.port.Read(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("serial: %w", err)
		}
		if n == 0 {
			break
		}
	}
	l.in = modem.Decoder{}
	answer, err := l.Turn(modem.Frame{Type: modem.TypeResetReq})
	// A device that is slow to boot still ends a turn of before. Only a reset that was asked for begins so.
	for err == nil && !slices.ContainsFunc(answer, asked) {
		answer, err = l.listen()
	}
	return answer, err
}

// asked reports whether the device says that it resets itself because it was told to.
func asked(f modem.Frame) bool {
	return f.Type == modem.TypeReset && bytes.Equal(f.Payload, []byte{byte(modem.ResetAsked)})
}

// Turn sends one frame and collects the answer.
func (l *Link) Turn(f modem.Frame) ([]modem.Frame, error) {
	raw, err := modem.AppendFrame(nil, f)
	if err != nil {
		return nil, err
	}
	if _, err := l.port.Write(raw); err != nil {
		return nil, fmt.Errorf("serial: %w", err)
	}
	return l.listen()
}

func (l *Link) listen() ([]modem.Frame, error) {
	var out []modem.Frame
	buf := make([]byte, 512)
	for end := time.Now().Add(l.limit); ; {
		for f, ok := l.in.Next(); ok; f, ok = l.in.Next() {
			f.Payload = bytes.Clone(f.Payload)
			out = append(out, f)
			if f.Type == modem.TypeIdleUntil {
				return out, nil
			}
		}
		if time.Now().After(end) {
			return out, fmt.Errorf("%w: no end of its turn after %s; is the baud rate right, and does the firmware speak the modem protocol?", ErrSilent, l.limit)
		}
		n, err := l.port.Read(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return out, fmt.Errorf("serial: %w", err)
		}
		l.in.Write(buf[:n])
	}
}

// Noise sends bytes that are no frame: a device must pass over them.
func (l *Link) Noise(b []byte) error {
	if _, err := l.port.Write(b); err != nil {
		return fmt.Errorf("serial: %w", err)
	}
	return nil
}

// Close closes the port.
func (l *Link) Close() error { return l.port.Close() }

// Serve answers for d on a byte stream, as the UART of a board would: a virtual modem. It switches d on, and
// returns when the stream ends.
func Serve(stream io.ReadWriter, d Device) error {
	said, err := d.PowerUp()
	if err != nil {
		return err
	}
	var in modem.Decoder
	buf := make([]byte, 512)
	for {
		if err := say(stream, said); err != nil {
			return err
		}
		said = nil
		n, err := stream.Read(buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		in.Write(buf[:n])
		for f, ok := in.Next(); ok; f, ok = in.Next() {
			answer, err := d.Turn(f)
			if err != nil {
				return err
			}
			said = append(said, answer...)
		}
	}
}

func say(w io.Writer, frames []modem.Frame) error {
	var raw []byte
	for _, f := range frames {
		var err error
		if raw, err = modem.AppendFrame(raw, f); err != nil {
			return err
		}
	}
	_, err := w.Write(raw)
	return err
}
