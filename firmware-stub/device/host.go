package device

/*
#cgo CFLAGS: -std=c99 -O2 -Wall -Wextra -I${SRCDIR}/../include -I${SRCDIR}/../src -I${SRCDIR}/../ports/modem -I${SRCDIR}/../ports/posix -I${SRCDIR}/../examples/beacon
#include <stdlib.h>
#include <string.h>
#include "host.h"
*/
import "C"

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"github.com/sower-fuota/sower/firmware-stub/device/modem"
)

// HostConfig says what a host device is made of.
type HostConfig struct {
	Layout         Layout
	Image          []byte // MCUboot image in slot A
	ID             Identity
	PackageVersion uint8  // 1 or 2: of TS003, TS004 and TS005
	Arena          uint32 // bytes of RAM for the library; 0 means 18 KiB
}

// Host is a device in this process: the C library and the boot stub, compiled for the host, on an emulated
// flash that refuses what real flash refuses. The application in slot A is modelled: after a swap its version
// is read from its header, and its self-test does what the image says it would.
type Host struct {
	h      *C.struct_host
	layout Layout
	in     modem.Decoder
	on     bool
}

// NewHost makes a device that has not been powered up yet. Close it to free its memory.
func NewHost(cfg HostConfig) (*Host, error) {
	if err := cfg.Layout.fits(cfg.Image); err != nil {
		return nil, err
	}
	if cfg.Arena == 0 {
		cfg.Arena = 18 << 10
	}
	l := cfg.Layout
	h := (*C.struct_host)(C.calloc(1, C.sizeof_struct_host))
	d := &Host{h: h, layout: l}
	geometry := C.struct_sow_flash_emu_geometry{
		base: C.uint32_t(l.SlotA.Addr), size: C.uint32_t(l.size()),
		page: C.uint32_t(l.Page), granule: C.uint32_t(l.Granule), erase_value: C.uint8_t(l.EraseValue),
	}
	h.memory = C.calloc(1, C.sow_flash_emu_size(&geometry)+1)
	h.arena = (*C.uint8_t)(C.calloc(1, C.size_t(cfg.Arena)))
	h.arena_size = C.uint32_t(cfg.Arena)
	if rc := C.sow_flash_emu_init(&h.flash, &geometry, h.memory); rc != 0 {
		d.Close()
		return nil, fmt.Errorf("device: flash of %d bytes, page %d, granule %d: code %d", l.size(), l.Page, l.Granule, int(rc))
	}
	h.random = C.uint32_t(cfg.ID.Seed)
	h.options.package_version = C.uint8_t(cfg.PackageVersion)
	h.options.confirm = C.SOW_CONFIRM_JOINED
	h._map = C.struct_sow_map{
		slot_a: cRegion(l.SlotA), slot_b: cRegion(l.SlotB), download: cRegion(l.Download),
		journal: cRegion(l.Journal), boot: cRegion(l.Boot), scratch: cRegion(l.Scratch),
	}
	h.port.granule = C.uint32_t(l.Granule)
	h.port.page = C.uint32_t(l.Page)
	h.port.erase_value = C.uint8_t(l.EraseValue)
	id := cfg.ID
	h.identity.class_id = C.uint32_t(id.Class)
	h.identity.hardware_id = C.uint16_t(id.Hardware)
	h.identity.hw_version = C.uint32_t(id.HWVersion)
	if id.LoRaWAN11 {
		h.identity.lorawan_11 = 1
	}
	for i, b := range id.RootKey {
		h.identity.root_key[i] = C.uint8_t(b)
	}
	for k, key := range id.Keys {
		h.identity.keys[k].id = C.uint8_t(key.ID)
		for i, b := range key.Public {
			h.identity.keys[k].pub[i] = C.uint8_t(b)
		}
	}
	if rc := C.sow_flash_emu_load(&h.flash, C.uint32_t(l.SlotA.Addr), unsafe.Pointer(&cfg.Image[0]), C.uint32_t(len(cfg.Image))); rc != 0 {
		d.Close()
		return nil, fmt.Errorf("device: loading an image of %d bytes: code %d", len(cfg.Image), int(rc))
	}
	C.host_init(h)
	return d, nil
}

func cRegion(r Region) C.struct_sow_region {
	return C.struct_sow_region{addr: C.uint32_t(r.Addr), size: C.uint32_t(r.Size)}
}

// PowerUp runs boot stub and application, and returns what the device says until it is idle.
func (d *Host) PowerUp() ([]modem.Frame, error) {
	if d.on {
		return nil, errors.New("device: the host device is on")
	}
	d.on = true
	C.host_power_up(d.h)
	return d.take()
}

// Turn sends one frame and returns what the device answers, up to and with IDLE_UNTIL.
func (d *Host) Turn(f modem.Frame) ([]modem.Frame, error) {
	if !d.on {
		return nil, errors.New("device: the host device is off")
	}
	raw, err := modem.AppendFrame(nil, f)
	if err != nil {
		return nil, err
	}
	C.host_input(d.h, (*C.uint8_t)(unsafe.Pointer(&raw[0])), C.uint32_t(len(raw)))
	return d.take()
}

// take parses what the device has said.
func (d *Host) take() ([]modem.Frame, error) {
	d.in.Write(C.GoBytes(unsafe.Pointer(d.h.out), C.int(d.h.out_len)))
	d.h.out_len = 0
	var out []modem.Frame
	for f, ok := d.in.Next(); ok; f, ok = d.in.Next() {
		f.Payload = bytes.Clone(f.Payload)
		out = append(out, f)
	}
	if len(out) == 0 || out[len(out)-1].Type != modem.TypeIdleUntil {
		return out, errors.New("device: the host device did not end its turn")
	}
	return out, nil
}

// Boots is how often the boot stub has run.
func (d *Host) Boots() int { return int(d.h.boots) }

// Violations is how often a granule was programmed twice; the library must never try.
func (d *Host) Violations() int { return int(d.h.flash.violations) }

// Kill cuts the power. PowerUp continues with the flash as it is.
func (d *Host) Kill() { d.on = false }

// Flip inverts one bit of the flash, as radiation or wear would. addr is a flash address.
func (d *Host) Flip(addr uint32, bit uint) error {
	if rc := C.sow_flash_emu_flip(&d.h.flash, C.uint32_t(addr), C.uint(bit&7)); rc != 0 {
		return fmt.Errorf("device: no flash at 0x%08x", addr)
	}
	return nil
}

// SlotA returns the first n bytes of slot A.
func (d *Host) SlotA(n int) ([]byte, error) {
	if n > int(d.layout.SlotA.Size) {
		return nil, fmt.Errorf("device: %d bytes of a slot of %d", n, d.layout.SlotA.Size)
	}
	return C.GoBytes(unsafe.Pointer(C.sow_flash_emu_peek(&d.h.flash, C.uint32_t(d.layout.SlotA.Addr))), C.int(n)), nil
}

// Close frees the device.
func (d *Host) Close() error {
	if d.h == nil {
		return nil
	}
	C.free(d.h.memory)
	C.free(unsafe.Pointer(d.h.arena))
	C.free(unsafe.Pointer(d.h.out))
	C.free(unsafe.Pointer(d.h))
	d.h = nil
	return nil
}
