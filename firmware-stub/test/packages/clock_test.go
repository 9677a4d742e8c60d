package packages_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/firmware-stub/test/packages/cpkg"
)

// requests returns the seconds of the AppTimeReq among uplinks, after checking each DeviceTime and parameter.
func requests(t *testing.T, uplinks []string, offset uint32, param uint8) (at []uint32) {
	t.Helper()
	for _, u := range only(uplinks, 202) {
		s := second(t, u)
		if want := fmt.Sprintf("%d 202:01%s%02x", s, le32(s+offset), param); u != want {
			t.Errorf("AppTimeReq %s, want %s", u, want)
		}
		at = append(at, s)
	}
	return at
}

func TestClockUntilSynced(t *testing.T) {
	cpkg.Reset()
	open(t, cpkg.Options{}, now)
	if got := cpkg.GPSTime(now); got != 0 {
		t.Errorf("GPS time %d before the first answer, want 0", got)
	}
	at := requests(t, drainUntil(now, now+86400), 0, 0x10)
	if len(at) < 5 || len(at) > 20 || at[0] > now+8 {
		t.Errorf("unanswered requests at %v, want the first soon and then ever fewer", at)
	}
	for i := 2; i < len(at); i++ {
		if at[i]-at[i-1] < 64 {
			t.Errorf("%d s between two unanswered requests", at[i]-at[i-1])
		}
	}
}

func TestClockAnswer(t *testing.T) {
	cpkg.Reset()
	open(t, cpkg.Options{}, now)
	drainUntil(now, now+10)
	down(t, now+20, 202, cpkg.Unicast, "01"+le32(5000)+"01") // token 1 was never sent
	if got := cpkg.GPSTime(now + 20); got != 0 {
		t.Errorf("GPS time %d after an answer to another request, want 0", got)
	}
	down(t, now+20, 202, cpkg.Unicast, "01"+le32(5000)+"00")
	down(t, now+20, 202, cpkg.Unicast, "01"+le32(5000)+"00") // repeated: the token is used up
	if got := cpkg.GPSTime(now + 20); got != now+20+5000 {
		t.Errorf("GPS time %d, want %d", got, now+5020)
	}
	at := requests(t, drainUntil(now+20, now+140000), 5000, 0x01)
	if len(at) != 2 || at[0]-now-20 < 65536-30 || at[0]-now-20 > 65536+30 {
		t.Errorf("requests of a synchronised device at %v, want two, 65536 s apart give or take 30", at)
	}
	if got := cpkg.Counted().GPS; got < now+5000 {
		t.Errorf("the core was told GPS time %d", got)
	}
}

func TestClockPeriodicity(t *testing.T) {
	newDevice(t, cpkg.Options{})
	expect(t, "answer", ask(t, now, 202, "02f3"), "202:0200"+le32(gps))
	for range 2 { // the second time after a reset
		at := requests(t, drainUntil(now, now+5000), gps-now, 0x01)
		if len(at) != 4 {
			t.Errorf("requests at %v, want four in 5000 s", at)
		}
		for i := 1; i < len(at); i++ {
			if d := at[i] - at[i-1]; d < 994 || d > 1054 {
				t.Errorf("%d s between requests, want 1024 give or take 30", d)
			}
		}
		open(t, cpkg.Options{}, now)
		sync(t, now, gps-now)
	}
}

func TestForceResync(t *testing.T) {
	newDevice(t, cpkg.Options{})
	down(t, now, 202, cpkg.Unicast, "03f8") // zero transmissions, reserved bits set
	if got := only(drain(now), 202); len(got) != 0 {
		t.Errorf("zero transmissions gave %v", got)
	}
	down(t, now, 202, cpkg.Unicast, "0303")
	at := requests(t, drainUntil(now, now+1000), gps-now, 0x01)
	if len(at) != 3 || at[0] != now || at[1]-at[0] < 10 {
		t.Errorf("requests at %v, want three", at)
	}
	down(t, now+1000, 202, cpkg.Unicast, "0307")
	drain(now + 1000)
	down(t, now+1002, 202, cpkg.Unicast, "01"+le32(0)+"01")
	if got := only(drainUntil(now+1002, now+70000), 202); len(got) != 1 || second(t, got[0]) < now+60000 {
		t.Errorf("requests after a valid answer: %v, want the periodic one", got)
	}
}

// Corrections at the end of the range are parts of a larger one (TS003-2.0.0: 2050 from a clock at 0).
func TestClockSaturation(t *testing.T) {
	cpkg.Reset()
	open(t, cpkg.Options{}, 0)
	drainUntil(0, 10)
	got := ask(t, 20, 202, "01ffffff7f00")
	expect(t, "second request", got, fmt.Sprintf("202:01%s11", le32(20+0x7fffffff)))
	expect(t, "no third request", ask(t, 22, 202, "018138a50301"), "")
	if got := cpkg.GPSTime(22); got != 22+2208643200 {
		t.Errorf("GPS time %d, want %d", got, 22+2208643200)
	}
}

// A class A uplink in a class C window costs a fragment: what nobody asked for waits.
func TestQuietInWindow(t *testing.T) {
	newDevice(t, cpkg.Options{})
	groups(0, "04030201")(t)
	ask(t, now, 200, "0400"+le32(gps+100)+"08d2ad8405") // now+100 .. now+356
	drainUntil(now, now+100)
	for _, tt := range []struct{ at, want uint32 }{{now + 99, now + 99}, {now + 100, now + 356}, {now + 355, now + 356}, {now + 356, now + 356}} {
		if got := cpkg.QuietUntil(tt.at); got != tt.want {
			t.Errorf("quiet until %d at %d, want %d", got, tt.at, tt.want)
		}
	}
	// Ping slots leave room for uplinks.
	ask(t, now+100, 200, "0500"+le32(gps+105)+"0828768403")
	if got := cpkg.QuietUntil(now + 110); got != now+110 {
		t.Errorf("quiet until %d in a class B window, want no quiet", got)
	}
	ask(t, now+110, 200, "0400"+le32(gps+110)+"08d2ad8405") // now+110 .. now+366
	down(t, now+110, 202, cpkg.Unicast, "0302")
	expect(t, "an answer does not wait", ask(t, now+110, 203, "04"), "203:0400")
	at := requests(t, drainUntil(now+110, now+1000), gps-now, 0x01)
	if len(at) != 2 || at[0] != now+366 {
		t.Errorf("forced requests at %v, want them behind the window, at %d", at, now+366)
	}
	if strings.Contains(strings.Join(drain(now+1000), " "), "never") {
		t.Error("never idle")
	}
}
