// Package experiment asks how a firmware broadcast over LoRaWAN goes, in numbers: seeded Monte Carlo runs of fleets of
// thousands to millions of devices with the exact erasure code of TS004, sweeps over any parameter, statistics, plots,
// and the published results that the model has to reproduce.
//
// A [Scenario] describes the block, the air, the losses, the code and the policy of the server. [Points] expands its
// sweep. [Run] executes it in cells, one for each (point, repetition), into a folder of CSV and JSON lines; any number
// of workers, any split into shards ([Merge]) and any interruption give the same bytes. A [Simulator] runs one cell.
//
// To compare an idea of one's own, implement [Code] or [Policy] and add it to [Codes] or [Policies].
//
// # Three depths
//
// "rank" decides by linear algebra alone whether a device is complete, which is exact. "bytes" gives real fragments to
// the real decoder of package fragmentation and must agree on every device. "table" draws from the distribution that
// exact runs have built, for fleets of many millions; its distance to the exact distribution is part of the result.
//
// # Randomness
//
// A device's losses belong to (seed, repetition, device, fragment, copy), see package radio. Points of a sweep share
// them, so that differences between points are due to what was swept. Results are integers or are computed from them
// without fused operations.
//
// # Not modelled
//
// Demodulation and interference below the level of frames, collisions between answers, joins and the unicast exchanges
// before a session (class C of the FUOTAA comparison apart), class B drift, flash and its energy, NB-IoT. Packages
// radio, fleet and networkserver go deeper, for thousands of devices: frames in virtual time, with interference and
// capture, several gateways, real decoders or the device library in C, and agree with this one on the same losses.
package experiment
