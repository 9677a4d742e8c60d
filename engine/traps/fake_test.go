package traps_test

import (
	"context"
	"net"
	"testing"

	"github.com/chirpstack/chirpstack/api/go/v4/api"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sower-fuota/sower/airtime"
	"github.com/sower-fuota/sower/integrations/chirpstack"
)

// fake is a server for what the simulated one does not do: each call answers with what a field holds.
type fake struct {
	gateways []*api.GatewayListItem
	profile  *api.DeviceProfile
	keys     *api.DeviceKeys
	queue    []*api.MulticastGroupQueueItem
	enqueue  func()
}

func (f *fake) serve(t *testing.T) *chirpstack.Network {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	api.RegisterApplicationServiceServer(s, fakeApplications{})
	api.RegisterGatewayServiceServer(s, fakeGateways{fake: f})
	api.RegisterMulticastGroupServiceServer(s, fakeGroups{fake: f})
	api.RegisterDeviceProfileServiceServer(s, fakeProfiles{fake: f})
	api.RegisterDeviceServiceServer(s, fakeDevices{fake: f})
	go s.Serve(l)
	t.Cleanup(s.Stop)
	cs, err := chirpstack.Dial(chirpstack.Config{Server: l.Addr().String(), Token: token, Region: airtime.EU868})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cs.Close() })
	return cs
}

type fakeApplications struct {
	api.UnimplementedApplicationServiceServer
}

func (fakeApplications) Get(context.Context, *api.GetApplicationRequest) (*api.GetApplicationResponse, error) {
	return &api.GetApplicationResponse{Application: &api.Application{Id: appID, TenantId: tenantID}}, nil
}

type fakeGateways struct {
	api.UnimplementedGatewayServiceServer
	*fake
}

func (f fakeGateways) List(context.Context, *api.ListGatewaysRequest) (*api.ListGatewaysResponse, error) {
	return &api.ListGatewaysResponse{TotalCount: uint32(len(f.gateways)), Result: f.gateways}, nil
}

type fakeGroups struct {
	api.UnimplementedMulticastGroupServiceServer
	*fake
}

func (fakeGroups) List(context.Context, *api.ListMulticastGroupsRequest) (*api.ListMulticastGroupsResponse, error) {
	return &api.ListMulticastGroupsResponse{}, nil
}

func (fakeGroups) Create(context.Context, *api.CreateMulticastGroupRequest) (*api.CreateMulticastGroupResponse, error) {
	return &api.CreateMulticastGroupResponse{Id: "g"}, nil
}

func (fakeGroups) AddGateway(context.Context, *api.AddGatewayToMulticastGroupRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, nil
}

func (fakeGroups) Get(_ context.Context, r *api.GetMulticastGroupRequest) (*api.GetMulticastGroupResponse, error) {
	return &api.GetMulticastGroupResponse{MulticastGroup: &api.MulticastGroup{Id: r.Id, ApplicationId: appID, McAddr: "01020304", Dr: mcDR}}, nil
}

func (f fakeGroups) ListQueue(context.Context, *api.ListMulticastGroupQueueRequest) (*api.ListMulticastGroupQueueResponse, error) {
	return &api.ListMulticastGroupQueueResponse{Items: f.queue}, nil
}

func (f fakeGroups) Enqueue(context.Context, *api.EnqueueMulticastGroupQueueItemRequest) (*api.EnqueueMulticastGroupQueueItemResponse, error) {
	f.enqueue()
	return &api.EnqueueMulticastGroupQueueItemResponse{}, nil
}

type fakeProfiles struct {
	api.UnimplementedDeviceProfileServiceServer
	*fake
}

func (f fakeProfiles) Get(context.Context, *api.GetDeviceProfileRequest) (*api.GetDeviceProfileResponse, error) {
	return &api.GetDeviceProfileResponse{DeviceProfile: f.profile}, nil
}

type fakeDevices struct {
	api.UnimplementedDeviceServiceServer
	*fake
}

func (f fakeDevices) Get(context.Context, *api.GetDeviceRequest) (*api.GetDeviceResponse, error) {
	return &api.GetDeviceResponse{Device: &api.Device{DeviceProfileId: profileID}}, nil
}

func (f fakeDevices) GetKeys(context.Context, *api.GetDeviceKeysRequest) (*api.GetDeviceKeysResponse, error) {
	return &api.GetDeviceKeysResponse{DeviceKeys: f.keys}, nil
}
