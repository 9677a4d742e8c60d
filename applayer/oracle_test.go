package applayer_test

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	oracleclock "github.com/brocaar/lorawan/applayer/clocksync"
	oraclefw "github.com/brocaar/lorawan/applayer/firmwaremanagement"
	oraclefrag "github.com/brocaar/lorawan/applayer/fragmentation"
	oraclemc "github.com/brocaar/lorawan/applayer/multicastsetup"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/mcsetup"
)

// An oracle reads a version 1 command and writes it again, with all reserved bits 0.
type oracle func(uplink bool, b []byte) ([]byte, error)

func throughOracle[C encoding.BinaryMarshaler](cmd C, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return cmd.MarshalBinary()
}

var oracles = map[string]oracle{
	"TS003": func(uplink bool, b []byte) ([]byte, error) {
		var c oracleclock.Command
		return throughOracle(&c, c.UnmarshalBinary(uplink, b))
	},
	"TS004": func(uplink bool, b []byte) ([]byte, error) {
		var c oraclefrag.Command
		return throughOracle(&c, c.UnmarshalBinary(uplink, b))
	},
	"TS005": func(uplink bool, b []byte) ([]byte, error) {
		var c oraclemc.Command
		return throughOracle(&c, c.UnmarshalBinary(uplink, b))
	},
	"TS006": func(uplink bool, b []byte) ([]byte, error) {
		var c oraclefw.Command
		return throughOracle(&c, c.UnmarshalBinary(uplink, b))
	},
}

// defects are what is wrong with the oracle, each with the inputs that it concerns and an example:
// the oracle must answer in as it does, and we must write it as want.
var defects = []struct {
	pkg      string
	dir      applayer.Direction
	cid      byte
	what     string
	concerns func(p []byte) bool
	in       string
	oracle   string // "" for an error
	want     string
}{
	{"TS003", applayer.Downlink, 3, "ForceDeviceResyncReq masks with 0x17",
		func(p []byte) bool { return p[0]&0x14 != 0 }, "0310", "0310", "0300"},
	{"TS005", applayer.Uplink, 4, "McClassCSessionAns knows no StartMissed and wants TimeToStart beside it",
		func(p []byte) bool { return p[0]&0xe0 != 0 }, "0421", "", "0421"},
	{"TS005", applayer.Uplink, 5, "McClassBSessionAns knows no StartMissed and wants TimeToStart beside it",
		func(p []byte) bool { return p[0]&0xe0 != 0 }, "0521", "", "0521"},
	{"TS006", applayer.Uplink, 5, "DevDeleteImageAns writes ErrorNoValidImage into both bits",
		func(p []byte) bool { return p[0]&0x03 != 0 }, "0502", "0500", "0502"},
	{"TS006", applayer.Downlink, 1, "DevVersionReq cannot be followed by another command",
		func(p []byte) bool { return len(p) > 0 }, "0100", "", "01"},
	{"TS006", applayer.Downlink, 4, "DevUpgradeImageReq cannot be followed by another command",
		func(p []byte) bool { return len(p) > 0 }, "0400", "", "04"},
}

func TestDefectsOfTheOracle(t *testing.T) {
	for _, d := range defects {
		t.Run(d.pkg+"/"+d.what, func(t *testing.T) {
			in := unhex(t, d.in)
			if !d.concerns(in[1:]) {
				t.Errorf("%s is not an example", d.in)
			}
			got, err := oracles[d.pkg](d.dir == applayer.Uplink, in)
			if fmt.Sprintf("%x", got) != d.oracle || (err != nil) != (d.oracle == "") {
				t.Errorf("the oracle makes %x, %v of %s, want %q", got, err, d.in, d.oracle)
			}
			cmd, _, err := codecs[d.pkg].parse(applayer.V1, d.dir, in)
			if err != nil {
				t.Fatal(err)
			}
			out, err := codecs[d.pkg].append(nil, applayer.V1, cmd)
			if err != nil || fmt.Sprintf("%x", out) != d.want {
				t.Errorf("%s becomes %x, %v, want %s", d.in, out, err, d.want)
			}
		})
	}
}

