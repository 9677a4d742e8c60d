package serial

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
)

// ErrStopped is returned when the device stops the update and says why.
var ErrStopped = errors.New("serial: the device stopped the update")

// Options say how [Feed] sends a bundle. Zero values mean what is said in brackets.
type Options struct {
	RootKey    [16]byte // GenAppKey (LoRaWAN 1.0.x) or AppKey (1.1) of the device
	LoRaWAN11  bool
	Matrix     fragmentation.Matrix // V1 or V2 [what the device says it speaks]
	Size       int                  // bytes of a fragment, 1..255 [48]
	Loss       float64              // share of the fragments that are dropped, 0..0.9
	CutReset   bool                 // reset the device at random moments while it receives
	Seed       uint64               // of losses, resets and group keys
	GPS        uint32               // GPS seconds at the start
	SessionCnt uint16               // of TS004 v2 [minutes of GPS]: it must exceed the one the device used last
	MaxPayload uint8                // largest uplink in bytes [51]
	Log        Log
}

// Result is what an update took.
type Result struct {
	Old, New       bundle.Version
	Version        applayer.Version // of TS004 and TS005
	M, Size        int
	Sent, Lost     int    // fragments; Sent includes Lost
	Resets         int    // on purpose
	Seconds        uint64 // of virtual time
	GroupAddr      uint32
	ProvedByReboot bool // the new version also ran after another reset
}

const (
	benchGroup     = 0 // McGroupID
	benchIndex     = 0 // FragIndex
	benchFrequency = 869525000
	benchDR        = 5
	windowTimeOut  = 15 // 2^15 s
	interval       = 2  // seconds between fragments
	resetsPerM     = 5  // with CutReset, on average: in the time that M fragments take
)

// feeder is one run of Feed.
type feeder struct {
	mac
	opt     Options
	block   []byte
	bundle  bundle.Manifest
	enc     *fragmentation.Encoder
	rand    *rand.Rand
	res     Result
	version applayer.Version
	group   mcsetup.McGroupSetupReq
	appSKey [16]byte
	nwkSKey [16]byte
}

// Feed updates a device with a bundle, as a server and a network would: it sets the clock by TS003, the keys, the
// group and the receive window by TS005 and the session by TS004, sends fragments until the device has the block,
// reboots it by TS006 and asks which version it runs, after one more reset too. A device that resets, on purpose or
// not, loses its window and gets a new one; it keeps the fragments it has.
//
// It fails with ErrStopped when the device refuses, with ErrSilent or ErrDevice when it does not do its part.
func Feed(ctx context.Context, dev Device, block []byte, opt Options) (Result, error) {
	f, err := newFeeder(dev, block, opt)
	if err != nil {
		return Result{}, err
	}
	err = f.run(ctx)
	f.res.Seconds = (f.now - bootTime) / 1000
	return f.res, err
}

func newFeeder(dev Device, block []byte, opt Options) (*feeder, error) {
	manifest, _, err := bundle.Parse(block)
	if err != nil {
		return nil, err
	}
	if opt.Size == 0 {
		opt.Size = 48
	}
	if opt.MaxPayload == 0 {
		opt.MaxPayload = 51
	}
	if opt.Matrix != 0 && opt.Matrix != fragmentation.V1 && opt.Matrix != fragmentation.V2 {
		return nil, fmt.Errorf("serial: matrix %v: devices speak v1 or v2", opt.Matrix)
	}
	if !(opt.Loss >= 0 && opt.Loss <= 0.9) {
		return nil, fmt.Errorf("serial: loss %v: want a share of 0 to 0.9", opt.Loss)
	}
	f := &feeder{block: block, bundle: manifest, opt: opt, rand: rand.New(rand.NewPCG(opt.Seed, 0x736f776572))}
	f.mac = mac{dev: dev, log: &f.opt.Log, now: bootTime, wake: bootTime, payload: opt.MaxPayload,
		gpsStart: opt.GPS - bootTime/1000}
	var key [16]byte
	binary.LittleEndian.PutUint64(key[:], f.rand.Uint64())
	binary.LittleEndian.PutUint64(key[8:], f.rand.Uint64())
	root := mcsetup.McRootKeyFromGenAppKey(opt.RootKey)
	if opt.LoRaWAN11 {
		root = mcsetup.McRootKeyFromAppKey(opt.RootKey)
	}
	f.group = mcsetup.McGroupSetupReq{
		McGroupID: benchGroup, McAddr: 0x01000000 | f.rand.Uint32N(1<<24),
		McKeyEncrypted: mcsetup.EncryptMcKey(mcsetup.McKEKey(root), key), MaxMcFCnt: 1 << 31,
	}
	f.appSKey, f.nwkSKey = mcsetup.McAppSKey(key, f.group.McAddr), mcsetup.McNwkSKey(key, f.group.McAddr)
	f.res.GroupAddr = f.group.McAddr
	return f, nil
}

