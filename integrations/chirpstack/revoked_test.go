package chirpstack_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"

	"github.com/sower-fuota/sower/engine/network"
	"github.com/sower-fuota/sower/integrations/chirpstack"
	"github.com/sower-fuota/sower/simulator/networkserver"
)

// TestKeyIsDeleted has the API key deleted between two calls, as when keys are rotated: nothing has happened, all can be
// repeated, and the text says which server, what is wrong and what to do. What a key that is good is told of a group or
// a device that is gone stays what it was.
func TestKeyIsDeleted(t *testing.T) {
	for name, key := range map[string]networkserver.APIKey{
		"administrator": {Token: "token"},
		"tenant":        {Token: "tenant-key", Tenant: networkserver.UUID(1, "tenant")},
		"reader":        {Token: "reader", ReadOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			const probe = api.DeviceProfileService_ListAdrAlgorithms_FullMethodName
			asked := map[string]int{}
			_, cs, s, _ := served(t, 3, 0, func(c *networkserver.Config) {
				if key.Token != c.Token {
					c.Keys = []networkserver.APIKey{key}
				}
				c.Faults.Observe = func(method string) { asked[method]++ }
			}, func(c *chirpstack.Config) { c.Token = key.Token })
			ctx := t.Context()
			g := network.Group{Name: "sower-1", Application: appID, McAddr: 0x01020304, AppSKey: network.Key{1}, NwkSKey: network.Key{2},
				Class: network.ClassC, DataRate: 5, Frequency: 869525000, Gateways: []network.EUI64{gateway}}
			id, err := cs.OpenGroup(ctx, g)
			if want := map[bool]error{true: network.ErrDenied}[key.ReadOnly]; !errors.Is(err, want) {
				t.Fatalf("OpenGroup = %v, want %v", err, want)
			}
			calls := map[string]func(context.Context) error{
				"Version":     func(ctx context.Context) error { return second(cs.Version(ctx)) },
				"Application": func(ctx context.Context) error { return second(cs.Application(ctx, appID)) },
				"Devices":     func(ctx context.Context) error { return second(cs.Devices(ctx, appID)) },
				"Gateways":    func(ctx context.Context) error { return second(cs.Gateways(ctx, appID)) },
				"RootKey":     func(ctx context.Context) error { return second(cs.RootKey(ctx, eui(0))) },
				"Queued":      func(ctx context.Context) error { return second(cs.Queued(ctx, eui(0))) },
				"Readiness":   func(ctx context.Context) error { return second(cs.Readiness(ctx, eui(0))) },
			}
			if !key.ReadOnly {
				calls["OpenGroup"] = func(ctx context.Context) error { return second(cs.OpenGroup(ctx, g)) }
				calls["GroupState"] = func(ctx context.Context) error { return second(cs.GroupState(ctx, id)) }
				calls["Send"] = func(ctx context.Context) error {
					return second(cs.Send(ctx, network.Message{Device: eui(0), FPort: 200, Payload: []byte{1}}))
				}
				calls["Flush"] = func(ctx context.Context) error { return cs.Flush(ctx, eui(0)) }
				calls["FlushGroup"] = func(ctx context.Context) error { return cs.FlushGroup(ctx, id) }
				calls["Broadcast"] = func(ctx context.Context) error {
					return second(cs.Broadcast(ctx, network.Broadcast{Group: id, FPort: 201, Payload: []byte{1}, Expires: epoch.Add(time.Minute)}))
				}
			}
			if err := s.SetKey(key.Token, false); err != nil {
				t.Fatal(err)
			}
			if !key.ReadOnly {
				calls["CloseGroup"] = func(ctx context.Context) error { return cs.CloseGroup(ctx, id) }
			}
			for what, call := range calls {
				before := asked[probe]
				err := call(ctx)
				if !errors.Is(err, network.ErrUnavailable) || !errors.Is(err, chirpstack.ErrKeyRefused) || errors.Is(err, network.ErrDenied) {
					t.Errorf("%s with a key that was deleted = %v, want ErrUnavailable and ErrKeyRefused", what, err)
					continue
				}
				for _, part := range []string{s.GRPCAddress(), "whatever is asked", "token_file", "restart sower serve"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%s: no %q in %v", what, part, err)
					}
				}
				if asked[probe] != before+1 {
					t.Errorf("%s: %d probes, want 1", what, asked[probe]-before)
				}
			}
			delete(calls, "CloseGroup")
			if err := s.SetKey(key.Token, true); err != nil {
				t.Fatal(err)
			}
			clear(asked)
			for what, call := range calls {
				if err := call(ctx); err != nil {
					t.Errorf("%s once the key is there again = %v", what, err)
				}
			}
			// Only Version of a tenant's key asks what it may not see.
			if asked[probe] > 1 {
				t.Errorf("%d probes though nothing is refused", asked[probe])
			}
			if key.ReadOnly {
				return
			}
			if st, err := cs.GroupState(ctx, id); err != nil || st.NextFCnt != 1 {
				t.Errorf("GroupState = %+v, %v, want one frame: what was refused has not happened", st, err)
			}
			gone := network.ErrNotFound
			if key.Tenant != "" {
				gone = network.ErrDenied
			}
			if err := cs.CloseGroup(ctx, id); err != nil {
				t.Fatal(err)
			}
			for what, err := range map[string]error{
				"Broadcast to a group that was deleted": second(cs.Broadcast(ctx, network.Broadcast{Group: id, FPort: 201, Payload: []byte{1}, Expires: epoch.Add(time.Minute)})),
				"RootKey of a device that was deleted":  second(cs.RootKey(ctx, eui(99))),
				"Application that was deleted":          second(cs.Application(ctx, networkserver.UUID(9, "application"))),
			} {
				if !errors.Is(err, gone) || errors.Is(err, network.ErrUnavailable) {
					t.Errorf("%s = %v, want %v", what, err, gone)
				}
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }
