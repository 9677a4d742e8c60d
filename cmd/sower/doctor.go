package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
)

// applications returns the applications to look at: those given, else those of the settings, else all.
func (s *site) applications(ctx context.Context, given []string) ([]chirpstack.Application, error) {
	if len(given) == 0 {
		given = s.ChirpStack.Applications
	}
	if len(given) == 0 {
		apps, err := s.nw.Applications(ctx)
		if errors.Is(err, network.ErrDenied) {
			return nil, fmt.Errorf("the token is that of a tenant and cannot list applications: name them in [chirpstack] applications of %s (%w)", s.file, err)
		}
		return apps, err
	}
	var out []chirpstack.Application
	for _, id := range given {
		a, err := s.nw.Application(ctx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// check is one line of doctor.
type check struct {
	Name   string `json:"check"`
	State  string `json:"state"` // ok, failed, or unknown: nothing is wrong as far as one can see
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// examination gathers the checks of doctor.
type examination struct{ checks []check }

func (e *examination) ok(name, format string, args ...any) {
	e.checks = append(e.checks, check{name, "ok", fmt.Sprintf(format, args...), ""})
}

func (e *examination) unknown(name, remedy, format string, args ...any) {
	e.checks = append(e.checks, check{name, "unknown", fmt.Sprintf(format, args...), remedy})
}

func (e *examination) failed(name, remedy, format string, args ...any) {
	e.checks = append(e.checks, check{name, "failed", fmt.Sprintf(format, args...), remedy})
}

func (e *examination) failures() int {
	n := 0
	for _, c := range e.checks {
		if c.State == "failed" {
			n++
		}
	}
	return n
}

func newDoctorCommand() *cobra.Command {
	var at siteFlags
	var asJSON bool
	var listen time.Duration
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "is everything connected, and why not",
		Long: `doctor looks at everything that a campaign will need and that ChirpStack would not complain about: server and
token, broker, gateways, device profiles, root keys, clock. It changes nothing. Exit code 1 if anything is ✗.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if listen < 0 {
				return usagef("doctor: --listen %s is negative", listen)
			}
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.nw.Close()
			var e examination
			err = s.examine(cmd.Context(), &e, listen)
			if err != nil && len(e.checks) <= 1 && !asJSON {
				return err // the server does not answer: nothing else can be said
			}
			if err != nil {
				e.failed("server", "start it, or correct its address in "+s.file, "%s", err)
			}
			if err := e.print(cmd.OutOrStdout(), asJSON); err != nil {
				return err
			}
			if n := e.failures(); n > 0 {
				return fmt.Errorf("doctor: %d of %d checks failed", n, len(e.checks))
			}
			return nil
		},
	}
	at.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.DurationVar(&listen, "listen", 3*time.Second, "wait so long for an event, which shows clock and quality of service")
	return cmd
}

func (e *examination) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return printJSON(w, map[string]any{"ok": e.failures() == 0, "checks": e.checks})
	}
	mark := map[string]string{"ok": "✓", "failed": "✗", "unknown": "–"}
	for _, c := range e.checks {
		fmt.Fprintf(w, "%s %-16s %s\n", mark[c.State], c.Name, c.Text)
		if c.Remedy != "" {
			fmt.Fprintf(w, "  %-16s → %s\n", "", c.Remedy)
		}
	}
	return nil
}

// keySample is how many devices doctor asks for their keys; plan asks all that are concerned.
const keySample = 1000

// examine makes all checks. An error means that the server has stopped answering.
func (s *site) examine(ctx context.Context, e *examination, listen time.Duration) error {
	for _, secret := range []struct{ what, file string }{
		{"API token", s.ChirpStack.TokenFile}, {"MQTT password", s.ChirpStack.PasswordFile}, {"secret of ChirpStack's HTTP integration", s.ChirpStack.HTTPFile},
		{"passphrase of the root keys", s.ChirpStack.KeysPassphrase}, {"secret of the webhook", s.Server.SecretFile},
		{"key that signs evidence", filepath.Join(filepath.Dir(s.Server.Database), "evidence.key")},
	} {
		path := s.path(secret.file)
		if st, err := os.Stat(path); secret.file != "" && err == nil && st.Mode().Perm()&0o077 != 0 {
			e.failed("settings", "chmod 600 "+path, "%s: others on this machine can read the %s in %s", s.file, secret.what, path)
		}
	}
	if len(e.checks) == 0 {
		e.ok("settings", "%s", s.file)
	}
	version, err := s.nw.Version(ctx)
	switch {
	case errors.Is(err, chirpstack.ErrKeyRefused):
		e.failed("token", "create an API key in ChirpStack and put it where "+s.file+" says", "the server refuses the token: %s", err)
		return nil
	case errors.Is(err, network.ErrUnavailable):
		return err
	case err != nil:
		e.failed("server", "upgrade ChirpStack", "%s", err)
	default:
		e.ok("server", "ChirpStack %s at %s", version, s.ChirpStack.Server)
	}
	apps, err := s.applications(ctx, nil)
	if err != nil {
		if errors.Is(err, network.ErrUnavailable) {
			return err
		}
		e.failed("applications", "correct [chirpstack] applications in "+s.file, "%s", err)
		return nil
	}
	if len(apps) == 0 {
		e.failed("applications", "create one in ChirpStack and add its devices", "the server has no application")
		return nil
	}
	for _, app := range apps {
		if err := s.nw.MayWrite(ctx, app.ID); err != nil {
			if errors.Is(err, network.ErrUnavailable) || errors.Is(err, network.ErrUncertain) {
				return err
			}
			e.failed("token", "use an API key that is not read-only", "may not create multicast groups in %s: %s", app.Name, err)
		} else {
			e.ok("token", "may read and write in application %s", app.Name)
		}
	}
	broker := s.examineBroker(ctx, e, apps[0], listen)
	newest, regions, err := s.examineGateways(ctx, e, apps)
	if err != nil {
		return err
	}
	s.examineClock(e, broker, newest)
	return s.examineDevices(ctx, e, apps, regions)
}

func (s *site) examineBroker(ctx context.Context, e *examination, app chirpstack.Application, listen time.Duration) chirpstack.Broker {
	if s.ChirpStack.MQTT == "" {
		e.unknown("events", "look at the log of sower serve, or name a broker with mqtt", "come by HTTP to sower serve, and cannot be seen from here")
		return chirpstack.Broker{}
	}
	b, err := s.nw.ProbeBroker(ctx, app.ID, listen)
	switch {
	case err != nil:
		e.failed("broker", "start it, or correct [chirpstack] mqtt in "+s.file, "%s", err)
		return b
	case b.GrantedQoS < 1:
		e.failed("broker", "allow QoS 1 at the broker", "%s grants QoS %d only; events are lost while sower restarts", s.ChirpStack.MQTT, b.GrantedQoS)
	default:
		e.ok("broker", "%s, subscription with QoS %d", s.ChirpStack.MQTT, b.GrantedQoS)
	}
	const remedy = "set qos=1 under [integration.mqtt] in chirpstack.toml"
	switch {
	case b.Events == 0:
		e.unknown("events", "listen longer: sower doctor --listen 5m", "none in %s from application %s", listen, app.Name)
	case b.EventQoS < 1:
		e.failed("events", remedy, "ChirpStack publishes with QoS 0; events are lost while sower restarts")
	default:
		e.ok("events", "%d from application %s, published with QoS %d", b.Events, app.Name, b.EventQoS)
	}
	return b
}

// examineGateways returns when the server last heard any gateway, and the regions in which one is online.
func (s *site) examineGateways(ctx context.Context, e *examination, apps []chirpstack.Application) (newest time.Time, regions map[string]bool, err error) {
	seen := map[network.EUI64]bool{}
	regions = map[string]bool{}
	for _, app := range apps {
		list, err := s.nw.GatewayStates(ctx, app.ID)
		if err != nil {
			return newest, nil, err
		}
		online := 0
		for _, g := range list {
			if g.Online {
				online++
				regions[g.Region] = g.Region != ""
			}
			if g.LastSeen.After(newest) {
				newest = g.LastSeen
			}
			if seen[g.ID] {
				continue
			}
			seen[g.ID] = true
			switch {
			case !g.Online && g.LastSeen.IsZero():
				e.unknown("gateway", "check its packet forwarder, or delete it", "%s (%s) has never been seen", g.ID, g.Name)
			case !g.Online:
				e.unknown("gateway", "check its power and its backhaul", "%s (%s) is offline since %s", g.ID, g.Name, g.LastSeen.Format(time.RFC3339))
			case g.RegionConfig == "":
				e.failed("gateway", "give the packet forwarder the topic prefix of its region",
					"%s (%s) has no region_config_id; every multicast frame through it would vanish without a word", g.ID, g.Name)
			}
		}
		if online == 0 {
			e.failed("gateways", "put one into operation", "none of %d is online for application %s; multicast would be accepted and not sent", len(list), app.Name)
		} else {
			e.ok("gateways", "%d of %d online for application %s", online, len(list), app.Name)
		}
	}
	return newest, regions, nil
}

// clockTolerance is by how much the clocks of server and engine may differ.
const clockTolerance = 5 * time.Second

func (s *site) examineClock(e *examination, b chirpstack.Broker, newest time.Time) {
	const remedy = "synchronise this machine and the server by NTP"
	if !b.Heard.IsZero() {
		if skew := b.Heard.Sub(b.Latest); skew < -clockTolerance || skew > clockTolerance {
			e.failed("clock", remedy, "an event came %s after the time that is written in it", skew.Round(time.Millisecond))
		} else {
			e.ok("clock", "an event came %s after the time that is written in it", skew.Round(time.Millisecond))
		}
		return
	}
	switch age := time.Since(newest); {
	case newest.IsZero():
		e.unknown("clock", "", "no gateway has told the time")
	case age < -clockTolerance:
		e.failed("clock", remedy, "the server saw a gateway %s in the future of this machine", (-age).Round(time.Second))
	default:
		e.unknown("clock", "listen longer to compare the clocks: sower doctor --listen 5m", "the newest statistics of a gateway are %s old", age.Round(time.Second))
	}
}

// examineDevices looks at profiles and keys. regions are those in which a gateway is online.
func (s *site) examineDevices(ctx context.Context, e *examination, apps []chirpstack.Application, regions map[string]bool) error {
	var ids []string
	for _, a := range apps {
		ids = append(ids, a.ID)
	}
	inv, err := s.planner(io.Discard).Inventory(ctx, ids)
	if errors.As(err, new(config.Problems)) {
		e.failed("inventory", "correct the file", "%s", strings.ReplaceAll(err.Error(), "\n", ";"))
		return nil
	}
	if err != nil {
		return err
	}
	devices := inv.Devices()
	if len(devices) == 0 {
		e.failed("devices", "add devices in ChirpStack", "the applications have none")
		return nil
	}
	e.ok("devices", "%d", len(devices))
	var profiles []string
	clock := map[bool]string{}
	for _, d := range devices {
		if slices.Contains(profiles, d.Profile) {
			continue
		}
		profiles = append(profiles, d.Profile)
		p, err := s.nw.Profile(ctx, d.Profile)
		if err != nil {
			return err
		}
		clock[p.TS003] = p.Name
		var wrong []string
		if p.TS004 || p.TS005 {
			wrong = append(wrong, "ChirpStack handles TS004 or TS005 itself and takes answers for its own deployments")
		}
		if p.ClassC {
			wrong = append(wrong, "it is class C, so that unicast messages are sent while devices listen to the multicast channel")
		}
		if len(wrong) > 0 {
			e.failed("device profile", "set TS004 and TS005 to \"not implemented\" and switch class C off for devices of class A",
				"%s: %s", p.Name, strings.Join(wrong, "; "))
		} else {
			e.ok("device profile", "%s, %s, LoRaWAN %s, without TS004 and TS005", p.Name, p.Region, p.MACVersion)
		}
		region, err := airtime.ParseRegion(p.Region)
		switch {
		case err != nil:
			e.failed("region", "leave its devices to another tool", "device profile %s is of %s, and sower knows %v", p.Name, p.Region, airtime.Regions())
		case s.Region != 0 && region != s.Region:
			e.failed("region", "take region out of "+s.file+", and each device is served in the region of its profile",
				"device profile %s is of %s, and no other region than %s is wanted", p.Name, region, s.Region)
		case !regions[p.Region] && len(regions) > 0:
			e.failed("region", "put a gateway of "+p.Region+" into operation, or correct the region of the profile",
				"no gateway of %s is online, where the devices of profile %s work", p.Region, p.Name)
		}
	}
	if len(clock) == 2 {
		e.failed("device profile", "set TS003 to the same in all", "ChirpStack answers the time for %s but not for %s, so sower cannot know who does", clock[true], clock[false])
	}
	asked := devices[:min(len(devices), keySample)]
	var euis []network.EUI64
	for _, d := range asked {
		euis = append(euis, d.EUI)
	}
	var mu sync.Mutex
	missing := map[string][]network.EUI64{}
	err = chirpstack.ForDevices(ctx, euis, func(ctx context.Context, eui network.EUI64) error {
		r, err := s.nw.Readiness(ctx, eui)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			return err
		case r.Key != nil:
			missing["keys"] = append(missing["keys"], eui)
		case r.EndToEnd:
			missing["end"] = append(missing["end"], eui)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if list := missing["keys"]; len(list) > 0 {
		e.failed("root keys", "enter GenAppKey (LoRaWAN 1.0.x) or AppKey (1.1) under the keys of the device",
			"%d of %d devices have none: %s", len(list), len(asked), some(list))
	} else {
		e.ok("root keys", "%d of %d devices asked have one", len(asked), len(devices))
	}
	if list := missing["end"]; len(list) > 0 {
		e.failed("encryption", "let the join server give the session keys to ChirpStack", "payloads of %s are encrypted end to end", some(list))
	}
	known := 0
	for _, d := range devices {
		if d.Packages.Known() {
			known++
		}
	}
	const remedy = "ask with `sower devices discover`; a campaign asks each device, too, before it sends anything"
	if known == 0 {
		e.unknown("packages", remedy, "no device has told the version of its packages")
	} else {
		e.ok("packages", "known of %d of %d devices", known, len(devices))
	}
	return nil
}

// some lists a few devices, in order.
func some(list []network.EUI64) string {
	slices.SortFunc(list, func(a, b network.EUI64) int { return bytes.Compare(a[:], b[:]) })
	var out []string
	for _, eui := range list[:min(len(list), 5)] {
		out = append(out, eui.String())
	}
	if n := len(list) - len(out); n > 0 {
		out = append(out, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(out, ", ")
}