func (f *feeder) run(ctx context.Context) error {
	steps := []func(context.Context) error{f.greet, f.setup, f.window, f.feed, f.ready, f.install, f.prove}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// greet starts the device and learns what it runs and speaks.
func (f *feeder) greet(context.Context) error {
	if err := f.powerUp(); err != nil {
		return err
	}
	v, err := f.mac.version()
	if err != nil {
		return err
	}
	f.res.Old = bundle.Version(v.FWVersion)
	req, err := datablock.AppendCommand(nil, applayer.V1, datablock.PackageVersionReq{})
	if err != nil {
		return err
	}
	err = f.ask("package version (TS004)", applayer.FPortDataBlock, req, 60, func(b []byte) bool {
		cmds, _ := datablock.Parse(applayer.V1, applayer.Uplink, b)
		for _, c := range cmds {
			if ans, ok := c.(datablock.PackageVersionAns); ok {
				f.version = applayer.Version(ans.PackageVersion)
				return true
			}
		}
		return false
	})
	if err != nil {
		return err
	}
	if f.version != applayer.V1 && f.version != applayer.V2 {
		return fmt.Errorf("%w: the device speaks TS004 %v, want v1 or v2", ErrDevice, f.version)
	}
	matrix := fragmentation.V1
	if f.version == applayer.V2 {
		matrix = fragmentation.V2
	}
	if f.opt.Matrix != 0 && f.opt.Matrix != matrix {
		return fmt.Errorf("serial: matrix %v, but the device speaks TS004 %v: crossing them yields garbage; leave the matrix out", f.opt.Matrix, f.version)
	}
	f.res.Version = f.version
	f.enc, err = fragmentation.NewEncoder(f.block, f.opt.Size, matrix)
	if err != nil {
		return err
	}
	f.res.M, f.res.Size = f.enc.M(), f.opt.Size
	f.log.progress("device runs %v, hardware 0x%08x, speaks TS004 %v; bundle brings %v in %d fragments of %d bytes",
		f.res.Old, v.HWVersion, f.version, f.bundle.Version, f.res.M, f.opt.Size)
	return nil
}

// setup opens the fragmentation session.
func (f *feeder) setup(context.Context) error {
	req := datablock.FragSessionSetupReq{
		FragIndex: benchIndex, McGroupBitMask: 1 << benchGroup, NbFrag: uint16(f.enc.M()), FragSize: uint8(f.enc.Size()),
		Padding: uint8(f.enc.Padding()),
	}
	if f.version == applayer.V2 {
		req.AckReception = true
		req.SessionCnt = f.opt.SessionCnt
		if req.SessionCnt == 0 {
			req.SessionCnt = uint16(f.gps() / 60)
		}
		req.MIC = datablock.SessionMIC(datablock.DataBlockIntKey(f.opt.RootKey), req.SessionCnt, benchIndex, req.Descriptor, f.block)
	}
	raw, err := datablock.AppendCommand(nil, f.version, req)
	if err != nil {
		return err
	}
	var got datablock.FragSessionSetupAns
	err = f.ask("session setup (TS004)", applayer.FPortDataBlock, raw, 60, func(b []byte) bool {
		return dataBlockAnswer(f.version, b, &got)
	})
	switch {
	case err != nil:
		return err
	case got.SessionCntReplay:
		return fmt.Errorf("%w: it has used session count %d or a later one; give a higher one", ErrStopped, req.SessionCnt)
	case !got.Accepted():
		return f.why(fmt.Errorf("%w: session refused: %+v", ErrStopped, got))
	}
	f.log.progress("session accepted")
	return nil
}

// dataBlockAnswer finds the answer of one type in an uplink of TS004.
func dataBlockAnswer[T datablock.Command](v applayer.Version, b []byte, out *T) bool {
	cmds, _ := datablock.Parse(v, applayer.Uplink, b)
	for _, c := range cmds {
		if ans, ok := c.(T); ok {
			*out = ans
			return true
		}
	}
	return false
}

// multicastAnswer finds the answer of one type in an uplink of TS005.
func multicastAnswer[T mcsetup.Command](v applayer.Version, b []byte, out *T) bool {
	cmds, _ := mcsetup.Parse(v, applayer.Uplink, b)
	for _, c := range cmds {
		if ans, ok := c.(T); ok {
			*out = ans
			return true
		}
	}
	return false
}

// window sets the clock, the group and the receive window, and lets time pass until it is open.
func (f *feeder) window(context.Context) error {
	for end := f.now + 3600_000; !f.synced; {
		if f.now >= end {
			return fmt.Errorf("%w: it has not asked for the time (TS003) within an hour of joining", ErrDevice)
		}
		if err := f.pause(10); err != nil {
			return err
		}
	}
	raw, err := mcsetup.AppendCommand(nil, f.version, f.group)
	if err != nil {
		return err
	}
	var group mcsetup.McGroupSetupAns
	err = f.ask("group setup (TS005)", applayer.FPortMcSetup, raw, 60, func(b []byte) bool {
		return multicastAnswer(f.version, b, &group)
	})
	if err != nil {
		return err
	}
	have := f.groups[benchGroup]
	if group.IDError || !have.Defined {
		return fmt.Errorf("%w: group refused: %+v", ErrStopped, group)
	}
	if have.Addr != f.group.McAddr || have.AppSKey != f.appSKey || have.NwkSKey != f.nwkSKey {
		return fmt.Errorf("%w: the device derives other group keys: its root key, or its LoRaWAN version, is not the one given", ErrDevice)
	}
	start := f.gps() + 60
	raw, err = mcsetup.AppendCommand(nil, f.version, mcsetup.McClassCSessionReq{
		McGroupID: benchGroup, SessionTime: start, TimeOut: windowTimeOut, DLFreq: benchFrequency, DR: benchDR,
	})
	if err != nil {
		return err
	}
	var session mcsetup.McClassCSessionAns
	err = f.ask("class C session (TS005)", applayer.FPortMcSetup, raw, 10, func(b []byte) bool {
		return multicastAnswer(f.version, b, &session)
	})
	if err != nil {
		return err
	}
	if !session.Accepted() {
		return fmt.Errorf("%w: window refused: %+v", ErrStopped, session)
	}
	w := f.windows[benchGroup]
	opens := uint64(start-f.gpsStart) * 1000
	if w.Start != opens || w.End != opens+1000<<windowTimeOut || w.Frequency != benchFrequency || w.DR != benchDR || w.Class != 'C' {
		return fmt.Errorf("%w: the window handed to the MAC is %+v, want class C from %d ms for %d s", ErrDevice, w, opens, 1<<windowTimeOut)
	}
	return f.sleep(opens)
}

// open reports whether the device still listens: it closes the window when it needs no more.
func (f *feeder) open() bool {
	w := f.windows[benchGroup]
	return w.Start <= f.now && f.now < w.End
}

// feed sends fragments, uncoded ones first, until the device closes its window.
func (f *feeder) feed(ctx context.Context) error {
	f.log.progress("window open, group 0x%08x", f.group.McAddr)
	m := f.enc.M()
	for n := 1; f.open(); n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if n > fragmentation.MaxIndex {
			return f.why(fmt.Errorf("%w: all %d fragments are sent and the block is not complete", ErrDevice, f.res.Sent))
		}
		if f.opt.CutReset && f.rand.IntN(max(m/resetsPerM, 2)) == 0 {
			if err := f.cut(ctx); err != nil {
				return err
			}
		}
		f.res.Sent++
		if f.rand.Float64() < f.opt.Loss {
			f.res.Lost++
		} else {
			data, err := f.enc.Fragment(nil, n)
			if err != nil {
				return err
			}
			raw, err := datablock.AppendCommand(nil, f.version, datablock.DataFragment{FragIndex: benchIndex, N: uint16(n), Data: data})
			if err != nil {
				return err
			}
			resets := f.resets
			if err := f.down(applayer.FPortDataBlock, benchGroup, raw); err != nil {
				return err
			}
			if f.resets != resets { // the device reset itself
				if err := f.window(ctx); err != nil {
					return err
				}
			}
		}
		if n%max(m/10, 1) == 0 {
			f.log.progress("%d of %d fragments sent, %d lost, %d resets", f.res.Sent, m, f.res.Lost, f.res.Resets)
		}
		if err := f.pause(interval); err != nil {
			return err
		}
	}
	f.log.progress("device closed its window after %d fragments, %d of them lost", f.res.Sent, f.res.Lost)
	return nil
}

