package airtime

import (
	"fmt"
	"slices"
	"sort"
	"time"
)

// DutyWindow is the time over which ETSI EN 300 220 measures a duty cycle.
const DutyWindow = time.Hour

// SubBand is a range of frequencies in which one duty cycle applies to each transmitter, gateways
// included.
type SubBand struct {
	Name      string // "g3" for 869.4..869.65 MHz
	Low       uint32 // Hz
	High      uint32 // Hz, the first frequency that is not part of it
	DutyCycle int    // per mille; 1000 is no limit
	MaxERP    int    // mW; 0 if unknown
}

// Allowance returns the time that a transmitter may be on the air in any [DutyWindow].
func (b SubBand) Allowance() time.Duration {
	return DutyWindow * time.Duration(b.DutyCycle) / 1000
}

// Transmission is one frame on the air.
type Transmission struct {
	Start     time.Time
	TimeOnAir time.Duration
}

// End returns the instant at which the frame is over.
func (t Transmission) End() time.Time { return t.Start.Add(t.TimeOnAir) }

// Ledger keeps account of what one transmitter sends in one sub-band: keep one per gateway and
// sub-band. It holds to a sliding window: whatever interval of the window's length is looked at,
// it contains no more than the allowance, and a frame counts in part where it lies in the interval
// in part. Past and future are treated alike, so frames may be reserved in any order. A transmitter
// sends one frame at a time.
//
// A Ledger is a plain value without a clock. It is not safe for concurrent use. Checking and
// adding a frame at the end costs O(log n), elsewhere O(n), with n frames in it.
type Ledger struct {
	allowance time.Duration
	window    time.Duration
	sent      []Transmission  // by start
	before    []time.Duration // before[i] is the airtime of sent[:i]; one longer than sent
}

// NewLedger returns an empty ledger. Both durations must be positive, and allowance no more than
// window; [SubBand.Allowance] and [DutyWindow] are the usual ones. A smaller allowance keeps a share
// free for others who use the same transmitter.
func NewLedger(allowance, window time.Duration) (*Ledger, error) {
	if allowance <= 0 || allowance > window {
		return nil, fmt.Errorf("ledger: %w: allowance %v in %v, want more than 0 and no more than the window",
			ErrDutyCycle, allowance, window)
	}
	return &Ledger{allowance: allowance, window: window, before: []time.Duration{0}}, nil
}

// Clone returns a copy, for plans that may be dropped.
func (l *Ledger) Clone() *Ledger {
	c := *l
	c.sent = slices.Clone(l.sent)
	c.before = slices.Clone(l.before)
	return &c
}

// Transmissions returns a copy of the frames in the ledger, by start.
func (l *Ledger) Transmissions() []Transmission { return slices.Clone(l.sent) }

// Used returns the airtime within the window that ends at t.
func (l *Ledger) Used(t time.Time) time.Duration {
	return l.until(t) - l.until(t.Add(-l.window))
}

// EarliestStart returns the first instant at or after t at which a frame of duration toa may start
// without breaking the duty cycle, its own or that of frames reserved for later, and without
// overlapping another. It fails with [ErrDutyCycle] if toa exceeds the allowance: no waiting helps.
func (l *Ledger) EarliestStart(t time.Time, toa time.Duration) (time.Time, error) {
	if toa <= 0 || toa > l.allowance {
		return time.Time{}, fmt.Errorf("ledger: %w: a frame of %v, want more than 0 and at most %v in %v",
			ErrDutyCycle, toa, l.allowance, l.window)
	}
	for {
		next := l.obstacle(Transmission{t, toa})
		if !next.After(t) {
			return t, nil
		}
		t = next
	}
}

// Reserve adds a frame of duration toa that starts at t. It fails with [ErrBusy] or [ErrDutyCycle],
// naming the earliest start that would do, and then adds nothing.
func (l *Ledger) Reserve(t time.Time, toa time.Duration) error {
	earliest, err := l.EarliestStart(t, toa)
	if err != nil {
		return err
	}
	if earliest.After(t) {
		tx := Transmission{t, toa}
		cause := ErrDutyCycle
		if _, busy := l.overlap(tx); busy {
			cause = ErrBusy
		}
		return fmt.Errorf("ledger: %w: %v at %v, earliest start %v later", cause, toa, t, earliest.Sub(t))
	}
	l.Record(t, toa)
	return nil
}

