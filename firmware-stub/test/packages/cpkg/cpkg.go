// Package cpkg binds the LoRaWAN packages and the modem shell of the device library, compiled over a fake
// sow_core, for the tests next to it. There is one device at a time.
//
// The sources of the library are symbolic links: the go tool rebuilds a package when a file in its directory
// changes, not when one does that is included from elsewhere.
package cpkg

/*
#cgo CFLAGS: -std=c99 -Wall -Wextra -Wconversion -Werror
#include <stdlib.h>

#include "harness.h"
#include "sow_services.h"

static struct harness dev;
static struct harness *device(void) { return &dev; }
*/
import "C"

import "unsafe"

// Step, cause, state and flag numbers that tests name.
const (
	Unicast = C.SOW_UNICAST
	Never   = C.SOW_NEVER

	BootTrial     = C.SOW_BOOT_TRIAL
	BootConfirmed = C.SOW_BOOT_CONFIRMED
	BootReverted  = C.SOW_BOOT_REVERTED
	BootRefused   = C.SOW_BOOT_REFUSED

	ConfirmSelfTest = C.SOW_CONFIRM_SELF_TEST
	ConfirmJoined   = C.SOW_CONFIRM_JOINED
	ConfirmDownlink = C.SOW_CONFIRM_DOWNLINK
)

// Options is struct sow_options.
type Options struct {
	Version, Confirm, MaxPayload uint8
	ConfirmWithin                uint32
}

// Group is what port->mc_group was told.
type Group struct {
	ID               uint8
	Defined          bool
	Addr             uint32
	AppSKey, NwkSKey [16]byte
	Min, Max         uint32
}

// Window is what port->mc_session was told.
type Window struct {
	ID, Class, DR, Periodicity uint8
	Frequency, Start, End      uint32
}

// Uplink is a message taken from sow_uplink.
type Uplink struct {
	Port uint8
	Data []byte
}

// Reset powers a new device up: nothing is known, the library is not open yet.
func Reset() { C.harness_init(C.device()) }

// SetIdentity sets the root key, the LoRaWAN version and HWversion.
func SetIdentity(root []byte, lorawan11 bool, hw uint32) {
	d := C.device()
	for i, b := range root {
		d.id.root_key[i] = C.uint8_t(b)
	}
	d.id.lorawan_11 = 0
	if lorawan11 {
		d.id.lorawan_11 = 1
	}
	d.id.hw_version = C.uint32_t(hw)
}

// SetRandom makes port->random return one value; 0: a fixed sequence.
func SetRandom(v uint32) { C.device().fixed_random = C.uint32_t(v) }

// NoMulticast takes mc_group and mc_session from the port.
func NoMulticast() {
	C.device().port.mc_group = nil
	C.device().port.mc_session = nil
}

// SetFirmware sets the version of slot A and that of the image which a complete block becomes.
func SetFirmware(version, next uint32) {
	C.fake.version, C.fake.next_version = C.uint32_t(version), C.uint32_t(next)
}

// SetBoot sets what sow_boot_read says.
func SetBoot(state, cause uint8) {
	C.fake.boot.state, C.fake.boot.cause = C.uint8_t(state), C.uint8_t(cause)
}

// SetStatus overwrites the status of a session, as if the core had come that far.
func SetStatus(index uint8, received, missing uint16, memoryError, micError bool) {
	st := &C.fake.st[index]
	st.exists, st.step = 1, C.SOW_STEP_RECEIVE
	st.session.index = C.uint8_t(index)
	st.received, st.missing = C.uint16_t(received), C.uint16_t(missing)
	st.memory_error, st.mic_error = flag(memoryError), flag(micError)
}

// SetInstalled makes the status of a session what the core says of one whose image has been installed.
func SetInstalled(index, step uint8) {
	SetStatus(index, 0, 0, false, false)
	C.fake.st[index].step = C.uint8_t(step)
	C.fake.st[index].session.ack_wanted = 1
}

func flag(b bool) C.uint8_t {
	if b {
		return 1
	}
	return 0
}

