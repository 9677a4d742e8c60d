package inventory_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/fwmgmt"
	"github.com/sower-fuota/sower/applayer/multipackage"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
)

// meter is a device of the tests: it sends every period, and answers what it knows.
type meter struct {
	eui     network.EUI64
	gateway network.EUI64
	period  time.Duration
	offers  []multipackage.DevPackage // of TS007; nil: it does not have it
	ports   map[uint8]string          // answers on other ports
	deaf    int                       // so many questions do not arrive
	uplink  int                       // longest payload; 0: no limit
	slow    time.Duration             // answers come so late
	mum     bool                      // does not tell its version through TS007
	reports bool                      // its uplinks tell its version

	fCnt uint32
	next time.Time
}

// air is a network in which questions are delivered after the uplink that they follow.
type air struct {
	t      *testing.T
	now    time.Time
	d      *inventory.Discovery
	meters []*meter
	log    []string // "minute port payload" of each question
	sent   map[network.EUI64][]time.Time
	mute   bool          // tells of no delivery
	wrong  time.Duration // of the clock of the gateways
	reason string

	answers []slowAnswer
}

type slowAnswer struct {
	at      time.Time
	m       *meter
	port    uint8
	payload []byte
}

func newAir(t *testing.T, opt inventory.DiscoveryOptions, meters ...*meter) (*air, *inventory.Inventory) {
	inv := inventory.New(inventory.Options{})
	a := &air{t: t, now: noon, meters: meters, sent: map[network.EUI64][]time.Time{}}
	var euis []network.EUI64
	for i, m := range meters {
		m.eui = network.EUI64{0x70, 0xb3, 6: byte((i + 1) >> 8), 7: byte(i + 1)}
		if m.period == 0 {
			m.period = 10 * time.Minute
		}
		m.next = noon.Add(time.Duration(i) * time.Second)
		if err := inv.Add(network.Device{EUI: m.eui, Region: "EU868", Battery: -1}); err != nil {
			t.Fatal(err)
		}
		euis = append(euis, m.eui)
	}
	a.d = inventory.NewDiscovery(noon, inv, euis, opt)
	return a, inv
}

// run lets time pass.
func (a *air) run(d time.Duration) *air {
	a.t.Helper()
	for end := a.now.Add(d); ; {
		if len(a.answers) > 0 && !a.answers[0].at.After(end) && !slices.ContainsFunc(a.meters, func(m *meter) bool { return m.next.Before(a.answers[0].at) }) {
			ans := a.answers[0]
			a.now, a.answers = ans.at, a.answers[1:]
			a.up(ans.m, ans.port, ans.payload)
			continue
		}
		m := slices.MinFunc(a.meters, func(x, y *meter) int { return x.next.Compare(y.next) })
		if m.next.After(end) {
			a.now = end
			return a
		}
		a.now = m.next
		m.next = m.next.Add(m.period)
		if m.reports {
			a.up(m, diag.FPort, diag.AppendReport(nil, diag.Report{Version: uint32(v110)}))
		} else {
			a.up(m, 2, []byte("hello"))
		}
	}
}

// up is an uplink and what follows from it.
func (a *air) up(m *meter, port uint8, payload []byte) {
	ev := network.Event{Kind: network.EventUplink, Device: m.eui, At: a.now.Add(a.wrong), FCnt: m.fCnt, FPort: port, Payload: payload, DataRate: 5, Gateway: m.gateway}
	m.fCnt++
	ask, ok := a.d.Heard(a.now, ev)
	if !ok {
		return
	}
	if ask.Message.Device != m.eui {
		a.t.Fatalf("%s was heard, %s is asked", m.eui, ask.Message.Device)
	}
	a.log = append(a.log, fmt.Sprintf("%d %d %x", int(a.now.Sub(noon).Minutes()), ask.Message.FPort, ask.Message.Payload))
	a.sent[m.gateway] = append(a.sent[m.gateway], a.now)
	id := network.MessageID(fmt.Sprint(len(a.log)))
	a.d.Sent(ask, id)
	fate := network.Event{Kind: network.EventSent, Device: m.eui, At: a.now.Add(time.Second), Message: id}
	if a.reason != "" {
		fate.Kind, fate.Reason = network.EventDropped, a.reason
	}
	if !a.mute {
		a.d.Heard(a.now.Add(time.Second), fate)
	}
	if m.deaf > 0 || a.reason != "" {
		m.deaf--
		return
	}
	for _, ans := range m.answer(ask.Message) {
		if m.slow > 0 {
			a.answers = append(a.answers, slowAnswer{a.now.Add(m.slow), m, ask.Message.FPort, ans})
			continue
		}
		a.now = a.now.Add(2 * time.Second)
		a.up(m, ask.Message.FPort, ans)
	}
}

