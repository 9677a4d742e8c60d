package mcsetup_test

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/internal/codectest"
	"github.com/sower-fuota/sower/applayer/mcsetup"
)

var codec = codectest.Codec[mcsetup.Command]{
	AppendCommand: mcsetup.AppendCommand,
	ParseCommand:  mcsetup.ParseCommand,
	Parse:         mcsetup.Parse,
}

func FuzzParse(f *testing.F) {
	codec.Fuzz(f,
		"\x00",
		"\x00\x02\x02",
		"\x01\x0b\x03\x03",
		"\x01\x35\x00\x04\x03\x02\x01\x02\x12\xac\x00\xfc\x02\x06\x03\x07",
		"\x02\x02\x04\x03\x02\x01\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x00\x04\x00\x00\x00\x08\x00\x00",
		"\x04\x01\x00\x7b\xa3\x54\x08\xd2\xad\x84\x05\x05\x01\x00\x7b\xa3\x54\x46\x28\x76\x84\x03",
		"\x04\x01\xe8\x03\x00\x05\x0a\x04\x21",
	)
}

func TestRefusedValues(t *testing.T) {
	classC := mcsetup.McClassCSessionReq{DLFreq: 869_525_000}
	classB := mcsetup.McClassBSessionReq{DLFreq: 869_525_000}
	with := func(change func(*mcsetup.McClassCSessionReq, *mcsetup.McClassBSessionReq)) []mcsetup.Command {
		c, b := classC, classB
		change(&c, &b)
		return []mcsetup.Command{c, b}
	}
	refused := []mcsetup.Command{
		mcsetup.McGroupStatusReq{ReqGroupMask: 16},
		mcsetup.McGroupStatusAns{NbTotalGroups: 5},
		mcsetup.McGroupStatusAns{Items: []mcsetup.McGroup{{McGroupID: 4}}},
		mcsetup.McGroupStatusAns{Items: []mcsetup.McGroup{{McGroupID: 2}, {McGroupID: 2}}},
		mcsetup.McGroupSetupReq{McGroupID: 4},
		mcsetup.McGroupSetupAns{McGroupID: 4},
		mcsetup.McGroupDeleteReq{McGroupID: 4},
		mcsetup.McGroupDeleteAns{McGroupID: 4},
		mcsetup.McClassBSessionReq{DLFreq: 869_525_000, SessionTime: 127},
		mcsetup.McClassBSessionReq{DLFreq: 869_525_000, Periodicity: 8},
		mcsetup.McClassCSessionReq{}, // no frequency; class B has a default
		mcsetup.McClassCSessionAns{McGroupID: 4},
		mcsetup.McClassCSessionAns{OtherErrors: 4},
		mcsetup.McClassCSessionAns{TimeToStart: 1 << 24},
		mcsetup.McClassCSessionAns{StartMissed: true, TimeToStart: 1},
		mcsetup.McClassBSessionAns{McGroupID: 4},
		mcsetup.McClassBSessionAns{FreqError: true, TimeToStart: 1},
	}
	for _, pair := range [][]mcsetup.Command{
		with(func(c *mcsetup.McClassCSessionReq, b *mcsetup.McClassBSessionReq) { c.McGroupID, b.McGroupID = 4, 4 }),
		with(func(c *mcsetup.McClassCSessionReq, b *mcsetup.McClassBSessionReq) { c.TimeOut, b.TimeOut = 16, 16 }),
		with(func(c *mcsetup.McClassCSessionReq, b *mcsetup.McClassBSessionReq) {
			c.DLFreq, b.DLFreq = 868_100, 868_100
		}),
		with(func(c *mcsetup.McClassCSessionReq, b *mcsetup.McClassBSessionReq) { c.DLFreq++; b.DLFreq++ }),
		with(func(c *mcsetup.McClassCSessionReq, b *mcsetup.McClassBSessionReq) {
			c.DLFreq, b.DLFreq = 1_677_721_600, 2_403_000_000
		}),
	} {
		refused = append(refused, pair...)
	}
	for _, cmd := range refused {
		codec.Refused(t, applayer.V1, cmd, applayer.ErrRange)
		codec.Refused(t, applayer.V2, cmd, applayer.ErrRange)
	}
	for _, cmd := range []mcsetup.Command{classC, classB, mcsetup.McClassBSessionReq{}} {
		if _, err := mcsetup.AppendCommand(nil, applayer.V1, cmd); err != nil {
			t.Errorf("%+v: %v", cmd, err)
		}
	}
}

