package conformance

import (
	"fmt"
	"time"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"github.com/chirpstack/chirpstack/api/go/v4/common"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// checkRecords reads what there is of each kind, field by field.
func (s *suite) checkRecords() error {
	group, err := s.group(1, func(g *api.MulticastGroup) { g.FCnt = 0 })
	if err != nil {
		return err
	}
	eui := s.devices[0].String()
	later := timestamppb.New(s.World.Now().Add(time.Hour))
	if _, err := s.dev().Enqueue(s.ctx, &api.EnqueueDeviceQueueItemRequest{QueueItem: &api.DeviceQueueItem{DevEui: eui, FPort: 10, Data: []byte("q"), ExpiresAt: later}}); err != nil {
		return err
	}
	if _, err := s.mc().Enqueue(s.ctx, &api.EnqueueMulticastGroupQueueItemRequest{QueueItem: &api.MulticastGroupQueueItem{MulticastGroupId: group, FPort: 10, Data: []byte("q"), ExpiresAt: later}}); err != nil {
		return err
	}
	gateways := api.NewGatewayServiceClient(s.Conn)
	apps := api.NewApplicationServiceClient(s.Conn)
	now := s.World.Now()
	for _, record := range []struct {
		name string
		get  func() (proto.Message, error)
		only []string // beginnings of names; the others are nobody's business here
	}{
		{"device", func() (proto.Message, error) { return s.dev().Get(s.ctx, &api.GetDeviceRequest{DevEui: eui}) }, nil},
		{"devices", func() (proto.Message, error) {
			return s.dev().List(s.ctx, &api.ListDevicesRequest{ApplicationId: s.site.Application, Limit: 1, OrderBy: api.ListDevicesRequest_DEV_EUI})
		}, nil},
		{"keys", func() (proto.Message, error) { return s.dev().GetKeys(s.ctx, &api.GetDeviceKeysRequest{DevEui: eui}) }, nil},
		{"activation", func() (proto.Message, error) {
			return s.dev().GetActivation(s.ctx, &api.GetDeviceActivationRequest{DevEui: eui})
		}, nil},
		{"queue", func() (proto.Message, error) {
			return s.dev().GetQueue(s.ctx, &api.GetDeviceQueueItemsRequest{DevEui: eui})
		}, nil},
		{"metrics", func() (proto.Message, error) {
			return s.dev().GetLinkMetrics(s.ctx, &api.GetDeviceLinkMetricsRequest{DevEui: eui, Start: timestamppb.New(now.Add(-time.Hour)), End: timestamppb.New(now), Aggregation: common.Aggregation_HOUR})
		}, []string{"rxPackets", "gwSnr", "gwRssi"}},
		{"group", func() (proto.Message, error) { return s.mc().Get(s.ctx, &api.GetMulticastGroupRequest{Id: group}) }, nil},
		{"groups", func() (proto.Message, error) {
			return s.mc().List(s.ctx, &api.ListMulticastGroupsRequest{ApplicationId: s.site.Application, Limit: 1})
		}, nil},
		{"group queue", func() (proto.Message, error) {
			return s.mc().ListQueue(s.ctx, &api.ListMulticastGroupQueueRequest{MulticastGroupId: group})
		}, nil},
		{"gateways", func() (proto.Message, error) {
			return gateways.List(s.ctx, &api.ListGatewaysRequest{MulticastGroupId: group, Limit: 1, TenantId: s.site.Tenant, OrderBy: api.ListGatewaysRequest_GATEWAY_ID})
		}, nil},
		{"application", func() (proto.Message, error) {
			return apps.Get(s.ctx, &api.GetApplicationRequest{Id: s.site.Application})
		}, nil},
		{"applications", func() (proto.Message, error) {
			return apps.List(s.ctx, &api.ListApplicationsRequest{TenantId: s.site.Tenant, Limit: 1})
		}, []string{"result"}},
		{"profile", func() (proto.Message, error) {
			r, err := api.NewDeviceProfileServiceClient(s.Conn).Get(s.ctx, &api.GetDeviceProfileRequest{Id: s.site.Profile})
			return r.GetDeviceProfile(), err
		}, []string{"id", "tenantId", "name", "region", "macVersion", "regParams", "adr", "supports", "flush", "uplinkInterval", "deviceStatus", "appLayer"}},
	} {
		m, err := record.get()
		if err != nil {
			return fmt.Errorf("%s: %w", record.name, err)
		}
		if err := s.message(record.name, m, record.only...); err != nil {
			return err
		}
	}
	if _, err := s.dev().FlushQueue(s.ctx, &api.FlushDeviceQueueRequest{DevEui: eui}); err != nil {
		return err
	}
	return s.over(group)
}
