package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/bundle/image"
	"github.com/sower-fuota/sower/delta"
)

func newDiffCommand() *cobra.Command {
	var out, arch, place, base string
	var ram uint32
	var cycles uint64
	var asJSON bool
	var power battery
	cmd := &cobra.Command{
		Use:   "diff OLD NEW -o PATCH",
		Short: "make a patch that turns one firmware image into another",
		Long: `diff makes a patch file. The patch has been applied and compared before it is written.

The images may be MCUboot images, raw binaries, Intel HEX or ELF files. What counts is the bytes that lie in the
slot of the device: trailer and padding of an MCUboot image are left out, gaps of HEX and ELF files are filled
with 0xff. The link address is taken from HEX and ELF files unless --base is given.

The patch is the smallest that the device can decode within --cycles. With --data-rate it is the one that takes least
from the battery: the time that a class C device listens, at that data rate and the duty cycle of the region's RX2
band, and the time that it decodes.`,
		Example: "  sower diff 1.0.0.bin 1.1.0.bin -o 1.0.0-1.1.0.patch\n  sower diff 1.0.0.bin 1.1.0.bin -o small.patch --data-rate 5 --clock-mhz 32 --active-ma 4",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := delta.Options{RAM: ram, Cycles: cycles}
			switch arch {
			case "auto":
				o.Arch = delta.ArchAuto
			case "thumb":
				o.Arch = delta.ArchThumb
			case "none":
				o.Arch = delta.ArchNone
			default:
				return usagef("--arch %q, want auto, thumb or none", arch)
			}
			where, limit, _ := strings.Cut(place, ":")
			switch {
			case where == "flash":
				o.Map = delta.MapFlash
			case where == "ram" && limit == "":
				o.Map = delta.MapRAM
			default:
				return usagef("--map %q, want flash, flash:BYTES or ram", place)
			}
			if limit != "" {
				n, err := strconv.ParseUint(limit, 0, 32)
				if err != nil {
					return usagef("--map %q: %q is no number of bytes", place, limit)
				}
				o.MapBytes = uint32(n)
			}
			if base != "" {
				n, err := strconv.ParseUint(base, 0, 32)
				if err != nil {
					return usagef("--base %q is no address", base)
				}
				addr := uint32(n)
				o.LinkBase = &addr
			}
			byCharge, err := power.wanted()
			if err != nil {
				return err
			}
			old, err := readImage(cmd.ErrOrStderr(), "old image", args[0])
			if err != nil {
				return err
			}
			new, err := readImage(cmd.ErrOrStderr(), "new image", args[1])
			if err != nil {
				return err
			}
			if err := image.CheckPair(old, new); err != nil {
				return fmt.Errorf("%s, %s: %w", args[0], args[1], err)
			}
			if o.LinkBase == nil {
				o.LinkBase = linkBase(old, new)
			}
			o.Progress = progress(cmd.ErrOrStderr(), "diff")
			var f *delta.File
			var choices []choice
			if byCharge {
				f, choices, err = power.choose(old.Data, new.Data, o)
			} else {
				f, err = delta.NewFile(old.Data, new.Data, o)
			}
			if err != nil {
				return err
			}
			if err := writeOutput(out, delta.AppendFile(nil, f), 0o644); err != nil {
				return err
			}
			if len(f.Stream) >= len(new.Data) {
				const stored = "the patch holds the whole image: nothing smaller fits --ram and --cycles; raise them, or sign the full image"
				new.Warnings = append(new.Warnings, stored)
				fmt.Fprintf(cmd.ErrOrStderr(), "sower: warning: %s\n", stored)
			}
			if asJSON {
				doc := map[string]any{
					"old_bytes": len(old.Data), "new_bytes": len(new.Data),
					"old_format": old.Format.String(), "new_format": new.Format.String(),
					"stream_bytes": len(f.Stream),
					"ram_bytes":    f.Params.RAMBytes, "scratch_bytes": f.Params.ScratchBytes,
					"profile": f.Params.Profile, "link_base": f.Params.LinkBase,
					"warnings": append(append([]string{}, old.Warnings...), new.Warnings...),
				}
				if choices != nil {
					doc["choices"] = choices
				}
				return printJSON(cmd.OutOrStdout(), doc)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes of patch for %d bytes of image (%.1f %%), device RAM %d, flash scratch %d\n",
				out, len(f.Stream), len(new.Data), 100*float64(len(f.Stream))/float64(len(new.Data)), f.Params.RAMBytes, f.Params.ScratchBytes)
			if choices != nil {
				printChoices(cmd.OutOrStdout(), choices)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	power.add(fl)
	fl.StringVarP(&out, "output", "o", "", "patch file to write (required)")
	fl.StringVar(&arch, "arch", "auto", "content of the images: auto, thumb or none")
	fl.Uint32Var(&ram, "ram", 0, "device RAM for the whole patcher in bytes (0: 16384)")
	fl.StringVar(&place, "map", "flash", "where the device keeps the segment map: flash[:BYTES] or ram")
	fl.StringVar(&base, "base", "", "address the images are linked at (default: inferred)")
	fl.Uint64Var(&cycles, "cycles", 0, "most Cortex-M4 cycles the device may spend decoding (0: default budget)")
	fl.BoolVar(&asJSON, "json", false, "print the result as JSON")
	mustFlag(cmd, "output")
	return cmd
}

// linkBase is the address that the files of a pair name, if a patch can hold it.
func linkBase(old, new *image.Image) *uint32 {
	for _, im := range []*image.Image{new, old} {
		if im.HasBase && im.Base%256 == 0 {
			return &im.Base
		}
	}
	return nil
}

func newApplyCommand() *cobra.Command {
	var out string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "apply OLD PATCH -o NEW",
		Short:   "apply a patch as a device would",
		Long:    "apply writes the image that lies in the slot of the device: a raw binary, or an MCUboot image. OLD may also be\nan Intel HEX or ELF file.",
		Example: "  sower apply 1.0.0.bin 1.0.0-1.1.0.patch -o 1.1.0.bin",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			old, err := readImage(cmd.ErrOrStderr(), "old image", args[0])
			if err != nil {
				return err
			}
			raw, err := readInput("patch", args[1])
			if err != nil {
				return err
			}
			f, err := delta.ParseFile(raw)
			if err != nil {
				return fmt.Errorf("patch %s: %w", args[1], err)
			}
			new, err := f.Apply(old.Data)
			if err != nil {
				return fmt.Errorf("patch %s on %s: %w", args[1], args[0], err)
			}
			if err := writeOutput(out, new, 0o644); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"new_bytes": len(new), "new_sha256": fmt.Sprintf("%x", sha256.Sum256(new))})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes\n", out, len(new))
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "image to write (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	mustFlag(cmd, "output")
	return cmd
}

// mustFlag makes a flag required; its absence is a usage error.
func mustFlag(cmd *cobra.Command, name string) {
	next := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed(name) {
			return usagef("%s: --%s is missing", cmd.Name(), name)
		}
		if next != nil {
			return next(cmd, args)
		}
		return nil
	}
}

// progress returns a callback that shows a percentage on a terminal, and nil elsewhere.
func progress(w any, what string) func(done, total int) {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(f) {
		return nil
	}
	last := -1
	return func(done, total int) {
		if total <= 0 || done*100/total == last {
			return
		}
		last = done * 100 / total
		fmt.Fprintf(f, "\r%s %3d %%", what, last)
		if done >= total {
			fmt.Fprint(f, "\r\x1b[K")
		}
	}
}

// isTerminal reports whether f is a character device that a person may be looking at.
func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "" && os.Getenv("TERM") != "dumb"
}
