// Package traps holds no code but a proof: every known way in which ChirpStack v4 does something else than a client
// would think has a defence with a name, and a test that notices if the defence is gone. It runs the packages
// concerned against simulator/networkserver in virtual time, which copies those ways.
//
// go test runs each trap with its defence on. go test -tags traps also switches each defence off, alone, and
// requires the same test to fail: one that cannot fail proves nothing. Where the defence is not a piece of code but
// a choice, such as never to use a call, or is how a state machine works, the test does what an unwary client would
// do in its place.
//
// Traps are numbered by what they belong to: 0 what decides the design, 1 the API (1 access, 2 lists, 3 devices,
// 4 multicast groups, 6 versions), 2 the multicast queue (1 gateways, 2 times, 3 scheduler, 4 acknowledgements,
// 6 pacing), 3 events (1 MQTT, 2 delivery, 3 HTTP, 4 streams, 5 content), 4 ChirpStack's own FUOTA and the
// chirpstack-fuota-server, 5 what users report, 6 errors and behaviour of the server (1 codes, 2 the rest).
package traps
