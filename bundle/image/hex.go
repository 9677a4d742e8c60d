package image

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// Record types of Intel HEX.
const (
	hexData           = 0
	hexEnd            = 1
	hexSegmentBase    = 2 // bits 19:4 of addresses; the offset wraps at 64 KiB
	hexSegmentStart   = 3
	hexExtendedBase   = 4 // bits 31:16 of addresses
	hexExtendedStart  = 5
	hexRecordOverhead = 5 // length, address, type, checksum
)

// isHEX reports whether a file begins like Intel HEX.
func isHEX(file []byte) bool {
	file = bytes.TrimLeft(file, " \t\r\n\ufeff")
	if len(file) < 1+2*hexRecordOverhead || file[0] != ':' {
		return false
	}
	_, err := hex.Decode(make([]byte, hexRecordOverhead), file[1:1+2*hexRecordOverhead])
	return err == nil
}

// isRecord reports whether a file begins with a record of the letter, a digit and a count: S-records.
func isRecord(file []byte, letter byte) bool {
	return len(file) >= 10 && file[0] == letter && file[1] >= '0' && file[1] <= '9' &&
		bytes.Trim(file[2:10], "0123456789ABCDEFabcdef") == nil
}

func readHEX(file []byte) (*Image, error) {
	im := &Image{Format: HEX}
	var chunks []chunk
	var base, total uint64
	segmented, ended := false, false
	file = bytes.TrimLeft(file, " \t\r\n\ufeff")
	for n := 1; len(file) > 0; n++ {
		line, rest, _ := bytes.Cut(file, []byte("\n"))
		file = rest
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if ended {
			return nil, fmt.Errorf("%w: Intel HEX line %d follows the end record", ErrFormat, n)
		}
		kind, offset, data, err := hexRecord(line)
		if err != nil {
			return nil, fmt.Errorf("%w: Intel HEX line %d: %w", ErrFormat, n, err)
		}
		switch kind {
		case hexData:
			if len(data) == 0 {
				continue
			}
			if segmented && int(offset)+len(data) > 1<<16 {
				return nil, fmt.Errorf("%w: Intel HEX line %d: the record wraps at the end of its segment", ErrFormat, n)
			}
			if total += uint64(len(data)); total > MaxSize {
				return nil, fmt.Errorf("%w: Intel HEX line %d: more than %d bytes of data", ErrFormat, n, MaxSize)
			}
			addr := base + uint64(offset)
			if k := len(chunks); k > 0 && chunks[k-1].addr+uint64(len(chunks[k-1].data)) == addr {
				chunks[k-1].data = append(chunks[k-1].data, data...)
				continue
			}
			chunks = append(chunks, chunk{addr: addr, data: data, from: fmt.Sprintf("the data from line %d on", n)})
		case hexEnd:
			ended = true
		case hexSegmentBase, hexExtendedBase:
			if len(data) != 2 {
				return nil, fmt.Errorf("%w: Intel HEX line %d: base address of %d bytes, want 2", ErrFormat, n, len(data))
			}
			segmented = kind == hexSegmentBase
			base = uint64(binary.BigEndian.Uint16(data)) << 16
			if segmented {
				base >>= 12
			}
		case hexSegmentStart, hexExtendedStart: // the entry point, which the vector table names anyway
		default:
			return nil, fmt.Errorf("%w: Intel HEX line %d: record type %d is unknown", ErrFormat, n, kind)
		}
	}
	if !ended {
		return nil, fmt.Errorf("%w: the Intel HEX file has no end record: it is truncated", ErrFormat)
	}
	if len(chunks) == 0 {
		return nil, fmt.Errorf("%w: the Intel HEX file holds no data", ErrFormat)
	}
	return im, im.assemble(chunks)
}

// hexRecord decodes one line.
func hexRecord(line []byte) (kind uint8, offset uint16, data []byte, err error) {
	if line[0] != ':' {
		return 0, 0, nil, fmt.Errorf("it begins with %q, want ':'", line[0])
	}
	raw := make([]byte, hex.DecodedLen(len(line)-1))
	if _, err := hex.Decode(raw, line[1:]); err != nil {
		return 0, 0, nil, fmt.Errorf("%w", err)
	}
	if len(raw) < hexRecordOverhead || len(raw) != int(raw[0])+hexRecordOverhead {
		return 0, 0, nil, fmt.Errorf("%d bytes do not fit the length the record names", len(raw))
	}
	sum := uint8(0)
	for _, b := range raw {
		sum += b
	}
	if sum != 0 {
		last := raw[len(raw)-1]
		return 0, 0, nil, fmt.Errorf("checksum 0x%02x, want 0x%02x", last, last-sum)
	}
	return raw[3], binary.BigEndian.Uint16(raw[1:]), raw[4 : len(raw)-1], nil
}
