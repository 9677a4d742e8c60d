package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/delta"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

func newPatch(t *testing.T, old, new []byte) *delta.File {
	t.Helper()
	f, err := delta.NewFile(old, new, delta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// inventory says that devices 0 to 3 run 1.0.0, and completes sower.toml.
func (in installation) settle(t *testing.T) {
	t.Helper()
	text := "dev_eui,version,version_at,snr_db\n"
	for i := range 4 {
		text += fmt.Sprintf("%s,1.0.0,2026-11-22T06:00:00Z,9\n", deviceEUI(i))
	}
	in.write(t, "inventory.csv", text)
	old, err := os.ReadFile(in.file("sower.toml"))
	if err != nil {
		t.Fatal(err)
	}
	in.write(t, "sower.toml", string(old)+"[inventory]\ncsv = \"inventory.csv\"\n"+
		"[[hardware]]\nid = 1\nslot_bytes = 65536\ndownload_bytes = 49152\nscratch_bytes = 16384\nram_bytes = 16384\n")
}

func TestCampaignInitAndPlan(t *testing.T) {
	t.Parallel()
	in := install(t, nil)
	in.bundles(t, 0)
	in.settle(t)
	config := []string{"--config", in.file("sower.toml")}
	path := in.file("meters.toml")
	args := append([]string{"init", "Meters of the city", "-o", path, "--bundle", in.file("patch.sow"), "--base", in.file("old.bin")}, config...)
	if out, _, err := verb(newCampaignCommand(), args...); err != nil || !strings.Contains(out, "sower plan") {
		t.Fatalf("%q %v", out, err)
	}
	if _, _, err := verb(newCampaignCommand(), args...); err == nil || !strings.Contains(err.Error(), "exists already") {
		t.Errorf("a second init: %v", err)
	}
	if _, _, err := verb(newCampaignCommand(), append([]string{"init", "Pumps", "-o", path + "2"}, config...)...); err == nil ||
		!strings.Contains(err.Error(), "there are: Meters of the city") {
		t.Errorf("an unknown application: %v", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ready := strings.Replace(string(text), "# exclude = []", fmt.Sprintf("exclude = [%q, %q]", deviceEUI(2), deviceEUI(3)), 1)
	ready = strings.Replace(ready, "percent = 5", "percent = 50", 1)
	in.write(t, "meters.toml", ready)
	out, _, err := verb(newPlanCommand(), append(config, path, "--json")...)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Campaigns []plan.Schedule }
	if err := json.Unmarshal([]byte(out), &doc); err != nil || len(doc.Campaigns) != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	sc := doc.Campaigns[0]
	if len(sc.Sessions) != 2 || sc.Devices != 2 || sc.Target != "1.1.0" || sc.Sessions[0].Wave != "canary" || len(sc.Sessions[0].Devices) != 1 ||
		sc.Sessions[0].Payload != "patch" || sc.Sessions[0].Plan.Gateways != 2 || !sc.Proven || len(sc.Usage) != 2 {
		t.Errorf("%s", out)
	}
	// What was planned is what the engine can run.
	block, err := os.ReadFile(in.file("patch.sow"))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range sc.Sessions {
		spec := session.Spec{ID: x.Wave, Application: meters, Block: block, Plan: x.Plan, Gateways: []network.EUI64{network.EUI64(roofID)},
			McAddr: 1, McKey: network.Key{1}}
		for _, eui := range x.Devices {
			spec.Devices = append(spec.Devices, session.Target{EUI: eui})
		}
		if _, err := session.New(spec); err != nil {
			t.Errorf("wave %s: %v", x.Wave, err)
		}
	}
	out, _, err = verb(newPlanCommand(), append(config, path)...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2 devices to version 1.1.0", "wave canary: patch.sow (patch) to 1 devices running 1.0.0", "self-check: ", "sub-band g3", "mAh per device"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	// Planning has left nothing on the server: the same plan again finds no group of that name.
	if _, _, err := verb(newPlanCommand(), append(config, path)...); err != nil {
		t.Error(err)
	}
	// A second campaign shares the gateways, and may not share the devices.
	in.write(t, "second.toml", strings.Replace(ready, `name = "Meters-of-the-city"`, `name = "second"`, 1))
	if _, _, err := verb(newPlanCommand(), append(config, path, in.file("second.toml"))...); err == nil || !strings.Contains(err.Error(), "is also in "+path) {
		t.Errorf("two campaigns for one device: %v", err)
	}
	a := strings.Replace(ready, "# list = []", fmt.Sprintf("list = [%q]", deviceEUI(0)), 1)
	b := strings.Replace(strings.Replace(ready, "# list = []", fmt.Sprintf("list = [%q]", deviceEUI(1)), 1), `name = "Meters-of-the-city"`, `name = "second"`, 1)
	for i, text := range []string{a, b} {
		cut, _, _ := strings.Cut(text, "[[wave]]")
		_, radio, _ := strings.Cut(text, "[radio]")
		in.write(t, fmt.Sprintf("one%d.toml", i), cut+"[radio]"+radio)
	}
	out, _, err = verb(newPlanCommand(), append(config, in.file("one0.toml"), in.file("one1.toml"))...)
	if err != nil || !strings.Contains(out, "waits for the gateways behind campaign Meters-of-the-city") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Everything that is wrong is listed at once, with its line, and nothing was made on the server.
func TestPlanRefuses(t *testing.T) {
	in := install(t, func(c *networkserver.Config) {
		c.Faults.Outages = []networkserver.Outage{{Gateway: cellarID, From: time.Minute, Until: 99 * time.Hour}}
	})
	in.bundles(t, airtime.GPSSeconds(time.Now().Add(-time.Hour)))
	in.settle(t)
	path := in.write(t, "c.toml", `name = "m"
application = "`+meters+`"
target = 5
[[bundle]]
file = "full.sow"
[[bundle]]
file = "nowhere.sow"
[[bundle]]
file = "patch.sow"
base_image = "new.bin"
[[bundle]]
file = "patch.sow"
base_versions = ["0.9.0"]
[devices]
list = [
  "`+deviceEUI(0).String()+`",
  "`+deviceEUI(2).String()+`",
  "`+deviceEUI(3).String()+`",
  "70b3d57ed0ffffff",
]
[radio]
data_rate = 14
gateways = ["`+cellarID.String()+`", "0102030405060708"]
`)
	_, _, err := verb(newPlanCommand(), "--config", in.file("sower.toml"), path)
	if err == nil {
		t.Fatal("planned")
	}
	all := err.Error()
	for _, want := range []string{
		`c.toml:3: unknown key "target"; did you mean`,
		"c.toml:5: full.sow expired on ",
		"c.toml:7: bundle " + in.file("nowhere.sow") + ": no such file",
		"c.toml:10: base image " + in.file("new.bin") + " is not the one of the patch",
		"c.toml:12: patch.sow expired on ",
		"c.toml:17: no root key on the server: " + deviceEUI(2).String() + "; enter GenAppKey",
		"c.toml:18: never joined: " + deviceEUI(3).String(),
		"c.toml:19: device 70b3d57ed0ffffff does not exist in application",
		"c.toml:22: EU868 has no downlink data rate 14",
		"c.toml:23: gateway " + cellarID.String() + " (cellar) is offline",
		"c.toml:23: gateway 0102030405060708 does not exist",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	for _, line := range strings.Split(all, "\n")[1:] {
		if !strings.Contains(line, "; ") {
			t.Errorf("no remedy in %q", line)
		}
	}
	in.write(t, "c.toml", "name = \"m\"\napplication = \"no id\"\n[[bundle]]\nfile = \"full.sow\"\n")
	if _, _, err := verb(newPlanCommand(), "--config", in.file("sower.toml"), path); err == nil || !strings.Contains(err.Error(), "c.toml:2: application no id: ") {
		t.Errorf("an application that does not exist: %v", err)
	}
}

func TestPlanNeedsAKnownBase(t *testing.T) {
	in := install(t, nil)
	in.bundles(t, 0)
	in.settle(t)
	in.write(t, "inventory.csv", "dev_eui,version\n"+deviceEUI(0).String()+",0.9.0\n")
	path := in.write(t, "c.toml", "name = \"m\"\napplication = \""+meters+"\"\n[[bundle]]\nfile = \"patch.sow\"\nbase_image = \"old.bin\"\n[devices]\nlist = [\""+
		deviceEUI(0).String()+"\", \""+deviceEUI(1).String()+"\"]\n")
	_, _, err := verb(newPlanCommand(), "--config", in.file("sower.toml"), path)
	if err == nil {
		t.Fatal("planned")
	}
	for _, want := range []string{"c.toml:3: patch.sow is a patch against 1.0.0, which no device", "no bundle suits device " + deviceEUI(0).String() + " that run 0.9.0",
		"no bundle suits device " + deviceEUI(1).String() + " of unknown version"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}
