// Package datablock implements the messages and the integrity code of LoRa Alliance TS004,
// Fragmented Data Block Transport, versions 1.0.0 and 2.0.0: identifier 3, default FPort 201.
// [FragSessionStatusReq] and [DataFragment] may be multicast, everything else is unicast; a device
// drops other commands that come over multicast without an answer.
//
// The two versions must not be mixed. [FragSessionSetupReq] grows from 10 to 16 bytes of payload,
// and the fields of [FragSessionStatusAns] change places under the same CID and length. One struct
// serves both versions of a message; the fields that only version 2 has say so, and AppendCommand
// refuses to lose them in version 1. Names are those of version 2.
//
// The parity rows differ between the versions as well. They, and the code itself, are in package
// fragmentation; this package carries the fragments.
package datablock

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/internal/wire"
)

const (
	cidPackageVersion        byte = 0x00
	cidFragSessionStatus     byte = 0x01
	cidFragSessionSetup      byte = 0x02
	cidFragSessionDelete     byte = 0x03
	cidFragDataBlockReceived byte = 0x04 // version 2
	cidDataFragment          byte = 0x08
)

// Payload lengths that depend on the version or on the content.
const (
	setupSizeV1     = 10
	setupSizeV2     = 16
	statusSize      = 4
	statusSizeShort = 1 // version 2 with SessionDoesNotExist
)

const (
	// MaxSessions is the number of fragmentation sessions of a device: FragIndex is 0..3.
	MaxSessions = 4
	// MaxN is the highest fragment number. NbFrag and all parity fragments must fit below it.
	MaxN = 1<<14 - 1
	// MaxFragSize is the largest fragment that FragSize can express, in bytes.
	MaxFragSize = 255
	// FragmentOverhead is the number of bytes that a [DataFragment] adds to its data.
	FragmentOverhead = 3
)

// Command is one of the messages of this package, all declared below.
type Command interface {
	applayer.Command
	appendTo(dst []byte, v applayer.Version) ([]byte, error)
}

// PackageVersionReq is CID 0x00, downlink, without payload: which version does the device speak?
type PackageVersionReq struct{}

// PackageVersionAns is CID 0x00, uplink.
//
//	off  len  field
//	  0    1  PackageIdentifier  3
//	  1    1  PackageVersion     1 or 2
type PackageVersionAns struct {
	PackageIdentifier uint8
	PackageVersion    uint8
}

// FragSessionStatusReq is CID 0x01, downlink, unicast or multicast. Devices answer after a random
// delay, see [AnswerWindow].
//
//	off  len  field
//	  0    1  FragStatusReqParam  bits 7:3 reserved, 2:1 FragIndex, 0 Participants
type FragSessionStatusReq struct {
	FragIndex    uint8
	Participants bool // every device answers; else only those that still miss fragments
}

// FragSessionStatusAns is CID 0x01, uplink.
//
//	version 1
//	off  len  field
//	  0    2  Received&index  bits 15:14 FragIndex, 13:0 NbFragReceived
//	  2    1  MissingFrag
//	  3    1  Status          bits 7:1 reserved, 0 NotEnoughMatrixMemory
//
//	version 2
//	off  len  field
//	  0    1  Status          bits 7:3 reserved, 2 SessionDoesNotExist, 1 MICError, 0 MemoryError
//	  1    2  Received&index  as above; absent with SessionDoesNotExist
//	  3    1  MissingFrag     absent with SessionDoesNotExist
//
// Devices with LoRa Basics Modem send all 4 bytes even with SessionDoesNotExist, the last 3 without
// meaning. ParseCommand takes both forms, and gives the same value for both: the long one if the rest
// of the message can be read as commands to its end behind that one only, else the short one.
type FragSessionStatusAns struct {
	FragIndex      uint8  // 0..3; 0 with SessionDoesNotExist
	NbFragReceived uint16 // 0..16383; devices count differently, take it as a hint
	MissingFrag    uint8  // fragments still missing; 255 means 255 or more
	MemoryError    bool   // the decoder gave up; NotEnoughMatrixMemory in version 1

	// Version 2 only.
	MICError            bool // all fragments are there, but the block is not the one announced
	SessionDoesNotExist bool // the other fields are 0
}

