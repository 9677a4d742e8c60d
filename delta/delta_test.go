package delta

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"github.com/sower-fuota/sower/delta/internal/sample"
)

// pair returns the k-th generated pair: code-like old content and a new image made from it.
func pair(k uint64) (name string, old, new []byte) {
	r := rand.New(rand.NewPCG(k, 1))
	fill := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
			if i >= 40 && r.IntN(3) > 0 {
				b[i] = b[i-1-r.IntN(39)]
			}
		}
		return b
	}
	old = fill(r.IntN(1 << (4 + r.IntN(9))))
	switch k % 9 {
	case 0:
		return "empty", old[:0], fill(r.IntN(300))
	case 1:
		return "to empty", old, nil
	case 2:
		return "equal", old, bytes.Clone(old)
	case 3:
		return "random", old, fill(r.IntN(1500))
	case 4:
		return "one byte", fill(r.IntN(2)), fill(1)
	case 5: // insertions and deletions
		new = bytes.Clone(old)
		for range r.IntN(8) {
			at := r.IntN(len(new) + 1)
			new = append(new[:at:at], append(fill(r.IntN(50)), new[at:]...)...)
			if len(new) > 30 {
				at := r.IntN(len(new) - 30)
				new = append(new[:at:at], new[at+r.IntN(30):]...)
			}
		}
		return "edits", old, new
	case 6: // blocks in another order
		for range 1 + r.IntN(12) {
			if len(old) > 0 {
				a := r.IntN(len(old))
				new = append(new, old[a:min(len(old), a+r.IntN(900))]...)
			}
		}
		return "moves", old, new
	case 7: // every word shifted by a constant, as after a relocation
		new = bytes.Clone(old)
		for i := 3; i < len(new); i += 4 {
			new[i-3] += 16
		}
		return "relocation", old, new
	default: // scattered changes
		new = bytes.Clone(old)
		for range r.IntN(40) {
			if len(new) > 0 {
				new[r.IntN(len(new))] = byte(r.Uint32())
			}
		}
		return "changes", old, new
	}
}

// variant returns the k-th combination of what a caller may ask for.
func variant(k uint64) Options {
	base := uint32(0x08000000)
	o := Options{RAM: []uint32{5120, 8192, 16384}[k/9%3]}
	if k/27%2 != 0 {
		o.Map = MapRAM
	}
	switch k / 54 % 3 {
	case 1:
		o.Arch, o.LinkBase = ArchThumb, &base
	case 2:
		o.Arch = ArchNone
	}
	return o
}

// pairs is how many generated pairs the property test runs.
func pairs() uint64 {
	if os.Getenv("SOWER_PROOF") != "" {
		return 10000
	}
	return 324
}

func TestRoundTripGoAndC(t *testing.T) {
	c := startC(t)
	for k := range pairs() {
		name, old, new := pair(k)
		p, stream, err := Encode(old, new, variant(k))
		if err != nil {
			t.Fatalf("pair %d (%s): %v", k, name, err)
		}
		got, err := Decode(p, old, stream)
		if err != nil || !bytes.Equal(got, new) {
			t.Fatalf("pair %d (%s): Go decoder: %v, equal %v", k, name, err, bytes.Equal(got, new))
		}
		code, got := c.decode(p, old, stream, 1+uint32(k*k)%700)
		if code != 0 || !bytes.Equal(got, new) {
			t.Fatalf("pair %d (%s): C decoder: code %d, %d of %d bytes, equal %v",
				k, name, code, len(got), len(new), bytes.Equal(got, new))
		}
	}
}

func TestLargeImages(t *testing.T) {
	c := startC(t)
	r := rand.New(rand.NewPCG(7, 7))
	old := make([]byte, 1<<20)
	for i := range old {
		old[i] = byte(r.Uint32())
	}
	new := append(bytes.Clone(old[500000:]), old[:500001]...)
	p, stream, err := Encode(old, new, Options{Arch: ArchNone})
	if err != nil {
		t.Fatal(err)
	}
	if len(stream) > 64 {
		t.Errorf("two swapped halves cost %d bytes", len(stream))
	}
	if code, got := c.decode(p, old, stream, 4096); code != 0 || !bytes.Equal(got, new) {
		t.Errorf("C decoder: code %d, equal %v", code, bytes.Equal(got, new))
	}
}

