package datablock_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/internal/codectest"
)

var codec = codectest.Codec[datablock.Command]{
	AppendCommand: datablock.AppendCommand,
	ParseCommand:  datablock.ParseCommand,
	Parse:         datablock.Parse,
}

func FuzzParse(f *testing.F) {
	codec.Fuzz(f,
		"\x00",
		"\x00\x03\x02\x01\x04",
		"\x01\x05\x03\x02",
		"\x02\x15\x2c\x01\xde\x06\x11\x01\x02\x03\x04",
		"\x02\x15\x2c\x01\xde\x46\x11\x01\x02\x03\x04\x34\x12\xa1\xb2\xc3\xd4\x04\x02",
		"\x02\xd0\x01\x00\x22\x41\x0a\x03\x06\x04\x05",
		"\x01\x04\x00\x00\x00\x01\x04\x03\x06",
		"\x08\x01\xc0\x01\x02\x03\x04",
	)
}

func validSetup() datablock.FragSessionSetupReq {
	return datablock.FragSessionSetupReq{NbFrag: 300, FragSize: 222, Padding: 17}
}

func setup(change func(*datablock.FragSessionSetupReq)) datablock.FragSessionSetupReq {
	c := validSetup()
	change(&c)
	return c
}

func TestRefusedValues(t *testing.T) {
	type req = datablock.FragSessionSetupReq
	for _, cmd := range []datablock.FragSessionSetupReq{
		setup(func(c *req) { c.FragIndex = 4 }),
		setup(func(c *req) { c.McGroupBitMask = 16 }),
		setup(func(c *req) { c.NbFrag = 0 }),
		setup(func(c *req) { c.NbFrag = 1 << 14 }),
		setup(func(c *req) { c.FragSize = 0 }),
		setup(func(c *req) { c.Padding = 222 }),
		setup(func(c *req) { c.FragAlgo = 8 }),
		setup(func(c *req) { c.BlockAckDelay = 8 }),
	} {
		if err := cmd.Validate(); !errors.Is(err, applayer.ErrRange) {
			t.Errorf("Validate(%+v) = %v, want ErrRange", cmd, err)
		}
		codec.Refused(t, applayer.V1, cmd, applayer.ErrRange)
		codec.Refused(t, applayer.V2, cmd, applayer.ErrRange)
	}
	for _, cmd := range []datablock.Command{
		datablock.FragSessionStatusReq{FragIndex: 4},
		datablock.FragSessionStatusAns{FragIndex: 4},
		datablock.FragSessionStatusAns{NbFragReceived: 1 << 14},
		datablock.FragSessionStatusAns{SessionDoesNotExist: true, MissingFrag: 1},
		datablock.FragSessionStatusAns{SessionDoesNotExist: true, FragIndex: 1},
		datablock.FragSessionSetupAns{FragIndex: 4},
		datablock.FragSessionDeleteReq{FragIndex: 4},
		datablock.FragSessionDeleteAns{FragIndex: 4},
		datablock.FragDataBlockReceivedReq{FragIndex: 4},
		datablock.FragDataBlockReceivedAns{FragIndex: 4},
		datablock.DataFragment{N: 0, Data: []byte{1}},
		datablock.DataFragment{N: 1 << 14, Data: []byte{1}},
		datablock.DataFragment{FragIndex: 4, N: 1, Data: []byte{1}},
		datablock.DataFragment{N: 1},
		datablock.DataFragment{N: 1, Data: make([]byte, 256)},
	} {
		codec.Refused(t, applayer.V2, cmd, applayer.ErrRange)
	}
}

// Version 1 has no place for these, and must not lose them silently.
func TestVersion1Refuses(t *testing.T) {
	type req = datablock.FragSessionSetupReq
	for _, cmd := range []datablock.Command{
		setup(func(c *req) { c.AckReception = true }),
		setup(func(c *req) { c.SessionCnt = 1 }),
		setup(func(c *req) { c.MIC[3] = 1 }),
		datablock.FragSessionSetupAns{SessionCntReplay: true},
		datablock.FragSessionStatusAns{MICError: true},
		datablock.FragSessionStatusAns{SessionDoesNotExist: true},
		datablock.FragDataBlockReceivedReq{},
		datablock.FragDataBlockReceivedAns{},
	} {
		codec.Refused(t, applayer.V1, cmd, applayer.ErrVersion)
		if _, err := datablock.AppendCommand(nil, applayer.V2, cmd); err != nil {
			t.Errorf("version 2 refuses %+v: %v", cmd, err)
		}
	}
	for _, dir := range []applayer.Direction{applayer.Downlink, applayer.Uplink} {
		if _, _, err := datablock.ParseCommand(applayer.V1, dir, []byte{0x04, 0x02}); !errors.Is(err, applayer.ErrUnknownCID) {
			t.Errorf("version 1 reads the %v CID 4 of version 2: %v", dir, err)
		}
	}
}

