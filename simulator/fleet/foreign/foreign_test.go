package foreign_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/fleet/foreign"
)

var (
	stacks    = []foreign.Stack{foreign.LoRaMacNode, foreign.BasicsModem, foreign.Zephyr}
	genAppKey = [16]byte{1, 2, 3}
	mcKey     = [16]byte{9, 8, 7}
)

const (
	mcAddr = 0x01020304
	mcFreq = 869_525_000
	start  = uint64(1_400_000_000_000) // ms of the device's clock, which is 100 s late
)

// bench drives a device by hand, as the MAC does.
type bench struct {
	t       *testing.T
	device  *foreign.Device
	version applayer.Version
	now     uint64
	wake    uint64
	ups     []modem.Up
	groups  []modem.SetMcGroup
	windows []modem.Session
}

func newBench(t *testing.T, cfg foreign.Config) *bench {
	cfg.GenAppKey = genAppKey
	d, err := foreign.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, device: d, version: max(cfg.Version, applayer.V1), now: start}
	b.take(d.PowerUp())
	return b
}

func (b *bench) take(frames []modem.Frame, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	for i, f := range frames {
		m, err := f.Message()
		if err != nil {
			b.t.Fatal(err)
		}
		switch m := m.(type) {
		case modem.Up:
			b.ups = append(b.ups, modem.Up{Port: m.Port, Data: bytes.Clone(m.Data)})
		case modem.SetMcGroup:
			b.groups = append(b.groups, m)
		case modem.Session:
			b.windows = append(b.windows, m)
		case modem.IdleUntil:
			b.wake = m.Time
			if i != len(frames)-1 {
				b.t.Errorf("IDLE_UNTIL is frame %d of %d", i+1, len(frames))
			}
		}
	}
}

func (b *bench) turn(m modem.Message) {
	b.t.Helper()
	f, err := modem.Frames(m)
	if err != nil {
		b.t.Fatal(err)
	}
	b.take(b.device.Turn(f[0]))
}

func (b *bench) down(port, group uint8, data []byte) {
	b.t.Helper()
	b.turn(modem.Down{Time: b.now, Port: port, Group: group, Data: data})
}

// pass lets the clock run and answers every tick the device asks for.
func (b *bench) pass(d time.Duration) {
	b.t.Helper()
	for end := b.now + uint64(d/time.Millisecond); ; b.turn(modem.Tick{Time: b.now}) {
		if b.wake > end {
			b.now = end
			return
		}
		b.now = max(b.now, b.wake)
	}
}

// last takes the uplinks so far and returns the payload of the last one on a port; nil if there is none.
func (b *bench) last(port uint8) (data []byte) {
	for _, u := range b.ups {
		if u.Port == port {
			data = u.Data
		}
	}
	b.ups = nil
	return data
}

// synchronise joins and answers the clock request.
func (b *bench) synchronise() {
	b.t.Helper()
	b.turn(modem.Link{Time: b.now, Joined: true, MaxPayload: 222})
	commands, err := clocksync.Parse(applayer.V1, applayer.Uplink, b.last(applayer.FPortClockSync))
	if err != nil || len(commands) != 1 {
		b.t.Fatalf("the device sent %v, %v; want AppTimeReq", commands, err)
	}
	req := commands[0].(clocksync.AppTimeReq)
	if req.DeviceTime != uint32(start/1000) {
		b.t.Errorf("device time %d, want %d", req.DeviceTime, start/1000)
	}
	for _, token := range []uint8{req.TokenReq + 1, req.TokenReq} { // the first one is for another request
		ans, err := clocksync.AppendCommand(nil, applayer.V1, clocksync.AppTimeAns{TimeCorrection: 100, TokenAns: token & 15})
		if err != nil {
			b.t.Fatal(err)
		}
		b.down(applayer.FPortClockSync, modem.Unicast, ans)
	}
}

func (b *bench) mc(commands ...mcsetup.Command) (answers []mcsetup.Command) {
	b.t.Helper()
	var msg []byte
	var err error
	for _, c := range commands {
		if msg, err = mcsetup.AppendCommand(msg, b.version, c); err != nil {
			b.t.Fatal(err)
		}
	}
	b.down(applayer.FPortMcSetup, modem.Unicast, msg)
	data := b.last(applayer.FPortMcSetup)
	if data == nil {
		return nil
	}
	if answers, err = mcsetup.Parse(b.version, applayer.Uplink, data); err != nil {
		b.t.Fatal(err)
	}
	return answers
}