// The oracle reads the low bit of Periodicity into TimeOut as well: 2^22 beacon periods instead of
// 2^6. Writing it again hides that.
func TestDefectOfTheOracleInClassBTimeOut(t *testing.T) {
	in := unhex(t, "0501007ba3541628768403")
	var c oraclemc.Command
	if err := c.UnmarshalBinary(false, in); err != nil {
		t.Fatal(err)
	}
	if got := c.Payload.(*oraclemc.McClassBSessionReqPayload).TimeOutPeriodicity.TimeOut; got != 22 {
		t.Errorf("the oracle reads TimeOut %d, want its defect, 22", got)
	}
	cmd, _, err := mcsetup.ParseCommand(applayer.V1, applayer.Downlink, in)
	if err != nil {
		t.Fatal(err)
	}
	if got := cmd.(mcsetup.McClassBSessionReq); got.TimeOut != 6 || got.Periodicity != 1 {
		t.Errorf("TimeOut %d, Periodicity %d, want 6 and 1", got.TimeOut, got.Periodicity)
	}
}

func concerned(pkg string, dir applayer.Direction, in []byte) bool {
	for _, d := range defects {
		if d.pkg == pkg && d.dir == dir && d.cid == in[0] && d.concerns(in[1:]) {
			return true
		}
	}
	return false
}

// Random bytes behind every CID of every package: both implementations of version 1 read them as a
// command that they write in the same way.
func TestAgreesWithOracle(t *testing.T) {
	sizes := map[string][2][]int{ // payload bytes by direction and CID; -1: no such command
		"TS003": {{0, 5, 1, 1}, {2, 5, 5, -1}},
		"TS004": {{0, 1, 10, 1, -1, -1, -1, -1, 50}, {2, 4, 1, 1, -1, -1, -1, -1, -1}},
		"TS005": {{0, 1, 29, 1, 10, 10}, {2, 21, 1, 1, 4, 4}},
		"TS006": {{0, 0, 4, 3, 0, 4}, {2, 8, 4, 3, 5, 1}},
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for pkg, byDirection := range sizes {
		for dir, byCID := range byDirection {
			dir := applayer.Direction(dir)
			for cid, size := range byCID {
				if size < 0 {
					continue
				}
				compared := 0
				for try := 0; try < 200_000 && compared < 2000; try++ {
					in := append([]byte{byte(cid)}, make([]byte, size)...)
					for i := range in[1:] {
						in[1+i] = byte(rng.Uint32())
					}
					if pkg == "TS005" && dir == applayer.Uplink && cid == 1 { // list as many groups as the mask says
						shapeGroupStatusAns(rng, in[1:])
					}
					if pkg == "TS005" && dir == applayer.Downlink && cid == 5 {
						in[2] &= 0x80 // SessionTime is a multiple of 128
					}
					if concerned(pkg, dir, in) {
						continue
					}
					if compareWithOracle(t, pkg, dir, in) {
						compared++
					}
				}
				if compared < 1000 {
					t.Errorf("%s %v CID %d: compared %d inputs only", pkg, dir, cid, compared)
				}
			}
		}
	}
}

func shapeGroupStatusAns(rng *rand.Rand, p []byte) {
	mask, n := byte(0), 0
	for id := range byte(4) {
		if rng.IntN(2) == 0 {
			p[1+5*n] = p[1+5*n]&0xfc | id
			mask |= 1 << id
			n++
		}
	}
	p[0] = p[0]&0xf0 | mask
}

// compareWithOracle reports whether in was a command that may be sent.
func compareWithOracle(t *testing.T, pkg string, dir applayer.Direction, in []byte) bool {
	t.Helper()
	cmd, _, err := codecs[pkg].parse(applayer.V1, dir, in)
	if errors.Is(err, applayer.ErrRange) {
		return false
	}
	if err != nil {
		t.Fatalf("%s %v: ParseCommand(%x) = %v", pkg, dir, in, err)
	}
	out, err := codecs[pkg].append(nil, applayer.V1, cmd)
	if errors.Is(err, applayer.ErrRange) {
		return false // forbidden by the specification, which the oracle does not look at
	}
	if err != nil {
		t.Fatalf("%s %v: AppendCommand(%+v) = %v", pkg, dir, cmd, err)
	}
	want, err := oracles[pkg](dir == applayer.Uplink, in)
	if err != nil || !bytes.Equal(out, want) {
		t.Fatalf("%s %v: %x read and written again is %x, by the oracle %x, %v", pkg, dir, in, out, want, err)
	}
	return true
}