// The same bytes, read in both versions: nothing but the parameter tells them apart.
func TestStatusLayouts(t *testing.T) {
	in := []byte{0x01, 0x22, 0x41, 0x0a, 0x01}
	v1, _, err1 := datablock.ParseCommand(applayer.V1, applayer.Uplink, in)
	v2, _, err2 := datablock.ParseCommand(applayer.V2, applayer.Uplink, in)
	want1 := datablock.FragSessionStatusAns{FragIndex: 1, NbFragReceived: 290, MissingFrag: 10, MemoryError: true}
	want2 := datablock.FragSessionStatusAns{FragIndex: 0, NbFragReceived: 0x0a41, MissingFrag: 1, MICError: true}
	if err1 != nil || !reflect.DeepEqual(v1, want1) {
		t.Errorf("version 1: %+v, %v, want %+v", v1, err1, want1)
	}
	if err2 != nil || !reflect.DeepEqual(v2, want2) {
		t.Errorf("version 2: %+v, %v, want %+v", v2, err2, want2)
	}
}

// Both forms of a version 2 answer without a session, alone and among other answers.
func TestStatusOfNoSession(t *testing.T) {
	none := datablock.FragSessionStatusAns{SessionDoesNotExist: true}
	version := datablock.PackageVersionAns{PackageIdentifier: 3, PackageVersion: 2}
	deleted := datablock.FragSessionDeleteAns{FragIndex: 2, SessionDoesNotExist: true}
	for _, tt := range []struct {
		name string
		in   string
		want []datablock.Command
		err  error
	}{
		{"1 byte", "\x01\x04", []datablock.Command{none}, nil},
		{"4 bytes", "\x01\x04\x00\x00\x00", []datablock.Command{none}, nil},
		{"4 bytes of an old session", "\x01\x04\x2c\x41\x03", []datablock.Command{none}, nil},
		{"4 bytes with another error bit", "\x01\x07\xff\xff\xff", []datablock.Command{none}, nil},
		{"1 byte, delete answer", "\x01\x04\x03\x06", []datablock.Command{none, deleted}, nil},
		{"4 bytes, delete answer", "\x01\x04\x00\x00\x00\x03\x06", []datablock.Command{none, deleted}, nil},
		{"1 byte, version", "\x01\x04\x00\x03\x02", []datablock.Command{none, version}, nil},
		{"version, 4 bytes", "\x00\x03\x02\x01\x04\x00\x03\x00", []datablock.Command{version, none}, nil},
		{"1 byte twice", "\x01\x04\x01\x04", []datablock.Command{none, none}, nil},
		{"4 bytes twice", "\x01\x04\x00\x00\x00\x01\x04\x00\x00\x00", []datablock.Command{none, none}, nil},
		{"1 byte, unknown CID", "\x01\x04\x77\x00", []datablock.Command{none}, applayer.ErrUnknownCID},
		{"cut inside the long form", "\x01\x04\x00\x00", []datablock.Command{none}, applayer.ErrShort},
	} {
		got, err := datablock.Parse(applayer.V2, applayer.Uplink, []byte(tt.in))
		if !errors.Is(err, tt.err) || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: Parse(% x) = %+v, %v, want %+v, %v", tt.name, tt.in, got, err, tt.want, tt.err)
		}
	}
	out, err := datablock.AppendCommand(nil, applayer.V2, none)
	if err != nil || !bytes.Equal(out, []byte{0x01, 0x04}) {
		t.Errorf("AppendCommand = % x, %v, want the form of the specification, 01 04", out, err)
	}
}

// The look ahead of the status answer must not grow with every answer.
func TestManyStatusAnswers(t *testing.T) {
	msg := bytes.Repeat([]byte{0x01, 0x04}, 121)
	cmds, err := datablock.Parse(applayer.V2, applayer.Uplink, msg)
	if err != nil || len(cmds) != 121 {
		t.Errorf("%d commands, %v, want 121", len(cmds), err)
	}
}