// answer is what the device says to a message.
func (m *meter) answer(msg network.Message) (out [][]byte) {
	if msg.FPort != applayer.FPortMultiPackage {
		if ans, ok := m.ports[msg.FPort]; ok {
			out = append(out, []byte(ans))
		}
		return out
	}
	if m.offers == nil {
		return nil
	}
	versions := multipackage.Versions{1, 1, 1, 1, 1}
	req, err := multipackage.ParseMessage(versions, applayer.Downlink, msg.Payload)
	if err != nil {
		panic(err)
	}
	var cmds []applayer.Command
	for _, c := range req.Commands {
		switch c.(type) {
		case multipackage.DevPackageReq:
			cmds = append(cmds, multipackage.DevPackageAns{Packages: m.offers})
		case fwmgmt.DevVersionReq:
			if m.mum {
				continue
			}
			cmds = append(cmds, fwmgmt.DevVersionAns{FWVersion: uint32(v110), HWVersion: 1})
		}
	}
	buffer := must(multipackage.AppendCommands(nil, versions, cmds))
	if m.uplink == 0 {
		return [][]byte{append(buffer, req.Token)}
	}
	parts, err := multipackage.Split(buffer, m.uplink, req.Token)
	if err != nil {
		panic(err)
	}
	return parts
}

// all are the packages of a complete device.
func all(v applayer.Version) []multipackage.DevPackage {
	return []multipackage.DevPackage{{PackageIdentifier: 0, PackageVersion: 1, FPort: 225}, {PackageIdentifier: 1, PackageVersion: v, FPort: 202},
		{PackageIdentifier: 2, PackageVersion: v, FPort: 200}, {PackageIdentifier: 3, PackageVersion: v, FPort: 201}, {PackageIdentifier: 4, PackageVersion: 1, FPort: 203}}
}

// plain answers on the ports of the packages, without TS007.
func plain() map[uint8]string {
	return map[uint8]string{200: "\x00\x02\x01", 201: "\x00\x03\x01", 202: "\x00\x01\x01", 203: "\x01" + string([]byte{0, 0, 1, 1, 0, 0, 0, 0})}
}

// counts is the state of a discovery in numbers.
type counts struct{ Sent, Known, Silent, Asked, Unheard int }

func count(d *inventory.Discovery) counts {
	st := d.State()
	return counts{st.Sent, len(st.Known), len(st.Silent), len(st.Asked), len(st.Unheard)}
}

func options() inventory.DiscoveryOptions {
	return inventory.DiscoveryOptions{Until: noon.Add(24 * time.Hour), MaxAge: 24 * time.Hour}
}

