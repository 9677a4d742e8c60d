// Package traps holds no code but a proof: every known way in which ChirpStack v4 does something else than a client
// would think has a defence with a name, and a test that notices if the defence is gone. It runs the packages
// concerned against simulator/networkserver in virtual time, which copies those ways.
//
// go test runs each trap with its defence on. go test -tags traps also switches each defence off, alone, and
// requires the same test to fail: one that cannot fail proves nothing. Where the defence is not a piece of code but
// a choice, such as never to use a call, the test does what an unwary client would do in its place.
package traps
