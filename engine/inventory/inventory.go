// Package inventory keeps what is known about the devices of a fleet before a campaign: firmware version and base
// image, hardware, package versions, battery and link history. Every fact says where it comes from and when it
// was true, and a newer fact replaces an older one; what nobody has said is unknown and is never guessed.
//
// Facts come from the network server (tags, battery, link metrics), from a CSV file, and from what devices send: TS006
// DevVersionAns, TS007 DevPackageAns, PackageVersionAns of each package, reports of package diag, the answers that the
// network server gets about battery and margin, and rules for ordinary uplinks. [Discovery] asks devices for what they
// have not said. The package does no I/O and reads no clock.
package inventory

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/multipackage"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
)

// Sources of facts.
const (
	FromServer  = "server"       // the network server's own record
	FromTag     = "tag"          // a tag of the device on the network server
	FromMetrics = "link metrics" // averages that the network server keeps
	FromCSV     = "csv"          // a file that does not say where it has it from
	FromTS003   = "TS003"
	FromTS004   = "TS004"
	FromTS005   = "TS005"
	FromTS006   = "TS006"
	FromTS007   = "TS007"
	FromReport  = "report" // package diag
	FromStatus  = "status" // DevStatusAns, which the network server asks for
	FromUplink  = "uplink" // a rule for ordinary uplinks, or the frames themselves
)

// Fact is a value with its source. The zero value is an unknown one.
type Fact[T any] struct {
	Value  T         `json:"value"`
	Source string    `json:"source"`
	At     time.Time `json:"at,omitzero"` // when it was true; zero: the source does not say
}

// Known reports whether anybody has said anything.
func (f Fact[T]) Known() bool { return f.Source != "" }

// Offer takes a fact unless the one that is there is newer. A fact without a time gives way to any other.
func (f *Fact[T]) Offer(v T, source string, at time.Time) {
	if !f.Known() || !at.Before(f.At) {
		*f = Fact[T]{v, source, at}
	}
}

// Age returns how old the fact is; ok is false if its source does not say.
func (f Fact[T]) Age(now time.Time) (age time.Duration, ok bool) {
	return now.Sub(f.At), !f.At.IsZero()
}

// Digest is how a manifest names a base image: the first bytes of its SHA-256.
type Digest [8]byte

// String returns 16 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText uses the form of String.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Offer is a package of the application layer as a device has it. Version 0 says that the device does not have it.
type Offer struct {
	Version applayer.Version `json:"version"`
	FPort   uint8            `json:"f_port,omitempty"`
}

// String returns "none", or version and port: "v2:201".
func (o Offer) String() string {
	if o.Version == 0 {
		return "none"
	}
	return fmt.Sprintf("%s:%d", o.Version, o.FPort)
}

// Uplinks counts frames, by gaps in the frame counter.
type Uplinks struct {
	Received int `json:"received"`
	Lost     int `json:"lost"`
}

// Loss estimates the share of frames lost: the mean of the posterior after a prior of Beta(1, 9), so 10 % for a
// device that was never heard. It is the uplink's, which need not equal the downlink's.
func (u Uplinks) Loss() float64 { return float64(u.Lost+1) / float64(u.Received+u.Lost+10) }

// Device is what is known of one device.
type Device struct {
	network.Device
	Version  Fact[bundle.Version]   // running
	Base     Fact[Digest]           // of the running image
	Hardware Fact[uint16]           // hardware id
	Class    Fact[uint32]           // device class
	Packages Fact[applayer.Version] // of TS004; TS003 and TS005 are taken to be the same
	Offers   Offers
	Battery  Fact[int]     // percent
	SNR      Fact[float64] // median of uplinks, dB in 125 kHz
	Uplinks  Fact[Uplinks]

	fcnt    uint32 // of the last uplink
	counted bool
	snr     []float64
	pieces  *multipackage.Buffer // of a long answer of TS007; nil: none
}

// Offers has what is known of each package, by its identifier.
type Offers [applayer.FwMgmt + 1]Fact[Offer]

// Port returns where a device has a package, as far as it has told.
func (o *Offers) Port(id applayer.PackageID) uint8 {
	if f := o[id]; f.Known() && f.Value.Version != 0 {
		return f.Value.FPort
	}
	return defaultPort[id]
}

var defaultPort = [...]uint8{applayer.MultiPackage: applayer.FPortMultiPackage, applayer.ClockSync: applayer.FPortClockSync,
	applayer.McSetup: applayer.FPortMcSetup, applayer.DataBlock: applayer.FPortDataBlock, applayer.FwMgmt: applayer.FPortFwMgmt}

