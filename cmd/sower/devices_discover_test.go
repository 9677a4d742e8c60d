package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/sower-fuota/sower/engine/inventory"
	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

// discover runs `sower devices discover` in the time of the world. stop, if it is not nil, ends it then.
func (in installation) discover(t *testing.T, d discovery, stop func(now time.Time) bool, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	at := siteFlags{file: in.file("sower.toml")}
	s, err := at.open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.nw.Close()
	clock := in.world.NewClock("discover")
	var out, errs bytes.Buffer
	d.clock, d.stdout, d.stderr = clock, &out, &errs
	if d.in == nil {
		d.in = strings.NewReader("")
	}
	if d.wait == 0 {
		d.wait = time.Hour
	}
	done := make(chan error, 1)
	go func() {
		err := d.run(ctx, s, args)
		clock.Close()
		done <- err
	}()
	step := time.Minute
	if stop != nil {
		step = 5 * time.Second
	}
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case err := <-done:
			return out.String(), errs.String(), err
		case <-pace.C:
			if err := in.world.Run(ctx, in.world.Now().Add(step)); err != nil && ctx.Err() == nil {
				t.Fatal(err)
			}
			if stop != nil && stop(in.world.Now()) {
				cancel()
			}
		}
	}
}

// keep names the inventory of the settings.
func (in installation) keep(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(in.file("sower.toml"))
	if err != nil {
		t.Fatal(err)
	}
	in.write(t, "sower.toml", string(text)+"[inventory]\ncsv = \"inventory.csv\"\n")
	in.write(t, "inventory.csv", "# ours\ndev_eui,base_sha256,version\n"+deviceEUI(0).String()+",0102030405060708,\n0909090909090909,,3.0.0\n")
}

