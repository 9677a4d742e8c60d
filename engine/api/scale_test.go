package api_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sower-fuota/sower/engine/api/sowerv1"
)

// latencies makes a campaign of n devices and asks for it again and again, as a console would: pages of devices, some
// selected by a filter that few of them meet, the campaign as a whole, and the list of campaigns.
func latencies(t testing.TB, n, rounds int) map[string][]time.Duration {
	d := serve(t, n)
	svc := d.campaigns(d.admin)
	begun := time.Now()
	create(t, svc, "meters", "[[wave]]\nname = \"canary\"\npercent = 1\n[[wave]]\nname = \"all\"\npercent = 100\n")
	t.Logf("%d devices planned and created in %s", n, time.Since(begun).Round(time.Millisecond))
	calls := map[string]func(context.Context) error{
		"page": func(ctx context.Context) error {
			_, err := svc.ListDevices(ctx, connect.NewRequest(&pb.ListDevicesRequest{Campaign: "meters", PageSize: 1000}))
			return err
		},
		"filter": func(ctx context.Context) error {
			_, err := svc.ListDevices(ctx, connect.NewRequest(&pb.ListDevicesRequest{Campaign: "meters", Filter: "stage=failed cause=NO_UPLINK"}))
			return err
		},
		"campaign": func(ctx context.Context) error {
			_, err := svc.GetCampaign(ctx, connect.NewRequest(&pb.GetCampaignRequest{Id: "meters"}))
			return err
		},
		"list": func(ctx context.Context) error {
			_, err := svc.ListCampaigns(ctx, connect.NewRequest(&pb.ListCampaignsRequest{}))
			return err
		},
	}
	out := map[string][]time.Duration{}
	for range rounds {
		for name, call := range calls {
			begun := time.Now()
			if err := call(t.Context()); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			out[name] = append(out[name], time.Since(begun))
		}
	}
	for _, list := range out {
		slices.Sort(list)
	}
	return out
}

func percentile(sorted []time.Duration, p float64) time.Duration {
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

// TestListLatency is about the time of answers, so its long form alone judges it.
func TestListLatency(t *testing.T) {
	n, rounds := 2000, 5
	proof := os.Getenv("SOWER_PROOF") != ""
	if proof {
		n, rounds = 100_000, 200
	}
	for name, list := range latencies(t, n, rounds) {
		p99 := percentile(list, 0.99)
		t.Logf("%s: p50 %s, p99 %s", name, percentile(list, 0.5).Round(time.Microsecond), p99.Round(time.Microsecond))
		if proof && p99 > 200*time.Millisecond {
			t.Errorf("%s: p99 %s, want at most 200ms", name, p99)
		}
	}
}
