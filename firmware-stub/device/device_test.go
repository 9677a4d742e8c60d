package device_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
)

// firmware is where `make firmware` puts what it builds.
const firmware = "../../build/firmware"

// image reads one build of the example application as an MCUboot image.
func image(t testing.TB, name string, minor uint8) []byte {
	t.Helper()
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

type app interface {
	PowerUp() ([]modem.Frame, error)
	Turn(modem.Frame) ([]modem.Frame, error)
	Kill()
	Boots() int
	Close() error
}

// both returns a host device and an emulated one that run the same image.
func both(t *testing.T, img []byte) map[string]app {
	t.Helper()
	host, err := device.NewHost(device.HostConfig{Layout: device.ExampleLayout(), Image: img, PackageVersion: 2})
	if err != nil {
		t.Fatal(err)
	}
	qemu, err := device.NewQEMU(device.QEMUConfig{Boot: filepath.Join(firmware, "boot.elf"), Image: img})
	if err != nil {
		t.Fatal(err)
	}
	devices := map[string]app{"host": host, "emulated": qemu}
	t.Cleanup(func() {
		for name, d := range devices {
			if err := d.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	return devices
}

func console(frames []modem.Frame) string {
	var lines []string
	for _, f := range frames {
		if f.Type == modem.TypeConsole {
			lines = append(lines, string(f.Payload))
		}
	}
	return strings.Join(lines, "\n")
}

func TestDevicesBootAndAnswer(t *testing.T) {
	for name, d := range both(t, image(t, "beacon-1.0.0.bin", 0)) {
		t.Run(name, func(t *testing.T) {
			for power := 1; power <= 2; power++ {
				said, err := d.PowerUp()
				if err != nil {
					t.Fatal(err)
				}
				t.Log(console(said))
				if !strings.Contains(console(said), "firmware 1.0.0") {
					t.Errorf("console %q does not name version 1.0.0", console(said))
				}
				link, err := modem.Append(nil, modem.Link{Time: 5000, Joined: true, MaxPayload: 51})
				if err != nil {
					t.Fatal(err)
				}
				var dec modem.Decoder
				dec.Write(link)
				f, _ := dec.Next()
				said, err = d.Turn(f)
				if err != nil {
					t.Fatal(err)
				}
				t.Log(console(said))
				if !strings.Contains(console(said), "self-test passed") {
					t.Errorf("console %q has no self-test", console(said))
				}
				last, err := said[len(said)-1].Message()
				if idle, ok := last.(modem.IdleUntil); err != nil || !ok || idle.Time <= 5000 || idle.Time == modem.Never {
					t.Errorf("the turn ended with %+v, %v", last, err)
				}
				d.Kill()
			}
			if d.Boots() != 2 {
				t.Errorf("%d boots, want 2", d.Boots())
			}
		})
	}
}

func TestCompareELF(t *testing.T) {
	c, err := device.CompareELF(filepath.Join(firmware, "beacon-1.0.0.elf"), filepath.Join(firmware, "beacon-1.1.0.elf"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d functions, %d changed %v, %d moved, added %v", c.Functions, len(c.Changed), c.Changed, c.Moved, c.Added)
	if len(c.Changed) < 10 || c.Moved == 0 || len(c.Added) == 0 {
		t.Errorf("%d functions changed, %d moved, %d added; want at least 10, 1, 1", len(c.Changed), c.Moved, len(c.Added))
	}
	same, err := device.CompareELF(filepath.Join(firmware, "beacon-1.0.0.elf"), filepath.Join(firmware, "beacon-1.0.0.elf"))
	if err != nil || len(same.Changed)+len(same.Added)+len(same.Removed)+same.Moved != 0 {
		t.Errorf("a firmware differs from itself: %+v, %v", same, err)
	}
}
