//go:build traps

package traps_test

import (
	"strings"

	"github.com/sower-fuota/sower/integrations/chirpstack"
)

// canSwitchOff says whether the defences of the packages can be switched off in this build, and tests are to be run
// without them.
const canSwitchOff = true

// switchOff switches off the defence "PACKAGE NAME".
func switchOff(defence string) (on func()) {
	pkg, name, _ := strings.Cut(defence, " ")
	off := map[string]func(string){"chirpstack": chirpstack.SwitchOff}[pkg]
	if off == nil {
		panic("no package " + pkg + " has defences")
	}
	off(name)
	return func() { off("") }
}