// cut resets the device and gives it a new window.
func (f *feeder) cut(ctx context.Context) error {
	if err := f.turn(modem.ResetReq{}); err != nil {
		return err
	}
	f.res.Resets++
	return f.window(ctx)
}

// ready waits until the image is in slot B.
func (f *feeder) ready(context.Context) error {
	req, err := fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevUpgradeImageReq{})
	if err != nil {
		return err
	}
	for range 20 {
		var got fwmgmt.DevUpgradeImageAns
		err := f.ask("image status (TS006)", applayer.FPortFwMgmt, req, 60, func(b []byte) bool {
			return firmwareAnswer(b, &got)
		})
		if err != nil {
			return err
		}
		if got.UpImageStatus == fwmgmt.ImageValid {
			if got.NextFirmwareVersion != uint32(f.bundle.Version) {
				return fmt.Errorf("%w: the image that waits is %v, sent was %v", ErrDevice, bundle.Version(got.NextFirmwareVersion), f.bundle.Version)
			}
			f.log.progress("image %v verified and waiting", f.bundle.Version)
			return nil
		}
		r, err := f.report()
		if err != nil {
			return err
		}
		if r.Cause != diag.CauseOK && r.Cause != diag.CauseDeferredUser && r.Cause != diag.CauseDeferredBattery {
			return stopped(r)
		}
		if err := f.pause(900); err != nil {
			return err
		}
	}
	return f.why(fmt.Errorf("%w: no image to install after hours", ErrDevice))
}

