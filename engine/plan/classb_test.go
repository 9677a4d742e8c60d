package plan_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/fragmentation"
)

var bothClasses = network.Capabilities{Name: "server", MulticastClasses: []network.Class{network.ClassC, network.ClassB}}

// TestClassBFigures checks plans against figures worked out by hand.
//
// The pace in EU868, DR3: 112+3+13 bytes of SF9 take 676.864 ms; a beacon of 152.576 ms each 128 s takes 1.192 per mille of the
// 100, which leaves 98.808: 6850.296 ms. That is as slow as the slots of periodicity 2, one in 4 s, and 2 s more allow, and not
// as those of 3. The longest wait is 5 s of the server, 5.12 s without slots and two distances of 3.84 s, 17.8 s; the
// shortest is 2 s. What lies between them is added to each hour: 6880.361 ms. The guard is 5 s more than the wait.
func TestClassBFigures(t *testing.T) {
	for _, tt := range []struct {
		name        string
		region      airtime.Region
		rate, frag  int
		periodicity int // -1: chosen
		gateways    int
		share       float64

		frequency uint32
		want      int
		pace      float64 // ms
		wait      float64 // s
	}{
		{"SF9", airtime.EU868, 3, 112, -1, 1, 1, 869_525_000, 2, 6880.361, 17.8},
		{"SF9, three gateways at once", airtime.EU868, 3, 112, -1, 3, 1, 869_525_000, 2, 6880.361, 17.8},
		{"SF9, half the duty cycle leaves the beacons enough", airtime.EU868, 3, 112, -1, 1, 0.5, 869_525_000, 3, 13625.573, 25.48},
		{"SF7", airtime.EU868, 5, 239, -1, 1, 1, 869_525_000, 1, 4005.815, 13.96},
		{"SF12", airtime.EU868, 0, 48, -1, 1, 1, 869_525_000, 4, 28576.739, 40.84},
		{"SF9, a slot in 128 s", airtime.EU868, 3, 112, 7, 1, 1, 869_525_000, 7, 130_000, 255.88},
		{"SF9, a slot in 8 s", airtime.EU868, 3, 112, 3, 1, 1, 869_525_000, 3, 10_000, 25.48},
		{"no duty cycle", airtime.US915, 8, 50, -1, 1, 1, 923_300_000, 0, 3000, 12.04},
		{"frames longer than the least distance", airtime.IN865, 0, 48, -1, 1, 1, 866_550_000, 2, 6000, 17.8},
		{"imposed slots closer than the frames are long", airtime.IN865, 0, 48, 0, 1, 1, 866_550_000, 0, 12_040, 12.04},
		{"another channel than RX2", airtime.AS923, 3, 112, -1, 1, 1, 923_400_000, 0, 3000, 12.04},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := plan.Input{Block: block(t, 1500), Region: tt.region, Class: network.ClassB, DataRate: tt.rate, FragSize: tt.frag, Devices: 20,
				Gateways: tt.gateways, Matrix: fragmentation.V2, Share: tt.share}
			if tt.periodicity >= 0 {
				in.Periodicity = ptr(uint8(tt.periodicity))
			}
			p, err := plan.Make(in)
			if err != nil {
				t.Fatal(err)
			}
			ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
			if p.ClassB == nil || int(p.ClassB.Periodicity) != tt.want || math.Abs(ms(p.ClassB.Wait)-tt.wait*1000) > 0.001 {
				t.Fatalf("%+v, want periodicity %d and a longest wait of %v s", p.ClassB, tt.want, tt.wait)
			}
			if p.Frequency != tt.frequency || math.Abs(ms(p.Pace)-tt.pace) > 0.01 || p.Guard != 5*time.Second+p.ClassB.Wait {
				t.Errorf("%d Hz, pace %v ms, guard %s; want %d Hz, %v ms", p.Frequency, ms(p.Pace), p.Guard, tt.frequency, tt.pace)
			}
			if want := datablock.AnswerWindow(p.BlockAckDelay) + 10*time.Second + p.ClassB.Wait; p.AnswerWindow() != want {
				t.Errorf("answers are awaited for %s, want %s", p.AnswerWindow(), want)
			}
			// The least window: two guards, three rounds of answers, and a message and a quarter for each planned.
			messages := p.M + p.Parity + 2
			need := 2*p.Guard + 3*p.AnswerWindow() + time.Duration(messages+messages/4)*p.Pace
			if length := 128 * time.Second << p.TimeOut; length < need || p.TimeOut > 0 && length/2 >= need {
				t.Errorf("window of 128·2^%d s for %s", p.TimeOut, need)
			}
		})
	}
}

// slots returns when ChirpStack would send messages that are handed to it at that pace: each in the next slot after
// the one before it, if that still waits, else after 5 s.
func slots(addr uint32, from time.Duration, p plan.Plan, n int) (handed, sent []time.Duration) {
	for at := from; len(sent) < n; at += p.Pace {
		after := at + 5*time.Second
		if k := len(sent); k > 0 && sent[k-1]-2*time.Second > at {
			after = sent[k-1]
		}
		handed = append(handed, at)
		sent = append(sent, airtime.NextPingSlot(addr, after+1, p.ClassB.Periodicity))
	}
	return handed, sent
}

