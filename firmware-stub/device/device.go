// Package device runs the C code of firmware-stub from Go: the library and the boot stub compiled for the host
// ([Host]), and the firmware itself on an emulated Cortex-M ([QEMU]). Both speak the modem protocol of
// docs/spec/modem.md, so a simulated MAC cannot tell one from the other.
package device

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrImage is returned when an image does not fit the slot of a device.
var ErrImage = errors.New("device: image does not fit")

// TrustKey is one trust slot of a device.
type TrustKey struct {
	ID     uint8    // key id of the manifest; 0 marks an empty slot
	Public [64]byte // X|Y, big endian
}

// Identity is what a device is given in the factory.
type Identity struct {
	Class     uint32
	Hardware  uint16
	HWVersion uint32   // TS006 HWversion
	RootKey   [16]byte // GenAppKey (LoRaWAN 1.0.x) or AppKey (1.1)
	LoRaWAN11 bool
	Keys      [2]TrustKey
	Seed      uint32 // differs from device to device: sensor noise, random delays
}

// factoryPage is the identity as firmware-stub/ports/mps2/mps2.h lays it out.
func (id Identity) factoryPage() []byte {
	le := binary.LittleEndian
	b := append([]byte(nil), "SOWF"...)
	b = le.AppendUint32(b, id.Class)
	b = le.AppendUint16(b, id.Hardware)
	if id.LoRaWAN11 {
		b = append(b, 1, 0)
	} else {
		b = append(b, 0, 0)
	}
	b = le.AppendUint32(b, id.HWVersion)
	b = le.AppendUint32(b, id.Seed)
	b = append(b, id.RootKey[:]...)
	for _, k := range id.Keys {
		b = append(b, k.ID)
		b = append(b, k.Public[:]...)
	}
	return b
}

// Region is a part of the flash.
type Region struct{ Addr, Size uint32 }

// Layout is the flash map of a device: the sow_map of sow_port.h, with its geometry.
type Layout struct {
	Page, Granule                                  uint32 // bytes
	EraseValue                                     byte
	SlotA, SlotB, Download, Journal, Boot, Scratch Region
}

// The flash map of the example device, as in firmware-stub/ports/mps2/mps2.h.
const (
	flashBase  = 0x21000000
	flashPage  = 2048
	flashSlot  = 0x10000
	flashLimit = 0x34000
)

// ExampleLayout is the flash map of the example firmware: 64 KiB slots in a 256 KiB part.
func ExampleLayout() Layout { return layout(flashSlot, 0xc000) }

// LayoutFor is the flash map of a part with slots that hold images of up to size bytes: the example's, or a
// larger one of the same plan.
func LayoutFor(size int) Layout {
	slot := uint32(flashSlot)
	for int(slot) < size+flashPage { // a page for the trailer
		slot += 0x4000
	}
	download := uint32(0xc000)
	if slot > flashSlot {
		download = slot // a patch of a large image may be as large as the image
	}
	return layout(slot, download)
}

func layout(slot, download uint32) Layout {
	at := uint32(flashBase)
	region := func(size uint32) Region {
		r := Region{at, size}
		at += size
		return r
	}
	return Layout{
		Page: flashPage, Granule: 8, EraseValue: 0xff,
		SlotA: region(slot), SlotB: region(slot), Download: region(download),
		Journal: region(0x2000), Boot: region(0x2000), Scratch: region(0x4000),
	}
}

// end is the first address behind the map.
func (l Layout) end() uint32 { return l.Scratch.Addr + l.Scratch.Size }

// size is the number of bytes of the map.
func (l Layout) size() uint32 { return l.end() - l.SlotA.Addr }

// fits checks that an image leaves room for the trailer in a slot.
func (l Layout) fits(image []byte) error {
	if len(image) == 0 {
		return fmt.Errorf("%w: the image is empty", ErrImage)
	}
	if uint32(len(image)) > l.SlotA.Size-l.Page {
		return fmt.Errorf("%w: image of %d bytes, slot of %d with a page of %d for the trailer", ErrImage, len(image), l.SlotA.Size, l.Page)
	}
	return nil
}
