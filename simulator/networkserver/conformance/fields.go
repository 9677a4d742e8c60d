package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// sample keeps the first event of each kind; the caller holds s.mu.
func (s *suite) sample(e event) {
	var log struct{ Code string }
	if json.Unmarshal(e.data, &log) == nil && log.Code != "" {
		e.kind += " " + log.Code
	}
	if s.samples[e.kind] == nil {
		s.samples[e.kind] = e.data
	}
}

// checkFields tells what the events said, field by field.
func (s *suite) checkFields() error {
	for _, kind := range slices.Sorted(maps.Keys(s.samples)) {
		var m any
		if err := json.Unmarshal(s.samples[kind], &m); err != nil {
			return fmt.Errorf("event %s: %w", kind, err)
		}
		s.fields(kind, m)
	}
	return nil
}

// message tells what a message of the API says, field by field, or only those whose names begin with one of several.
func (s *suite) message(name string, m proto.Message, only ...string) error {
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return err
	}
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	if len(only) > 0 {
		maps.DeleteFunc(v, func(key string, _ any) bool {
			return !slices.ContainsFunc(only, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
		})
	}
	s.fields(name, v)
	return nil
}

// fields writes a line for each value in a tree. Of a list it shows the first element.
func (s *suite) fields(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			s.fields(path+"."+key, v[key])
		}
		if len(v) == 0 {
			s.say("%s: {}", path)
		}
	case []any:
		if len(v) == 0 {
			s.say("%s: []", path)
			return
		}
		s.fields(path+"[]", v[0])
	default:
		s.say("%s: %s", path, value(path[strings.LastIndexByte(path, '.')+1:], v))
	}
}

var (
	uuids     = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	hexWords  = regexp.MustCompile(`^([0-9a-f]{8}|[0-9a-f]{16}|[0-9a-f]{32})$`)
	durations = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?s$`)
)

// varying are the fields whose values differ from run to run.
var varying = []string{"channel", "context", "data[]", "downlinkId", "fCnt", "fCntUp", "frequency", "nFCntDown", "rssi", "snr", "uplinkId"}

// value is a value without what differs from run to run.
func value(name string, v any) string {
	text, is := v.(string)
	switch {
	case slices.Contains(varying, name):
		return fmt.Sprintf("a %T", v)
	case !is:
		return fmt.Sprint(v)
	case text == "" || strings.Trim(text, "0") == "":
		return strconv.Quote(text)
	case uuids.MatchString(text):
		return "a UUID"
	case hexWords.MatchString(text):
		return fmt.Sprintf("%d hexadecimal digits", len(text))
	case durations.MatchString(text):
		return "a duration"
	case name == "label" && len(text) == 9:
		return "a frequency"
	case strings.HasSuffix(strings.ToLower(name), "name") && !strings.HasPrefix(name, "region"):
		return "a name"
	}
	if _, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return "a time"
	}
	return strconv.Quote(text)
}