func TestDiscovery(t *testing.T) {
	const whole, old = "TS003 v2:202 TS004 v2:201 TS005 v2:200 TS006 v1:203 TS007 v1:225", "TS003 v1:202 TS004 v1:201 TS005 v1:200"
	for _, tt := range []struct {
		name  string
		meter meter
		log   string
		known string // packages
		state counts
	}{
		{"TS007 tells everything", meter{offers: all(2)}, "0 225 01840100", "1.1.0 v2 " + whole, counts{Sent: 1, Known: 1}},
		{"TS007 in pieces of 11 bytes", meter{offers: all(2), uplink: 11}, "0 225 01840100", "1.1.0 v2 " + whole, counts{Sent: 1, Known: 1}},
		{"a question is lost", meter{offers: all(2), deaf: 1}, "0 225 01840100, 10 225 01840101", "1.1.0 v2 " + whole, counts{Sent: 2, Known: 1}},
		{"the answer takes four minutes", meter{offers: all(2), slow: 4 * time.Minute, period: 2 * time.Minute}, "0 225 01840100", "1.1.0 v2 " + whole, counts{Sent: 1, Known: 1}},
		{"others overtake the answer", meter{offers: all(2), deaf: 1, period: 30 * time.Second}, "0 225 01840100, 1 225 01840101", "1.1.0 v2 " + whole, counts{Sent: 2, Known: 1}},
		{"an answer within a minute", meter{offers: all(2), slow: 50 * time.Second, period: 10 * time.Second}, "0 225 01840100", "1.1.0 v2 " + whole, counts{Sent: 1, Known: 1}},
		{"the version is in uplinks", meter{offers: all(2), reports: true}, "0 225 0100", "1.1.0 v2 " + whole, counts{Sent: 1, Known: 1}},
		{"no TS006", meter{offers: all(2)[:4], mum: true}, "0 225 01840100", "? v2 TS003 v2:202 TS004 v2:201 TS005 v2:200 TS006 none TS007 v1:225", counts{Sent: 1, Known: 1}},
		{"TS006 answers on its own port only", meter{offers: all(2), mum: true, ports: plain()}, "0 225 01840100, 10 203 01", "1.1.0 v2 " + whole, counts{Sent: 2, Known: 1}},
		{"no TS007", meter{ports: plain()}, "0 225 01840100, 10 225 01840101, 20 201 00, 20 203 01, 20 200 00, 20 202 00", "1.1.0 v1 " + old, counts{Sent: 6, Known: 1}},
		{"TS006 elsewhere", meter{offers: []multipackage.DevPackage{{PackageIdentifier: 3, PackageVersion: 1, FPort: 201}, {PackageIdentifier: 4, PackageVersion: 1, FPort: 77}},
			deaf: 0, ports: plain()}, "0 225 01840100", "1.1.0 v1 TS003 none TS004 v1:201 TS005 none TS006 v1:77 TS007 v1:225", counts{Sent: 1, Known: 1}},
		{"nothing", meter{}, "0 225 01840100, 10 225 01840101, 20 201 00, 30 201 00, 40 203 01, 50 203 01, 60 200 00, 70 200 00, 80 202 00, 90 202 00", "? ?",
			counts{Sent: 10, Silent: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, inv := newAir(t, options(), &tt.meter)
			a.run(5 * time.Hour)
			if got := strings.Join(a.log, ", "); got != tt.log {
				t.Errorf("asked %s\nwant %s", got, tt.log)
			}
			if got := facts(inv.Devices()[0]); got != tt.known {
				t.Errorf("known: %s, want %s", got, tt.known)
			}
			if st := count(a.d); st != tt.state || !a.d.Over() {
				t.Errorf("%+v, over %v; want %+v", st, a.d.Over(), tt.state)
			}
		})
	}
}

// facts is what is known of version and packages.
func facts(d *inventory.Device) string {
	var out []string
	for _, f := range []struct {
		known bool
		text  string
	}{{d.Version.Known(), d.Version.Value.String()}, {d.Packages.Known(), d.Packages.Value.String()}} {
		if !f.known {
			f.text = "?"
		}
		out = append(out, f.text)
	}
	for _, id := range []applayer.PackageID{applayer.ClockSync, applayer.DataBlock, applayer.McSetup, applayer.FwMgmt, applayer.MultiPackage} {
		if o := d.Offers[id]; o.Known() {
			out = append(out, id.String()+" "+o.Value.String())
		}
	}
	return strings.Join(out, " ")
}

// TestDiscoveryAsksWhereThePackageIs has a device that tells its ports and not its firmware.
func TestDiscoveryAsksWhereThePackageIs(t *testing.T) {
	m := &meter{offers: []multipackage.DevPackage{{PackageIdentifier: 4, PackageVersion: 1, FPort: 77}}, ports: map[uint8]string{77: plain()[203]}}
	a, inv := newAir(t, options(), m)
	inv.Heard(network.Event{Kind: network.EventUplink, Device: m.eui, At: noon.Add(-time.Minute), FPort: 225,
		Payload: must(multipackage.AppendMessage(nil, multipackage.Versions{1}, multipackage.Message{Commands: []applayer.Command{multipackage.DevPackageAns{Packages: m.offers}}}))})
	a.run(time.Hour)
	if got := strings.Join(a.log, ", "); got != "0 77 01" || inv.Devices()[0].Version.Value != v110 {
		t.Errorf("asked %s, known %s", got, facts(inv.Devices()[0]))
	}
}

