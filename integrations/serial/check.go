package serial

import (
	"context"
	"fmt"
	"strings"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
)

// CheckResult is one thing that was tried.
type CheckResult struct {
	Name   string
	Detail string // what was found
	Err    error  // nil: it is as it should be
}

// String is one line for a person.
func (c CheckResult) String() string {
	if c.Err != nil {
		return fmt.Sprintf("FAIL %-34s %v", c.Name, c.Err)
	}
	return fmt.Sprintf("ok   %-34s %s", c.Name, c.Detail)
}

// The porting checklist (firmware-stub/include/sow_selftest.h) says on the console how it went: a line that begins
// with this and goes on with "ok", "reset" when its second half is due, or the clause that is broken.
const checklistPrefix = "selftest: "

// Check goes through what a device owes on the modem protocol and in the packages of TS003 to TS006, without
// changing its firmware. A device whose firmware runs the porting checklist says so on its console; Check then
// resets it once for the second half, and leaves the packages alone. gps is the GPS time in seconds.
//
// An error is one of the line; defects of the device are in the results.
func Check(ctx context.Context, dev Device, gps uint32, log Log) ([]CheckResult, error) {
	c := &checker{mac: mac{dev: dev, log: &log, now: bootTime, wake: bootTime, payload: 51, gpsStart: gps - bootTime/1000}}
	if err := c.powerUp(); err != nil {
		return nil, err
	}
	if line, ok := c.checklist(); ok {
		return c.port(line)
	}
	for _, check := range []struct {
		name string
		run  func() (string, error)
	}{
		{"banner after a reset", c.banner},
		{"frame behind noise", c.noise},
		{"clock (TS003)", c.clockSync},
		{"firmware version (TS006)", c.firmware},
		{"package versions", c.packages},
		{"multicast groups (TS005)", c.multicast},
		{"status without a session (TS004)", c.status},
		{"diagnostic report", c.diagnosis},
		{"restart", c.restart},
	} {
		if err := ctx.Err(); err != nil {
			return c.results, err
		}
		detail, err := check.run()
		c.results = append(c.results, CheckResult{check.name, detail, err})
	}
	return c.results, nil
}

type checker struct {
	mac
	results []CheckResult
	version applayer.Version // of TS004 and TS005
}

func (c *checker) checklist() (string, bool) {
	for _, line := range c.said {
		if rest, ok := strings.CutPrefix(line, checklistPrefix); ok {
			return rest, true
		}
	}
	return "", false
}

// port follows a firmware that runs the porting checklist.
func (c *checker) port(line string) ([]CheckResult, error) {
	half := "porting checklist, before the reset"
	if line == "reset" {
		c.results = append(c.results, CheckResult{Name: half, Detail: "all clauses hold"})
		half = "porting checklist, after the reset"
		if err := c.powerUp(); err != nil {
			return c.results, err
		}
		line, _ = c.checklist()
	}
	switch line {
	case "ok":
		c.results = append(c.results, CheckResult{Name: half, Detail: "what was programmed is there"})
	case "reset":
		c.results = append(c.results, CheckResult{Name: half, Err: fmt.Errorf("%w: persistence: after the reset nothing of the first half is left", ErrDevice)})
	default:
		c.results = append(c.results, CheckResult{Name: half, Err: fmt.Errorf("%w: %s", ErrDevice, line)})
	}
	return c.results, nil
}

func (c *checker) banner() (string, error) {
	for _, line := range c.said {
		if strings.HasPrefix(line, "firmware ") {
			return strings.Join(c.said, "; "), nil
		}
	}
	return "", fmt.Errorf("%w: no line says which firmware runs: %q", ErrDevice, c.said)
}

func (c *checker) noise() (string, error) {
	l, ok := c.dev.(*Link)
	if !ok {
		return "not on a line", nil
	}
	bad, err := modem.Append(nil, modem.Tick{Time: c.now})
	if err != nil {
		return "", err
	}
	bad[len(bad)-1] ^= 0x55
	if err := l.Noise(append([]byte{0x00, 0xa5, 0xff}, bad...)); err != nil {
		return "", err
	}
	// What noise claims to be a long frame ends when enough bytes have come; more noise makes sure.
	if err := l.Noise(make([]byte, modem.MaxPayload)); err != nil {
		return "", err
	}
	return "passed over", c.turn(modem.Tick{Time: c.now})
}

