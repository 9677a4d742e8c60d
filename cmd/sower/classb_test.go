package main

import (
	"strings"
	"testing"

	"github.com/sower-fuota/sower/simulator/networkserver"
)

// A campaign in ping slots is planned, compared with one of class C, and rehearsed; a profile without class B stands
// against it.
func TestClassBCampaign(t *testing.T) {
	t.Parallel()
	text := "name = \"m\"\napplication = \"" + meters + "\"\n[[bundle]]\nfile = \"patch.sow\"\nbase_image = \"old.bin\"\n[devices]\nlist = [\"" +
		deviceEUI(0).String() + "\", \"" + deviceEUI(1).String() + "\"]\n[radio]\nclass = \"B\"\nping_slot_periodicity = 2\n"
	in := install(t, func(cfg *networkserver.Config) { cfg.Profiles[0].ClassB = true })
	in.bundles(t, 0)
	in.settle(t)
	args := []string{"--config", in.file("sower.toml"), in.write(t, "c.toml", text)}
	out, _, err := verb(newPlanCommand(), args...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"; class B with a ping slot every 3.84s (periodicity 2), window 128·2^", "class C would take ", ": class B is cheaper in energy",
		"class B works only through gateways that send beacons"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, _, err := verb(newRehearseCommand(), args...); err != nil || !strings.Contains(out, "campaign m: 2 of 2 devices updated") {
		t.Errorf("%v\n%s", err, out)
	}
	// Class C says what class B would take, at the planner's choice of slots.
	c := in.write(t, "c.toml", strings.Replace(text, "class = \"B\"\nping_slot_periodicity = 2\n", "class = \"C\"\n", 1))
	if out, _, err := verb(newPlanCommand(), "--config", in.file("sower.toml"), c); err != nil || !strings.Contains(out, "; class C, window 2^") ||
		!strings.Contains(out, "class B (ping_slot_periodicity = ") || !strings.Contains(out, ") is cheaper in energy") {
		t.Errorf("%v\n%s", err, out)
	}

	in = install(t, nil)
	in.bundles(t, 0)
	in.settle(t)
	path := in.write(t, "c.toml", text)
	if _, _, err := verb(newPlanCommand(), "--config", in.file("sower.toml"), path); err == nil ||
		!strings.HasPrefix(err.Error(), path+":9: device profile meter has no class B, so its devices would not take part; switch class B on") {
		t.Errorf("%v", err)
	}
}
