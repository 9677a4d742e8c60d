package campaign

import (
	"time"

	"github.com/sower-fuota/sower/engine/session"
)

// Progress is a snapshot for display. Devices are counted in the last session that they took part in.
type Progress struct {
	Campaign  string             `json:"campaign"`
	Phase     Phase              `json:"phase"`
	Halted    string             `json:"halted,omitempty"`
	Wave      string             `json:"wave"`
	Wait      Wait               `json:"waits_for,omitempty"`
	Until     time.Time          `json:"waits_until,omitzero"`
	Approvals int                `json:"approvals_missing,omitempty"`
	Devices   int                `json:"devices"`
	Updated   int                `json:"updated"`
	Failed    int                `json:"failed"`
	Unproven  int                `json:"unproven,omitempty"`
	Withheld  int                `json:"withheld,omitempty"`
	Airtime   time.Duration      `json:"airtime_ns"`
	Cohorts   []CohortProgress   `json:"cohorts"`
	Sessions  []session.Progress `json:"sessions"`
}

// CohortProgress is what has become of the devices of a cohort, over all waves.
type CohortProgress struct {
	Cohort   Cohort `json:"cohort"`
	Updated  int    `json:"updated"`
	Failed   int    `json:"failed"` // silent ones included
	Silent   int    `json:"silent"`
	Withheld int    `json:"withheld"`
	Halted   string `json:"halted,omitempty"`
}

// Row is a device in a table.
type Row struct {
	Wave    string `json:"wave"`
	Session string `json:"session"`
	Cohort  Cohort `json:"cohort"`
	session.Row
}

// Progress returns a snapshot without the devices; it costs little.
func (c *Campaign) Progress() Progress {
	p := Progress{Campaign: c.spec.ID, Phase: c.st.Phase, Halted: c.st.Halted, Wave: c.spec.Waves[c.st.Wave].Name,
		Wait: c.st.Wait, Until: c.st.Until, Devices: len(c.index)}
	if c.st.Phase == PhaseDraft {
		p.Approvals = c.missing()
	}
	for _, s := range c.sessions {
		sp := s.Progress()
		p.Airtime += sp.Airtime
		p.Sessions = append(p.Sessions, sp)
	}
	for k := range c.cohorts {
		cp := CohortProgress{Cohort: c.cohorts[k]}
		for w := range c.tallies {
			t := c.tallies[w][k]
			if c.spec.Waves[w].Rescue {
				// Each of its devices has failed once before.
				joined := 0
				for o, n := range t {
					if outcome(o) != absent && outcome(o) != pending || c.begun(w) && outcome(o) == pending {
						joined += n
					}
				}
				cp.Failed -= joined
			}
			cp.Updated += t[updated]
			cp.Silent += t[silent]
			cp.Failed += t[unreached] + t[early] + t[broken] + t[trial] + t[silent]
			cp.Withheld += t[withheld]
			p.Unproven += t[unproven]
		}
		for _, s := range c.st.Stopped {
			if s.Cohort == c.cohorts[k] {
				cp.Halted = s.Why
			}
		}
		p.Updated += cp.Updated
		p.Failed += cp.Failed
		p.Withheld += cp.Withheld
		p.Cohorts = append(p.Cohorts, cp)
	}
	return p
}

// begun reports whether a wave has begun.
func (c *Campaign) begun(wave int) bool {
	for i, s := range c.sessions {
		if c.wave[i] == wave {
			return s.Started()
		}
	}
	return false
}

// Rows returns one row per device, in the order of waves, sessions and their specification.
func (c *Campaign) Rows() []Row {
	rows := make([]Row, 0, len(c.index))
	for i, s := range c.sessions {
		for j, r := range s.Rows() {
			if c.index[r.EUI] == (place{i, j}) {
				rows = append(rows, Row{Wave: c.spec.Waves[c.wave[i]].Name, Session: s.ID(), Cohort: c.cohorts[c.cohort[i][j]], Row: r})
			}
		}
	}
	return rows
}
