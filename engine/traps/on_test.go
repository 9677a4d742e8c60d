//go:build !traps

package traps_test

// canSwitchOff says whether the defences of the packages can be switched off in this build, and tests are to be run
// without them.
const canSwitchOff = false

func switchOff(string) (on func()) { return func() {} }
