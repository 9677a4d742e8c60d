package fleet_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/radio"
)

// commanded is a device that sends each ten seconds, and a network that sends commands in answer to its uplinks: in RX1, by
// the number of the uplink.
type commanded struct {
	*bench
	frames []radio.Frame // uplinks
	down   uint32
}

func newCommanded(t *testing.T, region airtime.Region, rate, size int, requests map[int]string, port0 bool) *commanded {
	next := clock(0)
	beat := func() []modem.Message {
		next += 10_000
		return []modem.Message{modem.Up{Port: 2, Data: bytes.Repeat([]byte("x"), size)}, modem.IdleUntil{Time: next}}
	}
	app := &script{answer: func(m modem.Message) []modem.Message {
		switch m := m.(type) {
		case modem.Link:
			if next < m.Time {
				next = m.Time
			}
			return beat()
		case modem.Tick:
			return beat()
		}
		return []modem.Message{modem.IdleUntil{Time: next}}
	}}
	c := &commanded{bench: newBenchIn(t, region, app, func(d *fleet.DeviceConfig) { d.DataRate, d.Battery = rate, 50 })}
	c.answer = func(f radio.Frame) {
		if text, ok := requests[len(c.frames)]; ok {
			frequency, dr := c.plan.RX1(f.Frequency, f.DataRate)
			c.transmit(c.commands(text, port0), frequency, dr, f.End.Add(2*time.Second))
		}
		c.frames = append(c.frames, f)
	}
	return c
}

// commands builds a downlink with MAC commands, in FOpts or on port 0.
func (c *commanded) commands(text string, port0 bool) lorawan.PHYPayload {
	list, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	c.must(err)
	mac := &lorawan.MACPayload{FHDR: lorawan.FHDR{DevAddr: unicastAddr, FCnt: c.down}}
	c.down++
	phy := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.UnconfirmedDataDown}, MACPayload: mac}
	if port0 {
		port := uint8(0)
		mac.FPort, mac.FRMPayload = &port, []lorawan.Payload{&lorawan.DataPayload{Bytes: list}}
		c.must(phy.EncryptFRMPayload(c.nwk))
	} else {
		mac.FHDR.FOpts = []lorawan.Payload{&lorawan.DataPayload{Bytes: list}}
	}
	c.must(phy.SetDownlinkDataMIC(lorawan.LoRaWAN1_0, 0, c.nwk))
	return phy
}

func (c *commanded) channels(from int) (out []uint32) {
	for _, f := range c.frames[from:] {
		if !slices.Contains(out, f.Frequency) {
			out = append(out, f.Frequency)
		}
	}
	slices.Sort(out)
	return out
}

