package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/sower-fuota/sower/delta"
)

// anatomy says where the bytes of a patch went and how long a device decodes.
type anatomy struct {
	Segments int     `json:"segments"`
	Control  float64 `json:"map_bytes"`   // the segment map
	Flags    float64 `json:"flags_bytes"` // which halfwords are as predicted
	Kinds    []part  `json:"kinds"`
	Cycles   uint64  `json:"m4_cycles"` // an estimate
	Decode   float64 `json:"m4_80mhz_s"`
	stream   int
}

// part is one kind of halfword.
type part struct {
	Name      string  `json:"name"`
	Halfwords int     `json:"halfwords"` // in the new image
	Literals  int     `json:"literals"`  // of which had to be sent
	Bytes     float64 `json:"bytes"`
}

// explain decodes a patch against the image that it is for.
func (d *document) explain(in inspector, p delta.Params, base [8]byte, stream []byte) error {
	old, err := readImage(in.warn, "old image", in.oldFile)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(old.Data); !bytes.Equal(sum[:len(base)], base[:]) {
		return fmt.Errorf("old image %s is not the base of this patch: SHA-256 %x…, want %x…", in.oldFile, sum[:len(base)], base)
	}
	r, err := delta.Inspect(p, old.Data, stream)
	if err != nil {
		return err
	}
	a := &anatomy{Segments: r.Segments, Control: r.Control, Flags: r.Flags, Cycles: r.Cycles,
		Decode: float64(r.Cycles) / 80e6, stream: len(stream)}
	for _, k := range r.Kinds {
		a.Kinds = append(a.Kinds, part{k.Name, k.Halfwords, k.Literals, k.Bytes})
	}
	d.anatomy = a
	return nil
}

func (a *anatomy) print(w io.Writer) {
	if a.Segments == 0 && len(a.Kinds) == 0 {
		fmt.Fprint(w, "\nthe stream holds the new image as it is\n")
		return
	}
	fmt.Fprintf(w, "\nwhere the %d bytes of the stream went (%d segments):\n", a.stream, a.Segments)
	line := func(name string, bytes float64, note string) {
		fmt.Fprintf(w, "  %-30s %9.1f B  %5.1f %%%s\n", name, bytes, 100*bytes/float64(max(a.stream, 1)), note)
	}
	line("segment map", a.Control, "")
	line("flags: as predicted or not", a.Flags, "")
	for _, k := range a.Kinds {
		line(k.Name, k.Bytes, fmt.Sprintf("  %d of %d halfwords", k.Literals, k.Halfwords))
	}
	fmt.Fprintf(w, "decoding takes about %s of an 80 MHz Cortex-M4 (%.0f million cycles)\n", roundTime(a.Decode), float64(a.Cycles)/1e6)
}
