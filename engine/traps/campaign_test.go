package traps_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/brocaar/lorawan"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/bundle"
	"github.com/sower-fuota/sower/engine/campaign"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/plan"
	"github.com/sower-fuota/sower/engine/run"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/model"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

const (
	oldVersion = 0x01000000
	newVersion = 0x01010000
	heartbeat  = 10 * time.Minute
)

// order describes a campaign of the real engine, over the real integration, for modelled devices.
type order struct {
	devices  int   // 0: 4
	gateways int   // 0: 1
	restarts []int // the server goes away for 20 s after so many frames were queued
	unknown  []int // the server does not know the API key for 5 minutes after so many
	deaf     bool  // the first device hears nothing from the second hour on, for two hours
	server   func(*networkserver.Config)
	client   func(*chirpstack.Config)
	input    func(*plan.Input)
	plan     func(*plan.Plan)
	device   func(i int, d *fleet.DeviceConfig)
	fault    func(i int) model.Fault
	wrap     func(network.Network) network.Network
	limit    time.Duration // of virtual time; 0: 2 days
}

// result is what came of a campaign.
type result struct {
	rows     []campaign.Row
	runs     []uint32 // what each device really runs
	progress session.Progress
	log      []run.Entry
	air      *sniffer
	plan     plan.Plan
	groups   int           // that are left at the server
	waiting  int           // unicast messages that are left at the server
	closed   time.Duration // from the beginning to the end of the group
	elapsed  time.Duration
}

func (r result) updated() (n int) {
	for _, row := range r.rows {
		if row.Stage == session.StageUpdated {
			n++
		}
	}
	return n
}

// broadcasts returns the counters that the engine believes it has sent.
func (r result) broadcasts() map[uint32]bool {
	out := map[uint32]bool{}
	for _, en := range r.log {
		if en.Kind == "broadcast" {
			out[*en.FCnt] = true
		}
	}
	return out
}

// reached says whether a device was in a stage for a while.
func (r result) reached(device network.EUI64, stage session.Stage) bool {
	return slices.ContainsFunc(r.log, func(en run.Entry) bool {
		return en.Kind == "stage" && en.Device != nil && *en.Device == device && en.Stage == stage.String()
	})
}

// rootKey and groupKey are easy to find where they do not belong.
func rootKey(i int) lorawan.AES128Key {
	return lorawan.AES128Key{0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x17, 0x28, 0x39, byte(i), 1}
}

var groupKey = network.Key{0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x17, 0x28, 0x39, 0xff, 2}

// deafness keeps every frame from the first device for two hours.
type deafness struct{ radio.Independent }

func (d deafness) Carry(k radio.Key, at time.Time) (radio.Signal, bool) {
	if after := at.Sub(epoch); k.Device == lorawan.EUI64(eui(0)) && !k.Kind.Up() && after > time.Hour && after < 3*time.Hour {
		return radio.Signal{}, false
	}
	return d.Independent.Carry(k, at)
}

var block = sync.OnceValues(func() ([]byte, error) { return newBlock(4000) })

// newBlock signs an image of so many bytes.
func newBlock(size int) ([]byte, error) {
	key, err := bundle.GenerateKey()
	if err != nil {
		return nil, err
	}
	image := make([]byte, size)
	return bundle.Sign(bundle.Manifest{Codec: bundle.CodecFull, KeyID: 1, Version: newVersion, Sequence: 2, NewSize: uint32(len(image))}, image, key)
}

