package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/image"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/delta"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/fragmentation/fragfile"
)

func newInspectCommand() *cobra.Command {
	var asJSON bool
	var region, oldELF, newELF, layout string
	var in inspector
	cmd := &cobra.Command{
		Use:   "inspect [FILE]",
		Short: "say what is inside a bundle, patch, image, fragment or key file",
		Long: `inspect recognises a file by its content and says what is inside, what the device needs for it, and what it
costs on the air: fragments and airtime of one pass without parity, at each data rate of the region. The costs of a
patch and of an image are those of the bundle that would hold them.

With --budget it says instead whether the update in a bundle fits a device, and which number to change if it does not:
the layout file gives the flash regions and the RAM of the device in TOML. Without a bundle it says what the device
can take at most.

With --key it verifies the signature of a bundle or an MCUboot image, and fails if it is not good. With --old-elf
and --new-elf it says which functions changed between two builds for Arm, the longest first. With --old, the image
that a patch is for, it says where the bytes of the patch went and how long a device decodes it; with the ELF files
too, on which functions and objects of the new image.`,
		Example: "  sower inspect 1.1.0.sow --key release.pem.pub\n  sower inspect 1.1.0.sow --budget device.toml\n  sower inspect 1.0.0-1.1.0.patch --old-elf build-1.0.0/app.elf --new-elf build-1.1.0/app.elf\n  sower inspect 1.0.0-1.1.0.patch --old 1.0.0.bin\n  sower inspect 1.0.0-1.1.0.patch --old 1.0.0.bin --old-elf build-1.0.0/app.elf --new-elf build-1.1.0/app.elf",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (oldELF == "") != (newELF == "") {
				return usagef("inspect: --old-elf and --new-elf go together")
			}
			if layout != "" && (oldELF != "" || in.oldFile != "") {
				return usagef("inspect: --budget goes with --key and --json only")
			}
			if len(args) == 0 && oldELF == "" && layout == "" {
				return usagef("inspect: name a file, or --old-elf and --new-elf, or --budget")
			}
			if len(args) == 0 && in.keyFile != "" {
				return usagef("inspect: --key verifies a file, and none is named")
			}
			var err error
			if in.region, err = airtime.ParseRegion(region); err != nil {
				return usagef("--region: %w", err)
			}
			in.warn = cmd.ErrOrStderr()
			if layout != "" {
				return in.budget(cmd.OutOrStdout(), layout, args, asJSON)
			}
			if oldELF != "" {
				var err error
				if in.elf, err = readELFPair(oldELF, newELF); err != nil {
					return err
				}
			}
			var doc document
			if len(args) == 1 {
				raw, err := readInput("file", args[0])
				if err != nil {
					return err
				}
				if doc, err = in.inspect(raw); err != nil {
					return fmt.Errorf("%s: %w", args[0], err)
				}
			}
			if in.elf != nil {
				doc.symbols = &in.elf.change
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), doc.json())
			}
			doc.print(cmd.OutOrStdout(), in.region)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	fl.StringVar(&in.oldFile, "old", "", "image that a patch is for: also say where the bytes of the patch went")
	fl.StringVar(&in.keyFile, "key", "", "public key, PEM: also verify the signature of a bundle or MCUboot image")
	fl.StringVar(&region, "region", "EU868", "region whose data rates are listed")
	fl.BoolVar(&in.repeater, "repeater", false, "fragments must fit behind a repeater")
	fl.StringVar(&layout, "budget", "", "layout of a device, TOML: does the update fit it?")
	fl.StringVar(&oldELF, "old-elf", "", "ELF file with symbols of the old image")
	fl.StringVar(&newELF, "new-elf", "", "ELF file with symbols of the new image")
	return cmd
}

// inspector is what inspect was asked for.
type inspector struct {
	keyFile  string
	oldFile  string // base of a patch
	elf      *elfPair
	region   airtime.Region
	repeater bool
	warn     io.Writer
}

// inspect recognises a file and says what is in it.
func (in inspector) inspect(raw []byte) (document, error) {
	switch {
	case bytes.Contains(raw, []byte("-----BEGIN ")) && !bytes.ContainsRune(raw, 0):
		return in.key(raw)
	case raw[0] == '{':
		return in.fragments(raw)
	case mcuboot.Is(raw):
		return in.image(raw)
	}
	f, err := delta.ParseFile(raw)
	if err == nil {
		return in.patch(f)
	}
	if !errors.Is(err, delta.ErrFile) || bytes.HasPrefix(raw, []byte("SOWP")) {
		return document{}, err
	}
	_, _, err = bundle.Parse(raw)
	if err == nil {
		return in.bundle(raw)
	}
	im, ierr := image.Read(raw)
	if ierr != nil {
		return document{}, ierr
	}
	if im.Format != image.Raw || looksLikeCortexM(raw) {
		return in.image(raw)
	}
	return document{}, fmt.Errorf("neither MCUboot image nor patch file nor bundle (%w), nor fragments, key, ELF, Intel HEX or Cortex-M binary", err)
}

