package packages_test

import (
	"bytes"
	"encoding/hex"
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
	if turn := host(t, modem.Down{Time: at - 1, Port: 203, Group: modem.Unicast, Data: []byte{1}}); uplinks(turn) != "203:010403020100000000" {
		t.Errorf("DevVersionReq: %v", turn)
	}
}

// frames of a turn, without the one that ends it.
func work(t *testing.T, turn []modem.Message) []modem.Message {
	t.Helper()
	idle(t, turn)
	return turn[:len(turn)-1]
}

const ms = now * 1000

// join takes the device through its first turns and synchronises it: second `now` is GPS second gps.
func join(t *testing.T) {
	t.Helper()
	host(t, modem.Link{Time: ms, Joined: true, MaxPayload: 51})
	host(t, modem.Down{Time: ms, Port: 202, Group: modem.Unicast, Data: unhex(t, "01"+le32(gps-now)+"00")})
}

func TestModemMulticast(t *testing.T) {
	startModem(t, cpkg.Options{}, 0)
	join(t)
	turn := work(t, host(t, modem.Down{Time: ms, Port: 200, Group: modem.Unicast, Data: unhex(t, groupSetup(1, "04030201"))}))
	if len(turn) != 2 {
		t.Fatalf("turn %v, want SET_MC_GROUP and UP", turn)
	}
	g, ok := turn[0].(modem.SetMcGroup)
	if !ok || g.ID != 1 || !g.Defined || g.Addr != 0x01020304 || g.MinFCnt != 0 || g.MaxFCnt != 0xffffffff || g.AppSKey == g.NwkSKey {
		t.Errorf("SET_MC_GROUP %+v", turn[0])
	}
	turn = work(t, host(t, modem.Down{Time: ms + 500, Port: 200, Group: modem.Unicast, Data: unhex(t, "0401"+le32(gps+100)+"08d2ad8405")}))
	want := modem.Session{ID: 1, Class: 'C', DR: 5, Frequency: freq, Start: ms + 100_000, End: ms + 356_000}
	if len(turn) != 2 || turn[0] != want {
		t.Errorf("turn %+v, want %+v and UP", turn, want)
	}
	turn = work(t, host(t, modem.Down{Time: ms + 900, Port: 200, Group: modem.Unicast, Data: []byte{3, 1}}))
	if s, ok := turn[0].(modem.Session); !ok || s.ID != 1 || s.Start != s.End {
		t.Errorf("turn %+v, want the window cancelled", turn)
	}
	if g, ok := turn[1].(modem.SetMcGroup); !ok || g != (modem.SetMcGroup{ID: 1}) {
		t.Errorf("turn %+v, want the group forgotten", turn)
	}
}

func TestModemResets(t *testing.T) {
	for _, tt := range []struct {
		name   string
		state  uint8
		m      modem.Message
		reason modem.Reason
	}{
		{"host", 0, modem.ResetReq{}, modem.ResetAsked},
		{"reboot command", 0, modem.Down{Time: ms, Port: 203, Group: modem.Unicast, Data: []byte{2, 0, 0, 0, 0}}, modem.ResetAsked},
		{"install", 3, modem.Down{Time: ms, Port: 203, Group: modem.Unicast, Data: []byte{2, 0, 0, 0, 0}}, modem.ResetInstall},
	} {
		startModem(t, cpkg.Options{}, 0)
		join(t)
		cpkg.SetImage(tt.state, 7)
		turn := host(t, tt.m)
		if len(turn) == 0 || turn[len(turn)-1] != (modem.Reset{Reason: tt.reason}) || !cpkg.ResetWanted() {
			t.Errorf("%s: turn %+v, reset wanted %v; want RESET %d at its end", tt.name, turn, cpkg.ResetWanted(), tt.reason)
		}
		if turn := host(t, modem.Tick{Time: ms + 5000}); len(turn) != 0 {
			t.Errorf("%s: a device that waits for its reset said %+v", tt.name, turn)
		}
		cpkg.ModemInit(cpkg.Options{}, 0, 0)
		if got := idle(t, told(t)); got != 0 || cpkg.ResetWanted() {
			t.Errorf("%s: after the boot idle until %d, reset wanted %v", tt.name, got, cpkg.ResetWanted())
		}
	}
}

