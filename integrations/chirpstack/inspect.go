package chirpstack

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/engine/network"
)

// Application is a set of devices.
type Application struct{ ID, Name string }

// Profile is a device profile, as far as updates depend on it.
type Profile struct {
	ID, Name            string
	MACVersion          string // "1.0.4"
	LoRaWAN11           bool
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
	Last    time.Time // start of the last hour with packets
}

// Readiness is what ChirpStack would not say before a campaign fails at a device.
type Readiness struct {
	Key       error // nil: the root key is there; ErrNotFound: it is not, or all zero
	Disabled  bool
	Activated bool // has a session
	EndToEnd  bool // payloads are encrypted by a join server: nobody here can read them
}

// minVersion is the first ChirpStack with a place for GenAppKey.
var minVersion = [2]int{4, 12}

// Version returns the version of the server, and an error if it is too old.
func (n *Network) Version(ctx context.Context) (string, error) {
	res, err := get(ctx, n, "version", api.NewInternalServiceClient(n.conn).GetVersion, &emptypb.Empty{})
	if errors.Is(err, errUnimplemented) {
		return "", fmt.Errorf("chirpstack: version: %w: the server does not tell its version; 4.12 or later is needed", network.ErrInvalid)
	}
	if err != nil {
		return "", err
	}
	text := res.GetVersion()
	parts := strings.SplitN(text, ".", 3)
	var have [2]int
	for i := range have {
		if i < len(parts) {
			have[i], err = strconv.Atoi(parts[i])
		}
		if err != nil || len(parts) < 2 {
			return text, fmt.Errorf("chirpstack: version: %w: %q is not readable; 4.12 or later is needed", network.ErrInvalid, text)
		}
	}
	if have[0] < minVersion[0] || have[0] == minVersion[0] && have[1] < minVersion[1] {
		return text, fmt.Errorf("chirpstack: version: %w: %s has no place for GenAppKey; 4.12 or later is needed", network.ErrInvalid, text)
	}
	return text, nil
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
	var out []Application
	tenants, err := get(ctx, n, "tenants", api.NewTenantServiceClient(n.conn).List, &api.ListTenantsRequest{Limit: pageSize})
	if err != nil {
		return nil, err
	}
	for _, t := range tenants.GetResult() {
		for offset := uint32(0); ; {
			page, err := get(ctx, n, "applications", api.NewApplicationServiceClient(n.conn).List,
				&api.ListApplicationsRequest{TenantId: t.GetId(), Limit: pageSize, Offset: offset})
			if err != nil {
				return nil, err
			}
			for _, a := range page.GetResult() {
				out = append(out, Application{a.GetId(), a.GetName()})
			}
			offset += uint32(len(page.GetResult()))
			if len(page.GetResult()) == 0 || offset >= page.GetTotalCount() {
				break
			}
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
	case errors.Is(err, network.ErrInvalid) && strings.Contains(err.Error(), "name"):
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
		ID: p.GetId(), Name: p.GetName(),
		MACVersion: strings.ReplaceAll(strings.TrimPrefix(p.GetMacVersion().String(), "LORAWAN_"), "_", "."),
		LoRaWAN11:  p.GetMacVersion() == common.MacVersion_LORAWAN_1_1_0,
		ClassC:     p.GetSupportsClassC(), UplinkInterval: time.Duration(p.GetUplinkInterval()) * time.Second,
		TS003: app.GetTs003Version() != api.Ts003Version_TS003_NOT_IMPLEMENTED,
		TS004: app.GetTs004Version() != api.Ts004Version_TS004_NOT_IMPLEMENTED,
		TS005: app.GetTs005Version() != api.Ts005Version_TS005_NOT_IMPLEMENTED,
	}, nil
}

// GatewayStates returns the gateways that a group of an application may use.
func (n *Network) GatewayStates(ctx context.Context, application string) ([]GatewayState, error) {
	app, err := get(ctx, n, "application "+application, api.NewApplicationServiceClient(n.conn).Get,
		&api.GetApplicationRequest{Id: application})
	if err != nil {
		return nil, err
	}
	client := api.NewGatewayServiceClient(n.conn)
	var out []GatewayState
	seen := map[network.EUI64]bool{}
	for offset := uint32(0); ; {
		page, err := get(ctx, n, "gateways", client.List, &api.ListGatewaysRequest{TenantId: app.GetApplication().GetTenantId(),
			Limit: pageSize, Offset: offset, OrderBy: api.ListGatewaysRequest_GATEWAY_ID})
		if err != nil {
			return nil, err
		}
		for _, item := range page.GetResult() {
			id, err := network.ParseEUI64(item.GetGatewayId())
			if err != nil {
				return nil, fmt.Errorf("chirpstack: gateway list: %w", err)
			}
			if seen[id] {
				continue
			}
			seen[id] = true
			g := GatewayState{Gateway: network.Gateway{ID: id, Name: item.GetName(), Online: item.GetState() == api.GatewayState_ONLINE},
				RegionConfig: item.GetProperties()["region_config_id"]}
			if at := item.GetLastSeenAt(); at != nil {
				g.LastSeen = at.AsTime()
			}
			out = append(out, g)
		}
		offset += uint32(len(page.GetResult()))
		if len(page.GetResult()) == 0 || offset >= page.GetTotalCount() {
			return out, nil
		}
	}
}

// LinkHistory returns what ChirpStack has kept of a device's uplinks between two instants, by the hour.
func (n *Network) LinkHistory(ctx context.Context, device network.EUI64, start, end time.Time) (Link, error) {
	res, err := get(ctx, n, "link metrics of "+device.String(), api.NewDeviceServiceClient(n.conn).GetLinkMetrics,
		&api.GetDeviceLinkMetricsRequest{DevEui: device.String(), Start: timestamppb.New(start), End: timestamppb.New(end),
			Aggregation: common.Aggregation_HOUR})
	if err != nil {
		return Link{}, err
	}
	var l Link
	packets, snr := data(res.GetRxPackets()), data(res.GetGwSnr())
	for i, p := range packets {
		// An hour without packets has no SNR, though it says 0.
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
	r.Activated = act.GetDeviceActivation() != nil
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
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan network.EUI64)
	var all sync.WaitGroup
	for range min(atOnce, len(devices)) {
		all.Go(func() {
			for eui := range next {
				if err := f(ctx, eui); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, eui := range devices {
		select {
		case next <- eui:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	all.Wait()
	return context.Cause(ctx)
}

// GroupExists reports whether an application has a multicast group of that name.
func (n *Network) GroupExists(ctx context.Context, application, name string) (bool, error) {
	client := api.NewMulticastGroupServiceClient(n.conn)
	for offset := uint32(0); ; {
		page, err := get(ctx, n, "groups of application "+application, client.List, &api.ListMulticastGroupsRequest{
			ApplicationId: application, Search: name, Limit: pageSize, Offset: offset})
		if err != nil {
			return false, err
		}
		for _, item := range page.GetResult() {
			if item.GetName() == name {
				return true, nil
			}
		}
		offset += uint32(len(page.GetResult()))
		if len(page.GetResult()) == 0 || offset >= page.GetTotalCount() {
			return false, nil
		}
	}
}