// Complete reports whether the device holds the whole block and has found nothing wrong with it.
// Version 1 does not check the block's integrity.
func (c FragSessionStatusAns) Complete() bool {
	return c.MissingFrag == 0 && !c.MemoryError && !c.MICError && !c.SessionDoesNotExist
}

// FragSessionSetupReq is CID 0x02, downlink: expect a block.
//
//	off  len  field
//	  0    1  FragSession  bits 7:6 reserved, 5:4 FragIndex, 3:0 McGroupBitMask
//	  1    2  NbFrag
//	  3    1  FragSize
//	  4    1  Control      bit 7 reserved, 6 AckReception (version 2), 5:3 FragAlgo, 2:0 BlockAckDelay
//	  5    1  Padding
//	  6    4  Descriptor
//	 10    2  SessionCnt   version 2 only
//	 12    4  MIC          version 2 only
type FragSessionSetupReq struct {
	FragIndex      uint8   // 0..3
	McGroupBitMask uint8   // bit X admits fragments over the multicast group with McGroupID X
	NbFrag         uint16  // 1..16383, uncoded fragments
	FragSize       uint8   // 1..255 bytes
	FragAlgo       uint8   // 0..7, 0 is the code of TS004; FragmentationMatrix in version 1
	BlockAckDelay  uint8   // 0..7, see [AnswerWindow]
	Padding        uint8   // bytes that fill up the last uncoded fragment, less than FragSize
	Descriptor     [4]byte // means what the application says

	// Version 2 only.
	AckReception bool    // the device reports reception with FragDataBlockReceivedReq
	SessionCnt   uint16  // per device and FragIndex, higher in each session than in the last
	MIC          [4]byte // see [SessionMIC]
}

// BlockSize returns the length of the block in bytes, without padding.
func (c FragSessionSetupReq) BlockSize() int {
	return int(c.NbFrag)*int(c.FragSize) - int(c.Padding)
}

// Validate reports the first field that makes a session impossible in every version, with ErrRange.
// AppendCommand refuses such a request; a device that receives one must not start a session.
func (c FragSessionSetupReq) Validate() error {
	if err := wire.Max("FragSessionSetupReq: FragIndex", uint32(c.FragIndex), MaxSessions-1); err != nil {
		return err
	}
	if err := wire.Max("FragSessionSetupReq: McGroupBitMask", uint32(c.McGroupBitMask), 0x0f); err != nil {
		return err
	}
	if c.NbFrag < 1 || c.NbFrag > MaxN {
		return fmt.Errorf("FragSessionSetupReq: NbFrag: %w: %d, want 1..%d", applayer.ErrRange, c.NbFrag, MaxN)
	}
	if c.FragSize < 1 {
		return fmt.Errorf("FragSessionSetupReq: FragSize: %w: 0, want 1..%d", applayer.ErrRange, MaxFragSize)
	}
	if err := wire.Max("FragSessionSetupReq: FragAlgo", uint32(c.FragAlgo), 7); err != nil {
		return err
	}
	if err := wire.Max("FragSessionSetupReq: BlockAckDelay", uint32(c.BlockAckDelay), 7); err != nil {
		return err
	}
	return wire.Max("FragSessionSetupReq: Padding", uint32(c.Padding), uint32(c.FragSize)-1)
}

// FragSessionSetupAns is CID 0x02, uplink.
//
//	off  len  field
//	  0    1  StatusBitMask  bits 7:6 FragIndex, 5 reserved, 4 SessionCntReplay (version 2),
//	                         3 WrongDescriptor, 2 FragIndexUnsupported, 1 NotEnoughMemory,
//	                         0 FragAlgoUnsupported (EncodingUnsupported in version 1)
type FragSessionSetupAns struct {
	FragIndex            uint8
	FragAlgoUnsupported  bool
	NotEnoughMemory      bool
	FragIndexUnsupported bool
	WrongDescriptor      bool
	SessionCntReplay     bool // version 2 only: SessionCnt is not higher than in the last session
}