func (b *bench) block(c datablock.Command) (answer datablock.Command) {
	b.t.Helper()
	msg, err := datablock.AppendCommand(nil, b.version, c)
	if err != nil {
		b.t.Fatal(err)
	}
	b.down(applayer.FPortDataBlock, modem.Unicast, msg)
	b.pass(5 * time.Minute) // longer than any delay of an answer here
	data := b.last(applayer.FPortDataBlock)
	if data == nil {
		return nil
	}
	answers, err := datablock.Parse(b.version, applayer.Uplink, data)
	if err != nil || len(answers) != 1 {
		b.t.Fatalf("answers %v, %v in %x", answers, err, data)
	}
	return answers[0]
}

func groupSetup() mcsetup.McGroupSetupReq {
	root := mcsetup.McRootKeyFromGenAppKey(genAppKey)
	return mcsetup.McGroupSetupReq{McAddr: mcAddr, McKeyEncrypted: mcsetup.EncryptMcKey(mcsetup.McKEKey(root), mcKey), MaxMcFCnt: 10000}
}

func session(after int64) mcsetup.McClassCSessionReq {
	return mcsetup.McClassCSessionReq{SessionTime: uint32(int64(start/1000) + 100 + after), TimeOut: 8, DLFreq: mcFreq, DR: 5}
}

// TestGroupAndSession sets a group up and opens its session: the MAC gets the keys of TS005, and windows that make
// good the error of the device's clock.
func TestGroupAndSession(t *testing.T) {
	for _, stack := range stacks {
		b := newBench(t, foreign.Config{Stack: stack})
		b.synchronise()
		answers := b.mc(groupSetup(), session(600))
		if len(answers) != 2 || answers[0] != (mcsetup.McGroupSetupAns{}) || answers[1] != (mcsetup.McClassCSessionAns{TimeToStart: 600}) {
			t.Fatalf("%s answers %+v", stack, answers)
		}
		if len(b.groups) != 1 || b.groups[0].Addr != mcAddr || b.groups[0].AppSKey != mcsetup.McAppSKey(mcKey, mcAddr) || b.groups[0].NwkSKey != mcsetup.McNwkSKey(mcKey, mcAddr) {
			t.Errorf("%s set the groups %+v", stack, b.groups)
		}
		want := modem.Session{Class: 'C', DR: 5, Frequency: mcFreq, Start: start + 600_000, End: start + 856_000}
		if len(b.windows) != 1 || b.windows[0] != want {
			t.Errorf("%s opened %+v, want %+v", stack, b.windows, want)
		}
	}
}

