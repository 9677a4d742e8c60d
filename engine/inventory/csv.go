package inventory

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
)

// column is one fact in a CSV file. Each may be followed by NAME_source and NAME_at.
type column struct {
	name string
	put  func(d *Device, text, source string, at time.Time) error
	get  func(d *Device) (text, source string, at time.Time)
}

// text takes apart a fact for a file.
func text[T any](f Fact[T], format func(T) string) (string, string, time.Time) {
	if !f.Known() {
		return "", "", time.Time{}
	}
	return format(f.Value), f.Source, f.At
}

func number[T int | uint16 | uint32](v T) string { return strconv.FormatUint(uint64(v), 10) }

// packageColumn is the fact about a package: "none", or "v1:200" with version and port.
func packageColumn(name string, id applayer.PackageID) column {
	return column{name,
		func(d *Device, s, source string, at time.Time) error {
			var o Offer
			if s != "none" {
				version, port, found := strings.Cut(strings.TrimPrefix(s, "v"), ":")
				v, err := strconv.ParseUint(version, 10, 8)
				p, err2 := strconv.ParseUint(port, 10, 8)
				if !found || err != nil || err2 != nil || v == 0 || p == 0 {
					return fmt.Errorf("%q is neither none nor vVERSION:FPORT", s)
				}
				o = Offer{applayer.Version(v), uint8(p)}
			}
			d.Offers[id].Offer(o, source, at)
			return nil
		},
		func(d *Device) (string, string, time.Time) { return text(d.Offers[id], Offer.String) }}
}

var columns = []column{
	{"version",
		func(d *Device, s, source string, at time.Time) error {
			v, err := bundle.ParseVersion(s)
			if err == nil {
				d.Version.Offer(v, source, at)
			}
			return err
		},
		func(d *Device) (string, string, time.Time) { return text(d.Version, bundle.Version.String) }},
	{"base_sha256",
		func(d *Device, s, source string, at time.Time) error {
			b, err := hex.DecodeString(s)
			if err != nil || len(b) < len(Digest{}) {
				return fmt.Errorf("%q is not at least 16 hexadecimal digits", s)
			}
			d.Base.Offer(Digest(b[:len(Digest{})]), source, at)
			return nil
		},
		func(d *Device) (string, string, time.Time) { return text(d.Base, Digest.String) }},
	{"hardware_id",
		func(d *Device, s, source string, at time.Time) error {
			n, err := parse(s, 16)
			if err == nil {
				d.Hardware.Offer(uint16(n), source, at)
			}
			return err
		},
		func(d *Device) (string, string, time.Time) { return text(d.Hardware, number[uint16]) }},
	{"device_class",
		func(d *Device, s, source string, at time.Time) error {
			n, err := parse(s, 32)
			if err == nil {
				d.Class.Offer(uint32(n), source, at)
			}
			return err
		},
		func(d *Device) (string, string, time.Time) { return text(d.Class, number[uint32]) }},
	{"packages",
		func(d *Device, s, source string, at time.Time) error {
			switch s {
			case "v1":
				d.Packages.Offer(applayer.V1, source, at)
			case "v2":
				d.Packages.Offer(applayer.V2, source, at)
			default:
				return fmt.Errorf("%q is neither v1 nor v2", s)
			}
			return nil
		},
		func(d *Device) (string, string, time.Time) { return text(d.Packages, applayer.Version.String) }},
	packageColumn("ts003", applayer.ClockSync),
	packageColumn("ts004", applayer.DataBlock),
	packageColumn("ts005", applayer.McSetup),
	packageColumn("ts006", applayer.FwMgmt),
	packageColumn("ts007", applayer.MultiPackage),
	{"battery_percent",
		func(d *Device, s, source string, at time.Time) error {
			n, err := parse(s, 16)
			if err == nil && n > 100 {
				err = fmt.Errorf("%q is above 100", s)
			}
			if err == nil {
				d.Battery.Offer(int(n), source, at)
			}
			return err
		},
		func(d *Device) (string, string, time.Time) { return text(d.Battery, number[int]) }},
	{"snr_db",
		func(d *Device, s, source string, at time.Time) error {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil || !(v >= -50 && v <= 50) {
				return fmt.Errorf("%q is no SNR in dB", s)
			}
			d.SNR.Offer(v, source, at)
			return nil
		},
		func(d *Device) (string, string, time.Time) {
			return text(d.SNR, func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) })
		}},
	{"uplinks_received_lost",
		func(d *Device, s, source string, at time.Time) error {
			a, b, found := strings.Cut(s, "+")
			received, err := strconv.ParseUint(a, 10, 31)
			lost, err2 := strconv.ParseUint(b, 10, 31)
			if !found || err != nil || err2 != nil {
				return fmt.Errorf("%q is not RECEIVED+LOST", s)
			}
			d.Uplinks.Offer(Uplinks{int(received), int(lost)}, source, at)
			return nil
		},
		func(d *Device) (string, string, time.Time) {
			return text(d.Uplinks, func(u Uplinks) string { return fmt.Sprintf("%d+%d", u.Received, u.Lost) })
		}},
}

func parse(s string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(s, 0, bits)
	if err != nil {
		return 0, fmt.Errorf("%q is no whole number of 0..%d", s, uint64(1)<<bits-1)
	}
	return n, nil
}

