package fleet_test

import (
	"encoding/binary"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// proof runs the long forms of tests, and those of speed.
var proof = os.Getenv("SOWER_PROOF") != ""

// sensor is the leanest App: it counts its turns, and reports every period of its clock if that is not 0.
type sensor struct {
	boot   []modem.Message
	period uint64 // ms

	turns  int
	next   uint64
	report modem.Frame
	idle   [8]byte
}

func (s *sensor) PowerUp() ([]modem.Frame, error) {
	s.report = encode([]modem.Message{modem.Up{Port: 2, Data: []byte("23.5 °C")}})[0]
	return encode(append(s.boot, idle)), nil
}

func (s *sensor) Turn(f modem.Frame) ([]modem.Frame, error) {
	s.turns++
	until := modem.Frame{Type: modem.TypeIdleUntil, Payload: s.idle[:]}
	binary.LittleEndian.PutUint64(s.idle[:], modem.Never)
	if s.period == 0 {
		return []modem.Frame{until}, nil
	}
	var out []modem.Frame
	if now := binary.LittleEndian.Uint64(f.Payload); now >= s.next { // every frame of the network begins with the time
		s.next = now + s.period
		out = append(out, s.report)
	}
	binary.LittleEndian.PutUint64(s.idle[:], s.next)
	return append(out, until), nil
}

func (s *sensor) Close() error { return nil }

// crowd is a fleet of sensors in one multicast group, with a class C session that never ends, and a network that lets
// them join and sends frames to the group.
type crowd struct {
	testing.TB
	world   *world.World
	fleet   *fleet.Fleet
	gateway *radio.Gateway
	apps    []*sensor
	uplinks int
	at      time.Duration
	fCnt    uint32
}

func newCrowd(tb testing.TB, devices int, period time.Duration) *crowd {
	c := &crowd{TB: tb, world: world.New(epoch)}
	loss, err := radio.NewIndependent(1, 0, 0.1)
	if err != nil {
		tb.Fatal(err)
	}
	medium := radio.NewMedium(c.world, radio.EU868(), loss)
	if c.fleet, err = fleet.New(fleet.Config{World: c.world, Medium: medium, Failed: func(_ lorawan.EUI64, _ time.Time, err error) { tb.Error(err) }}); err != nil {
		tb.Fatal(err)
	}
	if c.gateway, err = medium.NewGateway(gateway, c.hear); err != nil {
		tb.Fatal(err)
	}
	for i := range devices {
		app := &sensor{period: uint64(period / time.Millisecond), boot: []modem.Message{
			modem.SetMcGroup{ID: 0, Defined: true, Addr: mcAddr, AppSKey: mcApp, NwkSKey: mcNwk, MaxFCnt: 1 << 31},
			modem.Session{Class: 'C', DR: mcDR, Frequency: mcFreq, Start: clock(0), End: clock(50000 * time.Hour)},
		}}
		c.apps = append(c.apps, app)
		if _, err := c.fleet.Add(fleet.DeviceConfig{EUI: lorawan.EUI64{1, 0, 0, 0, 0, 0, byte(i >> 8), byte(i)}, JoinEUI: joinEUI, AppKey: appKey, DataRate: 5,
			PowerUp: time.Duration(i) * 150 * time.Millisecond, App: app}); err != nil {
			tb.Fatal(err)
		}
	}
	return c
}

// hear lets devices join.
func (c *crowd) hear(f radio.Frame, _ radio.Signal) {
	if lorawan.MType(f.Payload[0]>>5) != lorawan.JoinRequest {
		c.uplinks++
		return
	}
	var phy lorawan.PHYPayload
	c.must(phy.UnmarshalBinary(f.Payload))
	r := phy.MACPayload.(*lorawan.JoinRequestPayload)
	answer := lorawan.PHYPayload{MHDR: lorawan.MHDR{MType: lorawan.JoinAccept}, MACPayload: &lorawan.JoinAcceptPayload{
		JoinNonce: 1, DevAddr: lorawan.DevAddr{2, r.DevEUI[5], r.DevEUI[6], r.DevEUI[7]}, RXDelay: 1}}
	c.must(answer.SetDownlinkJoinMIC(lorawan.JoinRequestType, joinEUI, r.DevNonce, appKey))
	c.must(answer.EncryptJoinAcceptPayload(appKey))
	raw, err := answer.MarshalBinary()
	c.must(err)
	// A gateway that is busy refuses; the device tries again.
	_ = c.gateway.Transmit(radio.Frame{Payload: raw, Frequency: f.Frequency, DataRate: f.DataRate}, f.End.Add(5*time.Second))
}

func (c *crowd) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// pass lets time go by.
func (c *crowd) pass(d time.Duration) {
	c.Helper()
	c.at += d
	c.must(c.world.Run(c.Context(), epoch.Add(c.at)))
}

// multicast sends a frame of 50 bytes to all, and waits until it has ended.
func (c *crowd) multicast() {
	c.Helper()
	var addr lorawan.DevAddr
	binary.BigEndian.PutUint32(addr[:], mcAddr)
	h := bench{t: c}
	raw, err := h.data(lorawan.UnconfirmedDataDown, addr, c.fCnt, false, 201, strings.Repeat("x", 50), mcApp, mcNwk).MarshalBinary()
	c.must(err)
	c.fCnt++
	_, err = c.gateway.TransmitSoon(radio.Frame{Payload: raw, Frequency: mcFreq, DataRate: mcDR})
	c.must(err)
	c.pass(500 * time.Millisecond)
}

// totals adds up the counters of the devices.
func (c *crowd) totals() (sum fleet.Stats, turns int) {
	for i, d := range c.fleet.Devices() {
		s := d.Stats()
		sum.Uplinks += s.Uplinks
		sum.Multicasts += s.Multicasts
		sum.MulticastsLost += s.MulticastsLost
		sum.MulticastsDeaf += s.MulticastsDeaf
		if !s.Joined {
			c.Errorf("device %s has not joined", d.EUI())
		}
		turns += c.apps[i].turns
	}
	return sum, turns
}

// join lets the whole fleet join.
func (c *crowd) join() { c.pass(time.Duration(len(c.apps))*150*time.Millisecond + 5*time.Minute) }

// TestEveryDeliveryCounts: each frame reaches each device exactly once or is lost, with its MIC verified and its payload
// decrypted; under SOWER_PROOF two millions in a second of processor time.
func TestEveryDeliveryCounts(t *testing.T) {
	devices, frames := 200, 50
	if proof {
		devices, frames = 1000, 10000
	}
	c := newCrowd(t, devices, 0)
	c.join()
	began := cpuTime()
	for range frames {
		c.multicast()
	}
	spent := cpuTime() - began
	sum, turns := c.totals()
	if sum.Multicasts+sum.MulticastsLost != devices*frames || sum.MulticastsDeaf != 0 {
		t.Errorf("%d received and %d lost of %d", sum.Multicasts, sum.MulticastsLost, devices*frames)
	}
	if turns != devices+sum.Multicasts { // one LINK each
		t.Errorf("%d turns of applications, want %d", turns, devices+sum.Multicasts)
	}
	rate := float64(devices*frames) / spent.Seconds()
	t.Logf("%d deliveries, %.2f million in a second of processor time", devices*frames, rate/1e6)
	if proof && rate < 2e6 {
		t.Errorf("%.2f million deliveries in a second of processor time, want 2", rate/1e6)
	}
}

// TestMemoryDoesNotGrow: a fleet that joins, reports and hears multicast frames for a long time occupies what it occupied
// after the first seventh of it. Under SOWER_PROOF 10,000 devices live for a week and report every hour.
func TestMemoryDoesNotGrow(t *testing.T) {
	devices, part, period := 150, 4*time.Hour, 20*time.Minute
	if proof {
		devices, part, period = 10000, 24*time.Hour, time.Hour
	}
	c := newCrowd(t, devices, period)
	c.join()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var first, last uint64
	for i := range 7 {
		for range part / (10 * time.Minute) {
			c.multicast()
			c.pass(10*time.Minute - 500*time.Millisecond)
		}
		if last = heap(); i == 0 {
			first = last
		}
	}
	sum, _ := c.totals()
	t.Logf("%d devices, %s: %d events, %d uplinks, %d multicast frames received; heap %d KiB after the first seventh, %d KiB at the end",
		devices, c.at, c.world.Events(), c.uplinks, sum.Multicasts, first>>10, last>>10)
	if want := devices * int(7*part/period) * 9 / 10; c.uplinks < want {
		t.Errorf("%d uplinks, want %d or more", c.uplinks, want)
	}
	if last > first+first/50+64<<10 {
		t.Errorf("the heap grew from %d to %d bytes", first, last)
	}
}

// BenchmarkMulticast measures deliveries: radio, MIC, decryption and one turn of an application in Go.
func BenchmarkMulticast(b *testing.B) {
	const devices = 1000
	c := newCrowd(b, devices, 0)
	c.join()
	began := cpuTime()
	for b.Loop() {
		c.multicast()
	}
	b.ReportMetric(float64(devices*b.N)/(cpuTime()-began).Seconds(), "deliveries/cpu-s")
}
