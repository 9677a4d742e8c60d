// Command cycles counts the instructions that the device's decoder takes for an update, in QEMU,
// and compares them with the encoder's estimate.
//
//	go run ./delta/internal/cycles [-ram BYTES] [-cycles N] OLD NEW...
//
// It is run from the root of the repository and needs arm-none-eabi-gcc and qemu-system-arm. A
// Cortex-M4 is reckoned at 1.2 cycles per instruction, a Cortex-M0+ at 1.35.
package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sower-fuota/sower/delta"
)

func main() {
	ram := flag.Uint("ram", 16384, "memory of the device in bytes")
	cycles := flag.Uint64("cycles", 0, "decode budget in Cortex-M4 cycles; 0 means the default")
	flag.Parse()
	if flag.NArg() == 0 || flag.NArg()%2 != 0 {
		fmt.Fprintln(os.Stderr, "cycles: want pairs of OLD and NEW")
		os.Exit(2)
	}
	for i := 0; i < flag.NArg(); i += 2 {
		if err := run(flag.Arg(i), flag.Arg(i+1), delta.Options{RAM: uint32(*ram), Cycles: *cycles}); err != nil {
			fmt.Fprintln(os.Stderr, "cycles:", err)
			os.Exit(1)
		}
	}
}

func run(oldName, newName string, o delta.Options) error {
	old, err := os.ReadFile(oldName)
	if err != nil {
		return err
	}
	new, err := os.ReadFile(newName)
	if err != nil {
		return err
	}
	p, stream, err := delta.Encode(old, new, o)
	if err != nil {
		return err
	}
	rep, err := delta.Inspect(p, old, stream)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d bytes, %s, work %+v\n", newName, len(stream), p.Describe(), rep.Work)
	for _, core := range []struct {
		name   string
		cpu    string
		perIns float64
		hertz  float64
	}{{"Cortex-M4 at 80 MHz", "cortex-m4", 1.2, 80e6}, {"Cortex-M0+ at 48 MHz", "cortex-m0plus", 1.35, 48e6}} {
		n, err := count(p, old, new, stream, core.cpu)
		if err != nil {
			return err
		}
		fmt.Printf("  %-21s %6.0f M instructions, %5.1f s", core.name, n/1e6, n*core.perIns/core.hertz)
		if core.cpu == "cortex-m4" {
			fmt.Printf(", estimate %5.1f s (%+.0f %%)", float64(rep.Cycles)/core.hertz, 100*(float64(rep.Cycles)/(n*core.perIns)-1))
		}
		fmt.Println()
	}
	return nil
}

// count builds the decoder for a core, runs it and returns its instructions.
func count(p delta.Params, old, new, stream []byte, cpu string) (float64, error) {
	dir, err := os.MkdirTemp("", "cycles")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	var params []byte
	params = append(params, p.Profile, p.Options, 0, 0)
	for _, v := range []uint32{p.BaseSize, p.NewSize, p.LinkBase, p.ScratchBytes} {
		params = binary.LittleEndian.AppendUint32(params, v)
	}
	asm := ".section .rodata\n"
	for name, data := range map[string][]byte{"base_image": old, "new_image": new, "stream": stream, "params": params,
		"stream_size": binary.LittleEndian.AppendUint32(nil, uint32(len(stream)))} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, 0o600); err != nil {
			return 0, err
		}
		asm += fmt.Sprintf(".balign 4\n.global %s\n%s: .incbin %q\n", name, name, file)
	}
	if err := os.WriteFile(filepath.Join(dir, "data.S"), []byte(asm), 0o600); err != nil {
		return 0, err
	}
	elf := filepath.Join(dir, "cycles.elf")
	test := filepath.Join("firmware-stub", "test", "patch", "cycles")
	out, err := exec.Command("arm-none-eabi-gcc", "-mcpu="+cpu, "-mthumb", "-Os", "-std=gnu99", "-ffreestanding",
		"-fno-tree-loop-distribute-patterns", "-nostdlib", "-I", filepath.Join("firmware-stub", "src"),
		filepath.Join("firmware-stub", "src", "sow_patch.c"), filepath.Join(test, "cycles.c"), filepath.Join(dir, "data.S"),
		"-T", filepath.Join(test, "cycles.ld"), "-lgcc", "-o", elf).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("arm-none-eabi-gcc: %w\n%s", err, out)
	}
	out, err = exec.Command("qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none",
		"-icount", "shift=0", "-semihosting-config", "enable=on,target=native", "-kernel", elf).CombinedOutput()
	var code, bad, ticks int
	if _, scan := fmt.Sscan(string(out), &code, &bad, &ticks); scan != nil {
		return 0, fmt.Errorf("qemu-system-arm: %v, %w: %q", err, scan, out)
	}
	if code != 0 || bad != 0 {
		return 0, fmt.Errorf("the device's decoder ends with code -%d and %d wrong bytes", code, bad)
	}
	return float64(ticks) * 40, nil
}
