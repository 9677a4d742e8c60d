package main

import (
	"strings"
	"testing"

	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

// Without a region in the settings every device is served in that of its profile; doctor and plan say which that is.
func TestTwoRegions(t *testing.T) {
	t.Parallel()
	m := newMixture(t, nil)
	in, at := m.installation, []string{"--config", m.file("sower.toml")}
	r, _ := doctor(t, in, "--listen", "1ms")
	for _, want := range []string{"meter EU868, EU868", "meter US915, US915"} {
		if r.state("device profile", want) != "ok" {
			t.Errorf("doctor does not say %q: %+v", want, r.Checks)
		}
	}
	devices, _, err := verb(newDevicesCommand(), at...)
	if err != nil || strings.Count(devices, " EU868 ") != 18 || strings.Count(devices, " US915 ") != 12 {
		t.Errorf("devices: %v\n%s", err, devices)
	}
	if r.state("region", "") != "missing" {
		t.Errorf("doctor finds fault with a region: %+v", r.Checks)
	}
	out, _, err := verb(newPlanCommand(), append(at, m.file("mixed.toml"))...)
	for _, want := range []string{"24 devices to version 2.0.0", " EU868 DR", " US915 DR", mastUS.String() + ", US915: at most ", "in any hour; there is no duty cycle",
		roofEU.String() + ", EU868 sub-band g3: at most "} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("plan does not say %q: %v\n%s", want, err, out)
		}
	}
	// A file of before, which names the one region that there was, is still good, and says what is in its way.
	old := strings.Replace(m.settings(t), "[chirpstack]\n", "[chirpstack]\nregion = \"EU868\"\n", 1)
	m.write(t, "sower.toml", old)
	if r, _ := doctor(t, in, "--listen", "1ms"); r.state("region", "meter US915 is of US915, and no other region than EU868") != "failed" {
		t.Errorf("doctor: %+v", r.Checks)
	}
	_, _, err = verb(newPlanCommand(), append(at, m.file("mixed.toml"))...)
	if problems, _ := err.(config.Problems); len(problems) != 1 || !strings.Contains(problems[0].Text, "meter US915 is of US915") || !strings.Contains(problems[0].Remedy, "take region out") {
		t.Errorf("plan where only EU868 is wanted: %v", err)
	}
	if out, _, err := verb(newPlanCommand(), append(at, m.file("stock.toml"))...); err != nil || strings.Contains(out, "US915") {
		t.Errorf("a campaign of EU868 where only that is wanted: %v\n%s", err, out)
	}
}

// A region without a gateway is found before anything is sent.
func TestRegionWithoutGateway(t *testing.T) {
	t.Parallel()
	m := newMixture(t, func(c *networkserver.Config) {
		c.Faults.Outages = []networkserver.Outage{{Gateway: mastUS, From: 1, Until: 1 << 60}}
	})
	if r, _ := doctor(t, m.installation, "--listen", "1ms"); r.state("region", "no gateway of US915 is online, where the devices of profile meter US915 work") != "failed" {
		t.Errorf("doctor: %+v", r.Checks)
	}
}
