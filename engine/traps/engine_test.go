package traps_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/gw"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/applayer"
	"github.com/sower-fuota/sower/applayer/datablock"
	"github.com/sower-fuota/sower/applayer/diag"
	"github.com/sower-fuota/sower/applayer/mcsetup"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/model"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

// The defences of the engine are how its machines work, and cannot be switched off one by one. The tests put
// something between engine and server in their place that does to a campaign what an engine without the defence
// would do to itself.
var engineTraps = []trap{
	{"0.4, 4.2, 5", "sessions end before the queue is sent, and groups are deleted early", "plan.Make counts gateways; session waits for its frames", "", threeGateways},
	{"0.6, 2.3", "it counts no duty cycle", "plan.Make paces", "", dutyCycle},
	{"0.3, 2.4", "frames that gateways refuse are neither told nor repeated", "session repairs, and says why", "", refusedAndRepaired},
	{"0.10, 6.2", "the server answers the clock, and so does the engine", "session asks Capabilities", "", clockOnce},
	{"1.3, 5", "one device without keys stops the others", "session, ROOT_KEY_MISSING for that one", "", oneWithoutKey},
	{"3.2, 6.2", "events are lost, doubled and unordered", "session asks again, takes each answer once", "", lossyEvents},
	{"4.2", "an error of Enqueue is not looked at", "run repeats, and asks after what is uncertain", "", failingCalls},
	{"4.2, 6.2", "the server restarts in mid-campaign", "run repeats", "", restarted},
	{"4.2", "of two answers in one message the first is taken", "applayer, session take all", "", twoAnswers},
	{"4.1", "answers are taken whatever group and session they are for", "session checks McGroupID and FragIndex", "", foreignAnswers},
	{"4.3", "the start of the session is another one at each attempt", "session announces one start", "", oneStart},
	{"4.2, 5", "session index and descriptor are sent as zeros", "session.Spec", "", indexAndDescriptor},
	{"4.2", "a margin of less than a second counts as none in the time-out", "plan.Make", "", shortMargin},
	{"4.2", "more than 16383 fragments, or fragments of no size, are not refused", "plan.Make", "", tooManyFragments},
	{"4.2", "commands pile up for a device that sleeps", "run and session: one at a time, with an expiry", "", sleeper},
	{"4.2", "groups and queues stay behind", "session closes its group", "", nothingLeft},
	{"4.2", "decoded counts as updated", "session wants the running version", "", decodedIsNotUpdated},
}

// between is the network with some of its calls changed.
type between struct {
	network.Network
	capabilities func(network.Capabilities) network.Capabilities
	rootKey      func(network.Key, error) (network.Key, error)
	send         func(network.Message) (network.Message, bool) // false: not passed on
	broadcast    func(fCnt uint32, err error) (uint32, error)
	event        func(network.Event) []network.Event
	keepGroups   bool
}

func (b *between) Capabilities(ctx context.Context) (network.Capabilities, error) {
	caps, err := b.Network.Capabilities(ctx)
	if b.capabilities != nil {
		caps = b.capabilities(caps)
	}
	return caps, err
}

func (b *between) RootKey(ctx context.Context, device network.EUI64) (network.Key, error) {
	key, err := b.Network.RootKey(ctx, device)
	if b.rootKey != nil {
		return b.rootKey(key, err)
	}
	return key, err
}

func (b *between) Send(ctx context.Context, m network.Message) (network.MessageID, error) {
	if b.send != nil {
		var ok bool
		if m, ok = b.send(m); !ok {
			return "swallowed", nil
		}
	}
	return b.Network.Send(ctx, m)
}

func (b *between) Broadcast(ctx context.Context, m network.Broadcast) (uint32, error) {
	fCnt, err := b.Network.Broadcast(ctx, m)
	if b.broadcast != nil {
		return b.broadcast(fCnt, err)
	}
	return fCnt, err
}

func (b *between) CloseGroup(ctx context.Context, id network.GroupID) error {
	if b.keepGroups {
		return nil
	}
	return b.Network.CloseGroup(ctx, id)
}

func (b *between) Events(ctx context.Context, application string) (<-chan network.Event, error) {
	in, err := b.Network.Events(ctx, application)
	if err != nil || b.event == nil {
		return in, err
	}
	out := make(chan network.Event)
	go func() {
		defer close(out)
		for ev := range in {
			list := b.event(ev)
			if len(list) == 0 {
				ev.Done()
				continue
			}
			// The world waits until the last has been dealt with.
			var left sync.WaitGroup
			for _, next := range list {
				left.Add(1)
				next.Done = sync.OnceFunc(left.Done)
				select {
				case out <- next:
				case <-ctx.Done():
					left.Done()
				}
			}
			go func() {
				left.Wait()
				ev.Done()
			}()
		}
	}()
	return out, nil
}

