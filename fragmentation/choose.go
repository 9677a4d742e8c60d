package fragmentation

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Reason is one step of a choice, for people and for programs.
type Reason struct {
	Code    string `json:"code"`              // stable, one of the Reason... constants
	Warning bool   `json:"warning,omitempty"` // what was asked for is obeyed, but unwise
	Text    string `json:"text"`              // one sentence with its numbers
}

// Codes of a [Reason]. They are never renamed.
const (
	ReasonSize      = "size"      // why this fragment size
	ReasonRejected  = "rejected"  // why not another number of fragments
	ReasonTwins     = "twins"     // pairs of uncoded fragments that the matrix hardly tells apart
	ReasonSplit     = "split"     // entries placed to tell twins apart
	ReasonEcho      = "echo"      // entries that repeat others
	ReasonUncovered = "uncovered" // uncoded fragments in no parity fragment
	ReasonEvenOnly  = "even-only" // parity alone never completes
	ReasonNoCode    = "no-code"   // M = 1
	ReasonOverhead  = "overhead"  // what the plan costs beyond M, measured
	ReasonSequence  = "sequence"  // indices in order, and why
	ReasonOptimised = "optimised" // indices chosen, and why
	ReasonParity    = "parity"    // why so many parity fragments
	ReasonLimit     = "limit"     // a limit of TS004 or of the device shapes the plan
)

const (
	defaultLoss = 0.10
	defaultQ    = 1e-3 // share of devices that may fail when the number of parity is ours
	fewM        = 128  // below, or
	fewLosses   = 15   // with fewer expected losses, single rows matter and are worth choosing
	manyLosses  = 64   // above, choosing them costs seconds and gains nothing
	badOverhead = 3e-3 // share of devices incomplete at M+10; a sound code has 1e-3
	detour      = 3    // per cent of fragments that avoiding a flaw may cost
)

// Request says what to plan. Zero values are chosen.
type Request struct {
	Length  int     // of the block in bytes; required
	Matrix  Matrix  // required: as negotiated with the devices
	MaxSize int     // largest fragment the data rate carries, 1..255; 0 means 255
	Size    int     // impose this fragment size, 1..255
	MaxM    int     // most uncoded fragments that the devices hold; 0 means 16383
	Parity  int     // number of parity fragments; 0: enough for all but 1 of 1000 devices; negative: none
	Ordered bool    // impose the parity fragments M+1, M+2, ...
	Loss    float64 // expected share of fragments lost, 0..0.9; 0 means 0.10
}

// Choice is a transmission plan and why it is as it is.
type Choice struct {
	M, Size, Padding int
	Matrix           Matrix
	Indices          []int      // parity fragments in the order to send them
	Loss             float64    // that it was planned for
	Weaknesses       Weaknesses // of this very plan
	Overhead         Overhead   // of these indices, measured on simulated devices at Loss
	Reasons          []Reason
}

// Choose plans the transmission of a block: fragment size, number of parity fragments, and
// which ones. It avoids numbers of fragments at which the matrix has holes, as far as what is
// imposed allows, and otherwise mends them by the choice of indices. The result is a function
// of the request alone. [ErrLimit] when no plan fits.
func Choose(req Request) (Choice, error) {
	if err := req.normalise(); err != nil {
		return Choice{}, err
	}
	if req.Size != 0 {
		c, err := req.plan(req.Size)
		if err != nil {
			return Choice{}, err
		}
		c.Reasons = append([]Reason{{Code: ReasonSize, Text: fmt.Sprintf(
			"%s of %d bytes, as asked for, with %d bytes of padding", plural(c.M, "fragment"), c.Size, c.Padding)}}, c.Reasons...)
		c.warnings()
		return c, nil
	}
	first := (req.Length + req.MaxSize - 1) / req.MaxSize
	var best Choice
	var rejected []Reason
	flawless := false
	for m := first; m <= min(first+8+first*detour/100, req.MaxM) && !flawless; m++ {
		size := (req.Length + m - 1) / m
		if (req.Length+size-1)/size != m {
			continue // no fragment size makes this number of fragments
		}
		c, err := req.plan(size)
		if err != nil {
			return Choice{}, err
		}
		flaw := c.flaw()
		if flawless = flaw == ""; !flawless {
			rejected = append(rejected, Reason{Code: ReasonRejected,
				Text: fmt.Sprintf("not %s of %d bytes: %s", plural(m, "fragment"), size, flaw)})
		}
		if flawless || best.M < 2 || c.Overhead.FailAt(10) < best.Overhead.FailAt(10) {
			best = c
		}
	}
	if !flawless {
		rejected = append(rejected, Reason{Code: ReasonLimit, Text: fmt.Sprintf(
			"no number of fragments up to %d %% above %d is without a flaw; this one fails least", detour, first)})
	}
	best.Reasons = append(append(rejected, Reason{Code: ReasonSize, Text: fmt.Sprintf(
		"%s of %d bytes: the smallest size with this number of fragments, so that only %d bytes are padding",
		plural(best.M, "fragment"), best.Size, best.Padding)}), best.Reasons...)
	if !flawless {
		best.warnings()
	}
	return best, nil
}

