package config

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/sower-fuota/sower/applayer/datablock"
)

// ProofBy is what proves that a device of a raw-block campaign is updated.
type ProofBy string

// The proofs. Without any, a device that holds the block ends as unproven.
const (
	ProofByBlock   ProofBy = "block"
	ProofByVersion ProofBy = "version"
	ProofByUplink  ProofBy = "uplink"
	ProofByTag     ProofBy = "tag"
)

// UnmarshalText reads "block", "version", "uplink" or "tag".
func (p *ProofBy) UnmarshalText(b []byte) error {
	switch by := ProofBy(b); by {
	case ProofByBlock, ProofByVersion, ProofByUplink, ProofByTag:
		*p = by
		return nil
	}
	return fmt.Errorf("%q is neither \"block\" nor \"version\", \"uplink\" or \"tag\"", b)
}

// Bytes is a string of bytes.
type Bytes string

// UnmarshalText reads hexadecimal digits.
func (x *Bytes) UnmarshalText(b []byte) error {
	out, err := hex.DecodeString(string(b))
	if err != nil {
		return fmt.Errorf("%q are no bytes of two hexadecimal digits each", b)
	}
	*x = Bytes(out)
	return nil
}

// IsRaw reports whether the campaign sends a raw block.
func (c *Campaign) IsRaw() bool {
	for _, b := range c.Bundles {
		if b.Raw != "" {
			return true
		}
	}
	return false
}

// checkBundles judges what is to be sent.
func (c *Campaign) checkBundles(d *Document) {
	if len(c.Bundles) == 0 && !d.troubled("bundle") {
		d.Add("bundle", "add [[bundle]] with file = \"…\", as made by `sower sign`", "the campaign has no bundle")
	}
	raw := c.IsRaw()
	for i, b := range c.Bundles {
		key := indexed("bundle", i)
		switch {
		case b.File == "" && b.Raw == "" && !d.troubled(key):
			d.Add(key, "add file = \"…\", or raw = \"…\" for devices without the device library", "%s.file is missing", key)
		case b.File != "" && b.Raw != "":
			d.Add(key+".raw", "keep file for a bundle made by `sower sign`, raw for any other file", "%s has both file and raw", key)
		case b.Raw != "" && len(c.Bundles) > 1:
			d.Add(key+".raw", "nothing tells which block suits which device: make a campaign of its own", "%s is a raw block beside %s",
				key, number(len(c.Bundles)-1, "other bundle"))
		case raw && len(b.BaseVersions) > 0:
			d.Add(key+".base_versions", "choose the devices by versions under [devices]", "%s.base_versions is for patches in signed bundles, not for a raw block", key)
		case raw && b.BaseImage != "":
			d.Add(key+".base_image", "choose the devices by versions under [devices]", "%s.base_image is for patches in signed bundles, not for a raw block", key)
		case !raw && d.Has(key+".version"):
			d.Add(key+".version", "remove it: a signed bundle says its version itself", "%s.version is for raw blocks", key)
		}
	}
	if !raw {
		for _, name := range []string{"proof.by", "proof.f_port", "proof.offset", "proof.bytes", "proof.tag", "raw.max_fragments", "raw.max_fragment_bytes", "raw.max_redundancy"} {
			if d.Has(name) {
				d.Add(name, "remove it, or name the file by raw = \"…\" under [[bundle]]", "%s is for raw blocks, and the campaign sends signed bundles", name)
			}
		}
		return
	}
	c.checkProof(d)
	for _, l := range []struct {
		name      string
		value, of int
	}{{"raw.max_fragments", c.Raw.Fragments, 1<<14 - 1}, {"raw.max_fragment_bytes", c.Raw.FragSize, datablock.MaxFragSize}, {"raw.max_redundancy", c.Raw.Redundancy, 1<<14 - 1}} {
		if l.value > l.of {
			d.Add(l.name, fmt.Sprintf("write 1..%d, or leave it out", l.of), "%s is %d", l.name, l.value)
		}
	}
	if l := c.Raw.FragSize; l > 0 && c.Radio.FragSize > l {
		d.Add("radio.fragment_bytes", "write at most raw.max_fragment_bytes, or leave it out", "radio.fragment_bytes is %d, the devices hold fragments of at most %d", c.Radio.FragSize, l)
	}
}

// checkProof judges the proof of a raw-block campaign.
func (c *Campaign) checkProof(d *Document) {
	p := c.Proof
	if d.troubled("proof.by") {
		return
	}
	if p.By == ProofByVersion {
		if len(c.Bundles) == 1 && c.Bundles[0].Version == nil {
			d.Add("bundle[0]", "add version = \"MAJOR.MINOR.REVISION\" as TS006 will report it, or choose another proof", "proof.by is \"version\", but bundle[0].version is missing")
		}
	} else {
		// The session does not ask such devices what they run and does not tell them to reboot.
		for _, name := range []string{"proof.uplinks", "proof.resets", "energy.min_battery_percent"} {
			if d.Has(name) {
				d.Add(name, "remove it, or write by = \"version\" under [proof]", "%s has no effect with proof.by = %q: the devices are not told to reboot", name, p.By)
			}
		}
	}
	if p.By == ProofByUplink {
		if (p.FPort < 1 || p.FPort > 223) && !d.troubled("proof.f_port") {
			d.Add("proof.f_port", "write the FPort of the uplink that proves it, 1..223", "proof.f_port is %d", p.FPort)
		}
		if len(p.Bytes) == 0 && !d.troubled("proof.bytes") {
			d.Add("proof.bytes", "write what the payload has there only after the update, such as \"0102\"", "proof.bytes is missing: any uplink on the port would prove it")
		}
		if p.Offset+len(p.Bytes) > 242 {
			d.Add("proof.offset", "count from the first byte of the payload, 0", "proof.offset is %d and proof.bytes has %d bytes, a payload has at most 242", p.Offset, len(p.Bytes))
		}
	}
	if name, _, _ := strings.Cut(p.Tag, "="); p.By == ProofByTag && strings.TrimSpace(name) == "" && !d.troubled("proof.tag") {
		d.Add("proof.tag", "add tag = \"NAME=VALUE\", which somebody sets on the device in the network server", "proof.tag is %q and names no tag", p.Tag)
	}
	for _, l := range []struct {
		name string
		of   ProofBy
	}{{"proof.f_port", ProofByUplink}, {"proof.offset", ProofByUplink}, {"proof.bytes", ProofByUplink}, {"proof.tag", ProofByTag}} {
		if d.Has(l.name) && p.By != l.of {
			d.Add(l.name, fmt.Sprintf("write by = %q, or remove it", l.of), "%s belongs to proof.by = %q, which is %q", l.name, l.of, p.By)
		}
	}
}

// number counts things.
func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
