package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sower-fuota/sower/simulator/gateway"
	"github.com/sower-fuota/sower/simulator/networkserver"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// shared is a buffer for a command that is still running.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Virtual devices join a server in real time, are listed with what the file says of them, and are gone afterwards.
func TestSimulateFleet(t *testing.T) {
	t.Parallel()
	w := world.New(time.Now())
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	server, err := networkserver.New(networkserver.Config{World: w, Medium: radio.NewMedium(w, radio.EU868(), loss), Seed: 1, Token: "admin-token",
		Tenant: networkserver.Tenant{ID: networkserver.UUID(1, "tenant"), Name: "tenant"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var clock, running sync.WaitGroup
	clock.Add(1)
	go func() {
		defer clock.Done()
		gateway.Run(ctx, w)
	}()
	defer clock.Wait()
	defer cancel()
	in := installation{w, server, t.TempDir()}
	in.write(t, "sower.token", "admin-token\n")
	in.write(t, "sower.toml", fmt.Sprintf("[chirpstack]\nserver = %q\nmqtt = %q\ntoken_file = \"sower.token\"\n[inventory]\ncsv = \"fleet.csv\"\n",
		server.GRPCAddress(), "mqtt://"+server.MQTTAddress()))
	fleetCtx, stop := context.WithCancel(ctx)
	cmd := newSimulateFleetCommand()
	var out shared
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--config", in.file("sower.toml"), "--devices", "2", "--heartbeat", "1s", "--loss", "0", "--csv", in.file("fleet.csv")})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	var runErr error
	running.Add(1)
	go func() {
		defer running.Done()
		runErr = cmd.ExecuteContext(fleetCtx)
	}()
	config := []string{"--config", in.file("sower.toml")}
	listed := ""
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); {
		if strings.Contains(out.String(), "stop with Ctrl-C") {
			if listed, _, err = verb(newDevicesCommand(), append(config, "--json")...); err == nil && strings.Count(listed, `"last_seen": "20`) == 2 {
				break
			}
		}
		<-time.After(200 * time.Millisecond)
	}
	stop()
	running.Wait()
	if runErr != nil {
		t.Fatalf("%v\n%s", runErr, out.String())
	}
	if strings.Count(listed, `"last_seen": "20`) != 2 || strings.Count(listed, "1.0.0") < 2 {
		t.Errorf("not both devices joined, or they have no version:\n%s\n%s", listed, out.String())
	}
	if got, _, err := verb(newDevicesCommand(), append(config, "--json")...); err != nil || strings.Contains(got, `"dev_eui"`) {
		t.Errorf("%v; of the devices there is left:\n%s", err, got)
	}
	for _, args := range [][]string{{"--devices", "0"}, {"--gateways", "17"}, {"--loss", "1"}, {"--from", "x"}, {"--heartbeat", "1ms"}} {
		if _, _, err := verb(newSimulateFleetCommand(), append(config, args...)...); err == nil || !strings.Contains(err.Error(), args[0]) {
			t.Errorf("simulate fleet %v: %v", args, err)
		}
	}
}
