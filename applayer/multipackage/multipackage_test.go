package multipackage_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/internal/codectest"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/applayer/multipackage"
)

var codec = codectest.Codec[multipackage.Command]{
	AppendCommand: multipackage.AppendCommand,
	ParseCommand:  multipackage.ParseCommand,
	Parse:         multipackage.Parse,
}

// all is a device with the newest version of every package.
var all = multipackage.Versions{1, 2, 2, 2, 1}

func FuzzParse(f *testing.F) {
	codec.Fuzz(f,
		"\x00\x01",
		"\x00\x00\x01\x01\x05\x00\x01\xe1\x01\x02\xca\x02\x02\xc8\x03\x02\xc9\x04\x01\xcb",
		"\x02\x10\x1f",
		"\x02\x10\xaa\xbb\xcc\xdd",
		"\x02\xff",
	)
}

func FuzzParseMessage(f *testing.F) {
	for _, s := range []string{
		"\x00\x01\x02",
		"\x82\x01\x01\x83\x01\x01\x84\x01\x01",
		"\x02\x10\x1f",
		"\x80\x02\x10\x1f",
		"\x02\x10\xaa\xbb\xcc\xdd\x03",
		"\x02\xff\x03",
		"\x83\x01\x04\x00\x00\x00\x82\x02\x00\x03",
		"\x83\x01\x04\x82\x02\x00\x03",
	} {
		f.Add(false, []byte(s))
		f.Add(true, []byte(s))
	}
	f.Fuzz(func(t *testing.T, uplink bool, in []byte) {
		dir := applayer.Downlink
		if uplink {
			dir = applayer.Uplink
		}
		m, err := multipackage.ParseMessage(all, dir, in)
		if m.Token > 3 {
			t.Fatalf("% x: token %d", in, m.Token)
		}
		var noSession, version bool
		for _, cmd := range m.Commands {
			if cmd.Direction() != dir {
				t.Fatalf("% x: %v message contains %T", in, dir, cmd)
			}
			ans, ok := cmd.(datablock.FragSessionStatusAns)
			noSession = noSession || ok && ans.SessionDoesNotExist
			version = version || dir == applayer.Uplink && cmd.CID() == 0
		}
		if noSession && version {
			return // with a wrong identifier or version it may be written in a way that reads otherwise
		}
		if err != nil {
			return
		}
		out, err := multipackage.AppendMessage(nil, all, m)
		if errors.Is(err, applayer.ErrRange) {
			return // read, but forbidden to send
		}
		if err != nil {
			t.Fatalf("%+v was read from % x, but cannot be written: %v", m, in, err)
		}
		if again, err := multipackage.ParseMessage(all, dir, out); err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v is written as % x, which is read as %+v, %v", m, out, again, err)
		}
		if len(out) > len(in)+1 { // a MultiPackBufferFrag that says error may come without token
			t.Fatalf("%+v was read from % x and is written as % x", m, in, out)
		}
	})
}

// The vectors are made by hand from the text of TS007.
func TestMessageVectors(t *testing.T) {
	packages := multipackage.DevPackageAns{Packages: []multipackage.DevPackage{
		{PackageIdentifier: 0, PackageVersion: 1, FPort: 225}, {PackageIdentifier: 1, PackageVersion: 2, FPort: 202},
		{PackageIdentifier: 2, PackageVersion: 2, FPort: 200}, {PackageIdentifier: 3, PackageVersion: 2, FPort: 201},
		{PackageIdentifier: 4, PackageVersion: 1, FPort: 203},
	}}
	want := map[string]multipackage.Message{
		"000102": {Token: 2, Commands: []applayer.Command{multipackage.PackageVersionReq{}, multipackage.DevPackageReq{}}},
		"00000101050001e10102ca0202c80302c90401cb02": {Token: 2, Commands: []applayer.Command{multipackage.PackageVersionAns{PackageVersion: 1}, packages}},
		"820101830101840101": {Token: 1, Commands: []applayer.Command{mcsetup.McGroupStatusReq{ReqGroupMask: 1},
			datablock.FragSessionStatusReq{Participants: true}, fwmgmt.DevVersionReq{}}},
		"02101f":         {Commands: []applayer.Command{multipackage.MultiPackBufferReq{StartByte: 16, StopByte: 31}}},
		"0210aabbccdd03": {Token: 3, Commands: []applayer.Command{multipackage.MultiPackBufferFrag{BaseByte: 16, Data: []byte{0xaa, 0xbb, 0xcc, 0xdd}}}},
		"02ff03":         {Token: 3, Commands: []applayer.Command{multipackage.MultiPackBufferFrag{Error: true}}},
	}
	if got := packages.Versions(); got != all {
		t.Errorf("Versions = %v, want %v", got, all)
	}
	b, err := os.ReadFile("testdata/messages.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Commands []struct{ Direction, Hex string }
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, v := range file.Commands {
		m, ok := want[v.Hex]
		if !ok {
			t.Errorf("vector %s is not expected", v.Hex)
			continue
		}
		delete(want, v.Hex)
		dir := applayer.Downlink
		if v.Direction == "uplink" {
			dir = applayer.Uplink
		}
		in, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		got, err := multipackage.ParseMessage(all, dir, in)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("ParseMessage(%s) = %+v, %v, want %+v", v.Hex, got, err, m)
		}
		out, err := multipackage.AppendMessage(nil, all, m)
		if err != nil || !bytes.Equal(out, in) {
			t.Errorf("AppendMessage(%+v) = %x, %v, want %s", m, out, err, v.Hex)
		}
	}
	for hex := range want {
		t.Errorf("no vector %s", hex)
	}
}

