package packages_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/firmware-stub/test/packages/cpkg"
)

func TestMessages(t *testing.T) {
	for _, tt := range []struct {
		name, down string
		port       uint8
		group      uint8
		up         string
	}{
		{"several commands, one uplink", "0003020303010f", 200, cpkg.Unicast, "200:00020203060307" + "0100"},
		{"unknown CID ends the message", "007f00", 200, cpkg.Unicast, "200:000202"},
		{"CID of a later version ends it", "000600", 200, cpkg.Unicast, "200:000202"},
		{"truncated command is not run", "00020201020304", 200, cpkg.Unicast, "200:000202"},
		{"empty message", "", 200, cpkg.Unicast, ""},
		{"fragment behind a command", "0008010001", 201, cpkg.Unicast, "201:000302"},
		{"port of nobody", "00", 199, cpkg.Unicast, ""},
		{"port of nobody above", "00", 205, cpkg.Unicast, ""},
		{"application port", "00", 2, cpkg.Unicast, ""},
		{"diagnostic package has no version", "00", 204, cpkg.Unicast, ""},
		{"multicast TS003", "00020a", 202, 0, ""},
		{"multicast TS005", "00010f", 200, 0, ""},
		{"multicast TS006", "0001", 203, 0, ""},
		{"multicast TS007", "000102", 225, 0, ""},
		{"multicast report", "01", 204, 0, ""},
		{"multicast set-up and delete", setup2 + "0300" + "00", 201, 0, ""},
		{"multicast, group out of range", "0101", 201, 4, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newDevice(t, cpkg.Options{})
			down(t, now, tt.port, tt.group, tt.down)
			var got []string
			for _, u := range drainUntil(now, now+60) {
				got = append(got, u[strings.Index(u, " ")+1:])
			}
			expect(t, "uplinks", strings.Join(got, " "), tt.up)
		})
	}
}

// A multicast message may hold a status request behind commands that are for one device only.
func TestMulticastSkipsUnicastCommands(t *testing.T) {
	newDevice(t, cpkg.Options{})
	cpkg.SetStatus(0, 3, 4, false, false)
	down(t, now, 201, 0, "00"+"0300"+"0101")
	got := only(drainUntil(now, now+20), 201)
	if len(got) != 1 || !strings.HasSuffix(got[0], "201:0100030004") {
		t.Errorf("uplinks %v, want one status answer", got)
	}
}

// Answers fill one uplink up to the largest payload, and go on in the next.
func TestAnswersSplit(t *testing.T) {
	for _, size := range []uint8{11, 17, 20, 44, 51, 62, 64} {
		newDevice(t, cpkg.Options{MaxPayload: size})
		down(t, now, 203, cpkg.Unicast, strings.Repeat("01", 10))
		var total int
		for _, u := range drain(now) {
			n := (len(u) - len("203:")) / 2
			if n > int(size) || n%9 != 0 || n+9 <= int(size) && total+n != 90 {
				t.Errorf("largest payload %d: uplink of %d bytes", size, n)
			}
			total += n
		}
		if total != 90 {
			t.Errorf("largest payload %d: %d bytes of answers, want 90", size, total)
		}
	}
}

// A server that never lets the device speak loses answers, not the device.
func TestQueueOverflow(t *testing.T) {
	newDevice(t, cpkg.Options{})
	for range 100 {
		down(t, now, 203, cpkg.Unicast, "01")
		down(t, now, 200, cpkg.Unicast, "00")
	}
	got := drain(now)
	if n := len(strings.Join(got, "")); n == 0 || n > 400 {
		t.Errorf("%d uplinks, %v", len(got), got)
	}
	for _, u := range got {
		if u != "203:010403020100000000" && u != "200:000202" {
			t.Errorf("uplink %s", u)
		}
	}
	expect(t, "full to two bytes", func() string {
		// 13 messages of 11 bytes, 3 of 5; the last, of 4, would need two bytes more than there are.
		for range 13 {
			down(t, now, 203, cpkg.Unicast, "01")
		}
		for range 3 {
			down(t, now, 200, cpkg.Unicast, "00")
		}
		down(t, now, 200, cpkg.Unicast, "0300")
		return fmt.Sprint(len(drain(now)))
	}(), "16")
	expect(t, "afterwards", ask(t, now, 203, "01"), "203:010403020100000000")
}

func TestNothingBeforeJoin(t *testing.T) {
	cpkg.Reset()
	if r := cpkg.Open(cpkg.Options{}, now); r != 0 {
		t.Fatal(r)
	}
	if got := drainUntil(now, now+100000); got != nil {
		t.Errorf("uplinks before the join: %v", got)
	}
	cpkg.Joined(now)
	if got := drainUntil(now, now+60); len(got) != 1 {
		t.Errorf("after the join: %v, want a clock request", got)
	}
}

