package multipackage

import (
	"errors"
	"fmt"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/internal/wire"
	"github.com/sower-fuota/sower/applayer/mcsetup"
)

// packageMark is set in the byte that names a package; CIDs never have it.
const packageMark = 0x80

// Versions has the version of each package that a device speaks, indexed by identifier; 0 means
// that it lacks the package. The commands of a message cannot be told apart without it.
type Versions [applayer.FwMgmt + 1]applayer.Version

// Message is the application payload of one frame on FPort 225.
type Message struct {
	Commands []applayer.Command // of this package and of its four siblings
	Token    uint8              // 0..3; 0 for a MultiPackBufferReq, which is sent without
}

// AppendMessage appends m with its CommandToken, for a device that has the packages vs. All commands
// must go in the same direction. On an error dst is returned unchanged.
func AppendMessage(dst []byte, vs Versions, m Message) ([]byte, error) {
	if err := wire.Max("Message: Token", uint32(m.Token), 3); err != nil {
		return dst, err
	}
	out, err := AppendCommands(dst, vs, m.Commands)
	if err != nil {
		return dst, err
	}
	if len(m.Commands) == 1 {
		if _, ok := m.Commands[0].(MultiPackBufferReq); ok {
			if m.Token != 0 {
				return dst, fmt.Errorf("Message: Token: %w: %d, but a MultiPackBufferReq has none", applayer.ErrRange, m.Token)
			}
			return out, nil
		}
	}
	return append(out, m.Token), nil
}

// AppendCommands appends commands of several packages without a CommandToken, which is what the
// answer buffer of a device holds. On an error dst is returned unchanged.
func AppendCommands(dst []byte, vs Versions, cmds []applayer.Command) ([]byte, error) {
	out := dst
	current := applayer.MultiPackage
	for i, cmd := range cmds {
		id, ok := packageOf(cmd)
		if !ok {
			return dst, fmt.Errorf("command %d: %T: %w", i+1, cmd, applayer.ErrUnknownCID)
		}
		if cmd.Direction() != cmds[0].Direction() {
			return dst, fmt.Errorf("command %d: %T: %w: %v behind a command that goes %v",
				i+1, cmd, applayer.ErrRange, cmd.Direction(), cmds[0].Direction())
		}
		if err := alone(cmd, len(cmds) == 1); err != nil {
			return dst, fmt.Errorf("command %d: %w", i+1, err)
		}
		if id != current {
			out = append(out, packageMark|byte(id))
			current = id
		}
		var err error
		if out, err = appendCommand(out, vs[id], cmd); err != nil {
			return dst, fmt.Errorf("command %d: %w", i+1, err)
		}
	}
	return out, nil
}

// ParseMessage reads the application payload of a frame on FPort 225 of a device that has the
// packages vs. On an error it returns the commands before it, with the token.
func ParseMessage(vs Versions, dir applayer.Direction, b []byte) (Message, error) {
	if len(b) == 0 {
		return Message{}, fmt.Errorf("message: %w: no bytes, want a CommandToken", applayer.ErrShort)
	}
	body, token := b[:len(b)-1], b[len(b)-1]&0x03
	if tokenless(dir, b) {
		body, token = b, 0
	}
	cmds, err := ParseCommands(vs, dir, body)
	return Message{Commands: cmds, Token: token}, err
}

// tokenless reports whether b is a MultiPackBufferReq, or a MultiPackBufferFrag that says error:
// whether the latter has a token is not clear from the text, and devices differ.
func tokenless(dir applayer.Direction, b []byte) bool {
	if b[0] == packageMark {
		b = b[1:]
	}
	if dir == applayer.Downlink {
		return len(b) == 3 && b[0] == cidMultiPackBuffer
	}
	return len(b) == 2 && b[0] == cidMultiPackBuffer && b[1] == bufferError
}

// ParseCommands reads commands of several packages without a CommandToken up to the end of b. On an
// error it returns the commands before it.
func ParseCommands(vs Versions, dir applayer.Direction, b []byte) ([]applayer.Command, error) {
	var cmds []applayer.Command
	r := reader{vs: vs, dir: dir, b: b}
	id := applayer.MultiPackage
	for at := 0; at < len(b); {
		if b[at]&packageMark != 0 {
			id = applayer.PackageID(b[at] &^ packageMark)
			if int(id) >= len(vs) {
				return cmds, fmt.Errorf("byte %d: %v: %w", at, id, applayer.ErrUnknownCID)
			}
			at++
			continue
		}
		cmd, n, err := r.command(at, id)
		if err == nil {
			err = alone(cmd, len(cmds) == 0 && at+n == len(b))
		}
		if err != nil {
			return cmds, fmt.Errorf("command %d at byte %d: %w", len(cmds)+1, at, err)
		}
		cmds = append(cmds, cmd)
		at += n
	}
	return cmds, nil
}

