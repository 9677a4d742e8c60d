package packages_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/firmware-stub/test/packages/cpkg"
)

// told parses what the shell has written since the last call.
func told(t *testing.T) (out []modem.Message) {
	t.Helper()
	var d modem.Decoder
	d.Write(bytes.Clone(cpkg.ModemOutput()))
	for f, ok := d.Next(); ok; f, ok = d.Next() {
		f.Payload = bytes.Clone(f.Payload)
		m, err := f.Message()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// host sends one message and returns the turn.
func host(t *testing.T, m modem.Message) []modem.Message {
	t.Helper()
	b, err := modem.Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	cpkg.ModemInput(b)
	return told(t)
}

// idle returns the end of a turn in ms and checks that it is its end and only end.
func idle(t *testing.T, turn []modem.Message) uint64 {
	t.Helper()
	for i, m := range turn {
		if v, ok := m.(modem.IdleUntil); ok {
			if i != len(turn)-1 {
				t.Fatalf("IDLE_UNTIL is message %d of %v", i, turn)
			}
			return v.Time
		}
	}
	t.Fatalf("turn without IDLE_UNTIL: %v", turn)
	return 0
}

// uplinks returns the UP frames as "port:hex".
func uplinks(turn []modem.Message) string {
	var out []string
	for _, m := range turn {
		if up, ok := m.(modem.Up); ok {
			out = append(out, fmt.Sprintf("%d:%x", up.Port, up.Data))
		}
	}
	return strings.Join(out, " ")
}

func startModem(t *testing.T, o cpkg.Options, heartbeat uint32) {
	t.Helper()
	cpkg.Reset()
	cpkg.SetFirmware(0x01020304, 0x01020305)
	cpkg.ModemInit(o, heartbeat, 0)
	if got := idle(t, told(t)); got != 0 {
		t.Fatalf("after power-up IDLE_UNTIL %d, want 0", got)
	}
}

func TestModemTurn(t *testing.T) {
	startModem(t, cpkg.Options{}, 3600)
	if got := idle(t, host(t, modem.Tick{Time: 5_000_500})); got != modem.Never {
		t.Errorf("not joined, nothing to do: idle until %d, want never", got)
	}
	at := idle(t, host(t, modem.Link{Time: 5_000_500, Joined: true, MaxPayload: 51}))
	var beat, clock bool
	for range 20 {
		turn := host(t, modem.Tick{Time: at})
		for _, m := range turn {
			if up, ok := m.(modem.Up); ok {
				beat = beat || up.Port == 2 && fmt.Sprintf("%x", up.Data) == "040302010100"
				clock = clock || up.Port == 202 && len(up.Data) == 6
			}
		}
		next := idle(t, turn)
		if next <= at {
			t.Fatalf("idle until %d in the turn of %d", next, at)
		}
		at = next
	}
	if !beat || !clock {
		t.Errorf("heartbeat %v, clock request %v; want both", beat, clock)
	}
	expect(t, "DevVersionReq", uplinks(host(t, modem.Down{Time: at, Port: 203, Group: modem.Unicast, Data: []byte{1}})),
		"203:010403020100000000")
}
