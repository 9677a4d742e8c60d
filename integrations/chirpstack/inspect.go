package chirpstack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/engine/network"
)

// Application is a set of devices.
type Application struct{ ID, Name string }

// Profile is a device profile, as far as updates depend on it.
type Profile struct {
	ID, Name            string
	Region              string // "EU868" …
	MACVersion          string // "1.0.4"
	LoRaWAN11           bool
	OTAA                bool          // devices join; without, they are personalised (ABP)
	ClassB              bool          // devices can be in class B
	ClassC              bool          // devices are in class C all the time
	UplinkInterval      time.Duration // that the operator expects
	TS003, TS004, TS005 bool          // ChirpStack handles the package itself
}

// GatewayState is a gateway and what ChirpStack needs of it to transmit.
type GatewayState struct {
	network.Gateway
	LastSeen     time.Time // of its last statistics
	RegionConfig string    // region_config_id; empty: never reported, and every downlink fails without a word
}

// Link is the uplink history of a device.
type Link struct {
	Packets int
	SNR     float64   // dB, mean of the best gateway
	Last    time.Time // start of the last hour, or day, with packets
}

// Readiness is what ChirpStack would not say before a campaign fails at a device.
type Readiness struct {
	Key       error // nil: the root key is there; ErrNotFound: it is not, or all zero
	Disabled  bool
	Activated bool // has a session
	EndToEnd  bool // payloads are encrypted by a join server: nobody here can read them
}

// works says which servers the package works with: 4.12 is the first with a place for GenAppKey, and within a
// major version ChirpStack keeps its API.
const works = "ChirpStack 4.12 or a later 4.x works"

// least is the version as far as an API key can learn it: ChirpStack tells the number to users who log in only.
const least = "4.12 or later"

// Version returns "4.12 or later", and ErrInvalid for a server that the package does not work with. It asks for the
// service of deployments, which came with 4.12, as GenAppKey did; whether the key may look at deployments does not
// matter.
func (n *Network) Version(ctx context.Context) (string, error) {
	_, err := get(ctx, n, "version", api.NewFuotaServiceClient(n.conn).ListDeployments,
		&api.ListFuotaDeploymentsRequest{Limit: 1, ApplicationId: "00000000-0000-0000-0000-000000000000"})
	switch {
	case errors.Is(err, errUnimplemented) && defended("version-gate"):
		return "", fmt.Errorf("chirpstack: version: %w: the server is older than 4.12 and has no place for GenAppKey; %s", network.ErrInvalid, works)
	case err != nil && !errors.Is(err, errNoRight) && !errors.Is(err, errUnimplemented):
		return "", err
	}
	return least, nil
}

// Application returns an application. One that does not exist is ErrNotFound for the token of an administrator,
// ErrDenied for that of a tenant.
func (n *Network) Application(ctx context.Context, id string) (Application, error) {
	res, err := get(ctx, n, "application "+id, api.NewApplicationServiceClient(n.conn).Get, &api.GetApplicationRequest{Id: id})
	if err != nil {
		return Application{}, err
	}
	return Application{res.GetApplication().GetId(), res.GetApplication().GetName()}, nil
}

// Applications returns the applications of all tenants, which takes the token of an administrator.
func (n *Network) Applications(ctx context.Context) ([]Application, error) {
	tenants, err := collect(ctx, "tenants", (*api.TenantListItem).GetId, func(ctx context.Context, limit, offset uint32) ([]*api.TenantListItem, uint32, error) {
		page, err := get(ctx, n, "tenants", api.NewTenantServiceClient(n.conn).List, &api.ListTenantsRequest{Limit: limit, Offset: offset})
		return page.GetResult(), page.GetTotalCount(), err
	})
	if err != nil {
		return nil, err
	}
	var out []Application
	for _, t := range tenants {
		what := "applications of tenant " + t.GetName()
		apps, err := collect(ctx, what, (*api.ApplicationListItem).GetId, func(ctx context.Context, limit, offset uint32) ([]*api.ApplicationListItem, uint32, error) {
			page, err := get(ctx, n, what, api.NewApplicationServiceClient(n.conn).List,
				&api.ListApplicationsRequest{TenantId: t.GetId(), Limit: limit, Offset: offset})
			return page.GetResult(), page.GetTotalCount(), err
		})
		if err != nil {
			return nil, err
		}
		for _, a := range apps {
			out = append(out, Application{a.GetId(), a.GetName()})
		}
	}
	return out, nil
}

