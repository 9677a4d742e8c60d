package fragfile

import (
	"fmt"
	"io"

	"github.com/sower-fuota/sower/fragmentation"
)

// WriteBlock writes a whole transmission: the session of e, its uncoded fragments in order, and
// then the fragments indices. w should be buffered; one fragment is held at a time.
func WriteBlock(w io.Writer, e *fragmentation.Encoder, indices []int) error {
	out, err := NewWriter(w, Session{M: e.M(), Size: e.Size(), Padding: e.Padding(), Matrix: e.Matrix()})
	if err != nil {
		return err
	}
	data := make([]byte, 0, e.Size())
	for i := range e.M() + len(indices) {
		n := i + 1
		if i >= e.M() {
			n = indices[i-e.M()]
		}
		if data, err = e.Fragment(data[:0], n); err != nil {
			return err
		}
		if err := out.Write(n, data); err != nil {
			return err
		}
	}
	return nil
}

// Stats says how a block was reassembled.
type Stats struct {
	Session
	Received int `json:"received"` // fragments in the file, up to its end
	Used     int `json:"used"`     // fragments read when the block was complete, or all of them
	Uncoded  int `json:"uncoded"`  // different uncoded fragments among those used
	Useless  int `json:"useless"`  // fragments among those used that told nothing new
	Missing  int `json:"missing"`  // rank missing at the end; 0: complete
}

// ReadBlock reassembles the block of a file. It reads to the end, so that what follows the
// completion is checked too. Stats are valid whenever the session was read. Errors are those of
// [Reader], [fragmentation.ErrConflict] in a [LineError] for a fragment that contradicts those
// before, and [fragmentation.ErrNeedMore].
func ReadBlock(r io.Reader) ([]byte, Stats, error) {
	in, err := NewReader(r)
	if err != nil {
		return nil, Stats{}, err
	}
	st := Stats{Session: in.Session(), Missing: in.Session().M}
	d, err := fragmentation.NewDecoder(st.M, st.Size, st.Matrix)
	if err != nil {
		return nil, st, err
	}
	seen := fragmentation.NewBitset(st.M)
	for {
		n, data, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, st, err
		}
		st.Received++
		before := d.Missing()
		if _, err := d.Add(n, data); err != nil {
			return nil, st, &LineError{Line: in.Line(), Err: err}
		}
		if before == 0 {
			continue
		}
		st.Used++
		st.Missing = d.Missing()
		if st.Missing == before {
			st.Useless++
		}
		if n <= st.M && !seen.Has(n-1) {
			seen.Set(n - 1)
			st.Uncoded++
		}
	}
	block, err := d.Block(st.Padding)
	if err != nil {
		return nil, st, fmt.Errorf("%w (%d fragments read)", err, st.Received)
	}
	return block, st, nil
}
