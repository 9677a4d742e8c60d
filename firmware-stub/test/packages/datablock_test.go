package packages_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/firmware-stub/test/packages/cpkg"
)

func TestSetupFields(t *testing.T) {
	newDevice(t, cpkg.Options{Version: 1})
	ask(t, now, 201, setup1)
	want := cpkg.Session{Matrix: 1, McMask: 5, AckDelay: 6, FragSize: 222, Padding: 17, NbFrag: 300, Descriptor: [4]byte{1, 2, 3, 4}}
	if got, ok := cpkg.SessionOf(1); !ok || got != want {
		t.Errorf("v1 session %+v, want %+v", got, want)
	}
	newDevice(t, cpkg.Options{})
	ask(t, now, 201, setup2)
	want.Matrix, want.AckWanted, want.HasMIC, want.Cnt, want.MIC = 2, 1, 1, 4660, [4]byte{0xa1, 0xb2, 0xc3, 0xd4}
	if got, ok := cpkg.SessionOf(1); !ok || got != want {
		t.Errorf("v2 session %+v, want %+v", got, want)
	}
}

func TestSetupRefused(t *testing.T) {
	for _, tt := range []struct{ name, control, answer string }{
		{"algorithm 1", "0200" + "0100" + "02" + "08" + "00", "201:0201"},
		{"no fragments", "0200" + "0000" + "02" + "00" + "00", "201:0201"},
		{"no bytes", "0200" + "0100" + "00" + "00" + "00", "201:0201"},
		{"padding as long as a fragment", "0200" + "0100" + "02" + "00" + "02", "201:0201"},
		{"too many fragments", "0230" + "0040" + "02" + "00" + "00", "201:02c2"},
	} {
		newDevice(t, cpkg.Options{})
		expect(t, tt.name, ask(t, now, 201, tt.control+"00000000"+"0000aabbccdd"), tt.answer)
		if n := cpkg.Counted().Sessions; n != 0 {
			t.Errorf("%s: the core was asked %d times", tt.name, n)
		}
	}
}

func TestFragments(t *testing.T) {
	for _, tt := range []struct {
		name, message string
		group         uint8
		n             int
	}{
		{"unicast", "08050011223344", cpkg.Unicast, 1},
		{"group of the mask", "08050011223344", 2, 1},
		{"group outside the mask", "08050011223344", 1, 0},
		{"number zero", "08000011223344", cpkg.Unicast, 0},
		{"other index", "08054011223344", cpkg.Unicast, 0},
		{"no data", "080500", cpkg.Unicast, 0},
		{"cut in the header", "0805", cpkg.Unicast, 0},
		{"too short", "080500112233", cpkg.Unicast, 0},
		{"too long", "0805001122334455", cpkg.Unicast, 0},
		{"largest number", "08ff3f11223344", cpkg.Unicast, 1},
	} {
		newDevice(t, cpkg.Options{})
		expect(t, "set-up", ask(t, now, 201, "02040a0004000000000000"+"0000aabbccdd"), "201:0200")
		down(t, now, 201, tt.group, tt.message)
		if got := cpkg.Counted(); got.Fragments != tt.n || tt.n == 1 && fmt.Sprintf("%02x%02x", got.LastN&0xff, got.LastN>>8) != tt.message[2:6] {
			t.Errorf("%s: the core took %d fragments, the last %d; want %d", tt.name, got.Fragments, got.LastN, tt.n)
		}
		if got := drain(now); len(got) != 0 {
			t.Errorf("%s: answered %v", tt.name, got)
		}
	}
}

