package model_test

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/clocksync"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/firmware-stub/device"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/model"
)

// recorder keeps the windows that a device asks its MAC for.
type recorder struct {
	fleet.App
	windows []modem.Session
}

func (r *recorder) Turn(f modem.Frame) ([]modem.Frame, error) {
	frames, err := r.App.Turn(f)
	for _, f := range frames {
		if m, err := f.Message(); err == nil {
			if w, is := m.(modem.Session); is {
				r.windows = append(r.windows, w)
			}
		}
	}
	return frames, err
}

// The model and the library in C answer sessions of classes B and C with the same bytes, and open the same windows.
func TestSessionsAsTheLibrary(t *testing.T) {
	const now = 1_400_000_000 // GPS time of both clocks, s
	for _, v := range []applayer.Version{applayer.V1, applayer.V2} {
		host, err := device.NewHost(device.HostConfig{Layout: device.ExampleLayout(), Image: wrap(t, 0, make([]byte, 500)),
			ID: device.Identity{Class: 1, Hardware: 1, RootKey: rootKey}, PackageVersion: uint8(v)})
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		m, err := model.New(model.Config{RootKey: rootKey, Packages: v, Running: 1})
		if err != nil {
			t.Fatal(err)
		}
		key := mcsetup.McRootKeyFromGenAppKey(rootKey)
		group := mcsetup.McGroupSetupReq{McGroupID: 1, McAddr: 0x01020304, McKeyEncrypted: mcsetup.EncryptMcKey(mcsetup.McKEKey(key), [16]byte{7}), MaxMcFCnt: 1000}
		soon := uint32(now)/128*128 + 1280
		b := mcsetup.McClassBSessionReq{McGroupID: 1, SessionTime: soon, Periodicity: 5, TimeOut: 3, DLFreq: 869_525_000, DR: 3}
		unknown := b
		unknown.McGroupID = 2
		fastest, late := b, b
		fastest.Periodicity, fastest.TimeOut = 0, 15
		late.SessionTime = now/128*128 - 1280
		asked := []mcsetup.Command{
			group, b, fastest, unknown, late,
			mcsetup.McClassCSessionReq{McGroupID: 1, SessionTime: soon + 7, TimeOut: 9, DLFreq: 869_525_000, DR: 5},
		}
		var answers [2][]string
		var windows [2][]modem.Session
		for i, app := range []fleet.App{host, m} {
			r := &recorder{App: app}
			d := start(t, r)
			unicast := func(port uint8, payload []byte, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				d.turn(modem.Down{Time: d.now, Port: port, Group: modem.Unicast, Data: payload})
			}
			// Their clocks are right, and both know it.
			payload, err := clocksync.AppendCommand(nil, v, clocksync.AppTimeAns{})
			unicast(applayer.FPortClockSync, payload, err)
			for _, c := range asked {
				d.ups = nil
				payload, err := mcsetup.AppendCommand(nil, v, c)
				unicast(applayer.FPortMcSetup, payload, err)
				d.pass(200)
				answers[i] = append(answers[i], fmt.Sprintf("%T: %x", c, d.on(applayer.FPortMcSetup)))
			}
			windows[i] = r.windows
		}
		if !reflect.DeepEqual(answers[0], answers[1]) {
			t.Errorf("version %d: the library answers %q, the model %q", v, answers[0], answers[1])
		}
		if !reflect.DeepEqual(windows[0], windows[1]) || len(windows[1]) < 3 || windows[1][0].Class != 'B' || windows[1][0].Periodicity != 5 ||
			windows[1][0].End-windows[1][0].Start != 128_000<<3 {
			t.Errorf("version %d: the library opens\n%+v, the model\n%+v", v, windows[0], windows[1])
		}
	}
}
