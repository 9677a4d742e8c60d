package config_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/config"
)

func TestTemplatesAreValid(t *testing.T) {
	s, d := config.ParseSettings("sower.toml", []byte(config.SettingsTemplate("127.0.0.1:8080", "mqtt://127.0.0.1:1883", "EU868", "sower.token")))
	if err := d.Problems.Err(); err != nil {
		t.Fatal(err)
	}
	if s.ChirpStack.Server != "127.0.0.1:8080" || s.ChirpStack.TokenFile != "sower.token" || s.Region != airtime.EU868 {
		t.Errorf("settings %+v", s)
	}
	s, d = config.ParseSettings("sower.toml", []byte(config.SettingsTemplate("127.0.0.1:8080", "mqtt://127.0.0.1:1883", "", "sower.token")))
	if err := d.Problems.Err(); err != nil || s.Region != 0 {
		t.Errorf("without a region: %s, %v", s.Region, err)
	}
	_, d = config.ParseCampaign("c.toml", []byte(config.CampaignTemplate("meters", "id", "Meters\nname = 3", []config.Bundle{{File: "a.sow", BaseImage: "old.bin"}})))
	if err := d.Problems.Err(); err != nil {
		t.Fatal(err)
	}
}

// optional is a line of a template that shows a default.
var optional = regexp.MustCompile(`(?m)^# ((\[\[)?[a-z_.]+(\]\]| = ).*)$`)

