package campaign

import (
	"fmt"
	"time"

	"github.com/sower-fuota/sower/engine/session"
)

// Policy holds the rules of a campaign. The zero value starts when it is told to, asks nobody, works at any time and
// stops by the thresholds of [Thresholds].
type Policy struct {
	Approvals  int              // of different people, before the campaign may start; 0: none
	FourEyes   bool             // an approval by the creator does not count
	NotBefore  time.Time        // nothing is sent before; zero: no limit
	Calendar   session.Calendar // maintenance windows: nothing is sent outside; zero: none
	Thresholds Thresholds       // of waves that have none of their own
}

// Thresholds say when a wave is bad enough to stop. Shares are 0..1; a zero value means the default named here, and a
// share of 1 is never exceeded. They are judged in each cohort, that is the devices of one hardware id that came from
// one version, and in the wave without the cohorts that have been stopped.
//
// Failures are a share of the devices with a valid image or a failure after the block, silence is one of those that
// were rebooted. While the wave runs, both are judged as if at least MinSamples devices had come so far, or all if
// there are fewer, so that the first bad device does not stop a large wave. At the end all three are judged as they are.
type Thresholds struct {
	MinSuccess float64 // least share of updated devices at the end, of those that were reached; 0.90; negative: none
	MaxFailure float64 // most that fail to verify, patch, boot or confirm; 0.10
	MaxSilence float64 // most that are not heard again after the block or the reboot; 0.05
	MinSamples int     // 20
}

// Lenient never stops a campaign.
var lenient = Thresholds{MinSuccess: -1, MaxFailure: 1, MaxSilence: 1}

func (t Thresholds) withDefaults() Thresholds {
	def := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&t.MinSuccess, 0.90)
	def(&t.MaxFailure, 0.10)
	def(&t.MaxSilence, 0.05)
	if t.MinSamples == 0 {
		t.MinSamples = 20
	}
	return t
}

func (t Thresholds) validate() error {
	for _, s := range []struct {
		name  string
		share float64
		least float64
	}{{"MinSuccess", t.MinSuccess, -1}, {"MaxFailure", t.MaxFailure, 0}, {"MaxSilence", t.MaxSilence, 0}} {
		if !(s.share >= s.least && s.share <= 1) {
			return fmt.Errorf("%s is %v, want a share of 0..1", s.name, s.share)
		}
	}
	if t.MinSamples < 0 {
		return fmt.Errorf("MinSamples is %d, want 0 or more", t.MinSamples)
	}
	return nil
}

// thresholds returns those of a wave.
func (c *Campaign) thresholds(wave int) Thresholds {
	t := c.spec.Waves[wave].Thresholds
	if t == (Thresholds{}) {
		t = c.spec.Policy.Thresholds
	}
	return t.withDefaults()
}

func (s *Spec) validate() error {
	p := s.Policy
	switch {
	case s.ID == "":
		return fmt.Errorf("%w: no ID", ErrSpec)
	case p.Approvals < 0:
		return fmt.Errorf("%w: campaign %s asks for %d approvals, want 0 or more", ErrSpec, s.ID, p.Approvals)
	case len(s.Waves) > 0 && s.Waves[0].Rescue:
		return fmt.Errorf("%w: the first wave of campaign %s cannot be a rescue wave", ErrSpec, s.ID)
	case len(s.Waves) > 0 && s.Waves[0].Gate:
		return fmt.Errorf("%w: the first wave of campaign %s cannot have a gate; ask for approvals", ErrSpec, s.ID)
	}
	if err := p.Calendar.Validate(); err != nil {
		return fmt.Errorf("%w: campaign %s: %w", ErrSpec, s.ID, err)
	}
	if err := p.Thresholds.validate(); err != nil {
		return fmt.Errorf("%w: campaign %s: %w", ErrSpec, s.ID, err)
	}
	for _, w := range s.Waves {
		switch err := w.Thresholds.validate(); {
		case err != nil:
			return fmt.Errorf("%w: wave %s of campaign %s: %w", ErrSpec, w.Name, s.ID, err)
		case len(w.Sessions) == 0:
			return fmt.Errorf("%w: wave %s of campaign %s has no sessions", ErrSpec, w.Name, s.ID)
		case w.Soak < 0:
			return fmt.Errorf("%w: wave %s of campaign %s soaks for %s, want 0 or more", ErrSpec, w.Name, s.ID, w.Soak)
		}
	}
	return nil
}
