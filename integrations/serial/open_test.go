//go:build linux

package serial_test

import (
	"testing"
	"time"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/integrations/serial"
)

func TestOpen(t *testing.T) {
	f := newFixture(t)
	master, path := pty(t)
	served(t, master, f.host(t, 2))
	port, err := serial.Open(path, 115200)
	if err != nil {
		t.Fatal(err)
	}
	link := serial.NewLink(port, 0)
	res, err := serial.Feed(t.Context(), link, f.full, serial.Options{RootKey: f.id.RootKey, GPS: 1_400_000_000, Loss: 0.1, Seed: 2})
	if err != nil || res.New != bundle.MakeVersion(1, 1, 0) {
		t.Fatalf("%+v, %v", res, err)
	}
	closed := make(chan error, 1)
	go func() { closed <- link.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("Close hangs")
	}
	if _, err := serial.Open(path+"9", 115200); err == nil {
		t.Error("a port that does not exist was opened")
	}
}
