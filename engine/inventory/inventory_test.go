package inventory_test

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/multipackage"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
)

var (
	noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	dev  = network.EUI64{0x70, 0xb3}
	v110 = bundle.MakeVersion(1, 1, 0)
)

func fresh(t *testing.T, tags map[string]string, opt inventory.Options) (*inventory.Inventory, *inventory.Device) {
	t.Helper()
	inv := inventory.New(opt)
	if err := inv.Add(network.Device{EUI: dev, Name: "meter", Tags: tags, Battery: -1}); err != nil {
		t.Fatal(err)
	}
	return inv, inv.Device(dev)
}

func up(fcnt uint32, port uint8, payload []byte) network.Event {
	return network.Event{Kind: network.EventUplink, Device: dev, At: noon.Add(time.Duration(fcnt) * time.Minute), FCnt: fcnt, FPort: port, Payload: payload, SNR: float64(fcnt)}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestFactsInUplinks(t *testing.T) {
	rules := []inventory.Rule{{FPort: 2, Offset: 1}, {FPort: 3, Big: true}, {FPort: 4, Offset: 2, Battery: true}}
	tests := []struct {
		name    string
		port    uint8
		payload []byte
		want    string // version, packages, battery, each with its source
	}{
		{"TS006", 203, must(fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevVersionAns{FWVersion: uint32(v110)})), "1.1.0 TS006"},
		{"TS004", 201, must(datablock.AppendCommand(nil, applayer.V1, datablock.PackageVersionAns{PackageIdentifier: 3, PackageVersion: 1})), "v1 TS004"},
		{"TS007", 225, must(multipackage.AppendMessage(nil, multipackage.Versions{1}, multipackage.Message{Commands: []applayer.Command{multipackage.DevPackageAns{Packages: []multipackage.DevPackage{
			{PackageIdentifier: 1, PackageVersion: 1, FPort: 202}, {PackageIdentifier: 3, PackageVersion: 2, FPort: 201}}}}})), "v2 TS007"},
		{"report", 204, diag.AppendReport(nil, diag.Report{Version: uint32(v110), Cause: diag.CauseDeferredBattery, Detail: 5}), "1.1.0 report 5% report"},
		{"rule, little endian", 2, []byte{9, 0, 0, 1, 1}, "1.1.0 uplink"},
		{"rule, big endian", 3, []byte{1, 1, 0, 0}, "1.1.0 uplink"},
		{"rule, battery", 4, []byte{0, 0, 77}, "77% uplink"},
		{"rule, battery above 100", 4, []byte{0, 0, 255}, ""},
		{"rule, too short", 2, []byte{9, 0, 0, 1}, ""},
		{"rule of another port", 5, []byte{9, 0, 0, 1, 1}, ""},
		{"noise on a package port", 201, []byte{0, 9, 9}, ""},
		{"nothing", 0, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inv, d := fresh(t, nil, inventory.Options{Rules: rules})
			if !inv.Heard(up(1, tt.port, tt.payload)) {
				t.Fatal("the device is not known")
			}
			var got []string
			if d.Version.Known() {
				got = append(got, d.Version.Value.String()+" "+d.Version.Source)
			}
			if d.Packages.Known() {
				got = append(got, d.Packages.Value.String()+" "+d.Packages.Source)
			}
			if d.Battery.Known() {
				got = append(got, fmt.Sprintf("%d%% %s", d.Battery.Value, d.Battery.Source))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("%q, want %q", s, tt.want)
			}
		})
	}
}

