package networkserver

import (
	"context"
	"slices"

	"github.com/brocaar/lorawan"
	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

type multicastService struct {
	api.UnimplementedMulticastGroupServiceServer
	s *Server
}

// group finds a group by its normal id.
func (s *Server) group(id string) *group {
	for _, g := range s.groups {
		if g.conf.Id == id {
			return g
		}
	}
	return nil
}

// groupOf finds a group as an administrator's key does.
func (x multicastService) groupOf(text string) (*group, error) {
	id, err := parseUUID(text)
	if err != nil {
		return nil, err
	}
	g := x.s.group(id)
	if g == nil {
		return nil, errNotFound(id)
	}
	return g, nil
}

func (g *group) pinned(id lorawan.EUI64) bool { return slices.Contains(g.gateways, id) }

// configure takes everything from the request, the frame counter included. Only the name is validated.
func (g *group) configure(m *api.MulticastGroup) error {
	if m.Name == "" {
		return status.Error(codes.InvalidArgument, "Validation error: name is not set")
	}
	var addr lorawan.DevAddr
	var nwk, app lorawan.AES128Key
	for _, f := range []struct {
		dst  []byte
		text string
	}{{addr[:], m.McAddr}, {nwk[:], m.McNwkSKey}, {app[:], m.McAppSKey}} {
		if err := parseHex(f.dst, f.text); err != nil {
			return err
		}
	}
	g.conf, g.addr, g.nwkSKey, g.appSKey = m, addr, nwk, app
	return nil
}

func (x multicastService) Create(_ context.Context, r *api.CreateMulticastGroupRequest) (*api.CreateMulticastGroupResponse, error) {
	if r.MulticastGroup == nil {
		return nil, errMissing("multicast_group")
	}
	conf := proto.CloneOf(r.MulticastGroup)
	app, err := parseUUID(conf.ApplicationId)
	if err != nil {
		return nil, err
	}
	if x.s.app(app) == nil {
		return nil, lookupError{x.s.errForeignKey("multicast_group")}
	}
	now := timestamp(x.s.world.Now())
	g := &group{devices: map[lorawan.EUI64]bool{}, created: now, updated: now}
	if err := g.configure(conf); err != nil {
		return nil, err
	}
	conf.ApplicationId = app
	conf.Id = x.s.newID("multicast group")
	x.s.groups = append(x.s.groups, g)
	return &api.CreateMulticastGroupResponse{Id: conf.Id}, nil
}

func (x multicastService) Get(_ context.Context, r *api.GetMulticastGroupRequest) (*api.GetMulticastGroupResponse, error) {
	g, err := x.groupOf(r.Id)
	if err != nil {
		return nil, err
	}
	return &api.GetMulticastGroupResponse{MulticastGroup: proto.CloneOf(g.conf), CreatedAt: g.created, UpdatedAt: g.updated}, nil
}

func (x multicastService) Update(_ context.Context, r *api.UpdateMulticastGroupRequest) (*emptypb.Empty, error) {
	if r.MulticastGroup == nil {
		return nil, errMissing("multicast_group")
	}
	g, err := x.groupOf(r.MulticastGroup.Id)
	if err != nil {
		return nil, err
	}
	id, app := g.conf.Id, g.conf.ApplicationId
	if err := g.configure(proto.CloneOf(r.MulticastGroup)); err != nil {
		return nil, err
	}
	g.conf.Id, g.conf.ApplicationId = id, app // neither can be changed
	g.updated = timestamp(x.s.world.Now())
	return &emptypb.Empty{}, nil
}

func (x multicastService) Delete(_ context.Context, r *api.DeleteMulticastGroupRequest) (*emptypb.Empty, error) {
	g, err := x.groupOf(r.Id)
	if err != nil {
		return nil, err
	}
	x.s.groups = slices.DeleteFunc(x.s.groups, func(other *group) bool { return other == g })
	x.s.arm()
	return &emptypb.Empty{}, nil
}

func (x multicastService) List(_ context.Context, r *api.ListMulticastGroupsRequest) (*api.ListMulticastGroupsResponse, error) {
	var app string
	var err error
	if r.ApplicationId != "" || r.TenantId == "" { // a tenant authorises, but does not filter
		if app, err = parseUUID(r.ApplicationId); err != nil {
			return nil, err
		}
	} else if _, err := parseUUID(r.TenantId); err != nil {
		return nil, err
	}
	var member *lorawan.EUI64
	if r.DevEui != "" {
		eui, err := parseEUI(r.DevEui)
		if err != nil {
			return nil, err
		}
		member = &eui
	}
	var all []*api.MulticastGroupListItem
	for _, g := range x.s.groups {
		if app != "" && g.conf.ApplicationId != app || member != nil && !g.devices[*member] || !matches(g.conf.Name, r.Search) {
			continue
		}
		all = append(all, &api.MulticastGroupListItem{
			Id: g.conf.Id, Name: g.conf.Name, Region: g.conf.Region, GroupType: g.conf.GroupType, CreatedAt: g.created, UpdatedAt: g.updated,
			ApplicationId: g.conf.ApplicationId, ApplicationName: x.s.app(g.conf.ApplicationId).Name,
		})
	}
	shuffle(x.s, all)
	sortBy(all, false, func(g *api.MulticastGroupListItem) string { return g.Name })
	return &api.ListMulticastGroupsResponse{TotalCount: uint32(len(all)), Result: page(all, r.Limit, r.Offset)}, nil
}

// groupAnd finds a group and reads the EUI of a device or gateway.
func (x multicastService) groupAnd(id, text string) (g *group, eui lorawan.EUI64, err error) {
	if g, err = x.groupOf(id); err == nil {
		eui, err = parseEUI(text)
	}
	return g, eui, err
}

func (x multicastService) AddDevice(_ context.Context, r *api.AddDeviceToMulticastGroupRequest) (*emptypb.Empty, error) {
	g, eui, err := x.groupAnd(r.MulticastGroupId, r.DevEui)
	if err != nil {
		return nil, err
	}
	d := x.s.byEUI[eui]
	if d == nil || d.app.ID != g.conf.ApplicationId {
		return nil, errAbsent(eui.String())
	}
	if g.devices[d.EUI] {
		return nil, x.s.errDuplicate("multicast_group_device", "dev_eui")
	}
	g.devices[d.EUI] = true
	return &emptypb.Empty{}, nil
}

func (x multicastService) RemoveDevice(_ context.Context, r *api.RemoveDeviceFromMulticastGroupRequest) (*emptypb.Empty, error) {
	g, eui, err := x.groupAnd(r.MulticastGroupId, r.DevEui)
	if err != nil {
		return nil, err
	}
	if !g.devices[eui] {
		return nil, errAbsent("multicast-group: " + g.conf.Id + ", device: " + eui.String())
	}
	delete(g.devices, eui)
	return &emptypb.Empty{}, nil
}

func (x multicastService) AddGateway(_ context.Context, r *api.AddGatewayToMulticastGroupRequest) (*emptypb.Empty, error) {
	g, id, err := x.groupAnd(r.MulticastGroupId, r.GatewayId)
	if err != nil {
		return nil, err
	}
	if x.s.gatewayByID(id) == nil {
		return nil, errAbsent(id.String())
	}
	if g.pinned(id) {
		return nil, x.s.errDuplicate("multicast_group_gateway", "gateway_id")
	}
	g.pin(id)
	return &emptypb.Empty{}, nil
}

func (x multicastService) RemoveGateway(_ context.Context, r *api.RemoveGatewayFromMulticastGroupRequest) (*emptypb.Empty, error) {
	g, id, err := x.groupAnd(r.MulticastGroupId, r.GatewayId)
	if err != nil {
		return nil, err
	}
	if !g.pinned(id) {
		return nil, errAbsent("multicast-group: " + g.conf.Id + ", gateway: " + id.String())
	}
	g.gateways = slices.DeleteFunc(g.gateways, func(other lorawan.EUI64) bool { return other == id })
	return &emptypb.Empty{}, nil
}

// Enqueue ignores the frame counter of the request and says nothing if there is no gateway.
func (x multicastService) Enqueue(_ context.Context, r *api.EnqueueMulticastGroupQueueItemRequest) (*api.EnqueueMulticastGroupQueueItemResponse, error) {
	q := r.QueueItem
	if q == nil {
		return nil, errMissing("queue_item")
	}
	g, err := x.groupOf(q.MulticastGroupId)
	if err != nil {
		return nil, err
	}
	if q.FPort == 0 || q.FPort > 255 {
		return nil, status.Error(codes.Internal, status.Convert(fPortError).Message()) // as every error within its transaction
	}
	fCnt, err := x.s.enqueue(g, uint8(q.FPort), slices.Clone(q.Data), expiry(q.ExpiresAt))
	if err != nil {
		return nil, err
	}
	return &api.EnqueueMulticastGroupQueueItemResponse{FCnt: fCnt}, nil
}

func (x multicastService) FlushQueue(_ context.Context, r *api.FlushMulticastGroupQueueRequest) (*emptypb.Empty, error) {
	g, err := x.groupOf(r.MulticastGroupId)
	if err != nil {
		return nil, err
	}
	g.queue = nil
	x.s.arm()
	return &emptypb.Empty{}, nil
}

func (x multicastService) ListQueue(_ context.Context, r *api.ListMulticastGroupQueueRequest) (*api.ListMulticastGroupQueueResponse, error) {
	g, err := x.groupOf(r.MulticastGroupId)
	if err != nil {
		return nil, err
	}
	resp := &api.ListMulticastGroupQueueResponse{}
	for _, q := range g.counters() {
		resp.Items = append(resp.Items, &api.MulticastGroupQueueItem{
			MulticastGroupId: g.conf.Id, FCnt: q.fCnt, FPort: uint32(q.fPort), Data: q.data, ExpiresAt: timestamp(q.expires),
		})
	}
	return resp, nil
}
