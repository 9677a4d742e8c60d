package chirpstack

import (
	"context"
	"errors"
	"fmt"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/engine/network"
)

// Devices implements [network.Network].
func (n *Network) Devices(ctx context.Context, application string) ([]network.Device, error) {
	client := api.NewDeviceServiceClient(n.conn)
	order := api.ListDevicesRequest_DEV_EUI
	if !defended("device-order") {
		order = api.ListDevicesRequest_NAME
	}
	what := "devices of application " + application
	items, err := collect(ctx, what, (*api.DeviceListItem).GetDevEui, func(ctx context.Context, limit, offset uint32) ([]*api.DeviceListItem, uint32, error) {
		page, err := get(ctx, n, what, client.List, &api.ListDevicesRequest{ApplicationId: application, Limit: limit, Offset: offset, OrderBy: order})
		return page.GetResult(), page.GetTotalCount(), err
	})
	if err != nil {
		return nil, err
	}
	var out []network.Device
	for _, item := range items {
		d, err := n.device(ctx, application, item)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (n *Network) device(ctx context.Context, application string, item *api.DeviceListItem) (network.Device, error) {
	eui, err := network.ParseEUI64(item.GetDevEui())
	if err != nil {
		return network.Device{}, fmt.Errorf("chirpstack: device list: %w", err)
	}
	p, err := n.profile(ctx, item.GetDeviceProfileId())
	if err != nil {
		return network.Device{}, err
	}
	n.mu.Lock()
	n.devices[eui] = item.GetDeviceProfileId()
	n.mu.Unlock()
	d := network.Device{EUI: eui, Name: item.GetName(), Application: application, Profile: item.GetDeviceProfileId(),
		Region: p.region, Tags: item.GetTags(), LoRaWAN11: p.lorawan11, Class: network.ClassA, Battery: -1}
	if p.classC {
		d.Class = network.ClassC
	}
	if at := item.GetLastSeenAt(); at != nil {
		d.LastSeen = at.AsTime()
	}
	if st := item.GetDeviceStatus(); st != nil && st.GetBatteryLevel() >= 0 && !st.GetExternalPowerSource() {
		d.Battery = int(st.GetBatteryLevel())
	}
	return d, nil
}

// profile returns a device profile, from memory if it was asked for before.
func (n *Network) profile(ctx context.Context, id string) (profile, error) {
	n.mu.Lock()
	p, ok := n.profiles[id]
	n.mu.Unlock()
	if ok {
		return p, nil
	}
	res, err := get(ctx, n, "device profile "+id, api.NewDeviceProfileServiceClient(n.conn).Get, &api.GetDeviceProfileRequest{Id: id})
	if err != nil {
		return profile{}, err
	}
	dp := res.GetDeviceProfile()
	p = profile{
		region:    dp.GetRegion().String(),
		lorawan11: dp.GetMacVersion() == common.MacVersion_LORAWAN_1_1_0,
		classC:    dp.GetSupportsClassC(),
		clock:     dp.GetAppLayerParams().GetTs003Version() != api.Ts003Version_TS003_NOT_IMPLEMENTED,
	}
	n.mu.Lock()
	n.profiles[id] = p
	n.mu.Unlock()
	return p, nil
}

// Gateways implements [network.Network]: those of the tenant of the application.
func (n *Network) Gateways(ctx context.Context, application string) ([]network.Gateway, error) {
	states, err := n.GatewayStates(ctx, application)
	if err != nil {
		return nil, err
	}
	var out []network.Gateway
	for _, g := range states {
		out = append(out, g.Gateway)
	}
	return out, nil
}

// Send implements [network.Network].
func (n *Network) Send(ctx context.Context, m network.Message) (network.MessageID, error) {
	// ChirpStack cuts the port to 8 bits before it looks at it.
	if (m.FPort == 0 || m.FPort > 223 && m.FPort != 225) && defended("fport") {
		return "", fmt.Errorf("chirpstack: message to %s: %w: FPort %d, want 1..223 or 225", m.Device, network.ErrInvalid, m.FPort)
	}
	item := &api.DeviceQueueItem{DevEui: m.Device.String(), FPort: uint32(m.FPort), Data: m.Payload}
	if !m.Expires.IsZero() {
		item.ExpiresAt = timestamppb.New(m.Expires)
	}
	res, err := once(ctx, n, "message to "+m.Device.String(), api.NewDeviceServiceClient(n.conn).Enqueue,
		&api.EnqueueDeviceQueueItemRequest{QueueItem: item})
	if err != nil {
		return "", err
	}
	return network.MessageID(res.GetId()), nil
}

// Queued implements [network.Network].
func (n *Network) Queued(ctx context.Context, device network.EUI64) ([]network.MessageID, error) {
	res, err := get(ctx, n, "queue of "+device.String(), api.NewDeviceServiceClient(n.conn).GetQueue,
		&api.GetDeviceQueueItemsRequest{DevEui: device.String()})
	if err != nil {
		return nil, err
	}
	var ids []network.MessageID
	for _, item := range res.GetResult() {
		ids = append(ids, network.MessageID(item.GetId()))
	}
	return ids, nil
}

// Flush implements [network.Network].
func (n *Network) Flush(ctx context.Context, device network.EUI64) error {
	_, err := get(ctx, n, "queue of "+device.String(), api.NewDeviceServiceClient(n.conn).FlushQueue,
		&api.FlushDeviceQueueRequest{DevEui: device.String()})
	if errors.Is(err, network.ErrNotFound) {
		return nil
	}
	return err
}
