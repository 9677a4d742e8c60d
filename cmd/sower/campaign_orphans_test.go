package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

// Groups that no campaign uses are found, and those that are named are deleted, and no others.
func TestCampaignOrphans(t *testing.T) {
	f := sow(t, 2)
	f.login(t)
	stop := f.start(t)
	defer stop()
	can(t, "create", f.write(t, "field.toml", fmt.Sprintf(fieldCampaign, meters, "")))
	s, err := (&siteFlags{file: f.file("sower.toml")}).open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.nw.Close()
	for i, name := range []string{"sower-field.1", "sower-lost.1", "sower-lost.2"} { // the first is that of the draft
		_, err := s.nw.OpenGroup(t.Context(), network.Group{Name: name, Application: meters, McAddr: uint32(i + 1), AppSKey: network.Key{1}, NwkSKey: network.Key{2}, Class: network.ClassC, Region: airtime.EU868.String(), DataRate: 3,
			Frequency: 869525000, Gateways: []network.EUI64{network.EUI64(roofID)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	config := f.file("sower.toml")
	if out := can(t, "orphans", "--config", config); strings.Contains(out, "field.1") || !strings.Contains(out, "sower-lost.1") || !strings.Contains(out, "sower-lost.2") {
		t.Errorf("orphans:\n%s", out)
	}
	if _, _, err := verb(newCampaignCommand(), "orphans", "--config", config, "--delete", "sower-lost.1", "--delete", "sower-field.1"); err == nil || !strings.Contains(err.Error(), "no orphan called sower-field.1") {
		t.Errorf("deletion of a group that is in use: %v", err)
	}
	if out := can(t, "orphans", "--config", config, meters, "--delete", "sower-lost.1"); !strings.Contains(out, "deleted") {
		t.Errorf("deletion:\n%s", out)
	}
	if out := can(t, "orphans", "--config", config, "--json"); strings.Contains(out, "lost.1") || !strings.Contains(out, "lost.2") {
		t.Errorf("after the deletion of one:\n%s", out)
	}
}

// The devices of a campaign are listed, those that a filter names.
func TestCampaignDevices(t *testing.T) {
	f := sow(t, 2)
	f.login(t)
	stop := f.start(t)
	defer stop()
	can(t, "create", f.write(t, "field.toml", fmt.Sprintf(fieldCampaign, meters, "")))
	if out := can(t, "devices", "field"); strings.Count(out, "discover") != 2 {
		t.Errorf("devices of a draft:\n%s", out)
	}
	if out := can(t, "devices", "field", "--filter", "stage=failed"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "DEV EUI") {
		t.Errorf("devices that have failed:\n%s", out)
	}
	if _, _, err := verb(newCampaignCommand(), "devices", "field", "--filter", "stage=nowhere"); err == nil {
		t.Error("a filter by a stage that there is not is accepted")
	}
}
