package chirpstack

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/internal/passphrase"
)

var (
	// ErrKeyFile is returned for bytes that are no file of root keys.
	ErrKeyFile = errors.New("chirpstack: not a file of root keys")
	// ErrPassphrase is returned for an empty passphrase and for a wrong one, or a damaged file: the cipher cannot
	// tell them apart.
	ErrPassphrase = errors.New("chirpstack: wrong passphrase, or the file of root keys is damaged")
)

// A file of root keys has one line per device, so that a key is decrypted when it is needed and no other with it:
//
//	SOWER ROOT KEYS 1
//	Cipher: AES-256-GCM
//	KDF: PBKDF2-HMAC-SHA256
//	Iterations: 600000
//	Salt: 32 bytes in hexadecimal
//	Seal: tag of header and lines, 16 bytes in hexadecimal
//
//	70b3d57ed0000001 key and tag, 32 bytes in hexadecimal
//
// Lines are in order of the DevEUI. The cipher is that of package passphrase. Nonces are the DevEUI and 4 zero bytes,
// and 12 bytes 0xff for the seal: the salt is new whenever a file is written, and a device stands in it once. What is
// authenticated with each is the header.
const keyFileTitle = "SOWER ROOT KEYS 1"

// KeyFile is a [KeySource] on an encrypted file. The keys stay encrypted in memory.
type KeyFile struct {
	name   string
	aead   cipher.AEAD
	header []byte
	sealed map[network.EUI64][]byte
}

func keyFileHeader(salt []byte, n int) []byte {
	return fmt.Appendf(nil, "%s\nCipher: %s\nKDF: %s\nIterations: %d\nSalt: %x\n", keyFileTitle, passphrase.CipherName, passphrase.KDFName, n, salt)
}

func keyNonce(device network.EUI64) []byte { return append(device[:], 0, 0, 0, 0) }

var sealNonce = bytes.Repeat([]byte{0xff}, 12)

// SealKeys encrypts root keys. plain has one line per device: DevEUI and key in hexadecimal, apart by a comma or
// by space; lines that begin with # and empty lines are skipped. It returns the file and how many devices it has.
// Errors name the line and do not show what stands in it.
func SealKeys(plain, pass []byte) ([]byte, int, error) {
	return sealKeys(plain, pass, passphrase.Iterations)
}

func sealKeys(plain, pass []byte, iterations int) ([]byte, int, error) {
	keys, err := parsePlainKeys(plain)
	if err != nil {
		return nil, 0, err
	}
	salt := make([]byte, passphrase.SaltSize)
	rand.Read(salt) // never fails: crypto/rand
	aead, err := passphrase.Cipher(pass, salt, iterations)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrPassphrase, err)
	}
	devices := make([]network.EUI64, 0, len(keys))
	for device := range keys {
		devices = append(devices, device)
	}
	slices.SortFunc(devices, func(a, b network.EUI64) int { return bytes.Compare(a[:], b[:]) })
	header := keyFileHeader(salt, iterations)
	var lines []byte
	for _, device := range devices {
		key := keys[device]
		lines = fmt.Appendf(lines, "%s %x\n", device, aead.Seal(nil, keyNonce(device), key[:], header))
	}
	out := fmt.Appendf(slices.Clone(header), "Seal: %x\n\n", aead.Seal(nil, sealNonce, nil, slices.Concat(header, lines)))
	return append(out, lines...), len(devices), nil
}

func parsePlainKeys(plain []byte) (map[network.EUI64]network.Key, error) {
	keys := map[network.EUI64]network.Key{}
	number := 0
	for line := range bytes.Lines(plain) {
		number++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		fields := bytes.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ';' || r == ' ' || r == '\t' })
		if len(fields) != 2 {
			return nil, fmt.Errorf("%w: line %d has %d fields, want DevEUI and key", ErrKeyFile, number, len(fields))
		}
		// The fields may have changed places: neither appears in an error.
		device, err := network.ParseEUI64(string(fields[0]))
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: the first field is no DevEUI of 16 hexadecimal digits", ErrKeyFile, number)
		}
		var key network.Key
		if err := parseKey(&key, fields[1]); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrKeyFile, number, err)
		}
		if key == (network.Key{}) {
			return nil, fmt.Errorf("%w: line %d: the key of %s is all zero, which means not provisioned; leave the line out", ErrKeyFile, number, device)
		}
		if _, twice := keys[device]; twice {
			return nil, fmt.Errorf("%w: line %d: device %s stands there twice", ErrKeyFile, number, device)
		}
		keys[device] = key
	}
	return keys, nil
}

