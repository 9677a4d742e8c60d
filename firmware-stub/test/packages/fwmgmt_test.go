package packages_test

import (
	"strings"
	"testing"

	"github.com/sower-fuota/sower/firmware-stub/test/packages/cpkg"
)

func expectCounts(t *testing.T, what string, reboots, installs int) {
	t.Helper()
	if c := cpkg.Counted(); c.Reboots != reboots || c.Installs != installs {
		t.Errorf("%s: %d reboots and %d installs, want %d and %d", what, c.Reboots, c.Installs, reboots, installs)
	}
}

func TestReboot(t *testing.T) {
	newDevice(t, cpkg.Options{})
	// At once, but not before the answers of the same message are out.
	expect(t, "answers", ask(t, now, 203, "010200000000"), "203:010403020100000000")
	expectCounts(t, "at once", 1, 0)
	expect(t, "after the reboot was asked of the port", ask(t, now, 203, "01"), "")

	for _, tt := range []struct {
		name string
		down []string // one second apart, from now on
		at   uint32   // reboot, seconds after now; 0: none
	}{
		{"countdown", []string{"03640000"}, 100},
		{"countdown cancelled", []string{"03640000", "03ffffff"}, 0},
		{"cancelled by the other command", []string{"03640000", "02ffffffff"}, 0},
		{"overwritten", []string{"03640000", "02" + le32(gps+50)}, 50},
		{"overwritten by a later one", []string{"02" + le32(gps+50), "03640000"}, 101},
		{"a time in the past changes nothing", []string{"03640000", "02" + le32(gps-50)}, 100},
		{"time moved by the clock", []string{"02" + le32(gps+50), "T"}, 40},
		{"countdown not moved by the clock", []string{"03640000", "T"}, 100},
	} {
		newDevice(t, cpkg.Options{})
		for i, m := range tt.down {
			if m == "T" {
				down(t, now+uint32(i), 202, cpkg.Unicast, "01"+le32(10)+"01")
			} else {
				down(t, now+uint32(i), 203, cpkg.Unicast, m)
			}
			drain(now + uint32(i))
		}
		if tt.at == 0 {
			drainUntil(now+2, now+50000)
			expectCounts(t, tt.name, 0, 0)
			continue
		}
		drainUntil(now+2, now+tt.at-1)
		expectCounts(t, tt.name+", a second before", 0, 0)
		drain(now + tt.at)
		expectCounts(t, tt.name, 1, 0)
	}
}

// The clock may not be set yet: a time of day cannot be kept then.
func TestRebootTimeWithoutClock(t *testing.T) {
	cpkg.Reset()
	open(t, cpkg.Options{}, now)
	drainUntil(now, now+10)
	expect(t, "answer", ask(t, now+10, 203, "02"+le32(gps)), "203:0200000000")
}

func TestInstall(t *testing.T) {
	newDevice(t, cpkg.Options{})
	cpkg.SetImage(3, 7)
	ask(t, now, 203, "0200000000")
	expectCounts(t, "valid image", 1, 1)

	newDevice(t, cpkg.Options{})
	cpkg.SetImage(1, 7)
	ask(t, now, 203, "0200000000")
	expectCounts(t, "corrupt image", 1, 0)

	newDevice(t, cpkg.Options{})
	cpkg.SetImage(3, 7)
	cpkg.SetResults(0, -causeUser, 0)
	ask(t, now, 203, "0200000000")
	drainUntil(now, now+899)
	expectCounts(t, "put off", 0, 1)
	cpkg.SetResults(0, 0, 0)
	drainUntil(now+899, now+1000)
	expectCounts(t, "proposed again", 1, 2)

	newDevice(t, cpkg.Options{})
	cpkg.SetImage(3, 7)
	cpkg.SetResults(0, -causeRefused, 0)
	ask(t, now, 203, "0200000000")
	got := only(drainUntil(now, now+5000), 204)
	expectCounts(t, "refused", 0, 1)
	if len(got) != 1 || !strings.Contains(got[0], "204:01072a") {
		t.Errorf("reports %v, want INSTALL, REFUSED", got)
	}
}