func TestStatusDelay(t *testing.T) {
	for delay := range uint32(8) {
		var latest, earliest uint32 = 0, 1 << 31
		for seed := range uint32(32) {
			newDevice(t, cpkg.Options{})
			ask(t, now, 201, fmt.Sprintf("02010a0004%02x00000000000000aabbccdd", delay))
			cpkg.SetRandom(seed<<11 | 1)
			down(t, now, 201, 0, "0101")
			down(t, now, 201, 0, "0101") // repeated: one answer, and no later
			got := only(drainUntil(now, now+5000), 201)
			if len(got) != 1 || !strings.HasSuffix(got[0], "201:010000000a") {
				t.Fatalf("answers %v, want one", got)
			}
			latest, earliest = max(latest, second(t, got[0])-now), min(earliest, second(t, got[0])-now)
		}
		window := uint32(16) << delay
		if latest >= window || latest < window*9/10 || earliest > window/10 {
			t.Errorf("BlockAckDelay %d: answers after %d..%d s, want them over %d s", delay, earliest, latest, window)
		}
	}
}

func TestParticipants(t *testing.T) {
	for _, tt := range []struct {
		name    string
		index   int
		all     int
		group   uint8
		missing uint16
		want    string
	}{
		{"all, complete", 0, 1, 0, 0, "201:0100070000"},
		{"missing only, complete", 0, 0, 0, 0, ""},
		{"missing only, incomplete", 0, 0, 0, 2, "201:0100070002"},
		{"many missing", 0, 1, cpkg.Unicast, 300, "201:01000700ff"},
		{"no session, unicast", 1, 0, cpkg.Unicast, 0, "201:0104"},
		{"no session, multicast to all", 1, 1, 0, 0, "201:0104"},
		{"no session, multicast to those that miss", 1, 0, 0, 0, ""},
	} {
		newDevice(t, cpkg.Options{})
		cpkg.SetStatus(0, 7, tt.missing, false, false)
		down(t, now, 201, tt.group, fmt.Sprintf("01%02x", tt.index<<1|tt.all))
		var got []string
		for _, u := range only(drainUntil(now, now+5000), 201) {
			got = append(got, u[strings.Index(u, " ")+1:])
		}
		expect(t, tt.name, strings.Join(got, " "), tt.want)
	}
}

func TestAcknowledgement(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer string // sent after the first request
		want   int
	}{
		{"never answered", "", 3},
		{"answered", "0400", 1},
		{"answered for another session", "0401", 3},
		{"deleted", "0300", 1},
	} {
		newDevice(t, cpkg.Options{})
		ask(t, now, 201, "02000100024000000000000000aabbccdd")
		down(t, now, 201, cpkg.Unicast, "080100ffff")
		got := only(drainUntil(now, now+20), 201)
		if tt.answer != "" {
			down(t, now+20, 201, cpkg.Unicast, tt.answer)
		}
		for _, u := range only(drainUntil(now+20, now+10000), 201) {
			if strings.Contains(u, "201:04") {
				got = append(got, u)
			}
		}
		if len(got) != tt.want || !strings.HasSuffix(got[0], "201:0400") {
			t.Errorf("%s: %v, want %d requests", tt.name, got, tt.want)
		}
	}
	// After the install the session is still there, and is not acknowledged again.
	cpkg.Reset()
	cpkg.SetInstalled(0, stepRunning)
	open(t, cpkg.Options{}, now)
	if got := only(drainUntil(now, now+5000), 201); got != nil {
		t.Errorf("after the install: %v", got)
	}
	// Version 1 knows no acknowledgement, and no answer to one.
	newDevice(t, cpkg.Options{Version: 1})
	ask(t, now, 201, "02000100024000"+"00000000")
	down(t, now, 201, cpkg.Unicast, "080100ffff")
	if got := only(drainUntil(now, now+5000), 201); got != nil {
		t.Errorf("version 1: %v", got)
	}
	expect(t, "version 1: CID 4 ends the message", ask(t, now+5000, 201, "00040000"), "201:000301")
}

// A phase that the user put off is proposed again.
func TestDeferral(t *testing.T) {
	newDevice(t, cpkg.Options{})
	ask(t, now, 201, "02000100020000000000000000aabbccdd")
	cpkg.StopWith(causeUser, false)
	down(t, now, 201, cpkg.Unicast, "080100ffff")
	drainUntil(now, now+2000)
	cpkg.StopWith(0, false)
	drainUntil(now+2000, now+4000)
	expect(t, "image", ask(t, now+4000, 203, "04"), "203:040305030201")
}