// Rule finds a fact in the uplinks of an application.
type Rule struct {
	FPort   uint8
	Battery bool // the fact is a battery level in percent, else a version of 4 bytes
	Offset  int
	Big     bool // big endian
}

// Options say where the network server's record holds facts.
type Options struct {
	VersionTag  string
	HardwareTag string
	Rules       []Rule
}

// Inventory is a set of devices. It is not safe for concurrent use.
type Inventory struct {
	opt     Options
	devices map[network.EUI64]*Device
}

// New returns an empty inventory.
func New(opt Options) *Inventory { return &Inventory{opt: opt, devices: map[network.EUI64]*Device{}} }

// Devices returns the devices in the order of their DevEUI.
func (inv *Inventory) Devices() []*Device {
	out := make([]*Device, 0, len(inv.devices))
	for _, d := range inv.devices {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b *Device) int { return cmp.Compare(key(a.EUI), key(b.EUI)) })
	return out
}

func key(e network.EUI64) uint64 { return binary.BigEndian.Uint64(e[:]) }

// Device returns a device, or nil.
func (inv *Inventory) Device(eui network.EUI64) *Device { return inv.devices[eui] }

// Add takes what the network server says of a device. Tags that are no version or number are reported and else
// ignored.
func (inv *Inventory) Add(nd network.Device) error {
	d := inv.devices[nd.EUI]
	if d == nil {
		d = &Device{}
		inv.devices[nd.EUI] = d
	}
	d.Device = nd
	if nd.Battery >= 0 {
		d.Battery.Offer(nd.Battery, FromServer, nd.LastSeen)
	}
	var bad error
	if text, ok := nd.Tags[inv.opt.VersionTag]; ok {
		if v, err := bundle.ParseVersion(text); err == nil {
			d.Version.Offer(v, FromTag, time.Time{})
		} else {
			bad = fmt.Errorf("device %s: tag %s: %w", nd.EUI, inv.opt.VersionTag, err)
		}
	}
	if text, ok := nd.Tags[inv.opt.HardwareTag]; ok {
		if n, err := strconv.ParseUint(text, 0, 16); err == nil {
			d.Hardware.Offer(uint16(n), FromTag, time.Time{})
		} else {
			bad = fmt.Errorf("device %s: tag %s is %q, want a hardware id of 0..65535", nd.EUI, inv.opt.HardwareTag, text)
		}
	}
	return bad
}

// Link takes link metrics of the network server: the mean SNR over its buckets, and when the last uplink was.
func (inv *Inventory) Link(eui network.EUI64, snr float64, last time.Time) {
	if d := inv.devices[eui]; d != nil {
		d.SNR.Offer(snr, FromMetrics, last)
	}
}

// Heard takes an uplink, a join or a status. It reports whether the device is in the inventory.
func (inv *Inventory) Heard(ev network.Event) bool {
	d := inv.devices[ev.Device]
	if d == nil {
		return false
	}
	switch ev.Kind {
	case network.EventJoin:
		d.counted = false // counters begin again
	case network.EventStatus:
		if ev.Battery >= 0 {
			d.Battery.Offer(ev.Battery, FromStatus, ev.At)
		}
	case network.EventUplink:
		d.count(ev)
		d.read(ev, inv.opt.Rules)
	}
	return true
}

// maxGap is the longest gap in a frame counter that counts as loss; a longer one is a reset or a long absence.
const maxGap = 64

// count keeps account of the link.
func (d *Device) count(ev network.Event) {
	u := d.Uplinks.Value
	if d.Uplinks.Source != FromUplink {
		u = Uplinks{} // what others have counted stays with them
	}
	if gap := int64(ev.FCnt) - int64(d.fcnt) - 1; d.counted && gap < 0 && gap > -maxGap {
		return // out of order: it was counted as lost, and the next window will show less
	} else if d.counted && gap >= 0 && gap <= maxGap {
		u.Lost += int(gap)
	}
	u.Received++
	d.counted, d.fcnt = true, ev.FCnt
	d.Uplinks.Offer(u, FromUplink, ev.At)
	d.snr = append(d.snr, ev.SNR)
	sorted := slices.Sorted(slices.Values(d.snr))
	d.SNR.Offer(sorted[len(sorted)/2], FromUplink, ev.At)
	if ev.At.After(d.LastSeen) {
		d.LastSeen = ev.At
	}
}