// Record adds a frame that was sent, whatever it does to the duty cycle. If by the times reported
// it overlaps another, it is booked behind that one. A toa that is not positive is ignored.
func (l *Ledger) Record(t time.Time, toa time.Duration) {
	if toa <= 0 {
		return
	}
	tx := Transmission{t, toa}
	for end, busy := l.overlap(tx); busy; end, busy = l.overlap(tx) {
		tx.Start = end
	}
	i := sort.Search(len(l.sent), func(i int) bool { return l.sent[i].Start.After(tx.Start) })
	l.sent = slices.Insert(l.sent, i, tx)
	l.before = append(l.before, 0)
	l.sum(i)
}

// Cancel removes a reservation that will not be used and reports whether there was one.
func (l *Ledger) Cancel(t time.Time, toa time.Duration) bool {
	i := slices.IndexFunc(l.sent, func(tx Transmission) bool { return tx.Start.Equal(t) && tx.TimeOnAir == toa })
	if i < 0 {
		return false
	}
	l.sent = slices.Delete(l.sent, i, i+1)
	l.before = l.before[:len(l.sent)+1]
	l.sum(i)
	return true
}

// Forget drops the frames that no longer count for a transmission at now or later.
func (l *Ledger) Forget(now time.Time) {
	horizon := now.Add(-l.window)
	l.sent = slices.DeleteFunc(l.sent, func(tx Transmission) bool { return !tx.End().After(horizon) })
	l.before = l.before[:len(l.sent)+1]
	l.sum(0)
}

// sum computes before anew from index i on.
func (l *Ledger) sum(i int) {
	for ; i < len(l.sent); i++ {
		l.before[i+1] = l.before[i] + l.sent[i].TimeOnAir
	}
}

// until returns the airtime of all frames up to t.
func (l *Ledger) until(t time.Time) time.Duration {
	n := sort.Search(len(l.sent), func(i int) bool { return l.sent[i].Start.After(t) })
	sum := l.before[n]
	if n > 0 {
		if rest := l.sent[n-1].End().Sub(t); rest > 0 {
			sum -= rest
		}
	}
	return sum
}

// overlap returns the end of a frame that is on the air at the same time as tx.
func (l *Ledger) overlap(tx Transmission) (end time.Time, found bool) {
	n := sort.Search(len(l.sent), func(i int) bool { return !l.sent[i].Start.Before(tx.End()) })
	if n == 0 || !l.sent[n-1].End().After(tx.Start) {
		return time.Time{}, false
	}
	return l.sent[n-1].End(), true
}

// obstacle returns an instant before which tx cannot start, or one that is not after its start if it
// can start as it is.
//
// The airtime within the window that ends at x, as a function of x, rises no further where a
// frame ends, so it suffices to look at the windows that end with a frame: with tx itself, and with
// each later frame whose window tx falls into.
func (l *Ledger) obstacle(tx Transmission) time.Time {
	if end, found := l.overlap(tx); found {
		return end
	}
	if excess := l.Used(tx.End()) + tx.TimeOnAir - l.allowance; excess > 0 {
		return l.after(tx.End().Add(-l.window), excess).Add(l.window - tx.TimeOnAir)
	}
	for i := sort.Search(len(l.sent), func(i int) bool { return l.sent[i].Start.After(tx.Start) }); i < len(l.sent); i++ {
		end := l.sent[i].End()
		opens := end.Add(-l.window)
		if !opens.Before(tx.End()) {
			break
		}
		part := tx.End().Sub(opens) // of tx within the window that ends with frame i
		if l.Used(end)+min(part, tx.TimeOnAir) > l.allowance {
			return end // as long as tx comes before that end, it has the same part in it
		}
	}
	return tx.Start
}

// after returns the first instant from t on by which frames took d of airtime, counted from t.
func (l *Ledger) after(t time.Time, d time.Duration) time.Time {
	want := l.until(t) + d
	n := sort.Search(len(l.sent), func(i int) bool { return l.before[i+1] >= want })
	return l.sent[n].End().Add(want - l.before[n+1])
}
