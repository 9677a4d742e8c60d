package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/simulator/rehearse"
)

// rehearseOptions are the flags of `sower rehearse`.
type rehearseOptions struct {
	firmware, old, new string
	devices            int
	loss               float64
	seed               uint64
	grpc, mqtt         string
	out                string
	console            bool
	air                rehearse.Air
}

func newRehearseCommand() *cobra.Command {
	var o rehearseOptions
	var of campaignRehearsal
	cmd := &cobra.Command{
		Use:   "rehearse [CAMPAIGN.toml]",
		Short: "run a whole update on a simulated fleet in virtual time",
		Long: `With a campaign file, rehearse plans the campaign as sower plan does and runs it by the real engine on a
simulated network server and a fleet modelled after the inventory: every device with the version it runs and the loss
of its own uplink history. It says how long the campaign will take, what it costs, and who will not make it. Nothing is
sent. Downlinks are assumed to be lost as often as uplinks are; --down-loss changes that. A raw block goes to models of
the stock stacks, which --stack names, built as the campaign file says under [raw]; nothing but its proof makes such a
device count as updated.

Without one, rehearse signs, plans and sends a firmware update to a simulated fleet: the real engine, a network server
with ChirpStack's API on loopback ports, real LoRaWAN frames, the real device library on emulated flash, and one
device that is the real firmware on an emulated Cortex-M. Nothing of it takes real time: days pass in seconds.

Without --old and --new it updates the project's own firmware from 1.0.0 to 1.1.0 on every device. With them, the
host devices run that pair (raw binaries are wrapped as MCUboot images 1.0.0 and 1.1.0 with a throw-away key)
and the emulated device stays on the project's own, in a second group.

Each frame is lost on its own unless --burst-time says how long devices are cut off at a time (sower simulate fit finds
it in a log of uplinks). --outage-every and --outage-for interrupt all devices at once; with --capture, frames at the
same time destroy each other.`,
		Example: "  sower rehearse meters.toml\n  sower rehearse --firmware build/firmware --loss 0.2\n  sower rehearse --firmware build/firmware --old mine-1.bin --new mine-2.bin",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.air.Validate(); err != nil {
				return usagef("rehearse: %s", err)
			}
			if len(args) == 1 {
				for _, name := range []string{"firmware", "old", "new", "devices", "loss", "sim-grpc", "sim-mqtt", "out"} {
					if cmd.Flags().Changed(name) {
						return usagef("rehearse: --%s does not go with a campaign file", name)
					}
				}
				if !(of.down >= 0) {
					return usagef("rehearse: --down-loss %v, want 0 or more", of.down)
				}
				of.seed, of.air = o.seed, o.air
				return of.run(cmd.Context(), args[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			if (o.old == "") != (o.new == "") {
				return usagef("rehearse: --old and --new go together")
			}
			if o.devices < 1 || o.devices > 10000 {
				return usagef("rehearse: --devices %d, want 1..10000", o.devices)
			}
			if !(o.loss >= 0 && o.loss < 1) {
				return usagef("rehearse: --loss %v, want 0 up to but not including 1", o.loss)
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.firmware, "firmware", "build/firmware", "folder with the project's firmware (`make firmware`)")
	f.StringVar(&o.old, "old", "", "image the host devices run (default: the project's 1.0.0)")
	f.StringVar(&o.new, "new", "", "image they are updated to (default: the project's 1.1.0)")
	f.IntVar(&o.devices, "devices", 50, "host devices beside the emulated one")
	f.Float64Var(&o.loss, "loss", 0.10, "share of frames lost, up and down")
	f.Uint64Var(&o.seed, "seed", 1, "same seed, same run")
	f.StringVar(&o.grpc, "sim-grpc", "", "loopback address of the simulated server's API (default: a free port)")
	f.StringVar(&o.mqtt, "sim-mqtt", "", "loopback address of its MQTT broker (default: a free port)")
	f.StringVar(&o.out, "out", "", "write the result as JSON to this file")
	f.BoolVar(&o.console, "console", true, "show what the emulated device prints")
	f.DurationVar(&o.air.BurstTime, "burst-time", 0, "mean time for which a device is cut off when it loses frames (default: each frame is lost on its own)")
	f.DurationVar(&o.air.OutageEvery, "outage-every", 0, "mean time between outages of everything at once (default: none)")
	f.DurationVar(&o.air.OutageFor, "outage-for", 0, "mean length of an outage")
	f.Float64Var(&o.air.Capture, "capture", 0, "by how many dB a frame must exceed others at the same time, 6 in theory (default: they do not disturb each other)")
	of.at.add(cmd)
	f.Float64Var(&of.down, "down-loss", 1, "of a campaign: loss of downlinks as a multiple of that of uplinks")
	f.DurationVar(&of.patch, "patch-time", 0, "of a campaign: from the complete block to the new image (default: 2m)")
	f.StringSliceVar(&of.stacks, "stack", nil, "of a campaign with a raw block: software of the devices, in turn: loramac-node, basics-modem, zephyr (default: the first for version 1 of the packages, the second for version 2)")
	f.StringVar(&of.log, "log", "", "of a campaign: write everything that happens to this file, as JSON lines")
	f.BoolVar(&of.asJSON, "json", false, "of a campaign: print the result as JSON")
	return cmd
}

// seededKey returns a signing key that anybody can compute, good only for a fleet that does not exist: the length of a signature
// depends on the key, and with it fragments and times.
func seededKey(seed uint64) (*ecdsa.PrivateKey, error) {
	scalar := sha256.Sum256(fmt.Appendf(nil, "sower rehearse --seed %d", seed))
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
}

func (o rehearseOptions) run(ctx context.Context, stdout, stderr io.Writer) error {
	key, err := seededKey(o.seed)
	if err != nil {
		return err
	}
	own, err := o.ownUpdate(key, stdout)
	if err != nil {
		return err
	}
	groups := []rehearse.Group{{Name: "beacon", Update: own, Trust: &key.PublicKey, Hosts: o.devices, Emulated: 1}}
	if o.old != "" {
		theirs, err := o.theirUpdate(key)
		if err != nil {
			return err
		}
		groups[0].Hosts = 0
		groups = append([]rehearse.Group{{Name: strings.TrimSuffix(filepath.Base(o.new), filepath.Ext(o.new)),
			Update: theirs, Trust: &key.PublicKey, Hosts: o.devices}}, groups...)
	}
	for _, g := range groups {
		fmt.Fprintf(stdout, "%s: %s → %s, image %d bytes, patch %d, bundle %d\n",
			g.Name, g.Update.From, g.Update.To, len(g.Update.New), g.Update.PatchBytes, len(g.Update.Block))
	}
	show := newDisplay(stdout, stderr, o.console)
	report, err := rehearse.Run(ctx, rehearse.Config{
		Seed: o.seed, Start: rehearsalStart, Loss: o.loss, Air: o.air,
		BootStub: filepath.Join(o.firmware, "boot.elf"), Groups: groups,
		GRPCAddress: o.grpc, MQTTAddress: o.mqtt,
		Console: show.line, Progress: show.progress, Planned: show.planned,
	})
	show.end()
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout)
	if err := report.WriteTable(stdout); err != nil {
		return err
	}
	if o.out != "" {
		var doc bytes.Buffer
		if err := report.WriteSummary(&doc); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
			return fmt.Errorf("output %s: %w", o.out, unwrapPath(err))
		}
		if err := writeOutput(o.out, doc.Bytes(), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "\n%s written\n", o.out)
	}
	if s := report.Summary(); s.Updated != s.Devices {
		return fmt.Errorf("%d of %d devices were not updated", s.Devices-s.Updated, s.Devices)
	}
	return nil
}

// rehearsalStart is when a rehearsal begins; a fixed instant, so that the same seed gives the same run.
var rehearsalStart = time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)

// ownUpdate is the update of the project's own firmware, and says what changed in it.
func (o rehearseOptions) ownUpdate(key *ecdsa.PrivateKey, stdout io.Writer) (rehearse.Update, error) {
	var images [2][]byte
	for i, v := range []string{"1.0.0", "1.1.0"} {
		raw, err := readInput("firmware (run `make firmware`)", filepath.Join(o.firmware, "beacon-"+v+".bin"))
		if err != nil {
			return rehearse.Update{}, err
		}
		if images[i], err = rehearse.WrapImage(raw, 1, uint8(i), 0x21000000, key); err != nil {
			return rehearse.Update{}, err
		}
	}
	c, err := device.CompareELF(filepath.Join(o.firmware, "beacon-1.0.0.elf"), filepath.Join(o.firmware, "beacon-1.1.0.elf"))
	if err != nil {
		return rehearse.Update{}, err
	}
	fmt.Fprintf(stdout, "firmware 1.1.0: %d functions, %d changed, %d added, %d moved to another address\n",
		c.Functions, len(c.Changed), len(c.Added), c.Moved)
	return rehearse.NewUpdate(images[0], images[1], key)
}

// theirUpdate is the update of the user's own pair.
func (o rehearseOptions) theirUpdate(key *ecdsa.PrivateKey) (rehearse.Update, error) {
	var images [2][]byte
	for i, path := range []string{o.old, o.new} {
		raw, err := readInput([]string{"old image", "new image"}[i], path)
		if err != nil {
			return rehearse.Update{}, err
		}
		if images[i], err = rehearse.WrapImage(raw, 1, uint8(i), 0, key); err != nil {
			return rehearse.Update{}, fmt.Errorf("%s: %w", path, err)
		}
	}
	return rehearse.NewUpdate(images[0], images[1], key)
}