func (c *checker) clockSync() (string, error) {
	for end := c.now + 3600_000; !c.synced; {
		if c.now >= end {
			return "", fmt.Errorf("%w: it has not asked for the time within an hour of joining", ErrDevice)
		}
		if err := c.pause(10); err != nil {
			return "", err
		}
	}
	asked := c.now
	req, err := clocksync.AppendCommand(nil, applayer.V2, clocksync.DeviceAppTimePeriodicityReq{Period: 9})
	if err != nil {
		return "", err
	}
	var shown uint32
	err = c.ask("clock period (TS003)", applayer.FPortClockSync, req, 60, func(b []byte) bool {
		cmds, _ := clocksync.Parse(applayer.V2, applayer.Uplink, b)
		for _, cmd := range cmds {
			if ans, ok := cmd.(clocksync.DeviceAppTimePeriodicityAns); ok {
				shown = ans.DeviceTime
				return true
			}
		}
		return false
	})
	if err != nil {
		return "", err
	}
	if off := int32(shown - c.gps()); off < -1 || off > 1 {
		return "", fmt.Errorf("%w: its clock is %d s off after it was set", ErrDevice, off)
	}
	return fmt.Sprintf("asked %d s after the reset, set to the second", (asked-bootTime)/1000), nil
}

func (c *checker) firmware() (string, error) {
	v, err := c.mac.version()
	if err != nil {
		return "", err
	}
	if v.FWVersion == 0 {
		return "", fmt.Errorf("%w: version 0: slot A holds no MCUboot image", ErrDevice)
	}
	return fmt.Sprintf("runs %v, hardware 0x%08x", bundle.Version(v.FWVersion), v.HWVersion), nil
}

func (c *checker) packages() (string, error) {
	names := []struct {
		id   applayer.PackageID
		port uint8
	}{
		{applayer.ClockSync, applayer.FPortClockSync}, {applayer.McSetup, applayer.FPortMcSetup},
		{applayer.DataBlock, applayer.FPortDataBlock}, {applayer.FwMgmt, applayer.FPortFwMgmt},
	}
	var found []string
	for _, n := range names {
		var v applayer.Version
		err := c.ask(fmt.Sprintf("package version (%v)", n.id), n.port, []byte{0}, 60, func(b []byte) bool {
			if len(b) < 3 || b[0] != 0 || b[1] != byte(n.id) {
				return false
			}
			v = applayer.Version(b[2])
			return true
		})
		if err != nil {
			return "", err
		}
		if n.id == applayer.DataBlock {
			c.version = v
		}
		found = append(found, fmt.Sprintf("%v %v", n.id, v))
	}
	return strings.Join(found, ", "), nil
}

func (c *checker) multicast() (string, error) {
	req, err := mcsetup.AppendCommand(nil, applayer.V1, mcsetup.McGroupStatusReq{ReqGroupMask: 15})
	if err != nil {
		return "", err
	}
	var got mcsetup.McGroupStatusAns
	err = c.ask("group status (TS005)", applayer.FPortMcSetup, req, 60, func(b []byte) bool {
		return multicastAnswer(applayer.V1, b, &got)
	})
	return fmt.Sprintf("%d groups", got.NbTotalGroups), err
}

func (c *checker) status() (string, error) {
	if c.version != applayer.V2 {
		return "version 1 says nothing", nil
	}
	// Of the four sessions at most one is open; another one does not exist.
	for index := range uint8(datablock.MaxSessions) {
		req, err := datablock.AppendCommand(nil, c.version, datablock.FragSessionStatusReq{FragIndex: index, Participants: true})
		if err != nil {
			return "", err
		}
		var got datablock.FragSessionStatusAns
		err = c.ask("session status (TS004)", applayer.FPortDataBlock, req, 2100, func(b []byte) bool {
			return dataBlockAnswer(c.version, b, &got)
		})
		if err != nil {
			return "", err
		}
		if got.SessionDoesNotExist {
			return fmt.Sprintf("session %d does not exist", index), nil
		}
	}
	return "", fmt.Errorf("%w: four sessions exist at once", ErrDevice)
}

func (c *checker) diagnosis() (string, error) {
	r, err := c.report()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("step %v, cause %v", r.Step, r.Cause), nil
}

func (c *checker) restart() (string, error) {
	before := c.resets
	if err := c.turn(modem.ResetReq{}); err != nil {
		return "", err
	}
	if c.resets == before {
		return "", fmt.Errorf("%w: it did not announce its reset", ErrDevice)
	}
	v, err := c.mac.version()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("runs %v again", bundle.Version(v.FWVersion)), nil
}
