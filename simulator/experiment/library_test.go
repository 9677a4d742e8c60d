//go:build cgo

package experiment

import (
	"bytes"
	"crypto/ecdsa"
	"math/rand/v2"
	"testing"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/multipackage"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
)

// library is the device library in C, given a block that it accepts, fragment by fragment.
type library struct {
	t       *testing.T
	version applayer.Version
	m, size int
	id      device.Identity
	running []byte // image
	block   []byte
	// Messages with the fragments of the block and its parity, by number less 1.
	fragments [][]byte
}

// frame is what a device is handed for a message of the host.
func (l *library) frame(m modem.Message) modem.Frame {
	l.t.Helper()
	f, err := modem.Frames(m)
	if err != nil {
		l.t.Fatal(err)
	}
	return f[0]
}

func (l *library) down(port uint8, data []byte) modem.Frame {
	return l.frame(modem.Down{Time: deviceTime, Port: port, Group: modem.Unicast, Data: data})
}

const deviceTime = 1_400_000_000_000 // GPS time of the device, ms

// firmware wraps a body of so many bytes.
func firmware(t *testing.T, minor uint8, size int) []byte {
	t.Helper()
	body := make([]byte, size)
	rand.NewChaCha8([32]byte{minor}).Read(body)
	img, err := mcuboot.Wrap(body, mcuboot.Options{Major: 1, Minor: minor, LoadAddress: 0x21000000})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// newLibrary makes a signed block of exactly m fragments, and r fragments of parity.
func newLibrary(t *testing.T, key *ecdsa.PrivateKey, version applayer.Version, m, r int) *library {
	t.Helper()
	l := &library{t: t, version: version, m: m, id: device.Identity{Class: 0x1001, Hardware: 3}, running: firmware(t, 0, 500)}
	public, err := bundle.PublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	l.id.Keys[0] = device.TrustKey{ID: 1, Public: public}
	block := func(size int) []byte {
		b, err := bundle.Full(bundle.Target{Class: l.id.Class, Hardware: l.id.Hardware, KeyID: 1, Sequence: 1}, firmware(t, 1, size), key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rest := len(block(4)) - 4
	l.size = (rest+300)/m + 1
	l.block = block(m*l.size - rest - l.size/2) // the last fragment is half padding
	matrix := fragmentation.V1
	if version == applayer.V2 {
		matrix = fragmentation.V2
	}
	padding := m*l.size - len(l.block)
	enc, err := fragmentation.NewEncoder(append(bytes.Clone(l.block), make([]byte, padding)...), l.size, matrix)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= m+r; n++ {
		data, err := enc.Fragment(nil, n)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := datablock.AppendCommand(nil, version, datablock.DataFragment{N: uint16(n), Data: data})
		if err != nil {
			t.Fatal(err)
		}
		l.fragments = append(l.fragments, msg)
	}
	return l
}

// setup is the message that announces the block.
func (l *library) setup(groups uint8) []byte {
	l.t.Helper()
	req := datablock.FragSessionSetupReq{McGroupBitMask: groups, NbFrag: uint16(l.m), FragSize: uint8(l.size), Padding: uint8(l.m*l.size - len(l.block))}
	if l.version == applayer.V2 {
		req.SessionCnt = 1
		req.MIC = datablock.SessionMIC(datablock.DataBlockIntKey(l.id.RootKey), 1, 0, req.Descriptor, l.block)
	}
	msg, err := datablock.AppendCommand(nil, l.version, req)
	if err != nil {
		l.t.Fatal(err)
	}
	return msg
}

// host makes a new device.
func (l *library) host() *device.Host {
	l.t.Helper()
	h, err := device.NewHost(device.HostConfig{Layout: device.ExampleLayout(), Image: l.running, ID: l.id, PackageVersion: uint8(l.version)})
	if err != nil {
		l.t.Fatal(err)
	}
	return h
}

// decode gives a new device the fragments that are not lost.
func (l *library) decode(lost fragmentation.Bitset) (sent, missing int) {
	t := l.t
	t.Helper()
	h := l.host()
	defer h.Close()
	turn := func(f modem.Frame) []modem.Frame {
		out, err := h.Turn(f)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if _, err := h.PowerUp(); err != nil {
		t.Fatal(err)
	}
	turn(l.frame(modem.Link{Time: deviceTime, Joined: true, MaxPayload: 222}))
	// said is what a turn came to: the highest step of the update and the answer to a status request.
	said := func(frames []modem.Frame) (step diag.Step, status datablock.FragSessionStatusAns) {
		for _, f := range frames {
			m, err := f.Message()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case modem.Event:
				if step = max(step, diag.Step(m.Step)); m.Cause != 0 {
					t.Fatalf("step %d with cause %d", m.Step, m.Cause)
				}
			case modem.Up:
				if m.Port != applayer.FPortMultiPackage {
					continue
				}
				answer, err := multipackage.ParseMessage(l.versions(), applayer.Uplink, m.Data)
				if err != nil || len(answer.Commands) != 1 {
					t.Fatalf("answer %+v, %v", answer, err)
				}
				status = answer.Commands[0].(datablock.FragSessionStatusAns)
			}
		}
		return step, status
	}
	if step, _ := said(turn(l.down(applayer.FPortDataBlock, l.setup(0)))); step != diag.StepReceive {
		t.Fatalf("the session was not accepted: step %v", step)
	}
	for i, f := range l.fragments {
		if lost.Has(i) {
			continue
		}
		if step, _ := said(turn(l.down(applayer.FPortDataBlock, f))); step >= diag.StepVerify {
			if step != diag.StepReady { // its signature is right and its image in slot B
				t.Fatalf("the block of fragment %d was judged up to step %v", i+1, step)
			}
			return i + 1, 0
		}
	}
	ask, err := multipackage.AppendMessage(nil, l.versions(), multipackage.Message{Commands: []applayer.Command{datablock.FragSessionStatusReq{Participants: true}}})
	if err != nil {
		t.Fatal(err)
	}
	_, status := said(turn(l.down(applayer.FPortMultiPackage, ask)))
	return 0, int(status.MissingFrag)
}

func (l *library) versions() (v multipackage.Versions) {
	v[applayer.DataBlock] = l.version
	return v
}

// TestRankOnlyIsTheLibrary gives the same random losses to the rank-only decoder and to the device library in C, which
// receives real messages, checks digest and signature of the block, and writes its image: the same fragment completes
// both, or they miss as much (V9). Under SOWER_PROOF these are 12,000 sessions.
func TestRankOnlyIsTheLibrary(t *testing.T) {
	rounds := 504
	if proof {
		rounds = 12000
	}
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(10, 10))
	shapes := []struct {
		m, r    int
		version applayer.Version
	}{{5, 6, applayer.V1}, {21, 7, applayer.V2}, {28, 9, applayer.V1}, {42, 13, applayer.V1}, {42, 13, applayer.V2}, {50, 15, applayer.V1},
		{50, 15, applayer.V2}, {64, 40, applayer.V2}, {100, 30, applayer.V1}, {130, 70, applayer.V1}, {231, 50, applayer.V1}, {384, 116, applayer.V1}}
	complete, sessions := 0, 0
	for _, s := range shapes {
		l := newLibrary(t, key, s.version, s.m, s.r)
		code := map[applayer.Version]string{applayer.V1: "ts004-v1", applayer.V2: "ts004-v2"}[s.version]
		rank, err := Codes[code].NewDecoder(s.m, s.m+s.r)
		if err != nil {
			t.Fatal(err)
		}
		for range rounds / len(shapes) {
			lost := someLost(rng, s.m, s.r)
			sent, missing := rank.Decode(lost, 0)
			gotSent, gotMissing := l.decode(lost)
			if sent != gotSent || min(missing, 255) != gotMissing {
				t.Fatalf("%+v, lost %x: rank-only sent %d missing %d, the library %d and %d", s, lost, sent, missing, gotSent, gotMissing)
			}
			sessions++
			if missing == 0 {
				complete++
			}
		}
	}
	if complete < sessions/10 || complete > sessions*9/10 {
		t.Errorf("%d of %d sessions complete: too one-sided to tell", complete, sessions)
	}
	t.Logf("%d sessions, %d complete: the same fragment, the same rank", sessions, complete)
}
