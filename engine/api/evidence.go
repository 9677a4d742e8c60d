package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/store"
)

// Evidence is JSON lines. Each line holds the SHA-256 of the bytes of the line before, without its newline, so that
// none can be changed, removed or moved; the last is a signature by Ed25519 over the hash of the line before it, so
// that none can be added. Kinds, in this order:
//
//	evidence   format, program, when and by whom it was exported
//	campaign   name, application, who created it and when, digest of the campaign file
//	file       the campaign file
//	schedule   the plan that was approved
//	bundle     SHA-256 and size of each block that is sent
//	progress   counters, airtime and phase at the time of the export
//	device     the outcome of a device, one line each
//	entry      the log: what was sent, heard and decided, one line each
//	audit      who decided what, with the hash chain of the installation's audit log
//	signature  public key and signature
type evidenceLine struct {
	N    int             `json:"n"` // from 1
	Prev string          `json:"prev"`
	Kind string          `json:"kind"`
	Data json.RawMessage `json:"data"`
}

// evidenceFormat is the version of the format.
const evidenceFormat = "sower-evidence-1"

type signature struct {
	Algorithm string `json:"algorithm"`
	PublicKey string `json:"public_key"`
	Signature string `json:"signature"` // over the 32 bytes of prev
}

// evidenceWriter chains lines.
type evidenceWriter struct {
	w    io.Writer
	n    int
	prev [32]byte
}

func (e *evidenceWriter) add(kind string, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	e.n++
	line, err := json.Marshal(evidenceLine{e.n, hex.EncodeToString(e.prev[:]), kind, raw})
	if err != nil {
		return err
	}
	e.prev = sha256.Sum256(line)
	_, err = e.w.Write(append(line, '\n'))
	return err
}

func (e *evidenceWriter) sign(key ed25519.PrivateKey) error {
	return e.add("signature", signature{"Ed25519", hex.EncodeToString(key.Public().(ed25519.PublicKey)),
		hex.EncodeToString(ed25519.Sign(key, e.prev[:]))})
}

// ErrEvidence is returned by [VerifyEvidence] for evidence that is not what was exported.
var ErrEvidence = errors.New("evidence: not as it was exported")

// EvidenceInfo is what [VerifyEvidence] says of evidence that holds.
type EvidenceInfo struct {
	Lines    int       `json:"lines"`
	Campaign string    `json:"campaign"`
	Exported time.Time `json:"exported"`
	Phase    string    `json:"phase"`
	Devices  int       `json:"devices"`
	Updated  int       `json:"updated"`
	Log      string    `json:"log"`    // entries and their digest, as the audit log has them when the log is removed
	Signer   string    `json:"signer"` // public key, hexadecimal
}

// VerifyEvidence checks exported evidence without asking anybody. signer is the public key that must have signed it, in
// hexadecimal; empty: any. It returns [ErrEvidence] with the number of the first line that does not fit.
func VerifyEvidence(r io.Reader, signer string) (EvidenceInfo, error) {
	var info EvidenceInfo
	var prev [32]byte
	signed, log := false, store.NewLogDigest()
	bad := func(n int, format string, args ...any) (EvidenceInfo, error) {
		return EvidenceInfo{}, fmt.Errorf("%w: line %d: %s", ErrEvidence, n, fmt.Sprintf(format, args...))
	}
	in := bufio.NewReader(r)
	for n := 1; ; n++ {
		raw, err := in.ReadBytes('\n')
		if err == io.EOF && len(raw) == 0 {
			break
		}
		if err != nil && err != io.EOF {
			return EvidenceInfo{}, fmt.Errorf("evidence: line %d: %w", n, err)
		}
		if signed {
			return bad(n, "it follows the signature")
		}
		raw = bytes.TrimSuffix(raw, []byte("\n"))
		var line evidenceLine
		if err := json.Unmarshal(raw, &line); err != nil {
			return bad(n, "%s", err)
		}
		if line.N != n || line.Prev != hex.EncodeToString(prev[:]) {
			return bad(n, "it does not follow the line before it: something was changed, removed or added")
		}
		switch line.Kind {
		case "evidence":
			var d evidenceHead
			if err := json.Unmarshal(line.Data, &d); err != nil || d.Format != evidenceFormat {
				return bad(n, "format %q, want %q", d.Format, evidenceFormat)
			}
			info.Exported = d.Exported
		case "campaign":
			var d evidenceCampaign
			if err := json.Unmarshal(line.Data, &d); err != nil {
				return bad(n, "%s", err)
			}
			info.Campaign = d.ID
		case "progress":
			var d campaign.Progress
			if err := json.Unmarshal(line.Data, &d); err != nil {
				return bad(n, "%s", err)
			}
			info.Phase, info.Devices, info.Updated = d.Phase.String(), d.Devices, d.Updated
		case "entry":
			log.Add(line.Data)
		case "signature":
			var d signature
			if err := json.Unmarshal(line.Data, &d); err != nil {
				return bad(n, "%s", err)
			}
			key, err1 := hex.DecodeString(d.PublicKey)
			sig, err2 := hex.DecodeString(d.Signature)
			if err1 != nil || err2 != nil || len(key) != ed25519.PublicKeySize || d.Algorithm != "Ed25519" || !ed25519.Verify(key, prev[:], sig) {
				return bad(n, "the signature does not verify")
			}
			if signer != "" && signer != d.PublicKey {
				return bad(n, "it was signed by %s, want %s", d.PublicKey, signer)
			}
			signed, info.Signer = true, d.PublicKey
		}
		prev = sha256.Sum256(raw)
		info.Lines = n
		if n == 1 && line.Kind != "evidence" {
			return bad(n, "it is of kind %q, want evidence", line.Kind)
		}
	}
	if !signed {
		return bad(info.Lines, "the last line is no signature: the file is cut off")
	}
	info.Log = log.String()
	return info, nil
}

