package applayer_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/applayer/multipackage"
)

// vector is an entry of commands.json: bytes that independent implementations agree on.
type vector struct {
	Package   string
	Version   applayer.Version
	Direction string
	Command   string
	Fields    map[string]any
	Hex       string
}

func loadVectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("testdata/commands.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Commands []vector }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Commands
}

func (v vector) direction() applayer.Direction {
	if v.Direction == "uplink" {
		return applayer.Uplink
	}
	return applayer.Downlink
}

// codec is one package seen through [applayer.Command].
type codec struct {
	parse  func(applayer.Version, applayer.Direction, []byte) (applayer.Command, []byte, error)
	append func([]byte, applayer.Version, applayer.Command) ([]byte, error)
}

var codecs = map[string]codec{
	"TS003": makeCodec(clocksync.ParseCommand, clocksync.AppendCommand),
	"TS004": makeCodec(datablock.ParseCommand, datablock.AppendCommand),
	"TS005": makeCodec(mcsetup.ParseCommand, mcsetup.AppendCommand),
	"TS006": makeCodec(fwmgmt.ParseCommand, fwmgmt.AppendCommand),
	"TS007": makeCodec(multipackage.ParseCommand, multipackage.AppendCommand),
}

func makeCodec[C applayer.Command](
	parse func(applayer.Version, applayer.Direction, []byte) (C, []byte, error),
	appendCommand func([]byte, applayer.Version, C) ([]byte, error),
) codec {
	return codec{
		parse: func(v applayer.Version, dir applayer.Direction, b []byte) (applayer.Command, []byte, error) {
			return parse(v, dir, b)
		},
		append: func(dst []byte, v applayer.Version, cmd applayer.Command) ([]byte, error) {
			return appendCommand(dst, v, cmd.(C))
		},
	}
}

// renamed maps the names of version 1, and of the vectors, to ours.
var renamed = map[string]string{
	"ForceDeviceResyncReq":         "ForceDeviceResyncCmd",
	"FragmentationMatrix":          "FragAlgo",
	"EncodingUnsupported":          "FragAlgoUnsupported",
	"FragSessionIndexNotSupported": "FragIndexUnsupported",
	"NotEnoughMatrixMemory":        "MemoryError",
	"DLFreqHz":                     "DLFreq",
	"FWversion":                    "FWVersion",
	"HWversion":                    "HWVersion",
}

func ourName(s string) string {
	if n, ok := renamed[s]; ok {
		return n
	}
	return s
}

// Every command of the vectors is read into the struct of its name with the fields listed and no
// other, and is written back to the same bytes.
func TestCommandVectors(t *testing.T) {
	n := 0
	for _, v := range loadVectors(t) {
		if v.Package == "TS007" {
			continue // whole messages: TestMessageVectors in package multipackage
		}
		n++
		name := fmt.Sprintf("%s/v%d/%s/%s", v.Package, v.Version, v.Command, v.Hex)
		t.Run(name, func(t *testing.T) {
			c := codecs[v.Package]
			in := unhex(t, v.Hex)
			cmd, rest, err := c.parse(v.Version, v.direction(), in)
			if err != nil || len(rest) != 0 {
				t.Fatalf("ParseCommand(%s) = %+v, % x, %v", v.Hex, cmd, rest, err)
			}
			if got, want := reflect.TypeOf(cmd).Name(), ourName(v.Command); got != want {
				t.Fatalf("ParseCommand(%s) is a %s, want %s", v.Hex, got, want)
			}
			if cmd.CID() != in[0] || cmd.Direction() != v.direction() {
				t.Errorf("%T: CID %#x %v, want %#x %v", cmd, cmd.CID(), cmd.Direction(), in[0], v.direction())
			}
			if got, want := fieldsOf(cmd), ours(v.Fields); !reflect.DeepEqual(got, want) {
				t.Errorf("ParseCommand(%s):\n got %v\nwant %v", v.Hex, got, want)
			}
			out, err := c.append(nil, v.Version, cmd)
			if err != nil || !bytes.Equal(out, in) {
				t.Errorf("AppendCommand(%+v) = %x, %v, want %s", cmd, out, err, v.Hex)
			}
		})
	}
	if n != 93 {
		t.Errorf("%d vectors, want 93", n)
	}
}

// fieldsOf renders a command as the vectors do: numbers, 0 or 1 for flags, hex for bytes and
// addresses. Fields that are zero are left out.
func fieldsOf(cmd any) map[string]any {
	m := map[string]any{}
	v := reflect.ValueOf(cmd)
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		if f.IsZero() {
			continue
		}
		switch {
		case name == "McAddr":
			m[name] = fmt.Sprintf("%08x", f.Uint())
		case f.Kind() == reflect.Bool:
			m[name] = 1.0
		case f.CanUint():
			m[name] = float64(f.Uint())
		case f.CanInt():
			m[name] = float64(f.Int())
		case f.Type().Elem().Kind() == reflect.Uint8:
			m[name] = fmt.Sprintf("%x", f.Interface())
		default:
			var items []any
			for j := range f.Len() {
				items = append(items, fieldsOf(f.Index(j).Interface()))
			}
			m[name] = items
		}
	}
	if ans, ok := cmd.(mcsetup.McGroupStatusAns); ok { // computed, not a field
		m["AnsGroupMask"] = float64(ans.AnsGroupMask())
	}
	return m
}

// ours renames the fields of a vector and drops those that are 0.
func ours(fields map[string]any) map[string]any {
	m := map[string]any{}
	for name, value := range fields {
		if items, ok := value.([]any); ok {
			for i, item := range items {
				items[i] = ours(item.(map[string]any))
			}
		}
		if value != 0.0 {
			m[ourName(name)] = value
		}
	}
	return m
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