func TestOpenFails(t *testing.T) {
	cpkg.Reset()
	cpkg.SetResults(0, 0, -causeNoRAM)
	if r := cpkg.Open(cpkg.Options{}, now); r != -causeNoRAM {
		t.Fatalf("sow_open = %d, want -NO_RAM", r)
	}
	cpkg.Joined(now)
	down(t, now, 203, cpkg.Unicast, "01")
	if got := drainUntil(now, now+100000); got != nil {
		t.Errorf("uplinks of a library that is not open: %v", got)
	}
	if c := cpkg.Counted(); c.Rejects != 0 {
		t.Errorf("%d rejects of an image that is not on trial", c.Rejects)
	}
}

func TestStateSize(t *testing.T) {
	// 64-bit pointers: on a microcontroller it is less.
	if n := cpkg.StateSize(); n > 700 {
		t.Errorf("struct sow without the core has %d bytes, budget 700", n)
	}
}

// The clock of the device may wrap.
func TestClockWraps(t *testing.T) {
	cpkg.Reset()
	const start = 1<<32 - 10
	open(t, cpkg.Options{}, start)
	sync(t, start, 12345)
	expect(t, "countdown", ask(t, start, 203, "03640000"), "203:03640000")
	drainUntil(start, start+99-1<<32)
	if n := cpkg.Counted().Reboots; n != 0 {
		t.Errorf("rebooted %d times before the countdown ended", n)
	}
	drain(start + 100 - 1<<32)
	if n := cpkg.Counted().Reboots; n != 1 {
		t.Errorf("rebooted %d times, want 1", n)
	}
}

func TestDiagnosticReport(t *testing.T) {
	newDevice(t, cpkg.Options{})
	expect(t, "idle", ask(t, now, 204, "01"), "204:01000000000403020100")
	ask(t, now, 201, setup2)
	expect(t, "receiving", ask(t, now, 204, "01"), "204:010200000004030201d1") // index 1, SessionCnt 0x1234
	drainUntil(now, now+5000)

	cpkg.StopWith(causeBase, true)
	down(t, now, 201, cpkg.Unicast, "080140"+strings.Repeat("00", 222))
	got := only(drainUntil(now, now+5000), 204)
	if len(got) != 1 || !strings.HasSuffix(got[0], "204:01020d020104030201d1") {
		t.Fatalf("after a refusal: %v, want one report of BASE_MISMATCH", got)
	}
	if got := only(drainUntil(now+5000, now+100000), 204); got != nil {
		t.Errorf("reported again: %v", got)
	}
}

// A whole group learns of an update at once; its reports must not.
func TestReportsAreSpread(t *testing.T) {
	seen := map[uint32]bool{}
	for i := range uint32(64) {
		newDevice(t, cpkg.Options{})
		ask(t, now, 201, "02000100020300000000000000aabbccdd") // BlockAckDelay 3: 128 s
		cpkg.SetRandom(i<<10 | 1)
		down(t, now, 201, cpkg.Unicast, "080100ffff")
		got := only(drainUntil(now, now+1000), 204)
		if len(got) != 1 || !strings.Contains(got[0], "204:010600") {
			t.Fatalf("uplinks %v, want one report of READY", got)
		}
		at := second(t, got[0])
		if at < now || at >= now+128 {
			t.Errorf("report %d s after the image was ready, want within 128 s", at-now)
		}
		seen[at] = true
	}
	if len(seen) < 48 {
		t.Errorf("64 devices reported in %d different seconds", len(seen))
	}
}

func TestBootResults(t *testing.T) {
	for _, tt := range []struct {
		state, cause uint8
		want         string
	}{
		{cpkg.BootTrial, 0, "204:010800000004030201"},
		{cpkg.BootConfirmed, 0, "204:010900000004030201"},
		{cpkg.BootReverted, causeSelfTest, "204:01081e000004030201"},
		{cpkg.BootRefused, 15, "204:01070f000004030201"},
		{0, 0, ""},
	} {
		cpkg.Reset()
		cpkg.SetFirmware(0x01020304, 0)
		cpkg.SetBoot(tt.state, tt.cause)
		open(t, cpkg.Options{}, now)
		sync(t, now, 0)
		got := only(drainUntil(now, now+100), 204)
		if tt.want == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || !strings.Contains(got[0], tt.want) {
			t.Errorf("boot state %d, cause %d: reports %v, want %s", tt.state, tt.cause, got, tt.want)
		}
		if e := cpkg.Events(); !slices.Contains(e, [2]uint8{unhex(t, tt.want[6:8])[0], tt.cause}) {
			t.Errorf("boot state %d: events %v", tt.state, e)
		}
	}
}

// A set-up that is refused has no session whose status could say why.
func TestRefusedSetupIsReported(t *testing.T) {
	newDevice(t, cpkg.Options{})
	cpkg.SetResults(-causeRefused, 0, 0)
	expect(t, "answer", ask(t, now, 201, setup2), "201:0248")
	got := only(drainUntil(now, now+100), 204)
	if len(got) != 1 || !strings.Contains(got[0], fmt.Sprintf("204:01%02x%02x", stepSetup, causeRefused)) {
		t.Errorf("reports %v, want REFUSED", got)
	}
	cpkg.SetResults(0, 0, 0)
	expect(t, "answer", ask(t, now+100, 201, setup2), "201:0240")
	expect(t, "report", ask(t, now+100, 204, "01"), "204:010200000004030201d1")
}