// SetImage sets what waits in slot B.
func SetImage(state uint8, version uint32) {
	C.fake.image.state, C.fake.image.version = C.uint8_t(state), C.uint32_t(version)
}

// SetResults sets what sow_core_session, sow_core_install and sow_core_open return.
func SetResults(session, install, open int) {
	C.fake.session_result, C.fake.install_result, C.fake.open_result = C.int(session), C.int(install), C.int(open)
}

// NoServices is what sow_services_check returns when it refuses.
const NoServices = -C.SOW_CAUSE_NO_SERVICES

// SetServices sets what sow_services_check returns.
func SetServices(result int) { C.fake.services_result = C.int(result) }

// StopWith makes sow_core_work stop with a cause, at once or when the block is complete; 0: no more.
func StopWith(cause uint8, atOnce bool) {
	C.fake.stop_cause, C.fake.stop_at_once = C.uint8_t(cause), flag(atOnce)
}

// Counts are calls that the packages made.
type Counts struct {
	Sessions, Fragments, Installs, Confirms, Rejects, Reboots int
	Asked                                                     int // of slot A and the boot region
	RejectCause                                               uint8
	LastN                                                     uint16
	GPS                                                       uint32
}

// Counted returns the calls since Reset.
func Counted() Counts {
	f := &C.fake
	return Counts{
		Sessions: int(f.sessions), Fragments: int(f.fragments), Installs: int(f.installs),
		Confirms: int(f.confirms), Rejects: int(f.rejects), Reboots: int(C.device().reboots), Asked: int(f.asked),
		RejectCause: uint8(f.reject_cause), LastN: uint16(f.last_n), GPS: uint32(f.gps),
	}
}

// Session is the FragSessionSetupReq that the core has for an index.
type Session struct {
	Matrix, McMask, AckDelay, AckWanted, FragSize, Padding, HasMIC uint8
	NbFrag, Cnt                                                    uint16
	Descriptor, MIC                                                [4]byte
}

// SessionOf returns the session of an index.
func SessionOf(index uint8) (s Session, exists bool) {
	st := &C.fake.st[index]
	n := &st.session
	s = Session{
		Matrix: uint8(n.matrix), McMask: uint8(n.mc_mask), AckDelay: uint8(n.ack_delay), AckWanted: uint8(n.ack_wanted),
		FragSize: uint8(n.frag_size), Padding: uint8(n.padding), HasMIC: uint8(n.has_mic),
		NbFrag: uint16(n.nb_frag), Cnt: uint16(n.session_cnt),
	}
	for i := range s.MIC {
		s.MIC[i], s.Descriptor[i] = byte(n.mic[i]), byte(n.descriptor[i])
	}
	return s, st.exists != 0
}

// Groups returns what port->mc_group was told since Reset.
func Groups() []Group {
	d := C.device()
	var out []Group
	for _, g := range d.group[:min(int(d.groups), len(d.group))] {
		v := Group{ID: uint8(g.id), Defined: g.defined != 0, Addr: uint32(g.addr), Min: uint32(g.min_fcnt), Max: uint32(g.max_fcnt)}
		for i := range v.AppSKey {
			v.AppSKey[i], v.NwkSKey[i] = byte(g.app_s_key[i]), byte(g.nwk_s_key[i])
		}
		out = append(out, v)
	}
	return out
}

// Windows returns what port->mc_session was told since Reset.
func Windows() []Window {
	d := C.device()
	var out []Window
	for _, w := range d.session[:min(int(d.sessions), len(d.session))] {
		out = append(out, Window{ID: uint8(w.id), Class: uint8(w.device_class), DR: uint8(w.dr), Periodicity: uint8(w.periodicity),
			Frequency: uint32(w.frequency), Start: uint32(w.start), End: uint32(w.end)})
	}
	return out
}

// Events returns step and cause of every port->event call since Reset.
func Events() [][2]uint8 {
	d := C.device()
	var out [][2]uint8
	for _, e := range d.event[:min(int(d.events), len(d.event))] {
		out = append(out, [2]uint8{uint8(e[0]), uint8(e[1])})
	}
	return out
}

