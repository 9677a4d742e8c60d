package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/network"
)

func TestClassBCampaign(t *testing.T) {
	const head = "name = \"m\"\napplication = \"a\"\n[[bundle]]\nfile = \"x.sow\"\n[radio]\n"
	for _, tt := range []struct {
		text, problem string
		class         network.Class
		periodicity   config.Periodicity
	}{
		{"", "", network.ClassC, config.AutoPeriodicity},
		{"class = \"C\"\nping_slot_periodicity = \"auto\"\n", "", network.ClassC, config.AutoPeriodicity},
		{"class = \"B\"\n", "", network.ClassB, config.AutoPeriodicity},
		{"class = \"B\"\nping_slot_periodicity = 0\n", "", network.ClassB, 0},
		{"class = \"B\"\nping_slot_periodicity = 7\n", "", network.ClassB, 7},
		{"class = \"B\"\nping_slot_periodicity = 8\n", "c.toml:7: radio.ping_slot_periodicity: \"8\" is neither \"auto\" nor 0", network.ClassB, config.AutoPeriodicity},
		{"class = \"B\"\nping_slot_periodicity = -1\n", "c.toml:7: radio.ping_slot_periodicity: \"-1\" is neither", network.ClassB, config.AutoPeriodicity},
		{"class = \"A\"\n", "c.toml:6: radio.class: \"A\" is neither \"B\" nor \"C\"", network.ClassC, config.AutoPeriodicity},
		{"class = \"b\"\nping_slot_periodicity = 3\n", "c.toml:6: radio.class: \"b\" is neither \"B\" nor \"C\"", network.ClassC, 3},
		{"ping_slot_periodicity = 3\n", "c.toml:6: radio.ping_slot_periodicity is 3, but radio.class is \"C\"; write class = \"B\"", network.ClassC, 3},
	} {
		t.Run(fmt.Sprintf("%q", tt.text), func(t *testing.T) {
			c, d := config.ParseCampaign("c.toml", []byte(head+tt.text))
			if network.Class(c.Radio.Class) != tt.class || c.Radio.Periodicity != tt.periodicity {
				t.Errorf("class %c with periodicity %d, want %c with %d", c.Radio.Class, c.Radio.Periodicity, tt.class, tt.periodicity)
			}
			got := ""
			if err := d.Problems.Err(); err != nil {
				got = err.Error()
			}
			if tt.problem == "" && got != "" || !strings.HasPrefix(got, tt.problem) || len(d.Problems) > 1 {
				t.Errorf("%q; want only %q", got, tt.problem)
			}
		})
	}
}
