package session

import (
	"bytes"

	"github.com/sower-fuota/sower/applayer/diag"
)

// Raw makes a session bring any file to devices without the library of this project: stock LoRaMac-node, LoRa Basics
// Modem, Zephyr. What they do with the block is their affair; Proof says how the session learns of it.
type Raw struct {
	Proof Proof
	// For ProofUplink: an uplink on FPort whose payload has Bytes at Offset, sent after the session was set up.
	FPort  uint8
	Offset int
	Bytes  []byte
}

// Proof is what proves that a device of a raw-block session is updated.
type Proof uint8

// The proofs.
const (
	ProofBlock   Proof = iota // nothing does: a device that holds the block ends as StageUnproven
	ProofVersion              // TS006 reports the target version; the device is told to reboot as any other
	ProofUplink               // an uplink that matches the rule
	ProofTag                  // the event [Proven]
)

var proofNames = [...]string{"block", "version", "uplink", "tag"}

// String returns the name of the proof in lower case.
func (p Proof) String() string { return name(proofNames[:], uint8(p), "proof") }

// MarshalText returns the form of String.
func (p Proof) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *Proof) UnmarshalText(b []byte) error {
	return parse(proofNames[:], b, "proof", (*uint8)(p))
}

// rawExtra is how many fragments more than missing complete all but one device of some hundred.
const rawExtra = 8

// matches reports whether an uplink is the proof.
func (r *Raw) matches(port uint8, payload []byte) bool {
	return r.Proof == ProofUplink && port == r.FPort && len(payload) >= r.Offset && bytes.HasPrefix(payload[r.Offset:], r.Bytes)
}

// blind reports whether the devices cannot be asked what they run.
func (c *Session) blind() bool { return c.spec.Raw != nil && c.spec.Raw.Proof != ProofVersion }

// rawComplete ends the session for a device of whom no more than the block can be known.
func (c *Session) rawComplete(i int) {
	if c.spec.Raw != nil && c.spec.Raw.Proof == ProofBlock {
		d := &c.st.Devices[i]
		d.Step, d.Cause = diag.StepVerify, diag.CauseUnproven
		c.setStage(i, StageUnproven)
		c.dropOnce(i)
	}
}

// proveRaw takes the proof that a device of a raw-block session is updated.
func (c *Session) proveRaw(i int) {
	d := &c.st.Devices[i]
	if !c.blind() || c.st.Phase == PhaseIdle || d.Stage.final() && d.Stage != StageUnproven {
		return
	}
	d.Cause, d.Step = diag.CauseOK, diag.StepRunning
	c.setStage(i, StageUpdated)
	if c.st.Phase != PhaseCleanup && c.st.Phase != PhaseEnded {
		c.dropOnce(i)
	}
}
