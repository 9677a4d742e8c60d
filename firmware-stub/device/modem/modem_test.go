package modem

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
)

// messages holds one message of every type beside its frame, worked out by hand from docs/spec/modem.md (the CRC
// by another program).
var messages = []Message{
	Tick{1500},
	Down{1500, 201, Unicast, []byte{1, 1}},
	Down{0, 200, 3, []byte{}},
	Link{12345678901, true, 51},
	ResetReq{},
	IdleUntil{Never},
	Up{202, []byte{1, 0, 0x7b, 0xa3, 0x54, 0x19}},
	SetMcGroup{ID: 2, Defined: true, Addr: 0x01020304, AppSKey: [16]byte{1, 15: 2}, NwkSKey: [16]byte{3, 15: 4}, MinFCnt: 5, MaxFCnt: 1 << 31},
	SetMcGroup{ID: 1},
	Session{0, 'C', 5, 0, 869525000, 1420000000000, 1420000256000},
	Console{"firmware 0x1020304"},
	Reset{ResetInstall},
	Event{8, 30, 0x0102},
}

func TestRoundTrip(t *testing.T) {
	var stream []byte
	for _, m := range messages {
		var err error
		if stream, err = Append(stream, m); err != nil {
			t.Fatalf("Append(%#v): %v", m, err)
		}
	}
	var d Decoder
	var got []Message
	for _, b := range stream { // one byte at a time, as a UART gives them
		d.Write([]byte{b})
		for f, ok := d.Next(); ok; f, ok = d.Next() {
			m, err := f.Message()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m)
			if down, ok := m.(Down); ok { // payloads are only lent
				down.Data = bytes.Clone(down.Data)
				got[len(got)-1] = down
			}
			if up, ok := m.(Up); ok {
				up.Data = bytes.Clone(up.Data)
				got[len(got)-1] = up
			}
		}
	}
	for i := range messages {
		if i >= len(got) || !same(got[i], messages[i]) {
			t.Fatalf("message %d: decoded %#v, want %#v", i, got, messages[i])
		}
	}
}

// same compares messages; an empty payload may be nil.
func same(a, b Message) bool {
	if x, ok := a.(Down); ok && len(x.Data) == 0 {
		x.Data = []byte{}
		a = x
	}
	return reflect.DeepEqual(a, b)
}

func TestFrameBytes(t *testing.T) {
	for _, tt := range []struct {
		m    Message
		want string
	}{
		{ResetReq{}, "a5040000" + "5c10"},
		{Tick{1500}, "a5010800" + "dc05000000000000" + "f818"},
		{Down{1500, 201, Unicast, []byte{1, 1}}, "a5020c00" + "dc05000000000000c9ff0101" + "b766"},
		{Reset{ResetInstall}, "a5860100" + "01" + "7059"},
	} {
		got, err := Append(nil, tt.m)
		if err != nil || hex.EncodeToString(got) != tt.want {
			t.Errorf("Append(%#v) = %x, %v, want %s", tt.m, got, err, tt.want)
		}
	}
}

func TestCRC(t *testing.T) {
	if got := crc([]byte("123456789")); got != 0x29b1 { // the check value of CRC-16/CCITT-FALSE
		t.Errorf("crc = %#04x, want 0x29b1", got)
	}
}

func TestErrors(t *testing.T) {
	if got, err := Append([]byte{7}, Up{1, make([]byte, MaxPayload)}); !errors.Is(err, ErrLong) || !bytes.Equal(got, []byte{7}) {
		t.Errorf("Append of 321 bytes = %x, %v, want ErrLong and dst as it was", got, err)
	}
	for _, f := range []Frame{
		{Type: 0x7f}, {Type: TypeTick, Payload: make([]byte, 7)}, {Type: TypeUp}, {Type: TypeSession, Payload: make([]byte, 23)},
	} {
		if m, err := f.Message(); !errors.Is(err, ErrFormat) {
			t.Errorf("Message of %v = %#v, %v, want ErrFormat", f, m, err)
		}
	}
}

// A damaged frame costs itself only: the frames behind it are found, also when a sync byte lies inside the damage.
func TestResynchronise(t *testing.T) {
	good, _ := Append(nil, Tick{0xa5a5a5a5})
	for i := range good {
		stream := bytes.Clone(good)
		stream[i] ^= 0x40
		stream = append(append(stream, good...), good...)
		// A damaged length may claim up to MaxPayload bytes before its CRC is seen to be wrong.
		stream = append(stream, make([]byte, MaxPayload+overhead)...)
		var d Decoder
		d.Write(stream)
		var n int
		for _, ok := d.Next(); ok; _, ok = d.Next() {
			n++
		}
		if n != 2 {
			t.Errorf("byte %d damaged: %d frames found behind it, want 2", i, n)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	for _, m := range messages {
		b, _ := Append(nil, m)
		f.Add(b, 3)
	}
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		var d Decoder
		cut = max(1, cut&31)
		var frames []byte
		for rest := stream; len(rest) > 0; {
			n := min(cut, len(rest))
			d.Write(rest[:n])
			rest = rest[n:]
			for f, ok := d.Next(); ok; f, ok = d.Next() {
				again, err := AppendFrame(nil, f)
				if err != nil || !bytes.Contains(stream, again) {
					t.Fatalf("% x: frame % x is not in the stream (%v)", stream, again, err)
				}
				frames = append(frames, again...)
				if m, err := f.Message(); err == nil {
					b, err := Append(nil, m)
					if err != nil {
						t.Fatal(err)
					}
					var d2 Decoder
					d2.Write(b)
					f2, ok := d2.Next()
					m2, err := f2.Message()
					if !ok || err != nil || !reflect.DeepEqual(m, m2) {
						t.Fatalf("%#v became %#v, %v", m, m2, err)
					}
				}
			}
		}
		if len(frames) > len(stream) {
			t.Fatalf("%d bytes of frames in %d bytes", len(frames), len(stream))
		}
	})
}
