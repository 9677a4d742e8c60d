package session

import (
	"fmt"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/network"
)

// Phase says what the session as a whole does.
type Phase uint8

// The phases, in the order in which they come; announce to collect may repeat.
const (
	PhaseIdle Phase = iota
	PhasePrepare
	PhaseAnnounce
	PhaseWindow
	PhaseCollect
	PhaseFinish
	PhaseCleanup // after devices were taken out: sessions and groups are being deleted on them
	PhaseEnded
)

var phaseNames = [...]string{"idle", "prepare", "announce", "window", "collect", "finish", "cleanup", "ended"}

// String returns the name of the phase in lower case.
func (p Phase) String() string { return name(phaseNames[:], uint8(p), "phase") }

// MarshalText returns the form of String.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *Phase) UnmarshalText(b []byte) error {
	return parse(phaseNames[:], b, "phase", (*uint8)(p))
}

// Stage says how far a device has come.
type Stage uint8

// The stages.
const (
	StageDiscover   Stage = iota // package version, running version or clock not known
	StageGroup                   // the multicast group is being set up
	StageSession                 // the fragmentation session is being set up
	StagePrepared                // waits for a window
	StageArmed                   // has confirmed the window
	StageReceiving               // fragments were sent; what it holds is not known
	StageIncomplete              // known to miss fragments
	StageRepair                  // gets the rest by unicast
	StageComplete                // holds the block; verifies and patches
	StageReady                   // a valid image waits
	StageRebooting               // was told to reboot
	StageProving                 // runs the new version
	StageUpdated                 // runs the new version and was heard again
	StageFailed
	StageUnproven // holds the block of a raw-block session; nothing proves what it runs
	StageWithheld // taken out of the session
	StageAbsent   // listed, but does not take part
	numStages
)

var stageNames = [...]string{"discover", "group", "session", "prepared", "armed", "receiving", "incomplete",
	"repair",
	"complete", "ready", "rebooting", "proving", "updated", "failed", "unproven", "withheld", "absent"}

// String returns the name of the stage in lower case.
func (s Stage) String() string { return name(stageNames[:], uint8(s), "stage") }

// MarshalText returns the form of String.
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *Stage) UnmarshalText(b []byte) error {
	return parse(stageNames[:], b, "stage", (*uint8)(s))
}

// Stages returns all stages in order.
func Stages() []Stage {
	out := make([]Stage, numStages)
	for i := range out {
		out[i] = Stage(i)
	}
	return out
}

func name(names []string, i uint8, what string) string {
	if int(i) < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s %d", what, i)
}

func parse(names []string, b []byte, what string, out *uint8) error {
	for i, n := range names {
		if n == string(b) {
			*out = uint8(i)
			return nil
		}
	}
	return fmt.Errorf("session: no %s %q", what, b)
}

// final reports whether the stage is never left.
func (s Stage) final() bool { return s >= StageUpdated }

// State is all that a session remembers.
type State struct {
	Header
	Devices []Device
}

// Header is what a session remembers beside its devices.
type Header struct {
	Phase   Phase
	Halted  string // why the session stopped before its end; empty: it did not
	Group   network.GroupID
	Opening bool // the group has been asked for

	Paused   bool
	PausedAt time.Time
	Deadline time.Time // of the clean-up

	Started time.Time
	Quiet   time.Time // until then devices had a reason to be silent
	Burst   time.Time // when the last fragment was handed to the network
	Repairs int       // windows after the data pass
	Op      uint64    // last operation number given to an effect

	Window Window
	Air    Air

	Next   int // next position to send, from 1; see plan.Plan.Fragment
	Target int // last position to send for now
	Resend int // next data position to send once more, for devices that missed the data pass; 0: none
	Frames int // fragments sent, repetitions included

	DataSent, ParitySent, StatusSent int
	Refused                          int           // by gateways, after the network had accepted them
	Airtime                          time.Duration // per gateway

	Sent [recent]Frame // the last fragments, by frame counter modulo their number
}

// recent is for how many fragments a session can tell which one a report of a gateway is about.
const recent = 32

// Frame is a fragment that was handed to the network.
type Frame struct {
	FCnt     uint32
	Position int    // 0: none
	Refused  uint64 // by which of the first 64 gateways
}

// Window is a class C window. All devices have the same.
type Window struct {
	Number    int // from 1; 0: none yet
	Announced time.Time
	Start     time.Time
	End       time.Time
	TimeOut   uint8
}

// Air is the state of the multicast side inside a window.
type Air struct {
	Step     AirStep
	Next     time.Time // when to act next; zero: a result is awaited
	Rest     time.Time // no fragment before, because a gateway has refused one
	Op       uint64    // broadcast under way; 0: none
	Sending  int       // its position; 0: a status request
	Asked    int       // status requests sent in this round
	Round    int       // status rounds in this window
	LastFCnt uint32
	Counted  bool // LastFCnt is valid
}

// AirStep says what the multicast side does.
type AirStep uint8