// TestSlotsHoldThePlan sends by every plan for class B: no message waits longer than the plan says, none meets another
// or a beacon, and with the beacons no hour holds more than the duty cycle and a frame.
func TestSlotsHoldThePlan(t *testing.T) {
	for _, region := range []airtime.Region{airtime.EU868, airtime.IN865, airtime.US915} {
		for _, dr := range []int{0, 3, 5, 13} {
			for _, periodicity := range []int{-1, 0, 2, 4, 7} {
				limit, err := region.MaxPayload(dr, airtime.Link{Direction: airtime.Downlink})
				if err != nil {
					continue
				}
				size := min(limit-datablock.FragmentOverhead, datablock.MaxFragSize)
				in := plan.Input{Block: block(t, 5*max(size, 60)), Region: region, Class: network.ClassB, DataRate: dr, FragSize: size, Devices: 20, Matrix: fragmentation.V2}
				if periodicity >= 0 {
					in.Periodicity = ptr(uint8(periodicity))
				}
				p, err := plan.Make(in)
				if err != nil {
					t.Fatal(err)
				}
				band, err := region.SubBand(p.Frequency)
				if err != nil {
					t.Fatal(err)
				}
				if p.Pace < time.Second<<p.ClassB.Periodicity {
					t.Errorf("%s DR%d: pace %s with periodicity %d", region, dr, p.Pace, p.ClassB.Periodicity)
				}
				for addr := range uint32(2) {
					at := time.Duration(1_400_000_000+addr*37) * time.Second
					handed, sent := slots(addr*0x1234567, at, p, int(70*time.Minute/p.Pace)+50)
					where := fmt.Sprintf("%s DR%d, periodicity %d, address %d", region, dr, p.ClassB.Periodicity, addr)
					first := 0
					var air time.Duration // from first to i
					for i, s := range sent {
						if s-handed[i] > p.ClassB.Wait {
							t.Fatalf("%s: message %d waits %s, at most %s were planned", where, i, s-handed[i], p.ClassB.Wait)
						}
						if i > 0 && s < sent[i-1]+p.FragmentToA {
							t.Fatalf("%s: message %d follows after %s", where, i, s-sent[i-1])
						}
						if s+p.FragmentToA > airtime.BeaconStart(s)+airtime.BeaconPeriod {
							t.Fatalf("%s: message %d runs into a beacon", where, i)
						}
						air += p.FragmentToA
						for sent[first] <= s-time.Hour {
							air -= p.FragmentToA
							first++
						}
						beacons := time.Hour / airtime.BeaconPeriod * region.BeaconTimeOnAir()
						if limit := band.Allowance() + p.FragmentToA; band.DutyCycle < 1000 && air+beacons > limit {
							t.Fatalf("%s: %s on the air in an hour, allowed %s", where, air+beacons, limit)
						}
					}
				}
			}
		}
	}
}

