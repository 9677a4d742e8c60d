//go:build !traps

package chirpstack

// defended reports whether the named defence against a trap of ChirpStack is on, which it always is: package
// engine/traps, built with the tag traps, switches each off in turn and requires a test to notice.
func defended(string) bool { return true }