// Accepted reports whether the device took the session.
func (c FragSessionSetupAns) Accepted() bool {
	return !c.FragAlgoUnsupported && !c.NotEnoughMemory && !c.FragIndexUnsupported &&
		!c.WrongDescriptor && !c.SessionCntReplay
}

// FragSessionDeleteReq is CID 0x03, downlink.
//
//	off  len  field
//	  0    1  Param  bits 7:2 reserved, 1:0 FragIndex
type FragSessionDeleteReq struct {
	FragIndex uint8
}

// FragSessionDeleteAns is CID 0x03, uplink.
//
//	off  len  field
//	  0    1  Status  bits 7:3 reserved, 2 SessionDoesNotExist, 1:0 FragIndex
type FragSessionDeleteAns struct {
	FragIndex           uint8
	SessionDoesNotExist bool
}

// FragDataBlockReceivedReq is CID 0x04, uplink, version 2: the device has the block, or all of its
// fragments at least. It is sent if the setup asked for it with AckReception, and repeated until
// answered.
//
//	off  len  field
//	  0    1  Status  bits 7:3 reserved, 2 MICError, 1:0 FragIndex
type FragDataBlockReceivedReq struct {
	FragIndex uint8
	MICError  bool
}

// FragDataBlockReceivedAns is CID 0x04, downlink, version 2.
//
//	off  len  field
//	  0    1  Status  bits 7:2 reserved, 1:0 FragIndex
type FragDataBlockReceivedAns struct {
	FragIndex uint8
}

// DataFragment is CID 0x08, downlink, unicast or multicast. It has no length and is the only command
// of its message.
//
//	off  len       field
//	  0  2         Index&N  bits 15:14 FragIndex, 13:0 N
//	  2  FragSize  Data
type DataFragment struct {
	FragIndex uint8
	N         uint16 // 1..16383: 1..NbFrag carry the block, higher numbers carry parity
	Data      []byte // 1..255 bytes; ParseCommand returns a part of its input
}

// AnswerWindow returns the time within which devices spread their answers to a status request,
// 2^(BlockAckDelay+4) seconds: 16 s to 2048 s. A server must not call a device lost before it ends.
func AnswerWindow(blockAckDelay uint8) time.Duration {
	return 16 * time.Second << (blockAckDelay & 0x07)
}

func (PackageVersionReq) CID() byte        { return cidPackageVersion }
func (PackageVersionAns) CID() byte        { return cidPackageVersion }
func (FragSessionStatusReq) CID() byte     { return cidFragSessionStatus }
func (FragSessionStatusAns) CID() byte     { return cidFragSessionStatus }
func (FragSessionSetupReq) CID() byte      { return cidFragSessionSetup }
func (FragSessionSetupAns) CID() byte      { return cidFragSessionSetup }
func (FragSessionDeleteReq) CID() byte     { return cidFragSessionDelete }
func (FragSessionDeleteAns) CID() byte     { return cidFragSessionDelete }
func (FragDataBlockReceivedReq) CID() byte { return cidFragDataBlockReceived }
func (FragDataBlockReceivedAns) CID() byte { return cidFragDataBlockReceived }
func (DataFragment) CID() byte             { return cidDataFragment }

func (PackageVersionReq) Direction() applayer.Direction        { return applayer.Downlink }
func (PackageVersionAns) Direction() applayer.Direction        { return applayer.Uplink }
func (FragSessionStatusReq) Direction() applayer.Direction     { return applayer.Downlink }
func (FragSessionStatusAns) Direction() applayer.Direction     { return applayer.Uplink }
func (FragSessionSetupReq) Direction() applayer.Direction      { return applayer.Downlink }
func (FragSessionSetupAns) Direction() applayer.Direction      { return applayer.Uplink }
func (FragSessionDeleteReq) Direction() applayer.Direction     { return applayer.Downlink }
func (FragSessionDeleteAns) Direction() applayer.Direction     { return applayer.Uplink }
func (FragDataBlockReceivedReq) Direction() applayer.Direction { return applayer.Uplink }
func (FragDataBlockReceivedAns) Direction() applayer.Direction { return applayer.Downlink }
func (DataFragment) Direction() applayer.Direction             { return applayer.Downlink }

