package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/signer"
)

// passphraseVariable is the environment variable that may hold the passphrase of a key.
const passphraseVariable = "SOWER_PASSPHRASE"

var errNoPassphrase = errors.New("a passphrase is needed: give --passphrase-file, set " + passphraseVariable + ", or run on a terminal")

func newKeygenCommand() *cobra.Command {
	var out, passphraseFile string
	var open, asJSON bool
	var keyID uint8
	cmd := &cobra.Command{
		Use:   "keygen -o KEY",
		Short: "make a signing key (ECDSA P-256)",
		Long: `keygen writes the private key to KEY (readable by you alone) and the public key to KEY.pub. It never
overwrites a key.

The private key is encrypted with a passphrase: the first line of --passphrase-file, else the environment
variable SOWER_PASSPHRASE, else what you type. --no-passphrase writes it in the clear, for tests and for machines
that protect files in another way.

A device has two trust slots, each with a key and its key id. To rotate keys, make a new key with another
--key-id, ship a firmware that has both, and sign with the new one once every device runs that firmware.`,
		Example: "  sower keygen --key-id 2 -o release-2.pem",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keyID == 0 {
				return usagef("--key-id 0, want 1..255")
			}
			if open && passphraseFile != "" {
				return usagef("--no-passphrase and --passphrase-file exclude each other")
			}
			for _, path := range []string{out, out + ".pub"} {
				if err := mustNotExist(path); err != nil {
					return err
				}
			}
			key, err := bundle.GenerateKey()
			if err != nil {
				return err
			}
			var private []byte
			if open {
				private, err = bundle.MarshalPrivateKey(key, keyID)
			} else {
				var pass []byte
				if pass, err = passphrase(cmd, passphraseFile, "new passphrase for "+out, true); err != nil {
					return err
				}
				private, err = bundle.EncryptPrivateKey(key, keyID, pass)
			}
			if err != nil {
				return err
			}
			public, err := bundle.MarshalPublicKey(&key.PublicKey, keyID)
			if err != nil {
				return err
			}
			if err := writeOutput(out, private, 0o600); err != nil {
				return err
			}
			if err := writeOutput(out+".pub", public, 0o644); err != nil {
				return err
			}
			if open {
				warn(cmd.ErrOrStderr(), "%s is not encrypted: whoever reads it can sign firmware", out)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{
					"private_key": out, "public_key": out + ".pub", "key_id": keyID, "encrypted": !open,
				})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: private key, key id %d, keep it off the campaign server\n%s.pub: public key, for the trust slots of the devices\n", out, keyID, out)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&out, "output", "o", "", "file for the private key (required)")
	fl.Uint8Var(&keyID, "key-id", 1, "number of the key in the trust slots of the devices, 1..255")
	fl.StringVar(&passphraseFile, "passphrase-file", "", "file whose first line is the passphrase")
	fl.BoolVar(&open, "no-passphrase", false, "do not encrypt the private key")
	fl.BoolVar(&asJSON, "json", false, "print the result as JSON")
	mustFlag(cmd, "output")
	return cmd
}

// signingKey is what `sower sign` signs with.
type signingKey struct {
	file, passphraseFile string
	program, digest      string
	id                   uint8
}

// load returns the signer and its key id.
func (k signingKey) load(cmd *cobra.Command) (crypto.Signer, uint8, error) {
	text, err := readInput("key", k.file)
	if err != nil {
		return nil, 0, err
	}
	id := bundle.KeyID(text)
	switch {
	case cmd.Flags().Changed("key-id") && id != 0 && k.id != id:
		return nil, 0, fmt.Errorf("key %s: it is key id %d, --key-id says %d", k.file, id, k.id)
	case id == 0:
		id = k.id
	}
	if k.program != "" {
		s, err := k.external(cmd, text)
		return s, id, err
	}
	private, err := bundle.ParsePrivateKey(text)
	if errors.Is(err, bundle.ErrEncrypted) {
		pass, perr := passphrase(cmd, k.passphraseFile, "passphrase of "+k.file, false)
		if perr != nil {
			return nil, 0, fmt.Errorf("key %s: %w", k.file, perr)
		}
		private, err = bundle.DecryptPrivateKey(text, pass)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("key %s: %w", k.file, err)
	}
	return private, id, nil
}

// external returns the signer that runs a program.
func (k signingKey) external(cmd *cobra.Command, text []byte) (crypto.Signer, error) {
	args, err := signer.Split(k.program)
	if err != nil {
		return nil, usagef("--signer: %w", err)
	}
	if k.digest != "hex" && k.digest != "raw" {
		return nil, usagef("--signer-digest %q, want hex or raw", k.digest)
	}
	pub, err := bundle.ParsePublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w; with --signer, --key is the public key", k.file, err)
	}
	env := []string{} // without our own passphrase, which is none of the program's business
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, passphraseVariable+"=") {
			env = append(env, v)
		}
	}
	return &signer.Program{Context: cmd.Context(), Args: args, Key: pub, Raw: k.digest == "raw", Env: env, Stderr: cmd.ErrOrStderr()}, nil
}

// fingerprint names a public key: the SHA-256 of its PKIX form, as MCUboot's KEYHASH.
func fingerprint(pub crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%x", sha256.Sum256(der))
}

// passphrase returns the passphrase from a file, the environment or the terminal, in this order. It is never
// empty.
func passphrase(cmd *cobra.Command, file, prompt string, confirm bool) ([]byte, error) {
	if file != "" {
		b, err := readInput("passphrase file", file)
		if err != nil {
			return nil, err
		}
		line, _, _ := bytes.Cut(b, []byte("\n"))
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
			return nil, fmt.Errorf("passphrase file %s: its first line is empty", file)
		}
		return line, nil
	}
	if s, ok := os.LookupEnv(passphraseVariable); ok {
		if s == "" {
			return nil, errors.New("the passphrase in " + passphraseVariable + " is empty")
		}
		return []byte(s), nil
	}
	tty, ok := cmd.InOrStdin().(*os.File)
	if !ok || !isTerminal(tty) {
		return nil, errNoPassphrase
	}
	in := bufio.NewReader(tty)
	pass, err := readSecret(cmd.Context(), tty, in, cmd.ErrOrStderr(), prompt)
	if err != nil {
		return nil, err
	}
	if confirm {
		again, err := readSecret(cmd.Context(), tty, in, cmd.ErrOrStderr(), "the same again")
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(pass, again) {
			return nil, errors.New("the two passphrases differ")
		}
	}
	return pass, nil
}

// readSecret asks for a line on a terminal that does not show it.
func readSecret(ctx context.Context, tty *os.File, in *bufio.Reader, w io.Writer, prompt string) ([]byte, error) {
	stty := func(arg string) error {
		c := exec.Command("stty", arg)
		c.Stdin = tty
		return c.Run()
	}
	if err := stty("-echo"); err != nil {
		return nil, errNoPassphrase // no terminal after all, or one that cannot hide what is typed
	}
	defer func() {
		fmt.Fprintln(w)
		_ = stty("echo") // the terminal may be gone
	}()
	fmt.Fprintf(w, "%s: ", prompt)
	type answer struct {
		line []byte
		err  error
	}
	got := make(chan answer, 1)
	go func() { // a read cannot be cut short, but an interrupt must still bring the echo back
		line, err := in.ReadBytes('\n')
		got <- answer{bytes.TrimRight(line, "\r\n"), err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case a := <-got:
		if len(a.line) == 0 {
			if a.err != nil && a.err != io.EOF {
				return nil, a.err
			}
			return nil, errors.New("the passphrase is empty")
		}
		return a.line, nil
	}
}
