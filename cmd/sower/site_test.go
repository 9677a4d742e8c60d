package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/fleettest"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

var (
	meters    = networkserver.UUID(1, "meters")
	roofID    = lorawan.EUI64{0, 0x16, 0xc0, 1, 2, 3, 4, 5}
	cellarID  = lorawan.EUI64{0, 0x16, 0xc0, 1, 2, 3, 4, 6}
	deviceEUI = func(i int) lorawan.EUI64 { return lorawan.EUI64{0x70, 0xb3, 7: byte(i)} }
)

// installation is a simulated server, and a folder with settings for it.
type installation struct {
	world  *world.World
	server *networkserver.Server
	dir    string
}

// nobody is an address at which nobody answers: only root could listen there, and nobody does.
const nobody = "127.0.0.1:1"

func (in installation) file(name string) string { return filepath.Join(in.dir, name) }

func (in installation) write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(in.file(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return in.file(name)
}

// install starts a server with four devices: 0 and 1 report, 2 has no root key, 3 never joined. Half an hour has
// passed, and it is now.
func install(t *testing.T, change func(*networkserver.Config)) installation {
	t.Helper()
	now := time.Now()
	w := world.New(now.Add(-30 * time.Minute))
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	medium := radio.NewMedium(w, radio.EU868(), loss)
	f, err := fleet.New(fleet.Config{World: w, Medium: medium, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	cfg := networkserver.Config{World: w, Medium: medium, Seed: 1, Token: "admin-token",
		Tenant:       networkserver.Tenant{ID: networkserver.UUID(1, "tenant"), Name: "tenant"},
		Applications: []networkserver.Application{{ID: meters, Name: "Meters of the city"}},
		Profiles:     []networkserver.DeviceProfile{{ID: networkserver.UUID(1, "profile"), Name: "meter"}},
		Gateways:     []networkserver.Gateway{{ID: roofID, Name: "roof"}, {ID: cellarID, Name: "cellar"}}}
	for i := range 4 {
		d := networkserver.Device{EUI: deviceEUI(i), Name: fmt.Sprintf("meter-%d", i), Application: meters, Profile: cfg.Profiles[0].ID,
			Tags: map[string]string{"site": "north", "hardware_id": "1"},
			Keys: &networkserver.Keys{AppKey: lorawan.AES128Key{1, byte(i)}, GenAppKey: lorawan.AES128Key{2, byte(i)}}}
		if i == 2 {
			d.Keys.GenAppKey = lorawan.AES128Key{}
		}
		cfg.Devices = append(cfg.Devices, d)
		if i < 3 {
			if _, err := f.Add(fleet.DeviceConfig{EUI: d.EUI, AppKey: d.Keys.AppKey, DataRate: 5, PowerUp: time.Duration(i+1) * time.Second,
				App: &fleettest.Beacon{Uplink: modem.Up{Port: diag.FPort, Data: diag.AppendReport(nil, diag.Report{Version: uint32(bundle.MakeVersion(1, 0, 0))})}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if change != nil {
		change(&cfg)
	}
	s, err := networkserver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		f.Close()
	})
	if err := w.Run(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	in := installation{w, s, t.TempDir()}
	in.write(t, "sower.token", "admin-token\n")
	in.write(t, "sower.toml", fmt.Sprintf("[chirpstack]\nserver = %q\nmqtt = %q\ntoken_file = \"sower.token\"\napplications = [%q]\n",
		s.GRPCAddress(), "mqtt://"+s.MQTTAddress(), meters))
	return in
}

// live lets time pass while a command runs.
func (in installation) live(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		// A minute in 20 ms: left alone, the world would not let anybody else have the processor.
		pace := time.NewTicker(20 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-pace.C:
				if err := in.world.Run(ctx, in.world.Now().Add(time.Minute)); err != nil {
					done <- err
					return
				}
			case <-ctx.Done():
				done <- nil
				return
			}
		}
	}()
	return func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// verb runs one command of the command line.
func verb(cmd *cobra.Command, args ...string) (stdout, stderr string, err error) {
	return verbUntil(context.Background(), cmd, args...)
}

// verbUntil is verb, which is interrupted when ctx ends.
func verbUntil(ctx context.Context, cmd *cobra.Command, args ...string) (stdout, stderr string, err error) {
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(append([]string{}, args...)) // nil would mean those of this test binary
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.ExecuteContext(ctx)
	return out.String(), errs.String(), err
}

func TestInit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sower.toml")
	out, _, err := verb(newInitCommand(), "-o", path, "--server", "https://lns.example.com:443")
	if err != nil || !strings.Contains(out, "sower doctor") || !tokenText.MatchString(out) {
		t.Fatalf("%q, %v", out, err)
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), `server = "https://lns.example.com:443"`) {
		t.Errorf("%s %v", text, err)
	}
	if _, _, err := verb(newInitCommand(), "-o", path, "--server", "other:1"); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a second init: %v", err)
	}
	if out, _, err := verb(newInitCommand(), "-o", path+"3"); err != nil || tokenText.MatchString(out) {
		t.Errorf("the database has a token already: %q %v", out, err)
	}
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, text) {
		t.Error("the file was overwritten")
	}
	if _, _, err := verb(newInitCommand(), "-o", path+"2", "--region", "EU869"); !errors.As(err, new(usageError)) {
		t.Errorf("an unknown region: %v", err)
	}
	// The first thing a user forgets is the token.
	if _, _, err := verb(newDoctorCommand(), "--config", path); err == nil || !strings.Contains(err.Error(), "sower.token") ||
		!strings.Contains(err.Error(), "put the API token into that file") {
		t.Errorf("doctor without a token: %v", err)
	}
}

// report is what doctor --json prints.
type report struct {
	OK     bool    `json:"ok"`
	Checks []check `json:"checks"`
}

func (r report) state(name, part string) string {
	for _, c := range r.Checks {
		if c.Name == name && strings.Contains(c.Text, part) {
			return c.State
		}
	}
	return "missing"
}

func doctor(t *testing.T, in installation, args ...string) (report, error) {
	t.Helper()
	out, _, err := verb(newDoctorCommand(), append([]string{"--config", in.file("sower.toml"), "--json"}, args...)...)
	var r report
	if jsonErr := json.Unmarshal([]byte(out), &r); jsonErr != nil {
		t.Fatalf("%v: %q %v", jsonErr, out, err)
	}
	if r.OK != (err == nil) {
		t.Errorf("ok is %v, the error %v", r.OK, err)
	}
	for _, c := range r.Checks {
		if c.State == "failed" && c.Remedy == "" {
			t.Errorf("no remedy for %q", c.Text)
		}
	}
	return r, err
}

func TestDoctor(t *testing.T) {
	in := install(t, func(c *networkserver.Config) {
		c.Devices[2].Keys.GenAppKey = lorawan.AES128Key{9}
	})
	r, err := doctor(t, in, "--listen", "10ms")
	if err != nil {
		t.Errorf("a sound installation: %v %+v", err, r.Checks)
	}
	for name, part := range map[string]string{"settings": "sower.toml", "server": "4.12 or later", "token": "Meters of the city", "broker": "QoS 1",
		"gateways": "2 of 2", "devices": "4", "device profile": "1.0.4", "root keys": "4 of 4"} {
		if got := r.state(name, part); got != "ok" {
			t.Errorf("%s: %s, want ok with %q", name, got, part)
		}
	}
	for _, name := range []string{"events", "clock", "packages"} {
		if got := r.state(name, ""); got != "unknown" {
			t.Errorf("%s: %s, want unknown", name, got)
		}
	}
	in.write(t, "sower.toml", "[chirpstack]\nserver = \"127.0.0.1:1\"\nmqtt = \"mqtt://127.0.0.1:1\"\ntoken_file = \"sower.token\"\n")
	if r, _ := doctor(t, in); r.state("server", "127.0.0.1:1 does not answer") != "failed" {
		t.Errorf("no server, in JSON: %+v", r.Checks)
	}
	// Addresses on the command line go before those of the settings, for a server that is there for an hour.
	out, _, err := verb(newDoctorCommand(), "--config", in.file("sower.toml"), "--listen", "1ms", "--server", in.server.GRPCAddress(),
		"--mqtt", "mqtt://"+in.server.MQTTAddress())
	if err != nil || !strings.Contains(out, "✓ server") || !strings.Contains(out, "– events") || strings.Contains(out, "✗") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDoctorFinds(t *testing.T) {
	t.Run("no key, others read the token, a gateway offline", func(t *testing.T) {
		in := install(t, func(c *networkserver.Config) {
			c.Faults.Outages = []networkserver.Outage{{Gateway: cellarID, From: time.Minute, Until: 99 * time.Hour}}
		})
		if err := os.Chmod(in.file("sower.token"), 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := doctor(t, in, "--listen", "1ms")
		if err == nil || r.state("root keys", deviceEUI(2).String()) != "failed" || r.state("settings", "others on this machine") != "failed" ||
			r.state("gateway", "cellar") != "unknown" || r.state("gateways", "1 of 2") != "ok" {
			t.Errorf("%v %+v", err, r.Checks)
		}
	})
	t.Run("everything offline, old server, clock astray", func(t *testing.T) {
		in := install(t, func(c *networkserver.Config) {
			c.Version = "4.11.2"
			c.Faults.Outages = []networkserver.Outage{{Gateway: cellarID, From: time.Minute, Until: 99 * time.Hour}, {Gateway: roofID, From: time.Minute, Until: 99 * time.Hour}}
		})
		r, _ := doctor(t, in, "--listen", "1ms")
		if r.state("server", "older than 4.12 and has no place for GenAppKey") != "failed" || r.state("gateways", "none of 2") != "failed" {
			t.Errorf("%+v", r.Checks)
		}
	})
	t.Run("events, and a clock that runs away", func(t *testing.T) {
		in := install(t, nil)
		if err := in.world.Run(t.Context(), in.world.Now().Add(time.Hour)); err != nil { // it runs away in a hurry
			t.Fatal(err)
		}
		stop := in.live(t)
		defer stop()
		r, _ := doctor(t, in, "--listen", "5m") // or until an event comes
		if r.state("events", "QoS 1") != "ok" || r.state("clock", "") != "failed" {
			t.Errorf("%+v", r.Checks)
		}
	})
	t.Run("token that only reads", func(t *testing.T) {
		in := install(t, func(c *networkserver.Config) {
			c.Keys = []networkserver.APIKey{{Token: "reader", ReadOnly: true}}
		})
		in.write(t, "sower.token", "reader")
		r, _ := doctor(t, in, "--listen", "1ms")
		if r.state("token", "may not create multicast groups") != "failed" {
			t.Errorf("%+v", r.Checks)
		}
	})
	t.Run("token of a tenant", func(t *testing.T) {
		in := install(t, func(c *networkserver.Config) {
			c.Keys = []networkserver.APIKey{{Token: "tenant-key", Tenant: c.Tenant.ID}}
			c.Devices[2].Keys.GenAppKey = lorawan.AES128Key{9}
		})
		in.write(t, "sower.token", "tenant-key")
		if r, err := doctor(t, in, "--listen", "1ms"); err != nil {
			t.Errorf("%v %+v", err, r.Checks)
		}
		text, err := os.ReadFile(in.file("sower.toml"))
		if err != nil {
			t.Fatal(err)
		}
		in.write(t, "sower.toml", strings.Replace(string(text), "applications", "# applications", 1))
		if r, _ := doctor(t, in, "--listen", "1ms"); r.state("applications", "name them in [chirpstack] applications") != "failed" {
			t.Errorf("%+v", r.Checks)
		}
	})
	t.Run("wrong token", func(t *testing.T) {
		in := install(t, nil)
		in.write(t, "sower.token", "hush-hush")
		r, _ := doctor(t, in, "--listen", "1ms")
		if r.state("token", "refuses the token") != "failed" {
			t.Errorf("%+v", r.Checks)
		}
		out, _, _ := verb(newDoctorCommand(), "--config", in.file("sower.toml"))
		if strings.Contains(out, "hush-hush") {
			t.Errorf("the token is shown: %s", out)
		}
	})
	t.Run("profiles disagree about the clock", func(t *testing.T) {
		in := install(t, func(c *networkserver.Config) {
			c.Profiles = append(c.Profiles, networkserver.DeviceProfile{ID: networkserver.UUID(1, "other"), Name: "other", ClockSync: 1})
			c.Devices[3].Profile = c.Profiles[1].ID
		})
		r, _ := doctor(t, in, "--listen", "1ms")
		if r.state("device profile", "but not for meter") != "failed" {
			t.Errorf("%+v", r.Checks)
		}
	})
	t.Run("no broker", func(t *testing.T) {
		in := install(t, nil)
		in.write(t, "sower.toml", fmt.Sprintf("[chirpstack]\nserver = %q\nmqtt = %q\ntoken_file = \"sower.token\"\n", in.server.GRPCAddress(), "mqtt://"+nobody))
		r, _ := doctor(t, in)
		if r.state("broker", nobody) != "failed" {
			t.Errorf("%+v", r.Checks)
		}
	})
	t.Run("no server", func(t *testing.T) {
		in := installation{dir: t.TempDir()}
		in.write(t, "sower.token", "t")
		in.write(t, "sower.toml", fmt.Sprintf("[chirpstack]\nserver = %q\nmqtt = \"mqtt://127.0.0.1:1\"\ntoken_file = \"sower.token\"\n", nobody))
		for _, cmd := range []*cobra.Command{newDoctorCommand(), newDevicesCommand()} {
			out, _, err := verb(cmd, "--config", in.file("sower.toml"))
			if err == nil || out != "" || !strings.Contains(err.Error(), nobody) || !strings.Contains(err.Error(), "is it running") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q %v", out, err)
			}
		}
	})
}

func TestDevices(t *testing.T) {
	in := install(t, nil)
	config := []string{"--config", in.file("sower.toml")}
	out, _, err := verb(newDevicesCommand(), append(config, "--json")...)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Devices []struct {
			EUI      string           `json:"dev_eui"`
			LastSeen *time.Time       `json:"last_seen"`
			Version  *json.RawMessage `json:"version"`
			Hardware struct {
				Value  int
				Source string
			} `json:"hardware_id"`
			SNR *struct {
				Value  float64
				Source string
				At     time.Time
			} `json:"snr_db"`
		}
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || len(doc.Devices) != 4 {
		t.Fatalf("%v\n%s", err, out)
	}
	first, last := doc.Devices[0], doc.Devices[3]
	if first.SNR == nil || first.SNR.Source != "link metrics" || first.SNR.At.IsZero() || first.Hardware.Source != "tag" || first.Version != nil || first.LastSeen == nil {
		t.Errorf("device 0 is %+v", first)
	}
	if last.SNR != nil || last.LastSeen != nil {
		t.Errorf("device 3, which never joined, is %+v", last)
	}
	// What is heard is known, and a file keeps it. On a busy machine it may take more than one attempt to hear something.
	stop := in.live(t)
	for try := 0; !strings.Contains(out, deviceEUI(0).String()+",meter-0,1.0.0,report,"); try++ {
		if out, _, err = verb(newDevicesCommand(), append(config, "--csv", "--listen", "300ms")...); err != nil || try > 100 {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	stop()
	in.write(t, "inventory.csv", out)
	text, err := os.ReadFile(in.file("sower.toml"))
	if err != nil {
		t.Fatal(err)
	}
	in.write(t, "sower.toml", string(text)+"[inventory]\ncsv = \"inventory.csv\"\n")
	out, _, err = verb(newDevicesCommand(), config...)
	if err != nil || !strings.Contains(out, "1.0.0 (report, ") || !strings.Contains(out, "0 of ") || !strings.Contains(out, "never") {
		t.Errorf("%v\n%s", err, out)
	}
	in.write(t, "inventory.csv", "dev_eui,version\nxyz,1.0.0\n")
	if _, _, err := verb(newDevicesCommand(), config...); err == nil || !strings.Contains(err.Error(), in.file("inventory.csv")+":2: ") {
		t.Errorf("a broken file: %v", err)
	}
}

// bundles makes old.bin 1.0.0, a patch to 1.1.0 and a full image.
func (in installation) bundles(t *testing.T, expiry uint32) {
	t.Helper()
	body := bytes.Repeat([]byte("firmware of a small device "), 300)
	for i := range 2 {
		img, err := mcuboot.Wrap(append(bytes.Clone(body), byte(i)), mcuboot.Options{Major: 1, Minor: uint8(i)})
		if err != nil {
			t.Fatal(err)
		}
		in.write(t, []string{"old.bin", "new.bin"}[i], string(img))
	}
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	in.sign(t, key, expiry)
}

// sign makes patch.sow and full.sow of old.bin and new.bin.
func (in installation) sign(t *testing.T, key *ecdsa.PrivateKey, expiry uint32) {
	t.Helper()
	var images [2][]byte
	for i, name := range []string{"old.bin", "new.bin"} {
		var err error
		if images[i], err = os.ReadFile(in.file(name)); err != nil {
			t.Fatal(err)
		}
	}
	target := bundle.Target{Class: 1, Hardware: 1, KeyID: 1, Sequence: 1, Expiry: expiry}
	small, err := bundle.Patch(target, newPatch(t, images[0], images[1]), images[1], key)
	if err != nil {
		t.Fatal(err)
	}
	full, err := bundle.Full(target, images[1], key)
	if err != nil {
		t.Fatal(err)
	}
	in.write(t, "patch.sow", string(small))
	in.write(t, "full.sow", string(full))
}
