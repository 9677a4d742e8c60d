package packages_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/firmware-stub/test/packages/cpkg"
)

const (
	key16  = "0102030405060708090a0b0c0d0e0f10"
	setup1 = "02152c01de061101020304"
	setup2 = "02152c01de4611010203043412a1b2c3d4"
)

func groupSetup(id int, addrLE string) string {
	return fmt.Sprintf("02%02x%s%s00000000ffffffff", id, addrLE, key16)
}

// A vectorCase brings a synchronised device into a state and sends it one message. It proves the vectors of its
// package that are the message, that are listed in also, and that are among the uplinks.
type vectorCase struct {
	pkg     string
	version uint8 // 0: both
	prepare func(t *testing.T)
	down    string
	up      string // "port:hex port:hex"
	wait    uint32 // seconds during which uplinks are collected; 0: those that are due at once
	also    []string
}

// The device of a case is at second 1000, and GPS time is gps.
const now = 1000

var vectorCases = []vectorCase{
	{pkg: "TS003", version: 1, down: "00", up: "202:000101"},
	{pkg: "TS003", version: 2, down: "00", up: "202:000102"},
	{pkg: "TS003", prepare: nineFirstParts, up: "202:01007ba35419", also: []string{"01ffffff7f00"}},
	{pkg: "TS003", prepare: clockAtZero, down: "0301", up: "202:010000000000"},
	{pkg: "TS003", prepare: func(t *testing.T) {
		nineFirstParts(t)
		now := uint32(nineFirstPartsAt)
		down(t, now, 202, cpkg.Unicast, "01d6ffffff09")
		if got := cpkg.GPSTime(now); got != gps-42 {
			t.Errorf("GPS time %d after a correction of -42 s, want %d", got, uint32(gps-42))
		}
	}, also: []string{"01d6ffffff09"}},
	{pkg: "TS003", down: "020a", up: "202:0200007ba354"},
	{pkg: "TS003", version: 1, down: "0307", up: "202:01007ba35401"},
	{pkg: "TS003", version: 2, down: "0303", up: "202:01007ba35401"},

	{pkg: "TS004", version: 1, down: "00", up: "201:000301"},
	{pkg: "TS004", version: 2, down: "00", up: "201:000302"},
	{pkg: "TS004", version: 1, prepare: status(1, 290, 10, true, false), down: "0103", up: "201:0122410a01", wait: 20},
	{pkg: "TS004", version: 2, prepare: status(1, 290, 10, false, false), down: "0103", up: "201:010022410a", wait: 20},
	{pkg: "TS004", version: 2, prepare: status(1, 290, 10, false, true), down: "0103", up: "201:010022410a", wait: 20},
	{pkg: "TS004", version: 2, prepare: status(1, 290, 10, true, false), down: "0103", up: "201:010122410a", wait: 20},
	{pkg: "TS004", version: 2, prepare: status(0, 300, 0, false, true), down: "0101", up: "201:01022c0100", wait: 20},
	{pkg: "TS004", version: 1, prepare: status(0, 300, 0, false, false), down: "0101", up: "201:012c010000", wait: 20},
	{pkg: "TS004", prepare: status(2, 300, 0, false, false), down: "0104", wait: 20},
	{pkg: "TS004", version: 1, down: "0107", wait: 3000}, // version 1 cannot say that there is no session
	{pkg: "TS004", version: 2, down: "0107", up: "201:0104", wait: 20},
	{pkg: "TS004", down: "0302", up: "201:0306"},
	{pkg: "TS004", prepare: status(2, 0, 1, false, false), down: "0302", up: "201:0302"},
	{pkg: "TS004", version: 1, down: setup1, up: "201:0240"},
	{pkg: "TS004", version: 1, prepare: refuse(causeNoRAM), down: setup1, up: "201:0242"},
	{pkg: "TS004", version: 1, prepare: refuse(causeIndex), down: setup1, up: "201:0244"},
	{pkg: "TS004", version: 1, prepare: refuse(causeDescriptor), down: setup1, up: "201:0248"},
	{pkg: "TS004", version: 2, down: setup2, up: "201:0240"},
	{pkg: "TS004", version: 2, prepare: refuse(causeReplay), down: "02352c01de4611010203043412a1b2c3d4", up: "201:02d0"},
	{pkg: "TS004", prepare: status(3, 0, 2, false, false), down: "0801c001020304", wait: 20},
	{pkg: "TS004", prepare: status(0, 0, 2, false, false), down: "08ff3faabb", wait: 20},
	{pkg: "TS004", version: 2, prepare: block(2, 0), up: "201:0402", wait: 20},
	{pkg: "TS004", version: 2, prepare: block(1, causeMIC), up: "201:0405", wait: 20},
	{pkg: "TS004", version: 2, prepare: block(2, 0), down: "0402", wait: 3000},

	{pkg: "TS005", version: 1, down: "00", up: "200:000201"},
	{pkg: "TS005", version: 2, down: "00", up: "200:000202"},
	{pkg: "TS005", prepare: groups(0, "04030201", 1, "44332211", 2, "12ac00fc"), down: "0105", up: "200:013500040302010212ac00fc"},
	{pkg: "TS005", down: "010b", up: "200:0100"},
	{pkg: "TS005", down: "0202040302010102030405060708090a0b0c0d0e0f100004000000080000", up: "200:0202"},
	{pkg: "TS005", prepare: func(*testing.T) { cpkg.NoMulticast() },
		down: "0202040302010102030405060708090a0b0c0d0e0f100004000000080000", up: "200:0206"},
	{pkg: "TS005", down: "0303", up: "200:0307"},
	{pkg: "TS005", prepare: groups(3, "04030201"), down: "0303", up: "200:0303"},
	{pkg: "TS005", prepare: before(1000, 1), down: "0401007ba35408d2ad8405", up: "200:0401e80300"},
	{pkg: "TS005", prepare: before(1000, 1), down: "0501007ba3544628768403", up: "200:0501e80300"},
	{pkg: "TS005", prepare: before(-1, 1), down: "0401007ba35408d2ad8405", up: "200:0421"},
	{pkg: "TS005", prepare: before(1000, 2), down: "0502007ba3544600000003", up: "200:0502e80300"}, // the default ping-slot channels,
	{pkg: "TS005", prepare: before(1000, 2), down: "0502007ba354463f420f03", up: "200:050a"},       // 99.9999 MHz
	{pkg: "TS005", down: "0502007ba3544628768410", up: "200:0516"},

	{pkg: "TS006", down: "00", up: "203:000401"},
	{pkg: "TS006", down: "01", up: "203:010403020108070605"},
	{pkg: "TS006", prepare: before(3600, 0), down: "02007ba354", up: "203:02100e0000"},
	{pkg: "TS006", prepare: before(-1, 0), down: "02007ba354", up: "203:0200000000"},
	{pkg: "TS006", down: "02ffffffff", up: "203:02ffffffff"},
	{pkg: "TS006", down: "0200000000"},
	{pkg: "TS006", down: "03ffff00", up: "203:03ffff00"},
	{pkg: "TS006", down: "03000000"},
	{pkg: "TS006", down: "03ffffff", up: "203:03ffffff"},
	{pkg: "TS006", down: "04", up: "203:0400"},
	{pkg: "TS006", prepare: image(1, 0), down: "04", up: "203:0401"},
	{pkg: "TS006", prepare: image(2, 0), down: "04", up: "203:0402"},
	{pkg: "TS006", prepare: image(3, 16909060), down: "04", up: "203:040304030201"},
	{pkg: "TS006", prepare: image(3, 16909060), down: "0504030201", up: "203:0500"},
	{pkg: "TS006", down: "0504030201", up: "203:0501"},
	{pkg: "TS006", prepare: image(3, 1), down: "0504030201", up: "203:0502"},

	{pkg: "TS007", version: 2, down: "000102", up: "225:00000101050001e10102ca0202c80302c90401cb02"},
	{pkg: "TS007", version: 2, prepare: groups(0, "04030201"), down: "820101830101840101",
		up: "225:820111000403020183010484010403020108070605" +
			"01"},
	{pkg: "TS007", version: 2, down: "02101f", up: "225:02ff00"},
}