func (in inspector) bundle(raw []byte) (document, error) {
	m, payload, err := bundle.Parse(raw)
	if err != nil {
		return document{}, err
	}
	signature := "not checked (give --key)"
	if in.keyFile != "" {
		pub, id, err := readPublicKey(in.keyFile)
		if err != nil {
			return document{}, err
		}
		if _, _, err := bundle.Verify(raw, pub); err != nil {
			return document{}, err
		}
		if m.BaseSize == 0 { // authenticated: now it may be decoded
			if _, err := m.Image(payload, nil); err != nil {
				return document{}, err
			}
		}
		if id != 0 && id != m.KeyID {
			warn(in.warn, "the bundle names key id %d, the key file %s key id %d: the device looks for the key in another trust slot", m.KeyID, in.keyFile, id)
		}
		signature = "good"
	}
	var d document
	d.add("kind", "kind", "bundle")
	d.add("signature", "signature", signature)
	d.add("codec", "payload codec", m.Codec.String())
	d.add("class", "device class", fmt.Sprintf("0x%08x", m.Class))
	d.add("hardware", "hardware id", m.Hardware)
	d.add("key_id", "key id", m.KeyID)
	d.add("version", "version", m.Version.String())
	d.add("sequence", "sequence", m.Sequence)
	d.add("expiry_gps", "", m.Expiry)
	d.add("expiry_utc", "", expiryUTC(m.Expiry))
	d.add("", "expiry", expiryText(m.Expiry))
	d.add("new_bytes", "new bytes", m.NewSize)
	d.add("new_sha256", "new SHA-256", fmt.Sprintf("%x", m.NewDigest))
	if m.BaseSize != 0 {
		d.add("base_bytes", "base bytes", m.BaseSize)
		d.add("base_sha256", "base SHA-256", fmt.Sprintf("%x…", m.BaseDigest))
	} else {
		d.add("base_bytes", "base", uint32(0))
	}
	d.add("manifest_bytes", "manifest bytes", bundle.ManifestSize)
	d.add("payload_bytes", "payload bytes", m.PayloadSize)
	d.add("bundle_bytes", "bundle bytes", len(raw))
	d.add("saved_percent", "", 100-100*float64(len(raw))/float64(bundle.ManifestSize+m.NewSize))
	if m.Codec == bundle.CodecPatch {
		d.decoder(m.Params())
	}
	if in.oldFile != "" {
		switch {
		case m.Codec != bundle.CodecPatch:
			return document{}, errors.New("the bundle is no patch, so --old says nothing about it")
		case in.keyFile == "":
			return document{}, errors.New("nothing is decoded before it is authenticated: give --key too")
		}
		if err := d.explain(in, m.Params(), m.BaseDigest, payload); err != nil {
			return document{}, err
		}
	}
	d.costs(in, len(raw))
	return d, nil
}

func (in inspector) patch(f *delta.File) (document, error) {
	if in.keyFile != "" {
		return document{}, errors.New("a patch file carries no signature that --key could verify; sign makes a bundle of it")
	}
	var d document
	d.add("kind", "kind", "patch file")
	d.add("base_bytes", "base bytes", f.Params.BaseSize)
	d.add("base_sha256", "base SHA-256", fmt.Sprintf("%x…", f.BaseDigest))
	d.add("new_bytes", "new bytes", f.Params.NewSize)
	d.add("new_sha256", "new SHA-256", fmt.Sprintf("%x…", f.NewDigest))
	d.add("stream_bytes", "stream bytes", len(f.Stream))
	d.decoder(f.Params)
	if in.oldFile != "" {
		if err := d.explain(in, f.Params, f.BaseDigest, f.Stream); err != nil {
			return document{}, err
		}
	}
	d.costs(in, bundle.ManifestSize+len(f.Stream))
	return d, nil
}

