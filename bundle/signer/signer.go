// Package signer signs with a key that a program holds: a command-line client of a key management service, a
// hardware security module, a smart card, or a person with an offline machine.
//
// The program gets the SHA-256 digest on its standard input and answers with an ECDSA P-256 signature on its
// standard output, as DER or as r|s of 64 bytes. It may talk to the user over the standard error and the
// terminal. Every answer is verified with the public key before it is used.
package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os/exec"
	"strings"
)

// ErrSigner is returned when the program cannot be run, fails, or answers with no signature of the key.
var ErrSigner = errors.New("signer: the signing program failed")

// maxAnswer is more than the longest DER signature, 72 bytes.
const maxAnswer = 256

// Program is a [crypto.Signer] whose key is held by a program.
type Program struct {
	Context context.Context  // ends the program; nil means never
	Args    []string         // program and arguments; no shell is involved
	Key     *ecdsa.PublicKey // of the key that the program signs with, P-256
	Raw     bool             // the digest is given as 32 bytes; false: as a line of 64 hexadecimal digits
	Env     []string         // environment of the program; nil means that of this process
	Stderr  io.Writer        // where the program's standard error goes; nil means nowhere
}

// Public returns p.Key.
func (p *Program) Public() crypto.PublicKey { return p.Key }

// Sign runs the program on a SHA-256 digest and returns the signature as DER. Errors wrap [ErrSigner].
func (p *Program) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 || len(digest) != sha256.Size {
		return nil, fmt.Errorf("%w: %d bytes to sign, want a SHA-256 digest", ErrSigner, len(digest))
	}
	if len(p.Args) == 0 {
		return nil, fmt.Errorf("%w: no program is named", ErrSigner)
	}
	if p.Key == nil || p.Key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: the public key is not ECDSA P-256", ErrSigner)
	}
	ctx := p.Context
	if ctx == nil {
		ctx = context.Background()
	}
	cmd := exec.CommandContext(ctx, p.Args[0], p.Args[1:]...)
	cmd.Env = p.Env
	cmd.Stderr = p.Stderr
	input := digest
	if !p.Raw {
		input = append(hex.AppendEncode(nil, digest), '\n')
	}
	cmd.Stdin = bytes.NewReader(input)
	var out limited
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrSigner, p.Args[0], err)
	}
	if out.over {
		return nil, fmt.Errorf("%w: %s wrote more than %d bytes, want a signature", ErrSigner, p.Args[0], maxAnswer)
	}
	der, err := check(p.Key, digest, out.buf)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrSigner, p.Args[0], err)
	}
	return der, nil
}

// check finds out in which form the answer is a valid signature and returns it as DER.
func check(key *ecdsa.PublicKey, digest, answer []byte) ([]byte, error) {
	if ecdsa.VerifyASN1(key, digest, answer) {
		return answer, nil
	}
	if len(answer) == 64 {
		der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(answer[:32]), new(big.Int).SetBytes(answer[32:])})
		if err == nil && ecdsa.VerifyASN1(key, digest, der) {
			return der, nil
		}
	}
	var sig struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(answer, &sig)
	if len(answer) == 64 || err == nil && len(rest) == 0 {
		return nil, errors.New("its signature does not verify: it signs with another key, or not the digest itself")
	}
	return nil, fmt.Errorf("it wrote %d bytes that are no signature, want DER, or r|s of 64 bytes", len(answer))
}

// limited keeps the first maxAnswer bytes.
type limited struct {
	buf  []byte
	over bool
}

func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), maxAnswer-len(l.buf))
	l.buf = append(l.buf, b[:n]...)
	l.over = l.over || n < len(b)
	return len(b), nil
}

// Split splits a command line at spaces. Arguments between quotes, ' or ", keep their spaces; there is no other
// syntax, and no shell.
func Split(line string) ([]string, error) {
	var args []string
	var arg strings.Builder
	var quote rune
	within := false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, within = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if within {
				args = append(args, arg.String())
				arg.Reset()
				within = false
			}
		default:
			arg.WriteRune(r)
			within = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("signer: %q has an open quote", line)
	}
	if within {
		args = append(args, arg.String())
	}
	if len(args) == 0 {
		return nil, errors.New("signer: no program is named")
	}
	return args, nil
}