func (req *Request) normalise() error {
	if req.MaxSize == 0 {
		req.MaxSize = MaxSize
	}
	if req.MaxM == 0 {
		req.MaxM = MaxIndex
	}
	if req.Loss == 0 {
		req.Loss = defaultLoss
	}
	for _, size := range []int{req.MaxSize, max(1, req.Size)} {
		if err := checkSize(size); err != nil {
			return err
		}
	}
	if req.Size < 0 || req.Size > req.MaxSize {
		return fmt.Errorf("%w: fragment size %d, want 1..%d", ErrLimit, req.Size, req.MaxSize)
	}
	if err := checkM(req.MaxM); err != nil {
		return err
	}
	if !(req.Loss > 0 && req.Loss <= 0.9) {
		return fmt.Errorf("%w: expected loss %v, want above 0 and at most 0.9", ErrLimit, req.Loss)
	}
	size := req.MaxSize
	if req.Size != 0 {
		size = req.Size
	}
	if req.Length < 1 || (req.Length+size-1)/size > req.MaxM {
		return fmt.Errorf("%w: block of %d bytes, want 1..%d (%d fragments of %d bytes)",
			ErrLimit, req.Length, req.MaxM*size, req.MaxM, size)
	}
	if m := (req.Length + size - 1) / size; req.Parity > MaxIndex-m {
		return fmt.Errorf("%w: %d parity fragments after %d uncoded ones, want at most %d",
			ErrLimit, req.Parity, m, MaxIndex-m)
	}
	_, err := newGenerator(1, req.Matrix)
	return err
}

// plan completes a choice for one fragment size.
func (req *Request) plan(size int) (Choice, error) {
	m := (req.Length + size - 1) / size
	c := Choice{M: m, Size: size, Padding: m*size - req.Length, Matrix: req.Matrix, Loss: req.Loss}
	if m == 1 && !req.Ordered {
		c.repeat(req.Parity)
		return c, nil
	}
	// The list is as long as one device in a million needs, to measure it; the plan is its
	// beginning.
	long, err := FragmentsFor(m, req.Loss, 1e-6)
	if err != nil {
		long = MaxIndex
	}
	long = max(req.Parity, min(long+10, MaxIndex)-m)
	var list []int
	if req.Ordered {
		list = Sequence(m, long)
		c.add(ReasonSequence, "parity fragments in order from %d, as asked for", m+1)
	} else {
		var reasons []Reason
		if list, reasons, err = ParityList(m, req.Matrix, long, req.Loss); err != nil {
			return Choice{}, err
		}
		c.Reasons = append(c.Reasons, reasons...)
	}
	code, err := NewCode(m, req.Matrix, list)
	if err != nil {
		return Choice{}, err
	}
	// As many devices as take about a tenth of a second.
	losses := float64(m)*req.Loss + 8
	nanoseconds := 300 + losses*losses*(losses/64+1)
	devices := int(min(max(1e8/nanoseconds, 50), 40000))
	c.Overhead = Measure(code, req.Loss, devices, rand.NewPCG(uint64(m), uint64(req.Matrix)))
	c.add(ReasonOverhead, "measured on %d devices at a loss of %.3g %%: %.2f fragments beyond M on average, "+
		"%.2g %% incomplete at M+10 (a perfectly random code: 1.61 and 0.098 %%)",
		devices, 100*req.Loss, c.Overhead.Mean(), 100*c.Overhead.FailAt(10))
	parity := max(req.Parity, 0)
	if req.Parity == 0 {
		parity = c.parity(len(list))
	}
	c.Indices = list[:parity:parity]
	if code, err = NewCode(m, req.Matrix, c.Indices); err != nil {
		return Choice{}, err
	}
	c.Weaknesses = Inspect(code)
	return c, nil
}

// repeat plans the repetition of the only fragment.
func (c *Choice) repeat(count int) {
	if count == 0 {
		count = int(math.Ceil(math.Log(defaultQ)/math.Log(c.Loss))) - 1
	}
	for range count {
		c.Indices = append(c.Indices, 1)
	}
	c.add(ReasonNoCode, "the block is a single fragment, which has no parity: it is repeated %s", plural(len(c.Indices), "time"))
}

