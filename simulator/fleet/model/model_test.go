package model_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/bundle/mcuboot"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/model"
)

var rootKey = [16]byte{1, 2, 3}

// driver hands messages to a device and lets its clock run.
type driver struct {
	t    *testing.T
	app  fleet.App
	now  uint64
	idle uint64
	ups  []modem.Up
}

func (d *driver) turn(m modem.Message) {
	d.t.Helper()
	f, err := modem.Frames(m)
	if err != nil {
		d.t.Fatal(err)
	}
	d.take(d.app.Turn(f[0]))
}

func (d *driver) take(frames []modem.Frame, err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
	booted := false
	for _, f := range frames {
		m, err := f.Message()
		if err != nil {
			d.t.Fatal(err)
		}
		switch m := m.(type) {
		case modem.Up:
			m.Data = bytes.Clone(m.Data)
			d.ups = append(d.ups, m)
		case modem.Reset:
			booted = true
		case modem.IdleUntil:
			d.idle = m.Time
		}
	}
	if booted {
		d.turn(modem.Link{Time: d.now, Joined: true, MaxPayload: 222})
	}
}

// pass lets so many milliseconds pass.
func (d *driver) pass(ms uint64) {
	end := d.now + ms
	for turns := 0; d.idle <= end; turns++ {
		if turns > 10_000 {
			d.t.Fatal("the device does not idle")
		}
		d.now = max(d.now+1, d.idle)
		d.turn(modem.Tick{Time: d.now})
	}
	d.now = end
}

// down hands over a unicast message of TS004.
func (d *driver) down(v applayer.Version, c datablock.Command) {
	d.t.Helper()
	b, err := datablock.AppendCommand(nil, v, c)
	if err != nil {
		d.t.Fatal(err)
	}
	d.turn(modem.Down{Time: d.now, Port: applayer.FPortDataBlock, Group: modem.Unicast, Data: b})
}

// on returns the uplinks on a port since the last call, and forgets all.
func (d *driver) on(port uint8) (out [][]byte) {
	for _, u := range d.ups {
		if u.Port == port {
			out = append(out, u.Data)
		}
	}
	d.ups = nil
	return out
}

func start(t *testing.T, app fleet.App) *driver {
	d := &driver{t: t, app: app, now: 1_400_000_000_000}
	d.take(app.PowerUp())
	d.turn(modem.Link{Time: d.now, Joined: true, MaxPayload: 222})
	d.pass(1000)
	return d
}

func wrap(t *testing.T, minor uint8, body []byte) []byte {
	t.Helper()
	img, err := mcuboot.Wrap(body, mcuboot.Options{Major: 1, Minor: minor, LoadAddress: 0x21000000})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestAnswersAsTheLibrary gives the same fragments to the model and to the library in C: every answer to a status
// request must be the same to the byte, and both must be complete after the same fragment.
func TestAnswersAsTheLibrary(t *testing.T) {
	key, err := bundle.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := bundle.PublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	id := device.Identity{Class: 0x1001, Hardware: 3, RootKey: rootKey, Keys: [2]device.TrustKey{{ID: 1, Public: public}}}
	answers := 0
	for _, v := range []applayer.Version{applayer.V1, applayer.V2} {
		for seed := range uint64(12) {
			t.Run(fmt.Sprintf("v%d seed=%d", v, seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, uint64(v)))
				body := make([]byte, 800+rng.IntN(1500))
				for i := range body {
					body[i] = byte(rng.Uint32())
				}
				block, err := bundle.Full(bundle.Target{Class: id.Class, Hardware: id.Hardware, KeyID: 1, Sequence: 1}, wrap(t, 1, body), key)
				if err != nil {
					t.Fatal(err)
				}
				const size = 48
				matrix := fragmentation.V1
				if v == applayer.V2 {
					matrix = fragmentation.V2
				}
				enc, err := fragmentation.NewEncoder(block, size, matrix)
				if err != nil {
					t.Fatal(err)
				}
				setup := datablock.FragSessionSetupReq{NbFrag: uint16(enc.M()), FragSize: size, Padding: uint8(enc.Padding()), McGroupBitMask: 1}
				if v == applayer.V2 {
					setup.SessionCnt = 7
					setup.MIC = datablock.SessionMIC(datablock.DataBlockIntKey(rootKey), 7, 0, setup.Descriptor, block)
				}
				host, err := device.NewHost(device.HostConfig{Layout: device.ExampleLayout(), Image: wrap(t, 0, make([]byte, 500)), ID: id, PackageVersion: uint8(v)})
				if err != nil {
					t.Fatal(err)
				}
				defer host.Close()
				m, err := model.New(model.Config{RootKey: rootKey, Packages: v, Running: 0x01000000, Next: 0x01010000})
				if err != nil {
					t.Fatal(err)
				}
				both := []*driver{start(t, host), start(t, m)}
				status := func(participants bool) bool {
					var got [2][][]byte
					for i, d := range both {
						d.ups = nil
						d.down(v, datablock.FragSessionStatusReq{Participants: participants})
						d.pass(20_000)
						got[i] = d.on(applayer.FPortDataBlock)
					}
					if len(got[0]) != len(got[1]) || len(got[0]) > 0 && !bytes.Equal(got[0][0], got[1][0]) {
						t.Fatalf("the library answers %x, the model %x", got[0], got[1])
					}
					answers += len(got[0])
					return len(got[0]) > 0
				}
				for _, d := range both {
					d.down(v, setup)
				}
				if a, b := both[0].on(applayer.FPortDataBlock), both[1].on(applayer.FPortDataBlock); len(a) != 1 || len(b) != 1 || !bytes.Equal(a[0], b[0]) {
					t.Fatalf("to the set-up the library answers %x, the model %x", a, b)
				}
				for n := 1; n <= 2*enc.M()+40; n++ {
					if rng.Float64() < 0.3 {
						continue
					}
					data, err := enc.Fragment(nil, n)
					if err != nil {
						t.Fatal(err)
					}
					for _, d := range both {
						d.down(v, datablock.DataFragment{N: uint16(n), Data: data})
						d.pass(500)
					}
					if n%17 == 0 || n > enc.M() {
						if !status(false) && n > enc.M() { // complete, both at the same fragment
							break
						}
					}
				}
				if !status(true) {
					t.Error("nobody answers a request to all participants")
				}
			})
		}
	}
	if answers < 200 {
		t.Errorf("only %d answers were compared", answers)
	}
}

