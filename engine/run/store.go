package run

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/jobs"
	"github.com/sower-fuota/sower/engine/network"
)

// Store keeps what an engine must not forget. Package store has one on SQLite.
type Store interface {
	// Restore returns what the last commit has left, and takes the store over: an engine that had it before
	// can commit nothing more.
	Restore(ctx context.Context, now time.Time) (Snapshot, error)
	// Commit keeps a round, or nothing of it. When it returns nil the round survives a power cut. It reads the
	// campaigns of the round before it returns, and sets the Seq of entries.
	Commit(ctx context.Context, r *Round) error
}

// Snapshot is what a store holds.
type Snapshot struct {
	Campaigns []Stored // in the order of their creation, without those that have left
	Left      []string // IDs of campaigns that have ended and left
	Jobs      []jobs.Job
	LastJob   uint64 // highest ID that was ever used
	Groups    []Group
	Messages  []Messages
	Seen      []Seen // oldest first
}

// Stored is a campaign in a store.
type Stored struct {
	Spec  campaign.Spec
	State campaign.State
}

// Round is what one commit holds together.
type Round struct {
	Now      time.Time
	Created  []Created
	Changed  []Changed
	Left     []*campaign.Campaign // that have ended, and that Restore need not return any more
	Jobs     []jobs.Change
	Groups   []Group // new, or counted on
	Closed   []network.GroupID
	Messages []Messages // of devices that were sent something
	Seen     []Seen
	SeenFrom int64 // those with a lower Seq are forgotten
	Entries  []Entry
	Audit    []Audit
}

// Created is a new campaign.
type Created struct {
	Campaign *campaign.Campaign
	File     CampaignFile
	By       string
}

// Changed is a campaign with what has changed in it.
type Changed struct {
	Campaign *campaign.Campaign
	Changes  []campaign.Change
}

// CampaignFile is what a campaign was made from, kept for the audit.
type CampaignFile struct {
	Request  string // by which whoever has asked for the campaign finds it again; empty: none
	TOML     []byte
	Schedule json.RawMessage // the plan that was approved
}

// Group is an open multicast group. The counter tells after a crash whether a broadcast has happened.
type Group struct {
	ID       network.GroupID
	Campaign string
	Session  int
	NextFCnt uint32
}

// Messages are those that may wait for a device, by which an unknown one is recognised.
type Messages struct {
	Device network.EUI64
	IDs    []network.MessageID
}

// Seen is an event that has been dealt with.
type Seen struct {
	Seq int64
	ID  [16]byte // SHA-256 of its Event.ID, truncated
	At  time.Time
}

// Audit is a decision for which somebody has to answer.
type Audit struct {
	Seq      int64     `json:"seq"`
	Time     time.Time `json:"time"`
	By       string    `json:"by"` // a person or token; "sower": the engine itself
	Action   string    `json:"action"`
	Campaign string    `json:"campaign,omitempty"`
	Text     string    `json:"text,omitempty"`
	Hash     Hex       `json:"hash"` // SHA-256 over this entry and the hash of the one before
}

// What is remembered of events, to drop those that arrive again: at most so many, for so long. What a broker repeats,
// it repeats soon after a reconnection.
const (
	maxSeen = 1 << 18
	seenAge = 24 * time.Hour
)

// seen recognises events that have been dealt with.
type seen struct {
	ids   map[[16]byte]bool
	queue []Seen // oldest first
	last  int64
}

// add reports whether the event is new, and remembers it. Events without an ID are always new.
func (s *seen) add(now time.Time, id string) (Seen, bool) {
	if id == "" {
		return Seen{}, true
	}
	sum := sha256.Sum256([]byte(id))
	e := Seen{Seq: s.last + 1, ID: [16]byte(sum[:]), At: now}
	if s.ids[e.ID] {
		return Seen{}, false
	}
	s.restore(e)
	for len(s.queue) > maxSeen || now.Sub(s.queue[0].At) > seenAge {
		delete(s.ids, s.queue[0].ID)
		s.queue = s.queue[1:]
	}
	return e, true
}

func (s *seen) restore(e Seen) {
	if s.ids == nil {
		s.ids = map[[16]byte]bool{}
	}
	s.ids[e.ID] = true
	s.queue = append(s.queue, e)
	s.last = e.Seq
}

// from is the lowest Seq that is remembered.
func (s *seen) from() int64 {
	if len(s.queue) == 0 {
		return s.last + 1
	}
	return s.queue[0].Seq
}
