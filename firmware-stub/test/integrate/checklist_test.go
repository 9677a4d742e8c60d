package integrate_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/integrations/serial"
)

// board is an emulated device whose power is cut to reset it.
type board struct{ *device.QEMU }

func (b board) PowerUp() ([]modem.Frame, error) {
	b.Kill()
	return b.QEMU.PowerUp()
}

// `sower bench selftest` follows examples/checklist through both of its halves, on the board whose port it judges.
func TestChecklistFirmware(t *testing.T) {
	stub, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf(`arm-none-eabi-gcc -std=c99 -Os -mcpu=cortex-m0plus -mthumb -ffreestanding -ffunction-sections -fdata-sections \
-Wall -Wextra -Wconversion -Werror -I%[1]s/include -I%[1]s/src -I%[1]s/boot -I%[1]s/ports/mps2 -I%[1]s/ports/modem \
%[1]s/examples/checklist/checklist.c %[1]s/src/*.c %[1]s/boot/*.c %[1]s/ports/modem/*.c %[1]s/ports/mps2/mps2.c %[1]s/ports/mps2/startup.c \
-T %[1]s/ports/mps2/app.ld -nostartfiles --specs=nano.specs -Wl,--gc-sections -o app.elf && arm-none-eabi-objcopy -O binary app.elf app.bin`, stub)
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	body, err := os.ReadFile(filepath.Join(dir, "app.bin"))
	if err != nil {
		t.Fatal(err)
	}
	image, err := mcuboot.Wrap(body, mcuboot.Options{Major: 1, LoadAddress: 0x21000000})
	if err != nil {
		t.Fatal(err)
	}
	q, err := device.NewQEMU(device.QEMUConfig{Boot: filepath.Join(stub, "../build/firmware/boot.elf"), Image: image})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	checks, err := serial.Check(t.Context(), board{q}, 1_400_000_000, serial.Log{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		t.Log(c)
		if c.Err != nil {
			t.Error(c)
		}
	}
	if len(checks) != 2 {
		t.Errorf("%d checks, want the two halves", len(checks))
	}
}