// Open is sow_open.
func Open(o Options, now uint32) int {
	d := C.device()
	setOptions(o)
	return int(C.sow_open(&d.s, &d.cfg, &d.opt, unsafe.Pointer(&d.arena[0]), C.uint32_t(unsafe.Sizeof(d.arena)), C.uint32_t(now)))
}

func setOptions(o Options) {
	C.device().opt = C.struct_sow_options{package_version: C.uint8_t(o.Version), confirm: C.uint8_t(o.Confirm),
		confirm_within: C.uint32_t(o.ConfirmWithin), max_payload: C.uint8_t(o.MaxPayload)}
}

// Downlink is sow_downlink. The bytes are handed over in a block of exactly their length.
func Downlink(now uint32, port, group uint8, data []byte) {
	p := C.CBytes(data)
	C.sow_downlink(&C.device().s, C.uint32_t(now), C.uint8_t(port), C.uint8_t(group), (*C.uint8_t)(p), C.uint32_t(len(data)))
	C.free(p)
}

// Poll is sow_poll.
func Poll(now uint32) (code int, wake uint32) {
	var w C.uint32_t
	r := C.sow_poll(&C.device().s, C.uint32_t(now), &w)
	return int(r), uint32(w)
}

// TakeUplink is sow_uplink.
func TakeUplink(now uint32) (u Uplink, ok bool) {
	var up C.struct_sow_uplink
	if C.sow_uplink(&C.device().s, C.uint32_t(now), &up) != C.SOW_DONE {
		return Uplink{}, false
	}
	u = Uplink{Port: uint8(up.port)}
	for _, b := range up.data[:up.len] {
		u.Data = append(u.Data, byte(b))
	}
	return u, true
}

// Joined, SelfTest, GPSTime, MaxPayload and QuietUntil are the functions of sow.h.
func Joined(now uint32) { C.sow_joined(&C.device().s, C.uint32_t(now)) }
func SelfTest(now uint32, verdict uint8) {
	C.sow_self_test(&C.device().s, C.uint32_t(now), C.uint8_t(verdict))
}
func GPSTime(now uint32) uint32    { return uint32(C.sow_gps_time(&C.device().s, C.uint32_t(now))) }
func MaxPayload(n uint8)           { C.sow_max_payload(&C.device().s, C.uint8_t(n)) }
func QuietUntil(now uint32) uint32 { return uint32(C.sow_quiet_until(&C.device().s, C.uint32_t(now))) }

// StateSize is sizeof(struct sow) without the core.
func StateSize() int { return int(C.sizeof_struct_sow - C.sizeof_struct_sow_core) }

// ModemInit is sow_modem_init. selfTest is the verdict that the application gives at boot, 0xff: none.
func ModemInit(o Options, heartbeat uint32, selfTest uint8) {
	d := C.device()
	setOptions(o)
	d.app.heartbeat = C.uint32_t(heartbeat)
	d.self_test = C.uint8_t(selfTest)
	C.harness_modem(d)
}

// ModemInput is sow_modem_input.
func ModemInput(b []byte) {
	p := C.CBytes(b)
	C.sow_modem_input(&C.device().m, (*C.uint8_t)(p), C.uint32_t(len(b)))
	C.free(p)
}

// ModemSend is sow_modem_send.
func ModemSend(typ uint8, payload []byte) {
	p := C.CBytes(payload)
	C.sow_modem_send(&C.device().m, C.uint8_t(typ), p, C.uint32_t(len(payload)))
	C.free(p)
}

// ModemOutput takes the bytes that the shell has written.
func ModemOutput() []byte {
	d := C.device()
	b := C.GoBytes(unsafe.Pointer(&d.out[0]), C.int(d.out_len))
	d.out_len = 0
	return b
}

// ResetWanted says whether the shell waits for a reset.
func ResetWanted() bool { return C.device().m.reset_wanted != 0 }
