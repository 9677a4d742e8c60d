package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/delta"
)

func newKeygenCommand() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:     "keygen -o KEY",
		Short:   "make a signing key (ECDSA P-256)",
		Long:    "keygen writes the private key to KEY (PKCS #8 PEM, readable by you alone) and the public key to KEY.pub.\nIt never overwrites a key.",
		Example: "  sower keygen -o release.pem",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, path := range []string{out, out + ".pub"} {
				if err := mustNotExist(path); err != nil {
					return err
				}
			}
			key, err := bundle.GenerateKey()
			if err != nil {
				return err
			}
			private, err := bundle.MarshalPrivateKey(key)
			if err != nil {
				return err
			}
			public, err := bundle.MarshalPublicKey(&key.PublicKey)
			if err != nil {
				return err
			}
			if err := writeOutput(out, private, 0o600); err != nil {
				return err
			}
			if err := writeOutput(out+".pub", public, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: private key, keep it off the campaign server\n%s.pub: public key, for the trust slots of the devices\n", out, out)
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file for the private key (required)")
	mustFlag(cmd, "output")
	return cmd
}

func newSignCommand() *cobra.Command {
	var out, keyFile, patchFile, version, expires string
	var t bundle.Target
	cmd := &cobra.Command{
		Use:   "sign NEW -o BUNDLE --key KEY",
		Short: "make the signed bundle that is sent to the devices",
		Long: `sign binds an image, or a patch that makes it, to the devices it is for, and signs that.

The version is read from the header of an MCUboot image. A device takes a bundle whose class, hardware and
key id are its own, whose sequence exceeds that of the image it confirmed last, and whose base it runs.`,
		Example: "  sower sign 1.1.0.bin --patch 1.0.0-1.1.0.patch --key release.pem --class 0x1001 --hardware 1 --sequence 2 -o 1.1.0.sow",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if version != "" {
				v, err := bundle.ParseVersion(version)
				if err != nil {
					return usageError{err}
				}
				t.Version = v
			}
			if expires != "" {
				at, err := time.Parse(time.RFC3339, expires)
				if err != nil {
					return usagef("--expires %q, want a time like 2027-01-31T00:00:00Z", expires)
				}
				t.Expiry = airtime.GPSSeconds(at)
			}
			new, err := readInput("new image", args[0])
			if err != nil {
				return err
			}
			text, err := readInput("key", keyFile)
			if err != nil {
				return err
			}
			key, err := bundle.ParsePrivateKey(text)
			if err != nil {
				return fmt.Errorf("key %s: %w", keyFile, err)
			}
			var block []byte
			if patchFile == "" {
				block, err = bundle.Full(t, new, key)
			} else {
				var raw []byte
				if raw, err = readInput("patch", patchFile); err != nil {
					return err
				}
				f, ferr := delta.ParseFile(raw)
				if ferr != nil {
					return fmt.Errorf("patch %s: %w", patchFile, ferr)
				}
				block, err = bundle.Patch(t, f, new, key)
			}
			if err != nil {
				return err
			}
			if err := writeOutput(out, block, 0o644); err != nil {
				return err
			}
			m, _, err := bundle.Parse(block)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes, version %s, payload %s of %d bytes\n", out, len(block), m.Version, m.Codec, m.PayloadSize)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&out, "output", "o", "", "bundle to write (required)")
	fl.StringVar(&keyFile, "key", "", "private key, PEM (required)")
	fl.StringVar(&patchFile, "patch", "", "patch that makes NEW; without it the bundle holds the full image")
	fl.StringVar(&version, "version", "", "MAJOR.MINOR.REVISION of an image without MCUboot header")
	fl.StringVar(&expires, "expires", "", "time after which the bundle is refused, RFC 3339 (default: never)")
	fl.Uint8Var(&t.KeyID, "key-id", 1, "trust slot of the device that holds the public key, 1..255")
	fl.Uint32Var(&t.Class, "class", 0, "device class")
	fl.Uint16Var(&t.Hardware, "hardware", 0, "hardware id")
	fl.Uint32Var(&t.Sequence, "sequence", 1, "anti-rollback sequence number")
	mustFlag(cmd, "output")
	mustFlag(cmd, "key")
	return cmd
}
