package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// canary is a secret that must be seen nowhere.
var canary = lorawan.AES128Key{'C', 'A', 'N', 'A', 'R', 'Y', '-', 'R', 'O', 'O', 'T', '-', 'K', 'E', 'Y', '!'}

// field is a simulated server with devices that run the device library, and a folder with an installation of sower.
type field struct {
	installation
	hosts []*device.Host
	log   *lockedBuffer
	still sync.Mutex // whoever has it lets no time pass
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// sow makes a field of n devices that run 1.0.0 and lose a tenth of all frames.
func sow(t *testing.T, n int) *field {
	t.Helper()
	return sowWith(t, n, nil)
}

// sowWith is sow with devices that change, if it is not nil, has changed.
func sowWith(t *testing.T, n int, change func(i int, cfg *device.HostConfig)) *field {
	t.Helper()
	start := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	w := world.New(start)
	loss, err := radio.NewIndependent(7, 0.1, 0.1)
	if err != nil {
		t.Fatal(err)
	}
	medium := radio.NewMedium(w, radio.EU868(), loss)
	f, err := fleet.New(fleet.Config{World: w, Medium: medium, Seed: 7, Failed: func(eui lorawan.EUI64, _ time.Time, err error) {
		t.Errorf("device %s: %v", eui, err)
	}})
	if err != nil {
		t.Fatal(err)
	}
	out := &field{installation: installation{world: w, dir: t.TempDir()}, log: &lockedBuffer{}}
	old := out.images(t)
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	out.sign(t, key, 0)
	var trust [2]device.TrustKey
	trust[0].ID = 1
	if trust[0].Public, err = bundle.PublicKey(&key.PublicKey); err != nil {
		t.Fatal(err)
	}
	cfg := networkserver.Config{World: w, Medium: medium, Seed: 7, Token: "CANARY-CHIRPSTACK-TOKEN",
		Keys:         []networkserver.APIKey{{Token: "CANARY-CHIRPSTACK-TOKEN-2", Tenant: networkserver.UUID(7, "tenant")}},
		Tenant:       networkserver.Tenant{ID: networkserver.UUID(7, "tenant"), Name: "tenant"},
		Applications: []networkserver.Application{{ID: meters, Name: "Meters"}},
		Profiles:     []networkserver.DeviceProfile{{ID: networkserver.UUID(7, "profile"), Name: "meter"}},
		Gateways:     []networkserver.Gateway{{ID: roofID, Name: "roof"}}}
	layout := device.LayoutFor(len(old))
	for i := range n {
		eui := deviceEUI(i)
		keys := networkserver.Keys{AppKey: lorawan.AES128Key{1, byte(i)}, GenAppKey: canary}
		host := device.HostConfig{Layout: layout, Image: old, PackageVersion: 2, ID: device.Identity{
			Class: 1, Hardware: 1, HWVersion: 0x00010000, RootKey: keys.GenAppKey, Keys: trust, Seed: uint32(binary.BigEndian.Uint64(eui[:])) + 1}}
		if change != nil {
			change(i, &host)
		}
		h, err := device.NewHost(host)
		if err != nil {
			t.Fatal(err)
		}
		out.hosts = append(out.hosts, h)
		if _, err := f.Add(fleet.DeviceConfig{EUI: eui, AppKey: keys.AppKey, DataRate: 5, App: h, PowerUp: time.Duration(i+1) * time.Second}); err != nil {
			t.Fatal(err)
		}
		cfg.Devices = append(cfg.Devices, networkserver.Device{EUI: eui, Name: fmt.Sprintf("meter-%d", i), Application: meters, Profile: cfg.Profiles[0].ID,
			Tags: map[string]string{"firmware_version": "1.0.0", "hardware_id": "1"}, Keys: &keys})
	}
	if out.server, err = networkserver.New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		out.server.Close()
		f.Close()
	})
	if err := w.Run(t.Context(), start.Add(30*time.Minute)); err != nil {
		t.Fatal(err)
	}
	out.write(t, "sower.token", "CANARY-CHIRPSTACK-TOKEN\n")
	out.settings(t, out.server.GRPCAddress())
	return out
}

// settings writes sower.toml; server is where the API of the network server is.
func (f *field) settings(t *testing.T, server string) {
	t.Helper()
	f.write(t, "sower.toml", fmt.Sprintf("[chirpstack]\nserver = %q\nmqtt = %q\ntoken_file = \"sower.token\"\ntimeout = \"1m\"\n[server]\nlisten = \"127.0.0.1:0\"\nbackup_dir = \".\"\n",
		server, "mqtt://"+f.server.MQTTAddress()))
}