// OpenKeyFile reads a file that [SealKeys] wrote; name is for people. Errors wrap [ErrKeyFile] or [ErrPassphrase].
func OpenKeyFile(name string, text, pass []byte) (*KeyFile, error) {
	bad := func(format string, args ...any) (*KeyFile, error) {
		return nil, fmt.Errorf("%w: %s: %s", ErrKeyFile, name, fmt.Sprintf(format, args...))
	}
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	head, lines, found := bytes.Cut(text, []byte("\n\n"))
	fields := map[string]string{}
	for i, line := range strings.Split(string(head), "\n") {
		k, v, _ := strings.Cut(line, ": ")
		if i == 0 && line != keyFileTitle {
			return bad("it does not begin with %q; make it with: sower keys seal", keyFileTitle)
		}
		fields[k] = v
	}
	if !found {
		return bad("it ends in its header")
	}
	n, err := strconv.Atoi(fields["Iterations"])
	if err != nil || n < 1 || n > passphrase.MaxIterations {
		return bad("%q iterations, want 1..%d", fields["Iterations"], passphrase.MaxIterations)
	}
	salt, err := hex.DecodeString(fields["Salt"])
	if err != nil || len(salt) != passphrase.SaltSize {
		return bad("its salt is not %d bytes in hexadecimal", passphrase.SaltSize)
	}
	seal, err := hex.DecodeString(fields["Seal"])
	if err != nil {
		return bad("its seal is not hexadecimal")
	}
	f := &KeyFile{name: name, header: keyFileHeader(salt, n), sealed: map[network.EUI64][]byte{}}
	if f.aead, err = passphrase.Cipher(pass, salt, n); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrPassphrase, err)
	}
	if _, err := f.aead.Open(nil, sealNonce, seal, slices.Concat(f.header, lines)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, ErrPassphrase)
	}
	for line := range bytes.Lines(lines) { // authentic: as SealKeys wrote them
		eui, sealed, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		device, err := network.ParseEUI64(eui)
		if err != nil {
			return bad("%s", err)
		}
		if f.sealed[device], err = hex.DecodeString(sealed); err != nil {
			return bad("the key of %s is not hexadecimal", device)
		}
	}
	return f, nil
}

// String names the file.
func (f *KeyFile) String() string { return "file " + f.name }

// Devices returns how many devices the file has.
func (f *KeyFile) Devices() int { return len(f.sealed) }

// RootKey implements [KeySource].
func (f *KeyFile) RootKey(_ context.Context, device network.EUI64) (key network.Key, err error) {
	sealed, ok := f.sealed[device]
	if !ok {
		return key, fmt.Errorf("chirpstack: root key of %s: %w in %s", device, network.ErrNotFound, f)
	}
	plain, err := f.aead.Open(nil, keyNonce(device), sealed, f.header)
	if err != nil || len(plain) != len(key) {
		return key, fmt.Errorf("chirpstack: root key of %s: %w: %s", device, ErrPassphrase, f)
	}
	copy(key[:], plain)
	clear(plain)
	return key, nil
}

// KeyProgram is a [KeySource] that runs a program: a client of a join server, of a key management service, of a
// hardware security module. It is run with the DevEUI, 16 lower-case hexadecimal digits, as its last argument and
// writes the key, 32 hexadecimal digits, on its standard output, or nothing for a device that it does not know.
type KeyProgram struct {
	Args    []string      // program and arguments; no shell is involved
	Env     []string      // environment; nil means that of this process
	Stderr  io.Writer     // where its standard error goes; nil means nowhere
	Timeout time.Duration // for one key; 0 means 10 s
}

// String names the program, without its arguments, which may be secret.
func (p *KeyProgram) String() string {
	if len(p.Args) == 0 {
		return "program"
	}
	return "program " + p.Args[0]
}

// RootKey implements [KeySource]. A program that cannot be run or fails is [network.ErrUnavailable].
func (p *KeyProgram) RootKey(ctx context.Context, device network.EUI64) (key network.Key, err error) {
	fail := func(kind error, format string, args ...any) (network.Key, error) {
		return network.Key{}, fmt.Errorf("chirpstack: root key of %s: %w: %s: %s", device, kind, p, fmt.Sprintf(format, args...))
	}
	if len(p.Args) == 0 {
		return fail(network.ErrInvalid, "no program is named")
	}
	timeout := p.Timeout
	if timeout == 0 {
		timeout = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Args[0], slices.Concat(p.Args[1:], []string{device.String()})...)
	cmd.Env, cmd.Stderr = p.Env, p.Stderr
	cmd.WaitDelay = time.Second // a child of it may keep the pipe
	var out limited
	cmd.Stdout = &out
	defer clear(out.buf[:])
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fail(network.ErrUnavailable, "%s", err)
	}
	text := bytes.TrimSpace(out.buf[:min(out.n, len(out.buf))])
	switch {
	case out.n > len(out.buf):
		return fail(network.ErrInvalid, "it wrote more than %d bytes, want a key", len(out.buf))
	case len(text) == 0:
		return fail(network.ErrNotFound, "it does not know the device")
	}
	if err := parseKey(&key, text); err != nil {
		return fail(network.ErrInvalid, "%s", err)
	}
	return key, nil
}

// limited keeps the first bytes of what is written.
type limited struct {
	buf [256]byte
	n   int
}

func (l *limited) Write(b []byte) (int, error) {
	if l.n < len(l.buf) {
		copy(l.buf[l.n:], b)
	}
	l.n += len(b)
	return len(b), nil
}