// Every line that is commented out can be switched on, and then says what was the default anyway.
func TestTemplatesShowTheDefaults(t *testing.T) {
	text := config.SettingsTemplate("127.0.0.1:8080", "mqtt://127.0.0.1:1883", "EU868", "sower.token")
	plain, _ := config.ParseSettings("f", []byte(text))
	text = strings.NewReplacer("# token_env", "## token_env", "# mqtt_password", "## mqtt_password").Replace(text)
	full, d := config.ParseSettings("f", []byte(optional.ReplaceAllString(text, "$1")))
	if err := d.Problems.Err(); err != nil {
		t.Fatal(err)
	}
	if plain.ChirpStack.Timeout != full.ChirpStack.Timeout || plain.ChirpStack.Margin != full.ChirpStack.Margin ||
		plain.ChirpStack.Topic != full.ChirpStack.Topic || plain.ChirpStack.ClientID != full.ChirpStack.ClientID ||
		plain.Airtime != full.Airtime || plain.Server != full.Server || plain.Inventory.VersionTag != full.Inventory.VersionTag ||
		plain.Inventory.HardwareTag != full.Inventory.HardwareTag {
		t.Errorf("the template shows other defaults than hold:\n%+v\n%+v", plain, full)
	}
	if len(full.Hardware) != 1 || full.Hardware[0].Slot != 65536 || len(full.Inventory.Uplinks) != 1 {
		t.Errorf("the examples were not read: %+v", full)
	}
	text = config.CampaignTemplate("meters", "id", "Meters", nil)
	one, _ := config.ParseCampaign("f", []byte(text))
	raw := strings.NewReplacer("file = \"update.sow\"", "raw = \"file.bin\"", "# [[bundle]]", "", "# file", "##", "# raw =", "##", "# version", "##", "# f_port", "##", "# bytes", "##", "# tag =", "##",
		"# offset", "##", "# uplinks", "##", "# resets", "##", "# min_battery", "##", "# base_", "##", "# start", "##", "# utc_offset", "##").Replace(text)
	block, d := config.ParseCampaign("f", []byte(optional.ReplaceAllString(raw, "$1")))
	if err := d.Problems.Err(); err != nil || block.Proof != one.Proof || block.Raw != one.Raw || block.Raw != (config.RawLimits{}) || !d.Has("raw.max_redundancy") || !d.Has("proof.by") {
		t.Errorf("%v: raw block %+v %+v", err, block.Proof, block.Raw)
	}
	text = strings.NewReplacer("# start", "## start", "# [[bundle]]", "", "# file", "##", "# base_versions", "##",
		"# raw", "##", "# version =", "##", "# by =", "##", "# f_port", "##", "# offset", "##", "# bytes", "##", "# tag =", "##", "# max_fragment", "##", "# max_redundancy", "##",
		"# utc_offset", "## utc_offset", "# silence", "## silence").Replace(text) // examples, and what follows from another
	all, d := config.ParseCampaign("f", []byte(optional.ReplaceAllString(text, "$1")))
	if err := d.Problems.Err(); err != nil {
		t.Fatal(err)
	}
	if one.Target != all.Target || one.Timing != all.Timing || one.Energy != all.Energy || one.Radio.DataRate != all.Radio.DataRate ||
		one.Repair != all.Repair || one.Proof != all.Proof || one.Policy.Approvals != all.Policy.Approvals || one.Policy.FourEyes != all.Policy.FourEyes ||
		one.Waves[0].Soak != all.Waves[0].Soak || one.Waves[1].Gate != all.Waves[1].Gate {
		t.Errorf("the template shows other defaults than hold:\n%+v\n%+v", one, all)
	}
	if w := all.Maintenance.Windows; len(w) != 1 || w[0].Days[0] != config.Weekday(time.Saturday) || time.Duration(w[0].To) != 5*time.Hour {
		t.Errorf("the example of a maintenance window was read as %+v", w)
	}
	// Where a limit is not written, the domain has the default; the template must show the same.
	if l := all.Policy.Limits; *l.MinSuccess != 90 || *l.MaxFailure != 10 || *l.MaxSilence != 5 || *l.MinSamples != 10 || one.Policy.MinSuccess != nil {
		t.Errorf("limits %+v", l)
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	const text = `name = "a b"
application = 7
target_percent = 100
aplication = "x"

[[bundle]]
base_image = "old.bin"

[devices]
list = [
  "70b3d57ed0000001",
  "70b3d57ed000",
]
versions = ["1.0"]
exclude = "none"

[[wave]]
name = "canary"
percent = 20
[[wave]]
name = "canary"
percent = 5
hardware = [70000]

[radio]
data_rte = 3
data_rate = "fast"
packages = "v3"
[timing]
uplink_interval = 3600
[energy]
receive_ma = "six"
`
	_, d := config.ParseCampaign("c.toml", []byte(text))
	err := d.Problems.Err()
	if err == nil {
		t.Fatal("no problems")
	}
	all := err.Error()
	for _, want := range []string{
		`c.toml:1: name is "a b"; write up to 64`,
		`c.toml:2: application is 7; write a string`,
		`c.toml:3: target_percent is 100;`,
		`c.toml:4: unknown key "aplication"; did you mean "application"?`,
		`c.toml:6: bundle[0].file is missing;`,
		`c.toml:12: devices.list[1]: network: EUI "70b3d57ed000" has 12 digits`,
		`c.toml:14: devices.versions[0]: bundle: version "1.0"`,
		`c.toml:15: devices.exclude is "none"; write a list`,
		`c.toml:21: two waves are called "canary"`,
		`c.toml:22: wave[1].percent is 5 after 20`,
		`c.toml:23: wave[1].hardware[0] is 70000; write a whole number, 0..65535`,
		`c.toml:26: unknown key "radio.data_rte"; did you mean "data_rate"?`,
		`c.toml:27: radio.data_rate: "fast" is neither "auto" nor`,
		`c.toml:28: radio.packages: "v3"`,
		`c.toml:30: timing.uplink_interval: "3600" is no duration`,
		`c.toml:32: energy.receive_ma is "six"; write a number`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	if n := len(d.Problems); n != 16 {
		t.Errorf("%d problems, want 16:\n%s", n, all)
	}
	if !strings.HasPrefix(all, "16 problems\n") {
		t.Errorf("the number of problems is not said: %s", all)
	}
}

func TestSettingsRefuse(t *testing.T) {
	const good = "[chirpstack]\nserver = \"127.0.0.1:8080\"\ntoken_file = \"t\"\nmqtt = \"mqtt://127.0.0.1:1883\"\n"
	tests := []struct{ name, text, want string }{
		{"nothing", "", "chirpstack.server is missing"},
		{"token inline", good + "token = \"hush\"\n", "name that in token_file"},
		{"password in the address", "[chirpstack]\nmqtt = \"mqtt://me:hush@host:1883\"\n", "mqtt_username"},
		{"two tokens", good + "token_env = \"T\"\n", "both token_file and token_env"},
		{"no such region", good + "region = \"EU869\"\n", `no region "EU869"`},
		{"half a key file", good + "keys_file = \"k\"\n", "go together"},
		{"gateways without a broker", strings.Replace(good, "mqtt =", "http_secret_env = \"H\"\n# mqtt =", 1) + "gateway_topics = \"eu868\"\n", "gateway_topics needs a broker"},
		{"webhook without a secret", good + "[server]\nwebhook = \"https://h/\"\n", "nothing names the secret of the webhook"},
		{"certificate without a key", good + "[server]\ntls_cert = \"c\"\n", "a certificate and its key go together"},
		{"log kept for less than nothing", good + "[server]\nkeep_log_days = -1\n", "server.keep_log_days is -1"},
		{"zero share", good + "[airtime]\nshare_percent = 0\n", "airtime.share_percent is 0"},
		{"negative time-out", good + "timeout = \"-1s\"\n", "chirpstack.timeout is -1s"},
		{"rule without a port", good + "[[inventory.uplink]]\nfact = \"version\"\n", "inventory.uplink[0].f_port is 0"},
		{"hardware twice", good + strings.Repeat("[[hardware]]\nid = 1\nslot_bytes = 1\ndownload_bytes = 1\nram_bytes = 1\n", 2), "hardware id 1 is described twice"},
		{"hardware without a slot", good + "[[hardware]]\nid = 1\n", "hardware[0].slot_bytes is missing"},
		{"no TOML", good + "region EU868\n", "f:5: "},
		{"table twice", good + "[chirpstack]\n", "f:5: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, d := config.ParseSettings("f", []byte(tt.text))
			err := d.Problems.Err()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hush") {
				t.Errorf("%v shows a secret", err)
			}
		})
	}
}

