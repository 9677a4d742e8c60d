package inventory

import (
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
func (inv *Inventory) WriteCSV(w io.Writer) error {
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
	out.Flush()
	return out.Error()
}

// LineError is a problem of one line of a CSV file.
type LineError struct {
	Line int
	Err  error
}

// Error returns "line N: cause".
func (e LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Err) }

// ReadCSV takes the facts of a file. Its first line names the columns: dev_eui, and any of version, base_sha256,
// hardware_id, device_class, packages, battery_percent, snr_db and uplinks_received_lost, each with an optional
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
		name = strings.TrimPrefix(strings.TrimSpace(name), "\ufeff")
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
