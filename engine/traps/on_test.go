//go:build !traps

package traps_test

// canSwitchOff says whether the defences of the packages can be switched off in this build.
const canSwitchOff = false

func switchOff(string) (on func()) { return func() {} }
