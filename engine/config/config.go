// Package config reads the files that operators write: sower.toml with the settings of an installation, and
// campaign files. Both are TOML, read strictly: a key that is not known is a problem, not a shrug.
//
// All problems of a file are found in one reading, each with file, line and remedy; see [Problems]. The package
// takes bytes and gives values; it opens no file, asks no network and knows no time.
package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"` // from 1; 0: the file as a whole
	Text   string `json:"problem"`        // what is wrong, with the value
	Remedy string `json:"remedy"`         // what to do about it
}

// String returns "FILE:LINE: text; remedy".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	fmt.Fprintf(&b, ": %s", p.Text)
	if p.Remedy != "" {
		fmt.Fprintf(&b, "; %s", p.Remedy)
	}
	return b.String()
}

// Problems is an error that lists everything that was found.
type Problems []Problem

// Error returns one line for a single problem, else their number and a line each.
func (ps Problems) Error() string {
	if len(ps) == 1 {
		return ps[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d problems", len(ps))
	for _, p := range ps {
		b.WriteString("\n  ")
		b.WriteString(p.String())
	}
	return b.String()
}

// Err returns the problems in the order of files and lines, or nil if there are none.
func (ps Problems) Err() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return ps
}

// Duration is a length of time, written as a string such as "1h30m".
type Duration time.Duration

// UnmarshalText reads the form of [time.ParseDuration].
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no duration such as \"90s\" or \"1h30m\"", b)
	}
	*d = Duration(v)
	return nil
}

// Document is a file that has been read: it knows on which line each key stands, and gathers problems.
type Document struct {
	File     string
	Problems Problems
	lines    map[string]int
}

// Line returns the line of a key such as "radio.data_rate", "wave[1].percent" or "devices.list[3]"; of the
// nearest key around it if it is not written; 0 if nothing around it is.
func (d *Document) Line(key string) int {
	for {
		if n, ok := d.lines[key]; ok {
			return n
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
}

// Has reports whether a key is written in the file.
func (d *Document) Has(key string) bool { _, ok := d.lines[key]; return ok }

// Add notes a problem of a key.
func (d *Document) Add(key, remedy, format string, args ...any) {
	d.Problems = append(d.Problems, Problem{File: d.File, Line: d.Line(key), Text: fmt.Sprintf(format, args...), Remedy: remedy})
}

// read parses text into v, a pointer to a struct, and notes what does not fit. hints are remedies for keys that
// are unknown but expected.
func read(file string, text []byte, v any, hints map[string]string) *Document {
	d := &Document{File: file, lines: map[string]int{}}
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		line := 0
		var de *toml.DecodeError
		if errors.As(err, &de) {
			line, _ = de.Position()
		}
		d.Problems = append(d.Problems, Problem{File: file, Line: line, Text: strings.TrimPrefix(err.Error(), "toml: "),
			Remedy: "correct the TOML; what follows this line was not read"})
		return d
	}
	d.index(text)
	b := binder{doc: d, hints: hints}
	b.bind("", tree, reflect.ValueOf(v).Elem())
	return d
}

// index notes the line of each key.
func (d *Document) index(text []byte) {
	var p unstable.Parser
	p.Reset(text)
	tables := map[string]int{} // arrays of tables: how many so far
	prefix := ""
	line := func(r unstable.Range) int { return 1 + bytes.Count(text[:r.Offset], []byte("\n")) }
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			prefix = ""
			at := 0
			for it := e.Key(); it.Next(); {
				prefix = join(prefix, string(it.Node().Data))
				at = line(it.Node().Raw)
				last := it.IsLast() && e.Kind == unstable.ArrayTable
				if last {
					tables[prefix]++
				}
				if n := tables[prefix]; n > 0 {
					if _, ok := d.lines[prefix]; !ok {
						d.lines[prefix] = at
					}
					prefix = fmt.Sprintf("%s[%d]", prefix, n-1)
				}
			}
			d.lines[prefix] = at
		case unstable.KeyValue:
			d.value(&p, prefix, e, line)
		}
	}
}

func (d *Document) value(p *unstable.Parser, prefix string, e *unstable.Node, line func(unstable.Range) int) {
	at := 0
	for it := e.Key(); it.Next(); {
		prefix = join(prefix, string(it.Node().Data))
		at = line(it.Node().Raw)
		if _, ok := d.lines[prefix]; !ok {
			d.lines[prefix] = at
		}
	}
	d.elements(p, prefix, e.Value(), at, line)
}

// elements notes the lines of what is inside a value.
func (d *Document) elements(p *unstable.Parser, key string, v *unstable.Node, at int, line func(unstable.Range) int) {
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			d.value(p, key, it.Node(), line)
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); {
			n := it.Node()
			if n.Kind == unstable.Comment {
				continue
			}
			if n.Raw.Length > 0 {
				at = line(n.Raw)
			}
			element := fmt.Sprintf("%s[%d]", key, i)
			d.lines[element] = at
			d.elements(p, element, n, at, line)
			i++
		}
	}
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

// binder moves a tree of TOML values into structs. Unlike a decoder it goes on after a problem.
type binder struct {
	doc   *Document
	hints map[string]string
}

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	timeType        = reflect.TypeFor[time.Time]()
)

