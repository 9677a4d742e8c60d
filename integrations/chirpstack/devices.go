package chirpstack

import (
	"context"
	"encoding/hex"
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
	var out []network.Device
	seen := map[network.EUI64]bool{}
	for offset := uint32(0); ; {
		// Any other order has ties, and then pages skip and repeat.
		page, err := get(ctx, n, "devices of application "+application, client.List, &api.ListDevicesRequest{
			ApplicationId: application, Limit: pageSize, Offset: offset, OrderBy: api.ListDevicesRequest_DEV_EUI})
		if err != nil {
			return nil, err
		}
		for _, item := range page.GetResult() {
			d, err := n.device(ctx, application, item)
			if err != nil {
				return nil, err
			}
			if !seen[d.EUI] {
				seen[d.EUI] = true
				out = append(out, d)
			}
		}
		offset += uint32(len(page.GetResult()))
		if len(page.GetResult()) == 0 || offset >= page.GetTotalCount() {
			return out, nil
		}
	}
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
		Tags: item.GetTags(), LoRaWAN11: p.lorawan11, Class: network.ClassA, Battery: -1}
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
	app, err := get(ctx, n, "application "+application, api.NewApplicationServiceClient(n.conn).Get,
		&api.GetApplicationRequest{Id: application})
	if err != nil {
		return nil, err
	}
	client := api.NewGatewayServiceClient(n.conn)
	var out []network.Gateway
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
			if !seen[id] {
				seen[id] = true
				out = append(out, network.Gateway{ID: id, Name: item.GetName(), Online: item.GetState() == api.GatewayState_ONLINE})
			}
		}
		offset += uint32(len(page.GetResult()))
		if len(page.GetResult()) == 0 || offset >= page.GetTotalCount() {
			return out, nil
		}
	}
}

// RootKey implements [network.Network]. For LoRaWAN 1.0.x ChirpStack keeps GenAppKey in a field of its own
// since 4.12; a key that was never set reads as zeros.
func (n *Network) RootKey(ctx context.Context, device network.EUI64) (network.Key, error) {
	client := api.NewDeviceServiceClient(n.conn)
	n.mu.Lock()
	profileID, ok := n.devices[device]
	n.mu.Unlock()
	if !ok {
		res, err := get(ctx, n, "device "+device.String(), client.Get, &api.GetDeviceRequest{DevEui: device.String()})
		if err != nil {
			return network.Key{}, err
		}
		profileID = res.GetDevice().GetDeviceProfileId()
	}
	p, err := n.profile(ctx, profileID)
	if err != nil {
		return network.Key{}, err
	}
	n.mu.Lock()
	n.devices[device] = profileID
	n.mu.Unlock()
	res, err := get(ctx, n, "keys of "+device.String(), client.GetKeys, &api.GetDeviceKeysRequest{DevEui: device.String()})
	if err != nil {
		return network.Key{}, err
	}
	name, text := "GenAppKey", res.GetDeviceKeys().GetGenAppKey()
	if p.lorawan11 {
		name, text = "AppKey", res.GetDeviceKeys().GetAppKey()
	}
	var key network.Key
	if text != "" {
		// The text is a key: it must not appear in an error.
		if b, err := hex.DecodeString(text); err != nil || len(b) != len(key) {
			return network.Key{}, fmt.Errorf("chirpstack: %s of %s: %w: not 32 hexadecimal digits", name, device, network.ErrInvalid)
		} else {
			copy(key[:], b)
		}
	}
	if key == (network.Key{}) {
		return network.Key{}, fmt.Errorf("chirpstack: %s of %s: %w: never set; enter it under the keys of the device",
			name, device, network.ErrNotFound)
	}
	return key, nil
}

// Send implements [network.Network].
func (n *Network) Send(ctx context.Context, m network.Message) (network.MessageID, error) {
	// ChirpStack cuts the port to 8 bits before it looks at it.
	if m.FPort == 0 || m.FPort > 223 && m.FPort != 225 {
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
