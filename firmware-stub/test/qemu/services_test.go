package qemu

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
)

// noServices is how the modem shell names SOW_CAUSE_NO_SERVICES.
const noServices = "no update possible, cause 33"

// built makes a file of the firmware in a folder of its own, with variables of firmware.mk set otherwise.
func built(t *testing.T, file string, vars ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), file)
	if out, err := makeIn(append(vars, "-f", gates, "FIRMWARE="+filepath.Dir(path), path)...); err != nil {
		t.Fatalf("%s: %v: %s", file, err, out)
	}
	return path
}

// stubWith returns the boot stub with another head of its table of services.
func stubWith(t *testing.T, magic, version, count uint32) string {
	t.Helper()
	const head = "Ssrv\x01\x00\x11\x00"
	elf, err := os.ReadFile(filepath.Join(firmware, "boot.elf"))
	if err != nil {
		t.Fatalf("run `make firmware` first: %v", err)
	}
	if n := bytes.Count(elf, []byte(head)); n != 1 {
		t.Fatalf("boot.elf has %d tables of 17 services of version 1", n)
	}
	at := bytes.Index(elf, []byte(head))
	binary.LittleEndian.PutUint32(elf[at:], magic)
	binary.LittleEndian.PutUint32(elf[at+4:], version|count<<16)
	path := filepath.Join(t.TempDir(), "boot.elf")
	if err := os.WriteFile(path, elf, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestNoServices puts the example application, which runs over the services of its boot stub, over stubs that do not
// offer them: it calls none and says so at every start.
func TestNoServices(t *testing.T) {
	const magic = 0x76727353
	u := newUpdate(t)
	for _, tt := range []struct {
		name, boot string
		works      bool
	}{
		{"no table", built(t, "boot.elf", "FW_STUB_LIB=$(FW_LIB)"), false},
		{"blank flash", stubWith(t, 0xffffffff, 0xffff, 0xffff), false},
		{"version 0", stubWith(t, magic, 0, 17), false},
		{"version 2", stubWith(t, magic, 2, 17), false},
		{"one function short", stubWith(t, magic, 1, 16), false},
		{"one function more", stubWith(t, magic, 1, 18), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, err := device.NewQEMU(device.QEMUConfig{Boot: tt.boot, Image: u.old, ID: u.id, TurnLimit: 20 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			b := &bench{t: t, u: u, q: q, at: map[string]int{}, phase: map[string]time.Duration{}}
			if !b.powerUp() {
				t.Fatal("the device does not start")
			}
			for range 2 {
				b.log = nil
				said, _ := b.down(diag.FPort, []byte{1})
				refused, reset := slices.Contains(b.log, noServices), slices.ContainsFunc(said, func(f modem.Frame) bool { return f.Type == modem.TypeReset })
				if refused == tt.works || reset == tt.works {
					t.Errorf("says it cannot: %v, resets: %v\n%s", refused, reset, strings.Join(b.log, "\n"))
				}
			}
		})
	}
}

// TestNoServicesOnTrial updates a device whose boot stub offers no services to an application that needs them. The old
// application, which has these functions itself, is back after three boots, reachable and with the cause.
func TestNoServicesOnTrial(t *testing.T) {
	boot := built(t, "boot.elf", "FW_STUB_LIB=$(FW_LIB)")
	u := newUpdateOf(t, built(t, "beacon-1.0.0.bin", "FW_APP_LIB=$(FW_LIB)"), 0)
	q, err := device.NewQEMU(device.QEMUConfig{Boot: boot, Image: u.old, ID: u.id})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	b := &bench{t: t, u: u, q: q, sessions: 1, rnd: rand.New(rand.NewPCG(5, 5)), at: map[string]int{}, phase: map[string]time.Duration{}}
	b.powerUp()
	for !b.swapping {
		r, _ := b.ask()
		b.advance(r)
	}
	for range 3 {
		b.down(diag.FPort, []byte{1}) // the new image opens the library, cannot, and resets
	}
	b.now += 1000
	b.turn(modem.Link{Time: b.now, Joined: true, MaxPayload: 51})
	if r, _ := b.ask(); r.Cause != diag.CauseBootHang {
		b.fatalf("the device reports step %v, cause %v", r.Step, r.Cause)
	}
	trials := 0
	for _, line := range b.log {
		if line == noServices {
			trials++
		}
	}
	got, err := q.SlotA(len(u.old))
	if err != nil || trials != 3 || !bytes.Equal(got, u.old) {
		b.fatalf("%d boots without services, want 3 and the old image back (%v)", trials, err)
	}
}
