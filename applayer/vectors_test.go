package applayer_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
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
	parse    func(applayer.Version, applayer.Direction, []byte) (applayer.Command, []byte, error)
	parseAll func(applayer.Version, applayer.Direction, []byte) ([]applayer.Command, error)
	append   func([]byte, applayer.Version, applayer.Command) ([]byte, error)
}

var codecs = map[string]codec{
	"TS003": makeCodec(clocksync.ParseCommand, clocksync.Parse, clocksync.AppendCommand),
	"TS004": makeCodec(datablock.ParseCommand, datablock.Parse, datablock.AppendCommand),
	"TS005": makeCodec(mcsetup.ParseCommand, mcsetup.Parse, mcsetup.AppendCommand),
	"TS006": makeCodec(fwmgmt.ParseCommand, fwmgmt.Parse, fwmgmt.AppendCommand),
	"TS007": makeCodec(multipackage.ParseCommand, multipackage.Parse, multipackage.AppendCommand),
}

func makeCodec[C applayer.Command](
	parse func(applayer.Version, applayer.Direction, []byte) (C, []byte, error),
	parseAll func(applayer.Version, applayer.Direction, []byte) ([]C, error),
	appendCommand func([]byte, applayer.Version, C) ([]byte, error),
) codec {
	return codec{
		parse: func(v applayer.Version, dir applayer.Direction, b []byte) (applayer.Command, []byte, error) {
			cmd, rest, err := parse(v, dir, b)
			return cmd, rest, err
		},
		parseAll: func(v applayer.Version, dir applayer.Direction, b []byte) ([]applayer.Command, error) {
			cmds, err := parseAll(v, dir, b)
			var all []applayer.Command
			for _, c := range cmds {
				all = append(all, c)
			}
			return all, err
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

// groups sorts the vectors by package, version and direction.
func groups(t *testing.T) map[string][]vector {
	g := map[string][]vector{}
	for _, v := range loadVectors(t) {
		if v.Package != "TS007" {
			key := fmt.Sprintf("%s/v%d/%s", v.Package, v.Version, v.Direction)
			g[key] = append(g[key], v)
		}
	}
	return g
}

// One message with all commands of a group is read as these commands. An unknown CID ends it: what
// is behind is lost, what is before is not.
func TestManyCommandsInAMessage(t *testing.T) {
	for name, vs := range groups(t) {
		t.Run(name, func(t *testing.T) {
			c := codecs[vs[0].Package]
			version, dir := vs[0].Version, vs[0].direction()
			var msg []byte
			var want []applayer.Command
			for _, v := range vs {
				if v.Command == "DataFragment" {
					continue
				}
				in := unhex(t, v.Hex)
				cmd, _, err := c.parse(version, dir, in)
				if err != nil {
					t.Fatal(err)
				}
				msg, want = append(msg, in...), append(want, cmd)
			}
			got, err := c.parseAll(version, dir, msg)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("Parse(%x) =\n %+v, %v, want\n %+v", msg, got, err, want)
			}
			got, err = c.parseAll(version, dir, append(append(msg[:len(msg):len(msg)], 0x77), msg...))
			if !errors.Is(err, applayer.ErrUnknownCID) || !reflect.DeepEqual(got, want) {
				t.Errorf("Parse(%x 77 ...) =\n %+v, %v, want ErrUnknownCID and\n %+v", msg, got, err, want)
			}
		})
	}
}

// Every command cut short is truncated, alone and behind another one.
func TestTruncatedCommands(t *testing.T) {
	for name, vs := range groups(t) {
		t.Run(name, func(t *testing.T) {
			c := codecs[vs[0].Package]
			version, dir := vs[0].Version, vs[0].direction()
			for _, v := range vs {
				in := unhex(t, v.Hex)
				whole := len(in)
				if v.Command == "DataFragment" {
					whole = 4 // any data will do
				}
				for n := range whole {
					cmd, _, err := c.parse(version, dir, in[:n])
					if !errors.Is(err, applayer.ErrShort) || cmd != nil {
						t.Errorf("%s: ParseCommand(%x) = %+v, %v, want ErrShort", v.Command, in[:n], cmd, err)
					}
					if n == 0 || v.Command == "DataFragment" {
						continue
					}
					first := []byte{0x00} // PackageVersionReq
					if dir == applayer.Uplink {
						first = []byte{0x00, 0x03, 0x02} // PackageVersionAns
					}
					msg := append(first, in[:n]...)
					cmds, err := c.parseAll(version, dir, msg)
					if !errors.Is(err, applayer.ErrShort) || len(cmds) != 1 {
						t.Errorf("%s: Parse(%x) = %+v, %v, want one command and ErrShort", v.Command, msg, cmds, err)
					}
				}
			}
		})
	}
}

func TestVersionsAndDirectionsThatDoNotExist(t *testing.T) {
	last := map[string]applayer.Version{"TS003": 2, "TS004": 2, "TS005": 2, "TS006": 1, "TS007": 1}
	for name, c := range codecs {
		for _, v := range []applayer.Version{0, last[name] + 1, 255} {
			if _, _, err := c.parse(v, applayer.Downlink, []byte{0}); !errors.Is(err, applayer.ErrVersion) {
				t.Errorf("%s: ParseCommand in %v = %v, want ErrVersion", name, v, err)
			}
			cmd, _, err := c.parse(applayer.V1, applayer.Downlink, []byte{0})
			if err != nil {
				t.Fatal(err)
			}
			if out, err := c.append(nil, v, cmd); !errors.Is(err, applayer.ErrVersion) || out != nil {
				t.Errorf("%s: AppendCommand in %v = %x, %v, want ErrVersion", name, v, out, err)
			}
		}
		if _, _, err := c.parse(applayer.V1, applayer.Direction(7), []byte{0, 0, 0}); !errors.Is(err, applayer.ErrUnknownCID) {
			t.Errorf("%s: ParseCommand in direction 7 = %v, want ErrUnknownCID", name, err)
		}
	}
}
