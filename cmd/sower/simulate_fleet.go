package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/model"
	"github.com/sower-fuota/sower/simulator/gateway"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// virtualFleet are the flags of `sower simulate fleet`.
type virtualFleet struct {
	at                siteFlags
	name, region      string
	devices, gateways int
	loss              float64
	heartbeat, patch  time.Duration
	from, to          string
	csv               string
	seed              uint64
	keep              bool
}

func newSimulateFleetCommand() *cobra.Command {
	var o virtualFleet
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "attach simulated gateways and devices to a real ChirpStack",
		Long: `fleet makes an application with devices and gateways on the ChirpStack of the settings, and plays them in real time:
OTAA, class A, multicast class C, the application packages and the update, over the broker of the gateway backend. So a
campaign can be tried on one's own server without hardware. The token must be that of an administrator.

It runs until it is interrupted, and then removes what it made, unless --keep is given. Devices do not look at what they
receive: verifying and patching are a delay, and the version afterwards is --to.`,
		Example: "  sower simulate fleet --devices 20 --loss 0.1 --csv inventory.csv\n  sower campaign init virtual --bundle update.sow -o virtual.toml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	o.at.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "virtual", "name of the application and the device profile")
	f.StringVar(&o.region, "region", "", "region of gateways and devices; that of the settings, else EU868")
	f.IntVar(&o.devices, "devices", 20, "devices, 1..10000")
	f.IntVar(&o.gateways, "gateways", 1, "gateways, 1..16")
	f.Float64Var(&o.loss, "loss", 0.1, "share of frames lost between a device and each gateway, up and down")
	f.DurationVar(&o.heartbeat, "heartbeat", time.Minute, "time between two uplinks of a device")
	f.DurationVar(&o.patch, "patch-time", 20*time.Second, "from the complete block to the new image")
	f.StringVar(&o.from, "from", "1.0.0", "version that the devices run")
	f.StringVar(&o.to, "to", "1.1.0", "version that they run after an update")
	f.StringVar(&o.csv, "csv", "", "write what is known of the devices to this file, for [inventory] of the settings")
	f.Uint64Var(&o.seed, "seed", 1, "of identifiers, keys and losses")
	f.BoolVar(&o.keep, "keep", false, "leave application, devices and gateways on the server")
	return cmd
}

