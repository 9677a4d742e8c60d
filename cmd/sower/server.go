package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/engine/prepare"
	"github.com/sower-fuota/sower/integrations/chirpstack"
)

// server is ChirpStack as package prepare sees it.
type server struct{ *chirpstack.Network }

var _ prepare.Server = server{}

func (s server) Application(ctx context.Context, id string) (string, error) {
	a, err := s.Network.Application(ctx, id)
	return a.Name, err
}

func (s server) Profile(ctx context.Context, id string) (prepare.Profile, error) {
	p, err := s.Network.Profile(ctx, id)
	return prepare.Profile{Name: p.Name, ClassB: p.ClassB, ClassC: p.ClassC, TS003: p.TS003, TS004: p.TS004, TS005: p.TS005}, err
}

func (s server) Links(ctx context.Context, until map[network.EUI64]time.Time, found func(network.EUI64, prepare.Link)) error {
	var mu sync.Mutex
	return chirpstack.ForDevices(ctx, slices.Collect(maps.Keys(until)), func(ctx context.Context, eui network.EUI64) error {
		l, err := s.LinkHistory(ctx, eui, until[eui].Add(-prepare.History), until[eui])
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		found(eui, prepare.Link(l))
		return nil
	})
}

func (s server) Ready(ctx context.Context, devices []network.EUI64, found func(network.EUI64, prepare.Readiness)) error {
	var mu sync.Mutex
	return chirpstack.ForDevices(ctx, devices, func(ctx context.Context, eui network.EUI64) error {
		r, err := s.Readiness(ctx, eui)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		found(eui, prepare.Readiness{NoKey: r.Key != nil, Disabled: r.Disabled, Joined: r.Activated, EndToEnd: r.EndToEnd})
		return nil
	})
}
