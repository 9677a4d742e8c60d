// Package qemu proves the firmware itself, as built for ARMv6-M, on an emulated board.
package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/delta"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
)

// firmware is where `make firmware` puts what it builds.
const firmware = "../../../build/firmware"

const (
	class    = 0x1001
	hardware = 1
	keyID    = 1
	fragSize = 48
	loss     = 0.2 // of the fragments on the air
)

// update is one update of the example application, from 1.0.0 to 1.1.0.
type update struct {
	old, new []byte
	id       device.Identity
	block    []byte
	enc      *fragmentation.Encoder
	setup    datablock.FragSessionSetupReq
}

func image(t testing.TB, file string, minor uint8) []byte {
	t.Helper()
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("run `make firmware` first: %v", err)
	}
	img, err := mcuboot.Wrap(body, mcuboot.Options{Major: 1, Minor: minor, LoadAddress: 0x21000000})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func newUpdate(t testing.TB) *update {
	t.Helper()
	return newUpdateOf(t, filepath.Join(firmware, "beacon-1.0.0.bin"), 0)
}

// newUpdateOf is the update of that image by a patch that takes ram bytes of the device; 0 means the usual.
func newUpdateOf(t testing.TB, old string, ram uint32) *update {
	t.Helper()
	u := &update{old: image(t, old, 0), new: image(t, filepath.Join(firmware, "beacon-1.1.0.bin"), 1)}
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := bundle.PublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	u.id = device.Identity{Class: class, Hardware: hardware, RootKey: [16]byte{1, 2, 3}, Seed: 7,
		Keys: [2]device.TrustKey{{ID: keyID, Public: pub}}}
	patch, err := delta.NewFile(u.old, u.new, delta.Options{RAM: ram})
	if err != nil {
		t.Fatal(err)
	}
	target := bundle.Target{Class: class, Hardware: hardware, KeyID: keyID, Sequence: 1}
	if u.block, err = bundle.Patch(target, patch, u.new, key); err != nil {
		t.Fatal(err)
	}
	if u.enc, err = fragmentation.NewEncoder(u.block, fragSize, fragmentation.V2); err != nil {
		t.Fatal(err)
	}
	u.setup = u.session(1)
	return u
}

// session is the set-up of the count-th session that sends the block.
func (u *update) session(count uint16) datablock.FragSessionSetupReq {
	s := datablock.FragSessionSetupReq{NbFrag: uint16(u.enc.M()), FragSize: fragSize,
		Padding: uint8(u.enc.Padding()), SessionCnt: count, Descriptor: [4]byte{1, 1, 0, 0}}
	s.MIC = datablock.SessionMIC(datablock.DataBlockIntKey(u.id.RootKey), s.SessionCnt, s.FragIndex, s.Descriptor, u.block)
	return s
}

