package prepare

import (
	"context"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/config"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/session"
)

// Keys makes address and key of a multicast group. Both must be random and new for each session.
type Keys func() (mcAddr uint32, mcKey network.Key, err error)

// Counts remembers the counters of fragmentation sessions (TS004 v2 SessionCnt), which a device accepts once.
type Counts interface {
	// NextSessionCnt returns for each device a SessionCnt above all that were ever used with it.
	NextSessionCnt(ctx context.Context, devices []network.EUI64) (map[network.EUI64]uint16, error)
}

// group names a session and its group on the server, counted from 1.
func (c *Campaign) group(i int) string { return fmt.Sprintf("%s.%d", c.File.Name, i+1) }

// Spec returns what the engine is to run: the sessions of the schedule, wave by wave; the caller adds the Creator. Without counts every device
// starts at 0, which is right for devices that never had a session and for version 1.
func (c *Campaign) Spec(ctx context.Context, keys Keys, counts Counts) (campaign.Spec, error) {
	spec := campaign.Spec{ID: c.File.Name, Application: c.File.Application, Policy: c.policy()}
	updates := map[string]plan.Update{}
	for _, u := range c.updates {
		updates[u.Name] = u
	}
	var next map[network.EUI64]uint16
	if counts != nil {
		var all []network.EUI64
		for _, s := range c.Schedule.Sessions {
			all = append(all, s.Devices...)
		}
		var err error
		if next, err = counts.NextSessionCnt(ctx, all); err != nil {
			return campaign.Spec{}, err
		}
	}
	for i, s := range c.Schedule.Sessions {
		if n := len(spec.Waves); n == 0 || spec.Waves[n-1].Name != s.Wave {
			spec.Waves = append(spec.Waves, c.wave(s.Wave))
		}
		u := updates[s.Bundle]
		target, err := version(u)
		if err != nil {
			return campaign.Spec{}, fmt.Errorf("bundle %s: %w", s.Bundle, err)
		}
		ss := session.Spec{ID: c.group(i), Application: c.File.Application, Block: u.Block, Target: uint32(target), Plan: s.Plan,
			Gateways: s.Gateways, Descriptor: c.File.Radio.Descriptor, MinBattery: c.File.Energy.MinBattery, Calendar: c.calendar(), Capabilities: c.caps,
			Timing: c.timing(), Limits: c.limits()}
		if b := s.Plan.ClassB; b != nil {
			ss.ClassB = &session.ClassB{Periodicity: b.Periodicity}
		}
		if u.Raw != nil {
			if ss.Raw, err = c.raw(); err != nil {
				return campaign.Spec{}, err
			}
		}
		if ss.McAddr, ss.McKey, err = keys(); err != nil {
			return campaign.Spec{}, fmt.Errorf("multicast key of session %s: %w", ss.ID, err)
		}
		for _, eui := range s.Devices {
			d := c.devices[eui]
			ss.Devices = append(ss.Devices, session.Target{EUI: eui, LoRaWAN11: d.LoRaWAN11, SessionCnt: next[eui],
				Hardware: d.Hardware.Value, From: uint32(d.Version.Value), Battery: d.Battery.Value})
		}
		w := &spec.Waves[len(spec.Waves)-1]
		w.Sessions = append(w.Sessions, ss)
	}
	return spec, nil
}

// version returns what devices run after an update; 0: nobody knows.
func version(u plan.Update) (bundle.Version, error) {
	if u.Raw == nil {
		m, err := bundle.ParseManifest(u.Block)
		return m.Version, err
	}
	if u.Raw.Version == nil {
		return 0, nil
	}
	return *u.Raw.Version, nil
}

// raw translates the proof of a raw-block campaign.
func (c *Campaign) raw() (*session.Raw, error) {
	p := c.File.Proof
	r := &session.Raw{}
	if err := r.Proof.UnmarshalText([]byte(p.By)); err != nil {
		return nil, err
	}
	if r.Proof == session.ProofUplink {
		r.FPort, r.Offset, r.Bytes = p.FPort, p.Offset, []byte(p.Bytes)
	}
	return r, nil
}

// wave returns a wave without sessions, with its rules.
func (c *Campaign) wave(name string) campaign.Wave {
	out := campaign.Wave{Name: name}
	for _, w := range c.File.Waves {
		if w.Name != name {
			continue
		}
		out.Gate, out.Soak, out.Rescue = w.Gate, time.Duration(w.Soak), w.Rescue
		if w.Limits != (config.Limits{}) {
			out.Thresholds = thresholds(w.Limits.Or(c.File.Policy.Limits))
		}
	}
	return out
}

// calendar translates the maintenance windows of the file.
func (c *Campaign) calendar() session.Calendar {
	cal := session.Calendar{Offset: time.Duration(c.File.Maintenance.Offset)}
	for _, w := range c.File.Maintenance.Windows {
		span := session.Span{From: time.Duration(w.From), To: time.Duration(w.To)}
		for _, d := range w.Days {
			span.Days[d] = true
		}
		cal.Spans = append(cal.Spans, span)
	}
	return cal
}

func (c *Campaign) timing() session.Timing {
	t := c.File.Timing
	return session.Timing{UplinkInterval: time.Duration(t.UplinkInterval), Silence: time.Duration(t.Silence), Defer: time.Duration(t.Defer)}
}

func (c *Campaign) limits() session.Limits {
	r := c.File.Repair
	l := session.Limits{Windows: r.Windows, TopUp: r.PerDevice, Fragments: r.Fragments, Tail: r.Unicast,
		Proof: c.File.Proof.Uplinks, Resets: c.File.Proof.Resets}
	if l.Tail == 0 {
		l.Tail = -1 // a zero would mean the default of the session
	}
	return l
}

// policy translates the rules of the file.
func (c *Campaign) policy() campaign.Policy {
	p := c.File.Policy
	begin := c.File.Start
	if c.begin.After(begin) {
		begin = c.begin
	}
	return campaign.Policy{Approvals: p.Approvals, FourEyes: p.FourEyes, NotBefore: begin, Thresholds: thresholds(p.Limits)}
}

// thresholds translates limits; those that are not written keep the default of package campaign.
func thresholds(l config.Limits) campaign.Thresholds {
	var t campaign.Thresholds
	share := func(to *float64, percent *float64, none float64) {
		if percent == nil {
			return
		}
		if *to = *percent / 100; *to == 0 {
			*to = none
		}
	}
	share(&t.MinSuccess, l.MinSuccess, -1)
	// A single device is more than this share of any fleet.
	share(&t.MaxFailure, l.MaxFailure, 1e-9)
	share(&t.MaxSilence, l.MaxSilence, 1e-9)
	if l.MinSamples != nil {
		t.MinSamples = *l.MinSamples
	}
	return t
}
