package session_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/session"
)

// TestForeignAnswers feeds answers that belong to another session or group, or come from before the last fragment, to
// a session whose devices receive: none may change what is known of them.
func TestForeignAnswers(t *testing.T) {
	r := newRig(t, options{seed: 3, n: 3})
	checked := false
	r.broadcasted = func(n int) {
		if n < 20 || checked {
			return
		}
		checked = true
		r.w.After(700*time.Millisecond, "late", func() {
			d := r.c.State().Devices[0]
			now := r.w.Now()
			up := func(at time.Time, port uint8, cmd any) {
				t.Helper()
				var payload []byte
				var err error
				switch cmd := cmd.(type) {
				case datablock.Command:
					payload, err = datablock.AppendCommand(nil, applayer.V2, cmd)
				case mcsetup.Command:
					payload, err = mcsetup.AppendCommand(nil, applayer.V2, cmd)
				}
				if err != nil {
					t.Fatal(err)
				}
				r.step(session.Heard{Event: network.Event{Kind: network.EventUplink, Device: d.EUI, At: at, FPort: port, Payload: payload}})
			}
			before := r.w.Now().Add(-time.Minute)
			up(now, applayer.FPortDataBlock, datablock.FragSessionStatusAns{FragIndex: 1, NbFragReceived: 3, MissingFrag: 9})
			up(now, applayer.FPortDataBlock, datablock.FragSessionSetupAns{FragIndex: 0, SessionCntReplay: true})
			up(now, applayer.FPortDataBlock, datablock.FragSessionDeleteAns{FragIndex: 1})
			up(now, applayer.FPortDataBlock, datablock.FragDataBlockReceivedReq{FragIndex: 2})
			up(now, applayer.FPortMcSetup, mcsetup.McGroupSetupAns{McGroupID: 2, IDError: true})
			up(now, applayer.FPortMcSetup, mcsetup.McGroupDeleteAns{McGroupID: 0})
			up(now, applayer.FPortMcSetup, mcsetup.McClassCSessionAns{McGroupID: 0, StartMissed: true})
			up(before, applayer.FPortDataBlock, datablock.FragSessionStatusAns{FragIndex: 0, NbFragReceived: 3, MissingFrag: 9})
			after := r.c.State().Devices[0]
			after.LastUp, after.Heard, after.Dropped, after.Pending, after.Wake = d.LastUp, d.Heard, d.Dropped, d.Pending, d.Wake // an uplink is an uplink
			if after != d {
				t.Errorf("before %+v\nafter  %+v", d, after)
			}
		})
	}
	r.run(48 * time.Hour)
	if !checked {
		t.Fatal("the window never came")
	}
	for i := range r.devices {
		r.wantUpdated(i)
	}
}

// TestAnything steps sessions with random events in any order: they must neither panic nor spin, must count their
// devices right, and must end when they are told to.
func TestAnything(t *testing.T) {
	for seed := range seeds() {
		r := newRig(t, options{seed: seed, n: 5})
		rng := rand.New(rand.NewPCG(seed, 9))
		now, ops := start, uint64(0)
		ports := []uint8{200, 201, 202, 203, 204, 10}
		event := func() session.Event {
			eui := r.devices[rng.IntN(5)].EUI
			switch rng.IntN(12) {
			case 0:
				return session.Start{}
			case 1, 2, 3, 4:
				payload := make([]byte, rng.IntN(12))
				for i := range payload {
					payload[i] = byte(rng.IntN(16))
				}
				return session.Heard{Event: network.Event{Kind: network.EventKind(1 + rng.IntN(4)), Device: eui, At: now.Add(-time.Duration(rng.IntN(100)) * time.Second),
					FPort: ports[rng.IntN(6)], Payload: payload, Message: "m", Reason: "EXPIRED"}}
			case 5, 6, 7:
				return session.Result{Op: uint64(rng.IntN(int(ops) + 2)), Device: []network.EUI64{{}, eui}[rng.IntN(2)], Message: "m", Group: "g",
					FCnt: uint32(rng.IntN(3)), Failure: session.Failure(rng.IntN(8) / 5)}
			case 8:
				return session.Heard{Event: network.Event{Kind: network.EventDropped, Group: "g", FCnt: uint32(rng.IntN(50)), At: now, Reason: "X"}}
			case 9:
				return []session.Event{session.Pause{}, session.Continue{}, session.Withhold{Devices: []network.EUI64{eui}}}[rng.IntN(3)]
			case 10:
				return session.Battery{Device: eui, Percent: rng.IntN(101)}
			}
			return session.Tick{}
		}
		for range 2000 {
			now = now.Add(time.Duration(rng.IntN(600)) * time.Second)
			for _, e := range r.c.Step(now, event()) {
				switch e := e.(type) {
				case session.Send:
					ops = e.Op
				case session.Broadcast:
					ops = e.Op
				}
			}
			total := 0
			for _, n := range r.c.Progress().Stages {
				total += n
			}
			if total != 5 {
				t.Fatalf("seed %d: %d devices in %v", seed, total, r.c.Progress().Stages)
			}
		}
		r.c.Step(now, session.Abort{Reason: "enough"})
		for range 100 {
			now = now.Add(time.Hour)
			r.c.Step(now, session.Tick{})
		}
		if !r.c.Ended() {
			t.Errorf("seed %d: has not ended: %+v", seed, r.c.Progress())
		}
	}
}