// install reboots the device into the image that waits.
func (f *feeder) install(context.Context) error {
	req, err := fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevRebootCountdownReq{Countdown: 5})
	if err != nil {
		return err
	}
	before := f.resets
	if err := f.down(applayer.FPortFwMgmt, modem.Unicast, req); err != nil {
		return err
	}
	for end := f.now + 4*3600_000; f.resets == before; {
		if f.now >= end {
			return f.why(fmt.Errorf("%w: it has not rebooted", ErrDevice))
		}
		if err := f.pause(5); err != nil {
			return err
		}
	}
	return nil
}

// prove asks for the version, lets the device confirm the image, resets it and asks again.
func (f *feeder) prove(context.Context) error {
	for range 40 {
		r, err := f.report()
		if err != nil {
			return err
		}
		f.res.New = bundle.Version(r.Version)
		if r.Cause != diag.CauseOK {
			return stopped(r)
		}
		if r.Step == diag.StepRunning {
			break
		}
		if err := f.pause(60); err != nil {
			return err
		}
	}
	for i, when := range []string{"after the update", "after one more reset"} {
		v, err := f.mac.version()
		if err != nil {
			return err
		}
		f.res.New = bundle.Version(v.FWVersion)
		if f.res.New != f.bundle.Version {
			return f.why(fmt.Errorf("%w: %s it runs %v, want %v", ErrDevice, when, f.res.New, f.bundle.Version))
		}
		if i == 0 {
			if err := f.turn(modem.ResetReq{}); err != nil {
				return err
			}
		}
	}
	f.res.ProvedByReboot = true
	f.log.progress("device runs %v, also after one more reset", f.res.New)
	return nil
}

// why adds to an error what the device reports, if it still does.
func (f *feeder) why(err error) error {
	if r, e := f.report(); e == nil && r.Cause != diag.CauseOK {
		return fmt.Errorf("%w: %w", err, stopped(r))
	}
	return err
}

// stopped is the report of a device that gave up.
func stopped(r diag.Report) error {
	text := fmt.Sprintf("at %v: %v: %s", r.Step, r.Cause, r.Cause.Meaning())
	if remedy := r.Cause.Remedy(); remedy != "" {
		text += "; " + remedy
	}
	return fmt.Errorf("%w %s", ErrStopped, text)
}
