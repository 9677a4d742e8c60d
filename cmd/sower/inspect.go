package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/delta"
)

func newInspectCommand() *cobra.Command {
	var asJSON bool
	var keyFile string
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "say what is inside a bundle, a patch or an image",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readInput("file", args[0])
			if err != nil {
				return err
			}
			facts, err := inspect(raw, keyFile)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if asJSON {
				doc := map[string]any{}
				for _, f := range facts {
					doc[f.key] = f.value
				}
				return printJSON(cmd.OutOrStdout(), doc)
			}
			printFacts(cmd.OutOrStdout(), facts)
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&keyFile, "key", "", "public key, PEM: also verify the signature of a bundle")
	return cmd
}

// fact is one line of inspect's answer.
type fact struct {
	key, label string
	value      any
}

func printFacts(w io.Writer, facts []fact) {
	for _, f := range facts {
		fmt.Fprintf(w, "%-18s %v\n", f.label, f.value)
	}
}

func inspect(raw []byte, keyFile string) ([]fact, error) {
	if mcuboot.Is(raw) {
		im, err := mcuboot.Parse(raw)
		if err != nil {
			return nil, err
		}
		return []fact{
			{"kind", "kind", "MCUboot image"},
			{"version", "version", bundle.MakeVersion(im.Major, im.Minor, im.Revision).String()},
			{"load_address", "load address", fmt.Sprintf("0x%08x", im.LoadAddress)},
			{"header_bytes", "header bytes", im.HeaderSize},
			{"body_bytes", "body bytes", im.BodySize},
			{"image_bytes", "image bytes", im.Size},
			{"sha256", "SHA-256", fmt.Sprintf("%x", sha256.Sum256(raw[:im.Size]))},
		}, nil
	}
	if f, err := delta.ParseFile(raw); err == nil {
		return []fact{
			{"kind", "kind", "patch file"},
			{"base_bytes", "base bytes", f.Params.BaseSize},
			{"base_sha256", "base SHA-256", fmt.Sprintf("%x…", f.BaseDigest)},
			{"new_bytes", "new bytes", f.Params.NewSize},
			{"new_sha256", "new SHA-256", fmt.Sprintf("%x…", f.NewDigest)},
			{"stream_bytes", "stream bytes", len(f.Stream)},
			{"profile", "profile", f.Params.Profile},
			{"ram_bytes", "device RAM", f.Params.RAMBytes},
			{"scratch_bytes", "flash scratch", f.Params.ScratchBytes},
		}, nil
	} else if !errors.Is(err, delta.ErrFile) {
		return nil, err
	}
	m, _, err := bundle.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("neither MCUboot image nor patch file nor bundle (%w)", err)
	}
	signature := "not checked (give --key)"
	if keyFile != "" {
		text, err := os.ReadFile(keyFile)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", keyFile, unwrapPath(err))
		}
		pub, err := bundle.ParsePublicKey(text)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", keyFile, err)
		}
		if _, _, err := bundle.Verify(raw, pub); err != nil {
			return nil, err
		}
		signature = "good"
	}
	return []fact{
		{"kind", "kind", "bundle"},
		{"signature", "signature", signature},
		{"codec", "payload codec", m.Codec.String()},
		{"class", "device class", fmt.Sprintf("0x%08x", m.Class)},
		{"hardware", "hardware id", m.Hardware},
		{"key_id", "key id", m.KeyID},
		{"version", "version", m.Version.String()},
		{"sequence", "sequence", m.Sequence},
		{"expiry_gps", "expiry (GPS s)", m.Expiry},
		{"new_bytes", "new bytes", m.NewSize},
		{"new_sha256", "new SHA-256", fmt.Sprintf("%x", m.NewDigest)},
		{"base_bytes", "base bytes", m.BaseSize},
		{"base_sha256", "base SHA-256", fmt.Sprintf("%x…", m.BaseDigest)},
		{"payload_bytes", "payload bytes", m.PayloadSize},
		{"bundle_bytes", "bundle bytes", len(raw)},
		{"ram_bytes", "device RAM", m.RAM},
		{"scratch_bytes", "flash scratch", m.Scratch},
		{"link_base", "link base", fmt.Sprintf("0x%08x", m.LinkBase)},
	}, nil
}
