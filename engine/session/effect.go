package session

import (
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/network"
)

// Event is what a session learns: [Start], [Tick], [Heard], [Result], [Pause], [Continue], [Abort], [Withhold],
// [Battery] or [Proven].
type Event interface{ event() }

// Start begins the session. A second one does nothing.
type Start struct {
	Only []network.EUI64 // who takes part; nil: all
}

// Tick says that the time of [Session.NextWake] has come.
type Tick struct{}

// Heard is an event of the network. Those of foreign devices are ignored.
type Heard struct{ Event network.Event }

// Pause stops the session: no message is sent, what waits in queues of the network is dropped, an open receive
// window is given up. Uplinks are still taken.
type Pause struct{ Reason string }

// Continue ends a pause. A new window is announced for those that still miss fragments.
type Continue struct{}

// Abort ends the session: what waits in queues is dropped, the group is closed on the server, and fragmentation
// session and group are deleted on each device that is heard within [Timing.Cleanup].
type Abort struct{ Reason string }

// Withhold takes devices out of the session that have not been told to reboot yet. Those that have are watched to
// their end.
type Withhold struct {
	Devices []network.EUI64 // nil: all
	Reason  string
}

// Battery says how full the battery of a device is. Below [Spec.MinBattery] it is not told to reboot.
type Battery struct {
	Device  network.EUI64
	Percent int // 0..100; -1: not known
}

// Proven says that somebody outside of the session knows that a device of a raw-block session runs what it should:
// a tag was set.
type Proven struct{ Device network.EUI64 }

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

func (Start) event()    {}
func (Tick) event()     {}
func (Heard) event()    {}
func (Pause) event()    {}
func (Continue) event() {}
func (Abort) event()    {}
func (Withhold) event() {}
func (Battery) event()  {}
func (Proven) event()   {}
func (Result) event()   {}

// Effect is what the caller must do: [Send], [OpenGroup], [Broadcast], [CloseGroup], [FlushDevice], [FlushGroup] or
// [Record]. The first four are answered by a [Result] with their Op.
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

// FlushDevice asks that the unicast messages which wait for a device be dropped, and that none of the session that
// has not been carried out be.
type FlushDevice struct{ Device network.EUI64 }

// FlushGroup asks that the frames which wait in the queue of a group be dropped; its frame counter goes on.
type FlushGroup struct{ Group network.GroupID }

// Record is an entry for the log of the session.
type Record struct {
	// What is "phase", "stage", "window", "top-up", "late", "refused", "report", "unreadable", "pause", "continue",
	// "deferred", "withhold" or "halt".
	What   string
	Device network.EUI64
	Text   string
	Stage  Stage
	Before Stage // of a "stage": the one that was left
	Step   diag.Step
	Cause  diag.Cause
}

func (Send) effect()        {}
func (OpenGroup) effect()   {}
func (Broadcast) effect()   {}
func (CloseGroup) effect()  {}
func (FlushDevice) effect() {}
func (FlushGroup) effect()  {}
func (Record) effect()      {}

// Progress is a snapshot for display.
type Progress struct {
	Session    string        `json:"session"`
	Phase      Phase         `json:"phase"`
	Halted     string        `json:"halted,omitempty"`
	Stages     map[Stage]int `json:"stages"`
	Devices    int           `json:"devices"`
	Updated    int           `json:"updated"`
	Failed     int           `json:"failed"`
	Unproven   int           `json:"unproven,omitempty"` // hold the block; nothing proves what they run
	Withheld   int           `json:"withheld,omitempty"`
	Paused     bool          `json:"paused,omitempty"`
	M          int           `json:"data_fragments"`
	Target     int           `json:"fragments_planned"` // so far
	DataSent   int           `json:"data_sent"`
	ParitySent int           `json:"parity_sent"`
	StatusSent int           `json:"status_requests_sent"`
	Refused    int           `json:"fragments_refused,omitempty"` // by gateways, after the network had accepted them
	Airtime    time.Duration `json:"airtime_ns"`                  // per gateway
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
		Devices: len(c.st.Devices) - c.count[StageAbsent], Updated: c.count[StageUpdated], Failed: c.count[StageFailed],
		Unproven: c.count[StageUnproven], Withheld: c.count[StageWithheld], Paused: c.st.Paused, Refused: c.st.Refused,
		M: c.spec.Plan.M, Target: c.st.Target,
		DataSent: c.st.DataSent, ParitySent: c.st.ParitySent, StatusSent: c.st.StatusSent, Airtime: c.st.Airtime,
		Window: c.st.Window.Number, Start: c.st.Window.Start, End: c.st.Window.End,
	}
	for s, n := range c.count {
		if n > 0 && Stage(s) != StageAbsent {
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
