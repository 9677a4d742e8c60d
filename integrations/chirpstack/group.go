package chirpstack

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/engine/network"
)

var regions = map[airtime.Region]common.Region{
	airtime.EU868: common.Region_EU868, airtime.US915: common.Region_US915, airtime.AU915: common.Region_AU915,
	airtime.AS923: common.Region_AS923, airtime.IN865: common.Region_IN865, airtime.KR920: common.Region_KR920,
}

// OpenGroup implements [network.Network]. Gateways are pinned: left to itself ChirpStack may choose others for
// each message, or none at all without a word.
func (n *Network) OpenGroup(ctx context.Context, g network.Group) (network.GroupID, error) {
	if err := n.judge(ctx, g); err != nil {
		return "", err
	}
	client := api.NewMulticastGroupServiceClient(n.conn)
	addr := fmt.Sprintf("%08x", g.McAddr)
	id, err := n.findGroup(ctx, g.Application, g.Name, addr)
	if err != nil {
		return "", err
	}
	if id == "" {
		// Not repeatable by itself, but the search above finds what an earlier attempt has made.
		res, err := once(ctx, n, "create group "+g.Name, client.Create, &api.CreateMulticastGroupRequest{
			MulticastGroup: &api.MulticastGroup{
				Name: g.Name, ApplicationId: g.Application, Region: regions[n.cfg.Region], McAddr: addr,
				McNwkSKey: hex.EncodeToString(g.NwkSKey[:]), McAppSKey: hex.EncodeToString(g.AppSKey[:]),
				GroupType: api.MulticastGroupType_CLASS_C, Dr: uint32(g.DataRate), Frequency: g.Frequency,
				ClassCSchedulingType: api.MulticastGroupSchedulingType_DELAY,
			}})
		if err != nil {
			return "", err
		}
		id = res.GetId()
	}
	for _, gw := range g.Gateways {
		_, err := get(ctx, n, "gateway "+gw.String()+" of group "+g.Name, client.AddGateway,
			&api.AddGatewayToMulticastGroupRequest{MulticastGroupId: id, GatewayId: gw.String()})
		if err != nil && !errors.Is(err, errExists) {
			return "", err
		}
	}
	// With pinned gateways membership has no effect; it shows people which devices the group is for.
	for _, dev := range g.Devices {
		_, err := get(ctx, n, "device "+dev.String()+" of group "+g.Name, client.AddDevice,
			&api.AddDeviceToMulticastGroupRequest{MulticastGroupId: id, DevEui: dev.String()})
		if err != nil && !errors.Is(err, errExists) {
			return "", err
		}
	}
	n.mu.Lock()
	n.groups[network.GroupID(id)] = group{application: g.Application, dataRate: g.DataRate}
	n.mu.Unlock()
	return network.GroupID(id), nil
}

// judge refuses what ChirpStack would accept and then not carry out.
func (n *Network) judge(ctx context.Context, g network.Group) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("chirpstack: group %s: %w: %s", g.Name, network.ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case g.Name == "":
		return bad("it has no name")
	case len(g.Gateways) == 0:
		return bad("it has no gateways, so nothing would be sent")
	case g.Class != network.ClassC:
		return bad("class %c, want C", g.Class)
	case g.Frequency == 0:
		return bad("it has no frequency")
	case g.AppSKey == network.Key{} || g.NwkSKey == network.Key{}:
		return bad("a session key is all zero")
	}
	if _, err := n.maxPayload(g.DataRate); err != nil {
		return bad("%s", err)
	}
	gateways, err := n.Gateways(ctx, g.Application)
	if err != nil {
		return err
	}
	for _, id := range g.Gateways {
		known := false
		for _, gw := range gateways {
			if gw.ID == id {
				known = true
				if !gw.Online {
					return bad("gateway %s (%s) is offline; put it into operation or leave it out", id, gw.Name)
				}
			}
		}
		if !known {
			return fmt.Errorf("chirpstack: group %s: gateway %s: %w in the tenant of the application", g.Name, id, network.ErrNotFound)
		}
	}
	return nil
}