func TestCampaignValues(t *testing.T) {
	c, d := config.ParseCampaign("c.toml", []byte(`
name = "m"
application = "a"
start = 2027-01-31T22:00:00+01:00
[[bundle]]
file = "x.sow"
base_versions = ["1.2.3"]
[radio]
data_rate = 5
packages = "v1"
[timing]
uplink_interval = "90s"
[[wave]]
name = "w"
tags = { site = "north" }
`))
	if err := d.Problems.Err(); err != nil {
		t.Fatal(err)
	}
	if !c.Start.Equal(time.Date(2027, 1, 31, 21, 0, 0, 0, time.UTC)) || c.Radio.DataRate != 5 || c.Radio.Packages != 1 ||
		time.Duration(c.Timing.UplinkInterval) != 90*time.Second || c.Waves[0].Tags["site"] != "north" ||
		bundle.Version(c.Bundles[0].BaseVersions[0]) != bundle.MakeVersion(1, 2, 3) {
		t.Errorf("campaign %+v", c)
	}
	for key, want := range map[string]int{"name": 2, "bundle[0].file": 6, "bundle[0].base_versions[0]": 7, "radio.frequency_hz": 8, "wave[0].tags.site": 15, "energy": 0} {
		if got := d.Line(key); got != want {
			t.Errorf("%s is on line %d, want %d", key, got, want)
		}
	}
}

func FuzzParseCampaign(f *testing.F) {
	f.Add([]byte(config.CampaignTemplate("m", "id", "Meters", nil)))
	f.Add([]byte("[[wave]]\na.b = [{c=1}, 2]\n[wave.x]\n"))
	f.Add([]byte("[[a]]\n[[a.b]]\nx=[[1],[2,\n3]]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, d := config.ParseCampaign("f", text)
		lines := strings.Count(string(text), "\n") + 1
		for _, p := range d.Problems {
			if p.Line < 0 || p.Line > lines || p.Text == "" || p.Remedy == "" {
				t.Errorf("problem %+v in a file of %d lines", p, lines)
			}
		}
	})
}

