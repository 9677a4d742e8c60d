package radio_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/simulator/radio"
)

// FuzzReadTrace: what is read can be replayed, and written and read again to the same.
func FuzzReadTrace(f *testing.F) {
	f.Add("device,time_s,lost\na,0,0\na,1.5,1\nb,2,0\n")
	f.Add("device,time_s,lost\n\"x,y\",1e9,1\n,0.000000001,0\n")
	f.Fuzz(func(t *testing.T, text string) {
		trace, err := radio.ReadTrace(strings.NewReader(text))
		if err != nil {
			return
		}
		p, err := trace.New(1)
		if err != nil {
			t.Fatal(err)
		}
		for d := range uint64(5) {
			p.Lost(radio.Link{Device: d, Stream: d & 1}, radio.Slot{At: time.Duration(d) * time.Hour})
		}
		var a, b bytes.Buffer
		if err := trace.Write(&a); err != nil {
			t.Fatal(err)
		}
		again, err := radio.ReadTrace(bytes.NewReader(a.Bytes()))
		if err != nil {
			t.Fatalf("%q was written as %q: %v", text, a.String(), err)
		}
		if err := again.Write(&b); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Fatalf("%q, then %q", a.String(), b.String())
		}
	})
}
