package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/simulator/rehearse"
)

// A campaign that could be sent is rehearsed instead: on the devices of the inventory, and nothing of it reaches the
// network server.
func TestRehearseCampaign(t *testing.T) {
	t.Parallel()
	in := install(t, nil)
	in.bundles(t, 0)
	in.settle(t)
	path := in.write(t, "c.toml", "name = \"m\"\napplication = \""+meters+"\"\n[[bundle]]\nfile = \"patch.sow\"\nbase_image = \"old.bin\"\n[devices]\nlist = [\""+
		deviceEUI(0).String()+"\", \""+deviceEUI(1).String()+"\"]\n[[wave]]\nname = \"canary\"\ncount = 1\n[[wave]]\nname = \"rest\"\npercent = 100\n")
	config := []string{"--config", in.file("sower.toml")}
	out, _, err := verb(newRehearseCommand(), append(config, path, "--json", "--log", in.file("log.jsonl"))...)
	if err != nil {
		t.Fatal(err)
	}
	var r rehearse.CampaignReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if !r.Ran || r.Progress.Updated != 2 || len(r.Progress.Sessions) != 2 || r.Airtime == 0 {
		t.Errorf("%+v", r.Progress)
	}
	for _, d := range r.Devices {
		if d.Runs != 0x01010000 {
			t.Errorf("device %s runs %08x", d.EUI, d.Runs)
		}
	}
	log, err := os.ReadFile(in.file("log.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"kind":"broadcast"`, `"kind":"wave"`, `"text":"rest"`, `"stage":"updated"`} {
		if !strings.Contains(string(log), want) {
			t.Errorf("no %s in the log", want)
		}
	}
	// What was rehearsed can still be planned: there is no group of that name on the server.
	if _, _, err := verb(newPlanCommand(), append(config, path)...); err != nil {
		t.Error(err)
	}
	out, progress, err := verb(newRehearseCommand(), append(config, path, "--down-loss", "3")...)
	if err != nil || !strings.Contains(out, "campaign m: 2 of 2 devices updated") || !strings.Contains(progress, "wave rest") {
		t.Errorf("%v\n%s\n%s", err, out, progress)
	}
	for _, args := range [][]string{{path, "--devices", "3"}, {path, "--down-loss", "-1"}} {
		if _, _, err := verb(newRehearseCommand(), append(config, args...)...); err == nil || !strings.Contains(err.Error(), args[1]) {
			t.Errorf("rehearse %v: %v", args, err)
		}
	}
	if _, _, err := verb(newRehearseCommand(), append(config, path, "--log", in.file("log.jsonl"))...); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("a log that exists: %v", err)
	}
}

// A raw block is rehearsed on models of the stock stacks: without a proof it ends unproven, which is no failure, and
// builds that have no room for it fail with that cause.
func TestRehearseRawBlock(t *testing.T) {
	t.Parallel()
	in := install(t, nil)
	in.settle(t)
	in.write(t, "block.bin", strings.Repeat("for another stack ", 60))
	campaign := "name = \"r\"\napplication = \"" + meters + "\"\n[[bundle]]\nraw = \"block.bin\"\n[radio]\ndata_rate = 5\npackages = \"v1\"\n[devices]\nlist = [\"" +
		deviceEUI(0).String() + "\", \"" + deviceEUI(1).String() + "\"]\n[[wave]]\nname = \"all\"\npercent = 100\n"
	path := in.write(t, "r.toml", campaign+"[raw]\nmax_fragments = 40\nmax_fragment_bytes = 50\nmax_redundancy = 20\n")
	config := []string{"--config", in.file("sower.toml")}
	rehearsal := func(args ...string) (out string, err error) {
		out, _, err = verb(newRehearseCommand(), append(config, args...)...)
		return out, err
	}
	out, err := rehearsal(path, "--stack", "loramac-node,basics-modem", "--burst-time", "5s")
	if err != nil || !strings.Contains(out, "campaign r: 0 of 2 devices updated, 2 hold the block, unproven,") || strings.Contains(out, "do not hold") {
		t.Errorf("%v\n%s", err, out)
	}
	uplink := in.write(t, "u.toml", strings.Replace(campaign, "[[wave]]", "[proof]\nby = \"uplink\"\nf_port = 9\nbytes = \"1701\"\n[[wave]]", 1)+
		"[raw]\nmax_fragments = 40\nmax_fragment_bytes = 50\nmax_redundancy = 20\n")
	if out, err := rehearsal(uplink, "--json"); err != nil || !strings.Contains(out, `"updated": 2`) || strings.Contains(out, `"unproven"`) {
		t.Errorf("%v\n%s", err, out)
	}
	small := in.write(t, "s.toml", campaign) // stock LoRaMac-node holds 21 fragments of 50 bytes
	if out, err := rehearsal(small); err == nil || !strings.Contains(out, "NO_RAM") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, tt := range []struct {
		say  string
		args []string
	}{
		{`--stack "mbed", want`, []string{path, "--stack", "mbed"}},
		{"both or neither", []string{path, "--outage-every", "1h"}},
		{"burst time 1ms", []string{path, "--burst-time", "1ms"}},
	} {
		if _, err := rehearsal(tt.args...); err == nil || !strings.Contains(err.Error(), tt.say) {
			t.Errorf("%v, want %q", err, tt.say)
		}
	}
}

// A campaign over two regions is rehearsed in both at once.
func TestRehearseTwoRegions(t *testing.T) {
	t.Parallel()
	m := newMixture(t, nil)
	out, _, err := verb(newRehearseCommand(), "--config", m.file("sower.toml"), m.file("mixed.toml"), "--json")
	if err != nil {
		t.Fatal(err)
	}
	var r rehearse.CampaignReport
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if !r.Ran || r.Progress.Updated != len(m.library) || len(r.Devices) != len(m.library) {
		t.Errorf("%d devices, %+v", len(r.Devices), r.Progress)
	}
	for _, d := range r.Devices {
		if d.Runs != uint32(m.target) {
			t.Errorf("device %s of %s runs %08x", d.EUI, m.library[d.EUI].region, d.Runs)
		}
	}
}