func (o *virtualFleet) run(ctx context.Context, stdout io.Writer) (err error) {
	from, err := bundle.ParseVersion(o.from)
	if err != nil {
		return usagef("--from: %w", err)
	}
	to, err := bundle.ParseVersion(o.to)
	switch {
	case err != nil:
		return usagef("--to: %w", err)
	case o.devices < 1 || o.devices > 10000:
		return usagef("--devices %d, want 1..10000", o.devices)
	case o.gateways < 1 || o.gateways > 16:
		return usagef("--gateways %d, want 1..16", o.gateways)
	case !(o.loss >= 0 && o.loss < 1):
		return usagef("--loss %v, want 0 up to but not including 1", o.loss)
	case o.heartbeat < time.Second || o.patch < 0:
		return usagef("--heartbeat %s, --patch-time %s: want at least 1s, and no negative time", o.heartbeat, o.patch)
	}
	s, err := o.at.open()
	if err != nil {
		return err
	}
	defer s.nw.Close()
	region := airtime.EU868
	if s.Region != 0 {
		region = s.Region
	}
	if o.region != "" {
		if region, err = airtime.ParseRegion(o.region); err != nil {
			return usagef("--region: %w", err)
		}
	}
	w := world.New(time.Now())
	plan, err := radio.NewPlan(region)
	if err != nil {
		return err
	}
	air, err := radio.NewIndependent(o.seed, o.loss, o.loss)
	if err != nil {
		return err
	}
	medium := radio.NewMedium(w, plan, air)
	steps := newSteps(stdout)
	devices, err := fleet.New(fleet.Config{World: w, Medium: medium, Seed: o.seed, Event: steps.event,
		Failed: func(eui lorawan.EUI64, at time.Time, err error) { fmt.Fprintf(stdout, "%s  %v\n", eui, err) }})
	if err != nil {
		return err
	}
	defer devices.Close()
	site := gateway.Site{Name: o.name, Region: common.Region(common.Region_value[region.String()]), UplinkInterval: uint32(max(o.heartbeat/time.Second, 1))}
	for i := range o.gateways {
		site.Gateways = append(site.Gateways, o.eui(0x02, i))
	}
	inventory := "dev_eui,version\n"
	for i := range o.devices {
		d := gateway.SiteDevice{EUI: o.eui(0x06, i), AppKey: o.key(i, 1), GenAppKey: o.key(i, 2)}
		app, err := model.New(model.Config{RootKey: d.GenAppKey, Seed: o.seed, Running: uint32(from), Next: uint32(to), Patch: o.patch, Heartbeat: o.heartbeat})
		if err != nil {
			return err
		}
		_, err = devices.Add(fleet.DeviceConfig{EUI: d.EUI, AppKey: d.AppKey, DataRate: uplinkRate(plan), App: app,
			PowerUp: time.Duration(radio.Hash(o.seed, uint64(i), 3) % uint64(o.heartbeat))})
		if err != nil {
			return err
		}
		site.Devices = append(site.Devices, d)
		inventory += fmt.Sprintf("%s,%s\n", d.EUI, from)
	}
	if o.csv != "" {
		if err := mustNotExist(o.csv); err != nil {
			return err
		}
		if err := writeOutput(o.csv, []byte(inventory), 0o644); err != nil {
			return err
		}
	}
	made, err := gateway.Provision(ctx, s.nw.Conn(), "", site)
	if err != nil {
		return err
	}
	if !o.keep {
		defer func() {
			err = errors.Join(err, made.Remove(context.WithoutCancel(ctx)))
		}()
	}
	attached, err := gateway.Attach(ctx, gateway.Config{World: w, Medium: medium, Broker: s.broker(), Gateways: site.Gateways, QoS: 1})
	if err != nil {
		return err
	}
	defer attached.Close()
	fmt.Fprintf(stdout, "application %s (%s): %s behind %s; stop with Ctrl-C\n", o.name, made.Application, counted(o.devices, "device"), counted(o.gateways, "gateway"))
	if err := gateway.Run(ctx, w); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// eui is an identifier that is administered locally, of the kind that begins with the given byte.
func (o *virtualFleet) eui(kind byte, i int) (e lorawan.EUI64) {
	binary.BigEndian.PutUint64(e[:], radio.Hash(o.seed, uint64(kind))<<16|uint64(i))
	e[0] = kind
	return e
}

// key is a root key of a device.
func (o *virtualFleet) key(i int, purpose uint64) (k lorawan.AES128Key) {
	binary.BigEndian.PutUint64(k[:], radio.Hash(o.seed, uint64(i), purpose, 1))
	binary.BigEndian.PutUint64(k[8:], radio.Hash(o.seed, uint64(i), purpose, 2))
	return k
}

// uplinkRate is the fastest data rate by LoRa at which devices of a region send, but no more than 5.
func uplinkRate(p *radio.Plan) int {
	best := 0
	for dr := range 6 {
		if _, err := p.Uplink(dr, 0); err != nil {
			continue
		}
		if _, err := p.MaxPayload(dr, airtime.Uplink); err == nil {
			best = dr
		}
	}
	return best
}

// broker is the address of the broker of the settings, with its credentials.
func (s *site) broker() string {
	cs := s.ChirpStack
	if cs.Username == "" || strings.Contains(cs.MQTT, "@") {
		return cs.MQTT
	}
	password := ""
	if cs.PasswordFile != "" || cs.PasswordEnv != "" {
		password, _ = s.secret("chirpstack.mqtt_password_file", "MQTT password", cs.PasswordFile, cs.PasswordEnv)
	}
	return strings.Replace(cs.MQTT, "://", "://"+cs.Username+":"+password+"@", 1)
}

// steps prints what devices report of an update.
type steps struct{ w io.Writer }

func newSteps(w io.Writer) steps { return steps{w} }

func (s steps) event(eui lorawan.EUI64, at time.Time, e modem.Event) {
	line := fmt.Sprintf("%s  %s  %s", at.Format(time.TimeOnly), eui, diag.Step(e.Step))
	if c := diag.Cause(e.Cause); c != diag.CauseOK {
		line += "  " + c.String()
	}
	fmt.Fprintln(s.w, line)
}
