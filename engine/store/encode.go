package store

import (
	"encoding/json"
	"reflect"
	"sync"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/session"
)

// storedSpec is a campaign.Spec without blocks and keys, which have rows of their own.
type storedSpec struct {
	campaign.Spec
	Waves []storedWave // in place of those of the specification
}

type storedWave struct {
	campaign.Wave
	Sessions []storedSession
}

type storedSession struct {
	session.Spec
	Block []byte // its SHA-256
}

func storeSpec(spec campaign.Spec, digests [][]byte) ([]byte, error) {
	out := storedSpec{Spec: spec}
	for _, w := range spec.Waves {
		sw := storedWave{Wave: w}
		for _, ss := range w.Sessions {
			sw.Sessions = append(sw.Sessions, storedSession{ss, digests[0]})
			digests = digests[1:]
		}
		out.Waves = append(out.Waves, sw)
	}
	return json.Marshal(out)
}

// restoreSpec is the inverse of storeSpec; it returns the digests in the order of the sessions.
func restoreSpec(data []byte) (spec campaign.Spec, digests [][]byte, err error) {
	var in storedSpec
	if err := json.Unmarshal(data, &in); err != nil {
		return campaign.Spec{}, nil, err
	}
	for _, sw := range in.Waves {
		w := sw.Wave
		for _, ss := range sw.Sessions {
			w.Sessions = append(w.Sessions, ss.Spec)
			digests = append(digests, ss.Block)
		}
		in.Spec.Waves = append(in.Spec.Waves, w)
	}
	return in.Spec, digests, nil
}

// sparse is the JSON of a struct without the fields that are zero, which most are most of the time.
func sparse(v any) ([]byte, error) {
	val := reflect.ValueOf(v)
	return json.Marshal(val.Convert(sparseType(val.Type())).Interface())
}

var sparseTypes sync.Map // reflect.Type: the same with tags

// sparseType is a struct type with the fields of t, tagged to be left out when they are zero. Types that differ in
// their tags only can be converted.
func sparseType(t reflect.Type) reflect.Type {
	if st, ok := sparseTypes.Load(t); ok {
		return st.(reflect.Type)
	}
	var fields []reflect.StructField
	for i := range t.NumField() {
		f := t.Field(i)
		if _, tagged := f.Tag.Lookup("json"); !tagged {
			f.Tag = `json:",omitzero"`
		}
		fields = append(fields, f)
	}
	st := reflect.StructOf(fields)
	sparseTypes.Store(t, st)
	return st
}