func TestParseMessage(t *testing.T) {
	none := datablock.FragSessionStatusAns{SessionDoesNotExist: true}
	setup := mcsetup.McGroupSetupAns{McGroupID: 1}
	for _, tt := range []struct {
		name string
		dir  applayer.Direction
		in   string
		want []applayer.Command
		err  error
	}{
		{"token only", applayer.Uplink, "\xff", nil, nil},
		{"nothing", applayer.Uplink, "", nil, applayer.ErrShort},
		{"package named twice", applayer.Uplink, "\x82\x82\x02\x01\x00", []applayer.Command{setup}, nil},
		{"package named and left", applayer.Uplink, "\x81\x82\x02\x01\x00", []applayer.Command{setup}, nil},
		{"back to package 0", applayer.Downlink, "\x82\x01\x01\x80\x01\x00",
			[]applayer.Command{mcsetup.McGroupStatusReq{ReqGroupMask: 1}, multipackage.DevPackageReq{}}, nil},
		{"unknown package", applayer.Uplink, "\x82\x02\x01\x85\x00\x00", []applayer.Command{setup}, applayer.ErrUnknownCID},
		{"unknown command", applayer.Uplink, "\x82\x02\x01\x33\x00\x00", []applayer.Command{setup}, applayer.ErrUnknownCID},
		{"cut short", applayer.Uplink, "\x82\x02\x01\x00\x02\x00", []applayer.Command{setup}, applayer.ErrShort},
		{"no session, short form, next package", applayer.Uplink, "\x83\x01\x04\x82\x02\x01\x00", []applayer.Command{none, setup}, nil},
		{"no session, long form, next package", applayer.Uplink, "\x83\x01\x04\x00\x00\x00\x82\x02\x01\x00", []applayer.Command{none, setup}, nil},
		{"no session, long form that looks like a package", applayer.Uplink, "\x83\x01\x04\x90\x41\x00\x82\x02\x01\x00", []applayer.Command{none, setup}, nil},
		{"error piece without token", applayer.Uplink, "\x02\xff", []applayer.Command{multipackage.MultiPackBufferFrag{Error: true}}, nil},
		{"buffer request with package 0 named", applayer.Downlink, "\x80\x02\x00\x10",
			[]applayer.Command{multipackage.MultiPackBufferReq{StopByte: 16}}, nil},
		{"buffer request beside another", applayer.Downlink, "\x00\x02\x00\x10\x01",
			[]applayer.Command{multipackage.PackageVersionReq{}}, applayer.ErrNotAlone},
		{"piece beyond the buffer", applayer.Uplink, "\x02\x7f\x01\x02\x00", nil, applayer.ErrRange},
		{"data fragment", applayer.Downlink, "\x83\x08\x01\x00\xaa\x00", nil, applayer.ErrNotAlone},
	} {
		got, err := multipackage.ParseMessage(all, tt.dir, []byte(tt.in))
		if !errors.Is(err, tt.err) || !reflect.DeepEqual(got.Commands, tt.want) {
			t.Errorf("%s: ParseMessage(% x) = %+v, %v, want %+v, %v", tt.name, tt.in, got, err, tt.want, tt.err)
		}
	}
	lacking := multipackage.Versions{1, 0, 2}
	if _, err := multipackage.ParseMessage(lacking, applayer.Downlink, []byte("\x81\x03\x01\x00")); !errors.Is(err, applayer.ErrVersion) {
		t.Errorf("a package the device lacks: %v, want ErrVersion", err)
	}
}

func TestAppendMessageRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    multipackage.Message
		want error
	}{
		{"token", multipackage.Message{Token: 4}, applayer.ErrRange},
		{"buffer request with token", multipackage.Message{Token: 1, Commands: []applayer.Command{multipackage.MultiPackBufferReq{}}}, applayer.ErrRange},
		{"buffer request beside another", multipackage.Message{Commands: []applayer.Command{multipackage.MultiPackBufferReq{}, multipackage.DevPackageReq{}}}, applayer.ErrNotAlone},
		{"data fragment", multipackage.Message{Commands: []applayer.Command{datablock.DataFragment{N: 1, Data: []byte{1}}}}, applayer.ErrNotAlone},
		{"both directions", multipackage.Message{Commands: []applayer.Command{clocksync.ForceDeviceResyncCmd{}, clocksync.AppTimeReq{}}}, applayer.ErrRange},
		{"value", multipackage.Message{Commands: []applayer.Command{clocksync.ForceDeviceResyncCmd{NbTransmissions: 9}}}, applayer.ErrRange},
		{"foreign command", multipackage.Message{Commands: []applayer.Command{foreign{}}}, applayer.ErrUnknownCID},
	} {
		dst := []byte{0xaa}
		out, err := multipackage.AppendMessage(dst, all, tt.m)
		if !errors.Is(err, tt.want) || !bytes.Equal(out, dst) {
			t.Errorf("%s: AppendMessage = % x, %v, want %v", tt.name, out, err, tt.want)
		}
	}
	for _, cmd := range []multipackage.Command{
		multipackage.MultiPackBufferReq{StartByte: 128, StopByte: 200},
		multipackage.MultiPackBufferReq{StartByte: 2, StopByte: 1},
		multipackage.MultiPackBufferFrag{},
		multipackage.MultiPackBufferFrag{BaseByte: 127, Data: []byte{1, 2}},
		multipackage.MultiPackBufferFrag{Error: true, Data: []byte{1}},
		multipackage.DevPackageAns{Packages: make([]multipackage.DevPackage, 16)},
	} {
		codec.Refused(t, applayer.V1, cmd, applayer.ErrRange)
	}
}

type foreign struct{}

func (foreign) CID() byte                     { return 0 }
func (foreign) Direction() applayer.Direction { return applayer.Downlink }

// The example of the text: 20 bytes over uplinks of 11 bytes.
func TestSplitExampleOfTheText(t *testing.T) {
	buffer := []byte("abcdefghijklmnopqrst")
	msgs, err := multipackage.Split(buffer, 11, 3)
	want := [][]byte{[]byte("\x02\x00abcdefgh\x03"), []byte("\x02\x08ijklmnop\x03"), []byte("\x02\x10qrst\x03")}
	if err != nil || !reflect.DeepEqual(msgs, want) {
		t.Errorf("Split = %q, %v, want %q", msgs, err, want)
	}
	for _, tt := range []struct {
		name        string
		start, stop uint8
		want        [][]byte
	}{
		{"the last byte wanted is sent", 8, 15, [][]byte{[]byte("\x02\x08ijklmnop\x03")}},
		{"beyond the end means to the end", 16, 31, [][]byte{[]byte("\x02\x10qrst\x03")}},
		{"one byte", 19, 19, [][]byte{[]byte("\x02\x13t\x03")}},
		{"start beyond the end", 20, 31, [][]byte{[]byte("\x02\xff\x03")}},
		{"stop before start", 5, 4, [][]byte{[]byte("\x02\xff\x03")}},
	} {
		got, err := multipackage.SplitRange(buffer, multipackage.MultiPackBufferReq{StartByte: tt.start, StopByte: tt.stop}, 11, 3)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, err, tt.want)
		}
	}
	for _, tt := range []struct{ size, maxPayload int }{{129, 200}, {20, 3}, {20, -1}} {
		if msgs, err := multipackage.Split(make([]byte, tt.size), tt.maxPayload, 0); !errors.Is(err, applayer.ErrRange) {
			t.Errorf("Split of %d bytes into %d: %q, %v, want ErrRange", tt.size, tt.maxPayload, msgs, err)
		}
	}
	if _, err := multipackage.Split(buffer, 11, 4); !errors.Is(err, applayer.ErrRange) {
		t.Errorf("Split with token 4: %v, want ErrRange", err)
	}
}

