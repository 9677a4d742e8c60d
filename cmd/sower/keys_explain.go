package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/bundle/signer"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
)

// newKeysCommand returns the verb for the root keys of devices.
func newKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "root keys of devices: where they come from, and a file for those the server does not have",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysExplainCommand(), newKeysSealCommand())
	return cmd
}

// rootKeyFlags name a source of root keys that is asked before the server.
type rootKeyFlags struct{ file, passphraseFile, program string }

func (f *rootKeyFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.file, "keys", "", "file of root keys made by `sower keys seal`, asked before the server")
	fl.StringVar(&f.passphraseFile, "passphrase-file", "", "file whose first line is the passphrase of --keys")
	fl.StringVar(&f.program, "keys-program", "", "program asked before the server: its last argument is the DevEUI, it prints the key or nothing")
}

// open returns the source, nil if none is named.
func (f *rootKeyFlags) open(cmd *cobra.Command) (chirpstack.KeySource, error) {
	switch {
	case f.file != "" && f.program != "":
		return nil, usagef("--keys and --keys-program exclude each other")
	case f.file == "" && f.passphraseFile != "":
		return nil, usagef("--passphrase-file without --keys")
	case f.program != "":
		args, err := signer.Split(f.program)
		if err != nil {
			return nil, usagef("--keys-program: %w", err)
		}
		return &chirpstack.KeyProgram{Args: args, Stderr: cmd.ErrOrStderr()}, nil
	case f.file == "":
		return nil, nil
	}
	text, err := readInput("file of root keys", f.file)
	if err != nil {
		return nil, err
	}
	pass, err := passphrase(cmd, f.passphraseFile, "passphrase of "+f.file, false)
	if err != nil {
		return nil, err
	}
	return chirpstack.OpenKeyFile(f.file, text, pass)
}

func newKeysExplainCommand() *cobra.Command {
	var at siteFlags
	var keys rootKeyFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain DEVEUI",
		Short: "where the root key of a device comes from, and what to do if it is not there",
		Long: `explain says which key the multicast keys of a device follow from, where it is looked for, whether it is there,
and what to do if it is not. It never shows a key, nor anything computed from one. Exit code 1 if a campaign could
not get the key.`,
		Example: "  sower keys explain 70b3d57ed0000001\n  sower keys explain --keys bench-keys.txt 70b3d57ed0000001",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			device, err := network.ParseEUI64(args[0])
			if err != nil {
				return usagef("DevEUI %q, want 16 hexadecimal digits", args[0])
			}
			source, err := keys.open(cmd)
			if err != nil {
				return err
			}
			s, err := at.open()
			if err != nil {
				return err
			}
			defer s.nw.Close()
			if source != nil {
				s.nw.UseKeys(source)
			}
			return explainKeys(cmd.Context(), cmd.OutOrStdout(), s.nw, device, asJSON)
		},
	}
	at.add(cmd)
	keys.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func explainKeys(ctx context.Context, w io.Writer, nw *chirpstack.Network, device network.EUI64, asJSON bool) error {
	r, err := nw.ExplainKeys(ctx, device)
	if err != nil {
		return err
	}
	if asJSON {
		if err := printJSON(w, r); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, "device   %s (%s), LoRaWAN %s, ChirpStack %s\n", r.Device, r.Name, r.MACVersion, r.Server)
		fmt.Fprintf(w, "root key %s: %s\n", r.Key, map[chirpstack.KeyState]string{
			chirpstack.KeyPresent: "is there", chirpstack.KeyZero: "all zero, which means never provisioned",
			chirpstack.KeyAbsent: "is nowhere", chirpstack.KeyDenied: "cannot be read"}[r.State])
		fmt.Fprintf(w, "from     %s\n", r.Source)
		for i, d := range r.Derived {
			fmt.Fprintf(w, "%-8s %s\n", []string{"gives", ""}[min(i, 1)], d)
		}
		for _, n := range r.Notes {
			fmt.Fprintf(w, "note     %s\n", n)
		}
		if r.Remedy != "" {
			fmt.Fprintf(w, "→        %s\n", r.Remedy)
		}
	}
	if r.State != chirpstack.KeyPresent || r.EndToEnd {
		return fmt.Errorf("keys: no campaign can reach %s: %s", r.Device, r.Remedy)
	}
	return nil
}

func newKeysSealCommand() *cobra.Command {
	var out, passphraseFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "seal PLAIN -o FILE",
		Short: "encrypt a list of root keys for devices whose keys the server does not have",
		Long: `seal reads PLAIN, one line per device with DevEUI and root key in hexadecimal (GenAppKey for LoRaWAN 1.0.x, AppKey
for 1.1), apart by a comma or space, and writes FILE, encrypted with a passphrase: the first line of
--passphrase-file, else the environment variable SOWER_PASSPHRASE, else what you type. PLAIN "-" is standard input.
Delete PLAIN afterwards.`,
		Example: "  sower keys seal keys.csv -o root-keys.txt",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := mustNotExist(out); err != nil {
				return err
			}
			var plain []byte
			var err error
			if args[0] == "-" {
				plain, err = io.ReadAll(cmd.InOrStdin())
			} else {
				plain, err = readInput("list of root keys", args[0])
			}
			if err != nil {
				return err
			}
			defer clear(plain)
			pass, err := passphrase(cmd, passphraseFile, "new passphrase for "+out, true)
			if err != nil {
				return err
			}
			sealed, n, err := chirpstack.SealKeys(plain, pass)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if n == 0 {
				return fmt.Errorf("%s: no device in it", args[0])
			}
			if err := writeOutput(out, sealed, 0o600); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"file": out, "devices": n})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: devices with a root key: %d\n", out, n)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&out, "output", "o", "", "file to write (required)")
	fl.StringVar(&passphraseFile, "passphrase-file", "", "file whose first line is the passphrase")
	fl.BoolVar(&asJSON, "json", false, "print the result as JSON")
	mustFlag(cmd, "output")
	return cmd
}
