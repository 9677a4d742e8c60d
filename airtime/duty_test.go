package airtime

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

var start = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

// newTestLedger has a window of 40 ns and an allowance of 10 ns, small enough to try every instant.
func newTestLedger(t *testing.T) *Ledger {
	t.Helper()
	l, err := NewLedger(10, 40)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// admits decides by looking at every nanosecond whether a frame fits in with what a ledger holds.
func admits(sent []Transmission, tx Transmission, allowance, window int) bool {
	const span = 600
	var air [span]int
	mark := func(tx Transmission) {
		from := int(tx.Start.Sub(start)) + 2*window
		for i := from; i < from+int(tx.TimeOnAir); i++ {
			air[i]++
		}
	}
	for _, s := range sent {
		mark(s)
	}
	mark(tx)
	inWindow := 0
	for i := range air {
		if air[i] > 1 {
			return false
		}
		inWindow += air[i]
		if i >= window {
			inWindow -= air[i-window]
		}
		if inWindow > allowance {
			return false
		}
	}
	return true
}

// Random reservations in any order: the ledger finds the same earliest start as trying every
// nanosecond, and refuses exactly what that refuses.
func TestLedgerAgainstEveryInstant(t *testing.T) {
	const allowance, window = 10, 40
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		l := newTestLedger(t)
		for range 30 {
			tx := Transmission{start.Add(time.Duration(rng.IntN(200))), time.Duration(1 + rng.IntN(6))}
			if rng.IntN(8) == 0 && len(l.sent) > 0 {
				gone := l.sent[rng.IntN(len(l.sent))]
				if !l.Cancel(gone.Start, gone.TimeOnAir) {
					t.Fatalf("seed %d: Cancel did not find %v", seed, gone)
				}
			}
			earliest, err := l.EarliestStart(tx.Start, tx.TimeOnAir)
			if err != nil {
				t.Fatalf("seed %d: EarliestStart(%v) = %v", seed, tx, err)
			}
			want := tx
			for !admits(l.sent, want, allowance, window) {
				want.Start = want.Start.Add(1)
			}
			if !earliest.Equal(want.Start) {
				t.Fatalf("seed %d: %v ns from %v ns: earliest start %v ns, want %v ns; sent %v", seed, int64(tx.TimeOnAir),
					int64(tx.Start.Sub(start)), int64(earliest.Sub(start)), int64(want.Start.Sub(start)), l.sent)
			}
			err = l.Reserve(tx.Start, tx.TimeOnAir)
			if fits := earliest.Equal(tx.Start); fits != (err == nil) {
				t.Fatalf("seed %d: Reserve = %v, earliest start is %v ns later", seed, err, int64(earliest.Sub(tx.Start)))
			}
		}
		for i := range int64(300) { // Used agrees with adding up
			at, sum := start.Add(time.Duration(i)), time.Duration(0)
			for _, tx := range l.Transmissions() {
				from, to := tx.Start, tx.End()
				if open := at.Add(-window); from.Before(open) {
					from = open
				}
				if to.After(at) {
					to = at
				}
				sum += max(0, to.Sub(from))
			}
			if got := l.Used(at); got != sum {
				t.Fatalf("seed %d: Used at %d ns = %d ns, want %d ns", seed, i, got, sum)
			}
		}
	}
}