// Any buffer over any uplink, with pieces lost, repeated and out of order: asking for what is missing
// brings the rest.
func TestBuffer(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 1))
		sent := make([]byte, 1+rng.IntN(multipackage.MaxBuffer))
		for i := range sent {
			sent[i] = byte(rng.Uint32())
		}
		maxPayload := 4 + rng.IntN(60)
		var got multipackage.Buffer
		deliver := func(msgs [][]byte) {
			for _, i := range rng.Perm(len(msgs)) {
				if rng.IntN(3) == 0 {
					continue // lost
				}
				cmds, err := multipackage.Parse(applayer.V1, applayer.Uplink, msgs[i][:len(msgs[i])-1])
				if err != nil || len(msgs[i]) > maxPayload {
					t.Fatalf("seed %d: message % x of at most %d bytes: %v", seed, msgs[i], maxPayload, err)
				}
				frag := cmds[0].(multipackage.MultiPackBufferFrag)
				if frag.Error {
					t.Fatalf("seed %d: asked for bytes behind the end", seed)
				}
				if err := got.Add(frag); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
		if len(sent) >= maxPayload {
			msgs, err := multipackage.Split(sent, maxPayload, 0)
			if err != nil {
				t.Fatal(err)
			}
			deliver(msgs)
		}
		for round := 0; len(got.Bytes()) < len(sent); round++ {
			req, missing := got.Missing()
			if !missing || round > 200 {
				t.Fatalf("seed %d: %d of %d bytes after %d rounds, missing %v", seed, len(got.Bytes()), len(sent), round, missing)
			}
			msgs, err := multipackage.SplitRange(sent, req, maxPayload, 0)
			if err != nil {
				t.Fatal(err)
			}
			deliver(msgs)
		}
		if !bytes.Equal(got.Bytes(), sent) {
			t.Fatalf("seed %d: % x, want % x", seed, got.Bytes(), sent)
		}
		bad := multipackage.MultiPackBufferFrag{Data: []byte{sent[0], ^sent[len(sent)-1]}}
		bad.Data = bad.Data[:min(2, len(sent))]
		bad.Data[len(bad.Data)-1] = ^sent[len(bad.Data)-1]
		if err := got.Add(bad); !errors.Is(err, multipackage.ErrConflict) || !bytes.Equal(got.Bytes(), sent) {
			t.Fatalf("seed %d: another value for a byte: %v", seed, err)
		}
	}
	var b multipackage.Buffer
	if err := b.Add(multipackage.MultiPackBufferFrag{Data: make([]byte, multipackage.MaxBuffer)}); err != nil {
		t.Fatal(err)
	}
	if req, missing := b.Missing(); missing {
		t.Errorf("full buffer misses %+v", req)
	}
}

// Discover the packages of a device, then ask two of them something in one message.
func Example() {
	uplink := []byte{0x01, 0x03, 0, 1, 225, 3, 1, 201, 4, 1, 203, 0x00}
	m, err := multipackage.ParseMessage(multipackage.Versions{1}, applayer.Uplink, uplink)
	if err != nil {
		panic(err)
	}
	device := m.Commands[0].(multipackage.DevPackageAns).Versions()
	fmt.Println("TS004", device[applayer.DataBlock], "TS006", device[applayer.FwMgmt])

	downlink, err := multipackage.AppendMessage(nil, device, multipackage.Message{
		Token: 1,
		Commands: []applayer.Command{
			datablock.FragSessionStatusReq{Participants: true},
			fwmgmt.DevVersionReq{},
		},
	})
	if err != nil {
		panic(err)
	}
	fmt.Printf("% x\n", downlink)
	// Output:
	// TS004 v1 TS006 v1
	// 83 01 01 84 01 01
}
