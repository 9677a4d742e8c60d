package session

import (
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/network"
)

// Event is what a session learns: [Start], [Tick], [Heard], [Result] or [Abort].
type Event interface{ event() }

// Start begins the session. A second one does nothing.
type Start struct{}

// Tick says that the time of [Session.NextWake] has come.
type Tick struct{}

// Heard is an event of the network. Those of foreign devices are ignored.
type Heard struct{ Event network.Event }

// Abort ends the session: nothing more is sent, the group is closed.
type Abort struct{ Reason string }

// Result reports what became of an effect.
type Result struct {
	Op      uint64            // of the effect
	Device  network.EUI64     // of a Send
	Message network.MessageID // of a Send
	Group   network.GroupID   // of an OpenGroup
	FCnt    uint32            // of a Broadcast
	Failure Failure
	Text    string // of a failure, for people
}

// Failure says why an effect was not carried out.
type Failure uint8

// The failures.
const (
	Success Failure = iota
	Refused         // the network will never accept it
	NoKey           // the device has no root key
	TooLate         // it could not be carried out before it expired
)

func (Start) event()  {}
func (Tick) event()   {}
func (Heard) event()  {}
func (Abort) event()  {}
func (Result) event() {}

// Effect is what the caller must do: [Send], [OpenGroup], [Broadcast], [CloseGroup] or [Record]. All but the
// last are answered by a [Result] with their Op.
type Effect interface{ effect() }

// Send asks for a unicast message.
type Send struct {
	Op      uint64
	Command Command
	Device  network.EUI64
	FPort   uint8
	// Payload is the message, unless it depends on the root key of the device: then NeedsKey is set and
	// [Session.Payload] makes the message.
	Payload    []byte
	NeedsKey   bool
	SessionCnt uint16 // of a FragSessionSetupReq
	Expires    time.Time
}

// OpenGroup asks for the multicast group.
type OpenGroup struct {
	Op    uint64
	Group network.Group
}

// Broadcast asks for a multicast message.
type Broadcast struct {
	Op        uint64
	N         int // fragment number; 0: a status request
	Broadcast network.Broadcast
}

// CloseGroup asks for the end of the group.
type CloseGroup struct {
	Op    uint64
	Group network.GroupID
}

// Record is an entry for the log of the session.
type Record struct {
	What   string // "phase", "stage", "window", "top-up", "late", "report", "unreadable" or "halt"
	Device network.EUI64
	Text   string
	Stage  Stage
	Step   diag.Step
	Cause  diag.Cause
}

func (Send) effect()       {}
func (OpenGroup) effect()  {}
func (Broadcast) effect()  {}
func (CloseGroup) effect() {}
func (Record) effect()     {}

// Progress is a snapshot for display.
type Progress struct {
	Session    string        `json:"session"`
	Phase      Phase         `json:"phase"`
	Halted     string        `json:"halted,omitempty"`
	Stages     map[Stage]int `json:"stages"`
	Devices    int           `json:"devices"`
	Updated    int           `json:"updated"`
	Failed     int           `json:"failed"`
	M          int           `json:"data_fragments"`
	Target     int           `json:"fragments_planned"` // so far
	DataSent   int           `json:"data_sent"`
	ParitySent int           `json:"parity_sent"`
	StatusSent int           `json:"status_requests_sent"`
	Airtime    time.Duration `json:"airtime_ns"` // per gateway
	Window     int           `json:"window"`
	Start      time.Time     `json:"window_start"`
	End        time.Time     `json:"window_end"`
}

// Row is a device in a table.
type Row struct {
	EUI     network.EUI64 `json:"dev_eui"`
	Stage   Stage         `json:"stage"`
	Step    string        `json:"step,omitempty"`
	Cause   string        `json:"cause,omitempty"`
	Note    string        `json:"note,omitempty"`
	Version uint32        `json:"version"` // 0: not known
	Missing int           `json:"missing"` // -1: not known
	LastUp  time.Time     `json:"last_uplink"`
}

// Progress returns a snapshot without the devices; it costs little.
func (c *Session) Progress() Progress {
	p := Progress{
		Session: c.spec.ID, Phase: c.st.Phase, Halted: c.st.Halted, Stages: map[Stage]int{},
		Devices: len(c.st.Devices), Updated: c.count[StageUpdated], Failed: c.count[StageFailed],
		M: c.spec.Plan.M, Target: c.st.Target,
		DataSent: c.st.DataSent, ParitySent: c.st.ParitySent, StatusSent: c.st.StatusSent, Airtime: c.st.Airtime,
		Window: c.st.Window.Number, Start: c.st.Window.Start, End: c.st.Window.End,
	}
	for s, n := range c.count {
		if n > 0 {
			p.Stages[Stage(s)] = n
		}
	}
	return p
}

// Rows returns one row per device, in the order of the specification.
func (c *Session) Rows() []Row {
	rows := make([]Row, len(c.st.Devices))
	for i := range rows {
		d := &c.st.Devices[i]
		rows[i] = Row{EUI: d.EUI, Stage: d.Stage, Note: d.Note, Version: d.Version, Missing: d.Missing, LastUp: d.LastUp}
		if d.Stage == StageFailed {
			rows[i].Step, rows[i].Cause = d.Step.String(), d.Cause.String()
		} else if !d.ReportAt.IsZero() {
			rows[i].Step = d.Report.Step.String()
			if d.Report.Cause != diag.CauseOK {
				rows[i].Cause = d.Report.Cause.String()
			}
		}
	}
	return rows
}
