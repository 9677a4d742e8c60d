package run

import (
	"encoding/hex"
	"time"

	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

// Hex is written as hexadecimal digits.
type Hex []byte

// MarshalText implements [encoding.TextMarshaler].
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *Hex) UnmarshalText(b []byte) (err error) {
	*h, err = hex.AppendDecode((*h)[:0], b)
	return err
}

// Entry is one line of the log of a campaign. It holds no keys; the messages that carry one encrypted are
// logged without their payload.
type Entry struct {
	Seq      int64     `json:"seq,omitempty"` // in the log of all campaigns; 0 without a Store
	Time     time.Time `json:"time"`
	Campaign string    `json:"campaign"`
	Session  string    `json:"session,omitempty"`
	// Kind is uplink, join, status, sent or dropped for what the network said; send, broadcast, group or group closed
	// for what it was asked; retry or failed for what went wrong; else the kind of a session.Record.
	Kind    string            `json:"kind"`
	Device  *network.EUI64    `json:"dev_eui,omitempty"`
	At      time.Time         `json:"at,omitzero"` // of an event, by the network's clock
	Command string            `json:"command,omitempty"`
	FPort   uint8             `json:"f_port,omitempty"`
	Payload Hex               `json:"payload,omitempty"`
	Message network.MessageID `json:"message,omitempty"`
	N       int               `json:"fragment,omitempty"`
	Gateway *network.EUI64    `json:"gateway,omitempty"` // of a frame of a group
	FCnt    *uint32           `json:"f_cnt,omitempty"`
	Stage   string            `json:"stage,omitempty"`
	Step    string            `json:"step,omitempty"`
	Cause   string            `json:"cause,omitempty"`
	Text    string            `json:"text,omitempty"`
}

func (e *Engine) log(c *campaign.Campaign, en Entry) {
	en.Time, en.Campaign = e.cfg.Clock.Now().UTC(), c.ID()
	if !en.At.IsZero() {
		en.At = en.At.UTC()
	}
	e.round.Entries = append(e.round.Entries, en)
}

func (e *Engine) record(c *campaign.Campaign, of int, r session.Record) {
	switch r.What {
	case campaign.NoteHalt, campaign.NoteCohortHalt, campaign.NoteFinish:
		if of < 0 {
			e.audit(c, engineName, r.What, r.Text)
		}
	}
	en := Entry{Session: name(c, of), Kind: r.What, Text: r.Text}
	if r.Device != (network.EUI64{}) {
		en.Device, en.Stage = &r.Device, r.Stage.String()
		if r.What == "report" || r.Stage == session.StageFailed {
			en.Step = r.Step.String()
		}
		if r.Cause != diag.CauseOK {
			en.Cause = r.Cause.String()
		}
	}
	e.log(c, en)
}

func (e *Engine) logSend(w call, s session.Send, id network.MessageID) {
	en := Entry{Session: name(w.c, w.session), Kind: "send", Device: &s.Device, Command: s.Command.String(), FPort: s.FPort, Message: id}
	if !s.NeedsKey {
		en.Payload = s.Payload
	}
	e.log(w.c, en)
}

func (e *Engine) logBroadcast(w call, b session.Broadcast, fcnt uint32) {
	en := Entry{Session: name(w.c, w.session), Kind: "broadcast", N: b.N, FPort: b.Broadcast.FPort, FCnt: &fcnt}
	if b.N == 0 {
		en.Payload = b.Broadcast.Payload
	}
	e.log(w.c, en)
}

// logEffect notes what happened to an effect.
func (e *Engine) logEffect(w call, kind, text string) {
	en := Entry{Session: name(w.c, w.session), Kind: kind, Text: text}
	switch eff := w.effect.(type) {
	case session.Send:
		en.Device, en.Command = &eff.Device, eff.Command.String()
	case session.Broadcast:
		en.N = eff.N
	}
	e.log(w.c, en)
}

// name names a session of a campaign; -1 is the campaign itself.
func name(c *campaign.Campaign, session int) string {
	if session < 0 {
		return ""
	}
	return c.Session(session).ID()
}