// TestDamage damages streams: either decoder reports it or yields a wrong image, both do the
// same, and neither touches memory it does not own.
func TestDamage(t *testing.T) {
	c := startC(t)
	r := rand.New(rand.NewPCG(3, 3))
	for k := range uint64(90) {
		_, old, new := pair(k)
		p, stream, err := Encode(old, new, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(stream) == 0 {
			continue
		}
		bad := bytes.Clone(stream)
		switch r.IntN(3) {
		case 0:
			bad = bad[:r.IntN(len(bad))]
		case 1:
			bad = append(bad, byte(r.Uint32()))
		default:
			bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
		}
		got, err := Decode(p, old, bad)
		code, gotC := c.decode(p, old, bad, 256)
		if (err == nil) != (code == 0) {
			t.Errorf("pair %d: Go says %v, C says %d", k, err, code)
		}
		if err != nil && !errors.Is(err, ErrStream) {
			t.Errorf("pair %d: %v does not wrap ErrStream", k, err)
		}
		if err == nil && !bytes.Equal(got, gotC) {
			t.Errorf("pair %d: the decoders make different images of a damaged stream", k)
		}
	}
}

func TestRefusals(t *testing.T) {
	old, new := []byte("the old image, long enough to copy"), []byte("the new image, long enough to copy")
	p, stream, err := Encode(old, new, Options{})
	if err != nil {
		t.Fatal(err)
	}
	with := func(f func(*Params)) Params { q := p; f(&q); return q }
	for _, tt := range []struct {
		name   string
		p      Params
		old    []byte
		stream []byte
		want   error
	}{
		{"unknown profile", with(func(p *Params) { p.Profile = 200 }), old, stream, ErrParams},
		{"unaligned link base", with(func(p *Params) { p.LinkBase = 1 }), old, stream, ErrParams},
		{"image too large", with(func(p *Params) { p.NewSize = MaxImage + 1 }), old, stream, ErrParams},
		{"base of another length", p, old[1:], stream, ErrBase},
		{"empty stream", p, old, nil, ErrStream},
		{"more after the end", p, old, append(bytes.Clone(stream), make([]byte, 8)...), ErrStream},
	} {
		if _, err := Decode(tt.p, tt.old, tt.stream); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, _, err := Encode(old, new, Options{RAM: 16}); !errors.Is(err, ErrBudget) {
		t.Errorf("16 bytes of memory: %v, want %v", err, ErrBudget)
	}
}

func TestFile(t *testing.T) {
	old, new := []byte("the old image, long enough to copy"), []byte("the new image, long enough to copy")
	f, err := NewFile(old, new, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f.Params.LinkBase, f.Params.ScratchBytes = 0x12345600, 640
	b := AppendFile(nil, f)
	g, err := ParseFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if g.Params != f.Params {
		t.Errorf("params %+v, want %+v", g.Params, f.Params)
	}
	if got, err := g.Apply(old); err != nil || !bytes.Equal(got, new) {
		t.Errorf("Apply: %v, %q", err, got)
	}
	if _, err := g.Apply(new); !errors.Is(err, ErrBase) {
		t.Errorf("another base: %v, want ErrBase", err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x10
		g, err := ParseFile(bad)
		if err == nil {
			var got []byte
			if got, err = g.Apply(old); err == nil && !bytes.Equal(got, new) {
				t.Errorf("byte %d: a damaged file gives a wrong image", i)
			}
		}
		_ = fmt.Sprint(err)
	}
	for i := range b {
		if _, err := ParseFile(b[:i]); !errors.Is(err, ErrFile) {
			t.Errorf("%d of %d bytes: %v, want ErrFile", i, len(b), err)
		}
	}
}

// A hostile stream of a few bytes may say the likeliest thing for megabytes, at the highest price.
func TestDecodeGivesUp(t *testing.T) {
	hostile := bytes.Repeat([]byte{0xff}, 100)
	p := Params{Profile: profile16, Options: optionWindow, NewSize: MaxImage}
	c := newCodec(p, nil, make([]byte, p.NewSize), newDecoder(hostile))
	const most = 1150*MaxImage/2 + 1e8 // every halfword at the least, and a little
	c.most = most
	if err := c.run(nil, 0); !errors.Is(err, ErrStream) || !errors.Is(err, errCycles) || c.cycles() > most*11/10 {
		t.Errorf("%v after %d cycles, want %v after %d", err, c.cycles(), errCycles, uint64(most))
	}
	if os.Getenv("SOWER_PROOF") == "" {
		return
	}
	if _, err := Decode(p, nil, bytes.Repeat(hostile, 50)); !errors.Is(err, errCycles) {
		t.Errorf("%v, want %v", err, errCycles)
	}
}

// The alignment keeps the ways that others go through, not every step of every way: an image of 8 MiB, the largest,
// shall not take gigabytes.
func TestAlignmentMemory(t *testing.T) {
	old, new := sample.Pair(1, 400, 300)
	new = pad(new)
	a := newAligner(old, new, sample.Base, true, false)
	literal := make([]int32, len(new)/2)
	for i := range literal {
		literal[i] = 200
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	segs := a.align(literal, segmentCost)
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / uint64(len(new)); each > 32 || len(segs) < 20 {
		t.Errorf("%d segments by %d bytes of memory for each byte of the image, want at most 32", len(segs), each)
	}
}
