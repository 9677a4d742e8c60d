package radio

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Trace is a record of which frames devices received, and when.
type Trace struct {
	Devices []DeviceTrace // ordered by name
}

// DeviceTrace is what one device received, in order of time; not empty.
type DeviceTrace struct {
	Name    string
	Records []Record
}

// Record is the fate of one frame.
type Record struct {
	At   time.Duration // since the beginning of the trace
	Lost bool
}

const maxTraceTime = 100 * 365 * 24 * time.Hour

// ReadTrace reads CSV with the header "device,time_s,lost": any name, seconds since the beginning of the trace
// (0 or more, decimals allowed), 0 or 1. Rows may be in any order; two of a device at the same time are refused.
func ReadTrace(r io.Reader) (*Trace, error) {
	in := csv.NewReader(r)
	in.ReuseRecord = true
	in.TrimLeadingSpace = true
	header, err := in.Read()
	if err != nil || len(header) != 3 || header[0] != "device" || header[1] != "time_s" || header[2] != "lost" {
		return nil, fmt.Errorf("radio: trace: the first line is %q, want device,time_s,lost", strings.Join(header, ","))
	}
	found := map[string][]Record{}
	for {
		row, err := in.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("radio: trace: %w", err)
		}
		line, _ := in.FieldPos(0)
		at, err := strconv.ParseFloat(row[1], 64)
		if err != nil || !(at >= 0 && at <= maxTraceTime.Seconds()) {
			return nil, fmt.Errorf("radio: trace line %d: time_s %q, want seconds within 0..%.0f", line, row[1], maxTraceTime.Seconds())
		}
		if row[2] != "0" && row[2] != "1" {
			return nil, fmt.Errorf("radio: trace line %d: lost %q, want 0 or 1", line, row[2])
		}
		name := strings.Clone(row[0])
		found[name] = append(found[name], Record{time.Duration(math.Round(at * 1e9)), row[2] == "1"})
	}
	return newTrace(found)
}

func newTrace(found map[string][]Record) (*Trace, error) {
	if len(found) == 0 {
		return nil, errors.New("radio: trace: no rows")
	}
	t := &Trace{}
	for name, records := range found {
		slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.At, b.At) })
		for i := range records[1:] {
			if records[i].At == records[i+1].At {
				return nil, fmt.Errorf("radio: trace: device %q has two rows at %v s", name, records[i].At.Seconds())
			}
		}
		t.Devices = append(t.Devices, DeviceTrace{name, records})
	}
	slices.SortFunc(t.Devices, func(a, b DeviceTrace) int { return strings.Compare(a.Name, b.Name) })
	return t, nil
}

// Write writes the trace in the form that [ReadTrace] reads.
func (t *Trace) Write(w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{"device", "time_s", "lost"}); err != nil {
		return err
	}
	for _, d := range t.Devices {
		for _, r := range d.Records {
			lost := "0"
			if r.Lost {
				lost = "1"
			}
			if err := out.Write([]string{d.Name, strconv.FormatFloat(r.At.Seconds(), 'f', -1, 64), lost}); err != nil {
				return err
			}
		}
	}
	out.Flush()
	return out.Error()
}

// maxCounterGap is the longest run of losses that ReadUplinks believes; beyond it the device was off, or was reset.
const maxCounterGap = 1000

// ReadUplinks makes a trace of ChirpStack's uplink events, one JSON object in a line: "time", "fCnt" and
// "deviceInfo.devEui". Counters that are missing between two events of a device are frames lost, spread evenly over the
// time between; a counter that goes back, or ahead by more than 1000, begins anew. Lines without these fields (joins,
// acknowledgements) are passed over.
func ReadUplinks(r io.Reader) (*Trace, error) {
	type uplink struct {
		Time   time.Time
		FCnt   *uint32
		Device struct {
			DevEUI string `json:"devEui"`
		} `json:"deviceInfo"`
	}
	type heard struct {
		at   time.Time
		fcnt uint32
	}
	devices := map[string][]heard{}
	var epoch time.Time
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for line := 1; in.Scan(); line++ {
		if len(strings.TrimSpace(in.Text())) == 0 {
			continue
		}
		var u uplink
		if err := json.Unmarshal(in.Bytes(), &u); err != nil {
			return nil, fmt.Errorf("radio: uplinks line %d: %w", line, err)
		}
		if u.FCnt == nil || u.Device.DevEUI == "" || u.Time.IsZero() {
			continue
		}
		devices[u.Device.DevEUI] = append(devices[u.Device.DevEUI], heard{u.Time, *u.FCnt})
		if epoch.IsZero() || u.Time.Before(epoch) {
			epoch = u.Time
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("radio: uplinks: %w", err)
	}
	found := map[string][]Record{}
	for name, events := range devices {
		slices.SortStableFunc(events, func(a, b heard) int { return a.at.Compare(b.at) })
		var records []Record
		for i, e := range events {
			if i > 0 {
				last := events[i-1]
				if e.fcnt == last.fcnt || e.at.Equal(last.at) { // the same frame again
					continue
				}
				if gap := int64(e.fcnt) - int64(last.fcnt); gap > 1 && gap <= maxCounterGap {
					step := e.at.Sub(last.at) / time.Duration(gap)
					for k := range gap - 1 {
						records = append(records, Record{last.at.Sub(epoch) + time.Duration(k+1)*step, true})
					}
				}
			}
			records = append(records, Record{e.at.Sub(epoch), false})
		}
		found[name] = records
	}
	return newTrace(found)
}

// New returns the process that replays the trace: a frame meets the fate of the last record before it, or of the first
// if there is none; at the end of the records of a device they begin anew. Devices 0, 1, ... take the devices of the
// trace in order; when there are more, and in streams other than 0, each begins at an instant of its own.
func (t *Trace) New(seed uint64) (Loss, error) {
	if len(t.Devices) == 0 {
		return nil, errors.New("radio: the trace has no devices")
	}
	for _, d := range t.Devices {
		if len(d.Records) == 0 {
			return nil, fmt.Errorf("radio: device %q of the trace has no records", d.Name)
		}
	}
	return replay{t, seed}, nil
}

type replay struct {
	trace *Trace
	seed  uint64
}

// of finds the records of a link, and by how much it runs ahead of them.
func (m replay) of(l Link) (records []Record, ahead time.Duration) {
	n := uint64(len(m.trace.Devices))
	records = m.trace.Devices[l.Device%n].Records
	if l.Device >= n || l.Stream != 0 {
		ahead = time.Duration(key(m.seed, purposeOffset, l, 0) % uint64(length(records)))
	}
	return records, ahead
}

// length is the time after which a device's records repeat: the last one is given the mean distance of the others.
func length(records []Record) time.Duration {
	last := records[len(records)-1].At
	return max(1, last+last/time.Duration(max(1, len(records)-1)))
}

func (m replay) Lost(l Link, s Slot) bool {
	records, ahead := m.of(l)
	at := (s.At + ahead) % length(records)
	i, exact := slices.BinarySearchFunc(records, at, func(r Record, at time.Duration) int { return cmp.Compare(r.At, at) })
	if !exact {
		i = max(0, i-1)
	}
	return records[i].Lost
}

func (m replay) Sampler(slots []Slot) Sampler { return replaySampler{m, slices.Clone(slots)} }

type replaySampler struct {
	replay
	slots []Slot
}

func (s replaySampler) Fill(lost []uint64, l Link) {
	clear(lost[:(len(s.slots)+63)/64])
	for i, slot := range s.slots {
		if s.Lost(l, slot) {
			lost[i>>6] |= 1 << (i & 63)
		}
	}
}