// TestClassBSchedule plans a campaign in both classes. By hand, for SF9 and 20 devices: a window of the plan's duration
// has a slot of 30 ms and 3 symbols of 4.096 ms each 4 s, a beacon of 152.576 ms each 128 s, and each frame goes on when
// its slot is over.
func TestClassBSchedule(t *testing.T) {
	req := request(t)
	req.Updates = req.Updates[1:]
	req.Waves[0].Members = members(20, v100, -2, 0.1)
	req.Gateways = through(roof, cellar)
	req.Class, req.OtherClass, req.Capabilities, req.Transmit = network.ClassB, true, bothClasses, 0
	s := fleet(t, req)
	if len(s.Sessions) != 1 || s.Sessions[0].Plan.DataRate != 3 {
		t.Fatal(describe(s))
	}
	x := s.Sessions[0]
	p := x.Plan
	if p.ClassB.Periodicity != 2 || !p.Canary || p.FragSize < 100 {
		t.Fatalf("%+v", p)
	}
	seconds := p.Duration.Seconds()
	hand := math.Floor(seconds/4)*0.042288 + math.Floor(seconds/128)*0.152576 +
		float64(p.M+p.Parity)*(p.FragmentToA.Seconds()-0.03) + 3*(0.164864-0.03) // status requests of 15 bytes
	if got := x.Energy / 6 * 3600; math.Abs(got-hand) > 0.001 {
		t.Errorf("%v s of listening, by hand %v", got, hand)
	}
	// In class C: the gateways one after the other, 5 s apart, and the receiver always on.
	c := x.Other
	if c == nil || c.ClassB != nil {
		t.Fatalf("other class: %+v", c)
	}
	answers := datablock.AnswerWindow(p.BlockAckDelay) + 10*time.Second
	if want := 5*time.Second + time.Duration(p.M+p.Parity+2)*10*time.Second + 2*answers; c.Duration != want || math.Abs(c.Energy-6*want.Hours()) > 1e-9 {
		t.Errorf("class C: %s and %v mAh, want %s and %v", c.Duration, c.Energy, want, 6*want.Hours())
	}
	if over := airtime.GPS(x.Opens) % airtime.BeaconPeriod; over != 0 {
		t.Errorf("the window opens %s after a beacon", over)
	}
	// Both gateways send each frame at the same time: nothing is later for the second, and the ledger of each has them all.
	if want := x.Opens.Add(2*p.Guard + time.Duration(x.Expected+1)*p.Pace + p.FragmentToA + p.AnswerWindow()); !x.Ends.Equal(want) || x.Delayed != 0 {
		t.Errorf("ends %s, %s late, want %s", x.Ends, x.Delayed, want)
	}
	for _, u := range s.Usage {
		if u.Frames != x.Expected+2 || u.Peak > u.Allowed {
			t.Errorf("%+v", u)
		}
	}
	if text := p.String(); !strings.Contains(text, "class B with a ping slot every 3.84s (periodicity 2), window 128·2^") {
		t.Error(text)
	}
	if text := fmt.Sprint(s.Warnings); !strings.Contains(text, "gateways that send beacons") || !strings.Contains(text, "for up to 2m8s or 0.21 mAh") {
		t.Errorf("%q", s.Warnings)
	}
	var again plan.Schedule
	if b, err := json.Marshal(s); err != nil || json.Unmarshal(b, &again) != nil || again.Sessions[0].Plan.ClassB == nil || *again.Sessions[0].Plan.ClassB != *p.ClassB {
		t.Errorf("does not survive JSON: %v", err)
	}

	// The same campaign in class C says the same of class B.
	req.Class = network.ClassC
	back := fleet(t, req).Sessions[0]
	if back.Other == nil || back.Other.ClassB == nil || back.Other.ClassB.Periodicity != 2 || math.Abs(back.Other.Energy-x.Energy) > 1e-9 ||
		back.Other.Duration != p.Duration || back.Plan.ClassB != nil || back.Plan.Duration != c.Duration {
		t.Errorf("class C: %+v beside %+v; class B: %+v beside %+v", back.Plan.Duration, back.Other, p.Duration, c)
	}
	req.OtherClass = false
	if o := fleet(t, req).Sessions[0].Other; o != nil {
		t.Errorf("nobody asked for %+v", o)
	}
}

// Sessions of class B wait for one another until the next beacon period.
func TestClassBSessionsFollow(t *testing.T) {
	req := request(t)
	req.Class = network.ClassB
	req.Waves = append(req.Waves, plan.Wave{Name: "more", Members: members(5, v100, 9, 0.1)})
	b := book(t, 1)
	first, problems := plan.Fleet(b, req)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	req.Campaign = "d"
	second, problems := plan.Fleet(b, req)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	all := append(first.Sessions, second.Sessions...)
	if len(all) != 4 || second.Sessions[0].Behind != "c" {
		t.Fatalf("%s; %s", describe(first), describe(second))
	}
	for i, x := range all {
		if airtime.GPS(x.Opens)%airtime.BeaconPeriod != 0 {
			t.Errorf("session %d opens at %s", i, x.Opens)
		}
		for _, y := range all[:i] {
			if x.Opens.Before(y.Ends) && y.Opens.Before(x.Ends) {
				t.Errorf("session %d overlaps another", i)
			}
		}
	}
	// A book that is made anew from what was planned before has the same room.
	taken := book(t, 1)
	if err := taken.Take(first, 0); err != nil {
		t.Fatal(err)
	}
	again, problems := plan.Fleet(taken, req)
	if len(problems) > 0 || !again.Sessions[0].Opens.Equal(second.Sessions[0].Opens) {
		t.Errorf("%v %s, want %s", problems, again.Sessions[0].Opens, second.Sessions[0].Opens)
	}
}

func TestClassBRefused(t *testing.T) {
	for _, in := range []plan.Input{
		{Class: network.ClassA},
		{Class: network.ClassB, Periodicity: ptr(uint8(8))},
		{Periodicity: ptr(uint8(0))},
		{Class: network.ClassB, DutyCycle: 1}, // of which beacons take 1.19
	} {
		in.Block, in.Region, in.DataRate, in.Devices, in.Matrix = block(t, 3000), airtime.EU868, 3, 1, fragmentation.V2
		if _, err := plan.Make(in); !errors.Is(err, plan.ErrInput) {
			t.Errorf("class %c: %v, want ErrInput", in.Class, err)
		}
	}
	req := request(t)
	req.Class, req.Capabilities = network.ClassB, network.Capabilities{Name: "server", MulticastClasses: []network.Class{network.ClassC}}
	if _, problems := plan.Fleet(book(t, 1), req); len(problems) != 1 || problems[0].Key != "radio.class" || !strings.Contains(problems[0].Text, "no class B multicast") {
		t.Errorf("%+v", problems)
	}
	req = request(t)
	req.Class, req.Updates = network.ClassB, []plan.Update{{Name: "raw", Block: make([]byte, 500), Raw: &plan.RawBlock{}}}
	if s := fleet(t, req); !strings.Contains(fmt.Sprint(s.Warnings), "LoRaMac-node answers a class B session and then listens in class C") {
		t.Errorf("%q", s.Warnings)
	}
}
