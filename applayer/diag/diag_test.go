package diag_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/sower-fuota/sower/applayer/diag"
)

func TestReport(t *testing.T) {
	r := diag.Report{Step: diag.StepManifest, Cause: diag.CauseBaseMismatch, Detail: 0x1234, Version: 0x01010003, Session: 0x85}
	b := diag.AppendReport([]byte{0xee}, r)
	want := []byte{0xee, 0x01, 3, 13, 0x34, 0x12, 0x03, 0x00, 0x01, 0x01, 0x85}
	if !bytes.Equal(b, want) {
		t.Fatalf("encoded % x, want % x", b, want)
	}
	got, rest, err := diag.ParseReport(append(b[1:], 0x77))
	if err != nil || got != r || !bytes.Equal(rest, []byte{0x77}) {
		t.Errorf("decoded %+v, rest % x, %v", got, rest, err)
	}
	for _, bad := range [][]byte{nil, b[1:10], append([]byte{2}, b[2:]...)} {
		if _, _, err := diag.ParseReport(bad); !errors.Is(err, diag.ErrFormat) {
			t.Errorf("ParseReport(% x) = %v, want %v", bad, err, diag.ErrFormat)
		}
	}
	if _, err := diag.ParseReportReq(diag.AppendReportReq(nil)); err != nil {
		t.Error(err)
	}
	if _, err := diag.ParseReportReq([]byte{9}); !errors.Is(err, diag.ErrFormat) {
		t.Errorf("ParseReportReq(09) = %v, want %v", err, diag.ErrFormat)
	}
}

// Every cause that an operator can meet says what happened and what to do.
func TestCausesAreExplained(t *testing.T) {
	if !slices.IsSorted(diag.Causes()) {
		t.Error("the causes are not in the order of their codes")
	}
	for _, c := range diag.Causes() {
		if c.Meaning() == "" || c.Remedy() == "" {
			t.Errorf("%s is not explained", c)
		}
	}
	if got := diag.Cause(63).String(); got != "CAUSE_63" {
		t.Errorf("an unknown cause prints as %q", got)
	}
}

func FuzzParseReport(f *testing.F) {
	f.Add(diag.AppendReport(nil, diag.Report{Step: 1, Cause: 2, Detail: 3, Version: 4, Session: 5}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, rest, err := diag.ParseReport(b)
		if err == nil && !bytes.Equal(append(diag.AppendReport(nil, r), rest...), b) {
			t.Fatalf("% x does not encode back", b)
		}
	})
}
