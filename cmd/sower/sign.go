package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/delta"
)

func newSignCommand() *cobra.Command {
	var out, codec, patchFile, version, expires string
	var asJSON bool
	var t bundle.Target
	var k signingKey
	cmd := &cobra.Command{
		Use:   "sign NEW -o BUNDLE --key KEY",
		Short: "make the signed bundle that is sent to the devices",
		Long: `sign binds an image, or a patch that makes it, to the devices it is for, and signs that.

NEW is the image as it was given to diff. The version is read from its MCUboot header. A device takes a bundle
whose class, hardware and key id are its own, whose sequence exceeds that of the image it confirmed last, and
whose base it runs.

The key is a file that keygen wrote, or another ECDSA P-256 key in PEM (PKCS #8, SEC 1). The passphrase of an
encrypted key is the first line of --passphrase-file, else the environment variable SOWER_PASSPHRASE, else what
you type. With --signer a program signs, for a KMS, an HSM or a smart card, and --key is the public key: the
program gets the SHA-256 digest on its standard input, as 64 hexadecimal digits or as 32 bytes
(--signer-digest), and writes the signature to its standard output, as DER or as r|s of 64 bytes. No shell is
involved.`,
		Example: `  sower sign 1.1.0.bin --patch 1.0.0-1.1.0.patch --key release.pem --class 0x1001 --hardware 1 --sequence 2 -o 1.1.0.sow
  sower sign 1.1.0.bin --key release.pem.pub --signer 'openssl pkeyutl -sign -inkey hsm.pem' --signer-digest raw -o 1.1.0.sow`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if codec == "" {
				if codec = "full"; patchFile != "" {
					codec = "patch"
				}
			}
			switch {
			case codec != "full" && codec != "patch" && codec != "zstd":
				return usagef("--codec %q, want patch, full or zstd", codec)
			case codec == "patch" && patchFile == "":
				return usagef("--codec patch needs --patch")
			case codec != "patch" && patchFile != "":
				return usagef("--codec %s and --patch exclude each other", codec)
			}
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
				if at.Year() < 1981 || at.Year() > 2115 {
					return usagef("--expires %q, want a year from 1981 to 2115: GPS seconds have 32 bits", expires)
				}
				t.Expiry = airtime.GPSSeconds(at)
			}
			im, err := readImage(cmd.ErrOrStderr(), "new image", args[0])
			if err != nil {
				return err
			}
			if im.Boot == nil {
				warn(cmd.ErrOrStderr(), "new image %s: without an MCUboot header it is refused by devices with the sower boot stub", args[0])
			}
			var patch *delta.File
			if patchFile != "" {
				raw, err := readInput("patch", patchFile)
				if err != nil {
					return err
				}
				if patch, err = delta.ParseFile(raw); err != nil {
					return fmt.Errorf("patch %s: %w", patchFile, err)
				}
			}
			key, id, err := k.load(cmd)
			if err != nil {
				return err
			}
			t.KeyID = id
			var block []byte
			switch codec {
			case "full":
				block, err = bundle.Full(t, im.Data, key)
			case "zstd":
				block, err = bundle.Zstd(t, im.Data, key)
			case "patch":
				block, err = bundle.Patch(t, patch, im.Data, key)
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
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{
					"bundle_bytes": len(block), "payload_bytes": m.PayloadSize, "codec": m.Codec.String(), "version": m.Version.String(),
					"key_id": m.KeyID, "key_sha256": fingerprint(key.Public()), "sequence": m.Sequence,
				})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes, version %s, payload %s of %d bytes, key id %d\n", out, len(block), m.Version, m.Codec, m.PayloadSize, m.KeyID)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&out, "output", "o", "", "bundle to write (required)")
	fl.StringVar(&k.file, "key", "", "private key, PEM; with --signer the public key (required)")
	fl.StringVar(&k.passphraseFile, "passphrase-file", "", "file whose first line is the passphrase of the key")
	fl.StringVar(&k.program, "signer", "", "program and arguments that sign in place of a key file")
	fl.StringVar(&k.digest, "signer-digest", "hex", "how the program gets the digest: hex or raw")
	fl.StringVar(&codec, "codec", "", "what the bundle holds: patch, full or zstd (Linux-class devices only; default: patch with --patch, else full)")
	fl.StringVar(&patchFile, "patch", "", "patch that makes NEW")
	fl.StringVar(&version, "version", "", "MAJOR.MINOR.REVISION of an image without MCUboot header")
	fl.StringVar(&expires, "expires", "", "time after which the bundle is refused, RFC 3339 (default: never)")
	fl.Uint8Var(&k.id, "key-id", 1, "number of the key in the trust slots of the devices, 1..255, if the key file does not say it")
	fl.Uint32Var(&t.Class, "class", 0, "device class")
	fl.Uint16Var(&t.Hardware, "hardware", 0, "hardware id")
	fl.Uint32Var(&t.Sequence, "sequence", 1, "anti-rollback sequence number, 1 or more")
	fl.BoolVar(&asJSON, "json", false, "print the result as JSON")
	mustFlag(cmd, "output")
	mustFlag(cmd, "key")
	return cmd
}
