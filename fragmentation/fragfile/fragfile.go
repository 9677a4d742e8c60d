// Package fragfile reads and writes the fragments of one session as JSON lines: first the
// session, then a fragment per line, in any order and as often as they were received.
//
//	{"m":300,"size":48,"padding":13,"matrix":"v1"}
//	{"n":1,"data":"6ab8004d25182f58…"}
//	{"n":301,"data":"00e692019d5386e2…"}
//
// m is the number of uncoded fragments (1..16383), size their length in bytes (1..255),
// padding the number of filler bytes at the end of the last one (0..size-1), matrix v1, v2 or
// v2abs; n is the fragment number (1..16383) and data its bytes in hexadecimal.
//
// The reader is strict: every key once, no other key, one object per line, no empty lines, no
// line longer than 1024 bytes. It holds one line at a time. It does not decode; feed package
// fragmentation with what it yields.
package fragfile

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/sower-fuota/sower/fragmentation"
)

// maxLine bounds a line, its end included. The longest this package writes has 531 bytes.
const maxLine = 1024

// ErrFormat is returned, wrapped in a [LineError], for a line that is not what it should be.
var ErrFormat = errors.New("fragfile: not a fragment file")

// LineError says which line, counted from 1, is wrong and why.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the cause.
func (e *LineError) Unwrap() error { return e.Err }

// Session is the first line of a file.
type Session struct {
	M       int                  `json:"m"`
	Size    int                  `json:"size"`
	Padding int                  `json:"padding"`
	Matrix  fragmentation.Matrix `json:"matrix"`
}

// Validate checks the session against TS004. Errors wrap [fragmentation.ErrLimit].
func (s Session) Validate() error {
	if s.M < 1 || s.M > fragmentation.MaxIndex {
		return fmt.Errorf("%w: m %d, want 1..%d", fragmentation.ErrLimit, s.M, fragmentation.MaxIndex)
	}
	if s.Size < 1 || s.Size > fragmentation.MaxSize {
		return fmt.Errorf("%w: size %d, want 1..%d", fragmentation.ErrLimit, s.Size, fragmentation.MaxSize)
	}
	if s.Padding < 0 || s.Padding >= s.Size {
		return fmt.Errorf("%w: padding %d, want 0..%d for fragments of %d bytes",
			fragmentation.ErrLimit, s.Padding, s.Size-1, s.Size)
	}
	if !s.Matrix.Valid() {
		return fmt.Errorf("%w: matrix %v, want v1, v2 or v2abs", fragmentation.ErrLimit, s.Matrix)
	}
	return nil
}

// Writer writes a file.
type Writer struct {
	w    io.Writer
	size int
	line []byte
}

// NewWriter writes the session to w, which should be buffered, and returns a writer for its
// fragments.
func NewWriter(w io.Writer, s Session) (*Writer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	line, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(append(line, '\n')); err != nil {
		return nil, err
	}
	return &Writer{w: w, size: s.Size}, nil
}

// Write writes fragment n. Errors are those of the underlying writer, or wrap
// [fragmentation.ErrIndex] or [fragmentation.ErrSize].
func (w *Writer) Write(n int, data []byte) error {
	if err := check(n, len(data), w.size); err != nil {
		return err
	}
	w.line = append(w.line[:0], `{"n":`...)
	w.line = strconv.AppendInt(w.line, int64(n), 10)
	w.line = append(w.line, `,"data":"`...)
	w.line = hex.AppendEncode(w.line, data)
	w.line = append(w.line, '"', '}', '\n')
	_, err := w.w.Write(w.line)
	return err
}

func check(n, length, size int) error {
	if n < 1 || n > fragmentation.MaxIndex {
		return fmt.Errorf("%w: %d, want 1..%d", fragmentation.ErrIndex, n, fragmentation.MaxIndex)
	}
	if length != size {
		return fmt.Errorf("%w: fragment %d has %d bytes, the session says %d", fragmentation.ErrSize, n, length, size)
	}
	return nil
}

// Reader reads a file.
type Reader struct {
	in      *bufio.Reader
	line    int
	session Session
	data    []byte
	err     error // sticky
}