func TestDataFragmentIsAlone(t *testing.T) {
	fragment := []byte{0x08, 0x01, 0xc0, 0x01, 0x02}
	cmd, rest, err := datablock.ParseCommand(applayer.V1, applayer.Downlink, fragment)
	want := datablock.DataFragment{FragIndex: 3, N: 1, Data: []byte{1, 2}}
	if err != nil || len(rest) != 0 || !reflect.DeepEqual(cmd, want) {
		t.Errorf("ParseCommand = %+v, % x, %v, want %+v", cmd, rest, err, want)
	}
	cmds, err := datablock.Parse(applayer.V1, applayer.Downlink, append([]byte{0x03, 0x00}, fragment...))
	if !errors.Is(err, applayer.ErrNotAlone) || len(cmds) != 1 {
		t.Errorf("behind another command: %+v, %v, want that command and ErrNotAlone", cmds, err)
	}
	for _, tt := range []struct {
		name string
		in   string
		want error
	}{
		{"fragment number zero", "\x08\x00\x00\x01\x02", applayer.ErrRange},
		{"fragment number zero, index 3", "\x08\x00\xc0\x01\x02", applayer.ErrRange},
		{"no data", "\x08\x01\x00", applayer.ErrShort},
		{"more data than FragSize can say", "\x08\x01\x00" + string(make([]byte, 256)), applayer.ErrRange},
		{"highest number", "\x08\xff\x3f\x01", nil},
	} {
		if _, err := datablock.Parse(applayer.V2, applayer.Downlink, []byte(tt.in)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// A device can read a request that it has to turn down.
func TestImpossibleSetupIsRead(t *testing.T) {
	cmd, _, err := datablock.ParseCommand(applayer.V1, applayer.Downlink, make([]byte, 11)[:0:11])
	if !errors.Is(err, applayer.ErrShort) || cmd != nil {
		t.Errorf("empty message: %v, %v", cmd, err)
	}
	cmd, _, err = datablock.ParseCommand(applayer.V1, applayer.Downlink, append([]byte{0x02}, make([]byte, 10)...))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.(datablock.FragSessionSetupReq).Validate(); !errors.Is(err, applayer.ErrRange) {
		t.Errorf("Validate = %v, want ErrRange", err)
	}
}

func TestVerdicts(t *testing.T) {
	if c := validSetup(); c.Validate() != nil || c.BlockSize() != 300*222-17 {
		t.Errorf("%+v: %v, %d bytes", c, c.Validate(), c.BlockSize())
	}
	if !(datablock.FragSessionSetupAns{FragIndex: 3}).Accepted() {
		t.Error("an answer without errors is not accepted")
	}
	for _, c := range []datablock.FragSessionSetupAns{
		{FragAlgoUnsupported: true}, {NotEnoughMemory: true}, {FragIndexUnsupported: true}, {WrongDescriptor: true}, {SessionCntReplay: true},
	} {
		if c.Accepted() {
			t.Errorf("%+v is accepted", c)
		}
	}
	if !(datablock.FragSessionStatusAns{NbFragReceived: 300}).Complete() {
		t.Error("nothing missing, no errors, and not complete")
	}
	for _, c := range []datablock.FragSessionStatusAns{{MissingFrag: 1}, {MemoryError: true}, {MICError: true}, {SessionDoesNotExist: true}} {
		if c.Complete() {
			t.Errorf("%+v is complete", c)
		}
	}
	for d, want := range map[uint8]time.Duration{0: 16 * time.Second, 3: 128 * time.Second, 7: 2048 * time.Second} {
		if got := datablock.AnswerWindow(d); got != want {
			t.Errorf("AnswerWindow(%d) = %v, want %v", d, got, want)
		}
	}
}

// Set a version 2 session up for a block of 1000 bytes, for a device whose GenAppKey is known.
func Example() {
	block := make([]byte, 1000)
	genAppKey := [16]byte{0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c}

	req := datablock.FragSessionSetupReq{
		McGroupBitMask: 1, // fragments may come over multicast group 0
		NbFrag:         21,
		FragSize:       48,
		Padding:        21*48 - 1000,
		BlockAckDelay:  2,
		AckReception:   true,
		SessionCnt:     1,
	}
	req.MIC = datablock.SessionMIC(datablock.DataBlockIntKey(genAppKey), req.SessionCnt, req.FragIndex, req.Descriptor, block)
	msg, err := datablock.AppendCommand(nil, applayer.V2, req)
	if err != nil {
		panic(err)
	}
	fmt.Printf("% x\n", msg)

	_, err = datablock.AppendCommand(nil, applayer.V1, req)
	fmt.Println(err)
	// Output:
	// 02 01 15 00 30 42 08 00 00 00 00 01 00 9e d1 a8 35
	// FragSessionSetupReq: AckReception: applayer: not in this package version: v1, want v2
}
