package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/integrations/serial"
)

func newBenchCommand() *cobra.Command { return benchCommand(serial.Open, time.Now) }

// benchCommand is newBenchCommand with its surroundings as parameters.
func benchCommand(open func(path string, baud uint) (serial.Port, error), now func() time.Time) *cobra.Command {
	bench := &cobra.Command{
		Use:   "bench",
		Short: "try a device on a UART",
		Long: `bench plays network and server for one device on a UART, whose firmware speaks the modem protocol
(docs/spec/modem.md). No radio is needed and nothing waits for air time.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	bench.AddCommand(benchSelftest(open, now), benchFeed(open, now))
	for _, c := range bench.Commands() {
		args := c.Args
		c.Args = func(cmd *cobra.Command, a []string) error {
			if err := args(cmd, a); err != nil {
				return usagef("bench %s: %w", cmd.Name(), err)
			}
			return nil
		}
	}
	return bench
}

// gpsTime converts; 18 leap seconds lie between GPS time and UTC since 2017.
func gpsTime(t time.Time) uint32 {
	epoch := time.Date(1980, 1, 6, 0, 0, 0, 0, time.UTC)
	return uint32(t.Sub(epoch)/time.Second) + 18
}

// benchLine are the flags of the line.
type benchLine struct {
	baud  uint
	limit time.Duration
}

func (l *benchLine) flags(cmd *cobra.Command) {
	cmd.Flags().UintVar(&l.baud, "baud", 115200, "bits per second")
	cmd.Flags().DurationVar(&l.limit, "timeout", time.Minute, "longest turn of the device before it counts as dead")
}

// benchLog prints what the device says.
func benchLog(w io.Writer) serial.Log {
	return serial.Log{
		Console: func(line string) { fmt.Fprintf(w, "device   | %s\n", line) },
		Event: func(step diag.Step, cause diag.Cause, detail uint16) {
			fmt.Fprintf(w, "event    | step %v, cause %v, detail %d\n", step, cause, detail)
		},
		Reset: func(reason modem.Reason) {
			words := map[modem.Reason]string{modem.ResetAsked: "asked for", modem.ResetInstall: "to install", modem.ResetWatchdog: "watchdog", modem.ResetFault: "fault"}
			fmt.Fprintf(w, "reset    | %s\n", words[reason])
		},
		Progress: func(text string) { fmt.Fprintf(w, "bench    | %s\n", text) },
	}
}

func benchSelftest(open func(string, uint) (serial.Port, error), now func() time.Time) *cobra.Command {
	var line benchLine
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "selftest PORT",
		Short: "go through what a device owes",
		Long: `selftest resets the device on PORT and goes through what it owes on the modem protocol and in the
packages TS003 to TS006. A firmware that runs the porting checklist (sow_port_selftest) is followed through
both of its halves instead. The firmware of the device is not changed.`,
		Example: `  sower bench selftest /dev/ttyUSB0`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			port, err := open(args[0], line.baud)
			if err != nil {
				return err
			}
			link := serial.NewLink(port, line.limit)
			defer link.Close()
			checks, err := serial.Check(cmd.Context(), link, gpsTime(now()), serial.Log{})
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			failed := 0
			type row struct {
				Name   string `json:"name"`
				OK     bool   `json:"ok"`
				Detail string `json:"detail"`
			}
			var rows []row
			for _, c := range checks {
				r := row{c.Name, c.Err == nil, c.Detail}
				if c.Err != nil {
					failed++
					r.Detail = c.Err.Error()
				}
				rows = append(rows, r)
				if !asJSON {
					fmt.Fprintln(cmd.OutOrStdout(), c)
				}
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), rows); err != nil {
					return err
				}
			}
			if failed != 0 {
				return fmt.Errorf("%s: %d of %d checks failed", args[0], failed, len(checks))
			}
			return nil
		},
	}
	line.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func benchFeed(open func(string, uint) (serial.Port, error), now func() time.Time) *cobra.Command {
	var line benchLine
	var opt serial.Options
	var matrix, rootKey string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "feed PORT BUNDLE",
		Short: "update a device with a bundle",
		Long: `feed updates the device on PORT with BUNDLE as a server and a network would: clock by TS003, group key and
receive window by TS005, session by TS004, fragments until the block is complete, reboot by TS006. It is done
when the device runs the new version, also after one more reset. A device that refuses says why.`,
		Example: `  sower bench feed /dev/ttyUSB0 update.sow --root-key 000102030405060708090a0b0c0d0e0f --loss 0.1 --cut-reset`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := hex.DecodeString(rootKey)
			if err != nil || len(key) != len(opt.RootKey) {
				return usagef("--root-key: want 32 hexadecimal digits, the GenAppKey (LoRaWAN 1.0.x) or AppKey (1.1) of the device")
			}
			copy(opt.RootKey[:], key)
			if matrix != "" {
				if opt.Matrix, err = fragmentation.ParseMatrix(matrix); err != nil || opt.Matrix == fragmentation.V2Absolute {
					return usagef("--matrix %q, want v1 or v2", matrix)
				}
			}
			if !(opt.Loss >= 0 && opt.Loss <= 0.9) {
				return usagef("--loss %v, want a share of 0 to 0.9", opt.Loss)
			}
			if opt.Size < 1 || opt.Size > fragmentation.MaxSize {
				return usagef("--size %d, want 1..%d", opt.Size, fragmentation.MaxSize)
			}
			block, err := readInput("bundle", args[1])
			if err != nil {
				return err
			}
			port, err := open(args[0], line.baud)
			if err != nil {
				return err
			}
			link := serial.NewLink(port, line.limit)
			defer link.Close()
			opt.GPS = gpsTime(now())
			opt.Log = benchLog(cmd.ErrOrStderr())
			res, err := serial.Feed(cmd.Context(), link, block, opt)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{
					"old_version": res.Old.String(), "new_version": res.New.String(), "packages": res.Version.String(),
					"m": res.M, "fragment_bytes": res.Size, "sent": res.Sent, "lost": res.Lost, "resets": res.Resets,
					"virtual_seconds": res.Seconds, "proved_by_reboot": res.ProvedByReboot,
				})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %v -> %v, proved by a reboot: %d fragments sent for %d, %d lost, %d resets\n",
				args[0], res.Old, res.New, res.Sent, res.M, res.Lost, res.Resets)
			return nil
		},
	}
	line.flags(cmd)
	fl := cmd.Flags()
	fl.StringVar(&rootKey, "root-key", "", "root key of the device, 32 hexadecimal digits (required)")
	fl.BoolVar(&opt.LoRaWAN11, "lorawan-11", false, "the device derives its keys as LoRaWAN 1.1 does")
	fl.StringVar(&matrix, "matrix", "", "parity matrix: v1 or v2 (default: what the device speaks)")
	fl.IntVar(&opt.Size, "size", 48, "fragment size in bytes, 1..255")
	fl.Float64Var(&opt.Loss, "loss", 0, "share of fragments to drop")
	fl.BoolVar(&opt.CutReset, "cut-reset", false, "reset the device at random moments while it receives")
	fl.Uint64Var(&opt.Seed, "seed", 1, "of losses, resets and group keys")
	fl.Uint16Var(&opt.SessionCnt, "session-count", 0, "SessionCnt of TS004 v2; it must exceed the last one used (default: from the clock)")
	fl.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}