// parity returns how many parity fragments of the list to send when the number is ours.
func (c *Choice) parity(limit int) int {
	sent, ok := c.Overhead.SentFor(defaultQ)
	if float64(c.Overhead.Devices)*defaultQ < 10 || !ok {
		var err error
		if sent, err = FragmentsFor(c.M, c.Loss, defaultQ); err != nil || sent-c.M > limit {
			c.Reasons = append(c.Reasons, Reason{Code: ReasonLimit, Warning: true, Text: fmt.Sprintf(
				"TS004 numbers %d fragments, too few for %d uncoded ones at a loss of %.3g %%", MaxIndex, c.M, 100*c.Loss)})
			return limit
		}
	}
	c.add(ReasonParity, "%s: enough for all but 1 of %.0f devices at a loss of %.3g %%",
		plural(sent-c.M, "parity fragment"), 1/defaultQ, 100*c.Loss)
	return sent - c.M
}

// flaw says what speaks against this number of fragments, or nothing.
func (c *Choice) flaw() string {
	if c.M == 1 {
		return "a single fragment has no parity, it can only be repeated"
	}
	if c.Weaknesses.EvenOnly {
		return fmt.Sprintf("every parity row of %v has %d ones, an even number, so a device that joins after the uncoded fragments never completes",
			c.Matrix, c.M/2)
	}
	if pairs := matrixPairs(c.M, c.Matrix, twinShare); len(pairs) > 0 {
		return fmt.Sprintf("the matrix hardly tells %s apart", twinText(pairs))
	}
	// Only a share that chance does not explain.
	o := &c.Overhead
	if n := float64(o.tried[10]); float64(o.failed[10]) > badOverhead*n+3*math.Sqrt(badOverhead*n)+1 {
		return fmt.Sprintf("%.2g %% of simulated devices are incomplete at M+10", 100*o.FailAt(10))
	}
	return ""
}

// warnings adds what speaks against a plan that was imposed.
func (c *Choice) warnings() {
	warn := func(code, format string, args ...any) {
		c.Reasons = append(c.Reasons, Reason{Code: code, Warning: true, Text: fmt.Sprintf(format, args...)})
	}
	w := c.Weaknesses
	if c.M == 1 && len(c.Indices) > 0 && c.Indices[0] == 1 {
		return // repeated, as the reasons say
	}
	if c.M == 1 {
		warn(ReasonNoCode, "a single fragment has no parity, every parity fragment is empty; a smaller fragment size has")
		return
	}
	if n := len(w.Uncovered); n > 0 && len(c.Indices) > 0 {
		warn(ReasonUncovered, "%d of %d uncoded fragments are in no parity fragment (first: %d); a device that loses one cannot complete",
			n, c.M, w.Uncovered[0])
	}
	if len(w.Twins) > 0 && w.Floor(c.Loss) > badOverhead/10 {
		warn(ReasonTwins, "the parity fragments hardly tell %s apart; %.2g %% of devices will lose two and all that tells them apart",
			twinText(w.Twins), 100*w.Floor(c.Loss))
	}
	if w.EvenOnly {
		warn(ReasonEvenOnly, "every parity row has an even number of ones; a device that received no uncoded fragment never completes")
	}
	if n := len(w.Echoes); n > 0 && c.M >= fewM {
		warn(ReasonEcho, "%s out of %d nearly repeat others (first: %d repeats %d)",
			plural(n, "parity fragment"), len(c.Indices), w.Echoes[0].N, w.Echoes[0].Of)
	}
	if c.Overhead.FailAt(10) > badOverhead {
		warn(ReasonOverhead, "%.2g %% of simulated devices are incomplete at M+10, a sound code has 0.1 %%", 100*c.Overhead.FailAt(10))
	}
}