// TestMulticastHabits has a line for each way in which the stacks differ on port 200.
func TestMulticastHabits(t *testing.T) {
	classB := mcsetup.McClassBSessionReq{SessionTime: uint32(start/1000+100)/128*128 + 1280, TimeOut: 1, DLFreq: mcFreq, DR: 5, Periodicity: 4}
	wrong := session(600)
	wrong.DR, wrong.DLFreq = 6, 902_300_000
	undefined := session(600)
	undefined.McGroupID = 2
	for _, tt := range []struct {
		name         string
		unsynced     bool
		commands     []mcsetup.Command
		mac, lbm, ze string // answers behind that to the setup of group 0
	}{
		{"group status", false, []mcsetup.Command{mcsetup.McGroupStatusReq{ReqGroupMask: 15}}, "", "{1 [{0 16909060}]}", ""},
		{"past session", false, []mcsetup.Command{session(-5)}, "{0 false false true false 0 0}", "{0 false false false true 0 0}", "{0 false false false true 0 0}"},
		{"undefined group", false, []mcsetup.Command{undefined}, "{2 true true true false 0 0}", "{2 false false true false 0 0}", "{2 false false true false 0 0}"},
		{"data rate and frequency", false, []mcsetup.Command{wrong}, "{0 true true false false 0 0}", "{0 true true false false 0 0}", ""},
		{"not synchronised", true, []mcsetup.Command{session(600)}, "{0 false false false false 0 700}", "{0 false false false false 0 700}", "{0 false false false false 0 16777215}"},
		{"delete", false, []mcsetup.Command{mcsetup.McGroupDeleteReq{}}, "{0 false}", "{0 false}", "{0 false}"},
		{"delete twice", false, []mcsetup.Command{mcsetup.McGroupDeleteReq{}, mcsetup.McGroupDeleteReq{}}, "{0 false} {0 true}", "{0 false} {0 true}", "{0 false} {0 true}"},
		{"version", false, []mcsetup.Command{mcsetup.PackageVersionReq{}}, "{2 1}", "{2 1}", "{2 1}"},
		{"class B", false, []mcsetup.Command{classB}, "{0 false false false false 0 1180}", "{0 false false false false 0 1180}", "lost"},
	} {
		for i, want := range []string{tt.mac, tt.lbm, tt.ze} {
			b := newBench(t, foreign.Config{Stack: stacks[i]})
			if tt.unsynced {
				b.turn(modem.Link{Time: b.now, Joined: true, MaxPayload: 222})
				b.ups = nil
			} else {
				b.synchronise()
			}
			answers := b.mc(append([]mcsetup.Command{groupSetup()}, tt.commands...)...)
			got := "lost"
			if len(answers) > 0 {
				var texts []string
				for _, a := range answers[1:] {
					texts = append(texts, fmt.Sprintf("%v", a))
				}
				got = strings.Join(texts, " ")
			}
			if tt.name == "class B" && want != "lost" {
				wait := int64(classB.SessionTime) - int64(start/1000+100)
				want = strings.Replace(want, "1180", fmt.Sprint(wait), 1)
			}
			if got != want {
				t.Errorf("%s: %s answers %s, want %s", tt.name, stacks[i], got, want)
			}
			if tt.name == "class B" {
				class := map[foreign.Stack]string{foreign.LoRaMacNode: "C", foreign.BasicsModem: "B"}[stacks[i]]
				if opened := len(b.windows) == 1; opened != (class != "") || opened && string(b.windows[0].Class) != class {
					t.Errorf("%s opened %+v, want class %q", stacks[i], b.windows, class)
				}
			}
		}
	}
}

// TestGroupSetUpDuringItsSession: Basics Modem says yes and keeps the old key.
func TestGroupSetUpDuringItsSession(t *testing.T) {
	for _, stack := range stacks {
		b := newBench(t, foreign.Config{Stack: stack})
		b.synchronise()
		b.mc(groupSetup(), session(10))
		b.pass(time.Minute)
		again := groupSetup()
		again.McAddr++
		if answers := b.mc(again); len(answers) != 1 || answers[0] != (mcsetup.McGroupSetupAns{}) {
			t.Errorf("%s answers %+v, want yes", stack, answers)
		}
		if kept := b.groups[len(b.groups)-1].Addr == mcAddr; kept != (stack == foreign.BasicsModem) {
			t.Errorf("%s: old group kept is %v", stack, kept)
		}
	}
}

const (
	nbFrag   = 20
	fragSize = 16
)

var block = func() []byte {
	b := make([]byte, nbFrag*fragSize-3)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}()

func setup(v applayer.Version) datablock.FragSessionSetupReq {
	req := datablock.FragSessionSetupReq{FragIndex: 1, McGroupBitMask: 1, NbFrag: nbFrag, FragSize: fragSize, Padding: 3}
	if v == applayer.V2 {
		req.SessionCnt = 1
		req.MIC = datablock.SessionMIC(datablock.DataBlockIntKey(genAppKey), 1, 1, req.Descriptor, block)
	}
	return req
}

// send delivers the fragments that are listed, over a group.
func (b *bench) send(group uint8, numbers ...int) {
	b.t.Helper()
	matrix := fragmentation.V1
	if b.version == applayer.V2 {
		matrix = fragmentation.V2
	}
	enc, err := fragmentation.NewEncoder(block, fragSize, matrix)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, n := range numbers {
		data, err := enc.Fragment(nil, n)
		if err != nil {
			b.t.Fatal(err)
		}
		msg, err := datablock.AppendCommand(nil, b.version, datablock.DataFragment{FragIndex: 1, N: uint16(n), Data: data})
		if err != nil {
			b.t.Fatal(err)
		}
		b.down(applayer.FPortDataBlock, group, msg)
	}
}