// AppendCommand appends cmd in version v. On an error dst is returned unchanged.
func AppendCommand(dst []byte, v applayer.Version, cmd Command) ([]byte, error) {
	if err := wire.Version(applayer.DataBlock, v, applayer.V2); err != nil {
		return dst, err
	}
	return cmd.appendTo(dst, v)
}

func fragIndex(command string, i uint8) error {
	return wire.Max(command+": FragIndex", uint32(i), MaxSessions-1)
}

// onlyV2 refuses a field or command that version 1 does not have.
func onlyV2(v applayer.Version, name string, used bool) error {
	if used && v < applayer.V2 {
		return fmt.Errorf("%s: %w: %v, want v2", name, applayer.ErrVersion, v)
	}
	return nil
}

func (c PackageVersionReq) appendTo(dst []byte, _ applayer.Version) ([]byte, error) {
	return append(dst, cidPackageVersion), nil
}

func (c PackageVersionAns) appendTo(dst []byte, _ applayer.Version) ([]byte, error) {
	return append(dst, cidPackageVersion, c.PackageIdentifier, c.PackageVersion), nil
}

func (c FragSessionStatusReq) appendTo(dst []byte, _ applayer.Version) ([]byte, error) {
	if err := fragIndex("FragSessionStatusReq", c.FragIndex); err != nil {
		return dst, err
	}
	return append(dst, cidFragSessionStatus, c.FragIndex<<1|wire.Bit(c.Participants, 0)), nil
}

func (c FragSessionStatusAns) appendTo(dst []byte, v applayer.Version) ([]byte, error) {
	if err := fragIndex("FragSessionStatusAns", c.FragIndex); err != nil {
		return dst, err
	}
	if err := wire.Max("FragSessionStatusAns: NbFragReceived", uint32(c.NbFragReceived), MaxN); err != nil {
		return dst, err
	}
	if err := onlyV2(v, "FragSessionStatusAns: MICError", c.MICError); err != nil {
		return dst, err
	}
	if err := onlyV2(v, "FragSessionStatusAns: SessionDoesNotExist", c.SessionDoesNotExist); err != nil {
		return dst, err
	}
	if c.SessionDoesNotExist {
		if c != (FragSessionStatusAns{SessionDoesNotExist: true}) {
			return dst, fmt.Errorf("FragSessionStatusAns: %w: %+v: with SessionDoesNotExist all other fields must be zero", applayer.ErrRange, c)
		}
		return append(dst, cidFragSessionStatus, 0x04), nil
	}
	received := uint16(c.FragIndex)<<14 | c.NbFragReceived
	status := wire.Bit(c.MemoryError, 0) | wire.Bit(c.MICError, 1)
	if v == applayer.V1 {
		dst = append(dst, cidFragSessionStatus)
		dst = binary.LittleEndian.AppendUint16(dst, received)
		return append(dst, c.MissingFrag, status), nil
	}
	dst = append(dst, cidFragSessionStatus, status)
	dst = binary.LittleEndian.AppendUint16(dst, received)
	return append(dst, c.MissingFrag), nil
}