// WriteCSV writes all devices with all facts; [Inventory.ReadCSV] takes them.
func (inv *Inventory) WriteCSV(w io.Writer) error { return inv.UpdateCSV(w, nil) }

// UpdateCSV writes what WriteCSV writes, and from the file that it is to replace the comments at the beginning and the
// lines about devices that are not in the inventory. Columns without a meaning, other comments and lines that name no
// device are lost.
func (inv *Inventory) UpdateCSV(w io.Writer, old []byte) error {
	for line := range bytes.Lines(old) {
		if line[0] != '#' {
			break
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	out := csv.NewWriter(w)
	head := []string{"dev_eui", "name"}
	for _, c := range columns {
		head = append(head, c.name, c.name+"_source", c.name+"_at")
	}
	if err := out.Write(head); err != nil {
		return err
	}
	for _, d := range inv.Devices() {
		row := []string{d.EUI.String(), d.Name}
		for _, c := range columns {
			value, source, at := c.get(d)
			when := ""
			if !at.IsZero() {
				when = at.UTC().Format(time.RFC3339)
			}
			row = append(row, value, source, when)
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	if err := inv.strangers(out, head, old); err != nil {
		return err
	}
	out.Flush()
	return out.Error()
}

// strangers copies the lines of a file that are about devices which are not in the inventory, in the order of head.
func (inv *Inventory) strangers(out *csv.Writer, head []string, old []byte) error {
	in := csv.NewReader(bytes.NewReader(old))
	in.FieldsPerRecord = -1
	in.Comment = '#'
	names, err := in.Read()
	if errors.Is(err, io.EOF) {
		return nil
	}
	at := map[string]int{}
	for i, name := range names {
		at[columnName(name)] = i
	}
	for {
		row, err2 := in.Read()
		if err = cmp.Or(err, err2); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		cell := func(name string) string {
			if i, ok := at[name]; ok && i < len(row) {
				return strings.TrimSpace(row[i])
			}
			return ""
		}
		eui, err := network.ParseEUI64(cell("dev_eui"))
		if err != nil || inv.devices[eui] != nil {
			continue
		}
		var line []string
		for _, name := range head {
			line = append(line, cell(name))
		}
		if err := out.Write(line); err != nil {
			return err
		}
	}
}

// columnName is a name as it stands in the first line.
func columnName(text string) string {
	return strings.TrimPrefix(strings.TrimSpace(text), "\ufeff")
}

// LineError is a problem of one line of a CSV file.
type LineError struct {
	Line int
	Err  error
}

// Error returns "line N: cause".
func (e LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Err) }

// ReadCSV takes the facts of a file. Its first line names the columns: dev_eui, and any of version, base_sha256,
// hardware_id, device_class, packages, ts003..ts007, battery_percent, snr_db and uplinks_received_lost, each with an optional
// _source and _at (RFC 3339). Empty cells say nothing; facts about devices that the network server does not list
// are counted and ignored. It returns everything that is wrong with the file; what is right has been taken.
func (inv *Inventory) ReadCSV(r io.Reader) (strangers int, problems []LineError) {
	in := csv.NewReader(r)
	in.FieldsPerRecord = -1
	in.Comment = '#'
	head, err := in.Read()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty, want a line with the names of the columns")
		}
		return 0, []LineError{{1, err}}
	}
	at := map[string]int{}
	for i, name := range head {
		name = columnName(name)
		plain := strings.TrimSuffix(strings.TrimSuffix(name, "_source"), "_at")
		known := name == "dev_eui" || name == "name" ||
			slices.ContainsFunc(columns, func(c column) bool { return c.name == plain })
		if _, twice := at[name]; twice || !known {
			problems = append(problems, LineError{1, fmt.Errorf("column %q is unknown or named twice", name)})
		}
		at[name] = i
	}
	if _, ok := at["dev_eui"]; !ok {
		return 0, append(problems, LineError{1, errors.New("no column dev_eui")})
	}
	for {
		row, err := in.Read()
		if errors.Is(err, io.EOF) {
			return strangers, problems
		}
		var broken *csv.ParseError
		if errors.As(err, &broken) {
			return strangers, append(problems, LineError{broken.Line, broken.Err})
		}
		if err != nil {
			return strangers, append(problems, LineError{0, err})
		}
		line, _ := in.FieldPos(0)
		cell := func(name string) string {
			if i, ok := at[name]; ok && i < len(row) {
				return strings.TrimSpace(row[i])
			}
			return ""
		}
		eui, err := network.ParseEUI64(cell("dev_eui"))
		if err != nil {
			problems = append(problems, LineError{line, err})
			continue
		}
		d := inv.devices[eui]
		if d == nil {
			strangers++
			continue
		}
		for _, c := range columns {
			value := cell(c.name)
			if value == "" {
				continue
			}
			source, when := cell(c.name+"_source"), time.Time{}
			if source == "" {
				source = FromCSV
			}
			if s := cell(c.name + "_at"); s != "" {
				if when, err = time.Parse(time.RFC3339, s); err != nil {
					problems = append(problems, LineError{line, fmt.Errorf("%s_at %q is no time such as 2027-01-31T22:00:00Z", c.name, s)})
					continue
				}
			}
			if err := c.put(d, value, source, when); err != nil {
				problems = append(problems, LineError{line, fmt.Errorf("%s: %w", c.name, err)})
			}
		}
	}
}
