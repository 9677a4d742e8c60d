package qemu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/firmware-stub/device"
)

const (
	airAt     = 0x100000   // of the air in the flash file, as in bench/bench.c
	cortexM0p = 32_000_000 // Hz, for the column of times: one instruction a cycle, which flatters by up to two
)

// figure is what one kind of call costs, in instructions.
type figure struct {
	name                    string
	calls, total, most, gap uint64
}

// air lays out the fragments that get through, the last of which completes the block.
func air(t *testing.T, u *update) []byte {
	t.Helper()
	b := binary.LittleEndian.AppendUint16(make([]byte, 4), u.setup.NbFrag)
	b = append(b, u.setup.FragSize, u.setup.Padding)
	b = append(b, u.setup.MIC[:]...)
	dec := newDecoder(t, u)
	for n, count := 1, uint32(0); ; n++ {
		if n%5 == 3 { // 20 % are lost
			continue
		}
		frag, err := u.enc.Fragment(nil, n)
		if err != nil {
			t.Fatal(err)
		}
		b = append(binary.LittleEndian.AppendUint16(b, uint16(n)), frag...)
		count++
		done, err := dec.Add(n, frag)
		if err != nil {
			t.Fatal(err)
		}
		if done {
			binary.LittleEndian.PutUint32(b, count)
			return b
		}
	}
}

// TestInstructionCounts runs one update inside the emulator and prints what each call of the library costs.
func TestInstructionCounts(t *testing.T) {
	u := newUpdate(t)
	dir := t.TempDir()
	build := exec.Command("make", "-s", "-f", "firmware-stub/test/qemu/bench.mk", "BENCH="+dir)
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	flash, err := device.FlashFile(u.old, u.id)
	if err != nil {
		t.Fatal(err)
	}
	copy(flash[airAt:], air(t, u))
	path := filepath.Join(dir, "flash.bin")
	if err := os.WriteFile(path, flash, 0o600); err != nil {
		t.Fatal(err)
	}
	emulator := exec.Command("qemu-system-arm", "-M", "mps2-an385,memory-backend=flash",
		"-object", fmt.Sprintf("memory-backend-file,id=flash,size=%d,mem-path=%s,share=on", len(flash), path),
		"-icount", "shift=4", "-display", "none", "-monitor", "none", "-serial", "stdio", "-semihosting",
		"-kernel", filepath.Join(dir, "bench.elf"))
	out, err := emulator.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var table strings.Builder
	fmt.Fprintf(&table, "block of %d bytes in %d fragments of %d, image of %d bytes\n", len(u.block), u.enc.M(), fragSize, len(u.new))
	fmt.Fprintf(&table, "%-18s %6s %12s %12s %12s %9s\n", "instructions", "calls", "mean", "most", "without idle", "most, ms")
	for line := range strings.Lines(string(out)) {
		var f figure
		if _, err := fmt.Sscan(line, &f.name, &f.calls, &f.total, &f.most, &f.gap); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if f.name == "code" {
			if f.calls != 0 {
				t.Fatalf("the update ended with code %d\n%s", f.calls, out)
			}
			continue
		}
		fmt.Fprintf(&table, "%-18s %6d %12d %12d %12d %9.1f\n", f.name, f.calls, f.total/f.calls, f.most, f.gap,
			float64(f.most)*1000/cortexM0p)
		// No call may keep a watchdog of a second waiting on the slowest part: 4 million instructions.
		if f.gap > 4_000_000 {
			t.Errorf("%s: %d instructions without a call of port->idle", f.name, f.gap)
		}
	}
	t.Log("\n" + table.String())
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(after[:len(u.new)], u.new) {
		t.Error("slot A does not hold the new image")
	}
}