func (in inspector) image(raw []byte) (document, error) {
	im, err := image.Read(raw)
	if err != nil {
		return document{}, err
	}
	kind := im.Format.String()
	if im.Boot != nil && im.Format != image.MCUboot {
		kind = "MCUboot image in " + kind
	}
	var d document
	d.add("kind", "kind", kind)
	if b := im.Boot; b != nil {
		signature := "none"
		if b.Signed {
			signature = "ECDSA, not checked (give --key)"
		}
		if in.keyFile != "" {
			pub, _, err := readPublicKey(in.keyFile)
			if err != nil {
				return document{}, err
			}
			if _, err := mcuboot.Verify(im.Data, pub); err != nil {
				return document{}, err
			}
			signature = "good"
		}
		d.add("signature", "signature", signature)
		d.add("version", "version", bundle.MakeVersion(b.Major, b.Minor, b.Revision).String())
		d.add("build", "build", b.Build)
		d.add("load_address", "load address", fmt.Sprintf("0x%08x", b.LoadAddress))
		d.add("header_bytes", "header bytes", b.HeaderSize)
		d.add("body_bytes", "body bytes", b.BodySize)
	} else if in.keyFile != "" {
		return document{}, errors.New("an image without MCUboot header carries no signature that --key could verify")
	}
	if im.Machine != 0 {
		d.add("machine", "machine", strings.TrimPrefix(im.Machine.String(), "EM_"))
	}
	if im.HasBase {
		d.add("base_address", "base address", fmt.Sprintf("0x%08x", im.Base))
	}
	d.add("image_bytes", "image bytes", len(im.Data))
	d.add("sha256", "SHA-256", fmt.Sprintf("%x", sha256.Sum256(im.Data)))
	for _, w := range im.Warnings {
		d.add("", "note", w)
	}
	d.add("warnings", "", append([]string{}, im.Warnings...))
	d.costs(in, bundle.ManifestSize+len(im.Data))
	return d, nil
}

func (in inspector) fragments(raw []byte) (document, error) {
	block, stats, err := fragfile.ReadBlock(bytes.NewReader(raw))
	complete := err == nil
	if !complete && !errors.Is(err, fragmentation.ErrNeedMore) {
		return document{}, err
	}
	var d document
	d.add("kind", "kind", "fragments")
	d.add("m", "M", stats.M)
	d.add("size", "fragment bytes", stats.Size)
	d.add("padding", "padding bytes", stats.Padding)
	d.add("matrix", "matrix", stats.Matrix)
	d.add("received", "fragments in file", stats.Received)
	d.add("useless", "of them useless", stats.Useless)
	d.add("missing", "fragments missing", stats.Missing)
	d.sent(in, stats.Received, stats.Size)
	if !complete {
		if in.keyFile != "" {
			return document{}, fmt.Errorf("the block is incomplete, its signature cannot be checked: %w", err)
		}
		return d, nil
	}
	part, err := in.inspect(block)
	switch {
	case err == nil:
		part.costed = nil // the fragments' own costs are shown
		d.block = &part
	case in.keyFile != "":
		return document{}, fmt.Errorf("the block: %w", err)
	default:
		d.add("block_bytes", "block bytes", len(block))
	}
	return d, nil
}

func (in inspector) key(raw []byte) (document, error) {
	if in.keyFile != "" {
		return document{}, errors.New("a key file carries no signature that --key could verify")
	}
	var d document
	id := any(bundle.KeyID(raw))
	if id == uint8(0) {
		id = "not said"
	}
	if bundle.IsEncrypted(raw) {
		d.add("kind", "kind", "private key, encrypted with a passphrase")
		d.add("key_id", "key id", id)
		return d, nil
	}
	pub, err := bundle.ParsePublicKey(raw)
	if err != nil {
		return document{}, err
	}
	kind := "public key"
	if _, err := bundle.ParsePrivateKey(raw); err == nil {
		kind = "private key, not encrypted"
	}
	xy, err := bundle.PublicKey(pub)
	if err != nil {
		return document{}, err
	}
	d.add("kind", "kind", kind)
	d.add("key_id", "key id", id)
	d.add("key_sha256", "SHA-256", fingerprint(pub))
	d.add("public_xy", "public key X|Y", fmt.Sprintf("%x", xy))
	return d, nil
}

func readPublicKey(path string) (*ecdsa.PublicKey, uint8, error) {
	text, err := readInput("key", path)
	if err != nil {
		return nil, 0, err
	}
	pub, err := bundle.ParsePublicKey(text)
	if errors.Is(err, bundle.ErrEncrypted) {
		return nil, 0, fmt.Errorf("key %s: it is the private key, encrypted; give the public one, which keygen wrote to *.pub", path)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("key %s: %w", path, err)
	}
	return pub, bundle.KeyID(text), nil
}

// looksLikeCortexM reports whether a binary begins with a vector table: an initial stack pointer in RAM and a
// reset vector in Thumb state.
func looksLikeCortexM(raw []byte) bool {
	if len(raw) < 64 {
		return false
	}
	sp, reset := binary.LittleEndian.Uint32(raw), binary.LittleEndian.Uint32(raw[4:])
	return sp%4 == 0 && sp >= 0x1000_0000 && sp < 0x4000_0000 && reset&1 == 1 && reset < 0x4000_0000
}

// expiryUTC returns an expiry in RFC 3339, or nothing for none.
func expiryUTC(gps uint32) string {
	if gps == 0 {
		return ""
	}
	return airtime.UTC(time.Duration(gps) * time.Second).Format(time.RFC3339)
}

func expiryText(gps uint32) string {
	if gps == 0 {
		return "never"
	}
	return fmt.Sprintf("%s (GPS second %d)", expiryUTC(gps), gps)
}
