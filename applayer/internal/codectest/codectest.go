// Package codectest holds the properties that every codec of package applayer has, for the tests of
// its directories.
package codectest

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/sower-fuota/sower/applayer"
)

// Codec is the three functions that every directory offers.
type Codec[C applayer.Command] struct {
	AppendCommand func([]byte, applayer.Version, C) ([]byte, error)
	ParseCommand  func(applayer.Version, applayer.Direction, []byte) (C, []byte, error)
	Parse         func(applayer.Version, applayer.Direction, []byte) ([]C, error)
}

var sentinels = []error{
	applayer.ErrUnknownCID, applayer.ErrShort, applayer.ErrRange, applayer.ErrVersion, applayer.ErrNotAlone,
}

func known(err error) bool {
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// Check reads in as one command and as a message and fails t if
//
//   - an error is none of package applayer, or comes with a command;
//   - the bytes left over are not the end of in, or nothing was consumed;
//   - a command is not of the direction and CID that were read;
//   - a command cannot be written again, unless the specification forbids sending it;
//   - what is written is longer than what was read, or is not read back as the same value;
//   - Parse and repeated ParseCommand disagree.
func (c Codec[C]) Check(t *testing.T, v applayer.Version, dir applayer.Direction, in []byte) {
	t.Helper()
	var cmds []C
	rest := in
	for len(rest) > 0 {
		cmd, tail, err := c.ParseCommand(v, dir, rest)
		if err != nil {
			if !known(err) {
				t.Fatalf("% x: %v: not an error of package applayer", rest, err)
			}
			if any(cmd) != nil || tail != nil {
				t.Fatalf("% x: %v, together with %+v and rest % x", rest, err, cmd, tail)
			}
			break
		}
		if len(tail) >= len(rest) || !bytes.Equal(tail, rest[len(rest)-len(tail):]) {
			t.Fatalf("% x: the rest % x is not its end", rest, tail)
		}
		if cmd.CID() != rest[0] || cmd.Direction() != dir {
			t.Fatalf("% x: %v %#02x was read as %T", rest, dir, rest[0], cmd)
		}
		c.roundTrip(t, v, dir, cmd, rest[:len(rest)-len(tail)])
		cmds = append(cmds, cmd)
		rest = tail
	}
	all, err := c.Parse(v, dir, in)
	switch {
	case err != nil && !known(err):
		t.Fatalf("% x: %v: not an error of package applayer", in, err)
	case errors.Is(err, applayer.ErrNotAlone):
		if len(all) > len(cmds) || len(all) > 0 && !reflect.DeepEqual(all, cmds[:len(all)]) {
			t.Fatalf("% x: Parse gives %+v, ParseCommand %+v", in, all, cmds)
		}
	case !reflect.DeepEqual(all, cmds):
		t.Fatalf("% x: Parse gives %+v, ParseCommand %+v", in, all, cmds)
	case (err == nil) != (len(rest) == 0 && len(in) > 0):
		t.Fatalf("% x: Parse gives the error %v, ParseCommand leaves % x", in, err, rest)
	}
}

func (c Codec[C]) roundTrip(t *testing.T, v applayer.Version, dir applayer.Direction, cmd C, read []byte) {
	t.Helper()
	dst := []byte{0xaa, 0x55}
	out, err := c.AppendCommand(dst, v, cmd)
	if err != nil {
		if !errors.Is(err, applayer.ErrRange) {
			t.Fatalf("%+v was read from % x, but cannot be written: %v", cmd, read, err)
		}
		if !bytes.Equal(out, dst) {
			t.Fatalf("AppendCommand gives % x together with %v", out, err)
		}
		return
	}
	if !bytes.HasPrefix(out, dst) {
		t.Fatalf("AppendCommand(% x, %+v) = % x", dst, cmd, out)
	}
	out = out[len(dst):]
	if len(out) > len(read) {
		t.Fatalf("%+v was read from % x and is written as % x", cmd, read, out)
	}
	again, rest, err := c.ParseCommand(v, dir, out)
	if err != nil || len(rest) != 0 || !reflect.DeepEqual(again, cmd) {
		t.Fatalf("%+v is written as % x, which is read as %+v, % x, %v", cmd, out, again, rest, err)
	}
}

// Fuzz runs Check on the seeds, the corpus and what the fuzzer finds, in both directions and in
// versions 0 to 3.
func (c Codec[C]) Fuzz(f *testing.F, seeds ...string) {
	for _, s := range seeds {
		for v := applayer.V1; v <= applayer.V2; v++ {
			f.Add(uint8(v), false, []byte(s))
			f.Add(uint8(v), true, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, v uint8, uplink bool, in []byte) {
		dir := applayer.Downlink
		if uplink {
			dir = applayer.Uplink
		}
		c.Check(t, applayer.Version(v%4), dir, in)
	})
}

// Refused checks that AppendCommand refuses cmd with the error want and leaves dst alone.
func (c Codec[C]) Refused(t *testing.T, v applayer.Version, cmd C, want error) {
	t.Helper()
	dst := []byte{0xaa, 0x55}
	out, err := c.AppendCommand(dst, v, cmd)
	if !errors.Is(err, want) || !bytes.Equal(out, dst) {
		t.Errorf("AppendCommand(%v, %+v) = % x, %v, want %v", v, cmd, out, err, want)
	}
}