// when puts something between engine and server.
func when(naive bool, change func(*between)) func(network.Network) network.Network {
	return func(n network.Network) network.Network {
		b := &between{Network: n}
		if naive {
			change(b)
		}
		return b
	}
}

// threeGateways wants every frame that was broadcast sent by each of three gateways, within the first window, before
// the group goes. ChirpStack's own FUOTA reckons with one gateway and queues everything at once.
func threeGateways(p *probe) error {
	o := order{gateways: 3}
	if p.naive {
		o.input = func(in *plan.Input) { in.Gateways = 1 }
		o.client = func(c *chirpstack.Config) { c.Queue = 10_000 }
	}
	r := p.campaign(o)
	sent := map[uint32]int{}
	for _, f := range r.air.frames {
		sent[counter(f)]++
		if at := f.End.Sub(epoch); at > r.closed || f.End.After(r.progress.End) || f.Start.Before(r.progress.Start.Add(time.Second)) {
			return errorf("frame %d ended at %s, the window at %s, the group at %s", counter(f), at, r.progress.End.Sub(epoch), r.closed)
		}
	}
	for fCnt := range r.broadcasts() {
		if sent[fCnt] != 3 {
			return errorf("of %d frames number %d was sent by %d gateways, want 3, before the group was deleted", len(r.broadcasts()), fCnt, sent[fCnt])
		}
	}
	if r.progress.Window != 1 || r.updated() != 4 {
		return errorf("%d devices updated after %d windows, want 4 after 1", r.updated(), r.progress.Window)
	}
	return nil
}

// dutyCycle wants no gateway to send more than 10 % in any five minutes of the session. The server is told to space
// by 200 ms, as people do who find it slow.
func dutyCycle(p *probe) error {
	o := order{server: func(c *networkserver.Config) {
		c.ClassCMargin, c.SchedulerInterval = 200*time.Millisecond, 100*time.Millisecond
	},
		input: func(in *plan.Input) { in.Spacing = 200 * time.Millisecond }}
	if p.naive {
		o.plan = func(p *plan.Plan) { p.Pace = 2 * time.Second }
	}
	r := p.campaign(o)
	const window = time.Minute
	for i, first := range r.air.frames {
		var on time.Duration
		for _, f := range r.air.frames[i:] {
			if f.End.After(first.Start.Add(window)) {
				break
			}
			on += f.End.Sub(f.Start)
		}
		if share := on.Seconds() / window.Seconds(); share > 0.105 { // a frame more or less falls into the window
			return errorf("%.1f %% of a minute in a sub-band of 10 %%", 100*share)
		}
	}
	if r.updated() != 4 {
		return errorf("%d devices updated, want 4", r.updated())
	}
	return nil
}

// refusedAndRepaired has the only gateway refuse a tenth of the frames for its duty cycle.
func refusedAndRepaired(p *probe) error {
	o := order{server: func(c *networkserver.Config) {
		c.Faults.Acks = []networkserver.AckFault{{Multicast: true, Share: 0.1, Status: gw.TxAckStatus_DUTY_CYCLE_OVERFLOW}}
	}}
	if p.naive {
		o.client = func(c *chirpstack.Config) { c.GatewayTopics = "" }
	}
	r := p.campaign(o)
	told := 0
	for _, en := range r.log {
		if en.Kind == "dropped" && en.Text == "DUTY_CYCLE_OVERFLOW" && en.Gateway != nil && *en.Gateway == gatewayID(0) {
			told++
		}
	}
	if missing := len(r.broadcasts()) - len(r.air.counters()); missing == 0 || told != missing || r.updated() != 4 {
		return errorf("%d frames were refused, %d were told, %d of 4 devices updated", missing, told, r.updated())
	}
	return nil
}

func clockOnce(p *probe) error {
	answers := 0
	r := p.campaign(order{server: func(c *networkserver.Config) { c.Profiles[0].ClockSync = api.Ts003Version_TS003_v200 },
		wrap: func(n network.Network) network.Network {
			b := &between{Network: n}
			b.send = func(m network.Message) (network.Message, bool) {
				if m.FPort == 202 && len(m.Payload) > 0 && m.Payload[0] == 0x01 { // AppTimeAns
					answers++
				}
				return m, true
			}
			if p.naive {
				b.capabilities = func(c network.Capabilities) network.Capabilities { c.ServerAnswersClock = false; return c }
			}
			return b
		}})
	if answers > 0 || r.updated() != 4 {
		return errorf("the engine has answered the time %d times beside the server; %d of 4 devices updated", answers, r.updated())
	}
	return nil
}