// noVector are the vectors that no case proves, and why.
var noVector = map[string]string{
	"0201007ba354":   "DeviceAppTimePeriodicityAns: this library supports every period",
	"024a":           "FragSessionSetupAns: it tells the first cause it finds, never two",
	"0210aabbccdd03": "MultiPackBufferFrag of an invented buffer: TestMultiPackFragments has real ones",
	"02ff03":         "MultiPackBufferFrag error with token 3: TestMultiPackFragments",
}

// TestVectors answers every downlink of commands.json and produces every uplink of it, byte for byte.
func TestVectors(t *testing.T) {
	proved := map[string]bool{}
	for _, c := range vectorCases {
		versions := []uint8{1, 2}
		if c.version != 0 {
			versions = []uint8{c.version}
		}
		for _, v := range versions {
			name := fmt.Sprintf("%s v%d %s %s", c.pkg, v, c.down, c.up)
			t.Run(name, func(t *testing.T) {
				cpkg.Reset()
				cpkg.SetFirmware(16909060, 16909061)
				cpkg.SetIdentity(nil, false, 84281096)
				open(t, cpkg.Options{Version: v}, now)
				sync(t, now, gps-now)
				at := uint32(now)
				if c.prepare != nil {
					c.prepare(t)
					at += shift
					defer func() { shift = 0 }()
				}
				if c.down != "" {
					down(t, at, portOf[c.pkg], cpkg.Unicast, c.down)
				}
				var got []string
				for _, u := range drainUntil(at, at+c.wait) {
					got = append(got, u[strings.Index(u, " ")+1:])
				}
				got = only(got, int(portOf[c.pkg]))
				expect(t, "uplinks", strings.Join(got, " "), c.up)
			})
			for _, h := range append(c.also, c.down) {
				proved[fmt.Sprintf("%s v%d %s", c.pkg, v, h)] = true
			}
			for u := range strings.FieldsSeq(c.up) {
				proved[fmt.Sprintf("%s v%d %s", c.pkg, v, u[4:])] = true
			}
		}
	}
	for _, v := range readVectors(t) {
		version := v.Version
		if v.Package == "TS007" { // version 1 only, carrying version 2 of the others
			version = 2
		}
		key := fmt.Sprintf("%s v%d %s", v.Package, version, v.Hex)
		if _, excused := noVector[v.Hex]; proved[key] == excused {
			t.Errorf("vector %s (%s %s): proved %v, excused %v", key, v.Direction, v.Command, proved[key], excused)
		}
	}
}