// The self-test of the application decides over an image on trial in the first turn that knows the time.
func TestModemTrial(t *testing.T) {
	for _, tt := range []struct {
		verdict uint8
		open    int
		reason  modem.Reason
		cause   uint8
	}{
		{causeSelfTest, 0, modem.ResetAsked, causeSelfTest},
		{0, -causeNoRAM, modem.ResetFault, causeNoRAM},
	} {
		cpkg.Reset()
		cpkg.SetBoot(cpkg.BootTrial, 0)
		cpkg.SetResults(0, 0, tt.open)
		cpkg.ModemInit(cpkg.Options{}, 0, tt.verdict)
		told(t)
		turn := host(t, modem.Tick{Time: ms})
		if len(turn) == 0 || turn[len(turn)-1] != (modem.Reset{Reason: tt.reason}) {
			t.Errorf("turn %+v, want RESET %d at its end", turn, tt.reason)
		}
		if c := cpkg.Counted(); c.Rejects != 1 || c.RejectCause != tt.cause {
			t.Errorf("%+v, want a reject for %d", c, tt.cause)
		}
	}
	cpkg.Reset()
	cpkg.SetBoot(cpkg.BootTrial, 0)
	cpkg.ModemInit(cpkg.Options{Confirm: cpkg.ConfirmSelfTest}, 0, 0)
	told(t)
	host(t, modem.Tick{Time: ms})
	if c := cpkg.Counted(); c.Confirms != 1 {
		t.Errorf("%+v, want the image confirmed", c)
	}
}

// The shell resets, so that an image on trial that finds no services uses up its boots.
func TestModemNoServices(t *testing.T) {
	cpkg.Reset()
	cpkg.SetServices(cpkg.NoServices)
	cpkg.ModemInit(cpkg.Options{}, 0, 0)
	if turn := told(t); len(turn) != 1 || idle(t, turn) != 0 {
		t.Errorf("after the boot %+v, want nothing but the end of the turn", turn)
	}
	turn := host(t, modem.Tick{Time: ms})
	if len(turn) != 2 || turn[0] != (modem.Console{Text: "no update possible, cause 33"}) || turn[1] != (modem.Reset{Reason: modem.ResetFault}) {
		t.Errorf("turn %+v, want the cause and RESET", turn)
	}
	if c := cpkg.Counted(); c != (cpkg.Counts{}) || !cpkg.ResetWanted() {
		t.Errorf("%+v, want nothing called, and a reset", c)
	}
}

// Heartbeats keep a class A device reachable, and keep out of class C windows.
func TestModemHeartbeat(t *testing.T) {
	startModem(t, cpkg.Options{}, 600)
	join(t)
	host(t, modem.Down{Time: ms, Port: 200, Group: modem.Unicast, Data: unhex(t, groupSetup(0, "04030201"))})
	host(t, modem.Down{Time: ms, Port: 200, Group: modem.Unicast, Data: unhex(t, "0400"+le32(gps+3000)+"0bd2ad8405")})
	from, to := uint64(ms+3000_000), uint64(ms+(3000+2048)*1000)
	var beats []uint64
	at := uint64(ms)
	for at < ms+7200_000 {
		turn := host(t, modem.Tick{Time: at})
		if u := uplinks(turn); strings.HasPrefix(u, "2:") {
			expect(t, "heartbeat", u, "2:040302010100")
			beats = append(beats, at)
		}
		at = idle(t, turn)
	}
	if len(beats) < 6 || beats[0] > ms+40_000 {
		t.Fatalf("heartbeats at %v", beats)
	}
	for i, b := range beats {
		if b >= from && b < to {
			t.Errorf("heartbeat at %d ms, inside the window %d..%d", b, from, to)
		}
		if i > 0 && (b-beats[i-1] < 550_000 || b-beats[i-1] > 650_000) && beats[i-1] > to {
			t.Errorf("%d ms between heartbeats, want about 600 s", b-beats[i-1])
		}
	}
	// The counter of resets outlives a reset.
	cpkg.ModemInit(cpkg.Options{}, 600, 0)
	host(t, modem.Link{Time: at, Joined: true, MaxPayload: 51})
	turn := host(t, modem.Tick{Time: at + 60_000})
	if u := uplinks(turn); !strings.Contains(u, "2:040302010200") {
		t.Errorf("after a reset: %s, want two resets counted", u)
	}
}

func TestModemLink(t *testing.T) {
	startModem(t, cpkg.Options{}, 600)
	host(t, modem.Link{Time: ms, Joined: true, MaxPayload: 51})
	host(t, modem.Link{Time: ms, Joined: false, MaxPayload: 51})
	if u := uplinks(host(t, modem.Tick{Time: ms + 3600_000})); u != "" {
		t.Errorf("uplinks without a network: %s", u)
	}
	// A new data rate is no new join: neither clock request nor heartbeat comes sooner for it.
	from := uint64(ms + 3600_000)
	count := 0
	for at := from; at < from+60_000; at += 1000 {
		if u := uplinks(host(t, modem.Link{Time: at, Joined: true, MaxPayload: 11})); u != "" {
			count += len(strings.Fields(u))
		}
	}
	if count != 2 {
		t.Errorf("%d uplinks in a minute of changing data rates, want one clock request and one heartbeat", count)
	}
	turn := host(t, modem.Down{Time: from + 60_000, Port: 203, Group: modem.Unicast, Data: []byte{1, 1}})
	if u := uplinks(turn); u != "203:010403020100000000 203:010403020100000000" {
		t.Errorf("two DevVersionReq over 11 bytes: %s", u)
	}
}