// TestAnswersToCommands: each command of TS001-1.0.4 is answered as the region and the request deserve, in the order of the
// requests, in FOpts of the next uplink and once; what is sticky goes on until the next downlink.
func TestAnswersToCommands(t *testing.T) {
	for _, tt := range []struct {
		name    string
		region  airtime.Region
		rate    int
		request string
		answer  string
		sticky  string // of it, in each uplink until a downlink
	}{
		{"DevStatusReq", airtime.EU868, 5, "06", "067f3e", ""},
		{"LinkADRReq", airtime.EU868, 5, "03 50 0100 00", "0307", ""},
		{"LinkADRReq, all channels", airtime.EU868, 5, "03 50 0000 60", "0307", ""},
		{"LinkADRReq, a channel that there is not", airtime.EU868, 5, "03 50 0900 00", "0306", ""},
		{"LinkADRReq, no channel", airtime.EU868, 5, "03 50 0000 00", "0306", ""},
		{"LinkADRReq, reserved control", airtime.EU868, 5, "03 50 0100 10", "0306", ""},
		{"LinkADRReq, one of two is wrong", airtime.EU868, 5, "03 50 0100 00 03 50 0900 00", "03060306", ""},
		{"LinkADRReq of US915, the second bank", airtime.US915, 0, "03 00 0200 70 03 00 00ff 00", "03070307", ""},
		{"LinkADRReq of US915, no channel for DR0", airtime.US915, 0, "03 00 0200 70", "0306", ""},
		{"LinkADRReq of US915, banks", airtime.US915, 0, "03 00 0200 50", "0307", ""},
		{"DutyCycleReq", airtime.EU868, 5, "04 00", "04", ""},
		{"RXParamSetupReq", airtime.EU868, 5, "05 03 d2ad84", "0507", "0507"},
		{"RXParamSetupReq, offset 6", airtime.EU868, 5, "05 63 d2ad84", "0503", "0503"},
		{"RXParamSetupReq, DR9", airtime.EU868, 5, "05 19 d2ad84", "0505", "0505"},
		{"RXParamSetupReq, 2.4 GHz", airtime.EU868, 5, "05 13 ffffff", "0506", "0506"},
		{"NewChannelReq", airtime.EU868, 5, "07 03 184f84 50", "0703", ""},
		{"NewChannelReq, a default channel", airtime.EU868, 5, "07 00 184f84 50", "0700", ""},
		{"NewChannelReq, out of the band", airtime.EU868, 5, "07 03 ffffff 50", "0702", ""},
		{"NewChannelReq, data rates", airtime.EU868, 5, "07 03 184f84 05", "0701", ""},
		{"NewChannelReq of US915", airtime.US915, 0, "07 03 184f84 50 06", "067f3e", ""},
		{"RXTimingSetupReq", airtime.EU868, 5, "08 02", "08", "08"},
		{"TXParamSetupReq", airtime.AS923, 2, "09 10", "09", "09"},
		{"TXParamSetupReq of EU868", airtime.EU868, 5, "09 10 06", "067f3e", ""},
		{"DlChannelReq", airtime.EU868, 5, "0a 01 184f84", "0a03", "0a03"},
		{"DlChannelReq, no such channel", airtime.EU868, 5, "0a 05 184f84", "0a01", "0a01"},
		{"DlChannelReq, out of the band", airtime.EU868, 5, "0a 01 ffffff", "0a02", "0a02"},
		{"PingSlotChannelReq", airtime.EU868, 5, "11 184f84 03", "1100", ""},
		{"BeaconFreqReq", airtime.EU868, 5, "13 184f84", "1300", ""},
		{"several", airtime.EU868, 5, "08 02 06 04 00", "08067f3e04", "08"},
		{"nothing behind what is unknown", airtime.EU868, 5, "06 80 06", "067f3e", ""},
		{"cut off", airtime.EU868, 5, "06 03 50", "067f3e", ""},
		{"answers that nobody asked for", airtime.EU868, 5, "02 1402 0d 0102030405 10 06", "067f3e", ""},
		{"more than FOpts take", airtime.EU868, 5, strings.Repeat("06", 6), strings.Repeat("067f3e", 5), "067f3e"},
	} {
		for _, port0 := range []bool{false, true} {
			if port0 && strings.Contains(tt.name, "unknown") || port0 && strings.Contains(tt.name, "cut") {
				continue // brocaar/lorawan refuses to decode them
			}
			c := newCommanded(t, tt.region, tt.rate, 5, map[int]string{1: tt.request, 4: "02 1402"}, port0)
			c.run(90 * time.Second)
			if tt.name == "more than FOpts take" {
				c.want(tt.name, c.opts[:5], "", "", tt.answer, tt.sticky, "")
				continue
			}
			c.want(fmt.Sprintf("%s, port 0 %v", tt.name, port0), c.opts[:7], "", "", tt.answer, tt.sticky, tt.sticky, "", "")
			if c.failed != nil {
				t.Errorf("%s: %v", tt.name, c.failed)
			}
		}
	}
}