// images writes two images and returns the old one.
func (f *field) images(t *testing.T) (old []byte) {
	t.Helper()
	body := bytes.Repeat([]byte("firmware of a small device "), 300)
	for i, name := range []string{"old.bin", "new.bin"} {
		img, err := mcuboot.Wrap(append(bytes.Clone(body), byte(i)), mcuboot.Options{Major: 1, Minor: uint8(i)})
		if err != nil {
			t.Fatal(err)
		}
		f.write(t, name, string(img))
		if i == 0 {
			old = img
		}
	}
	return old
}

// start runs sower serve in this process, in the time of the world, which passes in the background. stop ends it
// as SIGTERM does.
func (f *field) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	clock := f.world.NewClock("engine")
	ready, served, passed := make(chan string, 1), make(chan error, 1), make(chan error, 1)
	go func() {
		d := daemon{clock: clock, log: f.log, ready: func(address string) { ready <- address }}
		err := d.run(ctx, &siteFlags{file: f.file("sower.toml")})
		clock.Close()
		served <- err
	}()
	go func() {
		// Whoever calls the API shares the processor with the world, which would not wait for them.
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			<-pace.C
			f.still.Lock()
			err := f.world.Run(ctx, f.world.Now().Add(5*time.Second))
			f.still.Unlock()
			if err != nil {
				passed <- err
				return
			}
		}
		passed <- nil
	}()
	select {
	case address := <-ready:
		t.Setenv("SOWER_SERVER", "http://"+address)
	case err := <-served:
		t.Fatalf("serve: %v\n%s", err, f.log)
	}
	return func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v\n%s", err, f.log)
		}
		if err := <-passed; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

var tokenText = regexp.MustCompile(`sower_[A-Za-z0-9_-]{43}`)

// login makes the first token.
func (f *field) login(t *testing.T) string {
	t.Helper()
	out, _, err := verb(newTokenCommand(), "first", "--config", f.file("sower.toml"))
	token := tokenText.FindString(out)
	if err != nil || token == "" {
		t.Fatalf("%q %v", out, err)
	}
	t.Setenv("SOWER_TOKEN", token)
	return token
}

