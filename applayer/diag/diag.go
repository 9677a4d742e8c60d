// Package diag is sower's diagnostic package: one small uplink message in which a device says at which
// step of an update it is, and why it stopped.
//
// TS004 and TS006 have status bits for a handful of failures; everything else ("the patch is for another
// base", "the signature does not verify", "the new image failed its self-test") would be silence. The
// package runs on its own FPort, is sent unsolicited when step or cause changes, and on request. Step and
// cause codes come from one registry, causes.tsv, which also feeds the C enum of the device library.
//
// The package encodes and decodes; when a device reports and what a server does about it is decided elsewhere.
package diag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

//go:generate go run ./internal/gen

const (
	// FPort is the default port of the package; it is free in TS003–TS007 and configurable.
	FPort = 204
	// ReportSize is the length of a report in bytes, CID included: it fits the smallest LoRaWAN payload (11).
	ReportSize = 10

	cidReportReq = 0x01
	cidReport    = 0x01
)

// ErrFormat is returned by [ParseReport] and [ParseReportReq] for bytes that are no message of this package.
var ErrFormat = errors.New("diag: not a diagnostic message")

// Step says how far an update has come on a device.
type Step uint8

// Cause says why a device stopped or put off an update. Causes from 64 on are the engine's own findings.
type Cause uint8

type info struct{ name, meaning, remedy string }

// String returns the stable name of the step, or "STEP_n" for a code from a newer registry.
func (s Step) String() string {
	if i, ok := steps[s]; ok {
		return i.name
	}
	return fmt.Sprintf("STEP_%d", uint8(s))
}

// Meaning says what the step means, in a few words for a person; it is empty for an unknown code.
func (s Step) Meaning() string { return steps[s].meaning }

// String returns the stable name of the cause, or "CAUSE_n" for a code from a newer registry.
func (c Cause) String() string {
	if i, ok := causes[c]; ok {
		return i.name
	}
	return fmt.Sprintf("CAUSE_%d", uint8(c))
}

// Meaning says what happened, in a few words for a person; it is empty for an unknown code.
func (c Cause) Meaning() string { return causes[c].meaning }

// Remedy says what an operator can do about it; it is empty for an unknown code.
func (c Cause) Remedy() string { return causes[c].remedy }

// Causes returns every registered cause, by code.
func Causes() []Cause { return slices.Sorted(maps.Keys(causes)) }

// Report is the uplink of the package. Integers are little endian.
//
//	off  len  field    meaning
//	  0    1  CID      0x01
//	  1    1  Step     registry code
//	  2    1  Cause    registry code
//	  3    2  Detail   depends on the cause: fragments missing, percent of battery, port error …
//	  5    4  Version  FWversion now running (TS006 DevVersionAns)
//	  9    1  Session  bits 1:0 FragIndex, bits 7:2 low six bits of SessionCnt
type Report struct {
	Step    Step
	Cause   Cause
	Detail  uint16
	Version uint32
	Session uint8
}

// AppendReport appends the encoding of r to dst.
func AppendReport(dst []byte, r Report) []byte {
	dst = append(dst, cidReport, uint8(r.Step), uint8(r.Cause))
	dst = binary.LittleEndian.AppendUint16(dst, r.Detail)
	dst = binary.LittleEndian.AppendUint32(dst, r.Version)
	return append(dst, r.Session)
}

// ParseReport decodes the first message of b and returns the bytes after it.
func ParseReport(b []byte) (r Report, rest []byte, err error) {
	if len(b) < ReportSize {
		return Report{}, nil, fmt.Errorf("%w: %d bytes, want at least %d", ErrFormat, len(b), ReportSize)
	}
	if b[0] != cidReport {
		return Report{}, nil, fmt.Errorf("%w: CID 0x%02x, want 0x%02x", ErrFormat, b[0], cidReport)
	}
	return Report{
		Step:    Step(b[1]),
		Cause:   Cause(b[2]),
		Detail:  binary.LittleEndian.Uint16(b[3:]),
		Version: binary.LittleEndian.Uint32(b[5:]),
		Session: b[9],
	}, b[ReportSize:], nil
}

// AppendReportReq appends the request for a report, a downlink of one byte (CID 0x01), to dst.
func AppendReportReq(dst []byte) []byte { return append(dst, cidReportReq) }

// ParseReportReq checks that b starts with a request and returns the bytes after it.
func ParseReportReq(b []byte) (rest []byte, err error) {
	if len(b) == 0 || b[0] != cidReportReq {
		return nil, fmt.Errorf("%w: no ReportReq", ErrFormat)
	}
	return b[1:], nil
}