func oneWithoutKey(p *probe) error {
	r := p.campaign(order{server: func(c *networkserver.Config) { c.Devices[1].Keys.GenAppKey = [16]byte{} },
		wrap: when(p.naive, func(b *between) {
			b.rootKey = func(key network.Key, err error) (network.Key, error) {
				if err != nil { // the whole step is tried again
					err = network.ErrUnavailable
				}
				return key, err
			}
		})})
	if r.updated() != 3 || r.rows[1].Stage != session.StageFailed || r.rows[1].Cause != diag.CauseRootKeyMissing.String() {
		return errorf("%d of the 3 others updated, the one without a key is %s (%q)", r.updated(), r.rows[1].Stage, r.rows[1].Cause)
	}
	return nil
}

// lossyEvents also wants every fragment to be sent once, whatever came twice.
func lossyEvents(p *probe) error {
	once := map[network.EUI64]map[byte]bool{}
	r := p.campaign(order{server: func(c *networkserver.Config) {
		c.Faults.Events = networkserver.EventFaults{Loss: 0.2, Duplicate: 0.3, Jitter: 3 * time.Second}
	}, wrap: when(p.naive, func(b *between) {
		b.send = func(m network.Message) (network.Message, bool) { // each command once
			if once[m.Device] == nil {
				once[m.Device] = map[byte]bool{}
			}
			k := m.FPort ^ m.Payload[0]<<3
			first := !once[m.Device][k]
			once[m.Device][k] = true
			return m, first
		}
	})})
	if r.updated() != 4 {
		return errorf("%d of 4 devices updated", r.updated())
	}
	return nil
}

// failingCalls wants what the engine believes to have sent to be what was on the air.
func failingCalls(p *probe) error {
	next := uint32(0)
	r := p.campaign(order{server: func(c *networkserver.Config) {
		c.Faults.Calls = []networkserver.CallFault{{Share: 0.07, Effect: networkserver.Unavailable}, {Share: 0.07, Effect: networkserver.ReplyLost},
			{Share: 0.07, Effect: networkserver.Locked}}
		c.Faults.Calls[0].First, c.Faults.Calls[1].First, c.Faults.Calls[2].First = 20, 20, 20
	}, wrap: when(p.naive, func(b *between) {
		b.broadcast = func(fCnt uint32, err error) (uint32, error) {
			if err != nil {
				fCnt = next
			}
			next = fCnt + 1
			return fCnt, nil
		}
	})})
	believed, air := r.broadcasts(), r.air.counters()
	// A reply that was lost is found out, but nothing forbids a frame between.
	for fCnt := range believed {
		if !slices.Contains(air, fCnt) {
			return errorf("frame %d is believed to be sent and was not", fCnt)
		}
	}
	if r.updated() != 4 || r.groups != 0 || len(air) != len(believed) {
		return errorf("%d of 4 devices updated, %d groups left, %d frames on the air and %d known", r.updated(), r.groups, len(air), len(believed))
	}
	return nil
}

// restarted has the server away for 20 s after some of the frames, each time with a frame on its way.
func restarted(p *probe) error {
	r := p.campaign(order{restarts: []int{4, 9, 15}, wrap: when(p.naive, func(b *between) {
		b.broadcast = func(fCnt uint32, err error) (uint32, error) {
			if isUnavailable(err) || isUncertain(err) {
				err = network.ErrInvalid
			}
			return fCnt, err
		}
		b.rootKey = func(key network.Key, err error) (network.Key, error) {
			if err != nil {
				err = network.ErrInvalid
			}
			return key, err
		}
	})})
	retried, failed := 0, 0
	for _, en := range r.log {
		switch en.Kind {
		case "retry":
			retried++
		case "failed":
			if !strings.Contains(en.Text, "expired") { // a frame whose time has passed is not sent any more
				failed++
			}
		}
	}
	if r.updated() != 4 || r.groups != 0 || retried+failed == 0 || failed > 0 {
		return errorf("%d of 4 devices updated, %d groups left, %d calls repeated and %d given up", r.updated(), r.groups, retried, failed)
	}
	return nil
}