// read takes the facts in a payload. What is not readable says nothing.
func (d *Device) read(ev network.Event, rules []Rule) {
	switch ev.FPort {
	case d.Offers.Port(applayer.FwMgmt):
		cmds, _ := fwmgmt.Parse(applayer.V1, applayer.Uplink, ev.Payload)
		for _, cmd := range cmds {
			d.firmware(cmd, ev.At)
		}
		d.packageVersion(applayer.FwMgmt, FromTS006, ev)
	case d.Offers.Port(applayer.DataBlock):
		d.packageVersion(applayer.DataBlock, FromTS004, ev)
	case d.Offers.Port(applayer.McSetup):
		d.packageVersion(applayer.McSetup, FromTS005, ev)
	case d.Offers.Port(applayer.ClockSync):
		d.packageVersion(applayer.ClockSync, FromTS003, ev)
	case applayer.FPortMultiPackage:
		d.multiPackage(ev)
	case diag.FPort:
		for b := ev.Payload; len(b) > 0; {
			r, rest, err := diag.ParseReport(b)
			if err != nil {
				break
			}
			d.Version.Offer(bundle.Version(r.Version), FromReport, ev.At)
			if r.Cause == diag.CauseDeferredBattery && r.Detail <= 100 {
				d.Battery.Offer(int(r.Detail), FromReport, ev.At)
			}
			b = rest
		}
	}
	for _, r := range rules {
		size := 4
		if r.Battery {
			size = 1
		}
		if r.FPort != ev.FPort || r.Offset+size > len(ev.Payload) {
			continue
		}
		b := ev.Payload[r.Offset:]
		switch {
		case r.Battery && b[0] <= 100:
			d.Battery.Offer(int(b[0]), FromUplink, ev.At)
		case r.Battery:
		case r.Big:
			d.Version.Offer(bundle.Version(binary.BigEndian.Uint32(b)), FromUplink, ev.At)
		default:
			d.Version.Offer(bundle.Version(binary.LittleEndian.Uint32(b)), FromUplink, ev.At)
		}
	}
}

// firmware takes an answer of TS006.
func (d *Device) firmware(cmd applayer.Command, at time.Time) {
	if ans, ok := cmd.(fwmgmt.DevVersionAns); ok {
		d.Version.Offer(bundle.Version(ans.FWVersion), FromTS006, at)
	}
}

// packageVersion takes a PackageVersionAns, if the message begins with one. It is the same in all packages and their
// versions: CID 0, PackageIdentifier, PackageVersion.
func (d *Device) packageVersion(id applayer.PackageID, source string, ev network.Event) {
	if p := ev.Payload; len(p) >= 3 && p[0] == 0 && p[1] == uint8(id) && p[2] != 0 {
		d.offer(id, Offer{applayer.Version(p[2]), ev.FPort}, source, ev.At)
	}
}

// multiPackage takes answers of TS007, and of other packages through it.
func (d *Device) multiPackage(ev network.Event) {
	versions := multipackage.Versions{applayer.V1, applayer.V1, applayer.V1, applayer.V1, applayer.V1} // no fact below depends on them
	msg, _ := multipackage.ParseMessage(versions, applayer.Uplink, ev.Payload)
	cmds := msg.Commands
	if len(cmds) == 1 {
		if part, ok := cmds[0].(multipackage.MultiPackBufferFrag); ok && !part.Error {
			if d.pieces == nil || part.BaseByte == 0 || d.pieces.Add(part) != nil { // another answer
				d.pieces = &multipackage.Buffer{}
				if d.pieces.Add(part) != nil {
					return
				}
			}
			cmds, _ = multipackage.ParseCommands(versions, applayer.Uplink, d.pieces.Bytes())
		}
	}
	for _, cmd := range cmds {
		d.firmware(cmd, ev.At)
		ans, ok := cmd.(multipackage.DevPackageAns)
		if !ok {
			continue
		}
		var offers [len(Offers{})]Offer // what is not named is not there
		for _, p := range ans.Packages {
			if int(p.PackageIdentifier) < len(offers) {
				offers[p.PackageIdentifier] = Offer{p.PackageVersion, p.FPort}
			}
		}
		offers[applayer.MultiPackage] = Offer{max(offers[applayer.MultiPackage].Version, applayer.V1), applayer.FPortMultiPackage}
		for id, o := range offers {
			d.offer(applayer.PackageID(id), o, FromTS007, ev.At)
		}
	}
}

// offer takes what a device says of one of its packages.
func (d *Device) offer(id applayer.PackageID, o Offer, source string, at time.Time) {
	d.Offers[id].Offer(o, source, at)
	if id == applayer.DataBlock && (o.Version == applayer.V1 || o.Version == applayer.V2) {
		d.Packages.Offer(o.Version, source, at)
	}
}
