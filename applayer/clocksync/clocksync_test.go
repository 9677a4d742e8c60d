package clocksync_test

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/internal/codectest"
)

var codec = codectest.Codec[clocksync.Command]{
	AppendCommand: clocksync.AppendCommand,
	ParseCommand:  clocksync.ParseCommand,
	Parse:         clocksync.Parse,
}

func FuzzParse(f *testing.F) {
	codec.Fuzz(f,
		"\x00",
		"\x00\x01\x02",
		"\x01\x00\x7b\xa3\x54\x19\x02\x01\x00\x7b\xa3\x54",
		"\x01\xd6\xff\xff\xff\x09\x02\x0a\x03\x07",
	)
}

func TestRefusedValues(t *testing.T) {
	for _, cmd := range []clocksync.Command{
		clocksync.AppTimeReq{TokenReq: 16},
		clocksync.AppTimeAns{TokenAns: 16},
		clocksync.DeviceAppTimePeriodicityReq{Period: 16},
		clocksync.ForceDeviceResyncCmd{NbTransmissions: 8},
	} {
		codec.Refused(t, applayer.V2, cmd, applayer.ErrRange)
	}
}

// Bits that are reserved do not reach the fields.
func TestReservedBitsAreIgnored(t *testing.T) {
	for _, tt := range []struct {
		dir  applayer.Direction
		in   string
		want clocksync.Command
	}{
		{applayer.Uplink, "\x01\x01\x00\x00\x00\xe3", clocksync.AppTimeReq{DeviceTime: 1, TokenReq: 3}},
		{applayer.Downlink, "\x01\x01\x00\x00\x00\xf3", clocksync.AppTimeAns{TimeCorrection: 1, TokenAns: 3}},
		{applayer.Downlink, "\x02\xf3", clocksync.DeviceAppTimePeriodicityReq{Period: 3}},
		{applayer.Uplink, "\x02\xfe\x01\x00\x00\x00", clocksync.DeviceAppTimePeriodicityAns{DeviceTime: 1}},
		{applayer.Downlink, "\x03\xf8", clocksync.ForceDeviceResyncCmd{}},
	} {
		got, rest, err := clocksync.ParseCommand(applayer.V1, tt.dir, []byte(tt.in))
		if err != nil || len(rest) != 0 || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("% x: %+v, % x, %v, want %+v", tt.in, got, rest, err, tt.want)
		}
	}
}

func TestTimeCorrection(t *testing.T) {
	for _, tt := range []struct {
		name     string
		received int64
		device   uint32
		want     int32
	}{
		{"right", 1479362418, 1479362418, 0},
		{"behind", 1479362418, 1479362376, 42},
		{"ahead", 1479362418, 1479362460, -42},
		{"clock starts at 0 in 2026", 1479362418, 0, 1479362418},
		{"clock starts at 0 in 2050, in two steps", 2208643218, 0, math.MaxInt32},
		{"clock starts at 0 in 2050, second step", 2208643218, math.MaxInt32, 2208643218 - math.MaxInt32},
		{"clock at its end", 1, math.MaxUint32, math.MinInt32},
	} {
		if got := clocksync.TimeCorrection(tt.received, tt.device); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
	// Saturated corrections lead to the right time all the same.
	for _, start := range []uint32{0, 1, math.MaxInt32, math.MaxUint32} {
		const now = 4000000000
		device := start
		for steps := 0; device != now; steps++ {
			if steps > 2 {
				t.Fatalf("from %d: still at %d after two corrections", start, device)
			}
			device += uint32(clocksync.TimeCorrection(now, device))
		}
	}
}

func TestInterval(t *testing.T) {
	for period, want := range map[uint8]time.Duration{0: 128 * time.Second, 3: 1024 * time.Second, 15: 4194304 * time.Second} {
		if got := (clocksync.DeviceAppTimePeriodicityReq{Period: period}).Interval(); got != want {
			t.Errorf("Period %d: %v, want %v", period, got, want)
		}
	}
}

// The server's side of an exchange: read the uplink, correct the clock, answer with the same token.
func Example() {
	uplink := []byte{0x01, 0x08, 0x7b, 0xa3, 0x54, 0x19}
	received := int64(1420000050) // GPS seconds, from the gateway

	cmds, err := clocksync.Parse(applayer.V1, applayer.Uplink, uplink)
	if err != nil {
		panic(err)
	}
	for _, cmd := range cmds {
		req, ok := cmd.(clocksync.AppTimeReq)
		if !ok {
			continue
		}
		ans := clocksync.AppTimeAns{
			TimeCorrection: clocksync.TimeCorrection(received, req.DeviceTime),
			TokenAns:       req.TokenReq,
		}
		downlink, err := clocksync.AppendCommand(nil, applayer.V1, ans)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%+v\n% x\n", ans, downlink)
	}
	// Output:
	// {TimeCorrection:42 TokenAns:9}
	// 01 2a 00 00 00 09
}
