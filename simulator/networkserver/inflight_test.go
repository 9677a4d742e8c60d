package networkserver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/sower-fuota/sower/simulator/radio"
	"github.com/sower-fuota/sower/simulator/world"
)

// TestCallInFlightHoldsTheWorld stops a call half-way by holding the lock of the server: no time passes until
// it is answered.
func TestCallInFlightHoldsTheWorld(t *testing.T) {
	w := world.New(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	w.StallAfter = 20 * time.Millisecond
	loss, err := radio.NewIndependent(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{World: w, Medium: radio.NewMedium(w, radio.EU868(), loss), Token: "t", Tenant: Tenant{ID: UUID(1, "tenant")}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, err := grpc.NewClient(s.GRPCAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer t"), time.Minute)
	defer cancel()

	s.mu.Lock()
	answered := make(chan error, 1)
	go func() {
		_, err := api.NewTenantServiceClient(conn).List(ctx, &api.ListTenantsRequest{})
		answered <- err
	}()
	for err = nil; err == nil && ctx.Err() == nil; { // the call takes a while to arrive
		w.After(time.Second, "event", func() {})
		err = w.Run(ctx, w.Now().Add(time.Second))
	}
	if !errors.Is(err, world.ErrStalled) || !strings.Contains(err.Error(), "gRPC call /api.TenantService/List (1)") {
		t.Errorf("Run = %v, want ErrStalled naming the call", err)
	}
	s.mu.Unlock()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	w.StallAfter = 0 // the server may take its time to let the world go
	if err := w.Run(ctx, w.Now().Add(time.Hour)); err != nil {
		t.Errorf("Run after the answer = %v", err)
	}
}
