package serial_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/delta"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/integrations/serial"
)

// plug is an emulated board on a switched socket: a reset is a power cut.
type plug struct{ *device.QEMU }

func (p plug) PowerUp() ([]modem.Frame, error) {
	p.Kill()
	return p.QEMU.PowerUp()
}

func (p plug) Turn(f modem.Frame) ([]modem.Frame, error) {
	if f.Type != modem.TypeResetReq {
		return p.QEMU.Turn(f)
	}
	said, err := p.PowerUp()
	return append([]modem.Frame{{Type: modem.TypeReset, Payload: []byte{byte(modem.ResetAsked)}}}, said...), err
}

// The Cortex-M firmware takes a patch to its next release while its power is cut at random.
func TestFeedEmulated(t *testing.T) {
	const firmware = "../../build/firmware"
	f := newFixture(t)
	image := func(name string, minor uint8) []byte {
		body, err := os.ReadFile(filepath.Join(firmware, name))
		if err != nil {
			t.Fatalf("run `make firmware` first: %v", err)
		}
		img, err := mcuboot.Wrap(body, mcuboot.Options{Major: 1, Minor: minor, LoadAddress: 0x21000000})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	old, next := image("beacon-1.0.0.bin", 0), image("beacon-1.1.0.bin", 1)
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if f.id.Keys[0].Public, err = bundle.PublicKey(&key.PublicKey); err != nil {
		t.Fatal(err)
	}
	patch, err := delta.NewFile(old, next, delta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	block, err := bundle.Patch(bundle.Target{Class: f.id.Class, Hardware: f.id.Hardware, KeyID: 1, Sequence: 1}, patch, next, key)
	if err != nil {
		t.Fatal(err)
	}
	q, err := device.NewQEMU(device.QEMUConfig{Boot: filepath.Join(firmware, "boot.elf"), Image: old, ID: f.id})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	res, err := serial.Feed(t.Context(), plug{q}, block, serial.Options{
		RootKey: f.id.RootKey, GPS: 1_400_000_000, Loss: 0.1, CutReset: true, Seed: 4, Size: 64,
		Log: serial.Log{Progress: func(text string) { t.Log(text) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.New != bundle.MakeVersion(1, 1, 0) || res.Lost == 0 || res.Resets == 0 || !res.ProvedByReboot {
		t.Errorf("%+v", res)
	}
}