var portOf = map[string]uint8{"TS003": 202, "TS004": 201, "TS005": 200, "TS006": 203, "TS007": 225}

type vector struct {
	Package, Direction, Command, Hex string
	Version                          uint8
}

func readVectors(t *testing.T) []vector {
	t.Helper()
	b, err := os.ReadFile("testdata/commands.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Commands []vector }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Commands) < 90 {
		t.Fatalf("%d vectors, want more than 90", len(file.Commands))
	}
	return file.Commands
}

// shift is how far a prepare function moved the clock of the case.
var shift uint32

// nineFirstParts is the state after nine corrections at the end of their range: token 9, not synchronised, and at
// nineFirstPartsAt the clock shows gps.
func nineFirstParts(t *testing.T) {
	cpkg.Reset()
	shift = nineFirstPartsAt - now
	open(t, cpkg.Options{}, nineFirstPartsAt)
	for i := range 9 {
		down(t, nineFirstPartsAt, 202, cpkg.Unicast, fmt.Sprintf("01ffffff7f%02x", i))
	}
}

const nineFirstPartsAt = (gps + 9*(1<<32-0x7fffffff)) & (1<<32 - 1)

func clockAtZero(t *testing.T) {
	cpkg.Reset()
	shift = 1<<32 - now
	open(t, cpkg.Options{}, 0)
}

func status(index uint8, received, missing uint16, memory, mic bool) func(*testing.T) {
	return func(*testing.T) { cpkg.SetStatus(index, received, missing, memory, mic) }
}

func refuse(cause int) func(*testing.T) { return func(*testing.T) { cpkg.SetResults(-cause, 0, 0) } }

func image(state uint8, version uint32) func(*testing.T) {
	return func(*testing.T) { cpkg.SetImage(state, version) }
}

// block delivers a block of one fragment in a v2 session with AckReception.
func block(index, cause int) func(*testing.T) {
	return func(t *testing.T) {
		cpkg.StopWith(uint8(cause), false)
		down(t, now, 201, cpkg.Unicast, fmt.Sprintf("02%02x0100024000000000000000aabbccdd", index<<4))
		down(t, now, 201, cpkg.Unicast, fmt.Sprintf("0801%02xffff", index<<6))
		if got := only(drain(now), 201); !slices.Equal(got, []string{fmt.Sprintf("201:02%02x", index<<6)}) {
			t.Errorf("set-up: %v", got)
		}
	}
}

func groups(idAddr ...any) func(*testing.T) {
	return func(t *testing.T) {
		for i := 0; i < len(idAddr); i += 2 {
			expect(t, "McGroupSetup", ask(t, now, 200, groupSetup(idAddr[i].(int), idAddr[i+1].(string))),
				fmt.Sprintf("200:02%02x", idAddr[i]))
		}
	}
}

// before sets the clock to that many seconds before gps and defines a group.
func before(seconds, id int) func(*testing.T) {
	return func(t *testing.T) {
		down(t, now, 202, cpkg.Unicast, fmt.Sprintf("01%s01", le32(uint32(-seconds))))
		groups(id, "04030201")(t)
	}
}

func TestMulticastKeys(t *testing.T) {
	b, err := os.ReadFile("testdata/multicast_keys.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []map[string]string
	}
	if err := json.Unmarshal(b, &file); err != nil || len(file.Vectors) < 8 {
		t.Fatalf("%d vectors, %v", len(file.Vectors), err)
	}
	for _, v := range file.Vectors {
		cpkg.Reset()
		cpkg.SetIdentity(unhex(t, v["root_key"]), v["lorawan"] == "1.1", 0)
		open(t, cpkg.Options{}, now)
		addr := unhex(t, v["McAddr_be"])
		slices.Reverse(addr)
		expect(t, "answer", ask(t, now, 200, "0201"+hex.EncodeToString(addr)+v["McKey_encrypted"]+"0500000000000100"), "200:0201")
		got := cpkg.Groups()
		if len(got) != 1 {
			t.Fatalf("%d groups handed over, want 1", len(got))
		}
		g := got[0]
		expect(t, "McAppSKey", hex.EncodeToString(g.AppSKey[:]), v["McAppSKey"])
		expect(t, "McNwkSKey", hex.EncodeToString(g.NwkSKey[:]), v["McNwkSKey"])
		expect(t, "McAddr", fmt.Sprintf("%08x", g.Addr), v["McAddr_be"])
		if g.ID != 1 || !g.Defined || g.Min != 5 || g.Max != 0x10000 {
			t.Errorf("group %+v, want id 1, defined, 5 <= FCnt < 65536", g)
		}
	}
}