func (c FragSessionSetupReq) appendTo(dst []byte, v applayer.Version) ([]byte, error) {
	if err := c.Validate(); err != nil {
		return dst, err
	}
	if err := onlyV2(v, "FragSessionSetupReq: AckReception", c.AckReception); err != nil {
		return dst, err
	}
	if err := onlyV2(v, "FragSessionSetupReq: SessionCnt", c.SessionCnt != 0); err != nil {
		return dst, err
	}
	if err := onlyV2(v, "FragSessionSetupReq: MIC", c.MIC != [4]byte{}); err != nil {
		return dst, err
	}
	dst = append(dst, cidFragSessionSetup, c.FragIndex<<4|c.McGroupBitMask)
	dst = binary.LittleEndian.AppendUint16(dst, c.NbFrag)
	dst = append(dst, c.FragSize, wire.Bit(c.AckReception, 6)|c.FragAlgo<<3|c.BlockAckDelay, c.Padding)
	dst = append(dst, c.Descriptor[:]...)
	if v == applayer.V1 {
		return dst, nil
	}
	dst = binary.LittleEndian.AppendUint16(dst, c.SessionCnt)
	return append(dst, c.MIC[:]...), nil
}

func (c FragSessionSetupAns) appendTo(dst []byte, v applayer.Version) ([]byte, error) {
	if err := fragIndex("FragSessionSetupAns", c.FragIndex); err != nil {
		return dst, err
	}
	if err := onlyV2(v, "FragSessionSetupAns: SessionCntReplay", c.SessionCntReplay); err != nil {
		return dst, err
	}
	return append(dst, cidFragSessionSetup, c.FragIndex<<6|
		wire.Bit(c.FragAlgoUnsupported, 0)|wire.Bit(c.NotEnoughMemory, 1)|wire.Bit(c.FragIndexUnsupported, 2)|
		wire.Bit(c.WrongDescriptor, 3)|wire.Bit(c.SessionCntReplay, 4)), nil
}

func (c FragSessionDeleteReq) appendTo(dst []byte, _ applayer.Version) ([]byte, error) {
	if err := fragIndex("FragSessionDeleteReq", c.FragIndex); err != nil {
		return dst, err
	}
	return append(dst, cidFragSessionDelete, c.FragIndex), nil
}

func (c FragSessionDeleteAns) appendTo(dst []byte, _ applayer.Version) ([]byte, error) {
	if err := fragIndex("FragSessionDeleteAns", c.FragIndex); err != nil {
		return dst, err
	}
	return append(dst, cidFragSessionDelete, wire.Bit(c.SessionDoesNotExist, 2)|c.FragIndex), nil
}

func (c FragDataBlockReceivedReq) appendTo(dst []byte, v applayer.Version) ([]byte, error) {
	if err := onlyV2(v, "FragDataBlockReceivedReq", true); err != nil {
		return dst, err
	}
	if err := fragIndex("FragDataBlockReceivedReq", c.FragIndex); err != nil {
		return dst, err
	}
	return append(dst, cidFragDataBlockReceived, wire.Bit(c.MICError, 2)|c.FragIndex), nil
}

func (c FragDataBlockReceivedAns) appendTo(dst []byte, v applayer.Version) ([]byte, error) {
	if err := onlyV2(v, "FragDataBlockReceivedAns", true); err != nil {
		return dst, err
	}
	if err := fragIndex("FragDataBlockReceivedAns", c.FragIndex); err != nil {
		return dst, err
	}
	return append(dst, cidFragDataBlockReceived, c.FragIndex), nil
}

// check refuses what is neither sent nor read: N = 0 underflows the row index of careless decoders.
func (c DataFragment) check() error {
	if err := fragIndex("DataFragment", c.FragIndex); err != nil {
		return err
	}
	if c.N < 1 || c.N > MaxN {
		return fmt.Errorf("DataFragment: N: %w: %d, want 1..%d", applayer.ErrRange, c.N, MaxN)
	}
	if len(c.Data) < 1 || len(c.Data) > MaxFragSize {
		return fmt.Errorf("DataFragment: Data: %w: %d bytes, want 1..%d", applayer.ErrRange, len(c.Data), MaxFragSize)
	}
	return nil
}

func (c DataFragment) appendTo(dst []byte, _ applayer.Version) ([]byte, error) {
	if err := c.check(); err != nil {
		return dst, err
	}
	dst = append(dst, cidDataFragment)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(c.FragIndex)<<14|c.N)
	return append(dst, c.Data...), nil
}
