// Package fragmentation implements the forward error correction of LoRaWAN TS004 Fragmented
// Data Block Transport, versions 1.0.0 and 2.0.0 (FragAlgo 0): a data block becomes M uncoded
// fragments of equal size, and any number of parity fragments are XORs of a subset of those,
// chosen by a pseudo-random binary matrix that is a function of M and of the fragment number
// only. Any fragments whose matrix rows span all M columns restore the block.
//
// Fragments are named by the 14-bit number N of the DataFragment command throughout: 1..M are
// the uncoded fragments, M+1..16383 the parity fragments. Nothing here counts parity from 1.
//
// Three matrices exist and cannot be told apart on the air; mixing them corrupts the block
// without a trace until its integrity check. [Matrix] selects one and nothing here guesses.
//
// # Sending and receiving
//
// An [Encoder] yields any fragment of a block at any time; nothing is stored or made in order,
// so a top-up round simply asks for further numbers. A [Decoder] takes fragments in whatever
// order they arrive and knows at each moment the rank still missing. Sub-package fragfile keeps
// the fragments of a session in a file.
//
// # Planning
//
// A sound TS004 code equals a uniformly random one: a device needs 1.6 fragments more than M on
// average, and after M+e fragments about 2^-e of the devices are incomplete, whatever M and the
// loss. But not every M is sound. Multiples of 64 that are no power of two have two pairs of
// columns that nearly all rows keep together; a small M depends on the luck of its first rows;
// rows of V2 are all even where floor(M/2) is. [Inspect] finds such holes, [Measure] weighs
// them, [ParityList] chooses parity fragments around them, and [Choose] plans a transmission
// that avoids them and says why.
//
// [FragmentsFor], [FleetFragments] and [TopUp] compute how much to send; a [RankDecoder] simulates
// devices without payload, a million and more per second and core, and is what the formulas are
// checked against.
//
// # Not here
//
// There is no I/O, no clock, no goroutine and no hidden randomness: bytes in, fragments or a
// block out, and a seed where chance is wanted. The package does not know the TS004 commands,
// the 2-byte header of DataFragment, sessions, or the data block MIC; only the code. A restored
// block proves nothing until its integrity is checked.
package fragmentation