func span(from, to int) (out []int) {
	for n := from; n <= to; n++ {
		out = append(out, n)
	}
	return out
}

func without(list []int, drop ...int) (out []int) {
	for _, n := range list {
		keep := true
		for _, d := range drop {
			keep = keep && n != d
		}
		if keep {
			out = append(out, n)
		}
	}
	return out
}

// TestTransfers has a line for each way in which a transfer ends, and what the stacks then say of it: whether the
// block is there, and NbFragReceived, MissingFrag and the memory error of the status.
func TestTransfers(t *testing.T) {
	all := span(1, nbFrag)
	parity := span(nbFrag+1, nbFrag+12)
	for _, tt := range []struct {
		name    string
		numbers []int
		group   uint8
		want    [3]string
	}{
		{"no loss", append(span(1, nbFrag), parity[:2]...), 0, [3]string{"block 20 0", "block 20 1", "block 22 0"}},
		{"three lost", append(without(all, 3, 7, 8), parity...), 0, [3]string{"block * 3", "block * 0 silent", "block 29 0"}},
		{"three lost, no parity", without(all, 3, 7, 8), 0, [3]string{"20 3", "17 3", "17 3"}},
		{"parity in any order", append(without(all, 3, 7, 8), nbFrag+40, nbFrag+3, nbFrag+9, nbFrag+1, nbFrag+30, nbFrag+2, nbFrag+8, nbFrag+5, nbFrag+4, nbFrag+6, nbFrag+7, nbFrag+10), 0,
			[3]string{"block * 3", "block * 0 silent", "block 29 0"}},
		{"lost at the end", append(span(1, nbFrag-3), parity...), 0, [3]string{"block * 3", "block * 0 silent", "block 29 0"}},
		{"one fragment late", append(append(without(span(1, 10), 4), 4), append(span(11, nbFrag), parity...)...), 0, [3]string{"block * 1", "block * 0 silent", "block 32 0"}},
		{"parity in the middle", append(append(span(1, 10), nbFrag+1), span(11, nbFrag)...), 0, [3]string{"finished 21 10 error", "11 10 error", "finished 21 0 error"}},
		{"more lost than the redundancy", append(without(all, 1, 2, 3, 4, 5, 6), parity...), 0, [3]string{"finished 21 6 error", "15 6 error", "finished 26 0 error"}},
		{"group outside the mask", append(all, parity[:2]...), 2, [3]string{"block 20 0", "0 20", "block 22 0"}},
	} {
		for i, stack := range stacks {
			b := newBench(t, foreign.Config{Stack: stack, MaxRedundancy: 5})
			b.synchronise()
			if ans := b.block(setup(applayer.V1)); ans != (datablock.FragSessionSetupAns{FragIndex: 1}) {
				t.Fatalf("%s answers the setup with %+v", stack, ans)
			}
			b.send(tt.group, tt.numbers...)
			quiet := b.block(datablock.FragSessionStatusReq{FragIndex: 1}) == nil
			ans := b.block(datablock.FragSessionStatusReq{FragIndex: 1, Participants: true}).(datablock.FragSessionStatusAns)
			var got []string
			if got = nil; b.device.Block(1) != nil {
				got = append(got, "block")
				if !bytes.Equal(b.device.Block(1), block) {
					t.Errorf("%s: %s has another block", tt.name, stack)
				}
			} else if b.device.Finished(1) {
				got = append(got, "finished")
			}
			received := fmt.Sprint(ans.NbFragReceived)
			if strings.Contains(tt.want[i], "*") {
				received = "*" // depends on how much parity it took
			}
			got = append(got, received, fmt.Sprint(ans.MissingFrag))
			if ans.MemoryError {
				got = append(got, "error")
			}
			if quiet {
				got = append(got, "silent")
			}
			if s := strings.Join(got, " "); s != tt.want[i] {
				t.Errorf("%s: %s: %s, want %s", tt.name, stack, s, tt.want[i])
			}
		}
	}
}

