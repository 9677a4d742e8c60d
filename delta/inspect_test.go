package delta

import (
	"bytes"
	"testing"

	"github.com/sower-fuota/sower/delta/internal/sample"
)

// The costs of the halfwords are what flags and literals cost, and they are where the images differ.
func TestInspectCosts(t *testing.T) {
	old, _ := sample.Pair(1, 400, 20)
	old = old[:len(old)|1-2] // of odd size
	const at, size = 5000, 24
	new := bytes.Clone(old)
	for i := range size {
		new[at+i] = byte(i*i*89 + 7*i + 31)
	}
	_, released := sample.Pair(1, 400, 20)
	for _, tt := range []struct {
		name string
		new  []byte
		o    Options
	}{
		{"one place", new, Options{}},
		{"one place, generic", new, Options{Arch: ArchNone}},
		{"release", released, Options{RAM: 8192, Map: MapRAM}},
		{"nothing", nil, Options{}},
	} {
		p, stream, err := Encode(old, tt.new, tt.o)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Inspect(p, old, stream)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.New, tt.new) {
			t.Errorf("%s: New differs from the new image", tt.name)
		}
		if p.Profile == profileStored {
			if r.Costs != nil {
				t.Errorf("%s: a stored image has costs", tt.name)
			}
			continue
		}
		if len(r.Costs) != (len(tt.new)+1)/2 {
			t.Errorf("%s: %d costs for %d bytes", tt.name, len(r.Costs), len(tt.new))
		}
		want := r.Flags
		for _, k := range r.Kinds {
			want += k.Bytes
		}
		var sum, near uint64
		for i, c := range r.Costs {
			sum += uint64(c)
			if i >= at/2 && i < (at+size)/2+16 { // the flags right behind a surprise are dear
				near += uint64(c)
			}
		}
		if got := float64(sum) / 2048; got != want {
			t.Errorf("%s: the halfwords cost %v B, flags and literals %v B", tt.name, got, want)
		}
		if all := r.Control + want; all < float64(len(stream))-2 || all > float64(len(stream))+2 {
			t.Errorf("%s: costs of %.1f B for a stream of %d", tt.name, all, len(stream))
		}
		if bytes.Equal(tt.new, new) && near*10 < sum*8 {
			t.Errorf("%s: %d of %d are spent on the change", tt.name, near, sum)
		}
	}
}