// findGroup returns the id of the group of that name and address; "" if there is none.
func (n *Network) findGroup(ctx context.Context, application, name, addr string) (string, error) {
	client := api.NewMulticastGroupServiceClient(n.conn)
	for offset := uint32(0); ; {
		page, err := get(ctx, n, "groups of application "+application, client.List, &api.ListMulticastGroupsRequest{
			ApplicationId: application, Search: name, Limit: pageSize, Offset: offset})
		if err != nil {
			return "", err
		}
		for _, item := range page.GetResult() {
			if item.GetName() != name {
				continue // the search is for a part of the name
			}
			res, err := get(ctx, n, "group "+name, client.Get, &api.GetMulticastGroupRequest{Id: item.GetId()})
			if err != nil {
				return "", err
			}
			if strings.EqualFold(res.GetMulticastGroup().GetMcAddr(), addr) {
				return item.GetId(), nil
			}
			return "", fmt.Errorf("chirpstack: group %s: %w: exists with address %s, want %s; another campaign of this name left it",
				name, network.ErrInvalid, res.GetMulticastGroup().GetMcAddr(), addr)
		}
		offset += uint32(len(page.GetResult()))
		if len(page.GetResult()) == 0 || offset >= page.GetTotalCount() {
			return "", nil
		}
	}
}

// GroupState implements [network.Network].
func (n *Network) GroupState(ctx context.Context, id network.GroupID) (network.GroupState, error) {
	client := api.NewMulticastGroupServiceClient(n.conn)
	res, err := get(ctx, n, "group "+string(id), client.Get, &api.GetMulticastGroupRequest{Id: string(id)})
	if err != nil {
		return network.GroupState{}, err
	}
	queue, err := get(ctx, n, "queue of group "+string(id), client.ListQueue,
		&api.ListMulticastGroupQueueRequest{MulticastGroupId: string(id)})
	if err != nil {
		return network.GroupState{}, err
	}
	st := network.GroupState{NextFCnt: res.GetMulticastGroup().GetFCnt()}
	for _, item := range queue.GetItems() {
		st.Queued = append(st.Queued, item.GetFCnt())
	}
	return st, nil
}

// Broadcast implements [network.Network].
func (n *Network) Broadcast(ctx context.Context, b network.Broadcast) (uint32, error) {
	bad := func(format string, args ...any) (uint32, error) {
		return 0, fmt.Errorf("chirpstack: group %s: %w: %s", b.Group, network.ErrInvalid, fmt.Sprintf(format, args...))
	}
	n.mu.Lock()
	g, ok := n.groups[b.Group]
	n.mu.Unlock()
	switch limit, err := n.maxPayload(g.dataRate); {
	case !ok:
		return 0, fmt.Errorf("chirpstack: group %s: %w: not opened", b.Group, network.ErrNotFound)
	case err != nil:
		return bad("%s", err)
	case len(b.Payload) > limit:
		return bad("payload of %d bytes, DR%d carries %d", len(b.Payload), g.dataRate, limit)
	case b.FPort == 0 || b.FPort > 223:
		return bad("FPort %d, want 1..223", b.FPort)
	case b.Expires.IsZero():
		return bad("no expiry: without one ChirpStack repeats a frame for ever that no gateway acknowledges")
	}
	n.enqueue.Lock()
	defer n.enqueue.Unlock()
	res, err := once(ctx, n, "group "+string(b.Group), api.NewMulticastGroupServiceClient(n.conn).Enqueue,
		&api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: string(b.Group),
			FPort: uint32(b.FPort), Data: b.Payload, ExpiresAt: timestamppb.New(b.Expires)}})
	if err != nil {
		return 0, err
	}
	return res.GetFCnt(), nil
}

// CloseGroup implements [network.Network].
func (n *Network) CloseGroup(ctx context.Context, id network.GroupID) error {
	// Deleting the group deletes its queue.
	_, err := get(ctx, n, "delete group "+string(id), api.NewMulticastGroupServiceClient(n.conn).Delete,
		&api.DeleteMulticastGroupRequest{Id: string(id)})
	n.mu.Lock()
	g, opened := n.groups[id]
	n.mu.Unlock()
	if errors.Is(err, network.ErrDenied) && opened {
		// The key of a tenant is told the same of a group that is gone.
		if gone, goneErr := n.gone(ctx, g.application, id); goneErr == nil && gone {
			err = nil
		}
	}
	if err != nil && !errors.Is(err, network.ErrNotFound) {
		return err
	}
	n.mu.Lock()
	delete(n.groups, id)
	n.mu.Unlock()
	return nil
}

// gone reports whether an application has no group of that id.
func (n *Network) gone(ctx context.Context, application string, id network.GroupID) (bool, error) {
	client := api.NewMulticastGroupServiceClient(n.conn)
	for offset := uint32(0); ; {
		page, err := get(ctx, n, "groups of application "+application, client.List, &api.ListMulticastGroupsRequest{
			ApplicationId: application, Limit: pageSize, Offset: offset})
		if err != nil {
			return false, err
		}
		for _, item := range page.GetResult() {
			if item.GetId() == string(id) {
				return false, nil
			}
		}
		offset += uint32(len(page.GetResult()))
		if len(page.GetResult()) == 0 || offset >= page.GetTotalCount() {
			return true, nil
		}
	}
}