func TestLimitsOfTheStacks(t *testing.T) {
	for _, tt := range []struct {
		cfg  foreign.Config
		m, s int
		want bool // refused
	}{
		{foreign.Config{Stack: foreign.LoRaMacNode}, 21, 50, false},
		{foreign.Config{Stack: foreign.LoRaMacNode}, 22, 50, true},
		{foreign.Config{Stack: foreign.LoRaMacNode}, 21, 51, true},
		{foreign.Config{Stack: foreign.BasicsModem}, 100, 242, false},
		{foreign.Config{Stack: foreign.BasicsModem}, 101, 242, true},
		{foreign.Config{Stack: foreign.BasicsModem, MaxFragments: 500}, 500, 10, false},
	} {
		b := newBench(t, tt.cfg)
		b.synchronise()
		ans := b.block(datablock.FragSessionSetupReq{NbFrag: uint16(tt.m), FragSize: uint8(tt.s)})
		if got := ans.(datablock.FragSessionSetupAns).NotEnoughMemory; got != tt.want {
			t.Errorf("%+v with %d fragments of %d bytes: refused is %v, want %v", tt.cfg, tt.m, tt.s, got, tt.want)
		}
	}
}

// TestStatusOfTheLastSession: LoRaMac-node answers for a new session with what it saw in the one before.
func TestStatusOfTheLastSession(t *testing.T) {
	for i, want := range []uint16{5, 0, 0} {
		b := newBench(t, foreign.Config{Stack: stacks[i]})
		b.synchronise()
		b.block(setup(applayer.V1))
		b.send(0, span(1, 5)...)
		b.block(setup(applayer.V1))
		ans := b.block(datablock.FragSessionStatusReq{FragIndex: 1, Participants: true}).(datablock.FragSessionStatusAns)
		if ans.NbFragReceived != want {
			t.Errorf("%s reports %d fragments of a new session, want %d", stacks[i], ans.NbFragReceived, want)
		}
	}
}

// TestLateFinish is the decoder of before 2022: without parity it never finishes.
func TestLateFinish(t *testing.T) {
	b := newBench(t, foreign.Config{Stack: foreign.LoRaMacNode, LateFinish: true})
	b.synchronise()
	b.block(setup(applayer.V1))
	b.send(0, span(1, nbFrag)...)
	if b.device.Finished(1) {
		t.Error("finished without a parity fragment")
	}
	b.send(0, nbFrag+1)
	if !bytes.Equal(b.device.Block(1), block) {
		t.Error("no block after one parity fragment")
	}
}

// TestVersion2 has the MIC: after a repair it is checked and reported; without losses it is not even looked at.
func TestVersion2(t *testing.T) {
	for _, tt := range []struct {
		name     string
		numbers  []int
		forge    bool
		micError bool
	}{
		{"repaired", append(without(span(1, nbFrag), 2, 9), span(nbFrag+1, nbFrag+9)...), false, false},
		{"repaired, another MIC", append(without(span(1, nbFrag), 2, 9), span(nbFrag+1, nbFrag+9)...), true, true},
		{"no loss, another MIC", span(1, nbFrag), true, false},
	} {
		b := newBench(t, foreign.Config{Stack: foreign.BasicsModem, Version: applayer.V2})
		b.synchronise()
		if ans := b.block(datablock.FragSessionStatusReq{FragIndex: 1}).(datablock.FragSessionStatusAns); !ans.SessionDoesNotExist {
			t.Errorf("status before the setup: %+v", ans)
		}
		req := setup(applayer.V2)
		req.AckReception = true
		if tt.forge {
			req.MIC[0]++
		}
		b.block(req)
		b.send(0, tt.numbers...)
		b.pass(time.Hour)
		received, err := datablock.Parse(applayer.V2, applayer.Uplink, b.last(applayer.FPortDataBlock))
		if err != nil || len(received) != 1 || received[0] != (datablock.FragDataBlockReceivedReq{FragIndex: 1, MICError: tt.micError}) {
			t.Errorf("%s: the device reports %+v, %v; want MIC error %v", tt.name, received, err, tt.micError)
		}
		if ans := b.block(req).(datablock.FragSessionSetupAns); !ans.SessionCntReplay {
			t.Errorf("%s: the same setup again is answered %+v, want a replay", tt.name, ans)
		}
		b.take(b.device.PowerUp())
		b.synchroniseAgain()
		if ans := b.block(req).(datablock.FragSessionSetupAns); ans.SessionCntReplay {
			t.Errorf("%s: after a reboot the old counter is refused", tt.name)
		}
	}
}