// read returns the inventory as plans read it.
func (in installation) read(t *testing.T) *inventory.Inventory {
	t.Helper()
	at := siteFlags{file: in.file("sower.toml")}
	s, err := at.open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.nw.Close()
	inv, err := s.planner(&bytes.Buffer{}).Inventory(t.Context(), []string{meters})
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// TestDiscover asks devices that run the device library, which lose a tenth of all frames, is stopped in the middle, goes
// on, and has nothing left to ask the third time.
func TestDiscover(t *testing.T) {
	t.Parallel()
	f := sow(t, 8)
	in := f.installation
	in.keep(t)
	// Nobody knows anything but what tags say, and that the file has no version.
	const all = "TS003 v2:202 TS004 v2:201 TS005 v2:200 TS006 v1:203 TS007 v1:225"
	known := func() (n int) {
		for _, d := range in.read(t).Devices() {
			var offers []string
			for _, id := range []int{1, 3, 2, 4, 0} {
				if o := d.Offers[id]; o.Source == inventory.FromTS007 {
					offers = append(offers, fmt.Sprintf("%s %s", []string{"TS007", "TS003", "TS005", "TS004", "TS006"}[id], o.Value))
				}
			}
			if d.Version.Value.String() == "1.0.0" && d.Packages.Value == 2 && strings.Join(offers, " ") == all && d.Version.Source != inventory.FromTag {
				n++
			}
		}
		return n
	}
	begin, edited := in.world.Now(), false
	_, _, err := in.discover(t, discovery{maxAge: 24 * time.Hour, yes: true, rate: 2}, func(now time.Time) bool {
		if !edited { // somebody else learns something meanwhile
			edited = true
			text, err := os.ReadFile(in.file("inventory.csv"))
			if err != nil {
				t.Error(err)
			}
			in.write(t, "inventory.csv", string(text)+deviceEUI(1).String()+",0a0b0c0d0e0f0001,\n")
		}
		return now.Sub(begin) > 2*time.Minute
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("stopped: %v", err)
	}
	some := known()
	if some == 0 || some == 8 {
		t.Fatalf("%d devices are known after two minutes at two messages a minute", some)
	}
	out, errs, err := in.discover(t, discovery{maxAge: 24 * time.Hour, yes: true, asJSON: true, wait: 6 * time.Hour}, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, errs)
	}
	var result struct {
		Messages int     `json:"messages"`
		Airtime  float64 `json:"airtime_s"`
		Known    int     `json:"known"`
		File     string  `json:"file"`
		Devices  []struct {
			Offers map[string]inventory.Fact[string] `json:"offers"`
		} `json:"devices"`
	}
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if result.Known != 8 || known() != 8 || result.Messages < 8-some || result.Messages > 2*(8-some) || result.Airtime <= 0 || result.File != in.file("inventory.csv") ||
		result.Devices[3].Offers["TS004"].Value != "v2:201" {
		t.Errorf("%d known, then %+v and %d in the file", some, result, known())
	}
	if !strings.Contains(errs, fmt.Sprintf("8 devices, of which %d are to be asked", 8-some)) {
		t.Errorf("before it began it said:\n%s", errs)
	}
	text, err := os.ReadFile(in.file("inventory.csv"))
	if err != nil || !strings.HasPrefix(string(text), "# ours\n") || !strings.Contains(string(text), "0909090909090909,,3.0.0,") || !strings.Contains(string(text), "0102030405060708") ||
		!strings.Contains(string(text), "0a0b0c0d0e0f0001") {
		t.Errorf("what stood in the file is gone: %v\n%s", err, text)
	}
	out, _, err = in.discover(t, discovery{maxAge: 24 * time.Hour}, nil)
	if err != nil || !strings.Contains(out, "0 messages, ") || !strings.Contains(out, "8 have told") {
		t.Errorf("third time: %v\n%s", err, out)
	}
}

// TestDiscoverSilent asks devices that have no packages: they are asked ten times at most, and say so. Devices 2 and 3 are
// not meant.
func TestDiscoverSilent(t *testing.T) {
	t.Parallel()
	in := install(t, func(c *networkserver.Config) { c.Devices[0].Tags["firmware_version"] = "0.9.0" })
	in.keep(t)
	out, _, err := in.discover(t, discovery{maxAge: 24 * time.Hour, yes: true, wait: 5 * time.Hour}, nil, deviceEUI(0).String(), deviceEUI(3).String())
	// Its version is in its reports, so four questions are left, each in two deliveries.
	if err != nil || !strings.Contains(out, "8 messages") || !strings.Contains(out, "1 answer nothing") || !strings.Contains(out, "1 were not heard") ||
		!strings.Contains(out, deviceEUI(3).String()) {
		t.Errorf("%v\n%s", err, out)
	}
	if d := in.read(t).Devices()[0]; d.Version.Source != inventory.FromReport || d.Packages.Known() {
		t.Errorf("%+v", d)
	}
}

// TestDiscoverSendsNothing: a dry run, an operator who says no or nothing, and a device for which something waits.
func TestDiscoverSendsNothing(t *testing.T) {
	in := install(t, nil)
	in.keep(t)
	before, err := os.ReadFile(in.file("inventory.csv"))
	if err != nil {
		t.Fatal(err)
	}
	out, _, err := in.discover(t, discovery{dryRun: true}, nil)
	if err != nil || !strings.Contains(out, "4 devices, of which 4 are to be asked") || !strings.Contains(out, "at most 40 messages") || !strings.Contains(out, "through 2 gateways") {
		t.Errorf("dry run: %v\n%s", err, out)
	}
	out, _, err = in.discover(t, discovery{dryRun: true, asJSON: true}, nil, meters)
	var plan struct{ Plan discoveryCost }
	if err != nil || json.Unmarshal([]byte(out), &plan) != nil || plan.Plan.Ask != 4 || plan.Plan.Least.Rest < 2 || plan.Plan.Most.Rest < 90 || plan.Plan.Most.Rest > 200 {
		t.Errorf("dry run in JSON: %v\n%s", err, out)
	}
	for _, answer := range []string{"", "n\n", "\n"} {
		if _, errs, err := in.discover(t, discovery{in: strings.NewReader(answer)}, nil); err == nil || !strings.Contains(err.Error(), "nothing was sent") || !strings.Contains(errs, "Send them?") {
			t.Errorf("answer %q: %v\n%s", answer, err, errs)
		}
	}
	if after, err := os.ReadFile(in.file("inventory.csv")); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the file was changed: %v\n%s", err, after)
	}
	conn, err := grpc.NewClient(in.server.GRPCAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	queue := func(eui lorawan.EUI64) []*api.DeviceQueueItem {
		t.Helper()
		r, err := api.NewDeviceServiceClient(conn).GetQueue(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer admin-token"), &api.GetDeviceQueueItemsRequest{DevEui: eui.String()})
		if err != nil {
			t.Fatal(err)
		}
		return r.Result
	}
	for i := range 4 {
		if len(queue(deviceEUI(i))) != 0 {
			t.Errorf("something waits for device %d", i)
		}
	}
	// A message waits for device 3, which never joined: it is left alone until that is gone.
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer admin-token")
	item := &api.DeviceQueueItem{DevEui: deviceEUI(3).String(), FPort: 10, Data: []byte{1}}
	if _, err := api.NewDeviceServiceClient(conn).Enqueue(ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: item}); err != nil {
		t.Fatal(err)
	}
	at := siteFlags{file: in.file("sower.toml")}
	s, err := at.open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.nw.Close()
	now, three := in.world.Now(), network.EUI64(deviceEUI(3))
	machine := inventory.NewDiscovery(now, in.read(t), []network.EUI64{three}, inventory.DiscoveryOptions{Until: now.Add(time.Hour)})
	q, wanted := machine.Heard(now, network.Event{Kind: network.EventUplink, Device: three, At: now})
	if sent, err := (discovery{stderr: os.Stderr}).send(ctx, s, machine, q); !wanted || sent || err != nil || len(queue(deviceEUI(3))) != 1 {
		t.Errorf("a device with a message waiting: wanted %v, sent %v, %v", wanted, sent, err)
	}
	if _, err := api.NewDeviceServiceClient(conn).FlushQueue(ctx, &api.FlushDeviceQueueRequest{DevEui: deviceEUI(3).String()}); err != nil {
		t.Fatal(err)
	}
	if sent, err := (discovery{stderr: os.Stderr}).send(ctx, s, machine, q); !sent || err != nil || len(queue(deviceEUI(3))) != 1 {
		t.Errorf("a device without: sent %v, %v", sent, err)
	}
	// Yes, and then it is stopped: what waits has an end.
	begin := in.world.Now()
	if _, _, err := in.discover(t, discovery{in: strings.NewReader("y\n"), wait: 10 * time.Minute}, func(now time.Time) bool { return now.Sub(begin) > 3*time.Minute }); !errors.Is(err, context.Canceled) {
		t.Errorf("yes: %v", err)
	}
	for i := range 3 {
		for _, item := range queue(deviceEUI(i)) {
			if item.ExpiresAt == nil || item.ExpiresAt.AsTime().After(begin.Add(11*time.Minute)) {
				t.Errorf("device %d: %v waits for ever", i, item)
			}
		}
	}
}

// TestDiscoverRest says how long a gateway rests: 17 bytes take 46 ms at DR5 and 1155 ms at DR0 of EU868.
func TestDiscoverRest(t *testing.T) {
	for _, tt := range []struct {
		name     string
		region   string
		dr       int
		share    float64
		rate     float64
		from, to time.Duration
	}{
		{"fast", "EU868", 5, 100, 0, 4600 * time.Millisecond, 5200 * time.Millisecond},
		{"slow", "EU868", 0, 100, 0, 115 * time.Second, 133 * time.Second},
		{"half of the duty cycle", "EU868", 5, 50, 0, 9200 * time.Millisecond, 10400 * time.Millisecond},
		{"two a minute", "EU868", 5, 100, 2, 30 * time.Second, 30 * time.Second},
		{"more than is allowed", "EU868", 0, 100, 1000, 115 * time.Second, 133 * time.Second},
		{"no duty cycle", "US915", 0, 100, 0, leastRest, leastRest},
		{"no duty cycle, a limit", "US915", 0, 100, 6, 10 * time.Second, 10 * time.Second},
	} {
		s := &site{}
		s.Airtime.Share = tt.share
		if got := (discovery{rate: tt.rate}).rest(s)(tt.region, tt.dr, inventory.LongestQuestion); got < tt.from || got > tt.to {
			t.Errorf("%s: %s, want %s to %s", tt.name, got, tt.from, tt.to)
		}
	}
}

func TestDiscoverRefuses(t *testing.T) {
	in := install(t, nil)
	config := []string{"--config", in.file("sower.toml"), "--wait", "1s"}
	for _, tt := range []struct {
		name string
		args []string
		use  bool
		want string
	}{
		{"no file", nil, true, "name a file with -o"},
		{"no time", []string{"--wait", "0s"}, true, "--wait"},
		{"negative age", []string{"--max-age", "-1h"}, true, "--max-age"},
		{"negative rate", []string{"--rate", "-1"}, true, "--rate"},
		{"both kinds", []string{"--dry-run", meters, deviceEUI(0).String()}, true, "is no DevEUI"},
		{"unknown device", []string{"--dry-run", "0102030405060708"}, false, "device 0102030405060708 is in none of 1 applications"},
		{"unknown application", []string{"--dry-run", networkserver.UUID(9, "x")}, false, "Object does not exist"},
		{"broken file", []string{"-o", in.write(t, "broken.csv", "dev_eui,version\nxyz,1\n")}, false, "broken.csv: line 2: "},
		{"folder", []string{"-o", in.dir, "--yes"}, false, "is a directory"},
	} {
		_, _, err := verb(newDevicesCommand(), append(append([]string{"discover"}, config...), tt.args...)...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || errors.As(err, new(usageError)) != tt.use {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