// TestDiscoveryIsPolite has forty devices behind two gateways that all report within a minute.
func TestDiscoveryIsPolite(t *testing.T) {
	opt := options()
	const rest = 90 * time.Second
	opt.Rest = func(region string, dataRate, payload int) time.Duration {
		if region != "EU868" || dataRate != 5 || payload < 1 || payload > inventory.LongestQuestion {
			t.Errorf("%d bytes at DR%d of %q", payload, dataRate, region)
		}
		return rest
	}
	var meters []*meter
	for i := range 40 {
		meters = append(meters, &meter{offers: all(1), gateway: network.EUI64{byte(i % 2)}, period: 5 * time.Minute})
	}
	a, _ := newAir(t, opt, meters...)
	a.run(20 * time.Hour)
	if st := count(a.d); st.Known != 40 || st.Sent != 40 {
		t.Errorf("%+v, want 40 known by as many messages", st)
	}
	for g, at := range a.sent {
		for i := range at[1:] {
			if gap := at[i+1].Sub(at[i]); gap < rest {
				t.Fatalf("gateway %s sends again after %s", g, gap)
			}
		}
	}
	// Without rest the number of answers that may be on the air is the limit.
	opt.Rest, opt.Flight = nil, 3
	for _, m := range meters {
		m.offers = nil
	}
	a, _ = newAir(t, opt, meters...)
	a.run(4 * time.Minute)
	if len(a.log) != 3 {
		t.Errorf("%d questions at once, want 3", len(a.log))
	}
}

// TestDiscoveryGoesOn begins again with what a file has kept.
func TestDiscoveryGoesOn(t *testing.T) {
	meters := []*meter{{offers: all(2)}, {ports: plain()}, {offers: all(2), period: 100 * time.Hour}}
	meters[2].deaf = 1
	a, inv := newAir(t, options(), meters...)
	a.run(2 * time.Hour)
	if st := count(a.d); st != (counts{Sent: 8, Known: 2, Asked: 1}) || a.d.Over() {
		t.Errorf("first run: %+v", st)
	}
	if left := a.d.State().Asked; left[0].EUI != meters[2].eui {
		t.Errorf("device %s is left", left[0].EUI)
	}
	var file bytes.Buffer
	if err := inv.WriteCSV(&file); err != nil {
		t.Fatal(err)
	}
	b, inv2 := newAir(t, options(), meters...)
	if _, lines := inv2.ReadCSV(&file); len(lines) > 0 {
		t.Fatal(lines)
	}
	b.now = a.now
	for _, m := range meters {
		m.next = a.now.Add(time.Second)
	}
	b.run(time.Hour)
	if st := count(b.d); st != (counts{Sent: 1, Known: 3}) {
		t.Errorf("second run: %+v, want one question to the device that was left", st)
	}
	// Old facts are asked for again.
	opt := options()
	opt.MaxAge = time.Minute
	c, inv3 := newAir(t, opt, meters[:1]...)
	var again bytes.Buffer
	if err := inv2.WriteCSV(&again); err != nil {
		t.Fatal(err)
	}
	if _, lines := inv3.ReadCSV(&again); len(lines) > 0 {
		t.Fatal(lines)
	}
	c.now, meters[0].next = b.now, b.now
	c.run(time.Second)
	if len(c.log) != 1 {
		t.Errorf("asked %v, want again what is an hour old", c.log)
	}
}

func TestDiscoveryEnds(t *testing.T) {
	opt := options()
	opt.Until = noon.Add(15 * time.Minute)
	m := &meter{}
	a, _ := newAir(t, opt, m)
	a.run(5 * time.Hour)
	if got := strings.Join(a.log, ", "); got != "0 225 01840100, 10 225 01840101" {
		t.Errorf("asked %s after the end", got)
	}
	ask, ok := inventory.NewDiscovery(noon, invOf(t, m.eui), []network.EUI64{m.eui}, opt).Heard(noon, network.Event{Kind: network.EventUplink, Device: m.eui, At: noon})
	if !ok || !ask.Message.Expires.Equal(opt.Until) {
		t.Errorf("%+v %v: it would wait for ever", ask, ok)
	}
}

func invOf(t *testing.T, eui network.EUI64) *inventory.Inventory {
	inv := inventory.New(inventory.Options{})
	if err := inv.Add(network.Device{EUI: eui, Battery: -1}); err != nil {
		t.Fatal(err)
	}
	return inv
}