// twoAnswers puts a second PackageVersionAns before everything that devices say of TS005.
func twoAnswers(p *probe) error {
	extra := []byte{0x00, 2, 2}
	r := p.campaign(order{wrap: when(true, func(b *between) {
		b.event = func(ev network.Event) []network.Event {
			if ev.Kind == network.EventUplink && ev.FPort == 200 && len(ev.Payload) > 0 && ev.Payload[0] != 0 {
				if ev.Payload = append(slices.Clone(extra), ev.Payload...); p.naive {
					ev.Payload = ev.Payload[:len(extra)]
				}
			}
			return []network.Event{ev}
		}
	})})
	if r.updated() != 4 {
		return errorf("%d of 4 devices updated", r.updated())
	}
	return nil
}

// foreignAnswers has a device that is deaf while the session lasts, and for which somebody claims that it has all of
// session 3, of which the engine knows nothing.
func foreignAnswers(p *probe) error {
	index := uint8(3)
	if p.naive { // an engine that does not look at the index reads this
		index = 1
	}
	claim, err := datablock.AppendCommand(nil, applayer.V2, datablock.FragDataBlockReceivedReq{FragIndex: index})
	if err != nil {
		p.t.Fatal(err)
	}
	claims := 0
	r := p.campaign(order{deaf: true, limit: 3 * time.Hour, wrap: when(true, func(b *between) {
		b.event = func(ev network.Event) []network.Event {
			if ev.Kind != network.EventUplink || ev.Device != eui(0) {
				return []network.Event{ev}
			}
			claims++
			other := ev
			other.ID += "/claim"
			other.FPort, other.Payload = 201, claim
			return []network.Event{ev, other}
		}
	})})
	if claims == 0 || r.updated() != 3 {
		return errorf("%d of 3 other devices updated, %d claims", r.updated(), claims)
	}
	// A device that says nothing when it is asked is presumed to be complete, until it proves its version.
	claimed := map[time.Time]bool{}
	for _, en := range r.log {
		switch {
		case en.Device == nil || *en.Device != eui(0):
		case en.Kind == "uplink" && bytes.Equal(en.Payload, claim):
			claimed[en.Time] = true
		case en.Kind == "stage" && en.Stage == session.StageComplete.String() && claimed[en.Time]:
			return errorf("a claim for session %d counted", index)
		}
	}
	return nil
}

// sleeper has a device that is switched on late. What was queued for it meanwhile must not all be sent to it.
func sleeper(p *probe) error {
	r := p.campaign(order{
		device: func(i int, d *fleet.DeviceConfig) {
			if i == 0 {
				d.PowerUp = 100 * time.Minute
			}
		},
		wrap: when(p.naive, func(b *between) {
			b.send = func(m network.Message) (network.Message, bool) { m.Expires = time.Time{}; return m, true }
		})})
	command, sent := map[network.MessageID]string{}, map[string]int{}
	for _, en := range r.log {
		switch {
		case en.Device == nil || *en.Device != eui(0):
		case en.Kind == "send":
			command[en.Message] = en.Command
		case en.Kind == "sent":
			sent[command[en.Message]]++
		}
	}
	queued := len(command)
	for name, n := range sent {
		if n > 2 { // the last that was queued while it slept, and the one that answers its join
			return errorf("%s was sent %d times to a device that had slept, of %d commands queued", name, n, queued)
		}
	}
	if queued < 3 || len(sent) == 0 || r.updated() < 3 {
		return errorf("%d commands were queued and %d sent; %d of 3 other devices updated", queued, len(sent), r.updated())
	}
	return nil
}

func nothingLeft(p *probe) error {
	r := p.campaign(order{wrap: when(p.naive, func(b *between) { b.keepGroups = true })})
	if r.groups != 0 || r.waiting != 0 || r.updated() != 4 {
		return errorf("%d groups and %d unicast messages left, %d of 4 devices updated", r.groups, r.waiting, r.updated())
	}
	return nil
}

// decodedIsNotUpdated has a device that receives everything and goes back to its old image.
func decodedIsNotUpdated(p *probe) error {
	r := p.campaign(order{fault: func(i int) model.Fault {
		if i == 1 {
			return model.Fault{RollsBack: diag.CauseSelfTestFailed}
		}
		return model.Fault{}
	}})
	for i, row := range r.rows {
		believed := row.Stage == session.StageUpdated
		if p.naive {
			believed = r.reached(row.EUI, session.StageComplete)
		}
		if believed != (r.runs[i] == newVersion) {
			return errorf("device %s runs %08x, believed to be updated: %v", row.EUI, r.runs[i], believed)
		}
	}
	return nil
}