// reader reads one message.
type reader struct {
	vs  Versions
	dir applayer.Direction
	b   []byte

	// readable[i][id] says that b[i:] can be read to the end if package id is in force at i.
	// It is nil until needed.
	readable [][len(Versions{})]bool
}

// command reads the command at byte i and returns its length.
func (r *reader) command(i int, id applayer.PackageID) (applayer.Command, int, error) {
	if !r.noSession(i, id) {
		cmd, rest, err := parseCommand(r.vs[id], id, r.dir, r.b[i:])
		return cmd, len(r.b) - i - len(rest), err
	}
	cmd, _, err := parseCommand(r.vs[id], id, r.dir, r.b[i:i+noSessionSize])
	if i+noSessionSizeLong <= len(r.b) {
		r.lookAhead()
		if !r.readable[i+noSessionSize][id] && r.readable[i+noSessionSizeLong][id] {
			return cmd, noSessionSizeLong, err
		}
	}
	return cmd, noSessionSize, err
}

// A [datablock.FragSessionStatusAns] without a session has two lengths. The parser of its own package
// tells them apart by what follows, but here commands of other packages may follow.
const (
	noSessionSize     = 2
	noSessionSizeLong = 5
)

func (r *reader) noSession(i int, id applayer.PackageID) bool {
	return id == applayer.DataBlock && r.vs[id] == applayer.V2 && r.dir == applayer.Uplink &&
		len(r.b)-i >= noSessionSize && r.b[i] == datablock.FragSessionStatusAns{}.CID() && r.b[i+1]&0x04 != 0
}

// lookAhead computes readable from the end to the start.
func (r *reader) lookAhead() {
	if r.readable != nil {
		return
	}
	r.readable = make([][len(Versions{})]bool, len(r.b)+1)
	for id := range r.vs {
		r.readable[len(r.b)][id] = true
	}
	for i := len(r.b) - 1; i >= 0; i-- {
		for id := range r.vs {
			r.readable[i][id] = r.readableAt(i, applayer.PackageID(id))
		}
	}
}

func (r *reader) readableAt(i int, id applayer.PackageID) bool {
	if r.b[i]&packageMark != 0 {
		next := int(r.b[i] &^ packageMark)
		return next < len(r.vs) && r.readable[i+1][next]
	}
	if r.noSession(i, id) {
		return r.readable[i+noSessionSize][id] || i+noSessionSizeLong <= len(r.b) && r.readable[i+noSessionSizeLong][id]
	}
	cmd, rest, err := parseCommand(r.vs[id], id, r.dir, r.b[i:])
	if err != nil || alone(cmd, false) != nil {
		return false
	}
	if r.dir == applayer.Uplink && cmd.CID() == cidPackageVersion {
		// Three zeros are no PackageVersionAns but the long form of a device with nothing received.
		if r.b[i+1] != byte(id) || r.b[i+2] != byte(r.vs[id]) {
			return false
		}
	}
	return r.readable[len(r.b)-len(rest)][id]
}

// alone refuses the commands that must not share their message, and DataFragment altogether.
func alone(cmd applayer.Command, isAlone bool) error {
	switch cmd.(type) {
	case datablock.DataFragment:
		return fmt.Errorf("DataFragment: %w, on the port of its own package", applayer.ErrNotAlone)
	case MultiPackBufferReq, MultiPackBufferFrag:
		if !isAlone {
			return fmt.Errorf("%T: %w", cmd, applayer.ErrNotAlone)
		}
	}
	return nil
}

func packageOf(cmd applayer.Command) (applayer.PackageID, bool) {
	switch cmd.(type) {
	case Command:
		return applayer.MultiPackage, true
	case clocksync.Command:
		return applayer.ClockSync, true
	case mcsetup.Command:
		return applayer.McSetup, true
	case datablock.Command:
		return applayer.DataBlock, true
	case fwmgmt.Command:
		return applayer.FwMgmt, true
	}
	return 0, false
}

func appendCommand(dst []byte, v applayer.Version, cmd applayer.Command) ([]byte, error) {
	switch cmd := cmd.(type) {
	case clocksync.Command:
		return clocksync.AppendCommand(dst, v, cmd)
	case mcsetup.Command:
		return mcsetup.AppendCommand(dst, v, cmd)
	case datablock.Command:
		return datablock.AppendCommand(dst, v, cmd)
	case fwmgmt.Command:
		return fwmgmt.AppendCommand(dst, v, cmd)
	}
	return AppendCommand(dst, applayer.V1, cmd.(Command))
}