// can runs a verb of the campaign command that must succeed.
func can(t *testing.T, args ...string) string {
	t.Helper()
	out, _, err := verb(newCampaignCommand(), args...)
	if err != nil {
		t.Fatalf("campaign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

const fieldCampaign = `name = "field"
application = "%s"
[[bundle]]
file = "full.sow"
[[wave]]
name = "canary"
count = 1
[[wave]]
name = "all"
percent = 100
[timing]
uplink_interval = "90s"
%s`

// A campaign goes its whole way through the command line and the API, across a restart of the daemon, and what is
// exported of it is checked offline. No secret is seen on the way.
func TestServe(t *testing.T) {
	f := sow(t, 4)
	if _, _, err := verb(newServeCommand(), "--config", f.file("sower.toml")); err == nil || !strings.Contains(err.Error(), "sower token first") {
		t.Errorf("serve without a token: %v", err)
	}
	token := f.login(t)
	if _, _, err := verb(newTokenCommand(), "first", "--config", f.file("sower.toml")); err == nil {
		t.Error("a second first token")
	}
	if out, _, err := verb(newTokenCommand(), "first", "--lost", "--config", f.file("sower.toml")); err != nil || !strings.Contains(out, "sower_") || strings.Contains(out, token) {
		t.Errorf("a token in place of one that was lost: %q, %v", out, err)
	}
	stop := f.start(t)
	path := f.write(t, "field.toml", fmt.Sprintf(fieldCampaign, meters, ""))
	if out := can(t, "create", path); !strings.Contains(out, "start it with: sower campaign start field") || !strings.Contains(out, "4 devices to version 1.1.0") {
		t.Errorf("create: %s", out)
	}
	if out := can(t, "create", path); !strings.Contains(out, "field is a draft") {
		t.Errorf("the same again: %s", out)
	}
	if out := can(t, "status", "field"); !strings.Contains(out, "field: draft") || !strings.Contains(out, "4        discover  1.0.0         1         OK") {
		t.Errorf("status: %s", out)
	}
	f.still.Lock() // the orders come in no time, however slow this machine is
	if out := can(t, "start", "field"); !strings.Contains(out, "field: running, wave canary") {
		t.Errorf("start: %s", out)
	}
	can(t, "start", "field") // the same again
	if out := can(t, "create", path); !strings.Contains(out, "exists already") || !strings.Contains(out, "field: running") || strings.Contains(out, "draft") {
		t.Errorf("create of a campaign that runs: %s", out)
	}
	if out := can(t, "pause", "field", "--reason", "lunch"); !strings.Contains(out, "field: paused") {
		t.Errorf("pause: %s", out)
	}
	can(t, "resume", "field")
	f.still.Unlock()
	stop()
	stop = f.start(t)
	if out := can(t, "list"); !strings.Contains(out, "field") {
		t.Errorf("after a restart: %s", out)
	}
	out := can(t, "watch", "field", "--cursor", "0")
	f.write(t, "watch.txt", out+can(t, "watch", "field", "--cursor", "0", "--json")) // to be searched for secrets
	if !strings.Contains(out, "finish: 4 of 4 devices updated") || !strings.Contains(out, "wave: all") || !strings.Contains(out, "field.2: ") {
		t.Errorf("watch:\n%s", out)
	}
	for i, h := range f.hosts {
		raw, err := h.SlotA(16 << 10)
		if err != nil {
			t.Fatal(err)
		}
		if im, err := mcuboot.Parse(raw); err != nil || im.Minor != 1 {
			t.Errorf("device %d runs %d.%d, %v", i, im.Major, im.Minor, err)
		}
	}
	out = can(t, "explain", "field", deviceEUI(0).String())
	f.write(t, "explain.txt", out+can(t, "explain", "field", deviceEUI(1).String(), "--json")+can(t, "status", "field", "--json"))
	for _, want := range []string{"is updated", "next:  nothing to do", "multicast group was set up on it, and deleted at the end", "runs 1.1.0; the campaign installs 1.1.0", "McGroupSetupReq", "has heard the multicast group"} {
		if !strings.Contains(out, want) {
			t.Errorf("explain: no %q in\n%s", want, out)
		}
	}
	can(t, "evidence", "field", "-o", f.file("evidence.jsonl"))
	if out, _, err := verb(newAuditCommand(), "verify"); err != nil || !strings.Contains(out, "entries hold") {
		t.Errorf("audit: %q %v", out, err)
	}
	audit, _, err := verb(newAuditCommand(), "--json")
	if err != nil || !strings.Contains(audit, "lunch") {
		t.Errorf("audit: %s %v", audit, err)
	}
	if out, _, err := verb(newBackupCommand(), "--name", "copy.db"); err != nil || !strings.Contains(out, f.file("copy.db")) {
		t.Errorf("backup: %q %v", out, err)
	}
	stop()
	t.Setenv("SOWER_TOKEN", "")
	if out := can(t, "evidence", "--verify", f.file("evidence.jsonl")); !strings.Contains(out, "campaign field, ended, 4 of 4 devices updated") {
		t.Errorf("verify: %s", out)
	}
	f.tamper(t)
	f.secrets(t, token)
}

// tamper changes the exported evidence in several ways, each of which must be noticed.
func (f *field) tamper(t *testing.T) {
	text, err := os.ReadFile(f.file("evidence.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	for what, changed := range map[string]string{
		"a device":       strings.Replace(string(text), `"stage":"updated"`, `"stage":"failed"`, 1),
		"a missing line": strings.Join(append(append([]string{}, lines[:5]...), lines[6:]...), ""),
		"a missing end":  strings.Join(lines[:len(lines)-2], ""),
		"a second end":   string(text) + lines[len(lines)-2],
		"nothing":        "",
	} {
		f.write(t, "tampered.jsonl", changed)
		if out, _, err := verb(newCampaignCommand(), "evidence", "--verify", f.file("tampered.jsonl")); err == nil {
			t.Errorf("%s was not noticed: %s", what, out)
		}
	}
	if _, _, err := verb(newCampaignCommand(), "evidence", "--verify", f.file("evidence.jsonl"), "--signer", strings.Repeat("00", 32)); err == nil {
		t.Error("another signer was not noticed")
	}
}

// secrets looks for planted secrets in everything that the daemon has written.
func (f *field) secrets(t *testing.T, token string) {
	t.Helper()
	files, err := filepath.Glob(f.file("*"))
	if err != nil {
		t.Fatal(err)
	}
	planted := []string{string(canary[:]), fmt.Sprintf("%x", canary[:]), strings.ToUpper(fmt.Sprintf("%x", canary[:])), "CANARY-CHIRPSTACK-TOKEN", token}
	read := map[string]string{"the log": f.log.String()}
	for _, path := range files {
		if name := filepath.Base(path); name == "sower.token" {
			continue // which holds one
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		read[path] = string(text)
	}
	if _, ok := read[f.file("sower.db")]; !ok || len(read) < 8 {
		t.Errorf("looked at %d files only", len(read))
	}
	for where, text := range read {
		for i, s := range planted {
			if strings.Contains(text, s) {
				t.Errorf("secret %d stands in %s", i, where)
			}
		}
	}
	if !json.Valid([]byte(strings.SplitN(read["the log"], "\n", 2)[0])) {
		t.Errorf("the log is no JSON: %s", read["the log"])
	}
}