// campaign runs a campaign to its end.
func (p *probe) campaign(o order) result {
	t := p.t
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	devices, gateways, limit := max(o.devices, 4), max(o.gateways, 1), o.limit
	if o.devices > 0 {
		devices = o.devices
	}
	if limit == 0 {
		limit = 48 * time.Hour
	}
	w := world.New(epoch)
	clear, err := radio.NewIndependent(1, 0, 0)
	check(err)
	var process radio.Process = clear
	if o.deaf {
		process = deafness{clear}
	}
	medium := radio.NewMedium(w, radio.EU868(), process)
	f, err := fleet.New(fleet.Config{World: w, Medium: medium, Seed: 1, Failed: func(e lorawan.EUI64, _ time.Time, err error) { t.Errorf("device %s: %v", e, err) }})
	check(err)
	cfg := networkserver.Config{World: w, Medium: medium, Seed: 1, Token: token,
		Tenant:       networkserver.Tenant{ID: tenantID, Name: "tenant"},
		Applications: []networkserver.Application{{ID: appID, Name: "meters"}},
		Profiles:     []networkserver.DeviceProfile{{ID: profileID, Name: "meter"}}}
	spec := session.Spec{ID: "1", Application: appID, Target: newVersion, McAddr: mcAddr, McKey: groupKey, FragIndex: 1, McGroupID: 2,
		Timing: session.Timing{UplinkInterval: heartbeat + time.Minute}}
	for i := range gateways {
		cfg.Gateways = append(cfg.Gateways, networkserver.Gateway{ID: lorawan.EUI64(gatewayID(i)), Name: "roof"})
		spec.Gateways = append(spec.Gateways, gatewayID(i))
	}
	var models []*model.Device
	for i := range devices {
		keys := networkserver.Keys{AppKey: lorawan.AES128Key{1, byte(i)}, GenAppKey: rootKey(i)}
		mc := model.Config{RootKey: keys.GenAppKey, Seed: 1, Running: oldVersion, Next: newVersion, Patch: time.Minute, Heartbeat: heartbeat}
		if o.fault != nil {
			mc.Fault = o.fault(i)
		}
		m, err := model.New(mc)
		check(err)
		models = append(models, m)
		d := fleet.DeviceConfig{EUI: lorawan.EUI64(eui(i)), AppKey: keys.AppKey, DataRate: 5, App: m, PowerUp: time.Duration(i+1) * 37 * time.Second}
		if o.device != nil {
			o.device(i, &d)
		}
		_, err = f.Add(d)
		check(err)
		cfg.Devices = append(cfg.Devices, networkserver.Device{EUI: d.EUI, Name: "meter", Application: appID, Profile: profileID, Keys: &keys})
		spec.Devices = append(spec.Devices, session.Target{EUI: eui(i)})
	}
	var res result
	var seen calls
	var server *networkserver.Server
	var client chirpstack.Config
	enqueued := 0
	cfg.Faults.Observe = func(method string) {
		seen.observe(method)
		if method == enqueueMethod {
			if enqueued++; slices.Contains(o.restarts, enqueued) {
				w.At(w.Now().Add(time.Millisecond), "restart", func() { server.Restart(20 * time.Second) })
			}
			if slices.Contains(o.unknown, enqueued) {
				for after, known := range map[time.Duration]bool{time.Millisecond: false, 5 * time.Minute: true} {
					w.At(w.Now().Add(after), "API key", func() { check(server.SetKey(client.Token, known)) })
				}
			}
		}
		if method == "/api.MulticastGroupService/Delete" {
			res.closed = w.Now().Sub(epoch)
		}
	}
	if o.server != nil {
		o.server(&cfg)
	}
	server, err = networkserver.New(cfg)
	check(err)
	defer f.Close()
	defer server.Close()
	client = chirpstack.Config{Server: server.GRPCAddress(), Token: token, Region: airtime.EU868, MQTT: "mqtt://" + server.MQTTAddress(), GatewayTopics: "eu868",
		Timeout: time.Minute}
	if o.client != nil {
		o.client(&client)
	}
	cs, err := chirpstack.Dial(client)
	check(err)
	defer cs.Close()

	in := plan.Input{Region: airtime.EU868, DataRate: mcDR, Devices: devices, Gateways: gateways, Matrix: fragmentation.V2, Loss: []float64{0.02}, Repeater: true}
	in.Block, err = block()
	check(err)
	if o.input != nil {
		o.input(&in)
	}
	res.plan, err = plan.Make(in)
	check(err)
	if o.plan != nil {
		o.plan(&res.plan)
	}
	spec.Block, spec.Plan = in.Block, res.plan
	spec.Descriptor = [4]byte{0xde, 0x5c, 1, 2}
	res.air = &sniffer{}
	station, err := medium.NewStation(lorawan.EUI64{0xff}, res.air)
	check(err)
	station.Listen(radio.Window{From: epoch, Until: epoch.Add(limit), Frequency: res.plan.Frequency, DataRate: res.plan.DataRate})

	clock := w.NewClock("engine")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var engineErr error
	var c *campaign.Campaign
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		defer w.Stop()
		defer clock.Close()
		// Who answers the clock is known once the devices have been listed.
		if _, engineErr = cs.Devices(ctx, appID); engineErr != nil {
			return
		}
		var nw network.Network = cs
		if o.wrap != nil {
			nw = o.wrap(cs)
		}
		if spec.Capabilities, engineErr = nw.Capabilities(ctx); engineErr != nil {
			return
		}
		if c, engineErr = campaign.Single(spec); engineErr != nil {
			return
		}
		e := run.New(run.Config{Network: nw, Clock: clock, Log: func(en run.Entry) { res.log = append(res.log, en) }})
		if engineErr = e.Add(c); engineErr == nil {
			engineErr = e.Run(ctx)
		}
	}()
	worldErr := w.Run(ctx, epoch.Add(limit))
	cancel()
	<-finished
	if engineErr != nil && !errors.Is(engineErr, context.Canceled) {
		t.Fatal(engineErr)
	}
	if worldErr != nil && !errors.Is(worldErr, world.ErrStopped) {
		t.Fatal(worldErr)
	}
	res.rows, res.progress, res.elapsed = c.Rows(), c.Session(0).Progress(), w.Now().Sub(epoch)
	for _, m := range models {
		res.runs = append(res.runs, m.Running())
	}
	again := func(call func() error) { // the faults of the server do not spare us
		t.Helper()
		err := call()
		for i := 0; i < 50 && isUnavailable(err); i++ {
			err = call()
		}
		check(err)
	}
	again(func() error {
		groups, err := cs.Orphans(t.Context(), appID, nil)
		res.groups = len(groups)
		return err
	})
	for i := range devices {
		again(func() error {
			ids, err := cs.Queued(t.Context(), eui(i))
			res.waiting += len(ids)
			return err
		})
	}
	if seen.deploys() || seen.has("MulticastGroupService/Update") || seen.has("AddDevice") {
		t.Error("the engine has called what it must not")
	}
	return res
}
