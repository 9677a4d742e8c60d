//go:build !cgo

package device

import (
	"errors"

	"github.com/sower-fuota/sower/firmware-stub/device/modem"
)

// HostConfig describes a device in this process.
type HostConfig struct {
	Layout         Layout
	Image          []byte // MCUboot image in slot A
	ID             Identity
	PackageVersion uint8  // 1 or 2: of TS003, TS004 and TS005
	Arena          uint32 // bytes of RAM for the library; 0 means 18 KiB
}

// Host is a device in this process. There is none in a program that was built without cgo, because it runs the C
// library.
type Host struct{}

// NewHost returns an error.
func NewHost(HostConfig) (*Host, error) {
	return nil, errors.New("device: this program was built without cgo and cannot run the device library; " +
		"build it with a C compiler: CGO_ENABLED=1 go build ./cmd/sower")
}

// The rest of what a device does is never reached.

func (*Host) PowerUp() ([]modem.Frame, error)         { return nil, errors.ErrUnsupported }
func (*Host) Turn(modem.Frame) ([]modem.Frame, error) { return nil, errors.ErrUnsupported }
func (*Host) Close() error                            { return nil }
func (*Host) Boots() int                              { return 0 }
func (*Host) Flip(uint32, uint) error                 { return errors.ErrUnsupported }
func (*Host) SlotA(int) ([]byte, error)               { return nil, errors.ErrUnsupported }