// updated drives a device through TS006 to the end of its trial and returns its last report.
func updated(t *testing.T, cfg model.Config) (*driver, diag.Report) {
	t.Helper()
	cfg.RootKey, cfg.Running, cfg.Next = rootKey, 0x01000000, 0x01010000
	m, err := model.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := start(t, m)
	block := make([]byte, 480)
	enc, err := fragmentation.NewEncoder(block, 48, fragmentation.V2)
	if err != nil {
		t.Fatal(err)
	}
	d.down(applayer.V2, datablock.FragSessionSetupReq{NbFrag: 10, FragSize: 48, McGroupBitMask: 1, SessionCnt: 1,
		MIC: datablock.SessionMIC(datablock.DataBlockIntKey(rootKey), 1, 0, [4]byte{}, block)})
	for n := 1; n <= 10; n++ {
		data, err := enc.Fragment(nil, n)
		if err != nil {
			t.Fatal(err)
		}
		d.down(applayer.V2, datablock.DataFragment{N: uint16(n), Data: data})
	}
	d.pass(3_600_000)
	reboot, err := fwmgmt.AppendCommand(nil, applayer.V1, fwmgmt.DevRebootCountdownReq{Countdown: 10})
	if err != nil {
		t.Fatal(err)
	}
	d.turn(modem.Down{Time: d.now, Port: applayer.FPortFwMgmt, Group: modem.Unicast, Data: reboot})
	d.pass(3_600_000)
	reports := d.on(diag.FPort)
	if len(reports) == 0 {
		t.Fatal("the device has not reported anything")
	}
	r, _, err := diag.ParseReport(reports[len(reports)-1])
	if err != nil {
		t.Fatal(err)
	}
	return d, r
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name  string
		cfg   model.Config
		step  diag.Step
		cause diag.Cause
		runs  uint32
	}{
		{"none", model.Config{}, diag.StepRunning, diag.CauseOK, 0x01010000},
		{"low battery, charged later", model.Config{Battery: 5, Charged: 1800e9}, diag.StepRunning, diag.CauseOK, 0x01010000},
		{"low battery", model.Config{Battery: 5}, diag.StepPatch, diag.CauseDeferredBattery, 0x01000000},
		{"another base", model.Config{Fault: model.Fault{Refuses: diag.CauseBaseMismatch}}, diag.StepManifest, diag.CauseBaseMismatch, 0x01000000},
		{"self-test", model.Config{Fault: model.Fault{RollsBack: diag.CauseSelfTestFailed}}, diag.StepTrial, diag.CauseSelfTestFailed, 0x01000000},
		{"wrong key", model.Config{Fault: model.Fault{WrongKey: true}}, diag.StepVerify, diag.CauseSessionMICBad, 0x01000000},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, r := updated(t, c.cfg)
			if m := d.app.(*model.Device); r.Step != c.step || r.Cause != c.cause || r.Version != c.runs || m.Running() != c.runs {
				t.Errorf("ends with %+v on %08x, want %s %s on %08x", r, m.Running(), c.step, c.cause, c.runs)
			}
		})
	}
	t.Run("silent after boot", func(t *testing.T) {
		d, _ := updated(t, model.Config{Fault: model.Fault{SilentAfterBoot: true}})
		d.ups = nil
		d.pass(24 * 3_600_000)
		if len(d.ups) > 0 {
			t.Errorf("%d uplinks of a device that is silent", len(d.ups))
		}
	})
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]model.Config{
		"no key":   {},
		"version":  {RootKey: rootKey, Packages: 3},
		"battery":  {RootKey: rootKey, Battery: 101},
		"duration": {RootKey: rootKey, Patch: -1},
	} {
		if _, err := model.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