func newDecoder(t testing.TB, u *update) *fragmentation.Decoder {
	t.Helper()
	d, err := fragmentation.NewDecoder(u.enc.M(), u.enc.Size(), u.enc.Matrix())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// bench is one device, the server that updates it, and the hand on the power switch.
type bench struct {
	t    testing.TB
	u    *update
	q    *device.QEMU
	rnd  *rand.Rand
	now  uint64 // device time, ms
	next int    // number of the next fragment on the air

	sessions uint16 // set up so far

	on       bool
	step     diag.Step // as last reported
	kills    int       // so far
	swapping bool      // the install has been asked for
	trials   int       // kills since slot A holds the new image
	at       map[string]int
	log      []string
	phase    map[string]time.Duration // time spent on the wall clock
}

// turn sends one message; false: the power was cut under way.
func (b *bench) turn(m modem.Message) ([]modem.Frame, bool) {
	b.t.Helper()
	raw, err := modem.Append(nil, m)
	if err != nil {
		b.t.Fatal(err)
	}
	var dec modem.Decoder
	dec.Write(raw)
	f, _ := dec.Next()
	said, err := b.q.Turn(f)
	return said, b.alive(said, err)
}

func (b *bench) alive(said []modem.Frame, err error) bool {
	b.t.Helper()
	for _, f := range said {
		if f.Type == modem.TypeConsole {
			b.log = append(b.log, string(f.Payload))
		}
	}
	if err == nil {
		return true
	}
	if !errors.Is(err, device.ErrKilled) {
		b.fatalf("%v", err)
	}
	b.kills++
	b.on = false
	where := b.step.String()
	if b.swapping {
		where = "swap"
		switch got := b.slotA(); {
		case bytes.Equal(got, b.u.new):
			b.trials++
			where = "first boots of the new image"
		case bytes.Equal(got[:len(b.u.old)], b.u.old):
			where = "verify before the swap"
		}
	}
	b.at[where]++
	b.log = append(b.log, fmt.Sprintf("-- killed at step %v (%s)", b.step, where))
	return false
}

func (b *bench) slotA() []byte {
	b.t.Helper()
	got, err := b.q.SlotA(len(b.u.new))
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

func (b *bench) fatalf(format string, args ...any) {
	b.t.Helper()
	b.t.Fatalf(format+"\n%s", append(args, strings.Join(b.log[max(0, len(b.log)-30):], "\n"))...)
}

func (b *bench) down(port uint8, data []byte) ([]modem.Frame, bool) {
	b.t.Helper()
	b.now += 1000
	return b.turn(modem.Down{Time: b.now, Port: port, Group: modem.Unicast, Data: data})
}

// powerUp starts the device and joins it.
func (b *bench) powerUp() bool {
	b.t.Helper()
	b.on = true
	said, err := b.q.PowerUp()
	if !b.alive(said, err) {
		return false
	}
	b.now += 1000
	_, ok := b.turn(modem.Link{Time: b.now, Joined: true, MaxPayload: 51})
	return ok
}

// ask asks for a diagnostic report.
func (b *bench) ask() (diag.Report, bool) {
	b.t.Helper()
	said, ok := b.down(diag.FPort, []byte{1})
	if !ok {
		return diag.Report{}, false
	}
	for _, f := range said {
		m, err := f.Message()
		if err != nil {
			b.fatalf("%v", err)
		}
		up, is := m.(modem.Up)
		if !is || up.Port != diag.FPort {
			continue
		}
		r, _, err := diag.ParseReport(up.Data)
		if err != nil {
			b.fatalf("%v", err)
		}
		b.step = r.Step
		return r, true
	}
	b.fatalf("the device did not answer a request for a report")
	return diag.Report{}, false
}

// advance does what the device's report asks for. done: the device is updated and says so.
func (b *bench) advance(r diag.Report) (done bool) {
	b.t.Helper()
	switch {
	case r.Cause == diag.CauseNoProgress && !b.swapping:
		// Killed too often before a page was done: the device has given up, and is sent the block once more.
		b.sessions++
		b.next = 0
		r.Step = diag.StepNone
	case r.Cause != 0:
		b.fatalf("the device reports step %v, cause %v", r.Step, r.Cause)
	}
	switch r.Step {
	case diag.StepNone:
		cmd, err := datablock.AppendCommand(nil, applayer.V2, b.u.session(b.sessions))
		if err != nil {
			b.t.Fatal(err)
		}
		b.down(201, cmd)
	case diag.StepReady:
		cmd, err := fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevRebootCountdownReq{})
		if err != nil {
			b.t.Fatal(err)
		}
		b.swapping = true
		b.arm()
		began := time.Now()
		b.down(203, cmd)
		b.phase["install"] += time.Since(began)
	case diag.StepRunning:
		return true
	default: // fragments, eight to a question
		began := time.Now()
		for i := 0; i < 8; i++ {
			b.next++
			if b.rnd.Float64() < loss {
				continue
			}
			frag, err := b.u.enc.Fragment(nil, b.next)
			if err != nil {
				b.t.Fatal(err)
			}
			cmd, err := datablock.AppendCommand(nil, applayer.V2, datablock.DataFragment{N: uint16(b.next), Data: frag})
			if err != nil {
				b.t.Fatal(err)
			}
			if _, ok := b.down(201, cmd); !ok {
				break
			}
		}
		b.phase["receive"] += time.Since(began)
		if b.next > 6*b.u.enc.M() {
			b.fatalf("%d fragments have not sufficed for %d", b.next, b.u.enc.M())
		}
	}
	return false
}

// arm lays the next cut: at any instant of the reception, or of the boots that install the image. The new image
// is given three boots, so that power may fail in two of them.
func (b *bench) arm() {
	within := b.phase["mean receive"]
	if b.swapping {
		within = b.phase["mean install"]
		if b.trials >= 2 {
			within = 0
		}
	}
	// A patch starts over after a reset: on a busy machine the cuts must grow rarer, or it would never end.
	within <<= min(b.kills/6, 8)
	if within == 0 {
		b.q.KillAfter(0)
		return
	}
	b.q.KillAfter(time.Duration(b.rnd.Int64N(int64(within))) + time.Millisecond)
}

// run updates one new device and returns the bench that saw it through. receive and install say how late a kill
// may come; 0: none does.
func run(t testing.TB, u *update, seed uint64, receive, install time.Duration) *bench {
	t.Helper()
	q, err := device.NewQEMU(device.QEMUConfig{Boot: filepath.Join(firmware, "boot.elf"), Image: u.old, ID: u.id})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}()
	b := &bench{t: t, u: u, q: q, sessions: 1, rnd: rand.New(rand.NewPCG(seed, 5)), at: map[string]int{},
		phase: map[string]time.Duration{"mean receive": receive, "mean install": install}}
	for done := false; !done; {
		if b.kills > 200 {
			b.fatalf("%d kills and no end", b.kills)
		}
		if !b.on {
			began := time.Now()
			b.arm()
			ok := b.powerUp()
			b.phase["boot"] += time.Since(began)
			if !ok {
				continue
			}
		}
		if r, ok := b.ask(); ok {
			done = b.advance(r)
		}
	}
	q.KillAfter(0)
	if !bytes.Equal(b.slotA(), u.new) {
		b.fatalf("slot A does not hold the new image")
	}
	n, err := q.Violations()
	if err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		b.fatalf("the flash was violated %d times", n)
	}
	return b
}

// TestKills updates emulated devices that are killed at random instants, from the first erasure to the last boot.
func TestKills(t *testing.T) {
	kills := 16
	if os.Getenv("SOWER_PROOF") != "" {
		kills = 300
	}
	u := newUpdate(t)
	whole := run(t, u, 1, 0, 0)
	t.Logf("undisturbed: %d fragments of %d bytes sent, %d needed at least; wall clock: start %v, receive to ready %v, install %v",
		whole.next, fragSize, u.enc.M(), whole.phase["boot"].Round(time.Millisecond), whole.phase["receive"].Round(time.Millisecond), whole.phase["install"].Round(time.Millisecond))
	total, updates, again, at := 0, 0, 0, map[string]int{}
	for ; total < kills; updates++ {
		b := run(t, u, uint64(100+updates), whole.phase["boot"]+whole.phase["receive"]/2, whole.phase["install"])
		total += b.kills
		again += int(b.sessions - 1)
		for where, n := range b.at {
			at[where] += n
		}
	}
	t.Logf("%d updates survived %d kills %v, %d given up for want of progress and sent again; 0 flash violations", updates, total, at, again)
}