// MayWrite reports whether the token may create multicast groups in an application. It asks for a group without
// a name, which ChirpStack refuses to those who may and to those who may not, for different reasons.
func (n *Network) MayWrite(ctx context.Context, application string) error {
	res, err := once(ctx, n, "rights of the token", api.NewMulticastGroupServiceClient(n.conn).Create,
		&api.CreateMulticastGroupRequest{MulticastGroup: &api.MulticastGroup{ApplicationId: application,
			McAddr: "00000000", McNwkSKey: strings.Repeat("0", 32), McAppSKey: strings.Repeat("0", 32)}})
	switch {
	case err == nil:
		// A server that takes it all the same; it must not keep it.
		return n.CloseGroup(ctx, network.GroupID(res.GetId()))
	case errors.Is(err, network.ErrInvalid) && strings.Contains(err.Error(), "name"), !defended("write-probe"):
		return nil
	}
	return err
}

// Profile returns a device profile.
func (n *Network) Profile(ctx context.Context, id string) (Profile, error) {
	res, err := get(ctx, n, "device profile "+id, api.NewDeviceProfileServiceClient(n.conn).Get, &api.GetDeviceProfileRequest{Id: id})
	if err != nil {
		return Profile{}, err
	}
	p, app := res.GetDeviceProfile(), res.GetDeviceProfile().GetAppLayerParams()
	return Profile{
		ID: p.GetId(), Name: p.GetName(), Region: p.GetRegion().String(),
		MACVersion: strings.ReplaceAll(strings.TrimPrefix(p.GetMacVersion().String(), "LORAWAN_"), "_", "."),
		LoRaWAN11:  p.GetMacVersion() == common.MacVersion_LORAWAN_1_1_0, OTAA: p.GetSupportsOtaa(),
		ClassB: p.GetSupportsClassB(), ClassC: p.GetSupportsClassC() && defended("profile-class"), UplinkInterval: time.Duration(p.GetUplinkInterval()) * time.Second,
		TS003: app.GetTs003Version() != api.Ts003Version_TS003_NOT_IMPLEMENTED,
		TS004: app.GetTs004Version() != api.Ts004Version_TS004_NOT_IMPLEMENTED && defended("profile-packages"),
		TS005: app.GetTs005Version() != api.Ts005Version_TS005_NOT_IMPLEMENTED && defended("profile-packages"),
	}, nil
}

// GatewayStates returns the gateways that a group of an application may use.
func (n *Network) GatewayStates(ctx context.Context, application string) ([]GatewayState, error) {
	return n.gateways(ctx, application, "")
}

// gateways returns the gateways of the tenant of an application: all, or those pinned to a group.
func (n *Network) gateways(ctx context.Context, application, group string) ([]GatewayState, error) {
	tenant, err := n.tenant(ctx, application)
	if err != nil {
		return nil, err
	}
	client := api.NewGatewayServiceClient(n.conn)
	items, err := collect(ctx, "gateways", (*api.GatewayListItem).GetGatewayId, func(ctx context.Context, limit, offset uint32) ([]*api.GatewayListItem, uint32, error) {
		page, err := get(ctx, n, "gateways", client.List, &api.ListGatewaysRequest{TenantId: tenant, MulticastGroupId: group,
			Limit: limit, Offset: offset, OrderBy: api.ListGatewaysRequest_GATEWAY_ID})
		return page.GetResult(), page.GetTotalCount(), err
	})
	if err != nil {
		return nil, err
	}
	var out []GatewayState
	for _, item := range items {
		id, err := network.ParseEUI64(item.GetGatewayId())
		if err != nil {
			return nil, fmt.Errorf("chirpstack: gateway list: %w", err)
		}
		g := GatewayState{Gateway: network.Gateway{ID: id, Name: item.GetName(), Online: item.GetState() == api.GatewayState_ONLINE},
			RegionConfig: item.GetProperties()["region_config_id"]}
		if g.RegionConfig != "" {
			g.Region = item.GetProperties()["region_common_name"]
		}
		if at := item.GetLastSeenAt(); at != nil {
			g.LastSeen = at.AsTime()
		}
		out = append(out, g)
	}
	return out, nil
}