func TestTrial(t *testing.T) {
	type step int
	const (
		passed step = iota
		joined
		downlink
	)
	for _, tt := range []struct {
		name   string
		policy uint8
		steps  []step
		keep   bool
	}{
		{"self-test", cpkg.ConfirmSelfTest, []step{passed}, true},
		{"self-test never ended", cpkg.ConfirmSelfTest, []step{joined, downlink}, false},
		{"joined", cpkg.ConfirmJoined, []step{passed, joined}, true},
		{"joined first", cpkg.ConfirmJoined, []step{joined, passed}, true},
		{"not joined", cpkg.ConfirmJoined, []step{passed}, false},
		{"no downlink", cpkg.ConfirmDownlink, []step{passed, joined}, false},
		{"downlink", cpkg.ConfirmDownlink, []step{passed, joined, downlink}, true},
		{"downlink before the verdict", cpkg.ConfirmDownlink, []step{downlink, passed}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cpkg.Reset()
			cpkg.SetBoot(cpkg.BootTrial, 0)
			if r := cpkg.Open(cpkg.Options{Confirm: tt.policy, ConfirmWithin: 600}, now); r < 0 {
				t.Fatal(r)
			}
			for i, s := range tt.steps {
				at := uint32(now + 1 + i)
				switch s {
				case passed:
					cpkg.SelfTest(at, 0)
				case joined:
					cpkg.Joined(at)
				case downlink:
					down(t, at, 2, cpkg.Unicast, "00")
				}
				done := tt.keep && i == len(tt.steps)-1
				drain(at)
				if got := cpkg.Counted().Confirms; (got == 1) != done {
					t.Fatalf("after %d of %d steps: confirmed %d times", i+1, len(tt.steps), got)
				}
			}
			drainUntil(now+10, now+599)
			if c := cpkg.Counted(); c.Rejects != 0 || c.Reboots != 0 {
				t.Errorf("rejected before the deadline: %+v", c)
			}
			drainUntil(now+599, now+100000)
			c := cpkg.Counted()
			if tt.keep && (c.Rejects != 0 || c.Reboots != 0) {
				t.Errorf("confirmed image rejected: %+v", c)
			}
			if !tt.keep && (c.Rejects != 1 || c.RejectCause != causeNotConfirmed || c.Reboots != 1) {
				t.Errorf("at the deadline: %+v, want one reject for NOT_CONFIRMED and one reboot", c)
			}
		})
	}
}

func TestTrialDefaults(t *testing.T) {
	cpkg.Reset()
	cpkg.SetBoot(cpkg.BootTrial, 0)
	open(t, cpkg.Options{}, now)
	drainUntil(now, now+86399)
	expectCounts(t, "before a day is over", 0, 0)
	drain(now + 86400)
	expectCounts(t, "after a day", 1, 0)
}

func TestSelfTestFails(t *testing.T) {
	cpkg.Reset()
	cpkg.SetBoot(cpkg.BootTrial, 0)
	cpkg.SetImage(3, 7) // the old image, in slot B
	open(t, cpkg.Options{}, now)
	expect(t, "UpImageStatus on trial", ask(t, now, 203, "04"), "203:0400")
	cpkg.SelfTest(now, causeSelfTest)
	if c := cpkg.Counted(); c.Rejects != 1 || c.RejectCause != causeSelfTest || c.Reboots != 1 || c.Installs != 0 {
		t.Errorf("%+v, want one reject for SELF_TEST_FAILED and one reboot", c)
	}
	// A verdict on an image that is not on trial is of no account.
	newDevice(t, cpkg.Options{})
	cpkg.SelfTest(now, causeSelfTest)
	if c := cpkg.Counted(); c.Rejects != 0 || c.Reboots != 0 {
		t.Errorf("%+v, want nothing", c)
	}
}

// An image on trial under which the library cannot even open must not stay.
func TestTrialOpenFails(t *testing.T) {
	cpkg.Reset()
	cpkg.SetBoot(cpkg.BootTrial, 0)
	cpkg.SetResults(0, 0, -causeNoRAM)
	cpkg.Open(cpkg.Options{}, now)
	if c := cpkg.Counted(); c.Rejects != 1 || c.RejectCause != causeNoRAM {
		t.Errorf("%+v, want a reject for NO_RAM", c)
	}
}

// Without the services that it was linked for the library calls nothing, and neither does any later call.
func TestNoServices(t *testing.T) {
	cpkg.Reset()
	cpkg.SetBoot(cpkg.BootTrial, 0)
	cpkg.SetServices(cpkg.NoServices)
	if r := cpkg.Open(cpkg.Options{}, now); r != cpkg.NoServices {
		t.Errorf("sow_open returns %d, want %d", r, cpkg.NoServices)
	}
	cpkg.Joined(now)
	cpkg.Downlink(now, 201, cpkg.Unicast, []byte{8, 1, 0, 0})
	cpkg.SelfTest(now, causeSelfTest)
	code, wake := cpkg.Poll(now)
	_, up := cpkg.TakeUplink(now)
	if c := cpkg.Counted(); code != 0 || wake != cpkg.Never || up || c != (cpkg.Counts{}) {
		t.Errorf("sow_poll returns %d until %d, uplink %v; %+v, want nothing", code, wake, up, c)
	}
}