func parseCommand(v applayer.Version, id applayer.PackageID, dir applayer.Direction, b []byte) (applayer.Command, []byte, error) {
	switch id {
	case applayer.ClockSync:
		return result(clocksync.ParseCommand(v, dir, b))
	case applayer.McSetup:
		return result(mcsetup.ParseCommand(v, dir, b))
	case applayer.DataBlock:
		return result(datablock.ParseCommand(v, dir, b))
	case applayer.FwMgmt:
		return result(fwmgmt.ParseCommand(v, dir, b))
	}
	return result(ParseCommand(applayer.V1, dir, b))
}

func result[C applayer.Command](cmd C, rest []byte, err error) (applayer.Command, []byte, error) {
	if err != nil {
		return nil, nil, err
	}
	return cmd, rest, nil
}

// ErrConflict is returned by [Buffer.Add] for a byte that arrived before with another value.
var ErrConflict = errors.New("multipackage: answer buffer received twice with different bytes")

// Split returns the uplink messages by which a device with room for maxPayload bytes sends its
// answer buffer: the buffer itself if it fits, else pieces of maxPayload-3 bytes in
// [MultiPackBufferFrag]s. Each message ends with the CommandToken. maxPayload is at least 4.
func Split(buffer []byte, maxPayload int, token uint8) ([][]byte, error) {
	if err := wire.Max("Split: token", uint32(token), 3); err != nil {
		return nil, err
	}
	if len(buffer) > MaxBuffer {
		return nil, fmt.Errorf("Split: %w: buffer of %d bytes, want 0..%d", applayer.ErrRange, len(buffer), MaxBuffer)
	}
	if len(buffer) < maxPayload {
		return [][]byte{append(append([]byte{}, buffer...), token)}, nil
	}
	return SplitRange(buffer, MultiPackBufferReq{StartByte: 0, StopByte: MaxBuffer - 1}, maxPayload, token)
}

// SplitRange returns the uplink messages by which a device answers req from its answer buffer.
func SplitRange(buffer []byte, req MultiPackBufferReq, maxPayload int, token uint8) ([][]byte, error) {
	if err := wire.Max("SplitRange: token", uint32(token), 3); err != nil {
		return nil, err
	}
	const overhead = 3 // CID, BaseByte, CommandToken
	if maxPayload <= overhead {
		return nil, fmt.Errorf("SplitRange: %w: maxPayload %d, want more than %d", applayer.ErrRange, maxPayload, overhead)
	}
	start, stop := int(req.StartByte), min(int(req.StopByte)+1, len(buffer), MaxBuffer)
	if start >= stop {
		return [][]byte{{cidMultiPackBuffer, bufferError, token}}, nil
	}
	var msgs [][]byte
	for ; start < stop; start += maxPayload - overhead {
		piece := buffer[start:min(stop, start+maxPayload-overhead)]
		msg := append([]byte{cidMultiPackBuffer, byte(start)}, piece...)
		msgs = append(msgs, append(msg, token))
	}
	return msgs, nil
}

// Buffer puts the pieces of an answer buffer together again, on the server. Its length is not on
// the air: [ParseCommands] of Bytes ends with [applayer.ErrShort] while the end is missing. The zero
// value is empty.
type Buffer struct {
	data [MaxBuffer]byte
	have [MaxBuffer]bool
}

// Add takes a piece in any order. After an error the buffer is as before.
func (b *Buffer) Add(f MultiPackBufferFrag) error {
	if err := f.check(); err != nil {
		return err
	}
	for i, c := range f.Data {
		if at := int(f.BaseByte) + i; b.have[at] && b.data[at] != c {
			return fmt.Errorf("byte %d: %w: %#02x, then %#02x", at, ErrConflict, b.data[at], c)
		}
	}
	for i, c := range f.Data {
		b.data[int(f.BaseByte)+i] = c
		b.have[int(f.BaseByte)+i] = true
	}
	return nil
}

// Bytes returns the bytes from the start up to the first that is missing.
func (b *Buffer) Bytes() []byte {
	n := 0
	for n < MaxBuffer && b.have[n] {
		n++
	}
	return b.data[:n:n]
}

// Missing returns the request for what comes after Bytes, up to the next piece that is there or, if
// none is, to the end of the device's buffer. It returns false if all 128 bytes are there.
func (b *Buffer) Missing() (MultiPackBufferReq, bool) {
	start := len(b.Bytes())
	if start == MaxBuffer {
		return MultiPackBufferReq{}, false
	}
	stop := start
	for stop+1 < MaxBuffer && !b.have[stop+1] {
		stop++
	}
	return MultiPackBufferReq{StartByte: uint8(start), StopByte: uint8(stop)}, true
}
