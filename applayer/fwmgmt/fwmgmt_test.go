package fwmgmt_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/internal/codectest"
)

var codec = codectest.Codec[fwmgmt.Command]{
	AppendCommand: fwmgmt.AppendCommand,
	ParseCommand:  fwmgmt.ParseCommand,
	Parse:         fwmgmt.Parse,
}

func FuzzParse(f *testing.F) {
	codec.Fuzz(f,
		"\x00\x01\x04",
		"\x00\x04\x01\x01\x04\x03\x02\x01\x08\x07\x06\x05",
		"\x02\x00\x7b\xa3\x54\x03\xff\xff\x00\x05\x04\x03\x02\x01",
		"\x04\x00\x04\x03\x04\x03\x02\x01\x05\x02",
	)
}

func TestRefusedValues(t *testing.T) {
	for _, cmd := range []fwmgmt.Command{
		fwmgmt.DevRebootCountdownReq{Countdown: 1 << 24},
		fwmgmt.DevRebootCountdownAns{Countdown: 1 << 24},
		fwmgmt.DevUpgradeImageAns{UpImageStatus: 4},
		fwmgmt.DevUpgradeImageAns{UpImageStatus: fwmgmt.ImageCorrupt, NextFirmwareVersion: 1},
	} {
		codec.Refused(t, applayer.V1, cmd, applayer.ErrRange)
	}
	codec.Refused(t, applayer.V2, fwmgmt.DevVersionReq{}, applayer.ErrVersion)
}

// The version follows only where the image is valid; what follows otherwise is another command.
func TestUpgradeImageAns(t *testing.T) {
	for status := range byte(4) {
		in := []byte{0x04, 0xfc | status, 0x04, 0x00, 0x05, 0x00}
		cmds, err := fwmgmt.Parse(applayer.V1, applayer.Uplink, in)
		want := 3
		if fwmgmt.UpImageStatus(status) == fwmgmt.ImageValid {
			want = 1
		}
		if err != nil || len(cmds) != want {
			t.Errorf("status %d: %+v, %v, want %d commands", status, cmds, err, want)
			continue
		}
		ans := cmds[0].(fwmgmt.DevUpgradeImageAns)
		if ans.UpImageStatus != fwmgmt.UpImageStatus(status) || want == 1 && ans.NextFirmwareVersion != 0x00050004 {
			t.Errorf("status %d: %+v", status, ans)
		}
	}
	if _, err := fwmgmt.Parse(applayer.V1, applayer.Uplink, []byte{0x04, 0x03, 1, 2, 3}); !errors.Is(err, applayer.ErrShort) {
		t.Errorf("version cut short: %v, want ErrShort", err)
	}
}

// Ask a device what it runs and holds, and have it reboot in ten minutes.
func Example() {
	var msg []byte
	for _, cmd := range []fwmgmt.Command{
		fwmgmt.DevVersionReq{},
		fwmgmt.DevUpgradeImageReq{},
		fwmgmt.DevRebootCountdownReq{Countdown: 600},
	} {
		var err error
		if msg, err = fwmgmt.AppendCommand(msg, applayer.V1, cmd); err != nil {
			panic(err)
		}
	}
	fmt.Printf("% x\n", msg)

	uplink := []byte{0x01, 4, 3, 2, 1, 1, 0, 0, 0, 0x04, 0x03, 5, 3, 2, 1, 0x03, 0x58, 0x02, 0x00}
	answers, err := fwmgmt.Parse(applayer.V1, applayer.Uplink, uplink)
	if err != nil {
		panic(err)
	}
	for _, ans := range answers {
		switch ans := ans.(type) {
		case fwmgmt.DevVersionAns:
			fmt.Printf("runs %08x\n", ans.FWVersion)
		case fwmgmt.DevUpgradeImageAns:
			fmt.Printf("%v %08x\n", ans.UpImageStatus, ans.NextFirmwareVersion)
		case fwmgmt.DevRebootCountdownAns:
			fmt.Printf("reboots in %d s\n", ans.Countdown)
		}
	}
	// Output:
	// 01 04 03 58 02 00
	// runs 01020304
	// valid image 01020305
	// reboots in 600 s
}