// The steps of a window.
const (
	AirIdle   AirStep = iota
	AirCanary         // asks all devices whether they hear the group
	AirCanaryListen
	AirSend   // fragments
	AirAsk    // asks those that miss fragments
	AirListen // waits for their answers
)

// Device is what a session remembers of a device.
type Device struct {
	EUI    network.EUI64
	Stage  Stage
	Step   diag.Step  // of the failure, or as last reported
	Cause  diag.Cause // of the failure
	Note   string     // more about the failure, for people
	LastUp time.Time  // last uplink
	Joined time.Time  // last join; answers from before it are void

	// What the device has said.
	Packages   applayer.Version // of TS004; 0: not known
	Version    uint32
	VersionAt  time.Time // zero: Version is not known
	Report     diag.Report
	ReportAt   time.Time // zero: it has never sent a report
	ClockAt    time.Time // last AppTimeReq
	ClockAsked uint64    // its DeviceTime and token

	// What it has been told.
	SessionCnt  uint16
	Group       bool // multicast group set up
	Frag        bool // fragmentation session set up
	FragAt      time.Time
	Unsure      bool // it has joined again: whether the fragmentation session has survived is not known
	Window      int  // number of the window that it has confirmed
	ClockWrong  bool // its clock disagrees; it is being told to resynchronise
	StartMissed bool // it said that the window had begun
	Heard       bool // it has heard the group, so it has the group's keys
	Replays     int  // SessionCntReplay answers
	Deaf        int  // fragments sent in windows of which it has heard none
	Armed       int  // windows that it took part in
	ArmedFrom   int  // fragments that had been sent when it was armed first

	Missing  int  // fragments; -1: not known
	Received int  // as the device counts
	Presumed bool // taken as complete although it has not said so
	Answered int  // fragments that had been sent when it last said what it misses
	Saved    bool // a top-up was sized for it
	Stuck    int  // fragments that had been sent when Missing took its value
	NoImage  int  // answers "no image" since it was complete

	Battery  int       // per cent; -1: not known
	Deferred time.Time // since when it puts the update off, or its battery is too low; zero: it does not
	Tail     int       // fragments sent to it by unicast
	TailEnd  int       // of them so many are planned

	Complete time.Time // since when it holds the block
	RebootAt time.Time
	Reboots  int
	OldSeen  bool      // after the reboot it still ran the old version
	NewAt    time.Time // first proof of the new version
	Further  int       // uplinks since, without a reset
	Resets   int       // joins since
	Dropped  int       // clean-up: 1 session, 2 group, 3 both

	// Doubt is a cause that is not final yet: the device may still name a better one.
	DoubtCause diag.Cause
	DoubtStep  diag.Step
	DoubtNote  string
	DoubtUntil time.Time // zero: no doubt

	Pending   Pending
	Flushes   bool      // its queue in the network has been found empty after a join
	Waits     time.Time // until then something may wait for it in the network
	NotBefore time.Time // no new command before
	Wake      time.Time // when Step must look at the device again
}

// Pending is the unicast command under way.
type Pending struct {
	Kind      Command
	Op        uint64
	Message   network.MessageID
	Queued    time.Time
	Delivered time.Time // zero: not yet
	Expires   time.Time
	Attempts  int  // deliveries so far
	Uplinks   int  // since it was queued
	Kept      bool // queued before a join; nothing else is sent while it may still arrive
}

// Command is a kind of unicast command.
type Command uint8

// The commands.
const (
	CmdNone      Command = iota
	CmdPackages          // TS004 PackageVersionReq
	CmdVersion           // TS006 DevVersionReq
	CmdGroup             // TS005 McGroupSetupReq
	CmdSession           // TS004 FragSessionSetupReq
	CmdWindow            // TS005 McClassCSessionReq
	CmdResync            // TS003 ForceDeviceResyncCmd
	CmdStatus            // TS004 FragSessionStatusReq
	CmdImage             // TS006 DevUpgradeImageReq
	CmdReboot            // TS006 DevRebootCountdownReq
	CmdReport            // diagnostic ReportReq
	CmdDropFrag          // TS004 FragSessionDeleteReq
	CmdDropGroup         // TS005 McGroupDeleteReq
	CmdTime              // TS003 AppTimeAns
	CmdReceived          // TS004 FragDataBlockReceivedAns
	CmdFragment          // TS004 DataFragment, by unicast
)

var commandNames = [...]string{"none", "PackageVersionReq", "DevVersionReq", "McGroupSetupReq", "FragSessionSetupReq",
	"McClassCSessionReq", "ForceDeviceResyncCmd", "FragSessionStatusReq", "DevUpgradeImageReq", "DevRebootCountdownReq",
	"ReportReq", "FragSessionDeleteReq", "McGroupDeleteReq", "AppTimeAns", "FragDataBlockReceivedAns", "DataFragment"}

// String returns the name of the command in its specification.
func (c Command) String() string { return name(commandNames[:], uint8(c), "command") }

// MarshalText returns the form of String.
func (c Command) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (c *Command) UnmarshalText(b []byte) error {
	return parse(commandNames[:], b, "command", (*uint8)(c))
}
