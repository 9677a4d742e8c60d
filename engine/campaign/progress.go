package campaign

import (
	"time"

	"github.com/sower-fuota/sower/engine/session"
)

// Progress is a snapshot for display.
type Progress struct {
	Campaign string             `json:"campaign"`
	Phase    Phase              `json:"phase"`
	Halted   string             `json:"halted,omitempty"`
	Wave     string             `json:"wave"`
	Devices  int                `json:"devices"`
	Updated  int                `json:"updated"`
	Failed   int                `json:"failed"`
	Airtime  time.Duration      `json:"airtime_ns"`
	Sessions []session.Progress `json:"sessions"`
}

// Row is a device in a table.
type Row struct {
	Wave    string `json:"wave"`
	Session string `json:"session"`
	session.Row
}

// Progress returns a snapshot without the devices; it costs little.
func (c *Campaign) Progress() Progress {
	p := Progress{Campaign: c.spec.ID, Phase: c.st.Phase, Halted: c.st.Halted, Wave: c.spec.Waves[c.st.Wave].Name}
	for _, s := range c.sessions {
		sp := s.Progress()
		p.Devices += sp.Devices
		p.Updated += sp.Updated
		p.Failed += sp.Failed
		p.Airtime += sp.Airtime
		p.Sessions = append(p.Sessions, sp)
	}
	return p
}

// Rows returns one row per device, in the order of waves, sessions and their specification.
func (c *Campaign) Rows() []Row {
	var rows []Row
	for i, s := range c.sessions {
		for _, r := range s.Rows() {
			rows = append(rows, Row{Wave: c.spec.Waves[c.wave[i]].Name, Session: s.ID(), Row: r})
		}
	}
	return rows
}
