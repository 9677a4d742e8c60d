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
// The package contains no I/O, no clock, no goroutine and no hidden randomness: bytes in,
// fragments or a block out. It does not know the TS004 commands, sessions or the data block
// MIC; only the code.
package fragmentation