func TestLedgerErrors(t *testing.T) {
	for _, tt := range []struct{ allowance, window time.Duration }{{0, 40}, {-1, 40}, {41, 40}, {0, 0}} {
		if _, err := NewLedger(tt.allowance, tt.window); !errors.Is(err, ErrDutyCycle) {
			t.Errorf("NewLedger(%v, %v) = %v, want ErrDutyCycle", tt.allowance, tt.window, err)
		}
	}
	l := newTestLedger(t)
	if err := l.Reserve(start, 8); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		at   time.Duration
		toa  time.Duration
		want error
	}{
		{"no frame", 100, 0, ErrDutyCycle},
		{"longer than the allowance", 100, 11, ErrDutyCycle},
		{"while another is on the air", 7, 1, ErrBusy},
		{"more than is left", 20, 3, ErrDutyCycle},
		{"what is left", 20, 2, nil},
		{"window is full now", 30, 1, ErrDutyCycle},
		{"first frame has left the window", 48, 8, nil},
	} {
		if err := l.Reserve(start.Add(tt.at), tt.toa); !errors.Is(err, tt.want) {
			t.Errorf("%s: Reserve = %v, want %v", tt.name, err, tt.want)
		}
	}
	if got := len(l.Transmissions()); got != 3 {
		t.Errorf("%d transmissions, want 3: a refused one must leave nothing", got)
	}
}

// A gateway that overdraws is found out, and what follows waits until the debt is paid.
func TestLedgerRecordOverdraws(t *testing.T) {
	l := newTestLedger(t)
	l.Record(start, 9)
	l.Record(start.Add(5), 9) // reported as if the two overlapped
	l.Record(start.Add(50), -1)
	txs := l.Transmissions()
	if len(txs) != 2 || !txs[1].Start.Equal(txs[0].End()) {
		t.Errorf("transmissions %v, want the second behind the first", txs)
	}
	if got := l.Used(start.Add(20)); got != 18 {
		t.Errorf("Used = %v, want 18ns", got)
	}
	if got, err := l.EarliestStart(start.Add(20), 1); err != nil || !got.Equal(start.Add(48)) {
		t.Errorf("EarliestStart = %v, %v, want 48 ns after the first frame", got.Sub(start), err)
	}
}

func TestLedgerForgetAndClone(t *testing.T) {
	l := newTestLedger(t)
	for i := range 10 {
		if err := l.Reserve(start.Add(time.Duration(i)*20), 5); err != nil {
			t.Fatal(err)
		}
	}
	c := l.Clone()
	if c.Forget(start.Add(190)); len(c.Transmissions()) != 2 {
		t.Errorf("%d transmissions after Forget, want those that end after 150 ns: 2", len(c.Transmissions()))
	}
	if got, want := c.Used(start.Add(190)), l.Used(start.Add(190)); got != want {
		t.Errorf("Used = %v after Forget, was %v", got, want)
	}
	if len(l.Transmissions()) != 10 {
		t.Errorf("Forget on a clone left %d of 10 transmissions in the original", len(l.Transmissions()))
	}
	if c.Cancel(start, 5) {
		t.Error("Cancel found a transmission that was forgotten")
	}
}

// One hour of a gateway at 869.525 MHz: SF9 frames of 128 bytes, as fast as 10 % allow.
func TestLedgerHourOfG3(t *testing.T) {
	band, err := EU868.SubBand(869_525_000)
	if err != nil || band.Name != "g3" || band.Allowance() != 6*time.Minute {
		t.Fatalf("SubBand(869.525 MHz) = %+v, %v, want g3 with 6 minutes", band, err)
	}
	l, err := NewLedger(band.Allowance(), DutyWindow)
	if err != nil {
		t.Fatal(err)
	}
	rate, err := EU868.DataRate(3)
	if err != nil {
		t.Fatal(err)
	}
	toa := rate.TimeOnAir(128, Downlink)
	n, at := 0, start
	for {
		if at, err = l.EarliestStart(at, toa); err != nil {
			t.Fatal(err)
		}
		if at.Add(toa).Sub(start) > time.Hour {
			break
		}
		if err := l.Reserve(at, toa); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if want := int(band.Allowance() / toa); n != want {
		t.Errorf("%d frames in the first hour, want %d", n, want)
	}
	// The next one starts as soon as enough of the first has left the window.
	if want := start.Add(time.Hour - (band.Allowance() - time.Duration(n)*toa)); !at.Equal(want) {
		t.Errorf("frame %d starts %v after the first, want %v", n+1, at.Sub(start), want.Sub(start))
	}
}
