package rehearse

import (
	"bytes"
	"fmt"
	"time"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/session"
	"github.com/sower-fuota/sower/firmware-stub/device/modem"
	"github.com/sower-fuota/sower/simulator/fleet"
	"github.com/sower-fuota/sower/simulator/fleet/foreign"
)

// Stock is the software of a device without the device library. Its limits are those that it was built with; 0 means the
// default of the stack, see [foreign.Config].
type Stock struct {
	Stack         foreign.Stack // 0: the device has the library
	MaxFragments  int
	MaxFragSize   int // bytes
	MaxRedundancy int
}

// software is what runs on a device.
type software interface {
	fleet.App
	// Running returns the version that it runs.
	Running() uint32
}

// stock is a device with the packages of another stack. Its application makes of the block what the campaign says it
// does.
type stock struct {
	*foreign.Device
	block         []byte
	before, after uint32 // version
}

// Running implements software.
func (s stock) Running() uint32 {
	if s.Installed() {
		return s.after
	}
	return s.before
}

// holds reports whether the device has had the whole block.
func (s stock) holds() bool { return bytes.Equal(s.Complete(), s.block) }

// newStock makes a device without the device library. Once it has installed the block it sends the uplink that proves it,
// if the campaign waits for one.
func (s *stage) newStock(spec session.Spec, region airtime.Region, m Member, key [16]byte) (software, error) {
	if region != airtime.EU868 {
		return nil, fmt.Errorf("region %s, but devices of other stacks are modelled for EU868 only", region)
	}
	cfg := foreign.Config{Stack: m.Stock.Stack, GenAppKey: key, Version: m.Packages, Seed: s.cfg.Seed, MaxFragments: m.Stock.MaxFragments,
		MaxFragSize: m.Stock.MaxFragSize, MaxRedundancy: m.Stock.MaxRedundancy, Heartbeat: uint32(max(s.cfg.UplinkInterval/time.Second, 1)), Install: s.cfg.Patch}
	if r := spec.Raw; r != nil && r.Proof == session.ProofUplink {
		cfg.Says = modem.Up{Port: r.FPort, Data: append(make([]byte, r.Offset), r.Bytes...)}
	}
	d, err := foreign.New(cfg)
	if err != nil {
		return nil, err
	}
	return stock{d, spec.Block, m.Running, spec.Target}, nil
}