type evidenceHead struct {
	Format   string    `json:"format"`
	Program  string    `json:"program"`
	Exported time.Time `json:"exported"`
	By       string    `json:"by"`
}

type evidenceCampaign struct {
	ID          string    `json:"id"`
	Application string    `json:"application"`
	Created     time.Time `json:"created"`
	By          string    `json:"created_by"`
	FileSHA256  string    `json:"file_sha256"`
	LogRemoved  time.Time `json:"log_removed,omitzero"` // then there are no entries
}

type evidenceBundle struct {
	Session string `json:"session"`
	SHA256  string `json:"sha256"`
	Bytes   int    `json:"bytes"`
	Target  string `json:"target_version"`
	McAddr  string `json:"mc_addr"`
}

// ExportEvidence implements the procedure of that name.
func (s campaigns) ExportEvidence(ctx context.Context, req *connect.Request[pb.ExportEvidenceRequest], stream *connect.ServerStream[pb.ExportEvidenceResponse]) error {
	out := bufio.NewWriterSize(chunks{stream}, 64<<10)
	if err := s.evidence(ctx, req.Msg.Campaign, out); err != nil {
		return translateStream(ctx, err)
	}
	return translateStream(ctx, out.Flush())
}

// chunks sends what is written as messages of a stream.
type chunks struct {
	stream *connect.ServerStream[pb.ExportEvidenceResponse]
}

func (c chunks) Write(b []byte) (int, error) {
	return len(b), c.stream.Send(&pb.ExportEvidenceResponse{Lines: b})
}

func (s campaigns) evidence(ctx context.Context, id string, w io.Writer) error {
	if s.cfg.Evidence == nil {
		return connect.NewError(connect.CodeFailedPrecondition, errors.New("the server has no key to sign evidence with"))
	}
	var c evidenceCampaign
	var bundles []evidenceBundle
	var progress campaign.Progress
	var rows []campaign.Row
	err := s.one(ctx, id, func(cm *campaign.Campaign) {
		c.ID, c.Application = cm.ID(), cm.Application()
		for _, wave := range cm.Spec().Waves {
			for _, ss := range wave.Sessions {
				sum := sha256.Sum256(ss.Block)
				bundles = append(bundles, evidenceBundle{ss.ID, hex.EncodeToString(sum[:]), len(ss.Block), version(ss.Target), fmt.Sprintf("%08x", ss.McAddr)})
			}
		}
		progress, rows = cm.Progress(), cm.Rows()
	})
	if err != nil {
		return err
	}
	file, _, err := s.cfg.Store.File(ctx, id)
	if err != nil {
		return err
	}
	r, err := s.record(ctx, id)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(file.TOML)
	c.Created, c.By, c.FileSHA256 = r.Created, r.By, hex.EncodeToString(sum[:])
	if c.LogRemoved, err = s.cfg.Store.LogRemoved(ctx, id); err != nil {
		return err
	}
	out := &evidenceWriter{w: w}
	add := func(kind string, data any) {
		if err == nil {
			err = out.add(kind, data)
		}
	}
	add("evidence", evidenceHead{evidenceFormat, s.cfg.Version, s.cfg.Now().UTC(), holder(ctx).name})
	add("campaign", c)
	add("file", string(file.TOML))
	add("schedule", r.Schedule)
	for _, b := range bundles {
		add("bundle", b)
	}
	add("progress", progress)
	for _, row := range rows {
		add("device", row)
	}
	for after := int64(0); err == nil; {
		var entries []run.Entry
		if entries, err = s.cfg.Store.Entries(ctx, id, nil, after, 1000); len(entries) == 0 {
			break
		}
		for _, e := range entries {
			add("entry", e)
			after = e.Seq
		}
	}
	for after := int64(0); err == nil; {
		var list []run.Audit
		if list, err = s.cfg.Store.Audit(ctx, after, 1000); len(list) == 0 {
			break
		}
		for _, a := range list {
			if a.Campaign == id {
				add("audit", a)
			}
			after = a.Seq
		}
	}
	if err != nil {
		return err
	}
	return out.sign(s.cfg.Evidence)
}

// NewEvidenceKey returns a key to sign evidence with, as PEM to be kept in a file.
func NewEvidenceKey() (ed25519.PrivateKey, []byte, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseEvidenceKey reads the PEM of [NewEvidenceKey].
func ParseEvidenceKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("evidence key: no PEM in it")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("evidence key: %w", err)
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("evidence key: %T, want Ed25519", k)
	}
	return key, nil
}