// tenant returns the tenant of an application, from memory if it was asked for before: applications stay where
// they are.
func (n *Network) tenant(ctx context.Context, application string) (string, error) {
	n.mu.Lock()
	id, ok := n.tenants[application]
	n.mu.Unlock()
	if ok {
		return id, nil
	}
	app, err := get(ctx, n, "application "+application, api.NewApplicationServiceClient(n.conn).Get,
		&api.GetApplicationRequest{Id: application})
	if err != nil {
		return "", err
	}
	id = app.GetApplication().GetTenantId()
	n.mu.Lock()
	n.tenants[application] = id
	n.mu.Unlock()
	return id, nil
}

// hours is how long ChirpStack keeps what it counts by the hour; what it counts by the day it keeps for two months.
const hours = 48 * time.Hour

// LinkHistory returns what ChirpStack has kept of a device's uplinks between two instants, in one call: by the hour
// for up to two days, else by the day, whole days at both ends.
func (n *Network) LinkHistory(ctx context.Context, device network.EUI64, start, end time.Time) (Link, error) {
	aggregation := common.Aggregation_HOUR
	if end.Sub(start) > hours && defended("metrics-by-day") {
		aggregation = common.Aggregation_DAY
	}
	res, err := get(ctx, n, "link metrics of "+device.String(), api.NewDeviceServiceClient(n.conn).GetLinkMetrics,
		&api.GetDeviceLinkMetricsRequest{DevEui: device.String(), Start: timestamppb.New(start), End: timestamppb.New(end),
			Aggregation: aggregation})
	if err != nil {
		return Link{}, err
	}
	var l Link
	packets, snr := data(res.GetRxPackets()), data(res.GetGwSnr())
	for i, p := range packets {
		// A time without packets has no SNR, though it says 0.
		if p <= 0 || i >= len(snr) {
			continue
		}
		l.SNR = (l.SNR*float64(l.Packets) + float64(snr[i])*float64(p)) / float64(l.Packets+int(p))
		l.Packets += int(p)
		if ts := res.GetRxPackets().GetTimestamps(); i < len(ts) {
			l.Last = ts[i].AsTime()
		}
	}
	return l, nil
}

func data(m *common.Metric) []float32 {
	if len(m.GetDatasets()) == 0 {
		return nil
	}
	return m.GetDatasets()[0].GetData()
}

// Readiness asks whether a device can take part in a campaign.
func (n *Network) Readiness(ctx context.Context, device network.EUI64) (Readiness, error) {
	var r Readiness
	client := api.NewDeviceServiceClient(n.conn)
	dev, err := get(ctx, n, "device "+device.String(), client.Get, &api.GetDeviceRequest{DevEui: device.String()})
	if err != nil {
		return r, err
	}
	r.Disabled = dev.GetDevice().GetIsDisabled()
	act, err := get(ctx, n, "activation of "+device.String(), client.GetActivation, &api.GetDeviceActivationRequest{DevEui: device.String()})
	if err != nil {
		return r, err
	}
	r.Activated = act.GetDeviceActivation() != nil || !defended("activation")
	r.EndToEnd = act.GetJoinServerContext() != nil
	if _, r.Key = n.RootKey(ctx, device); r.Key != nil && !errors.Is(r.Key, network.ErrNotFound) && !errors.Is(r.Key, network.ErrDenied) {
		return r, r.Key
	}
	return r, nil
}

// atOnce is how many questions about single devices are under way at the same time.
const atOnce = 16

// ForDevices calls f for each device, some at a time, and returns the first error, after which no more are begun.
func ForDevices(ctx context.Context, devices []network.EUI64, f func(context.Context, network.EUI64) error) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, eui := range devices {
		group.Go(func() error {
			if inner.Err() != nil {
				return context.Cause(inner)
			}
			return f(inner, eui)
		})
	}
	return group.Wait()
}

// GroupExists reports whether an application has a multicast group of that name.
func (n *Network) GroupExists(ctx context.Context, application, name string) (bool, error) {
	groups, err := n.listGroups(ctx, application, name)
	return slices.ContainsFunc(groups, func(g *api.MulticastGroupListItem) bool { return g.GetName() == name }), err
}