// NewReader reads the session from r and returns a reader for the fragments.
func NewReader(r io.Reader) (*Reader, error) {
	f := &Reader{in: bufio.NewReaderSize(r, maxLine)}
	line, err := f.next()
	if err == io.EOF {
		return nil, &LineError{Line: 1, Err: fmt.Errorf("%w: the file is empty", ErrFormat)}
	}
	if err != nil {
		return nil, err
	}
	s := &f.session
	err = object(line, []field{
		{key: "m", into: &s.M}, {key: "size", into: &s.Size}, {key: "padding", into: &s.Padding}, {key: "matrix", into: &s.Matrix},
	})
	if err == nil {
		err = s.Validate()
	}
	if err != nil {
		return nil, f.fail(err)
	}
	f.data = make([]byte, 0, s.Size)
	return f, nil
}

// Session returns the first line of the file.
func (f *Reader) Session() Session { return f.session }

// Line returns the number of the line read last, counted from 1.
func (f *Reader) Line() int { return f.line }

// Next returns the next fragment: its number, 1..16383, and its data, of the session's size and
// valid until the next call. At the end of the file the error is [io.EOF]; any other is a
// [*LineError] or comes from the underlying reader, and ends the reading.
func (f *Reader) Next() (n int, data []byte, err error) {
	if f.err != nil {
		return 0, nil, f.err
	}
	line, err := f.next()
	if err != nil {
		return 0, nil, err
	}
	var text string
	if err := object(line, []field{{key: "n", into: &n}, {key: "data", into: &text}}); err != nil {
		return 0, nil, f.fail(err)
	}
	f.data, err = hex.AppendDecode(f.data[:0], []byte(text))
	if err != nil {
		return 0, nil, f.fail(fmt.Errorf("%w: data is not hexadecimal", ErrFormat))
	}
	if err := check(n, len(f.data), f.session.Size); err != nil {
		return 0, nil, f.fail(err)
	}
	return n, f.data, nil
}

// next returns the next line without its end.
func (f *Reader) next() ([]byte, error) {
	line, err := f.in.ReadSlice('\n')
	if len(line) == 0 && err != nil {
		f.err = err
		return nil, err
	}
	f.line++
	switch {
	case err == bufio.ErrBufferFull:
		return nil, f.fail(fmt.Errorf("%w: more than %d bytes", ErrFormat, maxLine))
	case err != nil && err != io.EOF:
		f.err = err
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

func (f *Reader) fail(err error) error {
	f.err = &LineError{Line: f.line, Err: err}
	return f.err
}

// field is a key that an object must have, and where its value goes.
type field struct {
	key  string
	into any
}

// object parses one JSON object that has exactly these keys, each once, and nothing after it.
// encoding/json alone would take a key twice, or in other letters.
func object(line []byte, fields []field) error {
	dec := json.NewDecoder(bytes.NewReader(line))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("%w: not a JSON object", ErrFormat)
	}
	seen := make([]bool, len(fields))
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return fmt.Errorf("%w: %v", ErrFormat, err)
		}
		key, _ := t.(string)
		at := -1
		for i := range fields {
			if fields[i].key == key {
				at = i
			}
		}
		switch {
		case at < 0 && (key == "m" || key == "n"):
			return fmt.Errorf("%w: a %s where a %s belongs", ErrFormat, kind(key), kind(fields[0].key))
		case at < 0:
			return fmt.Errorf("%w: unknown key %.40q", ErrFormat, key)
		case seen[at]:
			return fmt.Errorf("%w: key %q twice", ErrFormat, key)
		}
		seen[at] = true
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return fmt.Errorf("%w: %v", ErrFormat, err)
		}
		if bytes.Equal(raw, []byte("null")) {
			return fmt.Errorf("%w: %s is null", ErrFormat, key)
		}
		if err := json.Unmarshal(raw, fields[at].into); err != nil {
			if errors.Is(err, fragmentation.ErrLimit) {
				return err
			}
			return fmt.Errorf("%w: %s: %v", ErrFormat, key, err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("%w: the object does not end", ErrFormat)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("%w: text after the object", ErrFormat)
	}
	for i, ok := range seen {
		if !ok {
			return fmt.Errorf("%w: key %q is missing", ErrFormat, fields[i].key)
		}
	}
	return nil
}

func kind(firstKey string) string {
	if firstKey == "m" {
		return "session"
	}
	return "fragment"
}