// commands runs a campaign in which events are lost, and returns all messages with a command identifier to a port.
func commands(p *probe, port uint8, cid byte, change func(attempt int, m *network.Message)) (list [][]byte, r result) {
	attempts := map[network.EUI64]int{}
	r = p.campaign(order{server: func(c *networkserver.Config) { c.Faults.Events.Loss = 0.3 }, wrap: when(true, func(b *between) {
		b.send = func(m network.Message) (network.Message, bool) {
			if m.FPort == port && m.Payload[0] == cid {
				if p.naive {
					m.Payload = slices.Clone(m.Payload)
					change(attempts[m.Device], &m)
				}
				attempts[m.Device]++
				list = append(list, m.Payload)
			}
			return m, true
		}
	})})
	return list, r
}

func oneStart(p *probe) error {
	list, r := commands(p, applayer.FPortMcSetup, 0x04, func(attempt int, m *network.Message) { m.Payload[2] += byte(attempt) })
	starts := map[uint32]int{}
	for _, b := range list {
		cmd, _, err := mcsetup.ParseCommand(applayer.V2, applayer.Downlink, b)
		if err != nil {
			p.t.Fatal(err)
		}
		starts[cmd.(mcsetup.McClassCSessionReq).SessionTime]++
	}
	if len(starts) > r.progress.Window || len(list) <= 4 {
		return errorf("%d starts of %d windows were announced in %d requests", len(starts), r.progress.Window, len(list))
	}
	return nil
}

func indexAndDescriptor(p *probe) error {
	list, _ := commands(p, applayer.FPortDataBlock, 0x02, func(_ int, m *network.Message) {
		m.Payload[1] &= 0x0f
		clear(m.Payload[7:11])
	})
	for _, b := range list {
		cmd, _, err := datablock.ParseCommand(applayer.V2, applayer.Downlink, b)
		if err != nil {
			p.t.Fatal(err)
		}
		if req := cmd.(datablock.FragSessionSetupReq); req.Descriptor != [4]byte{0xde, 0x5c, 1, 2} || req.FragIndex != 1 || req.McGroupBitMask != 1<<2 {
			return errorf("session %d, groups %04b and descriptor %x in a FragSessionSetupReq, want 1, 0100 and de5c0102", req.FragIndex, req.McGroupBitMask, req.Descriptor)
		}
	}
	if len(list) < 4 {
		return errorf("%d requests", len(list))
	}
	return nil
}

func tooManyFragments(p *probe) error {
	key, err := bundle.GenerateKey()
	if err != nil {
		p.t.Fatal(err)
	}
	big := make([]byte, 900_000)
	b, err := bundle.Sign(bundle.Manifest{Codec: bundle.CodecFull, KeyID: 1, Version: newVersion, Sequence: 2, NewSize: uint32(len(big))}, big, key)
	if err != nil {
		p.t.Fatal(err)
	}
	in := plan.Input{Block: b, Region: airtime.EU868, DataRate: 0, Devices: 1, Matrix: fragmentation.V2, Repeater: true}
	pl, err := plan.Make(in)
	if p.naive {
		pl, err = plan.Plan{M: (len(b) + 47) / 48, FragSize: 48}, nil
	}
	if err == nil && (pl.M > 16383 || pl.FragSize == 0) {
		return errorf("%d fragments of %d bytes", pl.M, pl.FragSize)
	}
	return nil
}

// shortMargin plans for a server that spaces by 700 ms, as people do who find it slow.
func shortMargin(p *probe) error {
	b, err := block()
	if err != nil {
		p.t.Fatal(err)
	}
	pl, err := plan.Make(plan.Input{Block: b, Region: airtime.EU868, DataRate: mcDR, Devices: 4, Gateways: 3, Matrix: fragmentation.V2,
		Spacing: 700 * time.Millisecond, Repeater: true})
	if err != nil {
		return err
	}
	if p.naive {
		pl.TimeOut = 0 // the logarithm of no seconds
	}
	if needs := time.Duration(pl.M+pl.Parity) * pl.Pace; pl.Pace < 2100*time.Millisecond || time.Second<<pl.TimeOut < needs {
		return errorf("a time-out of %s for %d frames, one each %s", time.Second<<pl.TimeOut, pl.M+pl.Parity, pl.Pace)
	}
	return nil
}
