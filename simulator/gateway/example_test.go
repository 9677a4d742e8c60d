package gateway_test

import (
	"context"
	"errors"
	"log"
	"time"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/foreign"
	"github.com/sower-fuota/sower/simulator/gateway"
	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// A device with stock LoRaMac-node behind one gateway, on a ChirpStack that runs on this machine.
func ExampleAttach() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := attach(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		log.Fatal(err)
	}
}

func attach(ctx context.Context) error {
	id, eui, key := lorawan.EUI64{2, 0, 0, 0, 0, 0, 0, 1}, lorawan.EUI64{2, 0, 0, 0, 0, 0, 1, 1}, lorawan.AES128Key{7}

	conn, err := grpc.NewClient("127.0.0.1:8080", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	site, err := gateway.Provision(ctx, conn, "the API key of an administrator", gateway.Site{
		Name: "try-out", Region: common.Region_EU868,
		Gateways: []lorawan.EUI64{id}, Devices: []gateway.SiteDevice{{EUI: eui, AppKey: key, GenAppKey: key}},
	})
	if err != nil {
		return err
	}
	defer site.Remove(context.Background())

	w := world.New(time.Now())
	loss, err := radio.NewIndependent(1, 0.05, 0.1)
	if err != nil {
		return err
	}
	medium := radio.NewMedium(w, radio.EU868(), loss)
	devices, err := fleet.New(fleet.Config{World: w, Medium: medium})
	if err != nil {
		return err
	}
	app, err := foreign.New(foreign.Config{Stack: foreign.LoRaMacNode, GenAppKey: key})
	if err != nil {
		return err
	}
	if _, err := devices.Add(fleet.DeviceConfig{EUI: eui, AppKey: key, DataRate: 5, App: app}); err != nil {
		return err
	}
	attached, err := gateway.Attach(ctx, gateway.Config{World: w, Medium: medium, Broker: "mqtt://127.0.0.1:1883", Gateways: []lorawan.EUI64{id}})
	if err != nil {
		return err
	}
	defer attached.Close()
	return gateway.Run(ctx, w)
}