// What devices answer to a session request, in both versions.
func TestSessionAnswers(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   string
		want mcsetup.McClassCSessionAns
		ok   bool
		rest int
	}{
		{"accepted", "\x04\x01\xe8\x03\x00", mcsetup.McClassCSessionAns{McGroupID: 1, TimeToStart: 1000}, true, 0},
		{"clock unknown", "\x04\x00\xff\xff\xff", mcsetup.McClassCSessionAns{TimeToStart: mcsetup.TimeToStartUnknown}, true, 0},
		{"start missed, nothing else", "\x04\x21", mcsetup.McClassCSessionAns{McGroupID: 1, StartMissed: true}, false, 0},
		{"start missed, another answer", "\x04\x21\x00\x02\x01", mcsetup.McClassCSessionAns{McGroupID: 1, StartMissed: true}, false, 3},
		{"past, as LoRaMac-node says it", "\x04\x10", mcsetup.McClassCSessionAns{McGroupUndefined: true}, false, 0},
		{"undefined, as LoRaMac-node says it", "\x04\x1c",
			mcsetup.McClassCSessionAns{McGroupUndefined: true, FreqError: true, DRError: true}, false, 0},
		{"error of the future", "\x04\x43", mcsetup.McClassCSessionAns{McGroupID: 3, OtherErrors: 1}, false, 0},
		{"all errors", "\x04\xff", mcsetup.McClassCSessionAns{McGroupID: 3, DRError: true, FreqError: true,
			McGroupUndefined: true, StartMissed: true, OtherErrors: 3}, false, 0},
	} {
		for _, v := range []applayer.Version{applayer.V1, applayer.V2} {
			got, rest, err := mcsetup.ParseCommand(v, applayer.Uplink, []byte(tt.in))
			if err != nil || !reflect.DeepEqual(got, tt.want) || len(rest) != tt.rest {
				t.Errorf("%s: ParseCommand(%v, % x) = %+v, % x, %v, want %+v and %d bytes", tt.name, v, tt.in, got, rest, err, tt.want, tt.rest)
			}
			classB := append([]byte{0x05}, tt.in[1:]...)
			gotB, rest, err := mcsetup.ParseCommand(v, applayer.Uplink, classB)
			if err != nil || !reflect.DeepEqual(gotB, mcsetup.McClassBSessionAns(tt.want)) || len(rest) != tt.rest {
				t.Errorf("%s: ParseCommand(%v, % x) = %+v, % x, %v", tt.name, v, classB, gotB, rest, err)
			}
		}
		if tt.want.Accepted() != tt.ok || mcsetup.McClassBSessionAns(tt.want).Accepted() != tt.ok {
			t.Errorf("%s: Accepted is %v", tt.name, !tt.ok)
		}
	}
}

func TestGroupStatusAns(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   string
		want error
	}{
		{"no groups", "\x01\x00", nil},
		{"three defined, none listed", "\x01\x30", nil},
		{"mask and group disagree", "\x01\x11\x02\x04\x03\x02\x01", applayer.ErrRange},
		{"one group twice", "\x01\x23\x00\x04\x03\x02\x01\x00\x04\x03\x02\x01", applayer.ErrRange},
		{"any order", "\x01\x23\x01\x04\x03\x02\x01\x00\x04\x03\x02\x01", nil},
		{"one group short", "\x01\x23\x00\x04\x03\x02\x01", applayer.ErrShort},
	} {
		if _, err := mcsetup.Parse(applayer.V2, applayer.Uplink, []byte(tt.in)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestMaxDuration(t *testing.T) {
	for timeOut, want := range map[uint8]time.Duration{0: time.Second, 8: 256 * time.Second, 15: 32768 * time.Second} {
		if got := (mcsetup.McClassCSessionReq{TimeOut: timeOut}).MaxDuration(); got != want {
			t.Errorf("class C, TimeOut %d: %v, want %v", timeOut, got, want)
		}
		if got := (mcsetup.McClassBSessionReq{TimeOut: timeOut}).MaxDuration(); got != 128*want {
			t.Errorf("class B, TimeOut %d: %v, want %v", timeOut, got, 128*want)
		}
	}
}

// The server creates a group and announces a class C session of 256 s on the default channel of
// EU868, both in one message.
func Example() {
	genAppKey := [16]byte{0x03, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10}
	mcKey := [16]byte{0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10}
	mcKEKey := mcsetup.McKEKey(mcsetup.McRootKeyFromGenAppKey(genAppKey))

	var msg []byte
	for _, cmd := range []mcsetup.Command{
		mcsetup.McGroupSetupReq{
			McAddr:         0x01020304,
			McKeyEncrypted: mcsetup.EncryptMcKey(mcKEKey, mcKey),
			MaxMcFCnt:      2000,
		},
		mcsetup.McClassCSessionReq{SessionTime: 1479362418, TimeOut: 8, DLFreq: 869_525_000, DR: 3},
	} {
		var err error
		if msg, err = mcsetup.AppendCommand(msg, applayer.V2, cmd); err != nil {
			panic(err)
		}
	}
	fmt.Printf("%x\n", msg)

	answers, err := mcsetup.Parse(applayer.V2, applayer.Uplink, []byte{0x02, 0x00, 0x04, 0x20})
	if err != nil {
		panic(err)
	}
	for _, ans := range answers {
		switch ans := ans.(type) {
		case mcsetup.McGroupSetupAns:
			fmt.Println("group:", !ans.IDError)
		case mcsetup.McClassCSessionAns:
			fmt.Println("session:", ans.Accepted(), "missed:", ans.StartMissed)
		}
	}
	// Output:
	// 02000403020115b6c1f8c91e71210588ef85ed1e638300000000d0070000040072472d5808d2ad8403
	// group: true
	// session: false missed: true
}