func (b *binder) bind(key string, from any, to reflect.Value) {
	wrong := func(want string) {
		b.doc.Add(key, "write "+want, "%s is %s", key, describe(from))
	}
	switch {
	case to.Kind() == reflect.Pointer:
		to.Set(reflect.New(to.Type().Elem()))
		b.bind(key, from, to.Elem())
		return
	case to.Type() == timeType:
		t, ok := from.(time.Time)
		if !ok {
			wrong("a time with its offset, such as 2027-01-31T22:00:00Z, without quotes")
			return
		}
		to.Set(reflect.ValueOf(t))
		return
	case to.Addr().Type().Implements(textUnmarshaler):
		text, ok := from.(string)
		if n, isInt := from.(int64); isInt {
			text, ok = strconv.FormatInt(n, 10), true
		}
		if !ok {
			wrong("a string")
			return
		}
		if err := to.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			b.doc.Add(key, "correct the value", "%s: %s", key, err)
		}
		return
	}
	switch to.Kind() {
	case reflect.Struct:
		m, ok := from.(map[string]any)
		if !ok {
			wrong("a table, [" + key + "]")
			return
		}
		b.table(key, m, to)
	case reflect.Slice:
		list, ok := from.([]any)
		if !ok {
			if to.Type().Elem().Kind() == reflect.Struct && !reflect.PointerTo(to.Type().Elem()).Implements(textUnmarshaler) {
				wrong("[[" + key + "]], once for each")
			} else {
				wrong("a list in brackets")
			}
			return
		}
		to.Set(reflect.MakeSlice(to.Type(), len(list), len(list)))
		for i, v := range list {
			b.bind(fmt.Sprintf("%s[%d]", key, i), v, to.Index(i))
		}
	case reflect.Map: // of strings
		m, ok := from.(map[string]any)
		if !ok {
			wrong("a table such as { site = \"north\" }")
			return
		}
		to.Set(reflect.MakeMap(to.Type()))
		for k, v := range m {
			s, ok := v.(string)
			if !ok {
				b.doc.Add(join(key, k), "write a string", "%s is %s", join(key, k), describe(v))
				continue
			}
			to.SetMapIndex(reflect.ValueOf(k), reflect.ValueOf(s))
		}
	case reflect.String:
		s, ok := from.(string)
		if !ok {
			wrong("a string in quotes")
			return
		}
		to.SetString(s)
	case reflect.Bool:
		v, ok := from.(bool)
		if !ok {
			wrong("true or false")
			return
		}
		to.SetBool(v)
	case reflect.Float64:
		switch n := from.(type) {
		case float64:
			if math.IsNaN(n) || math.IsInf(n, 0) {
				wrong("a finite number")
				return
			}
			to.SetFloat(n)
		case int64:
			to.SetFloat(float64(n))
		default:
			wrong("a number")
		}
	case reflect.Int:
		n, ok := from.(int64)
		if !ok || n < 0 || n > math.MaxInt32 {
			wrong("a whole number, 0 or more")
			return
		}
		to.SetInt(n)
	case reflect.Uint32, reflect.Uint16, reflect.Uint8:
		n, ok := from.(int64)
		if top := int64(1)<<to.Type().Bits() - 1; !ok || n < 0 || n > top {
			wrong(fmt.Sprintf("a whole number, 0..%d", top))
			return
		}
		to.SetUint(uint64(n))
	default:
		panic("config: internal error: no rule for " + to.Type().String())
	}
}

// table binds the keys of a table, in the order of their lines.
func (b *binder) table(key string, m map[string]any, to reflect.Value) {
	var known []string
	fields := map[string]reflect.Value{}
	gather(to, fields, &known)
	for name, v := range m {
		full := join(key, name)
		if f, ok := fields[name]; ok {
			b.bind(full, v, f)
			continue
		}
		remedy, ok := b.hints[full]
		if !ok {
			remedy = "remove it; known here: " + strings.Join(known, ", ")
			if near := nearest(name, known); near != "" {
				remedy = fmt.Sprintf("did you mean %q?", near)
			}
		}
		b.doc.Add(full, remedy, "unknown key %q", full)
	}
}

// gather lists the keys of a struct, those of embedded ones included.
func gather(v reflect.Value, fields map[string]reflect.Value, known *[]string) {
	t := v.Type()
	for i := range t.NumField() {
		if t.Field(i).Anonymous {
			gather(v.Field(i), fields, known)
			continue
		}
		if name := t.Field(i).Tag.Get("toml"); name != "" {
			fields[name] = v.Field(i)
			*known = append(*known, name)
		}
	}
}

// describe says what a value is.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case int64, float64, bool, time.Time:
		return fmt.Sprint(v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return fmt.Sprintf("%v, a %T", v, v)
}

// nearest returns the known name that begins with it or takes the fewest edits, or nothing if these are more than
// a third of it.
func nearest(name string, known []string) string {
	best, least := "", len(name)/3+2
	for _, k := range known {
		if len(name) > 2 && strings.HasPrefix(k, name) {
			return k
		}
		if d := distance(name, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = min(diagonal, row[j], row[j+1]) + 1
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
