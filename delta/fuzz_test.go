package delta

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// FuzzDecode feeds both decoders hostile parameters, bases and streams. The C decoder runs under
// the address and undefined behaviour sanitizers and its callbacks check every access. Both must
// say the same and, if they accept, produce the same image.
func FuzzDecode(f *testing.F) {
	for k := range uint64(9) {
		_, old, new := pair(k)
		if len(old) > 2000 || len(new) > 2000 {
			continue
		}
		p, stream, err := Encode(old, new, variant(k*9))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.Profile, p.Options, uint16(p.NewSize), uint8(p.ScratchBytes/64), uint16(p.LinkBase>>8), old, stream)
	}
	c := startC(f)
	f.Fuzz(func(t *testing.T, profile, options uint8, size uint16, scratch uint8, base uint16, old, stream []byte) {
		if len(old) > 1<<14 || size > 1<<13 {
			return
		}
		p := Params{Profile: profile, Options: options, BaseSize: uint32(len(old)), NewSize: uint32(size),
			LinkBase: uint32(base) << 8, ScratchBytes: uint32(scratch) * 64, RAMBytes: 16384}
		got, err := Decode(p, old, stream)
		if err != nil && !errors.Is(err, ErrStream) && !errors.Is(err, ErrParams) {
			t.Fatalf("%v is neither ErrStream nor ErrParams", err)
		}
		c.t = t
		code, gotC := c.decode(p, old, stream, 1+uint32(size)%61)
		switch {
		case (err == nil) != (code == 0):
			t.Fatalf("Go says %v, C says %d", err, code)
		case errors.Is(err, ErrParams) != (code == -1):
			t.Fatalf("Go says %v, C says %d", err, code)
		case err == nil && !bytes.Equal(got, gotC):
			t.Fatal("the decoders make different images")
		}
	})
}

// FuzzParseFile parses and applies hostile patch files; what parses must survive a round trip.
func FuzzParseFile(f *testing.F) {
	old, new := []byte("the old image, long enough to copy"), []byte("the new image, long enough to copy")
	p, err := NewFile(old, new, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(AppendFile(nil, p))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseFile(b)
		if err != nil {
			return
		}
		if p.Params.NewSize < 1<<16 {
			p.Apply(old)
		}
		if !bytes.Equal(AppendFile(nil, p), b) {
			t.Fatal("a parsed file changes when written")
		}
	})
}

// FuzzEncode checks that whatever is encoded decodes to the same, in Go and in C.
func FuzzEncode(f *testing.F) {
	f.Add([]byte("abcdefgh"), []byte("abcdxefgh"), uint8(0))
	f.Add(binary.LittleEndian.AppendUint64(nil, 0x4770b5104800f000), []byte{}, uint8(1))
	c := startC(f)
	f.Fuzz(func(t *testing.T, old, new []byte, k uint8) {
		if len(old) > 4096 || len(new) > 4096 {
			return
		}
		p, stream, err := Encode(old, new, variant(uint64(k)*9))
		if err != nil {
			t.Fatal(err)
		}
		c.t = t
		if code, got := c.decode(p, old, stream, 1+uint32(k)); code != 0 || !bytes.Equal(got, new) {
			t.Fatalf("C decoder: code %d, equal %v", code, bytes.Equal(got, new))
		}
	})
}