func TestRawBlock(t *testing.T) {
	const head = "name = \"m\"\napplication = \"a\"\n[[bundle]]\nraw = \"x.bin\"\n"
	c, d := config.ParseCampaign("c.toml", []byte(head+"version = \"1.2.3\"\n[proof]\nby = \"uplink\"\nf_port = 2\noffset = 1\nbytes = \"00fF\"\n[raw]\nmax_fragments = 21\nmax_fragment_bytes = 50\nmax_redundancy = 5\n"))
	if err := d.Problems.Err(); err != nil {
		t.Fatal(err)
	}
	if !c.IsRaw() || *c.Bundles[0].Version != config.Version(bundle.MakeVersion(1, 2, 3)) || c.Raw != (config.RawLimits{Fragments: 21, FragSize: 50, Redundancy: 5}) ||
		c.Proof.By != config.ProofByUplink || c.Proof.FPort != 2 || c.Proof.Offset != 1 || c.Proof.Bytes != "\x00\xff" {
		t.Errorf("%+v", c)
	}
	for _, tt := range []struct{ text, want string }{
		{head + "file = \"x.sow\"\n", "c.toml:4: bundle[0] has both file and raw; keep file"},
		{head + "[[bundle]]\nfile = \"x.sow\"\n", "c.toml:4: bundle[0] is a raw block beside 1 other bundle; nothing tells"},
		{head + "base_versions = [\"1.0.0\"]\n", "c.toml:5: bundle[0].base_versions is for patches"},
		{head + "base_image = \"o\"\n", "c.toml:5: bundle[0].base_image is for patches"},
		{head + "[proof]\nby = \"version\"\n", "c.toml:3: proof.by is \"version\", but bundle[0].version is missing; add version ="},
		{head + "[proof]\nby = \"luck\"\n", "c.toml:6: proof.by: \"luck\" is neither"},
		{head + "[proof]\nby = \"uplink\"\nbytes = \"01\"\n", "c.toml:5: proof.f_port is 0; write the FPort"},
		{head + "[proof]\nby = \"uplink\"\nf_port = 224\nbytes = \"01\"\n", "c.toml:7: proof.f_port is 224; write the FPort"},
		{head + "[proof]\nby = \"uplink\"\nf_port = 2\n", "c.toml:5: proof.bytes is missing"},
		{head + "[proof]\nby = \"uplink\"\nf_port = 2\nbytes = \"1\"\n", "c.toml:8: proof.bytes: \"1\" are no bytes"},
		{head + "[proof]\nby = \"uplink\"\nf_port = 2\nbytes = \"01\"\noffset = 242\n", "c.toml:9: proof.offset is 242"},
		{head + "[proof]\nby = \"tag\"\n", "c.toml:5: proof.tag is \"\" and names no tag; add tag ="},
		{head + "[proof]\nby = \"tag\"\ntag = \"=2\"\n", "c.toml:7: proof.tag is \"=2\" and names no tag"},
		{head + "[proof]\nby = \"uplink\"\nf_port = 2\nbytes = \"01\"\ntag = \"fw=2\"\n", "c.toml:9: proof.tag belongs to proof.by = \"tag\", which is \"uplink\""},
		{strings.Replace(head, "raw =", "file =", 1) + "[proof]\ntag = \"fw=2\"\n", "c.toml:6: proof.tag is for raw blocks"},
		{head + "[proof]\nf_port = 2\n", "c.toml:6: proof.f_port belongs to proof.by"},
		{head + "[proof]\nuplinks = 3\n", "c.toml:6: proof.uplinks has no effect with proof.by = \"block\""},
		{head + "[energy]\nmin_battery_percent = 3\n", "c.toml:6: energy.min_battery_percent has no effect"},
		{head + "[raw]\nmax_fragment_bytes = 256\n", "c.toml:6: raw.max_fragment_bytes is 256; write 1..255"},
		{head + "[raw]\nmax_fragment_bytes = 50\n[radio]\nfragment_bytes = 51\n", "c.toml:8: radio.fragment_bytes is 51, the devices hold"},
		{strings.Replace(head, "raw =", "file =", 1) + "[raw]\nmax_redundancy = 5\n", "c.toml:6: raw.max_redundancy is for raw blocks, and the campaign sends signed"},
		{strings.Replace(head, "raw =", "file =", 1) + "[proof]\nby = \"block\"\n", "c.toml:6: proof.by is for raw blocks"},
		{strings.Replace(head, "raw =", "file =", 1) + "version = \"1.2.3\"\n", "c.toml:5: bundle[0].version is for raw blocks"},
	} {
		_, d := config.ParseCampaign("c.toml", []byte(tt.text))
		err := d.Problems.Err()
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: %v; want only %q", tt.text, err, tt.want)
		}
	}
}