func TestNewerFactsWin(t *testing.T) {
	inv, d := fresh(t, map[string]string{"fw": "1.0.0"}, inventory.Options{VersionTag: "fw"})
	if d.Version.Source != inventory.FromTag || d.Version.Value != bundle.MakeVersion(1, 0, 0) {
		t.Fatalf("version %+v", d.Version)
	}
	if _, ok := d.Version.Age(noon); ok {
		t.Error("a tag has an age")
	}
	ans := must(fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevVersionAns{FWVersion: uint32(v110)}))
	inv.Heard(up(5, 203, ans))
	old := must(fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevVersionAns{FWVersion: 1}))
	inv.Heard(up(3, 203, old)) // events may come late
	if d.Version.Value != v110 {
		t.Errorf("version %s, want that of the newest uplink", d.Version.Value)
	}
	if _, lines := inv.ReadCSV(strings.NewReader("dev_eui,version\n" + dev.String() + ",2.0.0\n")); len(lines) > 0 || d.Version.Value != v110 {
		t.Errorf("a file without a date replaced what was heard: %s, %v", d.Version.Value, lines)
	}
	if age, ok := d.Version.Age(noon.Add(time.Hour)); !ok || age != 55*time.Minute {
		t.Errorf("age %s", age)
	}
}

func TestLoss(t *testing.T) {
	inv, d := fresh(t, nil, inventory.Options{})
	if loss := d.Uplinks.Value.Loss(); loss != 0.1 {
		t.Errorf("loss of a device that was never heard: %v, want the prior of 0.1", loss)
	}
	for _, n := range []uint32{10, 11, 14, 13, 15, 400, 401} { // 12 lost, 13 late, a long absence
		inv.Heard(up(n, 1, nil))
	}
	inv.Heard(network.Event{Kind: network.EventJoin, Device: dev, At: noon.Add(500 * time.Minute)})
	for _, n := range []uint32{0, 1, 3} {
		ev := up(n, 1, nil)
		ev.At = noon.Add(501*time.Minute + time.Duration(n)*time.Minute)
		inv.Heard(ev)
	}
	if u := d.Uplinks.Value; u.Received != 9 || u.Lost != 3 {
		t.Errorf("%+v, want 9 received and 3 lost", u)
	}
	if d.SNR.Value != 11 || d.SNR.Source != inventory.FromUplink {
		t.Errorf("SNR %+v, want the median", d.SNR)
	}
	if inv.Heard(network.Event{Kind: network.EventUplink, Device: network.EUI64{1}}) {
		t.Error("a stranger was taken in")
	}
}

func TestCSVRoundTrip(t *testing.T) {
	inv, d := fresh(t, map[string]string{"fw": "1.0.0", "hw": "0x10"}, inventory.Options{VersionTag: "fw", HardwareTag: "hw"})
	inv.Heard(up(5, 204, diag.AppendReport(nil, diag.Report{Version: uint32(v110), Cause: diag.CauseDeferredBattery, Detail: 5})))
	inv.Heard(up(7, 201, must(datablock.AppendCommand(nil, applayer.V1, datablock.PackageVersionAns{PackageIdentifier: 3, PackageVersion: 2}))))
	d.Base.Offer(inventory.Digest{1, 2, 3}, inventory.FromCSV, noon)
	d.Class.Offer(0x1001, inventory.FromCSV, time.Time{})
	var file bytes.Buffer
	if err := inv.WriteCSV(&file); err != nil {
		t.Fatal(err)
	}
	back, b := fresh(t, nil, inventory.Options{})
	if strangers, lines := back.ReadCSV(bytes.NewReader(file.Bytes())); strangers > 0 || len(lines) > 0 {
		t.Fatalf("%d strangers, %v\n%s", strangers, lines, file.String())
	}
	for _, f := range []struct {
		name string
		a, b any
	}{{"version", d.Version, b.Version}, {"base", d.Base, b.Base}, {"hardware", d.Hardware, b.Hardware},
		{"class", d.Class, b.Class}, {"packages", d.Packages, b.Packages}, {"offers", d.Offers, b.Offers}, {"battery", d.Battery, b.Battery}, {"SNR", d.SNR, b.SNR}, {"uplinks", d.Uplinks, b.Uplinks}} {
		if !reflect.DeepEqual(f.a, f.b) {
			t.Errorf("%s: %+v was read as %+v", f.name, f.a, f.b)
		}
	}
	// A file that was read keeps its figures while new uplinks are counted on their own.
	back.Heard(up(9, 1, nil))
	if b.Uplinks.Value.Received < 1 {
		t.Errorf("uplinks %+v", b.Uplinks)
	}
}

func TestCSVRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "line 1: the file is empty"},
		{"no DevEUI", "version\n1.0.0\n", "line 1: no column dev_eui"},
		{"unknown column", "dev_eui,colour\n", `line 1: column "colour"`},
		{"column twice", "dev_eui,version,version\n", `line 1: column "version"`},
		{"no EUI", "dev_eui\nxyz\n", "line 2: network: EUI"},
		{"no version", "dev_eui,version\n" + dev.String() + ",one\n", "line 2: version: bundle: version"},
		{"no time", "dev_eui,version,version_at\n" + dev.String() + ",1.0.0,yesterday\n", "line 2: version_at"},
		{"battery", "dev_eui,battery_percent\n" + dev.String() + ",101\n", "line 2: battery_percent"},
		{"digest", "dev_eui,base_sha256\n" + dev.String() + ",01\n", "line 2: base_sha256"},
		{"SNR", "dev_eui,snr_db\n" + dev.String() + ",NaN\n", "line 2: snr_db"},
		{"hardware", "dev_eui,hardware_id\n" + dev.String() + ",65536\n", "line 2: hardware_id"},
		{"packages", "dev_eui,packages\n" + dev.String() + ",v3\n", "line 2: packages"},
		{"a package", "dev_eui,ts004\n" + dev.String() + ",v2\n", "line 2: ts004"},
		{"a package on port 0", "dev_eui,ts004\n" + dev.String() + ",v2:0\n", "line 2: ts004"},
		{"uplinks", "dev_eui,uplinks_received_lost\n" + dev.String() + ",5\n", "line 2: uplinks_received_lost"},
		{"quote", "dev_eui,version\n" + dev.String() + ",\"1\n", "line "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inv, d := fresh(t, nil, inventory.Options{})
			_, lines := inv.ReadCSV(strings.NewReader(tt.text))
			if len(lines) != 1 || !strings.HasPrefix(lines[0].Error(), tt.want) {
				t.Errorf("%v; want %q", lines, tt.want)
			}
			if d.Version.Known() || d.Battery.Known() || d.SNR.Known() {
				t.Errorf("a bad line was taken: %+v", d)
			}
		})
	}
	inv, d := fresh(t, nil, inventory.Options{})
	strangers, lines := inv.ReadCSV(strings.NewReader("dev_eui,version\n0000000000000001,1.0.0\nxyz,\n" + dev.String() + ",1.1.0\n"))
	if strangers != 1 || len(lines) != 1 || d.Version.Value != v110 {
		t.Errorf("%d strangers, %v, version %s: one bad line must not hide the good ones", strangers, lines, d.Version.Value)
	}
}

func TestBadTags(t *testing.T) {
	inv := inventory.New(inventory.Options{VersionTag: "fw", HardwareTag: "hw"})
	for _, tags := range []map[string]string{{"fw": "latest"}, {"hw": "rev B"}} {
		if err := inv.Add(network.Device{EUI: dev, Tags: tags, Battery: -1}); err == nil || !strings.Contains(err.Error(), dev.String()) {
			t.Errorf("tags %v: %v", tags, err)
		}
		if d := inv.Device(dev); d.Version.Known() || d.Hardware.Known() {
			t.Errorf("tags %v were taken: %+v", tags, d)
		}
	}
}

func FuzzReadCSV(f *testing.F) {
	f.Add("dev_eui,version,version_source,version_at\n70b3000000000000,1.0.0,x,2026-11-22T06:00:00Z\n")
	f.Fuzz(func(t *testing.T, text string) {
		inv := inventory.New(inventory.Options{})
		if err := inv.Add(network.Device{EUI: dev, Battery: -1}); err != nil {
			t.Fatal(err)
		}
		inv.ReadCSV(strings.NewReader(text))
		// Whatever was taken can be written and read again.
		var file bytes.Buffer
		if err := inv.WriteCSV(&file); err != nil {
			t.Fatal(err)
		}
		if _, lines := inv.ReadCSV(&file); len(lines) > 0 {
			t.Errorf("%v in what was written", lines)
		}
	})
}
