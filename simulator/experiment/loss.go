package experiment

import (
	"fmt"
	"math"
	"time"

	"github.com/sower-fuota/sower/simulator/radio"
)

// models are the loss models and the fields each of them reads, for messages.
var models = []string{"iid", "beta", "gilbert-elliott", "rayleigh", "trace"}

func (s *Scenario) completeLoss() error {
	l := &s.Loss
	defString(&l.Model, "iid")
	if !(l.P >= 0 && l.P <= 1) {
		return bad("loss.p", l.P, "0..1")
	}
	foreign := func(field string, set bool, model string) error {
		if set && l.Model != model {
			return bad(field, words("set"), "to be left out: model %q does not use it, %q does", l.Model, model)
		}
		return nil
	}
	for _, f := range []struct {
		field string
		set   bool
		model string
	}{
		{"loss.a", l.A != 0, "beta"}, {"loss.b", l.B != 0, "beta"},
		{"loss.burst", l.Burst != 0, "gilbert-elliott"}, {"loss.burst_time", l.BurstTime != 0, "gilbert-elliott"},
		{"loss.step", l.Step != 0, "gilbert-elliott"}, {"loss.loss_good", l.LossGood != 0, "gilbert-elliott"},
		{"loss.loss_bad", l.LossBad != 0, "gilbert-elliott"},
		{"loss.margin_db", l.Margin != 0, "rayleigh"}, {"loss.shadowing_db", l.Shadowing != 0, "rayleigh"},
		{"loss.coherence", l.Coherence != 0, "rayleigh"}, {"loss.file", l.File != "", "trace"},
	} {
		if err := foreign(f.field, f.set, f.model); err != nil {
			return err
		}
	}
	switch l.Model {
	case "iid":
	case "beta":
		for _, v := range []struct {
			field string
			x     float64
		}{{"loss.a", l.A}, {"loss.b", l.B}} {
			if !(v.x >= 0.01 && v.x <= 1000) {
				return bad(v.field, v.x, "0.01..1000")
			}
		}
	case "gilbert-elliott":
		if l.LossBad == 0 {
			l.LossBad = 1
		}
		if (l.Burst == 0) == (l.BurstTime == 0) {
			return bad("loss", words(fmt.Sprintf("burst %v, burst_time %v", l.Burst, time.Duration(l.BurstTime))), "exactly one of burst and burst_time")
		}
		for _, v := range []struct {
			field string
			x     float64
		}{{"loss.loss_good", l.LossGood}, {"loss.loss_bad", l.LossBad}} {
			if !(v.x >= 0 && v.x <= 1) {
				return bad(v.field, v.x, "0..1")
			}
		}
		if !(l.P >= l.LossGood && l.P <= l.LossBad) || l.LossGood == l.LossBad {
			return bad("loss.p", l.P, "a mean between loss_good %v and loss_bad %v", l.LossGood, l.LossBad)
		}
		if l.Burst != 0 && !(l.Burst >= 1 && l.Burst <= 1e5) {
			return bad("loss.burst", l.Burst, "1..100000 fragments")
		}
		if l.Step != 0 && time.Duration(l.Step) < time.Millisecond {
			return bad("loss.step", time.Duration(l.Step), "at least 1ms")
		}
	case "rayleigh":
		if !(l.Margin >= -50 && l.Margin <= 100) {
			return bad("loss.margin_db", l.Margin, "-50..100")
		}
		if !(l.Shadowing >= 0 && l.Shadowing <= 30) {
			return bad("loss.shadowing_db", l.Shadowing, "0..30")
		}
		if l.Coherence < 0 {
			return bad("loss.coherence", time.Duration(l.Coherence), "0s or more")
		}
	case "trace":
		if l.File == "" {
			return bad("loss.file", "", "the name of a CSV file device,time_s,lost")
		}
	default:
		return bad("loss.model", l.Model, "one of %q", models)
	}
	if (l.OutageEvery == 0) != (l.OutageFor == 0) {
		return bad("loss", words(fmt.Sprintf("outage_every %v, outage_for %v", time.Duration(l.OutageEvery), time.Duration(l.OutageFor))), "both or neither")
	}
	if l.OutageEvery != 0 && (time.Duration(l.OutageFor) < time.Second || time.Duration(l.OutageEvery) < time.Second) {
		return bad("loss.outage_for", time.Duration(l.OutageFor), "outages and pauses of at least 1s")
	}
	if l.Model == "trace" {
		return nil
	}
	_, err := s.loss(nil) // what the process itself refuses
	return err
}

// mean is the mean loss of the model, without outages; for planning.
func (l LossConfig) mean() float64 {
	switch l.Model {
	case "beta":
		return l.A / (l.A + l.B)
	case "rayleigh":
		return 1 - math.Exp(-math.Pow(10, -l.Margin/10))
	}
	return l.P
}

// loss builds the process; trace is needed for the model "trace".
func (s *Scenario) loss(trace *radio.Trace) (radio.Loss, error) {
	l := &s.Loss
	var p radio.Loss
	var err error
	switch l.Model {
	case "beta":
		p, err = radio.NewBeta(s.Seed, l.A, l.B)
	case "gilbert-elliott":
		g := radio.GilbertElliott{Step: time.Duration(l.Step), LossGood: l.LossGood, LossBad: l.LossBad}
		burst := l.Burst // in steps
		if l.BurstTime != 0 {
			if g.Step == 0 {
				g.Step = time.Second
			}
			burst = float64(l.BurstTime) / float64(g.Step)
		} else if g.Step == 0 {
			g.Step = s.spacing()
		} else {
			burst = float64(l.Burst) * float64(s.spacing()) / float64(g.Step)
		}
		if burst < 1 {
			return nil, bad("loss.burst_time", time.Duration(l.BurstTime), "at least the step of %v", g.Step)
		}
		share := (l.P - l.LossGood) / (l.LossBad - l.LossGood) // of time in the bad state
		if share == 1 {
			return nil, bad("loss.p", l.P, "below loss_bad %v, or the channel is never good", l.LossBad)
		}
		g.ToGood = 1 / burst
		g.ToBad = float64(g.ToGood*share) / (1 - share)
		if g.ToBad+g.ToGood > 1 {
			return nil, bad("loss.burst", burst, "at least %.3f steps of the channel for a loss of %v", 1/(1-share), l.P)
		}
		p, err = g.New(s.Seed)
	case "rayleigh":
		p, err = radio.NewRayleigh(s.Seed, l.Margin, l.Shadowing, time.Duration(l.Coherence))
	case "trace":
		p, err = trace.New(s.Seed)
	default:
		p, err = radio.NewBernoulli(s.Seed, l.P)
	}
	if err != nil {
		return nil, fmt.Errorf("experiment: loss: %w", err)
	}
	if l.OutageEvery != 0 {
		o, err := radio.Outages(^s.Seed, time.Second, time.Duration(l.OutageFor), time.Duration(l.OutageEvery))
		if err != nil {
			return nil, fmt.Errorf("experiment: loss.outage_for: %w", err)
		}
		p = radio.Any(p, o)
	}
	return p, nil
}