func TestModemBadFrames(t *testing.T) {
	startModem(t, cpkg.Options{}, 0)
	for _, f := range []modem.Frame{
		{Type: 0x7f}, {Type: 0}, {Type: modem.TypeUp, Payload: make([]byte, 320)}, {Type: modem.TypeTick, Payload: make([]byte, 7)},
		{Type: modem.TypeDown, Payload: make([]byte, 9)}, {Type: modem.TypeLink, Payload: make([]byte, 9)},
	} {
		b, err := modem.AppendFrame(nil, f)
		if err != nil {
			t.Fatal(err)
		}
		cpkg.ModemInput(b)
		turn := told(t)
		if idle(t, turn); len(turn) != 2 {
			t.Errorf("frame of type %#02x and %d bytes: turn %+v, want a complaint", f.Type, len(f.Payload), turn)
		}
	}
}

// FuzzModemFrames: both codecs write the same frame, and find the same frames in the same noise.
func FuzzModemFrames(f *testing.F) {
	f.Add(uint8(modem.TypeTick), make([]byte, 8), []byte{0xa5, 0xa5, 1, 2}, 3)
	f.Add(uint8(modem.TypeLink), make([]byte, 10), []byte{0xa5, 1, 8, 0, 1, 2, 3}, 1)
	f.Add(uint8(modem.TypeConsole), []byte("text"), []byte{0xa5, 0x85, 0xff, 0xff}, 100)
	f.Fuzz(func(t *testing.T, typ uint8, payload, noise []byte, cut int) {
		payload = payload[:min(len(payload), modem.MaxPayload)]
		noise = noise[:min(len(noise), 4096)]
		want, err := modem.AppendFrame(nil, modem.Frame{Type: modem.Type(typ), Payload: payload})
		if err != nil {
			t.Fatal(err)
		}
		cpkg.Reset()
		cpkg.ModemInit(cpkg.Options{}, 0, 0xff)
		told(t)
		cpkg.ModemSend(typ, payload)
		if got := cpkg.ModemOutput(); !bytes.Equal(got, want) {
			t.Fatalf("C wrote % x, Go % x", got, want)
		}
		stream := append(bytes.Clone(noise), want...)
		stream = append(stream, noise...)
		// What the noise claims to be a frame is not over before its CRC has come.
		stream = append(stream, make([]byte, 400)...)
		var d modem.Decoder
		d.Write(stream)
		frames := 0
		for f, ok := d.Next(); ok; f, ok = d.Next() {
			frames++
			if f.Type == modem.TypeResetReq { // the shell waits for its reset then
				break
			}
		}
		cut = 1 + cut&127
		turns := 0
		for rest := stream; len(rest) > 0; {
			n := min(cut, len(rest))
			cpkg.ModemInput(rest[:n])
			rest = rest[n:]
			for _, m := range told(t) {
				switch m.(type) {
				case modem.IdleUntil, modem.Reset:
					turns++
				}
			}
		}
		if turns != frames {
			t.Fatalf("% x: %d turns in C, %d frames in Go", stream, turns, frames)
		}
	})
}

// FuzzPackages feeds a device any messages. It must come to rest, and say nothing that is too long.
func FuzzPackages(f *testing.F) {
	f.Add([]byte{200, 0xff, 2, 0, 0}, uint8(2), uint8(51))
	for _, c := range vectorCases {
		msg, _ := hex.DecodeString(c.down)
		f.Add(append([]byte{portOf[c.pkg], 0xff, uint8(len(msg))}, msg...), c.version, uint8(11))
	}
	f.Fuzz(func(t *testing.T, in []byte, version, size uint8) {
		cpkg.Reset()
		cpkg.SetFirmware(1, 2)
		open(t, cpkg.Options{Version: version, MaxPayload: size}, now)
		limit := min(max(int(size), 11), 64)
		if size == 0 {
			limit = 51
		}
		at := uint32(now)
		for len(in) >= 3 {
			n := min(int(in[2]), len(in)-3)
			cpkg.Downlink(at, 200+in[0]%26, in[1], in[3:3+n])
			for _, u := range drain(at) {
				if u == "never idle" || len(u)-4 > 2*limit {
					t.Fatalf("uplink %s, largest payload %d", u, limit)
				}
			}
			at += uint32(in[1])
			in = in[3+n:]
		}
	})
}