func (c *Choice) add(code, format string, args ...any) {
	c.Reasons = append(c.Reasons, Reason{Code: code, Text: fmt.Sprintf(format, args...)})
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func twinText(pairs []Twin) string {
	text := fmt.Sprintf("fragments %d and %d", pairs[0].A, pairs[0].B)
	if len(pairs) > 1 {
		text += fmt.Sprintf(", %d and %d", pairs[1].A, pairs[1].B)
	}
	if len(pairs) > 2 {
		text += fmt.Sprintf(" and %d other pairs", len(pairs)-2)
	}
	return text
}

// ParityList returns which parity fragments to send after the m uncoded ones to devices of
// loss p (above 0, at most 0.9), in order, and why. A shorter list is the beginning of a longer
// one, so a later round continues where the last one ended and never repeats an index.
//
// Where single rows matter, because M < 128 or fewer than 15 losses are expected, the list is
// optimised on synthetic devices; otherwise it is the plain sequence without echoes, which is
// as good as a random code. Where the matrix has twins, rows that tell them apart are mixed
// in. Devices decode any list: they know a row by its number.
func ParityList(m int, matrix Matrix, parity int, p float64) ([]int, []Reason, error) {
	if _, err := newGenerator(m, matrix); err != nil {
		return nil, nil, err
	}
	if parity < 0 || parity > MaxIndex-m {
		return nil, nil, fmt.Errorf("%w: %d parity fragments after %d uncoded ones, want 0..%d",
			ErrLimit, parity, m, MaxIndex-m)
	}
	if !(p > 0 && p <= 0.9) {
		return nil, nil, fmt.Errorf("%w: loss %v, want above 0 and at most 0.9", ErrLimit, p)
	}
	l := lister{m: m, matrix: matrix, p: p, used: NewBitset(MaxIndex + 1), rows: newRowSet(m, matrix)}
	if err := l.fill(parity); err != nil {
		return nil, nil, err
	}
	return l.list, l.reasons, nil
}

// lister builds one parity list.
type lister struct {
	m       int
	matrix  Matrix
	p       float64
	list    []int
	used    Bitset
	rows    *rowSet
	reasons []Reason
}

func (l *lister) fill(parity int) error {
	special := l.splitting()
	if l.optimise() {
		o, err := newOptimiser(l.m, l.matrix, l.p)
		if err != nil {
			return err
		}
		// Past the point where one device in a million still needs it, order hardly matters.
		end, err := FragmentsFor(l.m, l.p, 1e-6)
		if err != nil {
			end = MaxIndex
		}
		for end -= l.m; len(l.list) < min(parity, end); {
			l.place(special)
			n := o.next()
			if n == 0 {
				break
			}
			if !l.used.Has(n) {
				l.push(n)
			}
		}
		l.add(ReasonOptimised, "indices chosen on synthetic devices: with %d fragments and %.3g losses expected, single rows matter",
			l.m, float64(l.m)*l.p)
	} else {
		l.add(ReasonSequence, "indices in order from %d: with %d fragments and %.3g losses expected, no choice is better",
			l.m+1, l.m, float64(l.m)*l.p)
	}
	var echoes []int
	for n := l.m + 1; n <= MaxIndex && len(l.list) < parity; n++ {
		if l.used.Has(n) {
			continue
		}
		if l.m >= fewM {
			of, _ := l.rows.echo(n)
			if of >= 0 {
				echoes = append(echoes, n)
				continue
			}
			l.rows.rows = append(l.rows.rows, l.rows.row...)
		}
		l.place(special)
		l.push(n)
	}
	if len(echoes) > 0 {
		l.add(ReasonEcho, "passed over %s that nearly repeat earlier ones (first: %d)", plural(len(echoes), "parity fragment"), echoes[0])
	}
	// Nothing else is left to send: then an echo is better than nothing.
	for _, n := range echoes {
		if len(l.list) < parity {
			l.push(n)
		}
	}
	l.list = l.list[:min(len(l.list), parity)]
	return nil
}

// optimise decides whether choosing rows pays.
func (l *lister) optimise() bool {
	losses := float64(l.m) * l.p
	if l.m < fewM || losses < fewLosses {
		return true
	}
	if losses > manyLosses {
		return false
	}
	// Where pairs are told apart by less than a fifth of the rows (at multiples of 32), the
	// first rows are a poor choice; elsewhere the closest pair of all is well above a quarter.
	return len(matrixPairs(l.m, l.matrix, 5)) > 0
}

// splitting maps places in the list to entries that tell twins apart. They are spread evenly
// over the part of the list in which most devices complete, so many of them that a device
// misses all for a pair once in a million.
func (l *lister) splitting() map[int]int {
	pairs := matrixPairs(l.m, l.matrix, twinShare)
	if len(pairs) == 0 {
		return nil
	}
	each := int(math.Ceil(math.Log(1e-6) / math.Log(l.p)))
	stretch := (float64(l.m)+meanExtra)/(1-l.p) - float64(l.m)
	found := splitters(l.m, l.matrix, pairs, each)
	total := 0
	for _, f := range found {
		total += len(f)
	}
	gap := max(2, int(0.8*stretch/float64(max(1, total))))
	special := make(map[int]int, total)
	at := 0
	for k := range each {
		for _, f := range found {
			if k < len(f) && !l.used.Has(f[k]) {
				l.used.Set(f[k])
				special[at] = f[k]
				at += gap
			}
		}
	}
	l.add(ReasonSplit, "%d fragments that tell %s apart, one in every %d: M = %d is imposed and the sequence has hardly any",
		len(special), twinText(pairs), gap, l.m)
	return special
}

// place appends the special entries due at this point of the list.
func (l *lister) place(special map[int]int) {
	for n, due := special[len(l.list)]; due; n, due = special[len(l.list)] {
		l.list = append(l.list, n)
	}
}

func (l *lister) push(n int) {
	l.used.Set(n)
	l.list = append(l.list, n)
}

func (l *lister) add(code, format string, args ...any) {
	l.reasons = append(l.reasons, Reason{Code: code, Text: fmt.Sprintf(format, args...)})
}