// TestCommandsAreObeyed looks at what a device does that has accepted a request.
func TestCommandsAreObeyed(t *testing.T) {
	t.Run("channels", func(t *testing.T) {
		c := newCommanded(t, airtime.EU868, 5, 5, map[int]string{1: "07 03 184f84 50", 3: "03 50 0900 00"}, false)
		c.run(10 * time.Minute)
		if got, want := c.channels(4), []uint32{867100000, 868100000}; !slices.Equal(got, want) {
			t.Errorf("channels %v, want %v", got, want)
		}
		c = newCommanded(t, airtime.US915, 0, 5, map[int]string{1: "03 00 0200 70 03 00 00ff 00"}, false)
		c.run(10 * time.Minute)
		if got := c.channels(2); len(got) != 8 || got[0] != 903900000 || got[7] != 905300000 {
			t.Errorf("channels %v, want the eight of the second bank", got)
		}
	})
	t.Run("channels of the join accept", func(t *testing.T) {
		c := newCommanded(t, airtime.EU868, 5, 5, nil, false)
		c.list = &lorawan.CFList{CFListType: lorawan.CFListChannel, Payload: &lorawan.CFListChannelPayload{Channels: [5]uint32{867100000, 867300000}}}
		c.run(10 * time.Minute)
		if got, want := c.channels(0), []uint32{867100000, 867300000, 868100000, 868300000, 868500000}; !slices.Equal(got, want) {
			t.Errorf("channels %v, want %v", got, want)
		}
		c = newCommanded(t, airtime.US915, 0, 5, nil, false)
		var first lorawan.ChMask
		for i := range 8 {
			first[i] = true
		}
		c.list = &lorawan.CFList{CFListType: lorawan.CFListChannelMask, Payload: &lorawan.CFListChannelMaskPayload{ChannelMasks: []lorawan.ChMask{first, {}, {}, {}, {true}}}}
		c.rx2 = 8
		c.run(10 * time.Minute)
		if got := c.channels(0); len(got) != 8 || got[0] != 902300000 || got[7] != 903700000 {
			t.Errorf("channels %v, want the first eight", got)
		}
	})
	t.Run("windows", func(t *testing.T) {
		// RX1 two data rates slower and after 4 s, RX2 at 868.3 MHz and DR4; a join forgets it.
		c := newCommanded(t, airtime.EU868, 5, 5, map[int]string{0: "05 24 f87d84 08 04"}, false)
		inner := c.answer
		c.answer = func(f radio.Frame) {
			inner(f)
			switch n := len(c.frames); n {
			case 2:
				c.transmit(c.data(lorawan.UnconfirmedDataDown, unicastAddr, c.down, false, 10, "rx1", c.appS, c.nwk), f.Frequency, 3, f.End.Add(4*time.Second))
				c.down++
			case 3:
				c.transmit(c.data(lorawan.UnconfirmedDataDown, unicastAddr, c.down, false, 10, "rx2", c.appS, c.nwk), 868300000, 4, f.End.Add(5*time.Second))
				c.down++
			}
		}
		c.run(time.Minute)
		var heard []string
		for _, turn := range c.app.turns {
			if strings.HasPrefix(turn, "down") {
				heard = append(heard, turn)
			}
		}
		c.want("heard", heard, "down 255 10 rx1", "down 255 10 rx2")
	})
	t.Run("RX1 on another frequency", func(t *testing.T) {
		c := newCommanded(t, airtime.EU868, 5, 5, map[int]string{0: "0a 00 184f84 0a 01 184f84 0a 02 184f84"}, false)
		inner := c.answer
		c.answer = func(f radio.Frame) {
			inner(f)
			if len(c.frames) == 2 {
				c.transmit(c.data(lorawan.UnconfirmedDataDown, unicastAddr, c.down, false, 10, "there", c.appS, c.nwk), 867100000, 5, f.End.Add(2*time.Second))
			}
		}
		c.run(time.Minute)
		if s := c.device.Stats(); s.Downlinks != 2 {
			t.Errorf("%d downlinks heard, want the request and one on the new frequency", s.Downlinks)
		}
	})
	t.Run("duty cycle", func(t *testing.T) {
		c := newCommanded(t, airtime.EU868, 0, 5, map[int]string{0: "04 05"}, false)
		c.run(10 * time.Minute)
		for i := 2; i < len(c.frames); i++ {
			length := c.frames[i].End.Sub(c.frames[i].Start)
			if pause := c.frames[i].Start.Sub(c.frames[i-1].End); pause < 30*length {
				t.Fatalf("%s after a frame of about %s, want 31 times as long", pause, length)
			}
		}
		if len(c.frames) < 5 {
			t.Errorf("%d uplinks", len(c.frames))
		}
	})
	t.Run("dwell time", func(t *testing.T) {
		c := newCommanded(t, airtime.AS923, 2, 5, map[int]string{0: "09 10"}, false)
		c.run(time.Minute)
		if !slices.Contains(c.app.turns, "link true 11") {
			t.Errorf("turns %q, want a limit of 11 bytes at DR2", c.app.turns)
		}
		c = newCommanded(t, airtime.AS923, 0, 5, map[int]string{0: "09 10"}, false)
		c.run(time.Minute)
		if last := c.frames[len(c.frames)-1]; last.DataRate != 2 {
			t.Errorf("DR%d, want DR2, the slowest that the dwell time allows", last.DataRate)
		}
	})
}

// TestAnswersTakeRoom: a message that leaves no room for the answers waits for the next frame.
func TestAnswersTakeRoom(t *testing.T) {
	c := newCommanded(t, airtime.EU868, 5, 241, map[int]string{0: "06"}, false)
	c.run(30 * time.Second)
	if len(c.ups) < 3 || c.ups[1] != "1" || c.opts[1] != "067f3e" || len(c.ups[2]) < 241 || c.opts[2] != "" {
		t.Errorf("uplinks of %d, %d, %d characters with FOpts %q, want the answer alone and then the message", len(c.ups[0]), len(c.ups[1]), len(c.ups[2]), c.opts)
	}
}

func TestBatteryIsNotKnown(t *testing.T) {
	b := newBench(t, &script{boot: []modem.Message{modem.Up{Port: 2, Data: []byte("a")}, modem.Up{Port: 2, Data: []byte("b")}}}, nil)
	c := &commanded{bench: b}
	b.answer = func(f radio.Frame) {
		if len(b.ups) == 1 {
			b.transmit(c.commands("06", false), f.Frequency, f.DataRate, f.End.Add(2*time.Second))
		}
	}
	b.run(time.Minute)
	b.want("FOpts", b.opts, "", "06ff3e")
}