// TestDiscoveryWithoutLuck has events that are late or missing, and messages that are dropped.
func TestDiscoveryWithoutLuck(t *testing.T) {
	for _, wrong := range []time.Duration{-50 * 365 * 24 * time.Hour, -time.Hour, time.Hour, 365 * 24 * time.Hour} {
		t.Run("the clock of the gateway is wrong by "+wrong.String(), func(t *testing.T) {
			a, inv := newAir(t, options(), &meter{ports: plain()}, &meter{offers: all(2)})
			a.wrong = wrong
			a.run(24 * time.Hour)
			if st := count(a.d); st != (counts{Sent: 7, Known: 2}) || inv.Devices()[0].Version.Value != v110 {
				t.Errorf("%+v: %v", st, a.log)
			}
		})
	}
	t.Run("no word of a delivery", func(t *testing.T) {
		a, _ := newAir(t, options(), &meter{})
		a.mute = true
		a.run(24 * time.Hour)
		if st := count(a.d); st != (counts{Sent: 10, Silent: 1}) {
			t.Errorf("%+v", st)
		}
	})
	t.Run("expired", func(t *testing.T) {
		a, _ := newAir(t, options(), &meter{})
		a.reason = "EXPIRED"
		a.run(time.Hour)
		if got := strings.Join(a.log[:3], ", "); got != "0 225 01840100, 10 225 01840100, 20 225 01840100" {
			t.Errorf("asked %s, want the same again: it was never delivered", got)
		}
	})
	t.Run("too long", func(t *testing.T) {
		a, _ := newAir(t, options(), &meter{})
		a.reason = "DOWNLINK_PAYLOAD_SIZE"
		a.run(5 * time.Hour)
		if st := count(a.d); st != (counts{Sent: 5, Silent: 1}) {
			t.Errorf("%+v, want each question once", st)
		}
	})
	t.Run("joined again", func(t *testing.T) {
		m := &meter{}
		a, _ := newAir(t, options(), m)
		a.mute = true
		a.run(time.Minute)
		a.d.Heard(a.now, network.Event{Kind: network.EventJoin, Device: m.eui, At: a.now})
		if a.run(10 * time.Minute); len(a.log) != 2 {
			t.Errorf("asked %v, want again after the join", a.log)
		}
	})
	t.Run("others", func(t *testing.T) {
		a, _ := newAir(t, options(), &meter{})
		stranger := network.Event{Kind: network.EventUplink, Device: network.EUI64{9}, At: noon}
		if _, ok := a.d.Heard(noon, stranger); ok {
			t.Error("a stranger is asked")
		}
		if d := inventory.NewDiscovery(noon, inventory.New(inventory.Options{}), []network.EUI64{{9}}, options()); count(d) != (counts{}) {
			t.Errorf("%+v of a device that is not there", count(d))
		}
	})
}

// TestUpdateCSVKeepsOthers replaces a file that has more in it.
func TestUpdateCSVKeepsOthers(t *testing.T) {
	const old = "# kept by hand\n# since 2020\nversion,dev_eui,base_sha256\n1.0.0,0000000000000009,0102030405060708\n0.9.0," + "70b3000000000000" + ",\nlost,xyz,\n"
	inv, d := fresh(t, nil, inventory.Options{})
	d.Version.Offer(v110, inventory.FromTS006, noon)
	d.Offers[applayer.FwMgmt].Offer(inventory.Offer{Version: 1, FPort: 203}, inventory.FromTS007, noon)
	var out bytes.Buffer
	if err := inv.UpdateCSV(&out, []byte(old)); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "# kept by hand\n# since 2020\ndev_eui,name,version,") || strings.Contains(out.String(), "0.9.0") || strings.Contains(out.String(), "xyz") {
		t.Errorf("%s", out.String())
	}
	both := inventory.New(inventory.Options{})
	for _, eui := range []network.EUI64{dev, {7: 9}} {
		if err := both.Add(network.Device{EUI: eui, Battery: -1}); err != nil {
			t.Fatal(err)
		}
	}
	if strangers, lines := both.ReadCSV(bytes.NewReader(out.Bytes())); strangers != 0 || len(lines) > 0 {
		t.Fatalf("%d, %v in\n%s", strangers, lines, out.String())
	}
	other, mine := both.Device(network.EUI64{7: 9}), both.Device(dev)
	if other.Version.Value != bundle.MakeVersion(1, 0, 0) || other.Base.Value.String() != "0102030405060708" || other.Version.Source != inventory.FromCSV {
		t.Errorf("the other device: %+v", other)
	}
	if mine.Version != d.Version || mine.Offers != d.Offers {
		t.Errorf("this device: %+v", mine)
	}
	for name, broken := range map[string]string{"quote": "dev_eui\n\"x\n", "no head": "\"\n"} {
		if err := inv.UpdateCSV(&out, []byte(broken)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStatusTellsTheBattery(t *testing.T) {
	inv, d := fresh(t, nil, inventory.Options{})
	inv.Heard(network.Event{Kind: network.EventStatus, Device: dev, At: noon, Battery: 42})
	inv.Heard(network.Event{Kind: network.EventStatus, Device: dev, At: noon.Add(time.Hour), Battery: -1})
	if d.Battery != (inventory.Fact[int]{Value: 42, Source: inventory.FromStatus, At: noon}) {
		t.Errorf("%+v", d.Battery)
	}
}
