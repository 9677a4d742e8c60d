// Package packages_test runs the LoRaWAN packages of the device library and its modem shell over a fake sow_core.
package packages_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/firmware-stub/test/packages/cpkg"
)

// Causes and steps of applayer/diag that the tests name.
const (
	causeNoRAM, causeIndex, causeDescriptor, causeReplay  = 1, 6, 7, 8
	causeBase, causeMIC, causeSelfTest, causeNotConfirmed = 13, 22, 30, 32
	causeUser, causeRefused                               = 40, 42

	stepSetup, stepRunning = 1, 9
)

const gps = 1420000000

// newDevice opens a joined device whose clock the server has set: device second 1000 is GPS second gps.
func newDevice(t *testing.T, o cpkg.Options) {
	t.Helper()
	cpkg.Reset()
	cpkg.SetFirmware(0x01020304, 0x01020305)
	open(t, o, 1000)
	sync(t, 1000, gps-1000)
}

func open(t *testing.T, o cpkg.Options, now uint32) {
	t.Helper()
	if r := cpkg.Open(o, now); r < 0 {
		t.Fatalf("sow_open = %d", r)
	}
	cpkg.Joined(now)
}

// sync answers the first AppTimeReq of a device.
func sync(t *testing.T, now, correction uint32) {
	t.Helper()
	cpkg.Downlink(now, 202, cpkg.Unicast, unhex(t, fmt.Sprintf("01%s00", le32(correction))))
	drain(now)
	if got := cpkg.GPSTime(now); got != now+correction {
		t.Fatalf("GPS time %d after the answer, want %d", got, now+correction)
	}
}

func le32(v uint32) string {
	return hex.EncodeToString([]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// neverIdle stands for an uplink of a device that does not come to rest.
const neverIdle = "never idle"

// drain polls until nothing is due at now and returns the uplinks as "port:hex".
func drain(now uint32) []string {
	out := []string{}
	for range 10000 {
		_, wake := cpkg.Poll(now)
		taken := false
		for u, ok := cpkg.TakeUplink(now); ok; u, ok = cpkg.TakeUplink(now) {
			out = append(out, fmt.Sprintf("%d:%x", u.Port, u.Data))
			taken = true
		}
		if !taken && wake != now {
			return out
		}
	}
	return append(out, neverIdle)
}

// drainUntil follows the wake-ups of the device and returns its uplinks as "second port:hex".
func drainUntil(now, end uint32) []string {
	var out []string
	for range 10000 {
		for _, u := range drain(now) {
			out = append(out, fmt.Sprintf("%d %s", now, u))
			if u == neverIdle {
				return out
			}
		}
		_, wake := cpkg.Poll(now)
		if wake == cpkg.Never || int32(end-wake) < 0 {
			return out
		}
		now = wake
	}
	return append(out, neverIdle)
}

func down(t *testing.T, now uint32, port, group uint8, message string) {
	t.Helper()
	cpkg.Downlink(now, port, group, unhex(t, message))
}

// ask sends a unicast message and returns the uplinks that follow at once.
func ask(t *testing.T, now uint32, port uint8, message string) string {
	t.Helper()
	down(t, now, port, cpkg.Unicast, message)
	return strings.Join(drain(now), " ")
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// only returns the uplinks of one port.
func only(uplinks []string, port int) []string {
	var out []string
	for _, u := range uplinks {
		if strings.Contains(" "+u, fmt.Sprintf(" %d:", port)) {
			out = append(out, u)
		}
	}
	return out
}

func second(t *testing.T, uplink string) (s uint32) {
	t.Helper()
	if _, err := fmt.Sscanf(uplink, "%d ", &s); err != nil {
		t.Fatalf("no time in %q", uplink)
	}
	return s
}
