package fragfile_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/fragmentation/fragfile"
)

const session = `{"m":2,"size":3,"padding":1,"matrix":"v2"}` + "\n"

func TestRoundTrip(t *testing.T) {
	s := fragfile.Session{M: 2, Size: 3, Padding: 1, Matrix: fragmentation.V2}
	var file bytes.Buffer
	w, err := fragfile.NewWriter(&file, s)
	if err != nil {
		t.Fatal(err)
	}
	for n, data := range map[int]string{1: "abc", 2: "\x00\xff\x10", 16383: "xyz"} {
		file.Truncate(len(session))
		if err := w.Write(n, []byte(data)); err != nil {
			t.Fatal(err)
		}
		r, err := fragfile.NewReader(iotest.OneByteReader(bytes.NewReader(file.Bytes())))
		if err != nil {
			t.Fatal(err)
		}
		if r.Session() != s {
			t.Errorf("session %+v, want %+v", r.Session(), s)
		}
		gotN, got, err := r.Next()
		if err != nil || gotN != n || string(got) != data || r.Line() != 2 {
			t.Errorf("Next = %d, %q, %v on line %d; want %d, %q", gotN, got, err, r.Line(), n, data)
		}
		for range 2 {
			if _, _, err := r.Next(); err != io.EOF {
				t.Errorf("after the last fragment: %v, want EOF", err)
			}
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	good := fragfile.Session{M: 2, Size: 3, Matrix: fragmentation.V1}
	for _, change := range []func(*fragfile.Session){
		func(s *fragfile.Session) { s.M = 0 },
		func(s *fragfile.Session) { s.M = 16384 },
		func(s *fragfile.Session) { s.Size = 0 },
		func(s *fragfile.Session) { s.Size = 256 },
		func(s *fragfile.Session) { s.Padding = 3 },
		func(s *fragfile.Session) { s.Padding = -1 },
		func(s *fragfile.Session) { s.Matrix = 0 },
	} {
		s := good
		change(&s)
		var out bytes.Buffer
		if _, err := fragfile.NewWriter(&out, s); !errors.Is(err, fragmentation.ErrLimit) || out.Len() > 0 {
			t.Errorf("NewWriter(%+v) = %v after %d bytes, want ErrLimit and none", s, err, out.Len())
		}
	}
	var out bytes.Buffer
	w, err := fragfile.NewWriter(&out, good)
	if err != nil {
		t.Fatal(err)
	}
	out.Reset()
	for _, tt := range []struct {
		n    int
		data string
		want error
	}{{0, "abc", fragmentation.ErrIndex}, {16384, "abc", fragmentation.ErrIndex}, {1, "ab", fragmentation.ErrSize}, {1, "abcd", fragmentation.ErrSize}} {
		if err := w.Write(tt.n, []byte(tt.data)); !errors.Is(err, tt.want) || out.Len() > 0 {
			t.Errorf("Write(%d, %q) = %v after %d bytes, want %v and none", tt.n, tt.data, err, out.Len(), tt.want)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	tests := []struct {
		name string
		file string
		line int
		want error
		say  string
	}{
		{"empty file", "", 1, fragfile.ErrFormat, "the file is empty"},
		{"empty line", "\n", 1, fragfile.ErrFormat, "not a JSON object"},
		{"no JSON", "hello\n", 1, fragfile.ErrFormat, "not a JSON object"},
		{"array", "[1]\n", 1, fragfile.ErrFormat, "not a JSON object"},
		{"fragment first", `{"n":1,"data":"00"}`, 1, fragfile.ErrFormat, "a fragment where a session belongs"},
		{"M missing", `{"size":3,"padding":1,"matrix":"v2"}`, 1, fragfile.ErrFormat, `"m" is missing`},
		{"M null", `{"m":null,"size":3,"padding":1,"matrix":"v2"}`, 1, fragfile.ErrFormat, "m is null"},
		{"M zero", `{"m":0,"size":3,"padding":1,"matrix":"v2"}`, 1, fragmentation.ErrLimit, "m 0"},
		{"M too large", `{"m":16384,"size":3,"padding":1,"matrix":"v2"}`, 1, fragmentation.ErrLimit, "m 16384"},
		{"M fraction", `{"m":2.5,"size":3,"padding":1,"matrix":"v2"}`, 1, fragfile.ErrFormat, "m: "},
		{"M text", `{"m":"2","size":3,"padding":1,"matrix":"v2"}`, 1, fragfile.ErrFormat, "m: "},
		{"M twice", `{"m":2,"m":3,"size":3,"padding":1,"matrix":"v2"}`, 1, fragfile.ErrFormat, `"m" twice`},
		{"M capital", `{"M":2,"size":3,"padding":1,"matrix":"v2"}`, 1, fragfile.ErrFormat, `unknown key "M"`},
		{"padding as large as a fragment", `{"m":2,"size":3,"padding":3,"matrix":"v2"}`, 1, fragmentation.ErrLimit, "padding 3"},
		{"size too large", `{"m":2,"size":256,"padding":3,"matrix":"v2"}`, 1, fragmentation.ErrLimit, "size 256"},
		{"unknown matrix", `{"m":2,"size":3,"padding":1,"matrix":"v3"}`, 1, fragmentation.ErrLimit, `matrix "v3"`},
		{"object without end", `{"m":2,"size":3`, 1, fragfile.ErrFormat, ""},
		{"two objects in a line", `{"m":2,"size":3,"padding":1,"matrix":"v2"}{}`, 1, fragfile.ErrFormat, "text after the object"},
		{"long line", `{"m":2,"size":3,"padding":1,"matrix":"` + strings.Repeat(" ", 1024), 1, fragfile.ErrFormat, "more than 1024 bytes"},
		{"another session", session + session, 2, fragfile.ErrFormat, "a session where a fragment belongs"},
		{"index zero", session + `{"n":0,"data":"010203"}`, 2, fragmentation.ErrIndex, "0, want 1..16383"},
		{"index too large", session + `{"n":16384,"data":"010203"}`, 2, fragmentation.ErrIndex, "16384"},
		{"index missing", session + `{"data":"010203"}`, 2, fragfile.ErrFormat, `"n" is missing`},
		{"index huge", session + `{"n":1e99,"data":"010203"}`, 2, fragfile.ErrFormat, "n: "},
		{"data short", session + `{"n":1,"data":"0102"}`, 2, fragmentation.ErrSize, "fragment 1 has 2 bytes, the session says 3"},
		{"data long", session + `{"n":1,"data":"01020304"}`, 2, fragmentation.ErrSize, "4 bytes"},
		{"data no hex", session + `{"n":1,"data":"01020g"}`, 2, fragfile.ErrFormat, "not hexadecimal"},
		{"data odd", session + `{"n":1,"data":"01020"}`, 2, fragfile.ErrFormat, "not hexadecimal"},
		{"data missing", session + `{"n":1}`, 2, fragfile.ErrFormat, `"data" is missing`},
		{"empty line between", session + "\n" + `{"n":1,"data":"010203"}`, 2, fragfile.ErrFormat, "not a JSON object"},
		{"unknown key", session + `{"n":1,"data":"010203","rssi":-90}`, 2, fragfile.ErrFormat, `unknown key "rssi"`},
		{"second fragment", session + `{"n":1,"data":"010203"}` + "\n" + `{"n":2}`, 3, fragfile.ErrFormat, `"data" is missing`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := readAll(strings.NewReader(tt.file))
			var at *fragfile.LineError
			if !errors.As(err, &at) || at.Line != tt.line || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.say) {
				t.Errorf("%v, want line %d, %v and %q", err, tt.line, tt.want, tt.say)
			}
		})
	}
}

func readAll(in io.Reader) error {
	r, err := fragfile.NewReader(in)
	for err == nil {
		_, _, err = r.Next()
	}
	if err == io.EOF {
		return nil
	}
	if r != nil {
		if _, _, again := r.Next(); again != err {
			return errors.New("the error does not stick")
		}
	}
	return err
}

func TestReaderAcceptsForeignWriting(t *testing.T) {
	file := " { \"matrix\" : \"v2\", \"size\":3, \"padding\":1,\t\"m\":2 }\r\n{\"data\":\"0A0b0C\",\"n\":2}"
	r, err := fragfile.NewReader(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if n, data, err := r.Next(); n != 2 || !bytes.Equal(data, []byte{10, 11, 12}) || err != nil {
		t.Errorf("Next = %d, %x, %v", n, data, err)
	}
}

func TestReaderPassesReadErrorsOn(t *testing.T) {
	broken := errors.New("cable unplugged")
	in := io.MultiReader(strings.NewReader(session), iotest.ErrReader(broken))
	if err := readAll(in); !errors.Is(err, broken) {
		t.Errorf("%v, want the cause", err)
	}
}

// Whatever the reader accepts is a valid session with fragments of its size, and writing that
// down again gives a file with the same meaning.
func FuzzReader(f *testing.F) {
	f.Add([]byte(session + `{"n":1,"data":"010203"}` + "\n" + `{"n":7,"data":"AABBCC"}`))
	f.Add([]byte(session))
	f.Add([]byte(`{"m":2,"m":3}`))
	f.Add([]byte("{\"m\":1,\"size\":1,\"padding\":0,\"matrix\":\"v2abs\"}\r\n{\"n\":16383,\"data\":\"ff\"}\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		if err := rewrite(&out, bytes.NewReader(in)); err != nil {
			if !errors.As(err, new(*fragfile.LineError)) {
				t.Fatalf("%v is no LineError", err)
			}
			return
		}
		once := out.String()
		out.Reset()
		if err := rewrite(&out, strings.NewReader(once)); err != nil || out.String() != once {
			t.Fatalf("%q reads back as %q, %v", once, out.String(), err)
		}
	})
}

func rewrite(out io.Writer, in io.Reader) error {
	r, err := fragfile.NewReader(in)
	if err != nil {
		return err
	}
	w, err := fragfile.NewWriter(out, r.Session())
	if err != nil {
		return err
	}
	for {
		n, data, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := w.Write(n, data); err != nil {
			return err
		}
	}
}