func (b *bench) synchroniseAgain() {
	b.turn(modem.Link{Time: b.now, Joined: true, MaxPayload: 222})
	b.ups = nil
}

// TestOtherPackages: what none of the stacks has stays without an answer.
func TestOtherPackages(t *testing.T) {
	for _, stack := range stacks {
		b := newBench(t, foreign.Config{Stack: stack})
		b.synchronise()
		b.ups = nil
		b.down(applayer.FPortFwMgmt, modem.Unicast, []byte{1})
		b.down(applayer.FPortMultiPackage, modem.Unicast, []byte{0})
		if len(b.ups) != 0 {
			t.Errorf("%s answers %v", stack, b.ups)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, cfg := range []foreign.Config{{}, {Stack: 9}, {Stack: foreign.Zephyr, Version: applayer.V2}, {Stack: foreign.LoRaMacNode, MaxFragments: -1}} {
		if d, err := foreign.New(cfg); err == nil {
			t.Errorf("New(%+v) = %v, want an error", cfg, d)
		}
	}
}

// FuzzDownlink feeds a device any downlink: it answers, and never stops.
func FuzzDownlink(f *testing.F) {
	f.Add(uint8(1), uint8(201), uint8(0), []byte{0x08, 1, 0x40, 1, 2, 3})
	f.Add(uint8(2), uint8(200), uint8(255), []byte{0x02, 0, 1, 2})
	f.Add(uint8(3), uint8(202), uint8(255), []byte{0x01, 1, 2, 3, 4, 0})
	f.Fuzz(func(t *testing.T, stack, port, group uint8, data []byte) {
		b := newBench(t, foreign.Config{Stack: stacks[int(stack)%3]})
		b.synchronise()
		b.mc(groupSetup())
		b.block(setup(applayer.V1))
		if len(data) <= 242 {
			b.down(port, group, data)
			b.pass(time.Hour)
		}
	})
}

// TestResync has a synchronised device told to ask for the time again, which it does at once.
func TestResync(t *testing.T) {
	for _, stack := range stacks {
		b := newBench(t, foreign.Config{Stack: stack})
		b.synchronise()
		b.ups = nil
		cmd, err := clocksync.AppendCommand(nil, applayer.V1, clocksync.ForceDeviceResyncCmd{NbTransmissions: 2})
		if err != nil {
			t.Fatal(err)
		}
		b.down(applayer.FPortClockSync, modem.Unicast, cmd)
		commands, err := clocksync.Parse(applayer.V1, applayer.Uplink, b.last(applayer.FPortClockSync))
		if err != nil || len(commands) != 1 {
			t.Fatalf("%s sent %v, %v; want AppTimeReq", stack, commands, err)
		}
		if req := commands[0].(clocksync.AppTimeReq); req.DeviceTime != uint32(start/1000)+100 {
			t.Errorf("%s asks with device time %d, want %d", stack, req.DeviceTime, start/1000+100)
		}
	}
}

// TestInstall has a device say that it has installed the block, once it has had the time for it, and not before; a
// session that is deleted changes nothing of it, nor does a restart.
func TestInstall(t *testing.T) {
	for _, stack := range stacks {
		says := modem.Up{Port: 9, Data: []byte{0x17}}
		b := newBench(t, foreign.Config{Stack: stack, Heartbeat: 60, Install: 90 * time.Second, Says: says})
		b.synchronise()
		b.block(setup(applayer.V1))
		b.send(0, span(1, nbFrag-1)...)
		if b.device.Complete() != nil || b.device.Installed() {
			t.Errorf("%s: complete without the last fragment", stack)
		}
		b.send(0, nbFrag)
		if !bytes.Equal(b.device.Complete(), block) || b.device.Installed() {
			t.Errorf("%s: %d bytes, installed %t", stack, len(b.device.Complete()), b.device.Installed())
		}
		b.block(datablock.FragSessionDeleteReq{FragIndex: 1})
		b.pass(3 * time.Minute)
		if got := b.ups[len(b.ups)-1]; got.Port != says.Port || !bytes.Equal(got.Data, says.Data) || !b.device.Installed() {
			t.Errorf("%s says %v, installed %t", stack, got, b.device.Installed())
		}
		if b.take(b.device.PowerUp()); !bytes.Equal(b.device.Complete(), block) {
			t.Errorf("%s has forgotten the block", stack)
		}
	}
}
